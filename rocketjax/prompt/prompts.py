"""From one response and its checklist to the token sequences of its items."""

import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from rocketjax.bench import Benchmark, Message
from rocketjax.errors import RocketError
from rocketjax.prompt.chat import Chat, chat_format
from rocketjax.prompt.template import Part, Span, Special, Template
from rocketjax.prompt.tokenizer import Tokenizer
from rocketjax.prompt.tree import Int

Overflow = Literal["error", "truncate-middle", "skip"]
OVERFLOWS: tuple[Overflow, ...] = ("error", "truncate-middle", "skip")
CUT = " [...] "  # stands where the middle of a span was cut out


@dataclass(frozen=True, eq=False)
class Prompts:
    """The prompts of one response's items.

    `sequences` is None where the response is skipped; `truncated` counts characters cut out, `defused`
    imitations of the template's delimiters in untrusted text.
    """

    sequences: list[Int] | None
    truncated: int = 0
    defused: int = 0


@dataclass(frozen=True)
class Prompter:
    """Renders and encodes prompts of one judge under one template.

    `max_tokens` bounds every prompt; what happens to a longer one is `overflow`: `error` raises, `skip` leaves
    the response ungraded, `truncate-middle` cuts the longest untrusted spans in their middle to one common
    length, the longest that fits. `reference` names the author whose reference answer the judge sees beside the
    response; None shows none.
    """

    tokenizer: Tokenizer
    template: Template
    max_tokens: int
    overflow: Overflow = "error"
    reference: str | None = None
    chat: Chat = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "chat", chat_format(self.tokenizer))
        if self.reference is not None and not self.template.references:
            raise RocketError(f"template {self.template.name!r} has no place for a reference answer")

    def prompts(self, benchmark: Benchmark, session_id: str, model: str) -> Prompts:
        """Token sequences of all items of this response, in checklist order.

        Raises RocketError for a prompt over `max_tokens` under `error`, and for one whose own wording and item
        leave no room at all.
        """
        return self.render(
            benchmark.conversation(session_id, model),
            benchmark.responses[model][session_id].text,
            benchmark.checklists[session_id].items,
            f"session {session_id!r}, model {model!r}",
            self.shown(benchmark, session_id),
        )

    def shown(self, benchmark: Benchmark, session_id: str) -> str | None:
        """The reference answer that the judge sees, if it sees any. RocketError where its author gave none."""
        if self.reference is None:
            return None
        given = benchmark.queries[session_id].references
        if self.reference not in given:
            there = ", ".join(sorted(given)) or "none"
            raise RocketError(f"session {session_id!r}: no reference by {self.reference!r}; references by: {there}")
        return given[self.reference]

    def render(
        self, turns: Sequence[Message], response: str, items: Sequence[str], where: str, reference: str | None = None
    ) -> Prompts:
        """As `prompts`, for any conversation, response, items and reference; `where` names them in errors."""
        turns, response, defused = self.defuse(turns, response)
        if reference is not None:
            reference, found = self.template.defuse(reference)
            defused += found
        sequences = self.encode(turns, response, items, reference)
        longest = max(map(len, sequences))
        if longest <= self.max_tokens:
            return Prompts(sequences, 0, defused)
        if self.overflow == "skip":
            return Prompts(None, 0, defused)
        if self.overflow == "error":
            raise RocketError(
                f"{where}: the prompt has {longest} tokens, the limit is "
                f"{self.max_tokens}. Choose --overflow truncate-middle or skip, or raise --max-tokens."
            )
        return self.truncate(turns, response, items, reference, defused, where)

    def defuse(self, turns: Sequence[Message], response: str) -> tuple[tuple[Message, ...], str, int]:
        """Conversation and response without imitations of the template's delimiters, and how many there were."""
        response, count = self.template.defuse(response)
        clean = []
        for turn in turns:
            text, found = self.template.defuse(turn.content)
            clean.append(Message(turn.role, text))
            count += found
        return tuple(clean), response, count

    def encode(
        self, turns: Sequence[Message], response: str, items: Sequence[str], reference: str | None = None
    ) -> list[Int]:
        """Token sequences of the items, each equal to the encoding of its whole joint text."""
        prompts = [self.parts(turns, response, self.template.defuse(item)[0], reference) for item in items]
        return encode_parts(self.tokenizer, prompts)

    @property
    def sha256(self) -> str:
        """A hash of what stands around the texts: the template's wording in the judge's chat format, as it is rendered.

        Of what is rendered, not of the tokenizer's file: two chat templates that make the same prompts are one.
        """
        turns = [Message(role, f" {role} ") for role in ("system", "user", "assistant", "user")]
        shown = "reference" if self.template.references else None
        parts = self.parts(turns, " response ", " item ", shown)
        pieces = [["special", x.name] if isinstance(x, Special) else ["text", x] for x in chunks(parts)]
        return hashlib.sha256(json.dumps(pieces).encode()).hexdigest()

    def parts(self, turns: Sequence[Message], response: str, item: str, reference: str | None = None) -> list[Part]:
        """The whole prompt about one item, as parts."""
        t = self.template
        return self.chat.render(t.system, t.user(turns, response, item, reference), t.cue)

    def truncate(
        self,
        turns: Sequence[Message],
        response: str,
        items: Sequence[str],
        reference: str | None,
        defused: int,
        where: str,
    ) -> Prompts:
        """Prompts whose spans are cut to the greatest common length at which every item fits."""
        texts = [*(turn.content for turn in turns), response, *([] if reference is None else [reference])]

        def at(limit: int) -> tuple[list[Int], int]:
            cut = [middle_cut(text, limit) for text in texts]
            kept = tuple(Message(turn.role, text) for turn, text in zip(turns, cut, strict=False))
            answer, shown = cut[len(turns)], None if reference is None else cut[-1]
            return self.encode(kept, answer, items, shown), sum(map(len, texts)) - sum(map(len, cut))

        low, high = 0, max(map(len, texts))
        best = None
        while low < high:
            limit = (low + high) // 2
            sequences, removed = at(limit)
            if max(map(len, sequences)) <= self.max_tokens:
                best, low = Prompts(sequences, removed, defused), limit + 1
            else:
                high = limit
        if best is None:
            raise RocketError(
                f"{where}: the template and the longest item alone exceed {self.max_tokens} tokens; raise --max-tokens"
            )
        return best


def largest_id(tokenizer: Tokenizer) -> int:
    """The largest token that a prompt can hold: of those that text yields, the BOS, and what the chat format brings."""
    reserved = set(tokenizer.reserved.values())
    found = {max((i for i, text in enumerate(tokenizer.texts) if text and i not in reserved), default=0)}
    if tokenizer.bos is not None:
        found.add(tokenizer.bos)
    with contextlib.suppress(RocketError):  # a format that is not known is the prompter's error
        render = chat_format(tokenizer).render
        names = {x.name for system in ("", "x") for x in render(system, ["x"], "x") if isinstance(x, Special)}
        found |= {tokenizer.special(name) for name in names if tokenizer.has_special(name)}
    return max(found)


def encode_parts(tokenizer: Tokenizer, prompts: Sequence[Sequence[Part]]) -> list[Int]:
    """The tokens of each prompt, a BOS first where the tokenizer has one."""
    # Text between two control tokens is one text to the tokenizer, whoever wrote its pieces.
    split = [chunks(parts) for parts in prompts]
    texts = {piece: i for i, piece in enumerate(dict.fromkeys(p for s in split for p in s if isinstance(p, str)))}
    encoded = tokenizer.encode_batch(list(texts))
    bos = [] if tokenizer.bos is None else [tokenizer.bos]
    out = []
    for pieces in split:
        ids = list(bos)
        for piece in pieces:
            if isinstance(piece, Special):
                ids.append(tokenizer.special(piece.name))
            else:
                ids += encoded[texts[piece]]
        out.append(np.asarray(ids, np.int32))
    return out


def chunks(parts: Sequence[Part]) -> list[str | Special]:
    """Neighbouring texts joined, control tokens between them."""
    out: list[str | Special] = []
    for part in parts:
        if isinstance(part, Special):
            out.append(part)
            continue
        text = part.text if isinstance(part, Span) else part
        if out and isinstance(out[-1], str):
            out[-1] += text
        elif text:
            out.append(text)
    return out


def middle_cut(text: str, limit: int) -> str:
    """The text, or its first and last characters around a mark, `limit` characters in all (mark included)."""
    if len(text) <= limit:
        return text
    keep = max(0, limit - len(CUT))
    return text[: keep - keep // 2] + CUT + (text[len(text) - keep // 2 :] if keep // 2 else "")
