"""Chat formats: how a system text and a user turn become the tokens before the judge's answer.

A format is recognised by the chat template that the tokenizer carries; the template itself is never run.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rocketjax.errors import RocketError
from rocketjax.prompt.template import Part, Span, Special
from rocketjax.prompt.tokenizer import Tokenizer


@dataclass(frozen=True)
class Chat:
    """`render(system, user, cue)` gives the whole prompt, up to where the judge answers, without a leading BOS.

    The cue is what a prompt without turns needs before the answer.
    """

    name: str
    render: Callable[[str, Sequence[Part], str], list[Part]]


def stripped(parts: Sequence[Part]) -> list[Part]:
    """The parts without white space at either end, as Gemma's and Llama's templates trim each turn."""
    out = list(parts)
    for end, strip in ((0, str.lstrip), (-1, str.rstrip)):
        while out:
            part = out[end]
            if isinstance(part, Special):
                break
            text = strip(part if isinstance(part, str) else part.text)
            if text:
                out[end] = text if isinstance(part, str) else Span(text)
                break
            out.pop(end)
    return out


def chatml(default_system: str, answer: Sequence[Part] = ()) -> Chat:
    """`<|im_start|>role ... <|im_end|>` (SmolLM2, Qwen); some owners put a system turn where there is none.

    `answer` is what the judge's own turn begins with.
    """
    start, end = Special("<|im_start|>"), Special("<|im_end|>")

    def render(system: str, user: Sequence[Part], cue: str) -> list[Part]:
        system = system or default_system
        head: list[Part] = [start, "system\n" + system, end, "\n"] if system else []
        return [*head, start, "user\n", *user, end, "\n", start, "assistant\n", *answer]

    return Chat("chatml", render)


# How Qwen 3's own template lets it answer at once (enable_thinking=False): with thoughts that are over.
NO_THOUGHTS: tuple[Part, ...] = (Special("<think>"), "\n\n", Special("</think>"), "\n\n")


def llama3(dated: bool) -> Chat:
    """`<|start_header_id|>role<|end_header_id|> ... <|eot_id|>` (Llama 3).

    From 3.1 on every prompt has a system turn with two dates. 3.2's template takes today's where it can get it; here
    it is always the one that 3.1's falls back on, or the same prompt would get another grade tomorrow.
    """
    end = Special("<|eot_id|>")
    dates = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n" if dated else ""

    def header(role: str) -> list[Part]:
        return [Special("<|start_header_id|>"), role, Special("<|end_header_id|>"), "\n\n"]

    def render(system: str, user: Sequence[Part], cue: str) -> list[Part]:
        system = dates + system.strip()
        head: list[Part] = [*header("system"), system, end] if system else []
        return [*head, *header("user"), *stripped(user), end, *header("assistant")]

    return Chat("llama3", render)


def gemma(system: str, user: Sequence[Part], cue: str) -> list[Part]:
    """Gemma has no system role. Gemma 3's own template puts the system text before the first user turn; Gemma 2's
    refuses one, so to do the same there is this project's choice."""
    start, end = Special("<start_of_turn>"), Special("<end_of_turn>")
    turn = ([system + "\n\n"] if system else []) + stripped(user)
    return [start, "user\n", *turn, end, "\n", start, "model\n"]


def plain(system: str, user: Sequence[Part], cue: str) -> list[Part]:
    """For base models, which know no turns: the text, and the cue."""
    return [*([system + "\n\n"] if system else []), *user, *([cue] if cue else [])]


def chat_format(tokenizer: Tokenizer) -> Chat:
    """The format of this tokenizer's own chat template; plain text where it carries none.

    Raises RocketError for a chat template that no format here covers.
    """
    source = tokenizer.chat_template
    if source is None:
        return Chat("plain", plain)
    if "<|im_start|>" in source:
        # The template's text has the line break either as such or as jinja's escape.
        found = re.search(r"<\|im_start\|>system(?:\\n|\n)([^{}'\"]+?)<\|im_end\|>", source)
        default = found.group(1).replace("\\n", "\n") if found else ""
        if "enable_thinking" in source:
            return chatml(default, NO_THOUGHTS)
        if re.search(r"assistant(?:\\n|\n)<think>", source):
            raise RocketError("this judge thinks before it answers and cannot be told not to; use its Instruct form")
        return chatml(default)
    if "<|start_header_id|>" in source:
        return llama3(dated="Cutting Knowledge Date" in source)
    if "<start_of_turn>" in source:
        return Chat("gemma", gemma)
    raise RocketError("this judge's chat template is of a kind not known here; known are ChatML, Llama 3's and Gemma's")
