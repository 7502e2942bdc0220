"""Characters that people cannot see, in texts that programs obey.

Sources: CVE-2021-42574 (bidirectional controls); Unicode 16, block "Tags".
"""

from __future__ import annotations

import re

_BIDIRECTIONAL = re.compile("[\u202a-\u202e\u2066-\u2069]")
_FLAG = re.compile("\U0001f3f4[\U000e0020-\U000e007e]{1,8}\U000e007f")
"""Flags of regions are written with tag characters."""
_INVISIBLE = re.compile("[\U000e0000-\U000e007f]|[\u200b\u2060-\u2064\U000e0100-\U000e01ef]{4}")
"""Tag characters, and runs of characters without width."""


def bidirectional(text: str) -> int | None:
    """Offset of the first character that changes the order of the others; None when there is none."""
    match = _BIDIRECTIONAL.search(text)
    return match.start() if match else None


def invisible(text: str) -> str | None:
    """The first character that hides text; None when there is none."""
    match = _INVISIBLE.search(_FLAG.sub("", text))
    return match[0][0] if match else None


__all__ = ["bidirectional", "invisible"]
