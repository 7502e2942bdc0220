"""What the checks of models have in common here: when they are due, what they rest on, how they open a model.

A check of a model is run where a gate asks for it; one that a guard needs, also where the configuration uses the guard.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from bartizan.core.check import Context
from bartizan.core.digest import Digest
from bartizan.core.system import Artefact, System, settings_digest
from bartizan.lifecycle.deploy.gateway.evaluation import declared
from bartizan.redteam.attack import Attack
from bartizan.redteam.attacks.evasion.hopskipjump import HopSkipJump
from bartizan.redteam.check import check_target
from bartizan.redteam.family import Material
from bartizan.targets.protocol import Target, Targets

ASKING: Attack = HopSkipJump()
"""An attack that needs nothing but labels."""


class ModelCheck:
    """When a check of models is due. What is missing here of ``core.check.Check`` is each check's own."""

    name: str
    after: tuple[str, ...] = ("scan",)
    does = "works on rows of numbers"
    """What it does that it cannot do with texts."""

    def why_not(self, system: System) -> str:
        """Why this check has nothing to do in a system, in one sentence; empty when it has."""
        learned = {model.trained_on for model in system.declaration.model}
        if any(part.text for part in system.declaration.dataset if part.name in learned):
            return f"{self.name} {self.does}, and the declared data are texts."
        return ""

    def selected(self, system: System) -> bool:
        """Whether a gate asks for it."""
        return any(rule.check == self.name for gate in system.declaration.gate.values() for rule in gate.rule)

    def subjects(self, system: System) -> Sequence[Artefact]:
        """See ``Check.subjects``: models."""
        return () if self.why_not(system) else system.of_kind("model")

    def rests_on(self, system: System, subject: Artefact, *settings: Any) -> dict[str, Digest]:
        """Digests of the model, of its data, and of what the declaration and the configuration say of the check."""
        part = system.model_part(subject.name)
        data = [f"dataset:{name}" for name in (part.trained_on, part.evaluated_on)]
        return {
            subject.id: subject.digest,
            **{name: system.artefact(name).digest for name in data},
            f"settings:{self.name}:{subject.name}": settings_digest(*settings),
        }


class GuardCheck(ModelCheck):
    """A check that makes what a guard needs, or says what the guard is worth."""

    guard: str
    """The guard's name in the configuration."""

    def selected(self, system: System) -> bool:
        """Whether a gate asks for it, or the configuration of the gateway uses the guard."""
        return super().selected(system) or declared.uses(system, self.guard)


def spending(system: System, names: Sequence[str]) -> dict[str, Any]:
    """Some settings of ``[redteam]``, for a digest of what results rest on."""
    return {name: getattr(system.declaration.redteam, name) for name in names}


@contextmanager
def opened(
    system: System, subject: Artefact, context: Context, material: Material, attack: Attack = ASKING
) -> Iterator[Target]:
    """The declared model, ready to be asked and known to be what its data describe.

    Raises:
        ArtefactError: it is another model than the declared one.
        WorkError: it cannot be opened, or does not answer what ``attack`` needs.
    """
    targets = context.service(Targets)  # type: ignore[type-abstract]  # a protocol is what a port is
    with targets.open(system, subject) as target:
        check_target(target, attack, material)
        yield target


def may_keep(system: System, dataset: str) -> bool:
    """Whether records, or digests of them, may stand in a report: whoever reads it can tell who was among them."""
    part = system.dataset_part(dataset)
    return not part.personal_data and part.sensitivity in {"public", "internal"}


__all__ = ["GuardCheck", "ModelCheck", "may_keep", "opened", "spending"]
