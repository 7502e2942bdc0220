"""Signatures of webhooks, as Standard Webhooks has them (https://www.standardwebhooks.com, 1.0.0, symmetric).

HMAC-SHA256 over ``id.timestamp.body``: the receiver knows who sent a message, that it was not changed, and when, so
that an old one cannot be played again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

from bartizan.core.errors import InputError

PREFIX = "whsec_"
LEAST, MOST = 24, 64
"""Bytes of a secret."""


def secret_of(text: str) -> bytes:
    """The bytes of a written secret.

    Raises:
        InputError: it is none.
    """
    try:
        secret = base64.b64decode(text.strip().removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError("the secret of a webhook is no base64", remedy=_MADE) from error
    if not LEAST <= len(secret) <= MOST:
        raise InputError(f"the secret of a webhook has {len(secret)} bytes, not {LEAST} to {MOST}", remedy=_MADE)
    return secret


_MADE = "make one: echo whsec_$(openssl rand -base64 32)"


def headers(secret: bytes, message: str, at: int, body: bytes) -> dict[str, str]:
    """What is sent beside a body; ``at`` in seconds since the epoch."""
    signed = hmac.new(secret, f"{message}.{at}.".encode() + body, hashlib.sha256).digest()
    return {
        "content-type": "application/json",
        "webhook-id": message,
        "webhook-timestamp": str(at),
        "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
    }


__all__ = ["headers", "secret_of"]
