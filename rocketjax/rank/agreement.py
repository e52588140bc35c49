"""How well a run agrees with people, or whoever stands in for them: a labeler's scores, or ratings of the models.

Axes: S samples, Q queries, M models.
"""

import csv
import json
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import kendalltau, pearsonr, spearmanr

from rocketjax.bench import Benchmark
from rocketjax.errors import RocketError
from rocketjax.grade import OK, Run
from rocketjax.rank.metrics import accuracy, alpha, auc, brier, ece, icc, kappa, reliability
from rocketjax.rank.scored import scored
from rocketjax.reweight import labels_of, risk_coverage
from rocketjax.reweight.agree import pairwise

Float = npt.NDArray[np.float64]
Figure = list[float | None]  # value, low, high


def read_ratings(file: str | os.PathLike[str]) -> dict[str, float]:
    """Ratings of models: JSON ({"model": number}, alone or under `ratings`, or a list of objects with `model` or `name`
    and `rating`, `elo` or `score`), or a CSV with such columns. Raises RocketError with the file and the row."""
    path = Path(file)
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        raise RocketError(f"{path}: cannot be read ({e})") from None
    if not text.strip():
        raise RocketError(f"{path}: is empty; it needs a rating for each model")
    rows: list[Any]
    if text.lstrip()[0] in "[{":
        try:
            given = json.loads(text)
        except ValueError as e:
            raise RocketError(f"{path}: is no JSON ({e})") from None
        if isinstance(given, dict) and isinstance(given.get("ratings"), dict):
            given = given["ratings"]  # with notes about them beside
        rows = given
        if isinstance(given, dict):
            rows = [{"model": m, **(r if isinstance(r, dict) else {"rating": r})} for m, r in given.items()]
    else:
        rows = list(csv.DictReader(text.splitlines()))
    out: dict[str, float] = {}
    for i, row in enumerate(rows, 1):
        row = row if isinstance(row, dict) else {}
        model = next((row[k] for k in ("model", "name") if row.get(k)), None)
        field = next((k for k in ("rating", "elo", "score") if row.get(k) not in (None, "")), None)
        if model is None or field is None:
            lacks = "model" if model is None else "rating"
            raise RocketError(f"{path}: entry {i} has no {lacks}; name the columns model and rating")
        try:
            rating = float(row[field])
        except (TypeError, ValueError):
            rating = float("nan")
        if not np.isfinite(rating):
            raise RocketError(f"{path}: entry {i}, {field}: {row[field]!r} of {model!r} is not a number")
        if str(model) in out:
            raise RocketError(f"{path}: entry {i}: {model!r} is there twice")
        out[str(model)] = rating
    return out


def agree(
    run: Run,
    benchmark: Benchmark | None = None,
    labeler: str | None = None,
    ratings: Mapping[str, float] | None = None,
    name: str | None = None,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Agreement of a scored run with a labeler of the benchmark, or with ratings of the models (such as Elo).

    Every figure is [value, low, high], a percentile interval over `samples` bootstrap samples of the queries; None
    where it says nothing. `ranking`: of the models' means with the labels' means or the ratings. `responses` (labelers
    that score): of single scores with labels; `kappa` and `quadratic_kappa` over values rounded to whole points.
    `items` (labelers that judge items): of p(yes) with the items' labels, the verdict being p above 0.5.
    `risk_coverage`: see `rocketjax.reweight.risk_coverage`, where scores have standard errors. Raises RocketError where
    fewer than two models can be compared.
    """
    if (labeler is None) == (ratings is None):
        raise RocketError("name a labeler or give ratings, one of them")
    table = scored(run)
    draw = np.random.default_rng(seed).integers(len(table.sessions), size=(samples, len(table.sessions)))
    tail = [100 * (1 - level) / 2, 100 * (1 + level) / 2]
    out: dict[str, Any] = {
        "reference": name or labeler or "ratings", "kind": "labels" if ratings is None else "ratings",
        "level": level, "samples": samples, "seed": seed, "responses": None, "items": None, "risk_coverage": None,
    }  # fmt: skip
    if ratings is not None:
        known = np.asarray([m in ratings for m in table.models])
        if known.sum() < 2:
            raise RocketError(f"only {int(known.sum())} of the run's models have a rating; the names must be equal: "
                              f"{', '.join(table.models[:5])}, ...")  # fmt: skip
        want = np.asarray([ratings.get(m, np.nan) for m in table.models])[known]
        value_QM = np.where(table.used_QM, table.score_QM, np.nan)[:, known]
        out |= {"models": int(known.sum()), "without_rating": [m for m in table.models if m not in ratings]}
        out["ranking"] = figures(
            lambda rows: ranks(np.nanmean(value_QM[rows], axis=0), want), np.arange(len(value_QM)), draw, tail
        )
        return out
    assert benchmark is not None and labeler is not None, "a labeler belongs to a benchmark"
    if labeler not in benchmark.labels:
        there = ", ".join(sorted(benchmark.labels)) or "none"
        raise RocketError(f"{benchmark.name}: has no labels by {labeler!r}; labelers: {there}")
    given = benchmark.labels[labeler]
    out |= {"models": 0, "ranking": None}
    if any(x.score is not None for by in given.values() for x in by.values()):
        labels = labels_of(benchmark, labeler)
        label_QM = np.asarray([[value(labels.get(m, {}).get(s)) for m in table.models] for s in table.sessions], float)
        score_QM = np.where(table.used_QM, table.score_QM, np.nan)
        known_QM = np.isfinite(score_QM) & np.isfinite(label_QM)
        models = known_QM.any(axis=0)
        shared = known_QM[:, models].all(axis=1)
        if models.sum() >= 2 and shared.any():
            a, b = score_QM[shared][:, models], label_QM[shared][:, models]
            own = draw_of(len(a), samples, seed)
            out |= {"models": int(models.sum()), "queries": int(shared.sum())}
            out["ranking"] = figures(
                lambda rows: ranks(a[rows].mean(axis=0), b[rows].mean(axis=0)), np.arange(len(a)), own, tail
            )
        if known_QM.any():
            where_QM = np.where(known_QM, label_QM, np.nan)
            out["responses"] = {"n": int(known_QM.sum())} | figures(
                lambda rows: responses(score_QM[rows], where_QM[rows]), np.arange(len(score_QM)), draw, tail
            )
        curve = risk_coverage(score_QM, np.where(table.used_QM, table.error_QM, np.nan), label_QM)
        if len(curve.risk):
            places = dict.fromkeys(max(0, round(len(curve.risk) * k / 20) - 1) for k in range(1, 21))
            out["risk_coverage"] = {
                "all": curve.random, "area": curve.area,
                "curve": [{"coverage": float(curve.coverage[i]), "risk": float(curve.risk[i]),
                           "threshold": float(curve.threshold[i])} for i in places],
            }  # fmt: skip
    p, label, session = graded_items(run, benchmark, labeler)
    if len(p):
        names, index = np.unique(session, return_inverse=True)
        members = [np.flatnonzero(index == g) for g in range(len(names))]
        own = draw_of(len(names), samples, seed)
        out["items"] = {"n": len(p)} | figures(
            lambda rows: items(p[chosen := np.concatenate([members[g] for g in rows])], label[chosen]),
            np.arange(len(names)), own, tail,
        ) | {"reliability": reliability(p, label)}  # fmt: skip
    if out["ranking"] is None and out["responses"] is None and out["items"] is None:
        raise RocketError(f"{benchmark.name}: {labeler!r} has labels of nothing that this run scored")
    return out


def draw_of(count: int, samples: int, seed: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed).integers(count, size=(samples, count))


def value(x: float | None) -> float:
    return float("nan") if x is None else x


def figures(
    statistics: Callable[[Any], dict[str, float]], all_rows: Any, draw: Any, tail: list[float]
) -> dict[str, Figure]:
    """Every statistic with the ends of its percentile interval over the samples that define it."""
    found = statistics(all_rows)
    drawn = [statistics(rows) for rows in draw]
    out: dict[str, Figure] = {}
    for key, x in found.items():
        column = np.asarray([d[key] for d in drawn], float)
        column = column[np.isfinite(column)]
        ends = np.percentile(column, tail).tolist() if len(column) > 1 else [None, None]
        out[key] = [float(x) if np.isfinite(x) else None, *ends]
    return out


def correlations(a: Float, b: Float, kendall: bool = True) -> dict[str, float]:
    """NaN where a side is constant: that is no order."""
    if len(a) < 2 or np.ptp(a) <= 1e-9 or np.ptp(b) <= 1e-9:
        return dict.fromkeys(("spearman", "kendall", "pearson"), float("nan"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return {
            "spearman": float(spearmanr(a, b).statistic),
            "kendall": float(kendalltau(a, b).statistic) if kendall else float("nan"),
            "pearson": float(pearsonr(a, b).statistic),
        }


def ranks(got_M: Float, want_M: Float) -> dict[str, float]:
    """Two rankings of the same models. `pairwise`: share of the pairs with different references ordered alike."""
    return {**correlations(got_M, want_M), "pairwise": pairwise(got_M[None], want_M[None])}


def responses(score_QM: Float, label_QM: Float) -> dict[str, float]:
    known = np.isfinite(score_QM) & np.isfinite(label_QM)
    a, b = score_QM[known], label_QM[known]
    if not len(a):
        return dict.fromkeys(("spearman", "pearson", "pairwise", "mae", "kappa", "quadratic_kappa", "alpha", "icc"),
                             float("nan"))  # fmt: skip
    found = correlations(a, b, kendall=False)
    return {
        "spearman": found["spearman"], "pearson": found["pearson"], "pairwise": pairwise(score_QM, label_QM),
        "mae": float(np.abs(a - b).mean()), "kappa": kappa(np.rint(a), np.rint(b)),
        "quadratic_kappa": kappa(np.rint(a), np.rint(b), "quadratic"), "alpha": alpha(a, b), "icc": icc(a, b),
    }  # fmt: skip


def items(p: Float, label: Float) -> dict[str, float]:
    sided = label != 0.5
    yes, want = (p[sided] > 0.5).astype(float), (label[sided] > 0.5).astype(float)
    return {
        "accuracy": accuracy(p, label), "auc": auc(p, label), "kappa": kappa(yes, want), "alpha": alpha(yes, want),
        "brier": brier(p, label), "ece": ece(p, label),
    }  # fmt: skip


def graded_items(run: Run, benchmark: Benchmark, labeler: str) -> tuple[Float, Float, npt.NDArray[np.str_]]:
    """p(yes), label and session of every graded item that the labeler judged."""
    rows: list[tuple[float, float, str]] = []
    given = benchmark.labels[labeler]
    table = run.grades.select(["session_id", "model", "item", "p_yes", "status"])
    for session, model, item, p, status in zip(*(c.to_pylist() for c in table.columns), strict=True):
        label = given.get(model, {}).get(session)
        if status == OK and label is not None and label.items is not None and label.items[item] is not None:
            rows.append((p, label.items[item] or 0.0, session))
    return (
        np.asarray([r[0] for r in rows], float),
        np.asarray([r[1] for r in rows], float),
        np.asarray([r[2] for r in rows], str),
    )
