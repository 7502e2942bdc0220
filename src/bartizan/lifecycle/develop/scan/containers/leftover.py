"""Bytes of a container that belong to no part: reported, and examined when they are something that loads."""

from __future__ import annotations

from bartizan.lifecycle.develop.scan.detect import detect
from bartizan.lifecycle.develop.scan.source import CHUNK, Draft, Examine, window
from bartizan.lifecycle.develop.scan.verdict import Verdict


def report_leftover(draft: Draft, examine: Examine, start: int, end: int, what: str) -> None:
    """Report the bytes from ``start`` to ``end``, and what they hold if that can be told."""
    draft.gap(start, end, what)
    source = draft.source.child(f"<bytes {start} to {end}>", window(draft.source.data, start, end))
    kind = detect(source.data)
    if kind in {"unknown", "empty"}:
        return
    report = examine(source)
    if kind != "maybe-pickle" or report.verdict is Verdict.DANGEROUS:
        draft.members.append(report)


def zeros_end(draft: Draft, start: int, end: int) -> int:
    """Offset of the first byte from ``start`` on that is not zero; ``end`` when there is none."""
    data = draft.source.data
    for at in range(start, end, CHUNK):
        part = bytes(data[at : min(at + CHUNK, end)])
        rest = len(part.lstrip(b"\0"))
        if rest:
            return at + len(part) - rest
    return end
