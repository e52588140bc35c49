"""A language model on this machine as a writer: any that the judges' loader reads, through `rocketjax.generate`."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, get_args

from rocketjax.create.writer import Chat, Written
from rocketjax.errors import RocketError
from rocketjax.generate import LONGEST, SLOTS, Generator
from rocketjax.grade import check_ids, use_compile_cache
from rocketjax.judge import Dtype, load_judge, locate, places_for, read_config, weight_bytes
from rocketjax.prompt import Chat as Format
from rocketjax.prompt import Int, Part, Span, Tokenizer, chat_format, encode_parts, load_tokenizer

LOCAL_DEFAULTS: dict[str, Any] = {"temperature": 0.7, "top_p": 0.95, "max_tokens": 1024, "seed": 0}
"""RocketEval's decoding; `seed` makes it the same again."""
DEFAULT = "default"  # the embedded judge, which other commands take where none is named
CUE = "\n\nChecklist:\n"  # where a base model, which knows no turns, goes on


class LocalWriter:
    """A model in the forms of `Judge.load` ("default": the embedded judge, which is tuned to answer, not to write).

    `settings` are temperature (0: the most probable token), top_p, max_tokens and seed, beside LOCAL_DEFAULTS. What is
    written depends on them, the weights and the chat alone, in f32 on one kind of device; in bf16 and int8 also on
    `slots`, the texts that each device of `mesh` writes at once. A chat that was answered before, without an item in
    the answer, is answered with the next seed. Raises RocketError for a model that cannot be loaded and settings that
    cannot be.
    """

    def __init__(
        self,
        model: str | None = None,
        settings: Mapping[str, Any] | None = None,
        *,
        dtype: Dtype = "f32",
        mesh: str = "auto",
        slots: int = SLOTS,
        say: Callable[[str], None] | None = None,
    ) -> None:
        chosen = checked_local(settings)
        if dtype not in get_args(Dtype) or slots < 1:
            raise RocketError(
                f"dtype {dtype!r}, {slots} slots: dtypes are {', '.join(get_args(Dtype))}, slots 1 or more"
            )
        use_compile_cache()
        checkpoint = locate(local_model(model), say)
        self.origin, config = checkpoint.origin, read_config(checkpoint.path)
        self.tokenizer = load_tokenizer(checkpoint.path)
        check_ids(self.tokenizer, config, checkpoint.path)
        self.format = chat_format(self.tokenizer)
        places = places_for(config, weight_bytes(config, dtype), mesh)[0]
        weights, sha256 = load_judge(checkpoint, dtype, places if places.shape["model"] > 1 else None)
        self.generator = Generator(weights, self.tokenizer, places, slots)
        self.longest = min(config.context, LONGEST)
        self.settings = {**chosen, "weights_sha256": sha256, "tokenizer_sha256": self.tokenizer.sha256, "dtype": dtype}
        if dtype != "f32":
            self.settings["slots"] = slots  # they move roundings, and with them now and then a token

    @property
    def name(self) -> str:
        return local_name(self.origin)

    @property
    def again(self) -> bool:
        return bool(self.settings["temperature"] > 0)

    def __repr__(self) -> str:
        return f"LocalWriter({self.origin!r})"

    def write(self, chats: Sequence[Chat], before: Sequence[int]) -> Iterator[tuple[int, Written]]:
        """See `Writer`."""
        most = self.settings["max_tokens"]
        prompts = chat_ids(self.tokenizer, self.format, chats)
        fits: dict[int, list[int]] = {}  # by seed
        for place, (prompt, answered) in enumerate(zip(prompts, before, strict=True)):
            if len(prompt) + most > self.longest:
                has = f"the prompt has {len(prompt):,} tokens"
                takes = f"{has}; with {most:,} new ones this model takes {self.longest:,}"
                yield place, Written(None, f"{takes}: lower max_tokens, or ask a model with a longer context")
            else:
                fits.setdefault((self.settings["seed"] + answered) % (1 << 32), []).append(place)
        for seed, places in sorted(fits.items()):
            asked = [prompts[place].tolist() for place in places]
            drawn = (self.settings["temperature"], self.settings["top_p"], seed)
            for n, text in self.generator.stream(asked, most, *drawn):
                yield (
                    places[n],
                    Written(
                        text.text,
                        cut=text.reason == "length",
                        served=self.origin,
                        prompt_tokens=len(asked[n]),
                        completion_tokens=len(text.tokens),
                    ),
                )


def local_model(generator: str | None) -> str | None:
    """What `Judge.load` would call it."""
    return None if generator == DEFAULT else generator


def local_name(origin: str) -> str:
    """What a model on this machine is called here."""
    return f"local:{origin}"


def checked_local(settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """LOCAL_DEFAULTS with these settings; RocketError for one that is not among them or cannot be."""
    given = dict(settings or {})
    if unknown := sorted(given.keys() - LOCAL_DEFAULTS.keys()):
        raise RocketError(f"a local generator has no setting {unknown[0]!r}; it has: {', '.join(LOCAL_DEFAULTS)}")
    out = {**LOCAL_DEFAULTS, **given}

    def wrong(name: str, expected: str) -> RocketError:
        return RocketError(f"the setting {name!r} is {out[name]!r}; it is {expected}")

    for name, lowest, highest in (("max_tokens", 1, LONGEST), ("seed", 0, (1 << 32) - 1)):
        if not isinstance(out[name], int) or isinstance(out[name], bool) or not lowest <= out[name] <= highest:
            raise wrong(name, f"a whole number from {lowest} to {highest:,}")
    for name in ("temperature", "top_p"):
        if not isinstance(out[name], int | float) or isinstance(out[name], bool):
            raise wrong(name, "a number")
        out[name] = float(out[name])
    if not 0 <= out["temperature"] < math.inf:
        raise wrong("temperature", "0 or a positive number")
    if not 0 < out["top_p"] <= 1:
        raise wrong("top_p", "above 0 and at most 1")
    return out


def chat_ids(tokenizer: Tokenizer, form: Format, chats: Sequence[Chat]) -> list[Int]:
    """The tokens of each chat, up to where the model answers. Raises RocketError for turns that no format here has."""
    prompts: list[list[Part]] = []
    for chat in chats:
        system = "\n\n".join(turn.content for turn in chat[:-1])
        if not chat or chat[-1].role != "user" or any(turn.role != "system" for turn in chat[:-1]):
            raise RocketError("a local generator takes a chat of system turns and one of the user")
        prompts.append(form.render(system, [Span(chat[-1].content)], CUE))
    return encode_parts(tokenizer, prompts)


def count_local(model: str | None, chats: Sequence[Chat], say: Callable[[str], None] | None = None) -> int:
    """The tokens of these chats, by the model's own tokenizer; its weights are not needed."""
    tokenizer = load_tokenizer(locate(local_model(model), say, weights=False).path)
    return sum(map(len, chat_ids(tokenizer, chat_format(tokenizer), chats)))
