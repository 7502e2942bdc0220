"""One attack on one model, played through the engine and measured by its family, as the red team's checks do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bartizan.lifecycle.develop.choose.trial import Tell, stream
from bartizan.redteam.attack import Attack
from bartizan.redteam.engine import Engine, Run
from bartizan.redteam.family import Case, Family, Material, Measurement
from bartizan.targets.protocol import Target


@dataclass(frozen=True, slots=True)
class Contest:
    """What came of an attack."""

    attack: Attack
    case: Case
    run: Run
    measured: Measurement


def contest(target: Target, family: Family, variants: Sequence[Attack], material: Material, tell: Tell) -> Contest:
    """Play the first of ``variants`` that applies to the target.

    The task is drawn with the seed of the declaration alone, so that all models get the same one.

    Raises:
        WorkError: none applies, or the target cannot answer.
    """
    seed = material.settings.seed
    attack = next((attack for attack in variants if attack.needs <= target.offers), variants[-1])
    case = family.case(attack, material, stream(seed, family.name))
    run = Run(
        attack.search(case.task, stream(seed, attack.name, "search")),
        budget=case.budget,
        needs=attack.needs,
        watch=case.watch,
    )
    engine = Engine(target, progress=lambda done, total, _: tell(done, total, attack.name))
    engine.drive([run])
    measuring = run.measuring(family.measure(case, run, stream(seed, attack.name, "measure")))
    engine.drive([measuring])
    measured: Any = measuring.candidates
    return Contest(attack, case, run, measured)


def flags(played: Contest, name: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """A column of yes and no of the table of samples, ``(samples,)``."""
    return np.array([bool(sample[name]) for sample in played.measured.tables["samples"]], dtype=np.bool_)
