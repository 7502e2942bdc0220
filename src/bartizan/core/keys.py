"""Keys: ECDSA P-256 (default) and Ed25519, and the one place that verifies a signature.

P-256 is the default because OpenSSF Model Signing, Sigstore, HSMs and cloud key services all take
it. A key is named by the SHA-256 of its SubjectPublicKeyInfo in DER form.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from bartizan.core.errors import KeyFileError

PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
Algorithm = Literal["ecdsa-p256", "ed25519"]

_ECDSA = ec.ECDSA(hashes.SHA256())
_ALLOWED = "use an ECDSA P-256 or Ed25519 key, such as `bartizan keys new` makes."


def generate(algorithm: Algorithm = "ecdsa-p256") -> PrivateKey:
    """A new private key from the operating system's randomness."""
    if algorithm == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP256R1())


def public_der(key: PublicKey) -> bytes:
    """SubjectPublicKeyInfo, DER."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def public_pem(key: PublicKey) -> str:
    """SubjectPublicKeyInfo, PEM."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def keyid_of(key: PublicKey) -> str:
    """SHA-256 of the key's DER form, hexadecimal."""
    return hashlib.sha256(public_der(key)).hexdigest()


@lru_cache(maxsize=256)
def load_public(pem: str) -> PublicKey:
    """Read a public key.

    Raises:
        KeyFileError: it is no public key, or not of an accepted kind.
    """
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm, UnicodeEncodeError) as error:
        raise KeyFileError(f"not a public key in PEM form: {error}", remedy=_ALLOWED) from error
    if isinstance(key, ed25519.Ed25519PublicKey) or (
        isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
    ):
        return key
    raise KeyFileError(f"a public key of kind {type(key).__name__} is not accepted", remedy=_ALLOWED)


def verify(key: PublicKey, signature: bytes, data: bytes) -> bool:
    """Whether ``signature`` over ``data`` was made with the private half of ``key``."""
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, data)
        else:
            key.verify(signature, data, _ECDSA)
    except InvalidSignature:
        return False
    return True


class PrivateKeySigner:
    """A signer that holds its private key in memory. See ``ports.Signer``."""

    def __init__(self, key: PrivateKey) -> None:
        self._key = key
        self.keyid = keyid_of(key.public_key())
        self.public_pem = public_pem(key.public_key())

    def sign(self, data: bytes) -> bytes:
        """See ``ports.Signer``."""
        if isinstance(self._key, ed25519.Ed25519PrivateKey):
            return self._key.sign(data)
        return self._key.sign(data, _ECDSA)
