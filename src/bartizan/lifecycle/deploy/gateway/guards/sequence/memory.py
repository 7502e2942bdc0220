"""The queries of everybody, in short form and bounded in number, and the nearest of them.

Three parts share one table: the latest queries, a sample of older ones, and one row for each place where somebody
seems to search. Who asks once an hour among a million others is found by the second part, and kept by the third.
"""

from __future__ import annotations

import random
from collections import deque

import numpy as np
from numpy.typing import NDArray

from bartizan.lifecycle.deploy.gateway.guards.sequence.encoder import Floats
from bartizan.lifecycle.deploy.gateway.guards.sequence.places import Place

NOTHING = -1e30
"""In the last row of the table where there is no query: further away than any."""
SAMPLED, PLACES = 0.1, 0.1
"""Parts of the memory for older queries, and for places."""
SAMPLE = 0.02
"""Share of the queries that leave the first part which go on to the second."""
TRIES = 8
"""Places that are weighed against one another when one has to make room."""
CHUNK = 64
"""Queries of a batch that are compared at a time."""


class Memory:
    """See the module. ``size`` queries of ``width`` numbers."""

    def __init__(self, size: int, width: int, seed: int = 0) -> None:
        self.sampled, self.placed = int(size * (1 - SAMPLED - PLACES)), int(size * (1 - PLACES))
        self.size = size
        self.table = np.zeros((width + 1, size), np.float32)
        self.table[width] = NOTHING
        self.keys: list[int] = [0] * size
        """Digest of the row; 0 where there is none."""
        self.labels: list[int] = [-1] * size
        """What was answered; -1 where nothing was yet."""
        self.homes: list[Place | None] = [None] * size
        """The place that the query belongs to."""
        self.slots: dict[int, int] = {}
        """Digest to position, of every row that is remembered."""
        self.version = 0
        """Rises with every row that comes in."""
        self._products = np.empty(size, np.float32)
        self._next, self._free = 0, deque(range(self.placed, size))
        self._spare, self._hand = self.sampled, self.placed
        self._random = random.Random(seed)  # noqa: S311 - which of the old queries are kept is no secret

    def nearest(self, query: Floats) -> tuple[int, float]:
        """Position and product of the query ``(width + 1,)`` that is nearest: ``d^2 = |q|^2 - 2 * product``."""
        np.dot(query, self.table, out=self._products)
        slot = int(self._products.argmax())
        return slot, float(self._products[slot])

    def nearest_many(self, queries: Floats) -> tuple[list[int], list[float]]:
        """The same for ``(batch, width + 1)``."""
        slots: list[int] = []
        best: list[float] = []
        for begin in range(0, len(queries), CHUNK):
            products = queries[begin : begin + CHUNK] @ self.table
            places = products.argmax(axis=1)
            slots += places.tolist()
            best += products[np.arange(len(products)), places].tolist()
        return slots, best

    def add(self, key: int, query: Floats, norm: float, home: Place | None) -> int:
        """Remember a query ``(width + 1,)`` of squared length ``norm``; the oldest makes room. Its position."""
        self.version += 1
        slot = self._next
        self._next = slot + 1 if slot + 1 < self.sampled else 0
        if self.keys[slot]:
            self._leave(slot)
        self._put(slot, key, query, norm)
        self.homes[slot] = home
        return slot

    def _put(self, slot: int, key: int, query: Floats, norm: float) -> None:
        column = self.table[:, slot]
        column[:] = query
        column[-1] = -0.5 * norm
        self.keys[slot], self.labels[slot] = key, -1
        self.slots[key] = slot

    def _leave(self, slot: int) -> None:
        """Make room at a position: the query there is forgotten, or goes on to the sample."""
        key = self.keys[slot]
        if self.slots.get(key) == slot:
            del self.slots[key]
        if self._random.random() >= SAMPLE:
            return
        spare = self._spare
        self._spare = spare + 1 if spare + 1 < self.placed else self.sampled
        if self.slots.get(self.keys[spare]) == spare:
            del self.slots[self.keys[spare]]
        self.table[:, spare] = self.table[:, slot]
        self.keys[spare], self.labels[spare], self.homes[spare] = key, self.labels[slot], self.homes[slot]
        self.slots[key] = spare

    def settle(self, place: Place, query: NDArray[np.float32], norm: float, label: int, now: float) -> None:
        """Give a place a row of its own, or move it to where it is searched now."""
        if place.slot < 0:
            place.slot = self._room(now)
            self.homes[place.slot] = place
        slot = place.slot
        self.table[:, slot] = query
        self.table[-1, slot] = -0.5 * norm
        self.labels[slot] = label

    def _room(self, now: float) -> int:
        """A free position among the places; the weakest of a few gives way."""
        if self._free:
            return self._free.popleft()
        weakest, least = self._hand, float("inf")
        for _ in range(TRIES):
            slot = self._hand
            self._hand = slot + 1 if slot + 1 < self.size else self.placed
            home = self.homes[slot]
            points = home.points_at(now) if home else 0.0
            if points < least:
                weakest, least = slot, points
        evicted = self.homes[weakest]
        if evicted is not None:
            evicted.slot = -1
        return weakest
