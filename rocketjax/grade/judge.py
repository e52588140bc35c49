"""A judge that grades a benchmark into a run."""

import contextlib
import datetime
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import jax
from jax.sharding import Mesh

import rocketjax
from rocketjax.bench import Benchmark
from rocketjax.errors import RocketError
from rocketjax.files import cache_dir
from rocketjax.grade.run import FORMAT, OK, Mode, Run, differences, write_json
from rocketjax.grade.step import Grader, group_rows
from rocketjax.grade.stream import PREPARED, SHARD_ITEMS, Job, Shard, Work, ahead, plan, prepare, stream
from rocketjax.judge import (
    Config,
    Dtype,
    MeshShape,
    Team,
    Transformer,
    agree,
    config_sha256,
    first,
    load_judge,
    locate,
    make_mesh,
    places_for,
    read_config,
    team_of,
    weight_bytes,
)
from rocketjax.prompt import (
    OVERFLOWS,
    Overflow,
    Prompter,
    Tokenizer,
    largest_id,
    load_tokenizer,
    row_lengths,
    template,
)

Progress = Callable[[Work], None]
POLL = 1.0  # seconds between two first looks at whether the other processes are done
PATIENCE = 60.0  # seconds that a network file system may take to show a new run to other hosts
LONGEST = row_lengths(1 << 30)[-1]  # tokens of the longest row; a prompt is never cut in two
MAX_TOKENS = 8192  # default bound of a prompt where the judge's own context is longer


class Judge:
    """A model with its tokenizer, ready to grade. Make one with `Judge.load`."""

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        origin: str,
        sha256: str,
        dtype: Dtype,
        path: Path,
        adapted: bool = False,
        mesh: Mesh | None = None,
        team: Team | None = None,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.team = team or team_of(1)
        self.mesh = mesh or make_mesh(MeshShape(len(self.team.devices)), self.team.devices)
        self.origin, self.sha256, self.dtype, self.path, self.adapted = origin, sha256, dtype, path, adapted

    @classmethod
    def load(
        cls,
        name: str | None = None,
        dtype: Dtype = "f32",
        say: Callable[[str], None] | None = None,
        mesh: str = "auto",
    ) -> "Judge":
        """Loads a judge: a folder (Hugging Face or `rocketjax convert`), a .gguf file, org/name[@revision] on the
        Hugging Face hub, or, without a name, the embedded default.

        `f32` is exact; `bf16` rounds weights and the operands of products to bf16, with f32 results; `int8` rounds
        weights to 8 bits, a quarter of f32's memory. `mesh` says how devices share the work, like `data=4,model=2`
        (see `rocketjax.judge.sharding`); `auto` gives each device its own rows, unless the weights do not fit on one.
        Raises RocketError where nothing can be loaded, with the reason and what to do.
        """
        if dtype not in get_args(Dtype):
            raise RocketError(f"unknown dtype {dtype!r}; there are: {', '.join(get_args(Dtype))}")
        use_compile_cache()
        checkpoint = locate(name, say)
        config = read_config(checkpoint.path)
        places, team = places_for(config, weight_bytes(config, dtype), mesh)
        tokenizer, adapted = load_tokenizer(checkpoint.path), checkpoint.adapter is not None
        check_ids(tokenizer, config, checkpoint.path)
        # Where a device holds the whole judge, one reads it and the others get their copies from there.
        cut = places if places.shape["model"] > 1 else None
        model, sha256 = load_judge(checkpoint, dtype, cut)
        return cls(model, tokenizer, checkpoint.origin, sha256, dtype, checkpoint.path, adapted, places, team)

    def grade(
        self,
        benchmark: Benchmark,
        output: str | os.PathLike[str] | None = None,
        *,
        limit: int | None = None,
        models: Sequence[str] | None = None,
        template: str = "native",
        overflow: Overflow = "error",
        max_tokens: int | None = None,
        reference: str | None = None,
        mode: Mode = "new",
        batch_rows: int | None = None,
        shard_items: int = SHARD_ITEMS,
        progress: Progress | None = None,
    ) -> Run:
        """Grades every item of every response and returns the run.

        `output` is the run's folder (a new temporary one if None). `limit` takes the first queries only, `models` some
        of the models. A prompt over `max_tokens` (default: the judge's context, at most 8,192) is treated by
        `overflow`. `reference` names the author whose reference answers the judge sees. `mode` says what to do with a
        run that is there. `batch_rows` rows per device are collected before they are sent; it changes speed, never a
        grade. Raises RocketError for bad input; what was committed before
        stays.

        Where this process is one of several (`rocketjax.begin`), all of them call this with the same arguments, and
        each returns when the whole run is graded; `progress` tells of this process's share.
        """
        begun = time.perf_counter()
        benchmark = benchmark.select(models, limit)

        def checked() -> tuple[Prompter, list[Shard], dict[str, Any]]:
            planned = self.plan(benchmark, template, overflow, max_tokens, reference, shard_items)
            if not begun_before:  # a run was checked when it was begun
                check_lengths(benchmark, planned[0])
            return planned

        # One process looks: a network file system would remember for the others that there was no run.
        _, looked = agree(lambda: first() and mode == "resume" and output is not None and Run.begun(output), json.dumps)
        begun_before = json.loads(looked[0])
        (prompter, shards, meta), said = agree(checked, lambda planned: json.dumps(planned[2]))
        for process, other in enumerate(said):
            if differ := differences(json.loads(other), json.loads(said[jax.process_index()])):
                raise RocketError(f"process {process} grades something else than this one:\n  " + "\n  ".join(differ))
        if output is None and jax.process_count() > 1:
            raise RocketError("several processes need a run folder that all of them see; give it")
        run, done = self.enter(output or tempfile.mkdtemp(prefix="rocketjax-"), meta, mode, benchmark.path)
        todo = [shard for shard in shards if shard.index not in done][self.team.index :: self.team.count]
        count = {s: len(benchmark.checklists[s].items) * len(benchmark.models) for s in benchmark.checklists}
        work = Work(
            parts=len(done),
            parts_total=len(shards),
            items_total=sum(count[s] for t in todo for s in t.sessions),
        )
        if todo:
            self.work(run, benchmark, prompter, todo, work, batch_rows, progress, begun)
        if jax.process_count() > 1:
            await_others(run, {shard.index for shard in todo} if self.team.leads else set())
            agree(lambda: None)  # all have written what they had to: temporary files are nobody's now
        if run.complete and first():
            run.finish()
        return run

    def enter(
        self, output: str | os.PathLike[str], meta: Mapping[str, Any], mode: Mode, noted: str
    ) -> tuple[Run, set[int]]:
        """The run's folder, made or opened by the first process, and the parts that are done, the same for all."""

        def start() -> list[int]:
            if not first():
                return []
            run = Run.start(output, meta, mode)
            run.note_benchmark(noted)
            return run.parts()

        _, said = agree(start, json.dumps)
        run, texts = agree(lambda: opened(output), lambda run: json.dumps(dict(run.meta)))
        for process, text in enumerate(texts):
            if text != texts[0]:
                raise RocketError(
                    f"{output}: process {process} sees another run there than process 0; all must see one folder"
                )
        return run, set(json.loads(said[0]))

    def plan(
        self,
        benchmark: Benchmark,
        template_name: str,
        overflow: Overflow,
        max_tokens: int | None,
        reference: str | None,
        shard_items: int,
    ) -> tuple[Prompter, list[Shard], dict[str, Any]]:
        """The prompter, the shards, and run.json: everything that the grades depend on, and nothing else."""
        prompter = make_prompter(self.tokenizer, self.model.config, template_name, overflow, max_tokens, reference)
        if shard_items < 1:
            raise RocketError(f"shard_items is {shard_items}; it must be at least 1")
        longest = prompter.max_tokens
        shards = plan(benchmark, shard_items)
        backend = jax.default_backend()
        meta = {
            "format": FORMAT,
            "benchmark": about_benchmark(benchmark),
            "judge": {
                "origin": self.origin,
                "weights_sha256": self.sha256,
                "tokenizer_sha256": self.tokenizer.sha256,
                "config_sha256": config_sha256(self.model.config),
                "prompt_sha256": prompter.sha256,
                "dtype": self.dtype,
            },
            "prompt": {
                "template": template_name,
                "chat": prompter.chat.name,
                "overflow": overflow,
                "max_tokens": longest,
                "reference": reference,
            },
            "plan": {
                "parts": len(shards),
                "shard_items": shard_items,
                "rows": {str(n): group_rows(n, backend) for n in row_lengths(longest)},
                # It changes the order of sums, so the parts of a run have one; 1 goes without saying.
                **({"model_axis": self.mesh.shape["model"]} if self.mesh.shape["model"] > 1 else {}),
            },
            "versions": {
                "rocketjax": rocketjax.__version__,
                "jax": jax.__version__,
                "backend": backend,
                "machine": platform.machine(),
            },
        }
        return prompter, shards, meta

    def work(
        self,
        run: Run,
        benchmark: Benchmark,
        prompter: Prompter,
        todo: list[Shard],
        work: Work,
        batch_rows: int | None,
        progress: Progress | None,
        begun: float,
    ) -> None:
        """Grades the shards that are not done, commits each as soon as it is, and keeps the session file."""
        grader = Grader(self.model, self.tokenizer.answer_ids(), self.mesh, batch_rows)
        started = datetime.datetime.now(datetime.UTC)
        name = f"{started:%Y%m%dT%H%M%S}-{jax.process_index()}-{os.getpid()}.json"
        session, alone = run.path / "sessions" / name, self.team.alone

        def jobs() -> Iterator[Job]:
            for shard in todo:
                # Done by another job meanwhile? Of a team nobody may leave out what the others compute.
                if not (alone and run.part(shard.index).exists()):
                    yield prepare(shard, benchmark, prompter, self.model.config)

        def note() -> None:
            work.seconds = time.perf_counter() - begun
            write_json(
                session,
                {
                    "started": started.isoformat(timespec="seconds"),
                    "host": {
                        "process": jax.process_index(),
                        "processes": jax.process_count(),
                        "mesh": dict(self.mesh.shape),
                        "kind": self.mesh.devices.flat[0].device_kind,
                        "cpus": os.cpu_count(),
                    },
                    "batch_rows": batch_rows,
                    **vars(work),
                },
            )

        with contextlib.closing(ahead(jobs(), PREPARED)) as prepared:
            for job in stream(prepared, grader, work):
                at = time.perf_counter()
                table = job.table()
                if self.team.leads:
                    run.commit(job.shard.index, table)
                work.parts += 1
                work.items += len(job.keys)
                work.failed += sum(status != OK for status in job.status)
                work.truncated += int((job.truncated > 0).sum())
                work.write += time.perf_counter() - at
                note()
                if progress:
                    progress(work)


def opened(output: str | os.PathLike[str]) -> Run:
    """The run that the first process has just made; a network file system may show it late."""
    until = time.monotonic() + (0 if first() else PATIENCE)
    while True:
        try:
            return Run.open(output)
        except RocketError:
            if time.monotonic() > until:
                raise
            time.sleep(POLL)


def await_others(run: Run, own: set[int]) -> None:
    """Waits until every part is there. Where another process dies, JAX ends this one too.

    Raises RocketError where a part of `own` has vanished, as when another job overwrites the run, and OSError where the
    folder cannot be listed several times in a row.
    """
    pause, failures = POLL, 0
    while True:
        try:
            there = set(run.parts())
            failures = 0
        except (OSError, RocketError):
            failures += 1
            if failures == 5:
                raise
            there = own
        if len(there) == run.meta["plan"]["parts"]:
            return
        if gone := own - there:
            raise RocketError(f"{run.path}: part {min(gone)} was there and is gone; another job works on this run")
        time.sleep(pause)
        pause = min(15.0, 1.5 * pause)


def check_ids(tokenizer: Tokenizer, config: Config, path: Path) -> None:
    """RocketError for a token of any prompt that the model has no row for: a device would take its last row instead.

    Entries of the vocabulary that neither text nor the chat format yields may lie outside, as Gemma 3's image token
    does in models without vision.
    """
    token = largest_id(tokenizer)
    if token >= config.V:
        raise RocketError(
            f"{path}: token {token} ({tokenizer.token_text(token)!r}) of the tokenizer lies outside of the model's "
            f"vocabulary of {config.V}; tokenizer and weights are not of one model, take both from the same"
        )


def make_prompter(
    tokenizer: Tokenizer,
    config: Config,
    template_name: str = "native",
    overflow: Overflow = "error",
    max_tokens: int | None = None,
    reference: str | None = None,
) -> Prompter:
    """What makes the prompts of a run with these options, as in `Judge.grade`; the judge's weights are not needed."""
    if overflow not in OVERFLOWS:
        raise RocketError(f"unknown overflow policy {overflow!r}; there are: {', '.join(OVERFLOWS)}")
    most = min(config.context, LONGEST)
    if max_tokens is not None and not 1 <= max_tokens <= most:
        why = f"; its context is {config.context}, the longest row {LONGEST}" if config.context > LONGEST else ""
        raise RocketError(f"max_tokens is {max_tokens}; this judge takes 1 to {most}{why}")
    longest = max_tokens or min(most, MAX_TOKENS)
    return Prompter(tokenizer, template(template_name), longest, overflow, reference)


def about_benchmark(benchmark: Benchmark) -> dict[str, Any]:
    """What run.json says of the benchmark."""
    return {
        "name": benchmark.name,
        "sha256": benchmark.sha256,
        "questions_sha256": benchmark.questions_sha256,
        "models": benchmark.models,
        "queries": len(benchmark.checklists),
        "items": sum(len(c.items) for c in benchmark.checklists.values()) * len(benchmark.models),
        "excluded": excluded(benchmark),
    }


WORDING = 2048  # bytes, more than any template and chat format put around query, response and item
TURN = 16  # bytes, that a template puts around a turn of the conversation
SEAM = 64  # tokens, more than another item can change of those before it


def check_lengths(benchmark: Benchmark, prompter: Prompter) -> None:
    """Finds a missing reference and, under `--overflow error`, the first over-long prompt before anything is written.

    A token is at least one byte of text, so only prompts with more bytes than tokens allowed are encoded: first that of
    one item, and those of all only where another item's bytes might be too many.
    """
    lenient = replace(prompter, overflow="skip")
    for session_id, checklist in benchmark.checklists.items():
        shown = prompter.shown(benchmark, session_id)
        if prompter.overflow != "error":
            continue
        item = max(checklist.items, key=lambda text: len(text.encode()))
        longest = len(item.encode())
        room = prompter.max_tokens - WORDING - longest - len((shown or "").encode())
        for model in benchmark.models:
            if session_id not in benchmark.responses[model]:
                continue
            if benchmark.most_bytes(session_id, model, TURN) <= room:
                continue  # without a look at the text
            turns = benchmark.conversation(session_id, model)
            response = benchmark.responses[model][session_id].text
            text = sum(len(t.content.encode()) + TURN for t in turns) + len(response.encode())
            if text > room:
                one = lenient.render(turns, response, [item], "", shown).sequences
                if one is None or len(one[0]) + longest + SEAM > prompter.max_tokens:
                    prompter.prompts(benchmark, session_id, model)


def excluded(benchmark: Benchmark) -> dict[str, int]:
    """Counts of what was left out, by reason."""
    counts: dict[str, int] = {}
    for exclusion in benchmark.exclusions:
        counts[exclusion.reason] = counts.get(exclusion.reason, 0) + 1
    return dict(sorted(counts.items()))


def use_compile_cache() -> None:
    """Keeps compiled programs in a folder of the user's own, unless the user chose one.

    Never a shared folder: whoever writes there could have his code run (jax's own warning).
    """
    if jax.config.jax_compilation_cache_dir is not None:  # type: ignore[attr-defined]
        return
    folder = cache_dir() / "xla"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return  # a read-only home costs compile time, nothing else
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
