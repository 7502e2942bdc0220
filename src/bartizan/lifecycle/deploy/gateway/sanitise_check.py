"""The check ``gateway.sanitise``: what each transform of inputs, and the configured chain, is worth.

Measured on rows that training did not see: how many right answers a transform costs, how many rows of attacks on the
bare model it undoes, and what is left of that against an adversary who knows of it and attacks through it. Attacks by
query go through the transform by themselves; gradients, where the model gives any, are taken as if it were not there
(backward pass differentiable approximation, Athalye, Carlini and Wagner 2018). The last number is the one to rely on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bartizan.core.check import Context, Outcome
from bartizan.core.digest import Digest
from bartizan.core.errors import ArtefactError
from bartizan.core.predicates import Assessment, Metric, Threat
from bartizan.core.system import Artefact, System
from bartizan.lifecycle.deploy.gateway.evaluation import attacked, declared
from bartizan.lifecycle.deploy.gateway.evaluation.filtered import Filtered
from bartizan.lifecycle.deploy.gateway.evaluation.stating import stated
from bartizan.lifecycle.deploy.gateway.evaluation.toll import Toll, toll
from bartizan.lifecycle.deploy.gateway.expected import expected_columns
from bartizan.lifecycle.deploy.gateway.guards.sanitise.chains import Chain, chain_of
from bartizan.lifecycle.deploy.gateway.guards.sanitise.frame import Frame
from bartizan.lifecycle.deploy.gateway.guards.sanitise.guard import SanitiseSettings, frame_from, usual_chain
from bartizan.lifecycle.deploy.gateway.model_check import GuardCheck, opened, spending
from bartizan.redteam.attack import Attack
from bartizan.redteam.attacks.evasion.pgd import PGD
from bartizan.redteam.check import described, material_of, stream
from bartizan.redteam.family import Material
from bartizan.redteam.planning import paired
from bartizan.redteam.statistics import Estimate, proportion
from bartizan.redteam.tasks import EvasionTask
from bartizan.targets.protocol import Target

CHECK = "gateway.sanitise"
GUARD = "sanitise"
IMAGES = (("bit-depth:4",), ("median:3",), ("average:3",), ("jpeg:75",), ("jpeg:30",))
CLIP = ("clip",)
TABLES = (CLIP, ("quantise:64",), ("quantise:16",))
"""Transforms that are measured one by one beside the configured chains."""
MOST_ASKED = 2_000
"""Evaluation rows on which right answers are counted."""
MOST_ATTACKED, MOST_QUERIES, MOST_OWNED, MOST_GRADIENTS = 40, 300, 500, 40


class SanitiseCheck(GuardCheck):
    """See ``core.check.Check``."""

    name = CHECK
    version = "1"
    title = "Transforms of inputs: what they cost, and what they cost an adversary"
    controls: tuple[str, ...] = ("3.2-h", "4.2-a", "4.2-c", "4.2-e", "A-MLSG-004-D005")
    guard = GUARD

    def inputs(self, system: System, subject: Artefact) -> Mapping[str, Digest]:
        """See ``Check.inputs``: the model, its data, and what the gateway is configured to do."""
        part = system.model_part(subject.name)
        settings = spending(system, ("seed", "samples", "query_budget", "max_change", "norm", "gradient_budget"))
        configured = declared.said_of(system, subject.name, GUARD, SanitiseSettings)
        return self.rests_on(system, subject, settings, [configured, described(system, part), part.classes])

    def run(self, system: System, subject: Artefact, context: Context) -> Outcome:
        """See ``Check.run``."""
        settings = declared.settings_of(system, subject.name, GUARD, SanitiseSettings)
        material = material_of(system, subject)
        part = system.dataset_part(material.model.trained_on)
        frame = frame_from(expected_columns(part, material.space), material.shape, part.value_range)
        with opened(system, subject, context, material) as target:
            found = evaluated(target, material, settings, frame)
        return _outcome(found, material, settings)


@dataclass(frozen=True, slots=True, eq=False)
class Against:
    """One attack: on the bare model, what a chain makes of its rows, and the same attack through the chain."""

    bare: Toll
    unaware: NDArray[np.bool_]
    """``(samples,)``: right, and still right when the rows made on the bare model come through the chain."""
    aware: Toll


@dataclass(frozen=True, slots=True, eq=False)
class Worth:
    """What one chain is worth."""

    chain: Chain
    right: NDArray[np.bool_]
    """``(records,)``: answered rightly through the chain."""
    by_attack: dict[str, Against]


@dataclass(frozen=True, slots=True, eq=False)
class Evaluated:
    """All chains; the configured one comes first."""

    right: NDArray[np.bool_]
    """``(records,)``: answered rightly without a chain."""
    worths: tuple[Worth, ...]
    task: EvasionTask


def evaluated(target: Target, material: Material, settings: SanitiseSettings, frame: Frame) -> Evaluated:
    """Measure every configured chain, and the standard transforms one by one.

    Raises:
        ArtefactError: there are too few evaluation rows.
        InputError: a chain does not fit the rows.
        WorkError: the target cannot answer.
    """
    task = _task(material)
    attacks = _attacks(target, task)
    seed = material.settings.seed
    evaluation = material.evaluation
    asked = slice(0, MOST_ASKED)
    rows, labels = evaluation.rows[asked], evaluation.labels[asked]
    bare = {attack.name: toll(target, attack, task, stream(seed, CHECK, attack.name)) for attack in attacks}
    worths = []
    for chain in _chains(settings, frame):
        behind = Filtered(target, chain)
        by_attack = {
            attacked.short(attack): _against(behind, attack, task, bare[attack.name], seed) for attack in attacks
        }
        worths.append(Worth(chain, np.asarray(behind.labels(rows) == labels), by_attack))
    return Evaluated(np.asarray(target.labels(rows) == labels), tuple(worths), task)


def _against(behind: Filtered, attack: Attack, task: EvasionTask, bare: Toll, seed: int) -> Against:
    unaware = (behind.labels(bare.rows) == task.labels) & (behind.labels(task.rows) == task.labels)
    return Against(bare, unaware, toll(behind, attack, task, stream(seed, CHECK, attack.name, "aware")))


def _chains(settings: SanitiseSettings, frame: Frame) -> list[Chain]:
    """The usual chain first, then those of roles and sources, then the standard ones; each once."""
    usual = usual_chain(settings, frame)
    named = [*settings.roles.values(), *settings.sources.values()]
    standard = IMAGES if frame.is_image else tuple(names for names in TABLES if names != CLIP or _bounded(frame))
    others = [names for names in dict.fromkeys([*named, *standard]) if names and names != usual]
    return [chain_of(names, frame) for names in (usual, *others)]


def _bounded(frame: Frame) -> bool:
    return bool(np.isfinite([frame.low, frame.high]).any())


def _task(material: Material) -> EvasionTask:
    settings, evaluation = material.settings, material.evaluation
    order = stream(settings.seed, CHECK, "samples").permutation(len(evaluation))
    count = min(settings.samples, MOST_ATTACKED, len(evaluation) // 2)
    if count < 1:
        raise ArtefactError(
            f"dataset {material.model.evaluated_on!r} has {len(evaluation)} records, too few to attack some "
            "and start from others",
            remedy="evaluate on more records.",
        )
    task = attacked.task_of(material, order[:count], order[count : count + MOST_OWNED], budget=MOST_QUERIES)
    return replace(task, gradients=min(settings.gradient_budget, MOST_GRADIENTS))


def _attacks(target: Target, task: EvasionTask) -> tuple[Attack, ...]:
    pgd = PGD()
    by_gradients = (pgd,) if pgd.needs <= target.offers and task.norm in pgd.norms else ()
    return (*attacked.attacks_on(target, task), *by_gradients)


# -- numbers -------------------------------------------------------------------------------------


def _word(chain: Chain) -> str:
    """A chain as a part of a metric's name."""
    return "_then_".join(name.replace("-", "_").replace(":", "_") for name in chain.names)


def _falls(robust: NDArray[np.bool_], right: NDArray[np.bool_]) -> Estimate:
    """How many of the right answers an attack turns."""
    return proportion(int((right & ~robust).sum()), int(right.sum()))


def _of_attack(name: str, against: Against) -> dict[str, Estimate]:
    """One attack against one chain. Rows that the chain itself spoils count as fallen, so that nothing is hidden."""
    bare, aware = against.bare, against.aware
    rng = np.random.default_rng(0)
    return {
        f"success_{name}": _falls(bare.robust, bare.right),
        f"success_{name}_unaware": _falls(against.unaware, bare.right),
        f"success_{name}_aware": _falls(bare.right & aware.robust, bare.right),
        f"lowered_{name}_unaware": paired(bare.right & ~bare.robust, bare.right & ~against.unaware).difference,
        f"lowered_{name}_aware": paired(bare.right & ~bare.robust, bare.right & ~aware.robust).difference,
        f"queries_{name}": bare.queries(rng),
        f"queries_{name}_aware": aware.queries(rng),
    }


def _of_chain(found: Evaluated, worth: Worth) -> dict[str, Estimate]:
    numbers = {
        "accuracy_with": proportion(int(worth.right.sum()), len(worth.right)),
        "accuracy_lost": paired(found.right, worth.right).difference,
    }
    for name, against in worth.by_attack.items():
        numbers |= _of_attack(name, against)
    return numbers


def _metrics(found: Evaluated) -> dict[str, Metric]:
    """Everything of the configured chain, and of each standard transform by how much it lowers success."""
    first, *others = found.worths
    numbers = {"accuracy": proportion(int(found.right.sum()), len(found.right)), **_of_chain(found, first)}
    for worth in others:
        wanted = ("accuracy_lost", "lowered_")
        each = {name: value for name, value in _of_chain(found, worth).items() if name.startswith(wanted)}
        numbers |= {f"{name}_by_{_word(worth.chain)}": value for name, value in each.items()}
    return {name: _metric(name, value) for name, value in numbers.items()}


def _metric(name: str, value: Estimate) -> Metric:
    return value.metric("queries" if name.startswith("queries") else "")


def _outcome(found: Evaluated, material: Material, settings: SanitiseSettings) -> Outcome:
    metrics, first = _metrics(found), found.worths[0]
    task = found.task
    assessment = Assessment(
        method="transforms of inputs",
        summary=_summary(metrics, first),
        metrics=metrics,
        techniques=("T07", "T08"),
        family="robustness",
        threat=Threat(
            position="user", access=("labels", "scores"), knowledge="knows of the transform and goes through it"
        ),
        budget={"samples": float(len(task.rows)), "queries_allowed_per_sample": float(task.budget)},
        seed=material.settings.seed,
        settings={
            "chain": first.chain.says,
            "roles": {role: list(names) for role, names in settings.roles.items()},
            "sources": {source: list(names) for source, names in settings.sources.items()},
            "max_change": task.max_change,
        },
    )
    report = {
        "filters": [
            {
                "chain": list(worth.chain.names),
                "configured": worth is first,
                "numbers": {name: value.plain() for name, value in _of_chain(found, worth).items()},
            }
            for worth in found.worths
        ],
    }
    return stated(assessment, report)


def _summary(metrics: Mapping[str, Metric], worth: Worth) -> str:
    lost = metrics["accuracy_lost"]
    parts = []
    for name in worth.by_attack:
        bare, unaware, aware = (metrics[f"success_{name}{end}"].value for end in ("", "_unaware", "_aware"))
        queries = (metrics[f"queries_{name}"].value, metrics[f"queries_{name}_aware"].value)
        parts.append(
            f"{name} turns {bare:.0%} of right answers without it, {unaware:.0%} when the adversary does not know of "
            f"it and {aware:.0%} when it does (median queries {queries[0]:.0f} and {queries[1]:.0f})"
        )
    costs = f"{worth.chain.says} costs {lost.value:.1%} ({lost.low:.1%} to {lost.high:.1%}) of answers"
    return f"{costs}; {'; '.join(parts)}."


__all__ = ["Evaluated", "SanitiseCheck", "Worth", "evaluated"]
