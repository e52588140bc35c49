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
GradeDtypeOpt = Annotated[
    Literal["f32", "bf16", "int8"],
    typer.Option(help="f32 is exact; bf16 rounds weights and operands, and is faster on GPU, TPU and CPUs with bf16 "
                 "units (see rocketjax doctor); int8 rounds weights further, for judges too big otherwise."),
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
    dtype: GradeDtypeOpt = "f32",
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
    profile: Annotated[
        bool, typer.Option("--profile", help="Say where the time went, and measure this machine's matmul peak.")
    ] = False,
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
        profile,
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
    dtype: Literal["f32", "bf16", "int8"],
    as_json: bool,
    profile: bool = False,
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
    if profile:
        summary["profile"] = profile_of(last, loading, dtype)
    if as_json:
        print_json(summary)
    else:
        report(summary, last, loading)
        if profile:
            show_profile(summary["profile"], last)
    return MISSING if missing else DONE


FALSE_DISCOVERIES = 0.05  # share of the items shown as unfair to a family that may be so by chance
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
        other = work.seconds - work.wait - work.compile - work.transfer - work.compute - work.write
        say(
            f"  time: load {loading:.1f} s, wait for text {work.wait:.1f}, compile {work.compile:.1f} "
            f"({len(work.compiled)} programs), compute {work.compute:.1f}, transfer {work.transfer:.1f}, "
            f"write {work.write:.1f}, other {other:.1f}"
        )


def profile_of(work: Any, loading: float, dtype: str) -> dict[str, Any]:
    """Seconds by stage, and the rate beside the measured peak of one matrix product in the same dtype.

    The rate counts useful FLOPs only (`rocketjax.grade.row_flops`), over all of the session but compilation.
    """
    import jax
    import jax.numpy as jnp

    from rocketjax.doctor import matmul_flops

    stages = ("wait", "compile", "transfer", "compute", "write")
    seconds = {name: getattr(work, name) for name in stages}
    busy = work.seconds - work.compile
    # One product at a time uses all cores of a CPU, but one of several accelerators.
    devices = 1 if jax.default_backend() == "cpu" else jax.local_device_count()
    exact = dtype == "f32" or (dtype == "int8" and jax.default_backend() == "cpu")  # the products' operands
    peak = devices * matmul_flops(jnp.float32 if exact else jnp.bfloat16)
    rate = work.flops / busy if busy > 0 else 0.0
    return {
        "seconds": {
            "load": loading, **seconds, "other": work.seconds - sum(seconds.values()), "in all": loading + work.seconds,
        },
        "ahead_seconds": {"tokenise": work.tokenise, "pack": work.pack},
        "ms_per_item": 1e3 * busy / work.items if work.items else None,
        "tokens_per_item": work.tokens / work.items if work.items else None,
        "flops": work.flops,
        "flops_per_second": rate,
        "matmul_peak": peak,
        "share_of_peak": rate / peak,
        "rows": {str(n): {"rows": r, "tokens": t, "full": t / (r * n)} for n, (r, t) in sorted(work.lengths.items())},
    }  # fmt: skip


def show_profile(profile: dict[str, Any], work: Any) -> None:
    """The same for people."""
    say("  where the time went, seconds:")
    notes = {
        "wait": "for rows: the text thread was behind",
        "compile": f"{len(work.compiled)} programs; kept for the next run",
        "transfer": "rows to the device, answers back",
        "compute": "calling programs, and waiting for them",
    }
    for name, seconds in profile["seconds"].items():
        say(f"    {name:<9}{seconds:9.2f}  {notes.get(name, '')}".rstrip())
    for name, seconds in profile["ahead_seconds"].items():
        say(f"    {name:<9}{seconds:9.2f}  on the text thread, beside the device's work")
    for length, row in profile["rows"].items():
        say(f"    rows of {length:>5} tokens: {row['rows']:,}, {row['full']:.0%} full")
    if work.flops:
        say(
            f"  {profile['ms_per_item']:.1f} ms and {profile['tokens_per_item']:.0f} tokens per item; "
            f"{profile['flops_per_second'] / 1e9:,.1f} GFLOP/s, {profile['share_of_peak']:.0%} of the measured matmul "
            f"peak ({profile['matmul_peak'] / 1e9:,.1f})"
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


LabelsOpt = Annotated[str, typer.Option("--labels", metavar="LABELER", help="Whose scores.")]
BenchOpt = Annotated[
    Path | None,
    typer.Option("--bench", metavar="BENCH", help="The benchmark's folder. Default: where it lay when it was graded."),
]


@app.command()
def fit(
    run: RunArg,
    labels: LabelsOpt,
    head: Annotated[str, typer.Option(help="ridge, shared, calibrated, pairwise or soft-trees.")] = "ridge",
    train_models: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Train on these models' labels only: a name per line.")
    ] = None,
    folds: Annotated[
        int | None, typer.Option(min=2, help="Else every model is scored by a head fitted on other folds. (default 5)")
    ] = None,
    monotone: Annotated[bool, typer.Option("--monotone", help="No item weight below 0.")] = False,
    rank_weight: Annotated[float, typer.Option(min=0, help="Weight of a soft Spearman loss beside the fit's.")] = 0.0,
    judge: JudgeOpt = None,
    bench: BenchOpt = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Default: RUN/heads/HEAD@LABELER.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the head that is there.")] = False,
    as_json: JsonOpt = False,
) -> None:
    """Fits a head, item weights that agree with a labeler's scores. `shared` reads the judge's hidden states.

    Example: rocketjax fit runs/first --labels gpt-4, then rocketjax score runs/first --head ridge
    """
    if train_models is not None and folds is not None:
        usage("--train-models and --folds exclude each other")
    from rocketjax.grade import Run
    from rocketjax.reweight import features_of, fit_head, folder_name, labels_of, panel, save_head

    opened = Run.open(run)
    benchmark = benchmark_of(opened, bench)
    scores = labels_of(benchmark, labels)
    target = output or run / "heads" / folder_name(head, labels, monotone, rank_weight)
    if target.exists() and not overwrite:
        raise RocketError(f"{target}: is there already; use --overwrite, or -o for another folder")
    features = None
    if head == "shared":
        make_features(opened, benchmark, judge)
        features = features_of(opened, panel(opened))
    elif judge is not None:
        usage("--judge gives the hidden states for --head shared; the other heads read grades only")
    models = None if train_models is None else read_names(train_models)
    with counting("fitting", "fits") as show:
        fitted = fit_head(
            opened, scores, labels, head, train_models=models, folds=folds or 5, monotone=monotone,
            rank_weight=rank_weight, features=features, progress=show,
        )  # fmt: skip
    saved = save_head(fitted, target, overwrite)
    summary = {
        "head": str(target), "labeler": labels, "trained_on": saved.trained_on,
        "folds": len(set(saved.folds.values())), **saved.meta["figures"],
    }  # fmt: skip
    if as_json:
        print_json(summary)
        return
    say(f"wrote {target}: {summary['labels']:,} labels of {len(saved.trained_on)} models on "
        f"{summary['queries_with_labels']:,} queries")  # fmt: skip
    say("  each model is scored by a fit that has not seen its labels" if saved.folds
        else "  the training models are left out of the scores")  # fmt: skip
    for reason, n in summary["labels_not_used"].items():
        say(f"  labels not used: {n:,} ({reason})")
    say(f"use it with rocketjax score {run} --head {target.name if output is None else target}")


@app.command()
def heads(
    run: RunArg,
    labels: LabelsOpt,
    splits: Annotated[int, typer.Option(min=2, help="Random splits of the models.")] = 20,
    part: Annotated[float, typer.Option(help="Part of the models that is trained on.")] = 0.5,
    per_query: Annotated[int | None, typer.Option(min=1, help="At most so many labels for each query.")] = None,
    only: Annotated[str | None, typer.Option(metavar="A,B", help="These heads only.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the splits.")] = 0,
    bench: BenchOpt = None,
    as_json: JsonOpt = False,
) -> None:
    """Compares all heads on the same splits: fitted on some models' labels, judged on the others.

    Example: rocketjax heads runs/first --labels gpt-4
    """
    if not 0 < part < 1:
        usage(f"--part is {part}; it must be between 0 and 1")
    chosen = None if only is None else [h for h in only.split(",") if h]
    if chosen == []:
        usage("--only names no head")
    from rocketjax.grade import Run
    from rocketjax.reweight import as_rows, compare, features_of, labels_of, panel

    opened = Run.open(run)
    cells = panel(opened, labels_of(benchmark_of(opened, bench), labels))
    for reason, n in cells.dropped.items():
        say(f"labels not used: {n:,} ({reason})")
    with counting("comparing", "splits") as show:
        found = compare(cells, chosen, splits, seed, part, per_query, features_of(opened, cells), show)
    rows = as_rows(found)
    if as_json:
        print_json(rows)
        return
    title = f"{len(cells.sessions)} queries, {len(cells.labelled_models())} labelled models, {splits} splits: "
    table = Table(title=title + "mean and 95% range over the splits")
    names = {"head": "head", "spearman": "Spearman", "kendall": "Kendall", "pairwise": "pairwise", "mae": "MAE"}
    for key, name in names.items():
        table.add_column(name, justify="left" if key == "head" else "right")
    for row in rows:
        cells_ = ["-" if row[k][0] is None else "{:.3f} [{:.3f}, {:.3f}]".format(*row[k]) for k in list(names)[1:]]
        table.add_row(row["head"], *cells_)
    for row in rows:
        if row["failed"]:
            say(f"{row['head']}: {row['failed']}")
    # A pipe has no width, and figures must not be cut there.
    (Console() if sys.stdout.isatty() else Console(width=140)).print(table)


@app.command()
def score(
    run: RunArg,
    head: Annotated[
        str | None, typer.Option(help="mean (default), label-free, or a head that rocketjax fit made: name or folder.")
    ] = None,
    abstain: Annotated[
        float | None, typer.Option(metavar="E", help="Mark scores with a standard error above E.")
    ] = None,
    score_train: Annotated[
        bool, typer.Option("--score-train", help="Score the models that the head was trained on, too.")
    ] = False,
    jury: Annotated[
        list[Path] | None, typer.Option(metavar="RUN", help="Another judge's run, for --head label-free; repeatable.")
    ] = None,
    compat: Annotated[
        Literal["rocketeval"] | None, typer.Option(help="RocketEval's own scores, its trees and blend with --labels.")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option("--labels", metavar="LABELER", help="For --compat, and to print a risk-coverage curve."),
    ] = None,
    train_models: Annotated[
        Path | None, typer.Option(metavar="FILE", help="For --compat: the models trained on, a name per line.")
    ] = None,
    bench: BenchOpt = None,
    as_json: JsonOpt = False,
) -> None:
    """Turns the grades of a run into scores: 9 * mean(p_yes) + 1 per response, or by a fitted head.

    Example: rocketjax score runs/first --head ridge --abstain 1.5
    """
    if compat:
        if head is not None or abstain is not None or score_train or jury:
            usage("--compat is RocketEval's way alone: without --head, --abstain, --score-train and --jury")
        if (labels is None) != (train_models is None):
            usage("--compat takes --labels and --train-models together, or neither")
    elif train_models is not None:
        usage("--train-models is for --compat; fit has its own")
    elif labels is not None and abstain is None:
        usage("--labels is for --compat, and with --abstain for a risk-coverage curve; fit reads labels")
    if bench is not None and labels is None:
        usage("--bench is where --labels are")
    from rocketjax.grade import Run
    from rocketjax.reweight import about_scores, labels_of, score_compat
    from rocketjax.reweight import score as score_run

    opened = Run.open(run)
    given = labels_of(benchmark_of(opened, bench), labels) if labels else None
    curve = None
    if compat:
        models = None if train_models is None else read_names(train_models)
        table = score_compat(opened, given, labels, models)
    else:
        table = score_run(
            opened, head, abstain=abstain, score_train=score_train, jury=[Run.open(other) for other in jury or ()]
        )
        if given is not None and abstain is not None:
            curve = coverage(table, given, abstain)
    about = about_scores(table)
    empty = table["score"].null_count
    marked = sum(table["abstained"].to_pylist())
    summary = {"run": str(run), "scores": table.num_rows, "without_score": empty, "abstained": marked, **about}
    if curve:
        summary["risk_coverage"] = curve
    if as_json:
        print_json(summary)
    else:
        say(f"wrote {run / 'scores.parquet'}: {table.num_rows:,} responses, {empty:,} of them without a score")
        say(f"  head {about['head']}" + (f", fitted to {about['labeler']}" if about.get("labeler") else ""))
        if about.get("compat"):
            say(f"  RocketEval's own scores (--compat {about['compat']})")
        if about.get("left_out"):
            say(f"  left out, trained on: {', '.join(about['left_out'])}")
        if about.get("scored_by_a_head_that_saw_its_labels"):
            saw = ", ".join(about["scored_by_a_head_that_saw_its_labels"])
            say(f"  scored by a head that was trained on their own labels: {saw}")
        for name, share in about.get("jury", {}).items():
            say(f"  {share:.0%} of the weight: {name}")
        if abstain is not None:
            say(f"  abstained: {marked:,}, whose standard error is above {abstain:g}")
        if curve:
            say("  kept  mean absolute error (all of them: {:.3f})".format(curve["all"]))
            for row in curve["curve"]:
                say(f"  {row['coverage']:>4.0%}  {row['risk']:.3f}   standard error up to {row['threshold']:.3f}")
    raise typer.Exit(MISSING if empty else DONE)


def coverage(table: Any, labels: Any, abstain: float) -> dict[str, Any]:
    """The risk-coverage curve of scored, labelled responses, at ten places and at the threshold."""
    import numpy as np

    from rocketjax.reweight import risk_coverage

    rows = [r for r in table.to_pylist() if labels.get(r["model"], {}).get(r["session_id"]) is not None]
    column = [[np.nan if r[k] is None else r[k] for r in rows] for k in ("score", "standard_error")]
    label = [labels[r["model"]][r["session_id"]] for r in rows]
    found = risk_coverage(*(np.asarray([x], float) for x in (*column, label)))
    if not len(found.risk):
        raise RocketError("no scored response has a label and a standard error, so there is no risk to draw")
    places = [max(0, round(len(found.risk) * k / 10) - 1) for k in range(1, 11)]
    kept = int(np.searchsorted(found.threshold, abstain, side="right"))
    return {
        "all": found.random,
        "area": found.area,
        "kept": kept / len(found.risk),
        "risk_of_kept": float(found.risk[kept - 1]) if kept else None,
        "curve": [
            {"coverage": float(found.coverage[i]), "risk": float(found.risk[i]), "threshold": float(found.threshold[i])}
            for i in dict.fromkeys(places)
        ],
    }


def benchmark_of(run: Any, bench: Path | None) -> Any:
    """The benchmark that a run graded, from where it lies; RocketError if it is not there or another one."""
    from rocketjax.bench import load_benchmark
    from rocketjax.grade import restrict

    path = bench or run.benchmark_path
    if path is None:
        raise RocketError(f"{run.path}: does not say where its benchmark lies; give --bench BENCH")
    if bench is None and not path.is_dir():
        raise RocketError(f"{path}: the benchmark is no longer there; give --bench BENCH")
    return restrict(load_benchmark(path), run)


def make_features(run: Any, benchmark: Any, judge: str | None) -> None:
    """Writes features.parquet, unless it is there: what the run's judge makes of every item."""
    from rocketjax.grade import Judge, item_features
    from rocketjax.reweight import features_judge, save_features

    there = features_judge(run)
    if there is not None and judge is None:
        return
    dtype: Literal["f32", "bf16", "int8"] = run.meta["judge"]["dtype"] or "f32"
    loaded = Judge.load(judge, dtype, say)
    if not run.recorded and loaded.sha256 != run.meta["judge"]["weights_sha256"]:
        raise RocketError(
            f"{run.path}: was graded by {run.meta['judge']['origin']}, not by {loaded.origin}; name it with --judge"
        )
    if there is not None:
        if there != loaded.sha256:
            raise RocketError(f"{run.path}: has another judge's hidden states; delete its features.parquet first")
        return
    say(f"reading the hidden states of {sum(len(c.items) for c in benchmark.checklists.values()):,} items")
    save_features(run, item_features(loaded, benchmark, run.meta["prompt"].get("template", "native")), loaded.sha256)


def read_names(file: Path) -> list[str]:
    """A name per line, or a JSON list of names or of objects with `model` or `name`; blank lines are nothing."""
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise RocketError(f"{file}: cannot be read ({e})") from None
    names = [line.strip() for line in text.splitlines() if line.strip()]
    if text.lstrip().startswith("["):
        try:
            listed = json.loads(text)
        except ValueError as e:
            raise RocketError(f"{file}: is no JSON list ({e})") from None
        found = [x.get("model", x.get("name")) if isinstance(x, dict) else x for x in listed]
        names = [x for x in found if isinstance(x, str)]
        if len(names) < len(found):
            raise RocketError(f"{file}: is a JSON list, but not one of names")
    if not names:
        raise RocketError(f"{file}: names no model")
    return names


@contextlib.contextmanager
def counting(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A live line on a terminal, nothing elsewhere."""
    if not screen.is_terminal:
        yield lambda done, total: None
        return
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, total=total, completed=done)


@app.command()
def items(
    run: RunArg,
    labels: Annotated[str | None, typer.Option("--labels", metavar="LABELER", help="Whose scores.")] = None,
    head: Annotated[str | None, typer.Option(help="A fitted linear head: its weights are shown.")] = None,
    families: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="JSON object, model to family. Default: the name up to its first non-letter."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the whole table: .csv or .parquet.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Items to show of each kind.")] = 8,
    bench: BenchOpt = None,
    as_json: JsonOpt = False,
) -> None:
    """What each checklist item is worth: yes-rate, discrimination, agreement, weight; dead and harmful ones first.

    Example: rocketjax items runs/first --labels gpt-4 --head ridge -o items.csv
    """
    if output is not None and output.suffix not in (".csv", ".parquet"):
        usage(f"--output is {output}; it takes a name that ends in .csv or .parquet")
    from rocketjax.grade import Run, write_atomically, write_table
    from rocketjax.reweight import find_head, item_table, labels_of, load_head, panel, require_questions

    opened = Run.open(run)
    benchmark = benchmark_of(opened, bench)
    cells = panel(opened, labels_of(benchmark, labels) if labels else None)
    weights = None
    if head is not None:
        loaded = load_head(find_head(opened, head))
        require_questions(loaded, opened, cells)
        weights = loaded.weights()
        if weights is None:
            raise RocketError(f"head {head!r} is not linear, so its items have no weights")
    named = None
    if families is not None:
        try:
            named = json.loads(families.read_text("utf-8"))
        except (OSError, ValueError) as e:
            raise RocketError(f"{families}: cannot be read ({e})") from None
        if not isinstance(named, dict) or not all(isinstance(v, str) for v in named.values()):
            raise RocketError(f"{families}: is no JSON object from model to family")
        strange = sorted(named.keys() - set(cells.models))
        if strange:
            raise RocketError(f"{families}: no model {strange[0]!r} in this run; it has: {', '.join(cells.models)}")
    table = item_table(cells, {s: c.items for s, c in benchmark.checklists.items()}, weights, named)
    if output is not None:
        if output.suffix == ".parquet":
            write_table(output, table)
        else:
            from pyarrow import csv

            write_atomically(output, lambda file: csv.write_csv(table, file))
    rows = table.to_pylist()
    if as_json:
        print_json(rows)
        return
    count = {kind: sum(r["verdict"] == kind for r in rows) for kind in ("dead", "hurts")}
    others = len(rows) - sum(count.values())
    say(f"{len(rows):,} items: {count['dead']:,} dead, {count['hurts']:,} that hurt, {others:,} others"
        + ("" if labels or head else "; without --labels or --head none is known to hurt"))  # fmt: skip
    shown = Table(title="dead and harmful items, and items that treat a family of models differently")
    for name in ("query", "item", "verdict", "mean p", "discrimination", "agreement", "weight", "family"):
        shown.add_column(name, justify="left" if name in ("query", "verdict", "family") else "right")

    def differs(row: dict[str, Any]) -> bool:
        return row["family_q"] is not None and row["family_q"] < FALSE_DISCOVERIES

    def number(x: float | None) -> str:
        return "-" if x is None else f"{x:.2f}"

    hurting = sorted((r for r in rows if r["verdict"] == "hurts"), key=lambda r: r["weight"] or r["agreement"] or 0.0)
    dead = sorted((r for r in rows if r["verdict"] == "dead"), key=lambda r: r["deviation"] or 0.0)
    odd = sorted((r for r in rows if differs(r)), key=lambda r: r["family_q"])
    for row in [*hurting[:top], *dead[:top], *odd[:top]]:
        family = f"{row['family']} {row['family_shift']:+.2f}" if differs(row) else ""
        figures = (number(row[k]) for k in ("mean_p", "discrimination", "agreement", "weight"))
        shown.add_row(row["session_id"], str(row["item"]), row["verdict"], *figures, family)
    if shown.row_count:
        (Console() if sys.stdout.isatty() else Console(width=140)).print(shown)
    if output is not None:
        say(f"wrote {output}")


@app.command()
def ask(
    run: RunArg,
    labels: LabelsOpt,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many responses.")] = 20,
    models: Annotated[str | None, typer.Option(metavar="A,B", help="Only responses of these models.")] = None,
    bench: BenchOpt = None,
    as_json: JsonOpt = False,
) -> None:
    """Which responses to label next: those whose labels narrow the ranking the most.

    Example: rocketjax ask runs/first --labels me --count 20
    """
    from rocketjax.grade import Run
    from rocketjax.reweight import ask as ask_panel
    from rocketjax.reweight import labels_of, panel

    opened = Run.open(run)
    cells = panel(opened, labels_of(benchmark_of(opened, bench), labels))
    chosen = None if models is None else [m for m in models.split(",") if m]
    unknown = [m for m in chosen or () if m not in cells.models]
    if unknown:
        raise RocketError(f"no model {unknown[0]!r} in this run; it has: {', '.join(cells.models)}")
    found = ask_panel(cells, count, chosen)
    if as_json:
        print_json([{"session_id": s, "model": m, "gain": g} for s, m, g in found])
        return
    for session, model, gain in found:
        print(f"{session}\t{model}\t{gain:.2%}")
    say(f"these {len(found)} labels take {sum(g for _, _, g in found):.1%} of the ranking's variance away")


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
            "mtbench, pandalm, prometheus, realsumm, structflowbench or wildbench; or judgments, RocketEval's recorded "
            "ones, which become a run.",
        ),
    ],
    path: Annotated[Path, typer.Argument(metavar="PATH", help="File or folder as its authors publish it.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="The benchmark's folder to make.")],
    item: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The one question about responses without a checklist.")
    ] = None,
    bench: Annotated[
        Path | None, typer.Option(metavar="BENCH", help="For judgments: the benchmark that they are about.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the import that is there.")] = False,
    as_json: JsonOpt = False,
) -> None:
    """Turns a public data set into a benchmark with its labels, or recorded judgments into a run.

    Example: rocketjax import llmbar LLMBar/Dataset bench/llmbar
    """
    if (name == "judgments") != (bench is not None):
        usage("--bench goes with NAME judgments: the benchmark that they are about")
    if bench is not None:
        if item is not None:
            usage("--item is for data sets without checklists")
        import_judgments(bench, path, output, overwrite, as_json)
        return
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


def import_judgments(bench: Path, path: Path, output: Path, overwrite: bool, as_json: bool) -> None:
    """Recorded judgments into a run."""
    from rocketjax.bench import load_benchmark
    from rocketjax.grade import record

    run = record(load_benchmark(bench), path, output, "overwrite" if overwrite else "new")
    counts = run.status()
    if as_json:
        print_json({"run": str(run.path), "items": sum(counts.values()), "status": counts})
        return
    say(f"wrote {run.path}: {sum(counts.values()):,} recorded items of {len(run.meta['benchmark']['models'])} models")
    for status, n in counts.items():
        if status != "ok":
            say(f"  without a grade: {n:,} ({status})")


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
def judges(
    answers: Annotated[
        str | None, typer.Option(metavar="J", help="Instead, which tokens of this judge count as Yes and as No.")
    ] = None,
    as_json: JsonOpt = False,
) -> None:
    """Lists the judges that are known to load: family, size, and whether they are on this machine.

    Any other model of these families loads too. Example: rocketjax judges --answers default-base
    """
    if answers is not None:
        show_answers(answers, as_json)
        return
    from rocketjax.judge import known_judges

    found = known_judges()
    if as_json:
        print_json([vars(judge) for judge in found])
        return
    table = Table("judge", "family", "parameters", "size", "state", box=None, header_style="")
    for judge in found:
        count = f"{judge.parameters / 1e6:,.0f} M" if judge.parameters else ""
        table.add_row(judge.name, judge.family, count, f"{judge.size / 1e9:.2f} GB", judge.state)
    (Console() if sys.stdout.isatty() else Console(width=140)).print(table)


def show_answers(name: str, as_json: bool) -> None:
    """The vocabulary entries that `rocketjax grade` reads as Yes and as No, and how a prompt is dressed."""
    from rocketjax.judge import locate
    from rocketjax.prompt import chat_format, load_tokenizer

    tokenizer = load_tokenizer(locate(name, say, weights=False).path)
    yes, no = tokenizer.answer_ids()
    chat = chat_format(tokenizer).name
    bos = None if tokenizer.bos is None else tokenizer.token_text(tokenizer.bos)
    words = {"yes": yes, "no": no}
    if as_json:
        entries = {word: [{"id": i, "text": tokenizer.token_text(i)} for i in ids] for word, ids in words.items()}
        print_json({"judge": name, "chat": chat, "bos": bos, "tokens": tokenizer.vocab_size, **entries})
        return
    print(f"{name}: {tokenizer.vocab_size:,} tokens, chat format {chat}, first token {bos or 'none'}")
    for word, ids in words.items():
        print(f"{word.capitalize() + ':':<5}" + "  ".join(f"{i} {tokenizer.token_text(i)!r}" for i in ids))


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
