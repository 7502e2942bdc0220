"""The check ``gateway.configuration``: whether the gateway's configuration defends against what is common.

It judges the options that were chosen, not how well what they switch on works: that is measured by the checks of the
guards. Each weakness names the setting that mends it. What is written as the default passes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bartizan.core.check import Blob, Context, Outcome
from bartizan.core.digest import Digest, canonical_json, digest_bytes
from bartizan.core.errors import ArtefactError, InputError
from bartizan.core.finding import Finding, Severity
from bartizan.core.predicates import TEST_RESULT, TestResult
from bartizan.core.system import Artefact, System, settings_digest
from bartizan.lifecycle.deploy.gateway.configuration import MAX_BYTES, Configuration, read
from bartizan.lifecycle.deploy.gateway.evaluation import declared
from bartizan.lifecycle.deploy.gateway.roles import Role

CHECK = "gateway.configuration"
LONGEST_UNWATCHED = 30
"""Days after which what a caller asked is no longer counted."""
ASKING = frozenset({"infer", "explain", "chat"})
SCORES = frozenset({"scores", "rounded-scores", "noisy-scores", "confidence"})
"""Details that give an attack numbers to climb by."""
REFUSING = (Severity.HIGH, Severity.CRITICAL)


class ConfigurationCheck:
    """See ``core.check.Check``."""

    name = CHECK
    version = "1"
    title = "The gateway's configuration defends against common threats"
    controls: tuple[str, ...] = ("3.1-G4", "3.1-i", "GL-1.9", "GL-3.11")
    after: tuple[str, ...] = ()

    def subjects(self, system: System) -> Sequence[Artefact]:
        """See ``Check.subjects``: the document ``gateway``."""
        return declared.documents(system)

    def inputs(self, system: System, subject: Artefact) -> Mapping[str, Digest]:
        """See ``Check.inputs``: the document, and what of the declaration bounds it."""
        declaration = system.declaration
        classes = {part.name: part.classes for part in declaration.model}
        return {subject.id: subject.digest, f"settings:{CHECK}": settings_digest(declaration.exposure, classes)}

    def run(self, system: System, subject: Artefact, context: Context) -> Outcome:
        """See ``Check.run``."""
        del context
        path = Path(subject.path)
        data = path.read_bytes()[: MAX_BYTES + 1]
        if digest_bytes(data) != subject.digest:
            raise ArtefactError(f"{path.name} changed while it was checked", remedy="run it again.")
        try:
            findings = tuple(weaknesses(read(data, system), path.name))
        except InputError as error:
            findings = (
                Finding(
                    rule="gateway/unusable",
                    severity=Severity.CRITICAL,
                    title="The gateway does not start with it",
                    where=path.name,
                    detail=error.message,
                    remedy=error.remedy,
                ),
            )
        return _outcome(findings)


def _outcome(findings: tuple[Finding, ...]) -> Outcome:
    refusing = [finding for finding in findings if finding.severity in REFUSING]
    counts = {str(severity): sum(each.severity is severity for each in findings) for severity in Severity}
    worst = next(iter([*refusing, *findings]), None)
    return Outcome(
        predicate_type=TEST_RESULT,
        predicate=TestResult(
            result="FAILED" if refusing else "WARNED" if findings else "PASSED",
            findings={name: count for name, count in counts.items() if count},
            summary=worst.title if worst else "Every option that was looked at defends against what is common.",
        ),
        findings=findings,
        report=Blob(canonical_json({"looked_at": sorted(LOOKED_AT)})),
    )


def weaknesses(configuration: Configuration, where: str) -> Iterator[Finding]:
    """Everything that a common attack would find open."""
    for look in LOOKED_AT.values():
        yield from look(configuration, where)


def _asking(configuration: Configuration) -> list[Role]:
    return [role for role in configuration.roles.values() if any(role.may(name) for name in ASKING)]


def _strangers(configuration: Configuration, where: str) -> Iterator[Finding]:
    role = configuration.roles.get("anonymous")
    if role is None or not any(role.may(name) for name in ASKING):
        return
    severity = Severity.HIGH if role.detail != "label" else Severity.MEDIUM
    yield Finding(
        rule="gateway/strangers",
        severity=severity,
        where=f"{where}: role.anonymous",
        title=f"Whoever can reach it is told {role.shown.name}",
        detail="Budgets and sequences of strangers are shared by all of them, and nobody can be held to anything.",
        remedy="take role.anonymous out, or leave it detail = 'label'.",
    )


def _details(configuration: Configuration, where: str) -> Iterator[Finding]:
    for role in _asking(configuration):
        if role.detail == "scores" and role.factor != "needed":
            yield Finding(
                rule="gateway/scores",
                severity=Severity.HIGH,
                where=f"{where}: role.{role.name}",
                title=f"Unrounded scores for {role.name} without a second factor",
                detail="Square succeeds within about twenty questions that are answered with scores.",
                remedy="factor = 'needed', or detail = 'rounded-scores'.",
            )
        if role.explanations and role.factor != "needed":
            yield Finding(
                rule="gateway/explanations",
                severity=Severity.HIGH,
                where=f"{where}: role.{role.name}",
                title=f"Explanations for {role.name} without a second factor",
                detail="A linear model is copied after as many explanations as it has classes (arXiv:1807.05185).",
                remedy="factor = 'needed'.",
            )


def _budgets(configuration: Configuration, where: str) -> Iterator[Finding]:
    always = any(budget.always and budget.seconds >= _DAY for budget in configuration.budget.values())
    for role in _asking(configuration):
        spans = [configuration.budget[name].seconds for name in role.budgets if name in configuration.budget]
        if always or any(span >= _DAY for span in spans):
            continue
        severity = Severity.HIGH if role.detail in SCORES else Severity.MEDIUM
        yield Finding(
            rule="gateway/budget",
            severity=severity,
            where=f"{where}: role.{role.name}",
            title=f"What {role.name} asks is counted over no day or longer",
            detail="A copy of the model is bought by asking slowly; a rate alone only tells how long it takes.",
            remedy="give the role a budget of labels or rows over days; `bartizan gateway budget derive` proposes one.",
        )


def _guards(configuration: Configuration, where: str) -> Iterator[Finding]:
    modes = {use.use: use.mode for use in configuration.guard if not use.models}
    for name, severity, why in (
        ("schema", Severity.HIGH, "Inputs that cannot be are answered like any other."),
        ("sequence", Severity.HIGH, "An attack in progress looks like any other caller."),
        ("outliers", Severity.MEDIUM, "Inputs unlike everything that was learned are answered with confidence."),
    ):
        if name not in modes:
            title = f"The guard {name} is not used for every model"
            yield Finding(
                rule="gateway/guard",
                severity=severity,
                where=where,
                title=title,
                detail=why,
                remedy=f'[[guard]]\nuse = "{name}"',
            )
        elif modes[name] == "shadow":
            title = f"The guard {name} only watches"
            yield Finding(
                rule="gateway/shadow",
                severity=Severity.LOW,
                where=where,
                title=title,
                detail=why,
                remedy='mode = "enforce", when you have seen enough.',
            )


def _records(configuration: Configuration, where: str) -> Iterator[Finding]:
    audit = configuration.audit
    if audit.mode == "fast":
        yield Finding(
            rule="gateway/fast-audit",
            severity=Severity.MEDIUM,
            where=f"{where}: audit",
            title="Answers leave before their records are written",
            detail=f"A crash loses what was answered in the last {audit.linger_ms} ms.",
            remedy='mode = "written", or "durable".',
        )
    if audit.mode == "written":
        yield Finding(
            rule="gateway/written-audit",
            severity=Severity.LOW,
            where=f"{where}: audit",
            title="Answers leave before their records are on disk",
            detail=f"The end of the gateway loses nothing; a loss of power, what was answered in {audit.linger_ms} ms.",
            remedy='mode = "durable", or a machine whose power does not fail.',
        )
    if not audit.witness:
        yield Finding(
            rule="gateway/witness",
            severity=Severity.LOW,
            where=f"{where}: audit",
            title="Nobody outside sees the checkpoints of the audit log",
            detail="Whoever has the key and the database can cut the end off without trace.",
            remedy="witness = a file on another disk, or the address of a witness.",
        )


def _factors(configuration: Configuration, where: str) -> Iterator[Finding]:
    acting = [role.name for role in configuration.roles.values() if role.may("admin.withdraw")]
    if acting and "admin.*" not in configuration.policy.privileged:
        yield Finding(
            rule="gateway/factor",
            severity=Severity.HIGH,
            where=f"{where}: policy",
            title=f"{', '.join(acting)} may act without a second factor",
            detail="A key that was found is enough to take a model out of service, or to put one back.",
            remedy='privileged = ["admin.*"].',
        )


_DAY = 86_400.0
LOOKED_AT = {
    "strangers": _strangers,
    "details": _details,
    "budgets": _budgets,
    "guards": _guards,
    "records": _records,
    "factors": _factors,
}


__all__ = ["CHECK", "LOOKED_AT", "ConfigurationCheck", "weaknesses"]
