"""What was found out is remembered for a while, within bounds."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Remembered(Generic[K, V]):
    """At most ``most`` values; the one that lies longest gives way. Whoever remembers checks how long it counts."""

    __slots__ = ("_kept", "_most", "get")

    def __init__(self, most: int) -> None:
        self._kept: OrderedDict[K, V] = OrderedDict()
        self._most = most
        self.get = self._kept.get
        """The value of a key; None when it is not remembered. The dictionary's own method: it is asked every time."""

    def put(self, key: K, value: V) -> None:
        """Remember a value."""
        if key not in self._kept and len(self._kept) >= self._most:
            self._kept.popitem(last=False)
        self._kept[key] = value

    def drop(self, key: K) -> None:
        """Forget one value."""
        self._kept.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)


__all__ = ["Remembered"]
