"""Who is let in, and to what: callers are recognised, the policy decides, and the role says what is told."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from bartizan.core.digest import Digest
from bartizan.lifecycle.deploy.gateway.caller import Caller
from bartizan.lifecycle.deploy.gateway.configuration import RATE
from bartizan.lifecycle.deploy.gateway.front import Granted
from bartizan.lifecycle.deploy.gateway.policy import LEAST, Decision, Policy, Rights
from bartizan.lifecycle.deploy.gateway.roles import Role


def rights(role: Role) -> Rights:
    """What a role may do at most, as the policy has it."""
    return Rights(operations=role.operations, models=role.models, detail=role.detail, factor=role.factor == "needed")


class Admittance:
    """Decides for the application. See ``front.Policy``."""

    def __init__(self, policy: Policy, roles: Mapping[str, Role]) -> None:
        self._policy, self._roles = policy, dict(roles)
        self._granted: dict[tuple[str, str], Granted] = {}

    def decide(self, caller: Caller, operation: str, model: str, digest: Digest) -> Granted:
        """What is granted. Raises RequestError when nothing is."""
        decision = self._policy.decide(caller, operation, model, digest)
        if not decision.allowed:
            decision.enforce()
        granted = self._granted.get((caller.role, decision.detail))
        if granted is None:
            granted = self._granted[caller.role, decision.detail] = self._of(caller.role, decision)
        return granted

    def _of(self, name: str, decision: Decision) -> Granted:
        role = self._roles[name]
        if decision.detail == LEAST:
            role = msgspec.structs.replace(role, detail=LEAST)
        budgets = (*role.budgets, RATE + name) if role.pace() else role.budgets
        return Granted(role, budgets)


__all__ = ["Admittance", "rights"]
