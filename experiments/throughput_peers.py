"""The engines of `throughput.py`, each in a process of its own, under a Python that has it.

    python throughput_peers.py JOB.json RESULT.json

A job names a task: `grade` (prompts in, log odds of Yes against No out, with the time that took), `shape` (a folder
with random weights), `folder` (a Hugging Face folder from a GGUF), `quantise` (a GGUF from an f32 one), `peak`.
Nothing but the standard library and numpy is imported before the engine is chosen.

A query is a list of responses, a response a list of its items' prompts: token ids, or whole texts where the job says
so, which the engine then encodes within the clock. The tokens that all prompts of a query share are its trunk, those
that all prompts of a response share its prefix.
"""

import gc
import json
import os
import resource
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Ids = list[int]
Query = list[list[Ids]]
Options = dict[str, Any]
Seen = list[np.ndarray]  # positions of the tokens that were computed


def shared(prompts: list[Ids]) -> int:
    """How many tokens all prompts begin with, one less than the shortest at most: its last one must be computed."""
    low, high = min(prompts), max(prompts)
    most = min(map(len, prompts)) - 1
    return next((i for i in range(most) if low[i] != high[i]), most)


def log_odds(logits: Any, yes: Ids, no: Ids) -> list[float]:
    """[I, V] logits to log odds: every spelling of Yes against every spelling of No."""
    ours, theirs = (np.logaddexp.reduce(logits[:, ids].astype(np.float64), axis=1) for ids in (yes, no))
    return (ours - theirs).tolist()


class Engine(ABC):
    """`run` grades queries and says which positions it computed; `tokens` counts padding too."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job, self.yes, self.no = job, job["yes"], job["no"]
        self.seen: Seen = []
        self.padded = 0

    def candidates(self) -> list[Options]:
        return [{}]

    def prepare(self, queries: list[Query], options: Options) -> None:  # noqa: B027 - not all have something to do
        """Everything that is done once per workload and is not grading: programs, contexts."""

    @abstractmethod
    def run(self, queries: list[Query], options: Options) -> list[float]:
        """The log odds of all items."""


class Peer(Engine):
    """Another engine, which gets texts where reading them is part of the work."""

    @abstractmethod
    def encode(self, texts: list[str]) -> list[Ids]:
        """Token ids of each text."""


class RocketJAX(Engine):
    def __init__(self, job: dict[str, Any]) -> None:
        super().__init__(job)
        import jax

        from rocketjax.grade import Grader, use_compile_cache
        from rocketjax.judge import load_model
        from rocketjax.prompt import row_lengths

        use_compile_cache()
        model, _ = load_model(Path(job["model"]), job["dtype"])
        devices = jax.local_devices()
        mesh = jax.make_mesh((len(devices), 1), ("data", "model"), devices=devices)
        self.grader = Grader(model, (tuple(self.yes), tuple(self.no)), mesh)
        self.window = model.config.window
        self.longest = row_lengths(min(model.config.context, 8192))[-1]  # as `rocketjax grade` does

    def rows(self, queries: list[Query]) -> Iterator[tuple[int, Any]]:
        from rocketjax.prompt import pack_query

        for q, query in enumerate(queries):
            arrays = [[np.asarray(ids, np.int32) for ids in response] for response in query]
            for row in pack_query(arrays, self.longest, self.window):
                yield q, row

    def prepare(self, queries: list[Query], options: Options) -> None:
        first = {row.length: row for _, row in self.rows(queries)}
        for row in first.values():
            np.asarray(self.grader([row])[0].p_yes)

    def run(self, queries: list[Query], options: Options) -> list[float]:
        out = [np.zeros(sum(map(len, query))) for query in queries]
        waiting: list[tuple[int, Any, Any]] = []

        def land() -> None:
            q, row, answers = waiting.pop(0)
            odds = np.asarray(answers.logit_yes)[0] - np.asarray(answers.logit_no)[0]
            for leaf, owners in enumerate(row.owners):
                out[q][list(owners)] = odds[leaf]

        for q, row in self.rows(queries):
            waiting.append((q, row, self.grader([row])[0]))
            self.seen.append(row.position_T[: row.tokens])
            self.padded += row.length
            while len(waiting) > 2:
                land()
        while waiting:
            land()
        return [float(x) for odds in out for x in odds]


class Transformers(Peer):
    """torch: every prompt whole, or the prefix's keys and values kept and used for all items.

    On a CPU unless the job names a device.
    """

    def __init__(self, job: dict[str, Any]) -> None:
        super().__init__(job)
        import torch
        from transformers import AutoModelForCausalLM

        self.torch = torch
        torch.set_num_threads(job["threads"])
        torch.set_grad_enabled(False)
        dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[job["dtype"]]
        kind = json.loads((Path(job["model"]) / "config.json").read_text())
        self.capped = bool(kind.get("attn_logit_softcapping"))  # sdpa has no soft cap, so Gemma 2 runs eagerly
        self.model = AutoModelForCausalLM.from_pretrained(
            job["model"], dtype=dtype, attn_implementation="eager" if self.capped else "sdpa", local_files_only=True
        ).eval()
        self.device = torch.device(job.get("device", "cpu"))
        self.model.to(self.device)
        self.body, self.config = self.model.model, self.model.config
        self.whole = job["scheme"] == "whole"

    def candidates(self) -> list[Options]:
        if self.whole:
            return [{"batch": 1}, {"batch": 4}, {"batch": 16}]
        return [{"items": "expanded"}, {"items": "expanded", "batch": 4}, {"items": "packed"}]

    def encode(self, texts: list[str]) -> list[Ids]:
        from transformers import AutoTokenizer

        if not hasattr(self, "tokenizer"):
            self.tokenizer = AutoTokenizer.from_pretrained(self.job["model"], local_files_only=True)
        return self.tokenizer(texts, add_special_tokens=False)["input_ids"]

    def odds(self, hidden_ID: Any) -> list[float]:
        logits = self.model.lm_head(hidden_ID).float()
        cap = getattr(self.config, "final_logit_softcapping", None)
        if cap:
            logits = cap * self.torch.tanh(logits / cap)
        return log_odds(logits.cpu().numpy(), self.yes, self.no)

    def pad(self, prompts: list[Ids]) -> Any:
        longest = max(map(len, prompts))
        self.padded += longest * len(prompts)
        padded = [ids + [0] * (longest - len(ids)) for ids in prompts]
        return self.torch.tensor(padded, device=self.device)

    def run(self, queries: list[Query], options: Options) -> list[float]:
        return self.run_whole(queries, options) if self.whole else self.run_prefix(queries, options)

    def run_whole(self, queries: list[Query], options: Options) -> list[float]:
        flat = [ids for query in queries for response in query for ids in response]
        order = sorted(range(len(flat)), key=lambda i: -len(flat[i]))
        out = [0.0] * len(flat)
        for first in range(0, len(order), options["batch"]):
            batch = order[first : first + options["batch"]]
            # Padding stands on the right: under a causal mask no prompt sees it, so no mask is needed.
            hidden = self.body(input_ids=self.pad([flat[i] for i in batch]), use_cache=False).last_hidden_state
            last = self.torch.tensor([len(flat[i]) - 1 for i in batch])
            for i, odds in zip(batch, self.odds(hidden[self.torch.arange(len(batch)), last]), strict=True):
                out[i] = odds
            self.seen += [np.arange(len(flat[i])) for i in batch]
        return out

    def extend(self, cache: Any, ids: Ids, at: int) -> None:
        if ids:
            self.body(input_ids=self.pad([ids]), past_key_values=cache, use_cache=True)
            self.seen.append(np.arange(at, at + len(ids)))

    def run_prefix(self, queries: list[Query], options: Options) -> list[float]:
        from transformers import DynamicCache

        out: list[float] = []
        items = self.packed if options["items"] == "packed" else self.expanded
        for query in queries:
            trunk = shared([ids for response in query for ids in response])
            # Without the config every layer keeps all keys, which a window's mask needs when it is used again.
            cache = DynamicCache()
            self.extend(cache, query[0][0][:trunk], 0)
            for response in query:
                prefix = shared(response)
                self.extend(cache, response[0][trunk:prefix], trunk)
                size = options.get("batch") or len(response)
                for first in range(0, len(response), size):
                    rest = [ids[prefix:] for ids in response[first : first + size]]
                    out += items(cache, rest, prefix)
                    self.seen += [np.arange(prefix, prefix + len(ids)) for ids in rest]
                self.crop(cache, trunk)
        return out

    def crop(self, cache: Any, length: int) -> None:
        for layer in cache.layers:
            layer.keys, layer.values = layer.keys[:, :, :length], layer.values[:, :, :length]

    def expanded(self, cache: Any, rest: list[Ids], prefix: int) -> list[float]:
        """One row per item, each with the prefix's keys and values."""
        from transformers.cache_utils import DynamicCache, DynamicLayer

        own = DynamicCache()
        for layer in cache.layers:
            copy = DynamicLayer()
            copy.lazy_initialization(layer.keys, layer.values)
            # A view; the layer's own concatenation with the new keys is the one copy.
            copy.keys, copy.values = (x.expand(len(rest), -1, -1, -1) for x in (layer.keys, layer.values))
            own.layers.append(copy)
        hidden = self.body(input_ids=self.pad(rest), past_key_values=own, use_cache=True).last_hidden_state
        last = self.torch.tensor([len(ids) - 1 for ids in rest])
        return self.odds(hidden[self.torch.arange(len(rest)), last])

    def packed(self, cache: Any, rest: list[Ids], prefix: int) -> list[float]:
        """All items in one row, kept apart by a mask of our own."""
        torch = self.torch
        owner = np.repeat(np.arange(len(rest)), [len(ids) for ids in rest])
        position = np.concatenate([np.arange(prefix, prefix + len(ids)) for ids in rest])
        key_position = np.concatenate([np.arange(prefix), position])
        key_owner = np.concatenate([np.full(prefix, -1), owner])
        seen = ((key_owner[None] == owner[:, None]) | (key_owner[None] < 0)) & (key_position[None] <= position[:, None])
        near = position[:, None] - key_position[None] < (getattr(self.config, "sliding_window", None) or 1 << 30)

        def mask(allowed: Any) -> Any:
            boolean = torch.from_numpy(allowed)[None, None].to(self.device)
            if not self.capped:
                return boolean
            dtype = self.model.dtype
            zeros = torch.zeros(boolean.shape, dtype=dtype, device=self.device)
            return zeros.masked_fill(~boolean, torch.finfo(dtype).min)

        masks: Any = mask(seen)
        if "sliding_attention" in (getattr(self.config, "layer_types", None) or ()):
            masks = {"full_attention": masks, "sliding_attention": mask(seen & near)}
        hidden = self.body(
            input_ids=self.pad([[token for ids in rest for token in ids]]),
            position_ids=torch.from_numpy(position)[None].to(self.device),
            attention_mask=masks,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        self.crop(cache, prefix)
        return self.odds(hidden[0, np.cumsum([len(ids) for ids in rest]) - 1])


class Binding:
    """llama.cpp's C interface, through llama-cpp-python (ctypes) or llama-cpp-py-sync (cffi), whichever is there."""

    def __init__(self) -> None:
        self.lib: Any
        try:
            import llama_cpp

            self.lib, self.ffi = llama_cpp, None
            self.quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)  # kept, or it is collected
            self.lib.llama_log_set(self.quiet, None)
        except ImportError:
            from llama_cpp_py_sync import _cffi_bindings as bindings

            self.lib, self.ffi = bindings.get_lib(), bindings.get_ffi()
            self.quiet = self.ffi.callback("ggml_log_callback", lambda level, text, data: None)
            self.lib.llama_log_set(self.quiet, self.ffi.NULL)
        self.lib.llama_backend_init()

    def version(self) -> str:
        from importlib.metadata import version

        return f"llama-cpp-py-sync {version('llama-cpp-py-sync')}" if self.ffi else (
            f"llama-cpp-python {version('llama-cpp-python')}")  # fmt: skip

    def floats(self, pointer: Any, count: int) -> Any:
        if self.ffi:
            return np.frombuffer(self.ffi.buffer(pointer, 4 * count), np.float32)
        return np.ctypeslib.as_array(pointer, (count,))

    def ids(self, count: int) -> Any:
        return self.ffi.new("llama_token[]", count) if self.ffi else (self.lib.llama_token * count)()


class LlamaCpp(Peer):
    """Prefixes are decoded once and handed to the items' sequences, whose tokens then go into one batch."""

    def __init__(self, job: dict[str, Any]) -> None:
        super().__init__(job)
        self.b = Binding()
        params = self.b.lib.llama_model_default_params()
        params.n_gpu_layers = 0
        self.model = self.b.lib.llama_model_load_from_file(job["model"].encode(), params)
        if not self.model:
            raise RuntimeError(f"llama.cpp cannot load {job['model']}")
        self.vocab = self.b.lib.llama_model_get_vocab(self.model)
        self.V = self.b.lib.llama_vocab_n_tokens(self.vocab)
        self.ctx: Any = None
        self.made: Any = None

    def candidates(self) -> list[Options]:
        # `one`: prefix and items of a response in a single batch, the prefix's tokens in all items' sequences.
        return [
            {"ubatch": 512, "flash": 0, "one": False},
            {"ubatch": 512, "flash": 1, "one": False},
            {"ubatch": 2048, "flash": 0, "one": False},
            {"ubatch": 512, "flash": 0, "one": True},
        ]

    def encode(self, texts: list[str]) -> list[Ids]:
        out = []
        for text in texts:
            data = text.encode()
            room = self.b.ids(len(data) + 8)
            count = self.b.lib.llama_tokenize(self.vocab, data, len(data), room, len(data) + 8, False, True)
            out.append(list(room[0:count]))
        return out

    def prepare(self, queries: list[Query], options: Options) -> None:
        most = max(len(response) for query in queries for response in query)
        cells = max(
            len(response[0]) + sum(len(ids) - shared(response) for ids in response)
            for query in queries
            for response in query
        )
        made = (cells, most, options["ubatch"], options["flash"])
        if self.made == made:
            return
        lib = self.b.lib
        if self.ctx:
            lib.llama_free(self.ctx)
            lib.llama_batch_free(self.batch)
        p = lib.llama_context_default_params()
        p.n_ctx = -(-cells // 256) * 256
        p.n_batch, p.n_ubatch = p.n_ctx, min(options["ubatch"], p.n_ctx)
        p.n_seq_max = most + 2
        p.n_threads = p.n_threads_batch = self.job["threads"]
        p.flash_attn_type = options["flash"]
        kind = 0 if self.job["dtype"] == "f32" else 1  # GGML_TYPE_F32, GGML_TYPE_F16
        p.type_k = p.type_v = kind
        p.swa_full = True  # a window's keys are needed again by the next item
        p.kv_unified = True
        p.no_perf = True
        self.ctx = lib.llama_init_from_model(self.model, p)
        if not self.ctx:
            raise RuntimeError(f"llama.cpp makes no context for {options}")
        self.batch = lib.llama_batch_init(int(p.n_ctx), 0, most + 2)
        self.memory = lib.llama_get_memory(self.ctx)
        self.made = made

    def add(self, ids: Ids, at: int, sequences: list[int], answer: bool = False) -> None:
        b, n = self.batch, self.batch.n_tokens
        for k, token in enumerate(ids):
            b.token[n], b.pos[n], b.n_seq_id[n], b.logits[n] = token, at + k, len(sequences), 0
            for j, sequence in enumerate(sequences):
                b.seq_id[n][j] = sequence
            n += 1
        if answer:
            b.logits[n - 1] = 1
            self.answers.append(n - 1)
        b.n_tokens = n
        self.seen.append(np.arange(at, at + len(ids)))
        self.padded += len(ids)

    def decode(self) -> None:
        if self.batch.n_tokens:
            code = self.b.lib.llama_decode(self.ctx, self.batch)
            if code:
                raise RuntimeError(f"llama_decode gave {code} for {self.batch.n_tokens} tokens")
        self.batch.n_tokens = 0

    def run(self, queries: list[Query], options: Options) -> list[float]:
        lib, out = self.b.lib, list[float]()
        for query in queries:
            lib.llama_memory_clear(self.memory, True)
            trunk = shared([ids for response in query for ids in response])
            self.answers: list[int] = []
            self.batch.n_tokens = 0
            if len(query) > 1:
                self.add(query[0][0][:trunk], 0, [0])
                self.decode()
            else:
                trunk = 0
            for response in query:
                prefix = shared(response)
                items = list(range(2, 2 + len(response)))
                self.answers = []
                if options["one"]:
                    for s in [1, *items]:
                        lib.llama_memory_seq_cp(self.memory, 0, s, -1, -1)
                    self.add(response[0][trunk:prefix], trunk, [1, *items])
                else:
                    lib.llama_memory_seq_cp(self.memory, 0, 1, -1, -1)
                    self.add(response[0][trunk:prefix], trunk, [1])
                    self.decode()
                    for s in items:
                        lib.llama_memory_seq_cp(self.memory, 1, s, -1, -1)
                for s, ids in zip(items, response, strict=True):
                    self.add(ids[prefix:], prefix, [s], True)
                self.decode()
                logits = [self.b.floats(lib.llama_get_logits_ith(self.ctx, i), self.V) for i in self.answers]
                out += log_odds(np.stack(logits), self.yes, self.no)
                for s in [1, *items]:
                    lib.llama_memory_seq_rm(self.memory, s, -1, -1)
        return out


class VLLM(Peer):
    """All prompts at once, with automatic prefix caching; the cache is emptied before every run."""

    def __init__(self, job: dict[str, Any]) -> None:
        # Before the import: one process, these threads, and room for keys and values.
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "4")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", f"0-{job['threads'] - 1}")
        super().__init__(job)
        from vllm import LLM, SamplingParams

        config = json.loads((Path(job["model"]) / "config.json").read_text())
        self.llm = LLM(
            model=job["model"],
            dtype={"f32": "float32", "bf16": "bfloat16"}[job["dtype"]],
            skip_tokenizer_init=not job.get("texts"),
            enable_prefix_caching=True,
            max_model_len=min(8192, config["max_position_embeddings"]),
            max_num_batched_tokens=8192,
            max_num_seqs=256,
            max_logprobs=len(self.yes) + len(self.no),
            enforce_eager=bool(job.get("eager")),
        )
        self.asked = SamplingParams(
            max_tokens=1, temperature=0.0, logprob_token_ids=[*self.yes, *self.no], detokenize=False
        )

    def encode(self, texts: list[str]) -> list[Ids]:
        return self.llm.get_tokenizer()(texts, add_special_tokens=False)["input_ids"]

    def run(self, queries: list[Query], options: Options) -> list[float]:
        flat = [{"prompt_token_ids": ids} for query in queries for response in query for ids in response]
        self.llm.reset_prefix_cache()
        out = []
        for ids, result in zip(flat, self.llm.generate(flat, self.asked, use_tqdm=False), strict=True):
            given = {token: entry.logprob for token, entry in result.outputs[0].logprobs[0].items()}
            yes, no = (np.logaddexp.reduce([given[i] for i in which]) for which in (self.yes, self.no))
            out.append(float(yes - no))
            self.seen.append(np.arange(result.num_cached_tokens or 0, len(ids["prompt_token_ids"])))
        self.padded += sum(map(len, self.seen))
        return out


ENGINES = {"rocketjax": RocketJAX, "transformers": Transformers, "llama.cpp": LlamaCpp, "vllm": VLLM}


def sample(queries: list[Query]) -> list[Query]:
    """The first response, to choose options by and to warm up with."""
    return [[queries[0][0][:16]]]


def counts(seen: Seen) -> list[int]:
    """How many tokens were computed at each position."""
    return np.bincount(np.concatenate(seen)).tolist()


def nested(texts: list[list[list[str]]], encode: Callable[[list[str]], list[Ids]]) -> list[Query]:
    """The same nesting with ids."""
    ids = iter(encode([text for query in texts for response in query for text in response]))
    return [[[next(ids) for _ in response] for response in query] for query in texts]


def grade(job: dict[str, Any]) -> dict[str, Any]:
    begun = time.perf_counter()
    engine: Engine = ENGINES[job["engine"]](job)
    loaded = time.perf_counter()
    chosen: dict[str, Options] = job.get("chosen") or {}
    cases = {}
    for name, given in job["cases"].items():
        at = time.perf_counter()
        warm = {}
        if not job.get("cold"):
            queries = nested(given, engine.encode) if job.get("texts") else given
            if name not in chosen:
                speed = []
                options = engine.candidates()
                for option in options if len(options) > 1 else []:
                    engine.prepare(queries, option)
                    engine.run(sample(queries), option)
                    start = time.perf_counter()
                    engine.run(sample(queries), option)
                    speed.append((time.perf_counter() - start, len(speed)))
                chosen[name] = options[min(speed)[1]] if speed else options[0]
                warm["tried"] = [{**options[i], "seconds": round(s, 4)} for s, i in speed]
            engine.prepare(queries, chosen[name])
            prepared = time.perf_counter()
            engine.run(sample(queries), chosen[name])
            warm |= {"prepare_seconds": prepared - at}
        engine.seen, engine.padded = [], 0
        gc.collect()
        start = time.perf_counter()
        queries = nested(given, engine.encode) if job.get("texts") else given
        encoded = time.perf_counter()
        if job.get("cold"):
            engine.prepare(queries, chosen[name])
        odds = engine.run(queries, chosen[name])
        seconds = time.perf_counter() - start
        cases[name] = {
            "seconds": seconds,
            "encode_seconds": encoded - start,
            "log_odds": odds,
            "counts": counts(engine.seen),
            "padded": engine.padded,
            "options": chosen[name],
            **warm,
        }
    result = {
        "load_seconds": loaded - begun,
        "cases": cases,
        "chosen": chosen,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "version": versions(job["engine"], engine),
    }
    if isinstance(engine, RocketJAX):
        result["compile_seconds"] = engine.grader.compile_seconds
    return result


def versions(name: str, engine: Engine) -> str:
    from importlib.metadata import version

    if isinstance(engine, LlamaCpp):
        return engine.b.version()
    parts = {"rocketjax": ["rocketjax", "jax", "jaxlib"], "transformers": ["transformers", "torch"]}
    found = {p: version(p) for p in parts.get(name, ["torch"])}
    if name == "vllm":
        import vllm

        found["vllm"] = vllm.__version__
    return ", ".join(f"{p} {v}" for p, v in found.items())


def peak(job: dict[str, Any]) -> dict[str, Any]:
    import jax.numpy as jnp

    from rocketjax.doctor import matmul_flops

    return {name: matmul_flops(dtype) for name, dtype in (("f32", jnp.float32), ("bf16", jnp.bfloat16))}


def shape(job: dict[str, Any]) -> dict[str, Any]:
    """A Hugging Face folder of this config with random weights, in bf16."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(**job["config"])
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(job["output"], max_shard_size="50GB")
    return {}


def folder(job: dict[str, Any]) -> dict[str, Any]:
    """A Hugging Face folder in f32, with its tokenizer, from a GGUF."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    file = Path(job["gguf"])
    where = {"gguf_file": file.name, "local_files_only": True}
    read = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **where)
    config = read.config
    del config.quantization_config  # a model read from a GGUF refuses to be saved
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(read.state_dict())
    model.save_pretrained(job["output"], max_shard_size="50GB")
    AutoTokenizer.from_pretrained(file.parent, **where).save_pretrained(job["output"])
    return {}


FTYPES = {"f16": 1, "q8_0": 7, "q4_0": 2, "q4_K_M": 15}  # llama.h's llama_ftype


def quantise(job: dict[str, Any]) -> dict[str, Any]:
    binding = Binding()
    params = binding.lib.llama_model_quantize_default_params()
    params.ftype, params.nthread = FTYPES[job["kind"]], job["threads"]
    if binding.ffi:
        pointer = binding.ffi.new("llama_model_quantize_params *", params)
    else:
        import ctypes

        pointer = ctypes.byref(params)
    code = binding.lib.llama_model_quantize(job["gguf"].encode(), job["output"].encode(), pointer)
    if code:
        raise RuntimeError(f"llama_model_quantize gave {code}")
    return {"version": binding.version()}


TASKS = {"grade": grade, "peak": peak, "shape": shape, "folder": folder, "quantise": quantise}


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    result = TASKS[job["task"]](job)
    Path(sys.argv[2]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
