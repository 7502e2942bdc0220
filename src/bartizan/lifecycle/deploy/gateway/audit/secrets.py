"""Keys that end: one a day for the digests of inputs and outputs, one a month and class for sealed content.

Destroying a key makes what was digested or sealed with it unlinkable and unreadable (crypto-shredding), and the
log goes on verifying, since the tree is made of what is left. Digests are HMAC-SHA256 (RFC 2104), cut to 128
bits; content is sealed with AES-256-GCM (NIST SP 800-38D) under a random nonce, bound to its class.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bartizan.core.errors import InputError, StoreError
from bartizan.lifecycle.deploy.gateway.audit import entries
from bartizan.lifecycle.deploy.gateway.audit.settings import AuditSettings, nanoseconds
from bartizan.lifecycle.deploy.gateway.audit.store import Kept, Reading, Secret, Store

DAY = 86_400_000_000_000
"""Nanoseconds."""
KEY_BYTES, NONCE_BYTES, BLOCK_BYTES = 32, 12, 64
SHOWN = 32
"""Hexadecimal digits of a digest."""
LONGEST_MONTH = 31 * DAY


class Hmac:
    """HMAC-SHA256 with the two key-dependent states made once: half the time of a one-shot call."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        padded = key.ljust(BLOCK_BYTES, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded)).copy
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in padded)).copy

    def hex(self, content: bytes) -> str:
        """The authentication code, hexadecimal."""
        inner, outer = self._inner(), self._outer()
        inner.update(content)
        outer.update(inner.digest())
        return outer.hexdigest()


class Secrets:
    """The log's present keys. ``prepare`` blocks; everything else answers from memory."""

    def __init__(self, store: Store, settings: AuditSettings, clock: Callable[[], int] = time.time_ns) -> None:
        self._store, self._settings, self._clock = store, settings, clock
        self._digests: dict[int, tuple[str, Hmac]] = {}
        self._ciphers: dict[tuple[int, int], tuple[str, AESGCM]] = {}
        self._day, self._prefix, self._hmac = -1, "", Hmac(b"")

    def adopt(self, settings: AuditSettings) -> None:
        """Keys that are made from now on are kept as long as these settings say."""
        self._settings = settings

    def prepare(self) -> None:
        """Have the keys of today and tomorrow at hand.

        Raises:
            StoreError: they could not be read or made.
        """
        today = self._clock() // DAY
        for day in (today, today + 1):
            if day not in self._digests:
                made = self._make(digest_key(day), (day + 1) * DAY + nanoseconds(self._settings.keep.digests))
                self._digests[day] = (f"{day}.", Hmac(made.key))
            if self._settings.content != "none":
                self._prepare_content(day)
        for old in [day for day in self._digests if day < today - 1]:
            del self._digests[old]

    def _prepare_content(self, day: int) -> None:
        month, until = month_of(day), day * DAY + LONGEST_MONTH + nanoseconds(self._settings.keep.content)
        for kind in range(len(entries.CLASSES)):
            if (month, kind) not in self._ciphers:
                made = self._make(content_key(month, kind), until)
                self._ciphers[month, kind] = (made.name, AESGCM(made.key))

    def _make(self, name: str, until: int) -> Secret:
        return self._store.make_secret(Secret(name, os.urandom(KEY_BYTES), until))

    def keyed(self, content: bytes) -> str:
        """Digest of content under today's key: ``DAY.HEX``.

        Raises:
            StoreError: today's key could not be made.
        """
        day = self._clock() // DAY
        if day != self._day:
            self._turn(day)
        return self._prefix + self._hmac.hex(content)[:SHOWN]

    def _turn(self, day: int) -> None:
        if day not in self._digests:
            raise StoreError("there is no audit key for today", remedy="see why the audit store cannot be written.")
        self._prefix, self._hmac = self._digests[day]
        self._day = day

    def seal(self, content: bytes, kind: int, at: int) -> Kept:
        """Seal content of a class.

        Raises:
            StoreError: there is no key for it.
        """
        month = month_of(at // DAY)
        if (month, kind) not in self._ciphers:
            raise StoreError("there is no audit key for this month", remedy="see why the store cannot be written.")
        name, cipher = self._ciphers[month, kind]
        nonce = os.urandom(NONCE_BYTES)
        sealed = nonce + cipher.encrypt(nonce, content, name.encode())
        return Kept(hashlib.sha256(sealed).hexdigest(), kind, at, name, sealed)


def digest_key(day: int) -> str:
    """Name of the key of a day, counted from the epoch."""
    return f"digest-{day}"


def content_key(month: int, kind: int) -> str:
    """Name of the key of a month, such as 202611, and class."""
    return f"content-{month}-{entries.CLASSES[kind]}"


def month_of(day: int) -> int:
    """The month of a day counted from the epoch, as 202611."""
    date = datetime.fromtimestamp(day * (DAY // 1_000_000_000), UTC)
    return date.year * 100 + date.month


def digests_of(reading: Reading, content: bytes) -> list[str]:
    """What content is called under every key that still lives."""
    living = [secret for secret in reading.secrets() if secret.name.startswith("digest-")]
    return [f"{secret.name.removeprefix('digest-')}.{Hmac(secret.key).hex(content)[:SHOWN]}" for secret in living]


def unseal(reading: Reading, name: str) -> bytes:
    """Sealed content in the clear.

    Raises:
        InputError: it was erased, its key was destroyed, or it was altered.
    """
    kept = reading.content(name)
    secret = reading.secret(kept.key) if kept else None
    if kept is None or secret is None:
        raise InputError(f"content {name[:12]!r} is not kept any more", remedy="its time is over; nobody can read it.")
    try:
        return AESGCM(secret.key).decrypt(kept.sealed[:NONCE_BYTES], kept.sealed[NONCE_BYTES:], kept.key.encode())
    except InvalidTag as error:
        raise InputError(f"content {name[:12]!r} was altered", remedy="run `bartizan audit verify`.") from error


__all__ = [
    "DAY",
    "Hmac",
    "Secrets",
    "content_key",
    "digest_key",
    "digests_of",
    "month_of",
    "unseal",
]
