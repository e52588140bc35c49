"""The shape of a judge: one frozen config for all families, and its readers.

A family is a reader here and a weight table in `weights.py`; the forward pass in `model.py` is shared.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from rocketjax.errors import RocketError
from rocketjax.prompt.gguf_file import GGUF

Family = Literal["llama", "gemma2", "gemma3", "qwen2", "qwen3"]


@dataclass(frozen=True)
class Config:
    """Everything that the forward pass needs to know about a decoder-only transformer.

    Letters are the axis names of `model.py`: `layers` blocks, `D` width, `N` query heads that share `K`
    key heads, `H` head width, `F` hidden width of the MLP, `V` vocabulary.
    """

    family: Family
    layers: int
    D: int
    N: int
    K: int
    H: int
    F: int
    V: int
    context: int  # longest prompt that the model was trained for, tokens
    norm_eps: float
    rope_theta: float  # base of the rotary embedding in full-attention layers
    rope_scale: float = 1.0  # positions are divided by it in full-attention layers (linear scaling)
    tied: bool = True  # the output head is the embedding
    activation: Literal["silu", "gelu"] = "silu"  # gelu: the tanh approximation
    gain_offset: float = 0.0  # a norm multiplies by (gain + offset); Gemma stores gain - 1
    embed_scale: float = 1.0  # Gemma multiplies embeddings by sqrt(D)
    query_scale: float = 0.0  # queries are multiplied by it; 0 stands for H ** -0.5
    qk_norm: bool = False  # RMS norm of each query and key head, before the rotation
    post_norms: bool = False  # a second RMS norm after attention and after the MLP
    window: int = 0  # a local layer sees this many tokens back along its path, itself included; 0: none
    local_layers: tuple[int, ...] = ()  # which layers are local
    rope_theta_local: float = 0.0  # base of the rotary embedding in local layers
    rope_factors: tuple[float, ...] = ()  # H / 2 divisors of the full layers' frequencies; (): all 1
    qkv_bias: bool = False  # queries, keys and values have a bias
    attn_softcap: float = 0.0  # attention logits x become cap * tanh(x / cap); 0: they stay
    final_softcap: float = 0.0  # the same of the output logits

    def __post_init__(self) -> None:
        for name in ("layers", "D", "N", "K", "H", "F", "V", "context"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.N % self.K:
            raise ValueError(f"{self.N} query heads cannot share {self.K} key heads evenly")
        if self.H % 2:
            raise ValueError(f"head width {self.H} is odd; rotary embeddings need an even one")
        if bool(self.local_layers) != bool(self.window):
            raise ValueError("local layers need a window, and a window needs local layers")
        if len(self.rope_factors) not in (0, self.H // 2) or not all(0 < f < math.inf for f in self.rope_factors):
            raise ValueError(f"rotary factors must be {self.H // 2} positive numbers, not {self.rope_factors}")
        if min(self.attn_softcap, self.final_softcap) < 0:
            raise ValueError("soft-caps of logits must be positive")


def config_sha256(config: Config) -> str:
    """A hash of all that the forward pass knows of a model beside its weights, the same whichever container it is from.

    Fields that have their default are left out, so that a field of a later version changes no hash of a model without
    it. Of a number six digits count, for a GGUF file has it in f32; of rotary factors four, for whoever wrote that
    file computed them in f32 too.
    """
    known: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name == "query_scale":
            value = value or config.H**-0.5
        if value != field.default:
            known[field.name] = [digits(x, 4) for x in value] if isinstance(value, tuple) else digits(value, 6)
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def digits(value: Any, count: int) -> Any:
    """A float by so many of its digits, as text; anything else as it is."""
    return f"{value:.{count - 1}e}" if isinstance(value, float) else value


# model_type of config.json -> family. `gemma3` is the model with a vision tower; its language model is read.
HF_FAMILIES: dict[str, Family] = {
    "llama": "llama", "gemma2": "gemma2", "gemma3_text": "gemma3", "gemma3": "gemma3", "qwen2": "qwen2",
    "qwen3": "qwen3",
}  # fmt: skip
# What transformers takes for a key that config.json leaves out, by its Gemma2Config, Gemma3TextConfig, Qwen2Config and
# Qwen3Config; a published Gemma 3 with vision leaves out most of its `text_config`. A key that is needed and has no
# default here or in a reader is an error.
DEFAULTS: dict[Family, dict[str, Any]] = {
    "llama": {},
    "gemma2": {
        "num_key_value_heads": 4, "head_dim": 256, "max_position_embeddings": 8192, "rms_norm_eps": 1e-6,
        "query_pre_attn_scalar": 256, "sliding_window": 4096, "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    },
    "gemma3": {
        "vocab_size": 262_208, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
        "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "max_position_embeddings": 131_072,
        "rms_norm_eps": 1e-6, "rope_theta": 1e6, "rope_local_base_freq": 1e4, "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
    },
    "qwen2": {"num_key_value_heads": 32},
    "qwen3": {"num_key_value_heads": 32, "head_dim": 128},
}  # fmt: skip
MALFORMED = (TypeError, ValueError, AttributeError, ArithmeticError)  # what odd values in a config lead to


def read_hf_config(folder: Path) -> Config:
    """The config of a Hugging Face folder.

    Raises RocketError for a missing or broken config.json, an unknown family, and every setting that would
    change the numbers and is not implemented here.
    """
    file = folder / "config.json"
    try:
        values = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise RocketError(f"{folder}: has no config.json, so it is no judge") from None
    except (OSError, ValueError) as e:
        raise RocketError(f"{file}: cannot be read ({e})") from None
    kind = values.get("model_type") if isinstance(values, dict) else None
    if not isinstance(kind, str) or kind not in HF_FAMILIES:
        raise RocketError(f"{file}: model_type is {kind!r}; known are {', '.join(HF_FAMILIES)}")
    try:
        refuse(values, quantization_config=None)
        wanted = "ForConditionalGeneration" if kind == "gemma3" else "ForCausalLM"
        classes = values.get("architectures") or [wanted]
        if not any(str(name).endswith(wanted) for name in classes):
            raise ValueError(f"architectures is {classes}; a judge is a causal language model")
        if kind == "gemma3":
            tied = values.get("tie_word_embeddings", True)
            values = {"tie_word_embeddings": tied, **values["text_config"]}
            refuse(values, quantization_config=None)
        family = HF_FAMILIES[kind]
        return HF_READERS[family]({**DEFAULTS[family], **values})
    except KeyError as e:
        raise RocketError(f"{file}: field {e.args[0]!r} is missing") from None
    except MALFORMED as e:
        raise RocketError(f"{file}: {e}") from None


def refuse(values: Mapping[str, Any], **expected: Any) -> None:
    """Raises ValueError for a setting that is there and not as this code computes."""
    for key, value in expected.items():
        if values.get(key, value) not in (value, None):
            raise ValueError(f"{key} is {values[key]!r}, which is not implemented; only {value!r} is")


def shape(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that all families name alike."""
    heads = int(values["num_attention_heads"])
    return {
        "layers": int(values["num_hidden_layers"]),
        "D": int(values["hidden_size"]),
        "N": heads,
        "K": int(values.get("num_key_value_heads") or heads),
        "H": int(values.get("head_dim") or int(values["hidden_size"]) // heads),
        "F": int(values["intermediate_size"]),
        "V": int(values["vocab_size"]),
        "context": int(values["max_position_embeddings"]),
        "norm_eps": float(values["rms_norm_eps"]),
    }


class Rope(NamedTuple):
    """How the rotary embedding of full layers is scaled, as in `Config`."""

    theta: float
    scale: float = 1.0
    factors: tuple[float, ...] = ()

    def fields(self) -> dict[str, Any]:
        return {"rope_theta": self.theta, "rope_scale": self.scale, "rope_factors": self.factors}


def rope(values: Mapping[str, Any], default: float, H: int, layer_type: str | None = None) -> Rope:
    """The rotary embedding from transformers' old or new (v5) way to write it.

    Where both stand there, `rope_scaling` wins, as in transformers.
    """
    new = values.get("rope_parameters") or {}
    new = new.get(layer_type, new) if layer_type else new
    old = values.get("rope_scaling") or {}
    found, names = {**new, **old}, old or new
    kind = names.get("rope_type", names.get("type", "default"))
    theta = float(found.get("rope_theta", values.get("rope_theta", default)))
    match kind:
        case "default":
            return Rope(theta)
        case "linear":
            return Rope(theta, float(found.get("factor", 1.0)))
        case "llama3":
            names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
            return Rope(theta, factors=llama3_factors(theta, H, *(float(found[name]) for name in names)))
        case _:
            raise ValueError(f"rotary embeddings of type {kind!r} are not implemented; default, linear and llama3 are")


def llama3_factors(theta: float, H: int, factor: float, low: float, high: float, original: float) -> tuple[float, ...]:
    """Divisors of the H / 2 frequencies under Llama 3.1's scaling (Llama team 2024, arXiv 2407.21783; Meta's code).

    A pair that turns less than `low` times over the `original` context is slowed by `factor`, one that turns
    more than `high` times not at all, between them the speeds (not the divisors) are interpolated.
    """
    if not 0 < low < high:
        raise ValueError(f"low_freq_factor {low} must be positive and below high_freq_factor {high}")
    turns = original * theta ** (-np.arange(0, H, 2) / H) / (2 * np.pi)
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return tuple((1.0 / ((1.0 - kept) / factor + kept)).tolist())


def all_full(values: Mapping[str, Any]) -> None:
    """Raises ValueError for layers that are not full attention, where a family has none in use."""
    refuse(values, use_sliding_window=False)
    if set(values.get("layer_types") or []) - {"full_attention"}:
        raise ValueError("layer_types other than full_attention are not implemented for this family")


def llama_config(values: Mapping[str, Any]) -> Config:
    refuse(values, attention_bias=False, mlp_bias=False, hidden_act="silu", partial_rotary_factor=1.0)
    refuse(values, pretraining_tp=1)
    sizes = shape(values)
    turning = rope(values, 10_000.0, sizes["H"])
    return Config("llama", **sizes, **turning.fields(), tied=bool(values.get("tie_word_embeddings")))


def qwen2_config(values: Mapping[str, Any]) -> Config:
    """Qwen 2 and 2.5: Llama with biases on queries, keys and values."""
    refuse(values, hidden_act="silu")
    all_full(values)
    sizes = shape(values)
    turning = rope(values, 10_000.0, sizes["H"])
    return Config("qwen2", **sizes, **turning.fields(), tied=bool(values.get("tie_word_embeddings")), qkv_bias=True)


def qwen3_config(values: Mapping[str, Any]) -> Config:
    """Qwen 3: Llama with a norm of each query and key head."""
    refuse(values, hidden_act="silu", attention_bias=False)
    all_full(values)
    sizes = shape(values)
    turning = rope(values, 10_000.0, sizes["H"])
    return Config("qwen3", **sizes, **turning.fields(), tied=bool(values.get("tie_word_embeddings")), qk_norm=True)


def local_layers(values: Mapping[str, Any], layers: int, every: int) -> tuple[int, ...]:
    """Which layers are local: from `layer_types`, or all but each `every`-th."""
    kinds = values.get("layer_types") or [
        "full_attention" if (n + 1) % every == 0 else "sliding_attention" for n in range(layers)
    ]
    if len(kinds) != layers or set(kinds) - {"full_attention", "sliding_attention"}:
        raise ValueError(f"layer_types has {len(kinds)} entries of {sorted(set(kinds))} for {layers} layers")
    return tuple(n for n, kind in enumerate(kinds) if kind == "sliding_attention")


# Its local layers would be scaled as its full ones are, unlike Gemma 3's; no published Gemma 2 has such.
NO_SCALED_GEMMA2 = (
    "scaled rotary embeddings are not implemented for Gemma 2; only those of its owner are, of type default"
)


def gemma2_config(values: Mapping[str, Any]) -> Config:
    activation = values.get("hidden_activation") or "gelu_pytorch_tanh"  # null in the oldest files
    refuse({"hidden_activation": activation}, hidden_activation="gelu_pytorch_tanh")
    refuse(values, attention_bias=False, use_bidirectional_attention=False)
    sizes = shape(values)
    turning, turning_local = (rope(values, 10_000.0, sizes["H"], f"{kind}_attention") for kind in ("full", "sliding"))
    if turning != Rope(turning.theta) or turning_local != Rope(turning_local.theta):
        raise ValueError(NO_SCALED_GEMMA2)
    return gemma(
        "gemma2",
        sizes,
        local_layers(values, sizes["layers"], 2),
        window=int(values["sliding_window"]),
        turning=turning,
        theta_local=turning_local.theta,
        query_scale=float(values["query_pre_attn_scalar"]) ** -0.5,
        tied=bool(values.get("tie_word_embeddings", True)),
        attn_softcap=float(values["attn_logit_softcapping"] or 0.0),  # null: none
        final_softcap=float(values["final_logit_softcapping"] or 0.0),
    )


def gemma3_config(values: Mapping[str, Any]) -> Config:
    refuse(values, attention_bias=False, hidden_activation="gelu_pytorch_tanh", use_bidirectional_attention=False)
    refuse(values, attn_logit_softcapping=None, final_logit_softcapping=None)
    sizes = shape(values)
    every = int(values.get("sliding_window_pattern") or values.get("_sliding_window_pattern") or 6)
    local = local_layers(values, sizes["layers"], every)
    theta = float(values["rope_local_base_freq"])
    turning = Rope(theta)
    if (values.get("rope_parameters") or {}).get("sliding_attention"):
        own = {**values, "rope_scaling": None, "rope_theta": theta}  # that of the full layers is not theirs
        turning = rope(own, theta, sizes["H"], "sliding_attention")
    if turning != Rope(turning.theta):
        raise ValueError("scaled rotary embeddings in local layers are not implemented")
    return gemma(
        "gemma3",
        sizes,
        local,
        window=int(values["sliding_window"]),
        turning=rope(values, 1e6, sizes["H"], "full_attention"),
        theta_local=turning.theta,
        query_scale=float(values["query_pre_attn_scalar"]) ** -0.5,
        tied=bool(values.get("tie_word_embeddings", True)),
        qk_norm=True,
    )


def gemma(
    family: Family, sizes: Mapping[str, Any], local: tuple[int, ...], *, window: int, turning: Rope, theta_local: float,
    query_scale: float, tied: bool, **more: Any,
) -> Config:  # fmt: skip
    """What all Gemma text models share."""
    return Config(
        family,
        **sizes,
        **turning.fields(),
        tied=tied,
        activation="gelu",
        gain_offset=1.0,
        # transformers rounds it to the model's dtype; here activations are f32 always.
        embed_scale=sizes["D"] ** 0.5,
        query_scale=query_scale,
        post_norms=True,
        window=window if local else 0,
        local_layers=local,
        rope_theta_local=theta_local,
        **more,
    )


HF_READERS: dict[Family, Callable[[Mapping[str, Any]], Config]] = {
    "llama": llama_config,
    "gemma2": gemma2_config,
    "gemma3": gemma3_config,
    "qwen2": qwen2_config,
    "qwen3": qwen3_config,
}


def read_gguf_config(file: GGUF) -> Config:
    """The config of a GGUF file.

    Raises RocketError for an unknown architecture, a missing or malformed field, and every setting that would
    change the numbers and is not implemented here.
    """
    try:
        return gguf_config(file)
    except MALFORMED as e:
        raise RocketError(f"{file.path}: {e}") from None


def gguf_config(file: GGUF) -> Config:
    meta = file.metadata
    family = meta.get("general.architecture")
    if family not in HF_READERS:
        raise ValueError(f"architecture is {family!r}; known are {', '.join(HF_READERS)}")

    def get(key: str, default: Any = None) -> Any:
        value = meta.get(f"{family}.{key}", default)
        if value is None:
            raise ValueError(f"field {family}.{key} is missing")
        return value

    heads = int(get("attention.head_count"))
    sizes: dict[str, Any] = {
        "layers": int(get("block_count")),
        "D": int(get("embedding_length")),
        "N": heads,
        "K": int(get("attention.head_count_kv", heads)),
        "H": int(get("attention.key_length", int(get("embedding_length")) // heads)),
        "F": int(get("feed_forward_length")),
        "V": len(meta.get("tokenizer.ggml.tokens", ())) or int(get("vocab_size")),
        "context": int(get("context_length")),
        # Stored in f32; the shortest decimal is what the owner wrote.
        "norm_eps": float(np.format_float_positional(np.float32(get("attention.layer_norm_rms_epsilon")))),
    }
    theta, tied = float(get("rope.freq_base", 10_000.0)), "output.weight" not in file.tensors
    factor = float(get("rope.scaling.factor", 1.0))
    kind = get("rope.scaling.type", "linear" if factor != 1.0 else "none")  # llama.cpp's default
    if kind not in ("none", "linear"):
        raise ValueError(f"rotary scaling {kind!r} is not implemented; none and linear are")
    turning = Rope(theta, factor if kind == "linear" else 1.0)
    if ROPE_FACTORS in file.tensors:
        # The converter computes Llama 3's factors from the owner's config and stores them alone.
        turning = turning._replace(factors=f32_vector(file, ROPE_FACTORS))
    expected: dict[str, Any] = {
        "rope.dimension_count": sizes["H"],
        "attention.value_length": sizes["H"],
        "attention.scale": 0.0,
    }
    if family != "gemma2":
        expected |= {"attn_logit_softcapping": 0.0, "final_logit_softcapping": 0.0}
    for key, value in expected.items():
        if get(key, value) != value:
            raise ValueError(f"{family}.{key} is {get(key)}, which is not implemented; only {value} is")
    match family:
        case "llama":
            return Config("llama", **sizes, **turning.fields(), tied=tied)
        case "qwen2":
            return Config("qwen2", **sizes, **turning.fields(), tied=tied, qkv_bias=True)
        case "qwen3":
            return Config("qwen3", **sizes, **turning.fields(), tied=tied, qk_norm=True)
    # llama.cpp's graphs: every second (Gemma 2) or sixth (Gemma 3) layer is full, Gemma 3's local layers turn by base
    # 10,000 unless the file says otherwise, and queries are scaled by the head width's root, except in the 27B model.
    every, layers_27b = (2, 46) if family == "gemma2" else (int(get("attention.sliding_window_pattern", 6)), 62)
    local = tuple(n for n in range(sizes["layers"]) if (n + 1) % every)
    query_scale = float(sizes["D"] / heads if sizes["layers"] == layers_27b else sizes["H"]) ** -0.5
    more: dict[str, Any] = {"qk_norm": True}
    if family == "gemma2":
        if turning != Rope(theta):
            raise ValueError(NO_SCALED_GEMMA2)
        more = {
            "attn_softcap": float(get("attn_logit_softcapping", 50.0)),
            "final_softcap": float(get("final_logit_softcapping", 30.0)),
        }
    return gemma(
        family, sizes, local, window=int(get("attention.sliding_window", 4096 if family == "gemma2" else None)),
        turning=turning, theta_local=theta if family == "gemma2" else float(get("rope.freq_base_swa", 10_000.0)),
        query_scale=query_scale, tied=tied, **more,
    )  # fmt: skip


ROPE_FACTORS = "rope_freqs.weight"


def f32_vector(file: GGUF, name: str) -> tuple[float, ...]:
    """A small tensor that belongs to the config."""
    info = file.tensors[name]
    if info.kind != 0 or len(info.shape) != 1:  # GGMLQuantizationType.F32
        raise ValueError(f"tensor {name!r} is no f32 vector")
    with open(file.path, "rb") as data:
        data.seek(info.offset)
        values = np.frombuffer(data.read(4 * info.shape[0]), "<f4")
    if len(values) != info.shape[0]:
        raise ValueError(f"is cut off; tensor {name!r} ends behind the end of the file")
    return tuple(values.tolist())
