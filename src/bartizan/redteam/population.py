"""Membership where nothing can be trained like the target: an adversary who only owns records of the same kind.

Half of the evaluation records are what the adversary owns and knows to be no members; the other half and the training
records are in question. That fits models of which there is only a file or an address.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bartizan.core.errors import ArtefactError, WorkError
from bartizan.redteam.attack import Attack
from bartizan.redteam.engine import Run
from bartizan.redteam.family import Case, Material, Measurement, Measuring
from bartizan.redteam.ledger import Budget
from bartizan.redteam.privacy import (
    MAX_RECORDS,
    Game,
    blindly,
    leak,
    measured,
    plain,
    pool,
    resolution,
    sets_differ,
    share,
)
from bartizan.redteam.privacy_tasks import PopulationTask
from bartizan.redteam.statistics import Estimate
from bartizan.redteam.tasks import MembershipResult

LEAST_OWNED = 20
"""Records without which nothing can be said of what is usual."""


class PopulationMembership:
    """See ``Family``. One game: the declared model is the target, its training records are the members."""

    name = "privacy.membership-population"
    settings: tuple[str, ...] = ("seed",)

    def case(self, attack: Attack, material: Material, rng: np.random.Generator) -> Case:
        """See ``Family.case``.

        Raises:
            ArtefactError: there are too few evaluation records to own some and ask about others.
        """
        evaluation = material.evaluation
        order = rng.permutation(len(evaluation))
        owned, others = order[: len(order) // 2], order[len(order) // 2 :]
        if len(owned) < LEAST_OWNED:
            raise ArtefactError(
                f"dataset {material.model.evaluated_on!r} has {len(evaluation)} records; an adversary who owns half of "
                f"them needs at least {2 * LEAST_OWNED}",
                remedy="evaluate on more records.",
            )
        table, members, dropped = pool(material.training, evaluation.take(others), MAX_RECORDS, rng)
        task = PopulationTask(
            rows=table.rows,
            labels=table.labels,
            owned=evaluation.rows[owned][:MAX_RECORDS],
            owned_labels=evaluation.labels[owned][:MAX_RECORDS],
            classes=len(material.model.classes),
        )
        return Case(
            task=task,
            budget=Budget(samples=len(task.rows) + len(task.owned), per_sample=1),
            truth=Game(attack, members, material.model),
            knowledge=f"owns {len(task.owned)} records of the same kind with their classes, which are no members; "
            "trains nothing like the target",
            settings={
                "members": int(members.sum()),
                "non_members": int((~members).sum()),
                "in_both_sets_dropped": dropped,
                "owned": len(task.owned),
            },
        )

    def measure(self, case: Case, run: Run, rng: np.random.Generator) -> Measuring:
        """See ``Family.measure``: what was said of each record against the truth. Nothing needs to be asked again."""
        yield from ()
        game: Game = case.truth
        result = run.candidates
        if not isinstance(result, MembershipResult) or not result.guesses:
            raise WorkError(f"{game.attack.name} stopped before it was done: {run.stopped or 'no candidates'}")
        scored = {guess.rule: measured(guess, game.members) for guess in result.guesses}
        named = next(guess.rule for guess in result.guesses if guess.headline)
        metrics = scored[named].estimates()
        blind = blindly(case.task.rows, case.task.labels, case.task.classes, game.members, rng)
        others = int((~game.members).sum())
        return Measurement(
            summary=_summary(metrics, others),
            metrics={name: estimate.metric() for name, estimate in metrics.items()} | {"blind_auc": blind.metric()},
            curves={f"roc_{rule}": score.points() for rule, score in scored.items()},
            tables={
                "headline_rule": named,
                "rules": {rule: plain(score.estimates()) for rule, score in scored.items()},
                "fpr_resolution": resolution(others),
            },
            findings=(
                *leak(game.model, metrics["tpr_at_1_percent_fpr"], "records that are no members"),
                *sets_differ(game.model, blind, elsewhere="split the data at random"),
            ),
        )


def _summary(metrics: Mapping[str, Estimate], others: int) -> str:
    return (
        f"An adversary who owns other records of the same kind, and may wrongly accuse 1 % of {others} others, "
        f"recognises {share(metrics['tpr_at_1_percent_fpr'])} of the records this model was trained on, without "
        "training anything."
    )
