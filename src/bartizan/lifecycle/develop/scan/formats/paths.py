"""Paths that a model names: whether they stay beside the model."""

from __future__ import annotations

import re

_DEVICE = r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\.[^/]*)?"
_REASONS = (
    (r"(?:\./?)?\Z", "is empty"),
    (r"[\s\S]*[\x00-\x1f]", "holds control characters"),
    (r".*://|(?:file|data|https?):", "is an address"),
    (r"[/\\~]", "is absolute"),
    (r"[a-z]:", "names a drive"),
    (r"(?:.*[/\\])?\.\.(?:[/\\]|\Z)", "leads upwards"),
    (r".*\\", "holds backslashes, which lead elsewhere on other systems"),
    (rf"(?:.*/)?{_DEVICE}(?:/|\Z)", "names a device"),
    (r".*(?:\$[{(\w]|%\w+%|\*|`)", "holds a variable"),
)
REASONS = tuple((re.compile(pattern, re.IGNORECASE), reason) for pattern, reason in _REASONS)


def why_outside(path: str) -> str:
    """Why a path does not stay in the folder of its model; empty when it does."""
    return next((reason for pattern, reason in REASONS if pattern.match(path)), "")
