"""The server: doors that were verified once, what keeps them verified, and the listeners in front of them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import msgspec

from bartizan.core.errors import InputError, StoreError
from bartizan.lifecycle.deploy.gateway.administration import ROUTES as ADMIN_ROUTES
from bartizan.lifecycle.deploy.gateway.administration import Administration
from bartizan.lifecycle.deploy.gateway.admission import Admission
from bartizan.lifecycle.deploy.gateway.answering import Desk
from bartizan.lifecycle.deploy.gateway.application import Application
from bartizan.lifecycle.deploy.gateway.asgi import Bodies
from bartizan.lifecycle.deploy.gateway.protocol import MAX_BODY_BYTES
from bartizan.lifecycle.deploy.gateway.routes import Table
from bartizan.lifecycle.deploy.gateway.schedule import Door, Schedule, opening, patience, recording
from bartizan.lifecycle.deploy.gateway.serving import Lane, Lanes
from bartizan.wiring.backstage import Behind
from bartizan.wiring.serving import LedgerWorks, Tls, Wanted, seconds_of
from bartizan.wiring.workspace import Workspace, load

COLLECT = (50_000, 20, 20)
"""Objects, and collections, between two searches for cycles (``gc.set_threshold``): requests that are under way at
the same time hold thousands of objects, and few are in cycles."""
SWITCH_SECONDS = 0.0005
"""After which the thread that writes the audit log makes way for the event loop; Python's own 5 ms show in answers."""
MAX_CONNECTIONS = 256
KEEP_ALIVE_SECONDS = 5
GRACEFUL_SECONDS = 10


class Gateway:
    """Doors that were verified once, and what keeps them verified."""

    def __init__(self, workspace: Workspace, wanted: Wanted) -> None:
        """Verify and open.

        Raises:
            BartizanError: the declaration, the ledger or the keys cannot be used.
        """
        self._seconds, self._wanted = seconds_of(wanted.recheck), wanted
        _ = workspace.service
        works = [LedgerWorks(workspace, wanted)] if wanted.model else all_works(workspace, wanted)
        self._parts = works[0].parts
        works[0].may_record()
        self.admissions: list[Admission] = []
        self._lanes: list[tuple[LedgerWorks, Lane]] = []
        for each in works:
            admission, served = each.examine(), None
            if admission.admitted:
                served, admission = opening(each, admission)
            else:
                recording(each, admission)
            self.admissions.append(admission)
            door = Door(admission, patience(self._seconds))
            door.move(admission, served)
            self._lanes.append((each, Lane(each.name, door, admission.configuration.of_model(each.name))))

    @property
    def refused(self) -> list[Admission]:
        """Models that are not served."""
        return [admission for admission in self.admissions if not admission.admitted]

    @property
    def open_to(self) -> tuple[str, ...]:
        """Roles that are configured."""
        return tuple(self.admissions[0].configuration.roles)

    def serve(self, tell: Callable[[list[tuple[str, int]]], None]) -> None:
        """Serve until a signal ends it; ``tell`` is given the addresses as soon as they are listened on.

        The first is that of the data plane, the second, if there is one, that of the control plane.

        Raises:
            InputError: the server is not installed.
            StoreError: the address cannot be listened on.
        """
        lanes = Lanes({lane.name: lane for _, lane in self._lanes})
        bodies = Bodies(MAX_BODY_BYTES)
        wanted, stack = self._wanted, contextlib.ExitStack()
        with stack:
            desk = Desk(lanes, bodies)
            chats = self._parts.chats(bodies)
            handlers = {**desk.handlers(), **chats.handlers()}
            data = Application(self._parts.front, handlers, desk.model_of)
            applications = [data]
            served = [(self._server(data, wanted.tls), stack.enter_context(listening(wanted.host, wanted.port)))]
            if wanted.admin_port is not None:
                listener = stack.enter_context(listening(wanted.admin_host, wanted.admin_port))
                applications.append(self._control(lanes, bodies))
                served.append((self._server(applications[-1], wanted.tls), listener))
            stack.enter_context(_ended_by_signals([server for server, _ in served]))
            tell([listener.getsockname()[:2] for _, listener in served])
            _runner(self._run(served, applications, lanes, bodies))

    def _control(self, lanes: Lanes, bodies: Bodies) -> Application:
        """The control plane."""
        behind = Behind(self._parts.workspace, lanes, lambda: self._parts.telemetry)
        desk = Administration(lanes, bodies, behind, self._parts.described)
        return Application(self._parts.front, desk.handlers(), desk.model_of, Table(ADMIN_ROUTES))

    def close(self) -> None:
        """End the processes of models."""
        for _, lane in self._lanes:
            old = lane.door.move(lane.door.admission, None)
            if old is not None:
                old.close()
        asyncio.run(self._parts.close())

    async def _run(
        self,
        served: list[tuple[Any, socket.socket]],
        applications: list[Application],
        lanes: Lanes,
        bodies: Bodies,
    ) -> None:
        schedules = [
            Schedule(works, lane.door, seconds=self._seconds, changed=partial(_arranged, lanes, lane))
            for works, lane in self._lanes
        ]
        jobs = [each.run() for each in schedules] + [bodies.watch(), self._parts.run()]
        beside = [asyncio.create_task(job) for job in jobs]
        try:
            await asyncio.gather(*(server.serve(sockets=[listener]) for server, listener in served))
            for application in applications:
                await application.through(GRACEFUL_SECONDS)
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            for schedule in schedules:
                schedule.close()
            await self._parts.close()

    def _server(self, application: Application, tls: Tls | None) -> Any:
        try:
            config = load("uvicorn:Config")(
                application,
                interface="asgi3",
                lifespan="off",
                ws="none",
                # uvicorn's own configuration would close the handlers of everybody else in the process
                log_config=None,
                log_level="warning",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=False,
                limit_concurrency=MAX_CONNECTIONS,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=GRACEFUL_SECONDS,
                **_connections(tls, application),
            )
            return load("uvicorn:Server")(config)
        except ImportError as error:
            raise InputError("the server is not installed", remedy="pip install 'bartizan[serve]'.") from error


def _arranged(lanes: Lanes, lane: Lane, admission: Admission) -> None:
    """After a switch: how the model is served now, and under which name."""
    if admission.admitted:
        lane.settings = admission.configuration.of_model(lane.name)
        lanes.arrange()


def _connections(tls: Tls | None, application: Application) -> dict[str, Any]:
    """How connections are made: bounded in what their heads take, and encrypted where that is wanted."""
    steady = load("bartizan.adapters.uvicorn.steady:SteadyProtocol")
    leading = {"begin": staticmethod(application.begin)}
    if tls is None:
        return {"http": type("Plain", (steady,), leading)}
    files: dict[str, Any] = {"ssl_certfile": tls.certificate, "ssl_keyfile": tls.key}
    if not tls.clients:
        return files | {"http": type("Encrypted", (steady,), leading)}
    telling = type("Certified", (steady, load("bartizan.adapters.uvicorn.tls:TlsProtocol")), leading)
    return files | {"http": telling, "ssl_ca_certs": tls.clients, "ssl_cert_reqs": ssl.CERT_OPTIONAL}


def _runner(work: Coroutine[Any, Any, None]) -> None:
    """Run it on uvloop where that is installed: it takes a third less time."""
    try:
        factory = load("uvloop:new_event_loop")
    except ImportError:
        factory = None
    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT)
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(work)
    finally:
        sys.setswitchinterval(interval)
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def all_works(workspace: Workspace, wanted: Wanted) -> list[LedgerWorks]:
    """Works for every declared model."""
    names = [artefact.name for artefact in workspace.system().of_kind("model")]
    first = LedgerWorks(workspace, msgspec.structs.replace(wanted, model=names[0]))
    others = [LedgerWorks(workspace, msgspec.structs.replace(wanted, model=name), first.parts) for name in names[1:]]
    return [first, *others]


def listening(host: str, port: int) -> socket.socket:
    """A socket that is listened on.

    Raises:
        StoreError: it cannot be had.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.create_server(address[:2], family=family, backlog=MAX_CONNECTIONS)
        # Connections inherit it; without it an answer waits for the client's delayed acknowledgement (40 ms).
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except (OSError, OverflowError, UnicodeError) as error:
        raise StoreError(f"{host} port {port} cannot be listened on: {error}", remedy="choose another.") from error
    return listener


@contextlib.contextmanager
def _ended_by_signals(servers: Sequence[Any]) -> Any:
    """A signal that comes before the servers look out for them ends them as well; afterwards it means nothing more."""

    def end(*_: Any) -> None:
        for server in servers:
            server.should_exit = True

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


__all__ = ["Gateway", "listening"]
