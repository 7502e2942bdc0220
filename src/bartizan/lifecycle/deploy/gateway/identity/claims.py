"""JSON Web Tokens: what may stand in one, and who it says somebody is (RFC 7519; RFC 8725 for what goes wrong).

The signature is somebody else's work (``KeySource``); here nothing is believed before it was verified but the
issuer's name and the key's, which only choose among what is configured.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import msgspec

from bartizan.lifecycle.deploy.gateway.caller import Caller
from bartizan.lifecycle.deploy.gateway.identity.settings import IssuerSettings, RoleClaim

MOST_BYTES = 16_384
"""Of a token."""
MOST_HEADER_BYTES = 2_048
MOST_GROUPS = 256
MOST_LETTERS = 256
"""Of one value that is taken over."""
LISTED = ("scope", "scp")
HEADER = frozenset({"alg", "kid", "typ", "x5t", "x5t#S256"})
"""What the header may hold. It names no key but by ``kid``: ``jku``, ``jwk``, ``x5u`` and ``x5c`` let the sender choose
the key, and what stands in ``crit`` would have to be understood (RFC 8725, section 3.10; CVE-2018-0114)."""


class TokenError(Exception):
    """A token that does not count; the text is for the audit record."""


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A token in its parts. Nothing of it was verified."""

    text: str
    algorithm: str
    key: str
    """``kid``; empty when there is none."""
    issuer: str
    claims: dict[str, Any]


def parse(text: bytes, issuers: Mapping[str, IssuerSettings]) -> tuple[Token, IssuerSettings]:
    """Take a token apart.

    Raises:
        TokenError: it is none, or none that could be verified here.
    """
    parts = text.split(b".")
    if len(text) > MOST_BYTES or len(parts) != 3 or len(parts[0]) > MOST_HEADER_BYTES:  # noqa: PLR2004 - RFC 7515
        raise TokenError("this has not the form of a token")
    header, claims = _object(parts[0]), _object(parts[1])
    name = claims.get("iss")
    issuer = issuers.get(name) if isinstance(name, str) else None
    if issuer is None:
        raise TokenError("nobody who is configured has issued it")
    if strange := sorted(header.keys() - HEADER):
        raise TokenError(f"its header holds {strange[0][:40]!r}")
    algorithm, key, kind = header.get("alg"), header.get("kid", ""), header.get("typ", "JWT")
    if algorithm not in issuer.algorithms:
        raise TokenError(f"algorithm {str(algorithm)[:20]!r} is not one of this issuer's")
    if not isinstance(key, str) or len(key) > MOST_LETTERS:
        raise TokenError("its key has no name")
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in _lower(issuer.types):
        raise TokenError(f"it is a {str(kind)[:40]!r}")
    return Token(
        text=text.decode("ascii"), algorithm=str(algorithm), key=key, issuer=issuer.issuer, claims=claims
    ), issuer


def _lower(texts: tuple[str, ...]) -> set[str]:
    return {text.lower().removeprefix("application/") for text in texts}


def _object(part: bytes) -> dict[str, Any]:
    """A JSON object in base64url; a member that is there twice would be read differently by others."""
    try:
        padded = part + b"=" * (-len(part) % 4)
        if b"=" in part or b"+" in part or b"/" in part:
            raise TokenError("a part of it is no base64url")
        data = base64.b64decode(padded, altchars=b"-_", validate=True)
        found = json.loads(data.decode(), object_pairs_hook=_members, parse_constant=_no_number)
    except (binascii.Error, ValueError, RecursionError) as error:
        raise TokenError(f"a part of it is no JSON: {type(error).__name__}") from error
    if not isinstance(found, dict):
        raise TokenError("a part of it is no object")
    return found


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise TokenError("it says something twice")
    return found


def _no_number(text: str) -> None:
    raise TokenError(f"{text} is no number")


def caller_of(claims: Mapping[str, Any], issuer: IssuerSettings, now: float) -> Caller:
    """Whom the claims of a verified token speak of.

    Raises:
        TokenError: it does not count now or here, or nobody gets a role by it.
    """
    until = _until(claims, issuer, now)
    audience = claims.get("aud")
    listed = audience if isinstance(audience, list) else [audience]
    if not any(isinstance(each, str) and each in issuer.audiences for each in listed):
        raise TokenError("it is made out to somebody else")
    subject = claims.get(issuer.subject)
    if not isinstance(subject, str) or not 0 < len(subject) <= 4 * MOST_LETTERS:
        raise TokenError("it names nobody")
    role = next((rule.role for rule in issuer.role if _holds(claims, rule)), None)
    if role is None:
        raise TokenError("nobody gets a role by it")
    return Caller(
        id=f"jwt:{hashlib.sha256(msgspec.json.encode([issuer.issuer, subject])).hexdigest()[:32]}",
        role=role,
        method="jwt",
        groups=_texts(at(claims, issuer.groups)) if issuer.groups else (),
        attributes=_attributes(claims, issuer),
        factors=_factors(claims, issuer),
        until=until,
    )


def _until(claims: Mapping[str, Any], issuer: IssuerSettings, now: float) -> float:
    """Until when it counts, by our clock and its own (RFC 7519, section 4.1.4)."""
    ends, begins, made = (_moment(claims, name) for name in ("exp", "nbf", "iat"))
    if ends is None:
        raise TokenError("it never ends")
    if now >= ends + issuer.skew:
        raise TokenError("it has expired")
    if (begins is not None and begins > now + issuer.skew) or (made is not None and made > now + issuer.skew):
        raise TokenError("it does not count yet")
    if ends - (made if made is not None else now) > issuer.longest:
        raise TokenError("it counts for too long")
    return ends + issuer.skew


def _moment(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None and name not in claims:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e11:  # noqa: PLR2004 - year 5138
        raise TokenError(f"{name} is no time")
    return float(value)


def at(claims: Mapping[str, Any], path: str) -> Any:
    """The value of a claim by its name, or by names joined by dots; None when it is not there."""
    if path in claims:
        return claims[path]
    value: Any = claims
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return None
        value = value[name]
    return value


def _holds(claims: Mapping[str, Any], rule: RoleClaim) -> bool:
    """Whether a claim is a text, or lists it; ``scope`` is a list in one text (RFC 8693, section 4.2)."""
    value = at(claims, rule.claim)
    if isinstance(value, str):
        return value == rule.value or (rule.claim in LISTED and rule.value in value.split(" "))
    return isinstance(value, list) and any(isinstance(each, str) and each == rule.value for each in value)


def _texts(value: Any) -> tuple[str, ...]:
    listed = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    kept = [each for each in listed if isinstance(each, str) and 0 < len(each) <= MOST_LETTERS]
    return tuple(dict.fromkeys(kept))[:MOST_GROUPS]


def _attributes(claims: Mapping[str, Any], issuer: IssuerSettings) -> dict[str, str]:
    found = {}
    for name, path in issuer.attributes.items():
        value = at(claims, path)
        if isinstance(value, bool):
            value = "true" if value else "false"
        elif isinstance(value, int | float) and math.isfinite(value):
            value = f"{value:.15g}" if isinstance(value, float) else str(value)
        if isinstance(value, str) and 0 < len(value) <= MOST_LETTERS:
            found[name] = value
    return found


def _factors(claims: Mapping[str, Any], issuer: IssuerSettings) -> tuple[str, ...]:
    """How somebody showed who they are, as far as it is believed of this issuer (OpenID Connect Core, section 2)."""
    found = [each for each in _texts(claims.get("amr")) if each in issuer.factors]
    context = claims.get("acr")
    if isinstance(context, str) and context in issuer.contexts:
        found.append(issuer.contexts[context])
    return tuple(dict.fromkeys(found))


def bound_to(claims: Mapping[str, Any]) -> str:
    """Thumbprint of the certificate that a token is bound to (RFC 8705); empty when it is bound to nothing.

    Raises:
        TokenError: it is bound to something that cannot be shown here (RFC 7800).
    """
    if "cnf" not in claims:
        return ""
    bound = claims["cnf"]
    if not isinstance(bound, dict) or bound.keys() != {"x5t#S256"} or not isinstance(bound["x5t#S256"], str):
        raise TokenError("it is bound to something that cannot be shown here")
    return bound["x5t#S256"]


__all__ = ["MOST_BYTES", "Token", "TokenError", "at", "bound_to", "caller_of", "parse"]
