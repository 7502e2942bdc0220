"""OpenID providers: where their keys are (discovery), which keys those are (JWKS), and signatures by PyJWT.

An issuer is asked at its configured address only, over HTTPS, without redirects, within bounds of size and time.
No address and no key is ever taken from a token.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import jwt
import jwt.algorithms
from jwt.api_jws import PyJWS

from bartizan.core.errors import InputError, WorkError
from bartizan.lifecycle.deploy.gateway.identity.claims import Token, TokenError
from bartizan.lifecycle.deploy.gateway.identity.settings import IssuerSettings, check_address
from bartizan.lifecycle.deploy.gateway.identity.tokens import UnknownKeyError

SECONDS = 5.0
"""Time for one answer, from the connection to its last byte."""
MOST_BYTES = 512 * 1024
MOST_KEYS = 100
LEAST_RSA_BITS = 2048
DISCOVERY = "/.well-known/openid-configuration"
_KINDS = {"RS": ("RSA", ""), "PS": ("RSA", ""), "ES256": ("EC", "P-256"), "ES384": ("EC", "P-384")}
_KINDS |= {"ES512": ("EC", "P-521"), "EdDSA": ("OKP", "Ed25519")}


class OidcKeys:
    """The keys of one issuer. See ``identity.tokens.KeySource``."""

    def __init__(self, settings: IssuerSettings, trusted: str = "") -> None:
        """``trusted`` is a file of authorities (PEM) by which the issuer's own certificate is verified instead."""
        check_address(settings.issuer)
        self._settings = settings
        self._tls = ssl.create_default_context(cafile=trusted or None)
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self._jws = PyJWS(algorithms=list(settings.algorithms))
        self._keys: dict[tuple[str, str], Any] = {}
        self._seen: list[Any] = []

    def fetch(self) -> bool:
        """See ``KeySource.fetch``."""
        listed = self._listed()
        if listed == self._seen:
            return False
        self._keys, self._seen = self._usable(listed), listed
        return True

    def verify(self, token: Token) -> None:
        """See ``KeySource.verify``. A token without ``kid`` fits when the issuer has one key for its algorithm."""
        keys = self._keys
        if token.key:
            key = keys.get((token.key, token.algorithm))
        else:
            fitting = [key for (_, algorithm), key in keys.items() if algorithm == token.algorithm]
            key = fitting[0] if len(fitting) == 1 else None
        if key is None:
            raise UnknownKeyError
        try:
            self._jws.decode_complete(token.text, key, algorithms=[token.algorithm])
        except jwt.PyJWTError as error:
            raise TokenError(f"its signature does not count: {type(error).__name__}") from error

    def _listed(self) -> list[Any]:
        issuer = self._settings.issuer
        found = _get(issuer.rstrip("/") + DISCOVERY, self._tls)
        if found.get("issuer") != issuer:
            raise WorkError(
                f"{issuer} calls itself {str(found.get('issuer'))[:100]!r}", remedy="write it the same way."
            )
        place = found.get("jwks_uri")
        if not isinstance(place, str) or not self._may_hold(place):
            raise WorkError(
                f"{issuer} keeps its keys at {str(place)[:200]!r}",
                remedy="name that host in key_hosts, if it is right.",
            )
        keys = _get(place, self._tls).get("keys")
        if not isinstance(keys, list) or len(keys) > MOST_KEYS:
            raise WorkError(f"{issuer} lists no keys, or more than {MOST_KEYS}")
        return keys

    def _may_hold(self, place: str) -> bool:
        try:
            check_address(place)
        except InputError:
            return False
        own, other = urlsplit(self._settings.issuer), urlsplit(place)
        return (own.scheme, own.netloc) == (other.scheme, other.netloc) or (
            other.scheme == "https" and other.netloc in self._settings.key_hosts
        )

    def _usable(self, listed: list[Any]) -> dict[tuple[str, str], Any]:
        """Keys by name and algorithm. Those that are for something else, weak, or secrets are left out."""
        usable: dict[tuple[str, str], Any] = {}
        for each in listed:
            if not isinstance(each, dict) or not isinstance(each.get("kid", ""), str):
                continue
            for algorithm in self._settings.algorithms:
                key = _key(each, algorithm)
                name = (each.get("kid", ""), algorithm)
                if key is not None:
                    if name in usable:
                        raise WorkError(f"{self._settings.issuer} has two keys {name[0][:60]!r} for {algorithm}")
                    usable[name] = key
        return usable


def _key(said: Mapping[str, Any], algorithm: str) -> Any:
    """The public key, when it may be used with an algorithm; None otherwise."""
    kind, curve = _KINDS.get(algorithm) or _KINDS[algorithm[:2]]
    if said.get("kty") != kind or (curve and said.get("crv") != curve):
        return None
    if said.get("use", "sig") != "sig" or said.get("alg", algorithm) != algorithm or "d" in said:
        return None
    if "key_ops" in said and said["key_ops"] != ["verify"]:
        return None
    try:
        key = jwt.PyJWK.from_dict(dict(said), algorithm)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError):
        return None
    if kind == "RSA" and key.key.key_size < LEAST_RSA_BITS:
        return None
    return key


def _get(url: str, tls: ssl.SSLContext) -> dict[str, Any]:
    """A JSON object from an address.

    Raises:
        WorkError: it does not answer in time, or with something else.
    """
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        status, body = _exchange(parts.scheme == "https", parts.hostname or "", parts.port, path, tls)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise WorkError(f"{url[:200]} does not answer: {type(error).__name__}", remedy="see that it runs.") from error
    if status != http.HTTPStatus.OK or len(body) > MOST_BYTES:
        raise WorkError(f"{url[:200]} answers with status {status} and {len(body)} bytes")
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise WorkError(f"{url[:200]} answers with something that is no JSON") from error
    if not isinstance(found, dict):
        raise WorkError(f"{url[:200]} answers with something that is no JSON object")
    return found


def _exchange(secure: bool, host: str, port: int | None, path: str, tls: ssl.SSLContext) -> tuple[int, bytes]:
    number = port or (443 if secure else 80)
    line = socket.create_connection((host, number), timeout=SECONDS)
    if secure:
        line = tls.wrap_socket(line, server_hostname=host, do_handshake_on_connect=False)
    # A timeout of the socket begins anew with every byte that comes; this one does not.
    end = threading.Timer(SECONDS, _shut, (line,))
    end.daemon = True
    end.start()
    try:
        if isinstance(line, ssl.SSLSocket):
            line.do_handshake()
        connection = http.client.HTTPConnection(host, number, timeout=SECONDS)
        connection.sock = line
        connection.request("GET", path, headers={"Accept": "application/json", "Connection": "close"})
        response = connection.getresponse()
        return response.status, response.read(MOST_BYTES + 1)
    finally:
        end.cancel()
        line.close()


def _shut(line: socket.socket) -> None:
    """End a connection under the thread that reads from it."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(line, socket.SHUT_RDWR)


__all__ = ["DISCOVERY", "OidcKeys"]
