"""The header of a GGUF file: metadata and where each tensor lies.

The `gguf` package's own reader makes an object for every vocabulary entry: 24 seconds for Gemma's 262,144
where this takes half a second. Dequantising is the package's work (`gguf.dequantize`).
Format: github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian.
"""

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rocketjax.errors import RocketError

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
ALIGNMENT = 32  # of the tensor data, unless general.alignment says otherwise
MOST_AXES = 8


@dataclass(frozen=True)
class TensorInfo:
    """A tensor's shape, outermost axis first, its quantisation type (`gguf.GGMLQuantizationType`), its first byte."""

    shape: tuple[int, ...]
    kind: int
    offset: int


@dataclass(frozen=True)
class GGUF:
    """`metadata` holds scalars, strings and lists; `tensors` is in file order."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, TensorInfo]


def read_gguf(path: str | Path) -> GGUF:
    """Reads the header; RocketError for what is no GGUF file, or a broken one. Every length is checked."""
    path = Path(path)
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return Header(path, data).read()
    except OSError as e:
        raise RocketError(f"{path}: cannot be read ({e.strerror})") from None
    except (KeyError, TypeError, ValueError, ArithmeticError, struct.error) as e:
        raise RocketError(f"{path}: is a broken GGUF file ({e})") from None


class Header:
    """Walks over the bytes of a header."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self.data, self.at = path, data, 0

    def take(self, form: str) -> tuple[Any, ...]:
        form = "<" + form
        values = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return values

    def string(self) -> str:
        (size,) = self.take("Q")
        if size > len(self.data) - self.at:
            raise ValueError(f"a string of {size} bytes at byte {self.at}")
        self.at += size
        return self.data[self.at - size : self.at].decode()

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.string()
        if kind != ARRAY:
            return self.take(SCALARS[kind])[0]
        inner, count = self.take("IQ")
        if count > len(self.data) - self.at:  # an entry takes a byte at least
            raise ValueError(f"an array of {count} entries at byte {self.at}")
        if inner == STRING:
            return [self.string() for _ in range(count)]
        if inner == ARRAY:
            raise ValueError(f"an array of arrays at byte {self.at}")
        return list(self.take(f"{count}{SCALARS[inner]}"))

    def read(self) -> GGUF:
        magic, version, tensors, entries = self.take("4sIQQ")
        if magic != b"GGUF" or version not in (2, 3):
            raise RocketError(f"{self.path}: is no GGUF file of version 2 or 3")
        metadata = {self.string(): self.value(self.take("I")[0]) for _ in range(entries)}
        if (parts := metadata.get("split.count", 1)) > 1:
            number = metadata.get("split.no", 0) + 1  # counted from 0 in the file
            raise RocketError(
                f"{self.path}: is part {number} of {parts} of a split GGUF file; merge them first: "
                "llama-gguf-split --merge FIRST-PART OUT.gguf"
            )
        raw = [self.tensor() for _ in range(tensors)]
        align = metadata.get("general.alignment", ALIGNMENT)
        start = math.ceil(self.at / align) * align
        infos = {name: TensorInfo(shape, kind, start + offset) for name, shape, kind, offset in raw}
        if len(infos) != len(raw):
            raise ValueError("a tensor's name stands twice")
        return GGUF(self.path, metadata, infos)

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name, (axes,) = self.string(), self.take("I")
        if axes > MOST_AXES:
            raise ValueError(f"tensor {name!r} has {axes} axes")
        shape = self.take(f"{axes}Q")
        kind, offset = self.take("IQ")
        return name, tuple(reversed(shape)), kind, offset
