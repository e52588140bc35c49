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
    from rocketjax.bench import Benchmark, import_table, load_benchmark
    from rocketjax.create import create_checklists
    from rocketjax.errors import RocketError
    from rocketjax.grade import Judge, Run
    from rocketjax.judge import begin, fast_dtype
    from rocketjax.rank import agree, compare_runs, rank_models
    from rocketjax.refine import refine_checklists
    from rocketjax.report import export, frame, plot_calibration, plot_ranking, plot_risk_coverage, write_report
    from rocketjax.reweight import fit_head, labels_of, score

HOMES = {
    "Benchmark": "bench",
    "import_table": "bench",
    "load_benchmark": "bench",
    "RocketError": "errors",
    "Judge": "grade",
    "Run": "grade",
    "create_checklists": "create",
    "fit_head": "reweight",
    "labels_of": "reweight",
    "score": "reweight",
    "begin": "judge",
    "fast_dtype": "judge",
    "agree": "rank",
    "compare_runs": "rank",
    "rank_models": "rank",
    "refine_checklists": "refine",
    "export": "report",
    "frame": "report",
    "plot_calibration": "report",
    "plot_ranking": "report",
    "plot_risk_coverage": "report",
    "write_report": "report",
}
__all__ = [
    "Benchmark", "Judge", "RocketError", "Run", "agree", "begin", "compare_runs", "create_checklists", "export",
    "fast_dtype", "fit_head", "frame", "import_table", "labels_of", "load_benchmark", "plot_calibration",
    "plot_ranking", "plot_risk_coverage", "rank_models", "refine_checklists", "score", "write_report",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Loads a stage when it is first asked for, so that `rocketjax --help` need not wait for JAX."""
    import importlib

    if name not in HOMES:
        raise AttributeError(f"module 'rocketjax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"rocketjax.{HOMES[name]}"), name)
