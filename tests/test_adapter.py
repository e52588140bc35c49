"""Adapters: their arithmetic by hand, their files as other libraries read them, and the judges that carry one."""

import json
import shutil
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fakes import random_bench, tiny_judge
from safetensors.numpy import load_file, save_file

from rocketjax.errors import RocketError
from rocketjax.grade import Judge
from rocketjax.judge import (
    Adapter,
    Card,
    LowRank,
    Row,
    adapter_paths,
    convert,
    init_adapter,
    init_eva,
    load_adapter,
    load_model,
    locate,
    merge,
    save_adapter,
    weights_sha256,
)
from rocketjax.judge.model import INPUTS, linear
from rocketjax.prompt import NATIVE, Prompter, pack_query
from rocketjax.tune.data import Targets, TrainRow
from rocketjax.tune.train import input_moments

GOLDEN = Path(__file__).parent / "golden"
RANK, SCALE = 4, 1.5
WEIGHTS, ABOUT = "adapter_model.safetensors", "rocketjax_adapter.json"
Q_NAME = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"


def random_adapter(model, where=None, seed: int = 0) -> Adapter:
    """An adapter both halves of which say something, in numbers that bf16 holds exactly."""
    rng = np.random.default_rng(seed)
    fresh = init_adapter(model, where or adapter_paths(model.config), RANK, SCALE, jax.random.key(0))

    def numbers(a):
        return jnp.asarray(rng.normal(0, 0.2, a.shape), jnp.bfloat16).astype(jnp.float32)

    return Adapter(jax.tree.map(numbers, fresh.pairs), SCALE)


def packed(judge, queries: int = 1):
    """Packed rows of a random benchmark's queries, shorter than their bucket."""
    bench, prompter = random_bench(queries=queries, models=2), Prompter(judge.tokenizer, NATIVE, 2048)
    rows = []
    for session in bench.checklists:
        responses = [prompter.prompts(bench, session, model).sequences for model in bench.models]
        rows += pack_query(responses, 2048, judge.model.config.window)
    return rows


def arrays(row) -> Row:
    return Row(*(jnp.asarray(getattr(row, name)) for name in Row._fields))


@pytest.mark.parametrize("name", ["q_DNH", "o_NHD", "down_FD"])
def test_a_projection_adds_its_low_rank_product(name):
    """x W + scale (x A^T) B in float64, for projections with one and with two axes in."""
    model = tiny_judge().model
    path, rng = f"blocks.1.{name}", np.random.default_rng(0)
    pair, weight = random_adapter(model).pairs[path], getattr(model.blocks[1], name)[...]
    cut = INPUTS[name]
    x = rng.normal(size=(7, *weight.shape[:cut]))
    x2, w2 = x.reshape(7, -1), np.asarray(weight, np.float64).reshape(int(np.prod(weight.shape[:cut])), -1)
    a, b = (np.asarray(m, np.float64).reshape(RANK, -1) for m in pair)
    expected = x2 @ w2 + SCALE * (x2 @ a.T) @ b
    x = jnp.asarray(x, jnp.float32)
    got = linear(x, weight, cut) + SCALE * pair.apply(x, jnp.float32)
    np.testing.assert_allclose(np.reshape(got, (7, -1)), expected, rtol=1e-5, atol=1e-5)
    merged = merge(model, Adapter({path: pair}, SCALE))
    new = np.reshape(getattr(merged.blocks[1], name)[...], w2.shape)
    np.testing.assert_allclose(new, w2 + SCALE * a.T @ b, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(getattr(model.blocks[1], name)[...], weight)


@pytest.mark.parametrize("where", ["all", pytest.param("some", marks=pytest.mark.slow)])
def test_an_adapter_beside_the_weights_equals_one_inside_them(where):
    judge = tiny_judge()
    paths = None if where == "all" else adapter_paths(judge.model.config, ["v_DKH", "o_NHD", "gate_DF"], [0, 2])
    adapter = random_adapter(judge.model, paths)
    row = arrays(packed(judge)[0])

    @partial(jax.jit, static_argnums=3)
    def run(model, row, adapter, kernel):
        return model.logits(model.hidden(row, kernel, adapter))

    expected = run(merge(judge.model, adapter), row, None, "plain")
    size = float(jnp.abs(expected).max())
    assert float(jnp.abs(expected - run(judge.model, row, None, "plain")).max()) > 0.1 * size
    for kernel in ("plain", "chunked", "blocked", "gathered"):
        np.testing.assert_allclose(run(judge.model, row, adapter, kernel), expected, rtol=0, atol=1e-5 * size)


def test_a_fresh_adapter_changes_nothing():
    judge = tiny_judge()
    judge.model.stack_layers()  # as grading leaves it
    fresh = init_adapter(judge.model, adapter_paths(judge.model.config), RANK, SCALE, jax.random.key(1))
    judge.model.stack_layers()
    merged = merge(judge.model, fresh)
    for a, b in zip(jax.tree.leaves(tiny_judge().model), jax.tree.leaves(merged), strict=True):
        np.testing.assert_array_equal(a, b)
    down = np.asarray(fresh.pairs["blocks.0.down_FD"].down)
    assert np.abs(down).max() <= 48**-0.5 and down.std() == pytest.approx(48**-0.5 / 3**0.5, rel=0.15)


def test_unknown_targets_and_layers_are_named():
    config = tiny_judge().model.config
    assert adapter_paths(config, ["q_DNH"], [1]) == ["blocks.1.q_DNH"] and len(adapter_paths(config)) == 21
    for targets, layers, message in (
        (["q_proj"], None, "unknown adapter targets q_proj; there are: q_DNH"),
        ([], None, r"unknown adapter targets \(none\)"),
        (["q_DNH"], [3], r"layers \[3\] cannot be adapted; the judge has 0 to 2"),
        (["q_DNH"], [-1], "cannot be adapted"),
        (["q_DNH"], [], "cannot be adapted"),
    ):
        with pytest.raises(RocketError, match=message):
            adapter_paths(config, targets, layers)


@pytest.fixture
def saved(tmp_path):
    """A tiny judge's config, an adapter, and the folder that it was written to."""
    model = tiny_judge().model
    adapter = random_adapter(model)
    card = Card("f" * 64, "path:tiny", RANK, SCALE, {"step": 3})
    save_adapter(adapter, model.config, card, tmp_path / "adapter")
    return model.config, adapter, tmp_path / "adapter"


def test_the_files_are_in_the_layout_of_peft(saved):
    config, adapter, folder = saved
    tensors = load_file(folder / WEIGHTS)
    D, NH, KH, F = 32, 32, 16, 48
    sizes = {
        "self_attn.q_proj": (D, NH), "self_attn.k_proj": (D, KH), "self_attn.v_proj": (D, KH),
        "self_attn.o_proj": (NH, D), "mlp.gate_proj": (D, F), "mlp.up_proj": (D, F), "mlp.down_proj": (F, D),
    }  # fmt: skip
    expected = {}
    for n in range(config.layers):
        for name, (inputs, outputs) in sizes.items():
            prefix = f"base_model.model.model.layers.{n}.{name}"
            expected[f"{prefix}.lora_A.weight"] = (RANK, inputs)
            expected[f"{prefix}.lora_B.weight"] = (outputs, RANK)
    assert {name: t.shape for name, t in tensors.items()} == expected
    assert {t.dtype for t in tensors.values()} == {np.dtype(jnp.bfloat16)}
    # PEFT adds lora_alpha / r * B A to a matrix [out, in].
    peft = json.loads((folder / "adapter_config.json").read_text())
    assert (peft["peft_type"], peft["r"], peft["lora_alpha"], peft["bias"]) == ("LORA", RANK, SCALE * RANK, "none")
    assert sorted(peft["target_modules"]) == sorted(name.split(".")[1] for name in sizes)
    assert peft["layers_to_transform"] == [0, 1, 2]
    a, b = (
        tensors[f"base_model.model.model.layers.2.self_attn.q_proj.lora_{x}.weight"].astype(np.float64) for x in "AB"
    )
    down, up = (np.asarray(m, np.float64) for m in adapter.pairs["blocks.2.q_DNH"])
    ours = SCALE * np.einsum("rd,rnh->dnh", down, up)
    np.testing.assert_allclose((peft["lora_alpha"] / peft["r"] * b @ a).T.reshape(ours.shape), ours, rtol=1e-12)


def test_saving_and_loading_keeps_every_bit_of_bf16(saved):
    config, adapter, folder = saved
    again = load_adapter(folder, config, "f" * 64)
    assert again.scale == SCALE and again.pairs.keys() == adapter.pairs.keys()
    for path, pair in adapter.pairs.items():
        for a, b in zip(pair, again.pairs[path], strict=True):
            assert b.dtype == jnp.float32
            np.testing.assert_array_equal(a, b)
    # What bf16 cannot hold is rounded, not cut.
    third = Adapter(jax.tree.map(lambda a: jnp.full_like(a, 1 / 3), adapter.pairs), SCALE)
    save_adapter(third, config, Card("f" * 64, "path:tiny", RANK, SCALE, {}), folder)
    value = float(load_adapter(folder, config, "f" * 64).pairs["blocks.0.q_DNH"].up[0, 0, 0])
    assert value == float(jnp.bfloat16(1 / 3))
    assert {f.name for f in folder.parent.iterdir()} == {"adapter"}, "replaced whole, without leftovers"


def tensors_of(change):
    def mutate(folder: Path) -> None:
        tensors = dict(load_file(folder / WEIGHTS))
        change(tensors)
        save_file(tensors, folder / WEIGHTS)

    return mutate


def about(**values):
    def mutate(folder: Path) -> None:
        file = folder / ABOUT
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    return mutate


BROKEN = {
    "another base": (about(base_sha256="e" * 64), r"was trained on path:tiny, whose weights have sha256 e{16}\.\.\."),
    "no card": (lambda f: (f / ABOUT).unlink(), f"has no {ABOUT}, so nothing says which weights"),
    "a torn card": (lambda f: (f / ABOUT).write_text("{"), rf"{ABOUT}: cannot be read"),
    "an odd card": (lambda f: (f / ABOUT).write_text("[]"), rf"{ABOUT}: cannot be read"),
    "a card without rank": (lambda f: (f / ABOUT).write_text('{"format": 1}'), r"cannot be read \(KeyError\('rank'"),
    "another format": (about(format=2), "format 2, this version reads 1"),
    "a scale that is no number": (about(scale=float("nan")), "scale is nan"),
    "another rank": (about(rank=8), r"lora_A.weight is \(4, (\d+)\), not finite numbers of \(8, \1\)"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), rf"{WEIGHTS}: is no whole safetensors file"),
    "torn weights": (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-9]), "no whole safetensors file"),
    "no tensor": (tensors_of(lambda t: t.clear()), "holds nothing, which no projection takes"),
    "a tensor too many": (
        tensors_of(lambda t: t.update({Q_NAME.replace("layers.1", "layers.7"): t[Q_NAME]})),
        r"holds base_model\.model\.model\.layers\.7\.self_attn\.q_proj\.lora_A\.weight, which no projection takes",
    ),
    "half a pair": (tensors_of(lambda t: t.pop(Q_NAME)), r"has only one half of blocks\.1\.q_DNH"),
    "a wrong shape": (
        tensors_of(lambda t: t.update({Q_NAME: t[Q_NAME].T.copy()})),
        r"layers\.1\.self_attn\.q_proj\.lora_A\.weight is \(32, 4\), not finite numbers of \(4, 32\)",
    ),
    "an infinity": (
        tensors_of(lambda t: t.update({Q_NAME: np.full_like(t[Q_NAME], np.inf)})),
        "not finite numbers",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_adapter_says_what_is_wrong(name, saved):
    config, _, folder = saved
    mutate, message = BROKEN[name]
    mutate(folder)
    with pytest.raises(RocketError, match=message):
        load_adapter(folder, config, "f" * 64)


def test_an_adapter_of_a_wider_judge_is_refused(saved):
    _, _, folder = saved
    config = load_model(GOLDEN / "tiny_llama", "f32")[0].config
    with pytest.raises(RocketError, match="not finite numbers of"):
        load_adapter(folder, config, "f" * 64)


def train_row(row) -> TrainRow:
    return TrainRow(row, Targets(*[np.zeros(0)] * len(Targets._fields)))


def test_eva_begins_at_the_right_singular_vectors_of_the_inputs():
    """Against numpy's SVD of the inputs themselves, gathered at every real token (or leaf, in the last layer)."""
    judge = tiny_judge()
    where = adapter_paths(judge.model.config)
    rows = packed(judge, queries=2)
    assert all(row.tokens < row.length and len(row.owners) < len(row.leaf_L) for row in rows), "there is padding"
    seen: dict[str, list[np.ndarray]] = {}
    for row in rows:

        def tap(path, x, row=row):
            real = row.tokens if len(x) == row.length else len(row.owners)
            seen.setdefault(path, []).append(np.asarray(x, np.float64).reshape(len(x), -1)[:real])

        judge.model.hidden(arrays(row), "plain", tap=tap)
    assert seen.keys() == set(where)

    fresh = init_adapter(judge.model, where, RANK, SCALE, jax.random.key(0))
    made = init_eva(fresh, input_moments(judge.model, where, [train_row(row) for row in rows]))
    assert made.scale == SCALE
    for path in where:
        _, sizes, vectors = np.linalg.svd(np.concatenate(seen[path]), full_matrices=False)
        down = np.asarray(made.pairs[path].down, np.float64).reshape(RANK, -1)
        np.testing.assert_allclose(down @ down.T, np.eye(RANK), atol=1e-5)
        # One by one where the singular values lie apart, as a subspace in any case.
        for r in range(RANK):
            apart = min(abs(sizes[r] - s) for i, s in enumerate(sizes) if i != r) / sizes[0]
            if apart > 0.01:
                assert abs(down[r] @ vectors[r]) == pytest.approx(1, abs=1e-4), (path, r)
        if sizes[RANK - 1] - sizes[RANK] > 0.01 * sizes[0]:
            np.testing.assert_allclose(np.linalg.norm(vectors[:RANK] @ down.T), RANK**0.5, rtol=1e-4)
        assert not np.asarray(made.pairs[path].up).any(), "it still changes nothing"


def test_eva_refuses_a_rank_that_the_inputs_do_not_have():
    path = "blocks.0.q_DNH"
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 32))  # three directions
    for rank, inputs in ((4, x), (33, rng.normal(size=(100, 32)))):
        fresh = Adapter({path: LowRank(jnp.zeros((rank, 32)), jnp.zeros((rank, 4, 8)))}, 1.0)
        with pytest.raises(RocketError, match=rf"inputs of {path} span fewer than {rank} directions; lower --rank"):
            init_eva(fresh, {path: jnp.asarray(inputs.T @ inputs, jnp.float32)})


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """The tiny golden judge with room for real prompts."""
    folder = tmp_path_factory.mktemp("base") / "tiny"
    shutil.copytree(GOLDEN / "tiny_llama", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 8192}))
    return folder


@pytest.fixture(scope="module")
def adapter(base) -> Path:
    model, sha256 = load_model(base, "f32")
    card = Card(sha256, f"path:{base}", RANK, SCALE, {})
    save_adapter(random_adapter(model), model.config, card, base.parent / "adapter")
    return base.parent / "adapter"


@pytest.fixture(scope="module")
def bench():
    return random_bench(queries=2, models=2)


def values(run) -> np.ndarray:
    table = run.grades
    return np.stack([table[name].to_numpy() for name in ("p_yes", "logit_yes", "logit_no", "answer_mass")])


def test_a_served_adapter_grades_like_merged_weights(base, adapter, bench, tmp_path):
    """The sum is made here from the two files alone: W + alpha / r B A on the base's own tensors."""
    merged = tmp_path / "merged"
    shutil.copytree(base, merged)
    tensors, low = dict(load_file(base / "model.safetensors")), load_file(adapter / WEIGHTS)
    peft = json.loads((adapter / "adapter_config.json").read_text())
    for name in [n for n in low if ".lora_A." in n]:
        target = name.removeprefix("base_model.model.").replace(".lora_A", "")
        a, b = low[name].astype(np.float64), low[name.replace("lora_A", "lora_B")].astype(np.float64)
        tensors[target] = (tensors[target] + peft["lora_alpha"] / peft["r"] * b @ a).astype(np.float32)
    save_file(tensors, merged / "model.safetensors")

    plain, by_hand = (Judge.load(str(folder)).grade(bench) for folder in (base, merged))
    judge = Judge.load(f"{base}+{adapter}")
    assert judge.adapted and judge.origin == f"path:{base}+path:{adapter}"
    served = judge.grade(bench, tmp_path / "served")
    np.testing.assert_allclose(values(served), values(by_hand), rtol=1e-4, atol=1e-5)
    assert np.abs(values(served) - values(plain)).max() > 0.05
    hashes = [run.meta["judge"]["weights_sha256"] for run in (served, plain, by_hand)]
    assert len(set(hashes)) == 3 and hashes[1] == weights_sha256(base)
    assert Judge.load(f"{base}+{adapter}").sha256 == hashes[0]

    convert(locate(f"{base}+{adapter}"), tmp_path / "converted", "f32")
    again = Judge.load(str(tmp_path / "converted"))
    assert not again.adapted and again.grade(bench).grades.equals(served.grades)
    with pytest.raises(RocketError, match="exists already"):
        convert(locate(f"{base}+{adapter}"), tmp_path / "converted", "f32")


def test_the_sum_is_rounded_once(base, adapter):
    """bf16(W + delta), not bf16(W) + delta."""
    exact = Judge.load(f"{base}+{adapter}").model.blocks[1].q_DNH[...]
    half = Judge.load(f"{base}+{adapter}", "bf16").model
    assert half.blocks[1].q_DNH.dtype == jnp.bfloat16 and half.blocks[1].attn_norm_D.dtype == jnp.float32
    np.testing.assert_array_equal(half.blocks[1].q_DNH[...], exact.astype(jnp.bfloat16))


def test_another_scale_is_another_judge(base, adapter, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(adapter, other)
    about(scale=SCALE * 2)(other)
    a, b = (Judge.load(f"{base}+{folder}") for folder in (adapter, other))
    assert a.sha256 != b.sha256
    assert not np.array_equal(a.model.blocks[0].q_DNH[...], b.model.blocks[0].q_DNH[...])


def test_wrong_names_of_adapters(base, adapter, tmp_path):
    for name, message in (
        (f"{adapter}", rf"{adapter}: is an adapter, so it needs its base: BASE\+{adapter}"),
        (f"{base}+{base}", rf"{base}: is no adapter folder; give BASE\+ADAPTER"),
        (f"{base}+{tmp_path / 'nowhere'}", "nowhere: is no adapter folder"),
        (f"{base}+", "is no adapter folder"),
        (f"+{adapter}", "no base"),
        (f"{tmp_path / 'nowhere'}+{adapter}", "no such file or folder"),
        (f"{base}+{adapter}+{adapter}", "one adapter"),
        (f"{adapter}+{adapter}", "is an adapter, so it needs its base"),
    ):
        with pytest.raises(RocketError, match=message):
            locate(name)
    other = tmp_path / "other"
    shutil.copytree(base, other)
    tensors = {name: t * np.float32(1.001) for name, t in load_file(base / "model.safetensors").items()}
    save_file(tensors, other / "model.safetensors")
    with pytest.raises(RocketError, match=r"was trained on path:.*; this base has .* would be another judge"):
        Judge.load(f"{other}+{adapter}")


def test_a_folder_with_a_plus_in_its_name_is_a_judge(base, tmp_path):
    shutil.copytree(base, tmp_path / "a+b")
    assert locate(str(tmp_path / "a+b")).adapter is None
