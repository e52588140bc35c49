"""Benchmarks larger than memory: records stay in their files, and are read as they were checked or not at all."""

import gzip
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from broken import BROKEN, Broken, write_good
from fakes import random_bench, tiny_judge
from hypothesis import given, settings
from hypothesis import strategies as st

from rocketjax.bench import Benchmark, Checklist, Label, Message, Query, Response, load_benchmark, only, stored
from rocketjax.bench.stored import Content, Joined, Stored
from rocketjax.errors import RocketError
from rocketjax.grade import make_prompter, restrict
from rocketjax.grade.judge import check_lengths
from rocketjax.prompt import row_lengths

TESTS = Path(__file__).parent


@pytest.fixture
def in_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is small enough to be kept in memory, and blocks end in the middle of everything."""
    monkeypatch.setattr(stored, "HELD", 0)
    monkeypatch.setattr(stored, "BLOCK", 7)


# Any benchmark, written by another hand.


def write_bench(b: Benchmark, folder: Path, ending: str, rng: random.Random) -> None:
    """The records as files: rows in any order, escapes or none, white space that says nothing."""

    def write(name: str, rows: list[dict[str, Any]]) -> None:
        rng.shuffle(rows)
        lines = [json.dumps(row, ensure_ascii=rng.random() < 0.5) for row in rows]
        if ending.startswith(".jsonl"):
            text = rng.choice(["\n", "\r\n", "\n \n"]).join(lines) + rng.choice(["", "\n"])
        else:
            text = "[" + rng.choice([",", ",\n", " , "]).join(lines) + "]"
        data = rng.choice([b"", b"\xef\xbb\xbf"]) + text.encode()
        path = folder / (name + ending)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(data) if ending.endswith(".gz") else data)

    own = {s for s in b.checklists if rng.random() < 0.5}  # checklists in the queries
    queries = []
    for s, query in b.queries.items():
        turns = [{"role": m.role, "content": m.content} for m in query.messages]
        row: dict[str, Any] = {"session_id": s, "conversation_input": turns, "references": query.references}
        queries.append(row | ({"checklist": list(b.checklists[s].items)} if s in own else {}))
    write("queries", queries)
    written = [s for s in b.checklists if s not in own or rng.random() < 0.5]
    if written:
        write("checklist", [{"session_id": s, "checklist": list(b.checklists[s].items)} for s in written])
    for m, answers in b.responses.items():
        rows = []
        for s, answer in answers.items():
            row = {"session_id": s, "output": rng.choice([answer.text, [answer.text]])}
            if answer.history is not None:
                row["chat_history"] = [t.content for t in answer.history if t.role != "system"]
            rows.append(row)
        write(f"response/{m}", rows)
    for labeler, by_model in b.labels.items():
        for m, labels in by_model.items():
            scores = [{"session_id": s, "score": x.score} for s, x in labels.items() if x.score is not None]
            items = [{"session_id": s, "judgment": list(x.items)} for s, x in labels.items() if x.items is not None]
            if scores:
                write(f"score/{labeler}/{m}", scores)
            if items:
                write(f"gold_judgment/{labeler}/{m}", items)


WORD = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@st.composite
def benchmarks(draw: st.DrawFn) -> Benchmark:
    """Records as the reader must give them back; every session has a query with two turns before its question."""
    sessions = draw(st.lists(WORD.filter(str.strip), min_size=1, max_size=4, unique=True))
    models = draw(st.lists(st.sampled_from(["a", "b", "c-1"]), min_size=1, max_size=3, unique=True))
    queries, checklists = {}, {}
    for s in sessions:
        system = [Message("system", draw(WORD))] if draw(st.booleans()) else []
        turns = Message("user", "?" + draw(WORD)), Message("assistant", draw(WORD)), Message("user", draw(WORD))
        queries[s] = Query(s, (*system, *turns), draw(st.dictionaries(st.sampled_from("xy"), WORD, max_size=2)))
        count = draw(st.integers(1, 3))
        checklists[s] = Checklist(s, tuple(" ".join(f"{i} {draw(WORD)}".split()) for i in range(count)))
    responses: dict[str, dict[str, Response]] = {}
    labels: dict[str, dict[str, Label]] = {}
    for m in models:
        responses[m], labels[m] = {}, {}
        for s in sessions:
            *system, first, answer, _ = queries[s].messages
            other = Message("assistant", draw(WORD))
            history = (*system, first, other) if draw(st.booleans()) and other != answer else None
            responses[m][s] = Response(s, m, draw(WORD), history)
            score = draw(st.none() | st.floats(-9, 9))
            judged = draw(st.none() | st.just(tuple([1.0, None, 0.25][: len(checklists[s].items)])))
            if score is not None or judged is not None:
                labels[m][s] = Label(s, m, "who", score, judged)
    labels = {m: by for m, by in labels.items() if by}
    return Benchmark("n", "p", queries, checklists, responses, {"who": labels} if labels else {}, ())


@settings(max_examples=60, deadline=None)
@given(benchmarks(), st.sampled_from([".jsonl", ".json", ".jsonl.gz", ".json.gz"]), st.integers(0, 99))
def test_records_in_files_are_the_records(b: Benchmark, ending: str, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored, "HELD", 0)
        patch.setattr(stored, "BLOCK", seed % 23 + 1)
        write_bench(b, Path(folder), ending, random.Random(seed))
        got = load_benchmark(folder)
        assert isinstance(got.queries, Stored)
        assert (got.queries, got.checklists, got.responses) == (b.queries, b.checklists, b.responses)
        assert got.labels == b.labels
        assert (got.sha256, got.questions_sha256) == (b.sha256, b.questions_sha256)
        first = sorted(b.queries)[0]
        assert got.select(limit=1).responses == {m: {first: by[first]} for m, by in b.responses.items()}
        for m, by in b.responses.items():
            for s, answer in by.items():
                turns = b.conversation(s, m)
                assert got.conversation(s, m) == turns
                exact = sum(len(t.content.encode()) + 3 for t in turns) + len(answer.text.encode())
                assert b.most_bytes(s, m, 3) == exact <= got.most_bytes(s, m, 3)


@pytest.mark.parametrize("broken", BROKEN, ids=lambda b: b.name.replace(" ", "-"))
def test_errors_are_those_of_a_small_benchmark(broken: Broken, tmp_path: Path, in_files: None) -> None:
    path = write_good(tmp_path / "good")
    broken.mutate(path)
    with pytest.raises(RocketError) as caught:
        load_benchmark(path)
    assert re.search(broken.message, str(caught.value)), str(caught.value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored, "HELD", 1 << 20)
        patch.setattr(stored, "BLOCK", 1 << 20)
        with pytest.raises(RocketError) as other:
            load_benchmark(path)
    assert str(caught.value) == str(other.value)


@pytest.mark.parametrize("held", [0, 1 << 20])
def test_hash_is_that_of_version_1(tmp_path: Path, held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hashes were computed before records stayed in files: a run of then must resume now."""
    monkeypatch.setattr(stored, "HELD", held)
    b = load_benchmark(write_good(tmp_path / "good"))
    assert b.sha256 == "9b8c3669655e7913fe51dae29d0a0d40d5a85ed2c3595df7421838156fd8d1b9"
    assert b.questions_sha256 == "1188dc5aab669fcda4e73d0b650713d99d9f5e9f1c77ee10bebbc9283e83ff54"


# Files that change.


def rewritten(path: Path) -> None:
    """Another text of the same length in the same file, which says that it is as old as before."""
    about, data = path.stat(), path.read_bytes()
    with open(path, "r+b") as file:
        file.write(data.replace(b"Zorn", b"Horn"))
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


def cut(path: Path) -> None:
    os.truncate(path, 10)


def replaced(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes().replace(b"Zorn", b"Horn"))
    other.replace(path)


@pytest.mark.parametrize("change", [rewritten, cut, replaced, Path.unlink])
def test_a_changed_file_gives_its_old_text_or_an_error(change: Any, tmp_path: Path, in_files: None) -> None:
    b = load_benchmark(write_good(tmp_path / "good"))
    file = tmp_path / "good" / "response" / "alpha.jsonl"
    change(file)
    if change in (replaced, Path.unlink):  # as long as the file that was checked is open
        assert b.responses["alpha"]["q2"].text == "Zorn's."
        b = b.select()
        stored.opened.cache_clear()
    with pytest.raises(RocketError, match=r"alpha\.jsonl:2: has changed since the benchmark was checked"):
        b.select(["alpha"]).responses["alpha"]["q2"]
    assert b.responses["beta-7b"]["q2"].session_id == "q2"


def test_a_file_that_grows_while_it_is_read(tmp_path: Path, in_files: None, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_good(tmp_path / "good")
    add = Stored.add

    def adding(self: Stored[Any], *args: Any, **more: Any) -> None:
        add(self, *args, **more)
        if self.contents[-1].name.endswith("alpha.jsonl"):
            with open(path / "response" / "alpha.jsonl", "ab") as file:
                file.write(b"\n")

    monkeypatch.setattr(Stored, "add", adding)
    with pytest.raises(RocketError, match=r"response/alpha\.jsonl: was changed while it was read"):
        load_benchmark(path)


# Reading little, and from many threads.


def big(folder: Path, queries: int, characters: int, responders: int = 3) -> Path:
    """A benchmark with long responses, one item a query."""
    rng = random.Random(0)
    (folder / "response").mkdir(parents=True)
    texts = ["".join(rng.choices("abcdefgh ü\n", k=characters)) for _ in range(50)]
    asked = [
        {"session_id": f"q{i}", "conversation_input": [{"role": "user", "content": f"{i}?"}], "checklist": ["Is it?"]}
        for i in range(queries)
    ]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    for m in range(responders):
        with open(folder / "response" / f"m{m}.jsonl", "w") as file:
            for i in range(queries):
                text = f"{m} {i} {texts[(i + m) % 50]}"
                file.write(json.dumps({"session_id": f"q{i}", "output": [text]}, ensure_ascii=False) + "\n")
    return folder


def test_threads_read_what_one_reads(tmp_path: Path, in_files: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer files open than there are, so that they are closed under other threads' hands."""
    monkeypatch.setattr(stored, "opened", lru_cache(1)(stored.opened.__wrapped__))
    b = load_benchmark(big(tmp_path / "b", 40, 100))
    keys = [(m, s) for s in b.queries for m in b.models] * 5
    want = [b.responses[m][s] for m, s in keys]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda key: b.responses[key[0]][key[1]], keys)) == want


def test_choosing_reads_no_response(tmp_path: Path, in_files: None, monkeypatch: pytest.MonkeyPatch) -> None:
    b = load_benchmark(big(tmp_path / "b", 9, 100))
    names: list[str] = []
    read = Content.read

    def noted(self: Content, at: int, size: int) -> bytes:
        names.append(Path(self.name).parent.name)
        return read(self, at, size)

    monkeypatch.setattr(Content, "read", noted)
    some = b.select(["m0"], 5)
    assert [*some.responses["m0"]] == [*some.checklists] == [*only(b.checklists, {f"q{i}" for i in range(5)})]
    judge = tiny_judge()
    check_lengths(some, make_prompter(judge.tokenizer, judge.model.config))
    assert "response" not in names
    check_lengths(some, make_prompter(judge.tokenizer, judge.model.config, max_tokens=2100))
    assert "response" in names


def over_long(check: Any) -> bool:
    try:
        check()
    except RocketError as error:
        assert "tokens, the limit is" in str(error)
        return True
    return False


def test_over_long_prompts_are_found_as_if_all_were_encoded() -> None:
    """The byte tokenizer is the worst case: a token for every byte, so that each limit is some prompt's length."""
    b = random_bench(queries=4, models=2, words=400)
    judge = tiny_judge()
    found = []
    for limit in [*range(600, 3000, 50), 4096]:
        prompter = make_prompter(judge.tokenizer, judge.model.config, max_tokens=limit)
        want = over_long(lambda p=prompter: [p.prompts(b, s, m) for s in b.queries for m in b.models])
        assert over_long(lambda p=prompter: check_lengths(b, p)) == want
        found.append(want)
    assert {True, False} == set(found)


def test_joined_mappings() -> None:
    both = Joined({"a": 1, "b": 2}, {"c": 3, "b": 4}, lambda x, y: 10 * x + y)
    assert dict(both) == {"a": 1, "b": 24, "c": 3}
    assert (list(both), len(both), "c" in both, "d" in both) == (["a", "b", "c"], 3, True, False)
    assert dict(only(both, {"b", "c"})) == {"b": 24, "c": 3}
    with pytest.raises(KeyError):
        both["d"]


MEMORY = """
import resource, sys
from rocketjax.bench import load_benchmark

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)

load_benchmark(sys.argv[1]).sha256
before = peak()
b = load_benchmark(sys.argv[2])
b.sha256
print(peak() - before, sum(len(r.text) for by in b.select(limit=99999).responses.values() for r in by.values()))
"""


def test_memory_does_not_grow_with_the_texts(tmp_path: Path) -> None:
    small, large = big(tmp_path / "small", 2, 10), big(tmp_path / "large", 3000, 5200)
    size = sum(f.stat().st_size for f in large.rglob("*.jsonl")) / 2**20
    assert size > 48
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(small), str(large)], capture_output=True, text=True, check=True
    )
    grown, characters = map(float, done.stdout.split())
    assert characters > 3 * 3000 * 5200
    assert grown < 24  # MiB: the 8 that are kept, blocks, ids and places


# Grading.


def test_a_benchmark_in_files_gets_the_grades_of_one_in_memory(tmp_path: Path, in_files: None) -> None:
    bench = random_bench(queries=4, models=2, words=12)
    write_bench(bench, tmp_path / "bench", ".jsonl", random.Random(1))
    lying = load_benchmark(tmp_path / "bench")
    compiled: list[int] = []

    def progress(work: Any) -> None:
        compiled[:] = work.compiled

    judge = tiny_judge()
    one = judge.grade(bench, tmp_path / "one", shard_items=8)
    two = judge.grade(lying, tmp_path / "two", shard_items=8, progress=progress)
    assert [one.part(i).read_bytes() for i in one.parts()] == [two.part(i).read_bytes() for i in two.parts()]
    assert one.meta["benchmark"]["sha256"] == two.meta["benchmark"]["sha256"]
    assert 0 < len(compiled) <= len(row_lengths(two.meta["prompt"]["max_tokens"]))
    assert two.status() == {"ok": two.grades.num_rows}
    assert two.grades.select(["item", "p_yes"]).to_pydict() == {
        name: [x for part in two.each(["p_yes", "item"]) for x in part[name].to_pylist()] for name in ("item", "p_yes")
    }
    with pytest.MonkeyPatch.context() as patch:  # what was checked when the run was begun is not checked again
        patch.setattr("rocketjax.grade.judge.check_lengths", None)
        two.part(1).unlink()
        assert judge.grade(lying, two.path, shard_items=8, mode="resume").complete
        assert one.part(1).read_bytes() == two.part(1).read_bytes()
    again = restrict(lying, two)
    assert isinstance(again.queries, Stored)
    assert again.responses == bench.responses
