"""What is allowed in a declaration but deserves a second look: findings, not faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bartizan.core.finding import Finding, Severity
from bartizan.core.system import Condition, Declaration
from bartizan.lifecycle.design.declaration_problems import show, show_place
from bartizan.lifecycle.design.gate_rules import RELEASE, every_rule


def notices(declaration: Declaration) -> tuple[Finding, ...]:
    """Everything that deserves a second look, in the order of the rules below."""
    return tuple(finding for rule in NOTICES for finding in rule(declaration))


def reinforcement_learning(declaration: Declaration) -> Iterator[Finding]:
    """The principles do not cover systems that learn from the effects of their own actions."""
    if declaration.exposure.reinforcement_learning:
        yield Finding(
            rule="declaration/reinforcement-learning",
            severity=Severity.HIGH,
            title="reinforcement learning is outside what is examined here",
            where="exposure.reinforcement_learning",
            detail="The catalogue, the attacks and the thresholds assume a model that does not learn by acting.",
            remedy="record a decision of its own: bartizan decide scope --about system.",
        )


def no_release_gate(declaration: Declaration) -> Iterator[Finding]:
    """Without a gate nothing is decided before the model is used."""
    if RELEASE not in declaration.gate:
        yield Finding(
            rule="declaration/no-release-gate",
            severity=Severity.HIGH,
            title="no release gate is declared",
            where="gate",
            detail="Whatever is measured, nothing would keep the model from being used.",
            remedy="add [gate.release]; `bartizan init` writes one to start from.",
        )


def one_hand(declaration: Declaration) -> Iterator[Finding]:
    """Who accepts the risk should not be who looks for it."""
    owner, security = declaration.people.get("risk-owner"), declaration.people.get("security")
    if owner and owner == security:
        yield Finding(
            rule="declaration/one-hand",
            severity=Severity.MEDIUM,
            title=f"risk owner and security are one address: {show(owner)}",
            where="people",
            detail="A review by the person who also approves is no second look.",
            remedy="give the review to somebody else.",
            controls=("2.2-e",),
        )


def one_source(declaration: Declaration) -> Iterator[Finding]:
    """Data from one source carry that source's quirks into training and evaluation alike."""
    for index, dataset in enumerate(declaration.dataset):
        if dataset.split == "holdout" and dataset.provenance.independent_sources == 1:
            yield Finding(
                rule="declaration/one-source",
                severity=Severity.LOW,
                title=f"dataset {show(dataset.name)} comes from a single source",
                where=f"dataset[{index}].provenance.independent_sources",
                detail="What is measured on it holds for that source, and says little about others.",
                remedy="add evaluation data from elsewhere, or say in `limits` where the model must not be used.",
                controls=("A-MLSG-002-D002",),
            )


def favourable_bounds(declaration: Declaration) -> Iterator[Finding]:
    """A threshold on the favourable end of an interval, or one that nothing can miss, decides nothing."""
    for place, rule in every_rule(declaration):
        for index, condition in enumerate(rule.where):
            complaint = _complaint(condition)
            if complaint:
                yield Finding(
                    rule="declaration/favourable-bound",
                    severity=Severity.LOW,
                    title=f"rule {show(rule.id)}: {complaint}",
                    where=show_place((*place, "where", index)),
                    detail="What was not measured exactly should count against a release, not for it.",
                    remedy="bound .low from below and .high from above, by a number that can be missed.",
                )


def _complaint(condition: Condition) -> str:
    if not condition.field.startswith("metrics."):
        return ""
    end = condition.field.rsplit(".", 1)[1]
    if condition.at_least is not None and end in {"value", "high"}:
        return f"a lower bound on .{end} ignores how uncertain the measurement is"
    if condition.at_most is not None and end in {"value", "low"}:
        return f"an upper bound on .{end} ignores how uncertain the measurement is"
    if condition.at_least is not None and condition.at_least <= 0 and end == "low":
        return f"nothing is below {condition.at_least:g}"
    return ""


NOTICES: tuple[Callable[[Declaration], Iterator[Finding]], ...] = (
    reinforcement_learning,
    no_release_gate,
    one_hand,
    one_source,
    favourable_bounds,
)
