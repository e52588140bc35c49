"""The report: what stands in it is what the run says, whatever a text contains; and a real browser shows it."""

import dataclasses
import html.parser
import json
import re
import sys

import chromium
import msgspec
import numpy as np
import pytest
from fakes import random_bench
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, sem
from scipy.stats import t as student

from rocketjax import cli
from rocketjax.bench import Checklist, Label, Message, Query, Response, load_benchmark
from rocketjax.errors import RocketError
from rocketjax.grade import Run, record, restrict
from rocketjax.grade.stream import Work
from rocketjax.rank import rank_models
from rocketjax.rank.scored import scored
from rocketjax.report import write_report
from rocketjax.report.charts import axis
from rocketjax.report.collect import LONGEST, apart, collect, made_bin, spread
from rocketjax.report.elements import number, visible
from rocketjax.report.html import render
from rocketjax.reweight import fit_head, labels_of, load_head, save_head, score

VOID = {"meta", "input", "br", "img", "link", "hr", "base"}
EVIL = '</script><script>window.pwned = 1</script><img src="http://evil.example/x.png" onerror="window.pwned = 2">'
TEXTS = [
    EVIL,
    "]]> --> <!-- <style>* { display: none }</style> & &lt; &#60; ' \" ` ${window.pwned = 3} $name $$",
    "null \0 escape \x1b bell \x07 c1 \x85 \x9b delete \x7f",
    "\u202e evil \u202c \u2066 isolated \u2069 \u200f marks stay \u200e",
    "lines \u2028 and \u2029 here \r\n and \r there",
    "<b onmouseover=alert(1)>bold</b> javascript:alert(1)",
    "Ünïcödé 漢字 \U0001f680 \u05e9\u05dc\u05d5\u05dd",
    "",
]


class Page(html.parser.HTMLParser):
    """A page as a tree of [tag, attributes, children]; fails where a tag is not closed as it should be."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.root = ["root", {}, []]
        self.open = [self.root]
        self.feed(text)
        self.close()
        assert [node[0] for node in self.open] == ["root"], "some tag is never closed"

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"an attribute of {tag} is there twice"
        node = [tag, dict(attrs), []]
        self.open[-1][2].append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_startendtag(self, tag, attrs):
        self.open[-1][2].append([tag, dict(attrs), []])

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        self.open[-1][2].append(data)

    def all(self, tag=None, node=None, **attributes):
        """Every element with this tag and these attributes."""
        found = []
        for child in (node or self.root)[2]:
            if not isinstance(child, str):
                fits = all(child[1].get(k.rstrip("_")) == v for k, v in attributes.items())
                found += [child] if (tag is None or child[0] == tag) and fits else []
                found += self.all(tag, child, **attributes)
        return found

    def one(self, tag=None, node=None, **attributes):
        found = self.all(tag, node, **attributes)
        assert len(found) == 1, (tag, attributes, len(found))
        return found[0]

    def text(self, node=None):
        """What people read of it: not what stands in scripts and styles."""
        node = node or self.root
        if node[0] in ("script", "style", "title"):
            return ""
        return "".join(child if isinstance(child, str) else self.text(child) for child in node[2])

    def rows(self, table):
        """The texts of a table's body."""
        body = self.one("tbody", table)
        return [[self.text(cell).strip() for cell in self.all(None, row) if cell[0] in ("td", "th")]
                for row in self.all("tr", body)]  # fmt: skip

    def data(self):
        return json.loads("".join(self.one("script", id="data")[2]))


def made(folder, queries=8, models=5, seed=0, texts=(), name=lambda m: f"model-{m}", labels=True, items=True):
    """A recorded run and its benchmark: better models have higher p(yes), scores and labels; `texts` are put in."""
    rng = np.random.default_rng(seed)
    b = random_bench(queries, models, seed)
    names = {old: name(m) for m, old in enumerate(b.models)}
    sessions = {s: f"{s}-<{s}>&'\"" if texts else s for s in b.queries}
    said = iter([*texts] * 99)
    pick = (lambda old: next(said)) if texts else (lambda old: old)
    checklists = {}
    for s, c in b.checklists.items():
        own = tuple(f"{i} {pick(x)}" if texts else x for i, x in enumerate(c.items))
        checklists[sessions[s]] = Checklist(sessions[s], own)
    asked = {
        sessions[s]: Query(sessions[s], (Message("user", pick(q.messages[0].content)),), {})
        for s, q in b.queries.items()
    }
    responses = {
        names[m]: {sessions[s]: Response(sessions[s], names[m], pick(r.text), None) for s, r in by.items()}
        for m, by in b.responses.items()
    }
    quality = {m: k / max(models - 1, 1) for k, m in enumerate(responses)}
    p, labelled, lines = {}, {}, []
    for m in responses:
        for s, c in checklists.items():
            logit = 2 * quality[m] - 1 + rng.normal(0, 1, len(c.items))
            p[s, m] = (1 / (1 + np.exp(-logit))).tolist()
            lines.append(json.dumps({"session_id": s, "model_test": m, "norm_probability": p[s, m]}))
            judged = tuple(float(x) for x in rng.random(len(c.items)) < p[s, m])
            value = round(float(np.clip(1 + 9 * np.mean(p[s, m]) + rng.normal(0, 1), 1, 10)), 1)
            labelled.setdefault(m, {})[s] = Label(s, m, "human", value, judged if items else None)
    bench = msgspec.structs.replace(
        b, name=f"bench {EVIL}" if texts else "bench", queries=asked, checklists=checklists, responses=responses,
        labels={"human": labelled} if labels else {},
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "j.jsonl").write_text("\n".join(lines))
    run = record(bench, folder / "j.jsonl", folder / "run")
    return run, restrict(bench, run)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A run, its benchmark, and its report with labels as text."""
    run, bench = made(tmp_path_factory.mktemp("plain"))
    path = write_report(run, bench, labeler="human", samples=100)
    return run, bench, path.read_text("utf-8")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """The same of a benchmark whose every text, id and name is an attack."""
    folder = tmp_path_factory.mktemp("hostile")
    run, bench = made(folder, texts=TEXTS, name=lambda m: f"model-{m} {EVIL}\u202e\0")
    ratings = {m: i for i, m in enumerate(bench.models)}
    return bench, write_report(run, bench, labeler="human", samples=20, ratings=ratings, ratings_name=EVIL)


# What stands in it.


def test_the_leaderboard_is_the_ranking(plain):
    run, bench, text = plain
    page, ranking = Page(text), run.ranking
    table = page.one("table", class_="board")
    rows = page.rows(table)
    assert len(rows) == len(bench.models) == 5
    for row, want in zip(rows, ranking["models"], strict=True):
        places = {want["rank_low"], want["rank_high"]}
        assert row[0].split(" ", 1)[0] == str(want["rank"])
        assert {int(x) for x in re.findall(r"\d+", row[0].split(" ", 1)[1])} == places
        assert row[1] == want["model"] and row[4] == want["group"]
        assert row[2] == f"{want['score']:.2f} [{want['low']:.2f}, {want['high']:.2f}]"
        assert row[5] == f"{want['wins']} / {want['ties']} / {want['losses']}"
        label = np.mean([x.score for x in bench.labels["human"][want["model"]].values()])
        assert float(row[6].split()[0]) == pytest.approx(label, abs=0.0051)
        bar = next(b for b in page.all("svg", table) if row[2] in b[1].get("aria-label", ""))
        (circle,) = page.all("circle", bar)
        (span,) = page.all("rect", bar)
        x, left, width = (float(v.rstrip("%")) for v in (circle[1]["cx"], span[1]["x"], span[1]["width"]))
        scale = axis([v for r in ranking["models"] for v in (r["low"], r["score"], r["high"])])
        ends = [scale.low + (scale.high - scale.low) * v / 100 for v in (left, x, left + width)]
        np.testing.assert_allclose(ends, [want["low"], want["score"], want["high"]], atol=0.01)
    top = page.text(page.one("p", class_="lead"))
    assert top.startswith(f"{rows[0][1]} stands first with {rows[0][2]}")
    named = {m for m in bench.models if m in top} - {rows[0][1]}
    sure = {p["b"] for p in ranking["pairs"] if p["a"] == rows[0][1] and p["p_adjusted"] < 0.05}
    assert named == set(bench.models) - sure - {rows[0][1]}


def test_the_matrix_counts_the_scores(plain):
    run, _, text = plain
    page = Page(text)
    score_of = {(r["session_id"], r["model"]): r["score"] for r in run.scores.to_pylist()}
    sessions = {s for s, _ in score_of}
    names = [r["model"] for r in run.ranking["models"]]
    for i, row in enumerate(page.rows(page.one("table", class_="matrix"))):
        assert row[0] == f"{i + 1} {names[i]}"
        for j, cell in enumerate(row[1:]):
            if i == j:
                assert cell == ""
                continue
            d = [np.sign(round(score_of[s, names[i]] - score_of[s, names[j]], 9)) for s in sessions]
            assert float(cell) == pytest.approx(100 * np.mean([(x + 1) / 2 for x in d]), abs=0.51)


def test_all_parts_are_there_and_nothing_is_from_outside(plain, hostile):
    for text in (plain[2], hostile[1].read_text("utf-8")):
        page = Page(text)
        ids = [node[1]["id"] for node in page.all() if "id" in node[1]]
        assert len(ids) == len(set(ids))
        links = [a[1]["href"] for a in page.all("a")]
        assert all(link.startswith("#") and link[1:] in ids for link in links)
        assert {s[1]["id"] for s in page.all("section")} <= {link[1:] for link in links}
        for node in page.all():
            assert not {"src", "style", "srcset", "action", "data"} & node[1].keys(), node[:2]
            assert not [k for k in node[1] if k.startswith("on")], node[:2]
            assert node[0] not in ("img", "link", "iframe", "object", "embed", "base", "form", "b onmouseover"), node[
                :2
            ]
        assert len(page.all("script")) == 2 and len(page.all("style")) == 1
        policy = page.one("meta", **{"http-equiv": "Content-Security-Policy"})[1]["content"]
        assert policy.startswith("default-src 'none';") and "unsafe" not in policy
        assert text.startswith("<!doctype html>") and page.one("html")[1]["lang"] == "en"
        for chart in page.all("svg"):
            assert chart[1].get("aria-label") if chart[1].get("role") == "img" else chart[1].get("aria-hidden")
        said = page.text()
        assert not re.search(r"\b(nan|None|inf)\b|\{\w*\}", said.replace("${window.pwned = 3}", "")), (
            "a value that is none"
        )


def test_every_text_arrives_whole_and_none_gets_out(hostile):
    bench, path = hostile
    text = path.read_bytes().decode("utf-8")
    assert not re.search("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", text)
    page = Page(text)
    raw = "".join(page.one("script", id="data")[2])
    assert not set("<>&\u2028\u2029") & set(raw)
    data = page.data()
    found = {(j["session_id"], j["model"]): j["text"] for j in data["judgments"]}
    assert found == {
        (visible(s), visible(m)): visible(r.text) for m, by in bench.responses.items() for s, r in by.items()
    }
    assert len(found) == 40 and any(t == "" for t in found.values())
    for s, q in data["queries"].items():
        session = next(x for x in bench.queries if visible(x) == s)
        assert q["turns"] == [["user", visible(bench.queries[session].messages[0].content)]]
        assert q["items"] == [visible(x) for x in bench.checklists[session].items]
    rows = page.rows(page.one("table", class_="board"))
    assert {r[1] for r in rows} == {visible(m) for m in bench.models}
    assert EVIL in page.text(page.one("h1")) and "evil.example" in page.text(page.one("section", id="items"))


def test_control_characters_are_visible_and_half_characters_replaced():
    assert visible("a\0b\u202ec\td\ne\r\nf\rg") == "a⟨U+0000⟩b⟨U+202E⟩c\td\ne\nf⟨U+000D⟩g"
    assert visible("\ud83d x \U0001f680") == "\ufffd x \U0001f680"


def test_a_megabyte_on_a_line_is_cut_in_the_open(tmp_path):
    long = "x" * 600_000 + EVIL + "y" * 400_000
    run, bench = made(tmp_path, texts=[long, *["short"] * 20])
    text = write_report(run, bench).read_text("utf-8")
    assert len(text) < 5_000_000
    page = Page(text)
    cut = [j["text"] for j in page.data()["judgments"] if isinstance(j["text"], list)]
    assert cut and all(len(a) + n + len(b) == len(long) and n == len(long) - LONGEST for a, n, b in cut)
    assert f"more than {LONGEST:,} characters" in page.text(page.one("section", id="browse"))


def test_without_benchmark_labels_and_intervals_it_says_so(tmp_path):
    run, _ = made(tmp_path)
    score(run)
    rank_models(run, samples=0)
    page = Page(write_report(run).read_text("utf-8"))
    parts = {s[1]["id"]: page.text(s) for s in page.all("section")}
    assert "No intervals were computed" in parts["leaderboard"] and "no interval" in parts["leaderboard"]
    assert "No reference was given" in parts["agreement"] and "No labels" in parts["calibration"]
    assert "none were given" in parts["heads"] and "No labels, so no agreement" in parts["items"]
    assert "there are no texts, only grades" in parts["browse"] and "No labels were given" in parts["browse"]
    assert "not known: another program graded" in parts["facts"] and "no grading process left" in parts["facts"]
    assert "Nothing was left out" in parts["left-out"]
    assert "How sure that is was not computed" in page.text(page.one("p", class_="lead"))
    data = page.data()
    assert all(j["text"] is None and j["label"] is None and j["wrong"] is None for j in data["judgments"])
    assert all(q["turns"] == q["items"] == q["weights"] == [] for q in data["queries"].values())
    table = page.one("table", id="item-table")
    assert "agreement" not in page.text(page.one("thead", table)) and "weight" not in page.text(
        page.one("thead", table)
    )


def test_figures_of_agreement_are_those_of_agree(plain):
    run, bench, text = plain
    page = Page(text)
    found = collect(run, bench, labeler="human", samples=100).references[0].agreement
    tables = [page.rows(t) for t in page.all("table", class_="figures")]
    assert [len(t) for t in tables] == [4, 8, 6]
    for rows, part in zip(tables, ("ranking", "responses", "items"), strict=True):
        values = [v for k, v in found[part].items() if k not in ("n", "reliability")]
        for row, (value, low, high) in zip(rows, values, strict=True):
            ends = f"[{number(low, 3)}, {number(high, 3)}]"
            assert row[1] == f"{number(value, 3)} {ends}"
    assert f"{found['items']['n']} single items" in page.text(page.one("section", id="agreement"))


def test_a_labeler_of_scores_only_and_models_without_ratings(tmp_path):
    run, bench = made(tmp_path, items=False)
    elo = {"model-0": 900, "model-1": 1000, "model-3": 1200, "other": 1}
    path = write_report(
        run, bench, tmp_path / "x" / "page.html", labeler="human", samples=20, ratings=elo, ratings_name="elo"
    )
    assert path == tmp_path / "x" / "page.html" and not (run.path / "report.html").exists()
    page = Page(path.read_text("utf-8"))
    parts = {s[1]["id"]: page.text(s) for s in page.all("section")}
    assert "No labels of single items by human" in parts["agreement"]
    assert "Without a rating: model-2, model-4" in parts["agreement"]
    assert "human has no labels of items" in parts["calibration"]
    assert "models without a rating in elo" in parts["left-out"]
    rows = page.rows(page.one("table", class_="board"))
    assert {r[1]: r[7] for r in rows}["model-3"] == "1,200.00 rank 1"
    assert {r[1]: r[7] for r in rows}["model-2"] == "none"


def test_ratings_with_a_model_apart_and_ends_that_are_open(plain):
    run, bench, _ = plain
    report = collect(run, bench, labeler="human", samples=10)
    ranking = json.loads(json.dumps(report.ranking)) | {
        "method": "bradley-terry", "ties": {"model": "davidson", "margin": 0.5, "games": 3},
        "separated": [{"model": "model-4", "why": "it and its like never lost to the others"}],
    }  # fmt: skip
    ranking["models"][0] |= {"score": None, "low": 1500.0, "high": None}
    for row in ranking["models"][1:]:
        row |= {key: 100 * row[key] for key in ("score", "low", "high")}
    page = Page(render(dataclasses.replace(report, ranking=ranking)))
    rows = page.rows(page.one("table", class_="board"))
    assert rows[0][2] == "apart [1,500, ∞]"
    assert rows[1][2].split()[0] == f"{100 * report.ranking['models'][1]['score']:,.0f}"
    said = page.text(page.one("section", id="leaderboard"))
    assert "no finite estimate" in said and "3 ties (scores within 0.5) count by Davidson's model" in said
    assert "stands first, apart from the others" in page.text(page.one("p", class_="lead"))
    assert "By plain mean scores the rank correlation" in page.text(page.one("p", class_="lead"))


def test_missing_grades_and_exclusions_are_counted(tmp_path):
    run, bench = made(tmp_path / "a")
    lines = (tmp_path / "a" / "j.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    first["norm_probability"][0] = None
    (tmp_path / "k.jsonl").write_text("\n".join([json.dumps(first), *lines[2:]]))
    run = record(bench, tmp_path / "k.jsonl", tmp_path / "run")
    page = Page(write_report(run, bench, labeler="human", samples=10).read_text("utf-8"))
    said = page.rows(page.one("table", class_="left-out"))
    session = json.loads(lines[1])["session_id"]
    lost = len(bench.checklists[session].items)
    assert [str(lost), "items without a grade: no judgment of the response was recorded"] in said
    assert ["1", "items without a grade: the recorded judgment has none"] in said
    assert any(n == "2" and what.startswith("responses without a score") for n, what in said)
    assert any(n == "2" and what.startswith("queries not in the ranking") for n, what in said)
    one = next(j for j in page.data()["judgments"]
               if (j["session_id"], j["model"]) == (first["session_id"], first["model_test"]))  # fmt: skip
    assert one["p"][0] is None and one["status"][0] == "missing_grade" and one["score"] is None


def test_time_tokens_and_price_are_those_of_the_sessions(tmp_path):
    run, _ = made(tmp_path)
    for n, (kind, devices) in enumerate([("cpu", 8), ("H100", 2)]):
        work = vars(Work(items=100, tokens=5_000, padded_tokens=6_250, naive_tokens=20_000, rows=4, seconds=1800.0))
        about = {"started": f"2026-01-0{n + 1}T00:00:00+00:00", "host": {"kind": kind, "devices": devices}}
        (run.path / "sessions" / f"{n}.json").write_text(json.dumps({**about, **work}))
    (run.path / "sessions" / "broken.json").write_text("{")
    page = Page(write_report(run, price=2.5).read_text("utf-8"))
    facts = page.one("section", id="facts")
    lines = dict(zip(map(page.text, page.all("dt", facts)), map(page.text, page.all("dd", facts)), strict=True))
    assert lines["price"] == "$3.75: 1.500 device hours at $2.50", "half an hour of one CPU and of two cards"
    assert lines["tokens computed"] == "10,000, 50 an item; whole prompts: 40,000 (4.0 times as many)"
    assert lines["rows"] == "8, 80% full" and lines["grading time"].startswith("60.0 min")
    assert lines["devices"] == "1 device (cpu), 2 devices (H100)" and "1 session file" in lines["not counted"]
    assert "$3.75" in page.text(page.one("ul", class_="tiles"))


@pytest.mark.slow
def test_weights_are_those_of_the_head_that_scored(tmp_path):
    run, bench = made(tmp_path)
    labels = labels_of(bench, "human")
    save_head(fit_head(run, labels, "human", folds=2), run.path / "heads" / "ridge@human")
    score(run, "ridge@human")
    page = Page(write_report(run, bench, labeler="human", samples=10).read_text("utf-8"))
    weight_QI, _ = load_head(run.path / "heads" / "ridge@human").weights()
    for q, session in enumerate(sorted(bench.checklists)):
        n = len(bench.checklists[session].items)
        own = weight_QI[q, :n] / np.abs(weight_QI[q, :n]).mean()
        np.testing.assert_allclose(page.data()["queries"][session]["weights"], own, atol=6e-4)
    assert "Weights of head ridge, fitted to human" in page.text(page.one("section", id="items"))


@pytest.mark.slow
def test_heads_are_compared_when_asked(tmp_path, monkeypatch):
    from rocketjax.report import collect as module

    rows = [{"head": h, "splits": 20, "failed": "too few" if h == "query mean" else None,
             **dict.fromkeys(("spearman", "kendall", "pairwise", "mae"), v)}
            for h, v in (("mean", [0.9, 0.8, 0.95]), ("query mean", [None] * 3))]  # fmt: skip
    monkeypatch.setattr(module, "compare", lambda *a, **k: [])
    monkeypatch.setattr(module, "as_rows", lambda found: rows)
    run, bench = made(tmp_path)
    page = Page(write_report(run, bench, labeler="human", heads=True, samples=10).read_text("utf-8"))
    part = page.one("section", id="heads")
    assert page.rows(page.one("table", part)) == [
        ["mean", *["0.900 [0.800, 0.950]"] * 4], ["query mean", *["says nothing here"] * 4]
    ]  # fmt: skip
    assert "query mean: too few" in page.text(part)


def test_the_same_input_gives_the_same_bytes(plain, tmp_path):
    run, bench, text = plain
    again = write_report(run, bench, tmp_path / "again.html", labeler="human", samples=100)
    assert again.read_text("utf-8") == text


# What is computed for it.


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 6), st.integers(0, 60), st.floats(0, 1), st.integers(0, 2**31))
def test_judgments_are_spread_evenly(queries, models, count, share, seed):
    rng = np.random.default_rng(seed)
    urgent_QM = rng.random((queries, models)) * 0.999
    there_QM = rng.random((queries, models)) < share
    found = spread(urgent_QM, there_QM, count)
    assert len(found) == len(set(found)) == min(count, there_QM.sum()) and all(there_QM[at] for at in found)
    if there_QM.all():
        by = [np.bincount([at[k] for at in found], minlength=n) for k, n in enumerate(there_QM.shape)]
        assert np.ptp(by[1]) <= 1
        if len(found) <= queries:
            assert by[0].max(initial=0) <= 1
    if found:
        first = int(np.flatnonzero(there_QM.any(axis=0))[0])
        assert found[0] == (int(np.argmax(np.where(there_QM[:, first], urgent_QM[:, first], -1))), first)


def test_wrong_is_about_places_not_points():
    rng = np.random.default_rng(0)
    score_QM, label_QM = rng.normal(size=(2, 6, 4))
    label_QM[0, 0] = np.nan
    found = apart(score_QM, label_QM)
    np.testing.assert_allclose(apart(np.exp(score_QM), 3 * label_QM + 100), found)
    np.testing.assert_allclose(apart(score_QM, np.where(np.isnan(label_QM), np.nan, score_QM)), found * 0)
    assert np.isnan(found[0, 0]) and np.nanmax(found) <= 1
    np.testing.assert_allclose(apart(np.asarray([[0.0, 1, 2]]), np.asarray([[2.0, 1, 0]])), [[1, 0, 1]])


def test_bins_have_known_intervals():
    rng = np.random.default_rng(0)
    cluster = np.repeat(np.arange(12), 5)
    label = rng.normal(size=60) + rng.normal(size=12)[cluster]
    means = label.reshape(12, 5).mean(axis=1)
    got = made_bin(label, label, cluster, 0.9, False)
    assert (got.low, got.high) == pytest.approx(student.interval(0.9, 11, means.mean(), sem(means)))
    ones = made_bin(np.ones(60), np.ones(60), cluster, 0.95, True)
    want = binomtest(12, 12).proportion_ci(0.95, "wilson")
    assert (ones.low, ones.high) == pytest.approx((want.low, want.high)), "a query counts once"
    assert made_bin(np.ones(5), np.ones(5), np.zeros(5, int), 0.95, True).low is None
    covered = 0
    for _ in range(400):
        shift = rng.normal(0, 1, 25)[np.repeat(np.arange(25), 8)]
        yes = (rng.normal(size=200) + shift > 0.5) * 1.0
        b = made_bin(yes, yes, np.repeat(np.arange(25), 8), 0.95, True)
        covered += b.low <= 0.3618 <= b.high  # P(N(0, 2) > 0.5)
    assert 0.92 <= covered / 400 <= 0.99


def test_the_band_of_risk_is_a_bootstrap_of_queries(plain):
    run, bench, _ = plain
    reference = collect(run, bench, labeler="human", samples=60).references[0]
    table = scored(run)
    labels = labels_of(bench, "human")
    wrong_QM = np.abs(table.score_QM - [[labels[m][s] for m in table.models] for s in table.sessions])
    rng = np.random.default_rng(0)
    Q = len(table.sessions)
    every = [wrong_QM[rng.integers(Q, size=Q)] for _ in range(60)]
    last = reference.curve[-1]
    assert last.coverage == 1 and last.risk == pytest.approx(wrong_QM.mean())
    assert [last.low, last.high] == pytest.approx(np.percentile([w.mean() for w in every], [2.5, 97.5]).tolist())
    rng = np.random.default_rng(0)
    half = reference.curve[9]
    risks = []
    for _ in range(60):
        rows = rng.integers(Q, size=Q)
        order = np.argsort(table.error_QM[rows].ravel(), kind="stable")
        kept = wrong_QM[rows].ravel()[order][: int(np.ceil(half.coverage * wrong_QM.size - 1e-9))]
        risks.append(kept.mean())
    # Responses of equal certainty come together here and one by one there.
    assert [half.low, half.high] == pytest.approx(np.percentile(risks, [2.5, 97.5]).tolist(), abs=0.1)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), max_size=5))
def test_axes_are_round_and_hold_everything(values):
    found = axis(values)
    assert 2 <= len(found.ticks) <= 9 and found.ticks[0] == found.low and found.ticks[-1] == found.high
    near = 1e-7 * (found.high - found.low)
    assert all(found.low - near <= v <= found.high + near for v in values)
    texts = found.texts()
    assert len(set(texts)) == len(texts) or found.high - found.low < 1e-6


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(-0.0001, 2, "0.00"), (-1.5, 1, "−1.5"), (1234567.891, 1, "1,234,567.9"), (None, 2, "not known"),
     (float("inf"), 1, "∞"), (float("-inf"), 1, "−∞"), (float("nan"), 1, "not known")],
)  # fmt: skip
def test_numbers_for_people(value, digits, text):
    assert number(value, digits) == text


# The command.


@pytest.fixture
def rocketjax(monkeypatch, capsys):
    """Runs a command line in this process: (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rocketjax", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), *capsys.readouterr()

    return run


def test_the_command_makes_what_lacks_and_prints_the_path(tmp_path, rocketjax):
    run, bench = made(tmp_path)
    code, out, err = rocketjax("report", run.path)
    assert (code, out.strip()) == (cli.DONE, str(run.path / "report.html"))
    assert "no scores yet" in err and "no ranking yet" in err and "without questions and responses" in err
    page = Page((run.path / "report.html").read_text("utf-8"))
    ranked = [r["model"] for r in json.loads((run.path / "ranking.json").read_text())["models"]]
    assert [r[1] for r in page.rows(page.one("table", class_="board"))] == ranked
    (tmp_path / "elo.csv").write_text("model,rating\n" + "".join(f"{m},{i}\n" for i, m in enumerate(bench.models)))
    code, _, err = rocketjax(
        "report", run.path, "--ratings", tmp_path / "elo.csv", "--judgments", "3", "--samples", "9"
    )
    assert code == cli.DONE and "no scores yet" not in err
    page = Page((run.path / "report.html").read_text("utf-8"))
    assert len(page.data()["judgments"]) == 3 and "Ratings: elo.csv" in page.text()
    assert "3 of 40 responses" in page.text(page.one("section", id="browse"))


def test_the_command_refuses_and_leaves_what_was_there(tmp_path, rocketjax):
    run, _ = made(tmp_path)
    (run.path / "report.html").write_text("old")
    assert rocketjax("report", run.path, "--heads")[0] == 2
    assert rocketjax("report", run.path, "--judgments", "-1")[0] == 2
    assert rocketjax("report", run.path, "--price", "-1")[0] == 2
    assert rocketjax("report", tmp_path / "none")[0] == cli.FAILED
    code, _, err = rocketjax("report", run.path, "--labels", "human")
    assert code == cli.FAILED and "--bench" in err
    code, _, err = rocketjax("report", run.path, "-o", tmp_path)
    assert code == cli.FAILED and "is a folder" in err
    run.part(0).unlink()
    code, _, err = rocketjax("report", run.path)
    assert code == cli.FAILED and "parts are graded" in err
    assert (run.path / "report.html").read_text() == "old" and not list(run.path.glob(".*"))
    code, out, _ = rocketjax("report", "--help")
    assert code == 0 and "Example: rocketjax report" in out


def test_collect_refuses_what_makes_no_sense(plain):
    run, bench, _ = plain
    with pytest.raises(RocketError, match="--bench"):
        collect(run, labeler="human")
    with pytest.raises(RocketError, match="--labels"):
        collect(run, bench, heads=True)
    with pytest.raises(RocketError, match="0 or more"):
        collect(run, bench, judgments=-1)
    with pytest.raises(RocketError, match="labelers: human"):
        collect(run, bench, labeler="nobody")


@pytest.mark.slow
def test_parity_data(shared, tmp_path):
    """Real judgments and texts: the whole of it parses, and says what the ranking says."""
    bench = load_benchmark(shared / "data" / "dev" / "mtbench")
    run = record(bench, shared / "parity" / "mtbench" / "judgment.jsonl.gz", tmp_path / "run")
    score(run)
    rank_models(run, samples=0)
    path = write_report(run, restrict(bench, run), labeler="gpt-4", samples=10)
    page = Page(path.read_text("utf-8"))
    rows = page.rows(page.one("table", class_="board"))
    assert [r[1] for r in rows] == [r["model"] for r in Run.open(run.path).ranking["models"]]
    assert len(page.data()["judgments"]) == 400 and len(page.rows(page.one("table", id="item-table"))) == 557
    assert path.stat().st_size < 3e6


# In a browser.


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    path = chromium.find()
    if path is None:
        pytest.skip(f"there is no Chromium here: none of {', '.join(chromium.NAMES)}")
    made_ = chromium.Chromium(path, tmp_path_factory.mktemp("profile"))
    yield made_
    made_.close()


def test_it_renders_at_all_sizes_and_asks_for_nothing(hostile, browser):
    address = hostile[1].as_uri()
    papers = set()
    for width in (400, 1400):
        for dark in (False, True):
            browser.open(address, width, dark=dark)
            assert browser.log == [] and browser.requests == [address]
            assert browser.run("document.documentElement.scrollWidth") <= width
            browser.run("document.querySelectorAll('details').forEach(d => { d.open = true })")
            wide = browser.run(
                "[...document.querySelectorAll('body *')].filter(e => !e.closest('.wide, .tall, nav, .hidden-text') && "
                "e.checkVisibility() && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML)"
            )
            assert wide == [] and browser.run("document.documentElement.scrollWidth") <= width
            papers.add((dark, browser.run("getComputedStyle(document.body).backgroundColor")))
            assert browser.run("window.pwned === undefined")
            assert browser.run("document.querySelectorAll('#judgments > details').length") == 20
    assert len(papers) == 2, "dark is another colour than light, at both widths"


def test_filters_and_sorting_work(plain, browser, tmp_path):
    run, bench, text = plain
    (tmp_path / "page.html").write_text(text, "utf-8")
    browser.open((tmp_path / "page.html").as_uri(), 1400)

    def enter(name, value, kind="input"):
        browser.run(f"(e => {{ e.value = {json.dumps(value)}; e.dispatchEvent(new Event('{kind}')) }})"
                    f"(document.getElementById('{name}'))")  # fmt: skip

    def visible_rows():
        return browser.run("[...document.querySelectorAll('#item-table tbody tr')].filter(r => !r.hidden)"
                           ".map(r => [...r.cells].map(c => c.textContent))")  # fmt: skip

    every = visible_rows()
    total = sum(len(c.items) for c in bench.checklists.values())
    assert len(every) == total
    enter("item-words", "ALPHA")
    found = visible_rows()
    assert 0 < len(found) < total and found == [r for r in every if "alpha" in "".join(r)]
    assert browser.run("document.getElementById('item-count').value") == f"{len(found)} of {total} items"
    enter("item-words", "")
    kinds = {r[2] for r in every}
    kind = sorted(kinds)[0]
    code = {"not known": "unknown"}.get(kind, kind)
    enter("item-verdict", code, "change")
    assert visible_rows() == [r for r in every if r[2] == kind]
    enter("item-verdict", "", "change")
    for column in (1, 4):
        for falling in (False, True):
            browser.run(f"document.querySelectorAll('#item-table th button')[{column}].click()")
            got = [r[column] for r in visible_rows()]
            key = (lambda x: x.lower()) if column == 1 else float
            assert [key(x) for x in got] == sorted((key(x) for x in got), reverse=falling)

    def cards():
        return browser.run("[...document.querySelectorAll('#judgments summary')].map(s => s.textContent)")

    model, session = bench.models[1], sorted(bench.queries)[2]
    enter("browse-model", model, "change")
    assert len(cards()) == len(bench.queries) and all(c.startswith(model) for c in cards())
    enter("browse-query", session, "change")
    assert len(cards()) == 1
    first = browser.run("document.querySelector('#judgments details').innerText")
    assert bench.responses[model][session].text in first and bench.queries[session].messages[0].content in first
    assert all(item in first for item in bench.checklists[session].items)
    assert first.count("p(yes) =") == len(bench.checklists[session].items) == first.count("label: ")
    enter("browse-model", "", "change")
    enter("browse-query", "", "change")
    assert len(cards()) == 20
    browser.run("document.getElementById('browse-more').click()")
    assert len(cards()) == 40 and browser.run("document.getElementById('browse-more').hidden")
    enter("browse-order", "high", "change")
    want = sorted((r["score"] for r in run.scores.to_pylist()), reverse=True)[:20]
    assert [float(re.search(r"score ([\d.]+)", c)[1]) for c in cards()] == pytest.approx(want, abs=0.0051)
    browser.run("document.querySelector('#item-table a[data-session]').click()")
    assert len(cards()) == len(bench.models)
    enter("browse-words", "no such words anywhere")
    assert cards() == [] and browser.run("document.getElementById('browse-count').value") == "0 of 40 responses"
    assert browser.log == []


def test_texts_are_shown_as_they_are_and_never_run(hostile, browser):
    bench, path = hostile
    browser.open(path.as_uri(), 1400)
    browser.run("document.getElementById('browse-more').click()")
    browser.run("document.querySelectorAll('#judgments details').forEach(d => { d.open = true })")
    for _ in range(50):
        if browser.run("document.querySelectorAll('#judgments details > div').length") == 40:
            break
    shown = browser.run("[...document.querySelectorAll('#judgments .response > div')].map(d => d.textContent)")
    want = [visible(r.text) or "empty" for by in bench.responses.values() for r in by.values()]
    assert sorted(shown) == sorted(want)
    assert browser.run("window.pwned === undefined") and browser.run("document.querySelectorAll('img').length") == 0
    assert browser.log == [] and browser.requests == [path.as_uri()]


def test_the_policy_forbids_the_network(plain, browser, tmp_path):
    (tmp_path / "page.html").write_text(plain[2], "utf-8")
    browser.open((tmp_path / "page.html").as_uri(), 1400)
    browser.run("document.addEventListener('securitypolicyviolation', e => { (window.stopped ||= []).push("
                "e.effectiveDirective) })")  # fmt: skip
    browser.run("document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/x.png'}))")
    browser.run("fetch('http://127.0.0.1:9/').catch(() => 0)")
    browser.run(
        "(s => { s.textContent = 'window.pwned = 1'; document.body.append(s) })(document.createElement('script'))"
    )
    for _ in range(200):
        if len(browser.run("window.stopped || []")) >= 3:
            break
    assert {"img-src", "connect-src", "script-src-elem"} <= set(browser.run("window.stopped"))
    assert browser.run("window.pwned === undefined")


def test_without_scripts_all_but_filters_and_browser_is_there(plain, browser, tmp_path):
    (tmp_path / "page.html").write_text(plain[2], "utf-8")
    browser.open((tmp_path / "page.html").as_uri(), 1400, script=False)
    seen = browser.run("document.body.innerText")
    assert "need JavaScript" in seen and all(m in seen for m in plain[1].models)
    assert browser.run("[...document.querySelectorAll('.controls')].every(c => !c.offsetParent)")
    assert browser.run("document.querySelectorAll('svg').length") > 10
    browser.call("Emulation.setScriptExecutionDisabled", value=False)
