"""A run: a folder that can be killed at any time and continued by anybody.

    run.json                what was graded with what: settings, hashes, versions, the plan
    grades/part-00000.parquet ...   one shard of the plan each, written whole, synced, then renamed
    sessions/*.json         one per process that worked on it: times, tokens, devices; where the benchmark lies
    features.parquet, heads/, scores.parquet, ranking.json      by the later stages

A part that exists is done. Nothing in `grades/` depends on time, order, batch size or who did it. The folder may be on
an object store (`gs://bucket/run`, see `rocketjax.files`), where each file is one put instead.
"""

import io
import json
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Literal

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rocketjax.bench import Benchmark, only
from rocketjax.errors import RocketError
from rocketjax.files import AT_ONCE, is_remote, names, path_of, put, reaching, read_bytes, remove

FORMAT = 1
OK = "ok"
Mode = Literal["new", "resume", "overwrite"]
OWN = (
    "run.json", "grades", "sessions", "heads", "features.parquet", "scores.parquet", "ranking.json", "agreement.json",
    "options.json", "report.html",
)  # fmt: skip

GRADES = pa.schema(
    [
        pa.field("session_id", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("item", pa.int32(), nullable=False),
        pa.field("p_yes", pa.float32()),
        pa.field("logit_yes", pa.float32()),
        pa.field("logit_no", pa.float32()),
        pa.field("answer_mass", pa.float32()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("truncated", pa.int32(), nullable=False),
    ]
)


# Recorded judgments keep the precision of their file, so that what is made of them can be compared to the last digit.
RECORDED = GRADES.set(3, pa.field("p_yes", pa.float64()))


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Writes a file whole or not at all: temporary neighbour, fsync, rename, fsync of the folder; or one put."""
    if is_remote(path):
        whole = io.BytesIO()
        write(whole)
        put(path, whole.getvalue())
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # Containers on one network file system may all have the same process id.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except FileNotFoundError:
        # A process that finished the whole run cleared temporary files away: then the file is there.
        if not path.exists():
            raise
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically; NaN is refused."""
    data = (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
    write_atomically(path, lambda file: file.write(data))


def write_table(path: Path, table: pa.Table) -> None:
    """Writes a parquet file atomically."""
    write_atomically(path, lambda file: pq.write_table(table, file, compression="zstd"))


class Run:
    """A run folder. `meta` is run.json."""

    def __init__(self, path: Path, meta: Mapping[str, Any]) -> None:
        self.path, self.meta = path, meta

    def __repr__(self) -> str:
        done = f"{len(self.parts())} of {self.meta['plan']['parts']} parts"
        return f"Run({str(self.path)!r}, {self.meta['benchmark']['name']}, {done})"

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "Run":
        """Opens an existing run folder; RocketError if it is none, or of another format."""
        folder = path_of(path)
        file = folder / "run.json"
        try:
            meta = json.loads(read_bytes(file).decode())
        except (FileNotFoundError, NotADirectoryError):
            # Asked only now: of a store that cannot be reached, is_dir would say that there is no such folder.
            if not folder.is_dir():
                made = f"no such run folder; rocketjax grade BENCH -o {folder} makes one"
                raise RocketError(f"{folder}: {made}") from None
            raise RocketError(f"{folder}: not a run folder, it has no run.json") from None
        except (OSError, ValueError) as e:
            raise RocketError(f"{file}: cannot be read ({e})") from None
        if not isinstance(meta, dict) or meta.get("format") != FORMAT:
            found = meta.get("format") if isinstance(meta, dict) else None
            raise RocketError(f"{file}: run format {found!r}, this version reads {FORMAT}")
        if not isinstance(meta.get("plan"), dict) or not isinstance(meta["plan"].get("parts"), int):
            raise RocketError(f"{file}: field 'plan.parts' is missing")
        return cls(folder, meta)

    @classmethod
    def begun(cls, path: str | os.PathLike[str]) -> bool:
        """Whether there is a run in this folder, of whatever settings; False too where that cannot be found out."""
        folder = path_of(path)
        try:
            with reaching(folder):
                return (folder / "run.json").exists()
        except OSError:
            return False

    @classmethod
    def start(cls, path: str | os.PathLike[str], meta: Mapping[str, Any], mode: Mode) -> "Run":
        """Makes the folder, or takes one that is there according to `mode`.

        `new` refuses an existing run; `resume` continues one whose run.json says the same (and starts one where
        there is none); `overwrite` removes an existing run first. A folder with other things in it is refused.
        """
        folder = path_of(path)
        try:
            with reaching(folder):
                if folder.exists() and not folder.is_dir():
                    raise RocketError(f"{folder}: is a file; a run needs a folder of its own")
            there = {n for n in names(folder) if not n.endswith(".tmp")}
            if there and "run.json" not in there:
                raise RocketError(f"{folder}: is not empty and not a run; choose another folder for -o")
            if mode == "overwrite":
                # run.json last: killed before that, this is still a run, which can be continued or overwritten.
                for name in (n for n in (*OWN[1:], "run.json") if n in there):
                    remove(folder / name)
                there.clear()
            if "run.json" not in there:
                write_json(folder / "run.json", meta)
            elif mode == "new":
                old = cls.open(folder)
                raise RocketError(
                    f"{folder}: holds a run already ({len(old.parts())} of {old.meta['plan']['parts']} parts "
                    f"graded). Use --resume to continue it or --overwrite to begin anew."
                )
        except OSError as e:
            raise RocketError(f"{folder}: cannot write the run ({e})") from None
        run = cls.open(folder)
        differ = differences(run.meta, meta)
        if differ:
            raise RocketError(
                f"{folder}: the run there was begun with other settings, so its grades cannot be mixed with these:\n  "
                + "\n  ".join(differ)
                + "\nUse the same settings, another folder, or --overwrite."
            )
        return run

    def part(self, index: int) -> Path:
        """Where this shard's grades are or will be."""
        return self.path / "grades" / self.part_name(index)

    @staticmethod
    def part_name(index: int) -> str:
        return f"part-{index:05d}.parquet"

    def parts(self) -> list[int]:
        """Indices of the shards that are done."""
        there = names(self.path / "grades")  # one listing: a store answers each question about a part in milliseconds
        return [i for i in range(self.meta["plan"]["parts"]) if self.part_name(i) in there]

    @property
    def complete(self) -> bool:
        return len(self.parts()) == self.meta["plan"]["parts"]

    def commit(self, index: int, grades: pa.Table) -> None:
        """Writes one shard's grades."""
        write_table(self.part(index), grades)

    def finish(self) -> None:
        """Clears temporary files of killed processes, once every part exists; a store never has any."""
        if is_remote(self.path):
            return
        for stale in list(self.path.glob("**/.*.tmp")):
            if stale.is_dir():
                shutil.rmtree(stale, ignore_errors=True)
            else:
                stale.unlink(missing_ok=True)

    @property
    def grades(self) -> pa.Table:
        """All grades so far, by session, model and item; see `GRADES`."""
        schema = RECORDED if self.recorded else GRADES
        tables = list(self.each())
        return pa.concat_tables(tables) if tables else schema.empty_table()

    def each(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """`grades`, or these columns of it, a part at a time: memory does not grow with the number of parts."""
        schema = RECORDED if self.recorded else GRADES
        parts = [self.part(i) for i in self.parts()]
        if not is_remote(self.path):
            yield from (read_table(part, schema, columns) for part in parts)
            return
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for i in range(0, len(parts), AT_ONCE):
                yield from pool.map(lambda part: read_table(part, schema, columns), parts[i : i + AT_ONCE])

    @property
    def recorded(self) -> bool:
        """Whether the grades are another program's, of a judge that is not known here."""
        return str(self.meta["judge"]["origin"]).startswith("recorded:")

    def note_benchmark(self, path: str) -> None:
        """Remembers where the benchmark lies; no result depends on it."""
        write_json(self.path / "sessions" / "benchmark.json", {"path": str(path_of(path).absolute())})

    @property
    def benchmark_path(self) -> Path | None:
        """Where the benchmark lay when it was graded; None if nobody said."""
        try:
            noted = json.loads(read_bytes(self.path / "sessions" / "benchmark.json"))
            return path_of(noted["path"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @property
    def scores(self) -> pa.Table:
        """What `rocketjax score` wrote."""
        path = self.path / "scores.parquet"
        if not path.exists():
            raise RocketError(f"{self.path}: has no scores yet; run rocketjax score {self.path}")
        return read_table(path, None)

    @property
    def ranking(self) -> dict[str, Any]:
        """What `rocketjax rank` wrote; its rows are under `models`, best first."""
        path = self.path / "ranking.json"
        if not path.exists():
            raise RocketError(f"{self.path}: has no ranking yet; run rocketjax rank {self.path}")
        ranking = json.loads(read_bytes(path))
        if not isinstance(ranking, dict):
            raise RocketError(f"{path}: is of an older version; make it again with rocketjax rank {self.path}")
        return ranking

    def require_complete(self) -> None:
        """RocketError unless every part is graded."""
        done, parts = len(self.parts()), self.meta["plan"]["parts"]
        if done < parts:
            how = (
                "import the judgments again with --overwrite"
                if self.recorded
                else ("finish it with rocketjax grade ... --resume")
            )
            raise RocketError(f"{self.path}: only {done} of {parts} parts are graded; {how}")

    def status(self) -> dict[str, int]:
        """How many items there are of each status."""
        counts: Counter[str] = Counter()
        for table in self.each(["status"]):
            for found in pc.value_counts(table["status"]).to_pylist():
                counts[found["values"]] += found["counts"]
        return dict(sorted(counts.items()))


def restrict(benchmark: Benchmark, run: Run) -> Benchmark:
    """The part of a benchmark that a run graded: its queries and models.

    Raises RocketError where its content is not what the run graded; labels may have come since.
    """
    about = run.meta["benchmark"]
    sessions = {s for table in run.each(["session_id"]) for s in pc.unique(table["session_id"]).to_pylist()}
    lacking = sorted(sessions - benchmark.checklists.keys()) + sorted(set(about["models"]) - set(benchmark.models))
    if lacking:
        raise RocketError(f"{benchmark.path}: is not what {run.path} graded; it lacks {lacking[0]!r}")
    chosen = benchmark.select(about["models"])
    cut = msgspec.structs.replace(
        chosen,
        checklists=only(chosen.checklists, sessions),
        queries=only(chosen.queries, sessions),
        responses={m: only(by, sessions) for m, by in chosen.responses.items()},
    )
    # A whole benchmark is hashed with its queries without a checklist, one that was cut by --limit without.
    if about["sha256"] not in (chosen.sha256, cut.sha256):
        raise RocketError(
            f"{benchmark.path}: its queries, checklists or responses are not those that {run.path} graded; "
            "grade it again, or give the right folder with --bench"
        )
    return cut


def read_table(path: Path, schema: pa.Schema | None, columns: list[str] | None = None) -> pa.Table:
    """A parquet file with the schema that it must have; of its columns all, or these."""
    try:
        with pq.ParquetFile(pa.BufferReader(read_bytes(path)) if is_remote(path) else path) as file:
            found, table = file.schema_arrow, file.read(columns)
    except (OSError, pa.ArrowException) as e:
        raise RocketError(
            f"{path}: cannot be read ({str(e).splitlines()[0]}); delete it and continue with --resume"
        ) from None
    if schema is not None and not found.equals(schema):
        raise RocketError(f"{path}: has other columns than a part of this version; delete it and use --resume")
    return table


# Runs that were begun before run.json had these lack them, and can still be continued; so do recorded ones.
LATER = ("judge.config_sha256", "judge.prompt_sha256")


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Readable lines for every setting that two run.json files do not share."""
    lines = []
    for key in sorted({*old, *new}):
        if f"{prefix}{key}" in LATER and not (key in old and key in new):
            continue
        a, b = (numbered(x) for x in (old.get(key), new.get(key)))
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            lines += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            lines.append(f"{prefix}{key}: {brief(a)} there, {brief(b)} here")
    return lines


def numbered(value: Any) -> Any:
    """A list of tables as a table by number, so that what differs in one of them is named."""
    tables = isinstance(value, list) and value and all(isinstance(x, Mapping) for x in value)
    return {str(i): x for i, x in enumerate(value)} if tables else value


def brief(value: Any) -> str:
    """A value, cut to a readable length."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
