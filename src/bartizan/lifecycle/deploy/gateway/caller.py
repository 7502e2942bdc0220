"""Who asks: what the gateway knows of a caller once it has recognised one, and what recognises it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

import msgspec

from bartizan.lifecycle.deploy.gateway.failures import RequestError

Method = Literal["anonymous", "key", "jwt", "mtls", "pass"]


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who was recognised, in the role in which they ask."""

    id: str
    """Stable and without personal data: ``key:k7f3a1``, ``jwt:`` or ``mtls:`` with a digest, ``anonymous``."""
    role: str
    """Name of a role of the configuration."""
    method: Method
    groups: tuple[str, ...] = ()
    attributes: dict[str, str] = {}
    """What the credential says besides (organisation, network, purpose ...): for policies and against sybils."""
    factors: tuple[str, ...] = ()
    """How the credential was obtained: ``hardware``, ``otp`` ... (RFC 8176); empty when nobody says."""
    until: float = 0.0
    """Seconds since the epoch until which the credential counts; 0: for this one request only."""
    models: tuple[str, ...] = ()
    """Names or digests of the models that the credential is confined to; empty: those of the role."""
    operations: tuple[str, ...] = ()
    """Operations that the credential is confined to; empty: those of the role."""


ANONYMOUS = Caller(id="anonymous", role="anonymous", method="anonymous")
"""Whoever shows nothing. The role has to be configured, or nothing is answered."""


class Showing(msgspec.Struct, frozen=True):
    """What a request shows of who sent it."""

    headers: Mapping[bytes, bytes]
    """Names in lower case."""
    client: str = ""
    """Address of the other end of the connection."""
    certificate: str = ""
    """Client certificate (PEM), when the connection has one or a trusted proxy hands it on."""


class Recogniser(Protocol):
    """One way of showing who one is. Answers from memory; what blocks is done beforehand and refreshed beside it."""

    name: Method

    def recognise(self, showing: Showing, now: float) -> Caller | None:
        """The caller; None when the request shows nothing of this kind.

        Raises:
            RequestError: 401, something of this kind was shown and does not count.
        """

    @property
    def version(self) -> int:
        """Rises whenever something was revoked, rotated or learnt: what was remembered of callers is void then."""


__all__ = ["ANONYMOUS", "Caller", "Method", "Recogniser", "RequestError", "Showing"]
