"""One set of facts in three forms: HTML for people, Markdown for repositories, JSON for machines."""

from __future__ import annotations

import html
import re
from typing import Any

import msgspec

from bartizan.core.digest import canonical_json
from bartizan.core.predicates import Card
from bartizan.lifecycle.develop.cards.fields import FIELDS, Field

NOTHING = "none declared"
EMPTY: tuple[Any, ...] = ("", [], {}, None)
"""Parts of a compound fact that are not worth a word."""
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")


def shown(card: Card) -> list[tuple[Field, Any]]:
    """The facts of a card with their fields, in the order of ``FIELDS``; those that are absent are left out."""
    return [(field, card.facts[field.name]) for field in FIELDS if field.name in card.facts]


def render_json(card: Card) -> bytes:
    """The whole card as canonical JSON."""
    return canonical_json(msgspec.to_builtins(card))


def render_html(card: Card) -> str:
    """An HTML fragment. Each fact stands in a ``data`` element whose value is the fact as JSON.

    Everything from the card is escaped, so a fragment may be put into any page.
    """
    heading = f"{card.kind.capitalize()} card: {card.name}"
    lines = [
        f'<section class="card" data-kind="{_text(card.kind)}" data-name="{_text(card.name)}">',
        f"<h2>{_text(heading)}</h2>",
    ]
    if not card.complete:
        lines.append(f'<p class="incomplete" role="alert">Incomplete: {_text(", ".join(card.missing))}.</p>')
    lines.append("<dl>")
    for field, value in shown(card):
        machine = _text(canonical_json(value).decode())
        lines.append(
            f'<dt>{_text(field.title)}</dt><dd><data data-fact="{field.name}" value="{machine}">'
            f"{_text(in_words(value))}</data></dd>"
        )
    return "\n".join([*lines, "</dl>", "</section>", ""])


def render_markdown(card: Card) -> str:
    """A Markdown document with one table of facts."""
    lines = [f"# {card.kind.capitalize()} card: {_cell(card.name)}", ""]
    if not card.complete:
        lines += [f"**Incomplete:** {', '.join(card.missing)}.", ""]
    lines += ["| fact | value |", "| --- | --- |"]
    lines += [f"| {field.title} | {_cell(in_words(value))} |" for field, value in shown(card)]
    return "\n".join(lines) + "\n"


def in_words(value: Any, between: str = "; ") -> str:
    """A fact for people: ``yes``, ``a; b``, ``key: value``; ``between`` separates the parts of a compound fact."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        said = (f"{_spaced(name)}: {in_words(item, ', ')}" for name, item in value.items() if item not in EMPTY)
        return between.join(said) or NOTHING
    if isinstance(value, list | tuple):
        return between.join(in_words(item, ", ") for item in value) or NOTHING
    return NOTHING if value in ("", None) else str(value)


def _spaced(name: str) -> str:
    """``independentSources`` as ``independent sources``; other names stay as they are."""
    return _HUMP.sub(" ", name).lower() if _HUMP.search(name) else name


def _text(text: str) -> str:
    return html.escape(text, quote=True)


def _cell(text: str) -> str:
    """Text that stays inside its cell and is nothing but text."""
    escaped = html.escape(" ".join(text.split()), quote=False)
    for sign in "\\|`*_[]":
        escaped = escaped.replace(sign, f"\\{sign}")
    return escaped
