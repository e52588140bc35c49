"""Batches through the jitted step: grades, in a folder that survives anything."""

from rocketjax.grade.judge import Dtype, Judge, Work, excluded, plan, use_compile_cache
from rocketjax.grade.run import (
    GRADES,
    OK,
    Mode,
    Run,
    differences,
    read_table,
    write_atomically,
    write_json,
    write_table,
)
from rocketjax.grade.step import Answers, Grader, answers, group_rows

__all__ = [
    "GRADES", "OK", "Answers", "Dtype", "Grader", "Judge", "Mode", "Run", "Work", "answers", "differences", "excluded",
    "group_rows", "plan", "read_table", "use_compile_cache", "write_atomically", "write_json", "write_table",
]  # fmt: skip
