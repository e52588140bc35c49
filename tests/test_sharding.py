"""A judge cut over a mesh against the whole one: the same weights, the same answers, the same training."""

import shutil
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fakes import random_bench, tiny_judge
from flax import nnx
from jax.sharding import PartitionSpec
from test_tune import all_losses, learner_of, leaves

from rocketjax.errors import RocketError
from rocketjax.grade import Grader, Judge, make_prompter, plan
from rocketjax.grade.stream import prepare
from rocketjax.judge import (
    Config,
    MeshShape,
    Places,
    Transformer,
    choose_mesh,
    collectives,
    convert,
    layout,
    load_model,
    locate,
    make_mesh,
    parse_mesh,
    weight_bytes,
)
from rocketjax.judge import load as loading
from rocketjax.judge.load import cast
from rocketjax.judge.sharding import PHYSICAL, result_bytes, spec, weight_bytes_per_device
from rocketjax.judge.weights import stored_index
from rocketjax.tune import Recipe, batches
from rocketjax.tune.train import step_scale

GOLDEN = Path(__file__).parent / "golden"


def mesh_of(data: int, model: int):
    return make_mesh(MeshShape(data, model), jax.devices())


def rows_of(judge: Judge):
    """The rows of a random benchmark, of the commonest length."""
    bench = random_bench(queries=8)
    job = prepare(plan(bench, 10_000)[0], bench, make_prompter(judge.tokenizer, judge.model.config), judge.model.config)
    lengths = [row.length for row in job.rows]
    common = max(set(lengths), key=lengths.count)
    return [row for row in job.rows if row.length == common]


def graded(model: Transformer, data: int, model_axis: int, rows=None) -> tuple[np.ndarray, Grader]:
    """All four answers at the leaves of rows, f32[4, R, L]."""
    judge = tiny_judge()
    rows = rows or rows_of(judge)
    grader = Grader(model, judge.tokenizer.answer_ids(), mesh_of(data, model_axis))
    calls = grader(rows)
    return np.concatenate([np.stack([np.asarray(a) for a in call]) for call in calls], axis=1)[:, : len(rows)], grader


@pytest.mark.parametrize(
    ("dtype", "data", "axis"),
    [("f32", 2, 2), *(pytest.param(*case, marks=pytest.mark.slow) for case in (("f32", 1, 3), ("int8", 2, 2)))],
)
def test_a_model_axis_changes_rounding_only(dtype, data, axis):
    """Heads cut in two with the rest; and an axis of three, where they stay whole and the hidden width is cut."""

    def model() -> Transformer:
        return cast(tiny_judge().model, dtype)

    whole, _ = graded(model(), 1, 1)
    cut, grader = graded(model(), data, axis)
    np.testing.assert_allclose(cut, whole, rtol=0, atol=1e-5)
    (program,) = grader.compiled.values()
    found = collectives(program)
    c, (length,) = model().config, grader.compiled
    # Shoeybi et al. 2019, section 3: one sum behind attention and one behind the MLP, of all tokens in all layers
    # but the last, and there of the leaves; uncut heads need none. Where the vocabulary is cut, tokens are looked
    # up by a sum too.
    where = layout(c, axis)
    assert {x.kind for x in found} <= {"all-reduce", "all-gather"}
    # What is looked up is a sum of int8 there, a quarter of the bytes.
    sums, looked_up = (2 if where["K"] else 1), int(bool(where["V"]) and dtype == "f32")
    everywhere = [x for x in found if x.bytes == 4 * length * c.D]
    assert sum(x.times for x in everywhere) == sums * (c.layers - 1) + looked_up
    if not where["V"]:
        assert sum(x.times for x in found) == sums * c.layers


@pytest.mark.parametrize(
    ("data", "axis"), [(2, 4), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((4, 2), (1, 8)))]
)
def test_a_vocabulary_that_divides_is_cut_too(data, axis):
    config = Config("llama", layers=2, D=16, N=8, K=8, H=8, F=32, V=264, context=2048, norm_eps=1e-6,
                    rope_theta=1e4, activation="silu")  # fmt: skip
    rng = np.random.default_rng(0)
    graph, state = nnx.split(Transformer(config))
    numbers = [jnp.asarray(rng.normal(0, 0.3, x.shape), jnp.float32) for x in jax.tree.leaves(state)]

    def model() -> Transformer:
        return nnx.merge(graph, jax.tree.unflatten(jax.tree.structure(state), numbers))

    rows = rows_of(tiny_judge())[:2]
    whole, _ = graded(model(), 1, 1, rows)
    cut, grader = graded(model(), data, axis, rows)
    np.testing.assert_allclose(cut, whole, rtol=0, atol=1e-5)
    assert grader.model.embed_VD[...].sharding.spec == PartitionSpec("model")
    # Nothing as large as the embedding is gathered.
    (program,) = grader.compiled.values()
    assert all(x.kind != "all-gather" or x.bytes < 4 * 264 * 16 for x in collectives(program))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *(
            (name, "f32")
            for name in ("tiny_gemma2", "tiny_qwen2", "tiny_llama.gguf", "tiny_gemma3_q8_0.gguf", "orbax", "mm")
        ),
        *((name, "int8") for name in ("tiny_gemma2", "tiny_gemma3_q8_0.gguf")),
    ],
)
def test_weights_loaded_into_their_places_are_the_same(tmp_path, name, dtype):
    source = {"orbax": "tiny_gemma2", "mm": "tiny_gemma3_mm"}.get(name, name)
    path = GOLDEN / source
    if name == "orbax":
        convert(locate(str(path)), tmp_path / "judge", "f32")
        path = tmp_path / "judge"
    mesh = mesh_of(2, 2)
    whole, sha256 = load_model(path, dtype)
    cut, same = load_model(path, dtype, mesh)
    assert same == sha256
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(cut), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
        assert b.sharding.device_set == set(mesh.devices.flat)
    places = Places(cut.config, mesh)
    if dtype == "f32":
        for path_, block in (("blocks.0.q_DNH", cut.blocks[0].q_DNH), ("blocks.1.down_FD", cut.blocks[1].down_FD)):
            leaf = block[...]
            assert leaf.sharding.is_equivalent_to(places.of(path_), leaf.ndim)
            halves = 1 if "q_DNH" in path_ and cut.config.K == 1 else 2
            assert leaf.addressable_shards[0].data.size == leaf.size // halves
    stacked = [x.sharding.spec for x in jax.tree.leaves(nnx.state(cut.blocks[0]))]
    cut.stack_layers()
    assert [list(x.sharding.spec) for x in jax.tree.leaves(nnx.state(cut.stack))] == [[None, *s] for s in stacked]


def test_a_process_reads_what_its_devices_hold(monkeypatch):
    """Of a projection that is cut in two, each read asks for one half, once for all devices of the data axis."""
    asked: dict[str, list] = {}
    shapes_and_read = loading.safetensors

    def spying(folder):
        shapes, read = shapes_and_read(folder)

        def spy(name, index):
            asked.setdefault(name, []).append(index)
            return read(name, index)

        return shapes, spy

    monkeypatch.setattr(loading, "safetensors", spying)
    model, _ = load_model(GOLDEN / "tiny_gemma2", "f32", mesh_of(4, 2))
    c = model.config
    rows, columns = c.N * c.H, c.D
    halves = [(slice(0, rows // 2), slice(0, columns)), (slice(rows // 2, rows), slice(0, columns))]
    assert sorted(asked["model.layers.0.self_attn.q_proj.weight"], key=str) == sorted(halves, key=str)
    assert len(asked["model.layers.0.mlp.down_proj.weight"]) == 2
    assert len(asked["model.norm.weight"]) == 1


def test_host_memory_holds_less_than_two_of_the_largest_tensor(tmp_path):
    """By tracemalloc, which sees NumPy's arrays and not the devices'."""
    from safetensors.numpy import load_file, save_file

    folder = tmp_path / "judge"
    shutil.copytree(GOLDEN / "tiny_gemma2", folder)  # its head is tied: on a CPU, JAX keeps NumPy arrays as its own
    tensors = load_file(folder / "model.safetensors")
    rows, width = 200_000, tensors["model.embed_tokens.weight"].shape[1]
    tensors["model.embed_tokens.weight"] = np.ones((rows, width), np.float32)
    if "lm_head.weight" in tensors:
        tensors["lm_head.weight"] = np.ones((rows, width), np.float32)
    save_file(tensors, folder / "model.safetensors")
    config = (folder / "config.json").read_text("utf-8")
    before = load_model(GOLDEN / "tiny_gemma2", "f32")[0].config.V
    (folder / "config.json").write_text(config.replace(f'"vocab_size": {before}', f'"vocab_size": {rows}'), "utf-8")
    largest = 4 * rows * width
    tracemalloc.start()
    try:
        load_model(folder, "f32", mesh_of(2, 2))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * largest, f"{peak / largest:.2f} of the largest tensor"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full"])
def test_training_on_a_model_axis_is_training(method):
    """Two steps of an adapter or of all weights, on one device and on four, cut both ways."""
    judge = tiny_judge()
    packer, rows = all_losses(judge, queries=2)
    after = []
    for mesh in (mesh_of(1, 1), mesh_of(2, 2)):
        learner = learner_of(judge, packer, 1, method, mesh=mesh)
        made = [batch for batch, _ in batches(rows, learner.multiple)]
        for _ in range(2):
            learner.step(made, step_scale(Recipe(), rows), 1e-3, 1e-2)
        after.append(leaves(learner.params))
        up = learner.params.weights["blocks.0.gate_DF"]
        leaf = up if method == "full" else up.up
        if mesh.size > 1:
            assert sorted(filter(None, leaf.sharding.spec)) == ["data", "model"]
        assert leaf.addressable_shards[0].data.size == leaf.size // mesh.size
    for a, b in zip(*after, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5)


def test_places_collide_and_shapes_are_refused():
    config = tiny_judge().model.config
    with pytest.raises(ValueError, match=r"axes NHD: two of them are cut over 'model'"):
        spec("NHD", {**PHYSICAL, "H": "model"})
    assert spec("DNH", PHYSICAL) == PartitionSpec(None, "model")
    assert layout(config, 2) == {"V": None, "N": "model", "K": "model", "F": "model", "D": None, "H": None}
    assert layout(config, 3)["N"] is None and layout(config, 3)["F"] == "model"
    with pytest.raises(RocketError, match="a model axis of 5 divides neither this judge's 2 key heads nor its hidden"):
        layout(config, 5)
    assert parse_mesh("data=4,model=2", 8) == parse_mesh("model=2", 8) == parse_mesh("model=2, data=4", 8)
    assert parse_mesh("data=3", 8) == MeshShape(3, 1)
    for text, why in (
        ("data=8,model=2", "needs 16 devices, there are 8"),
        ("model=3", "8 devices cannot be cut into parts of 3"),
        ("4x2", "it is auto or like data=4,model=2"),
        ("data=0", "it is auto or like"),
        ("data=2,data=2", "it is auto or like"),
    ):
        with pytest.raises(RocketError, match=why):
            parse_mesh(text, 8)


def test_the_mesh_is_chosen_by_memory():
    config = tiny_judge().model.config
    need = weight_bytes(config, "f32")
    assert need == sum(x.nbytes for x in jax.tree.leaves(nnx.state(tiny_judge().model)))

    def devices(memory: float):
        stats = {"bytes_limit": int(memory)}
        return [SimpleNamespace(platform="tpu", memory_stats=lambda: stats) for _ in range(8)]

    assert choose_mesh(config, need, devices(2 * need)) == MeshShape(8, 1)
    half = weight_bytes_per_device(config, need, 2)
    assert need / 2 < half < need, "norms and this vocabulary are whole everywhere"
    assert choose_mesh(config, need, devices(1.01 * half / 0.6)) == MeshShape(4, 2)
    with pytest.raises(RocketError, match="do not fit either"):
        choose_mesh(config, need, devices(need / 20))
    assert choose_mesh(config, need, jax.devices()) == MeshShape(8, 1), "a CPU does not say"


def test_the_cut_part_of_a_tensor_is_its_rows_or_columns():
    def at(path, index, shape):
        return [(s.start, s.stop) for s in stored_index(path, index, shape)]

    every = slice(None)
    assert at("blocks.0.q_DNH", (every, slice(2, 4), every), (32, 4, 8)) == [(16, 32), (0, 32)]
    assert at("blocks.0.o_NHD", (slice(2, 4), every, every), (4, 8, 32)) == [(0, 32), (16, 32)]
    assert at("blocks.0.down_FD", (slice(24, 48), every), (48, 32)) == [(0, 32), (24, 48)]
    assert at("blocks.0.q_bias_NH", (slice(2, 4), every), (4, 8)) == [(16, 32)]
    assert at("embed_VD", (slice(5, 9), every), (261, 32)) == [(5, 9), (0, 32)]


def test_loops_count_in_what_is_exchanged():
    text = """HloModule m
%body.1 (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %all-reduce.3 = f32[4]{0} all-reduce(%x), channel_id=1, to_apply=%add
}
%cond (p: (s32[], f32[4])) -> pred[] {
}
ENTRY %main (a: f32[4]) -> f32[4] {
  %w = (s32[], f32[4]{0}) while(%t), condition=%cond, body=%body.1, backend_config={"known_trip_count":{"n":"7"}}
  %g = (bf16[2,8]{1,0}, bf16[4,8]{1,0}) all-gather-start(%b), dimensions={0}
  %h = bf16[4,8]{1,0} all-gather-done(%g)
}
"""
    found = collectives(SimpleNamespace(as_text=lambda: text))
    assert [tuple(x) for x in found] == [("all-reduce", 16, 7), ("all-gather", 64, 1)]
    assert result_bytes("(f32[2,2]{1,0}, pred[3])", "all-reduce") == 19


def test_a_run_on_a_model_axis(tmp_path):
    """A whole run through `Judge.grade`, whose mesh is its judge's; what a call exchanges is in its session's file."""
    bench = random_bench(queries=2, models=2)
    whole = tiny_judge().grade(bench, tmp_path / "whole").grades
    judge = tiny_judge()
    judge.mesh = mesh_of(2, 2)
    works = []
    run = judge.grade(bench, tmp_path / "cut", progress=lambda work: works.append(dict(work.exchanged)))
    for name in ("p_yes", "logit_yes", "logit_no", "answer_mass"):
        np.testing.assert_allclose(run.grades[name].to_numpy(), whole[name].to_numpy(), rtol=0, atol=1e-5)
    c, ((length, (count, sent)),) = judge.model.config, works[-1].items()
    assert count == 2 * c.layers and sent > 4 * length * c.D * 2 * (c.layers - 1)
