"""The heads by name: how each is fitted, and how it scores.

`fit` and `predict` are pure and jitted, one program for all queries; arrays are cut over the devices' data axis by
queries, as grading cuts rows.

Axes: Q queries, M models, I items, E features of an item, B bootstrap samples.
"""

from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import Array
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from rocketjax.errors import RocketError
from rocketjax.reweight import descent, linear
from rocketjax.reweight.descent import Calibrated, Scale, Trees
from rocketjax.reweight.label_free import fit_label_free
from rocketjax.reweight.linear import Linear
from rocketjax.reweight.panels import Data, Panel

Name = Literal["mean", "ridge", "shared", "calibrated", "pairwise", "soft-trees", "label-free"]
NAMES: tuple[Name, ...] = get_args(Name)
DEFAULT: Name = "ridge"
WITHOUT_LABELS: tuple[Name, ...] = ("mean", "label-free")
SAMPLES = 16  # of the bootstrap, for heads without a posterior

Params = Linear | Calibrated | Trees
NOTHING: Any = 0  # stands for any array where only the form of the parameters is wanted
SHAPES: dict[Name, Params] = {
    **dict.fromkeys(("mean", "ridge", "shared", "pairwise", "label-free"), Linear(*[NOTHING] * 6)),
    "calibrated": Calibrated(NOTHING, NOTHING, Scale(NOTHING, NOTHING)),
    "soft-trees": Trees(NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, Scale(NOTHING, NOTHING)),
}


class Options(NamedTuple):
    """What a fit may vary: `monotone` and `rank_weight` are of `ridge` and `pairwise`, which then go by descent."""

    monotone: bool = False
    rank_weight: float = 0.0


def check(name: str, options: Options) -> Name:
    """The head's name; RocketError for an unknown one, or options that it does not have."""
    if name not in NAMES:
        raise RocketError(f"unknown head {name!r}; there are: {', '.join(NAMES)}")
    if options != Options() and name not in ("ridge", "pairwise"):
        raise RocketError(f"head {name!r} has no monotone weights and no rank loss; ridge and pairwise have")
    if not 0 <= options.rank_weight < 1e6:
        raise RocketError(f"the weight of the rank loss is {options.rank_weight}; it must be 0 or more")
    return name


def fit_mean(data: Data) -> Linear:
    """RocketEval's 9 * mean(p) + 1 (arXiv 2503.05142, section 3.3); no label is read."""
    item_QI = jnp.asarray(data.item_QI, jnp.float32)
    Q, I = item_QI.shape  # noqa: E741
    weight_QI = 9 * item_QI / item_QI.sum(axis=1, keepdims=True)
    return Linear(jnp.ones(Q), jnp.zeros((Q, I)), weight_QI, jnp.zeros((Q, I + 1, I + 1)), jnp.zeros(Q), jnp.zeros(3))


def by_strength(name: Name, data: Data, strength: Array, feature_QIE: Array | None) -> tuple[Params | Array, Array]:
    """The part of a head that is fitted by descent, and its latents f32[Q, M]; of `shared` the items' weights."""
    if name == "calibrated":
        c = descent.fit_calibrated(data, strength)
        return c, descent.calibrated_latent(c.slope_QI, c.shift_QI, data.p_QMI, data.item_QI)
    if name == "soft-trees":
        t = descent.fit_trees(data, strength)
        return t, descent.trees_latent(t, data.p_QMI, data.item_QI)
    assert feature_QIE is not None, "`fit_panel` asks for them"
    prior_QI = descent.shared_weights(descent.fit_network(data, feature_QIE, strength), feature_QIE, data.item_QI)
    return prior_QI, jnp.einsum("qmi,qi->qm", data.p_QMI, prior_QI)


CHOOSING = 256  # queries that decide a strength; more add little to one number, and time to sixteen fits
STRENGTHS: dict[Name, tuple[float, ...]] = {
    "calibrated": (0.03, 0.1, 0.3, 1.0),
    "soft-trees": (0.03, 0.1, 0.3, 1.0),
    "shared": (0.003, 0.03, 0.1, 0.3),
}


@partial(jax.jit, static_argnames=("name",))
def strength_of(name: Name, data: Data, feature_QIE: Array | None = None) -> Array:
    """How strongly a head that goes by descent may leave the mean, f32 scalar: what serves left-out labels best.

    Left out are models, and for `shared` queries: what its network is for is queries without labels.
    """
    if name not in STRENGTHS:
        return jnp.zeros(())
    part, chosen = descent.some(Data(*map(jnp.asarray, data)), CHOOSING)
    feature = None if feature_QIE is None else jnp.asarray(feature_QIE)[chosen]

    def latent(part: Data, strength: Array) -> Array:
        return by_strength(name, part, strength, feature)[1]

    return descent.choose_strength(part, latent, STRENGTHS[name], by_query=name == "shared")


@partial(jax.jit, static_argnames=("name", "options"))
def fit(
    name: Name,
    data: Data,
    options: Options = Options(),  # noqa: B008
    feature_QIE: Array | None = None,
    strength: Array | None = None,
) -> Params:
    """Fits a head to the labels that have weight. `shared` reads features; `strength` is what `strength_of` gives."""
    data = Data(*map(jnp.asarray, data))
    if name == "mean":
        return fit_mean(data)
    if name == "label-free":
        return fit_label_free(data)
    if name == "pairwise" or (name == "ridge" and options != Options()):
        weights = descent.fit_weights(data, name == "pairwise", options.monotone, options.rank_weight)
        return descent.as_linear(weights)
    if name == "ridge":
        return linear.fit_ridge(data)
    strength = strength_of(name, data, feature_QIE) if strength is None else strength
    made, _ = by_strength(name, data, strength, feature_QIE)
    return linear.fit_ridge(data, made) if isinstance(made, Array) else made


@partial(jax.jit, static_argnames=("name",))
def predict(name: Name, params: Params, p_QMI: Array, item_QI: Array) -> tuple[Array, Array]:
    """Scores and standard errors, f32[Q, M] each.

    The error of `ridge` and `shared` is the posterior's, that of `mean` and `label-free` the weighted sampling error of
    a mean over items, NaN where there is one item only; the others' is 0 here, and `errors` makes it by bootstrap.
    """
    p_QMI, item_QI = jnp.asarray(p_QMI), jnp.asarray(item_QI)
    if isinstance(params, Linear):
        score_QM, error_QM = linear.predict(params, p_QMI, item_QI)
        if name in WITHOUT_LABELS:
            mean_QM = (score_QM - 1) / 9
            n_Q = item_QI.sum(axis=1).astype(jnp.float32)
            squares = (params.weight_QI[:, None] * (p_QMI - mean_QM[..., None]) * item_QI[:, None]) ** 2
            # One item has no spread to tell its error by: NaN.
            error_QM = jnp.sqrt(squares.sum(axis=2) * jnp.where(n_Q > 1, n_Q / (n_Q - 1), jnp.nan)[:, None])
        return score_QM, error_QM
    if isinstance(params, Calibrated):
        latent_QM = descent.calibrated_latent(params.slope_QI, params.shift_QI, p_QMI, item_QI)
    else:
        latent_QM = descent.trees_latent(params, p_QMI, item_QI)
    score_QM = params.scale.level_Q[:, None] + params.scale.slope * latent_QM
    return score_QM, jnp.zeros_like(score_QM)


def has_posterior(name: Name, options: Options) -> bool:
    """Whether `predict` gives the standard errors itself."""
    return name in ("mean", "label-free", "shared") or (name == "ridge" and options == Options())


@partial(jax.jit, static_argnames=("name", "options"))
def resampled(name: Name, data: Data, options: Options, strength: Array) -> Params:
    """The head fitted on Bayesian bootstrap samples of the labels (Rubin 1981): params with an axis B in front."""
    data = Data(*map(jnp.asarray, data))
    # A model's labels are drawn together: what they share is what another set of training models would change.
    shape = (SAMPLES, data.p_QMI.shape[1])
    draws_BM = jax.random.exponential(jax.random.key(0), shape)[:, data.place_M]
    draws_BM = draws_BM / draws_BM.mean(axis=1, keepdims=True)

    def one(draw_M: Array) -> Params:
        return fit(name, data._replace(weight_QM=data.weight_QM * draw_M), options, None, strength)

    return jax.lax.map(one, draws_BM, batch_size=descent.together(data))


def errors(name: Name, samples: Params, p_QMI: Array, item_QI: Array) -> Array:
    """Standard errors from bootstrap samples: the deviation of their scores, f32[Q, M]."""
    scores = jax.lax.map(lambda params: predict(name, params, p_QMI, item_QI)[0], samples)
    return jnp.std(scores, axis=0, ddof=1)


def prepared(panel: Panel, feature_QIE: npt.NDArray[np.float32] | None = None) -> tuple[Data, Any, int]:
    """The panel's arrays on all devices, cut by queries, with empty queries to fill up, and how many are real."""
    devices = jax.local_devices()
    mesh = jax.make_mesh((len(devices),), ("data",), devices=devices, axis_types=(AxisType.Auto,))
    Q = len(panel.sessions)
    more = -Q % len(devices)
    by_query, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ()))

    def filled(x: npt.NDArray[Any], value: Any = 0) -> Any:
        pad = np.full((more, *x.shape[1:]), value, x.dtype)
        return jax.device_put(np.concatenate([np.asarray(x), pad]), by_query)

    d = panel.data
    # An item where there is no query: nothing is ever divided by its number of items, 0.
    data = Data(
        filled(d.p_QMI), filled(d.item_QI, True), filled(d.graded_QM), filled(d.label_QM), filled(d.weight_QM),
        jax.device_put(np.concatenate([d.place_Q, np.arange(Q, Q + more, dtype=np.int32)]), by_query),
        jax.device_put(d.place_M, whole),
    )  # fmt: skip
    return data, None if feature_QIE is None else filled(feature_QIE), Q


class Fitted(NamedTuple):
    """A head's numbers, without the filling: its parameters, and bootstrap samples of them where it needs any."""

    params: Params
    samples: Params | None


def fit_panel(
    panel: Panel,
    name: Name = DEFAULT,
    options: Options = Options(),  # noqa: B008
    feature_QIE: npt.NDArray[np.float32] | None = None,
    samples: bool = True,
) -> Fitted:
    """Fits a head on all devices. Raises RocketError for no labels, no features for `shared`, or numbers that are
    not finite."""
    name = check(name, options)
    if name not in WITHOUT_LABELS and int(panel.labelled.sum()) < 2:
        raise RocketError(f"head {name!r} is fitted on labels, and {int(panel.labelled.sum())} of them are left")
    known = np.asarray(panel.data.label_QM)[panel.labelled]
    if name not in WITHOUT_LABELS and np.ptp(known) == 0:
        raise RocketError(
            f"all {len(known)} labels are {known[0]:g}, so there is nothing that head {name!r} could learn"
        )
    if name == "pairwise" and not any(
        np.ptp(row[on]) for row, on in zip(np.asarray(panel.data.label_QM), panel.labelled, strict=True) if on.any()
    ):
        raise RocketError(
            "head 'pairwise' learns from labels of one query that differ, and no query has two of the models to be "
            "fitted to; where only two models are labelled, fit to both: --train-models, then --score-train"
        )
    if name == "shared" and feature_QIE is None:
        raise RocketError("head 'shared' reads the judge's hidden states of the items; give features")
    data, features, queries = prepared(panel, feature_QIE if name == "shared" else None)
    strength = strength_of(name, data, features)
    params = fit(name, data, options, features, strength)
    drawn = resampled(name, data, options, strength) if samples and not has_posterior(name, options) else None
    fitted = Fitted(unfilled(params, queries), None if drawn is None else unfilled(drawn, queries, 1))
    if not all(np.isfinite(x).all() for x in jax.tree.leaves(fitted)):
        raise RocketError(f"head {name!r}: its fit is not finite; look at the labels' scale")
    return fitted


def unlabelled_weights(panel: Panel, name: str) -> npt.NDArray[Any]:
    """Item weights of a head that reads no labels: f32[Q, I]."""
    params = fit_panel(panel, check(name, Options()), samples=False).params
    assert isinstance(params, Linear), "both of these heads are"
    return np.asarray(params.weight_QI)


def unfilled(params: Any, queries: int, axis: int = 0) -> Any:
    """Without the queries that filled up. Field by field: a short axis of another kind must stay as it is."""
    per_query = ("_Q", "_QI", "_QWW", "_QRDI", "_QRD", "_QRS")

    def cut(value: Any, name: str) -> Any:
        if hasattr(value, "_fields"):
            return type(value)(*(cut(x, field) for x, field in zip(value, value._fields, strict=True)))
        a = np.asarray(value)
        return a[(slice(None),) * axis + (slice(queries),)] if name.endswith(per_query) else a

    return cut(params, "")


def score_panel(panel: Panel, name: Name, fitted: Fitted) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Scores and standard errors f64[Q, M] of every graded response; NaN where there is no grade."""
    d = panel.data
    score_QM, error_QM = predict(name, fitted.params, d.p_QMI, d.item_QI)
    if fitted.samples is not None:
        error_QM = errors(name, fitted.samples, d.p_QMI, d.item_QI)
    out = []
    for x in (score_QM, error_QM):
        out.append(np.where(d.graded_QM, np.asarray(x, np.float64), np.nan))
    return out[0], out[1]
