"""RocketEval's own scores, to the last digit: for results that must stand beside published ones.

What github.com/Joinn99/RocketEval-ICLR (commit e0579ff) makes of recorded judgments, its quirks included: items in the
order of their numbers as strings (0, 1, 10, 11, 2), a missing p as 0.5, ten trees of depth 2 per query, and a blend by
the entropy of the distinct label values. Needs scikit-learn (`pip install 'rocketjax[compat]'`).
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from rocketjax.errors import RocketError

Float = npt.NDArray[np.float64]
CLASSES = 10  # the labels' scale, 1 to 10, whose uniform distribution the labels are compared with


def string_order(items: int) -> list[int]:
    """Item numbers sorted as strings."""
    return sorted(range(items), key=str)


def mean_score(p_MI: Float) -> Float:
    """9 * mean(p) + 1, a missing p counted as 0.5."""
    return np.asarray(9 * np.where(np.isnan(p_MI), 0.5, p_MI).mean(axis=1) + 1)


def blend_weight(label_M: Float) -> float:
    """(ln 10 - KL(P || U)) / ln 10, which is H(P) / ln 10, P the shares of the distinct label values.

    Raises RocketError for more than ten of them, where the reference fails.
    """
    _, counts = np.unique(label_M, return_counts=True)
    if len(counts) > CLASSES:
        raise RocketError(f"{len(counts)} distinct labels for one query; the reference takes at most {CLASSES}")
    share = counts / counts.sum()
    return float(-(share * np.log(share)).sum() / math.log(CLASSES))


def regressor() -> Callable[[], Any]:
    """The class that the reference fits, with its settings. RocketError without scikit-learn."""
    try:
        from sklearn.ensemble import ExtraTreesRegressor
    except ImportError:
        raise RocketError("this needs scikit-learn: pip install 'rocketjax[compat]'") from None
    return lambda: ExtraTreesRegressor(n_estimators=10, max_depth=2, random_state=42)


def trees_scores(p_QMI: Float, item_QI: npt.NDArray[np.bool_], label_QM: Float, blend: bool) -> Float:
    """Scores f64[Q, M] of every response; NaN in `label_QM` is no label, NaN in `p_QMI` a missing grade.

    One regressor per query, fitted on its labelled responses in the order of the models. A query without any label has
    NaN: the reference leaves it out.
    """
    make = regressor()
    out = np.full(label_QM.shape, np.nan)
    for q, (p_MI, label_M) in enumerate(zip(p_QMI, label_QM, strict=True)):
        count = int(item_QI[q].sum())
        own_MI = p_MI[:, string_order(count)]
        own_MI = np.where(np.isnan(own_MI), 0.5, own_MI)
        known_M = ~np.isnan(label_M)
        if not known_M.any():
            continue
        trees_M = make().fit(own_MI[known_M], label_M[known_M]).predict(own_MI)
        weight = blend_weight(label_M[known_M]) if blend else 1.0
        out[q] = (1 - weight) * mean_score(own_MI) + weight * trees_M
    return out
