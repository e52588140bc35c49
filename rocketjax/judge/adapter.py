"""Low-rank adapters (LoRA: Hu et al. 2021, arXiv 2106.09685): small trained additions to a judge's projections.

An adapted projection computes `x W + scale (x down^T) up`, with `down` of shape [R, in ...] and `up` [R, out ...].
On disk an adapter is a folder in the layout of the PEFT library (`adapter_config.json`,
`adapter_model.safetensors`), and `rocketjax_adapter.json` beside it says of which weights it was trained, by their
sha256: on others it would be another judge, so it is refused there.

Axes as in `model.py`, and R the rank.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rocketjax.errors import RocketError
from rocketjax.judge.config import Config
from rocketjax.judge.load import write_folder
from rocketjax.judge.model import INPUTS, Adapter, LowRank, Transformer
from rocketjax.judge.source import sha256_of
from rocketjax.judge.weights import HF_BLOCK

ABOUT = "rocketjax_adapter.json"
PEFT_CONFIG, PEFT_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
FORMAT = 1
TARGETS = tuple(INPUTS)  # every projection of a block


@dataclass(frozen=True)
class Card:
    """What an adapter says of itself: the hash and origin of its base, its shape, and how it was trained."""

    base_sha256: str
    base_origin: str
    rank: int
    scale: float
    trained: Mapping[str, Any]


def adapter_paths(config: Config, targets: Iterable[str] = TARGETS, layers: Iterable[int] | None = None) -> list[str]:
    """`blocks.<n>.<target>` for every layer (all if None) and target, in order. Raises RocketError for unknown ones."""
    targets = list(targets)
    unknown = [name for name in targets if name not in TARGETS]
    chosen = list(range(config.layers) if layers is None else layers)
    if unknown or not targets:
        raise RocketError(f"unknown adapter targets {', '.join(unknown) or '(none)'}; there are: {', '.join(TARGETS)}")
    if not chosen or min(chosen) < 0 or max(chosen) >= config.layers:
        raise RocketError(f"layers {chosen} cannot be adapted; the judge has 0 to {config.layers - 1}")
    return [f"blocks.{n}.{name}" for n in chosen for name in targets]


def projection(model: Transformer, path: str) -> Any:
    _, n, name = path.split(".")
    return getattr(model.blocks[int(n)], name)


def init_adapter(model: Transformer, where: Iterable[str], rank: int, scale: float, key: jax.Array) -> Adapter:
    """A fresh adapter, f32: `down` uniform within 1 / sqrt(in) as in the LoRA authors' code, `up` zero."""
    model.unstack_layers()
    pairs = {}
    for path, one in zip(where := list(where), jax.random.split(key, len(where)), strict=True):
        shape = projection(model, path).shape
        inputs = shape[: INPUTS[path.rsplit(".", 1)[-1]]]
        bound = float(np.prod(inputs)) ** -0.5
        down = jax.random.uniform(one, (rank, *inputs), jnp.float32, -bound, bound)
        pairs[path] = LowRank(down, jnp.zeros((rank, *shape[len(inputs) :]), jnp.float32))
    return Adapter(pairs, scale)


def init_eva(fresh: Adapter, moments: Mapping[str, jax.Array]) -> Adapter:
    """`fresh` with `down` the first R right singular vectors of the inputs seen (EVA).

    Paischer et al. 2024, arXiv 2410.07170. `moments[path]` is X^T X, f32[in, in], of the inputs X of that projection;
    its eigenvectors are X's right singular vectors. Ranks stay equal (rho = 1 in the paper). Raises RocketError where
    fewer than R directions of a projection's input carry anything.
    """
    pairs = {}
    solved: dict[int, np.ndarray] = {}
    for path, (down, up) in fresh.pairs.items():
        moment = moments[path]
        if id(moment) not in solved:  # q, k and v share their input, gate and up theirs
            values, vectors = np.linalg.eigh(np.asarray(moment, np.float64))
            rank = len(down)
            # Below f32's own precision an eigenvalue of an f32 matrix is rounding, not a direction.
            if rank > len(values) or values[-rank] <= np.finfo(np.float32).eps * values[-1]:
                raise RocketError(
                    f"the inputs of {path} span fewer than {rank} directions; lower --rank or give more data"
                )
            top = vectors[:, ::-1][:, :rank]
            # An eigenvector's sign is the solver's whim; the largest entry positive makes it ours.
            solved[id(moment)] = top * np.sign(top[np.abs(top).argmax(axis=0), np.arange(rank)])
        pairs[path] = LowRank(jnp.asarray(solved[id(moment)].T, jnp.float32).reshape(down.shape), up)
    return Adapter(pairs, fresh.scale)


def delta(pair: LowRank, scale: float) -> jax.Array:
    """What the adapter adds to the projection, f32[in ..., out ...]."""
    return scale * jnp.tensordot(pair.down, pair.up, (0, 0), precision="highest")


def merge(model: Transformer, adapter: Adapter) -> Transformer:
    """The judge with the adapter inside its weights; computed in f32 and rounded once to the weights' own dtype."""
    model.unstack_layers()
    merged = nnx.clone(model)
    for path, pair in adapter.pairs.items():
        old = projection(model, path)[...]
        projection(merged, path)[...] = (old.astype(jnp.float32) + delta(pair, adapter.scale)).astype(old.dtype)
    return merged


def peft_name(path: str, which: str) -> str:
    """The name in a PEFT file of `blocks.3.q_DNH`'s `A` (down) or `B` (up)."""
    _, n, name = path.split(".")
    return f"base_model.model.model.layers.{n}.{HF_BLOCK[name]}.lora_{which}.weight"


def save_adapter(adapter: Adapter, config: Config, card: Card, folder: Path) -> None:
    """Writes an adapter, in bf16, in place of one that is there; whole or not at all."""
    from safetensors.numpy import save_file

    tensors = {}
    for path, (down, up) in adapter.pairs.items():
        for which, matrix in (("A", np.asarray(down, np.float32).reshape(card.rank, -1)),
                              ("B", np.asarray(up, np.float32).reshape(card.rank, -1).T)):  # fmt: skip
            tensors[peft_name(path, which)] = np.ascontiguousarray(matrix.astype(jnp.bfloat16))
    names = sorted({path.rsplit(".", 1)[-1] for path in adapter.pairs}, key=TARGETS.index)
    peft = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": card.base_origin,
        "r": card.rank,
        "lora_alpha": card.scale * card.rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": [HF_BLOCK[name].rsplit(".", 1)[-1] for name in names],
        "layers_to_transform": sorted({int(path.split(".")[1]) for path in adapter.pairs}),
    }
    about = {"format": FORMAT, "family": config.family, **asdict(card)}

    def write(temporary: Path) -> None:
        save_file(tensors, temporary / PEFT_WEIGHTS)
        for name, value in ((PEFT_CONFIG, peft), (ABOUT, about)):
            (temporary / name).write_text(json.dumps(value, indent=1) + "\n", "utf-8")

    write_folder(folder, write)


def load_adapter(folder: Path, config: Config, base_sha256: str) -> Adapter:
    """Reads what `save_adapter` wrote, for a base with this hash of its weights.

    Raises RocketError for a broken adapter, and for one that was trained on other weights.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        about = json.loads((folder / ABOUT).read_text("utf-8"))
        if about["format"] != FORMAT:
            raise RocketError(f"{folder / ABOUT}: format {about['format']!r}, this version reads {FORMAT}")
        rank, scale, trained_on = int(about["rank"]), float(about["scale"]), str(about["base_sha256"])
        origin = str(about["base_origin"])
        if not np.isfinite(scale):
            raise RocketError(f"{folder / ABOUT}: scale is {scale}")
    except FileNotFoundError:
        raise RocketError(f"{folder}: has no {ABOUT}, so nothing says which weights it belongs to") from None
    except (OSError, KeyError, TypeError, ValueError) as e:
        raise RocketError(f"{folder / ABOUT}: cannot be read ({e!r})") from None
    if trained_on != base_sha256:
        raise RocketError(
            f"{folder}: was trained on {origin}, whose weights have sha256 {trained_on[:16]}...; "
            f"this base has {base_sha256[:16]}..., and on it the adapter would be another judge"
        )
    try:
        tensors = load_file(folder / PEFT_WEIGHTS)
    except (OSError, SafetensorError) as e:
        raise RocketError(f"{folder / PEFT_WEIGHTS}: is no whole safetensors file ({e})") from None
    by_name = {peft_name(path, which): (path, which) for path in adapter_paths(config) for which in "AB"}
    unknown = sorted(tensors.keys() - by_name.keys())
    if unknown or not tensors:
        raise RocketError(
            f"{folder / PEFT_WEIGHTS}: holds {', '.join(unknown[:5]) or 'nothing'}, which no projection takes"
        )
    halves: dict[str, dict[str, np.ndarray]] = {}
    shapes = projection_shapes(config)
    for name, tensor in tensors.items():
        path, which = by_name[name]
        shape = shapes[path.rsplit(".", 1)[-1]]
        cut = INPUTS[path.rsplit(".", 1)[-1]]
        inner, outer = shape[:cut], shape[cut:]
        flat = (rank, int(np.prod(inner))) if which == "A" else (int(np.prod(outer)), rank)
        if tensor.shape != flat or not np.isfinite(tensor.astype(np.float32)).all():
            raise RocketError(f"{folder / PEFT_WEIGHTS}: {name} is {tensor.shape}, not finite numbers of {flat}")
        full = tensor.astype(np.float32)
        halves.setdefault(path, {})[which] = (
            full.reshape(rank, *inner) if which == "A" else full.T.reshape(rank, *outer)
        )
    alone = sorted(path for path, pair in halves.items() if len(pair) < 2)
    if alone:
        raise RocketError(f"{folder / PEFT_WEIGHTS}: has only one half of {', '.join(alone[:5])}")
    pairs = {path: LowRank(jnp.asarray(pair["A"]), jnp.asarray(pair["B"])) for path, pair in sorted(halves.items())}
    return Adapter(pairs, scale)


def projection_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    c = config
    return {
        "q_DNH": (c.D, c.N, c.H), "k_DKH": (c.D, c.K, c.H), "v_DKH": (c.D, c.K, c.H), "o_NHD": (c.N, c.H, c.D),
        "gate_DF": (c.D, c.F), "up_DF": (c.D, c.F), "down_FD": (c.F, c.D),
    }  # fmt: skip


def adapter_sha256(folder: Path) -> str:
    """A hash of an adapter's numbers: of the bytes of its weights and of what scales them."""
    about = json.loads((folder / ABOUT).read_text("utf-8"))
    key = f"{about['base_sha256']} {about['scale']} {sha256_of(folder / PEFT_WEIGHTS)}"
    return hashlib.sha256(key.encode()).hexdigest()
