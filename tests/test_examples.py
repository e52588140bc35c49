"""What is printed works: every example of a help text, every command of the README; `run` survives being stopped."""

import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from rocketjax import cli
from rocketjax.judge import Checkpoint, source

COMMANDS = get_command(cli.app).commands
LONG = ("rank", "compare", "demo", "doctor")  # whose examples take long; the others run in every round
ELSEWHERE = ("heads", "tune")  # whose examples take minutes: these commands are run smaller by tests/test_cli.py
LABELERS = ("gpt-4", "human", "me")


def examples() -> list[tuple[str, str]]:
    """(command whose help it is, command line) in the order of the stages."""
    out = []
    for name, command in COMMANDS.items():
        if not command.hidden:
            assert "Example: " in command.help, name
            text = " ".join(command.help.split("Example: ")[1].split())
            out += [(name, line) for line in text.split(", then ")]
    return out


def parsed(line: str) -> None:
    """Fails where the command or one of its options does not exist or takes something else."""
    program, name, *arguments = shlex.split(line, comments=True)
    assert program == "rocketjax"
    COMMANDS[name].make_context(name, arguments)


def write(path: Path) -> None:
    """A benchmark of five models and six queries, with scores by three labelers, of whom one judges items."""
    rng = random.Random(0)
    sessions, models = [f"q{i}" for i in range(6)], [f"model-{i}" for i in range(5)]

    def rows(name: str, rows: list[dict]) -> None:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    rows(
        "queries.jsonl",
        [{"session_id": s, "conversation_input": [{"role": "user", "content": f"Say {s}."}]} for s in sessions],
    )
    rows("checklist.jsonl", [{"session_id": s, "checklist": ["One?", "Two?", "Three?"]} for s in sessions])
    for k, model in enumerate(models):
        rows(f"response/{model}.jsonl", [{"session_id": s, "output": [f"{s} {'well ' * k}"]} for s in sessions])
        for labeler in LABELERS:
            some = sessions[: 2 if labeler == "me" else 6]
            scores = [{"session_id": s, "model_test": model, "score": 5 + k / 2 + rng.choice([0, 0.5])} for s in some]
            rows(f"score/{labeler}/{model}.jsonl", scores)
        judged = [{"session_id": s, "model_test": model, "judge": "human", "judgment": [
            "Yes" if rng.random() < k / 4 else "No" for _ in range(3)]} for s in sessions]  # fmt: skip
        rows(f"gold_judgment/human/{model}.jsonl", judged)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The tiny golden judge with room for real prompts."""
    folder = tmp_path_factory.mktemp("judges") / "tiny"
    shutil.copytree(Path(__file__).parent / "golden" / "tiny_llama", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 8192}))
    return folder


def test_every_command_has_an_example_that_parses():
    found = examples()
    assert {name for name, _ in found} == {name for name, c in COMMANDS.items() if not c.hidden}
    for name, line in found:
        parsed(line)
        assert name == line.split()[1] or ", then " in " ".join(COMMANDS[name].help.split())


def test_every_command_of_the_readme_parses():
    readme = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    lines = [line for block in re.findall(r"```bash\n(.*?)```", readme, re.DOTALL)
             for line in block.replace("\\\n", " ").splitlines() if line.startswith("rocketjax ")]  # fmt: skip
    assert len(lines) > 5
    for line in lines:
        parsed(line)


@pytest.mark.parametrize("long", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["short", "long"])
def test_every_example_runs_as_printed(long, tmp_path, tiny, monkeypatch, capsys):
    """In one folder, in their order; a tiny judge stands in for the default one and for one of the hub."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(source, "locate_base", lambda say: Checkpoint(tiny, "wheel:tiny"))
    monkeypatch.setattr(source, "with_adapter", lambda base: base)
    monkeypatch.setattr(source, "from_hub", lambda name, revision, weights=True: Checkpoint(tiny, f"hub:{name}"))
    write(tmp_path / "bench")
    write(tmp_path / "bench2")
    (tmp_path / "items.txt").write_text("Is it right?\nIs it short?\n")
    (tmp_path / "answers.csv").write_text("question,answer,model\nOne?,1,a\nOne?,2,b\n")
    needed = ("grade", "fit", "score") if long else ()
    order = ["grade", "fit", "score"]
    todo = [
        (name, line)
        for name, line in examples()
        if name in needed or ((name in LONG) == long and name not in ELSEWHERE)
    ]
    todo.sort(key=lambda x: order.index(x[0]) if x[0] in order else len(order))
    for _, line in todo:
        monkeypatch.setattr(sys, "argv", shlex.split(line))
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code, (line, capsys.readouterr())
    made = ("rocketjax-demo/ranking.json",) if long else (
        "runs/first/report.html", "runs/first/export/rocketeval", "runs/all/report.html", "bench/mine/queries.jsonl",
        "judges/name", "items.csv")  # fmt: skip
    for path in made:
        assert (tmp_path / path).exists(), path


STAGES = ("grade", "fit", "score", "rank", "agree", "report")
RESULTS = ("grades", "heads", "scores.parquet", "ranking.json", "agreement.json", "options.json")


@pytest.mark.slow
def test_a_run_stopped_at_every_stage_ends_in_the_same_bytes(tmp_path, tiny):
    """A real process, killed or interrupted by turns as soon as it says that a stage begins; then the same command
    again, until it is done."""
    write(tmp_path / "bench")
    command = [sys.executable, "-m", "rocketjax", "run", str(tmp_path / "bench"), "-j", str(tiny), "--labels", "human",
               "--samples", "200", "-o", "run"]  # fmt: skip
    environment = {**os.environ, "ROCKETJAX_CACHE_DIR": str(tmp_path / "cache")}
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    done = subprocess.run(command, cwd=tmp_path / "whole", env=environment, capture_output=True, text=True)
    assert done.returncode == cli.DONE, done.stderr
    assert re.findall(r"stage \d of 6: (\w+)", done.stderr) == list(STAGES)
    broken = tmp_path / "broken"
    for n, stage in enumerate(STAGES):
        stop = (signal.SIGKILL, signal.SIGINT)[n % 2]
        with subprocess.Popen(
            command, cwd=broken, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            seen = []
            for line in process.stderr:
                seen.append(line)
                if line.startswith("stage ") and line.split()[-1] == stage:
                    process.send_signal(stop)
                    break
            rest = process.stderr.read()
            code = process.wait(60)
        assert seen[-1].split()[-1] == stage, (seen, rest)
        if stop == signal.SIGKILL:
            assert code == -signal.SIGKILL
        elif code != cli.DONE:  # the last stage may be over before the signal arrives
            assert code == cli.INTERRUPTED and "Traceback" not in rest, rest
            assert "the same command continues it" in rest
    done = subprocess.run(command, cwd=broken, env=environment, capture_output=True, text=True)
    assert done.returncode == cli.DONE, done.stderr
    for name in RESULTS:
        whole, again = tmp_path / "whole" / "run" / name, broken / "run" / name
        files = sorted(f.relative_to(whole) for f in whole.rglob("*.parquet")) if name == "grades" else (
            [f.relative_to(whole) for f in whole.rglob("head.json")] if name == "heads" else [Path()])  # fmt: skip
        assert files
        for file in files:
            assert (whole / file).read_bytes() == (again / file).read_bytes(), (name, file)
    assert (broken / "run" / "report.html").read_text("utf-8").rstrip().endswith("</html>")
    assert not list((broken / "run").rglob(".*.tmp"))


def test_files_for_clusters_hold_commands_that_parse():
    """Shell that parses, YAML with one JobSet, and in each the command of a process of several."""
    folder = Path(__file__).parents[1] / "experiments" / "cluster"
    for name in ("tpu_pod.sh", "slurm.sbatch"):
        subprocess.run(["bash", "-n", folder / name], check=True)
    (jobset,) = yaml.safe_load_all((folder / "gke.yaml").read_text("utf-8"))
    assert jobset["kind"] == "JobSet"
    (replicated,) = jobset["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    assert job["completions"] == job["parallelism"] and job["completionMode"] == "Indexed"
    values = {"BENCH": "gs://bucket/bench", "RUN": "gs://bucket/run", "OPTIONS": "--dtype bf16"}
    for name in ("tpu_pod.sh", "gke.yaml", "slurm.sbatch"):
        text = (folder / name).read_text("utf-8").replace('rocketjax" grade', "rocketjax grade")
        (command,) = re.findall(r"rocketjax (grade .*?)(?:;|\"$|\" \|\||\|\|)", text, re.MULTILINE)
        line = re.sub(
            r"\$(\w+)", lambda found: values[found[1]], command.replace('"$BENCH"', "$BENCH").replace('"$RUN"', "$RUN")
        )
        assert "--distributed" in line and "--resume" in line
        parsed(f"rocketjax {line}")
