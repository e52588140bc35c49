"""Small pieces of HTML: escaped texts, numbers, tables."""

import html
import math
from collections.abc import Iterable, Sequence

_SHOWN: dict[int, str] = {
    # Control characters do nothing good in a browser, and those that turn the direction of writing around can make a
    # text look like another one.
    **{
        c: f"\u27e8U+{c:04X}\u27e9"
        for c in (*range(9), *range(11, 32), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
    },
    **dict.fromkeys(range(0xD800, 0xE000), "\ufffd"),  # no UTF-8 file can hold half a character
}


def visible(text: str) -> str:
    """A text with its control and direction characters made visible, as \u27e8U+202E\u27e9."""
    return text.replace("\r\n", "\n").translate(_SHOWN)


def esc(text: object) -> str:
    """A text as HTML, for elements and quoted attributes."""
    return html.escape(visible(str(text)), quote=True)


def number(value: float | None, digits: int, plus: bool = False) -> str:
    """A number for people, with a real minus; "not known" for None."""
    if value is None or math.isnan(value):
        return "not known"
    if math.isinf(value):
        return "\u2212\u221e" if value < 0 else "\u221e"
    text = f"{value:{'+' if plus else ''},.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "\u2212")


def span(low: float | None, high: float | None, digits: int) -> str:
    """An interval; an end that is None is unbounded."""
    ends = (float("-inf") if low is None else low, float("inf") if high is None else high)
    return "[{}, {}]".format(*(number(end, digits) for end in ends))


def figure_text(figure: Sequence[float | None], digits: int = 3) -> str:
    """A value with its interval, of [value, low, high]."""
    value, low, high = figure
    if value is None:
        return "<small>says nothing here</small>"
    ends = "no interval" if low is None or high is None else span(low, high, digits)
    return f'<b>{number(value, digits)}</b> <small class="interval">{ends}</small>'


def count(n: int, one: str, many: str = "") -> str:
    """A number with its noun: 1 query, 2 queries."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def listed(names: Sequence[str], most: int = 6) -> str:
    """Names in a sentence."""
    shown = [f"<b>{esc(name)}</b>" for name in names[:most]]
    if len(names) > most:
        return ", ".join(shown) + f" and {count(len(names) - most, 'other')}"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def none(text: str) -> str:
    """What stands where there is nothing to show; the text is HTML."""
    return f'<p class="none">{text}</p>'


def sort_key(value: float | None) -> str:
    """The attribute that a cell sorts by; without a number it goes last."""
    return f'data-v="{"" if value is None else repr(float(value))}"'


def cell(value: float | None, digits: int, plus: bool = False) -> str:
    """A cell of a table that sorts by its number; a dash where there is none."""
    text = "\u2013" if value is None else number(value, digits, plus)
    return f'<td class="num" {sort_key(value)}>{text}</td>'


def table(
    head: Sequence[tuple[str, str]], rows: Iterable[str], kind: str = "", caption: str = "", foot: str = ""
) -> str:
    """A table; `head` has text and class of each column, all texts are HTML, a row too."""
    names = "".join(f'<th scope="col" class="{c}">{name}</th>' if c else f'<th scope="col">{name}</th>'
                    for name, c in head)  # fmt: skip
    said = f"<caption>{caption}</caption>" if caption else ""
    body = f"<thead><tr>{names}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f'<table class="{kind}">{said}{body}{f"<tfoot><tr>{foot}</tr></tfoot>" if foot else ""}</table>'


def unseen(text: str) -> str:
    """A column's name for people who hear the page."""
    return f'<span class="hidden-text">{text}</span>'
