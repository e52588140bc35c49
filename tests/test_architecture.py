"""The list of folders is the pipeline: a file imports from its own stage and from those above it only."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "rocketjax"
STAGES = ("bench", "prompt", "judge", "grade", "generate", "reweight", "rank", "report", "tune", "create", "refine")
# Beside the stages: errors and files are below all of them, the rest above.
BELOW, ABOVE = {"errors", "files"}, {"cli", "doctor", "__init__", "__main__"}


def imported(file: Path) -> set[str]:
    """Second names of everything that a file imports from the package: `judge` of `rocketjax.judge.model`."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name}: imports are written out in full"
            if node.module == "rocketjax":
                names |= {"__init__" if a.name == "__version__" else a.name for a in node.names}
            elif node.module and node.module.startswith("rocketjax."):
                names.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            names |= {a.name.split(".")[1] for a in node.names if a.name.startswith("rocketjax.")}
    return names


FILES = sorted(p for p in PACKAGE.rglob("*.py") if "demo" not in p.parts)


@pytest.mark.parametrize("file", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_follow_the_pipeline(file):
    where = file.relative_to(PACKAGE).parts
    stage = where[0] if len(where) > 1 else file.stem
    if stage in ABOVE:
        return
    allowed = set(BELOW) | {"__init__"}
    if stage in STAGES:
        allowed |= set(STAGES[: STAGES.index(stage) + 1])
    assert imported(file) <= allowed, f"{'/'.join(where)} imports {imported(file) - allowed}"


def test_every_folder_is_a_stage():
    folders = {p.name for p in PACKAGE.iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert folders == set(STAGES)
    assert {p.stem for p in PACKAGE.glob("*.py")} == BELOW | ABOVE


@pytest.mark.parametrize("banned", ["jax._src", "with mesh:", "pickle", "trust_remote_code", "eval("])
def test_nothing_banned(banned):
    for file in FILES:
        code = "\n".join(line.split("#")[0] for line in file.read_text("utf-8").splitlines())
        assert banned not in code.replace("nnx.eval_shape(", "").replace("_eval(", ""), f"{file}: {banned}"
