"""A third opinion: llama.cpp reads the .gguf files and must give the golden log-probabilities.

    pip install xllamacpp==2026.10.11549 gguf==0.19.0 numpy
    python tests/golden/check_llama_cpp.py [WEIGHTS]    # a folder with both real .gguf files; 2 GB of disk

llama.cpp rounds activations to eight bits before it multiplies them with quantised weights, which moves the
logits of the real models by up to 0.7, so the real files are first rewritten in f32, by the `gguf` package.
Prints the largest difference over the top 20 tokens and the sum of probability that both see; raises where the
difference is over a limit. Gemma's is larger because llama.cpp looks its GELU up in a table of f16.
"""

import json
import sys
import tempfile
import urllib.request
from pathlib import Path

import gguf
import numpy as np
import xllamacpp
from make_tokens import FILES

HERE = Path(__file__).parent


def log_probabilities(path: Path, prompts: list[list[int]], top: int) -> list[dict[int, float]]:
    """Of the `top` likeliest tokens after each prompt."""
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.warmup, params.fit_params, params.port = (
        str(path),
        2048,
        False,
        False,
        0,
    )
    params.n_parallel, params.cache_prompt = 1, False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    server = xllamacpp.Server(params)
    out = []
    for ids in prompts:
        asked = {"prompt": ids, "n_predict": 1, "n_probs": top, "temperature": 0.0, "cache_prompt": False}
        # an end of text has no entry in the reply, so another token is made to win; the probabilities are before that
        asked["logit_bias"] = [[300, 1000.0]]
        request = urllib.request.Request(
            server.listening_address + "/completion",
            json.dumps(asked).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as reply:
            first = json.load(reply)["completion_probabilities"][0]
        out.append({entry["id"]: entry["logprob"] for entry in first["top_logprobs"]})
    return out


def in_f32(source: Path, target: Path) -> None:
    """The same file with every tensor dequantised."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, gguf.dequantize(tensor.data, tensor.tensor_type))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def compare(name: str, theirs: list[dict[int, float]], ours: list[dict[int, float]], limit: float) -> None:
    for k, (a, b) in enumerate(zip(theirs, ours, strict=True)):
        common = a.keys() & b.keys()
        error = max(abs(a[i] - b[i]) for i in common)
        mass = sum(np.exp(b[i]) for i in common)
        print(f"{name} {k}: {len(common)} common of {len(b)}, probability {mass:.3f}, largest difference {error:.5f}")
        assert error < limit


def tiny() -> None:
    for name, golden, limit in (
        ("tiny_llama", "tiny_llama", 1e-4),
        ("tiny_llama_untied_q8_0", "tiny_llama_untied_q8_0", 0.3),
        ("tiny_gemma3", "tiny_gemma3_gguf", 3e-3),
        ("tiny_gemma3_q8_0", "tiny_gemma3_q8_0", 0.3),
        ("tiny_llama3", "tiny_llama3", 1e-4),
        ("tiny_qwen2", "tiny_qwen2", 1e-4),
        ("tiny_qwen2_q8_0", "tiny_qwen2_q8_0", 0.3),
        ("tiny_qwen3", "tiny_qwen3", 1e-4),
        ("tiny_gemma2", "tiny_gemma2_gguf", 3e-3),
        ("tiny_gemma2_q8_0", "tiny_gemma2_q8_0", 0.3),
    ):
        arrays = np.load(HERE / f"{golden}.npz")
        prompts = [arrays[key] for key in arrays if key.startswith("ids_")]
        ours = []
        for k in range(len(prompts)):
            row = arrays[f"logits_{k}"][-1].astype(np.float64)
            row -= np.log(np.exp(row).sum())
            ours.append({int(i): float(row[i]) for i in np.argsort(-row)[:20]})
        compare(name, log_probabilities(HERE / f"{name}.gguf", [ids.tolist() for ids in prompts], 20), ours, limit)


def real(weights: Path) -> None:
    for name, file in FILES.items():
        arrays = np.load(HERE / f"real_{name}.npz")
        prompts, ours = [], []
        for k in range(4):
            for j, position in enumerate(arrays[f"positions_{k}"]):
                prompts.append(arrays[f"ids_{k}"][: position + 1].tolist())
                row = arrays[f"top_logits_{k}"][j] - arrays[f"logsumexp_{k}"][j]
                ours.append(dict(zip(arrays[f"top_ids_{k}"][j].tolist(), row.tolist(), strict=True)))
        with tempfile.TemporaryDirectory() as folder:
            in_f32(weights / file, Path(folder) / file)
            compare(f"real_{name}", log_probabilities(Path(folder) / file, prompts, 20), ours, 0.02)


if __name__ == "__main__":
    tiny()
    for folder in sys.argv[1:]:
        real(Path(folder))
