"""The cost estimate: token for token what a run reports, FLOPs as XLA counts them, and how it scales."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import pytest
from broken import write_good
from fakes import random_bench, tiny_judge
from flax import nnx

from rocketjax import cli, doctor
from rocketjax.bench import Benchmark, Checklist, Message, Query, Response
from rocketjax.errors import RocketError
from rocketjax.grade import (
    DEVICES,
    Answers,
    Device,
    Grader,
    Work,
    estimate_run,
    make_prompter,
    named_device,
    row_flops,
    survey,
    this_device,
    typical,
)
from rocketjax.grade import estimate as cost
from rocketjax.judge import Checkpoint, Config, Row, Transformer, attention, convert, load_model, read_config
from rocketjax.judge.load import cast
from rocketjax.judge.sharding import choose_mesh, weight_bytes_per_device
from rocketjax.prompt import PackedRow, pack_query

GOLDEN = Path(__file__).parent / "golden" / "tiny_llama"
SLOW = Device("slow", "cpu", 1e9, 1e9)  # FLOP/s


@pytest.fixture(scope="module")
def judge():
    return tiny_judge()


def prompter_of(judge, **options):
    return make_prompter(judge.tokenizer, judge.model.config, **options)


def without(bench: Benchmark, model: str, session: str) -> Benchmark:
    """The benchmark with one response missing."""
    responses = {m: {s: r for s, r in by.items() if (m, s) != (model, session)} for m, by in bench.responses.items()}
    return msgspec.structs.replace(bench, responses=responses)


@pytest.mark.parametrize(
    ("words", "options"), [(30, {}), (250, {}), (250, {"overflow": "skip", "max_tokens": 900})], ids=str
)
def test_counts_are_those_of_the_run(words, options, judge, tmp_path, monkeypatch):
    """The command line's test below compares a run that computes; here the program is left out, which takes longest."""

    def call(self: Grader, rows: list[PackedRow]) -> Answers:
        return Answers(*(np.full((self.rows(rows[0].length), len(rows[0].leaf_L)), 0.5, np.float32) for _ in range(4)))

    monkeypatch.setattr(Grader, "call", call)
    bench = without(random_bench(queries=9, models=4, words=words), "model-2", "s03")
    done = []
    judge.grade(bench, tmp_path / "run", progress=lambda work: done.append(dataclasses.replace(work)), **options)
    work: Work = done[-1]
    config = judge.model.config
    workload = survey(bench, prompter_of(judge, **options), config)
    told = estimate_run(workload, config, "f32", SLOW)
    assert told.basis == "packed" and told.queries == 9 and told.skipped == work.failed > 0
    assert (told.items, told.tokens, told.padded_tokens) == (work.items, work.tokens, work.padded_tokens)
    assert (told.naive_tokens, told.flops) == (work.naive_tokens, work.flops)
    assert told.rows == {length: rows for length, (rows, _) in sorted(work.lengths.items())}
    # What a program computes besides: padded tokens and leaves, and whole blocks of attention.
    assert told.flops < told.padded_flops < 20 * told.flops


def test_padded_flops_are_those_of_xla():
    """With every block visited, `plain` attention computes them all, and XLA counts its whole program."""
    config = Config(
        "llama", layers=3, D=256, N=4, K=2, H=64, F=1024, V=2048, context=4096, norm_eps=1e-6, rope_theta=1e4
    )
    length, leaves = 512, 32
    graph, state = nnx.split(nnx.eval_shape(lambda: Transformer(config)))
    row = Row(*(jax.ShapeDtypeStruct((n,), jnp.int32) for n in (length, length, length, length, leaves)))
    lowered = jax.jit(lambda state, row: nnx.merge(graph, state)(row, "plain")).lower(state, row)
    counted = lowered.cost_analysis()["flops"]
    every = (config.layers - 1) * length * length + leaves * length
    own = cost.padded_flops(config, length, cost.Rows(rows=1, pairs=every))
    # XLA also counts norms, rotations, masks and softmax, here 2 to 3%; they shrink with the model's width.
    assert own < counted < 1.05 * own


@pytest.mark.parametrize("local", [True, False])
def test_blocks_are_those_that_attention_visits(local):
    judge = tiny_judge(local=local)
    bench, config = random_bench(queries=1, models=4, words=300), judge.model.config
    (session,), prompter = bench.checklists, prompter_of(judge)
    answers = [prompter.prompts(bench, session, model).sequences for model in bench.models]
    row = max(pack_query(answers, 4096, config.window), key=lambda row: row.length)
    tree = attention.Tree(jnp.asarray(row.end_T), jnp.asarray(row.start_T))
    total = 0
    for n in range(config.layers):
        index = row.leaf_L if n == config.layers - 1 else np.arange(row.length)
        plan = attention.schedule(jnp.asarray(index), tree, n in config.local_layers)
        total += int(plan.count_Q.sum()) * min(attention.BLOCK, len(index)) * attention.BLOCK
    assert cost.visited_pairs(config, row) == total < config.layers * row.length**2 / 2
    assert row_flops(config, row) < cost.padded_flops(config, row.length, cost.rows_of(config, row))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["f32", "bf16", "int8"])
def test_weights_take_the_bytes_of_the_loaded_model(dtype):
    model = cast(tiny_judge().model, dtype)
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(nnx.state(model)))
    assert cost.weight_bytes(model.config, dtype) == held


@pytest.mark.slow
def test_activations_are_about_those_of_xla():
    config = Config("llama", layers=3, D=96, N=6, K=2, H=16, F=256, V=9000, context=4096, norm_eps=1e-6, rope_theta=1e4)
    length, leaves = 1024, 64
    graph, state = nnx.split(nnx.eval_shape(lambda: Transformer(config)))
    row = Row(*(jax.ShapeDtypeStruct((n,), jnp.int32) for n in (length, length, length, length, leaves)))
    compiled = jax.jit(lambda state, row: nnx.merge(graph, state)(row, "gathered")).lower(state, row).compile()
    held = compiled.memory_analysis().temp_size_in_bytes
    assert 0.5 < held / cost.activation_bytes(config, length, 1) < 1.5


def test_a_config_is_read_without_weights(tmp_path):
    config = load_model(GOLDEN, "f32")[0].config
    shutil.copytree(GOLDEN, tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
    assert read_config(tmp_path / "bare") == config
    convert(Checkpoint(GOLDEN, "path:tiny"), tmp_path / "orbax", "f32")
    shutil.rmtree(tmp_path / "orbax" / "weights")
    assert read_config(tmp_path / "orbax") == config
    with pytest.raises(RocketError, match="no such judge"):
        read_config(tmp_path / "nowhere")


def of_lengths(queries: int, responses: int, items: int, query_bytes: int, response_bytes: int, item_bytes: int):
    """Random text of exact lengths; two responses, and two items, differ from their first byte on."""
    rng = np.random.default_rng(0)

    def text(first: int, length: int) -> str:
        return chr(65 + first) + "".join(chr(97 + c) for c in rng.integers(0, 26, length - 1))

    ids = [f"s{i}" for i in range(queries)]
    return Benchmark(
        name="lengths",
        path="lengths",
        queries={i: Query(i, (Message("user", text(0, query_bytes)),), {}) for i in ids},
        checklists={i: Checklist(i, tuple(text(k, item_bytes) for k in range(items))) for i in ids},
        responses={
            f"m{m}": {i: Response(i, f"m{m}", text(m, response_bytes), None) for i in ids} for m in range(responses)
        },
        labels={},
        exclusions=(),
    )


@pytest.mark.parametrize("shape", [(100, 300, 25, 5, 4), (700, 90, 60, 7, 3), (40, 900, 30, 3, 12)], ids=str)
def test_lengths_alone_tell_what_packing_tells(shape, judge):
    query, response, item, responses, items = shape
    prompter, config = prompter_of(judge), judge.model.config
    packed = survey(of_lengths(6, responses, items, query, response, item), prompter, config)
    short = typical(prompter, config, 6 * responses * items, items, responses, query, response, item)
    a, b = (estimate_run(w, config, "f32", SLOW) for w in (packed, short))
    assert (a.items, a.queries, b.basis) == (b.items, b.queries, "lengths")
    for name in ("tokens", "padded_tokens", "naive_tokens", "flops", "padded_flops", "compute_seconds"):
        assert getattr(b, name) == pytest.approx(getattr(a, name), rel=0.05), name


def test_more_responses_than_are_packed(judge, monkeypatch):
    prompter, config = prompter_of(judge), judge.model.config
    all_packed = typical(prompter, config, 1e6, 4, 60, 100, 300, 25)
    monkeypatch.setattr(cost, "MOST_RESPONSES", 30)
    half = typical(prompter, config, 1e6, 4, 60, 100, 300, 25)
    told = [estimate_run(w, config, "bf16", SLOW) for w in (all_packed, half)]
    assert told[0].items == told[1].items == 1_000_000
    assert told[1].queries == pytest.approx(told[0].queries, abs=1)
    assert told[1].tokens == pytest.approx(told[0].tokens, rel=0.03)


def test_a_sample_stands_for_all(judge):
    bench = random_bench(queries=120, models=3, words=60)
    prompter, config = prompter_of(judge), judge.model.config
    every, some = survey(bench, prompter, config), survey(bench, prompter, config, 30)
    assert survey(bench, prompter, config, 120).basis == survey(bench, prompter, config, 500).basis == "packed"
    a, b = (estimate_run(w, config, "f32", SLOW) for w in (every, some))
    assert (b.basis, b.packed_queries, a.tokens_error) == ("sample", 30, None)
    assert (a.items, a.queries) == (b.items, b.queries)
    assert 0 < b.tokens_error < 0.2 and b.tokens == pytest.approx(a.tokens, rel=1.5 * b.tokens_error)


def test_the_interval_of_a_sample_has_its_coverage():
    rng = np.random.default_rng(1)
    items = rng.integers(10, 40, 300)
    tokens = (items * rng.gamma(9, 10, 300)).astype(int)
    inside = 0
    for _ in range(2000):
        chosen = rng.choice(300, 60, replace=False)
        total = tokens[chosen].sum() / items[chosen].sum() * items.sum()
        error = cost.ratio_error([(int(items[i]), int(tokens[i])) for i in chosen], 300)
        inside += abs(total - tokens.sum()) <= error * total
    assert 0.92 < inside / 2000 < 0.97


def test_twice_the_items_and_many_devices(judge):
    prompter, config = prompter_of(judge), judge.model.config
    one, two = (typical(prompter, config, n) for n in (1e9, 2e9))
    v5e = named_device("tpu-v5e")
    a, b, many = (estimate_run(w, config, "bf16", v5e, n) for w, n in ((one, 1), (two, 1), (one, 256)))
    for name in ("items", "tokens", "padded_tokens", "naive_tokens", "flops", "padded_flops", "compute_seconds"):
        assert getattr(b, name) == pytest.approx(2 * getattr(a, name), rel=1e-6), name
    assert many.compute_seconds == pytest.approx(a.compute_seconds / 256, rel=1e-3)
    assert many.host_seconds == pytest.approx(a.host_seconds / 64)  # four chips share a host
    assert many.weight_bytes == a.weight_bytes and many.tokens == a.tokens
    assert many.device_hours == pytest.approx(256 * many.seconds / 3600)
    assert many.dollars == pytest.approx(1.2 * many.device_hours)
    assert estimate_run(one, config, "bf16", v5e, price=0.5).dollars == pytest.approx(0.5 * a.device_hours)
    assert estimate_run(one, config, "bf16", named_device("T4")).dollars is None
    # A few rows keep no more than a few devices busy.
    few = typical(prompter, config, 200)
    least = estimate_run(few, config, "bf16", v5e, 1000).compute_seconds
    assert least == estimate_run(few, config, "bf16", v5e, 2000).compute_seconds > 0


def test_the_bottleneck_is_the_largest_part(judge):
    config = judge.model.config
    workload = dataclasses.replace(typical(prompter_of(judge), config, 1e7), host_seconds=1000.0)
    fast = Device("fast", "gpu", 1e18, 1e18, 1e9, 1e18)

    def of(device: Device, factor: float = 1.0):
        return estimate_run(workload.times(factor), config, "bf16", device)

    assert of(fast).bottleneck == "host text" and of(fast).seconds >= 1000
    assert of(dataclasses.replace(fast, bf16=1e9)).bottleneck == "compute"
    assert of(dataclasses.replace(fast, bandwidth=1e6)).bottleneck == "memory bandwidth"
    assert of(fast, 1e-3).bottleneck == "start"
    assert of(dataclasses.replace(fast, memory=1e5)).fits is False and of(fast).fits is True
    # A CPU has one set of cores for both, an accelerator has none of the host's.
    cpu = of(dataclasses.replace(fast, platform="cpu", bf16=1e12, f32=1e12))
    assert cpu.seconds == pytest.approx(
        cpu.start_seconds + cpu.compile_seconds + cpu.compute_seconds + cpu.host_seconds
    )


def test_weights_are_cut_where_the_run_cuts_them(judge):
    """Against `choose_mesh`, with devices that say how much memory they have."""

    class Chip:
        platform = "tpu"

        def __init__(self, memory: float) -> None:
            self.memory = memory

        def memory_stats(self) -> dict[str, float]:
            return {"bytes_limit": self.memory}

    config = judge.model.config
    workload = typical(prompter_of(judge), config, 1e7)
    weights = cost.weight_bytes(config, "bf16")
    axes = []
    for share in (3.0, 1.2, 0.95, 0.2):
        memory = weights * share
        device = Device("some", "tpu", 1e12, 1e12, memory, 1e12, 4)
        told = estimate_run(workload, config, "bf16", device, 8)
        try:
            shape = choose_mesh(config, weights, [Chip(memory)] * 4)
        except RocketError:
            assert (told.model_axis, told.weight_bytes, told.fits) == (1, weights, False)
            continue
        axes.append(told.model_axis)
        assert told.model_axis == shape.model
        assert told.weight_bytes == round(weight_bytes_per_device(config, weights, shape.model)) <= 0.6 * memory
        assert ("weights cut over" in cost.describe(told)["memory per device"]) == (shape.model > 1)
        # What is computed is the same, by as many devices.
        whole = estimate_run(workload, config, "bf16", dataclasses.replace(device, memory=None), 8)
        assert told.padded_flops == whole.padded_flops
        assert told.compute_seconds == pytest.approx(whole.compute_seconds, rel=0.02)
    assert axes[0] == 1 and max(axes) > 1, "both cases are there"


def test_exact_products_take_the_rate_of_f32(judge):
    config = judge.model.config
    workload = typical(prompter_of(judge), config, 1e6)
    for name in DEVICES:
        f32, bf16, int8 = (estimate_run(workload, config, d, named_device(name)) for d in ("f32", "bf16", "int8"))
        assert f32.compute_seconds >= bf16.compute_seconds > 0 and int8.rate == bf16.rate
        assert f32.weight_bytes > bf16.weight_bytes > int8.weight_bytes
    here, count = this_device(2e9, 1e9)
    assert count == 1 and here.memory > 1e8  # however many devices JAX makes of this CPU
    told = {d: estimate_run(workload, config, d, here) for d in ("f32", "bf16", "int8")}
    assert told["int8"].rate == told["f32"].rate == 2e9 and told["bf16"].rate == 1e9


def test_what_cannot_be_estimated(judge):
    prompter, config = prompter_of(judge, max_tokens=500), judge.model.config
    with pytest.raises(RocketError, match=r"unknown device 'h10'; there are: here, h100, .*tpu-v6e"):
        named_device("h10")
    with pytest.raises(RocketError, match=r"a prompt of these lengths has \d+ tokens, the limit is 500"):
        typical(prompter, config, 1e3, response_tokens=900)
    for bad in ({"items": 0}, {"items": float("inf")}, {"items": 10, "item_tokens": 0}):
        with pytest.raises(RocketError, match="1 or more"):
            typical(prompter, config, **bad)
    with pytest.raises(RocketError, match="at least 1"):
        estimate_run(typical(prompter, config, 10, response_tokens=9), config, "f32", SLOW, 0)
    with pytest.raises(RocketError, match="the prompt has"):
        survey(random_bench(words=400), prompter, config)
    with pytest.raises(RocketError, match="nothing to grade"):
        survey(msgspec.structs.replace(random_bench(), checklists={}), prompter, config)


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


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The tiny golden judge with room for real prompts."""
    folder = tmp_path_factory.mktemp("judges") / "tiny"
    shutil.copytree(GOLDEN, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 8192}))
    return folder


def test_on_the_command_line(rocketjax, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "matmul_flops", lambda dtype: 1e11)
    bench, run = tmp_path / "bench", tmp_path / "run"
    write_good(bench)
    some = (bench, "--limit", 1, "-o", run, "-j", tiny, "--json")
    code, out, err = rocketjax("grade", *some, "--estimate")
    assert code == cli.DONE, err
    told = json.loads(out)
    assert not run.exists() and told["device"] == "this machine" and told["dollars"] is None
    code, out, err = rocketjax("grade", *some, "--profile")
    assert code == cli.DONE, err
    summary = json.loads(out)
    for name in ("tokens", "padded tokens", "whole prompts", "FLOPs"):
        assert summary["estimate"][name][0] == summary["estimate"][name][1] > 0, name
    assert told["tokens"] == summary["session_tokens"] and told["items"] == summary["items"]

    weightless = tmp_path / "weightless"
    shutil.copytree(tiny, weightless, ignore=shutil.ignore_patterns("*.safetensors"))
    code, out, err = rocketjax(
        "estimate", bench, "-j", weightless, "--limit", 1, "--device", "h100", "--chips", 2, "--price", "1.5"
    )
    assert code == cli.DONE and "2 x h100" in out and "at 1.5 per device and hour" in out, err
    code, out, err = rocketjax(
        "estimate", "--items", "1e9", "-j", weightless, "--device", "tpu-v5e", "--chips", 256, "--dtype", "bf16"
    )
    assert code == cli.DONE and "1,000,000,000 items of 5,000,000 queries" in out and "not measured" in out, err

    code, _, err = rocketjax("estimate", bench, "-j", tiny, "--device", "abacus")
    assert code == cli.FAILED and "unknown device 'abacus'" in err and "tpu-v5e" in err
    for wrong in (
        (),
        (bench, "--items", "5"),
        ("--items", "5", "--limit", "2"),
        (bench, "--chips", "2"),
        (bench, "--models", ","),
        (bench, "--query-tokens", "500"),
        ("--items", "5", "--overflow", "skip"),
        (bench, "--price", "-1"),
    ):
        assert rocketjax("estimate", *wrong)[0] == 2, wrong
