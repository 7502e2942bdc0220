"""What all models of a gateway share, made from its configuration: callers, policy, budgets, audit log, state."""

from __future__ import annotations

import asyncio
import os
import secrets
import threading
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from bartizan.core.digest import Digest, digest_bytes
from bartizan.core.errors import ArtefactError, InputError, StoreError
from bartizan.core.evidence import Evidence
from bartizan.core.system import Artefact, System
from bartizan.lifecycle.deploy.gateway import registry
from bartizan.lifecycle.deploy.gateway.admission import Admission
from bartizan.lifecycle.deploy.gateway.admittance import Admittance, rights
from bartizan.lifecycle.deploy.gateway.asgi import Bodies
from bartizan.lifecycle.deploy.gateway.audit.record import AuditLog
from bartizan.lifecycle.deploy.gateway.budgets.leased import LeasedBudgets
from bartizan.lifecycle.deploy.gateway.budgets.slowing import Slowing
from bartizan.lifecycle.deploy.gateway.casework import Casework
from bartizan.lifecycle.deploy.gateway.chatting import Chats
from bartizan.lifecycle.deploy.gateway.configuration import MAX_BYTES, Configuration
from bartizan.lifecycle.deploy.gateway.expected import expected_columns
from bartizan.lifecycle.deploy.gateway.front import Front
from bartizan.lifecycle.deploy.gateway.guard import Guard, Material
from bartizan.lifecycle.deploy.gateway.identity.keys import Change
from bartizan.lifecycle.deploy.gateway.passes import Grants
from bartizan.lifecycle.deploy.gateway.pipeline import Pipeline, Placed
from bartizan.lifecycle.deploy.gateway.policy import Attributes, Policy
from bartizan.lifecycle.deploy.gateway.routes import OPEN, ROUTES
from bartizan.lifecycle.deploy.gateway.state import SharedState
from bartizan.lifecycle.deploy.gateway.tailoring import Tailoring
from bartizan.lifecycle.deploy.gateway.telemetry.counters import Counters
from bartizan.lifecycle.deploy.gateway.telemetry.port import Telemetry
from bartizan.lifecycle.deploy.gateway.upstream.settings import UpstreamSettings
from bartizan.redteam.family import Material as Declared
from bartizan.wiring.auditing import Recording, act
from bartizan.wiring.gatekeys import Identity, attributes_of
from bartizan.wiring.gateway_telemetry import telemetry_of
from bartizan.wiring.results import read_report
from bartizan.wiring.reviewing import casework, masker_of
from bartizan.wiring.workspace import Workspace, load

NO_DIGEST = Digest("")
NOISE_KEY = "gateway-noise.key"
KEY_BYTES = 32


class ChangedError(ArtefactError):
    """Something was exchanged while it was verified: what holds now is found out by verifying again."""


class Parts:
    """Made once for a process. ``front`` is replaced when another configuration was admitted."""

    def __init__(self, workspace: Workspace, models: dict[str, tuple[str, ...]]) -> None:
        self.workspace, self.classes = workspace, models
        self._guards: dict[tuple[Digest, Digest], Guard] = {}
        self._front: Front | None = None
        self._steered: tuple[Digest, Digest] = (NO_DIGEST, NO_DIGEST)
        """Digests of the documents that the front is made from."""
        self._identity: Identity | None = None
        self._digests: dict[str, Digest] = {}
        self._lock = threading.Lock()
        """Several models are verified on threads of their own."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._recording: Recording | None = None
        self._casework: Casework | None = None
        self._chats: Chats | None = None
        self._ending: list[LeasedBudgets | Slowing] = []
        """Of all configurations that were in force; they give back and tell what is left in the end."""
        self.upstreams: tuple[UpstreamSettings, ...] = ()
        self.counters = Counters()
        self.telemetry = Telemetry(self.counters)
        self._left: list[Telemetry] = []
        """Of configurations that were replaced; closed in the end."""
        self.system = workspace.system()
        """As it was verified last."""

    @cached_property
    def state(self) -> SharedState:
        """What replicas share."""
        state: SharedState = load("bartizan.stores.shared:open_state")(self.workspace.settings.location("state"))
        return state

    @cached_property
    def noise_key(self) -> bytes:
        """Key of the noise in answers; the same for all replicas that share the folder of keys."""
        path = self.workspace.settings.path("keys") / NOISE_KEY
        try:
            return _made_once(path)
        except OSError as error:
            raise StoreError(f"{path} cannot be had: {error}", remedy="give access to the folder of keys.") from error

    def front(self) -> Front:
        """What is in force now."""
        if self._front is None:
            raise InputError("nothing was admitted yet")
        return self._front

    def take(self, admission: Admission) -> None:
        """Put an admitted configuration into force. Called on the thread that verifies.

        Raises:
            BartizanError: it cannot be put into force; what was before stays.
        """
        with self._lock:
            self._take(admission)

    def learn(self, grants: Grants) -> None:
        """Take over whose passes count, whether a model is admitted or not."""
        with self._lock:
            if self._identity is not None and self._identity.passes is not None:
                self._identity.passes.learn(grants.holders, tuple(self._digests.values()))

    def _take(self, admission: Admission) -> None:
        configuration = admission.configuration
        steered = (configuration.digest, admission.inputs.get(f"document:{configuration.policy.cedar}", NO_DIGEST))
        if self._front is None or self._steered != steered:
            front, identity, casework = self._made(configuration)
            self._front, self._steered = front, steered
            self._replace(identity, casework)
        if admission.digest:
            self._digests[admission.model] = admission.digest
        if self._identity is not None and self._identity.passes is not None:
            self._identity.passes.learn(admission.grants.holders, tuple(self._digests.values()))

    def _made(self, configuration: Configuration) -> tuple[Front, Identity, Casework]:
        """Everything of a configuration. Raises BartizanError when something of it cannot be had."""
        roles, workspace, self.upstreams = configuration.roles, self.workspace, configuration.upstream
        attributes = self._attributes(configuration)
        mask = masker_of(workspace, configuration.masking).content
        if self._recording is not None:
            self._recording.adopt(configuration.audit, mask)
        else:
            self._recording = Recording(workspace, configuration.audit, configuration=configuration.digest, mask=mask)
        identity = Identity(
            workspace,
            configuration.identity,
            self.state,
            anonymous="anonymous" in roles,
            policy=configuration.policy,
            changed=self._keys_changed,
        )
        try:
            return self._put_together(configuration, identity, attributes, self._recording.log)
        except BaseException:
            identity.close()
            raise

    def _put_together(
        self, configuration: Configuration, identity: Identity, attributes: Attributes | None, log: AuditLog
    ) -> tuple[Front, Identity, Casework]:
        roles = configuration.roles
        identity.load()
        policy = Admittance(
            Policy(
                {name: rights(role) for name, role in roles.items()},
                configuration.policy,
                attributes,
                configuration.digest,
            ),
            roles,
        )
        teller = Tailoring(self.classes, self.noise_key)
        slowing = Slowing(configuration.slowing, self.state) if configuration.slowing else None
        budgets = LeasedBudgets(configuration.budget, self.state) if configuration.budget else None
        self._ending += [each for each in (budgets, slowing) if each is not None]
        cases = self._cases(configuration, policy, teller)
        front = Front(
            configuration=configuration.digest,
            callers=identity.chain,
            policy=policy,
            log=log,
            teller=teller,
            budgets=budgets,
            signatures=identity.signatures,
            factors=identity.factors,
            pacing=slowing,
            cases=cases,
            watchers=[each for each in (self._told(configuration), slowing) if each is not None],
        )
        return front, identity, cases

    def _keys_changed(self, changes: tuple[Change, ...]) -> None:
        """Record what became of API keys, whoever did it."""
        loop, recording = self._loop, self._recording
        if loop is None or recording is None:
            return
        records = [
            act(
                f"admin.key.{each.kind}",
                configuration=self.front().configuration,
                reasons=(f"{each.key}: {each.role}",),
            )
            for each in changes
        ]
        loop.call_soon_threadsafe(lambda: [recording.log.append(record) for record in records])

    def _told(self, configuration: Configuration) -> Telemetry:
        """Whoever is told of records and of what happens; numbers go on through a change of the configuration."""
        self._left.append(self.telemetry)
        self.telemetry = telemetry_of(configuration.telemetry, self.counters, self.workspace.folder)
        return self.telemetry

    def _attributes(self, configuration: Configuration) -> Attributes | None:
        """Policies over attributes, where the configuration names a document with them."""
        name = configuration.policy.cedar
        if not name:
            return None
        document = document_of(self.system, name)
        if document is None:
            raise InputError(f"policy.cedar names {name!r}, which is not declared", remedy="add it as a [[document]].")
        operations = tuple(dict.fromkeys(route.operation for route in ROUTES if route.operation != OPEN))
        return attributes_of(document.decode("utf-8", "replace"), operations)

    def _cases(self, configuration: Configuration, policy: Admittance, teller: Tailoring) -> Casework:
        return casework(
            self.workspace,
            self.classes,
            holds=configuration.holds,
            review=configuration.review,
            policy=policy,
            teller=teller,
        )

    def _replace(self, identity: Identity, cases: Casework) -> None:
        """What is new is in force already; what it replaced ends."""
        old, self._identity = self._identity, identity
        waiting, self._casework = self._casework, cases
        loop = self._loop
        if loop is not None:
            loop.call_soon_threadsafe(self._restart)
        if old is not None:
            old.close()
        if waiting is not None:
            waiting.close()

    def described(self) -> dict[str, Any]:
        """What the control plane tells of what all models share."""
        recording = self._recording
        log: Any = recording.log if recording else None
        return {
            "audit": {"trouble": log.trouble if log else "", "waiting": log.waiting if log else 0},
            "witnesses": {"trouble": recording.trouble if recording else ""},
        }

    # ---- on the event loop

    async def run(self) -> None:
        """Keep everything fresh, until cancelled."""
        self._loop = asyncio.get_running_loop()
        self._restart()
        try:
            await asyncio.Event().wait()
        finally:
            self._stop()

    def _restart(self) -> None:
        self._stop()
        for job in self._identity.tasks() if self._identity else ():
            task = asyncio.ensure_future(job)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()

    def chats(self, bodies: Bodies) -> Chats:
        """Upstreams that are chatted with. Another configuration of them needs a restart."""
        found = {}
        for settings in self.upstreams:
            if settings.speaks == "chat":
                try:
                    found[settings.name] = settings, load("bartizan.adapters.upstream.chat:ChatUpstream")(settings)
                except ImportError as error:
                    raise InputError("upstreams need a library", remedy="pip install 'bartizan[serve]'.") from error
        self._chats = Chats(found, bodies)
        return self._chats

    def pipeline(self, configuration: Configuration, material: Material) -> Pipeline:
        """Guards of one model. One whose settings and model stay the same keeps what it has learnt.

        Raises:
            InputError: a guard cannot be made from its settings.
            ArtefactError: something that it needs was not fitted.
        """
        placed = []
        for use in configuration.guards(material.model):
            key = (use.key, material.digest)
            guard = self._guards.get(key)
            if guard is None:
                guard = self._guards[key] = registry.make(use, material)
            if use.mode == "shadow" and getattr(guard, "must_enforce", False):
                raise InputError(
                    f"the guard {use.use} may not only watch {material.model}: the model is less certain than allowed",
                    remedy='mode = "enforce".',
                )
            placed.append(Placed(guard, use.mode == "enforce"))
        return Pipeline(placed)

    def material(self, system: System, model: Artefact, declared: Declared, fitted: Callable[[str], bytes]) -> Material:
        """What guards of a model are made from."""
        part = system.dataset_part(system.model_part(model.name).trained_on)
        value_range = getattr(part, "value_range", None) or None
        return Material(
            model=model.name,
            digest=model.digest,
            classes=self.classes[model.name],
            columns=expected_columns(part, declared.space),
            shape=tuple(declared.shape or ()),
            value_range=(float(value_range[0]), float(value_range[1])) if value_range else None,
            fitted=fitted,
            state=self.state,
        )

    async def close(self) -> None:
        """Write everything that waits, and let go. A second time there is nothing left to do."""
        recording, self._recording = self._recording, None
        cases, self._casework = self._casework, None
        identity, self._identity = self._identity, None
        chats, self._chats = self._chats, None
        if chats is not None:
            await chats.close()
        for each in self._ending:
            await each.close()
        self._ending.clear()
        if cases is not None:
            await asyncio.to_thread(cases.close)
        if recording is not None:
            await recording.close()
        told, self._left, self.telemetry = [*self._left, self.telemetry], [], Telemetry(self.counters)
        for telemetry in told:
            await telemetry.close()
        if identity is not None:
            identity.close()
        state: SharedState | None = self.__dict__.pop("state", None)
        if state is not None:
            await state.close()


def reports(workspace: Workspace, evidence: tuple[Evidence, ...], model: Artefact) -> Callable[[str], bytes]:
    """Finds the report of the newest standing statement of a check about a model."""

    def fitted(check: str) -> bytes:
        standing = [
            item
            for item in evidence
            if item.check == check and item.holds and item.statement and model.digest in item.statement.about()
        ]
        if not standing:
            raise ArtefactError(
                f"no statement of {check} about {model.id} stands",
                remedy=f"run `bartizan assure --only {check}`; what a guard needs is fitted there.",
            )
        newest = max(standing, key=lambda item: item.seq)
        said: Any = newest.statement.read() if newest.statement else None
        return read_report(workspace.blobs.get(Digest(said.report.digest["sha256"]))).inner()

    return fitted


def document_of(system: System, name: str, kind: str = "") -> bytes | None:
    """The bytes of a declared document, which are those that were verified; None when none of the name is declared.

    Raises:
        ArtefactError: they cannot be read, or are others meanwhile.
    """
    part = next((each for each in system.declaration.document if each.name == name), None)
    if part is None or (kind and part.kind != kind):
        return None
    document = system.artefact(f"document:{name}")
    path = Path(document.path)
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ArtefactError(f"{path.name} cannot be read: {error}", remedy="give read access.") from error
    if digest_bytes(data) != document.digest:
        raise ChangedError(f"{path.name} changed while it was verified", remedy="wait for the next verification.")
    return data


def _made_once(path: Path) -> bytes:
    """A random key that lies in a file, made by whoever comes first."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        for _ in range(50):
            if len(key := path.read_bytes()) == KEY_BYTES:
                return key
            time.sleep(0.02)
        raise StoreError(f"{path} is no key of {KEY_BYTES} bytes", remedy="restore it from a backup.") from None
    with os.fdopen(handle, "wb") as stream:
        key = secrets.token_bytes(KEY_BYTES)
        stream.write(key)
    return key


__all__ = ["ChangedError", "Parts", "document_of", "reports"]
