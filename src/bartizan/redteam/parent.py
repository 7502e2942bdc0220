"""Transfer from a declared parent: what an adversary can do who has the public model that the victim was made from.

A model's ``base_model`` names its parent. Where the parent is itself declared as a ``[[model]]``, so that its
file is at hand and scanned, the adversary practises on that file; the victim answers labels only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from bartizan.core.check import Context, Outcome
from bartizan.core.digest import Digest
from bartizan.core.errors import ArtefactError
from bartizan.core.system import Artefact, System
from bartizan.redteam.attack import Attack
from bartizan.redteam.attacks.evasion.transfer import Transfer
from bartizan.redteam.check import AttackCheck
from bartizan.redteam.evasion import Evasion
from bartizan.redteam.family import Case, Family, Material
from bartizan.targets.protocol import Target, Targets

CONTROL = "2.4-k"


def parent_of(system: System, subject: Artefact) -> Artefact | None:
    """The declared model that a model was made from; None when it has no parent, or the parent is not declared."""
    name = system.model_part(subject.name).base_model.strip()
    others = [model for model in system.of_kind("model") if model.name == name and model.id != subject.id]
    return others[0] if others else None


class TransferCheck(AttackCheck):
    """``redteam.evasion.transfer``: run wherever a parent is declared, on the parent's own file.

    Without a parent the adversary trains models of its own.
    """

    def __init__(self, family: Family, *variants: Attack, controls: tuple[str, ...] = ()) -> None:
        super().__init__(family, *variants, controls=(*controls, CONTROL))

    def selected(self, system: System) -> bool:
        """See ``AttackCheck.selected``."""
        return any(parent_of(system, model) for model in system.of_kind("model")) or super().selected(system)

    def inputs(self, system: System, subject: Artefact) -> Mapping[str, Digest]:
        """See ``Check.inputs``; the parent is one."""
        parent = parent_of(system, subject)
        return {**super().inputs(system, subject), **({parent.id: parent.digest} if parent else {})}

    def run(self, system: System, subject: Artefact, context: Context) -> Outcome:
        """See ``Check.run``."""
        parent = parent_of(system, subject)
        if parent is None:
            return super().run(system, subject, context)
        targets = context.service(Targets)  # type: ignore[type-abstract]  # a protocol is what a port is
        with targets.open(system, parent) as model:
            _compare(model, parent, system, subject)
            return _Inherited(_FromParent(parent.name), Transfer((model,))).run(system, subject, context)


class _Inherited(AttackCheck):
    """The same check on a parent that is open."""

    def inputs(self, system: System, subject: Artefact) -> Mapping[str, Digest]:
        parent = parent_of(system, subject)
        return {**super().inputs(system, subject), **({parent.id: parent.digest} if parent else {})}


class PractisedEvasion(Evasion):
    """Evasion by practice on a model of the adversary's own. See ``Family``."""

    check = TransferCheck


class _FromParent(Evasion):
    """Evasion by an adversary who holds the parent."""

    def __init__(self, parent: str) -> None:
        self._parent = parent

    def case(self, attack: Attack, material: Material, rng: np.random.Generator) -> Case:
        case = super().case(attack, material, rng)
        return replace(
            case,
            knowledge=f"holds the public parent model {self._parent!r} and may ask it as often as it likes; "
            f"{case.knowledge}",
            settings={**case.settings, "parent": self._parent},
        )


def _compare(model: Target, parent: Artefact, system: System, subject: Artefact) -> None:
    """The parent must take the same rows and know the same number of classes."""
    part, mine = system.model_part(parent.name), system.model_part(subject.name)
    if len(part.classes) != len(mine.classes) or model.classes != len(mine.classes):
        raise ArtefactError(
            f"parent {parent.name!r} knows {model.classes} classes, and {subject.name!r} knows {len(mine.classes)}",
            remedy="declare as base_model a model for the same classes, or leave it out.",
        )
    training = system.dataset_part(part.trained_on).target, system.dataset_part(mine.trained_on).target
    if training[0] != training[1]:
        raise ArtefactError(
            f"parent {parent.name!r} predicts {training[0]!r}, and {subject.name!r} predicts {training[1]!r}",
            remedy="declare as base_model a model for the same target.",
        )
