"""Signed input: requests whose source has signed them, so that nobody changes them on the way (RFC 9421, RFC 9530).

A signature counts when it covers everything that decides what the request means (method, authority, path, query, the
digest of the body, and the fields that say how the body is read), when it is new, and when its nonce was not seen
before. What RFC 9421 offers beyond that, such as parameters of components, is refused rather than guessed at.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from bartizan.core.errors import BartizanError, InputError, KeyFileError
from bartizan.core.keys import load_public
from bartizan.lifecycle.deploy.gateway.failures import RequestError
from bartizan.lifecycle.deploy.gateway.identity.settings import SigningSettings, SourceSettings
from bartizan.lifecycle.deploy.gateway.nonces import Nonces
from bartizan.lifecycle.deploy.gateway.state import SharedState

MOST_BYTES = 8_192
MOST_SIGNATURES = 4
MOST_COMPONENTS = 32
LEAST_SECRET = 32
"""Bytes of a shared secret: as many as the digest has (RFC 2104, section 3)."""
BODY = b"content-digest"
READING = (b"content-type", b"content-encoding", b"inference-header-content-length")
"""Fields that decide how a body is read: where they are there, they have to be signed."""
_NAME = rb"[a-z*][a-z0-9_.*-]{0,63}"
_TEXT = rb'"[ !#-\[\]-~]{0,256}"'
_INPUT = re.compile(
    rb"(" + _NAME + rb")=(\((" + _TEXT + rb"(?: " + _TEXT + rb")*)?\)"
    rb"((?:;" + _NAME + rb"=(?:-?[0-9]{1,15}|" + _TEXT + rb")){0,16}))"
)
_BYTES = re.compile(rb"(" + _NAME + rb")=:([A-Za-z0-9+/]{0,1024}={0,2}):")
_PARAMETER = re.compile(rb";(" + _NAME + rb")=(?:(-?[0-9]{1,15})|\"([^\"]*)\")")
_DIGESTS: Mapping[bytes, Callable[[bytes], Any]] = {b"sha-256": hashlib.sha256, b"sha-512": hashlib.sha512}
_ECDSA = ec.ECDSA(hashes.SHA256())
_KNOWN = frozenset({b"created", b"expires", b"nonce", b"alg", b"keyid", b"tag"})


class Request(msgspec.Struct, frozen=True):
    """What of a request can be signed."""

    method: str
    path: str
    """As it was sent, with its percent signs."""
    headers: Mapping[bytes, bytes]
    """Names in lower case."""
    body: bytes
    query: str = ""


class _Signature(msgspec.Struct, frozen=True):
    components: tuple[bytes, ...]
    parameters: dict[bytes, int | bytes]
    written: bytes
    """Components and parameters as they were written, which is what is signed (RFC 9421, section 2.3)."""
    value: bytes


class _SignedError(Exception):
    """A signature that does not count; the text is for the audit record."""


class _Source:
    """A source with its key."""

    def __init__(self, settings: SourceSettings, secret: Callable[[str], bytes]) -> None:
        self.name, self.algorithm, self.roles = settings.name, settings.algorithm, settings.roles
        self._secret, self._key = b"", None
        if settings.algorithm == "hmac-sha256":
            self._secret = secret(settings.secret)
            if len(self._secret) < LEAST_SECRET:
                raise KeyFileError(
                    f"the secret of {self.name} has fewer than {LEAST_SECRET} bytes", remedy="make it anew."
                )
            return
        self._key = load_public(settings.public_key)
        wanted = ed25519.Ed25519PublicKey if settings.algorithm == "ed25519" else ec.EllipticCurvePublicKey
        if not isinstance(self._key, wanted):
            raise InputError(f"the public key of {self.name} is not one for {settings.algorithm}")

    def signed(self, base: bytes, signature: bytes) -> bool:
        """Whether a signature over the base is this source's."""
        if self._key is None:
            return hmac.compare_digest(hmac.digest(self._secret, base, "sha256"), signature)
        try:
            if isinstance(self._key, ed25519.Ed25519PublicKey):
                self._key.verify(signature, base)
            elif len(signature) != 64:  # noqa: PLR2004 - RFC 9421, section 3.3.4: r and s, 32 bytes each
                return False
            else:
                numbers = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
                self._key.verify(encode_dss_signature(*numbers), base, _ECDSA)
        except InvalidSignature:
            return False
        return True


class SignedInput:
    """Finds out who signed a request.

    ``secret`` gives the bytes of a shared secret by its name. With ``state`` a nonce counts once at all replicas
    together. What was signed before ``started`` does not count: nobody remembers whether it was seen.
    """

    def __init__(
        self,
        settings: SigningSettings,
        secret: Callable[[str], bytes],
        *,
        started: float,
        state: SharedState | None = None,
    ) -> None:
        """Read all keys.

        Raises:
            InputError: one of them cannot be used.
        """
        self._settings = settings
        self.scheme = settings.scheme
        self._sources = {source.keyid.encode(): _Source(source, secret) for source in settings.source}
        self._authorities = frozenset(each.lower() for each in settings.authorities)
        self._state, self._started = state, started
        self._nonces = Nonces(settings.nonces)

    def source(
        self,
        method: str,
        path: str,
        headers: Mapping[bytes, bytes],
        body: bytes,
        now: float,
        *,
        role: str = "",
        query: str = "",
    ) -> str | Awaitable[str]:
        """Who signed a request that comes in ``role``; empty when nobody did.

        ``path`` and ``query`` are as they were sent, with their percent signs; names of ``headers`` are in lower case.

        Raises:
            RequestError: 401, it is signed and that does not count; 503, it cannot be told whether it is new.
        """
        request = Request(method, path, headers, body, query)
        given, values = headers.get(b"signature-input"), headers.get(b"signature")
        if given is None and values is None:
            return ""
        try:
            source, nonce = self._judged(request, given or b"", values or b"", role, now)
        except _SignedError as error:
            raise _refused(str(error)) from error
        return source if self._state is None else self._new(self._state, source, nonce)

    def _judged(self, request: Request, given: bytes, values: bytes, role: str, now: float) -> tuple[str, bytes]:
        """Name of the source, and the nonce. What is cheap comes first; a nonce is only remembered of its source."""
        found, source = self._chosen(given, values)
        nonce = self._counts(found, source, role, now)
        self._covers(found, request)
        if not source.signed(self._base(found, request), found.value):
            raise _SignedError(f"the signature is not that of {source.name}")
        _check_body(request)
        until = now + self._settings.longest + 2 * self._settings.skew
        if not self._nonces.new(source.name, nonce, until, now):
            raise _SignedError("its nonce was used before")
        return source.name, nonce

    def _chosen(self, given: bytes, values: bytes) -> tuple[_Signature, _Source]:
        """The first signature of a source that is known; others on the way may have added theirs."""
        found = _parsed(given, values)
        for each in found:
            keyid = each.parameters.get(b"keyid")
            if isinstance(keyid, bytes) and keyid in self._sources:
                return each, self._sources[keyid]
        raise _SignedError("no source that is configured has signed it")

    def _counts(self, found: _Signature, source: _Source, role: str, now: float) -> bytes:
        said = found.parameters
        created, expires, nonce = said.get(b"created"), said.get(b"expires"), said.get(b"nonce")
        if not isinstance(created, int) or not isinstance(nonce, bytes) or not nonce:
            raise _SignedError("it lacks created or nonce")
        if created > now + self._settings.skew:
            raise _SignedError("it was made in the future")
        if now - created > self._settings.longest or created < int(self._started):
            raise _SignedError("it is stale")
        if expires is not None and (not isinstance(expires, int) or expires <= now):
            raise _SignedError("it has expired")
        if said.get(b"alg", source.algorithm.encode()) != source.algorithm.encode():
            raise _SignedError(f"it names another algorithm than {source.algorithm}")
        if self._settings.tag and said.get(b"tag") != self._settings.tag.encode():
            raise _SignedError("it has another tag")
        if source.roles and role not in source.roles:
            raise _SignedError(f"input of {source.name} may not come in role {role}")
        return nonce

    def _covers(self, found: _Signature, request: Request) -> None:
        covered = set(found.components)
        whole = b"@target-uri" in covered
        needed = {b"@method", BODY, *(name for name in READING if name in request.headers)}
        if not whole:
            needed |= {b"@authority"} | ({b"@path"} if b"@request-target" not in covered else set())
            if request.query and b"@request-target" not in covered:
                needed.add(b"@query")
        if missing := sorted(needed - covered):
            raise _SignedError(f"it does not cover {missing[0].decode()}")

    def _base(self, found: _Signature, request: Request) -> bytes:
        """What is signed (RFC 9421, section 2.5)."""
        lines = [b'"%s": %s' % (name, self._value(name, request)) for name in found.components]
        return b"\n".join((*lines, b'"@signature-params": ' + found.written))

    def _value(self, name: bytes, request: Request) -> bytes:
        """The value of a component (RFC 9421, sections 2.1 and 2.2)."""
        if not name.startswith(b"@"):
            value = request.headers.get(name)
            if value is None:
                raise _SignedError(f"it covers {name.decode()}, which is not there")
            return value.strip(b" \t")
        derived = _DERIVED.get(name)
        if derived is None:
            raise _SignedError(f"it covers {name.decode()}, which is not known here")
        return _ascii(derived(request, self))

    def authority(self, request: Request) -> str:
        """The host that a request is for, without the usual port."""
        host = _ascii(request.headers.get(b"host", b"").decode("latin-1")).decode().lower()
        host = host.removesuffix(":443" if self._settings.scheme == "https" else ":80")
        if not host or (self._authorities and host not in self._authorities):
            raise _SignedError("it was signed for another host")
        return host

    async def _new(self, state: SharedState, source: str, nonce: bytes) -> str:
        """The source, when no other replica has seen the nonce."""
        name = f"nonce:{source}:{hashlib.sha256(nonce).hexdigest()}"
        lasts = float(self._settings.longest + 2 * self._settings.skew)
        try:
            seen = await state.count(name, 1, lasts=lasts)
        except BartizanError as error:
            reason = f"nonces cannot be compared: {error.message}"
            raise RequestError(503, "not now", headers={"retry-after": "1"}, reason=reason) from error
        if seen > 1:
            raise _refused("its nonce was used before, at another replica")
        return source


def _target(request: Request) -> str:
    return request.path + (f"?{request.query}" if request.query else "")


_DERIVED: Mapping[bytes, Callable[[Request, SignedInput], str]] = {
    b"@method": lambda request, _: request.method,
    b"@authority": lambda request, gateway: gateway.authority(request),
    b"@path": lambda request, _: request.path or "/",
    b"@query": lambda request, _: f"?{request.query}",
    b"@request-target": lambda request, _: _target(request),
    b"@scheme": lambda _, gateway: gateway.scheme,
    b"@target-uri": lambda request, gateway: f"{gateway.scheme}://{gateway.authority(request)}{_target(request)}",
}
"""Derived components (RFC 9421, section 2.2)."""


def _parsed(given: bytes, values: bytes) -> list[_Signature]:
    """Both fields (RFC 9421, section 4), in the form in which they are signed: no blanks but between their members."""
    if len(given) > MOST_BYTES or len(values) > MOST_BYTES:
        raise _SignedError("its signatures are too large")
    found = {match[1]: match[2] for match in _members(_BYTES, values)}
    made = []
    for match in _members(_INPUT, given):
        if match[1] not in found:
            raise _SignedError("a signature is missing")
        components = tuple(match[3][1:-1].split(b'" "')) if match[3] else ()
        if len(set(components)) != len(components) or len(components) > MOST_COMPONENTS:
            raise _SignedError("it covers something twice, or too much")
        made.append(_Signature(components, _parameters(match[4]), match[2], _decoded(found[match[1]])))
    return made


def _members(form: re.Pattern[bytes], field: bytes) -> list[re.Match[bytes]]:
    """Members of a dictionary (RFC 9651, section 3.2), each of one form."""
    found: list[re.Match[bytes]] = []
    place = 0
    while len(found) < MOST_SIGNATURES:
        match = form.match(field, place)
        if match is None or match[1] in {each[1] for each in found}:
            break
        found.append(match)
        place = match.end()
        if place == len(field):
            return found
        rest = field[place:].lstrip(b" \t")
        if rest[:1] != b",":
            break
        place = len(field) - len(rest[1:].lstrip(b" \t"))
    raise _SignedError("its signatures cannot be read")


def _parameters(text: bytes) -> dict[bytes, int | bytes]:
    found: dict[bytes, int | bytes] = {}
    for name, number, word in _PARAMETER.findall(text):
        if name in found or name not in _KNOWN:
            raise _SignedError("it has a parameter twice, or one that is not known")
        found[name] = int(number) if number else word
    return found


def _decoded(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _SignedError("a part of it is no base64") from error


def _check_body(request: Request) -> None:
    """The digest of the body, which is what the signature covers (RFC 9530). One that is known has to be there."""
    found = {match[1]: match[2] for match in _members(_BYTES, request.headers.get(BODY, b""))}
    known = [name for name in _DIGESTS if name in found]
    if not known:
        raise _SignedError("no digest of its body is of a known kind")
    for name in known:
        if not hmac.compare_digest(_DIGESTS[name](request.body).digest(), _decoded(found[name])):
            raise _SignedError("its body is not the one that was signed")


def _ascii(text: str) -> bytes:
    if not text.isascii() or not text.isprintable():
        raise _SignedError("its address holds letters that none may")
    return text.encode()


def _refused(reason: str) -> RequestError:
    return RequestError(401, "the signature of this request does not count", reason=f"signed input: {reason}")


__all__ = ["SignedInput"]
