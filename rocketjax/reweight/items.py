"""What each checklist item is worth: a table for people who mend checklists.

Axes: Q queries, M models, I items.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rocketjax.reweight.panels import Panel

Float = npt.NDArray[np.float64]

ITEMS = pa.schema(
    [
        pa.field("session_id", pa.string(), nullable=False),
        pa.field("item", pa.int32(), nullable=False),
        pa.field("text", pa.string()),
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
        pa.field("family_z", pa.float64()),
    ]
)
DEAD = 0.02  # deviation of p below which an item tells no responses apart
SURE = 3.0  # standard errors: with many items, two are passed by chance alone


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
    texts: Mapping[str, tuple[str, ...]] | None = None,
    weight_QI: npt.NDArray[Any] | None = None,
    families: Mapping[str, str] | None = None,
) -> pa.Table:
    """A row per item, by session and item; null where a figure cannot be had.

    - `discrimination`: correlation of the item's p with the mean of the query's other items, over the responses (the
      item-rest correlation of classical test theory; Lord & Novick 1968, section 15.3).
    - `agreement`: correlation of the item's p with the labels.
    - `weight`: the head's, `weight_QI`, in units of the mean size of the query's weights.
    - `verdict`: `dead` (p hardly moves), `hurts` (weight or, without a head, agreement below 0), else `ok`.
    - `family_shift`: differential item functioning. How far p of one family's responses lies from what the item gives
      to other responses with the same mean of the other items, for the family with the largest `family_z` (that shift
      over its standard error; regression form of Mantel-Haenszel, Swaminathan & Rogers 1990). Only where it is above
      3 standard errors is it a finding. Families with at least 2 responses, beside at least 3 others.
    """
    d = panel.data
    p_QMI, graded_QM = np.asarray(d.p_QMI, np.float64), np.asarray(d.graded_QM)
    label_QM = np.where(panel.labelled, np.asarray(d.label_QM, np.float64), np.nan)
    names = families_of(panel.models, families)
    pooled_shift = family_shifts(panel, names)
    rows = []
    for q, session in enumerate(panel.sessions):
        count = panel.counts[q]
        own_MI = np.where(graded_QM[q][:, None], p_QMI[q, :, :count], np.nan)
        for i in range(count):
            p_M = own_MI[:, i]
            known = p_M[np.isfinite(p_M)]
            rest_M = (own_MI.sum(axis=1) - p_M) / max(count - 1, 1) if count > 1 else np.full(len(p_M), np.nan)
            deviation = float(known.std()) if len(known) > 1 else float("nan")
            agreement = correlation(p_M, label_QM[q])
            weight = float("nan") if weight_QI is None else relative(weight_QI[q], count)[i]
            worth = agreement if weight_QI is None else weight
            verdict = "dead" if deviation < DEAD else "hurts" if worth < 0 else "ok"
            family, shift, z = pooled_shift.get((q, i), (None, float("nan"), float("nan")))
            rows.append(
                {
                    "session_id": session, "item": i, "text": texts[session][i] if texts else None,
                    "responses": len(known), "mean_p": nan_mean(known), "yes_rate": nan_mean((known > 0.5) * 1.0),
                    "deviation": deviation, "discrimination": correlation(p_M, rest_M), "agreement": agreement,
                    "weight": weight, "verdict": verdict, "family": family, "family_shift": shift, "family_z": z,
                }
            )  # fmt: skip
    for row in rows:
        for key, value in row.items():
            if isinstance(value, float) and not np.isfinite(value):
                row[key] = None
    return pa.Table.from_pylist(rows, schema=ITEMS)


def relative(weight_I: npt.NDArray[Any], count: int) -> Float:
    """Weights in units of their mean's size; all 0 where there is none."""
    own = np.asarray(weight_I, np.float64)[:count]
    size = np.abs(own).mean()
    return np.asarray(own / size if size > 0 else own)


def nan_mean(x: npt.NDArray[Any]) -> float:
    return float(x.mean()) if len(x) else float("nan")


def family_shifts(panel: Panel, names: list[str]) -> dict[tuple[int, int], tuple[str, float, float]]:
    """(query, item) -> family, shift, z of the family that the item treats most differently."""
    d = panel.data
    p_QMI, graded_QM = np.asarray(d.p_QMI, np.float64), np.asarray(d.graded_QM)
    sizes = {name: names.count(name) for name in names}
    chosen = [name for name in sizes if sizes[name] >= 2 and len(names) - sizes[name] >= 3]
    out: dict[tuple[int, int], tuple[str, float, float]] = {}
    for q in range(len(panel.sessions)):
        count = panel.counts[q]
        if count < 2:
            continue
        for i in range(count):
            p_M = p_QMI[q, :, i]
            rest_M = (p_QMI[q, :, :count].sum(axis=1) - p_M) / (count - 1)
            for name in chosen:
                inside = np.asarray([n == name for n in names])
                known = graded_QM[q]
                if (known & inside).sum() < 2 or (known & ~inside).sum() < 3:
                    continue
                x = np.stack([np.ones(known.sum()), rest_M[known], inside[known]], axis=1)
                square = x.T @ x
                if np.linalg.cond(square) > 1e10 or len(x) < 5:
                    continue
                inverse = np.linalg.inv(square)
                beta = inverse @ x.T @ p_M[known]
                left = p_M[known] - x @ beta
                noise = float((left**2).sum() / (len(x) - 3))
                error = float(np.sqrt(max(noise * inverse[2, 2], 1e-12)))
                z = float(beta[2] / error)
                if (q, i) not in out or abs(z) > abs(out[q, i][2]):
                    out[q, i] = (name, float(beta[2]), z)
    return out


__all__ = ["ITEMS", "SURE", "correlation", "families_of", "item_table"]
