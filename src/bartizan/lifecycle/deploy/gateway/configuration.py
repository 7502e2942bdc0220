"""``gateway.toml``: everything that the gateway is told, in one signed document. What is not granted there is denied.

It is declared as a ``[[document]]`` of kind ``configuration`` with the name ``gateway``, so that it is signed, judged
by the gate and verified on schedule like the model. Without one nobody is answered.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any, Literal

import msgspec

from bartizan.core.digest import Digest, digest_bytes
from bartizan.core.errors import InputError
from bartizan.core.system import System
from bartizan.lifecycle.deploy.gateway import roles
from bartizan.lifecycle.deploy.gateway.audit.settings import AuditSettings
from bartizan.lifecycle.deploy.gateway.audit.settings import check as check_audit
from bartizan.lifecycle.deploy.gateway.budgets.settings import BudgetSettings
from bartizan.lifecycle.deploy.gateway.budgets.slowing import SlowingSettings
from bartizan.lifecycle.deploy.gateway.holds import HoldSettings
from bartizan.lifecycle.deploy.gateway.identity.settings import IdentitySettings
from bartizan.lifecycle.deploy.gateway.identity.settings import problems as identity_problems
from bartizan.lifecycle.deploy.gateway.masking import MaskingSettings
from bartizan.lifecycle.deploy.gateway.model_settings import ModelSettings
from bartizan.lifecycle.deploy.gateway.model_settings import check as check_model
from bartizan.lifecycle.deploy.gateway.policy import PolicySettings
from bartizan.lifecycle.deploy.gateway.review import ReviewSettings
from bartizan.lifecycle.deploy.gateway.roles import Role, RoleSettings
from bartizan.lifecycle.deploy.gateway.telemetry.settings import TelemetrySettings
from bartizan.lifecycle.deploy.gateway.upstream.settings import UpstreamSettings, address

DOCUMENT = "gateway"
"""Name of the declared document."""
RATE = "rate of "
"""Begins the name of the budget that a role's own rate is."""
MAX_BYTES = 1 << 20
MOST_GUARDS = 64
_PLACED = frozenset({"use", "mode", "models"})


class GuardUse(msgspec.Struct, frozen=True, kw_only=True):
    """One ``[[guard]]``: which guard, whether it enforces, about which models, and its own settings."""

    use: str
    mode: Literal["shadow", "enforce"] = "enforce"
    models: tuple[str, ...] = ()
    """Names; empty: all."""
    settings: dict[str, Any] = {}

    @property
    def key(self) -> Digest:
        """Names the guard with its settings, so that one that stays the same keeps what it has learnt."""
        return digest_bytes(msgspec.json.encode([self.use, self.settings], order="sorted"))


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The document as it is written."""

    role: Annotated[dict[str, RoleSettings], msgspec.Meta(max_length=256)] = {}
    policy: PolicySettings = PolicySettings()
    identity: IdentitySettings = IdentitySettings()
    budget: Annotated[dict[str, BudgetSettings], msgspec.Meta(max_length=256)] = {}
    slowing: SlowingSettings | None = None
    holds: HoldSettings = HoldSettings()
    review: ReviewSettings = ReviewSettings()
    masking: MaskingSettings = MaskingSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    guard: Annotated[tuple[dict[str, Any], ...], msgspec.Meta(max_length=MOST_GUARDS)] = ()
    model: dict[str, ModelSettings] = {}
    upstream: Annotated[tuple[UpstreamSettings, ...], msgspec.Meta(max_length=64)] = ()
    audit: AuditSettings = AuditSettings()


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """The document as it counts."""

    digest: Digest
    roles: dict[str, Role] = {}
    policy: PolicySettings = PolicySettings()
    identity: IdentitySettings = IdentitySettings()
    budget: dict[str, BudgetSettings] = {}
    """With one for the rate of each role that has one."""
    slowing: SlowingSettings | None = None
    holds: HoldSettings = HoldSettings()
    review: ReviewSettings = ReviewSettings()
    masking: MaskingSettings = MaskingSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    guard: tuple[GuardUse, ...] = ()
    model: dict[str, ModelSettings] = {}
    upstream: tuple[UpstreamSettings, ...] = ()
    audit: AuditSettings = AuditSettings()

    def upstream_of(self, name: str) -> UpstreamSettings | None:
        """The upstream that a model runs on; None when it runs here."""
        wanted = self.of_model(name).upstream
        return next((each for each in self.upstream if each.name == wanted), None) if wanted else None

    def of_model(self, name: str) -> ModelSettings:
        """How a model is served."""
        return self.model.get(name) or ModelSettings()

    def guards(self, model: str) -> tuple[GuardUse, ...]:
        """Guards of a model."""
        return tuple(use for use in self.guard if not use.models or model in use.models)


CLOSED = Configuration(digest=Digest(""))
"""What counts without a document: nobody is granted anything."""


def read(data: bytes, system: System) -> Configuration:
    """Read the document and hold it against the declaration.

    Raises:
        InputError: it is none, or grants what was never assessed; every fault that was found is in the message.
    """
    written = _decoded(data)
    resolved = roles.resolve(written.role)
    configuration = Configuration(
        digest=digest_bytes(data),
        roles=resolved,
        policy=written.policy,
        identity=written.identity,
        budget=written.budget | dict(_rates(resolved)),
        slowing=written.slowing,
        holds=written.holds,
        review=written.review,
        masking=written.masking,
        telemetry=written.telemetry,
        guard=tuple(_use(table) for table in written.guard),
        model=written.model,
        upstream=written.upstream,
        audit=check_audit(written.audit),
    )
    if faults := list(_faults(configuration, system)):
        listed = "; ".join(faults)
        raise InputError(f"gateway.toml grants or names what it cannot: {listed}", remedy="mend it and register it.")
    return configuration


def _decoded(data: bytes) -> _File:
    if len(data) > MAX_BYTES:
        raise InputError(f"gateway.toml has more than {MAX_BYTES} bytes", remedy="is this the right file?")
    try:
        return msgspec.toml.decode(data, type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise InputError(f"gateway.toml: {error}", remedy="docs/gateway/index.md shows every table.") from error


def _rates(resolved: Mapping[str, Role]) -> Iterable[tuple[str, BudgetSettings]]:
    """The budgets that rates of roles are."""
    for role in resolved.values():
        if pace := role.pace():
            count, span = pace
            yield f"{RATE}{role.name}", BudgetSettings(limit=count, window=f"{span}s", burst=count)


def _use(table: Mapping[str, Any]) -> GuardUse:
    own = {name: value for name, value in table.items() if name not in _PLACED}
    placed = {name: value for name, value in table.items() if name in _PLACED}
    try:
        return msgspec.convert(placed | {"settings": own}, GuardUse)
    except msgspec.ValidationError as error:
        raise InputError(
            f"gateway.toml, [[guard]]: {error}", remedy='each has use = "NAME"; mode is shadow or enforce.'
        ) from error


def _faults(configuration: Configuration, system: System) -> Iterable[str]:
    yield from roles.problems(configuration.roles, system.declaration.exposure, set(configuration.budget))
    yield from identity_problems(configuration.identity)
    classes = {part.name: part.classes for part in system.declaration.model}
    named = set(configuration.model) | {name for use in configuration.guard for name in use.models}
    yield from (f"no model is called {name!r}" for name in sorted(named - classes.keys()))
    yield from _upstream_faults(configuration)
    yield from _budget_faults(configuration, classes.keys())
    stranger = configuration.roles.get("anonymous")
    if stranger is not None and any(each.startswith("admin") for each in stranger.operations):
        yield "role.anonymous may not administer"
    for name in sorted(configuration.model.keys() & classes.keys()):
        try:
            check_model(name, configuration.model[name], classes)
        except InputError as error:
            yield error.message


def _budget_faults(configuration: Configuration, models: Collection[str]) -> Iterable[str]:
    """Budgets that count for nobody, or for nothing: mostly a slip of the pen."""
    aliases = {each.serve_as for each in configuration.model.values() if each.serve_as}
    known = {*models, *aliases, *(each.name for each in configuration.upstream)}
    drawn = {name for role in configuration.roles.values() for name in role.budgets}
    for name, budget in configuration.budget.items():
        if not any(budget.covers(each) for each in known):
            yield f"budget.{name} is about no model that is declared"
        if name not in drawn and not budget.always and not name.startswith(RATE):
            yield f"budget.{name} is drawn on by no role; name it in one, or write always = true"


def _upstream_faults(configuration: Configuration) -> Iterable[str]:
    kinds = {each.name: each.speaks for each in configuration.upstream}
    if len(kinds) != len(configuration.upstream):
        yield "two upstreams have the same name"
    for name, settings in configuration.model.items():
        if settings.upstream and kinds.get(settings.upstream, "chat") == "chat":
            yield f"model.{name}.upstream: {settings.upstream!r} is no upstream that classifies"
    for each in configuration.upstream:
        try:
            address(each)
        except InputError as error:
            yield error.message


__all__ = ["CLOSED", "DOCUMENT", "RATE", "Configuration", "GuardUse", "read"]
