"""Trees, packing and the visibility mask, against brute force."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rocketjax.judge.attention import BLOCK, Tree, schedule, visible
from rocketjax.prompt.pack import LENGTHS, leaves_of, pack_query
from rocketjax.prompt.tree import pack_tree, tree_size, window_start

sequence = st.lists(st.integers(0, 2), min_size=1, max_size=12).map(lambda x: np.asarray(x, np.int32))
forest = st.lists(sequence, min_size=1, max_size=12)


def path_of(tree, i):
    path = []
    while i >= 0:
        path.append(int(i))
        i = tree.parent_T[i]
    return path[::-1]


def padded(end_T, start_T, length):
    """The tree's arrays with tokens behind it that see themselves alone."""
    end, start = np.arange(1, length + 1), np.arange(length)
    end[: len(end_T)], start[: len(end_T)] = end_T, start_T
    return Tree(jnp.asarray(end), jnp.asarray(start))


@partial(jax.jit, static_argnums=1)
def seen(arrays, local):
    index = jnp.arange(len(arrays.end_T))
    return visible(index, index, arrays, local)


@given(forest, st.integers(0, 6))
@settings(max_examples=200, deadline=None)
def test_tree_and_mask_equal_brute_force(sequences, window):
    tree = pack_tree(sequences)
    # The trie, independently: one node for every distinct non-empty prefix.
    prefixes = {tuple(s[: n + 1]) for s in sequences for n in range(len(s))}
    assert len(tree.token_T) == len(prefixes) == tree_size(sequences)
    assert (tree.parent_T < np.arange(len(tree.parent_T))).all(), "depth first: parents stand before children"
    for s, leaf in zip(sequences, tree.leaf_L, strict=True):
        path = path_of(tree, leaf)
        assert [tree.token_T[i] for i in path] == list(s)
        assert [tree.position_T[i] for i in path] == list(range(len(s)))

    T = len(tree.token_T)
    expected = np.zeros((T, T), bool)
    for i in range(T):
        path = path_of(tree, i)
        expected[i, path] = True
    # Padded to the largest tree that there can be: one shape compiles once.
    arrays = padded(tree.end_T, window_start(tree, window), 12 * 12)
    np.testing.assert_array_equal(seen(arrays, False)[:T, :T], expected)
    if window:
        gap = tree.position_T[:, None] - tree.position_T[None, :]
        np.testing.assert_array_equal(seen(arrays, True)[:T, :T], expected & (gap < window))


responses = st.lists(st.lists(sequence, min_size=1, max_size=5), min_size=1, max_size=6)


@given(responses, st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_packing_keeps_every_sequence_once_and_ignores_order(responses, random):
    rows = pack_query(responses, 512, window=3)
    flat = [s for response in responses for s in response]
    seen = sorted(i for row in rows for ids in row.owners for i in ids)
    assert seen == list(range(len(flat)))
    for row in rows:
        assert row.length in LENGTHS and row.tokens <= row.length
        assert len(row.leaf_L) == leaves_of(row.length)
        for leaf, ids in zip(row.leaf_L, row.owners, strict=False):
            # Walk back: the tokens of the path, found through `end` alone.
            path = [j for j in range(leaf + 1) if leaf < row.end_T[j]]
            for i in ids:
                np.testing.assert_array_equal(row.token_T[path], flat[i])

    shuffled = list(responses)
    random.shuffle(shuffled)
    again = pack_query(shuffled, 512, window=3)

    def content(rows):
        return sorted((r.token_T.tobytes(), r.end_T.tobytes(), r.leaf_L.tobytes()) for r in rows)

    assert content(again) == content(rows)


def test_long_responses_are_cut_between_items():
    rng = np.random.default_rng(0)
    prefix = rng.integers(0, 50, 200, np.int32)
    items = [np.concatenate([prefix, rng.integers(0, 50, 40, np.int32)]) for _ in range(9)]
    rows = pack_query([items], 256, window=0)
    assert sum(len(row.owners) for row in rows) == 9 and all(row.tokens <= 256 for row in rows)


def test_responses_stay_whole_and_equal_ones_are_computed_once():
    rng = np.random.default_rng(1)
    trunk = rng.integers(0, 50, 100, np.int32)
    make = lambda: [  # noqa: E731
        np.concatenate([trunk, body, rng.integers(0, 50, 30, np.int32)])
        for body in [rng.integers(0, 50, 150, np.int32)]
        for _ in range(6)
    ]
    responses = [make() for _ in range(5)]
    rows = pack_query([*responses, responses[0]], 2048, window=0)
    for row in rows:
        owners = {i // 6 for ids in row.owners for i in ids}
        for owner in owners:
            of_row = {i for ids in row.owners for i in ids}
            assert set(range(owner * 6, owner * 6 + 6)) <= of_row
    alone = pack_query(responses, 2048, window=0)
    assert sum(r.tokens for r in rows) == sum(r.tokens for r in alone)


@partial(jax.jit, static_argnums=1)
def scheduled(arrays, local):
    return schedule(jnp.arange(len(arrays.end_T)), arrays, local)


@given(forest, st.integers(0, 6), st.integers(1, 40))
@settings(max_examples=50, deadline=None)
def test_schedule_visits_every_block_that_is_seen(sequences, window, repeat):
    """Block lists are conservative: no visible pair lies in a block that is left out."""
    long = [np.concatenate([np.repeat(s, repeat)[:300], [9]]).astype(np.int32) for s in sequences]
    tree = pack_tree(long)
    T = -(-len(tree.token_T) // (8 * BLOCK)) * 8 * BLOCK  # few shapes to compile
    arrays, local = padded(tree.end_T, window_start(tree, window), T), bool(window)
    key_QB, count_Q = (np.asarray(x) for x in scheduled(arrays, local))
    blocks = np.asarray(seen(arrays, local)).reshape(T // BLOCK, BLOCK, T // BLOCK, BLOCK).any((1, 3))
    for q in range(T // BLOCK):
        assert set(np.flatnonzero(blocks[q])) <= set(key_QB[q, : count_Q[q]].tolist())
