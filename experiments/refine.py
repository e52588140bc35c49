"""What refinement of checklists is worth: cost against agreement with people, and how its threshold was found.

    python experiments/refine.py mtbench BENCH -o RUN [--labeler gpt-4] [--queries N] [--splits 20] [--png FILE]
                                                   [--also NAME=BENCH2 ...]
    python experiments/refine.py duplicates [-o RUN] [BENCH ...]

`mtbench` grades N queries of a benchmark with scored responses once (RUN is continued if it is there), each checklist
with one generic item behind its own; everything else is computed from these grades, since a grade does not depend on
the other items. Items are chosen by the labels of one half of the models, and agreement is measured on the other half,
over --splits random halves; what is chosen without labels is measured on the same halves. The grades of all models
take part in a choice, as they would for a user; labels of the models that are measured never do. Random items of the
same number stand beside the chosen ones. Figures: Spearman of the models' means (`ranking`), mean Spearman of each
query (`within`), pairwise agreement (`pairwise`), all as in `rocketjax.rank`, each the mean over the splits, with the
95% percentile interval over 1,000 bootstrap samples of the queries; of differences from the given checklists too, with
the same samples.

`duplicates` measures how alike items look to the judge, where numbers and names do not tell them apart: 43
paraphrases of items of the demo beside the items that they paraphrase (the same meaning) and all other pairs of one
query (not), and all pairs of other benchmarks' own items.
"""

import argparse
import itertools
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from scipy.stats import spearmanr

import rocketjax
from rocketjax.bench import Benchmark, Checklist
from rocketjax.bench.importers import GENERIC_ITEM
from rocketjax.grade import Judge, item_features, make_prompter, survey
from rocketjax.rank.bootstrap import drawn_queries
from rocketjax.rank.resampled import orders, verdicts
from rocketjax.refine import Evidence, Settings, evidence, figures, refined, similarities, with_items
from rocketjax.refine.evidence import states_of
from rocketjax.refine.reasons import SIMILARITY, same_facts
from rocketjax.reweight import labels_of

DEMO = Path(rocketjax.__file__).parent / "bench" / "demo"
SAMPLES, RANDOM = 1000, 20
FIGURES = ("ranking", "within", "pairwise")
CUTS = (1, 3, 5, 8)
# (session, item of the demo, the same in other words)
PARAPHRASES = (
    ("demo01_writing", 1, "Is the dripping tap in the kitchen mentioned as the problem?"),
    ("demo01_writing", 4, "Does the message mention that Sam can be found at home from 5 pm on?"),
    ("demo01_writing", 6, "Does the email stay within 80 words?"),
    ("demo02_writing", 1, "Is the capacity of the bottle given as 750 millilitres?"),
    ("demo02_writing", 3, "Is a price of 24 euros mentioned?"),
    ("demo02_writing", 5, "Does the text consist of three sentences, no more and no fewer?"),
    ("demo03_writing", 1, "Is the poem six lines long, leaving the title aside?"),
    ("demo03_writing", 3, "Is there something wintry in the poem, such as frost or ice?"),
    ("demo03_writing", 4, "Is a title given above the poem?"),
    ("demo04_writing", 0, "Does the notice say that the sale now takes place on Saturday, 14 June?"),
    ("demo04_writing", 3, "Is the rain mentioned as the reason why the sale moves?"),
    ("demo04_writing", 5, "Are helpers told to get in touch with Mr. Lund?"),
    ("demo05_reasoning", 0, "Are 12 euros given as the price of all pens together?"),
    ("demo05_reasoning", 4, "Is the final amount that Mia has to pay given as 37.80 euros?"),
    ("demo06_reasoning", 0, "Is Cleo said to sit in the first seat?"),
    ("demo06_reasoning", 3, "Is the fourth seat given to Dev?"),
    ("demo07_reasoning", 1, "Is 80 kilometres per hour given as the mean speed of the train?"),
    ("demo07_reasoning", 4, "Does the response find that the quicker train is there earlier than 11:30?"),
    ("demo08_reasoning", 0, "Is 5/8 given as the probability that the first ball is red?"),
    ("demo08_reasoning", 4, "Is 5/14, or the same as 20/56, given as the result?"),
    ("demo08_reasoning", 5, "Is the result also given as a percentage of about 35.7?"),
    ("demo09_code", 1, "Are the words made lower-case by the code?"),
    ("demo09_code", 4, "Is a docstring part of the function?"),
    ("demo10_code", 0, "Is there a Python function called second_largest in the response?"),
    ("demo10_code", 2, "Does a list with fewer than two different values lead to a ValueError?"),
    ("demo10_code", 4, "Is an example call of second_largest given?"),
    ("demo11_code", 0, "Is it pointed out that '+=' must be written in place of '=+'?"),
    ("demo11_code", 2, "Does the response mention that the function divides by zero when the list is empty?"),
    ("demo12_extraction", 1, "Is Priya Raman named as the customer?"),
    ("demo12_extraction", 4, "Is 2025-03-05 the date of delivery in the response?"),
    ("demo12_extraction", 5, "Is 555-0142 given as the number to call?"),
    ("demo13_extraction", 1, "Is booking the hall before 3 May listed as the task of Ines?"),
    ("demo13_extraction", 3, "Is it said that the task of Kofi has no deadline?"),
    ("demo14_extraction", 0, "Is the number of returned products given as two?"),
    ("demo14_extraction", 2, "Is flickering given as the reason why the lamp went back?"),
    ("demo15_multi_turn", 0, "Is the cost of the hostel for both nights given as 56 euros?"),
    ("demo15_multi_turn", 3, "Is something to do proposed for every one of the three days?"),
    ("demo16_multi_turn", 2, "Is 13 June named as the day on which the renewed book is due?"),
    ("demo16_multi_turn", 3, "Does the response point out that on Mondays the library is shut?"),
    ("demo17_multi_turn", 0, "Are there three slogans in the response, no more and no fewer?"),
    ("demo17_multi_turn", 4, "Has every slogan fewer than 12 words?"),
    ("demo18_multi_turn", 1, "Would calling area(3) with this code give 9?"),
    ("demo18_multi_turn", 5, "Is it explained in words that h equals w if it is not given?"),
)


def sample(b: Benchmark, queries: int | None) -> Benchmark:
    """So many queries with their checklists, drawn without regard to their order (neighbours are alike)."""
    sessions = sorted(b.checklists)
    if queries is None or queries >= len(sessions):
        return b
    chosen = np.random.default_rng(0).permutation(len(sessions))[:queries]
    return msgspec.structs.replace(b, checklists={sessions[i]: b.checklists[sessions[i]] for i in sorted(chosen)})


def halves(models: int, splits: int) -> list[np.ndarray]:
    """bool[M] of each split: the models whose labels choose."""
    rng = np.random.default_rng(0)
    return [np.isin(np.arange(models), rng.permutation(models)[: models // 2]) for _ in range(splits)]


def measured(chosen_SQI: np.ndarray, p_QMI: np.ndarray, label_QM: np.ndarray, halves_SM: list[np.ndarray],
             times_XQ: np.ndarray) -> np.ndarray:  # fmt: skip
    """f64[3, X]: the figures in every sample, the mean over the splits; chosen_SQI: the items of each split."""
    found = []
    for chosen_QI, half in zip(chosen_SQI, halves_SM, strict=True):
        score_QM = (np.nan_to_num(p_QMI) * chosen_QI[:, None]).sum(axis=2) / chosen_QI.sum(axis=1)[:, None]
        score, label = score_QM[:, ~half], label_QM[:, ~half]
        ranking = orders(times_XQ @ score, times_XQ @ label)["spearman"]
        right_Q, asked_Q = verdicts(score, label)
        flat = (np.ptp(score, axis=1) < 1e-9) | (np.ptp(label, axis=1) == 0)
        within_Q = np.asarray([0.0 if f else spearmanr(a, b).statistic
                               for a, b, f in zip(score, label, flat, strict=True)])  # fmt: skip
        within = (times_XQ @ within_Q) / (times_XQ @ (~flat))
        found.append(np.stack([ranking, within, (times_XQ @ right_Q) / (times_XQ @ asked_Q)]))
    return np.asarray(np.nanmean(found, axis=0))


def best(worth_QI: np.ndarray, item_QI: np.ndarray, count: int) -> np.ndarray:
    """bool[Q, I]: the best so many items of each query."""
    worth = np.where(item_QI, np.nan_to_num(worth_QI, nan=-1e9), -np.inf)
    place_QI = np.argsort(np.argsort(-worth, axis=1, kind="stable"), axis=1)
    return np.asarray((place_QI < count) & item_QI)


def stays(e: Evidence, settings: Settings) -> np.ndarray:
    chosen = np.zeros(e.item_QI.shape, bool)
    for key, decision in refined(e, settings)[1].items():
        chosen[key] = decision.action in ("keep", "flag")
    return chosen


def mtbench(args: argparse.Namespace) -> dict[str, Any]:
    b = sample(rocketjax.load_benchmark(args.bench), args.queries)
    own = b.checklists
    asked = {s: Checklist(s, (*c.items, GENERIC_ITEM)) for s, c in own.items()}
    judge = Judge.load(args.judge)
    run = judge.grade(msgspec.structs.replace(b, checklists=asked), args.output, mode="resume",
                      overflow="truncate-middle")  # fmt: skip
    states = item_features(judge, b)
    whole = evidence(run, msgspec.structs.replace(b, checklists=asked), labels_of(b, args.labeler))
    p_QMI, label_QM, Q = whole.p_QMI, whole.label_QM, len(whole.sessions)
    if not (np.isfinite(label_QM).all() and np.isfinite(p_QMI).any(axis=2).all()):
        raise SystemExit("some response has no label or no grade")
    texts = tuple(own[s].items for s in whole.sessions)
    generic_QI = np.arange(p_QMI.shape[2]) == np.asarray([len(t) for t in texts])[:, None]
    item_QI = whole.item_QI & ~generic_QI
    state_QID = states_of(states, whole.sessions, item_QI, "the states")
    bare = np.where(generic_QI[:, None], np.nan, p_QMI)
    e = replace(whole, texts=texts, p_QMI=bare, item_QI=item_QI, label_QM=np.full_like(label_QM, np.nan),
                state_QID=state_QID)  # fmt: skip
    splits = halves(len(whole.models), args.splits)
    with_labels = [replace(e, label_QM=np.where(half, label_QM, np.nan)) for half in splits]
    label_free, by_labels = figures(e), [figures(x) for x in with_labels]
    rng = np.random.default_rng(0)
    S = args.splits
    chosen: dict[str, np.ndarray] = {
        "given": np.repeat(item_QI[None], S, axis=0),
        "refined, no labels": np.repeat(stays(e, Settings())[None], S, axis=0),
        "refined, merged": np.repeat(stays(e, Settings(merge=True))[None], S, axis=0),
        "refined, labels": np.stack([stays(x, Settings()) for x in with_labels]),
    }
    for n in CUTS:
        chosen[f"best {n}, discrimination"] = np.repeat(best(label_free.discrimination, item_QI, n)[None], S, axis=0)
        chosen[f"best {n}, usefulness"] = np.stack([best(f.usefulness, item_QI, n) for f in by_labels])
    chosen["generic"] = np.repeat(generic_QI[None], S, axis=0)
    times_XQ = np.concatenate(
        [np.ones((1, Q)), [np.bincount(d, minlength=Q) for d in drawn_queries(Q, SAMPLES, 0)]]
    ).astype(float)
    values = {name: measured(c, p_QMI, label_QM, splits, times_XQ) for name, c in chosen.items()}
    for n in CUTS:
        drawn = [np.repeat(best(rng.random(item_QI.shape), item_QI, n)[None], S, axis=0) for _ in range(RANDOM)]
        values[f"random {n}"] = np.mean([measured(c, p_QMI, label_QM, splits, times_XQ) for c in drawn], axis=0)
        chosen[f"random {n}"] = drawn[0]
    config = judge.model.config
    prompter = make_prompter(judge.tokenizer, config, overflow="truncate-middle")
    rows: list[dict[str, Any]] = []

    def row_of(name: str, per_response: float, tokens: float, value: np.ndarray, given: np.ndarray) -> None:
        row: dict[str, Any] = {"items": name, "per_response": per_response, "tokens_per_response": tokens}
        for k, figure in enumerate(FIGURES):
            for key, x in ((figure, value[k]), (f"{figure}_less_given", value[k] - given[k])):
                row[key] = [float(x[0]), *np.nanpercentile(x[1:], [2.5, 97.5]).tolist()]
        rows.append(row)

    for name, c in chosen.items():
        kept = {s: np.flatnonzero(c[0, q]).tolist() for q, s in enumerate(whole.sessions)}
        part = with_items(msgspec.structs.replace(b, checklists=asked), kept)
        packed = survey(part, prompter, config)
        tokens = sum(r.tokens for r in packed.rows.values()) / (Q * len(whole.models))
        row_of(name, float(c.sum() / (S * Q)), tokens, values[name], values["given"])
    for name, folder in (text.split("=", 1) for text in args.also):
        other = rocketjax.load_benchmark(folder)
        both = [q for q, s in enumerate(whole.sessions) if s in other.checklists]
        sessions = {whole.sessions[q]: other.checklists[whole.sessions[q]] for q in both}
        other = msgspec.structs.replace(other, checklists=sessions)
        its = Path(f"{args.output}-{name}")
        x = evidence(judge.grade(other, its, mode="resume", overflow="truncate-middle"), other,
                     labels_of(other, args.labeler))  # fmt: skip
        assert x.models == whole.models and x.sessions == tuple(sessions)
        times = times_XQ[:, both]
        value = measured(np.repeat(x.item_QI[None], S, axis=0), x.p_QMI, x.label_QM, splits, times)
        given = measured(chosen["given"][:, both], p_QMI[both], label_QM[both], splits, times)
        packed = survey(other, prompter, config)
        tokens = sum(r.tokens for r in packed.rows.values()) / (len(both) * len(x.models))
        row_of(f"{name} ({len(both)} queries)", float(x.item_QI.sum() / len(both)), tokens, value, given)
    reasons: dict[str, int] = {}
    for d in refined(e, Settings())[1].values():
        for r in d.reasons:
            reasons[f"{r.kind} {d.action}"] = reasons.get(f"{r.kind} {d.action}", 0) + 1
    found: dict[str, int] = {}
    for x in with_labels:
        for d in refined(x, Settings())[1].values():
            for r in d.reasons:
                found[f"{r.kind} {d.action}"] = found.get(f"{r.kind} {d.action}", 0) + 1
    print(f"{b.name}: {Q} queries, {len(whole.models)} models, {int(item_QI.sum())} items, judge {judge.origin}, "
          f"labeler {args.labeler}, {S} splits")  # fmt: skip
    print(f"reasons without labels: {reasons}; with labels, mean of the splits: "
          f"{ {k: round(n / S, 2) for k, n in found.items()} }")  # fmt: skip
    print(f"{'items':<28}{'per response':>13}{'tokens':>8}" + "".join(f"{f:>26}" for f in FIGURES)
          + "".join(f"{f + ' - given':>28}" for f in FIGURES))  # fmt: skip
    for row in rows:
        cells = "".join(f"{'{:.3f} [{:.3f}, {:.3f}]'.format(*row[f]):>26}" for f in FIGURES)
        gaps = "".join(f"{'{:+.3f} [{:+.3f}, {:+.3f}]'.format(*row[f + '_less_given']):>28}" for f in FIGURES)
        print(f"{row['items']:<28}{row['per_response']:13.2f}{row['tokens_per_response']:8.0f}{cells}{gaps}")
    if args.png:
        plot(rows, args.png, f"{b.name}: {Q} queries, {len(whole.models)} models")
    return {"queries": Q, "models": len(whole.models), "splits": S, "reasons": reasons, "rows": rows}


def plot(rows: list[dict[str, Any]], file: Path, title: str) -> None:
    """Cost against pairwise agreement."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    kinds = ("discrimination", "usefulness", "random")
    for kind in kinds:
        line = [r for r in rows if kind in r["items"] and any(c.isdigit() for c in r["items"])]
        x, y = ([r["tokens_per_response"] for r in line], [r["pairwise"][0] for r in line])
        axes.plot(x, y, "o-", label=f"best by {kind}" if kind != "random" else "random")
    for row in rows:
        if not any(kind in row["items"] for kind in kinds):
            value, low, high = row["pairwise"]
            axes.errorbar(
                row["tokens_per_response"], value, [[value - low], [high - value]], fmt="s", label=row["items"]
            )
    axes.set(xlabel="tokens per response", ylabel="pairwise agreement on the other models", title=title)
    axes.legend(fontsize=8)
    figure.savefig(file, dpi=150)


def duplicates(args: argparse.Namespace) -> dict[str, Any]:
    b = rocketjax.load_benchmark(DEMO)
    checklists, same = {}, {}
    for s, c in b.checklists.items():
        added = [(item, text) for session, item, text in PARAPHRASES if session == s]
        checklists[s] = Checklist(s, (*c.items, *(text for _, text in added)))
        same[s] = {(item, len(c.items) + k) for k, (item, _) in enumerate(added)}
    b = msgspec.structs.replace(b, checklists=checklists, labels={})
    judge = Judge.load(args.judge)
    with tempfile.TemporaryDirectory() as folder:
        run = judge.grade(b, args.output or Path(folder) / "run", mode="resume", overflow="truncate-middle")
        e = evidence(run, b, states=item_features(judge, b))
    assert e.state_QID is not None
    alike_QII = similarities(e.state_QID, e.item_QI)
    for q, texts in enumerate(e.texts):
        for i, j in itertools.combinations(range(len(texts)), 2):
            if not same_facts(texts[i], texts[j]):
                alike_QII[q, i, j] = -1  # no duplicate, however alike
    z_QMI = np.log(e.p_QMI / (1 - e.p_QMI))
    equal, other, related = [], [], {True: [], False: []}
    for q, s in enumerate(e.sessions):
        for i in range(len(e.texts[q])):
            for j in range(i + 1, len(e.texts[q])):
                (equal if (i, j) in same[s] else other).append(alike_QII[q, i, j])
                related[(i, j) in same[s]].append(np.corrcoef(z_QMI[q, :, i], z_QMI[q, :, j])[0, 1])
    good, bad = np.asarray(equal), np.asarray(other)
    auc = float((good[:, None] > bad).mean())
    out: dict[str, Any] = {"paraphrases": len(good), "others": len(bad), "auc": auc, "thresholds": []}
    print(f"{len(good)} paraphrases, {len(bad)} other pairs of one query: AUC of the similarity {auc:.3f}")

    def quantiles(x: Any) -> str:
        return " ".join(f"{v:.2f}" for v in np.percentile(x, [5, 25, 50, 75, 95]))

    print(f"  similarity, 5 to 95%: paraphrases {quantiles(good)}; others {quantiles(bad)}")
    for kind, name in ((True, "paraphrases"), (False, "others")):
        print(f"  correlation of answers over {len(e.models)} models, {name}: {quantiles(related[kind])}")
    own = {}
    for bench in args.bench:
        x = rocketjax.load_benchmark(bench)
        sessions = tuple(sorted(x.checklists))
        item_QI = np.arange(max(len(x.checklists[s].items) for s in sessions)) < np.asarray(
            [len(x.checklists[s].items) for s in sessions])[:, None]  # fmt: skip
        found = similarities(states_of(item_features(judge, x), sessions, item_QI, bench), item_QI)
        for q, s in enumerate(sessions):
            for i, j in itertools.combinations(range(len(x.checklists[s].items)), 2):
                if not same_facts(x.checklists[s].items[i], x.checklists[s].items[j]):
                    found[q, i, j] = -1
        own[x.name] = found[np.isfinite(found) & np.triu(np.ones(found.shape[1:], bool), 1)]
    for at in (0.1, 0.2, 0.3, 0.5, 0.6, SIMILARITY):
        row = {"similarity": at, "paraphrases": float((good >= at).mean()), "others": float((bad >= at).mean()),
               **{name: float((x >= at).mean()) for name, x in own.items()}}  # fmt: skip
        out["thresholds"].append(row)
        print("  at " + ", ".join(f"{k} {v:.4f}" for k, v in row.items()))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    one = kinds.add_parser("mtbench")
    one.add_argument("bench", type=Path)
    one.add_argument("--labeler", default="gpt-4")
    one.add_argument("--queries", type=int)
    one.add_argument("--splits", type=int, default=20)
    one.add_argument("--png", type=Path)
    one.add_argument("--also", metavar="NAME=BENCH2", action="append", default=[])
    two = kinds.add_parser("duplicates")
    two.add_argument("bench", nargs="*")
    for each in (one, two):
        each.add_argument("--judge")
        each.add_argument("-o", "--output", required=each is one)
        each.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = {"mtbench": mtbench, "duplicates": duplicates}[args.kind](args)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
