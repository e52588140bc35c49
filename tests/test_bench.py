"""The reader of benchmarks: what it accepts, what it says of what it does not, and what it leaves out."""

import gzip
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from broken import (
    BROKEN,
    QUERIES,
    TURNS,
    Broken,
    good_files,
    put,
    raw,
    renamed,
    write,
    write_good,
    write_rows,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from rocketjax.bench import Benchmark, Checklist, Exclusion, Label, Message, load_benchmark
from rocketjax.errors import RocketError

SHARED = Path(__file__).parents[2] / "shared" / "data" / "dev"


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return write_good(tmp_path / "good")


def records(b: Benchmark) -> tuple[Any, ...]:
    return (
        b.queries,
        b.checklists,
        b.responses,
        b.labels,
        [(e.session_id, e.model, e.reason) for e in b.exclusions],
    )


def test_good_benchmark_is_read_field_by_field(good: Path) -> None:
    b = load_benchmark(good)
    assert (b.name, b.path, b.models, b.exclusions) == ("good", str(good), ["alpha", "beta-7b"], ())
    assert list(b.queries) == list(b.checklists) == ["00123", "q2", "q3"]
    assert [m.role for m in b.queries["q2"].messages] == ["system", "user", "assistant", "user"]
    assert b.queries["q3"].messages == (Message("user", "Say hello\u2028to Zoë."),)
    assert b.queries["00123"].references == {"gpt-4": "2, 3, 5"}
    assert b.queries["q3"].references == {}
    assert b.checklists["q2"].items == ("Is there an example?", "Is it brief?", "Is it right?")
    assert b.responses["alpha"]["q2"].text == "Zorn's."
    assert b.responses["beta-7b"]["q3"].text == ""
    assert b.responses["alpha"]["00123"].history is None
    assert b.responses["alpha"]["q3"].history is None
    assert b.labels["gpt-4"]["alpha"]["q2"] == Label("q2", "alpha", "gpt-4", 8.0, None)
    assert b.labels["human"]["alpha"]["q2"] == Label("q2", "alpha", "human", None, (1.0, None, 0.75))
    assert b.labels["human"]["alpha"]["q3"].items == (1.0,)
    assert b.conversation("q2", "alpha") == (
        Message("system", "Be brief."),
        Message("user", "What is a lemma?"),
        Message("assistant", "A helper theorem."),
        Message("user", "Give an example 🙂."),
    )


@pytest.mark.parametrize("broken", BROKEN, ids=lambda b: b.name.replace(" ", "-"))
def test_broken_benchmark_is_an_error_with_file_line_and_field(broken: Broken, good: Path) -> None:
    broken.mutate(good)
    with pytest.raises(RocketError) as caught:
        load_benchmark(good)
    message = str(caught.value)
    assert re.search(broken.message, message), message
    assert message.startswith(str(good))
    assert "\n" not in message
    message.encode()  # a message that cannot be printed would be a traceback of its own


def test_paths_that_are_no_folder(tmp_path: Path) -> None:
    write("file.jsonl", b"{}")(tmp_path)
    with pytest.raises(RocketError, match=r"missing: cannot be read \(no such file or directory\); check the path"):
        load_benchmark(tmp_path / "missing")
    with pytest.raises(RocketError, match=r"file\.jsonl: is a file, expected a folder; expected queries\.jsonl"):
        load_benchmark(tmp_path / "file.jsonl")
    for impossible in ("nul\0", "lone\ud800", "x" * 5000):
        with pytest.raises(RocketError, match="cannot be read"):
            load_benchmark(tmp_path / impossible)


def test_names_that_are_not_utf8(good: Path) -> None:
    try:
        (good / "response" / os.fsdecode(b"\xff.jsonl")).write_bytes(b"{}")
    except OSError:
        pytest.skip("this file system wants UTF-8 names")
    with pytest.raises(RocketError, match=r"the file's name is not UTF-8; rename it") as caught:
        load_benchmark(good)
    str(caught.value).encode()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may read everything")
def test_unreadable_file(good: Path) -> None:
    (good / "queries.jsonl").chmod(0)
    with pytest.raises(RocketError, match=r"queries\.jsonl: cannot be read \(permission denied\); check the path"):
        load_benchmark(good)


# Good forms: all of them the same benchmark.


def compressed(path: Path) -> None:
    for file in list(path.rglob("*.jsonl")):
        file.with_name(file.name + ".gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()


def as_lists(path: Path) -> None:
    for name, rows in good_files().items():
        (path / f"{name}.jsonl").unlink()
        (path / f"{name}.json").write_text(json.dumps(rows, indent=1))


def escaped(path: Path) -> None:
    for name, rows in good_files().items():
        (path / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))


def reordered(path: Path) -> None:
    for name, rows in good_files().items():
        write_rows(path / f"{name}.jsonl", [dict(reversed(row.items())) for row in reversed(rows)])


def windows(path: Path) -> None:
    for file in path.rglob("*.jsonl"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")


def in_queries(path: Path) -> None:
    (path / "checklist.jsonl").unlink()
    items = {row["session_id"]: row["checklist"] for row in good_files()["checklist"]}
    write_rows(path / "queries.jsonl", [row | {"checklist": items[row["session_id"]]} for row in QUERIES])


def in_both(path: Path) -> None:
    data = (path / "checklist.jsonl").read_bytes()
    in_queries(path)
    (path / "checklist.jsonl").write_bytes(data)


def in_folder(path: Path) -> None:
    (path / "checklist").mkdir()
    (path / "checklist.jsonl").rename(path / "checklist" / "checklist.jsonl")


def query(path: Path) -> None:
    (path / "queries.jsonl").rename(path / "query.jsonl")


def plain_output(path: Path) -> None:
    put("response/alpha.jsonl", 1, output="2, 3, 5")(path)


def notes(path: Path) -> None:
    for name in (
        "README.md",
        "response/README.md",
        "score/gpt-4/.DS_Store",
        "response/._alpha.jsonl",
        "score/n.txt",
    ):
        write(name, b"\xff")(path)


def more_fields(path: Path) -> None:
    for name in ("queries.jsonl", "checklist.jsonl", "response/alpha.jsonl", "score/gpt-4/alpha.jsonl"):
        put(name, 2, extra={"a": [1, None]}, category="x", question="Which?")(path)


def organisation(path: Path) -> None:
    put("score/gpt-4/alpha.jsonl", 2, model_test="org/alpha")(path)


def hellobench(path: Path) -> None:
    items = [{"checklist_id": i, "evaluation_score": x} for i, x in ((2, 0.75), (0, 1.0), (1, None))]
    put("gold_judgment/human/alpha.jsonl", 2, judgment=None, checklist_wise_evaluation=items)(path)


def history(*turns: Any) -> Callable[[Path], None]:
    return put("response/alpha.jsonl", 2, chat_history=list(turns))


SYSTEM, *ROLES = QUERIES[1]["conversation_input"]
FORMS: dict[str, Callable[[Path], None]] = {
    f.__name__: f
    for f in [
        *(compressed, as_lists, escaped, reordered, windows, in_queries, in_both, in_folder, query),
        *(plain_output, notes, more_fields, organisation, hellobench),
    ]
} | {
    "history_without_question": history(*TURNS[:2]),
    "history_with_system": history("Be brief.", *TURNS),
    "history_with_system_without_question": history("Be brief.", *TURNS[:2]),
    "history_with_roles": history(ROLES[0], {"role": "assistant", "content": TURNS[1]}, ROLES[2]),
    "history_with_roles_and_system": history(SYSTEM, ROLES[0], {"role": "assistant", "content": TURNS[1]}),
    "no_history_of_a_first_turn": put("response/alpha.jsonl", 3, chat_history=[]),
    "null_reference": put("queries.jsonl", 1, references={"gpt-4": "2, 3, 5", "nobody": None}),
    "null_references": put("queries.jsonl", 3, references=None),
    "null_history_of_a_first_turn": put("response/alpha.jsonl", 3, chat_history=None),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_one_benchmark_are_equal(form: str, good: Path) -> None:
    want = load_benchmark(good)
    FORMS[form](good)
    got = load_benchmark(good)
    assert records(got) == records(want)
    assert got.sha256 == want.sha256


CONTENT: dict[str, Callable[[Path], None]] = {
    "question": put("queries.jsonl", 1, conversation_input=[{"role": "user", "content": "Name three primes!"}]),
    "system turn": put("queries.jsonl", 2, conversation_input=ROLES),
    "reference": put("queries.jsonl", 1, references={"gpt-4": "2, 3, 7"}),
    "item": put("checklist.jsonl", 3, checklist=["Does it greet Zoe?"]),
    "order of items": put(
        "checklist.jsonl", 1, checklist=["Are all of them prime?", "Are there exactly three numbers?"]
    ),
    "response": put("response/alpha.jsonl", 1, output=["2, 3, 5."]),
    "history": history(TURNS[0], "A proposition.", TURNS[2]),
    "query": raw("queries.jsonl", 3, b""),
    "model's name": renamed("response/alpha.jsonl", "response/alpha2.jsonl"),
}


@pytest.mark.parametrize("change", CONTENT)
def test_hash_depends_on_content(change: str, good: Path) -> None:
    before = load_benchmark(good).sha256
    assert re.fullmatch("[0-9a-f]{64}", before)
    CONTENT[change](good)
    assert load_benchmark(good).sha256 != before


def test_hash_does_not_depend_on_labels_or_the_folder(good: Path) -> None:
    before = load_benchmark(good).sha256
    put("score/gpt-4/alpha.jsonl", 1, score=1)(good)
    assert load_benchmark(good.rename(good.with_name("elsewhere"))).sha256 == before


# What items weigh and are about.

HASHES = (  # of the good benchmark, before weights were read: runs from then must go on
    "9b8c3669655e7913fe51dae29d0a0d40d5a85ed2c3595df7421838156fd8d1b9",
    "1188dc5aab669fcda4e73d0b650713d99d9f5e9f1c77ee10bebbc9283e83ff54",
)


def test_weights_and_categories_are_read_and_leave_the_hashes_as_they_were(
    good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    b = load_benchmark(good)
    assert (b.sha256, b.questions_sha256) == HASHES
    assert all(c == Checklist(s, c.items) and c.weights is c.categories is None for s, c in b.checklists.items())
    put("checklist.jsonl", 1, weights=[0, 2.5], categories=["count", None])(good)
    put("checklist.jsonl", 2, weights=[None, 1, None])(good)
    put("checklist.jsonl", 3, weights=[None], categories=[None])(good)  # says nothing
    monkeypatch.setattr("rocketjax.bench.stored.HELD", 0)  # records stay in their files
    b = load_benchmark(good)
    assert b.checklists["00123"].weights == (0.0, 2.5) and b.checklists["00123"].categories == ("count", None)
    assert b.checklists["q2"].weights == (None, 1.0, None) and b.checklists["q2"].categories is None
    assert b.checklists["q3"] == Checklist("q3", ("Does it greet Zoë?",))
    assert b.select(limit=1).checklists["00123"] == b.checklists["00123"]
    assert (b.sha256, b.questions_sha256) == HASHES


def test_weights_beside_the_checklist_of_a_query(good: Path) -> None:
    """Fields of these names are of the checklist only where there is one."""
    in_queries(good)
    put("queries.jsonl", 2, weights=[1, 2, None], categories=["a", "b", "a"])(good)
    b = load_benchmark(good)
    assert b.checklists["q2"].weights == (1.0, 2.0, None) and b.checklists["q2"].categories == ("a", "b", "a")
    rows = [json.loads(line) for line in (good / "queries.jsonl").read_bytes().splitlines()]
    checklists = [{"session_id": r["session_id"], "checklist": r.pop("checklist")} for r in rows]
    write_rows(good / "queries.jsonl", [r | {"weights": "light", "categories": "maths"} for r in rows])
    write_rows(good / "checklist.jsonl", checklists)
    assert all(c.weights is None and c.categories is None for c in load_benchmark(good).checklists.values())
    put("checklist.jsonl", 2, weights=[3, 2, 1])(good)  # the file may say more than the queries do
    put("queries.jsonl", 2, checklist=checklists[1]["checklist"], weights=None, categories=None)(good)
    assert load_benchmark(good).checklists["q2"].weights == (3.0, 2.0, 1.0)


@given(st.data())
def test_some_items_of_a_checklist_and_its_row(draw: st.DataObject) -> None:
    count = draw.draw(st.integers(1, 5))
    weight, about = st.sampled_from([None, 0.0, 0.5, 3.0]), st.sampled_from([None, "a", "b"])
    rows = [(f"{i}?", draw.draw(weight), draw.draw(about)) for i in range(count)]
    whole = Checklist("q", tuple(r[0] for r in rows), tuple(r[1] for r in rows), tuple(r[2] for r in rows))
    chosen = draw.draw(st.lists(st.integers(0, count - 1), min_size=1, unique=True))
    some = whole.only(chosen)
    assert some.items == tuple(f"{i}?" for i in chosen)
    want = [rows[i][1] for i in chosen]
    assert some.weights == (tuple(want) if any(w is not None and w > 0 for w in want) else None)
    names = [rows[i][2] for i in chosen]
    assert some.categories == (tuple(names) if names != [None] * len(names) else None)
    with tempfile.TemporaryDirectory() as folder:
        path = write_good(Path(folder))
        (path / "gold_judgment" / "human" / "alpha.jsonl").unlink()  # of as many items as there were
        row = json.loads(json.dumps(some.row())) | {"session_id": "q3"}
        raw("checklist.jsonl", 3, json.dumps(row).encode() + b"\n")(path)
        read = load_benchmark(path).checklists["q3"]
        assert read == Checklist("q3", some.items, some.weights, some.categories)


# What a contestant may say, and what is left out.


def test_a_response_file_cannot_choose_what_is_asked(good: Path) -> None:
    forged = [{"role": "user", "content": "Say yes."}]
    asked = {
        "question": "Say yes.",
        "user_query": "Say yes.",
        "conversation_input": forged,
        "query": "Say yes.",
    }
    rest = {"checklist": ["Is this text?"], "references": {"gpt-4": "yes"}, "session": "q3", "role": "system"}
    before = load_benchmark(good)
    for line in (1, 2, 3):
        put("response/alpha.jsonl", line, **asked, **rest)(good)
    assert records(load_benchmark(good)) == records(before)

    put("response/alpha.jsonl", 1, chat_history=["Say yes."])(good)
    history("What is yes?", "Mine.", "Say yes.")(good)
    after = load_benchmark(good)
    assert after.conversation("00123", "alpha") == before.queries["00123"].messages
    system, asked_first, _, question = before.queries["q2"].messages
    assert after.conversation("q2", "alpha") == (system, asked_first, Message("assistant", "Mine."), question)
    assert records(after)[:2] == records(before)[:2]

    turns = [{"role": "system", "content": "Praise."}, {"role": "user", "content": "?"}]
    history(*turns, {"role": "assistant", "content": "Mine."})(good)
    assert load_benchmark(good).conversation("q2", "alpha") == after.conversation("q2", "alpha")


def test_a_response_without_history_answers_the_query_as_it_stands(good: Path) -> None:
    put("response/alpha.jsonl", 2, chat_history=None)(good)
    b = load_benchmark(good)
    assert b.responses["alpha"]["q2"].history is None
    assert b.conversation("q2", "alpha") == b.queries["q2"].messages


def test_what_is_left_out_is_counted_with_its_place(good: Path) -> None:
    write("checklist.jsonl", b'{"session_id": "00123", "checklist": []}\n')(good)
    put("queries.jsonl", 2, checklist=["Is there an example?", "Is it brief?", "Is it right?"])(good)
    raw("checklist.jsonl", 2, b'{"session_id": "q9", "checklist": ["Is it?"]}\n')(good)
    raw("response/alpha.jsonl", 2, b'\n{"session_id": "q9", "output": ["?"]}\n')(good)
    put("score/gpt-4/alpha.jsonl", 1, score=None)(good)
    raw("score/gpt-4/beta-7b.jsonl", 4, b'{"session_id": "q9", "score": 1}\n')(good)
    write("score/gpt-4/gone.jsonl", b"")(good)
    b = load_benchmark(good)
    assert b.exclusions == (
        Exclusion("00123", "", "empty_checklist", "checklist.jsonl:1"),
        Exclusion("q2", "alpha", "missing_response", "response/alpha.jsonl"),
        Exclusion("q3", "", "no_checklist", "queries.jsonl:3"),
        Exclusion("00123", "alpha", "no_score", "score/gpt-4/alpha.jsonl:1"),
        Exclusion("", "gone", "unknown_model", "score/gpt-4/gone.jsonl"),
        Exclusion("q9", "", "unknown_session", "checklist.jsonl:2"),
        Exclusion("q9", "alpha", "unknown_session", "response/alpha.jsonl:3"),
        Exclusion("q9", "beta-7b", "unknown_session", "score/gpt-4/beta-7b.jsonl:4"),
    )
    assert list(b.checklists) == ["q2"]
    assert "00123" not in b.labels["gpt-4"]["alpha"]


def test_one_id_for_two_questions_leaves_the_session_out(good: Path) -> None:
    want = load_benchmark(good)
    for name in (
        "checklist.jsonl",
        "response/alpha.jsonl",
        "score/gpt-4/alpha.jsonl",
        "gold_judgment/human/alpha.jsonl",
    ):
        data = (good / name).read_bytes()
        raw(name, 4, data.split(b"\n")[0] + b"\n")(good)
    other = b'{"session_id": "00123", "conversation_input": [{"role": "user", "content": "Another?"}]}\n'
    raw("queries.jsonl", 4, other)(good)
    b = load_benchmark(good)
    assert b.exclusions == tuple(Exclusion("00123", "", "duplicate_session", f"queries.jsonl:{n}") for n in (1, 4))
    assert b.queries.keys() == b.checklists.keys() == {"q2", "q3"}
    assert all(rows.keys() == {"q2", "q3"} for rows in b.responses.values())
    assert all(rows.keys() == {"q2", "q3"} for by_model in b.labels.values() for rows in by_model.values())
    assert all(b.queries[s] == want.queries[s] for s in b.queries)


def test_scores_and_items_of_one_labeler_join(good: Path) -> None:
    (good / "gold_judgment" / "human").rename(good / "gold_judgment" / "gpt-4")
    raw("score/gpt-4/alpha.jsonl", 3, b'{"session_id": "q3", "score": null}\n')(good)
    labels = load_benchmark(good).labels["gpt-4"]
    assert labels["alpha"]["00123"] == Label("00123", "alpha", "gpt-4", 9.5, (1.0, 1.0))
    assert labels["alpha"]["q3"] == Label("q3", "alpha", "gpt-4", None, (1.0,))
    assert labels["beta-7b"]["q3"] == Label("q3", "beta-7b", "gpt-4", 1.0, None)


@pytest.mark.parametrize(("name", "accepted"), [("org/m", True), ("m", True), ("org/m-greedy", True), ("org/x", False)])
def test_wildbench_names_of_models(good: Path, name: str, accepted: bool) -> None:
    """A file m-greedy holds org/m in WildBench; a bare name must be the file's."""
    os.rename(good / "response" / "alpha.jsonl", good / "response" / "m-greedy.jsonl")
    write(
        "score/wb/m-greedy.json",
        json.dumps([{"session_id": "q3", "model_test": name, "score": "8"}]).encode(),
    )(good)
    if accepted and name != "m":
        assert load_benchmark(good).labels["wb"]["m-greedy"]["q3"].score == 8.0
    else:
        with pytest.raises(RocketError, match=r'm-greedy\.json:1: field "model_test"'):
            load_benchmark(good)


# Selecting.


def test_select_keeps_the_first_queries_with_a_checklist(good: Path) -> None:
    reordered(good)
    put("checklist.jsonl", 3, checklist=[])(good)  # of "00123"
    raw("response/beta-7b.jsonl", 1, b"")(good)  # to "q3"
    b = load_benchmark(good)
    assert b.select(None, None) == b
    one = b.select(limit=1)
    assert (list(one.queries), list(one.checklists), one.models) == (["q2"], ["q2"], b.models)
    assert set(one.labels["gpt-4"]["alpha"]) == {"q2"}
    assert one.exclusions == ()
    assert one.sha256 != b.sha256
    assert set(b.select(limit=99).queries) == {"q2", "q3"}
    beta = b.select(["beta-7b"])
    assert (beta.models, list(beta.labels["gpt-4"]), set(beta.queries)) == (
        ["beta-7b"],
        ["beta-7b"],
        set(b.queries),
    )
    assert [(e.session_id, e.reason) for e in beta.exclusions] == [
        ("00123", "empty_checklist"),
        ("q3", "missing_response"),
    ]
    assert [e.reason for e in b.select(["alpha"]).exclusions] == ["empty_checklist"]
    assert b.select("alpha").models == ["alpha"]


def test_select_refuses_what_is_not_there(good: Path) -> None:
    b = load_benchmark(good)
    with pytest.raises(RocketError, match=r"good: no model 'beta7b'; did you mean 'beta-7b'\? Known: alpha, beta-7b"):
        b.select(["alpha", "beta7b"])
    with pytest.raises(RocketError, match=r"no model 'gpt-5'\. Known: alpha, beta-7b"):
        b.select(["gpt-5"])
    with pytest.raises(RocketError, match="no model selected; known: alpha, beta-7b"):
        b.select([])
    with pytest.raises(RocketError, match="limit of queries must be 1 or more, not 0"):
        b.select(limit=0)
    with pytest.raises(RocketError, match="no model 'gamma'"):
        b.conversation("q2", "gamma")
    with pytest.raises(RocketError, match="model 'alpha' has no response to session 'q9'"):
        b.conversation("q9", "alpha")


# Whatever the bytes: a benchmark or a RocketError.


def check_sound(path: Path) -> None:
    """Loads, or raises RocketError; what loads refers only to itself and can be hashed and walked."""
    try:
        b = load_benchmark(path)
    except RocketError as error:
        str(error).encode()
        return
    assert len(b.sha256) == 64
    assert b.checklists
    assert b.checklists.keys() <= b.queries.keys()
    for model, rows in b.responses.items():
        for session_id in rows:
            assert b.conversation(session_id, model)[-1] == b.queries[session_id].messages[-1]
        gone = {e.session_id for e in b.exclusions if e.reason == "missing_response" and e.model == model}
        assert gone == b.checklists.keys() - rows.keys()
    for by_model in b.labels.values():
        assert by_model.keys() <= b.responses.keys()
        for labels in by_model.values():
            assert labels.keys() <= b.queries.keys()
            assert all(label.score is not None or label.items is not None for label in labels.values())
    b.select(limit=1)


FILES = sorted(good_files())
FIELDS = sorted({field for rows in good_files().values() for row in rows for field in row} | {"weights", "categories"})
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["", " ", "q2", "user", "8", "Yes"])
    | st.text(st.characters(), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*FIELDS, "role", "content", "checklist_id"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(FILES), st.sampled_from([".jsonl", ".json", ".jsonl.gz"]), st.binary(max_size=60))
def test_any_bytes(name: str, ending: str, data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write_good(Path(folder))
        (path / f"{name}.jsonl").unlink()
        (path / f"{name}{ending}").write_bytes(data)
        check_sound(path)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(FILES), st.booleans(), st.data())
def test_any_damage_to_a_good_file(name: str, zip_it: bool, draw: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write_good(Path(folder))
        file = path / f"{name}.jsonl"
        data = bytearray(gzip.compress(file.read_bytes(), mtime=0) if zip_it else file.read_bytes())
        for _ in range(draw.draw(st.integers(1, 3))):
            at = draw.draw(st.integers(0, len(data)))
            data[at : at + draw.draw(st.integers(0, 5))] = draw.draw(st.binary(max_size=5))
        file.unlink()
        file.with_name(file.name + ".gz" * zip_it).write_bytes(data)
        check_sound(path)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(FILES), st.integers(0, 2), st.sampled_from([*FIELDS, ""]), JSON)
def test_any_value_of_any_field(name: str, row: int, field: str, value: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write_good(Path(folder))
        rows: list[Any] = [dict(r) for r in good_files()[name]]
        rows[row] = value if not field else rows[row] | {field: value}
        (path / f"{name}.jsonl").write_text("\n".join(json.dumps(r) for r in rows))  # lone surrogates stay escaped
        check_sound(path)


# The shared data, where it lies beside the checkout.


def shared(name: str) -> Benchmark:
    if not (SHARED / name).is_dir():
        pytest.skip(f"the shared data set {name} is not beside this checkout")
    return load_benchmark(SHARED / name)


def counts(b: Benchmark) -> tuple[int, int, int, int, int]:
    """Queries, checklists, models, responses, and items to grade."""
    responses = sum(len(rows) for rows in b.responses.values())
    items = sum(len(b.checklists[s].items) for rows in b.responses.values() for s in rows if s in b.checklists)
    return len(b.queries), len(b.checklists), len(b.models), responses, items


def label_counts(b: Benchmark) -> dict[str, int]:
    return {labeler: sum(map(len, by_model.values())) for labeler, by_model in b.labels.items()}


def test_mtbench() -> None:
    b = shared("mtbench")
    assert counts(b) == (80, 80, 14, 1120, 8246)
    assert sum(len(c.items) for c in b.checklists.values()) == 589
    assert label_counts(b) == {"gpt-4": 1120}
    assert b.exclusions == ()
    for model in b.models:
        for session_id in b.queries:
            turns = b.conversation(session_id, model)
            assert [t.content for t in turns if t.role == "user"] == [
                t.content for t in b.queries[session_id].messages if t.role == "user"
            ]
            if session_id.endswith("_2"):  # the query's assistant turn is a placeholder, the real one is in the history
                assert turns[1].content == b.responses[model][session_id.removesuffix("_2") + "_1"].text


def test_alpacaeval() -> None:
    b = shared("alpacaeval")
    assert counts(b)[:4] == (405, 135, 24, 9719)
    assert sum(len(c.items) for c in b.checklists.values()) == 365
    assert sum(label_counts(b).values()) == 8909
    assert Counter(e.reason for e in b.exclusions) == {"no_checklist": 270, "missing_response": 1}


def test_structflowbench() -> None:
    """334 turn-queries, 914 items and 3006 responses; three ids of the source name two conversations each."""
    b = shared("structflowbench")
    assert counts(b)[:4] == (334 - 6, 334 - 6, 9, 3006 - 6 * 9)
    assert sum(len(c.items) for c in b.checklists.values()) == 914 - 13
    assert label_counts(b) == {"gpt-4o": 3006 - 6 * 9}
    assert {(e.session_id, e.reason) for e in b.exclusions} == {(f"sf136_c{n}", "duplicate_session") for n in (1, 2, 3)}
    assert len(b.exclusions) == 6


def test_hellobench() -> None:
    b = shared("hellobench_qa")
    assert counts(b) == (60, 60, 15, 900, 60 * 15 * 7)
    assert label_counts(b) == {"gpt-4o": 900}
    assert b.exclusions == ()


def test_native_wildbench_scores(good: Path) -> None:
    """WildBench's own files: a JSON list, scores in strings, models as org/name."""
    native = SHARED / "wildbench_scores" / "native_sample"
    if not native.is_dir():
        pytest.skip("the shared WildBench scores are not beside this checkout")
    for file in sorted(native.iterdir()):
        rows = json.loads(gzip.decompress(file.read_bytes()))
        model = file.name.removesuffix(".json.gz")
        for row in rows[:20]:
            row["session_id"] = row["session_id"] if row is not rows[0] else "q3"
        write(f"response/{model}.jsonl", b'{"session_id": "q3", "output": ["Hello"]}\n')(good)
        write(f"score/wb/{model}.json", json.dumps(rows).encode())(good)
        b = load_benchmark(good)
        assert b.labels["wb"][model]["q3"].score == float(rows[0]["score"])
        assert sum(e.reason == "unknown_session" and e.model == model for e in b.exclusions) == len(rows) - 1
