"""The files of a public data set in, typed rows with their places out; and what an importer makes of them."""

import csv
import hashlib
import io
import json
import math
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from rocketjax.bench.read import (
    _LONE_SURROGATE,
    _SUFFIXES,
    _At,
    _data,
    _lines,
    _list,
    _not_json,
    _one,
    _show,
    _within,
    _wrong_field,
)
from rocketjax.bench.records import Checklist, Message, known_categories
from rocketjax.errors import RocketError

MANIFEST = "import.json"
LONGEST = 255 - len(".jsonl")  # bytes of a name on most file systems
_NAN = re.compile(rb"\b(NaN|Infinity)\b")
Row = TypeVar("Row")
Value = TypeVar("Value", float, list[float | None])


class At(_At):
    """A line of a source's file; its fields are the source's, so the advice is general."""

    def error(self, field: str, problem: str, advice: str = "") -> RocketError:
        return super().error(field, problem, advice or "mend or remove the row, or copy the file again")


class Source:
    """The file or folder that is imported; keeps the hash of every file that was read."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(os.fsdecode(path))
        self.root = self.path.parent if self.path.is_file() else self.path
        self.sha256: dict[str, str] = {}
        """Of the files as they lie on disk, by their names relative to the root."""
        if not self.path.is_file():
            _list(self.path)  # says what is wrong with a path that is neither file nor folder

    def name(self, file: Path) -> str:
        """The file's path below the root, without its suffix."""
        name = _within(self.root, file)
        return name.removesuffix(next((s for s in _SUFFIXES if name.endswith(s)), file.suffix))

    def optional(self, stem: str, folder: str = "") -> Path | None:
        """The file of this name in the root (or a folder of it), plain or .gz, or None."""
        place = self.root / folder
        return _one(place, _list(place), [stem]) if place.is_dir() else None

    def one(self, stem: str, folder: str = "") -> Path:
        """As `optional`, but its lack is an error that names it."""
        file = self.optional(stem, folder)
        if file is None:
            raise self.lacks(f"{folder}/{stem}".lstrip("/"))
        return file

    def glob(self, pattern: str, suffixes: Sequence[str] = _SUFFIXES) -> list[Path]:
        """All files below the root whose path without suffix matches, sorted; hidden ones and imports left alone."""
        found: dict[str, Path] = {}
        for suffix in suffixes:
            for file in self.root.glob(pattern + suffix):
                inside = file.relative_to(self.root)
                folders = [self.root / folder for folder in inside.parents]
                if any(part.startswith(".") for part in inside.parts) or any((f / MANIFEST).exists() for f in folders):
                    continue
                stem = str(inside).removesuffix(suffix)
                if stem in found:
                    both = f"{_within(self.root, found[stem])}, {_within(self.root, file)}"
                    raise RocketError(f"{_show(self.root)}: holds both {both}; remove one of them")
                found[stem] = file
        return [found[stem] for stem in sorted(found)]

    def files(self, pattern: str, expected: str) -> list[Path]:
        """The one file that the path is, or those that match in its folder; none is an error that says `expected`."""
        files = [self.path] if self.path.is_file() else self.glob(pattern)
        if not files:
            raise self.lacks(expected)
        return files

    def all(self, pattern: str) -> list[Path]:
        """The files below the folder that match, where one file alone says too little; none is an error."""
        files = self.glob(pattern)
        if not files:
            raise self.lacks(pattern.replace("*", "<model>"))
        return files

    def lacks(self, what: str) -> RocketError:
        return RocketError(f"{_show(self.path)}: lacks {what} (.jsonl or .json, plain or .gz); import its whole folder")

    def rows(self, file: Path, kind: type[Row]) -> Iterator[tuple[At, Row]]:
        """Every row of JSON lines or a JSON list with its place, at least one; RocketError where one is no `kind`."""
        decoder = msgspec.json.Decoder(kind)
        data = self._content(file)
        for line, text in _lines(file, data):
            at = At(file, line)
            try:
                row = decoder.decode(text)
            except msgspec.ValidationError as error:
                raise _wrong_field(at, str(error)) from None
            except (msgspec.DecodeError, RecursionError) as error:
                found = _with_nan(kind, text)
                if found is None:
                    raise _not_json(at, str(error), text, line == data.count(b"\n") + 1) from None
                row = found
            yield at, row

    def table(self, file: Path, columns: Iterable[str]) -> Iterator[tuple[At, dict[str, str]]]:
        """Every row of a CSV file with the line it ends in; these columns must be there."""
        reader = csv.DictReader(io.StringIO(self._content(file).decode(), newline=""), restval="")
        try:
            for column in columns:
                if column not in (reader.fieldnames or ()):
                    raise At(file, 1).error(column, "is missing", "copy the file again")
            for row in reader:
                yield At(file, reader.line_num), row
        except csv.Error as error:
            raise RocketError(f"{_show(file)}:{reader.line_num}: not a CSV table ({error}); copy it again") from None

    def _content(self, file: Path) -> bytes:
        data = _data(file)
        if not data.strip(b"\r\n\t []"):
            raise RocketError(f"{_show(file)}: has no rows; an unfinished copy? Fill it or remove it")
        self.note(file)
        return data

    def note(self, file: Path) -> None:
        """Keeps the hash of a file that something else reads."""
        self.sha256[_within(self.root, file)] = hashlib.sha256(file.read_bytes()).hexdigest()


def _with_nan(kind: type[Row], text: bytes) -> Row | None:
    """A row of any fields with NaN or Infinity in it, as Python writes what is no JSON; None for all else."""
    if kind is not dict or not _NAN.search(text) or _LONE_SURROGATE.search(text):
        return None
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, kind) else None


class Item(NamedTuple):
    """An item on its way into a checklist, with what somebody said of it."""

    text: str
    weight: float | None = None
    category: str | None = None


def listed(
    texts: Sequence[str],
    weights: Sequence[float | None] | None,
    categories: Sequence[str | None] | None,
    error: Callable[[str, str], RocketError],
    fields: tuple[str, str] = ("weights", "categories"),
) -> list[Item]:
    """Items with their weights and categories, which the source has in these `fields`.

    Raises `error(field, problem)` for another number of entries than items, and for a weight that is no finite number
    of 0 or more.
    """
    for field, given in zip(fields, (weights, categories), strict=True):
        if given is not None and len(given) != len(texts):
            raise error(field, f"has {len(given)} entries for {len(texts)} items")
    for weight in weights or ():
        if weight is not None and not 0 <= weight < math.inf:
            raise error(fields[0], f"has {weight:g}")
    blank = [None] * len(texts)
    about = [None if c is None or not c.strip() else c.strip() for c in categories or blank]
    return [Item(*entry) for entry in zip(texts, weights or blank, about, strict=True)]


class Draft:
    """A benchmark in the making. What cannot be used is counted in `left_out` by its reason:

    "empty_query", "empty_checklist", "blank_item", "duplicate_item" (with its labels), "another_query" (one id for
    two questions or checklists), "another_response" (a second, different answer of one model, with its labels),
    "no_response", "only_na_labels", "other_number_of_labels" (than the checklist has items), "duplicate_label",
    "contradictory_label" (the first of them stays) and "no_checklist" (queries that `checklist` has none for);
    importers add their own.
    """

    def __init__(self, checklist: Callable[[str, str], Sequence[Item] | None] | None = None) -> None:
        """`checklist` gives the items by session and question in place of the importer's own, None for no items."""
        self.checklist = checklist
        self.queries: dict[str, tuple[tuple[Message, ...], dict[str, str]]] = {}
        self.checklists: dict[str, list[Item]] = {}
        self.responses: dict[str, dict[str, tuple[str, list[str]]]] = {}
        self.scores: dict[tuple[str, str], dict[str, float]] = {}
        """(labeler, model) -> session -> score."""
        self.judgments: dict[tuple[str, str], dict[str, list[float | None]]] = {}
        self.left_out: Counter[str] = Counter()
        # The source's items, and which of them were kept.
        self._given: dict[str, tuple[list[str | Item], list[int]]] = {}
        self._names: dict[str, str] = {}
        self._unlisted: set[str] = set()

    def skip(self, reason: str, count: int = 1) -> None:
        self.left_out[reason] += count

    def query(
        self,
        session_id: str,
        question: str | Sequence[Message],
        items: Sequence[str | Item],
        references: Mapping[str, str | None] | None = None,
    ) -> bool:
        """Adds a query, or finds the same one there and adds references; False, and counted, if it cannot be used."""
        turns = (Message("user", question),) if isinstance(question, str) else tuple(question)
        known = {author: text for author, text in (references or {}).items() if text and text.strip()}
        if self.checklist is not None and turns:
            chosen = self.checklist(session_id, turns[-1].content)
            if chosen is None:
                if session_id not in self._unlisted:
                    self._unlisted.add(session_id)
                    self.skip("no_checklist")
                return False
            items = chosen
        if session_id in self.queries:
            if self.queries[session_id][0] != turns or self._given[session_id][0] != list(items):
                self.skip("another_query")
                return False
            for author, text in known.items():
                self.queries[session_id][1].setdefault(author, text)
            return True
        if not turns or not turns[-1].content.strip():
            self.skip("empty_query")
            return False
        kept: dict[str, int] = {}
        made: list[Item] = []
        for i, given in enumerate(items):
            item = Item(given) if isinstance(given, str) else given
            # The reader takes one item of several lines for a model's unparsed output.
            text = " ".join(item.text.split()) if len(item.text.splitlines()) > 1 else item.text.strip()
            if text and text not in kept:
                kept[text] = i
                made.append(item._replace(text=text))
            else:
                self.skip("duplicate_item" if text else "blank_item")
        if not kept:
            self.skip("empty_checklist")
            return False
        self.queries[session_id] = turns, known
        self.checklists[session_id] = made
        self._given[session_id] = list(items), list(kept.values())
        return True

    def response(self, session_id: str, model: str, text: str | None, history: Sequence[str] = ()) -> bool:
        """Adds an answer; `history` are all turns before the question, where they are not the query's."""
        if text is None:
            self.skip("no_response")
            return False
        answer = text, list(history)
        if self.responses.setdefault(self._file(model), {}).setdefault(session_id, answer) != answer:
            self.skip("another_response")
            return False
        return True

    def has(self, model: str) -> bool:
        """Whether an answer of this model was added."""
        return bool(self.responses.get(self._file(model)))

    def response_of(self, session_id: str, model: str) -> str | None:
        """The answer that was added for this model, None if there is none."""
        return self.responses.get(self._file(model), {}).get(session_id, (None, []))[0]

    def score(self, session_id: str, model: str, labeler: str, value: float) -> None:
        self._label(self.scores, session_id, model, labeler, value)

    def judge(self, session_id: str, model: str, labeler: str, answers: Sequence[float | None]) -> None:
        """Adds one answer from 0 (no) to 1 (yes), None for N/A, to each of the items that `query` was given."""
        items, kept = self._given[session_id]
        if len(answers) != len(items):
            self.skip("other_number_of_labels")
        elif all(answers[i] is None for i in kept):
            self.skip("only_na_labels")
        else:
            self._label(self.judgments, session_id, model, labeler, [answers[i] for i in kept])

    def _label(
        self, labels: dict[tuple[str, str], dict[str, Value]], session_id: str, model: str, labeler: str, value: Value
    ) -> None:
        folder = self._file(labeler)
        if folder.endswith((".md", ".txt")):  # the reader takes these for notes
            folder = self._file(labeler.strip().replace(".", "_"))
        there = labels.setdefault((folder, self._file(model)), {})
        if session_id in there:
            self.skip("duplicate_label" if there[session_id] == value else "contradictory_label")
        else:
            there[session_id] = value

    def _file(self, name: str) -> str:
        """A name that a file can have: org/name becomes org_name, and a hidden file would not be read."""
        safe = re.sub(r"[/\\\0\r\n]", "_", name.strip())
        safe = f"_{safe}" if not safe or safe.startswith(".") else safe
        if len(safe.encode()) > LONGEST:
            raise RocketError(f"the name {name[:60]!r}... has {len(safe.encode())} bytes, a file's may have {LONGEST}")
        if self._names.setdefault(safe, name) != name:
            raise RocketError(f"two names, {self._names[safe]!r} and {name!r}, would both be the file {safe!r}")
        return safe

    def write(self, folder: Path) -> None:
        """The benchmark's files into an empty folder, the same bytes for the same rows."""
        for kind in ("response", *(("score",) * bool(self.scores)), *(("gold_judgment",) * bool(self.judgments))):
            (folder / kind).mkdir()
        queries = (
            {
                "session_id": session_id,
                "conversation_input": [{"role": turn.role, "content": turn.content} for turn in turns],
                "references": references,
            }
            for session_id, (turns, references) in self.queries.items()
        )
        _write(folder / "queries.jsonl", queries)
        _write(folder / "checklist.jsonl", (_checklist(s, items).row() for s, items in self.checklists.items()))
        for model, answers in sorted(self.responses.items()):
            said = (
                {"session_id": s, "chat_history": answers[s][1], "output": [answers[s][0]], "generator": model}
                for s in self.queries
                if s in answers
            )
            _write(folder / "response" / f"{model}.jsonl", said)
        for (labeler, model), scores in sorted(self.scores.items()):
            graded = ({"session_id": s, "model_test": model, "score": scores[s]} for s in self.queries if s in scores)
            _write(folder / "score" / labeler / f"{model}.jsonl", graded)
        for (labeler, model), given in sorted(self.judgments.items()):
            judged = (
                {"session_id": s, "model_test": model, "judge": labeler, "judgment": [_answer(p) for p in given[s]]}
                for s in self.queries
                if s in given
            )
            _write(folder / "gold_judgment" / labeler / f"{model}.jsonl", judged)


def _checklist(session_id: str, items: Sequence[Item]) -> Checklist:
    texts, weights, categories = zip(*items, strict=True)
    # Weights of 0 alone are written, too: the reader says what is wrong with them.
    given = None if all(weight is None for weight in weights) else weights
    return Checklist(session_id, texts, given, known_categories(categories))


def _answer(p: float | None) -> str | float:
    return "N/A" if p is None else "Yes" if p == 1 else "No" if p == 0 else p


def _write(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    path.parent.mkdir(exist_ok=True)
    encoder = msgspec.json.Encoder()
    path.write_bytes(b"".join(encoder.encode(row) + b"\n" for row in rows))


def hashed(turns: Sequence[Message]) -> str:
    """An id for what was asked, where the source has none: the first 16 digits of its SHA-256."""
    said = turns[0].content if len(turns) == 1 else json.dumps([(t.role, t.content) for t in turns], ensure_ascii=False)
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def joined(instruction: str, context: str | None) -> str:
    return f"{instruction}\n\n{context}" if context and context.strip() else instruction


def place(out: Path, overwrite: bool) -> Path:
    """An empty, hidden neighbour of `out` to write into; RocketError if `out` is in the way."""
    if os.path.lexists(out):
        if not overwrite:
            raise RocketError(f"{_show(out)}: is there already; give another folder, or --overwrite to replace it")
        if not (out / MANIFEST).is_file():
            raise RocketError(f"{_show(out)}: holds no {MANIFEST}, so it is not an import and is left as it is")
    part = out.parent / f".{out.name}.{os.getpid()}.part"
    part.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(part, ignore_errors=True)  # of a killed process that had the same number
    part.mkdir()
    return part


def publish(part: Path, out: Path) -> None:
    """Makes the finished folder `part` the folder `out`; an import that is there goes only once the new one stands."""
    old = part.with_suffix(".old")
    if os.path.lexists(out):
        out.rename(old)
    try:
        part.rename(out)
    except OSError:
        if old.exists():
            old.rename(out)
        raise
    if old.is_symlink():
        old.unlink()
    elif old.exists():
        shutil.rmtree(old)


def write_manifest(path: Path, content: Mapping[str, object]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
