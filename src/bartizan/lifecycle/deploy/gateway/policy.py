"""Who may do what: roles first, then policies over attributes where there are any. What nobody allows is denied.

A decision is made once for each caller, model and operation, and remembered; another configuration is another
policy. Reasons are for the audit record: whoever is refused is told the status and no more.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Protocol

import msgspec

from bartizan.core.digest import Digest
from bartizan.lifecycle.deploy.gateway.caller import Caller
from bartizan.lifecycle.deploy.gateway.failures import RequestError
from bartizan.lifecycle.deploy.gateway.identity.memory import Remembered
from bartizan.lifecycle.deploy.gateway.identity.refusal import FactorError
from bartizan.lifecycle.deploy.gateway.identity.settings import STRONG

DETAIL = "detail."
"""What of an answer is shown is asked of the policies as one more operation: ``detail.scores``."""
ADMIN = "admin."
LEAST = "label"
REMEMBERED = 16_384


class PolicySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[policy]`` of the gateway's configuration."""

    cedar: Annotated[str, msgspec.Meta(max_length=128)] = ""
    """Name of a declared document with Cedar policies; both roles and these have to allow what is asked."""
    privileged: tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=64)], ...] = ("admin.*",)
    """Operations that need a second factor in every role; ``.*`` at the end stands for all below."""
    confirmed: Annotated[int, msgspec.Meta(ge=0, le=3600)] = 300
    """Seconds for which a one-time code counts for everything else, from the address that it came from."""
    factors: Annotated[
        tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=64)], ...], msgspec.Meta(min_length=1)
    ] = STRONG
    """What counts as a second factor (RFC 8176)."""


class Rights(msgspec.Struct, frozen=True, kw_only=True):
    """What one role may do at most."""

    operations: tuple[str, ...] = ()
    """``infer``, ``explain``, ``metadata``, ``chat`` ...; ``.*`` at the end stands for all below. None: nothing."""
    models: tuple[str, ...] = ("*",)
    """Names; ``*`` stands for anything."""
    detail: str = LEAST
    factor: bool = False
    """Whether explaining, and more detail than the label, need a second factor."""


class Attributes(Protocol):
    """A policy engine that decides by attributes. ``adapters/cedar.py`` has it."""

    def permits(self, caller: Caller, operation: str, model: str, digest: Digest) -> tuple[bool, tuple[str, ...]]:
        """Whether it is permitted, and by which policies, or why not. Whatever goes wrong is a no."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """Whether somebody may do something, and what they are shown."""

    allowed: bool
    reasons: tuple[str, ...]
    detail: str = LEAST
    factor: bool = False
    """Denied only because no second factor was shown."""
    fresh: bool = False
    """It has to be shown with the request itself."""
    status: int = 200

    def enforce(self) -> None:
        """Raise what a client is told when it is denied.

        Raises:
            RequestError: 401 for a second factor, 403, or 404 for a model that this caller may not know of.
        """
        if self.allowed:
            return
        if self.factor:
            raise FactorError("; ".join(self.reasons), fresh=self.fresh)
        message = "there is nothing here" if self.status == 404 else "this is not allowed"  # noqa: PLR2004 - HTTP
        raise RequestError(self.status, message, reason="; ".join(self.reasons))


class Policy:
    """Decides. ``roles`` are the configured ones by name; ``version`` is the digest of the configuration."""

    def __init__(
        self,
        roles: Mapping[str, Rights],
        settings: PolicySettings | None = None,
        attributes: Attributes | None = None,
        version: str = "",
    ) -> None:
        self._roles, self._attributes = dict(roles), attributes
        self._settings = settings or PolicySettings()
        self._factors = frozenset(self._settings.factors)
        self._known: Remembered[tuple[str, str, str], tuple[Caller, Digest, Decision]] = Remembered(REMEMBERED)
        self.version = version

    def decide(self, caller: Caller, operation: str, model: str = "", digest: Digest = Digest("")) -> Decision:  # noqa: B008 - a text
        """Whether a caller may do something with a model, or with the gateway itself when none is named."""
        name = (caller.id, operation, model)
        known = self._known.get(name)
        if known is not None and known[0] is caller and known[1] == digest:
            return known[2]
        if known is None or known[0] != caller or known[1] != digest:
            decision = self._decided(caller, operation, model, digest)
        else:
            decision = known[2]
        self._known.put(name, (caller, digest, decision))
        return decision

    def _decided(self, caller: Caller, operation: str, model: str, digest: Digest) -> Decision:
        rights = self._roles.get(caller.role)
        if rights is None:
            return _no(f"there is no role {caller.role!r}")
        if model and not _within_models(rights, caller, model, digest):
            return _no(f"role {caller.role}, or the credential, is not for model {model}", status=404)
        if not _listed(operation, rights.operations) or (
            caller.operations and not _listed(operation, caller.operations)
        ):
            return _no(f"role {caller.role}, or the credential, is not for {operation}")
        if self._lacks_factor(caller, operation, rights):
            fresh = _listed(operation, self._settings.privileged)
            denied = _no(f"{operation} needs a second factor", status=401)
            return msgspec.structs.replace(denied, factor=True, fresh=fresh)
        decision = Decision(allowed=True, reasons=(f"role {caller.role}: {operation}",), detail=rights.detail)
        return decision if self._attributes is None else self._confined(decision, caller, operation, model, digest)

    def _lacks_factor(self, caller: Caller, operation: str, rights: Rights) -> bool:
        if not self._factors.isdisjoint(caller.factors):
            return False
        beyond = operation == "explain" or (operation in {"infer", "chat"} and rights.detail != LEAST)
        return _listed(operation, self._settings.privileged) or (rights.factor and beyond)

    def _confined(self, decision: Decision, caller: Caller, operation: str, model: str, digest: Digest) -> Decision:
        """What policies over attributes leave of what a role may: they take away, and never add."""
        engine = self._attributes
        assert engine is not None  # noqa: S101 - asked for by whoever has one
        allowed, why = engine.permits(caller, operation, model, digest)
        if not allowed:
            return _no(*why)
        reasons = (*decision.reasons, *why)
        if not model:
            return msgspec.structs.replace(decision, reasons=reasons)
        for detail in dict.fromkeys((decision.detail, LEAST)):
            shown, why = engine.permits(caller, f"{DETAIL}{detail}", model, digest)
            if shown:
                return msgspec.structs.replace(decision, reasons=(*reasons, *why), detail=detail)
        return _no(*why)


def _no(*reasons: str, status: int = 403) -> Decision:
    return Decision(allowed=False, reasons=reasons, status=status)


def _within_models(rights: Rights, caller: Caller, model: str, digest: Digest) -> bool:
    """A role names models by patterns, a credential by what they are called or are."""
    if not any(fnmatchcase(model, each) for each in rights.models):
        return False
    return not caller.models or model in caller.models or (bool(digest) and digest in caller.models)


def _listed(operation: str, patterns: tuple[str, ...]) -> bool:
    return any(operation == each or (each.endswith(".*") and operation.startswith(each[:-1])) for each in patterns)


__all__ = ["ADMIN", "DETAIL", "LEAST", "Attributes", "Decision", "Policy", "PolicySettings", "Rights"]
