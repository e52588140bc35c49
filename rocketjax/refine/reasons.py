"""Reasons to drop, merge or flag a checklist item: one small function each, over a run's evidence.

Every one of them needs enough responses to be sure, by an interval or a test, and says with which numbers.

Axes: Q queries, M models under test, I checklist items, D width of the judge.
"""

import functools
import itertools
import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import beta, chi2, false_discovery_control, norm
from scipy.stats import t as student

from rocketjax.refine.evidence import Bool, Evidence, Figures, Float
from rocketjax.reweight.items import correlation

Kind = Literal["unstable", "unanswerable", "duplicate", "dead", "reversed", "cut", "least"]
Key = tuple[int, int]  # query, item

SURE = 0.95  # of one-sided intervals
RARE = 0.15  # an answer that is surely given less often than this is never given
STILL = 4  # p that moves less than this part of the usual deviation tells no responses apart,
MOST_STILL, LEAST_STILL = 0.05, 0.005  # between these for a judge that is always sure and one that never is
LOW_MASS = 0.1  # P(Yes) + P(No) below this: the judge had something else to say
# `experiments/refine.py duplicates`, default judge: of 43 paraphrases and 521 other pairs of items of one query, most
# about facts of one kind, 13 and 10 are above it and have the same facts; 12 and 7 with the answers of six models
# beside. These are proposals for a person, and are not merged unless that is asked for.
SIMILARITY = 0.2
NUMBER, NAME = re.compile(r"\d+(?:[.,:/]\d+)*"), re.compile(r"(?<=[a-z,;(] )[A-Z]\w*")
SHRINK = 0.5
LABELS = 6  # labels of a query below which nothing is said against its items
EXACT, MANY, DRAWS = 7, 20, 50_000  # labels: all permutations up to, Student's t above; permutations drawn between


@dataclass(frozen=True)
class Reason:
    """Why an item should go (`drop`) or be looked at. `numbers` are what it was decided by; `other` is the item of the
    same checklist that a duplicate goes into."""

    kind: Kind
    drop: bool
    numbers: dict[str, float]
    other: int | None = None


class Pair(NamedTuple):
    """Two items of one query that mean and answer the same."""

    first: int
    second: int
    similarity: float
    correlation: float
    low: float  # lower end of the correlation's interval


def share(count: float, n: float) -> tuple[float, float]:
    """Lower and upper ends of the two one-sided Jeffreys intervals of a share (Brown, Cai & DasGupta 2001, Statistical
    Science 16:101)."""
    low, high = beta.ppf([1 - SURE, SURE], count + 0.5, n - count + 0.5)
    return (0.0 if count == 0 else float(low)), (1.0 if count == n else float(high))


def dead(e: Evidence, f: Figures, responses: int) -> dict[Key, Reason]:
    """Items that give all responses the same answer: the other one is surely rarer than `RARE`.

    Scores are made of p, so what counts beside the answers is how far p moves, by the judge's own measure: the median
    deviation over responses of the items that get both answers, or of all where none does. An item that gives all the
    same answer is dropped where p deviates by less than a `STILL`th of that, and flagged below half of it; one that
    says 0.6 of bad and 0.9 of good responses is kept. An item whose p surely deviates by less than the `STILL`th is
    dropped, whatever its answers. The `STILL`th lies between `LEAST_STILL` and `MOST_STILL`.
    """
    known_QI = e.item_QI & np.isfinite(f.deviation)
    both_QI = known_QI & (f.yes_rate > 0) & (f.yes_rate < 1)  # or, where there are many dead ones, these would be usual
    known = f.deviation[both_QI if both_QI.any() else known_QI]
    usual = float(np.median(known)) if len(known) else 0.0
    still = max(LEAST_STILL, min(MOST_STILL, usual / STILL))
    found = {}
    for q, i in np.argwhere(e.item_QI & (np.nan_to_num(f.responses) >= max(responses, 2))):
        n, deviation = int(f.responses[q, i]), float(f.deviation[q, i])
        yes = round(f.yes_rate[q, i] * n)
        rarest = share(min(yes, n - yes), n)[1]
        most = float(deviation * np.sqrt(n / (n - 1)) * np.sqrt((n - 1) / chi2.ppf(1 - SURE, n - 1)))
        same = rarest <= RARE
        drop = most < still or (same and deviation < still)
        if drop or (same and deviation < usual / 2):
            numbers = {"responses": n, "yes": yes, "other_answer_at_most": rarest, "deviation": deviation,
                       "usual_deviation": usual}  # fmt: skip
            found[int(q), int(i)] = Reason("dead", bool(drop), numbers)
    return found


def unanswerable(e: Evidence, responses: int) -> dict[Key, Reason]:
    """Items that the judge gives no answer to: of most responses, surely, the answer mass is below `LOW_MASS`, or
    there is no grade where the response's other items have one."""
    found = {}
    answered_Q = e.answered_QM.sum(axis=1)
    for q, i in np.argwhere(e.item_QI):
        missing = int((e.answered_QM[q] & ~np.isfinite(e.p_QMI[q, :, i])).sum())
        mass = e.mass_QMI[q, np.isfinite(e.mass_QMI[q, :, i]), i]
        for name, n, count in (
            ("without_grade", int(answered_Q[q]), missing),
            ("low_mass", len(mass), int((mass < LOW_MASS).sum())),
        ):
            if n >= responses and (low := share(count, n)[0]) > 0.5:
                numbers = {"responses": n, name: count, "share_at_least": low}
                if name == "low_mass":
                    numbers["mean_mass"] = float(mass.mean())
                found[int(q), int(i)] = Reason("unanswerable", True, numbers)
                break
    return found


def against_labels(e: Evidence, f: Figures, discoveries: float) -> dict[Key, Reason]:
    """Items that say yes of what the labeler scores low: their p is negatively associated with the labels.

    A one-sided permutation test of the covariance over the responses of the query, for every item with at least
    `LABELS` labels; of all items of all queries those with a false discovery rate of at most `discoveries` (Benjamini &
    Hochberg 1995). The order of models or items does not matter.
    """
    order_M = np.argsort(np.asarray(e.models, str))  # permutations are drawn for models in the order of their names
    keys: list[Key] = []
    values: list[float] = []
    counts: list[int] = []
    for q in range(len(e.sessions)):
        items = np.flatnonzero(e.usable_QI[q])
        known = np.isfinite(e.label_QM[q]) & np.isfinite(e.p_QMI[q][:, items]).all(axis=1)
        rows = order_M[known[order_M]]
        if len(items) == 0 or len(rows) < LABELS or np.ptp(e.label_QM[q, rows]) == 0:
            continue
        p_MI = e.p_QMI[q][np.ix_(rows, items)]
        tested = np.ptp(p_MI, axis=0) > 1e-9
        values += below(e.label_QM[q, rows], p_MI[:, tested]).tolist()
        keys += [(q, int(i)) for i in items[tested]]
        counts += [len(rows)] * int(tested.sum())
    if not keys:
        return {}
    rates = false_discovery_control(values)
    return {
        key: Reason("reversed", True, {"labels": n, "agreement": f.agreement[key], "p_value": p, "rate": float(rate)})
        for key, n, p, rate in zip(keys, counts, values, rates, strict=True)
        if rate <= discoveries
    }


def below(label_M: Float, p_MI: Float) -> Float:
    """f64[I]: the chance, if labels and items had nothing to do with each other, of a covariance this low.

    Exact up to `EXACT` labels, of `DRAWS` permutations up to `MANY`, then by Student's t of the correlation.
    """
    n = len(label_M)
    label, p = label_M - label_M.mean(), p_MI - p_MI.mean(axis=0)
    seen = label @ p
    if n > MANY:
        r = np.clip(seen / np.sqrt((label**2).sum() * (p**2).sum(axis=0)), -1 + 1e-12, 1 - 1e-12)
        return np.asarray(student.cdf(r * np.sqrt((n - 2) / (1 - r**2)), n - 2))
    drawn = permutations(n)
    low = (label[drawn] @ p <= seen + 1e-9).sum(axis=0)
    return np.asarray(low / len(drawn) if n <= EXACT else (low + 1) / (len(drawn) + 1))


@functools.cache
def permutations(n: int) -> npt.NDArray[np.uint8]:
    """Of 0 to n - 1, one in each row: all, or `DRAWS` that are always the same."""
    if n <= EXACT:
        return np.asarray(list(itertools.permutations(range(n))), np.uint8)
    return np.random.default_rng(n).permuted(np.tile(np.arange(n, dtype=np.uint8), (DRAWS, 1)), axis=1)


def similarities(state_QID: Float, item_QI: Bool) -> Float:
    """f64[Q, I, I]: how alike two items of a query are to the judge, the cosine of their hidden states; NaN for none.

    The states are less their query's mean, which holds what is asked, and whitened by the covariance within queries,
    shrunk by `SHRINK` to a multiple of the identity (Ledoit & Wolf 2004, with a fixed share): directions in which items
    of one query always differ say little. Two items alone have a cosine of -1.
    """
    n_Q = np.maximum(item_QI.sum(axis=1), 1)
    centred_QID = state_QID - (state_QID * item_QI[..., None]).sum(axis=1, keepdims=True) / n_Q[:, None, None]
    within_ND = centred_QID[item_QI]
    u, size, _ = np.linalg.svd(within_ND, full_matrices=False)
    variance = size**2
    shrunk = np.maximum((1 - SHRINK) * variance + SHRINK * variance.mean(), 1e-12)
    place_QIR = np.zeros((*item_QI.shape, len(size)))
    place_QIR[item_QI] = u * size / np.sqrt(shrunk)
    length_QI = np.linalg.norm(place_QIR, axis=2)
    place_QIR /= np.maximum(length_QI, 1e-9)[..., None]
    both_QII = item_QI[:, :, None] & item_QI[:, None] & ~np.eye(item_QI.shape[1], dtype=bool)
    return np.where(both_QII, place_QIR @ place_QIR.transpose(0, 2, 1), np.nan)


def same_facts(first: str, second: str) -> bool:
    """Whether two items may be about the same: of their numbers, and of their names (words with a capital inside the
    sentence), one has those of the other, and neither has some where the other has none."""
    for pattern in (NUMBER, NAME):
        a, b = (set(pattern.findall(text)) for text in (first, second))
        if not (a <= b or b <= a) or bool(a) != bool(b):
            return False
    return True


def pairs(e: Evidence, similarity: float, correlated: float, responses: int) -> dict[int, list[Pair]]:
    """Duplicates of each query: items as alike as `similarity`, with the same facts (see `same_facts`), whose answers
    over at least so many responses correlate, surely, by more than `correlated`.

    The correlation is Pearson's of logit p; its lower end is by Fisher's z. None alone is enough: items about two facts
    of one kind look more alike to a small judge than a paraphrase does, and good responses get yes from all items.
    """
    if e.state_QID is None:
        return {}
    alike_QII = similarities(e.state_QID, e.item_QI)
    found: dict[int, list[Pair]] = {}
    usable_QI = e.usable_QI
    for q, i, j in np.argwhere(np.triu(np.nan_to_num(alike_QII, nan=-1.0) >= similarity, 1)):
        if not (usable_QI[q, i] and usable_QI[q, j] and same_facts(e.texts[q][i], e.texts[q][j])):
            continue
        a, b = (logit(e.p_QMI[q, :, x]) for x in (i, j))
        n = int((np.isfinite(a) & np.isfinite(b)).sum())
        r = correlation(a, b)
        if n < max(responses, 4) or not np.isfinite(r):
            continue
        low = float(np.tanh(np.arctanh(min(r, 1 - 1e-12)) - norm.ppf(SURE) / np.sqrt(n - 3)))
        if low > correlated:
            found.setdefault(int(q), []).append(Pair(int(i), int(j), float(alike_QII[q, i, j]), r, low))
    return found


def logit(p: npt.NDArray[np.float64]) -> Float:
    p = np.clip(p, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(p / (1 - p)))
