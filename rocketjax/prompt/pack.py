"""Packs the prompts of one query into rows of a few fixed lengths.

A unit is one response with all its items; it stays whole unless it is longer than the longest row. A row
holds units of one query only, so a score depends on its own query's tree and on nothing else. The trunk that
all units of the query share is repeated in every row; its cost is part of the choice.

Axes: T tokens of a row, L leaves.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rocketjax.prompt.tree import Int, PackedTree, common, order, pack_tree, tree_size, window_start

LENGTHS = (256, 384, 512, 768, 1024, 1280, 1536, 2048, 2304, 2560, 3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768)
# Time per token in rows of some lengths, in units of a short row's, for attention (`experiments/row_cost.py`,
# SmolLM2-135M in f32 on two CPU cores; from 8192 on a guess above the line through the others). Longer rows repeat the
# trunk less often.
TOKEN_COST = {1024: 1.0, 2048: 1.06, 3072: 1.15, 4096: 1.26, 8192: 1.8, 32768: 5.0}
LEAF_BLOCK = 128  # leaves beyond this come in whole blocks of queries


@dataclass(frozen=True, eq=False)
class PackedRow:
    """One padded row. `tree` arrays are int32[T], `leaf_L` int32[L]; `owners[i]` lists who asked for leaf i."""

    token_T: Int
    position_T: Int
    end_T: Int
    start_T: Int
    leaf_L: Int
    owners: tuple[tuple[int, ...], ...]  # indices into the query's sequences
    tokens: int  # used, without padding

    @property
    def length(self) -> int:
        return len(self.token_T)


def leaves_of(length: int) -> int:
    """How many leaves a row of this length can carry; an item costs 30 tokens or more in practice."""
    leaves = max(16, length // 16)
    return leaves if leaves <= LEAF_BLOCK else -(-leaves // LEAF_BLOCK) * LEAF_BLOCK


def bucket(tokens: int, leaves: int, longest: int) -> int | None:
    """The shortest row length for so many tokens and leaves, or None."""
    fits = (n for n in LENGTHS if n <= longest and tokens <= n and leaves <= leaves_of(n))
    return next(fits, None)


def cost(length: int) -> float:
    """Relative time of one row."""
    return length * float(np.interp(length, list(TOKEN_COST), list(TOKEN_COST.values())))


def row_lengths(longest: int) -> tuple[int, ...]:
    """The lengths in use when prompts have at most `longest` tokens: the first that holds one, and below."""
    enough = next((n for n in LENGTHS if n >= longest), LENGTHS[-1])
    return tuple(n for n in LENGTHS if n <= enough)


@dataclass(frozen=True)
class Unit:
    """Indices of the distinct sequences of one response, and the tokens that they add to the query's trunk."""

    members: tuple[int, ...]
    added: int


def first_fit(units: Sequence[Unit], room: int, leaves: int) -> list[list[Unit]] | None:
    """First-fit decreasing into bins of `room` tokens and `leaves` leaves; None if a unit fits no bin."""
    bins: list[list[Unit]] = []
    free: list[tuple[int, int]] = []
    for unit in sorted(units, key=lambda u: -u.added):
        if unit.added > room or len(unit.members) > leaves:
            return None
        at = next((i for i, (t, n) in enumerate(free) if unit.added <= t and len(unit.members) <= n), None)
        if at is None:
            at = len(bins)
            bins.append([])
            free.append((room, leaves))
        bins[at].append(unit)
        free[at] = (free[at][0] - unit.added, free[at][1] - len(unit.members))
    return bins


def split(members: Sequence[int], sequences: Sequence[Int], longest: int) -> list[tuple[int, ...]]:
    """Cuts a response whose items do not fit one row into runs of items that do."""
    parts: list[tuple[int, ...]] = []
    run: list[int] = []
    for member in members:
        grown = [*run, member]
        if run and bucket(tree_size([sequences[i] for i in grown]), len(grown), longest) is None:
            parts.append(tuple(run))
            grown = [member]
        run = grown
    return [*parts, tuple(run)]


def pack_query(responses: Sequence[Sequence[Int]], longest: int, window: int) -> list[PackedRow]:
    """Rows for all items of all responses of one query.

    `responses[m][i]` are the tokens of item i of response m, none longer than `longest`; `longest` is one of
    `LENGTHS`. `owners` of the rows count through the items of all responses in order. Equal sequences (equal
    responses) are computed once. The result depends on the multiset of sequences, not on their order.
    """
    flat = [sequence for response in responses for sequence in response]
    if not flat:
        return []
    keys = [sequence.tobytes() for sequence in flat]
    owners: dict[bytes, list[int]] = {}
    for i, key in enumerate(keys):
        owners.setdefault(key, []).append(i)
    first = {key: ids[0] for key, ids in owners.items()}

    # A response's distinct sequences that no response before it (in canonical order) has already.
    groups: list[list[int]] = []
    at = 0
    for response in responses:
        own = sorted({first[keys[i]] for i in range(at, at + len(response))})
        groups.append([own[k] for k in order([flat[i] for i in own])])
        at += len(response)
    groups.sort(key=lambda ids: [flat[i].astype(">u4").tobytes() for i in ids])
    seen: set[int] = set()
    members: list[tuple[int, ...]] = []
    for ids in groups:
        fresh = [i for i in ids if i not in seen]
        seen.update(fresh)
        if fresh:
            members += split(fresh, flat, longest)

    distinct = [flat[i] for i in sorted(seen)]
    trunk = min(common(distinct[0], other) for other in distinct)
    units = [Unit(ids, tree_size([flat[i] for i in ids]) - trunk) for ids in members]
    best: tuple[float, list[list[Unit]]] | None = None
    for length in (n for n in LENGTHS if n <= longest):
        bins = first_fit(units, length - trunk, leaves_of(length))
        if bins is None:
            continue
        sizes = [
            bucket(trunk + sum(u.added for u in units_), sum(len(u.members) for u in units_), length) for units_ in bins
        ]
        price = sum(cost(size) for size in sizes if size is not None)
        if best is None or price < best[0]:
            best = (price, bins)
    assert best is not None, "every unit was cut to fit the longest row"
    rows = []
    for units_ in best[1]:
        ids_ = [i for unit in units_ for i in unit.members]
        tree = pack_tree([flat[i] for i in ids_])
        rows.append(padded(tree, [tuple(owners[keys[i]]) for i in ids_], longest, window))
    return rows


def padded(tree: PackedTree, owners: Sequence[tuple[int, ...]], longest: int, window: int) -> PackedRow:
    """The tree in the shortest row that holds it; padding tokens see only themselves."""
    used = len(tree.token_T)
    length = bucket(used, len(owners), longest)
    assert length is not None, "packed rows fit by construction"
    by_place = np.argsort(tree.leaf_L, kind="stable")
    row = {
        "token_T": np.zeros(length, np.int32),
        "position_T": np.zeros(length, np.int32),
        "end_T": np.arange(1, length + 1, dtype=np.int32),
        "start_T": np.arange(length, dtype=np.int32),
    }
    row["token_T"][:used] = tree.token_T
    row["position_T"][:used] = tree.position_T
    row["end_T"][:used] = tree.end_T
    row["start_T"][:used] = window_start(tree, window)
    leaf_L = np.zeros(leaves_of(length), np.int32)
    leaf_L[: len(owners)] = tree.leaf_L[by_place]
    # Padding repeats the last leaf: sorted leaves keep a block's span of queries short.
    leaf_L[len(owners) :] = leaf_L[len(owners) - 1]
    return PackedRow(**row, leaf_L=leaf_L, owners=tuple(owners[k] for k in by_place), tokens=used)
