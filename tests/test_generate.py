"""Generation: another library's texts, the naive loop's, and bit-equal ones whatever the company."""

import functools
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fakes import ByteTokenizer, tiny_judge
from scipy.stats import chisquare

from rocketjax.errors import RocketError
from rocketjax.generate import Generator, generator, stop_ids
from rocketjax.generate.decode import Settings, Slots, draw, nucleus
from rocketjax.grade import Grader
from rocketjax.judge import Row, load_model
from rocketjax.prompt import load_tokenizer

GOLDEN = Path(__file__).parent / "golden"
FAMILIES = ("tiny_llama", "tiny_llama3", "tiny_gemma2", "tiny_gemma3", "tiny_qwen2", "tiny_qwen3")
NEW = 64


def some(first: tuple[str, ...], others: tuple[str, ...]) -> list:
    """Names of which the others are tried in the longer round: compiling is what these tests cost."""
    return [*first, *(pytest.param(name, marks=pytest.mark.slow) for name in others)]


# Random models know no words: their tokens stand in a text as numbers.
NUMBERS = SimpleNamespace(decode=lambda ids: " ".join(map(str, ids)), has_special=lambda name: False)


def mesh(devices: int, model: int = 1):
    return jax.make_mesh((devices, model), ("data", "model"), devices=jax.devices()[: devices * model])


@functools.cache
def loaded(name: str, dtype: str = "f32") -> Generator:
    """A generator for a tiny model, shared: compiling is what these tests cost."""
    model = tiny_judge().model if name == "fake" else load_model(GOLDEN / name, dtype)[0]
    return Generator(model, NUMBERS, mesh(1), slots=4)


@functools.cache
def forward(name: str, dtype: str = "f32"):
    """Next-token logits after a prompt, by a whole pass of `Transformer` with the plain attention."""
    model = tiny_judge().model if name == "fake" else load_model(GOLDEN / name, dtype)[0]
    model.stack_layers()  # a loop compiles faster
    run = jax.jit(lambda model, row: model(row, "plain")[0])

    def logits(ids: list[int]) -> np.ndarray:
        n, T = len(ids), 256
        token = np.zeros(T, np.int32)
        token[:n] = ids
        place = np.arange(T, dtype=np.int32)
        start = np.maximum(place - model.config.window + 1, 0) if model.config.window else 0 * place
        row = Row(token, place, np.full(T, n, np.int32), start, np.full(16, n - 1, np.int32))
        return np.asarray(run(model, Row(*map(jnp.asarray, row))))

    return logits


def naive(name: str, prompt: list[int], count: int, dtype: str = "f32") -> tuple[list[int], np.ndarray, np.ndarray]:
    """Greedy tokens by whole passes over the growing prompt, their log probabilities, the margins to the second."""
    ids, logprobs, margins = list(prompt), [], []
    for _ in range(count):
        x = forward(name, dtype)(ids).astype(np.float64)
        ids.append(int(x.argmax()))
        top = np.sort(x)[-2:]
        margins.append(top[1] - top[0])
        logprobs.append(x.max() - np.logaddexp.reduce(x))
    return ids[len(prompt) :], np.array(logprobs), np.array(margins)


def forced(name: str, prompt: list[int], tokens: Sequence[int], dtype: str = "f32") -> tuple[float, float]:
    """Log probability of this text after the prompt by whole passes, and how far a token was at most from the best."""
    ids, total, most = list(prompt), 0.0, 0.0
    for token in tokens:
        x = forward(name, dtype)(ids).astype(np.float64)
        most = max(most, x.max() - x[token])
        total += x[token] - np.logaddexp.reduce(x)
        ids.append(token)
    return total, most


def random_prompts(lengths, vocabulary: int = 250, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, vocabulary, length).tolist() for length in lengths]


@pytest.mark.parametrize("name", some(FAMILIES[1:3], (FAMILIES[0], *FAMILIES[3:])))
def test_greedy_texts_are_another_librarys(name):
    """Token for token; prompts of 1 to 130 tokens, windows of 8 where there are some, no near ties in golden texts."""
    with np.load(GOLDEN / "generated_tiny.npz") as golden:
        count = sum(key.startswith(f"{name}.prompt_") for key in golden)
        prompts = [golden[f"{name}.prompt_{k}"].tolist() for k in range(count)]
        expected = [golden[f"{name}.tokens_{k}"].tolist() for k in range(count)]
        logprobs = [golden[f"{name}.logprobs_{k}"].sum(dtype=np.float64) for k in range(count)]
        assert min(golden[f"{name}.margins_{k}"].min() for k in range(count)) > 1e-3
    assert [len(prompt) for prompt in prompts] == [1, 7, 40, 130]
    found = loaded(name).generate(prompts, NEW, stop=())
    assert [list(text.tokens) for text in found] == expected
    assert [text.logprob for text in found] == pytest.approx(logprobs, abs=1e-3)
    assert all(text.reason == "length" and text.text == NUMBERS.decode(text.tokens) for text in found)


@pytest.mark.weights
def test_a_real_model_writes_what_another_library_writes(smollm2_gguf):
    golden = json.loads((GOLDEN / "generated_smollm2.json").read_text())["texts"]
    model, _ = load_model(smollm2_gguf, "f32")
    writer = Generator(model, load_tokenizer(smollm2_gguf), mesh(1), slots=4)
    found = writer.generate([text["prompt"] for text in golden], NEW, stop=())
    assert len(golden) >= 3 and all(min(text["margins"]) > 1e-3 for text in golden)
    assert [list(text.tokens) for text in found] == [text["tokens"] for text in golden]
    assert [text.logprob for text in found] == pytest.approx([sum(text["logprobs"]) for text in golden], abs=2e-3)


@pytest.mark.parametrize("name", some((), ("tiny_gemma3", "tiny_gemma2", "tiny_qwen3", "fake")))
def test_greedy_texts_are_the_naive_loops(name):
    """The cache changes nothing: also of rings that turn several times (windows of 8, and of 40 in the fake one)."""
    for prompt in random_prompts((3, 100)):
        tokens, logprobs, margins = naive(name, prompt, NEW)
        clear = int(np.argmax(margins < 1e-4)) if (margins < 1e-4).any() else NEW
        assert clear >= 16, "a near tie that early says nothing"
        (text,) = loaded(name).generate([prompt], clear, stop=())
        assert list(text.tokens) == tokens[:clear]
        assert text.logprob == pytest.approx(logprobs[:clear].sum(), abs=1e-4 * clear)
    # A drawn text says more than one word, also where a random model likes to repeat itself.
    (text,) = loaded(name).generate([prompt], NEW, temperature=2.0, seed=1, stop=())
    assert len(set(text.tokens)) > 16
    assert text.logprob == pytest.approx(forced(name, prompt, text.tokens)[0], abs=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dtype", "most"), [("tiny_gemma2", "int8", 1e-3), ("tiny_llama", "bf16", 0.2)])
def test_rounded_weights_write_what_the_naive_loop_could_have_written(name, dtype, most):
    """Every token is the best of a whole pass over the text before it, or as near as rounded products are."""
    (prompt,) = random_prompts((40,))
    (text,) = loaded(name, dtype).generate([prompt], NEW, stop=())
    assert len(text.tokens) == NEW
    total, behind = forced(name, prompt, text.tokens, dtype)
    assert behind < most
    assert text.logprob == pytest.approx(total, abs=most * NEW / 4)


COMPANY = random_prompts((5, 290, 1, 40, 77, 300, 120, 2, 256, 60, 33), seed=1)  # rows of 256 and 384
HOW = dict(max_new=24, temperature=0.9, top_p=0.8, seed=3)


@functools.cache
def fake(devices: int) -> Generator:
    return Generator(tiny_judge().model, ByteTokenizer(), mesh(devices), slots=4)


@pytest.fixture(scope="module")
def alone():
    """Every prompt by itself on one device, which has other slots but nothing in them."""
    return [fake(1).generate([prompt], **HOW)[0] for prompt in COMPANY]


def test_a_text_does_not_depend_on_company_slot_or_order(alone):
    assert len({text.tokens for text in alone}) == len(COMPANY)
    assert fake(1).generate(COMPANY, **HOW) == alone
    assert fake(1).generate(COMPANY[::-1], **HOW)[::-1] == alone
    for shift in (1, 2, 3):  # another slot for each, and other neighbours
        assert fake(1).generate([[7]] * shift + COMPANY, **HOW)[shift:] == alone
    assert dict(fake(1).stream(COMPANY, **HOW)) == dict(enumerate(alone))


def test_eight_devices_write_what_one_writes(alone):
    assert fake(8).generate(COMPANY, **HOW) == alone
    assert fake(8).generate(COMPANY[:3], **HOW) == alone[:3]


@pytest.mark.slow
def test_greedy_texts_of_one_and_eight_devices():
    expected = fake(1).generate(COMPANY, 24)
    assert fake(8).generate(COMPANY, 24) == expected
    assert [fake(1).generate([prompt], 24)[0] for prompt in COMPANY[:4]] == expected[:4]


@pytest.mark.slow
def test_stacked_layers_are_taken_apart_and_a_grader_can_have_them_again(alone):
    judge = tiny_judge()
    answer_ids = judge.tokenizer.answer_ids()
    Grader(judge.model, answer_ids, mesh(1))
    assert judge.model.stack is not None
    assert Generator(judge.model, ByteTokenizer(), mesh(1), slots=4).generate(COMPANY, **HOW) == alone
    Grader(judge.model, answer_ids, mesh(1))
    assert judge.model.stack is not None


@pytest.mark.slow
def test_a_model_axis_changes_rounding_only():
    """Heads cut over two devices: still the golden texts, which have no near ties."""
    with np.load(GOLDEN / "generated_tiny.npz") as golden:
        prompts = [golden[f"tiny_qwen3.prompt_{k}"].tolist() for k in range(4)]
        expected = [golden[f"tiny_qwen3.tokens_{k}"].tolist() for k in range(4)]
    cut = Generator(load_model(GOLDEN / "tiny_qwen3", "f32")[0], NUMBERS, mesh(2, 2), slots=4)
    cache, _ = cut.empty(cut.arrays, 8, 384)
    assert cache[0].k_SKCH.addressable_shards[0].data.shape == (4, 1, 384, 16), "slots and key heads are cut"
    assert [list(text.tokens) for text in cut.generate(prompts, NEW, stop=())] == expected


def test_seeds():
    first = fake(1).generate(COMPANY[:4], **HOW)
    assert fake(1).generate(COMPANY[:4], **HOW) == first
    other = fake(1).generate(COMPANY[:4], **{**HOW, "seed": 4})
    assert all(a.tokens != b.tokens for a, b in zip(first, other, strict=True))
    assert fake(1).generate([COMPANY[0]] * 3, **HOW) == [first[0]] * 3


V = 12


def drawn(logits_V, count: int, temperature: float, top_p: float, seed: int = 0, position: int = 5) -> np.ndarray:
    """Draws from the same logits in many slots, whose prompts have different names."""
    names = np.stack([np.arange(count), np.arange(count) // 3], axis=-1).astype(np.uint32)
    slots = Slots(jnp.zeros(count, jnp.int32), jnp.full(count, position, jnp.int32), jnp.asarray(names))
    settings = Settings(jnp.uint32(seed), jnp.float32(temperature), jnp.float32(top_p))
    told = jax.jit(draw)(jnp.tile(jnp.asarray(logits_V, jnp.float32), (count, 1)), slots, settings)
    tokens, logprobs = np.asarray(told.token_S), np.asarray(told.logprob_S)
    np.testing.assert_allclose(logprobs, (logits_V - np.logaddexp.reduce(logits_V))[tokens], atol=1e-5)
    return tokens


def wanted(logits_V, temperature: float, top_p: float) -> np.ndarray:
    """The distribution, by its definition: the fewest most probable tokens that reach top_p, scaled to 1."""
    p = np.exp(logits_V / temperature - np.logaddexp.reduce(logits_V / temperature))
    order = np.argsort(-p)
    kept = order[: int(np.searchsorted(np.cumsum(p[order]), top_p) + 1)]
    out = np.zeros(len(p))
    out[kept] = p[kept] / p[kept].sum()
    return out


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.6, 1.0), (1.5, 0.7), (0.8, 0.6)])
def test_draws_have_the_distribution_asked_for(temperature, top_p):
    """Chi-square over 6,000 draws, at one in a thousand (the seed is fixed)."""
    logits = np.random.default_rng(0).normal(0, 1.2, V)
    p, count = wanted(logits, temperature, top_p), 6000
    seen = np.bincount(drawn(logits, count, temperature, top_p), minlength=V)
    assert seen[p == 0].sum() == 0
    assert (p > 0).sum() >= 2 and chisquare(seen[p > 0], p[p > 0] * count).pvalue > 1e-3
    # A wrong temperature would show: the test has the power to see one.
    assert (
        chisquare(
            seen[p > 0],
            wanted(logits, temperature * 1.2, 1.0)[p > 0] / wanted(logits, temperature * 1.2, 1.0)[p > 0].sum() * count,
        ).pvalue
        < 1e-3
    )


def test_draws_are_those_of_seed_prompt_and_position():
    logits = np.random.default_rng(1).normal(0, 0.5, V)
    first = drawn(logits, 500, 1.0, 1.0)
    np.testing.assert_array_equal(drawn(logits, 500, 1.0, 1.0), first)
    np.testing.assert_array_equal(drawn(logits, 100, 1.0, 1.0), first[:100])
    for other in (drawn(logits, 500, 1.0, 1.0, seed=1), drawn(logits, 500, 1.0, 1.0, position=6)):
        assert 0.02 < (other == first).mean() < 0.3
    assert set(drawn(logits, 500, 0.0, 0.5)) == {int(logits.argmax())}


def test_a_nucleus_keeps_ties_and_at_least_one():
    cut = jax.jit(nucleus)
    logits = np.log(np.array([[0.1, 0.4, 0.3, 0.2], [0.25, 0.25, 0.25, 0.25]], np.float32))
    for top_p, kept in ((0.01, 1), (0.39, 1), (0.41, 2), (0.69, 2), (0.71, 3), (0.95, 4), (1.0, 4)):
        found = np.asarray(cut(logits, jnp.float32(top_p))) > -100
        assert found[0].sum() == kept and found[0, 1] and found[1].all()


@pytest.mark.slow
def test_a_wide_nucleus_is_the_same_and_so_is_a_narrow_one_beside_it():
    """More tokens than are looked at first: the whole sort, for those slots alone."""
    rng = np.random.default_rng(2)
    logits = np.stack([rng.normal(0, 0.1, 1000), rng.normal(0, 5, 1000)]).astype(np.float32)
    cut = jax.jit(nucleus)
    both = np.asarray(cut(logits, jnp.float32(0.9)))
    assert (both[0] > -100).sum() > 256 > (both[1] > -100).sum()
    np.testing.assert_array_equal(np.asarray(cut(logits[[1, 1]], jnp.float32(0.9)))[0], both[1])
    for row, found in zip(logits.astype(np.float64), both, strict=True):
        assert ((wanted(row, 1.0, 0.9) > 0) == (found > -100)).sum() >= 999  # the last one may fall either way in f32


def test_texts_end_at_stop_tokens():
    assert stop_ids(ByteTokenizer()) == (257, 259)
    prompt = COMPANY[3]
    tokens, logprobs, margins = naive("fake", prompt, 24)
    assert margins.min() > 1e-4
    ends = [tokens.index(token) for token in tokens]
    for at in sorted({0, *ends[1:]})[:6]:
        (text,) = fake(1).generate([prompt], 24, stop=[tokens[at], 260])
        assert (list(text.tokens), text.reason) == (tokens[:at], "stop")
        assert text.text == ByteTokenizer().decode(tokens[:at])
        assert text.logprob == pytest.approx(logprobs[: at + 1].sum(), abs=1e-3), "the stop token counts"
    (text,) = fake(1).generate([prompt], 24, stop=[260])
    assert (list(text.tokens), text.reason) == (tokens, "length")


def test_a_slot_that_is_done_takes_the_next_prompt(monkeypatch):
    """Texts of very different lengths in four slots: steps are about the tokens over the slots, not rounds of the
    longest; short ones come back first."""
    prompts = random_prompts(range(3, 33), seed=5)
    how = dict(max_new=24, temperature=1.0, seed=1, stop=list(range(0, 261, 9)))
    texts = [fake(1).generate([prompt], **how)[0] for prompt in prompts]
    lengths = [len(text.tokens) + (text.reason == "stop") for text in texts]
    assert min(lengths) < 4 and max(lengths) == 24
    steps, real = [], fake(1).step
    monkeypatch.setattr(fake(1), "step", lambda *args: steps.append(1) or real(*args))
    found = list(fake(1).stream(prompts, **how))
    assert [text for _, text in sorted(found, key=lambda pair: pair[0])] == texts
    assert [index for index, _ in found] != sorted(index for index, _ in found)
    # One step of each text that stops is in vain, and the last slots run dry.
    assert len(steps) <= (sum(lengths) + len(lengths)) / 4 + 24
    rounds = sum(max(lengths[i : i + 4]) for i in range(0, len(lengths), 4))
    assert len(steps) < 0.8 * rounds


@pytest.mark.slow
def test_at_most_one_compilation_per_bucket():
    compiled = []

    def listen(name: str, seconds: float, **_) -> None:
        if name == "/jax/core/compile/backend_compile_duration":
            compiled.append(seconds)

    prompts = random_prompts((5, 100, 60, 120, 255, 270))
    model = load_model(GOLDEN / "tiny_gemma2", "f32")[0]
    model.config = replace(model.config, context=1024)
    loaded("tiny_gemma2").generate(prompts[:1], NEW)  # everything else that compiles: transfers
    generator.programs.cache_clear()
    fresh = Generator(model, NUMBERS, mesh(1), slots=3)
    jax.monitoring.register_event_duration_secs_listener(listen)
    fresh.generate(prompts, 20)
    assert len(compiled) == 3 * 2  # rows of 256 and 384; for their caches of 384 and 512 an empty one and a step each
    fresh.generate(prompts[::-1], 20, temperature=1.0, top_p=0.5, seed=9, stop=())
    fresh.generate(prompts[2:], 9, temperature=0.1)
    assert len(compiled) == 6


def test_what_cannot_be_is_refused_at_once():
    def refused(message: str, prompts=((1, 2),), max_new: int = 4, **how) -> None:
        with pytest.raises(RocketError, match=message):
            fake(1).stream(prompts, max_new, **how)

    refused("prompt 1 is empty", [[1], []])
    refused("prompt 0 has a token outside of the vocabulary of 261", [[261]])
    refused("prompt 0 has a token outside", [[-1]])
    refused("prompt 1 has 4090 tokens; with 10 new ones this model takes 4096", [[1], [1] * 4090], 10)
    refused("max_new is 0", max_new=0)
    refused("temperature is -1", temperature=-1.0)
    refused("temperature is nan", temperature=math.nan)
    refused("top_p is 0", top_p=0.0)
    refused("top_p is 1.5", top_p=1.5)
    refused("seed is -1", seed=-1)
    with pytest.raises(RocketError, match="slots is 0"):
        Generator(tiny_judge().model, ByteTokenizer(), mesh(1), slots=0)
    assert fake(1).generate([], 4) == []


def test_logits_that_are_not_finite_are_an_error():
    model, _ = load_model(GOLDEN / "tiny_llama_untied", "f32")
    table = np.array(model.embed_VD[...])
    table[9] = np.nan
    model.embed_VD = type(model.embed_VD)(jnp.asarray(table))
    broken = Generator(model, NUMBERS, mesh(1), slots=4)
    with pytest.raises(RocketError, match=r"the logits after prompt 2 and 0 tokens are not finite"):
        broken.generate([[1, 2], [3], [4, 9, 5], [6]], 3, stop=())
