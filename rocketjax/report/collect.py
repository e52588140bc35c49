"""What a report shows, gathered from a run: one frozen structure, without a word of HTML.

Axes: Q queries, M models, I items, S clusters (queries), N pairs of a score and a label.
"""

import datetime
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.stats import norm, rankdata
from scipy.stats import t as student

from rocketjax.bench import Benchmark, Message
from rocketjax.errors import RocketError
from rocketjax.grade import OK, Run
from rocketjax.rank import agree
from rocketjax.rank.agreement import graded_items
from rocketjax.rank.scored import Scored, scored
from rocketjax.reweight import (
    WEIGHED,
    Panel,
    about_scores,
    as_rows,
    compare,
    features_of,
    item_shares,
    item_table,
    labels_of,
    load_head,
    panel,
    require_questions,
    unlabelled_weights,
)
from rocketjax.reweight.items import relative

Float = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]

JUDGMENTS = 400  # responses in the browser, if nobody says otherwise
LONGEST = 50_000  # characters of a text that are shown; the page says so where it cuts one
BINS = 10
LOW_MASS = 0.1  # P(Yes) + P(No) below this: the judge had something else to say


@dataclass(frozen=True)
class Bin:
    """Things of like score: their number, the queries they are from, mean score, mean label and its interval, whose
    ends are None where one query says nothing of the spread."""

    n: int
    queries: int
    score: float
    label: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Kept:
    """A point of a risk-coverage curve, with the interval of its risk."""

    coverage: float
    risk: float
    threshold: float
    low: float | None
    high: float | None


@dataclass(frozen=True, eq=False)
class Reference:
    """A labeler or ratings beside the run: what `agree` says, and what can be drawn."""

    name: str
    kind: str  # "labels" or "ratings"
    agreement: Mapping[str, Any]
    values: Mapping[str, float]  # of the models: the mean label over the queries that all have, or the rating
    same_scale: bool  # whether scores and labels are points of the same scale
    labelled: int  # responses with a score, its standard error and a label
    scores: tuple[Bin, ...]  # labels by score; empty where there are none
    items: tuple[Bin, ...]  # labels of items by p(yes)
    curve: tuple[Kept, ...]


@dataclass(frozen=True, eq=False)
class Judgment:
    """One response as the browser shows it. `wrong` is how far score and label lie apart, as shares of all labelled
    responses that stand below them: 0 the same place, 1 from one end to the other."""

    session_id: str
    model: str
    score: float | None
    error: float | None
    abstained: bool
    label: float | None
    wrong: float | None
    p: tuple[float | None, ...]
    status: tuple[str, ...]
    item_labels: tuple[float | None, ...] | None
    truncated: int  # characters that the judge did not see
    text: str | None
    history: tuple[Message, ...] | None


@dataclass(frozen=True)
class LeftOut:
    """Something that was left out: how many of what, and where."""

    count: int
    what: str
    places: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Spent:
    """What the grading processes used, summed; times in seconds."""

    processes: int
    unreadable: int
    started: tuple[str, ...]
    devices: tuple[str, ...]
    seconds: float
    device_seconds: float
    figures: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Report:
    """All that the page shows."""

    name: str  # of the benchmark
    run: str  # the folder's name
    meta: Mapping[str, Any]  # run.json
    about: Mapping[str, Any]  # of the scores
    ranking: Mapping[str, Any]  # ranking.json
    has_texts: bool
    labelers: tuple[str, ...]  # that the benchmark has
    labeler: str | None  # whose labels were asked for
    references: tuple[Reference, ...]
    heads: tuple[Mapping[str, Any], ...] | None  # None: not computed
    items: tuple[Mapping[str, Any], ...]  # the worst first, the best last
    weights: str  # whose the items' weights are, or why there are none
    weight_of: Mapping[str, tuple[float, ...]]
    questions: Mapping[str, tuple[Message, ...]]  # of the judgments shown
    checklists: Mapping[str, tuple[str, ...]]
    judgments: tuple[Judgment, ...]
    judgments_total: int
    status: Mapping[str, int]
    mass: tuple[float, int, int] | None  # mean answer mass, items below LOW_MASS, items that have one
    left_out: tuple[LeftOut, ...]
    spent: Spent
    price: float | None  # dollars per device and hour


def collect(
    run: Run,
    benchmark: Benchmark | None = None,
    *,
    labeler: str | None = None,
    ratings: Mapping[str, float] | None = None,
    ratings_name: str | None = None,
    heads: bool = False,
    price: float | None = None,
    judgments: int = JUDGMENTS,
    samples: int = 1000,
    progress: Progress | None = None,
) -> Report:
    """Gathers the report of a complete, scored and ranked run; depends on nothing else than what comes in.

    `benchmark` is the part that the run graded (`rocketjax.grade.restrict`); without one the texts are absent. `heads`
    compares all heads on the labels, which takes seconds to minutes. At most `judgments` responses go into the browser.
    `samples` of the bootstrap give the intervals of agreement; those of the ranking are as they are.
    Raises RocketError for a labeler without a benchmark, and what `agree` and `compare` refuse.
    """
    if labeler is not None and benchmark is None:
        raise RocketError("labels are the benchmark's, and it is not known where that lies; give --bench BENCH")
    if heads and labeler is None:
        raise RocketError("heads are compared on labels; name whose with --labels LABELER")
    if judgments < 0:
        raise RocketError(f"the number of judgments to show is {judgments}; it is 0 or more")
    run.require_complete()
    ranking, table, grades = run.ranking, run.scores, run.grades
    status = dict(sorted(Counter(grades["status"].to_pylist()).items()))
    about = about_scores(table)
    scores = {(r["session_id"], r["model"]): r for r in table.to_pylist()}
    labels: dict[str, dict[str, float | None]] = {}
    if (
        benchmark is not None
        and labeler is not None
        and any(x.score is not None for by in benchmark.labels.get(labeler, {}).values() for x in by.values())
    ):
        labels = labels_of(benchmark, labeler)
    whole = panel(run, labels)
    references = []
    if labeler is not None:
        references.append(against_labels(run, benchmark, labeler, ranking, about, samples))
    if ratings is not None:
        references.append(against_ratings(run, benchmark, ratings, ratings_name or "ratings", ranking, samples))
    weights, hurting, whose = weights_of(run, whole, about, benchmark)
    texts = None if benchmark is None else {s: c.items for s, c in benchmark.checklists.items()}
    weight_of = {} if weights is None else {
        s: tuple(relative(weights[q], whole.counts[q]).tolist()) for q, s in enumerate(whole.sessions)
    }  # fmt: skip
    items = item_table(whole, None if benchmark is None else benchmark.checklists, hurting).to_pylist()
    for row in items:
        row["weight"] = weight_of[row["session_id"]][row["item"]] if weight_of else None
    shown, total = chosen(grades, benchmark, scores, labels, labeler, judgments)
    asked = dict.fromkeys(j.session_id for j in shown)
    compared = None
    if heads:
        compared = tuple(as_rows(compare(whole, feature_QIE=features_of(run, whole), progress=progress)))
    return Report(
        name=str(run.meta["benchmark"]["name"]),
        run=run.path.resolve().name,
        meta=run.meta,
        about=about,
        ranking=ranking,
        has_texts=benchmark is not None,
        labelers=() if benchmark is None else tuple(sorted(benchmark.labels)),
        labeler=labeler,
        references=tuple(references),
        heads=compared,
        items=tuple(sorted(items, key=worth)),
        weights=whose,
        weight_of={s: weight_of[s] for s in asked if s in weight_of},
        questions={} if benchmark is None else {s: benchmark.queries[s].messages for s in asked},
        checklists={} if texts is None else {s: texts[s] for s in asked},
        judgments=shown,
        judgments_total=total,
        status=status,
        mass=answer_mass(grades),
        left_out=left_out(
            run.meta, benchmark, ranking, about, scores, grades, status, whole.dropped, labeler, references
        ),
        spent=spent(run),
        price=price,
    )


# What a reference says.


def against_labels(
    run: Run,
    benchmark: Benchmark | None,
    labeler: str,
    ranking: Mapping[str, Any],
    about: Mapping[str, Any],
    samples: int,
) -> Reference:
    """A labeler beside the run."""
    assert benchmark is not None, "checked by the caller"
    level, seed = bootstrap_of(ranking)
    found = agree(run, benchmark=benchmark, labeler=labeler, samples=samples, level=level, seed=seed, ranking=ranking)
    table = scored(run)
    given = benchmark.labels[labeler]
    label_QM = np.asarray(
        [[nan(x.score if (x := given.get(m, {}).get(s)) else None) for m in table.models] for s in table.sessions],
        float,
    )
    score_QM = np.where(table.used_QM, table.score_QM, np.nan)
    known_QM = np.isfinite(score_QM) & np.isfinite(label_QM)
    values: dict[str, float] = {}
    bins: tuple[Bin, ...] = ()
    curve: tuple[Kept, ...] = ()
    same = False
    if known_QM.any():
        there_M = known_QM.any(axis=0)
        shared_Q = known_QM[:, there_M].all(axis=1)
        if shared_Q.any():
            values = {
                m: float(label_QM[shared_Q, k].mean()) for k, m in enumerate(table.models) if there_M[k]
            }  # fmt: skip
        same = (about.get("scale") == "the labeler's" and about.get("labeler") == labeler) or (
            about.get("scale") == "1 to 10" and np.nanmin(label_QM) >= 1 and 5 < np.nanmax(label_QM) <= 10
        )
        q_N = np.nonzero(known_QM)[0]
        bins = equal_bins(score_QM[known_QM], label_QM[known_QM], q_N, level)
        curve = risk_curve(table, label_QM, found["risk_coverage"], samples, level, seed)
    p, label, session = graded_items(run, benchmark, labeler)
    items: tuple[Bin, ...] = ()
    if len(p):
        which = np.minimum((p * BINS).astype(int), BINS - 1)
        _, cluster = np.unique(session, return_inverse=True)
        items = tuple(made_bin(p[on], label[on], cluster[on], level, True) for on in (which == b for b in range(BINS))
                      if on.any())  # fmt: skip
    sure_QM = known_QM & np.isfinite(table.error_QM)
    return Reference(labeler, "labels", found, values, same, int(sure_QM.sum()), bins, items, curve)


def against_ratings(
    run: Run,
    benchmark: Benchmark | None,
    ratings: Mapping[str, float],
    name: str,
    ranking: Mapping[str, Any],
    samples: int,
) -> Reference:
    """Ratings of the models beside the run's ranking, or beside plain means where a length-controlled one lacks the
    texts; the agreement says which."""
    level, seed = bootstrap_of(ranking)
    how = {} if benchmark is None and ranking["length_controlled"] else ranking
    found = agree(
        run, benchmark, ratings=ratings, name=name, samples=samples, level=level, seed=seed, ranking=how
    )  # fmt: skip
    values = {row["model"]: float(ratings[row["model"]]) for row in ranking["models"] if row["model"] in ratings}
    return Reference(name, "ratings", found, values, False, 0, (), (), ())


def bootstrap_of(ranking: Mapping[str, Any]) -> tuple[float, int]:
    """Level and seed of the ranking's own intervals, so that all of a page has the same."""
    about = ranking.get("interval") or {}
    return float(about.get("level", 0.95)), int(about.get("seed", 0))


def nan(x: float | None) -> float:
    return float("nan") if x is None else float(x)


def equal_bins(score_N: Float, label_N: Float, cluster_N: npt.NDArray[Any], level: float) -> tuple[Bin, ...]:
    """Labels by score, in up to `BINS` bins of equally many responses, at least 5 each; equal scores stay together."""
    order = np.argsort(score_N, kind="stable")
    count = max(1, min(BINS, len(order) // 5))
    starts = np.searchsorted(score_N[order], [part[0] for part in np.array_split(score_N[order], count)])
    parts = np.split(order, np.unique(starts)[1:])
    return tuple(made_bin(score_N[on], label_N[on], cluster_N[on], level, False) for on in parts)


def made_bin(score_N: Float, label_N: Float, cluster_N: npt.NDArray[Any], level: float, shares: bool) -> Bin:
    """Mean and interval of one bin's labels.

    The mean's variance is that of a ratio over clusters, by linearisation (Cochran 1977, Sampling Techniques, section
    9.3); the interval Student's t with a degree of freedom less than clusters. Of `shares` from 0 to 1 it is Wilson's
    with the number of independent labels that have this variance (Dean & Pagano 2015, doi 10.1093/jssam/smv024), or
    one for each cluster where all labels are equal. None with one cluster.
    """
    n, mean = len(label_N), float(label_N.mean())
    _, own = np.unique(cluster_N, return_inverse=True)
    S = int(own.max()) + 1
    low = high = None
    if S > 1:
        residual = np.bincount(own, weights=label_N - mean)
        variance = S / (S - 1) * float((residual**2).sum()) / n**2
        if shares:
            spread = mean * (1 - mean)
            effective = min(n, spread / variance) if variance > 1e-12 and spread > 0 else S
            z2 = float(norm.ppf((1 + level) / 2)) ** 2
            middle = (mean + z2 / (2 * effective)) / (1 + z2 / effective)
            half = np.sqrt(z2 * (spread / effective + z2 / (4 * effective**2))) / (1 + z2 / effective)
            low, high = float(max(0, middle - half)), float(min(1, middle + half))
        else:
            half = float(student.ppf((1 + level) / 2, S - 1)) * np.sqrt(variance)
            low, high = mean - float(half), mean + float(half)
    return Bin(n, S, float(score_N.mean()), mean, low, high)


def risk_curve(
    table: Scored, label_QM: Float, found: Mapping[str, Any] | None, samples: int, level: float, seed: int
) -> tuple[Kept, ...]:
    """The points of `agree`'s curve with percentile intervals over bootstrap samples of the queries."""
    if not found:
        return ()
    error_QM = np.where(table.used_QM, table.error_QM, np.nan)
    known = np.isfinite(table.score_QM) & np.isfinite(error_QM) & np.isfinite(label_QM)
    order = np.argsort(error_QM[known], kind="stable")
    wrong_N = np.abs(table.score_QM - label_QM)[known][order]
    q_N = np.nonzero(known)[0][order]
    coverage = np.asarray([point["coverage"] for point in found["curve"]])
    Q = len(table.sessions)
    rng = np.random.default_rng(seed)
    risks = []
    for _ in range(samples):
        times_N = np.bincount(rng.integers(Q, size=Q), minlength=Q)[q_N]
        kept_N = np.cumsum(times_N)
        if kept_N[-1]:
            at = np.minimum(np.searchsorted(kept_N, coverage * kept_N[-1] - 1e-9), len(kept_N) - 1)
            risks.append(np.cumsum(times_N * wrong_N)[at] / kept_N[at])
    ends: Any = [[None] * len(coverage)] * 2
    if Q > 1 and len(risks) > 1:
        ends = np.percentile(risks, [100 * (1 - level) / 2, 100 * (1 + level) / 2], axis=0).tolist()
    return tuple(
        Kept(point["coverage"], point["risk"], point["threshold"], low, high)
        for point, low, high in zip(found["curve"], *ends, strict=True)
    )


# Items.


def weights_of(
    run: Run, whole: Panel, about: Mapping[str, Any], benchmark: Benchmark | None
) -> tuple[npt.NDArray[Any] | None, tuple[npt.NDArray[Any], npt.NDArray[Any]] | None, str]:
    """The item weights of the head that made the scores, f32[Q, I]; the same with their standard errors where they
    were fitted to labels, so that one below 0 says something; and whose they are, or why there are none."""
    name = about.get("head")
    if about.get("compat"):
        return None, None, "scores are RocketEval's own (--compat), whose trees have no weights per item"
    if name == "mean":
        return None, None, "scores are the mean, so all items of a query weigh the same"
    if name == WEIGHED:
        if benchmark is None:
            return None, None, "scores are means by the checklists' own weights, which stand in the benchmark"
        found = item_shares(benchmark, run, whole) if any(c.weights for c in benchmark.checklists.values()) else None
        if found is None or found.about["sha256"] != about["item_weights"]["sha256"]:
            return None, None, "scores are means by the checklists' own weights, which are others now"
        return found.share_QI, None, "weights that the checklists give their items"
    if name == "label-free":
        if about.get("jury"):
            return None, None, "scores are those of a jury of several runs, whose weights are not this run's"
        return unlabelled_weights(whole, name), None, "weights of head label-free, by how the items agree"
    root = run.path / "heads"
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        try:
            meta = json.loads((folder / "head.json").read_text("utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(meta, dict) and all(
            meta.get(k) == about.get(k) for k in ("head", "options", "labeler", "labels_sha256")
        ):
            head = load_head(folder)
            require_questions(head, run, whole)
            own = head.weights()
            if own is None:
                return None, None, f"head {name} is not linear, so its items have no weights"
            return own[0], own, f"weights of head {name}, fitted to {about.get('labeler')}"
    return None, None, f"head {name} made the scores; it is not in the run's folder, so its weights are not known"


def worth(row: Mapping[str, Any]) -> tuple[int, float, str, int]:
    """A place in the order from the worst item to the best: those that hurt, the dead, those of which nothing is
    known, and the others by agreement with the labels, or by discrimination where there are none."""
    kind = {"hurts": 0, "dead": 1, "unknown": 2}.get(row["verdict"], 3)
    size = row["agreement"] if row["agreement"] is not None else row["discrimination"]
    size = row["deviation"] if kind == 1 else row["weight"] if kind == 0 and row["weight"] is not None else size
    return kind, nan(size) if size is not None else -2.0, row["session_id"], row["item"]


# Single judgments.


def chosen(
    grades: pa.Table,
    benchmark: Benchmark | None,
    scores: Mapping[tuple[str, str], Mapping[str, Any]],
    labels: Mapping[str, Mapping[str, float | None]],
    labeler: str | None,
    count: int,
) -> tuple[tuple[Judgment, ...], int]:
    """At most `count` responses for the browser, and how many there are."""
    columns = [grades[n].to_pylist() for n in ("session_id", "model", "item", "p_yes", "status", "truncated")]
    keys = list(dict.fromkeys(zip(columns[0], columns[1], strict=True)))
    sessions, models = (sorted({key[k] for key in keys}) for k in (0, 1))
    q_of, m_of = ({name: i for i, name in enumerate(names)} for names in (sessions, models))
    score_QM, error_QM, label_QM = np.full((3, len(sessions), len(models)), np.nan)
    there_QM = np.zeros(score_QM.shape, bool)
    for session, model in keys:
        at = q_of[session], m_of[model]
        there_QM[at] = True
        row = scores.get((session, model))
        if row is not None:
            score_QM[at], error_QM[at] = nan(row["score"]), nan(row["standard_error"])
        label_QM[at] = nan(labels.get(model, {}).get(session))
    wrong_QM = apart(score_QM, label_QM)
    # Wrong ones count as their place among the wrong, the others as theirs among the uncertain.
    urgent_QM = np.where(np.isfinite(wrong_QM), places(wrong_QM), places(error_QM))
    picked = spread(urgent_QM, there_QM, count)
    wanted: dict[tuple[str, str], list[tuple[int, float | None, str, int]]] = {
        (sessions[q], models[m]): [] for q, m in picked
    }
    for session, model, item, p, status, truncated in zip(*columns, strict=True):
        if (session, model) in wanted:
            wanted[session, model].append((item, p, status, truncated))
    out = []
    for (session, model), graded in wanted.items():
        row = scores.get((session, model)) or {"score": None, "standard_error": None, "abstained": False}
        at = q_of[session], m_of[model]
        response = benchmark.responses.get(model, {}).get(session) if benchmark else None
        label = benchmark.labels[labeler].get(model, {}).get(session) if benchmark and labeler else None
        _, p_I, status_I, truncated_I = zip(*sorted(graded), strict=True)
        out.append(
            Judgment(
                session, model, row["score"], row["standard_error"], bool(row["abstained"]),
                known(label_QM[at]), known(wrong_QM[at]), p_I, status_I, label.items if label else None,
                max(truncated_I), response.text if response else None, response.history if response else None,
            )
        )  # fmt: skip
    out.sort(key=lambda j: (-nan0(j.wrong, -1.0), -nan0(j.error, -1.0), j.session_id, j.model))
    return tuple(out), len(keys)


def nan0(x: float | None, otherwise: float) -> float:
    return otherwise if x is None else x


def known(x: float) -> float | None:
    return float(x) if np.isfinite(x) else None


def apart(score_QM: Float, label_QM: Float) -> Float:
    """How far the places of score and label lie apart, each among all labelled responses (0 to 1); NaN where one is
    missing. Places, not points: a labeler's scale need not be the scores'."""
    out = np.full(score_QM.shape, np.nan)
    both = np.isfinite(score_QM) & np.isfinite(label_QM)
    n = int(both.sum())
    if n > 1:
        out[both] = np.abs(rankdata(score_QM[both]) - rankdata(label_QM[both])) / (n - 1)
    return out


def places(x_QM: Float) -> Float:
    """The place of each value among the finite ones, 0 to below 1; 0 for the others."""
    out = np.zeros(x_QM.shape)
    on = np.isfinite(x_QM)
    if on.any():
        out[on] = rankdata(x_QM[on]) / (int(on.sum()) + 1)
    return out


def spread(urgent_QM: Float, there_QM: npt.NDArray[np.bool_], count: int) -> list[tuple[int, int]]:
    """So many places evenly over models and queries: model by model in turn, each time at the query with the fewest so
    far, of these the most urgent. `urgent_QM` is 0 to below 1."""
    open_QM = there_QM.copy()
    taken_Q = np.zeros(len(open_QM))
    out: list[tuple[int, int]] = []
    m = 0
    while len(out) < count and open_QM.any():
        free_Q = open_QM[:, m]
        if free_Q.any():
            q = int(np.argmin(np.where(free_Q, taken_Q - urgent_QM[:, m], np.inf)))
            out.append((q, m))
            open_QM[q, m] = False
            taken_Q[q] += 1
        m = (m + 1) % open_QM.shape[1]
    return out


# Facts.


def answer_mass(grades: pa.Table) -> tuple[float, int, int] | None:
    mass = grades["answer_mass"].drop_null().to_numpy().astype(float)
    return (float(mass.mean()), int((mass < LOW_MASS).sum()), len(mass)) if len(mass) else None


SUMS = (
    "items", "failed", "truncated", "defused", "rows", "tokens", "padded_tokens", "naive_tokens", "flops", "compile",
    "compute",
)  # fmt: skip


def spent(run: Run) -> Spent:
    """Sums over RUN/sessions. A CPU is one device, whatever JAX makes of it."""
    sums: Counter[str] = Counter()
    started, devices = [], []
    seconds = device_seconds = 0.0
    processes = unreadable = 0
    for file in sorted((run.path / "sessions").glob("*.json")):
        if file.name == "benchmark.json":
            continue
        try:
            one = json.loads(file.read_text("utf-8"))
            kind, count = str(one["host"]["kind"]), int(one["host"]["devices"])
            used = float(one["seconds"])
            figures = {name: float(one.get(name) or 0) for name in SUMS}
            when = str(datetime.datetime.fromisoformat(one["started"]))
        except (OSError, ValueError, KeyError, TypeError):
            unreadable += 1
            continue
        count = 1 if kind.lower() == "cpu" else count
        processes += 1
        sums.update(figures)
        seconds += used
        device_seconds += used * count
        started.append(when)
        devices.append(f"{count} {'device' if count == 1 else 'devices'} ({kind})")
    return Spent(
        processes, unreadable, tuple(sorted(started)), tuple(dict.fromkeys(devices)), seconds, device_seconds,
        dict(sums),
    )  # fmt: skip


REASONS = {
    "no_checklist": "queries without a checklist: there is nothing to ask about their responses",
    "empty_checklist": "queries with an empty checklist: there is nothing to ask about their responses",
    "missing_response": "responses that are missing; their items have no grade",
    "unknown_session": "rows about sessions that the benchmark does not have",
    "unknown_model": "label files of models without responses",
    "duplicate_session": "rows of sessions whose id stands for different queries",
    "no_score": "labels without a score",
}
STATUS = {
    "missing_response": "items without a grade: the response is missing",
    "overlong": "items without a grade: the prompt is longer than the judge reads (--overflow skip)",
    "non_finite": "items without a grade: the judge's answer was not a finite number",
    "missing_judgment": "items without a grade: no judgment of the response was recorded",
    "missing_grade": "items without a grade: the recorded judgment has none",
}


def left_out(
    meta: Mapping[str, Any],
    benchmark: Benchmark | None,
    ranking: Mapping[str, Any],
    about: Mapping[str, Any],
    scores: Mapping[tuple[str, str], Mapping[str, Any]],
    grades: pa.Table,
    status: Mapping[str, int],
    dropped: Mapping[str, int],
    labeler: str | None,
    references: Sequence[Reference],
) -> tuple[LeftOut, ...]:
    """Everything that a figure of the page does not stand on, with the reason; from the first stage to the last."""
    out = []
    for reason, count in meta["benchmark"].get("excluded", {}).items():
        where = [e for e in benchmark.exclusions if e.reason == reason] if benchmark else []
        said = tuple(", ".join(x for x in (e.session_id, e.model, e.where) if x) for e in where)
        out.append(LeftOut(count, REASONS.get(reason, reason.replace("_", " ")), said))
    for kind, count in status.items():
        if kind != OK:
            out.append(LeftOut(count, STATUS.get(kind, f"items without a grade: {kind.replace('_', ' ')}")))
    cut = int((grades["truncated"].to_numpy() > 0).sum())
    if cut:
        out.append(LeftOut(cut, "items graded on a prompt that was cut in the middle (--overflow truncate-middle)"))
    empty = sum(row["score"] is None for row in scores.values())
    if empty:
        out.append(LeftOut(empty, "responses without a score: not all of their items have a grade, and a mean over "
                           "fewer items is another scale"))  # fmt: skip
    trained = about.get("left_out") or ()
    if trained:
        out.append(LeftOut(len(trained), "models without scores: the head was trained on their labels", tuple(trained)))
    if ranking["left_out"]:
        out.append(LeftOut(ranking["left_out"], "queries not in the ranking: some model has no score for them"))
    if ranking["abstained"]:
        limit = about.get("abstain")
        more = "" if limit is None else f" (standard error above {limit:g}, or not known)"
        out.append(LeftOut(ranking["abstained"], f"scores not in the ranking: too uncertain{more}"))
    for reason, count in dropped.items():
        out.append(LeftOut(count, f"labels of {labeler} not used: {reason}"))
    for reference in references:
        lacking = reference.agreement.get("without_rating") or ()
        if lacking:
            out.append(LeftOut(len(lacking), f"models without a rating in {reference.name}", tuple(lacking)))
    return tuple(out)
