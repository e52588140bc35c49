"""A judge that grades a benchmark into a run."""

import contextlib
import datetime
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import jax

import rocketjax
from rocketjax.bench import Benchmark
from rocketjax.errors import RocketError
from rocketjax.grade.run import FORMAT, OK, Mode, Run, write_json
from rocketjax.grade.step import Grader, group_rows
from rocketjax.grade.stream import PREPARED, SHARD_ITEMS, Job, Shard, Work, ahead, plan, prepare, stream
from rocketjax.judge import Config, Dtype, Transformer, cache_dir, load_judge, locate
from rocketjax.prompt import (
    OVERFLOWS,
    Overflow,
    Prompter,
    Tokenizer,
    load_tokenizer,
    row_lengths,
    template,
)

Progress = Callable[[Work], None]
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
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.origin, self.sha256, self.dtype, self.path, self.adapted = origin, sha256, dtype, path, adapted

    @classmethod
    def load(cls, name: str | None = None, dtype: Dtype = "f32", say: Callable[[str], None] | None = None) -> "Judge":
        """Loads a judge: a folder (Hugging Face or `rocketjax convert`), a .gguf file, org/name[@revision] on the
        Hugging Face hub, or, without a name, the embedded default.

        `f32` is exact; `bf16` rounds weights and the operands of products to bf16, with f32 results; `int8` rounds
        weights to 8 bits, a quarter of f32's memory. Raises RocketError where nothing can be loaded, with the
        reason and what to do.
        """
        if dtype not in get_args(Dtype):
            raise RocketError(f"unknown dtype {dtype!r}; there are: {', '.join(get_args(Dtype))}")
        use_compile_cache()
        checkpoint = locate(name, say)
        model, sha256 = load_judge(checkpoint, dtype)
        tokenizer, adapted = load_tokenizer(checkpoint.path), checkpoint.adapter is not None
        return cls(model, tokenizer, checkpoint.origin, sha256, dtype, checkpoint.path, adapted)

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
        """
        begun = time.perf_counter()
        benchmark = benchmark.select(models, limit)
        prompter, shards, meta = self.plan(benchmark, template, overflow, max_tokens, reference, shard_items)
        check_lengths(benchmark, prompter)
        run = Run.start(output or tempfile.mkdtemp(prefix="rocketjax-"), meta, mode)
        done = set(run.parts())
        todo = [shard for shard in shards if shard.index not in done]
        count = {s: len(benchmark.checklists[s].items) * len(benchmark.models) for s in benchmark.checklists}
        work = Work(
            parts=len(done),
            parts_total=len(shards),
            items_total=sum(count[s] for t in todo for s in t.sessions),
        )
        run.note_benchmark(benchmark.path)
        if todo:
            self.work(run, benchmark, prompter, todo, work, batch_rows, progress, begun)
        if run.complete:
            run.finish()
        return run

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
        devices = jax.local_devices()
        mesh = jax.make_mesh((len(devices), 1), ("data", "model"), devices=devices)
        grader = Grader(self.model, self.tokenizer.answer_ids(), mesh, batch_rows)
        started = datetime.datetime.now(datetime.UTC)
        session = run.path / "sessions" / f"{started:%Y%m%dT%H%M%S}-{os.getpid()}.json"

        def jobs() -> Iterator[Job]:
            for shard in todo:
                if not run.part(shard.index).exists():  # by another process, meanwhile
                    yield prepare(shard, benchmark, prompter, self.model.config)

        def note() -> None:
            work.seconds = time.perf_counter() - begun
            write_json(
                session,
                {
                    "started": started.isoformat(timespec="seconds"),
                    "host": {"devices": len(devices), "kind": devices[0].device_kind, "cpus": os.cpu_count()},
                    "batch_rows": batch_rows,
                    **vars(work),
                },
            )

        with contextlib.closing(ahead(jobs(), PREPARED)) as prepared:
            for job in stream(prepared, grader, work):
                at = time.perf_counter()
                table = job.table()
                run.commit(job.shard.index, table)
                work.parts += 1
                work.items += len(job.keys)
                work.failed += sum(status != OK for status in job.status)
                work.truncated += int((job.truncated > 0).sum())
                work.write += time.perf_counter() - at
                note()
                if progress:
                    progress(work)


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
    if max_tokens is not None and not 1 <= max_tokens <= config.context:
        raise RocketError(f"max_tokens is {max_tokens}; this judge takes 1 to {config.context}")
    longest = max_tokens or min(config.context, MAX_TOKENS)
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


def check_lengths(benchmark: Benchmark, prompter: Prompter) -> None:
    """Finds a missing reference and, under `--overflow error`, the first over-long prompt before anything is written.

    A token is at least one byte of text, so only prompts with more bytes than tokens allowed are encoded.
    """
    for session_id, checklist in benchmark.checklists.items():
        shown = prompter.shown(benchmark, session_id) or ""
        if prompter.overflow != "error":
            continue
        longest = max(len(item.encode()) for item in checklist.items) + len(shown.encode())
        for model in benchmark.models:
            if session_id not in benchmark.responses[model]:
                continue
            turns = benchmark.conversation(session_id, model)
            text = sum(len(t.content.encode()) + 16 for t in turns)
            text += len(benchmark.responses[model][session_id].text.encode())
            if text + longest + WORDING > prompter.max_tokens:
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
