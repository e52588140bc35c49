"""All heads on the same splits of the models, beside the reference's trees and what ignores the judge.

    python experiments/heads.py run RUN BENCH LABELER [--splits 20] [--part 0.5] [--per-query 2,4,8] [--heads A,B] \\
        [--features] [--unlabelled] [--json FILE]        # hidden states, for `shared`; queries without labels
    python experiments/heads.py rubric FOLDER ...        # LLM-Rubric's stored answers, FOLDER is its data/synth_data

Per head, over random splits of the models into halves (fitted on one, judged on the other): Spearman's correlation of
the models' means with the labels', pairwise agreement inside queries (a tie counts one half), and mean absolute error;
the mean and the 95% range over the splits, which is how far one split lies off, and not the error of the mean: the
splits share their models. With --unlabelled a random half of the queries keeps no label either, and the figures are of
that half. The JSON has the paired differences to `ridge` too. `run` takes a graded
run, or one of recorded judgments; items and models of it that the benchmark lacks (`quality.py --extras`) are left out.
`rubric` has one query, whose items are nine questions with answers 1 to 4 (p is the mean answer over their range), and
225 dialogues in the place of models; labels are people's mean overall satisfaction. HelloBench has no scores: there
LABELER names who labelled its items, and --weights FILE its authors' weights of items, fitted on people's ratings and
averaged over their categories, make scores of them.
"""

import argparse
import csv
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import rocketjax
from rocketjax.grade import OK, item_features
from rocketjax.reweight import (
    Agreement,
    Comparison,
    Panel,
    agreement,
    compare,
    features_of,
    labels_of,
    make_panel,
    panel,
    save_features,
)  # fmt: skip
from rocketjax.reweight.crossval import QUERY_MEAN, REFERENCE, default_heads, scores_of, splits

COMPARED = "ridge"


def of_run(run: rocketjax.Run, b: rocketjax.Benchmark, labeler: str, weights: Path | None) -> Panel:
    """The run's grades of the benchmark's own items and models, beside the labeler's scores."""
    labels = item_scores(b, labeler, weights) if weights else labels_of(b, labeler)
    if {m for m in run.meta["benchmark"]["models"]} <= set(b.models):
        found = panel(run, labels)
        if all(len(b.checklists[s].items) == n for s, n in zip(found.sessions, found.counts, strict=True)):
            return found
    rows = [
        r
        for r in run.grades.to_pylist()
        if r["model"] in b.responses and r["item"] < len(b.checklists[r["session_id"]].items)
    ]
    sessions, models = sorted({r["session_id"] for r in rows}), sorted({r["model"] for r in rows})
    q, m = ({name: i for i, name in enumerate(names)} for names in (sessions, models))
    p = np.full((len(sessions), len(models), max(r["item"] for r in rows) + 1), np.nan)
    for r in rows:
        if r["status"] == OK:
            p[q[r["session_id"]], m[r["model"]], r["item"]] = r["p_yes"]
    item = np.arange(p.shape[2]) < np.array([len(b.checklists[s].items) for s in sessions])[:, None]
    score = [[(labels.get(x, {}).get(s)) for x in models] for s in sessions]
    return make_panel(sessions, models, p, item, np.ones(p.shape[:2], bool), np.array(score, float))


def item_scores(b: rocketjax.Benchmark, labeler: str, weights: Path) -> dict[str, dict[str, float | None]]:
    """Scores 1 to 10 from labelled items, weighed by the mean of those lists of numbers in a file that fit."""
    lists = re.findall(r"\[([^\[\]]*)\]", weights.read_text("utf-8"))
    numbers = [np.array([float(x) for x in text.replace(",", " ").split()]) for text in lists]
    out: dict[str, dict[str, float | None]] = {}
    for model, by in b.labels[labeler].items():
        for session, label in by.items():
            if label.items is None or any(x is None for x in label.items):
                continue
            w = np.mean([n / n.sum() for n in numbers if len(n) == len(label.items)], axis=0)
            out.setdefault(model, {})[session] = 1 + 9 * float(w @ np.array(label.items, float))
    return out


def rubric(folder: Path) -> Panel:
    """LLM-Rubric's synthetic set: one query, nine items, dialogues as models."""
    (judged,) = folder.glob("gpt-3.5-turbo-16k_synth_evaluations*.tsv")
    (people,) = folder.glob("human_judges_synth_all*.tsv")
    answers: dict[str, dict[str, float]] = {}
    with open(judged) as file:
        for row in csv.DictReader(file, delimiter="\t"):
            p = np.array([float(row[f"answer{k}_prob"]) for k in (1, 2, 3, 4)])
            answers.setdefault(row["text_id"], {})[row["criterion"]] = float(p @ np.arange(4) / p.sum() / 3)
    given: dict[str, list[float]] = {}
    with open(people) as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if row["Q0"] and float(row["Q0"]) > 0:  # 0: presumably not applicable
                given.setdefault(row["text_id"], []).append(float(row["Q0"]))
    criteria = sorted({c for by in answers.values() for c in by})
    names = sorted(answers.keys() & given.keys())
    p_QMI = np.array([[[answers[n].get(c, np.nan) for c in criteria] for n in names]])
    label = np.array([[np.mean(given[n]) for n in names]])
    # On the scale of the mean, 1 to 10, so that its error says something.
    label = 1 + 9 * (label - 1) / 3
    return make_panel(["dialogues"], names, p_QMI, np.ones((1, len(criteria)), bool), np.ones(label.shape, bool), label)


def without_labels(p: Panel, head: str, count: int, features: Any) -> Comparison:
    """The head fitted on half of the models and half of the queries, judged on the others of both."""
    label_QM = np.where(p.labelled, np.asarray(p.data.label_QM, np.float64), np.nan)
    values = []
    for number, models in enumerate(splits(p, count, 0)):
        training = p.trained_on(models)
        weight_QM = np.asarray(training.data.weight_QM).copy()
        out = np.random.default_rng(number).permutation(len(p.sessions))[: len(p.sessions) // 2]
        weight_QM[out] = 0
        bare = Panel(p.sessions, p.models, p.counts, training.data._replace(weight_QM=weight_QM))
        cells = np.ix_(out, [m not in models for m in p.models])
        values.append(agreement(scores_of(head, bare, features)[cells], label_QM[cells]))
    return Comparison(head, np.asarray(values, np.float64))


def table(found: dict[str, Comparison]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    base = found.get(COMPARED)
    print(f"{'':<18}" + "".join(f"{f:>26}" for f in Agreement._fields))
    for head, c in found.items():
        out[head], cells = {}, ""
        for field in Agreement._fields:
            low, high = c.interval(field)
            out[head][field] = {"mean": c.mean(field), "low": low, "high": high}
            text = "-" if np.isnan(c.mean(field)) else f"{c.mean(field):.3f} [{low:.3f}, {high:.3f}]"
            if base is not None and head != COMPARED and not np.isnan(c.mean(field)):
                k = Agreement._fields.index(field)
                difference = (c.values_SA - base.values_SA)[:, k]
                difference = difference[np.isfinite(difference)]
                error = float(difference.std(ddof=1) / np.sqrt(len(difference))) if len(difference) > 1 else np.nan
                out[head][field] |= {"less_ridge": float(difference.mean()), "error": error}
            cells += f"{text:>26}"
        print(f"{head:<18}{cells}" + (f"   {c.failed}" if c.failed else ""))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "rubric"))
    parser.add_argument("path", type=Path)
    parser.add_argument("bench", type=Path, nargs="?")
    parser.add_argument("labeler", nargs="?")
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--part", type=float, default=0.5, help="of the models, to fit on")
    parser.add_argument("--per-query", default="", help="also with at most so many labels for each query")
    parser.add_argument("--unlabelled", action="store_true", help="half of the queries keep no label and are judged")
    parser.add_argument("--heads")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--features", action="store_true", help="read the default judge's hidden states, for `shared`")
    parser.add_argument("--json", type=Path)
    a = parser.parse_args()
    features = None
    if a.what == "rubric":
        p = rubric(a.path)
    else:
        run = rocketjax.Run.open(a.path)
        b = rocketjax.load_benchmark(a.bench)
        p = of_run(run, b, a.labeler, a.weights)
        if a.features and not (run.path / "features.parquet").exists():
            judge = rocketjax.Judge.load(None, "f32", print)
            graded = msgspec.structs.replace(b, checklists={s: b.checklists[s] for s in p.sessions})
            save_features(run, item_features(judge, graded), judge.sha256)
        features = features_of(run, p)
    heads = a.heads.split(",") if a.heads else list(default_heads(features is not None))
    out: dict[str, Any] = {}
    if a.unlabelled:
        heads = [h for h in heads if h not in (*REFERENCE, QUERY_MEAN)]  # these read the query's own labels
        print(f"{len(p.sessions)} queries, half of them without a label, {len(p.models)} models, {a.splits} splits")
        out["unlabelled"] = table({h: without_labels(p, h, a.splits, features) for h in heads})
    for count in () if a.unlabelled else (None, *(int(n) for n in a.per_query.split(",") if n)):
        print(
            f"{len(p.sessions)} queries, {len(p.models)} models, {int(p.labelled.sum())} labels, {a.splits} splits, "
            + ("all labels of the training half" if count is None else f"at most {count} labels a query")
        )
        compared = compare(p, heads, a.splits, part=a.part, labels=count, feature_QIE=features)
        out[str(count or "all")] = table({c.head: c for c in compared})
    if a.json:
        a.json.write_text(json.dumps(out, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
