"""Judgments that another program recorded, as a run: RocketEval's files of item probabilities.

Such a run has everything that a graded one has but the judge: heads are fitted, scores made and models ranked alike.
Its probabilities stay in the precision of the file.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

import rocketjax
from rocketjax.bench import Benchmark, only
from rocketjax.bench.importers.source import Source
from rocketjax.grade.judge import about_benchmark
from rocketjax.grade.run import FORMAT, OK, RECORDED, Mode, Run
from rocketjax.grade.stream import SHARD_ITEMS, plan

NUMBERS = ("norm_probability", "logit_yes", "logit_no", "answer_mass")


class JudgmentRow(msgspec.Struct, frozen=True):
    """One response's judgments, as RocketEval-ICLR writes them; the logits where they were kept."""

    session_id: str
    model_test: str
    norm_probability: list[float | None]
    logit_yes: list[float | None] | None = None
    logit_no: list[float | None] | None = None
    answer_mass: list[float | None] | None = None


def record(
    benchmark: Benchmark, judgments: str | os.PathLike[str], output: str | os.PathLike[str], mode: Mode = "new"
) -> Run:
    """Makes a run of recorded judgments about a benchmark: a file of JSON lines, or a folder of them.

    Only sessions with at least one judgment are in the run; a response to one of them without any has status
    `missing_judgment`, an item whose probability is null `missing_grade`. Raises RocketError with file, line and field
    for a session, model, response or number of items that the benchmark does not have, a probability outside 0 to 1, or
    a response that is judged twice.
    """
    source = Source(judgments)
    found: dict[tuple[str, str], tuple[str, JudgmentRow]] = {}
    for file in source.files("**/*", "judgments"):
        for at, row in source.rows(file, JudgmentRow):
            checklist = benchmark.checklists.get(row.session_id)
            if checklist is None:
                raise at.error("session_id", f"is {row.session_id!r}, which has no checklist in {benchmark.name}")
            if row.model_test not in benchmark.responses:
                raise at.error("model_test", f"is {row.model_test!r}, of which {benchmark.name} has no responses")
            for field in NUMBERS:
                values = getattr(row, field)
                if values is not None and len(values) != len(checklist.items):
                    raise at.error(field, f"has {len(values)} numbers, the checklist {len(checklist.items)} items")
            for field in NUMBERS:
                for place, x in enumerate(getattr(row, field) or ()):
                    if x is not None and not np.isfinite(x):
                        raise at.error(f"{field}[{place}]", f"is {x}, not a finite number")
                    if x is not None and not field.startswith("logit") and not 0 <= x <= 1:
                        raise at.error(f"{field}[{place}]", f"is {x}, not a probability")
            if row.session_id not in benchmark.responses[row.model_test]:
                what = f"is {row.session_id!r}, to which {row.model_test!r} has no response in {benchmark.name}"
                raise at.error("session_id", what)
            key = (row.session_id, row.model_test)
            if key in found:
                raise at.error("session_id", f"{key[0]!r} of {key[1]!r} is judged in {found[key][0]} already")
            found[key] = (f"{file.name}:{at.line}", row)
    sessions = {session for session, _ in found}
    chosen = msgspec.structs.replace(
        benchmark,
        checklists=only(benchmark.checklists, sessions),
        queries=only(benchmark.queries, sessions),
        responses={
            m: only(by, sessions) for m, by in benchmark.responses.items() if any(model == m for _, model in found)
        },
    )
    shards = plan(chosen, SHARD_ITEMS)
    content = "".join(f"{name} {value}\n" for name, value in sorted(source.sha256.items()))
    name = Path(judgments).name.removesuffix(".gz").removesuffix(".jsonl")
    meta: dict[str, Any] = {
        "format": FORMAT,
        "benchmark": about_benchmark(chosen),
        "judge": {
            "origin": f"recorded:{name}",
            "weights_sha256": None,
            "tokenizer_sha256": None,
            "dtype": None,
            "judgments_sha256": hashlib.sha256(content.encode()).hexdigest(),
        },
        "prompt": {},
        "plan": {"parts": len(shards), "shard_items": SHARD_ITEMS},
        "versions": {"rocketjax": rocketjax.__version__},
    }
    run = Run.start(output, meta, mode)
    for shard in shards:
        rows = [
            one
            for session in shard.sessions
            for model in chosen.models
            for one in judged(chosen, session, model, found.get((session, model), ("", None))[1])
        ]
        run.commit(shard.index, pa.Table.from_pylist(rows, schema=RECORDED))
    run.note_benchmark(benchmark.path)
    run.finish()
    return run


def judged(benchmark: Benchmark, session: str, model: str, row: JudgmentRow | None) -> list[dict[str, Any]]:
    """The grades of one response."""
    out = []
    for item in range(len(benchmark.checklists[session].items)):
        status, values = OK, dict.fromkeys(("p_yes", *NUMBERS[1:]))
        if session not in benchmark.responses[model]:
            status = "missing_response"
        elif row is None:
            status = "missing_judgment"
        elif row.norm_probability[item] is None:
            status = "missing_grade"
        else:
            values["p_yes"] = row.norm_probability[item]
            for field in NUMBERS[1:]:
                given = getattr(row, field)
                values[field] = None if given is None else given[item]
        out.append({"session_id": session, "model": model, "item": item, **values, "status": status, "truncated": 0})
    return out
