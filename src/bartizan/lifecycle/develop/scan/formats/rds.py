"""R's saved objects: RDS and RData, in the XDR form.

Format: "Serialization Formats" in R Internals, and ``src/main/serialize.c`` of R 4. Nothing is built:
the walk keeps a list of what is still to be read, so depth costs no stack. Loading plain data runs
nothing; a promise runs its expression when it is first used (CVE-2024-27322), and functions run when
somebody, or a hook of a class, calls them.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from bartizan.lifecycle.develop.scan.formats.cursor import BrokenFormatError, Cursor
from bartizan.lifecycle.develop.scan.formats.trees import code_in
from bartizan.lifecycle.develop.scan.limits import LimitError, Meter
from bartizan.lifecycle.develop.scan.source import Draft, Examine, Source
from bartizan.lifecycle.develop.scan.verdict import Report

_HEAD = re.compile(rb"(?:RDX[23]\n)?X\n\x00\x00\x00[\x02\x03]\x00[\x00-\x0a]")
_OTHER_HEAD = re.compile(rb"RD[AB][23]\n[AB]\n|A\n[23]\n\d+\n\d+\n|B\n[\x02\x03]\x00{3}")
MOST_ITEMS = 20_000_000
MOST_WAITING = 1_000_000
LONGEST_NAME = 1 << 16

SYMBOL, LIST, CLOSURE, ENVIRONMENT, PROMISE, LANGUAGE, SPECIAL, BUILTIN, CHARACTERS = range(1, 10)
LOGICAL, INTEGER, REAL, COMPLEX, TEXTS, DOTS, VECTOR, EXPRESSION, BYTECODE, POINTER, WEAK, RAW, S4 = (
    10, 13, 14, 15, 16, 17, 19, 20, 21, 22, 23, 24, 25,
)  # fmt: skip
ALTREP, ATTRIBUTED_LIST, ATTRIBUTED_LANGUAGE, CODE_REFERENCE, CODE_DEFINITION = 238, 239, 240, 243, 244
PERSISTENT, PACKAGE, NAMESPACE, REFERENCE = 247, 248, 249, 255
CONSTANTS = frozenset({0, 241, 242, 250, 251, 252, 253, 254})
"""NULL, environments that every R has, and marks."""
SIZES = {LOGICAL: 4, INTEGER: 4, REAL: 8, COMPLEX: 16, RAW: 1}
"""Bytes of one number of each vector."""
_HAS_ATTRIBUTES, _HAS_TAG = 0x200, 0x400
CALLS = frozenset(
    (
        "system",
        "system2",
        "shell",
        "shell.exec",
        "pipe",
        "fifo",
        "eval",
        "evalq",
        "eval.parent",
        "parse",
        "str2lang",
        "source",
        "sys.source",
        "download.file",
        "url",
        "socketConnection",
        "url.show",
        "browseURL",
        "unserialize",
        "readRDS",
        "load",
        "dyn.load",
        "library.dynam",
        ".Call",
        ".C",
        ".External",
        ".Internal",
        ".Primitive",
        "do.call",
        "unlink",
        "file.remove",
        "file.copy",
        "writeLines",
        "writeBin",
        "cat",
        "sink",
        "Sys.setenv",
        "install.packages",
        "reg.finalizer",
        "delayedAssign",
        "makeActiveBinding",
        "setHook",
        "getExportedValue",
        "file",
        "readLines",
        "curl",
        "GET",
        "POST",
        "base64decode",
        "quit",
        "q",
    )
)
"""Functions that start programs, evaluate texts, or reach files and the network."""


def is_r_object(source: Source) -> bool:
    """Whether bytes begin as R's XDR form."""
    return _HEAD.match(bytes(source.data[:16])) is not None


def is_r_other(source: Source) -> bool:
    """Whether bytes begin as R's text form or as the form of one machine."""
    return _OTHER_HEAD.match(bytes(source.data[:32])) is not None


def examine_r_other(source: Source, meter: Meter, _examine: Examine) -> Report:
    """The rare forms are told and not read."""
    draft = Draft(source, "r", meter.limits.findings)
    draft.miss("R objects are read in the XDR form only")
    return draft.close()


def examine_r_object(source: Source, meter: Meter, _examine: Examine) -> Report:
    """Walk over a saved object."""
    draft = Draft(source, "r", meter.limits.findings)
    walk = _Walk(source, draft)
    try:
        walk.run()
        if walk.cursor.left:
            draft.gap(walk.cursor.at, walk.cursor.end, "follow the object")
    except BrokenFormatError as broken:
        draft.fire("r/malformed", str(broken), broken.offset)
        draft.miss("the object cannot be read to its end")
    except LimitError as limit:
        draft.miss(str(limit), rule="file/limit")
    walk.judge()
    return draft.close()


class _Walk:
    """One walk. ``todo`` holds what is still to be read, the next one last."""

    def __init__(self, source: Source, draft: Draft) -> None:
        self.cursor = Cursor(source.data)
        self.draft = draft
        self.todo: list[tuple[Callable[[], None], int]] = []
        self.items = 0
        self.references: list[str] = []
        """What later references may name: symbols, and an empty text for everything else."""
        self.symbols: set[str] = set()
        self.called: set[str] = set()
        """Symbols that stand where an expression names its function."""
        self.last = ""
        """The symbol that was read last; empty after anything else."""
        self.found: dict[str, int] = {}
        """First offset of each kind of code."""
        self._readers = self._make_readers()

    def run(self) -> None:
        if bytes(self.cursor.data[:3]) == b"RDX":
            self.cursor.skip(5)
        self.cursor.skip(2)
        version = self._integer()
        self.cursor.skip(8)
        if version == 3:  # noqa: PLR2004 -- names its encoding
            self.cursor.skip(self._length())
        self._push(self._item)
        while self.todo:
            reader, count = self.todo.pop()
            if count > 1:
                self.todo.append((reader, count - 1))
            reader()

    def judge(self) -> None:
        """Fire for the code that was seen."""
        names = self.symbols | self.called if "byte code" in self.found else self.called
        named = sorted(names & CALLS)
        for kind, offset in self.found.items():
            rule = {"promise": "r/promise", "pointer": "r/pointer"}.get(kind, "r/function")
            if rule != "r/function" or kind != "expression":
                self.draft.fire(rule, f"it holds a {kind}", offset)
        if named and self.found.keys() - {"pointer"}:
            self.draft.fire("r/code", f"its code names {', '.join(named[:8])}")

    def _push(self, reader: Callable[[], None], count: int = 1) -> None:
        if count:
            self.todo.append((reader, count))
        if len(self.todo) > MOST_WAITING:
            raise LimitError(f"more than {MOST_WAITING} parts inside one another")

    def _integer(self) -> int:
        return self.cursor.signed(4, "big")

    def _length(self) -> int:
        length = self._integer()
        if length == -1:
            length = self._integer() << 32 | self.cursor.unsigned(4, "big")
        if length < 0:
            raise BrokenFormatError(f"a length of {length}", self.cursor.at - 4)
        return length

    def _note(self, kind: str) -> None:
        self.found.setdefault(kind, self.cursor.at - 4)

    def _count(self) -> None:
        self.items += 1
        if self.items > MOST_ITEMS:
            raise LimitError(f"more than {MOST_ITEMS} objects")

    def _item(self) -> None:
        """One object: its flags, then what its kind has."""
        self._count()
        self.last = ""
        flags = self.cursor.unsigned(4, "big")
        kind = flags & 0xFF
        if kind in CONSTANTS:
            return
        if kind == REFERENCE:
            index = flags >> 8 or self._integer()
            if not 0 < index <= len(self.references):
                raise BrokenFormatError(f"reference {index} of {len(self.references)}", self.cursor.at - 4)
            self.last = self.references[index - 1]
            return
        if kind in SIZES:
            self._attributes(flags)
            self.cursor.skip(SIZES[kind] * self._length())
            return
        reader = self._readers.get(kind)
        if reader is None:
            raise BrokenFormatError(f"an object of kind {kind}", self.cursor.at - 4)
        reader(flags)

    def _make_readers(self) -> dict[int, Callable[[int], None]]:
        return {
            SYMBOL: self._symbol,
            LIST: self._pairs,
            DOTS: self._pairs,
            CLOSURE: lambda flags: self._noted_pairs("function", flags),
            PROMISE: lambda flags: self._noted_pairs("promise", flags),
            LANGUAGE: self._call,
            ATTRIBUTED_LANGUAGE: lambda flags: self._call(flags | _HAS_ATTRIBUTES),
            ATTRIBUTED_LIST: lambda flags: self._pairs(flags | _HAS_ATTRIBUTES),
            ENVIRONMENT: self._environment,
            SPECIAL: self._builtin,
            BUILTIN: self._builtin,
            CHARACTERS: self._characters,
            TEXTS: self._vector,
            VECTOR: self._vector,
            EXPRESSION: self._expressions,
            BYTECODE: self._bytecode,
            POINTER: self._pointer,
            WEAK: self._weak,
            S4: self._attributes,
            ALTREP: lambda _flags: self._push(self._item, 3),
            PERSISTENT: self._named,
            PACKAGE: self._named,
            NAMESPACE: self._named,
        }

    def _attributes(self, flags: int) -> None:
        if flags & _HAS_ATTRIBUTES:
            self._push(self._item)

    def _symbol(self, _flags: int) -> None:
        if self.cursor.unsigned(4, "big") & 0xFF != CHARACTERS:
            raise BrokenFormatError("the name of a symbol is no text", self.cursor.at - 4)
        length = self._integer()
        if length > LONGEST_NAME:
            raise BrokenFormatError(f"the name of a symbol has {length} bytes", self.cursor.at - 4)
        self.last = self.cursor.take(max(length, 0)).decode("utf-8", "backslashreplace")
        self.symbols.add(self.last)
        self.references.append(self.last)

    def _pairs(self, flags: int) -> None:
        """A pair: attributes and tag when it has them, then its value and what follows."""
        self._push(self._item, 2 + bool(flags & _HAS_ATTRIBUTES) + bool(flags & _HAS_TAG))

    def _noted_pairs(self, kind: str, flags: int) -> None:
        self._note(kind)
        self._pairs(flags)

    def _call(self, flags: int) -> None:
        """An expression: a pair whose value names the function."""
        self._note("expression")
        self._push(self._item)
        self._push(self._function)
        self._push(self._item, bool(flags & _HAS_ATTRIBUTES) + bool(flags & _HAS_TAG))

    def _function(self) -> None:
        self._item()
        self.called.add(self.last)

    def _environment(self, _flags: int) -> None:
        self.references.append("")
        self._integer()
        self._push(self._item, 4)

    def _builtin(self, _flags: int) -> None:
        self._note("function")
        self.called.add(self.cursor.take(self._length()).decode("utf-8", "backslashreplace"))

    def _characters(self, _flags: int) -> None:
        length = self._integer()
        if length < -1:
            raise BrokenFormatError(f"a text of {length} bytes", self.cursor.at - 4)
        at = self.cursor.skip(max(length, 0))
        text = bytes(self.cursor.data[at : at + min(length, LONGEST_NAME)]) if length > 0 else b""
        if len(text) > 5 and (found := code_in(text.decode("utf-8", "replace"))):  # noqa: PLR2004 -- os.exec
            self.draft.fire("trees/code-in-text", f"a text holds {found!r}", at)

    def _vector(self, flags: int) -> None:
        """Elements, then attributes."""
        length = self._length()
        if 4 * length > self.cursor.left:
            raise BrokenFormatError(f"{length} elements are announced for {self.cursor.left} bytes", self.cursor.at)
        self._attributes(flags)
        self._push(self._item, length)

    def _expressions(self, flags: int) -> None:
        self._note("expression")
        self._vector(flags)

    def _pointer(self, flags: int) -> None:
        self.references.append("")
        self._note("pointer")
        self._attributes(flags)
        self._push(self._item, 2)

    def _weak(self, flags: int) -> None:
        self.references.append("")
        self._note("pointer")
        self._attributes(flags)

    def _named(self, _flags: int) -> None:
        self.references.append("")
        self._integer()
        length = self._length()
        if 4 * length > self.cursor.left:
            raise BrokenFormatError(f"{length} names are announced for {self.cursor.left} bytes", self.cursor.at)
        self._push(self._item, length)

    def _bytecode(self, flags: int) -> None:
        self._note("byte code")
        self._attributes(flags)
        self._integer()
        self._push(self._code)

    def _code(self) -> None:
        """The instructions, then the constants."""
        self._push(self._constants)
        self._push(self._item)

    def _constants(self) -> None:
        count = self._length()
        if 4 * count > self.cursor.left:
            raise BrokenFormatError(f"{count} constants are announced", self.cursor.at)
        self._push(self._constant, count)

    def _constant(self) -> None:
        self._count()
        kind = self._integer()
        if kind == BYTECODE:
            self._push(self._code)
        else:
            self._code_language(kind)

    def _typed(self) -> None:
        self._count()
        self._code_language(self._integer())

    def _code_language(self, kind: int) -> None:
        """An expression inside byte code; parts may be shared."""
        if kind == CODE_REFERENCE:
            self._integer()
            return
        if kind == CODE_DEFINITION:
            self._integer()
            kind = self._integer()
        if kind in {LANGUAGE, LIST, ATTRIBUTED_LANGUAGE, ATTRIBUTED_LIST}:
            self._push(self._typed, 2)
            self._push(self._item, 1 + (kind in {ATTRIBUTED_LANGUAGE, ATTRIBUTED_LIST}))
        else:
            self._push(self._item)
