"""Data sets, each in its source's own schema, into a benchmark's folder: `rocketjax import NAME PATH OUT`."""

import difflib
import functools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from rocketjax import __version__
from rocketjax.bench.importers.arena import Match, read_matches
from rocketjax.bench.importers.columns import read_table
from rocketjax.bench.importers.own import ANSWERS, Checklists, Columns, own_table, read_checklists
from rocketjax.bench.importers.source import MANIFEST, Draft, Item, Source, place, publish, write_manifest
from rocketjax.bench.importers.table import GENERIC_ITEM, IMPORTERS, Importer
from rocketjax.bench.read import load_benchmark
from rocketjax.errors import RocketError

__all__ = [
    "GENERIC_ITEM",
    "IMPORTERS",
    "Imported",
    "Importer",
    "Match",
    "import_benchmark",
    "import_table",
    "read_matches",
]


class Imported(msgspec.Struct, frozen=True):
    """What an import wrote, counted."""

    name: str
    sessions: int
    models: int
    responses: int
    items: int
    """Checklist items over all sessions."""
    yes: int
    """Item labels above 0.5."""
    no: int
    """Item labels below 0.5."""
    undecided: int
    """Item labels of exactly 0.5; N/A is no label."""
    scores: int
    left_out: dict[str, int]
    """How much could not be used, by reason; the reasons are at `Draft` and at each importer."""


def import_benchmark(
    name: str,
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    item: str | None = None,
    checklist: str | os.PathLike[str] | None = None,
    question: str | None = None,
    overwrite: bool = False,
) -> Imported:
    """Imports the data set `name` (a key of IMPORTERS) from a file or folder of its source into folder `out`.

    `item` is the one checklist item of sets that have none of their own, GENERIC_ITEM by default; `checklist` a file
    with their items (see `own.read_checklists`), whose lack of a query leaves it out unless there is an `item` too.
    `question` is for logs whose prompts hold more than the question: the field that holds it. `out` is written
    whole or not at all, reads with `load_benchmark`, and holds an import.json with the source files' sha256, the
    licence and these counts; an existing one is replaced only with `overwrite` and only if it is an import. Raises
    RocketError with file, line and field for rows that are not as the source publishes them, for files that lack,
    and for an `item`, `checklist` or `question` where the set has its own.
    """
    if name not in IMPORTERS:
        known = (*IMPORTERS, "table")
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        guess = f"; did you mean {close[0]!r}?" if close else "."
        other = " (import_table, in Python)" if name == "table" else ""
        raise RocketError(f"no importer for {name!r}{other}{guess} Known: {', '.join(known)}")
    importer = IMPORTERS[name]
    if not importer.generic:
        for what, value in (("an item", item), ("a checklist", checklist)):
            if value is not None:
                raise RocketError(f"{name}: its checklists are its own, so {what} cannot be given")
    if question is not None and not importer.question:
        raise RocketError(f"{name}: its questions are its own, so no field of them can be named")
    about: dict[str, Any] = {
        "description": importer.description,
        "licence": importer.licence,
        "item": (GENERIC_ITEM if item is None else item) if importer.generic else None,
    }
    source, (draft, given, about["checklist"]) = Source(path), begin(name, item, checklist)
    run = importer.run if question is None else functools.partial(importer.run, question=question)
    fill = functools.partial(run, source, draft, GENERIC_ITEM if item is None else item)
    return make(name, about, source, draft, given, fill, out, overwrite)


def import_table(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    question: str = "question",
    response: str | None = None,
    model: str = "model",
    session: str | None = None,
    checklist: str | os.PathLike[str] | None = None,
    item: str | None = None,
    score: str | None = None,
    labeler: str | None = None,
    reference: str | None = None,
    overwrite: bool = False,
) -> Imported:
    """Imports answers from a table with a row each (CSV, TSV, JSON lines, a JSON list or parquet) into folder `out`.

    `question`, `response` (default: `response` or `answer`), `model`, `session`, `score` and `reference` are names of
    columns; a question may be a list of {"role", "content"} turns where the format has lists. Without `session`, a
    query's id is made of its question. `checklist` is a column with the items of the query, one per line or a list, or
    a file (see `own.read_checklists`). Queries without items in it have `item`, or are left out if there is none; with
    neither, all have GENERIC_ITEM. `labeler` says whose the scores are, by default the name of their column. The
    folder is written as by `import_benchmark`. Raises RocketError with file, row and column.
    """
    source = Source(path)
    if not source.path.is_file():
        raise RocketError(f"{source.path}: is a folder; give the one file of the table")
    if labeler is not None and score is None:
        raise RocketError("a labeler is named without a column of scores; name that too")
    table = read_table(source, source.path)
    column = os.fsdecode(checklist) if checklist is not None and os.fsdecode(checklist) in table.columns else None
    if checklist is not None and column is None and not os.path.lexists(checklist):
        what = f"{os.fsdecode(checklist)}: no such file, and {source.path} has no column of that name"
        raise RocketError(f"{what}; its columns are {', '.join(table.columns)}")
    if response is None:
        response = next((name for name in ANSWERS if name in table.columns), ANSWERS[0])
    columns = Columns(question, response, model, session, score, reference, column)
    about: dict[str, Any] = {"description": "a table of answers", "licence": None}
    about["item"] = GENERIC_ITEM if item is None and checklist is None else item
    draft, given, about["checklist"] = begin("table", item, None if column is not None else checklist)
    about["columns"] = columns._asdict()
    fill = functools.partial(own_table, table, columns, labeler, draft, about["item"])
    return make("table", about, source, draft, given, fill, out, overwrite)


def begin(
    name: str, item: str | None, checklist: str | os.PathLike[str] | None
) -> tuple[Draft, Checklists | None, dict[str, str] | None]:
    """A draft, the checklists that a file gives it, and the file's hash."""
    if item is not None and (not item.strip() or len(item.strip().splitlines()) > 1):
        raise RocketError(f"{name}: the item {item!r} is not one line of text")
    if checklist is None:
        return Draft(), None, None
    given, sha256 = read_checklists(checklist)
    other = None if item is None else [Item(item)]
    return Draft(lambda session_id, question: given.of(session_id, question) or other), given, sha256


def make(
    name: str,
    about: dict[str, Any],
    source: Source,
    draft: Draft,
    given: Checklists | None,
    fill: Callable[[], None],
    out: str | os.PathLike[str],
    overwrite: bool,
) -> Imported:
    """Fills the draft and writes it, whole or not at all; `about` goes into the manifest."""
    target = Path(os.path.abspath(os.fsdecode(out)))
    part = place(target, overwrite)
    try:
        fill()
        if given is not None and given.unused:
            draft.skip("unused_checklist", given.unused)
        if not any(draft.responses.values()):
            reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(draft.left_out.items()))
            raise RocketError(f"{source.path}: nothing to import; left out: {reasons or 'nothing'}")
        draft.write(part)
        judged = [p for by in draft.judgments.values() for answers in by.values() for p in answers if p is not None]
        imported = Imported(
            name=name,
            sessions=len(draft.queries),
            models=len(draft.responses),
            responses=sum(map(len, draft.responses.values())),
            items=sum(map(len, draft.checklists.values())),
            yes=sum(p > 0.5 for p in judged),
            no=sum(p < 0.5 for p in judged),
            undecided=sum(p == 0.5 for p in judged),
            scores=sum(map(len, draft.scores.values())),
            left_out=dict(sorted(draft.left_out.items())),
        )
        counts = msgspec.to_builtins(imported)
        left_out = counts.pop("left_out")
        manifest = {
            "name": counts.pop("name"),
            **about,
            "sources": dict(sorted(source.sha256.items())),
            "counts": counts,
            "left_out": left_out,
            "rocketjax": __version__,
        }
        write_manifest(part / MANIFEST, manifest)
        try:
            load_benchmark(part)  # what was written must be readable before it takes the name
        except RocketError as error:
            raise RocketError(f"{name}: the rows make no benchmark: {error}".replace(str(part), str(target))) from None
        publish(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return imported
