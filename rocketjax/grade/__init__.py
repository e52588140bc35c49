"""Batches through the jitted step: grades, in a folder that survives anything."""

from rocketjax.grade.estimate import (
    DEVICES,
    Device,
    Estimate,
    Workload,
    estimate_run,
    named_device,
    survey,
    this_device,
    typical,
)
from rocketjax.grade.features import FEATURES, item_features
from rocketjax.grade.judge import Judge, check_ids, excluded, make_prompter, use_compile_cache
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
    "DEVICES", "FEATURES", "GRADES", "OK", "RECORDED", "Answers", "Device", "Estimate", "Grader", "Judge", "Mode",
    "Run", "Work", "Workload", "answers", "check_ids", "differences", "estimate_run", "excluded", "group_rows",
    "item_features", "make_prompter", "named_device", "plan", "read_table", "record", "restrict", "row_flops", "survey",
    "this_device", "typical", "use_compile_cache", "write_atomically", "write_json", "write_table",
]  # fmt: skip
