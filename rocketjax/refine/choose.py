"""From reasons to what becomes of every item.

Axes: Q queries, I checklist items.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from rocketjax.refine.evidence import Evidence, Figures, Float
from rocketjax.refine.reasons import Key, Pair, Reason

Action = Literal["keep", "drop", "merge", "flag"]
Criterion = Literal["discrimination", "usefulness"]
# What comes back first where too few items would be left: an item that hurts comes last.
COMES_BACK = ("unstable", "unanswerable", "duplicate", "dead", "reversed")


@dataclass
class Decision:
    """What becomes of an item, and why. `into` is the item of the old checklist that it is merged into."""

    action: Action = "keep"
    reasons: list[Reason] = field(default_factory=list)
    into: int | None = None


def decide(
    e: Evidence,
    f: Figures,
    reasons: Sequence[Mapping[Key, Reason]],
    pairs: Mapping[int, Sequence[Pair]],
    criterion: Criterion,
    least: int,
    keep: int | None,
    merging: bool,
) -> dict[Key, Decision]:
    """A decision for every item. Nothing depends on the order of queries, models or items: ties go by the text.

    First go the items with a reason to drop. Of duplicates among the others the one with the best discrimination stays,
    and the rest go into it if `merging`, or are flagged. `keep` then cuts each query to the items with the best
    `criterion`, where at least that many have one. Where fewer than `least` items would be left, those with the least
    harmful reason come back and are flagged.
    """
    out = {(int(q), int(i)): Decision() for q, i in np.argwhere(e.item_QI)}
    for by_key in reasons:
        for key, reason in by_key.items():
            out[key].reasons.append(reason)
            if reason.drop:
                out[key].action = "drop"
            elif out[key].action == "keep":
                out[key].action = "flag"
    worth_QI: Float = getattr(f, criterion)
    for q, texts in enumerate(e.texts):
        items = range(len(texts))
        merge(q, ranked(there(out, q, items), f.discrimination[q], texts), pairs.get(q, ()), out, merging)
        left = there(out, q, items)
        known = [i for i in left if np.isfinite(worth_QI[q, i])]
        if keep is not None and len(known) >= keep:
            for place, i in enumerate(ranked(left, worth_QI[q], texts)[keep:], keep + 1):
                out[q, i].reasons.append(Reason("cut", True, {"place": place, criterion: float(worth_QI[q, i])}))
                out[q, i].action = "drop"
        left = there(out, q, items)
        gone = [i for i in items if i not in left and all(r.kind != "cut" for r in out[q, i].reasons)]
        gone = sorted(ranked(gone, worth_QI[q], texts), key=lambda i: harm(out[q, i]))
        for i in gone[: max(0, least - len(left))]:
            out[q, i].reasons.append(Reason("least", False, {"left": len(left)}))
            out[q, i].action, out[q, i].into = "flag", None
        for i in items:
            into = out[q, i].into
            if into is not None and out[q, into].action == "drop":
                out[q, i].action = "drop"  # what it went into was cut
    return out


def there(out: Mapping[Key, Decision], q: int, items: Sequence[int]) -> list[int]:
    """The items of a query that stay as things stand."""
    return [i for i in items if out[q, i].action in ("keep", "flag")]


def ranked(items: Sequence[int], worth_I: Float, texts: Sequence[str]) -> list[int]:
    """Items from the best to the worst, those of which it is not known last; ties by the text."""
    return sorted(items, key=lambda i: (-worth_I[i] if np.isfinite(worth_I[i]) else np.inf, texts[i]))


def merge(q: int, order: Sequence[int], pairs: Sequence[Pair], out: Mapping[Key, Decision], merging: bool) -> None:
    """Takes items from the best to the worst; one that is a duplicate of some that stay belongs to the most alike."""
    alike = {(a, b): pair for pair in pairs for a, b in ((pair[0], pair[1]), (pair[1], pair[0]))}
    stay: list[int] = []
    for i in order:
        found = [(alike[i, j].similarity, -stay.index(j), j) for j in stay if (i, j) in alike]
        if not found:
            stay.append(i)
            continue
        j = max(found)[2]
        pair, decision = alike[i, j], out[q, i]
        numbers = {"similarity": pair.similarity, "correlation": pair.correlation, "correlation_at_least": pair.low}
        decision.reasons.append(Reason("duplicate", merging, numbers, j))
        decision.action, decision.into = ("merge", j) if merging else ("flag", None)


def harm(decision: Decision) -> int:
    """The place in `COMES_BACK` of the worst of its reasons."""
    return max(COMES_BACK.index(r.kind) for r in decision.reasons if r.drop)
