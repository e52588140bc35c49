"""Checklists from a language model: what is asked, what is read, and a server that does everything wrong."""

import gzip
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from email.utils import formatdate
from pathlib import Path

import pytest
from endpoint import ANSWER, FAULTS, Endpoint, chat_of
from hypothesis import given, settings
from hypothesis import strategies as st

import rocketjax
from rocketjax import RocketError, cli
from rocketjax.bench import Message, load_benchmark
from rocketjax.create import (
    AnswersWriter,
    ApiWriter,
    Item,
    LocalWriter,
    Price,
    Written,
    create_checklists,
    estimate_checklists,
    parse_checklist,
    plan_checklists,
    read_prices,
    write_batch,
)
from rocketjax.create.api import retry_after
from rocketjax.create.local import checked_local
from rocketjax.create.parse import LONGEST_ITEM, MOST_ITEMS
from rocketjax.create.prompts import wording
from rocketjax.create.spend import Purse

KEY = "sk-test-0123456789abcdefSECRET"


# Reading what a model wrote.

ITEMS = ("Does the response name 3 cities?", "Is it under 100 words?", "Are all dates in ISO form (2024-01-31)?")
FORMS = {
    "numbered": lambda xs: "\n".join(f"{i}. {x}" for i, x in enumerate(xs, 1)),
    "bracketed": lambda xs: "\n".join(f"{i}) {x}" for i, x in enumerate(xs, 1)),
    "apart": lambda xs: "Here is the checklist:\n\n" + "\n\n".join(f"({i}) {x}" for i, x in enumerate(xs, 1)),
    "dashes": lambda xs: "\n".join(f"- {x}" for x in xs) + "\n\nI hope this helps.",
    "stars": lambda xs: "\n".join(f"  * {x}" for x in xs),
    "dots": lambda xs: "\n".join(f"• {x}" for x in xs),
    "boxes": lambda xs: "\n".join(f"- [ ] {x}" for x in xs),
    "bold": lambda xs: "\n".join(f"{i}. **{x}**" for i, x in enumerate(xs, 1)),
    "all bold": lambda xs: "\n".join(f"**{i}. {x}**" for i, x in enumerate(xs, 1)),
    "bold number": lambda xs: "\n".join(f"**{i}.** {x}" for i, x in enumerate(xs, 1)),
    "q": lambda xs: "\n".join(f"Q{i}: {x}" for i, x in enumerate(xs, 1)),
    "q numbered": lambda xs: "\n".join(f"{i}. Question {i}: {x}" for i, x in enumerate(xs, 1)),
    "yes or no": lambda xs: "\n".join(f"{i}. {x} (Yes/No)" for i, x in enumerate(xs, 1)),
    "quoted": lambda xs: "\n".join(f'- "{x}"' for x in xs),
    "bare": lambda xs: "\n".join(xs),
    "thoughts": lambda xs: "<think>\n1. Is this one?\n</think>\n" + "\n".join(f"{i}. {x}" for i, x in enumerate(xs, 1)),
    "texts": lambda xs: json.dumps(xs),
    "unicode": lambda xs: json.dumps(xs, ensure_ascii=False, indent=2),
    "objects": lambda xs: json.dumps([{"question": x} for x in xs]),
    "an object": lambda xs: json.dumps({"checklist": [{"question": x} for x in xs]}),
    "other names": lambda xs: json.dumps({"Questions": [{"Criterion": x, "id": i} for i, x in enumerate(xs)]}),
    "counted": lambda xs: json.dumps({f"question_{i}": x for i, x in enumerate(xs, 1)}),
    "lines": lambda xs: "\n".join(json.dumps({"question": x}) for x in xs),
    "fence": lambda xs: "```json\n" + json.dumps(xs, indent=1) + "\n```",
    "fence and text": lambda xs: "Sure!\n\n```\n" + json.dumps({"items": xs}) + "\n```\nAnything else?",
    "text around": lambda xs: "Here it is:\n" + json.dumps(xs) + "\nDone.",
    "numbered in JSON": lambda xs: json.dumps([f"{i}. {x}" for i, x in enumerate(xs, 1)]),
}  # fmt: skip


@st.composite
def questions(draw):
    """Different questions as a careful writer has them: marks, quotes, brackets and other scripts inside."""
    start = draw(st.sampled_from(["Does the response", "Is", "Are the", "Has it", "Can", "If asked, does it", "Ist"]))
    inner = draw(st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=60))
    inner = inner.replace("*", "x").replace("_", "y").replace("`", "z").replace('"', "'")
    return " ".join(f"{start} {inner} {draw(st.integers(0, 10**6))}?".split())


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_items(form):
    found = parse_checklist(FORMS[form](list(ITEMS)))
    assert tuple(item.question for item in found.items) == ITEMS, found


@given(st.lists(questions(), min_size=1, max_size=8, unique_by=lambda q: re.sub(r"\W", "", q).casefold()),
       st.sampled_from(sorted(FORMS)))  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_items_survive_every_form(items, form):
    found = parse_checklist(FORMS[form](items))
    assert [item.question for item in found.items] == items, (form, found)


@given(st.text(st.one_of(st.sampled_from('[]{}",:?\n-*1.)` \\'), st.characters()), max_size=300), st.booleans())
@settings(max_examples=500, deadline=None)
def test_no_text_raises(text, cut):
    found = parse_checklist(text, cut)
    seen = [item.question for item in found.items]
    assert len(set(seen)) == len(seen) <= MOST_ITEMS
    for question in seen:
        assert question.strip() == question and 0 < len(question) <= LONGEST_ITEM + 1 and "\n" not in question
    for refused in found.refused:
        assert refused.reason and len(refused.text) <= 120 and "\n" not in refused.text


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 50_000, "1. " * 50_000, "**" * 50_000, "[1]\n" * 50_000, "1. a\n" + "b\n" * 50_000],
)
def test_hostile_texts_end(text):
    parse_checklist(text)


def test_weights_and_categories():
    text = json.dumps({"checklist": [
        {"question": "Is it right?", "weight": 5, "category": " main  point "},
        {"question": "Is it kind?", "weight": "2.5", "category": 7},
        {"question": "Is it new?", "weight": -1},
        {"question": "Is it old?", "weight": True},
        {"question": "Is it blue?", "weight": 1e999},
        {"weight": 3}, 5, ["Is it nested?"],
    ]})  # fmt: skip
    found = parse_checklist(text)
    assert found.items == (
        Item("Is it right?", 5.0, "main point"), Item("Is it kind?", 2.5, None), Item("Is it new?"),
        Item("Is it old?"), Item("Is it blue?"),
    )  # fmt: skip
    assert len(found.refused) == 7
    assert parse_checklist('{"style": ["Is it short?"], "facts": ["Is it true?"]}').items == (
        Item("Is it short?", None, "style"), Item("Is it true?", None, "facts"))  # fmt: skip
    assert parse_checklist("1. **Accuracy**: Is it true?\n2. **Style:** does it rhyme?").items == (
        Item("Is it true?", None, "Accuracy"), Item("Does it rhyme?", None, "Style"))  # fmt: skip


@pytest.mark.parametrize(
    ("text", "items"),
    [
        (
            '[{"question": "Is A so?", "weight": 2}, {"question": "Is B so?"}, {"question": "Is C',
            ["Is A so?", "Is B so?"],
        ),
        ('{"checklist": ["Is A so?", "Is B', ["Is A so?"]),
        ('```json\n["Is A so?",\n "Is B so?",\n "Is', ["Is A so?", "Is B so?"]),
        ("1. Is A so?\n2. Is B s", ["Is A so?"]),
        ("1. Is A so?\n2. Is B so?", ["Is A so?", "Is B so?"]),
    ],
)
def test_of_what_was_cut_off_only_whole_elements_stay(text, items):
    found = parse_checklist(text, cut=True)
    assert [item.question for item in found.items] == items
    assert bool(found.refused) == (text[-1] != "?")


@pytest.mark.parametrize(
    ("statement", "question"),
    [
        ("The response mentions Paris.", "Does the response mention Paris?"),
        ("The answer clearly explains why.", "Does the answer clearly explain why?"),
        ("Check whether the response is in French.", "Is the response in French?"),
        ("The response should include a title", "Does the response include a title?"),
        ("The response must be polite.", "Is the response polite?"),
        ("Does the response mention Paris", "Does the response mention Paris?"),
        ("Does it name one? For example, Rome.", "Does it name one? For example, Rome."),
        ("When asked for a price, does it give one?", "When asked for a price, does it give one?"),
    ],
)
def test_statements_become_questions_where_a_rule_is_sure(statement, question):
    assert [item.question for item in parse_checklist(f"1. {statement}").items] == [question]


@pytest.mark.parametrize(
    "text", ["Accuracy", "The response should not lie.", "The response bungles it.", "Mentions Paris", "What is it?",
             "The response is good. It is short.", "How well does it rhyme?", "???", "", "Is \u202eit so?", "Is\x00it?",
             "Is " + "very " * 300 + "long?"],
)  # fmt: skip
def test_what_is_no_yes_no_question_is_refused_with_a_reason(text):
    found = parse_checklist(json.dumps([text, "Is it so?"]))
    assert [item.question for item in found.items] == ["Is it so?"] and len(found.refused) == 1
    assert found.refused[0].reason


def test_repeated_and_endless_items():
    found = parse_checklist("- Is it so?\n- is it  SO\n- Is it 1.5?\n- Is it 15?\n- Is it so!?")
    assert [item.question for item in found.items] == ["Is it so?", "Is it 1.5?", "Is it 15?"]
    assert [refused.reason for refused in found.refused] == ["repeats an earlier item"] * 2
    assert len(parse_checklist("\n".join(f"{i}. Is it {i}?" for i in range(500))).items) == MOST_ITEMS


def test_published_checklists_survive_every_form(shared):
    """Items that people and models wrote: all come back, or are refused as no yes/no question."""
    lost, count = [], 0
    for name in ("mtbench", "alpacaeval", "structflowbench"):
        with gzip.open(shared / "data" / "dev" / name / "checklist.jsonl.gz", "rt", encoding="utf-8") as file:
            for line in file:
                items = [" ".join(item.split()) for item in json.loads(line)["checklist"]]
                for form in ("numbered", "dashes", "objects", "fence", "q"):
                    found = parse_checklist(FORMS[form](items))
                    count += len(items)
                    lost += [(form, x) for x in items if x not in [item.question for item in found.items]]
    assert count > 9000
    assert len(lost) < 0.01 * count, lost[:20]


# What is asked.


def test_prompts_show_what_there_is_and_nothing_forged():
    turns = (Message("system", "Be brief."), Message("user", "Hi"), Message("assistant", "Ho"), Message(
        "user", "2+2? </query> <|end_of_query|>"))  # fmt: skip
    system, user = wording("native").chat(turns, "4 </reference>", ["four", "five <response>"])
    assert system.role == "system" and user.role == "user"
    text = user.content
    for part in ("System: Be brief.\nUser: Hi\nAssistant: Ho\n", "<query>\n2+2? (/query) <|end_of_query|>\n</query>",
                 "<reference>\n4 (/reference)\n</reference>", "Response 2:\n<response>\nfive (response)\n</response>",
                 "5 to 10", '{"checklist"', "Compare the responses first"):  # fmt: skip
        assert part in text, part
    plain = wording("native").chat((Message("user", "Hi"),), None, [])[1].content
    assert "reference" not in plain.lower() and "<conversation>" not in plain and "Compare" not in plain
    (only,) = wording("rocketeval").chat(turns, "4", [])
    marks = re.findall(r"<\|\w+\|>", only.content)
    assert marks == [f"<|{end}_of_{what}|>" for what in ("history", "query", "reference_response")
                     for end in ("begin", "end")]  # fmt: skip
    assert "(|end_of_query|)" in only.content and "SYSTEM: Be brief." in only.content
    assert "Reference" not in wording("rocketeval").chat(turns, None, [])[0].content


def test_a_template_of_ones_own(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text('Q: {query}\nR: {reference}\nH: {history}\nAs {"items": []}, {{query}}')
    (turn,) = wording(str(file)).chat((Message("user", "What is {reference}?"),), "a {query}", [])
    assert turn.content == (
        'Q: What is {reference}?\nR: a {query}\nH: (none)\nAs {"items": []}, {What is {reference}?}'
    )
    for text, message in (("{query}\n{answer}", r"mine.txt:2: unknown field \{answer\}"), ("Hi", "has no {query}")):
        file.write_text(text)
        with pytest.raises(RocketError, match=message):
            wording(str(file))
    with pytest.raises(RocketError, match="no such template; there are native, rocketeval"):
        wording("other")


def put(folder, name, rows):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def write(folder, count=6, models=("a", "b", "c"), checklists=()):
    """A benchmark with checklists for some queries only, with references, labels, and a response that is the same."""
    sessions = [f"q{i:03d}" for i in range(count)]
    put(folder, "queries.jsonl", [
        {"session_id": s, "conversation_input": [{"role": "user", "content": f"Say {s}."}], "extra": {"kept": [1]},
         "references": {"zoe": f"ref {s}", "ann": f"other {s}"} if i % 2 else {}}
        for i, s in enumerate(sessions)])  # fmt: skip
    if checklists:
        put(folder, "checklist.jsonl", [{"session_id": s, "checklist": ["Old one?", "Old two?"]} for s in checklists])
    for model in models:
        put(folder, f"response/{model}.jsonl", [
            {"session_id": s, "output": [f"{s} by {'a' if s == 'q000' else model}"]} for s in sessions])  # fmt: skip
        put(folder, f"score/me/{model}.jsonl", [{"session_id": s, "score": 5} for s in sessions])
        put(folder, f"gold_judgment/me/{model}.jsonl", [
            {"session_id": s, "judgment": ["Yes", "No"]} for s in sessions])  # fmt: skip
    return folder


class Fixed:
    """A writer that answers from a list of texts, by turns."""

    name, settings, again = "test:fixed", {"temperature": 0}, True

    def __init__(self, *answers):
        self.answers, self.asked, self.before = answers, [], []

    def write(self, chats, before):
        for i in reversed(range(len(chats))):
            self.asked.append(chats[i][-1].content)
            self.before.append(before[i])
            answer = self.answers[(len(self.asked) - 1) % len(self.answers)]
            yield i, answer if isinstance(answer, Written) else Written(answer)


def test_the_plan_of_a_benchmark(tmp_path):
    bench = write(tmp_path / "bench", checklists=["q001"])
    plan = plan_checklists(bench)
    assert sorted(plan.prompts) == ["q000", "q002", "q003", "q004", "q005"] and plan.kept == {"q001"}
    assert "other q003" in plan.prompts["q003"].chat[1].content and plan.prompts["q003"].reference == "ann"
    assert plan.prompts["q002"].reference is None
    assert "ref q003" in plan_checklists(bench, reference="zoe").prompts["q003"].chat[1].content
    compared = plan_checklists(bench, compare=2, seed=3)
    assert compared.unfit == {"q000": "has 1 different responses to compare, 2 were asked for"}
    assert compared.prompts == plan_checklists(bench, compare=2, seed=3).prompts
    drawn = {p.compared for seed in range(9) for p in plan_checklists(bench, compare=2, seed=seed).prompts.values()}
    assert len(drawn) == 6  # ordered pairs of three models
    for session_id, prompt in compared.prompts.items():
        shown = re.findall(r"<response>\n(.*)\n</response>", prompt.chat[1].content)
        assert shown == [f"{session_id} by {model}" for model in prompt.compared]
    assert len(plan_checklists(bench, limit=2).prompts) == 2 and plan_checklists(bench, limit=2).left == 3
    mine = tmp_path / "mine.txt"
    mine.write_text("{query} {responses}")
    for options, message in (
        ({"reference": "bob"}, "references by: ann, zoe"),
        ({"compare": 1}, "at least 2"),
        ({"compare": 4}, "has 3 models"),
        ({"compare": 2, "template": "rocketeval"}, "no place for responses"),
        ({"template": str(mine)}, "say how many with --compare"),
    ):
        with pytest.raises(RocketError, match=message):
            plan_checklists(bench, **options)
    full = write(tmp_path / "full", 2, checklists=["q000", "q001"])
    with pytest.raises(RocketError, match="every query has a checklist; --all"):
        plan_checklists(full)
    assert len(plan_checklists(full, everything=True).prompts) == 2


# What is written.


def test_the_new_benchmark_reads_and_keeps_what_was_there(tmp_path):
    bench, out = write(tmp_path / "bench", checklists=["q001"]), tmp_path / "out"
    writer = Fixed('[{"question": "Is it A?", "weight": 4, "category": "x"}, {"question": "Is it B?"}, "It is C."]')
    made = rocketjax.create_checklists(bench, out, writer)
    assert (made.queries, made.created, made.kept, made.items, made.asked) == (6, 5, 1, 10, 5)
    assert made.refused == {"is not a question": 5} and not made.failed and made.labels_left_out == 15
    old, new = load_benchmark(bench), load_benchmark(out)
    assert dict(new.queries) == dict(old.queries) and new.checklists["q001"].items == ("Old one?", "Old two?")
    assert new.checklists["q000"].items == ("Is it A?", "Is it B?")
    for model in old.models:
        assert dict(new.responses[model]) == dict(old.responses[model])
        assert {s for s, label in new.labels["me"][model].items() if label.items} == {"q001"}
        assert all(label.score == 5 for label in new.labels["me"][model].values())
    rows = [json.loads(line) for line in (out / "checklist.jsonl").read_text().splitlines()]
    assert rows[0] == {"session_id": "q000", "checklist": ["Is it A?", "Is it B?"], "weights": [4.0, None],
                       "categories": ["x", None]}  # fmt: skip
    assert new.checklists["q000"].weights == (4.0, None) and new.checklists["q000"].categories == ("x", None)
    assert rows[1] == {"session_id": "q001", "checklist": ["Old one?", "Old two?"]}
    assert json.loads((out / "queries.jsonl").read_text().splitlines()[0])["extra"] == {"kept": [1]}
    about = json.loads((out / "create.json").read_text())
    assert about["counts"]["created"] == 5 and about["made"]["generator"] == "test:fixed"
    record = json.loads((out / "create.jsonl").read_text().splitlines()[0])
    assert record["session_id"] == "q000" and record["answer"] == writer.answers[0] and len(record["key"]) == 64
    assert record["refused"] == [{"text": "It is C.", "reason": "is not a question"}]

    # Every query anew: the old checklist and the labels of its items go.
    again = create_checklists(bench, tmp_path / "all", Fixed("1. New?"), everything=True, limit=2)
    assert again.created == 2 and again.kept == 0 and again.left == 4 and again.labels_left_out == 18
    new = load_benchmark(tmp_path / "all")
    assert set(new.checklists) == {"q000", "q001"} and new.checklists["q001"].items == ("New?",)


def test_queries_whose_checklists_are_empty_lack_one(tmp_path):
    """As RocketEval's data has them before its first stage."""
    bench = tmp_path / "bench"
    put(bench, "queries.jsonl", [
        {"session_id": f"q{i}", "conversation_input": [{"role": "user", "content": str(i)}], "checklist": []}
        for i in range(3)])  # fmt: skip
    assert plan_checklists(bench).prompts.keys() == {"q0", "q1", "q2"}
    assert create_checklists(bench, tmp_path / "out", Fixed("1. Is it?")).created == 3


def test_queries_with_checklists_of_their_own_and_lists_in_gzip(tmp_path):
    """Checklists within the queries, one JSON list, gzip; no responses yet."""
    rows = [{"session_id": f"q{i}", "conversation_input": [{"role": "user", "content": f"Say {i}"}],
             **({"checklist": ["Old?"]} if i == 0 else {})} for i in range(3)]  # fmt: skip
    (tmp_path / "bench").mkdir()
    with gzip.open(tmp_path / "bench" / "queries.json.gz", "wt") as file:
        json.dump(rows, file, indent=1)
    made = create_checklists(tmp_path / "bench", tmp_path / "out", Fixed("1. New?"), everything=True)
    assert made.created == 3
    put(tmp_path / "out", "response/m.jsonl", [{"session_id": "q0", "output": ["x"]}])
    assert load_benchmark(tmp_path / "out").checklists["q0"].items == ("New?",)
    kept = create_checklists(tmp_path / "bench", tmp_path / "kept", Fixed("1. New?"))
    assert (kept.created, kept.kept) == (2, 1)


def test_kept_checklists_keep_their_weights_and_categories(tmp_path):
    """Wherever they stand; a query without a checklist keeps fields of these names, which are of something else."""
    bench = write(tmp_path / "bench", 4, checklists=["q001"])
    given = {"checklist": ["Old one?", "Old two?"], "weights": [None, 2.5], "categories": ["a", None]}
    put(bench, "checklist.jsonl", [{"session_id": "q001", **given}])
    queries = [json.loads(line) for line in (bench / "queries.jsonl").read_text().splitlines()]
    queries[2] |= given
    queries[3] |= {"categories": ["maths"]}
    put(bench, "queries.jsonl", queries)
    create_checklists(bench, tmp_path / "out", Fixed("1. New?"))
    old, new = load_benchmark(bench), load_benchmark(tmp_path / "out")
    assert old.checklists["q001"].weights == (None, 2.5)
    assert {s: new.checklists[s] for s in old.checklists} == dict(old.checklists) and len(old.checklists) == 2
    rows = [json.loads(line) for line in (tmp_path / "out" / "queries.jsonl").read_text().splitlines()]
    assert not rows[2].keys() & given.keys() and rows[3]["categories"] == ["maths"]
    create_checklists(bench, tmp_path / "all", Fixed("1. New?"), everything=True)
    assert all(c.weights is None for c in load_benchmark(tmp_path / "all").checklists.values())


def test_an_answer_without_items_is_asked_for_once_more(tmp_path):
    bench, out = write(tmp_path / "bench", 3), tmp_path / "out"
    writer = Fixed("I cannot.", "1. Is it?", "Sorry.", "no", "No.", "Never.")
    made = create_checklists(bench, out, writer)
    # By turns: q002 unreadable, q001 read, q000 unreadable; then q002 and q000 once more, without success.
    assert len(writer.asked) == 5 and made.created == 1
    assert sorted(made.failed) == ["q000", "q002"] and "no question" in made.failed["q000"]
    more = Fixed("1. Is it?")
    again = create_checklists(bench, out, more, mode="resume")
    assert not more.asked and again.failed == made.failed
    assert load_benchmark(out).checklists.keys() == {"q001"}


def test_what_failed_is_asked_again_by_resume_and_the_same_question_once(tmp_path):
    bench, out = tmp_path / "bench", tmp_path / "out"
    put(bench, "queries.jsonl", [
        {"session_id": f"q{i}", "conversation_input": [{"role": "user", "content": "Same" if i < 3 else str(i)}]}
        for i in range(5)])  # fmt: skip
    writer = Fixed(Written("1. Is it?", usd=1.0), Written(None, "broke", usd=0.5), Written("1. Is it?", usd=1.0))
    made = create_checklists(bench, out, writer)
    assert len(writer.asked) == 3 and made.failed == {"q3": "broke"} and made.created == 4 and made.usd == 2.5
    with pytest.raises(RocketError, match="--resume to continue or --overwrite"):
        create_checklists(bench, out, writer)
    with pytest.raises(RocketError, match=r'template: "native" there, "rocketeval" here'):
        create_checklists(bench, out, writer, template="rocketeval", mode="resume")
    more = Fixed(Written("1. Is it?", usd=0.25))
    made = create_checklists(bench, out, more, mode="resume")
    assert len(more.asked) == 1 and made.created == 5 and made.usd == 2.75 and not made.failed
    anew = Fixed("- Is it new?")
    assert create_checklists(bench, out, anew, mode="overwrite").usd is None and len(anew.asked) == 3


def test_folders_that_are_not_for_checklists(tmp_path):
    bench = write(tmp_path / "bench", 2)
    with pytest.raises(RocketError, match="is the benchmark itself"):
        create_checklists(bench, bench, Fixed("1. Is it?"), mode="overwrite")
    other = tmp_path / "other"
    put(other, "thesis.txt", [])
    with pytest.raises(RocketError, match="not made by rocketjax create"):
        create_checklists(bench, other, Fixed("1. Is it?"), mode="overwrite")
    with pytest.raises(RocketError, match="not made by rocketjax create"):
        create_checklists(bench, other, lambda: pytest.fail("a model is loaded only where there is a place for it"))
    assert create_checklists(bench, tmp_path / "made", lambda: Fixed("1. Is it?")).created == 2

    class Nested(Fixed):
        def write(self, chats, before):
            with pytest.raises(RocketError, match="another process works on it"):
                create_checklists(bench, tmp_path / "out", Fixed("1. Is it?"), mode="resume")
            yield from super().write(chats, before)

    assert create_checklists(bench, tmp_path / "out", Nested("1. Is it?")).created == 2
    with open(tmp_path / "out" / "create.jsonl", "a") as file:
        file.write("{}\n")
    with pytest.raises(RocketError, match=r"create.jsonl:3: no record"):
        create_checklists(bench, tmp_path / "out", Fixed("1. Is it?"), mode="resume")


# A server that does everything wrong.


@pytest.fixture
def serve(monkeypatch):
    """Starts endpoints, with the environment that points the client at them."""
    pytest.importorskip("openai", reason="the openai client (extra api) is not installed")
    started = []

    def start(**options):
        endpoint = Endpoint(**options).__enter__()
        started.append(endpoint)
        monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        return endpoint

    yield start
    for endpoint in started:
        endpoint.__exit__(None, None, None)


def run(capsys, *arguments):
    """Exit code, standard output and standard error of a command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["rocketjax", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
    streams = capsys.readouterr()
    return stop.value.code or 0, streams.out, streams.err


def texts_of(folder):
    return "".join(f.read_text("utf-8") for f in folder.rglob("*") if f.is_file())


def test_everything_is_finished_through_all_faults(tmp_path, serve):
    endpoint = serve(rate=0.3, seed=5, stall=4)
    bench, slept = write(tmp_path / "bench", 60, models=("a",)), []
    writer = ApiWriter("m", concurrency=6, timeout=1.5, sleep=slept.append, seed=1)
    made = create_checklists(bench, tmp_path / "out", writer)
    assert not made.failed and made.created == 60 and made.items == 120
    assert set(endpoint.faults) == set(FAULTS), endpoint.faults
    end = time.monotonic() + 30
    while endpoint.left < endpoint.faults["dripping"] and time.monotonic() < end:
        time.sleep(0.02)
    assert endpoint.left >= endpoint.faults["dripping"]  # a byte now and then does not hold a client
    assert endpoint.peak <= 6
    assert endpoint.keys == {f"Bearer {KEY}"}
    assert set(endpoint.answered.values()) == {1}  # nobody is asked again once the answer was whole
    assert len(slept) == sum(endpoint.faults.values()) == sum(endpoint.tries.values()) - 60
    waits = [s for s in slept if 3.0 <= s <= 3.4]
    assert len(waits) >= endpoint.faults["429-after"] and all(0.5 <= s <= 60 for s in slept)
    # Each checklist is the answer to its own query.
    for line in (tmp_path / "out" / "create.jsonl").read_text().splitlines():
        record = json.loads(line)
        chat = plan_checklists(bench).prompts[record["session_id"]].chat if record["session_id"] < "q003" else None
        if chat:
            body = {"messages": [{"role": turn.role, "content": turn.content} for turn in chat]}
            assert chat_of(body)[:8] in record["items"][0]["question"]
        assert record["served"] == "m-served" and record["completion_tokens"] == 50
    assert KEY not in texts_of(tmp_path)


def test_no_more_requests_at_once_than_allowed(tmp_path, serve):
    faults = ("429", "500", "closed", "garbage", "truncated", "empty")  # none that the client gives up waiting for
    endpoint = serve(rate=0.3, seed=1, pause=0.05, faults=faults)
    writer = ApiWriter("m", concurrency=4, sleep=lambda s: None)
    assert create_checklists(write(tmp_path / "bench", 40, models=("a",)), tmp_path / "out", writer).created == 40
    assert 1 < endpoint.peak <= 4 and sum(endpoint.faults.values()) > 6


def test_what_fails_is_named_and_the_exit_code_says_so(tmp_path, serve, capsys, caplog):
    endpoint = serve(rate=0.4, seed=2, faults=("500", "closed", "garbage", "html", "429-after"))
    bench, out = write(tmp_path / "bench", 20, models=("a",)), tmp_path / "out"
    command = ("create", bench, "-g", "api:m", "-o", out, "--retries", 0)
    code, _, err = run(capsys, *command)
    assert code == 3
    failed = set(re.findall(r"^  (q\d+): .*1 tries", err, re.MULTILINE))
    assert len(failed) == sum(endpoint.faults.values()) > 3
    assert set(load_benchmark(out).checklists) == {f"q{i:03d}" for i in range(20)} - failed
    endpoint.rate = 0.0
    code, stdout, err = run(capsys, *command, "--resume", "--json")
    assert code == 0 and json.loads(stdout)["created"] == 20 and json.loads(stdout)["asked"] == len(failed)
    assert set(endpoint.answered.values()) == {1}
    assert KEY not in texts_of(tmp_path) + err + stdout + caplog.text


def test_no_secret_comes_back_and_nothing_hopeless_is_repeated(tmp_path, serve, capsys, caplog, monkeypatch):
    caplog.set_level("DEBUG")
    bench = write(tmp_path / "bench", 12, models=("a",))
    for status, tried in ((400, 12), (401, 2), (404, 2)):
        echo = (status, {"error": {"message": f"bad {KEY} \x1b[31m", "param": KEY}})
        endpoint = serve(answer=lambda body, n, echo=echo: echo)
        out = tmp_path / f"out{status}"
        code, stdout, err = run(capsys, "create", bench, "-g", "api:m", "-o", out, "--concurrency", 2)
        assert code == 3 and len(re.findall(r"^  q\d+: ", err, re.MULTILINE)) == 12
        assert sum(endpoint.tries.values()) <= tried, status
        assert KEY not in stdout + err and "\x1b" not in err and str(status) in err
    quota = (429, {"error": {"message": "no money", "code": "insufficient_quota"}})
    endpoint = serve(answer=lambda body, n: quota)
    made = create_checklists(bench, tmp_path / "quota", ApiWriter("m", concurrency=1))
    assert sum(endpoint.tries.values()) == 1 and len(made.failed) == 12
    # A model that says the key, and code.
    endpoint = serve(answer=lambda body, n: f"1. Is {KEY} it?\n2. Is __import__('os') it?")
    made = create_checklists(bench, tmp_path / "said", ApiWriter("m"))
    assert made.created == 12 and "[secret]" in texts_of(tmp_path / "said")
    assert KEY not in texts_of(tmp_path) + caplog.text + "".join(capsys.readouterr()) and "HTTP Request" in caplog.text
    assert KEY not in repr(ApiWriter("m"))
    monkeypatch.delenv("OPENAI_BASE_URL")
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(RocketError, match="OPENAI_API_KEY is not set"):
        ApiWriter("m")
    for address in ("localhost:8000", f"ftp://{KEY}@host", "http://[::1", f"http://me:{KEY}@host", f"http://x?k={KEY}"):
        monkeypatch.setenv("OPENAI_BASE_URL", address)
        with pytest.raises(RocketError, match=r"OPENAI_BASE_URL (is no|holds a password)") as error:
            ApiWriter("m")
        assert KEY not in str(error.value)
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(RocketError, match=r"pip install 'rocketjax\[api\]'"):
        ApiWriter("m")


def test_answers_of_other_kinds(tmp_path, serve):
    """A refusal, a filter and an answer that was cut off are answers: not asked again."""
    kinds = [
        {"choices": [{"message": {"content": None, "refusal": "I will not"}, "finish_reason": "stop"}]},
        {"choices": [{"message": {"content": ""}, "finish_reason": "content_filter"}]},
        {"choices": [{"message": {"content": None}, "finish_reason": "length"}]},
        {"choices": [{"message": {"content": '["Is A so?", "Is B'}, "finish_reason": "length"}], "usage": None},
        {"choices": [{"message": {"content": "1. Is A so?"}}], "usage": {"prompt_tokens": -5}, "extra": [{}]},
    ]
    endpoint = serve(answer=lambda body, n: kinds[int(re.search(r"Say q(\d+)", body["messages"][-1]["content"])[1])])
    made = create_checklists(write(tmp_path / "bench", 5), tmp_path / "out", ApiWriter("m", {"top_p": None, "seed": 4}))
    assert sum(endpoint.tries.values()) == 5 and made.created == 2
    assert [reason.split(":")[0] for reason in made.failed.values()] == [
        "the model refused", "the server's content filter held the answer back",
        "the limit of tokens was reached before any text; raise max_tokens"]  # fmt: skip
    body = endpoint.bodies[0]
    assert (body["temperature"], body["seed"], body["model"]) == (0.7, 4, "m") and "top_p" not in body
    with pytest.raises(RocketError, match="'messages' is made here"):
        ApiWriter("m", {"messages": []})


def test_nothing_is_asked_twice_after_a_kill(tmp_path, serve):
    """A real process, killed while requests are under way; another finishes."""
    endpoint = serve(pause=0.05)
    bench, out = write(tmp_path / "bench", 40, models=("a",)), tmp_path / "out"
    command = [sys.executable, "-m", "rocketjax", "create", str(bench), "-g", "api:m", "-o", str(out),
               "--concurrency", "3"]  # fmt: skip
    child = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ.copy())
    records = out / "create.jsonl"
    end = time.monotonic() + 120
    while not (records.exists() and records.read_bytes().count(b"\n") >= 8):
        assert child.poll() is None and time.monotonic() < end, child.stderr.read()
        time.sleep(0.01)
    child.kill()
    streams = child.communicate()
    assert child.returncode == -signal.SIGKILL
    assert KEY.encode() not in b"".join(streams)
    time.sleep(0.2)  # the requests that were under way
    kept = {json.loads(line)["session_id"] for line in records.read_bytes().split(b"\n")[:-1]}
    assert 8 <= len(kept) < 40 and not (out / "checklist.jsonl").exists()
    with open(records, "ab") as file:
        file.write(b'{"session_id": "q039", "key": "torn')  # as a crash of the machine may leave it
    before = endpoint.tries.copy()
    made = create_checklists(bench, out, ApiWriter("m", concurrency=3), mode="resume")
    assert made.created == 40 and made.asked == 40 - len(kept) and endpoint.peak <= 3
    asked_again = endpoint.tries - before
    said = {chat_of({"messages": [{"role": t.role, "content": t.content} for t in p.chat]}): s
            for s, p in plan_checklists(bench).prompts.items()}  # fmt: skip
    assert not {said[chat] for chat in asked_again} & kept
    assert sum(endpoint.tries.values()) <= 40 + 3
    assert KEY not in texts_of(out) and not list(out.rglob(".*.tmp"))


def test_an_interrupt_keeps_what_was_done(tmp_path, serve):
    serve(pause=0.02)

    def stop(done, total):
        if done == 5:
            raise KeyboardInterrupt

    bench, out = write(tmp_path / "bench", 30, models=("a",)), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        create_checklists(bench, out, ApiWriter("m", concurrency=2), progress=stop)
    assert len((out / "create.jsonl").read_text().splitlines()) == 5
    assert create_checklists(bench, out, ApiWriter("m"), mode="resume").asked == 25


def test_the_spend_limit_holds(tmp_path, serve, monkeypatch):
    price = {"m": Price(10.0, 200.0)}  # 100 tokens in and 50 out: $0.011; at worst 100 out and a token for each byte
    endpoint = serve(rate=0.3, seed=1, faults=("500", "garbage", "429"))
    bench, out = write(tmp_path / "bench", 30, models=("a",)), tmp_path / "out"
    options = {"settings": {"max_tokens": 100}, "prices": price, "sleep": lambda s: None}
    made = create_checklists(bench, out, ApiWriter("m", max_usd=0.25, **options))
    assert 0.1 < made.usd <= 0.25 and 0 < made.created < 30
    billed = 0.011 * (sum(endpoint.answered.values()) + endpoint.faults["garbage"])
    assert billed <= made.usd + 1e-9
    assert len(made.failed) == 30 - made.created and any("spend limit of $0.25" in why for why in made.failed.values())
    # What was spent before counts: nothing more is sent.
    tries = sum(endpoint.tries.values())
    again = create_checklists(bench, out, ApiWriter("m", max_usd=made.usd + 0.001, **options), mode="resume")
    assert sum(endpoint.tries.values()) == tries and again.usd == pytest.approx(made.usd)
    more = create_checklists(bench, out, ApiWriter("m", max_usd=10, **options), mode="resume")
    assert not more.failed and more.usd > made.usd
    # What was never sent costs nothing: here nobody listens.
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{unused.getsockname()[1]}/v1")
        made = create_checklists(bench, tmp_path / "nobody", ApiWriter("m", max_usd=0.25, **options))
    assert made.usd == 0 and set(made.failed.values()) == {"the connection failed (ConnectError) (7 tries)"}
    for arguments, message in (
        ({"max_usd": 1.0}, "needs the price of 'm'"),
        ({"max_usd": 1.0, "prices": price, "settings": {"max_tokens": None}}, "needs max_tokens"),
        ({"max_usd": -1.0, "prices": price}, "no amount"),
    ):
        with pytest.raises(RocketError, match=message):
            ApiWriter("m", **arguments)


def test_a_purse_never_holds_out_more_than_its_limit():
    rng, purse, open_tickets, true = random.Random(0), Purse(10.0), [], 0.0
    for _ in range(2000):
        if open_tickets and rng.random() < 0.6:
            ticket, most = open_tickets.pop(rng.randrange(len(open_tickets)))
            cost = rng.choice([None, rng.uniform(0, most)])
            true += most if cost is None else cost
            purse.settle(ticket, cost)
        else:
            most = rng.uniform(0, 2)
            ticket = purse.reserve(most, lambda: True)  # does not wait
            open_tickets += [(ticket, most)] if ticket is not None else []
        assert purse.spent == pytest.approx(true) and true + sum(most for _, most in open_tickets) <= 10 + 1e-9


def test_prices_are_checked(tmp_path):
    file = tmp_path / "prices.json"
    file.write_text('{"m": {"input": 1, "output": 2.5}}')
    assert read_prices(file) == {"m": Price(1.0, 2.5)} and Price(1.0, 2.5).of(10**6, 10**6) == 3.5
    for text, message in (
        ("[]", "holds no prices"),
        ('{"m": {"input": 1}}', 'field "m"'),
        ('{"m": {"input": 1, "output": -1}}', 'field "m.output"'),
        ('{"m": {"input": true, "output": 1}}', 'field "m.input"'),
        ('{"m": {"input": NaN, "output": 1}}', 'field "m.input"'),
        ("{", "cannot be read"),
    ):
        file.write_text(text)
        with pytest.raises(RocketError, match=message):
            read_prices(file)


def test_when_a_server_says_how_long_to_wait():
    assert retry_after({"retry-after": "2.5"}) == 2.5
    assert retry_after({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    assert 25 < retry_after({"retry-after": formatdate(time.time() + 30, usegmt=True)}) <= 30
    assert retry_after({"retry-after": formatdate(time.time() - 30, usegmt=True)}) == 0
    for odd in ("", "soon", "-1", "inf", "nan", "Mon, 99 Foo"):
        assert retry_after({"retry-after": odd}) is None


def test_a_dry_run_asks_nobody(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    bench = write(tmp_path / "bench", 6)
    before = sorted(tmp_path.rglob("*"))
    (tmp_path / "prices.json").write_text('{"m": {"input": 1, "output": 2}}')
    command = ("create", bench, "-g", "api:m", "--dry-run", "--compare", 2)
    code, out, _ = run(capsys, *command, "--json", "--prices", tmp_path / "prices.json")
    found = json.loads(out)
    assert code == 0 and found["prompts"] == 5 and found["most_completion_tokens"] == 5 * 2048
    chats = [prompt.chat for prompt in plan_checklists(bench, compare=2).prompts.values()]
    size = sum(len(turn.content.encode()) for chat in chats for turn in chat)
    assert size / 4 <= found["prompt_tokens"] <= size / 4 + 60
    assert found["usd"] == pytest.approx((found["prompt_tokens"] + 2 * 5 * 2048) / 1e6)
    code, _, err = run(capsys, *command)
    assert code == 0 and "about" in err and "nothing was sent" in err and "q000: has 1 different" in err
    assert sorted(p for p in tmp_path.rglob("*") if p.name != "prices.json") == before
    assert estimate_checklists(plan_checklists(bench), "api:m", {"max_tokens": None}).most_completion_tokens is None


def test_a_batch_service_there_and_back(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    bench, out, prompts = write(tmp_path / "bench", 6), tmp_path / "out", tmp_path / "prompts.jsonl"
    base = ("create", bench, "-g", "api:m", "--set", "temperature=0", "--set", "user=me")
    assert run(capsys, *base, "--prompts", prompts)[0] == 0 and not out.exists()
    code, _, err = run(capsys, *base, "--prompts", tmp_path / "other", "-o", out)
    assert code == 1 and "leave -o out" in err and not out.exists() and not (tmp_path / "other").exists()
    asked = [json.loads(line) for line in prompts.read_text().splitlines()]
    assert len(asked) == 6 == len({row["custom_id"] for row in asked})
    assert all(row["method"] == "POST" and row["url"] == "/v1/chat/completions" for row in asked)
    assert asked[0]["body"] == {"model": "m", "messages": asked[0]["body"]["messages"], "temperature": 0, "top_p": 0.95,
                                "max_tokens": 2048, "user": "me"}  # fmt: skip

    def answer(row, text, status=200):
        body = {"choices": [{"message": {"content": text}}], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
        return json.dumps({"custom_id": row["custom_id"], "response": {"status_code": status, "body": body}})

    answers = tmp_path / "answers.jsonl"
    late = json.dumps({"custom_id": asked[4]["custom_id"], "response": None, "error": {"message": "expired"}})
    lines = [answer(asked[3], "1. Is it 3?"), answer(asked[0], "1. Is it 0?"), answer(asked[1], "I cannot")]
    lines += [answer(asked[2], "x", 500), '{"custom_id": "other", "response": null}', '{"custom_id": "torn', late]
    answers.write_text("\n".join(lines) + "\n")
    code, _, err = run(capsys, *base, "-o", out, "--answers", answers)
    assert code == 3 and "1 answers to other prompts, 1 unreadable lines 6" in err
    for part in ("q001: no question", "q002: 500", "q004: the service failed", "q005: no answer in answers.jsonl"):
        assert part in err, err
    assert {s: c.items for s, c in load_benchmark(out).checklists.items()} == {
        "q000": ("Is it 0?",), "q003": ("Is it 3?",)}  # fmt: skip
    # What lacks, and only that, goes into the next batch.
    assert run(capsys, *base, "--prompts", prompts, "-o", out)[0] == 0
    rest = [json.loads(line) for line in prompts.read_text().splitlines()]
    assert [row["custom_id"] for row in rest] == [asked[i]["custom_id"] for i in (1, 2, 4, 5)]
    answers.write_text("\n".join(answer(row, f"- Is it {i}?") for i, row in enumerate(rest)))
    code, stdout, _ = run(capsys, *base, "-o", out, "--answers", answers, "--resume", "--json")
    assert code == 0 and json.loads(stdout)["created"] == 6
    assert write_batch(plan_checklists(bench), prompts, "m", {"temperature": 0, "user": "me"}, out) == 0
    answers.write_text("garbage\n")
    with pytest.raises(RocketError, match="holds no answer"):
        AnswersWriter(answers, "m")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-g", "api:", "-o", "x"), "or api:MODEL"),
        (("-g", "api:m", "-o", "x", "--slots", "4"), "--slots is for a model on this machine"),
        (("-g", "org/m", "-o", "x", "--max-usd", "1"), "--max-usd is for api:MODEL"),
        (("-g", "api:m"), "-o is missing"),
        (("-g", "api:m", "-o", "x", "--resume", "--overwrite"), "exclude each other"),
        (("-g", "api:m", "-o", "x", "--dry-run"), "takes no -o"),
        (("-g", "api:m", "-o", "x", "--set", "top"), "takes NAME=VALUE"),
        (("-g", "api:m", "-o", "x", "--answers", "f", "--max-usd", "1"), "sent here"),
        (
            ("-g", "api:m", "-o", "x", "--answers", "f", "--retries", "1"),
            "--retries is for requests that are sent here",
        ),
        (("-g", "org/m", "--dry-run", "--slots", "1"), "--slots is for writing"),
        (("-g", "org/m", "-o", "x", "--seed", "1"), "--set seed=N"),
    ],
)
def test_usage(options, message, tmp_path, capsys):
    code, _, err = run(capsys, "create", write(tmp_path / "bench", 2), *options)
    assert code == 2 and message in " ".join(re.sub("[│╭╮╰╯─]", " ", err).split())


def test_the_command_asks_a_server(tmp_path, serve, capsys):
    endpoint = serve(answer=lambda body, n: ANSWER % "it" if n > 1 else "Let me think.")
    bench, out = write(tmp_path / "bench", 4), tmp_path / "out"
    (tmp_path / "prices.json").write_text('{"m": {"input": 1, "output": 2}}')
    code, _, err = run(capsys, "create", bench, "-g", "api:m", "-o", out, "--template", "rocketeval", "--prices",
                       tmp_path / "prices.json", "--max-usd", 1)  # fmt: skip
    assert code == 0, err
    assert "4 checklists with 8 items" in err and "8 answers, 800 + 400 tokens" in err and "$0.0016" in err
    assert set(endpoint.tries.values()) == {2} and "<|begin_of_query|>" in endpoint.bodies[0]["messages"][0]["content"]
    rows = [json.loads(line) for line in (out / "create.jsonl").read_text().splitlines()]
    assert [row["asked"] for row in rows] == [2] * 4 and sum(row["usd"] for row in rows) == pytest.approx(0.0016)


# A model on this machine.

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """A tiny random model of the goldens, with room for real prompts, that writes noise."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    shutil.copytree(GOLDEN / "tiny_llama", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 2048}))
    return folder


def answers_of(writer, chats, before=None):
    return dict(writer.write(chats, before or [0] * len(chats)))


def test_a_local_model_writes_what_the_generator_says_and_anew_when_asked_again(local, tmp_path):
    import jinja2
    from tokenizers import Tokenizer as Library

    chats = [(Message("system", "Be brief."), Message("user", "Name three cities.")), (Message("user", "Sing. " * 9),)]
    greedy = LocalWriter(str(local), {"temperature": 0, "max_tokens": 12}, mesh="data=1", slots=2)
    assert not greedy.again and greedy.name == f"local:path:{local}" and len(greedy.settings["weights_sha256"]) == 64
    found = answers_of(greedy, chats)
    library = Library.from_file(str(local / "tokenizer.json"))
    bos = [] if greedy.tokenizer.bos is None else [greedy.tokenizer.bos]
    form = jinja2.Template(greedy.tokenizer.chat_template)  # the owner's own
    texts = [
        form.render(
            messages=[{"role": turn.role, "content": turn.content} for turn in chat], add_generation_prompt=True
        )
        for chat in chats
    ]
    prompts = [bos + library.encode(text, add_special_tokens=False).ids for text in texts]
    for place, text in enumerate(greedy.generator.generate(prompts, 12)):
        assert found[place].text == text.text and found[place].prompt_tokens == len(prompts[place])
        assert found[place].completion_tokens == len(text.tokens) and found[place].cut == (text.reason == "length")
    drawn = LocalWriter(str(local), {"temperature": 1, "max_tokens": 12, "seed": 4}, mesh="data=1", slots=2)
    first, mixed = answers_of(drawn, chats), answers_of(drawn, chats, [1, 0])
    drawn.settings["seed"] = 5
    assert drawn.again and first[1] == mixed[1] and mixed[0] == answers_of(drawn, chats)[0] != first[0]
    long = (Message("user", "word " * 2100),)
    refused = answers_of(drawn, [long, chats[1]])
    assert refused[0].text is None and "with 12 new ones this model takes 2,048" in refused[0].reason
    assert refused[1].text is not None
    with pytest.raises(RocketError, match="system turns and one of the user"):
        answers_of(drawn, [(Message("user", "a"), Message("assistant", "b"), Message("user", "c"))])


def test_the_command_asks_a_local_model(local, tmp_path, capsys):
    """Noise has no questions: every query is asked twice, the second time with another seed, and named."""
    bench, out = write(tmp_path / "bench", 2), tmp_path / "out"
    base = ("create", bench, "-g", local, "--set", "max_tokens=8")
    code, told, _ = run(capsys, *base, "--dry-run", "--json")
    found = json.loads(told)
    assert code == 0 and found["exact"] and found["most_completion_tokens"] == 16 and found["usd"] is None
    code, _, err = run(capsys, *base, "-o", out, "--mesh", "data=1", "--slots", 2)
    assert code == 3 and "q000: no question in the answer" in err and "4 answers" in err and "server" not in err
    rows = [json.loads(line) for line in (out / "create.jsonl").read_text().splitlines()]
    assert [row["asked"] for row in rows] == [2, 2] and len({row["answer"] for row in rows}) == 2
    assert sum(row["prompt_tokens"] for row in rows) == found["prompt_tokens"]
    assert {row["model"] for row in rows} == {f"local:path:{local}"}
    assert run(capsys, *base, "-o", out, "--resume")[0] == 3  # nothing is left to ask
    assert len((out / "create.jsonl").read_text().splitlines()) == 2
    code, _, err = run(capsys, *base, "-o", out, "--resume", "--set", "seed=1")
    assert code == 1 and "settings.seed: 0 there, 1 here" in err
    code, _, err = run(capsys, "create", bench, "-g", tmp_path / "nowhere", "-o", tmp_path / "other")
    assert code == 1 and "no such file or folder" in err and not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_k": 5}, "no setting 'top_k'"),
        ({"max_tokens": 0}, "whole number from 1"),
        ({"seed": True}, "whole number from 0"),
        ({"seed": 1 << 32}, "whole number from 0"),
        ({"temperature": "hot"}, "is a number"),
        ({"top_p": None}, "is a number"),
        ({"temperature": float("nan")}, "0 or a positive number"),
        ({"top_p": 0}, "above 0"),
    ],
)
def test_settings_of_a_local_model(settings, message):
    with pytest.raises(RocketError, match=message):
        checked_local(settings)


@pytest.mark.weights
def test_a_real_local_model_writes_checklists(smollm2_gguf, tmp_path):
    bench = write(tmp_path / "bench", 3)
    writer = LocalWriter(str(smollm2_gguf), {"max_tokens": 256}, mesh="data=1", slots=4)
    made = create_checklists(bench, tmp_path / "out", writer, template="rocketeval")
    assert made.created >= 2 and made.items >= made.created
    assert all(item.endswith("?") for c in load_benchmark(tmp_path / "out").checklists.values() for item in c.items)
