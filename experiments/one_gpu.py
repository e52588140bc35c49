"""Grading on one GPU: as exact as on a CPU, and how fast. Not yet run on any GPU by the authors.

    pip install -e '.[test]' 'jax[cuda12]' && python experiments/one_gpu.py BENCH [--limit 4] [--torch-python PYTHON]

Prints three tables and exits with 1 where a figure misses its bound.

1. Parity of the default judge: p(yes) on the GPU in f32 and bf16 against f32 on the CPU of the same machine, for the
   same packed rows. Bounds: f32 1e-4; bf16 is bounded by .02 on average, what rounding costs on a CPU too.
2. Speed by row length, for the default judge and for random weights of Gemma 2 2B's shape, in bf16: items and tokens a
   second, model FLOPs utilisation (`row_flops`, useful work only) of the matmul peak measured here and of --peak.
   The aim is 50% of the measured peak on Gemma 2 2B's shape.
3. With --torch-python (an environment with transformers and CUDA torch): transformers with the prefix's keys and values
   reused, the same prompts and weights' shape. SDPA has no soft cap, so transformers takes its eager attention for
   Gemma 2. The aim is five times its items per second.

Without a GPU it says so and measures nothing.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import typer
from flax import nnx
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))
from throughput import PEERS, SHAPES, tokenized

from rocketjax.bench import Benchmark, load_benchmark
from rocketjax.doctor import matmul_flops
from rocketjax.grade import Grader, Judge, row_flops
from rocketjax.judge import Transformer, read_hf_config
from rocketjax.prompt import PackedRow, Prompter, pack_query, row_lengths, template

BOUNDS = {"f32": (1e-4, np.max), "bf16": (0.02, np.mean)}
GEMMA = "gemma-2-2b"
console = Console(width=120)


def mesh_of(device: jax.Device) -> jax.sharding.Mesh:
    return jax.make_mesh((1, 1), ("data", "model"), devices=[device])


def rows_of(prompts: list[list[list[list[int]]]], window: int, longest: int) -> dict[int, list[PackedRow]]:
    """The packed rows of all queries, by length."""
    found: dict[int, list[PackedRow]] = {}
    for query in prompts:
        arrays = [[np.asarray(ids, np.int32) for ids in response] for response in query]
        for row in pack_query(arrays, longest, window):
            found.setdefault(row.length, []).append(row)
    return dict(sorted(found.items()))


def p_yes(grader: Grader, rows: dict[int, list[PackedRow]]) -> np.ndarray:
    """p(yes) of every leaf that an item owns, in the order of the rows."""
    out = []
    for group in rows.values():
        answers = np.concatenate([np.asarray(a.p_yes) for a in grader(group)])
        out += [answers[r, : len(row.owners)] for r, row in enumerate(group)]
    return np.concatenate(out)


def parity(judge: str | None, prompts: Any, longest: int, gpu: jax.Device) -> bool:
    table = Table("dtype", "items", "mean change of p(yes)", "largest", "bound", title="GPU against f32 on the CPU")
    cpu = jax.local_devices(backend="cpu")[0]
    exact, kept = None, True
    for dtype, device in (("f32", cpu), ("f32", gpu), ("bf16", gpu)):
        with jax.default_device(device):
            loaded = Judge.load(judge, dtype)  # type: ignore[arg-type]
            grader = Grader(loaded.model, loaded.tokenizer.answer_ids(), mesh_of(device))
        found = p_yes(grader, rows_of(prompts, loaded.model.config.window, longest))
        if exact is None:
            exact = found
            continue
        change = np.abs(found - exact)
        bound, of = BOUNDS[dtype]
        kept &= bool(of(change) <= bound)
        table.add_row(
            dtype, str(len(change)), f"{change.mean():.2e}", f"{change.max():.2e}", f"{of.__name__} <= {bound:g}"
        )
    console.print(table)
    return kept


def random_judge() -> Transformer:
    """Gemma 2 2B's shape with random bf16 weights, made on the device."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(SHAPES[GEMMA]))
        config = read_hf_config(Path(folder))
    graph, state = nnx.split(nnx.eval_shape(lambda: Transformer(config)))
    leaves, structure = jax.tree.flatten(state)
    keys = jax.random.split(jax.random.key(0), len(leaves))
    made = [0.02 * jax.random.normal(key, x.shape, jnp.bfloat16) for key, x in zip(keys, leaves, strict=True)]
    return nnx.merge(graph, jax.tree.unflatten(structure, made))


def speed(name: str, grader: Grader, rows: dict[int, list[PackedRow]], peak: float, rounds: int) -> float:
    """Prints a line per row length; returns seconds for all rows once, compilation outside the clock."""
    table = Table(
        "row", "rows", "items", "ms per row", "items/s", "tokens/s", "of measured peak",
        title=f"{name}, bf16, measured matmul peak {peak / 1e12:.0f} TFLOP/s, median of {rounds}",
    )  # fmt: skip
    total = 0.0
    for length, group in rows.items():
        # Full calls only: a padded one would be charged for rows that nobody asked for.
        full = [group[i % len(group)] for i in range(-(-len(group) // grader.rows(length)) * grader.rows(length))]
        jax.block_until_ready(grader(full))
        times = []
        for _ in range(rounds):
            begun = time.perf_counter()
            jax.block_until_ready(grader(full))
            times.append(time.perf_counter() - begun)
        seconds = median(times) / len(full)
        total += seconds * len(group)
        items = sum(len(ids) for row in full for ids in row.owners) / len(full)
        flops = sum(row_flops(grader.config, row) for row in full) / len(full)
        tokens = sum(row.tokens for row in full) / len(full)
        table.add_row(
            str(length), str(len(group)), f"{items:.1f}", f"{1e3 * seconds:.2f}", f"{items / seconds:,.0f}",
            f"{tokens / seconds:,.0f}", f"{flops / seconds / peak:.0%}",
        )  # fmt: skip
    console.print(table)
    return total


def peer(python: str, prompts: Any, answer_ids: Any, cache: Path) -> float:
    """Seconds of transformers on CUDA for the same prompts, its fastest options, prefix reused."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}

    def call(job: dict[str, Any]) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as room:
            task, result = Path(room) / "job.json", Path(room) / "result.json"
            task.write_text(json.dumps(job))
            subprocess.run([python, str(PEERS), str(task), str(result)], check=True, env=environment)
            return json.loads(result.read_text()) if result.exists() else {}

    folder = cache / GEMMA / "hf"
    if not folder.exists():
        call({"task": "shape", "config": SHAPES[GEMMA], "output": str(folder)})
    job = {
        "task": "grade", "engine": "transformers", "scheme": "prefix", "dtype": "bf16", "device": "cuda",
        "model": str(folder), "threads": os.cpu_count(), "yes": list(answer_ids[0]), "no": list(answer_ids[1]),
        "cases": {"mtbench": prompts},
    }  # fmt: skip
    return float(call(job)["cases"]["mtbench"]["seconds"])


def prompts_of(benchmark: Benchmark, judge: Judge, longest: int) -> Any:
    return tokenized(benchmark, Prompter(judge.tokenizer, template("native"), longest, "truncate-middle"))


def main(
    bench: Path,
    judge: Annotated[str | None, typer.Option(help="As for `rocketjax grade`.")] = None,
    limit: Annotated[int, typer.Option(help="Queries.")] = 4,
    models: Annotated[int, typer.Option(help="Models under test.")] = 6,
    rounds: int = 5,
    max_tokens: int = 4096,
    torch_python: Annotated[str | None, typer.Option(help="Of an environment with transformers and CUDA.")] = None,
    cache: Annotated[Path, typer.Option(help="Receives the random weights for the peer.")] = Path("gpu-cache"),
    peak: Annotated[float | None, typer.Option(help="The card's published bf16 TFLOP/s, for a second share.")] = None,
) -> None:
    """Parity and speed on one GPU."""
    if jax.default_backend() != "gpu":
        console.print(f"not run: JAX sees {jax.devices()[0].device_kind}, no GPU")
        raise typer.Exit
    gpu = jax.devices()[0]
    full = load_benchmark(bench)
    benchmark = full.select(full.models[:models], limit)
    loaded = Judge.load(judge, "bf16")
    longest = row_lengths(max_tokens)[-1]
    prompts = prompts_of(benchmark, loaded, max_tokens)
    items = sum(len(response) for query in prompts for response in query)
    console.print(f"{gpu.device_kind}, jax {jax.__version__}, {bench.name}: {len(prompts)} queries, {items} items")

    kept = parity(judge, prompts, longest, gpu)
    measured = matmul_flops(jnp.bfloat16, rows=8192, inner=8192, columns=8192)
    if peak:
        console.print(f"measured matmul peak: {measured / 1e12:.0f} TFLOP/s, {measured / 1e12 / peak:.0%} of {peak:g}")
    grader = Grader(loaded.model, loaded.tokenizer.answer_ids(), mesh_of(gpu))
    speed("default judge", grader, rows_of(prompts, loaded.model.config.window, longest), measured, rounds)
    model = random_judge()
    rows = rows_of(prompts, model.config.window, longest)
    seconds = speed(
        "Gemma 2 2B's shape", Grader(model, loaded.tokenizer.answer_ids(), mesh_of(gpu)), rows, measured, rounds
    )
    if torch_python:
        theirs = peer(torch_python, prompts, loaded.tokenizer.answer_ids(), cache)
        console.print(
            f"Gemma 2 2B's shape, {items} items: transformers with the prefix reused {theirs:.2f} s, RocketJAX "
            f"{seconds:.2f} s: {theirs / seconds:.1f} times"
        )
    else:
        console.print("transformers was not measured: --torch-python was not given")
    if not kept:
        console.print("parity: a bound is missed", style="red")
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
