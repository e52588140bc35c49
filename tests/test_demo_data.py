"""Checks of the embedded demo benchmark on its data alone: layout, alignment, labels, order and lengths."""

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from statistics import mean

import pytest

DEMO = Path(__file__).parents[1] / "rocketjax" / "bench" / "demo"
MODELS = ("atlas", "borealis", "cirrus", "dune", "ember", "flatterer")  # best first
RAISES = """
def raises(f, *args):
    try:
        f(*args)
    except ValueError:
        return True
    return False
"""
# session -> {index of the item: an expression that is true when the item is}
PROBES = {
    "demo09_code": {
        0: "callable(word_counts)",
        1: "word_counts('A a') == {'a': 2}",
        2: "word_counts('a a! ,a.') == {'a': 3}",
        3: "isinstance(word_counts('a b a'), dict) and word_counts('a b a') == {'a': 2, 'b': 1}",
        4: "bool(word_counts.__doc__)",
        5: "word_counts('Hi, hi!') == {'hi': 2}",
    },
    "demo10_code": {
        0: "callable(second_largest)",
        1: "second_largest([5, 5, 3]) == 3",
        2: "raises(second_largest, [5, 5]) and raises(second_largest, [1]) and raises(second_largest, [])",
        3: "second_largest([-1, -2]) == -2",
        5: "second_largest([1, 2, 3]) == 2",
    },
    "demo11_code": {3: "avg([1, 2, 3]) == 2.0", 4: "avg([]) == 0.0", 5: "callable(avg)"},
    "demo18_multi_turn": {
        1: "area(3) == 9",
        2: "area(2, 5) == 10",
        3: "raises(area, -1, 2)",
        4: "raises(area, 2, -1)",
    },
}


def rows(path):
    """The objects of one JSONL file, every line of which must hold one."""
    return [json.loads(line) for line in (DEMO / path).read_text(encoding="utf-8").splitlines()]


QUERIES = {row["session_id"]: row for row in rows("queries.jsonl")}
ITEMS = {row["session_id"]: row["checklist"] for row in rows("checklist.jsonl")}
RESPONSES = {m: {row["session_id"]: row for row in rows(f"response/{m}.jsonl")} for m in MODELS}
GOLD = {m: {row["session_id"]: row for row in rows(f"gold_judgment/author/{m}.jsonl")} for m in MODELS}
SCORES = {m: {row["session_id"]: row for row in rows(f"score/author/{m}.jsonl")} for m in MODELS}


def text(model, session):
    return RESPONSES[model][session]["output"][0]


def truth(model, session):
    return [answer == "Yes" for answer in GOLD[model][session]["judgment"]]


def item_mean(model):
    return mean(value for session in ITEMS for value in truth(model, session))


def score_mean(model):
    return mean(row["score"] for row in SCORES[model].values())


def word_mean(model):
    return mean(len(text(model, session).split()) for session in QUERIES)


def spearman(x, y):
    """Spearman's correlation, ties by mean rank."""

    def ranks(values):
        ordered = sorted(values)
        return [ordered.index(value) + (ordered.count(value) - 1) / 2 for value in values]

    x, y = ranks(x), ranks(y)
    mx, my = mean(x), mean(y)
    cov = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
    return cov / (sum((a - mx) ** 2 for a in x) * sum((b - my) ** 2 for b in y)) ** 0.5


def run_code(source, probes):
    """Run `source` in a fresh interpreter; for each probe, whether it is true there (an error counts as no)."""
    program = (
        "import json, sys\n"
        "source, probes = json.load(sys.stdin)\n"
        f"space = {{}}\nexec({RAISES!r}, space)\n"
        "def check(probe):\n"
        "    try:\n        return bool(eval(probe, space))\n"
        "    except Exception:\n        return False\n"
        "try:\n    exec(source, space)\nexcept Exception:\n    space.clear()\n"
        "print()\nprint(json.dumps([check(probe) for probe in probes]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program],
        input=json.dumps([source, probes]),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def python_block(response):
    found = re.search(r"```python\n(.*?)(?:```|\Z)", response, re.DOTALL)
    return found.group(1) if found else ""


def test_counts():
    assert 16 <= len(QUERIES) <= 20
    categories = [row["category"] for row in QUERIES.values()]
    for category in ("writing", "reasoning", "code", "extraction", "multi_turn"):
        assert categories.count(category) >= 3
    assert sum(len(items) for items in ITEMS.values()) == 108
    assert sum(path.stat().st_size for path in DEMO.rglob("*") if path.is_file()) < 200_000


def test_files():
    names = {f"{folder}/{m}.jsonl" for folder in ("response", "gold_judgment/author", "score/author") for m in MODELS}
    expected = names | {"queries.jsonl", "checklist.jsonl"}
    assert {path.relative_to(DEMO).as_posix() for path in DEMO.rglob("*.jsonl")} == expected
    for name in expected:
        raw = (DEMO / name).read_bytes()
        assert raw.endswith(b"\n") and b"\r" not in raw and raw.isascii()
        assert len(rows(name)) == len(QUERIES), name


def test_ids():
    order = list(QUERIES)
    assert list(ITEMS) == order
    for i, (session, row) in enumerate(QUERIES.items(), 1):
        assert session == f"demo{i:02d}_{row['category']}"
    for table in (RESPONSES, GOLD, SCORES):
        for model in MODELS:
            assert list(table[model]) == order
    for model in MODELS:
        assert {row["generator"] for row in RESPONSES[model].values()} == {model}
        assert {row["model_test"] for row in GOLD[model].values()} == {model}
        assert {row["judge"] for row in GOLD[model].values()} == {"author"}
        assert {row["model_test"] for row in SCORES[model].values()} == {model}


def test_conversations():
    multi = system = 0
    for session, row in QUERIES.items():
        roles = [turn["role"] for turn in row["conversation_input"]]
        assert all(turn["content"].strip() for turn in row["conversation_input"])
        assert set(row["references"]) == {"author"} and row["references"]["author"].strip()
        system += roles[0] == "system"
        turns = roles[1:] if roles[0] == "system" else roles
        assert turns == ["user", "assistant"] * (len(turns) // 2) + ["user"]
        multi += len(turns) > 1
        assert (len(turns) > 1) == (row["category"] == "multi_turn")
        history = [turn["content"] for turn in row["conversation_input"] if turn["role"] != "system"]
        for model in MODELS:  # as in the released benchmarks: all turns before the output, system left out
            assert RESPONSES[model][session]["chat_history"] == history
    assert multi >= 3 and system >= 1


def test_items():
    every = [item for items in ITEMS.values() for item in items]
    assert len(set(every)) == len(every)
    for items in ITEMS.values():
        assert 5 <= len(items) <= 8
    for item in every:
        assert item == item.strip() and item.endswith("?")
        assert item.split()[0] in {"Is", "Are", "Do", "Does", "With"}


def test_outputs():
    every = []
    for model in MODELS:
        for session in QUERIES:
            output = RESPONSES[model][session]["output"]
            assert isinstance(output, list) and len(output) == 1
            assert output[0] == output[0].strip()
            assert 20 <= len(output[0].split()) <= 140
            every.append(output[0])
    assert len(set(every)) == len(every)


def test_labels():
    for model in MODELS:
        for session, items in ITEMS.items():
            answers = GOLD[model][session]["judgment"]
            assert len(answers) == len(items)
            assert set(answers) <= {"Yes", "No"}
            assert 1 <= SCORES[model][session]["score"] <= 10


def test_every_item_discriminates():
    for session, items in ITEMS.items():
        for i in range(len(items)):
            assert len({truth(model, session)[i] for model in MODELS}) == 2, (session, i)


def test_order_of_models():
    by_items = [item_mean(model) for model in MODELS]
    by_score = [score_mean(model) for model in MODELS]
    assert all(a > b for a, b in itertools.pairwise(by_items))
    assert all(a > b for a, b in itertools.pairwise(by_score))


def test_flatterer_earns_nothing():
    assert item_mean("flatterer") < 0.05
    assert score_mean("flatterer") < 1.5
    claims = [text("flatterer", session) for session in QUERIES]
    assert sum("Yes" in claim or "yes" in claim for claim in claims) >= len(claims) - 1
    assert any("</response>" in claim for claim in claims)
    assert any("<|im_end|>" in claim for claim in claims)
    assert any("<start_of_turn>model" in claim for claim in claims)
    assert any("Answer: Yes" in claim for claim in claims)


def test_length_does_not_tell_quality():
    pairs = [(m, s) for m in MODELS for s in QUERIES]
    lengths = [len(text(m, s).split()) for m, s in pairs]
    assert abs(spearman(lengths, [SCORES[m][s]["score"] for m, s in pairs])) < 0.35
    assert abs(spearman(lengths, [mean(truth(m, s)) for m, s in pairs])) < 0.35
    for model in MODELS[2:]:
        assert sum(len(text(model, s).split()) > len(text("atlas", s).split()) for s in QUERIES) >= 5


@pytest.mark.parametrize("session", PROBES)
def test_atlas_code_runs(session):
    assert all(run_code(python_block(text("atlas", session)), list(PROBES[session].values())))
    assert all(run_code(python_block(QUERIES[session]["references"]["author"]), list(PROBES[session].values())))


@pytest.mark.parametrize("session", PROBES)
def test_code_labels_by_execution(session):
    for model in MODELS[1:]:
        worked = run_code(python_block(text(model, session)), list(PROBES[session].values()))
        assert worked == [truth(model, session)[i] for i in PROBES[session]], model


def test_labels_of_countable_items():
    for model in MODELS:
        email = text(model, "demo01_writing")
        if truth(model, "demo01_writing")[6]:
            assert len(email.split()) <= 80
        sentences = len(re.findall(r"[.!?](?:\s|$)", text(model, "demo02_writing")))
        assert truth(model, "demo02_writing")[5] == (sentences == 3)
        lines = [line for line in text(model, "demo03_writing").splitlines() if line]
        titled = truth(model, "demo03_writing")[4]
        assert truth(model, "demo03_writing")[1] == (len(lines) - titled == 6)
        bullets = [line for line in text(model, "demo04_writing").splitlines() if line.startswith("- ")]
        assert truth(model, "demo04_writing")[6] == bool(bullets)
        slogans = re.findall(r"^(?:Funny:|Formal:|Rhyme:|\d\.) (.+)$", text(model, "demo17_multi_turn"), re.MULTILINE)
        assert truth(model, "demo17_multi_turn")[0] == (len(slogans) == 3)
        short = len(slogans) == 3 and all(len(slogan.split()) < 12 for slogan in slogans)
        assert truth(model, "demo17_multi_turn")[4] == short


def test_labels_of_quotable_items():
    quotes = {
        ("demo05_reasoning", 3): "4.20",
        ("demo05_reasoning", 4): "37.80",
        ("demo07_reasoning", 1): "80 km/h",
        ("demo07_reasoning", 3): "11:20",
        ("demo15_multi_turn", 1): "154",
        ("demo16_multi_turn", 2): "13 June",
    }
    for (session, i), quote in quotes.items():
        for model in MODELS:
            found = re.search(rf"(?<!\d){re.escape(quote)}", text(model, session))
            assert truth(model, session)[i] == bool(found), (session, i, model)
    for model in MODELS:
        assert truth(model, "demo16_multi_turn")[5] == text(model, "demo16_multi_turn").endswith("Happy reading!")


def test_labels_of_json_extraction():
    session = "demo12_extraction"
    for model in MODELS:
        body = re.sub(r"^```json\n|\n```$", "", text(model, session))
        try:
            order = json.loads(body)
        except ValueError:
            assert not truth(model, session)[0]
            continue
        quantity = {item["name"].split(" of ")[-1]: item["quantity"] for item in order["items"]}
        assert truth(model, session) == [
            True,
            order["customer"] == "Priya Raman",
            quantity["coffee"] == 3,
            quantity["green tea"] == 2,
            order["delivery_date"] == "2025-03-05",
            order["phone"] == "555-0142",
        ]


def test_readme_table_matches_data():
    readme = (DEMO / "README.md").read_text(encoding="utf-8")
    for model in MODELS:
        assert f"| {model} | {item_mean(model):.3f} | {score_mean(model):.2f} | {word_mean(model):.1f} |" in readme
