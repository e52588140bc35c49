"""Judge, temperature and head in one program: what each adds when only scores of responses are labelled.

    python experiments/joint.py BENCH LABELER [--judge J] [--dtype f32] [--queries 10] [--epochs 3] [--json FILE]

Half of the models' scores are learned from, the others' are for testing, on so many random queries (seed 0). Each line
trains other parts of one program (`rocketjax.tune.Learner`: packed tokens -> judge -> margins -> temperature and bias
-> head -> squared error of the score), with the same rows in the same order, and prints for the test models: pairwise
agreement inside queries, with a 95% interval from 1,000 bootstrap samples of the queries, and the mean absolute error
on the labeler's scale after the slope and shift of the training models.
"""

import argparse
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from quality import sample

import rocketjax
from rocketjax.grade import Judge
from rocketjax.judge import adapter_paths, init_adapter
from rocketjax.prompt import Prompter, row_lengths, template
from rocketjax.rank.metrics import bootstrap
from rocketjax.reweight.agree import pairwise
from rocketjax.tune import (
    Learner,
    Optimizer,
    Packer,
    Params,
    Recipe,
    Source,
    batches,
    collect,
    data_mesh,
    epoch_rows,
    init_head,
    init_reading,
    init_soft,
    step_scale,
    steps,
)
from rocketjax.tune.loss import response_scores

PARTS = {
    "nothing": (),
    "temperature": ("reading",),
    "head": ("head",),
    "temperature + head": ("reading", "head"),
    "temperature + head + soft prompt": ("reading", "head", "soft_PD"),
    "temperature + head + LoRA": ("reading", "head", "weights"),
}
SOFT = 8
RECIPE = Recipe(items=0.0, scores=1.0, pairs=0.0, mass=0.05, rank=8, alpha=16, max_tokens=640)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", type=Path)
    parser.add_argument("labeler")
    parser.add_argument("--judge")
    parser.add_argument("--dtype", choices=("f32", "bf16"), help="bf16, on a CPU f32")
    parser.add_argument("--queries", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--parts", default=",".join(PARTS), help="which lines")
    parser.add_argument("--json", type=Path)
    a = parser.parse_args()
    b = sample(rocketjax.load_benchmark(a.bench), a.queries)
    models = [b.models[i] for i in np.random.default_rng(0).permutation(len(b.models))]
    train, test = sorted(models[: len(models) // 2]), sorted(models[len(models) // 2 :])
    dtype = a.dtype or ("f32" if jax.default_backend() == "cpu" else "bf16")
    judge = Judge.load(a.judge, dtype, print)
    found = {}
    for name in a.parts.split(","):
        found[name] = one(judge, b, a.labeler, train, test, PARTS[name], a.epochs, a.batch_tokens, name)
    if a.json:
        a.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


def one(judge, b, labeler, train, test, parts, epochs, batch_tokens, name) -> dict:
    """Trains these parts and prints how the test models' scores agree with the labels."""
    begun = time.perf_counter()
    soft = SOFT if "soft_PD" in parts else 0
    longest = row_lengths(RECIPE.max_tokens + 256 + soft)[-1]
    prompter = Prompter(judge.tokenizer, template("native"), RECIPE.max_tokens, "truncate-middle")
    packers = {}
    for kind, chosen in (("train", train), ("test", test)):
        source = Source(kind, b.select(chosen), labeler, items=0.0, scores=1.0)
        packers[kind] = Packer(collect([source], 0.0, 0), prompter, longest, longest, judge.model.config.window, soft)
    items = packers["train"].corpus.items
    assert list(items) == list(packers["test"].corpus.items), "both halves must number the items alike"
    made = {"head": init_head(len(items), 1), "reading": init_reading()}
    scale = None
    if "weights" in parts:
        config = judge.model.config
        where = adapter_paths(config, ("q_DNH", "v_DKH"), range(config.layers * 2 // 3, config.layers))
        adapter = init_adapter(judge.model, where, RECIPE.rank, RECIPE.alpha / RECIPE.rank, jax.random.key(0))
        made["weights"], scale = adapter.pairs, adapter.scale
    if soft:
        words = judge.tokenizer.encode("Read the query and the response with care, then judge it fairly.")
        made["soft_PD"] = init_soft(judge.model, words[:soft])
    params = Params(**{part: made[part] for part in parts})
    ids = judge.tokenizer.answer_ids()
    learner = Learner(judge.model, ids, params, scale, Optimizer(), data_mesh())
    plan = [rows for e in range(epochs) for rows in steps(epoch_rows(packers["train"], 0, e, 1), batch_tokens)]
    for n, rows in enumerate(plan if parts else ()):
        rate = 0.5 * (1 + np.cos(np.pi * n / len(plan)))
        made_batches = [batch for batch, _ in batches(rows, learner.multiple)]
        learner.step(made_batches, step_scale(RECIPE, rows), 5e-4 * rate, 3e-2 * rate)
    scores = {kind: scored(learner, packer) for kind, packer in packers.items()}
    truth = b.labels[labeler]
    x, y = (np.array(v) for v in zip(*((s, truth[m][q].score) for (q, m), s in scores["train"].items()), strict=True))
    slope, shift = np.polyfit(x, y, 1)
    sessions = sorted({q for q, _ in scores["test"]})
    score, label = (np.full((len(sessions), len(test)), np.nan) for _ in range(2))
    for (q, m), s in scores["test"].items():
        score[sessions.index(q), test.index(m)] = slope * s + shift
        label[sessions.index(q), test.index(m)] = truth[m][q].score
    value = pairwise(score, label)
    low, high = bootstrap(pairwise, list(range(len(sessions))), score, label)
    mae = float(np.nanmean(np.abs(score - label)))
    reading = learner.params.reading
    extra = (
        ""
        if reading is None
        else (f"  temperature {float(jnp.exp(reading.log_temperature)):.2f}, bias {float(reading.bias):+.2f}")
    )
    print(f"{name:<34} pairwise {value:.3f} [{low:.3f}, {high:.3f}]  MAE {mae:.3f}  {len(plan) if parts else 0} steps, "
          f"{time.perf_counter() - begun:.0f} s{extra}", flush=True)  # fmt: skip
    return {"pairwise": [value, low, high], "mae": mae, "queries": len(sessions), "test_models": len(test)}


def scored(learner: Learner, packer: Packer) -> dict[tuple[str, str], float]:
    """The head's score of every response, 1 to 10."""
    head = learner.params.head or learner.mean
    out = {}
    for answer in packer.corpus.train[0]:
        rows = [r for r in packer.rows([answer]) if r.targets.score_weight_L[0] > 0]
        for batch, _ in batches(rows, learner.multiple):
            margin_RL = jnp.asarray(learner.predict(batch)[0].margin_L)
            targets = jax.tree.map(lambda v: jnp.asarray(v[0]), batch.targets)
            out[answer.session_id, answer.model] = float(
                response_scores(head, jax.nn.sigmoid(margin_RL[0]), targets)[0]
            )
    return out


if __name__ == "__main__":
    main()
