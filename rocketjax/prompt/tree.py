"""Token sequences of one query, as a tree in one row.

The tree is the trie of the whole prompts' tokens, so a shared prefix is shared exactly as far as the joint
texts share tokens: a boundary between segments is always a token boundary of the joint text. Sequences are
laid out in lexicographic order, which is depth-first order of the trie and does not depend on the order or
the names of the responses.

Axes: T tokens of a row, L leaves.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class PackedTree:
    """A tree in depth-first order. All int32, T tokens (not padded); `leaf_L[i]` is where sequence i ends."""

    token_T: Int
    position_T: Int  # along the token's own path
    end_T: Int  # one past the last token of the token's subtree
    parent_T: Int  # packed index of the token before it on its path, -1 for the first
    leaf_L: Int


def common(a: Int, b: Int) -> int:
    """Length of the longest common prefix."""
    n = min(len(a), len(b))
    differs = np.flatnonzero(a[:n] != b[:n])
    return int(differs[0]) if len(differs) else n


def order(sequences: Sequence[Int]) -> list[int]:
    """Indices of the sequences in lexicographic order of their tokens; equal ones keep their order."""
    # Big-endian bytes of non-negative integers compare like the integers.
    return sorted(range(len(sequences)), key=lambda i: sequences[i].astype(">u4").tobytes())


def tree_size(sequences: Sequence[Int]) -> int:
    """Tokens of the trie of these sequences."""
    ranked = [sequences[i] for i in order(sequences)]
    shared = sum(common(a, b) for a, b in itertools.pairwise(ranked))
    return sum(map(len, ranked)) - shared


def pack_tree(sequences: Sequence[Int]) -> PackedTree:
    """The trie of non-empty token sequences, depth first. Equal sequences share one leaf."""
    size = tree_size(sequences)
    token_T, position_T, end_T, parent_T = (np.zeros(size, np.int32) for _ in range(4))
    leaf_L = np.zeros(len(sequences), np.int32)
    path = np.zeros(0, np.int32)  # packed indices of the current sequence's tokens
    previous, used = np.zeros(0, np.int32), 0
    for i in order(sequences):
        sequence = sequences[i]
        shared = common(previous, sequence)
        end_T[path[shared:]] = used
        new = len(sequence) - shared
        at = np.arange(used, used + new, dtype=np.int32)
        path = np.concatenate([path[:shared], at])
        token_T[at] = sequence[shared:]
        position_T[at] = np.arange(shared, len(sequence))
        parent_T[at] = np.concatenate([[-1], path])[shared:-1] if new else []
        leaf_L[i] = path[-1]
        previous, used = sequence, used + new
    end_T[path] = used
    return PackedTree(token_T, position_T, end_T, parent_T, leaf_L)


def window_start(tree: PackedTree, window: int) -> Int:
    """First packed index that each token sees within `window` tokens along its own path, itself included.

    int32[T]; 0 everywhere for window 0. Positions grow with the index along a path, so `j >= start[i]` for a
    key j on the path of i is exactly `position[i] - position[j] < window`.
    """
    start_T = np.zeros(len(tree.token_T), np.int32)
    if not window:
        return start_T
    path = np.zeros(int(tree.position_T.max(initial=-1)) + 1, np.int32)
    for i, depth in enumerate(tree.position_T):
        path[depth] = i
        start_T[i] = path[max(0, depth - window + 1)]
    return start_T
