"""A ranking for notebooks."""

import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rocketjax.rank.ranking import Ranking


def ranking_html(ranking: "Ranking") -> str:
    """A leaderboard as an HTML table, escaped, with a bar for every interval."""
    known = [x for row in ranking for x in (row["low"], row["score"], row["high"]) if x is not None]
    low, high = min(known, default=0.0), max(known, default=1.0)
    span = (high - low) or 1.0

    def place(x: float | None, otherwise: float) -> float:
        return 100 * ((otherwise if x is None else x) - low) / span

    digits = 0 if ranking.method == "bradley-terry" else 2
    rows = []
    for row in ranking:
        left, right = place(row["low"], low), place(row["high"], high)
        bar = ""
        if row["rank_low"] is not None:
            dot = place(row["score"], (low + high) / 2)
            bar = (
                '<div style="position:relative;height:12px;width:160px">'
                f'<div style="position:absolute;top:5px;height:2px;background:#4477aa;left:{left:.1f}%;'
                f'width:{max(right - left, 0.5):.1f}%"></div>'
                f'<div style="position:absolute;top:2px;height:8px;width:8px;border-radius:4px;background:#4477aa;'
                f'left:calc({dot:.1f}% - 4px)"></div></div>'
            )
        ends = (
            "" if row["low"] is None or row["high"] is None else f"{row['low']:.{digits}f} to {row['high']:.{digits}f}"
        )
        places = "" if row["rank_low"] is None else f"{row['rank_low']} to {row['rank_high']}"
        value = "apart" if row["score"] is None else f"{row['score']:.{digits}f}"
        cells = (str(row["rank"]), html.escape(row["model"]), value, ends, places, row["group"] or "")
        rows.append("<tr>" + "".join(f"<td>{c}</td>" for c in cells) + f"<td>{bar}</td></tr>")
    head = "".join(f"<th>{h}</th>" for h in ("rank", "model", "score", "interval", "ranks", "group", ""))
    notes = "<br>".join(html.escape(line) for line in ranking.notes())
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table><small>{notes}</small>"
