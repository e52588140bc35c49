"""The sets that the default judge is tuned on, imported from a folder of public data into benchmark folders.

    python experiments/judge_data.py DATA OUT

DATA holds the sources' own rows, one folder a set: infobench/, realsumm/, pairs/pandalm/, pairs/llmbar/ (one file a
part, LLMBar_Natural.jsonl.gz and so on), prometheus_rubric/ (vicuna_eval), and, in this package's layout (`rocketjax
import` makes it), structflowbench/ and hellobench_qa/. All are MIT, Apache-2.0 or CC BY 4.0. What repeats
MT-Bench's questions is left out, so that MT-Bench can test the judge: Prometheus' mt_bench_eval and LLMBar's
Processed_MT-Bench. LLMBar's adversarial parts are left out too: they are made to be hard for the largest judges.
"""

import sys
import tempfile
from pathlib import Path

from rocketjax.bench import import_benchmark

LLMBAR = ("LLMBar_Natural", "Processed_FairEval", "Processed_LLMEval2", "CaseStudy_Constraint", "CaseStudy_Normal")
LABELLERS = {
    "infobench": "gpt-4", "realsumm": "crowd", "structflowbench": "gpt-4o", "hellobench_qa": "gpt-4o",
    "pandalm": "human", "llmbar": "gold", "prometheus": "gpt-4",
}  # fmt: skip
ITEMS = ("infobench", "realsumm", "structflowbench", "hellobench_qa")  # whose items are labelled


def prepare(data: Path, out: Path) -> dict[str, Path]:
    """Imports what is not there yet; returns the benchmark folder of every set."""
    with tempfile.TemporaryDirectory() as folder:
        for file in sorted((data / "pairs" / "llmbar").iterdir()):
            if file.name.split(".")[0] in LLMBAR:
                (Path(folder) / file.name).symlink_to(file.absolute())
        for name, source in {
            "infobench": data / "infobench",
            "realsumm": data / "realsumm",
            "pandalm": data / "pairs" / "pandalm",
            "llmbar": Path(folder),
            "prometheus": next((data / "prometheus_rubric").glob("vicuna_eval.*")),
        }.items():
            if not (out / name).exists():
                found = import_benchmark(name, source, out / name)
                print(f"{name}: {found.sessions} queries, {found.responses} responses", file=sys.stderr)
    return {name: (out / name if (out / name).exists() else data / name) for name in LABELLERS}


if __name__ == "__main__":
    for name, folder in prepare(Path(sys.argv[1]), Path(sys.argv[2])).items():
        print(f"{name}\t{LABELLERS[name]}\t{folder}")
