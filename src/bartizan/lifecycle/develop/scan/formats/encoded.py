"""Programs and pickles that are written out as text: base64, or pairs of hexadecimal digits.

Such a text runs nothing by itself. Whoever decodes it does, and experiment trackers, databases and
configurations carry pickled models this way, so what is decoded is examined like a file.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator

from bartizan.lifecycle.develop.scan.detect import detect
from bartizan.lifecycle.develop.scan.formats.embedded import STRONG, program_or_archive
from bartizan.lifecycle.develop.scan.registry import MAGIC
from bartizan.lifecycle.develop.scan.source import Draft, Examine
from bartizan.lifecycle.develop.scan.verdict import Verdict

_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{32,}+(?:(?:\\n|\r?\n)[A-Za-z0-9+/_-]{4,}+)*+={0,2}")
_HEX = re.compile(r"(?:[0-9a-fA-F]{2}){24,}+")
_BREAKS = re.compile(r"\\n|\s")
_BEGINNING = 64
"""Characters of a run that tell whether the rest is decoded."""
_PLAIN_PICKLE = re.compile(rb"[c(\]}][\x20-\x7e]*\n[\x20-\x7e\n]*\Z")
"""A pickle of protocol 0: lines of printable characters."""
_PROGRAMS = frozenset({"elf", "windows-program"})
_PICKLES = frozenset({"pickle", "joblib"})
_UNPACKED = STRONG | {"zlib"}
_FIRST = frozenset(
    bytes([first])
    for first in b"\x80Mxc(]}" + bytes(magic[0] for each in MAGIC if each.kind in STRONG for _, magic in each.magics)
)
"""First bytes of all that is looked for."""
MOST_DECODED = 64
"""Runs of one text that are decoded as a whole."""


def judge_encoded(draft: Draft, text: str, examine: Examine) -> None:
    """Fire for every encoded program, and for everything else encoded that would do harm."""
    for count, (at, inner) in enumerate(_candidates(text)):
        if count >= MOST_DECODED:
            draft.miss(f"more than {MOST_DECODED} files are encoded in it", rule="file/limit")
            return
        report = examine(draft.source.child(f"<encoded at {at}>", inner))
        is_program = program_or_archive(inner) in _PROGRAMS
        if is_program or (report.verdict is Verdict.DANGEROUS and report.format in _PICKLES | _UNPACKED | {"torch"}):
            draft.fire("text/encoded-payload", f"a file of format {report.format} from character {at} on")
            draft.members.append(report)


def _candidates(text: str) -> Iterator[tuple[int, bytes]]:
    """Where a run of encoded bytes begins like a file, and the bytes."""
    for pattern, decode in ((_HEX, _from_hex), (_BASE64, _from_base64)):
        for found in pattern.finditer(text):
            head = decode(_BREAKS.sub("", found[0][:_BEGINNING]))
            if head[:1] in _FIRST and _begins_like_a_file(head) and (inner := decode(_BREAKS.sub("", found[0]))):
                yield found.start(), inner


def _begins_like_a_file(head: bytes) -> bool:
    return bool(
        program_or_archive(head)
        or head[:2] == b"MZ"
        or detect(head) in _UNPACKED | {"pickle"}
        or _PLAIN_PICKLE.match(head)
    )


def _from_base64(run: str) -> bytes:
    """Bytes of a run in either alphabet; a part of four characters at its end is left out."""
    text = run.rstrip("=").translate(str.maketrans("-_", "+/"))
    text = text[: len(text) - (len(text) % 4 == 1)]
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4))
    except (ValueError, binascii.Error):
        return b""


def _from_hex(run: str) -> bytes:
    try:
        return bytes.fromhex(run[: len(run) & ~1])
    except ValueError:
        return b""


__all__ = ["judge_encoded"]
