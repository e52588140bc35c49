"""Runs in the formats of other tools."""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rocketjax.bench import Benchmark, load_benchmark
from rocketjax.errors import RocketError
from rocketjax.files import is_remote, path_of
from rocketjax.grade import Run, restrict, write_atomically
from rocketjax.report.leaderboards import alpaca, arena, mtbench, wildbench
from rocketjax.report.tables import FORMATS as TABLES
from rocketjax.report.tables import tables

FORMATS = ("rocketeval", "wildbench", "mtbench", "alpaca", "arena", *TABLES)


def export(
    run: Run,
    format: str = "rocketeval",
    output: str | os.PathLike[str] | None = None,
    *,
    baseline: str | None = None,
    tie_margin: float = 0.0,
    bench: str | os.PathLike[str] | None = None,
) -> Path:
    """Writes a complete, scored run for another tool; returns the folder (default: RUN/export/FORMAT, which then holds
    these files only).

    `rocketeval`: `judgment/<judge>/<model>.jsonl` with the item probabilities of each session in checklist
    order, and `score/<judge>/<model>.json`, as RocketEval-ICLR (commit e0579ff) reads and writes them. An item
    without a grade is null there, as is the score of its session.
    `wildbench`: `score.v2/eval=<judge>/<model>.json`, with the responses; `mtbench`: FastChat's
    `<judge>_single.jsonl`; `alpaca`: AlpacaEval's `<model>/model_outputs.json`,
    `<model>/<judge>/annotations.json` with preferences against the model `baseline`, and `leaderboard.csv`; `arena`:
    `battles.json`, every pair of responses to a query as a chatbot-arena match. Their rows are described in
    `report.leaderboards`. Responses without a score or marked as too uncertain are not in them. In `alpaca` and `arena`
    scores that differ by no more than `tie_margin` are a tie.
    `csv`, `jsonl`, `parquet`: `scores.*` and `grades.*` with all rows, see `report.tables`.

    Formats that hold questions and responses read them from the benchmark that was graded, where the run says that it
    lies or in the folder `bench`. Raises RocketError for an unknown format or baseline, an unfinished run, a run
    without scores, or a benchmark that is needed and not there.
    """
    if format not in FORMATS:
        raise RocketError(f"unknown format {format!r}; there are: {', '.join(FORMATS)}")
    if (format == "alpaca") != (baseline is not None):
        raise RocketError("format 'alpaca' compares with a baseline, and no other does; name it with --baseline MODEL")
    if not (math.isfinite(tie_margin) and tie_margin >= 0):
        raise RocketError(f"the tie margin is {tie_margin}; it is a number of points, 0 or more")
    run.require_complete()
    scores = run.scores
    folder = path_of(output) if output is not None else run.path / "export" / format
    if folder.exists() and not folder.is_dir():
        raise RocketError(f"{folder}: is a file; the export needs a folder")
    judge = judge_name(run.meta["judge"]["origin"])
    rows = scores.to_pylist()
    # A score that abstains is for no comparison.
    used = [row for row in rows if row["score"] is not None and not row.get("abstained")]
    match format:
        case "rocketeval":
            files = rocketeval_files(run, rows, judge)
        case "wildbench":
            files = wildbench(used, graded_benchmark(run, bench), judge)
        case "mtbench":
            files = mtbench(used, judge)
        case "alpaca":
            files = alpaca(used, graded_benchmark(run, bench), judge, baseline or "", tie_margin)
        case "arena":
            files = arena(used, judge, tie_margin)
        case _:
            there = bench is not None or (run.benchmark_path is not None and run.benchmark_path.is_dir())
            files = tables(scores, run.grades, graded_benchmark(run, bench) if there else None, format)
    made = dict(files)  # all is well before the first is written
    try:
        for name, content in made.items():
            save(folder / name, content)
        if output is None and not is_remote(folder):
            remove_others(folder, {folder / name for name in made})
    except OSError as e:
        raise RocketError(f"{folder}: cannot write the export ({e})") from None
    return folder


def remove_others(folder: Path, made: set[Path]) -> None:
    """What an earlier export left in the run's own folder: preferences against another baseline, models that now
    abstain. Read together with this one's files it would say what no run said."""
    for path in sorted(folder.rglob("*"), reverse=True):  # files before their folders
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in made:
            path.unlink()


def save(path: Path, content: bytes) -> None:
    write_atomically(path, lambda file: file.write(content))


def graded_benchmark(run: Run, bench: str | os.PathLike[str] | None) -> Benchmark:
    """The benchmark that a run graded, from `bench` or from where it lay."""
    path = run.benchmark_path if bench is None else path_of(bench)
    if path is None or (bench is None and not path.is_dir()):
        where = "is not known" if path is None else f"was {path}, which is no longer there"
        raise RocketError(f"{run.path}: this format holds responses, and where they lie {where}; give --bench BENCH")
    return restrict(load_benchmark(path), run)


def rocketeval_files(run: Run, rows: list[dict[str, Any]], judge: str) -> Iterator[tuple[str, bytes]]:
    """RocketEval's judgment and score files."""
    judgments: dict[str, dict[str, list[float | None]]] = {}
    for row in run.grades.select(["session_id", "model", "p_yes"]).to_pylist():
        judgments.setdefault(row["model"], {}).setdefault(row["session_id"], []).append(row["p_yes"])
    for model, by_session in judgments.items():
        lines = [
            {
                "model_test": model,
                "session_id": session_id,
                "norm_probability": values,
                "judgment": [verdict(p) for p in values],
                "judge": judge,
            }
            for session_id, values in by_session.items()
        ]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        yield f"judgment/{judge}/{model}.jsonl", text.encode()
    by_model: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_model.setdefault(row["model"], []).append(
            {
                "session_id": row["session_id"],
                "model_test": row["model"],
                "score": row["score"],
                "model_output": None,
                "judge": judge,
                "task_id": "",
            }
        )
    for model, scored in by_model.items():
        yield f"score/{judge}/{model}.json", json.dumps(scored, indent=2, ensure_ascii=False).encode()


def judge_name(origin: str) -> str:
    """A folder name for a judge: `hub:org/name@rev` and `path:some/name.gguf` become `name`."""
    name = origin.split(":", 1)[-1].split("@")[0].split("==")[0].rstrip("/").rsplit("/", 1)[-1]
    return name.removesuffix(".gguf") or "judge"


def verdict(p: float | None) -> str:
    """RocketEval's wording of a probability."""
    if p is None or abs(p - 0.5) < 1e-3:
        return "Unsure"
    return f"{'Yes' if p > 0.5 else 'No'} ({p * 100:.1f})%"
