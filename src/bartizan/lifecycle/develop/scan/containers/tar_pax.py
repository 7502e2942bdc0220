"""Pax records: ``LENGTH KEY=VALUE`` lines that say more about a tar member than its header can (POSIX pax, 3.4.3)."""

from __future__ import annotations

import re

Records = dict[str, str]
MOST_RECORDS = 10_000
_LENGTH = re.compile(rb"([1-9]\d{0,9}) ")
OVERRIDES = frozenset({"path", "linkpath", "size"})
SPARSE_LIST = frozenset({"GNU.sparse.offset", "GNU.sparse.numbytes"})
"""Keys that the oldest form of sparse files repeats, once for each piece."""


def read_records(raw: bytes, records: Records) -> list[str]:
    """Add the records in ``raw``; returns what is wrong with them.

    The values of repeated keys about sparse files are joined by commas.
    """
    seen: set[str] = set()
    at = 0
    while at < len(raw) and any(raw[at : at + 1]):
        found = _LENGTH.match(raw, at, at + 12)
        end = at + int(found[1]) if found else 0
        if not found or end > len(raw) or end <= found.end() or raw[end - 1] != ord("\n"):
            return [f"no pax record at byte {at} of the records"]
        key, equals, value = raw[found.end() : end - 1].partition(b"=")
        if not equals or not key:
            return [f"the pax record at byte {at} has no key"]
        problem = _add(records, seen, _text(key), _text(value))
        if problem:
            return [problem]
        at = end
    return [] if not raw[at:].strip(b"\0") else ["bytes follow the pax records"]


def _add(records: Records, seen: set[str], key: str, value: str) -> str:
    if key in OVERRIDES and key in seen:
        return f"two pax records for the {key} of one member"
    if len(records) >= MOST_RECORDS:
        return f"more than {MOST_RECORDS} pax records"
    if key in SPARSE_LIST and key in seen:
        value = f"{records[key]},{value}"
    seen.add(key)
    records[key] = value
    return "" if "\0" not in value or key not in OVERRIDES else f"the {key} record holds a NUL"


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
