"""What rounding a judge costs: P(Yes) in bf16 and int8 beside f32, on real prompts.

    python experiments/rounding.py ../shared/data/dev/mtbench --limit 4 --models 4

For each judge: mean and largest change of p(yes), how many items change sides of one half, Spearman correlation with
f32 over all items, and bytes of weights. One grading run per dtype, in a temporary folder.
"""

import tempfile
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

import rocketjax
from rocketjax.grade import Judge
from rocketjax.judge import Dtype

DTYPES: tuple[Dtype, ...] = ("f32", "bf16", "int8")


def main(
    bench: Path,
    judge: Annotated[list[str] | None, typer.Option(help="Judges; left out: the embedded default.")] = None,
    limit: Annotated[int, typer.Option(help="Queries.")] = 4,
    models: Annotated[int, typer.Option(help="Models under test.")] = 4,
) -> None:
    names: list[str | None] = [*judge] if judge else [None]
    benchmark = rocketjax.load_benchmark(bench)
    benchmark = benchmark.select(benchmark.models[:models], limit)
    table = Table("judge", "dtype", "weights", "items", "mean change", "largest", "sides changed", "Spearman", box=None)
    for name in names:
        exact = None
        for dtype in DTYPES:
            loaded = Judge.load(name, dtype)
            size = sum(leaf.nbytes for leaf in jax.tree.leaves(loaded.model))
            with tempfile.TemporaryDirectory() as folder:
                run = loaded.grade(benchmark, folder + "/run", overflow="truncate-middle")
                p = run.grades["p_yes"].to_numpy()
            if exact is None:
                exact = p
            both = np.isfinite(exact) & np.isfinite(p)
            moved = np.abs(p - exact)[both]
            table.add_row(
                Path(loaded.origin).name, dtype, f"{size / 1e6:,.0f} MB", f"{len(moved):,}", f"{moved.mean():.4f}",
                f"{moved.max():.4f}", str(int(((p > 0.5) != (exact > 0.5))[both].sum())),
                f"{spearmanr(p[both], exact[both]).statistic:.4f}",
            )  # fmt: skip
    Console(width=140).print(table)


if __name__ == "__main__":
    typer.run(main)
