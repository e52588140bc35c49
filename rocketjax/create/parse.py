"""What a language model wrote as a checklist, into items; what is no item, with the reason.

Read are JSON (a list of texts or objects, an object with such lists, lists in a code fence or with text around them;
of a list that was cut off, its whole elements) and lines: numbered, bulleted, bold, with `Q1:` before them, or bare.
"""

import json
import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

LONGEST_ITEM = 1000  # characters; the longest of five published sets (HelloBench) has 608
MOST_ITEMS = 40  # a model that repeats itself does not stop; the longest checklist that RocketEval published has 25
LONGEST_CATEGORY = 60
HEAVIEST = 100.0
SHOWN = 120  # characters of a refused text that are kept
TRIES = 200  # places where JSON may begin, so that a text of brackets costs no more than its length


@dataclass(frozen=True)
class Item:
    """One yes/no question, with how much it counts (0 < weight <= 100) and what it is about, where that was said."""

    question: str
    weight: float | None = None
    category: str | None = None


@dataclass(frozen=True)
class Refused:
    """A piece of the answer (its first characters) that became no item, or an item's field that was left out."""

    text: str
    reason: str


@dataclass(frozen=True)
class Parsed:
    items: tuple[Item, ...]
    refused: tuple[Refused, ...]


QUESTION = ("question", "item", "text", "criterion", "criteria", "check", "q")
WEIGHT = ("weight", "importance")
CATEGORY = ("category", "type", "dimension", "aspect")
LISTS = ("checklist", "questions", "items", "criteria")

ASKING = (
    r"(?:is|are|was|were|do|does|did|has|have|had|can|could|will|would|should|must|may|might"
    r"|isn't|aren't|doesn't|don't|hasn't|can't)"
)
_ASKS = re.compile(rf"{ASKING}\b", re.IGNORECASE)
# No answer of yes or no; but "When asked for a price, does it give one?" has one.
_OPEN = re.compile(r"(?:what|who|whom|whose|why|how|which|where|when|to what extent)\b", re.IGNORECASE)
_ASKS_LATER = re.compile(rf",\s*(?:then\s+)?{ASKING}\b", re.IGNORECASE)
_NUMBER_MARK = r"(?:[0-9]{1,3}[.)](?=\s|[*_\"'A-Z])|\([0-9]{1,3}\)|[0-9]{1,3}:(?=\s)|\(?[a-z]\)(?=\s))"
_BULLET = r"(?:[-*+•●○▪◦‣·–—](?=\s))"
_Q_MARK = r"(?:(?:Q|q|Question|question|Item|item)\s?#?[0-9]{1,3}\s?[:.)-](?=\s|$|[*\"A-Z]))"
_MARK = re.compile(rf"\s*(?:#+\s+)?(?:\*\*|__)?\s*(?:{_NUMBER_MARK}|{_BULLET}|{_Q_MARK})")
_SECOND_MARK = re.compile(rf"\s*(?:\*\*|__)?(?:{_NUMBER_MARK}|{_Q_MARK})")
_BOX = re.compile(r"\s*\[[ xX✓]?\](?=\s)")
_LABEL = re.compile(r"(\*\*|__)(?P<label>[^*_?]{1,60}?)(?::\s?\1|\1\s?:)\s+(?P<rest>\S.*)", re.DOTALL)
_BOLD = re.compile(r"(\*\*|__)(?P<inner>(?:(?!\1).)+)\1(?P<end>\s*)", re.DOTALL)
_YES_NO = re.compile(r"\s*[(\[]?\s*\b(?:yes|y)\s*(?:/|\s+or\s+)\s*(?:no|n)\b\s*[)\]]?\s*[.:]?\s*$", re.IGNORECASE)
_QUESTION_END = re.compile(r"[?？؟][\"'”’»)\]*]*(?:\s*\([^()]*\)[.]?)?$")
_FENCE = re.compile(r"^[ \t]*```[^\n]*$", re.MULTILINE)
_INLINE = re.compile(r"(?<=[?？])\s+(?=[0-9]{1,2}[.)]\s)")
_THOUGHTS = re.compile(r"^.*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_COUNTED = re.compile(r"[^0-9]{0,12}[0-9]{1,3}")
# Marks that do not tell two questions apart; a point or comma within a number does.
_PUNCTUATION = re.compile(r"(?<![0-9])[.,:]|[.,:](?![0-9])|[?？؟!;\"'`“”‘’«»]|[-–—](?![0-9])")
_ODD = frozenset(("Cc", "Cs"))  # control characters, halves of pairs
_BIDI = frozenset("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

_SUBJECT = r"(?P<subject>(?:the|this)\s+(?:response|answer|output|reply|assistant|model))"
_STATEMENT = re.compile(
    rf"(?:(?:check|verify|ensure)\s+)?(?:(?:whether|that|if)\s+)?{_SUBJECT}\s+(?P<rest>.+)", re.IGNORECASE | re.DOTALL
)
# Verbs as a model writes them of a response, and how a question has them. No guess is made about others.
_VERBS = {
    "addresses": "address", "answers": "answer", "avoids": "avoid", "cites": "cite", "compares": "compare",
    "contains": "contain", "covers": "cover", "defines": "define", "demonstrates": "demonstrate",
    "describes": "describe", "discusses": "discuss", "explains": "explain", "follows": "follow", "gives": "give",
    "identifies": "identify", "includes": "include", "lists": "list", "mentions": "mention", "names": "name",
    "offers": "offer", "presents": "present", "provides": "provide", "recommends": "recommend", "refers": "refer",
    "shows": "show", "states": "state", "suggests": "suggest", "summarizes": "summarize", "uses": "use",
}  # fmt: skip


def parse_checklist(text: str, cut: bool = False) -> Parsed:
    """The items of a model's answer, in its order; `cut` says that the answer ended before the model did.

    Statements become questions only where a rule knows how ("The response mentions X." -> "Does the response mention
    X?"), and are refused else, as are questions of which, how or why, repeated ones (but for case and punctuation),
    blank ones, those over LONGEST_ITEM characters or with control characters, and all after MOST_ITEMS. Never raises.
    """
    text = _THOUGHTS.sub("", text)
    found = list(_from_json(text))
    if not found:
        found = list(_from_lines(text, cut))
    items: list[Item] = []
    refused: list[Refused] = []
    seen: set[str] = set()
    for piece in found:
        if isinstance(piece, Refused):
            refused.append(piece)
            continue
        question, why = _question(piece.question)
        label = None
        if not why and (match := _LABEL.fullmatch(question)) and _asks(match["rest"]):
            label, question = match["label"].strip(), _upper(match["rest"])
        same = " ".join(_PUNCTUATION.sub(" ", unicodedata.normalize("NFC", question)).casefold().split())
        if not why and not any(c.isalnum() for c in same):
            why = "is blank"
        elif not why and same in seen:
            why = "repeats an earlier item"
        elif not why and len(items) == MOST_ITEMS:
            why = f"comes after {MOST_ITEMS} items"
        if why:
            refused.append(_refused(piece.question, why))
            continue
        seen.add(same)
        items.append(Item(question, piece.weight, piece.category or label))
    return Parsed(tuple(items), tuple(refused))


def _refused(text: object, reason: str) -> Refused:
    shown = "".join(c if c.isprintable() else "\ufffd" for c in " ".join(str(text)[: 4 * SHOWN].split()))
    return Refused(shown if len(shown) <= SHOWN else shown[: SHOWN - 3] + "...", reason)


# One item's text.


def _question(text: str) -> tuple[str, str]:
    """The item as a question, and why it is none ("" if it is one)."""
    if any(c in _BIDI or (unicodedata.category(c) in _ODD and c not in "\t\n\r") for c in text):
        return "", "holds control characters"
    text = _plain(text)
    if not text:
        return "", "is blank"
    if len(text) > LONGEST_ITEM:
        return "", f"has {len(text):,} characters, {LONGEST_ITEM:,} are the most"
    bare = _YES_NO.sub("", text)
    if bare and (_QUESTION_END.search(bare) or _ASKS.match(bare)):
        text = bare
    label = _LABEL.fullmatch(text)
    core = label["rest"] if label else text
    if _OPEN.match(core) and not _ASKS_LATER.search(core):
        return "", "cannot be answered with yes or no"
    if _asks(core):
        whole = "?" in core or _QUESTION_END.search(core)
        return (text if whole else text.rstrip(" .;,") + "?"), ""
    asked = _turned(core)
    if asked is None:
        return "", "is not a question"
    return (text[: len(text) - len(core)] + asked), ""


def _asks(text: str) -> bool:
    """Whether it ends as a question does, or begins as one that asks for yes or no."""
    return bool(_QUESTION_END.search(text) or _ASKS.match(text))


def _plain(text: str) -> str:
    """One line without the quotes or bold marks that are around all of it."""
    text = " ".join(text.split())
    while True:
        bold = _BOLD.fullmatch(text)
        if bold:
            text = bold["inner"].strip()
        elif (
            len(text) > 1 and (text[0], text[-1]) in (('"', '"'), ("“", "”"), ("`", "`")) and text[0] not in text[1:-1]
        ):
            text = text[1:-1].strip()
        else:
            return text


def _turned(text: str) -> str | None:
    """A statement about the response as the question whether it is so; None where no rule is sure."""
    text = text.rstrip(" .;")
    found = _STATEMENT.fullmatch(text)
    if not found or re.search(r"[.!;]\s", text):
        return None
    subject, words = found["subject"].lower(), found["rest"].split()
    first = words[0].lower()
    if first in ("should", "must") and len(words) > 1:
        verb = words[1].lower()
        if verb in ("not", "never"):
            return None  # whether a yes is good would hang on how it is put
        if verb == "be":
            return f"Is {subject} {' '.join(words[2:])}?" if len(words) > 2 else None
        return f"Does {subject} {' '.join(words[1:])}?" if verb in _VERBS.values() else None
    if first in ("is", "can", "has") and len(words) > 1:
        # "has been" and "has two parts" are asked in different ways.
        if words[1].lower() in ("not", "never") or first == "has":
            return None
        return f"{first.capitalize()} {subject} {' '.join(words[1:])}?"
    adverb = 1 if first.endswith("ly") and len(words) > 1 else 0
    base = _VERBS.get(words[adverb].lower())
    if base is None or len(words) == adverb + 1:
        return None
    return f"Does {subject} {' '.join([*words[:adverb], base, *words[adverb + 1 :]])}?"


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


# JSON.


def _from_json(text: str) -> Iterator[Item | Refused]:
    """What the JSON values of a text hold, those that begin a line; nothing where no value holds items."""
    fenced = [part for i, part in enumerate(_FENCE.split(text)) if i % 2]
    for part in (*fenced, text):
        found: list[Item | Refused] = []
        at = tries = 0
        for start in re.finditer(r"^[ \t\ufeff]*([\[{])", part, re.MULTILINE):
            tries += 1
            if start.start(1) < at or tries > TRIES:
                continue
            try:
                value, at = json.JSONDecoder().raw_decode(part, start.start(1))
            except (ValueError, RecursionError):
                if not found:
                    whole = _whole_elements(part, start.start(1))
                    found += _of_value(whole) if whole else []
                    if found:
                        found.append(_refused(part[-SHOWN:], "was cut off or is no JSON; the elements before it stand"))
                        break
                continue
            found += _of_value(value)
        if any(isinstance(piece, Item) for piece in found):
            yield from found
            return


def _whole_elements(text: str, start: int) -> list[Any]:
    """The texts and objects of the first list from `start` on, up to the one that is not whole."""
    if text[start] == "{":
        opened = re.compile(r"\{\s*\"[^\"\\]{0,60}\"\s*:\s*\[").match(text, start)
        if not opened:
            return []
        start = opened.end() - 1
    at = start + 1
    elements: list[Any] = []
    decoder = json.JSONDecoder()
    while True:
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
        if at >= len(text) or text[at] not in '"{':
            return elements
        try:
            element, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return elements
        elements.append(element)


def _of_value(value: Any, category: str | None = None) -> list[Item | Refused]:
    """The items of a JSON value: a list of texts and objects, an object that is one, or an object of lists."""
    if isinstance(value, list):
        out: list[Item | Refused] = []
        for element in value:
            if isinstance(element, str):
                out.append(Item(_unmarked(element), None, category))
            elif isinstance(element, dict):
                out += _of_object(element, category) or [_refused(element, "is an object without a question")]
            else:
                out.append(_refused(element, "is neither a text nor an object"))
        return out
    return _of_object(value, category) if isinstance(value, dict) else []


def _of_object(value: dict[str, Any], category: str | None) -> list[Item | Refused]:
    named = {key.strip().lower(): v for key, v in value.items()}
    question = next((named[k] for k in QUESTION if isinstance(named.get(k), str)), None)
    if question is not None:
        weight, bad_weight = _weight(next((named[k] for k in WEIGHT if named.get(k) is not None), None))
        own = next((named[k] for k in CATEGORY if named.get(k) is not None), None)
        name, bad_name = _category(own)
        about: list[Item | Refused] = [Item(_unmarked(question), weight, name or category)]
        return about + [_refused(question, why) for why in (bad_weight, bad_name) if why]
    lists = {k: v for k, v in value.items() if isinstance(v, list)}
    chosen = next((v for k, v in lists.items() if k.strip().lower() in LISTS), None)
    if chosen is not None:
        return _of_value(chosen, category)
    if value and all(isinstance(v, str) and _COUNTED.fullmatch(k) for k, v in value.items()):
        return [Item(_unmarked(v), None, category) for v in value.values()]
    return [piece for k, v in lists.items() for piece in _of_value(v, _category(k)[0])]


def _weight(value: Any) -> tuple[float | None, str]:
    if value is None:
        return None, ""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if math.isfinite(number) and 0 < number <= HEAVIEST:
        return number, ""
    return None, f"its weight {str(value)[:20]!r} is no number over 0 and up to {HEAVIEST:g}; left out"


def _category(value: Any) -> tuple[str | None, str]:
    if value is None:
        return None, ""
    name = " ".join(value.split()) if isinstance(value, str) else ""
    if name and len(name) <= LONGEST_CATEGORY and name.isprintable():
        return name, ""
    return None, "its category is no short text; left out"


# Lines.


def _from_lines(text: str, cut: bool) -> Iterator[Item | Refused]:
    """Marked lines are items; where there are none, every line is. A marked one goes on until a blank or marked one."""
    lines = [line for line in text.split("\n") if not _FENCE.fullmatch(line)]
    if len([line for line in lines if line.strip()]) == 1:
        lines = _INLINE.split(text.strip())
    marked = any(_MARK.match(line) for line in lines)
    pieces: list[str | Refused] = []
    going_on = False
    for line in lines:
        if not line.strip():
            going_on = False
        elif _MARK.match(line):
            pieces.append(_unmarked(line))
            going_on = True
        elif not marked:
            pieces.append(line)
        elif going_on and _goes_on(pieces[-1]):
            pieces[-1] = f"{pieces[-1]} {line}"
        else:
            pieces.append(_refused(line, "stands beside the list"))
            going_on = False
    last = len(pieces) - 1
    for i, piece in enumerate(pieces):
        if isinstance(piece, Refused):
            yield piece
        elif cut and i == last and not _QUESTION_END.search(_plain(piece)):
            yield _refused(piece, "was cut off")
        else:
            yield Item(piece)


def _goes_on(piece: str | Refused) -> bool:
    """Whether the next line may belong to an item: its question has not ended, and it is not too long by now."""
    return isinstance(piece, str) and len(piece) <= LONGEST_ITEM and not _QUESTION_END.search(_plain(piece))


def _unmarked(line: str) -> str:
    """The line without its number or bullet, its box and its `Q1:`."""
    for pattern in (_MARK, _BOX, _SECOND_MARK):
        found = pattern.match(line)
        if not found:
            continue
        bold = next((mark for mark in ("**", "__") if mark in found.group()), "")
        rest = line[found.end() :]
        if bold:  # it opened before the number: it closes after it, or after the item
            before, closed, after = rest.partition(bold)
            rest = before + after if closed else rest
        line = rest
    return line.strip()
