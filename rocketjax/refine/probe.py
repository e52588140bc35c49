"""Every item asked again in other words: does the judge's answer hang on the wording?

Only the wording is varied. The order of a checklist's items cannot matter: each is a branch of its own, and no item
sees another.

Axes: Q queries, M models under test, I checklist items, W wordings.
"""

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from rocketjax.bench import Benchmark, Checklist, only
from rocketjax.grade import OK, Judge, Run
from rocketjax.refine.evidence import Evidence, Float
from rocketjax.refine.reasons import Key, Reason, share

# The answer should stay the same to these, and turn around at the last.
WORDINGS = (
    "Look at the response again. {}",
    "{} Go by what the response says.",
    "Answer this question about the response: {}",
)
NEGATION = "Is 'no' the right answer to this question about the response: {}"
MOVED = 0.2  # of p: a smaller move across one half is no other answer
UNSURE, WRONG = 0.25, 0.5  # share of other answers that flags an item, and that drops it


class Probes(NamedTuple):
    """p(yes) under every wording, f64[Q, M, I, W], the last one negated; NaN where it was not asked."""

    p_QMIW: Float

    def negation_followed(self, e: Evidence) -> tuple[int, int]:
        """Of how many negated questions, out of how many, the judge's verdict is the other one, as it should be."""
        p = self.p_QMIW[..., -1]
        asked = np.isfinite(p) & np.isfinite(e.p_QMI)
        return int((((p > 0.5) != (e.p_QMI > 0.5)) & asked).sum()), int(asked.sum())


def chosen_responses(e: Evidence, count: int) -> list[list[str]]:
    """`count` models of each query, evenly spread from the response with the lowest mean of p to the highest."""
    out = []
    for q in range(len(e.sessions)):
        rows = np.flatnonzero(np.isfinite(e.p_QMI[q]).any(axis=1))
        with_mean = sorted((float(np.nanmean(e.p_QMI[q, m])), e.models[m]) for m in rows)
        places: list[int] = []
        if with_mean:
            places = np.linspace(0, len(with_mean) - 1, min(count, len(with_mean))).round().astype(int).tolist()
        out.append([with_mean[k][1] for k in places])
    return out


def probe(judge: Judge, run: Run, benchmark: Benchmark, e: Evidence, count: int) -> Probes:
    """Grades `count` responses of each query again under all wordings, with the run's settings.

    The grades are not kept. That costs four times as many items as the checklists have, for each of the responses.
    """
    wordings = (*WORDINGS, NEGATION)
    asked = chosen_responses(e, count)
    checklists = {
        s: Checklist(s, tuple(w.format(item) for w in wordings for item in e.texts[q]))
        for q, s in enumerate(e.sessions)
    }
    responses = {
        m: only(benchmark.responses[m], {s for s, names in zip(e.sessions, asked, strict=True) if m in names})
        for m in e.models
    }
    part = msgspec.structs.replace(
        benchmark, checklists=checklists, responses={m: r for m, r in responses.items() if r}
    )
    settings: dict[str, Any] = {k: v for k, v in run.meta["prompt"].items() if k != "chat"}
    settings["overflow"] = "truncate-middle"  # a few more words must not stop it
    p_QMIW = np.full((*e.p_QMI.shape, len(wordings)), np.nan)
    with tempfile.TemporaryDirectory(prefix="rocketjax-") as folder:
        table = judge.grade(part, Path(folder) / "run", **settings).grades
    q_of, m_of = ({name: k for k, name in enumerate(names)} for names in (e.sessions, e.models))
    columns = (table[c].to_pylist() for c in ("session_id", "model", "item", "p_yes", "status"))
    for session, model, item, p, status in zip(*columns, strict=True):
        if status == OK:
            q = q_of[session]
            wording, i = divmod(item, len(e.texts[q]))
            p_QMIW[q, m_of[model], i, wording] = p
    return Probes(p_QMIW)


def unstable(e: Evidence, probes: Probes) -> dict[Key, Reason]:
    """Items whose answer is another one in other words: flagged where that is surely so for more than `UNSURE` of the
    probes, dropped above `WRONG`. The negated question decides nothing, since a small judge may follow none; `negated`
    is how often its answer was the other one."""
    found = {}
    for q, i in np.argwhere(e.item_QI):
        before_M1 = e.p_QMI[q, :, i, None]
        after_MW = probes.p_QMIW[q, :, i, :-1]
        asked = np.isfinite(before_M1) & np.isfinite(after_MW)
        moved = ((before_M1 > 0.5) != (after_MW > 0.5)) & (np.abs(before_M1 - after_MW) > MOVED) & asked
        n, count = int(asked.sum()), int(moved.sum())
        if n and (low := share(count, n)[0]) > UNSURE:
            negated = probes.p_QMIW[q, :, i, -1]
            turned = int((((negated > 0.5) != (before_M1[:, 0] > 0.5)) & np.isfinite(negated)).sum())
            numbers = {"probes": n, "other_answer": count, "share_at_least": low, "negated": turned}
            found[int(q), int(i)] = Reason("unstable", low > WRONG, numbers)
    return found
