"""Budgets of the declared gateway: what is spent of them, filling them up, and deriving them from attacks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import msgspec

from bartizan.core.errors import InputError, WorkError
from bartizan.core.system import Artefact, System
from bartizan.lifecycle.deploy.gateway.budgets.check import ExtractionBudgetCheck
from bartizan.lifecycle.deploy.gateway.budgets.derive import Derived, as_toml
from bartizan.lifecycle.deploy.gateway.budgets.report import Usage, reset, usage
from bartizan.lifecycle.deploy.gateway.budgets.settings import BudgetSettings
from bartizan.lifecycle.deploy.gateway.state import SharedState
from bartizan.lifecycle.plan import Job
from bartizan.lifecycle.runner import Listener
from bartizan.targets.tailored import DETAILS, LABELS
from bartizan.wiring.attacking import Desk, clean_models, with_budget
from bartizan.wiring.notice import choose
from bartizan.wiring.services import CheckServices
from bartizan.wiring.serving import configured
from bartizan.wiring.workspace import Workspace, load

T = TypeVar("T")


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """Budgets that were derived, and what to write."""

    model: str
    fidelity: float
    summary: str
    derived: tuple[Derived, ...]
    toml: str


def budgets_of(tables: Mapping[str, Any]) -> dict[str, BudgetSettings]:
    """The budgets of a configuration.

    Raises:
        InputError: a table is none.
    """
    budgets = {}
    for name, table in tables.items():
        try:
            budgets[name] = msgspec.convert(table, BudgetSettings)
        except msgspec.ValidationError as error:
            raise InputError(
                f"gateway.toml, [budget.{name}]: {error}", remedy="docs/gateway/budgets.md shows every field."
            ) from error
    return budgets


def spent(workspace: Workspace, name: str = "") -> list[Usage]:
    """What is spent of every budget, or of the one named."""
    budgets = budgets_of(configured(workspace.system()).budget)
    return _with_state(workspace, lambda state: usage(state, budgets, name))


def fill_up(workspace: Workspace, name: str, subject: str = "") -> int:
    """Fill up a budget of one subject, or of all; gives how many counts that were."""
    budgets = budgets_of(configured(workspace.system()).budget)
    return _with_state(workspace, lambda state: reset(state, budgets, name, subject))


def _with_state(workspace: Workspace, work: Callable[[SharedState], Awaitable[T]]) -> T:
    location = workspace.settings.location("state")
    if location.startswith("memory:"):
        raise InputError(
            "the counts lie in the memory of the gateway's process, where nobody else can look",
            remedy="set BARTIZAN_STATE to a path or to the address of a Valkey server, for the gateway too.",
        )

    async def whole() -> T:
        state: SharedState = load("bartizan.stores.shared:open_state")(location)
        try:
            return await work(state)
        finally:
            await state.close()

    return asyncio.run(whole())


def derive(
    workspace: Workspace,
    listener: Listener,
    *,
    fidelity: float,
    model: str = "",
    queries: int | None = None,
    labels_only: bool = False,
) -> Proposal:
    """Derive budgets of a declared model from attacks that are run now. Recorded nowhere.

    Raises:
        InputError: extraction does not apply to what is declared.
        WorkError: the model has no clean scan, or cannot be asked.
    """
    system = with_budget(workspace.system(), queries)
    subject = choose(system, model)
    check = ExtractionBudgetCheck(fidelity, (LABELS,) if labels_only else DETAILS)
    if reason := check.why_not(system):
        raise InputError(reason, remedy="see `bartizan attack --list` for what applies.")
    outcome = _tried(workspace, listener, system, check, subject)
    report = json.loads(outcome.report.data) if outcome.report else {}
    derived = msgspec.convert(report["derived"], tuple[Derived, ...])
    return Proposal(
        model=subject.name,
        fidelity=fidelity,
        summary=outcome.predicate.summary,
        derived=derived,
        toml=as_toml(derived, fidelity),
    )


def _tried(
    workspace: Workspace, listener: Listener, system: System, check: ExtractionBudgetCheck, subject: Artefact
) -> Any:
    clean = clean_models(workspace, system)
    if subject.digest not in clean:
        raise WorkError(
            f"{subject.id} has no clean scan and is not loaded", remedy="run `bartizan assure --only scan` first."
        )
    job = Job(check=check, subject=subject, inputs={})
    settings = workspace.settings
    services = CheckServices(settings.path("journals"), clean, settings.values["confinement"])
    listener.started(job)
    return check.run(system, subject, Desk(job, services, listener))


__all__ = ["Proposal", "budgets_of", "derive", "fill_up", "spent"]
