"""What a run says of every checklist item, as padded arrays: answers, answer mass, labels, hidden states.

Axes: Q queries, M models under test, I checklist items (padded to the longest checklist), D width of the judge.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rocketjax.bench import Benchmark
from rocketjax.errors import RocketError
from rocketjax.grade import FEATURES, OK, Run
from rocketjax.reweight import item_table, make_panel

Float = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
PRIOR_LABELS = 5.0  # labels that the pooled slope counts for beside an item's own


@dataclass(frozen=True, eq=False)
class Evidence:
    """Sessions, models and items by name, and arrays with NaN where something is not known.

    `p_QMI` f64: p(yes). `mass_QMI` f64: answer mass. `item_QI` bool: whether the query has this item. `label_QM` f64:
    the labels that may be used. `state_QID` f64: hidden states of the items, or None.
    """

    sessions: tuple[str, ...]
    models: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]
    p_QMI: Float
    mass_QMI: Float
    item_QI: Bool
    label_QM: Float
    state_QID: Float | None = None

    @property
    def answered_QM(self) -> Bool:
        """Responses of which at least one item has a grade."""
        return np.asarray(np.isfinite(self.p_QMI).any(axis=2))

    @property
    def usable_QI(self) -> Bool:
        """Items that have a grade in at least half of the answered responses: the others say too little, and a response
        counts only where all items have a grade."""
        there = np.isfinite(self.p_QMI).sum(axis=1)
        return np.asarray(self.item_QI & (there > 0) & (2 * there >= self.answered_QM.sum(axis=1)[:, None]))


def evidence(
    run: Run,
    benchmark: Benchmark,
    labels: Mapping[str, Mapping[str, float | None]] | None = None,
    states: pa.Table | None = None,
) -> Evidence:
    """The evidence of a complete run on the benchmark that it graded (see `rocketjax.grade.restrict`).

    `labels` is model -> session -> score, `states` a table as of `rocketjax.grade.item_features`. Raises RocketError if
    the run is not complete, has no items, or if the states are of other items.
    """
    run.require_complete()
    table = run.grades
    if not table.num_rows:
        raise RocketError(f"{run.path}: has no graded items")
    sessions = tuple(sorted(pc.unique(table["session_id"]).to_pylist()))
    models = tuple(sorted(pc.unique(table["model"]).to_pylist()))
    q, m = (
        pc.index_in(table[column], pa.array(names, pa.string())).to_numpy()
        for column, names in (("session_id", sessions), ("model", models))
    )
    i = table["item"].to_numpy()
    texts = tuple(benchmark.checklists[s].items for s in sessions)
    shape = (len(sessions), len(models), max(map(len, texts)))
    p_QMI, mass_QMI = np.full(shape, np.nan), np.full(shape, np.nan)
    good = pc.equal(table["status"], OK).to_numpy()
    for array, column in ((p_QMI, "p_yes"), (mass_QMI, "answer_mass")):
        values = table[column].to_numpy(zero_copy_only=False).astype(np.float64)
        array[q[good], m[good], i[good]] = values[good]
    item_QI = np.arange(shape[2]) < np.asarray([len(t) for t in texts])[:, None]
    label_QM = np.full(shape[:2], np.nan)
    for b, model in enumerate(models):
        given = (labels or {}).get(model, {})
        for a, session in enumerate(sessions):
            score = given.get(session)
            if score is not None:
                label_QM[a, b] = score
    state_QID = None if states is None else states_of(states, sessions, item_QI, str(run.path))
    return Evidence(sessions, models, texts, p_QMI, mass_QMI, item_QI, label_QM, state_QID)


def states_of(table: pa.Table, sessions: tuple[str, ...], item_QI: Bool, where: str) -> Float:
    """f64[Q, I, D]: the hidden states of these items. RocketError where the table is of others."""
    table = table.replace_schema_metadata(None)
    if not table.schema.equals(FEATURES):
        raise RocketError(f"{where}: its features.parquet has other columns than this version's; delete it")
    place = {s: q for q, s in enumerate(sessions)}
    q = np.asarray([place.get(s, -1) for s in table["session_id"].to_pylist()])
    i = table["item"].to_numpy()
    inside = (q >= 0) & (i < item_QI.shape[1])
    if inside.sum() != item_QI.sum() or not item_QI[q[inside], i[inside]].all():
        raise RocketError(f"{where}: its features.parquet is of other queries or checklists than the run; delete it")
    state = np.asarray(table["feature"].to_pylist(), np.float64)[inside]
    out = np.zeros((*item_QI.shape, state.shape[1]))
    out[q[inside], i[inside]] = state
    return out


class Figures(NamedTuple):
    """What each item is worth, f64[Q, I] each, NaN where it cannot be said. All but `usefulness` are those of
    `rocketjax.reweight.item_table`, over the responses that have a grade for every usable item."""

    responses: Float
    yes_rate: Float
    deviation: Float
    discrimination: Float
    agreement: Float
    usefulness: Float


def figures(e: Evidence) -> Figures:
    """The figures of all items; those that are not usable have none."""
    usable_QI = e.usable_QI
    # The table wants checklists without gaps.
    order_QI = np.argsort(~usable_QI, axis=1, kind="stable")
    p_QMI = np.take_along_axis(e.p_QMI, order_QI[:, None], axis=2)
    item_QI = np.take_along_axis(usable_QI, order_QI, axis=1)
    there_QM = e.answered_QM
    panel = make_panel(e.sessions, e.models, p_QMI, item_QI, there_QM, e.label_QM)
    rows = item_table(panel).to_pylist()
    out = {name: np.full(item_QI.shape, np.nan) for name in Figures._fields}
    q_of = {s: q for q, s in enumerate(e.sessions)}
    for row in rows:
        q = q_of[row["session_id"]]
        at = q, order_QI[q, row["item"]]
        for name in Figures._fields[:-1]:
            out[name][at] = np.nan if row[name] is None else row[name]
    out["usefulness"] = usefulness(e)
    return Figures(**out)


def usefulness(e: Evidence) -> Float:
    """f64[Q, I]: how much of the labels' spread within the query the item alone predicts for models left out.

    1 - PRESS / SS (Allen 1974, Technometrics 16:125), each label predicted from those of the query's other models by a
    line in p. Its slope is not below 0, and is shrunk to the slope of all items of all queries, from the labels of the
    other models too, as `PRIOR_LABELS` labels would. NaN with fewer than 4 labels or where they are all equal.
    """
    known_QMI = np.isfinite(e.p_QMI) & np.isfinite(e.label_QM)[..., None] & e.usable_QI[:, None]
    p, y = np.where(known_QMI, e.p_QMI, 0.0), np.where(known_QMI, e.label_QM[..., None], 0.0)
    error, spread = np.zeros(e.item_QI.shape), np.zeros(e.item_QI.shape)
    for m in range(len(e.models)):
        w = known_QMI.copy()
        w[:, m] = False
        n = w.sum(axis=1)
        many = np.maximum(n, 1)
        mean_p, mean_y = (p * w).sum(axis=1) / many, (y * w).sum(axis=1) / many
        dp, dy = (p - mean_p[:, None]) * w, (y - mean_y[:, None]) * w
        square, cross = (dp**2).sum(axis=1), (dp * dy).sum(axis=1)
        pooled = max(float(cross.sum() / max(square.sum(), 1e-12)), 0.0)
        size = float(square.sum() / max(n.sum(), 1))
        slope = np.maximum(cross + PRIOR_LABELS * size * pooled, 0.0) / np.maximum(square + PRIOR_LABELS * size, 1e-12)
        asked = known_QMI[:, m] & (n >= 3)
        error += np.where(asked, (y[:, m] - mean_y - slope * (p[:, m] - mean_p)) ** 2, 0.0)
        spread += np.where(asked, (y[:, m] - mean_y) ** 2, 0.0)
    return np.where(spread > 1e-12, 1 - error / np.maximum(spread, 1e-12), np.nan)
