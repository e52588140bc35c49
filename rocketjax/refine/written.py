"""A benchmark with other checklists, as files: all else is as it was read."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import msgspec

from rocketjax.bench import Benchmark, Response


def write_benchmark(benchmark: Benchmark, kept: Mapping[str, Sequence[int]], folder: Path) -> dict[str, int]:
    """Writes the benchmark into an empty folder, with these items of each checklist that is named in `kept`.

    Items keep their weights and categories. Judgments of items get their new numbers. Returns what was left out:
    `item_judgments` of items that are gone, and `judged_responses` that have no judgment left. A record is in memory at
    a time, and equal benchmarks give equal bytes.
    """
    sessions = list(benchmark.queries)
    queries = (
        {
            "session_id": s,
            "conversation_input": [{"role": t.role, "content": t.content} for t in benchmark.queries[s].messages],
            "references": benchmark.queries[s].references,
        }
        for s in sessions
    )
    write_rows(folder / "queries.jsonl", queries)
    asked = [s for s in sessions if s in benchmark.checklists]
    checklists = (
        (benchmark.checklists[s].only(kept[s]) if s in kept else benchmark.checklists[s]).row() for s in asked
    )
    write_rows(folder / "checklist.jsonl", checklists)
    for model in benchmark.models:
        responses = benchmark.responses[model]
        rows = (response_row(responses[s]) for s in sessions if s in responses)
        write_rows(folder / "response" / f"{model}.jsonl", rows)
    left_out: Counter[str] = Counter(item_judgments=0, judged_responses=0)
    for labeler in sorted(benchmark.labels):
        for model, labels in sorted(benchmark.labels[labeler].items()):
            about = {"model_test": model}
            there = [s for s in sessions if s in labels]
            scored = ({"session_id": s, **about, "score": labels[s].score} for s in there
                      if labels[s].score is not None)  # fmt: skip
            write_rows(folder / "score" / labeler / f"{model}.jsonl", scored)

            def judged(
                labeler: str = labeler, there: list[str] = there, about: dict[str, str] = about, model: str = model
            ) -> Iterator[dict[str, object]]:
                for s in there:
                    given = benchmark.labels[labeler][model][s].items
                    if given is None:
                        continue
                    chosen = [given[i] for i in kept[s]] if s in kept else list(given)
                    known = sum(x is not None for x in chosen)
                    left_out["item_judgments"] += sum(x is not None for x in given) - known
                    if known or not any(x is not None for x in given):
                        yield {"session_id": s, **about, "judge": labeler, "judgment": [answer(x) for x in chosen]}
                    else:
                        left_out["judged_responses"] += 1

            write_rows(folder / "gold_judgment" / labeler / f"{model}.jsonl", judged())
    return dict(left_out)


def answer(p: float | None) -> str | float:
    return "N/A" if p is None else "Yes" if p == 1 else "No" if p == 0 else p


def response_row(response: Response) -> dict[str, object]:
    row: dict[str, object] = {"session_id": response.session_id, "output": [response.text]}
    if response.history is not None:
        turns = [t for t in response.history if t.role != "system"]  # the query's own, whatever a file says
        row["chat_history"] = [{"role": t.role, "content": t.content} for t in turns]
    return {**row, "generator": response.model}


def write_rows(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """JSON lines; no file where there are no rows."""
    rows = iter(rows)
    first = next(rows, None)
    if first is None:
        return
    encoder = msgspec.json.Encoder()
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        for row in chain([first], rows):
            file.write(encoder.encode(row) + b"\n")
