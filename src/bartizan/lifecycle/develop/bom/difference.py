"""Compares bills of materials, and says what is not documented in one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from bartizan.core.finding import Finding, Severity
from bartizan.lifecycle.develop.bom.reading import Bill, Component

CONTROLS = ("GL-2.3", "2.1-d")
_COMPARED = ("version", "hashes", "licences", "supplier")
_MODEL_LIKE = frozenset({"machine-learning-model", "data", "file", "machine-learning-dataset"})
_CODE = frozenset({"library", "framework"})


class Change(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One component that is not the same."""

    component: str
    change: Literal["added", "removed", "changed"]
    field: str = ""
    before: str = ""
    after: str = ""


def compare(old: Bill, new: Bill) -> list[Change]:
    """What was added, removed or changed, by component."""
    before, after = _by_key(old), _by_key(new)
    changes: list[Change] = []
    for key in sorted(before.keys() | after.keys()):
        if key not in before:
            changes.append(Change(component=key, change="added", after=after[key].version))
        elif key not in after:
            changes.append(Change(component=key, change="removed", before=before[key].version))
        else:
            changes += _fields(key, before[key], after[key])
    return changes


def _by_key(bill: Bill) -> dict[str, Component]:
    """Components by key; several versions of one stand under their versions."""
    found: dict[str, Component] = {}
    for component in bill.components:
        key = component.key if component.key not in found else f"{component.key}@{component.version}"
        found[key] = component
    return found


def _fields(key: str, old: Component, new: Component) -> list[Change]:
    return [
        Change(component=key, change="changed", field=field, before=_shown(old, field), after=_shown(new, field))
        for field in _COMPARED
        if getattr(old, field) != getattr(new, field)
    ]


def _shown(component: Component, field: str) -> str:
    value = getattr(component, field)
    return value if isinstance(value, str) else ", ".join(value)


def find(bill: Bill, wanted: str) -> list[Component]:
    """Components that a name, ``name@version`` or package URL stands for."""
    if wanted.startswith("pkg:"):
        return [each for each in bill.components if each.purl and wanted in {each.purl, each.key}]
    name, _, version = wanted.partition("@")
    folded = _folded(name)
    return [each for each in bill.components if _folded(each.name) == folded and version in {"", each.version}]


def _folded(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def undocumented(bill: Bill) -> tuple[Finding, ...]:
    """Components of which a bill does not say what supervision needs: version, licence, supplier, digest."""
    return tuple(finding for component in bill.components for finding in _gaps(component))


def _gaps(component: Component) -> Iterable[Finding]:
    missing = [name for name, is_there in _wanted(component) if not is_there]
    if not missing:
        return
    shown = component.purl or component.ref or f"{component.type}:{component.name}"
    yield Finding(
        rule="bom/undocumented",
        severity=Severity.MEDIUM if component.type in _MODEL_LIKE else Severity.LOW,
        title=f"{component.type} {component.name} is listed without {', '.join(missing)}",
        where=shown,
        detail="What is not documented cannot be assessed, patched or withdrawn when something is wrong with it.",
        remedy="declare it, ask the supplier, or replace the component.",
        cwe=("CWE-1357",),
        controls=CONTROLS,
    )


def _wanted(component: Component) -> list[tuple[str, bool]]:
    """What should be said about a component of its kind."""
    if component.type in _MODEL_LIKE:
        needed = [("digest", bool(component.hashes)), ("supplier", bool(component.supplier))]
        return needed + ([("licence", bool(component.licences))] if component.type == "data" else [])
    if component.type in _CODE:
        return [("version", bool(component.version)), ("licence", bool(component.licences))]
    return []
