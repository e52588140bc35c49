"""What a stage that writes checklists needs of a language model, whichever it is and wherever it runs."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rocketjax.bench import Message

Chat = Sequence[Message]

DEFAULTS: dict[str, Any] = {"temperature": 0.7, "top_p": 0.95, "max_tokens": 2048}
"""RocketEval's decoding, with room for JSON in place of its 1,024 tokens."""


@dataclass(frozen=True)
class Written:
    """A model's answer to one chat; where `text` is None there is none, for `reason`.

    `cut` says that it ended at the limit of tokens. Token counts and `usd` are None where nobody said them; of several
    tries, they are of all. `served` is what a server says that it is.
    """

    text: str | None
    reason: str = ""
    cut: bool = False
    served: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    usd: float | None = None


class Writer(Protocol):
    """A language model with its settings.

    `name` and `settings` (JSON values) say all that its answers depend on but the chat. `again` says whether it may
    answer one chat differently the next time.
    """

    @property
    def name(self) -> str: ...

    @property
    def settings(self) -> Mapping[str, Any]: ...

    @property
    def again(self) -> bool: ...

    def write(self, chats: Sequence[Chat], before: Sequence[int]) -> Iterator[tuple[int, Written]]:
        """Each chat's place and answer, once, as they are finished: in any order, and at once.

        `before` says how often each was answered already, for a writer that draws by a seed.
        """
        ...


def api_name(model: str) -> str:
    """What a model behind an endpoint is called here, whichever way its answers come."""
    return f"api:{model}"


def chat_key(name: str, settings: Mapping[str, Any], chat: Chat) -> str:
    """The SHA-256 (64 hex digits) of all that an answer is made from: `Writer.name`, `Writer.settings`, the chat."""
    turns = [[turn.role, turn.content] for turn in chat]
    made_of = json.dumps({"generator": name, "settings": dict(settings), "messages": turns}, sort_keys=True)
    return hashlib.sha256(made_of.encode()).hexdigest()


def approximate_tokens(chat: Chat) -> int:
    """About as many tokens as the chat has: four bytes each. Without its tokenizer, nobody knows."""
    return sum(-(-len(turn.content.encode()) // 4) + 4 for turn in chat)


def most_tokens(chat: Chat) -> int:
    """No tokenizer of bytes makes more: one for each, and some for each turn's frame."""
    return sum(len(turn.content.encode()) + 16 for turn in chat) + 16
