"""Heads against brute force, planted truth and the reference's own outputs; nothing is imputed, nothing leaks."""

import gzip
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fakes import random_bench, tiny_judge
from scipy.optimize import lsq_linear, minimize
from scipy.stats import spearmanr

from rocketjax.bench import Message, load_benchmark
from rocketjax.errors import RocketError
from rocketjax.grade import OK, Run, item_features, record
from rocketjax.rank import compare_runs, rank_models
from rocketjax.report.collect import collect
from rocketjax.report.details import facts
from rocketjax.reweight import (
    about_scores,
    agreement,
    ask,
    compare,
    descent,
    expected_variance,
    features_of,
    find_head,
    fit_head,
    fit_panel,
    item_table,
    labels_of,
    linear,
    load_head,
    make_panel,
    panel,
    risk_coverage,
    save_features,
    save_head,
    score,
    score_compat,
    score_panel,
    shares_levels,
    unlabelled_weights,
)
from rocketjax.reweight.choose import centred, posterior
from rocketjax.reweight.compat import blend_weight, string_order
from rocketjax.reweight.crossval import QUERY_MEAN, scores_of, splits, thinned
from rocketjax.reweight.head import NAMES, Options, fit, predict, prepared
from rocketjax.reweight.label_free import reliabilities
from rocketjax.reweight.panels import Data, Panel

SLOW_TREES = pytest.param("soft-trees", marks=pytest.mark.slow)
HEADS = [SLOW_TREES if name == "soft-trees" else name for name in NAMES]
# Heads by descent compile long: what one of them shows in every round, the others show in the longer one.
OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in ("calibrated", "shared")] + [SLOW_TREES]
Q, M, WIDTH = 13, 9, 5  # queries no multiple of the eight devices


def planted(seed: int = 0, queries: int = Q, models: int = M, items: int = WIDTH, noise: float = 0.3) -> Panel:
    """Responses of known quality; items of different worth, checklists of different lengths; some labels and grades
    are missing."""
    rng = np.random.default_rng(seed)
    quality_QM = rng.normal(size=(queries, models)) + np.linspace(-1, 1, models)
    worth_QI = rng.choice([0.0, 0.3, 1.0], (queries, items)) * np.linspace(1, 0.5, items)
    logit = 1.5 * worth_QI[:, None] * quality_QM[..., None] + rng.normal(0, 0.7, (queries, models, items))
    p_QMI = 1 / (1 + np.exp(-logit))
    item_QI = np.arange(items) < rng.integers(3, items + 1, queries)[:, None]
    label_QM = 5 + 2 * quality_QM + rng.normal(0, noise, quality_QM.shape) + rng.normal(0, 1, (queries, 1))
    label_QM[rng.random(label_QM.shape) < 0.2] = np.nan
    graded_QM = rng.random(label_QM.shape) > 0.05
    sessions = [f"s{i:02d}" for i in range(queries)]
    return make_panel(sessions, [f"m{i}" for i in range(models)], p_QMI, item_QI, graded_QM, label_QM)


def whole(p_QMI, label_QM, names: list[str] | None = None) -> Panel:
    """A panel in which nothing is missing."""
    queries, models, items = p_QMI.shape
    names = names or [f"m{i:02}" for i in range(models)]
    sessions = [f"q{i:03}" for i in range(queries)]
    return make_panel(sessions, names, p_QMI, np.ones((queries, items), bool), np.ones(label_QM.shape, bool), label_QM)


def features(p: Panel, size: int = 4) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(*p.data.item_QI.shape, size)).astype(np.float32)


def scores(p: Panel, name: str, options: Options = Options(), feature_QIE=None) -> np.ndarray:  # noqa: B008
    if name == "shared" and feature_QIE is None:
        feature_QIE = features(p)
    return score_panel(p, name, fit_panel(p, name, options, feature_QIE, samples=False))[0]


# The closed form.


def test_the_sweep_inverts():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(40, 7, 9))
    square = np.einsum("qik,qjk->qij", a, a) + np.eye(7)
    ours = linear.inverse(jnp.asarray(square.transpose(1, 2, 0), jnp.float32))
    np.testing.assert_allclose(np.asarray(ours).transpose(2, 0, 1), np.linalg.inv(square), rtol=2e-4, atol=2e-5)


def by_hand(p: Panel, strength) -> tuple[np.ndarray, np.ndarray]:
    """The same model as a Gaussian process in f64, query by query: mean and deviation over one noise, f64[Q, M]."""
    d = jax.tree.map(lambda x: np.asarray(x, np.float64), p.data)
    total = d.weight_QM.sum()
    u, v, size_u, size_v = [], [], 0.0, 0.0
    for q in range(len(p.sessions)):
        n = p.counts[q]
        graded = d.graded_QM[q] > 0
        c = d.p_QMI[q, :, :n] - d.p_QMI[q, graded, :n].mean(0)
        u.append(c.mean(1))
        v.append(c - c.mean(1, keepdims=True))
        size_u += (u[-1][graded] ** 2).sum()
        size_v += (v[-1][graded] ** 2).sum()
    size_u = np.sqrt(size_u / d.graded_QM.sum())
    size_v = np.sqrt(size_v / sum(d.graded_QM[q].sum() * p.counts[q] for q in range(len(p.sessions))))
    level = (d.label_QM * d.weight_QM).sum() / total
    spread = np.sqrt((d.weight_QM * (d.label_QM - level) ** 2).sum() / total)
    # Ten labels' worth of a slope of half the labels' deviation.
    top, under = 10 * 0.5 * spread, 10.0
    for q, x in enumerate(u):
        known = d.weight_QM[q] > 0
        if known.any():
            a, b = x[known] / size_u, d.label_QM[q, known]
            top, under = top + ((a - a.mean()) * (b - b.mean())).sum(), under + ((a - a.mean()) ** 2).sum()
    slope = top / under
    level -= slope * sum((d.weight_QM[q] * x).sum() for q, x in enumerate(u)) / size_u / total
    mean, deviation, loo = [], [], []
    for q in range(len(p.sessions)):
        known = d.weight_QM[q] > 0
        x, y = u[q] / size_u, v[q] / size_v
        kernel = strength[0] + strength[1] * np.outer(x, x) + strength[2] * y @ y.T
        prior = level + slope * x
        noisy = np.linalg.inv(kernel[np.ix_(known, known)] + np.eye(known.sum()))
        rest = d.label_QM[q, known] - prior[known]
        mean.append(prior + kernel[:, known] @ noisy @ rest)
        deviation.append(np.diag(kernel - kernel[:, known] @ noisy @ kernel[known]))
        left = []
        for k in range(len(rest)):
            others = np.delete(np.arange(len(rest)), k)
            part = kernel[np.ix_(known, known)]
            solved = np.linalg.solve(part[np.ix_(others, others)] + np.eye(len(others)), rest[others])
            left.append(rest[k] - part[k, others] @ solved)
        loo.append(left)
    pooled = np.mean([x**2 for left in loo for x in left])
    noise = np.array([np.sqrt((4 * pooled + np.sum(np.square(left))) / (4 + len(left))) for left in loo])
    common = pooled * (np.array(u) / size_u) ** 2 / under
    return np.array(mean), np.sqrt(np.array(deviation) * noise[:, None] ** 2 + common)


@pytest.mark.parametrize("strength", [(1.0, 0.0, 0.03), (0.3, 0.1, 0.3)])
def test_the_ridge_is_a_gaussian_process(strength):
    """Scores, standard errors and the noise from labels that are really left out, against f64 by the dual formulas."""
    p = planted()
    head = jax.jit(linear.fit_ridge)(p.data, None, jnp.asarray(strength, jnp.float32))
    got, error = linear.predict(head, p.data.p_QMI, p.data.item_QI)
    mean, deviation = by_hand(p, strength)
    graded = p.data.graded_QM
    np.testing.assert_allclose(np.asarray(got)[graded], mean[graded], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.asarray(error)[graded], deviation[graded], rtol=2e-3, atol=2e-4)


def test_the_strengths_have_the_least_left_out_error():
    """No other point of the grid, one coordinate away, is better by more than what is worth a move."""
    p = planted()
    d = p.data
    b = linear.basis(d)
    phi = linear.terms(b, d)
    common = linear.pooled(phi[..., 1], d)
    rest = (d.label_QM - common.level - common.slope * phi[..., 1]) * (d.weight_QM > 0)
    m = linear.moments(phi, rest, d.weight_QM)

    def error(strength):
        left_out = linear.solve(m, jnp.asarray(strength, jnp.float32)).left_out_MQ
        return float((m.weight_MQ * left_out**2).sum())

    best = [float(x) for x in linear.strengths(m)]
    for axis, values in enumerate((linear.LEVELS, linear.SLOPES, linear.DEVIATIONS)):
        for value in values:
            assert error(best) <= error([*best[:axis], value, *best[axis + 1 :]]) * (1 + linear.GAIN + 1e-5)


def test_the_optimizer_finds_the_closed_form():
    """Squared loss by Adam against the closed form of the same posterior, levels taken out of both."""
    p = planted()
    strength = jnp.asarray([1e6, 0.1, 0.1], jnp.float32)  # free levels: descent works within queries
    closed = linear.fit_ridge(p.data, None, strength)
    weights = descent.fit_weights(p.data, False, False, 0.0, steps=4000, strength_3=strength)
    a, b = (np.asarray(jnp.einsum("qmi,qi->qm", p.data.p_QMI, w)) for w in (closed.weight_QI, weights.weight_QI))
    for q in range(Q):
        known = np.asarray(p.data.weight_QM[q]) > 0
        size = np.std(a[q, known])
        np.testing.assert_allclose(a[q] - a[q, known].mean(), b[q] - b[q, known].mean(), atol=0.02 * max(size, 0.5))


def test_monotone_weights_are_the_bounded_least_squares():
    """Against scipy's bounded solver on the same quadratic, query by query."""
    p = planted(noise=1.5)
    d = jax.tree.map(np.asarray, p.data)
    strength = jnp.asarray([1e6, 0.1, 0.3], jnp.float32)
    free = descent.fit_weights(p.data, False, False, 0.0, steps=3000, strength_3=strength).weight_QI
    bound = np.asarray(descent.fit_weights(p.data, False, True, 0.0, steps=3000, strength_3=strength).weight_QI)
    assert np.asarray(free).min() < -1e-3, "there is something to bound"
    assert bound.min() >= 0
    b = linear.basis(p.data)
    u, _ = linear.parts(b, p.data)
    slope = linear.pooled(u, p.data).slope
    rest, _, _ = descent.standard_rest(p.data)
    for q in range(Q):
        n, known = p.counts[q], d.weight_QM[q] > 0
        c = d.p_QMI[q, :, :n]
        c = (c - c[known].mean(0))[known]  # levels are free, so any centre does
        unit = 1 / (float(b.u_size) * n)
        average = np.full(n, 1 / n)
        own = (np.eye(n) - 1 / n) * unit * float(b.v_size) / np.sqrt(float(strength[2]))
        rows = np.concatenate([c * unit, average[None] / np.sqrt(float(strength[1])), own])
        want = np.concatenate([np.asarray(rest)[q, known], [float(slope) / np.sqrt(float(strength[1]))], np.zeros(n)])
        # Both penalties stand over the labels' noise, as the squared error does.
        exact = lsq_linear(rows, want, bounds=(0, np.inf), tol=1e-12).x * unit
        np.testing.assert_allclose(bound[q, :n], exact, atol=0.03 * max(1.0, np.abs(exact).max()))


# Losses.


def test_losses_by_brute_force():
    p = planted()
    d = jax.tree.map(np.asarray, p.data)
    s = np.random.default_rng(3).normal(size=(Q, M)).astype(np.float32)
    pairs = 0.0
    ranks = 0.0
    for q in range(Q):
        known = np.flatnonzero(d.weight_QM[q] > 0)
        for a in known:
            for b in known:
                if d.label_QM[q, a] > d.label_QM[q, b]:
                    pairs += np.log1p(np.exp(-(s[q, a] - s[q, b]))) / max(len(known) - 1, 1)
        soft = [sum(1 / (1 + np.exp(-(s[q, a] - s[q, b]))) for b in known) for a in known]
        if len(known) > 1:
            hard = np.argsort(np.argsort(d.label_QM[q, known]))
            ranks += len(known) * (1 - np.corrcoef(soft, hard)[0, 1])
    assert float(descent.pair_loss(s, d)) == pytest.approx(pairs, rel=1e-5)
    assert float(descent.rank_loss(s, d)) == pytest.approx(ranks, rel=1e-4)
    # Far apart, soft ranks are ranks, and the loss is one less Spearman's correlation.
    exact = sum(
        k.sum() * (1 - spearmanr(s[q, k], d.label_QM[q, k]).statistic)
        for q in range(Q)
        for k in [d.weight_QM[q] > 0]
        if k.sum() > 1
    )
    assert float(descent.rank_loss(1e4 * s, d)) == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize("what", ["pairs", "ranks", "calibrated", "trees", "shared"])
def test_gradients_equal_finite_differences(what):
    p = planted()
    rng = np.random.default_rng(0)
    d = jax.tree.map(jnp.asarray, p.data)
    label = descent.standard_rest(d)[2]

    def squared(latent):
        return (d.weight_QM * (label - descent.centered(latent, d)) ** 2).sum()

    if what in ("pairs", "ranks"):
        loss = descent.pair_loss if what == "pairs" else descent.rank_loss
        at = jnp.asarray(rng.normal(size=(Q, M)), jnp.float32)
        f = lambda x: loss(x, d)  # noqa: E731
    elif what == "calibrated":
        at = jnp.asarray(rng.normal(size=(2, Q, WIDTH)) * 0.3 + 1, jnp.float32)
        f = lambda x: squared(descent.calibrated_latent(x[0], x[1], d.p_QMI, d.item_QI))  # noqa: E731
    elif what == "trees":
        fitted = descent.fit_trees(d, jnp.float32(0.3))
        at = fitted.border_QRD + jnp.asarray(rng.normal(size=fitted.border_QRD.shape), jnp.float32) * 0.1
        fitted = fitted._replace(leaf_QRS=jnp.asarray(rng.normal(size=fitted.leaf_QRS.shape), jnp.float32))
        f = lambda x: squared(descent.trees_latent(fitted._replace(border_QRD=x), d.p_QMI, d.item_QI))  # noqa: E731
    else:
        feature = jnp.asarray(features(p))
        net = {"bias": jnp.zeros(16), "out": jnp.asarray(rng.normal(size=16), jnp.float32)}
        at = jnp.asarray(rng.normal(size=(4, 16)), jnp.float32)

        def f(x):
            weight = descent.shared_weights({**net, "in": x}, feature, d.item_QI)
            return squared(5 * jnp.einsum("qmi,qi->qm", d.p_QMI, weight))

    direction = jnp.asarray(rng.normal(size=at.shape), jnp.float32)
    slope = float((jax.grad(f)(at) * direction).sum())
    h = 1e-2
    values = {k: float(f(at + k * h * direction)) for k in (-2, -1, 1, 2)}
    numeric = (8 * (values[1] - values[-1]) - (values[2] - values[-2])) / (12 * h)
    assert slope == pytest.approx(numeric, rel=1e-2, abs=1e-2)


# What must hold for every head.


def shuffled(p: Panel, seed: int = 5) -> tuple[Panel, np.ndarray, np.ndarray, np.ndarray]:
    """Queries, models and the items of each query in another order; items behind the end stay there."""
    rng = np.random.default_rng(seed)
    q, m = rng.permutation(len(p.sessions)), rng.permutation(len(p.models))
    width = p.data.item_QI.shape[1]
    i = np.stack([np.r_[rng.permutation(n), np.arange(n, width)] for n in p.counts])
    d = p.data
    p_QMI = np.take_along_axis(d.p_QMI, i[:, None], axis=2)[q][:, m]
    label = np.where(d.weight_QM > 0, d.label_QM, np.nan)[q][:, m]
    made = make_panel(
        [p.sessions[x] for x in q], [p.models[x] for x in m], p_QMI, d.item_QI[q], d.graded_QM[q][:, m], label
    )
    return made, q, m, i


@pytest.mark.parametrize("name", ["mean", "ridge", "label-free", "pairwise", *OTHERS])
def test_permuting_items_models_and_queries_permutes_the_result(name):
    p = planted()
    other, q, m, i = shuffled(p)
    given = features(p)
    moved = np.take_along_axis(given, i[:, :, None], axis=1)[q]
    before, after = scores(p, name, feature_QIE=given), scores(other, name, feature_QIE=moved)
    # Descent adds in another order, and four hundred steps of Adam carry that on.
    np.testing.assert_allclose(after, before[q][:, m], atol=0.02 if name not in ("mean", "ridge") else 1e-4)


@pytest.mark.parametrize("name", HEADS)
def test_what_is_masked_is_not_read(name):
    """Rubbish under every mask changes nothing, and what has no grade has no score."""
    p = planted()
    d = jax.tree.map(np.array, p.data)
    d.p_QMI[~np.broadcast_to(d.item_QI[:, None], d.p_QMI.shape)] = 0.77
    d.p_QMI[~d.graded_QM] = 0.9
    d.label_QM[d.weight_QM == 0] = 1e4
    dirty = Panel(p.sessions, p.models, p.counts, d)
    clean, got = scores(p, name), scores(dirty, name)
    assert np.isnan(got[~p.data.graded_QM]).all() and np.isfinite(got[p.data.graded_QM]).all()
    np.testing.assert_allclose(got[p.data.graded_QM], clean[p.data.graded_QM], atol=1e-4)


@pytest.mark.parametrize("name", HEADS)
def test_eight_devices_fit_like_one(name):
    p = planted()
    assert len(jax.local_devices()) == 8
    data, _, queries = prepared(p)
    assert queries == Q and len(data.p_QMI) == 16 and len(data.p_QMI.sharding.device_set) == 8
    alone = fit(name, jax.tree.map(jnp.asarray, p.data), Options(), jnp.asarray(features(p)))
    one, _ = predict(name, alone, p.data.p_QMI, p.data.item_QI)
    many = scores(p, name)
    np.testing.assert_allclose(many[p.data.graded_QM], np.asarray(one)[p.data.graded_QM], atol=1e-3)


@pytest.mark.parametrize("name", ["ridge", "pairwise", *OTHERS])
def test_a_head_learns_from_labels(name):
    """Left-out models are ordered better than by the mean, on data where items differ in worth."""
    p = planted(queries=40, models=14)
    (mean, head) = compare(
        p, ["mean", name], count=2 if name == "soft-trees" else 4, feature_QIE=features(p) if name == "shared" else None
    )
    if name != "soft-trees":
        assert head.mean("pairwise") > mean.mean("pairwise")
    assert head.mean("pairwise") > mean.mean("pairwise") - 0.02 and head.mean("mae") < mean.mean("mae")


@pytest.mark.parametrize("name", ["ridge", "calibrated", "pairwise", SLOW_TREES, "shared"])
def test_queries_without_labels_are_scored_too(name):
    p = planted()
    w = np.array(p.data.weight_QM)
    w[::3] = 0
    some = Panel(p.sessions, p.models, p.counts, p.data._replace(weight_QM=w))
    got = scores(some, name)
    assert np.isfinite(got[p.data.graded_QM]).all()
    known = np.asarray(p.data.weight_QM) > 0
    assert abs(got[::3][known[::3]].mean() - p.data.label_QM[known].mean()) < 1.5, "on the labels' scale"


@pytest.mark.slow
def test_the_shared_head_learns_which_items_matter():
    """An item's first feature says its worth: queries without a label are ordered better than by the mean."""
    rng = np.random.default_rng(0)
    queries, models, items = 80, 10, 6
    worth = rng.choice([0.0, 1.0], (queries, items))
    quality = rng.normal(size=(queries, models))
    z = 1.5 * worth[:, None] * quality[..., None] + rng.normal(0, 1, (queries, models, items))
    label = 5 + 2 * quality + rng.normal(0, 0.3, quality.shape)
    p = whole(1 / (1 + np.exp(-z)), label)
    feature = np.stack([worth * 2 - 1, rng.normal(size=worth.shape)], axis=-1).astype(np.float32)
    w = np.array(p.data.weight_QM)
    w[40:] = 0
    training = Panel(p.sessions, p.models, p.counts, p.data._replace(weight_QM=w))
    new = slice(40, None)
    figures = {
        name: agreement(scores(training, name, feature_QIE=feature)[new], label[new]).pairwise
        for name in ("mean", "shared")
    }
    assert figures["shared"] > figures["mean"] + 0.03, figures


def test_label_free_finds_planted_reliabilities():
    """Good items, noise, and one that says the opposite, without any label; EM's chances against the planted ones."""
    rng = np.random.default_rng(0)
    queries, models, items = 60, 40, 6
    good = rng.random((queries, models)) < 0.5
    right = np.array([0.95, 0.85, 0.7, 0.7, 0.5, 0.3])
    votes = np.where(rng.random((queries, models, items)) < right, good[..., None], ~good[..., None])
    p = whole(np.where(votes, 0.9, 0.1), np.full((queries, models), np.nan))
    r = reliabilities(p.data, jnp.zeros((queries, items), jnp.int32), 1)
    gap = np.asarray(r.good_QI - r.bad_QI).mean(0)
    assert (np.diff(gap[[0, 1, 2, 4, 5]]) < -0.02).all() and abs(gap[2] - gap[3]) < 0.05, gap
    assert abs(gap[4]) < 0.1 and gap[5] < -0.1
    # A vote over the two best items alone is right 90% of the time.
    assert ((np.asarray(r.good_QM) > 0.5) == good).mean() > 0.9
    weight = np.asarray(fit_panel(p, "label-free").params.weight_QI).mean(0)
    assert weight.sum() == pytest.approx(9, rel=1e-4) and (np.diff(weight[[0, 1, 2, 4]]) < 0).all()
    assert weight[5] < 0.2 * weight[0], "what says the opposite of the others has no weight"
    both = [agreement(scores(p, name), good * 1.0).pairwise for name in ("mean", "label-free")]
    assert both[1] > both[0] + 0.02


# Recorded judgments and the reference.


@pytest.fixture(scope="module")
def parity(shared, tmp_path_factory):
    """The recorded judgments as a run, their labels, and the folder with the reference's outputs."""
    bench = load_benchmark(shared / "data" / "dev" / "mtbench")
    folder = shared / "parity" / "mtbench"
    run = record(bench, folder / "judgment.jsonl.gz", tmp_path_factory.mktemp("parity") / "run")
    return run, labels_of(bench, "gpt-4"), folder


def lines(path: Path) -> list[dict]:
    with gzip.open(path, "rt") as file:
        return [json.loads(line) for line in file]


@pytest.mark.parametrize("kind", ["unsupervised", "supervised"])
def test_the_references_own_scores_and_ranking(parity, kind):
    """525 scores of public RocketEval code on real judgments, to 1e-9 (its files hold ten decimals)."""
    run, labels, folder = parity
    split = json.loads((folder / "split.json").read_text())
    table = score_compat(run, labels, "gpt-4", split["train"]) if kind == "supervised" else score_compat(run)
    ours = {(r["session_id"], r["model"]): r["score"] for r in table.to_pylist()}
    theirs = {(r["session_id"], r["model_test"]): r["score"] for r in lines(folder / f"score_{kind}.jsonl.gz")}
    assert len(theirs) == 525 and theirs.keys() <= ours.keys()
    assert max(abs(ours[key] - theirs[key]) for key in theirs) < 1e-9
    assert about_scores(table)["compat"] == "rocketeval"
    ranking = [row for row in rank_models(run) if row["model"] in split["test"]]
    expected = json.loads((folder / f"ranking_{kind}.json").read_text())
    assert [row["model"] for row in ranking] == [row["model"] for row in expected]
    for row, want in zip(ranking, expected, strict=True):
        assert row["score"] == pytest.approx(want["score"], abs=1e-9) and row["compat"] == "rocketeval"
    if kind == "supervised":
        assert len(ours) == 525, "training models are left out"
        with pytest.raises(RocketError, match="none of the training models has a label for a graded response"):
            score_compat(run, {m: labels[m] for m in split["test"]}, "gpt-4", split["train"])


def test_the_references_quirks():
    assert string_order(12) == [0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9]
    assert blend_weight(np.array([3.0, 3.01])) == blend_weight(np.array([1.0, 10.0])) == pytest.approx(np.log10(2))
    assert blend_weight(np.full(7, 4.0)) == 0
    with pytest.raises(RocketError, match="11 distinct labels for one query"):
        blend_weight(np.arange(11.0))


def test_the_default_head_on_recorded_judgments(parity):
    """Beside the reference on the same splits: better than its blend and its trees at ranking, than the mean at
    verdicts and in size. With margin, so that another machine's rounding cannot turn it."""
    run, labels, _ = parity
    p = panel(run, labels)
    found = {c.head: c for c in compare(p, ["mean", "ridge", "extra-trees", "extra-trees-blend", QUERY_MEAN], count=6)}
    ridge = found["ridge"]
    assert ridge.mean("spearman") > max(found[h].mean("spearman") for h in ("extra-trees", "extra-trees-blend"))
    assert ridge.mean("pairwise") > found["mean"].mean("pairwise") + 0.01
    assert ridge.mean("mae") < min(found[h].mean("mae") for h in ("mean", QUERY_MEAN)) - 0.1
    assert np.isnan(found[QUERY_MEAN].mean("spearman")) and found[QUERY_MEAN].mean("pairwise") == 0.5


def test_recorded_judgments_that_do_not_fit(tmp_path):
    bench = random_bench(queries=2, models=2)
    session = sorted(bench.checklists)[0]
    n = len(bench.checklists[session].items)
    good = {"session_id": session, "model_test": "model-0", "norm_probability": [0.5] * n}
    for change, message in (
        ({"norm_probability": [0.5]}, r"j\.jsonl:2: field .norm_probability.*1 numbers, the checklist"),
        ({"norm_probability": [1.5] + [0.5] * (n - 1)}, r"norm_probability\[0\].*is 1\.5, not a probability"),
        ({"session_id": "x"}, "is 'x', which has no checklist"),
        ({"model_test": "x"}, "is 'x', of which random has no responses"),
        ({}, "is judged in j.jsonl:1 already"),
        ({"norm_probability": "x"}, r"j\.jsonl:2: field .norm_probability"),
    ):
        file = tmp_path / "j.jsonl"
        file.write_text(json.dumps(good) + "\n" + json.dumps(good | change) + "\n")
        with pytest.raises(RocketError, match=message):
            record(bench, file, tmp_path / "run")
        assert not (tmp_path / "run").exists()
    file.write_text(json.dumps(good | {"norm_probability": [None] + [0.123456789012] * (n - 1)}) + "\n")
    run = record(bench, file, tmp_path / "run")
    rows = run.grades.to_pylist()
    assert [r["status"] for r in rows] == ["missing_grade"] + [OK] * (n - 1)
    assert rows[1]["p_yes"] == 0.123456789012 and rows[0]["p_yes"] is None


# Runs, heads on disk, scores.


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """A graded run of the tiny judge and made-up labels of every response."""
    bench = random_bench(queries=6, models=8, words=12)
    run = tiny_judge().grade(bench, tmp_path_factory.mktemp("graded") / "run")
    rng = np.random.default_rng(0)
    labels = {m: {s: float(rng.integers(1, 11)) for s in bench.checklists} for m in bench.models}
    return run, labels, bench


@pytest.fixture
def copied(graded, tmp_path):
    run, labels, bench = graded
    shutil.copytree(run.path, tmp_path / "run")
    return type(run).open(tmp_path / "run"), labels, bench


def as_array(table: pa.Table) -> dict[tuple[str, str], float]:
    return {(r["session_id"], r["model"]): r["score"] for r in table.to_pylist()}


def test_a_panel_is_the_run(graded):
    run, labels, bench = graded
    p = panel(run, {m: by for m, by in labels.items() if m != "model-3"} | {"stranger": {"s00": 1.0}})
    for row in run.grades.to_pylist():
        q, m = p.sessions.index(row["session_id"]), p.models.index(row["model"])
        assert p.data.p_QMI[q, m, row["item"]] == np.float32(row["p_yes"]) and p.data.item_QI[q, row["item"]]
    assert p.data.item_QI.sum() == sum(len(c.items) for c in bench.checklists.values())
    assert "model-3" not in p.labelled_models() and p.labelled.sum() == 42
    assert p.dropped == {"model not in the run": 1}


def test_no_model_is_scored_by_a_head_that_saw_its_label(copied):
    """Another label for one model changes other models' scores, and of its own only the query's level, which is all
    models'; the same for training models."""
    run, labels, _ = copied
    changed = labels | {"model-2": dict.fromkeys(labels["model-2"], 50.0)}
    with_folds = []
    for given in (labels, changed):
        head = fit_head(run, given, "me", folds=4)
        everyone, _ = score_panel(panel(run), "ridge", head.fits["all"])
        level = dict(zip(panel(run).sessions, everyone.mean(axis=1), strict=True))
        with_folds.append({k: x - level[k[0]] for k, x in as_array(score(run, head)).items()})
    assert shares_levels(about_scores(run.scores), "me") and not shares_levels(about_scores(run.scores), "another")
    own = [key for key in with_folds[0] if key[1] == "model-2"]
    assert own and all(with_folds[0][k] == pytest.approx(with_folds[1][k], abs=1e-5) for k in own)
    assert any(abs(with_folds[0][k] - with_folds[1][k]) > 0.1 for k in with_folds[0] if k not in own)
    train = ["model-0", "model-1", "model-2", "model-5"]
    head = fit_head(run, labels, "me", train_models=train)
    table = score(run, head)
    assert not {m for _, m in as_array(table)} & set(train) and about_scores(table)["left_out"] == train
    both = score(run, head, score_train=True)
    assert about_scores(both)["scored_by_a_head_that_saw_its_labels"] == train
    assert len(as_array(both)) == 48
    ranking = rank_models(run)
    assert "scored by a head that was trained on their own labels: model-0" in str(ranking)
    assert {row["model"] for row in ranking if row["head_saw_its_labels"]} == set(train)
    score(run)
    assert not (run.path / "ranking.json").exists(), "a ranking of other scores does not stay beside these"
    with pytest.raises(RocketError, match="trained on every model of this run; score them with --score-train"):
        score(run, fit_head(run, labels, "me", train_models=list(labels)))


def test_pairs_need_two_labels_of_a_query(copied):
    """As in a set of preferences: of two responders, folds leave one label to a query."""
    run, _, bench = copied
    two = {m: {s: float(n + i) for i, s in enumerate(bench.checklists)} for n, m in enumerate(("model-0", "model-1"))}
    with pytest.raises(RocketError, match="5 folds cannot be made of 2 labelled models; give --folds 2 or fewer"):
        fit_head(run, two, "me", "pairwise")
    with pytest.raises(RocketError, match="labels of one query that differ, and no query has two of the models"):
        fit_head(run, two, "me", "pairwise", folds=2)


@pytest.mark.parametrize("name", ["ridge", pytest.param("pairwise", marks=pytest.mark.slow)])
def test_folds_do_not_rank_backwards(tmp_path, name):
    """A judge that says the same of everything has nothing to rank by: the labels of the others, whose level falls
    where a good model is left out, must not do it."""
    bench = random_bench(queries=4, models=6)
    rows = [
        {"session_id": s, "model_test": m, "norm_probability": [0.25] * len(c.items)}
        for s, c in bench.checklists.items()
        for m in bench.models
    ]
    (tmp_path / "j.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = record(bench, tmp_path / "j.jsonl", tmp_path / "run")
    labels = {m: dict.fromkeys(bench.checklists, float(n)) for n, m in enumerate(bench.models)}
    scores = as_array(score(run, fit_head(run, labels, "me", name)))
    for session in bench.checklists:
        own = [scores[session, m] for m in bench.models]
        assert max(own) - min(own) < 1e-3 and np.mean(own) == pytest.approx(2.5, abs=0.1)


def test_levels_are_those_of_middling_models():
    """Labels of the best three responses to a query: one without labels is still expected where its own mean says."""
    p_QMI = np.random.default_rng(0).uniform(0, 1, (120, 8, 5))
    label_QM = 9 * p_QMI.mean(axis=2) + 1
    known = label_QM >= np.sort(label_QM, axis=1)[:, -3:-2]
    known[80:] = False
    names, item_QI, graded_QM = [f"q{i:03}" for i in range(120)], np.ones((120, 5), bool), np.ones((120, 8), bool)
    best = make_panel(names, list("abcdefgh"), p_QMI, item_QI, graded_QM, np.where(known, label_QM, np.nan))
    score_QM = scores_of("ridge", best, None)
    assert abs((score_QM - label_QM)[80:].mean()) < 0.2


@pytest.mark.parametrize("name", ["ridge", "pairwise", *OTHERS])
def test_a_saved_head_scores_the_same(copied, tmp_path, name):
    run, labels, bench = copied
    if name == "shared":
        judge = tiny_judge()
        save_features(run, item_features(judge, bench), judge.sha256)
    given = features_of(run, panel(run)) if name == "shared" else None
    head = fit_head(run, labels, "a b/c", name, folds=2, features=given)
    before = score(run, head).to_pylist()
    save_head(head, run.path / "heads" / f"{name}@a_b_c")
    after = score(run, name).to_pylist()
    assert before == after and all(r["standard_error"] > 0 for r in after)
    weights = load_head(run.path / "heads" / f"{name}@a_b_c").weights()
    assert weights is None or (weights[1][panel(run).data.item_QI] > 0).all(), "a weight has an error, too"
    with pytest.raises(RocketError, match="is there already"):
        save_head(head, run.path / "heads" / f"{name}@a_b_c")
    save_head(head, run.path / "heads" / f"{name}@a_b_c", overwrite=True)
    assert [f.name for f in (run.path / "heads").iterdir()] == [f"{name}@a_b_c"], "nothing is left behind"


def test_heads_are_refused_where_they_do_not_belong(copied, tmp_path):
    run, labels, bench = copied
    head = fit_head(run, labels, "me", folds=2)
    folder = run.path / "heads" / "ridge@me"
    save_head(head, folder)
    other = tiny_judge(seed=1).grade(bench, tmp_path / "judge")
    with pytest.raises(RocketError, match=r"another judge's grades:\n  judge.weights_sha256"):
        score(other, folder)
    template = tiny_judge().grade(bench, tmp_path / "template", template="rocketeval")
    with pytest.raises(RocketError, match=r"prompt.template: native there, rocketeval here"):
        score(template, folder)
    fewer = tiny_judge().grade(bench, tmp_path / "fewer", limit=3)
    with pytest.raises(RocketError, match="other queries or checklists"):
        score(fewer, folder)
    # Other models on the same questions are what a head is for.
    some = tiny_judge().grade(bench.select(["model-0", "model-1"]), tmp_path / "some")
    expected = as_array(score(run, folder))
    assert as_array(score(some, folder)) == pytest.approx(
        {k: expected[k] for k in expected if k[1] < "model-2"}, rel=1e-5
    )
    (folder / "head.json").write_text("{}")
    with pytest.raises(RocketError, match=r"head\.json: cannot be read"):
        load_head(folder)
    with pytest.raises(RocketError, match=r"no head 'wool'; there are: mean, label-free, ridge@me"):
        find_head(run, "wool")
    save_head(fit_head(run, labels, "you", folds=2), run.path / "heads" / "ridge@you")
    with pytest.raises(RocketError, match="several heads are 'ridge': ridge@me, ridge@you"):
        find_head(run, "ridge")
    shutil.rmtree(run.path / "heads" / "ridge@you" / "params")
    with pytest.raises(RocketError, match="params: cannot be read"):
        score(run, "ridge@you")


def test_a_killed_fit_leaves_nothing_that_matters(copied):
    """What a process leaves in the middle of saving: no head, and the run can still be finished."""
    run, _, bench = copied
    torn = run.path / "heads" / ".ridge@me.123.tmp" / "params"
    torn.mkdir(parents=True)
    (torn / "x").write_text("half")
    with pytest.raises(RocketError, match="no head 'ridge'"):
        score(run, "ridge")
    tiny_judge().grade(bench, run.path, mode="resume")
    assert not torn.parent.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"folds": []}, "folds"),
        ({"judge": "x"}, "judge"),
        ({"trained_on": 5}, "trained_on"),
        ({"samples": {}}, "field 'samples' lacks 'all'"),
        ({"format": 9}, "format 9, this version reads 2; fit the head again"),
        ({"head": "wool"}, "unknown head 'wool'"),
        ({"labels_sha256": None}, "labels_sha256"),
    ],
)
def test_a_broken_head_is_one_clear_error(graded, tmp_path, change, message):
    run, labels, _ = graded
    save_head(fit_head(run, labels, "me", train_models=["model-0", "model-1"]), tmp_path / "head")
    about = json.loads((tmp_path / "head" / "head.json").read_text())
    (tmp_path / "head" / "head.json").write_text(json.dumps(about | change))
    with pytest.raises(RocketError, match=message):
        load_head(tmp_path / "head")


def test_what_cannot_be_fitted_says_so(graded):
    run, labels, _ = graded
    for arguments, message in (
        (("mean",), "reads no labels, so there is nothing to fit"),
        (("wool",), "unknown head 'wool'; there are: mean, ridge"),
        (("shared",), "reads the judge's hidden states"),
    ):
        with pytest.raises(RocketError, match=message):
            fit_head(run, labels, "me", *arguments)
    for options, message in (
        (dict(folds=9), "9 folds cannot be made of 8 labelled models"),
        (dict(train_models=["model-9"]), "no model 'model-9' in this run"),
        (dict(head="calibrated", monotone=True), "has no monotone weights"),
    ):
        with pytest.raises(RocketError, match=message):
            fit_head(run, labels, "me", **options)
    with pytest.raises(RocketError, match="training model 'model-1' has no label by 'me'"):
        fit_head(run, {"model-0": labels["model-0"]}, "me", train_models=["model-0", "model-1"])
    with pytest.raises(RocketError, match="comparing heads needs labels of 4 models"):
        compare(panel(run, {m: labels[m] for m in list(labels)[:3]}))


def test_abstained_scores_are_left_out_of_an_additive_ranking(copied):
    """Against least squares on dummy variables; without abstention it is the plain mean."""
    run, labels, _ = copied
    head = fit_head(run, labels, "me", folds=2)
    full = score(run, head).to_pylist()
    plain = {row["model"]: row["score"] for row in rank_models(run)}
    for model, value in plain.items():
        assert value == pytest.approx(np.mean([r["score"] for r in full if r["model"] == model]), abs=1e-8)
        own = [r["standard_error"] for r in full if r["model"] == model]
        spread = next(r["score_error"] for r in rank_models(run) if r["model"] == model)
        assert spread == pytest.approx(np.sqrt(np.square(own).sum()) / len(own))
    threshold = float(np.quantile([r["standard_error"] for r in full], 0.7))
    rows = score(run, head, abstain=threshold).to_pylist()
    assert {r["abstained"] for r in rows if r["standard_error"] > threshold} == {True}
    used = [r for r in rows if not r["abstained"]]
    assert 0 < len(used) < len(rows)
    sessions, models = (sorted({r[k] for r in used}) for k in ("session_id", "model"))
    x = np.zeros((len(used), len(sessions) + len(models)))
    for n, r in enumerate(used):
        x[n, sessions.index(r["session_id"])] = x[n, len(sessions) + models.index(r["model"])] = 1
    beta = np.linalg.lstsq(x, [r["score"] for r in used], rcond=None)[0]
    # How every score moves each model's value, by least squares again, for the standard errors.
    pull = np.linalg.pinv(x)
    moves = pull[len(sessions) :] + pull[: len(sessions)].mean(axis=0)
    spread = np.sqrt((moves**2) @ np.square([r["standard_error"] for r in used]))
    spread = dict(zip(models, spread, strict=True))
    expected = dict(zip(models, beta[len(sessions) :] + beta[: len(sessions)].mean(), strict=True))
    ranking = rank_models(run)
    assert ranking.abstained == len(rows) - len(used) and "uncertain scores not used" in str(ranking)
    for row in ranking:
        assert row["score"] == pytest.approx(expected[row["model"]], abs=1e-6)
        assert row["score_error"] == pytest.approx(spread[row["model"]], rel=1e-6)
    score(run, head, abstain=1e-9)
    with pytest.raises(RocketError, match="is too uncertain; raise --abstain"):
        rank_models(run)
    with pytest.raises(RocketError, match="abstention threshold is 0"):
        score(run, head, abstain=0)


def test_a_jury_is_weighed(copied, tmp_path):
    run, _, bench = copied
    other = tiny_judge(seed=1).grade(bench, tmp_path / "other")
    table = score(run, "label-free", jury=[other])
    shares = about_scores(table)["jury"]
    assert list(shares) == [str(run.path), str(other.path)] and sum(shares.values()) == pytest.approx(1)
    assert all(1 <= r["score"] <= 10 and r["standard_error"] >= 0 for r in table.to_pylist())
    fewer = tiny_judge(seed=1).grade(bench, tmp_path / "fewer", limit=2)
    with pytest.raises(RocketError, match="graded other questions or responses"):
        score(run, "label-free", jury=[fewer])
    with pytest.raises(RocketError, match="a jury is weighed by head 'label-free'"):
        score(run, jury=[other])
    with pytest.raises(RocketError, match="named twice in the jury"):
        score(run, "label-free", jury=[other, other])


# Weights that the checklists give.


def weighed(bench, weights: dict[str, tuple[float | None, ...] | None]):
    """The benchmark with these weights of its items."""
    checklists = {s: msgspec.structs.replace(c, weights=weights[s]) for s, c in bench.checklists.items()}
    return msgspec.structs.replace(bench, checklists=checklists)


def test_the_mean_by_the_checklists_weights_by_hand(copied):
    """Beside sums written out; one item without a grade, an unknown weight, a query without weights, one item alone."""
    run, _, bench = copied
    rng = np.random.default_rng(0)
    weights = {s: tuple(float(x) for x in rng.integers(0, 5, len(c.items))) for s, c in bench.checklists.items()}
    sessions = sorted(weights)
    counts = [len(weights[s]) for s in sessions]
    unknown, without, alone, *_ = (sessions[q] for q in np.argsort(counts)[::-1])
    weights[unknown] = (None, 2.0, 7.0, *[None] * (max(counts) - 3))
    weights[without] = None
    weights[alone] = (0.0, 1e308, *[0.0] * (len(weights[alone]) - 2))
    weights = {s: w if w is None or any(w) else (1.0,) * len(w) for s, w in weights.items()}
    part = run.path / "grades" / "part-00000.parquet"
    rows = pq.read_table(part).to_pylist()
    rows[0] |= {"p_yes": None, "status": "missing_grade"}
    lost = rows[0]["session_id"], rows[0]["model"]
    pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(part)), part)

    plain = as_array(score(run))
    table = score(run, item_weights=weighed(bench, weights))
    assert run.scores.equals(table, check_metadata=True)
    p = {}
    for row in run.grades.to_pylist():
        p.setdefault((row["session_id"], row["model"]), []).append(row["p_yes"])
    for row in table.to_pylist():
        at = row["session_id"], row["model"]
        if at == lost:
            assert row["score"] is row["standard_error"] is None and plain[at] is None
            continue
        w = weights[at[0]]
        w = [1.0] * len(p[at]) if w is None else [4.5 if x is None else x for x in w]
        total, mean = 0.0, 0.0
        for x, y in zip(w, p[at], strict=True):
            total, mean = total + x, mean + x * y
        mean = mean / total
        assert row["score"] == pytest.approx(9 * mean + 1, abs=1e-12)
        n = sum(x > 0 for x in w)
        spread = sum((9 * x / total * (y - mean)) ** 2 for x, y in zip(w, p[at], strict=True))
        assert (row["standard_error"] is None) == (n == 1)
        if n > 1:
            assert row["standard_error"] == pytest.approx(np.sqrt(spread * n / (n - 1)), rel=1e-9)
        if at[0] == alone:
            assert row["score"] == pytest.approx(9 * p[at][1] + 1, abs=1e-12) and row["standard_error"] is None
        if at[0] == without:
            assert row["score"] == pytest.approx(plain[at], abs=1e-12)
    about = about_scores(table)
    assert (about["head"], about["labeler"], about["scale"]) == ("weighted-mean", None, "1 to 10")
    said = about["item_weights"]
    assert (said["queries"], said["queries_without"], said["items_without"]) == (5, 1, max(counts) - 2)
    # Only what weights are to each other counts; the hash is of the weights.
    quarter = {s: w and tuple(x and x / 4 for x in w) for s, w in weights.items()}
    twice = score(run, item_weights=weighed(bench, quarter))
    again = as_array(twice)
    assert all(x == again[at] or x == pytest.approx(again[at], abs=1e-12) for at, x in as_array(table).items())
    assert about_scores(twice)["item_weights"]["sha256"] != said["sha256"]
    same = {s: (3.0,) * len(c.items) for s, c in bench.checklists.items()}
    even = as_array(score(run, "mean", item_weights=weighed(bench, same)))
    assert all(x == plain[at] or x == pytest.approx(plain[at], abs=1e-12) for at, x in even.items())


def test_weights_that_do_not_fit_a_run_are_refused(copied):
    run, _, bench = copied
    known = weighed(bench, {s: (1.0,) * len(c.items) for s, c in bench.checklists.items()})
    first = min(bench.checklists)
    other = msgspec.structs.replace(known.checklists[first], items=(*bench.checklists[first].items[:-1], "Another?"))
    before = (run.path / "scores.parquet").exists()
    for changed in (
        msgspec.structs.replace(known, checklists={**known.checklists, first: other}),
        msgspec.structs.replace(known, checklists={s: c for s, c in known.checklists.items() if s != first}),
        msgspec.structs.replace(known, queries={s: msgspec.structs.replace(q, messages=(*q.messages[:-1], Message(
            "user", "What else?"))) for s, q in known.queries.items()}),
    ):  # fmt: skip
        with pytest.raises(RocketError, match="queries or checklists are not those that"):
            score(run, item_weights=changed)
    with pytest.raises(RocketError, match=r"checklists have no weights; they stand in checklist\.jsonl"):
        score(run, item_weights=bench)
    for head, jury in (("label-free", ()), ("ridge", ()), (None, (run,))):
        with pytest.raises(RocketError, match="weights are for the mean alone"):
            score(run, head, jury=jury, item_weights=known)
    assert (run.path / "scores.parquet").exists() == before
    # Other responses, and more queries than the run has, ask nothing else.
    less = msgspec.structs.replace(known, responses={}, labels={})
    assert len(score(run, item_weights=less, write=False)) == 48
    extra = {**known.queries, "zz": msgspec.structs.replace(known.queries[first], session_id="zz")}
    more = {**known.checklists, "zz": msgspec.structs.replace(known.checklists[first], session_id="zz")}
    larger = msgspec.structs.replace(less, queries=extra, checklists=more)
    assert len(score(run, item_weights=larger, write=False)) == 48


def test_weighted_means_say_so_everywhere(copied, tmp_path):
    run, _, bench = copied
    rng = np.random.default_rng(1)
    weights = {s: tuple(float(x) for x in rng.integers(1, 5, len(c.items))) for s, c in bench.checklists.items()}
    known = weighed(bench, weights)
    shutil.copytree(run.path, tmp_path / "plain")
    plain = Run.open(tmp_path / "plain")
    score(plain)
    score(run, item_weights=known)
    ranking = rank_models(run, samples=100)
    assert {row["head"] for row in ranking} == {"weighted-mean"}
    assert run.ranking["about"]["item_weights"]["benchmark"] == bench.name
    assert f"scores are means by the item weights of {bench.name}" in str(ranking)
    found = compare_runs(plain, run, samples=100)
    assert (found["a"]["head"], found["b"]["head"]) == ("mean", "weighted-mean")
    assert any(line.startswith("item_weights: null there") for line in found["settings"])
    for told, whose in ((known, "weights that the checklists give their items"), (None, "stand in the benchmark"),
                        (bench, "others now")):  # fmt: skip
        report = collect(run, told, samples=100)
        assert whose in report.weights and bool(report.weight_of) == (told is known)
        assert f"as the checklists of {bench.name} give them" in facts(report)
    first = min(weights)
    own = np.asarray(weights[first])
    shown = {r["item"]: r for r in collect(run, known, samples=100).items if r["session_id"] == first}
    np.testing.assert_allclose([shown[i]["weight"] for i in range(len(own))], own / own.mean())
    assert [shown[i]["given_weight"] for i in range(len(own))] == list(own)


@pytest.mark.slow
def test_standard_errors_cover():
    """Of planted scores, about 95% lie within two posterior standard errors; bootstrap errors are of that size."""
    inside, boot = [], []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        queries, models, items = 60, 12, 5
        p_QMI = rng.random((queries, models, items))
        weight = 9 / items * (1 + 0.6 * rng.normal(size=(queries, items)))
        truth = 1 + rng.normal(size=(queries, 1)) + np.einsum("qmi,qi->qm", p_QMI, weight)
        label = truth + rng.normal(0, 0.8, truth.shape)
        label[:, 8:] = np.nan
        p = whole(p_QMI, label)
        got, error = score_panel(p, "ridge", fit_panel(p, "ridge"))
        inside.append(np.abs(got - truth)[:, 8:] < 2 * error[:, 8:])
        if seed == 0:
            _, error_b = score_panel(p, "pairwise", fit_panel(p, "pairwise"))
            boot = [float(np.median(error_b)), float(np.median(error))]
    assert 0.9 < np.mean(inside) < 0.995
    assert 0.2 < boot[0] / boot[1] < 3


# Agreement, items, choosing labels.


def test_agreement_by_hand():
    s = np.array([[1.0, 2.0, 3.0], [2.0, 2.0, 1.0], [np.nan, 1.0, 2.0]])
    t = np.array([[1.0, 3.0, 2.0], [1.0, 2.0, np.nan], [5.0, 1.0, 2.0]])
    got = agreement(s, t)
    # Query 1: (1<2 right), (1<3 right), (2,3 wrong); query 2: a tie counts half; query 3: one pair, right.
    assert got.pairwise == pytest.approx(3.5 / 5)
    assert got.mae == pytest.approx((0 + 1 + 1 + 1 + 0 + 0 + 0) / 7)
    # Only the first query has all three.
    assert got.spearman == pytest.approx(0.5)
    found = risk_coverage(s, np.array([[1.0, 3.0, 2.0], [5.0, 4.0, 1.0], [1.0, 6.0, 7.0]]), t)
    assert found.risk[0] == 0 and found.risk[1] == 0.5 and found.random == pytest.approx(3 / 7)


def test_the_item_table_finds_planted_items():
    """A dead item, one that says the opposite, one that one family passes whatever it does."""
    rng = np.random.default_rng(0)
    queries, models = 20, 16
    names = [f"{'acme' if i % 2 else 'zeta'}-{i}" for i in range(models)]
    quality = rng.normal(size=(queries, models))
    z = quality[..., None] * np.array([1.5, 1.5, 1.5, 0.0, -1.5, 1.5]) + rng.normal(0, 0.3, (queries, models, 6))
    z[..., 5] += 3 * np.array([n.startswith("acme") for n in names])
    p_QMI = 1 / (1 + np.exp(-z))
    p_QMI[..., 3] = 0.5 + rng.normal(0, 0.001, (queries, models))
    p = whole(p_QMI, quality, names)
    rows = item_table(p).to_pylist()
    by_item = [[r for r in rows if r["item"] == i] for i in range(6)]
    assert {r["verdict"] for r in by_item[3]} == {"dead"} and {r["verdict"] for r in by_item[4]} == {"hurts"}
    assert all(r["verdict"] == "ok" and r["agreement"] > 0.7 and r["discrimination"] > 0.3 for r in by_item[0])
    assert all(r["family_q"] < 0.05 for r in by_item[5])
    assert np.mean([r["family_q"] < 0.05 for r in by_item[0]]) <= 0.1
    assert all(r["family_shift"] * (1 if r["family"] == "acme" else -1) > 0 for r in by_item[5])
    first = rows[0]
    p_M = p_QMI[0, :, 0]
    assert first["mean_p"] == pytest.approx(p_M.mean(), abs=1e-6)
    assert first["yes_rate"] == pytest.approx((p_M > 0.5).mean())
    assert first["agreement"] == pytest.approx(np.corrcoef(p_M, quality[0])[0, 1], abs=1e-5)
    rest = p_QMI[0, :, 1:].mean(axis=1)
    assert first["discrimination"] == pytest.approx(np.corrcoef(p_M, rest)[0, 1], abs=1e-5)
    params = fit_panel(p, "ridge").params
    error = np.sqrt(np.diagonal(params.covariance_QWW, axis1=1, axis2=2)[:, 1:])
    weighed = item_table(p, weights=(params.weight_QI, error)).to_pylist()
    by_weight = np.array([[r["weight"] for r in weighed if r["item"] == i] for i in range(6)])
    unfitted = item_table(p, weights=(unlabelled_weights(p, "label-free"), None)).to_pylist()
    assert [r["verdict"] for r in unfitted] == [r["verdict"] for r in rows], "weights without labels excuse nothing"
    # The others say all that it says, so it need not be turned around; it is not believed either.
    typical = np.median(by_weight, axis=1)
    assert typical[4] < 0.3 < 0.7 < min(typical[:3]), typical
    for r in weighed:
        q = int(r["session_id"][1:])
        hurts = params.weight_QI[q, r["item"]] < -error[q, r["item"]]
        assert r["verdict"] == ("dead" if r["item"] == 3 else "hurts" if hurts else "ok")


def test_the_next_label_is_the_one_that_helps_most():
    """Against brute force: the posterior covariance with every candidate's label put in, in f64."""
    p = thinned(planted(queries=5, models=6), 2, 0)
    covariance, noise = posterior(p)
    graded_QM = np.asarray(p.data.graded_QM)
    before = np.trace(centred(covariance.copy(), graded_QM), axis1=1, axis2=2).sum()
    best = {}
    for q in range(5):
        for m in range(6):
            if graded_QM[q, m] and not p.labelled[q, m]:
                # Conditioning by the general formula, on one more row of a joint Gaussian.
                joint = covariance[q]
                seen = np.eye(6)[[m]]
                gain = joint @ seen.T @ np.linalg.inv(seen @ joint @ seen.T + noise[q] ** 2) @ seen @ joint
                after = covariance.copy()
                after[q] = joint - gain
                best[q, m] = before - np.trace(centred(after, graded_QM), axis1=1, axis2=2).sum()
    ((session, model, gain),) = ask(p, 1)
    q, m = max(best, key=best.get)
    assert (session, model) == (p.sessions[q], p.models[m]) and gain == pytest.approx(best[q, m] / before, rel=1e-6)
    many = ask(p, 8)
    assert len({x[:2] for x in many}) == 8 and not any(
        p.labelled[p.sessions.index(s), p.models.index(x)] for s, x, _ in many
    )
    assert many[0][2] == max(x[2] for x in many)
    assert expected_variance(p) > 0
    only = ask(p, 3, ["m0", "m1"])
    assert {x[1] for x in only} <= {"m0", "m1"}
    with pytest.raises(RocketError, match="labels are asked for"):
        ask(p, 1000)
    with pytest.raises(RocketError, match="needs a few to begin with"):
        ask(p.trained_on([]), 1)


def test_splits_are_what_they_say():
    p = planted()
    made = splits(p, 10, 0)
    assert made == splits(p, 10, 0) != splits(p, 10, 1)
    assert all(len(x) == round(M / 2) == len(set(x)) for x in made)
    few = thinned(p, 2, 0)
    assert (np.asarray(few.labelled).sum(axis=1) <= 2).all() and (few.labelled <= p.labelled).all()
    level = scores_of(QUERY_MEAN, p, None)
    for q in range(Q):
        known = p.labelled[q]
        assert level[q, 0] == pytest.approx(np.asarray(p.data.label_QM)[q, known].mean(), rel=1e-5)
    with pytest.raises(RocketError, match=r"unknown head 'ridge\+wool'"):
        scores_of("ridge+wool", p, None)


def test_features_are_of_the_question_alone(tmp_path):
    """Other responses, the same features; another item, others. They are centred and of deviation 1."""
    bench, judge = random_bench(queries=4, models=3), tiny_judge()
    table = item_features(judge, bench)
    again = item_features(judge, random_bench(queries=4, models=3).select(["model-0"]))
    assert table.equals(again)
    assert table.num_rows == sum(len(c.items) for c in bench.checklists.values())
    run = judge.grade(bench, tmp_path / "run")
    assert features_of(run, panel(run)) is None
    save_features(run, table, judge.sha256)
    got = features_of(run, panel(run))
    used = got[panel(run).data.item_QI]
    size = used.std(axis=0)
    assert got.shape[2] == 32 and np.abs(used.mean(axis=0)).max() < 1e-3
    assert np.allclose(size[size > 0], 1, atol=1e-3) and (size > 0).sum() >= 3
    save_features(run, table.slice(1), judge.sha256)
    with pytest.raises(RocketError, match="is of other queries or checklists"):
        features_of(run, panel(run))


def test_a_few_labels_do_not_turn_the_mean_around():
    """One label a query, 10 to 30 in all: nothing within a query is known, and the models stay in the mean's order."""
    p = planted(queries=40, models=10)
    order = np.nanmean(scores(p, "mean"), axis=0)
    for seed, count in ((0, 10), (1, 20), (2, 30)):
        weight = np.asarray(thinned(p, 1, seed).data.weight_QM).copy()
        weight[np.random.default_rng(seed).permutation(40)[count:]] = 0
        few = Panel(p.sessions, p.models, p.counts, p.data._replace(weight_QM=weight))
        assert few.labelled.sum() <= count
        got, error = score_panel(few, "ridge", fit_panel(few, "ridge"))
        assert spearmanr(np.nanmean(got, axis=0), order).statistic > 0.9
        assert np.isfinite(error[p.data.graded_QM]).all() and np.nanmax(error) < 20
        asked = ask(few, 5)
        assert all(g > 0 for _, _, g in asked) and len({s for s, _, _ in asked}) > 1


def test_equal_labels_are_refused():
    p = planted()
    same = Panel(p.sessions, p.models, p.counts, p.data._replace(label_QM=np.full_like(p.data.label_QM, 7)))
    with pytest.raises(RocketError, match="labels are 7, so there is nothing that head 'ridge' could learn"):
        fit_panel(same, "ridge")
    assert all(np.isnan(c.mean("mae")) and "labels are 7" in c.failed for c in compare(same, ["ridge"], 2))


def test_the_error_of_one_item_is_not_known(tmp_path):
    p = whole(np.random.default_rng(0).random((3, 5, 1)), np.full((3, 5), np.nan))
    for name in ("mean", "label-free"):
        assert np.isnan(score_panel(p, name, fit_panel(p, name))[1]).all()


def test_saturated_judges_keep_their_errors():
    """p within a thousandth of .99: the error in f32 is that of the same numbers moved to where f32 is at ease."""
    rng = np.random.default_rng(0)
    shape, label = rng.normal(size=(20, 8, 5)), rng.normal(5, 2, (20, 8))
    label[:, 5:] = np.nan
    found = []
    for center, size in ((0.99, 0.001), (0.5, 0.1)):
        p = whole(center + size * shape, label)
        found.append(score_panel(p, "ridge", fit_panel(p, "ridge"))[1])
    np.testing.assert_allclose(found[0], found[1], rtol=0.02)


def test_which_queries_decide_depends_on_labels_and_names_alone():
    rng = np.random.default_rng(0)
    weight = np.zeros((700, 4), np.float32)
    weight[1::2] = 1  # every other query has labels
    place = np.argsort(np.argsort([f"s{i}" for i in range(700)])).astype(np.int32)
    p_QMI = np.zeros((700, 4, 1), np.float32)
    d = Data(p_QMI, None, None, None, jnp.asarray(weight), jnp.asarray(place), None)
    chosen = np.asarray(linear.some_queries(d, 300))
    assert len(set(chosen)) == 300 and weight[chosen].all()
    order = rng.permutation(700)
    moved = d._replace(weight_QM=jnp.asarray(weight[order]), place_Q=jnp.asarray(place[order]))
    assert set(order[np.asarray(linear.some_queries(moved, 300))]) == set(chosen)
    assert np.ptp(place[chosen]) > 600, "from all over the alphabet"


@pytest.mark.slow
def test_a_flat_judge_makes_no_nan():
    """A judge that says the same of everything: every head still gives the labels' level."""
    rng = np.random.default_rng(0)
    p = whole(np.full((Q, M, WIDTH), 0.5), rng.normal(5, 1, (Q, M)))
    for name in NAMES:
        assert np.isfinite(scores(p, name)).all(), name


@pytest.mark.slow
def test_scipy_agrees_on_the_pairwise_head():
    """The pairwise fit is a minimum: scipy, begun there, finds nothing better of the same function."""
    p = planted(queries=3)
    fitted = descent.fit_weights(p.data, True, False, 0.0, steps=3000)
    base = np.asarray(fitted.weight_QI)
    b = linear.basis(p.data)
    u, _ = linear.parts(b, p.data)
    slope = linear.pooled(u, p.data).slope
    d = jax.tree.map(np.asarray, p.data)
    rest, _, _ = (np.asarray(x) for x in descent.standard_rest(p.data))
    u = np.asarray(descent.centered(u, p.data))
    noise = np.sqrt((d.weight_QM * (rest - float(slope) * u) ** 2).sum() / d.weight_QM.sum())
    strength = np.maximum(np.asarray(linear.fit_ridge(p.data).strength_3), 1e-3)

    def loss(flat):
        w = flat.reshape(base.shape) * d.item_QI
        total = 0.0
        for q in range(3):
            n = p.counts[q]
            unit = 1 / (float(b.u_size) * n)
            x = w[q, :n] / unit
            s = 1.814 / noise * d.p_QMI[q, :, :n] @ w[q, :n]
            known = np.flatnonzero(d.weight_QM[q])
            for i in known:
                for j in known:
                    if d.label_QM[q, i] > d.label_QM[q, j]:
                        total += np.logaddexp(0, s[j] - s[i]) / max(len(known) - 1, 1)
            own = (x - x.mean()) * unit * float(b.v_size)
            total += ((x.mean() - float(slope)) ** 2 / strength[1] + (own**2).sum() / strength[2]) / (2 * noise**2)
        return total

    better = minimize(loss, base.ravel().astype(float), method="L-BFGS-B").fun
    assert loss(base.ravel()) < better + 1e-3 * abs(better)
