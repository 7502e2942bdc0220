"""Torch files from before zip: five pickles in a row, then the storages as raw numbers.

Layout (``torch/serialization.py``, ``_legacy_save``): a magic number, the protocol version, facts
about the machine, the object, the list of storage keys; then for each key a 64-bit count and that
many numbers.
"""

from __future__ import annotations

import contextlib

from bartizan.lifecycle.develop.scan.containers.torch import DeclaredStorages
from bartizan.lifecycle.develop.scan.pickle import constants
from bartizan.lifecycle.develop.scan.pickle import opcodes as op
from bartizan.lifecycle.develop.scan.pickle.constants import BrokenPickleError, Buffer
from bartizan.lifecycle.develop.scan.pickle.stream import Walk
from bartizan.lifecycle.develop.scan.source import Draft, Source

MAGIC = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")
_FRAME = b"\x95\x0d\0\0\0\0\0\0\0"
_FIRST = frozenset(
    start + b"\x8a\x0a" + MAGIC + b"." for start in (b"\x80\2", b"\x80\3", b"\x80\4" + _FRAME, b"\x80\5" + _FRAME)
)
"""The first pickle, a number, in every protocol that ``torch.save`` takes."""
_LONGEST = max(map(len, _FIRST)) + 1
PICKLES = 5
_OTHER_SIZES = {op.PROTO: 2, op.FRAME: 9, op.BINPUT: 2, op.LONG_BINPUT: 5, op.BINGET: 2, op.LONG_BINGET: 5}


class LegacyTorch(DeclaredStorages):
    """The storages of one such file."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: list[str] = []
        """Storage keys in the order of the file."""

    @classmethod
    def begun_by(cls, data: Buffer, first: Walk) -> LegacyTorch | None:
        """The file that begins with the pickle of torch's magic number, if that is what ``first`` is."""
        is_magic = first.start == 0 and bytes(data[: min(first.end, _LONGEST)]) in _FIRST
        return cls() if is_magic else None

    def is_complete(self, pickles: int) -> bool:
        """Whether all pickles have been seen."""
        return pickles >= PICKLES

    def take(self, data: Buffer, one: Walk, number: int) -> None:
        """Note the storage keys when ``one`` is the last pickle."""
        if number == PICKLES and one.ended == "stop":
            with contextlib.suppress(BrokenPickleError):
                self.keys = _texts(data, one.start, one.end)

    def step_over_storages(self, source: Source, at: int, draft: Draft) -> int:
        """Offset behind the last storage that is as the pickles say."""
        for key in self.keys:
            size = self.declared.get(key)
            end = at + 8 + (size or 0)
            if size is None or end > len(source.data):
                draft.fire("torch/storage", f"storage {key!r} is not declared, or not whole", at)
                return at
            count = int.from_bytes(bytes(source.data[at : at + 8]), "little")
            if count > size or (count and size % count):
                draft.fire("torch/storage", f"storage {key!r} counts {count} numbers in {size} bytes", at)
            self.seen.add(key)
            at = end
        for key in self.missing():
            draft.fire("torch/storage", f"storage {key!r} is not in the file", at)
        return at


def _texts(data: Buffer, start: int, end: int) -> list[str]:
    """All text constants of a pickle, in order.

    Raises:
        BrokenPickleError: one of them is no text after all.
    """
    texts = []
    while start < end:
        opcode = data[start]
        if opcode in op.TEXT:
            texts.append(constants.text(data, start))
        if opcode in op.COUNTED:
            start = constants.counted_span(data, start)[1]
        elif opcode in op.LINES:
            start = constants.line_end(data, start) + 1
        else:
            start += op.FIXED_SIZE[opcode] or _OTHER_SIZES.get(opcode, 1)
    return texts
