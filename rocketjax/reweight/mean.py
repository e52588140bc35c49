"""The head without labels: the mean of the items."""

import numpy as np
import pyarrow as pa

from rocketjax.grade import OK, Run, write_table

SCORES = pa.schema(
    [
        pa.field("session_id", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("score", pa.float64()),
    ]
)


def score(run: Run) -> pa.Table:
    """Scores every response of a complete run and writes `scores.parquet`.

    `score = 9 * mean(p_yes) + 1` over the items, so 1 to 10 (RocketEval, arXiv 2503.05142, section 3.3). It is
    null where any item has no grade: a mean over fewer items is another scale. Returns the table, by session
    and model. Raises RocketError if the run is not complete.
    """
    run.require_complete()
    grades = run.grades
    sessions, models = (grades[name].to_pylist() for name in ("session_id", "model"))
    p_yes = grades["p_yes"].to_numpy(zero_copy_only=False).astype(np.float64)
    p_yes[np.asarray(grades["status"].to_pylist(), object) != OK] = np.nan
    rows: dict[tuple[str, str], list[float]] = {}
    for key, p in zip(zip(sessions, models, strict=True), p_yes, strict=True):
        rows.setdefault(key, []).append(float(p))
    scores = np.asarray([9 * np.mean(values) + 1 for values in rows.values()], np.float64)
    table = pa.table(
        [
            [session for session, _ in rows],
            [model for _, model in rows],
            pa.array(scores, pa.float64(), mask=np.isnan(scores)),
        ],
        schema=SCORES,
    )
    write_table(run.path / "scores.parquet", table)
    return table
