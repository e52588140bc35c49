"""FastChat's folders of questions, answers and judgments: MT-Bench, its kin, and Arena-Hard."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from rocketjax.bench.importers.source import At, Draft, Item, Source, listed
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
    items: Mapping[str, list[Item]],
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


class _PairJudgment(msgspec.Struct):
    """A judge's two games, sides changed, or a person's vote."""

    question_id: int | str
    judge: list[str] | str
    turn: int = 1
    model_1: str | None = None
    model_2: str | None = None
    g1_winner: str | None = None
    g2_winner: str | None = None
    model_a: str | None = None
    model_b: str | None = None
    winner: str | None = None


class _SessionChecklist(msgspec.Struct):
    session_id: str
    checklist: list[str]
    weights: list[float | None] | None = None
    categories: list[str | None] | None = None


def fastchat(source: Source, draft: Draft, item: str) -> None:
    """question.jsonl, model_answer/; reference_answer/ and model_judgment/<judge>_single.jsonl, <judge>_pair.jsonl
    and *_judgments.json (votes of people) where they are there.

    Session mt<id>_<turn>, <id>_<turn> where ids are texts, and <id> where there is one turn; checklists from an
    optional checklist.jsonl as a benchmark has it, the generic item elsewhere. Of several grades the last
    positive one counts. Of comparisons, the score is the share of those that the response won in its session, over all
    opponents, of labeler <judge>_pair, "human" or "author"; a tie, and two games with different winners, are half a
    win, as the authors count. Adds "unknown_session", "unknown_model", "no_score" (the judge's -1, or no winner),
    "earlier_grade" and "more_choices" (the first answer is taken of several).
    """
    asked = _fastchat(source, draft, item)
    _grades(source, draft, asked, source.glob("model_judgment/*_single"))
    _comparisons(source, draft, asked)


def mtbench(source: Source, draft: Draft, item: str) -> None:
    """As `fastchat`, and judgments must be there."""
    asked = _fastchat(source, draft, item)
    graded = source.glob("model_judgment/*_single")
    if not _comparisons(source, draft, asked) and not graded:
        raise source.lacks("model_judgment/<judge>_single or <judge>_pair")
    _grades(source, draft, asked, graded)


def _fastchat(source: Source, draft: Draft, item: str) -> dict[int | str, list[str]]:
    """Adds questions and answers; returns the turns of each question."""
    checklists: dict[str, list[Item]] = {}
    if beside := source.optional("checklist"):
        for at, row in source.rows(beside, _SessionChecklist):
            checklists[row.session_id] = listed(row.checklist, row.weights, row.categories, at.error)
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
            if len(answer.choices) > 1:
                draft.skip("more_choices", len(answer.choices) - 1)
            _answer(draft, asked, at, answer.question_id, model, given)
    return asked


def _grades(source: Source, draft: Draft, asked: Mapping[int | str, list[str]], files: Iterable[Path]) -> None:
    for file in files:
        grades: dict[tuple[str, str, str], float] = {}
        for at, row in source.rows(file, _Judgment):
            if not row.judge:
                raise at.error("judge", "names no judge")
            session_id = _judged_session(asked, row.question_id, row.turn)
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


def _judged_session(asked: Mapping[int | str, list[str]], question_id: int | str, turn: int) -> str:
    """A question that is not known may be a session of one: so an export of a run names later turns."""
    turns = len(asked.get(question_id, [""]))
    return session_of(question_id, turn, turns) if 1 <= turn <= turns else ""


# Comparisons

_PERSON = re.compile(r"(?:(?:arena_user|expert)|(author))_\w+")
TIES = ("tie", "tie (bothbad)", "tie (inconsistent)", "both_bad", "bothbad")
"""What is bad on both sides is a tie, as in the arena's own ratings, and so are games with different winners."""
_SAID = {"model_1": 1.0, "model_2": 0.0, "model_a": 1.0, "model_b": 0.0, **dict.fromkeys(TIES, 0.5)}


def labeler_of(judge: Sequence[str] | str | None) -> str:
    """Whose comparisons they are, as the authors' compute_agreement.py groups them.

    People are one labeler, as each of many has a few votes: "human", or "author" of author_*. A judge is
    <model>_pair, whatever its prompt: MT-Bench has one for each kind of question.
    """
    if isinstance(judge, str):
        person = _PERSON.fullmatch(judge)
        return judge if person is None else person[1] or "human"
    return f"{judge[0]}_pair" if judge else "human"


class Votes:
    """Comparisons of two models' responses to a query, which become the share that each won."""

    def __init__(self) -> None:
        self._won: defaultdict[tuple[str, str, str], list[float]] = defaultdict(list)

    def add(self, session_id: str, first: str, second: str, labeler: str, share: float) -> None:
        """`share` is the first one's part of the vote."""
        self._won[session_id, first, labeler].append(share)
        self._won[session_id, second, labeler].append(1 - share)

    def write(self, draft: Draft) -> None:
        for (session_id, model, labeler), won in self._won.items():
            draft.score(session_id, model, labeler, sum(won) / len(won))


def _comparisons(source: Source, draft: Draft, asked: Mapping[int | str, list[str]]) -> bool:
    """Adds the labels of comparisons; False if there is no file of them."""
    votes = Votes()
    files = [*source.glob("model_judgment/*_pair"), *source.glob("model_judgment/*_judgments")]
    for file in files:
        latest: dict[tuple[str, str, str, str], float] = {}
        for at, row in source.rows(file, _PairJudgment):
            two = (row.model_a, row.model_b) if row.model_1 is None else (row.model_1, row.model_2)
            first, second = two
            if first is None or second is None:
                raise at.error("model_1", "or model_2 is missing", "a comparison is of two models")
            share = _won(at, row)
            session_id = _judged_session(asked, row.question_id, row.turn)
            labeler = labeler_of(row.judge)
            if any(draft.response_of(session_id, model) is None for model in (first, second)):
                known = all(draft.has(model) for model in (first, second))
                draft.skip("unknown_session" if known else "unknown_model")
            elif first == second:
                draft.skip("same_model")
            elif share is None:
                draft.skip("no_score")
            elif row.winner is not None:
                votes.add(session_id, first, second, labeler, share)
            else:
                key = session_id, first, second, labeler
                if key in latest:
                    draft.skip("earlier_grade")
                latest[key] = share
        for (session_id, first, second, labeler), share in latest.items():
            votes.add(session_id, first, second, labeler, share)
    votes.write(draft)
    return bool(files)


def _won(at: At, row: _PairJudgment) -> float | None:
    """The first model's part: a win takes both games, or one where it is said as a whole; None without a verdict."""
    games = (
        {"winner": row.winner} if row.winner is not None else {"g1_winner": row.g1_winner, "g2_winner": row.g2_winner}
    )
    for field, said in games.items():
        if said is None or said == "error":
            return None
        if said not in _SAID:
            raise at.error(field, f"is {said!r}", f"it is one of {', '.join(_SAID)}, or error")
    shares = {_SAID[said] for said in games.values() if said is not None}
    return shares.pop() if len(shares) == 1 else 0.5


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
