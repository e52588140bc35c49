"""Logs of evaluation tools: lm-evaluation-harness and inspect_ai."""

import contextlib
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from rocketjax.bench.importers.source import At, Draft, Source
from rocketjax.bench.read import _NUMBER, _show, _wrong_field
from rocketjax.bench.records import Message
from rocketjax.errors import RocketError

_ROLES = ("system", "user", "assistant")

# lm-evaluation-harness


class _Sample(msgspec.Struct):
    doc_id: int
    arguments: dict[str, Any] | list[Any]
    resps: list[Any]
    doc: Any = None
    target: Any = None
    filter: str = "none"
    metrics: list[str] = []


_SAMPLES = re.compile(r"samples_(?P<task>.+?)(_(?P<date>\d{4}-\d\d-\d\dT[-\d.]+))?")


def harness(source: Source, draft: Draft, item: str, question: str | None = None) -> None:
    """<model>/samples_<task>_<date>.jsonl, as `lm_eval --log_samples --output_path` writes them.

    The folder names the model, or, where --output_path was a .json file, that file, which has the same date. Session
    <task>_<doc_id>. What was asked is the whole prompt (a conversation where it was
    sent as one), or the field `question` of the doc; the reference "target". The response is what the model said,
    before any filter. The metrics that are numbers are scores of labelers <metric>, or <metric>.<filter> of a filter
    with a name. Only generation tasks have responses: samples of the others are counted as "no_generation". Adds
    "earlier_file" (a task was run again), "more_samples" (the first response is taken of several), "score_of_several"
    (what a filter made of them), "not_text" (turns with pictures) and "no_user_turn".
    """
    files: dict[tuple[str, str], Path] = {}
    found = [source.path] if source.path.is_file() else source.glob("**/samples_*")
    if not found:
        raise source.lacks("<model>/samples_<task>_<date>, which lm_eval --log_samples --output_path writes")
    dated = []
    for file in found:
        stem = source.name(file).rpartition("/")[2]
        name = _SAMPLES.fullmatch(stem)
        dated.append((name["date"] or "" if name else "", name["task"] if name else stem, file))
    for date, task, file in sorted(dated, key=lambda row: row[0]):  # the last one stays
        model = _model(file, date)
        if (model, task) in files:
            draft.skip("earlier_file")
        files[model, task] = file
    for (model, task), file in files.items():
        for at, row in source.rows(file, dict):
            try:
                sample = msgspec.convert(row, _Sample)
            except msgspec.ValidationError as error:
                raise _wrong_field(at, str(error)) from None
            session_id = f"{task}_{sample.doc_id}"
            prompt, more = _generation(sample)
            if prompt is None:
                draft.skip("no_generation")
                continue
            if more:
                draft.skip("not_text")
                continue
            turns = _turns(prompt) if question is None else [Message("user", _field(at, sample.doc, question))]
            if turns is None:
                draft.skip("not_text")
                continue
            if turns[-1].role != "user":
                draft.skip("no_user_turn")
                continue
            if session_id in draft.queries and draft.queries[session_id][0] != tuple(turns):
                fields = ", ".join(sample.doc) if isinstance(sample.doc, dict) else "nothing"
                raise at.error(
                    "arguments",
                    f"the prompt of {session_id!r} is not that of another model (a chat template, other examples?)",
                    f"name the field of doc that holds the question with --question; doc has {fields}",
                )
            if not draft.query(session_id, turns, [item], {"target": _said(sample.target)}):
                continue
            first, count = _response(at, sample.resps)
            if count > 1 and draft.response_of(session_id, model) is None:
                draft.skip("more_samples", count - 1)
            if not draft.response(session_id, model, first):
                continue
            if count > 1 and sample.filter != "none":  # a majority's score is not the first one's
                draft.skip("score_of_several")
                continue
            for metric in sample.metrics:
                value = row.get(metric)
                if isinstance(value, bool | int | float) and math.isfinite(value):
                    labeler = metric if sample.filter == "none" else f"{metric}.{sample.filter}"
                    draft.score(session_id, model, labeler, float(value))
    if draft.left_out["no_generation"] and not draft.queries:
        raise RocketError(
            f"{_show(source.path)}: its {draft.left_out['no_generation']} samples are of tasks that compare "
            "likelihoods, as of multiple choice: no text was generated, so there is no answer to judge"
        )


def _model(file: Path, date: str) -> str:
    """The folder's name, or that of the .json file to which --output_path wrote the results of the same run."""
    beside = [path.name for path in file.parent.glob(f"*_{date}.json")] if date else []
    stems = {name.removesuffix(f"_{date}.json") for name in beside} - {"results"}
    return stems.pop() if len(stems) == 1 else Path(os.path.abspath(file.parent)).name


def _generation(sample: _Sample) -> tuple[Any, bool]:
    """The prompt of a sample that asked for text: one request, with settings for the generation; None for others. And
    whether there is more than these, which is pictures or sound.

    Requests are {"gen_args_0": {"arg_0": prompt, "arg_1": settings}}, in older files [[prompt, settings]], the
    settings there written as Python does. A request about a likelihood has a text in their place, or nothing.
    """
    given = list(sample.arguments.values()) if isinstance(sample.arguments, dict) else sample.arguments
    if len(given) != 1:
        return None, False
    request = list(given[0].values()) if isinstance(given[0], dict) else given[0]
    if not isinstance(request, list) or len(request) < 2:
        return None, False
    prompt, settings, *more = request
    written = isinstance(settings, str) and re.match(r"\{('\w+': .*)?\}$", settings, re.DOTALL)
    return (prompt if isinstance(settings, dict) or written else None), any(more)


def _turns(prompt: Any) -> list[Message] | None:
    """A prompt as text, or a conversation in JSON (inside a list, in newer files); None if not all of it is text."""
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str):
        prompt = prompt[0]
    if not isinstance(prompt, str):
        return None
    said: list[dict[str, Any]] = []
    if prompt.lstrip().startswith("["):
        with contextlib.suppress(msgspec.DecodeError):  # a text may begin with a bracket
            said = msgspec.json.decode(prompt, type=list[dict[str, Any]])
    if not said or any(turn.get("role") not in _ROLES for turn in said):
        return [Message("user", prompt)]
    turns = []
    for turn in said:
        parts = turn.get("content")
        if isinstance(parts, str):
            parts = [{"type": "text", "text": parts}]
        if not isinstance(parts, list) or any(not isinstance(p, dict) or p.get("type") != "text" for p in parts):
            return None
        turns.append(Message(turn["role"], "\n".join(str(part.get("text", "")) for part in parts)))
    return turns


def _field(at: At, doc: Any, field: str) -> str:
    value = doc.get(field) if isinstance(doc, dict) else None
    if not isinstance(value, str):
        fields = ", ".join(doc) if isinstance(doc, dict) else "nothing"
        raise at.error(f"doc.{field}", "is missing or no text", f"doc has {fields}; give one of these to --question")
    return value


def _said(value: Any) -> str | None:
    """A reference as text."""
    if isinstance(value, list) and all(isinstance(x, str) for x in value):
        return "\n".join(value)
    return None if value is None else str(value)


def _response(at: At, resps: list[Any]) -> tuple[str | None, int]:
    """The first response and their number."""
    given = resps[0] if resps and isinstance(resps[0], list) else resps
    if not given:
        return None, 0
    if not isinstance(given[0], str):
        raise at.error("resps[0][0]", "is not text", "a generation task's samples are lists of lists of texts")
    return given[0], len(given)


# inspect_ai

_NO_LOGS = ("eval-set.json", "logs.json", "listing.json")  # of a log folder's own
_VALUES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0, "yes": 1.0, "no": 0.0, "true": 1.0, "false": 0.0}


def inspect(source: Source, draft: Draft, item: str) -> None:
    """Logs (.eval or .json), read by inspect_ai itself; session <task>_<sample id>, the model as the log names it.

    The question is the sample's input with its choices, the response the completion, the reference "target". Scores
    are of labelers <scorer>, or <scorer>.<part> where one has parts; C, P, I and N are 1, 0.5, 0 and 0, as there. Adds
    "another_epoch" (only the first counts), "sample_error", "not_text" (turns of tools, pictures), "no_user_turn",
    "no_score" and "unclear_score" (no number). Where a task was run again, or a broken run was completed, the latest
    log's answer counts, and others are "another_response".
    """
    try:
        from inspect_ai.log import read_eval_log
    except ImportError as error:
        raise RocketError(
            f"{_show(source.path)}: the package that reads inspect_ai's logs is not here ({error}): "
            "pip install 'rocketjax[inspect]'"
        ) from None
    files = [source.path] if source.path.is_file() else source.glob("**/*", (".eval", ".json"))
    files = [file for file in files if file.name not in _NO_LOGS and not file.name.startswith(".")]
    if not files:
        raise RocketError(f"{_show(source.path)}: holds no logs (.eval or .json); give inspect_ai's log folder")

    def read(file: Path, **how: bool) -> Any:
        try:
            return read_eval_log(str(file), **how)
        except Exception as error:  # of several packages: a zip, JSON and pydantic
            raise RocketError(f"{_show(file)}: inspect_ai cannot read it as a log ({_first(error)})") from None

    created = {file: str(read(file, header_only=True).eval.created) for file in files}
    for file in sorted(files, key=lambda file: created[file], reverse=True):  # what is there first stays
        log = read(file, resolve_attachments=True)
        source.note(file)
        if not log.samples:
            draft.skip("log_without_samples")
        for sample in log.samples or ():
            _inspect_sample(draft, str(log.eval.task), str(log.eval.model), sample, item)


def _inspect_sample(draft: Draft, task: str, model: str, sample: Any, item: str) -> None:
    session_id = f"{task}_{sample.id}"
    if sample.epoch != 1:
        draft.skip("another_epoch")
        return
    if sample.error is not None:
        draft.skip("sample_error")
        return
    said = [Message("user", sample.input)] if isinstance(sample.input, str) else _messages(sample.input)
    if said is None:
        draft.skip("not_text")
        return
    if not said or said[-1].role != "user":
        draft.skip("no_user_turn")
        return
    if sample.choices:
        lines = [f"{chr(ord('A') + i)}) {choice}" for i, choice in enumerate(sample.choices)]
        said[-1] = Message("user", "\n".join([said[-1].content, "", *lines]))
    if not draft.query(session_id, said, [item], {"target": _said(sample.target)}):
        return
    if not draft.response(session_id, model, sample.output.completion if sample.output.choices else None):
        return
    for scorer, score in (sample.scores or {}).items():
        parts = score.value if isinstance(score.value, dict) else {"": score.value}
        for part, value in parts.items():
            number = _value(value)
            if number is None:
                draft.skip("unclear_score")
            elif math.isnan(number):
                draft.skip("no_score")
            else:
                draft.score(session_id, model, f"{scorer}.{part}" if part else scorer, number)


def _messages(given: Sequence[Any]) -> list[Message] | None:
    """inspect_ai's messages; None if there is more than text in them."""
    said = []
    for message in given:
        parts = [] if isinstance(message.content, str) else message.content
        if message.role not in _ROLES or any(part.type != "text" for part in parts):
            return None
        said.append(Message(message.role, message.text))
    return said


def _value(value: Any) -> float | None:
    """A score's value as a number, NaN for one that says it has none, None where it is no number."""
    if value is None:
        return math.nan
    if isinstance(value, bool | int | float):
        return None if math.isinf(value) else float(value)
    if isinstance(value, str):
        if _NUMBER.fullmatch(value.strip()):
            return float(value)
        return _VALUES.get(value, _VALUES.get(value.lower()))
    return None


def _first(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
