"""Scores into a ranking."""

from rocketjax.rank.mean import Ranking, rank_models

__all__ = ["Ranking", "rank_models"]
