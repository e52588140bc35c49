"""A recipe file: TOML with the judge, a [recipe] table and one [[source]] table per benchmark."""

from pathlib import Path
from typing import Any, Literal

import msgspec

from rocketjax.bench import load_benchmark
from rocketjax.errors import RocketError
from rocketjax.tune.data import Source
from rocketjax.tune.train import Recipe


class SourceEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One benchmark to learn from; the fields are those of `Source`. A path is relative to the recipe file.

    Without `labeler` the benchmark must have exactly one.
    """

    path: str
    labeler: str | None = None
    share: float = 1.0
    mismatched: float = 0.0
    items: float = 1.0
    pairs: float = 0.0
    scores: float = 0.0
    balance: bool = False
    prior: Literal["mixed", "natural"] = "mixed"
    even_lengths: bool = False
    reference: Literal["none", "support", "drop"] = "none"

    def __post_init__(self) -> None:
        for name in ("share", "mismatched", "items", "pairs", "scores"):
            if not 0 <= getattr(self, name) < 1e6:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        if not self.share:
            raise ValueError("share is 0; leave the source out")
        if not self.items + self.pairs + self.scores:
            raise ValueError("items, pairs and scores are all 0, so nothing would be learned from it")
        if not self.items and (self.mismatched or self.balance):
            raise ValueError("mismatched and balance are about items, and items is 0")
        if self.prior == "natural" and not (self.items and self.mismatched):
            raise ValueError('prior = "natural" takes out what mismatched responses add, and there are none')
        if self.prior == "natural" and self.balance:
            raise ValueError('prior = "natural" and balance = true contradict each other')
        if self.even_lengths and not self.pairs:
            raise ValueError("even_lengths is about pairs, and pairs is 0")


class RecipeFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a recipe file may say."""

    judge: str | None = None
    recipe: dict[str, Any] = {}
    source: list[SourceEntry] = []


def read_recipe(path: Path) -> RecipeFile:
    """Reads a recipe file; RocketError names the file and the field."""
    try:
        return msgspec.toml.decode(path.read_bytes(), type=RecipeFile)
    except OSError as e:
        raise RocketError(f"{path}: cannot be read ({e.strerror or e})") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise RocketError(f"{path}: {e}") from None


def make_recipe(values: dict[str, Any], where: str) -> Recipe:
    """A recipe from plain values; RocketError for an unknown field or a value out of range."""
    try:
        return msgspec.convert(values, Recipe)
    except msgspec.ValidationError as e:
        raise RocketError(f"{where}: {e}") from None


def load_sources(entries: list[SourceEntry], base: Path) -> list[Source]:
    """Reads the benchmarks. A source's name is its folder's, with a number where two are alike."""
    out: list[Source] = []
    for entry in entries:
        benchmark = load_benchmark(base / Path(entry.path).expanduser())
        labeler = entry.labeler
        if labeler is None:
            if len(benchmark.labels) != 1:
                there = ", ".join(sorted(benchmark.labels)) or "none"
                raise RocketError(f"{entry.path}: which labeler to learn from? It has: {there}")
            labeler = next(iter(benchmark.labels))
        taken = sum(s.name.split("#")[0] == benchmark.name for s in out)
        name = f"{benchmark.name}#{taken + 1}" if taken else benchmark.name
        options = {k: v for k, v in msgspec.structs.asdict(entry).items() if k not in ("path", "labeler")}
        out.append(Source(name, benchmark, labeler, **options))
    return out
