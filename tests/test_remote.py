"""Runs and benchmarks on object stores: the same bytes as on a disk, and nothing but whole puts.

fsspec's memory:// stands for a store everywhere; the last test has S3 itself, where moto and s3fs are installed.
"""

import contextlib
import json
import sys
from pathlib import Path

import fsspec
import pytest
from fakes import tiny_judge
from fsspec.implementations.memory import MemoryFileSystem

from rocketjax import cli, files
from rocketjax.bench import load_benchmark
from rocketjax.errors import RocketError
from rocketjax.files import path_of
from rocketjax.grade import Judge, Run
from rocketjax.grade.run import write_atomically
from rocketjax.judge.source import cache_dir

SHARD = 8  # items; six queries make several parts


@pytest.fixture
def memory(monkeypatch, tmp_path):
    """An empty store, and an empty cache for what is fetched."""
    monkeypatch.setenv("ROCKETJAX_CACHE_DIR", str(tmp_path / "cache"))
    store = fsspec.filesystem("memory")

    def clear():
        store.store.clear()
        store.pseudo_dirs[:] = [""]

    clear()
    yield store
    clear()


@pytest.fixture(scope="module")
def judge():
    return tiny_judge()


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A benchmark's folder: six queries, four models, scores by one labeler. All rows are of one length."""
    folder = tmp_path_factory.mktemp("data") / "bench"
    sessions, models = [f"s{q}" for q in range(6)], [f"model-{m}" for m in range(4)]
    queries = [
        {
            "session_id": s,
            "conversation_input": [{"role": "user", "content": f"What is {word} here?"}],
            "checklist": [f"{k} is {word} in it?" for k in ("One", "Two")],
        }
        for s, word in zip(sessions, ("alpha", "kappa", "omega", "delta", "theta", "sigma"), strict=True)
    ]
    rows = {"queries.jsonl": queries}
    for m, model in enumerate(models):
        rows[f"response/{model}.jsonl"] = [{"session_id": s, "output": [f"answer {m} of {s}"]} for s in sessions]
        rows[f"score/human/{model}.jsonl"] = [
            {"session_id": s, "model_test": model, "score": 1 + (3 * m + q) % 10} for q, s in enumerate(sessions)
        ]
    for name, some in rows.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in some))
    return folder


@pytest.fixture(scope="module")
def local(judge, bench, tmp_path_factory):
    """The run that every other one must equal."""
    return judge.grade(load_benchmark(bench), tmp_path_factory.mktemp("local") / "run", shard_items=SHARD)


@pytest.fixture
def rocketjax(monkeypatch, capsys, judge):
    """Runs a command line in this process, with the tiny judge for any: (exit code, stdout, stderr)."""
    monkeypatch.setattr(Judge, "load", lambda *_, **__: judge)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rocketjax", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return run


def put_folder(folder: Path, url: str) -> None:
    for file in sorted(f for f in folder.rglob("*") if f.is_file()):
        files.put(path_of(url).joinpath(*file.relative_to(folder).parts), file.read_bytes())


def contents(folder: Path, *also: str) -> dict[str, bytes]:
    """What a finished run must reproduce, byte for byte."""
    names = ["run.json", *(f"grades/{name}" for name in sorted(files.names(folder / "grades"))), *also]
    return {name: files.read_bytes(folder / name) for name in names}


def test_the_whole_pipeline_gives_the_same_bytes(memory, bench, rocketjax, tmp_path):
    """`run` on a disk and on a store, the store's from a configuration file; then each command on the store's."""
    put_folder(bench, "memory://bucket/bench")
    code, _, err = rocketjax("run", bench, "-o", tmp_path / "run", "--labels", "human", "--folds", 2, "--samples", 100)
    assert code == 0, err
    (tmp_path / "run.yaml").write_text(
        "bench: memory://bucket/bench\noutput: memory://bucket/runs/first\nlabels: human\nfolds: 2\nsamples: 100\n"
    )
    code, out, err = rocketjax("run", "--config", tmp_path / "run.yaml")
    assert code == 0 and "memory://bucket/runs/first/report.html" in out + err, err
    url = "memory://bucket/runs/first"
    made = ("scores.parquet", "ranking.json", "agreement.json", "heads/ridge@human/head.json")
    assert contents(path_of(url), *made) == contents(tmp_path / "run", *made)
    assert Run.open(url).ranking["models"], "and the API reads it"
    options = json.loads(memory.cat_file("/bucket/runs/first/options.json"))
    assert options["bench"] == "memory://bucket/bench" and options["output"] == url
    assert not [name for name in memory.find("/bucket/runs") if name.endswith(".tmp")]

    for arguments, expected in (
        (("fit", url, "--labels", "human", "--folds", 2, "--overwrite"), f"wrote {url}/heads/ridge@human"),
        (("score", url, "--head", "ridge"), f"wrote {url}/scores.parquet"),
        (("score", url, "--head", f"{url}/heads/ridge@human"), "head ridge, fitted to human"),
        (("score", url), "head mean"),
        (("rank", url, "--samples", 100), "model-0"),
        (("agree", url, "--labels", "human", "--samples", 20), "Spearman".lower()),
        (("items", url, "--labels", "human", "-o", "memory://bucket/items.csv"), "wrote memory://bucket/items.csv"),
        (("report", url, "--samples", 20), f"{url}/report.html"),
        (("export", url, "--format", "wildbench"), f"{url}/export/wildbench"),
        (("compare", url, url, "--head-b", "ridge", "--samples", 100), "model-0"),
    ):
        code, out, err = rocketjax(*arguments)
        assert code == 0 and expected in out + err, (arguments, out, err)
    assert memory.cat_file("/bucket/items.csv").startswith(b'"session_id"')
    assert memory.cat_file("/bucket/runs/first/report.html").startswith(b"<!doctype html>")
    assert not list(Path().glob("memory:*")), "nobody made a local folder of the URL"


def test_grades_resumed_and_overwritten(memory, judge, bench, local):
    put_folder(bench, "memory://bucket/bench")
    remote, expected = load_benchmark("memory://bucket/bench"), contents(local.path)
    run = judge.grade(remote, "memory://bucket/run", shard_items=SHARD)
    assert contents(run.path) == expected and len(expected) > 4
    assert run.grades.equals(local.grades) and run.status() == local.status() and run.complete
    assert repr(run).startswith("Run('memory://bucket/run', bench,")
    assert run.benchmark_path == path_of("memory://bucket/bench")

    for index in (0, 2):
        run.part(index).unlink()
    assert 0 not in run.parts() and len(run.parts()) == len(local.parts()) - 2
    with pytest.raises(RocketError, match=f"only {len(local.parts()) - 2} of {len(local.parts())} parts are graded"):
        run.require_complete()
    with pytest.raises(RocketError, match=r"holds a run already .* Use --resume"):
        judge.grade(remote, run.path, shard_items=SHARD)
    assert contents(judge.grade(remote, run.path, shard_items=SHARD, mode="resume").path) == expected
    with pytest.raises(RocketError, match="begun with other settings"):
        judge.grade(remote, run.path, shard_items=2 * SHARD, mode="resume")

    memory.pipe_file("/bucket/run/scores.parquet", b"of the run before")
    memory.pipe_file("/bucket/run-2/scores.parquet", b"of another run")
    again = judge.grade(remote, "memory://bucket/run", shard_items=1000, mode="overwrite")
    assert again.parts() == [0] and len(files.names(again.path / "grades")) == 1
    assert not (again.path / "scores.parquet").exists() and memory.exists("/bucket/run-2/scores.parquet")
    assert again.grades.equals(local.grades)


def test_a_put_that_fails_leaves_no_object_and_the_run_goes_on(memory, judge, bench, local, monkeypatch):
    benchmark, real = load_benchmark(bench), MemoryFileSystem.pipe_file

    class ClientError(Exception):
        """Every store's client has errors of its own."""

    def fails_at_the_third_part(self, path, value, **options):
        if path.endswith("part-00002.parquet"):
            raise ClientError("the connection is gone\nwith details")
        return real(self, path, value, **options)

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", fails_at_the_third_part)
    message = "memory://bucket/run/grades/part-00002.parquet: ClientError: the connection is gone"
    with pytest.raises(OSError, match=message) as raised:
        judge.grade(benchmark, "memory://bucket/run", shard_items=SHARD)
    assert "details" not in str(raised.value)
    run = Run.open("memory://bucket/run")
    done = run.parts()
    assert 2 not in done and files.names(run.path / "grades") == {f"part-{i:05d}.parquet" for i in done}
    monkeypatch.undo()
    assert contents(judge.grade(benchmark, run.path, shard_items=SHARD, mode="resume").path) == contents(local.path)

    def half(file):
        file.write(b"half of")
        raise RuntimeError("what is written is wrong")

    with pytest.raises(RuntimeError):
        write_atomically(path_of("memory://bucket/new"), half)
    with pytest.raises(RuntimeError):
        write_atomically(run.path / "run.json", half)
    assert not memory.exists("/bucket/new") and Run.open(run.path).meta == run.meta


def test_only_puts_gets_lists_and_removals_are_asked_of_the_store(memory, judge, bench, monkeypatch):
    """No rename, copy or append; and the parts are known by one listing."""

    def refuse(*_, **__):
        raise AssertionError("an object store cannot do that in one step")

    for name in ("mv", "copy", "cp_file", "mkdir", "makedirs", "touch"):
        monkeypatch.setattr(MemoryFileSystem, name, refuse)
    run = judge.grade(load_benchmark(bench), "memory://bucket/run", shard_items=SHARD)
    asked = []
    for name in ("ls", "info", "exists", "isfile", "isdir"):
        real = getattr(MemoryFileSystem, name)
        monkeypatch.setattr(MemoryFileSystem, name, lambda *a, n=name, f=real, **k: (asked.append(n), f(*a, **k))[1])
    assert len(run.parts()) > 4 and asked == ["ls"]


def test_a_foreign_folder_is_refused(memory, judge, bench):
    memory.pipe_file("/bucket/mine/thesis.tex", b"do not touch")
    benchmark = load_benchmark(bench)
    for mode in ("new", "resume", "overwrite"):
        with pytest.raises(RocketError, match="memory://bucket/mine: is not empty and not a run"):
            judge.grade(benchmark, "memory://bucket/mine", mode=mode)
        with pytest.raises(RocketError, match="is a file"):
            judge.grade(benchmark, "memory://bucket/mine/thesis.tex", mode=mode)
    assert memory.find("/bucket") == ["/bucket/mine/thesis.tex"]
    with pytest.raises(RocketError, match=r"memory://bucket/mine: not a run folder, it has no run\.json"):
        Run.open("memory://bucket/mine")
    for name in ("none", "mine/thesis.tex"):
        with pytest.raises(RocketError, match=f"memory://bucket/{name}: no such run folder"):
            Run.open(f"memory://bucket/{name}")


def test_a_store_out_of_reach_is_not_an_empty_folder(memory, monkeypatch):
    """Some clients answer is_dir with False where nothing answers them."""

    def unreachable(*_, **__):
        raise ConnectionError("no route to the store")

    for name in ("cat_file", "ls", "info", "find"):
        monkeypatch.setattr(MemoryFileSystem, name, unreachable)
    for call in (Run.open, load_benchmark, lambda url: Run.start(url, {}, "new")):
        with pytest.raises(RocketError, match=r"memory://bucket/run.*: cannot be .*no route to the store|cannot write"):
            call("memory://bucket/run")


def test_a_benchmark_is_fetched_once_and_again_when_it_changes(memory, bench, tmp_path, monkeypatch):
    put_folder(bench, "memory://bucket/bench")
    memory.pipe_file("/bucket/bench/runs/big/grades/part-00000.parquet", b"not of the benchmark")
    memory.pipe_file("/bucket/bench/runs/big/run.json", b"nor this")
    fetched, real = [], MemoryFileSystem.get_file
    monkeypatch.setattr(
        MemoryFileSystem, "get_file", lambda self, path, *a, **k: (fetched.append(path), real(self, path, *a, **k))[1]
    )
    here, there = load_benchmark(bench), load_benchmark("memory://bucket/bench")
    assert there.name == here.name == "bench" and there.path == "memory://bucket/bench"
    assert there.sha256 == here.sha256 and there.labels == here.labels
    assert len(fetched) == 9 and not [path for path in fetched if "runs" in path]
    assert load_benchmark(Path("memory://bucket/bench/")).sha256 == here.sha256 and len(fetched) == 9
    assert not list((tmp_path / "cache").rglob("*.tmp")) and files.cache_dir() == cache_dir() == tmp_path / "cache"

    queries = memory.cat_file("/bucket/bench/queries.jsonl")
    memory.pipe_file("/bucket/bench/queries.jsonl", queries.replace(b"?", b"!"))  # as long as before
    assert load_benchmark("memory://bucket/bench").sha256 != here.sha256 and len(fetched) == 18

    memory.pipe_file("/bucket/bench/queries.jsonl", queries + b"{\n")
    with pytest.raises(RocketError, match=r"memory://bucket/bench/queries\.jsonl:7"):
        load_benchmark("memory://bucket/bench")
    memory.pipe_file("/bucket/bench/queries.jsonl", queries)
    (tmp_path / "cache").rename(tmp_path / "elsewhere")
    (tmp_path / "cache").write_text("a file, so that nothing can be kept there")
    assert load_benchmark("memory://bucket/bench").sha256 == here.sha256
    with pytest.raises(RocketError, match="memory://bucket/nothing: no such folder on the store"):
        load_benchmark("memory://bucket/nothing")


def test_an_object_that_would_leave_the_folder_is_refused(memory, tmp_path):
    memory.store["/bucket/bench/response/../../../out.jsonl"] = memory.open("/bucket/other", "wb")
    with pytest.raises(RocketError, match="is no name for a file"):
        load_benchmark("memory://bucket/bench")
    assert not list(tmp_path.rglob("out.jsonl"))


def test_places(memory, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in ("runs/a", "/abs/run", Path("runs/a"), "gs-runs/a", "C:/runs", "a:b", "not a scheme:/x"):
        found = path_of(place)
        assert type(found) is type(Path()) and found == Path(place) and not files.is_remote(found)
    assert path_of("file:///data/run") == path_of(Path("file:///data/run")) == Path("/data/run")
    url = "memory://bucket/runs/a"
    for place in (url, url + "/", Path(url), path_of(url)):  # pathlib makes memory:/bucket of it
        assert str(path_of(place)) == url and files.is_remote(path_of(place))
    assert str(path_of(url) / "run.json") == url + "/run.json" and path_of(url).name == "a"
    assert files.beside(tmp_path, "runs/a") == tmp_path / "runs/a" and str(files.beside(tmp_path, url)) == url
    (tmp_path / "memory:").mkdir()
    assert path_of(Path("memory:/own")) == Path("memory:/own"), "a local folder of that name is one"
    for place, message in (
        ("nosuch://bucket/run", "unknown scheme 'nosuch'"), ("memory://", "names no bucket"),
        ("file://data/run", "three slashes"),
    ):  # fmt: skip
        with pytest.raises(RocketError, match=message):
            path_of(place)


@pytest.mark.parametrize(("url", "module", "extra"), [("gs://b/run", "gcsfs", "gcs"), ("s3://b/run", "s3fs", "s3")])
def test_a_missing_package_names_the_extra(url, module, extra, monkeypatch, rocketjax, bench):
    monkeypatch.setitem(sys.modules, module, None)  # what import makes of a package that is not there
    code, out, err = rocketjax("grade", bench, "-o", url)
    assert code == cli.FAILED and not out and len(err.strip().splitlines()) == 1
    assert err.startswith(f"error: {url}: ") and f"pip install 'rocketjax[{extra}]'" in err


@pytest.mark.parametrize(
    "arguments",
    [("convert", "default", "memory://b/judge"), ("tune", "memory://b/bench", "-o", "tuned"),
     ("import", "table", "memory://b/t.csv", "bench"), ("import", "table", "t.csv", "memory://b/bench")],
)  # fmt: skip
def test_commands_on_local_folders_say_so(arguments, rocketjax):
    code, out, err = rocketjax(*arguments)
    assert code == cli.FAILED and not out and "memory://b/" in err and "takes a local path" in err


def test_s3(judge, bench, local, monkeypatch, tmp_path):
    """A real client and server: grade, resume, overwrite, heads, another process's parts."""
    server = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")
    from rocketjax.reweight import fit_head, labels_of, load_head, save_head

    for key, value in (("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "x"), ("AWS_DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("ROCKETJAX_CACHE_DIR", str(tmp_path / "cache"))
    running = server.ThreadedMotoServer(port=0)
    running.start()
    with contextlib.closing(contextlib.ExitStack()) as stack:
        stack.callback(running.stop)
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*running.get_host_and_port()))
        other = s3fs.S3FileSystem(skip_instance_cache=True)
        with pytest.raises(RocketError, match="s3://bucket/run: cannot write the run"):
            judge.grade(load_benchmark(bench), "s3://bucket/run", shard_items=SHARD)
        other.mkdir("bucket")
        put_folder(bench, "s3://bucket/bench")
        remote = load_benchmark("s3://bucket/bench")
        run = judge.grade(remote, "s3://bucket/run", shard_items=SHARD)
        assert contents(run.path) == contents(local.path)
        other.rm("bucket/run/grades/part-00001.parquet")
        assert run.parts() == [i for i in local.parts() if i != 1] and not run.part(1).exists()
        judge.grade(remote, "s3://bucket/run", shard_items=SHARD, mode="resume")
        assert contents(run.path) == contents(local.path) and run.grades.equals(local.grades)
        head = save_head(fit_head(run, labels_of(remote, "human"), "human", "ridge", folds=2), run.path / "heads" / "r")
        assert load_head("s3://bucket/run/heads/r").meta == head.meta
        judge.grade(remote, "s3://bucket/run", shard_items=1000, mode="overwrite")
        assert sorted(other.find("bucket/run/grades")) == ["bucket/run/grades/part-00000.parquet"]
        assert not other.exists("bucket/run/heads")
