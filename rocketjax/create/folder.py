"""The folder of a benchmark whose checklists are being written; it can be killed at any time and continued.

create.json     what asks whom and how, and the counts at the end
create.jsonl    a line per query that was asked: answer, items, refused, tokens, cost; added and synced one by one
queries, response/, score/, gold_judgment/, checklist.jsonl     the benchmark, at the end; the checklists last
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from rocketjax.create.parse import Item, Refused
from rocketjax.errors import RocketError
from rocketjax.files import names, remove
from rocketjax.grade import differences, write_atomically, write_json

FORMAT = 1
ABOUT, RECORDS = "create.json", "create.jsonl"
OWN = ("checklist.jsonl", "queries.jsonl", "response", "score", "gold_judgment", RECORDS, ABOUT)  # in this order away
Mode = Literal["new", "resume", "overwrite"]
OK, UNREADABLE, FAILED = "ok", "unreadable", "failed"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """All about one query that was asked. A later line about it stands for the earlier ones."""

    session_id: str
    key: str
    """`chat_key` of what was asked."""
    model: str
    served: str | None
    settings: dict[str, Any]
    status: Literal["ok", "unreadable", "failed"]
    reason: str
    """"" where the status is ok."""
    asked: int
    """How many answers came back: an unreadable one is asked for once more."""
    answer: str | None
    items: tuple[Item, ...]
    refused: tuple[Refused, ...]
    compared: tuple[str, ...]
    """The models whose responses were shown."""
    reference: str | None
    """The author of the reference that was shown."""
    prompt_tokens: int | None
    completion_tokens: int | None
    usd: float | None
    """What all answers for this query cost, at worst where the server did not say; None without prices."""


_RECORD = msgspec.json.Decoder(Record)
_ENCODER = msgspec.json.Encoder()


class Folder:
    """An open folder, held by this process alone; `records` are by session."""

    def __init__(self, path: Path, records: dict[str, Record]) -> None:
        self.path, self.records = path, records

    def commit(self, record: Record) -> None:
        """Adds a record so that a crash right after it does not lose it."""
        data = memoryview(_ENCODER.encode(record) + b"\n")
        file = os.open(self.path / RECORDS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            while data:
                data = data[os.write(file, data) :]
            os.fsync(file)
        finally:
            os.close(file)
        self.records[record.session_id] = record

    def finish(self, about: Mapping[str, Any]) -> None:
        """Leaves one line per query, sorted, and create.json with the counts."""
        lines = [_ENCODER.encode(self.records[s]) + b"\n" for s in sorted(self.records)]
        write_atomically(self.path / RECORDS, lambda file: file.writelines(lines))
        write_json(self.path / ABOUT, about)


def check_folder(path: Path, mode: Mode) -> set[str]:
    """The files that are there; RocketError for a folder of something else, or one begun before in mode `new`."""
    there = {name for name in names(path) if not name.endswith(".tmp")}
    if path.exists() and not path.is_dir():
        raise RocketError(f"{path}: is a file; give a folder for the new benchmark")
    if there and ABOUT not in there:
        raise RocketError(f"{path}: is not empty and not made by rocketjax create; choose another folder for -o")
    if there and mode == "new":
        raise RocketError(f"{path}: holds checklists already; use --resume to continue or --overwrite to begin anew")
    return there


@contextlib.contextmanager
def opened(path: Path, about: Mapping[str, Any], mode: Mode) -> Iterator[Folder]:
    """Makes the folder or takes the one that is there, as `mode` says, for the time of the `with`.

    `about["made"]` says what asks whom and how: to resume, it must be the same. Raises RocketError for a folder of
    something else, of other settings, or that another process works on.
    """
    there = check_folder(path, mode)
    path.mkdir(parents=True, exist_ok=True)
    held = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RocketError(f"{path}: another process works on it; wait for it or choose another folder") from None
        if mode == "overwrite":
            for name in (name for name in OWN if name in there):
                remove(path / name)
        if (path / ABOUT).exists():
            compare(path / ABOUT, about)
        else:
            write_json(path / ABOUT, about)
        yield Folder(path, read_records(path / RECORDS))
    finally:
        os.close(held)


def compare(file: Path, about: Mapping[str, Any]) -> None:
    """RocketError unless the folder was begun in the same way."""
    try:
        old = json.loads(file.read_bytes())
        made, version = old["made"], old["format"]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise RocketError(f"{file}: cannot be read ({e!r}); use --overwrite to begin anew") from None
    if version != FORMAT or not isinstance(made, dict):
        raise RocketError(f"{file}: field 'format' is {version!r}, this version reads {FORMAT}")
    differ = differences(made, about["made"])
    if differ:
        raise RocketError(
            f"{file.parent}: its checklists were begun with other settings:\n  "
            + "\n  ".join(differ)
            + "\nUse the same settings, another folder, or --overwrite."
        )


def read_records(file: Path) -> dict[str, Record]:
    """The last record of each query; a line that a crash left unfinished is taken off the file."""
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return {}
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(file, whole)
    records = {}
    for number, line in enumerate(data[:whole].splitlines(), start=1):
        try:
            record = _RECORD.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as e:
            raise RocketError(f"{file}:{number}: no record ({e}); remove the line and use --resume") from None
        records[record.session_id] = record
    return records
