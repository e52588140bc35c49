"""Heads fitted with Optax: item weights by other losses, calibrated items, soft trees, and the shared network.

All of them shrink to the mean of the items, and a penalty of strength 1 is a prior as strong as one label's noise.
What they give is a latent score; `on_scale` brings it to the labeler's scale.

Axes: Q queries, M models, I items, E features of an item, F hidden width, R trees, D depth.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from jax import Array

from rocketjax.reweight.linear import LEVELS, Linear, basis, fit_ridge, parts, pooled, some_queries
from rocketjax.reweight.panels import Data

STEPS = 300
FOLDS = 4  # half as many where fewer than eight models are labelled: one left-out label of a query has no order
LARGE = 8.0  # bound of logit p, which is infinite where f32 has p = 1

T = TypeVar("T")


def descend(loss: Callable[[T], Array], start: T, rate: float = 0.05, steps: int = STEPS, positive: bool = False) -> T:
    """Adam with a cosine to zero over the whole data; `positive` projects every parameter onto numbers >= 0."""
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))

    def step(carry: tuple[T, Any], _: None) -> tuple[tuple[T, Any], None]:
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
        if positive:
            params = optax.projections.projection_non_negative(params)
        return (params, state), None

    (params, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), length=steps)
    return params


class Scale(NamedTuple):
    """From a latent score to the labeler's scale: `level_Q + slope * latent`."""

    level_Q: Array
    slope: Array


def on_scale(latent_QM: Array, data: Data, least: Array | float = 1e-6) -> Scale:
    """The pooled slope of labels on latents within queries, and levels shrunk to the pooled one.

    The levels' strength is the one of `LEVELS` with the least leave-one-out error. Latents that deviate by less than
    `least` are taken to be so large: rounding is no signal.
    """
    w_QM = data.weight_QM
    total_Q = w_QM.sum(axis=1)
    # Centred and sized over all graded responses, as the linear model's u.
    graded_QM = data.graded_QM.astype(jnp.float32)
    center_Q = (graded_QM * latent_QM).sum(axis=1) / jnp.maximum(graded_QM.sum(axis=1), 1)
    c_QM = latent_QM - center_Q[:, None]
    size = jnp.maximum(jnp.sqrt((graded_QM * c_QM**2).sum() / jnp.maximum(graded_QM.sum(), 1)), least)
    common = pooled(c_QM / size, data)
    level, slope = common.level, common.slope / size
    rest_QM = data.label_QM - level - slope * c_QM
    sum_Q = (w_QM * rest_QM).sum(axis=1)

    def error(strength: Array) -> Array:
        a_Q = 1 / (total_Q + 1 / strength)
        left_out_QM = (rest_QM - (a_Q * sum_Q)[:, None]) / (1 - w_QM * a_Q[:, None])
        return (w_QM * left_out_QM**2).sum()

    tried = jnp.array(LEVELS, jnp.float32)
    strength = tried[jnp.argmin(jax.vmap(error)(tried))]
    own_Q = sum_Q / (total_Q + 1 / strength)
    return Scale(level + own_Q - slope * center_Q, slope)


def fold_of(place: Array, labelled: Array) -> Array:
    """Folds dealt out to what is labelled, in the order of the names: int32 below FOLDS."""
    before = (place[None] < place[:, None]) & labelled[None]
    return before.sum(axis=1) % jnp.where(labelled.sum() < 2 * FOLDS, FOLDS // 2, FOLDS)


def folds(data: Data, by_query: bool = False) -> list[tuple[Data, Data]]:
    """Training and left-out part of the labels, cut by models or by queries, `FOLDS` times."""
    axis = 1 if by_query else 0
    labelled = data.weight_QM.sum(axis=axis) > 0
    fold = fold_of(data.place_Q if by_query else data.place_M, labelled)
    out = []
    for k in range(FOLDS):
        kept = (fold != k).astype(jnp.float32)
        kept = kept[:, None] if by_query else kept
        out.append(
            (data._replace(weight_QM=data.weight_QM * kept), data._replace(weight_QM=data.weight_QM * (1 - kept)))
        )
    return out


def standard_rest(data: Data) -> tuple[Array, Array, Array]:
    """Labels less their query's mean, their pooled within-query deviation, and the same in units of it."""
    w_QM = data.weight_QM
    mean_Q = (w_QM * data.label_QM).sum(axis=1) / jnp.maximum(w_QM.sum(axis=1), 1e-9)
    rest_QM = (data.label_QM - mean_Q[:, None]) * (w_QM > 0)
    size = jnp.sqrt((w_QM * rest_QM**2).sum() / jnp.maximum(w_QM.sum(), 1e-9))
    size = jnp.maximum(size, 1e-6)
    return rest_QM, size, rest_QM / size


def centered(x_QM: Array, data: Data) -> Array:
    """Less the weighted mean over each query's labelled responses."""
    w_QM = data.weight_QM
    mean_Q = (w_QM * x_QM).sum(axis=1) / jnp.maximum(w_QM.sum(axis=1), 1e-9)
    return x_QM - mean_Q[:, None]


def pair_loss(score_QM: Array, data: Data) -> Array:
    """Bradley-Terry: sum of -log sigmoid(difference) over pairs of a query with different labels, over M - 1 of them.

    Every label is in up to M - 1 pairs, which are not that many observations.
    """
    w_QM = data.weight_QM
    better = (data.label_QM[:, :, None] > data.label_QM[:, None]) * w_QM[:, :, None] * w_QM[:, None]
    partners_Q = jnp.maximum((w_QM > 0).sum(axis=1) - 1, 1)
    loss = jax.nn.softplus(score_QM[:, None] - score_QM[:, :, None])
    return ((better * loss).sum(axis=(1, 2)) / partners_Q).sum()


def soft_rank(x_QM: Array, data: Data) -> Array:
    """Ranks among the labelled responses of a query: sums of sigmoids of differences (Qin et al. 2010, eq. 12)."""
    w_QM = data.weight_QM
    return (w_QM[:, None] * jax.nn.sigmoid(x_QM[:, :, None] - x_QM[:, None])).sum(axis=2)


def rank_loss(score_QM: Array, data: Data) -> Array:
    """1 - Spearman's correlation of soft ranks with the labels' ranks, summed over queries times their labels."""
    w_QM = data.weight_QM
    # Far apart, so that the sigmoids of the labels are steps; equal labels share their rank.
    label_QM = jnp.sign(data.label_QM[:, :, None] - data.label_QM[:, None]) * 0.5 + 0.5
    a_QM = centered(soft_rank(score_QM, data), data)
    b_QM = centered((w_QM[:, None] * label_QM).sum(axis=2), data)
    top_Q = (w_QM * a_QM * b_QM).sum(axis=1)
    sizes_Q = (w_QM * a_QM**2).sum(axis=1) * (w_QM * b_QM**2).sum(axis=1)
    known_Q = sizes_Q > 1e-9
    rho_Q = jnp.where(known_Q, top_Q / jnp.sqrt(jnp.where(known_Q, sizes_Q, 1.0)), 0.0)
    return (w_QM.sum(axis=1) * known_Q * (1 - rho_Q)).sum()


class Weights(NamedTuple):
    """Item weights and the place of the latent they make of p less its center: f32 would lose small differences of a
    judge whose p are all alike."""

    center_QI: Array
    weight_QI: Array
    scale: Scale


def fit_weights(
    data: Data, pairs: bool, monotone: bool, rank_weight: float, steps: int = STEPS, strength_3: Array | None = None
) -> Weights:
    """The linear model of `linear.py` by descent: squared or pairwise loss, `rank_weight` times the rank loss.

    `monotone` keeps all weights at 0 or more, so that a yes never costs. The prior is the ridge's, with its chosen
    strengths unless others are given.
    """
    b = basis(data)
    u_QM, _ = parts(b, data)
    # A direction without any variance has no prior density to write down.
    strength_3 = jnp.maximum(fit_ridge(data).strength_3 if strength_3 is None else strength_3, 1e-3)
    slope = pooled(u_QM, data).slope
    rest_QM, size, _ = standard_rest(data)
    prior = jnp.maximum(slope, 0.0) if monotone else slope
    label_w_QM = data.weight_QM
    noise = jnp.sqrt((label_w_QM * (rest_QM - slope * centered(u_QM, data)) ** 2).sum() / label_w_QM.sum())
    noise = jnp.maximum(noise, 1e-3 * size)
    count_Q = data.item_QI.sum(axis=1)
    # Parameters are item weights in units of the mean's: latent = unit * sum_i x_i c_i.
    unit_Q = 1 / (b.u_size * count_Q)
    start_QI = prior * data.item_QI

    def latent(x_QI: Array) -> Array:
        c_QMI = (data.p_QMI - b.center_QI[:, None]) * data.item_QI[:, None]
        return jnp.einsum("qmi,qi->qm", c_QMI, x_QI) * unit_Q[:, None]

    def loss(x_QI: Array) -> Array:
        x_QI = x_QI * data.item_QI
        score_QM = latent(x_QI)
        # The common part of the weights is the slope; the rest, in v's units, the deviations.
        mean_Q = x_QI.sum(axis=1) / count_Q
        own_QI = (x_QI - mean_Q[:, None]) * data.item_QI * (unit_Q * b.v_size)[:, None]
        penalty = ((mean_Q - prior) ** 2).sum() / strength_3[1] + (own_QI**2).sum() / strength_3[2]
        fit = (label_w_QM * (rest_QM - centered(score_QM, data)) ** 2).sum() / noise**2 / 2
        if pairs:
            # pi / sqrt(3): the deviation of the logistic noise that Bradley-Terry means.
            fit = pair_loss(1.814 * score_QM / noise, data)
        return fit + penalty / (2 * noise**2) + rank_weight * rank_loss(2 * score_QM / noise, data)

    size_x = jnp.maximum(jnp.abs(slope), noise)
    x_QI = descend(lambda x: loss(x * size_x), start_QI / size_x, steps=steps, positive=monotone) * size_x
    weight_QI = x_QI * data.item_QI * unit_Q[:, None]
    return Weights(b.center_QI, weight_QI, on_scale(latent(x_QI), data, least=size / 10))


def as_linear(weights: Weights) -> Linear:
    """Without a posterior: its covariance is 0."""
    Q, I = weights.weight_QI.shape  # noqa: E741
    return Linear(
        weights.scale.level_Q, weights.center_QI, weights.scale.slope * weights.weight_QI,
        jnp.zeros((Q, I + 1, I + 1)), jnp.zeros(Q), jnp.zeros(3),
    )  # fmt: skip


class Calibrated(NamedTuple):
    """A slope and a shift of logit p for every item: latent = mean_i sigmoid(slope_i logit p_i + shift_i)."""

    slope_QI: Array
    shift_QI: Array
    scale: Scale


def logit(p: Array) -> Array:
    return jnp.clip(jnp.log(p) - jnp.log1p(-p), -LARGE, LARGE)


def calibrated_latent(slope_QI: Array, shift_QI: Array, p_QMI: Array, item_QI: Array) -> Array:
    z_QMI = slope_QI[:, None] * logit(p_QMI) + shift_QI[:, None]
    return (jax.nn.sigmoid(z_QMI) * item_QI[:, None]).sum(axis=2) / item_QI.sum(axis=1)[:, None]


def fit_calibrated(data: Data, strength: Array) -> Calibrated:
    """Slopes are exp(common + own), shifts common + own; the own parts are penalised by 1 / strength."""
    _, _, rest_QM = standard_rest(data)
    w_QM = data.weight_QM

    def unfold(params: Any) -> tuple[Array, Array]:
        # A slope within e**3 of 1 keeps an item's sigmoid from becoming a step between two responses.
        slope_QI = jnp.exp(3 * jnp.tanh((params["a"] + params["own_a"]) / 3))
        return slope_QI, params["c"] + params["own_c"]

    def loss(params: Any) -> Array:
        latent_QM = centered(calibrated_latent(*unfold(params), data.p_QMI, data.item_QI), data)
        # The best slope on the labels' scale has a closed form.
        top, under = (w_QM * latent_QM * rest_QM).sum(), (w_QM * latent_QM**2).sum()
        fit = (w_QM * (rest_QM - top / (under + 1e-6) * latent_QM) ** 2).sum()
        own = (params["own_a"] ** 2).sum() + (params["own_c"] ** 2).sum()
        return (fit + own / strength + params["a"] ** 2 + 0.1 * params["c"] ** 2) / 2

    shape = data.item_QI.shape
    zero = {"a": jnp.float32(0), "c": jnp.float32(0), "own_a": jnp.zeros(shape), "own_c": jnp.zeros(shape)}
    slope_QI, shift_QI = unfold(descend(loss, zero))
    latent_QM = calibrated_latent(slope_QI, shift_QI, data.p_QMI, data.item_QI)
    return Calibrated(slope_QI, shift_QI, on_scale(latent_QM, data))


class Trees(NamedTuple):
    """Soft oblivious trees on the items' standardised p (Popov et al. 2019, arXiv 1909.06312), beside the mean.

    latent = slope * u + sum over trees of the leaf values, each weighed by the product of its splits.
    """

    choose_QRDI: Array  # softmax over items: which a split looks at
    border_QRD: Array
    leaf_QRS: Array  # S = 2**D leaves
    center_QI: Array
    size: Array
    slope: Array
    scale: Scale


TREES, DEPTH, SHARPNESS = 10, 2, 2.0


def trees_latent(t: Trees, p_QMI: Array, item_QI: Array) -> Array:
    c_QMI = (p_QMI - t.center_QI[:, None]) * item_QI[:, None]
    x_QMI = c_QMI / t.size
    u_QM = c_QMI.sum(axis=2) / item_QI.sum(axis=1)[:, None] / t.size
    choose = jax.nn.softmax(jnp.where(item_QI[:, None, None], t.choose_QRDI, -jnp.inf), axis=-1)
    split_QMRD = jax.nn.sigmoid(SHARPNESS * (jnp.einsum("qmi,qrdi->qmrd", x_QMI, choose) - t.border_QRD[:, None]))
    right, left = split_QMRD, 1 - split_QMRD
    at_QMRS = jnp.stack([a * b for a in (left[..., 0], right[..., 0]) for b in (left[..., 1], right[..., 1])], axis=-1)
    return t.slope * u_QM + jnp.einsum("qmrs,qrs->qm", at_QMRS, t.leaf_QRS)


def fit_trees(data: Data, strength: Array) -> Trees:
    """`TREES` soft trees of depth 2 per query; leaves are penalised by TREES / strength, all else barely."""
    b = basis(data)
    _, _, rest_QM = standard_rest(data)
    w_QM = data.weight_QM
    Q, I = data.item_QI.shape  # noqa: E741
    c_QMI = (data.p_QMI - b.center_QI[:, None]) * data.item_QI[:, None]
    items = jnp.maximum((w_QM * data.item_QI.sum(axis=1)[:, None]).sum(), 1e-9)
    size = jnp.maximum(jnp.sqrt((w_QM[..., None] * c_QMI**2).sum() / items), 1e-6)
    key = jax.random.key(0)
    # Handed out by the items' agreement with the labels, and made for each such place by itself: so a query's trees
    # depend neither on other queries' checklists nor on the order of its items.
    agreement_QI = jnp.abs(jnp.einsum("qm,qmi->qi", w_QM * rest_QM, c_QMI))
    order_QI = jnp.argsort(jnp.argsort(-jnp.where(data.item_QI, agreement_QI, -1.0), axis=1), axis=1)
    table = jax.vmap(lambda place: 2 * jax.random.normal(jax.random.fold_in(key, place), (TREES, DEPTH)))(jnp.arange(I))
    start = table[order_QI].transpose(0, 2, 3, 1)
    border = jax.random.normal(jax.random.key(1), (TREES, DEPTH)) * 0.5
    fresh = Trees(
        start, jnp.broadcast_to(border, (Q, *border.shape)),
        jnp.zeros((Q, TREES, 2**DEPTH)), b.center_QI, size, jnp.float32(1), Scale(jnp.zeros(Q), jnp.float32(1)),
    )  # fmt: skip

    def of(params: Any) -> Trees:
        return fresh._replace(
            choose_QRDI=params["choose"], border_QRD=params["border"], leaf_QRS=params["leaf"], slope=params["slope"]
        )

    def loss(params: Any) -> Array:
        latent_QM = centered(trees_latent(of(params), data.p_QMI, data.item_QI), data)
        fit = (w_QM * (rest_QM - latent_QM) ** 2).sum()
        small = ((params["choose"] - start) ** 2).sum() + ((params["border"] - border) ** 2).sum()
        return (fit + TREES * (params["leaf"] ** 2).sum() / strength + 0.01 * small) / 2

    begin = {"choose": fresh.choose_QRDI, "border": fresh.border_QRD, "leaf": fresh.leaf_QRS, "slope": fresh.slope}
    fitted = of(descend(loss, begin))
    return fitted._replace(scale=on_scale(trees_latent(fitted, data.p_QMI, data.item_QI), data))


WIDTH = 16


def shared_weights(net: Any, feature_QIE: Array, item_QI: Array) -> Array:
    """Weights of the items from their features: a softmax, 1 / I each where the network says nothing."""
    hidden = jnp.tanh(jnp.einsum("qie,ef->qif", feature_QIE, net["in"]) + net["bias"])
    z_QI = 2 * jnp.tanh(jnp.einsum("qif,f->qi", hidden, net["out"]) / 2)
    return jax.nn.softmax(jnp.where(item_QI, z_QI, -jnp.inf), axis=1)


def fit_network(data: Data, feature_QIE: Array, strength: Array) -> Any:
    """A small network from an item's features to its weight, fitted on all labelled queries at once."""
    b = basis(data)
    _, _, rest_QM = standard_rest(data)
    w_QM = data.weight_QM
    E = feature_QIE.shape[-1]
    start = {
        "in": jax.random.normal(jax.random.key(0), (E, WIDTH)) / jnp.sqrt(E),
        "bias": jnp.zeros(WIDTH),
        "out": jnp.zeros(WIDTH),
        "slope": jnp.float32(1),
    }

    def loss(net: Any) -> Array:
        prior_QI = shared_weights(net, feature_QIE, data.item_QI)
        u_QM, _ = parts(b._replace(prior_QI=prior_QI), data)
        fit = (w_QM * (rest_QM - net["slope"] * centered(u_QM, data)) ** 2).sum()
        moved = ((net["in"] - start["in"]) ** 2).sum() + (net["out"] ** 2).sum() + (net["bias"] ** 2).sum()
        return (fit + moved / strength) / 2

    return descend(loss, start, rate=0.02)


def left_out_error(latent_QM: Array, left_out: Data) -> Array:
    """Squared error within queries, in the labels' standard units, after the best slope: less is better."""
    _, _, rest_QM = standard_rest(left_out)
    w_QM = left_out.weight_QM
    x_QM = centered(latent_QM, left_out)
    top, under = (w_QM * x_QM * rest_QM).sum(), (w_QM * x_QM**2).sum()
    return -(top**2) * jnp.sign(top) / jnp.maximum(under, 1e-9)


def together(data: Data) -> int:
    """How many fits may run side by side: enough to keep a machine busy on small panels, few enough for memory."""
    return max(1, 2**22 // max(1, data.p_QMI.size))


def choose_strength(
    data: Data, fit: Callable[[Data, Array], Array], tried: Sequence[float], by_query: bool = False
) -> Array:
    """The strength whose latents agree best with left-out labels, summed over the folds.

    `fit(training, strength)` gives latents f32[Q, M].
    """
    parts_ = folds(data, by_query)
    training, left_out = (jnp.stack([pair[k].weight_QM for pair in parts_]) for k in (0, 1))
    values = jnp.array(tried, jnp.float32)

    def error(at: tuple[Array, Array, Array]) -> Array:
        strength, training_QM, left_out_QM = at
        latent_QM = fit(data._replace(weight_QM=training_QM), strength)
        return left_out_error(latent_QM, data._replace(weight_QM=left_out_QM))

    every = (
        jnp.repeat(values, len(parts_)),
        jnp.tile(training, (len(values), 1, 1)),
        jnp.tile(left_out, (len(values), 1, 1)),
    )  # fmt: skip
    errors = jax.lax.map(error, every, batch_size=together(data))
    total = errors.reshape(len(values), -1).sum(axis=1)
    # Where the folds say nothing, the middle stands.
    return values[jnp.where(total.max() > total.min(), jnp.argmin(total), len(values) // 2)]


def some(data: Data, count: int) -> tuple[Data, Array]:
    """So many queries of the data (see `some_queries`), and which."""
    chosen = some_queries(data, count)
    part = jax.tree.map(lambda x: jnp.asarray(x)[chosen], data._replace(place_M=None))
    return part._replace(place_M=jnp.asarray(data.place_M)), chosen
