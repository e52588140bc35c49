"""All heads on the same splits: fitted on the labels of half of the models, judged on the other half.

Axes: Q queries, M models, S splits.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rocketjax.errors import RocketError
from rocketjax.reweight.agree import Agreement, agreement
from rocketjax.reweight.compat import trees_scores
from rocketjax.reweight.head import DEFAULT, NAMES, Name, Options, check, fit_panel, score_panel
from rocketjax.reweight.panels import Panel

Float = npt.NDArray[np.float64]
QUERY_MEAN = "query mean"
REFERENCE = ("extra-trees", "extra-trees-blend")


@dataclass(frozen=True, eq=False)
class Comparison:
    """One head over all splits: `values_SA` has a row per split in the order of `Agreement`'s fields, NaN where a
    figure says nothing (the query mean ranks no models)."""

    head: str
    values_SA: Float
    failed: str = ""  # why some splits have no figures
    left_out: int = 0  # labels of all splits' test models for whose responses some compared head has no score

    def mean(self, field: str) -> float:
        column = self.values_SA[:, Agreement._fields.index(field)]
        return float(np.nanmean(column)) if np.isfinite(column).any() else float("nan")

    def interval(self, field: str) -> tuple[float, float]:
        """2.5% and 97.5% points over the splits, which is how far one split may lie off: not that of the mean."""
        column = self.values_SA[:, Agreement._fields.index(field)]
        if not np.isfinite(column).any():
            return float("nan"), float("nan")
        low, high = np.nanpercentile(column, [2.5, 97.5])
        return float(low), float(high)


def splits(panel: Panel, count: int, seed: int, part: float = 0.5) -> list[list[str]]:
    """Training models of so many random splits, `part` of the labelled models each (at least 2, and 2 left)."""
    models = panel.labelled_models()
    if len(models) < 4:
        raise RocketError(f"comparing heads needs labels of 4 models or more; there are {len(models)}")
    size = min(max(2, round(part * len(models))), len(models) - 2)
    rng = np.random.default_rng(seed)
    return [[models[i] for i in sorted(rng.permutation(len(models))[:size])] for _ in range(count)]


def thinned(panel: Panel, labels: int, seed: int) -> Panel:
    """The panel with at most so many labels for each query, drawn at random."""
    rng = np.random.default_rng(seed)
    weight_QM = np.asarray(panel.data.weight_QM).copy()
    for row in weight_QM:
        known = np.flatnonzero(row > 0)
        row[rng.permutation(known)[labels:]] = 0
    return Panel(panel.sessions, panel.models, panel.counts, panel.data._replace(weight_QM=weight_QM))


def query_mean(panel: Panel) -> Float:
    """What needs no judge: the mean of the query's training labels, the same for every model; f64[Q, M]."""
    w_QM, label_QM = (np.asarray(x, np.float64) for x in (panel.data.weight_QM, panel.data.label_QM))
    level = (w_QM * label_QM).sum() / w_QM.sum()
    n_Q = w_QM.sum(axis=1)
    mean_Q = np.where(n_Q > 0, (w_QM * label_QM).sum(axis=1) / np.maximum(n_Q, 1), level)
    return np.repeat(mean_Q[:, None], len(panel.models), axis=1)


def check_head(head: str, features: bool) -> tuple[Name, Options]:
    """The head and options that a name in a comparison stands for; RocketError for none."""
    if head == QUERY_MEAN or head in REFERENCE:
        return DEFAULT, Options()
    name, *extras = head.split("+")
    if name not in NAMES or set(extras) - {"monotone", "rank"}:
        raise RocketError(f"unknown head {head!r}; there are: {', '.join((*NAMES, *REFERENCE, QUERY_MEAN))}")
    if name == "shared" and not features:
        raise RocketError("head 'shared' reads the judge's hidden states; rocketjax fit RUN --head shared makes them")
    options = Options("monotone" in extras, 1.0 if "rank" in extras else 0.0)
    return check(name, options), options


def scores_of(head: str, panel: Panel, feature_QIE: npt.NDArray[np.float32] | None) -> Float:
    """Scores of all responses by a head that is fitted to the labels left in the panel: f64[Q, M].

    `head` is a head's name, also with `+monotone` and `+rank`, one of `REFERENCE`, or `QUERY_MEAN`.
    """
    if head == QUERY_MEAN:
        return query_mean(panel)
    d = panel.data
    if head in REFERENCE:
        p_QMI = np.where(np.asarray(d.graded_QM)[..., None], np.asarray(d.p_QMI, np.float64), np.nan)
        label_QM = np.where(panel.labelled, np.asarray(d.label_QM, np.float64), np.nan)
        return trees_scores(p_QMI, np.asarray(d.item_QI), label_QM, head == REFERENCE[1])
    name, options = check_head(head, feature_QIE is not None)
    fitted = fit_panel(panel, name, options, feature_QIE, samples=False)
    return score_panel(panel, name, fitted)[0]


def compare(
    panel: Panel,
    heads: Sequence[str] | None = None,
    count: int = 20,
    seed: int = 0,
    part: float = 0.5,
    labels: int | None = None,
    feature_QIE: npt.NDArray[np.float32] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Comparison]:
    """Every head on the same `count` random splits of the models; `labels` bounds the labels of a query.

    The figures are those of the models that the head has not seen labels of, over the responses that every head has a
    score for. Raises RocketError for too few models.
    """
    chosen = list(heads or default_heads(feature_QIE is not None))
    label_QM = np.where(panel.labelled, np.asarray(panel.data.label_QM, np.float64), np.nan)
    values: dict[str, list[Agreement]] = {head: [] for head in chosen}
    failed, left_out = dict.fromkeys(chosen, ""), 0
    for head in chosen:
        check_head(head, feature_QIE is not None)
    for number, models in enumerate(splits(panel, count, seed, part)):
        training = panel.trained_on(models)
        if labels is not None:
            training = thinned(training, labels, seed + number)
        test = np.asarray([m not in models for m in panel.models])
        score_QM: dict[str, Float] = {}
        for head in chosen:
            try:
                score_QM[head] = scores_of(head, training, feature_QIE)[:, test]
            except RocketError as e:  # the reference's blend fails on more than ten distinct labels, for one
                failed[head] = str(e)
        # The reference has no score where a query has no training label; all are judged where all have one.
        known = np.logical_and.reduce([np.isfinite(x) for x in score_QM.values()])
        left_out += int((np.isfinite(label_QM[:, test]) & np.asarray(panel.data.graded_QM)[:, test] & ~known).sum())
        for head in chosen:
            if head in score_QM:
                values[head].append(agreement(score_QM[head], np.where(known, label_QM[:, test], np.nan)))
            else:
                values[head].append(Agreement(*[float("nan")] * len(Agreement._fields)))
        if progress:
            progress(number + 1, count)
    return [Comparison(head, np.asarray(rows, np.float64), failed[head], left_out) for head, rows in values.items()]


def default_heads(features: bool) -> Iterable[str]:
    """All heads that need nothing which is not there."""
    for name in NAMES:
        if name != "shared" or features:
            yield name
    yield from ("ridge+monotone", "ridge+rank", "pairwise+monotone")
    try:
        import sklearn  # noqa: F401
    except ImportError:
        pass
    else:
        yield from REFERENCE
    yield QUERY_MEAN


def as_rows(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Plain values for JSON: means and intervals, None for NaN."""
    out = []
    for c in comparisons:
        row: dict[str, Any] = {"head": c.head, "splits": len(c.values_SA), "failed": c.failed or None}
        for field in Agreement._fields:
            numbers = (c.mean(field), *c.interval(field))
            row[field] = [None if np.isnan(x) else round(x, 6) for x in numbers]
        out.append(row)
    return out


__all__ = [
    "QUERY_MEAN", "REFERENCE", "Comparison", "as_rows", "compare", "default_heads",
    "query_mean", "scores_of", "splits", "thinned",
]  # fmt: skip
