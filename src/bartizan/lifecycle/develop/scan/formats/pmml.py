"""PMML: models as XML documents.

Format: https://dmg.org/pmml/v4-4-1/GeneralStructure.html. Scoring engines resolve functions that PMML
does not define by name: JPMML takes a dotted name for a Java class and loads it.
"""

from __future__ import annotations

import re

from bartizan.lifecycle.develop.scan.formats.trees import code_in
from bartizan.lifecycle.develop.scan.formats.xml_text import INSTRUCTION, Element, XmlProblem, read_elements
from bartizan.lifecycle.develop.scan.limits import Meter
from bartizan.lifecycle.develop.scan.source import Draft, Examine, Source, chunks
from bartizan.lifecycle.develop.scan.verdict import Report

_HEAD = re.compile(
    rb"(?:\xef\xbb\xbf)?(?:\s++|<\?[^>]*+>|<!--.*?-->|<!DOCTYPE[^<\[]*+(?:\[[^\]]*+\]\s*+)?>)*+<(?:\w+:)?PMML[\s>]",
    re.DOTALL,
)
_NAMESPACE = re.compile(r"http://www\.dmg\.org/PMML-\d_\d(?:_\d)?\Z")
_FUNCTION = re.compile(r"[A-Za-z_][\w-]*\Z|[-+*/]\Z|x-[\w-]+\Z")
SCRIPTS = frozenset(
    (
        "script",
        "groovy",
        "jython",
        "javascript",
        "java",
        "python",
        "r",
        "expression",
        "code",
        "applet",
        "object",
        "iframe",
    )
)
"""Names of elements, in lower case, that engines and browsers run."""
HEAD = 64 << 10
OVERLAP = 512


def is_pmml(source: Source) -> bool:
    """Whether a document's outermost element is PMML."""
    head = bytes(source.data[:HEAD])
    return b"PMML" in head and _HEAD.match(head) is not None


def examine_pmml(source: Source, meter: Meter, _examine: Examine) -> Report:
    """Examine a document: its elements, and whether any of its texts is code."""
    draft = Draft(source, "pmml", meter.limits.findings)
    elements = 0
    extension = -1
    has_references = any(b"&" in bytes(part) for part in chunks(source.data, 0, len(source.data)))
    try:
        for element in read_elements(source.data):
            elements += 1
            if extension >= 0 and element.depth <= extension:
                extension = -1
            _judge(element, draft, is_extension=extension >= 0, has_references=has_references)
            if element.name == "Extension" and extension < 0:
                extension = element.depth
    except XmlProblem as problem:
        draft.fire(problem.rule_id, problem.detail, problem.offset)
        draft.miss("the document cannot be read to its end")
    draft.facts["elements"] = elements
    _judge_texts(source, draft)
    return draft.close()


def _judge(element: Element, draft: Draft, *, is_extension: bool, has_references: bool) -> None:
    if element.name.startswith(INSTRUCTION):
        draft.fire("pmml/script", f"the document gives the instruction {element.name[:40]!r}", element.offset)
        return
    if element.name.lower() in SCRIPTS:
        draft.fire("pmml/script", f"the document has an element {element.name[:40]!r}", element.offset)
    is_foreign = not _NAMESPACE.match(element.namespace) and element.namespace
    if is_foreign and not is_extension:
        draft.fire(
            "pmml/malformed", f"{element.name[:40]!r} of {element.namespace[:80]!r} stands among PMML", element.offset
        )
    function = element.attributes.get("function", "")
    if element.name == "Apply" and not _FUNCTION.match(function):
        draft.fire("pmml/script", f"a function is applied that engines load: {function[:120]!r}", element.offset)
    for value in element.attributes.values() if has_references else ():
        if found := code_in(value):
            draft.fire("pmml/script", f"an attribute of {element.name[:40]!r} holds {found!r}", element.offset)


def _judge_texts(source: Source, draft: Draft) -> None:
    """Look for code in everything between the tags."""
    if len(source.data) > 0 and draft.findings:
        return
    before = ""
    for part in chunks(source.data, 0, len(source.data)):
        text = before + bytes(part).decode("utf-8", "replace")
        if found := code_in(text):
            draft.fire("pmml/script", f"a text of the document holds {found!r}")
            return
        before = text[-OVERLAP:]
