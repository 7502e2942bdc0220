"""The check ``gateway.outliers``: fits the detector of unusual inputs at release, and says what it is worth.

Half of the evaluation data calibrate it, on the other half it is measured: how many usual rows it takes for unusual,
how many rows of another kind it notices (see ``evaluation.shifts``), and how much of attacks that really run against
the model. All detectors are compared, and the one that the configuration chooses is judged: the check fails when it
surely takes more usual rows for unusual than the configuration states. The report holds what the guard needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bartizan.core.check import Context, Outcome
from bartizan.core.digest import Digest
from bartizan.core.errors import ArtefactError
from bartizan.core.system import Artefact, System
from bartizan.lifecycle.deploy.gateway.evaluation import attacked, declared
from bartizan.lifecycle.deploy.gateway.evaluation.judged import Evaluated, Shown, outcome, share_of
from bartizan.lifecycle.deploy.gateway.evaluation.shifts import shifted
from bartizan.lifecycle.deploy.gateway.evaluation.toll import Toll, toll
from bartizan.lifecycle.deploy.gateway.evaluation.wary import wary_toll
from bartizan.lifecycle.deploy.gateway.expected import expected_columns, plain
from bartizan.lifecycle.deploy.gateway.guards.outliers.fitting import LEAST_CALIBRATION, Calibration, Usual, fit
from bartizan.lifecycle.deploy.gateway.guards.outliers.guard import OutlierSettings
from bartizan.lifecycle.deploy.gateway.guards.outliers.reference import Reference
from bartizan.lifecycle.deploy.gateway.guards.outliers.wire import CHECK
from bartizan.lifecycle.deploy.gateway.model_check import GuardCheck, may_keep, opened, spending
from bartizan.redteam.check import described, material_of, stream
from bartizan.redteam.family import Material
from bartizan.redteam.tasks import EvasionTask
from bartizan.targets.protocol import Access, Target

GUARD = "outliers"
MOST_RECORDS = 5_000
"""Evaluation records that are used, half to calibrate and half to measure."""
MOST_SHIFTED = 500
"""Rows of every shifted set."""
MOST_ATTACKED, MOST_QUERIES, MOST_OWNED = 30, 300, 500
"""Rows under attack, queries for each, rows that the adversary owns."""
MEMBERS = 5
"""Records that prototypes are means of where single records may not be kept."""

Rows = NDArray[np.floating[Any]]


class OutlierCheck(GuardCheck):
    """See ``core.check.Check``."""

    name = CHECK
    version = "1"
    title = "Detection of unusual inputs: fitted, calibrated and measured"
    controls: tuple[str, ...] = ("2.4-i", "3.2-G1", "4.2-f", "4.2-i", "4.2-k", "A-MLSG-004-D005", "GL-4.5")
    guard = GUARD

    def inputs(self, system: System, subject: Artefact) -> Mapping[str, Digest]:
        """See ``Check.inputs``: the model, its data, and what the gateway is configured to do."""
        part = system.model_part(subject.name)
        settings = spending(system, ("seed", "samples", "query_budget", "max_change", "norm"))
        kept = [system.dataset_part(name) for name in (part.trained_on, part.evaluated_on)]
        said = [
            declared.said_of(system, subject.name, GUARD, OutlierSettings),
            described(system, part),
            part.classes,
            [[one.personal_data, one.sensitivity] for one in kept],
        ]
        return self.rests_on(system, subject, settings, said)

    def run(self, system: System, subject: Artefact, context: Context) -> Outcome:
        """See ``Check.run``."""
        settings = declared.settings_of(system, subject.name, GUARD, OutlierSettings)
        material = material_of(system, subject)
        with opened(system, subject, context, material) as target:
            members = 1 if may_keep(system, material.model.trained_on) else MEMBERS
            found = evaluated(target, material, settings, members)
        part = system.dataset_part(material.model.trained_on)
        return outcome(found, material, settings, plain(expected_columns(part, material.space)))


def evaluated(target: Target, material: Material, settings: OutlierSettings, members: int = 1) -> Evaluated:
    """Fit on one half of the evaluation data, and make every set from the other half.

    Raises:
        ArtefactError: there are too few rows, or the model gives no scores and the detector wants them.
        WorkError: the target cannot answer.
    """
    seed, evaluation = material.settings.seed, material.evaluation
    order = stream(seed, CHECK, "halves").permutation(len(evaluation))[:MOST_RECORDS]
    first, second = np.array_split(order, 2)
    if len(second) < LEAST_CALIBRATION:
        raise ArtefactError(
            f"dataset {material.model.evaluated_on!r} has {len(evaluation)} records, too few to calibrate a detector "
            "and to measure it",
            remedy=f"evaluate on at least {2 * LEAST_CALIBRATION} records.",
        )
    calibration = evaluation.take(first)
    given = Calibration(calibration.rows, calibration.labels, _scores(target, calibration.rows))
    reference = fit(_usual(material, members), given, stream(seed, CHECK, "fit"))
    if settings.detector not in reference.detectors:
        raise ArtefactError(
            f"detector {settings.detector!r} wants scores, and {target.name} gives none",
            remedy=f"configure one of {', '.join(reference.detectors)}.",
        )
    measured = evaluation.take(second)
    usual = Shown("usual", "rows that nothing was fitted on", measured.rows, _scores(target, measured.rows))
    sets = _shifts(target, material, measured.rows, measured.labels)
    task = _task(material, first, second)
    sets |= _attacks(target, task, seed)
    return Evaluated(reference, usual, sets, _tolls(target, reference, settings, task, seed), len(first))


def _usual(material: Material, members: int) -> Usual:
    space = material.space
    return Usual(
        rows=material.training.rows,
        labels=material.training.labels,
        classes=len(material.model.classes),
        codes=tuple((codes.column, tuple(codes.values.tolist())) for codes in space.codes),
        flags=tuple(int(place) for group in space.one_hot for place in group.columns),
        image=bool(material.shape),
        members=members,
    )


def _scores(target: Target, rows: Rows) -> NDArray[np.floating[Any]] | None:
    return target.scores(np.asarray(rows)) if Access.SCORES in target.offers and len(rows) else None


def _shifts(target: Target, material: Material, rows: Rows, labels: NDArray[np.int64]) -> dict[str, Shown]:
    some = slice(0, MOST_SHIFTED)
    made = shifted(material, rows[some], labels[some], stream(material.settings.seed, CHECK, "shifts"))
    return {name: Shown("shift", "the user's own rows", rows, _scores(target, rows)) for name, rows in made.items()}


def _task(material: Material, first: NDArray[np.int64], second: NDArray[np.int64]) -> EvasionTask:
    """Rows of the second half are attacked, by an adversary who owns rows of the first."""
    places = second[: min(material.settings.samples, MOST_ATTACKED)]
    return attacked.task_of(material, places, first[:MOST_OWNED], budget=MOST_QUERIES)


def _attacks(target: Target, task: EvasionTask, seed: int) -> dict[str, Shown]:
    """What each attack ends with and asks, and what needs no attack to run."""
    sets: dict[str, Shown] = {}
    for attack in attacked.attacks_on(target, task):
        seen = attacked.run(target, attack, task, stream(seed, CHECK, attack.name))
        if len(seen.rows):
            sets[seen.attack] = Shown("attack", "rows that it ended with", seen.rows, _scores(target, seen.rows))
        scores = _scores(target, seen.queries)
        sets[f"{seen.attack}_queries"] = Shown("attack", "all that it asked", seen.queries, scores, seen.sample)
    rows = attacked.jittered(task, stream(seed, CHECK, "jitter"))
    sets["jitter"] = Shown("attack", "the largest change that counts, at random", rows, _scores(target, rows))
    rows = attacked.copied(target, task, stream(seed, CHECK, "copy"))
    sets["copycat_queries"] = Shown("attack", "all that an extraction asked", rows, _scores(target, rows))
    return sets


def _tolls(
    target: Target, reference: Reference, settings: OutlierSettings, task: EvasionTask, seed: int
) -> dict[str, tuple[Toll, Toll]]:
    least = -np.log10(share_of(settings))

    def notices(rows: Rows, scores: NDArray[np.floating[Any]] | None) -> NDArray[np.bool_]:
        return np.asarray(reference.decades(settings.detector, rows, scores) >= least)

    found = {}
    for attack in attacked.attacks_on(target, task):
        bare = toll(target, attack, task, stream(seed, CHECK, attack.name, "bare"))
        wary = wary_toll(target, notices, attack, task, stream(seed, CHECK, attack.name, "wary"))
        found[attacked.short(attack)] = (bare, wary)
    return found


__all__ = ["OutlierCheck", "evaluated"]
