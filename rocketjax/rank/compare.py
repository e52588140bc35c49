"""Two judges, heads or versions side by side: what moved, and whether it may be chance.

Axes: S samples, Q queries, M models.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from rocketjax.bench import Benchmark
from rocketjax.errors import RocketError
from rocketjax.grade import OK, Run
from rocketjax.grade.run import differences
from rocketjax.rank.agreement import ranking_figures, ranks
from rocketjax.rank.bootstrap import bootstrap, drawn_queries, interval, value_of
from rocketjax.rank.groups import holm
from rocketjax.rank.ranking import check_connected, number, p_value
from rocketjax.rank.resampled import Columns, figures, responses
from rocketjax.rank.scored import Float, Scored, scored, subset
from rocketjax.reweight import Head, labels_of, score, shares_levels

MOVED = 10  # items that moved most, in the answer
SETTINGS = ("judge", "prompt", "versions")
WEIGHTS = "item_weights"  # in what scores say of themselves


def compare_runs(
    a: Run,
    b: Run,
    head_a: str | Path | Head | None = None,
    head_b: str | Path | Head | None = None,
    benchmark: Benchmark | None = None,
    labeler: str | None = None,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """What differs between the scores of two runs, or of one run by two heads, over the queries and models they share.

    A run is compared as it is scored, or as `head` scores it, and neither is written to. Per model: both values, their
    difference b - a with its interval and p (bootstrap of the queries, the same ones in both; Holm's correction over
    the models), both ranks. `responses`: agreement of b's scores with a's. `labels`: agreement with a labeler for each,
    and its change. `items`, where both graded the same checklists: how far p(yes) moved, and where most. `settings`:
    what was set otherwise, the items' own weights included where scores were made by them. Differences of scores mean
    little where the heads' scales differ, which `scales` tells. Raises RocketError where they share no two models or no
    query.
    """
    tables = [run.scores if head is None else score(run, head, write=False) for run, head in ((a, head_a), (b, head_b))]
    one, two = (scored(run, t) for run, t in zip((a, b), tables, strict=True))
    of_two, models_of_two = set(two.sessions), set(two.models)
    sessions = [s for s in one.sessions if s in of_two]
    models = [m for m in one.models if m in models_of_two]
    if not sessions or len(models) < 2:
        raise RocketError(f"{a.path} and {b.path} share {len(sessions)} scored queries and {len(models)} models; "
                          "to compare takes a query and two models")  # fmt: skip
    one, two = (subset(t, sessions, models) for t in (one, two))
    for run, t in ((a, one), (b, two)):
        check_connected(run, t)
    values = [value_of(t, "mean", "half", 0.0, None)[0] for t in (one, two)]
    first, second = (
        bootstrap(t, "mean", "half", 0.0, None, samples, seed, stream).value_SM for stream, t in enumerate((one, two))
    )
    # The rankings as they are, on the same samples: without the scores' errors.
    alone = [
        np.concatenate([v[None], bootstrap(t, "mean", "half", 0.0, None, samples, seed, errors=False).value_SM])
        for v, t in zip(values, (one, two), strict=True)
    ]
    n = len(sessions)
    d_M, d_SM = values[1] - values[0], second - first
    low_M, high_M = interval(d_SM, level, n)
    p_M = np.asarray([p_value(d_M[m], d_SM[:, m], n) for m in range(len(models))])
    adjusted_M = holm(p_M)
    places = [[int((v > v[m] + 1e-9).sum()) + 1 for m in range(len(models))] for v in values]
    rows = [
        {
            "model": model, "a": float(values[0][m]), "b": float(values[1][m]), "difference": float(d_M[m]),
            "low": number(low_M[m]), "high": number(high_M[m]), "p": number(p_M[m]),
            "p_adjusted": number(adjusted_M[m]), "rank_a": places[0][m], "rank_b": places[1][m],
        }
        for m, model in enumerate(models)
    ]  # fmt: skip
    rows.sort(key=lambda r: (r["rank_b"], r["model"]))
    got, want = (np.where(t.used_QM, t.score_QM, np.nan) for t in (two, one))
    draw, tail = drawn_queries(n, samples, seed), [100 * (1 - level) / 2, 100 * (1 + level) / 2]
    both = np.isfinite(got) & np.isfinite(want)
    out: dict[str, Any] = {
        "a": name(a, one), "b": name(b, two), "queries": n, "level": level, "samples": samples, "seed": seed,
        "scales": [t.about.get("scale") for t in (one, two)], "models": rows,
        "ranking": ranking_figures(alone[1], alone[0], tail),
        "responses": {"n": int(both.sum())} | figures(responses(got, want), n, draw, tail),
        "shared_levels": [shares_levels(t.about, labeler) for t in (one, two)],
        "labels": None, "items": moved_items(a, b),
        "settings": [line for key in SETTINGS for line in differences(
            {key: a.meta.get(key)}, {key: b.meta.get(key)})] + differences(
            {WEIGHTS: one.about.get(WEIGHTS)}, {WEIGHTS: two.about.get(WEIGHTS)}),
    }  # fmt: skip
    for key in ("kappa", "quadratic_kappa"):
        del out["responses"][key]  # whole points are a labeler's categories, not a judge's
    if labeler is not None:
        assert benchmark is not None, "a labeler belongs to a benchmark"
        out["labels"] = {"labeler": labeler} | with_labels(one, two, benchmark, labeler, draw, tail)
    return out


def name(run: Run, table: Scored) -> dict[str, Any]:
    about = table.about
    return {"run": str(run.path), "judge": run.meta["judge"]["origin"], "head": about.get("head"),
            "labeler": about.get("labeler")}  # fmt: skip


def with_labels(
    one: Scored, two: Scored, benchmark: Benchmark, labeler: str, draw: Any, tail: list[float]
) -> dict[str, Any]:
    """Agreement of each with the labels, and how much better b is, on the same samples of the queries."""
    labels = labels_of(benchmark, labeler)
    label_QM = np.asarray(
        [[np.nan if (x := labels.get(m, {}).get(s)) is None else x for m in one.models] for s in one.sessions], float
    )
    score_a, score_b = (np.where(t.used_QM, t.score_QM, np.nan) for t in (one, two))
    known = np.isfinite(score_a) & np.isfinite(score_b) & np.isfinite(label_QM)
    if not known.any():
        raise RocketError(f"{benchmark.name}: {labeler!r} has no label of what both runs scored")
    label_QM = np.where(known, label_QM, np.nan)
    models = known.any(axis=0)

    whole = known[:, models].all(axis=1)
    sides = [("a", score_a, responses(score_a, label_QM)), ("b", score_b, responses(score_b, label_QM))]

    def both(times_XQ: Float) -> Columns:
        found: Columns = {}
        for key, score_QM, measure in sides:
            ranking = ranks(*(means_of(x[:, models], whole, times_XQ) for x in (score_QM, label_QM)))
            single = measure(times_XQ)
            found |= {f"{key}.ranking_{k}": ranking[k] for k in ("spearman", "kendall")}
            found |= {f"{key}.{k}": single[k] for k in ("pairwise", "mae", "spearman")}
        return found | {f"change.{k[2:]}": found[f"b.{k[2:]}"] - found[k] for k in found if k.startswith("a.")}

    flat = figures(both, len(label_QM), draw, tail)
    out: dict[str, Any] = {"n": int(known.sum())}
    for key, figure in flat.items():
        side, what = key.split(".", 1)
        out.setdefault(what, {})[side] = figure
    return out


def means_of(x_QM: Float, whole_Q: npt.NDArray[np.bool_], times_XQ: Float) -> Float:
    """f64[X, M]: each model's mean over the queries that all models have, in each sample; NaN where there are none."""
    times = times_XQ[:, whole_Q]
    with np.errstate(invalid="ignore"):
        return np.asarray(times @ x_QM[whole_Q] / times.sum(axis=1, keepdims=True))


def moved_items(a: Run, b: Run) -> dict[str, Any] | None:
    """How far p(yes) of the same items moved; None where the checklists differ or the run is the same."""
    if a.path.resolve() == b.path.resolve():
        return None
    key = "questions_sha256"
    if a.meta["benchmark"].get(key) != b.meta["benchmark"].get(key):
        return None
    names = ["session_id", "model", "item", "p_yes", "status"]
    left, right = (run.grades.select(names).filter(pc.equal(run.grades["status"], OK)) for run in (a, b))
    joined = left.join(right, names[:3], join_type="inner", right_suffix="_b").sort_by(
        [(k, "ascending") for k in names[:3]]
    )
    if not joined.num_rows:
        return None
    p, q = (joined[c].to_numpy().astype(float) for c in ("p_yes", "p_yes_b"))
    move = np.abs(q - p)
    top = np.argsort(-move, kind="stable")[:MOVED]
    most = [{**{k: joined[k][int(i)].as_py() for k in names[:3]}, "a": float(p[i]), "b": float(q[i])} for i in top]
    return {
        "n": len(p), "mean_change": float(move.mean()), "largest": float(move.max()),
        "changed_sides": int(((p > 0.5) != (q > 0.5)).sum()), "most": most,
    }  # fmt: skip
