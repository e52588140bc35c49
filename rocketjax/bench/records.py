"""The frozen records of a benchmark: what was asked, checked and answered, and what labelers said of it."""

import difflib
import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property

import msgspec

from rocketjax.bench.stored import Stored, only
from rocketjax.errors import RocketError


class Message(msgspec.Struct, frozen=True):
    """One turn of a conversation."""

    role: str
    """"system", "user" or "assistant"."""
    content: str


class Query(msgspec.Struct, frozen=True):
    """What was asked: the whole conversation, system turns included, which ends with a user turn."""

    session_id: str
    messages: tuple[Message, ...]
    references: dict[str, str]
    """Reference answers by the name of their author; may be empty."""


class Checklist(msgspec.Struct, frozen=True):
    """The yes/no questions about every response to one query: at least one, none blank, no two equal."""

    session_id: str
    items: tuple[str, ...]
    weights: tuple[float | None, ...] | None = None
    """How much each item counts beside the query's others: finite, 0 or more, one above 0; None for an item of which
    nobody said. None where none is known."""
    categories: tuple[str | None, ...] | None = None
    """What each item is about. None where none is known."""

    def only(self, items: Sequence[int]) -> "Checklist":
        """The checklist of these items, by number, in this order, each with its weight and category.

        Where no weight above 0 is among them there are none: weights of 0 alone would say nothing.
        """
        return Checklist(
            self.session_id,
            tuple(self.items[i] for i in items),
            known_weights([self.weights[i] for i in items]) if self.weights else None,
            known_categories([self.categories[i] for i in items]) if self.categories else None,
        )

    def row(self) -> dict[str, object]:
        """The row of checklist.jsonl that is read as this checklist."""
        row: dict[str, object] = {"session_id": self.session_id, "checklist": self.items}
        if self.weights is not None:
            row["weights"] = self.weights
        if self.categories is not None:
            row["categories"] = self.categories
        return row


def known_weights(weights: Sequence[float | None]) -> tuple[float | None, ...] | None:
    """The weights, or None where none is above 0."""
    return tuple(weights) if any(weights) else None


def known_categories(categories: Sequence[str | None]) -> tuple[str | None, ...] | None:
    """The categories, or None where there is none."""
    return tuple(categories) if any(categories) else None


class Response(msgspec.Struct, frozen=True):
    """What one model answered; `text` may be empty, which is a (bad) answer and is graded."""

    session_id: str
    model: str
    text: str
    history: tuple[Message, ...] | None
    """All turns before the last as this model had them: the query's, with this model's own assistant turns in
    their places. None where the query's own turns are right."""


class Label(msgspec.Struct, frozen=True):
    """What one labeler says of one response."""

    session_id: str
    model: str
    labeler: str
    score: float | None
    """On the labeler's own scale, finite; None where only items were judged."""
    items: tuple[float | None, ...] | None
    """One per checklist item: 1.0 yes, 0.0 no, fractions as given, None for N/A. None where only scored."""


class Exclusion(msgspec.Struct, frozen=True):
    """Something that was left out, counted instead of dropped silently.

    Reasons: "no_checklist" and "empty_checklist" (a query without items), "missing_response" (to a query with
    items), "unknown_session" (a checklist, response or label whose session has no query), "unknown_model" (a
    file of labels of a model without responses), "no_score" (a label whose score is null) and
    "duplicate_session" (one id names different queries, so nothing that refers to it can be told apart).
    """

    session_id: str
    """"" for a whole file."""
    model: str
    """"" for a whole query."""
    reason: str
    where: str
    """File and line, "response/m.jsonl:12", or only the file; relative to the benchmark's folder."""


class Benchmark(msgspec.Struct, frozen=True, dict=True):
    """A benchmark as `load_benchmark` gives it: every reference between its records resolves.

    `responses` is model -> session_id -> Response; `labels` is labeler -> model -> session_id -> Label. Mappings of a
    loaded benchmark read a record from its file when it is asked for (`Stored`); plain dicts do as well.
    """

    name: str
    path: str
    queries: Mapping[str, Query]
    checklists: Mapping[str, Checklist]
    responses: Mapping[str, Mapping[str, Response]]
    labels: Mapping[str, Mapping[str, Mapping[str, Label]]]
    exclusions: tuple[Exclusion, ...]

    @property
    def models(self) -> list[str]:
        """The names of the models under test, sorted."""
        return sorted(self.responses)

    @cached_property
    def sha256(self) -> str:
        """A hash (64 hex digits) of all queries, checklists and responses.

        It depends on their content only: not on labels, the order of lines, compression or the folder's name. Nor does
        it on what items weigh and are about, which no grade depends on.
        """
        encoder = msgspec.json.Encoder(order="sorted")
        digest = hashlib.sha256(b"rocketjax benchmark 1\n")
        kinds: list[Mapping[str, Query] | Mapping[str, Checklist] | Mapping[str, Response]]
        kinds = [self.queries, self.checklists, *(self.responses[m] for m in self.models)]
        for records in kinds:
            for session_id in sorted(records):
                digest.update(encoder.encode(asked(records[session_id])) + b"\n")
        return digest.hexdigest()

    @cached_property
    def questions_sha256(self) -> str:
        """A hash (64 hex digits) of what is asked about every response: queries with a checklist, and its items."""
        encoder = msgspec.json.Encoder(order="sorted")
        digest = hashlib.sha256(b"rocketjax questions 1\n")
        for session_id in sorted(self.checklists):
            digest.update(encoder.encode(self.queries[session_id]) + b"\n")
            digest.update(encoder.encode(asked(self.checklists[session_id])) + b"\n")
        return digest.hexdigest()

    def conversation(self, session_id: str, model: str) -> tuple[Message, ...]:
        """The turns that the model's response answers, system turns included; the last is always the query's.

        Raises RocketError when the model or its response to that session is not here.
        """
        if model not in self.responses:
            raise RocketError(self._unknown(model))
        response = self.responses[model].get(session_id)
        if response is None:
            raise RocketError(f"{self.name}: model {model!r} has no response to session {session_id!r}")
        *earlier, question = self.queries[session_id].messages
        return (*(earlier if response.history is None else response.history), question)

    def most_bytes(self, session_id: str, model: str, turn: int = 0) -> int:
        """At least as many bytes as the texts of `conversation`, with `turn` more for each, and of the response have.

        A response that lies in a file is not read for that: no text is longer than its JSON. KeyError if there is none.
        """
        responses = self.responses[model]
        if isinstance(responses, Stored):
            own, turns = responses.place(session_id).size, self.queries[session_id].messages
        else:
            own, turns = len(responses[session_id].text.encode()), self.conversation(session_id, model)
        return own + sum(len(message.content.encode()) + turn for message in turns)

    def select(self, models: Sequence[str] | None = None, limit: int | None = None) -> "Benchmark":
        """The same benchmark with only these models and only the first `limit` queries; None keeps all.

        The first are those with a checklist, in the order of their ids as strings. Exclusions and labels of
        what is not selected go too. Raises RocketError for an unknown model, no model, or a limit below 1.
        """
        wanted = self.models if models is None else [models] if isinstance(models, str) else list(models)
        for model in wanted:
            if model not in self.responses:
                raise RocketError(self._unknown(model))
        if not wanted:
            raise RocketError(f"{self.name}: no model selected; known: {', '.join(self.models)}")
        if limit is not None and limit < 1:
            raise RocketError(f"{self.name}: the limit of queries must be 1 or more, not {limit}")
        kept = set(self.queries) if limit is None else set(sorted(self.checklists)[:limit])
        return Benchmark(
            name=self.name,
            path=self.path,
            queries=only(self.queries, kept),
            checklists=only(self.checklists, kept),
            responses={m: only(rows, kept) for m, rows in self.responses.items() if m in wanted},
            labels={
                labeler: {m: only(rows, kept) for m, rows in by_model.items() if m in wanted}
                for labeler, by_model in self.labels.items()
            },
            exclusions=tuple(
                e
                for e in self.exclusions
                if (limit is None or e.session_id in kept) and (models is None or e.model in ("", *wanted))
            ),
        )

    def _unknown(self, model: str) -> str:
        close = difflib.get_close_matches(model, self.models, n=1, cutoff=0.5)
        guess = f"; did you mean {close[0]!r}?" if close else "."
        return f"{self.name}: no model {model!r}{guess} Known: {', '.join(self.models)}"


def asked(record: Query | Checklist | Response) -> object:
    """What of a record a grade depends on: all, but of a checklist only its items."""
    return {"session_id": record.session_id, "items": record.items} if isinstance(record, Checklist) else record
