"""Grades and labels into scores that agree with people: heads, their uncertainty, and what items are worth."""

from rocketjax.reweight.agree import Agreement, RiskCoverage, agreement, risk_coverage
from rocketjax.reweight.choose import ask, expected_variance
from rocketjax.reweight.crossval import REFERENCE, Comparison, as_rows, compare
from rocketjax.reweight.features import features_judge, features_of, save_features
from rocketjax.reweight.fitted import Head, find_head, fit_head, folder_name, load_head, require_questions, save_head
from rocketjax.reweight.head import DEFAULT, NAMES, WITHOUT_LABELS, Options, fit_panel, score_panel, unlabelled_weights
from rocketjax.reweight.items import item_table
from rocketjax.reweight.panels import Data, Panel, labels_of, make_panel, panel
from rocketjax.reweight.scores import SCORES, SHARED_LEVELS, about_scores, score, score_compat, shares_levels
from rocketjax.reweight.weighed import WEIGHED, item_shares

__all__ = [
    "DEFAULT", "NAMES", "REFERENCE", "SCORES", "SHARED_LEVELS", "WEIGHED", "WITHOUT_LABELS", "Agreement", "Comparison",
    "Data", "Head", "Options", "Panel", "RiskCoverage", "about_scores", "agreement", "as_rows", "ask", "compare",
    "expected_variance", "features_judge", "features_of", "find_head", "fit_head", "fit_panel", "folder_name",
    "item_shares", "item_table", "labels_of", "load_head", "make_panel", "panel", "require_questions", "risk_coverage",
    "save_features", "save_head", "score", "score_compat", "score_panel", "shares_levels", "unlabelled_weights",
]  # fmt: skip
