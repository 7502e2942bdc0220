"""The ``vulns`` check: what is known to be wrong with the packages of the declared system."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import msgspec

import bartizan
from bartizan.core.check import Blob, Context, Outcome
from bartizan.core.digest import Digest, canonical_json, digest_bytes
from bartizan.core.durations import deadline
from bartizan.core.errors import InputError
from bartizan.core.finding import Severity, worst_first
from bartizan.core.predicates import VULNERABILITIES, Vulnerabilities
from bartizan.core.system import Advisories, Artefact, System, settings_digest
from bartizan.lifecycle.develop.bom.installed import environment_digest, here
from bartizan.lifecycle.develop.vulnerabilities.advisories import Index, export_digest, read_export
from bartizan.lifecycle.develop.vulnerabilities.inventories import Inventory, join, of_installed, of_lock
from bartizan.lifecycle.develop.vulnerabilities.matching import Matched, Vulnerability, match
from bartizan.lifecycle.develop.vulnerabilities.vex import SETTLED, Said, read_vex, status_of

CACHE = ".bartizan/cache"
SCANNER = "urn:bartizan:vulns"
AHEAD = timedelta(days=1)
"""How far the clock of whoever made a database may be ahead of ours."""


class Looked(msgspec.Struct, frozen=True, kw_only=True):
    """A comparison, sorted by what counts."""

    counting: tuple[Vulnerability, ...]
    settled: tuple[tuple[Vulnerability, Said], ...]
    """Those that a VEX document settles, with what it says."""
    matched: Matched
    database: Digest
    newest: str
    advisories: int
    unreadable: int
    refuse_from: Severity
    at: datetime

    @property
    def refusing(self) -> tuple[Vulnerability, ...]:
        """Those that are severe enough to fail."""
        return tuple(each for each in self.counting if each.severity.rank <= self.refuse_from.rank)

    @property
    def result(self) -> Literal["PASSED", "WARNED", "FAILED"]:
        """Failed by a severe one, or when nothing was looked up; warned by others and by gaps."""
        if self.refusing or not self.matched.checked:
            return "FAILED"
        return "WARNED" if self.counting or self.has_gaps else "PASSED"

    @property
    def exit_code(self) -> int:
        """0 nothing counts and all was looked up, 1 something counts, 2 not everything could be looked up."""
        if self.refusing:
            return 1
        return 2 if self.has_gaps or not self.matched.checked else 0

    @property
    def has_gaps(self) -> bool:
        """Whether something could not be looked up, or an advisory could not be read: it may be about anything."""
        return bool(self.matched.unclear or self.unreadable)


def look_up(
    inventory: Inventory,
    index: Index,
    said: Sequence[Said],
    *,
    now: datetime,
    max_age: str = "",
    refuse_from: Severity = Severity.LOW,
) -> Looked:
    """Compare an inventory with a database, under what was said before.

    Raises:
        InputError: the database is too old, or does not say how old it is.
    """
    if max_age:
        _need_young(index, max_age, now)
    matched = match(inventory, index)
    told = [(each, status_of(each, said)) for each in matched.found]
    return Looked(
        counting=tuple(each for each, known in told if known is None or known.status not in SETTLED),
        settled=tuple((each, known) for each, known in told if known is not None and known.status in SETTLED),
        matched=matched,
        database=index.digest,
        newest=index.newest,
        advisories=index.count,
        unreadable=index.unreadable,
        refuse_from=refuse_from,
        at=now,
    )


def _need_young(index: Index, max_age: str, now: datetime) -> None:
    modified = index.modified
    if modified is None:
        raise InputError("the vulnerability database does not say how old it is", remedy="download the export again.")
    if modified > now + AHEAD:
        raise InputError(
            f"the newest advisory of the vulnerability database is of {modified:%Y-%m-%d}, which is yet to come",
            remedy="an export with such dates never grows old: download it again.",
        )
    if deadline(max_age, modified) < now:
        raise InputError(
            f"the newest advisory of the vulnerability database is of {modified:%Y-%m-%d}, older than {max_age}",
            remedy="download the export again, or allow an older one on purpose.",
        )


class VulnerabilityCheck:
    """See ``core.check.Check``. Applies to systems that declare ``[vulnerabilities]``."""

    name = "vulns"
    version = "1"
    title = "Known vulnerabilities of packages"
    controls: tuple[str, ...] = ("2.1-e", "2.2-b", "2.2-j", "GL-2.1")
    after: tuple[str, ...] = ()

    def subjects(self, system: System) -> Sequence[Artefact]:
        """The system, when it says where advisories come from."""
        return system.of_kind("system") if system.declaration.vulnerabilities else ()

    def inputs(self, system: System, subject: Artefact) -> Mapping[str, Digest]:
        """The packages, the database, the documents, and what refuses."""
        part = _part(system)
        files = {f"file:{name}": digest_bytes(_read(system, name)) for name in (*part.lock, *part.vex)}
        return {
            subject.id: subject.digest,
            "environment:python": environment_digest(),
            "osv:database": export_digest(_path(system, part.database)),
            **files,
            f"settings:vulns:{subject.name}": settings_digest(part),
        }

    def run(self, system: System, subject: Artefact, context: Context) -> Outcome:
        """Look everything up.

        Raises:
            InputError: there is no database, it is too old, or a lock file cannot be read.
        """
        part = _part(system)
        context.progress(0, 2, "reading the database")
        index = read_export(_path(system, part.database), Path(system.folder) / CACHE)
        context.progress(1, 2, f"{index.count} advisories")
        inventory = join([of_installed(here()), *(of_lock(_read(system, name), name) for name in part.lock)])
        said = [each for name in part.vex for each in read_vex(_read(system, name), name)]
        refuse_from = Severity(part.refuse_from)
        now = datetime.now(UTC)
        looked = look_up(inventory, index, said, now=now, max_age=part.max_age, refuse_from=refuse_from)
        return outcome_of(looked, subject.name)


def _part(system: System) -> Advisories:
    part = system.declaration.vulnerabilities
    if part is None:
        raise InputError("no [vulnerabilities] are declared", remedy="name a database there.")
    return part


def _path(system: System, name: str) -> Path:
    return Path(system.folder) / name


def _read(system: System, name: str) -> bytes:
    try:
        return _path(system, name).read_bytes()
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror}", remedy="mend [vulnerabilities].") from error


def outcome_of(looked: Looked, name: str) -> Outcome:
    """The comparison as a statement."""
    findings = tuple(worst_first([each.finding(looked.at) for each in looked.counting]))
    return Outcome(
        predicate_type=VULNERABILITIES,
        predicate=Vulnerabilities(
            scanner={
                "uri": SCANNER,
                "version": bartizan.__version__,
                "db": {"uri": "osv", "version": looked.database, "lastUpdate": looked.newest},
                "result": [_listed(each) for each in looked.counting],
            },
            metadata={"scanStartedOn": _time(looked.at), "scanFinishedOn": _time(looked.at)},
            result=looked.result,
            counted=len(looked.counting),
            coverage="examined" if not looked.has_gaps and looked.matched.checked else "partly",
            summary=f"{name}: {summary(looked)}",
            findings=dict(Counter(finding.severity.value for finding in findings)),
        ),
        findings=findings,
        report=Blob(canonical_json(msgspec.to_builtins(looked, str_keys=True))),
    )


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _listed(each: Vulnerability) -> dict[str, Any]:
    """One result in the words of in-toto vulns v0.2."""
    return {
        "id": each.id,
        "severity": [{"method": method, "score": vector} for method, vector in each.vectors],
        "annotations": {
            "package": each.item.name,
            "version": each.item.version,
            "ecosystem": each.item.ecosystem,
            "aliases": list(each.names),
            "fixed": list(each.fixed),
            "published": each.published,
        },
    }


def summary(looked: Looked) -> str:
    """One sentence that a risk owner understands."""
    counts = Counter(each.severity.value for each in looked.counting)
    worst = ", ".join(f"{counts[severity.value]} {severity.value}" for severity in Severity if counts[severity.value])
    what = f"{len(looked.counting)} known vulnerabilities count ({worst})" if worst else "no known vulnerability counts"
    gaps = f"; {len(looked.matched.unclear)} entries could not be looked up" if looked.matched.unclear else ""
    gaps += f"; {looked.unreadable} entries of the database are no advisory" if looked.unreadable else ""
    day = looked.newest[:10] or "unknown date"
    return f"{looked.matched.checked} packages, {what}{gaps}; {looked.advisories} advisories up to {day}."
