"""Planted items are found and good ones stay; what is written is the same benchmark with fewer items."""

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from fakes import random_bench, tiny_judge
from scipy.stats import permutation_test
from typer.testing import CliRunner

import rocketjax
from rocketjax import cli
from rocketjax.bench import Checklist, load_benchmark
from rocketjax.errors import RocketError
from rocketjax.grade import FEATURES, OK, Run, record
from rocketjax.refine import (
    Evidence,
    Settings,
    evidence,
    figures,
    pairs,
    probe,
    refine_checklists,
    refined,
    similarities,
    unstable,
)
from rocketjax.refine.evidence import usefulness
from rocketjax.refine.probe import NEGATION, WORDINGS, Probes
from rocketjax.refine.reasons import below, dead, same_facts, share
from rocketjax.reweight import item_table, labels_of, panel, save_features

KINDS = ("good", "good", "good", "duplicate", "dead", "unanswerable", "reversed")
GOOD, DUPLICATE, DEAD, UNANSWERABLE, REVERSED = (0, 1, 2), 3, 4, 5, 6
Q, M, D = 8, 30, 256


MERGE = Settings(merge=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x)))


def planted(queries: int = Q, models: int = M, seed: int = 0) -> Evidence:
    """Responses of known quality, items of the planted kinds, labels with noise, and hidden states."""
    rng = np.random.default_rng(seed)
    quality_QM = rng.normal(size=(queries, models))
    p_QMI = np.full((queries, models, len(KINDS)), 0.5)
    for i, kind in enumerate(KINDS):
        noise = rng.normal(size=quality_QM.shape)
        p_QMI[..., i] = {
            "good": sigmoid(1.5 * quality_QM + noise), "dead": sigmoid(4 + 0.1 * noise),
            "unanswerable": sigmoid(noise), "reversed": sigmoid(-1.5 * quality_QM + noise),
            "duplicate": sigmoid(np.log(p_QMI[..., 0] / (1 - p_QMI[..., 0])) + 0.15 * noise - 0.5),
        }[kind]  # fmt: skip
    mass_QMI = rng.uniform(0.7, 1, p_QMI.shape)
    mass_QMI[..., UNANSWERABLE] = rng.uniform(0, 0.08, quality_QM.shape)
    label_QM = 5 + 2 * quality_QM + rng.normal(0, 0.7, quality_QM.shape)
    state_QID = rng.normal(size=(queries, 1, D)) * 3 + rng.normal(size=(queries, len(KINDS), D))
    state_QID[:, DUPLICATE] = state_QID[:, 0] + 0.2 * rng.normal(size=(queries, D))
    return Evidence(
        tuple(f"s{q:02}" for q in range(queries)), tuple(f"m{m:02}" for m in range(models)),
        tuple(tuple(f"Is it {kind} {'abcdefg'[i]}, {q * 'very '}much?" for i, kind in enumerate(KINDS))
              for q in range(queries)),
        p_QMI, mass_QMI, np.ones((queries, len(KINDS)), bool), label_QM, state_QID,
    )  # fmt: skip


def write(e: Evidence, folder: Path) -> tuple[Path, Path]:
    """The same as a benchmark with scores and gold judgments, and as a recorded run with features."""

    def rows(name: str, rows: list[dict]) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    asked = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "One?"},
             {"role": "assistant", "content": "1"}]  # fmt: skip
    queries = [{"session_id": s, "references": {"me": "42"},
                "conversation_input": [*asked, {"role": "user", "content": f"{s}?"}]} for s in e.sessions]  # fmt: skip
    rows("bench/queries.jsonl", queries)
    items = [{"session_id": s, "checklist": e.texts[q]} for q, s in enumerate(e.sessions)]
    rows("bench/checklist.jsonl", items)
    judged = []
    for m, model in enumerate(e.models):
        name = f"{model}.jsonl"
        own = {"chat_history": ["One?", f"{m}", "ignored?"]} if m % 2 else {}
        rows(f"bench/response/{name}", [{"session_id": s, "output": [f"{s} {m}"], **own} for s in e.sessions])
        rows(f"bench/score/me/{name}",
             [{"session_id": s, "model_test": model, "score": e.label_QM[q, m]}
              for q, s in enumerate(e.sessions)])  # fmt: skip
        gold = [{"session_id": s, "judgment": [round(i / 10 + m / 1000, 3) if i != 1 else "N/A" for i in range(7)]}
                for s in e.sessions[:-1]]  # fmt: skip
        gold.append({"session_id": e.sessions[-1], "judgment": ["N/A"] * 4 + ["Yes"] + ["N/A"] * 2})
        rows(f"bench/gold_judgment/me/{name}", gold)
        for q, s in enumerate(e.sessions):
            p, mass = ([None if np.isnan(x) else float(x) for x in a[q, m]] for a in (e.p_QMI, e.mass_QMI))
            judged.append({"session_id": s, "model_test": model, "norm_probability": p, "answer_mass": mass})
    rows("judged/all.jsonl", judged)
    run = record(load_benchmark(folder / "bench"), folder / "judged", folder / "run")
    assert e.state_QID is not None
    save_features(run, states(e), "planted")
    return folder / "bench", folder / "run"


def states(e: Evidence) -> pa.Table:
    keys = [(q, i) for q in range(len(e.sessions)) for i in range(len(KINDS))]
    columns = [[e.sessions[q] for q, _ in keys], np.asarray([i for _, i in keys], np.int32),
               [e.state_QID[k].astype(np.float32) for k in keys]]  # fmt: skip
    return pa.table(columns, schema=FEATURES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("planted")
    write(planted(), folder)
    return folder


@pytest.fixture(scope="module")
def made(folder):
    """The planted benchmark refined with labels, and where it was written."""
    return refine_checklists(
        folder / "bench", folder / "run", folder / "new", labeler="me", settings=MERGE
    ), folder / "new"


def kinds(row: dict) -> set[str]:
    return {x["kind"] for x in row["reasons"]}


def test_planted_items_are_found_and_good_ones_stay(made):
    """30 responses, correlations of about 0.8: each planted item is missed with a chance below 1%, and a good one is
    dropped with at most the false discovery rate; here all are right."""
    found, _ = made
    by_place = {(r["session_id"], r["item"]): r for r in found.records}
    for s in {r["session_id"] for r in found.records}:
        duplicates = {0, DUPLICATE}
        for i in GOOD:
            assert by_place[s, i]["action"] == "keep" or i in duplicates, by_place[s, i]
        pair = [by_place[s, i] for i in sorted(duplicates)]
        stays, goes = sorted(pair, key=lambda r: -r["discrimination"])
        assert (stays["action"], goes["action"]) == ("keep", "merge"), pair
        assert goes["merged_into"] == stays["item"] and kinds(goes) == {"duplicate"}
        for i, kind in ((DEAD, "dead"), (UNANSWERABLE, "unanswerable"), (REVERSED, "reversed")):
            assert by_place[s, i]["action"] == "drop" and kind in kinds(by_place[s, i]), by_place[s, i]


def test_duplicates_are_only_flagged_unless_merging_is_asked_for():
    _, found = refined(planted(), Settings())
    for q in range(Q):
        flagged = [i for i in range(len(KINDS)) if found[q, i].action == "flag"]
        assert len(flagged) == 1 and set(flagged) < {0, DUPLICATE}
        reason = found[q, flagged[0]].reasons[0]
        assert (reason.kind, reason.drop, reason.other) == ("duplicate", False, DUPLICATE - flagged[0])


def test_records_account_for_every_item(made, folder):
    found, out = made
    bench = load_benchmark(folder / "bench")
    records = [json.loads(line) for line in (out / "refine.jsonl").read_text().splitlines()]
    about = json.loads((out / "refine.json").read_text())
    assert records == found.records and about == found.summary
    assert [(r["session_id"], r["item"], r["text"]) for r in records] == [
        (s, i, text) for s in sorted(bench.checklists) for i, text in enumerate(bench.checklists[s].items)
    ]
    new = load_benchmark(out)
    for r in records:
        stays = r["action"] in ("keep", "flag")
        assert stays == (r["new_item"] is not None) and (r["action"] == "merge") == (r["merged_into"] is not None)
        if stays:
            assert new.checklists[r["session_id"]].items[r["new_item"]] == r["text"]
        assert stays or r["reasons"]
    count = about["items"]
    assert count["before"] == 7 * Q == sum(count[a] for a in ("keep", "drop", "merge", "flag"))
    assert count["after"] == count["keep"] + count["flag"] == sum(len(c.items) for c in new.checklists.values())
    assert about["cost"] == {"before": {"items": 7 * Q * M, "tokens": None},
                             "after": {"items": count["after"] * M, "tokens": None}}  # fmt: skip
    assert about["labels"]["models"] == [f"m{m:02}" for m in range(M)]


def test_all_else_is_as_it_was_and_judgments_are_renumbered(made, folder):
    found, out = made
    old, new = load_benchmark(folder / "bench"), load_benchmark(out)
    assert dict(old.queries) == dict(new.queries) and list(old.queries) == list(new.queries)
    lost = 0
    for m in old.models:
        assert dict(old.responses[m]) == dict(new.responses[m])
        for s in old.queries:
            a, b = old.labels["me"][m][s], new.labels["me"][m][s]
            assert a.score == b.score
            chosen = [a.items[i] for i in found.kept[s]]
            if any(x is not None for x in chosen):
                assert list(b.items) == chosen
            else:
                assert b.items is None
            lost += sum(a.items[i] is not None for i in set(range(7)) - set(found.kept[s]))
    assert found.summary["left_out"] == {"item_judgments": lost, "judged_responses": M} and lost > 0
    assert any(old.responses[m]["s00"].history for m in old.models), "some responses have turns of their own"
    assert not [p for p in out.parent.iterdir() if ".part" in p.name or ".old" in p.name]


def test_items_that_stay_keep_their_weights_and_categories(made, folder, tmp_path):
    """The run before the weights came is still of the same questions. Where only weights of 0 stay, none do."""
    found, _ = made
    weights = {s: [float(1 + (q + i) % 5) for i in range(7)] for q, s in enumerate(found.kept)}
    first, second, third = sorted(found.kept)[:3]
    weights[first] = [0.0 if i in found.kept[first] else 3.0 for i in range(7)]
    weights[second][found.kept[second][0]] = None
    shutil.copytree(folder / "bench", tmp_path / "bench")
    rows = [json.loads(line) for line in (folder / "bench" / "checklist.jsonl").read_text().splitlines()]
    for row in rows:
        if row["session_id"] != third:
            row |= {"weights": weights[row["session_id"]], "categories": [None, *"abcabc"]}
    (tmp_path / "bench" / "checklist.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    again = refine_checklists(tmp_path / "bench", folder / "run", tmp_path / "new", labeler="me", settings=MERGE)
    assert again.kept == found.kept
    new = load_benchmark(tmp_path / "new")
    for s, kept in found.kept.items():
        assert new.checklists[s].items == tuple(load_benchmark(folder / "bench").checklists[s].items[i] for i in kept)
        if s in (first, third):
            assert new.checklists[s].weights is None
        else:
            assert new.checklists[s].weights == tuple(weights[s][i] for i in kept)
        names = None if s == third else tuple([None, *"abcabc"][i] for i in kept)
        assert new.checklists[s].categories == names
    assert new.questions_sha256 == load_benchmark(made[1]).questions_sha256


def test_the_same_bytes_again_and_never_over_another(made, folder, tmp_path, monkeypatch):
    _, out = made
    shutil.copytree(folder / "run", tmp_path / "elsewhere")
    again = tmp_path / "again"
    refine_checklists(folder / "bench", tmp_path / "elsewhere", again, labeler="me", settings=MERGE)
    files = sorted(p.relative_to(out) for p in out.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    assert all((out / f).read_bytes() == (again / f).read_bytes() for f in files)
    with pytest.raises(RocketError, match="is there already"):
        refine_checklists(folder / "bench", folder / "run", again)
    with pytest.raises(RocketError, match="old checklists are there"):
        refine_checklists(folder / "bench", folder / "run", folder / "bench", overwrite=True)
    (tmp_path / "mine").mkdir()
    with pytest.raises(RocketError, match=r"holds no refine\.json"):
        refine_checklists(folder / "bench", folder / "run", tmp_path / "mine", overwrite=True)
    before = (again / "refine.json").read_bytes()
    with monkeypatch.context() as m:
        m.setattr("rocketjax.refine.refining.load_benchmark", lambda path: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            refine_checklists(load_benchmark(folder / "bench"), folder / "run", again, overwrite=True)
    assert (again / "refine.json").read_bytes() == before and not list(tmp_path.glob(".*"))
    refine_checklists(folder / "bench", folder / "run", again, overwrite=True)
    assert json.loads((again / "refine.json").read_text())["labels"] is None


def test_permuting_queries_models_and_items_permutes_the_result():
    e = planted()
    rng = np.random.default_rng(3)
    label_QM = np.round(e.label_QM)  # ties
    label_QM[rng.random(label_QM.shape) < 0.3] = np.nan
    e = replace(e, label_QM=label_QM)
    q, m, i = (rng.permutation(n) for n in (Q, M, len(KINDS)))
    other = replace(
        e, sessions=tuple(e.sessions[k] for k in q), models=tuple(e.models[k] for k in m),
        texts=tuple(tuple(e.texts[a][b] for b in i) for a in q), p_QMI=e.p_QMI[np.ix_(q, m, i)],
        mass_QMI=e.mass_QMI[np.ix_(q, m, i)], label_QM=e.label_QM[np.ix_(q, m)], state_QID=e.state_QID[np.ix_(q, i)],
    )  # fmt: skip

    def by_text(e: Evidence, settings: Settings) -> dict:
        f, found = refined(e, settings)
        return {
            e.texts[a][b]: (d.action, None if d.into is None else e.texts[a][d.into], sorted(r.kind for r in d.reasons),
                            round(float(f.usefulness[a, b]), 9))
            for (a, b), d in found.items()
        }  # fmt: skip

    for settings in (Settings(), Settings(keep=2), Settings(least=6, merge=True)):
        assert by_text(e, settings) == by_text(other, settings)


def test_missing_grades():
    """Responses without grades and an item that rarely has one: what is known still decides, and nothing is made up."""
    e = planted()
    p_QMI = e.p_QMI.copy()
    p_QMI[:, ::7] = np.nan
    p_QMI[:, 1:, 1] = np.nan
    f, found = refined(replace(e, p_QMI=p_QMI), Settings(least=1))
    for q in range(Q):
        assert found[q, 1].action == "drop" and found[q, 1].reasons[0].numbers["without_grade"] >= M - 6
        assert found[q, 2].action == "keep" and found[q, REVERSED].action == found[q, DEAD].action == "drop"
        assert np.isnan(f.discrimination[q, 1]) and f.responses[q, 2] == M - len(range(0, M, 7))
    nothing = np.full_like(e.p_QMI, np.nan)
    _, found = refined(replace(e, p_QMI=nothing, mass_QMI=nothing), Settings())
    assert all(d.action == "keep" for d in found.values())


@pytest.mark.parametrize("models", [1, 2, 5])
def test_few_responses_drop_nothing(models):
    for keep in (None, 5):
        e = planted(models=models)
        e = replace(e, label_QM=np.full_like(e.label_QM, np.nan)) if keep else e
        _, found = refined(e, Settings(keep=keep))
        gone = [d for d in found.values() if d.action in ("drop", "merge")]
        # With a bound the user asks for a cut: three responses tell which items go with the others, one tells nothing.
        assert not gone if keep is None or models < 3 else all(d.reasons[0].kind == "cut" for d in gone)


def test_items_are_found_in_noise_at_the_stated_rate():
    """Labels that have nothing to do with the items: 420 tests, and next to nothing is found."""
    rng = np.random.default_rng(99)  # not that of the responses' quality
    e = planted(queries=60, models=10)
    e = replace(e, label_QM=np.round(rng.normal(5, 2, e.label_QM.shape)))
    _, found = refined(e, Settings(responses=100))
    assert sum(any(r.kind == "reversed" for r in d.reasons) for d in found.values()) <= 1


def test_p_values_against_another_implementation():
    rng = np.random.default_rng(1)
    for n in (5, 6, 11, 40):
        label, p = np.round(rng.normal(size=n), 1), rng.random((n, 3))
        got = below(label, p)
        for i in range(3):
            want = permutation_test((label,), lambda a, b=p[:, i]: np.dot(a, b), permutation_type="pairings",
                                    vectorized=False, n_resamples=9999, alternative="less", rng=0).pvalue  # fmt: skip
            assert abs(got[i] - want) < (1e-9 if n < 7 else 0.02)


def test_figures_are_those_of_the_item_table_and_usefulness_by_hand(folder):
    run, bench = Run.open(folder / "run"), load_benchmark(folder / "bench")
    labels = labels_of(bench, "me")
    e = evidence(run, bench, labels)
    f = figures(e)
    for row in item_table(panel(run, labels)).to_pylist():
        at = e.sessions.index(row["session_id"]), row["item"]
        for name in ("responses", "yes_rate", "deviation", "discrimination", "agreement"):
            assert np.isclose(getattr(f, name)[at], row[name], atol=1e-6), (name, at)
    small = planted(queries=2, models=6)
    got = usefulness(small)
    for q, i in itertools.product(range(2), range(len(KINDS))):
        error = spread = 0.0
        for m in range(6):
            rest = [k for k in range(6) if k != m]

            def sums(a: int, b: int, rest: list[int] = rest) -> tuple[float, float]:
                p, y = small.p_QMI[a, rest, b], small.label_QM[a, rest]
                return ((p - p.mean()) ** 2).sum(), ((p - p.mean()) * (y - y.mean())).sum()

            everywhere = np.asarray([sums(a, b) for a in range(2) for b in range(len(KINDS))])
            pooled = max(everywhere[:, 1].sum() / everywhere[:, 0].sum(), 0)
            prior = 5 * everywhere[:, 0].sum() / (5 * len(everywhere))
            square, cross = sums(q, i)
            slope = max(0.0, (cross + prior * pooled) / (square + prior))
            p, y = small.p_QMI[q, :, i], small.label_QM[q]
            error += (y[m] - y[rest].mean() - slope * (p[m] - p[rest].mean())) ** 2
            spread += (y[m] - y[rest].mean()) ** 2
        assert np.isclose(got[q, i], 1 - error / spread)


def test_labels_of_other_models_do_not_take_part(folder, tmp_path):
    """With training models named, scores of the others could be anything."""
    chosen = [f"m{m:02}" for m in range(12)]
    before = refine_checklists(folder / "bench", folder / "run", labeler="me", train_models=chosen)
    shutil.copytree(folder / "bench", tmp_path / "bench")
    for m in range(12, M):
        file = tmp_path / "bench" / "score" / "me" / f"m{m:02}.jsonl"
        rows = [json.loads(line) | {"score": -1} for line in file.read_text().splitlines()]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    after = refine_checklists(tmp_path / "bench", folder / "run", labeler="me", train_models=chosen)
    assert before.records == after.records and before.summary == after.summary
    assert before.summary["labels"]["models"] == chosen and before.summary["labels"]["count"] == 12 * Q
    assert any("reversed" in kinds(r) for r in before.records)
    with pytest.raises(RocketError, match="no model 'stranger'"):
        refine_checklists(folder / "bench", folder / "run", labeler="me", train_models=["stranger"])


def test_least_and_keep():
    e = planted()
    f, found = refined(e, Settings(keep=2, least=2, merge=True))
    for q in range(Q):
        stay = [i for i in range(len(KINDS)) if found[q, i].action in ("keep", "flag")]
        others = [i for i in range(len(KINDS)) if i not in stay and found[q, i].reasons[0].kind == "cut"]
        assert len(stay) == 2 and min(f.usefulness[q, stay]) >= max(f.usefulness[q, others])
        for i in range(len(KINDS)):
            if found[q, i].into is not None and found[q, i].into not in stay:
                assert found[q, i].action == "drop"
    _, found = refined(e, Settings(least=5, merge=True))
    for q in range(Q):
        stay = [i for i in range(len(KINDS)) if found[q, i].action in ("keep", "flag")]
        # The least harmful come back: the item without answers, then the duplicate; never the one against people.
        assert len(stay) == 5 and set(GOOD) <= set(stay) and UNANSWERABLE in stay and REVERSED not in stay
        assert found[q, UNANSWERABLE].action == "flag" and found[q, UNANSWERABLE].reasons[-1].kind == "least"


def test_the_interval_of_a_share():
    """Brown, Cai & DasGupta's interval by its definition: Beta quantiles, by sampling."""
    draws = np.random.default_rng(0).beta(3.5, 17.5, 400_000)
    assert np.allclose(share(3, 20), np.quantile(draws, [0.05, 0.95]), atol=2e-3)
    assert share(0, 9)[0] == 0 and share(9, 9)[1] == 1
    assert share(0, 11)[1] > 0.15 > share(0, 12)[1], "12 responses, all alike, are the fewest that say dead"


def test_a_judge_whose_p_moves_little_is_measured_by_its_own_spread():
    """All answers are yes, and no p deviates by more than 0.06: dead are only the items that move much less."""
    e = planted()
    e = replace(e, p_QMI=0.6 + 0.15 * e.p_QMI)
    f = figures(e)
    assert f.deviation[:, GOOD].max() < 0.06 and (f.yes_rate == 1).all()
    found = dead(e, f, 12)
    assert set(found) == {(q, DEAD) for q in range(Q)} and all(reason.drop for reason in found.values())


def test_many_dead_items_do_not_make_each_other_usual():
    """Of seven items four always get yes, with a p that moves a little; the items with both answers set the measure."""
    e = planted()
    p_QMI = e.p_QMI.copy()
    p_QMI[:, :, 3:] = np.clip(0.97 + np.random.default_rng(1).normal(0, 0.01, p_QMI[:, :, 3:].shape), 0, 1)
    found = dead(replace(e, p_QMI=p_QMI), figures(replace(e, p_QMI=p_QMI)), 12)
    assert set(found) == {(q, i) for q in range(Q) for i in range(3, 7)}
    assert all(reason.drop for reason in found.values())


def test_similarities_do_not_depend_on_directions_or_size():
    e = planted()
    alike = similarities(e.state_QID, e.item_QI)
    assert np.allclose(alike, alike.transpose(0, 2, 1), equal_nan=True)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(D, D)))[0]
    assert np.allclose(similarities(7 * e.state_QID @ turn + 3, e.item_QI), alike, atol=1e-6, equal_nan=True)
    left, right = np.triu_indices(len(KINDS), 1)
    different = [alike[:, a, b] for a, b in zip(left, right, strict=True) if (a, b) != (0, DUPLICATE)]
    assert alike[:, 0, DUPLICATE].min() > 0.8 and np.max(different) < Settings().similarity
    # None of the three alone makes a duplicate.
    assert pairs(replace(e, state_QID=np.random.default_rng(5).normal(size=(Q, len(KINDS), D))), 0.2, 0.5, 12) == {}
    shuffled = e.p_QMI.copy()
    shuffled[..., DUPLICATE] = shuffled[:, ::-1, DUPLICATE]
    assert pairs(replace(e, p_QMI=shuffled), 0.2, 0.5, 12) == {}
    assert len(pairs(e, 0.2, 0.5, 12)) == Q
    texts = tuple((f"{t[0][:-1]} by Ann?", *t[1:3], f"{t[3][:-1]} by Ben?", *t[4:]) for t in e.texts)
    assert pairs(replace(e, texts=texts), 0.2, 0.5, 12) == {}


def test_facts_tell_items_apart():
    assert same_facts("Does it say that Ann came at 17:00 (5 pm)?", "Is Ann said to be there from 5 on?")
    assert same_facts("Does it name 5 or 3?", "Is 5 named?") and same_facts("Is it short?", "Does it keep it brief?")
    assert not same_facts("Does it put Ann in seat 3?", "Does it put Ann in seat 4?")
    assert not same_facts("Does it put Ann in seat 3?", "Does it put Ben in seat 3?")
    assert not same_facts("Does it say 5?", "Is it polite?")


def test_a_run_of_a_part_leaves_the_rest_as_it_is(folder, tmp_path):
    lines = (folder / "judged" / "all.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "some.jsonl").write_text("".join(x for x in lines if json.loads(x)["session_id"] in ("s01", "s02")))
    bench = load_benchmark(folder / "bench")
    record(bench, tmp_path / "some.jsonl", tmp_path / "run")
    found = refine_checklists(bench, tmp_path / "run", tmp_path / "new")
    new = load_benchmark(tmp_path / "new")
    assert {r["session_id"] for r in found.records if r["in_the_run"]} == {"s01", "s02"}
    assert found.summary["items"]["not_in_the_run"] == 7 * (Q - 2)
    for s in bench.checklists:
        assert (new.checklists[s] == bench.checklists[s]) == (s not in ("s01", "s02"))
    assert new.labels["me"]["m00"]["s05"] == bench.labels["me"]["m00"]["s05"]


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory):
    judge = tiny_judge()
    bench = random_bench(queries=2, models=3, words=4)
    return judge, bench, judge.grade(bench, tmp_path_factory.mktemp("tiny") / "run", overflow="truncate-middle")


def test_probes_ask_the_same_items_in_other_words(tiny_run, tmp_path):
    judge, bench, run = tiny_run
    e = evidence(run, bench)
    probes = probe(judge, run, bench, e, 2)
    asked = np.isfinite(probes.p_QMIW)
    assert (asked.any(axis=(2, 3)).sum(axis=1) == 2).all()
    text = (*WORDINGS, NEGATION)[1].format(e.texts[1][0])
    other = judge.grade(
        type(bench)(**{f: getattr(bench, f) for f in bench.__struct_fields__}
                    | {"checklists": {e.sessions[1]: Checklist(e.sessions[1], (text,))}}),
        tmp_path / "run",
    )  # fmt: skip
    rows = {r["model"]: r["p_yes"] for r in other.grades.to_pylist() if r["status"] == OK}
    for m, model in enumerate(e.models):
        if asked[1, m].any():
            assert abs(probes.p_QMIW[1, m, 0, 1] - rows[model]) < 1e-5
    # Planted: the first item's answer turns around in other words, the others' do not.
    p_QMIW = np.repeat(e.p_QMI[..., None], len(WORDINGS) + 1, axis=-1)
    p_QMIW[:, :, 0] = np.where(e.p_QMI[:, :, 0] > 0.5, 0.01, 0.99)[..., None]
    found = unstable(e, Probes(p_QMIW))
    assert set(found) == {(q, 0) for q in range(2)} and all(r.drop for r in found.values())


def test_the_new_benchmark_is_graded(tiny_run, tmp_path):
    """Hidden states, tokens and all, with a judge; the grades of the items that stay are as they were."""
    judge, bench, run = tiny_run
    found = rocketjax.refine_checklists(bench, run, tmp_path / "new", judge=judge, settings=Settings(keep=1), probes=1)
    assert found.summary["looked_at"] == {"meaning": True, "labels": False, "wording": True}
    cost = found.summary["cost"]
    assert 0 < cost["after"]["tokens"] < cost["before"]["tokens"]
    assert all(len(k) == 1 for k in found.kept.values())
    again = judge.grade(load_benchmark(tmp_path / "new"), tmp_path / "run", overflow="truncate-middle")
    before = {(r["session_id"], r["model"], r["item"]): r["p_yes"] for r in run.grades.to_pylist()}
    rows = again.grades.to_pylist()
    assert len(rows) == cost["after"]["items"]
    for r in rows:
        old = before[r["session_id"], r["model"], found.kept[r["session_id"]][r["item"]]]
        assert abs(r["p_yes"] - old) < 1e-5
    other = tiny_judge(seed=1)
    with pytest.raises(RocketError, match="was graded by"):
        refine_checklists(bench, run, judge=other)
    with pytest.raises(RocketError, match="takes a judge"):
        refine_checklists(bench, run, probes=1)


def test_the_command(folder, tmp_path):
    call = ["refine", str(folder / "bench"), "--run", str(folder / "run"), "--labels", "me", "--grades-only"]
    shown = CliRunner().invoke(cli.app, [*call, "--dry-run", "--json"])
    assert shown.exit_code == 0, shown.output
    said = json.loads(shown.stdout)
    assert len(said["records"]) == 7 * Q and said["items"]["before"] == 7 * Q
    assert CliRunner().invoke(cli.app, [*call, "--dry-run"]).exit_code == 0
    assert CliRunner().invoke(cli.app, [*call, "-o", str(tmp_path / "new"), "--keep", "2"]).exit_code == 0
    assert all(len(c.items) == 2 for c in load_benchmark(tmp_path / "new").checklists.values())
    assert CliRunner().invoke(cli.app, call).exit_code == 2
    assert CliRunner().invoke(cli.app, [*call, "--dry-run", "--judge", "x"]).exit_code == 2
