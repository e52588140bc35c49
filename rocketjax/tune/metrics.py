"""How well graded items agree with their labels: discrimination, calibration, and bootstrap intervals."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.floating[Any]]


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
