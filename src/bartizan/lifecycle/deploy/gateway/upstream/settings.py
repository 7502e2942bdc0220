"""Settings of one upstream: ``[[upstream]]`` in ``gateway.toml``."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal
from urllib.parse import SplitResult, urlsplit

import msgspec

from bartizan.core.errors import InputError

Speaks = Literal["oip", "mlflow", "chat"]
Allowance = Literal["tools", "logprobs", "logit_bias", "several", "images"]
"""What a chat client may ask for beyond text; each widens what can be learnt of the model or done with it."""
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._:/-]{0,127}$")]
Optional = Annotated[str, msgspec.Meta(max_length=255, pattern=r"^[ -~]*$")]
Path = Annotated[str, msgspec.Meta(max_length=4096)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]
MAX_URL = 2048
PRINTABLE = re.compile(r"[!-~]+")


class UpstreamSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a model is asked, as whom, and how long and how much of an answer is waited for."""

    name: Name
    """By which ``[model.NAME]`` refers to it."""
    speaks: Speaks
    url: Annotated[str, msgspec.Meta(min_length=8, max_length=MAX_URL)]
    """Origin and base path: ``https://models.example:8443``. Nothing else is ever asked, redirects are not followed."""
    model: Optional = ""
    """What the model is called there (``oip``, ``chat``)."""
    version: Optional = ""
    """Version of the model there (``oip``); empty asks for the server's own choice."""
    input: Optional = ""
    """Name of the input tensor (``oip``; empty: as the model's metadata says)."""
    datatype: Literal["", "FP32", "FP64"] = ""
    """Datatype of the input tensor; empty: as the metadata says."""
    tensors: Literal["json", "binary"] = "json"
    """How rows are sent. ``binary`` needs the binary tensor extension there and costs a fraction."""
    labels: Optional = ""
    """Name of the output with labels; empty looks at the usual names."""
    scores: Optional = ""
    """Name of the output with scores; empty looks at the usual names."""
    logits: bool = False
    """The scores are logits: softmax is taken here."""
    key_file: Path = ""
    """File with the credential that is shown to the upstream. Read again when it changes."""
    key_header: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,63}$")] = "authorization"
    key_scheme: Annotated[str, msgspec.Meta(max_length=32, pattern=r"^[A-Za-z0-9-]*$")] = "Bearer"
    """Word before the credential; may be empty."""
    authority_file: Path = ""
    """Certificates (PEM) that the upstream's own has to lead to, in place of those of the system."""
    certificate_file: Path = ""
    """Client certificate (PEM) that is shown to the upstream, with its key in ``certificate_key_file``."""
    certificate_key_file: Path = ""
    unencrypted: bool = False
    """Allow plain http to another machine. Whoever is on the way reads and changes everything."""
    connect_seconds: Seconds = 2.0
    """To have a connection, the wait for a free one included."""
    first_byte_seconds: Seconds = 10.0
    """From asking to the beginning of the answer."""
    idle_seconds: Seconds = 10.0
    """Longest pause within an answer."""
    total_seconds: Seconds = 30.0
    """Everything together; for a chat, until its last word."""
    connections: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 32
    waiting: Annotated[int, msgspec.Meta(ge=0, le=4096)] = 64
    """Requests that may wait for a connection; more are refused at once."""
    answer_bytes: Annotated[int, msgspec.Meta(ge=1024, le=256 << 20)] = 16 << 20
    event_bytes: Annotated[int, msgspec.Meta(ge=1024, le=4 << 20)] = 256 << 10
    """Of one event of a streamed chat."""
    retries: Annotated[int, msgspec.Meta(ge=0, le=3)] = 1
    """Times a question is asked again that met no answer. A chat is repeated only while nothing of it was sent."""
    failures: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 5
    """So many failures in a row and the upstream is left alone."""
    rest_seconds: Seconds = 10.0
    """How long it is left alone at first; doubles up to eight times that while probes fail."""
    allow: tuple[Allowance, ...] = ()
    """What chat clients may use besides text in and text out."""
    answer_tokens: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)] = 1024
    """Most tokens of one chat answer; asked for of the upstream, and cut off here."""
    prompt_tokens: Annotated[int, msgspec.Meta(ge=1, le=1 << 22)] = 16_384
    """Most tokens of one prompt, by the estimate of ``chat.estimated``."""
    limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """How the upstream calls the bound on its answer."""


def address(settings: UpstreamSettings) -> SplitResult:
    """The parts of the declared address.

    Raises:
        InputError: it is none, holds a secret, or is plain http to another machine.
    """
    parts = _split(settings)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise _wrong(settings, "is no address of a server", "give https://HOST:PORT/PATH.")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise _wrong(settings, "holds more than an origin and a path", "put the credential into key_file.")
    if parts.scheme == "http" and not settings.unencrypted and not loopback(parts.hostname):
        raise _wrong(settings, "is plain http to another machine", "use https, or say `unencrypted = true`.")
    return parts


def _split(settings: UpstreamSettings) -> SplitResult:
    try:
        parts = urlsplit(settings.url)
        _ = parts.port
    except ValueError as error:
        raise _wrong(settings, "is no address of a server", "give https://HOST:PORT/PATH.") from error
    if not PRINTABLE.fullmatch(settings.url):
        raise _wrong(settings, "holds letters that no address may", "write them as %20 and the like.")
    return parts


def loopback(host: str) -> bool:
    """Whether a host is this machine by its very name."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _wrong(settings: UpstreamSettings, what: str, remedy: str) -> InputError:
    return InputError(f"the url of upstream {settings.name!r} {what}", remedy=remedy)


__all__ = ["Allowance", "UpstreamSettings", "address", "loopback"]
