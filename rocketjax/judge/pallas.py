"""`attention.blocked` as one Pallas kernel for TPUs.

A step of the grid is one live pair of a block of queries and a block of keys, of any row and with all key heads (or as
many as fit); how many steps there are is known at run time only. So dead blocks are neither fetched nor computed, and
cost no step either. Steps go through the blocks of queries in order: the blocks of queries and of results change, and
move between the memories, only where the next block of queries begins.

Axes, besides those of `attention`: R rows, C blocks of queries of all rows, E blocks of keys of all rows, U steps at
most, and of one step Q queries, B keys and M = G Q queries of a key head, one query head behind the other.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import PartitionSpec

from rocketjax.judge.attention import BLOCK, MASKED, Schedule, Tree, products, softcap

SUBLANES = 16  # rows of a bf16 tile; an f32 tile has 8
ON_CHIP = 10 * 2**20  # bytes for blocks, of the 16 MiB that a kernel gets at least; intermediate results need some too


class Steps(NamedTuple):
    """What each step of the grid works on, int32 each: scalars that are on the chip before the kernel begins."""

    query_U: Array  # block of queries of step u at u + 1; another one stands in front of the first and behind the last
    key_CB: Array  # blocks of keys, counted through all rows, of each block of queries; in one line
    first_C: Array  # the first step of each block of queries


def grid_steps(plan: Schedule) -> tuple[Steps, Array]:
    """The steps for rows with schedules [R, C / R, E / R], and how many there are."""
    R, Q, B = plan.key_QB.shape
    count_C = plan.count_Q.reshape(-1).astype(jnp.int32)
    behind_C = jnp.cumsum(count_C, dtype=jnp.int32)
    # How many blocks of queries end before a step. No sort and no gather: a TPU has quick forms of neither.
    query_U = (jnp.arange(R * Q * B + 1, dtype=jnp.int32)[:, None] >= behind_C).sum(axis=1, dtype=jnp.int32)
    key_RQB = jnp.arange(R, dtype=jnp.int32)[:, None, None] * B + plan.key_QB.astype(jnp.int32)
    steps = Steps(jnp.pad(query_U, (1, 0), constant_values=-1), key_RQB.reshape(-1), behind_C - count_C)
    return steps, behind_C[-1]


def query_at(step: Array, steps: Steps) -> Array:
    return steps.query_U[step + 1]


def key_at(step: Array, steps: Steps) -> Array:
    query = query_at(step, steps)
    each = steps.key_CB.shape[0] // steps.first_C.shape[0]
    return steps.key_CB[query * each + step - steps.first_C[query]]


def heads_of_step(K: int, M: int, H: int, bytes_: int) -> int:
    """How many key heads a step takes: all, or the largest part of them whose blocks fit the chip's memory."""
    H = -(-H // BLOCK) * BLOCK  # a narrower head fills its lanes with nothing
    head = 2 * M * H * (bytes_ + 4) + 4 * BLOCK * H * bytes_ + 2 * M * BLOCK * 4  # q, out; k, v; top, mass
    return next(n for n in range(K, 0, -1) if K % n == 0 and (n == 1 or n * head <= ON_CHIP))


def spread(x_MB: Array, H: int) -> Array:
    """A number per row, equal in all lanes, to H lanes."""
    return jnp.concatenate([x_MB] * -(-H // BLOCK), axis=1)[:, :H]


def kernel(  # type: ignore[no-untyped-def]
    query_U, key_CB, first_C, q_KMH, k_KBH, v_KBH, end_1B, index_QB, start_QB, out_KMH, top_KMB, mass_KMB,
    *, blocks, local, cap,
):  # fmt: skip
    """One step: folds a block of keys into the result of its queries (online softmax, see `attention`)."""
    step, steps = pl.program_id(1), Steps(query_U, key_CB, first_C)
    query = query_at(step, steps)

    @pl.when(query_at(step - 1, steps) != query)
    def begin() -> None:
        # Above MASKED, so that a masked key weighs exp(MASKED - top) = 0 also while a query has seen no key yet.
        top_KMB[...] = jnp.full_like(top_KMB, MASKED / 2)
        mass_KMB[...] = jnp.zeros_like(mass_KMB)
        out_KMH[...] = jnp.zeros_like(out_KMH)

    K, M, H = q_KMH.shape
    Q = index_QB.shape[0]
    key_QB = key_at(step, steps) % blocks * BLOCK + jax.lax.broadcasted_iota(jnp.int32, (Q, BLOCK), 1)
    seen_QB = (key_QB <= index_QB[...]) & (index_QB[...] < end_1B[...])
    if local:
        seen_QB &= key_QB >= start_QB[...]
    hidden_QB = jnp.where(seen_QB, 0.0, MASKED)
    for n in range(K):
        logits = softcap(products(q_KMH[n], k_KBH[n], "mh,bh->mb"), cap)
        logits = (logits.reshape(M // Q, Q, BLOCK) + hidden_QB).reshape(M, BLOCK)
        top_MB = top_KMB[n]
        new_MB = jnp.maximum(top_MB, logits.max(axis=1, keepdims=True))
        keep_MB = jnp.exp(top_MB - new_MB)
        p = jnp.exp(logits - new_MB)
        top_KMB[n] = new_MB
        mass_KMB[n] = mass_KMB[n] * keep_MB + p  # summed over the lanes at the end only
        out_KMH[n] = out_KMH[n] * spread(keep_MB, H) + products(p, v_KBH[n], "mb,bh->mh")

    @pl.when(query_at(step + 1, steps) != query)
    def finish() -> None:
        for n in range(K):
            out_KMH[n] /= mass_KMB[n].sum(axis=1, keepdims=True)


def rows(
    q_RSNH: Array,
    k_RTKH: Array,
    v_RTKH: Array,
    index_RS: Array,
    tree: Tree,
    plan: Schedule,
    local: bool,
    cap: float,
    interpret: bool,
) -> Array:
    """f32[R, S, N, H] of rows whose trees and schedules have an axis of rows in front: one call of the kernel."""
    R, S, N, H = q_RSNH.shape
    _, T, K, _ = k_RTKH.shape
    G, Q, dtype = N // K, min(BLOCK, S), k_RTKH.dtype
    C, B = R * S // Q, T // BLOCK

    # Whole tiles of queries: the last one is repeated.
    index_CQ = jnp.pad(index_RS.reshape(C, Q), ((0, 0), (0, -Q % SUBLANES)), mode="edge")
    padded = index_CQ.shape[1]
    q_CKGQH = q_RSNH.astype(dtype).reshape(C, Q, K, G, H).transpose(0, 2, 3, 1, 4)
    q_CKGQH = jnp.pad(q_CKGQH, ((0, 0),) * 3 + ((0, padded - Q), (0, 0)), mode="edge")
    M = G * padded
    q_CKMH = q_CKGQH.reshape(C, K, M, H)
    k_EKBH, v_EKBH = (x.reshape(R * B, BLOCK, K, H).transpose(0, 2, 1, 3) for x in (k_RTKH, v_RTKH))
    end_E1B = tree.end_T.reshape(R * B, 1, BLOCK)
    start_CQ = jnp.take_along_axis(tree.start_T, index_CQ.reshape(R, -1), axis=1).reshape(C, padded)
    # In all lanes: a column of numbers would have to be turned and spread inside.
    index_CQB, start_CQB = (jnp.broadcast_to(x[..., None], (C, padded, BLOCK)) for x in (index_CQ, start_CQ))

    steps, count = grid_steps(plan)
    heads = heads_of_step(K, M, H, dtype.itemsize)
    none = pl.squeezed

    def query_block(head: Array, step: Array, *steps: Array) -> Array:
        return query_at(step, Steps(*steps))

    def key_block(head: Array, step: Array, *steps: Array) -> Array:
        return key_at(step, Steps(*steps))

    of_queries = pl.BlockSpec((none, heads, M, H), lambda *at: (query_block(*at), at[0], 0, 0))
    of_keys = pl.BlockSpec((none, heads, BLOCK, H), lambda *at: (key_block(*at), at[0], 0, 0))
    of_index = pl.BlockSpec((none, padded, BLOCK), lambda *at: (query_block(*at), 0, 0))
    out_CKMH = pl.pallas_call(
        partial(kernel, blocks=B, local=local, cap=cap),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=len(steps),
            grid=(K // heads, count),
            in_specs=[
                of_queries,
                of_keys,
                of_keys,
                pl.BlockSpec((none, 1, BLOCK), lambda *at: (key_block(*at), 0, 0)),
                of_index,
                of_index,
            ],
            out_specs=of_queries,
            scratch_shapes=[pltpu.VMEM((heads, M, BLOCK), jnp.float32)] * 2,
        ),
        out_shape=jax.ShapeDtypeStruct((C, K, M, H), jnp.float32),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        interpret=interpret,
        name="tree_attention",
    )(*steps, q_CKMH, k_EKBH, v_EKBH, end_E1B, index_CQB, start_CQB)
    out_CKGQH = out_CKMH.reshape(C, K, G, padded, H)[:, :, :, :Q]
    return out_CKGQH.transpose(0, 3, 1, 2, 4).reshape(R, S, N, H)


def pallas(
    q_SNH: Array,
    k_TKH: Array,
    v_TKH: Array,
    index_S: Array,
    tree: Tree,
    local: bool,
    plan: Schedule,
    cap: float = 0.0,
    interpret: bool = False,
) -> Array:
    """The same as `attention.blocked`, on a TPU: f32[S, N, H]. Under `vmap`, one call of the kernel for all rows.

    `interpret` runs it on any machine, slowly. It has no reverse mode.
    """
    run = partial(rows, local=local, cap=cap, interpret=interpret)

    # JAX's own rule would call the kernel row after row: it cannot batch what the grid depends on.
    @jax.custom_batching.custom_vmap
    def row(*arrays):  # type: ignore[no-untyped-def]
        return run(*jax.tree.map(lambda x: x[None], arrays))[0]

    @row.def_vmap
    def batch(size, batched, *arrays):  # type: ignore[no-untyped-def]
        every = jax.tree.map(lambda x, own: x if own else jnp.broadcast_to(x, (size, *x.shape)), arrays, tuple(batched))
        return run(*every), True

    # A kernel cannot be cut by the compiler: over an axis that is left to it, heads are cut here.
    mesh = jax.sharding.get_abstract_mesh()
    left = [name for name in mesh.auto_axes if mesh.shape[name] > 1]
    if not left:
        return row(q_SNH, k_TKH, v_TKH, index_S, tree, plan)
    cut = k_TKH.shape[1] % math.prod(mesh.shape[name] for name in left) == 0
    heads, whole = PartitionSpec(None, tuple(left) if cut else None), PartitionSpec()
    places = (heads, heads, heads, whole, whole, whole)
    by_heads = jax.shard_map(row, in_specs=places, out_specs=heads, axis_names=set(left), check_vma=False)
    return by_heads(q_SNH, k_TKH, v_TKH, index_S, tree, plan)
