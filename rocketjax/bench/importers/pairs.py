"""Sets of preference pairs: LLMBar, JudgeBench, PandaLM.

A pair is a session of its own with the responders "first" and "second", in the source's order; the preferred one has
the score 1, the other 0, both 0.5 for a tie.
"""

import msgspec

from rocketjax.bench.importers.source import Draft, Source, joined


def _pair(
    draft: Draft, session_id: str, question: str, answers: tuple[str, str], first: float, labeler: str, items: list[str]
) -> None:
    """A preference pair; `first` is the share of votes for the first answer, a tie being half a vote for each."""
    if not draft.query(session_id, question, items):
        return
    for responder, answer, share in (("first", answers[0], first), ("second", answers[1], 1 - first)):
        if draft.response(session_id, responder, answer):
            draft.score(session_id, responder, labeler, share)


# LLMBar, JudgeBench, PandaLM


class _LLMBarRow(msgspec.Struct):
    input: str
    output_1: str
    output_2: str
    label: int


def llmbar(source: Source, draft: Draft, item: str) -> None:
    """Dataset/**/dataset.json, or a file per subset; session <subset>_<row>."""
    for file in source.files("**/*", "dataset.json of each subset"):
        name = source.name(file)
        subset = (name.removesuffix("/dataset") if "/" in name else name).replace("/", "_")
        for i, (at, row) in enumerate(source.rows(file, _LLMBarRow)):
            if row.label not in (1, 2):
                raise at.error("label", f"is {row.label}", "it is 1 or 2, the better output")
            answers, first = (row.output_1, row.output_2), float(row.label == 1)
            _pair(draft, f"{subset}_{i:04d}", row.input, answers, first, "gold", [item])


class _JudgeBenchRow(msgspec.Struct):
    pair_id: str
    question: str
    response_A: str
    response_B: str
    label: str


_PREFERRED = {"A>B": 1.0, "B>A": 0.0, "A=B": 0.5}


def judgebench(source: Source, draft: Draft, item: str) -> None:
    """data/*.jsonl; session <pair_id>."""
    for file in source.files("**/*", "dataset=judgebench,response_model=<model>"):
        for at, row in source.rows(file, _JudgeBenchRow):
            if row.label not in _PREFERRED:
                raise at.error("label", f"is {row.label!r}", "it is A>B, B>A or A=B")
            answers = row.response_A, row.response_B
            _pair(draft, row.pair_id, row.question, answers, _PREFERRED[row.label], "gold", [item])


class _PandaRow(msgspec.Struct):
    idx: int
    instruction: str
    input: str
    response1: str
    response2: str
    annotator1: int
    annotator2: int
    annotator3: int


class _PandaChecklist(msgspec.Struct):
    instruction: str
    input: str
    checklist: list[str]


_VOTES = {1: 1.0, 2: 0.0, 0: 0.5}


def pandalm(source: Source, draft: Draft, item: str) -> None:
    """data/testset-v1.json; session pandalm_<idx>, score the mean over the three annotators.

    Items of InfoBench where infobench_checklist_for_instructions.jsonl lies beside it, and the generic item.
    """
    checklists: dict[tuple[str, str], list[str]] = {}
    if beside := source.optional("infobench_checklist_for_instructions"):
        for _, known in source.rows(beside, _PandaChecklist):
            checklists[known.instruction, known.input] = known.checklist
    file = source.path if source.path.is_file() else source.one("testset-v1")
    for at, row in source.rows(file, _PandaRow):
        votes = {"annotator1": row.annotator1, "annotator2": row.annotator2, "annotator3": row.annotator3}
        for field, vote in votes.items():
            if vote not in _VOTES:
                raise at.error(field, f"is {vote}", "it is 1 or 2, the better response, or 0 for a tie")
        first = sum(_VOTES[vote] for vote in votes.values()) / len(votes)
        items = [*checklists.get((row.instruction, row.input), []), item]
        question, answers = joined(row.instruction, row.input), (row.response1, row.response2)
        _pair(draft, f"pandalm_{row.idx}", question, answers, first, "human", items)
