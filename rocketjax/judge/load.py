"""Weights into a `Transformer`: from a Hugging Face folder, a GGUF file, or a folder that `convert` made.

The last is an Orbax checkpoint with its config in `rocketjax.json` and its tokenizer beside it. Tensors are read
one at a time and go to their devices at once, so memory holds the model and one tensor more; a process reads of each
tensor only what its own devices hold (a GGUF file's rows are dequantised whole).
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
from flax import nnx
from jax.sharding import Mesh, SingleDeviceSharding

from rocketjax.errors import RocketError
from rocketjax.judge.config import MALFORMED, Config, read_gguf_config, read_hf_config
from rocketjax.judge.model import INPUTS, Int8, Transformer, quantise
from rocketjax.judge.sharding import Places
from rocketjax.judge.source import sha256_of
from rocketjax.judge.weights import Container, Index, match, of_language_model, parameter, stored_index, table
from rocketjax.prompt.gguf_file import GGUF, read_gguf
from rocketjax.prompt.tokenizer import load_tokenizer

Dtype = Literal["f32", "bf16", "int8"]
OURS = "rocketjax.json"
FORMAT = 1


def load_model(path: Path, dtype: Dtype, mesh: Mesh | None = None) -> tuple[Transformer, str]:
    """The model on the default device or on a mesh (see `sharding.Places`), and the sha256 of its weights.

    `f32`: every parameter in f32. `bf16`: projections and embedding in bf16, gains and biases in f32. `int8`: the
    former in int8 with a scale for each output, products of f32 on a CPU and of bf16 elsewhere. Raises RocketError
    for anything that is not exactly one of the known judges.
    """
    if path.is_file():
        file = read_gguf(path)
        model = from_tensors(read_gguf_config(file), "gguf", *gguf_tensors(file), dtype, str(path), mesh)
    elif (path / OURS).exists():
        model = from_orbax(path, dtype, mesh)
    elif path.is_dir():
        config = read_hf_config(path)
        model = from_tensors(config, "huggingface", *safetensors(path), dtype, str(path), mesh)
    else:
        raise RocketError(f"{path}: no such judge; give a folder or a .gguf file")
    return model, weights_sha256(path)


def read_config(path: Path) -> Config:
    """The config of a judge's file or folder; its weights are not read and need not be there.

    Raises RocketError where there is no judge of a kind that `load_model` takes.
    """
    if path.is_file():
        return read_gguf_config(read_gguf(path))
    if (path / OURS).exists():
        return orbax_config(path)
    if path.is_dir():
        return read_hf_config(path)
    raise RocketError(f"{path}: no such judge; give a folder or a .gguf file")


def weights_sha256(path: Path) -> str:
    """A hash of the bytes of the weight files: of the file itself, or of the names and hashes of several."""
    if path.is_file():
        return sha256_of(path)
    root = path / "weights" if (path / OURS).exists() else path
    files = [f for f in sorted(root.rglob("*")) if f.is_file()] if root != path else safetensors_files(path)
    if len(files) == 1:
        return sha256_of(files[0])
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(root).as_posix()} {sha256_of(file)}\n".encode())
    return digest.hexdigest()


Shapes = Mapping[str, tuple[int, ...]]
Read = Callable[[str, Index], np.ndarray]  # rows, or rows and columns, of a tensor by its name, in f32, f16 or bf16
PIECE = 1 << 20  # numbers that are compared at once


def from_tensors(
    config: Config,
    container: Container,
    shapes: Shapes,
    read: Read,
    dtype: Dtype,
    where: str,
    mesh: Mesh | None = None,
) -> Transformer:
    """A model from named tensors, which must match the family's table one to one."""
    graph, state, paths = abstract(config)
    wanted = {path: tuple(leaf.shape) for path, leaf in paths.items()}
    names = table(config, container, wanted)
    tied = table(config, container, ["head_DV"])["head_DV"] if config.tied else None
    match(names, shapes, wanted, tied, where)
    if tied and tied in shapes:
        rows, width = wanted["embed_VD"]
        step = max(1, PIECE // width)
        for first in range(jax.process_index() * step, rows, jax.process_count() * step):
            piece = (slice(first, min(first + step, rows)), slice(0, width))
            if not np.array_equal(read(tied, piece), read(names["embed_VD"], piece)):
                raise RocketError(
                    f"{where}: the config ties the output head to the embedding, but {tied} is another matrix"
                )
    places = Places(config, mesh) if mesh else None

    def leaf(path: str) -> jax.Array | Int8:
        shape, target = wanted[path], np.float32 if dtype == "int8" else stored_dtype(path, dtype)
        parts: dict[str, np.ndarray] = {}  # devices along the data axis hold the same

        def part(index: Index | None) -> np.ndarray:
            assert index is not None, "the places are known"
            spans = tuple(slice(*x.indices(n)[:2]) for x, n in zip(index, shape, strict=True))
            if str(spans) not in parts:
                tensor = read(names[path], stored_index(path, spans, shape))
                if not np.isfinite(tensor).all():
                    raise RocketError(f"{where}: {names[path]} holds values that are not finite")
                local = tuple(x.stop - x.start for x in spans)
                parts[str(spans)] = np.asarray(parameter(path, tensor, local, config, container), target, "C")
            return parts[str(spans)]

        home = places.of(path) if places else SingleDeviceSharding(jax.local_devices()[0])
        return stored(path, jax.make_array_from_callback(shape, home, part), dtype, places)

    return nnx.merge(graph, jax.tree.unflatten(state, [leaf(path) for path in paths]))


def abstract(config: Config) -> tuple[Any, Any, dict[str, jax.ShapeDtypeStruct]]:
    """The model without numbers: graph, tree structure, and each parameter by its path (`blocks.3.q_DNH`)."""
    graph, state = nnx.split(nnx.eval_shape(lambda: Transformer(config)))
    leaves, structure = jax.tree_util.tree_flatten_with_path(state)
    # The last step of a path is the variable's own value.
    return graph, structure, {".".join(str(k.key) for k in keys[:-1]): leaf for keys, leaf in leaves}


def stored_dtype(path: str, dtype: Dtype) -> Any:
    """The dtype of a parameter's numbers; of the products' operands where they are int8."""
    narrow = jnp.float32 if dtype == "int8" and jax.default_backend() == "cpu" else jnp.bfloat16
    return jnp.float32 if dtype == "f32" or "norm" in path or "bias" in path else narrow


def weight_bytes(config: Config, dtype: Dtype) -> int:
    """Bytes of the parameters as `load_model` holds them."""
    total = 0
    for path, leaf in abstract(config)[2].items():
        size = math.prod(leaf.shape)
        if dtype == "f32" or "norm" in path or "bias" in path:
            total += 4 * size
        elif dtype == "bf16":
            total += 2 * size
        else:
            name = path.rsplit(".", 1)[-1]
            outputs = leaf.shape[0] if name == "embed_VD" else math.prod(leaf.shape[INPUTS.get(name, 1) :])
            total += size + 4 * outputs
    return total


def stored(path: str, tensor: Any, dtype: Dtype, places: Places | None = None) -> jax.Array | Int8:
    """A parameter as a model of this dtype holds it; where `places` are given, it lies there already."""
    if dtype != "int8" or "norm" in path or "bias" in path:
        return jnp.asarray(tensor, stored_dtype(path, dtype))
    name = path.rsplit(".", 1)[-1]
    inputs = (1,) if name == "embed_VD" else tuple(range(INPUTS.get(name, 1)))
    operands = stored_dtype(path, dtype)
    if places is None:
        return quantise(jnp.asarray(tensor, jnp.float32), inputs, operands)
    home = Int8(*places.of_int8(path), operands)  # type: ignore[arg-type]
    rounded: Int8 = jax.jit(quantise, static_argnums=(1, 2), out_shardings=home)(tensor, inputs, operands)
    return rounded


def cast(model: Transformer, dtype: Dtype, mesh: Mesh | None = None) -> Transformer:
    """The model with every parameter in the dtype that `load_model` would store it in; on its mesh, if it has one."""
    model.unstack_layers()
    graph, structure, paths = abstract(model.config)
    places = Places(model.config, mesh) if mesh else None
    leaves = [stored(path, a, dtype, places) for path, a in zip(paths, jax.tree.leaves(nnx.state(model)), strict=True)]
    return nnx.merge(graph, jax.tree.unflatten(structure, leaves))


def safetensors_files(folder: Path) -> list[Path]:
    """The weight files of a Hugging Face folder; RocketError where the index is broken or leads elsewhere."""
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        if not (folder / "model.safetensors").is_file():
            raise RocketError(f"{folder}: has neither model.safetensors nor model.safetensors.index.json")
        return [folder / "model.safetensors"]
    try:
        names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()), key=str)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise RocketError(f"{index}: is no index of safetensors ({e!r})") from None
    files = []
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise RocketError(f"{index}: names {name!r}; a shard must be a .safetensors file in the same folder")
        if not (folder / name).is_file():
            raise RocketError(f"{folder / name}: is missing, but the index names it")
        files.append(folder / name)
    return files


def safetensors(folder: Path) -> tuple[Shapes, Read]:
    """Shapes and a reader of all tensors of a Hugging Face folder."""
    from safetensors import SafetensorError, safe_open

    home: dict[str, Any] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for file in safetensors_files(folder):
        try:
            opened = safe_open(file, framework="numpy")
        except (OSError, SafetensorError) as e:
            raise RocketError(f"{file}: is no whole safetensors file ({e})") from None
        for name in opened.keys():  # noqa: SIM118 - not a dict
            if name in home:
                raise RocketError(f"{file}: tensor {name!r} stands in two files")
            home[name] = opened
            shapes[name] = tuple(opened.get_slice(name).get_shape())
            kind = opened.get_slice(name).get_dtype()
            if kind not in ("F32", "BF16", "F16"):
                raise RocketError(f"{file}: tensor {name!r} is {kind}; F32, BF16 and F16 are read")
    names = of_language_model(shapes)
    return {own: shapes[name] for own, name in names.items()}, lambda own, index: np.asarray(
        home[names[own]].get_slice(names[own])[index]
    )


def gguf_tensors(file: GGUF) -> tuple[Shapes, Read]:
    """Shapes and a dequantising reader (f32) of all tensors of a GGUF file."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

    size = file.path.stat().st_size
    rows: dict[str, tuple[Any, int]] = {}
    for name, info in file.tensors.items():
        try:
            kind = GGMLQuantizationType(info.kind)
            block, length = GGML_QUANT_SIZES[kind]
        except (ValueError, KeyError):
            raise RocketError(f"{file.path}: tensor {name!r} has an unknown type, {info.kind}") from None
        if not info.shape or info.shape[-1] % block:
            raise RocketError(f"{file.path}: tensor {name!r} of shape {info.shape} cannot be {kind.name}")
        rows[name] = (kind, info.shape[-1] // block * length)
        if info.offset + math.prod(info.shape[:-1]) * rows[name][1] > size:
            raise RocketError(f"{file.path}: is cut off; tensor {name!r} ends behind the end of the file")

    def read(name: str, index: Index) -> np.ndarray:
        info, row = file.tensors[name], rows[name][1]
        if len(info.shape) == 1:
            return dequantised(name, np.memmap(file.path, np.uint8, "r", info.offset, (row,)))[index]
        data = np.memmap(file.path, np.uint8, "r", info.offset, (*info.shape[:-1], row))[index[0]]
        # Some rows at a time: dequantising holds their numbers twice.
        step = max(1, PIECE // info.shape[-1])
        found = np.empty((len(data), len(range(*index[1].indices(info.shape[-1])))), np.float32)
        for first in range(0, len(data), step):
            found[first : first + step] = dequantised(name, data[first : first + step])[:, index[1]]
        return found

    def dequantised(name: str, data: np.ndarray) -> np.ndarray:
        kind = rows[name][0]
        try:
            if kind in (GGMLQuantizationType.F32, GGMLQuantizationType.F16):
                plain = np.float32 if kind == GGMLQuantizationType.F32 else np.float16
                # A copy: the array must not change when the file does.
                return np.array(data.view(plain), np.float32)
            return np.asarray(dequantize(np.asarray(data), kind), np.float32)
        except NotImplementedError:
            raise RocketError(f"{file.path}: tensor {name!r} is {kind.name}, which cannot be dequantised") from None

    return {name: info.shape for name, info in file.tensors.items()}, read


def save_orbax(model: Transformer, folder: Path, sha256: str) -> None:
    """Writes config and weights into an existing folder; `sha256` says where the weights came from."""
    from orbax.checkpoint import v1 as ocp

    model.unstack_layers()
    leaves, _ = jax.tree_util.tree_flatten_with_path(nnx.state(model))
    ocp.save(
        folder.absolute() / "weights",
        {".".join(str(k.key) for k in keys[:-1]): leaf for keys, leaf in leaves},
    )
    about = {"format": FORMAT, "config": asdict(model.config), "from_sha256": sha256}
    (folder / OURS).write_text(json.dumps(about, indent=1) + "\n", "utf-8")


def orbax_config(folder: Path) -> Config:
    """The config beside what `save_orbax` wrote."""
    try:
        about = json.loads((folder / OURS).read_text("utf-8"))
        if about["format"] != FORMAT:
            raise RocketError(f"{folder / OURS}: format {about['format']!r}, this version reads {FORMAT}")
        return msgspec.convert(about["config"], Config)
    except (OSError, KeyError, *MALFORMED) as e:  # msgspec's errors are ValueErrors
        raise RocketError(f"{folder / OURS}: is no judge's config ({e})") from None


def from_orbax(folder: Path, dtype: Dtype, mesh: Mesh | None = None) -> Transformer:
    """Reads what `save_orbax` wrote; parameters are cast on the way, and each process reads its own shards."""
    if dtype == "int8":
        return cast(from_orbax(folder, "f32", mesh), dtype, mesh)
    from orbax.checkpoint import v1 as ocp

    config = orbax_config(folder)
    graph, structure, paths = abstract(config)
    places = Places(config, mesh) if mesh else None
    alone = SingleDeviceSharding(jax.local_devices()[0])
    wanted = {
        path: jax.ShapeDtypeStruct(leaf.shape, stored_dtype(path, dtype), sharding=places.of(path) if places else alone)
        for path, leaf in paths.items()
    }
    try:
        loaded = ocp.load((folder / "weights").absolute(), wanted)
    except Exception as e:  # Orbax raises many kinds for a broken checkpoint; all mean the same to a user
        raise RocketError(f"{folder / 'weights'}: cannot be read ({str(e).splitlines()[0][:300]})") from None
    return nnx.merge(graph, jax.tree.unflatten(structure, [loaded[path] for path in paths]))


def save_judge(model: Transformer, tokenizer_from: Path, folder: Path, sha256: str) -> None:
    """Writes a judge with its tokenizer in place of one that is there; whole or not at all."""

    def write(temporary: Path) -> None:
        load_tokenizer(tokenizer_from).save(temporary)
        save_orbax(model, temporary, sha256)

    write_folder(folder, write)


def write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Fills a neighbour of `folder`, brings it to the disk and renames it. RocketError where that fails."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        write(temporary)
        for file in temporary.rglob("*"):
            sync(file)
        sync(temporary)
        old = temporary.with_suffix(".old.tmp")
        if folder.exists():
            os.replace(folder, old)  # a rename, so that at no moment there is half a folder
        os.replace(temporary, folder)
        sync(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as e:
        raise RocketError(f"{folder}: cannot be written ({e})") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sync(path: Path) -> None:
    """Asks the system to bring a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
