"""The importers by name."""

from collections.abc import Callable
from typing import NamedTuple

from rocketjax.bench.importers import arena, chats, checklists, evals, graded, pairs

GENERIC_ITEM = "Does the response follow the instruction and answer it correctly and helpfully?"


class Importer(NamedTuple):
    """One data set, or one tool's files."""

    run: Callable[..., None]
    """Reads a Source into a Draft; a string, the generic item, comes third."""
    description: str
    licence: str | None
    """None where it is the user's own data."""
    generic: bool
    """Whether the set has sessions without a checklist of their own."""
    question: bool = False
    """Whether `run` takes `question`, the field that holds it."""


IMPORTERS: dict[str, Importer] = {
    "infobench": Importer(
        checklists.infobench,
        "InfoBench: decomposed requirements of GPT-4's answers, judged by GPT-4",
        "MIT",
        generic=False,
    ),
    "structflowbench": Importer(
        checklists.structflowbench,
        "StructFlowBench: constraints of multi-turn dialogues, judged by GPT-4o",
        "MIT",
        generic=False,
    ),
    "realsumm": Importer(
        checklists.realsumm,
        "REALSumm: content units of summaries, marked present by a crowd",
        "CC BY 4.0 (the articles are CNN/DailyMail text of third parties)",
        generic=False,
    ),
    "hellobench": Importer(
        checklists.hellobench,
        "HelloBench, open-ended questions: checklists judged by GPT-4o",
        "MIT",
        generic=False,
    ),
    "mtbench": Importer(
        chats.mtbench, "MT-Bench: two-turn questions, graded 1 to 10 by GPT-4", "Apache-2.0", generic=True
    ),
    "alpacaeval": Importer(
        graded.alpaca,
        "AlpacaEval: preferences of GPT-4 against a baseline, as 1 to 10",
        "CC BY-NC 4.0 (data; the code is Apache-2.0)",
        generic=True,
    ),
    "llmbar": Importer(
        pairs.llmbar, "LLMBar: pairs with a gold preference for instruction following", "MIT", generic=True
    ),
    "judgebench": Importer(
        pairs.judgebench,
        "JudgeBench: pairs with a gold preference by correctness",
        "MIT (by its page; the repository has no licence file)",
        generic=True,
    ),
    "pandalm": Importer(
        pairs.pandalm, "PandaLM: pairs with the preferences of three people", "Apache-2.0", generic=True
    ),
    "prometheus": Importer(
        graded.prometheus,
        "Prometheus: rubrics, graded 1 to 5 by GPT-4 three times",
        "Apache-2.0",
        generic=False,
    ),
    "wildbench": Importer(
        graded.wildbench, "WildBench: users' conversations with checklists, graded 1 to 10", "Apache-2.0", generic=True
    ),
    "fastchat": Importer(
        chats.fastchat, "FastChat: answers to questions of several turns, with judgments if any", None, generic=True
    ),
    "arenahard": Importer(
        chats.arenahard,
        "Arena-Hard: hard prompts, with judgments against a baseline as 1 to 10 if any",
        "Apache-2.0",
        generic=True,
    ),
    "arena": Importer(
        arena.arena, "Chatbot Arena: conversations with two models each, and people's votes", None, generic=True
    ),
    "lmeval": Importer(
        evals.harness, "lm-evaluation-harness: logged samples of generation tasks", None, generic=True, question=True
    ),
    "inspect": Importer(evals.inspect, "inspect_ai: logs of evaluations", None, generic=True),
}
