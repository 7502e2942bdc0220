"""Serving: admission from the ledger, the model in its process, and the server in front of both."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import socket
import ssl
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any

import msgspec
import numpy as np

from bartizan.core import predicates
from bartizan.core.digest import Digest, short
from bartizan.core.errors import ArtefactError, InputError, StoreError, TrustError
from bartizan.core.evidence import Evidence, Withdrawals, Withdrawn, withdrawals
from bartizan.core.statement import make
from bartizan.core.system import Artefact, System
from bartizan.core.trust import Trust
from bartizan.lifecycle.deploy.gateway.administration import ROUTES as ADMIN_ROUTES
from bartizan.lifecycle.deploy.gateway.administration import Administration
from bartizan.lifecycle.deploy.gateway.admission import UNHEARD, Admission, Case, Told, admit, refusal
from bartizan.lifecycle.deploy.gateway.answering import Desk
from bartizan.lifecycle.deploy.gateway.application import Application
from bartizan.lifecycle.deploy.gateway.asgi import Bodies
from bartizan.lifecycle.deploy.gateway.configuration import CLOSED, DOCUMENT, Configuration
from bartizan.lifecycle.deploy.gateway.configuration import read as read_configuration
from bartizan.lifecycle.deploy.gateway.explaining import Usual, explained
from bartizan.lifecycle.deploy.gateway.passes import Grants, Holder, Pass, write
from bartizan.lifecycle.deploy.gateway.protocol import MAX_BODY_BYTES, Description
from bartizan.lifecycle.deploy.gateway.routes import Table
from bartizan.lifecycle.deploy.gateway.schedule import (
    Door,
    Remembered,
    Schedule,
    Served,
    alerts,
    opening,
    patience,
    recording,
    worth_recording,
)
from bartizan.lifecycle.deploy.gateway.serving import Lane, Lanes
from bartizan.lifecycle.design.guidance import notice
from bartizan.redteam.check import material_of
from bartizan.redteam.family import Material
from bartizan.targets.explanation import usual_row
from bartizan.targets.protocol import Target
from bartizan.wiring.assure import Situation, gate_of, situation
from bartizan.wiring.backstage import Behind
from bartizan.wiring.deciding import key_for
from bartizan.wiring.gateway_parts import ChangedError, Parts, document_of, reports
from bartizan.wiring.hosting import Opened, check_classes, open_model, open_upstream
from bartizan.wiring.workspace import Workspace, load

KIND = "verify"
"""Kind of the observations that verification leaves."""
MOST_SECONDS = 24 * 3600
ATTEMPTS = 3
"""Times that a verification begins again because something was exchanged meanwhile."""
MAX_CONNECTIONS = 256
KEEP_ALIVE_SECONDS = 5
GRACEFUL_SECONDS = 10
_UNITS = {"s": 1, "min": 60, "h": 3600}
_SPAN = re.compile(r"([1-9][0-9]{0,4})(s|min|h)")


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """Files for TLS, PEM."""

    certificate: str
    key: str
    clients: str = ""
    """Authorities whose client certificates are asked for; empty: none is asked for."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be served, and how."""

    model: str
    """Name of a declared model; empty takes the only one."""
    gate: str
    host: str
    port: int
    """0 takes a free one."""
    recheck: str
    """``60s``, ``5min``, ``1h``."""
    admin_port: int | None = None
    """Of the control plane, on loopback unless ``admin_host`` says otherwise; None: there is none."""
    admin_host: str = "127.0.0.1"
    tls: Tls | None = None


def seconds_of(text: str, what: str = "time between verifications") -> float:
    """A span of 1 second to 24 hours.

    Raises:
        InputError: it is none.
    """
    match = _SPAN.fullmatch(text)
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 1 <= seconds <= MOST_SECONDS:
        raise InputError(f"not a {what}: {text[:80]!r}", remedy="write 60s, 5min or 1h; 24h most.")
    return float(seconds)


class LedgerWorks:
    """See ``schedule.Works``. Used by one thread."""

    def __init__(self, workspace: Workspace, wanted: Wanted, parts: Parts | None = None) -> None:
        self._workspace, self._gate = workspace, wanted.gate
        self._system = workspace.system()
        gate_of(self._system, wanted.gate)
        self._model = choose(self._system, wanted.model)
        self._last: Remembered | None = None
        self._evidence: tuple[Evidence, ...] = ()
        names = {part.name: part.classes for part in self._system.declaration.model}
        self.parts = parts or Parts(workspace, names)

    @property
    def name(self) -> str:
        """Name of the model."""
        return self._model.name

    def examine(self) -> Admission:
        """See ``Works.examine``."""
        try:
            for _ in range(ATTEMPTS):
                with contextlib.suppress(ChangedError):
                    return self._examine()
            return self._examine()
        except Exception as error:  # noqa: BLE001 - whatever hinders verification, nothing is admitted
            at = max(self._workspace.clock(), self._last.at) if self._last else self._workspace.clock()
            return refusal(self._model.id, self._inputs(), error, at)

    def _examine(self) -> Admission:
        system = self._workspace.system()
        now = situation(self._workspace, system)
        self._system, self._model = system, choose(system, self._model.name)
        self._evidence, self.parts.system = now.evidence, now.system
        if self._last is None:
            self._last = remembered(now.evidence, self._model)
        admission = admit(
            Case(
                system=now.system,
                model=self._model,
                gate=self._gate,
                policy=gate_of(system, self._gate),
                evidence=now.evidence,
                now=now.now,
            )
        )
        return msgspec.structs.replace(
            admission,
            told=told(now, self._model.name),
            grants=self._grants(system),
            configuration=configured(system) if admission.admitted else CLOSED,
        )

    def _grants(self, system: System) -> Grants:
        """Who may be told more, by the declaration and the trust document as they are now."""
        with self._workspace.view() as view:
            trust, gone = view.trust, withdrawals(view)
            now = self._workspace.now(view)
        return Grants(explanations=system.declaration.exposure.explanations, holders=holders(trust, gone, now))

    def _inputs(self) -> dict[str, Digest]:
        return {artefact.id: artefact.digest for artefact in self._system.artefacts}

    def open(self, admission: Admission) -> Served:
        """See ``Works.open``. Only bytes of the digest that was admitted are opened."""
        if admission.inputs != self._inputs():
            raise ArtefactError("the system changed after it was admitted", remedy="wait for the next verification.")
        configuration = admission.configuration
        self.parts.take(admission)
        declared = material_of(self._system, self._model)
        opened = self._opened(configuration, declared)
        try:
            check_classes(opened, self._system, self._model)
            fitted = reports(self._workspace, self._evidence, self._model)
            material = self.parts.material(self._system, self._model, declared, fitted)
            pipeline = self.parts.pipeline(configuration, material)
            described = describe(self._system, self._model, opened, declared)
            explain = explaining(opened.target, declared, described) if admission.grants.explanations else None
        except BaseException:
            opened.host.close()
            raise
        return Served(described, opened.host, pipeline, explain, opened.thread)

    def _opened(self, configuration: Configuration, declared: Material) -> Opened:
        name = self._model.name
        upstream = configuration.upstream_of(name)
        if upstream is not None:
            classes = self._system.model_part(name).classes
            return open_upstream(upstream, classes, tuple(declared.training.columns))
        hosting = configuration.of_model(name).hosting
        return open_model(self._workspace, self._system, self._model, hosting, declared)

    def confirm(self, admission: Admission) -> None:
        """See ``Works.confirm``."""
        self.parts.take(admission)

    def record(self, admission: Admission) -> None:
        """See ``Works.record``."""
        if not worth_recording(self._last, admission):
            return
        since = self._last.at if self._last else admission.at
        said = make(
            predicates.OBSERVATION,
            {name: digest for name, digest in admission.inputs.items() if not name.startswith("dataset:")},
            predicates.Observation(
                kind=KIND,
                observed_from=min(since, admission.at),
                observed_until=admission.at,
                alerts=alerts(admission),
                summary=_summary(admission, self._gate),
                inputs=tuple(predicates.Input.of(name, digest) for name, digest in sorted(admission.inputs.items())),
            ),
        )
        self._workspace.publish(said, self._workspace.service)
        self._last = Remembered(alerts(admission), admission.inputs, admission.at)

    def may_record(self) -> None:
        """Refuse a key that may not say what verification finds.

        Raises:
            TrustError: the trust document does not let the service key sign observations.
        """
        with self._workspace.view() as view:
            keyid, now = self._workspace.service.keyid, self._workspace.now(view)
            if reason := view.trust.why_not(keyid, predicates.OBSERVATION, now):
                raise TrustError(f"the service key may not record verifications: {reason}", remedy="see `trust show`.")


def configured(system: System) -> Configuration:
    """What the gateway is told, by the document that is declared for it; closed when none is.

    Raises:
        InputError: it cannot be read, or grants what was never assessed.
        ArtefactError: its bytes are not those that were verified.
    """
    data = document_of(system, DOCUMENT, "configuration")
    return CLOSED if data is None else read_configuration(data, system)


def explaining(
    target: Target | None, material: Material, described: Description
) -> Callable[[Any], dict[str, Any]] | None:
    """Explains rows against medians of the declared training data; None for what runs on an upstream."""
    if target is None:
        return None
    usual = Usual(material.training.columns, usual_row(material.training.rows, material.space.categorical))
    return lambda rows: {"explanations": explained(target, np.asarray(rows, dtype=np.float64), usual, described)}


def holders(trust: Trust, gone: Withdrawals, now: datetime) -> tuple[Holder, ...]:
    """Everybody whose passes count: whom the trust document names, without keys that were withdrawn."""
    if now >= trust.expires:
        return ()
    withdrawn = {keyid for keyid, items in gone.items() for item in items if item.target == "key" and _since(item, now)}
    return tuple(
        Holder(
            id=who.id,
            keyid=who.keyid,
            public_key=who.public_key,
            roles=who.roles,
            not_before=who.not_before,
            not_after=min(who.not_after, trust.expires),
        )
        for who in trust.principals
        if who.keyid not in withdrawn
    )


def _since(item: Withdrawn, now: datetime) -> bool:
    return item.effective_from <= now


class PassWanted(msgspec.Struct, frozen=True, kw_only=True):
    """A pass as somebody asked for it."""

    role: str
    model: str = ""
    lasts: str = "1h"
    key: str = ""


def make_pass(workspace: Workspace, wanted: PassWanted) -> str:
    """Sign a pass for the model as it is declared now; gives the bearer token.

    Raises:
        InputError: the time cannot be read, or there are several models and none is named.
        TrustError: the key does not hold the role.
    """
    signer = workspace.signer(wanted.key or key_for(workspace, wanted.role))
    with workspace.view() as view:
        owner, now = view.trust.principal_of(signer.keyid), workspace.now(view)
    if owner is None or wanted.role not in owner.roles:
        who = owner.id if owner else f"key {signer.keyid[:12]}"
        remedy = f"let the root holder run `bartizan trust grant NAME --role {wanted.role}`."
        raise TrustError(f"{who} does not hold the role {wanted.role}", remedy=remedy)
    model = choose(workspace.system(), wanted.model)
    until = now + timedelta(seconds=seconds_of(wanted.lasts, "time for a pass"))
    return write(Pass(role=wanted.role, model=model.digest, not_before=now, not_after=until), signer)


def told(now: Situation, model: str) -> Told | None:
    """The notice to users of a model, from what stands now."""
    made = notice.of_evidence(now.system, model, now.evidence)
    if made is None:
        return None
    return Told(
        digest=made.digest,
        markdown=made.markdown,
        html=made.html,
        plain=msgspec.to_builtins(made.document),
        beside={"uncertainty": made.uncertainty, "note": made.note},
    )


def choose(system: System, name: str) -> Artefact:
    """The model that is served. Raises InputError when it has to be chosen."""
    models = {artefact.name: artefact for artefact in system.of_kind("model")}
    if not name and len(models) == 1:
        return next(iter(models.values()))
    if name not in models:
        known = ", ".join(models)
        raise InputError(f"no model is called {name!r}", remedy=f"give --model; declared are: {known}.")
    return models[name]


def describe(system: System, model: Artefact, opened: Opened, material: Material) -> Description:
    """What clients may know of a model that was opened."""
    part = system.model_part(model.name)
    return Description(
        name=model.name,
        digest=model.digest,
        features=opened.asking.features,
        classes=part.classes,
        uses=part.uses,
        prohibited_uses=part.prohibited_uses,
        limits=part.limits,
        dtype="<f4" if opened.asking.dtype == np.float32 else "<f8",
        columns=tuple(material.training.columns),
        shape=tuple(material.shape or ()),
    )


def remembered(evidence: tuple[Evidence, ...], model: Artefact) -> Remembered | None:
    """The newest observation of a verification of this model that somebody trusted has signed."""
    for item in reversed(evidence):
        said = item.statement.read() if item.statement and item.standing not in UNHEARD else None
        if isinstance(said, predicates.Observation) and said.kind == KIND and item.statement is not None:
            inputs = item.statement.inputs()
            if model.id in inputs:
                return Remembered(said.alerts, inputs, said.observed_until)
    return None


def _summary(admission: Admission, gate: str) -> str:
    digest = short(admission.digest or "")
    if admission.admitted:
        return f"{admission.model} ({digest}) was verified against gate {gate} and is served."
    return f"{admission.model} ({digest}) is not served: {admission.reason}"[:2000]


# ---- the server


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
            served = [(self._server(data, wanted.tls), stack.enter_context(listening(wanted.host, wanted.port)))]
            if wanted.admin_port is not None:
                listener = stack.enter_context(listening(wanted.admin_host, wanted.admin_port))
                served.append((self._server(self._control(lanes, bodies), wanted.tls), listener))
            tell([listener.getsockname()[:2] for _, listener in served])
            stack.enter_context(_ended_by_signals())
            _runner(self._run(served, lanes, bodies))

    def _control(self, lanes: Lanes, bodies: Bodies) -> Application:
        """The control plane."""
        behind = Behind(self._parts.workspace, lanes, self._parts.telemetry)
        desk = Administration(lanes, bodies, behind, self._parts.described)
        return Application(self._parts.front, desk.handlers(), desk.model_of, Table(ADMIN_ROUTES))

    def close(self) -> None:
        """End the processes of models."""
        for _, lane in self._lanes:
            old = lane.door.move(lane.door.admission, None)
            if old is not None:
                old.close()
        asyncio.run(self._parts.close())

    async def _run(self, served: list[tuple[Any, socket.socket]], lanes: Lanes, bodies: Bodies) -> None:
        schedules = [
            Schedule(works, lane.door, seconds=self._seconds, changed=lambda _: lanes.arrange())
            for works, lane in self._lanes
        ]
        jobs = [each.run() for each in schedules] + [bodies.watch(), self._parts.run()]
        beside = [asyncio.create_task(job) for job in jobs]
        try:
            await asyncio.gather(*(server.serve(sockets=[listener]) for server, listener in served))
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
                **_tls(tls),
            )
            return load("uvicorn:Server")(config)
        except ImportError as error:
            raise InputError("the server is not installed", remedy="pip install 'bartizan[serve]'.") from error


def _tls(tls: Tls | None) -> dict[str, Any]:
    if tls is None:
        return {}
    files: dict[str, Any] = {"ssl_certfile": tls.certificate, "ssl_keyfile": tls.key}
    if not tls.clients:
        return files
    protocol = load("bartizan.adapters.uvicorn_tls:TlsProtocol")
    return files | {"ssl_ca_certs": tls.clients, "ssl_cert_reqs": ssl.CERT_OPTIONAL, "http": protocol}


def _runner(work: Coroutine[Any, Any, None]) -> None:
    """Run it on uvloop where that is installed: it takes a third less time."""
    try:
        factory = load("uvloop:new_event_loop")
    except ImportError:
        factory = None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(work)


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
def _ended_by_signals() -> Any:
    """The server ends by itself on these signals; sent on to us afterwards, they mean nothing more."""
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


__all__ = [
    "Gateway",
    "LedgerWorks",
    "PassWanted",
    "Wanted",
    "choose",
    "describe",
    "holders",
    "listening",
    "make_pass",
    "remembered",
    "seconds_of",
]
