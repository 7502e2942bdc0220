"""The Lab shape: a short lesson that runs a real attack, shows what was measured, and says what helps.

A lab never believes an attack: the family measures success on rows that are asked again, as in a
campaign. Only its budget is small, so that it ends within a minute; that it finds little proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bartizan.core.errors import WorkError
from bartizan.core.predicates import Assessment, Metric, Threat
from bartizan.lifecycle.design.guidance.document import Section
from bartizan.redteam.attack import Attack
from bartizan.redteam.check import stream
from bartizan.redteam.engine import Engine, Run
from bartizan.redteam.family import Case, Family, Material, Measurement
from bartizan.redteam.text_check import TextMaterial
from bartizan.targets.protocol import Access, Target
from bartizan.targets.text import TextTarget

Tell = Callable[[Section], None]
"""Is given each step as soon as it is done."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What a lesson is run on."""

    target: Target
    material: Material
    seed: int
    access: frozenset[Access]
    """What the interface gives an adversary; training can always be repeated in the laboratory."""
    shape: tuple[int, int] | None = None
    """Height and width, when rows are pictures."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.material.model.classes

    def stream(self, *names: str) -> np.random.Generator:
        """Random numbers for one purpose."""
        return stream(self.seed, *names)


@dataclass(frozen=True, slots=True)
class TextGround:
    """What a lesson about texts is run on."""

    target: TextTarget
    material: TextMaterial
    seed: int
    access: frozenset[Access]
    guard: Callable[[str], object] | None = None
    """A rule that looks at a text before the model does; the example has one."""

    def stream(self, *names: str) -> np.random.Generator:
        """Random numbers for one purpose. See ``Ground.stream``."""
        return stream(self.seed, *names)


@dataclass(frozen=True, slots=True)
class Played:
    """One attack on the ground, and what came of it."""

    case: Case
    run: Run
    measured: Measurement


class Lab(Protocol):
    """One lesson. Stateless."""

    name: str
    title: str
    family: str
    """Family of the attack: ``evasion``, ``poisoning``, ``privacy``, ``extraction``."""
    needs: frozenset[Access]
    """Without this access the lesson cannot be run."""

    def run(self, ground: Ground, tell: Tell) -> Assessment:
        """Run it; tells each step, and gives what was measured as an assessment."""


class TextLab(Protocol):
    """One lesson about texts. See ``Lab``."""

    name: str
    title: str
    family: str
    """``text``, ``availability``."""
    needs: frozenset[Access]

    def run(self, ground: TextGround, tell: Tell) -> Assessment:
        """See ``Lab.run``."""


def play(ground: Ground, family: Family, attack: Attack) -> Played:
    """Run one attack as a campaign would, and let its family measure what came of it."""
    case = family.case(attack, ground.material, ground.stream(family.name))
    run = Run(
        attack.search(case.task, ground.stream(attack.name, "search")),
        budget=case.budget,
        needs=attack.needs,
        watch=case.watch,
    )
    engine = Engine(ground.target)
    engine.drive([run], note=attack.name)
    measuring = run.measuring(family.measure(case, run, ground.stream(attack.name, "measure")))
    engine.drive([measuring], note="measuring")
    return Played(case, run, measuring.candidates)


def assessment(
    lab: Lab | TextLab, ground: Ground | TextGround, summary: str, metrics: dict[str, Metric], threat: Threat
) -> Assessment:
    """What a lesson measured. It names no technique: with its small budget it tries none to the end."""
    return Assessment(
        method=f"lab.{lab.name}",
        summary=summary,
        metrics=metrics,
        family=lab.family,
        threat=threat,
        seed=ground.seed,
        settings={"lesson": lab.name, "model": ground.material.model.name},
    )


def threat_of(attack: Attack, played: Played) -> Threat:
    """The adversary that an attack assumes."""
    return Threat(position=attack.position, access=tuple(sorted(attack.needs)), knowledge=played.case.knowledge)


def first_fitting(ground: Ground, attacks: tuple[Attack, ...]) -> Attack:
    """The first attack that gets by with what the interface gives.

    Raises:
        WorkError: none does.
    """
    for attack in attacks:
        if attack.needs <= ground.access:
            return attack
    raise WorkError("no attack of this lesson gets by with what the interface gives", remedy="run it on the example.")


def shown(metric: Metric) -> str:
    """A share with its interval, in words."""
    return f"{metric.value:.0%} ({metric.low:.0%} to {metric.high:.0%}, n = {metric.n})"


def number(metric: Metric) -> str:
    """A number with its interval."""
    return f"{metric.value:.2f} ({metric.low:.2f} to {metric.high:.2f}, n = {metric.n})"
