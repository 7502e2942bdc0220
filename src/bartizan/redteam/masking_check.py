"""The check ``redteam.masking``: stops a claim of robustness that rests on gradients which mislead.

It is run wherever an attack by gradients is: on the same samples it looks for signs that cannot be there if gradients
are any good (see ``redteam.masking``), and judges each attack by gradients that a gate names. Its result is ``passed``
only when there are none against any. A model whose file stops gradients outright, such as by rounding its inputs, is
judged by what attacks without gradients make of it, and does not pass: nothing about its robustness can be claimed from
gradients. What was not tried stands in the result: an approximation of a step without slopes has to be written by hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from bartizan.core.check import Blob, Context, Outcome
from bartizan.core.digest import Digest, canonical_json
from bartizan.core.finding import Finding, Severity
from bartizan.core.predicates import ASSESSMENT, Assessment, Metric, Threat
from bartizan.core.system import Artefact, ModelPart, System
from bartizan.redteam import registry
from bartizan.redteam.attack import Attack
from bartizan.redteam.attacks.evasion.hopskipjump import HopSkipJump
from bartizan.redteam.attacks.evasion.pgd import PGD
from bartizan.redteam.changes import allowance
from bartizan.redteam.check import LABORATORY, AttackCheck, check_target, material_of, stream
from bartizan.redteam.evasion import Evasion
from bartizan.redteam.masking import (
    BY_HAND,
    QUERIES,
    Masking,
    Sign,
    Verdict,
    by_copy,
    copy_queries,
    diagnose_each,
    gradient_free,
)
from bartizan.redteam.play import play
from bartizan.redteam.statistics import proportion
from bartizan.redteam.tasks import EvasionTask
from bartizan.targets.protocol import Access, Target, Targets

NAME = "redteam.masking"
MOST_SAMPLES = 300
"""Samples that are looked at; so many show small effects too."""
WORST = (Verdict.MASKED, Verdict.STOPPED, Verdict.NOTHING, Verdict.TOO_WEAK, Verdict.SOUND)
"""Of several verdicts the first of these is the check's."""
SEVERITY = {Verdict.MASKED: Severity.HIGH, Verdict.TOO_WEAK: Severity.MEDIUM, Verdict.STOPPED: Severity.MEDIUM}
TITLES = {
    Verdict.MASKED: "gradients of the model mislead: robustness that rests on them is none",
    Verdict.TOO_WEAK: "the attack by gradients missed what weaker adversaries found",
    Verdict.STOPPED: "the model stops gradients: no robustness can be claimed from them",
}
REMEDIES = {
    Verdict.MASKED: "Claim no more than robust_to_all; harden the model by adversarial training instead of what hides "
    "its gradients, and measure it by attacks without gradients too.",
    Verdict.TOO_WEAK: "Let the gate ask for evasion.autoattack, or raise gradient_budget.",
    Verdict.STOPPED: "Let the gate ask for attacks without gradients (evasion.square, evasion.hopskipjump), or declare "
    "the model without the step that stops gradients.",
}
GRADIENT_FREE = "gradient-free"


class MaskingCheck:
    """See ``core.check.Check``."""

    name = NAME
    version = "2"
    title = "Whether the gradients of a model can be trusted to judge its robustness"
    controls: tuple[str, ...] = ("1.1-b", "1.4-e")
    after: tuple[str, ...] = ("scan",)

    def why_not(self, system: System) -> str:
        """Why this check has nothing to do in a system, in one sentence; empty when it has."""
        reason = AttackCheck(Evasion(), PGD()).why_not(system)
        return f"{NAME} judges attacks by gradients: {reason}" if reason else ""

    def selected(self, system: System) -> bool:
        """Whether something rests on gradients: an attack by them is run, or a gate asks for this check."""
        if any(rule.check == NAME for gate in system.declaration.gate.values() for rule in gate.rule):
            return True
        return any(check.selected(system) and not check.why_not(system) for check in _by_gradients())

    def subjects(self, system: System) -> Sequence[Artefact]:
        """See ``Check.subjects``: models of a kind whose gradients can be read."""
        if self.why_not(system):
            return ()
        return tuple(model for model in system.of_kind("model") if _readable(system.model_part(model.name)))

    def inputs(self, system: System, subject: Artefact) -> Mapping[str, Digest]:
        """See ``Check.inputs``: what evasion rests on, and the attacks whose results are judged."""
        found: dict[str, Digest] = {}
        for claimed in _claimed(system):
            like = AttackCheck(Evasion(), claimed)
            like.name = f"{NAME}.{claimed.name}"
            found |= like.inputs(system, subject)
        return found

    def run(self, system: System, subject: Artefact, context: Context) -> Outcome:
        """See ``Check.run``."""
        material, claimed = material_of(system, subject), _claimed(system)
        seed = material.settings.seed
        case = Evasion().case(claimed[0], material, stream(seed, Evasion.name))
        task: EvasionTask = _few(case.task)
        targets = context.service(Targets)  # type: ignore[type-abstract]  # a protocol is what a port is
        with targets.open(system, subject) as target:
            check_target(target, _free(task, target), material)
            found = judge(target, task, claimed, seed=seed)
        return _outcome(claimed, found, task, seed, where=subject.name)


def judge(target: Target, task: EvasionTask, claimed: Sequence[Attack], *, seed: int) -> tuple[Masking, ...]:
    """A diagnosis for each attack; of a target without gradients, what attacks that need none make of it.

    Raises:
        WorkError: the target cannot answer.
    """
    if Access.GRADIENTS in target.offers:
        return diagnose_each(target, task, claimed, seed=seed)
    return (_without_gradients(target, task, seed),) * len(claimed)


def _without_gradients(target: Target, task: EvasionTask, seed: int) -> Masking:
    free = _free(task, target)
    reasons: Mapping[str, str] = getattr(target, "lacks", {})
    reason = reasons.get(Access.GRADIENTS, f"{target.name} gives none")
    evaded = (play(target, free, task, seed=seed), by_copy(target, task, seed=seed))
    robust = np.logical_and.reduce([each.robust for each in evaded])
    share = proportion(int(robust.sum()), len(robust))
    summary = (
        f"{Verdict.STOPPED}: nothing can be claimed from gradients ({reason}); without them at most {share.value:.0%} "
        f"are robust ({share.interval.low:.0%} to {share.interval.high:.0%}, {free.name} and a transfer from a copy)."
    )
    return Masking(Verdict.STOPPED, summary, (), share, share, (f"gradients: {reason}", BY_HAND))


def _free(task: EvasionTask, target: Target) -> Attack:
    """An attack without gradients; by norms that none searches, one that finds changes which are short by another."""
    return gradient_free(task, target) or HopSkipJump()


def _readable(model: ModelPart) -> bool:
    return Access.GRADIENTS in LABORATORY.get(model.framework, frozenset())


def _by_gradients() -> Iterator[AttackCheck]:
    """Checks of installed attacks that evade by gradients."""
    for check in registry.checks():
        if check.family.name == Evasion.name and Access.GRADIENTS in check.variants[0].needs:
            yield check


def _claimed(system: System) -> tuple[Attack, ...]:
    """The attacks whose results gates ask for, in their order; PGD where none does."""
    asked = [rule.check for gate in system.declaration.gate.values() for rule in gate.rule]
    named = [check for check in _by_gradients() if check.name in asked]
    found = {check.name: check.variants[0] for check in named if not check.why_not(system)}
    return tuple(found[name] for name in dict.fromkeys(asked) if name in found) or (PGD(),)


def _few(task: EvasionTask) -> EvasionTask:
    """The first samples, with queries enough to compare with."""
    return replace(task, rows=task.rows[:MOST_SAMPLES], labels=task.labels[:MOST_SAMPLES], budget=QUERIES)


def _outcome(
    claimed: Sequence[Attack], each: Sequence[Masking], task: EvasionTask, seed: int, *, where: str
) -> Outcome:
    """What is said of all attacks; the numbers are those of the one that is trusted least."""
    found = min(each, key=lambda one: WORST.index(one.verdict))
    findings = tuple(_findings(claimed, each, task, where))
    assessment = Assessment(
        method="masking",
        summary=_summary(claimed, each),
        result="passed" if all(one.verdict is Verdict.SOUND for one in each) else "failed",
        metrics=_metrics(found),
        family=Evasion.name,
        threat=Threat(
            position=claimed[0].position,
            access=tuple(sorted({Access.LABELS, Access.GRADIENTS})),
            knowledge="holds the model itself",
        ),
        budget={
            "samples": float(len(task.rows)),
            "queries_allowed_per_sample": float(task.budget),
            "queries_for_a_copy": float(copy_queries(task)),
        },
        seed=seed,
        settings={
            "claimed": ", ".join(attack.name for attack in claimed),
            "verdict": found.verdict.value,
            "max_change": task.max_change,
        },
        findings={severity.value: sum(one.severity is severity for one in findings) for severity in _of(findings)},
    )
    report = {
        **_said(found),
        "judged": {attack.name: _said(one) for attack, one in zip(claimed, each, strict=True)},
        "statement": assessment,
    }
    return Outcome(
        predicate_type=ASSESSMENT,
        predicate=assessment,
        findings=findings,
        report=Blob(canonical_json(msgspec.to_builtins(report, str_keys=True))),
    )


def _of(findings: Sequence[Finding]) -> set[Severity]:
    return {finding.severity for finding in findings}


def _summary(claimed: Sequence[Attack], each: Sequence[Masking]) -> str:
    """All verdicts, the worst first, and what none of them knows."""
    said: dict[str, list[str]] = {}
    for attack, one in sorted(zip(claimed, each, strict=True), key=lambda pair: WORST.index(pair[1].verdict)):
        said.setdefault(one.summary, []).append(attack.name)
    words = [f"{summary} ({', '.join(names)})" if len(said) > 1 else summary for summary, names in said.items()]
    missing = "; ".join(dict.fromkeys(why for one in each for why in one.missing))
    return " ".join([*words, *([f"Not tried: {missing}."] if missing else [])])


def _said(found: Masking) -> dict[str, Any]:
    return {
        "verdict": found.verdict.value,
        "signs": [_sign(sign) for sign in found.signs],
        "missing": list(found.missing),
    }


def _metrics(found: Masking) -> dict[str, Metric]:
    """Robust accuracy by gradients and by everything, and how much more falls to an attack without gradients."""
    excess = {sign.name: sign.excess.metric() for sign in found.signs if sign.name == GRADIENT_FREE}
    claimed = {} if found.verdict is Verdict.STOPPED else {"robust_by_gradients": found.robust_by_gradients.metric()}
    missed = {"missed_by_gradients": excess[GRADIENT_FREE]} if excess else {}
    return {**claimed, "robust_to_all": found.robust_to_all.metric(), **missed}


def _sign(sign: Sign) -> dict[str, Any]:
    return {
        "name": sign.name,
        "says": sign.says,
        "seen": sign.seen,
        "doubt": sign.doubt,
        "p_value": float(f"{sign.p_value:.6g}"),
        "excess": msgspec.to_builtins(sign.excess.metric()),
    }


def _findings(claimed: Sequence[Attack], each: Sequence[Masking], task: EvasionTask, where: str) -> Iterator[Finding]:
    """One for each verdict that lets nothing be claimed, with the attacks that it was given about."""
    for verdict in dict.fromkeys(one.verdict for one in each if one.verdict in SEVERITY):
        pairs = [(attack, one) for attack, one in zip(claimed, each, strict=True) if one.verdict is verdict]
        attacks = [attack for attack, _ in pairs]
        names = " and ".join(attack.name for attack in attacks)
        said = " ".join(dict.fromkeys(one.summary for _, one in pairs))
        yield Finding(
            rule=f"redteam/{'masked' if verdict is Verdict.MASKED else 'gradients'}",
            severity=SEVERITY[verdict],
            title=TITLES[verdict],
            where=where,
            detail=f"{said} Compared with {names}, where an adversary may {allowance(task)}.",
            remedy=REMEDIES[verdict],
            techniques=tuple(
                dict.fromkeys(each_id for attack in attacks for each_id in (attack.technique, *attack.atlas))
            ),
        )
