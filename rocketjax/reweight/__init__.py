"""Grades into scores."""

from rocketjax.reweight.mean import SCORES, score

__all__ = ["SCORES", "score"]
