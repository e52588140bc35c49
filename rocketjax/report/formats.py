"""Runs in the formats of other tools."""

import json
import os
from pathlib import Path
from typing import Any

from rocketjax.errors import RocketError
from rocketjax.grade import Run, write_atomically

FORMATS = ("rocketeval",)


def export(run: Run, format: str = "rocketeval", output: str | os.PathLike[str] | None = None) -> Path:
    """Writes a complete, scored run for another tool; returns the folder (default: RUN/export/FORMAT).

    `rocketeval`: `judgment/<judge>/<model>.jsonl` with the item probabilities of each session in checklist
    order, and `score/<judge>/<model>.json`, as RocketEval-ICLR (commit e0579ff) reads and writes them. An item
    without a grade is null there, as is the score of its session. Raises RocketError for an unknown format, an
    unfinished run, or a run without scores.
    """
    if format not in FORMATS:
        raise RocketError(f"unknown format {format!r}; there are: {', '.join(FORMATS)}")
    run.require_complete()
    scores = run.scores
    folder = Path(output) if output is not None else run.path / "export" / format
    if folder.exists() and not folder.is_dir():
        raise RocketError(f"{folder}: is a file; the export needs a folder")
    judge = judge_name(run.meta["judge"]["origin"])

    judgments: dict[str, dict[str, list[float | None]]] = {}
    for row in run.grades.select(["session_id", "model", "p_yes"]).to_pylist():
        judgments.setdefault(row["model"], {}).setdefault(row["session_id"], []).append(row["p_yes"])
    try:
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
            save(folder / "judgment" / judge / f"{model}.jsonl", text)
        by_model: dict[str, list[dict[str, Any]]] = {}
        for row in scores.to_pylist():
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
        for model, rows in by_model.items():
            save(folder / "score" / judge / f"{model}.json", json.dumps(rows, indent=2, ensure_ascii=False))
    except OSError as e:
        raise RocketError(f"{folder}: cannot write the export ({e})") from None
    return folder


def judge_name(origin: str) -> str:
    """A folder name for a judge: `hub:org/name@rev` and `path:some/name.gguf` become `name`."""
    name = origin.split(":", 1)[-1].split("@")[0].split("==")[0].rstrip("/").rsplit("/", 1)[-1]
    return name.removesuffix(".gguf") or "judge"


def verdict(p: float | None) -> str:
    """RocketEval's wording of a probability."""
    if p is None or abs(p - 0.5) < 1e-3:
        return "Unsure"
    return f"{'Yes' if p > 0.5 else 'No'} ({p * 100:.1f})%"


def save(path: Path, text: str) -> None:
    write_atomically(path, lambda file: file.write(text.encode()))
