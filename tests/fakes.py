"""Stand-ins that need no files: a byte tokenizer, a tiny random judge over it, a random benchmark."""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rocketjax.bench import Benchmark, Checklist, Message, Query, Response
from rocketjax.grade import Judge
from rocketjax.judge import Config, Transformer

SPECIALS = ("<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>", "<bos>")


class ByteTokenizer:
    """One token per UTF-8 byte; specials behind them; the answers are the letters Y/y and N/n."""

    vocab_size = 256 + len(SPECIALS)
    sha256 = "bytes"

    def __init__(self, chat_template: str | None = None, bos: int | None = None) -> None:
        self.chat_template, self.bos = chat_template, bos

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def special(self, name: str) -> int:
        return 256 + SPECIALS.index(name)

    def has_special(self, name: str) -> bool:
        return name in SPECIALS

    def token_text(self, token: int) -> str:
        return self.decode([token])

    def decode(self, ids: Sequence[int]) -> str:
        text = b""
        for i in ids:
            text += bytes([i]) if i < 256 else SPECIALS[i - 256].encode()
        return text.decode(errors="replace")

    def answer_ids(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return (ord("Y"), ord("y")), (ord("N"), ord("n"))


CHATML = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}{% endfor %}"
GEMMA = "{{ bos_token }}<start_of_turn>"


def tiny_judge(seed: int = 0, local: bool = True, path: Path = Path("tiny")) -> Judge:
    """A random two-to-three-layer judge over bytes: local and full layers, shared key heads, qk and post norms."""
    config = Config(
        "gemma3", layers=3, D=32, N=4, K=2, H=8, F=48, V=ByteTokenizer.vocab_size, context=4096, norm_eps=1e-6,
        rope_theta=10_000.0, activation="gelu", gain_offset=1.0, embed_scale=5.0, qk_norm=True, post_norms=True,
        **(dict(window=40, local_layers=(0, 1), rope_theta_local=1000.0) if local else {}),
    )  # fmt: skip
    model = Transformer(config)
    graph, state = nnx.split(model)
    leaves, treedef = jax.tree.flatten(state)
    rng = np.random.default_rng(seed)
    leaves = [jnp.asarray(rng.normal(0, 0.3, leaf.shape), jnp.float32) for leaf in leaves]
    model = nnx.merge(graph, jax.tree.unflatten(treedef, leaves))
    return Judge(model, ByteTokenizer(CHATML), "path:tiny", f"tiny-{seed}-{local}", "f32", path)


WORDS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu")


def random_bench(queries: int = 6, models: int = 3, seed: int = 0, words: int = 30) -> Benchmark:
    """Random texts: every query has 2 to 5 items, every model answers every query."""
    rng = np.random.default_rng(seed)

    def say(n: int) -> str:
        return " ".join(rng.choice(WORDS, n))

    ids = [f"s{i:02d}" for i in range(queries)]
    names = [f"model-{m}" for m in range(models)]
    return Benchmark(
        name="random",
        path="random",
        queries={i: Query(i, (Message("user", say(int(rng.integers(3, 12)))),), {}) for i in ids},
        checklists={i: Checklist(i, tuple(f"{k} {say(4)}?" for k in range(rng.integers(2, 6)))) for i in ids},
        responses={m: {i: Response(i, m, say(int(rng.integers(3, words))), None) for i in ids} for m in names},
        labels={},
        exclusions=(),
    )
