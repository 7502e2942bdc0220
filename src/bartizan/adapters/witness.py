"""Showing checkpoints to a witness over HTTP: one request, bounded in time and size, no redirects."""

from __future__ import annotations

import contextlib
import http.client
import ssl
from urllib.parse import urlsplit

from bartizan.core.errors import InputError, StoreError
from bartizan.lifecycle.deploy.gateway.audit.witnesses import MAX_REPLY, RemoteWitness, Reply

SECONDS = 10.0
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def remote_witness(address: str) -> RemoteWitness:
    """A witness by the prefix of its address.

    Raises:
        InputError: it is no https address, or http to another machine.
    """
    parts = urlsplit(address)
    plain = parts.scheme == "http" and parts.hostname in _LOOPBACK
    if not parts.hostname or not (parts.scheme == "https" or plain) or parts.query or parts.username:
        raise InputError(f"not the address of a witness: {address[:200]!r}", remedy="give https://HOST/PREFIX.")
    path = parts.path.rstrip("/") + "/add-checkpoint"

    def post(body: bytes) -> Reply:
        try:
            connection = (
                http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=SECONDS)
                if plain
                else http.client.HTTPSConnection(
                    parts.hostname or "", parts.port, timeout=SECONDS, context=ssl.create_default_context()
                )
            )
            with contextlib.closing(connection):
                connection.request("POST", path, body, {"content-type": "text/plain; charset=utf-8"})
                answer = connection.getresponse()
                content = answer.read(MAX_REPLY)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise StoreError(f"witness {address} cannot be reached: {error}", remedy="see why.") from error
        return Reply(answer.status, content.decode("utf-8", "replace"))

    return RemoteWitness(address, post)


__all__ = ["remote_witness"]
