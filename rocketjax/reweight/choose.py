"""Which responses to label next, so that the ranking's error shrinks the most.

Under the ridge's posterior a label of (query, model) lowers the variance of all scores of that query by
cov(m, n)^2 / (noise^2 + var(n)), whatever it says (Rasmussen & Williams 2006, eq. 2.26), so a good set can be chosen
before anybody has labelled it: greedily, the pair that lowers the summed variance of the models' differences the most
(A-optimal design; Chaloner & Verdinelli 1995, section 3.1).

Axes: Q queries, M models, W = I + 1 weights.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from rocketjax.errors import RocketError
from rocketjax.reweight.head import fit_panel
from rocketjax.reweight.linear import Linear, design, fit_ridge
from rocketjax.reweight.panels import Data, Panel

Float = npt.NDArray[np.float64]
LEAST = (0.1, 0.03, 0.01)  # strengths of level, slope and deviations below which nothing is left to learn


def posterior(panel: Panel) -> tuple[Float, Float]:
    """Covariance of the scores of each query's responses, f64[Q, M, M], and the labels' noise, f64[Q], from the labels
    there are. Ungraded responses have covariance 0."""
    params = fit_panel(panel, "ridge").params
    assert isinstance(params, Linear), "the ridge is linear"
    # A few labels may choose to tell no two responses of a query apart; then none would be worth asking for.
    strength_3 = np.maximum(np.asarray(params.strength_3), LEAST).astype(np.float32)
    params = jax.jit(fit_ridge)(Data(*panel.data), None, jnp.asarray(strength_3))
    d = panel.data
    graded_QM = np.asarray(d.graded_QM, np.float64)
    x_QMW = np.asarray(design(params, jnp.asarray(d.p_QMI), jnp.asarray(d.item_QI)), np.float64) * graded_QM[..., None]
    covariance = np.einsum("qmw,qwx,qnx->qmn", x_QMW, np.asarray(params.covariance_QWW, np.float64), x_QMW)
    return covariance, np.asarray(params.noise_Q, np.float64)


def centred(covariance_QMM: Float, graded_QM: npt.NDArray[np.bool_]) -> Float:
    """Covariances of the scores less their query's mean: a shift of all scores of a query moves no model's rank."""
    n_Q = np.maximum(graded_QM.sum(axis=1), 1)
    mean_QMM = graded_QM[:, :, None] / n_Q[:, None, None] * graded_QM[:, None, :]
    eye_QMM = np.eye(graded_QM.shape[1]) * graded_QM[:, :, None]
    map_QMM = eye_QMM - np.swapaxes(mean_QMM, 1, 2)
    return np.asarray(map_QMM @ covariance_QMM @ np.swapaxes(map_QMM, 1, 2))


def expected_variance(panel: Panel) -> float:
    """Mean variance of a model's mean score less what all models share, in squared points: what `ask` lowers."""
    covariance, _ = posterior(panel)
    graded_QM = np.asarray(panel.data.graded_QM)
    total = np.trace(centred(covariance, graded_QM), axis1=1, axis2=2).sum()
    return float(total / (len(panel.sessions) ** 2 * len(panel.models)))


def ask(panel: Panel, count: int, models: list[str] | None = None) -> list[tuple[str, str, float]]:
    """The next `count` pairs to label: (session, model, part of the present variance that this label takes away).

    Chosen one after the other, each with those before it in mind; among `models` only, if given. Raises RocketError
    where fewer than 2 labels are there to begin with (the noise must be known) or fewer pairs are left than asked for.
    """
    known = int(panel.labelled.sum())
    if known < 2:
        raise RocketError(f"choosing labels needs a few to begin with, 30 are good; there are {known}")
    covariance, noise_Q = posterior(panel)
    graded_QM = np.asarray(panel.data.graded_QM)
    free_QM = graded_QM & ~panel.labelled
    if models is not None:
        free_QM = free_QM & np.asarray([m in models for m in panel.models])
    if free_QM.sum() < count or count < 1:
        raise RocketError(f"{count} labels are asked for; {int(free_QM.sum())} graded responses have none yet")
    n_Q = np.maximum(graded_QM.sum(axis=1), 1)
    before = np.trace(centred(covariance, graded_QM), axis1=1, axis2=2).sum()
    if not before > 1e-9 or not (noise_Q > 0).all():
        raise RocketError("the labels agree with the judge to the last digit, so no other label would change anything")

    def gain(c_MM: Float, graded_M: npt.NDArray[Any], n: int, noise: float) -> Float:
        """What each label would take from the summed centred variance of one query: f64[M]."""
        column = c_MM * graded_M[:, None]
        squares = (column**2).sum(axis=0) - column.sum(axis=0) ** 2 / n
        return np.asarray(squares / (noise**2 + np.diag(c_MM)))

    gain_QM = np.stack([gain(*x) for x in zip(covariance, graded_QM, n_Q, noise_Q, strict=True)])
    out = []
    for _ in range(count):
        gain_QM = np.where(free_QM, gain_QM, -np.inf)
        q, m = np.unravel_index(int(np.argmax(gain_QM)), gain_QM.shape)
        out.append((panel.sessions[q], panel.models[m], float(max(gain_QM[q, m], 0.0) / before)))
        c_MM = covariance[q]
        covariance[q] = c_MM - np.outer(c_MM[:, m], c_MM[m]) / (noise_Q[q] ** 2 + c_MM[m, m])
        free_QM[q, m] = False
        gain_QM[q] = gain(covariance[q], graded_QM[q], n_Q[q], noise_Q[q])
    return out
