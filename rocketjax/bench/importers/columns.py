"""Tables with named columns in (CSV, TSV, JSON lines, a JSON list, parquet), rows with their places out."""

import difflib
import math
import re
from collections.abc import Collection, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from rocketjax.bench.importers.source import Source
from rocketjax.bench.read import _show
from rocketjax.errors import RocketError

SEPARATORS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (*SEPARATORS, ".jsonl", ".json", ".parquet")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_ROLES = ("system", "user", "assistant")


class Place(NamedTuple):
    """A row of a table, counted from 1 without the header; `line` is the one that it ends in, in files of text."""

    file: Path
    row: int
    line: int | None

    def error(self, column: str, problem: str, advice: str = "") -> RocketError:
        line = f" (line {self.line})" if self.line is not None else ""
        where = f'{_show(self.file)}: row {self.row}{line}, column "{column}"'
        return RocketError(f"{where}: {problem}; {advice or 'mend or remove the row'}")


class Cells(NamedTuple):
    """One row: cells by column. A cell of a CSV or TSV file that holds nothing is None, as null is elsewhere; one
    that holds "" is an empty text."""

    at: Place
    value: Mapping[str, Any]

    def text(self, column: str) -> str | None:
        value = self.value.get(column)
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, float) and math.isnan(value):
            return None  # what pandas has where a text is missing
        raise self.at.error(column, f"is {_brief(value)}, not text")

    def name(self, column: str) -> str:
        """A name or an id; a whole number is taken as its digits."""
        value = self.value.get(column)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if value is not None and not isinstance(value, str):
            raise self.at.error(column, f"is {_brief(value)}, not text", "write names and ids as text")
        if value is None or not value.strip():
            raise self.at.error(column, "is blank", "every row needs one")
        return value

    def number(self, column: str) -> float | None:
        value = self.value.get(column)
        if isinstance(value, str):
            if not value.strip():
                return None
            if not _NUMBER.fullmatch(value.strip()):
                raise self.at.error(column, f"is {value!r}, not a number", "write a number, or nothing for none")
            value = float(value)
        if isinstance(value, Decimal):
            value = float(value)
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.at.error(column, f"is {_brief(value)}, not a finite number", "write a number, or null for none")
        return float(value)

    def conversation(self, column: str) -> list[tuple[str, str]]:
        """Roles and texts: of a list of {"role", "content"}, or one user turn of a text."""
        value = self.value.get(column)
        if not isinstance(value, list):
            return [("user", self.text(column) or "")]
        turns = []
        for turn in value:
            role, content = (turn.get("role"), turn.get("content")) if isinstance(turn, dict) else (None, None)
            if role not in _ROLES or not isinstance(content, str):
                wanted = 'a conversation is a list of {"role": system, user or assistant, "content": text}'
                raise self.at.error(column, f"holds the turn {_brief(turn)}", wanted)
            turns.append((role, content))
        if not turns or turns[-1][0] != "user":
            raise self.at.error(column, "is a conversation that does not end with a user turn")
        return turns


class Table(NamedTuple):
    """A file of rows with named columns."""

    file: Path
    columns: list[str]
    rows: list[Cells]

    def require(self, column: str, option: str) -> str:
        """The column's name; if it is not there, an error with the closest one that is and the option that names it."""
        if column in self.columns:
            return column
        if not self.columns:
            raise RocketError(f"{_show(self.file)}: has no columns; its first line or its rows must name them")
        close = max(
            self.columns, key=lambda c: difflib.SequenceMatcher(None, c.strip().lower(), column.lower()).ratio()
        )
        here = f'{_show(self.file)}: has no column "{column}"'
        if len(self.columns) == 1 and any(mark in close for mark in ";\t|"):
            raise RocketError(f'{here}, only "{_brief(close)}": is it separated by something other than its name says?')
        known = ", ".join(self.columns)
        raise RocketError(f'{here}; the closest is "{close}": --{option} {close!r} takes it. Columns: {known}')


def read_table(source: Source, file: Path, only: Collection[str] | None = None) -> Table:
    """The rows of a file by its suffix, .gz too for files of text; of these columns `only`, all by default.

    Raises RocketError with file, row and line for a file that is not what its suffix says, a row with another number
    of cells than the header, a column that is there twice, or a file without rows.
    """
    suffix = Path(file.name.removesuffix(".gz")).suffix
    if suffix not in SUFFIXES or (suffix == ".parquet" and file.suffix == ".gz"):
        raise RocketError(f"{_show(file)}: is named none of {', '.join(SUFFIXES)}; rename it by what it holds")
    if suffix in SEPARATORS:
        return _delimited(source, file, SEPARATORS[suffix], only)
    if suffix == ".parquet":
        return _parquet(source, file, only)
    rows = [
        Cells(Place(file, n, at.line), row if only is None else {c: x for c, x in row.items() if c in only})
        for n, (at, row) in enumerate(source.rows(file, dict), start=1)
    ]
    return Table(file, list(dict.fromkeys(column for row in rows for column in row.value)), rows)


def _delimited(source: Source, file: Path, separator: str, only: Collection[str] | None) -> Table:
    """RFC 4180, with any end of line. The csv module cannot tell "" from nothing before Python 3.12."""
    lines = _cells(file, source._content(file).decode(), separator)
    _, header = next(lines)
    columns = [cell or "" for cell in header]
    for column in columns:
        if column and columns.count(column) > 1:
            raise RocketError(f'{_show(file)}: has two columns "{column}"; rename one of them')
    rows: list[Cells] = []
    for line, cells in lines:
        at = Place(file, len(rows) + 1, line)
        if len(cells) != len(columns):
            where = f"{_show(file)}: row {at.row} (line {at.line})"
            raise RocketError(
                f"{where}: has {len(cells)} cells, the header has {len(columns)}; put a cell that holds the separator "
                "or a line break in double quotes"
            )
        row = zip(columns, cells, strict=True)
        rows.append(Cells(at, {c: x for c, x in row if only is None or c in only}))
    if not rows:
        raise RocketError(f"{_show(file)}: has a header and no rows; an unfinished copy?")
    return Table(file, [c for c in columns if only is None or c in only], rows)


def _cells(file: Path, text: str, separator: str) -> Iterator[tuple[int, list[str | None]]]:
    """Every row that is not blank with the line that it ends in; a cell that holds nothing, unquoted, is None."""
    mark = re.escape(separator)
    token = re.compile(rf'(?:"([^"]*(?:""[^"]*)*)"|((?!")[^{mark}\r\n]*))({mark}|\r\n|\n|\r|\Z)')
    position, line, row = 0, 1, list[str | None]()
    while position < len(text) or row:
        found = token.match(text, position)
        if found is None:
            problem = (
                "has text after the closing quote" if _closes(text, position) else "opens a quote and never closes it"
            )
            advice = "put the whole cell in double quotes and write each quote in it twice"
            raise RocketError(f"{_show(file)}:{line}: a cell {problem}; {advice}")
        quoted, plain, end = found.groups()
        row.append(quoted.replace('""', '"') if quoted is not None else plain if plain.strip() else None)
        line += len(re.findall(r"\r\n|\n|\r", quoted or ""))
        position = found.end()
        if end != separator:
            if row != [None]:
                yield line, row
            line, row = line + 1, []


def _closes(text: str, position: int) -> bool:
    return re.compile(r'"[^"]*(?:""[^"]*)*"').match(text, position) is not None


def _parquet(source: Source, file: Path, only: Collection[str] | None) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as whole:
            table = whole.read([c for c in whole.schema_arrow.names if only is None or c in only])
    except (OSError, pa.ArrowException) as error:
        raise RocketError(f"{_show(file)}: cannot be read as parquet ({str(error).splitlines()[0]})") from None
    if not table.num_rows:
        raise RocketError(f"{_show(file)}: has no rows")
    source.note(file)
    columns: dict[str, list[Any]] = {}
    for name, values in zip(table.column_names, table.columns, strict=True):
        try:
            columns[name] = values.to_pylist()
        except (ValueError, OverflowError, pa.ArrowException) as error:  # no UTF-8, or a time that Python has not
            raise RocketError(f'{_show(file)}: column "{name}" cannot be read ({str(error).splitlines()[0]})') from None
    rows = [
        Cells(Place(file, n, None), dict(zip(columns, row, strict=True)))
        for n, row in enumerate(zip(*columns.values(), strict=True), start=1)
    ]
    return Table(file, list(columns), rows)


def _brief(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
