"""Item weights without any label, from how the items agree: Dawid & Skene 1979, with soft votes.

A response is good or bad, and item i says yes of a good one with probability sensitivity_i, of a bad one with
1 - specificity_i. EM finds both, and what a yes is worth follows from them. Weaver (Saad-Falcon et al. 2025,
arXiv 2506.18203) weighs verifiers of answers this way. Each judge's items share a prior that is estimated too: an item
with few responses leans on its judge's record, and so judges are weighed beside items.

Axes: Q queries, M models, I items, J judges.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rocketjax.reweight.descent import logit
from rocketjax.reweight.linear import Linear
from rocketjax.reweight.panels import Data

ROUNDS = 50
PRIOR = 4.0  # responses that the judge's own record counts for, beside an item's
SPREAD = 2.0  # deviation of the votes' logits: p of a small judge is compressed, and its middle is not one half


class Reliability(NamedTuple):
    """What EM found: chances of yes from an item for good and for bad responses, and of a response being good."""

    good_QI: Array
    bad_QI: Array
    good_QM: Array


def votes(data: Data, judge_QI: Array, judges: int) -> Array:
    """p with each judge's logits brought to mean 0 and deviation `SPREAD`: f32[Q, M, I]."""
    z_QMI = logit(data.p_QMI)
    one_QIJ = jax.nn.one_hot(judge_QI, judges) * data.item_QI[..., None]
    seen_QM = data.graded_QM.astype(jnp.float32)
    n_J = jnp.maximum(jnp.einsum("qm,qij->j", seen_QM, one_QIJ), 1.0)
    mean_J = jnp.einsum("qm,qmi,qij->j", seen_QM, z_QMI, one_QIJ) / n_J
    mean_QI = one_QIJ @ mean_J
    square_J = jnp.einsum("qm,qmi,qij->j", seen_QM, (z_QMI - mean_QI[:, None]) ** 2, one_QIJ) / n_J
    size_QI = jnp.maximum(one_QIJ @ jnp.sqrt(square_J), 1e-6)
    return jax.nn.sigmoid(SPREAD * (z_QMI - mean_QI[:, None]) / size_QI[:, None])


def reliabilities(data: Data, judge_QI: Array, judges: int) -> Reliability:
    """EM over all queries at once. It begins with the mean of the votes, so that good is what most items call good."""
    v_QMI = votes(data, judge_QI, judges)
    seen_QM = data.graded_QM.astype(jnp.float32)
    item_QI = data.item_QI.astype(jnp.float32)
    one_QIJ = jax.nn.one_hot(judge_QI, judges) * item_QI[..., None]
    mean_QM = (v_QMI * item_QI[:, None]).sum(axis=2) / item_QI.sum(axis=1)[:, None]
    center_Q = (seen_QM * mean_QM).sum(axis=1) / jnp.maximum(seen_QM.sum(axis=1), 1.0)
    start_QM = jax.nn.sigmoid(8.0 * (mean_QM - center_Q[:, None]))

    def rates(good_QM: Array) -> Array:
        """Chances of yes of each item among the responses that are good by these weights."""
        w_QM = seen_QM * good_QM
        yes_QI = jnp.einsum("qm,qmi->qi", w_QM, v_QMI) * item_QI
        n_Q = w_QM.sum(axis=1)
        n_J = jnp.maximum(jnp.einsum("q,qij->j", n_Q, one_QIJ), 1e-6)
        record_QI = one_QIJ @ (jnp.einsum("qi,qij->j", yes_QI, one_QIJ) / n_J)
        return jnp.clip((yes_QI + PRIOR * record_QI) / (n_Q[:, None] + PRIOR), 1e-3, 1 - 1e-3)

    def expect(good_QI: Array, bad_QI: Array, share_Q: Array) -> Array:
        yes_QI, no_QI = jnp.log(good_QI / bad_QI), jnp.log((1 - good_QI) / (1 - bad_QI))
        evidence = v_QMI * yes_QI[:, None] + (1 - v_QMI) * no_QI[:, None]
        return jax.nn.sigmoid((evidence * item_QI[:, None]).sum(axis=2) + logit(share_Q)[:, None])

    def round_(_: int, good_QM: Array) -> Array:
        # One response of each kind more than were seen.
        share_Q = ((seen_QM * good_QM).sum(axis=1) + 1) / (seen_QM.sum(axis=1) + 2)
        return expect(rates(good_QM), rates(1 - good_QM), share_Q)

    good_QM = jax.lax.fori_loop(0, ROUNDS, round_, start_QM)
    return Reliability(rates(good_QM), rates(1 - good_QM), good_QM)


def fit_label_free(data: Data, judge_QI: Array | None = None, judges: int = 1) -> Linear:
    """Weights in proportion to what a yes says for good and a no for bad, log-odds at least 0, on the scale 1 to 10.

    `judge_QI` numbers the judge of each item where several judges' items stand side by side. An item that good
    responses get no more often than bad ones has weight 0; where all are so, it is the mean.
    """
    judge_QI = jnp.zeros(data.item_QI.shape, jnp.int32) if judge_QI is None else judge_QI
    r = reliabilities(data, judge_QI, judges)
    worth_QI = logit(r.good_QI) - logit(r.bad_QI)
    worth_QI = jnp.maximum(worth_QI, 0.0) * data.item_QI
    total_Q = worth_QI.sum(axis=1, keepdims=True)
    even_QI = data.item_QI / data.item_QI.sum(axis=1, keepdims=True)
    weight_QI = jnp.where(total_Q > 1e-6, worth_QI / jnp.maximum(total_Q, 1e-6), even_QI)
    Q, I = weight_QI.shape  # noqa: E741
    return Linear(
        jnp.ones(Q), jnp.zeros((Q, I)), 9 * weight_QI, jnp.zeros((Q, I + 1, I + 1)), jnp.zeros(Q), jnp.zeros(3)
    )
