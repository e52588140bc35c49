"""The importers of public data sets: small files in each source's schema, and the shared copies where they are."""

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from rocketjax import cli
from rocketjax.bench import IMPORTERS, Imported, import_benchmark, load_benchmark
from rocketjax.bench.importers import GENERIC_ITEM
from rocketjax.errors import RocketError


def put(root: Path, files: dict[str, Any]) -> Path:
    """Writes files: .jsonl from rows, .json from a value, others from text; .gz compressed."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        plain = name.removesuffix(".gz")
        if plain.endswith(".jsonl"):
            text = "".join(json.dumps(row) + "\n" for row in content)
        else:
            text = json.dumps(content, indent=1) if plain.endswith(".json") else content
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return root


def info(n: int, **changes: Any) -> dict[str, Any]:
    questions = ["Is it short?", "Is it kind?"]
    row = {"id": f"task_{n}", "instruction": "Greet.", "input": "", "decomposed_questions": questions}
    return row | {"output": "Hello!", "eval": [True, False]} | changes


def bar(label: Any = 1, **changes: Any) -> dict[str, Any]:
    return {"input": "Name a prime.", "output_1": "7", "output_2": "8", "label": label} | changes


def panda(n: int, *votes: int) -> dict[str, Any]:
    row = {"idx": n, "instruction": "Rhyme.", "input": "cat", "response1": "hat", "response2": "dog"}
    return row | {f"annotator{i}": vote for i, vote in enumerate(votes, start=1)}


def mt(question_id: int, *turns: str | None) -> dict[str, Any]:
    return {"question_id": question_id, "model_id": "m", "choices": [{"index": 0, "turns": list(turns)}]}


def mt_grade(question_id: int, turn: int, score: float, model: str = "m1") -> dict[str, Any]:
    row = {
        "question_id": question_id,
        "model": model,
        "judge": ["gpt-4", "single-v1"],
        "user_prompt": "",
        "judgment": "",
    }
    return row | {"turn": turn, "score": score, "tstamp": 1.5}


def flow_turn(prompt: str, answer: str, items: list[str], response: Any, judged: Any) -> dict[str, Any]:
    turn = {"name": "c1", "user prompt": prompt, "assistant answer": answer, "response": response}
    constraints = [{"type": "Style Constraint", "content": item, "explanation": ""} for item in items]
    return turn | {"constraints": constraints, "judge result": judged}


def said(*verdicts: str) -> list[dict[str, str]]:
    return [{"judgement": verdict, "reason": "so"} for verdict in verdicts]


def prometheus_row(idx: int, asked: str, response: str, scores: list[int], **more: Any) -> dict[str, Any]:
    instruction = (
        "###Task Description:\nGrade.\n\n###The instruction to evaluate:\n" + asked + "\n\n###Response to evaluate:\n"
        f"{response}\n\n###Reference Answer (Score 5):\nThe best.\n\n###Score Rubrics:\n[Is it vivid?]\nScore 1: no.\n"
        "Score 5: yes.\n\n###Feedback: "
    )
    return {"idx": idx, "category": "c", "instruction": instruction, "gpt4_score": scores} | more


def test_infobench(tmp_path: Path) -> None:
    rows = [
        info(1, input="Bob"),
        info(2, decomposed_questions=["Is it short?", "Is it short? ", "Is it kind?"], eval=[True, False, None]),
        info(3, eval=None),
        info(4, eval=[None, None]),
        info(5, eval=[True]),
        info(6, decomposed_questions=[]),
        info(7, output=None),
        info(1, input="Eve"),
    ]
    source = put(tmp_path / "in", {"GPT4_DecomposeEval.jsonl.gz": rows})
    imported = import_benchmark("infobench", source, tmp_path / "out")
    b = load_benchmark(tmp_path / "out")
    assert b.queries["task_1"].messages[0].content == "Greet.\n\nBob"
    assert b.queries["task_2"].messages[0].content == "Greet."
    assert b.checklists["task_2"].items == ("Is it short?", "Is it kind?")
    assert {s: label.items for s, label in b.labels["gpt-4"]["gpt-4"].items()} == {
        "task_1": (1.0, 0.0),
        "task_2": (1.0, None),
    }
    assert set(b.responses["gpt-4"]) == {f"task_{n}" for n in (1, 2, 3, 4, 5)}
    left_out = {"another_query": 1, "duplicate_item": 1, "empty_checklist": 1, "no_labels": 1, "no_response": 1}
    left_out |= {"only_na_labels": 1, "other_number_of_labels": 1}
    assert imported == Imported("infobench", 6, 1, 5, 12, 2, 1, 0, 0, left_out)


def test_structflowbench(tmp_path: Path) -> None:
    def conversations(last: Any, first: Any) -> list[Any]:
        turns = [
            flow_turn("Hi?", "Own hello.", ["Is it a greeting?"], "Hello.", first),
            flow_turn("More?", "Own more.", ["Is it more?", "Is it\nless?"], "More.", last),
        ]
        return [{"conv_task": "chat", "whole_conv": turns}]

    files = {
        "evaluation/output/evaluation/m1_evaluate.json": conversations(said("Yes", "No"), said("N/A")),
        "evaluation/output/evaluation/m2_evaluate.json": conversations({"max try error": "API error"}, said("no")),
        "evaluation/output/score/m1_score.json": {"other": "file"},
    }
    imported = import_benchmark("structflowbench", put(tmp_path / "in", files), tmp_path / "out")
    b = load_benchmark(tmp_path / "out")
    assert [(m.role, m.content) for m in b.conversation("sf000_c2", "m1")] == [
        ("user", "Hi?"),
        ("assistant", "Own hello."),
        ("user", "More?"),
    ]
    assert b.checklists["sf000_c2"].items == ("Is it more?", "Is it less?")
    assert b.queries["sf000_c1"].references == {"dataset assistant answer": "Own hello."}
    assert b.labels["gpt-4o"]["m1"].keys() == {"sf000_c2"} and b.labels["gpt-4o"]["m2"].keys() == {"sf000_c1"}
    assert b.labels["gpt-4o"]["m1"]["sf000_c2"].items == (1.0, 0.0)
    assert imported.left_out == {"judge_error": 1, "only_na_labels": 1} and imported.responses == 4


def test_realsumm_has_the_same_labels_from_counts_and_from_workers(tmp_path: Path) -> None:
    def counted(system: str, statements: list[str], votes: list[int]) -> dict[str, Any]:
        row = {"eventId": "e1", "system": system, "summary": f"by {system}", "questionIds": []}
        return row | {"statements": statements, "present_votes": votes, "n_votes": 2}

    rows = {
        "annotations/abs_a_out.jsonl": [counted("abs_a_out", [" It rained.", "Rivers rose, too."], [2, 1])],
        "annotations/ext_b_out.jsonl": [counted("ext_b_out", ["It rained.", "Nobody fell."], [0, 1])],
    }
    head = "Input.eventId,Input.summaryId,Input.qIdList,Input.summary_text,Input.statement_1,Input.statement_2,"
    head += "Input.statement_3,Answer.S1Answer,Answer.S2Answer,Answer.S3Answer,\n"
    first = 'e1,a_out,"[]",by abs_a_out,It rained.,"Rivers rose, too.",BLANK,p,'
    second = 'e1,b_out,"[]",by ext_b_out,It rained.,Nobody fell.,BLANK,n,'
    folder = "SCUs_and_annotations/SCU_rating_results_"
    workers = {
        f"{folder}abs_systems/a_out_Batch_crowd_3.csv": head + first + "p,n,\n" + first + "n,n,\n",
        f"{folder}ext_systems/b_out.csv": head + second + "p,n,\n" + second + "n,n,\n",
    }
    one = import_benchmark("realsumm", put(tmp_path / "counts", rows), tmp_path / "one")
    two = import_benchmark("realsumm", put(tmp_path / "workers", workers), tmp_path / "two")
    b = load_benchmark(tmp_path / "one")
    assert one == two and b.sha256 == load_benchmark(tmp_path / "two").sha256
    assert b.labels == load_benchmark(tmp_path / "two").labels
    assert b.checklists["e1"].items == tuple(
        f"Does the response say the following? {s}" for s in ("It rained.", "Rivers rose, too.", "Nobody fell.")
    )
    assert b.labels["crowd"]["abs_a_out"]["e1"].items == (1.0, 0.5, None)
    assert b.labels["crowd"]["ext_b_out"]["e1"].items == (0.0, None, 0.5)
    assert b.labels["crowd"]["abs_a_out"]["e1"].score == 0.75
    assert (one.yes, one.no, one.undecided, one.left_out) == (1, 1, 2, {})


def test_hellobench(tmp_path: Path) -> None:
    def judged(n: int, *scores: tuple[int, float]) -> dict[str, Any]:
        given = [{"checklist_id": i, "reason": "", "evaluation_score": score} for i, score in scores]
        return {"id": f"open_ended_qa_{n:03d}", "response": f"R{n}", "checklist_wise_evaluation": given}

    questions = [
        {
            "id": f"open_ended_qa_{n:03d}",
            "instruction": f"Q{n}",
            "checklists": ["Is it?", "Was it?"],
            "num_checklist": 2,
        }
        for n in range(4)
    ]
    rows = [judged(0, (1, 0.25), (0, 1.0)), judged(1), judged(2, (1, 1), (2, 1)), judged(9, (0, 1))]
    files = {
        "data/main_data/open_ended_qa.jsonl": questions,
        "results/judgements/main_exp/gpt4/open_ended_qa_results.jsonl": rows,
        "results/judgements/main_exp/gpt4/chat_results.jsonl": [{"other": "task"}],
    }
    imported = import_benchmark("hellobench", put(tmp_path / "in", files), tmp_path / "out")
    b = load_benchmark(tmp_path / "out")
    assert b.labels["gpt-4o"]["gpt4"]["open_ended_qa_000"].items == (1.0, 0.25)
    assert imported.left_out == {"no_labels": 1, "unclear_checklist_ids": 1, "unknown_session": 1}
    assert (imported.sessions, imported.responses, imported.yes, imported.no) == (4, 3, 1, 1)
    with pytest.raises(RocketError, match=r"lacks data/main_data/open_ended_qa \("):
        import_benchmark("hellobench", tmp_path / "in" / "results", tmp_path / "none")


def test_mtbench(tmp_path: Path) -> None:
    files = {
        "question.jsonl": [
            {"question_id": 81, "category": "writing", "turns": ["Write.", "Rewrite."], "reference": []}
        ],
        "model_answer/m1.jsonl": [mt(81, "Text.", "Texts."), mt(99, "?", "?")],
        "model_answer/m2.jsonl": [mt(81, "Prose.", None)],
        "reference_answer/gpt-4.jsonl": [mt(81, "Ref 1.", "Ref 2.")],
        "model_judgment/gpt-4_single.jsonl": [
            *(mt_grade(81, 1, 6), mt_grade(81, 1, -1), mt_grade(81, 1, 9), mt_grade(81, 2, 7.5)),
            *(mt_grade(81, 2, 3, "m2"), mt_grade(81, 1, 3, "m3")),
        ],
        "checklist.jsonl": [{"session_id": "mt81_1", "checklist": ["Is it text?"], "weights": [2]}],
    }
    imported = import_benchmark("mtbench", put(tmp_path / "in", files), tmp_path / "out", item="Is it good?")
    b = load_benchmark(tmp_path / "out")
    assert (b.checklists["mt81_1"].items, b.checklists["mt81_2"].items) == (("Is it text?",), ("Is it good?",))
    assert b.checklists["mt81_1"].weights == (2,) and b.checklists["mt81_2"].weights is None
    assert [m.content for m in b.conversation("mt81_2", "m1")] == ["Write.", "Text.", "Rewrite."]
    assert b.responses["m1"]["mt81_2"].text == "Texts." and set(b.responses["m2"]) == {"mt81_1"}
    assert b.queries["mt81_2"].references == {"gpt-4": "Ref 2."}
    assert {s: label.score for s, label in b.labels["gpt-4"]["m1"].items()} == {"mt81_1": 9.0, "mt81_2": 7.5}
    left_out = {"earlier_grade": 1, "no_response": 1, "no_score": 1, "unknown_model": 1, "unknown_session": 2}
    assert imported.left_out == left_out


def test_alpacaeval(tmp_path: Path) -> None:
    def output(n: int) -> dict[str, Any]:
        return {"dataset": "koala", "instruction": f"Q{n}", "output": f"A{n}", "generator": "m"}

    def annotation(n: int, preference: Any, answer: str = "") -> dict[str, Any]:
        row = {"instruction": f"Q{n}", "output_1": f"B{n}", "generator_1": "base", "generator_2": "m"}
        return row | {"output_2": answer or f"A{n}", "preference": preference, "annotator": "judge"}

    rows = [annotation(0, 1.25), annotation(1, 0), annotation(2, 2.0, "older"), annotation(3, None), annotation(9, 1)]
    files = {
        "results/m/model_outputs.json": [output(n) for n in range(4)],
        "results/m/judge/annotations.json": rows,
        "results/m2/model_outputs.json": [output(0)],
    }
    imported = import_benchmark("alpacaeval", put(tmp_path / "in", files), tmp_path / "out")
    assert imported == import_benchmark("alpacaeval", tmp_path / "in" / "results", tmp_path / "same")
    b = load_benchmark(tmp_path / "out")
    ids = {b.queries[s].messages[0].content: s for s in b.queries}
    assert {ids[q]: score for q, score in (("Q0", 3.25), ("Q1", 5.5))} == {
        s: label.score for s, label in b.labels["judge"]["m"].items()
    }
    assert b.queries[ids["Q0"]].references == {"base": "B0"}
    assert all(c.items == (GENERIC_ITEM,) for c in b.checklists.values())
    assert imported.left_out == {"label_of_another_output": 1, "no_score": 1, "unknown_session": 1}


def test_pairs(tmp_path: Path) -> None:
    judge = {"pair_id": "p-1", "question": "2 + 2?", "response_A": "4", "response_B": "5"}
    known = {"instruction": "Rhyme.", "input": "cat", "checklist": ["Does it rhyme?"], "infobench_id": "t1"}
    files = {
        "bar/Dataset/LLMBar/Natural/dataset.json": [bar(1), bar(2)],
        "judge/data/m.jsonl": [judge | {"label": "B>A"}, judge | {"pair_id": "p-2", "label": "A=B"}],
        "panda/data/testset-v1.json": [panda(4, 1, 2, 0), panda(5, 2, 2, 2)],
        "panda/data/gpt-3.5-turbo-testset-v1.json": [{"other": "file"}],
        "panda/data/infobench_checklist_for_instructions.jsonl": [known],
    }
    put(tmp_path, files)
    import_benchmark("llmbar", tmp_path / "bar" / "Dataset", tmp_path / "llmbar", item="Is it prime?")
    import_benchmark("judgebench", tmp_path / "judge", tmp_path / "judgebench")
    import_benchmark("pandalm", tmp_path / "panda" / "data", tmp_path / "pandalm")
    scores: dict[str, Any] = {}
    for name, labeler in (("llmbar", "gold"), ("judgebench", "gold"), ("pandalm", "human")):
        b = load_benchmark(tmp_path / name)
        assert b.models == ["first", "second"]
        for session_id, label in b.labels[labeler]["first"].items():
            scores[session_id] = label.score, b.labels[labeler]["second"][session_id].score
    assert scores == {
        "LLMBar_Natural_0000": (1, 0),
        "LLMBar_Natural_0001": (0, 1),
        "p-1": (0, 1),
        "p-2": (0.5, 0.5),
        "pandalm_4": (0.5, 0.5),
        "pandalm_5": (0, 1),
    }
    assert load_benchmark(tmp_path / "llmbar").checklists["LLMBar_Natural_0000"].items == ("Is it prime?",)
    b = load_benchmark(tmp_path / "pandalm")
    assert b.checklists["pandalm_4"].items == ("Does it rhyme?", GENERIC_ITEM)
    assert b.queries["pandalm_4"].messages[0].content == "Rhyme.\n\ncat"
    assert b.responses["second"]["pandalm_4"].text == "dog"


def test_prometheus(tmp_path: Path) -> None:
    def dialogue(answer: str) -> str:
        intro = "Here is a previous dialogue between an assistant and an user. Generate a response."
        return f"{intro}\nUser: Draw.\n\nAssistant:{answer}\n\nUser: Again.\n\nAssistant: "

    rows = [
        prometheus_row(1, "Sing.", "La.", [5, 4, 4]),
        prometheus_row(1, "Sing.", "Do\n\nre.", [1, 1, 2]),
        prometheus_row(2, dialogue("A cat."), "Two.", [3, 3, 3], response_source="m1"),
        prometheus_row(2, dialogue("A dog."), "Three.", [], response_source="m2"),
        prometheus_row(2, "Another.", "Four.", [2, 2, 2], response_source="m1"),
    ]
    imported = import_benchmark("prometheus", put(tmp_path / "in", {"v_eval.json": rows}), tmp_path / "out")
    b = load_benchmark(tmp_path / "out")
    assert b.models == ["m1", "m2", "responder-1", "responder-2"]
    assert b.labels["gpt-4"]["responder-1"]["v_eval_1"].score == pytest.approx(13 / 3)
    assert b.responses["responder-2"]["v_eval_1"].text == "Do\n\nre."
    assert b.checklists["v_eval_1"].items == ("Does the response meet this criterion? Is it vivid?",)
    assert b.queries["v_eval_1"].references == {"prometheus": "The best."}
    assert [m.content for m in b.conversation("v_eval_2", "m2")] == ["Draw.", "A dog.", "Again."]
    assert b.queries["v_eval_2_2"].messages[0].content == "Another."
    assert imported.left_out == {"no_score": 1}


def test_wildbench(tmp_path: Path) -> None:
    prompt = (
        "# Conversation\n<|begin_of_history|>\n\nUSER: Hi.\n\nASSISTANT: Hello.\n\nHow are you?"
        "\n\n\n<|end_of_history|> \n"
        "## Query\n<|begin_of_query|>\n\nWho?\n\n<|end_of_query|>\n\n"
        "<|begin_of_response|>\n\nMe.\n\n<|end_of_response|>\n"
        "<|begin_of_checklist|>\n\n- Does it say who?\n- Is it short?\n\n<|end_of_checklist|>\nRules."
    )

    def row(session_id: str, score: Any, **more: Any) -> dict[str, Any]:
        return {"session_id": session_id, "model_output": "Me.", "score": score, "model_test": "org/m", **more}

    conversation = [{"role": "user", "content": "Why?", "timestamp": 1}]
    queries = [{"session_id": "s1", "conversation_input": conversation, "checklist": ["Does it say why?"]}]
    rows = [row("s1", "7"), row("s2", "N/A", prompt=prompt), row("s3", 3, conversation_input=conversation)]
    files = {"v2/score.v2/eval=gpt-4o/m.json": rows, "queries.jsonl": queries}
    imported = import_benchmark("wildbench", put(tmp_path / "in", files), tmp_path / "out")
    b = load_benchmark(tmp_path / "out")
    assert [(m.role, m.content) for m in b.queries["s2"].messages] == [
        ("user", "Hi."),
        ("assistant", "Hello.\n\nHow are you?"),
        ("user", "Who?"),
    ]
    assert b.checklists["s2"].items == ("Does it say who?", "Is it short?")
    assert (b.checklists["s1"].items, b.checklists["s3"].items) == (("Does it say why?",), (GENERIC_ITEM,))
    assert {s: label.score for s, label in b.labels["v2.gpt-4o"]["m"].items()} == {"s1": 7.0, "s3": 3.0}
    assert imported.left_out == {"no_score": 1}
    (tmp_path / "in" / "queries.jsonl").unlink()
    with pytest.raises(RocketError, match=r"lacks queries\.jsonl.*'s1': m\.json:2 does not say what was asked"):
        import_benchmark("wildbench", tmp_path / "in", tmp_path / "none")


# What is wrong with a source is said with its place.

NATURAL = "LLMBar_Natural.jsonl"
PANDA = "testset-v1.jsonl"
JUDGED = {"pair_id": "1", "question": "?", "response_A": "", "response_B": ""}
UNCLEAR = [{"whole_conv": [flow_turn("?", "!", ["Is it?"], "R", said("Maybe"))]}]


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        ("llmbar", {NATURAL: [bar(), bar("1")]}, r'Natural\.jsonl:2: field "label": expected int, got str; mend'),
        ("llmbar", {NATURAL: [bar(3)]}, r':1: field "label": is 3; it is 1 or 2'),
        ("llmbar", {NATURAL: [{"input": "?"}]}, r':1: field "output_1": is missing; mend'),
        ("llmbar", {NATURAL: [["a", "list"]]}, r":1: expected object, got list; one JSON object per line"),
        ("llmbar", {NATURAL: []}, r"Natural\.jsonl: has no rows"),
        ("llmbar", {"a.json": {"not": "a list"}}, r"a\.json:1: is no JSON list"),
        ("llmbar", {"a.json": [bar()], "a.json.gz": [bar()]}, r"holds both a\.json(\.gz)?, a\.json(\.gz)?; remove one"),
        ("llmbar", {"README.md": "nothing"}, r"in: lacks dataset\.json of each subset"),
        ("infobench", {"other.jsonl": [info(1)]}, r"in: lacks GPT4_DecomposeEval \(\.jsonl or \.json"),
        ("infobench", {"GPT4_DecomposeEval.jsonl": [info(1, eval=["x"])]}, r':1: field "eval\[0\]": expected'),
        ("infobench", {"GPT4_DecomposeEval.jsonl": [info(1, output=None)]}, r"nothing to import; left out: 1 no_resp"),
        ("judgebench", {"a.jsonl": [JUDGED | {"label": "A"}]},
         r'field "label": is \'A\'; it is A>B, B>A or A=B'),
        ("pandalm", {PANDA: [panda(1, 1, 2, 3)]}, r':1: field "annotator3": is 3; it is 1 or 2'),
        ("prometheus", {"v_eval.jsonl": [{"idx": 1, "instruction": "?", "gpt4_score": [1]}]},
         r'field "instruction": lacks a section; it has ###The instruction'),
        ("prometheus", {"v_eval.jsonl": [prometheus_row(1, "Sing.", "La.", [0])]}, r'"gpt4_score": \[0.0\] is not all'),
        ("structflowbench", {"m_evaluate.json": UNCLEAR},
         r'_evaluate\.json:2: field "whole_conv\[0\]\.judge result": \'Maybe\' is no answer'),
        ("realsumm", {"SCU_rating_results_abs_systems/a.csv": "Input.eventId\ne1\n"},
         r'a\.csv:1: field "Input\.summaryId": is missing'),
        ("mtbench", {"question.jsonl": [{"question_id": 1, "turns": ["?"]}]}, r"lacks model_answer/<model>"),
        ("alpacaeval", {"README.md": "nothing"}, r"in: lacks \S*/model_outputs"),
    ],
)  # fmt: skip
def test_a_bad_source_is_one_error_and_leaves_nothing(
    name: str, files: dict[str, Any], message: str, tmp_path: Path
) -> None:
    source = put(tmp_path / "in", files)
    with pytest.raises(RocketError, match=message) as caught:
        import_benchmark(name, source, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_cut_gzip_and_missing_path(tmp_path: Path) -> None:
    put(tmp_path / "in", {"a.jsonl.gz": [bar()] * 50})
    (tmp_path / "in" / "a.jsonl.gz").write_bytes((tmp_path / "in" / "a.jsonl.gz").read_bytes()[:40])
    with pytest.raises(RocketError, match="not a whole gzip file"):
        import_benchmark("llmbar", tmp_path / "in", tmp_path / "out")
    with pytest.raises(RocketError, match=r"missing: cannot be read \(no such file"):
        import_benchmark("llmbar", tmp_path / "missing", tmp_path / "out")


def test_names_and_items_that_do_not_apply(tmp_path: Path) -> None:
    with pytest.raises(RocketError, match="no importer for 'infobnch'; did you mean 'infobench'"):
        import_benchmark("infobnch", tmp_path, tmp_path / "out")
    with pytest.raises(RocketError, match="infobench: its checklists are its own"):
        import_benchmark("infobench", tmp_path, tmp_path / "out", item="Is it?")
    with pytest.raises(RocketError, match="is not one line of text"):
        import_benchmark("llmbar", tmp_path, tmp_path / "out", item=" ")


def test_out_is_replaced_only_when_asked_and_only_if_it_is_an_import(tmp_path: Path) -> None:
    source, out = put(tmp_path / "in", {NATURAL: [bar()]}), tmp_path / "out"
    import_benchmark("llmbar", source, out)
    before = load_benchmark(out).sha256
    with pytest.raises(RocketError, match="out: is there already; give another folder, or --overwrite"):
        import_benchmark("llmbar", source, out)
    put(source, {NATURAL: [bar("broken")]})
    with pytest.raises(RocketError, match="expected int"):
        import_benchmark("llmbar", source, out, overwrite=True)
    assert load_benchmark(out).sha256 == before, "a failed import leaves the one that is there"
    put(source, {NATURAL: [bar(), bar(2)]})
    assert import_benchmark("llmbar", source, out, overwrite=True).sessions == 2
    assert len(load_benchmark(out).queries) == 2
    for other in (source, source / NATURAL):
        with pytest.raises(RocketError, match=r"holds no import\.json, so it is not an import"):
            import_benchmark("llmbar", source, other, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_an_import_inside_its_source_is_not_read_again(tmp_path: Path) -> None:
    source = put(tmp_path / "in", {NATURAL: [bar()]})
    one = import_benchmark("llmbar", source, source / "bench")
    assert import_benchmark("llmbar", source, source / "bench", overwrite=True) == one


def test_same_rows_same_bytes_and_a_manifest_without_paths(tmp_path: Path) -> None:
    rows = [bar(), bar(2, input="Name a square.")]
    put(tmp_path / "a", {NATURAL: rows})
    put(tmp_path / "b", {NATURAL: rows})
    for name in "ab":
        import_benchmark("llmbar", tmp_path / name, tmp_path / f"out-{name}")
    files = {p.relative_to(tmp_path / "out-a"): p.read_bytes() for p in (tmp_path / "out-a").rglob("*") if p.is_file()}
    assert files and all((tmp_path / "out-b" / name).read_bytes() == content for name, content in files.items())
    manifest = json.loads(files[Path("import.json")])
    assert str(tmp_path) not in json.dumps(manifest)
    assert manifest["licence"] == "MIT" and manifest["counts"]["sessions"] == 2 and manifest["item"] == GENERIC_ITEM
    assert list(manifest["sources"]) == [NATURAL] and len(manifest["sources"][NATURAL]) == 64
    put(tmp_path / "c", {NATURAL + ".gz": rows})
    import_benchmark("llmbar", tmp_path / "c" / (NATURAL + ".gz"), tmp_path / "out-c")
    assert load_benchmark(tmp_path / "out-c").sha256 == load_benchmark(tmp_path / "out-a").sha256


def test_names_that_files_cannot_have(tmp_path: Path) -> None:
    rows = [prometheus_row(1, "Sing.", name, [3], response_source=name) for name in ("org/m", ".m")]
    import_benchmark("prometheus", put(tmp_path / "in", {"v_eval.json": rows}), tmp_path / "out")
    assert load_benchmark(tmp_path / "out").models == ["_.m", "org_m"]
    rows.append(prometheus_row(1, "Sing.", "third", [3], response_source="org_m"))
    with pytest.raises(RocketError, match="'org/m' and 'org_m', would both be the file 'org_m'"):
        import_benchmark("prometheus", put(tmp_path / "in", {"v_eval.json": rows}), tmp_path / "none")


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rocketjax", "import", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), *capsys.readouterr()

    put(tmp_path, {"info/GPT4_DecomposeEval.jsonl": [info(1), info(2, eval=None)], "bar/a.jsonl": [bar()]})
    code, out, err = run("infobench", tmp_path / "info", tmp_path / "one")
    assert (code, out) == (cli.DONE, "")
    assert "2 queries with 4 items, 2 responses of 1 responders, 0 scores; labels of items: 1 yes, 1 no" in err
    assert "left out: 1 no labels" in err
    code, out, err = run("llmbar", tmp_path / "bar", tmp_path / "two", "--item", "Is it prime?", "--json")
    assert code == cli.DONE and json.loads(out)["sessions"] == 1
    code, out, err = run("llmbar", tmp_path / "bar", tmp_path / "two")
    assert code == cli.FAILED and err.startswith("error: ") and len(err.strip().splitlines()) == 1
    assert run("llmbar", tmp_path / "bar", tmp_path / "two", "--overwrite")[0] == cli.DONE
    _, out, _ = run("--help")
    assert all(name in out for name in IMPORTERS)


# The shared copies, counted here without the importers.


def lines(folder: Path) -> list[dict[str, Any]]:
    files = sorted(folder.rglob("*.jsonl.gz"))
    return [json.loads(line) for file in files for line in gzip.decompress(file.read_bytes()).splitlines()]


@pytest.mark.parametrize("name", ["llmbar", "judgebench", "pandalm"])
def test_shared_pairs(name: str, shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "dev" / "pairs" / name
    rows = [row for row in lines(folder) if "infobench_id" not in row]
    imported = import_benchmark(name, folder, tmp_path / "out")
    b = load_benchmark(tmp_path / "out")
    assert imported.sessions == len(rows) and imported.scores == imported.responses == 2 * len(rows)
    assert not b.exclusions and not imported.left_out
    wins = sum(label.score or 0 for label in b.labels["human" if name == "pandalm" else "gold"]["first"].values())
    if name == "pandalm":
        votes = [row[f"annotator{i}"] for row in rows for i in (1, 2, 3)]
        assert wins == pytest.approx((votes.count(1) + votes.count(0) / 2) / 3)
    else:
        assert wins == sum(row["label"] in (1, "A>B") for row in rows)


def test_shared_infobench(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "dev" / "infobench"
    rows = lines(folder)
    imported = import_benchmark("infobench", folder, tmp_path / "out")
    given = [met for row in rows for met in row["eval"]]
    assert (imported.sessions, imported.yes, imported.no) == (len(rows), given.count(True), given.count(False))
    assert not load_benchmark(tmp_path / "out").exclusions and not imported.left_out


def test_shared_realsumm(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "dev" / "realsumm"
    rows = lines(folder / "annotations")
    imported = import_benchmark("realsumm", folder, tmp_path / "out")
    assert imported.responses == imported.scores == len(rows)
    assert imported.yes + imported.no + imported.undecided == sum(len(row["statements"]) for row in rows)
    b = load_benchmark(tmp_path / "out")
    for row in rows[::50]:
        share = sum(row["present_votes"]) / row["n_votes"] / len(row["statements"])
        assert b.labels["crowd"][row["system"]][row["eventId"]].score == pytest.approx(share)


def test_shared_prometheus(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "dev" / "prometheus_rubric"
    rows = lines(folder)
    imported = import_benchmark("prometheus", folder, tmp_path / "out")
    assert imported.responses == imported.scores == len(rows) and not imported.left_out
    assert imported.sessions == len({(row["idx"], row["category"]) for row in rows})
    b = load_benchmark(tmp_path / "out")
    mean = sum(label.score or 0 for by in b.labels["gpt-4"].values() for label in by.values())
    assert mean == pytest.approx(sum(sum(row["gpt4_score"]) / 3 for row in rows))


def test_shared_wildbench_sample_names_the_file_that_lacks(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "dev" / "wildbench_scores" / "native_sample"
    with pytest.raises(RocketError, match=r"lacks queries\.jsonl, the rows of the data set allenai/WildBench"):
        import_benchmark("wildbench", folder, tmp_path / "none")
    rows = {p.name: json.loads(gzip.decompress(p.read_bytes())) for p in folder.glob("*.json.gz")}
    asked = {row["session_id"] for given in rows.values() for row in given}
    turns = [{"role": "user", "content": "?"}]
    files = {name: given for name, given in rows.items()}
    files["queries.jsonl"] = [{"session_id": s, "conversation_input": turns} for s in sorted(asked)]
    imported = import_benchmark("wildbench", put(tmp_path / "in", files), tmp_path / "out")
    assert imported.scores == imported.responses == sum(map(len, rows.values()))
