"""A run's scores as arrays: what everything in this stage is computed from.

Axes: Q queries, M models.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rocketjax.bench import Benchmark
from rocketjax.errors import RocketError
from rocketjax.grade import Run
from rocketjax.reweight import about_scores

Float = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Scored:
    """Scores of the queries that every model has a score for, so that all models are compared on the same ones.

    `error_QM` is the standard error of a score, NaN where it is not known; `used_QM` is false where a score was marked
    as too uncertain; `left_out` counts the queries that some model has no score for.
    """

    sessions: tuple[str, ...]
    models: tuple[str, ...]
    score_QM: Float
    error_QM: Float
    used_QM: Bool
    left_out: int
    about: dict[str, Any]

    @property
    def errors_join(self) -> bool:
        """Whether the scores' errors widen intervals over queries: those of heads fitted to labels, whose scores are
        shrunk, so that they spread less between queries than what they estimate. The error of a plain or weighted mean
        is the scatter of its items, which the spread between queries has in it already."""
        return self.about.get("labeler") is not None and bool(np.isfinite(self.error_QM[self.used_QM]).all())


def scored(run: Run, table: pa.Table | None = None) -> Scored:
    """The scores of a run, or of this table of the same form.

    Raises RocketError where the scores are an older version's, where no query has a score from every model, or where
    what abstained leaves some model without any score.
    """
    table = run.scores if table is None else table
    if "standard_error" not in table.column_names or "abstained" not in table.column_names:
        raise RocketError(f"{run.path}: its scores are of an older version; make them again with rocketjax score")
    rows = table.to_pylist()
    q_of, m_of = ({n: i for i, n in enumerate(sorted({r[k] for r in rows}))} for k in ("session_id", "model"))
    score_QM, error_QM = np.full((2, len(q_of), len(m_of)), np.nan)
    used_QM = np.zeros((len(q_of), len(m_of)), bool)
    for row in rows:
        at = q_of[row["session_id"]], m_of[row["model"]]
        if row["score"] is not None:
            score_QM[at], used_QM[at] = row["score"], not row["abstained"]
            error_QM[at] = np.nan if row["standard_error"] is None else row["standard_error"]
    shared = np.isfinite(score_QM).all(axis=1)
    models = tuple(m_of)
    if not len(models) or not shared.any():
        counts = np.isfinite(score_QM).sum(axis=0)
        worst = models[int(np.argmin(counts))] if models else ""
        raise RocketError(
            f"{run.path}: no query has a score from every model, so there is nothing to compare on. "
            f"{worst!r} has {counts.min() if models else 0} of {len(q_of)}; leave it out with --models."
        )
    lost = ~used_QM[shared].any(axis=0)
    if lost.any():
        raise RocketError(f"{run.path}: every score of {models[int(np.argmax(lost))]!r} is too uncertain; "
                          "raise --abstain")  # fmt: skip
    sessions = tuple(np.asarray(list(q_of), object)[shared])
    return Scored(
        sessions, models, score_QM[shared], error_QM[shared], used_QM[shared], int((~shared).sum()),
        about_scores(table),
    )  # fmt: skip


def subset(table: Scored, sessions: Sequence[str], models: Sequence[str]) -> Scored:
    """The same scores of these queries and models, in this order."""
    q_of, m_of = ({name: i for i, name in enumerate(names)} for names in (table.sessions, table.models))
    at = np.ix_([q_of[s] for s in sessions], [m_of[m] for m in models])
    return Scored(tuple(sessions), tuple(models), table.score_QM[at], table.error_QM[at], table.used_QM[at],
                  table.left_out, table.about)  # fmt: skip


def log_lengths(benchmark: Benchmark, table: Scored) -> Float:
    """f64[Q, M]: log2 of 1 and the characters of each response."""
    return np.asarray(
        [[np.log2(1 + len(benchmark.responses[m][s].text)) for m in table.models] for s in table.sessions]
    )
