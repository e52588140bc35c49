"""Reads a benchmark's folder in the layout of RocketEval and WildBench.

    queries.jsonl | query.jsonl                  {"session_id", "conversation_input": [{"role", "content"}]}
    checklist.jsonl | checklist/checklist.jsonl  {"session_id", "checklist": [...]}, or in the queries;
                                                 beside it, if you like, "weights" and "categories" of its items
    response/<model>.jsonl                       {"session_id", "output": [text], "chat_history": [...]}
    score/<labeler>/<model>.jsonl                {"session_id", "model_test", "score"}
    gold_judgment/<labeler>/<model>.jsonl        {"session_id", "model_test", "judgment": ["Yes", "No", ...]}

Each file may instead be one JSON list (`.json`), and either may be gzipped (`.gz`). Fields that are not read
here are ignored, so a response file has no way to say what was asked: of its `chat_history` only the
assistant turns count.

Every file is read and checked whole, row by row, and then again where it matters: the records of a large benchmark
stay in its files (see `Stored`), so memory does not grow with their texts. A JSON list is parsed whole, which takes
memory for one file at a time; a large .gz is unpacked into a temporary file.
"""

import codecs
import gzip
import math
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from rocketjax.bench.records import (
    Benchmark,
    Checklist,
    Exclusion,
    Label,
    Message,
    Query,
    Response,
    known_categories,
    known_weights,
)
from rocketjax.bench.stored import Content, Ids, Joined, Store, Stored
from rocketjax.errors import RocketError


class _Turn(msgspec.Struct):
    role: str
    content: str


class _Row(msgspec.Struct):
    session_id: str


class _QueryRow(_Row):
    conversation_input: list[_Turn]
    references: dict[str, str | None] | None = None
    checklist: list[str] | str | None = None


class _ChecklistRow(_Row):
    checklist: list[str] | str
    weights: list[float | None] | None = None
    categories: list[str | None] | None = None


class _ResponseRow(_Row):
    output: list[str] | str
    chat_history: list[str | _Turn] | None = None
    generator: str | None = None


class _ScoreRow(_Row):
    score: float | str | None
    model_test: str | None = None


class _ItemScore(msgspec.Struct):
    checklist_id: int
    evaluation_score: float | None


class _JudgmentRow(_Row):
    model_test: str | None = None
    judgment: list[bool | float | str | None] | None = None
    checklist_wise_evaluation: list[_ItemScore] | None = None


Row = TypeVar("Row", bound=_Row)
Opened = TypeVar("Opened")

_QUERY = msgspec.json.Decoder(_QueryRow)
_CHECKLIST = msgspec.json.Decoder(_ChecklistRow)
_RESPONSE = msgspec.json.Decoder(_ResponseRow)
_SCORE = msgspec.json.Decoder(_ScoreRow)
_JUDGMENT = msgspec.json.Decoder(_JudgmentRow)
_RAW_LIST = msgspec.json.Decoder(list[msgspec.Raw])

_SUFFIXES = (".jsonl.gz", ".json.gz", ".jsonl", ".json")
_ROLES = ("system", "user", "assistant")
_LAYOUT = (
    "expected queries.jsonl, checklist.jsonl (or `checklist` in the queries) and response/<model>.jsonl, "
    "each plain or .gz"
)
_ADVICE = {  # what each field has to be, said with every error about it
    "session_id": 'ids are strings that are not blank, as in "00123": a number would lose its zeros',
    "conversation_input": 'give {"role", "content"} turns, roles system, user or assistant, a user turn last',
    "references": 'give an object of strings, {"author": "answer"}, or leave it out',
    "checklist": "give a list of different yes/no questions, one string each",
    "weights": "give a number of 0 or more for each item of the checklist, one above 0, null where it is not known",
    "categories": "give a string for each item of the checklist, null where it is not known",
    "output": "give the answer as a list with exactly one string",
    "chat_history": "give all turns before the question in order, with it or without, or leave the field out",
    "generator": "a file holds the responses of one model, the one it is named after",
    "model_test": "a file holds the labels of one model, the one it is named after",
    "score": "give a finite number, such a number in a string, or null for none",
    "judgment": 'give one "Yes", "No", "N/A" or number from 0 to 1 for each item of the checklist',
    "checklist_wise_evaluation": "give one number from 0 to 1 for each item of the checklist, ids from 0 on",
}
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_LONE_SURROGATE = re.compile(rb"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F]")
_ANSWERS = {"yes": 1.0, "no": 0.0, "n/a": None, "na": None}
_NUMBERED = re.compile(r"\s*1[.)]\s.*\s2[.)]\s", re.DOTALL)


class _At(NamedTuple):
    """A line of a file, for messages and for `Exclusion.where`."""

    path: Path
    line: int

    def error(self, field: str, problem: str, advice: str = "") -> RocketError:
        advice = advice or _ADVICE[re.split(r"[.\[]", field)[0]]
        return RocketError(f'{_show(self.path)}:{self.line}: field "{field}": {problem}; {advice}')

    def where(self, root: Path) -> str:
        return f"{_within(root, self.path)}:{self.line}"


def load_benchmark(path: str | os.PathLike[str]) -> Benchmark:
    """Reads the benchmark in the folder `path`; the layout is at the top of this file.

    In comes a folder, out a Benchmark whose records refer only to each other. What had to be left out
    (queries without a checklist, missing responses) is in its `exclusions`, each with a reason and a place.
    All else that is not as it should be raises RocketError with file, line, field and what to do; so does a record,
    when it is looked at, whose file was changed since.
    """
    root = Path(os.fsdecode(path))
    found = _list(root)
    load = _read_queries(root, found)
    checklists = _read_checklists(load, found)
    responses = _read_responses(load, found, checklists)
    labels: dict[str, dict[str, Mapping[str, Label]]] = {}
    for labeler, model, file in _label_files(root, "score", found):
        if model in responses:
            labels.setdefault(labeler, {})[model] = _read_scores(load, file, labeler, model)
        else:
            load.leave_out("", model, "unknown_model", _within(root, file))
    for labeler, model, file in _label_files(root, "gold_judgment", found):
        if model in responses:
            by_model = labels.setdefault(labeler, {})
            judged = _read_judgments(load, file, labeler, model, checklists)
            by_model[model] = Joined(by_model[model], judged, _join) if model in by_model else judged
        else:
            load.leave_out("", model, "unknown_model", _within(root, file))
    return Benchmark(
        name=_show(os.path.basename(os.path.abspath(root)) or "benchmark"),
        path=_show(root),
        queries=load.queries,
        checklists=checklists,
        responses=responses,
        labels=labels,
        exclusions=tuple(sorted(load.left_out, key=lambda e: (e.reason, e.model, e.session_id, e.where))),
    )


class _Load(NamedTuple):
    """What the files after the queries are read against, and what they left out so far."""

    root: Path
    asked: Path
    """The file of the queries."""
    store: Store
    ids: Ids
    queries: Stored[Query]
    checked: set[str]
    """Sessions whose query has a checklist of its own."""
    ambiguous: set[str]
    left_out: list[Exclusion]

    def leave_out(self, session_id: str, model: str, reason: str, where: str) -> None:
        self.left_out.append(Exclusion(session_id, model, reason, where))

    def rows(
        self, content: Content, file: Path, model: str, decoder: msgspec.json.Decoder[Row]
    ) -> Iterator[tuple[_At, Row, int, bytes]]:
        """The file's rows, one for a session at most; those of a session without a query are left out."""
        seen: dict[str, int] = {}
        for at, row, start, text in _rows(file, content, decoder):
            session_id = row.session_id
            if session_id in self.ambiguous:
                continue
            if session_id in seen:
                raise _duplicate(at, session_id, seen[session_id])
            seen[session_id] = at.line
            if session_id in self.queries:
                yield at, row, start, text
            else:
                self.leave_out(session_id, model, "unknown_session", at.where(self.root))


def _read_queries(root: Path, found: list[str]) -> _Load:
    """The queries, checked.

    One question given twice is a slip in the file, an error. One id for two different questions comes from
    upstream (StructFlowBench has three): no checklist or response then says which it means, so the session is
    left out.
    """
    file = _one(root, found, ["queries", "query"])
    if file is None:
        raise RocketError(f"{_show(root)}: no queries; {_LAYOUT}; the folder holds {_names(found)}")
    store, ids = Store(), Ids()
    content = _content(file, store)
    known = _At(file, 0)

    def decode(session_id: str, text: bytes) -> Query:
        return _query(known, _QUERY.decode(text))

    queries = Stored(ids, [content], decode)
    namesakes: dict[str, list[tuple[_At, Query]]] = {}  # of ids that are there more than once
    checked: set[str] = set()
    for at, row, start, text in _rows(file, content, _QUERY):
        query = _query(at, row)
        session_id = query.session_id
        if session_id in queries:
            first = queries.place(session_id).line
            same = namesakes.setdefault(session_id, [(_At(file, first), queries[session_id])])
            for other_at, other in same:
                if other.messages == query.messages:
                    raise _duplicate(at, session_id, other_at.line)
            same.append((at, query))
            continue
        queries.add(session_id, at.line, start, text)
        if row.checklist is not None:
            checked.add(ids.names[-1])
    load = _Load(root, file, store, ids, queries.only(queries.keys() - namesakes.keys()), checked, set(namesakes), [])
    for session_id, same in namesakes.items():
        for at, _ in same:
            load.leave_out(session_id, "", "duplicate_session", at.where(root))
    return load


def _read_checklists(load: _Load, found: list[str], needed: bool = True) -> Stored[Checklist]:
    """The checklists of their own file, of the queries, or of both where they agree; where they are needed, there must
    be one."""
    file = _one(load.root, found, ["checklist", "checklist/checklist"])
    contents = [*load.queries.contents, *([_content(file, load.store)] if file else [])]

    def decode(session_id: str, text: bytes) -> Checklist:
        row = _CHECKLIST.decode(text)
        weights, categories = known_weights(row.weights or ()), known_categories(row.categories or ())
        return Checklist(session_id, tuple(row.checklist), weights, categories)

    in_file = Stored(load.ids, contents, decode)
    empty: dict[str, int] = {}  # sessions with a checklist of no items, and its line
    if file:
        for at, row, start, text in load.rows(contents[1], file, "", _CHECKLIST):
            if _weighed(at, row):
                in_file.add(row.session_id, at.line, start, text, content=1)
            else:
                empty[row.session_id] = at.line
    checklists = Stored(load.ids, contents, decode)
    for session_id in load.queries:
        place = load.queries.place(session_id)
        at = _At(load.asked, place.line)
        items: tuple[str, ...] = ()
        if session_id in load.checked:
            text = load.queries.text(session_id)
            items = _items(at, _QUERY.decode(text).checklist or [])
            if items:  # only beside items are other fields those of a checklist
                _weighed(at, _row(at, _CHECKLIST, text))
        if session_id in in_file or session_id in empty:
            line = in_file.place(session_id).line if session_id in in_file else empty[session_id]
            if items and (session_id in empty or items != in_file[session_id].items):
                problem = f"session {session_id!r} has another checklist in {contents[1].name}:{line}"
                raise at.error("checklist", problem, advice="keep one of the two")
            for field in ("weights", "categories") if items else ():
                own = getattr(decode(session_id, load.queries.text(session_id)), field)
                if own is not None and own != getattr(in_file[session_id], field):
                    problem = f"session {session_id!r} has others in {contents[1].name}:{line}"
                    raise at.error(field, problem, advice="keep one of the two")
        if session_id in in_file:
            checklists.put(session_id, in_file.place(session_id))
        elif session_id in empty:
            assert file is not None
            load.leave_out(session_id, "", "empty_checklist", _At(file, empty[session_id]).where(load.root))
        elif items:
            checklists.put(session_id, place)
        else:
            load.leave_out(session_id, "", "no_checklist", at.where(load.root))
    if needed and not checklists:
        here = f"{_show(load.root)}: no query has a checklist"
        raise RocketError(f"{here}; {_LAYOUT}; the folder holds {_names(found)}")
    return checklists


def _read_responses(load: _Load, found: list[str], checklists: Mapping[str, Checklist]) -> dict[str, Stored[Response]]:
    """The responses by model. The file's name is the model's; `generator` shows that files got mixed."""
    files = _models(load.root / "response") if "response" in found else {}
    if not files:
        raise RocketError(f"{_show(load.root)}: no responses; {_LAYOUT}; the folder holds {_names(found)}")
    responses: dict[str, Stored[Response]] = {}
    for model, file in files.items():
        content = _content(file, load.store)
        answers = responses[model] = Stored(load.ids, [content], _decoder_of(model, file, load.queries))
        generators: dict[str, _At] = {}
        for at, row, start, text in load.rows(content, file, model, _RESPONSE):
            if row.generator is not None:
                generators.setdefault(row.generator, at)
            if len(generators) > 1:
                name, first = next(iter(generators.items()))
                raise at.error("generator", f"is {row.generator!r}, but {name!r} in line {first.line}")
            _response(at, row, model, load.queries)
            answers.add(row.session_id, at.line, start, text)
        for session_id in checklists.keys() - answers.keys():
            load.leave_out(session_id, model, "missing_response", _within(load.root, file))
    if not any(responses.values()):
        raise RocketError(
            f"{_show(load.root / 'response')}: no response has the session_id of a query; "
            "are these the responses to another benchmark?"
        )
    return responses


def _decoder_of(model: str, file: Path, queries: Mapping[str, Query]) -> Callable[[str, bytes], Response]:
    """What makes a response of a row that was checked."""
    known = _At(file, 0)
    return lambda session_id, text: _response(known, _RESPONSE.decode(text), model, queries)


def _read_scores(load: _Load, file: Path, labeler: str, model: str) -> Stored[Label]:
    content = _content(file, load.store)
    known = _At(file, 0)

    def decode(session_id: str, text: bytes) -> Label:
        return Label(session_id, model, labeler, _score(known, _SCORE.decode(text).score), None)

    labels = Stored(load.ids, [content], decode)
    for at, row, start, text in load.rows(content, file, model, _SCORE):
        _check_model(at, row.model_test, model)
        if _score(at, row.score) is None:
            load.leave_out(row.session_id, model, "no_score", at.where(load.root))
        else:
            labels.add(row.session_id, at.line, start, text)
    return labels


def _read_judgments(
    load: _Load, file: Path, labeler: str, model: str, checklists: Mapping[str, Checklist]
) -> Stored[Label]:
    content = _content(file, load.store)
    known = _At(file, 0)

    def decode(session_id: str, text: bytes) -> Label:
        return Label(session_id, model, labeler, None, _answers(known, _JUDGMENT.decode(text), None))

    labels = Stored(load.ids, [content], decode)
    for at, row, start, text in load.rows(content, file, model, _JUDGMENT):
        _check_model(at, row.model_test, model)
        _answers(at, row, checklists.get(row.session_id))
        labels.add(row.session_id, at.line, start, text)
    return labels


def _join(scored: Label, judged: Label) -> Label:
    return msgspec.structs.replace(judged, score=scored.score)


# What the rows mean.


def _query(at: _At, row: _QueryRow) -> Query:
    for i, turn in enumerate(row.conversation_input):
        if turn.role not in _ROLES:
            raise at.error(f"conversation_input[{i}].role", f"unknown role {turn.role!r}")
    if not row.conversation_input:
        raise at.error("conversation_input", "has no turns")
    if row.conversation_input[-1].role != "user":
        raise at.error("conversation_input", f"ends with the turn of the {row.conversation_input[-1].role}")
    return Query(
        session_id=row.session_id,
        messages=tuple(Message(turn.role, turn.content) for turn in row.conversation_input),
        references={author: text for author, text in (row.references or {}).items() if text is not None},
    )


def _items(at: _At, checklist: list[str] | str) -> tuple[str, ...]:
    """The items, checked: a checklist that is still a model's raw text would be graded as one question."""
    if isinstance(checklist, str):
        raise at.error("checklist", "is one string: unparsed model output?")
    for i, item in enumerate(checklist):
        if not item.strip():
            raise at.error(f"checklist[{i}]", "is blank")
        if item.strip() in (earlier.strip() for earlier in checklist[:i]):
            raise at.error(f"checklist[{i}]", f"repeats an earlier item, {item!r}")
    only = checklist[0].strip() if len(checklist) == 1 else ""
    if len(only.splitlines()) > 1 or _NUMBERED.match(only):
        raise at.error("checklist[0]", "the only item holds several lines or questions: unparsed model output?")
    return tuple(checklist)


def _weighed(at: _At, row: _ChecklistRow) -> tuple[str, ...]:
    """The items, checked, and with them their weights and categories."""
    items = _items(at, row.checklist)
    for field in ("weights", "categories"):
        given = getattr(row, field)
        if given is not None and len(given) != len(items):
            raise at.error(field, f"has {len(given)} entries for the {len(items)} items of {row.session_id!r}")
    for i, weight in enumerate(row.weights or ()):
        if weight is not None and not 0 <= weight < math.inf:
            raise at.error(f"weights[{i}]", f"is {weight:g}")
    known = [weight for weight in row.weights or () if weight is not None]
    if known and not any(known):
        raise at.error("weights", "has no weight above 0, so that nothing would count")
    for i, category in enumerate(row.categories or ()):
        if category is not None and not category.strip():
            raise at.error(f"categories[{i}]", "is blank")
    return items


def _response(at: _At, row: _ResponseRow, model: str, queries: Mapping[str, Query]) -> Response:
    history = _history(at, row.chat_history, queries[row.session_id]) if row.chat_history else None
    return Response(row.session_id, model, _text(at, row.output), history)


def _text(at: _At, output: list[str] | str) -> str:
    if isinstance(output, str):
        return output
    if len(output) != 1:
        raise at.error("output", f"has {len(output)} texts")
    return output[0]


def _history(at: _At, given: list[str | _Turn], query: Query) -> tuple[Message, ...] | None:
    """The query's earlier turns with the model's own assistant turns in place; None if they are the same.

    Files hold the turns before the question, or those and the question (WildBench, MT-Bench: the history of a
    first turn is the question alone). Both are matched to the query by place; user and system turns are the
    query's, whatever the file says.
    """
    system, turns = query.messages[0], [m for m in query.messages if m.role != "system"]
    given = [entry for entry in given if isinstance(entry, str) or entry.role != "system"]
    if system.role == "system" and given and given[0] == system.content != turns[0].content:
        given = given[1:]  # plain strings that begin with the system turn
    if not given:
        return None
    if len(given) not in (len(turns) - 1, len(turns)):
        raise at.error("chat_history", f"has {len(given)} turns, the query has {len(turns)} with the question")
    for i, (entry, turn) in enumerate(zip(given, turns, strict=False)):
        if isinstance(entry, _Turn) and entry.role != turn.role:
            raise at.error("chat_history", f"turn {i + 1} is of {entry.role!r}, in the query of {turn.role!r}")
    texts = iter([entry if isinstance(entry, str) else entry.content for entry in given])
    earlier = []
    for message in query.messages[:-1]:
        text = message.content if message.role == "system" else next(texts)
        earlier.append(Message("assistant", text) if message.role == "assistant" else message)
    history = tuple(earlier)
    return None if history == query.messages[:-1] else history


def _check_model(at: _At, model_test: str | None, model: str) -> None:
    """WildBench says org/name, which a file's name cannot hold, and names some files name-greedy."""
    if model_test is None or model_test == model:
        return
    organisation, _, name = model_test.rpartition("/")
    if not organisation or model not in (name, f"{name}-greedy"):
        raise at.error("model_test", f"{model_test!r} in the file of {model!r}")


def _score(at: _At, score: float | str | None) -> float | None:
    if isinstance(score, str):
        if not _NUMBER.fullmatch(score.strip()):
            raise at.error("score", f"{score!r} is not a number")
        score = float(score)
    if score is not None and not math.isfinite(score):
        raise at.error("score", "is not finite")
    return score


def _answers(at: _At, row: _JudgmentRow, checklist: Checklist | None) -> tuple[float | None, ...]:
    field, given = "judgment", row.judgment
    if given is None and row.checklist_wise_evaluation is not None:  # HelloBench's form
        field = "checklist_wise_evaluation"
        by_id = sorted(row.checklist_wise_evaluation, key=lambda item: item.checklist_id)
        if [item.checklist_id for item in by_id] != list(range(len(by_id))):
            raise at.error(field, f"has the ids {[item.checklist_id for item in by_id]}")
        given = [item.evaluation_score for item in by_id]
    if given is None:
        raise at.error(field, "is missing")
    if checklist is not None and len(given) != len(checklist.items):
        raise at.error(field, f"has {len(given)} answers to the {len(checklist.items)} items of {row.session_id!r}")
    answers: list[float | None] = []
    for i, value in enumerate(given):
        if isinstance(value, str) and value.strip().lower() in _ANSWERS:
            answers.append(_ANSWERS[value.strip().lower()])
        elif value is None or (not isinstance(value, str) and 0 <= value <= 1):
            answers.append(None if value is None else float(value))
        else:
            raise at.error(f"{field}[{i}]", f"{value!r} is no answer")
    return tuple(answers)


# Files and folders.


def _content(path: Path, store: Store) -> Content:
    """The file's bytes, checked as `_data` checks them, and that they hold anything."""
    content = _opened(path, lambda: store.take(path, _show(path)))
    decoder = codecs.getincrementaldecoder("utf-8")()
    newlines, blank, last = 0, True, b""
    try:
        first = content.read(0, len(codecs.BOM_UTF8))
        _no_gzip(path, first)
        if first == codecs.BOM_UTF8:
            content.start, content.size = content.start + len(first), content.size - len(first)
        for block in content.blocks():
            decoder.decode(block)
            newlines += block.count(b"\n")
            blank, last = blank and not block.strip(b"\r\n\t []"), block[-1:]
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:  # what it was given begins at the last character of the block before
        raise _not_utf8(path, newlines + error.object.count(b"\n", 0, error.start) + 1, error) from None
    except OSError as error:
        raise _unreadable(path, error) from None
    if blank:
        raise RocketError(f"{_show(path)}: has no rows; an unfinished copy? Fill it or remove it")
    content.newlines, content.cut_off = newlines, not last.isspace()
    return content


def _rows(path: Path, content: Content, decoder: msgspec.json.Decoder[Row]) -> Iterator[tuple[_At, Row, int, bytes]]:
    """Every row of the file with its line, and the place and text of it; at least one."""
    texts: Iterator[tuple[int, int, bytes]]
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        texts = ((line, start, text) for line, start, text in content.lines() if text and not text.isspace())
    else:
        texts = _list_rows(path, b"".join(content.blocks()))
    for line, start, text in texts:
        at = _At(path, line)
        try:
            row = _row(at, decoder, text)
        except (msgspec.DecodeError, RecursionError) as error:
            raise _not_json(at, str(error), text, content.cut_off and line == content.newlines + 1) from None
        if not row.session_id.strip():
            raise at.error("session_id", "is blank")
        yield at, row, start, text
    if content.changed():
        raise RocketError(f"{_show(path)}: was changed while it was read; begin again once it is whole")


def _row(at: _At, decoder: msgspec.json.Decoder[Row], text: bytes) -> Row:
    """The row that the text holds; RocketError where a field is of another type."""
    try:
        return decoder.decode(text)
    except msgspec.ValidationError as error:
        raise _wrong_field(at, str(error)) from None


def _opened(path: Path, read: Callable[[], Opened]) -> Opened:
    """What `read` makes of the file; RocketError where that cannot be read."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a folder, or a pipe that would block
            raise RocketError(f"{_show(path)}: is not a file; expected one in its place, or nothing")
        return read()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise RocketError(f"{_show(path)}: not a whole gzip file ({error}); copy it again") from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def _data(path: Path) -> bytes:
    """All bytes of a file, unpacked, UTF-8, without a byte order mark."""
    data = _opened(path, lambda: gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())
    _no_gzip(path, data)
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise _not_utf8(path, data.count(b"\n", 0, error.start) + 1, error) from None
    return data.removeprefix(codecs.BOM_UTF8)


def _no_gzip(path: Path, data: bytes) -> None:
    if data.startswith(b"\x1f\x8b"):
        advice = "decompress it once" if path.suffix == ".gz" else "add .gz to its name"
        raise RocketError(f"{_show(path)}: holds gzip data; {advice}")


def _not_utf8(path: Path, line: int, error: UnicodeDecodeError) -> RocketError:
    return RocketError(f"{_show(path)}:{line}: not UTF-8 ({error.reason}); save the file as UTF-8")


def _lines(path: Path, data: bytes) -> Iterator[tuple[int, bytes]]:
    """Line number and text of every row, of JSON lines or of one JSON list."""
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        yield from ((n, text) for n, text in enumerate(data.split(b"\n"), start=1) if text.strip())
    else:
        yield from ((line, text) for line, _, text in _list_rows(path, data))


def _list_rows(path: Path, data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Line number, place and text of every row of one JSON list."""
    try:
        rows = _RAW_LIST.decode(data)
    except msgspec.ValidationError:
        raise RocketError(f"{_show(path)}:1: is no JSON list; JSON lines are named .jsonl") from None
    except (msgspec.DecodeError, RecursionError) as error:
        byte = re.search(r"\(byte (\d+)\)", str(error))
        end = int(byte[1]) if byte else len(data.rstrip())
        raise _not_json(_At(path, data.count(b"\n", 0, end) + 1), str(error), data, byte is None) from None
    line, position = 1, 0
    for row in rows:
        text = bytes(row)
        start = data.index(text, position)  # between rows there is only white space and a comma
        line, position = line + data.count(b"\n", position, start), start
        yield line, start, text
        line, position = line + text.count(b"\n"), start + len(text)


def _wrong_field(at: _At, message: str) -> RocketError:
    """A msgspec.ValidationError, "Expected `str`, got `int` - at `$.output[0]`", in the terms of the file."""
    problem, _, place = message.partition(" - at `$")
    field = place.rstrip("`").lstrip(".")
    missing = re.fullmatch(r"Object missing required field `(.*)`", problem)
    if missing:
        return at.error(f"{field}.{missing[1]}".lstrip("."), "is missing")
    problem = problem.replace("`", "").replace("array", "list")
    if not field:
        advice = "one JSON object per line; a file that is one list is named .json"
        return RocketError(f"{_show(at.path)}:{at.line}: {problem[:1].lower() + problem[1:]}; {advice}")
    return at.error(field, problem[:1].lower() + problem[1:])


def _not_json(at: _At, problem: str, text: bytes, last: bool) -> RocketError:
    if _LONE_SURROGATE.search(text):
        advice = "an escape such as \\ud83d stands for half a character; write the whole one or remove it"
    elif last:
        advice = "the file looks cut off here; copy it again or remove the line"
    else:
        advice = "mend or remove it"
    return RocketError(f"{_show(at.path)}:{at.line}: not valid JSON ({problem}); {advice}")


def _duplicate(at: _At, session_id: str, first: int) -> RocketError:
    problem = f"{session_id!r} is already in line {first}"
    return at.error("session_id", problem, advice="keep one of the two")


def _list(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except NotADirectoryError:
        raise RocketError(f"{_show(folder)}: is a file, expected a folder; {_LAYOUT}") from None
    except (OSError, ValueError) as error:
        raise _unreadable(folder, error) from None


def _one(root: Path, found: list[str], stems: list[str]) -> Path | None:
    """The one file with such a name, or None; two of them would have to be told apart by guessing."""
    names = set(found)
    if any("/" in stem for stem in stems) and "checklist" in names:
        names |= {f"checklist/{name}" for name in _list(root / "checklist")}
    paths = [root / (stem + suffix) for stem in stems for suffix in _SUFFIXES if stem + suffix in names]
    if len(paths) > 1:
        raise RocketError(f"{_show(root)}: holds both {_names(paths, root)}; remove all but one")
    return paths[0] if paths else None


def _models(folder: Path) -> dict[str, Path]:
    """The files of a folder by the model they are named after, without notes (.md, .txt) and hidden files."""
    files: dict[str, Path] = {}
    for name in _list(folder):
        path = folder / name
        if name.endswith((".md", ".txt")):
            continue
        suffix = next((s for s in _SUFFIXES if name.endswith(s)), None)
        if suffix is None:
            raise RocketError(f"{_show(path)}: expected <model>.jsonl, .json or .gz of these; rename or move it")
        model = name.removesuffix(suffix)
        if model != _show(model):
            raise RocketError(f"{_show(path)}: the file's name is not UTF-8; rename it")
        if model in files:
            both = _names([files[model], path], folder)
            raise RocketError(f"{_show(folder)}: holds both {both}; remove all but one")
        files[model] = path
    return files


def _label_files(root: Path, kind: str, found: list[str]) -> Iterator[tuple[str, str, Path]]:
    """(labeler, model, file) of <kind>/<labeler>/<model>.jsonl."""
    for labeler in _list(root / kind) if kind in found else ():
        folder = root / kind / labeler
        if labeler.endswith((".md", ".txt")):
            continue
        if os.path.isfile(folder):
            raise RocketError(f"{_show(folder)}: expected {kind}/<labeler>/<model>.jsonl; move it")
        if labeler != _show(labeler):
            raise RocketError(f"{_show(folder)}: the folder's name is not UTF-8; rename it")
        for model, path in _models(folder).items():
            yield labeler, model, path


def _unreadable(path: Path, error: OSError | ValueError) -> RocketError:
    why = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return RocketError(f"{_show(path)}: cannot be read ({why.lower()}); check the path and its permissions")


def _names(paths: Iterable[Path | str], root: Path | None = None) -> str:
    names = [_show(Path(p).relative_to(root) if root else Path(p)) for p in paths]
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "") or "nothing"


def _show(path: Path | str) -> str:
    """The path as text that can always be printed, also where a name is not UTF-8."""
    return str(path).encode(errors="surrogatepass").decode(errors="replace")


def _within(root: Path, path: Path) -> str:
    """The path below the benchmark's folder: the same on every machine."""
    return _show(path.relative_to(root)).replace(os.sep, "/")
