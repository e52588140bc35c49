"""Sets whose labels are about whole responses: AlpacaEval, Prometheus, WildBench."""

import hashlib
import itertools
import math
import re

import msgspec

from rocketjax.bench.importers.chats import dialogue
from rocketjax.bench.importers.source import At, Draft, Source
from rocketjax.bench.read import _NUMBER
from rocketjax.bench.records import Message
from rocketjax.errors import RocketError

# AlpacaEval


class _AlpacaOutput(msgspec.Struct):
    instruction: str
    output: str | None
    generator: str | None = None


class _AlpacaAnnotation(msgspec.Struct):
    instruction: str
    output_1: str | None
    output_2: str | None
    generator_1: str
    preference: float | None
    generator_2: str | None = None
    annotator: str | None = None


def alpaca(source: Source, draft: Draft, item: str) -> None:
    """results/<model>/model_outputs.json and results/<model>/<annotator>/annotations.json, where there are any.

    Or what one evaluation leaves: model_outputs.json, alone or with annotations.json beside it, whose rows name the
    model and the annotator. The source has no ids: a session's is the SHA-256 of its instruction, 16 digits.
    `preference` is from 1 (the baseline's answer) to 2 (the model's), 0 or 1.5 a tie; the score is
    1 + 9 (preference - 1). Adds "unknown_session", "no_score" and "label_of_another_output" (another answer was
    compared than is in the outputs).
    """
    pattern = "results/*/" if (source.root / "results").is_dir() else "*/"
    single = [source.path] if source.path.is_file() else source.glob("model_outputs")
    ids: dict[str, str] = {}
    for file in single or source.all(pattern + "model_outputs"):
        for at, row in source.rows(file, _AlpacaOutput):
            if single and not row.generator:
                raise at.error("generator", "is missing", "without a folder of its own, the rows name the model")
            model = row.generator if single and row.generator else file.parent.name
            session_id = ids.setdefault(row.instruction, hashlib.sha256(row.instruction.encode()).hexdigest()[:16])
            if draft.query(session_id, row.instruction, [item]):
                draft.response(session_id, model, row.output)
    labelled = ("annotations", "*/annotations") if single else (pattern + "*/annotations",)
    for file in () if source.path.is_file() else itertools.chain(*map(source.glob, labelled)):
        for at, label in source.rows(file, _AlpacaAnnotation):
            annotator = label.annotator if file.parent == source.root else file.parent.name
            compared = label.generator_2 if single else file.parent.parent.name
            if not annotator or not compared:
                raise at.error("generator_2", "or annotator is missing", "without folders, the rows name them")
            session_id = ids.get(label.instruction, "")
            answer = draft.response_of(session_id, compared)
            if answer is None:
                draft.skip("unknown_session")
            elif (label.output_2 or "").strip() != answer.strip():
                draft.skip("label_of_another_output")
            elif label.preference is None:
                draft.skip("no_score")
            else:
                preference = label.preference or 1.5
                if not 1 <= preference <= 2:
                    raise at.error("preference", f"is {preference}", "it is from 1 to 2, or 0 for a tie")
                draft.query(session_id, label.instruction, [item], {label.generator_1: label.output_1})
                draft.score(session_id, compared, annotator, 1 + 9 * (preference - 1))


# Prometheus


class _PrometheusRow(msgspec.Struct):
    idx: int | str
    instruction: str
    gpt4_score: list[float | None]
    response_source: str | None = None


_PROMETHEUS = re.compile(
    r".*?###The instruction to evaluate:\n(?P<instruction>.*?)\n\n?###Response to evaluate:\n(?P<response>.*?)\n\n?"
    r"###Reference Answer \(Score 5\):\n(?P<reference>.*?)\n\n?###Score Rubrics:\s*\[(?P<criterion>[^\n]*)\]\s*\n.*",
    re.DOTALL,
)
_PREVIOUS = re.compile(
    r"Here is a previous dialogue[^\n]*\nUser: (.*?)\n\nAssistant: ?(.*)\n\nUser: (.*?)\n\nAssistant:\s*", re.DOTALL
)


def prometheus(source: Source, draft: Draft, item: str) -> None:
    """eval/benchmark/data/{vicuna_eval,mt_bench_eval}.json: an instruction, rubric and reference, GPT-4's 1 to 5.

    Session <file>_<idx>, with a number behind it where one idx stands for several instructions. Where the
    instruction is a dialogue, the responder's own first answer in it is its history. Adds "no_score".
    """
    for file in source.files("**/*_eval", "vicuna_eval or mt_bench_eval"):
        stem = source.name(file).rpartition("/")[2]
        known: dict[str, list[tuple[str, ...]]] = {}
        answered: dict[str, int] = {}
        for at, row in source.rows(file, _PrometheusRow):
            parts = _PROMETHEUS.fullmatch(row.instruction)
            if parts is None:
                wanted = "###The instruction to evaluate, ###Response, ###Reference Answer (Score 5), ###Score Rubrics"
                raise at.error("instruction", "lacks a section", f"it has {wanted} with a [criterion]")
            previous = _PREVIOUS.fullmatch(parts["instruction"])
            asked = (previous[1], previous[3]) if previous else (parts["instruction"],)
            variants = known.setdefault(f"{stem}_{row.idx}", [])
            if (content := (*asked, parts["reference"], parts["criterion"])) not in variants:
                variants.append(content)
            number = variants.index(content) + 1
            session_id = f"{stem}_{row.idx}" + (f"_{number}" if number > 1 else "")
            criterion = f"Does the response meet this criterion? {parts['criterion'].strip()}"
            if not draft.query(session_id, dialogue(asked), [criterion], {"prometheus": parts["reference"]}):
                continue
            answered[session_id] = answered.get(session_id, 0) + 1
            model = row.response_source or f"responder-{answered[session_id]}"
            history = (previous[1], previous[2]) if previous else ()
            if not draft.response(session_id, model, parts["response"], history):
                continue
            grades = [grade for grade in row.gpt4_score if grade is not None]
            if any(not 1 <= grade <= 5 for grade in grades):
                raise at.error("gpt4_score", f"{row.gpt4_score} is not all from 1 to 5")
            if grades:
                draft.score(session_id, model, "gpt-4", sum(grades) / len(grades))
            else:
                draft.skip("no_score")


# WildBench


class _WildTurn(msgspec.Struct):
    role: str
    content: str


class _WildQuery(msgspec.Struct):
    session_id: str
    conversation_input: list[_WildTurn]
    checklist: list[str] | None = None
    references: dict[str, str | None] | None = None


class _WildRow(msgspec.Struct):
    session_id: str
    model_output: str | list[str] | None = None
    output: str | list[str] | None = None
    chat_history: list[str] | None = None
    score: str | float | msgspec.UnsetType | None = msgspec.UNSET
    prompt: str | None = None
    conversation_input: list[_WildTurn] | None = None
    checklist: list[str] | None = None


def _tagged(name: str) -> str:
    return rf"<\|begin_of_{name}\|>\s*(?P<{name}>.*?)\s*<\|end_of_{name}\|>"


_WILD_PROMPT = re.compile(rf".*?{_tagged('history')}.*?{_tagged('query')}.*{_tagged('checklist')}.*", re.DOTALL)
_WILD_TURN = re.compile(r"(?:\A|\n\n)(USER|ASSISTANT): ")


def wildbench(source: Source, draft: Draft, item: str) -> None:
    """eval_results/<version>/score.v2/eval=<judge>/<model>.json, or result_dirs/<bench>/<model>.json without scores.

    Queries are a row's `conversation_input`, or its judge `prompt` taken apart, or those of queries.jsonl in PATH
    (rows of the data set allenai/WildBench), or else the `chat_history` that a result file gives. The labeler is
    <judge>, <version>.<judge> where PATH holds the version's folder, "wildbench" where no folder names a judge. Adds
    "no_score" (N/A, or not from 1 to 10).
    """
    beside = source.optional("queries")
    queries: dict[str, _WildQuery] = {}
    if beside:
        queries = {row.session_id: row for _, row in source.rows(beside, _WildQuery)}
    files = [source.path] if source.path.is_file() else source.glob("**/eval=*/*") or source.glob("*")
    files = [file for file in files if file != beside]
    if not files:
        raise source.lacks("score.v2/eval=<judge>/<model>")
    for file in files:
        model, labeler = source.name(file).rpartition("/")[2], _wild_labeler(source.name(file))
        for at, row in source.rows(file, _WildRow):
            query = _wild_query(at, row) or queries.get(row.session_id)
            if query is None and row.chat_history:
                roles = itertools.cycle(("user", "assistant"))
                said = [_WildTurn(role, text) for role, text in zip(roles, row.chat_history, strict=False)]
                query = _WildQuery(row.session_id, said, row.checklist)
            if query is None:
                raise RocketError(
                    f"{source.path}: lacks queries.jsonl, the rows of the data set allenai/WildBench (session_id, "
                    f"conversation_input, checklist), with {row.session_id!r}: {at.path.name}:{at.line} does not say "
                    "what was asked"
                )
            turns = [Message(turn.role, turn.content) for turn in query.conversation_input]
            if (
                not turns
                or any(t.role not in ("system", "user", "assistant") for t in turns)
                or turns[-1].role != "user"
            ):
                raise at.error("conversation_input", "is no conversation that ends with a user turn")
            if not draft.query(row.session_id, turns, query.checklist or [item], query.references):
                continue
            field = "output" if row.model_output is None else "model_output"
            output = row.output if row.model_output is None else row.model_output
            if isinstance(output, list):
                if len(output) != 1:
                    raise at.error(field, f"has {len(output)} texts")
                output = output[0]
            # All turns before the question, or these and the question; other lengths are of something else.
            spoken, history = sum(turn.role != "system" for turn in turns), row.chat_history or []
            history = history[: spoken - 1] if spoken - len(history) in (0, 1) else []
            if not draft.response(row.session_id, model, output, history) or row.score is msgspec.UNSET:
                continue
            score = row.score
            if isinstance(score, str):
                score = float(score) if _NUMBER.fullmatch(score.strip()) else None
            if score is None or not math.isfinite(score) or not 1 <= score <= 10:
                draft.skip("no_score")
            else:
                draft.score(row.session_id, model, labeler, score)


def _wild_labeler(name: str) -> str:
    """Of "v2.0625/score.v2/eval=judge/model": "v2.0625.judge"."""
    folders = name.split("/")[:-1]
    judges = [folder.removeprefix("eval=") for folder in folders if folder.startswith("eval=")]
    versions = [version for version, inner in itertools.pairwise(folders) if inner.startswith("score.")]
    return ".".join([*versions, *judges]) or "wildbench"


def _wild_query(at: At, row: _WildRow) -> _WildQuery | None:
    """What the row itself says was asked; None if it does not."""
    if row.conversation_input is not None:
        return _WildQuery(row.session_id, row.conversation_input, row.checklist)
    if row.prompt is None:
        return None
    parts = _WILD_PROMPT.fullmatch(row.prompt)
    if parts is None:
        raise at.error("prompt", "is not made by WildBench's template", "it has history, query and checklist in tags")
    pieces = _WILD_TURN.split(parts["history"])
    if pieces[0].strip():
        raise at.error("prompt", "its history does not begin with USER: or ASSISTANT:")
    turns = [_WildTurn(role.lower(), text.strip()) for role, text in zip(pieces[1::2], pieces[2::2], strict=True)]
    turns.append(_WildTurn("user", parts["query"]))
    return _WildQuery(row.session_id, turns, row.checklist or _listed(at, parts["checklist"]))


def _listed(at: At, text: str) -> list[str]:
    """A checklist as the template shows it: a JSON list, or a line with a dash per item."""
    if text.startswith("["):
        try:
            return msgspec.json.decode(text, type=list[str])
        except msgspec.DecodeError as error:
            raise at.error("prompt", f"its checklist is no JSON list ({error})") from None
    return [line.strip().removeprefix("- ").strip() for line in text.splitlines() if line.strip(" -")]
