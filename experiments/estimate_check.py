"""How far the estimate of a run's seconds is from the truth.

    python experiments/estimate_check.py BENCH [--judge J] [--dtype f32] [--queries 3] [--models 4] [--rounds 3]

Sorts the benchmark's queries by what an item of them costs, takes some from the short end, the middle and the long one,
so that their rows differ in length, estimates each choice from a matmul peak measured just before, and grades it for
real into a temporary folder. One round before the first fills the compile cache and is left out. What was estimated is
divided by what was measured: over all of the session but compilation, which depends on the cache.
"""

import dataclasses
import tempfile
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import jax.numpy as jnp
import msgspec
import typer
from rich.console import Console
from rich.table import Table

from rocketjax.bench import Benchmark, load_benchmark
from rocketjax.doctor import matmul_flops
from rocketjax.grade import Judge, Workload, estimate_run, make_prompter, survey, this_device


def of_queries(benchmark: Benchmark, chosen: list[str]) -> Benchmark:
    """These queries alone."""
    keep = set(chosen)
    return msgspec.structs.replace(
        benchmark,
        checklists={s: c for s, c in benchmark.checklists.items() if s in keep},
        queries={s: q for s, q in benchmark.queries.items() if s in keep},
        responses={m: {s: r for s, r in by.items() if s in keep} for m, by in benchmark.responses.items()},
    )


def mix(workload: Workload) -> str:
    return " + ".join(f"{rows.rows:.0f} x {length}" for length, rows in sorted(workload.rows.items()))


def main(
    bench: Path,
    judge: Annotated[str | None, typer.Option(help="As for `rocketjax grade`.")] = None,
    dtype: str = "f32",
    queries: Annotated[int, typer.Option(help="Queries of each choice.")] = 3,
    models: Annotated[int, typer.Option(help="Responders.")] = 4,
    rounds: int = 3,
) -> None:
    """Estimated and measured seconds by mix of row lengths."""
    loaded = Judge.load(judge, dtype)  # type: ignore[arg-type]
    config = loaded.model.config
    benchmark = load_benchmark(bench)
    benchmark = benchmark.select(benchmark.models[:models], None)
    prompter = make_prompter(loaded.tokenizer, config)

    cost = {}
    for session in sorted(benchmark.checklists):
        work = survey(of_queries(benchmark, [session]), prompter, config)
        cost[session] = sum(n * rows.rows for n, rows in work.rows.items()) / work.items
    ranked = sorted(cost, key=lambda s: cost[s])
    middle = (len(ranked) - queries) // 2
    choices = {
        "short": ranked[:queries],
        "middle": ranked[middle : middle + queries],
        "long": ranked[len(ranked) - queries :],
    }

    def measured(chosen: Benchmark) -> Any:
        done: list[Any] = []
        with tempfile.TemporaryDirectory(prefix="rocketjax-") as folder:
            loaded.grade(chosen, folder, progress=lambda work: done.append(dataclasses.replace(work)))
        return done[-1]

    columns = ("queries", "items", "rows", "GFLOP/s", "estimated, s", "measured, s", "ratio", "of it compute", "text")
    table = Table(*columns, title=f"{bench.name}, {loaded.origin}, {dtype}, {rounds} rounds")
    ratios: list[float] = []
    for name, sessions in choices.items():
        chosen = of_queries(benchmark, sessions)
        measured(chosen)
        for _ in range(rounds):
            workload = survey(chosen, prompter, config)
            rate = matmul_flops(jnp.bfloat16 if dtype == "bf16" else jnp.float32)
            told = estimate_run(workload, config, loaded.dtype, *this_device(rate, rate))
            work = measured(chosen)
            assert (told.tokens, told.flops) == (work.tokens, work.flops)
            guess, truth = told.compute_seconds + told.host_seconds, work.seconds - work.compile
            ratios.append(guess / truth)
            table.add_row(
                name, str(told.items), mix(workload), f"{rate / 1e9:.0f}", f"{guess:.2f}", f"{truth:.2f}",
                f"{guess / truth:.2f}", f"{told.compute_seconds:.2f} / {work.compute:.2f}",
                f"{told.host_seconds:.2f} / {work.tokenise + work.pack:.2f}",
            )  # fmt: skip
    Console(width=150).print(table)
    print(f"estimated / measured: median {median(ratios):.2f}, from {min(ratios):.2f} to {max(ratios):.2f}")


if __name__ == "__main__":
    typer.run(main)
