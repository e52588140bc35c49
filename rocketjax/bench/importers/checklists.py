"""Sets whose labels are about the items of checklists: InfoBench, StructFlowBench, REALSumm, HelloBench."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from rocketjax.bench.importers.source import At, Draft, Source, joined
from rocketjax.bench.records import Message

# InfoBench


class _InfoBenchRow(msgspec.Struct):
    id: str
    instruction: str
    decomposed_questions: list[str]
    output: str | None
    eval: list[bool | None] | None
    input: str | None = None


def infobench(source: Source, draft: Draft, item: str) -> None:
    """GPT4_DecomposeEval.jsonl; adds "no_labels" (`eval` is null)."""
    file = source.path if source.path.is_file() else source.one("GPT4_DecomposeEval")
    for _, row in source.rows(file, _InfoBenchRow):
        if not draft.query(row.id, joined(row.instruction, row.input), row.decomposed_questions):
            continue
        if not draft.response(row.id, "gpt-4", row.output):
            continue
        if row.eval is None:
            draft.skip("no_labels")
        else:
            draft.judge(row.id, "gpt-4", "gpt-4", [None if met is None else float(met) for met in row.eval])


# StructFlowBench


class _Constraint(msgspec.Struct):
    content: str


class _Judged(msgspec.Struct):
    judgement: str | bool | None = None


class _FlowTurn(msgspec.Struct):
    prompt: str = msgspec.field(name="user prompt")
    answer: str = msgspec.field(name="assistant answer")
    constraints: list[_Constraint]
    response: str | None = None
    # The evaluator leaves an object with the error where its judge failed.
    judged: list[_Judged] | dict[str, Any] | None = msgspec.field(name="judge result", default=None)


class _Flow(msgspec.Struct):
    whole_conv: list[_FlowTurn]


_VERDICTS = {"yes": 1.0, "no": 0.0, "n/a": None, "na": None, "": None}


def structflowbench(source: Source, draft: Draft, item: str) -> None:
    """evaluation/output/evaluation/<model>_evaluate.json; adds "judge_error" and "no_labels".

    A turn's history has the data set's own assistant answers, as its evaluator's prompt has. Session sf<i>_c<t> is
    turn t of conversation i, from 0 and 1; the files' own turn names repeat in places.
    """
    for file in source.files("**/*_evaluate", "<model>_evaluate"):
        model = source.name(file).rpartition("/")[2].removesuffix("_evaluate")
        for i, (at, flow) in enumerate(source.rows(file, _Flow)):
            earlier: list[Message] = []
            for t, turn in enumerate(flow.whole_conv):
                session_id = f"sf{i:03d}_c{t + 1}"
                turns = (*earlier, Message("user", turn.prompt))
                earlier += [turns[-1], Message("assistant", turn.answer)]
                items = [constraint.content for constraint in turn.constraints]
                if not draft.query(session_id, turns, items, {"dataset assistant answer": turn.answer}):
                    continue
                if not draft.response(session_id, model, turn.response):
                    continue
                if isinstance(turn.judged, list):
                    field = f"whole_conv[{t}].judge result"
                    draft.judge(session_id, model, "gpt-4o", [_verdict(at, field, j.judgement) for j in turn.judged])
                else:
                    draft.skip("no_labels" if turn.judged is None else "judge_error")


def _verdict(at: At, field: str, value: str | bool | None) -> float | None:
    if value is None or isinstance(value, bool):
        return None if value is None else float(value)
    if value.strip().lower() not in _VERDICTS:
        raise at.error(field, f"{value!r} is no answer", "answers are Yes, No and N/A")
    return _VERDICTS[value.strip().lower()]


# REALSumm


class _SummaryRow(msgspec.Struct):
    event_id: str = msgspec.field(name="eventId")
    system: str
    summary: str
    statements: list[str]
    present_votes: list[int]
    n_votes: int


class _Votes(NamedTuple):
    event: str
    system: str
    summary: str
    present: dict[str, list[int]]
    """Statement -> [votes for present, all votes]."""


_WORKER = ("Input.eventId", "Input.summaryId", "Input.summary_text", "Input.statement_1", "Answer.S1Answer")


def realsumm(source: Source, draft: Draft, item: str) -> None:
    """annotations/<system>.jsonl (votes summed up) or SCU_rating_results_{abs,ext}_systems/*.csv (a row per worker).

    The label of a statement is the share of the crowd that marked it present, the score their mean. The article is
    not part of the query: what is judged is whether the summary says so. Adds "no_votes" (summaries without any),
    "repeated_statement" and "another_summary" (a worker's row whose text differs from the first).
    """
    if source.path.is_file():
        files = [source.path]
    else:
        files = source.glob("annotations/*") or source.glob("**/SCU_rating_results_*_systems/*", (".csv", ".csv.gz"))
    if not files:
        raise source.lacks("annotations/<system> or SCU_rating_results_*_systems/<system>.csv")
    votes: dict[tuple[str, str], _Votes] = {}
    for file in files:
        if file.name.endswith((".csv", ".csv.gz")):
            _count_workers(source, draft, file, votes)
        else:
            for at, row in source.rows(file, _SummaryRow):
                if len(row.present_votes) != len(row.statements):
                    raise at.error(
                        "present_votes", f"has {len(row.present_votes)} for {len(row.statements)} statements"
                    )
                if row.n_votes < 1 or any(not 0 <= n <= row.n_votes for n in row.present_votes):
                    raise at.error("present_votes", f"are not all from 0 to n_votes, {row.n_votes}")
                votes_there = _votes(draft, votes, row.event_id, row.system, row.summary)
                for statement, present in zip(row.statements, row.present_votes, strict=True):
                    if votes_there is None:
                        continue
                    if statement.strip() in votes_there.present:
                        draft.skip("repeated_statement")
                    else:
                        votes_there.present[statement.strip()] = [present, row.n_votes]
    asked: dict[str, dict[str, None]] = {}  # the union over the systems, in the order it is met
    for given in votes.values():
        asked.setdefault(given.event, {}).update(dict.fromkeys(given.present))
    for (event, system), given in votes.items():
        items = [f"Does the response say the following? {statement}" for statement in asked[event]]
        if not draft.query(event, "Summarize the news article.", items):
            continue
        draft.response(event, system, given.summary)
        shares = [
            given.present[s][0] / given.present[s][1] if given.present.get(s, [0, 0])[1] else None for s in asked[event]
        ]
        known = [share for share in shares if share is not None]
        if known:
            draft.judge(event, system, "crowd", shares)
            draft.score(event, system, "crowd", sum(known) / len(known))
        else:
            draft.skip("no_votes")


def _votes(draft: Draft, votes: dict[tuple[str, str], _Votes], event: str, system: str, summary: str) -> _Votes | None:
    """The votes on this system's summary so far; None, and counted, where the summary is another one."""
    there = votes.setdefault((event, system), _Votes(event, system, summary, {}))
    if there.summary != summary:
        draft.skip("another_summary")
        return None
    return there


def _count_workers(source: Source, draft: Draft, file: Path, votes: dict[tuple[str, str], _Votes]) -> None:
    """Adds a file of crowd results: p is present, n not present, statements beyond the last are BLANK."""
    kind = re.search(r"_(abs|ext)_systems$", file.parent.name)
    for at, row in source.table(file, _WORKER):
        system = f"{kind[1]}_{row['Input.summaryId']}" if kind else row["Input.summaryId"]
        votes_there = _votes(draft, votes, row["Input.eventId"], system, row["Input.summary_text"])
        if votes_there is None:
            continue
        n, seen = 1, set()
        while statement := row.get(f"Input.statement_{n}", "").strip():
            answer = row.get(f"Answer.S{n}Answer", "").strip()
            if statement != "BLANK":
                if answer not in ("p", "n", ""):
                    raise at.error(f"Answer.S{n}Answer", f"{answer!r} is no answer", "answers are p and n")
                count = votes_there.present.setdefault(statement, [0, 0])
                if statement in seen:
                    draft.skip("repeated_statement")
                elif answer:
                    count[0] += answer == "p"
                    count[1] += 1
                seen.add(statement)
            n += 1


# HelloBench


class _HelloQuestion(msgspec.Struct):
    id: str
    instruction: str
    checklists: list[str]


class _HelloScore(msgspec.Struct):
    checklist_id: int
    evaluation_score: float | None


class _HelloRow(msgspec.Struct):
    id: str
    response: str | None
    checklist_wise_evaluation: list[_HelloScore] | None = None


def hellobench(source: Source, draft: Draft, item: str) -> None:
    """data/main_data/open_ended_qa.jsonl and results/judgements/main_exp/<model>/open_ended_qa_results.jsonl.

    GPT-4o's 0, 0.25, ..., 1 per item are kept as they are. Adds "unknown_session", "no_labels" and
    "unclear_checklist_ids" (they are not 0, 1, 2, ...).
    """
    questions = source.one("open_ended_qa", "data/main_data")
    known = set()
    for _, asked in source.rows(questions, _HelloQuestion):
        if draft.query(asked.id, asked.instruction, asked.checklists):
            known.add(asked.id)
    for file in source.all("results/judgements/main_exp/*/open_ended_qa_results"):
        model = file.parent.name
        for at, row in source.rows(file, _HelloRow):
            if row.id not in known:
                draft.skip("unknown_session")
                continue
            if not draft.response(row.id, model, row.response):
                continue
            given = sorted(row.checklist_wise_evaluation or [], key=lambda score: score.checklist_id)
            for score in given:
                if score.evaluation_score is not None and not 0 <= score.evaluation_score <= 1:
                    raise at.error("checklist_wise_evaluation", f"{score.evaluation_score} is not from 0 to 1")
            if not given:
                draft.skip("no_labels")
            elif [score.checklist_id for score in given] != list(range(len(given))):
                draft.skip("unclear_checklist_ids")
            else:
                draft.judge(row.id, model, "gpt-4o", [score.evaluation_score for score in given])
