"""XML, read in one pass within bounds: start tags and processing instructions, and nothing from outside.

Entities are where XML attacks its reader: external ones read files and fetch addresses (CWE-611), and
nested ones grow without bound (CWE-776). Both are refused where they are declared, before any is used.
Short entities that stand for plain text are let through: drawing programs write them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple
from xml.parsers import expat

from bartizan.lifecycle.develop.scan.limits import MIB
from bartizan.lifecycle.develop.scan.pickle.constants import Buffer

CHUNK = MIB // 4
DEEPEST = 1_000
MOST_ELEMENTS = 20_000_000
LONGEST_TOKEN = 4 * MIB
"""A longer tag or comment makes the parser go over it again with every piece that it is given (CVE-2023-52425)."""
LONGEST_ENTITY = 256
INSTRUCTION = "?"
"""First letter of an ``Element.name`` that is a processing instruction."""


class XmlProblem(Exception):  # noqa: N818 -- what is wrong with a document is no fault of the program
    """Why a document cannot be read further."""

    def __init__(self, rule_id: str, detail: str, offset: int) -> None:
        super().__init__(detail)
        self.rule_id = rule_id
        """A rule of the family ``xml``, or ``file/limit``."""
        self.detail = detail
        self.offset = offset


class Element(NamedTuple):
    """One start tag, or one processing instruction (``?name``, its text as the attribute of an empty name)."""

    name: str
    """Local name, without namespace."""
    namespace: str
    attributes: dict[str, str]
    """By name; names in a namespace are ``namespace name``."""
    depth: int
    """0 for the outermost."""
    offset: int


class _Handlers:
    """Collects what the parser reports and refuses what would do harm."""

    def __init__(self) -> None:
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.ProcessingInstructionHandler = self.instruction
        self.parser.EntityDeclHandler = self.entity
        self.depth = 0
        self.elements = 0
        self.found: list[Element] = []

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.elements += 1
        if self.depth >= DEEPEST:
            raise XmlProblem("xml/nesting", f"elements are nested more than {DEEPEST} deep", self.at)
        if self.elements > MOST_ELEMENTS:
            raise XmlProblem("file/limit", f"more than {MOST_ELEMENTS} elements", self.at)
        namespace, _, local = name.rpartition(" ")
        self.found.append(Element(local, namespace, attributes, self.depth, self.at))
        self.depth += 1

    def end(self, _name: str) -> None:
        self.depth -= 1

    def instruction(self, target: str, text: str) -> None:
        self.found.append(Element(INSTRUCTION + target, "", {"": text}, self.depth, self.at))

    def entity(
        self,
        name: str,
        _is_parameter: bool,
        value: str | None,
        _base: str | None,
        system: str | None,
        public: str | None,
        _notation: str | None,
    ) -> None:
        if value is None:
            place = system or public or ""
            raise XmlProblem("xml/external-entity", f"entity {name[:80]!r} stands for {place[:200]!r}", self.at)
        if len(value) > LONGEST_ENTITY or "&" in value or "%" in value:
            raise XmlProblem("xml/entity-expansion", f"entity {name[:80]!r} is long or made of other entities", self.at)

    @property
    def at(self) -> int:
        return self.parser.CurrentByteIndex


def read_elements(data: Buffer) -> Iterator[Element]:
    """Start tags and processing instructions of an XML document, in order.

    Raises:
        XmlProblem: it is not well-formed, declares a harmful entity, or reaches a bound.
    """
    handlers = _Handlers()
    for start in range(0, max(len(data), 1), CHUNK):
        part = bytes(data[start : start + CHUNK])
        _parse(handlers, part, is_last=start + CHUNK >= len(data))
        yield from handlers.found
        handlers.found.clear()
        if start - handlers.at > LONGEST_TOKEN:
            raise XmlProblem("file/limit", f"one tag or comment is longer than {LONGEST_TOKEN} bytes", handlers.at)


def _parse(handlers: _Handlers, part: bytes, *, is_last: bool) -> None:
    try:
        handlers.parser.Parse(part, is_last)
    except expat.ExpatError as error:
        raise XmlProblem("xml/malformed", f"it is no well-formed XML: {error}", handlers.at) from error
    except (LookupError, ValueError) as error:  # an encoding that Python does not know
        raise XmlProblem("xml/malformed", f"its encoding cannot be read: {str(error)[:120]}", handlers.at) from error


__all__ = ["INSTRUCTION", "Element", "XmlProblem", "read_elements"]
