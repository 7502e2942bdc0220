"""Whether a version lies in what an advisory calls affected (OSV schema, section "Evaluation")."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from packaging.version import InvalidVersion, Version

from bartizan.lifecycle.develop.vulnerabilities.advisories import Affected, Event, Range

_SEMVER = re.compile(r"v?(\d+)\.(\d+)\.(\d+)(?:-([0-9A-Za-z.-]+))?(?:\+.*)?\Z")
_PLAIN = re.compile(r"[0-9]+(?:\.[0-9]+)*\Z")
_ORDERED = frozenset({"ECOSYSTEM", "SEMVER"})
LONGEST_VERSION = 200


class UnorderedVersionError(ValueError):
    """The version is none that can be put in order."""


def is_affected(version: str, affected: Affected, ecosystem: str) -> bool:
    """Whether a version is named, or lies in one of the ranges.

    Raises:
        UnorderedVersionError: it cannot be compared with the ranges, or the advisory names no versions at all.
    """
    if version in affected.versions or (ecosystem == "PyPI" and _is_listed(version, affected.versions)):
        return True
    ranges = [each for each in affected.ranges if each.type in _ORDERED]
    if not ranges and not affected.versions:
        raise UnorderedVersionError("the advisory names no versions")
    return any(_in_range(version, each, ecosystem) for each in ranges)


def _is_listed(version: str, listed: Iterable[str]) -> bool:
    """Whether a version is listed in any spelling: ``1.0`` is ``1.0.0``, and a local build of it."""
    try:
        here = _pep440(version)
    except UnorderedVersionError:
        return False
    return any(here == _parsed(each) for each in listed)


def _parsed(text: str) -> Version | None:
    try:
        return _pep440(text)
    except UnorderedVersionError:
        return None


def fixes(version: str, affected: Affected, ecosystem: str) -> list[str]:
    """Versions that mend it and come after this one, earliest first."""
    found = {event.fixed for each in affected.ranges if each.type in _ORDERED for event in each.events if event.fixed}
    key = _order_of(ecosystem, "")
    try:
        here = key(version)
        return sorted((each for each in found if key(each) > here), key=key)
    except UnorderedVersionError:
        return sorted(found)


def _in_range(version: str, each: Range, ecosystem: str) -> bool:
    key = _order_of(ecosystem, each.type)
    here = key(version)
    inside = False
    for event in sorted(each.events, key=lambda event: _place(event, key)):
        if event.introduced and (event.introduced == "0" or here >= key(event.introduced)):
            inside = True
        elif _is_behind(here, event, key):
            inside = False
    return inside


def _is_behind(here: Any, event: Event, key: Callable[[str], Any]) -> bool:
    """Whether a version comes after the end that an event sets."""
    if event.fixed and here >= key(event.fixed):
        return True
    if event.last_affected and here > key(event.last_affected):
        return True
    return bool(event.limit) and event.limit != "*" and bool(here >= key(event.limit))


def _place(event: Event, key: Callable[[str], Any]) -> tuple[int, Any, int]:
    """Events in the order of their versions; where two share one, being fixed comes before being introduced."""
    text = event.introduced or event.fixed or event.last_affected or event.limit
    if text in {"0", "*", ""}:
        return (0 if text == "0" else 2, 0, 0)
    return (1, key(text), 1 if event.introduced else 0)


def _order_of(ecosystem: str, kind: str) -> Callable[[str], Any]:
    """How versions are put in order: PEP 440 for PyPI, SemVer where the advisory or the ecosystem says so.

    Elsewhere letters have an order of their own (Debian's ``1.0a`` comes after ``1.0``), so only numbers are compared.
    """
    if kind == "SEMVER" or ecosystem.lower() in {"npm", "crates.io", "go", "hex", "pub", "swifturl"}:
        return _semver
    return _pep440 if ecosystem == "PyPI" else _numbers


def _numbers(text: str) -> Version:
    if not _PLAIN.match(text):
        raise UnorderedVersionError(f"version {text[:40]!r} is more than numbers, and is not put in order here")
    return _pep440(text)


def _pep440(text: str) -> Version:
    """A version without the mark of a local build: ``2.0+cu118`` is a build of 2.0, and as vulnerable."""
    if len(text) > LONGEST_VERSION:
        raise UnorderedVersionError(f"version {text[:40]!r} is too long")
    try:
        return Version(Version(text).public)
    except InvalidVersion as error:
        raise UnorderedVersionError(f"version {text!r} is none of PEP 440") from error


def _semver(text: str) -> tuple[Any, ...]:
    match = _SEMVER.match(text[:LONGEST_VERSION])
    if match is None:
        raise UnorderedVersionError(f"version {text[:40]!r} is no semantic version")
    numbers = tuple(int(match[at]) for at in (1, 2, 3))
    if match[4] is None:
        return (*numbers, 1, ())
    parts = tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in match[4].split("."))
    return (*numbers, 0, parts)
