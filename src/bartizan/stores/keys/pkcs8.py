"""PKCS#8 with scrypt: private keys whose passphrase is expensive to guess.

The library's own PKCS#8 writer derives the key with 2,048 rounds of PBKDF2, which a graphics card
tries by the million a second. PBES2 with scrypt (RFC 8018, RFC 7914 section 7) is as standard, and is
read by OpenSSL and by ``cryptography`` alike.
"""

from __future__ import annotations

import base64
import os

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.padding import PKCS7

SCRYPT_N, SCRYPT_R, SCRYPT_P = 2**14, 8, 5
"""Cost of one guess: 16 MiB five times over (OWASP Password Storage Cheat Sheet). More memory OpenSSL refuses."""
KEY_BYTES = 32
BLOCK_BYTES = 16

_SEQUENCE, _INTEGER, _OCTETS, _OID = 0x30, 0x02, 0x04, 0x06
_PBES2 = bytes.fromhex("2a864886f70d01050d")  # 1.2.840.113549.1.5.13
_SCRYPT = bytes.fromhex("2b06010401da47040b")  # 1.3.6.1.4.1.11591.4.11
_AES_256_CBC = bytes.fromhex("60864801650304012a")  # 2.16.840.1.101.3.4.1.42


def encrypt_pkcs8(private_key_info: bytes, passphrase: str) -> bytes:
    """An ENCRYPTED PRIVATE KEY in PEM form from a PrivateKeyInfo in DER form."""
    salt, vector = os.urandom(BLOCK_BYTES), os.urandom(BLOCK_BYTES)
    key = Scrypt(salt=salt, length=KEY_BYTES, n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P).derive(passphrase.encode())
    padder = PKCS7(8 * BLOCK_BYTES).padder()
    encryptor = Cipher(algorithms.AES256(key), modes.CBC(vector)).encryptor()
    sealed = encryptor.update(padder.update(private_key_info) + padder.finalize()) + encryptor.finalize()
    cost = (_integer(number) for number in (SCRYPT_N, SCRYPT_R, SCRYPT_P, KEY_BYTES))
    derivation = _der(_SEQUENCE, _der(_OID, _SCRYPT), _der(_SEQUENCE, _der(_OCTETS, salt), *cost))
    encryption = _der(_SEQUENCE, _der(_OID, _AES_256_CBC), _der(_OCTETS, vector))
    algorithm = _der(_SEQUENCE, _der(_OID, _PBES2), _der(_SEQUENCE, derivation, encryption))
    text = base64.encodebytes(_der(_SEQUENCE, algorithm, _der(_OCTETS, sealed))).decode()
    lines = text.replace("\n", "")
    wrapped = "\n".join(lines[start : start + 64] for start in range(0, len(lines), 64))
    return f"-----BEGIN ENCRYPTED PRIVATE KEY-----\n{wrapped}\n-----END ENCRYPTED PRIVATE KEY-----\n".encode()


def _der(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    if len(body) < 0x80:  # noqa: PLR2004 - DER's short form
        return bytes([tag, len(body)]) + body
    length = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + body


def _integer(number: int) -> bytes:
    return _der(_INTEGER, number.to_bytes(number.bit_length() // 8 + 1, "big"))
