"""Other files and code inside the texts, bytes and numbers of a model.

A graph does not run its metadata, but a first stage elsewhere can fetch what was hidden there, and
a file that is two files at once is none that a framework saves.
"""

from __future__ import annotations

import base64
import binascii
import re
from itertools import islice

from bartizan.lifecycle.develop.scan.detect import detect
from bartizan.lifecycle.develop.scan.pickle.constants import Buffer
from bartizan.lifecycle.develop.scan.pickle.opcodes import VALID
from bartizan.lifecycle.develop.scan.source import Draft, Examine
from bartizan.lifecycle.develop.scan.verdict import Verdict

LARGE = 1 << 20
"""Bytes from which a text beside the graph is no description any more."""
SEARCHED = 1 << 20
STRONG = frozenset({"zip", "gzip", "bzip2", "xz", "zfile", "7z", "rar", "elf", "hdf5", "gguf", "zstandard"})
"""Kinds whose first bytes do not come about by chance."""
_INSIDE = re.compile(
    rb"\x7fELF[\x01\x02][\x01\x02]\x01|PK\x03\x04|\x80[\x02-\x05]\x95.{6}\x00\x00|#!/\w|MZ\x90\x00\x03",
    re.DOTALL,
)
"""Beginnings of programs, archives and pickles that are looked for within a text."""
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_SHEBANG = re.compile(rb"#![ \t]*/\w+/[\x20-\x7e]*\n")
MOST_TRIED = 8
"""Places in one text that are tried as a pickle."""
MOST_ENCODED = 1000
"""Runs of base64 in one text that are decoded."""
_CODE = re.compile(
    r"__import__\s*\(|\bos\.(?:system|popen|exec\w+)\s*\(|\bsubprocess\.\w+\s*\(|\bpickle\.loads\s*\(|"
    r"\bexec\s*\(\s*(?:compile|base64|zlib|['\"])|\beval\s*\(\s*(?:compile|base64|['\"])|<script\b|"
    r"\b(?:curl|wget)\s[^|\n]{1,200}\|\s*(?:ba)?sh\b|/dev/tcp/"
)
_BASE64 = re.compile(rb"[A-Za-z0-9+/]{32,}={0,2}")
_PE_OFFSET = 0x3C


def program_or_archive(data: Buffer) -> str:
    """Kind of file that numbers begin with, if it cannot be chance; else empty."""
    head = bytes(data[:64])
    if head[:2] == b"MZ":
        at = int.from_bytes(head[_PE_OFFSET:], "little")
        return "windows-program" if bytes(data[at : at + 4]) == b"PE\x00\x00" else ""
    kind = detect(head)
    return kind if kind in STRONG else ""


class Embedded:
    """Judges the texts and bytes of one file."""

    def __init__(self, draft: Draft, examine: Examine) -> None:
        self.draft = draft
        self.examine = examine

    def judge_numbers(self, name: str, data: Buffer, at: int) -> None:
        """Raw numbers that begin like a program or an archive, or that are a pickle that does harm."""
        head = bytes(data[:64])
        if kind := program_or_archive(data):
            self._found(name, data, at, f"{name} begins like {kind}")
        elif _SHEBANG.match(head):
            self._found(name, data, at, f"{name} begins like a script")
        elif _PICKLE.match(head):
            report = self.examine(self.draft.source.child(f"<{name}>", data))
            if report.format in {"pickle", "joblib"} and report.verdict is Verdict.DANGEROUS:
                self.draft.fire("graph/hidden-payload", f"{name} holds a pickle", at)
                self.draft.members.append(report)

    def judge_text(self, name: str, data: Buffer, at: int, most: int = LARGE) -> None:
        """A text of any origin: what hides in it, and whether it is too long to be one."""
        if len(data) > most:
            self.draft.fire("graph/large-text", f"{name} has {len(data)} bytes", at)
        raw = bytes(data[:SEARCHED])
        if found := _INSIDE.search(raw):
            self._found(name, data[found.start() :], at + found.start(), f"{name} holds {found[0][:8]!r}")
        elif kind := program_or_archive(data):
            self._found(name, data, at, f"{name} begins like {kind}")
        elif code := _CODE.search(raw.decode("utf-8", "replace")):
            self.draft.fire("graph/hidden-payload", f"{name} holds code: {code[0]!r}", at)
        else:
            self._judge_pickle(name, raw, at)
            self._judge_base64(name, raw, at)

    def _judge_pickle(self, name: str, raw: bytes, at: int) -> None:
        """Bytes that begin like a pickle are one when they do harm as one; those of protocol 0 look like text."""
        starts = [found.start() for found in islice(_PICKLE.finditer(raw), MOST_TRIED)]
        if raw and raw[0] in VALID and b"\n" in raw and raw.rstrip(b"\0 \t\r\n").endswith(b"."):
            starts.append(0)
        for start in starts:
            report = self.examine(self.draft.source.child(f"<{name}>", raw[start:]))
            if report.format in {"pickle", "joblib"} and report.verdict is Verdict.DANGEROUS:
                self.draft.fire("graph/hidden-payload", f"{name} holds a pickle", at + start)
                self.draft.members.append(report)
                return

    def _judge_base64(self, name: str, raw: bytes, at: int) -> None:
        for found in islice(_BASE64.finditer(raw), MOST_ENCODED):
            text = found[0].rstrip(b"=")
            try:
                inner = base64.b64decode(text + b"=" * (-len(text) % 4))
            except (ValueError, binascii.Error):
                continue
            if _INSIDE.match(inner) or _PICKLE.match(inner) or program_or_archive(inner):
                self._found(name, inner, at + found.start(), f"{name} holds an encoded file")
                return

    def _found(self, name: str, data: Buffer, at: int, detail: str) -> None:
        self.draft.fire("graph/hidden-payload", detail, at)
        report = self.examine(self.draft.source.child(f"<{name}>", data))
        if report.verdict in {Verdict.DANGEROUS, Verdict.MALFORMED, Verdict.SUSPICIOUS}:
            self.draft.members.append(report)
