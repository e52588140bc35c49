"""A run as one HTML file: `page.html` with its style and script, filled with what `collect` gathered.

The file needs no network and forbids itself any (Content-Security-Policy). Everything that comes from a benchmark or a
model is escaped; scripts put texts into the page as text nodes only.
"""

import base64
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

import rocketjax
from rocketjax.bench import Benchmark, Message
from rocketjax.errors import RocketError
from rocketjax.files import path_of
from rocketjax.grade import Run, write_atomically
from rocketjax.rank import rank_models
from rocketjax.report.collect import JUDGMENTS, LONGEST, Judgment, Progress, Report, collect
from rocketjax.report.details import browser, exclusions, facts, items
from rocketjax.report.elements import esc, visible
from rocketjax.report.quality import agreement, calibration, heads
from rocketjax.report.standing import leaderboard, pairs, summary
from rocketjax.reweight import score

HERE = Path(__file__).parent


def write_report(
    run: Run,
    benchmark: Benchmark | None = None,
    output: str | os.PathLike[str] | None = None,
    *,
    labeler: str | None = None,
    ratings: Mapping[str, float] | None = None,
    ratings_name: str | None = None,
    heads: bool = False,
    price: float | None = None,
    judgments: int = JUDGMENTS,
    samples: int = 1000,
    say: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Writes the report of a complete run, whole or not at all, and returns its path (default: RUN/report.html).

    Scores and ranking that lack are made as `score` and `rank_models` make them without options, and `say` hears of it.
    `benchmark` is the part that the run graded (`rocketjax.grade.restrict`), with the texts; `labeler` one of its
    labelers, `ratings` known ratings of the models, called `ratings_name`; `heads` compares all heads on the labels;
    `price` is in dollars per device and hour; at most `judgments` responses can be browsed; `samples` of the
    bootstrap give the intervals of agreement. The same input gives the
    same bytes. Raises RocketError as the stages before do.
    """
    path = path_of(output) if output is not None else run.path / "report.html"
    if path.is_dir():
        raise RocketError(f"{path}: is a folder; name a file with -o")
    run.require_complete()
    tell = say or (lambda message: None)
    if not (run.path / "scores.parquet").exists():
        tell("no scores yet: making them, the mean of the items (rocketjax score has other heads)")
        score(run)
    if not (run.path / "ranking.json").exists():
        tell("no ranking yet: making it, by mean score (rocketjax rank has other methods)")
        rank_models(run)
    page = render(
        collect(
            run, benchmark, labeler=labeler, ratings=ratings, ratings_name=ratings_name, heads=heads, price=price,
            judgments=judgments, samples=samples, progress=progress,
        )
    ).encode()  # fmt: skip
    try:
        write_atomically(path, lambda file: file.write(page))
    except OSError as e:
        raise RocketError(f"{path}: cannot be written ({e})") from None
    return path


def render(report: Report) -> str:
    """The page."""
    css, js, skeleton = ((HERE / f"page.{kind}").read_text("utf-8").strip() for kind in ("css", "js", "html"))
    sections = (
        ("leaderboard", "Leaderboard", leaderboard(report)),
        ("pairs", "Model against model", pairs(report)),
        ("agreement", "Agreement", agreement(report)),
        ("calibration", "Calibration", calibration(report)),
        ("heads", "Heads", heads(report)),
        ("items", "Checklist items", items(report)),
        ("browse", "Single judgments", browser(report)),
        ("facts", "Run", facts(report)),
        ("left-out", "Left out", exclusions(report)),
    )
    made = f"Made by RocketJAX {esc(rocketjax.__version__)} from the run {esc(report.run)}"
    return Template(skeleton).substitute(
        title=esc(f"{report.name}: RocketJAX report"),
        name=esc(report.name),
        summary=summary(report),
        nav="".join(f'<li><a href="#{key}">{title}</a></li>' for key, title, _ in sections),
        main="\n".join(f'<section id="{key}"><h2>{title}</h2>\n{body}\n</section>' for key, title, body in sections),
        footer=f"{made}. This page loads nothing and sends nothing.",
        data=embedded(report),
        css=css,
        js=js,
        css_hash=digest(css),
        js_hash=digest(js),
    )


def digest(text: str) -> str:
    """What a Content-Security-Policy knows an inline style or script by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def embedded(report: Report) -> str:
    """The browser's data as JSON that no HTML parser can leave: none of `<`, `>`, `&` and the line separators."""
    asked = dict.fromkeys(j.session_id for j in report.judgments)
    queries = {
        visible(session): {
            "turns": turns(report.questions.get(session, ())),
            "items": [shown(text) for text in report.checklists.get(session, ())],
            "weights": [round(w, 3) for w in report.weight_of.get(session, ())],
        }
        for session in asked
    }
    labeler = None if report.labeler is None else visible(report.labeler)
    data = {"queries": queries, "labeler": labeler, "judgments": [entry(j) for j in report.judgments]}
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def entry(j: Judgment) -> dict[str, Any]:
    """A judgment as the page's script reads it."""
    return {
        "session_id": visible(j.session_id),
        "model": visible(j.model),
        "score": rounded(j.score),
        "error": rounded(j.error),
        "abstained": j.abstained,
        "label": rounded(j.label),
        "wrong": rounded(j.wrong),
        "p": [rounded(p) for p in j.p],
        "status": j.status,
        "item_labels": j.item_labels,
        "truncated": j.truncated,
        "text": None if j.text is None else shown(j.text),
        "history": None if j.history is None else turns(j.history),
    }


def rounded(x: float | None) -> float | None:
    return None if x is None else round(x, 4)


def turns(messages: Sequence[Message]) -> list[list[Any]]:
    """Roles and texts."""
    return [[m.role, shown(m.content)] for m in messages]


def shown(text: str) -> str | list[Any]:
    """A text; of a very long one its beginning, how many characters are not in the page, and its end."""
    if len(text) <= LONGEST:
        return visible(text)
    half = LONGEST // 2
    return [visible(text[:half]), len(text) - 2 * half, visible(text[-half:])]
