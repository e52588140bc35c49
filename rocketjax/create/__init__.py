"""A language model's checklists for a benchmark that has none: asked for, read, and written with the benchmark."""

from rocketjax.create.api import ApiWriter
from rocketjax.create.batch import AnswersWriter
from rocketjax.create.local import LocalWriter
from rocketjax.create.make import (
    Created,
    Estimate,
    Plan,
    api_model,
    create_checklists,
    estimate_checklists,
    plan_checklists,
    write_batch,
)
from rocketjax.create.parse import Item, Parsed, Refused, parse_checklist
from rocketjax.create.spend import Price, read_prices
from rocketjax.create.writer import Writer, Written

__all__ = [
    "AnswersWriter", "ApiWriter", "Created", "Estimate", "Item", "LocalWriter", "Parsed", "Plan", "Price", "Refused",
    "Writer", "Written", "api_model", "create_checklists", "estimate_checklists", "parse_checklist",
    "plan_checklists", "read_prices", "write_batch",
]  # fmt: skip
