"""The check ``gateway.rules``: what stands outside the model is tried out before it is relied on.

It fits the small tree that may answer beside the model, measures how uncertain the model is on data that it has not
seen, counts how often each configured rule is met by right and by wrong answers, and hands the configured guard answers
that no model can mean. It fails when one of them is let by, or when the model is less certain than the configuration
allows and no rule constrains what it answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bartizan.core.check import Blob, Context, Outcome
from bartizan.core.digest import Digest, canonical_json
from bartizan.core.errors import ArtefactError
from bartizan.core.finding import Finding, Severity
from bartizan.core.predicates import TEST_RESULT, TestResult
from bartizan.core.system import Artefact, System
from bartizan.lifecycle.deploy.gateway import guard as shape
from bartizan.lifecycle.deploy.gateway.caller import Caller
from bartizan.lifecycle.deploy.gateway.evaluation import declared
from bartizan.lifecycle.deploy.gateway.expected import expected_columns
from bartizan.lifecycle.deploy.gateway.guards.rules import fitting
from bartizan.lifecycle.deploy.gateway.guards.rules.fitting import Answers, Trees
from bartizan.lifecycle.deploy.gateway.guards.rules.guard import RulesGuard
from bartizan.lifecycle.deploy.gateway.guards.rules.report import CHECK, Report
from bartizan.lifecycle.deploy.gateway.guards.rules.settings import RulesSettings
from bartizan.lifecycle.deploy.gateway.guards.rules.tree import Tree, TreeRow
from bartizan.lifecycle.deploy.gateway.model_check import GuardCheck, opened, spending
from bartizan.redteam.check import material_of, stream
from bartizan.redteam.family import Material
from bartizan.targets.protocol import Access, Target

GUARD = "rules"
MOST_RECORDS = 20_000
TRIAL = Caller(id="trial", role="trial", method="anonymous")
NOON = 1_800_000_000.0
"""A moment at which rules are tried; what rests on the time is judged by whoever wrote it."""


class RulesCheck(GuardCheck):
    """See ``core.check.Check``."""

    name = CHECK
    version = "1"
    title = "Rules, tree and bounds outside the model: tried out on data that it has not seen"
    controls: tuple[str, ...] = ("1.2-e", "1.2-g", "2.4-j")
    guard = GUARD

    def inputs(self, system: System, subject: Artefact) -> Mapping[str, Digest]:
        """See ``Check.inputs``: the model, its data, and what the gateway is configured to do."""
        classes = system.model_part(subject.name).classes
        return {
            **self.rests_on(system, subject, spending(system, ("seed",)), classes),
            **declared.inputs_of(system),
        }

    def run(self, system: System, subject: Artefact, context: Context) -> Outcome:
        """See ``Check.run``."""
        material = material_of(system, subject)
        settings = declared.settings_of(system, subject.name, GUARD, RulesSettings)
        trees: Trees = context.service(Trees)  # type: ignore[type-abstract]  # a protocol is what a port is
        with opened(system, subject, context, material) as target:
            answers = _answers(target, material)
        tree = fitting.fitted(trees, material.training, material.model.classes, material.settings.seed)
        found = _measured(tree, answers, material)
        report = Report(tree=tree, uncertainty=float(f"{fitting.uncertainty(found):.6g}"))
        part = system.dataset_part(material.model.trained_on)
        given = shape.Material(
            model=subject.name,
            digest=subject.digest,
            classes=material.model.classes,
            columns=expected_columns(part, material.space),
            fitted=lambda _: msgspec.json.encode(report),
            state=_NOTHING,
        )
        return _outcome(subject, settings, given, answers, report=report, found=found)


_NOTHING: Any = None
"""Rules share nothing between replicas."""


def _answers(target: Target, material: Material) -> Answers:
    data = material.evaluation
    if len(data) > MOST_RECORDS:
        chosen = stream(material.settings.seed, CHECK, "records").choice(len(data), MOST_RECORDS, replace=False)
        data = data.take(np.sort(chosen))
    scores = target.scores(data.rows) if Access.SCORES in target.offers else None
    labels = np.asarray(scores.argmax(axis=1) if scores is not None else target.labels(data.rows), np.int64)
    return Answers(data.rows, data.labels, labels, scores)


def _measured(tree: Sequence[TreeRow], answers: Answers, material: Material) -> dict[str, Any]:
    built = Tree(tree, material.training.columns, material.model.classes, "fitted tree")
    return fitting.judged(built, answers) | fitting.doubts(answers, material.settings.seed)


def _outcome(
    subject: Artefact,
    settings: RulesSettings,
    given: shape.Material,
    answers: Answers,
    *,
    report: Report,
    found: Mapping[str, Any],
) -> Outcome:
    passed, failed, findings = [], [], []
    try:
        guard = RulesGuard(settings, given)
    except ArtefactError as error:
        failed.append("bound")
        findings.append(_finding(subject, "rules/uncovered", error.message, error.remedy))
        guard = RulesGuard(msgspec.structs.replace(settings, bound=None), given)
    else:
        passed.append("bound")
    for name, let_by in _impossible(guard, answers, given).items():
        (failed if let_by else passed).append(f"impossible.{name}")
        if let_by:
            findings.append(_finding(subject, "rules/impossible", f"an answer with {name} is let by", "report it."))
    told = fitting.rates(_met(guard, answers, given), answers)
    numbers = fitting.metrics({**found, **told})
    result = TestResult(
        result="FAILED" if failed else "PASSED",
        passed_tests=tuple(passed),
        failed_tests=tuple(failed),
        summary=" ".join([_summary(subject.name, report, numbers), *(f"Failed: {each.title}." for each in findings)]),
        coverage="examined",
        findings={Severity.HIGH.value: len(findings)} if findings else {},
    )
    body = {**msgspec.to_builtins(report), "metrics": msgspec.to_builtins(numbers)}
    return Outcome(
        predicate_type=TEST_RESULT,
        predicate=result,
        findings=tuple(findings),
        report=Blob(canonical_json(body)),
    )


def _asked(rows: shape.Numbers, given: shape.Material) -> shape.Asked:
    return shape.Asked(request="trial", caller=TRIAL, model=given.model, digest=given.digest, rows=rows, now=NOON)


def _impossible(guard: RulesGuard, answers: Answers, given: shape.Material) -> dict[str, bool]:
    """Answers that no model can mean, and whether the guard lets each by."""
    classes = len(given.classes)
    sure = np.eye(classes)[:1]
    trials: dict[str, tuple[int, NDArray[np.float64] | None]] = {
        "scores that are no numbers": (0, np.full((1, classes), np.nan)),
        "scores beyond 1": (0, sure * 2.0),
        "negative scores": (0, sure * 1.5 - 0.5 / max(classes - 1, 1) * (1 - sure)),
        "a class that there is not": (classes, None),
        "a label that is not the greatest": (classes - 1, sure) if classes > 1 else (classes, sure),
    }
    row = answers.rows[:1]
    said = {
        name: guard.on_response(_asked(row, given), shape.Answer(np.array([label], np.int64), scores))
        for name, (label, scores) in trials.items()
    }
    return {name: verdict is None or verdict.action < shape.Action.HOLD for name, verdict in said.items()}


def _met(guard: RulesGuard, answers: Answers, given: shape.Material) -> dict[str, NDArray[np.bool_]]:
    """Where each rule is met that rests on nothing but rows, answers and the tree."""
    asked = _asked(answers.rows, given)
    return guard.tried(asked, shape.Answer(answers.labels, answers.scores))


def _summary(name: str, report: Report, numbers: Mapping[str, Any]) -> str:
    tree, error = numbers["tree_accuracy"], numbers["error"]
    return (
        f"{name} is wrong on {error.value:.1%} of {error.n} records that it has not seen ({error.low:.1%} to "
        f"{error.high:.1%}) and counts as {report.uncertainty:.3g} uncertain; a tree of {len(report.tree)} rows is "
        f"right on {tree.value:.1%} ({tree.low:.1%} to {tree.high:.1%})."
    )


def _finding(subject: Artefact, rule: str, title: str, remedy: str) -> Finding:
    return Finding(
        rule=rule, severity=Severity.HIGH, title=title, where=subject.name, remedy=remedy, controls=("1.2-e", "2.4-j")
    )


__all__ = ["RulesCheck"]
