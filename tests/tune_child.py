"""A benchmark that a tiny judge can learn; run as a script, tunes on it into the folder given, to be killed there."""

import sys

import numpy as np
from fakes import tiny_judge

from rocketjax.bench import Benchmark, Checklist, Label, Message, Query, Response
from rocketjax.tune import Recipe, Source, tune

SAID = ("alpha alpha alpha", "mu mu mu mu")


def word_bench(queries: int = 24, models: int = 4, seed: int = 0, name: str = "words") -> Benchmark:
    """Responses that repeat one of two words; the only item asks for the first, and the labeler knows."""
    rng = np.random.default_rng(seed)
    ids, names = [f"w{i:03d}" for i in range(queries)], [f"model-{m}" for m in range(models)]
    said = {m: {s: int(rng.integers(2)) for s in ids} for m in names}
    # Every query has both kinds of response.
    for s in ids:
        said[names[0]][s], said[names[1]][s] = 0, 1
    return Benchmark(
        name=name,
        path=name,
        queries={s: Query(s, (Message("user", f"Say {s}."),), {"gpt-4": f"REF {s} one", "human": f"REF {s} two"})
                 for s in ids},
        checklists={s: Checklist(s, ("alpha?",)) for s in ids},
        responses={m: {s: Response(s, m, f"{SAID[said[m][s]]} {m[-1]}", None) for s in ids} for m in names},
        labels={"truth": {m: {s: Label(s, m, "truth", 9.0 - 7.0 * said[m][s] + 0.1 * int(m[-1]), (1.0 - said[m][s],))
                              for s in ids} for m in names}},
        exclusions=(),
    )  # fmt: skip


if __name__ == "__main__":
    recipe = Recipe(rank=4, batch_tokens=1200, max_tokens=400, held_out=0.2, eval_every=2, learning_rate=5e-3, epochs=2)
    sources = [Source("words", word_bench(queries=10), "truth", pairs=1.0, scores=1.0, mismatched=0.2)]
    tune(tiny_judge(), sources, sys.argv[1], recipe, "resume")
