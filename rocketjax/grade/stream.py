"""Shards of a benchmark on their way through the judge; text becomes packed rows on a thread ahead of the device."""

import contextlib
import dataclasses
import queue
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import jax
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rocketjax.bench import Benchmark
from rocketjax.grade.run import GRADES, OK
from rocketjax.grade.step import Answers, Grader, row_flops
from rocketjax.judge import Config, collectives
from rocketjax.prompt import PackedRow, Prompter, pack_query, row_lengths

T = TypeVar("T")
SHARD_ITEMS = 256  # a shard holds whole queries, and closes once it has so many items
AHEAD = 4  # shards that may be open at once while their rows wait for others of the same length
PREPARED = 4  # shards that the thread may be ahead of the device


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
    flops: int = 0  # of these tokens, see `row_flops`
    tokenise: float = 0.0  # on the thread ahead, beside the device's work
    pack: float = 0.0  # there too
    wait: float = 0.0  # for that thread
    compile: float = 0.0  # waiting for programs, which are compiled beside the first rows
    transfer: float = 0.0  # rows to the device, answers back
    compute: float = 0.0  # calling programs, and waiting for them
    write: float = 0.0
    seconds: float = 0.0
    compiled: list[int] = field(default_factory=list)  # row lengths compiled
    lengths: dict[int, list[int]] = field(default_factory=dict)  # row length -> rows, used tokens
    exchanged: dict[int, list[int]] = field(default_factory=dict)  # by row length: collectives of a call, their bytes


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
    counts: dict[str, Any]  # what `Work` sums up over shards, from their preparation

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


def prepare(shard: Shard, benchmark: Benchmark, prompter: Prompter, config: Config) -> Job:
    """Renders, encodes and packs one shard."""
    keys: list[tuple[str, str, int]] = []
    rows: list[PackedRow] = []
    status: list[str] = []
    truncated: list[int] = []
    longest = row_lengths(prompter.max_tokens)[-1]
    counts: dict[str, Any] = {"defused": 0, "naive_tokens": 0, "tokenise": 0.0, "pack": 0.0}
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
            begun = time.perf_counter()
            made = prompter.prompts(benchmark, session_id, model)
            counts["tokenise"] += time.perf_counter() - begun
            counts["defused"] += made.defused
            truncated += [made.truncated] * len(items)
            if made.sequences is None:
                status += ["overlong"] * len(items)
                continue
            status += [OK] * len(items)
            responses.append(list(made.sequences))
            places += range(first, first + len(items))
            counts["naive_tokens"] += sum(map(len, made.sequences))
        begun = time.perf_counter()
        for row in pack_query(responses, longest, config.window):
            owners = tuple(tuple(places[i] for i in ids) for ids in row.owners)
            rows.append(dataclasses.replace(row, owners=owners))
        counts["pack"] += time.perf_counter() - begun
    return Job(shard, keys, status, np.asarray(truncated, np.int32), rows, counts)


def ahead(items: Iterator[T], most: int) -> Generator[T, None, None]:
    """The same items, made on a thread of their own, at most `most` ahead; what making them raises is raised here."""
    made: queue.Queue[tuple[T] | BaseException | None] = queue.Queue(most)
    closed = threading.Event()

    def put(entry: tuple[T] | BaseException | None) -> None:
        while not closed.is_set():
            with contextlib.suppress(queue.Full):
                return made.put(entry, timeout=0.1)

    def fill() -> None:
        try:
            for item in items:
                put((item,))
                if closed.is_set():
                    return
            put(None)
        except BaseException as e:
            put(e)

    thread = threading.Thread(target=fill, name="rocketjax-ahead", daemon=True)
    thread.start()
    try:
        while (entry := made.get()) is not None:
            if isinstance(entry, BaseException):
                raise entry
            yield entry[0]
    finally:
        closed.set()
        thread.join()


def stream(jobs: Iterator[Job], grader: Grader, work: Work) -> Iterator[Job]:
    """Runs the rows of the jobs in batches of equal length and yields each job when its last row is back.

    Rows of several shards share a batch; at most `AHEAD` shards wait for company, then batches go out short.
    """
    waiting: dict[int, list[tuple[Job, PackedRow]]] = {}
    open_jobs: deque[Job] = deque()
    flying: deque[tuple[list[tuple[Job, PackedRow]], list[Answers]]] = deque()

    def send(length: int) -> None:
        pairs = waiting.pop(length)
        before = grader.compile_seconds, grader.transfer_seconds
        begun = time.perf_counter()
        flying.append((pairs, grader([row for _, row in pairs])))
        compiling, moving = grader.compile_seconds - before[0], grader.transfer_seconds - before[1]
        work.compile += compiling
        work.transfer += moving
        work.compute += time.perf_counter() - begun - compiling - moving
        work.compiled = sorted(grader.compiled)
        if grader.mesh.shape["model"] > 1 and length not in work.exchanged:
            found = collectives(grader.compiled[length])
            work.exchanged[length] = [sum(x.times for x in found), sum(x.times * x.bytes for x in found)]

    def land() -> Iterator[Job]:
        pairs, answers = flying.popleft()
        begun = time.perf_counter()
        jax.block_until_ready(answers)
        ready = time.perf_counter()
        values = np.concatenate([np.stack([np.asarray(a) for a in call], axis=-1) for call in answers])
        work.compute += ready - begun
        work.transfer += time.perf_counter() - ready
        for r, (job, row) in enumerate(pairs):
            for leaf, owners in enumerate(row.owners):
                job.values[list(owners)] = values[r, leaf]
            job.pending -= 1
            work.rows += 1
            work.tokens += row.tokens
            work.padded_tokens += row.length
            work.flops += row_flops(grader.config, row)
            counts = work.lengths.setdefault(row.length, [0, 0])
            counts[0] += 1
            counts[1] += row.tokens
            if not job.pending:
                yield job

    def arrive() -> Iterator[Job]:
        begun = time.perf_counter()
        for job in jobs:
            work.wait += time.perf_counter() - begun
            for name, count in job.counts.items():
                setattr(work, name, getattr(work, name) + count)
            yield job
            begun = time.perf_counter()

    for job in arrive():
        if not job.rows:
            yield job
            continue
        open_jobs.append(job)
        for row in job.rows:
            grader.expect(row)
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
