"""Rankings, their intervals, and agreement: against scipy, scikit-learn, brute force, and simulated truth."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pytest
from fakes import random_bench
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import kendalltau, pearsonr, spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import cohen_kappa_score

from rocketjax.bench import Label
from rocketjax.errors import RocketError
from rocketjax.grade import Run, record
from rocketjax.rank import agree, compare_runs, rank_models, read_ratings, resampled
from rocketjax.rank.agreement import ranks
from rocketjax.rank.bootstrap import bootstrap, drawn_queries, interval, value_of
from rocketjax.rank.groups import holm, letters
from rocketjax.rank.metrics import accuracy, alpha, auc, brier, ece, icc, kappa, reliability
from rocketjax.rank.scored import Scored
from rocketjax.rank.strength import fit_means, fit_strengths, games
from rocketjax.reweight import SCORES, score
from rocketjax.reweight.agree import pairwise


def table_of(score_QM, error_QM=None, used_QM=None) -> Scored:
    Q, M = score_QM.shape
    return Scored(
        tuple(f"s{q:03d}" for q in range(Q)), tuple(f"m{m}" for m in range(M)), np.asarray(score_QM, float),
        np.full((Q, M), np.nan) if error_QM is None else error_QM,
        np.ones((Q, M), bool) if used_QM is None else used_QM, 0, {"labeler": "me"},
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["complete", "missing", "covariate", "all"])
def test_means_are_least_squares_on_dummy_variables(kind):
    rng = np.random.default_rng(3)
    Q, M = 12, 4
    score_QM, x_QM = rng.normal(size=(Q, M)), rng.normal(size=(Q, M))
    used_QM = rng.random((Q, M)) < 0.7 if kind in ("missing", "all") else np.ones((Q, M), bool)
    used_QM[0] = True
    with_x = kind in ("covariate", "all")
    with jax.enable_x64(True):
        got = fit_means(jnp.asarray(score_QM), jnp.asarray(used_QM, float), jnp.asarray(x_QM) if with_x else None)
    rows = [(q, m) for q in range(Q) for m in range(M) if used_QM[q, m]]
    design = np.zeros((len(rows), Q + M + 1))
    for n, (q, m) in enumerate(rows):
        design[n, [q, Q + m]] = 1
        design[n, -1] = x_QM[q, m] if with_x else 0
    beta = np.linalg.lstsq(design, [score_QM[q, m] for q, m in rows], rcond=None)[0]
    there_Q = used_QM.any(axis=1)
    middle = x_QM[used_QM].mean()
    expected = beta[Q : Q + M] + (there_Q @ beta[:Q]) / there_Q.sum() + beta[-1] * middle
    np.testing.assert_allclose(got.value_M, expected, atol=1e-10)
    np.testing.assert_allclose(float(got.slope), beta[-1], atol=1e-10)
    if kind == "complete":
        np.testing.assert_allclose(got.value_M, score_QM.mean(axis=0), atol=1e-12)


def counts_of(rng, M=5, games_=40, tie=0.2):
    strength = rng.normal(size=M)
    win, tied = np.zeros((M, M)), np.zeros((M, M))
    for a, b in itertools.combinations(range(M), 2):
        for _ in range(games_):
            if rng.random() < tie:
                tied[a, b] += 1
                tied[b, a] += 1
            elif rng.random() < 1 / (1 + np.exp(strength[b] - strength[a])):
                win[a, b] += 1
            else:
                win[b, a] += 1
    return win, tied


@pytest.mark.parametrize("seed", range(3))
def test_bradley_terry_is_logistic_regression(seed):
    """A tie as half a win, as public leaderboards fit it: scikit-learn on one row per game."""
    win, tied = counts_of(np.random.default_rng(seed))
    M = len(win)
    rows, label, weight = [], [], []
    for a, b in itertools.permutations(range(M), 2):
        row = np.zeros(M)
        row[a], row[b] = 1, -1
        for y, n in ((1, win[a, b] + tied[a, b] / 2),):
            rows.append(row)
            label.append(y)
            weight.append(n)
            rows.append(-row)
            label.append(1 - y)
            weight.append(n)
    fitted = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-12, max_iter=10_000).fit(
        rows, label, sample_weight=weight
    )
    expected = fitted.coef_[0] - fitted.coef_[0].mean()
    with jax.enable_x64(True):
        got = fit_strengths(jnp.asarray(win), jnp.asarray(tied), "half")
    np.testing.assert_allclose(got.theta_M, expected, atol=2e-5)
    assert float(got.tie) == 0 and bool(got.connected_M.all())


@pytest.mark.parametrize("seed", range(3))
def test_davidsons_ties_are_the_maximum_of_its_likelihood(seed):
    win, tied = counts_of(np.random.default_rng(10 + seed))
    M = len(win)

    def loss(x):
        s, nu, total = np.exp(x[:M]), np.exp(x[M]), 0.0
        for a, b in itertools.combinations(range(M), 2):
            whole = s[a] + s[b] + nu * np.sqrt(s[a] * s[b])
            total -= win[a, b] * np.log(s[a] / whole) + win[b, a] * np.log(s[b] / whole)
            total -= tied[a, b] * np.log(nu * np.sqrt(s[a] * s[b]) / whole)
        return total

    found = minimize(loss, np.zeros(M + 1), method="BFGS", options={"gtol": 1e-8})
    with jax.enable_x64(True):
        got = fit_strengths(jnp.asarray(win), jnp.asarray(tied), "davidson")
    np.testing.assert_allclose(got.theta_M, found.x[:M] - found.x[:M].mean(), atol=1e-4)
    assert float(got.tie) == pytest.approx(np.exp(found.x[M]), rel=1e-4)


def test_separation_is_found_and_not_reported_as_a_number():
    win = np.asarray([[0, 9, 9, 9], [0, 0, 5, 9], [0, 4, 0, 9], [0, 0, 0, 0]], float)
    with jax.enable_x64(True):
        got = fit_strengths(jnp.asarray(win), jnp.zeros((4, 4)), "davidson")
        alone = fit_strengths(jnp.zeros((4, 4)), jnp.zeros((4, 4)), "davidson")
    assert np.isposinf(got.theta_M[0]) and np.isneginf(got.theta_M[3])
    np.testing.assert_allclose(got.theta_M[1:3], [np.log(5 / 4) / 2, -np.log(5 / 4) / 2], atol=1e-8)
    assert np.isnan(np.asarray(alone.theta_M)).sum() == 3, "nothing compares them"


def test_games_count_wins_and_ties_within_the_margin():
    with jax.enable_x64(True):
        score = jnp.asarray([[1.0, 1.25, 3.0], [2.0, 2.0, 2.5]])
        win, tie = (np.asarray(g) for g in games(score, jnp.asarray([[1.0, 1, 1], [1, 1, 0]]), 0.25))
    assert win.sum() == 2 and win[0, 2, 0] == win[0, 2, 1] == 1
    assert tie.sum() == 4 and tie[0, 0, 1] == tie[0, 1, 0] == tie[1, 0, 1] == tie[1, 1, 0] == 1


def test_games_of_uncertain_scores_are_the_mean_of_games_of_their_draws():
    rng = np.random.default_rng(0)
    score, error = rng.normal(size=(4, 3)), rng.uniform(0.2, 1, size=(4, 3))
    used = np.asarray([[1, 1, 1], [1, 1, 1], [1, 0, 1], [1, 1, 1]], float)
    with jax.enable_x64(True):
        win, tie = (np.asarray(g) for g in games(score, used, 0.3, error))
        draws = score + error * rng.normal(size=(4000, *score.shape))
        drawn = jax.vmap(lambda s: games(s, used, 0.3))(draws)
        for got, part in ((win, drawn.win_QMM), (tie, drawn.tie_QMM)):
            np.testing.assert_allclose(got, part.mean(axis=0), atol=0.04)
    assert (win[2, 1] == 0).all() and np.allclose(win + win.swapaxes(1, 2) + tie, np.where(win + tie > 0, 1, 0))


def test_the_bootstrap_has_the_variance_of_theory_and_errors_join_it():
    rng = np.random.default_rng(0)
    table = table_of(rng.normal(size=(50, 3)))
    drawn = bootstrap(table, "mean", "half", 0.0, None, 4000, 1).value_SM
    np.testing.assert_allclose(drawn.std(axis=0), table.score_QM.std(axis=0) / np.sqrt(50), rtol=0.05)
    pair = drawn[:, 0] - drawn[:, 1]
    np.testing.assert_allclose(pair.std(), (table.score_QM[:, 0] - table.score_QM[:, 1]).std() / np.sqrt(50), rtol=0.05)
    noisy = table_of(table.score_QM, np.full((50, 3), 2.0))
    more = bootstrap(noisy, "mean", "half", 0.0, None, 4000, 1).value_SM
    expected = np.sqrt(table.score_QM.var(axis=0) / 50 + 2.0**2 / 50)
    np.testing.assert_allclose(more.std(axis=0), expected, rtol=0.05)
    same = bootstrap(table, "mean", "half", 0.0, None, 4000, 1).value_SM
    np.testing.assert_array_equal(drawn, same)


def coverage(method, Q, M, draws, truth_M, sample, levels=(0.95,)):
    inside, pairs = [], []
    rng = np.random.default_rng(0)
    for n in range(draws):
        table = table_of(sample(rng, Q, M))
        drawn = bootstrap(table, method, "half", 0.0, None, 400, n).value_SM
        low, high = interval(drawn, levels[0], Q)
        inside.append((low <= truth_M) & (truth_M <= high))
        low, high = interval(drawn[:, 0] - drawn[:, 1], levels[0], Q)
        pairs.append(low <= truth_M[0] - truth_M[1] <= high)
    return np.mean(inside), np.mean(pairs)


def grades_like(rng, Q, M):
    """Scores from 1 to 10 with a hard and an easy half, one level per query and skewed errors."""
    query = rng.normal(size=(Q, 1))
    return 5.5 + query + np.linspace(0.3, -0.3, M) + rng.gumbel(size=(Q, M)) - np.euler_gamma


def test_intervals_of_means_cover_the_truth_as_often_as_they_say():
    truth = 5.5 + np.linspace(0.3, -0.3, 3)
    single, pair = coverage("mean", 40, 3, 1200, truth, grades_like)
    assert abs(single - 0.95) < 0.02 and abs(pair - 0.95) < 0.02, (single, pair)


@pytest.mark.slow
def test_intervals_of_ratings_cover_the_truth_as_often_as_they_say():
    big = table_of(grades_like(np.random.default_rng(9), 200_000, 3))
    truth, _ = value_of(big, "bradley-terry", "half", 0.0, None)
    single, pair = coverage("bradley-terry", 60, 3, 1200, truth, grades_like)
    assert abs(single - 0.95) < 0.02 and abs(pair - 0.95) < 0.02, (single, pair)


def test_intervals_with_infinite_samples_are_unbounded():
    value_S = np.concatenate([np.full(100, np.inf), np.zeros(900)])
    low, high = interval(value_S, 0.95, 50)
    assert low == 0 and np.isposinf(high)
    low, high = interval(np.full(1000, np.nan), 0.95, 50)
    assert np.isneginf(low) and np.isposinf(high)
    assert np.isnan(interval(value_S, 0.95, 1)).all()


def test_holm_rejects_as_its_sequential_definition():
    rng = np.random.default_rng(0)
    for _ in range(50):
        p = rng.random(6) ** 4
        adjusted = holm(p)
        for level in (0.01, 0.05, 0.3):
            rejected = set()
            for k, i in enumerate(np.argsort(p)):
                if p[i] > level / (6 - k):
                    break
                rejected.add(int(i))
            assert set(np.flatnonzero(adjusted <= level)) == rejected
    assert np.isnan(holm(np.asarray([np.nan, 0.02])))[0] and holm(np.asarray([np.nan, 0.02]))[1] == 0.02


@given(st.integers(1, 7), st.integers(0, 2**21 - 1))
@settings(max_examples=150, deadline=None)
def test_models_share_a_letter_exactly_if_they_do_not_differ(M, bits):
    differs = np.zeros((M, M), bool)
    for n, (a, b) in enumerate(itertools.combinations(range(M), 2)):
        differs[a, b] = differs[b, a] = bits >> n & 1
    found = letters(differs)
    assert all(found)
    for a, b in itertools.combinations(range(M), 2):
        assert bool(set(found[a]) & set(found[b])) != differs[a, b]


def test_kappa_alpha_and_icc():
    krippendorff = pytest.importorskip("krippendorff")
    rng = np.random.default_rng(0)
    a = rng.integers(1, 6, 200).astype(float)
    b = np.clip(a + rng.integers(-1, 3, 200), 1, 7)
    assert kappa(a, b) == pytest.approx(cohen_kappa_score(a, b))
    assert kappa(a, b, "quadratic") == pytest.approx(cohen_kappa_score(a, b, weights="quadratic"))
    x, y = rng.normal(size=50), rng.normal(size=50) + 1
    assert alpha(x, y) == pytest.approx(krippendorff.alpha([x, y], level_of_measurement="interval"))
    u, v = (rng.integers(0, 2, 60).astype(float) for _ in range(2))
    assert alpha(u, v) == pytest.approx(krippendorff.alpha([u, v], level_of_measurement="nominal"))
    # The same by covariances: ICC(A,1) = 2 s_ab / (s_aa + s_bb + d^2 - s_dd / n).
    c, d = np.cov(x, y), x - y
    assert icc(x, y) == pytest.approx(2 * c[0, 1] / (c[0, 0] + c[1, 1] + d.mean() ** 2 - d.var(ddof=1) / 50))
    assert icc(x, x) == pytest.approx(1) and alpha(x, x) == 1 and kappa(a, a) == 1
    assert np.isnan([icc(x[:1], y[:1]), alpha(a * 0, a * 0), kappa(a * 0, a * 0)]).all()


def test_the_reliability_curve_is_what_ece_sums():
    rng = np.random.default_rng(0)
    p, label = rng.random(500), rng.integers(0, 2, 500).astype(float)
    rows = reliability(p, label)
    assert sum(r["n"] for r in rows) == 500
    assert sum(r["n"] / 500 * abs(r["mean_p"] - r["share_yes"]) for r in rows) == pytest.approx(ece(p, label))


def test_samples_at_once_are_the_measures_of_each_sample_alone():
    """Against the plain measures and scipy on the arrays that each sample stands for."""
    rng = np.random.default_rng(1)
    score = np.round(rng.normal(5, 2, size=(15, 4)), 1)
    label = np.round(score + rng.normal(1, 1, size=score.shape))
    score[rng.random(score.shape) < 0.2] = np.nan
    label[3] = np.nan
    draw = drawn_queries(15, 20, 5)
    times = np.stack([np.ones(15), *(np.bincount(q, minlength=15) for q in draw)]).astype(float)
    got = resampled.responses(score, label)(times)
    for s, rows in enumerate([np.arange(15), *draw]):
        x, y = score[rows], label[rows]
        both = np.isfinite(x) & np.isfinite(y)
        a, b = x[both], y[both]
        want = {
            "spearman": spearmanr(a, b).statistic, "pearson": pearsonr(a, b).statistic, "pairwise": pairwise(x, y),
            "mae": np.abs(a - b).mean(), "kappa": kappa(np.rint(a), np.rint(b)),
            "quadratic_kappa": kappa(np.rint(a), np.rint(b), "quadratic"), "alpha": alpha(a, b), "icc": icc(a, b),
        }  # fmt: skip
        assert {k: v[s] for k, v in got.items()} == pytest.approx(want, abs=1e-9)

    p, q = np.round(rng.random(90), 2), rng.integers(0, 15, 90)
    truth = rng.choice([0.0, 0.25, 0.5, 1.0], 90, p=[0.4, 0.1, 0.1, 0.4])
    got = resampled.items(p, truth, q, 15)(times)
    for s, rows in enumerate([np.arange(15), *draw]):
        on = np.concatenate([np.flatnonzero(q == r) for r in rows])
        a, b = p[on], truth[on]
        sides = [(z[b != 0.5] > 0.5) * 1.0 for z in (a, b)]
        want = {"accuracy": accuracy(a, b), "auc": auc(a, b), "kappa": kappa(*sides), "alpha": alpha(*sides),
                "brier": brier(a, b), "ece": ece(a, b)}  # fmt: skip
        assert {k: v[s] for k, v in got.items()} == pytest.approx(want, abs=1e-9)

    values, labels = rng.integers(0, 4, (2, 30, 6)).astype(float)
    got = resampled.orders(values, labels)
    for s, (a, b) in enumerate(zip(values, labels, strict=True)):
        want = {"spearman": spearmanr(a, b).statistic, "kendall": kendalltau(a, b).statistic,
                "pearson": pearsonr(a, b).statistic, "pairwise": pairwise(a[None], b[None])}  # fmt: skip
        assert {k: v[s] for k, v in got.items()} == pytest.approx(want, abs=1e-9)


def test_what_says_nothing_is_nan_at_once_too():
    same = np.full((3, 2), 7.3)
    got = resampled.responses(same, same)(np.asarray([[1.0, 1, 1], [0, 0, 0]]))
    assert got["mae"][0] == 0
    for key in ("spearman", "pearson", "pairwise", "kappa", "quadratic_kappa", "alpha", "icc"):
        assert np.isnan(got[key]).all(), key
    got = resampled.items(np.asarray([0.2, 0.9]), np.asarray([0.5, 0.5]), np.asarray([0, 1]), 2)(np.ones((1, 2)))
    assert got["brier"][0] == pytest.approx(0.125)
    assert all(np.isnan(got[key]).all() for key in ("accuracy", "auc", "kappa", "alpha"))
    order = ranks(np.asarray([[np.inf, 1.0, -np.inf], [np.nan, 1.0, 2.0], [np.nan] * 3]), np.asarray([[3.0, 2.0, 1.0]]))
    assert order["spearman"][0] == 1 and np.isnan(order["pearson"][0]), "infinite ratings are an order, no line"
    assert order["kendall"][1] == -1 and np.isnan([x[2] for x in order.values()]).all()


@pytest.mark.parametrize("with_errors", [False, True])
def test_samples_of_ratings_are_the_fits_of_their_queries(with_errors):
    """Wins counted once and summed are those of the drawn queries; the queries are those that `drawn_queries` says."""
    rng = np.random.default_rng(4)
    table = table_of(rng.normal(size=(25, 3)), rng.uniform(0.1, 0.5, (25, 3)) if with_errors else None)
    assert table.errors_join == with_errors
    drawn = bootstrap(table, "bradley-terry", "davidson", 0.2, None, 5, 11, errors=False).value_SM
    for value, q in zip(drawn, drawn_queries(25, 5, 11), strict=True):
        part = table_of(table.score_QM[q], table.error_QM[q])
        np.testing.assert_allclose(value, value_of(part, "bradley-terry", "davidson", 0.2, None)[0], atol=1e-8)


# -- runs --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path):
    """Recorded judgments of four models, the later the better; model-3 answers at length."""
    bench = random_bench(queries=12, models=4, seed=5)
    rng = np.random.default_rng(0)
    lines = []
    for m, model in enumerate(bench.models):
        for s, checklist in bench.checklists.items():
            p = np.clip(0.3 + 0.1 * m + 0.15 * rng.normal(size=len(checklist.items)), 0, 1)
            lines.append({"session_id": s, "model_test": model, "norm_probability": p.tolist()})
    file = tmp_path / "judgments.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    made = record(bench, file, tmp_path / "run")
    score(made)
    labels = {
        m: {s: Label(s, m, "me", float(2 * i + 1 + k % 2), None) for k, s in enumerate(bench.checklists)}
        for i, m in enumerate(bench.models)
    }
    bench = type(bench)(
        **{f: getattr(bench, f) for f in bench.__struct_fields__ if f != "labels"}, labels={"me": labels}
    )
    return made, bench


def test_a_ranking_says_how_sure_it_is(run):
    made, _ = run
    ranking = rank_models(made, samples=400)
    assert json.loads((made.path / "ranking.json").read_text()) == json.loads(json.dumps(ranking.as_dict()))
    assert made.ranking["models"] == list(ranking)
    for row in ranking:
        own = [r["score"] for r in made.scores.to_pylist() if r["model"] == row["model"]]
        assert row["score"] == pytest.approx(np.mean(own)) and row["low"] < row["score"] < row["high"]
        assert row["rank_low"] <= row["rank"] <= row["rank_high"]
        assert row["standard_error"] == pytest.approx(np.std(own) / np.sqrt(12), rel=0.15)
        assert row["wins"] + row["ties"] + row["losses"] == 36 and row["group"]
    assert [row["model"] for row in ranking] == ["model-3", "model-2", "model-1", "model-0"]
    assert len(ranking.pairs) == 6 and all(p["difference"] >= 0 for p in ranking.pairs)
    top = ranking.pairs[0]
    assert top["p"] <= top["p_adjusted"] and top["wins"] + top["ties"] + top["losses"] == 12
    again = rank_models(made, samples=400)
    assert list(again) == list(ranking) and again.pairs == ranking.pairs
    assert list(rank_models(made, samples=400, seed=1)) != list(ranking)
    bare = rank_models(made, samples=0)
    assert bare.interval is None and bare[0]["low"] is None and "bootstrap" not in str(bare)
    assert "95% intervals" in str(ranking) and "Holm" in str(ranking)


def test_ratings_and_length_control(run):
    made, bench = run
    rated = rank_models(made, method="bradley-terry", margin=0.2, samples=200)
    assert np.mean([r["score"] for r in rated]) == pytest.approx(1000) and rated.ties["games"] > 0
    assert [r["model"] for r in rated] == ["model-3", "model-2", "model-1", "model-0"]
    for options, message in (
        (dict(margin=0.5), "which --method bradley-terry counts"),
        (dict(method="bradley-terry", lengths=bench), "length control is for --method mean"),
        (dict(samples=10), "take 100 or more, or 0"),
        (dict(level=1.0), "between 0 and 1"),
        (dict(margin=-1.0), "0 or more"),
    ):
        with pytest.raises(RocketError, match=message):
            rank_models(made, **options)
    # Scores that are nothing but quality and length: both come out exactly.
    rows = made.scores.to_pylist()
    quality = {m: i / 2 for i, m in enumerate(bench.models)}
    for row in rows:
        length = np.log2(1 + len(bench.responses[row["model"]][row["session_id"]].text))
        row["score"] = quality[row["model"]] + 0.7 * length
    table = pa.Table.from_pylist(rows, schema=SCORES.with_metadata(made.scores.schema.metadata))
    pa.parquet.write_table(table, made.path / "scores.parquet")
    controlled = rank_models(made, lengths=bench, samples=200)
    assert controlled.length_effect["value"] == pytest.approx(0.7)
    value = {r["model"]: r["score"] for r in controlled}
    assert value["model-3"] - value["model-0"] == pytest.approx(1.5)
    assert "twice the length is worth +0.700" in str(controlled)


def test_a_model_that_never_lost_is_told_apart(run):
    made, _ = run
    rows = made.scores.to_pylist()
    for row in rows:
        row["score"] = 10.0 if row["model"] == "model-0" else row["score"]
    table = pa.Table.from_pylist(rows, schema=SCORES.with_metadata(made.scores.schema.metadata))
    pa.parquet.write_table(table, made.path / "scores.parquet")
    rated = rank_models(made, method="bradley-terry", samples=200)
    best = rated[0]
    assert best["model"] == "model-0" and best["score"] is None and best["high"] is None and best["rank"] == 1
    assert rated.separated == [{"model": "model-0", "why": "it and its like never lost to the others"}]
    assert "never lost to the others" in str(rated)
    assert np.mean([r["score"] for r in rated[1:]]) == pytest.approx(1000)
    json.dumps(rated.as_dict(), allow_nan=False)


def test_agreement_with_labels_and_ratings(run, tmp_path):
    made, bench = run
    found = agree(made, bench, "me", samples=100)
    json.dumps(found, allow_nan=False)
    assert found["ranking"]["spearman"][0] == 1 and found["models"] == 4
    scores = {(r["session_id"], r["model"]): r["score"] for r in made.scores.to_pylist()}
    pairs = [(x, bench.labels["me"][m][s].score) for (s, m), x in scores.items()]
    from scipy.stats import pearsonr

    assert found["responses"]["pearson"][0] == pytest.approx(pearsonr(*zip(*pairs, strict=True)).statistic)
    assert found["responses"]["mae"][0] == pytest.approx(np.mean([abs(a - b) for a, b in pairs]))
    low, high = found["responses"]["pearson"][1:]
    assert low < found["responses"]["pearson"][0] < high
    elo = tmp_path / "elo.csv"
    elo.write_text("model,rating\nmodel-0,900\nmodel-1,1000\nmodel-3,1100\n")
    rated = agree(made, ratings=read_ratings(elo), name="elo", samples=50)
    assert rated["models"] == 3 and rated["without_rating"] == ["model-2"] and rated["ranking"]["kendall"][0] == 1
    with pytest.raises(RocketError, match="has no labels by 'you'; labelers: me"):
        agree(made, bench, "you")
    with pytest.raises(RocketError, match="only 0 of the run's models have a rating"):
        agree(made, ratings={"x": 1.0})
    for text, message in (
        ("", "is empty"),
        ("model,rating\na,\n", "entry 1 has no rating"),
        ("model,rating\na,x\n", "'x' of 'a' is not a number"),
        ("model,rating\na,1\na,2\n", "'a' is there twice"),
        ('[{"rating": 1}]', "entry 1 has no model"),
        ("{", "is no JSON"),
    ):
        elo.write_text(text)
        with pytest.raises(RocketError, match=message):
            read_ratings(elo)
    elo.write_text('[{"name": "a", "elo": 3}]')
    assert read_ratings(elo) == {"a": 3.0}
    elo.write_text('{"rating_system": "bt", "ratings": {"a": {"rating": 3, "num_battles": 1}}}')
    assert read_ratings(elo) == {"a": 3.0}


def test_agreement_is_that_of_the_ranking(run):
    """The values compared are the ranking's own: ratings, or means as if all were equally long; intervals too."""
    made, bench = run
    elo = {m: 1000.0 + i**2 for i, m in enumerate(bench.models)}
    for options, how in ((dict(method="bradley-terry", margin=0.3), {}), (dict(lengths=bench), {"benchmark": bench})):
        ranking = rank_models(made, samples=100, **options)
        value = {r["model"]: r["score"] for r in ranking}
        for made_so in (ranking, ranking.as_dict(), None):
            found = agree(made, **how, ratings=elo, samples=100, ranking=made_so)
            want = pearsonr([value[m] for m in elo], list(elo.values())).statistic
            assert found["ranking"]["pearson"][0] == pytest.approx(want)
            assert found["method"] == ranking.method and found["length_controlled"] == ranking.length_controlled
        labelled = agree(made, bench, "me", samples=100)
        label = [np.mean([x.score for x in bench.labels["me"][m].values()]) for m in elo]
        want = pearsonr([value[m] for m in elo], label).statistic
        assert labelled["ranking"]["pearson"][0] == pytest.approx(want)
        assert labelled["ranking"]["pearson"][1] < want < labelled["ranking"]["pearson"][2]
    with pytest.raises(RocketError, match="give the benchmark"):
        agree(made, ratings=elo)
    plain = agree(made, ratings=elo, samples=100, ranking={})
    assert plain["method"] == "mean" and plain["ranking"] != found["ranking"]
    with pytest.raises(RocketError, match="between 0 and 1"):
        agree(made, ratings=elo, level=1.5, ranking={})


def test_runs_whose_common_scores_do_not_connect_are_refused(run):
    """What one run leaves out may leave the other's models without a common query."""
    made, _ = run
    rows = made.scores.to_pylist()
    half = {r["session_id"] for r in rows[: len(rows) // 2]}
    for row in rows:  # in the first half all abstain but one
        row["abstained"] = row["session_id"] in half and row["model"] != "model-0"
    schema = SCORES.with_metadata(made.scores.schema.metadata)
    pa.parquet.write_table(pa.Table.from_pylist(rows, schema=schema), made.path / "scores.parquet")
    other = Run(made.path.parent / "other", made.meta)
    other.path.mkdir()
    for row in rows:
        row["abstained"], row["score"] = False, row["score"] if row["session_id"] in half else None
    pa.parquet.write_table(pa.Table.from_pylist(rows, schema=schema), other.path / "scores.parquet")
    with pytest.raises(RocketError, match="do not connect all models"):
        compare_runs(made, other, samples=100)


def test_two_runs_side_by_side(run, tmp_path):
    made, bench = run
    table = made.scores
    found = compare_runs(made, made, "mean", "label-free", bench, "me", samples=200)
    json.dumps(found, allow_nan=False)
    assert made.scores.equals(table), "comparing writes nothing"
    free = {(r["session_id"], r["model"]): r["score"] for r in score(made, "label-free", write=False).to_pylist()}
    for row in found["models"]:
        assert row["b"] == pytest.approx(np.mean([v for (_, m), v in free.items() if m == row["model"]]))
        assert (
            row["difference"] == pytest.approx(row["b"] - row["a"]) and row["low"] <= row["difference"] <= row["high"]
        )
    assert found["items"] is None and found["labels"]["pairwise"]["change"][0] == pytest.approx(
        found["labels"]["pairwise"]["b"][0] - found["labels"]["pairwise"]["a"][0]
    )
    same = compare_runs(made, made, "mean", "mean", samples=100)
    assert all(r["difference"] == 0 and r["p"] == 1 for r in same["models"])
    lines = [json.loads(line) for line in (tmp_path / "judgments.jsonl").read_text().splitlines()]
    lines[0]["norm_probability"][0] = 0.999
    (tmp_path / "other.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    other = record(bench, tmp_path / "other.jsonl", tmp_path / "other")
    score(other)
    moved = compare_runs(made, other, samples=100)
    assert moved["items"]["most"][0]["b"] == pytest.approx(0.999) and moved["items"]["n"] == other.grades.num_rows
    assert sum(abs(r["difference"]) > 1e-9 for r in moved["models"]) == 1
    assert any("judgments_sha256" in line for line in moved["settings"])
    assert isinstance(Run.open(made.path).ranking if (made.path / "ranking.json").exists() else {}, dict)
