"""Grades, hidden states and labels into better checklists: which items to keep, and why."""

from rocketjax.refine.choose import Decision, decide
from rocketjax.refine.evidence import Evidence, Figures, evidence, figures
from rocketjax.refine.probe import probe, unstable
from rocketjax.refine.reasons import Pair, Reason, against_labels, dead, pairs, similarities, unanswerable
from rocketjax.refine.refining import Refinement, Settings, refine_checklists, refined, with_items

__all__ = [
    "Decision", "Evidence", "Figures", "Pair", "Reason", "Refinement", "Settings", "against_labels", "dead", "decide",
    "evidence", "figures", "pairs", "probe", "refine_checklists", "refined", "similarities", "unanswerable",
    "unstable", "with_items",
]  # fmt: skip
