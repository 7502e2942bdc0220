"""Settings of telemetry: ``[telemetry]`` in ``gateway.toml``. Without them there are numbers on the admin side only."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from bartizan.core.errors import InputError

Kind = Literal["refused", "throttled", "held", "coarsened", "flagged", "failed", "admin", "state"]
"""What an event is about: a decision, a guard's word on a request that was answered, an act of administration, or
something that happened to the gateway itself."""
Url = Annotated[str, msgspec.Meta(max_length=2048, pattern=r"^(https?://[!-~]+)?$")]
Path = Annotated[str, msgspec.Meta(max_length=4096)]


class WebhookSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Somebody who is told at once."""

    url: Annotated[str, msgspec.Meta(min_length=8, max_length=2048)]
    """https; http to this machine only. Redirects are not followed."""
    secret_file: Path
    """File with the secret that signs messages: ``whsec_`` and base64 of 24 to 64 bytes (Standard Webhooks)."""
    kinds: tuple[Kind, ...] = ("held", "failed", "admin", "state")
    each_second: Annotated[float, msgspec.Meta(gt=0, le=100)] = 1.0
    """Messages a second on average; more are counted, and the next one says how many."""
    waiting: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 256
    """Messages that may wait while the receiver is away."""
    attempts: Annotated[int, msgspec.Meta(ge=1, le=12)] = 6
    seconds: Annotated[float, msgspec.Meta(gt=0, le=60)] = 5.0
    """For one attempt."""


class TelemetrySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is told to whom. What is not declared here is sent nowhere."""

    events: Path = ""
    """File that events are appended to, a line of JSON each; ``-``: standard error."""
    events_each_second: Annotated[float, msgspec.Meta(gt=0, le=10_000)] = 50.0
    """Events a second of each kind, on average; more are counted, and the next one says how many."""
    collector: Url = ""
    """Address of an OpenTelemetry collector (OTLP over HTTP), such as ``https://collector:4318``."""
    collector_key_file: Path = ""
    """File with what is sent to it as ``authorization``."""
    traced: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.01
    """Share of the answered requests that become a span; all that were not answered do."""
    metrics_seconds: Annotated[float, msgspec.Meta(ge=1, le=3600)] = 30.0
    """How often numbers are sent to the collector."""
    webhook: tuple[WebhookSettings, ...] = ()


def declared(url: str, what: str) -> str:
    """An address that may be told things.

    Raises:
        InputError: it is none, holds a secret, or is plain http to another machine.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise InputError(f"the address of {what} is none", remedy="give https://HOST:PORT/PATH.") from error
    plain = parts.scheme == "http" and parts.hostname in {"127.0.0.1", "::1", "localhost"}
    if not parts.hostname or not (parts.scheme == "https" or plain):
        raise InputError(f"the address of {what} is not https", remedy="give https://HOST:PORT/PATH.")
    if parts.username or parts.password or parts.fragment:
        raise InputError(f"the address of {what} holds a secret", remedy="put it into a file.")
    return url


__all__ = ["Kind", "TelemetrySettings", "WebhookSettings", "declared"]
