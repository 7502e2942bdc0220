"""Pages and pictures made of tags: HTML, SVG, and any XML that no other format claims."""

from __future__ import annotations

import re

from bartizan.lifecycle.develop.scan.formats.xml_text import INSTRUCTION, Element, XmlProblem, read_elements
from bartizan.lifecycle.develop.scan.source import Draft, Source

NAMES = (".svg", ".xml", ".html", ".htm", ".xhtml")
HTML = re.compile(
    r"\s*+(?:<!--(?>.*?-->)\s*+)*+<(?:!doctype\s++html|html|head|body|script|iframe|style|div|table)\b",
    re.IGNORECASE | re.DOTALL,
)
XML = re.compile(
    r"\s*+(?:<!--(?>.*?-->)\s*+)*+<"
    r"(?:\?xml[\s?]|svg[\s>]|!DOCTYPE\s++(?!html)|[A-Za-z][\w.:-]*+(?:\s++[\w.:-]++\s*+=|\s*+/?>))",
    re.IGNORECASE | re.DOTALL,
)
_EVENTS = (
    "load|unload|error|click|dblclick|auxclick|contextmenu|mouse|pointer|key|focus|blur|begin|end|repeat|toggle|anim|trans|"
    "submit|change|input|page|hash|message|scroll|wheel|drag|drop|copy|cut|paste|play|resize|before|start|finish|search|"
    "select|canplay|touch|show|storage|popstate|media|loadstart"
)
ACTIVE = re.compile(
    r"<\s*+(?:script|iframe|object|embed|applet|base)\b"
    r"|http-equiv\s*+=\s*+[\"']?refresh"
    rf"|\bon(?:{_EVENTS})\w{{0,20}}\s*+="
    r"|\b(?:href|src|action|formaction|data)\s*+=\s*+[\"']?\s*+(?:java|vb)script\s*+:"
    r"|\b(?:href|src|data)\s*+=\s*+[\"']?\s*+data:(?:text/html|image/svg|application/x)",
    re.IGNORECASE,
)
"""Tags and attributes of HTML that run programs or bring other pages along."""
ACTIVE_TAGS = frozenset({"script", "foreignobject", "iframe", "object", "embed", "handler", "listener", "applet"})
_SPACE = re.compile(r"[\s\x00-\x20]+")


def judge(source: Source, draft: Draft, text: str) -> bool:
    """Markup by name or by its first tag."""
    name = source.name.lower()
    if HTML.match(text) or name.endswith((".html", ".htm")):
        draft.kind = "html"
        if match := ACTIVE.search(text):
            draft.fire("markup/script", f"{match[0].strip()[:120]!r}")
        return True
    if not name.endswith(NAMES) and not XML.match(text):
        return False
    return _judge_xml(source, draft, is_named=name.endswith(NAMES))


def _judge_xml(source: Source, draft: Draft, *, is_named: bool) -> bool:
    elements = 0
    try:
        for element in read_elements(source.data):
            elements += 1
            what = _activity(element)
            if what:
                draft.fire("markup/script", what, element.offset)
            if element.depth == 0 and not element.name.startswith(INSTRUCTION):
                draft.kind = "svg" if element.name.lower() == "svg" else "xml"
    except XmlProblem as problem:
        if problem.rule_id == "xml/malformed" and not is_named:
            return False
        draft.kind = "xml"
        draft.fire(problem.rule_id, problem.detail, max(problem.offset, 0))
        draft.miss(f"what follows byte {max(problem.offset, 0)} was not read")
    draft.facts["elements"] = elements
    return True


def _activity(element: Element) -> str:
    """What an element would run; empty when nothing."""
    if element.name.startswith(INSTRUCTION):
        return f"a style sheet {element.attributes['']!r:.100}" if "stylesheet" in element.name.lower() else ""
    if element.name.lower() in ACTIVE_TAGS:
        return f"an element <{element.name[:40]}>"
    for name, value in element.attributes.items():
        local = name.rpartition(" ")[2].lower()
        plain = _SPACE.sub("", value).lower()
        if local.startswith("on") and local[2:].isalpha():
            return f"an attribute {local[:40]}"
        if plain.startswith(("javascript:", "vbscript:", "data:text/html", "data:image/svg")):
            return f"an address {plain[:60]!r}"
    return ""


__all__ = ["NAMES", "judge"]
