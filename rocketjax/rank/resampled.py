"""Agreement in many bootstrap samples of the queries at once: a sample is how often each query is in it.

All but ranks is made of sums over queries, so that a sample costs a product of its counts with them. `metrics` has the
same measures for plain arrays.

Axes: X samples, Q queries, M models, N pairs of a score and a label, or items, K categories.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from rocketjax.rank.metrics import NONE

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.integer]
Figure = list[float | None]  # value, low, high
Columns = dict[str, Float]  # measure -> f64[X], NaN where a sample says nothing
AT_ONCE = 2**24  # numbers that a part of the samples may hold


def figures(measure: Callable[[Float], Columns], Q: int, draw_SQ: Int, tail: Sequence[float]) -> dict[str, Figure]:
    """Each measure of all Q queries, and the ends of its percentile interval over the samples that define it; `measure`
    takes how often each query is there, f64[X, Q]."""
    whole = measure(np.ones((1, Q)))
    step = max(1, AT_ONCE // Q)
    parts = [
        measure(np.stack([np.bincount(rows, minlength=Q) for rows in draw_SQ[i : i + step]]).astype(float))
        for i in range(0, len(draw_SQ), step)
    ]
    return {key: figure(float(x[0]), [part[key] for part in parts], tail) for key, x in whole.items()}


def figure(value: float, drawn: Sequence[Float], tail: Sequence[float]) -> Figure:
    """A value with the ends of its percentile interval over samples, f64[S] in parts; None for what is not known."""
    column = np.concatenate([*drawn, np.empty(0)])
    column = column[np.isfinite(column)]
    ends = np.percentile(column, tail).tolist() if len(column) > 1 else [None, None]
    return [value if np.isfinite(value) else None, *ends]


def orders(got_XM: Float, want_XM: Float) -> Columns:
    """Two rankings of the same models: Spearman's rho, Kendall's tau-b, Pearson's r, and `pairwise`, the share of the
    pairs with different references that are ordered alike, ties of `got` one half. NaN where a side is constant: that
    is no order. Infinite values stand above or below all others; Pearson's r has no place for them."""
    M = got_XM.shape[1]
    left, right = np.triu_indices(M, 1)
    out: Columns = {key: np.full(len(got_XM), np.nan) for key in ("spearman", "kendall", "pearson", "pairwise")}
    step = max(1, AT_ONCE // max(1, len(left)))
    for i in range(0, len(got_XM), step):
        on = slice(i, i + step)
        ranks = [rankdata(x[on], axis=1) for x in (got_XM, want_XM)]
        got, want = (np.sign(r[:, left] - r[:, right]) for r in ranks)
        asked = np.asarray(want != 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            out["kendall"][on] = (got * want).sum(axis=1) / np.sqrt((got != 0).sum(axis=1) * asked.sum(axis=1))
            out["pairwise"][on] = (np.where(got == 0, 0.5, got == want) * asked).sum(axis=1) / asked.sum(axis=1)
            out["spearman"][on] = pearson_rows(*ranks)
            finite = np.asarray(np.isfinite(got_XM[on]).all(axis=1))
            straight = np.where(finite[:, None], got_XM[on], 0.0)
            out["pearson"][on] = np.where(finite, pearson_rows(straight, want_XM[on]), np.nan)
    return out


def pearson_rows(a_XM: Float, b_XM: Float) -> Float:
    """Pearson's r of each row, f64[X]."""
    a, b = (x - x.mean(axis=1, keepdims=True) for x in (a_XM, b_XM))
    size = (a**2).mean(axis=1), (b**2).mean(axis=1)
    r = (a * b).mean(axis=1) / np.sqrt(size[0] * size[1])
    return np.asarray(np.where((size[0] > NONE**2) & (size[1] > NONE**2), r, np.nan))


def responses(score_QM: Float, label_QM: Float) -> Callable[[Float], Columns]:
    """Measures of single scores against their labels; NaN marks what is not there. `kappa` and `quadratic_kappa` are
    over values rounded to whole points. Formulas and sources: `metrics`."""
    Q = len(score_QM)
    known = np.isfinite(score_QM) & np.isfinite(label_QM)
    q_N = np.nonzero(known)[0]
    a_N, b_N = score_QM[known], label_QM[known]
    middle = np.concatenate([a_N, b_N]).mean() if len(a_N) else 0.0  # sums of squares lose no digits around it
    a, b = a_N - middle, b_N - middle
    sums_Q7 = sums(q_N, Q, np.ones(len(a)), a, b, a * a, b * b, a * b, np.abs(a - b))
    x, y = np.rint(a_N), np.rint(b_N)
    values, inverse = np.unique(np.concatenate([x, y]), return_inverse=True)
    K = max(1, len(values))
    marginal_QK = [np.bincount(q_N * K + which, minlength=Q * K).reshape(Q, K).astype(float)
                   for which in np.split(inverse, 2)]  # fmt: skip
    shift = np.rint(middle)
    u, v = x - shift, y - shift
    points_Q6 = sums(q_N, Q, x == y, (x - y) ** 2, u, v, u * u, v * v)
    right_Q, asked_Q = verdicts(np.where(known, score_QM, np.nan), np.where(known, label_QM, np.nan))
    groups = [np.unique(values_N, return_inverse=True)[1] for values_N in (a_N, b_N)]

    def measure(times_XQ: Float) -> Columns:
        n, sa, sb, saa, sbb, sab, off = (times_XQ @ sums_Q7).T
        same, apart, su, sv, suu, svv = (times_XQ @ points_Q6).T
        with np.errstate(divide="ignore", invalid="ignore"):
            ma, mb = sa / n, sb / n
            va, vb = saa / n - ma**2, sbb / n - mb**2
            square = (saa + sbb - 2 * sab) / n  # mean squared difference
            both = (saa + sbb) / (2 * n) - ((ma + mb) / 2) ** 2
            expected = 2 * both * 2 * n / (2 * n - 1)
            gap = (ma - mb) ** 2 / 2
            row = (saa + sbb + 2 * sab) / 4 - n * ((ma + mb) / 2) ** 2
            between, error = 2 * row / (n - 1), n * (square / 2 - gap) / (n - 1)
            total = between + error + 2 * (n * gap - error) / n
            chance = 1 - ((times_XQ @ marginal_QK[0]) * (times_XQ @ marginal_QK[1])).sum(axis=1) / n**2
            squared = suu / n + svv / n - 2 * su * sv / n**2
            return {
                "spearman": np.asarray([weighted_spearman(w[q_N], *groups) for w in times_XQ]),
                "pearson": sure((sab / n - ma * mb) / np.sqrt(va * vb), va, vb),
                "pairwise": (times_XQ @ right_Q) / (times_XQ @ asked_Q),
                "mae": off / n,
                "kappa": sure(1 - (1 - same / n) / chance, chance),
                "quadratic_kappa": sure(1 - apart / n / squared, squared),
                "alpha": sure(1 - square / expected, expected),
                "icc": np.where(n > 1, sure((between - error) / total, total), np.nan),
            }

    return measure


def items(p_N: Float, label_N: Float, q_N: Int, Q: int) -> Callable[[Float], Columns]:
    """Measures of p(yes) against labels of items, N of them in query q_N; see `metrics`. A label of one half is left
    out where sides are compared, and one above it is a yes."""
    sided = label_N != 0.5
    q, p, want = q_N[sided], p_N[sided], label_N[sided] > 0.5
    yes = p > 0.5
    table_Q4 = sums(q, Q, yes & want, yes & ~want, ~yes & want, ~yes & ~want)
    which = np.minimum((p_N * 10).astype(int), 9)
    gap_QB = np.bincount(q_N * 10 + which, weights=p_N - label_N, minlength=Q * 10).reshape(Q, 10)
    whole_Q2 = sums(q_N, Q, np.ones(len(p_N)), (p_N - label_N) ** 2)
    order = np.argsort(p, kind="stable")
    p, want, q = p[order], want[order], q[order]
    first = np.flatnonzero(np.diff(p, prepend=np.nan) != 0)  # of every run of equal p

    def auc(times: Float) -> float:
        w = times[q]
        up, down = (np.add.reduceat(np.where(side, w, 0.0), first) for side in (want, ~want))
        return float((up * (np.cumsum(down) - down / 2)).sum() / (up.sum() * down.sum()))

    def measure(times_XQ: Float) -> Columns:
        hit, false, missed, free = (times_XQ @ table_Q4).T
        n, square = (times_XQ @ whole_Q2).T
        m = hit + false + missed + free
        with np.errstate(divide="ignore", invalid="ignore"):
            right, said, truth = (hit + free) / m, (hit + false) / m, (hit + missed) / m
            chance = said + truth - 2 * said * truth
            mean = (said + truth) / 2
            expected = 2 * mean * (1 - mean) * 2 * m / (2 * m - 1)
            return {
                "accuracy": right,
                "auc": np.asarray([auc(times) for times in times_XQ]) if len(p) else np.full(len(n), np.nan),
                "kappa": sure(1 - (1 - right) / chance, chance),
                "alpha": sure(1 - (1 - right) / expected, expected),
                "brier": square / n,
                "ece": np.abs(times_XQ @ gap_QB).sum(axis=1) / n,
            }

    return measure


def verdicts(score_QM: Float, label_QM: Float) -> tuple[Float, Float]:
    """f64[Q] each: how many pairs of a query's responses are ordered as their labels are, a tie of the scores counting
    one half, and how many have different labels (`rocketjax.reweight.agree.pairwise` is the share of all)."""
    left, right = np.triu_indices(score_QM.shape[1], 1)
    out = np.zeros((2, len(score_QM)))
    step = max(1, AT_ONCE // max(1, len(left)))
    for i in range(0, len(score_QM), step):
        on = slice(i, i + step)
        want = np.sign(label_QM[on, left] - label_QM[on, right])
        got = np.sign(np.round(score_QM[on, left] - score_QM[on, right], 9))
        asked = np.isfinite(want) & np.isfinite(got) & (want != 0)
        out[0, on] = (np.where(got == 0, 0.5, got == want) * asked).sum(axis=1)
        out[1, on] = asked.sum(axis=1)
    return out[0], out[1]


def sums(q_N: Int, Q: int, *columns: npt.NDArray) -> Float:
    """f64[Q, ...]: the sum of each column over each query."""
    return np.stack([np.bincount(q_N, weights=c, minlength=Q) for c in columns], axis=1)


def sure(value_X: Float, *spread_X: Float) -> Float:
    """NaN where a spread that was divided by is none but for rounding."""
    there = np.logical_and.reduce([s > NONE for s in spread_X])
    return np.asarray(np.where(there, value_X, np.nan))


def weighted_spearman(w_N: Float, a_N: Int, b_N: Int) -> float:
    """Spearman's rho of points that are there w_N times; a_N and b_N number their values from the smallest."""
    n = w_N.sum()
    if not n:
        return float("nan")
    centred = []
    for group_N in (a_N, b_N):
        size = np.bincount(group_N, weights=w_N)
        centred.append((np.cumsum(size) - size / 2 - n / 2)[group_N])
    a, b = centred
    spread = float((w_N * a * a).sum()) * float((w_N * b * b).sum())
    return float((w_N * a * b).sum() / np.sqrt(spread)) if spread > 0 else float("nan")
