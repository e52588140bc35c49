"""Scores of a run, by any head, into scores.parquet."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rocketjax.bench import Benchmark
from rocketjax.errors import RocketError
from rocketjax.grade import OK, Run, write_table
from rocketjax.reweight.compat import mean_score, string_order, trees_scores
from rocketjax.reweight.fitted import Head, Labels, find_head, load_head, score_with
from rocketjax.reweight.head import Fitted, Name, Options, fit_panel, score_panel
from rocketjax.reweight.label_free import fit_label_free
from rocketjax.reweight.panels import Panel, panel
from rocketjax.reweight.weighed import WEIGHED, item_shares, weighed_scores

SCORES = pa.schema(
    [
        pa.field("session_id", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("score", pa.float64()),
        pa.field("standard_error", pa.float64()),
        pa.field("abstained", pa.bool_(), nullable=False),
    ]
)
COMPAT = "rocketeval"
ABOUT = b"rocketjax"  # key of what scores.parquet says of itself
SHARED_LEVELS = (  # what stands beside figures of single responses where `shares_levels`
    "the level of a query is that of all labels, these responses' own among them: errors and correlations of single "
    "responses are better than a new model's would be (rocketjax heads has those)"
)
MISSING = ("missing_response", "missing_judgment")  # of these the reference never hears


def score(
    run: Run,
    head: "str | Path | Head | None" = None,
    *,
    abstain: float | None = None,
    score_train: bool = False,
    jury: Sequence[Run] = (),
    item_weights: Benchmark | None = None,
    write: bool = True,
) -> pa.Table:
    """Scores every response of a complete run and writes `scores.parquet` (unless told not to).

    `head` is `mean` (the default: `9 * mean(p_yes) + 1`, so 1 to 10: RocketEval, arXiv 2503.05142, section 3.3),
    `label-free`, or a fitted head: the object, its folder, or its name in RUN/heads. A score is null where any item has
    no grade: a mean over fewer items is another scale. `standard_error` says how far it is known (see
    `head.predict`); above `abstain`, or where it is not known, the score is marked `abstained`, and later stages leave
    it out. Models that a head without folds was trained on are left out unless `score_train`. `jury` are runs of other
    judges on the same questions and responses, whose items `label-free` weighs beside this run's. `item_weights` is the
    benchmark whose checklists say what an item weighs: the mean is then `9 * sum(w p_yes) / sum(w) + 1`, and the head
    is called `weighted-mean` (see `weighed`). The table's metadata say which head it was; a ranking of earlier scores
    is removed. Returns the table, by session and model. Raises RocketError if a run is not complete or does not fit.
    """
    if abstain is not None and not 0 < abstain < np.inf:
        raise RocketError(f"the abstention threshold is {abstain}; it must be a number above 0")
    whole = panel(run)
    about: dict[str, Any]
    if item_weights is not None:
        if head not in (None, "mean") or jury or score_train:
            raise RocketError(
                "the checklists' weights are for the mean alone, without another head, a jury or models to train on"
            )
        found = item_shares(item_weights, run, whole)
        score_QM, error_QM = weighed_scores(whole.data, found.share_QI)
        kept = np.ones(len(whole.models), bool)
        about = {"head": WEIGHED, "labeler": None, "trained_on": [], "scale": "1 to 10", "item_weights": found.about}
    elif head is None or head in ("mean", "label-free"):
        name: Name = "label-free" if head == "label-free" else "mean"
        if jury and name != "label-free":
            raise RocketError("a jury is weighed by head 'label-free'")
        about = {"head": name, "labeler": None, "trained_on": [], "scale": "1 to 10"}
        if jury:
            whole, fitted, shares = weigh(run, whole, jury)
            about["jury"] = shares
        else:
            fitted = fit_panel(whole, name, Options())
        score_QM, error_QM = score_panel(whole, name, fitted)
        if name == "mean":
            # A plain mean, so that it is in f64 what anybody else would make of the grades.
            count_Q = np.asarray(whole.counts, np.float64)[:, None]
            score_QM = 9 * np.asarray(whole.data.p_QMI, np.float64).sum(axis=2) / count_Q + 1
            score_QM[~np.asarray(whole.data.graded_QM)] = np.nan
        kept = np.ones(len(whole.models), bool)
    else:
        if jury:
            raise RocketError("a jury is weighed by head 'label-free'")
        loaded = head if isinstance(head, Head) else load_head(find_head(run, str(head)))
        score_QM, error_QM = score_with(loaded, run, whole)
        seen = {m for m in loaded.trained_on if m not in loaded.folds}
        kept = np.asarray([score_train or m not in seen for m in whole.models])
        about = {
            "head": loaded.name,
            "options": loaded.meta["options"],
            "labeler": loaded.meta["labeler"],
            "labels_sha256": loaded.meta["labels_sha256"],
            "trained_on": loaded.trained_on,
            "folds": len(set(loaded.folds.values())),
            "scored_by_a_head_that_saw_its_labels": sorted(seen & set(whole.models)) if score_train else [],
            "left_out": [] if score_train else sorted(seen & set(whole.models)),
            "scale": "the labeler's",
        }
        if not kept.any():
            raise RocketError(
                "the head was trained on every model of this run; score them with --score-train, or fit with --folds"
            )
    about["abstain"] = abstain
    return write_scores(run, whole, score_QM, error_QM, kept, abstain, about, write=write)


def write_scores(
    run: Run,
    whole: Panel,
    score_QM: npt.NDArray[Any],
    error_QM: npt.NDArray[Any] | None,
    kept: npt.NDArray[np.bool_],
    abstain: float | None,
    about: dict[str, Any],
    there_QM: npt.NDArray[np.bool_] | None = None,
    write: bool = True,
) -> pa.Table:
    """The table of the models that are kept (and, where given, of the pairs that are there), written to the run."""
    there_QM = np.ones(score_QM.shape, bool) if there_QM is None else there_QM
    q, m = np.nonzero(there_QM & kept)
    scores = score_QM[q, m]
    errors = np.full(len(q), np.nan) if error_QM is None else error_QM[q, m]
    # An unknown error is no certainty.
    abstained = np.zeros(len(q), bool) if abstain is None else ~(errors <= abstain) & np.isfinite(scores)
    table = pa.table(
        [
            [whole.sessions[i] for i in q],
            [whole.models[i] for i in m],
            pa.array(scores, pa.float64(), mask=np.isnan(scores)),
            pa.array(errors, pa.float64(), mask=np.isnan(errors)),
            pa.array(abstained, pa.bool_()),
        ],
        schema=SCORES.with_metadata({ABOUT: json.dumps(about, ensure_ascii=False).encode()}),
    )
    if not write:
        return table
    # A ranking of other scores must not stand beside these.
    (run.path / "ranking.json").unlink(missing_ok=True)
    write_table(run.path / "scores.parquet", table)
    return table


def shares_levels(about: Mapping[str, Any], labeler: str | None) -> bool:
    """Whether scores (by what they say of themselves) were levelled by the labels that they are compared with."""
    return bool(about.get("folds")) and about.get("labeler") == labeler


def about_scores(table: pa.Table) -> dict[str, Any]:
    """What scores.parquet says of itself: which head made it, from whose labels."""
    found: dict[str, Any] = json.loads((table.schema.metadata or {}).get(ABOUT, b"{}"))
    return found


def weigh(run: Run, first: Panel, jury: Sequence[Run]) -> tuple[Panel, Fitted, dict[str, float]]:
    """The items of several judges side by side, their weights, and each judge's share of all weight."""
    panels = [first]
    if len({r.path.resolve() for r in (run, *jury)}) <= len(jury):
        raise RocketError("a run is named twice in the jury, and would weigh twice")
    for other in jury:
        more = panel(other)
        same = other.meta["benchmark"]["sha256"] == run.meta["benchmark"]["sha256"]
        if not same or (more.sessions, more.models, more.counts) != (first.sessions, first.models, first.counts):
            raise RocketError(f"{other.path}: graded other questions or responses than {run.path}")
        panels.append(more)
    datas = [p.data for p in panels]
    graded_QM = np.logical_and.reduce([d.graded_QM for d in datas])
    data = first.data._replace(
        p_QMI=np.concatenate([d.p_QMI for d in datas], axis=2),
        item_QI=np.concatenate([d.item_QI for d in datas], axis=1),
        graded_QM=graded_QM,
    )
    judge_QI = np.concatenate([np.full(d.item_QI.shape, j, np.int32) for j, d in enumerate(datas)], axis=1)
    params = fit_label_free(data, jnp.asarray(judge_QI), len(datas))
    weight_QI = np.asarray(params.weight_QI)
    share = [float(weight_QI[judge_QI == j].sum() / weight_QI.sum()) for j in range(len(datas))]
    names = [str(r.path) for r in (run, *jury)]
    joined = Panel(first.sessions, first.models, tuple(int(n) for n in data.item_QI.sum(axis=1)), data)
    return joined, Fitted(params, None), dict(zip(names, share, strict=True))


def score_compat(run: Run, labels: Labels | None = None, labeler: str | None = None,
                 train_models: Sequence[str] | None = None) -> pa.Table:  # fmt: skip
    """RocketEval's own scores (see `compat.py`), to 1e-9 where the run's grades are recorded ones.

    Without labels the mean; with them the blend with the trees, fitted on `train_models`, which are left out of the
    scores, as are sessions without any training label. The table's metadata are stamped with `compat`.
    """
    run.require_complete()
    if (labels is None) != (train_models is None):
        raise RocketError("RocketEval's blend needs labels and training models, both or neither")
    whole = panel(run, labels)
    p_QMI, there_QM = compat_grades(run, whole)
    Q, M = there_QM.shape
    item_QI = np.asarray(whole.data.item_QI)
    kept = np.ones(M, bool)
    if labels is None or train_models is None:
        score_QM = np.full((Q, M), np.nan)
        for q in range(Q):
            score_QM[q] = mean_score(p_QMI[q][:, string_order(int(item_QI[q].sum()))])
    else:
        training = whole.trained_on(train_models)  # for its check of names
        inside = np.asarray([m in set(train_models) for m in training.models])
        label_QM = np.full((Q, M), np.nan)
        for m, model in enumerate(whole.models):
            for q, session in enumerate(whole.sessions):
                given = labels.get(model, {}).get(session)
                if inside[m] and there_QM[q, m] and given is not None:
                    label_QM[q, m] = given
        if not np.isfinite(label_QM).any():
            raise RocketError("none of the training models has a label for a graded response of this run")
        score_QM = trees_scores(p_QMI, item_QI, label_QM, blend=True)
        kept = ~inside
        there_QM = there_QM & np.isfinite(score_QM)
    about = {
        "head": "extra-trees-blend" if labels is not None else "mean", "compat": COMPAT, "labeler": labeler,
        "trained_on": sorted(train_models or ()), "scale": "1 to 10" if labels is None else "the labeler's",
    }  # fmt: skip
    return write_scores(run, whole, score_QM, None, kept, None, about, there_QM)


def compat_grades(run: Run, whole: Panel) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """p f64[Q, M, I] in the precision of the run, NaN where an item has no grade, and bool[Q, M] which responses have
    judgments at all."""
    table = run.grades
    q_of, m_of = ({name: i for i, name in enumerate(names)} for names in (whole.sessions, whole.models))
    q = np.asarray([q_of[s] for s in table["session_id"].to_pylist()])
    m = np.asarray([m_of[x] for x in table["model"].to_pylist()])
    i = table["item"].to_numpy()
    p_QMI = np.full(np.shape(whole.data.p_QMI), np.nan)
    there_QM = np.ones(p_QMI.shape[:2], bool)
    status = np.asarray(table["status"].to_pylist(), object)
    p = table["p_yes"].to_numpy(zero_copy_only=False).astype(np.float64)
    p[status != OK] = np.nan
    p_QMI[q, m, i] = p
    gone = np.isin(status.astype(str), MISSING)
    there_QM[q[gone], m[gone]] = False
    return p_QMI, there_QM
