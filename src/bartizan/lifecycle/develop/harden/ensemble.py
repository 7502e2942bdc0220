"""Ensembles: whether rows made for one member fool the others. They do; so redundancy is no prevention.

He et al. 2017 (arXiv:1706.04701) show it for defences, Papernot et al. 2016 (arXiv:1605.07277) between
model families. Members here learn from different draws of the records with different seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bartizan.lifecycle.develop.choose.candidate import Facts, Interpretability
from bartizan.lifecycle.develop.choose.trial import Part, Trial
from bartizan.lifecycle.develop.harden.defence import Wrapped, facts_of_inner
from bartizan.lifecycle.develop.harden.transfer import asked_of, broken, evasion_task
from bartizan.redteam.family import Material
from bartizan.redteam.statistics import proportion
from bartizan.targets.protocol import Access, Labels, Rows, Scores, Target

MEMBERS = 5


class Ensemble(Wrapped):
    """The mean of several models of the same kind, each trained on its own draw of the records."""

    def __init__(self, members: Sequence[Target]) -> None:
        super().__init__(members[0])
        self.members = tuple(members)

    def labels(self, rows: Rows) -> Labels:
        """See ``Target.labels``: by the mean of the scores, else by the most votes."""
        if Access.SCORES in self.offers:
            labels: Labels = self.scores(rows).argmax(axis=1).astype(np.int64)
            return labels
        votes = np.array([member.labels(rows) for member in self.members])
        counts = np.array([(votes == kind).sum(axis=0) for kind in range(self.classes)])
        most: Labels = counts.argmax(axis=0).astype(np.int64)
        return most

    def scores(self, rows: Rows) -> Scores:
        """See ``Target.scores``."""
        scores: Scores = np.mean([member.scores(rows) for member in self.members], axis=0)
        return scores

    def retrain(self, rows: Rows, labels: Labels, *, seed: int) -> Target:
        """See ``Target.retrain``."""
        return ensemble(self.inner, rows, labels, seed)

    @property
    def facts(self) -> Facts:
        """See ``Fitted.facts``: all members together."""
        each = [facts_of_inner(member) for member in self.members]
        counts = [facts.parameters for facts in each]
        known = [count for count in counts if count is not None]
        total = sum(known) if len(known) == len(counts) else None
        size = sum(facts.size_bytes for facts in each)
        return Facts(total, size, Interpretability.BLACK_BOX, f"{len(each)} models together")


def ensemble(base: Target, rows: Rows, labels: Labels, seed: int) -> Ensemble:
    """Members on draws with replacement, each class by itself so that none is lost."""
    rng = np.random.default_rng(seed)
    kinds = [np.flatnonzero(labels == kind) for kind in np.unique(labels)]
    members = []
    for _ in range(MEMBERS):
        drawn = np.sort(np.concatenate([rng.choice(places, len(places)) for places in kinds]))
        members.append(base.retrain(rows[drawn], labels[drawn], seed=int(rng.integers(2**31))))
    return Ensemble(members)


class Redundancy:
    """Ask several models instead of one. Measured, and never credited with preventing evasion."""

    name, title, kind, credit = "ensemble", f"Ensemble of {MEMBERS} models", "redundancy", False
    references: tuple[str, ...] = (
        "He et al. 2017, Ensembles of weak defenses are not strong, arXiv:1706.04701",
        "Papernot et al. 2016, Transferability in machine learning, arXiv:1605.07277",
    )

    def settings(self) -> dict[str, Any]:
        """See ``Defence.settings``."""
        return {"members": MEMBERS}

    def why_not(self, base: Target, material: Material) -> str:
        """See ``Defence.why_not``."""
        del material
        return "" if Access.TRAINING in base.offers else "the model cannot be trained again."

    def apply(self, base: Target, material: Material, rng: np.random.Generator) -> Target:
        """See ``Defence.apply``."""
        return ensemble(base, material.training.rows, material.training.labels, int(rng.integers(2**31)))


class MemberTransfer:
    """How often a row made for one member of an ensemble fools each other one, and the whole. See ``Column``."""

    name = "members"
    version = "1"
    title = "Transfer between the members of an ensemble"

    def measure(self, trial: Trial) -> Part:
        """See ``Column.measure``."""
        if not isinstance(trial.target, Ensemble):
            return Part(missing="it is no ensemble.")
        task = evasion_task(trial.material, trial.rng("members"))
        members, whole = trial.target.members, trial.target
        table: list[list[float | None]] = []
        pooled, against_whole = [0, 0], [0, 0]
        for place, member in enumerate(members):
            trial.tell(place, len(members), "attacking members")
            rows, found = broken(member, task, trial.material.settings.seed)
            line: list[float | None] = []
            for other, judge in enumerate([*members, whole]):
                fooled, count = asked_of(judge, rows, task, found)
                line.append(fooled / count if count else None)
                tally = against_whole if judge is whole else pooled
                if other != place:
                    tally[0] += fooled
                    tally[1] += count
            table.append(line)
        metrics = {
            "member_transfer": proportion(*pooled).metric("share"),
            "whole_transfer": proportion(*against_whole).metric("share"),
        }
        return Part(metrics=metrics, details={"transfer": table, "last_column": "the whole ensemble", "credit": False})
