"""Grades and labels as padded, masked arrays: what every head is fitted on.

Axes: Q queries, M models under test, I checklist items (padded to the longest checklist), E features of an item.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from rocketjax.bench import Benchmark
from rocketjax.errors import RocketError
from rocketjax.grade import OK, Run

Float = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]


class Data(NamedTuple):
    """The arrays of a panel, a pytree. What is masked out holds 0, and nobody reads it."""

    p_QMI: Any  # f32, p(yes)
    item_QI: Any  # bool, whether the query has this item
    graded_QM: Any  # bool, whether every item of the response has a grade
    label_QM: Any  # f32, on the labeler's scale
    weight_QM: Any  # f32, of the label in a fit; 0 where there is none, or no grade, or where it is kept apart
    place_Q: Any  # int32, place of the query, and of the model, in the order of their names: what is cut into folds
    place_M: Any  # must not depend on the order of the arrays


@dataclass(frozen=True, eq=False)
class Panel:
    """A run's grades beside one labeler's scores.

    `weight_QM` of `data` marks every label there is; `trained_on` takes the labels of other models away.
    """

    sessions: tuple[str, ...]
    models: tuple[str, ...]
    counts: tuple[int, ...]  # items of each query
    data: Data
    dropped: Mapping[str, int] = field(default_factory=dict)  # labels that are of no use here, by reason

    @property
    def labelled(self) -> Bool:
        """bool[Q, M]: pairs with a grade and a label."""
        known: Bool = np.asarray(self.data.weight_QM) > 0
        return known

    def trained_on(self, models: Sequence[str]) -> "Panel":
        """The same with labels of these models only. Raises RocketError for an unknown one."""
        unknown = sorted(set(models) - set(self.models))
        if unknown:
            raise RocketError(f"no model {unknown[0]!r} in this run; it has: {', '.join(self.models)}")
        inside = np.asarray([m in set(models) for m in self.models])
        weight_QM = np.where(inside, self.data.weight_QM, 0).astype(np.float32)
        return replace(self, data=self.data._replace(weight_QM=weight_QM))

    def labelled_models(self) -> list[str]:
        """Models with at least one label."""
        return [self.models[m] for m in np.flatnonzero(self.labelled.any(axis=0))]


def panel(run: Run, labels: Mapping[str, Mapping[str, float | None]] | None = None) -> Panel:
    """The grades of a complete run; `labels` is model -> session -> score, and what it lacks is unlabelled.

    A response with any item without a grade is left out whole, with its label: a mean over fewer items is another
    scale. What labels are of no use is counted in `dropped`. Raises RocketError if the run is not complete or has no
    items.
    """
    run.require_complete()
    table = run.grades
    p = table["p_yes"].to_numpy(zero_copy_only=False).astype(np.float32)
    names = [pc.unique(table[column]) for column in ("session_id", "model")]  # in the order of their first rows
    q, m = (pc.index_in(table[c], n).to_numpy() for c, n in zip(("session_id", "model"), names, strict=True))
    sessions, models = (tuple(n.to_pylist()) for n in names)
    if not sessions:
        raise RocketError(f"{run.path}: has no graded items")
    q_of, m_of = ({name: i for i, name in enumerate(known)} for known in (sessions, models))
    i = table["item"].to_numpy()
    shape = (len(sessions), len(models), int(i.max()) + 1)
    p_QMI = np.zeros(shape, np.float32)
    ok_QMI, item_QI = np.zeros(shape, bool), np.zeros((shape[0], shape[2]), bool)
    good = pc.equal(table["status"], OK).to_numpy() & np.isfinite(p)
    p_QMI[q[good], m[good], i[good]] = p[good]
    ok_QMI[q[good], m[good], i[good]] = True
    item_QI[q, i] = True
    graded_QM: Bool = np.all(ok_QMI | ~item_QI[:, None], axis=2)
    label_QM = np.full(shape[:2], np.nan)
    dropped: Counter[str] = Counter()
    for name, by_session in (labels or {}).items():
        for session_id, score in by_session.items():
            if name not in m_of:
                dropped["model not in the run"] += 1
            elif session_id not in q_of:
                dropped["query not in the run"] += 1
            elif score is None:
                dropped["no score"] += 1
            elif not graded_QM[q_of[session_id], m_of[name]]:
                dropped["response without a grade"] += 1
            else:
                label_QM[q_of[session_id], m_of[name]] = score
    made = make_panel(sessions, models, p_QMI, item_QI, graded_QM, label_QM)
    return replace(made, dropped=dict(dropped))


def make_panel(
    sessions: Sequence[str], models: Sequence[str], p_QMI: Any, item_QI: Any, graded_QM: Any, label_QM: Any
) -> Panel:
    """A panel from plain arrays; NaN in `label_QM` is no label, NaN in `p_QMI` no grade."""
    p_QMI, label_QM = np.asarray(p_QMI, np.float64), np.asarray(label_QM, np.float64)
    item_QI = np.asarray(item_QI, bool)
    graded_QM = np.asarray(graded_QM, bool) & (np.isfinite(p_QMI) | ~item_QI[:, None]).all(axis=2)
    p_QMI = np.where(item_QI[:, None] & graded_QM[..., None], p_QMI, 0.0)
    known = np.isfinite(label_QM) & graded_QM
    data = Data(
        p_QMI.astype(np.float32), item_QI, graded_QM, np.where(known, label_QM, 0).astype(np.float32),
        known.astype(np.float32), places(sessions), places(models),
    )  # fmt: skip
    return Panel(tuple(sessions), tuple(models), tuple(int(n) for n in item_QI.sum(axis=1)), data)


def places(names: Sequence[str]) -> npt.NDArray[np.int32]:
    """The place of each name when they are sorted."""
    return np.argsort(np.argsort(np.asarray(names, str))).astype(np.int32)


def labels_of(benchmark: Benchmark, labeler: str) -> dict[str, dict[str, float | None]]:
    """model -> session -> score of one labeler. Raises RocketError for an unknown one or one without scores."""
    if labeler not in benchmark.labels:
        there = ", ".join(sorted(benchmark.labels)) or "none"
        raise RocketError(f"{benchmark.name}: has no labels by {labeler!r}; labelers: {there}")
    found = {m: {s: x.score for s, x in by.items()} for m, by in benchmark.labels[labeler].items()}
    if not any(score is not None for by in found.values() for score in by.values()):
        raise RocketError(f"{benchmark.name}: {labeler!r} gives no scores of responses, only of items")
    return found
