"""Tuning a judge: a folder in which training can be killed at any time and continued to the same bits.

tune.json           the recipe, hashes of judge and benchmarks, what the data held, versions
log.jsonl           a line per optimizer step and per evaluation
state/<step>/       trained weights and optimizer state (Orbax), the newest two
adapter/ or judge/  the result: the best on the held-out queries so far
loss.png            both losses over the steps (needs matplotlib)
"""

import json
import math
import os
import platform
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import msgspec
import numpy as np

import rocketjax
from rocketjax.errors import RocketError
from rocketjax.grade import Judge, Mode, differences, write_atomically, write_json
from rocketjax.judge import (
    TARGETS,
    Adapter,
    Card,
    Row,
    Transformer,
    adapter_paths,
    config_sha256,
    init_adapter,
    init_eva,
    save_adapter,
    save_judge,
)
from rocketjax.prompt import Prompter, row_lengths, template
from rocketjax.rank.metrics import auc
from rocketjax.tune.data import (
    Corpus,
    Packer,
    Source,
    TrainRow,
    batches,
    collect,
    epoch_rows,
    groups,
    show_reference,
    steps,
)
from rocketjax.tune.loss import Losses, init_head
from rocketjax.tune.step import Learner, Optimizer, Params, Scale, trainable, with_weights

FORMAT = 1
PER_SOURCE = (
    "share", "mismatched", "items", "pairs", "scores", "balance", "prior", "even_lengths", "reference",
)  # fmt: skip
# Tokens that the longest row has beyond the longest prompt, so that the other items of the response fit beside it
# instead of taking a row of their own with the response in it again.
ITEMS_ROOM = 256
KEPT = 2  # states on the disk: the newest may be the one that a kill tore


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that a tuned judge depends on besides the judge and the data."""

    method: Literal["lora", "full"] = "lora"
    rank: int = 16
    alpha: float = 32.0  # the adapter's product is multiplied by alpha / rank
    targets: tuple[str, ...] = TARGETS
    first_layer: int = 0  # layers below it stay as they are, and cost no backward pass
    init: Literal["lora", "eva"] = "lora"
    items: float = 1.0  # weights of the losses
    pairs: float = 1.0
    scores: float = 1.0
    mass: float = 0.2
    learning_rate: float = 5e-4
    head_learning_rate: float = 1e-2
    warmup: float = 0.05  # part of the steps
    weight_decay: float = 0.0
    clip: float = 1.0
    epochs: int = 1
    batch_tokens: int = 6144  # of an optimizer step, at least; its rows should be of a dozen queries or more
    max_tokens: int = 768  # of a prompt; a longer one is cut in the middle of its longest texts
    responses: int = 1  # of one query that may share a row: fewer tokens, but a step then sees fewer queries
    template: str = "native"
    held_out: float = 0.1  # part of the queries of every source
    eval_every: int = 50  # optimizer steps between evaluations and saved states
    eval_tokens: int = 40_000  # of held-out rows that an evaluation reads
    patience: int = 0  # evaluations without a better held-out loss before training stops; 0: never
    remat: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rank", "epochs", "batch_tokens", "max_tokens", "responses", "eval_every", "eval_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("alpha", "learning_rate", "head_learning_rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")
        for name in ("items", "pairs", "scores", "mass", "weight_decay", "patience", "first_layer", "seed"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        for name in ("held_out", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be in [0, 1)")
        if self.patience and not self.held_out:
            raise ValueError("patience needs a held-out part")


class Progress(msgspec.Struct):
    """Where training is. `loss` and `rate` are of the last step; `tokens` and `seconds` of this process."""

    step: int
    steps: int
    epoch: int
    loss: float
    held_out: dict[str, Any]
    tokens: int
    seconds: float


class Tuned(msgspec.Struct, frozen=True):
    """The result: `path` is an adapter folder (`BASE+path` is a judge) or, for all weights, a judge."""

    path: str
    steps: int
    best_step: int
    held_out: dict[str, Any]
    stopped_early: bool


def learning_rate(recipe: Recipe, done: float) -> float:
    """Linear warm-up, then a cosine to zero; `done` is the part of training behind us, in [0, 1]."""
    if done < recipe.warmup:
        return recipe.learning_rate * (done / recipe.warmup)
    rest = (done - recipe.warmup) / (1 - recipe.warmup)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * min(rest, 1.0)))


def tune(
    judge: Judge,
    sources: Sequence[Source],
    output: str | os.PathLike[str],
    recipe: Recipe | None = None,
    mode: Mode = "new",
    progress: Callable[[Progress], None] | None = None,
) -> Tuned:
    """Trains a judge on the labels of `sources` and returns where the result is.

    The judge's dtype decides the operands of every product; trained weights and the optimizer are f32. Raises
    RocketError for data that cannot be learned from, a folder that is taken, or other settings on resume.
    """
    recipe = recipe or Recipe()
    folder = Path(output)
    corpus = collect(sources, recipe.held_out, recipe.seed)
    # Two responses and their items must fit into the longest row there is.
    most = min(judge.model.config.context, (row_lengths(1 << 30)[-1] - ITEMS_ROOM) // 2)
    if recipe.max_tokens > most:
        raise RocketError(f"max_tokens is {recipe.max_tokens}; tuning this judge takes 1 to {most}")
    if not template(recipe.template).references:
        shown = [s.name for s in sources if s.reference != "none"]
        if shown:
            raise RocketError(f"template {recipe.template!r} has no place for a reference answer ({', '.join(shown)})")
    if recipe.patience and not any(corpus.held_out):
        raise RocketError("patience needs held-out queries, and no query fell into that part; raise held_out")
    if judge.adapted:
        raise RocketError(f"{judge.origin}: carries an adapter already; convert it to a judge of its own first")
    longest = row_lengths(recipe.max_tokens + ITEMS_ROOM)[-1]
    prompter = Prompter(judge.tokenizer, template(recipe.template), recipe.max_tokens, "truncate-middle")
    longest_pair = row_lengths(2 * recipe.max_tokens + ITEMS_ROOM)[-1]
    packer = Packer(corpus, prompter, longest, longest_pair, judge.model.config.window)
    # Before the folder is made, so that a recipe that does not fit the judge leaves nothing behind.
    training = Training(judge, corpus, packer, recipe, folder, progress)
    start(folder, about(judge, prompter, sources, corpus, recipe), mode)
    return training.run()


def about(
    judge: Judge, prompter: Prompter, sources: Sequence[Source], corpus: Corpus, recipe: Recipe
) -> dict[str, Any]:
    """tune.json: everything that the result depends on."""
    return {
        "format": FORMAT,
        "judge": {
            "origin": judge.origin,
            "weights_sha256": judge.sha256,
            "tokenizer_sha256": judge.tokenizer.sha256,
            "config_sha256": config_sha256(judge.model.config),
            "prompt_sha256": prompter.sha256,
            "dtype": judge.dtype,
        },
        "recipe": msgspec.to_builtins(recipe),
        "sources": [
            {
                "name": s.name,
                "sha256": s.benchmark.sha256,
                "labeler": s.labeler,
                **{k: getattr(s, k) for k in PER_SOURCE},
                "data": counts,
            }
            for s, counts in zip(sources, corpus.counts, strict=True)
        ],
        "versions": {
            "rocketjax": rocketjax.__version__,
            "jax": jax.__version__,
            "backend": jax.default_backend(),
            "machine": platform.machine(),
        },
    }


def start(folder: Path, meta: Mapping[str, Any], mode: Mode) -> None:
    """Makes the folder, or takes the one that is there, as `Run.start` does."""
    file = folder / "tune.json"
    if folder.exists() and not folder.is_dir():
        raise RocketError(f"{folder}: is a file; tuning needs a folder of its own")
    names = [n for n in os.listdir(folder) if not n.endswith(".tmp")] if folder.is_dir() else []
    if names and not file.exists():
        raise RocketError(f"{folder}: is not empty and no tuning; choose another folder for -o")
    if file.exists() and mode == "overwrite":
        # tune.json last: until then the folder is a tuning, and can be overwritten again.
        for name in ("state", "adapter", "judge", "log.jsonl", "loss.png", "tune.json"):
            if (folder / name).is_dir():
                shutil.rmtree(folder / name)
            else:
                (folder / name).unlink(missing_ok=True)
    if not file.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_json(file, meta)
        except OSError as e:
            raise RocketError(f"{folder}: cannot be written ({e})") from None
    elif mode == "new":
        raise RocketError(
            f"{folder}: holds a tuning already. Use --resume to continue it or --overwrite to begin anew."
        )
    try:
        there = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as e:
        raise RocketError(f"{file}: cannot be read ({e})") from None
    differ = differences(there, json.loads(json.dumps(meta)))
    if differ:
        raise RocketError(f"{folder}: was begun with other settings:\n  " + "\n  ".join(differ))


class Training:
    """One process's work on a tuning folder."""

    def __init__(
        self,
        judge: Judge,
        corpus: Corpus,
        packer: Packer,
        recipe: Recipe,
        folder: Path,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.judge, self.corpus, self.packer, self.recipe, self.folder = judge, corpus, packer, recipe, folder
        self.progress = progress
        self.begun = time.perf_counter()
        self.tokens = 0
        self.log: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self.worse = 0
        params, scale = self.fresh()
        optimizer = Optimizer(recipe.weight_decay, recipe.clip)
        self.scale = scale
        self.learner = Learner(
            judge.model, judge.tokenizer.answer_ids(), params, scale, optimizer, judge.mesh, recipe.remat
        )

    def fresh(self) -> tuple[Params, float | None]:
        """Untrained parameters, and the adapter's factor."""
        r, model = self.recipe, self.judge.model
        head = init_head(len(self.corpus.items), len(self.corpus.sources))
        if r.first_layer >= model.config.layers:
            raise RocketError(f"first_layer is {r.first_layer}; the judge has {model.config.layers} layers")
        if r.method == "full":
            return Params(trainable(model, r.first_layer), head), None
        where = adapter_paths(model.config, r.targets, range(r.first_layer, model.config.layers))
        adapter = init_adapter(model, where, r.rank, r.alpha / r.rank, jax.random.key(r.seed))
        if r.init == "eva":
            rows = epoch_rows(self.packer, r.seed, 0, r.responses)[:EVA_ROWS]
            adapter = init_eva(adapter, input_moments(model, where, rows))
        return Params(adapter.pairs, head), adapter.scale

    def run(self) -> Tuned:
        r = self.recipe
        done = self.restore()
        held_out = self.held_out_rows()
        # Every epoch's steps are known before the first: the learning rate looks ahead to the end.
        plan = [
            (epoch, rows)
            for epoch in range(r.epochs)
            for rows in steps(epoch_rows(self.packer, r.seed, epoch, r.responses), r.batch_tokens)
        ]
        if not plan:
            raise RocketError("nothing to train on: no row has a label; raise share, or see what the losses need")
        total, step = len(plan), done
        if self.best is None:
            self.evaluate(0, total, held_out)
        for epoch, rows in plan[done:]:
            if r.patience and self.worse >= r.patience:
                break
            step += 1
            loss = self.one_step(step, total, epoch, rows)
            if step % r.eval_every == 0 or step == total:
                self.evaluate(step, total, held_out)
            self.show(step, total, epoch, loss)
        write_plot(self.folder, self.log)
        self.tidy()
        assert self.best is not None, "training ends with an evaluation"
        name = "judge" if r.method == "full" else "adapter"
        return Tuned(str(self.folder / name), step, self.best["step"], self.best, step < total)

    def one_step(self, step: int, total: int, epoch: int, rows: list[TrainRow]) -> float:
        """An optimizer step, and its line in the log."""
        r = self.recipe
        at = time.perf_counter()
        made = [batch for batch, _ in batches(rows, self.learner.multiple)]
        scale = step_scale(r, rows)
        # The rate of a step is the one at its middle: neither the first nor the last is zero.
        rate = learning_rate(r, (step - 0.5) / total)
        head_rate = rate / r.learning_rate * r.head_learning_rate
        sums, norm = self.learner.step(made, scale, rate, head_rate)
        means = mean_losses(sums)
        loss = step_loss(r, sums)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            write_lines(self.folder / "log.jsonl", self.log)
            raise RocketError(f"step {step}: the loss is {loss}, its gradient's norm {norm}; lower the learning rate")
        tokens = sum(row.row.tokens for row in rows)
        self.tokens += tokens
        self.log.append(
            {"step": step, "epoch": epoch, "loss": loss, **means, "rate": rate, "norm": norm, "rows": len(rows),
             "tokens": tokens, "seconds": round(time.perf_counter() - at, 3)}
        )  # fmt: skip
        return loss

    def held_out_rows(self) -> list[list[TrainRow]]:
        """Rows of held-out queries per source, an even share of `eval_tokens` each."""
        r = self.recipe
        sources = [i for i, answers in enumerate(self.corpus.held_out) if answers]
        out: list[list[TrainRow]] = [[] for _ in self.corpus.sources]
        for index in sources:
            rng = np.random.default_rng([r.seed, index])
            paired = self.corpus.sources[index].pairs > 0
            for group in groups(self.corpus.held_out[index], r.responses, paired, rng):
                if sum(row.length for row in out[index]) >= r.eval_tokens / len(sources):
                    break
                out[index] += self.packer.rows(show_reference(group, self.corpus.sources[index].reference, rng))
        return out

    def evaluate(self, step: int, total: int, held_out: list[list[TrainRow]]) -> None:
        """Losses and figures on the held-out rows; keeps the best weights; saves the state."""
        r = self.recipe
        line: dict[str, Any] = {"step": step, "held_out": {}, "packed": dict(self.packer.counts)}
        sums: list[Losses] = []
        for source, rows in zip(self.corpus.sources, held_out, strict=True):
            if not rows:
                continue
            p, label = [], []
            own: list[Losses] = []
            for batch, real in batches(rows, self.learner.multiple):
                out, part = self.learner.predict(batch)
                own.append(part)
                labelled = np.asarray(batch.targets.weight_L)[:real] > 0
                p.append(1 / (1 + np.exp(-np.asarray(out.margin_L, np.float64)[:real][labelled])))
                label.append(np.asarray(batch.targets.target_L)[:real][labelled])
            added = jax.tree.map(lambda *x: sum(x), *own)
            sums.append(added)
            graded, labels = np.concatenate(p), np.concatenate(label)
            figures: dict[str, float | None] = {k: v for k, v in mean_losses(added).items() if v is not None}
            if len(labels):
                figures |= {
                    "auc": finite(auc(graded, labels)),
                    "majority": max(float(np.mean(labels > 0.5)), float(np.mean(labels < 0.5))),
                    "mean_p": float(graded.mean()),
                    "mean_label": float(labels.mean()),
                    "labels": len(labels),
                }
            line["held_out"][source.name] = figures
        if sums:
            # Each source counts alike, however many of its labels fit the evaluation.
            line["loss"] = float(np.mean([step_loss(r, one) for one in sums]))
            if not math.isfinite(line["loss"]):
                write_lines(self.folder / "log.jsonl", self.log)
                raise RocketError(f"step {step}: the held-out loss is {line['loss']}; lower the learning rate")
        # Without held-out queries the last weights are the result.
        if self.best is None or not sums or line["loss"] < self.best["loss"]:
            self.best, self.worse = line, 0
            self.save_result(step, total)
        else:
            self.worse += 1
        line["best"] = self.best["step"]
        self.log.append(line)
        self.save(step)

    def save_result(self, step: int, total: int) -> None:
        """Writes the trained weights as the result so far."""
        r, weights = self.recipe, jax.device_get(self.learner.params.weights)
        trained = {"step": step, "of": total, "recipe": msgspec.to_builtins(r),
                   "sources": [s.name for s in self.corpus.sources]}  # fmt: skip
        if self.scale is None:
            save_judge(
                with_weights(self.judge.model, weights), self.judge.path, self.folder / "judge", self.judge.sha256
            )
        else:
            card = Card(self.judge.sha256, self.judge.origin, r.rank, self.scale, trained)
            save_adapter(Adapter(weights, self.scale), self.judge.model.config, card, self.folder / "adapter")

    def save(self, step: int) -> None:
        """The state after this step, complete once its .json is there; the newest `KEPT` stay."""
        from orbax.checkpoint import v1 as ocp

        root = self.folder / "state"
        target = (root / f"{step:08d}").absolute()
        if target.exists():
            shutil.rmtree(target)
        write_lines(self.folder / "log.jsonl", self.log)
        ocp.save(target, numbered((self.learner.params, self.learner.state)))
        write_json(root / f"{step:08d}.json", {"best": self.best, "worse": self.worse})
        for old in sorted(root.glob("*.json"))[:-KEPT]:
            old.unlink()
            shutil.rmtree(old.with_suffix(""), ignore_errors=True)

    def tidy(self) -> None:
        """Clears away what killed processes left: temporary files and folders, and states that were never complete."""
        root = self.folder / "state"
        complete = {file.stem for file in root.glob("*.json")}
        stale = [*self.folder.glob(".*.tmp"), *root.glob(".*.tmp")]
        stale += [path for path in root.iterdir() if path.is_dir() and path.name not in complete]
        for path in stale:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def restore(self) -> int:
        """Takes up the newest complete state and returns its step, 0 if there is none."""
        from orbax.checkpoint import v1 as ocp

        found = sorted((self.folder / "state").glob("*.json"), reverse=True)
        now = (self.learner.params, self.learner.state)
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), now)
        broken = ""
        for file in found:
            try:
                small = json.loads(file.read_text("utf-8"))
                lines = (self.folder / "log.jsonl").read_text("utf-8").splitlines()
                loaded = ocp.load(file.with_suffix("").absolute(), numbered(abstract))
                break
            except Exception as e:  # Orbax raises many kinds for a broken state; all mean the same here
                broken = broken or f"{file.with_suffix('')}: cannot be read ({str(e).splitlines()[0][:300]})"
        else:
            if broken:
                raise RocketError(f"{broken}, nor an older state; begin anew with --overwrite")
            return 0
        leaves = [loaded[key] for key in numbered(now)]
        self.learner.params, self.learner.state = jax.tree.unflatten(jax.tree.structure(now), leaves)
        self.best, self.worse = small["best"], small["worse"]
        done = int(file.stem)
        self.log = [line for line in map(json.loads, lines) if line["step"] <= done]
        return done

    def show(self, step: int, total: int, epoch: int, loss: float) -> None:
        if self.progress:
            last: dict[str, Any] = next((line["held_out"] for line in reversed(self.log) if "held_out" in line), {})
            seconds = time.perf_counter() - self.begun
            self.progress(Progress(step, total, epoch, loss, last, self.tokens, seconds))


EVA_ROWS = 64  # rows whose activations decide where an EVA adapter begins


def input_moments(model: Transformer, where: Sequence[str], rows: Sequence[TrainRow]) -> dict[str, jax.Array]:
    """X^T X of the inputs of these projections over the tokens of all rows, f32[in, in] each.

    Padding is left out. Projections that read the same input share one array.
    """
    wanted = set(where)
    same: dict[str, str] = {}  # path -> the first path that reads the same input

    def moments(row: Row, used: jax.Array, asked: jax.Array) -> dict[str, jax.Array]:
        found: dict[str, jax.Array] = {}
        inputs: dict[int, tuple[str, jax.Array]] = {}  # holds the arrays, so that their ids stay theirs
        length = row.token_T.shape[0]

        def tap(path: str, x: jax.Array) -> None:
            if path in wanted:
                same[path], _ = inputs.setdefault(id(x), (path, x))
                if same[path] != path:
                    return
                flat = x.reshape(len(x), -1)
                # In the last layer queries and MLP see the leaves only, whose padding repeats the last one.
                real = jnp.arange(len(x)) < (used if len(x) == length else asked)
                flat = jnp.where(real[:, None], flat, 0.0)
                found[path] = jnp.einsum("ti,tj->ij", flat, flat, precision="highest")

        model.hidden(row, "plain", tap=tap)
        return found

    step = jax.jit(moments)
    total: dict[str, jax.Array] = {}
    for row in rows:
        arrays = [jnp.asarray(getattr(row.row, name)) for name in Row._fields]
        more = step(Row(*arrays), jnp.int32(row.row.tokens), jnp.int32(len(row.row.owners)))
        total = {path: total[path] + m for path, m in more.items()} if total else more
    return {path: total[first] for path, first in same.items()}


def step_scale(recipe: Recipe, rows: Sequence[TrainRow]) -> Scale:
    """What turns the sums over these rows into the step's loss: a mean over all labels, whatever their kind.

    A mean of each kind by itself would let the only pair of a step weigh as much as its hundred items. The answer
    mass is a mean over the leaves.
    """

    def total(name: str) -> float:
        return sum(float(getattr(row.targets, name).sum()) for row in rows)

    r = recipe
    labels = r.items * total("weight_L") + r.pairs * total("pair_weight_L") + r.scores * total("score_weight_L")
    one = 1 / labels if labels else 0.0
    return Scale(r.items * one, r.pairs * one, r.scores * one, r.mass / max(total("used_L"), 1.0))


def step_loss(recipe: Recipe, sums: Losses) -> float:
    """The same from the sums."""
    r = recipe
    labels = r.items * sums.items_weight + r.pairs * sums.pairs_weight + r.scores * sums.scores_weight
    loss = r.items * sums.items + r.pairs * sums.pairs + r.scores * sums.scores
    return float((loss / labels if labels else 0.0) + r.mass * sums.mass / max(float(sums.used), 1.0))


def mean_losses(sums: Losses) -> dict[str, float | None]:
    """Means per label of each loss; None where there was no label."""
    pairs = {
        "items": (sums.items, sums.items_weight),
        "pairs": (sums.pairs, sums.pairs_weight),
        "scores": (sums.scores, sums.scores_weight),
        "mass": (sums.mass, sums.used),
        "accuracy": (sums.hits, sums.labels),
    }
    return {name: float(total / weight) if weight else None for name, (total, weight) in pairs.items()}


def numbered(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by their number: a form that any version of Orbax gives back as it was."""
    return {f"{i:05d}": leaf for i, leaf in enumerate(jax.tree.leaves(tree))}


def finite(value: float) -> float | None:
    """None for NaN, which JSON does not have."""
    return value if math.isfinite(value) else None


def write_lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    data = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines).encode()
    write_atomically(path, lambda file: file.write(data))


def write_plot(folder: Path, log: Sequence[Mapping[str, Any]]) -> Path | None:
    """loss.png: the training loss of every step, its running mean, and the held-out loss. None without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    step, loss = (np.asarray([line[k] for line in log if "rate" in line]) for k in ("step", "loss"))
    axes.plot(step, loss, color="0.8", linewidth=0.8, label="step")
    width = max(1, len(loss) // 25)
    if len(loss) >= width:
        running = np.convolve(loss, np.ones(width) / width, "valid")
        axes.plot(step[width - 1 :], running, label=f"mean of {width} steps")
    held_out = [(line["step"], line["loss"]) for line in log if "held_out" in line and "loss" in line]
    if held_out:
        axes.plot(*zip(*held_out, strict=True), "o-", label="held-out queries")
    axes.set(xlabel="optimizer step", ylabel="loss", ylim=(0, None))
    axes.legend()
    axes.grid(alpha=0.3)
    path = folder / "loss.png"
    figure.savefig(path, dpi=120)
    return path
