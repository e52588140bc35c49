"""Labelled responses into training rows: the same packed trees that grading runs, with targets at their leaves.

    benchmark, labels ──► Answer (a response, its items, what the labeler says)
                      ──► groups of answers to one query ──► packed rows ──► optimizer steps of a few rows

What a step holds is a function of the recipe and the seed alone, never of the machine.

Axes: T tokens of a row, L leaves. A response of a row is numbered by its first leaf, so there are at most L.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from rocketjax.bench import Benchmark, Message
from rocketjax.errors import RocketError
from rocketjax.judge import Row
from rocketjax.prompt import PackedRow, Prompter, pack_query

PLACE = -1  # stands in a row where a vector of a soft prompt goes
Float = npt.NDArray[np.float32]
Int = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Answer:
    """One response with what a labeler says of it. A label that is not there is NaN."""

    source: int
    session_id: str
    model: str
    turns: tuple[Message, ...]
    text: str
    items: tuple[str, ...]
    target_I: Float  # 1 yes, 0 no, fractions as the labeler gave them
    score: float  # standardised within the source: mean 0, deviation 1
    references: tuple[str, ...] = ()  # reference answers to the query
    shown: str | None = None  # the one that the judge sees


class Targets(NamedTuple):
    """What a row's leaves should say. Weights of 0 mark what is not there."""

    target_L: Float  # in [0, 1]
    weight_L: Float
    shift_L: Float  # added to the judge's margin before it is compared with the target; see `Source.prior`
    used_L: Float  # 1 for a leaf that is asked, 0 for padding
    response_L: Int  # which response of the row a leaf belongs to
    item_L: Int  # the item's place in the head's table
    source_L: Int
    score_L: Float  # of response r at place r
    score_weight_L: Float
    better_L: Int  # pairs of responses of the row, by their numbers
    worse_L: Int
    pair_weight_L: Float


@dataclass(frozen=True, eq=False)
class TrainRow:
    """A packed row and its targets."""

    row: PackedRow
    targets: Targets

    @property
    def length(self) -> int:
        return self.row.length

    @property
    def says_something(self) -> bool:
        """Whether any loss reads this row: a tie without item labels has nothing to teach."""
        t = self.targets
        return bool(t.weight_L.any() or t.pair_weight_L.any() or t.score_weight_L.any())


class Batch(NamedTuple):
    """Rows of one length: the fields of `Row` and `Targets`, each with an axis of rows in front."""

    row: Row
    targets: Targets


@dataclass(frozen=True)
class Source:
    """A benchmark to learn from: whose labels, how often per epoch, and how it is augmented.

    `share` is the expected number of times that each response is seen in an epoch; `mismatched` the number of
    responses with another query's response in their place, all of whose items are then answered by no, as a share
    of the natural ones; `items`, `pairs` and `scores` weigh this source in the three losses. `balance` weighs items
    so that yes and no have the same total in the source. `reference` shows the judge a reference answer where the
    query has one: always (`support`), or half of the time (`drop`), so that it can judge both ways (JudgeLM: Zhu et
    al. 2023, arXiv 2310.17631, sections 4.2 and 4.3).
    """

    name: str
    benchmark: Benchmark
    labeler: str
    share: float = 1.0
    mismatched: float = 0.0
    items: float = 1.0
    pairs: float = 0.0
    scores: float = 0.0
    balance: bool = False
    prior: Literal["mixed", "natural"] = "mixed"
    even_lengths: bool = False
    reference: Literal["none", "support", "drop"] = "none"


@dataclass(eq=False)
class Corpus:
    """All answers, split by query; `counts` says per source what there is and what was left out."""

    sources: Sequence[Source]
    train: list[list[Answer]]  # per source
    held_out: list[list[Answer]]
    items: dict[tuple[int, str, str], int]  # (source, session, item) -> place in the head's table
    class_weight: list[tuple[float, float]]  # per source: of no, of yes
    shift: list[float]  # per source: what mismatched responses do to the log odds of yes, 0 or less
    pair_weight: list[tuple[float, float]]  # per source: where the shorter response is better, where the longer is
    counts: list[dict[str, int]] = field(default_factory=list)


def in_held_out(session_id: str, part: float, seed: int) -> bool:
    """Whether a query is held out: a hash of its id, so that adding queries moves no other."""
    digest = hashlib.sha256(f"{seed} {session_id}".encode()).digest()
    return int.from_bytes(digest[:8]) < part * 2**64


def collect(sources: Sequence[Source], held_out: float, seed: int) -> Corpus:
    """The answers of all sources. Raises RocketError for a labeler that is not there or says nothing usable."""
    corpus = Corpus(sources, [], [], {}, [], [], [])
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        raise RocketError(f"two sources have one name: {', '.join(names)}")
    for index, source in enumerate(sources):
        labels = source.benchmark.labels
        if source.labeler not in labels:
            there = ", ".join(sorted(labels)) or "none"
            raise RocketError(f"{source.name}: has no labels by {source.labeler!r}; labelers: {there}")
        found = list(answers_of(index, source, labels[source.labeler]))
        natural = [(a, in_held_out(a.session_id, held_out, seed)) for a in found]
        train = [a for a, out in natural if not out]
        if not train:
            raise RocketError(f"{source.name}: no labelled response is left to train on; lower the held-out part")
        scores = np.asarray([a.score for a in train])
        known = scores[np.isfinite(scores)]
        if (source.pairs or source.scores) and not len(known):
            raise RocketError(
                f"{source.name}: {source.labeler!r} gives no scores, which the pair and score losses need"
            )
        if source.items and not any(np.isfinite(a.target_I).any() for a in train):
            raise RocketError(f"{source.name}: {source.labeler!r} labels no items; set items = 0 for this source")
        # Standardised with the training part's figures; a constant labeler says nothing.
        center, spread = (float(known.mean()), float(known.std()) or 1.0) if len(known) else (0.0, 1.0)
        scaled = [(replace(a, score=(a.score - center) / spread), out) for a, out in natural]
        corpus.train.append([a for a, out in scaled if not out])
        corpus.held_out.append([a for a, out in scaled if out])
        for answer in corpus.train[-1]:
            for item in answer.items:
                corpus.items.setdefault((index, answer.session_id, item), len(corpus.items))
        targets = np.concatenate([a.target_I for a in corpus.train[-1]])
        targets = targets[np.isfinite(targets)]
        yes = float(targets.sum())
        # What mismatched responses will add: as many items again, all answered by no.
        natural_no = len(targets) - yes
        no = natural_no + source.mismatched * sum(len(a.target_I) for a in corpus.train[-1])
        # Half a label more, so that a source without any no has odds too.
        shift = math.log((natural_no + 0.5) / (no + 0.5)) if source.prior == "natural" else 0.0
        corpus.shift.append(shift)
        corpus.pair_weight.append(length_weights(corpus.train[-1]) if source.even_lengths else (1.0, 1.0))
        even = ((yes + no) / 2 / no, (yes + no) / 2 / yes) if source.balance and yes and no else (1.0, 1.0)
        corpus.class_weight.append(even)
        corpus.counts.append(
            {
                "queries": len({a.session_id for a in corpus.train[-1]}),
                "responses": len(corpus.train[-1]),
                "item_labels": len(targets),
                "yes": int((targets > 0.5).sum()),
                "scores": len(known),
                "held_out_queries": len({a.session_id for a in corpus.held_out[-1]}),
                "held_out_responses": len(corpus.held_out[-1]),
                "without_label": sum(map(len, source.benchmark.responses.values())) - len(found),
            }
        )
    return corpus


def length_weights(answers: Sequence[Answer]) -> tuple[float, float]:
    """Weights of pairs whose shorter, and whose longer response is better, that make both totals equal."""
    by_session: dict[str, list[Answer]] = {}
    for answer in answers:
        by_session.setdefault(answer.session_id, []).append(answer)
    shorter = longer = 0
    for own in by_session.values():
        for a in own:
            for b in own:
                if a.score > b.score:
                    shorter += len(a.text) < len(b.text)
                    longer += len(a.text) > len(b.text)
    if not shorter or not longer:
        return 1.0, 1.0
    half = (shorter + longer) / 2
    return half / shorter, half / longer


def answers_of(index: int, source: Source, labels: Any) -> Iterator[Answer]:
    """Every response with a checklist and a label, by session and model."""
    b = source.benchmark
    for session_id in sorted(b.checklists):
        items = b.checklists[session_id].items
        for model in b.models:
            label = labels.get(model, {}).get(session_id)
            if label is None or session_id not in b.responses[model]:
                continue
            given = label.items or (None,) * len(items)
            yield Answer(
                index, session_id, model, b.conversation(session_id, model), b.responses[model][session_id].text, items,
                np.asarray([np.nan if t is None else t for t in given], np.float32),
                np.nan if label.score is None else label.score,
                tuple(text for _, text in sorted(b.queries[session_id].references.items())),
            )  # fmt: skip


def mismatch(answer: Answer, others: Sequence[Answer], rng: np.random.Generator) -> Answer | None:
    """The answer with a response to another query in place of its own; None if there is none."""
    for _ in range(20):
        other = others[int(rng.integers(len(others)))]
        if other.session_id != answer.session_id and other.text != answer.text:
            zero = np.zeros(len(answer.items), np.float32)
            return replace(answer, text=other.text, target_I=zero, score=np.nan)
    return None


@dataclass(frozen=True, eq=False)
class Packer:
    """Answers into rows no longer than `longest` tokens, or `longest_pair` where two share one: packing lengths both.

    `soft` lengthens every prompt, so it must have room in both. `counts` says of all rows made so far how many
    responses they hold, how many of these were cut in the middle, and what did not fit a row, so that its loss does not
    see it: pairs, and rows with only a part of a scored response.
    """

    corpus: Corpus
    prompter: Prompter
    longest: int
    longest_pair: int
    window: int
    soft: int = 0  # places for a soft prompt behind the first token of every prompt
    counts: Counter[str] = field(default_factory=Counter)

    def rows(self, answers: Sequence[Answer], mixed: bool = False) -> list[TrainRow]:
        """Rows for answers to one query. Two answers that the pair loss compares share a row.

        `mixed`: the rows are part of a mix with mismatched responses, whose prior the loss may have to take out.
        """
        source = self.corpus.sources[answers[0].source]
        owners = [(a, i) for a in answers for i in range(len(a.items))]
        units: list[list[Int]] = []
        for a in answers:
            made = self.prompter.render(a.turns, a.text, a.items, f"{source.name}, session {a.session_id!r}", a.shown)
            assert made.sequences is not None, "the prompter of a packer cuts, it does not skip"
            units.append([np.insert(s, 1, np.full(self.soft, PLACE, s.dtype)) for s in made.sequences])
            self.counts.update(responses=1, truncated=int(made.truncated > 0))
        pair = bool(source.pairs) and len(units) == 2
        if pair:
            units = [[*units[0], *units[1]]]
        packed = pack_query(units, self.longest_pair if pair else self.longest, self.window)
        rows = [TrainRow(row, self.targets(row, owners, source, mixed)) for row in packed]
        if pair and answers[0].text != answers[1].text and not any(r.targets.pair_weight_L.any() for r in rows):
            self.counts["pairs_apart"] += 1
        return rows

    def targets(
        self, row: PackedRow, owners: Sequence[tuple[Answer, int]], source: Source, mixed: bool = False
    ) -> Targets:
        L = len(row.leaf_L)
        index = self.corpus.sources.index(source)
        f = {n: np.zeros(L, np.float32) for n in ("target", "weight", "used", "score", "score_weight", "pair_weight")}
        n = {n: np.zeros(L, np.int32) for n in ("response", "item", "better", "worse")}
        numbers: dict[int, int] = {}  # id of an answer -> its number in the row
        inside: list[Answer] = []
        no, yes = self.corpus.class_weight[index]
        shorter, longer = self.corpus.pair_weight[index]
        for leaf, ids in enumerate(row.owners):
            # Equal responses share a leaf: its target is their mean, and its score counts for the first of them.
            own = [owners[i] for i in ids]
            f["used"][leaf] = 1.0
            first, place = own[0]
            if id(first) not in numbers:
                numbers[id(first)] = len(inside)
                inside.append(first)
            targets = np.asarray([a.target_I[i] for a, i in own])
            targets = targets[np.isfinite(targets)]
            if len(targets):
                f["target"][leaf] = t = targets.mean()
                f["weight"][leaf] = len(targets) * source.items * ((1 - t) * no + t * yes)
            n["response"][leaf] = numbers[id(first)]
            n["item"][leaf] = self.corpus.items.get((first.source, first.session_id, first.items[place]), -1)
        # A response whose items are spread over several rows has no score in any of them.
        asked = Counter(id(owners[i][0]) for ids in row.owners for i in ids)
        whole = [asked[id(answer)] == len(answer.items) for answer in inside]
        for i, answer in enumerate(inside):
            if source.scores and np.isfinite(answer.score):
                f["score"][i], f["score_weight"][i] = answer.score, source.scores * whole[i]
                self.counts["scores_apart"] += not whole[i]
        pairs = [
            (i, j)
            for i, a in enumerate(inside)
            for j, b in enumerate(inside)
            if source.pairs and a.score > b.score and whole[i] and whole[j]
        ]
        for place, (i, j) in enumerate(pairs[:L]):
            n["better"][place], n["worse"][place] = i, j
            a, b = len(inside[i].text), len(inside[j].text)
            f["pair_weight"][place] = source.pairs * (longer if a > b else shorter if a < b else 1.0)
        shift = np.full(L, self.corpus.shift[index] if mixed else 0.0, np.float32)
        return Targets(
            f["target"], f["weight"], shift, f["used"], n["response"], n["item"],
            np.full(L, index, np.int32), f["score"], f["score_weight"],
            n["better"], n["worse"], f["pair_weight"],
        )  # fmt: skip


def groups(answers: Sequence[Answer], size: int, paired: bool, rng: np.random.Generator) -> list[list[Answer]]:
    """Answers of one query side by side, `size` at most in a group, in random order.

    Where pairs are learned, a group is two responses of different score, and what finds no partner stands alone.
    """
    by_session: dict[str, list[Answer]] = {}
    for answer in answers:
        by_session.setdefault(answer.session_id, []).append(answer)
    out = []
    for own in by_session.values():
        own = [own[i] for i in rng.permutation(len(own))]
        if not paired:
            out += [own[i : i + size] for i in range(0, len(own), size)]
            continue
        while own:
            first = own.pop()
            # NaN, no score, differs from nothing here.
            match = next((i for i, other in enumerate(own) if abs(other.score - first.score) > 0), None)
            out.append([first] if match is None else [first, own.pop(match)])
    return [out[i] for i in rng.permutation(len(out))]


def show_reference(group: list[Answer], how: str, rng: np.random.Generator) -> list[Answer]:
    """The group with one reference answer in sight of the judge, the same for all, or as it is."""
    given = group[0].references
    if how == "none" or not given or (how == "drop" and rng.random() < 0.5):
        return group
    shown = given[int(rng.integers(len(given)))]
    return [replace(answer, shown=shown) for answer in group]


T = TypeVar("T")


def repeated(things: Sequence[T], share: float, rng: np.random.Generator) -> list[T]:
    """Each thing `share` times on average, in random order: whole rounds of all, and a random part of one more."""
    whole, part = divmod(share, 1.0)
    sizes = [len(things)] * int(whole) + [round(part * len(things))]
    return [things[i] for size in sizes for i in rng.permutation(len(things))[:size]]


def epoch_rows(packer: Packer, seed: int, epoch: int, size: int) -> list[TrainRow]:
    """All rows of one epoch. The order is random within a kind (a source, natural or mismatched), and every kind is
    spread evenly over the epoch, so that every optimizer step sees the same mix."""
    placed: list[tuple[float, TrainRow]] = []
    for index, source in enumerate(packer.corpus.sources):
        rng = np.random.default_rng([seed, epoch, index])
        train = packer.corpus.train[index]
        chosen = repeated(groups(train, size, source.pairs > 0, rng), source.share, rng)
        answers = [answer for group in chosen for answer in group]
        wrong = [mismatch(answer, train, rng) for answer in repeated(answers, source.mismatched, rng)]
        mixed = [wrong[i] for i in rng.permutation(len(wrong))]
        for made in (chosen, [[a] for a in mixed if a is not None]):
            rows = [
                row for group in made for row in packer.rows(show_reference(group, source.reference, rng), mixed=True)
            ]
            rows = [row for row in rows if row.says_something]
            placed += [((i + rng.random()) / len(rows), row) for i, row in enumerate(rows)]
    return [row for _, row in sorted(placed, key=lambda pair: pair[0])]


def steps(rows: Iterable[TrainRow], tokens: int) -> list[list[TrainRow]]:
    """Runs of rows with at least so many tokens each, padding included; the last may be short."""
    out: list[list[TrainRow]] = [[]]
    for row in rows:
        if sum(r.length for r in out[-1]) >= tokens:
            out.append([])
        out[-1].append(row)
    return [step for step in out if step]


def batches(rows: Sequence[TrainRow], multiple: Callable[[int], int]) -> Iterator[tuple[Batch, int]]:
    """Rows by length, in batches of exactly `multiple(length)` rows, and how many of them are real.

    Missing rows repeat the first with all weights 0.
    """
    by_length: dict[int, list[TrainRow]] = {}
    for one in rows:
        by_length.setdefault(one.length, []).append(one)
    for length in sorted(by_length):
        size = multiple(length)
        for at in range(0, len(by_length[length]), size):
            part = by_length[length][at : at + size]
            empty = replace(part[0], targets=silent(part[0].targets))
            full = [*part, *[empty] * (size - len(part))]
            row: list[Any] = [np.stack([getattr(r.row, name) for r in full]) for name in Row._fields]
            targets: list[Any] = [np.stack([r.targets[i] for r in full]) for i in range(len(Targets._fields))]
            yield Batch(Row(*row), Targets(*targets)), len(part)


def silent(targets: Targets) -> Targets:
    """The same without any weight."""
    zero = np.zeros_like(targets.weight_L)
    return targets._replace(weight_L=zero, used_L=zero, score_weight_L=zero, pair_weight_L=zero)
