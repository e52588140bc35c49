"""A located judge into a model: base weights, with an adapter merged in where it has one."""

import hashlib
from pathlib import Path
from typing import Literal

import jax
from jax.sharding import Mesh

from rocketjax.errors import RocketError
from rocketjax.judge.adapter import adapter_sha256, load_adapter, merge
from rocketjax.judge.load import Dtype, cast, load_model, save_judge
from rocketjax.judge.model import Transformer
from rocketjax.judge.sharding import Places
from rocketjax.judge.source import Checkpoint


def load_judge(checkpoint: Checkpoint, dtype: Dtype, mesh: Mesh | None = None) -> tuple[Transformer, str]:
    """The model on the default device or a mesh, and a hash of its weights: of base and adapter where there are both.

    The sum of base and adapter is computed in f32 and rounded once to `dtype`.
    """
    if checkpoint.adapter is None:
        return load_model(checkpoint.path, dtype, mesh)
    model, base = load_model(checkpoint.path, "f32", mesh)
    adapter = load_adapter(checkpoint.adapter, model.config, base)
    if mesh is None:
        merged = cast(merge(model, adapter), dtype)
    else:
        places = Places(model.config, mesh)
        merged = cast(places.place(merge(model, places.place_adapter(adapter))), dtype, mesh)
    return merged, hashlib.sha256(f"{base} {adapter_sha256(checkpoint.adapter)}".encode()).hexdigest()


def fast_dtype() -> Dtype:
    """The dtype that this process's device has units for: bf16 on TPUs and on GPUs since Ampere (compute capability
    8.0), else f32. On a T4 or V100 bf16 is emulated, and f16, which they have, overflows in Gemma's residual stream.
    On CPUs f32, which is exact; `rocketjax doctor` measures whether bf16 is faster there."""
    device = jax.devices()[0]
    if device.platform == "tpu":
        return "bf16"
    capability = str(getattr(device, "compute_capability", "") or "")
    major = capability.split(".")[0]
    return "bf16" if device.platform == "gpu" and major.isdecimal() and int(major) >= 8 else "f32"


def convert(checkpoint: Checkpoint, output: Path, dtype: Literal["f32", "bf16"]) -> None:
    """Writes a judge as an Orbax checkpoint with its tokenizer, an adapter merged in; whole or not at all.

    There is no int8 form: any judge is rounded to int8 when it is loaded.

    Raises RocketError if `output` exists or `checkpoint` is no judge.
    """
    if output.exists():
        raise RocketError(f"{output}: exists already; choose another folder for the converted judge")
    model, sha256 = load_judge(checkpoint, dtype)
    save_judge(model, checkpoint.path, output, sha256)
