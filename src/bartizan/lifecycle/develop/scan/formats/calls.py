"""Functions of a graph that call each other: whether that ends, and how large it grows."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeVar

MOST_NODES = 50_000_000
"""Nodes that a graph may have once its functions are put in place."""

Key = TypeVar("Key", bound=Hashable)


def unfold(functions: Mapping[Key, tuple[int, Mapping[Key, int]]]) -> dict[Key, int] | None:
    """Nodes of each function with those it calls put in place, or None when one calls itself.

    ``functions`` holds for each its own nodes and how often it calls which other.
    """
    waiting = {key: {called for called in calls if called in functions} for key, (_, calls) in functions.items()}
    callers: dict[Key, list[Key]] = {}
    for key, called in waiting.items():
        for each in called:
            callers.setdefault(each, []).append(key)
    ready = [key for key, called in waiting.items() if not called]
    sizes: dict[Key, int] = {}
    while ready:
        key = ready.pop()
        nodes, calls = functions[key]
        total = nodes + sum(count * sizes[called] for called, count in calls.items() if called in sizes)
        sizes[key] = min(total, 1 << 64)
        for caller in callers.get(key, ()):
            waiting[caller].discard(key)
            if not waiting[caller]:
                ready.append(caller)
    return sizes if len(sizes) == len(functions) else None
