"""How strong each model is, from its scores: means over comparable queries, and Bradley-Terry.

Both are pure functions of arrays, so that one bootstrap serves both. They run in f64: a
ranking is compared to the last digits, and is small.

Axes: Q queries, M models.
"""

import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

Method = Literal["mean", "bradley-terry"]
Ties = Literal["davidson", "half"]
TIE = 1e-9  # scores that differ by less are equal
STEPS = 40  # of Newton's method at most
ELO = 400 / math.log(10)  # points per unit of log-odds, so that 400 points are odds of 10


class Means(NamedTuple):
    """`value_M` f64[M] on the scale of the scores; `slope` f64[], of the score per unit of the covariate."""

    value_M: Array
    slope: Array


def means(score_QM: Array, used_QM: Array, x_QM: Array | None) -> Means:
    """Each model's mean score over the same queries.

    Fits score = query + model + slope * x by least squares over the used pairs (Searle 1971, section 7.1); a model's
    value is its effect and the mean effects of query and x. When all pairs are used and there is no x this is the plain
    mean; with scores left out a model does not gain by lacking hard queries; with x the length of the response, models
    are compared as if all had answered at the same length. NaN where no query connects two sets of models.
    """
    w_QM = used_QM
    n_Q = w_QM.sum(axis=1)
    share_QM = w_QM / jnp.where(n_Q > 0, n_Q, 1)[:, None]
    y_QM = score_QM - (share_QM * score_QM).sum(axis=1, keepdims=True)
    M = score_QM.shape[1]
    # Normal equations once the queries are taken out; the models' effects are known but for a constant.
    left = jnp.diag(w_QM.sum(axis=0)) - w_QM.T @ share_QM + jnp.ones((M, M)) / M
    right = (w_QM * y_QM).sum(axis=0)
    if x_QM is None:
        slope = jnp.zeros(())
        effect_M = jnp.linalg.solve(left, right)
        rest_QM = score_QM - effect_M
    else:
        z_QM = x_QM - (share_QM * x_QM).sum(axis=1, keepdims=True)
        cross_M = (w_QM * z_QM).sum(axis=0)
        own_M, by_x_M = jnp.linalg.solve(left, jnp.stack([right, cross_M], axis=1)).T
        left_over = (w_QM * z_QM * x_QM).sum() - cross_M @ by_x_M
        slope = jnp.where(
            left_over > 1e-9 * jnp.maximum(w_QM.sum(), 1),
            ((w_QM * z_QM * y_QM).sum() - cross_M @ own_M) / jnp.where(left_over > 0, left_over, 1), 0.0,
        )  # fmt: skip
        effect_M = own_M - slope * by_x_M
        middle = (w_QM * x_QM).sum() / w_QM.sum()
        rest_QM = score_QM - effect_M - slope * (x_QM - middle)
    query_Q = (share_QM * rest_QM).sum(axis=1)
    there_Q = n_Q > 0
    value_M = effect_M + (there_Q * query_Q).sum() / there_Q.sum()
    return Means(jnp.where(reachable(w_QM.T @ w_QM > 0).all(), value_M, jnp.nan), slope)


def reachable(step_MM: Array) -> Array:
    """bool[M, M]: which models are reached from which by any number of steps, none included."""
    M = step_MM.shape[0]
    reach_MM = step_MM | jnp.eye(M, dtype=bool)
    for _ in range(max(1, (M - 1).bit_length())):
        reach_MM = (reach_MM.astype(float) @ reach_MM.astype(float)) > 0
    return reach_MM


class Games(NamedTuple):
    """`win_QMM[q, a, b]` f64: a's score is above b's; `tie_QMM` the two are equal; neither if one is not used. With
    errors the chances of it."""

    win_QMM: Array
    tie_QMM: Array


def games(score_QM: ArrayLike, used_QM: ArrayLike, margin: float, error_QM: ArrayLike | None = None) -> Games:
    """Every pair of responses to a query as a game; scores that differ by no more than the margin are a tie.

    With `error_QM`, standard errors of posterior scores, a game is won with the chance that the truths are in this
    order, independent normals around the scores.
    """
    score_QM, used_QM = jnp.asarray(score_QM), jnp.asarray(used_QM)
    d_QMM = score_QM[:, :, None] - score_QM[:, None, :]
    both_QMM = used_QM[:, :, None] * used_QM[:, None, :] * (1 - jnp.eye(score_QM.shape[1]))
    if error_QM is None:
        win_QMM = both_QMM * (d_QMM > margin + TIE)
        return Games(win_QMM, both_QMM * (jnp.abs(d_QMM) <= margin + TIE))
    square_QM = jnp.where(used_QM > 0, jnp.asarray(error_QM), 0.0) ** 2
    spread_QMM = jnp.sqrt(square_QM[:, :, None] + square_QM[:, None, :]) + TIE
    win_QMM = both_QMM * jax.scipy.stats.norm.cdf((d_QMM - margin) / spread_QMM)
    return Games(win_QMM, both_QMM * (1 - win_QMM - jnp.swapaxes(win_QMM, 1, 2)))


class Strengths(NamedTuple):
    """`theta_M` f64[M]: log-strengths with mean 0 over the models that are `connected_M`; the others are inf, -inf, or
    NaN where nothing compares them. `tie` f64[]: Davidson's nu, how readily equals tie."""

    theta_M: Array
    tie: Array
    connected_M: Array


def bradley_terry(win_MM: Array, tie_MM: Array, ties: Ties) -> Strengths:
    """Maximum likelihood of Bradley-Terry from counts of wins and ties, by Newton's method.

    With `davidson`, P(a beats b) = s_a / (s_a + s_b + nu sqrt(s_a s_b)) and P(tie) has the rest (Davidson 1970, JASA
    65:317); with `half` a tie is half a win for both (so in Chatbot Arena). The likelihood has no maximum where one set
    of models never lost to another (Ford 1957): such models have infinite strength, and the fit is over the largest
    set in which everybody is beaten, directly or through others, by everybody.
    """
    M = win_MM.shape[0]
    reach_MM = reachable((win_MM + tie_MM) > 0)
    same_MM = reach_MM & reach_MM.T
    centre = jnp.argmax(same_MM.sum(axis=1))
    inside_M = same_MM[centre]
    above_M, below_M = reach_MM[:, centre] & ~inside_M, reach_MM[centre] & ~inside_M
    both_MM = inside_M[:, None] & inside_M[None]
    win_MM, tie_MM = win_MM * both_MM, tie_MM * both_MM
    if ties == "half":
        win_MM, tie_MM = win_MM + tie_MM / 2, jnp.zeros_like(tie_MM)
    # tie_MM counts every tie on both sides of the diagonal.
    any_tie = tie_MM.sum() > 0
    total = jnp.maximum(win_MM.sum() + tie_MM.sum() / 2, 1)

    games_MM = win_MM + win_MM.T + tie_MM
    count = inside_M.sum()

    def chances(x: Array) -> tuple[Array, Array, Array]:
        """Of a's win and of a tie for every pair, and the log of what they are divided by; no exponent overflows."""
        a, b = x[:M, None], x[None, :M]
        half = jnp.exp(-jnp.abs(a - b) / 2)  # the weaker's strength by the stronger's, its root
        third = jnp.where(any_tie, jnp.exp(x[M]), 0.0) * half
        whole = 1 + half**2 + third
        return jnp.where(a >= b, 1.0, half**2) / whole, third / whole, jnp.maximum(a, b) + jnp.log(whole)

    def loss(x: Array) -> Array:
        theta_M, eta = x[:M], x[M]
        tied = (tie_MM * (eta + (theta_M[:, None] + theta_M[None]) / 2)).sum() / 2
        said = (win_MM * theta_M[:, None]).sum() + tied - (games_MM * chances(x)[2]).sum() / 2
        # What the data leave open: the mean of all strengths, those outside, nu without ties.
        open_ = jnp.where(inside_M, 0, theta_M)
        mean = jnp.where(inside_M, theta_M, 0).sum() / count
        return -said / total + (open_**2).sum() + mean**2 + jnp.where(any_tie, 0, eta**2)

    def slope_and_bend(x: Array) -> tuple[Array, Array]:
        """Gradient and Hessian of `loss`. The likelihood is an exponential family whose statistics of a game are a
        win (1, a tie 1/2) of each side and a tie: observed less expected, and their covariance."""
        win, tie, _ = chances(x)
        point = win + tie / 2
        slope_M = (games_MM * point - win_MM - tie_MM / 2).sum(axis=1) / total
        slope_eta = (games_MM * tie - tie_MM).sum() / 2 / total
        spread_MM = games_MM * (win + tie / 4 - point**2) / total
        cross_M = (games_MM * tie * (0.5 - point)).sum(axis=1) / total
        own_eta = (games_MM * tie * (1 - tie)).sum() / 2 / total
        mean = jnp.where(inside_M, x[:M], 0).sum() / count
        slope_M += 2 * jnp.where(inside_M, mean / count, x[:M])
        bend_MM = jnp.diag(spread_MM.sum(axis=1) + 2 * ~inside_M) - spread_MM + 2 * both_MM / count**2
        corner = jnp.where(any_tie, own_eta, 2.0)
        bend = jnp.block([[bend_MM, cross_M[:, None]], [cross_M[None], corner[None, None]]])
        return jnp.append(slope_M, jnp.where(any_tie, slope_eta, 2 * x[M])), bend

    shrink = 0.5 ** jnp.arange(8.0)

    def step(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        x, n, _ = state
        slope, bend = slope_and_bend(x)
        move = jnp.linalg.solve(bend + 1e-12 * jnp.eye(M + 1), slope)
        tries = x[None] - shrink[:, None] * move[None]
        best = tries[jnp.nanargmin(jax.vmap(loss)(tries))]
        return best, n + 1, jnp.abs(move).max()

    start = jnp.zeros(M + 1), jnp.zeros((), int), jnp.asarray(jnp.inf)
    x, _, _ = jax.lax.while_loop(lambda s: (s[1] < STEPS) & (s[2] > 1e-10), step, start)
    theta_M = x[:M] - jnp.where(inside_M, x[:M], 0).sum() / inside_M.sum()
    outside_M = jnp.where(above_M, jnp.inf, jnp.where(below_M, -jnp.inf, jnp.nan))
    nu = jnp.where(any_tie, jnp.exp(x[M]), 0.0)
    return Strengths(jnp.where(inside_M, theta_M, outside_M), nu, inside_M)


fit_means = jax.jit(means)
fit_strengths = jax.jit(bradley_terry, static_argnames=("ties",))
