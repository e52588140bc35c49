"""Bootstrap over queries: how far every model's value, and every difference of two, may lie off.

Axes: S samples, Q queries, M models.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import Array
from scipy.stats import norm
from scipy.stats import t as student

from rocketjax.rank.scored import Float, Scored
from rocketjax.rank.strength import Method, Ties, bradley_terry, games, means

BATCH_BYTES = 2**28  # of one batch of samples; more at once is no faster


class Samples(NamedTuple):
    """`value_SM` f64: every model's value in every sample; infinite or NaN as in `Strengths`. `slope_S` f64: of the
    covariate."""

    value_SM: Float
    slope_S: Float


def value_of(table: Scored, method: Method, ties: Ties, margin: float, x_QM: Float | None) -> tuple[Float, float]:
    """Every model's value on the data as they are, f64[M] (log-strengths for bradley-terry), and the slope of x."""
    with jax.enable_x64(True):
        used_QM = jnp.asarray(table.used_QM, float)
        if method == "mean":
            x = None if x_QM is None else jnp.asarray(x_QM)
            found = means(jnp.asarray(table.score_QM), used_QM, x)
            return np.asarray(found.value_M), float(found.slope)
        win_QMM, tie_QMM = games(jnp.asarray(table.score_QM), used_QM, margin)
        return np.asarray(bradley_terry(win_QMM.sum(axis=0), tie_QMM.sum(axis=0), ties).theta_M), 0.0


def bootstrap(
    table: Scored, method: Method, ties: Ties, margin: float, x_QM: Float | None, samples: int, seed: int,
    stream: int = 0,
) -> Samples:  # fmt: skip
    """Draws whole queries with replacement, the same ones for all models, so that differences are paired.

    Where a head was fitted to labels (`Scored.errors_join`) each sample also moves every score by an independent normal
    error of its standard error's size: such scores are shrunk, so the spread between queries lacks that part. All
    samples are one compiled call; the result depends on the seed only, not on the number of devices. Two calls with the
    same seed and number of queries draw the same queries; their errors are the same in the same `stream` and
    independent in others.
    """
    Q, M = table.score_QM.shape
    each = 8 * Q * M * (8 if method == "mean" else 4 * M)
    batch = int(np.clip(BATCH_BYTES // each, 1, samples))
    with jax.enable_x64(True):
        used_QM = jnp.asarray(table.used_QM, float)
        error_QM = jnp.where(used_QM > 0, jnp.nan_to_num(jnp.asarray(table.error_QM)), 0.0)
        value_SM, slope_S = draw(
            jnp.asarray(table.score_QM), used_QM, error_QM if table.errors_join else None,
            None if x_QM is None else jnp.asarray(x_QM), margin, jax.random.split(jax.random.key(seed), samples),
            method, ties, batch, stream,
        )  # fmt: skip
        return Samples(np.asarray(value_SM), np.asarray(slope_S))


@partial(jax.jit, static_argnames=("method", "ties", "batch", "stream"))
def draw(
    score_QM: Array, used_QM: Array, error_QM: Array | None, x_QM: Array | None, margin: float, keys: Array,
    method: Method, ties: Ties, batch: int, stream: int,
) -> tuple[Array, Array]:  # fmt: skip
    """All samples: value_SM and slope_S."""
    Q, M = score_QM.shape

    def one(key: Array) -> tuple[Array, Array]:
        rows, noise = jax.random.split(key)
        noise = jax.random.fold_in(noise, stream)
        q = jax.random.randint(rows, (Q,), 0, Q)
        drawn_QM, used = score_QM[q], used_QM[q]
        if error_QM is not None:
            # A query that is drawn twice has two independent errors, as two queries like it would.
            drawn_QM += error_QM[q] * jax.random.normal(noise, (Q, M))
        if method == "mean":
            found = means(drawn_QM, used, None if x_QM is None else x_QM[q])
            return found.value_M, found.slope
        win_QMM, tie_QMM = games(drawn_QM, used, margin)
        return bradley_terry(win_QMM.sum(axis=0), tie_QMM.sum(axis=0), ties).theta_M, jnp.zeros(())

    value_SM, slope_S = jax.lax.map(one, keys, batch_size=batch)
    return value_SM, slope_S


def interval(value_S: npt.NDArray[Any], level: float, clusters: int) -> tuple[Float, Float]:
    """Lower and upper ends of the expanded percentile interval over the first axis (Hesterberg 2015, arXiv 1411.5279,
    section 4.1): the percentile interval with its tails widened from normal to Student's t and by sqrt(n / (n - 1)),
    without which it is too short for few queries. Ends may be infinite: a sample that says nothing may lie anywhere.
    NaN with fewer than two clusters.
    """
    if clusters < 2:
        none = np.full(value_S.shape[1:], np.nan)
        return none, none
    tail = norm.cdf(np.sqrt(clusters / (clusters - 1)) * student.ppf((1 - level) / 2, clusters - 1))
    # Without interpolation, which would make NaN of infinities.
    low = np.quantile(np.where(np.isnan(value_S), -np.inf, value_S), tail, axis=0, method="lower")
    high = np.quantile(np.where(np.isnan(value_S), np.inf, value_S), 1 - tail, axis=0, method="higher")
    return np.asarray(low), np.asarray(high)
