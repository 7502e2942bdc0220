"""Suppliers: what they are held to and what may come from them, as decisions that end."""

from __future__ import annotations

import re
from datetime import timedelta

import msgspec

from bartizan.core import predicates
from bartizan.core.digest import Digest
from bartizan.core.durations import deadline
from bartizan.core.errors import InputError
from bartizan.core.evidence import Evidence
from bartizan.core.statement import make
from bartizan.lifecycle.develop.intake.policy import record_of, supplier_artefact
from bartizan.lifecycle.develop.intake.questions import Supplier
from bartizan.wiring.deciding import key_for, may_decide
from bartizan.wiring.workspace import Workspace

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
"""Of a supplier, or of what comes from one."""


class Suppliers:
    """The suppliers of a project."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    def record(self, name: str, record: Supplier, *, role: str, expires: str, key: str) -> Digest:
        """Sign a record as a decision that ends; the newest one counts."""
        if not NAME.match(name):
            raise InputError(f"{name[:80]!r} is no name", remedy="letters, digits, dot, dash and underscore.")
        signer = self.workspace.signer(key or key_for(self.workspace, role))
        may_decide(self.workspace, signer.keyid, role, "supplier")
        now = self.workspace.clock()
        ends = deadline(expires, now)
        if ends <= now + timedelta(minutes=1):
            raise InputError(f"{expires} is over already", remedy="give a later end, such as 1y.")
        said = predicates.Decision(
            kind="supplier",
            outcome="yes",
            reason=f"{record.service} supplier, held to: {record.expectations}"[:500],
            role=role,
            expires=ends,
            details=msgspec.to_builtins(record),
            decided_at=now,
        )
        return self.workspace.publish(make(predicates.DECISION, supplier_artefact(name), said), signer)

    def evidence(self, name: str) -> list[Evidence]:
        """Everything that was said about a supplier, oldest first."""
        with self.workspace.view() as view:
            return self.workspace.evidence(view, [supplier_artefact(name).digest], {})

    def current(self, name: str) -> Supplier | None:
        """The record that counts now; None when there is none, or when the newest is over."""
        item = record_of(supplier_artefact(name), self.evidence(name))
        if item is None or item.statement is None or item.statement.read().outcome != "yes":
            return None
        try:
            return msgspec.convert(item.statement.read().details, Supplier)
        except msgspec.ValidationError as error:
            raise InputError(
                f"the record of {name} cannot be read: {error}", remedy=f"run `bartizan supplier record {name}` again."
            ) from error
