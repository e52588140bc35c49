"""A language model behind an OpenAI-compatible endpoint, whose answers may be late, torn, refused or garbage.

Nothing that the server sends is trusted: it is read as JSON of a few typed fields, within bounds of time and size.
The key goes into requests and nowhere else.
"""

import email.utils
import math
import os
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from rocketjax.create.spend import Price, Purse, price_of
from rocketjax.create.writer import DEFAULTS, Chat, Written, api_name, most_tokens
from rocketjax.errors import RocketError

LARGEST = 16 << 20  # bytes of an answer
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds between tries; doubled each time
LONGEST_ASKED = 600.0  # seconds that a server may ask to wait
SAID = 200  # characters of a server's own error message that are shown
SECRET = 8  # characters; what is shorter is no secret
OURS = ("model", "messages", "stream", "n", "stream_options")
RETRIED = (408, 409, 425, 429)
UNSENT = ("ConnectError", "ConnectTimeout", "PoolTimeout")  # errors of a client that has not sent anything yet
HOPELESS = {401: "the server refuses the key (OPENAI_API_KEY)", 403: "the server refuses this key what is asked",
            404: "the server has no such model or address"}  # fmt: skip


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class Completion(msgspec.Struct):
    """The fields of a chat completion that are read."""

    choices: list[_Choice]
    model: str | None = None
    usage: _Usage | None = None


_COMPLETION = msgspec.json.Decoder(Completion)


def completion_of(body: bytes, price: Price | None, hide: Callable[[str], str] = str) -> Written | None:
    """What a server's body says; None where it is no chat completion with a text, a refusal or an end."""
    try:
        completion = _COMPLETION.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not completion.choices:
        return None
    choice, usage = completion.choices[0], completion.usage or _Usage()
    tokens = [n if n is not None and 0 <= n < 1 << 40 else None for n in (usage.prompt_tokens, usage.completion_tokens)]
    usd = price.of(tokens[0], tokens[1]) if price and tokens[0] is not None and tokens[1] is not None else None
    about: dict[str, Any] = {
        "served": None if completion.model is None else hide(completion.model)[:200],
        "prompt_tokens": tokens[0],
        "completion_tokens": tokens[1],
        "usd": usd,
    }
    text = choice.message.content
    if text is not None and text.strip():
        return Written(hide(text), cut=choice.finish_reason == "length", **about)
    if choice.message.refusal:
        return Written(None, f"the model refused: {shown(hide(choice.message.refusal))}", **about)
    if choice.finish_reason == "content_filter":
        return Written(None, "the server's content filter held the answer back", **about)
    if choice.finish_reason == "length":
        return Written(None, "the limit of tokens was reached before any text; raise max_tokens", **about)
    return None


@dataclass(frozen=True)
class _Fault:
    """A try that failed: why, whether the next may do better, how long to wait, and whether it may have been billed."""

    reason: str
    again: bool = True
    wait: float | None = None
    billed: bool = False
    hopeless: bool = False


class ApiWriter:
    """`model` at the endpoint of OPENAI_BASE_URL (OpenAI's own where that is not set), with the key OPENAI_API_KEY.

    `settings` are fields of the request's body, beside DEFAULTS; None takes one of those out. At most `concurrency`
    requests are under way at once, each for at most `timeout` seconds. A try that meets 408, 409, 425, 429, 5xx, a
    time-out, a broken connection or a body that is no completion is made again up to `retries` times, after twice the
    time of the last wait, by chance between half and all of it, or after what Retry-After says. No request is sent
    that could pass `max_usd`: its worst cost counts until the true one is known, and stays where none comes back; only
    of requests under way when a process is killed nobody knows later.
    `sleep` (seconds) and `seed` are for tests. Raises RocketError where the key, the client or a price is missing.
    """

    again = True

    def __init__(
        self,
        model: str,
        settings: Mapping[str, Any] | None = None,
        *,
        concurrency: int = 8,
        timeout: float = 120.0,
        retries: int = 6,
        prices: Mapping[str, Price] | None = None,
        max_usd: float | None = None,
        sleep: Callable[[float], object] | None = None,
        seed: int | None = None,
    ) -> None:
        if concurrency < 1 or retries < 0 or not 0 < timeout < math.inf:
            raise RocketError("concurrency is 1 or more, retries 0 or more, and the time-out a number of seconds")
        self.model = model
        self.settings = checked(settings)
        self.concurrency, self.timeout, self.retries = concurrency, timeout, retries
        self.price = price_of(prices, model, max_usd)
        self.most_output = most_output(self.settings)
        if max_usd is not None and self.most_output is None:
            raise RocketError("a spend limit needs max_tokens or max_completion_tokens among the settings")
        self.purse = Purse(max_usd)
        self._sleep, self._random = sleep, random.Random(seed)
        self._hopeless: str | None = None
        self._connect, self._secrets = connection()
        self._connect().close()  # what is wrong with the address shows at once

    @property
    def name(self) -> str:
        return api_name(self.model)

    def __repr__(self) -> str:
        return f"ApiWriter({self.model!r})"

    def write(self, chats: Sequence[Chat], before: Sequence[int] = ()) -> Iterator[tuple[int, Written]]:
        """See `Writer`. Closing the iterator stops new requests; those under way end with the process."""
        self._hopeless, stop = None, threading.Event()
        done: queue.SimpleQueue[tuple[int, Written | BaseException]] = queue.SimpleQueue()
        todo, lock = iter(enumerate(chats)), threading.Lock()
        working = min(self.concurrency, len(chats))
        # An answer counts as under way until it was taken: a process that dies loses `concurrency` of them at most.
        free = threading.Semaphore(self.concurrency)
        client: Any = self._connect() if working else None

        def work() -> None:
            nonlocal working
            while True:
                free.acquire()
                with lock:
                    place, chat = next(todo, (-1, ())) if not stop.is_set() else (-1, ())
                if place < 0:
                    free.release()
                    break
                try:
                    done.put((place, self._answer(chat, client, stop)))
                except BaseException as e:
                    done.put((place, e))
                    break
            with lock:
                working -= 1
                last = working == 0
            if last:
                client.close()

        try:
            for _ in range(working):
                # Not of a pool: at an interrupt, a process need not wait for a server.
                threading.Thread(target=work, daemon=True).start()
            for _ in chats:
                place, written = done.get()
                if isinstance(written, BaseException):
                    raise written
                yield place, written
                free.release()
        finally:
            stop.set()
            free.release(self.concurrency)

    def _answer(self, chat: Chat, client: Any, stop: threading.Event) -> Written:
        """One chat's answer, after as many tries as it takes."""
        counted, fault = 0.0, _Fault("was not asked: stopped")
        for attempt in range(self.retries + 1):
            if self._hopeless is not None:
                return self._failed(f"was not asked: {self._hopeless}" if attempt == 0 else self._hopeless, counted)
            if stop.is_set():
                return self._failed(fault.reason, counted)
            most = self.price.of(most_tokens(chat), self.most_output or 0) if self.price else 0.0
            ticket = self.purse.reserve(most, stop.is_set)
            if ticket is None:
                limit = f"the spend limit of ${self.purse.limit:g} does not allow another request"
                return self._failed(limit if attempt == 0 else f"{fault.reason}; {limit}", counted)
            got: Written | _Fault = _Fault("broke off", billed=True)
            try:
                got = self._once(chat, client)
            finally:
                unknown = got.usd is None if isinstance(got, Written) else got.billed
                cost = got.usd if isinstance(got, Written) else 0.0
                counted += self.purse.settle(ticket, None if unknown else cost)
            if isinstance(got, Written):
                return replace(got, usd=counted if self.price else None)
            fault = got
            if fault.hopeless:
                self._hopeless = fault.reason
            if not fault.again:
                return self._failed(fault.reason, counted)
            if attempt < self.retries:
                self._wait(attempt, fault.wait, stop)
        return self._failed(f"{fault.reason} ({self.retries + 1} tries)", counted)

    def _failed(self, reason: str, counted: float) -> Written:
        return Written(None, self._hide(reason), usd=counted if self.price else None)

    def _wait(self, attempt: int, asked: float | None, stop: threading.Event) -> None:
        seconds = min(LONGEST_WAIT, FIRST_WAIT * 2.0**attempt) * self._random.uniform(0.5, 1.0)
        if asked is not None:  # never sooner, and not all at once
            seconds = asked + self._random.uniform(0.0, 0.1) * (FIRST_WAIT + asked)
        (self._sleep or stop.wait)(seconds)

    def _once(self, chat: Chat, client: Any) -> Written | _Fault:
        import openai

        deadline = time.monotonic() + self.timeout
        turns = [{"role": turn.role, "content": turn.content} for turn in chat]
        body = bytearray()
        try:
            ask = client.chat.completions.with_streaming_response.create
            with ask(model=self.model, messages=turns, extra_body=dict(self.settings), timeout=self.timeout) as answer:
                for block in answer.iter_bytes():  # as they come: with a size, it would wait for so many
                    body += block
                    if time.monotonic() > deadline:
                        return _Fault(f"no whole answer in {self.timeout:g} s", billed=True)
                    if len(body) > LARGEST:
                        return _Fault(f"an answer of over {LARGEST:,} bytes", billed=True)
        except openai.APIStatusError as e:
            return self._refused(e.status_code, e.response.headers, e.message, getattr(e, "code", None))
        except Exception as e:  # whatever client of HTTP lies below, it has errors of its own
            kind = type(e.__cause__ or e).__name__
            late = isinstance(e, openai.APITimeoutError) or "Timeout" in kind
            reason = f"no answer in {self.timeout:g} s" if late else "the connection failed"
            return _Fault(f"{reason} ({kind})", billed=kind not in UNSENT)
        written = completion_of(bytes(body), self.price, self._hide)
        return written if written is not None else _Fault("an answer that is no chat completion", billed=True)

    def _refused(self, status: int, headers: Mapping[str, str], message: str, code: object) -> _Fault:
        if status in HOPELESS:  # what the server says of a key may hold a part of it
            return _Fault(f"{status}: {HOPELESS[status]}", again=False, hopeless=True)
        reason = f"{status}: {shown(self._hide(message))}"
        if code == "insufficient_quota":
            return _Fault(reason, again=False, hopeless=True)
        if status not in RETRIED and status < 500:
            return _Fault(reason, again=False)
        wait = retry_after(headers)
        if wait is not None and wait > LONGEST_ASKED:
            return _Fault(f"{reason}; the server asks to wait {wait:,.0f} s", again=False)
        return _Fault(reason, wait=wait)

    def _hide(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "[secret]")
        return text


def checked(settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """The fields of a request's body, DEFAULTS among them; RocketError for those that are not the caller's."""
    given = dict(settings or {})
    for name in OURS:
        if name in given:
            raise RocketError(f"the setting {name!r} is made here and cannot be given")
    return {name: value for name, value in {**DEFAULTS, **given}.items() if value is not None}


def most_output(settings: Mapping[str, Any]) -> int | None:
    """The most tokens that an answer may have; None where the settings do not say."""
    limits = [settings.get(name) for name in ("max_completion_tokens", "max_tokens")]
    known = [n for n in limits if isinstance(n, int) and not isinstance(n, bool) and n > 0]
    return max(known) if known else None


def connection() -> tuple[Callable[[], Any], list[str]]:
    """What makes a client, by the environment as it is now, and the forms of its key. It makes no tries of its own."""
    try:
        import openai
    except ImportError:
        raise RocketError("the openai client is not installed; pip install 'rocketjax[api]'") from None
    key, base = os.environ.get("OPENAI_API_KEY", "").strip(), os.environ.get("OPENAI_BASE_URL", "").strip()
    if not key and not base:
        raise RocketError("OPENAI_API_KEY is not set; set it, or OPENAI_BASE_URL for a server that needs none")
    if base:
        try:
            address = urlsplit(base)
        except ValueError:
            raise RocketError("OPENAI_BASE_URL is no URL") from None
        if address.scheme not in ("http", "https") or not address.netloc:
            raise RocketError("OPENAI_BASE_URL is no http or https URL")
        if "@" in address.netloc or address.query or address.fragment:  # clients of HTTP log the addresses they ask
            raise RocketError("OPENAI_BASE_URL holds a password or a query; only OPENAI_API_KEY is kept out of logs")

    def connect() -> Any:
        try:
            return openai.OpenAI(api_key=key or "none", base_url=base or None, max_retries=0)
        except Exception as e:  # the message could hold what the environment does
            raise RocketError(f"the openai client cannot be made ({type(e).__name__})") from None

    # A server without keys is often given a word such as EMPTY, which answers may well hold.
    forms = {key, quote(key, safe="")} if len(key) >= SECRET else set()
    return connect, sorted(forms, key=len, reverse=True)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait, by retry-after-ms or Retry-After (seconds or a date); None if it does not."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if 0 <= seconds < math.inf:
            return seconds
    try:
        date = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
        return max(0.0, date.timestamp() - time.time())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def shown(message: str) -> str:
    """A server's message on one line, cut."""
    line = "".join(c if c.isprintable() else " " for c in message[: 4 * SAID])
    line = " ".join(line.split())
    return line if len(line) <= SAID else line[: SAID - 3] + "..."
