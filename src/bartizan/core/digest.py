"""Names for bytes: SHA-256 of a file, the OpenSSF manifest root of a folder, canonical JSON.

A digest here is 64 lower-case hexadecimal characters. A file is named by the SHA-256 of its bytes;
a folder by the root digest of its OpenSSF Model Signing v1.0 manifest: SHA-256 over the
concatenated raw digests of its files, in the order of their names
(https://github.com/ossf/model-signing-spec, section 4).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any, NewType

import msgspec

from bartizan.core.errors import StatementError

Digest = NewType("Digest", str)

HEX = re.compile(r"[0-9a-f]{64}\Z")
_ENCODER = msgspec.json.Encoder(order="sorted")


class ManifestEntry(msgspec.Struct, frozen=True, order=True):
    """One file of a folder: its ``/``-separated path below the folder, and its digest."""

    name: str
    digest: Digest


def parse_digest(text: str) -> Digest:
    """Check that ``text`` is a SHA-256 digest, with or without the ``sha256:`` prefix.

    Raises:
        StatementError: it is not.
    """
    bare = text.removeprefix("sha256:")
    if not HEX.match(bare):
        raise StatementError(
            f"not a SHA-256 digest: {text[:80]!r}", remedy="give 64 lower-case hexadecimal characters."
        )
    return Digest(bare)


def digest_bytes(data: bytes | memoryview) -> Digest:
    """SHA-256 of ``data``."""
    return Digest(hashlib.sha256(data).hexdigest())


def digest_chunks(chunks: Iterable[bytes | memoryview]) -> Digest:
    """SHA-256 of the concatenation of ``chunks``."""
    state = hashlib.sha256()
    for chunk in chunks:
        state.update(chunk)
    return Digest(state.hexdigest())


def manifest_root(entries: Iterable[ManifestEntry]) -> Digest:
    """Root digest of an OpenSSF Model Signing v1.0 manifest, whatever order ``entries`` come in."""
    return digest_chunks(bytes.fromhex(entry.digest) for entry in sorted(entries))


def canonical_json(value: Any) -> bytes:
    """The one byte form of a JSON value: keys sorted, no spaces, UTF-8, shortest floats."""
    return _ENCODER.encode(value)


def digest_json(value: Any) -> Digest:
    """SHA-256 of the canonical JSON of ``value``."""
    return digest_bytes(canonical_json(value))


def short(digest: str) -> str:
    """The first twelve characters, for people."""
    return digest[:12]
