"""Ranking by mean score."""

from typing import Any

import numpy as np

from rocketjax.errors import RocketError
from rocketjax.grade import Run, write_json

DIGITS = 9  # scores that agree to so many decimals are tied


class Ranking(list[dict[str, Any]]):
    """A list of `{model, score, rank}`, best first; tied models share the rank of the first of them.

    `sessions` is the number of queries that the means are over, `left_out` the queries that some model has no
    score for.
    """

    sessions: int
    left_out: int

    def __str__(self) -> str:
        width = max(len(row["model"]) for row in self)
        lines = [f"{row['rank']:>4}  {row['model']:<{width}}  {row['score']:.3f}" for row in self]
        note = f"mean over {self.sessions} queries" + (f"; {self.left_out} left out" if self.left_out else "")
        return "\n".join([*lines, note])


def rank_models(run: Run) -> Ranking:
    """Ranks the models of a scored run and writes `ranking.json`.

    A model's score is its mean over the sessions in which every model has a score, so that all means are over
    the same queries. Ties (equal to 9 decimals) share a rank. Raises RocketError if there is no such session.
    """
    by_model: dict[str, dict[str, float]] = {}
    everything: set[str] = set()
    for row in run.scores.to_pylist():
        everything.add(row["session_id"])
        scores = by_model.setdefault(row["model"], {})
        if row["score"] is not None:
            scores[row["session_id"]] = row["score"]
    shared = set(everything)
    for scores in by_model.values():
        shared &= scores.keys()
    if not shared:
        worst = min(by_model, key=lambda model: len(by_model[model]), default="")
        raise RocketError(
            f"{run.path}: no query has a score from every model, so there is nothing to compare on. "
            f"{worst!r} has {len(by_model.get(worst, {}))} of {len(everything)}; leave it out with --models."
        )
    means = {m: round(float(np.mean([s[i] for i in sorted(shared)])), DIGITS) for m, s in by_model.items()}
    ranking = Ranking()
    for model in sorted(means, key=lambda model: (-means[model], model)):
        better = sum(mean > means[model] for mean in means.values())
        ranking.append({"model": model, "score": means[model], "rank": better + 1})
    ranking.sessions, ranking.left_out = len(shared), len(everything) - len(shared)
    write_json(run.path / "ranking.json", ranking)
    return ranking
