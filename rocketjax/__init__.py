"""RocketJAX: grades checklists about language models' responses with a small judge, in JAX.

benchmark = rocketjax.load_benchmark("bench/")
judge = rocketjax.Judge.load()
run = judge.grade(benchmark, output="run/")
rocketjax.score(run)
print(rocketjax.rank_models(run))
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from rocketjax.bench import Benchmark, load_benchmark
    from rocketjax.errors import RocketError
    from rocketjax.grade import Judge, Run
    from rocketjax.rank import rank_models
    from rocketjax.report import export
    from rocketjax.reweight import fit_head, labels_of, score

HOMES = {
    "Benchmark": "bench",
    "load_benchmark": "bench",
    "RocketError": "errors",
    "Judge": "grade",
    "Run": "grade",
    "fit_head": "reweight",
    "labels_of": "reweight",
    "score": "reweight",
    "rank_models": "rank",
    "export": "report",
}
__all__ = [
    "Benchmark", "Judge", "RocketError", "Run", "export", "fit_head", "labels_of", "load_benchmark", "rank_models",
    "score",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Loads a stage when it is first asked for, so that `rocketjax --help` need not wait for JAX."""
    import importlib

    if name not in HOMES:
        raise AttributeError(f"module 'rocketjax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"rocketjax.{HOMES[name]}"), name)
