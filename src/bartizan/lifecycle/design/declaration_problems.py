"""A mistake in a declaration before its line is known, and how values and near misses are shown."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from bartizan.core.finding import Fault
from bartizan.lifecycle.design.declaration_lines import LineIndex, Place

MAX_SHOWN = 60
"""Characters of a value that a message repeats."""

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+\Z")


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One mistake, at a place in the document."""

    place: Place
    message: str
    """What is wrong and what came."""
    allowed: str = ""
    suggestion: str = ""

    def fault(self, index: LineIndex) -> Fault:
        """The same with the line on which it stands."""
        return Fault(
            line=index.line(self.place),
            path=show_place(self.place),
            message=self.message,
            allowed=self.allowed,
            suggestion=self.suggestion,
        )


def show_place(place: Place) -> str:
    """``dataset[0].sensitivity``; keys that TOML quotes are quoted."""
    text = ""
    for step in place:
        if isinstance(step, int):
            text += f"[{step}]"
            continue
        key = step if _PLAIN_KEY.match(step) else show(step)
        text += f".{key}" if text else key
    return text or "(whole file)"


def show(value: Any) -> str:
    """A value as it could stand in the file, cut short, in printable characters."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return f"a table of {len(value)}"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, str):
        cut = value if len(value) <= MAX_SHOWN else value[: MAX_SHOWN - 3] + "..."
        return '"' + "".join(_printable(character) for character in cut) + '"'
    return str(value)[:MAX_SHOWN]


def _printable(character: str) -> str:
    if character in {'"', "\\"}:
        return f"\\{character}"
    return character if character.isprintable() else f"\\u{ord(character):04x}"


def one_of(options: Iterable[str], limit: int = 12) -> str:
    """What may stand here, for people: ``a | b | c``, or the first few of many."""
    names = list(options)
    if len(names) <= limit:
        return " | ".join(names)
    return f"{' | '.join(names[:limit])} | ... ({len(names)} in all)"


def nearest(word: str, options: Iterable[str]) -> str:
    """The option that is most likely meant, or empty."""
    known = {option.casefold(): option for option in options}
    wanted = word[: MAX_SHOWN * 2].casefold()
    if wanted in known:
        return known[wanted]
    close = difflib.get_close_matches(wanted, known, n=1, cutoff=0.6)
    return known[close[0]] if close else ""
