"""Key files: made privately, read strictly."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from bartizan.core import keys
from bartizan.core.errors import KeyFileError
from bartizan.core.keys import PrivateKey, PrivateKeySigner
from bartizan.stores.keys.pkcs8 import check_cost, encrypt_pkcs8

MAX_KEY_BYTES = 64 * 1024


def save_key(key: PrivateKey, path: Path, *, passphrase: str | None, unencrypted: bool = False) -> None:
    """Write a private key as PKCS#8 PEM, mode 0600; never over an existing file.

    Raises:
        KeyFileError: no passphrase and not asked to do without, the file exists, or cannot be written.
    """
    if bool(passphrase) is unencrypted:
        raise KeyFileError(
            "an unencrypted key takes no passphrase" if passphrase else "a passphrase is needed",
            remedy="give a passphrase, or ask for an unencrypted key.",
        )
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    if passphrase:
        pem = encrypt_pkcs8(key.private_bytes(serialization.Encoding.DER, *plain), _bytes(passphrase))
    else:
        pem = key.private_bytes(serialization.Encoding.PEM, *plain)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write_new(path, pem)
    except FileExistsError as error:
        raise KeyFileError(f"{path} exists and is not overwritten", remedy="choose another name.") from error
    except (OSError, ValueError) as error:
        raise KeyFileError(f"{path} cannot be written: {error}", remedy="give a folder to write to.") from error


def _write_new(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def load_signer(path: Path, passphrase: Callable[[], str | None]) -> PrivateKeySigner:
    """A signer from a private key file; ``passphrase`` is asked only when the file needs one.

    Raises:
        KeyFileError: the file cannot be read or decrypted, is open to others, or holds another kind of key.
    """
    pem = _read(path, private=True)
    if b"PRIVATE KEY-----" not in pem:
        what = "a public key" if b"PUBLIC KEY-----" in pem else "no private key in PEM form"
        raise KeyFileError(f"{path} is {what}", remedy="give the private key file.")
    secret = passphrase() if b"ENCRYPTED" in pem else None
    if b"ENCRYPTED" in pem and not secret:
        raise KeyFileError(
            f"{path} is protected by a passphrase", remedy="set BARTIZAN_PASSPHRASE or BARTIZAN_PASSPHRASE_FILE."
        )
    check_cost(pem)
    try:
        # RSA keys are refused below; checking the numbers of a forged one would take its reader's time.
        key = serialization.load_pem_private_key(
            pem, _bytes(secret) if secret else None, unsafe_skip_rsa_key_validation=True
        )
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyFileError(
            f"{path} cannot be opened: {_reason(error)}", remedy="check the passphrase, or restore the file."
        ) from error
    if isinstance(key, ed25519.Ed25519PrivateKey) or (
        isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1)
    ):
        return PrivateKeySigner(key)
    raise KeyFileError(
        f"{path} holds a key of kind {type(key).__name__}",
        remedy="use an ECDSA P-256 or Ed25519 key: `bartizan keys new`.",
    )


def read_public(path: Path) -> str:
    """A public key file as PEM text.

    Raises:
        KeyFileError: it cannot be read, or holds no accepted public key.
    """
    pem = _read(path, private=False)
    if b"PRIVATE KEY-----" in pem:
        raise KeyFileError(f"{path} is a private key", remedy="give the public key; never hand out this file.")
    try:
        return keys.public_pem(keys.load_public(pem.decode("ascii")))
    except (UnicodeDecodeError, KeyFileError) as error:
        raise KeyFileError(f"{path} holds no accepted public key: {error}", remedy="give a PEM public key.") from error


def _read(path: Path, *, private: bool) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise KeyFileError(f"{path} is no file", remedy="give the path of a key file.")
            if private and mode & 0o077:
                raise KeyFileError(f"{path} can be read by others", remedy=f"run `chmod 600 {path}`.")
            data = stream.read(MAX_KEY_BYTES + 1)
    except FileNotFoundError as error:
        raise KeyFileError(f"there is no key {path}", remedy="make one with `bartizan keys new NAME`.") from error
    except (OSError, ValueError) as error:
        raise KeyFileError(f"{path} cannot be read: {error}", remedy="give a readable key file.") from error
    if not data.strip():
        raise KeyFileError(f"{path} is empty", remedy="restore the key, or make a new one.")
    if len(data) > MAX_KEY_BYTES:
        raise KeyFileError(f"{path} is larger than {MAX_KEY_BYTES} bytes", remedy="give a key file.")
    return data


def _bytes(passphrase: str) -> bytes:
    """As typed, also when the environment held bytes that are no UTF-8."""
    return passphrase.encode(errors="surrogateescape")


def _reason(error: Exception) -> str:
    text = str(error)
    return "the passphrase is wrong" if "Incorrect password" in text or "bad decrypt" in text.lower() else text[:200]
