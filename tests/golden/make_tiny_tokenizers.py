"""The tokenizers of the tiny models: vocabularies of the owners' kinds, small enough to commit.

    pip install tokenizers==0.23.3 sentencepiece==0.2.3
    python tests/golden/make_tiny_tokenizers.py [NAME ...]      # all, or those named

writes tokenizer.json and tokenizer_config.json into tiny_llama/ (a byte-level BPE as SmolLM2's), tiny_llama3/,
tiny_qwen2/ and tiny_qwen3/ (byte-level BPE that cuts words as these families' do), and tokenizer.model and
tokenizer_config.json into tiny_gemma2/, tiny_gemma3/ and tiny_gemma3_mm/ (one SentencePiece BPE with byte fallback,
and entries that want to be matched in raw text, as Gemma's). All have single tokens for the variants of Yes and No.
The chat templates are written for these models; they have the owners' delimiters and default texts.
"""

import io
import json
import sys
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

HERE = Path(__file__).parent
LINES = [
    *["Yes", "No", "yes", "no", "YES", "NO"] * 20,
    *["It says Yes and No, yes and no, YES and NO.", "Yes No Yes No", "yes no yes no", "YES NO YES NO"] * 20,
    *["Is the response concise? Answer Yes or No.", "Does the response answer the question in the query?"] * 5,
    *["You are a helpful assistant.", "user system model assistant", "The quick brown fox is lazy."] * 5,
]

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
    "{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{% for message in messages %}{{ (bos_token if loop.first else '') + '<|start_header_id|>' + message['role'] "
    "+ '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
QWEN2 = CHATML.replace(
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
    "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
)
QWEN3 = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{% endif %}"
)
GEMMA2 = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}"
    "{{ message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
GEMMA = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '\n' + (first_user_prefix if loop.first else "") }}
    {{- message['content'] | trim }}
    {{- '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<start_of_turn>model\n' -}}
{%- endif -%}
"""


def tiny_llama(folder: Path) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "add_prefix_space": False,
        "bos_token": "<|im_start|>",
        "chat_template": CHATML,
        "eos_token": "<|im_end|>",
        "pad_token": "<|im_end|>",
        "tokenizer_class": "GPT2Tokenizer",
        "unk_token": "<|endoftext|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


# How Llama 3 and Qwen 2 cut text into words; they differ in how many digits stay together.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def words_bpe(
    folder: Path, words: str, special: list[str], config: dict[str, Any], plain: tuple[str, ...] = ()
) -> None:
    """A byte-level BPE of 320 entries: the special tokens, what is learnt, and the added tokens that aren't special."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=special[0] == "<|begin_of_text|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(words), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320 - len(plain),
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES, trainer)
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in plain])
    if bos := config["bos_token"]:
        first = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, 0)]
        )
        tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), first])
    else:
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    assert tokenizer.get_vocab_size() == 320
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def tiny_llama3(folder: Path) -> None:
    config = {
        "bos_token": "<|begin_of_text|>",
        "chat_template": LLAMA3,
        "eos_token": "<|eot_id|>",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    special = ["begin_of_text", "end_of_text", "start_header_id", "end_header_id", "eom_id", "eot_id"]
    words_bpe(folder, WORDS % "{1,3}", [f"<|{name}|>" for name in special], config)


def qwen(folder: Path, chat_template: str, plain: tuple[str, ...] = ()) -> None:
    config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "bos_token": None,
        "chat_template": chat_template,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    words_bpe(folder, WORDS % "", ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], config, plain)


def tiny_qwen2(folder: Path) -> None:
    qwen(folder, QWEN2)


def tiny_qwen3(folder: Path) -> None:
    qwen(folder, QWEN3, ("<think>", "</think>"))


def tiny_gemma3(folder: Path, chat_template: str = GEMMA) -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES),
        model_writer=model,
        model_type="bpe",
        vocab_size=376,
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        split_digits=True,
        hard_vocab_limit=True,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        pad_piece="<pad>",
        eos_piece="<eos>",
        bos_piece="<bos>",
        unk_piece="<unk>",
        user_defined_symbols=[
            *["<mask>", "[multimodal]", "<unused0>", "<unused1>", "<start_of_turn>", "<end_of_turn>"],
            *[
                "\n",
                "\n\n",
                "\n\n\n",
                "▁▁",
                "▁▁▁",
                "▁▁▁▁",
                "<table>",
                "</table>",
                "<b>",
                "</b>",
                "<s>",
                "</s>",
            ],
            *["\t", "\t\t", "<start_of_image>", "<end_of_image>"],
        ],
        minloglevel=2,
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    config = {
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<bos>",
        "chat_template": chat_template,
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "tokenizer_class": "GemmaTokenizer",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def tiny_gemma3_mm(folder: Path) -> None:
    tiny_gemma3(folder)


def tiny_gemma2(folder: Path) -> None:
    tiny_gemma3(folder, GEMMA2)


if __name__ == "__main__":
    for make in (tiny_llama, tiny_gemma3, tiny_llama3, tiny_qwen2, tiny_qwen3, tiny_gemma2, tiny_gemma3_mm):
        if make.__name__ in (sys.argv[1:] or make.__name__):
            folder = HERE / make.__name__
            folder.mkdir(exist_ok=True)
            make(folder)
