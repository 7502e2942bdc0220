"""Signing requests, for whoever asks a gateway that wants them signed. See ``signed_input``."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from bartizan.core.keys import PrivateKey

LABEL = "bartizan"


def signed_headers(
    key: PrivateKey | bytes,
    keyid: str,
    *,
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    created: int,
    tag: str = "",
) -> dict[str, str]:
    """Fields that are sent besides ``headers``, with a new nonce. ``key`` is a private key, or a shared secret.

    The body is named by its SHA-256, unless ``headers`` has a ``content-digest`` of another kind.

    Example:
        >>> headers = {"content-type": "application/json"}
        >>> more = signed_headers(
        ...     b"k" * 32, "north", method="POST", url="https://model.example/predict", headers=headers, body=b"{}",
        ...     created=1763740800,
        ... )
        >>> sorted(more)
        ['content-digest', 'signature', 'signature-input']
    """
    parts = urlsplit(url)
    usual = f":{443 if parts.scheme == 'https' else 80}"
    digest = f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"
    values = {"@method": method, "@authority": parts.netloc.lower().removesuffix(usual), "@path": parts.path or "/"}
    values |= {"@query": f"?{parts.query}"} if parts.query else {}
    values |= {"content-digest": digest} | {name.lower(): value.strip() for name, value in headers.items()}
    algorithm, sign = _signing(key)
    listed = " ".join(f'"{name}"' for name in values)
    said = f'({listed});created={created};nonce="{secrets.token_urlsafe(18)}";keyid="{keyid}";alg="{algorithm}"'
    said += f';tag="{tag}"' if tag else ""
    base = "\n".join((*(f'"{name}": {value}' for name, value in values.items()), f'"@signature-params": {said}'))
    signature = base64.b64encode(sign(base.encode("ascii"))).decode()
    made = {"signature-input": f"{LABEL}={said}", "signature": f"{LABEL}=:{signature}:"}
    return {"content-digest": values["content-digest"], **made}


def _signing(key: PrivateKey | bytes) -> tuple[str, Callable[[bytes], bytes]]:
    if isinstance(key, bytes):
        return "hmac-sha256", lambda base: hmac.digest(key, base, "sha256")
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519", key.sign

    def sign(base: bytes) -> bytes:
        numbers = decode_dss_signature(key.sign(base, ec.ECDSA(hashes.SHA256())))
        return b"".join(number.to_bytes(32) for number in numbers)

    return "ecdsa-p256-sha256", sign


__all__ = ["LABEL", "signed_headers"]
