"""What uvicorn does not tell: the certificate that a client showed when it connected (ASGI's TLS extension, 0.2)."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class TlsProtocol(HttpToolsProtocol):
    """For ``uvicorn.Config(http=TlsProtocol, ssl_cert_reqs=ssl.CERT_REQUIRED, ...)``.

    The certificate was verified against ``ssl_ca_certs`` in the handshake, or there is none here.
    """

    _tls: dict[str, Any] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Read it once for all requests of the connection."""
        super().connection_made(transport)
        shown = transport.get_extra_info("ssl_object")
        der = shown.getpeercert(binary_form=True) if shown is not None else None
        if der:
            self._tls = {"tls": {"client_cert_chain": [ssl.DER_cert_to_PEM_cert(der)]}}

    def on_message_begin(self) -> None:
        """Put it beside the request."""
        super().on_message_begin()
        if self._tls is not None:
            self.scope["extensions"] = self._tls


__all__ = ["TlsProtocol"]
