"""The sections of a report about how far it can be trusted: agreement, calibration, heads."""

from collections.abc import Mapping, Sequence

from rocketjax.report.charts import UNIT, Axis, Plot, axis, axis_bar, chance_axis, interval_bar
from rocketjax.report.collect import Bin, Reference, Report
from rocketjax.report.elements import count, esc, figure_text, none, number, sort_key, span, table, unseen
from rocketjax.report.standing import head_name, level_of, same_ranking, word_of
from rocketjax.reweight import SHARED_LEVELS

# Name, what it says, and what it is without any knowledge, where that is so; 1 is perfect then.
MEASURES: dict[str, tuple[str, str, float | None]] = {
    "spearman": ("Spearman's ρ", "correlation of the ranks", 0.0),
    "kendall": ("Kendall's τ-b", "pairs in the same order less those in the other", 0.0),
    "pearson": ("Pearson's r", "correlation of the values", 0.0),
    "pairwise": ("Pairs in the same order", "of two whose reference differs", 0.5),
    "mae": ("Mean absolute error", "in points; says little if the scales differ", None),
    "kappa": ("Cohen's κ", "same whole point, beyond chance", 0.0),
    "quadratic_kappa": ("Quadratic κ", "the same, near misses forgiven", 0.0),
    "alpha": ("Krippendorff's α", "close values, beyond chance", 0.0),
    "icc": ("ICC(2,1)", "absolute agreement of two raters", 0.0),
    "accuracy": ("Accuracy", "p(yes) on the label's side of 0.5", 0.5),
    "auc": ("AUC", "how often a yes has a higher p than a no", 0.5),
    "brier": ("Brier score", "mean squared error of p; 0 is perfect", None),
    "ece": ("ECE", "mean gap of p and share of yes; 0 is perfect", None),
}
# Of items yes and no are compared.
OF_ITEMS: dict[str, tuple[str, str, float | None]] = {
    **MEASURES,
    "kappa": ("Cohen's κ", "same verdict, beyond chance", 0.0),
    "alpha": ("Krippendorff's α", "the same, corrected for few items", 0.0),
}


def hint(report: Report) -> str:
    """How to get a reference, as HTML."""
    if report.labelers:
        names = ", ".join(f"<b>{esc(name)}</b>" for name in report.labelers)
        return f"The benchmark has labels by {names}: <code>rocketjax report RUN --labels NAME</code>."
    return (
        "There are no labels here; a benchmark that has some is compared with <code>--labels NAME</code>, known "
        "ratings of the models with <code>--ratings FILE</code>."
    )


# Agreement.


def agreement(report: Report) -> str:
    """How the run agrees with its references."""
    if not report.references:
        return none(f"No reference was given. {hint(report)}")
    return "".join(against(report, reference) for reference in report.references)


def against(report: Report, reference: Reference) -> str:
    """One reference: figures, and the models' scores beside it."""
    found, name = reference.agreement, esc(reference.name)
    parts, lacking = [], []
    if found.get("ranking"):
        over = f" over {found['queries']:,} queries" if found.get("queries") else ""
        caption = f"Ranking of {count(found['models'], 'model')}{over}"
        parts.append(f"<div>{figures(caption, found['ranking'])}</div>")
    else:
        lacking.append(f"{name} gives no scores that could rank the models.")
    chart = scatter(report, reference)
    parts += [f'<div class="plot-box">{chart}</div>'] if chart else []
    if found.get("responses"):
        rest = {k: v for k, v in found["responses"].items() if k != "n"}
        parts.append(f"<div>{figures(count(found['responses']['n'], 'single response'), rest)}</div>")
    elif reference.kind == "labels":
        lacking.append(f"No scores of single responses by {name}.")
    if found.get("items"):
        rest = {k: v for k, v in found["items"].items() if k not in ("n", "reliability")}
        parts.append(f"<div>{figures(count(found['items']['n'], 'single item'), rest, OF_ITEMS)}</div>")
    elif reference.kind == "labels":
        lacking.append(f"No labels of single items by {name}.")
    without = found.get("without_rating") or ()
    if without:
        lacking.append(f"Without a rating: {esc(', '.join(without))}.")
    lead = f"{'Ratings' if reference.kind == 'ratings' else 'Labels'}: {name}"
    said = f"{found['level']:.0%} intervals over bootstrap samples of the queries."
    if found.get("ranking") and not same_ranking(report, reference):
        said += " The ranking compared here is that by plain mean scores."
    elif found.get("ranking") and report.ranking["method"] != "mean":
        said += " The ranking is that by Bradley-Terry ratings."
    elif found.get("ranking") and report.ranking["length_controlled"]:
        said += " The ranking is that with lengths controlled."
    if found["shared_levels"]:
        said += f" {SHARED_LEVELS[0].upper()}{SHARED_LEVELS[1:]}."
    gone = none(" ".join(lacking)) if lacking else ""
    if len(parts) % 2:
        parts[-1] = parts[-1].replace("<div", '<div class="whole"', 1)
    return f'<h3>{lead}</h3><p class="note">{said}</p><div class="columns">{"".join(parts)}</div>{gone}'


def figures(
    caption: str,
    found: Mapping[str, Sequence[float | None]],
    known: Mapping[str, tuple[str, str, float | None]] = MEASURES,
) -> str:
    """A table of measures with their intervals, drawn on one scale from chance to perfect."""
    measures = {key: known.get(key, (key.replace("_", " "), "", None)) for key in found}
    drawn = {
        key: [None if x is None else (x - chance) / (1 - chance) for x in found[key]]
        for key, (_, _, chance) in measures.items()
        if chance is not None and found[key][0] is not None
    }
    scale = chance_axis(min((x for values in drawn.values() for x in values if x is not None), default=0.0))
    rows = []
    for key, figure in found.items():
        name, meaning, _ = measures[key]
        bar = ""
        if key in drawn:
            value, low, high = drawn[key]
            sure = low is not None and high is not None
            bar = interval_bar(value, low, high, scale, f"{name}: {number(figure[0], 3)}", sure)
        rows.append(
            f'<tr><th scope="row">{esc(name)} <small>{esc(meaning)}</small></th>'
            f'<td class="num">{figure_text(figure)}</td><td class="plot">{bar}</td></tr>'
        )
    head = [(unseen("Measure"), ""), (unseen("Value"), "num"), (unseen("Chart"), "plot")]
    foot = f'<td></td><td></td><td class="plot">{axis_bar(scale)}</td>'
    return table(head, rows, "figures", esc(caption), foot)


def scatter(report: Report, reference: Reference) -> str:
    """The models' scores beside the reference's, with their ranks in the points; empty with fewer than two models."""
    rows = [r for r in report.ranking["models"] if r["model"] in reference.values and r["score"] is not None]
    if len(rows) < 2:
        return ""
    what = "rating" if reference.kind == "ratings" else "mean label"
    x = axis((reference.values[r["model"]] for r in rows), f"{what}, {reference.name}")
    y = axis((v for r in rows for v in (r["low"], r["score"], r["high"])), f"{word_of(report)} here")
    text = (
        f"A point for each model: its {word_of(report)} here against its {what}. The leaderboard has the same figures."
    )
    plot = Plot(x, y, f"Scores beside {reference.name}", text)
    for row in rows:
        if row["rank_low"] is not None:
            low, high = (y.low if row["low"] is None else row["low"]), (y.high if row["high"] is None else row["high"])
            plot.whisker(reference.values[row["model"]], low, high)
    for row in reversed(rows):
        value = reference.values[row["model"]]
        tip = f"{row['model']}: {number(row['score'], 2)} here, {number(value, 2)} by {reference.name}"
        plot.dot(value, row["score"], 8, tip, str(row["rank"]))
    return f'{plot.svg()}<p class="note">Each point is a model, the number its rank here.</p>'


# Calibration.


def calibration(report: Report) -> str:
    """Reliability of p(yes) and of scores, and the error of what is kept as uncertain scores are dropped."""
    labelled = [r for r in report.references if r.kind == "labels"]
    if not labelled:
        return none(f"No labels, so nothing to check probabilities and scores against. {hint(report)}")
    out = []
    for reference in labelled:
        name = esc(reference.name)
        charts = [
            ("p(yes) of items against labels", reliability(report, reference),
             f"{name} has no labels of items, so p(yes) cannot be checked item by item."),
            ("Scores against labels", score_bins(report, reference), f"{name} has no scores of these responses."),
            ("Risk and coverage", risk(report, reference),
             "No labelled response has a score with a standard error, so there is no risk-coverage curve."),
        ]  # fmt: skip
        drawn = "".join(f'<div class="plot-box"><h3>{title}</h3>{chart}</div>' for title, chart, _ in charts if chart)
        gone = " ".join(why for _, chart, why in charts if not chart)
        out.append(f'<div class="columns">{drawn}</div>{none(gone) if gone else ""}')
    return "".join(out)


def reliability(report: Report, reference: Reference) -> str:
    """p(yes) against labels of items."""
    if not reference.items:
        return ""
    n = sum(b.n for b in reference.items)
    x = Axis(0, 1, UNIT.ticks, 1, "p(yes), mean of a tenth")
    y = Axis(0, 1, UNIT.ticks, 1, f"share of yes by {reference.name}")
    text = "Points on the dotted diagonal are calibrated. The table below has the figures."
    plot = Plot(x, y, "Reliability of p(yes)", text)
    plot.line([(0, 0), (1, 1)], "even")
    draw_bins(plot, reference.items)
    ece = figure_text(reference.agreement["items"]["ece"])
    note = f"{n:,} items; a point's area grows with their number. Expected calibration error {ece}."
    figures_ = bin_table(report, reference.items, "items", "mean p(yes)", "share of yes", 3)
    return f'{plot.svg()}<p class="note">{note}</p>{figures_}'


def score_bins(report: Report, reference: Reference) -> str:
    """Scores against labels of responses."""
    bins = reference.scores
    if not bins:
        return ""
    ends = [v for b in bins for v in (b.label, b.low, b.high)]
    named = "mean score of equally many responses", f"mean label, {reference.name}"
    if reference.same_scale:
        both = axis([*ends, *(b.score for b in bins)])
        x, y = (Axis(both.low, both.high, both.ticks, both.digits, name) for name in named)
    else:
        x, y = axis((b.score for b in bins), named[0]), axis(ends, named[1])
    text = "Mean label of responses with like scores. The table below has the figures."
    plot = Plot(x, y, "Labels by score", text)
    if reference.same_scale:
        plot.line([(x.low, x.low), (x.high, x.high)], "even")
        said = "On the dotted line score and label are equal."
    else:
        said = "Scores and labels are on different scales, so only whether the points rise means something."
    draw_bins(plot, bins)
    note = f"{sum(b.n for b in bins):,} responses in {count(len(bins), 'group')} of like score. {said}"
    figures_ = bin_table(report, bins, "responses", "mean score", "mean label", 2)
    return f'{plot.svg()}<p class="note">{note}</p>{figures_}'


def draw_bins(plot: Plot, bins: Sequence[Bin]) -> None:
    """Points with whiskers, their area growing with what they stand for."""
    most, least = max(b.n for b in bins), min(b.n for b in bins)
    for b in bins:
        if b.low is not None and b.high is not None:
            plot.whisker(b.score, b.low, b.high)
    plot.line([(b.score, b.label) for b in bins], "curve")
    for b in bins:
        radius = 4.5 if most < 2 * least else 2.5 + 5.5 * (b.n / most) ** 0.5
        plot.dot(b.score, b.label, radius, f"{b.score:.3f}: {b.label:.3f} (n = {b.n:,})")


def bin_table(report: Report, bins: Sequence[Bin], unit: str, score: str, label: str, digits: int) -> str:
    """The figures of a chart."""
    rows = []
    for b in bins:
        ends = "no interval" if b.low is None else span(b.low, b.high, digits)
        values = (f"{b.n:,}", f"{b.queries:,}", number(b.score, digits),
                  f"{number(b.label, digits)} <small>{ends}</small>")  # fmt: skip
        rows.append("<tr>" + "".join(f'<td class="num">{v}</td>' for v in values) + "</tr>")
    head = [(unit, "num"), ("queries", "num"), (score, "num"), (f"{label}, {level_of(report)} interval", "num")]
    return details(table(head, rows))


def details(inside: str) -> str:
    """A table that opens."""
    return f'<details class="screen-only"><summary>The figures</summary><div class="wide">{inside}</div></details>'


def risk(report: Report, reference: Reference) -> str:
    """The risk-coverage curve."""
    curve = reference.curve
    if not curve:
        return ""
    found = reference.agreement["risk_coverage"]
    x = Axis(0, 1, UNIT.ticks, 1, "share of the scores that is kept, the surest first")
    y = axis([0.0, found["all"], *(v for k in curve for v in (k.risk, k.low, k.high))], "mean absolute error")
    text = "Mean absolute error of the scores kept as the least certain are dropped. The table below has the figures."
    plot = Plot(x, y, "Risk and coverage", text)
    banded = [(k.coverage, k.low, k.high) for k in curve if k.low is not None and k.high is not None]
    if banded:
        plot.band([(c, low) for c, low, _ in banded], [(c, high) for c, _, high in banded])
    plot.line([(0, found["all"]), (1, found["all"])], "even")
    plot.line([(k.coverage, k.risk) for k in curve], "curve")
    for k in curve:
        plot.dot(k.coverage, k.risk, 2.5, f"{k.coverage:.0%} kept: error {k.risk:.3f}")
    note = (
        f"{reference.labelled:,} labelled responses. Dotted: all are kept, or some dropped at random "
        f"({number(found['all'], 3)}). Band: {level_of(report)} interval over the queries. Mean over all coverages "
        f"(AURC): {number(found['area'], 3)}."
    )
    rows = []
    for k in curve:
        ends = "no interval" if k.low is None else span(k.low, k.high, 3)
        values = f"{k.coverage:.0%}", f"{number(k.risk, 3)} <small>{ends}</small>", number(k.threshold, 3)
        rows.append("<tr>" + "".join(f'<td class="num">{v}</td>' for v in values) + "</tr>")
    head = [("kept", "num"), (f"error, {level_of(report)} interval", "num"), ("standard error up to", "num")]
    return f'{plot.svg()}<p class="note">{note}</p>{details(table(head, rows))}'


# Heads.

HEAD_FIELDS = {
    "spearman": "ranking, Spearman", "kendall": "ranking, Kendall", "pairwise": "verdicts, pairwise",
    "mae": "mean absolute error",
}  # fmt: skip


def heads(report: Report) -> str:
    """All heads on the same splits."""
    made = f'<p class="note">These scores were made by head <b>{esc(head_name(report.about))}</b>.</p>'
    if report.heads is None:
        if report.labeler is None:
            return made + none(f"Heads are compared on labels, and none were given. {hint(report)}")
        command = f"<code>rocketjax report RUN --labels {esc(report.labeler)} --heads</code>"
        return made + none(f"Heads were not compared, which takes seconds to minutes: {command}.")
    rows, failed, used_head = [], [], report.about.get("head")
    marked = "marked" if any(row["head"] == used_head for row in report.heads) else "none of these"
    for row in report.heads:
        cells = "".join(f'<td class="num" {sort_key(row[f][0])}>{figure_text(row[f])}</td>' for f in HEAD_FIELDS)
        used = ' class="used"' if row["head"] == used_head else ""
        rows.append(f'<tr{used}><th scope="row">{esc(row["head"])}</th>{cells}</tr>')
        if row["failed"]:
            failed.append(f'<p class="note">{esc(row["head"])}: {esc(row["failed"])}</p>')
    lead = (
        f"Each head was fitted to {esc(report.labeler)}'s labels of a random half of the models and judged on the "
        f"others: mean over {report.heads[0]['splits']} splits, and in brackets where 95% of single splits lie. The "
        f"query mean reads no grades: it is what a head has to beat. The head in use is {marked}."
    )
    head = [("Head", ""), *((name, "num") for name in HEAD_FIELDS.values())]
    return f'{made}<p class="note">{lead}</p><div class="wide">{table(head, rows)}</div>{"".join(failed)}'
