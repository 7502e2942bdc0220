"""PKCS#8 with scrypt: private keys whose passphrase is expensive to guess, and never expensive to try.

The library's own PKCS#8 writer derives the key with 2,048 rounds of PBKDF2, which a graphics card
tries by the million a second. PBES2 with scrypt (RFC 8018, RFC 7914 section 7) is as standard, and is
read by OpenSSL and by ``cryptography`` alike. What a file asks of its reader is bounded before it
is granted: a forged file could otherwise ask for days or for all memory.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterator

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.padding import PKCS7

from bartizan.core.errors import KeyFileError

SCRYPT_N, SCRYPT_R, SCRYPT_P = 2**14, 8, 5
"""Cost of one guess: 16 MiB five times over (OWASP Password Storage Cheat Sheet). More memory OpenSSL refuses."""
KEY_BYTES = 32
BLOCK_BYTES = 16
MAX_ROUNDS = 10_000_000
"""Of PBKDF2: more than ten times what is recommended today, and about a second."""
MAX_SCRYPT_BYTES = 256 * 1024 * 1024
MAX_SCRYPT_WORK = 2**23
"""N times r times p: twelve times ours, and some seconds."""
MAX_NESTING = 8

_SEQUENCE, _INTEGER, _OCTETS, _OID = 0x30, 0x02, 0x04, 0x06
_PBES2 = bytes.fromhex("2a864886f70d01050d")  # 1.2.840.113549.1.5.13
_SCRYPT = bytes.fromhex("2b06010401da47040b")  # 1.3.6.1.4.1.11591.4.11
_AES_256_CBC = bytes.fromhex("60864801650304012a")  # 2.16.840.1.101.3.4.1.42
_BEGIN, _END = b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"-----END ENCRYPTED PRIVATE KEY-----"


def encrypt_pkcs8(private_key_info: bytes, passphrase: bytes) -> bytes:
    """An ENCRYPTED PRIVATE KEY in PEM form from a PrivateKeyInfo in DER form."""
    salt, vector = os.urandom(BLOCK_BYTES), os.urandom(BLOCK_BYTES)
    key = Scrypt(salt=salt, length=KEY_BYTES, n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P).derive(passphrase)
    padder = PKCS7(8 * BLOCK_BYTES).padder()
    encryptor = Cipher(algorithms.AES256(key), modes.CBC(vector)).encryptor()
    sealed = encryptor.update(padder.update(private_key_info) + padder.finalize()) + encryptor.finalize()
    cost = (_integer(number) for number in (SCRYPT_N, SCRYPT_R, SCRYPT_P, KEY_BYTES))
    derivation = _der(_SEQUENCE, _der(_OID, _SCRYPT), _der(_SEQUENCE, _der(_OCTETS, salt), *cost))
    encryption = _der(_SEQUENCE, _der(_OID, _AES_256_CBC), _der(_OCTETS, vector))
    algorithm = _der(_SEQUENCE, _der(_OID, _PBES2), _der(_SEQUENCE, derivation, encryption))
    text = base64.b64encode(_der(_SEQUENCE, algorithm, _der(_OCTETS, sealed)))
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return b"\n".join([_BEGIN, *lines, _END, b""])


def check_cost(pem: bytes) -> None:
    """See that trying a passphrase on an ENCRYPTED PRIVATE KEY takes bounded time and memory.

    Raises:
        KeyFileError: it would not, or the file is no such key.
    """
    _, begun, rest = pem.partition(_BEGIN)
    text, ended, _ = rest.partition(_END)
    if not begun or not ended:
        return
    try:
        [(_, info)] = _elements(base64.b64decode(text))
        algorithm = next(body for _, body in _elements(info))
        numbers = list(_integers(algorithm))
    except (binascii.Error, ValueError, StopIteration) as error:
        raise KeyFileError("the key file is damaged", remedy="restore the file.") from error
    if _SCRYPT in algorithm:
        n, r, p = (*numbers, 0, 0, 0)[:3]
        bounded = 128 * n * r <= MAX_SCRYPT_BYTES and n * r * p <= MAX_SCRYPT_WORK
    else:
        bounded = all(number <= MAX_ROUNDS for number in numbers)
    if not bounded:
        raise KeyFileError(
            "the key file asks for too much work or memory to be opened",
            remedy="encrypt the key again with `openssl pkcs8 -topk8 -scrypt`.",
        )


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tags and contents of DER elements that follow one another.

    Raises:
        ValueError: one ends beyond the data, or has an unusual length.
    """
    while data:
        if len(data) < 2:  # noqa: PLR2004 - a tag and a length
            raise ValueError("an element is cut off")
        tag, size, start = data[0], data[1], 2
        if size & 0x80:
            start += size & 0x7F
            size = int.from_bytes(data[2:start], "big")
        if len(data) < start + size:
            raise ValueError("an element is cut off")
        yield tag, data[start : start + size]
        data = data[start + size :]


def _integers(data: bytes, depth: int = 0) -> Iterator[int]:
    """Every INTEGER in nested SEQUENCEs, in order."""
    if depth > MAX_NESTING:
        raise ValueError("elements are nested too deeply")
    for tag, body in _elements(data):
        if tag == _SEQUENCE:
            yield from _integers(body, depth + 1)
        elif tag == _INTEGER:
            yield int.from_bytes(body, "big")


def _der(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    if len(body) < 0x80:  # noqa: PLR2004 - DER's short form
        return bytes([tag, len(body)]) + body
    length = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + body


def _integer(number: int) -> bytes:
    return _der(_INTEGER, number.to_bytes(number.bit_length() // 8 + 1, "big"))
