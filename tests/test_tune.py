"""Tuning: gradients against finite differences, data against its rules, and training that survives being killed."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import pytest
from fakes import tiny_judge
from tune_child import word_bench

from rocketjax.bench import Checklist, Label, Response
from rocketjax.errors import RocketError
from rocketjax.grade import Judge
from rocketjax.judge import Row, adapter_paths, attention, init_adapter, load_adapter, merge
from rocketjax.prompt import NATIVE, Prompter
from rocketjax.rank.metrics import accuracy, auc, bootstrap, brier, ece
from rocketjax.tune import Recipe, Source, collect, train, tune
from rocketjax.tune.data import Packer, TrainRow, batches, epoch_rows, groups, steps
from rocketjax.tune.loss import Head, init_head, losses, outputs, response_scores
from rocketjax.tune.step import Learner, Optimizer, Params, data_mesh, trainable, with_weights
from rocketjax.tune.train import learning_rate, mean_losses, step_scale

RANK = 4
RECIPE = Recipe(
    rank=RANK, batch_tokens=3000, max_tokens=400, held_out=0.25, eval_every=2, learning_rate=1e-2, responses=2, epochs=2
)


# Attention with a reverse mode.


def random_tree(rng: np.random.Generator, T: int, window: int) -> attention.Tree:
    """A random forest in depth-first order: each token hangs on some token of the path before it."""
    end, start = np.arange(1, T + 1), np.zeros(T, int)
    path: list[int] = []
    for i in range(T):
        while path and rng.random() < 0.2:
            path.pop()
        path.append(i)
        start[i] = path[max(0, len(path) - window)] if window else 0
        for j in path:
            end[j] = i + 1
    return attention.Tree(jnp.asarray(end), jnp.asarray(start))


@pytest.mark.parametrize("T", [128, 256])
@pytest.mark.parametrize("window", [0, 5])
def test_chunked_equals_plain_with_its_gradients(T, window):
    """f32 to 1e-5. In bf16 both round operands to 8 bits, at different places: 2% of the largest value."""
    rng = np.random.default_rng(T + window)
    tree, local = random_tree(rng, T, window), bool(window)
    q, d = (jnp.asarray(rng.normal(size=(T, 4, 8)), jnp.float32) for _ in range(2))
    k, v = (jnp.asarray(rng.normal(size=(T, 2, 8)), jnp.float32) for _ in range(2))

    def with_gradients(attend, dtype):
        def loss(q, k, v):
            out = attend(q, k, v)
            return (out * d).sum(), out

        both = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))
        (_, out), grads = both(q, k.astype(dtype), v.astype(dtype))
        return out, *grads

    plain = lambda q, k, v: attention.plain(q, k, v, jnp.arange(T), tree, local)  # noqa: E731
    chunked = lambda q, k, v: attention.chunked(q, k, v, tree, local)  # noqa: E731
    exact = with_gradients(plain, jnp.float32)
    for a, b in zip(with_gradients(chunked, jnp.float32), exact, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    for a, b in zip(with_gradients(chunked, jnp.bfloat16), exact, strict=True) if T > 128 else ():
        assert float(jnp.abs(a.astype(jnp.float32) - b).max()) < 0.02 * float(jnp.abs(b).max())


@pytest.mark.parametrize("spec", ["td,df->tf", "skgh,tkh->kgst", "kgst,tkh->skgh"])
def test_the_gradient_of_products_is_that_of_einsum(spec):
    sizes, rng = dict(t=5, d=3, f=4, s=6, k=2, g=3, h=7), np.random.default_rng(0)
    terms, out = spec.split("->")
    a, b = (jnp.asarray(rng.normal(size=[sizes[c] for c in t]), jnp.float32) for t in terms.split(","))
    d = jnp.asarray(rng.normal(size=[sizes[c] for c in out]), jnp.float32)
    ours = jax.grad(lambda a, b: (attention.products(a, b, spec) * d).sum(), (0, 1))(a, b)
    theirs = jax.grad(lambda a, b: (jnp.einsum(spec, a, b, precision="highest") * d).sum(), (0, 1))(a, b)
    for x, y in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)
    # Operands of bf16 have cotangents of their own dtypes.
    x, y = jax.grad(lambda a, b: (attention.products(a, b, spec) * d).sum(), (0, 1))(a, b.astype(jnp.bfloat16))
    assert (x.dtype, y.dtype) == (jnp.float32, jnp.bfloat16)


# The objective.


def packer_of(judge: Judge, *sources: Source, held_out: float = 0.0, max_tokens: int = 400) -> Packer:
    corpus = collect(sources, held_out, 0)
    prompter = Prompter(judge.tokenizer, NATIVE, max_tokens, "truncate-middle")
    return Packer(corpus, prompter, 1024, 1024, judge.model.config.window)


def all_losses(judge: Judge, queries: int = 10) -> tuple[Packer, list[TrainRow]]:
    """Rows in which every loss has something to say."""
    bench, rng = word_bench(queries, models=2), np.random.default_rng(0)
    checklists = {s: Checklist(s, ("Short?", "alpha?")) for s in bench.queries}

    def label(s, m):
        items = tuple(float(x) for x in rng.choice([0.0, 0.25, 1.0], 2))
        return Label(s, m, "x", float(rng.normal()), items)

    labels = {"x": {m: {s: label(s, m) for s in bench.queries} for m in bench.models}}
    bench = msgspec.structs.replace(bench, checklists=checklists, labels=labels)
    packer = packer_of(judge, Source("x", bench, "x", pairs=1.0, scores=0.5))
    rows = epoch_rows(packer, 0, 0, 2)
    targets = [row.targets for row in rows]
    assert all(any(getattr(t, n).any() for t in targets) for n in ("weight_L", "pair_weight_L", "score_weight_L"))
    return packer, rows


def noisy(tree, rng, size=0.1):
    return jax.tree.map(lambda a: a + jnp.asarray(rng.normal(0, size, a.shape), a.dtype), tree)


def learner_of(judge: Judge, packer: Packer, devices: int, method: str = "lora", mesh=None, **options) -> Learner:
    """A learner away from its start: both halves of the adapter and the head's weights are not zero."""
    rng, model = np.random.default_rng(1), judge.model
    head = noisy(init_head(len(packer.corpus.items), 1), rng)
    if method == "full":
        params, scale = Params(trainable(model, 0), head), None
    else:
        fresh = init_adapter(model, adapter_paths(model.config), RANK, 2.0, jax.random.key(0))
        params, scale = Params(noisy(fresh.pairs, rng, 0.05), head), fresh.scale
    mesh = mesh or data_mesh(jax.devices()[:devices])
    return Learner(model, judge.tokenizer.answer_ids(), params, scale, Optimizer(), mesh, **options)


def whole_batch(rows: list[TrainRow]):
    """All rows, which have one length, in one batch without padding rows."""
    ((batch, _),) = batches(rows, lambda length: len(rows))
    return jax.tree.map(jnp.asarray, batch)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_gradients_equal_finite_differences(method):
    """Through judge and head together, along random directions of each kind of parameter, with every loss on."""
    judge = tiny_judge()
    packer, rows = all_losses(judge, queries=1)
    learner = learner_of(judge, packer, 1, method)
    batch = whole_batch(rows)
    scale = step_scale(Recipe(), rows)
    assert min(scale) > 0
    # One program for both: what is wanted of it is cheap against compiling it.
    both = jax.jit(jax.value_and_grad(lambda p, m, b: learner.objective(p, m, b, scale)[0]))
    _, gradient = both(learner.params, judge.model, batch)

    def value(params):
        return both(params, judge.model, batch)[0]

    rng = np.random.default_rng(2)

    def direction(keep):
        """Random where `keep` says so by the path of the leaf, 0 elsewhere, of the leaves' own sizes."""

        def one(path, g):
            size = float(jnp.sqrt(jnp.mean(g * g)))
            name = jax.tree_util.keystr(path)
            # Half along the gradient, so that the derivative is large against the rounding of f32.
            return keep(name) * (g / (size or 1.0) + jnp.asarray(rng.normal(size=g.shape), jnp.float32))

        return jax.tree_util.tree_map_with_path(one, gradient)

    kinds = ["log_weight_I", "slope_S", "shift_S", *([".down", ".up", "blocks.2.q"] if method == "lora" else [])]
    kinds += ["blocks.0", "blocks.1", *(["embed_VD", "final_norm_D"] if method == "full" else [])]
    for kind in kinds:
        d = direction(lambda name, kind=kind: float(kind in name))
        slope = sum(float((a * b).sum()) for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(d), strict=True))
        assert slope > 0, kind
        # A step that changes the loss by about 1e-2: far above f32's rounding, far below its curvature.
        h = min(5e-3 / slope, 0.1)

        def at(t, d=d):
            return float(value(jax.tree.map(lambda p, x: p + t * x, learner.params, d)))

        # Central differences, with their error of second order taken out (Richardson).
        coarse, fine = ((at(t) - at(-t)) / (2 * t) for t in (2 * h, h))
        assert (4 * fine - coarse) / 3 == pytest.approx(slope, rel=1e-2), kind


def test_the_losses_by_hand():
    """One row of a real batch: every sum again in numpy."""
    judge = tiny_judge()
    _, rows = all_losses(judge, queries=1)
    row = rows[0]
    t = row.targets
    head = Head(jnp.linspace(-1, 1, len(init_head(1, 1).log_weight_I)), jnp.full(16, 0.7), jnp.full(16, 0.2))
    L = len(t.used_L)
    rng = np.random.default_rng(0)
    margin, mass = rng.normal(size=L), -rng.random(L)
    got = losses(outputs_of(margin, mass), head, t)
    used = t.used_L > 0
    p = 1 / (1 + np.exp(-margin))
    bce = -(t.target_L * np.log(p) + (1 - t.target_L) * np.log(1 - p))
    assert got.items == pytest.approx((t.weight_L * bce).sum(), rel=1e-5)
    assert got.mass == pytest.approx(-mass[used].sum(), rel=1e-5)
    weight = np.exp(np.asarray(head.log_weight_I)[t.item_L])
    score = {r: 9 * np.average(p[own], weights=weight[own]) + 1
             for r in set(t.response_L[used].tolist()) for own in [used & (t.response_L == r)]}  # fmt: skip
    ((better, worse),) = [(b, w) for b, w, x in zip(t.better_L, t.worse_L, t.pair_weight_L, strict=True) if x]
    assert t.score_L[better] > t.score_L[worse]
    assert got.pairs == pytest.approx(np.log1p(np.exp(-(score[better] - score[worse]))), rel=1e-5)
    error = [0.7 * (s - 5.5) + 0.2 - t.score_L[r] for r, s in score.items()]
    assert got.scores == pytest.approx(0.5 * np.square(error).sum(), rel=1e-5)
    mean = response_scores(init_head(1, 1), jnp.asarray(p, jnp.float32), t._replace(item_L=np.zeros(L, np.int32)))
    for r in score:
        assert mean[r] == pytest.approx(9 * p[used & (t.response_L == r)].mean() + 1, rel=1e-5)


def outputs_of(margin, mass):
    from rocketjax.tune.loss import Outputs

    return Outputs(jnp.asarray(margin, jnp.float32), jnp.asarray(mass, jnp.float32))


def test_training_and_grading_see_the_same_judge():
    """The training pass at every leaf against the grading pass by another kernel; `remat` changes nothing."""
    judge = tiny_judge()
    _, rows = all_losses(judge, queries=1)
    row = Row(*(jnp.asarray(getattr(rows[0].row, name)) for name in Row._fields))
    yes, no = (np.asarray(ids) for ids in judge.tokenizer.answer_ids())
    run = jax.jit(outputs, static_argnames=("kernel", "remat"))
    logits = np.asarray(jax.jit(lambda row: judge.model(row, "plain"))(row), np.float64)
    mass = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    p_yes, p_no = mass[:, yes].sum(1), mass[:, no].sum(1)
    for remat in (False, True):
        out = run(judge.model, None, row, yes, no, remat=remat)
        np.testing.assert_allclose(out.margin_L, np.log(p_yes / p_no), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(out.log_mass_L, np.log(p_yes + p_no), rtol=1e-4, atol=1e-4)


# The step on several devices.


def leaves(tree) -> list[np.ndarray]:
    return [np.asarray(a) for a in jax.tree.leaves(jax.device_get(tree))]


def test_eight_devices_train_like_one():
    """Three steps; each device keeps an eighth of what is trained and of both moments of Adam."""
    judge = tiny_judge()
    packer, rows = all_losses(judge)
    after = []
    for devices in (1, 8):
        learner = learner_of(judge, packer, devices)
        made = [batch for batch, _ in batches(rows, learner.multiple)]
        before, sums = leaves(learner.params.weights), []
        for step in range(3):
            sums.append(learner.step(made, step_scale(Recipe(), rows), 1e-3, 1e-2))
            if step == 0:
                # From rest AdamW moves every weight by the rate, whatever the gradient's size.
                pairs = zip(before, leaves(learner.params.weights), strict=True)
                moved = np.concatenate([np.ravel(np.abs(a - b)) for a, b in pairs])
                assert np.median(moved) == pytest.approx(1e-3, rel=1e-2) and moved.max() < 1.01e-3
        after.append((leaves(learner.params), [x for s, norm in sums for x in (*s, norm)]))
        for leaf in jax.tree.leaves((learner.params, learner.state)):
            part = leaf.addressable_shards[0].data
            assert part.size == leaf.size // (devices if leaf.size >= 8 else 1), (leaf.shape, leaf.sharding)
            assert leaf.sharding.is_fully_replicated == (devices == 1 or leaf.size == 1)
    for a, b in zip(*(x for x, _ in after), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(after[0][1], after[1][1], rtol=1e-5)


def test_accumulated_gradients_are_those_of_the_sum():
    """Rows one by one, padding rows among them, against one differentiated sum over all rows."""
    judge = tiny_judge()
    packer, rows = all_losses(judge)
    scale = step_scale(Recipe(), rows)
    learner = learner_of(judge, packer, 8)
    made = [batch for batch, _ in batches(rows, learner.multiple)]
    assert len(made) == 2 and len(rows) == 10, "two calls, the second with six padding rows"
    grads = learner.zeros(learner.params)
    for batch in made:
        grads, _ = learner.accumulate(grads, learner.params, learner.model, learner.put(batch), scale)
    at_once = jax.jit(jax.grad(lambda p, m, b: learner.objective(p, m, b, scale)[0]))
    expected = at_once(jax.device_get(learner.params), judge.model, whole_batch(rows))
    for a, b in zip(leaves(grads), leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * max(1.0, np.abs(b).max()))


def test_the_learning_rate_rises_and_falls():
    recipe = Recipe(learning_rate=2.0, warmup=0.1)
    at = [learning_rate(recipe, x) for x in (0.0, 0.05, 0.1, 0.55, 1.0)]
    np.testing.assert_allclose(at, [0.0, 1.0, 2.0, 1.0, 0.0], atol=1e-12)
    assert learning_rate(Recipe(warmup=0.0, learning_rate=2.0), 0.0) == 2.0


# The data.


def leaf_texts(row: TrainRow) -> list[str]:
    """The prompt of every asked leaf, read back from the packed tokens."""
    r, tokenizer = row.row, tiny_judge_tokenizer
    out = []
    for leaf in r.leaf_L[: len(r.owners)]:
        path = [j for j in range(leaf + 1) if leaf < r.end_T[j]]
        out.append(tokenizer.decode([int(x) for x in r.token_T[path]]))
    return out


tiny_judge_tokenizer = tiny_judge().tokenizer


def between(text: str, name: str) -> str:
    return text.split(f"<{name}>\n")[1].split(f"\n</{name}>")[0]


def rows_of(source: Source, epoch: int = 0, seed: int = 0, size: int = 2, **options) -> list[TrainRow]:
    return epoch_rows(packer_of(tiny_judge(), source, **options), seed, epoch, size)


def content(rows: list[TrainRow]) -> list[bytes]:
    return [row.row.token_T.tobytes() + b"".join(np.asarray(a).tobytes() for a in row.targets) for row in rows]


def test_the_held_out_part_is_stable_and_never_trained_on():
    small, large = (collect([Source("w", word_bench(n), "truth")], 0.3, 0) for n in (20, 60))

    def sessions(answers):
        return {a.session_id for a in answers[0]}

    first = sessions(small.train) | sessions(small.held_out)
    assert sessions(large.held_out) & first == sessions(small.held_out)
    assert not sessions(large.held_out) & sessions(large.train) and 8 <= len(sessions(large.held_out)) <= 28
    assert sessions(collect([Source("w", word_bench(60), "truth")], 0.3, 1).held_out) != sessions(large.held_out)
    source = Source("w", word_bench(20), "truth", share=2.0, mismatched=1.0, reference="support")
    for epoch in range(2):
        text = "".join(t for row in rows_of(source, epoch, held_out=0.3) for t in leaf_texts(row))
        assert all(f"Say {s}." in text for s in sessions(small.train))
        for s in sessions(small.held_out):
            assert s not in text, "neither its query nor its references"
    with pytest.raises(RocketError, match="no labelled response is left to train on; lower the held-out part"):
        collect([Source("w", word_bench(3), "truth")], 0.999, 0)


def test_every_prompt_has_the_labelers_word_for_it():
    """Texts read back from the rows against the rule that made the labels; scores standardised, pairs ordered."""
    bench = word_bench(10)
    rows = rows_of(Source("w", bench, "truth", pairs=2.0, scores=0.5))
    truth = bench.labels["truth"]
    given = [truth[m][s].score for m in truth for s in truth[m]]
    pairs = 0
    for row in rows:
        t = row.targets
        texts = leaf_texts(row)
        assert t.used_L.sum() == len(texts) and not t.weight_L[len(texts) :].any()
        scores = {}
        for leaf, text in enumerate(texts):
            assert t.target_L[leaf] == ("alpha" in between(text, "response")) and t.weight_L[leaf] == 1
            session, model = between(text, "query")[4:-1], f"model-{between(text, 'response')[-1]}"
            scores[t.response_L[leaf]] = (truth[model][session].score - np.mean(given)) / np.std(given)
        for r, score in scores.items():
            assert t.score_L[r] == pytest.approx(score, abs=1e-6) and t.score_weight_L[r] == 0.5
        assert t.score_weight_L.sum() == 0.5 * len(scores)
        for better, worse, weight in zip(t.better_L, t.worse_L, t.pair_weight_L, strict=True):
            if weight:
                assert weight == 2.0 and scores[better] > scores[worse]
                assert len({between(text, "query") for text in texts}) == 1
                pairs += 1
    assert pairs == 20, "four responses of different score make two pairs per query"


def test_an_epoch_is_a_function_of_its_seed_and_number():
    source = Source("w", word_bench(12), "truth", share=0.5, mismatched=0.5, reference="drop")
    assert content(rows_of(source)) == content(rows_of(source))
    assert content(rows_of(source)) != content(rows_of(source, epoch=1)) != content(rows_of(source, seed=1))


@pytest.mark.parametrize("share", [0.25, 1.0, 2.5])
def test_share_is_the_number_of_times_that_a_response_is_seen(share):
    rows = rows_of(Source("w", word_bench(20), "truth", share=share), size=1)
    asked = sum(row.targets.weight_L.sum() for row in rows)
    assert asked == 80 * share
    seen = [text for row in rows for text in leaf_texts(row)]
    counts = {text: seen.count(text) for text in seen}
    assert set(counts.values()) <= {int(share), int(np.ceil(share))} - {0}


def test_mismatched_responses_are_answered_by_no():
    """The model's digit ends every response: the response to w003 is never shown beside it as a mismatch."""
    bench = word_bench(20)
    responses = {
        m: {s: Response(s, m, f"{r.text} {s}", None) for s, r in by.items()} for m, by in bench.responses.items()
    }
    bench = msgspec.structs.replace(bench, responses=responses)
    rows = rows_of(Source("w", bench, "truth", mismatched=0.5, scores=1.0), size=1)
    natural = wrong = 0
    for row in rows:
        (text,) = leaf_texts(row)
        if between(text, "response").endswith(between(text, "query")[4:-1]):
            natural += 1
        else:
            wrong += 1
            assert row.targets.target_L[0] == 0 and row.targets.weight_L[0] == 1
            assert not row.targets.score_weight_L.any()
    assert (natural, wrong) == (80, 40)


def relabelled(bench, items, score=None):
    """The benchmark with these item labels for every response."""
    labels = {m: {s: Label(s, m, "truth", score, items) for s in bench.queries} for m in bench.models}
    return msgspec.structs.replace(bench, labels={"truth": labels})


@pytest.mark.parametrize("mismatched", [0.0, 0.5])
def test_balance_gives_yes_and_no_the_same_weight(mismatched):
    rows = rows_of(Source("w", lopsided(), "truth", balance=True, mismatched=mismatched), size=1)
    target, weight = (np.concatenate([getattr(r.targets, n) for r in rows]) for n in ("target_L", "weight_L"))
    yes, no = weight[target == 1].sum(), weight[(target == 0) & (weight > 0)].sum()
    assert yes == pytest.approx(no) and yes + no == pytest.approx(40 * (1 + mismatched))
    assert (target == 1).sum() == 10


def test_a_natural_prior_takes_out_what_mismatched_responses_add():
    """30 no and 10 yes by nature, 20 no more put in: the odds of yes fall from 10/30 to 10/50, and training adds that
    to the margin. Held-out rows have no mismatched responses, so nothing is added there."""
    for prior, expected in (("mixed", 0.0), ("natural", np.log(30.5 / 50.5))):
        source = Source("w", lopsided(), "truth", mismatched=0.5, prior=prior)
        rows = rows_of(source, size=1)
        asked = [r.targets.weight_L > 0 for r in rows]
        shift = np.concatenate([r.targets.shift_L[a] for r, a in zip(rows, asked, strict=True)])
        assert len(shift) == 60 and shift == pytest.approx(expected)
        packer = packer_of(tiny_judge(), source)
        assert not any(r.targets.shift_L.any() for r in packer.rows(packer.corpus.train[0][:1]))
    row = rows[0]
    margin = np.linspace(-1, 1, len(row.targets.used_L)).astype(np.float32)
    got = losses(outputs_of(margin, np.zeros_like(margin)), init_head(1, 1), row.targets)
    z, t = margin + row.targets.shift_L, row.targets.target_L
    bce = -(t * np.log(1 / (1 + np.exp(-z))) + (1 - t) * np.log(1 / (1 + np.exp(z))))
    assert got.items == pytest.approx((row.targets.weight_L * bce).sum(), rel=1e-5)


def test_even_lengths_let_the_shorter_response_win_as_often():
    """Three queries where the longer response is better, one where the shorter is."""
    bench = word_bench(4, models=2)
    text = {"model-0": "long " * 9, "model-1": "short"}
    responses = {m: {s: Response(s, m, f"{text[m]} {m}", None) for s in by} for m, by in bench.responses.items()}
    better = {s: "model-0" if i else "model-1" for i, s in enumerate(sorted(bench.queries))}
    labels = {m: {s: Label(s, m, "truth", float(better[s] == m), (1.0,)) for s in bench.queries} for m in bench.models}
    bench = msgspec.structs.replace(bench, responses=responses, labels={"truth": labels})
    for even, weights in ((False, [3.0, 3.0, 3.0, 3.0]), (True, [2.0, 2.0, 2.0, 6.0])):
        rows = rows_of(Source("w", bench, "truth", items=0.0, pairs=3.0, even_lengths=even))
        assert sorted(float(w) for r in rows for w in r.targets.pair_weight_L if w) == pytest.approx(weights)


def lopsided():
    bench = word_bench(10)
    labels = {m: {s: Label(s, m, "truth", None, (float(m == "model-2"),)) for s in bench.queries} for m in bench.models}
    return msgspec.structs.replace(bench, labels={"truth": labels})


def test_soft_labels_and_missing_ones():
    (row, *_) = rows_of(Source("w", relabelled(word_bench(2), (0.25,)), "truth"), size=1)
    assert row.targets.target_L[0] == 0.25 and row.targets.weight_L[0] == 1
    with pytest.raises(RocketError, match="'truth' labels no items; set items = 0"):
        collect([Source("w", relabelled(word_bench(2), (None,), 1.0), "truth")], 0.0, 0)
    with pytest.raises(RocketError, match="'truth' gives no scores, which the pair and score losses need"):
        collect([Source("w", relabelled(word_bench(2), (1.0,)), "truth", pairs=1.0)], 0.0, 0)
    with pytest.raises(RocketError, match="w: has no labels by 'x'; labelers: truth"):
        collect([Source("w", word_bench(2), "x")], 0.0, 0)
    bench = word_bench(2)
    del bench.labels["truth"]["model-0"]["w000"]
    assert collect([Source("w", bench, "truth")], 0.0, 0).counts[0]["without_label"] == 1
    # A tie says nothing to the pair loss, and a row that says nothing is not computed.
    assert not rows_of(Source("w", relabelled(word_bench(2), None, 3.0), "truth", items=0.0, pairs=1.0))


def test_equal_responses_share_a_leaf_with_their_mean_label():
    bench = word_bench(1)
    same = {m: {s: Response(s, m, "the same", None) for s in by} for m, by in bench.responses.items()}
    labels = {m: {s: Label(s, m, "truth", None, (float(m != "model-0"),)) for s in bench.queries} for m in bench.models}
    bench = msgspec.structs.replace(bench, responses=same, labels={"truth": labels})
    (row,) = rows_of(Source("w", bench, "truth"), size=4)
    assert len(leaf_texts(row)) == 1 and row.targets.target_L[0] == 0.75 and row.targets.weight_L[0] == 4


def test_a_pair_too_long_for_a_row_takes_a_longer_one_or_is_counted():
    bench = word_bench(1, models=2)
    long = {m: {s: Response(s, m, f"{m} " + "x" * 500, None) for s in by} for m, by in bench.responses.items()}
    bench, judge = msgspec.structs.replace(bench, responses=long), tiny_judge()
    corpus = collect([Source("w", bench, "truth", pairs=1.0)], 0.0, 0)
    prompter = Prompter(judge.tokenizer, NATIVE, 1024, "truncate-middle")
    for longest_pair, rows_, apart in ((2048, 1, 0), (1024, 2, 1)):
        packer = Packer(corpus, prompter, 1024, longest_pair, 0)
        rows = epoch_rows(packer, 0, 0, 1)
        assert len(rows) == rows_ and sum(r.targets.pair_weight_L.sum() for r in rows) == 1 - apart
        assert packer.counts["pairs_apart"] == apart and packer.counts["responses"] == 2


def test_a_response_spread_over_rows_has_no_score_in_any():
    bench, judge = word_bench(1, models=2), tiny_judge()
    items = {s: Checklist(s, tuple(f"{i} " + "y" * 150 for i in range(4))) for s in bench.queries}
    labels = {"truth": {"model-0": {s: Label(s, "model-0", "truth", 1.0, (1.0,) * 4) for s in bench.queries}}}
    bench = msgspec.structs.replace(bench, checklists=items, labels=labels)
    corpus = collect([Source("w", bench, "truth", scores=1.0)], 0.0, 0)
    prompter = Prompter(judge.tokenizer, NATIVE, 1024, "truncate-middle")
    for longest, whole in ((2048, True), (768, False)):
        packer = Packer(corpus, prompter, longest, longest, 0)
        rows = epoch_rows(packer, 0, 0, 1)
        assert (len(rows) == 1) == whole and sum(r.targets.weight_L.sum() for r in rows) == 4
        assert sum(r.targets.score_weight_L.sum() for r in rows) == whole
        assert (packer.counts["scores_apart"] > 0) != whole


def test_pairs_have_different_scores_and_the_rest_stands_alone():
    bench = word_bench(1, models=5)
    scores = (1.0, 1.0, 2.0, None, None)
    labels = {f"model-{i}": {"w000": Label("w000", f"model-{i}", "truth", x, (1.0,))} for i, x in enumerate(scores)}
    bench = msgspec.structs.replace(bench, labels={"truth": labels})
    corpus = collect([Source("w", bench, "truth", pairs=1.0)], 0.0, 0)
    for seed in range(10):
        made = groups(corpus.train[0], 4, True, np.random.default_rng(seed))
        assert sorted(a.model for group in made for a in group) == bench.models
        assert sorted(map(len, made)) == [1, 1, 1, 2], "the two without a score take nobody's partner"
        ((a, b),) = [group for group in made if len(group) == 2]
        assert abs(a.score - b.score) > 0


def test_long_responses_are_cut_in_their_middle_and_stay_labelled():
    bench = word_bench(1)
    long = {m: {s: Response(s, m, f"BEGIN {'x' * 900} END", None) for s in by} for m, by in bench.responses.items()}
    (row, *_) = rows_of(Source("w", msgspec.structs.replace(bench, responses=long), "truth"), size=1)
    (text,) = leaf_texts(row)
    assert 390 <= row.row.tokens <= 400, "one leaf: the row is its prompt"
    assert "BEGIN" in text and "END\n</response>" in text and row.targets.weight_L[0] > 0


def test_references_are_shown_always_or_half_of_the_time():
    for how, low, high in (("none", 0, 0), ("support", 160, 160), ("drop", 50, 110)):
        source = Source("w", word_bench(40), "truth", reference=how)
        texts = [text for row in rows_of(source, size=1) for text in leaf_texts(row)]
        shown = [text for text in texts if "<reference>" in text]
        assert len(texts) == 160 and low <= len(shown) <= high, (how, len(shown))
        for text in shown:
            session = between(text, "query")[4:-1]
            assert between(text, "reference") in (f"REF {session} one", f"REF {session} two")
            assert text.index("</query>") < text.index("<reference>") < text.index("<response>")
        assert not shown or {between(text, "reference")[-3:] for text in shown} == {"one", "two"}
    for row in rows_of(source, size=4):
        assert len({"<reference>" in text for text in leaf_texts(row)}) == 1, "responses of one row see the same"


def test_steps_and_batches_keep_every_row_once():
    rows = rows_of(Source("w", word_bench(9), "truth"), size=1)
    made = steps(rows, 1000)
    assert [row for step in made for row in step] == rows
    assert all(sum(r.length for r in step[:-1]) < 1000 <= sum(r.length for r in step) for step in made[:-1])
    total = 0.0
    for batch, real in batches(rows, lambda length: 8):
        assert len(batch.row.token_T) == 8
        for a in (batch.targets.weight_L, batch.targets.used_L, batch.targets.pair_weight_L):
            assert not a[real:].any(), "what fills a batch up has no weight"
        total += batch.targets.weight_L.sum()
    assert total == 36


# Figures.


def test_auc_equals_all_pairs():
    rng = np.random.default_rng(0)
    for _ in range(20):
        p, label = rng.integers(0, 6, 40) / 5, rng.choice([0.0, 0.3, 0.5, 0.8, 1.0], 40)
        wins = [(a > b) + 0.5 * (a == b) for a in p[label > 0.5] for b in p[label < 0.5]]
        assert auc(p, label) == pytest.approx(np.mean(wins), abs=1e-12)
    assert np.isnan(auc(np.ones(3), np.ones(3))) and np.isnan(auc(np.ones(2), np.full(2, 0.5)))


def test_calibration_by_hand():
    p, label = np.asarray([0.0, 0.05, 0.95, 1.0, 0.5]), np.asarray([0.0, 1.0, 1.0, 0.0, 0.5])
    assert brier(p, label) == pytest.approx((0 + 0.95**2 + 0.05**2 + 1 + 0) / 5)
    # Bins: [0, 0.05] says 0.025 against 0.5; [0.95, 1] says 0.975 against 0.5; [0.5] is right.
    assert ece(p, label) == pytest.approx(2 / 5 * 0.475 + 2 / 5 * 0.475)
    assert accuracy(p, label) == 0.5
    assert np.isnan(accuracy(np.asarray([0.2]), np.asarray([0.5])))


def test_bootstrap_draws_whole_groups():
    rng = np.random.default_rng(0)
    x = rng.normal(size=400)
    mean = lambda x: float(np.mean(x))  # noqa: E731
    low, high = bootstrap(mean, np.arange(400), x)
    assert low < x.mean() < high and high - low == pytest.approx(2 * 1.96 * x.std() / 20, rel=0.15)
    assert bootstrap(mean, np.arange(400), x) == (low, high)
    # Copies of a value within a group tell nothing new.
    again = bootstrap(mean, np.repeat(np.arange(400), 5), np.repeat(x, 5))
    assert again[1] - again[0] == pytest.approx(high - low, rel=0.1)


# Training as a whole.


def log_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A tiny judge, tuned on responses that repeat one of two words."""
    folder = tmp_path_factory.mktemp("tuned") / "out"
    seen = []
    result = tune(tiny_judge(), [Source("w", word_bench(), "truth")], folder, RECIPE, progress=seen.append)
    return folder, result, seen


def test_a_tiny_judge_learns_what_the_labeler_knows(tuned):
    folder, result, seen = tuned
    log = log_of(folder)
    train_lines, held_out = [x for x in log if "rate" in x], [x for x in log if "held_out" in x]
    assert [x["step"] for x in train_lines] == list(range(1, result.steps + 1)) == [p.step for p in seen]
    assert train_lines[-1]["loss"] < 0.3 * train_lines[0]["loss"]
    assert held_out[0]["step"] == 0 and held_out[-1]["step"] == result.steps and not result.stopped_early
    assert held_out[-1]["loss"] < 0.3 * held_out[0]["loss"]
    assert min(held_out, key=lambda x: x["loss"])["step"] == result.best_step == result.held_out["step"]
    figures = held_out[-1]["held_out"]["w"]
    assert figures["auc"] > 0.95 > 0.6 > held_out[0]["held_out"]["w"]["auc"]
    assert figures["labels"] > 0 and {"items", "mass", "accuracy", "majority", "mean_p", "mean_label"} <= figures.keys()
    meta = json.loads((folder / "tune.json").read_text())
    assert meta["sources"][0]["data"]["responses"] == 4 * meta["sources"][0]["data"]["queries"]
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_the_adapter_that_was_kept_grades_better(tuned, tmp_path):
    """On other queries of the same kind, through grading: the labeler's order, which the base judge does not have."""
    folder, result, _ = tuned
    assert result.path == str(folder / "adapter")
    base, bench = tiny_judge(), word_bench(6, seed=9)
    adapter = load_adapter(folder / "adapter", base.model.config, base.sha256)
    assert adapter.scale == RECIPE.alpha / RECIPE.rank
    after = Judge(merge(base.model, adapter), base.tokenizer, "tuned", "tuned", "f32", base.path)
    found = []
    for judge in (base, after):
        rows = judge.grade(bench, models=bench.models[:2]).grades.to_pylist()
        label = np.asarray([bench.labels["truth"][r["model"]][r["session_id"]].items[r["item"]] for r in rows])
        found.append(auc(np.asarray([r["p_yes"] for r in rows]), label))
    assert found[1] > 0.95 and found[0] < 0.6, found


def test_a_folder_of_a_tuning_is_guarded(tuned, tmp_path):
    folder, result, _ = tuned
    judge, source = tiny_judge(), Source("w", word_bench(), "truth")
    before = {f: f.read_bytes() for f in folder.rglob("*") if f.is_file() and f.name != "loss.png"}
    with pytest.raises(RocketError, match=r"holds a tuning already\. Use --resume"):
        tune(judge, [source], folder, RECIPE)
    for other, message in (
        ((judge, [source], folder, msgspec.structs.replace(RECIPE, rank=5)), "recipe.rank: 4 there, 5 here"),
        ((judge, [replace(source, share=2.0)], folder, RECIPE), r"sources\.0\.share: 1\.0 there, 2\.0 here"),
        ((judge, [Source("w", word_bench(23), "truth")], folder, RECIPE), r"sources\.0\.sha256: "),
        ((tiny_judge(seed=1), [source], folder, RECIPE), "judge.weights_sha256"),
    ):
        with pytest.raises(RocketError, match=rf"was begun with other settings:[\s\S]*{message}"):
            tune(*other, mode="resume")
    again = tune(judge, [source], folder, RECIPE, mode="resume")
    assert again == result, "nothing is left to do"
    assert {f: f.read_bytes() for f in folder.rglob("*") if f.is_file() and f.name != "loss.png"} == before

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("do not touch")
    (tmp_path / "file").write_text("")
    for mode in ("new", "resume", "overwrite"):
        with pytest.raises(RocketError, match="is not empty and no tuning"):
            tune(judge, [source], tmp_path / "mine", RECIPE, mode)
        with pytest.raises(RocketError, match="is a file"):
            tune(judge, [source], tmp_path / "file", RECIPE, mode)
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "do not touch"


def test_overwriting_begins_anew_and_leaves_other_files(tmp_path):
    meta = {"a": 1}
    train.start(tmp_path / "out", meta, "new")
    for name in ("state", "adapter"):
        (tmp_path / "out" / name).mkdir()
        (tmp_path / "out" / name / "x").write_text("old")
    (tmp_path / "out" / "log.jsonl").write_text("old")
    (tmp_path / "out" / "thesis.tex").write_text("do not touch")
    train.start(tmp_path / "out", {"a": 2}, "overwrite")
    assert {f.name for f in (tmp_path / "out").iterdir()} == {"tune.json", "thesis.tex"}
    train.start(tmp_path / "out", {"a": 2}, "resume")


@pytest.mark.slow
def test_training_stops_where_nothing_is_gained(tmp_path):
    """A rate that does nothing: no evaluation is better than the first, so patience ends it, in whichever epoch."""
    recipe = msgspec.structs.replace(RECIPE, learning_rate=1e-30, head_learning_rate=1e-30, patience=2, epochs=4)
    source = Source("w", word_bench(), "truth")
    result = tune(tiny_judge(), [source], tmp_path / "out", recipe)
    assert result.stopped_early and (result.steps, result.best_step) == (4, 0)
    assert [x["step"] for x in log_of(tmp_path / "out") if "rate" in x] == [1, 2, 3, 4]
    assert tune(tiny_judge(), [source], tmp_path / "out", recipe, "resume") == result


def test_what_cannot_be_trained_is_said_before_a_folder_is_made(tmp_path):
    judge, source = tiny_judge(), Source("w", word_bench(4), "truth")
    for recipe, message in (
        (Recipe(max_tokens=9999), "max_tokens is 9999; tuning this judge takes 1 to 4096"),
        (Recipe(template="x"), "unknown template 'x'"),
        (Recipe(first_layer=3, max_tokens=400), "first_layer is 3; the judge has 3 layers"),
        (Recipe(targets=("x",), max_tokens=400), "unknown adapter targets x"),
    ):
        with pytest.raises(RocketError, match=message):
            tune(judge, [source], tmp_path / "out", recipe)
        assert not (tmp_path / "out").exists()
    with pytest.raises(RocketError, match="two sources have one name: w, w"):
        tune(judge, [source, source], tmp_path / "out", RECIPE)
    judge.adapted = True
    with pytest.raises(RocketError, match="carries an adapter already"):
        tune(judge, [source], tmp_path / "out", RECIPE)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rank": 0}, "rank is 0"), ({"alpha": float("inf")}, "alpha is inf"), ({"held_out": 1.0}, "held_out is 1.0"),
        ({"mass": -1.0}, "mass is -1.0"), ({"patience": 1, "held_out": 0.0}, "patience needs a held-out part"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"), ({"warmup": -0.1}, "warmup is -0.1"),
    ],
)  # fmt: skip
def test_recipes_out_of_range(values, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**values)


def test_weights_in_place_of_the_judges_own():
    model = tiny_judge().model
    count = len(jax.tree.leaves(model))
    model.stack_layers()  # as grading leaves it
    assert len(trainable(model, 0)) == count
    above = trainable(model, 2)
    assert {path.split(".")[1] for path in above} == {"2"} and len(above) == 13
    made = with_weights(model, {path: a + 1 for path, a in above.items()})
    np.testing.assert_array_equal(made.blocks[2].q_DNH[...], model.blocks[2].q_DNH[...] + 1)
    np.testing.assert_array_equal(made.blocks[1].q_DNH[...], model.blocks[1].q_DNH[...])


def test_means_and_scales():
    judge = tiny_judge()
    _, rows = all_losses(judge)
    recipe = Recipe(items=2.0, pairs=0.0, scores=3.0, mass=0.5)
    scale = step_scale(recipe, rows)
    items, scores, used = (
        sum(getattr(r.targets, n).sum() for r in rows) for n in ("weight_L", "score_weight_L", "used_L")
    )
    labels = 2 * items + 3 * scores
    assert scale == pytest.approx((2 / labels, 0, 3 / labels, 0.5 / used))
    silent = [replace(r, targets=r.targets._replace(score_weight_L=r.targets.score_weight_L * 0)) for r in rows]
    assert step_scale(recipe, silent).items == pytest.approx(1 / items)
    silent_row = losses(outputs_of(*np.zeros((2, len(silent[0].targets.used_L)))), init_head(1, 1), silent[0].targets)
    assert mean_losses(silent_row)["scores"] is None


# Kills.


def outcome(folder: Path):
    """What a resumed training must reproduce: result, losses, and the numbers of the newest state."""
    from orbax.checkpoint import v1 as ocp

    lines = [{k: v for k, v in line.items() if k != "seconds"} for line in log_of(folder)]
    adapter = {f.name: f.read_bytes() for f in (folder / "adapter").iterdir()}
    newest = sorted((folder / "state").glob("*.json"))[-1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # without shapes Orbax asks the file for them, and says so
        state = ocp.load(newest.with_suffix("").absolute())
    return lines, adapter, newest.name, newest.read_bytes(), {k: np.asarray(v).tobytes() for k, v in state.items()}


@pytest.mark.slow
def test_killed_and_resumed_ends_in_the_same_bytes(tmp_path):
    """SIGKILL when a file appears, from the first to the last, and at random moments; then to the end."""
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{here}{os.pathsep}{here.parent}", "JAX_NUM_CPU_DEVICES": "1"}
    environment["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path / "xla")
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    environment["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

    def child(folder: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, str(here / "tune_child.py"), str(folder)], env=environment)

    assert child(tmp_path / "whole").wait(300) == 0
    expected = outcome(tmp_path / "whole")
    last = max(line["step"] for line in expected[0])
    assert last >= 8

    broken, met = tmp_path / "broken", []
    moments = ["tune.json", "adapter", "state/00000000", "state/00000000.json", ".adapter.*.tmp", "state/00000002.json"]
    moments += ["state/00000004*", "state/00000006.json"]
    for moment in moments:
        there = set(broken.glob(moment))
        process = child(broken)
        deadline = time.monotonic() + 120
        while not set(broken.glob(moment)) - there and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.0005)
        process.send_signal(signal.SIGKILL)
        if process.wait() == -signal.SIGKILL:
            met.append(tuple(sorted(f.name for f in broken.glob("state/*.json"))))
    assert len(set(met)) > 3, met
    assert child(broken).wait(300) == 0
    assert outcome(broken) == expected
    assert not [f for f in broken.rglob("*") if ".tmp" in f.name or "orbax-checkpoint-tmp" in f.name]
    states = {f.stem for f in (broken / "state").glob("*.json")}
    assert {f.name for f in (broken / "state").iterdir() if f.is_dir()} == states and len(states) == 2
