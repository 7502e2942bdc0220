"""Sealing: content that lies in a database is unreadable without a key that does not.

AES-256-GCM (NIST SP 800-38D) under a random nonce, bound to what the content belongs to, so that none can be put in the
place of another. Fingerprints are HMAC-SHA256 under a key derived from the same one (RFC 5869).
"""

from __future__ import annotations

import hashlib
import hmac
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from bartizan.core.errors import KeyFileError, StoreError

KEY_BYTES = 32
NONCE_BYTES = 12
NAME_BYTES = 4
"""Of the key's name, at the front of what it sealed: it tells a wrong key from altered content."""


class Sealer:
    """Seals and opens with one key."""

    def __init__(self, key: bytes) -> None:
        """Take a key.

        Raises:
            KeyFileError: it is none.
        """
        if len(key) != KEY_BYTES:
            raise KeyFileError(f"a key of {len(key)} bytes; {KEY_BYTES} are needed", remedy="restore the key file.")
        self._cipher = AESGCM(_derived(key, b"seal"))
        self._mark = _derived(key, b"fingerprint")
        self.masking_key = _derived(key, b"masking")
        """Key of the digests that stand in the place of personal data."""
        self.seed = int.from_bytes(_derived(key, b"sample"), "big")
        """What random samples are drawn from; nobody without the key can tell what is drawn."""
        self._name = hashlib.sha256(b"bartizan:review-key" + key).digest()[:NAME_BYTES]

    def seal(self, content: bytes, about: str) -> bytes:
        """Content as it may lie in a database."""
        nonce = os.urandom(NONCE_BYTES)
        return self._name + nonce + self._cipher.encrypt(nonce, content, about.encode())

    def open(self, sealed: bytes, about: str) -> bytes:
        """The content.

        Raises:
            StoreError: it was altered, belongs to something else, or was sealed with another key.
        """
        if sealed[:NAME_BYTES] != self._name:
            raise StoreError(f"{about} was sealed with another key", remedy="use the key file of that gateway.")
        nonce, rest = sealed[NAME_BYTES : NAME_BYTES + NONCE_BYTES], sealed[NAME_BYTES + NONCE_BYTES :]
        try:
            return self._cipher.decrypt(nonce, rest, about.encode())
        except (InvalidTag, ValueError) as error:
            raise StoreError(f"the content of {about} was altered", remedy="restore it from a backup.") from error

    def fingerprint(self, *parts: bytes) -> str:
        """Names content without giving it away; equal content has equal fingerprints as long as the key lives."""
        state = hmac.new(self._mark, digestmod=hashlib.sha256)
        for part in parts:
            state.update(len(part).to_bytes(8, "big") + part)
        return state.hexdigest()


def _derived(key: bytes, use: bytes) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=b"bartizan:review:" + use).derive(key)


__all__ = ["KEY_BYTES", "Sealer"]
