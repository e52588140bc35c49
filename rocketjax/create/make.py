"""A benchmark's queries through a language model into checklists, and the benchmark with them."""

import hashlib
import itertools
import os
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from rocketjax import __version__
from rocketjax.bench import Checklist, Message, Query, Response, load_benchmark
from rocketjax.bench.read import (
    _content,
    _label_files,
    _list,
    _models,
    _one,
    _read_checklists,
    _read_queries,
    _read_responses,
    _Row,
    _rows,
)
from rocketjax.bench.stored import Store
from rocketjax.create.api import ApiWriter, checked, most_output
from rocketjax.create.batch import write_prompts
from rocketjax.create.folder import ABOUT, FAILED, FORMAT, OK, UNREADABLE, Folder, Mode, Record, check_folder, opened
from rocketjax.create.local import LocalWriter, checked_local, count_local
from rocketjax.create.parse import parse_checklist
from rocketjax.create.prompts import WORDINGS, Wording, wording
from rocketjax.create.spend import Price, price_of
from rocketjax.create.writer import Writer, Written, api_name, approximate_tokens, chat_key
from rocketjax.errors import RocketError
from rocketjax.files import path_of, require_local
from rocketjax.grade import write_atomically

ASKED = 2  # times that a query is asked, where no answer can be read
_ROW = msgspec.json.Decoder(_Row)


@dataclass(frozen=True)
class Source:
    """What the checklists are for: a benchmark that may have none, or for some queries only, and no responses."""

    path: Path
    queries: Mapping[str, Query]
    checklists: Mapping[str, Checklist]
    responses: Mapping[str, Mapping[str, Response]]


@dataclass(frozen=True)
class Prompt:
    """What is asked about one query, and what is shown beside it."""

    chat: tuple[Message, ...]
    compared: tuple[str, ...]
    reference: str | None


@dataclass(frozen=True)
class Plan:
    """Every query that lacks a checklist: its prompt, or why it cannot be asked."""

    source: Source
    wording: Wording
    made: dict[str, Any]
    """How the prompts are made; JSON values."""
    prompts: dict[str, Prompt]
    unfit: dict[str, str]
    kept: frozenset[str]
    """Queries that keep the checklist they have."""
    left: int
    """Queries beyond the limit."""


@dataclass(frozen=True)
class Estimate:
    """What asking would take."""

    prompts: int
    prompt_tokens: int
    exact: bool
    """Whether they are counted by the model's tokenizer. Nobody knows a server's: about four bytes each."""
    most_completion_tokens: int | None
    usd: float | None
    """With the most tokens that each answer may have; None without a price or such a limit."""
    kept: int
    unfit: dict[str, str]


@dataclass(frozen=True)
class Created:
    """What was made. `failed` names every query that was to have a checklist and has none, with the reason."""

    path: Path
    queries: int
    created: int
    kept: int
    left: int
    """Queries beyond the limit, which have no checklist."""
    items: int
    refused: dict[str, int]
    failed: dict[str, str]
    asked: int
    """Answers that this call received."""
    prompt_tokens: int
    completion_tokens: int
    usd: float | None
    """What all calls for this folder cost, at worst where the server did not say; None without prices."""
    labels_left_out: int = 0
    """Rows of labels of items whose checklist was replaced, or never was there."""


def read_source(path: str | os.PathLike[str]) -> Source:
    """The queries of a benchmark's folder, and of checklists and responses what there is."""
    root = path_of(path)
    require_local(root)
    found = _list(root)
    load = _read_queries(root, found)
    has_file = _one(root, found, ["checklist", "checklist/checklist"]) is not None
    checklists: Mapping[str, Checklist] = {}
    if has_file or load.checked:
        checklists = _read_checklists(load, found, needed=False)
    responses = _read_responses(load, found, {}) if "response" in found and _models(root / "response") else {}
    return Source(root, load.queries, checklists, responses)


def plan_checklists(
    bench: str | os.PathLike[str],
    template: str = "native",
    compare: int = 0,
    reference: str | None = None,
    limit: int | None = None,
    everything: bool = False,
    seed: int = 0,
) -> Plan:
    """The prompts for all queries without a checklist; the parameters are those of `create_checklists`."""
    source, words = read_source(bench), wording(template)
    if compare == 1 or compare < 0:
        raise RocketError("a comparison takes at least 2 responses")
    if compare and not words.compares:
        raise RocketError(f"template {words.name!r} has no place for responses to compare; native has")
    if words.compares and template not in WORDINGS and not compare:
        raise RocketError(f"template {words.name!r} shows {{responses}}; say how many with --compare")
    if compare > len(source.responses):
        raise RocketError(f"{source.path}: has {len(source.responses)} models, {compare} responses cannot be compared")
    authors = {author for query in source.queries.values() for author in query.references}
    if reference is not None and reference not in authors:
        known = ", ".join(sorted(authors)) or "none"
        raise RocketError(f"{source.path}: no references by {reference!r}; references by: {known}")
    kept = frozenset() if everything else frozenset(source.checklists)
    lacking = sorted(source.queries.keys() - kept)
    if not lacking:
        raise RocketError(f"{source.path}: every query has a checklist; --all writes new ones for all")
    prompts: dict[str, Prompt] = {}
    unfit: dict[str, str] = {}
    for session_id in lacking[:limit]:
        query = source.queries[session_id]
        shown = pick(source, session_id, compare, seed) if compare else {}
        if len(shown) < compare:
            unfit[session_id] = f"has {len(shown)} different responses to compare, {compare} were asked for"
            continue
        author = reference if reference is not None else min(query.references, default=None)
        chat = words.chat(query.messages, query.references.get(author or ""), list(shown.values()))
        prompts[session_id] = Prompt(chat, tuple(shown), author if author in query.references else None)
    made = {
        "template": words.name,
        "template_sha256": words.sha256,
        "compare": compare,
        "seed": seed if compare else None,
        "reference": reference,
        "all": everything,
    }
    return Plan(source, words, made, prompts, unfit, kept, len(lacking) - len(lacking[:limit]))


def pick(source: Source, session_id: str, count: int, seed: int) -> dict[str, str]:
    """Up to `count` different responses that are not blank, by model, drawn by a hash of seed, query and model."""

    def drawn(model: str) -> bytes:
        return hashlib.sha256(f"{seed}\0{session_id}\0{model}".encode()).digest()

    out: dict[str, str] = {}
    for model in sorted(source.responses, key=drawn):
        response = source.responses[model].get(session_id)
        if response is not None and response.text.strip() and response.text not in out.values():
            out[model] = response.text
        if len(out) == count:
            break
    return out


def estimate_checklists(
    plan: Plan,
    generator: str,
    settings: Mapping[str, Any] | None = None,
    prices: Mapping[str, Price] | None = None,
    say: Callable[[str], None] | None = None,
) -> Estimate:
    """What `create_checklists` would ask of this generator, counted without asking; `say` tells of a download."""
    chats = {prompt.chat for prompt in plan.prompts.values()}
    if (model := api_model(generator)) is not None:
        most = most_output(checked(settings))
        tokens, price = sum(map(approximate_tokens, chats)), price_of(prices, model, None)
    else:
        most = checked_local(settings)["max_tokens"]
        tokens, price = count_local(generator, list(chats), say), None
    usd = price.of(tokens, most * len(chats)) if price and most is not None else None
    return Estimate(
        prompts=len(chats),
        prompt_tokens=tokens,
        exact=model is None,
        most_completion_tokens=None if most is None else most * len(chats),
        usd=usd,
        kept=len(plan.kept),
        unfit=dict(plan.unfit),
    )


def api_model(generator: str) -> str | None:
    """MODEL of api:MODEL; None for a model on this machine. RocketError where there is no name."""
    kind, colon, model = generator.partition(":")
    if not generator or (kind == "api" and colon and not model):
        raise RocketError(f"generator is {generator!r}; expected api:MODEL, org/name, a path or default")
    return model if kind == "api" and colon else None


def write_batch(
    plan: Plan,
    path: str | os.PathLike[str],
    model: str,
    settings: Mapping[str, Any] | None = None,
    output: str | os.PathLike[str] | None = None,
) -> int:
    """Writes what is to be asked into a file for a batch service (see `batch`), and returns how many requests.

    With `output`, a folder begun by `create_checklists`, only what has no checklist there yet.
    """
    body, name, done = checked(settings), api_name(model), set[str]()
    if output is not None:
        begun = path_of(output)
        if not (begun / ABOUT).exists():
            raise RocketError(f"{begun}: holds no checklists of rocketjax create; leave -o out for all requests")
        with opened(begun, about(plan, name, body), "resume") as folder:
            done = {s for s, prompt in plan.prompts.items() if finished(folder, s, chat_key(name, body, prompt.chat))}
    chats = [prompt.chat for s, prompt in plan.prompts.items() if s not in done]
    target = path_of(path)
    require_local(target)
    return write_prompts(target, model, body, chats)


def about(plan: Plan, name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What create.json says from the beginning."""
    made = {**plan.made, "generator": name, "settings": dict(settings)}
    return {"format": FORMAT, "benchmark": plan.source.path.absolute().name, "made": made, "rocketjax": __version__}


def finished(folder: Folder, session_id: str, key: str) -> Record | None:
    """The record of a query that need not be asked any more."""
    record = folder.records.get(session_id)
    if record is None or record.key != key:
        return None
    return record if record.status == OK or (record.status == UNREADABLE and record.asked >= ASKED) else None


def create_checklists(
    bench: str | os.PathLike[str],
    output: str | os.PathLike[str],
    writer: Writer | str | Callable[[], Writer],
    *,
    template: str = "native",
    compare: int = 0,
    reference: str | None = None,
    limit: int | None = None,
    everything: bool = False,
    seed: int = 0,
    mode: Mode = "new",
    progress: Callable[[int, int], None] | None = None,
) -> Created:
    """Writes a checklist for every query of `bench` that has none, and into folder `output` the benchmark with them.

    `writer` is a `Writer`, "api:MODEL" for an `ApiWriter`, or a model on this machine as `Judge.load` takes them
    ("default": the embedded one) for a `LocalWriter`, with their defaults; or what makes a `Writer`, which is called
    once all else is in order. `template` is "native", "rocketeval" or a file (see `prompts.wording`). With `compare`,
    so many responses to the query are shown, drawn by `seed`, and the criteria come from their differences. `reference`
    is the author whose reference answer is shown; left out, the first of the query's in the alphabet. `limit` asks for
    the first so many queries only (by id); `everything` replaces the checklists that are there, and leaves out the
    labels of their items. An answer that holds no item is asked for once more. Every answer is kept as soon as it
    comes; with mode "resume" only what lacks is asked. Raises RocketError for a benchmark, template, folder or setting
    that is not as it should be; what a model or server does wrong is counted in the result instead, by query.
    """
    plan = plan_checklists(bench, template, compare, reference, limit, everything, seed)
    target = path_of(output)
    require_local(target)
    if target.resolve() == plan.source.path.resolve():
        raise RocketError(f"{target}: is the benchmark itself; give another folder for the one with checklists")
    check_folder(target, mode)  # before a model is fetched and loaded
    if callable(writer):
        writer = writer()
    elif isinstance(writer, str):
        model = api_model(writer)
        writer = LocalWriter(writer) if model is None else ApiWriter(model)
    beginning = about(plan, writer.name, writer.settings)
    with opened(target, beginning, mode) as folder:
        return fill(plan, folder, writer, beginning, progress)


def fill(
    plan: Plan,
    folder: Folder,
    writer: Writer,
    beginning: Mapping[str, Any],
    progress: Callable[[int, int], None] | None,
) -> Created:
    """Asks what is not finished, twice where the first answer cannot be read, and writes the benchmark."""
    keys = {s: chat_key(writer.name, writer.settings, p.chat) for s, p in plan.prompts.items()}
    if isinstance(writer, ApiWriter):
        writer.purse.spent = sum(record.usd or 0.0 for record in folder.records.values())
    asked = prompt_tokens = completion_tokens = 0
    for turn in range(ASKED if writer.again else 1):
        groups: dict[str, list[str]] = {}  # two queries may ask the same, and then it is asked once
        for session_id, key in keys.items():
            if finished(folder, session_id, key):
                continue
            if turn == 0 or folder.records[session_id].status == UNREADABLE:
                groups.setdefault(key, []).append(session_id)
        done = len(keys) - sum(map(len, groups.values()))
        chats = [plan.prompts[sessions[0]].chat for sessions in groups.values()]
        places = list(groups.items())
        before = [answered(folder, sessions[0], key) for key, sessions in places]
        for place, written in writer.write(chats, before):
            key, sessions = places[place]
            asked += 1
            prompt_tokens += written.prompt_tokens or 0
            completion_tokens += written.completion_tokens or 0
            for n, session_id in enumerate(sessions):
                old = folder.records.get(session_id)
                folder.commit(record_of(plan.prompts[session_id], session_id, key, writer, written, old, first=n == 0))
            done += len(sessions)
            if progress is not None:
                progress(done, len(keys))
    return publish(plan, folder, keys, beginning, (asked, prompt_tokens, completion_tokens))


def answered(folder: Folder, session_id: str, key: str) -> int:
    """How often a query got an answer to this very chat."""
    record = folder.records.get(session_id)
    return record.asked if record is not None and record.key == key else 0


def record_of(
    prompt: Prompt, session_id: str, key: str, writer: Writer, written: Written, old: Record | None, first: bool
) -> Record:
    """An answer, read. Its tokens and cost are of the first of the queries that it is for; cost adds up."""
    before = old if old is not None and old.key == key else None
    parsed = parse_checklist(written.text, written.cut) if written.text is not None else None
    if parsed is None:
        status, reason = FAILED, written.reason
    elif parsed.items:
        status, reason = OK, ""
    else:
        why = Counter(refused.reason for refused in parsed.refused).most_common(1)
        status, reason = UNREADABLE, f"no question in the answer{f' ({why[0][0]})' if why else ''}"
    spent = old.usd if old is not None else None
    now = written.usd if first else None
    return Record(
        session_id=session_id,
        key=key,
        model=writer.name,
        served=written.served,
        settings=dict(writer.settings),
        status=status,  # type: ignore[arg-type]
        reason=reason,
        asked=(before.asked if before else 0) + (written.text is not None),
        answer=written.text,
        items=parsed.items if parsed else (),
        refused=parsed.refused if parsed else (),
        compared=prompt.compared,
        reference=prompt.reference,
        prompt_tokens=written.prompt_tokens if first else None,
        completion_tokens=written.completion_tokens if first else None,
        usd=None if spent is None and now is None else (spent or 0.0) + (now or 0.0),
    )


def publish(
    plan: Plan, folder: Folder, keys: Mapping[str, str], beginning: Mapping[str, Any], work: tuple[int, int, int]
) -> Created:
    """Writes the benchmark with its checklists, the counts and the records, and reads it back."""
    source, records = plan.source, folder.records
    failed = dict(plan.unfit)
    made: dict[str, Record] = {}
    for session_id, key in keys.items():
        record = records.get(session_id)
        if record is None or record.key != key:
            failed[session_id] = "was not asked"
        elif record.status == OK:
            made[session_id] = record
        else:
            failed[session_id] = record.reason
    costs = [record.usd for record in records.values() if record.usd is not None]
    created = Created(
        path=folder.path,
        queries=len(source.queries),
        created=len(made),
        kept=len(plan.kept),
        left=plan.left,
        items=sum(len(record.items) for record in made.values()),
        refused=dict(sorted(Counter(r.reason for record in made.values() for r in record.refused).items())),
        failed=dict(sorted(failed.items())),
        asked=work[0],
        prompt_tokens=work[1],
        completion_tokens=work[2],
        usd=sum(costs) if costs else None,
    )
    lost = write_benchmark(plan, folder.path, made) if made or plan.kept else 0
    created = replace(created, labels_left_out=lost)
    if (made or plan.kept) and any(source.responses.values()):
        load_benchmark(folder.path)  # what was written must be readable
    counts = {
        "queries": created.queries,
        "created": created.created,
        "kept": created.kept,
        "left": created.left,
        "items": created.items,
        "refused": created.refused,
        "failed": len(created.failed),
        "labels_left_out": created.labels_left_out,
        "usd": created.usd,
    }
    folder.finish({**beginning, "counts": counts})
    return created


# The benchmark's files.


def write_benchmark(plan: Plan, out: Path, made: Mapping[str, Record]) -> int:
    """Queries without checklists of their own, responses and labels, and last the checklists.

    Returns how many rows of labels were left out: they are of items that are there no more.
    """
    root = plan.source.path
    found = _list(root)
    queries = _one(root, found, ["queries", "query"])
    assert queries is not None
    encoder, decoder = msgspec.json.Encoder(), msgspec.json.Decoder(dict[str, Any])

    def without_checklists() -> Iterator[bytes]:
        for text in texts(queries):
            row = decoder.decode(text)
            if row.pop("checklist", None):  # without one they are of something else
                for field in ("weights", "categories"):
                    row.pop(field, None)
            yield encoder.encode(row) + b"\n"

    write_lines(out / "queries.jsonl", without_checklists())
    for file in _models(root / "response").values() if "response" in found else ():
        write_atomically(out / "response" / file.name, lambda to, file=file: copy(file, to))  # type: ignore[misc]
    for labeler, _, file in _label_files(root, "score", found):
        write_atomically(out / "score" / labeler / file.name, lambda to, file=file: copy(file, to))  # type: ignore[misc]
    lost = 0
    for labeler, model, file in _label_files(root, "gold_judgment", found):
        # Labels of items are of the checklists that they were made for.
        still = (text + b"\n" for text in texts(file, plan.kept))
        kept = write_lines(out / "gold_judgment" / labeler / f"{model}.jsonl", still, leave_empty=True)
        lost += sum(1 for _ in texts(file)) - kept

    def checklists() -> Iterator[bytes]:
        for session_id in plan.source.queries:
            row: dict[str, Any] = {"session_id": session_id}
            if session_id in made:
                items = made[session_id].items
                row["checklist"] = [item.question for item in items]
                if any(item.weight is not None for item in items):
                    row["weights"] = [item.weight for item in items]
                if any(item.category is not None for item in items):
                    row["categories"] = [item.category for item in items]
            elif session_id in plan.kept:
                row = plan.source.checklists[session_id].row()
            else:
                continue
            yield encoder.encode(row) + b"\n"

    write_lines(out / "checklist.jsonl", checklists())
    return lost


def texts(file: Path, sessions: Container[str] | None = None) -> Iterator[bytes]:
    """The rows of a file on a line each, those of these sessions."""
    for _, row, _, text in _rows(file, _content(file, Store()), _ROW):
        if sessions is None or row.session_id in sessions:
            yield msgspec.json.format(text, indent=0) if b"\n" in text else text


def write_lines(path: Path, lines: Iterator[bytes], leave_empty: bool = False) -> int:
    """Writes a file of lines atomically and returns how many; with `leave_empty`, no file where there is no line."""
    first = next(lines, None)
    if first is None and leave_empty:
        path.unlink(missing_ok=True)
        return 0
    count = 0

    def write(file: Any) -> None:
        nonlocal count
        for line in () if first is None else itertools.chain((first,), lines):
            file.write(line)
            count += 1

    write_atomically(path, write)
    return count


def copy(source: Path, target: Any) -> None:
    with open(source, "rb") as file:
        while block := file.read(1 << 20):
            target.write(block)
