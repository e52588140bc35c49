"""How well a run agrees with people, or whoever stands in for them: a labeler's scores, or ratings of the models.

Axes: S samples, Q queries, M models.
"""

import csv
import io
import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rocketjax.bench import Benchmark
from rocketjax.errors import RocketError
from rocketjax.files import path_of, read_bytes
from rocketjax.grade import OK, Run
from rocketjax.rank.bootstrap import bootstrap, drawn_queries, value_of
from rocketjax.rank.metrics import reliability
from rocketjax.rank.ranking import DIGITS, Ranking
from rocketjax.rank.resampled import Columns, Figure, figure, figures, items, orders, responses
from rocketjax.rank.scored import Scored, log_lengths, scored, subset
from rocketjax.rank.strength import Method, Ties
from rocketjax.reweight import labels_of, risk_coverage, shares_levels

Float = npt.NDArray[np.float64]


def read_ratings(file: str | os.PathLike[str]) -> dict[str, float]:
    """Ratings of models: JSON ({"model": number}, alone or under `ratings`, or a list of objects with `model` or `name`
    and `rating`, `elo` or `score`), or a CSV with such columns. Raises RocketError with the file and the row."""
    path = path_of(file)
    try:
        text = read_bytes(path).decode("utf-8-sig")
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
        rows = list(csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True))
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
    ranking: Ranking | Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Agreement of a scored run with a labeler of the benchmark, or with ratings of the models (such as Elo).

    Every figure is [value, low, high], a percentile interval over `samples` bootstrap samples of the queries; None
    where it says nothing. `ranking`: of the models' values with the labels' means or the ratings; the values are those
    of `ranking`, or of the run's own ranking.json, or means where there is none: its method, over all models, and the
    queries that the labels have; `method` and `length_controlled` say so. `responses` (labelers that score): of single
    scores with labels; `kappa` and `quadratic_kappa` over values rounded to whole points. `items` (labelers that judge
    items): of p(yes) with the items' labels, the verdict being p above 0.5. `risk_coverage`: see
    `rocketjax.reweight.risk_coverage`, where scores have standard errors. `shared_levels`: whether the head took the
    queries' levels from these labels, which betters the figures of `responses` and `risk_coverage` a little. Raises
    RocketError where fewer than two models can be compared, or where a length-controlled ranking lacks the benchmark.
    """
    if (labeler is None) == (ratings is None):
        raise RocketError("name a labeler or give ratings, one of them")
    if not 0 < level < 1:
        raise RocketError(f"an interval's level is between 0 and 1, not {level}")
    table = scored(run)
    how = how_ranked(run, ranking)
    if how.lengths and benchmark is None:
        raise RocketError("the ranking is as if all responses were equally long, which needs them: give the benchmark")
    lengths = benchmark if how.lengths else None
    draw = drawn_queries(len(table.sessions), samples, seed)
    tail = [100 * (1 - level) / 2, 100 * (1 + level) / 2]
    out: dict[str, Any] = {
        "reference": name or labeler or "ratings", "kind": "labels" if ratings is None else "ratings",
        "level": level, "samples": samples, "seed": seed, "method": how.method, "length_controlled": how.lengths,
        "shared_levels": shares_levels(table.about, labeler),
        "responses": None, "items": None, "risk_coverage": None,
    }  # fmt: skip
    if ratings is not None:
        known = np.asarray([m in ratings for m in table.models])
        if known.sum() < 2:
            raise RocketError(f"only {int(known.sum())} of the run's models have a rating; the names must be equal: "
                              f"{', '.join(table.models[:5])}, ...")  # fmt: skip
        want_M = np.asarray([ratings.get(m, np.nan) for m in table.models])[known]
        out |= {"models": int(known.sum()), "without_rating": [m for m in table.models if m not in ratings]}
        out["ranking"] = ranking_figures(values(table, how, lengths, samples, seed)[:, known], want_M[None], tail)
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
        shared = np.isfinite(label_QM[:, models]).all(axis=1)
        if models.sum() >= 2 and shared.any():
            part = subset(table, [s for s, there in zip(table.sessions, shared, strict=True) if there], table.models)
            want_QM = label_QM[shared][:, models]
            drawn_SM = [want_QM[q].mean(axis=0) for q in drawn_queries(len(want_QM), samples, seed)]
            out |= {"models": int(models.sum()), "queries": int(shared.sum())}
            out["ranking"] = ranking_figures(
                values(part, how, lengths, samples, seed)[:, models], np.stack([want_QM.mean(axis=0), *drawn_SM]), tail
            )
        if known_QM.any():
            measure = responses(score_QM, label_QM)
            out["responses"] = {"n": int(known_QM.sum())} | figures(measure, len(score_QM), draw, tail)
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
        Q = len(names)
        found = figures(items(p, label, index, Q), Q, drawn_queries(Q, samples, seed), tail)
        out["items"] = {"n": len(p)} | found | {"reliability": reliability(p, label)}
    if out["ranking"] is None and out["responses"] is None and out["items"] is None:
        raise RocketError(f"{benchmark.name}: {labeler!r} has labels of nothing that this run scored")
    return out


class How(NamedTuple):
    """What a ranking's values are: see `rank_models`."""

    method: Method
    ties: Ties
    margin: float
    lengths: bool


def how_ranked(run: Run, ranking: Ranking | Mapping[str, Any] | None) -> How:
    """How a ranking was made, or the run's own; means where there is none."""
    about: Mapping[str, Any] = {}
    if isinstance(ranking, Ranking):
        about = ranking.as_dict()
    elif ranking is not None:
        about = ranking
    elif (run.path / "ranking.json").exists():
        about = run.ranking
    ties = about.get("ties") or {}
    return How(
        about.get("method", "mean"), ties.get("model", "davidson"), float(ties.get("margin", 0.0)),
        bool(about.get("length_controlled")),
    )  # fmt: skip


def values(table: Scored, how: How, lengths: Benchmark | None, samples: int, seed: int) -> Float:
    """f64[1 + S, M]: what the models are ranked by, on all queries and on those of each sample (`drawn_queries`).

    The scores are compared as they are: their own errors, which widen a ranking's intervals for what the truth may be,
    do not move them here.
    """
    x_QM = None if lengths is None else log_lengths(lengths, table)
    value_M, _ = value_of(table, how.method, how.ties, how.margin, x_QM)
    if not samples:
        return value_M[None]
    drawn = bootstrap(table, how.method, how.ties, how.margin, x_QM, samples, seed, errors=False)
    return np.concatenate([value_M[None], drawn.value_SM])


def value(x: float | None) -> float:
    return float("nan") if x is None else x


def ranks(got_XM: Float, want_XM: Float) -> Columns:
    """Rankings of the same models, the first by all queries and the others by samples: see `resampled.orders`.

    Values that agree to `DIGITS` decimals are tied, as in a ranking, and those that are not known stand last."""
    got, want = (np.round(x, DIGITS) for x in (got_XM, want_XM))
    found = orders(np.where(np.isnan(got), -np.inf, got), np.broadcast_to(want, got.shape))
    lost_X = np.isnan(got).all(axis=1)
    return {key: np.where(lost_X, np.nan, x) for key, x in found.items()}


def ranking_figures(got_XM: Float, want_XM: Float, tail: list[float]) -> dict[str, Figure]:
    """The same as figures: the first row's values with the ends of their intervals over the other rows."""
    found = ranks(got_XM, want_XM)
    return {key: figure(float(x[0]), [x[1:]], tail) for key, x in found.items()}


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
