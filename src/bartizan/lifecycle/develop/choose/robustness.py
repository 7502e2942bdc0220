"""Robustness: the share of answers that stays right when every attack of the suite has tried.

Square (scores) and HopSkipJump (labels) get the same rows and the same budget from every candidate.
A row counts as robust when none of them broke it, so that a model whose scores say nothing is not
taken for a robust one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bartizan.lifecycle.develop.choose.contest import Contest, contest, flags
from bartizan.lifecycle.develop.choose.trial import Part, Trial
from bartizan.redteam.attack import Attack
from bartizan.redteam.attacks.evasion.hopskipjump import HopSkipJump
from bartizan.redteam.attacks.evasion.square import Square
from bartizan.redteam.evasion import Evasion
from bartizan.redteam.statistics import proportion
from bartizan.targets.protocol import Target

SUITE: tuple[type[Attack], ...] = (HopSkipJump, Square)


class Robustness:
    """See ``Column``."""

    name = "robustness"
    version = "1"
    title = "Robust accuracy under Square and HopSkipJump"

    def measure(self, trial: Trial) -> Part:
        """See ``Column.measure``."""
        played = attacked(trial)
        right, robust = verdicts(trial.target, played)
        metrics = {
            "robust_accuracy": proportion(int(robust.sum()), len(robust)).metric("share"),
            "attack_success": proportion(int((right & ~robust).sum()), int(right.sum())).metric("share"),
        }
        by_attack = {each.attack.name: each.measured.metrics["robust_accuracy"] for each in played}
        return Part(
            metrics=metrics,
            curves={
                f"{each.attack.name}_by_change": each.measured.curves["robust_accuracy_by_change"] for each in played
            },
            details={
                "robust_accuracy_by_attack": by_attack,
                "max_change": played[0].case.task.max_change,
                "queries_for_a_row": played[0].case.task.budget,
                "robust": "".join("01"[flag] for flag in robust.tolist()),
            },
        )


def attacked(trial: Trial) -> list[Contest]:
    """The suite, as far as it applies."""
    applying = [attack() for attack in SUITE if attack().needs <= trial.target.offers]
    return [contest(trial.target, Evasion(), [attack], trial.material, trial.tell) for attack in applying]


def verdicts(target: Target, played: list[Contest]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which samples are right as long as nobody attacks, and which stay so whoever attacked: ``(samples,)`` each."""
    task = played[0].case.task
    right = target.labels(task.rows) == task.labels
    robust = np.logical_and.reduce([right, *(flags(each, "robust") for each in played)])
    return right, robust
