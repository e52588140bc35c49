"""The first stage: the files of a benchmark in, frozen records out."""

from rocketjax.bench.read import load_benchmark
from rocketjax.bench.records import Benchmark, Checklist, Exclusion, Label, Message, Query, Response

__all__ = ["Benchmark", "Checklist", "Exclusion", "Label", "Message", "Query", "Response", "load_benchmark"]
