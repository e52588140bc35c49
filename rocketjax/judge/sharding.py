"""Where each weight lies: the letters in its name are its logical axes, and one table puts them on the mesh's.

A mesh has two axes. Rows of a batch are cut over `data`; heads, hidden widths and the vocabulary over `model`, so that
a judge that is too large for one device fits on several (Shoeybi et al. 2019, arXiv 1909.08053: two sums over the
axis in every layer). Inside a step, `data` is manual, so that what is computed for a row does not depend on how many
devices there are; on `model` the weights' places say everything, and the compiler adds the sums. Explicit types on it
are not used: with them jax 0.10 gathers all weights whole where a `shard_map` over `data` begins.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from rocketjax.errors import RocketError
from rocketjax.judge.config import Config
from rocketjax.judge.model import INPUTS, Adapter, Int8, LowRank, Transformer

# Logical axis -> physical axis. None: every device holds the whole of it.
PHYSICAL: dict[str, str | None] = {"V": "model", "N": "model", "K": "model", "F": "model", "D": None, "H": None}
ROOM = 0.6  # share of a device's memory that weights may take where the mesh is chosen; the rest is for activations

Layout = Mapping[str, str | None]


@dataclass(frozen=True)
class MeshShape:
    """How many devices lie along each axis of a mesh."""

    data: int
    model: int = 1

    @property
    def devices(self) -> int:
        return self.data * self.model


def parse_mesh(text: str, devices: int) -> MeshShape:
    """`data=4,model=2` as a shape; one of the two may be left out, and takes what the other leaves of `devices`.

    Raises RocketError for anything else, and for a mesh of more devices than there are.
    """
    given: dict[str, int] = {}
    for part in text.replace(" ", "").split(","):
        found = re.fullmatch(r"(data|model)=([1-9]\d*)", part)
        if found is None or found[1] in given:
            raise RocketError(f"mesh {text!r}: it is auto or like data=4,model=2")
        given[found[1]] = int(found[2])
    if len(given) == 1:
        (name, size), other = next(iter(given.items())), "model" if "data" in given else "data"
        if name == "model" and devices % size:
            raise RocketError(f"mesh {text!r}: {devices} devices cannot be cut into parts of {size}")
        given[other] = 1 if name == "data" else devices // size
    shape = MeshShape(given["data"], given["model"])
    if shape.devices > devices:
        raise RocketError(f"mesh {text!r}: needs {shape.devices} devices, there are {devices}")
    return shape


def choose_mesh(config: Config, weight_bytes: int, devices: Sequence[jax.Device]) -> MeshShape:
    """All devices on `data`, unless the weights do not fit on one: then the smallest `model` axis on which they do.

    `devices` are one process's: a model axis stays inside it. Where a device does not say how much memory it has (a
    CPU), the axis is 1. Raises RocketError where no axis is long enough.
    """
    local = len(devices)
    memory = (devices[0].memory_stats() or {}).get("bytes_limit") if devices[0].platform != "cpu" else None
    if memory is None:
        return MeshShape(local)
    for model in (n for n in range(1, local + 1) if local % n == 0 and (config.K % n == 0 or config.F % n == 0)):
        if weight_bytes_per_device(config, weight_bytes, model) <= ROOM * memory:
            return MeshShape(local // model, model)
    raise RocketError(
        f"the judge's weights are {weight_bytes / 1e9:.1f} GB, and a device has {memory / 1e9:.1f} GB; "
        f"cut over the {local} devices of a host they do not fit either: give --mesh model=N over several hosts, "
        "or --dtype int8"
    )


def weight_bytes_per_device(config: Config, weight_bytes: int, model: int) -> float:
    """Bytes of the weights that one device holds, about: the share of each parameter that is cut, and the rest."""
    where, total, held = layout(config, model) if model > 1 else {}, 0, 0.0
    for letters, shape in parameter_shapes(config):
        size = math.prod(shape)
        total += size
        held += size / (model if any(where.get(letter) for letter in letters) else 1)
    return weight_bytes * held / total


def parameter_shapes(config: Config) -> list[tuple[str, tuple[int, ...]]]:
    """Letters and shape of every parameter."""
    state = nnx.state(nnx.eval_shape(lambda: Transformer(config)))
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return [(letters_of(str(keys[-2].key)), leaf.shape) for keys, leaf in leaves]


def make_mesh(shape: MeshShape, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh `("data", "model")` of the first devices; neighbours along `model`, where the most is exchanged."""
    devices = jax.local_devices() if devices is None else devices
    grid = np.asarray(devices[: shape.devices]).reshape(shape.data, shape.model)
    return Mesh(grid, ("data", "model"), axis_types=(AxisType.Auto, AxisType.Auto))


def untyped(mesh: Mesh) -> Mesh:
    """The same mesh with axes as `make_mesh` gives them."""
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * len(mesh.axis_names))


def manual(mesh: Mesh) -> set[str]:
    """The axes that a step is manual over: a model axis of one device needs no compiler."""
    return {"data", "model"} if mesh.shape["model"] == 1 else {"data"}


def layout(config: Config, model: int, physical: Layout = PHYSICAL) -> dict[str, str | None]:
    """The table for a judge on a model axis of this length; an axis that it does not divide stays whole.

    Query heads are cut as their key heads are. Raises RocketError where neither heads nor hidden width can be cut.
    """
    c = config
    size = {"V": c.V, "N": c.K, "K": c.K, "F": c.F, "D": c.D, "H": c.H}
    found = {letter: axis if axis and size[letter] % model == 0 else None for letter, axis in physical.items()}
    if not (found["K"] or found["F"]) and model > 1:
        raise RocketError(
            f"a model axis of {model} divides neither this judge's {c.K} key heads nor its hidden width of {c.F}"
        )
    return found


def letters_of(name: str) -> str:
    """`q_DNH` -> `DNH`, `attn_norm_D` -> `D`."""
    return name.rsplit("_", 1)[-1]


def spec(letters: str, where: Layout) -> PartitionSpec:
    """The places of a parameter with these axes. ValueError where two of them fall on one axis of the mesh."""
    axes = [where.get(letter) for letter in letters]
    taken = [axis for axis in axes if axis]
    if len(taken) != len(set(taken)):
        raise ValueError(f"axes {letters}: two of them are cut over {max(taken, key=taken.count)!r}")
    while axes and axes[-1] is None:
        axes.pop()
    return PartitionSpec(*axes)


class Places:
    """A judge's layout on a mesh: where each of its parameters lies."""

    def __init__(self, config: Config, mesh: Mesh) -> None:
        self.mesh = mesh
        self.where: Layout = layout(config, mesh.shape["model"]) if mesh.shape["model"] > 1 else {}

    @property
    def whole(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec())

    def of(self, path: str) -> NamedSharding:
        """Of the parameter with this path (`blocks.3.q_DNH`; `stack.q_DNH` has an axis of layers in front)."""
        letters = letters_of(path.rsplit(".", 1)[-1])
        return NamedSharding(self.mesh, spec("." + letters if path.startswith("stack.") else letters, self.where))

    def of_int8(self, path: str) -> tuple[NamedSharding, NamedSharding]:
        """Of an int8 parameter's values, and of its scales, which have the axes of its outputs."""
        name = path.rsplit(".", 1)[-1]
        letters, cut = letters_of(name), INPUTS.get(name, 1)
        outputs = letters[:1] if name == "embed_VD" else letters[cut:]
        layers = "." if path.startswith("stack.") else ""
        return self.of(path), NamedSharding(self.mesh, spec(layers + outputs, self.where))

    def of_pair(self, path: str) -> LowRank:
        """Of an adapter's two halves; the rank stays whole."""
        name = path.rsplit(".", 1)[-1]
        letters, cut = letters_of(name), INPUTS[name]
        down, up = (NamedSharding(self.mesh, spec("." + x, self.where)) for x in (letters[:cut], letters[cut:]))
        return LowRank(down, up)  # type: ignore[arg-type]

    def place(self, model: Transformer) -> Transformer:
        """The model with every parameter in its place; a copy only of what was elsewhere."""
        graph, state = nnx.split(model)
        leaves, structure = jax.tree_util.tree_flatten_with_path(state, is_leaf=lambda x: isinstance(x, Int8))
        return nnx.merge(graph, jax.tree.unflatten(structure, [self.put(keys, leaf) for keys, leaf in leaves]))

    def put(self, keys: Any, leaf: Array | Int8) -> Array | Int8:
        path = ".".join(str(k.key) for k in keys[:-1])
        if isinstance(leaf, Int8):
            values, scale = self.of_int8(path)
            return Int8(jax.device_put(leaf.values, values), jax.device_put(leaf.scale, scale), leaf.dtype)
        return jax.device_put(leaf, self.of(path))

    def place_adapter(self, adapter: Adapter) -> Adapter:
        """The adapter with its pairs beside the weights that they are added to."""
        pairs = {path: LowRank(*map(jax.device_put, pair, self.of_pair(path))) for path, pair in adapter.pairs.items()}
        return Adapter(pairs, adapter.scale)


class Collective(NamedTuple):
    """An exchange between devices in a compiled program: its kind, the bytes of its result, and how often it is run."""

    kind: str
    bytes: int
    times: int


KINDS = r"(all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute|ragged-all-to-all)(?:-start)?\("


def collectives(program: jax.stages.Compiled) -> list[Collective]:
    """What the devices exchange in one call of a program, read from its HLO; loops count as often as they turn.

    A loop whose number of turns the compiler does not know counts once.
    """
    bodies: dict[str, list[str]] = {}
    entry = name = ""
    for line in (program.as_text() or "").splitlines():
        if found := re.match(r"(ENTRY )?%?([\w.-]+) \(.*\{$", line):
            name = found[2]
            bodies[name] = []
            entry = name if found[1] else entry
        elif name:
            bodies[name].append(line)
    result = []

    def visit(name: str, times: int) -> None:
        for line in bodies.get(name, ()):
            if found := re.search(r"= (.*?) " + KINDS, line):
                result.append(Collective(found[2], result_bytes(found[1], found[2]), times))
            turns = re.search(r'known_trip_count":\{"n":"(\d+)"', line)
            for called in re.findall(r"(?:calls|to_apply|body|condition)=%?([\w.-]+)", line):
                visit(called, times * (int(turns[1]) if turns else 1))
            for branches in re.findall(r"branch_computations=\{([^}]*)\}", line):
                for called in branches.split(","):
                    visit(called.strip().lstrip("%"), times)

    visit(entry, 1)
    return result


def result_bytes(shape: str, kind: str) -> int:
    """Bytes of an HLO result type; of an asynchronous gather's pair of operand and result, the result's."""
    sizes = []
    for letters, bits, dims in re.findall(r"(pred|bf|[fsu])(\d*)\[([\d,]*)\]", shape):
        width = 1 if letters == "pred" else int(bits) // 8
        sizes.append(width * math.prod(int(d) for d in dims.split(",") if d))
    return max(sizes, default=0) if kind == "all-gather" else sum(sizes)
