"""The check ``gateway.sequence``: learns what natural queries have to do with one another, and says what that is worth.

The guard is made from one half of the evaluation data. The other half is sent through it as natural queries, and so are
the queries of attacks that ran against the model without it: searches for adversarial rows, an extraction, a membership
inference from labels. How many queries of each were asked before the guard stepped in is stated, with intervals. The
check fails when it steps in at natural queries more often than is promised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from bartizan.core.check import Context, Outcome
from bartizan.core.digest import Digest
from bartizan.core.errors import ArtefactError
from bartizan.core.finding import Finding, Severity
from bartizan.core.predicates import Assessment, Metric, Threat
from bartizan.core.system import Artefact, System
from bartizan.lifecycle.deploy.gateway.evaluation import attacked, declared
from bartizan.lifecycle.deploy.gateway.evaluation.stating import stated
from bartizan.lifecycle.deploy.gateway.guards.sequence.guard import CHECK, SequenceGuard
from bartizan.lifecycle.deploy.gateway.guards.sequence.reference import LEAST, Reference, learn
from bartizan.lifecycle.deploy.gateway.guards.sequence.replay import Replayed, replay
from bartizan.lifecycle.deploy.gateway.guards.sequence.settings import SequenceSettings
from bartizan.lifecycle.deploy.gateway.guards.sequence.streams import learn_stream
from bartizan.lifecycle.deploy.gateway.model_check import GuardCheck, may_keep, opened, spending
from bartizan.redteam.check import described, material_of, stream
from bartizan.redteam.family import Material
from bartizan.redteam.privacy import NOISE
from bartizan.redteam.statistics import bootstrap, metric, proportion
from bartizan.targets.protocol import Access, Rows, Target
from bartizan.targets.table import read_table

GUARD = "sequence"
MOST_RECORDS = 6_000
"""Evaluation records that are used: half to learn from, half as natural queries."""
MOST_ATTACKED, MOST_QUERIES = 20, 200
"""Rows under attack, and queries for each."""
PROMISED = 0.001
"""Share of different natural queries that may be stepped down."""
ACCOUNTS = 20
"""Accounts that the natural queries come from."""
RECORDS_EACH, QUERIES_EACH = 4, 50
"""Records that one account asks about for a membership inference, and queries that one asks for anything larger."""


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """Queries of one attack as they were asked."""

    rows: Rows
    sample: NDArray[np.int64]


class SequenceCheck(GuardCheck):
    """See ``core.check.Check``."""

    name = CHECK
    version = "1"
    title = "Detection of attacks in progress: learnt and measured"
    controls: tuple[str, ...] = ("3.2-a", "3.2-i", "3.2-G1")
    guard = GUARD

    def inputs(self, system: System, subject: Artefact) -> Mapping[str, Digest]:
        """See ``Check.inputs``: the model, its data, recorded streams, and what the gateway is configured to do."""
        part = system.model_part(subject.name)
        settings = spending(system, ("seed", "query_budget", "max_change", "norm"))
        configured = declared.said_of(system, subject.name, GUARD, SequenceSettings)
        streams = configured["streams"].values() if isinstance(configured, dict) else ()
        return {
            **self.rests_on(system, subject, settings, [described(system, part), part.classes, configured]),
            **{data.id: data.digest for data in system.of_kind("dataset") if data.name in streams},
        }

    def run(self, system: System, subject: Artefact, context: Context) -> Outcome:
        """See ``Check.run``."""
        settings = declared.settings_of(system, subject.name, GUARD, SequenceSettings)
        material = material_of(system, subject)
        with opened(system, subject, context, material) as target:
            learnt, natural = _learnt(target, material, keeps=may_keep(system, material.model.trained_on))
            expected = {
                role: learn_stream(
                    learnt, learnt.limit(settings.near), settings.memory, [_frames(system, target, material, name)]
                )
                for role, name in settings.streams.items()
            }
            reference = msgspec.structs.replace(learnt, expected=expected)
            found = _measured(target, material, reference, settings, natural)
        return _outcome(material, settings, reference, found)


def _halves(material: Material) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    order = stream(material.settings.seed, CHECK, "halves").permutation(len(material.evaluation))[:MOST_RECORDS]
    first, second = np.array_split(order, 2)
    if len(second) < LEAST:
        raise ArtefactError(
            f"dataset {material.model.evaluated_on!r} has {len(material.evaluation)} records, too few to learn from "
            "some and measure on others",
            remedy=f"evaluate on at least {2 * LEAST} records.",
        )
    return first, second


def _learnt(target: Target, material: Material, *, keeps: bool) -> tuple[Reference, NDArray[np.int64]]:
    """What one half shows, and the places of the other."""
    first, second = _halves(material)
    rows = material.evaluation.rows[first]
    image = bool(material.shape)
    reference = learn(
        rows,
        shape=material.shape,
        value_range=(float(np.min(material.space.low)), float(np.max(material.space.high))) if image else None,
        scores=target.scores(rows) if Access.SCORES in target.offers else None,
        trained_on=material.training.rows if keeps else None,
        seed=material.settings.seed,
    )
    return reference, second


def _frames(system: System, target: Target, material: Material, name: str) -> tuple[Rows, NDArray[np.int64]]:
    """Recorded frames in their order, and what the model answers to them."""
    artefact = system.artefact(f"dataset:{name}")
    table = read_table(
        artefact.path,
        system.dataset_part(name),
        label_values=material.training.label_values,
        digest=artefact.digest,
    )
    return table.rows, target.labels(table.rows)


def _measured(
    target: Target, material: Material, reference: Reference, settings: SequenceSettings, natural: NDArray[np.int64]
) -> dict[str, Replayed]:
    """What the guard said to natural queries, and to those of each attack."""
    rows = material.evaluation.rows[natural]
    accounts = stream(material.settings.seed, CHECK, "accounts").integers(0, ACCOUNTS, len(rows))
    found = {"natural": _replayed(target, reference, settings, [Recorded(rows, accounts)])}
    for name, recorded in _recorded(target, material, natural).items():
        before = Recorded(rows[MOST_ATTACKED:], accounts[MOST_ATTACKED:] + MOST_ATTACKED)
        found[name] = _replayed(target, reference, settings, [before, recorded])
    return found


def _replayed(target: Target, reference: Reference, settings: SequenceSettings, parts: Sequence[Recorded]) -> Replayed:
    """Send one part after the other through a new guard; what came of the last."""
    guard = SequenceGuard(settings, reference)
    for number, part in enumerate(parts):
        scores = target.scores(part.rows) if Access.SCORES in target.offers else None
        labels = target.labels(part.rows) if scores is None else scores.argmax(axis=1).astype(np.int64)
        replayed = replay(guard, part.rows, scores, labels, part.sample, role=f"part{number}")
    return replayed


def _recorded(target: Target, material: Material, natural: NDArray[np.int64]) -> dict[str, Recorded]:
    """The queries of attacks that ran without the guard."""
    seed = material.settings.seed
    task = attacked.task_of(material, natural[:MOST_ATTACKED], natural[MOST_ATTACKED:], budget=MOST_QUERIES)
    recorded: dict[str, Recorded] = {}
    for attack in attacked.attacks_on(target, task):
        seen = attacked.run(target, attack, task, stream(seed, CHECK, attack.name))
        recorded[seen.attack] = Recorded(seen.queries, seen.sample)
    copied = attacked.copied(target, task, stream(seed, CHECK, "copy"))
    recorded["copycat"] = Recorded(copied, np.arange(len(copied)) // QUERIES_EACH)
    rng = stream(seed, CHECK, "views")
    scale, space = material.space.scale, material.space
    views = [
        task.rows,
        *(space.project(task.rows + size * scale * rng.normal(size=task.rows.shape), task.rows) for size in NOISE),
    ]
    recorded["membership_labels"] = Recorded(
        np.concatenate(views).astype(task.rows.dtype), np.tile(np.arange(len(task.rows)) // RECORDS_EACH, len(views))
    )
    members = material.training.rows[: len(natural)]
    both = np.concatenate([members, material.evaluation.rows[natural]])
    some = rng.permutation(len(both))[:MOST_QUERIES]
    recorded["membership_scores"] = Recorded(both[some], np.arange(len(some)) // QUERIES_EACH)
    return recorded


def _metrics(found: Mapping[str, Replayed]) -> dict[str, Metric]:
    """Shares of natural queries, and of targets or accounts of attacks, that were stepped down, and how soon."""
    natural = found["natural"].stepped
    numbers = {"false_positive_rate": proportion(int(natural.sum()), len(natural)).metric()}
    for name, replayed in found.items():
        if name == "natural":
            continue
        firsts = replayed.firsts
        numbers[f"flagged_{name}"] = proportion(int((firsts > 0).sum()), len(firsts)).metric()
        numbers[f"queries_flagged_{name}"] = proportion(int(replayed.stepped.sum()), len(replayed.stepped)).metric()
        seen = firsts[firsts > 0].astype(float)
        if len(seen) > 1:
            interval = bootstrap(seen, lambda values: float(np.median(values)), np.random.default_rng(0))
            numbers[f"first_flagged_{name}"] = metric(float(np.median(seen)), interval, len(seen), "bootstrap")
    return numbers


def _outcome(
    material: Material, settings: SequenceSettings, reference: Reference, found: Mapping[str, Replayed]
) -> Outcome:
    metrics = _metrics(found)
    alarms = metrics["false_positive_rate"]
    findings = (_finding(alarms, material),) if alarms.low > PROMISED else ()
    assessment = Assessment(
        method="sequence detection",
        summary=_summary(metrics),
        result="failed" if findings else "passed",
        metrics=metrics,
        techniques=("T07", "T08", "T35", "T38"),
        family="detector",
        threat=Threat(position="user", access=("labels", "scores"), knowledge="does not know of the guard"),
        budget={"queries_per_row": float(MOST_QUERIES), "rows": float(MOST_ATTACKED)},
        seed=material.settings.seed,
        settings={
            name: getattr(settings, name) for name in ("near", "coarsen", "throttle", "hold", "refuse", "memory")
        },
        findings={Severity.MEDIUM.value: len(findings)} if findings else {},
    )
    return stated(assessment, {"reference": reference}, findings)


def _summary(metrics: Mapping[str, Metric]) -> str:
    alarms = metrics["false_positive_rate"]
    parts = [
        f"{name.removeprefix('flagged_')} {found.value:.0%} of {found.n}"
        for name, found in metrics.items()
        if name.startswith("flagged_")
    ]
    return (
        f"Steps down {alarms.value:.2%} of {alarms.n} natural queries ({alarms.low:.2%} to {alarms.high:.2%}); notices "
        f"attacks that run against the model: {', '.join(parts)}."
    )


def _finding(alarms: Metric, material: Material) -> Finding:
    return Finding(
        rule=f"{CHECK}.alarms",
        severity=Severity.MEDIUM,
        title=f"{alarms.value:.2%} of natural queries are taken for parts of an attack ({PROMISED:.1%} are promised)",
        where=material.model.name,
        remedy="lower `near` of the guard sequence, raise its steps, or declare the role's streams.",
        controls=("3.2-a",),
    )


__all__ = ["SequenceCheck"]
