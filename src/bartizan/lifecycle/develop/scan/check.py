"""The ``scan`` check: every declared model file is examined before anything loads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from bartizan.core.check import Blob, Context, Outcome
from bartizan.core.digest import Digest, digest_json, short
from bartizan.core.errors import ArtefactError
from bartizan.core.predicates import TEST_RESULT, TestResult
from bartizan.core.system import Artefact, System
from bartizan.lifecycle.develop.scan.pickle.policy import load_policy
from bartizan.lifecycle.develop.scan.rules import RULES
from bartizan.lifecycle.develop.scan.scanner import VERSION, scan_path
from bartizan.lifecycle.develop.scan.verdict import Report, Verdict

RULES_INPUT = "rules:scan"
_RESULTS: dict[Verdict, Literal["PASSED", "WARNED", "FAILED"]] = {Verdict.CLEAN: "PASSED", Verdict.SUSPICIOUS: "WARNED"}


def rules_digest() -> Digest:
    """Digest of everything that decides a verdict besides the file: allow-lists, rules, version of the scanner."""
    return digest_json([VERSION, load_policy().digest, sorted((rule.id, rule.verdict) for rule in RULES.values())])


class ScanCheck:
    """Scans the models of a system. See ``bartizan.core.check.Check``."""

    name = "scan"
    version = VERSION
    title = "Model files examined for code, hidden content and bombs"
    controls = ("2.1-n", "2.4-d")
    after: tuple[str, ...] = ()

    def subjects(self, system: System) -> Sequence[Artefact]:
        """All declared models."""
        return system.of_kind("model")

    def inputs(self, system: System, subject: Artefact) -> Mapping[str, Digest]:  # noqa: ARG002 -- the protocol's signature
        """The model and the rules."""
        return {subject.id: subject.digest, RULES_INPUT: rules_digest()}

    def run(self, system: System, subject: Artefact, context: Context) -> Outcome:  # noqa: ARG002 -- the protocol's signature
        """Scan the model.

        Raises:
            ArtefactError: it cannot be read, or is no longer what was digested.
        """
        context.progress(0, 1, f"scanning {subject.name}")
        report = scan_path(Path(subject.path))
        if report.digest is not None and report.digest != subject.digest:
            raise ArtefactError(
                f"{subject.path} has digest {short(report.digest)} and was declared with {short(subject.digest)}",
                remedy="run the command again when nothing writes to the file.",
            )
        if report.size == 0:
            raise ArtefactError(f"{subject.id} is empty: {subject.path} holds no model", remedy="put the model there.")
        context.progress(1, 1, report.verdict)
        return Outcome(
            predicate_type=TEST_RESULT,
            predicate=predicate_of(report),
            findings=report.findings,
            report=Blob(report.to_json()),
        )


def predicate_of(report: Report) -> TestResult:
    """The test result that stands for a report: passed only when all was examined and clean."""
    result: Literal["PASSED", "WARNED", "FAILED"] = _RESULTS.get(report.verdict, "FAILED")
    formats = tuple(sorted({part.format for part in report.walk()}))
    return TestResult(
        result=result,
        summary=summary(report),
        coverage=report.total_coverage,
        findings=dict(Counter(finding.severity.value for finding in report.findings)),
        passed_tests=formats if result == "PASSED" else (),
        warned_tests=formats if result == "WARNED" else (),
        failed_tests=formats if result == "FAILED" else (),
    )


def summary(report: Report) -> str:
    """One sentence that a risk owner understands."""
    parts = sum(1 for _ in report.walk())
    what = f"{report.format}, {report.size} bytes, {parts} part{'s' if parts != 1 else ''}"
    if report.verdict is Verdict.CLEAN:
        return f"Everything was examined and is clean ({what})."
    if report.verdict is Verdict.UNKNOWN:
        return f"Not everything could be examined ({what}): {'; '.join(report.reasons)[:300]}."
    worst = report.findings[0]
    return f"The file is {report.verdict} ({what}): {worst.title}, at {worst.where}."
