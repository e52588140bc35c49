"""A user's own data: answers in a table with named columns, and checklists in a file."""

import contextlib
import os
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from rocketjax.bench.importers.columns import SUFFIXES, Cells, Table, read_table
from rocketjax.bench.importers.source import Draft, Item, Source, hashed, listed
from rocketjax.bench.read import _data, _show
from rocketjax.bench.records import Message
from rocketjax.errors import RocketError

SESSION, QUESTION, ITEMS = ("session_id", "session"), ("question",), ("items", "item", "checklist")
WEIGHTS, CATEGORIES = ("weights", "weight"), ("categories", "category")
ANSWERS = ("response", "answer")


class Checklists:
    """Items that the user gives: the same for every question, or by session or question (surrounding space aside)."""

    def __init__(
        self, everywhere: list[Item], by_session: dict[str, list[Item]], by_question: dict[str, list[Item]]
    ) -> None:
        self.everywhere, self.by_session, self.by_question = everywhere, by_session, by_question
        self._used: set[tuple[str, str]] = set()

    def of(self, session_id: str, question: str) -> list[Item] | None:
        """The items for a query, None if there are none for it."""
        for kind, key, lists in (("s", session_id, self.by_session), ("q", question.strip(), self.by_question)):
            if key in lists:
                self._used.add((kind, key))
                return lists[key]
        return self.everywhere or None

    @property
    def unused(self) -> int:
        """How many checklists were for no query so far."""
        return len(self.by_session) + len(self.by_question) - len(self._used)


def read_checklists(path: str | os.PathLike[str]) -> tuple[Checklists, dict[str, str]]:
    """Checklists from a file, and its SHA-256 by its name.

    A file of text (any suffix but those of tables) has one item per line, for all questions. A table has a column
    `items`, `item` or `checklist` (a list of texts, or a text with an item per line) and says whose they are in
    `session_id` or `session`, or in `question`; several rows of one are one checklist. Without such a column the items
    are for all questions. Columns `weights` or `weight` and `categories` or `category`, where they are there, have one
    entry for all items of the row, or as many as the row has items, in the same forms.
    """
    file = Path(os.fsdecode(path))
    source = Source(file)
    if not file.is_file():
        raise RocketError(f"{_show(file)}: is a folder; give the file of the checklist")
    if Path(file.name.removesuffix(".gz")).suffix not in SUFFIXES:
        source.note(file)
        lines = [line.strip() for line in _data(file).decode().splitlines() if line.strip()]
        if not lines:
            raise RocketError(f"{_show(file)}: has no items; write one yes/no question per line")
        return Checklists([Item(line) for line in lines], {}, {}), source.sha256
    table = read_table(source, file)
    session, question, column, weights, categories = (
        next((name for name in names if name in table.columns), None)
        for names in (SESSION, QUESTION, ITEMS, WEIGHTS, CATEGORIES)
    )
    if column is None:
        known = ", ".join(table.columns)
        raise RocketError(f'{_show(file)}: has no column "items", "item" or "checklist"; its columns are {known}')
    everywhere: list[Item] = []
    by_session: dict[str, list[Item]] = {}
    by_question: dict[str, list[Item]] = {}
    for row in table.rows:
        texts = items_of(row, column)
        items = listed(
            texts,
            weights_of(row, weights, len(texts)) if weights else None,
            categories_of(row, categories, len(texts)) if categories else None,
            row.at.error,
            (weights or "", categories or ""),
        )
        if session is not None and row.value.get(session) not in (None, ""):
            by_session.setdefault(row.name(session), []).extend(items)
        elif question is not None:
            by_question.setdefault(row.name(question).strip(), []).extend(items)
        elif session is not None:
            raise row.at.error(session, "is blank", "say whose items these are")
        else:
            everywhere += items
    if not any((everywhere, *by_session.values(), *by_question.values())):
        raise RocketError(f'{_show(file)}: column "{column}" has no items')
    return Checklists(everywhere, by_session, by_question), source.sha256


def items_of(row: Cells, column: str) -> list[str]:
    """The items of a cell: a list of texts, the same written as JSON, or a text with an item per line."""
    value = row.value.get(column)
    if isinstance(value, str) and value.strip().startswith("["):
        with contextlib.suppress(msgspec.DecodeError):  # an item may begin with a bracket
            value = msgspec.json.decode(value, type=list[str])
    if isinstance(value, list):
        if not all(isinstance(item, str) for item in value):
            raise row.at.error(column, "is a list with something else than texts")
        return value
    return [line.strip() for line in (row.text(column) or "").splitlines() if line.strip()]


def weights_of(row: Cells, column: str, count: int) -> list[float | None]:
    """The weights of a row's items: one for all of them, a list, the same written as JSON, or one per line."""
    return [Cells(row.at, {column: weight}).number(column) for weight in entries_of(row, column, count)]


def categories_of(row: Cells, column: str, count: int) -> list[str | None]:
    """The categories of a row's items, in the same forms."""
    return [Cells(row.at, {column: category}).text(column) for category in entries_of(row, column, count)]


def entries_of(row: Cells, column: str, count: int) -> list[Any]:
    """What a cell says of each of `count` items; what is no list, and in one line, is said of all."""
    value = row.value.get(column)
    if isinstance(value, str) and value.strip().startswith("["):
        with contextlib.suppress(msgspec.DecodeError):  # a category may begin with a bracket
            value = msgspec.json.decode(value, type=list[Any])
    if isinstance(value, str) and len(lines := [line for line in value.splitlines() if line.strip()]) > 1:
        value = lines
    return value if isinstance(value, list) else [value] * count


class Columns(NamedTuple):
    """Which columns of a table hold what; None for what the table does not say."""

    question: str
    response: str
    model: str
    session: str | None
    score: str | None
    reference: str | None
    checklist: str | None


def own_table(table: Table, columns: Columns, labeler: str | None, draft: Draft, item: str | None) -> None:
    """A row per answer. A query is its session's, or its question's where no column says the session: the id is then
    the first 16 digits of the SHA-256 of the question.

    With a column of checklists, a query's items are those of its rows that have any. Scores are `labeler`'s, by default
    named as their column. Adds "no_score". A cell of a CSV file that holds nothing is no answer ("no_response"); "" is
    an empty one. A column that is not there is an error with the closest one that is.
    """
    for option, column in columns._asdict().items():
        if column is not None:
            table.require(column, option)
    sessions: list[str] = []
    items: dict[str, list[str]] = {}
    from_row: dict[str, int] = {}
    for row in table.rows:
        session_id = _session(row, columns)
        sessions.append(session_id)
        there = items_of(row, columns.checklist) if columns.checklist is not None else []
        if there and items.setdefault(session_id, there) != there:
            first = from_row[session_id]
            raise row.at.error(columns.checklist or "", f"is another checklist for the question than in row {first}")
        if there:
            from_row.setdefault(session_id, row.at.row)
    for row, session_id in zip(table.rows, sessions, strict=True):
        turns = [Message(role, text) for role, text in row.conversation(columns.question)]
        reference = row.text(columns.reference) if columns.reference is not None else None
        model = row.name(columns.model)
        chosen = items.get(session_id, [item] if item is not None else [])
        if not draft.query(session_id, turns, chosen, {"reference": reference}):
            continue
        if not draft.response(session_id, model, row.text(columns.response)) or columns.score is None:
            continue
        score = row.number(columns.score)
        if score is None:
            draft.skip("no_score")
        else:
            draft.score(session_id, model, labeler or columns.score, score)


def _session(row: Cells, columns: Columns) -> str:
    if columns.session is not None:
        return row.name(columns.session)
    return hashed([Message(role, text) for role, text in row.conversation(columns.question)])
