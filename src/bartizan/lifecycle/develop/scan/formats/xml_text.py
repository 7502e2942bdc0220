"""XML, read in one pass within bounds: start tags and processing instructions, and nothing from outside.

Entities are where XML attacks its reader: external ones read files and fetch addresses (CWE-611), and
nested ones grow without bound (CWE-776). Both are refused where they are declared, before any is used.
Short entities that stand for plain text are let through: drawing programs write them.
"""

from __future__ import annotations

import re
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
XINCLUDE, XSLT = "http://www.w3.org/2001/XInclude", "http://www.w3.org/1999/XSL/Transform"
_ELSEWHERE = re.compile(r"(?:https?|ftp|file|php|jar|netdoc|gopher):.*|[/\\].*|\w:[/\\].*", re.IGNORECASE | re.DOTALL)
"""Addresses, and paths that are no names beside the document."""
_FETCHES = re.compile(r"\b(?:document|unparsed-text|doc)\s*+\(\s*+[\"'][^\"']*|\bsystem-property\s*+\(")
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
        self.parser.StartDoctypeDeclHandler = self.doctype
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
        self.refer(namespace, local, attributes)
        self.found.append(Element(local, namespace, attributes, self.depth, self.at))
        self.depth += 1

    def refer(self, namespace: str, local: str, attributes: dict[str, str]) -> None:
        """Elements that bring in other files: XInclude, and the parts of a style sheet."""
        if namespace == XINCLUDE and local == "include":
            raise XmlProblem("xml/external-entity", f"includes {attributes.get('href', '')[:200]!r}", self.at)
        if namespace == XSLT:
            place = attributes.get("href", "") if local in {"import", "include"} else ""
            found = _ELSEWHERE.match(place) or next(filter(None, map(_FETCHES.search, attributes.values())), None)
            if found is not None:
                raise XmlProblem("xml/external-entity", f"a style sheet reads {found[0][:200]!r}", self.at)

    def end(self, _name: str) -> None:
        self.depth -= 1

    def instruction(self, target: str, text: str) -> None:
        self.found.append(Element(INSTRUCTION + target, "", {"": text}, self.depth, self.at))

    def doctype(self, name: str, system: str | None, public: str | None, _has_subset: bool) -> None:
        """The type of a document; one of an own address is fetched. Published types are known by their name."""
        if system is not None and public is None and _ELSEWHERE.match(system):
            raise XmlProblem("xml/external-entity", f"the type of {name[:80]!r} lies at {system[:200]!r}", self.at)

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
