"""Lesson: small changes of an input turn the answer."""

from __future__ import annotations

import numpy as np

from bartizan.core.predicates import Assessment
from bartizan.lifecycle.design.guidance.document import Figure, Section, Table
from bartizan.lifecycle.design.guidance.labs.pictures import curves, images
from bartizan.lifecycle.design.guidance.labs.shape import (
    Ground,
    Played,
    Tell,
    assessment,
    first_fitting,
    play,
    shown,
    threat_of,
)
from bartizan.redteam.attack import Attack
from bartizan.redteam.attacks.evasion.hopskipjump import HopSkipJump
from bartizan.redteam.attacks.evasion.square import Square
from bartizan.redteam.evasion import Evasion
from bartizan.targets.protocol import Access

PICTURES = 6
CASES = 8


class EvasionLab:
    """See ``Lab``."""

    name = "evasion"
    title = "Turn an answer by a change that nobody would notice"
    family = "evasion"
    needs = frozenset({Access.LABELS})

    def run(self, ground: Ground, tell: Tell) -> Assessment:
        """See ``Lab.run``."""
        attacks: tuple[Attack, ...] = (Square(), HopSkipJump())
        attack = first_fitting(ground, attacks)
        settings = ground.material.settings
        tell(
            Section(
                title="1. What is done",
                text=(
                    (
                        f"{attack.title} starts from {settings.samples} cases that the model never saw, and may ask it "
                        f"{settings.query_budget} times for each. It sees "
                        f"{' and '.join(sorted(attack.needs))}, no more. A "
                        f"change counts when no value moves by more than {settings.max_change:g} standard deviations."
                    ),
                ),
            )
        )
        played = play(ground, Evasion(), attack)
        metrics = played.measured.metrics
        tell(
            Section(
                title="2. What is seen",
                text=(played.measured.summary,),
                points=(
                    f"Right on unchanged cases: {shown(metrics['clean_accuracy'])}.",
                    f"Still right under attack: {shown(metrics['robust_accuracy'])}.",
                    f"Attacks on right answers that succeed: {shown(metrics['attack_success'])}.",
                ),
                table=_cases(played),
                figures=(*_pictures(ground, played), *_curves(played)),
            )
        )
        tell(
            Section(
                title="3. What to do about it",
                points=(
                    "Give each role the least detail that it needs: without scores the attack asks more often.",
                    "Limit queries for each account, and watch for many near-duplicates of one case.",
                    "Train on attacked cases, or on fewer features that can be forged, and measure again.",
                    "Keep a second, independent sign wherever a wrong answer does harm.",
                ),
            )
        )
        return assessment(self, ground, played.measured.summary, metrics, threat_of(attack, played))


def _cases(played: Played) -> Table:
    """Cases whose answer was turned: what had to be moved, and how often was asked."""
    rows = []
    for sample in played.measured.tables["samples"]:
        if sample["robust"] or sample["answer"] != sample["class"]:
            continue
        moved = ", ".join(f"{name} by {value:+.2g} sd" for name, value in sample["moved_most"].items())
        rows.append((sample["class"], sample["answer_under_attack"], str(sample["queries"]), moved))
    return Table(("True class", "Answer under attack", "Queries spent", "Moved most"), tuple(rows[:CASES]))


def _pictures(ground: Ground, played: Played) -> tuple[Figure, ...]:
    task = played.case.task
    found = played.case.truth.witness.found.rows
    turned = [
        place
        for place, sample in enumerate(played.measured.tables["samples"])
        if not sample["robust"] and sample["answer"] == sample["class"]
    ][:PICTURES]
    if ground.shape is None or not turned:
        return ()
    clean, changed = task.rows[turned], found[turned]
    answers = ", ".join(
        f"{played.measured.tables['samples'][place]['class']} as "
        f"{played.measured.tables['samples'][place]['answer_under_attack']}"
        for place in turned
    )
    lines = [("as it is", clean), ("changed", changed), ("difference", np.abs(changed - clean))]
    caption = f"The first row is read rightly, the second wrongly ({answers}); the third is the difference."
    return (images("evasion", "Clean and changed pictures", lines, ground.shape, caption),)


def _curves(played: Played) -> tuple[Figure, ...]:
    found = played.measured.curves
    return (
        curves("change", {"robust accuracy": found["robust_accuracy_by_change"]}),
        curves("queries", {"robust accuracy": found["robust_accuracy_by_queries"]}),
    )
