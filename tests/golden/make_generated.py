"""Golden texts: what transformers writes greedily, in float32 on CPU, after fixed prompts.

    pip install torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 gguf==0.19.0 safetensors==0.8.0
    python tests/golden/make_generated.py tiny            # generated_tiny.npz, from the tiny_*/ folders
    python tests/golden/make_generated.py real WEIGHTS    # generated_smollm2.json, from a folder with the real .gguf

Every text has 64 tokens, whatever they are (no token stops it). It is written by `generate` with its cache, and a whole
pass over the text without one must agree at every token. Prompts are drawn until the two most probable tokens are at
least 1e-3 apart at every step: a near tie could fall either way in another library.

generated_tiny.npz: `NAME.prompt_K` int32 [T], `NAME.tokens_K` int32 [64], `NAME.margins_K` and `NAME.logprobs_K`
float32 [64]: by how much each token leads, and its log probability.
generated_smollm2.json: `texts`, a list of `text`, `prompt`, `tokens`, `margins`, `logprobs`, and the `versions`.
"""

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = Path(__file__).parent
EXACT: dict[str, Any] = {"dtype": torch.float32, "attn_implementation": "eager"}
NEW = 64
MARGIN = 1e-3
TINY = ("tiny_llama", "tiny_llama3", "tiny_gemma2", "tiny_gemma3", "tiny_qwen2", "tiny_qwen3")
LENGTHS = (1, 7, 40, 130)  # the windows are 8
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
QUESTIONS = (
    "What is the capital of France?",
    "Write a short story about a lighthouse keeper who finds a letter in a bottle.",
    "Explain to a child why the sky is blue. Use simple words, and give one example from daily life.",
)


def greedy(model: Any, prompt: list[int]) -> tuple[list[int], list[float], list[float]]:
    """64 tokens, how far each is above the second best, and its log probability; from one whole pass over the text."""
    tokens = by_cache(model, prompt)
    with torch.inference_mode():
        logits = model(torch.tensor([prompt + tokens]), use_cache=False).logits[0, len(prompt) - 1 : -1]
    best = logits.topk(2)
    assert best.indices[:, 0].tolist() == tokens, "the library disagrees with itself"
    logprobs = best.values[:, 0].double() - logits.double().logsumexp(1)
    return tokens, (best.values[:, 0] - best.values[:, 1]).tolist(), logprobs.tolist()


def by_cache(model: Any, prompt: list[int]) -> list[int]:
    """64 tokens by the library's own loop."""
    ids = torch.tensor([prompt])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW, eos_token_id=None,
        pad_token_id=0,
    )  # fmt: skip
    return out[0, len(prompt) :].tolist()


def load(where: Path, **more: Any) -> Any:
    model = AutoModelForCausalLM.from_pretrained(where, **EXACT, **more).eval()
    model.generation_config.eos_token_id = None
    return model


def tiny() -> None:
    arrays = {}
    for name in TINY:
        model, rng = load(HERE / name), np.random.default_rng(0)
        for k, length in enumerate(LENGTHS):
            for tries in itertools.count(1):
                prompt = rng.integers(0, model.config.vocab_size, length).tolist()
                tokens, margins, logprobs = greedy(model, prompt)
                # Random Gemmas say one word again and again; then the log probabilities have to show mistakes.
                if min(margins) > MARGIN and (len(set(tokens)) > 8 or tries > 2):
                    break
            print(
                f"{name}: {length} tokens, {len(set(tokens))} new ones differ, smallest margin {min(margins):.4f}",
                flush=True,
            )
            arrays[f"{name}.prompt_{k}"] = np.asarray(prompt, np.int32)
            arrays[f"{name}.tokens_{k}"] = np.asarray(tokens, np.int32)
            arrays[f"{name}.margins_{k}"] = np.asarray(margins, np.float32)
            arrays[f"{name}.logprobs_{k}"] = np.asarray(logprobs, np.float32)
    np.savez_compressed(HERE / "generated_tiny.npz", **arrays)


def real(weights: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(weights, gguf_file=FILE)
    # See make_tokens.py.
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [digits, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    model = load(weights, gguf_file=FILE)
    texts = []
    for question in QUESTIONS:
        text = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        prompt = tokenizer.encode(text, add_special_tokens=False)
        tokens, margins, logprobs = greedy(model, prompt)
        print(f"{len(prompt)} tokens, smallest margin {min(margins):.4f}: {tokenizer.decode(tokens)!r}", flush=True)
        if min(margins) > MARGIN:
            texts.append({"text": text, "prompt": prompt, "tokens": tokens, "margins": margins, "logprobs": logprobs})
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "file": FILE}
    (HERE / "generated_smollm2.json").write_text(json.dumps({"versions": versions, "texts": texts}) + "\n")


if __name__ == "__main__":
    tiny() if sys.argv[1] == "tiny" else real(Path(sys.argv[2]))
