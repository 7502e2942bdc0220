"""The check ``data.poison``: looks for backdoors in the training data of a model, and whether the model obeys them.

A detector that needs no model finds what suspicious training records share; that is put on evaluation records,
which training did not see, and the model is asked. What surely turns more than half of them is a backdoor, and
the check fails (see ``redteam.detection.scan``).

A model that was pruned, fine-tuned or trained again names the model that it was made from as ``base_model``. Where
that one is declared too, it is scanned first, and the same patterns are put on the same records again: the result
says what each turned before and after, and what of the accuracy it cost.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from bartizan.core.check import Blob, Context, Outcome
from bartizan.core.digest import Digest, canonical_json
from bartizan.core.errors import ArtefactError
from bartizan.core.finding import Finding, Severity
from bartizan.core.predicates import ASSESSMENT, Assessment, Metric
from bartizan.core.system import Artefact, System, settings_digest
from bartizan.redteam.attacks.evasion.hopskipjump import HopSkipJump
from bartizan.redteam.check import check_target, described, material_of, stream
from bartizan.redteam.detection.combined import Combined
from bartizan.redteam.detection.inspected import Inspected, inspected_of
from bartizan.redteam.detection.scan import BackdoorScan, Comparison, Trigger, compare, scan
from bartizan.redteam.family import Material
from bartizan.redteam.parent import parent_of
from bartizan.redteam.statistics import Estimate, proportion
from bartizan.targets.protocol import Targets

NAME = "data.poison"
MOST_RECORDS = 5_000
"""Training records that are looked at, and evaluation records that patterns are tried on; drawn from more."""
MOST_LISTED = 200
"""Suspicious records that the report names, the most suspicious first."""


class PoisonCheck:
    """See ``core.check.Check``."""

    name = NAME
    version = "1"
    title = "Backdoors in the training data, and whether the model obeys them"
    controls: tuple[str, ...] = ("2.1-h",)
    after: tuple[str, ...] = ("scan",)

    def why_not(self, system: System) -> str:
        """Why this check has nothing to do in a system, in one sentence; empty when it has."""
        learned = {model.trained_on for model in system.declaration.model}
        if any(part.text for part in system.declaration.dataset if part.name in learned):
            return f"{NAME} works on rows of numbers, and the declared data are texts."
        return ""

    def selected(self, system: System) -> bool:
        """Whether a gate asks for it."""
        return any(rule.check == NAME for gate in system.declaration.gate.values() for rule in gate.rule)

    def subjects(self, system: System) -> Sequence[Artefact]:
        """See ``Check.subjects``: models."""
        return () if self.why_not(system) else system.of_kind("model")

    def inputs(self, system: System, subject: Artefact) -> Mapping[str, Digest]:
        """See ``Check.inputs``: the model, its parent, and the data of both."""
        parent = parent_of(system, subject)
        both = [subject, *([parent] if parent else [])]
        parts = [system.model_part(model.name) for model in both]
        data = {f"dataset:{name}" for part in parts for name in (part.trained_on, part.evaluated_on)}
        settings = {"seed": system.declaration.redteam.seed}
        said = [[described(system, part), part.classes] for part in parts]
        return {
            **{model.id: model.digest for model in both},
            **{name: system.artefact(name).digest for name in sorted(data)},
            f"settings:{NAME}:{subject.name}": settings_digest(settings, said),
        }

    def run(self, system: System, subject: Artefact, context: Context) -> Outcome:
        """See ``Check.run``."""
        parent, material = parent_of(system, subject), _fewer(material_of(system, subject))
        targets = context.service(Targets)  # type: ignore[type-abstract]  # a protocol is what a port is
        before = _scanned(targets, system, parent, material) if parent else None
        rng = stream(material.settings.seed, NAME)
        with targets.open(system, subject) as target:
            check_target(target, HopSkipJump(), material)
            if before is None:
                found: BackdoorScan | Comparison = scan(target, _inspected(material), _evaluation(material), rng)
            else:
                found = compare(before, target, _inspected(material), _evaluation(material), rng)
        return _outcome(found, material, parent)


def _scanned(targets: Targets, system: System, parent: Artefact, material: Material) -> BackdoorScan:
    """The parent with its own training data, on the evaluation records of the model that was made from it.

    Raises:
        ArtefactError: the two do not take the same records.
    """
    theirs = _fewer(material_of(system, parent))
    mine = material.training
    if (theirs.training.columns, theirs.training.label_values) != (mine.columns, mine.label_values):
        raise ArtefactError(
            f"{parent.id} was not trained on the same columns and labels as {material.model.name!r}",
            remedy="declare as base_model a model for the same data, or leave it out.",
        )
    with targets.open(system, parent) as target:
        check_target(target, HopSkipJump(), theirs)
        rng = stream(material.settings.seed, NAME, "before")
        return scan(target, _inspected(theirs), _evaluation(material), rng)


def _fewer(material: Material) -> Material:
    """With no more records than can be looked at; which ones is settled by the seed."""
    rng = stream(material.settings.seed, NAME, "records")
    training, evaluation = (
        table.take(np.sort(rng.permutation(len(table))[:MOST_RECORDS]))
        for table in (material.training, material.evaluation)
    )
    return dataclasses.replace(material, training=training, evaluation=evaluation)


def _inspected(material: Material) -> Inspected:
    table = material.training
    return inspected_of(table.rows, table.labels, classes=len(material.model.classes), shape=material.shape)


def _evaluation(material: Material) -> tuple[Any, Any]:
    return material.evaluation.rows, material.evaluation.labels


def _outcome(found: BackdoorScan | Comparison, material: Material, parent: Artefact | None) -> Outcome:
    now = found.after if isinstance(found, Comparison) else found
    findings = tuple(_finding(trigger, material) for trigger in now.backdoors)
    assessment = Assessment(
        method="backdoor scan",
        summary=_summary(found, now, material),
        result="failed" if findings else "passed",
        metrics=_metrics(found, now),
        techniques=Combined.techniques,
        family="poisoning",
        budget={"training_records": float(len(material.training)), "queries_at_most": float(_asked(found, material))},
        seed=material.settings.seed,
        settings={"detector": Combined.name, **({"compared_with": parent.name} if parent else {})},
        findings={Severity.HIGH.value: len(findings)} if findings else {},
    )
    report = {
        "patterns": [_shown(trigger, material) for trigger in now.triggers],
        "suspicious": _suspicious(now),
        "notes": list(now.suspicion.notes),
        "statement": assessment,
    }
    return Outcome(
        predicate_type=ASSESSMENT,
        predicate=assessment,
        findings=findings,
        report=Blob(canonical_json(msgspec.to_builtins(report, str_keys=True))),
    )


def _summary(found: BackdoorScan | Comparison, now: BackdoorScan, material: Material) -> str:
    if isinstance(found, Comparison):
        return found.summary
    records = f"{len(material.training)} training records"
    if not now.triggers:
        return f"No pattern was found in {records} that could be a trigger; there may be one that the detector misses."
    worst = max(now.triggers, key=lambda trigger: trigger.turned.value)
    share, low, high = worst.turned.plain()
    return (
        f"The strongest of {len(now.triggers)} patterns that suspicious ones of {records} share turns {share:.0%} "
        f"({low:.0%} to {high:.0%}) of other records to {_class(worst, material)!r}."
    )


def _metrics(found: BackdoorScan | Comparison, now: BackdoorScan) -> dict[str, Metric]:
    worst = max((trigger.turned for trigger in now.triggers), key=lambda turned: turned.value, default=None)
    numbers = {"accuracy": now.accuracy, "suspicious_records": _flagged(now)}
    compared = found.metrics() if isinstance(found, Comparison) else {}
    strongest = {"strongest_trigger_turns": worst.metric()} if worst else {}
    return {**{name: number.metric() for name, number in numbers.items()}, **strongest, **compared}


def _flagged(now: BackdoorScan) -> Estimate:
    return proportion(int(now.suspicion.flagged.sum()), len(now.suspicion.flagged))


def _asked(found: BackdoorScan | Comparison, material: Material) -> int:
    """Most questions that were put to the model: the records, and each pattern on them."""
    now = found.after if isinstance(found, Comparison) else found
    return len(material.evaluation) * (1 + len(now.triggers))


def _class(trigger: Trigger, material: Material) -> str:
    return material.model.classes[trigger.pattern.label]


def _finding(trigger: Trigger, material: Material) -> Finding:
    turned = trigger.turned
    return Finding(
        rule="redteam/backdoor",
        severity=Severity.HIGH,
        title=f"a pattern in the training data turns {turned.value:.0%} of records to {_class(trigger, material)!r}",
        where=material.model.name,
        detail=f"Tried on {turned.n} evaluation records of other classes; surely turned are {turned.interval.low:.0%}. "
        "The report shows what the pattern changes, and the records that are suspected.",
        remedy="Take the suspicious records out and train again, or prune and fine-tune on records that are sound; "
        "declare the old model as base_model of the new one, and let this check compare them.",
        techniques=Combined.techniques,
    )


def _shown(trigger: Trigger, material: Material) -> dict[str, Any]:
    """A pattern and what it does; no record can be read from it."""
    changed = np.flatnonzero(trigger.pattern.change)
    return {
        "class": _class(trigger, material),
        "turns": trigger.turned.plain(),
        "changes": {
            material.training.columns[place]: float(f"{trigger.pattern.change[place]:.4g}") for place in changed
        },
    }


def _suspicious(now: BackdoorScan) -> list[int]:
    """Places of flagged records among those looked at, the most suspicious first."""
    order = np.argsort(-now.suspicion.scores, kind="stable")
    return [int(place) for place in order if now.suspicion.flagged[place]][:MOST_LISTED]
