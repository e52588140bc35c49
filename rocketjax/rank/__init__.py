"""Scores into a ranking with intervals, and how well it agrees with people."""

from rocketjax.rank.agreement import agree, read_ratings
from rocketjax.rank.compare import compare_runs
from rocketjax.rank.ranking import Ranking, rank_models

__all__ = ["Ranking", "agree", "compare_runs", "rank_models", "read_ratings"]
