"""One program from packed tokens and labels to the loss, and its training step.

    tokens ──► judge (adapter or weights, soft prompt) ──► margins ──► temperature, bias ──► head ──► losses

Whatever of it is in `Params` is trained, in any combination, in one optimizer step. It is sharded like grading: rows
over the mesh's data axis, gradients summed over it.

Trained weights and the optimizer's state are f32 and live sharded over the data axis (Rajbhandari et al. 2019,
arXiv 1910.02054, stage 1): each device keeps and updates its share. The frozen rest of the judge is replicated over it
in its own dtype. A model axis cuts both as it does in grading. What a step computes does not depend on the number of
devices beyond the order of f32 sums.

Axes: R rows of a batch, T tokens of a row, L leaves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rocketjax.grade import group_rows
from rocketjax.judge import Adapter, LowRank, MeshShape, Places, Transformer, make_mesh, manual, untyped
from rocketjax.tune.data import PLACE, Batch
from rocketjax.tune.loss import Head, Losses, Outputs, Reading, init_head, losses, outputs

Method = Literal["lora", "full"]


class Params(NamedTuple):
    """Everything that is trained, f32; a part that is None stays as it is.

    `weights`: the adapter's pairs, or the judge's own parameters by path (None: the judge is frozen). `head`: None is
    the mean of the items. `reading`: temperature and bias of the margin. `soft_PD`: a soft prompt, for rows packed with
    as many places for it (`Packer.soft`).
    """

    weights: Any = None
    head: Head | None = None
    reading: Reading | None = None
    soft_PD: Array | None = None


class Scale(NamedTuple):
    """Factor of each loss's sum over the rows of one optimizer step: its weight over the sum of label weights."""

    items: float
    pairs: float
    scores: float
    mass: float


@dataclass(frozen=True)
class Optimizer:
    """AdamW (Loshchilov & Hutter 2019) behind a clipped global norm. The learning rate is given with every update."""

    weight_decay: float = 0.0
    clip: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.98
    head_decay: float = 0.1  # pulls the head's item weights towards the mean's

    def transform(self) -> optax.GradientTransformation:

        def decayed(updates: Any, params: Any) -> Any:
            weights = jax.tree.map(lambda u, p: u + self.weight_decay * p, updates.weights, params.weights)
            head = updates.head
            if head is not None:
                head = head._replace(log_weight_I=head.log_weight_I + self.head_decay * params.head.log_weight_I)
            return updates._replace(weights=weights, head=head)

        return optax.chain(
            optax.clip_by_global_norm(self.clip),
            optax.scale_by_adam(self.beta1, self.beta2),
            optax.stateless(decayed),
        )


def data_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """All devices on the data axis; the compiler places what is not said."""
    devices = devices or jax.local_devices()
    return make_mesh(MeshShape(len(devices)), devices)


def share_of(leaf: Any, placed: NamedSharding) -> NamedSharding:
    """The leaf cut over the data axis along its first free axis that divides evenly; as `placed` where none does."""
    mesh = placed.mesh
    axes = [*placed.spec, *[None] * (len(leaf.shape) - len(placed.spec))]
    for axis, size in enumerate(leaf.shape):
        if axes[axis] is None and size and size % mesh.shape["data"] == 0:
            axes[axis] = "data"
            break
    return NamedSharding(mesh, PartitionSpec(*axes))


def placed(params: Params, places: Places) -> Params:
    """Where each trained parameter lies on the model axis: as the judge's own beside it, the rest whole."""
    whole = jax.tree.map(lambda _: places.whole, params)
    if params.weights is None:
        return whole
    of = {
        path: places.of_pair(path) if isinstance(value, LowRank) else places.of(path)
        for path, value in params.weights.items()
    }
    return whole._replace(weights=of)


def trainable(model: Transformer, first_layer: int) -> dict[str, Array]:
    """f32 copies of the judge's parameters by path: of layers from `first_layer` on, and of everything if that is 0."""
    model.unstack_layers()
    flat, _ = jax.tree_util.tree_flatten_with_path(nnx.state(model))
    named = {".".join(str(k.key) for k in keys[:-1]): leaf for keys, leaf in flat}
    return {
        path: jnp.array(leaf, jnp.float32)
        for path, leaf in named.items()
        if first_layer == 0 or (path.startswith("blocks.") and int(path.split(".")[1]) >= first_layer)
    }


def init_soft(model: Transformer, tokens: Sequence[int]) -> Array:
    """A soft prompt that begins as the embeddings of these tokens: f32[P, D]."""
    table = model.embed_VD[...]
    return table[jnp.asarray(tokens)].astype(jnp.float32) * model.config.embed_scale


def with_weights(model: Transformer, weights: Mapping[str, Array]) -> Transformer:
    """The judge with these parameters in place of its own, cast to their dtypes."""
    model.unstack_layers()
    graph, state = nnx.split(model)
    flat, structure = jax.tree_util.tree_flatten_with_path(state)
    leaves = []
    for keys, leaf in flat:
        path = ".".join(str(k.key) for k in keys[:-1])
        leaves.append(weights[path].astype(leaf.dtype) if path in weights else leaf)
    return nnx.merge(graph, jax.tree.unflatten(structure, leaves))


class Learner:
    """A judge, what of it is trained, and the compiled steps. `adapter_scale` is None where no adapter trains."""

    def __init__(
        self,
        model: Transformer,
        answer_ids: tuple[tuple[int, ...], tuple[int, ...]],
        params: Params,
        adapter_scale: float | None,
        optimizer: Optimizer,
        mesh: Mesh,
        remat: bool = False,
    ) -> None:
        self.mesh, self.remat = untyped(mesh), remat
        self.platform = mesh.devices.flat[0].platform
        places = Places(model.config, self.mesh)
        self.replicated = places.whole
        model.unstack_layers()
        self.model = places.place(model)
        self.adapter_scale = adapter_scale
        # The head where none is trained: item numbers beyond its table are the mean's too, see `losses`.
        self.mean = init_head(1, 1)
        self.yes, self.no = (np.asarray(ids, np.int32) for ids in answer_ids)
        self.transform = optimizer.transform()
        shares = jax.tree.map(share_of, params, placed(params, places))
        self.params = jax.device_put(params, shares)
        # The optimizer keeps trees like the parameters', and a count.
        abstract = jax.eval_shape(self.transform.init, self.params)
        states = optax.tree.map_params(
            self.transform, lambda _, share: share, abstract, shares, transform_non_params=lambda _: self.replicated
        )
        self.shares = (shares, states)
        self.state = jax.jit(self.transform.init, out_shardings=self.shares[1])(self.params)
        data, whole = PartitionSpec("data"), PartitionSpec()

        def gradients(params: Params, model: Transformer, batch: Batch, scale: Scale) -> tuple[Params, Losses]:
            (_, sums), grads = jax.value_and_grad(self.objective, has_aux=True)(params, model, batch, scale)
            return jax.lax.psum((grads, sums), "data")

        def accumulate(grads: Params, params: Params, model: Transformer, batch: Batch, scale: Scale) -> Any:
            per_device = jax.shard_map(
                gradients, mesh=self.mesh, in_specs=(whole, whole, data, whole), out_specs=whole, check_vma=False,
                axis_names=manual(self.mesh),
            )  # fmt: skip
            more, sums = per_device(params, model, batch, scale)
            return jax.tree.map(jnp.add, grads, more), sums

        def update(params: Params, state: Any, grads: Params, rate: Array, head_rate: Array) -> Any:
            norm = optax.tree.norm(grads)
            updates, state = self.transform.update(grads, state, params)
            slow, fast = (jax.tree.map(lambda u, r=r: -r * u, updates) for r in (rate, head_rate))
            down = Params(slow.weights, fast.head, fast.reading, slow.soft_PD)
            return optax.apply_updates(params, down), state, norm

        def predict(params: Params, model: Transformer, batch: Batch) -> tuple[Outputs, Losses]:
            one = jax.shard_map(
                lambda p, m, b: self.rows(p, m, b), mesh=self.mesh, in_specs=(whole, whole, data), out_specs=data,
                check_vma=False, axis_names=manual(self.mesh),
            )  # fmt: skip
            out, sums = one(params, model, batch)
            return out, jax.tree.map(lambda x: x.sum(), sums)

        self.accumulate = jax.jit(accumulate, donate_argnums=0, out_shardings=(self.shares[0], self.replicated))
        self.update = jax.jit(update, donate_argnums=(0, 1), out_shardings=(*self.shares, self.replicated))
        self.predict_step = jax.jit(predict)
        self.zeros = jax.jit(lambda p: jax.tree.map(jnp.zeros_like, p), out_shardings=self.shares[0])

    def rows(self, params: Params, model: Transformer, batch: Batch) -> tuple[Outputs, Losses]:
        """Outputs and loss sums of every row: f32[R, L], f32[R]."""
        adapter = None
        if params.weights is not None and self.adapter_scale is not None:
            adapter = Adapter(params.weights, self.adapter_scale)
        elif params.weights is not None:
            model = with_weights(model, params.weights)
        head = params.head or self.mean

        def one(batch: Batch) -> tuple[Outputs, Losses]:
            out = outputs(model, adapter, batch.row, self.yes, self.no, remat=self.remat, soft_PD=params.soft_PD)
            if params.reading is not None:
                out = out._replace(margin_L=params.reading.logit(out.margin_L))
            return out, losses(out, head, batch.targets)

        if len(batch.row.token_T) > 1:
            return jax.vmap(one)(batch)
        # No vmap for a single row: XLA's CPU backend runs batched products on one thread.
        return jax.tree.map(lambda x: x[None], one(jax.tree.map(lambda x: x[0], batch)))

    def objective(self, params: Params, model: Transformer, batch: Batch, scale: Scale) -> tuple[Array, Losses]:
        """The batch's part of the step's loss, and its sums. Differentiable from the labels to every parameter."""
        _, per_row = self.rows(params, model, batch)
        sums = jax.tree.map(lambda x: x.sum(), per_row)
        total = (
            scale.items * sums.items + scale.pairs * sums.pairs + scale.scores * sums.scores + scale.mass * sums.mass
        )
        return total, sums

    def multiple(self, length: int) -> int:
        """Rows of one call: a group on every device."""
        return group_rows(length, self.platform) * self.mesh.shape["data"]

    def put(self, batch: Batch) -> Batch:
        """The batch on all devices. Raises ValueError where its places for a soft prompt are not the prompt's."""
        places = (np.asarray(batch.row.token_T) == PLACE).sum(axis=-1)
        wanted = 0 if self.params.soft_PD is None else len(self.params.soft_PD)
        if (places != wanted).any():
            found = int(places.max())
            raise ValueError(f"a soft prompt of {wanted} vectors, and rows packed with {found} places for it")
        placed: Batch = jax.device_put(batch, NamedSharding(self.mesh, PartitionSpec("data")))
        return placed

    def step(self, batches: list[Batch], scale: Scale, rate: float, head_rate: float) -> tuple[Losses, float]:
        """One optimizer step over all batches. Returns the sums and the norm of the gradient before clipping."""
        grads = self.zeros(self.params)
        total = None
        for batch in batches:
            grads, sums = self.accumulate(grads, self.params, self.model, self.put(batch), scale)
            total = sums if total is None else jax.tree.map(jnp.add, total, sums)
        assert total is not None, "a step has at least one row"
        self.params, self.state, norm = self.update(
            self.params, self.state, grads, jnp.float32(rate), jnp.float32(head_rate)
        )
        return jax.tree.map(float, total), float(norm)

    def predict(self, batch: Batch) -> tuple[Outputs, Losses]:
        """Outputs f32[R, L] and loss sums of a batch, without training."""
        out, sums = self.predict_step(self.params, self.model, self.put(batch))
        return jax.tree.map(np.asarray, out), jax.tree.map(float, sums)
