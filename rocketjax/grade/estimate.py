"""What a run will cost, before it: tokens, FLOPs, memory, seconds and dollars, on this device or a named one.

The workload is exact: the rows are made as a run makes them, from the judge's tokenizer and config alone. Seconds come
from a roofline (Williams et al. 2009, doi 10.1145/1498765.1498785) per call of the program and from the constants
below, each with where it is from; on a CPU they were checked against runs (`experiments/estimate_check.py`), on
accelerators they are assumptions.

Axes: T tokens of a row, L leaves.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import jax
import numpy as np

from rocketjax.bench import Benchmark, Message
from rocketjax.errors import RocketError
from rocketjax.grade.run import OK
from rocketjax.grade.step import group_rows, row_flops
from rocketjax.grade.stream import Shard, prepare
from rocketjax.judge import Config, Dtype
from rocketjax.judge.attention import BLOCK
from rocketjax.judge.load import weight_bytes
from rocketjax.judge.sharding import ROOM, weight_bytes_per_device
from rocketjax.prompt import PackedRow, Prompter, Span, Special, pack_query, row_lengths
from rocketjax.prompt.pack import leaves_of
from rocketjax.prompt.prompts import chunks

Platform = Literal["cpu", "gpu", "tpu"]
Bottleneck = Literal["compute", "memory bandwidth", "host text", "start"]


@dataclass(frozen=True)
class Device:
    """What the roofline needs of one device. `f32` and `bf16` are FLOP/s of matrix products with operands in them and
    sums in f32; memory in bytes, bandwidth in bytes/s, price in dollars an hour; None is not known."""

    name: str
    platform: Platform
    f32: float
    bf16: float
    memory: float | None = None
    bandwidth: float | None = None
    per_host: int = 1  # devices that share one host, which makes their rows
    price: float | None = None
    kinds: tuple[str, ...] = ()  # what JAX calls it


# Rates without sparsity, from NVIDIA's data sheets of H100 SXM, A100 80 GB SXM, L4 and T4: f32 is that of the CUDA
# cores, since f32 products here are exact and never TF32; a T4 has no bf16 units, its products run at the rate of f32.
# Google's pages docs.cloud.google.com/tpu/docs/v5e, v5p and v6e; exact f32 takes six passes of bf16.
# On-demand prices per device: Lambda's 8 x H100 SXM and 8 x A100 SXM 80 GB (lambda.ai/instances, 2026-09-20; others ask
# 2.7 to 12.3 dollars for an H100); TPU v5e "starting at 1.20 per chip-hour" (cloud.google.com/tpu, 2025-01-31); v5p
# from Austin et al. 2025, How to scale your model, part 8. No source was found for the others: give --price.
DEVICES = {
    device.name: device
    for device in (
        Device("h100", "gpu", 67e12, 989e12, 80e9, 3.35e12, 8, 3.99, ("NVIDIA H100 80GB HBM3",)),
        Device("a100", "gpu", 19.5e12, 312e12, 80e9, 2.039e12, 8, 2.79, ("NVIDIA A100-SXM4-80GB",)),
        Device("l4", "gpu", 30.3e12, 121e12, 24e9, 300e9, 1, None, ("NVIDIA L4",)),
        Device("t4", "gpu", 8.1e12, 8.1e12, 16e9, 320e9, 1, None, ("Tesla T4",)),
        Device("tpu-v5e", "tpu", 197e12 / 6, 197e12, 16e9, 819e9, 4, 1.20, ("TPU v5 lite", "TPU v5e")),
        Device("tpu-v5p", "tpu", 459e12 / 6, 459e12, 95e9, 2.765e12, 4, 4.20, ("TPU v5", "TPU v5p")),
        Device("tpu-v6e", "tpu", 918e12 / 6, 918e12, 32e9, 1.638e12, 4, None, ("TPU v6 lite", "TPU v6e")),
    )
}

# Share of the rate above that the program reaches over its FLOPs with padding. CPU: of the measured rate of one product
# (`doctor.matmul_flops`); the README's "Speed" has 70 to 80% of useful FLOPs. GPU and TPU: an assumption, not measured.
ACHIEVED: dict[Platform, float] = {"cpu": 0.78, "gpu": 0.4, "tpu": 0.4}
BANDWIDTH_ACHIEVED = 0.8  # of the data sheet's; an assumption, it binds on accelerators only
# Seconds to compile one row length, with an empty cache. CPU: 1.6 to 2.5 (README, "Speed"); the others assumed.
COMPILE: dict[Platform, float] = {"cpu": 2.0, "gpu": 10.0, "tpu": 10.0}
START = 5.0  # seconds until the interpreter, JAX and the package are there, on two CPU cores
LOAD = 1e8  # parameters read, dequantised, hashed and placed in a second, on two CPU cores
# Seconds per token of whole prompts, on two CPU cores, where this machine has not measured its own: every prompt is
# encoded whole, and packing compares whole sequences.
HOST = 1.2e-6
MOST_RESPONSES = 64  # of a typical query that are really packed; more are as many times these


@dataclass(frozen=True)
class Rows:
    """Sums over all rows of one length; a part of a benchmark scaled up has fractions."""

    rows: float = 0
    tokens: float = 0  # used
    flops: float = 0  # useful, `row_flops`
    pairs: float = 0  # of query and key in the blocks that attention visits, in all layers

    def plus(self, other: "Rows") -> "Rows":
        return Rows(*(getattr(self, f) + getattr(other, f) for f in self.__dataclass_fields__))

    def times(self, factor: float) -> "Rows":
        return Rows(*(getattr(self, f) * factor for f in self.__dataclass_fields__))


@dataclass(frozen=True)
class Workload:
    """What is to be computed. `rows` by row length.

    `basis` says how it is known: `packed` as the run will pack it, `sample` scaled up from some queries, `lengths`
    from typical lengths alone. `error` is the half width of a sample's 95% interval of tokens, as a share.
    """

    items: int  # of the checklists times responders, as the run counts them
    skipped: float  # of these without a prompt: no response, or too long
    queries: float
    naive_tokens: float  # of whole prompts, one per item
    rows: Mapping[int, Rows]
    host_seconds: float | None  # to encode and pack it all on one thread of this machine; None: not measured
    basis: Literal["packed", "sample", "lengths"]
    packed_queries: int
    error: float | None = None

    def times(self, factor: float) -> "Workload":
        """The same mix of rows, `factor` times as much of it."""
        return replace(
            self,
            items=round(self.items * factor),
            skipped=self.skipped * factor,
            queries=self.queries * factor,
            naive_tokens=self.naive_tokens * factor,
            rows={length: row.times(factor) for length, row in self.rows.items()},
            host_seconds=None if self.host_seconds is None else self.host_seconds * factor,
        )


@dataclass(frozen=True)
class Estimate:
    """What `estimate_run` says; bytes are per device, seconds those of a process from its start to its end."""

    device: str
    platform: Platform
    devices: int
    dtype: Dtype
    basis: Literal["packed", "sample", "lengths"]
    packed_queries: int
    tokens_error: float | None
    items: int
    skipped: int
    queries: int
    tokens: int  # computed, without padding
    padded_tokens: int
    naive_tokens: int
    flops: int  # useful
    padded_flops: int
    rows: dict[int, int]
    rate: float  # FLOP/s of a device before ACHIEVED
    model_axis: int  # devices over which the weights are cut; 1 where they fit on each
    weight_bytes: int
    activation_bytes: int
    memory_bytes: float | None
    fits: bool | None
    start_seconds: float
    compile_seconds: float
    compute_seconds: float
    host_seconds: float
    hosts: int
    seconds: float
    device_hours: float
    price: float | None
    dollars: float | None
    bottleneck: Bottleneck


def named_device(name: str) -> Device:
    """A device of the table; RocketError with the known names otherwise."""
    if name.lower() not in DEVICES:
        raise RocketError(f"unknown device {name!r}; there are: here, {', '.join(DEVICES)}")
    return DEVICES[name.lower()]


def this_device(f32: float, bf16: float) -> tuple[Device, int]:
    """This process' kind of device, with the rates of matrix products measured on one (`doctor.matmul_flops`), and how
    many there are.

    A CPU is one device, whatever JAX makes of it, since one product takes all of its cores.
    """
    device = jax.local_devices()[0]
    known = next((d for d in DEVICES.values() if device.device_kind in d.kinds), None)
    if device.platform == "cpu":
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else None
        return Device("this machine", "cpu", f32, bf16, memory), 1
    limit = (device.memory_stats() or {}).get("bytes_limit")
    platform: Platform = "tpu" if device.platform == "tpu" else "gpu"
    bandwidth, count = known.bandwidth if known else None, jax.local_device_count()
    return Device(f"this machine, {device.device_kind}", platform, f32, bf16, limit, bandwidth, count), count


def survey(benchmark: Benchmark, prompter: Prompter, config: Config, sample: int | None = None) -> Workload:
    """The workload of grading this benchmark, packed as `Judge.grade` packs it.

    With `sample`, so many queries, evenly spread over the sorted ids, stand for all, by their number of items. Raises
    RocketError as grading does: an over-long prompt, a reference that is missing.
    """
    sessions = sorted(benchmark.checklists)
    if not sessions or not benchmark.models:
        raise RocketError(f"{benchmark.path}: has no query with a checklist and a response; there is nothing to grade")
    chosen = sessions
    if sample is not None and sample < len(sessions):
        chosen = [sessions[i] for i in np.linspace(0, len(sessions) - 1, sample).round().astype(int)]
    rows: dict[int, Rows] = {}
    naive_tokens = skipped = 0
    host_seconds = 0.0
    per_query: list[tuple[int, int]] = []  # items, tokens
    for session in chosen:
        job = prepare(Shard(0, [session]), benchmark, prompter, config)
        for row in job.rows:
            rows[row.length] = rows.get(row.length, Rows()).plus(rows_of(config, row))
        skipped += sum(status != OK for status in job.status)
        naive_tokens += job.counts["naive_tokens"]
        host_seconds += job.counts["tokenise"] + job.counts["pack"]
        per_query.append((len(job.keys), sum(row.tokens for row in job.rows)))
    packed = Workload(
        sum(items for items, _ in per_query), skipped, len(chosen), naive_tokens, rows, host_seconds, "packed",
        len(chosen),
    )  # fmt: skip
    if len(chosen) == len(sessions):
        return packed
    items = sum(len(c.items) for c in benchmark.checklists.values()) * len(benchmark.models)
    error = ratio_error(per_query, len(sessions))
    return replace(packed.times(items / packed.items), queries=len(sessions), basis="sample", error=error)


def ratio_error(per_query: list[tuple[int, int]], queries: int) -> float | None:
    """Half width of the 95% interval of all tokens, as a share of them; `per_query` holds items and tokens.

    The ratio estimator's, with the correction for a finite population (Cochran 1977, Sampling Techniques, eq. 6.13).
    """
    items, tokens = np.asarray(per_query, float).T
    n = len(per_query)
    if n < 2 or not tokens.sum():
        return None
    residual = tokens - tokens.sum() / items.sum() * items
    variance = (1 - n / queries) / n * float((residual**2).sum()) / (n - 1)
    return 1.96 * math.sqrt(variance) / float(tokens.mean())


def typical(
    prompter: Prompter,
    config: Config,
    items: float,
    items_per_response: int = 10,
    responses_per_query: int = 20,
    query_tokens: int = 100,
    response_tokens: int = 300,
    item_tokens: int = 25,
) -> Workload:
    """The workload of a benchmark that is known by its lengths alone: one query of them, packed, and multiplied.

    The template's and the chat format's own tokens are added. Two items share no token, as two responses. Raises
    RocketError where a prompt of these lengths is longer than the prompter allows.
    """
    counts = (items, items_per_response, responses_per_query, response_tokens, item_tokens)
    if min(counts) < 1 or query_tokens < 0 or not math.isfinite(items):
        raise RocketError("items, responses and their tokens must be 1 or more, and a query's tokens 0 or more")
    before, between, ask, behind = wording(prompter)
    whole = before + query_tokens + between + response_tokens + ask + item_tokens + behind
    if whole > prompter.max_tokens:
        raise RocketError(f"a prompt of these lengths has {whole} tokens, the limit is {prompter.max_tokens}")

    def run(length: int, token: int) -> np.ndarray:
        return np.full(length, token, np.int32)

    def prompt(response: int, item: int) -> np.ndarray:
        pieces = [run(before + query_tokens + between, 0), run(response_tokens, response + 1), run(ask, 0)]
        return np.concatenate([*pieces, run(item_tokens, item + 1), run(behind, 0)])

    packed_responses = min(responses_per_query, MOST_RESPONSES)
    responses = [[prompt(m, i) for i in range(items_per_response)] for m in range(packed_responses)]
    rows: dict[int, Rows] = {}
    for row in pack_query(responses, row_lengths(prompter.max_tokens)[-1], config.window):
        rows[row.length] = rows.get(row.length, Rows()).plus(rows_of(config, row))
    packed = packed_responses * items_per_response
    one = Workload(packed, 0, packed_responses / responses_per_query, packed * whole, rows, None, "lengths", 0)
    return one.times(items / packed)


def wording(prompter: Prompter) -> tuple[int, int, int, int]:
    """Tokens of the prompt's own text: before the query, before the response, before the item, and behind it."""
    gaps: list[list[str | Special]] = [[]]
    for part in prompter.parts([Message("user", "query")], "response", "item"):
        if isinstance(part, Span):
            gaps.append([])
        else:
            gaps[-1].append(part)
    encode = prompter.tokenizer.encode
    first, *rest = (sum(1 if isinstance(p, Special) else len(encode(p)) for p in chunks(gap)) for gap in gaps)
    between, ask, behind = rest
    return first + (prompter.tokenizer.bos is not None), between, ask, behind


def rows_of(config: Config, row: PackedRow) -> Rows:
    """One row's part of a workload."""
    return Rows(1, row.tokens, row_flops(config, row), visited_pairs(config, row))


def visited_pairs(config: Config, row: PackedRow) -> int:
    """Pairs of query and key in the blocks that attention visits, summed over the layers: `attention.schedule`."""
    key_B = np.arange(0, row.length, BLOCK)
    end_B = row.end_T.reshape(-1, BLOCK).max(axis=1)

    def pairs(index_S: np.ndarray, local: bool) -> int:
        index_QB = index_S.reshape(-1, min(BLOCK, len(index_S)))
        live_QB = (key_B <= index_QB.max(axis=1)[:, None]) & (end_B > index_QB.min(axis=1)[:, None])
        if local:
            live_QB &= key_B + BLOCK > row.start_T[index_QB].min(axis=1)[:, None]
        return int(live_QB.sum()) * index_QB.shape[1] * BLOCK

    last, every = config.layers - 1, np.arange(row.length)
    local = sum(n in config.local_layers for n in range(last))
    total = pairs(row.leaf_L, last in config.local_layers)
    total += local * pairs(every, True) if local else 0
    return total + ((last - local) * pairs(every, False) if last > local else 0)


def dense_flops(config: Config, tokens: float, leaves: float) -> float:
    """FLOPs of all products but attention's, as in `row_flops`."""
    c = config
    keys, rest = 2 * c.D * c.K * c.H, 2 * c.D * c.N * c.H + 3 * c.D * c.F
    return 2 * (tokens * (c.layers * keys + (c.layers - 1) * rest) + leaves * (rest + c.D * c.V))


def padded_flops(config: Config, length: int, rows: Rows) -> float:
    """FLOPs that the program does for these rows: whatever is padded, and all pairs of the blocks that it visits."""
    return rows.rows * dense_flops(config, length, leaves_of(length)) + 4 * config.N * config.H * rows.pairs


def activation_bytes(config: Config, length: int, group: int) -> int:
    """About the most that one call holds beside weights and rows: f32[T, ...] of one layer, or the leaves' logits.

    The residual and its norm; queries, keys, values and their sum with a block's scores and weights, or the MLP's
    three. XLA's own account (`memory_analysis`) is 0.9 to 1.35 times this for models of the shapes of SmolLM2-135M and
    Gemma 3 270M, one row of 1,024 or 3,072 tokens or eight of 1,024.
    """
    c = config
    attention = 2 * (c.N + c.K) * c.H * length + 2 * c.N * BLOCK * length
    layer = 2 * c.D * length + max(attention, 3 * c.F * length)
    return 4 * group * max(layer, c.D * length + c.V * leaves_of(length))


def moved_bytes(config: Config, length: int, group: int, weights: int) -> float:
    """Bytes that one call moves through memory: weights once, the operands and results of every product in f32 once.

    Norms, rotations, activations and softmax are taken as fused into the products, and a block's attention weights as
    staying on the chip.
    """
    c = config
    layer = 7 * c.D + 4 * (c.N + c.K) * c.H + 4 * c.F
    return weights + 4.0 * group * (c.layers * layer * length + 2 * c.V * leaves_of(length))


def estimate_run(
    workload: Workload,
    config: Config,
    dtype: Dtype,
    device: Device,
    devices: int = 1,
    price: float | None = None,
) -> Estimate:
    """What a run over this workload will cost on `devices` of this kind.

    The rows of a length go out in calls of a group on every device (`group_rows`); a call takes
    max(FLOPs / (rate * achieved), bytes / (bandwidth * achieved)) seconds. Making rows goes on beside them, one thread
    per host; on a CPU both want the same cores, so there their times are added. Weights stand on every device, or are
    cut over some of a host's where the run would cut them (`choose_mesh`): these then share the work of a group, and
    the sums between them are not in the seconds. `price` is in dollars per device and hour, the device's own if None;
    dollars are None where neither is known.
    """
    if devices < 1:
        raise RocketError(f"{devices} devices; there must be at least 1")
    exact = dtype == "f32" or (dtype == "int8" and device.platform == "cpu")
    rate = device.f32 if exact else device.bf16
    axis, weights = cut(config, weight_bytes(config, dtype), device, devices)
    places, activations = devices // axis, 0
    parameters = weight_bytes(config, "f32") // 4
    compute_seconds = bandwidth_seconds = total_padded = 0.0
    for length, rows in workload.rows.items():
        group = group_rows(length, device.platform)
        calls = math.ceil(rows.rows / (group * places) - 1e-9)
        flops = padded_flops(config, length, rows)
        total_padded += flops
        activations = max(activations, activation_bytes(config, length, group))
        by_compute = flops / rows.rows * group / axis / (rate * ACHIEVED[device.platform])
        by_memory = 0.0
        if device.bandwidth is not None:
            moved = weights + moved_bytes(config, length, group, 0) / axis
            by_memory = moved / (device.bandwidth * BANDWIDTH_ACHIEVED)
        if by_compute >= by_memory:
            compute_seconds += calls * by_compute
        else:
            bandwidth_seconds += calls * by_memory
    hosts = math.ceil(devices / device.per_host)
    host_seconds = workload.host_seconds
    if host_seconds is None:
        host_seconds = workload.naive_tokens * HOST
    host_seconds /= hosts
    start = START + parameters / LOAD
    compiling = len(workload.rows) * COMPILE[device.platform]
    on_device = compute_seconds + bandwidth_seconds
    both = on_device + host_seconds if device.platform == "cpu" else max(on_device, host_seconds)
    seconds = start + compiling + both
    parts: dict[Bottleneck, float] = {
        "compute" if compute_seconds >= bandwidth_seconds else "memory bandwidth": on_device,
        "host text": host_seconds,
        "start": start + compiling,
    }
    hours = devices * seconds / 3600
    price = device.price if price is None else price
    needed = weights + activations
    return Estimate(
        device=device.name,
        platform=device.platform,
        devices=devices,
        dtype=dtype,
        basis=workload.basis,
        packed_queries=workload.packed_queries,
        tokens_error=workload.error,
        items=workload.items,
        skipped=round(workload.skipped),
        queries=round(workload.queries),
        tokens=round(sum(r.tokens for r in workload.rows.values())),
        padded_tokens=round(sum(n * r.rows for n, r in workload.rows.items())),
        naive_tokens=round(workload.naive_tokens),
        flops=round(sum(r.flops for r in workload.rows.values())),
        padded_flops=round(total_padded),
        rows={n: round(r.rows) for n, r in sorted(workload.rows.items())},
        rate=rate,
        model_axis=axis,
        weight_bytes=weights,
        activation_bytes=activations,
        memory_bytes=device.memory,
        fits=None if device.memory is None else needed <= device.memory,
        start_seconds=start,
        compile_seconds=compiling,
        compute_seconds=on_device,
        host_seconds=host_seconds,
        hosts=hosts,
        seconds=seconds,
        device_hours=hours,
        price=price,
        dollars=None if price is None else price * hours,
        bottleneck=max(parts, key=lambda name: parts[name]),
    )


def cut(config: Config, weights: int, device: Device, devices: int) -> tuple[int, int]:
    """The devices that share one copy of the weights, and the bytes that each of them holds, as `choose_mesh` has it.

    One where nothing is known of its memory, or where not even all devices of a host could hold them together.
    """
    if device.platform == "cpu" or device.memory is None:
        return 1, weights
    together = min(devices, device.per_host)
    for axis in range(1, together + 1):
        if together % axis or devices % axis or (config.K % axis and config.F % axis):
            continue
        held = weight_bytes_per_device(config, weights, axis)
        if held <= ROOM * device.memory:
            return axis, round(held)
    return 1, weights


def describe(e: Estimate) -> dict[str, str]:
    """The estimate in words, a line each."""
    within = "" if e.tokens_error is None else f", tokens within {e.tokens_error:.1%} (95%)"
    known = {
        "packed": "packed as the run packs them",
        "sample": f"scaled up from {e.packed_queries:,} of them{within}",
        "lengths": "of these lengths; nothing was read",
    }[e.basis]
    memory = f" of {e.memory_bytes / 1e9:.1f} GB" if e.memory_bytes is not None else ""
    share = f"{ACHIEVED[e.platform]:.0%} ({'measured' if e.platform == 'cpu' else 'assumed, not measured'})"
    lines = {
        "workload": f"{e.items:,} items of {e.queries:,} queries, {known}",
        "tokens": f"{e.tokens:,} computed ({e.tokens / e.items:.1f} an item), {e.padded_tokens:,} with padding; whole "
        f"prompts would be {e.naive_tokens:,}, {e.naive_tokens / max(1, e.tokens):.1f} times as many",
        "rows": ", ".join(f"{count:,} of {length:,}" for length, count in e.rows.items()) + " tokens",
        "FLOPs": f"{e.flops:.3g} useful, {e.padded_flops:.3g} with padding",
        "device": f"{e.devices:,} x {e.device}, {e.dtype}, {share} of {e.rate / 1e12:.3g} TFLOP/s",
        "memory per device": f"{e.weight_bytes / 1e9:.2f} GB of weights, about {e.activation_bytes / 1e9:.2f} GB of "
        f"activations{memory}"
        + ("" if e.fits is not False else ": does not fit")
        + ("" if e.model_axis == 1 else f"; weights cut over {e.model_axis}, whose sums are not in the seconds"),
        "seconds": f"start {e.start_seconds:.0f}, compile {e.compile_seconds:.0f} with an empty cache, compute "
        f"{e.compute_seconds:,.1f}, text {e.host_seconds:,.1f} on {e.hosts:,} host" + ("s" if e.hosts > 1 else ""),
        "time": f"{e.seconds:,.0f} s, {duration(e.seconds)}; {e.device_hours:,.2f} device-hours",
        "dollars": f"{e.dollars:,.2f} at {e.price:g} per device and hour"
        if e.dollars is not None
        else "not known; give --price, in dollars per device and hour",
        "bottleneck": e.bottleneck,
    }
    if e.skipped:
        lines["without a grade"] = f"{e.skipped:,} items: no response, or a prompt too long"
    return lines


def duration(seconds: float) -> str:
    """In the largest unit that is not below 1."""
    units = (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))
    name, size = next(((n, s) for n, s in units if seconds >= s), units[-1])
    return f"{seconds / size:.1f} {name}"


def truth_beside(e: Estimate, work: Mapping[str, float], loading: float) -> dict[str, tuple[float, float]]:
    """(estimated, measured) of a session that graded all of the workload; `work` holds the fields of `Work`.

    `loading` is the seconds that `Judge.load` took; the interpreter's own start is in neither column.
    """
    pairs = {
        "tokens": (e.tokens, work["tokens"]),
        "padded tokens": (e.padded_tokens, work["padded_tokens"]),
        "whole prompts": (e.naive_tokens, work["naive_tokens"]),
        "FLOPs": (e.flops, work["flops"]),
        "load seconds": (e.start_seconds - START, loading),
        "compile seconds": (e.compile_seconds, work["compile"]),
        "compute and text seconds": (
            e.seconds - e.start_seconds - e.compile_seconds,
            work["seconds"] - work["compile"],
        ),
        "seconds": (e.seconds - START, loading + work["seconds"]),
    }
    return {name: (float(a), float(b)) for name, (a, b) in pairs.items()}
