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

from rocketjax.grade import use_compile_cache
from rocketjax.rank.scored import Float, Scored
from rocketjax.rank.strength import Games, Method, Ties, bradley_terry, fit_means, fit_strengths, games, means

BATCH_BYTES = 2**28  # of one batch of samples; more at once is no faster


class Samples(NamedTuple):
    """`value_SM` f64: every model's value in every sample; infinite or NaN as in `Strengths`. `slope_S` f64: of the
    covariate."""

    value_SM: Float
    slope_S: Float


def value_of(table: Scored, method: Method, ties: Ties, margin: float, x_QM: Float | None) -> tuple[Float, float]:
    """Every model's value on the data as they are, f64[M] (log-strengths for bradley-terry), and the slope of x."""
    use_compile_cache()
    with jax.enable_x64(True):
        score_QM, used_QM = jnp.asarray(table.score_QM), jnp.asarray(table.used_QM, float)
        if method == "mean":
            found = fit_means(score_QM, used_QM, None if x_QM is None else jnp.asarray(x_QM))
            return np.asarray(found.value_M), float(found.slope)
        # Shrunken scores order surer than the truth does: their errors belong to the games, too.
        errors = jnp.asarray(table.error_QM) if table.errors_join else None
        win_QMM, tie_QMM = games(score_QM, used_QM, margin, errors)
        return np.asarray(fit_strengths(win_QMM.sum(axis=0), tie_QMM.sum(axis=0), ties).theta_M), 0.0


def bootstrap(
    table: Scored, method: Method, ties: Ties, margin: float, x_QM: Float | None, samples: int, seed: int,
    stream: int = 0, errors: bool = True,
) -> Samples:  # fmt: skip
    """Draws whole queries with replacement, the same ones for all models, so that differences are paired.

    Where a head was fitted to labels (`Scored.errors_join`) each sample also moves every score by an independent normal
    error of its standard error's size: such scores are shrunk, so the spread between queries lacks that part. Samples
    are computed together, in one compiled program, as many at a time as memory allows; the result depends on the seed
    only, not on the number of devices. Two calls with the same seed and number of queries draw the same queries, those
    of `drawn_queries`; their errors are the same in the same `stream` and independent in others. Without `errors` the
    scores are what is asked about, not the truth behind them, and a sample is `value_of` its queries.
    """
    use_compile_cache()
    Q, M = table.score_QM.shape
    moves = table.errors_join and errors
    counted = method != "mean" and not moves  # then a sample's wins are sums of the same games
    each = 8 * M * M * 4 * (M + 1) if counted else 8 * Q * M * (8 if method == "mean" else 4 * M)
    batch = int(np.clip(BATCH_BYTES // each, 1, samples))
    # Drawn on the host: numpy's streams are fast, and XLA's take seconds to compile on a CPU.
    rows, noise = np.random.default_rng(seed), np.random.default_rng([seed, stream])
    found = []
    with jax.enable_x64(True):
        score_QM, used_QM = jnp.asarray(table.score_QM), jnp.asarray(table.used_QM, float)
        error_QM = np.where(table.used_QM, np.nan_to_num(table.error_QM), 0.0)
        x = None if x_QM is None else jnp.asarray(x_QM)
        played = games(score_QM, used_QM, margin, error_QM if table.errors_join else None) if counted else None
        for _ in range(-(-samples // batch)):
            q_SQ = rows.integers(Q, size=(batch, Q), dtype=np.int32)
            if played is not None:
                times_SQ = np.stack([np.bincount(q, minlength=Q) for q in q_SQ]).astype(float)
                found.append((counted_strengths(played, jnp.asarray(times_SQ), ties), np.zeros(batch)))
                continue
            moved_SQM = error_QM[q_SQ] * noise.standard_normal((batch, Q, M)) if moves else None
            found.append(drawn(score_QM, used_QM, x, margin, jnp.asarray(q_SQ), moved_SQM, method, ties))
        value_SM, slope_S = (np.concatenate([np.asarray(part[k]) for part in found])[:samples] for k in range(2))
    return Samples(value_SM, slope_S)


def drawn_queries(count: int, samples: int, seed: int) -> npt.NDArray[np.int32]:
    """i32[S, Q]: the queries of every sample that `bootstrap` draws with this seed."""
    return np.random.default_rng(seed).integers(count, size=(samples, count), dtype=np.int32)


@partial(jax.jit, static_argnames=("method", "ties"))
def drawn(
    score_QM: Array, used_QM: Array, x_QM: Array | None, margin: float, q_SQ: Array, moved_SQM: Array | None,
    method: Method, ties: Ties,
) -> tuple[Array, Array]:  # fmt: skip
    """value_SM and slope_S of the samples that have queries q_SQ and whose scores are moved by so much: a query that
    is drawn twice has two independent errors, as two queries like it would."""

    def one(q: Array, moved_QM: Array | None) -> tuple[Array, Array]:
        score, used = score_QM[q] if moved_QM is None else score_QM[q] + moved_QM, used_QM[q]
        if method == "mean":
            found = means(score, used, None if x_QM is None else x_QM[q])
            return found.value_M, found.slope
        win_QMM, tie_QMM = games(score, used, margin)
        return bradley_terry(win_QMM.sum(axis=0), tie_QMM.sum(axis=0), ties).theta_M, jnp.zeros(())

    value_SM, slope_S = jax.vmap(one)(q_SQ, moved_SQM)
    return value_SM, slope_S


@partial(jax.jit, static_argnames="ties")
def counted_strengths(played: Games, times_SQ: Array, ties: Ties) -> Array:
    """theta_SM of the samples that have each query so many times."""
    win_SMM, tie_SMM = (jnp.einsum("sq,qab->sab", times_SQ, one_QMM) for one_QMM in played)
    return jax.vmap(lambda win_MM, tie_MM: bradley_terry(win_MM, tie_MM, ties).theta_M)(win_SMM, tie_SMM)


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
