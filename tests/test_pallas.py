"""The TPU kernel: its numbers in Pallas' interpreter, its work from the schedule, its programs lowered for a TPU.

None of it runs on a TPU. Lowering ends at the kernel's Mosaic module; the TPU's own compiler comes after it.
"""

import importlib
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fakes import tiny_judge
from hypothesis import given, settings
from hypothesis import strategies as st

from rocketjax.grade import Grader
from rocketjax.judge import Row, attention
from rocketjax.judge.attention import BLOCK, Schedule, Tree, plain, schedule, visible
from rocketjax.judge.pallas import grid_steps, key_at, pallas, query_at
from rocketjax.prompt import pack_query

reference = jax.jit(plain, static_argnums=(5, 6))


def planned(q, k, v, index, tree, local, cap=0.0, interpret=True):
    """The kernel and its schedule, as one program."""
    return pallas(q, k, v, index, tree, local, schedule(index, tree, local), cap, interpret)


def random_row(seed: int, T: int, used: int, window: int) -> tuple[np.ndarray, np.ndarray]:
    """`end` and `start` of a random forest of `used` tokens, depth first; padding behind it sees itself."""
    rng = np.random.default_rng(seed)
    end, start = np.arange(1, T + 1), np.arange(T)
    path: list[int] = []
    for i in range(used):
        while path and rng.random() < 0.3:
            del path[rng.integers(len(path)) :]
        path.append(i)
        end[path] = i + 1
        start[i] = path[max(0, len(path) - (window or T))]
    return end.astype(np.int32), start.astype(np.int32)


def random_heads(seed: int, S: int, T: int, N: int, K: int, H: int, dtype) -> list[jax.Array]:
    """Queries, scaled as the model scales them so that logits spread by 4, keys and values."""
    rng = np.random.default_rng(seed)
    q, k, v = (2 * rng.standard_normal(shape) for shape in ((S, N, H), (T, K, H), (T, K, H)))
    return [jnp.asarray(q * H**-0.5, jnp.float32), jnp.asarray(k, dtype), jnp.asarray(v, dtype)]


CASES = {  # T, tokens in use, queries (0: all), N, K, H, window (0: full), cap, dtype
    "full f32": (384, 384, 0, 2, 2, 64, 0, 0.0, "float32"),
    "local, grouped, capped": (384, 300, 0, 4, 2, 64, 20, 5.0, "float32"),
    "bf16, a padded tail of two blocks": (512, 200, 0, 6, 2, 128, 0, 0.0, "bfloat16"),
    "Gemma's width, bf16": (256, 256, 0, 2, 1, 256, 100, 50.0, "bfloat16"),
    "few leaves": (384, 380, 24, 3, 1, 64, 0, 0.0, "float32"),
    "an odd number of leaves, local": (256, 250, 13, 4, 2, 128, 9, 5.0, "bfloat16"),
    "two blocks of leaves": (384, 300, 256, 2, 1, 64, 40, 0.0, "float32"),
}


@pytest.mark.parametrize("case", CASES)
def test_equals_plain(case):
    T, used, S, N, K, H, window, cap, dtype = CASES[case]
    tree = Tree(*map(jnp.asarray, random_row(T + H, T, used, window)))
    leaves = np.sort(np.random.default_rng(S).integers(0, used, S)).astype(np.int32)
    index = jnp.asarray(leaves) if S else jnp.arange(T)
    q, k, v = random_heads(N + H, len(index), T, N, K, H, dtype)
    attend = partial(planned, local=bool(window), cap=cap)
    got = jax.jit(attend)(q, k, v, index, tree)
    # The reference in f32, from the same rounded operands.
    q, k, v = (x.astype(dtype).astype(jnp.float32) for x in (q, k, v))
    expected = reference(q, k, v, index, tree, bool(window), cap)
    assert got.dtype == jnp.float32 and got.shape == expected.shape
    # bf16: only the weights of the values are rounded again, to 8 bits.
    bound = 1e-5 if dtype == "float32" else 0.02
    np.testing.assert_allclose(got, expected, rtol=0, atol=bound)
    assert np.abs(expected).mean() > 0.2, "the values do not cancel, so the bound means something"


@pytest.fixture(scope="module")
def compiled():
    """One program for the trees of all examples."""
    return jax.jit(partial(planned, local=True))


@given(st.integers(0, 2**32 - 1), st.integers(1, 384), st.sampled_from([1, 3, 50, 400]))
@settings(max_examples=25, deadline=None)
def test_equals_plain_on_random_trees(compiled, seed, used, window):
    tree = Tree(*map(jnp.asarray, random_row(seed, 384, used, window)))
    q, k, v = random_heads(seed, 384, 384, 2, 1, 64, jnp.float32)
    index = jnp.arange(384)
    np.testing.assert_allclose(compiled(q, k, v, index, tree), reference(q, k, v, index, tree, True), rtol=0, atol=1e-5)


def test_rows_of_a_group_are_one_call_and_do_not_touch_each_other():
    """Under `vmap` every row has the bits that it has alone, whatever stands beside it."""
    T, R = 256, 3
    trees = [Tree(*map(jnp.asarray, random_row(r, T, 200 + 20 * r, 30))) for r in range(R)]
    heads = [random_heads(r, T, T, 2, 1, 64, jnp.float32) for r in range(R)]
    index = jnp.arange(T)

    def one(heads, tree):
        return planned(*heads, index, tree, local=True)

    together = jax.tree.map(lambda *x: jnp.stack(x), *zip(heads, trees, strict=True))
    assert str(jax.make_jaxpr(jax.vmap(one))(*together)).count("name=tree_attention") == 1
    got = jax.jit(jax.vmap(one))(*together)
    alone = jax.jit(one)
    for r in range(R):
        np.testing.assert_array_equal(got[r], alone(heads[r], trees[r]))


@pytest.mark.parametrize("K", [2, 1])
def test_heads_are_cut_over_an_axis_that_is_left_to_the_compiler(K):
    """As in `Grader`'s step on a model axis; a single key head is computed at both places."""
    T = 256
    tree, index = siblings(T), jnp.arange(T)
    heads = random_heads(0, T, T, 2 * K, K, 64, jnp.float32)
    attend = partial(planned, local=False)
    types = (jax.sharding.AxisType.Auto,) * 2
    mesh = jax.make_mesh((1, 2), ("data", "model"), types, devices=jax.devices()[:2])
    P = jax.sharding.PartitionSpec()
    cut = jax.shard_map(attend, mesh=mesh, in_specs=P, out_specs=P, axis_names={"data"}, check_vma=False)
    np.testing.assert_array_equal(jax.jit(cut)(*heads, index, tree), jax.jit(attend)(*heads, index, tree))


def siblings(T: int) -> Tree:
    """A trunk of one block, and two responses that share the other blocks."""
    end, half = np.arange(1, T + 1), (T + BLOCK) // 2
    end[:BLOCK], end[BLOCK:half], end[half:] = T, half, T
    return Tree(jnp.asarray(end, jnp.int32), jnp.zeros(T, jnp.int32))


def test_dead_blocks_are_not_touched():
    """NaN in the first response reaches no query of the second: a block that were only masked would spread it."""
    T = 640
    tree, index = siblings(T), jnp.arange(T)
    q, k, v = random_heads(0, T, T, 2, 1, 64, jnp.float32)
    bad = slice(BLOCK, 3 * BLOCK)
    attend = jax.jit(partial(planned, local=False))
    clean = attend(q, k, v, index, tree)
    got = attend(q, k.at[bad].set(jnp.nan), v.at[bad].set(jnp.nan), index, tree)
    np.testing.assert_array_equal(got[3 * BLOCK :], clean[3 * BLOCK :])
    np.testing.assert_array_equal(got[:BLOCK], clean[:BLOCK])
    assert np.isnan(got[bad]).all()


def packed_row(T: int = 2048, responses: int = 4, items: int = 6, window: int = 0):
    """A row as the packer makes them: one query, its responses, their items."""
    rng = np.random.default_rng(0)
    say = lambda n: rng.integers(0, 99, n, np.int32)  # noqa: E731
    trunk = say(T // 4)
    texts = [say(T // 10) for _ in range(responses)]
    sequences = [[np.concatenate([trunk, text, say(T // 80)]) for _ in range(items)] for text in texts]
    (row,) = pack_query(sequences, T, window)
    return row


def visited(plan: Schedule) -> list[tuple[int, int]]:
    """Blocks of queries and keys in the order of the grid's steps, as the kernel finds them."""
    steps, count = grid_steps(plan)
    query_U = np.asarray(steps.query_U)
    assert query_U[0] == -1 and query_U[count + 1] == steps.first_C.shape[0], "the ends differ from their neighbours"
    return [(int(query_at(n, steps)), int(key_at(n, steps))) for n in range(int(count))]


@pytest.mark.parametrize("window", [0, 200])
def test_steps_are_the_blocks_that_hold_a_visible_pair(window):
    row = packed_row(window=window or 4096)
    tree = Tree(jnp.asarray(row.end_T), jnp.asarray(row.start_T))
    T, B = len(row.end_T), len(row.end_T) // BLOCK
    index = jnp.arange(T)
    plan = schedule(index, tree, bool(window))
    pairs = visited(Schedule(plan.key_QB[None], plan.count_Q[None]))
    assert pairs == sorted(set(pairs)) and len(pairs) == plan.count_Q.sum()
    seen = np.asarray(visible(index, index, tree, bool(window))).reshape(B, BLOCK, B, BLOCK).any((1, 3))
    needed = set(zip(*(x.tolist() for x in np.nonzero(seen)), strict=True))
    assert needed <= set(pairs)
    causal, extra = B * (B + 1) // 2, len(pairs) - len(needed)
    # Ends and windows are known per block, so a few blocks at the border of subtrees are visited for nothing.
    assert extra <= len(needed) // 4
    assert len(pairs) < 0.75 * causal < 0.45 * B * B


def test_steps_of_several_rows_are_counted_through():
    plans = [Schedule(jnp.asarray([[0, 1], [1, 0]]), jnp.asarray(count)) for count in ([1, 2], [2, 1])]
    pairs = visited(jax.tree.map(lambda *x: jnp.stack(x), *plans))
    assert pairs == [(0, 0), (1, 1), (1, 0), (2, 2), (2, 3), (3, 3)]


SHAPES = {  # N, K, H, cap, window
    "SmolLM2-135M": (9, 3, 64, 0.0, 0),
    "Gemma 2 2B": (8, 4, 256, 50.0, 4096),
    "Qwen2.5-1.5B": (12, 2, 128, 0.0, 0),
}


def for_tpu(program, *arguments) -> str:
    """The StableHLO of a program lowered for TPUs, of which this machine needs none."""
    return program.trace(*arguments).lower(lowering_platforms=("tpu",)).as_text()


@pytest.mark.parametrize("length", [512, 2048, 8192])
@pytest.mark.parametrize("shape", SHAPES)
def test_lowers_for_a_tpu(shape, length):
    """A group of rows, at every token and at the leaves, in bf16 and (the shortest) in f32: Mosaic takes the kernel."""
    N, K, H, cap, window = SHAPES[shape]
    R = 8192 // length

    layer = partial(planned, local=bool(window), cap=cap, interpret=False)
    for dtype in (jnp.bfloat16, jnp.float32) if length == 512 else (jnp.bfloat16,):
        for S in (length, max(16, length // 16)):
            array = jax.ShapeDtypeStruct
            q, index = array((R, S, N, H), jnp.float32), array((R, S), jnp.int32)
            k = v = array((R, length, K, H), dtype)
            tree = Tree(*[array((R, length), jnp.int32)] * 2)
            text = for_tpu(jax.jit(jax.vmap(layer)), q, k, v, index, tree)
            assert text.count("@tpu_custom_call") == 1


@pytest.mark.parametrize("model", [1, 2])
def test_the_grading_step_lowers_for_a_tpu(model, monkeypatch):
    """`Grader`'s whole program, shard_map and loop over layers included, with the kernel that is chosen there.

    The compiler, to which a model axis of several devices is left, cannot cut a kernel: heads are cut around it.
    """
    of_tpu = attention.skipping_for("tpu")
    monkeypatch.setattr(attention, "skipping_for", lambda platform: of_tpu)
    judge = tiny_judge()
    mesh = jax.make_mesh((2, model), ("data", "model"), devices=jax.devices()[: 2 * model])
    grader = Grader(judge.model, judge.tokenizer.answer_ids(), mesh)
    grader.platform = "tpu"
    length = 1024
    rows = grader.rows(length)
    assert rows == 16, "a group of eight at each of two places"
    array = partial(jax.ShapeDtypeStruct, dtype=jnp.int32)
    batch = Row(*[array((rows, length))] * 4, array((rows, 64)))
    text = for_tpu(grader.step, grader.model, batch)
    # The loop's kernel stands once in the program; the last layer, at the leaves, has its own.
    calls = [line for line in text.splitlines() if "@tpu_custom_call" in line]
    assert len(calls) == 2
    config = judge.model.config
    assert all(f"tensor<64x{config.K // model}x128x{config.H}xf32>" in line for line in calls), "keys of a place"


def test_the_platform_chooses():
    chosen = {platform: attention.skipping_for(platform) for platform in ("cpu", "tpu", "gpu", "cuda")}
    assert chosen == {"cpu": "gathered", "tpu": "pallas", "gpu": "blocked", "cuda": "blocked"}
    assert attention.skipping("pallas") is pallas
    assert attention.skipping("blocked") is attention.blocked


@pytest.fixture(scope="module")
def one_gpu():
    folder = Path(__file__).parents[1] / "experiments"
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module("one_gpu")
    finally:
        sys.path.remove(str(folder))


@pytest.mark.parametrize(
    ("trunk", "responses", "items"),
    [
        (37, [5, 20, 11], [[3, 7], [1, 9], [4, 4]]),
        (64, [1], [[1, 24, 1]]),
    ],
)
def test_the_cascade_that_one_gpu_times_equals_plain(one_gpu, trunk, responses, items):
    """On a CPU, by XLA; cuDNN's calls of the same form need a GPU."""
    T = 256
    tree, levels = one_gpu.query_tree(trunk, responses, items, T)
    q, k, v = random_heads(trunk, T, T, 4, 2, 16, jnp.float32)
    used = trunk + sum(responses) + sum(map(sum, items))
    got = jax.jit(partial(one_gpu.cascade, implementation="xla"))(q, k, v, levels)
    expected = reference(q, k, v, jnp.arange(T), tree, False)
    np.testing.assert_allclose(got[:used], expected[:used], rtol=0, atol=1e-5)
