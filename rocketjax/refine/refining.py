"""Refinement of a benchmark's checklists by what a run of it says, into a new benchmark."""

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

import rocketjax
from rocketjax.bench import Benchmark, load_benchmark
from rocketjax.bench.importers.source import publish, write_manifest
from rocketjax.errors import RocketError
from rocketjax.files import path_of, read_bytes, require_local
from rocketjax.grade import Judge, Run, item_features, make_prompter, read_table, restrict, survey
from rocketjax.refine.choose import Criterion, Decision, decide
from rocketjax.refine.evidence import Evidence, Figures, evidence, figures
from rocketjax.refine.probe import NEGATION, WORDINGS, Probes, probe, unstable
from rocketjax.refine.reasons import SIMILARITY, Key, against_labels, dead, pairs, unanswerable
from rocketjax.refine.written import write_benchmark, write_rows
from rocketjax.reweight import features_judge, labels_of, save_features

FORMAT = 1
SURVEYED = 100  # queries that are packed to count tokens; more stand behind them
RECORDS, ABOUT = "refine.jsonl", "refine.json"


class Settings(NamedTuple):
    """What decides. `least` items stay in each query, `keep` is the most that do (None: no bound); `responses` is the
    number of graded responses below which answers drop nothing; `similarity` and `correlated` are bounds of duplicates
    (see `reasons.pairs`); `discoveries` is the false discovery rate of items against the labels; `merge`: duplicates
    go into the better item, else they are only flagged."""

    least: int = 3
    keep: int | None = None
    responses: int = 12
    similarity: float = SIMILARITY
    correlated: float = 0.5
    discoveries: float = 0.05
    merge: bool = False


@dataclass(frozen=True, eq=False)
class Refinement:
    """`records` has one entry per item of the old checklists, in the order of the benchmark's sessions by name;
    `summary` is refine.json; `kept` the old numbers of the items that stay, by session."""

    records: list[dict[str, Any]]
    summary: dict[str, Any]
    kept: dict[str, list[int]]


def refine_checklists(
    benchmark: Benchmark | str | os.PathLike[str],
    run: Run | str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    labeler: str | None = None,
    train_models: Sequence[str] | None = None,
    judge: Judge | None = None,
    probes: int = 0,
    settings: Settings | None = None,
    overwrite: bool = False,
) -> Refinement:
    """Refines the checklists of a benchmark by a run of it, and writes a new benchmark into `output` (None: nothing).

    The run's grades say which items are dead or get no answer; the judge's hidden states of the items, from the run's
    features.parquet or from `judge`, with the grades which say the same twice; the scores of `labeler` (of
    `train_models` only, if given) which are against people. `probes` responses of each query are asked again in other
    words. Without labels, items are worth their `discrimination`, with labels their `usefulness` (see `Figures`). A
    figure of agreement with labels that took part here says nothing: they are named in `summary`.

    `output` has the queries, responses and scores as they are, the new checklists, judgments of the items that stay,
    refine.jsonl and refine.json. It is written whole or not at all. Queries that the run did not grade keep their
    items. Raises RocketError where the run is of another benchmark, not complete, or of another judge than `judge`,
    for an unknown labeler or model, and where `output` is in the way.
    """
    settings = settings or Settings()
    settings = settings._replace(least=min(settings.least, settings.keep or settings.least))
    check(settings, probes, judge)
    target = None
    whole = benchmark if isinstance(benchmark, Benchmark) else load_benchmark(benchmark)
    if output is not None:
        require_local(path_of(output))
        target = Path(os.path.abspath(os.fsdecode(output)))
        check_target(target, Path(whole.path), overwrite)
    opened = run if isinstance(run, Run) else Run.open(run)
    opened.require_complete()
    if probes and opened.recorded:
        raise RocketError(f"{opened.path}: is of recorded judgments; other wordings take the judge that gave them")
    part = restrict(whole, opened)
    labels = None if labeler is None else labels_of(whole, labeler)
    if train_models is not None:
        if labels is None:
            raise RocketError("training models are those whose labels are used; name a labeler too")
        unknown = sorted(set(train_models) - set(part.models))
        if unknown:
            raise RocketError(f"no model {unknown[0]!r} in this run; it has: {', '.join(part.models)}")
        labels = {m: by for m, by in labels.items() if m in train_models}
    states = states_in(opened, part, judge, target is not None)
    e = evidence(opened, part, labels, states)
    asked = probe(judge, opened, part, e, probes) if probes and judge is not None else None
    f, decisions = refined(e, settings, asked)
    known_QM = np.isfinite(e.label_QM)
    used = [m for m, known_Q in zip(e.models, known_QM.T, strict=True) if known_Q.any()]
    if labeler is not None and not used:
        raise RocketError(f"{whole.name}: no label by {labeler!r} is of a response that this run graded")
    records, kept = as_records(whole, e, f, decisions)
    after = with_items(part, kept)
    counts = Counter(r["action"] for r in records)
    kinds = Counter((x["kind"], r["action"]) for r in records for x in r["reasons"])
    summary: dict[str, Any] = {
        "format": FORMAT,
        "settings": settings._asdict(),
        "criterion": criterion_of(e),
        "looked_at": {"meaning": e.state_QID is not None, "labels": labeler is not None, "wording": asked is not None},
        "benchmark": {"name": whole.name, "sha256": whole.sha256, "questions_sha256": whole.questions_sha256},
        "run": {"sha256": run_hash(opened), "judge": dict(opened.meta["judge"]), "prompt": dict(opened.meta["prompt"])},
        "labels": None if labeler is None else {
            "labeler": labeler, "models": used, "count": int(known_QM.sum()), "sha256": label_hash(e),
        },
        "probes": None if asked is None else about_probes(e, asked, probes),
        "items": {
            "before": len(records), "after": sum(map(len, kept.values())),
            "not_in_the_run": len(records) - int(e.item_QI.sum()),
            **{action: counts[action] for action in ("keep", "drop", "merge", "flag")},
        },
        "reasons": {kind: {a: n for (k, a), n in sorted(kinds.items()) if k == kind} for kind, _ in sorted(kinds)},
        "cost": cost(opened, part, after, judge),
        "left_out": {},
        "rocketjax": rocketjax.__version__,
    }  # fmt: skip
    found = Refinement(records, summary, kept)
    if target is not None:
        write(whole, found, target)
    return found


def check(settings: Settings, probes: int, judge: Judge | None) -> None:
    """RocketError for settings that make no sense."""
    if settings.least < 1 or settings.responses < 1 or (settings.keep is not None and settings.keep < 1):
        raise RocketError("the least and the most items of a query, and the responses needed, must be 1 or more")
    if not (0 < settings.discoveries < 1 and -1 <= settings.similarity <= 1 and -1 <= settings.correlated < 1):
        raise RocketError("a false discovery rate lies between 0 and 1, a similarity or correlation between -1 and 1")
    if probes < 0 or (probes and judge is None):
        raise RocketError("asking in other words takes a judge, and 0 or more responses of each query")


def refined(e: Evidence, settings: Settings, probes: Probes | None = None) -> tuple[Figures, dict[Key, Decision]]:
    """The figures of all items, and what becomes of them."""
    f = figures(e)
    reasons = [
        against_labels(e, f, settings.discoveries),
        dead(e, f, settings.responses),
        unanswerable(e, settings.responses),
        *([] if probes is None else [unstable(e, probes)]),
    ]
    found = pairs(e, settings.similarity, settings.correlated, settings.responses)
    return f, decide(e, f, reasons, found, criterion_of(e), settings.least, settings.keep, settings.merge)


def criterion_of(e: Evidence) -> Criterion:
    return "usefulness" if np.isfinite(e.label_QM).any() else "discrimination"


def with_items(benchmark: Benchmark, kept: Mapping[str, Sequence[int]]) -> Benchmark:
    """The benchmark with these items of its checklists, without its labels."""
    checklists = {s: c.only(kept[s]) if s in kept else c for s, c in benchmark.checklists.items()}
    return msgspec.structs.replace(benchmark, checklists=checklists, labels={})


def states_in(run: Run, part: Benchmark, judge: Judge | None, save: bool) -> pa.Table | None:
    """The hidden states of the run's items: those in the run, else the judge's (saved if so), else None."""
    there = features_judge(run)
    own = None if run.recorded else run.meta["judge"]["weights_sha256"]
    if judge is not None and own is not None and judge.sha256 != own:
        raise RocketError(
            f"{run.path}: was graded by {run.meta['judge']['origin']}, not by {judge.origin}; give its own judge"
        )
    if there is not None:
        if judge is not None and judge.sha256 != there:
            raise RocketError(f"{run.path}: has another judge's hidden states; delete its features.parquet first")
        return read_table(run.path / "features.parquet", None)
    if judge is None:
        return None
    table = item_features(judge, part, run.meta["prompt"].get("template", "native"))
    if save:
        save_features(run, table, judge.sha256)
    return table


def as_records(
    benchmark: Benchmark, e: Evidence, f: Figures, decisions: Mapping[Key, Decision]
) -> tuple[list[dict[str, Any]], dict[str, list[int]]]:
    """A record of every item of the benchmark, and the items that stay."""
    q_of = {s: q for q, s in enumerate(e.sessions)}
    records, kept = [], {}
    for session in sorted(benchmark.checklists):
        items = benchmark.checklists[session].items
        q = q_of.get(session)
        chosen = [decisions[q, i] if q is not None else Decision() for i in range(len(items))]
        kept[session] = [i for i, d in enumerate(chosen) if d.action in ("keep", "flag")]
        new = {old: number for number, old in enumerate(kept[session])}
        for i, (text, d) in enumerate(zip(items, chosen, strict=True)):
            numbers = {} if q is None else {name: plain(getattr(f, name)[q, i]) for name in f._fields}
            records.append(
                {
                    "session_id": session, "item": i, "text": text, "action": d.action,
                    "reasons": [
                        {"kind": r.kind, "drop": r.drop, **({} if r.other is None else {"other": r.other}),
                         **{k: plain(v) for k, v in r.numbers.items()}}
                        for r in sorted(d.reasons, key=lambda r: r.kind)
                    ],
                    "merged_into": d.into, "new_item": new.get(i), "in_the_run": q is not None, **numbers,
                }
            )  # fmt: skip
    return records, kept


def plain(x: float) -> float | int | None:
    """A number for JSON: seven digits, None for NaN."""
    if isinstance(x, int | np.integer):
        return int(x)
    return float(f"{x:.7g}") if np.isfinite(x) else None


def cost(run: Run, before: Benchmark, after: Benchmark, judge: Judge | None) -> dict[str, dict[str, float | None]]:
    """Items over all responses, and tokens that the judge computes for them as a run packs them, before and after.

    Tokens are None without a judge, whose tokenizer and settings it takes; of more than `SURVEYED` queries they are
    scaled up from so many.
    """
    out: dict[str, dict[str, float | None]] = {}
    for name, b in (("before", before), ("after", after)):
        items = sum(len(b.checklists[s].items) for by in b.responses.values() for s in by if s in b.checklists)
        tokens = None
        if judge is not None:
            settings = run.meta["prompt"]
            prompter = make_prompter(
                judge.tokenizer, judge.model.config, settings.get("template", "native"),
                settings.get("overflow", "truncate-middle"), settings.get("max_tokens"), settings.get("reference"),
            )  # fmt: skip
            workload = survey(b, prompter, judge.model.config, SURVEYED)
            tokens = round(sum(rows.tokens for rows in workload.rows.values()))
        out[name] = {"items": items, "tokens": tokens}
    return out


def about_probes(e: Evidence, probes: Probes, count: int) -> dict[str, Any]:
    """What the rewordings were, and how often the judge follows a negation at all."""
    turned, n = probes.negation_followed(e)
    asked = int(np.isfinite(probes.p_QMIW).sum())
    about = {"responses": count, "items": asked, "wordings": list(WORDINGS), "negation": NEGATION}
    return about | {"negated": n, "negation_followed": turned}


def run_hash(run: Run) -> str:
    """Of run.json and all grades."""
    digest = hashlib.sha256(read_bytes(run.path / "run.json"))
    for index in run.parts():
        digest.update(hashlib.sha256(read_bytes(run.part(index))).digest())
    return digest.hexdigest()


def label_hash(e: Evidence) -> str:
    """Of the labels that were used."""
    known = np.argwhere(np.isfinite(e.label_QM))
    rows = [[e.sessions[q], e.models[m], float(e.label_QM[q, m])] for q, m in known]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def check_target(target: Path, source: Path, overwrite: bool) -> None:
    """RocketError where the output would replace the benchmark itself, or anything that is no refined benchmark."""
    if target.resolve() == source.resolve() or target.resolve() in source.resolve().parents:
        raise RocketError(f"{target}: the old checklists are there; give another folder")
    if os.path.lexists(target):
        if not overwrite:
            raise RocketError(f"{target}: is there already; give another folder, or --overwrite to replace it")
        if not (target / ABOUT).is_file():
            raise RocketError(f"{target}: holds no {ABOUT}, so it is no refined benchmark and is left as it is")


def write(benchmark: Benchmark, found: Refinement, target: Path) -> None:
    """Writes the new benchmark beside its place, reads it back, and renames it."""
    part = target.parent / f".{target.name}.{os.getpid()}.part"
    part.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(part, ignore_errors=True)  # of a killed process that had the same number
    part.mkdir()
    try:
        found.summary["left_out"] = write_benchmark(benchmark, found.kept, part)
        write_rows(part / RECORDS, found.records)
        write_manifest(part / ABOUT, found.summary)
        load_benchmark(part)
        publish(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
