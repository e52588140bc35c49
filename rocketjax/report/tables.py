"""Scores and grades as plain tables: CSV, JSON lines, parquet."""

import io
import json
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from rocketjax.bench import Benchmark

FORMATS = ("csv", "jsonl", "parquet")


def tables(scores: pa.Table, grades: pa.Table, benchmark: Benchmark | None, format: str) -> Iterator[tuple[str, bytes]]:
    """`scores.*` and `grades.*`: the run's own columns, and the texts that they are about.

    Scores have `question` (the last user turn) and `response` beside them, grades `item_text`; these are null
    everywhere where there is no benchmark, so that the columns are always the same. Numbers are written with all their
    digits, what is not known as null, in CSV as nothing (an empty
    text is "" there). `scores.csv` reads back with
    `rocketjax import table ... --session session_id --score score`.
    """
    texts: dict[str, list[str | None]] = {"question": [], "response": [], "item_text": []}
    for session_id, model in _pairs(scores):
        query = benchmark.queries[session_id] if benchmark else None
        answer = benchmark.responses[model].get(session_id) if benchmark else None
        texts["question"].append(query.messages[-1].content if query else None)
        texts["response"].append(answer.text if answer else None)
    for session_id, item in zip(grades["session_id"].to_pylist(), grades["item"].to_pylist(), strict=True):
        texts["item_text"].append(benchmark.checklists[session_id].items[item] if benchmark else None)
    for name, table, columns in (("scores", scores, ("question", "response")), ("grades", grades, ("item_text",))):
        for column in columns:
            table = table.append_column(column, pa.array(texts[column], pa.string()))
        yield f"{name}.{format}", _written(table, format)


def _pairs(scores: pa.Table) -> Iterator[tuple[str, str]]:
    yield from zip(scores["session_id"].to_pylist(), scores["model"].to_pylist(), strict=True)


def _written(table: pa.Table, format: str) -> bytes:
    if format == "parquet":
        out = io.BytesIO()
        pq.write_table(table, out, compression="zstd")
        return out.getvalue()
    rows = table.to_pylist()
    if format == "jsonl":
        return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows).encode()
    lines = (",".join(map(_cell, row)) for row in (table.column_names, *(row.values() for row in rows)))
    return "".join(line + "\r\n" for line in lines).encode()


def _cell(value: object) -> str:
    """A cell as RFC 4180 has it; null is nothing and an empty text is "", as databases write them."""
    text = "" if value is None else str(value)
    plain = value is None or (text and not set(text) & set(',"\r\n') and text == text.strip())
    return text if plain else '"' + text.replace('"', '""') + '"'
