"""Scores into a ranking: values, intervals, ranks, and which differences are significant."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import t as student

from rocketjax.bench import Benchmark
from rocketjax.errors import RocketError
from rocketjax.grade import Run, write_json
from rocketjax.rank.bootstrap import bootstrap, interval, value_of
from rocketjax.rank.groups import holm, letters
from rocketjax.rank.scored import Float, Scored, log_lengths, scored
from rocketjax.rank.strength import ELO, TIE, Method, Ties, games, means
from rocketjax.reweight import about_scores

FORMAT = 2
DIGITS = 9  # values that agree to so many decimals are tied
CENTRE = 1000.0  # mean rating, as in chess


class Ranking(list[dict[str, Any]]):
    """A list of rows, best first; tied models share the rank of the first of them.

    A row has `model`; `score`, with `low` and `high`, the ends of its interval; `rank`, with `rank_low` and
    `rank_high`; `group`, letters that two models share if they do not differ significantly; `standard_error`, of the
    score over the bootstrap's samples; `score_error`, the part of it that comes from the scores' own errors, where they
    are known; `wins`, `ties` and `losses`, its pairs with other models' scores on the same query; and what made the
    score: `head`, `labeler`, `compat`, and `head_saw_its_labels`, whether the head was trained on labels of this very
    model. What the data do not say is None: an interval's end where it is unbounded, the score of a `separated` model.

    `sessions` is the number of queries that all is over, `left_out` the queries that some model has no score for,
    `abstained` the scores that were marked as too uncertain, `pairs` every two models' difference with its interval and
    p-values (of Student's t with the bootstrap's standard error; `p_adjusted` by Holm's correction over all pairs),
    `separated` the models that never lost to, or never won against, the rest (Bradley-Terry has no finite value for
    them), `about` what made the scores.
    """

    method: Method
    interval: dict[str, Any] | None
    sessions: int
    left_out: int
    abstained: int
    length_controlled: bool
    length_effect: dict[str, float | None] | None
    ties: dict[str, Any] | None
    separated: list[dict[str, str]]
    pairs: list[dict[str, Any]]
    about: dict[str, Any]

    FIELDS = ("method", "interval", "sessions", "left_out", "abstained", "length_controlled", "length_effect", "ties",
              "separated")  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        """What ranking.json holds."""
        head = {name: getattr(self, name) for name in self.FIELDS}
        return {"format": FORMAT, **head, "models": list(self), "pairs": self.pairs, "about": self.about}

    def __str__(self) -> str:
        width = max(len(row["model"]) for row in self)
        digits = 0 if self.method == "bradley-terry" else 3
        lines = []
        for row in self:
            value = "apart" if row["score"] is None else f"{row['score']:.{digits}f}"
            line = f"{row['rank']:>4}  {row['model']:<{width}}  {value}"
            if row["rank_low"] is not None:
                low, high = ("-inf" if row["low"] is None else f"{row['low']:.{digits}f}",
                             "inf" if row["high"] is None else f"{row['high']:.{digits}f}")  # fmt: skip
                line += f"  [{low}, {high}]  rank {row['rank_low']} to {row['rank_high']}  {row['group']}"
            lines.append(line)
        return "\n".join([*lines, *self.notes()])

    def _repr_html_(self) -> str:
        """For notebooks."""
        from rocketjax.rank.html import ranking_html

        return ranking_html(self)

    def notes(self) -> list[str]:
        """What has to be known to read it, a line each."""
        what = "mean" if self.method == "mean" else "Bradley-Terry rating, 400 points are odds of 10,"
        note = f"{what} over {self.sessions} queries" + (f"; {self.left_out} left out" if self.left_out else "")
        if self.abstained:
            note += f"; {self.abstained} uncertain scores not used, queries and models fitted to the rest"
        if self.about.get("compat"):
            note = f"RocketEval's way (--compat {self.about['compat']}): each model's mean over its own queries"
        lines = [note]
        if self.interval:
            i = self.interval
            source = "queries and the scores' own errors" if i["score_errors"] else "queries"
            lines.append(f"[{i['level']:.0%} intervals] by {i['samples']:,} bootstrap samples of {source}; models that "
                         "share a letter do not differ significantly (Holm)")  # fmt: skip
        if self.length_effect:
            e = self.length_effect
            ends = "" if e["low"] is None else f" [{e['low']:.3f}, {e['high']:.3f}]"
            lines.append(f"as if all responses were equally long: twice the length is worth {e['value']:+.3f}{ends}")
        for one in self.separated:
            lines.append(f"{one['model']}: {one['why']}, so its strength has no finite estimate")
        weights = self.about.get("item_weights")
        if weights:
            lines.append(f"scores are means by the item weights of {weights['benchmark']}")
        seen = self.about.get("scored_by_a_head_that_saw_its_labels")
        if seen:
            lines.append(f"scored by a head that was trained on their own labels: {', '.join(seen)}")
        return lines


def rank_models(
    run: Run,
    *,
    method: Method = "mean",
    ties: Ties = "davidson",
    margin: float = 0.0,
    lengths: Benchmark | None = None,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Ranking:
    """Ranks the models of a scored run and writes `ranking.json`.

    With `mean` a model's score is its mean over the sessions in which every model has a score, so that all means are
    over the same queries; where scores were marked as abstained, they are left out, and queries and models are fitted
    to the rest (see `strength.means`). `lengths`, the benchmark, ranks the models as if all had answered at the same
    length. With `bradley-terry` it is a rating with mean 1000 of the models as players: a game is two scores of one
    query, a tie if they differ by no more than `margin` (in points of the score), and ties count by Davidson's model or
    as half a win; the scores of a fitted head win with the chance that their errors leave (`strength.games`).
    Intervals come from `samples` bootstrap samples of the queries, clustered by session, with the scores' own standard
    errors where a head was fitted to labels; 0 samples leaves them out. Scores made with `--compat rocketeval` are
    ranked as RocketEval does: by each model's mean over its own sessions, without intervals.
    Raises RocketError if there is nothing to compare or an option makes no sense.
    """
    if samples and samples < 100:
        raise RocketError(f"{samples} bootstrap samples say little about an interval's ends; take 100 or more, or 0")
    if not 0 < level < 1:
        raise RocketError(f"an interval's level is between 0 and 1, not {level}")
    if not 0 <= margin < np.inf:
        raise RocketError(f"the margin of a tie is 0 or more, not {margin}")
    if method == "mean" and margin:
        raise RocketError("a margin makes ties, which --method bradley-terry counts; a mean has none")
    if method == "bradley-terry" and lengths is not None:
        raise RocketError("length control is for --method mean")
    table = run.scores
    if about_scores(table).get("compat"):
        if method != "mean" or lengths is not None:
            raise RocketError("RocketEval's own scores (--compat) are ranked its way, by plain means")
        return reference_means(run)
    found = scored(run, table)
    check_connected(run, found)
    x_QM = None if lengths is None else log_lengths(lengths, found)
    value_M, slope = value_of(found, method, ties, margin, x_QM)
    drawn = bootstrap(found, method, ties, margin, x_QM, samples, seed) if samples else None
    clusters = len(found.sessions)
    scale, offset = (1.0, 0.0) if method == "mean" else (ELO, CENTRE)
    shown_M = offset + scale * value_M
    with jax.enable_x64(True):
        win_QMM, tie_QMM = (np.asarray(g) for g in games(found.score_QM, found.used_QM.astype(float), margin))
    win_MM, tie_MM = win_QMM.sum(axis=0), tie_QMM.sum(axis=0)

    # An infinite strength stands above or below all others; one that nothing compares stands last.
    place_M = np.where(np.isnan(value_M), -np.inf, np.round(value_M, DIGITS))
    order = sorted(range(len(value_M)), key=lambda m: (-place_M[m], found.models[m]))
    ranking = Ranking()
    ranking.method, ranking.about = method, found.about
    ranking.sessions, ranking.left_out = clusters, found.left_out
    ranking.abstained = int((~found.used_QM).sum())
    ranking.ties = None if method == "mean" else {"model": ties, "margin": margin, "games": int(tie_MM.sum() / 2)}
    ranking.separated = separated(found, value_M)
    ranking.length_controlled, ranking.length_effect = lengths is not None, None
    ranking.interval = None if drawn is None else {
        "level": level, "samples": samples, "seed": seed, "score_errors": found.errors_join
    }  # fmt: skip
    M = len(order)
    none = np.full(M, np.nan)
    low_M, high_M, sd_M, rank_low_M, rank_high_M = none, none, none, none, none
    differs_MM = np.zeros((M, M), bool)
    own_M = own_errors(found) if method == "mean" and lengths is None else none
    if drawn is not None:
        value_SM = offset + scale * drawn.value_SM
        low_M, high_M = interval(value_SM, level, clusters)
        sd_M = deviation(value_SM)
        rounded_SM = np.where(np.isnan(drawn.value_SM), -np.inf, np.round(drawn.value_SM, DIGITS))
        rank_SM = 1 + (rounded_SM[:, :, None] < rounded_SM[:, None, :]).sum(axis=2)
        rank_low_M, rank_high_M = interval(rank_SM.astype(float), level, clusters)
        if lengths is not None:
            ends = interval(drawn.slope_S, level, clusters)
            ranking.length_effect = {"value": slope, "low": number(ends[0]), "high": number(ends[1])}
    elif lengths is not None:
        ranking.length_effect = {"value": slope, "low": None, "high": None}
    ranking.pairs = []
    for i, a in enumerate(order):
        for b in order[i + 1 :]:
            pair: dict[str, Any] = {"a": found.models[a], "b": found.models[b]}
            with np.errstate(invalid="ignore"):
                difference = float(shown_M[a] - shown_M[b])
            pair["difference"] = number(difference)
            pair |= {"low": None, "high": None, "p": None, "p_adjusted": None}
            if drawn is not None:
                with np.errstate(invalid="ignore"):  # two models above all others: inf - inf
                    d_S = value_SM[:, a] - value_SM[:, b]
                ends = interval(d_S, level, clusters)
                pair |= {"low": number(ends[0]), "high": number(ends[1])}
                pair["p"] = number(p_value(difference, d_S, clusters))
            pair |= {"wins": int(win_MM[a, b]), "ties": int(tie_MM[a, b]), "losses": int(win_MM[b, a])}
            ranking.pairs.append(pair)
    adjusted = holm(np.asarray([np.nan if p["p"] is None else p["p"] for p in ranking.pairs], float))
    at = {found.models[m]: i for i, m in enumerate(order)}
    for pair, p in zip(ranking.pairs, adjusted, strict=True):
        pair["p_adjusted"] = number(p)
        if p < 1 - level:
            differs_MM[at[pair["a"]], at[pair["b"]]] = differs_MM[at[pair["b"]], at[pair["a"]]] = True
    group = letters(differs_MM) if drawn is not None and clusters > 1 else [None] * M
    seen = set(found.about.get("scored_by_a_head_that_saw_its_labels") or ())
    for i, m in enumerate(order):
        model = found.models[m]
        ranking.append(
            {
                "model": model, "score": number(round(shown_M[m], DIGITS) if np.isfinite(shown_M[m]) else shown_M[m]),
                "low": number(low_M[m]), "high": number(high_M[m]),
                "rank": int((place_M > place_M[m]).sum()) + 1,
                "rank_low": whole(rank_low_M[m]), "rank_high": whole(rank_high_M[m]), "group": group[i],
                "standard_error": number(sd_M[m]), "score_error": number(own_M[m]),
                "wins": int(win_MM[m].sum()), "ties": int(tie_MM[m].sum()), "losses": int(win_MM[:, m].sum()),
                **made_by(found.about), "head_saw_its_labels": model in seen,
            }
        )  # fmt: skip
    write_json(run.path / "ranking.json", ranking.as_dict())
    return ranking


def made_by(about: dict[str, Any]) -> dict[str, Any]:
    return {"head": about.get("head"), "labeler": about.get("labeler"), "compat": about.get("compat")}


def number(x: Any) -> float | None:
    """A float for JSON; infinite ends and unknown values are None."""
    return float(x) if np.isfinite(x) else None


def whole(x: float) -> int | None:
    return int(x) if np.isfinite(x) else None


def deviation(value_SM: Float) -> Float:
    """Standard deviation over the samples, NaN where one of them is not finite."""
    finite = np.isfinite(value_SM)
    sd = np.where(finite, value_SM, 0.0).std(axis=0, ddof=1)
    return np.asarray(np.where(finite.all(axis=0), sd, np.nan))


def p_value(difference: float, d_S: Float, clusters: int) -> float:
    """Two-sided p of no difference, by Student's t with clusters - 1 degrees of freedom; NaN where it is not known.

    Where samples are infinite there is no deviation, and p is twice the smaller share of samples on one side of 0.
    """
    if clusters < 2 or np.isnan(difference):
        return float("nan")
    if not np.isfinite(d_S).all():
        sides = [((d_S <= 0) | np.isnan(d_S)).sum(), ((d_S >= 0) | np.isnan(d_S)).sum()]
        return float(min(1, 2 * (min(sides) + 1) / (len(d_S) + 1)))
    sd = d_S.std(ddof=1) * np.sqrt(clusters / (clusters - 1))
    if sd <= TIE:
        return 1.0 if abs(difference) <= TIE else 0.0
    return float(2 * student.sf(abs(difference) / sd, clusters - 1))


def own_errors(table: Scored) -> Float:
    """f64[M]: the part of a mean's standard error that the scores' own errors make, as if they were independent; NaN
    where one is not known. A model's value is linear in the scores, also where some were left out."""
    Q = len(table.sessions)
    error_QM = np.where(table.used_QM, table.error_QM, 0.0)  # of an abstained score it need not be known
    if table.used_QM.all():
        return np.asarray(np.sqrt((error_QM**2).sum(axis=0)) / Q)
    with jax.enable_x64(True):
        used = jnp.asarray(table.used_QM, float)
        part = jax.jacrev(lambda s: means(s, used, None).value_M)(jnp.asarray(table.score_QM))
    return np.asarray(np.sqrt(np.einsum("xqm,qm->x", np.asarray(part) ** 2, error_QM**2)))


def check_connected(run: Run, table: Scored) -> None:
    """RocketError where the scores that are left fall into sets of models that no query compares."""
    if table.used_QM.all():
        return
    w = table.used_QM.astype(float)
    reach = (w.T @ w) > 0
    for _ in range(len(reach).bit_length()):
        reach = (reach.astype(float) @ reach.astype(float)) > 0
    if not reach.all():
        raise RocketError(f"{run.path}: the scores that are left do not connect all models; raise --abstain")


def separated(table: Scored, value_M: Float) -> list[dict[str, str]]:
    """The models that Bradley-Terry has no finite value for, and why."""
    why = {True: "it and its like never lost to the others", False: "it and its like never won against the others"}
    return [
        {"model": m, "why": why[bool(v > 0)] if np.isinf(v) else "no game connects it with the others"}
        for m, v in zip(table.models, value_M, strict=True)
        if not np.isfinite(v)
    ]


def reference_means(run: Run) -> Ranking:
    """RocketEval's ranking: plain means over whatever sessions a model has."""
    table = run.scores
    about = about_scores(table)
    own: dict[str, list[float]] = {}
    sessions = set()
    for row in table.to_pylist():
        sessions.add(row["session_id"])
        if row["score"] is not None:
            own.setdefault(row["model"], []).append(row["score"])
    if not own:
        raise RocketError(f"{run.path}: has no scores to rank")
    mean = {m: float(np.mean(scores)) for m, scores in own.items()}
    ranking = Ranking()
    ranking.method, ranking.interval, ranking.sessions, ranking.left_out = "mean", None, len(sessions), 0
    ranking.abstained, ranking.length_controlled, ranking.length_effect = 0, False, None
    ranking.ties, ranking.separated, ranking.pairs, ranking.about = None, [], [], about
    for model in sorted(mean, key=lambda m: (-mean[m], m)):
        row = dict.fromkeys(("low", "high", "rank_low", "rank_high", "group", "standard_error", "score_error", "wins",
                             "ties", "losses"))  # fmt: skip
        better = sum(v > mean[model] for v in mean.values())
        ranking.append({"model": model, "score": mean[model], "rank": better + 1, **row, **made_by(about),
                        "head_saw_its_labels": False})  # fmt: skip
    write_json(run.path / "ranking.json", ranking.as_dict())
    return ranking
