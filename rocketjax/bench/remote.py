"""A benchmark's folder may lie on an object store: it is fetched into the cache once, and read there."""

import os

import msgspec

from rocketjax.bench import read
from rocketjax.bench.records import Benchmark
from rocketjax.errors import RocketError
from rocketjax.files import fetch, is_remote, path_of

FOLDERS = ("checklist", "response", "score", "gold_judgment")
SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz")


def load_benchmark(path: str | os.PathLike[str]) -> Benchmark:
    """Reads the benchmark in the folder `path`, which may be a URL as `gs://bucket/bench`.

    In comes a folder in the layout of RocketEval and WildBench (see `bench.read`), out a Benchmark whose records refer
    only to each other. What had to be left out (queries without a checklist, missing responses) is in its `exclusions`,
    each with a reason and a place. All else that is not as it should be raises RocketError with file, line, field and
    what to do. Of a URL, only the files of that layout are fetched, and again only when they have changed.
    """
    place = path_of(path)
    if not is_remote(place):
        return read.load_benchmark(place)
    folder = fetch(place, "benchmarks", belongs)
    try:
        benchmark = read.load_benchmark(folder)
    except RocketError as e:
        raise RocketError(str(e).replace(str(folder), str(place))) from None
    return msgspec.structs.replace(benchmark, path=str(place))


def belongs(name: str) -> bool:
    """Whether an object, by its path from the benchmark's folder, is of the layout."""
    first, _, deeper = name.partition("/")
    return name.endswith(SUFFIXES) and (not deeper or first in FOLDERS)
