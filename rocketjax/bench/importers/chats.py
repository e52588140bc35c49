"""FastChat's folders of questions, answers and judgments: MT-Bench, its kin, and Arena-Hard."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from rocketjax.bench.importers.source import At, Draft, Source
from rocketjax.bench.records import Message

OWN_ANSWER = "<the responder's own answer: see chat_history in its response file>"


def dialogue(turns: Sequence[str]) -> list[Message]:
    """User turns with a placeholder between them, where every responder has an answer of its own."""
    said = [Message("user", turns[0])] if turns else []
    for turn in turns[1:]:
        said += [Message("assistant", OWN_ANSWER), Message("user", turn)]
    return said


def session_of(question_id: int | str, turn: int, turns: int) -> str:
    """mt<id>_<turn> of a number; <id> or, of a question of several turns, <id>_<turn> of a text."""
    if isinstance(question_id, int):
        return f"mt{question_id}_{turn}"
    return question_id if turns == 1 else f"{question_id}_{turn}"


# Questions and answers


def _ask(
    draft: Draft,
    question_id: int | str,
    turns: list[str],
    items: Mapping[str, list[str]],
    item: str,
    references: Mapping[tuple[int | str, int], dict[str, str | None]],
) -> None:
    for t in range(1, len(turns) + 1):
        session_id = session_of(question_id, t, len(turns))
        draft.query(session_id, dialogue(turns[:t]), items.get(session_id, [item]), references.get((question_id, t)))


def _answer(
    draft: Draft,
    asked: Mapping[int | str, list[str]],
    at: At,
    question_id: int | str,
    model: str,
    given: Sequence[str | None],
) -> None:
    """A responder's answers to the turns of a question."""
    turns = asked.get(question_id)
    if turns is None:
        draft.skip("unknown_session")
        return
    if len(given) > len(turns):
        raise at.error("choices[0].turns", f"has {len(given)} answers to {len(turns)} turns")
    for t, text in enumerate(given, start=1):
        before = given[: t - 1]
        session_id = session_of(question_id, t, len(turns))
        if session_id not in draft.queries:
            draft.skip("unknown_session")
        elif any(earlier is None for earlier in before):
            draft.skip("no_response")  # what it answers to is not known
        else:
            history = [x for said in zip(turns, before, strict=False) for x in said if x is not None]
            draft.response(session_id, model, text, history)


# FastChat


class _Question(msgspec.Struct):
    question_id: int | str
    turns: list[str]


class _Choice(msgspec.Struct):
    turns: list[str | None]


class _Answer(msgspec.Struct):
    question_id: int | str
    choices: list[_Choice]


class _Judgment(msgspec.Struct):
    question_id: int | str
    model: str
    judge: list[str]
    score: float
    turn: int


class _SessionChecklist(msgspec.Struct):
    session_id: str
    checklist: list[str]


def fastchat(source: Source, draft: Draft, item: str) -> None:
    """question.jsonl, model_answer/; reference_answer/ and model_judgment/<judge>_single.jsonl where they are there.

    Session mt<id>_<turn>, <id>_<turn> where ids are texts, and <id> where there is one turn; checklists from an
    optional checklist.jsonl of {"session_id", "checklist"}, the generic item elsewhere. Of several grades the last
    positive one counts. Adds "unknown_session", "unknown_model", "no_score" (the judge's -1) and "earlier_grade".
    """
    asked = _fastchat(source, draft, item)
    _grades(source, draft, asked, source.glob("model_judgment/*_single"))


def mtbench(source: Source, draft: Draft, item: str) -> None:
    """As `fastchat`, and the judgments must be there."""
    asked = _fastchat(source, draft, item)
    graded = source.glob("model_judgment/*_single")
    if not graded:
        raise source.lacks("model_judgment/<judge>_single")
    _grades(source, draft, asked, graded)


def _fastchat(source: Source, draft: Draft, item: str) -> dict[int | str, list[str]]:
    """Adds questions and answers; returns the turns of each question."""
    checklists: dict[str, list[str]] = {}
    if beside := source.optional("checklist"):
        checklists = {row.session_id: row.checklist for _, row in source.rows(beside, _SessionChecklist)}
    references: dict[tuple[int | str, int], dict[str, str | None]] = {}
    for file in source.glob("reference_answer/*"):
        author = source.name(file).rpartition("/")[2]
        for _, answer in source.rows(file, _Answer):
            for t, text in enumerate(answer.choices[0].turns if answer.choices else (), start=1):
                references.setdefault((answer.question_id, t), {})[author] = text
    asked: dict[int | str, list[str]] = {}
    for _, question in source.rows(source.one("question"), _Question):
        asked[question.question_id] = question.turns
        _ask(draft, question.question_id, question.turns, checklists, item, references)
    unknown = sum(session_id not in draft.queries for session_id in checklists)
    if unknown:
        draft.skip("unknown_session", unknown)
    for file in source.all("model_answer/*"):
        model = source.name(file).rpartition("/")[2]
        for at, answer in source.rows(file, _Answer):
            given = answer.choices[0].turns if answer.choices else []
            _answer(draft, asked, at, answer.question_id, model, given)
    return asked


def _grades(source: Source, draft: Draft, asked: Mapping[int | str, list[str]], files: Iterable[Path]) -> None:
    for file in files:
        grades: dict[tuple[str, str, str], float] = {}
        for at, row in source.rows(file, _Judgment):
            if not row.judge:
                raise at.error("judge", "names no judge")
            # A question that is not known may be a session of one: so an export of a run names later turns.
            turns = len(asked.get(row.question_id, [""]))
            session_id = session_of(row.question_id, row.turn, turns) if row.turn <= turns else ""
            if row.model not in draft.responses:
                draft.skip("unknown_model")
            elif session_id not in draft.responses[row.model]:
                draft.skip("unknown_session")
            elif row.score <= 0:
                draft.skip("no_score")
            else:
                key = session_id, row.model, row.judge[0]
                if key in grades:
                    draft.skip("earlier_grade")
                grades[key] = row.score
        for (session_id, model, judge), grade in grades.items():
            draft.score(session_id, model, judge, grade)


# Arena-Hard


class _Content(msgspec.Struct):
    content: str | None


class _Said(msgspec.Struct):
    answer: str | None


class _ArenaMessage(msgspec.Struct):
    role: str
    content: str | _Said | None


class _ArenaQuestion(msgspec.Struct):
    question_id: str | None = None
    turns: list[_Content] | None = None
    uid: str | None = None
    prompt: str | None = None


class _ArenaChoice(msgspec.Struct):
    turns: list[_Content]


class _ArenaAnswer(msgspec.Struct):
    question_id: str | None = None
    choices: list[_ArenaChoice] | None = None
    uid: str | None = None
    messages: list[_ArenaMessage] | None = None


class _Game(msgspec.Struct):
    score: str | None


class _ArenaJudgment(msgspec.Struct):
    games: list[_Game | None]
    question_id: str | None = None
    uid: str | None = None
    baseline: str | None = None


_VERDICT = re.compile(r"(A|B)(>>|>|=|<|<<)(A|B)")
MUCH_BETTER = 3  # votes that a verdict with two marks counts as, by the authors' show_result.py


def arenahard(source: Source, draft: Draft, item: str) -> None:
    """question.jsonl, model_answer/<model>.jsonl, and model_judgment/<judge>/<model>.jsonl where they are there.

    Both layouts: v0.1 (question_id, turns, choices) and v2 (uid, prompt, messages); a session is the question's id.
    A judgment is two games of the response against a baseline's, sides changed; its score is 1 + 9 times the share of
    votes for the response (">>" is three votes, "=" half of one), as the authors count. Adds "unknown_session",
    "unknown_model" and "no_score" (a game without a verdict).
    """
    asked: dict[int | str, list[str]] = {}
    for at, question in source.rows(source.one("question"), _ArenaQuestion):
        question_id = _arena_id(at, question)
        if question.prompt is None and question.turns is None:
            raise at.error("prompt", "is missing", "a question has a prompt (v2) or turns (v0.1)")
        turns = [turn.content or "" for turn in question.turns or []] if question.prompt is None else [question.prompt]
        asked[question_id] = turns
        _ask(draft, question_id, turns, {}, item, {})
    for file in source.all("model_answer/*"):
        model = source.name(file).rpartition("/")[2]
        for at, answer in source.rows(file, _ArenaAnswer):
            given = list(_arena_answers(at, answer))
            _answer(draft, asked, at, _arena_id(at, answer), model, given)
    for file in source.glob("model_judgment/*/*"):
        judge, model = source.name(file).split("/")[-2:]
        for at, row in source.rows(file, _ArenaJudgment):
            question_id = _arena_id(at, row)
            session_id = session_of(question_id, 1, len(asked.get(question_id, ["?"])))
            if model not in draft.responses:
                draft.skip("unknown_model")
            elif session_id not in draft.responses[model]:
                draft.skip("unknown_session")
            elif (share := _share(at, row.games)) is None:
                draft.skip("no_score")
            else:
                draft.score(session_id, model, judge, 1 + 9 * share)
                if row.baseline is not None:
                    baseline = {row.baseline: draft.response_of(session_id, row.baseline)}
                    draft.query(session_id, dialogue(asked[question_id][:1]), [item], baseline)


def _arena_id(at: At, row: _ArenaQuestion | _ArenaAnswer | _ArenaJudgment) -> str:
    found = row.question_id if row.uid is None else row.uid
    if found is None:
        raise at.error("uid", "is missing", "a row has a uid (v2) or a question_id (v0.1)")
    return found


def _arena_answers(at: At, answer: _ArenaAnswer) -> Iterator[str | None]:
    if answer.messages is not None:
        for message in answer.messages:
            if message.role == "assistant":
                yield message.content.answer if isinstance(message.content, _Said) else message.content
    elif answer.choices is not None:
        yield from (turn.content for turn in (answer.choices[0].turns if answer.choices else ()))
    else:
        raise at.error("messages", "is missing", "an answer has messages (v2) or choices (v0.1)")


def _share(at: At, games: list[_Game | None]) -> float | None:
    """The share of votes for the response: it is B in the first game and A in the second."""
    if len(games) not in (1, 2):
        raise at.error("games", f"has {len(games)} games", "a judgment has two, sides changed, or one")
    won = votes = 0.0
    for i, game in enumerate(games):
        if game is None or game.score is None:
            return None
        said = _VERDICT.fullmatch(game.score.strip())
        if said is None or said[1] == said[3]:
            raise at.error(
                f"games[{i}].score", f"{game.score!r} is no verdict", "verdicts are A>>B, A>B, A=B, B>A, ..."
            )
        weight = MUCH_BETTER if len(said[2]) == 2 else 1
        left = 0.5 if said[2] == "=" else float(said[2].startswith(">"))
        for_a = left if said[1] == "A" else 1 - left
        won += weight * (for_a if i == 1 else 1 - for_a)
        votes += weight
    return won / votes
