"""One program from tokens and labels to the loss: each part of it alone and together, the rest fixed."""

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import pytest
from fakes import tiny_judge
from test_tune import leaves, noisy, whole_batch
from tune_child import word_bench

from rocketjax.bench import Checklist, Label
from rocketjax.judge import adapter_paths, init_adapter
from rocketjax.prompt import NATIVE, Prompter
from rocketjax.tune import (
    Learner,
    Optimizer,
    Packer,
    Params,
    Recipe,
    Source,
    batches,
    collect,
    data_mesh,
    epoch_rows,
    init_head,
    init_reading,
    init_soft,
    step_scale,
)

SOFT = (65, 66, 67)
PARTS = ("weights", "head", "reading", "soft_PD")


def rows_with(soft: int, queries: int = 1):
    """Rows of a few responses with items, scores and pairs to learn from."""
    bench, rng, judge = word_bench(queries, models=2), np.random.default_rng(0), tiny_judge()

    def label(s, m):
        return Label(s, m, "x", float(rng.normal()), tuple(float(x) for x in rng.integers(0, 2, 2)))

    # Two items: the weight of an only one has no gradient but rounding, which Adam would make large.
    checklists = {s: Checklist(s, ("Short?", "alpha?")) for s in bench.queries}
    labels = {m: {s: label(s, m) for s in bench.queries} for m in bench.models}
    bench = msgspec.structs.replace(bench, checklists=checklists, labels={"x": labels})
    corpus = collect([Source("x", bench, "x", pairs=1.0, scores=0.5)], 0.0, 0)
    prompter = Prompter(judge.tokenizer, NATIVE, 400, "truncate-middle")
    packer = Packer(corpus, prompter, 1024, 1024, judge.model.config.window, soft)
    return judge, packer, epoch_rows(packer, 0, 0, 2)


def learner(judge, packer, parts=PARTS, devices: int = 1) -> Learner:
    """A learner of these parts, away from its start."""
    rng, model = np.random.default_rng(1), judge.model
    fresh = init_adapter(model, adapter_paths(model.config), 4, 2.0, jax.random.key(0))
    made = {
        "weights": noisy(fresh.pairs, rng, 0.05), "head": noisy(init_head(len(packer.corpus.items), 1), rng),
        "reading": noisy(init_reading(), rng), "soft_PD": noisy(init_soft(model, SOFT), rng),
    }  # fmt: skip
    params = Params(**{part: made[part] for part in parts})
    scale = fresh.scale if "weights" in parts else None
    mesh = data_mesh(jax.devices()[:devices])
    return Learner(model, judge.tokenizer.answer_ids(), params, scale, Optimizer(), mesh)


def test_a_soft_prompt_of_embeddings_is_the_tokens_themselves():
    """The row with these tokens written into its places, against the vectors put there."""
    judge, _, (row, *_) = rows_with(len(SOFT))
    batch = whole_batch([row])
    hard = batch.row.token_T.at[:, 1 : 1 + len(SOFT)].set(jnp.asarray(SOFT))
    _, packer, _ = rows_with(len(SOFT))
    one = learner(judge, packer, ("head",))
    two = learner(judge, packer, ("head", "soft_PD"))
    two.params = two.params._replace(soft_PD=init_soft(judge.model, SOFT))
    a, _ = one.predict(batch._replace(row=batch.row._replace(token_T=hard)))
    b, _ = two.predict(batch)
    asked = np.asarray(batch.targets.used_L) > 0
    np.testing.assert_allclose(np.asarray(a.margin_L)[asked], np.asarray(b.margin_L)[asked], rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="a soft prompt of 0 vectors, and rows packed with 3 places"):
        one.predict(batch)
    short = rows_with(0)[2][0]
    assert row.row.tokens == short.row.tokens + len(SOFT)
    np.testing.assert_array_equal(
        row.row.token_T[1 + len(SOFT) : row.row.tokens], short.row.token_T[1 : short.row.tokens]
    )


def test_gradients_equal_finite_differences():
    """Through judge, temperature and head at once, along a random direction of each part and of all of them."""
    judge, packer, rows = rows_with(len(SOFT))
    one, batch, scale = learner(judge, packer), whole_batch(rows), step_scale(Recipe(), rows)
    # One program for all: what is wanted of it is cheap against compiling it.
    both = jax.jit(jax.value_and_grad(lambda p, m, b: one.objective(p, m, b, scale)[0]))
    _, gradient = both(one.params, judge.model, batch)
    rng = np.random.default_rng(2)
    for kind in ("log_temperature", "bias", "soft_PD", "head", "weights", ""):

        def along(path, g, kind=kind):
            size = float(jnp.sqrt(jnp.mean(g * g))) or 1.0
            inside = kind in jax.tree_util.keystr(path)
            return inside * (g / size + 0.5 * jnp.asarray(rng.normal(size=g.shape), jnp.float32))

        d = jax.tree_util.tree_map_with_path(along, gradient)
        slope = sum(float((a * b).sum()) for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(d), strict=True))
        assert abs(slope) > 1e-4, kind
        h = min(5e-3 / abs(slope), 0.05)

        def at(t, d=d):
            return float(both(jax.tree.map(lambda p, x: p + t * x, one.params, d), judge.model, batch)[0])

        coarse, fine = ((at(t) - at(-t)) / (2 * t) for t in (2 * h, h))
        assert (4 * fine - coarse) / 3 == pytest.approx(slope, rel=2e-2), kind


@pytest.mark.parametrize(
    "parts",
    [PARTS, ("head",), *(pytest.param((part,), marks=pytest.mark.slow) for part in PARTS if part != "head")],
    ids="+".join,
)
def test_any_combination_trains_in_one_step(parts):
    """Three steps lower the loss; what is not among the parts is not there to change, and what is moves."""
    judge, packer, rows = rows_with(len(SOFT) if "soft_PD" in parts else 0)
    one, scale = learner(judge, packer, parts), step_scale(Recipe(mass=0.0), rows)
    made = [batch for batch, _ in batches(rows, one.multiple)]
    frozen, before = leaves(one.model), leaves(one.params)

    def loss(sums):
        return scale.items * sums.items + scale.pairs * sums.pairs + scale.scores * sums.scores

    values = [loss(one.step(made, scale, 2e-3, 2e-2)[0]) for _ in range(4)]
    assert values[-1] < values[0]
    assert all((a == b).all() for a, b in zip(frozen, leaves(one.model), strict=True))
    for part in PARTS:
        assert (getattr(one.params, part) is None) == (part not in parts)
    assert sum(not np.array_equal(a, b) for a, b in zip(before, leaves(one.params), strict=True)) >= len(parts)


def test_temperature_and_bias_by_hand():
    judge, packer, rows = rows_with(0)
    plain, read = learner(judge, packer, ("head",)), learner(judge, packer, ("head", "reading"))
    batch = whole_batch(rows)
    a, b = (x.predict(batch)[0].margin_L for x in (plain, read))
    r = read.params.reading
    np.testing.assert_allclose(b, (a + float(r.bias)) / np.exp(float(r.log_temperature)), rtol=1e-5)


def test_eight_devices_train_everything_like_one():
    judge, packer, rows = rows_with(len(SOFT), queries=10)
    after = []
    for devices in (1, 8):
        one = learner(judge, packer, devices=devices)
        made = [batch for batch, _ in batches(rows, one.multiple)]
        for _ in range(2):
            one.step(made, step_scale(Recipe(), rows), 1e-3, 1e-2)
        after.append(leaves(one.params))
    for a, b in zip(*after, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
