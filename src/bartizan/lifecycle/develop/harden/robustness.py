"""Robustness of a defended model: the suite against it, and what was found against the undefended one."""

from __future__ import annotations

from bartizan.lifecycle.develop.choose.contest import contest
from bartizan.lifecycle.develop.choose.robustness import attacked, verdicts
from bartizan.lifecycle.develop.choose.trial import Part, Trial
from bartizan.lifecycle.develop.harden.defence import Defended
from bartizan.redteam.attacks.evasion.hopskipjump import HopSkipJump
from bartizan.redteam.evasion import Evasion
from bartizan.redteam.statistics import proportion
from bartizan.targets.feasible import TOLERANCE


class DefendedRobustness:
    """See ``Column``.

    A defence that only hides where the boundary is falls to rows that were made for the model without it.
    """

    name = "robustness"
    version = "1"
    title = "Robust accuracy under Square, HopSkipJump and transfer from the undefended model"

    def measure(self, trial: Trial) -> Part:
        """See ``Column.measure``."""
        played = attacked(trial)
        right, robust = verdicts(trial.target, played)
        task = played[0].case.task
        by_attack = {each.attack.name: each.measured.metrics["robust_accuracy"] for each in played}
        if isinstance(trial.candidate, Defended):
            base = trial.candidate.base.target()
            source = contest(base, Evasion(), [HopSkipJump()], trial.material, trial.tell)
            closest = source.case.truth.witness.found
            rows = task.space.project(closest.rows, task.rows)
            moved = closest.change <= task.max_change * (1 + TOLERANCE)
            fooled = moved & (trial.target.labels(rows) != task.labels)
            by_attack["transfer from the undefended model"] = proportion(
                int((right & ~fooled).sum()), len(right)
            ).metric("share")
            robust = robust & ~fooled
        return Part(
            metrics={
                "robust_accuracy": proportion(int(robust.sum()), len(robust)).metric("share"),
                "attack_success": proportion(int((right & ~robust).sum()), int(right.sum())).metric("share"),
            },
            curves={
                f"{each.attack.name}_by_change": each.measured.curves["robust_accuracy_by_change"] for each in played
            },
            details={
                "robust_accuracy_by_attack": by_attack,
                "max_change": task.max_change,
                "robust": "".join("01"[flag] for flag in robust.tolist()),
            },
        )
