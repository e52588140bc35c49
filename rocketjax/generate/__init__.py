"""Prompts through a prefill and a decode step with a cache: texts, as exact and as independent as grades are."""

from rocketjax.generate.generator import ENDS, LONGEST, SLOTS, Generated, Generator, stop_ids

__all__ = ["ENDS", "LONGEST", "SLOTS", "Generated", "Generator", "stop_ids"]
