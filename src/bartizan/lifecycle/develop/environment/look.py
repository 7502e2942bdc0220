"""Looks at an environment: asks every question once, and compares with what was accepted before."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from bartizan.core.digest import Digest, digest_json
from bartizan.core.errors import InputError
from bartizan.core.finding import Finding, Severity, worst_first
from bartizan.core.system import Claim, Environment
from bartizan.lifecycle.develop.environment.claims import claims
from bartizan.lifecycle.develop.environment.permissions import Place, keys, permissions
from bartizan.lifecycle.develop.environment.ports import ports
from bartizan.lifecycle.develop.environment.repository import Repository, judge
from bartizan.lifecycle.develop.environment.runtime import interpreter, pins, vulnerable
from bartizan.lifecycle.develop.environment.tested import Tested, answer
from bartizan.lifecycle.develop.environment.variables import variables
from bartizan.lifecycle.develop.secrets.search import search
from bartizan.lifecycle.develop.vulnerabilities.check import Looked

SKIPPED = frozenset({".venv", "venv", "node_modules", "site-packages", ".tox", ".nox", "__pycache__", "keys"})
"""Folders that the search for secrets passes over; private keys have a test of their own."""
LARGEST_BASELINE = 64 << 20
VERSION = 1
_NUMBERS = re.compile(r"\d+")
_TOLD_BY_DETAIL = frozenset({"environment/action-not-pinned"})
"""Rules whose place is a file that may hold several such things."""


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked at. Everything is given, so that tests can give something else."""

    project: Path
    system: str
    """Id of the declared system."""
    part: Environment
    """What the project declares of its environment."""
    places: tuple[Place, ...]
    """Stores and declared artefacts."""
    key_places: tuple[Place, ...]
    variables: Mapping[str, str]
    proc: Path
    owner: int
    """User id of the account that runs the work."""
    repository: Repository
    protection: bytes | None = None
    claims: tuple[Claim, ...] = ()
    vulnerabilities: Looked | None = None
    salt: bytes
    now: datetime
    python: tuple[int, int] = (sys.version_info[0], sys.version_info[1])


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen at one time. As JSON it is the baseline of later looks."""

    version: int = VERSION
    system: str
    at: datetime
    tests: tuple[Tested, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Of all tests, worst first."""
        return tuple(worst_first([finding for test in self.tests for finding in test.findings]))


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen, against what was accepted."""

    seen: Seen
    open: tuple[Finding, ...]
    """Findings that count."""
    known: tuple[Finding, ...] = ()
    """Findings that the baseline has, too."""
    gone: tuple[Finding, ...] = ()
    """Findings of the baseline that are mended."""
    unknown: tuple[str, ...] = ()
    """Names of tests that could not be answered and could when the baseline was made."""
    baseline: bool = False

    @property
    def result(self) -> Literal["PASSED", "WARNED", "FAILED"]:
        """Failed by an open finding of high severity; warned by others and by what is not known."""
        if any(finding.severity.rank <= Severity.HIGH.rank for finding in self.open):
            return "FAILED"
        return "WARNED" if self.open or self.unknown else "PASSED"

    def exit_code(self, fail_on: Severity = Severity.LOW) -> int:
        """0 nothing counts, 1 something counts, 2 nothing counts and not everything is known."""
        if any(finding.severity.rank <= fail_on.rank for finding in self.open):
            return 1
        return 2 if self.unknown else 0


def look(at: Surroundings) -> Seen:
    """Ask every question."""
    return Seen(
        system=at.system,
        at=at.now,
        tests=(*quick(at), _secrets(at), *([vulnerable(at.vulnerabilities)] if at.vulnerabilities else ())),
    )


def quick(at: Surroundings) -> tuple[Tested, ...]:
    """The questions whose answers cost little: they also tell whether an earlier look is still true."""
    return (
        permissions([*at.places, *at.key_places], at.owner),
        keys(at.key_places),
        variables(at.variables),
        ports(at.proc, at.part.ports_allowed),
        interpreter(at.python, at.now.date()),
        pins(at.repository.locks),
        *judge(at.repository, at.protection),
        *claims(at.part.required, at.claims, at.system),
    )


def _secrets(at: Surroundings) -> Tested:
    result = search(at.project, salt=at.salt, skip=SKIPPED | frozenset(at.part.skip))
    findings = [msgspec.structs.replace(finding, controls=("2.2-f",)) for finding in result.findings]
    missed = (
        f"{len(result.unread)} files could not be searched, the first is {result.unread[0]}" if result.unread else ""
    )
    return answer("files/secrets", findings, f"{result.files} files searched", unknown=missed)


def compare(seen: Seen, baseline: Seen | None = None) -> Compared:
    """Sort what was seen by whether it was accepted before.

    A question that the baseline answers and that was not asked now counts as not known.
    """
    before = {mark(finding): finding for finding in baseline.findings} if baseline else {}
    now = {mark(finding): finding for finding in seen.findings}
    counting = [finding for finding in now.values() if finding.severity is not Severity.NOTE]
    asked = {test.name: test.state for test in seen.tests}
    accepted = {test.name: test.state for test in baseline.tests} if baseline else {}
    silent = [name for name, state in asked.items() if state == "unknown" and accepted.get(name) != "unknown"]
    left_out = [name for name, state in accepted.items() if name not in asked and state != "unknown"]
    return Compared(
        seen=seen,
        open=tuple(worst_first([finding for finding in counting if mark(finding) not in before])),
        known=tuple(worst_first([finding for finding in counting if mark(finding) in before])),
        gone=tuple(worst_first([finding for key, finding in before.items() if key not in now])),
        unknown=tuple(sorted({*silent, *left_out})),
        baseline=baseline is not None,
    )


def mark(finding: Finding) -> Digest:
    """What makes a finding the same in another look: rule, severity, place and title; counts may move.

    Of what was found in files and packages the numbers say what it is: another advisory, or another secret in the
    same place, is another finding.
    """
    kind = finding.rule.partition("/")[0]
    title = _NUMBERS.sub("#", finding.title) if kind == "environment" else finding.title
    detail = [finding.detail] if kind == "secrets" or finding.rule in _TOLD_BY_DETAIL else []
    return digest_json([finding.rule, finding.severity.value, finding.where, title, *detail])


def read_baseline(data: bytes) -> Seen:
    """Read an earlier look, as ``bartizan environment --json`` prints it under ``seen``.

    Raises:
        InputError: it is none, or of a version that is not known here.
    """
    try:
        document = msgspec.json.decode(data)
        plain = document["seen"] if isinstance(document, dict) and "seen" in document else document
        seen = msgspec.convert(plain, Seen)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError, ValueError) as error:
        raise InputError(
            f"this is no baseline: {error}", remedy="make one with `bartizan environment --json > baseline.json`."
        ) from error
    if seen.version != VERSION:
        raise InputError(f"the baseline has version {seen.version}; {VERSION} is read", remedy="make it again.")
    return msgspec.structs.replace(seen, at=seen.at.astimezone(UTC))


def states(tests: Sequence[Tested]) -> dict[str, tuple[str, ...]]:
    """Names of tests by how they came out."""
    found: dict[str, list[str]] = {"passed": [], "warned": [], "failed": [], "unknown": []}
    for test in tests:
        found[test.state].append(test.name)
    return {state: tuple(names) for state, names in found.items()}
