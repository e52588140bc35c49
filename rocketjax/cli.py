"""The command line: one command per stage.

Exit codes: 0 complete, 1 error, 2 usage, 3 finished with items that have no grade, 130 interrupted.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from rocketjax import __version__
from rocketjax.errors import RocketError

# JAX takes seconds to import; every command imports the stages that it uses, so that --help answers at once.

DONE, FAILED, MISSING, INTERRUPTED = 0, 1, 3, 130
# Typer brings its own copy of click or uses the installed one: this is the base of its usage errors in both.
ClickException: type[Exception] = typer.BadParameter.__mro__[2]
DEMO = Path(__file__).parent / "bench" / "demo"

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda s: s.replace("_", "-"),
    },
    help="Judges the answers of language models with a small local model that answers checklists.",
)
screen = Console(stderr=True, highlight=False)

RunArg = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, made by rocketjax grade.")]
JudgeOpt = Annotated[
    str | None,
    typer.Option("--judge", "--model", "-j", metavar="J", help="Folder, .gguf file or org/name@revision on the "
                 "Hugging Face hub, each also with +ADAPTER. Left out: the embedded default."),
]  # fmt: skip
JsonOpt = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
DtypeOpt = Annotated[
    Literal["f32", "bf16"], typer.Option(help="f32 is exact; bf16 rounds weights and operands, and is faster on "
                                         "GPU, TPU and CPUs with bf16 units (see rocketjax doctor).")
]  # fmt: skip
ResumeOpt = Annotated[bool, typer.Option("--resume", help="Continue the run that is there.")]
OverwriteOpt = Annotated[bool, typer.Option("--overwrite", help="Remove the run that is there and begin anew.")]


def usage(message: str) -> NoReturn:
    """Ends with exit code 2."""
    raise typer.BadParameter(message)


def say(message: str) -> None:
    """A line for people, on standard error."""
    screen.print(message, markup=False, soft_wrap=True)


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False))


@app.callback(invoke_without_command=True)
def top(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(f"rocketjax {__version__}")
        raise typer.Exit(DONE)


@app.command()
def grade(
    bench: Annotated[Path, typer.Argument(metavar="BENCH", help="Folder in the RocketEval / WildBench layout.")],
    output: Annotated[Path, typer.Option("--output", "--output-path", "-o", metavar="RUN", help="The run folder.")],
    judge: JudgeOpt = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N queries.")] = None,
    models: Annotated[str | None, typer.Option(metavar="A,B", help="Only these models, with commas.")] = None,
    template: Annotated[
        Literal["native", "rocketeval"],
        typer.Option(help="native costs the fewest tokens; rocketeval is the published prompt."),
    ] = "native",
    dtype: DtypeOpt = "f32",
    overflow: Annotated[
        Literal["error", "truncate-middle", "skip"],
        typer.Option(help="What to do with a prompt over --max-tokens."),
    ] = "error",
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest prompt. Default: the judge's context, at most 8192.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(metavar="AUTHOR", help="Show the judge this author's reference answers.")
    ] = None,
    batch_size: Annotated[
        str,
        typer.Option(
            metavar="N|auto", help="Rows per device to collect before they are sent; changes speed, never a grade."
        ),
    ] = "auto",
    resume: ResumeOpt = False,
    overwrite: OverwriteOpt = False,
    as_json: JsonOpt = False,
) -> None:
    """Grades every checklist item of every response.

    Example: rocketjax grade bench/ -o runs/first --limit 10
    """
    if resume and overwrite:
        usage("--resume and --overwrite exclude each other")
    if batch_size != "auto" and not (batch_size.isdecimal() and int(batch_size) > 0):
        usage(f"--batch-size is {batch_size!r}; it takes a positive number or auto")
    from rocketjax.bench import load_benchmark

    chosen = [name for name in models.split(",") if name] if models is not None else None
    if chosen is not None and not chosen:
        usage("--models names no model")
    benchmark = load_benchmark(bench).select(chosen, limit)
    code = run_grading(
        benchmark,
        output,
        judge,
        dtype,
        as_json,
        template=template,
        overflow=overflow,
        max_tokens=max_tokens,
        reference=reference,
        batch_rows=None if batch_size == "auto" else int(batch_size),
        mode="resume" if resume else "overwrite" if overwrite else "new",
    )
    raise typer.Exit(code)


def run_grading(
    benchmark: Any,
    output: Path,
    judge: str | None,
    dtype: Literal["f32", "bf16"],
    as_json: bool,
    **options: Any,
) -> int:
    """Grades with a progress line, prints the summary, and returns the exit code."""
    from rocketjax.grade import OK, Judge, Work, excluded

    for reason, count in excluded(benchmark).items():
        say(f"left out: {count} {EXCLUDED.get(reason, reason)}")
    begun = time.perf_counter()
    loaded = Judge.load(judge, dtype, say)
    loading = time.perf_counter() - begun
    last = Work()

    with progress_line() as show:

        def progress(work: Work) -> None:
            nonlocal last
            last = work
            show(work)

        run = loaded.grade(benchmark, output, progress=progress, **options)
    counts = run.status()
    missing = sum(n for status, n in counts.items() if status != OK)
    mass = [m for m in run.grades["answer_mass"].to_pylist() if m is not None]
    summary = {
        "run": str(run.path),
        "judge": loaded.origin,
        "items": sum(counts.values()),
        "status": counts,
        "mean_answer_mass": sum(mass) / len(mass) if mass else None,
        "low_answer_mass": sum(m < LOW_MASS for m in mass),
        "load_seconds": loading,
        **{f"session_{k}": v for k, v in vars(last).items()},
    }
    if as_json:
        print_json(summary)
    else:
        report(summary, last, loading)
    return MISSING if missing else DONE


LOW_MASS = 0.1  # P(Yes) + P(No) below this: the judge had something else to say
EXCLUDED = {
    "no_checklist": "queries without a checklist",
    "empty_checklist": "queries with an empty checklist",
    "missing_response": "missing responses (their items are kept with status missing_response)",
    "unknown_session": "rows of sessions that the benchmark does not have",
    "unknown_model": "label files of models without responses",
    "duplicate_session": "rows of sessions whose id stands for different queries",
    "no_score": "labels without a score",
}


def report(summary: dict[str, Any], work: Any, loading: float) -> None:
    """What a grading session did and where its time went."""
    say(f"graded {summary['items']:,} items into {summary['run']} with {summary['judge']}")
    for status, n in summary["status"].items():
        if status != "ok":
            say(f"  without a grade: {n:,} ({status})")
    if work.truncated:
        say(f"  cut in the middle to fit: the prompts of {work.truncated:,} items")
    if work.defused:
        say(f"  defused: {work.defused} imitations of the template's delimiters")
    if summary["mean_answer_mass"] is not None:
        say(
            f"  answer mass P(Yes)+P(No): {summary['mean_answer_mass']:.3f} on average, "
            f"below {LOW_MASS} for {summary['low_answer_mass']:,} items"
        )
    if work.tokens:
        rate = work.items / work.seconds
        say(
            f"  {work.items:,} items in {work.seconds:.1f} s ({rate:.1f}/s): {work.tokens:,} tokens computed, "
            f"{work.naive_tokens / work.tokens:.1f} times fewer than whole prompts; "
            f"rows {work.tokens / work.padded_tokens:.0%} full"
        )
        other = work.seconds - work.prepare - work.compile - work.compute - work.write
        say(
            f"  time: load {loading:.1f} s, tokenise and pack {work.prepare:.1f}, compile {work.compile:.1f} "
            f"({len(work.compiled)} programs), compute {work.compute:.1f}, write {work.write:.1f}, other {other:.1f}"
        )


@contextlib.contextmanager
def progress_line() -> Iterator[Callable[[Any], None]]:
    """A live line on a terminal, nothing elsewhere."""
    if not screen.is_terminal:
        yield lambda work: None
        return
    columns = (
        TextColumn("grading"), BarColumn(), MofNCompleteColumn(), TextColumn("items"),
        TextColumn("{task.fields[rate]}"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=screen, transient=True) as bar:
        task = bar.add_task("", total=None, rate="")

        def show(work: Any) -> None:
            rate = f"{work.items / work.seconds:.1f} items/s, {work.tokens / work.seconds:,.0f} tokens/s"
            bar.update(task, total=work.items_total, completed=work.items, rate=rate)

        yield show


@contextlib.contextmanager
def tuning_line() -> Iterator[Callable[[Any], None]]:
    """A live line on a terminal; elsewhere a line every 50 steps."""
    if not screen.is_terminal:
        yield lambda p: say(tuning_state(p)) if p.step % 50 == 0 or p.step == p.steps else None
        return
    columns = (
        TextColumn("tuning"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"),
        TextColumn("{task.fields[state]}"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=screen, transient=True) as bar:
        task = bar.add_task("", total=None, state="")
        yield lambda p: bar.update(task, total=p.steps, completed=p.step, state=tuning_state(p, short=True))


def tuning_state(p: Any, short: bool = False) -> str:
    """Where training is, in one line."""
    state = f"loss {p.loss:.3f}, {p.tokens / p.seconds:,.0f} tokens/s"
    if short:
        return state
    sources = ", ".join(f"{n} {f['auc']:.3f}" for n, f in p.held_out.items() if f.get("auc") is not None)
    return f"step {p.step} of {p.steps}, {state}" + (f"; held-out AUC: {sources}" if sources else "")


@app.command()
def score(run: RunArg, as_json: JsonOpt = False) -> None:
    """Turns the grades of a run into scores: 9 * mean(p_yes) + 1 per response.

    Example: rocketjax score runs/first
    """
    from rocketjax.grade import Run
    from rocketjax.reweight import score as score_run

    table = score_run(Run.open(run))
    empty = table["score"].null_count
    if as_json:
        print_json({"run": str(run), "scores": table.num_rows, "without_score": empty})
    else:
        say(f"wrote {run / 'scores.parquet'}: {table.num_rows:,} responses, {empty:,} of them without a score")
    raise typer.Exit(MISSING if empty else DONE)


@app.command()
def rank(run: RunArg, as_json: JsonOpt = False) -> None:
    """Ranks the models of a scored run by their mean score.

    Example: rocketjax rank runs/first
    """
    from rocketjax.grade import Run
    from rocketjax.rank import rank_models

    ranking = rank_models(Run.open(run))
    print_json(ranking) if as_json else print(ranking)


@app.command()
def export(
    run: RunArg,
    format: Annotated[Literal["rocketeval"], typer.Option(help="The format to write.")] = "rocketeval",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder. Default: RUN/export/FORMAT.")] = None,
) -> None:
    """Writes judgments and scores as other tools read them.

    Example: rocketjax export runs/first --format rocketeval
    """
    from rocketjax.grade import Run
    from rocketjax.report import export as export_run

    say(f"wrote {export_run(Run.open(run), format, output)}")


@app.command()
def convert(
    source: Annotated[str, typer.Argument(metavar="J", help="A judge, as for rocketjax grade --judge.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make.")],
    dtype: DtypeOpt = "f32",
) -> None:
    """Writes a judge as an Orbax checkpoint with its tokenizer; the folder is a judge again.

    Example: rocketjax convert org/name judges/name
    """
    from rocketjax.judge import convert as convert_judge
    from rocketjax.judge import locate

    checkpoint = locate(source, say)
    convert_judge(checkpoint, output, dtype)
    say(f"wrote {output} from {checkpoint.origin}")


@app.command()
def tune(
    output: Annotated[
        Path, typer.Option("--output", "--output-path", "-o", metavar="OUT", help="The tuning's folder.")
    ],
    benches: Annotated[
        list[Path] | None,
        typer.Argument(metavar="BENCH...", help="Labelled benchmarks to learn from; they replace those of --config."),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            "--judge",
            "--model",
            "-j",
            metavar="J",
            help="The judge to begin with, as for grade. Left out: "
            "default-base, the default judge before its own tuning.",
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Recipe file (TOML); options given here beat it.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(metavar="LABELER", help="Whose labels; not needed if there is one.")
    ] = None,
    items: Annotated[float | None, typer.Option(min=0, help="Weight of the item labels. (default 1)")] = None,
    pairs: Annotated[
        float | None, typer.Option(min=0, help="Weight of the order of two responses' scores. (default 0)")
    ] = None,
    scores: Annotated[
        float | None, typer.Option(min=0, help="Weight of responses' scores, through the head. (default 0)")
    ] = None,
    share: Annotated[float | None, typer.Option(help="Times that each response is seen per epoch. (default 1)")] = None,
    mismatched: Annotated[
        float | None, typer.Option(min=0, help="Responses to other queries put in, per response. (default 0)")
    ] = None,
    balance: Annotated[bool | None, typer.Option("--balance", help="Give yes and no the same total weight.")] = None,
    prior: Annotated[
        Literal["mixed", "natural"] | None,
        typer.Option(help="natural: take out of the loss what --mismatched does to the odds of yes. (default mixed)"),
    ] = None,
    even_lengths: Annotated[
        bool | None, typer.Option("--even-lengths", help="Longer and shorter responses win equally, by weight.")
    ] = None,
    reference: Annotated[
        Literal["none", "support", "drop"] | None,
        typer.Option(help="Show reference answers: never, always, half of the time."),
    ] = None,
    method: Annotated[Literal["lora", "full"] | None, typer.Option(help="Adapters, or all weights.")] = None,
    rank: Annotated[int | None, typer.Option(min=1, help="Rank of the adapters. (default 16)")] = None,
    alpha: Annotated[float | None, typer.Option(help="Adapters are scaled by alpha / rank. (default 32)")] = None,
    targets: Annotated[
        str | None, typer.Option(metavar="A,B", help="Projections to adapt, e.g. q_DNH,v_DKH. (default all)")
    ] = None,
    init: Annotated[
        Literal["lora", "eva"] | None, typer.Option(help="Random, or the activations' singular vectors.")
    ] = None,
    first_layer: Annotated[
        int | None, typer.Option(min=0, help="Layers below it stay as they are. (default 0)")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", "--lr", help="(default 5e-4)")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="(default 1)")] = None,
    batch_tokens: Annotated[int | None, typer.Option(min=1, help="Of an optimizer step. (default 6144)")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest prompt; longer ones are cut in the middle. (default 768)")
    ] = None,
    held_out: Annotated[float | None, typer.Option(help="Part of the queries never trained on. (default 0.1)")] = None,
    patience: Annotated[
        int | None, typer.Option(min=0, help="Stop after so many evaluations without gain. (default 0, never)")
    ] = None,
    remat: Annotated[bool | None, typer.Option("--remat", help="Less memory, a third more time.")] = None,
    seed: Annotated[int | None, typer.Option(help="(default 0)")] = None,
    dtype: DtypeOpt = "bf16",
    resume: ResumeOpt = False,
    overwrite: OverwriteOpt = False,
    as_json: JsonOpt = False,
) -> None:
    """Trains a judge on labelled benchmarks: adapters (OUT/adapter) or all weights (OUT/judge).

    Example: rocketjax tune bench/ --labels human -o tuned, then rocketjax grade bench2/ -o runs/x
    --judge default-base+tuned/adapter
    """
    if resume and overwrite:
        usage("--resume and --overwrite exclude each other")
    from rocketjax.grade import Judge
    from rocketjax.judge import BASE
    from rocketjax.tune import RecipeFile, SourceEntry, load_sources, make_recipe, read_recipe
    from rocketjax.tune import tune as tune_judge

    file = read_recipe(config) if config else RecipeFile()
    per_source = {
        "labeler": labels, "share": share, "mismatched": mismatched, "items": items, "pairs": pairs, "scores": scores,
        "balance": balance, "prior": prior, "even_lengths": even_lengths, "reference": reference,
    }  # fmt: skip
    given: dict[str, Any] = {k: v for k, v in per_source.items() if v is not None}
    if benches:
        try:
            entries = [SourceEntry(path=str(bench.absolute()), **given) for bench in benches]
        except ValueError as e:
            usage(str(e))
    elif given:
        usage(f"--{next(iter(given)).replace('labeler', 'labels')} is about the benchmarks given here; name some")
    else:
        entries = file.source
    if not entries:
        usage("name a benchmark to learn from, or a --config with [[source]] tables")
    sources = load_sources(entries, config.parent if config else Path())
    flags = {
        "method": method, "rank": rank, "alpha": alpha, "init": init, "first_layer": first_layer,
        "targets": None if targets is None else [t for t in targets.split(",") if t], "learning_rate": learning_rate,
        "epochs": epochs, "batch_tokens": batch_tokens, "max_tokens": max_tokens, "held_out": held_out,
        "patience": patience, "remat": remat, "seed": seed,
    }  # fmt: skip
    recipe = make_recipe(
        {**file.recipe, **{k: v for k, v in flags.items() if v is not None}}, str(config) if config else "options"
    )
    loaded = Judge.load(judge or file.judge or BASE, dtype, say)
    with tuning_line() as show:
        result = tune_judge(
            loaded, sources, output, recipe, "resume" if resume else "overwrite" if overwrite else "new", show
        )
    if as_json:
        print_json({f: getattr(result, f) for f in result.__struct_fields__})
        return
    say(f"{result.steps} steps; the best on held-out queries was step {result.best_step}: {result.path}")
    for name, figures in result.held_out["held_out"].items():
        say(f"  {name}: " + ", ".join(f"{k} {v:.3f}" for k, v in figures.items() if isinstance(v, float)))
    if not (output / "loss.png").exists():
        say("loss.png was not drawn: pip install 'rocketjax[plot]'")
    if recipe.method == "lora":
        say(f"use it with --judge {judge or file.judge or BASE}+{result.path}")


@app.command("import")
def import_(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="alpacaeval, hellobench, infobench, judgebench, llmbar, "
            "mtbench, pandalm, prometheus, realsumm, structflowbench or wildbench.",
        ),
    ],
    path: Annotated[Path, typer.Argument(metavar="PATH", help="File or folder as its authors publish it.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="The benchmark's folder to make.")],
    item: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The one question about responses without a checklist.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the import that is there.")] = False,
    as_json: JsonOpt = False,
) -> None:
    """Turns a public data set into a benchmark with its labels.

    Example: rocketjax import llmbar LLMBar/Dataset bench/llmbar
    """
    from rocketjax.bench import import_benchmark

    imported = import_benchmark(name, path, output, item=item, overwrite=overwrite)
    if as_json:
        print_json({field: getattr(imported, field) for field in imported.__struct_fields__})
        return
    say(
        f"wrote {output}: {imported.sessions:,} queries with {imported.items:,} items, "
        f"{imported.responses:,} responses of {imported.models:,} responders, {imported.scores:,} scores; "
        f"labels of items: {imported.yes:,} yes, {imported.no:,} no, {imported.undecided:,} undecided"
    )
    for reason, count in imported.left_out.items():
        say(f"left out: {count:,} {reason.replace('_', ' ')}")


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="RUN", help="The run folder.")] = Path(
        "rocketjax-demo"
    ),
    judge: JudgeOpt = None,
    dtype: DtypeOpt = "f32",
    overwrite: OverwriteOpt = False,
    as_json: JsonOpt = False,
) -> None:
    """Grades the embedded benchmark and shows the ranking beside its authors' own; continues a run that is there.

    Example: rocketjax demo
    """
    from rocketjax.bench import load_benchmark
    from rocketjax.grade import Run
    from rocketjax.rank import rank_models
    from rocketjax.reweight import score as score_run

    benchmark = load_benchmark(DEMO)
    code = run_grading(benchmark, output, judge, dtype, False, mode="overwrite" if overwrite else "resume")
    run = Run.open(output)
    score_run(run)
    ranking = rank_models(run)
    labels = benchmark.labels["author"]
    truth = {
        model: sum(label.score or 0.0 for label in by_session.values()) / len(by_session)
        for model, by_session in labels.items()
    }
    if as_json:
        print_json([{**row, "author": truth[row["model"]]} for row in ranking])
        raise typer.Exit(code)
    place = {model: i + 1 for i, model in enumerate(sorted(truth, key=lambda m: -truth[m]))}
    table = Table(title=f"{ranking.sessions} queries, {len(truth)} responders, mean score from 1 to 10")
    for name in ("rank", "model", "judge's score", "author's score", "author's rank"):
        table.add_column(name, justify="left" if name == "model" else "right")
    for row in ranking:
        model = row["model"]
        table.add_row(str(row["rank"]), model, f"{row['score']:.2f}", f"{truth[model]:.2f}", str(place[model]))
    Console().print(table)
    raise typer.Exit(code)


@app.command()
def doctor(as_json: JsonOpt = False) -> None:
    """Says what this machine has: devices, versions, memory, cache folders, the default judge, matmul speed.

    Example: rocketjax doctor
    """
    from rocketjax.doctor import examine

    facts = examine()
    if as_json:
        print_json(facts)
    else:
        for name, value in facts.items():
            print(f"{name + ':':<22}{value}")


# RocketEval's own verbs.
app.command("judgment", hidden=True)(grade)
app.command("ranking", hidden=True)(rank)


def main() -> None:
    """The entry point: a user's mistake is one line on standard error, never a traceback."""
    try:
        code = app(standalone_mode=False)
    except RocketError as e:
        say(f"error: {e}")
        code = FAILED
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except ClickException as e:
        e.show()  # type: ignore[attr-defined]
        code = e.exit_code  # type: ignore[attr-defined]
    except MemoryError:
        say("error: out of memory")
        code = FAILED
    except OSError as e:
        if isinstance(e, BrokenPipeError):
            # Whoever read our output has left; keep the interpreter from failing again on exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = DONE
        else:
            say(f"error: {e}")
            code = FAILED
    if code == INTERRUPTED:
        say("interrupted; what was done is kept, the same command with --resume continues it")
    sys.exit(code)
