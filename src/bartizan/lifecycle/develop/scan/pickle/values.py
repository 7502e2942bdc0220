"""What stands on the symbolic stack in place of objects. Nothing here is ever built for real.

=====================  =======================================================================
``int``                a constant: the offset of the opcode that pushed it
``tuple``              a tuple, all items kept
``ListSymbol``         a list: only those items that are not constants, and how many are
``DictSymbol``         a dict: keys and values in turn while it is small, else the non-constants
``SetSymbol``          a set or a frozenset (or a very long tuple): non-constants only
``Name``               something imported
``Call``               the result of calling, constructing or loading something
``Run``                many plain items that were skipped at once (see ``bulk``)
=====================  =======================================================================
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Any

import msgspec

Symbol = Any
"""One of the types in the table above."""


class Use(enum.IntFlag):
    """What a listed name may be used for. Standing somewhere as a value is always allowed."""

    VALUE = 0
    CALL = 1
    """``name(*args)``: REDUCE, INST, OBJ."""
    NEW = 2
    """``name.__new__(name, *args)``: NEWOBJ, NEWOBJ_EX and ``copyreg``."""
    BUILD = 4
    """Its instances (or what it returns) may be given a state."""
    ITEMS = 8
    """Its instances may be given list items, dict items or set members."""


class Entry(msgspec.Struct, frozen=True):
    """What an allow-list says about one name."""

    uses: Use
    args_rule: str = ""
    """Rule of ``arguments`` that its arguments must pass."""
    state_rule: str = ""
    """Rule of ``states`` that the state of its instances must pass."""


class Name:
    """Something that the pickle imports."""

    __slots__ = ("args_rule", "listed", "module", "name", "offset", "state_rule", "used", "uses")

    def __init__(self, module: str, name: str, offset: int, entry: Entry | None) -> None:
        self.module = module
        self.name = name
        self.offset = offset
        self.listed = entry is not None
        self.uses = entry.uses if entry else Use.VALUE
        self.args_rule = entry.args_rule if entry else ""
        self.state_rule = entry.state_rule if entry else ""
        self.used = False
        """Whether it was called, constructed or given something, and so has been judged already."""

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Call:
    """The result of a call; ``subject`` names the class whose instance it is, as far as that is known."""

    __slots__ = ("args", "built", "callee", "grown", "state", "subject")

    def __init__(self, callee: Symbol, args: Symbol, subject: Name | None) -> None:
        self.callee = callee
        self.args = args
        self.subject = subject
        self.state: Symbol = None
        self.built = False
        self.grown: list[Symbol] | None = None


class ListSymbol(list[Symbol]):
    """A list. ``constants`` counts the items that are not kept."""

    __slots__ = ("constants",)

    def __init__(self, items: Iterable[Symbol] = ()) -> None:
        super().__init__(items)
        self.constants = 0

    def add(self, items: list[Symbol]) -> None:
        """Append items, of which only those are kept that are no constants."""
        kept = [item for item in items if item.__class__ is not int]
        self.constants += len(items) - len(kept)
        self.extend(kept)


class DictSymbol(list[Symbol]):
    """A dict. ``whole`` is false once constants had to be dropped."""

    __slots__ = ("whole",)

    def __init__(self) -> None:
        self.whole = True

    def drop_constants(self) -> None:
        """Forget what is only needed to judge a state."""
        if self and self.whole:
            self[:] = [item for item in self if item.__class__ is not int]
            self.whole = False


class SetSymbol(list[Symbol]):
    """A set or frozenset, or a tuple too long to keep."""

    __slots__ = ()


def is_container(value: Symbol) -> bool:
    """Whether ``value`` can hold others."""
    return value.__class__ is not int and value.__class__ is not Name
