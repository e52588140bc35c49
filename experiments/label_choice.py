"""Which labels to buy: `rocketjax ask` against random choice, simulated on a labelled run.

    python experiments/label_choice.py RUN BENCH LABELER [--begin 30] [--steps 30,60,120,240] [--repeats 20]

All labels are hidden but `--begin` random ones; then labels are bought in rounds, by `ask` or at random, among the
responses that have one, and after each round the ridge is fitted and every model scored. Printed per number of
labels: Spearman's correlation of the models' means with their true mean labels, and the mean absolute error of the
models' means less their common shift, over all models; mean and standard error over the repeats, and the paired
difference.
"""

import argparse
from pathlib import Path

import numpy as np
from heads import of_run
from scipy.stats import spearmanr

import rocketjax
from rocketjax.reweight import Panel, ask, fit_panel, make_panel, score_panel


def kept(p: Panel, chosen: np.ndarray) -> Panel:
    """The panel with these labels only; bool[Q, M]."""
    weight = np.where(chosen, p.data.weight_QM, 0).astype(np.float32)
    return Panel(p.sessions, p.models, p.counts, p.data._replace(weight_QM=weight))


def figures(p: Panel, chosen: np.ndarray, truth_M: np.ndarray) -> tuple[float, float]:
    part = kept(p, chosen)
    score, _ = score_panel(part, "ridge", fit_panel(part, "ridge"))
    mean = np.nanmean(score, axis=0)
    error = (mean - mean.mean()) - (truth_M - truth_M.mean())
    return float(spearmanr(mean, truth_M).statistic), float(np.abs(error).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("bench", type=Path)
    parser.add_argument("labeler")
    parser.add_argument("--begin", type=int, default=30)
    parser.add_argument("--steps", default="30,60,120,240")
    parser.add_argument("--repeats", type=int, default=20)
    a = parser.parse_args()
    p = of_run(rocketjax.Run.open(a.run), rocketjax.load_benchmark(a.bench), a.labeler, None)
    # Only queries whose responses all have a label, so that whatever is asked for can be bought.
    whole = np.flatnonzero(np.asarray(p.labelled).all(axis=1))
    d = p.data
    arrays = (x[whole] for x in (d.p_QMI, d.item_QI, d.graded_QM, d.label_QM))
    p = make_panel([p.sessions[q] for q in whole], p.models, *arrays)
    known = np.asarray(p.labelled)
    truth_M = np.where(known, p.data.label_QM, np.nan)
    truth_M = np.nanmean(truth_M, axis=0)
    steps = sorted(int(n) for n in a.steps.split(","))
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for repeat in range(a.repeats):
        rng = np.random.default_rng(repeat)
        order = rng.permutation(np.flatnonzero(known.ravel()))
        begin = np.zeros(known.size, bool)
        begin[order[: a.begin]] = True
        for how in ("ask", "random"):
            chosen = begin.reshape(known.shape).copy()
            bought = 0
            for step in steps:
                if how == "ask":
                    for session, model, _ in ask(kept(p, chosen), step - bought):
                        chosen[p.sessions.index(session), p.models.index(model)] = True
                else:
                    flat = begin.copy()
                    flat[order[: a.begin + step]] = True
                    chosen = flat.reshape(known.shape)
                bought = step
                found.setdefault((how, step), []).append(figures(p, chosen & known, truth_M))
            found.setdefault(("begin", 0), []).append(figures(p, begin.reshape(known.shape), truth_M))
    print(f"{len(p.sessions)} queries, {len(p.models)} models, {a.begin} labels to begin with, {a.repeats} repeats")
    for (how, step), values in sorted(found.items(), key=lambda x: (x[0][1], x[0][0])):
        v = np.array(values)
        error = v.std(axis=0, ddof=1) / np.sqrt(len(v))
        print(f"{how:<7} +{step:<4} Spearman {v.mean(0)[0]:.3f} +- {error[0]:.3f}   error of means "
              f"{v.mean(0)[1]:.3f} +- {error[1]:.3f}")  # fmt: skip
        if how == "ask":
            gap = v - np.array(found["random", step])
            e = gap.std(axis=0, ddof=1) / np.sqrt(len(v))
            print(f"        less random: {gap.mean(0)[0]:+.3f} +- {e[0]:.3f}, {gap.mean(0)[1]:+.3f} +- {e[1]:.3f}")


if __name__ == "__main__":
    main()
