"""A short document for people, in two forms: Markdown and one HTML page that needs nothing else.

Whatever stands in a document is text: it is escaped in both forms, and only words between backticks
become code. Equal documents have equal bytes.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from importlib import resources

import msgspec
from markupsafe import Markup, escape

from bartizan.assurance.render import code, plain

_CODE = re.compile(r"`([^`]+)`")
_HEAD = (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
    "img-src data:; base-uri 'none'; form-action 'none'\">\n"
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    '<meta name="referrer" content="no-referrer">\n<meta name="color-scheme" content="light dark">\n'
)
_OWN = (
    "main{max-width:52rem;padding:1.5rem 0 3rem}main section{margin-top:2rem}"
    "main ul.points{list-style:disc;padding-left:1.3rem}main ul.points li{margin-bottom:.35rem}"
    "figure{margin:1rem 0}figure svg{max-width:100%;height:auto}figcaption{color:var(--soft);font-size:.875rem}"
)


class Table(msgspec.Struct, frozen=True):
    """Rows under a head."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Figure(msgspec.Struct, frozen=True):
    """A picture, with what it shows in words."""

    svg: str
    """Markup of our own making; shown in HTML only."""
    caption: str


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a document."""

    title: str
    text: tuple[str, ...] = ()
    """Paragraphs."""
    points: tuple[str, ...] = ()
    table: Table | None = None
    figures: tuple[Figure, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether nothing stands under its title."""
        return not (self.text or self.points or (self.table and self.table.rows) or self.figures)


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A whole document."""

    title: str
    lead: str
    sections: tuple[Section, ...]

    @property
    def shown(self) -> tuple[Section, ...]:
        """Sections in which something stands."""
        return tuple(section for section in self.sections if not section.empty)


def to_markdown(document: Document) -> str:
    """The document as Markdown (CommonMark with tables); figures are told by their captions."""
    head = f"# {_line(document.title)}\n\n{_line(document.lead)}\n"
    return "\n".join([head, *(section_markdown(section) for section in document.shown)])


def section_markdown(section: Section) -> str:
    """One part of a document as Markdown."""
    lines = [f"## {_line(section.title)}", ""]
    for paragraph in section.text:
        lines += [_line(paragraph), ""]
    lines += [*(f"- {_line(point)}" for point in section.points), ""] if section.points else []
    lines += [*_markdown_table(section.table), ""] if section.table and section.table.rows else []
    for figure in section.figures:
        lines += [f"*Figure: {_line(figure.caption)}*", ""]
    return "\n".join(lines).rstrip() + "\n"


def to_html(document: Document) -> str:
    """The document as one HTML page."""
    parts = [
        _HEAD,
        f"<title>{escape(document.title)}</title>\n<style>{_style()}{_OWN}</style>\n</head>\n<body>\n",
        f'<div class="wrap">\n<main>\n<h1>{_marked(document.title)}</h1>\n',
        f'<p class="purpose">{_marked(document.lead)}</p>\n',
        *(piece for section in document.shown for piece in _html_section(section)),
        "</main>\n</div>\n</body>\n</html>\n",
    ]
    return "".join(parts)


def _markdown_table(table: Table) -> Iterator[str]:
    yield f"| {' | '.join(_line(cell) for cell in table.head)} |"
    yield f"| {' | '.join('---' for _ in table.head)} |"
    for row in table.rows:
        yield f"| {' | '.join(_line(cell) or ' ' for cell in row)} |"


def _html_section(section: Section) -> Iterator[str]:
    yield f"<section>\n<h2>{_marked(section.title)}</h2>\n"
    yield from (f"<p>{_marked(paragraph)}</p>\n" for paragraph in section.text)
    if section.points:
        yield '<ul class="points">\n'
        yield from (f"<li>{_marked(point)}</li>\n" for point in section.points)
        yield "</ul>\n"
    if section.table and section.table.rows:
        yield '<div class="scroll"><table>\n<thead>'
        yield _row(section.table.head, "th")
        yield "</thead>\n<tbody>"
        yield from (_row(row, "td") for row in section.table.rows)
        yield "</tbody>\n</table></div>\n"
    for figure in section.figures:
        yield f"<figure>{figure.svg}<figcaption>{_marked(figure.caption)}</figcaption></figure>\n"
    yield "</section>\n"


def _row(cells: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{_marked(cell)}</{tag}>" for cell in cells) + "</tr>\n"


def _line(text: str) -> str:
    """Text of any shape as one line of Markdown, code kept, everything else escaped."""
    pieces = _CODE.split(" ".join(text.split()))
    return "".join(code(piece) if index % 2 else plain(piece) for index, piece in enumerate(pieces))


def _marked(text: str) -> Markup:
    """The same for HTML."""
    pieces = _CODE.split(" ".join(text.split()))
    return Markup("").join(
        Markup("<code>{}</code>").format(piece) if index % 2 else escape(piece) for index, piece in enumerate(pieces)
    )


@functools.cache
def _style() -> str:
    return resources.files("bartizan.assurance.templates").joinpath("style.css").read_text("utf-8")


__all__ = ["Document", "Figure", "Section", "Table", "section_markdown", "to_html", "to_markdown"]
