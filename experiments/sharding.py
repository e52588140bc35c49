"""What a device does, holds and exchanges in one call of the grading step, from the compiled program: a table.

    python experiments/sharding.py
    python experiments/sharding.py --shape default-base --length 2048

Weak scaling: every place of the data axis computes one group of rows, so work grows with the devices; a model axis
cuts the work, the weights and the activations of a row, at the price of two sums in every layer. Nothing is run and no
weights are made: programs are compiled for fake CPU devices from shapes alone. On a CPU a group is one row.
"""

import argparse
import json
from pathlib import Path

import jax
from one_gpu import SHAPES, config_of

from rocketjax.judge import locate, read_config

MESHES = ((1, 1), (2, 1), (4, 1), (8, 1), (4, 2), (2, 4), (1, 8))


def measure(config, length: int, data: int, model: int) -> dict:
    """One row of the table, per device and call."""
    from flax import nnx
    from jax.sharding import NamedSharding, PartitionSpec

    from rocketjax.grade.estimate import dense_flops
    from rocketjax.grade.step import step_of
    from rocketjax.judge import MeshShape, Places, Row, Transformer, attention, collectives, make_mesh
    from rocketjax.judge.load import stored_dtype
    from rocketjax.prompt.pack import leaves_of

    def stacked() -> Transformer:
        built = Transformer(config)
        built.stack_layers()
        return built

    mesh = make_mesh(MeshShape(data, model), jax.devices())
    places = Places(config, mesh)
    graph, state = nnx.split(nnx.eval_shape(stacked))
    leaves, structure = jax.tree_util.tree_flatten_with_path(state)
    held = 0
    made = []
    for keys, leaf in leaves:
        path = ".".join(str(k.key) for k in keys[:-1])
        placed = places.of(path)
        made.append(jax.ShapeDtypeStruct(leaf.shape, stored_dtype(path, "bf16"), sharding=placed))
        part = placed.shard_shape(leaf.shape)
        size = made[-1].dtype.itemsize
        for n in part:
            size *= n
        held += size
    abstract = nnx.merge(graph, jax.tree.unflatten(structure, made))
    by_rows = NamedSharding(mesh, PartitionSpec("data"))
    widths = {"leaf_L": leaves_of(length)}
    rows = Row(*(jax.ShapeDtypeStruct((data, widths.get(f, length)), "int32", sharding=by_rows) for f in Row._fields))
    step = step_of(mesh, ((0,), (1,)), by_rows, attention.skipping_for("cpu"))
    program = step.lower(abstract, rows).compile()
    exchanged = collectives(program)
    flops = dense_flops(config, length, leaves_of(length)) * data
    return {
        "mesh": f"data={data},model={model}",
        "devices": data * model,
        "rows": data,
        "gflops_all": flops / 1e9,
        "gflops_per_device": sum_of_products(config, length, places, leaves_of(length)) / 1e9,
        "weights_mb": held / 1e6,
        "temporary_mb": program.memory_analysis().temp_size_in_bytes / 1e6,
        "collectives": sum(x.times for x in exchanged),
        "kinds": sorted({x.kind for x in exchanged}),
        "exchanged_mb": sum(x.bytes * x.times for x in exchanged) / 1e6,
        "largest_mb": max((x.bytes for x in exchanged), default=0) / 1e6,
    }


def sum_of_products(config, length: int, places, leaves: int) -> float:
    """FLOPs of the weights' products on one device: each projection's, over the devices that it is cut over."""
    c, model = config, places.mesh.shape["model"]
    heads, hidden, vocabulary = (model if places.where.get(letter) else 1 for letter in "KFV")
    keys, rest = 2 * c.D * c.K * c.H / heads, 2 * c.D * c.N * c.H / heads + 3 * c.D * c.F / hidden
    return 2 * (length * (c.layers * keys + (c.layers - 1) * rest) + leaves * (rest + c.D * c.V / vocabulary))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="gemma-2-2b", help=f"{', '.join(SHAPES)}, or a judge as grade takes it")
    parser.add_argument("--length", type=int, default=1024, help="tokens of a row")
    parser.add_argument("--json", type=Path, help="write the rows here, one a line")
    a = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", 8)
    config = config_of(a.shape) if a.shape in SHAPES else read_config(locate(a.shape).path)
    rows = [measure(config, a.length, *mesh) for mesh in MESHES]
    print(f"{a.shape}, bf16, rows of {a.length} tokens; per device and call")
    print("| mesh | rows | GFLOP of weights' products | weights MB | temporary MB | sums | of them MB |")
    print("|---|---|---|---|---|---|---|")
    for r in rows:
        print(
            f"| {r['mesh']} | {r['rows']} | {r['gflops_per_device']:,.1f} | {r['weights_mb']:,.0f} | "
            f"{r['temporary_mb']:,.0f} | {r['collectives']} {' '.join(r['kinds'])} | {r['exchanged_mb']:,.1f} |"
        )
    if a.json:
        a.json.write_text("".join(json.dumps(r) + "\n" for r in rows), "utf-8")


if __name__ == "__main__":
    main()
