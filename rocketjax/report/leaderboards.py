"""Scores as the files that WildBench, FastChat, AlpacaEval and Chatbot Arena make their leaderboards from.

Each function takes the rows of scores.parquet that have a score that counts, and yields files: their names and content.
"""

import csv
import difflib
import io
import itertools
import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from rocketjax.bench import Benchmark, Match
from rocketjax.errors import RocketError
from rocketjax.rank.strength import ELO, TIE, fit_strengths

Rows = list[dict[str, Any]]
Files = Iterator[tuple[str, bytes]]
_MT = re.compile(r"mt(0|[1-9]\d*)_([1-9]\d*)")


def question_of(session_id: str) -> tuple[int | str, int]:
    """FastChat's question_id and turn: 81 and 2 of mt81_2, of other sessions the session itself and 1."""
    found = _MT.fullmatch(session_id)
    return (int(found[1]), int(found[2])) if found else (session_id, 1)


def wildbench(rows: Rows, benchmark: Benchmark, judge: str) -> Files:
    """score.v2/eval=<judge>/<model>.json: a list of {"session_id", "model_test", "score" (a number as text),
    "model_output"}, and what was asked, so that the file stands alone: "conversation_input", "checklist", and, where
    the model's own earlier answers are in the conversation, "chat_history", its turns before the question."""
    by_model: dict[str, Rows] = {}
    for row in rows:
        session_id, model, score = row["session_id"], row["model"], repr(row["score"])
        asked = benchmark.queries[session_id].messages
        answer = benchmark.responses[model][session_id]
        own = [] if answer.history is None else [turn.content for turn in answer.history if turn.role != "system"]
        by_model.setdefault(model, []).append(
            {
                "session_id": session_id,
                "parsed_result": {"score": score},
                "model_test": model,
                "score": score,
                "model_output": answer.text,
                **({"chat_history": own} if own else {}),
                "conversation_input": [{"role": turn.role, "content": turn.content} for turn in asked],
                "checklist": list(benchmark.checklists[session_id].items),
            }
        )
    for model, scored in by_model.items():
        yield f"score.v2/eval={judge}/{model}.json", _json(scored)


def mtbench(rows: Rows, judge: str) -> Files:
    """<judge>_single.jsonl for FastChat's model_judgment/: a line per score, with question and turn (`question_of`).

    A checklist has no written judgment, so `user_prompt` and `judgment` are empty; `tstamp` is 0, so that the same run
    is the same file.
    """
    lines = []
    for row in sorted(rows, key=lambda row: row["model"]):
        question_id, turn = question_of(row["session_id"])
        lines.append(
            {
                "question_id": question_id,
                "model": row["model"],
                "judge": [judge, "checklist"],
                "user_prompt": "",
                "judgment": "",
                "score": row["score"],
                "turn": turn,
                "tstamp": 0.0,
            }
        )
    yield f"{judge}_single.jsonl", "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()


def alpaca(rows: Rows, benchmark: Benchmark, judge: str, baseline: str, tie_margin: float) -> Files:
    """Every model against one, as AlpacaEval's results/: <model>/model_outputs.json, <model>/<judge>/annotations.json
    with `preference` 1 (the baseline's response has the higher score), 2 (the model's) or 1.5 (tie), and
    leaderboard.csv with win rates in percent and their standard errors, ties half.

    Raises RocketError where a query has several turns or two have the same text, for AlpacaEval knows queries by it.
    """
    scores: dict[str, dict[str, float]] = {}
    for row in rows:
        scores.setdefault(row["model"], {})[row["session_id"]] = row["score"]
    if baseline not in scores:
        close = difflib.get_close_matches(baseline, scores, n=1, cutoff=0.5)
        guess = f"; did you mean {close[0]!r}?" if close else "."
        raise RocketError(f"no scores of the baseline {baseline!r}{guess} There are: {', '.join(sorted(scores))}")
    instruction: dict[str, str] = {}
    for session_id in sorted({row["session_id"] for row in rows}):
        messages = benchmark.queries[session_id].messages
        if len(messages) != 1:
            raise RocketError(f"query {session_id!r} has {len(messages)} turns; AlpacaEval's format holds only one")
        instruction[session_id] = messages[0].content
    if len(set(instruction.values())) < len(instruction):
        raise RocketError("two queries have the same text; AlpacaEval's format could not tell them apart")
    board: list[tuple[float, str, list[object]]] = []
    for model, own in sorted(scores.items()):
        answers = benchmark.responses[model]
        outputs = [{"instruction": instruction[s], "output": answers[s].text, "generator": model} for s in sorted(own)]
        yield f"{model}/model_outputs.json", _json(outputs)
        if model == baseline:
            continue
        shared = sorted(own.keys() & scores[baseline].keys())
        preference = {s: 1.5 + result(own[s], scores[baseline][s], tie_margin) / 2 for s in shared}
        annotations = [
            {
                "instruction": instruction[s],
                "output_1": benchmark.responses[baseline][s].text,
                "generator_1": baseline,
                "output_2": answers[s].text,
                "generator_2": model,
                "annotator": judge,
                "preference": preference[s],
            }
            for s in shared
        ]
        if annotations:
            yield f"{model}/{judge}/annotations.json", _json(annotations)
            rate = 100 * _mean([p - 1 for p in preference.values()])
            length = _mean([len(answers[s].text) for s in shared])
            board.append((-rate, model, [model, rate, *_spread(list(preference.values())), length]))
    if not board:
        raise RocketError(f"no query has scores of both {baseline!r} and another model")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ["win_rate", "standard_error", "n_wins", "n_wins_base", "n_draws", "n_total", "avg_length"]
    writer.writerow(["", *head])
    writer.writerows(line for _, _, line in sorted(board))
    yield "leaderboard.csv", text.getvalue().encode()


def _spread(preferences: list[float]) -> list[object]:
    """The standard error of a win rate in percent (empty for one query), wins, losses, ties and their sum."""
    n = len(preferences)
    mean = _mean([p - 1 for p in preferences])
    spread = sum((p - 1 - mean) ** 2 for p in preferences)
    error: object = 100 * math.sqrt(spread / (n - 1) / n) if n > 1 else ""
    counts = [sum(p == 2 for p in preferences), sum(p == 1 for p in preferences), sum(p == 1.5 for p in preferences)]
    return [error, *counts, n]


def _mean(values: list[Any]) -> float:
    return float(sum(values)) / len(values)


def arena(rows: Rows, judge: str, tie_margin: float) -> Files:
    """battles.json: every pair of responses to a query, as {"question_id", "model_a", "model_b", "winner" ("model_a",
    "model_b" or "tie"), "judge", "turn", "anony", "tstamp"}, as FastChat's rating scripts read them.

    A checklist knows no "tie (bothbad)". `anony` is true: the judge is not told who answered. `tstamp` is 0 and the
    order is that of the queries, so ratings that depend on the order of matches (Elo online) mean nothing here;
    Bradley-Terry does not.
    """
    by_session: dict[str, Rows] = {}
    for row in rows:
        by_session.setdefault(row["session_id"], []).append(row)
    winner = {1: "model_a", -1: "model_b", 0: "tie"}
    battles = []
    for session_id, there in by_session.items():
        question_id, turn = question_of(session_id)
        for a, b in itertools.combinations(sorted(there, key=lambda row: row["model"]), 2):
            battles.append(
                {
                    "question_id": question_id,
                    "model_a": a["model"],
                    "model_b": b["model"],
                    "winner": winner[result(a["score"], b["score"], tie_margin)],
                    "judge": judge,
                    "turn": turn,
                    "anony": True,
                    "tstamp": 0.0,
                }
            )
    if not battles:
        raise RocketError("no query has scores of two models, so there are no matches")
    yield "battles.json", _json(battles)


CENTRE = 1000.0  # mean rating, as in the arena


def ratings(matches: Sequence[Match]) -> dict[str, dict[str, float | int | None]]:
    """Bradley-Terry ratings of matches by model, best first: {"rating", "num_battles"}.

    400 points are odds of 10, the mean is 1000, a tie is half a win for both, as in Chatbot Arena. The rating is None
    where it has no finite value: of models that only won or only lost against the rest, or that no match connects with
    it. Raises RocketError where fewer than two models have one.
    """
    models = sorted({model for match in matches for model in match[:2]})
    index = {model: i for i, model in enumerate(models)}
    win_MM, tie_MM = np.zeros((2, len(models), len(models)))
    for model_a, model_b, share in matches:
        a, b = index[model_a], index[model_b]
        if share == 0.5:
            tie_MM[[a, b], [b, a]] += 1
        else:
            win_MM[(a, b) if share > 0.5 else (b, a)] += 1
    with jax.enable_x64(True):
        theta_M = np.asarray(fit_strengths(win_MM, tie_MM, ties="half").theta_M)
    if np.isfinite(theta_M).sum() < 2:
        raise RocketError(
            f"the {len(matches)} matches of {len(models)} models give no rating: no two of them have each lost to the "
            "other, directly or through others"
        )
    played_M = (win_MM + win_MM.T + tie_MM).sum(axis=1)
    order = sorted(models, key=lambda model: (-np.nan_to_num(theta_M[index[model]], nan=-np.inf), model))
    return {
        model: {
            "rating": CENTRE + ELO * float(theta_M[i]) if np.isfinite(theta_M[i]) else None,
            "num_battles": int(played_M[i]),
        }
        for model in order
        for i in [index[model]]
    }


def result(a: float, b: float, tie_margin: float) -> int:
    """1 if a beats b, -1 if b beats a, 0 if they differ by no more than the margin."""
    return 0 if abs(a - b) <= tie_margin + TIE else 1 if a > b else -1


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).encode()
