"""Rows of requests that are under way together, looked at in one call: a small array costs as much as a large one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

from bartizan.lifecycle.deploy.gateway.guard import Numbers

Found = TypeVar("Found")
MOST_ROWS = 1024
"""Rows that are looked at in one call."""


class Stack(Generic[Found]):
    """Rows of several requests, one after the other. What is found is found when the first of them asks for it."""

    __slots__ = ("_found", "_look", "count", "parts")

    def __init__(self, look: Callable[[list[Numbers]], Found]) -> None:
        """``look`` takes the rows of each request. What it raises is told to each of them."""
        self._look: Callable[[list[Numbers]], Found] | None = look
        self._found: Found | Exception | None = None
        self.parts: list[Numbers] = []
        self.count = 0

    @property
    def is_open(self) -> bool:
        """Whether more may come."""
        return self._look is not None

    def found(self) -> Found:
        """What was found. Raises what looking raised."""
        look, self._look = self._look, None
        if look is not None:
            try:
                self._found = look(self.parts)
            except Exception as error:  # noqa: BLE001 - told to everybody who asks
                self._found = error
            self.parts = []
        if isinstance(self._found, Exception):
            raise self._found
        return self._found  # type: ignore[return-value]  # found, since it was looked for


class Stacks(Generic[Found]):
    """Opens a stack whenever there is none that takes more. Used on one event loop."""

    def __init__(self, look: Callable[[list[Numbers]], Found]) -> None:
        self._look = look
        self._stack: Stack[Found] | None = None

    def add(self, rows: Numbers) -> tuple[Stack[Found], int]:
        """Put rows on a stack; gives it, and which part of it they are."""
        stack = self._stack
        if stack is None or not stack.is_open or stack.count + len(rows) > MOST_ROWS:
            stack = self._stack = Stack(self._look)
        stack.count += len(rows)
        stack.parts.append(rows)
        return stack, len(stack.parts) - 1


def joined(parts: list[Numbers]) -> Numbers:
    """All rows as one array; that of a single request as it is."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


__all__ = ["MOST_ROWS", "Stack", "Stacks", "joined"]
