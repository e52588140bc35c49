"""One transformer for all families, over one packed row of prompt trees.

Axes: T tokens of a row, L leaves (items) of it, D width, N query heads, K key heads, H head width, F hidden
width of the MLP, V vocabulary, P vectors of a soft prompt. Activations, norms, softmax and logits are f32; the
weights' dtype decides the operands of every contraction, whose results are f32 again (`attention.products`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from rocketjax.judge import attention
from rocketjax.judge.attention import Tree, products
from rocketjax.judge.config import Config

Kernel = Literal["blocked", "gathered", "pallas", "chunked", "plain"]


# How many of its axes, from the front, each projection of a block contracts with its input.
INPUTS = {"q_DNH": 1, "k_DKH": 1, "v_DKH": 1, "o_NHD": 2, "gate_DF": 1, "up_DF": 1, "down_FD": 1}


@partial(jax.tree_util.register_dataclass, data_fields=["values", "scale"], meta_fields=["dtype"])
@dataclass(frozen=True)
class Int8:
    """A matrix rounded to int8: `values` in the weight's own shape, f32 `scale` for each of its outputs.

    An output is the product with `values`, times its scale; `dtype` is that of the product's operands. Every int8 is
    exact in bf16.
    """

    values: Array
    scale: Array
    dtype: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def reshape(self, *shape: int) -> Array:
        return self.values.reshape(*shape).astype(self.dtype)


@partial(jax.tree_util.register_dataclass, data_fields=["values"], meta_fields=["shape"])
@dataclass(frozen=True)
class Turned:
    """A projection of this shape, as one matrix with the outputs in front: `values` [out, in].

    For a few rows at a time on a CPU, where it is faster by half: see `outputs_first`.
    """

    values: Array
    shape: tuple[int, ...]

    @property
    def dtype(self) -> Any:
        return self.values.dtype


class LowRank(NamedTuple):
    """An addition to one projection: `down` [R, in ...], `up` [R, out ...]."""

    down: Array
    up: Array

    def apply(self, x: Array, dtype: DTypeLike) -> Array:
        """[T, in ...] to f32[T, out ...], with operands of this dtype."""
        down, up = (a.astype(dtype).reshape(len(a), -1) for a in self)
        # The rank in front: its gradient, [R, in], is then a fast form of product on every backend.
        low_TR = products(x.reshape(len(x), -1), down, "td,rd->tr")
        return products(low_TR, up, "tr,rf->tf").reshape(len(x), *self.up.shape[1:])


@partial(jax.tree_util.register_dataclass, data_fields=["pairs"], meta_fields=["scale"])
@dataclass(frozen=True)
class Adapter:
    """Low-rank additions by the parameter's path (`blocks.3.q_DNH`), and the factor on all of them."""

    pairs: dict[str, LowRank]
    scale: float

    def of_block(self, n: int) -> "Adapter":
        """The pairs of one block, by the names of its projections."""
        prefix = f"blocks.{n}."
        pairs = {path.removeprefix(prefix): pair for path, pair in self.pairs.items() if path.startswith(prefix)}
        return Adapter(pairs, self.scale)


Tap = Callable[[str, Array], None]
Attend = Callable[[Array, Array, Array], Array]  # queries [S, N, H], keys and values [T, K, H] to f32[S, N, H]


class Row(NamedTuple):
    """One packed row: prompt trees in depth-first order, padded to the bucket's length. All int32."""

    token_T: Array
    position_T: Array  # along the token's own path
    end_T: Array  # see `attention.Tree`
    start_T: Array
    leaf_L: Array  # packed index of the last token of each item's prompt; padding repeats index 0


def rms_norm(x: Array, gain: Array, config: Config) -> Array:
    """Root-mean-square norm over the last axis (Zhang & Sennrich 2019, eq. 4)."""
    scale = jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + config.norm_eps)
    return x * scale * (gain.astype(jnp.float32) + config.gain_offset)


def quantise(weight: Array, inputs: tuple[int, ...], dtype: Any) -> Int8:
    """The nearest int8 to each weight, with the largest of each output at 127; `inputs` are the contracted axes."""
    scale = jnp.max(jnp.abs(weight), axis=inputs, keepdims=True) / 127.0
    values = jnp.round(weight / jnp.where(scale > 0, scale, 1.0)).astype(jnp.int8)
    return Int8(values, scale.squeeze(inputs).astype(jnp.float32), dtype)


def outputs_first(weight_OI: Array, x_TI: Array) -> Array:
    """f32[T, O], as the product weight_OI by x_IT.

    XLA's CPU backend computes a product in the order that it is written in, and a large matrix is its better first
    operand; the barrier keeps it from turning the product around together with its result.
    """
    return jax.lax.optimization_barrier(products(weight_OI, x_TI.T, "oi,it->ot")).T


def linear(x: Array, weight: Array | Int8 | Turned, inputs: int) -> Array:
    """[T, in ...] times [in ..., out ...]: f32[T, out ...]; `inputs` is how many axes are contracted.

    As one plain matrix product: XLA's CPU backend cannot transpose every other form of it in bf16.
    """
    rows = math.prod(weight.shape[:inputs])
    if isinstance(weight, Turned):
        return outputs_first(weight.values, x.reshape(len(x), rows)).reshape(len(x), *weight.shape[inputs:])
    flat = products(x.reshape(len(x), rows), weight.reshape(rows, -1), "td,df->tf")
    if isinstance(weight, Int8):
        flat *= weight.scale.reshape(-1)
    return flat.reshape(len(x), *weight.shape[inputs:])


def rotary(position: Array, config: Config, local: bool) -> tuple[Array, Array]:
    """cos and sin, f32[T, 1, H / 2], of the rotary embedding (Su et al. 2021, eq. 34), pairs (h, h + H/2)."""
    c = config
    theta, scale = (c.rope_theta_local, 1.0) if local else (c.rope_theta, c.rope_scale)
    frequency = theta ** (-jnp.arange(0, c.H, 2, dtype=jnp.float32) / c.H)
    if c.rope_factors and not local:
        frequency /= jnp.asarray(c.rope_factors, jnp.float32)
    angle = position[:, None].astype(jnp.float32) / scale * frequency
    return jnp.cos(angle)[:, None], jnp.sin(angle)[:, None]


def rotate(x: Array, table: tuple[Array, Array]) -> Array:
    """Turns each head's pairs (h, h + H/2) by their angle."""
    cos, sin = table
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def weight(*shape: int) -> nnx.Param:
    """A parameter that a loader fills; only its shape is known before."""
    return nnx.Param(jnp.zeros(shape, jnp.float32))


@dataclass(frozen=True)
class Path:
    """What a layer needs besides its input: the same for all layers of one kind (full or local)."""

    local: bool
    kernel: "Kernel"
    tree: Tree
    table: tuple[Array, Array]
    every: attention.Schedule | None  # blocks to visit from every token; None: all
    leaves: attention.Schedule | None


def either(is_local: Array, local: Path, full: Path) -> Path:
    """The one path or the other, told by a traced bool[]: a full layer is a local one whose window begins at 0."""
    everywhere = replace(full, local=True, tree=full.tree._replace(start_T=jnp.zeros_like(full.tree.start_T)))

    def data(path: Path) -> Any:
        return path.tree, path.table, path.every, path.leaves

    tree, table, every, leaves = jax.tree.map(partial(jnp.where, is_local), data(local), data(everywhere))
    return replace(local, tree=tree, table=table, every=every, leaves=leaves)


class Block(nnx.Module):
    """Attention and a gated MLP, each behind a norm and added to the residual stream."""

    def __init__(self, config: Config) -> None:
        c = config
        self.attn_norm_D = weight(c.D)
        self.q_DNH = weight(c.D, c.N, c.H)
        self.k_DKH = weight(c.D, c.K, c.H)
        self.v_DKH = weight(c.D, c.K, c.H)
        self.o_NHD = weight(c.N, c.H, c.D)
        if c.qkv_bias:
            self.q_bias_NH = weight(c.N, c.H)
            self.k_bias_KH = weight(c.K, c.H)
            self.v_bias_KH = weight(c.K, c.H)
        self.mlp_norm_D = weight(c.D)
        self.gate_DF = weight(c.D, c.F)
        self.up_DF = weight(c.D, c.F)
        self.down_FD = weight(c.F, c.D)
        if c.qk_norm:
            self.q_norm_H = weight(c.H)
            self.k_norm_H = weight(c.H)
        if c.post_norms:
            self.post_attn_norm_D = weight(c.D)
            self.post_mlp_norm_D = weight(c.D)

    def __call__(
        self,
        x_TD: Array,
        path: Path,
        config: Config,
        leaf_L: Array | None,
        adapter: Adapter | None = None,
        tap: Tap | None = None,
    ) -> Array:
        """f32[T, D], or f32[L, D] where `leaf_L` is given: then queries and MLP run at the leaves only.

        The adapter's pairs go by the projections' own names here. `tap` is shown the input of each projection.
        """

        def attend(q_SNH: Array, k_TKH: Array, v_TKH: Array) -> Array:
            index, plan = jnp.arange(x_TD.shape[0]), path.every
            if leaf_L is not None:
                index, plan = leaf_L, path.leaves
            if path.kernel == "chunked" and leaf_L is None:
                return attention.chunked(q_SNH, k_TKH, v_TKH, path.tree, path.local, config.attn_softcap)
            if plan is None:
                return attention.plain(q_SNH, k_TKH, v_TKH, index, path.tree, path.local, config.attn_softcap)
            live = attention.skipping(path.kernel)
            return live(q_SNH, k_TKH, v_TKH, index, path.tree, path.local, plan, config.attn_softcap)

        return self.around(attend, x_TD, path.table, config, leaf_L, adapter, tap)

    def around(
        self,
        attend: Attend,
        x_TD: Array,
        table: tuple[Array, Array],
        config: Config,
        leaf_L: Array | None = None,
        adapter: Adapter | None = None,
        tap: Tap | None = None,
    ) -> Array:
        """The block with an attention of the caller's, which gets scaled queries, keys and values, rotated by `table`;
        keys and values are in the weights' dtype."""
        c = config

        def project(x: Array, name: str) -> Array:
            if tap is not None:
                tap(name, x)
            weight = getattr(self, name).get_value()
            out = linear(x, weight, INPUTS[name])
            if adapter is None or name not in adapter.pairs:
                return out
            return out + adapter.scale * adapter.pairs[name].apply(x, weight.dtype)

        h_TD = rms_norm(x_TD, self.attn_norm_D[...], c)
        k_TKH = project(h_TD, "k_DKH")
        v_TKH = project(h_TD, "v_DKH")
        if c.qkv_bias:
            k_TKH, v_TKH = k_TKH + self.k_bias_KH[...], v_TKH + self.v_bias_KH[...]
        if c.qk_norm:
            k_TKH = rms_norm(k_TKH, self.k_norm_H[...], c)
        k_TKH = rotate(k_TKH, table)

        if leaf_L is not None:
            h_TD, x_TD = h_TD[leaf_L], x_TD[leaf_L]
            table = (table[0][leaf_L], table[1][leaf_L])
        q_SNH = project(h_TD, "q_DNH")
        if c.qkv_bias:
            q_SNH = q_SNH + self.q_bias_NH[...]
        if c.qk_norm:
            q_SNH = rms_norm(q_SNH, self.q_norm_H[...], c)
        q_SNH = rotate(q_SNH, table) * (c.query_scale or c.H**-0.5)

        dtype = self.q_DNH.get_value().dtype
        out_SNH = attend(q_SNH, k_TKH.astype(dtype), v_TKH.astype(dtype))
        out = project(out_SNH, "o_NHD")
        x_TD = x_TD + (rms_norm(out, self.post_attn_norm_D[...], c) if c.post_norms else out)

        h_TD = rms_norm(x_TD, self.mlp_norm_D[...], c)
        gate = project(h_TD, "gate_DF")
        gate = jax.nn.silu(gate) if c.activation == "silu" else jax.nn.gelu(gate, approximate=True)
        out = project(gate * project(h_TD, "up_DF"), "down_FD")
        return x_TD + (rms_norm(out, self.post_mlp_norm_D[...], c) if c.post_norms else out)


def stack_arrays(arrays: list[Array]) -> Array:
    """One array with an axis for them in front; on a mesh, cut as each of them is."""
    home = getattr(arrays[0], "sharding", None)
    if not isinstance(home, NamedSharding):
        return jnp.stack(arrays)
    together = NamedSharding(home.mesh, PartitionSpec(None, *home.spec))
    return jax.jit(lambda *x: jnp.stack(x), out_shardings=together)(*arrays)


@partial(jax.jit, static_argnums=1)
def turn(weight: Array, rows: int) -> Array:
    return weight.reshape(rows, -1).T


def turned(model: "Transformer") -> "Transformer":
    """The model, its layers apart, with `Turned` copies of their projections; all else is shared."""
    graph, state = nnx.split(model)
    leaves, structure = jax.tree_util.tree_flatten_with_path(state)

    def made(name: str, leaf: Array) -> Array | Turned:
        return Turned(turn(leaf, math.prod(leaf.shape[: INPUTS[name]])), leaf.shape) if name in INPUTS else leaf

    return nnx.merge(graph, jax.tree.unflatten(structure, [made(str(keys[-2].key), leaf) for keys, leaf in leaves]))


def tap_block(tap: Tap, n: int, name: str, x: Array) -> None:
    tap(f"blocks.{n}.{name}", x)


class Transformer(nnx.Module):
    """A decoder-only language model of any family that `Config` can describe."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.embed_VD = weight(config.V, config.D)
        self.blocks = nnx.List([Block(config) for _ in range(config.layers)])
        self.stack: Block | None = nnx.data(None)  # see `stack_layers`
        self.final_norm_D = weight(config.D)
        if not config.tied:
            self.head_DV = weight(config.D, config.V)

    def stack_layers(self) -> None:
        """Moves all layers but the last, in place, into one `Block` whose parameters have an axis of layers in front.

        Then the layers are the steps of one loop, and a program compiles in a fraction of the time; the numbers stay.
        Weights are moved kind by kind, so memory holds the model and one kind more. No adapter and no tap from then on,
        until `unstack_layers`.
        """
        if self.stack is not None or len(self.blocks) < 2:
            return
        *inner, last = self.blocks
        graph = nnx.graphdef(last)
        columns = [list(column) for column in zip(*(jax.tree.leaves(nnx.state(b)) for b in inner), strict=True)]
        structure = jax.tree.structure(nnx.state(last))
        del inner
        self.blocks = nnx.List([last])
        stacked = []
        while columns:
            stacked.append(stack_arrays(columns.pop(0)))
        self.stack = nnx.merge(graph, jax.tree.unflatten(structure, stacked))

    def unstack_layers(self) -> None:
        """Undoes `stack_layers`, in place: every layer a `Block` of its own, which an adapter can reach."""
        if self.stack is None:
            return
        graph, state = nnx.split(self.stack)
        inner = [jax.tree.map(lambda x, n=n: x[n], state) for n in range(self.config.layers - 1)]
        self.blocks = nnx.List([*(nnx.merge(graph, own) for own in inner), self.blocks[0]])
        self.stack = None

    def __call__(self, row: Row, kernel: Kernel = "blocked") -> Array:
        """Next-token logits at the leaves of one row: f32[L, V]."""
        return self.logits(self.hidden(row, kernel))

    def hidden(
        self,
        row: Row,
        kernel: Kernel = "blocked",
        adapter: Adapter | None = None,
        remat: bool = False,
        tap: Tap | None = None,
        soft_PD: Array | None = None,
    ) -> Array:
        """Final hidden state at the leaves of one row, normed: f32[L, D].

        `blocked`, `gathered` and `pallas` have no reverse mode; `chunked` and `plain` have. `remat` computes every
        block again in the backward pass instead of keeping its activations. `tap` is called with each projection's path
        and input.
        `soft_PD` are trained vectors that stand in place of the embeddings of tokens 1 to P (Lester et al. 2021, arXiv
        2104.08691); the first token stays, models lean on it. All prompts of the row must hold them there.
        """
        c = self.config
        tree = Tree(row.end_T, row.start_T)
        every = jnp.arange(row.token_T.shape[0])

        def path(local: bool) -> Path:
            plans: tuple[attention.Schedule | None, ...] = (None, None)
            if kernel in get_args(attention.Skipping):
                plans = tuple(attention.schedule(index, tree, local) for index in (every, row.leaf_L))
            return Path(local, kernel, tree, rotary(row.position_T, c, local), *plans)

        paths = {local: path(local) for local in {n in c.local_layers for n in range(c.layers)}}
        x_TD = self.embed(row.token_T) * c.embed_scale
        if soft_PD is not None:
            x_TD = x_TD.at[1 : 1 + len(soft_PD)].set(soft_PD)
        if self.stack is not None:
            assert adapter is None and tap is None, "these need layers of their own"
            x_TD = self.run_stack(x_TD, paths, remat)
        first = c.layers - len(self.blocks)
        for n, block in enumerate(self.blocks, first):
            leaf_L = row.leaf_L if n == c.layers - 1 else None
            own = adapter and adapter.of_block(n)
            own_tap = tap and partial(tap_block, tap, n)

            def run(x_TD: Array, own: Adapter | None, n: int = n, block: Block = block) -> Array:
                return block(x_TD, paths[n in c.local_layers], c, leaf_L, own, own_tap)  # noqa: B023 - called at once

            x_TD = (jax.checkpoint(run) if remat else run)(x_TD, own)
        return rms_norm(x_TD, self.final_norm_D[...], c)

    def run_stack(self, x_TD: Array, paths: dict[bool, Path], remat: bool) -> Array:
        """f32[T, D] through all layers but the last, one step of a loop each."""
        c = self.config
        assert self.stack is not None
        graph, state = nnx.split(self.stack)
        local_L = jnp.asarray([n in c.local_layers for n in range(c.layers - 1)])
        mixed = len(paths) == 2

        def layer(x_TD: Array, own: tuple[nnx.State, Array]) -> tuple[Array, None]:
            weights, local = own
            path = either(local, paths[True], paths[False]) if mixed else next(iter(paths.values()))
            return nnx.merge(graph, weights)(x_TD, path, c, None), None

        return jax.lax.scan(jax.checkpoint(layer) if remat else layer, x_TD, (state, local_L))[0]

    def embed(self, token_T: Array) -> Array:
        """Rows of the embedding: f32[T, D]."""
        table = self.embed_VD.get_value()
        if isinstance(table, Int8):
            return table.values[token_T].astype(jnp.float32) * table.scale[token_T][:, None]
        return table[token_T].astype(jnp.float32)

    def logits(self, hidden_LD: Array) -> Array:
        """Logits of the full vocabulary: f32[L, V]."""
        if self.config.tied and isinstance(self.blocks[-1].q_DNH.get_value(), Turned):
            return attention.softcap(outputs_first(self.embed_VD[...], hidden_LD), self.config.final_softcap)
        spec = "ld,vd->lv" if self.config.tied else "ld,dv->lv"
        head = (self.embed_VD if self.config.tied else self.head_DV).get_value()
        logits = products(hidden_LD, head.reshape(*head.shape), spec)
        if isinstance(head, Int8):
            logits *= head.scale
        return attention.softcap(logits, self.config.final_softcap)
