"""How well grades or scores agree with labels: discrimination, calibration, reliability of two raters."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.floating[Any]]
NONE = 1e-12  # a spread below it is none but for rounding


def auc(p: Float, label: Float) -> float:
    """Chance that a yes is graded above a no, ties half (Mann-Whitney). Labels above 0.5 are yes, below no, and 0.5
    is left out. NaN where one class is missing."""
    p, label = p[label != 0.5], label[label != 0.5]
    yes = label > 0.5
    if yes.all() or not yes.any():
        return float("nan")
    _, inverse, counts = np.unique(p, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    rank = (ends - (counts - 1) / 2)[inverse]
    n = int(yes.sum())
    return float((rank[yes].sum() - n * (n + 1) / 2) / (n * (len(p) - n)))


def accuracy(p: Float, label: Float) -> float:
    """Share of items on the right side of 0.5; labels of 0.5 are left out. NaN where no other is there."""
    p, label = p[label != 0.5], label[label != 0.5]
    if not len(p):
        return float("nan")
    return float(np.mean((p > 0.5) == (label > 0.5)))


def brier(p: Float, label: Float) -> float:
    """Mean squared error of p (Brier 1950)."""
    return float(np.mean((p - label) ** 2))


def ece(p: Float, label: Float, bins: int = 10) -> float:
    """Expected calibration error over equal bins of p (Naeini et al. 2015)."""
    which = np.minimum((p * bins).astype(int), bins - 1)
    gap = [abs(p[which == b].mean() - label[which == b].mean()) * np.mean(which == b) for b in np.unique(which)]
    return float(sum(gap))


def reliability(p: Float, label: Float, bins: int = 10) -> list[dict[str, float]]:
    """The reliability curve behind `ece`: for every equal bin of p that holds something, its ends, the mean p, the
    mean label and the number of items."""
    which = np.minimum((p * bins).astype(int), bins - 1)
    return [
        {"low": float(b / bins), "high": float((b + 1) / bins), "mean_p": float(p[which == b].mean()),
         "share_yes": float(label[which == b].mean()), "n": int((which == b).sum())}
        for b in np.unique(which)
    ]  # fmt: skip


def kappa(a: Float, b: Float, weights: Literal["none", "quadratic"] = "none") -> float:
    """Cohen's kappa of two raters' categories, which are their values; `quadratic` weighs a disagreement by the square
    of its size (Cohen 1960; 1968). NaN where chance alone would agree wholly."""
    values, inverse = np.unique(np.concatenate([a, b]), return_inverse=True)
    seen = np.zeros((len(values), len(values)))
    np.add.at(seen, (inverse[: len(a)], inverse[len(a) :]), 1 / max(len(a), 1))
    cost = (values[:, None] - values[None]) ** 2 if weights == "quadratic" else 1.0 - np.eye(len(values))
    chance = (cost * np.outer(seen.sum(axis=1), seen.sum(axis=0))).sum()
    return float(1 - (cost * seen).sum() / chance) if chance > NONE else float("nan")


def alpha(a: Float, b: Float) -> float:
    """Krippendorff's alpha of two raters with the interval metric (Krippendorff 2011, "Computing Krippendorff's
    alpha-reliability"), which on 0 and 1 is the nominal one. NaN where all values are equal."""
    both = np.concatenate([a, b])
    n = len(both)
    expected = 2 * both.var() * n / (n - 1) if n > 1 else 0.0
    return float(1 - ((a - b) ** 2).mean() / expected) if expected > NONE else float("nan")


def icc(a: Float, b: Float) -> float:
    """ICC(2,1), two random raters in absolute agreement, single score (Shrout & Fleiss 1979, Psychological Bulletin
    86:420). NaN with fewer than two subjects, or where all values are equal."""
    n = len(a)
    if n < 2:
        return float("nan")
    table = np.stack([a, b], axis=1)
    rows, columns, middle = table.mean(axis=1), table.mean(axis=0), table.mean()
    between = 2 * ((rows - middle) ** 2).sum() / (n - 1)
    raters = n * ((columns - middle) ** 2).sum()
    error = ((table - rows[:, None] - columns[None] + middle) ** 2).sum() / (n - 1)
    total = between + error + 2 * (raters - error) / n
    return float((between - error) / total) if total > NONE else float("nan")


def bootstrap(
    statistic: Callable[..., float], groups: Sequence[Any], *columns: Float, samples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95% percentile interval of `statistic(*columns)`, drawing whole groups (queries) with replacement."""
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    members = [np.flatnonzero(index == g) for g in range(len(names))]
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(samples):
        rows = np.concatenate([members[g] for g in rng.integers(len(members), size=len(members))])
        values.append(statistic(*(c[rows] for c in columns)))
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)
