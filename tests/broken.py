"""Broken benchmarks: a small good one, and a table of single mutations with the message that each must give.

The table is used twice: on the reader, and on the command line, which must print the same and no traceback.
"""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

Row = dict[str, Any]

QUERIES: list[Row] = [
    {
        "session_id": "00123",
        "conversation_input": [{"role": "user", "content": "Name three primes."}],
        "checklist": [],
        "references": {"gpt-4": "2, 3, 5"},
    },
    {
        "session_id": "q2",
        "conversation_input": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What is a lemma?"},
            {"role": "assistant", "content": "<see chat_history>"},
            {"role": "user", "content": "Give an example 🙂."},
        ],
        "checklist": [],
        "references": {},
    },
    {"session_id": "q3", "conversation_input": [{"role": "user", "content": "Say hello\u2028to Zoë."}]},
]
CHECKLISTS: list[Row] = [
    {"session_id": "00123", "checklist": ["Are there exactly three numbers?", "Are all of them prime?"]},
    {"session_id": "q2", "checklist": ["Is there an example?", "Is it brief?", "Is it right?"]},
    {"session_id": "q3", "checklist": ["Does it greet Zoë?"]},
]
TURNS = ["What is a lemma?", "A helper theorem.", "Give an example 🙂."]
RESPONSES: dict[str, list[Row]] = {
    model: [
        {"session_id": "00123", "chat_history": [], "output": [first], "generator": model},
        {"session_id": "q2", "chat_history": TURNS, "output": [second], "generator": model},
        {
            "session_id": "q3",
            "chat_history": ["Say hello\u2028to Zoë."],
            "output": [third],
            "generator": model,
        },
    ]
    for model, first, second, third in [
        ("alpha", "2, 3, 5", "Zorn's.", "Hello Zoë!"),
        ("beta-7b", "1, 2", "?", ""),
    ]
}
SCORES: dict[str, list[Row]] = {
    model: [{"session_id": s, "model_test": model, "score": x} for s, x in zip(("00123", "q2", "q3"), xs, strict=True)]
    for model, xs in [("alpha", (9.5, "8", 10)), ("beta-7b", (2, 3.25, "1"))]
}
JUDGMENTS: dict[str, list[Row]] = {
    "alpha": [
        {"session_id": "00123", "model_test": "alpha", "judge": "human", "judgment": ["Yes", "Yes"]},
        {"session_id": "q2", "model_test": "alpha", "judge": "human", "judgment": ["Yes", "N/A", 0.75]},
        {"session_id": "q3", "model_test": "alpha", "judge": "human", "judgment": [True]},
    ],
}


def good_files() -> dict[str, list[Row]]:
    """The rows of the good benchmark by file, without the files' endings."""
    return {
        "queries": QUERIES,
        "checklist": CHECKLISTS,
        **{f"response/{model}": rows for model, rows in RESPONSES.items()},
        **{f"score/gpt-4/{model}": rows for model, rows in SCORES.items()},
        **{f"gold_judgment/human/{model}": rows for model, rows in JUDGMENTS.items()},
    }


def write_good(path: Path) -> Path:
    """Writes the good benchmark into the folder `path`, which it makes: 3 queries, 2 models, 2 labelers."""
    for name, rows in good_files().items():
        write_rows(path / f"{name}.jsonl", rows)
    return path


def write_rows(file: Path, rows: list[Row]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    file.write_bytes(text.encode())


class Broken(NamedTuple):
    name: str
    mutate: Callable[[Path], object]
    """Breaks the good benchmark in this folder."""
    message: str
    """What re.search must find in the message; paths in it are below the benchmark's folder."""


def put(name: str, line: int, **fields: Any) -> Callable[[Path], None]:
    """Sets fields of one row."""

    def mutate(path: Path) -> None:
        rows = [json.loads(text) for text in (path / name).read_bytes().decode().split("\n")[:-1]]
        rows[line - 1].update(fields)
        write_rows(path / name, rows)

    return mutate


def drop(name: str, line: int, field: str) -> Callable[[Path], None]:
    def mutate(path: Path) -> None:
        rows = [json.loads(text) for text in (path / name).read_bytes().decode().split("\n")[:-1]]
        del rows[line - 1][field]
        write_rows(path / name, rows)

    return mutate


def raw(name: str, line: int, new: bytes) -> Callable[[Path], None]:
    """Replaces one line; a line after the last is added."""

    def mutate(path: Path) -> None:
        lines = (path / name).read_bytes().splitlines(keepends=True)
        lines[line - 1 : line] = [new]
        (path / name).write_bytes(b"".join(lines))

    return mutate


def write(name: str, data: bytes) -> Callable[[Path], None]:
    def mutate(path: Path) -> None:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)

    return mutate


def again(name: str, line: int) -> Callable[[Path], None]:
    """Adds a copy of one line at the end."""

    def mutate(path: Path) -> None:
        data = (path / name).read_bytes()
        (path / name).write_bytes(data + data.split(b"\n")[line - 1] + b"\n")

    return mutate


def without(*names: str) -> Callable[[Path], None]:
    def mutate(path: Path) -> None:
        for name in names:
            for file in sorted(path.glob(name)):
                file.unlink()

    return mutate


def in_place(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    """Removes a file or a folder of files and makes something else of the same name."""

    def mutate(path: Path) -> None:
        if (path / name).is_dir():
            for file in (path / name).iterdir():
                file.unlink()
            (path / name).rmdir()
        else:
            (path / name).unlink(missing_ok=True)
        make(path / name)

    return mutate


def zipped(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def mutate(path: Path) -> None:
        data = (path / name).read_bytes()
        (path / name).unlink()
        (path / f"{name}.gz").write_bytes(change(gzip.compress(data)))

    return mutate


def renamed(old: str, new: str) -> Callable[[Path], None]:
    def mutate(path: Path) -> None:
        (path / new).parent.mkdir(parents=True, exist_ok=True)
        (path / old).rename(path / new)

    return mutate


def many(*mutations: Callable[[Path], None]) -> Callable[[Path], None]:
    def mutate(path: Path) -> None:
        for mutation in mutations:
            mutation(path)

    return mutate


Q, C, A, B = "queries.jsonl", "checklist.jsonl", "response/alpha.jsonl", "response/beta-7b.jsonl"
S, G = "score/gpt-4/alpha.jsonl", "gold_judgment/human/alpha.jsonl"
USER = {"role": "user", "content": "Hi"}
DEEP = b'{"session_id": "q", "x": ' + b"[" * 200_000 + b"]" * 200_000 + b"}\n"

BROKEN: list[Broken] = [
    # The folder.
    Broken(
        "no queries",
        without(Q),
        r"no queries; expected queries\.jsonl, .* the folder holds checklist\.jsonl, gold",
    ),
    Broken(
        "no checklist",
        without(C),
        r"no query has a checklist; expected .* the folder holds gold_judgment, queries",
    ),
    Broken(
        "no response folder",
        in_place("response", lambda p: None),
        r"no responses; expected .*response/<model>",
    ),
    Broken(
        "empty response folder",
        without("response/*"),
        r"no responses; expected .* the folder holds checklist",
    ),
    Broken("empty folder", without("*.jsonl", "*/*.jsonl", "*/*/*.jsonl"), r"no queries; expected"),
    Broken(
        "two query files",
        write("query.jsonl", b"{}"),
        r"holds both queries\.jsonl, query\.jsonl; remove all but",
    ),
    Broken(
        "queries plain and gz",
        write("queries.jsonl.gz", b""),
        r"holds both queries\.jsonl\.gz, queries\.jsonl; remove",
    ),
    Broken(
        "two checklist files",
        write("checklist/checklist.jsonl", b"{}"),
        r"holds both checklist\.jsonl, checklist/checklist\.jsonl; remove",
    ),
    Broken(
        "model plain and gz",
        write(A + ".gz", b""),
        r"response: holds both alpha\.jsonl, alpha\.jsonl\.gz; remove",
    ),
    Broken(
        "labels twice",
        write("score/gpt-4/alpha.json", b"[]"),
        r"score/gpt-4: holds both alpha\.json, alpha\.jsonl",
    ),
    Broken(
        "queries is a folder",
        in_place(Q, lambda p: p.mkdir()),
        r"queries\.jsonl: is not a file; expected one",
    ),
    Broken(
        "response is a file",
        in_place("response", lambda p: p.touch()),
        r"response: is a file, expected a folder",
    ),
    Broken(
        "model is a folder",
        in_place(A, lambda p: p.mkdir()),
        r"response/alpha\.jsonl: is not a file; expected",
    ),
    Broken("model is a pipe", in_place(A, os.mkfifo), r"response/alpha\.jsonl: is not a file; expected one"),
    Broken(
        "symlink loop",
        in_place(A, lambda p: p.symlink_to("alpha.jsonl")),
        r"alpha\.jsonl: cannot be read \(too many levels of symbolic links\); check the path",
    ),
    Broken(
        "folder of loops",
        in_place("response", lambda p: p.symlink_to("response")),
        r"response: cannot be read \(too many levels of symbolic links\)",
    ),
    Broken(
        "dangling link",
        in_place(Q, lambda p: p.symlink_to("gone.jsonl")),
        r"queries\.jsonl: cannot be read \(no such file or directory\); check the path and its permissions",
    ),
    Broken(
        "foreign file",
        write("response/alpha.csv", b""),
        r"response/alpha\.csv: expected <model>\.jsonl, \.json",
    ),
    Broken(
        "labels without labeler",
        write("score/a.jsonl", b""),
        r"a\.jsonl: expected score/<labeler>/<model>\.jsonl",
    ),
    Broken(
        "another benchmark's responses",
        many(*(write(name, b'{"session_id": "x", "output": ["y"]}\n') for name in (A, B))),
        r"response: no response has the session_id of a query; are these the responses to another",
    ),
    # The bytes.
    Broken("empty file", write(A, b""), r"response/alpha\.jsonl: has no rows; an unfinished copy\?"),
    Broken("only blank lines", write(C, b"\n \r\n"), r"checklist\.jsonl: has no rows"),
    Broken("empty list", many(without(A), write("response/alpha.json", b"[ ]\n")), r"alpha\.json: has no rows"),
    Broken(
        "torn last line",
        raw(A, 3, b'{"session_id": "q3", "outp'),
        r"alpha\.jsonl:3: not valid JSON .* cut off",
    ),
    Broken(
        "not JSON",
        raw(A, 2, b"session_id: q2\n"),
        r"alpha\.jsonl:2: not valid JSON \(JSON is malformed.*; mend",
    ),
    Broken(
        "two rows in a line",
        raw(Q, 1, b'{"session_id": "a", "conversation_input": []} {}\n'),
        r"queries\.jsonl:1: not valid JSON \(JSON is malformed: trailing characters",
    ),
    Broken(
        "not an object",
        raw(Q, 2, b'["q2"]\n'),
        r"queries\.jsonl:2: expected object, got list; one JSON object per line; a file that is",
    ),
    Broken("NaN", raw(S, 1, b'{"session_id": "q2", "score": NaN}\n'), r"gpt-4/alpha\.jsonl:1: not valid JSON"),
    Broken("Infinity", raw(S, 1, b'{"session_id": "q2", "score": Infinity}\n'), r"alpha\.jsonl:1: not valid JSON"),
    Broken(
        "huge number",
        raw(S, 1, b'{"session_id": "q2", "score": 1e999}\n'),
        r':1: field "score": number out of',
    ),
    Broken(
        "not UTF-8",
        raw(A, 2, b'{"session_id": "\xff"}\n'),
        r"alpha\.jsonl:2: not UTF-8 \(invalid start byte\); save",
    ),
    Broken("UTF-16", write(Q, '{"session_id": "a"}\n'.encode("utf-16")), r"queries\.jsonl:1: not UTF-8"),
    Broken(
        "half a character",
        raw(A, 3, b'{"session_id": "q3", "output": ["\\ud83d and more text"]}\n'),
        r"alpha\.jsonl:3: not valid JSON .* an escape such as \\ud83d stands for half a character",
    ),
    Broken("deeply nested", raw(A, 2, DEEP), r"alpha\.jsonl:2: not valid JSON \(maximum recursion depth exceeded"),
    Broken("torn gzip", zipped(A, lambda d: d[:-12]), r"alpha\.jsonl\.gz: not a whole gzip file .* copy it again"),
    Broken(
        "damaged gzip",
        zipped(A, lambda d: d[:20] + b"\0\0\0\0" + d[24:]),
        r"alpha\.jsonl\.gz: not a whole gzip file",
    ),
    Broken(
        "damaged checksum",
        zipped(A, lambda d: d[:-8] + b"1234" + d[-4:]),
        r"not a whole gzip file \(CRC check",
    ),
    Broken(
        "plain text named gz",
        renamed(A, A + ".gz"),
        r"alpha\.jsonl\.gz: not a whole gzip file \(Not a gzipped",
    ),
    Broken(
        "gzip without gz",
        many(zipped(A, lambda d: d), renamed(A + ".gz", A)),
        r"alpha\.jsonl: holds gzip data; add \.gz to its name",
    ),
    Broken("gzipped twice", zipped(A, gzip.compress), r"alpha\.jsonl\.gz: holds gzip data; decompress it once"),
    Broken("list named lines", raw(Q, 1, b"[\n"), r"queries\.jsonl:1: .* list is named \.json"),
    Broken(
        "lines named list",
        renamed(Q, "queries.json"),
        r"queries\.json:1: is no JSON list; JSON lines are named \.jsonl",
    ),
    Broken(
        "row of a list",
        many(
            without(A),
            write("response/alpha.json", b'[\n {"session_id": "q3",\n  "output": [""]},\n\n {"output": []}\n]'),
        ),
        r'response/alpha\.json:5: field "session_id": is missing',
    ),
    Broken(
        "torn list",
        many(without(A), write("response/alpha.json", b'[\n{"session_id": "q3", "output": [""]},\n')),
        r"response/alpha\.json:2: not valid JSON .* cut off",
    ),
    # Queries.
    Broken(
        "number as id",
        raw(Q, 1, b'{"session_id": 123, "conversation_input": [{"role": "user", "content": "Hi"}]}\n'),
        r'queries\.jsonl:1: field "session_id": expected str, got int; ids are strings .* lose its zeros',
    ),
    Broken(
        "blank id",
        put(Q, 1, session_id=" "),
        r'queries\.jsonl:1: field "session_id": is blank; ids are strings',
    ),
    Broken("no id", drop(Q, 3, "session_id"), r'queries\.jsonl:3: field "session_id": is missing; ids are'),
    Broken(
        "query twice",
        again(Q, 1),
        r"queries\.jsonl:4: field \"session_id\": '00123' is already in line 1; keep one",
    ),
    Broken(
        "no conversation",
        drop(Q, 2, "conversation_input"),
        r':2: field "conversation_input": is missing; give',
    ),
    Broken(
        "no turns",
        put(Q, 2, conversation_input=[]),
        r'queries\.jsonl:2: field "conversation_input": has no turns',
    ),
    Broken(
        "unknown role",
        put(Q, 1, conversation_input=[{"role": "human", "content": "Hi"}]),
        r"queries\.jsonl:1: field \"conversation_input\[0\]\.role\": unknown role 'human'; .* system, user",
    ),
    Broken(
        "assistant last",
        put(Q, 3, conversation_input=[USER, {"role": "assistant", "content": "Hi"}]),
        r'queries\.jsonl:3: field "conversation_input": ends with the turn of the assistant; give',
    ),
    Broken(
        "content in parts",
        put(Q, 3, conversation_input=[USER, {"role": "user", "content": [{"type": "text", "text": "Hi"}]}]),
        r'queries\.jsonl:3: field "conversation_input\[1\]\.content": expected str, got list',
    ),
    Broken(
        "turn without content",
        put(Q, 3, conversation_input=[{"role": "user"}]),
        r'\[0\]\.content": is missing',
    ),
    Broken(
        "references as list",
        put(Q, 3, references=["a"]),
        r':3: field "references": expected object.*, got list',
    ),
    # Checklists.
    Broken(
        "checklist twice",
        again(C, 2),
        r"checklist\.jsonl:4: field \"session_id\": 'q2' is already in line 2; keep one",
    ),
    Broken(
        "another checklist in the query",
        put(Q, 2, checklist=["Is it so?"]),
        r"queries\.jsonl:2: field \"checklist\": session 'q2' has another checklist in .*:2; keep one",
    ),
    Broken(
        "blank item",
        put(C, 2, checklist=["Is it?", " \n"]),
        r'checklist\.jsonl:2: field "checklist\[1\]": is blank',
    ),
    Broken(
        "item twice",
        put(C, 2, checklist=["Is it?", "Was it?", "Is it? "]),
        r"checklist\.jsonl:2: field \"checklist\[2\]\": repeats an earlier item, 'Is it\? '; give a list",
    ),
    Broken(
        "item not a string",
        put(C, 1, checklist=["Is it?", 3]),
        r':1: field "checklist\[1\]": expected str, got int',
    ),
    Broken(
        "null checklist",
        put(C, 1, checklist=None),
        r'checklist\.jsonl:1: field "checklist": expected str \| list',
    ),
    Broken(
        "unparsed string",
        put(C, 3, checklist="1. Is it?\n2. Was it?"),
        r'checklist\.jsonl:3: field "checklist": is one string: unparsed model output\?; give a list',
    ),
    Broken(
        "unparsed item",
        put(C, 3, checklist=["Is it?\nWas it?"]),
        r'checklist\.jsonl:3: field "checklist\[0\]": the only item holds several lines or questions',
    ),
    Broken(
        "unparsed line",
        put(C, 3, checklist=["1. Is it? 2. Was it?"]),
        r"the only item holds several lines or",
    ),
    Broken(
        "unparsed in query",
        put(Q, 3, checklist="Is it?"),
        r'queries\.jsonl:3: field "checklist": is one string',
    ),
    Broken(
        "weight below 0",
        put(C, 2, weights=[1, None, -0.5]),
        r'checklist\.jsonl:2: field "weights\[2\]": is -0\.5; give a number of 0 or more for each item',
    ),
    Broken(
        "too large weight",
        raw(C, 3, b'{"session_id": "q3", "checklist": ["Is it?"], "weights": [1e999]}\n'),
        r'checklist\.jsonl:3: field "weights\[0\]": number out of range; give a number of 0 or more',
    ),
    Broken(
        "true as a weight",
        put(C, 1, weights=[1, True]),
        r'checklist\.jsonl:1: field "weights\[1\]": expected float \| null, got bool; give a number',
    ),
    Broken(
        "weights of other items",
        put(C, 2, weights=[1, 2]),
        r"checklist\.jsonl:2: field \"weights\": has 2 entries for the 3 items of 'q2'; give a number",
    ),
    Broken(
        "weights of an empty checklist",
        put(C, 2, checklist=[], weights=[1]),
        r"checklist\.jsonl:2: field \"weights\": has 1 entries for the 0 items of 'q2'",
    ),
    Broken(
        "weights that are all 0",
        put(C, 2, weights=[0, None, 0.0]),
        r'checklist\.jsonl:2: field "weights": has no weight above 0, so that nothing would count; give a number',
    ),
    Broken(
        "weights by item",
        put(C, 3, weights={"Does it greet Zoë?": 1}),
        r'checklist\.jsonl:3: field "weights": expected list \| null, got object',
    ),
    Broken(
        "categories of other items",
        put(C, 3, categories=["a", "b"]),
        r"checklist\.jsonl:3: field \"categories\": has 2 entries for the 1 items of 'q3'; give a string",
    ),
    Broken(
        "blank category",
        put(C, 2, categories=[None, " ", "form"]),
        r'checklist\.jsonl:2: field "categories\[1\]": is blank; give a string for each item',
    ),
    Broken(
        "number as a category",
        put(C, 3, categories=[3]),
        r'checklist\.jsonl:3: field "categories\[0\]": expected str \| null, got int',
    ),
    Broken(
        "weights of another type in the query",
        put(Q, 3, checklist=["Does it greet Zoë?"], weights="heavy"),
        r'queries\.jsonl:3: field "weights": expected list \| null, got str; give a number',
    ),
    Broken(
        "other weights in the query",
        many(put(Q, 3, checklist=["Does it greet Zoë?"], weights=[2]), put(C, 3, weights=[3])),
        r"queries\.jsonl:3: field \"weights\": session 'q3' has others in .*checklist\.jsonl:3; keep one of the two",
    ),
    Broken(
        "categories only in the query",
        put(Q, 3, checklist=["Does it greet Zoë?"], categories=["tone"]),
        r"queries\.jsonl:3: field \"categories\": session 'q3' has others in .*checklist\.jsonl:3; keep one",
    ),
    Broken(
        "every checklist empty",
        many(*(put(C, line, checklist=[]) for line in (1, 2, 3))),
        r"no query has a checklist; expected",
    ),
    # Responses.
    Broken(
        "response twice",
        again(A, 2),
        r"alpha\.jsonl:4: field \"session_id\": 'q2' is already in line 2; keep one",
    ),
    Broken(
        "no output",
        drop(A, 1, "output"),
        r'response/alpha\.jsonl:1: field "output": is missing; give the answer',
    ),
    Broken(
        "null output",
        put(A, 1, output=None),
        r':1: field "output": expected str \| list, got null; give the answer',
    ),
    Broken(
        "number as output",
        put(A, 1, output=5),
        r'alpha\.jsonl:1: field "output": expected str \| list, got int',
    ),
    Broken(
        "empty output list",
        put(A, 1, output=[]),
        r'alpha\.jsonl:1: field "output": has 0 texts; .* exactly one',
    ),
    Broken(
        "two outputs",
        put(B, 2, output=["a", "b"]),
        r'beta-7b\.jsonl:2: field "output": has 2 texts; give the',
    ),
    Broken(
        "null in output",
        put(B, 2, output=[None]),
        r'beta-7b\.jsonl:2: field "output\[0\]": expected str, got null',
    ),
    Broken(
        "mixed generators",
        put(A, 3, generator="gamma"),
        r"alpha\.jsonl:3: field \"generator\": is 'gamma', but 'alpha' in line 1; a file holds",
    ),
    Broken(
        "short history",
        put(A, 2, chat_history=["What is a lemma?"]),
        r'alpha\.jsonl:2: field "chat_history": has 1 turns, the query has 3 with the question; give',
    ),
    Broken(
        "long history",
        put(A, 1, chat_history=["a", "b", "c"]),
        r':1: field "chat_history": has 3 turns, the query',
    ),
    Broken(
        "history of numbers",
        put(A, 1, chat_history=[1]),
        r'alpha\.jsonl:1: field "chat_history\[0\]": expected str',
    ),
    Broken(
        "history of other roles",
        put(A, 2, chat_history=[USER, USER]),
        r"alpha\.jsonl:2: field \"chat_history\": turn 2 is of 'user', in the query of 'assistant'",
    ),
    # Labels.
    Broken(
        "score of another model",
        put(S, 2, model_test="beta-7b"),
        r"score/gpt-4/alpha\.jsonl:2: field \"model_test\": 'beta-7b' in the file of 'alpha'; a file",
    ),
    Broken(
        "org of another model",
        put(S, 2, model_test="org/alpha-2"),
        r"\"model_test\": 'org/alpha-2' in the file of",
    ),
    Broken(
        "score twice",
        again(S, 1),
        r"score/gpt-4/alpha\.jsonl:4: field \"session_id\": '00123' is already in line 1",
    ),
    Broken(
        "no score",
        drop(S, 1, "score"),
        r'score/gpt-4/alpha\.jsonl:1: field "score": is missing; give a finite',
    ),
    Broken(
        "score in words",
        put(S, 1, score="8/10"),
        r"alpha\.jsonl:1: field \"score\": '8/10' is not a number; give a",
    ),
    Broken("score nan", put(S, 1, score="nan"), r"alpha\.jsonl:1: field \"score\": 'nan' is not a number"),
    Broken(
        "score too large",
        put(S, 1, score="1e999"),
        r'alpha\.jsonl:1: field "score": is not finite; give a finite',
    ),
    Broken("score as bool", put(S, 1, score=True), r'alpha\.jsonl:1: field "score": expected .*, got bool'),
    Broken("score as list", put(S, 1, score=[1]), r'alpha\.jsonl:1: field "score": expected .*, got list'),
    Broken(
        "judgments missing an item",
        put(G, 2, judgment=["Yes", "No"]),
        r"gold_judgment/human/alpha\.jsonl:2: field \"judgment\": has 2 answers to the 3 items of 'q2'",
    ),
    Broken(
        "unclear judgment",
        put(G, 3, judgment=["Maybe"]),
        r":3: field \"judgment\[0\]\": 'Maybe' is no answer; give",
    ),
    Broken(
        "judgment over 1",
        put(G, 3, judgment=[1.5]),
        r'human/alpha\.jsonl:3: field "judgment\[0\]": 1\.5 is no answer',
    ),
    Broken(
        "judgment as text",
        put(G, 3, judgment="Yes"),
        r'human/alpha\.jsonl:3: field "judgment": expected list',
    ),
    Broken(
        "no judgment",
        drop(G, 3, "judgment"),
        r'human/alpha\.jsonl:3: field "judgment": is missing; give one "Yes"',
    ),
    Broken(
        "item ids with a gap",
        many(
            drop(G, 1, "judgment"),
            put(G, 1, checklist_wise_evaluation=[{"checklist_id": i, "evaluation_score": 1} for i in (0, 2)]),
        ),
        r'alpha\.jsonl:1: field "checklist_wise_evaluation": has the ids \[0, 2\]; give one number',
    ),
]
