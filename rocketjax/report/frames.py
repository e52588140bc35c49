"""Results as data frames and figures, for notebooks: pandas and matplotlib are imported when they are first needed."""

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from rocketjax.errors import RocketError
from rocketjax.grade import Run
from rocketjax.rank import Ranking

if TYPE_CHECKING:
    from matplotlib.figure import Figure

What = Literal["grades", "scores", "ranking", "pairs"]


def frame(source: Run | Ranking, what: What = "ranking") -> Any:
    """A pandas DataFrame of a run's `grades` (a row per item), `scores` (per response), `ranking` (per model) or
    `pairs` (per two models), as the parquet files and ranking.json have them; of a Ranking the last two. What is not
    known is NaN. Raises RocketError where the run does not have it yet, or pandas is not installed."""
    try:
        import pandas
    except ImportError:
        raise RocketError("data frames need pandas: pip install 'rocketjax[notebook]'") from None
    if isinstance(source, Ranking):
        if what not in ("ranking", "pairs"):
            raise RocketError(f"a ranking has no {what}; ask the run")
        return pandas.DataFrame(list(source) if what == "ranking" else source.pairs)
    if what == "grades":
        return source.grades.to_pandas()
    if what == "scores":
        return source.scores.to_pandas()
    if what in ("ranking", "pairs"):
        return pandas.DataFrame(source.ranking["models" if what == "ranking" else "pairs"])
    raise RocketError(f"no frame of {what!r}; there are: grades, scores, ranking, pairs")


def figure_of(width: float, height: float) -> "Figure":
    """A figure that no global state of pyplot holds, and that a notebook shows without `%matplotlib inline`."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise RocketError("plots need matplotlib: pip install 'rocketjax[notebook]'") from None

    class Chart(Figure):
        def _repr_png_(self) -> bytes:
            buffer = io.BytesIO()
            self.savefig(buffer, format="png")
            return buffer.getvalue()

    return Chart(figsize=(width, height), layout="constrained")


def plot_ranking(ranking: Ranking) -> "Figure":
    """Scores with their intervals, best model on top, as a matplotlib figure. A model without a finite score has no
    mark; an interval without an end runs to the edge."""
    figure = figure_of(7, 0.9 + 0.32 * len(ranking))
    axis = figure.add_subplot()
    known = [x for row in ranking for x in (row["low"], row["score"], row["high"]) if x is not None]
    edge = (min(known, default=0.0), max(known, default=1.0))
    for i, row in enumerate(ranking):
        if row["rank_low"] is not None:
            ends = [edge[0] if row["low"] is None else row["low"], edge[1] if row["high"] is None else row["high"]]
            axis.plot(ends, [i, i], color="#4477aa", linewidth=2)
        if row["score"] is not None:
            axis.plot([row["score"]], [i], "o", color="#4477aa")
    axis.set_yticks(range(len(ranking)), [f"{row['model']}  {row['group'] or ''}" for row in ranking])
    axis.invert_yaxis()
    level = "" if ranking.interval is None else f", {ranking.interval['level']:.0%} intervals"
    axis.set_xlabel(("score" if ranking.method == "mean" else "rating") + f" over {ranking.sessions} queries{level}")
    axis.grid(axis="x", alpha=0.3)
    return figure


def plot_calibration(agreement: Mapping[str, Any]) -> "Figure":
    """The reliability curve of p(yes) against the items' labels, from what `agree` gives, as a matplotlib figure; the
    area of a point grows with the number of its items. Raises RocketError where the items have no labels."""
    if not agreement["items"]:
        raise RocketError(f"{agreement['reference']} has no labels of items, so p(yes) cannot be checked")
    rows = agreement["items"]["reliability"]
    figure = figure_of(4.5, 4.5)
    axis = figure.add_subplot()
    axis.plot([0, 1], [0, 1], color="grey", linestyle=":")
    p, yes = [r["mean_p"] for r in rows], [r["share_yes"] for r in rows]
    most = max(r["n"] for r in rows)
    axis.plot(p, yes, color="#4477aa")
    axis.scatter(p, yes, s=[10 + 190 * r["n"] / most for r in rows], color="#4477aa", alpha=0.7)
    axis.set(xlabel="mean p(yes)", ylabel=f"share of yes by {agreement['reference']}", xlim=(0, 1), ylim=(0, 1))
    axis.set_title(f"{agreement['items']['n']:,} items, ECE {agreement['items']['ece'][0]:.3f}")
    axis.grid(alpha=0.3)
    return figure


def plot_risk_coverage(agreement: Mapping[str, Any]) -> "Figure":
    """Mean absolute error of the scores kept as the uncertain ones are dropped, from what `agree` gives. Raises
    RocketError where scores have no standard errors."""
    curve = agreement["risk_coverage"]
    if not curve:
        raise RocketError("the scores have no standard errors, or no labels; score with a head that gives them")
    figure = figure_of(5, 3.5)
    axis = figure.add_subplot()
    axis.plot([r["coverage"] for r in curve["curve"]], [r["risk"] for r in curve["curve"]], "o-", color="#4477aa",
              label="surest first")  # fmt: skip
    axis.axhline(curve["all"], color="grey", linestyle=":", label="dropped at random")
    axis.set(xlabel="share of scores kept", ylabel="mean absolute error", xlim=(0, 1.02), ylim=(0, None))
    axis.legend()
    axis.grid(alpha=0.3)
    return figure
