"""Chats for a batch service in OpenAI's form, and its answers back: a file each way, one JSON object per line.

{"custom_id": KEY, "method": "POST", "url": "/v1/chat/completions", "body": {"model", "messages", ...}}
{"custom_id": KEY, "response": {"status_code": 200, "body": {"choices": [...], "usage": {...}}}, "error": null}
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from rocketjax.create.api import checked, completion_of, shown
from rocketjax.create.spend import Price, price_of
from rocketjax.create.writer import Chat, Written, api_name, chat_key
from rocketjax.errors import RocketError
from rocketjax.grade import write_atomically

ENDPOINT = "/v1/chat/completions"


class _Response(msgspec.Struct):
    status_code: int | None = None
    body: msgspec.Raw = msgspec.Raw(b"null")


class _Row(msgspec.Struct):
    custom_id: str
    response: _Response | None = None
    error: msgspec.Raw = msgspec.Raw(b"null")


_ROW = msgspec.json.Decoder(_Row)


def write_prompts(path: Path, model: str, settings: Mapping[str, Any], chats: Sequence[Chat]) -> int:
    """Writes a request per different chat, whole or not at all; returns how many. Raises OSError."""
    encoder = msgspec.json.Encoder()
    lines: dict[str, bytes] = {}
    for chat in chats:
        key = custom_id(model, settings, chat)
        if key not in lines:
            turns = [{"role": turn.role, "content": turn.content} for turn in chat]
            body = {"model": model, "messages": turns, **settings}
            request = {"custom_id": key, "method": "POST", "url": ENDPOINT, "body": body}
            lines[key] = encoder.encode(request) + b"\n"
    write_atomically(path, lambda file: file.writelines(lines.values()))
    return len(lines)


def custom_id(model: str, settings: Mapping[str, Any], chat: Chat) -> str:
    """A name that services take: the first half of `chat_key`."""
    return chat_key(api_name(model), settings, chat)[:32]


class AnswersWriter:
    """`model` with the answers that a batch service wrote into a file; nothing is asked.

    A line that cannot be read, or is of no chat that was asked, is counted in `unread` and `unknown`. Batches have
    their own prices; `prices` are taken as they are given.
    """

    again = False

    def __init__(
        self,
        path: str | os.PathLike[str],
        model: str,
        settings: Mapping[str, Any] | None = None,
        prices: Mapping[str, Price] | None = None,
    ) -> None:
        self.path = Path(os.fsdecode(path))
        self.model = model
        self.settings = checked(settings)
        self.price = price_of(prices, model, None)
        self.unread: list[int] = []
        self.unknown = 0
        self._rows: dict[str, _Row] = {}
        try:
            lines = self.path.read_bytes().split(b"\n")
        except OSError as e:
            raise RocketError(f"{self.path}: cannot be read ({e.strerror})") from None
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = _ROW.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                self.unread.append(number)
                continue
            there = self._rows.get(row.custom_id)
            if there is None or _failed(there):
                self._rows[row.custom_id] = row
        if not self._rows:
            raise RocketError(f"{self.path}: holds no answer of a batch; expected lines with custom_id and response")

    @property
    def name(self) -> str:
        return api_name(self.model)

    def write(self, chats: Sequence[Chat], before: Sequence[int] = ()) -> Iterator[tuple[int, Written]]:
        """See `Writer`."""
        ids = [custom_id(self.model, self.settings, chat) for chat in chats]
        self.unknown = len(self._rows.keys() - set(ids))
        for place, name in enumerate(ids):
            yield place, self._answer(name)

    def _answer(self, name: str) -> Written:
        row = self._rows.get(name)
        if row is None:
            return Written(None, f"no answer in {self.path.name}")
        if row.response is None:
            return Written(None, f"the service failed: {shown(bytes(row.error).decode(errors='replace'))}")
        body = bytes(row.response.body)
        if row.response.status_code not in (None, 200):
            return Written(None, f"{row.response.status_code}: {shown(body.decode(errors='replace'))}")
        written = completion_of(body, self.price)
        return written or Written(None, "an answer that is no chat completion")


def _failed(row: _Row) -> bool:
    return row.response is None or row.response.status_code not in (None, 200)
