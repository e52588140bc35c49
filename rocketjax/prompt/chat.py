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
    """The parts without white space at either end, as Gemma's template trims each turn."""
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


def chatml(default_system: str) -> Chat:
    """`<|im_start|>role ... <|im_end|>` (SmolLM2, Qwen); some owners put a system turn where there is none."""
    start, end = Special("<|im_start|>"), Special("<|im_end|>")

    def render(system: str, user: Sequence[Part], cue: str) -> list[Part]:
        system = system or default_system
        head: list[Part] = [start, "system\n" + system, end, "\n"] if system else []
        return [*head, start, "user\n", *user, end, "\n", start, "assistant\n"]

    return Chat("chatml", render)


def gemma(system: str, user: Sequence[Part], cue: str) -> list[Part]:
    """Gemma has no system role: its owner's template puts the system text before the first user turn."""
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
        return chatml(found.group(1).replace("\\n", "\n") if found else "")
    if "<start_of_turn>" in source:
        return Chat("gemma", gemma)
    raise RocketError("this judge's chat template is of a kind not known here; known are ChatML and Gemma's")
