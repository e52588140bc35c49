"""The notebook: every cell runs, in order, inside a running event loop as in Jupyter."""

import ast
import asyncio
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import random_bench, tiny_judge

import rocketjax

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
sys.path.insert(0, str(EXPERIMENTS))
from make_notebook import notebook  # noqa: E402


def test_the_notebook_is_what_its_script_writes():
    there = json.loads((EXPERIMENTS / "rocketjax_colab.ipynb").read_text())
    assert there == notebook(), "run python experiments/make_notebook.py"
    for cell in there["cells"]:
        assert cell["cell_type"] == "markdown" or cell["outputs"] == []


def test_calls_work_inside_a_running_event_loop(tmp_path):
    async def cell() -> object:
        run = tiny_judge().grade(random_bench(queries=3), tmp_path / "run")
        rocketjax.score(run)
        return rocketjax.rank_models(run, samples=100)

    ranking = asyncio.run(cell())
    assert len(ranking) == 3
    html = ranking._repr_html_()
    assert html.count("<tr>") == 4 and all(row["model"] in html for row in ranking)


def test_frames_hold_what_the_files_hold(tmp_path):
    pandas = pytest.importorskip("pandas")
    run = tiny_judge().grade(random_bench(queries=3), tmp_path / "run")
    with pytest.raises(rocketjax.RocketError, match="run rocketjax score"):
        rocketjax.frame(run, "scores")
    rocketjax.score(run)
    ranking = rocketjax.rank_models(run, samples=100)
    for source in (run, ranking):
        frame = rocketjax.frame(source, "ranking")
        assert isinstance(frame, pandas.DataFrame) and frame["model"].tolist() == [r["model"] for r in ranking]
        assert len(rocketjax.frame(source, "pairs")) == 3
    assert len(rocketjax.frame(run, "grades")) == run.grades.num_rows
    means = rocketjax.frame(run, "scores").groupby("model")["score"].mean()
    for row in ranking:
        assert means[row["model"]] == pytest.approx(row["score"])
    with pytest.raises(rocketjax.RocketError, match="no frame of 'x'"):
        rocketjax.frame(run, "x")
    with pytest.raises(rocketjax.RocketError, match="a ranking has no grades"):
        rocketjax.frame(ranking, "grades")


def test_plots_draw(tmp_path):
    pytest.importorskip("matplotlib")
    run = tiny_judge().grade(random_bench(queries=3), tmp_path / "run")
    rocketjax.score(run)
    ranking = rocketjax.rank_models(run, samples=100)
    axis = rocketjax.plot_ranking(ranking).axes[0]
    marks = [line.get_xdata()[0] for line in axis.lines if len(line.get_xdata()) == 1]
    assert marks == [row["score"] for row in ranking]
    rows = [{"low": 0.1, "high": 0.2, "mean_p": 0.15, "share_yes": 0.3, "n": 4}]
    curve = [{"coverage": 1.0, "risk": 2.0, "threshold": 3.0}]
    agreement = {
        "reference": "me",
        "items": {"n": 4, "ece": [0.15, None, None], "reliability": rows},
        "risk_coverage": {"all": 2.0, "area": 1.0, "curve": curve},
    }
    for plot in (rocketjax.plot_calibration, rocketjax.plot_risk_coverage):
        plot(agreement).savefig(tmp_path / "plot.png")
        assert (tmp_path / "plot.png").stat().st_size > 1000
        assert plot(agreement)._repr_png_().startswith(b"\x89PNG")
        with pytest.raises(rocketjax.RocketError):
            plot({"reference": "me", "items": None, "risk_coverage": None})


@pytest.mark.weights
def test_every_cell_runs(tmp_path, monkeypatch):
    """As Jupyter would: in one namespace, in a running loop; what a cell ends with is shown, % and ! lines are its
    own. The installing cell is left out."""
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {"__name__": "__main__"}

    def show(value: object) -> None:
        if value is None:
            return
        if hasattr(value, "savefig"):
            value.savefig(tmp_path / "figure.png")
        elif hasattr(value, "_repr_html_"):
            assert "<table" in value._repr_html_()

    async def run_all() -> None:
        for cell in notebook()["cells"]:
            text = "".join(cell["source"])
            if cell["cell_type"] != "code" or "%pip" in text:
                continue
            plain = "\n".join(
                line if not line.startswith("!") else f"_shell({line[1:]!r})" for line in text.split("\n")
            )
            tree = ast.parse(plain)
            last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, "cell", "exec"), space)
            if last is not None:
                show(eval(compile(ast.Expression(last.value), "cell", "eval"), space))

    def shell(line: str) -> None:
        first, *rest = shlex.split(line)
        assert first == "rocketjax"
        done = subprocess.run([sys.executable, "-m", "rocketjax", *rest], capture_output=True, text=True,
                              env=os.environ | {"NO_COLOR": "1"})  # fmt: skip
        assert done.returncode == 0, done.stderr

    space["_shell"] = shell
    asyncio.run(run_all())
    assert (tmp_path / "runs" / "demo" / "report.html").exists()
