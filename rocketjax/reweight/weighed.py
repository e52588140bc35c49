"""The mean of the items by the weights that the benchmark's checklists bring; no label is read.

An item of unknown weight counts as the mean of the known ones of its checklist, so it moves nothing between the others.
A checklist without weights has the plain mean.

Axes: Q queries, M models, I items.
"""

import hashlib
import json
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from rocketjax.bench import Benchmark, only
from rocketjax.errors import RocketError
from rocketjax.grade import Run, restrict
from rocketjax.reweight.panels import Data, Panel

Float = npt.NDArray[np.float64]
WEIGHED = "weighted-mean"  # what scores call it where the heads' names stand


class Shares(NamedTuple):
    """`share_QI` f64: of each query's weight what an item has, so they sum to 1; 0 beyond its items. `about`: whose
    weights they are, with their hash, and how many are not known; JSON values."""

    share_QI: Float
    about: dict[str, Any]


def item_shares(benchmark: Benchmark, run: Run, whole: Panel) -> Shares:
    """The weights of the run's items. `benchmark` may be larger than what the run graded, and have other responses.

    Raises RocketError where it asks anything else about the run's queries, or has no weights for any of them.
    """
    sessions = set(whole.sessions)
    asked = run.meta["benchmark"].get("questions_sha256")
    if asked is None:  # an older version's run
        benchmark = restrict(benchmark, run)
    part = msgspec.structs.replace(
        benchmark, queries=only(benchmark.queries, sessions), checklists=only(benchmark.checklists, sessions)
    )
    if asked is not None and part.questions_sha256 != asked:
        raise RocketError(
            f"{benchmark.path}: its queries or checklists are not those that {run.path} graded, so its weights are of "
            "other items; give the benchmark that was graded"
        )
    share_QI = np.zeros(whole.data.item_QI.shape)
    given: list[tuple[str, tuple[float | None, ...]]] = []
    without = unknown = 0
    for q, session in enumerate(whole.sessions):
        checklist = part.checklists[session]
        if checklist.weights is None:
            without += 1
        else:
            unknown += sum(weight is None for weight in checklist.weights)
            given.append((session, checklist.weights))
        share_QI[q, : len(checklist.items)] = shares(checklist.weights, len(checklist.items))
    if not given:
        raise RocketError(
            f"{benchmark.path}: its checklists have no weights; they stand in checklist.jsonl, as `weights` beside "
            "`checklist`, a number for each item"
        )
    about = {
        "benchmark": benchmark.name, "sha256": hashlib.sha256(json.dumps(sorted(given)).encode()).hexdigest(),
        "queries": len(given), "queries_without": without, "items_without": unknown,
    }  # fmt: skip
    return Shares(share_QI, about)


def shares(weights: tuple[float | None, ...] | None, items: int) -> Float:
    """f64[items] that sums to 1. An unknown weight is the mean of the known ones."""
    if weights is None:
        return np.full(items, 1 / items)
    own = np.asarray([np.nan if weight is None else weight for weight in weights])
    own = own / np.nanmax(own)  # so that no sum overflows
    own = np.where(np.isnan(own), np.nanmean(own), own)
    return np.asarray(own / own.sum())


def weighed_scores(data: Data, share_QI: Float) -> tuple[Float, Float]:
    """9 * sum(w p) / sum(w) + 1 and its standard error, f64[Q, M] each; NaN where any item has no grade.

    The error is that of the mean head (see `head.predict`): sqrt(n / (n - 1) * sum((9 w (p - mean))^2)) with weights
    that sum to 1, over the n items that count. One item alone has no spread to tell its error by: NaN.
    """
    p_QMI, graded_QM = np.asarray(data.p_QMI, np.float64), np.asarray(data.graded_QM)
    mean_QM = np.einsum("qmi,qi->qm", p_QMI, share_QI)
    n_Q = (share_QI > 0).sum(axis=1).astype(np.float64)
    square_QM = ((9 * share_QI[:, None] * (p_QMI - mean_QM[..., None])) ** 2).sum(axis=2)
    more_Q = n_Q / np.where(n_Q > 1, n_Q - 1, np.nan)
    error_QM = np.sqrt(square_QM * more_Q[:, None])
    return np.where(graded_QM, 9 * mean_QM + 1, np.nan), np.where(graded_QM, error_QM, np.nan)
