"""Rows of requests that are under way together, looked at in one call: a small array costs as much as a large one."""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import Generic, TypeVar

import numpy as np

from bartizan.core.errors import WorkError
from bartizan.lifecycle.deploy.gateway.guard import Numbers

Part = TypeVar("Part", bound=Sized)
Found = TypeVar("Found")
MOST_ROWS = 1024
"""Rows that are looked at in one call."""


class Stack(Generic[Part, Found]):
    """Rows of several requests, or answers to them. What is found is found when the first of them asks for it."""

    __slots__ = ("_found", "count", "look", "parts")

    def __init__(self, look: Callable[[list[Part]], Found]) -> None:
        """``look`` takes the part of each request, and raises nothing that could be foreseen."""
        self.look: Callable[[list[Part]], Found] | None = look
        """None as soon as somebody has asked: no more may come."""
        self._found: Found | None = None
        self.parts: list[Part] = []
        self.count = 0

    def found(self) -> Found:
        """What was found. Raises WorkError to those who ask after looking has failed."""
        look, self.look = self.look, None
        if look is not None:
            parts, self.parts = self.parts, []
            self._found = look(parts)
        if self._found is None:
            raise WorkError("rows that came together could not be looked at")
        return self._found


class Stacks(Generic[Part, Found]):
    """Opens a stack whenever there is none that takes more. Used on one event loop."""

    def __init__(self, look: Callable[[list[Part]], Found]) -> None:
        self._look = look
        self._stack: Stack[Part, Found] | None = None

    def add(self, rows: Part) -> tuple[Stack[Part, Found], int]:
        """Put rows on a stack; gives it, and which part of it they are."""
        stack, count = self._stack, len(rows)
        if stack is None or stack.look is None or stack.count + count > MOST_ROWS:
            stack = self._stack = Stack(self._look)
        stack.count += count
        parts = stack.parts
        parts.append(rows)
        return stack, len(parts) - 1


def joined(parts: list[Numbers]) -> Numbers:
    """All rows as one array; that of a single request as it is."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


__all__ = ["MOST_ROWS", "Stack", "Stacks", "joined"]
