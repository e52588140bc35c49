"""Prices of models, and a limit on what is spent that holds while several requests are under way."""

import json
import math
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rocketjax.errors import RocketError


@dataclass(frozen=True)
class Price:
    """US dollars per million tokens."""

    input: float
    output: float

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        return (prompt_tokens * self.input + completion_tokens * self.output) / 1e6


def read_prices(path: str | os.PathLike[str]) -> dict[str, Price]:
    """Prices by model from a file {"model": {"input": 0.15, "output": 0.6}}; RocketError with the file and field."""
    file = Path(os.fsdecode(path))
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as e:
        raise RocketError(f"{file}: prices cannot be read ({e})") from None
    example = '{"model": {"input": 0.15, "output": 0.6}}, US dollars per million tokens'
    if not isinstance(found, dict):
        raise RocketError(f"{file}: holds no prices; expected {example}")
    prices = {}
    for model, price in found.items():
        if not isinstance(price, dict) or set(price) != {"input", "output"}:
            raise RocketError(f'{file}: field "{model}": expected {example}')
        for field, value in price.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not (0 <= value < math.inf):
                raise RocketError(f'{file}: field "{model}.{field}": {value!r} is no price')
        prices[model] = Price(float(price["input"]), float(price["output"]))
    return prices


def price_of(prices: Mapping[str, Price] | None, model: str, limit: float | None) -> Price | None:
    """The model's price; RocketError where there is a limit and no price."""
    price = (prices or {}).get(model)
    if price is None and limit is not None:
        known = ", ".join(sorted(prices or {})) or "none"
        raise RocketError(f"a spend limit needs the price of {model!r}; prices are known of: {known} (see --prices)")
    if limit is not None and not 0 < limit < math.inf:
        raise RocketError(f"the spend limit {limit!r} is no amount of US dollars")
    return price


class Purse:
    """What was spent, and what requests under way may still cost; safe from several threads."""

    def __init__(self, limit: float | None, spent: float = 0.0) -> None:
        self.limit, self.spent = limit, spent
        self._reserved: dict[int, float] = {}
        self._next = 0
        self._changed = threading.Condition()

    def reserve(self, most: float, stopped: Callable[[], bool]) -> int | None:
        """A ticket for a request that costs `most` at worst; None where the limit does not allow it.

        Waits while requests under way could turn out cheaper and leave room.
        """
        with self._changed:
            while self.limit is not None and self.spent + sum(self._reserved.values()) + most > self.limit:
                if not self._reserved or stopped() or self.spent + most > self.limit:
                    return None
                self._changed.wait(1.0)
            self._next += 1
            self._reserved[self._next] = most
            return self._next

    def settle(self, ticket: int, cost: float | None) -> float:
        """Ends a request; None says that its cost is unknown, and it counts as the worst. Returns what it counts."""
        with self._changed:
            counted = self._reserved.pop(ticket)
            counted = counted if cost is None else cost
            self.spent += counted
            self._changed.notify_all()
            return counted
