"""The sections of a report about who stands where: the top of the page, leaderboard, model against model."""

from collections.abc import Mapping
from typing import Any

from rocketjax.report.charts import axis, axis_bar, interval_bar
from rocketjax.report.collect import Reference, Report
from rocketjax.report.elements import count, esc, listed, none, number, sort_key, span, table, unseen

MOST_PAIRS = 1000  # rows of the table of pairs
MOST_MODELS = 60  # of the win matrix


def digits_of(report: Report) -> int:
    """Behind the point of a model's score."""
    return 0 if report.ranking["method"] == "bradley-terry" else 2


def word_of(report: Report) -> str:
    return "rating" if report.ranking["method"] == "bradley-terry" else "score"


def level_of(report: Report) -> str:
    about = report.ranking["interval"]
    return f"{(about['level'] if about else 0.95):.0%}"


def head_name(about: Mapping[str, Any]) -> str:
    name = str(about.get("head") or "not known")
    return f"{name}, fitted to {about['labeler']}" if about.get("labeler") else name


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def dollars(amount: float) -> str:
    return f"${amount:,.2f}" if amount >= 0.1 or amount == 0 else f"${amount:.4f}"


def rate(price: float) -> str:
    """A price as it was given."""
    return f"${price:,.2f}" if round(price, 2) == price else f"${price:g}"


# The top of the page.


def summary(report: Report) -> str:
    """The result in a sentence or two, and the size of it in figures."""
    rows, digits = report.ranking["models"], digits_of(report)
    top = rows[0]
    tied = [row["model"] for row in rows if row["rank"] == top["rank"]]
    if len(tied) > 1:
        said = f"{listed(tied)} share the first place."
    elif top["score"] is None:
        said = f"<b>{esc(top['model'])}</b> stands first, apart from the others."
    else:
        ends = "" if top["rank_low"] is None else f" {span(top['low'], top['high'], digits)}"
        said = f"<b>{esc(top['model'])}</b> stands first with {number(top['score'], digits)}{ends}."
    near = like_first(report)
    whom = "it" if len(tied) == 1 else "the first of them"
    if near is None:
        said += " How sure that is was not computed."
    elif near:
        said += f" Not significantly different from {whom}: {listed(near)}."
    elif len(rows) > len(tied):
        said += f" Every other model differs significantly from {whom}."
    for reference in report.references:
        if reference.agreement.get("ranking"):
            value, low, high = reference.agreement["ranking"]["spearman"]
            ends = "" if low is None or high is None else f" {span(low, high, 2)}"
            rho = "says nothing here" if value is None else f"is {number(value, 2)}{ends}"
            of = "The" if same_ranking(report, reference) else "By plain mean scores the"
            said += f" {of} rank correlation with {esc(reference.name)} {rho}."
    judge = f"<code>{esc(report.meta['judge']['origin'])}</code>, head {esc(head_name(report.about))}"
    graded, total = report.status.get("ok", 0), sum(report.status.values())
    tiles = [
        (f"{len(rows):,}", "models ranked"),
        (f"{report.ranking['sessions']:,}", "queries"),
        (f"{report.judgments_total:,}", "responses"),
        (f"{graded:,}", "items graded" if graded == total else f"of {total:,} items graded"),
    ]
    used = report.spent
    if used.processes:
        tiles.append((duration(used.seconds), "of grading"))
        if report.price is not None:
            amount = dollars(used.device_seconds / 3600 * report.price)
            tiles.append((amount, f"at {rate(report.price)} per device and hour"))
    shown = "".join(f"<li><b>{esc(value)}</b> {esc(text)}</li>" for value, text in tiles)
    return f'<p class="lead">{said}</p><p class="soft">Judged by {judge}.</p><ul class="tiles">{shown}</ul>'


def same_ranking(report: Report, reference: Reference) -> bool:
    """Whether the agreement is that of the ranking shown; else it is that of plain means."""
    keys = ("method", "length_controlled")
    return all(reference.agreement[key] == report.ranking[key] for key in keys)


def like_first(report: Report) -> list[str] | None:
    """The models that do not differ significantly from the first; None where no test was made."""
    about, rows = report.ranking["interval"], report.ranking["models"]
    if about is None:
        return None
    top = rows[0]["model"]
    first = {row["model"] for row in rows if row["rank"] == rows[0]["rank"]}
    out = []
    for pair in report.ranking["pairs"]:
        p = pair["p_adjusted"]
        if pair["a"] == top and pair["b"] not in first and (p is None or p >= 1 - about["level"]):
            out.append(pair["b"])
    return out


# Leaderboard.


def leaderboard(report: Report) -> str:
    """The models, best first, with intervals of score and rank."""
    ranking, digits = report.ranking, digits_of(report)
    rows, about = ranking["models"], ranking["interval"]
    scale = axis([x for row in rows for x in (row["low"], row["score"], row["high"])])
    references = [(r, reference_ranks(r)) for r in report.references if r.values]
    counted = rows[0]["wins"] is not None
    head = [("Rank", ""), ("Model", ""), (word_of(report).capitalize(), ""), (unseen("Chart"), "plot")]
    head += [("Group", "")] if about else []
    head += [("Wins / ties / losses", "num")] if counted else []
    head += [(esc(r.name), "num") for r, _ in references]
    out = []
    for row in rows:
        sure = row["rank_low"] is not None
        places = f" <small>{rank_range(row)}</small>" if sure else ""
        value = "apart" if row["score"] is None else number(row["score"], digits)
        ends = span(row["low"], row["high"], digits) if sure else "no interval"
        bar = interval_bar(row["score"], row["low"], row["high"], scale, f"{value} {ends}", sure)
        saw = ' <span class="chip bad">head saw its labels</span>' if row["head_saw_its_labels"] else ""
        cells = [
            f'<td class="rank">{row["rank"]}{places}</td>',
            f'<th scope="row" class="name"><bdi>{esc(row["model"])}</bdi>{saw}</th>',
            f'<td class="score"><b>{value}</b> <small>{ends}</small></td>',
            f'<td class="plot">{bar}</td>',
        ]
        if about:
            cells.append(f'<td class="group"><span class="chip">{esc(row["group"] or "none")}</span></td>')
        if counted:
            said = f"{row['wins']:,} / {row['ties']:,} / {row['losses']:,}"
            cells.append(f'<td class="num" data-label="Wins / ties / losses:">{said}</td>')
        for reference, ranks in references:
            if row["model"] in ranks:
                theirs = number(reference.values[row["model"]], 2)
                text = f"{theirs} <small>rank {ranks[row['model']]}</small>"
            else:
                text = "<small>none</small>"
            cells.append(f'<td class="num" data-label="{esc(reference.name)}:">{text}</td>')
        out.append(f"<tr>{''.join(cells)}</tr>")
    foot = "<td></td>" * 3 + f'<td class="plot">{axis_bar(scale)}</td>' + "<td></td>" * len(head[4:])
    return f'{notes(report)}<div class="wide">{table(head, out, "board", foot=foot)}</div>'


def rank_range(row: Mapping[str, Any]) -> str:
    low, high = row["rank_low"], row["rank_high"]
    return f"{low}" if low == high else f"{low} to {high}"


def reference_ranks(reference: Reference) -> dict[str, int]:
    values = reference.values
    return {m: 1 + sum(other > x + 1e-9 for other in values.values()) for m, x in values.items()}


def notes(report: Report) -> str:
    """What has to be known to read the ranking."""
    ranking, about = report.ranking, report.ranking["interval"]
    n = count(ranking["sessions"], "query", "queries")
    if report.about.get("compat"):
        lines = [f"RocketEval's own ranking: each model's mean over whatever queries it has, {n} in all."]
    elif ranking["method"] == "bradley-terry":
        ties = ranking["ties"]
        how = "by Davidson's model" if ties["model"] == "davidson" else "as half a win"
        which = f"scores within {ties['margin']:g}" if ties["margin"] else "equal scores"
        lines = [
            f"Bradley-Terry ratings over {n}: each query is a game of every two models, and 400 points are odds of 10 "
            f"to 1. {ties['games']:,} ties ({which}) count {how}."
        ]
    else:
        scale = {"the labeler's": f", on {report.about.get('labeler')}'s scale", "1 to 10": ", from 1 to 10"}
        lines = [f"Mean score over {n} that every model has a score for{scale.get(report.about.get('scale', ''), '')}."]
    if about:
        source = "queries and the scores' own errors" if about["score_errors"] else "queries"
        lines.append(
            f"Bars are {about['level']:.0%} intervals from {about['samples']:,} bootstrap samples of the {source}; "
            "beside a rank stand the ranks that are possible. Models that share a letter do not differ significantly "
            "(Holm's correction over all pairs)."
        )
    else:
        lines.append("No intervals were computed for this ranking.")
    effect = ranking["length_effect"]
    if effect:
        ends = "" if effect["low"] is None else f" {span(effect['low'], effect['high'], 3)}"
        worth = number(effect["value"], 3, True)
        lines.append(f"Ranked as if all responses were equally long; twice the length is worth {worth}{ends}.")
    if ranking["left_out"]:
        lines.append(f"{count(ranking['left_out'], 'query', 'queries')} without a score of every model are left out.")
    if ranking["abstained"]:
        gone = count(ranking["abstained"], "uncertain score")
        lines.append(f"{gone} not used; queries and models are fitted to the rest.")
    for one in ranking["separated"]:
        lines.append(f"{one['model']}: {one['why']}, so its strength has no finite estimate.")
    return f'<p class="note">{esc(" ".join(lines))}</p>'


# Model against model.


def pairs(report: Report) -> str:
    """Who wins how often, as a coloured table, and every pair with its difference."""
    found = report.ranking["pairs"]
    if not found:
        why = "there is only one model" if len(report.ranking["models"]) < 2 else "this ranking compares no pairs"
        return none(f"No comparison: {why}.")
    about = report.ranking["interval"]
    names = [row["model"] for row in report.ranking["models"]]
    by = {(p["a"], p["b"]): p for p in found}
    shown = names[:MOST_MODELS]
    rows = []
    for i, a in enumerate(shown):
        cells = [f'<th scope="row" title="{esc(a)}"><span class="soft">{i + 1}</span> <bdi>{esc(a)}</bdi></th>']
        for j, b in enumerate(shown):
            cells.append('<td class="self"></td>' if i == j else win_cell(a, b, by, about))
        rows.append(f"<tr>{''.join(cells)}</tr>")
    head = [(unseen("Model"), "")]
    head += [(f'<span title="{esc(name)}">{i + 1}</span>', "") for i, name in enumerate(shown)]
    lines = [
        f"How often, in per cent of {report.ranking['sessions']:,} queries, the row's response has the higher score "
        "than the column's (columns are in the rows' order); ties count half. Blue: the row wins more often, orange: "
        "less often."
    ]
    if about:
        what = "ratings" if digits_of(report) == 0 else "mean scores"
        lines.append(f"Bold with a star: the two {what} differ significantly ({about['level']:.0%}, Holm).")
    if len(shown) < len(names):
        lines.append(f"The first {len(shown)} of {len(names):,} models are shown.")
    matrix = f'<div class="wide">{table(head, rows, "matrix")}</div>'
    return f'<p class="note">{" ".join(lines)}</p>{matrix}{pair_table(report)}'


def win_cell(a: str, b: str, by: Mapping[tuple[str, str], Mapping[str, Any]], about: Any) -> str:
    """A cell of the matrix."""
    above = (a, b) in by
    pair = by[a, b] if above else by[b, a]
    wins, losses = (pair["wins"], pair["losses"]) if above else (pair["losses"], pair["wins"])
    n = wins + losses + pair["ties"]
    if not n:
        return f'<td title="{esc(f"{a} and {b}: no query has scores of both")}">none</td>'
    share = (wins + pair["ties"] / 2) / n
    strength = min(10, round(abs(share - 0.5) * 25))
    kind = [f"{'m' if share > 0.5 else 'l'}{strength}"] if strength else []
    if about is not None and pair["p_adjusted"] is not None and pair["p_adjusted"] < 1 - about["level"]:
        kind.append("sure")
    tip = f"{a} against {b}: {wins:,} wins, {pair['ties']:,} ties, {losses:,} losses in {n:,} queries"
    return f'<td class="{" ".join(kind)}" title="{esc(tip)}">{100 * share:.0f}</td>'


def pair_table(report: Report) -> str:
    """Every pair's difference."""
    found, digits = report.ranking["pairs"], digits_of(report)
    if len(found) > MOST_PAIRS:
        return f'<p class="note">All {len(found):,} pairs are in ranking.json.</p>'
    tested = report.ranking["interval"] is not None
    rows = []
    for pair in found:
        ends = span(pair["low"], pair["high"], digits) if tested else "no interval"
        p = pair["p_adjusted"]
        said = "not tested" if p is None else "&lt; 0.001" if p < 0.001 else f"{p:.3f}"
        games = f"{pair['wins']:,} / {pair['ties']:,} / {pair['losses']:,}"
        rows.append(
            f'<tr><td class="name"><bdi>{esc(pair["a"])}</bdi></td><td class="name"><bdi>{esc(pair["b"])}</bdi></td>'
            f'<td class="num" {sort_key(pair["difference"])}><b>{number(pair["difference"], digits, True)}</b> '
            f'<small>{ends}</small></td><td class="num" {sort_key(p)}>{said}</td>'
            f'<td class="num" {sort_key(pair["wins"])}>{games}</td></tr>'
        )
    head = [("Model", ""), ("stands above", ""), ("by", "num"), ("p, corrected", "num"),
            ("wins / ties / losses", "num")]  # fmt: skip
    inside = f'<div class="tall">{table(head, rows, "sortable")}</div>'
    return f'<details class="screen-only"><summary>All {len(found):,} pairs</summary>{inside}</details>'
