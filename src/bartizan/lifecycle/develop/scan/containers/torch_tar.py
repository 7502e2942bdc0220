"""The first format of torch: a tar archive of pickles with raw numbers between them.

Layout (``torch/serialization.py``, ``legacy_load``): ``sys_info`` is a pickle. ``storages`` begins
with a pickled count; each storage is a pickle ``(key, location, type)``, a 64-bit count and that many
numbers; a pickled list of views ends it. ``tensors`` begins with a pickled count; each tensor is a
pickle ``(key, storage, type)``, its rank in eight bytes, and shape, strides and offset as 64-bit
numbers. ``pickle`` is the object, which refers to tensors by the text of their keys.
"""

from __future__ import annotations

from collections.abc import Iterable

from bartizan.lifecycle.develop.scan.containers.torch import ITEM_SIZES
from bartizan.lifecycle.develop.scan.formats.cursor import BrokenFormatError, Cursor
from bartizan.lifecycle.develop.scan.limits import LimitError, Meter
from bartizan.lifecycle.develop.scan.pickle.constants import BrokenPickleError
from bartizan.lifecycle.develop.scan.pickle.reading import Reader
from bartizan.lifecycle.develop.scan.pickle.stream import Walk, walk
from bartizan.lifecycle.develop.scan.pickle.values import Name, Symbol
from bartizan.lifecycle.develop.scan.source import Draft, Examine, Source
from bartizan.lifecycle.develop.scan.verdict import Report

MEMBERS = frozenset({"sys_info", "pickle", "tensors", "storages"})
TYPES = frozenset(f"{kind}Tensor" for kind in ITEM_SIZES)
"""``torch.FloatTensor`` and the like: named as the type of a tensor and never called."""
PARTS = 3
"""Items of the tuple that describes a storage or tensor."""
MOST_SIDES = 64


class TorchTar:
    """The members of one such archive."""

    def __init__(self, meter: Meter, examine: Examine) -> None:
        self.meter = meter
        self.examine = examine
        self.keys: set[str] = set()
        """Keys of storages and tensors as text."""

    @classmethod
    def of(cls, names: Iterable[str], meter: Meter, examine: Examine) -> TorchTar | None:
        """The torch file with these members, if they are one."""
        return cls(meter, examine) if set(names) >= MEMBERS - {"sys_info"} else None

    def report(self, source: Source) -> Report:
        """Examine one member; ``storages`` and ``tensors`` come before ``pickle``."""
        steps = {"storages": self._storages, "tensors": self._tensors, "pickle": self._object}
        if source.name not in steps:
            return self.examine(source)
        draft = Draft(source, "pickle" if source.name == "pickle" else "tensor", self.meter.limits.findings)
        cursor = Cursor(source.data)
        try:
            steps[source.name](cursor, draft)
        except BrokenFormatError as broken:
            draft.fire("torch/storage", str(broken), broken.offset)
            draft.miss(f"what follows byte {cursor.at} was not read")
            return draft.close()
        except LimitError as limit:
            draft.miss(str(limit), rule="file/limit")
            return draft.close()
        if cursor.left:
            draft.gap(cursor.at, cursor.end, "follow the last part of the member")
        return draft.close()

    def _pickle(self, cursor: Cursor, draft: Draft) -> Walk:
        """Walk the pickle at the cursor, which is then behind it."""
        one = walk(cursor.data, cursor.at, self.meter, torch=True)
        types = {name.offset for name in one.judge.names.values() if name.module == "torch" and name.name in TYPES}
        for issue in one.issues:
            if issue.rule != "pickle/unlisted-name" or issue.offset not in types:
                draft.fire(issue.rule, issue.detail, issue.offset)
        if one.ended == "malformed":
            draft.fire("pickle/malformed", one.why, one.end)
        if one.ended == "limit":
            raise LimitError(one.why)
        for number, (held, offset) in enumerate(one.nested):
            draft.members.append(self.examine(draft.source.child(f"<bytes {number} loaded at {offset}>", held)))
        if one.ended != "stop":
            raise BrokenFormatError("a pickle does not end", one.end)
        cursor.at = one.end
        return one

    def _count(self, cursor: Cursor, draft: Draft) -> int:
        one = self._pickle(cursor, draft)
        count = one.judge.reader.number(one.top) if one.top.__class__ is int else None
        if count is None or not 0 <= count <= cursor.left:
            raise BrokenFormatError("a member does not begin with a count", one.start)
        return count

    def _described(self, cursor: Cursor, draft: Draft) -> tuple[Reader, Symbol, Symbol, Symbol]:
        one = self._pickle(cursor, draft)
        if one.top.__class__ is not tuple or len(one.top) != PARTS:
            raise BrokenFormatError("a storage or tensor is not described by three items", one.start)
        return one.judge.reader, one.top[0], one.top[1], one.top[2]

    def _storages(self, cursor: Cursor, draft: Draft) -> None:
        for _ in range(self._count(cursor, draft)):
            reader, key, _, kind = self._described(cursor, draft)
            name = kind.name.removesuffix("Storage") if kind.__class__ is Name and kind.listed else ""
            if name not in ITEM_SIZES:
                raise BrokenFormatError("a storage is of a type that torch does not have", cursor.at)
            self.keys.add(_key(reader, key, cursor.at))
            cursor.skip(cursor.unsigned(8) * ITEM_SIZES[name])
        for name in self._views(cursor, draft):
            self.keys.add(name)

    def _views(self, cursor: Cursor, draft: Draft) -> list[str]:
        """Keys of the storages that are parts of others, from the last pickle."""
        one = self._pickle(cursor, draft)
        if not one.judge.reader.length(one.top):
            return []
        return [
            _key(one.judge.reader, view[0], one.start)
            for view in one.top
            if view.__class__ is tuple and len(view) == 4  # noqa: PLR2004
        ]

    def _tensors(self, cursor: Cursor, draft: Draft) -> None:
        for _ in range(self._count(cursor, draft)):
            reader, key, storage, _ = self._described(cursor, draft)
            if _key(reader, storage, cursor.at) not in self.keys:
                draft.fire("torch/storage", "a tensor lies in a storage that is not there", cursor.at)
            self.keys.add(_key(reader, key, cursor.at))
            sides = cursor.unsigned(4)
            if sides > MOST_SIDES:
                raise BrokenFormatError(f"a tensor has {sides} sides", cursor.at)
            cursor.skip(4 + 8 * (2 * sides + 1))

    def _object(self, cursor: Cursor, draft: Draft) -> None:
        one = self._pickle(cursor, draft)
        for pid in one.persistent_ids:
            symbol = pid.symbol
            if symbol.__class__ is tuple and symbol and symbol[0].__class__ is Name:
                continue
            if _key(one.judge.reader, symbol, pid.offset) not in self.keys:
                draft.fire("torch/storage", "the object refers to a tensor that is not there", pid.offset)


def _key(reader: Reader, symbol: Symbol, offset: int) -> str:
    """A key as text, which torch writes as text or number."""
    if symbol.__class__ is int:
        try:
            text, number = reader.text(symbol), reader.number(symbol)
        except BrokenPickleError as broken:
            raise BrokenFormatError(f"a key: {broken}", offset) from broken
        if text is not None or number is not None:
            return str(number) if text is None else text
    raise BrokenFormatError("a key is neither text nor number", offset)
