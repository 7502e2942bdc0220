"""A position in bytes that never leaves them: what the readers of binary formats share."""

from __future__ import annotations

from bartizan.lifecycle.develop.scan.pickle.constants import Buffer


class BrokenFormatError(Exception):
    """The bytes break their format; the text says how, ``offset`` where."""

    def __init__(self, message: str, offset: int | None = None) -> None:
        super().__init__(message)
        self.offset = offset


class Cursor:
    """Reads forward; every step past the end is a ``BrokenFormatError``."""

    def __init__(self, data: Buffer, at: int = 0) -> None:
        self.data = data
        self.at = at
        self.end = len(data)

    @property
    def left(self) -> int:
        """Bytes between here and the end."""
        return self.end - self.at

    def skip(self, size: int) -> int:
        """Step over ``size`` bytes; returns where they begin."""
        if not 0 <= size <= self.end - self.at:
            raise BrokenFormatError(f"{size} bytes are announced and {self.left} are there", self.at)
        at = self.at
        self.at += size
        return at

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes, copied: for short parts."""
        at = self.skip(size)
        return bytes(self.data[at : at + size])

    def unsigned(self, size: int, order: str = "little") -> int:
        """An integer of ``size`` bytes."""
        return int.from_bytes(self.take(size), "big" if order == "big" else "little")

    def signed(self, size: int, order: str = "little") -> int:
        """An integer of ``size`` bytes in two's complement."""
        return int.from_bytes(self.take(size), "big" if order == "big" else "little", signed=True)
