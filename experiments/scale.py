"""What the size of a benchmark costs beside the judge's work: memory, time per item, time to resume.

    python experiments/scale.py [--sizes 1000,10000,100000,1000000] [-o FOLDER]

Makes a benchmark of each size (20 responses to a query, 10 items each, texts of a few words from a seed) and
grades it with a tiny random judge, so that what is measured is the way around the judge. A grading process is killed
with SIGKILL at half of the parts; a second one resumes and ends the run; a third finds it complete. Of all of them:

  start         seconds from the start of the process until Python, JAX and the judge are there
  read          seconds for the pass over all files that checks them
  first         seconds from the start of the process until the first part is written, with compilation
  ms per item   of the second process, whose programs come from the compile cache, from its first part on: elapsed, and
                of CPU, which other work on the machine changes less
  peak          the larger peak of resident memory of the first two processes, MiB
  programs      compiled, and how many row lengths there are

Writes scale.jsonl and scale.png into FOLDER (a new temporary one by default) and prints a table.
"""

import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any
from zlib import crc32

import typer
from rich.console import Console
from rich.table import Table

RESPONSES, ITEMS = 20, 10
FEW = 2000  # items, of which the text of the most is prepared before the first is graded
WORDS = re.findall(
    "[a-z]+",
    "prime number answer list proof short clear wrong right river stone garden winter letter music paper engine window "
    "market island summer doctor bridge colour forest valley silver history machine question morning evening",
)
SPECIALS = ("<|im_start|>", "<|im_end|>")
VOCABULARY = 512
PIECE = re.compile(r"\s*\w+|\s*[^\w\s]|\s+$")


# The benchmark.


def sentences(rng: random.Random, least: int, most: int) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(least, most))).capitalize() + "."


def make_benchmark(folder: Path, items: int, seed: int = 0) -> None:
    """Files of so many items; the same for one seed, whatever the size before."""
    queries = items // (RESPONSES * ITEMS)
    (folder / "response").mkdir(parents=True)
    rng = random.Random(seed)
    with open(folder / "queries.jsonl", "w") as asked, open(folder / "checklist.jsonl", "w") as checks:
        for q in range(queries):
            turn = {"role": "user", "content": sentences(rng, 5, 10)}
            asked.write(json.dumps({"session_id": f"q{q:07d}", "conversation_input": [turn]}) + "\n")
            checklist = [f"{i + 1}: {sentences(rng, 3, 5)[:-1]}?" for i in range(ITEMS)]
            checks.write(json.dumps({"session_id": f"q{q:07d}", "checklist": checklist}) + "\n")
    for m in range(RESPONSES):
        with open(folder / "response" / f"model-{m:02d}.jsonl", "w") as file:
            for q in range(queries):
                file.write(json.dumps({"session_id": f"q{q:07d}", "output": [sentences(rng, 8, 16)]}) + "\n")


# The judge.


class WordTokenizer:
    """One token per word, by its checksum; two control tokens; the answers are two words."""

    vocab_size = VOCABULARY + len(SPECIALS)
    sha256 = "words"
    chat_template = "{{'<|im_start|>'}}"
    bos = None

    def encode(self, text: str) -> list[int]:
        return [number(piece) for piece in PIECE.findall(text)]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def special(self, name: str) -> int:
        return VOCABULARY + SPECIALS.index(name)

    def has_special(self, name: str) -> bool:
        return name in SPECIALS

    def token_text(self, token: int) -> str:
        return str(token)

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))

    def answer_ids(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return (number("Yes"),), (number("No"),)


@lru_cache(4096)
def number(piece: str) -> int:
    return crc32(piece.encode()) % VOCABULARY


def tiny_judge() -> Any:
    """One layer of random weights."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from flax import nnx

    from rocketjax.grade import Judge
    from rocketjax.judge import Config, Transformer

    config = Config(
        "llama", layers=1, D=16, N=2, K=1, H=8, F=16, V=WordTokenizer.vocab_size, context=4096, norm_eps=1e-6,
        rope_theta=10_000.0,
    )  # fmt: skip
    graph, state = nnx.split(Transformer(config))
    leaves, tree = jax.tree.flatten(state)
    rng = np.random.default_rng(0)
    leaves = [jnp.asarray(rng.normal(0, 0.3, leaf.shape), jnp.float32) for leaf in leaves]
    model = nnx.merge(graph, jax.tree.unflatten(tree, leaves))
    return Judge(model, WordTokenizer(), "random:scale", "random", "f32", Path("random"))  # type: ignore[arg-type]


# The grading process.


def peak() -> float:
    """The peak of this process's resident memory so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def grade(bench: Path, run: Path, begun: float) -> None:
    """Grades or resumes, and prints a line of JSON for every event; `begun` is when the process was started."""

    def say(event: str, **more: Any) -> None:
        line = {"event": event, "seconds": time.time() - begun, "cpu": time.process_time(), "peak": peak(), **more}
        print(json.dumps(line), flush=True)

    from rocketjax.bench import load_benchmark
    from rocketjax.grade import Work
    from rocketjax.prompt import row_lengths

    judge = tiny_judge()
    say("start")
    benchmark = load_benchmark(bench)
    say("read")

    def progress(work: Work) -> None:
        say("part", parts=work.parts, total=work.parts_total, items=work.items, programs=work.compiled)

    made = judge.grade(benchmark, run, mode="resume", progress=progress)
    say("end", status=made.status(), lengths=len(row_lengths(made.meta["prompt"]["max_tokens"])))


def child(bench: Path, run: Path) -> Iterator[tuple[dict[str, Any], subprocess.Popen[str]]]:
    """The events of a grading process."""
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(run.parent / "xla"), "JAX_PLATFORMS": "cpu"}
    environment |= {
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, __file__, "grade", str(bench), str(run), str(time.time())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            yield json.loads(line), process
    if process.returncode not in (0, -signal.SIGKILL):
        raise SystemExit(f"the grading process ended with {process.returncode}")


def measure(folder: Path, items: int) -> dict[str, Any]:
    """One size, three processes."""
    bench, run = folder / "bench", folder / "run"
    begun = time.time()
    make_benchmark(bench, items)
    row: dict[str, Any] = {
        "items": items, "make_seconds": time.time() - begun,
        "bytes": sum(f.stat().st_size for f in bench.rglob("*.jsonl")), "load_before": os.getloadavg()[0],
    }  # fmt: skip
    programs: set[int] = set()
    peaks = []
    for name in ("fresh", "resumed", "complete"):
        events: dict[str, dict[str, Any]] = {}
        for event, process in child(bench, run):
            events.setdefault("first" if event["event"] == "part" else event["event"], event)
            events["last"] = event
            if event["event"] == "part":
                events["last part"] = event
                programs |= set(event["programs"])
                if name == "fresh" and event["parts"] >= event["total"] / 2 and event["parts"] < event["total"]:
                    process.kill()
                    break
        row[name] = {
            "start": events["start"]["seconds"],
            "read": events["read"]["seconds"] - events["start"]["seconds"],
            "first": events["first"]["seconds"] if "first" in events else None,
            "end": events["last"]["seconds"],
            "peak": events["last"]["peak"],
            "peak_at_read": events["read"]["peak"],
        }
        if "first" in events:
            first, last = events["first"], events["last part"]
            row[name] |= {f"graded_{key}": last[key] - first[key] for key in ("items", "seconds", "cpu")}
            peaks.append(events["last"]["peak"])
    row |= {
        "peak": max(peaks), "programs": sorted(programs), "row_lengths": events["last"]["lengths"],
        "status": events["last"]["status"], "load_after": os.getloadavg()[0],
    }  # fmt: skip
    return row


# What comes of it.


def each(row: dict[str, Any], key: str) -> float | None:
    """ms an item in the second process; None where that graded too few to tell."""
    graded = row["resumed"].get("graded_items", 0)
    return 1e3 * row["resumed"][f"graded_{key}"] / graded if graded >= FEW else None


def show(rows: list[dict[str, Any]]) -> None:
    columns = ("items", "MB", "start, s", "read, s", "first, s", "resumed", "complete", "ms per item", "of CPU",
               "peak, MiB", "programs", "load")  # fmt: skip
    table = Table(*columns, title="resumed: to the first part after SIGKILL at half; complete: to the end")
    for r in rows:
        times = ["-" if x is None else f"{x:.2f}" for x in (each(r, "seconds"), each(r, "cpu"))]
        table.add_row(
            f"{r['items']:,}", f"{r['bytes'] / 1e6:.1f}", f"{r['fresh']['start']:.1f}", f"{r['fresh']['read']:.2f}",
            f"{r['fresh']['first']:.1f}", f"{r['resumed']['first'] or r['resumed']['end']:.1f}",
            f"{r['complete']['end']:.1f}", *times, f"{r['peak']:.0f}",
            f"{len(r['programs'])} of {r['row_lengths']}", f"{r['load_before']:.1f}-{r['load_after']:.1f}",
        )  # fmt: skip
    Console(width=130).print(table)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    items = [r["items"] for r in rows]
    axes[0].plot(items, [r["peak"] for r in rows], "o-", label="of the process")
    axes[0].plot(items, [r["fresh"]["peak_at_read"] for r in rows], "o--", label="when the benchmark was read")
    axes[0].set(ylabel="peak resident memory, MiB", title="Memory")
    axes[0].legend(frameon=False)
    timed = [r for r in rows if each(r, "cpu") is not None]
    axes[1].plot([r["items"] for r in timed], [each(r, "seconds") for r in timed], "o-", label="elapsed")
    axes[1].plot([r["items"] for r in timed], [each(r, "cpu") for r in timed], "o--", label="of CPU")
    axes[1].set(ylabel="ms per item", title="Time")
    axes[1].legend(frameon=False)
    for axis in axes:
        axis.set(xscale="log", xlabel="items", ylim=(0, None))
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


def main(
    sizes: Annotated[str, typer.Option(help="Numbers of items.")] = "1000,10000,100000,1000000",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder of the results.")] = None,
) -> None:
    """Memory, time per item and time to resume by the size of a benchmark."""
    output = output or Path(tempfile.mkdtemp(prefix="rocketjax-scale-"))
    output.mkdir(parents=True, exist_ok=True)
    rows = []
    for items in map(int, sizes.split(",")):
        with tempfile.TemporaryDirectory(prefix="rocketjax-scale-") as folder:
            rows.append(measure(Path(folder), items))
        with open(output / "scale.jsonl", "a") as file:
            file.write(json.dumps(rows[-1]) + "\n")
        show(rows)
    draw(rows, output / "scale.png")
    print(f"{output / 'scale.jsonl'}\n{output / 'scale.png'}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["grade"]:
        grade(Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4]))
    else:
        typer.run(main)
