"""Being a witness: cosigning the checkpoints of other audit logs, so that they cannot be cut or forked unseen."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from bartizan.core.errors import InputError, StoreError
from bartizan.core.keys import keyid_of, load_public
from bartizan.lifecycle.deploy.gateway.audit.witness_app import WitnessApplication
from bartizan.lifecycle.deploy.gateway.audit.witnesses import Bystander
from bartizan.wiring.workspace import Workspace, load

MAX_CONNECTIONS = 64


class Stand(msgspec.Struct, frozen=True, kw_only=True):
    """What a witness is set up with."""

    name: str
    """Its name in cosignatures, such as ``witness.example.org/w1``."""
    key: str
    """Name of its Ed25519 key."""
    logs: Mapping[str, str]
    """Origin to the public key (PEM) of the log."""
    host: str
    port: int
    """0 takes a free one."""
    book: Path
    """Folder in which it remembers what it saw."""


def stand(workspace: Workspace, wanted: Stand, tell: Callable[[str, int], None]) -> None:
    """Witness until a signal ends it; ``tell`` is given the address as soon as it is listened on.

    Raises:
        InputError: the key is not Ed25519, a log's key is none, or the server is not installed.
        StoreError: the address cannot be listened on.
    """
    if not wanted.logs:
        raise InputError("there is nothing to witness", remedy="name a log with --log ORIGIN=PUBLIC-KEY.pem.")
    logs = {origin: {keyid_of(load_public(pem)): pem} for origin, pem in wanted.logs.items()}
    book = load("bartizan.stores.audit.witnessed:FileBook")(wanted.book)
    bystander = Bystander(wanted.name, workspace.signer(wanted.key), logs, book)
    try:
        config = load("uvicorn:Config")(
            WitnessApplication(bystander),
            interface="asgi3",
            lifespan="off",
            ws="none",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS,
        )
        server = load("uvicorn:Server")(config)
    except ModuleNotFoundError as error:
        raise InputError("the server is not installed", remedy="pip install 'bartizan[serve]'.") from error
    with _listening(wanted.host, wanted.port) as listener:
        tell(*listener.getsockname()[:2])
        server.run(sockets=[listener])


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=MAX_CONNECTIONS)
    except (OSError, OverflowError, UnicodeError) as error:
        raise StoreError(f"{host} port {port} cannot be listened on: {error}", remedy="choose another.") from error


__all__ = ["Stand", "stand"]
