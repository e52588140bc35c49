"""Scores into a ranking."""

from rocketjax.rank.mean import Ranking, rank

__all__ = ["Ranking", "rank"]
