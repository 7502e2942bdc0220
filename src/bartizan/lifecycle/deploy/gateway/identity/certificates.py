"""Client certificates as a way of showing who one is (mutual TLS).

The chain to an authority is verified by whoever ends TLS: the server itself, or a proxy whose address is configured.
Here a certificate is looked up by the digest of its public key or by a name in it, and has to count now.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from bartizan.lifecycle.deploy.gateway.caller import Caller, Method, Showing
from bartizan.lifecycle.deploy.gateway.identity.memory import Remembered
from bartizan.lifecycle.deploy.gateway.identity.refusal import unrecognised
from bartizan.lifecycle.deploy.gateway.identity.settings import CertificateSettings, ClientSettings, networks

MOST_BYTES = 16_384
MOST_NAMES = 256
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What counts of a certificate."""

    spki: str
    """SHA-256 of the public key (SubjectPublicKeyInfo, DER), hexadecimal."""
    names: tuple[str, ...]
    """``dns:``, ``uri:`` and ``email:`` names, as they stand in it."""
    begins: float
    ends: float


def read(pem: str) -> Shown:
    """Read a certificate.

    Raises:
        ValueError: it is none, or not one for clients.
    """
    if len(pem) > MOST_BYTES:
        raise ValueError("the certificate is too large")
    try:
        found = _loaded(_der(pem))
        key = found.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        names = _names(found)
    except (UnsupportedAlgorithm, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, TypeError) as error:
        raise ValueError(f"the certificate cannot be read: {type(error).__name__}") from error
    return Shown(
        spki=hashlib.sha256(key).hexdigest(),
        names=names,
        begins=found.not_valid_before_utc.timestamp(),
        ends=found.not_valid_after_utc.timestamp(),
    )


def _loaded(der: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(der)
    except ValueError as error:
        raise ValueError("this is no certificate") from error


def _names(found: x509.Certificate) -> tuple[str, ...]:
    try:
        use = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        if not {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(use):
            raise ValueError("the certificate is not one for clients")
    except x509.ExtensionNotFound:
        pass
    try:
        listed = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    names = [
        *(f"dns:{name}" for name in listed.get_values_for_type(x509.DNSName)),
        *(f"uri:{name}" for name in listed.get_values_for_type(x509.UniformResourceIdentifier)),
        *(f"email:{name}" for name in listed.get_values_for_type(x509.RFC822Name)),
    ]
    return tuple(names[:MOST_NAMES])


def _der(pem: str) -> bytes:
    """The bytes of the first certificate of a PEM text."""
    begin, end = pem.find(_BEGIN), pem.find(_END)
    if begin < 0 or end < begin:
        raise ValueError("this is no certificate in PEM form")
    try:
        return base64.b64decode("".join(pem[begin + len(_BEGIN) : end].split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("this is no certificate in PEM form") from error


def thumbprint(pem: str) -> str:
    """SHA-256 of a certificate, base64url: ``x5t#S256`` of RFC 8705. Empty when it is none."""
    try:
        return base64.urlsafe_b64encode(hashlib.sha256(_der(pem)).digest()).decode().rstrip("=")
    except ValueError:
        return ""


class Proxies:
    """Takes over certificates that trusted proxies hand on in a header."""

    def __init__(self, settings: CertificateSettings) -> None:
        self._header, self._form = settings.header.encode(), settings.form
        self._networks = networks(settings.proxies)
        self._trusted: Remembered[str, bool] = Remembered(1024)

    def certificate(self, headers: Mapping[bytes, bytes], client: str, own: str = "") -> str:
        """The client certificate of a request in PEM; ``own`` is that of the connection itself.

        Raises:
            RequestError: 401, somebody else than a trusted proxy claims to hand one on.
        """
        value = headers.get(self._header)
        if value is None:
            # Of a proxy it is the proxy that shows one, not whoever asks through it.
            return "" if own and self._trusts(client) else own
        if not self._trusts(client):
            raise unrecognised("somebody who is no trusted proxy hands a certificate on")
        try:
            return _of_rfc9440(value) if self._form == "rfc9440" else _of_url_pem(value)
        except ValueError as error:
            raise unrecognised(f"the proxy hands on what is no certificate: {error}") from error

    def _trusts(self, client: str) -> bool:
        known = self._trusted.get(client)
        if known is None:
            known = _listed(client, self._networks)
            self._trusted.put(client, known)
        return known


def _listed(client: str, trusted: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]) -> bool:
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return any(mapped in network for network in trusted)


def _of_rfc9440(value: bytes) -> str:
    """``:BASE64:``, a byte sequence of RFC 9651."""
    if len(value) > MOST_BYTES or len(value) < 3 or value[:1] != b":" or value[-1:] != b":":  # noqa: PLR2004 - two colons
        raise ValueError("not a byte sequence")
    der = base64.b64decode(value[1:-1], validate=True)
    return f"{_BEGIN}\n{base64.b64encode(der).decode()}\n{_END}\n"


def _of_url_pem(value: bytes) -> str:
    if len(value) > 3 * MOST_BYTES:
        raise ValueError("too large")
    return unquote_to_bytes(value).decode("ascii")


class Certificates:
    """Recognises callers by certificates. See ``caller.Recogniser``."""

    name: Method = "mtls"
    version = 0
    """Nothing is revoked here: another configuration is another recogniser."""

    def __init__(self, settings: CertificateSettings, remembered: int = 8192) -> None:
        self._clients = {client.spki or client.san: client for client in settings.client}
        self._known: Remembered[str, tuple[Caller, float]] = Remembered(min(remembered, 8192))

    def recognise(self, showing: Showing, now: float) -> Caller | None:
        """See ``Recogniser.recognise``."""
        if not showing.certificate:
            return None
        known = self._known.get(showing.certificate)
        if known is None:
            known = self._found(showing.certificate)
            self._known.put(showing.certificate, known)
        caller, begins = known
        if not begins <= now < caller.until:
            raise unrecognised("the certificate does not count at this time")
        return caller

    def _found(self, pem: str) -> tuple[Caller, float]:
        try:
            shown = read(pem)
        except ValueError as error:
            raise unrecognised(str(error)) from error
        fitting = [self._clients[name] for name in (shown.spki, *shown.names) if name in self._clients]
        if not fitting:
            raise unrecognised("nobody who is configured has this certificate")
        return _caller(fitting[0], shown), shown.begins


def _caller(client: ClientSettings, shown: Shown) -> Caller:
    """By the key alone would be somebody else after every renewal; by the name it is the same client."""
    name = client.spki or client.san
    return Caller(
        id=f"mtls:{hashlib.sha256(name.encode()).hexdigest()[:32]}",
        role=client.role,
        method="mtls",
        groups=client.groups,
        attributes=client.attributes,
        factors=("hwk",) if client.hardware else (),
        until=shown.ends,
    )


__all__ = ["Certificates", "Proxies", "Shown", "read", "thumbprint"]
