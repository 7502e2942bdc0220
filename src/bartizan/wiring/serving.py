"""Serving: admission from the ledger, the model in its process, and the server in front of both."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import msgspec
import numpy as np

from bartizan.core import predicates
from bartizan.core.digest import Digest, short
from bartizan.core.errors import ArtefactError, InputError, TrustError
from bartizan.core.evidence import Evidence, Standing, Withdrawals, Withdrawn, withdrawals
from bartizan.core.statement import make
from bartizan.core.system import Artefact, System
from bartizan.core.trust import Trust
from bartizan.lifecycle.deploy.gateway.admission import UNHEARD, Admission, Case, Told, admit, refusal
from bartizan.lifecycle.deploy.gateway.configuration import CLOSED, DOCUMENT, Configuration
from bartizan.lifecycle.deploy.gateway.configuration import read as read_configuration
from bartizan.lifecycle.deploy.gateway.explaining import Usual, explained
from bartizan.lifecycle.deploy.gateway.passes import Grants, Holder, Pass, write
from bartizan.lifecycle.deploy.gateway.protocol import Description
from bartizan.lifecycle.deploy.gateway.schedule import (
    Remembered,
    Served,
    alerts,
    worth_recording,
)
from bartizan.lifecycle.design.guidance import notice
from bartizan.redteam.check import material_of
from bartizan.redteam.family import Material
from bartizan.targets.explanation import usual_row
from bartizan.targets.protocol import Target
from bartizan.wiring.assure import Situation, gate_of, situation
from bartizan.wiring.deciding import key_for
from bartizan.wiring.gateway_parts import ChangedError, Parts, document_of, reports
from bartizan.wiring.hosting import Opened, check_classes, open_model, open_upstream
from bartizan.wiring.workspace import Workspace

KIND = "verify"
"""Kind of the observations that verification leaves."""
MOST_SECONDS = 24 * 3600
PLACE = "gateway"
"""Of deployments that administration states."""
ATTEMPTS = 3
"""Times that a verification begins again because something was exchanged meanwhile."""
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
        grants = self._grants(system)
        self.parts.learn(grants)
        return msgspec.structs.replace(
            admission,
            told=told(now, self._model.name),
            grants=grants,
            withdrawn=withdrawn(now.evidence, self._model),
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


_SAID = frozenset({Standing.HOLDS, Standing.STALE, Standing.EXPIRED})


def withdrawn(evidence: tuple[Evidence, ...], model: Artefact) -> str:
    """Why somebody took a model out of service, by the newest word about these bytes; empty when nobody has.

    A word lasts until the next one: what else has changed meanwhile, such as the configuration, takes nothing back.
    """
    said = [
        item
        for item in evidence
        if item.standing in _SAID
        and item.statement is not None
        and item.statement.predicate_type == predicates.DEPLOYMENT
        and item.statement.predicate.get("place") == PLACE
        and model.digest in item.statement.about()
    ]
    if not said:
        return ""
    newest: Any = max(said, key=lambda item: item.seq).statement
    deployment = newest.read()
    return f"withdrawn: {deployment.details.get('reason', '')}" if deployment.action == "stop" else ""


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


__all__ = [
    "KIND",
    "LedgerWorks",
    "PassWanted",
    "Tls",
    "Wanted",
    "choose",
    "configured",
    "describe",
    "holders",
    "make_pass",
    "remembered",
    "seconds_of",
]
