"""Leave one source out: for each set with labelled items, tune on all other sets and grade the one left out.

    python experiments/leave_one_out.py DATA WORK [--scale K] [--queries N]

Prints, for the untuned and the tuned judge, AUC, accuracy, ECE and Brier with 95% intervals on the set that neither
has seen, and keeps them in WORK/leave-one-out.json. --scale shortens the training (see default_judge.py), --queries the
grading. Killed, it continues.
"""

import argparse
import json
from pathlib import Path

from default_judge import train
from judge_data import ITEMS, LABELLERS, prepare
from quality import items, sample

import rocketjax
from rocketjax.grade import Judge
from rocketjax.judge import BASE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--queries", type=int)
    a = parser.parse_args()
    folders = prepare(a.data, a.work)
    found = {}
    for name in ITEMS:
        adapter = train(a.data, a.work, a.scale, without=name)
        b = sample(rocketjax.load_benchmark(folders[name]), a.queries)
        found[name] = {
            which: items(Judge.load(judge, "bf16"), b, LABELLERS[name], str(a.work / f"graded-{name}-{which}"))
            for which, judge in (("base", BASE), ("tuned", f"{BASE}+{adapter}"))
        }
        (a.work / "leave-one-out.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
