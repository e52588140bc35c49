"""One process of a job that grades a random benchmark with a tiny judge, for tests.

Arguments: run folder, coordinator (or - for a job of one), processes, process, devices, mesh, seed of the benchmark.
"""

import os
import sys

import jax
from fakes import random_bench, tiny_judge

from rocketjax.errors import RocketError
from rocketjax.judge import begin, leave, places_for, weight_bytes

output, coordinator, processes, process, devices, mesh, seed = sys.argv[1:]
jax.config.update("jax_num_cpu_devices", int(devices))
for option, value in (
    ("jax_compilation_cache_dir", os.environ.get("ROCKETJAX_TEST_XLA")),
    ("jax_persistent_cache_min_entry_size_bytes", -1),
    ("jax_persistent_cache_min_compile_time_secs", 0),
):
    jax.config.update(option, value)
if coordinator != "-":
    begin(coordinator, int(processes), int(process))
judge = tiny_judge()
judge.mesh, judge.team = places_for(judge.model.config, weight_bytes(judge.model.config, "f32"), mesh)
bench = random_bench(queries=24, models=2, seed=int(seed), words=8)
try:
    judge.grade(bench, output, mode="resume", shard_items=8, progress=lambda work: print(work.parts, flush=True))
except RocketError as e:
    print(f"error: {e}", flush=True)
    leave(1)
print("done", dict(judge.mesh.shape), judge.team.index, judge.team.count, judge.team.leads, flush=True)
