"""Records that stay in their files: a mapping that knows where each one lies, and reads it when it is asked for.

A benchmark in memory is then as large as its ids and places (30 bytes a record), however long its texts are. What was
checked is what is read: every row is kept with its checksum, and one that is another by now is an error.
"""

import gzip
import os
import tempfile
import zlib
from array import array
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from rocketjax.errors import RocketError

T = TypeVar("T")
HELD = 8 << 20  # bytes of a benchmark's first files that are kept in memory: all of a small one
BLOCK = 1 << 20
OPEN = 128  # files that a process keeps open; more would meet the limits of some systems


class Descriptor:
    """An open file; closed once nobody uses it, so that no thread ever reads another file by its number."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # a default outlives the module at exit
        close(self.number)


class Key(NamedTuple):
    """Which file it is, and in which state."""

    path: Path
    device: int
    inode: int
    size: int
    changed: int  # ns

    @classmethod
    def of(cls, path: Path, about: os.stat_result) -> "Key":
        return cls(path, about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns)


@lru_cache(OPEN)
def opened(key: Key) -> Descriptor:
    return Descriptor(os.open(key.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)))


class Content:
    """The bytes of a file, unpacked and without a byte order mark: in memory, on disk, or in the spool."""

    def __init__(self, name: str, start: int, size: int, where: bytes | Key | Descriptor) -> None:
        self.name, self.start, self.size, self.where = name, start, size, where
        self.newlines = 0
        self.cut_off = False  # whether the last line has no end

    def read(self, at: int, size: int) -> bytes:
        """`size` bytes from `at`; fewer where the file has become shorter. Any thread may call this."""
        if isinstance(self.where, bytes):
            return self.where[self.start + at : self.start + at + size]
        file = opened(self.where) if isinstance(self.where, Key) else self.where
        return os.pread(file.number, size, self.start + at)

    def blocks(self) -> Iterator[bytes]:
        """All of it, a block at a time."""
        for at in range(0, self.size, BLOCK):
            yield self.read(at, min(BLOCK, self.size - at))

    def lines(self) -> Iterator[tuple[int, int, bytes]]:
        """Number (from 1), place and text of every line, its end left out."""
        line, at = 1, 0
        begun: list[bytes] = []  # of a line that goes on in the next block
        for block in self.blocks():
            texts = block.split(b"\n")
            begun.append(texts[0])
            if len(texts) == 1:
                continue
            texts[0], begun = b"".join(begun), [texts.pop()]
            for text in texts:
                yield line, at, text
                line, at = line + 1, at + len(text) + 1
        yield line, at, b"".join(begun)

    def changed(self) -> bool:
        """Whether the file on disk is another by now, was written to, or is gone."""
        try:
            return isinstance(self.where, Key) and Key.of(self.where.path, os.stat(self.where.path)) != self.where
        except OSError:
            return True


class Store:
    """Takes in the files of one benchmark: small ones into memory, packed ones into one spool; others stay."""

    def __init__(self) -> None:
        self.left = HELD
        self.spool: Descriptor | None = None
        self.spooled = 0

    def take(self, path: Path, name: str) -> Content:
        """The content of the file. Raises OSError, and for .gz also EOFError and zlib.error."""
        with open(path, "rb") as file:
            key = Key.of(path, os.fstat(file.fileno()))
            if path.suffix == ".gz":
                packed = gzip.GzipFile(fileobj=file)
                data = packed.read(self.left + 1)
                if len(data) > self.left:
                    return self.unpack(chain([data], iter(lambda: packed.read(BLOCK), b"")), name)
            elif key.size > self.left:
                return Content(name, 0, key.size, key)
            else:
                data = file.read()
        self.left -= len(data)
        return Content(name, 0, len(data), data)

    def unpack(self, blocks: Iterator[bytes], name: str) -> Content:
        """Appends to the spool, a file without a name: nothing can be read from the middle of a packed one."""
        if self.spool is None:
            with tempfile.TemporaryFile(prefix="rocketjax-") as made:
                self.spool = Descriptor(os.dup(made.fileno()))
        start = self.spooled
        for block in blocks:
            try:
                with open(self.spool.number, "wb", closefd=False) as out:
                    out.write(block)
            except OSError as error:
                raise RocketError(
                    f"{name}: cannot be unpacked into {tempfile.gettempdir()} ({(error.strerror or '').lower()}); "
                    "unpack it yourself, or set TMPDIR to a folder with room"
                ) from None
            self.spooled += len(block)
        return Content(name, start, self.spooled - start, self.spool)


class Ids:
    """The session ids of a benchmark, by number; all of its records share them."""

    def __init__(self) -> None:
        self.number: dict[str, int] = {}
        self.names: list[str] = []

    def add(self, session_id: str) -> int:
        """The id's number, a new one if need be."""
        number = self.number.setdefault(session_id, len(self.names))
        if number == len(self.names):
            self.names.append(session_id)
        return number


class Place(NamedTuple):
    """Where a record lies, and the checksum of its text there."""

    content: int  # which of several
    line: int
    start: int
    size: int
    checksum: int


class Stored(Mapping[str, T], Generic[T]):
    """Records of one kind by session id, in the order in which they were added; `only` gives some of them.

    Reading is safe in any number of threads. Raises RocketError where a record cannot be read as it was checked.
    """

    def __init__(self, ids: Ids, contents: Sequence[Content], decode: Callable[[str, bytes], T]) -> None:
        self.ids, self.contents, self.decode = ids, tuple(contents), decode
        self.order = array("i")  # numbers of the ids that have a record
        self.row = array("i", [-1]) * len(ids.names)  # by number of the id; -1 for none
        # A place by row, in columns: a tuple for each would be five times as large.
        self.columns = (array("B"), array("i"), array("q"), array("q"), array("I"))
        self.last: tuple[int, T] | None = None  # one record is often asked for several times in a row

    def add(self, session_id: str, line: int, start: int, text: bytes, content: int = 0) -> None:
        """Takes the record in that has this text."""
        self.put(session_id, Place(content, line, start, len(text), zlib.crc32(text)))

    def put(self, session_id: str, place: Place) -> None:
        """Takes the record in that lies there."""
        number = self.ids.add(session_id)
        if len(self.row) < len(self.ids.names):
            self.row.extend([-1] * (len(self.ids.names) - len(self.row)))
        content, line, start, size, checksum = self.columns
        self.row[number] = len(content)
        self.order.append(number)
        content.append(place[0])
        line.append(place[1])
        start.append(place[2])
        size.append(place[3])
        checksum.append(place[4])

    def place(self, session_id: str) -> Place:
        """Where the record lies. KeyError if there is none."""
        row = self.find(session_id)
        if row < 0:
            raise KeyError(session_id)
        content, line, start, size, checksum = self.columns
        return Place(content[row], line[row], start[row], size[row], checksum[row])

    def find(self, session_id: object) -> int:
        number = self.ids.number.get(session_id, len(self.row))  # type: ignore[call-overload]
        return self.row[number] if number < len(self.row) else -1

    def text(self, session_id: str) -> bytes:
        """The row of the file."""
        place = self.place(session_id)
        content = self.contents[place.content]
        try:
            text = content.read(place.start, place.size)
        except OSError as error:
            text, why = None, (error.strerror or "").lower()
        else:
            why = "it holds something else"
        if text is None or zlib.crc32(text) != place.checksum:
            raise RocketError(
                f"{content.name}:{place.line}: has changed since the benchmark was checked ({why}); "
                "leave its files as they are, and begin again"
            )
        return text

    def __getitem__(self, session_id: str) -> T:
        row, last = self.find(session_id), self.last
        if last is not None and last[0] == row:
            return last[1]
        record = self.decode(session_id, self.text(session_id))
        self.last = row, record
        return record

    def __contains__(self, session_id: object) -> bool:
        return self.find(session_id) >= 0

    def __iter__(self) -> Iterator[str]:
        return (self.ids.names[number] for number in self.order)

    def __len__(self) -> int:
        return len(self.order)

    def __repr__(self) -> str:
        return f"<{len(self):,} records of {', '.join(content.name for content in self.contents)}>"

    def only(self, sessions: Container[str]) -> "Stored[T]":
        """Those of these sessions; the places are shared, not copied."""
        some = Stored(self.ids, self.contents, self.decode)
        some.columns = self.columns
        for number in self.order:
            if self.ids.names[number] in sessions:
                some.row[number] = self.row[number]
                some.order.append(number)
        return some


class Joined(Mapping[str, T], Generic[T]):
    """Two mappings as one: first all of `first`, then what only `second` has; `join` makes one of two records."""

    def __init__(self, first: Mapping[str, T], second: Mapping[str, T], join: Callable[[T, T], T]) -> None:
        self.first, self.second, self.join = first, second, join

    def __getitem__(self, session_id: str) -> T:
        if session_id in self.first and session_id in self.second:
            return self.join(self.first[session_id], self.second[session_id])
        return (self.first if session_id in self.first else self.second)[session_id]

    def __contains__(self, session_id: object) -> bool:
        return session_id in self.first or session_id in self.second

    def __iter__(self) -> Iterator[str]:
        yield from self.first
        yield from (session_id for session_id in self.second if session_id not in self.first)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<{self.first!r} with {self.second!r}>"


def only(records: Mapping[str, T], sessions: Container[str]) -> Mapping[str, T]:
    """The records of these sessions, without reading what lies in files."""
    if isinstance(records, Stored):
        return records.only(sessions)
    if isinstance(records, Joined):
        return Joined(only(records.first, sessions), only(records.second, sessions), records.join)
    return {s: record for s, record in records.items() if s in sessions}
