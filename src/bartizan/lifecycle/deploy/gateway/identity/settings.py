"""``[identity]`` of the gateway's configuration: who is let in, and how they show who they are.

Nothing is let in by default: without issuers, certificates or API keys nobody is recognised, and whoever shows
nothing is only answered when a role ``anonymous`` is configured.
"""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from bartizan.core.digest import HEX
from bartizan.core.errors import InputError

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Signatures by public keys only (RFC 7518, RFC 8037): a secret that both sides know (HS256) shows nothing."""
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
LOOPBACK = ("127.0.0.1", "::1", "localhost")
STRONG = ("mfa", "hwk", "otp", "sc")
"""Ways of authentication (RFC 8176) that count as a second factor; text messages and calls do not."""


class RoleClaim(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who gets a role: whose token has ``value`` in ``claim``."""

    claim: Text
    """Name of a claim; dots lead into objects, such as ``realm_access.roles``."""
    value: Text
    """The claim is this text, or a list that has it in it."""
    role: Name


class IssuerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[identity.issuer]]``: one OpenID provider, or whoever else signs JSON Web Tokens."""

    issuer: Text
    """As the tokens have it in ``iss``; ``ISSUER/.well-known/openid-configuration`` is read."""
    audiences: Annotated[tuple[Text, ...], msgspec.Meta(min_length=1, max_length=16)]
    """A token has to be made out to one of these."""
    algorithms: Annotated[tuple[Algorithm, ...], msgspec.Meta(min_length=1, max_length=10)] = ("RS256",)
    types: Annotated[tuple[Text, ...], msgspec.Meta(max_length=8)] = ("JWT", "at+jwt")
    """What ``typ`` of the header may be; a token without one counts as ``JWT`` (RFC 8725, section 3.11)."""
    skew: Annotated[int, msgspec.Meta(ge=0, le=60)] = 30
    """Seconds by which two clocks may differ."""
    longest: Annotated[int, msgspec.Meta(ge=60, le=7 * 86_400)] = 43_200
    """Seconds that a token may count in all."""
    refresh: Annotated[int, msgspec.Meta(ge=5, le=86_400)] = 300
    """Seconds between two looks at the issuer's keys."""
    patience: Annotated[int, msgspec.Meta(ge=60, le=7 * 86_400)] = 14_400
    """Seconds for which the keys count that were seen last, while the issuer does not answer."""
    key_hosts: Annotated[tuple[Text, ...], msgspec.Meta(max_length=4)] = ()
    """Other hosts at which the issuer may keep its keys."""
    subject: Text = "sub"
    role: Annotated[tuple[RoleClaim, ...], msgspec.Meta(max_length=256)] = ()
    """The first that fits counts; whom none fits is not let in."""
    groups: Annotated[str, msgspec.Meta(max_length=256)] = ""
    """Claim that lists groups."""
    attributes: Annotated[dict[Name, Text], msgspec.Meta(max_length=32)] = {}
    """Name of an attribute to the claim that it is taken from."""
    factors: Annotated[tuple[Text, ...], msgspec.Meta(max_length=16)] = STRONG
    """Values of the claim ``amr`` that are believed of this issuer."""
    contexts: Annotated[dict[Text, Text], msgspec.Meta(max_length=16)] = {}
    """Value of the claim ``acr`` to the factor that it stands for, such as ``mfa``."""


class ClientSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[identity.certificates.client]]``: one client that shows a certificate."""

    role: Name
    spki: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?\Z")] = ""
    """SHA-256 of its public key (SubjectPublicKeyInfo, DER), hexadecimal."""
    san: Annotated[str, msgspec.Meta(pattern=r"^((dns|uri|email):[!-~]{1,250})?\Z")] = ""
    """Or a name in the certificate, exactly as it stands there: ``dns:``, ``uri:`` or ``email:`` before it."""
    groups: Annotated[tuple[Text, ...], msgspec.Meta(max_length=32)] = ()
    attributes: Annotated[dict[Name, Text], msgspec.Meta(max_length=32)] = {}
    hardware: bool = False
    """The key lies in a card or module that does not give it out: it counts as a second factor."""


class CertificateSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[identity.certificates]``: clients that show a certificate (mutual TLS)."""

    client: Annotated[tuple[ClientSettings, ...], msgspec.Meta(max_length=4096)] = ()
    proxies: Annotated[tuple[Text, ...], msgspec.Meta(max_length=64)] = ()
    """Addresses or networks of the proxies that end TLS and hand certificates on; from others nothing is believed."""
    header: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{1,64}\Z")] = "client-cert"
    form: Literal["rfc9440", "url-pem"] = "rfc9440"
    """``:BASE64:`` (RFC 9440), or PEM with percent signs, as nginx has it in ``$ssl_client_escaped_cert``."""


class PassSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[identity.passes]``: whom the trust document names may ask in those of their roles that are configured."""

    hardware: Annotated[tuple[str, ...], msgspec.Meta(max_length=256)] = ()
    """Key ids that lie in a card or module which does not give them out: what they sign counts as a second factor."""


class KeySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[identity.keys]``: API keys."""

    poll: Annotated[float, msgspec.Meta(ge=0.1, le=60)] = 5.0
    """Seconds after which a revocation is seen by every replica at the latest, while the store answers."""
    patience: Annotated[float, msgspec.Meta(ge=1, le=3600)] = 60.0
    """Seconds for which keys count while the store does not answer; after that none does."""


class SourceSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[identity.signing.source]]``: one source of input, such as a camera or a hospital, and its key."""

    name: Name
    """Names it in audit records."""
    keyid: Annotated[str, msgspec.Meta(pattern=r"^[ !#-\[\]-~]{1,128}\Z")]
    """As signatures have it."""
    algorithm: Literal["ed25519", "ecdsa-p256-sha256", "hmac-sha256"]
    public_key: Annotated[str, msgspec.Meta(max_length=2048)] = ""
    """PEM, for the first two."""
    secret: Annotated[str, msgspec.Meta(pattern=r"^([A-Za-z0-9][A-Za-z0-9_-]{0,63})?\Z")] = ""
    """For ``hmac-sha256``: the secret lies in ``NAME.hmac`` in the key folder, never in the configuration."""
    roles: Annotated[tuple[Name, ...], msgspec.Meta(max_length=64)] = ()
    """Roles in which its input may come; empty: every one."""


class SigningSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[identity.signing]``: input that its source has signed (RFC 9421)."""

    source: Annotated[tuple[SourceSettings, ...], msgspec.Meta(max_length=4096)] = ()
    longest: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 60
    """Seconds after its making in which a signature counts."""
    skew: Annotated[int, msgspec.Meta(ge=0, le=60)] = 10
    """Seconds by which the clock of a source may be ahead."""
    authorities: Annotated[tuple[Text, ...], msgspec.Meta(max_length=64)] = ()
    """Names, with a port that is not the usual one, that requests may be signed for; empty: whatever ``host`` says."""
    scheme: Literal["https", "http"] = "https"
    """That clients use, wherever TLS ends."""
    tag: Annotated[str, msgspec.Meta(pattern=r"^[ !#-\[\]-~]{0,64}\Z")] = ""
    """What signatures have to be tagged with, when something is written here."""
    nonces: Annotated[int, msgspec.Meta(ge=16, le=1_000_000)] = 65_536
    """Of one source that are remembered; a source that sends more in ``longest`` seconds has to wait."""


class IdentitySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[identity]``."""

    keys: KeySettings | None = None
    issuer: Annotated[tuple[IssuerSettings, ...], msgspec.Meta(max_length=16)] = ()
    certificates: CertificateSettings | None = None
    passes: PassSettings | None = None
    signing: SigningSettings | None = None
    remembered: Annotated[int, msgspec.Meta(ge=16, le=1_000_000)] = 8192
    """Tokens and certificates that were verified and need not be verified again."""


def problems(settings: IdentitySettings) -> tuple[str, ...]:
    """Everything that is wrong with it and that its form does not show."""
    found = [problem for issuer in settings.issuer for problem in _of_issuer(issuer)]
    names = [issuer.issuer for issuer in settings.issuer]
    found += [
        f"the issuer {name!r} is there twice" for name in sorted({name for name in names if names.count(name) > 1})
    ]
    if settings.certificates is not None:
        found += _of_certificates(settings.certificates)
    if settings.signing is not None:
        found += _of_signing(settings.signing)
    if settings.passes is not None:
        found += [f"{keyid[:20]!r} is no key id" for keyid in settings.passes.hardware if not HEX.match(keyid)]
    return tuple(found)


def _of_issuer(issuer: IssuerSettings) -> list[str]:
    found = []
    try:
        check_address(issuer.issuer)
    except InputError as error:
        found.append(error.message)
    if not issuer.role:
        found.append(f"nobody whom {issuer.issuer!r} names gets a role")
    return found


def _of_certificates(settings: CertificateSettings) -> list[str]:
    found = [
        "a client with a certificate is named by spki or by san: one of them"
        for client in settings.client
        if bool(client.spki) == bool(client.san)
    ]
    for name in ("spki", "san"):
        shown = [getattr(client, name) for client in settings.client if getattr(client, name)]
        found += [f"{each!r} is there twice" for each in sorted({each for each in shown if shown.count(each) > 1})]
    try:
        networks(settings.proxies)
    except InputError as error:
        found.append(error.message)
    return found


def _of_signing(settings: SigningSettings) -> list[str]:
    found = []
    for what in ("keyid", "name"):
        shown = [getattr(source, what) for source in settings.source]
        found += [
            f"the {what} {each!r} is there twice" for each in sorted({each for each in shown if shown.count(each) > 1})
        ]
    for source in settings.source:
        secret = source.algorithm == "hmac-sha256"
        if bool(source.secret) != secret or bool(source.public_key) == secret:
            found.append(f"source {source.name!r} has a secret for hmac-sha256, and a public key for everything else")
    return found


def check_address(url: str) -> None:
    """Refuse what no issuer may be reached at.

    Raises:
        InputError: it is no https address; http is taken on this machine only.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise InputError(f"{url[:200]!r} is no address: {error}") from error
    plain = parts.scheme == "http" and host in LOOPBACK
    if not host or parts.username or parts.query or parts.fragment or not (parts.scheme == "https" or plain):
        raise InputError(f"{url[:200]!r} is no address of an issuer", remedy="give https://HOST or https://HOST/PATH.")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise InputError(f"{url[:200]!r} holds letters that no address may")


def networks(texts: tuple[str, ...]) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    """Networks, or single addresses.

    Raises:
        InputError: one of them is neither.
    """
    try:
        return tuple(ipaddress.ip_network(text) for text in texts)
    except ValueError as error:
        raise InputError(f"no network: {error}", remedy="write 10.1.2.0/24, 2001:db8::/32 or an address.") from error


__all__ = [
    "STRONG",
    "Algorithm",
    "CertificateSettings",
    "ClientSettings",
    "IdentitySettings",
    "IssuerSettings",
    "KeySettings",
    "PassSettings",
    "RoleClaim",
    "SigningSettings",
    "SourceSettings",
    "check_address",
    "networks",
    "problems",
]
