"""Which mitigations have live evidence, and what attacks measured: the facts behind the attack map."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

from bartizan.core import predicates
from bartizan.core.evidence import Evidence
from bartizan.core.predicates import Metric
from bartizan.core.system import Artefact, System

Test = Callable[[System, Sequence[Evidence]], bool]

_SUCCESS: dict[str, tuple[str, bool]] = {
    "evasion": ("robust_accuracy", True),
    "privacy": ("tpr_at_1_percent_fpr", False),
    "extraction": ("fidelity", False),
    "poisoning": ("accuracy_drop_at_10_percent", False),
}
"""Family to the metric that tells how often its attack works, and whether it is turned round."""


def live_mitigations(system: System, evidence: Sequence[Evidence]) -> set[str]:
    """Mitigations whose evidence stands now, claimed or not. A claim without evidence is only a claim."""
    standing = [item for item in evidence if item.holds]
    return {name for name, test in _TESTS.items() if test(system, standing)}


def testable() -> frozenset[str]:
    """Mitigations whose evidence this version knows how to look for."""
    return frozenset(_TESTS)


def measured(evidence: Iterable[Evidence]) -> dict[str, Metric]:
    """Catalogue technique to the highest success rate that a standing assessment measured."""
    found: dict[str, Metric] = {}
    for item in evidence:
        said = item.statement.read() if item.holds and item.statement else None
        if not isinstance(said, predicates.Assessment) or said.family not in _SUCCESS:
            continue
        name, turned = _SUCCESS[said.family]
        if name not in said.metrics:
            continue
        metric = _turned(said.metrics[name]) if turned else said.metrics[name]
        for technique in said.techniques:
            if technique not in found or metric.value > found[technique].value:
                found[technique] = metric
    return found


def accepted(evidence: Iterable[Evidence]) -> dict[str, datetime]:
    """Technique to the time until which somebody has accepted its risk."""
    found: dict[str, datetime] = {}
    for item in evidence:
        said = item.statement.read() if item.holds and item.statement else None
        if isinstance(said, predicates.Decision) and (said.kind, said.outcome) == ("risk", "yes"):
            for concern in said.concerns:
                found[concern] = max(said.expires, found.get(concern, said.expires))
    return found


def _turned(metric: Metric) -> Metric:
    """Share of samples that fell, from the share that withstood."""
    return Metric(
        value=1 - metric.value,
        low=1 - metric.high,
        high=1 - metric.low,
        n=metric.n,
        unit=metric.unit,
        confidence=metric.confidence,
        method=metric.method,
    )


def _every(kind: str, test: Callable[[Evidence], bool]) -> Test:
    """Each artefact of a kind has a standing statement that passes the test."""

    def all_of(system: System, standing: Sequence[Evidence]) -> bool:
        artefacts = system.of_kind(kind)
        return bool(artefacts) and all(any(test(item) for item in _about(artefact, standing)) for artefact in artefacts)

    return all_of


def _about(artefact: Artefact, standing: Sequence[Evidence]) -> list[Evidence]:
    return [item for item in standing if item.statement and artefact.digest in item.statement.about()]


def _type(predicate_type: str) -> Callable[[Evidence], bool]:
    return lambda item: bool(item.statement) and item.statement.predicate_type == predicate_type  # type: ignore[union-attr]  # bool() of it was just asked


def _clean_scan(item: Evidence) -> bool:
    said = item.statement.read() if item.statement else None
    return item.check == "scan" and isinstance(said, predicates.TestResult) and said.result == "PASSED"


def _from_check(name: str) -> Callable[[Evidence], bool]:
    return lambda item: item.check == name


def _red_team(system: System, standing: Sequence[Evidence]) -> bool:
    """Every model has been attacked in every family."""
    families = {"evasion", "poisoning", "privacy", "extraction"}
    return all(
        families <= {str(item.statement.predicate.get("family")) for item in _about(model, standing) if item.statement}
        for model in system.of_kind("model")
    )


def _two_people(system: System, standing: Sequence[Evidence]) -> bool:
    """Two persons have approved or reviewed each model."""
    for model in system.of_kind("model"):
        decisions = [item for item in _about(model, standing) if item.kind in {"approval", "review"}]
        if len({signer for item in decisions for signer in item.signers}) < 2:  # noqa: PLR2004 - two persons
            return False
    return True


def _decision(kind: str) -> Test:
    return lambda _system, standing: any(
        item.kind == kind and item.statement is not None and item.statement.predicate.get("outcome") == "yes"
        for item in standing
    )


def _signed(system: System, standing: Sequence[Evidence]) -> bool:
    signature = _type(predicates.MODEL_SIGNATURE)
    return _every("model", signature)(system, standing) and _every("dataset", signature)(system, standing)


_TESTS: Mapping[str, Test] = {
    "M01": _decision("disclosure"),
    "M15": _signed,
    "M16": _every("model", _clean_scan),
    "M19": _decision("supplier"),
    "M21": _every("dataset", _from_check("data.quality")),
    "M27": _red_team,
    "M28": _two_people,
    "M50": _decision("briefing"),
}
