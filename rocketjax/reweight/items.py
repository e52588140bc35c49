"""What each checklist item is worth: a table for people who mend checklists.

Axes: Q queries, M models, I items.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.stats import t as student

from rocketjax.bench import Checklist
from rocketjax.reweight.panels import Panel

Float = npt.NDArray[np.float64]

ITEMS = pa.schema(
    [
        pa.field("session_id", pa.string(), nullable=False),
        pa.field("item", pa.int32(), nullable=False),
        pa.field("text", pa.string()),
        pa.field("category", pa.string()),
        pa.field("given_weight", pa.float64()),
        pa.field("responses", pa.int32(), nullable=False),  # graded ones
        pa.field("mean_p", pa.float64()),
        pa.field("yes_rate", pa.float64()),  # share of p above one half
        pa.field("deviation", pa.float64()),  # of p over the responses
        pa.field("discrimination", pa.float64()),
        pa.field("agreement", pa.float64()),
        pa.field("weight", pa.float64()),
        pa.field("verdict", pa.string(), nullable=False),
        pa.field("family", pa.string()),
        pa.field("family_shift", pa.float64()),
        pa.field("family_q", pa.float64()),
    ]
)
DEAD = 0.02  # deviation of p below which an item tells no responses apart


def correlation(a: Float, b: Float) -> float:
    """Pearson's, NaN where a side is constant or fewer than 3 pairs are known."""
    known = np.isfinite(a) & np.isfinite(b)
    a, b = a[known], b[known]
    if len(a) < 3 or np.ptp(a) < 1e-9 or np.ptp(b) < 1e-9:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def families_of(models: tuple[str, ...], families: Mapping[str, str] | None) -> list[str]:
    """The family of each model: as given, else what stands before the first digit, dash, underscore or blank.

    Case is nothing: "Meta-Llama-3-8B" and "meta-llama" are of "meta".
    """
    out = []
    for model in models:
        name = model.lower()
        stem = next((name[:i] for i, c in enumerate(name) if not c.isalpha()), name)
        out.append((families or {}).get(model) or stem or name)
    return out


def item_table(
    panel: Panel,
    checklists: Mapping[str, Checklist] | None = None,
    weights: tuple[npt.NDArray[Any], npt.NDArray[Any] | None] | None = None,
    families: Mapping[str, str] | None = None,
) -> pa.Table:
    """A row per item, by session and item; null where a figure cannot be had.

    - `text`, `category` and `given_weight` are what the checklists say.
    - `discrimination`: correlation of the item's p with the mean of the query's other items, over the responses (the
      item-rest correlation of classical test theory; Lord & Novick 1968, section 15.3).
    - `agreement`: correlation of the item's p with the labels.
    - `weight`: the head's, of `weights` (f32[Q, I], and their standard errors, None for a head that reads no labels),
      in units of the mean size of the query's weights.
    - `verdict`: `unknown` (fewer than 3 graded responses), `dead` (p hardly moves), `hurts` (a fitted head's weight is
      below 0 by more than its standard error; without one, agreement is below 0 by one-sided t test at 5%), else `ok`.
    - `family_shift`: differential item functioning. How far p of one family's responses lies from what the item gives
      to other responses with the same mean of the other items (regression form of Mantel-Haenszel, Swaminathan & Rogers
      1990), for the family where that is surest. `family_q`: the false discovery rate at which it would be a finding,
      over all items and families (Benjamini & Hochberg 1995, of t tests): with hundreds of items a few lie far off by
      chance. Families with at least 2 responses, beside at least 3 others.
    """
    d = panel.data
    p_QMI, graded_QM = np.asarray(d.p_QMI, np.float64), np.asarray(d.graded_QM)
    label_QM = np.where(panel.labelled, np.asarray(d.label_QM, np.float64), np.nan)
    names = families_of(panel.models, families)
    shifts = family_shifts(panel, names)
    rows = []
    for q, session in enumerate(panel.sessions):
        count = panel.counts[q]
        given = None if checklists is None else checklists[session]
        own_MI = np.where(graded_QM[q][:, None], p_QMI[q, :, :count], np.nan)
        for i in range(count):
            p_M = own_MI[:, i]
            known = p_M[np.isfinite(p_M)]
            rest_M = (own_MI.sum(axis=1) - p_M) / max(count - 1, 1) if count > 1 else np.full(len(p_M), np.nan)
            deviation = float(known.std()) if len(known) > 1 else float("nan")
            agreement = correlation(p_M, label_QM[q])
            weight = float("nan") if weights is None else relative(weights[0][q], count)[i]
            if weights is None or weights[1] is None:
                hurts = below_zero(agreement, int((np.isfinite(p_M) & np.isfinite(label_QM[q])).sum()))
            else:
                hurts = bool(weights[0][q, i] < -weights[1][q, i])
            verdict = "unknown" if len(known) < 3 else "dead" if deviation < DEAD else "hurts" if hurts else "ok"
            family, shift, rate = shifts.get((q, i), (None, float("nan"), float("nan")))
            rows.append(
                {
                    "session_id": session, "item": i, "text": given.items[i] if given else None,
                    "category": given.categories[i] if given and given.categories else None,
                    "given_weight": given.weights[i] if given and given.weights else None,
                    "responses": len(known), "mean_p": nan_mean(known), "yes_rate": nan_mean((known > 0.5) * 1.0),
                    "deviation": deviation, "discrimination": correlation(p_M, rest_M), "agreement": agreement,
                    "weight": weight, "verdict": verdict, "family": family, "family_shift": shift, "family_q": rate,
                }
            )  # fmt: skip
    for row in rows:
        for key, value in row.items():
            if isinstance(value, float) and not np.isfinite(value):
                row[key] = None
    return pa.Table.from_pylist(rows, schema=ITEMS)


def below_zero(correlation: float, n: int) -> bool:
    """Whether a correlation of n pairs is below 0, by one-sided t test at 5%."""
    if not np.isfinite(correlation) or n < 4:
        return False
    t = correlation * np.sqrt((n - 2) / max(1 - correlation**2, 1e-12))
    return bool(student.cdf(t, n - 2) < 0.05)


def relative(weight_I: npt.NDArray[Any], count: int) -> Float:
    """Weights in units of their mean's size; all 0 where there is none."""
    own = np.asarray(weight_I, np.float64)[:count]
    size = np.abs(own).mean()
    return np.asarray(own / size if size > 0 else own)


def nan_mean(x: npt.NDArray[Any]) -> float:
    return float(x.mean()) if len(x) else float("nan")


def family_shifts(panel: Panel, names: list[str]) -> dict[tuple[int, int], tuple[str, float, float]]:
    """(query, item) -> family, shift, false discovery rate, of the family that the item treats most differently.

    A biased item spoils the mean that the others are compared at, and makes them look biased the other way. So each
    query's least likely item is taken out of that mean, and the others are tested again (Holland & Thayer 1988).
    """
    chosen = [name for name in dict.fromkeys(names) if names.count(name) >= 2 and len(names) - names.count(name) >= 3]
    found: list[tuple[float, tuple[int, int], str, float]] = []  # p value, place, family, shift
    for q in range(len(panel.sessions)):
        known_M = np.asarray(panel.data.graded_QM[q])
        own_MI = np.asarray(panel.data.p_QMI[q, :, : panel.counts[q]], np.float64)[known_M]
        count = own_MI.shape[1]
        if count < 2:
            continue
        for name in chosen:
            inside_M = (np.asarray(names) == name)[known_M]
            if inside_M.sum() < 2 or (~inside_M).sum() < 3:
                continue
            first = [shift_test(own_MI, inside_M, i, None) for i in range(count)]
            worst = int(np.argmin([p for p, _ in first]))
            again = first if count < 3 else [
                first[i] if i == worst else shift_test(own_MI, inside_M, i, worst) for i in range(count)
            ]  # fmt: skip
            found += [(p, (q, i), name, shift) for i, (p, shift) in enumerate(again)]
    out: dict[tuple[int, int], tuple[str, float, float]] = {}
    rate = 1.0
    found.sort()
    for rank in range(len(found), 0, -1):
        p_value, place, name, shift = found[rank - 1]
        rate = min(rate, p_value * len(found) / rank)
        out[place] = (name, shift, rate)  # the smallest p value of a place is the last to be written
    return out


def shift_test(own_MI: Float, inside_M: npt.NDArray[np.bool_], item: int, without: int | None) -> tuple[float, float]:
    """p value (two-sided t) and size of a family's shift at one item, beside the mean of the others but `without`.

    (1, 0) where it cannot be told from the mean.
    """
    others = [i for i in range(own_MI.shape[1]) if i not in (item, without)]
    x = np.stack([np.ones(len(own_MI)), own_MI[:, others].mean(axis=1), inside_M], axis=1)
    square = x.T @ x
    if len(x) < 5 or np.linalg.cond(square) > 1e10:
        return 1.0, 0.0
    inverse = np.linalg.inv(square)
    beta = inverse @ x.T @ own_MI[:, item]
    noise = ((own_MI[:, item] - x @ beta) ** 2).sum() / (len(x) - 3)
    error = float(np.sqrt(max(noise * inverse[2, 2], 1e-12)))
    return 2 * float(student.sf(abs(beta[2]) / error, len(x) - 3)), float(beta[2])


__all__ = ["ITEMS", "correlation", "families_of", "item_table"]
