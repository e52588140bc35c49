"""The command line: one command per stage.

Exit codes: 0 complete, 1 error, 2 usage, 3 finished with items that have no grade, 130 interrupted.
"""

import contextlib
import dataclasses
import functools
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from rocketjax import __version__
from rocketjax.errors import RocketError
from rocketjax.files import beside, path_of, require_local

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
LimitOpt = Annotated[int | None, typer.Option(min=1, help="Only the first N queries.")]
ModelsOpt = Annotated[str | None, typer.Option(metavar="A,B", help="Only these models, with commas.")]
TemplateOpt = Annotated[
    Literal["native", "rocketeval"],
    typer.Option(help="native costs the fewest tokens; rocketeval is the published prompt."),
]
OverflowOpt = Annotated[
    Literal["error", "truncate-middle", "skip"], typer.Option(help="What to do with a prompt over --max-tokens.")
]
MaxTokensOpt = Annotated[
    int | None, typer.Option(min=1, help="Longest prompt. Default: the judge's context, at most 8192.")
]
ReferenceOpt = Annotated[
    str | None, typer.Option(metavar="AUTHOR", help="Show the judge this author's reference answers.")
]
MeshOpt = Annotated[
    str,
    typer.Option(metavar="auto|data=D,model=M", help="How devices share the work: rows over data, and the judge's own "
                 "weights over model. auto: all on data, unless the judge does not fit on one."),
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
    limit: LimitOpt = None,
    models: ModelsOpt = None,
    template: TemplateOpt = "native",
    dtype: GradeDtypeOpt = "f32",
    overflow: OverflowOpt = "error",
    max_tokens: MaxTokensOpt = None,
    reference: ReferenceOpt = None,
    batch_size: Annotated[
        str,
        typer.Option(
            metavar="N|auto", help="Rows per device to collect before they are sent; changes speed, never a grade."
        ),
    ] = "auto",
    mesh: MeshOpt = "auto",
    distributed: Annotated[
        bool,
        typer.Option(
            "--distributed",
            help="This is one of several processes, started alike on every host. TPU "
            "pods, Slurm and Open MPI say who there is; elsewhere give the next three options.",
        ),
    ] = False,
    coordinator: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="With --distributed: where process 0 listens.")
    ] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="With --distributed: how many there are.")] = None,
    process: Annotated[int | None, typer.Option(min=0, help="With --distributed: which of them this is.")] = None,
    resume: ResumeOpt = False,
    overwrite: OverwriteOpt = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Say where the time went, and what was estimated beside what was true.")
    ] = False,
    estimate_only: Annotated[
        bool, typer.Option("--estimate", help="Only say what it would cost on this machine; nothing is written.")
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
    if distributed and estimate_only:
        usage("--estimate is about this machine alone; rocketjax estimate takes --chips")
    if distributed:
        join(coordinator, processes, process)
    elif coordinator is not None or processes is not None or process is not None:
        usage("--coordinator, --processes and --process go with --distributed")
    from rocketjax.bench import load_benchmark

    chosen = [name for name in models.split(",") if name] if models is not None else None
    if chosen is not None and not chosen:
        usage("--models names no model")
    benchmark = load_benchmark(bench).select(chosen, limit)
    prompting: dict[str, Any] = {
        "template": template, "overflow": overflow, "max_tokens": max_tokens, "reference": reference,
    }  # fmt: skip
    if estimate_only:
        show_estimate(benchmark, judge, dtype, prompting, as_json)
        return
    code, _ = run_grading(
        benchmark,
        output,
        judge,
        dtype,
        as_json,
        profile,
        **prompting,
        mesh=mesh,
        batch_rows=None if batch_size == "auto" else int(batch_size),
        mode="resume" if resume else "overwrite" if overwrite else "new",
    )
    raise typer.Exit(code)


def join(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Makes this process one of a job; only the first of them speaks from then on, unless something fails."""
    from rocketjax.judge import begin, first

    if not process:
        who = f"{processes} processes" if processes else "the other processes"
        say(f"waiting for {who} of this job, five minutes at most")
    begin(coordinator, processes, process)
    screen.quiet = not first()


def run_grading(
    benchmark: Any,
    output: Path,
    judge: str | None,
    dtype: Literal["f32", "bf16", "int8"],
    as_json: bool,
    profile: bool = False,
    mesh: str = "auto",
    **options: Any,
) -> tuple[int, Any]:
    """Grades with a progress line, prints the summary, and returns the exit code and the judge."""
    from rocketjax.grade import OK, Judge, Work, excluded
    from rocketjax.judge import first

    for reason, count in excluded(benchmark).items():
        say(f"left out: {count} {EXCLUDED.get(reason, reason)}")
    begun = time.perf_counter()
    loaded = Judge.load(judge, dtype, say, mesh)
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
    masses, low, graded = 0.0, 0, 0
    for part in run.each(["answer_mass"]) if first() else ():  # only the first process tells it
        mass = part["answer_mass"].drop_null().to_numpy()
        masses, low, graded = (
            masses + float(mass.sum(dtype=float)),
            low + int((mass < LOW_MASS).sum()),
            graded + len(mass),
        )
    summary = {
        "run": str(run.path),
        "judge": loaded.origin,
        "items": sum(counts.values()),
        "status": counts,
        "mean_answer_mass": masses / graded if graded else None,
        "low_answer_mass": low,
        "load_seconds": loading,
        **{f"session_{k}": v for k, v in vars(last).items()},
    }
    if profile:
        summary["profile"] = profile_of(last, loading, loaded)
        summary["estimate"] = estimate_beside(loaded, benchmark, last, loading, summary["profile"], **options)
    if as_json and first():
        print_json(summary)
    elif not as_json:
        report(summary, last, loading)
        if profile:
            show_profile(summary["profile"], last)
            for name, (told, true) in summary["estimate"].items():
                ratio = f"{told / true:.2f} times" if true else ""
                say(f"    {name:<25}{figure(told):>16} estimated {figure(true):>16} true {ratio}".rstrip())
    return MISSING if missing else DONE, loaded


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
            f"  time: load {loading:.1f} s, wait for text {work.wait:.1f}, for programs {work.compile:.1f} "
            f"({len(work.compiled)} programs), compute {work.compute:.1f}, transfer {work.transfer:.1f}, "
            f"write {work.write:.1f}, other {other:.1f}"
        )


def profile_of(work: Any, loading: float, judge: Any) -> dict[str, Any]:
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
    devices = 1 if jax.default_backend() == "cpu" else judge.mesh.size
    exact = judge.dtype == "f32" or (judge.dtype == "int8" and jax.default_backend() == "cpu")  # the products' operands
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
        "exchanged": {str(n): {"collectives": c, "bytes": b} for n, (c, b) in sorted(work.exchanged.items())},
    }  # fmt: skip


def show_profile(profile: dict[str, Any], work: Any) -> None:
    """The same for people."""
    say("  where the time went, seconds:")
    notes = {
        "wait": "for rows: the text thread was behind",
        "compile": f"waiting for {len(work.compiled)} programs, made beside the first rows; kept for the next run",
        "transfer": "rows to the device, answers back",
        "compute": "calling programs, and waiting for them",
    }
    for name, seconds in profile["seconds"].items():
        say(f"    {name:<9}{seconds:9.2f}  {notes.get(name, '')}".rstrip())
    for name, seconds in profile["ahead_seconds"].items():
        say(f"    {name:<9}{seconds:9.2f}  on the text thread, beside the device's work")
    for length, row in profile["rows"].items():
        sums = profile["exchanged"].get(length)
        between = f"; a call's {sums['collectives']} sums over devices: {sums['bytes'] / 1e6:,.2f} MB" if sums else ""
        say(f"    rows of {length:>5} tokens: {row['rows']:,}, {row['full']:.0%} full{between}")
    if work.flops:
        say(
            f"  {profile['ms_per_item']:.1f} ms and {profile['tokens_per_item']:.0f} tokens per item; "
            f"{profile['flops_per_second'] / 1e9:,.1f} GFLOP/s, {profile['share_of_peak']:.0%} of the measured matmul "
            f"peak ({profile['matmul_peak'] / 1e9:,.1f})"
        )


ESTIMATED = 200  # queries that --profile packs once more for its estimate


def estimate_beside(
    judge: Any, benchmark: Any, work: Any, loading: float, profile: dict[str, Any], **options: Any
) -> dict[str, tuple[float, float]]:
    """Estimated and measured figures of a session, from the matmul peak of its profile; empty if it graded nothing."""
    from rocketjax.grade import estimate as cost
    from rocketjax.grade import make_prompter

    if not work.items:
        return {}
    prompting = [options.get(name, default) for name, default in PROMPTING.items()]
    config = judge.model.config
    workload = cost.survey(benchmark, make_prompter(judge.tokenizer, config, *prompting), config, ESTIMATED)
    device, devices = cost.this_device(profile["matmul_peak"], profile["matmul_peak"])
    device = dataclasses.replace(device, f32=device.f32 / devices, bf16=device.bf16 / devices)
    # A session that continued another's run graded a part of the items.
    told = cost.estimate_run(workload.times(work.items / workload.items), config, judge.dtype, device, devices)
    return cost.truth_beside(told, vars(work), loading)


PROMPTING: dict[str, Any] = {"template": "native", "overflow": "error", "max_tokens": None, "reference": None}


def figure(value: float) -> str:
    """A count in full, anything small with a digit behind the point."""
    return f"{value:,.1f}" if value < 1e4 else f"{value:,.0f}" if value < 1e13 else f"{value:.4g}"


def show_estimate(
    benchmark: Any,
    judge: str | None,
    dtype: Literal["f32", "bf16", "int8"],
    prompting: dict[str, Any],
    as_json: bool,
    *,
    device: str = "here",
    chips: int = 1,
    price: float | None = None,
    sample: int | None = None,
    lengths: dict[str, Any] | None = None,
) -> None:
    """Prints what grading a benchmark, or one of these `lengths`, would cost, without loading the judge's weights."""
    from rocketjax.grade import estimate as cost
    from rocketjax.grade import make_prompter, use_compile_cache
    from rocketjax.judge import locate, read_config
    from rocketjax.prompt import load_tokenizer

    found = None if device == "here" else cost.named_device(device)
    path = locate(judge, say, weights=False).path
    config = read_config(path)
    prompter = make_prompter(load_tokenizer(path), config, *prompting.values())
    with screen.status("packing prompts"):
        if lengths is not None:
            workload = cost.typical(prompter, config, **lengths)
        else:
            workload = cost.survey(benchmark, prompter, config, sample)
    if found is None:
        import jax.numpy as jnp

        from rocketjax.doctor import matmul_flops

        use_compile_cache()
        found, chips = cost.this_device(matmul_flops(jnp.float32), matmul_flops(jnp.bfloat16))
    told = cost.estimate_run(workload, config, dtype, found, chips, price)
    if as_json:
        print_json(vars(told))
        return
    for name, line in cost.describe(told).items():
        print(f"{name + ':':<22}{line}")


@app.command()
def estimate(
    bench: Annotated[
        Path | None, typer.Argument(metavar="BENCH", help="A benchmark's folder. Left out: give --items.")
    ] = None,
    judge: JudgeOpt = None,
    limit: LimitOpt = None,
    models: ModelsOpt = None,
    template: TemplateOpt = "native",
    dtype: GradeDtypeOpt = "f32",
    overflow: OverflowOpt = "error",
    max_tokens: MaxTokensOpt = None,
    reference: ReferenceOpt = None,
    sample: Annotated[
        int | None, typer.Option(min=2, metavar="N", help="Pack only N queries and scale up, for a huge benchmark.")
    ] = None,
    items: Annotated[
        float | None, typer.Option(min=1, metavar="N", help="Without BENCH: items in all, for example 1e9.")
    ] = None,
    items_per_response: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="With --items. (default 10)")
    ] = None,
    responses_per_query: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="With --items. (default 20)")
    ] = None,
    query_tokens: Annotated[int | None, typer.Option(min=0, metavar="N", help="With --items. (default 100)")] = None,
    response_tokens: Annotated[int | None, typer.Option(min=1, metavar="N", help="With --items. (default 300)")] = None,
    item_tokens: Annotated[int | None, typer.Option(min=1, metavar="N", help="With --items. (default 25)")] = None,
    device: Annotated[
        str, typer.Option(metavar="NAME", help="here (measured now), h100, a100, l4, t4, tpu-v5e, tpu-v5p or tpu-v6e.")
    ] = "here",
    chips: Annotated[int | None, typer.Option(min=1, metavar="N", help="How many of a named device.")] = None,
    price: Annotated[
        float | None, typer.Option(min=0, metavar="X", help="Dollars per device and hour. Default: a public price.")
    ] = None,
    as_json: JsonOpt = False,
) -> None:
    """Says what grading would cost, before it: tokens, FLOPs, memory, seconds, dollars, and what will be the limit.

    Example: rocketjax estimate bench/ --device tpu-v5e --chips 4 --dtype bf16
    """
    if (bench is None) == (items is None):
        usage("give a benchmark's folder, or --items for one that is known by its lengths alone")
    if items is not None and (limit or models or sample or reference or overflow != "error"):
        usage("--limit, --models, --sample, --reference and --overflow are about a benchmark, not --items")
    given = {
        "items_per_response": items_per_response, "responses_per_query": responses_per_query,
        "query_tokens": query_tokens, "response_tokens": response_tokens, "item_tokens": item_tokens,
    }  # fmt: skip
    given = {name: value for name, value in given.items() if value is not None}
    if bench is not None and given:
        usage(f"--{next(iter(given)).replace('_', '-')} goes with --items; a benchmark has lengths of its own")
    if device == "here" and chips is not None:
        usage("--chips goes with --device NAME; here it is what this machine has")
    from rocketjax.bench import load_benchmark

    benchmark = lengths = None
    if bench is not None:
        chosen = [name for name in models.split(",") if name] if models is not None else None
        if chosen is not None and not chosen:
            usage("--models names no model")
        benchmark = load_benchmark(bench).select(chosen, limit)
    else:
        lengths = {"items": items, **given}
    prompting = {"template": template, "overflow": overflow, "max_tokens": max_tokens, "reference": reference}
    show_estimate(
        benchmark, judge, dtype, prompting, as_json, device=device, chips=chips or 1, price=price, sample=sample,
        lengths=lengths,
    )  # fmt: skip


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
    say("  each model is scored by a fit that has not seen its labels, at the level that all labels give the query"
        if saved.folds
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
    from rocketjax.reweight import REFERENCE, as_rows, compare, features_of, labels_of, panel

    opened = Run.open(run)
    cells = panel(opened, labels_of(benchmark_of(opened, bench), labels))
    for reason, n in cells.dropped.items():
        say(f"labels not used: {n:,} ({reason})")
    with counting("comparing", "splits") as show:
        found = compare(cells, chosen, splits, seed, part, per_query, features_of(opened, cells), show)
    rows = as_rows(found)
    if found[0].left_out:
        say(f"not judged: {found[0].left_out:,} labels over all splits, for which some head has no score "
            "(RocketEval's trees need labels of the query itself)")  # fmt: skip
    if chosen is None:
        compared = {row["head"] for row in rows}
        if "shared" not in compared:
            say("without shared: the run has no hidden states; rocketjax fit RUN --head shared reads them")
        if not compared & set(REFERENCE):
            say("without RocketEval's trees: they need scikit-learn, pip install 'rocketjax[compat]'")
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
    item_weights: Annotated[
        bool, typer.Option("--item-weights", help="The mean by the weights that the benchmark's checklists give items.")
    ] = False,
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
        if head is not None or abstain is not None or score_train or jury or item_weights:
            usage("--compat is RocketEval's way alone: no --head, --abstain, --score-train, --jury or --item-weights")
        if (labels is None) != (train_models is None):
            usage("--compat takes --labels and --train-models together, or neither")
    elif train_models is not None:
        usage("--train-models is for --compat; fit has its own")
    elif labels is not None and abstain is None:
        usage("--labels is for --compat, and with --abstain for a risk-coverage curve; fit reads labels")
    if item_weights and (head not in (None, "mean") or score_train or jury):
        usage("--item-weights are for the mean alone: without another --head, --score-train and --jury")
    if bench is not None and labels is None and not item_weights:
        usage("--bench is where --labels and --item-weights are")
    from rocketjax.grade import Run
    from rocketjax.reweight import SHARED_LEVELS, about_scores, labels_of, score_compat, shares_levels
    from rocketjax.reweight import score as score_run

    opened = Run.open(run)
    benchmark = benchmark_of(opened, bench) if labels or item_weights else None
    given = labels_of(benchmark, labels) if labels and benchmark is not None else None
    curve = None
    if compat:
        models = None if train_models is None else read_names(train_models)
        table = score_compat(opened, given, labels, models)
    else:
        table = score_run(
            opened, head, abstain=abstain, score_train=score_train, jury=[Run.open(other) for other in jury or ()],
            item_weights=benchmark if item_weights else None,
        )  # fmt: skip
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
        if weights := about.get("item_weights"):
            said = f"{weights['queries']:,} checklists of {weights['benchmark']} give their items weights"
            say(f"  {said}; {weights['queries_without']:,} do not, nor {weights['items_without']:,} items of these")
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
            if shares_levels(about, labels):
                say(f"  {SHARED_LEVELS}")
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
    from rocketjax.grade import Judge
    from rocketjax.reweight import features_judge

    if features_judge(run) is not None and judge is None:
        return
    dtype: Literal["f32", "bf16", "int8"] = run.meta["judge"]["dtype"] or "f32"
    loaded = Judge.load(judge, dtype, say)
    if not run.recorded and loaded.sha256 != run.meta["judge"]["weights_sha256"]:
        raise RocketError(
            f"{run.path}: was graded by {run.meta['judge']['origin']}, not by {loaded.origin}; name it with --judge"
        )
    read_features(run, benchmark, loaded)


def read_features(run: Any, benchmark: Any, loaded: Any) -> None:
    """Writes features.parquet, unless this judge's is there; RocketError where it is another's."""
    from rocketjax.grade import item_features
    from rocketjax.reweight import features_judge, save_features

    there = features_judge(run)
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
    head: Annotated[
        str | None, typer.Option(help="Whose weights are shown: mean, label-free, or a fitted linear head.")
    ] = None,
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
    from rocketjax.reweight import (
        WITHOUT_LABELS,
        find_head,
        item_table,
        labels_of,
        load_head,
        panel,
        require_questions,
        unlabelled_weights,
    )

    opened = Run.open(run)
    benchmark = benchmark_of(opened, bench)
    cells = panel(opened, labels_of(benchmark, labels) if labels else None)
    weights: Any = None
    if head in WITHOUT_LABELS:
        weights = unlabelled_weights(cells, head), None
    elif head is not None:
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
    table = item_table(cells, benchmark.checklists, weights, named)
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
        + ("" if labels or (weights and weights[1] is not None) else
           "; without --labels or a fitted --head none is known to hurt"))  # fmt: skip
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


SamplesOpt = Annotated[int, typer.Option(min=0, help="Bootstrap samples of the queries; 0: no intervals.")]
LevelOpt = Annotated[float, typer.Option(help="Of the intervals.")]
SeedOpt = Annotated[int, typer.Option(min=0, help="Of the bootstrap.")]


@app.command()
def rank(
    run: RunArg,
    method: Annotated[
        Literal["mean", "bradley-terry"], typer.Option(help="Mean score, or rating by wins and losses on each query.")
    ] = "mean",
    ties: Annotated[
        Literal["davidson", "half"], typer.Option(help="For bradley-terry: Davidson's model, or half a win each.")
    ] = "davidson",
    margin: Annotated[
        float, typer.Option(min=0, help="For bradley-terry: scores that differ by no more are a tie.")
    ] = 0.0,
    length_control: Annotated[
        bool, typer.Option("--length-control", help="Rank as if all responses were equally long.")
    ] = False,
    samples: SamplesOpt = 1000,
    level: LevelOpt = 0.95,
    seed: SeedOpt = 0,
    bench: BenchOpt = None,
    as_json: JsonOpt = False,
) -> None:
    """Ranks the models of a scored run, with intervals, ranges of ranks and groups that do not differ significantly.

    Example: rocketjax rank runs/first --method bradley-terry --margin 0.1
    """
    if bench is not None and not length_control:
        usage("--bench is for --length-control, which needs the responses")
    from rocketjax.grade import Run
    from rocketjax.rank import rank_models

    opened = Run.open(run)
    ranking = rank_models(
        opened, method=method, ties=ties, margin=margin, samples=samples, level=level, seed=seed,
        lengths=benchmark_of(opened, bench) if length_control else None,
    )  # fmt: skip
    print_json(ranking.as_dict()) if as_json else print(ranking)


@app.command()
def agree(
    run: RunArg,
    labels: Annotated[str | None, typer.Option("--labels", metavar="LABELER", help="Whose labels.")] = None,
    ratings: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Or ratings of the models, as Elo: JSON or CSV with model and rating."),
    ] = None,
    samples: SamplesOpt = 1000,
    level: LevelOpt = 0.95,
    seed: SeedOpt = 0,
    bench: BenchOpt = None,
    as_json: JsonOpt = False,
) -> None:
    """How well a scored run agrees with a labeler, or its ranking with known ratings, each figure with its interval.

    Example: rocketjax agree runs/first --labels gpt-4
    """
    if (labels is None) == (ratings is None):
        usage("give --labels or --ratings, one of them")
    if samples < 2:
        usage("--samples is 2 or more here")
    from rocketjax.grade import Run
    from rocketjax.rank import agree as agree_with
    from rocketjax.rank import read_ratings
    from rocketjax.reweight import SHARED_LEVELS

    opened = Run.open(run)
    controlled = (opened.path / "ranking.json").exists() and bool(opened.ranking.get("length_controlled"))
    if bench is not None and labels is None and not controlled:
        usage("--bench is where --labels are, or the responses of a length-controlled ranking")
    found = agree_with(
        opened,
        benchmark_of(opened, bench) if labels or controlled else None,
        labels,
        None if ratings is None else read_ratings(ratings),
        None if ratings is None else ratings.name,
        samples,
        level,
        seed,
    )
    if found["shared_levels"]:
        say(SHARED_LEVELS)
    if as_json:
        print_json(found)
        return
    for model in found.get("without_rating", ()):
        say(f"no rating: {model}")
    units = {"ranking": "models", "responses": "responses", "items": "items"}
    for part, unit in units.items():
        if found[part] is None:
            continue
        n = found["models"] if part == "ranking" else found[part]["n"]
        how = ranked_by(found) if part == "ranking" else ""
        print(f"{part} ({n:,} {unit}{how}) against {found['reference']}, {level:.0%} intervals over queries")
        for key, x in found[part].items():
            if key not in ("n", "reliability"):
                print(f"  {key.replace('_', ' '):<16}{ends(x)}")


def ranked_by(agreement: dict[str, Any]) -> str:
    """What the ranking of an agreement is made of, where that is not the plain mean."""
    if agreement["method"] != "mean":
        return ", Bradley-Terry ratings"
    return ", lengths controlled" if agreement["length_controlled"] else ""


def ends(x: list[float | None]) -> str:
    """A value with the ends of its interval."""
    value, low, high = x
    if value is None:
        return "says nothing here"
    return f"{value:.3f}" + ("" if low is None or high is None else f" [{low:.3f}, {high:.3f}]")


@app.command()
def compare(
    run_a: Annotated[Path, typer.Argument(metavar="RUN_A", help="A scored run.")],
    run_b: Annotated[Path, typer.Argument(metavar="RUN_B", help="Another, or the same with another --head-b.")],
    head_a: Annotated[
        str | None, typer.Option(metavar="H", help="Score RUN_A by this head first; it stays as it is on disk.")
    ] = None,
    head_b: Annotated[str | None, typer.Option(metavar="H", help="The same for RUN_B.")] = None,
    labels: Annotated[
        str | None, typer.Option("--labels", metavar="LABELER", help="Also say which agrees better with this labeler.")
    ] = None,
    samples: SamplesOpt = 1000,
    level: LevelOpt = 0.95,
    seed: SeedOpt = 0,
    bench: BenchOpt = None,
    as_json: JsonOpt = False,
) -> None:
    """Two judges, heads or versions side by side: what moved, significantly or not.

    Example: rocketjax compare runs/first runs/first --head-a mean --head-b label-free
    """
    if run_a.resolve() == run_b.resolve() and head_a == head_b:
        usage("that is the same run with the same scores; give --head-a and --head-b, or another run")
    if bench is not None and labels is None:
        usage("--bench is where --labels are")
    if samples < 100:
        usage("--samples is 100 or more here")
    from rocketjax.grade import Run
    from rocketjax.rank import compare_runs
    from rocketjax.reweight import SHARED_LEVELS

    a, b = Run.open(run_a), Run.open(run_b)
    benchmark = benchmark_of(a, bench) if labels else None
    found = compare_runs(a, b, head_a, head_b, benchmark, labels, samples, level, seed)
    if as_json:
        print_json(found)
        return
    for side in ("a", "b"):
        about = found[side]
        print(f"{side}: {about['run']}, judge {about['judge']}, head {about['head']}")
    for line in found["settings"]:
        print(f"   {line}")
    scales = [s if s != "the labeler's" else f"{found[side]['labeler']}'s" for s, side in zip(found["scales"], "ab",
                                                                                            strict=True)]  # fmt: skip
    if scales[0] != scales[1]:
        print(f"   the scales differ ({scales[0]} and {scales[1]}): look at ranks, not at differences of scores")
    table = Table(title=f"{found['queries']} queries, {level:.0%} intervals; * significant after Holm's correction")
    for name in ("model", "a", "b", "b - a", "rank in a", "rank in b"):
        table.add_column(name, justify="left" if name == "model" else "right")
    for row in found["models"]:
        star = " *" if row["p_adjusted"] is not None and row["p_adjusted"] < 1 - level else "  "
        table.add_row(row["model"], f"{row['a']:.3f}", f"{row['b']:.3f}",
                      ends([row["difference"], row["low"], row["high"]]) + star, str(row["rank_a"]),
                      str(row["rank_b"]))  # fmt: skip
    (Console() if sys.stdout.isatty() else Console(width=140)).print(table)
    print(f"rankings agree by Spearman {ends(found['ranking']['spearman'])}, single scores by "
          f"{ends(found['responses']['spearman'])}, verdicts {ends(found['responses']['pairwise'])}")  # fmt: skip
    if found["items"]:
        i = found["items"]
        print(f"{i['n']:,} items: p(yes) moved by {i['mean_change']:.4f} on average, {i['largest']:.4f} at most; "
              f"{i['changed_sides']:,} changed sides")  # fmt: skip
    if found["labels"]:
        print(f"agreement with {labels} ({found['labels']['n']:,} labels): a, b, change")
        for side in (s for s, shared in zip("ab", found["shared_levels"], strict=True) if shared):
            print(f"   of {side}, {SHARED_LEVELS}")
        for key, x in found["labels"].items():
            if isinstance(x, dict):
                print(f"  {key.replace('_', ' '):<18}" + "   ".join(ends(x[k]) for k in ("a", "b", "change")))


@app.command()
def export(
    run: RunArg,
    format: Annotated[
        Literal["rocketeval", "wildbench", "mtbench", "alpaca", "arena", "csv", "jsonl", "parquet"],
        typer.Option(help="The format to write; mtbench is FastChat's, arena the matches of Chatbot Arena."),
    ] = "rocketeval",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder. Default: RUN/export/FORMAT.")] = None,
    baseline: Annotated[
        str | None, typer.Option(metavar="MODEL", help="For alpaca: the model that all others are compared with.")
    ] = None,
    tie_margin: Annotated[
        float, typer.Option(min=0, metavar="X", help="For alpaca and arena: scores that differ by X or less are a tie.")
    ] = 0.0,
    bench: BenchOpt = None,
) -> None:
    """Writes judgments and scores as other tools read them.

    Example: rocketjax export runs/first --format rocketeval
    """
    if (format == "alpaca") != (baseline is not None):
        usage("--baseline MODEL goes with --format alpaca")
    if tie_margin and format not in ("alpaca", "arena"):
        usage("--tie-margin is for --format alpaca and arena")
    from rocketjax.grade import Run
    from rocketjax.report import export as export_run

    written = export_run(Run.open(run), format, output, baseline=baseline, tie_margin=tie_margin, bench=bench)
    say(f"wrote {written}")


RUN_DEFAULTS: dict[str, Any] = {
    "judge": None, "labels": None, "ratings": None, "head": None, "train_models": None, "folds": None, "limit": None,
    "models": None, "template": "native", "dtype": "f32", "overflow": "error", "max_tokens": None, "reference": None,
    "method": "mean", "abstain": None, "samples": 1000, "seed": 0, "price": None,
}  # fmt: skip
FILES = ("bench", "output", "ratings", "train_models")  # in --config relative to it


@app.command("run")
def run_all(
    bench: Annotated[
        Path | None, typer.Argument(metavar="BENCH", help="The benchmark's folder; or bench in --config.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "--output-path", "-o", metavar="RUN", help="The run folder.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="YAML with any of these options; those given here beat it.")
    ] = None,
    judge: JudgeOpt = None,
    labels: Annotated[
        str | None, typer.Option("--labels", metavar="LABELER", help="Fit the head to, and compare with, this labeler.")
    ] = None,
    ratings: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Compare the ranking with these ratings (JSON or CSV).")
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(
            metavar="H",
            help="mean, label-free, or one that is fitted: ridge, shared, calibrated, pairwise "
            "or soft-trees. Default: ridge with labels, else mean.",
        ),
    ] = None,
    train_models: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Fit to these models' labels only, and do not score them: a name per line."),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Else every model is scored by a head fitted on other folds. (default 5, at most a "
            "fold for each labelled model)",
        ),
    ] = None,
    limit: LimitOpt = None,
    models: ModelsOpt = None,
    template: Annotated[Literal["native", "rocketeval"] | None, typer.Option(help="(default native)")] = None,
    dtype: Annotated[Literal["f32", "bf16", "int8"] | None, typer.Option(help="(default f32)")] = None,
    overflow: Annotated[
        Literal["error", "truncate-middle", "skip"] | None, typer.Option(help="Of long prompts. (default error)")
    ] = None,
    max_tokens: MaxTokensOpt = None,
    reference: ReferenceOpt = None,
    method: Annotated[
        Literal["mean", "bradley-terry"] | None, typer.Option(help="Of the ranking. (default mean)")
    ] = None,
    abstain: Annotated[
        float | None, typer.Option(metavar="E", help="Mark scores with a standard error above E.")
    ] = None,
    samples: Annotated[int | None, typer.Option(min=100, help="Bootstrap samples. (default 1000)")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the bootstrap. (default 0)")] = None,
    price: Annotated[
        float | None, typer.Option(min=0, metavar="$", help="Of a machine-hour, for the cost in the report.")
    ] = None,
    overwrite: OverwriteOpt = False,
    as_json: JsonOpt = False,
) -> None:
    """All stages: grade, fit, score, rank, compare with labels or ratings, report. Goes on where it was stopped.

    Example: rocketjax run bench/ --labels human -o runs/all
    """
    given: dict[str, Any] = {
        "judge": judge, "labels": labels, "ratings": ratings, "head": head, "train_models": train_models,
        "folds": folds, "limit": limit, "models": models, "template": template, "dtype": dtype, "overflow": overflow,
        "max_tokens": max_tokens, "reference": reference, "method": method, "abstain": abstain, "samples": samples,
        "seed": seed, "price": price,
    }  # fmt: skip
    file = {k: v for k, v in (read_options(config) if config else {}).items() if v is not None}
    home = config.parent if config else Path()
    file |= {key: beside(home, file[key]) for key in FILES if key in file}
    bench, output = bench or file.pop("bench", None), output or file.pop("output", None)
    if bench is None or output is None:
        usage("name the benchmark and -o, here or as bench and output in --config")
    file = {k: v for k, v in file.items() if k not in ("bench", "output")}
    options = RUN_DEFAULTS | file | {k: v for k, v in given.items() if v is not None}
    if options["abstain"] is not None and not 0 < options["abstain"] < float("inf"):
        usage(f"--abstain is {options['abstain']}; it takes a number above 0")
    if options["train_models"] is not None and options["folds"] is not None:
        usage("--train-models and --folds exclude each other")
    from rocketjax.bench import load_benchmark
    from rocketjax.grade import Run, restrict, write_json
    from rocketjax.rank import agree as agree_with
    from rocketjax.rank import rank_models, read_ratings
    from rocketjax.report import write_report
    from rocketjax.reweight import (
        NAMES,
        WITHOUT_LABELS,
        features_of,
        fit_head,
        folder_name,
        labels_of,
        panel,
        save_head,
    )
    from rocketjax.reweight import score as score_run

    names = options["models"]
    chosen = [n for n in names.split(",") if n] if isinstance(names, str) else names
    if chosen == []:
        usage("--models names no model")
    benchmark = load_benchmark(bench).select(chosen, options["limit"])
    labeler = options["labels"]
    # Everything that can be wrong with the later stages is found before hours of grading.
    if labeler is not None and labeler not in benchmark.labels:
        there = ", ".join(sorted(benchmark.labels)) or "none"
        raise RocketError(f"{benchmark.name}: has no labels by {labeler!r}; labelers: {there}")
    known = None if options["ratings"] is None else read_ratings(options["ratings"])
    scored = labeler is not None and any(
        x.score is not None for by in benchmark.labels[labeler].values() for x in by.values()
    )
    name = options["head"] or ("ridge" if scored else "mean")
    if name not in NAMES:
        usage(f"no head {name!r}; there are: {', '.join(NAMES)}")
    fits = name not in WITHOUT_LABELS
    if fits and not scored:
        usage(f"--head {name} is fitted to scores; give --labels of somebody who scores responses")
    for option in ("train_models", "folds"):
        if options[option] is not None and not fits:
            usage(f"--{option.replace('_', '-')} is about fitting, and head {name} is not fitted; give --labels")
    labels_by = labels_of(benchmark, labeler) if fits else {}
    labelled = [m for m in benchmark.models if any(x is not None for x in labels_by.get(m, {}).values())]
    training = None if options["train_models"] is None else read_names(options["train_models"])
    if training is not None:
        strange = [m for m in training if m not in labelled]
        if strange:
            raise RocketError(f"{options['train_models']}: {strange[0]!r} is no model with labels by {labeler!r}")
        if not set(benchmark.models) - set(training):
            raise RocketError(f"{options['train_models']}: names every model, so none is left to score")
    under_test = [m for m in benchmark.models if m not in set(training or ())]
    rated = [m for m in under_test if m in (known or ())]
    if known is not None and len(rated) < 2:
        raise RocketError(f"{options['ratings']}: rates {len(rated)} of the models to rank, and it takes two, by the "
                          f"same names: {', '.join(under_test[:5])}")  # fmt: skip
    rest = labeler  # whose labels the scores are compared with
    if labeler is not None and training is not None and not any(benchmark.labels[labeler].get(m) for m in under_test):
        say(f"{labeler} labels the training models only, so there is nothing to compare the scores with")
        rest = None
    if training is None and fits and len(labelled) < (options["folds"] or 2):
        raise RocketError(f"{benchmark.name}: {len(labelled)} of its models have scores by {labeler!r}, too few for "
                          f"{options['folds'] or 2} folds; give --head mean, or --train-models FILE")  # fmt: skip
    stages = ["grade", *(["fit"] if fits else []), "score", "rank",
              *(["agree"] if rest is not None or known is not None else []), "report"]  # fmt: skip

    def stage(name: str) -> None:
        say(f"stage {stages.index(name) + 1} of {len(stages)}: {name}")

    stage("grade")
    code, loaded = run_grading(
        benchmark, output, options["judge"], options["dtype"], False,
        mode="overwrite" if overwrite else "resume",
        **{k: options[k] for k in ("template", "overflow", "max_tokens", "reference")},
    )  # fmt: skip
    run = Run.open(output)
    resolved = {"bench": str(bench), "output": str(output), **options, "head": name}
    write_json(output / "options.json", {k: str(v) if k in FILES and v is not None else v for k, v in resolved.items()})
    fitted: Any = name
    # What stands there of an earlier call is about other scores.
    (output / "agreement.json").unlink(missing_ok=True)
    if fits:
        stage("fit")
        features = None
        if name == "shared":
            read_features(run, restrict(benchmark, run), loaded)
            features = features_of(run, panel(run))
        del loaded
        folds = options["folds"] or min(5, len(panel(run, labels_by).labelled_models()))
        target = output / "heads" / folder_name(name, labeler, False, 0.0)
        with counting("fitting", "fits") as show:
            fitted = fit_head(
                run, labels_by, labeler, name, train_models=training, folds=folds, features=features, progress=show
            )
        fitted = save_head(fitted, target, True)
        said = "no model is scored by a fit that saw its labels" if fitted.folds else (
            "the training models are left out of the scores")  # fmt: skip
        say(f"fitted {name} to {labeler}: {fitted.meta['figures']['labels']:,} labels; {said}")
    stage("score")
    score_run(run, fitted, abstain=options["abstain"])
    stage("rank")
    ranking = rank_models(run, method=options["method"], samples=options["samples"], seed=options["seed"])
    ratings_name = None if known is None else options["ratings"].name
    references: list[dict[str, Any]] = [{"labeler": rest}] if rest is not None else []
    references += [{"ratings": known, "name": ratings_name}] if known is not None else []
    agreements = []
    if references:
        stage("agree")
        sampling = {"samples": options["samples"], "seed": options["seed"], "ranking": ranking}
        agreements = [agree_with(run, benchmark, **reference, **sampling) for reference in references]
        write_json(output / "agreement.json", {"format": 1, "references": agreements})
    stage("report")
    page = write_report(
        run, restrict(benchmark, run), labeler=rest, ratings=known, price=options["price"],
        ratings_name=ratings_name, samples=options["samples"],
    )  # fmt: skip
    if as_json:
        print_json({"run": str(output), "ranking": ranking.as_dict(), "agreement": agreements, "report": str(page)})
    else:
        print(ranking)
        for agreement in agreements:
            if agreement["ranking"]:
                print(f"ranking against {agreement['reference']}: Spearman {ends(agreement['ranking']['spearman'])}, "
                      f"Kendall {ends(agreement['ranking']['kendall'])}")  # fmt: skip
        say(f"report: {page}")
    raise typer.Exit(code)


def read_options(file: Path) -> dict[str, Any]:
    """Options of `rocketjax run` from YAML, names with hyphens or underscores; RocketError for what is none."""
    import difflib

    import yaml

    try:
        given = yaml.safe_load(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        raise RocketError(f"{file}: cannot be read ({' '.join(str(e).split())})") from None
    if not isinstance(given, dict):
        raise RocketError(f"{file}: must hold options, such as 'labels: human'")
    found = {str(k).replace("-", "_"): v for k, v in given.items()}
    allowed = {"bench", "output", *RUN_DEFAULTS}
    for key, x in found.items():
        if key not in allowed:
            close = difflib.get_close_matches(key, allowed, n=1)
            raise RocketError(f"{file}: unknown option {key!r}" + (f"; did you mean {close[0]!r}?" if close else ""))
        want = OPTION_TYPES.get(key, (str,))
        names = x if isinstance(x, list) else []
        if x is not None and (not isinstance(x, want) or isinstance(x, bool) or not all(
                isinstance(n, str) for n in names)):  # fmt: skip
            raise RocketError(f"{file}: {key} is {x!r}, not a {' or '.join(t.__name__ for t in want)}"
                              + (" of names" if names else ""))  # fmt: skip
        if isinstance(x, int | float) and not x >= LEAST.get(key, x):
            raise RocketError(f"{file}: {key} is {x!r}; it is {LEAST[key]} or more")
        among = CHOICES.get(key)
        if x is not None and among and x not in among:
            raise RocketError(f"{file}: {key} is {x!r}; it can be: {', '.join(among)}")
    return found


OPTION_TYPES: dict[str, tuple[type, ...]] = {
    "limit": (int,), "max_tokens": (int,), "samples": (int,), "seed": (int,), "abstain": (int, float),
    "price": (int, float), "models": (str, list), "folds": (int,),
}  # fmt: skip
LEAST = {"limit": 1, "max_tokens": 1, "samples": 100, "seed": 0, "price": 0, "folds": 2}
CHOICES = {
    "template": ("native", "rocketeval"), "dtype": ("f32", "bf16", "int8"), "method": ("mean", "bradley-terry"),
    "overflow": ("error", "truncate-middle", "skip"),
}  # fmt: skip


@app.command("report")
def report_page(
    run: RunArg,
    labels: Annotated[
        str | None, typer.Option("--labels", metavar="LABELER", help="Whose labels to compare and calibrate with.")
    ] = None,
    ratings: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Ratings of the models, as Elo: JSON or CSV with model and rating."),
    ] = None,
    heads: Annotated[
        bool, typer.Option("--heads", help="Also compare all heads on the labels: seconds to minutes.")
    ] = False,
    price: Annotated[float | None, typer.Option(min=0, metavar="X", help="Dollars per device and hour.")] = None,
    judgments: Annotated[int, typer.Option(min=0, metavar="N", help="Responses to browse in the page.")] = 400,
    samples: SamplesOpt = 1000,
    bench: BenchOpt = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Default: RUN/report.html.")
    ] = None,
) -> None:
    """Writes everything about a run into one HTML file that needs no network, and prints where it is.

    Example: rocketjax report runs/first --labels gpt-4 --price 2
    """
    if heads and labels is None:
        usage("--heads compares on labels; name whose with --labels")
    from rocketjax.grade import Run
    from rocketjax.rank import read_ratings
    from rocketjax.report import write_report

    opened = Run.open(run)
    known = None if ratings is None else read_ratings(ratings)
    benchmark = None
    if labels is not None or bench is not None:
        benchmark = benchmark_of(opened, bench)
    else:
        try:
            benchmark = benchmark_of(opened, None)
        except RocketError as e:
            say(f"without questions and responses: {e}")
    with counting("comparing heads", "splits") as show:
        path = write_report(
            opened, benchmark, output, labeler=labels, ratings=known,
            ratings_name=None if ratings is None else ratings.name, heads=heads, price=price, judgments=judgments,
            samples=samples, say=say, progress=show if heads else None,
        )  # fmt: skip
    print(path)


@app.command()
def convert(
    source: Annotated[str, typer.Argument(metavar="J", help="A judge, as for rocketjax grade --judge.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make.")],
    dtype: DtypeOpt = "f32",
) -> None:
    """Writes a judge as an Orbax checkpoint with its tokenizer; the folder is a judge again.

    Example: rocketjax convert org/name judges/name
    """
    require_local(output)
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
    mesh: MeshOpt = "auto",
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
    require_local(output, config, *(benches or ()))
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
    loaded = Judge.load(judge or file.judge or BASE, dtype, say, mesh)
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


@app.command()
def create(
    bench: Annotated[Path, typer.Argument(metavar="BENCH", help="The benchmark; it may lack checklists.")],
    generator: Annotated[
        str,
        typer.Option(
            "--generator",
            "-g",
            metavar="G|api:MODEL",
            help="Who writes: a model on this machine, as --judge takes them, or default for the embedded one, or one "
            "behind an OpenAI-compatible endpoint, OPENAI_BASE_URL (left out: OpenAI's own) with the key "
            "OPENAI_API_KEY.",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="OUT", help="Folder of the benchmark with checklists.")
    ] = None,
    template: Annotated[
        str,
        typer.Option(
            metavar="native|rocketeval|FILE",
            help="What is asked. A file has {query} in it, and "
            "{history}, {reference}, {responses} where it wants them.",
        ),
    ] = "native",
    compare: Annotated[
        int, typer.Option(metavar="N", min=0, help="Draw the questions from the differences of N responses, 2 or more.")
    ] = 0,
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="AUTHOR",
            help="Whose reference answer is shown, where there is one. Default: "
            "the query's first author in the alphabet.",
        ),
    ] = None,
    limit: LimitOpt = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also for queries that have a checklist; labels of their items are left out.")
    ] = False,
    seed: Annotated[
        int | None,
        typer.Option(help="Of the choice of responses to --compare; of a local model's texts: --set seed=N."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Of a local model: temperature=0.7, top_p=0.95, max_tokens=1024 or seed=0. Else a field of the "
            "request, as reasoning_effort=low; null takes one out of temperature=0.7, top_p=0.95 and "
            "max_tokens=2048. May be repeated.",
        ),
    ] = None,
    dtype: Annotated[
        Literal["f32", "bf16", "int8"] | None, typer.Option(help="Of a local model's weights. Default: f32.")
    ] = None,
    mesh: Annotated[
        str | None,
        typer.Option(
            metavar="auto|data=D,model=M", help="How devices share a local model's work, as in grade. Default: auto."
        ),
    ] = None,
    slots: Annotated[
        int | None, typer.Option(min=1, help="Texts that a local model writes at once on each device. Default: 16.")
    ] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Requests under way at once. Default: 8.")] = None,
    timeout: Annotated[float | None, typer.Option(min=0.001, help="Seconds for one request. Default: 120.")] = None,
    retries: Annotated[
        int | None, typer.Option(min=0, help="Further tries of a request that failed for now. Default: 6.")
    ] = None,
    prices: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help='JSON: {"MODEL": {"input": 0.15, "output": 0.6}}, US dollars per million tokens.'
        ),
    ] = None,
    max_usd: Annotated[
        float | None, typer.Option(metavar="USD", help="Send no request that could cost more than is left of this.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say how much would be asked; nothing is sent or written.")
    ] = False,
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Only write the requests into a file for a batch service; with -o, those that lack in OUT.",
        ),
    ] = None,
    answers: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Ask nobody: read the answers of the batch service.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Ask only for what lacks in OUT.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Remove the checklists in OUT, begin anew.")] = False,
    as_json: JsonOpt = False,
) -> None:
    """Lets a language model write checklists for the queries that have none, into a new benchmark.

    Example: rocketjax create bench/ --generator api:gpt-5-mini --all --dry-run
    """
    if not generator or generator == "api:":
        usage(f"--generator is {generator!r}; it takes org/name, a path, default, or api:MODEL")
    remote = generator.startswith("api:")
    local: dict[str, object] = {"--dtype": dtype, "--mesh": mesh, "--slots": slots}
    sending: dict[str, object] = {"--concurrency": concurrency, "--timeout": timeout, "--retries": retries}
    if remote:
        wrong = dict.fromkeys(local, "is for a model on this machine") | dict.fromkeys(
            sending if dry_run or prompts is not None or answers is not None else (),
            "is for requests that are sent here",
        )
    else:
        only = ("--concurrency", "--timeout", "--retries", "--prices", "--max-usd", "--prompts", "--answers")
        wrong = dict.fromkeys(only, "is for api:MODEL") | dict.fromkeys(local if dry_run else (), "is for writing")
    given = local | sending | {"--prices": prices, "--max-usd": max_usd, "--prompts": prompts, "--answers": answers}
    for option, why in wrong.items():
        if given[option] is not None:
            usage(f"{option} {why}, so it does nothing here")
    if seed is not None and not compare:
        usage("--seed is of the responses that --compare shows; a local model's texts are drawn by --set seed=N")
    if resume and overwrite:
        usage("--resume and --overwrite exclude each other")
    if sum((dry_run, prompts is not None, answers is not None)) > 1:
        usage("--dry-run, --prompts and --answers exclude each other")
    if (output is None) != dry_run and prompts is None:
        usage("--dry-run writes nothing, so it takes no -o" if dry_run else "-o is missing: where the benchmark goes")
    if prompts is not None and (resume or overwrite):
        usage("--prompts changes nothing in OUT: it takes neither --resume nor --overwrite")
    if max_usd is not None and (dry_run or prompts is not None or answers is not None):
        usage("--max-usd is for requests that are sent here")
    from rocketjax.create import (
        AnswersWriter,
        ApiWriter,
        LocalWriter,
        api_model,
        create_checklists,
        estimate_checklists,
        plan_checklists,
        read_prices,
        write_batch,
    )

    fields = dict(field_of(text) for text in settings or ())
    known = None if prices is None else read_prices(prices)
    asking: dict[str, Any] = {
        "template": template, "compare": compare, "reference": reference, "limit": limit, "everything": everything,
        "seed": seed or 0,
    }  # fmt: skip
    if dry_run:
        found = estimate_checklists(plan_checklists(bench, **asking), generator, fields, known, say)
        if as_json:
            print_json(vars(found))
            return
        if found.exact:
            say(f"{found.prompts:,} prompts with {found.prompt_tokens:,} tokens")
        else:
            say(
                f"{found.prompts:,} prompts with about {found.prompt_tokens:,} tokens (four bytes each; nothing was "
                "sent)"
            )
        if found.most_completion_tokens is not None:
            worst = "" if found.usd is None else f"; with all of them about ${found.usd:,.4f}"
            say(f"  answers of at most {found.most_completion_tokens:,} tokens{worst}")
        say_failed(found.unfit)
        return
    model = api_model(generator)
    if prompts is not None:
        assert model is not None
        count = write_batch(plan_checklists(bench, **asking), prompts, model, fields, output)
        if as_json:
            print_json({"prompts": count, "file": str(prompts)})
        else:
            say(f"wrote {count:,} requests into {prompts}; give the service's answers with --answers FILE")
        return
    assert output is not None
    mode: Literal["new", "resume", "overwrite"] = "resume" if resume else "overwrite" if overwrite else "new"
    writer: Any
    chosen: dict[str, Any] = {k[2:]: v for k, v in (local | sending).items() if v is not None}
    if model is None:
        writer = functools.partial(LocalWriter, generator, fields, say=say, **chosen)
    elif answers is not None:
        writer = AnswersWriter(answers, model, fields, known)
    else:
        writer = ApiWriter(model, fields, prices=known, max_usd=max_usd, **chosen)
    with counting("asking", "queries") as progress:
        made = create_checklists(bench, output, writer, **asking, mode=mode, progress=progress)
    if as_json:
        print_json({**vars(made), "path": str(made.path)})
    else:
        say(
            f"wrote {made.path}: {made.created:,} checklists with {made.items:,} items"
            + (f", {made.kept:,} were there" if made.kept else "")
            + (f", {made.left:,} queries beyond the limit have none" if made.left else "")
        )
        for reason, count in made.refused.items():
            say(f"  refused: {count:,} pieces of answers ({reason})")
        if made.labels_left_out:
            say(f"  left out: {made.labels_left_out:,} rows of labels of items that are there no more")
        cost = "" if made.usd is None else f"; ${made.usd:,.4f} spent on this folder so far, at worst"
        say(
            f"  {made.asked:,} answers, {made.prompt_tokens:,} + {made.completion_tokens:,} tokens"
            + (" as the server counts" if remote else "")
            + cost
        )
    if answers is not None and (writer.unread or writer.unknown):
        lines = " ".join(map(str, writer.unread[:10])) + (" ..." if len(writer.unread) > 10 else "")
        say(
            f"in {answers}: {writer.unknown:,} answers to other prompts, "
            f"{len(writer.unread):,} unreadable lines {lines}"
        )
    say_failed(made.failed)
    raise typer.Exit(MISSING if made.failed else DONE)


def field_of(text: str) -> tuple[str, Any]:
    """NAME=VALUE, where a value that is no JSON is a text."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        usage(f"--set is {text!r}; it takes NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def say_failed(failed: dict[str, str]) -> None:
    """Every query without a checklist, with the reason."""
    if failed:
        say(f"{len(failed):,} queries have no checklist:")
    for session_id, reason in failed.items():
        say(f"  {session_id}: {reason}")


@app.command()
def refine(
    bench: Annotated[Path, typer.Argument(metavar="BENCH", help="The benchmark whose checklists are refined.")],
    run: Annotated[Path, typer.Option("--run", metavar="RUN", help="A complete run of it.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="OUT", help="Folder of the new benchmark.")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels", metavar="LABELER", help="Drop items that go against these scores, prefer those that fit them."
        ),
    ] = None,
    train_models: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --labels: only those of these models, a name per line.")
    ] = None,
    keep: Annotated[int | None, typer.Option(min=1, help="Cut every checklist to its best N items.")] = None,
    least: Annotated[int, typer.Option(min=1, help="Leave at least so many items in a checklist.")] = 3,
    responses: Annotated[
        int, typer.Option(min=1, help="Graded responses that it takes before answers drop an item.")
    ] = 12,
    merge: Annotated[
        bool, typer.Option("--merge", help="Drop the worse of two items that say the same; else both are only flagged.")
    ] = False,
    probes: Annotated[
        int, typer.Option(min=0, help="Ask so many responses of every query again in other words (4 times the items).")
    ] = 0,
    judge: JudgeOpt = None,
    grades_only: Annotated[
        bool, typer.Option("--grades-only", help="Without the judge: no duplicates by meaning, no count of tokens.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would become of the items.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a refined benchmark that is there.")] = False,
    top: Annotated[int, typer.Option(min=0, help="Items to show of each kind.")] = 8,
    as_json: JsonOpt = False,
) -> None:
    """Better checklists: drops dead, unanswerable and harmful items, finds duplicates, by what a run of them says.

    Example: rocketjax refine bench/ --run runs/first -o refined/
    """
    if (output is None) != dry_run:
        usage("name the new benchmark's folder with -o, or ask for --dry-run")
    if train_models is not None and labels is None:
        usage("--train-models goes with --labels")
    if grades_only and (judge is not None or probes):
        usage("--grades-only goes without --judge and --probes")
    from rocketjax.grade import Judge, Run
    from rocketjax.refine import Settings, refine_checklists

    opened = Run.open(run)
    loaded = None
    if not grades_only:
        opened.require_complete()
        loaded = Judge.load(judge, opened.meta["judge"]["dtype"] or "f32", say)
    models = None if train_models is None else read_names(train_models)
    with screen.status("looking at the items"):
        found = refine_checklists(
            bench, opened, None if dry_run else output, labeler=labels, train_models=models, judge=loaded,
            probes=probes, overwrite=overwrite,
            settings=Settings(least=least, keep=keep, responses=responses, merge=merge),
        )  # fmt: skip
    about = found.summary
    if as_json:
        print_json(about | {"records": found.records} if dry_run else about)
        return
    show_refined(found.records, about, top)
    if not dry_run:
        say(f"wrote {output}: the new benchmark; why is in its refine.jsonl and refine.json")


def show_refined(records: list[dict[str, Any]], about: dict[str, Any], top: int) -> None:
    """What becomes of the items, counted, and some of each kind."""
    count, cost = about["items"], about["cost"]
    say(f"{count['before']:,} items: {count['keep']:,} stay, {count['flag']:,} stay with a flag, {count['drop']:,} go, "
        f"{count['merge']:,} are merged into another")  # fmt: skip
    if count["not_in_the_run"]:
        say(f"  not in the run, so left as they are: {count['not_in_the_run']:,} items")
    for kind, actions in about["reasons"].items():
        say(f"  {kind}: " + ", ".join(f"{n:,} {action}" for action, n in actions.items()))
    for name in ("items", "tokens"):
        before, after = cost["before"][name], cost["after"][name]
        if before:
            say(f"  {name} over all responses: {before:,} before, {after:,} after ({after / before:.0%})")
    if about["probes"] is not None:
        p = about["probes"]
        say(f"  negated questions answered the other way round: {p['negation_followed']:,} of {p['negated']:,}")
    if about["labels"] is not None:
        say(f"  labels of {len(about['labels']['models'])} models took part; how well the new checklists agree with "
            "these says nothing, compare on other models")  # fmt: skip
    if about["left_out"].get("item_judgments"):
        say(f"  judgments of items that are gone, left out: {about['left_out']['item_judgments']:,}")
    shown = Table(title="items that do not just stay")
    for name in ("query", "item", "action", "why", "text"):
        shown.add_column(name, justify="right" if name == "item" else "left")
    for kind in about["reasons"]:
        rows = [r for r in records if any(x["kind"] == kind for x in r["reasons"])]
        for row in rows[:top]:
            numbers = next(x for x in row["reasons"] if x["kind"] == kind)
            why = ", ".join(f"{k} {v:.3g}" for k, v in numbers.items() if k not in ("kind", "drop") and v is not None)
            shown.add_row(row["session_id"], str(row["item"]), row["action"], f"{kind}: {why}", row["text"])
    if shown.row_count:
        (Console() if sys.stdout.isatty() else Console(width=160)).print(shown)


@app.command("import")
def import_(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="table: a CSV, TSV, JSONL or parquet file with a row per answer. A public set: alpacaeval, "
            "arenahard, hellobench, infobench, judgebench, llmbar, mtbench, pandalm, prometheus, realsumm, "
            "structflowbench or wildbench. A tool's files: fastchat, inspect (inspect_ai's logs), lmeval "
            "(lm-evaluation-harness's samples) or arena (Chatbot Arena's votes, with the conversations). Or "
            "matches: such votes without texts, which become ratings of the models, for --ratings. Or judgments: "
            "RocketEval's recorded ones, which become a run.",
        ),
    ],
    path: Annotated[Path, typer.Argument(metavar="PATH", help="File or folder as its authors publish it.")],
    output: Annotated[
        Path, typer.Argument(metavar="OUT", help="The benchmark's folder to make; of matches, a .json file.")
    ],
    item: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The one question about responses without a checklist.")
    ] = None,
    checklist: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|COL",
            help="Checklists: a text with an item per line, for all questions; or a table with columns question (or "
            "session_id) and items, perhaps weights and categories; for table also a column of its own.",
        ),
    ] = None,
    question: Annotated[
        str | None,
        typer.Option(
            metavar="COL",
            help="For table: the question's column. Default: question. For lmeval: the field of doc to show in place "
            "of the whole prompt.",
        ),
    ] = None,
    response: Annotated[
        str | None, typer.Option(metavar="COL", help="For table: the answer's column. Default: response or answer.")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="COL", help="For table: who answered. Default: model.")] = None,
    session: Annotated[
        str | None, typer.Option(metavar="COL", help="For table: the query's id. Left out: made of its question.")
    ] = None,
    score: Annotated[str | None, typer.Option(metavar="COL", help="For table: somebody's score of the answer.")] = None,
    labeler: Annotated[
        str | None, typer.Option(metavar="NAME", help="For table: whose score it is. Default: its column's name.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(metavar="COL", help="For table: a reference answer to the question.")
    ] = None,
    bench: Annotated[
        Path | None, typer.Option(metavar="BENCH", help="For judgments: the benchmark that they are about.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the import that is there.")] = False,
    as_json: JsonOpt = False,
) -> None:
    """Turns your answers, a public data set or a tool's files into a benchmark, or recorded judgments into a run.

    Example: rocketjax import table answers.csv bench/mine --checklist items.txt
    """
    require_local(path, None if name == "judgments" else output)
    if (name == "judgments") != (bench is not None):
        usage("--bench goes with NAME judgments: the benchmark that they are about")
    columns = {
        "response": response, "model": model, "session": session, "score": score, "labeler": labeler,
        "reference": reference,
    }  # fmt: skip
    for option, value in columns.items():
        if value is not None and name != "table":
            usage(f"--{option} is for NAME table")
    if question is not None and name not in ("table", "lmeval"):
        usage("--question is for NAME table and lmeval")
    if labeler is not None and score is None:
        usage("--labeler goes with --score: the column of the scores that are theirs")
    if name in ("judgments", "matches") and (item is not None or checklist is not None):
        usage("--item and --checklist are for data sets without checklists")
    if bench is not None:
        import_judgments(bench, path, output, overwrite, as_json)
        return
    if name == "matches":
        import_matches(path, output, overwrite, as_json)
        return
    from rocketjax.bench import import_benchmark, import_table

    if name == "table":
        given = {option: value for option, value in {**columns, "question": question}.items() if value is not None}
        imported = import_table(path, output, checklist=checklist, item=item, overwrite=overwrite, **given)
    else:
        imported = import_benchmark(
            name, path, output, item=item, checklist=checklist, question=question, overwrite=overwrite
        )
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


def import_matches(path: Path, output: Path, overwrite: bool, as_json: bool) -> None:
    """Votes without texts into a file of ratings, as `read_ratings` reads it."""
    from rocketjax.bench import read_matches
    from rocketjax.grade import write_json
    from rocketjax.report import ratings

    if os.path.lexists(output) and (not overwrite or not output.is_file()):
        raise RocketError(f"{output}: is there already; give another file" + ", or --overwrite" * output.is_file())
    matches, left_out = read_matches(path)
    found = ratings(matches)
    rated = {model: row for model, row in found.items() if row["rating"] is not None}
    apart = sorted(found.keys() - rated.keys())
    output.parent.mkdir(parents=True, exist_ok=True)
    about = {"rating_system": "bt", "matches": len(matches), "left_out": left_out, "without_rating": apart}
    write_json(output, {**about, "ratings": rated})
    if as_json:
        print_json({"file": str(output), **about, "ratings": rated})
        return
    say(f"wrote {output}: Bradley-Terry ratings of {len(rated):,} models from {len(matches):,} matches; for --ratings")
    if apart:
        say(f"without a rating, for they only won, only lost or never met the rest: {', '.join(apart)}")
    for reason, count in left_out.items():
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
    code, _ = run_grading(benchmark, output, judge, dtype, False, mode="overwrite" if overwrite else "resume")
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


def with_places(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command, whose paths may be URLs: typer makes a pathlib.Path of each, which takes a slash out of gs://."""

    def place(value: Any) -> Any:
        if isinstance(value, list):
            return [place(x) for x in value]
        return path_of(value) if isinstance(value, Path) else value

    @functools.wraps(command)
    def wrapped(**given: Any) -> Any:
        return command(**{name: place(value) for name, value in given.items()})

    return wrapped


for registered in app.registered_commands:
    if registered.callback is not None:
        registered.callback = with_places(registered.callback)


def main() -> None:
    """The entry point: a user's mistake is one line on standard error, never a traceback."""
    try:
        code = app(standalone_mode=False)
    except RocketError as e:
        screen.quiet = False
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
    except Exception:
        if "--distributed" not in sys.argv:
            raise
        # The interpreter's exit would wait for the other processes, who wait for this one.
        traceback.print_exc()
        code = FAILED
    if code == INTERRUPTED:
        command = next((a for a in sys.argv[1:] if not a.startswith("-")), "")
        how = {"run": "the same command continues it", "demo": "the same command continues it"}
        how |= dict.fromkeys(("grade", "judgment", "tune", "create"), "the same command with --resume continues it")
        say("interrupted" + (f"; what was done is kept, {how[command]}" if command in how else ""))
    if code not in (DONE, MISSING) and "--distributed" in sys.argv:
        from rocketjax.judge import leave

        leave(code)
    sys.exit(code)
