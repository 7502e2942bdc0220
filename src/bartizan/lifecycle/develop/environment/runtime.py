"""The interpreter and the packages: still supported, pinned, without known vulnerabilities."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date

from bartizan.core.errors import InputError
from bartizan.core.finding import Finding, Severity
from bartizan.lifecycle.develop.environment.tested import Tested, answer
from bartizan.lifecycle.develop.vulnerabilities.check import Looked, summary
from bartizan.lifecycle.develop.vulnerabilities.inventories import logical_lines, of_lock

END_OF_LIFE: dict[tuple[int, int], date] = {
    (3, 8): date(2024, 10, 7),
    (3, 9): date(2025, 10, 31),
    (3, 10): date(2026, 10, 31),
    (3, 11): date(2027, 10, 31),
    (3, 12): date(2028, 10, 31),
    (3, 13): date(2029, 10, 31),
    (3, 14): date(2030, 10, 31),
}
"""Last month of security fixes: PEP 569, 596, 619, 664, 693, 719 and 745."""
SOON_DAYS = 180
_REQUIREMENTS = re.compile(r"(?:^|/)[\w.-]*requirements[\w.-]*\.txt$|(?:^|/)requirements/[\w.-]+\.txt$")
LOCK_NAMES = ("poetry.lock", "uv.lock", "pdm.lock", "pylock.toml", "Pipfile.lock", "conda-lock.yml")


def interpreter(version: tuple[int, int], today: date) -> Tested:
    """Whether the interpreter still gets security fixes."""
    end = END_OF_LIFE.get(version)
    name = f"Python {version[0]}.{version[1]}"
    if end is None:
        known = version < min(END_OF_LIFE)
        findings = [_outdated(name, Severity.HIGH, f"{name} gets no security fixes any more")] if known else []
        return answer("runtime/python", findings, name, unknown="" if known else f"the end of {name} is not known here")
    days = (end - today).days
    findings = []
    if days < 0:
        findings = [_outdated(name, Severity.HIGH, f"{name} gets no security fixes since {end}")]
    elif days <= SOON_DAYS:
        findings = [_outdated(name, Severity.LOW, f"{name} gets security fixes only until {end}")]
    return answer("runtime/python", findings, f"{name}, supported until {end}")


def _outdated(name: str, severity: Severity, title: str) -> Finding:
    return Finding(
        rule="environment/python-outdated",
        severity=severity,
        title=title,
        where=name,
        remedy="move to a newer release, and train and test again with it.",
        cwe=("CWE-1104",),
        controls=("2.2-b", "2.2-f"),
    )


def vulnerable(looked: Looked) -> Tested:
    """Whether installed or locked packages have known vulnerabilities."""
    gaps = f"{len(looked.matched.unclear)} packages could not be looked up" if looked.matched.unclear else ""
    if looked.unreadable:
        gaps = gaps or f"{looked.unreadable} entries of the database are no advisory"
    if not looked.matched.checked:
        gaps = "no package was looked up"
    findings = [each.finding(looked.at) for each in looked.counting]
    return answer("packages/vulnerabilities", findings, summary(looked), unknown=gaps)


def is_lock(name: str) -> bool:
    """Whether a file pins packages, by its name."""
    return name.rsplit("/", 1)[-1] in LOCK_NAMES or _REQUIREMENTS.search(name) is not None


def pins(locks: Mapping[str, bytes]) -> Tested:
    """Whether every package that is installed from these files is pinned to one version with its hash."""
    findings = list(_missing_lock() if not locks else ())
    unknown = ""
    hashed = 0
    for name in sorted(locks):
        try:
            total, without = hashes(locks[name], name)
        except InputError as error:
            unknown = unknown or f"{name}: {error.message}"
            continue
        hashed += total - len(without)
        if without:
            findings.append(_unpinned(name, total, without))
    note = f"{len(locks)} lock files, {hashed} packages with a hash"
    if locks and not hashed and not unknown:
        unknown = "" if findings else "the lock files hold no package"
    return answer("repository/pins", findings, note, unknown=unknown)


def _missing_lock() -> Iterator[Finding]:
    yield Finding(
        rule="environment/no-lock-file",
        severity=Severity.HIGH,
        title="No lock file pins the packages",
        where="repository",
        detail="Each installation may take other versions, also ones that somebody published this morning.",
        remedy="lock the packages with hashes, for example with `uv pip compile --generate-hashes`.",
        cwe=("CWE-1357", "CWE-494"),
        techniques=("AML.T0010.001",),
        controls=("2.2-i",),
    )


def _unpinned(name: str, total: int, without: list[str]) -> Finding:
    shown = ", ".join(without[:5]) + (f" and {len(without) - 5} more" if len(without) > 5 else "")  # noqa: PLR2004
    return Finding(
        rule="environment/not-pinned",
        severity=Severity.HIGH if len(without) == total else Severity.MEDIUM,
        title="Packages are installed without a pinned version and hash",
        where=name,
        detail=f"{len(without)} of {total}: {shown}",
        remedy="lock again with hashes, and install with `--require-hashes`.",
        cwe=("CWE-494",),
        techniques=("AML.T0010.001",),
        controls=("2.2-i",),
    )


def hashes(data: bytes, name: str) -> tuple[int, list[str]]:
    """Number of packages in a lock file, and those without a pinned version and a hash.

    Raises:
        InputError: it cannot be read as the lock file that its name promises.
    """
    if name.rsplit("/", 1)[-1] in LOCK_NAMES:
        return _of_document(data, name)
    total = 0
    without: list[str] = []
    for line in logical_lines(data.decode("utf-8", "replace")):
        if line.startswith("-"):
            if line.startswith(("-e", "--editable")):
                total, without = total + 1, [*without, line[:60]]
            continue
        total += 1
        if "==" not in line or "--hash=" not in line:
            without.append(re.split(r"[\s=<>!~;@\[]", line, maxsplit=1)[0][:60])
    return total, without


def _of_document(data: bytes, name: str) -> tuple[int, list[str]]:
    """Lock files of tools: they hold a hash for every file unless somebody took it out."""
    inventory = of_lock(data, name)
    total = len(inventory.items) + len(inventory.unclear)
    found = len(re.findall(rb"sha(?:256|384|512)[:=\"' -]", data))
    if found >= len(inventory.items):
        return total, [entry.split(": ", 1)[-1][:60] for entry in inventory.unclear]
    return total, [*(item.name for item in inventory.items), *inventory.unclear]
