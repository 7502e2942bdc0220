"""Lineage: what rests on a digest, and what it rests on."""

from __future__ import annotations

import msgspec

from bartizan.core import predicates
from bartizan.core.digest import Digest, parse_digest
from bartizan.core.errors import InputError, StatementError
from bartizan.core.statement import decode
from bartizan.core.view import View
from bartizan.wiring.workspace import Workspace


class Reached(msgspec.Struct, frozen=True):
    """Something that lineage leads to."""

    depth: int
    what: str
    """An artefact id, or the kind of statement and the check that made it."""
    digest: Digest
    by: str
    """Kind of the statement that says so."""


def affected(workspace: Workspace, what: str, *, forward: bool) -> list[Reached]:
    """Everything that rests on ``what`` (forward), or that it rests on; nearest first.

    Raises:
        InputError: ``what`` is neither a declared artefact nor a digest.
    """
    system = workspace.system() if workspace.declaration.exists() else None
    names = {artefact.digest: artefact.id for artefact in system.artefacts} if system else {}
    start = next((digest for digest, name in names.items() if name == what), None) or _digest(
        what, list(names.values())
    )
    with workspace.view() as view:
        edges = view.lineage(start, forward=forward)
        depths = {start: 0}
        order = []
        for edge in edges:
            near, far = (edge.parent, edge.child) if forward else (edge.child, edge.parent)
            if far not in depths:
                depths[far] = depths.get(near, 0) + 1
                order.append((far, edge.kind))
        reached = [Reached(depths[far], _name(view, far, names), far, kind) for far, kind in order]
    return sorted(reached, key=lambda item: (item.depth, item.what))


def _digest(text: str, known: list[str]) -> Digest:
    try:
        return parse_digest(text)
    except StatementError as error:
        raise InputError(
            f"{text!r} is neither a digest nor a declared artefact", remedy=f"declared: {', '.join(known)}."
        ) from error


def _name(view: View, digest: Digest, names: dict[Digest, str]) -> str:
    if digest in names:
        return names[digest]
    entry = view.find(digest)
    if entry is None or entry.predicate_type == predicates.TRUST:
        return "artefact"
    said = decode(view.payload(entry))
    check = said.predicate.get("check")
    made_by = (
        check.get("name", "")
        if isinstance(check, dict)
        else said.predicate.get("kind", "") or said.predicate.get("gate", "")
    )
    return f"{predicates.short_name(said.predicate_type)} {made_by}".strip()
