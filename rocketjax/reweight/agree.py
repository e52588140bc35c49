"""How well scores agree with labels, as rankings and as verdicts.

Axes: Q queries, M models. NaN marks what is not there.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import kendalltau, spearmanr

Float = npt.NDArray[np.floating[Any]]


class Agreement(NamedTuple):
    """`spearman` and `kendall` (tau-b) of the models' mean scores with their mean labels, over the queries for which
    all models (that have any) have both; `pairwise`: of two responses to one query with different labels, how often
    they are ordered alike, a tie of the scores counting one half; `mae`: mean absolute difference from the label. NaN
    where nothing can be said."""

    spearman: float
    kendall: float
    pairwise: float
    mae: float


def agreement(score_QM: Float, label_QM: Float) -> Agreement:
    """Agreement over the pairs that have both a score and a label."""
    known = np.isfinite(score_QM) & np.isfinite(label_QM)
    score, label = (np.where(known, x, np.nan) for x in (score_QM, label_QM))
    # Queries that lack a model would shift its mean: the ranking is over those that have all.
    models = known.any(axis=0)
    whole = known[:, models].all(axis=1)
    a, b = (x[whole][:, models].mean(axis=0) if whole.any() else np.zeros(0) for x in (score, label))
    # A constant side is no ranking; scipy would warn and return NaN.
    ranked = len(a) > 1 and np.ptp(a) > 1e-9 and np.ptp(b) > 0
    return Agreement(
        float(spearmanr(a, b).statistic) if ranked else float("nan"),
        float(kendalltau(a, b).statistic) if ranked else float("nan"),
        pairwise(score, label),
        float(np.abs(score - label)[known].mean()) if known.any() else float("nan"),
    )


def pairwise(score_QM: Float, label_QM: Float) -> float:
    """Share of pairs with different labels that are ordered alike; see `Agreement`."""
    left, right = np.triu_indices(score_QM.shape[1], 1)
    want = np.sign(label_QM[:, left] - label_QM[:, right])
    got = np.sign(np.round(score_QM[:, left] - score_QM[:, right], 9))
    asked = np.isfinite(want) & np.isfinite(got) & (want != 0)
    if not asked.any():
        return float("nan")
    return float(np.where(got == 0, 0.5, got == want)[asked].mean())


class RiskCoverage(NamedTuple):
    """Mean absolute error of the scores that are kept, as more and more uncertain ones are: f64[N] each.

    `area` is the mean of `risk` over all coverages (AURC: Geifman & El-Yaniv 2017, arXiv 1705.08500); `random` is the
    risk when all are kept, which is what dropping at random gives.
    """

    threshold: Float
    coverage: Float
    risk: Float
    area: float
    random: float


def risk_coverage(score_QM: Float, error_QM: Float, label_QM: Float) -> RiskCoverage:
    """The curve over all pairs with a score, its standard error and a label, the most certain first."""
    known = np.isfinite(score_QM) & np.isfinite(error_QM) & np.isfinite(label_QM)
    order = np.argsort(error_QM[known], kind="stable")
    wrong = np.abs(score_QM - label_QM)[known][order]
    n = np.arange(1, len(wrong) + 1)
    risk = np.cumsum(wrong) / n
    return RiskCoverage(
        error_QM[known][order], n / max(len(n), 1), risk,
        float(risk.mean()) if len(n) else float("nan"), float(wrong.mean()) if len(n) else float("nan"),
    )  # fmt: skip
