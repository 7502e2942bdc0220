"""Foreign text made harmless and short, numbers and times made readable."""

from __future__ import annotations

import math
import unicodedata
from datetime import datetime
from typing import Any

MAX_TEXT = 1200
"""Characters of one string that a report shows; longer ones are cut and say so."""

SMALLEST, LARGEST = 1e-4, 1e15
"""Numbers outside are written with an exponent."""

_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories without a glyph of their own: controls, direction marks, surrogates, unassigned."""


def clean(text: str, limit: int = MAX_TEXT) -> str:
    r"""Make ``text`` safe to show: white space becomes one space, invisible characters become visible.

    Direction overrides and zero-width characters can make a name read as another one; they are
    written out as ``\u202e``. What is cut off is counted.
    """
    cut = text[: limit + 1]
    shown = "".join(_visible(character) for character in cut[:limit])
    shown = " ".join(shown.split())
    return f"{shown} … ({len(text) - limit} more characters)" if len(cut) > limit else shown


def _visible(character: str) -> str:
    if character in "\t\n\r\v\f\x85\u2028\u2029":
        return " "
    if unicodedata.category(character) in _INVISIBLE:
        return f"\\u{ord(character):04x}"
    return character


def clean_all(value: Any) -> Any:
    """Clean every string inside JSON-like data, keys of mappings included."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean_all(key): clean_all(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [clean_all(entry) for entry in value]
    return value


def number(value: float) -> str:
    """Three significant digits without exponent where possible: ``0.0417``, ``12.5``, ``1,000``."""
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else ("unbounded" if value > 0 else "unbounded below")
    if value == 0:
        return "0"
    if not SMALLEST <= abs(value) < LARGEST:
        return f"{value:.2e}"
    if value == round(value):
        return f"{round(value):,}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def moment(when: datetime) -> str:
    """Date and minute, for people: ``2026-11-21 09:30 UTC``."""
    return when.strftime("%Y-%m-%d %H:%M UTC")


def span(earlier: datetime, later: datetime) -> str:
    """How long from one time to a later one: ``just now``, ``5 hours``, ``12 days``."""
    seconds = max(0, int((later - earlier).total_seconds()))
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= size:
            return counted(seconds // size, unit)
    return "less than a minute"


def counted(count: int, noun: str, plural: str = "") -> str:
    """``1 rule``, ``2 rules``, ``2 entries``."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def words(identifier: str) -> str:
    """An identifier for reading: ``robust_accuracy`` becomes ``robust accuracy``."""
    return identifier.replace("_", " ").strip()
