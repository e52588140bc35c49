"""A run's ranking beside the mean label of a labeler, and how far the two agree.

    python experiments/agreement.py RUN BENCH LABELER

Prints a table of models and, over the sessions where both judge and labeler have scores: Spearman's and Kendall's
correlation of the model means, and pairwise agreement (of pairs of models on one query with different labels, how
often the judge orders them alike; a tie of the judge counts one half), each with a 95% interval from 1,000 bootstrap
samples of the sessions.
"""

import sys

import numpy as np

import rocketjax
from rocketjax.reweight import agreement


def table(run: rocketjax.Run, benchmark: rocketjax.Benchmark, labeler: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Models, and scores and labels as [sessions, models], of the models and sessions that have all of both."""
    labels = benchmark.labels[labeler]
    scores: dict[str, dict[str, float]] = {}
    for row in run.scores.to_pylist():
        if row["score"] is not None:
            scores.setdefault(row["model"], {})[row["session_id"]] = row["score"]
    models = sorted(scores.keys() & labels.keys())
    sessions = set.intersection(
        *(scores[m].keys() & {s for s, x in labels[m].items() if x.score is not None} for m in models)
    )
    order = sorted(sessions)
    judged = np.array([[scores[m][s] for m in models] for s in order])
    labelled = np.array([[labels[m][s].score for m in models] for s in order], float)
    return models, judged, labelled


def main() -> None:
    run, benchmark, labeler = rocketjax.Run.open(sys.argv[1]), rocketjax.load_benchmark(sys.argv[2]), sys.argv[3]
    models, judged, labelled = table(run, benchmark, labeler)
    print(f"{benchmark.name}, judge {run.meta['judge']['origin']}, labeler {labeler}: "
          f"{len(models)} models, {len(judged)} queries")  # fmt: skip
    rank = {m: i + 1 for i, m in enumerate(sorted(models, key=lambda m: -labelled.mean(0)[models.index(m)]))}
    for i in np.argsort(-judged.mean(axis=0)):
        print(f"  {models[i]:<90.90} {judged.mean(0)[i]:6.3f}  {labelled.mean(0)[i]:6.3f} ({rank[models[i]]})")
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(judged), (1000, len(judged)))
    low, high = np.percentile([agreement(judged[d], labelled[d])[:3] for d in draws], [2.5, 97.5], axis=0)
    for name, value, a, b in zip(
        ("Spearman", "Kendall", "pairwise"), agreement(judged, labelled)[:3], low, high, strict=True
    ):
        print(f"  {name:<9} {value:6.3f}  [{a:.3f}, {b:.3f}]")


if __name__ == "__main__":
    main()
