"""The file with the key that cases for review are sealed with; it never lies where the cases do.

Under a passphrase the key is wrapped: AES-256-GCM under a key that scrypt makes of it (RFC 7914; 32 MiB).
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from bartizan.core.errors import KeyFileError

KEY_BYTES = 32
SALT_BYTES, NONCE_BYTES = 16, 12
COST, BLOCK = 1 << 15, 8
MOST_BYTES = 4096
KIND = "bartizan review key"


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kind: str
    key: str
    """Base64: the key, or salt, nonce and wrapped key."""
    wrapped: bool = False


def review_key(path: Path, passphrase: str | None) -> bytes:
    """The key in a file; made, for its owner's eyes only, when there is none yet.

    Raises:
        KeyFileError: it cannot be read or made, or the passphrase is another one.
    """
    try:
        if not path.exists():
            _make(path, passphrase)
        return _opened(path, path.read_bytes()[: MOST_BYTES + 1], passphrase)
    except OSError as error:
        raise KeyFileError(f"the review key {path} cannot be had: {error}", remedy="give access to it.") from error


def _make(path: Path, passphrase: str | None) -> None:
    """Write a new key beside its place and link it there: whoever comes second keeps to the first one's."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    data = msgspec.json.encode(_wrapped(secrets.token_bytes(KEY_BYTES), passphrase))
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(data + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(beside, path)
        except FileExistsError:
            return
    finally:
        beside.unlink(missing_ok=True)


def _wrapped(key: bytes, passphrase: str | None) -> _File:
    if not passphrase:
        return _File(KIND, base64.b64encode(key).decode())
    salt, nonce = secrets.token_bytes(SALT_BYTES), secrets.token_bytes(NONCE_BYTES)
    sealed = AESGCM(_stretched(passphrase, salt)).encrypt(nonce, key, KIND.encode())
    return _File(KIND, base64.b64encode(salt + nonce + sealed).decode(), wrapped=True)


def _opened(path: Path, data: bytes, passphrase: str | None) -> bytes:
    try:
        file = msgspec.json.decode(data, type=_File)
        raw = base64.b64decode(file.key, validate=True)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, binascii.Error, ValueError) as error:
        raise KeyFileError(f"{path} is no review key: {error}", remedy="restore it from a backup.") from error
    if file.kind != KIND:
        raise KeyFileError(f"{path} is something else than a review key", remedy="restore it from a backup.")
    if not file.wrapped:
        return raw
    if not passphrase:
        remedy = "set BARTIZAN_PASSPHRASE or BARTIZAN_PASSPHRASE_FILE."
        raise KeyFileError(f"{path} is protected by a passphrase", remedy=remedy)
    salt, nonce, sealed = raw[:SALT_BYTES], raw[SALT_BYTES : SALT_BYTES + NONCE_BYTES], raw[SALT_BYTES + NONCE_BYTES :]
    try:
        return AESGCM(_stretched(passphrase, salt)).decrypt(nonce, sealed, KIND.encode())
    except (InvalidTag, ValueError) as error:
        raise KeyFileError(f"{path} cannot be opened", remedy="check the passphrase.") from error


def _stretched(passphrase: str, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=KEY_BYTES, n=COST, r=BLOCK, p=1).derive(passphrase.encode())


__all__ = ["KEY_BYTES", "review_key"]
