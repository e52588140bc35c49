"""The shape of a judge: one frozen config for all families, and its readers.

A family is a reader here and a weight table in `weights.py`; the forward pass in `model.py` is shared.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rocketjax.errors import RocketError
from rocketjax.prompt.gguf_file import GGUF


@dataclass(frozen=True)
class Config:
    """Everything that the forward pass needs to know about a decoder-only transformer.

    Letters are the axis names of `model.py`: `layers` blocks, `D` width, `N` query heads that share `K`
    key heads, `H` head width, `F` hidden width of the MLP, `V` vocabulary.
    """

    family: Literal["llama", "gemma3"]
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

    def matmul_flops(self) -> int:
        """Multiply-adds times two of one token through all blocks, without attention's own products."""
        per_layer = self.D * self.H * (2 * self.N + 2 * self.K) + 3 * self.D * self.F
        return 2 * self.layers * per_layer


HF_FAMILIES = {"llama": "llama", "gemma3_text": "gemma3"}
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
    if not isinstance(values, dict) or values.get("model_type") not in HF_FAMILIES:
        kind = values.get("model_type") if isinstance(values, dict) else None
        raise RocketError(f"{file}: model_type is {kind!r}; known are {', '.join(HF_FAMILIES)}")
    family = HF_FAMILIES[values["model_type"]]
    try:
        refuse(values, quantization_config=None)
        kinds = values.get("architectures") or ["ForCausalLM"]
        if not any(str(kind).endswith("ForCausalLM") for kind in kinds):
            raise ValueError(f"architectures is {kinds}; a judge is a causal language model")
        return llama_config(values) if family == "llama" else gemma3_config(values)
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


def rope(values: Mapping[str, Any], default: float, layer_type: str | None = None) -> tuple[float, float]:
    """Base and linear scale of the rotary embedding, from transformers' old or new (v5) way to write them.

    Where both stand there, `rope_scaling` wins, as in transformers.
    """
    new = values.get("rope_parameters") or {}
    new = new.get(layer_type, new) if layer_type else new
    found = {**new, **(values.get("rope_scaling") or {})}
    kind = found.get("rope_type", found.get("type", "default"))
    if kind not in ("default", "linear"):
        raise ValueError(f"rotary embeddings of type {kind!r} are not implemented; default and linear are")
    theta = found.get("rope_theta", values.get("rope_theta", default))
    return float(theta), float(found.get("factor", 1.0)) if kind == "linear" else 1.0


def llama_config(values: Mapping[str, Any]) -> Config:
    refuse(values, attention_bias=False, mlp_bias=False, hidden_act="silu", partial_rotary_factor=1.0)
    refuse(values, pretraining_tp=1)
    theta, scale = rope(values, 10_000.0)
    return Config(
        "llama",
        **shape(values),
        rope_theta=theta,
        rope_scale=scale,
        tied=bool(values.get("tie_word_embeddings")),
    )


def gemma3_config(values: Mapping[str, Any]) -> Config:
    refuse(values, attention_bias=False, hidden_activation="gelu_pytorch_tanh", use_bidirectional_attention=False)
    refuse(values, attn_logit_softcapping=None, final_logit_softcapping=None)
    sizes = shape(values)
    every = int(values.get("sliding_window_pattern") or values.get("_sliding_window_pattern") or 6)
    kinds = values.get("layer_types") or [
        "full_attention" if (n + 1) % every == 0 else "sliding_attention" for n in range(sizes["layers"])
    ]
    if len(kinds) != sizes["layers"] or set(kinds) - {"full_attention", "sliding_attention"}:
        raise ValueError(f"layer_types has {len(kinds)} entries of {sorted(set(kinds))} for {sizes['layers']} layers")
    theta, scale = rope(values, 1e6, "full_attention")
    theta_local, scale_local = float(values.get("rope_local_base_freq", 1e4)), 1.0
    if (values.get("rope_parameters") or {}).get("sliding_attention"):
        theta_local, scale_local = rope({**values, "rope_scaling": None}, 1e4, "sliding_attention")
    if scale_local != 1.0:
        raise ValueError(f"a rotary scale of {scale_local} in local layers is not implemented")
    return gemma3(
        sizes,
        tuple(n for n, kind in enumerate(kinds) if kind == "sliding_attention"),
        window=int(values["sliding_window"]),
        theta=theta,
        scale=scale,
        theta_local=theta_local,
        query_scale=float(values["query_pre_attn_scalar"]) ** -0.5,
        tied=bool(values.get("tie_word_embeddings", True)),
    )


def gemma3(
    sizes: Mapping[str, Any], local: tuple[int, ...], *, window: int, theta: float, scale: float, theta_local: float,
    query_scale: float, tied: bool,
) -> Config:  # fmt: skip
    """What all Gemma 3 text models share."""
    return Config(
        "gemma3",
        **sizes,
        rope_theta=theta,
        rope_scale=scale,
        tied=tied,
        activation="gelu",
        gain_offset=1.0,
        # transformers rounds it to the model's dtype; here activations are f32 always.
        embed_scale=sizes["D"] ** 0.5,
        query_scale=query_scale,
        qk_norm=True,
        post_norms=True,
        window=window if local else 0,
        local_layers=local,
        rope_theta_local=theta_local,
    )


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
    if family not in ("llama", "gemma3"):
        raise ValueError(f"architecture is {family!r}; known are llama and gemma3")

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
    if kind not in ("none", "linear") or "rope_freqs.weight" in file.tensors:
        raise ValueError(f"rotary scaling {kind!r} is not implemented; none and linear are")
    scale = factor if kind == "linear" else 1.0
    expected = {
        "rope.dimension_count": sizes["H"],
        "attention.value_length": sizes["H"],
        "attention.scale": 0.0,
        "attn_logit_softcapping": 0.0,
        "final_logit_softcapping": 0.0,
    }
    for key, value in expected.items():
        if get(key, value) != value:
            raise ValueError(f"{family}.{key} is {get(key)}, which is not implemented; only {value} is")
    if family == "llama":
        return Config("llama", **sizes, rope_theta=theta, rope_scale=scale, tied=tied)
    # llama.cpp's gemma3 graph: every sixth layer is full, local layers turn by base 10,000 unless the file
    # says otherwise, and queries are scaled by the head width's root, except in the 27B model (62 layers).
    local = tuple(n for n in range(sizes["layers"]) if (n + 1) % int(get("attention.sliding_window_pattern", 6)))
    scalar = sizes["D"] / heads if sizes["layers"] == 62 else sizes["H"]
    return gemma3(
        sizes, local, window=int(get("attention.sliding_window")), theta=theta, scale=scale,
        theta_local=float(get("rope.freq_base_swa", 10_000.0)), query_scale=float(scalar) ** -0.5, tied=tied,
    )  # fmt: skip
