"""The stated bound: beyond which uncertainty an answer needs a rule (a rule must then constrain what is answered)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from bartizan.core.errors import ArtefactError
from bartizan.lifecycle.deploy.gateway.guard import Material
from bartizan.lifecycle.deploy.gateway.guards.rules.expression import Test
from bartizan.lifecycle.deploy.gateway.guards.rules.facts import YES
from bartizan.lifecycle.deploy.gateway.guards.rules.report import CHECK, read_report
from bartizan.lifecycle.deploy.gateway.guards.rules.rule import ACTIONS, Rule
from bartizan.lifecycle.deploy.gateway.guards.rules.settings import RulesSettings


class Bound:
    """How uncertain an answer may be without a rule that covers it."""

    def __init__(self, limit: float, rule: Rule, *, exceeded: bool) -> None:
        self.limit, self.rule, self.exceeded = limit, rule, exceeded

    @classmethod
    def of(cls, settings: RulesSettings, rules: Sequence[Rule], material: Material) -> Self | None:
        """The bound, compared with what was measured of the model.

        Raises:
            ArtefactError: the model is less certain and no rule constrains its answers, or nothing was measured.
        """
        if settings.bound is None:
            return None
        measured = read_report(material.fitted(CHECK)).uncertainty
        exceeded = measured > settings.bound
        if exceeded and not any(rule.covers and rule.late for rule in rules):
            raise ArtefactError(
                f"{material.model} is measured to be up to {measured:.3g} uncertain, beyond the stated bound of "
                f"{settings.bound:.3g}, and no rule constrains its answers",
                remedy='add a rule such as when = "confidence < 0.8", then = "hold"; see docs/gateway/rules.md.',
            )
        return cls(settings.bound, _beyond(settings.beyond), exceeded=exceeded)

    def uncovered(self, doubt: Any, covered: set[int]) -> tuple[int, ...]:
        """Rows that are more uncertain than the bound, and that no rule has met."""
        if isinstance(doubt, float):
            return (0,) if doubt > self.limit and not covered else ()
        return tuple(row for row in np.flatnonzero(np.asarray(doubt) > self.limit).tolist() if row not in covered)


def _beyond(then: str) -> Rule:
    """The rule that every bound brings with it."""
    always = Test("true", lambda _: YES, lambda _: YES, frozenset())
    return Rule(
        name="beyond the bound",
        test=always,
        action=ACTIONS[then],
        least=YES,
        answer=-1,
        shadow=False,
        late=True,
        covers=True,
    )


__all__ = ["Bound"]
