"""A head that was fitted on a run: a folder with its numbers and what they were fitted on.

head.json   the head, its options, labeler, training models and folds; hashes of judge, prompt, questions and labels
params/     the numbers (Orbax): of each fold, and of all labels together

A score of a response is only worth something from a head that has not seen that response's label. So by default the
labelled models are cut into folds, each scored by a head fitted on the others, and models without labels by the head
that was fitted on all. Only a query's level, which is the same for all models, is that of all labels: a level from the
others' labels falls when a good model is left out, and a judge that knows nothing would rank the models backwards.
"""

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import msgspec
import numpy as np
import numpy.typing as npt

import rocketjax
from rocketjax.errors import RocketError
from rocketjax.files import is_remote, local_copy, names, path_of, reaching, read_bytes, upload
from rocketjax.grade import Run
from rocketjax.judge import write_folder
from rocketjax.reweight.head import (
    DEFAULT,
    SHAPES,
    WITHOUT_LABELS,
    Fitted,
    Name,
    Options,
    Params,
    check,
    fit_panel,
    has_posterior,
    score_panel,
)
from rocketjax.reweight.linear import Linear
from rocketjax.reweight.panels import Panel, panel

FORMAT = 2  # 1: folds kept levels of their own
FOLDS = 5
ALL = "all"  # the fit on every label, for models that have none


class HeadOptions(msgspec.Struct, frozen=True):
    """`Options`, as head.json has them."""

    monotone: bool
    rank_weight: float


class HeadFile(msgspec.Struct, frozen=True):
    """head.json."""

    format: int
    head: str
    options: HeadOptions
    labeler: str
    labels_sha256: str
    trained_on: list[str]
    folds: dict[str, int]
    judge: dict[str, Any]
    prompt: dict[str, Any]
    questions_sha256: str | None
    benchmark_sha256: str
    features_sha256: str | None
    sessions: list[str]
    items: list[int]
    figures: dict[str, Any]
    versions: dict[str, str]
    samples: dict[str, bool]
    """Which fits have bootstrap samples."""


Labels = Mapping[str, Mapping[str, float | None]]


@dataclass(frozen=True, eq=False)
class Head:
    """A fitted head. `meta` is head.json; `fits` are by fold, as text, and `ALL`."""

    name: Name
    meta: Mapping[str, Any]
    fits: Mapping[str, Fitted]
    path: Path | None = None

    @property
    def trained_on(self) -> list[str]:
        """The models whose labels were used."""
        return list(self.meta["trained_on"])

    @property
    def folds(self) -> dict[str, int]:
        """The fold of each training model; empty where there was one fit only."""
        return dict(self.meta["folds"])

    def weights(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]] | None:
        """Item weights of the fit on all labels and their standard errors (the posterior's, else the bootstrap's),
        f32[Q, I] each; None for heads that are not linear."""
        params = self.fits[ALL].params
        if not isinstance(params, Linear):
            return None
        samples = self.fits[ALL].samples
        if isinstance(samples, Linear):
            return np.asarray(params.weight_QI), np.asarray(samples.weight_QI).std(axis=0, ddof=1)
        variance_QI = np.diagonal(np.asarray(params.covariance_QWW), axis1=1, axis2=2)[:, 1:]
        return np.asarray(params.weight_QI), np.sqrt(np.maximum(variance_QI, 0))


def fit_head(
    run: Run,
    labels: Labels,
    labeler: str,
    head: str = DEFAULT,
    *,
    train_models: Sequence[str] | None = None,
    folds: int = FOLDS,
    monotone: bool = False,
    rank_weight: float = 0.0,
    features: npt.NDArray[np.float32] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Head:
    """Fits a head to one labeler's scores, `labels` as model -> session -> score.

    With `train_models` the labels of these models are used and no fold is kept apart; else the labelled models are cut
    into `folds`, in a random order that depends on their names. `features` f32[Q, I, E] are those of `shared`. Raises
    RocketError for a head that needs no labels, fewer labelled models than folds, and what `fit_panel` refuses.
    """
    options = Options(monotone, rank_weight)
    name = check(head, options)
    if name in WITHOUT_LABELS:
        raise RocketError(f"head {name!r} reads no labels, so there is nothing to fit; score with it")
    whole = panel(run, labels)
    if train_models is not None:
        training, of_fold = whole.trained_on(train_models), {}
        lacking = sorted(set(train_models) - set(training.labelled_models()))
        if lacking:
            raise RocketError(f"training model {lacking[0]!r} has no label by {labeler!r} on a graded response")
        parts = [(ALL, training)]
    else:
        models = whole.labelled_models()
        if not 2 <= folds <= len(models):
            most = "two must be labelled at least" if len(models) < 2 else f"give --folds {len(models)} or fewer"
            raise RocketError(f"{folds} folds cannot be made of {len(models)} labelled models; {most}")
        # By a hash of the name: neither their order nor the alphabet decides who is scored with whom.
        shuffled = sorted(models, key=lambda m: hashlib.sha256(m.encode()).digest())
        of_fold = {m: i % folds for i, m in enumerate(shuffled)}
        parts = [(str(k), whole.trained_on([m for m in models if of_fold[m] != k])) for k in range(folds)]
        training = whole
        parts.append((ALL, whole))
    fits = {}
    for number, (key, part) in enumerate(parts):
        fits[key] = fit_panel(part, name, options, features)
        if progress:
            progress(number + 1, len(parts))
    level_Q = level_of(whole, name, fits[ALL])
    for key in fits.keys() - {ALL}:
        fits[key] = moved(fits[key], level_Q - level_of(whole, name, fits[key]))
    text = json.dumps({m: dict(sorted(by.items())) for m, by in sorted(labels.items())})
    params = fits[ALL].params
    figures: dict[str, Any] = {
        "labels": int(training.labelled.sum()),
        "queries_with_labels": int(training.labelled.any(axis=1).sum()),
        "labels_not_used": dict(training.dropped),
    }
    if has_posterior(name, options) and isinstance(params, Linear):
        figures["noise"] = float(np.sqrt(np.square(params.noise_Q).mean()))
        figures["strength"] = np.asarray(params.strength_3).tolist()
    meta = {
        "format": FORMAT,
        "head": name,
        "options": {"monotone": monotone, "rank_weight": rank_weight},
        "labeler": labeler,
        "labels_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "trained_on": training.labelled_models(),
        "folds": of_fold,
        "judge": dict(run.meta["judge"]),
        "prompt": dict(run.meta["prompt"]),
        "questions_sha256": run.meta["benchmark"].get("questions_sha256"),
        "benchmark_sha256": run.meta["benchmark"]["sha256"],
        "features_sha256": None
        if features is None or name != "shared"
        else hashlib.sha256(features.tobytes()).hexdigest(),
        "sessions": list(whole.sessions),
        "items": list(whole.counts),
        "figures": figures,
        "versions": {"rocketjax": rocketjax.__version__, "jax": jax.__version__},
    }
    return Head(name, meta, fits)


def level_of(whole: Panel, name: Name, fitted: Fitted) -> npt.NDArray[Any]:
    """The mean score of each query's graded responses, f64[Q]; 0 where there is none."""
    score_QM, _ = score_panel(whole, name, fitted._replace(samples=None))
    known = np.isfinite(score_QM)
    return np.asarray(np.where(known, score_QM, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1))


def moved(fitted: Fitted, by_Q: npt.NDArray[Any]) -> Fitted:
    """The fit with so much more in every score of a query; its errors stay."""

    def move(params: Params) -> Params:
        by = np.asarray(by_Q, np.float32)
        if isinstance(params, Linear):
            return params._replace(bias_Q=params.bias_Q + by)
        return params._replace(scale=params.scale._replace(level_Q=params.scale.level_Q + by))

    return Fitted(move(fitted.params), None if fitted.samples is None else move(fitted.samples))


def folder_name(head: str, labeler: str, monotone: bool, rank_weight: float) -> str:
    """Where in RUN/heads a head goes."""
    name = head + ("+monotone" if monotone else "") + (f"+rank{rank_weight:g}" if rank_weight else "")
    return name + "@" + re.sub(r"[^\w.-]", "_", labeler)


def save_head(head: Head, folder: Path, overwrite: bool = False) -> Head:
    """Writes a head, whole or not at all: on an object store head.json, without which nothing is a head, comes last.
    RocketError where something is there already."""
    from orbax.checkpoint import v1 as ocp

    folder = path_of(folder)
    if folder.exists() and (not overwrite or not (folder / "head.json").is_file()):
        raise RocketError(f"{folder}: is there already; choose another folder for -o, or --overwrite a head")
    leaves = {key: numbered(fitted) for key, fitted in head.fits.items()}

    def write(temporary: Path) -> None:
        ocp.save((temporary / "params").absolute(), leaves)
        meta = {**head.meta, "samples": {key: fitted.samples is not None for key, fitted in head.fits.items()}}
        text = json.dumps(meta, indent=1, ensure_ascii=False, allow_nan=False)
        (temporary / "head.json").write_text(text + "\n", "utf-8")

    if is_remote(folder):
        try:
            with tempfile.TemporaryDirectory(prefix="rocketjax-") as temporary:
                write(Path(temporary))
                upload(Path(temporary), folder, last="head.json")
        except OSError as e:
            raise RocketError(f"{folder}: cannot be written ({e})") from None
    else:
        write_folder(folder, write)
    return Head(head.name, head.meta, head.fits, folder)


def load_head(folder: Path) -> Head:
    """Reads what `save_head` wrote. Raises RocketError for what is no head or cannot be read."""
    from orbax.checkpoint import v1 as ocp

    folder = path_of(folder)
    file = folder / "head.json"
    try:
        about = msgspec.json.decode(read_bytes(file), type=HeadFile)
    except FileNotFoundError:
        raise RocketError(f"{folder}: is no fitted head, it has no head.json") from None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as e:
        raise RocketError(f"{file}: cannot be read ({e})") from None
    if about.format != FORMAT:
        raise RocketError(f"{file}: format {about.format!r}, this version reads {FORMAT}; fit the head again")
    if ALL not in about.samples:
        raise RocketError(f"{file}: field 'samples' lacks {ALL!r}")
    name = check(about.head, Options(about.options.monotone, about.options.rank_weight))
    samples = about.samples
    meta = msgspec.to_builtins(about)
    del meta["samples"]
    try:
        with local_copy(folder / "params") as params:
            leaves = ocp.load(params.absolute())
    except Exception as e:  # Orbax raises many kinds for a broken folder; all mean the same here
        raise RocketError(f"{folder / 'params'}: cannot be read ({str(e).splitlines()[0][:200]})") from None
    fits = {}
    for key, has in samples.items():
        shape = Fitted(SHAPES[name], SHAPES[name] if has else None)
        structure: Any = jax.tree.structure(shape)
        own = [np.asarray(leaves[key][n]) for n in sorted(leaves[key])] if key in leaves else []
        if len(own) != structure.num_leaves or not all(np.isfinite(x).all() for x in own):
            raise RocketError(f"{folder / 'params'}: does not hold the numbers of a {name} head")
        fits[key] = jax.tree.unflatten(structure, own)
    return Head(name, meta, fits, folder)


def numbered(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by their number: a form that any version of Orbax gives back as it was."""
    return {f"{i:05d}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(tree))}


def find_head(run: Run, head: str) -> Path:
    """The folder of a head: a path, the name of a folder in RUN/heads, or a head's name if one such is there."""
    path = path_of(head).expanduser()
    root = run.path / "heads"
    with reaching(path):
        if (path / "head.json").is_file():
            return path
    there = sorted(name for name in names(root) if (root / name / "head.json").is_file())
    if head in there:
        return root / head
    fitting = [name for name in there if name.split("@")[0] == head]
    if len(fitting) == 1:
        return root / fitting[0]
    if fitting:
        raise RocketError(f"{run.path}: several heads are {head!r}: {', '.join(fitting)}; name one of them")
    known = ", ".join([*WITHOUT_LABELS, *there])
    raise RocketError(
        f"{run.path}: no head {head!r}; there are: {known}. rocketjax fit {run.path} --labels L makes one"
    )


def require_match(head: Head, run: Run) -> None:
    """RocketError unless the run asks the same questions of the same judge with the same prompt."""
    where = head.path or "the head"
    judge, prompt = run.meta["judge"], run.meta["prompt"]
    differ = [
        f"judge.{k}: {head.meta['judge'].get(k)} there, {judge.get(k)} here"
        for k in ("weights_sha256", "tokenizer_sha256", "dtype", "judgments_sha256")
        if head.meta["judge"].get(k) != judge.get(k)
    ]
    differ += [
        f"judge.{k}: {head.meta['judge'][k]} there, {judge[k]} here"
        for k in ("config_sha256", "prompt_sha256")  # of earlier versions neither has them
        if k in head.meta["judge"] and k in judge and head.meta["judge"][k] != judge[k]
    ]
    differ += [
        f"prompt.{k}: {head.meta['prompt'].get(k)} there, {prompt.get(k)} here"
        for k in sorted({*head.meta["prompt"], *prompt})
        if head.meta["prompt"].get(k) != prompt.get(k)
    ]
    if differ:
        raise RocketError(f"{where}: was fitted on another judge's grades:\n  " + "\n  ".join(differ))
    asked = run.meta["benchmark"].get("questions_sha256")
    same = run.meta["benchmark"]["sha256"] == head.meta["benchmark_sha256"]
    if not same and (asked is None or asked != head.meta["questions_sha256"]):
        raise RocketError(f"{where}: was fitted on other queries or checklists than {run.path} has")


def require_questions(head: Head, run: Run, whole: Panel) -> None:
    """As `require_match`, and RocketError unless the run has the same queries with as many items each."""
    require_match(head, run)
    if list(whole.sessions) != list(head.meta["sessions"]) or list(whole.counts) != list(head.meta["items"]):
        raise RocketError(f"{head.path or 'the head'}: was fitted on other queries or checklists than {run.path} has")


def score_with(head: Head, run: Run, whole: Panel) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Scores and standard errors f64[Q, M], NaN without a grade; each model by the fit that has not seen its labels.

    Without folds a training model is scored by the head that has seen it: what to do with that is the caller's choice.
    """
    require_questions(head, run, whole)
    score_QM, error_QM = score_panel(whole, head.name, head.fits[ALL])
    for key, fitted in head.fits.items():
        inside = np.asarray([str(head.folds.get(m, ALL)) == key for m in whole.models])
        if key != ALL and inside.any():
            score, error = score_panel(whole, head.name, fitted)
            score_QM[:, inside], error_QM[:, inside] = score[:, inside], error[:, inside]
    return score_QM, error_QM
