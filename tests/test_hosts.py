"""Several real processes that grade one run: the same bytes as one process, whoever dies and whoever goes on."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from fakes import random_bench, tiny_judge

from rocketjax.errors import RocketError
from rocketjax.grade import Run
from rocketjax.judge import agree, begin, team_of

HERE = Path(__file__).parent


def job(output: Path, processes: int, devices: int = 1, mesh: str = "auto", seeds: tuple[int, ...] = ()) -> list:
    """The processes of a job, started."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    coordinator = f"127.0.0.1:{port}" if processes > 1 else "-"
    started = []
    for i in range(processes):
        seed = seeds[i] if seeds else 0
        arguments = [output, coordinator, processes, i, devices, mesh, seed]
        command = [sys.executable, "-u", str(HERE / "host_child.py"), *map(str, arguments)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    return started


def ended(processes: list, seconds: float = 240) -> list[tuple[int, str]]:
    """Exit code and output of each."""
    try:
        said = [p.communicate(timeout=seconds)[0] for p in processes]
        return [(p.returncode, text) for p, text in zip(processes, said, strict=True)]
    finally:
        for p in processes:
            p.kill()
            p.communicate()


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """The run of one process, made in this one."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    tiny_judge().grade(random_bench(queries=24, models=2, words=8), folder, shard_items=8)
    return folder


def same_bytes(a: Path, b: Path) -> None:
    names = sorted(p.name for p in (a / "grades").iterdir())
    assert names == sorted(p.name for p in (b / "grades").iterdir())
    for name in names:
        assert (a / "grades" / name).read_bytes() == (b / "grades" / name).read_bytes(), name
    assert (a / "run.json").read_bytes() == (b / "run.json").read_bytes()


def test_two_processes_grade_as_one(tmp_path, alone):
    said = ended(job(tmp_path / "run", 2, devices=2))
    assert [code for code, _ in said] == [0, 0], said
    same_bytes(tmp_path / "run", alone)
    assert not list((tmp_path / "run").rglob("*.tmp"))
    parts = Run.open(alone).meta["plan"]["parts"]
    sessions = [json.loads(p.read_text()) for p in (tmp_path / "run" / "sessions").glob("2*.json")]
    assert sorted(s["host"]["process"] for s in sessions) == [0, 1]
    assert sorted(s["parts"] for s in sessions) == [parts // 2, parts - parts // 2], "each did its share"
    assert all(s["host"]["mesh"] == {"data": 2, "model": 1} for s in sessions)


@pytest.mark.slow
def test_a_judge_over_two_processes(tmp_path, alone):
    """The weights are cut over both, who compute every row together; the first commits."""
    said = ended(job(tmp_path / "run", 2, devices=1, mesh="model=2"))
    assert [code for code, _ in said] == [0, 0], said
    assert "done {'data': 1, 'model': 2} 0 1 True" in said[0][1]
    assert "done {'data': 1, 'model': 2} 0 1 False" in said[1][1]
    there, here = (Run.open(folder).grades for folder in (alone, tmp_path / "run"))
    assert there.drop_columns(["p_yes", "logit_yes", "logit_no", "answer_mass"]).equals(
        here.drop_columns(["p_yes", "logit_yes", "logit_no", "answer_mass"])
    )
    for name in ("p_yes", "logit_yes", "logit_no", "answer_mass"):
        np.testing.assert_allclose(here[name].to_numpy(), there[name].to_numpy(), rtol=0, atol=1e-5)


def test_processes_with_other_data_are_told(tmp_path):
    """Both end, neither waits for the other, and nothing is written."""
    begun = time.monotonic()
    said = ended(job(tmp_path / "run", 2, seeds=(0, 1)))
    assert [code for code, _ in said] == [1, 1], said
    assert "error: process 1 grades something else than this one:" in said[0][1]
    assert "benchmark.sha256" in said[0][1] and "error: process 0 grades something else" in said[1][1]
    assert not (tmp_path / "run").exists() and time.monotonic() - begun < 240


@pytest.mark.slow
def test_a_killed_process_takes_the_job_down_and_fewer_go_on(tmp_path, alone):
    """Four begin, one is killed; all end within a minute; two go on and are killed too; one finishes."""
    run = tmp_path / "run"

    def killed(processes: int, victim: int) -> None:
        before = len(list(run.glob("grades/part-*.parquet")))
        started = job(run, processes)
        deadline = time.monotonic() + 240
        while len(list(run.glob("grades/part-*.parquet"))) < before + 2:
            assert time.monotonic() < deadline and started[victim].poll() is None, "no part came"
            time.sleep(0.01)
        os.kill(started[victim].pid, signal.SIGKILL)
        begun = time.monotonic()
        said = ended(started)
        assert time.monotonic() - begun < 60, "the others noticed too late"
        codes = [code for code, _ in said]
        assert codes[victim] == -signal.SIGKILL
        finished = len(list(run.glob("grades/part-*.parquet"))) == parts
        assert finished or all(code != 0 for code in codes), said
        # The JAX runtime's own words, on every survivor's standard error.
        if not finished:
            assert all("another task died" in text or "heartbeat" in text.lower() or "unavailable" in text.lower()
                       for i, (_, text) in enumerate(said) if i != victim), said  # fmt: skip

    parts = Run.open(alone).meta["plan"]["parts"]
    killed(4, 3)
    killed(2, 0)
    (said,) = ended(job(run, 1))
    assert said[0] == 0
    same_bytes(run, alone)
    for name in sorted(p.name for p in (run / "grades").iterdir()):
        pq.read_table(run / "grades" / name)


def test_one_process_agrees_with_itself_and_wrong_jobs_are_refused():
    assert agree(lambda: 3, str) == (3, ["3"])
    team = team_of(1)
    assert (team.index, team.count, team.leads, team.alone, len(team.devices)) == (0, 1, True, True, 8)
    with pytest.raises(RocketError, match="a model axis of 16 needs as many devices, there are 8"):
        team_of(16)
    with pytest.raises(RocketError, match="together, or none of them"):
        begin("127.0.0.1:1", None, None)
    with pytest.raises(RocketError, match="process is 2; of 2 processes it is one from 0 to 1"):
        begin("127.0.0.1:1", 2, 2)


FALLS = """
import sys
from rocketjax import cli
from rocketjax.grade import Judge

def work(*arguments, **options):
    raise ValueError("a device fell over")

if sys.argv[-1] == "1":
    Judge.work = work
grade = Judge.grade
Judge.grade = lambda self, *a, **options: grade(self, *a, **options, shard_items=2)
cli.main()
"""


@pytest.mark.slow
def test_an_exception_that_nobody_expects_ends_the_job(tmp_path):
    """Through the command line: the process that fails says why and goes at once, the one that waits for it follows."""
    judge = tmp_path / "judge"
    shutil.copytree(HERE / "golden" / "tiny_llama", judge)
    config = json.loads((judge / "config.json").read_text())
    (judge / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 8192}))
    sessions = [f"q{i}" for i in range(6)]
    files = {
        "queries": [{"session_id": s, "conversation_input": [{"role": "user", "content": s}]} for s in sessions],
        "checklist": [{"session_id": s, "checklist": ["One?", "Two?"]} for s in sessions],
        "response/a": [{"session_id": s, "output": [f"{s} it is"]} for s in sessions],
    }
    for name, rows in files.items():
        (tmp_path / "bench" / f"{name}.jsonl").parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "bench" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    started = []
    for i in range(2):
        command = [sys.executable, "-c", FALLS, "grade", tmp_path / "bench", "-o", tmp_path / "run", "-j", judge]
        command += ["--distributed", "--coordinator", f"127.0.0.1:{port}", "--processes", 2, "--process", i]
        started.append(
            subprocess.Popen([str(x) for x in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
    failed = started[1].wait(120)
    begun = time.monotonic()
    (waiting, _), (code, text) = ended(started)
    assert code == failed == 1 and "ValueError: a device fell over" in text
    assert waiting != 0 and time.monotonic() - begun < 60
