"""Ranking by mean score."""

from typing import Any

import numpy as np
import numpy.typing as npt

from rocketjax.errors import RocketError
from rocketjax.grade import Run, write_json
from rocketjax.reweight import about_scores

DIGITS = 9  # scores that agree to so many decimals are tied


class Ranking(list[dict[str, Any]]):
    """A list of rows, best first; tied models share the rank of the first of them.

    A row has `model`, `score`, `rank` and `standard_error`, and says what made the score: `head`, `labeler`, `compat`,
    and `head_saw_its_labels`, whether the head was trained on labels of this very model.

    `sessions` is the number of queries that the means are over, `left_out` the queries that some model has no
    score for, `abstained` the scores that were marked as too uncertain, `about` what made the scores.
    """

    sessions: int
    left_out: int
    abstained: int
    about: dict[str, Any]

    def __str__(self) -> str:
        width = max(len(row["model"]) for row in self)
        lines = [
            f"{row['rank']:>4}  {row['model']:<{width}}  {row['score']:.3f}"
            + ("" if row["standard_error"] is None else f" +- {row['standard_error']:.3f}")
            for row in self
        ]
        note = f"mean over {self.sessions} queries" + (f"; {self.left_out} left out" if self.left_out else "")
        if self.abstained:
            note += f"; {self.abstained} uncertain scores not used, queries and models fitted to the rest"
        if self.about.get("compat"):
            note = f"RocketEval's way (--compat {self.about['compat']}): each model's mean over its own queries"
        seen = self.about.get("scored_by_a_head_that_saw_its_labels")
        if seen:
            note += f"\nscored by a head that was trained on their own labels: {', '.join(seen)}"
        return "\n".join([*lines, note])


def rank_models(run: Run) -> Ranking:
    """Ranks the models of a scored run and writes `ranking.json`.

    A model's score is its mean over the sessions in which every model has a score, so that all means are over
    the same queries. Where scores were marked as abstained, they are left out, and a model's score is the mean over
    these sessions of what an additive fit of queries and models gives, so that a model does not gain by abstaining on
    hard queries. Its standard error is that of this estimate, as if the scores' errors were independent; null where
    some are not known. Ties (equal to 9 decimals) share a rank. Scores made with `--compat rocketeval` are ranked as
    RocketEval does: by each model's mean over its own sessions. Raises RocketError if there is nothing to compare.
    """
    table = run.scores
    if "standard_error" not in table.column_names or "abstained" not in table.column_names:
        raise RocketError(f"{run.path}: its scores are of an older version; make them again with rocketjax score")
    about = about_scores(table)
    scores: dict[str, dict[str, float]] = {}
    errors: dict[str, dict[str, float]] = {}
    abstained: set[tuple[str, str]] = set()
    everything: set[str] = set()
    for row in table.to_pylist():
        everything.add(row["session_id"])
        own = scores.setdefault(row["model"], {})
        if row["score"] is not None:
            own[row["session_id"]] = row["score"]
            if row["standard_error"] is not None:
                errors.setdefault(row["model"], {})[row["session_id"]] = row["standard_error"]
            if row["abstained"]:
                abstained.add((row["session_id"], row["model"]))
    if about.get("compat"):
        return finish(run, reference_means(run, scores), {}, len(everything), 0, 0, about)
    shared = set(everything)
    for own in scores.values():
        shared &= own.keys()
    if not shared:
        worst = min(scores, key=lambda model: len(scores[model]), default="")
        raise RocketError(
            f"{run.path}: no query has a score from every model, so there is nothing to compare on. "
            f"{worst!r} has {len(scores.get(worst, {}))} of {len(everything)}; leave it out with --models."
        )
    order, models = sorted(shared), sorted(scores)
    used = np.asarray([[(s, m) not in abstained for m in models] for s in order])
    given = np.asarray([[scores[m][s] for m in models] for s in order])
    error = np.asarray([[errors.get(m, {}).get(s, np.nan) for m in models] for s in order])
    if used.all():
        values, variance = given.mean(axis=0), (error**2).sum(axis=0) / len(order) ** 2
    else:
        part = additive(run, used, models)
        values = np.einsum("xqm,qm->x", part, given)
        # An abstained score does not count, so its error need not be known.
        variance = np.einsum("xqm,qm->x", part**2, np.where(used, error, 0.0) ** 2)
    spread = {m: float(np.sqrt(v)) for m, v in zip(models, variance, strict=True) if np.isfinite(v)}
    means = {m: float(v) for m, v in zip(models, values, strict=True)}
    return finish(run, means, spread, len(shared), len(everything) - len(shared), int((~used).sum()), about)


def additive(run: Run, used: npt.NDArray[np.bool_], models: list[str]) -> npt.NDArray[np.float64]:
    """What every used score adds to each model's value under score = query + model (Searle 1971, section 7.1).

    f64[models, queries, models]: a model's value is its effect and the mean of the queries' effects, both linear in the
    scores.
    """
    if not used.any(axis=0).all():
        lost = models[int(np.argmin(used.any(axis=0)))]
        raise RocketError(f"{run.path}: every score of {lost!r} is too uncertain; raise --abstain")
    w = used.astype(float)
    n_Q = w.sum(axis=1)
    share = w / np.maximum(n_Q, 1)[:, None]
    # Normal equations of the models once the queries are taken out.
    left = np.diag(w.sum(axis=0)) - w.T @ share
    if np.linalg.matrix_rank(left, tol=1e-9) < len(models) - 1:
        raise RocketError(f"{run.path}: the scores that are left do not connect all models; raise --abstain")
    M = len(models)
    right = np.eye(M)[:, None] * w[None] - w.T[:, :, None] * share[None]
    effect = np.einsum("xm,mqy->xqy", np.linalg.pinv(left, hermitian=True), right)
    keep = n_Q > 0
    query = np.where(keep[:, None], share, 0.0) / keep.sum()
    mean_effect = np.einsum("qm,mpy->py", query, effect)
    return np.asarray(effect + query[None] - mean_effect[None])


def reference_means(run: Run, scores: dict[str, dict[str, float]]) -> dict[str, float]:
    """Plain means over whatever sessions a model has."""
    found = {m: float(np.mean([own[s] for s in own])) for m, own in scores.items() if own}
    if not found:
        raise RocketError(f"{run.path}: has no scores to rank")
    return found


def finish(
    run: Run, means: dict[str, float], spread: dict[str, float], sessions: int, left_out: int, abstained: int,
    about: dict[str, Any],
) -> Ranking:  # fmt: skip
    """Orders the models and writes the ranking."""
    means = {m: round(v, DIGITS) for m, v in means.items()} if not about.get("compat") else means
    ranking = Ranking()
    seen = set(about.get("scored_by_a_head_that_saw_its_labels") or ())
    for model in sorted(means, key=lambda model: (-means[model], model)):
        better = sum(mean > means[model] for mean in means.values())
        ranking.append(
            {
                "model": model,
                "score": means[model],
                "rank": better + 1,
                "standard_error": spread.get(model),
                "head": about.get("head"),
                "labeler": about.get("labeler"),
                "compat": about.get("compat"),
                "head_saw_its_labels": model in seen,
            }
        )
    ranking.sessions, ranking.left_out, ranking.abstained, ranking.about = sessions, left_out, abstained, about
    write_json(run.path / "ranking.json", ranking)
    return ranking
