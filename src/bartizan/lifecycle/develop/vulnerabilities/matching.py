"""Packages against advisories: what is known to be wrong, how bad it is, and since when there is a remedy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

import cvss
import msgspec

from bartizan.core.finding import Finding, Severity
from bartizan.lifecycle.develop.vulnerabilities.advisories import Advisory, Affected, Index, key_of
from bartizan.lifecycle.develop.vulnerabilities.inventories import Inventory, Item
from bartizan.lifecycle.develop.vulnerabilities.versions import UnorderedVersionError, fixes, is_affected

CONTROLS = ("2.1-e", "2.2-b", "2.2-j")
RULE = "vulns/known"
_LEVELS = ((9.0, Severity.CRITICAL), (7.0, Severity.HIGH), (4.0, Severity.MEDIUM), (0.1, Severity.LOW))
"""CVSS v3.1 and v4.0, qualitative severity rating scale."""
_WORDS = {
    "CRITICAL": Severity.CRITICAL,
    "HIGH": Severity.HIGH,
    "MODERATE": Severity.MEDIUM,
    "MEDIUM": Severity.MEDIUM,
    "LOW": Severity.LOW,
}
_PREFERRED = ("CVE-", "GHSA-", "PYSEC-")
_LONGEST_VECTOR = 300


class Vulnerability(msgspec.Struct, frozen=True, kw_only=True):
    """One known weakness of one package, counted once whatever it is called."""

    id: str
    """The name that people know: the CVE where there is one."""
    names: tuple[str, ...]
    """All ids of it."""
    item: Item
    summary: str
    severity: Severity
    score: float | None
    """CVSS base score, 0 to 10."""
    vectors: tuple[tuple[str, str], ...]
    """(method, vector) of each score."""
    fixed: tuple[str, ...]
    """Later versions that mend it, earliest first."""
    published: str
    cwe: tuple[str, ...]

    def days_known(self, now: datetime) -> int | None:
        """Days since it was published; None when that is not said."""
        try:
            return max(0, (now - datetime.fromisoformat(self.published)).days)
        except (ValueError, TypeError):
            return None

    def finding(self, now: datetime) -> Finding:
        """For reports."""
        days = self.days_known(now)
        since = f", known for {days} days" if days is not None else ""
        score = f", CVSS {self.score:g}" if self.score is not None else ""
        remedy = f"upgrade to {self.fixed[0]} or later." if self.fixed else "no fixed version is known: replace it."
        return Finding(
            rule=RULE,
            severity=self.severity,
            title=f"{self.item.key} has {self.id}",
            where=self.item.source,
            detail=f"{self.summary or 'No summary'} ({', '.join(self.names)}{score}{since})",
            remedy=remedy,
            cwe=self.cwe,
            techniques=("AML.T0010.001",),
            controls=CONTROLS,
        )


class Matched(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a comparison."""

    found: tuple[Vulnerability, ...]
    checked: int
    """Packages that were looked up."""
    unclear: tuple[str, ...]
    """What could not be told, with the reason."""


def match(inventory: Inventory, index: Index) -> Matched:
    """Look up every package."""
    found: list[Vulnerability] = []
    unclear = list(inventory.unclear)
    for item in inventory.items:
        groups: dict[str, list[tuple[Advisory, Affected]]] = {}
        for advisory in index.about(item.ecosystem, item.name):
            if advisory.withdrawn:
                continue
            try:
                hit = _hit(item, advisory)
            except UnorderedVersionError as error:
                unclear.append(f"{item.source}: {item.key} against {advisory.id}: {error}")
                continue
            if hit is not None:
                _group(groups, advisory).append((advisory, hit))
        found += [_merge(item, group) for group in _distinct(groups)]
    return Matched(
        found=tuple(sorted(found, key=lambda each: (each.severity.rank, each.item.name, each.id))),
        checked=len(inventory.items),
        unclear=tuple(dict.fromkeys(unclear)),
    )


def _hit(item: Item, advisory: Advisory) -> Affected | None:
    """The part of an advisory that this version falls under.

    Raises:
        UnorderedVersionError: no part does, and one could not be compared.
    """
    problem: UnorderedVersionError | None = None
    for affected in advisory.affected:
        if affected.package is None or not _is_about(item, affected):
            continue
        try:
            if is_affected(item.version, affected, item.ecosystem):
                return affected
        except UnorderedVersionError as error:
            problem = error
    if problem is not None:
        raise problem
    return None


def _is_about(item: Item, affected: Affected) -> bool:
    package = affected.package
    return package is not None and key_of(package.ecosystem, package.name) == key_of(item.ecosystem, item.name)


def _group(groups: dict[str, list[tuple[Advisory, Affected]]], advisory: Advisory) -> list[tuple[Advisory, Affected]]:
    """The group of the same weakness: databases name it differently and list one another's names as aliases."""
    names = {advisory.id, *advisory.aliases}
    group: list[tuple[Advisory, Affected]] = []
    for known in [groups[name] for name in names if name in groups]:
        group += [each for each in known if each not in group]
    for name in names | {each for one, _ in group for each in (one.id, *one.aliases)}:
        groups[name] = group
    return group


def _distinct(groups: Mapping[str, list[tuple[Advisory, Affected]]]) -> Iterable[list[tuple[Advisory, Affected]]]:
    return {id(group): group for group in groups.values()}.values()


def _merge(item: Item, group: list[tuple[Advisory, Affected]]) -> Vulnerability:
    advisories = [advisory for advisory, _ in group]
    names = sorted({name for each in advisories for name in (each.id, *each.aliases)}, key=_preference)
    vectors = {
        (each.type, each.score): None
        for advisory, affected in group
        for each in (*advisory.severity, *affected.severity)
    }
    scores = [score for kind, vector in vectors if (score := base_score(kind, vector)) is not None]
    score = max(scores, default=None)
    ends = [tuple(fixes(item.version, affected, item.ecosystem)) for _, affected in group]
    return Vulnerability(
        id=names[0],
        names=tuple(names),
        item=item,
        summary=next((each.summary.strip()[:300] for each in advisories if each.summary.strip()), ""),
        severity=_severity(score, advisories),
        score=score,
        vectors=tuple(vectors),
        fixed=max(ends, key=len, default=()),
        published=min((each.published for each in advisories if each.published), default=""),
        cwe=tuple(dict.fromkeys(cwe for each in advisories for cwe in each.cwe)),
    )


def _preference(name: str) -> tuple[int, str]:
    place = next((at for at, prefix in enumerate(_PREFERRED) if name.startswith(prefix)), len(_PREFERRED))
    return place, name


def base_score(kind: str, vector: str) -> float | None:
    """Base score of a CVSS vector, 0 to 10; None when it is none that can be read."""
    makers = {"CVSS_V2": cvss.CVSS2, "CVSS_V3": cvss.CVSS3, "CVSS_V4": cvss.CVSS4}
    if kind not in makers or len(vector) > _LONGEST_VECTOR:
        return None
    try:
        return float(makers[kind](vector).scores()[0])
    except (cvss.exceptions.CVSSError, ValueError, KeyError, IndexError, TypeError, ArithmeticError):
        return None


def _severity(score: float | None, advisories: list[Advisory]) -> Severity:
    """By score; else by the database's word; high when nothing is said, because nobody has said that it is harmless."""
    if score is not None:
        return next((severity for least, severity in _LEVELS if score >= least), Severity.NOTE)
    words = [str(each.database_specific.get("severity", "")).upper() for each in advisories]
    known = [_WORDS[word] for word in words if word in _WORDS]
    return min(known, key=lambda severity: severity.rank, default=Severity.HIGH)
