"""Grades a random benchmark with a tiny judge into the folder given; for tests that kill it."""

import sys

from fakes import random_bench, tiny_judge

tiny_judge().grade(random_bench(queries=24, models=4, words=60), sys.argv[1], mode="resume", shard_items=8)
