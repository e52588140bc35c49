"""Makes the embedded default judge again: the adapter in checkpoints/smollm2-135m-judge.

    python experiments/default_judge.py DATA WORK [--scale K] [--without SET] [--batch-tokens N]

DATA is as in judge_data.py; imported sets, and the tuning's folder WORK/tuned (WORK/without-SET), go to WORK. Killed,
it continues. --scale multiplies how often each response is seen. The result lies in the tuning's folder as adapter/;
copy it to checkpoints/ by hand once you have looked at it.
"""

import argparse
from pathlib import Path
from typing import Any

import msgspec
from judge_data import LABELLERS, prepare

import rocketjax
from rocketjax.grade import Judge
from rocketjax.judge import BASE
from rocketjax.tune import Progress, Recipe, Source, tune

# How often each response is seen, how many with another query's response per natural one, and what is learned. Tokens
# decide: a label costs 30 tokens in REALSumm, 120 in InfoBench, 400 in StructFlowBench. A pair of responses counts as
# four item labels, a score as three.
SETS: dict[str, dict[str, Any]] = {
    "realsumm": dict(share=1.0, mismatched=0.05),
    "infobench": dict(share=1.5, mismatched=0.25, prior="natural"),
    "structflowbench": dict(share=0.1, mismatched=0.15, prior="natural"),
    "pandalm": dict(share=1.0, items=0.0, pairs=4.0, even_lengths=True),
    "llmbar": dict(share=1.0, items=0.0, pairs=4.0, even_lengths=True),
    "prometheus": dict(share=1.5, items=0.0, scores=3.0),
}
RECIPE = Recipe(first_layer=10, batch_tokens=4096, learning_rate=8e-4, eval_every=50, eval_tokens=30_000)


def train(
    data: Path,
    work: Path,
    scale: float = 1.0,
    without: str | None = None,
    recipe: Recipe = RECIPE,
    related: tuple[str, ...] = (),
) -> Path:
    """Tunes on all sets but `without` and those related to it, and returns the adapter's folder."""
    folders = prepare(data, work)
    sources = [
        Source(
            name, rocketjax.load_benchmark(folders[name]), LABELLERS[name],
            **{**options, "share": options["share"] * scale},
        )
        for name, options in SETS.items()
        if name != without and name not in related
    ]  # fmt: skip

    def say(p: Progress) -> None:
        if p.step % 10 == 0 or p.step == p.steps:
            aucs = {n: round(f["auc"], 3) for n, f in p.held_out.items() if f.get("auc") is not None}
            print(f"{p.step}/{p.steps}  loss {p.loss:.3f}  {p.tokens:,} tokens  {p.seconds:.0f} s  {aucs}", flush=True)

    folder = work / (f"without-{without}" if without else "tuned")
    tune(Judge.load(BASE, "bf16", print), sources, folder, recipe, "resume", say)
    return folder / "adapter"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--without", choices=sorted(SETS))
    parser.add_argument("--batch-tokens", type=int, default=RECIPE.batch_tokens)
    a = parser.parse_args()
    recipe = msgspec.structs.replace(RECIPE, batch_tokens=a.batch_tokens)
    print(train(a.data, a.work, a.scale, a.without, recipe))


if __name__ == "__main__":
    main()
