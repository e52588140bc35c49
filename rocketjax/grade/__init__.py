"""Batches through the jitted step: grades, in a folder that survives anything."""

from rocketjax.grade.features import FEATURES, item_features
from rocketjax.grade.judge import Judge, excluded, use_compile_cache
from rocketjax.grade.recorded import record
from rocketjax.grade.run import (
    GRADES,
    OK,
    RECORDED,
    Mode,
    Run,
    differences,
    read_table,
    restrict,
    write_atomically,
    write_json,
    write_table,
)
from rocketjax.grade.step import Answers, Grader, answers, group_rows, row_flops
from rocketjax.grade.stream import Work, plan

__all__ = [
    "FEATURES", "GRADES", "OK", "RECORDED", "Answers", "Grader", "Judge", "Mode", "Run", "Work", "answers",
    "differences", "excluded", "group_rows", "item_features", "plan", "read_table", "record", "restrict", "row_flops",
    "use_compile_cache", "write_atomically", "write_json", "write_table",
]  # fmt: skip
