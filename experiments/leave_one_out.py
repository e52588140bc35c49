"""Leave one source out: for each set with labelled items, tune on all other sets and grade the one left out.

    python experiments/leave_one_out.py DATA WORK [--scale K] [--batch-tokens N] [--whole] [--sets A,B]

Prints, for the untuned and the tuned judge, AUC, accuracy, ECE and Brier with 95% intervals on the set that neither
has seen, and keeps them in WORK/leave-one-out.json. A set that the embedded judge is not tuned on is graded by that
one. --scale shortens the training (see default_judge.py; a short one needs smaller steps, --batch-tokens). Without
--whole, `QUERIES` of each set are graded. Killed, it continues.
"""

import argparse
import json
from pathlib import Path

import msgspec
from default_judge import RECIPE, SETS, train
from judge_data import ITEMS, LABELLERS, prepare
from quality import items, sample

import rocketjax
from rocketjax.grade import Judge
from rocketjax.judge import BASE

# PandaLM asks most of its instructions with InfoBench's checklists.
RELATED = {"infobench": ("pandalm",)}
QUERIES = {"infobench": 150, "realsumm": 20, "structflowbench": 16, "hellobench_qa": 6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--batch-tokens", type=int, default=RECIPE.batch_tokens)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--sets", default=",".join(ITEMS), help="which to leave out in turn")
    a = parser.parse_args()
    recipe = msgspec.structs.replace(RECIPE, batch_tokens=a.batch_tokens)
    folders = prepare(a.data, a.work)
    kept = a.work / "leave-one-out.json"
    found = json.loads(kept.read_text("utf-8")) if kept.exists() else {}
    for name in a.sets.split(","):
        tuned = (
            f"{BASE}+{train(a.data, a.work, a.scale, name, recipe, RELATED.get(name, ()))}" if name in SETS else None
        )
        b = sample(rocketjax.load_benchmark(folders[name]), None if a.whole else QUERIES[name])
        found[name] = {
            which: items(Judge.load(judge, "bf16"), b, LABELLERS[name], str(a.work / f"graded-{name}-{which}"))
            for which, judge in (("base", BASE), ("tuned", tuned))
        }
        kept.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
