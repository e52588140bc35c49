"""Linear heads: a score is a weighted sum of the items, with weights that are shrunk to the mean's.

Of a response with item probabilities p, in query q:

    score = level + level_q + slope u + slope_q u + sum_i deviation_qi v_i

u is the mean of the items, v_i what item i differs from it; both are centred on the query's graded responses and scaled
to unit size over all queries. `level` and `slope` are pooled over all queries, and the slope is shrunk to one that a
middling judge has, so that a few labels do not turn the mean around; what belongs to one query is shrunk to 0 with a
strength of its own kind, and all three strengths minimise the leave-one-out error pooled over all queries. It is
Bayesian linear regression with a Gaussian prior (Rasmussen & Williams 2006, section 2.1), so every score has a
posterior variance.

Axes: Q queries, M models, I items, P = I + 2 terms of a query (level, slope, deviations), W = I + 1 weights (of 1 and
p - center).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rocketjax.reweight.panels import Data

# Variances of a query's own terms over that of the labels' noise, tried in turn. Coordinates are searched from the
# middle, twice: the surface is flat and convex enough that a full grid finds the same point.
LEVELS = (0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
SLOPES = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0)
DEVIATIONS = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
MIDDLE = (1.0, 0.0, 0.03)
SLOPE = 0.5  # of the labels' deviation for one deviation of the mean: what a judge has that correlates by one half
SLOPE_LABELS = 10.0  # labels that this counts for
NOISE_LABELS = 4.0  # labels that the pooled noise counts for beside a query's own
GAIN = 1e-3  # part of the error that another strength must save
CHOOSING = 512  # queries that decide the strengths; more add nothing to three numbers


class Linear(NamedTuple):
    """A fitted linear head: bias + weight . (p - center). `covariance_QWW` is of (bias, weights), 0 where the head has
    no posterior; around the center, because f32 would lose it at a judge whose p are all near 1."""

    bias_Q: Array
    center_QI: Array
    weight_QI: Array
    covariance_QWW: Array
    noise_Q: Array  # standard deviation of a label around its score
    strength_3: Array  # of level, slope and deviations: variances over the noise's


class Basis(NamedTuple):
    """What turns p into the terms of the model: see the module."""

    center_QI: Array
    prior_QI: Array  # weights of u: the mean's, 1 / I, unless others are given
    u_size: Array
    v_size: Array


def basis(data: Data, prior_QI: Array | None = None) -> Basis:
    """Centres and sizes over the graded responses of all models under test; no label is read."""
    graded_QM = jnp.asarray(data.graded_QM, jnp.float32)
    center_QI = jnp.einsum("qm,qmi->qi", graded_QM, data.p_QMI) / jnp.maximum(graded_QM.sum(axis=1), 1)[:, None]
    count_Q = data.item_QI.sum(axis=1)
    mean_QI = data.item_QI / count_Q[:, None].astype(jnp.float32)
    found = Basis(center_QI, mean_QI if prior_QI is None else prior_QI, jnp.float32(1), jnp.float32(1))
    u_QM, v_QMI = parts(found, data)
    u_size = jnp.sqrt((graded_QM * u_QM**2).sum() / jnp.maximum(graded_QM.sum(), 1))
    items = jnp.maximum((graded_QM * count_Q[:, None]).sum(), 1)
    v_size = jnp.sqrt((graded_QM[..., None] * v_QMI**2).sum() / items)
    # A judge that says the same of everything has no slope to learn, and must not make a NaN.
    return found._replace(u_size=jnp.maximum(u_size, 1e-6), v_size=jnp.maximum(v_size, 1e-6))


def parts(b: Basis, data: Data) -> tuple[Array, Array]:
    """u, f32[Q, M], and v, f32[Q, M, I]."""
    c_QMI = (data.p_QMI - b.center_QI[:, None]) * data.item_QI[:, None]
    u_QM = jnp.einsum("qmi,qi->qm", c_QMI, b.prior_QI)
    average_QM = c_QMI.sum(axis=2) / data.item_QI.sum(axis=1)[:, None]
    v_QMI = (c_QMI - average_QM[..., None]) * data.item_QI[:, None]
    return u_QM / b.u_size, v_QMI / b.v_size


def terms(b: Basis, data: Data) -> Array:
    """f32[Q, M, P]: 1, u, v."""
    u_QM, v_QMI = parts(b, data)
    return jnp.concatenate([jnp.ones_like(u_QM)[..., None], u_QM[..., None], v_QMI], axis=-1)


class Pooled(NamedTuple):
    """Level (where u is 0) and slope common to all queries, and the slope's variance over the noise's."""

    level: Array
    slope: Array
    slope_variance: Array


def pooled(u_QM: Array, data: Data) -> Pooled:
    """The slope is that within queries, as a verdict needs it, shrunk to `SLOPE` of the labels' deviation as
    `SLOPE_LABELS` labels would. It may come out negative: a judge that says no where people say yes is turned around.
    """
    w_QM = data.weight_QM
    labels = jnp.maximum(w_QM.sum(), 1e-9)
    mean = (w_QM * data.label_QM).sum() / labels
    spread = jnp.sqrt((w_QM * (data.label_QM - mean) ** 2).sum() / labels)
    total_Q = jnp.maximum(w_QM.sum(axis=1, keepdims=True), 1e-9)
    label_Q, u_Q = ((w_QM * x).sum(axis=1, keepdims=True) / total_Q for x in (data.label_QM, u_QM))
    top = (w_QM * (u_QM - u_Q) * (data.label_QM - label_Q)).sum()
    under = (w_QM * (u_QM - u_Q) ** 2).sum() + SLOPE_LABELS
    slope = (top + SLOPE_LABELS * SLOPE * spread) / under
    # The labelled models need not be middling ones: u is centred over all.
    return Pooled(mean - slope * (w_QM * u_QM).sum() / labels, slope, 1 / under)


def inverse(a_PPQ: Array) -> Array:
    """Inverses of small symmetric positive definite matrices by the sweep operator (Goodnight 1979).

    Written out in P rank-one updates with the queries in the last axis, where a vector unit takes many at once: a
    CPU's LAPACK takes matrices one by one, many times slower.
    """
    P = len(a_PPQ)
    for k in range(P):
        pivot_Q, column_PQ = a_PPQ[k, k], a_PPQ[:, k]
        scaled_PQ = column_PQ / pivot_Q
        swept = a_PPQ - scaled_PQ[:, None] * column_PQ[None]
        swept = swept.at[k].set(scaled_PQ).at[:, k].set(scaled_PQ)
        a_PPQ = swept.at[k, k].set(-1 / pivot_Q)
    return -a_PPQ


class Moments(NamedTuple):
    """What a fit needs of the labels, the queries in the last axis; made once, used for every strength."""

    phi_PMQ: Array
    weight_MQ: Array
    rest_MQ: Array  # what the pooled terms leave of the labels
    square_PPQ: Array
    cross_PQ: Array


def moments(phi_QMP: Array, rest_QM: Array, weight_QM: Array) -> Moments:
    phi, rest, weight = phi_QMP.transpose(2, 1, 0), rest_QM.T, weight_QM.T
    weighed = phi * weight
    square = (weighed[:, None] * phi[None]).sum(axis=2)
    return Moments(phi, weight, rest, square, (weighed * rest).sum(axis=1))


class Solved(NamedTuple):
    """Of each query: the posterior mean and covariance (over the noise's variance) of its own terms."""

    own_PQ: Array
    covariance_PPQ: Array
    left_out_MQ: Array  # residual of each label when it is left out


def solve(m: Moments, strength_3: Array) -> Solved:
    """Posterior of the queries' own terms given what the pooled ones leave (Rasmussen & Williams 2006, eq. 2.8).

    The left-out residual is the residual over one less the leverage, exact for given pooled terms.
    """
    P = len(m.phi_PMQ)
    size_P = jnp.sqrt(jnp.concatenate([strength_3[:2], jnp.full(P - 2, strength_3[2])]))
    scale_PP = size_P[:, None] * size_P
    eye = jnp.eye(P, dtype=jnp.float32)[..., None]
    covariance_PPQ = inverse(m.square_PPQ * scale_PP[..., None] + eye) * scale_PP[..., None]
    own_PQ = (covariance_PPQ * m.cross_PQ).sum(axis=1)
    fitted_MQ = (m.phi_PMQ * own_PQ[:, None]).sum(axis=0)
    spread_PMQ = (covariance_PPQ[:, :, None] * m.phi_PMQ[None]).sum(axis=1)
    hat_MQ = m.weight_MQ * (spread_PMQ * m.phi_PMQ).sum(axis=0)
    left_out_MQ = (m.rest_MQ - fitted_MQ) / jnp.maximum(1 - hat_MQ, 1e-6)
    return Solved(own_PQ, covariance_PPQ, left_out_MQ)


def some_queries(data: Data, count: int) -> Array:
    """Indices of so many queries, or of all: labelled ones first, spread over their names, whatever their order."""
    Q = len(data.p_QMI)
    if count >= Q:
        return jnp.arange(Q)
    # Knuth's multiplicative hash of the place, so that neighbours in the alphabet are not taken together.
    scrambled = jnp.asarray(data.place_Q).astype(jnp.uint32) * jnp.uint32(2654435761)
    bare = data.weight_QM.sum(axis=1) <= 0
    return jnp.lexsort((scrambled, bare))[:count]


def strengths(m: Moments) -> Array:
    """The three strengths with the least leave-one-out error, by coordinates."""
    part = m

    def error(strength_3: Array) -> Array:
        return (part.weight_MQ * solve(part, strength_3).left_out_MQ ** 2).sum()

    best_3 = jnp.array(MIDDLE, jnp.float32)
    for _ in range(2):
        for axis, values in ((2, DEVIATIONS), (0, LEVELS), (1, SLOPES)):
            tried = jnp.array(values, jnp.float32)
            found = jax.lax.map(lambda x, axis=axis, best=best_3: error(best.at[axis].set(x)), tried)
            # With nothing but rounding to choose by, the middle stays.
            better = found.min() < (1 - GAIN) * error(best_3)
            best_3 = best_3.at[axis].set(jnp.where(better, tried[jnp.argmin(found)], best_3[axis]))
    return best_3


def fit_ridge(data: Data, prior_QI: Array | None = None, strength_3: Array | None = None) -> Linear:
    """The closed form. `prior_QI` are other weights than the mean's to shrink to; strengths are chosen if None."""
    b = basis(data, prior_QI)
    phi_QMP = terms(b, data)
    common = pooled(phi_QMP[..., 1], data)
    rest_QM = (data.label_QM - common.level - common.slope * phi_QMP[..., 1]) * (data.weight_QM > 0)
    m = moments(phi_QMP, rest_QM, data.weight_QM)
    if strength_3 is None:
        chosen = some_queries(data, CHOOSING)
        strength_3 = strengths(Moments(*(x[..., chosen] for x in m)))
    solved = solve(m, strength_3)
    # The leave-one-out error holds the noise and what a query's own terms do not know; it errs on the safe side. Some
    # queries are harder to judge than others, and few labels say which: their own error is shrunk to the pooled one.
    square_Q = (m.weight_MQ * solved.left_out_MQ**2).sum(axis=0)
    labels_Q = m.weight_MQ.sum(axis=0)
    pooled_square = square_Q.sum() / jnp.maximum(labels_Q.sum(), 1e-9)
    noise_Q = jnp.sqrt((NOISE_LABELS * pooled_square + square_Q) / (NOISE_LABELS + labels_Q))
    mean_QP = solved.own_PQ.T.at[:, 0].add(common.level).at[:, 1].add(common.slope)
    covariance_QPP = solved.covariance_PPQ.transpose(2, 0, 1) * noise_Q[:, None, None] ** 2
    covariance_QPP = covariance_QPP.at[:, 1, 1].add(common.slope_variance * pooled_square)
    return unfold(b, data.item_QI, mean_QP, covariance_QPP, noise_Q, strength_3)


def unfold(
    b: Basis, item_QI: Array, mean_QP: Array, covariance_QPP: Array, noise_Q: Array, strength_3: Array
) -> Linear:
    """The same head as weights of 1 and p - center."""
    Q, I = item_QI.shape  # noqa: E741
    count_Q = item_QI.sum(axis=1)[:, None, None]
    # d term / d p_i: u takes the prior's weights, v_j one of its own less the average of all.
    centre_QII = (jnp.eye(I) - item_QI[:, None] / count_Q) * item_QI[:, None] * item_QI[..., None]
    by_p_QPI = jnp.concatenate([jnp.zeros((Q, 1, I)), (b.prior_QI / b.u_size)[:, None], centre_QII / b.v_size], axis=1)
    by_1_QP = jnp.zeros((Q, I + 2)).at[:, 0].set(1.0)
    map_QPW = jnp.concatenate([by_1_QP[..., None], by_p_QPI], axis=2)
    high = jax.lax.Precision.HIGHEST
    theta_QW = jnp.einsum("qp,qpw->qw", mean_QP, map_QPW, precision=high)
    covariance_QWW = jnp.einsum("qpw,qpr,qrx->qwx", map_QPW, covariance_QPP, map_QPW, precision=high)
    return Linear(theta_QW[:, 0], b.center_QI, theta_QW[:, 1:], covariance_QWW, noise_Q, strength_3)


def design(head: Linear, p_QMI: Array, item_QI: Array) -> Array:
    """What the head weighs: (1, p - center), f32[Q, M, W]."""
    c_QMI = (p_QMI - head.center_QI[:, None]) * item_QI[:, None]
    return jnp.concatenate([jnp.ones_like(c_QMI[..., :1]), c_QMI], axis=-1)


def predict(head: Linear, p_QMI: Array, item_QI: Array) -> tuple[Array, Array]:
    """Scores and their posterior standard deviations, f32[Q, M] each; the latter without the labels' own noise."""
    x_QMW = design(head, p_QMI, item_QI)
    high = jax.lax.Precision.HIGHEST
    score_QM = head.bias_Q[:, None] + jnp.einsum("qmi,qi->qm", x_QMW[..., 1:], head.weight_QI, precision=high)
    variance_QM = jnp.einsum("qmw,qwx,qmx->qm", x_QMW, head.covariance_QWW, x_QMW, precision=high)
    return score_QM, jnp.sqrt(jnp.maximum(variance_QM, 0.0))
