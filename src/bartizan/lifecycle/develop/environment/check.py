"""The ``environment`` check: the place where the declared system is made, looked at and signed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bartizan.core.check import Blob, Context, Outcome
from bartizan.core.digest import Digest, canonical_json, digest_bytes, digest_json
from bartizan.core.errors import InputError
from bartizan.core.predicates import TEST_RESULT, TestResult
from bartizan.core.system import Artefact, Environment, System, settings_digest
from bartizan.lifecycle.develop.bom.installed import environment_digest, here
from bartizan.lifecycle.develop.environment.look import (
    LARGEST_BASELINE,
    Compared,
    Surroundings,
    compare,
    look,
    mark,
    quick,
    read_baseline,
    states,
)
from bartizan.lifecycle.develop.environment.permissions import Place
from bartizan.lifecycle.develop.environment.repository import read_repository
from bartizan.lifecycle.develop.secrets.salt import salt_in
from bartizan.lifecycle.develop.vulnerabilities.advisories import export_digest, read_export
from bartizan.lifecycle.develop.vulnerabilities.check import CACHE, Looked, look_up
from bartizan.lifecycle.develop.vulnerabilities.inventories import of_installed

STATE = ".bartizan"
KEYS = ".bartizan/keys"
PROC = Path("/proc")
_NO_SALT = b"no secret is marked"


class EnvironmentCheck:
    """See ``core.check.Check``. Applies to systems that declare ``[environment]``."""

    name = "environment"
    version = "1"
    title = "Place where the system is made"
    controls: tuple[str, ...] = ("2.2-f", "2.2-i", "GL-1.11")
    after: tuple[str, ...] = ()

    def subjects(self, system: System) -> Sequence[Artefact]:
        """The system, when it says what its environment must be."""
        return system.of_kind("system") if system.declaration.environment else ()

    def inputs(self, system: System, subject: Artefact) -> Mapping[str, Digest]:
        """The declaration, the packages, the files it names, and the answers that cost little to ask again."""
        part = _part(system)
        named = {
            f"file:{name}": digest_bytes(_read(system, name))
            for name in (part.baseline, part.branch_protection)
            if name
        }
        database = system.declaration.vulnerabilities
        osv = {"osv:database": export_digest(Path(system.folder) / database.database)} if database else {}
        return {
            subject.id: subject.digest,
            "environment:python": environment_digest(),
            "environment:seen": _seen_digest(system),
            **osv,
            **named,
            f"settings:environment:{subject.name}": settings_digest(part),
        }

    def run(self, system: System, subject: Artefact, context: Context) -> Outcome:
        """Look at everything.

        Raises:
            InputError: a file that ``[environment]`` names cannot be read.
        """
        part = _part(system)
        context.progress(0, 2, "packages")
        looked = vulnerabilities_of(system)
        context.progress(1, 2, "files")
        seen = look(surroundings_of(system, vulnerabilities=looked))
        baseline = read_baseline(_read(system, part.baseline)) if part.baseline else None
        return outcome_of(compare(seen, baseline), subject.name)


def vulnerabilities_of(system: System) -> Looked | None:
    """The installed packages against the declared database; None when none is declared."""
    part = system.declaration.vulnerabilities
    if part is None:
        return None
    index = read_export(Path(system.folder) / part.database, Path(system.folder) / CACHE)
    return look_up(of_installed(here()), index, (), now=datetime.now(UTC), max_age=part.max_age)


def surroundings_of(
    system: System,
    *,
    places: Sequence[Place] = (),
    key_places: Sequence[Place] = (),
    vulnerabilities: Looked | None = None,
    salt: bytes = b"",
) -> Surroundings:
    """The surroundings of a declared system on this machine.

    Without ``places`` those are its state folder and everything it declares; without a ``salt`` it is that
    of the state folder.
    """
    part, folder = _part(system), Path(system.folder)
    protection = _read(system, part.branch_protection) if part.branch_protection else None
    declared = [Place(name=artefact.id, path=artefact.path) for artefact in system.artefacts if artefact.path]
    return Surroundings(
        project=folder,
        system=system.of_kind("system")[0].id,
        part=part,
        places=(*declared, *(places or (Place(name="state", path=str(folder / STATE)),))),
        key_places=tuple(key_places or (Place(name="keys", path=str(folder / KEYS)),)),
        variables=dict(os.environ),
        proc=PROC,
        owner=os.geteuid(),
        repository=read_repository(folder / part.repository),
        protection=protection,
        claims=system.claims,
        vulnerabilities=vulnerabilities,
        salt=salt or salt_in(folder / STATE),
        now=datetime.now(UTC),
    )


def _seen_digest(system: System) -> Digest:
    """Digest of what the quick questions find; it changes when the environment does.

    Variables are left out: they belong to a process, and two commands on one machine may differ in them.
    """
    tests = [test for test in quick(surroundings_of(system, salt=_NO_SALT)) if not test.name.startswith("variables/")]
    found = sorted(mark(finding) for test in tests for finding in test.findings)
    return digest_json([found, sorted((test.name, test.state) for test in tests)])


def _part(system: System) -> Environment:
    return system.declaration.environment or Environment()


def _read(system: System, name: str) -> bytes:
    try:
        with (Path(system.folder) / name).open("rb") as stream:
            data = stream.read(LARGEST_BASELINE + 1)
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror}", remedy="mend [environment].") from error
    if len(data) > LARGEST_BASELINE:
        raise InputError(f"{name} is larger than {LARGEST_BASELINE} bytes", remedy="mend [environment].")
    return data


def outcome_of(compared: Compared, name: str) -> Outcome:
    """What was seen as a statement."""
    by_state = states(compared.seen.tests)
    return Outcome(
        predicate_type=TEST_RESULT,
        predicate=TestResult(
            result=compared.result,
            passed_tests=by_state["passed"],
            warned_tests=(*by_state["warned"], *by_state["unknown"]),
            failed_tests=by_state["failed"],
            summary=f"{name}: {summary(compared)}",
            coverage="partly" if compared.unknown or by_state["unknown"] else "examined",
            findings=dict(Counter(finding.severity.value for finding in compared.open)),
        ),
        findings=compared.open,
        report=Blob(canonical_json(msgspec.to_builtins(compared, str_keys=True))),
    )


def summary(compared: Compared) -> str:
    """One sentence that a risk owner understands."""
    counts = Counter(finding.severity.value for finding in compared.open)
    worst = ", ".join(f"{counts[level]} {level}" for level in ("critical", "high", "medium", "low") if counts[level])
    known = f", {len(compared.known)} accepted before" if compared.baseline else ""
    gaps = f", {len(compared.unknown)} tests without an answer" if compared.unknown else ""
    return (
        f"{len(compared.seen.tests)} tests, {f'{worst} findings count' if worst else 'no finding counts'}{known}{gaps}."
    )
