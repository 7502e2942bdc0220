"""Shapes: what the items of a large pickle have in common, as one regular expression.

A million records, tuples or objects of one kind are the same opcodes over and over. ``learning`` notes what stands at
each of their places; from that follows a regular expression for items of exactly that kind, and the machine steps over
all that it matches.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterable

from bartizan.lifecycle.develop.scan.pickle.constants import Buffer
from bartizan.lifecycle.develop.scan.pickle.places import FETCH, LOOSE_ITEMS, PUT, Place
from bartizan.lifecycle.develop.scan.pickle.values import Name, Symbol

MOST_GROUPS = 90
MANY = 32
"""Matches in one go."""

Match = Callable[[Buffer, int], re.Match[bytes] | None]


class Shape:
    """What items look like, as a regular expression: one after another, or two kinds in turn."""

    def __init__(self, places: list[Place], fetched: dict[int, Symbol]) -> None:
        self.source = b"".join(place.pattern() for place in places)
        self.items = len(places)
        """How many items one match is."""
        self.entries = _sum(place.entries() for place in places)
        """Memo entries for each match; None when they differ."""
        self.calls = _sum(place.calls() for place in places)
        """Calls in each match; None when they differ."""
        self.has_puts = PUT in self.source
        self.fetches_any = FETCH in self.source
        """Whether it fetches what has to be looked at before."""
        self.fetched = fetched
        self.shares = any(value.__class__ not in {int, Name} for value in fetched.values())
        """Whether something is fetched that may hold something."""
        self.opcodes = sum(place.size() for place in places)
        """About as many opcodes are in each."""
        self.is_numbers = self.items == 1 and places[0].is_numbers()
        """Whether items are nothing but numbers."""
        self._callers = places[0].callers() if len(places) == 1 else (b"", None)

    @functools.cached_property
    def one(self) -> Match:
        """Matches one."""
        return re.compile(b"(?s)" + self.source).match

    @functools.cached_property
    def many(self) -> Match:
        """Matches ``MANY`` of them."""
        return re.compile(b"(?s)(?:" + self.source + b"){%d}+" % MANY).match

    @functools.cached_property
    def _calling(self) -> re.Pattern[bytes]:
        pattern = self._callers[0]
        return re.compile(b"(?s)(?:(?!" + pattern + b")" + self.source + b")*+(?:" + pattern + rb"(?<=(.))|\Z)")

    @functools.cached_property
    def _with_puts(self) -> re.Pattern[bytes]:
        return re.compile(b"(?s)" + self.source.replace(PUT, b"r(.{4})"))

    @functools.cached_property
    def _with_fetches(self) -> re.Pattern[bytes]:
        return re.compile(b"(?s)" + self.source.replace(FETCH, b"h(.)|j(.{4})"))

    def puts(self, data: Buffer, start: int, end: int) -> bytes | None:
        """Memo indexes of all LONG_BINPUTs from ``start`` to ``end``; None where their number varies."""
        if self.entries is None or self.source.count(PUT) > MOST_GROUPS or LOOSE_ITEMS in self.source:
            return None
        found = self._with_puts.findall(data, start, end)
        return b"".join(found if self._with_puts.groups == 1 else itertools.chain.from_iterable(found))

    def fetches(self, data: Buffer, start: int, end: int) -> set[bytes]:
        """Memo indexes that matches from ``start`` to ``end`` fetch, besides those that are known."""
        return set(itertools.chain.from_iterable(self._with_fetches.findall(data, start, end)))

    def part_without(self, unwanted: set[bytes], data: Buffer, start: int, end: int) -> tuple[int, int]:
        """Up to where matches fetch nothing that is unwanted, and how many they are."""
        count = 0
        at = start
        for match in self._with_fetches.finditer(data, start, end):
            if not unwanted.isdisjoint(match.groups()):
                break
            at = match.end()
            count += 1
        return at, count

    def count_calls(self, data: Buffer, start: int, end: int) -> int | None:
        """Calls in matches of this shape from ``start`` to ``end``, where each caller has as many as the next."""
        pattern, calls = self._callers
        if not pattern or calls is None:
            return None
        return calls * sum(1 for caller in self._calling.findall(data, start, end) if caller)


def _sum(counts: Iterable[int | None]) -> int | None:
    total = 0
    for count in counts:
        if count is None:
            return None
        total += count
    return total
