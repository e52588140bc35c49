"""Tokens per second of local generation beside other engines: same machine, same weights, same prompts.

    python experiments/generation_speed.py DATA CACHE --torch-python PEERS/torch/bin/python \\
        --llama-python PEERS/llama/bin/python --json FILE [--rounds 3] [--batch 8 --batch 32]

DATA, CACHE and the peers' virtual environments are those of `throughput.py`. SmolLM2-135M writes 128 new tokens after
each of 8 and of 32 prompts of 200 real tokens, greedily, and no token stops a text, so that every engine does the same
work. Every engine runs in a process of its own on the same cores, round after round; loading, compiling and a warm-up
(one whole run) stand outside the clock, prompts and their prefill inside. Where an engine can be driven in more ways,
the warm-up tries them and keeps the fastest. The table gives the median over rounds, the ratio to RocketJAX of the same
round, and how many of the texts are RocketJAX's, token for token.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Ids = list[int]
Write = Callable[[list[Ids], int], list[Ids]]  # prompts and how many new tokens
MODEL = "smollm2-135m"

# -- engines: each is imported by the Python that has it ---------------------------------------------------------------


def rocketjax(job: dict[str, Any]) -> dict[str, Write]:
    from rocketjax.generate import Generator
    from rocketjax.grade import use_compile_cache
    from rocketjax.judge import load_model
    from rocketjax.prompt import load_tokenizer

    use_compile_cache()
    model, _ = load_model(Path(job["model"]), job["dtype"])
    tokenizer = load_tokenizer(Path(job["model"]))

    def way(slots: int) -> Write:
        writer = Generator(model, tokenizer, slots=slots)

        def write(prompts: list[Ids], new: int) -> list[Ids]:
            return [list(text.tokens) for text in writer.generate(prompts, new, stop=())]

        return write

    return {f"{slots} slots": way(slots) for slots in (8, 16, 32) if slots <= max(8, job["batch"])}


def transformers(job: dict[str, Any]) -> dict[str, Write]:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(job["threads"])
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[job["dtype"]]
    model = AutoModelForCausalLM.from_pretrained(
        job["model"], dtype=dtype, attn_implementation="sdpa", local_files_only=True
    ).eval()
    model.generation_config.eos_token_id = None

    def write(prompts: list[Ids], new: int) -> list[Ids]:
        ids = torch.tensor(prompts)  # all of one length: nothing is padded
        with torch.inference_mode():
            out = model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=new, eos_token_id=None,
                pad_token_id=0,
            )  # fmt: skip
        return out[:, ids.shape[1] :].tolist()

    return {"sdpa": write}


def llama_cpp(job: dict[str, Any]) -> dict[str, Write]:
    from throughput_peers import Binding

    b = Binding()
    lib = b.lib
    params = lib.llama_model_default_params()
    params.n_gpu_layers = 0
    model = lib.llama_model_load_from_file(job["model"].encode(), params)
    if not model:
        raise RuntimeError(f"llama.cpp cannot load {job['model']}")
    vocabulary = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
    count, cells = job["batch"], job["length"] + job["new"] + 1

    def way(unified: bool, flash: int) -> Write:
        p = lib.llama_context_default_params()
        p.n_seq_max = count
        p.n_ctx = count * (-(-cells // 256) * 256)
        p.n_batch, p.n_ubatch = count * job["length"], 512
        p.n_threads = p.n_threads_batch = job["threads"]
        p.flash_attn_type, p.kv_unified, p.no_perf = flash, unified, True
        p.type_k = p.type_v = 0 if job["dtype"] == "f32" else 1  # GGML_TYPE_F32, GGML_TYPE_F16
        ctx: Any = None
        batch = lib.llama_batch_init(count * job["length"], 0, 1)

        def decode(texts: list[Ids], at: list[int]) -> list[int]:
            """The most probable tokens after these, each text a sequence that goes on at its position."""
            n, last = 0, []
            for s, (ids, first) in enumerate(zip(texts, at, strict=True)):
                for k, token in enumerate(ids):
                    batch.token[n], batch.pos[n], batch.n_seq_id[n] = token, first + k, 1
                    batch.seq_id[n][0], batch.logits[n] = s, int(k == len(ids) - 1)
                    n += 1
                last.append(n - 1)
            batch.n_tokens = n
            code = lib.llama_decode(ctx, batch)
            if code:
                raise RuntimeError(f"llama_decode gave {code} for {n} tokens")
            return [int(b.floats(lib.llama_get_logits_ith(ctx, i), vocabulary).argmax()) for i in last]

        def write(prompts: list[Ids], new: int) -> list[Ids]:
            nonlocal ctx
            ctx = ctx or lib.llama_init_from_model(model, p)
            if not ctx:
                raise RuntimeError("llama.cpp makes no context")
            lib.llama_memory_clear(lib.llama_get_memory(ctx), True)
            out: list[Ids] = [[] for _ in prompts]
            texts, at = prompts, [0] * len(prompts)
            for _ in range(new):
                found = decode(texts, at)
                at = [first + len(ids) for first, ids in zip(at, texts, strict=True)]
                texts = [[token] for token in found]
                for ids, token in zip(out, found, strict=True):
                    ids.append(token)
            return out

        return write

    return {f"unified={u} flash={f}": way(u, f) for u in (False, True) for f in (0, 1)}


ENGINES = {"rocketjax": rocketjax, "transformers": transformers, "llama.cpp": llama_cpp}


def work(job: dict[str, Any]) -> dict[str, Any]:
    """One engine, one batch: seconds of a run after a warm-up, and what it wrote."""
    ways = ENGINES[job["engine"]](job)
    prompts, new = job["prompts"], job["new"]
    name, tried = job.get("way"), {}
    for key in [name] if name else ways:
        if not name and len(ways) > 1:
            ways[key](prompts, 2)
        begun = time.perf_counter()
        ways[key](prompts, new)
        tried[key] = time.perf_counter() - begun
    name = name or min(tried, key=lambda key: tried[key])
    begun = time.perf_counter()
    out = ways[name](prompts, new)
    return {"seconds": time.perf_counter() - begun, "way": name, "tokens": out}


# -- rounds ------------------------------------------------------------------------------------------------------------

WAYS = (("transformers", "f32"), ("transformers", "bf16"), ("llama.cpp", "f32"), ("llama.cpp", "f16"),
        ("llama.cpp", "q8_0"), ("rocketjax", "f32"), ("rocketjax", "bf16"))  # fmt: skip


def call(lab: Any, python: str, job: dict[str, Any]) -> dict[str, Any]:
    """`work` in a process of its own; RuntimeError with the last line where it fails."""
    with tempfile.TemporaryDirectory(prefix="generation-") as room:
        task, result = Path(room) / "job.json", Path(room) / "result.json"
        task.write_text(json.dumps(job))
        done = subprocess.run(
            [python, str(Path(__file__).absolute()), "work", str(task), str(result)], capture_output=True, text=True,
            env=lab.environment(), preexec_fn=lab.pin,
        )  # fmt: skip
        if done.returncode:
            lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
            raise RuntimeError(lines[-1] if lines else f"exit status {done.returncode}")
        return json.loads(result.read_text())


def measure(lab: Any, ways: list[tuple[str, str]], base: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """All ways over one batch, round after round."""
    from throughput import Way

    rows: dict[str, dict[str, Any]] = {f"{engine} {dtype}": {"seconds": []} for engine, dtype in ways}
    for number in range(lab.rounds):
        for engine, dtype in ways:
            row = rows[f"{engine} {dtype}"]
            if "failed" in row:
                continue
            try:
                way = Way(engine, dtype, "prefix", engine)
                model = lab.gguf_source(MODEL) if way.ours else lab.model(MODEL, way)
                job = {**base, "engine": engine, "dtype": dtype, "model": str(model), "way": row.get("way")}
                got = call(lab, lab.python(way), job)
            except RuntimeError as e:
                row["failed"] = str(e)
                lab.console.print(f"{engine} {dtype}: {e}", style="red")
                continue
            row["seconds"].append(got["seconds"])
            row["way"], row["tokens"] = got["way"], got["tokens"]
            lab.console.print(f"round {number + 1}, {engine} {dtype}: {got['seconds']:.2f} s", style="dim")
    return rows


def main() -> None:
    from rich.console import Console
    from rich.table import Table
    from throughput import Lab, Stream, machine, spread

    from rocketjax.bench import load_benchmark
    from rocketjax.prompt import load_tokenizer

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--torch-python")
    parser.add_argument("--llama-python")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, action="append", help="prompts at once; 8 and 32 by default")
    parser.add_argument("--length", type=int, default=200, help="tokens of a prompt")
    parser.add_argument("--new", type=int, default=128, help="tokens that are written after each")
    parser.add_argument("--only", action="append", default=[], help="only rows whose name has this")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()

    pythons = {"transformers": given.torch_python, "llama.cpp": given.llama_python}
    lab = Lab(given.data, given.cache.absolute(), pythons, given.threads, given.rounds, (), 3600, Console(width=160))
    lab.console.print(str(machine()), style="dim")
    tokenizer = load_tokenizer(lab.gguf_source(MODEL))
    stream = Stream(load_benchmark(given.data / "mtbench"), tokenizer)
    ways = [way for way in WAYS if not given.only or any(part in " ".join(way) for part in given.only)]
    results = []
    for count in given.batch or [8, 32]:
        prompts = [[*stream.bos, *stream.take(given.length)][: given.length] for _ in range(count)]
        base = {"prompts": prompts, "new": given.new, "length": given.length, "batch": count, "threads": given.threads}
        rows = measure(lab, ways, base)
        ours = rows.get("rocketjax f32", {})
        table = Table(title=f"{MODEL}: {count} prompts of {given.length} tokens, {given.new} new", title_justify="left")
        for head in ("", "tokens/s", "min..max", "x RocketJAX f32", "same texts", "driven"):
            table.add_column(head, justify="right" if head in ("tokens/s", "min..max", "x RocketJAX f32") else "left")
        for name, row in rows.items():
            if not row["seconds"]:
                table.add_row(name, "", "", "", "", f"not measured: {row.get('failed', '')[:70]}")
                continue
            row["tokens_per_second"] = spread([count * given.new / s for s in row["seconds"]])
            speed, ratio, same = row["tokens_per_second"], "", ""
            if ours.get("seconds"):
                row["ratio"] = spread([b / a for a, b in zip(row["seconds"], ours["seconds"], strict=False)])
                row["same"] = sum(a == b for a, b in zip(row["tokens"], ours["tokens"], strict=True))
                ratio, same = f"{row['ratio']['median']:.2f}", f"{row['same']} of {count}"
            low, high = f"{speed['min']:.0f}", f"{speed['max']:.0f}"
            table.add_row(name, f"{speed['median']:.0f}", f"{low}..{high}", ratio, same, str(row["way"]))
        lab.console.print(table)
        results.append({"batch": count, "rows": {k: {**r, "tokens": None} for k, r in rows.items()}})
        if given.json:
            content = {"machine": machine(), "model": MODEL, "length": given.length, "new": given.new}
            given.json.write_text(json.dumps({**content, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] == "work":
        Path(sys.argv[3]).write_text(json.dumps(work(json.loads(Path(sys.argv[2]).read_text()))))
    else:
        main()
