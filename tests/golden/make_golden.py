"""Golden logits: tiny random models and the two real ones, run by transformers in float32 on CPU.

    pip install torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 gguf==0.19.0 safetensors==0.8.0
    python tests/golden/make_tiny_tokenizers.py
    python tests/golden/make_golden.py tiny [NAME ...] # tiny_*/ and their .npz; all, or those named
    python tests/golden/make_gguf.py [NAME ...]        # tiny_*.gguf
    python tests/golden/make_golden.py gguf [NAME ...] # .npz of the .gguf; that transformers reads them right
    python tests/golden/make_golden.py real WEIGHTS    # real_*.npz, from a folder with both real .gguf files

Every model runs with `attn_implementation="eager"`. The seed is fixed, so a second run writes the same weights;
logits may move in the last bits with another torch or CPU.

`NAME.npz` belongs to the folder or file NAME: `ids_K` int32 [T], `logits_K` float32 [T, V] at all positions.
tiny_gemma2_gguf.npz and tiny_gemma3_gguf.npz belong to the .gguf without that suffix, whose query scale is not the
folder's (see make_gguf.py).

`real_*.npz`: `text_K` the whole prompt, `ids_K` [T], `positions_K` [3] (the last one is T - 1), and at those
positions, over the full vocabulary, `logsumexp_K` [3], `top_ids_K` and `top_logits_K` [3, 20], `fixed_logits_K`
[3, 50] of `fixed_ids`, `yes_logits_K` and `no_logits_K` of `yes_ids` and `no_ids`.
"""

import json
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import torch
from make_tokens import FILES
from safetensors.torch import load_file, save_file
from tokenizers import pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3Config,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

HERE = Path(__file__).parent
EXACT: dict[str, Any] = {"dtype": torch.float32, "attn_implementation": "eager"}

LLAMA = {
    "vocab_size": 320,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 10,  # not 48 / 6
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 256,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
UNTIED = LLAMA | {  # widths that Q8_0's blocks of 32 divide
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "head_dim": 16,
    "tie_word_embeddings": False,
}
GEMMA = {
    "vocab_size": 376,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 7,  # the sixth is full, the others slide
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "query_pre_attn_scalar": 24,
    "rms_norm_eps": 1e-6,
    "sliding_window": 8,
    "layer_types": ["full_attention" if i % 6 == 5 else "sliding_attention" for i in range(7)],
    "max_position_embeddings": 256,
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    },
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
LLAMA3 = UNTIED | {
    "num_key_value_heads": 2,
    "head_dim": 24,  # not 32 / 4
    "tie_word_embeddings": True,
    "max_position_embeddings": 512,
    "rope_parameters": {  # of the twelve wavelengths 6 stays, 19 and 56 are interpolated, 167 and longer are scaled
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "bos_token_id": 0,
    "eos_token_id": [1, 5],
    "pad_token_id": None,
}
QWEN2 = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 256,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    "use_sliding_window": False,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
QWEN3 = QWEN2 | {
    "head_dim": 16,  # not 32 / 4
    "tie_word_embeddings": True,
}
GEMMA2 = {
    "vocab_size": 376,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 4,  # the first and third slide
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "query_pre_attn_scalar": 24,
    "attn_logit_softcapping": 2.0,
    "final_logit_softcapping": 3.0,
    "rms_norm_eps": 1e-6,
    "sliding_window": 8,
    "max_position_embeddings": 256,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
# As published, only what differs from Gemma3TextConfig's defaults: those give 8 and 4 heads, an epsilon, the rotary
# bases, the six layers' period and a query scale of 256 ** -0.5.
GEMMA_TEXT = {
    "vocab_size": 376,
    "hidden_size": 24,
    "intermediate_size": 24,
    "num_hidden_layers": 7,
    "head_dim": 8,
    "sliding_window": 8,
    "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
}
GEMMA_VISION = {
    "hidden_size": 8,
    "image_size": 8,
    "intermediate_size": 8,
    "model_type": "siglip_vision_model",
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "patch_size": 4,
    "vision_use_head": False,
}
GEMMA_MM = {"text_config": GEMMA_TEXT, "vision_config": GEMMA_VISION, "mm_tokens_per_image": 4}


def randomise(model: torch.nn.Module, seed: int) -> None:
    """Weights at which every part matters: logits spread by 1 to 3, attention is neither flat nor one-hot."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if "norm" in name:
                weight.copy_(0.3 * noise + (0 if "Gemma" in type(model).__name__ else 1))
            elif "embed_tokens" in name or "lm_head" in name:
                weight.copy_(0.35 * noise)
            elif weight.ndim == 1:
                weight.copy_(0.5 * noise)
            else:
                weight.copy_(noise * 1.3 / weight.shape[1] ** 0.5)


def sequences(vocabulary: int, lengths: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, vocabulary, length).astype(np.int32) for length in lengths]


def logits(model: torch.nn.Module, ids: np.ndarray) -> np.ndarray:
    """[T, V]"""
    with torch.inference_mode():
        return model(torch.from_numpy(ids[None]).long()).logits[0].numpy()


def save(name: str, model: torch.nn.Module, lengths: tuple[int, ...]) -> dict[str, np.ndarray]:
    arrays = {}
    for k, ids in enumerate(sequences(model.config.get_text_config().vocab_size, lengths)):
        arrays[f"ids_{k}"], arrays[f"logits_{k}"] = ids, logits(model.eval(), ids)
    np.savez_compressed(HERE / f"{name}.npz", **arrays)
    spread = [float(arrays[f"logits_{k}"].std(-1).mean()) for k in range(len(lengths))]
    print(name, "standard deviation of logits", np.round(spread, 2))
    return arrays


def older(config: dict[str, Any]) -> dict[str, Any]:
    """A config.json as the owners' repositories hold it, written by transformers 4."""
    rope = config.pop("rope_parameters")
    if "full_attention" in rope:
        rope, local = rope["full_attention"], rope["sliding_attention"]
        config |= {"rope_local_base_freq": local["rope_theta"], "_sliding_window_pattern": 6}
    theta, scaling = rope["rope_theta"], {k: v for k, v in rope.items() if k != "rope_theta"}
    config |= {"rope_theta": theta, "rope_scaling": scaling if "factor" in scaling else None}
    config |= {"torch_dtype": config.pop("dtype"), "transformers_version": "4.55.0"}
    if config["model_type"] == "gemma2":
        config |= {"hidden_act": config["hidden_activation"], "cache_implementation": "hybrid"}
    if config["model_type"] in ("gemma2", "qwen2", "qwen3"):
        del config["layer_types"]
    if config["model_type"] == "qwen2":  # a window that use_sliding_window switches off
        config |= {"sliding_window": 8, "max_window_layers": 1}
    return dict(sorted(config.items()))


def published(config: dict[str, Any]) -> dict[str, Any]:
    """The config.json of a Gemma 3 with vision as its owner's repository holds it."""
    kept = ("boi_token_index", "eoi_token_index", "image_token_index", "initializer_range", "mm_tokens_per_image")
    out = {key: config[key] for key in ("architectures", *kept, "model_type")}
    out |= {"text_config": {**GEMMA_TEXT, "model_type": "gemma3_text"}, "vision_config": GEMMA_VISION}
    out |= {"eos_token_id": [1, 106], "torch_dtype": "float32", "transformers_version": "4.50.0.dev0"}
    return dict(sorted(out.items()))


# One wrong feature each; all must show in the golden logits. Of a key with a star, all parameters that match are set.
CHANGES: dict[str, dict[str, Any]] = {
    "tiny_llama": {
        "rope_theta": {"rope_parameters": {"rope_type": "default", "rope_theta": 20000.0}},
        "rms_norm_eps": {"rms_norm_eps": 1e-3},
    },
    "tiny_llama_untied": {},
    "tiny_gemma3": {
        "window": {"sliding_window": 9},
        "query scale": {"query_pre_attn_scalar": 16},
        "layers": {"layer_types": ["sliding_attention"] * 7},
        "activation": {"hidden_activation": "gelu"},
        "rope scale": {"rope_parameters": GEMMA["rope_parameters"] | {"full_attention": {"rope_theta": 1e6}}},
        "rope theta": {"rope_parameters": GEMMA["rope_parameters"] | {"full_attention": {"factor": 4.0}}},
        "local theta": {"rope_parameters": GEMMA["rope_parameters"] | {"sliding_attention": {"rope_theta": 1e6}}},
    },
    "tiny_llama3": {
        "rope type": {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}},
        "rope theta": {"rope_parameters": LLAMA3["rope_parameters"] | {"rope_theta": 10000.0}},
        "rope factor": {"rope_parameters": LLAMA3["rope_parameters"] | {"factor": 4.0}},
        "low_freq_factor": {"rope_parameters": LLAMA3["rope_parameters"] | {"low_freq_factor": 1.1}},
        "high_freq_factor": {"rope_parameters": LLAMA3["rope_parameters"] | {"high_freq_factor": 3.0}},
        "context": {"rope_parameters": LLAMA3["rope_parameters"] | {"original_max_position_embeddings": 512}},
    },
    "tiny_qwen2": {
        "query bias": {"*q_proj.bias": 0.0},
        "key bias": {"*k_proj.bias": 0.0},
        "value bias": {"*v_proj.bias": 0.0},
        "rope theta": {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
    },
    "tiny_qwen3": {
        "query norm": {"*q_norm.weight": 1.0},
        "key norm": {"*k_norm.weight": 1.0},
        "rope theta": {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
    },
    "tiny_gemma2": {
        "attention cap": {"attn_logit_softcapping": None},
        "final cap": {"final_logit_softcapping": None},
        "window": {"sliding_window": 9},
        "order of layers": {"layer_types": ["full_attention", "sliding_attention"] * 2},
        "query scale": {"query_pre_attn_scalar": 16},
        "activation": {"hidden_activation": "gelu"},
        "norm after attention": {"*post_attention_layernorm.weight": 0.0},
        "norm before the MLP": {"*pre_feedforward_layernorm.weight": 0.0},
        "norm after the MLP": {"*post_feedforward_layernorm.weight": 0.0},
    },
    "tiny_gemma3_mm": {
        "window": {"sliding_window": 9},
        "query scale": {"query_pre_attn_scalar": 8},
        "layers": {"layer_types": ["sliding_attention"] * 7},
        "rope scale": {"rope_parameters": GEMMA["rope_parameters"] | {"full_attention": {"rope_theta": 1e6}}},
        "rope theta": {"rope_parameters": GEMMA["rope_parameters"] | {"full_attention": {"factor": 8.0}}},
        "local theta": {"rope_parameters": GEMMA["rope_parameters"] | {"sliding_attention": {"rope_theta": 1e6}}},
    },
}

TINY: dict[str, tuple[Any, Any, int, tuple[int, ...]]] = {  # model, config, seed, lengths of the sequences
    "tiny_llama": (LlamaForCausalLM, LlamaConfig(**LLAMA), 1, (1, 5, 13, 24, 40)),
    "tiny_llama_untied": (LlamaForCausalLM, LlamaConfig(**UNTIED), 2, (11, 32)),
    "tiny_gemma3": (Gemma3ForCausalLM, Gemma3TextConfig(**GEMMA), 3, (1, 5, 13, 24, 40)),
    "tiny_llama3": (LlamaForCausalLM, LlamaConfig(**LLAMA3), 4, (1, 13, 48)),
    "tiny_qwen2": (Qwen2ForCausalLM, Qwen2Config(**QWEN2), 5, (1, 13, 32)),
    "tiny_qwen3": (Qwen3ForCausalLM, Qwen3Config(**QWEN3), 6, (1, 13, 32)),
    "tiny_gemma2": (Gemma2ForCausalLM, Gemma2Config(**GEMMA2), 7, (1, 13, 40)),
    "tiny_gemma3_mm": (Gemma3ForConditionalGeneration, Gemma3Config(**GEMMA_MM), 8, (1, 13, 40)),
}


def tiny(names: list[str]) -> None:
    for name in names or TINY:
        kind, config, seed, lengths = TINY[name]
        model, folder = kind(config), HERE / name
        randomise(model, seed)
        model.save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        if name == "tiny_gemma3_mm":  # the vision tower's tensors under their published names
            tensors = load_file(folder / "model.safetensors")
            tensors = {k.replace("vision_tower.", "vision_tower.vision_model."): v for k, v in tensors.items()}
            save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        model = AutoModelForCausalLM.from_pretrained(folder, **EXACT)
        assert type(model) is kind
        arrays = save(name, model, lengths)

        config = json.loads((folder / "config.json").read_text())
        if name == "tiny_gemma3_mm":  # the published file is the one to read
            (folder / "config.json").rename(folder / "config.v5.json")
            file = folder / "config.json"
            config = published(config)
        else:
            file = folder / "config.v4.json"
            config = older(config)
        file.write_text(json.dumps(config, indent=2) + "\n")
        config = type(model.config).from_json_file(file)
        again = AutoModelForCausalLM.from_pretrained(folder, config=config, **EXACT).eval()
        last = len(lengths) - 1
        assert np.array_equal(logits(again, arrays[f"ids_{last}"]), arrays[f"logits_{last}"]), file
        (folder / "model.safetensors").chmod(0o644)
        for what, change in CHANGES[name].items():
            config = type(model.config).from_pretrained(folder)
            for key, value in change.items():
                if key == "rope_parameters" and "full_attention" in value:
                    full, local = value["full_attention"], value["sliding_attention"]
                    full = {
                        "rope_type": "linear" if "factor" in full else "default",
                        "rope_theta": 1e4,
                    } | full
                    value = {"full_attention": full, "sliding_attention": {"rope_type": "default"} | local}
                if "*" not in key:
                    setattr(config.get_text_config(), key, value)
            wrong = AutoModelForCausalLM.from_pretrained(folder, config=config, **EXACT).eval()
            for key in change:
                matched = [weight for path, weight in wrong.named_parameters() if fnmatch(path, key)]
                assert matched or "*" not in key
                for weight in matched:
                    torch.nn.init.constant_(weight, change[key])
            error = np.abs(logits(wrong, arrays[f"ids_{last}"]) - arrays[f"logits_{last}"]).max()
            print(f"  a wrong {what} moves a logit by {error:.3f}")
            assert error > 1e-3


def gguf(names: list[str]) -> None:
    for name, folder, lengths in (
        ("tiny_llama", "tiny_llama", None),
        ("tiny_llama_untied_q8_0", "tiny_llama_untied", (32,)),
        ("tiny_gemma3", "tiny_gemma3", (5, 40)),
        ("tiny_gemma3_q8_0", "tiny_gemma3", (40,)),
        ("tiny_llama3", "tiny_llama3", None),
        ("tiny_qwen2", "tiny_qwen2", None),
        ("tiny_qwen2_q8_0", "tiny_qwen2", (20,)),
        ("tiny_qwen3", "tiny_qwen3", None),
        ("tiny_gemma2", "tiny_gemma2", (24,)),
        ("tiny_gemma2_q8_0", "tiny_gemma2", (20,)),
    ):
        if name not in (names or [name]):
            continue
        config = AutoModelForCausalLM.from_pretrained(HERE / folder).config
        if folder in ("tiny_gemma2", "tiny_gemma3"):
            config.query_pre_attn_scalar = config.head_dim
        # transformers reads neither a head width that is not rope.dimension_count, nor rope scaling: config is ours
        model = AutoModelForCausalLM.from_pretrained(HERE, gguf_file=f"{name}.gguf", config=config, **EXACT).eval()
        exact = AutoModelForCausalLM.from_pretrained(HERE / folder, config=config, **EXACT).eval()
        for ids in sequences(config.vocab_size, (40,)):
            error = np.abs(logits(model, ids) - logits(exact, ids)).max()
        print(name, "differs from the folder's logits by", error)
        assert error < (0.5 if "q8_0" in name else 1e-4)
        if lengths:
            save(name + ("_gguf" if name == folder else ""), model, lengths)


PARAGRAPH = (
    "Photosynthesis is the process by which green plants turn light into chemical energy. In the leaves, chlorophyll "
    "absorbs light, mostly red and blue, and uses it to split water into oxygen, protons and electrons. The electrons "
    "travel along a chain of proteins and drive the making of ATP and NADPH, which then power the Calvin cycle, where "
    "carbon dioxide is built into sugars. Plants keep some of the sugar as starch, use some for growth, and burn the "
    "rest in respiration, which runs day and night."
)
CODE = '''```python
def moving_average(values: list[float], window: int) -> list[float]:
    """Mean of each run of `window` neighbours; raises ValueError for an empty window."""
    if window < 1:
        raise ValueError(f"window must be at least 1, got {window}")
    total = sum(values[:window])
    out = [total / window]
    for old, new in zip(values, values[window:]):
        total += new - old
        out.append(total / window)
    return out if len(values) >= window else []
```'''
LETTER = [
    "Dear Ms. Okonkwo,\n\nThank you for your letter of 14 March 2023 about the flooding in the cellar of no. 27b.",
    "We sent two engineers on the 21st; they measured 38 cm of standing water and found that the pump (model "
    "XK-400, installed in 2009) had failed because its float switch was jammed with silt.",
    "A new pump costs €1,249.50 plus 19% VAT. Cleaning the old one would cost about a third of that, but we cannot "
    "promise that it would last another winter: 晴れの日ばかりではありません, as my colleague from Ōsaka puts it.",
    "Since the drain belongs to the municipality, half of the bill may be refunded. Form 7-C is enclosed; please "
    "send it back by Friday, 31 March, with a copy of the insurer's reply.",
    "We are sorry for the trouble 🙁 and remain, with kind regards,\n\n\tJ. P. Müller\n\tHead of Maintenance",
]
QUESTION = "Is the following statement about the text true? {}\n\nAnswer with Yes or No only."
PROMPTS = [  # system, user
    (
        "",
        "Question: What is the capital of France, and since when?\n\nResponse: Paris. It has been the seat of the "
        "kings of France, with breaks, since Clovis chose it in 508; between 1682 and 1789 the court was at "
        "Versailles, and from 1940 to 1944 the government sat in Vichy.\n\nDoes the response name Paris as the "
        "capital of France, and does it say since when? Take every sentence of it into account, and answer Yes or No.",
    ),
    (
        "You are a strict examiner.",
        f"{PARAGRAPH}\n\n{QUESTION.format('It says that oxygen comes from water.')}",
    ),
    (
        "You review code. Reply with one word.",
        f"Here is a function and its description.\n\n{CODE}\n\nThe description: {PARAGRAPH}\n\n"
        + QUESTION.format("The code computes a moving average of a list of 12345 numbers."),
    ),
    (
        "",
        "\n\n".join([*LETTER, PARAGRAPH, CODE, *LETTER[::-1]]) + "\n\n" + QUESTION.format("It is about a pump."),
    ),
]


def real(weights: Path) -> None:
    for name, file in FILES.items():
        tokenizer = AutoTokenizer.from_pretrained(weights, gguf_file=file)
        if name == "smollm2":  # see make_tokens.py
            digits = pre_tokenizers.Digits(individual_digits=True)
            words = pre_tokenizers.ByteLevel(add_prefix_space=False)
            tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
        model = AutoModelForCausalLM.from_pretrained(weights, gguf_file=file, **EXACT).eval()
        print(name, model.config)

        def encode(text: str, tokenizer: Any = tokenizer) -> torch.Tensor:
            return torch.tensor([tokenizer.encode(text, add_special_tokens=False)])

        start = "<bos>" if name == "gemma3" else ""
        for text in ("The capital of France is", "Water boils at a temperature of"):
            out = model.generate(encode(start + text), do_sample=False, max_new_tokens=24)
            print(repr(tokenizer.decode(out[0])))

        special = set(tokenizer.all_special_ids)
        texts = [tokenizer.decode([i]).strip().lower() for i in range(model.config.vocab_size)]
        answers = {w: [i for i, t in enumerate(texts) if t == w and i not in special] for w in ("yes", "no")}
        rng = np.random.default_rng(0)
        fixed = np.sort(rng.choice(model.config.vocab_size, 50, replace=False)).astype(np.int32)
        arrays: dict[str, Any] = {f"{w}_ids": np.array(ids, np.int32) for w, ids in answers.items()}
        arrays["fixed_ids"] = fixed
        for k, (system, user) in enumerate(PROMPTS):
            if name == "smollm2":
                turns = [{"role": "system", "content": system}] if system else []
                turns.append({"role": "user", "content": user})
                text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            else:
                text = start + (system + "\n\n" if system else "") + user + "\n\nAnswer:"
            ids = encode(text)
            length = ids.shape[1]
            positions = torch.tensor([length // 3, 2 * length // 3, length - 1])
            with torch.inference_mode():
                out = model(ids, logits_to_keep=positions).logits[0]
            top = out.topk(20)
            arrays |= {
                f"text_{k}": np.array(text),
                f"ids_{k}": ids[0].numpy().astype(np.int32),
                f"positions_{k}": positions.numpy().astype(np.int32),
                f"logsumexp_{k}": out.logsumexp(-1).numpy(),
                f"top_ids_{k}": top.indices.numpy().astype(np.int32),
                f"top_logits_{k}": top.values.numpy(),
                f"fixed_logits_{k}": out[:, fixed].numpy(),
                **{f"{w}_logits_{k}": out[:, ids].numpy() for w, ids in answers.items()},
            }
            print(name, k, length, "tokens, then", repr(tokenizer.decode(top.indices[-1, :3])))
        np.savez_compressed(HERE / f"real_{name}.npz", **arrays)


if __name__ == "__main__":
    torch.set_num_threads(1)
    match sys.argv[1:]:
        case ["tiny", *names]:
            tiny(names)
        case ["gguf", *names]:
            gguf(names)
        case ["real", weights]:
            real(Path(weights))
        case _:
            sys.exit(__doc__)
