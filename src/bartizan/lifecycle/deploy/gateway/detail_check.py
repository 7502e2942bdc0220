"""The check ``gateway.detail``: what each detail of output gives an adversary, and what it costs a user.

Before a role is granted more than labels, a risk owner should see what that buys whom. The same attacks are played
against the declared model at every detail that its interface may have, by an adversary who knows how answers are
tailored; beside it stands how well a user who is told so much knows when to trust an answer. It measures and does not
judge: bounds belong into a gate, such as ``metrics.evasion_at_labels_only.high``. It runs where a gate asks for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec

from bartizan.core.check import Context, Outcome
from bartizan.core.digest import Digest
from bartizan.core.errors import ArtefactError
from bartizan.core.predicates import Assessment, Metric, Threat
from bartizan.core.system import Artefact, Exposure, System
from bartizan.lifecycle.deploy.gateway.evaluation.stating import stated
from bartizan.lifecycle.deploy.gateway.model_check import ModelCheck, opened, spending
from bartizan.lifecycle.deploy.gateway.roles import covered
from bartizan.redteam import details
from bartizan.redteam.check import described, material_of, offered, stream
from bartizan.redteam.details import EACH_KIND, Gain
from bartizan.redteam.family import Material
from bartizan.redteam.usefulness import Use, usefulness
from bartizan.targets.detail import Detail, keys_of
from bartizan.targets.protocol import Access, Target

NAME = "gateway.detail"
MOST = {"samples": 60, "query_budget": 100, "shadow_models": 16, "extraction_budget": 200}
"""What attacks may spend here at most, because every one of them is played at every detail."""
LEAST_SHADOWS = 8


class DetailCheck(ModelCheck):
    """See ``core.check.Check``."""

    name = NAME
    version = "1"
    title = "What each detail of output gives an adversary, and costs a user"
    controls: tuple[str, ...] = ("3.1-G2",)
    does = "plays attacks on rows of numbers"

    def inputs(self, system: System, subject: Artefact) -> Mapping[str, Digest]:
        """See ``Check.inputs``: the model, its data, what may be told, and what attacks may spend."""
        part = system.model_part(subject.name)
        settings = spending(system, (*MOST, "seed", "max_change", "norm"))
        said = [
            *described(system, part),
            part.classes,
            sorted(offered(system.declaration.exposure)),
            [detail.name for detail in shown(system.declaration.exposure)],
        ]
        return self.rests_on(system, subject, settings, said)

    def run(self, system: System, subject: Artefact, context: Context) -> Outcome:
        """See ``Check.run``."""
        material = bounded(material_of(system, subject))
        compared = shown(system.declaration.exposure)
        with opened(system, subject, context, material) as target:
            if Access.SCORES not in target.offers and len(compared) > 1:
                raise ArtefactError(
                    f"{subject.id} gives labels alone, and exposure.output = {system.declaration.exposure.output!r}",
                    remedy='declare exposure.output = "label".',
                )
            gains = details.gains(
                target,
                material,
                details=compared,
                seed=material.settings.seed,
                tell=partial(_progress, context, len(compared)),
            )
            uses = _uses(target, material, compared)
        return _outcome(gains, uses, material)


def shown(exposure: Exposure) -> tuple[Detail, ...]:
    """The details that the declared interface may have."""
    return tuple(detail for detail in EACH_KIND if covered(detail, exposure.output))


def bounded(material: Material) -> Material:
    """The material with settings of which every attack can be played at every detail."""
    settings = material.settings
    less = {name: min(getattr(settings, name), most) for name, most in MOST.items()}
    less["shadow_models"] = max(less["shadow_models"], LEAST_SHADOWS)
    return replace(material, settings=msgspec.structs.replace(settings, **less))


def _progress(context: Context, total: int, note: str) -> None:
    context.progress(0, total, note)


def _uses(target: Target, material: Material, compared: Sequence[Detail]) -> tuple[Use, ...]:
    """What answers are worth to a user; nothing can be said of a model without scores."""
    if Access.SCORES not in target.offers:
        return ()
    evaluation, seed = material.evaluation, material.settings.seed
    scores, asked = target.scores(evaluation.rows), keys_of(evaluation.rows)
    return tuple(
        usefulness(scores, evaluation.labels, asked, detail, stream(seed, NAME, detail.name)) for detail in compared
    )


def _outcome(gains: Sequence[Gain], uses: Sequence[Use], material: Material) -> Outcome:
    """What is stated. It names no technique: with a small budget none is tried to the end."""
    metrics = {_place(gain.aim, gain.detail): gain.value for gain in gains}
    metrics |= {_place("log loss", use.detail): use.log_loss for use in uses}
    assessment = Assessment(
        method="detail",
        summary=_summary(gains),
        metrics=metrics,
        family="evasion",
        threat=Threat(
            position="user",
            access=(Access.LABELS.value, Access.SCORES.value),
            knowledge="knows how answers are tailored, owns rows of the same kind, and can train models of the kind",
        ),
        budget={name: float(getattr(material.settings, name)) for name in MOST},
        seed=material.settings.seed,
        settings={
            "details": ", ".join(dict.fromkeys(gain.detail.name for gain in gains)),
            "averaged": details.AVERAGED,
        },
    )
    classes = len(material.model.classes)
    report = {
        "gains": details.table(gains),
        "uses": [_plain(use, classes) for use in uses],
    }
    return stated(assessment, report)


def _place(what: str, detail: Detail) -> str:
    """``evasion_at_scores_to_2_digits``."""
    return re.sub(r"[^a-z0-9]+", "_", f"{what} at {detail.name}")


def _plain(use: Use, classes: int) -> dict[str, Any]:
    measured: dict[str, Metric | None] = {
        "accuracy": use.accuracy,
        "log_loss": use.log_loss,
        "calibration_error": use.calibration_error,
        "same_decisions": use.same_decisions,
        "truth_named": use.truth_named,
    }
    kept = {name: value for name, value in measured.items() if value is not None}
    return {"detail": use.detail.name, "bits": round(use.detail.bits(classes), 3), **kept}


def _summary(gains: Sequence[Gain]) -> str:
    """The least and the most of each aim."""
    said = []
    for aim in dict.fromkeys(gain.aim for gain in gains):
        of_aim = [gain for gain in gains if gain.aim == aim]
        least, most = of_aim[0], of_aim[-1]
        said.append(f"{aim} {least.value.value:.2f} with {least.detail.name}")
        if most is not least:
            said[-1] += f" and {most.value.value:.2f} with {most.detail.name}"
    return f"What an adversary gets: {'; '.join(said)}."


__all__ = ["NAME", "DetailCheck", "bounded", "shown"]
