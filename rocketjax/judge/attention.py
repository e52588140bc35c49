"""Attention over packed prompt trees.

A row holds its tokens in depth-first order, so a token's descendants are the run of tokens behind it, up to
`end` (exclusive). Query i sees key j when j is on i's path: `j <= i < end[j]`. A local layer sees no further
back along the path than its window; positions grow with the index along a path, so that is a lower bound
`j >= start[i]`, computed where the tree is built (never by packed index).

`plain` builds the whole mask: the reference that every faster version is tested against. `blocked` visits
only blocks of keys that some query of the block can see, with an online softmax (Milakov & Gimelshein 2018,
arXiv 1805.02867; Dao et al. 2022, arXiv 2205.14135). `gathered` takes the same blocks at once, for a CPU;
`pallas.pallas` is `blocked` as a kernel for TPUs; `chunked` takes all keys and has a reverse mode.

Axes: T tokens of a row, S queries (tokens of the row at `index_S`), N query heads, K key heads, G = N / K,
H head width.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

BLOCK = 128  # tokens in a block of queries and of keys; a row's length is a multiple of it
MASKED = -1e30  # finite, so that a fully masked block cannot make a NaN

Skipping = Literal["blocked", "gathered", "pallas"]  # attention that visits the blocks of a schedule only


class Tree(NamedTuple):
    """What attention has to know about one row: int32[T] each."""

    end_T: Array  # one past the last token of the subtree of each token
    start_T: Array  # first visible index for a local layer: the path's token `window - 1` positions back


def visible(index_S: Array, key_T: Array, tree: Tree, local: bool) -> Array:
    """bool[S, T]: whether the query at packed index `index_S` sees the key at packed index `key_T`."""
    i, j = index_S[:, None], key_T[None, :]
    seen = (j <= i) & (i < tree.end_T[key_T][None, :])
    return seen & (j >= tree.start_T[index_S][:, None]) if local else seen


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def products(a: Array, b: Array, spec: str) -> Array:
    """A contraction with operands in the dtype of `b` and the result in f32 (exact f32 stays exact).

    Its cotangent is rounded to the dtype of `b` too: JAX's own rule would contract the f32 cotangent of an f32
    result in f32, at half the speed or less. Every letter of `spec` stands in two of its three terms.
    """
    precision = jax.lax.Precision.HIGHEST if b.dtype == jnp.float32 else None
    return jnp.einsum(spec, a.astype(b.dtype), b, preferred_element_type=jnp.float32, precision=precision)


def products_forward(a: Array, b: Array, spec: str) -> tuple[Array, tuple[Array, Array, Array]]:
    # Zero-size, only its dtype is wanted: what the cotangent of `a` must be cast to.
    return products(a, b, spec), (a.astype(b.dtype), b, jnp.zeros(0, a.dtype))


def products_backward(spec: str, kept: tuple[Array, Array, Array], d_out: Array) -> tuple[Array, Array]:
    a, b, like = kept
    terms, out = spec.split("->")
    left, right = terms.split(",")
    d_out = d_out.astype(b.dtype)
    d_a = products(d_out, b, f"{out},{right}->{left}")
    # `a` first: XLA's CPU backend has no bf16 product whose result begins with the second operand's axis.
    d_b = products(a, d_out, f"{left},{out}->{right}")
    return d_a.astype(like.dtype), d_b.astype(b.dtype)


products.defvjp(products_forward, products_backward)


def softcap(logits: Array, cap: float) -> Array:
    """cap * tanh(logits / cap) (Gemma 2, arXiv 2408.00118, section 2); a cap of 0 leaves them as they are."""
    return cap * jnp.tanh(logits / cap) if cap else logits


def plain(q_SNH: Array, k_TKH: Array, v_TKH: Array, index_S: Array, tree: Tree, local: bool, cap: float = 0.0) -> Array:
    """Masked softmax attention with the whole S x T mask: f32[S, N, H]. Queries come scaled; see `softcap`."""
    S, N, H = q_SNH.shape
    T, K, _ = k_TKH.shape
    q_SKGH = q_SNH.reshape(S, K, N // K, H)
    logits = softcap(products(q_SKGH, k_TKH, "skgh,tkh->kgst"), cap)
    seen_ST = visible(index_S, jnp.arange(T), tree, local)
    p = jax.nn.softmax(jnp.where(seen_ST, logits, MASKED), axis=-1)
    return products(p, v_TKH, "kgst,tkh->skgh").reshape(S, N, H)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def chunked(q_SNH: Array, k_TKH: Array, v_TKH: Array, tree: Tree, local: bool, cap: float = 0.0) -> Array:
    """`plain` for queries at every token (S = T), by chunks of them, each against the keys up to its own end.

    Shapes are static, so it has a reverse mode, which `blocked` (a loop of unknown length) has not. Gradients
    follow Dao et al. 2022, appendix B.2: the weights are computed again from the log-sum-exp that is kept.
    """
    out_SNH, _ = chunked_forward(q_SNH, k_TKH, v_TKH, tree, local, cap)
    return out_SNH


def by_key_head(x_SNH: Array, K: int) -> Array:
    """[S, N, H] -> [K, G, S, H]: the queries of each key head side by side."""
    S, N, H = x_SNH.shape
    return x_SNH.reshape(S, K, N // K, H).transpose(1, 2, 0, 3)


def by_token(x_KGSH: Array) -> Array:
    """[K, G, S, H] -> [S, N, H]."""
    K, G, S, H = x_KGSH.shape
    return x_KGSH.transpose(2, 0, 1, 3).reshape(S, K * G, H)


def chunk_logits(q_KGSH: Array, k_KTH: Array, first: int, tree: Tree, local: bool, cap: float) -> Array:
    """f32[K, G, S, T] of the chunk of queries that begins at `first` against the first T keys, capped and masked."""
    K, G, S, H = q_KGSH.shape
    T = k_KTH.shape[1]
    logits = products(q_KGSH.reshape(K, G * S, H), k_KTH, "kmh,kth->kmt").reshape(K, G, S, T)
    seen_ST = visible(first + jnp.arange(S), jnp.arange(T), tree, local)
    return jnp.where(seen_ST[None, None], softcap(logits, cap), MASKED)


Kept = tuple[Array, Array, Array, Tree, Array, Array]


def chunked_forward(
    q_SNH: Array, k_TKH: Array, v_TKH: Array, tree: Tree, local: bool, cap: float
) -> tuple[Array, Kept]:
    T, K, H = k_TKH.shape
    dtype = k_TKH.dtype
    q_KGSH = by_key_head(q_SNH, K).astype(dtype)
    k_KTH = k_TKH.transpose(1, 0, 2)
    # A column of ones sums the weights in the product that uses them, so that they are read once.
    v_KTJ = jnp.concatenate([v_TKH.transpose(1, 0, 2), jnp.ones((K, T, 1), dtype)], axis=-1)
    out, lse = [], []
    for first in range(0, T, BLOCK):
        last = first + BLOCK
        logits = chunk_logits(q_KGSH[:, :, first:last], k_KTH[:, :last], first, tree, local, cap)
        top = logits.max(axis=-1, keepdims=True)
        p = jnp.exp(logits - top).astype(dtype).reshape(K, -1, last)
        sums = products(p, v_KTJ[:, :last], "kmt,ktj->kmj").reshape(*logits.shape[:3], H + 1)
        out.append(sums[..., :H] / sums[..., H:])
        lse.append(top[..., 0] + jnp.log(sums[..., H]))
    out_SNH = by_token(jnp.concatenate(out, axis=2))
    return out_SNH, (q_SNH, k_TKH, v_TKH, tree, out_SNH, jnp.concatenate(lse, axis=2))


def chunked_backward(local: bool, cap: float, kept: Kept, d_SNH: Array) -> tuple[Array, Array, Array, Tree]:
    q_SNH, k_TKH, v_TKH, tree, out_SNH, lse_KGS = kept
    T, K, H = k_TKH.shape
    dtype = k_TKH.dtype
    q_KGSH, d_KGSH = (by_key_head(x, K).astype(dtype) for x in (q_SNH, d_SNH))
    delta_KGS = by_key_head((d_SNH * out_SNH).sum(axis=-1, keepdims=True), K)[..., 0]
    k_KTH, v_KTH = k_TKH.transpose(1, 0, 2), v_TKH.transpose(1, 0, 2)
    d_q = []
    # The head width in front of the keys: on a CPU the other order of this product takes twice the time.
    d_k_KHT = d_v_KHT = jnp.zeros((K, H, T), jnp.float32)
    for first in range(0, T, BLOCK):
        last = first + BLOCK
        q, d = q_KGSH[:, :, first:last], d_KGSH[:, :, first:last]
        logits = chunk_logits(q, k_KTH[:, :last], first, tree, local, cap)
        p = jnp.exp(logits - lse_KGS[:, :, first:last, None])
        q, d = q.reshape(K, -1, H), d.reshape(K, -1, H)
        d_p = products(d, v_KTH[:, :last], "kmh,kth->kmt").reshape(p.shape)
        d_logits = p * (d_p - delta_KGS[:, :, first:last, None])
        if cap:  # the slope of tanh; a masked logit has p = 0 and would overflow when squared
            d_logits *= 1.0 - jnp.square(jnp.where(p > 0, logits, 0.0) / cap)
        d_logits = d_logits.astype(dtype).reshape(K, -1, last)
        d_q.append(products(d_logits, k_KTH[:, :last], "kmt,kth->kmh").reshape(*lse_KGS.shape[:2], BLOCK, H))
        d_k_KHT = d_k_KHT.at[..., :last].add(products(q, d_logits, "kmh,kmt->kht"))
        d_v_KHT = d_v_KHT.at[..., :last].add(products(d, p.astype(dtype).reshape(K, -1, last), "kmh,kmt->kht"))
    no_tree: Any = Tree(*(np.zeros(x.shape, jax.dtypes.float0) for x in tree))  # type: ignore[arg-type]
    d_k_TKH, d_v_TKH = (x.transpose(2, 0, 1).astype(dtype) for x in (d_k_KHT, d_v_KHT))
    return by_token(jnp.concatenate(d_q, axis=2)), d_k_TKH, d_v_TKH, no_tree


chunked.defvjp(chunked_forward, chunked_backward)


class Schedule(NamedTuple):
    """Which key blocks each query block visits: `key_QB[q, :count_Q[q]]`, in ascending order."""

    key_QB: Array
    count_Q: Array


def schedule(index_S: Array, tree: Tree, local: bool) -> Schedule:
    """Key blocks with at least one visible pair possible, per block of queries.

    A block of keys is dead for a block of queries when it begins behind their last, when all its subtrees
    end before their first (max(end) <= first), or when it lies before all their windows.
    """
    blocks = tree.end_T.shape[0] // BLOCK
    index_QB = index_S.reshape(-1, min(BLOCK, index_S.shape[0]))
    first_Q, last_Q = index_QB.min(axis=1), index_QB.max(axis=1)
    key_B = jnp.arange(blocks) * BLOCK
    end_B = tree.end_T.reshape(blocks, BLOCK).max(axis=1)
    live_QB = (key_B[None] <= last_Q[:, None]) & (end_B[None] > first_Q[:, None])
    if local:
        low_Q = tree.start_T[index_QB].min(axis=1)
        live_QB &= key_B[None] + BLOCK > low_Q[:, None]
    order_QB = jnp.argsort(~live_QB, axis=1, stable=True)
    return Schedule(order_QB, live_QB.sum(axis=1))


def blocked(
    q_SNH: Array,
    k_TKH: Array,
    v_TKH: Array,
    index_S: Array,
    tree: Tree,
    local: bool,
    plan: Schedule,
    cap: float = 0.0,
) -> Array:
    """The same as `plain`, visiting live blocks only: f32[S, N, H]."""
    S, N, H = q_SNH.shape
    K = k_TKH.shape[1]
    G, Q = N // K, min(BLOCK, S)
    q_BKMH = q_SNH.reshape(S // Q, Q, K, G, H).transpose(0, 2, 1, 3, 4).reshape(S // Q, K, Q * G, H)
    k_KTH, v_KTH = k_TKH.transpose(1, 0, 2), v_TKH.transpose(1, 0, 2)

    def query_block(block: tuple[Array, Array, Array, Array]) -> Array:
        q_KMH, index_Q, key_B, count = block

        def key_block(step: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            top_KM, mass_KM, out_KMH = carry
            at = key_B[step] * BLOCK
            k = jax.lax.dynamic_slice_in_dim(k_KTH, at, BLOCK, 1)
            v = jax.lax.dynamic_slice_in_dim(v_KTH, at, BLOCK, 1)
            seen_QB = visible(index_Q, at + jnp.arange(BLOCK), tree, local)
            seen_MB = jnp.repeat(seen_QB, G, axis=0)
            logits = jnp.where(seen_MB, softcap(products(q_KMH, k, "kmh,kbh->kmb"), cap), MASKED)
            new_KM = jnp.maximum(top_KM, logits.max(axis=-1))
            # A query that sees nothing of this block would weigh its masked keys by exp(0).
            p = jnp.where(seen_MB, jnp.exp(logits - new_KM[..., None]), 0.0)
            keep_KM = jnp.exp(top_KM - new_KM)
            out_KMH = out_KMH * keep_KM[..., None] + products(p, v, "kmb,kbh->kmh")
            return new_KM, mass_KM * keep_KM + p.sum(axis=-1), out_KMH

        zero = (
            jnp.full((K, Q * G), MASKED, jnp.float32),
            jnp.zeros((K, Q * G), jnp.float32),
            jnp.zeros((K, Q * G, H), jnp.float32),
        )
        _, mass_KM, out_KMH = jax.lax.fori_loop(0, count, key_block, zero)
        return out_KMH / mass_KM[..., None]

    out = jax.lax.map(query_block, (q_BKMH, index_S.reshape(-1, Q), plan.key_QB, plan.count_Q))
    return out.reshape(S // Q, K, Q, G, H).transpose(0, 2, 1, 3, 4).reshape(S, N, H)


def rungs(blocks: int) -> list[int]:
    """Numbers of key blocks that `gathered` has a program for: each at most a third above the one before, or by one."""
    sizes = [1]
    while sizes[-1] < blocks:
        sizes.append(min(blocks, max(sizes[-1] + 1, sizes[-1] * 4 // 3)))
    return sizes


def gathered(
    q_SNH: Array,
    k_TKH: Array,
    v_TKH: Array,
    index_S: Array,
    tree: Tree,
    local: bool,
    plan: Schedule,
    cap: float = 0.0,
) -> Array:
    """The same as `blocked`: each block of queries against its live keys at once, copied side by side.

    The products are large, which a CPU needs to be fast, and nothing is rescaled from block to block. How many blocks
    are live is known only at run time, so one of a few programs is switched to. Under `vmap` all of them would run.
    """
    S, N, H = q_SNH.shape
    T, K, _ = k_TKH.shape
    G, Q, dtype = N // K, min(BLOCK, S), k_TKH.dtype
    q_BKMH = q_SNH.reshape(S // Q, Q, K, G, H).transpose(0, 2, 3, 1, 4).reshape(S // Q, K, G * Q, H).astype(dtype)
    k_KBQH = k_TKH.transpose(1, 0, 2).reshape(K, T // BLOCK, BLOCK, H)
    # A column of ones sums the weights in the product that uses them, so that they are read once.
    ones = jnp.ones((K, T, 1), dtype)
    v_KBQJ = jnp.concatenate([v_TKH.transpose(1, 0, 2), ones], axis=-1).reshape(K, T // BLOCK, BLOCK, H + 1)
    sizes = rungs(T // BLOCK)

    def query_block(block: tuple[Array, Array, Array, Array]) -> Array:
        q_KMH, index_Q, key_B, rung = block

        def against(size: int) -> Array:
            chosen = key_B[:size]
            k_KUH = k_KBQH[:, chosen].reshape(K, size * BLOCK, H)
            v_KUJ = v_KBQJ[:, chosen].reshape(K, size * BLOCK, H + 1)
            key_U = (chosen[:, None] * BLOCK + jnp.arange(BLOCK)).reshape(-1)
            seen_QU = visible(index_Q, key_U, tree, local)
            logits = softcap(products(q_KMH, k_KUH, "kmh,kuh->kmu"), cap).reshape(K, G, Q, -1)
            logits = jnp.where(seen_QU, logits, MASKED)
            p = jnp.exp(logits - logits.max(axis=-1, keepdims=True)).astype(dtype)
            sums = products(p.reshape(K, G * Q, -1), v_KUJ, "kmu,kuj->kmj")
            return sums[..., :H] / sums[..., H:]

        return jax.lax.switch(rung, [partial(against, size) for size in sizes])

    rung_B = jnp.searchsorted(jnp.asarray(sizes), plan.count_Q)
    out = jax.lax.map(query_block, (q_BKMH, index_S.reshape(-1, Q), plan.key_QB, rung_B))
    return out.reshape(S // Q, K, G, Q, H).transpose(0, 3, 1, 2, 4).reshape(S, N, H)


def skipping_for(platform: str) -> Skipping:
    """The block-skipping attention for devices of this platform (a JAX device's `platform`)."""
    return "gathered" if platform == "cpu" else "pallas" if platform == "tpu" else "blocked"


def skipping(kernel: str) -> Callable[..., Array]:
    """The block-skipping attention of this name; all take what `blocked` takes."""
    if kernel == "pallas":
        from rocketjax.judge.pallas import pallas  # here: it imports this file, and is slow to import itself

        return pallas
    return gathered if kernel == "gathered" else blocked
