"""Other tools' files in and out: one's own tables, logs and folders, exports, and what comes back of them."""

import csv
import gzip
import hashlib
import io
import itertools
import json
import sys
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rocketjax import cli
from rocketjax.bench import Benchmark, Match, import_benchmark, import_table, load_benchmark, read_matches
from rocketjax.bench.importers import GENERIC_ITEM
from rocketjax.bench.importers.columns import read_table
from rocketjax.bench.importers.source import Source
from rocketjax.errors import RocketError
from rocketjax.grade import Run, record
from rocketjax.rank import read_ratings
from rocketjax.report import FORMATS, export, ratings
from rocketjax.report.leaderboards import question_of
from rocketjax.reweight import score

ROWS = [
    {"question": "Name a prime.", "answer": "7", "model": "a"},
    {"question": "Name a prime.", "answer": "Eight, or\nnine.", "model": "b"},
    {"question": 'Say "hi", Zoë.', "answer": 'He said "hi", Zoë', "model": "a"},
    {"question": 'Say "hi", Zoë.', "answer": "hi", "model": "b"},
]


def put(root: Path, files: dict[str, Any]) -> Path:
    """Writes files: .jsonl and .csv from rows, .json from a value, others from text; .gz compressed."""
    for name, content in files.items():
        path, plain = root / name, name.removesuffix(".gz")
        path.parent.mkdir(parents=True, exist_ok=True)
        if plain.endswith(".jsonl"):
            text = "".join(json.dumps(row) + "\n" for row in content)
        elif plain.endswith(".json"):
            text = json.dumps(content, indent=1)
        elif plain.endswith((".csv", ".tsv")) and not isinstance(content, str):
            out = io.StringIO()
            writer = csv.DictWriter(out, list(content[0]), delimiter="\t" if plain.endswith(".tsv") else ",")
            writer.writeheader()
            writer.writerows(content)
            text = out.getvalue()
        else:
            text = content
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return root


@pytest.fixture
def rocketjax(monkeypatch, capsys):
    """Runs a command line in this process: (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rocketjax", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), *capsys.readouterr()

    return run


# One's own answers.


def test_a_csv_and_a_checklist_are_a_benchmark(tmp_path, rocketjax):
    put(tmp_path, {"answers.csv": ROWS, "items.txt": "Is it a prime?\n\n  Is it short?\n"})
    code, out, err = rocketjax(
        "import", "table", tmp_path / "answers.csv", tmp_path / "out", "--checklist", tmp_path / "items.txt"
    )
    assert (code, out) == (cli.DONE, ""), err
    assert "2 queries with 4 items, 4 responses of 2 responders" in err and "left out" not in err
    b = load_benchmark(tmp_path / "out")
    ids = {hashlib.sha256(r["question"].encode()).hexdigest()[:16]: r["question"] for r in ROWS}
    assert {s: q.messages[0].content for s, q in b.queries.items()} == ids
    assert all(c.items == ("Is it a prime?", "Is it short?") for c in b.checklists.values())
    said = {(m, ids[s]): r.text for m, by in b.responses.items() for s, r in by.items()}
    assert said == {(r["model"], r["question"]): r["answer"] for r in ROWS}
    manifest = json.loads((tmp_path / "out" / "import.json").read_text())
    assert list(manifest["checklist"]) == ["items.txt"] and str(tmp_path) not in json.dumps(manifest)


def test_every_format_and_form_is_the_same_benchmark(tmp_path):
    question = {r["question"]: ["Is it right?", "Is it short?"] for r in ROWS}
    files = {
        "a.csv": ROWS,
        "a.csv.gz": ROWS,
        "b.tsv": ROWS,
        "c.jsonl": ROWS,
        "d.json": ROWS,
        "own.csv": [r | {"items": "Is it right?\nIs it short?" if r["model"] == "a" else ""} for r in ROWS],
        "own.jsonl": [r | {"items": question[r["question"]]} for r in ROWS],
        "checks.csv": [{"question": f" {q} ", "item": x} for q, items in question.items() for x in items],
        "checks.jsonl": [{"question": q, "items": items} for q, items in question.items()],
        "listed.csv": [{"question": q, "checklist": json.dumps(items)} for q, items in question.items()],
        "sessions.jsonl": [
            {"session_id": hashlib.sha256(q.encode()).hexdigest()[:16], "checklist": items}
            for q, items in question.items()
        ],
        "all.csv": [{"item": "Is it right?"}, {"item": "Is it short?"}],
    }
    put(tmp_path, files)
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "e.parquet")
    pairs = [(name, "checks.csv") for name in ("a.csv", "a.csv.gz", "b.tsv", "c.jsonl", "d.json", "e.parquet")]
    pairs += [("a.csv", name) for name in ("checks.jsonl", "listed.csv", "sessions.jsonl", "all.csv")]
    pairs += [("own.csv", "items"), ("own.jsonl", "items")]
    hashes = set()
    for i, (table, checklist) in enumerate(pairs):
        column = checklist == "items"
        out = tmp_path / f"out-{i}"
        imported = import_table(tmp_path / table, out, checklist=checklist if column else tmp_path / checklist)
        assert (imported.sessions, imported.responses, imported.items, imported.left_out) == (2, 4, 4, {})
        hashes.add(load_benchmark(out).sha256)
    assert len(hashes) == 1


def test_table_with_scores_sessions_and_references(tmp_path):
    rows = [
        {"q": "Why?", "said": "So.", "who": "org/m", "id": 7, "points": 4, "best": "Because."},
        {"q": "Why?", "said": "", "who": "n", "id": 7, "points": "2.5", "best": None},
        {"q": "Why?", "said": None, "who": "o", "id": 7, "points": 1, "best": None},
        {"q": "Who?", "said": "Me.", "who": "n", "id": 8, "points": None, "best": None},
        {"q": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where?"}],
         "said": "x" * 200_000, "who": "n", "id": "009", "points": 0, "best": ""},
    ]  # fmt: skip
    names = {"question": "q", "response": "said", "model": "who", "session": "id", "score": "points"}
    put(tmp_path, {"a.jsonl": rows})
    imported = import_table(tmp_path / "a.jsonl", tmp_path / "out", **names, labeler="me", reference="best")
    b = load_benchmark(tmp_path / "out")
    assert set(b.queries) == {"7", "8", "009"} and b.models == ["n", "org_m"]
    assert b.queries["7"].references == {"reference": "Because."}
    assert [m.role for m in b.queries["009"].messages] == ["system", "user"]
    labels = {(m, s): x.score for m, by in b.labels["me"].items() for s, x in by.items()}
    assert labels == {("org_m", "7"): 4.0, ("n", "7"): 2.5, ("n", "009"): 0.0}
    assert b.responses["n"]["7"].text == "", "an empty text is an answer"
    assert imported.left_out == {"no_response": 1, "no_score": 1}
    assert {c.items for c in b.checklists.values()} == {(GENERIC_ITEM,)}
    # A cell of a CSV file that holds nothing is no answer; one may be longer than the csv module's limit.
    flat = [{k: "" if v is None else v for k, v in row.items()} for row in rows[:4]]
    flat.append({"q": "Where?", "said": "x" * 200_000, "who": "n", "id": "009", "points": "", "best": ""})
    put(tmp_path, {"a.csv": flat})
    imported = import_table(tmp_path / "a.csv", tmp_path / "csv", **names, labeler="me")
    assert imported.left_out == {"no_response": 2, "no_score": 2}
    assert len(load_benchmark(tmp_path / "csv").responses["n"]["009"].text) == 200_000


def test_nan_is_nothing(tmp_path):
    """What json.dumps and pandas write where something is missing is no JSON, but everywhere."""
    rows = [
        {"question": "Why?", "answer": "NaN and Infinity", "model": "a", "points": float("nan")},
        {"question": "Why?", "answer": float("nan"), "model": "b", "points": 3},
        {"question": "Why?", "answer": "So.", "model": "c", "points": 2},
    ]
    imported = import_table(put(tmp_path, {"a.jsonl": rows}) / "a.jsonl", tmp_path / "out", score="points")
    assert imported.left_out == {"no_response": 1, "no_score": 1} and imported.scores == 1
    (said,) = load_benchmark(tmp_path / "out").responses["a"].values()
    assert said.text == "NaN and Infinity"
    put(tmp_path, {"b.jsonl": [rows[2] | {"points": float("inf")}]})
    with pytest.raises(RocketError, match=r'row 1 \(line 1\), column "points": is inf, not a finite number'):
        import_table(tmp_path / "b.jsonl", tmp_path / "no", score="points")
    (tmp_path / "c.jsonl").write_text('{"question": "\\ud83d", "answer": NaN, "model": "a"}\n')
    with pytest.raises(RocketError, match=r"c\.jsonl:1: not valid JSON .* half a character"):
        import_table(tmp_path / "c.jsonl", tmp_path / "no")


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("c.csv", [{"item": "Is it prime?", "weight": "3", "category": "truth"},
                   {"item": "Is it one?", "weight": "", "category": ""},
                   {"item": "Is it odd?", "weight": "0.5", "category": "form"}]),
        ("c.jsonl", [{"items": ["Is it prime?", " ", "Is it one?", "Is it prime?", "Is it odd?"],
                      "weights": [3, 9, None, 9, 0.5], "categories": ["truth", "blank", None, "again", "form"]}]),
        ("d.csv", [{"items": "Is it prime?\nIs it one?\nIs it odd?", "weights": "[3, null, 0.5]",
                    "categories": '["truth", null, "form"]'}]),
    ],
)  # fmt: skip
def test_weights_and_categories_come_with_a_checklist(tmp_path, name, rows):
    put(tmp_path, {"a.csv": ROWS, name: rows})
    import_table(tmp_path / "a.csv", tmp_path / "out", checklist=tmp_path / name)
    for checklist in load_benchmark(tmp_path / "out").checklists.values():
        assert checklist.items == ("Is it prime?", "Is it one?", "Is it odd?")
        assert checklist.weights == (3, None, 0.5) and checklist.categories == ("truth", None, "form")


def test_one_weight_and_category_may_be_said_of_all_items(tmp_path):
    rows = [{"items": ["Is it prime?", "Is it odd?"], "weight": 2, "category": "truth"},
            {"items": ["Is it one?"], "weight": float("nan"), "category": float("nan")}]  # fmt: skip
    put(tmp_path, {"a.csv": ROWS, "c.jsonl": rows})
    import_table(tmp_path / "a.csv", tmp_path / "out", checklist=tmp_path / "c.jsonl")
    for checklist in load_benchmark(tmp_path / "out").checklists.values():
        assert checklist.weights == (2, 2, None) and checklist.categories == ("truth", "truth", None)


def test_questions_without_a_checklist_are_counted_or_have_the_item(tmp_path):
    put(tmp_path, {"a.csv": ROWS, "c.jsonl": [
        {"question": "Name a prime.", "items": ["Is it prime?", " ", "Is it prime?"]},
        {"question": "Never asked.", "items": ["Is it?"]},
    ]})  # fmt: skip
    imported = import_table(tmp_path / "a.csv", tmp_path / "one", checklist=tmp_path / "c.jsonl")
    assert imported.sessions == 1 and imported.responses == 2
    assert imported.left_out == {"blank_item": 1, "duplicate_item": 1, "no_checklist": 1, "unused_checklist": 1}
    imported = import_table(tmp_path / "a.csv", tmp_path / "two", checklist=tmp_path / "c.jsonl", item="Is it good?")
    assert imported.sessions == 2 and "no_checklist" not in imported.left_out
    assert {c.items for c in load_benchmark(tmp_path / "two").checklists.values()} == {
        ("Is it prime?",), ("Is it good?",)
    }  # fmt: skip


@pytest.mark.parametrize("separator", [",", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_csv_is_read_as_the_csv_module_reads_it(separator, end, tmp_path):
    """Random cells of the characters that matter; beside it, "" is a text and nothing is none."""
    rng, file = np.random.default_rng(0), tmp_path / ("t.csv" if separator == "," else "t.tsv")
    ends = "\r\n" if end == "\r\n" else end  # the writer may leave an end of line unquoted that is not its own

    def cell() -> str:
        return "".join(rng.choice(list('ab,\t" é' + ends), rng.integers(0, 6)))

    for n in range(30):
        out = io.StringIO(newline="")
        style = csv.QUOTE_ALL if n % 2 else csv.QUOTE_MINIMAL
        writer = csv.writer(out, delimiter=separator, lineterminator=end, quoting=style)
        writer.writerows([["x", "y", "z"], *([cell() for _ in range(3)] for _ in range(5))])
        file.write_bytes(out.getvalue().encode())
        table = read_table(Source(file), file)
        theirs = list(csv.reader(io.StringIO(out.getvalue(), newline=""), delimiter=separator))
        ours = [table.columns, *([row.value[c] or "" for c in table.columns] for row in table.rows)]
        blank = [[[x if x.strip() else "" for x in row] for row in rows] for rows in (ours, theirs)]
        assert blank[0] == blank[1] and len(ours) == 6
        if len(end) == 1:
            assert table.rows[-1].at.line == out.getvalue().count(end)
    file.write_bytes(separator.join(["x", "y", "z"]).encode() + b"\n" + separator.join(['""', "", " "]).encode())
    assert read_table(Source(file), file).rows[0].value == {"x": "", "y": None, "z": None}


def test_numbers_and_names_of_other_tools(tmp_path):
    rows = [(f"m{i}", x) for i, x in enumerate((".5", "5.", "+1e2", "-0.25"))]
    text = "question,answer,model,notes.txt\n" + "".join(f"Why?,So.,{m},{x}\n" for m, x in rows)
    imported = import_table(put(tmp_path, {"t.csv": text}) / "t.csv", tmp_path / "out", score="notes.txt")
    labels = load_benchmark(tmp_path / "out").labels
    assert list(labels) == ["notes_txt"], "the reader takes notes.txt for notes"
    assert [labels["notes_txt"][m]["5d8a995a6fa7cf7c"].score for m, _ in rows] == [0.5, 5, 100, -0.25]
    assert imported.scores == 4
    cells = {"question": ["q"], "answer": ["a"], "model": ["m"], "s": pa.array([Decimal("1.5")])}
    pq.write_table(pa.table(cells), tmp_path / "t.parquet")
    import_table(tmp_path / "t.parquet", tmp_path / "decimal", score="s")
    ((label,),) = (by.values() for by in load_benchmark(tmp_path / "decimal").labels["s"].values())
    assert label.score == 1.5
    broken = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")])
    pq.write_table(pa.table(cells | {"answer": broken}), tmp_path / "b.parquet")
    with pytest.raises(RocketError, match=r'b\.parquet: column "answer" cannot be read \('):
        import_table(tmp_path / "b.parquet", tmp_path / "no")


CSV = "question,answer,model\nWhy?,So.,a\n"
BAD = [
    ({"t.csv": "Question,answer,model\nWhy?,So.,a\n"}, {},
     r't\.csv: has no column "question"; the closest is "Question": --question \'Question\' takes it\. Columns: Q'),
    ({"t.csv": "question,Antwort,model\nWhy?,So.,a\n"}, {}, r'no column "response"; the closest is .*--response'),
    ({"t.csv": CSV}, {"score": "grade"}, r'no column "grade"; the closest is'),
    ({"t.csv": "question;answer;model\nWhy?;So.;a\n"}, {}, r'only "question;answer;model": is it separated by'),
    ({"t.csv": CSV + 'Who?,"Me,\nI.",b\nWhere?,Here,\n'}, {},
     r't\.csv: row 3 \(line 5\), column "model": is blank; every row needs one'),
    ({"t.csv": CSV + "Who?,Me, I,b\n"}, {}, r"row 2 \(line 3\): has 4 cells, the header has 3; put a cell"),
    ({"t.csv": CSV + 'Who?,"Me" I,b\n'}, {}, r"t\.csv:3: a cell has text after the closing quote; put"),
    ({"t.csv": CSV + 'Who?,"Me,b\n'}, {}, r"t\.csv:3: a cell opens a quote and never closes it"),
    ({"t.csv": "question,answer,model\n"}, {}, r"has a header and no rows"),
    ({"t.csv": ""}, {}, r"t\.csv: has no rows"),
    ({"t.csv": "model,model,answer\na,b,c\n"}, {}, r'has two columns "model"; rename'),
    ({"t.csv": "question,answer,model,x\nWhy?,So.,a,high\n"}, {"score": "x"},
     r'row 1 \(line 2\), column "x": is \'high\', not a number; write a number, or nothing'),
    ({"t.jsonl": [{"question": 5, "answer": "So.", "model": "a"}]}, {}, r'row 1 \(line 1\), column "question": is 5'),
    ({"t.jsonl": [{"question": "?", "answer": "So.", "model": 1.5}]}, {}, r'column "model": is 1\.5, not text; write'),
    ({"t.jsonl": [{"question": [{"role": "user"}], "answer": "So.", "model": "a"}]}, {}, r"holds the turn .*a conv"),
    ({"t.jsonl": [{"question": "?", "answer": "So.", "model": "a", "s": True}]}, {"score": "s"}, r"is True, not a fin"),
    ({"t.jsonl": ["text"]}, {}, r"t\.jsonl:1: expected object, got str; one JSON object per line"),
    ({"t.jsonl": [{}]}, {}, r"t\.jsonl: has no columns"),
    ({"t.xlsx": "PK"}, {}, r"t\.xlsx: is named none of \.csv, \.tsv, \.jsonl, \.json, \.parquet; rename"),
    ({"t.parquet": "PK"}, {}, r"t\.parquet: cannot be read as parquet \("),
    ({"t.csv": CSV}, {"checklist": "itms"}, r"itms: no such file, and .*t\.csv has no column of that name; its c"),
    ({"t.csv": "question,answer,model,c\nWhy?,So.,a,One?\nWhy?,No.,b,Two?\n"}, {"checklist": "c"},
     r'row 2 \(line 3\), column "c": is another checklist for the question than in row 1'),
    ({"t.csv": CSV}, {"labeler": "me"}, r"a labeler is named without a column of scores"),
    ({"t.csv": f"question,answer,model\nWhy?,So.,{'m' * 300}\n"}, {}, r"m'\.\.\. has 300 bytes, a file's may have 249"),
    ({"t.csv": "question,answer,model\n,So.,a\n"}, {}, r"t\.csv: nothing to import; left out: 1 empty_query"),
]  # fmt: skip


@pytest.mark.parametrize(("files", "options", "message"), BAD)
def test_a_bad_table_is_one_error_with_its_place(files, options, message, tmp_path):
    put(tmp_path / "in", files)
    with pytest.raises(RocketError, match=message) as caught:
        import_table(tmp_path / "in" / next(iter(files)), tmp_path / "out", **options)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


@pytest.mark.parametrize(("files", "message"), [
    ({"c.csv": "question,note\nWhy?,x\n"}, r'c\.csv: has no column "items", "item" or "checklist"; its columns are q'),
    ({"c.csv": "session,item\ns1,Is it?\n,Is it not?\n"}, r'row 2 \(line 3\), column "session": is blank; say whose'),
    ({"c.jsonl": [{"question": "Why?", "items": [1]}]}, r'row 1 \(line 1\), column "items": is a list with something'),
    ({"c.jsonl": [{"question": "Why?", "items": 1}]}, r'column "items": is 1, not text'),
    ({"c.txt": " \n\n"}, r"c\.txt: has no items; write one yes/no question per line"),
    ({"c.csv": "question,items\nWhy?,\n"}, r'c\.csv: column "items" has no items'),
    ({"c.jsonl": [{"items": ["A?", "B?"], "weights": [1]}]}, r'1\), column "weights": has 1 entries for 2 items'),
    ({"c.jsonl": [{"items": ["A?"], "weights": [-1]}]}, r'1\), column "weights": has -1;'),
    ({"c.csv": "item,weight\nA?,1\nB?,much\n"}, r"row 2 \(line 3\), column \"weight\": is 'much', not a number"),
    ({"c.jsonl": [{"items": ["A?"], "category": ["a", "b"]}]}, r'column "category": has 2 entries for 1 items'),
    ({"c.csv": "item,weight\nA?,0\nB?,0\n"}, r'field "weights": has no weight above 0'),
])  # fmt: skip
def test_a_bad_checklist_is_one_error_with_its_place(files, message, tmp_path):
    put(tmp_path / "in", files | {"t.csv": CSV})
    with pytest.raises(RocketError, match=message):
        import_table(tmp_path / "in" / "t.csv", tmp_path / "out", checklist=tmp_path / "in" / next(iter(files)))
    assert not (tmp_path / "out").exists()


def test_table_options_on_the_command_line(tmp_path, rocketjax):
    put(tmp_path, {"t.csv": "q,a,m,s,points\nWhy?,So.,x,s1,3\n"})
    columns = ("--question", "q", "--response", "a", "--model", "m", "--session", "s", "--score", "points")
    code, out, err = rocketjax("import", "table", tmp_path / "t.csv", tmp_path / "out", *columns, "--json")
    assert code == cli.DONE and json.loads(out)["scores"] == 1, err
    assert load_benchmark(tmp_path / "out").labels["points"]["x"]["s1"].score == 3
    code, out, err = rocketjax("import", "table", tmp_path / "t.csv", tmp_path / "no")
    assert code == cli.FAILED and "--question" in err and len(err.strip().splitlines()) == 1
    with pytest.raises(RocketError, match=r"no importer for 'table' \(import_table, in Python\)"):
        import_benchmark("table", tmp_path / "t.csv", tmp_path / "no")


# Other tools' folders.


def said(question_id: Any, *turns: Any) -> dict[str, Any]:
    return {"question_id": question_id, "choices": [{"index": 0, "turns": list(turns)}]}


def judged(question_id: Any, turn: int, grade: float, model: str = "m1") -> dict[str, Any]:
    row = {"question_id": question_id, "model": model, "judge": ["j", "single-v1"], "user_prompt": "", "judgment": ""}
    return row | {"turn": turn, "score": grade, "tstamp": 1.5}


def test_fastchat(tmp_path):
    files = {
        "question.jsonl": [
            {"question_id": "one", "category": "c", "turns": ["Write."]},
            {"question_id": "two", "category": "c", "turns": ["Write.", "Rewrite."]},
            {"question_id": 81, "category": "c", "turns": ["Draw."]},
        ],
        "model_answer/m1.jsonl": [said("one", "A."), said("two", "B.", "C."), said(81, "D.")],
        "model_judgment/j_single.jsonl": [
            judged("one", 1, 4), judged("one", 2, 9), judged("two", 2, 5), judged("two_1", 1, 6), judged(81, 1, 7),
        ],
    }  # fmt: skip
    imported = import_benchmark("fastchat", put(tmp_path / "in", files), tmp_path / "out")
    b = load_benchmark(tmp_path / "out")
    assert {s: x.score for s, x in b.labels["j"]["m1"].items()} == {"one": 4, "two_2": 5, "two_1": 6, "mt81_1": 7}
    assert [m.content for m in b.conversation("two_2", "m1")] == ["Write.", "B.", "Rewrite."]
    assert imported.left_out == {"unknown_session": 1}
    (tmp_path / "in" / "model_judgment" / "j_single.jsonl").unlink()
    put(tmp_path, {"items.csv": "session_id,items\none,Is it?\nmt81_1,Was it?\n"})
    imported = import_benchmark(
        "fastchat", tmp_path / "in", tmp_path / "unjudged", checklist=tmp_path / "items.csv", item="Is it all?"
    )
    items = {s: c.items for s, c in load_benchmark(tmp_path / "unjudged").checklists.items()}
    assert items == {"one": ("Is it?",), "mt81_1": ("Was it?",), "two_1": ("Is it all?",), "two_2": ("Is it all?",)}
    assert imported.scores == 0 and not imported.left_out
    with pytest.raises(RocketError, match=r"lacks model_judgment/<judge>_single"):
        import_benchmark("mtbench", tmp_path / "in", tmp_path / "no")


def paired(question_id: Any, turn: int, one: str, two: str, first: str, second: str) -> dict[str, Any]:
    row = {"question_id": question_id, "model_1": one, "model_2": two, "g1_winner": first, "g2_winner": second}
    return row | {"judge": ["j", "pair-v2"], "g1_judgment": "", "g2_judgment": "", "turn": turn, "tstamp": 1.5}


def test_fastchats_comparisons(tmp_path):
    person = {"question_id": 81, "model_a": "a", "model_b": "b", "turn": 2, "conversation_a": [{"role": "user"}]}
    files = {
        "question.jsonl": [{"question_id": 81, "category": "c", "turns": ["Write.", "Rewrite."]}],
        **{f"model_answer/{m}.jsonl": [said(81, f"{m}1", f"{m}2")] for m in "abc"},
        "model_judgment/j_pair.jsonl": [
            paired(81, 1, "a", "b", "model_2", "model_2"),  # judged again below
            paired(81, 1, "a", "b", "model_1", "model_1"),
            paired(81, 1, "a", "c", "model_1", "model_2"),  # by the order only: a tie
            paired(81, 1, "b", "c", "tie", "tie"),
            paired(81, 2, "b", "c", "model_2", "model_2"),
            paired(81, 2, "a", "c", "error", "model_2"),
            paired(81, 1, "a", "d", "tie", "tie"),
            paired(99, 1, "a", "b", "tie", "tie"),
        ],
        "model_judgment/human_judgments.json": [
            person | {"judge": "expert_1", "winner": "model_a"},
            person | {"judge": "expert_2", "winner": "model_b"},
            person | {"judge": "expert_2", "winner": "model_a", "model_a": "c"},
            person | {"judge": "author_0", "winner": "tie"},
        ],
        "model_judgment/j_single.jsonl": [judged(81, 1, 7, "a")],
    }  # fmt: skip
    imported = import_benchmark("mtbench", put(tmp_path / "in", files), tmp_path / "out")
    b = load_benchmark(tmp_path / "out")
    found = {x: {(m, s): y.score for m, by in b.labels[x].items() for s, y in by.items()} for x in b.labels}
    assert found == {
        "j": {("a", "mt81_1"): 7},
        "j_pair": {("a", "mt81_1"): 0.75, ("b", "mt81_1"): 0.25, ("c", "mt81_1"): 0.5,
                   ("b", "mt81_2"): 0, ("c", "mt81_2"): 1},
        "human": {("a", "mt81_2"): 0.5, ("b", "mt81_2"): pytest.approx(1 / 3), ("c", "mt81_2"): 1},
        "author": {("a", "mt81_2"): 0.5, ("b", "mt81_2"): 0.5},
    }  # fmt: skip
    assert imported.left_out == {"earlier_grade": 1, "no_score": 1, "unknown_model": 1, "unknown_session": 1}
    (tmp_path / "in" / "model_judgment" / "j_single.jsonl").unlink()
    assert import_benchmark("mtbench", tmp_path / "in", tmp_path / "pairs").scores == imported.scores - 1
    put(tmp_path / "in", {"model_judgment/j_pair.jsonl": [paired(81, 1, "a", "b", "A", "A")]})
    with pytest.raises(RocketError, match=r'j_pair\.jsonl:1: field "g1_winner": is \'A\'; it is one of model_1'):
        import_benchmark("fastchat", tmp_path / "in", tmp_path / "no")


def test_one_answer_of_several_choices_is_counted(tmp_path):
    two = {"question_id": 1, "choices": [{"index": 0, "turns": ["A."]}, {"index": 1, "turns": ["B."]}]}
    files = {"question.jsonl": [{"question_id": 1, "turns": ["Write."]}], "model_answer/m.jsonl": [two]}
    imported = import_benchmark("fastchat", put(tmp_path / "in", files), tmp_path / "out")
    assert imported.left_out == {"more_choices": 1} and imported.responses == 1


def talk(*texts: Any) -> list[dict[str, Any]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def vote(a: str, b: str, winner: Any, first: Any, second: Any, **more: Any) -> dict[str, Any]:
    row = {"question_id": "q1", "model_a": a, "model_b": b, "winner": winner, "judge": "arena_user_7"}
    row |= {"conversation_a": first, "conversation_b": second, "turn": len(first) // 2, "anony": True}
    return row | {"language": "English", "tstamp": 1.5} | more


def parts(*texts: Any) -> list[dict[str, Any]]:
    """Turns as the newer sets have them."""
    said = talk(*texts)
    return [turn | {"content": [{"type": "text", "text": turn["content"], "image": None}]} for turn in said]


def test_arena_votes(tmp_path):
    one, two = talk("Why?", "So."), talk("Why?", "Thus.")
    mt = {"question_id": 81, "turn": 1}
    long = [talk("Draw.", f"{m}1", "Again.", f"{m}2") for m in "abc"]
    rows = [
        vote("a", "b", "model_b", one, two),
        vote("a", "b", "model_b", one, two),  # the same vote
        vote("a", "b", "tie (bothbad)", one, two, judge="arena_user_8"),
        vote("a", "b", "model_a", long[0], long[1], question_id="q2"),
        *(vote(a, b, w, long["abc".index(a)], long["abc".index(b)], **mt, judge=j) for a, b, w, j in (
            ("a", "b", "model_a", "expert_1"), ("b", "c", "tie", "expert_2"), ("c", "a", "model_a", "author_0"),
            ("a", "b", "tie (inconsistent)", ["gpt-4", "pair-v2"]))),
        vote("a", "c", "model_b", parts("Who?", "Me."), parts("Who?", "I."), question_id=None, judge=None, tstamp=None),
        vote("a", "a", "tie", one, two), vote("a", "c", None, one, two), vote("a", "c", "tie", one, two, anony=False),
        vote("a", "c", "tie", one, talk("How?", "So."), question_id="q3"),
        vote("a", "c", "tie", one, [{"role": "assistant", "content": "Hi."}, *two], question_id="q4"),
        vote("a", "c", "tie", one, [{"role": "user", "content": [{"type": "image", "image": "x"}]}], question_id="q5"),
        vote("a", "c", "tie", one, talk("Why?", None), question_id="q6"),
    ]  # fmt: skip
    put(tmp_path, {"v.jsonl": rows, "in/v.csv": [
        row | {k: json.dumps(row[k]) for k in ("conversation_a", "conversation_b") if row[k]}
        | {"judge": row["judge"] if isinstance(row["judge"], str | None) else "gpt-4_pair"} for row in rows
    ]})  # fmt: skip
    imported = import_benchmark("arena", tmp_path / "v.jsonl", tmp_path / "out")
    b = load_benchmark(tmp_path / "out")
    who = hashlib.sha256(b"Who?").hexdigest()[:16]
    assert set(b.queries) == {"q1", "q2_2", "mt81_1", who, "q6"}
    found = {x: {(m, s): y.score for m, by in b.labels[x].items() for s, y in by.items()} for x in b.labels}
    assert found == {
        "human": {("a", "q1"): 0.25, ("b", "q1"): 0.75, ("a", "q2_2"): 1, ("b", "q2_2"): 0, ("a", "mt81_1"): 1,
                  ("b", "mt81_1"): 0.25, ("c", "mt81_1"): 0.5, ("a", who): 0, ("c", who): 1},
        "author": {("c", "mt81_1"): 1, ("a", "mt81_1"): 0},
        "gpt-4_pair": {("a", "mt81_1"): 0.5, ("b", "mt81_1"): 0.5},
    }  # fmt: skip
    assert [m.content for m in b.conversation("q2_2", "b")] == ["Draw.", "b1", "Again."]
    assert (b.responses["b"]["q2_2"].text, b.responses["b"]["mt81_1"].text) == ("b2", "b1")
    assert imported.left_out == {
        "duplicate_vote": 1, "no_response": 1, "no_vote": 1, "not_anonymous": 1, "not_text": 1, "other_question": 1,
        "same_model": 1, "unclear_roles": 1,
    }  # fmt: skip
    assert import_benchmark("arena", tmp_path / "in", tmp_path / "csv") == imported
    assert load_benchmark(tmp_path / "csv").sha256 == b.sha256
    plain = [row for row in rows if row["question_id"] == "q1"]
    pq.write_table(pa.Table.from_pylist(plain), tmp_path / "v.parquet")
    assert import_benchmark("arena", tmp_path / "v.parquet", tmp_path / "parquet").scores == 2


def test_arena_votes_with_lists_of_texts(tmp_path):
    def row(n: int, prompt: Any, first: Any, second: Any, *marks: int) -> dict[str, Any]:
        texts = {"prompt": prompt, "response_a": first, "response_b": second}
        names = ("winner_model_a", "winner_model_b", "winner_tie")
        return {"id": n, "model_a": "a", "model_b": "b"} | texts | dict(zip(names, marks, strict=True))

    rows = [
        row(30192, '["Why?","More?"]', '["So.","S\u00f6."]', '["Thus.","[x]"]', 0, 1, 0),
        row(7, '["Who?"]', '["Me.\\ud83d"]', '["I."]', 1, 0, 0),
        row(8, "[Where?]", "[Here]", "There", 0, 0, 1),
        row(9, '["Who?"]', "[null]", '["I."]', 0, 0, 1),
    ]
    imported = import_benchmark("arena", put(tmp_path, {"train.csv": rows}) / "train.csv", tmp_path / "out")
    b = load_benchmark(tmp_path / "out")
    assert imported.left_out == {"no_response": 1, "not_text": 1}
    assert [b.labels["human"][m]["30192"].score for m in "ab"] == [0, 1] and b.responses["a"][
        "30192"
    ].text == "S\u00f6."
    assert [m.content for m in b.conversation("30192", "b")] == ["Why?", "Thus.", "More?"]
    assert b.queries["8"].messages[-1].content == "[Where?]" and b.responses["a"]["8"].text == "[Here]"
    assert [b.labels["human"][m]["8"].score for m in "ab"] == [0.5, 0.5]


@pytest.mark.parametrize(("rows", "message"), [
    ([vote("a", "b", "A", talk("?", "!"), talk("?", "."))], r'row 1 .*column "winner": is \'A\'; it is one of mod'),
    ([vote("a", "b", "tie", talk("?", "!"), talk("?", "."), turn=2)], r'"turn": is 2, and the conversation has 1'),
    ([vote("a", "b", "tie", "text", talk("?", "."))], r'column "conversation_a": is no list in JSON'),
    ([vote("a", "b", "tie", [{"role": "bot"}], talk("?", "."))], r'column "conversation_a": is no list of turns'),
    ([{"model": "a", "answer": "!"}], r"v\.jsonl: is no table of votes, which has the columns model_a, model_b and"),
    ([{"model_a": "a", "model_b": "b", "winner": "tie"}],
     r"v\.jsonl: holds matches without conversation_a .*`rocketjax import matches` makes ratings"),
    ([{"model_a": "a", "model_b": "b", "winner_model_a": 1, "winner_model_b": 1, "winner_tie": 0, "prompt": "?",
       "response_a": "!", "response_b": "."}], r'column "winner_model_a": and the other two are \[1\.0, 1\.0, 0\.0\]'),
    ([{"model_a": "a", "model_b": "b", "winner": "tie", "prompt": '["?","?"]', "response_a": '["!"]',
       "response_b": '["."]'}], r'column "response_a": has 1 answers to 2 prompts'),
])  # fmt: skip
def test_broken_votes(rows, message, tmp_path):
    with pytest.raises(RocketError, match=message):
        import_benchmark("arena", put(tmp_path / "in", {"v.jsonl": rows}) / "v.jsonl", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_matches_become_ratings(tmp_path, rocketjax):
    """Against the closed form of two players, and a public fit of many."""
    three = [Match("a", "b", 1.0)] * 3 + [Match("b", "a", 1.0), Match("c", "a", 0.5), Match("d", "a", 0.0)]
    found = ratings(three)
    # Odds of 3 are 400 log10(3) points; c tied with a, and d only lost.
    assert found["a"]["rating"] - found["b"]["rating"] == pytest.approx(400 * np.log10(3))
    assert found["c"]["rating"] == pytest.approx(found["a"]["rating"]) and found["d"]["rating"] is None
    assert [found[m]["num_battles"] for m in "abcd"] == [6, 4, 1, 1] and list(found)[-1] == "d"
    assert np.mean([row["rating"] for m, row in found.items() if m != "d"]) == pytest.approx(1000)
    with pytest.raises(RocketError, match="give no rating: no two of them have each lost"):
        ratings([Match("a", "b", 1.0)] * 9)

    rng, names = np.random.default_rng(3), [f"m{i}" for i in range(6)]
    rows = []
    for _ in range(800):
        a, b = rng.choice(6, 2, replace=False)
        odds = 1 / (1 + np.exp(0.4 * (b - a)))
        winner = rng.choice(["model_a", "model_b", "tie"], p=[0.8 * odds, 0.8 * (1 - odds), 0.2])
        rows.append({"model_a": names[a], "model_b": names[b], "winner": winner, "anony": True, "tstamp": 0.5})
    put(tmp_path, {"battles.json": [*rows, {"model_a": "m0", "model_b": "m1", "winner": None}], "v.txt": ""})
    code, _, err = rocketjax("import", "matches", tmp_path / "battles.json", tmp_path / "r" / "ratings.json")
    assert code == cli.DONE and "ratings of 6 models from 800 matches" in err and "left out: 1 no vote" in err
    known = read_ratings(tmp_path / "r" / "ratings.json")
    assert read_matches(tmp_path / "battles.json")[1] == {"no_vote": 1}
    code, _, err = rocketjax("import", "matches", tmp_path / "battles.json", tmp_path / "r" / "ratings.json")
    assert code == cli.FAILED and "is there already" in err
    code, _, err = rocketjax("import", "matches", tmp_path / "battles.json", tmp_path / "x.json", "--item", "Is it?")
    assert code == 2
    evalica = pytest.importorskip("evalica")
    name = {"model_a": evalica.Winner.X, "model_b": evalica.Winner.Y, "tie": evalica.Winner.Draw}
    fit = evalica.bradley_terry(
        *zip(*((x["model_a"], x["model_b"], name[x["winner"]]) for x in rows), strict=True)
    ).scores
    logs = 400 * np.log10([fit[m] for m in names])
    assert [known[m] for m in names] == pytest.approx(1000 + logs - logs.mean(), abs=0.5)


def test_arena_hard_in_both_layouts(tmp_path):
    asked, answers = {"u1": "Why?", "u2": "Who?"}, {"base": ("So.", "Me."), "m": ("Thus.", "I.")}
    games = {  # of m, as baseline (A) against response (B), then sides changed
        "u1": ("B>>A", "A>B"),  # all four votes for the response
        "u2": ("A=B", "B>>A"),  # half a vote of four
    }
    old: dict[str, Any] = {
        "question.jsonl": [{"question_id": u, "cluster": "c", "turns": [{"content": q}]} for u, q in asked.items()]
    }
    new: dict[str, Any] = {
        "question.jsonl": [{"uid": u, "category": "hard_prompt", "prompt": q} for u, q in asked.items()]
    }
    for model, texts in answers.items():
        pairs = list(zip(asked, texts, strict=True))
        old[f"model_answer/{model}.jsonl"] = [
            said(u, {"content": x, "token_len": 1}) | {"model_id": model} for u, x in pairs
        ]
        new[f"model_answer/{model}.jsonl"] = [
            {"uid": u, "model": model, "messages": [
                {"role": "user", "content": asked[u]}, {"role": "assistant", "content": {"answer": x}}]}
            for u, x in pairs
        ]  # fmt: skip
    both = {"model_judgment/judge/m.jsonl": [
        {"model": "m", "judge": "judge", "games": [{"score": g, "judgment": ""} for g in two]} for two in games.values()
    ]}  # fmt: skip
    for files, key in ((old, "question_id"), (new, "uid")):
        rows = [row | {key: u} for u, row in zip(asked, both["model_judgment/judge/m.jsonl"], strict=True)]
        files["model_judgment/judge/m.jsonl"] = [*rows, rows[0] | {key: "u9"}]
    new["model_judgment/judge/m.jsonl"][0]["baseline"] = "base"
    new["model_judgment/judge/m.jsonl"].append({"uid": "u1", "games": [{"score": None}, None]})
    one = import_benchmark("arenahard", put(tmp_path / "old", old), tmp_path / "a")
    two = import_benchmark("arenahard", put(tmp_path / "new", new), tmp_path / "b")
    a, b = load_benchmark(tmp_path / "a"), load_benchmark(tmp_path / "b")
    assert a.checklists == b.checklists and a.responses == b.responses and a.labels == b.labels
    assert {s: q.messages for s, q in a.queries.items()} == {s: q.messages for s, q in b.queries.items()}
    assert {s: x.score for s, x in a.labels["judge"]["m"].items()} == {"u1": 10.0, "u2": 1 + 9 * 0.5 / 4}
    assert b.queries["u1"].references == {"base": "So."} and not a.queries["u1"].references
    assert one.left_out == {"unknown_session": 1} and two.left_out == {"no_score": 1, "unknown_session": 1}


@pytest.mark.parametrize(("name", "change", "message"), [
    ("question.jsonl", [{"category": "c", "prompt": "?"}], r'question\.jsonl:1: field "uid": is missing; a row has'),
    ("question.jsonl", [{"uid": "u"}], r'field "prompt": is missing; a question has a prompt'),
    ("model_answer/m.jsonl", [{"uid": "u"}], r'm\.jsonl:1: field "messages": is missing; an answer has'),
    ("model_judgment/j/m.jsonl", [{"uid": "u", "games": [{"score": "A?B"}]}], r"games\[0\]\.score.*'A\?B' is no ver"),
    ("model_judgment/j/m.jsonl", [{"uid": "u", "games": []}], r'field "games": has 0 games'),
    ("model_answer/m.jsonl", None, r"lacks model_answer/<model>"),
])  # fmt: skip
def test_arena_hard_broken(name, change, message, tmp_path):
    said = {"role": "assistant", "content": "R"}
    files = {
        "question.jsonl": [{"uid": "u", "prompt": "?"}],
        "model_answer/m.jsonl": [{"uid": "u", "messages": [said]}],
    }
    files |= {name: change} if change is not None else {}
    if change is None:
        del files[name]
    with pytest.raises(RocketError, match=message):
        import_benchmark("arenahard", put(tmp_path / "in", files), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_alpacas_outputs_without_folders(tmp_path):
    outputs = [{"instruction": f"Q{n}", "output": f"A{n}", "generator": "mine", "dataset": "d"} for n in range(2)]
    label = {"instruction": "Q1", "output_1": "B1", "generator_1": "base", "output_2": "A1", "generator_2": "mine"}
    files = {"model_outputs.json": outputs, "annotations.json": [label | {"preference": 2, "annotator": "judge"}],
             "judge2/annotations.json": [label | {"preference": 1, "annotator": "?"}]}  # fmt: skip
    imported = import_benchmark("alpacaeval", put(tmp_path / "in", files), tmp_path / "out")
    b = load_benchmark(tmp_path / "out")
    assert [next(iter(b.labels[x]["mine"].values())).score for x in ("judge", "judge2")] == [10.0, 1.0]
    assert imported.responses == 2 and not imported.left_out
    alone = import_benchmark("alpacaeval", tmp_path / "in" / "model_outputs.json", tmp_path / "alone")
    assert (alone.responses, alone.scores) == (2, 0)
    put(tmp_path / "in", {"model_outputs.json": [{"instruction": "Q", "output": "A"}]})
    with pytest.raises(RocketError, match=r'model_outputs\.json:2: field "generator": is missing'):
        import_benchmark("alpacaeval", tmp_path / "in", tmp_path / "no")


def test_wildbench_results_without_scores(tmp_path):
    row = {"session_id": "s1", "chat_history": ["Hi.", "Hello.", "Who?"], "output": ["Me."], "generator": "org/m"}
    imported = import_benchmark("wildbench", put(tmp_path / "in", {"m.json": [row]}), tmp_path / "out")
    b = load_benchmark(tmp_path / "out")
    assert [(m.role, m.content) for m in b.queries["s1"].messages] == [
        ("user", "Hi."), ("assistant", "Hello."), ("user", "Who?"),
    ]  # fmt: skip
    assert b.responses["m"]["s1"].text == "Me." and imported.scores == 0 and not imported.left_out


def test_checklists_for_public_sets(tmp_path):
    pairs = [{"input": f"Q{n}", "output_1": "7", "output_2": "8", "label": 1} for n in range(3)]
    checks = [{"question": "Q0", "items": "One?\nTwo?"}, {"question": "Q2", "items": "Three?"}]
    put(tmp_path, {"LLMBar_Natural.json": pairs, "c.jsonl": checks})
    imported = import_benchmark(
        "llmbar", tmp_path / "LLMBar_Natural.json", tmp_path / "out", checklist=tmp_path / "c.jsonl"
    )
    items = [c.items for c in load_benchmark(tmp_path / "out").checklists.values()]
    assert items == [("One?", "Two?"), ("Three?",)] and imported.left_out == {"no_checklist": 1}
    with pytest.raises(RocketError, match="infobench: its checklists are its own, so a checklist cannot be given"):
        import_benchmark("infobench", tmp_path, tmp_path / "no", checklist=tmp_path / "c.jsonl")
    with pytest.raises(RocketError, match="llmbar: its questions are its own"):
        import_benchmark("llmbar", tmp_path, tmp_path / "no", question="input")


# Logs.


def sample(doc_id: int, prompt: Any, answer: str, *, old: bool = False, **more: Any) -> dict[str, Any]:
    settings = {"until": ["\n"], "do_sample": False}
    arguments: Any = [[prompt, str(settings)]] if old else {"gen_args_0": {"arg_0": prompt, "arg_1": settings}}
    row = {"doc_id": doc_id, "doc": {"question": f"Q{doc_id}", "n": 1}, "target": str(doc_id), "arguments": arguments}
    return row | {"resps": [[answer]], "filtered_resps": [answer[:1]], "filter": "none", "metrics": []} | more


def test_lm_evaluation_harness(tmp_path):
    chat = json.dumps([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}])
    strict = {"filter": "strict", "metrics": ["exact_match"], "exact_match": 1.0}
    likelihood = {"gen_args_0": {"arg_0": "Q", "arg_1": " A"}, "gen_args_1": {"arg_0": "Q", "arg_1": " B"}}
    new, older = "2026-01-02T03-04-05.678901", "2025-01-02T03-04-05.678901"
    files = {
        f"org__m/samples_gsm_{new}.jsonl": [
            sample(0, "Few shots.\nQ0", "Seven. #### 7", **strict),
            sample(0, "Few shots.\nQ0", "Seven. #### 7", **strict | {"filter": "none", "exact_match": 0.0}),
            sample(1, [chat], "So.", resps=[["So.", "Thus."]]),
        ],
        f"org__m/samples_gsm_{older}.jsonl": [sample(0, "Other", "Eight")],
        f"org__m/samples_arc_{new}.jsonl": [
            sample(0, "Q", "", arguments=likelihood, resps=[[["-1.0", "False"]], [["-2.0", "False"]]]),
            sample(1, "Q", "", arguments={"gen_args_0": {"arg_0": "text"}}, resps=[["-9.5"]]),
        ],
        f"org__m/results_{new}.json": {"results": {}},
        f"n/samples_gsm_{new}.jsonl": [sample(0, "Few shots.\nQ0", "8", old=True), sample(1, chat, "No.")],
    }
    imported = import_benchmark("lmeval", put(tmp_path / "in", files), tmp_path / "out")
    b = load_benchmark(tmp_path / "out")
    assert b.models == ["n", "org__m"] and set(b.queries) == {"gsm_0", "gsm_1"}
    assert b.responses["org__m"]["gsm_0"].text == "Seven. #### 7" and b.responses["n"]["gsm_0"].text == "8"
    assert [m.role for m in b.queries["gsm_1"].messages] == ["system", "user"]
    assert b.queries["gsm_1"].references == {"target": "1"}
    assert {x: by["org__m"]["gsm_0"].score for x, by in b.labels.items()} == {
        "exact_match.strict": 1.0, "exact_match": 0.0,
    }  # fmt: skip
    assert imported.left_out == {"earlier_file": 1, "more_samples": 1, "no_generation": 2}
    one = import_benchmark("lmeval", tmp_path / "in" / "n" / f"samples_gsm_{new}.jsonl", tmp_path / "one")
    assert (one.models, one.responses) == (1, 2) and load_benchmark(tmp_path / "one").models == ["n"]


def test_lm_evaluation_harness_with_nothing_to_judge(tmp_path):
    likelihood = {"gen_args_0": {"arg_0": "Q", "arg_1": " A"}, "gen_args_1": {"arg_0": "Q", "arg_1": " B"}}
    rows = [sample(n, "Q", "", arguments=likelihood, resps=[[["-1.0", "False"]]] * 2) for n in range(3)]
    put(tmp_path / "in", {"m/samples_arc.jsonl": rows})
    with pytest.raises(RocketError, match=r"in: its 3 samples are of tasks that compare likelihoods.*no text was gene"):
        import_benchmark("lmeval", tmp_path / "in", tmp_path / "out")


def test_lm_evaluation_harness_samples_of_one_prompt_and_pictures(tmp_path):
    picture = {"gen_args_0": {"arg_0": "<image> Who?", "arg_1": {"until": []}, "arg_2": {"visual": ["PIL"]}}}
    several = {"resps": [["7", "8", "8"]], "metrics": ["exact_match"]}
    rows = [
        sample(0, "Q0", "", **several, exact_match=0.0),
        sample(0, "Q0", "", **several, exact_match=1.0, filter="maj@3"),
        sample(1, "Q1", "9", metrics=["bleu", "exact_match"], bleu=float("nan"), exact_match=1.0),
        sample(2, "Q2", "Zoë.", arguments=picture),
    ]
    put(tmp_path / "in", {"m/samples_t.jsonl": rows})
    assert "NaN" in (tmp_path / "in" / "m" / "samples_t.jsonl").read_text(), "as json.dumps writes it"
    imported = import_benchmark("lmeval", tmp_path / "in", tmp_path / "out")
    b = load_benchmark(tmp_path / "out")
    assert {s: x.score for s, x in b.labels["exact_match"]["m"].items()} == {"t_0": 0.0, "t_1": 1.0}
    assert set(b.labels) == {"exact_match"} and b.responses["m"]["t_0"].text == "7"
    assert imported.left_out == {"more_samples": 2, "not_text": 1, "score_of_several": 1}


def test_lm_evaluation_harness_names_the_model_by_its_results(tmp_path):
    """With --output_path out/a.json and out/b.json all files are in one folder."""
    dates = {"a": "2026-01-02T03-04-05.678901", "b": "2026-01-03T03-04-05.678901"}
    files: dict[str, Any] = {f"out/samples_t_{d}.jsonl": [sample(0, "Q", f"by {m}")] for m, d in dates.items()}
    files |= {f"out/{m}_{d}.json": {"results": {}} for m, d in dates.items()}
    files[f"older/b/samples_t_{dates['a']}.jsonl"] = [sample(0, "Q", "older")]
    imported = import_benchmark("lmeval", put(tmp_path / "in", files), tmp_path / "bench")
    b = load_benchmark(tmp_path / "bench")
    assert {m: by["t_0"].text for m, by in b.responses.items()} == {"a": "by a", "b": "by b"}
    assert imported.left_out == {"earlier_file": 1}


def test_lm_evaluation_harness_with_another_template(tmp_path):
    files = {f"{m}/samples_t.jsonl": [sample(0, f"<{m}>Q0</{m}>", f"by {m}")] for m in ("a", "b")}
    put(tmp_path / "in", files)
    with pytest.raises(
        RocketError, match=r"samples_t\.jsonl:1: .*the prompt of 't_0' is not that.*doc has question, n"
    ):
        import_benchmark("lmeval", tmp_path / "in", tmp_path / "out")
    import_benchmark("lmeval", tmp_path / "in", tmp_path / "out", question="question")
    b = load_benchmark(tmp_path / "out")
    assert b.queries["t_0"].messages[0].content == "Q0" and b.models == ["a", "b"]
    with pytest.raises(RocketError, match=r'field "doc\.n": is missing or no text; doc has question, n; give one'):
        import_benchmark("lmeval", tmp_path / "in", tmp_path / "no", question="n")
    put(tmp_path / "in", {"a/samples_t.jsonl": [{"doc_id": "x"}]})
    with pytest.raises(RocketError, match=r'samples_t\.jsonl:1: field "doc_id": expected int, got str'):
        import_benchmark("lmeval", tmp_path / "in", tmp_path / "no")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RocketError, match=r"lacks <model>/samples_<task>_<date>, which lm_eval --log_samples"):
        import_benchmark("lmeval", tmp_path / "empty", tmp_path / "no")


def test_inspects_reader_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "inspect_ai", None)
    monkeypatch.setitem(sys.modules, "inspect_ai.log", None)
    with pytest.raises(RocketError, match=r"is not here .*pip install 'rocketjax\[inspect\]'"):
        import_benchmark("inspect", put(tmp_path / "in", {"a.eval": ""}), tmp_path / "out")


@pytest.mark.filterwarnings("default")
def test_inspect_logs(tmp_path):
    log = pytest.importorskip("inspect_ai.log", reason="inspect_ai is heavy and not in the test extra")
    from inspect_ai.model import ChatMessageSystem, ChatMessageUser, ModelOutput
    from inspect_ai.scorer import Score

    def one(n: int, text: str, value: Any, **more: Any) -> Any:
        output = ModelOutput.from_content("m", text)
        scores = {"match": Score(value=value)}
        return log.EvalSample(**{"id": n, "epoch": 1, "input": f"Q{n}", "target": "T", "output": output,
                                 "scores": scores} | more)  # fmt: skip

    turns = [ChatMessageSystem(content="Be brief."), ChatMessageUser(content="Why?")]
    error = log.EvalError(message="x", traceback="x", traceback_ansi="x") if hasattr(log, "EvalError") else None
    samples = {
        "openai/a": [
            one(1, "Seven.", "C"), one(2, "A", "P", choices=["x", "y"]),
            one(3, "So.", {"x": 1, "y": "no"}, input=turns),
            one(4, "?", float("nan")), one(5, "?", "good"), one(1, "Eight.", "I", epoch=2),
            *([one(6, "?", "C", error=error)] if error else []),
        ],
        "b": [one(1, "Nine.", "I")],
    }  # fmt: skip
    spec = {"created": "2026-01-01T00:00:00+00:00", "task": "t", "dataset": log.EvalDataset()}
    for suffix in ("eval", "json"):
        folder = tmp_path / suffix
        folder.mkdir()
        for model, given in samples.items():
            about = log.EvalSpec(**spec, model=model, config=log.EvalConfig())
            name = folder / f"2026_{model.replace('/', '-')}.{suffix}"
            log.write_eval_log(log.EvalLog(eval=about, status="success", samples=given), str(name))
        put(folder, {"eval-set.json": {"x": 1}})
        imported = import_benchmark("inspect", folder, tmp_path / f"out-{suffix}")
        b = load_benchmark(tmp_path / f"out-{suffix}")
        assert b.models == ["b", "openai_a"] and len(b.queries) == 5
        assert b.queries["t_2"].messages[0].content == "Q2\n\nA) x\nB) y"
        assert [m.role for m in b.queries["t_3"].messages] == ["system", "user"]
        assert b.queries["t_1"].references == {"target": "T"}
        scores = {(x, m, s): y.score for x, by in b.labels.items() for m, w in by.items() for s, y in w.items()}
        assert scores == {
            ("match", "openai_a", "t_1"): 1.0, ("match", "b", "t_1"): 0.0, ("match", "openai_a", "t_2"): 0.5,
            ("match.x", "openai_a", "t_3"): 1.0, ("match.y", "openai_a", "t_3"): 0.0,
        }  # fmt: skip
        left_out = {"another_epoch": 1, "no_score": 1, "unclear_score": 1} | ({"sample_error": 1} if error else {})
        assert imported.left_out == left_out
    # A run that broke off, and the same task run again; long texts are kept apart from the sample, as attachments.
    long, folder = "Why? " * 2000, tmp_path / "again"
    folder.mkdir()
    for name, month, answer in (("2026-a", "02", "New. "), ("2026-b", "01", "Old. ")):
        about = log.EvalSpec(
            **spec | {"created": f"2026-{month}-01T00:00:00+00:00"}, model="m", config=log.EvalConfig()
        )
        given = [one(1, answer + long, "C" if answer == "New. " else "I", input=long), one(2, "So.", "C")]
        whole = log.EvalLog(eval=about, status="success" if month == "02" else "error", samples=given)
        log.write_eval_log(whole, str(folder / f"{name}.eval"))
    imported = import_benchmark("inspect", folder, tmp_path / "latest")
    b = load_benchmark(tmp_path / "latest")
    assert b.responses["m"]["t_1"].text == "New. " + long and b.queries["t_1"].messages[-1].content == long
    assert b.labels["match"]["m"]["t_1"].score == 1 and imported.left_out == {
        "another_response": 1,
        "duplicate_label": 1,
    }
    put(tmp_path / "bad", {"x.json": {"not": "a log"}})
    with pytest.raises(RocketError, match=r"x\.json: inspect_ai cannot read it as a log \("):
        import_benchmark("inspect", tmp_path / "bad", tmp_path / "no")


# Out, and in again.


@pytest.fixture(scope="module")
def parity(shared, tmp_path_factory) -> tuple[Run, Benchmark]:
    """A scored run of recorded judgments about MT-Bench, and the benchmark."""
    bench = load_benchmark(shared / "data" / "dev" / "mtbench")
    run = record(bench, shared / "parity" / "mtbench" / "judgment.jsonl.gz", tmp_path_factory.mktemp("parity") / "run")
    score(run)
    return run, bench


def scores_of(run: Run) -> dict[tuple[str, str], float]:
    return {(r["model"], r["session_id"]): r["score"] for r in run.scores.to_pylist() if r["score"] is not None}


def labels_of(bench: Benchmark, labeler: str) -> dict[tuple[str, str], float | None]:
    return {(m, s): x.score for m, by in bench.labels[labeler].items() for s, x in by.items()}


def test_mtbench_comes_back(parity, tmp_path):
    """The export among questions and answers in FastChat's own layout, made here from the shared files."""
    run, bench = parity
    export(run, "mtbench", tmp_path / "in" / "model_judgment")
    assert [p.name for p in (tmp_path / "in" / "model_judgment").iterdir()] == ["judgment_single.jsonl"]
    sessions: dict[int, dict[int, str]] = {}
    for s in bench.queries:
        question_id, turn = question_of(s)
        assert s == f"mt{question_id}_{turn}"
        sessions.setdefault(question_id, {})[turn] = s
    questions, answers = [], {m: [] for m in bench.models}
    for question_id, by_turn in sessions.items():
        turns = [bench.queries[by_turn[t]].messages[-1].content for t in sorted(by_turn)]
        assert sorted(by_turn) == [*range(1, len(turns) + 1)]
        questions.append({"question_id": question_id, "category": "c", "turns": turns})
        for m in bench.models:
            texts = [bench.responses[m].get(by_turn[t]) for t in sorted(by_turn)]
            answers[m].append(said(question_id, *(x and x.text for x in texts)) | {"model_id": m, "tstamp": 0.0})
    put(tmp_path / "in", {"question.jsonl": questions} | {f"model_answer/{m}.jsonl": x for m, x in answers.items()})
    imported = import_benchmark("fastchat", tmp_path / "in", tmp_path / "out")
    back = load_benchmark(tmp_path / "out")
    assert labels_of(back, "judgment") == scores_of(run) and not imported.left_out
    for m, s in scores_of(run):
        assert back.responses[m][s].text == bench.responses[m][s].text
        assert [t.content for t in back.conversation(s, m)] == [t.content for t in bench.conversation(s, m)]


def test_wildbench_comes_back(parity, shared, tmp_path):
    run, bench = parity
    folder = export(run, "wildbench", tmp_path / "in")
    imported = import_benchmark("wildbench", folder, tmp_path / "out")
    back = load_benchmark(tmp_path / "out")
    assert labels_of(back, "judgment") == scores_of(run) and not imported.left_out
    assert {s: c.items for s, c in back.checklists.items()} == {s: bench.checklists[s].items for s in back.checklists}
    assert any(s.endswith("_2") for _, s in scores_of(run))
    for m, s in scores_of(run):
        assert [t.content for t in back.conversation(s, m)] == [t.content for t in bench.conversation(s, m)]
    sample = sorted((shared / "data" / "dev" / "wildbench_scores" / "native_sample").iterdir())[0]
    native = json.loads(gzip.decompress(sample.read_bytes()))
    rows = json.loads(next(iter(folder.rglob("*.json"))).read_text())
    for key in ("session_id", "model_test", "score", "model_output"):
        assert type(rows[0][key]) is type(native[0][key]), key
    assert type(rows[0]["parsed_result"]["score"]) is type(native[0]["parsed_result"]["score"])


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_tables_come_back(format, parity, tmp_path):
    run, bench = parity
    folder = export(run, format, tmp_path / "tables")
    assert sorted(p.name for p in folder.iterdir()) == [f"grades.{format}", f"scores.{format}"]
    imported = import_table(
        folder / f"scores.{format}", tmp_path / "out", session="session_id", score="score", labeler="judge"
    )
    back = load_benchmark(tmp_path / "out")
    assert labels_of(back, "judge") == scores_of(run) and set(imported.left_out) <= {"no_response", "no_score"}
    for m, s in scores_of(run):
        assert back.responses[m][s].text == bench.responses[m][s].text
        assert back.queries[s].messages[-1] == bench.queries[s].messages[-1]
    # The grades, read by another reader.
    grades = run.grades.to_pylist()
    if format == "csv":
        with open(folder / "grades.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert [float(r["p_yes"]) if r["p_yes"] else None for r in rows] == [r["p_yes"] for r in grades]
    else:
        rows = (
            [json.loads(line) for line in (folder / "grades.jsonl").read_text().splitlines()]
            if format == "jsonl"
            else pq.read_table(folder / "grades.parquet").to_pylist()
        )
        assert [{k: v for k, v in row.items() if k != "item_text"} for row in rows] == grades
    texts = [bench.checklists[r["session_id"]].items[r["item"]] for r in grades]
    assert [row["item_text"] for row in rows] == texts


@pytest.fixture(scope="module")
def alpaca(shared, tmp_path_factory) -> tuple[Run, Benchmark, str]:
    """A run about AlpacaEval whose scores are the annotator's own, so ties and all sizes of preference occur."""
    labeler = "weighted_alpaca_eval_gpt4_turbo"
    whole = load_benchmark(shared / "data" / "dev" / "alpacaeval")
    models = sorted(whole.labels[labeler])[:5]
    bench = whole.select(models)
    rows = [
        {"session_id": s, "model_test": m, "norm_probability": [(x.score - 1) / 9] * len(bench.checklists[s].items)}
        for m in models
        for s, x in bench.labels[labeler][m].items()
        if s in bench.checklists
    ]
    folder = tmp_path_factory.mktemp("alpaca")
    put(folder, {"j.jsonl": rows})
    run = record(bench, folder / "j.jsonl", folder / "run")
    score(run)
    return run, bench, models[1]


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_alpaca_comes_back(margin, alpaca, tmp_path):
    run, bench, baseline = alpaca
    folder = export(run, "alpaca", tmp_path / "in", baseline=baseline, tie_margin=margin)
    imported = import_benchmark("alpacaeval", folder, tmp_path / "out")
    back, scores = load_benchmark(tmp_path / "out"), scores_of(run)
    session = {q.messages[-1].content: s for s, q in bench.queries.items()}
    old = {s: session[q.messages[0].content] for s, q in back.queries.items()}
    expected = {}
    for (m, s), x in scores.items():
        if m != baseline and (baseline, s) in scores:
            d = x - scores[baseline, s]
            expected[m, s] = 5.5 if abs(d) <= margin + 1e-9 else 10.0 if d > 0 else 1.0
    assert {(m, old[s]): x for (m, s), x in labels_of(back, "j").items()} == expected and not imported.left_out
    assert Counter(expected.values()).keys() == {1.0, 5.5, 10.0}, "the data have wins, losses and ties"
    assert all(q.references == {baseline: bench.responses[baseline][old[s]].text} for s, q in back.queries.items())
    with open(folder / "leaderboard.csv", newline="", encoding="utf-8") as file:
        board = list(csv.DictReader(file))
    assert [float(r["win_rate"]) for r in board] == sorted((float(r["win_rate"]) for r in board), reverse=True)
    for row in board:
        wins = np.array([(x - 1) / 9 for (m, _), x in expected.items() if m == row[""]])
        assert float(row["win_rate"]) == pytest.approx(100 * wins.mean())
        assert float(row["standard_error"]) == pytest.approx(100 * wins.std(ddof=1) / np.sqrt(len(wins)))
        assert [int(row[k]) for k in ("n_wins", "n_wins_base", "n_draws", "n_total")] == [
            (wins == 1).sum(), (wins == 0).sum(), (wins == 0.5).sum(), len(wins),
        ]  # fmt: skip


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_the_arena_orders_the_models_alike(margin, parity, tmp_path):
    """A public Bradley-Terry fit of the matches against counting wins: in a full round robin both give one order."""
    evalica = pytest.importorskip("evalica")
    run, _ = parity
    battles = json.loads((export(run, "arena", tmp_path / "out", tie_margin=margin) / "battles.json").read_text())
    scores = scores_of(run)
    by_session: dict[str, dict[str, float]] = {}
    for (m, s), x in scores.items():
        by_session.setdefault(s, {})[m] = x
    assert len(battles) == sum(len(x) * (len(x) - 1) // 2 for x in by_session.values())
    wins, ties = Counter(), 0.0
    for there in by_session.values():
        for a, b in itertools.permutations(there, 2):
            tied = abs(there[a] - there[b]) <= margin + 1e-9
            wins[a] += 0.5 if tied else float(there[a] > there[b])
            ties += tied / 2
    name = {"model_a": evalica.Winner.X, "model_b": evalica.Winner.Y, "tie": evalica.Winner.Draw}
    for battle in battles:
        assert battle["model_a"] < battle["model_b"] and battle["winner"] in name and battle["tstamp"] == 0
    assert sum(battle["winner"] == "tie" for battle in battles) == ties > 0
    fit = evalica.bradley_terry(
        [x["model_a"] for x in battles], [x["model_b"] for x in battles], [name[x["winner"]] for x in battles]
    ).scores
    assert sorted(fit.index, key=lambda m: -fit[m]) == sorted(wins, key=lambda m: -wins[m])
    counted = Counter((x["question_id"], x["turn"]) for x in battles)
    assert {question_of(s) for s, there in by_session.items() if len(there) > 1} == counted.keys()


@pytest.fixture
def small(tmp_path) -> tuple[Run, Path]:
    """Three models, two queries, one missing judgment; made here."""
    rows = [
        {"question": q, "answer": f"{m} on {q}", "model": m, "id": s}
        for s, q in (("s1", "Why?"), ("s2", "Who?")) for m in "abc"
    ]  # fmt: skip
    put(tmp_path, {"t.csv": rows, "items.txt": "One?\nTwo?"})
    import_table(tmp_path / "t.csv", tmp_path / "bench", session="id", checklist=tmp_path / "items.txt")
    p = {
        ("s1", "a"): (1, 1),
        ("s1", "b"): (0.9, 0.1),
        ("s1", "c"): (0.8, 0.1),
        ("s2", "a"): (0, 0),
        ("s2", "b"): (1, 1),
    }
    lines = [{"session_id": s, "model_test": m, "norm_probability": x} for (s, m), x in p.items()]
    put(tmp_path, {"j.jsonl": lines})
    return record(load_benchmark(tmp_path / "bench"), tmp_path / "j.jsonl", tmp_path / "run"), tmp_path / "bench"


def test_what_an_export_needs(small, tmp_path):
    run, bench = small
    with pytest.raises(RocketError, match="has no scores yet"):
        export(run, "arena")
    score(run)
    with pytest.raises(RocketError, match=r"unknown format 'xlsx'; there are: rocketeval, wildbench, mtbench"):
        export(run, "xlsx")
    with pytest.raises(RocketError, match="name it with --baseline MODEL"):
        export(run, "alpaca")
    with pytest.raises(RocketError, match="name it with --baseline MODEL"):
        export(run, "arena", baseline="a")
    with pytest.raises(RocketError, match="the tie margin is nan"):
        export(run, "arena", tie_margin=float("nan"))
    with pytest.raises(RocketError, match=r"no scores of the baseline 'A'.* There are: a, b, c"):
        export(run, "alpaca", baseline="A")
    assert not (run.path / "export").exists(), "nothing half-written"
    bench.rename(tmp_path / "moved")
    for format in ("wildbench", "alpaca"):
        with pytest.raises(RocketError, match=r"this format holds responses.*no longer there; give --bench BENCH"):
            export(run, format, baseline="a" if format == "alpaca" else None)
    (tmp_path / "file").write_text("")
    with pytest.raises(RocketError, match="is a file; the export needs a folder"):
        export(run, "csv", tmp_path / "file")
    rows = [json.loads(x) for x in (export(run, "jsonl") / "scores.jsonl").read_text().splitlines()]
    assert all(row["question"] is None and row["response"] is None for row in rows) and len(rows) == 6
    rows = [
        json.loads(x)
        for x in (export(run, "jsonl", bench=tmp_path / "moved") / "scores.jsonl").read_text().splitlines()
    ]
    assert [row["response"] for row in rows if row["session_id"] == "s2"] == ["a on Who?", "b on Who?", "c on Who?"]
    assert [row["score"] for row in rows if row["session_id"] == "s2"] == [1.0, 10.0, None]
    folders = {format: export(run, format, bench=tmp_path / "moved", baseline="a" if format == "alpaca" else None)
               for format in FORMATS}  # fmt: skip
    again = {f: {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} for f, folder in folders.items()}
    for format, files in again.items():
        export(run, format, bench=tmp_path / "moved", baseline="a" if format == "alpaca" else None)
        assert files and all(p.read_bytes() == content for p, content in files.items()), "same run, same bytes"


def test_missing_and_uncertain_scores_are_in_no_match(small, tmp_path):
    run, _ = small
    score(run)
    found = json.loads((export(run, "arena", tmp_path / "a") / "battles.json").read_text())
    kept = [(x["question_id"], x["model_a"], x["model_b"], x["winner"]) for x in found]
    assert kept == [
        ("s1", "a", "b", "model_a"), ("s1", "a", "c", "model_a"), ("s1", "b", "c", "model_a"),
        ("s2", "a", "b", "model_b"),
    ]  # fmt: skip
    close = json.loads((export(run, "arena", tmp_path / "b", tie_margin=0.46) / "battles.json").read_text())
    assert [x["winner"] for x in close] == ["model_a", "model_a", "tie", "model_b"]
    score(run, abstain=1.0)
    assert sum(row["abstained"] for row in run.scores.to_pylist()) == 2
    found = json.loads((export(run, "arena", tmp_path / "c") / "battles.json").read_text())
    assert [(x["question_id"], x["model_a"], x["model_b"]) for x in found] == [("s2", "a", "b")]
    lines = [json.loads(x) for x in next(export(run, "mtbench", tmp_path / "d").iterdir()).read_text().splitlines()]
    assert [(x["model"], x["question_id"]) for x in lines] == [("a", "s1"), ("a", "s2"), ("b", "s2")]
    assert len(list(csv.DictReader(io.StringIO((export(run, "csv") / "scores.csv").read_text())))) == 6, (
        "tables have all"
    )


def test_the_runs_own_folder_holds_the_last_export_only(small, tmp_path):
    run, _ = small
    score(run)
    export(run, "alpaca", baseline="b")
    (run.path / "export" / "arena").mkdir()
    (run.path / "export" / "arena" / "kept").write_text("of another format")
    folder = export(run, "alpaca", baseline="a")
    own = {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    fresh = export(run, "alpaca", tmp_path / "fresh", baseline="a")
    assert own == {p.relative_to(fresh): p.read_bytes() for p in fresh.rglob("*") if p.is_file()}
    assert not (folder / "a" / "j").exists() and (run.path / "export" / "arena" / "kept").exists()
    (fresh / "kept").write_text("in a folder that is not the run's own")
    export(run, "alpaca", fresh, baseline="b")
    assert (fresh / "kept").exists()


def test_alpacas_format_holds_one_turn(parity, tmp_path):
    run, bench = parity
    with pytest.raises(RocketError, match=r"query 'mt\d+_2' has 3 turns; AlpacaEval's format holds only one"):
        export(run, "alpaca", tmp_path / "out", baseline=bench.models[0])
    assert not (tmp_path / "out").exists()


def test_export_on_the_command_line(small, tmp_path, rocketjax):
    run, bench = small
    score(run)
    code, _, err = rocketjax("export", run.path, "--format", "arena", "-o", tmp_path / "out", "--tie-margin", "0.5")
    assert code == cli.DONE and "wrote" in err and (tmp_path / "out" / "battles.json").exists()
    code, _, err = rocketjax("export", run.path, "--format", "alpaca", "--baseline", "b", "--bench", bench)
    assert code == cli.DONE and (run.path / "export" / "alpaca" / "leaderboard.csv").exists()
    code, _, err = rocketjax("export", run.path, "--format", "alpaca", "--baseline", "nobody")
    assert code == cli.FAILED and err.startswith("error: no scores of the baseline 'nobody'")


def test_sessions_and_questions():
    assert question_of("mt81_2") == (81, 2) and question_of("mt081_2") == ("mt081_2", 1)
    assert question_of("e1") == ("e1", 1) and question_of("mt81_0") == ("mt81_0", 1)
