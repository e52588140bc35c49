"""Where each parameter of the model comes from: one table per family and container.

A table maps every parameter of `model.Transformer` to one tensor of the file, one to one; a tensor that
nobody takes, a missing one or one of another shape is an error that names it.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rocketjax.errors import RocketError
from rocketjax.judge.config import ROPE_FACTORS, Config, Family

Container = Literal["huggingface", "gguf"]
Array = npt.NDArray[Any]

HF_TOP = {
    "embed_VD": "model.embed_tokens",
    "final_norm_D": "model.norm",
    "head_DV": "lm_head",
}
HF_BLOCK = {
    "attn_norm_D": "input_layernorm",
    "q_DNH": "self_attn.q_proj",
    "k_DKH": "self_attn.k_proj",
    "v_DKH": "self_attn.v_proj",
    "o_NHD": "self_attn.o_proj",
    "mlp_norm_D": "post_attention_layernorm",
    "gate_DF": "mlp.gate_proj",
    "up_DF": "mlp.up_proj",
    "down_FD": "mlp.down_proj",
}
GGUF_TOP = {"embed_VD": "token_embd", "final_norm_D": "output_norm", "head_DV": "output"}
GGUF_BLOCK = {
    "attn_norm_D": "attn_norm",
    "q_DNH": "attn_q",
    "k_DKH": "attn_k",
    "v_DKH": "attn_v",
    "o_NHD": "attn_output",
    "mlp_norm_D": "ffn_norm",
    "gate_DF": "ffn_gate",
    "up_DF": "ffn_up",
    "down_FD": "ffn_down",
}
HF_QK_NORM = {"q_norm_H": "self_attn.q_norm", "k_norm_H": "self_attn.k_norm"}
GGUF_QK_NORM = {"q_norm_H": "attn_q_norm", "k_norm_H": "attn_k_norm"}
HF_BIAS = {"q_bias_NH": "self_attn.q_proj", "k_bias_KH": "self_attn.k_proj", "v_bias_KH": "self_attn.v_proj"}
GGUF_BIAS = {"q_bias_NH": "attn_q", "k_bias_KH": "attn_k", "v_bias_KH": "attn_v"}
HF_POST_NORMS = {
    # Llama's name for the norm before the MLP is in Gemma the one behind attention.
    "post_attn_norm_D": "post_attention_layernorm",
    "mlp_norm_D": "pre_feedforward_layernorm",
    "post_mlp_norm_D": "post_feedforward_layernorm",
}
GGUF_POST_NORMS = {"post_attn_norm_D": "post_attention_norm", "post_mlp_norm_D": "post_ffw_norm"}

# Container -> names of the top's parameters, a layer's prefix; and names of a block's parameters by family.
TOP: dict[Container, tuple[dict[str, str], str]] = {
    "huggingface": (HF_TOP, "model.layers.{}."),
    "gguf": (GGUF_TOP, "blk.{}."),
}
BLOCKS: dict[tuple[Family, Container], dict[str, str]] = {
    ("llama", "huggingface"): HF_BLOCK,
    ("llama", "gguf"): GGUF_BLOCK,
    ("gemma2", "huggingface"): HF_BLOCK | HF_POST_NORMS,
    ("gemma2", "gguf"): GGUF_BLOCK | GGUF_POST_NORMS,
    ("gemma3", "huggingface"): HF_BLOCK | HF_POST_NORMS | HF_QK_NORM,
    ("gemma3", "gguf"): GGUF_BLOCK | GGUF_POST_NORMS | GGUF_QK_NORM,
    ("qwen2", "huggingface"): HF_BLOCK | HF_BIAS,
    ("qwen2", "gguf"): GGUF_BLOCK | GGUF_BIAS,
    ("qwen3", "huggingface"): HF_BLOCK | HF_QK_NORM,
    ("qwen3", "gguf"): GGUF_BLOCK | GGUF_QK_NORM,
}
# Computed from the config here; old checkpoints carry them all the same.
DERIVED = ("rotary_emb.inv_freq", ROPE_FACTORS)
# A model with a vision tower keeps its language model under one of these, and the rest under the others.
LANGUAGE = ("language_model.model.", "model.language_model.")
OTHER_PARTS = (
    "vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector.",
)  # fmt: skip


def table(config: Config, container: Container, parameters: Iterable[str]) -> dict[str, str]:
    """Parameter path (`blocks.3.q_DNH`) -> tensor name, for every parameter asked for."""
    (top, layer), block = TOP[container], BLOCKS[config.family, container]
    names = {}
    for path in parameters:
        *where, name = path.split(".")
        ending = ".bias" if name in HF_BIAS else ".weight"
        names[path] = (layer.format(where[1]) + block[name] if where else top[name]) + ending
    assert len(set(names.values())) == len(names), "two parameters take one tensor"
    return names


def of_language_model(names: Iterable[str]) -> dict[str, str]:
    """Name in a text-only checkpoint -> name in the file, for all tensors but those of a vision tower.

    A checkpoint that is text-only already keeps its names.
    """
    names = list(names)
    if not any(name.startswith(LANGUAGE) for name in names):
        return {name: name for name in names}
    found = {}
    for name in names:
        if name.startswith(OTHER_PARTS):
            continue
        own = name
        for prefix in LANGUAGE:
            if name.startswith(prefix):
                own = "model." + name.removeprefix(prefix)
        found[own.removeprefix("language_model.") if own == "language_model.lm_head.weight" else own] = name
    return found


def match(
    names: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
    wanted: Mapping[str, tuple[int, ...]],
    tied: str | None,
    where: str,
) -> None:
    """Raises RocketError unless the file has exactly the tensors that the table names, in their shapes.

    `shapes` are the file's, `wanted` the parameters' own (see `stored_shape`); `tied` is the output head's name
    where the model has none of its own, which a file may carry as a copy of the embedding.
    """
    missing = sorted(set(names.values()) - shapes.keys())
    unused = sorted(n for n in shapes.keys() - set(names.values()) if n != tied and not n.endswith(DERIVED))
    wrong = [
        f"{name} is {tuple(shapes[name])}, not {stored_shape(path, wanted[path])}"
        for path, name in names.items()
        if name in shapes and tuple(shapes[name]) != stored_shape(path, wanted[path])
    ]
    for what, found in (
        ("lacks", missing),
        ("has tensors that no parameter takes:", unused),
        ("shapes:", wrong),
    ):
        if found:
            more = f" and {len(found) - 10} more" if len(found) > 10 else ""
            raise RocketError(f"{where}: {what} {', '.join(found[:10])}{more}; is its config its own?")


def stored_shape(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in the file: [out, in] for a projection, [out] for its bias, its own for embeddings and norms."""
    name = path.rsplit(".", 1)[-1]
    if name in HF_BIAS:
        return (int(np.prod(shape)),)
    if name == "embed_VD" or len(shape) == 1:
        return shape
    inputs = 2 if name == "o_NHD" else 1
    return (int(np.prod(shape[inputs:])), int(np.prod(shape[:inputs])))


Index = tuple[slice, ...]


def stored_index(path: str, index: Index, shape: tuple[int, ...]) -> Index:
    """Where in the file's tensor the part `index` of a parameter of this shape is: rows, or rows and columns.

    Of several axes that are one in the file, only the first may be cut.
    """
    name = path.rsplit(".", 1)[-1]
    spans = [part.indices(size) for part, size in zip(index, shape, strict=True)]

    def joined(first: int, last: int) -> slice:
        others = shape[first + 1 : last]
        whole = all(span == (0, size, 1) for span, size in zip(spans[first + 1 : last], others, strict=True))
        assert whole, f"{path}: cut over an axis that is not the file's own"
        rest = math.prod(others)
        return slice(spans[first][0] * rest, spans[first][1] * rest)

    if name in HF_BIAS:
        return (joined(0, len(shape)),)
    if name == "embed_VD" or len(shape) == 1:
        return tuple(slice(a, b) for a, b, _ in spans)
    inputs = 2 if name == "o_NHD" else 1
    return joined(inputs, len(shape)), joined(0, inputs)


def parameter(path: str, tensor: Array, shape: tuple[int, ...], config: Config, container: Container) -> Array:
    """A parameter of this shape in the model's layout, or a part of whole heads or rows, from the file's tensor."""
    name = path.rsplit(".", 1)[-1]
    if container == "gguf":
        if config.family == "llama" and name in ("q_DNH", "k_DKH"):
            tensor = unpermute(tensor, heads=shape[1])
        if config.gain_offset and len(shape) == 1:
            # llama.cpp's converter adds Gemma's 1 to the gains; here they are as their owner publishes them.
            tensor = tensor - np.float32(config.gain_offset)
    if name in HF_BIAS:
        return tensor.reshape(shape)
    if name == "embed_VD" or len(shape) == 1:
        return tensor
    return tensor.T.reshape(shape)  # a view, where one axis became one: whoever casts it copies it once


def unpermute(tensor: Array, heads: int) -> Array:
    """Undoes the row order that llama.cpp's converter gives Llama's queries and keys.

    There the rotary pairs are neighbours (2h, 2h + 1); here and in Hugging Face files they are (h, h + H/2).
    """
    rows, width = tensor.shape
    return tensor.reshape(heads, rows // heads // 2, 2, width).swapaxes(1, 2).reshape(rows, width)
