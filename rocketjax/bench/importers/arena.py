"""Chatbot Arena's votes: people compare the answers of two models; with the conversations, or as bare matches."""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from rocketjax.bench.importers.chats import TIES, Votes, dialogue, labeler_of, session_of
from rocketjax.bench.importers.columns import SEPARATORS, Cells, read_table
from rocketjax.bench.importers.source import Draft, Source, hashed
from rocketjax.bench.read import _show
from rocketjax.bench.records import Message
from rocketjax.errors import RocketError

WINNERS = {"model_a": 1.0, "model_b": 0.0, **dict.fromkeys(TIES, 0.5)}
"""Shares of a vote for the first model."""
_ONE_OF_THREE = ("winner_model_a", "winner_model_b", "winner_tie")
_MATCH = ("model_a", "model_b", "winner", *_ONE_OF_THREE, "anony")
_TALK = ("question_id", "id", "judge", "turn", "tstamp", "conversation_a", "conversation_b", "prompt", "response_a",
         "response_b")  # fmt: skip
_SUFFIXES = (".parquet", *(suffix + z for suffix in (".jsonl", ".json", ".csv", ".tsv") for z in ("", ".gz")))


class Match(NamedTuple):
    """Two models, and the share of the vote that the first one got: 1, 0, or 0.5 for a tie."""

    model_a: str
    model_b: str
    share: float


def read_matches(path: str | os.PathLike[str]) -> tuple[list[Match], dict[str, int]]:
    """Every vote of a file or folder, without texts; and what was left out, counted: "no_vote" (no winner is said),
    "same_model" (on both sides) and "not_anonymous" (the names were shown, so the arena does not count them either).

    Raises RocketError with file, row and column.
    """
    left_out: Counter[str] = Counter()
    matches = [match for _, match in _votes(Source(path), _MATCH, left_out)]
    if not matches:
        reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(left_out.items()))
        raise RocketError(f"{path}: has no vote that counts; left out: {reasons}")
    return matches, dict(sorted(left_out.items()))


def arena(source: Source, draft: Draft, item: str) -> None:
    """A table of votes, or a folder of such: the data sets chatbot_arena_conversations, mt_bench_human_judgments,
    arena-human-preference-55k and -140k in any format of `import_table`.

    A row has model_a, model_b, winner (or winner_model_a, winner_model_b and winner_tie), and conversation_a and
    conversation_b (or prompt, response_a and response_b). With `turn`, the vote is about that many turns of the
    conversation. Session <id>, mt<question_id>_<turn> where the question is a number, <question_id> or, of a
    conversation of several turns, <question_id>_<turn> where it is a text, else the SHA-256 of what was asked, 16
    digits.

    A score is the share of the votes that the response got in its session, a tie being half a vote, over all
    opponents; of labeler "human" (arena_user_*, expert_* or nobody named), "author" or else the judge's name. Adds
    what `read_matches` says, "other_question" (the two were not asked the same), "not_text" (pictures, half
    characters), "unclear_roles" (turns do not alternate) and "duplicate_vote".
    """
    votes, seen = Votes(), set[tuple[Any, ...]]()
    for row, match in _votes(source, (*_MATCH, *_TALK), draft.left_out, texts=True):
        talk_a, talk_b = _talk(row, "a"), _talk(row, "b")
        if talk_a is None or talk_b is None or not (_whole(talk_a) and _whole(talk_b)):
            draft.skip("not_text")
            continue
        first, second = _turns(talk_a), _turns(talk_b)
        if first is None or second is None:
            draft.skip("unclear_roles")
            continue
        turn = _turn(row, len(first.asked))
        if (first.system, first.asked[:turn]) != (second.system, second.asked[:turn]):
            draft.skip("other_question")
            continue
        query = [*first.system, *dialogue(first.asked[:turn])]
        session_id = _session(row, turn, len(first.asked), query)
        judge = row.value.get("judge")
        named = judge is not None or row.value.get("id") is not None
        vote = (session_id, match, repr(judge), repr(row.value.get("tstamp")))
        if named and vote in seen:
            draft.skip("duplicate_vote")
            continue
        seen.add(vote)
        if not draft.query(session_id, query, [item]):
            continue
        added = [
            draft.response(session_id, model, said.answer(turn), said.before(turn))
            for model, said in ((match.model_a, first), (match.model_b, second))
        ]
        if all(added):
            votes.add(session_id, match.model_a, match.model_b, _labeler(row, judge), match.share)
    votes.write(draft)


def _votes(
    source: Source, columns: tuple[str, ...], left_out: Counter[str], texts: bool = False
) -> Iterator[tuple[Cells, Match]]:
    """Every row with its vote."""
    files = [source.path] if source.path.is_file() else source.glob("**/*", _SUFFIXES)
    if not files:
        raise RocketError(f"{_show(source.path)}: holds no table of votes (.parquet, .jsonl, .json or .csv)")
    for file in files:
        table = read_table(source, file, columns)
        have = set(table.columns)
        if not {"model_a", "model_b"} <= have or not ("winner" in have or have.issuperset(_ONE_OF_THREE)):
            raise RocketError(
                f"{_show(file)}: is no table of votes, which has the columns model_a, model_b and winner (or "
                f"{', '.join(_ONE_OF_THREE)}); give the one file that is"
            )
        if texts and not (
            have >= {"conversation_a", "conversation_b"} or have >= {"prompt", "response_a", "response_b"}
        ):
            raise RocketError(
                f"{_show(file)}: holds matches without conversation_a and conversation_b (or prompt, response_a and "
                "response_b), so there is nothing to judge; `rocketjax import matches` makes ratings of the models "
                "of them, for --ratings"
            )
        for row in table.rows:
            model_a, model_b = row.name("model_a"), row.name("model_b")
            share = _share(row)
            if share is None:
                left_out["no_vote"] += 1
            elif model_a == model_b:
                left_out["same_model"] += 1
            elif row.value.get("anony") in (False, "False", "false"):
                left_out["not_anonymous"] += 1
            else:
                yield row, Match(model_a, model_b, share)


def _share(row: Cells) -> float | None:
    if "winner" in row.value:
        said = row.text("winner")
        if said is None or not said.strip():
            return None
        if said not in WINNERS:
            raise row.at.error("winner", f"is {said!r}", f"it is one of {', '.join(WINNERS)}")
        return WINNERS[said]
    marks = [row.number(column) for column in _ONE_OF_THREE]
    if sorted(mark or 0 for mark in marks) != [0, 0, 1]:
        raise row.at.error(_ONE_OF_THREE[0], f"and the other two are {marks}", "one of the three is 1, the others 0")
    return (1.0, 0.0, 0.5)[marks.index(1)]


def _labeler(row: Cells, judge: Any) -> str:
    if isinstance(judge, list) and all(isinstance(part, str) for part in judge):
        return labeler_of(judge)
    name = row.text("judge")
    return labeler_of(None if name is None or not name.strip() else name)


# Conversations


class _Side(NamedTuple):
    """One model's conversation."""

    system: list[Message]
    asked: list[str]
    answers: list[str | None]

    def answer(self, turn: int) -> str | None:
        return self.answers[turn - 1] if turn <= len(self.answers) else None

    def before(self, turn: int) -> list[str]:
        """All that was said before the question of this turn."""
        said = zip(self.asked[: turn - 1], self.answers, strict=False)
        return [text or "" for pair in said for text in pair]


def _talk(row: Cells, side: str) -> list[Message | None] | None:
    """The turns of one side, None for an answer that is null; None if there is more than text in them."""
    turns: list[Message | None] = []
    column = f"conversation_{side}"
    if column in row.value:
        for turn in _listed(row, column):
            role = turn.get("role") if isinstance(turn, dict) else None
            if role not in ("system", "user", "assistant"):
                raise row.at.error(column, "is no list of turns", 'a turn is {"role", "content"}')
            content = turn.get("content")
            if isinstance(content, list):
                if any(not isinstance(p, dict) or p.get("type") != "text" for p in content):
                    return None
                content = "\n".join(p.get("text") or "" for p in content)
            if content is None and role == "assistant":
                turns.append(None)
            elif isinstance(content, str):
                turns.append(Message(role, content))
            else:
                return None
        return turns
    question, answer = row.value.get("prompt"), row.value.get(f"response_{side}")
    asked, answers = _texts(question), _texts(answer)
    if asked is None and isinstance(question, str):
        asked, answers = [question], [row.text(f"response_{side}")]
    if asked is None or answers is None:
        raise row.at.error("prompt", f"or response_{side} is missing or no list of texts")
    if len(asked) != len(answers):
        raise row.at.error(f"response_{side}", f"has {len(answers)} answers to {len(asked)} prompts")
    for text, reply in zip(asked, answers, strict=True):
        if text is None:
            return None
        turns += [Message("user", text), None if reply is None else Message("assistant", reply)]
    return turns


def _listed(row: Cells, column: str) -> list[Any]:
    """A list of turns, or one written as JSON, as in CSV files."""
    value = row.value.get(column)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise row.at.error(column, f"is no list in JSON ({error})") from None
    if not isinstance(value, list) or not value:
        raise row.at.error(column, "is missing or no list of turns")
    return value


def _texts(value: Any) -> list[str | None] | None:
    """A list of texts and nulls, or one written as JSON; None where it is something else."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    whole = isinstance(value, list) and value and all(text is None or isinstance(text, str) for text in value)
    return value if whole else None


def _whole(talk: list[Message | None]) -> bool:
    """Whether all of it can be written: an escape such as \\ud83d alone is half a character."""
    try:
        for turn in talk:
            if turn is not None:
                turn.content.encode()
    except UnicodeEncodeError:
        return False
    return True


def _turns(talk: list[Message | None]) -> _Side | None:
    """None where question and answer do not alternate."""
    system = [turn for turn in talk[:1] if turn is not None and turn.role == "system"]
    said = talk[len(system) :]
    asked = [turn.content for turn in said[::2] if turn is not None and turn.role == "user"]
    answers = [
        None if turn is None else turn.content for turn in said[1::2] if turn is None or turn.role == "assistant"
    ]
    if not asked or len(asked) + len(answers) != len(said):
        return None
    return _Side(system, asked, answers)


def _turn(row: Cells, turns: int) -> int:
    turn = row.number("turn") if "turn" in row.value else None
    if turn is None:
        return turns
    if turn != int(turn) or not 1 <= turn <= turns:
        raise row.at.error("turn", f"is {turn:g}, and the conversation has {turns}")
    return int(turn)


def _session(row: Cells, turn: int, turns: int, query: list[Message]) -> str:
    given = row.value.get("question_id")
    if given is None:
        return row.name("id") if row.value.get("id") is not None else hashed(query)
    flat = any(suffix in SEPARATORS for suffix in row.at.file.suffixes)  # where a number is written as any text
    if type(given) is int or (flat and re.fullmatch(r"0|[1-9]\d*", str(given))):
        return session_of(int(given), turn, turns)
    return session_of(row.name("question_id"), turn, turns)
