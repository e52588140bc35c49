"""A run: a folder that can be killed at any time and continued by anybody.

    run.json                what was graded with what: settings, hashes, versions, the plan
    grades/part-00000.parquet ...   one shard of the plan each, written whole, synced, then renamed
    sessions/*.json         one per process that worked on it: times, tokens, devices; where the benchmark lies
    features.parquet, heads/, scores.parquet, ranking.json      by the later stages

A part that exists is done. Nothing in `grades/` depends on time, order, batch size or who did it.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Literal

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rocketjax.bench import Benchmark
from rocketjax.errors import RocketError

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
    """Writes a file whole or not at all: temporary neighbour, fsync, rename, fsync of the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
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
        folder = Path(path)
        if not folder.is_dir():
            raise RocketError(f"{folder}: no such run folder; rocketjax grade BENCH -o {folder} makes one")
        file = folder / "run.json"
        try:
            meta = json.loads(file.read_text("utf-8"))
        except FileNotFoundError:
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
    def start(cls, path: str | os.PathLike[str], meta: Mapping[str, Any], mode: Mode) -> "Run":
        """Makes the folder, or takes one that is there according to `mode`.

        `new` refuses an existing run; `resume` continues one whose run.json says the same (and starts one where
        there is none); `overwrite` removes an existing run first. A folder with other things in it is refused.
        """
        folder = Path(path)
        if folder.exists() and not folder.is_dir():
            raise RocketError(f"{folder}: is a file; a run needs a folder of its own")
        run_file = folder / "run.json"
        names = [n for n in os.listdir(folder) if not n.endswith(".tmp")] if folder.is_dir() else []
        if names and not run_file.exists():
            raise RocketError(f"{folder}: is not empty and not a run; choose another folder for -o")
        if run_file.exists() and mode == "overwrite":
            for name in OWN:
                target = folder / name
                if target.is_dir():
                    shutil.rmtree(target)
                else:
                    target.unlink(missing_ok=True)
        try:
            if not run_file.exists():
                folder.mkdir(parents=True, exist_ok=True)
                write_json(run_file, meta)
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
        return self.path / "grades" / f"part-{index:05d}.parquet"

    def parts(self) -> list[int]:
        """Indices of the shards that are done."""
        return [i for i in range(self.meta["plan"]["parts"]) if self.part(i).exists()]

    @property
    def complete(self) -> bool:
        return len(self.parts()) == self.meta["plan"]["parts"]

    def commit(self, index: int, grades: pa.Table) -> None:
        """Writes one shard's grades."""
        write_table(self.part(index), grades)

    def finish(self) -> None:
        """Clears temporary files of killed processes, once every part exists."""
        for stale in list(self.path.glob("**/.*.tmp")):
            if stale.is_dir():
                shutil.rmtree(stale, ignore_errors=True)
            else:
                stale.unlink(missing_ok=True)

    @property
    def grades(self) -> pa.Table:
        """All grades so far, by session, model and item; see `GRADES`."""
        schema = RECORDED if self.recorded else GRADES
        tables = [read_table(self.part(i), schema) for i in self.parts()]
        return pa.concat_tables(tables) if tables else schema.empty_table()

    @property
    def recorded(self) -> bool:
        """Whether the grades are another program's, of a judge that is not known here."""
        return str(self.meta["judge"]["origin"]).startswith("recorded:")

    def note_benchmark(self, path: str) -> None:
        """Remembers where the benchmark lies; no result depends on it."""
        write_json(self.path / "sessions" / "benchmark.json", {"path": str(Path(path).absolute())})

    @property
    def benchmark_path(self) -> Path | None:
        """Where the benchmark lay when it was graded; None if nobody said."""
        try:
            noted = json.loads((self.path / "sessions" / "benchmark.json").read_text("utf-8"))
            return Path(noted["path"])
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
        ranking = json.loads(path.read_text("utf-8"))
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
        counts = pc.value_counts(self.grades["status"])
        return {str(c["values"]): int(c["counts"]) for c in sorted(counts.to_pylist(), key=lambda c: c["values"])}


def restrict(benchmark: Benchmark, run: Run) -> Benchmark:
    """The part of a benchmark that a run graded: its queries and models.

    Raises RocketError where its content is not what the run graded; labels may have come since.
    """
    about = run.meta["benchmark"]
    grades = run.grades
    sessions = set(grades["session_id"].to_pylist())
    lacking = sorted(sessions - benchmark.checklists.keys()) + sorted(set(about["models"]) - set(benchmark.models))
    if lacking:
        raise RocketError(f"{benchmark.path}: is not what {run.path} graded; it lacks {lacking[0]!r}")
    chosen = benchmark.select(about["models"])
    cut = msgspec.structs.replace(
        chosen,
        checklists={s: c for s, c in chosen.checklists.items() if s in sessions},
        queries={s: q for s, q in chosen.queries.items() if s in sessions},
        responses={m: {s: r for s, r in by.items() if s in sessions} for m, by in chosen.responses.items()},
    )
    # A whole benchmark is hashed with its queries without a checklist, one that was cut by --limit without.
    if about["sha256"] not in (chosen.sha256, cut.sha256):
        raise RocketError(
            f"{benchmark.path}: its queries, checklists or responses are not those that {run.path} graded; "
            "grade it again, or give the right folder with --bench"
        )
    return cut


def read_table(path: Path, schema: pa.Schema | None) -> pa.Table:
    """A parquet file with the schema that it must have."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as e:
        raise RocketError(
            f"{path}: cannot be read ({str(e).splitlines()[0]}); delete it and continue with --resume"
        ) from None
    if schema is not None and not table.schema.equals(schema):
        raise RocketError(f"{path}: has other columns than a part of this version; delete it and use --resume")
    return table


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Readable lines for every setting that two run.json files do not share."""
    lines = []
    for key in sorted({*old, *new}):
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
