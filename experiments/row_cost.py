"""What a token costs in rows of different lengths: the figures behind `pack.TOKEN_COST`.

    python experiments/row_cost.py BENCH [--judge J] [--dtype f32] [--lengths 512,1024,2048]

Packs the benchmark's prompts into rows of one length at a time, takes the fullest, and times the grading program on
them, alternating between the lengths so that a drift of the machine meets all of them. FLOPs are the useful ones
(`row_flops`), as a share of the matmul peak that `rocketjax doctor` measures.
"""

import time
from pathlib import Path
from statistics import median
from typing import Annotated

import jax
import jax.numpy as jnp
import typer
from rich.console import Console
from rich.table import Table

from rocketjax.bench import load_benchmark
from rocketjax.doctor import matmul_flops
from rocketjax.grade import Grader, Judge, row_flops
from rocketjax.prompt import PackedRow, Prompter, pack, template


def main(
    bench: Path,
    judge: Annotated[str | None, typer.Option(help="As for `rocketjax grade`.")] = None,
    dtype: str = "f32",
    lengths: str = "512,1024,1280,1536,2048,2560,3072",
    queries: Annotated[int, typer.Option(help="How many queries to choose rows from.")] = 12,
    rows: Annotated[int, typer.Option(help="Rows of each length.")] = 2,
    rounds: int = 3,
) -> None:
    """Time per token by row length."""
    loaded = Judge.load(judge, dtype)  # type: ignore[arg-type]
    benchmark = load_benchmark(bench).select(None, queries)
    wanted = [int(n) for n in lengths.split(",")]
    prompter = Prompter(loaded.tokenizer, template("native"), max(wanted), "skip")
    grader = Grader(loaded.model, loaded.tokenizer.answer_ids(), jax.make_mesh((1, 1), ("data", "model")))
    peak = matmul_flops(jnp.float32 if dtype == "f32" else jnp.bfloat16)

    chosen: dict[int, list[PackedRow]] = {}
    for length in wanted:
        pack.LENGTHS = (length,)
        found: list[PackedRow] = []
        for session in benchmark.checklists:
            made = [prompter.prompts(benchmark, session, m).sequences for m in benchmark.models]
            answers = [list(s) for s in made if s and max(map(len, s)) <= length]
            found += pack.pack_query(answers, length, loaded.model.config.window)
        chosen[length] = sorted(found, key=lambda row: -row.tokens)[:rows]

    seconds: dict[int, list[float]] = {n: [] for n in wanted if chosen[n]}
    compile_seconds = {}
    for length in seconds:
        before = grader.compile_seconds
        jax.block_until_ready(grader(chosen[length][:1]))
        compile_seconds[length] = grader.compile_seconds - before
    for _ in range(rounds):
        for length, times in seconds.items():
            begun = time.perf_counter()
            jax.block_until_ready(grader(chosen[length]))
            times.append((time.perf_counter() - begun) / len(chosen[length]))

    columns = ("row", "tokens used", "items", "ms per row", "us per token", "to the first", "of the peak", "compile, s")
    table = Table(*columns, title=f"{bench.name}, {dtype}, peak {peak / 1e9:.0f} GFLOP/s, median of {rounds} rounds")
    first = None
    for length, times in seconds.items():
        each = median(times)
        first = first or each / length
        useful = sum(row_flops(grader.config, row) for row in chosen[length]) / len(chosen[length])
        table.add_row(
            str(length), "+".join(str(row.tokens) for row in chosen[length]),
            "+".join(str(len(row.owners)) for row in chosen[length]), f"{1e3 * each:.0f}", f"{1e6 * each / length:.0f}",
            f"{each / length / first:.2f}", f"{useful / each / peak:.0%}", f"{compile_seconds[length]:.1f}",
        )  # fmt: skip
    Console(width=110).print(table)


if __name__ == "__main__":
    typer.run(main)
