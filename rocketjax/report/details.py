"""The sections of a report that go into detail: items, single judgments, the run, what was left out."""

from collections.abc import Mapping, Sequence
from typing import Any

from rocketjax.report.collect import LONGEST, LOW_MASS, Report
from rocketjax.report.elements import cell, count, esc, none, number, sort_key, table
from rocketjax.report.standing import dollars, duration, head_name, rate

MOST_ITEMS = 1000  # rows of the table of items
MOST_PLACES = 100  # places listed of one kind of exclusion
PICKED = 5  # worst and best items
PRINTED = 25  # rows of the table of items on paper; page.css knows it too
FALSE_DISCOVERIES = 0.05  # share of the items shown as unfair to a family that may be so by chance
VERDICTS = {"hurts": "hurts", "dead": "dead", "unknown": "not known", "ok": "ok"}


# Items.


def items(report: Report) -> str:
    """What each item is worth."""
    rows = report.items
    if not rows:
        return none("There are no items.")
    tally = {kind: sum(r["verdict"] == kind for r in rows) for kind in VERDICTS}
    labelled = any(r["agreement"] is not None for r in rows)
    weighed = any(r["weight"] is not None for r in rows)
    families = any(unfair(r) for r in rows)
    meaning = {
        "hurts": "Harmful, against the labels or with a weight below 0 by more than its standard error",
        "dead": "Dead, with a p(yes) that hardly differs between responses",
        "unknown": "With too few graded responses to tell",
        "ok": "Others",
    }
    if not (labelled or weighed):
        del meaning["hurts"]
    lines = [f"{count(len(rows), 'item')}.", *(f"{text}: {tally[k]:,}." for k, text in meaning.items())]
    if not labelled:
        lines.append("No labels, so no agreement" + ("." if weighed else ", and none is known to hurt."))
    lines.append(
        "Discrimination is p(yes)'s correlation with the mean of the query's other items, over the query's responses"
        + ("; agreement that with the labels." if labelled else ".")
    )
    whose = report.weights[:1].upper() + report.weights[1:]
    lines.append(f"{whose}, in units of their mean size." if weighed else f"No weights: {report.weights}.")
    if families:
        lines.append("Family: models of one name that the item treats otherwise than the query's other items do, at a "
                     f"false discovery rate of {FALSE_DISCOVERIES:.0%}.")  # fmt: skip
    fine = [r for r in rows if r["verdict"] == "ok"]
    bad = [r for r in rows if r["verdict"] in ("hurts", "dead")]
    best = fine[-PICKED:][::-1]
    worst = [r for r in (bad + fine)[:PICKED] if r not in best]
    picks = (f'<div class="columns"><div><h3>The worst</h3>{pick_list(worst)}</div>'
             f"<div><h3>The best</h3>{pick_list(best)}</div></div>")  # fmt: skip
    shown, said = rows, ""
    if len(rows) > MOST_ITEMS:
        half = MOST_ITEMS // 2
        shown = (*rows[:half], *rows[-half:])
        said = (f'<p class="note">The table has the worst {half:,} and the best {half:,} of {len(rows):,}; '
                "<code>rocketjax items RUN -o items.csv</code> writes all.</p>")  # fmt: skip
    head = [("Query", ""), ("Item", ""), ("Verdict", ""), ("n", "num"), ("mean p", "num"), ("yes", "num"),
            ("deviation", "num"), ("discrim.", "num")]  # fmt: skip
    head += [("agreement", "num")] if labelled else []
    head += [("weight", "num")] if weighed else []
    head += [("family", "")] if families else []
    there = {j.session_id for j in report.judgments}
    body = [item_row(r, there, labelled, weighed, families) for r in shown]
    options = "".join(f'<option value="{k}">{v} ({tally[k]:,})</option>' for k, v in VERDICTS.items() if tally[k])
    controls = (
        '<div class="controls">'
        '<label class="grow">Search <input id="item-words" type="search" autocomplete="off"></label>'
        f'<label>Verdict <select id="item-verdict"><option value="">all</option>{options}</select></label>'
        '<output id="item-count"></output></div>'
    )
    made = table(head, body, "sortable").replace("<table ", '<table id="item-table" ', 1)
    cut = f'<p class="note print-only">The first {PRINTED} of {len(shown):,} rows.</p>' if len(shown) > PRINTED else ""
    return (
        f'<p class="note">{esc(" ".join(lines))}</p>{picks}<h3 class="next">All items</h3>{controls}{said}'
        f'<div class="tall">{made}</div>{cut}'
    )


def unfair(row: Mapping[str, Any]) -> bool:
    return row["family_q"] is not None and row["family_q"] < FALSE_DISCOVERIES


def item_text(row: Mapping[str, Any]) -> str:
    if row["text"] is None:
        return f'<span class="soft">item {row["item"]}</span>'
    return f'<span dir="auto">{esc(row["text"])}</span>'


def pick_list(rows: Sequence[Mapping[str, Any]]) -> str:
    """A few items with their figures."""
    if not rows:
        return none("None.")
    lines = []
    for r in rows:
        chip = "" if r["verdict"] == "ok" else f'<span class="chip bad">{VERDICTS[r["verdict"]]}</span> '
        said = [f"n = {r['responses']:,}", f"mean p {number(r['mean_p'], 2)}"]
        figures = ("agreement", "discrimination", "weight")
        said += [f"{name} {number(r[name], 2)}" for name in figures if r[name] is not None]
        session = f'<span class="session">{esc(r["session_id"])}</span>'
        lines.append(f"<li>{chip}{item_text(r)}<small>{session} · {esc(' · '.join(said))}</small></li>")
    return f'<ul class="picks">{"".join(lines)}</ul>'


def item_row(row: Mapping[str, Any], there: set[str], labelled: bool, weighed: bool, families: bool) -> str:
    """A row of the table; the query's name leads to the browser where it is in there."""
    session, kind = esc(row["session_id"]), row["verdict"]
    name = f'<span class="session">{session}</span>'
    if row["session_id"] in there:
        name = f'<a class="session" href="#browse" data-session="{session}">{session}</a>'
    chip = f'<span class="chip{" bad" if kind in ("hurts", "dead") else ""}">{VERDICTS[kind]}</span>'
    cells = [
        f"<td>{name}</td>", f'<td class="item-text">{item_text(row)}</td>', f"<td>{chip}</td>",
        f'<td class="num" {sort_key(row["responses"])}>{row["responses"]:,}</td>', cell(row["mean_p"], 2),
        cell(row["yes_rate"], 2), cell(row["deviation"], 2), cell(row["discrimination"], 2),
    ]  # fmt: skip
    cells += [cell(row["agreement"], 2)] if labelled else []
    cells += [cell(row["weight"], 2)] if weighed else []
    if families:
        found = f"{esc(row['family'])} {number(row['family_shift'], 2, True)}" if unfair(row) else ""
        cells.append(f"<td>{found}</td>")
    return f'<tr data-verdict="{kind}">{"".join(cells)}</tr>'


# Single judgments.


def browser(report: Report) -> str:
    """The frame that the page's script fills."""
    n, total = len(report.judgments), report.judgments_total
    if not n:
        return none(f"None of the {total:,} responses is in this page (--judgments 0).")
    labelled = any(j.wrong is not None for j in report.judgments)
    lines = [f"All {total:,} responses." if n == total else f"{n:,} of {total:,} responses."]
    if n < total:
        first = "those furthest from their label, else the least certain," if labelled else "the least certain"
        lines.append(f"They are taken evenly from models and queries, {first} first; --judgments takes more or fewer.")
    long = sum(len(j.text or "") > LONGEST for j in report.judgments)
    if long:
        verb = "is" if long == 1 else "are"
        lines.append(f"{count(long, 'response')} of more than {LONGEST:,} characters {verb} shown without the middle, "
                     "which is said there.")  # fmt: skip
    if not report.has_texts:
        lines.append("The benchmark was not given, so there are no texts, only grades.")
    if report.labeler is None:
        lines.append("No labels were given.")
    lines.append(
        "Beside a score stands its standard error. Bars are p(yes): blue above one half, orange below. Control "
        "characters, and those that turn the direction of writing, are shown as ⟨U+0000⟩."
    )
    orders = [("wrong", "furthest from the label")] if labelled else []
    orders += [("error", "least certain"), ("low", "lowest score"), ("high", "highest score"), ("query", "query")]
    options = "".join(f'<option value="{key}">{text}</option>' for key, text in orders)
    controls = (
        '<div class="controls">'
        '<label class="grow">Search <input id="browse-words" type="search" autocomplete="off"></label>'
        '<label>Model <select id="browse-model"><option value="">all</option></select></label>'
        '<label>Query <select id="browse-query"><option value="">all</option></select></label>'
        f'<label>Order <select id="browse-order">{options}</select></label>'
        '<output id="browse-count"></output></div>'
    )
    script = none("Single judgments need JavaScript; all else on this page does without.")
    return (
        f'<p class="note">{esc(" ".join(lines))}</p>{controls}<div class="without-js">{script}</div>'
        '<div id="judgments"></div><button type="button" class="more" id="browse-more" hidden>Show more</button>'
    )


# Facts.


def facts(report: Report) -> str:
    """What was graded with what, and what it took."""
    meta, about = report.meta, report.about
    judge, bench, prompt, versions = (meta.get(k) or {} for k in ("judge", "benchmark", "prompt", "versions"))
    own: list[tuple[str, Any]] = [("judge", judge.get("origin"))]
    if str(judge.get("origin", "")).startswith("recorded:"):
        own += [("weights", "not known: another program graded, and these are its recorded judgments"),
                ("judgments, sha256", judge.get("judgments_sha256"))]  # fmt: skip
    else:
        own += [("number format", judge.get("dtype")), ("weights, sha256", judge.get("weights_sha256")),
                ("tokenizer, sha256", judge.get("tokenizer_sha256"))]  # fmt: skip
        for what in ("config", "prompt"):  # runs of earlier versions have neither
            if value := judge.get(f"{what}_sha256"):
                own.append((f"{what}, sha256", value))
    own += [(f"prompt, {k.replace('_', ' ')}", "none" if v is None else v) for k, v in prompt.items()]
    data = [("benchmark", bench.get("name")), ("content, sha256", bench.get("sha256")),
            ("questions, sha256", bench.get("questions_sha256")), ("queries with a checklist", bench.get("queries")),
            ("models", len(bench.get("models") or ())), ("items to grade", bench.get("items"))]  # fmt: skip
    scores = [("head", head_name(about)), ("scale", about.get("scale"))]
    if about.get("labeler"):
        scores += [("labels, sha256", about.get("labels_sha256")),
                   ("trained on", ", ".join(about.get("trained_on") or ())),
                   ("folds", about.get("folds") or "none: the models trained on are not scored")]  # fmt: skip
    scores += [(f"jury, {name}", f"{share:.0%} of the weight") for name, share in (about.get("jury") or {}).items()]
    if weights := about.get("item_weights"):
        scores += [("weights of the items", f"as the checklists of {weights['benchmark']} give them"),
                   ("weights, sha256", weights["sha256"]),
                   ("queries without any", weights["queries_without"]),
                   ("other items without one", weights["items_without"])]  # fmt: skip
    limit = about.get("abstain")
    scores.append(("abstains", "never" if limit is None else f"above a standard error of {limit:g}"))
    groups = [("Judge", own), ("Benchmark", data), ("Scores", scores), ("Versions", list(versions.items())),
              ("Cost", cost(report))]  # fmt: skip
    shown = [
        f"<h3>{title}</h3><dl>{''.join(f'<dt>{esc(k)}</dt><dd>{fact(v)}</dd>' for k, v in lines)}</dl>"
        for title, lines in groups
    ]
    return f'<div class="columns facts"><div>{"".join(shown[:2])}</div><div>{"".join(shown[2:])}</div></div>'


def fact(value: Any) -> str:
    """A value as HTML, hashes in a font of equal widths."""
    if value is None:
        return '<span class="soft">not known</span>'
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return f"<code>{esc(text)}</code>" if len(text) >= 32 and " " not in text else esc(text)


def cost(report: Report) -> list[tuple[str, str]]:
    """Tokens, time and money, and how often the judge had something else to say."""
    used, sums = report.spent, report.spent.figures
    lines: list[tuple[str, str]] = []
    if used.processes:
        tokens, graded = sums["tokens"], sums["items"]
        when = used.started[0] if len(used.started) == 1 else f"{used.started[0]} to {used.started[-1]}"
        lines += [
            ("processes", f"{used.processes:,}"), ("started", when), ("devices", ", ".join(used.devices)),
            ("grading time", f"{duration(used.seconds)}, without loading the judge"),
        ]  # fmt: skip
        if tokens and graded:
            whole = f"{sums['naive_tokens']:,.0f} ({sums['naive_tokens'] / tokens:.1f} times as many)"
            lines.append(("tokens computed", f"{tokens:,.0f}, {tokens / graded:.0f} an item; whole prompts: {whole}"))
            lines.append(("rows", f"{sums['rows']:,.0f}, {tokens / max(sums['padded_tokens'], 1):.0%} full"))
        if used.seconds and graded:
            speed = f"{graded / used.seconds:,.1f} items/s, {sums['flops'] / used.seconds / 1e9:,.1f} GFLOP/s"
            lines.append(("speed", speed))
        if sums["defused"]:
            lines.append(("imitated delimiters defused", f"{sums['defused']:,.0f}"))
        hours = used.device_seconds / 3600
        said = "not given (--price X, dollars per device and hour)"
        if report.price is not None:
            said = f"{dollars(hours * report.price)}: {hours:.3f} device hours at {rate(report.price)}"
        lines.append(("price", said))
    else:
        lines.append(("time, tokens, price", "not known: no grading process left its figures in this run"))
    if used.unreadable:
        lines.append(("not counted", f"{count(used.unreadable, 'session file')} that cannot be read"))
    if report.mass is None:
        lines.append(("answer mass", "not recorded"))
    else:
        mean, low, n = report.mass
        said = f"P(Yes) + P(No) is {mean:.3f} on average over {n:,} items, below {LOW_MASS:g} for {low:,}"
        lines.append(("answer mass", said))
    return lines


def exclusions(report: Report) -> str:
    """What no figure of the page stands on, and why."""
    if not report.left_out:
        return none("Nothing was left out: every item has a grade, and every response is in the ranking.")
    rows = []
    for one in report.left_out:
        places = ""
        if one.places:
            more = len(one.places) - MOST_PLACES
            lines = [*map(esc, one.places[:MOST_PLACES]), *([f"and {more:,} more"] if more > 0 else [])]
            inside = "".join(f"<li>{line}</li>" for line in lines)
            places = f"<details><summary>where</summary><ul>{inside}</ul></details>"
        rows.append(f'<tr><td class="num">{one.count:,}</td><td class="name">{esc(one.what)}{places}</td></tr>')
    return table([("Number", "num"), ("What, and why", "")], rows, "left-out")
