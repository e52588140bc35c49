"""The command line as a user meets it: exit codes, one-line errors, the whole path on a tiny judge."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import pyarrow.parquet as pq
import pytest
from broken import BROKEN, write_good
from huggingface_hub import constants

from rocketjax import cli, doctor

COMMANDS = (
    "demo", "grade", "fit", "heads", "score", "rank", "items", "ask", "export", "convert", "tune", "import", "judges",
    "doctor", "estimate", "run", "agree", "compare", "report",
)  # fmt: skip


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The tiny golden judge with room for real prompts."""
    folder = tmp_path_factory.mktemp("judges") / "tiny"
    shutil.copytree(Path(__file__).parent / "golden" / "tiny_llama", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 8192}))
    return folder


@pytest.fixture
def rocketjax(monkeypatch, capsys):
    """Runs a command line in this process: (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rocketjax", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return run


@pytest.fixture
def good(tmp_path):
    write_good(tmp_path / "bench")
    return tmp_path / "bench"


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case.name)
def test_a_broken_benchmark_is_one_clear_error(case, good, tmp_path, rocketjax, tiny):
    case.mutate(good)
    code, out, err = rocketjax("grade", good, "-o", tmp_path / "run", "-j", tiny)
    assert code == cli.FAILED and not out and "Traceback" not in err
    assert err.startswith("error: ") and len(err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists(), "nothing is written for a benchmark that cannot be read"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command, rocketjax):
    code, out, err = rocketjax(command, "--help")
    assert code == 0 and not err and f"Example: rocketjax {command}" in out


def test_top_level(rocketjax):
    code, out, _ = rocketjax("--version")
    assert code == 0 and out.startswith("rocketjax ")
    code, out, err = rocketjax()
    assert all(name in out + err for name in COMMANDS) and "│ judgment" not in out + err


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("grade",),
        ("grade", "bench"),
        ("grade", "bench", "-o", "run", "--dtype", "f64"),
        ("grade", "bench", "-o", "run", "--limit", "0"),
        ("grade", "bench", "-o", "run", "--resume", "--overwrite"),
        ("grade", "bench", "-o", "run", "--batch-size", "none"),
        ("grade", "bench", "-o", "run", "--models", ","),
        ("grade", "bench", "-o", "run", "--trust-remote-code"),
        ("export", "run", "--format", "xlsx"),
        ("export", "run", "--format", "alpaca"),
        ("export", "run", "--format", "csv", "--baseline", "m"),
        ("export", "run", "--format", "arena", "--tie-margin", "-1"),
        ("export", "run", "--tie-margin", "1"),
        ("tune",),
        ("tune", "bench", "--resume", "--overwrite"),
        ("tune", "bench", "--share", "0"),
        ("tune", "bench", "--share", "-1"),
        ("tune", "bench", "--items", "0"),
        ("tune", "bench", "--method", "dora"),
        ("tune", "bench", "--rank", "0"),
        ("tune", "--labels", "human"),
        ("import", "llmbar"),
        ("import", "judgments", "j.jsonl", "run"),
        ("import", "llmbar", "x", "out", "--bench", "bench"),
        ("import", "llmbar", "x", "out", "--model", "m"),
        ("import", "llmbar", "x", "out", "--question", "q"),
        ("import", "table", "x", "out", "--labeler", "me"),
        ("tune", "bench", "-o", "out", "--prior", "natural"),
        ("tune", "bench", "-o", "out", "--even-lengths"),
        ("fit", "run"),
        ("fit", "run", "--labels", "x", "--train-models", "f", "--folds", "3"),
        ("heads", "run", "--labels", "x", "--part", "1"),
        ("score", "run", "--compat", "rocketeval", "--head", "mean"),
        ("score", "run", "--compat", "rocketeval", "--labels", "x"),
        ("score", "run", "--train-models", "f"),
        ("score", "run", "--labels", "x"),
        ("score", "run", "--bench", "x"),
        ("score", "run", "--item-weights", "--head", "ridge"),
        ("score", "run", "--item-weights", "--head", "label-free", "--jury", "other"),
        ("score", "run", "--item-weights", "--compat", "rocketeval"),
        ("items", "run", "-o", "items.txt"),
        ("ask", "run", "--labels", "x", "-n", "0"),
        ("rank", "run", "--bench", "x"),
        ("rank", "run", "--method", "elo"),
        ("agree", "run"),
        ("agree", "run", "--labels", "x", "--ratings", "y"),
        ("compare", "run", "run"),
        ("compare", "run", "run", "--head-a", "mean", "--head-b", "mean"),
        ("run",),
        ("run", "bench"),
    ],
)
def test_usage_errors_exit_2(arguments, rocketjax):
    code, out, err = rocketjax(*arguments)
    assert code == 2 and not out and "Traceback" not in err and err.strip()


@pytest.mark.parametrize("command", ["score", "rank", "export", "items"])
def test_a_wrong_run_is_one_clear_error(command, tmp_path, rocketjax):
    code, _, err = rocketjax(command, tmp_path / "nowhere")
    assert code == cli.FAILED and "no such run folder" in err
    (tmp_path / "empty").mkdir()
    code, _, err = rocketjax(command, tmp_path / "empty")
    assert code == cli.FAILED and "not a run folder" in err


def test_a_wrong_judge_is_one_clear_error(good, tmp_path, rocketjax):
    for judge in (tmp_path / "nowhere", good):
        code, _, err = rocketjax("grade", good, "-o", tmp_path / "run", "-j", judge)
        assert code == cli.FAILED and err.startswith("error: ") and "Traceback" not in err


def test_the_whole_path(good, tmp_path, rocketjax, tiny):
    run = tmp_path / "runs" / "first"
    code, out, err = rocketjax("grade", good, "-o", run, "--judge", tiny, "--json", "--max_tokens", "4096")
    assert code == cli.DONE, err
    summary = json.loads(out)
    assert summary["status"] == {"ok": summary["items"]} and summary["items"] > 0
    table = pq.read_table(run / "grades")
    assert table.column_names[:8] == [
        "session_id", "model", "item", "p_yes", "logit_yes", "logit_no", "answer_mass", "status",
    ]  # fmt: skip

    code, _, err = rocketjax("grade", good, "-o", run, "--judge", tiny, "--max-tokens", "4096")
    assert code == cli.FAILED and "--resume" in err and "--overwrite" in err
    code, _, err = rocketjax("rank", run)
    assert code == cli.FAILED and "rocketjax score" in err
    code, _, err = rocketjax("grade", good, "-o", run, "-j", tiny, "--max-tokens", "4096", "--resume")
    assert code == cli.DONE, err

    assert rocketjax("score", run)[0] == cli.DONE
    scores = pq.read_table(run / "scores.parquet").to_pylist()
    means: dict[tuple[str, str], list[float]] = {}
    for row in table.to_pylist():
        means.setdefault((row["session_id"], row["model"]), []).append(row["p_yes"])
    assert {(s["session_id"], s["model"]): s["score"] for s in scores} == pytest.approx(
        {key: 9 * sum(p) / len(p) + 1 for key, p in means.items()}, abs=1e-6
    )

    code, out, _ = rocketjax("rank", run, "--json")
    ranking = json.loads(out)
    assert code == cli.DONE and ranking == json.loads((run / "ranking.json").read_text())
    rows = ranking["models"]
    assert len(rows) == 2 and rows[0]["rank"] == 1 and {"model", "score", "low", "high", "group"} <= set(rows[0])
    assert "mean over" in rocketjax("ranking", run)[1], "RocketEval's own verb"

    code, _, _ = rocketjax("export", run, "--format", "rocketeval", "-o", tmp_path / "out")
    assert code == cli.DONE
    for model in (row["model"] for row in ranking["models"]):
        (file,) = (tmp_path / "out" / "judgment").glob(f"*/{model}.jsonl")
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for row in rows:
            assert row["model_test"] == model and row["norm_probability"] == means[row["session_id"], model]
        (file,) = (tmp_path / "out" / "score").glob(f"*/{model}.json")
        assert {r["session_id"] for r in json.loads(file.read_text())} == {r["session_id"] for r in rows}


@pytest.fixture
def recorded(tmp_path, rocketjax):
    """A benchmark of five models with an author's scores, and a run of made-up judgments about it."""
    import random

    rng, bench = random.Random(0), tmp_path / "bench"
    sessions, models = [f"q{i}" for i in range(6)], [f"model-{i}" for i in range(5)]

    def write(name: str, rows: list[dict]) -> None:
        (bench / name).parent.mkdir(parents=True, exist_ok=True)
        (bench / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    write(
        "queries.jsonl", [{"session_id": s, "conversation_input": [{"role": "user", "content": s}]} for s in sessions]
    )
    write("checklist.jsonl", [{"session_id": s, "checklist": ["One?", "Two?", "Three?"]} for s in sessions])
    judgments = []
    for k, model in enumerate(models):
        rows = [{"session_id": s, "output": [f"{model} {s}"]} for s in sessions]
        write(f"response/{model}.jsonl", rows)
        scores = [{"session_id": s, "model_test": model, "score": min(10, 2 * k + rng.randint(1, 3))} for s in sessions]
        write(f"score/judge/{model}.jsonl", scores)  # the labeler has the judge's own name
        for s in sessions:
            p = [min(0.99, max(0.01, 0.2 * k + rng.uniform(-0.1, 0.2))) for _ in range(3)]
            judgments.append({"session_id": s, "model_test": model, "norm_probability": p})
    (tmp_path / "judge.jsonl").write_text("".join(json.dumps(row) + "\n" for row in judgments))
    code, _, err = rocketjax("import", "judgments", tmp_path / "judge.jsonl", tmp_path / "run", "--bench", bench)
    assert code == cli.DONE and "90 recorded items of 5 models" in err
    return tmp_path / "run", bench


def test_from_judgments_to_heads(recorded, tmp_path, rocketjax):
    """Fit, score, rank, compare, look at items, ask for labels: everything that needs no judge."""
    run, bench = recorded
    labels_before = {f: f.read_bytes() for f in bench.rglob("*.jsonl")}
    code, _, err = rocketjax("fit", run, "--labels", "nobody")
    assert code == cli.FAILED and "no labels by 'nobody'; labelers: judge" in err
    code, out, err = rocketjax("fit", run, "--labels", "judge", "--folds", "3", "--json")
    assert code == cli.DONE, err
    assert json.loads(out)["labels"] == 30 and json.loads(out)["folds"] == 3
    code, _, err = rocketjax("fit", run, "--labels", "judge")
    assert code == cli.FAILED and "ridge@judge: is there already; use --overwrite" in err
    code, out, err = rocketjax("score", run, "--head", "ridge", "--abstain", "0.5", "--labels", "judge", "--json")
    assert code == cli.DONE, err
    summary = json.loads(out)
    assert summary["head"] == "ridge" and summary["labeler"] == "judge" and summary["scores"] == 30
    curve = summary["risk_coverage"]["curve"]
    assert [row["coverage"] for row in curve] == sorted(row["coverage"] for row in curve) and curve[-1]["coverage"] == 1
    assert rocketjax("score", run, "--head", "ridge")[0] == cli.DONE
    code, out, err = rocketjax("agree", run, "--labels", "judge", "--samples", "20", "--json")
    assert code == cli.DONE and json.loads(out)["shared_levels"] and "better than a new model's would be" in err
    code, out, _ = rocketjax("rank", run, "--json")
    assert [row["model"] for row in json.loads(out)["models"]] == [f"model-{i}" for i in (4, 3, 2, 1, 0)]
    assert all(row["score_error"] > 0 for row in json.loads(out)["models"])

    train = tmp_path / "train.txt"
    train.write_text("model-0\nmodel-2\n\nmodel-4\n")
    code, _, err = rocketjax("fit", run, "--labels", "judge", "--train-models", train, "-o", tmp_path / "head")
    assert code == cli.DONE and "the training models are left out of the scores" in err
    code, _, err = rocketjax("score", run, "--head", tmp_path / "head")
    assert code == cli.DONE and "left out, trained on: model-0, model-2, model-4" in err
    code, _, err = rocketjax("score", run, "--head", tmp_path / "head", "--score-train")
    assert code == cli.DONE and "trained on their own labels: model-0, model-2, model-4" in err
    train.write_text('[{"model": "model-0"}, "model-9"]')
    code, _, err = rocketjax("fit", run, "--labels", "judge", "--train-models", train, "-o", tmp_path / "other")
    assert code == cli.FAILED and "no model 'model-9' in this run" in err and not (tmp_path / "other").exists()
    (tmp_path / "empty.txt").write_text("\n")
    code, _, err = rocketjax("fit", run, "--labels", "judge", "--train-models", tmp_path / "empty.txt", "--overwrite")
    assert code == cli.FAILED and "names no model" in err

    train.write_text("model-0\nmodel-2\n")
    compat = ("score", run, "--compat", "rocketeval", "--labels", "judge", "--train-models", train)
    code, out, err = rocketjax(*compat, "--json")
    assert code == cli.DONE and json.loads(out)["compat"] == "rocketeval" and json.loads(out)["scores"] == 18
    assert "--compat rocketeval" in rocketjax("rank", run)[1]

    code, out, err = rocketjax("heads", run, "--labels", "judge", "--only", "mean,ridge,query mean", "--splits", "3",
                               "--json")  # fmt: skip
    assert code == cli.DONE, err
    rows = {row["head"]: row for row in json.loads(out)}
    assert rows["query mean"]["spearman"] == [None] * 3 and rows["ridge"]["mae"][0] < rows["query mean"]["mae"][0]
    code, out, err = rocketjax("heads", run, "--labels", "judge", "--only", "mean", "--splits", "2")
    assert code == cli.DONE and "pairwise" in out and "mean" in out

    code, out, err = rocketjax("items", run, "--labels", "judge", "--head", "ridge", "-o", tmp_path / "items.csv")
    assert code == cli.DONE and "18 items" in err, err
    lines = (tmp_path / "items.csv").read_text().splitlines()
    assert len(lines) == 19 and "discrimination" in lines[0] and "One?" in lines[1]
    code, out, err = rocketjax("items", run, "--head", "label-free", "--json")
    assert code == cli.DONE and all(row["weight"] is not None for row in json.loads(out)), err
    (tmp_path / "families.json").write_text("[]")
    code, _, err = rocketjax("items", run, "--families", tmp_path / "families.json")
    assert code == cli.FAILED and "is no JSON object from model to family" in err

    for file in sorted(bench.glob("score/judge/*"))[2:]:
        file.unlink()
    code, out, err = rocketjax("ask", run, "--labels", "judge", "-n", "4", "--json")
    assert code == cli.DONE, err
    asked = json.loads(out)
    assert len(asked) == 4 and {row["model"] for row in asked} <= {"model-2", "model-3", "model-4"}
    code, _, err = rocketjax("ask", run, "--labels", "judge", "--models", "model-7")
    assert code == cli.FAILED and "no model 'model-7' in this run" in err
    assert all(f.read_bytes() == data for f, data in labels_before.items() if f.exists()), "labels are never written"

    (bench / "checklist.jsonl").write_text((bench / "checklist.jsonl").read_text().replace("Two?", "Too?"))
    code, _, err = rocketjax("items", run)
    assert code == cli.FAILED and "are not those that" in err
    shutil.move(bench, tmp_path / "moved")
    code, _, err = rocketjax("items", run)
    assert code == cli.FAILED and "is no longer there; give --bench BENCH" in err


def test_weights_of_the_checklists(recorded, tmp_path, rocketjax):
    """A run from before the checklists had weights is scored by them, found where it was graded or by --bench."""
    run, bench = recorded
    code, _, err = rocketjax("score", run, "--item-weights")
    assert code == cli.FAILED and "its checklists have no weights" in err
    file = bench / "checklist.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows = [row | {"weights": [1, 0, None], "categories": ["form", None, None]} for row in rows[:-1]] + rows[-1:]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, _, err = rocketjax("score", run, "--item-weights")
    assert code == cli.DONE and "head weighted-mean" in err, err
    assert "5 checklists of bench give their items weights; 1 do not, nor 5 items of these" in err
    there = shutil.move(bench, tmp_path / "moved")
    code, out, err = rocketjax("score", run, "--item-weights", "--head", "mean", "--bench", there, "--json")
    assert code == cli.DONE, err
    assert json.loads(out)["head"] == "weighted-mean" and json.loads(out)["item_weights"]["queries"] == 5
    code, out, err = rocketjax("rank", run, "--samples", "0")
    assert code == cli.DONE and "means by the item weights of moved" in out, out
    code, out, err = rocketjax("items", run, "--bench", there, "--json")
    first = json.loads(out)[:3]
    assert [row["category"] for row in first] == ["form", None, None]
    assert [row["given_weight"] for row in first] == [1, 0, None]
    code, out, _ = rocketjax("compare", run, run, "--head-b", "mean", "--samples", "100")
    assert code == cli.DONE and "head weighted-mean" in out and "item_weights: " in out
    moved = there / "checklist.jsonl"
    moved.write_text(moved.read_text().replace("Two?", "Too?"))
    code, _, err = rocketjax("score", run, "--item-weights", "--bench", there)
    assert code == cli.FAILED and "are not those that" in err


def test_missing_responses_exit_3_and_are_kept(good, tmp_path, rocketjax, tiny):
    file = next((good / "response").iterdir())
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[1:]))
    code, _, err = rocketjax("grade", good, "-o", tmp_path / "run", "-j", tiny)
    assert code == cli.MISSING and "missing_response" in err
    code, _, _ = rocketjax("score", tmp_path / "run")
    assert code == cli.MISSING
    code, out, _ = rocketjax("rank", tmp_path / "run")
    assert code == cli.DONE and "1 left out" in out


def test_convert_makes_a_judge_with_the_same_grades(good, tmp_path, rocketjax, tiny):
    assert rocketjax("convert", tiny, tmp_path / "judge")[0] == cli.DONE
    tables = []
    for name, judge in (("a", tiny), ("b", tmp_path / "judge")):
        assert rocketjax("grade", good, "-o", tmp_path / name, "-j", judge)[0] == cli.DONE
        tables.append(pq.read_table(tmp_path / name / "grades"))
    assert tables[0].equals(tables[1])
    code, _, err = rocketjax("convert", tiny, tmp_path / "judge")
    assert code == cli.FAILED and "judge" in err


def test_overlong_prompts_stop_before_anything_is_graded(good, tmp_path, rocketjax, tiny):
    code, _, err = rocketjax("grade", good, "-o", tmp_path / "run", "-j", tiny, "--max-tokens", "20")
    assert code == cli.FAILED and "the limit is 20" in err and "--overflow" in err
    assert not (tmp_path / "run").exists()


TOML = """
[recipe]
rank = 2
max_tokens = 500
batch_tokens = 1000
held_out = 0.0
learning_rate = 1e-3

[[source]]
path = "bench"
labeler = "human"
"""


@pytest.mark.slow
def test_tuning_by_recipe_file_and_flags(good, tmp_path, rocketjax, tiny):
    """Flags beat the file; the adapter then grades on its base, and --json says where it is."""
    (tmp_path / "recipe.toml").write_text(f"judge = {json.dumps(str(tiny))}\n{TOML}")
    out = tmp_path / "out"
    command = ("tune", "--config", tmp_path / "recipe.toml", "-o", out, "--rank", "3", "--dtype", "f32", "--json")
    code, printed, err = rocketjax(*command)
    assert code == cli.DONE, err
    result = json.loads(printed)
    assert result["path"] == str(out / "adapter") and result["steps"] >= 1 and not result["stopped_early"]
    meta = json.loads((out / "tune.json").read_text())
    recipe = meta["recipe"]
    assert (recipe["rank"], recipe["max_tokens"], recipe["learning_rate"]) == (3, 500, 1e-3)
    assert meta["judge"]["origin"] == f"path:{tiny}" and meta["judge"]["dtype"] == "f32"
    (source,) = meta["sources"]
    assert source["labeler"] == "human" and source["data"]["item_labels"] == 5, "N/A is no label"
    code, _, err = rocketjax(*command)
    assert code == cli.FAILED and "--resume" in err
    code, _, err = rocketjax(*command, "--resume", "--alpha", "8")
    assert code == cli.FAILED and "recipe.alpha: 32.0 there, 8.0 here" in err
    assert rocketjax(*command, "--resume")[0] == cli.DONE

    judge = f"{tiny}+{out / 'adapter'}"
    code, _, err = rocketjax("grade", good, "-o", tmp_path / "run", "-j", judge, "--reference", "gpt-4")
    assert code == cli.FAILED and "no reference by 'gpt-4'" in err and not (tmp_path / "run").exists()
    code, _, err = rocketjax("grade", good, "-o", tmp_path / "run", "-j", judge, "--limit", "1", "--reference", "gpt-4")
    assert code == cli.DONE, err
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["prompt"]["reference"] == "gpt-4" and run["judge"]["origin"] == f"path:{tiny}+path:{out / 'adapter'}"
    code, _, err = rocketjax("tune", good, "--labels", "human", "-j", judge, "-o", tmp_path / "again")
    assert code == cli.FAILED and "carries an adapter already" in err


@pytest.mark.slow
def test_tuning_all_weights_makes_a_judge(good, tmp_path, rocketjax, tiny):
    command = (
        "tune",
        good,
        "--labels",
        "human",
        "-j",
        tiny,
        "-o",
        tmp_path / "out",
        "--method",
        "full",
        "--lr",
        "1e-3",
    )
    code, out, err = rocketjax(*command, "--held-out", "0", "--dtype", "f32", "--max-tokens", "500")
    assert code == cli.DONE and not out and str(tmp_path / "out" / "judge") in err
    rows = []
    for name, judge in (("base", tiny), ("tuned", tmp_path / "out" / "judge")):
        assert rocketjax("grade", good, "-o", tmp_path / name, "-j", judge)[0] == cli.DONE
        rows.append(pq.read_table(tmp_path / name / "grades")["p_yes"].to_pylist())
    assert rows[0] != rows[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[recipe", "recipe.toml: "),
        ("judges = 'x'", "unknown field `judges`"),
        (TOML.replace("labeler", "labeller"), "unknown field `labeller`"),
        (TOML.replace('path = "bench"', ""), "missing required field `path`"),
        (TOML + "share = 0", "share is 0; leave the source out"),
        (TOML + "items = 0", "items, pairs and scores are all 0"),
        (TOML + 'reference = "x"', "Invalid enum value 'x'"),
        (TOML.replace("rank = 2", "rang = 2"), "unknown field `rang`"),
        (TOML.replace("rank = 2", "rank = 0"), "rank is 0; it must be at least 1"),
        (TOML.replace("rank = 2", "rank = 'x'"), "`$.rank`"),
        (TOML.replace('labeler = "human"', 'labeler = "nobody"'), "no labels by 'nobody'; labelers: gpt-4, human"),
        (TOML.replace('labeler = "human"', ""), "which labeler to learn from? It has: gpt-4, human"),
        (TOML.replace('path = "bench"', 'path = "nowhere"'), "nowhere"),
        (TOML + "pairs = 1.0", "gives no scores, which the pair and score losses need"),
    ],
)
def test_a_wrong_recipe_is_one_clear_error(text, message, good, tmp_path, rocketjax, tiny):
    (tmp_path / "recipe.toml").write_text(text)
    code, out, err = rocketjax("tune", "--config", tmp_path / "recipe.toml", "-o", tmp_path / "out", "-j", tiny)
    assert code == cli.FAILED and not out and "Traceback" not in err
    assert err.startswith("error: ") and len(err.strip().splitlines()) == 1 and message in err
    assert not (tmp_path / "out").exists()
    code, _, err = rocketjax("tune", "--config", tmp_path / "nowhere.toml", "-o", tmp_path / "out", "-j", tiny)
    assert code == cli.FAILED and "nowhere.toml: cannot be read" in err


@pytest.mark.slow
def test_interrupt_exits_130_and_resume_finishes(tmp_path, tiny):
    """A real Ctrl-C on a real process; then --resume."""
    environment = {**os.environ, "ROCKETJAX_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "rocketjax", "demo", "-o", str(tmp_path / "run"), "-j", str(tiny)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "run").glob("grades/part-*")) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    if process.returncode != cli.DONE:  # it may have finished between two looks
        assert process.returncode == cli.INTERRUPTED, err
        assert "Traceback" not in err and "the same command continues it" in err
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == cli.DONE, done.stderr
    assert "flatterer" in done.stdout and "author" in done.stdout
    json.loads((tmp_path / "run" / "ranking.json").read_text())


def test_judges_lists_what_is_known_and_what_is_here(tmp_path, monkeypatch, rocketjax):
    """The list without a cache, and with one that holds a judge of the list, one beside it, and another model."""
    golden = Path(__file__).parent / "golden"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("ROCKETJAX_CACHE_DIR", str(tmp_path / "cache"))
    listed = json.loads(rocketjax("judges", "--json")[1])
    assert {judge["state"] for judge in listed} == {"not here", "gated"}
    assert {judge["family"] for judge in listed} == {"llama", "gemma2", "gemma3", "qwen2", "qwen3"}
    for name, source in (("Qwen/Qwen3-0.6B", "tiny_qwen3"), ("me/mine", "tiny_llama3"), ("me/other", "tiny_llama")):
        repo = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
        (repo / "refs").mkdir(parents=True)
        (repo / "refs" / "main").write_text("0" * 40)
        shutil.copytree(golden / source, repo / "snapshots" / ("0" * 40))
        if name == "me/other":
            (repo / "snapshots" / ("0" * 40) / "config.json").write_text('{"model_type": "mamba"}')
    here = {j["name"]: j for j in json.loads(rocketjax("judges", "--json")[1])}
    assert len(here) == len(listed) + 1 and "me/other" not in here
    size = sum(f.stat().st_size for f in (golden / "tiny_qwen3").iterdir() if f.name != "config.v4.json")
    assert here["Qwen/Qwen3-0.6B"]["state"] == "here" and here["Qwen/Qwen3-0.6B"]["size"] == size
    assert here["me/mine"]["family"] == "llama" and here["me/mine"]["parameters"] is None
    code, out, _ = rocketjax("judges")
    assert code == 0 and "me/mine" in out and "meta-llama/Llama-3.2-1B-Instruct" in out


def test_judges_shows_answer_tokens(rocketjax):
    judge = Path(__file__).parent / "golden" / "tiny_gemma2"
    found = json.loads(rocketjax("judges", "--answers", judge, "--json")[1])
    assert found["chat"] == "gemma" and found["bos"] == "<bos>"
    for word in ("yes", "no"):
        assert len(found[word]) >= 2 and all(entry["text"].strip().lower() == word for entry in found[word])
    code, out, _ = rocketjax("judges", "--answers", judge)
    assert code == 0 and f"{found['yes'][0]['id']} {found['yes'][0]['text']!r}" in out
    code, _, err = rocketjax("judges", "--answers", judge.parent)
    assert code == cli.FAILED and "holds neither tokenizer.json nor tokenizer.model" in err


def test_profile_says_where_the_time_went(good, tmp_path, tiny, rocketjax):
    code, out, _ = rocketjax("grade", good, "-o", tmp_path / "run", "-j", tiny, "--profile", "--json")
    found = json.loads(out)
    profile = found["profile"]
    assert code == 0 and set(profile["seconds"]) == {
        "load", "wait", "compile", "transfer", "compute", "write", "other", "in all",
    }  # fmt: skip
    parts = sum(seconds for name, seconds in profile["seconds"].items() if name != "in all")
    assert abs(parts - profile["seconds"]["in all"]) < 1e-6
    assert sum(row["rows"] for row in profile["rows"].values()) == found["session_rows"] > 0
    assert sum(row["tokens"] for row in profile["rows"].values()) == found["session_tokens"]
    assert 0 < profile["share_of_peak"] < 1 and profile["ahead_seconds"]["tokenise"] > 0
    code, _, err = rocketjax("grade", good, "-o", tmp_path / "again", "-j", tiny, "--profile")
    assert code == 0 and "of the measured matmul peak" in err and "tokenise" in err


def test_the_matmul_peak_is_of_products_that_keep_the_device_busy(monkeypatch):
    """A made-up device of 600 TFLOP/s that takes 50 us to be asked: the figure must be its own, not the host's."""
    asked, limit = [], [1 << 40]

    def seconds_of(product, rows, inner, columns, dtype, at_once):
        if rows * inner > limit[0]:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        asked.append((rows, inner, columns, at_once))
        return 2 * rows * inner * columns / 6e14 + 50e-6

    monkeypatch.setattr(doctor, "seconds_of", seconds_of)
    assert doctor.matmul_flops(jnp.bfloat16) < 0.3 * 6e14
    assert asked == [(1024, 1024, 4096, 1)], "on a CPU one product at a time, and this one"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert 0.95 * 6e14 < doctor.matmul_flops(jnp.bfloat16) < 6e14
    limit[0] = 4096 * 4096
    assert 0.7 * 6e14 < doctor.matmul_flops(jnp.bfloat16) < 0.95 * 6e14, "the largest that there is room for"
    limit[0] = 0
    with pytest.raises(jax.errors.JaxRuntimeError):
        doctor.matmul_flops(jnp.bfloat16)


@pytest.mark.slow
def test_int8_judge_grades(good, tmp_path, tiny, rocketjax):
    grades = {}
    for dtype in ("f32", "int8"):
        code, _, _ = rocketjax("grade", good, "-o", tmp_path / dtype, "-j", tiny, "--dtype", dtype)
        assert code == 0
        grades[dtype] = pq.read_table(tmp_path / dtype / "grades")["p_yes"].to_numpy()
    moved = abs(grades["f32"] - grades["int8"])
    assert 0 < moved.max() < 0.1
    code, _, err = rocketjax("grade", good, "-o", tmp_path / "f32", "-j", tiny, "--dtype", "int8", "--resume")
    assert code == cli.FAILED and "judge.dtype" in err
    code, _, err = rocketjax("convert", tiny, tmp_path / "judge", "--dtype", "int8")
    assert code == 2


def test_all_stages_in_one_command(good, tmp_path, rocketjax, tiny):
    """From a YAML file and flags that beat it; a second call goes on; what cannot work is refused before grading."""
    (tmp_path / "all.yaml").write_text(f"bench: {good.name}\njudge: {tiny}\nmax-tokens: 4096\nsamples: 200\nseed: 3\n")
    run = tmp_path / "all"
    code, out, err = rocketjax("run", "--config", tmp_path / "all.yaml", "-o", run, "--seed", "4", "--json")
    assert code == cli.DONE, err
    options = json.loads((run / "options.json").read_text())
    assert options["samples"] == 200 and options["seed"] == 4 and options["head"] == "mean"
    found = json.loads(out)
    assert found["ranking"] == json.loads((run / "ranking.json").read_text())
    assert found["ranking"]["interval"]["seed"] == 4 and (run / "report.html").stat().st_size > 1000
    before = (run / "ranking.json").read_bytes()
    code, out, err = rocketjax("run", good, "-j", tiny, "--max-tokens", "4096", "--samples", "200", "--seed", "4",
                               "-o", run)  # fmt: skip
    assert code == cli.DONE and "mean over" in out and (run / "ranking.json").read_bytes() == before
    for text, message in (
        ("bensch: x", "unknown option 'bensch'; did you mean 'bench'?"),
        ("limit: many", "limit is 'many', not a int"),
        ("dtype: f64", "dtype is 'f64'; it can be: f32, bf16, int8"),
        ("samples: 50", "samples is 50; it is 100 or more"),
        ("models: [a, 1]", "of names"),
        ("- a", "must hold options"),
        ("a: [", "cannot be read"),
        ("", "must hold options"),
    ):
        (tmp_path / "bad.yaml").write_text(text)
        code, _, err = rocketjax("run", good, "-o", tmp_path / "none", "--config", tmp_path / "bad.yaml")
        assert code == cli.FAILED and message in err and not (tmp_path / "none").exists()
    code, _, err = rocketjax("run", good, "-o", tmp_path / "none", "--labels", "nobody")
    assert code == cli.FAILED and "has no labels by 'nobody'" in err and not (tmp_path / "none").exists()


@pytest.mark.slow
def test_all_stages_with_a_head_of_few_models(tmp_path, rocketjax, tiny):
    """Hidden states for shared, training models from a file, folds for as many models as have labels."""
    bench, run = write_good(tmp_path / "bench"), tmp_path / "all"
    (tmp_path / "train.txt").write_text("beta-7b\n")
    (tmp_path / "elo.csv").write_text("model, rating\nalpha, 1\nbeta-7b, 2\n")
    base = ("run", bench, "-j", tiny, "--labels", "gpt-4", "--samples", "100", "-o", run)
    code, out, err = rocketjax(*base, "--head", "shared", "--json")
    assert code == cli.DONE, err
    assert (run / "features.parquet").exists() and json.loads(out)["ranking"]["about"]["head"] == "shared"
    assert json.loads(out)["ranking"]["about"]["folds"] == 2, "there are two models"
    assert [a["reference"] for a in json.loads(out)["agreement"]] == ["gpt-4"]
    code, out, err = rocketjax(*base, "--train-models", tmp_path / "train.txt", "--json")
    assert code == cli.DONE, err
    assert [r["model"] for r in json.loads(out)["ranking"]["models"]] == ["alpha"]
    assert json.loads((run / "options.json").read_text())["train_models"] == str(tmp_path / "train.txt")
    for options, status, message in (
        (("--train-models", tmp_path / "train.txt", "--folds", "2"), 2, "exclude each other"),
        (("--folds", "3"), cli.FAILED, "too few for 3 folds"),
        (("--head", "mean", "--folds", "2"), 2, "is not fitted"),
        (("--head", "forest"), 2, "no head 'forest'"),
        (("--abstain", "0"), 2, "a number above 0"),
        (("--ratings", tmp_path / "elo.csv", "--train-models", tmp_path / "train.txt"), cli.FAILED, "rates 1 of"),
        (("--train-models", tmp_path / "elo.csv"), cli.FAILED, "is no model with labels by 'gpt-4'"),
    ):
        code, _, err = rocketjax("run", bench, "-j", tiny, "--labels", "gpt-4", "-o", tmp_path / "none", *options)
        assert code == status and message in " ".join(err.split()), (options, err)
        assert not (tmp_path / "none").exists(), "found before anything is graded"


def test_agreement_and_comparison(recorded, tmp_path, rocketjax):
    run, _ = recorded
    assert rocketjax("score", run)[0] == cli.DONE
    code, out, err = rocketjax("agree", run, "--labels", "judge", "--samples", "100")
    assert code == cli.DONE, err
    assert "ranking (5 models) against judge" in out and "quadratic kappa" in out
    (tmp_path / "elo.json").write_text(json.dumps({f"model-{i}": 1000 + i for i in range(4)}))
    code, out, err = rocketjax("agree", run, "--ratings", tmp_path / "elo.json", "--samples", "100")
    assert code == cli.DONE and "no rating: model-4" in err and "ranking (4 models) against elo.json" in out
    code, out, err = rocketjax("compare", run, run, "--head-a", "mean", "--head-b", "label-free", "--labels", "judge",
                               "--samples", "100")  # fmt: skip
    assert code == cli.DONE, err
    assert "model-4" in out and "rankings agree" in out and "agreement with judge (30 labels)" in out
    code, out, err = rocketjax("rank", run, "--method", "bradley-terry", "--samples", "100")
    assert code == cli.DONE and "400 points are odds of 10" in out
    code, out, err = rocketjax("rank", run, "--length-control", "--samples", "100")
    assert code == cli.DONE and "as if all responses were equally long" in out
