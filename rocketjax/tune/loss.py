"""What a judge is trained on: its answers at the leaves against item labels, pairs and scores of responses.

    items   binary cross-entropy on logit(yes) - logit(no), against hard or soft labels
    pairs   logistic loss on the difference of two responses' scores (Bradley & Terry 1952)
    scores  squared error of the head's score against the standardised label, through head and judge together
    mass    -log(P(Yes) + P(No)) at labelled leaves, so that the judge keeps answering with yes or no

Axes: L leaves of a row (a response of a row is numbered 0 to L - 1), I items of the head's table, S sources.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from rocketjax.judge import Adapter, Kernel, Row, Transformer
from rocketjax.tune.data import Targets


class Head(NamedTuple):
    """From the items of a response to its score: weights exp(log_weight), normalised over the response's items.

    All zero it is RocketEval's mean, 9 * mean(p) + 1. `slope` and `shift` bring a score to each source's
    standardised labels.
    """

    log_weight_I: Array
    slope_S: Array
    shift_S: Array


ITEMS_STEP, SOURCES_STEP = 16_384, 16


def init_head(items: int, sources: int) -> Head:
    """The mean; a label's deviation is taken to be 2 of the 9 points of the scale.

    Tables come in whole steps, so that runs on other data find their compiled programs in the cache.
    """
    I, S = (max(-(-n // step), 1) * step for n, step in ((items, ITEMS_STEP), (sources, SOURCES_STEP)))  # noqa: E741
    # The dtype is named because an unnamed one is weak, and the first update, whose result is not, would have every
    # program compiled again.
    return Head(jnp.zeros(I, jnp.float32), jnp.full(S, 0.5, jnp.float32), jnp.zeros(S, jnp.float32))


def response_scores(head: Head, p_L: Array, targets: Targets) -> Array:
    """Scores from 1 to 10 of the row's responses, f32[L]; 1 where a number has no response."""
    L = len(p_L)
    known = targets.item_L >= 0
    weight_L = jnp.exp(jnp.where(known, head.log_weight_I[jnp.maximum(targets.item_L, 0)], 0.0))
    # Padding leaves repeat the last one and belong to nobody.
    weight_L = jnp.where(jnp.asarray(targets.used_L) > 0, weight_L, 0.0)
    top = jax.ops.segment_sum(weight_L * p_L, targets.response_L, L)
    total = jax.ops.segment_sum(weight_L, targets.response_L, L)
    return 9.0 * top / jnp.where(total > 0, total, 1.0) + 1.0


class Reading(NamedTuple):
    """How the judge's margin becomes logit p: (margin + bias) / exp(log_temperature), f32 scalars (Platt 1999)."""

    log_temperature: Array
    bias: Array

    def logit(self, margin_L: Array) -> Array:
        return (margin_L + self.bias) * jnp.exp(-self.log_temperature)


def init_reading() -> Reading:
    """The margin as it is."""
    return Reading(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32))


class Losses(NamedTuple):
    """Weighted sums over a row or a batch, and the sums of their weights: f32 scalars."""

    items: Array
    pairs: Array
    scores: Array
    mass: Array
    items_weight: Array
    pairs_weight: Array
    scores_weight: Array
    used: Array  # leaves that are asked, padding left out
    hits: Array  # labelled leaves on the right side of 0.5, unweighted
    labels: Array


class Outputs(NamedTuple):
    """At the leaves of a row, f32[L]: logit(yes) - logit(no), and log of the answer mass."""

    margin_L: Array
    log_mass_L: Array


def outputs(
    model: Transformer,
    adapter: Adapter | None,
    row: Row,
    yes: ArrayLike,
    no: ArrayLike,
    kernel: Kernel = "chunked",
    remat: bool = False,
    soft_PD: Array | None = None,
) -> Outputs:
    """The judge's answers, by the same forward pass as grading, with a reverse mode."""
    logits = model.logits(model.hidden(row, kernel, adapter, remat, soft_PD=soft_PD))
    logit_yes = jax.nn.logsumexp(logits[:, yes], axis=-1)
    logit_no = jax.nn.logsumexp(logits[:, no], axis=-1)
    joint = jnp.logaddexp(logit_yes, logit_no)
    return Outputs(logit_yes - logit_no, joint - jax.nn.logsumexp(logits, axis=-1))


def losses(out: Outputs, head: Head, targets: Targets) -> Losses:
    """The sums of one row."""
    t, w = jnp.asarray(targets.target_L), jnp.asarray(targets.weight_L)
    # In the odds of what is trained on; the margin itself stays in those of responses as they come.
    margin_L = out.margin_L + targets.shift_L
    bce_L = jax.nn.softplus(margin_L) - t * margin_L
    score_L = response_scores(head, jax.nn.sigmoid(out.margin_L), targets)
    difference = score_L[targets.better_L] - score_L[targets.worse_L]
    source_L = targets.source_L
    error_L = head.slope_S[source_L] * (score_L - 5.5) + head.shift_S[source_L] - targets.score_L
    labelled = w > 0
    # A label of exactly one half has no right side.
    sided = labelled & (t != 0.5)
    return Losses(
        items=(w * bce_L).sum(),
        pairs=(targets.pair_weight_L * jax.nn.softplus(-difference)).sum(),
        scores=(targets.score_weight_L * error_L**2).sum(),
        mass=-(jnp.where(jnp.asarray(targets.used_L) > 0, out.log_mass_L, 0.0)).sum(),
        items_weight=w.sum(),
        pairs_weight=jnp.asarray(targets.pair_weight_L).sum(),
        scores_weight=jnp.asarray(targets.score_weight_L).sum(),
        used=jnp.asarray(targets.used_L).sum(),
        hits=(sided & ((margin_L > 0) == (t > 0.5))).sum().astype(jnp.float32),
        labels=sided.sum().astype(jnp.float32),
    )
