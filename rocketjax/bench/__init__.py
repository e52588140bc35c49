"""The first stage: the files of a benchmark in, frozen records out."""

from rocketjax.bench.importers import IMPORTERS, Imported, import_benchmark, import_table
from rocketjax.bench.read import load_benchmark
from rocketjax.bench.records import Benchmark, Checklist, Exclusion, Label, Message, Query, Response

__all__ = [
    "IMPORTERS",
    "Benchmark",
    "Checklist",
    "Exclusion",
    "Imported",
    "Label",
    "Message",
    "Query",
    "Response",
    "import_benchmark",
    "import_table",
    "load_benchmark",
]
