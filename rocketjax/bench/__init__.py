"""The first stage: the files of a benchmark in, frozen records out."""

from rocketjax.bench.importers import IMPORTERS, Imported, Match, import_benchmark, import_table, read_matches
from rocketjax.bench.records import Benchmark, Checklist, Exclusion, Label, Message, Query, Response
from rocketjax.bench.remote import load_benchmark
from rocketjax.bench.stored import only

__all__ = [
    "IMPORTERS",
    "Benchmark",
    "Checklist",
    "Exclusion",
    "Imported",
    "Label",
    "Match",
    "Message",
    "Query",
    "Response",
    "import_benchmark",
    "import_table",
    "load_benchmark",
    "only",
    "read_matches",
]
