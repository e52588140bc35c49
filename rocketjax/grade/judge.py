"""A judge that grades a benchmark into a run."""

import dataclasses
import datetime
import os
import platform
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import numpy as np
import numpy.typing as npt
import pyarrow as pa

import rocketjax
from rocketjax.bench import Benchmark
from rocketjax.errors import RocketError
from rocketjax.grade.run import FORMAT, GRADES, OK, Mode, Run, write_json
from rocketjax.grade.step import Answers, Grader, group_rows
from rocketjax.judge import Transformer, cache_dir, load_judge, locate
from rocketjax.prompt import (
    OVERFLOWS,
    Overflow,
    PackedRow,
    Prompter,
    Tokenizer,
    load_tokenizer,
    pack_query,
    row_lengths,
    template,
)

Dtype = Literal["f32", "bf16"]
SHARD_ITEMS = 256  # a shard holds whole queries, and closes once it has so many items
AHEAD = 4  # shards that may be open at once while their rows wait for others of the same length
MAX_TOKENS = 8192  # default bound of a prompt where the judge's own context is longer


@dataclass
class Work:
    """What this process has done so far, for progress and for the session file. Times in seconds."""

    parts: int = 0
    parts_total: int = 0
    items: int = 0
    items_total: int = 0  # of the parts that were not done before
    failed: int = 0  # items whose status is not ok
    truncated: int = 0  # items whose prompt was cut
    defused: int = 0  # imitated delimiters found in responses and conversations
    rows: int = 0
    tokens: int = 0  # computed, without padding
    padded_tokens: int = 0  # computed, with padding
    naive_tokens: int = 0  # what whole prompts, one per item, would cost
    prepare: float = 0.0
    compile: float = 0.0
    compute: float = 0.0
    write: float = 0.0
    seconds: float = 0.0
    compiled: list[int] = field(default_factory=list)  # row lengths compiled


Progress = Callable[[Work], None]


@dataclass
class Shard:
    """Whole queries, in order of their session ids."""

    index: int
    sessions: list[str]


def plan(benchmark: Benchmark, shard_items: int) -> list[Shard]:
    """Cuts a benchmark into shards; depends on its content alone."""
    shards: list[Shard] = []
    room = 0
    for session_id in sorted(benchmark.checklists):
        if room <= 0:
            shards.append(Shard(len(shards), []))
            room = shard_items
        shards[-1].sessions.append(session_id)
        room -= len(benchmark.checklists[session_id].items) * len(benchmark.models)
    return shards


@dataclass(eq=False)
class Job:
    """One shard on its way: its items, their answers so far, its rows, and how many of them are still out."""

    shard: Shard
    keys: list[tuple[str, str, int]]  # session, model, item
    status: list[str]
    truncated: npt.NDArray[np.int32]
    rows: list[PackedRow]

    def __post_init__(self) -> None:
        self.values = np.full((len(self.keys), 4), np.nan, np.float32)  # as in `Answers`
        self.pending = len(self.rows)

    def table(self) -> pa.Table:
        """The grades of the shard. Where the status is not ok, the numbers are null, never a stand-in."""
        for i in np.flatnonzero(~np.isfinite(self.values).all(axis=1)):
            if self.status[i] == OK:
                self.status[i] = "non_finite"
        bad = np.asarray([status != OK for status in self.status], bool)
        columns: list[Any] = [
            [key[0] for key in self.keys],
            [key[1] for key in self.keys],
            np.asarray([key[2] for key in self.keys], np.int32),
            *(pa.array(self.values[:, k], pa.float32(), mask=bad) for k in range(4)),
            self.status,
            self.truncated,
        ]
        return pa.table(columns, schema=GRADES)


def prepare(shard: Shard, benchmark: Benchmark, prompter: Prompter, window: int, work: Work) -> Job:
    """Renders, encodes and packs one shard."""
    keys: list[tuple[str, str, int]] = []
    rows: list[PackedRow] = []
    status: list[str] = []
    truncated: list[int] = []
    longest = row_lengths(prompter.max_tokens)[-1]
    for session_id in shard.sessions:
        items = benchmark.checklists[session_id].items
        responses: list[list[Any]] = []
        places: list[int] = []  # of the query's sequences, among the shard's keys
        for model in benchmark.models:
            first = len(keys)
            keys += [(session_id, model, i) for i in range(len(items))]
            if session_id not in benchmark.responses[model]:
                status += ["missing_response"] * len(items)
                truncated += [0] * len(items)
                continue
            made = prompter.prompts(benchmark, session_id, model)
            work.defused += made.defused
            truncated += [made.truncated] * len(items)
            if made.sequences is None:
                status += ["overlong"] * len(items)
                continue
            status += [OK] * len(items)
            responses.append(list(made.sequences))
            places += range(first, first + len(items))
            work.naive_tokens += sum(map(len, made.sequences))
        for row in pack_query(responses, longest, window):
            owners = tuple(tuple(places[i] for i in ids) for ids in row.owners)
            rows.append(dataclasses.replace(row, owners=owners))
    return Job(shard, keys, status, np.asarray(truncated, np.int32), rows)


def stream(jobs: Iterator[Job], grader: Grader, work: Work) -> Iterator[Job]:
    """Runs the rows of the jobs in batches of equal length and yields each job when its last row is back.

    Rows of several shards share a batch; at most `AHEAD` shards wait for company, then batches go out short.
    """
    waiting: dict[int, list[tuple[Job, PackedRow]]] = {}
    open_jobs: deque[Job] = deque()
    flying: deque[tuple[list[tuple[Job, PackedRow]], list[Answers]]] = deque()

    def send(length: int) -> None:
        pairs = waiting.pop(length)
        before = grader.compile_seconds
        begun = time.perf_counter()
        flying.append((pairs, grader([row for _, row in pairs])))
        compiling = grader.compile_seconds - before
        work.compile += compiling
        work.compute += time.perf_counter() - begun - compiling
        work.compiled = sorted(grader.compiled)

    def land() -> Iterator[Job]:
        pairs, answers = flying.popleft()
        begun = time.perf_counter()
        values = np.concatenate([np.stack([np.asarray(a) for a in call], axis=-1) for call in answers])
        work.compute += time.perf_counter() - begun
        for r, (job, row) in enumerate(pairs):
            for leaf, owners in enumerate(row.owners):
                job.values[list(owners)] = values[r, leaf]
            job.pending -= 1
            work.rows += 1
            work.tokens += row.tokens
            work.padded_tokens += row.length
            if not job.pending:
                yield job

    for job in jobs:
        if not job.rows:
            yield job
            continue
        open_jobs.append(job)
        for row in job.rows:
            queue = waiting.setdefault(row.length, [])
            queue.append((job, row))
            if len(queue) == grader.batch(row.length):
                send(row.length)
            while len(flying) > 1:
                yield from land()
        job.rows = []
        while open_jobs and not open_jobs[0].pending:
            open_jobs.popleft()
        if len(open_jobs) > AHEAD:
            oldest = open_jobs[0]
            for length in [n for n, q in waiting.items() if any(j is oldest for j, _ in q)]:
                send(length)
    for length in list(waiting):
        send(length)
    while flying:
        yield from land()


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

        `f32` is exact; `bf16` rounds weights and the operands of products to bf16, with f32 results. Raises
        RocketError where nothing can be loaded, with the reason and what to do.
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
        context = self.model.config.context
        if overflow not in OVERFLOWS:
            raise RocketError(f"unknown overflow policy {overflow!r}; there are: {', '.join(OVERFLOWS)}")
        if max_tokens is not None and not 1 <= max_tokens <= context:
            raise RocketError(f"max_tokens is {max_tokens}; this judge takes 1 to {context}")
        if shard_items < 1:
            raise RocketError(f"shard_items is {shard_items}; it must be at least 1")
        longest = max_tokens or min(context, MAX_TOKENS)
        prompter = Prompter(self.tokenizer, template(template_name), longest, overflow, reference)
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
                if run.part(shard.index).exists():  # by another process, meanwhile
                    continue
                at = time.perf_counter()
                job = prepare(shard, benchmark, prompter, self.model.config.window, work)
                work.prepare += time.perf_counter() - at
                yield job

        def note() -> None:
            work.seconds = time.perf_counter() - begun
            write_json(
                session,
                {
                    "started": started.isoformat(timespec="seconds"),
                    "host": {"devices": len(devices), "kind": devices[0].device_kind, "cpus": os.cpu_count()},
                    "batch_rows": batch_rows,
                    "flops": self.model.config.matmul_flops() * work.tokens,
                    **vars(work),
                },
            )

        for job in stream(jobs(), grader, work):
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
