"""Trace: from a bad update back to batch, source and contributor.

Every step is read from statements that the ledger proves complete for a digest: who made it, of what,
with which parameters, who signed its bytes, and what its card says of host and contributors. Statements
that do not count any more are shown with the reason, because that is often why somebody asks; what nobody
trusted ever signed is left out.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from bartizan.core import predicates
from bartizan.core.digest import Digest, parse_digest, short
from bartizan.core.errors import InputError, StatementError
from bartizan.core.evidence import Evidence, Standing
from bartizan.core.statement import Statement
from bartizan.core.view import View
from bartizan.wiring import updating
from bartizan.wiring.declared import declared_paths
from bartizan.wiring.workspace import Workspace

MAX_STEPS = 10_000
"""So many digests are followed; a longer trace says that it was cut."""
_UNHEARD = frozenset({Standing.UNTRUSTED, Standing.INVALID, Standing.REPEATED})


class Step(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing on the way back."""

    depth: int
    name: str
    digest: Digest
    via: str = ""
    """What led here: ``made of``, ``holds``, ``activated``."""
    made_by: tuple[str, ...] = ()
    """Who signed the provenance."""
    made_at: datetime | None = None
    command: tuple[str, ...] = ()
    parameters: dict[str, Any] = {}
    environment: str = ""
    commit: str = ""
    signed_by: tuple[str, ...] = ()
    """Who signed the bytes."""
    host: str = ""
    contributors: str = ""
    independent_sources: int | None = None
    url: str = ""
    licence: str = ""
    notes: tuple[str, ...] = ()
    """Statements about it that do not count any more, and why."""


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """The whole way back, nearest first."""

    start: Digest
    steps: tuple[Step, ...]
    complete: bool = True


def trace(workspace: Workspace, what: str) -> Trace:
    """Follow ``what`` back to everything it was made of.

    Raises:
        InputError: it is no declared artefact, no readable path and no digest, or nothing is known of it.
    """
    name, start = _start(workspace, what)
    with workspace.view() as view:
        found = _walk(workspace, view, name, start)
    first = found.steps[0]
    if not (first.made_by or first.signed_by or first.host or first.notes or found.steps[1:]):
        raise InputError(
            f"the ledger knows nothing of {name}", remedy="record how it is made: `bartizan record` (see --help)."
        )
    return found


def _start(workspace: Workspace, what: str) -> tuple[str, Digest]:
    names = declared_paths(workspace.declaration)
    if what in names:
        return what, workspace.files.digest(names[what])
    with contextlib.suppress(StatementError):
        return short(what.removeprefix("sha256:")), parse_digest(what)
    found = next(
        (Path(os.path.realpath(start / what)) for start in (Path.cwd(), workspace.folder) if (start / what).exists()),
        None,
    )
    if found is None:
        raise InputError(
            f"{what!r} is neither a declared artefact, nor a path, nor a digest",
            remedy=f"declared: {', '.join(names) or 'none'}.",
        )
    packed = (found / updating.LABEL).is_file() and (found / updating.SIGNATURE).is_file()
    return what, updating.package_digest(workspace, found) if packed else workspace.files.digest(found)


def _walk(workspace: Workspace, view: View, name: str, start: Digest) -> Trace:
    """Breadth first, one look into the ledger for each level."""
    steps: list[Step] = []
    known = {start}
    level: list[tuple[str, Digest, str]] = [(name, start, "")]
    depth = 0
    while level and len(steps) < MAX_STEPS:
        heard = _heard(workspace, view, [digest for _, digest, _ in level])
        following: list[tuple[str, Digest, str]] = []
        for called, digest, via in level[: MAX_STEPS - len(steps)]:
            said = heard.get(digest, [])
            steps.append(_step(depth, called, digest, via, said))
            following += [hop for item in said for hop in _behind(item, digest)]
        level = _new(following, known)
        depth += 1
    return Trace(start=start, steps=tuple(steps), complete=not level)


def _new(hops: Iterable[tuple[str, Digest, str]], known: set[Digest]) -> list[tuple[str, Digest, str]]:
    fresh = []
    for hop in hops:
        if hop[1] not in known:
            known.add(hop[1])
            fresh.append(hop)
    return fresh


def _heard(workspace: Workspace, view: View, digests: list[Digest]) -> dict[Digest, list[Evidence]]:
    """What trusted signers said about each digest, oldest first."""
    found: dict[Digest, list[Evidence]] = {}
    for item in workspace.evidence(view, digests, {}):
        if item.standing not in _UNHEARD and item.statement is not None:
            for digest in item.statement.about():
                found.setdefault(digest, []).append(item)
    return found


def _behind(item: Evidence, digest: Digest) -> list[tuple[str, Digest, str]]:
    """What a statement leads on to: what it was made of, what a folder holds, what an update activated."""
    said = item.statement
    assert said is not None  # noqa: S101 - _heard has seen it
    match said.predicate_type:
        case predicates.PROVENANCE:
            listed = _part(said.predicate, "buildDefinition", "resolvedDependencies")
            return list(_described(listed, "made of", leave_out=("packages",)))
        case predicates.MODEL_SIGNATURE if len(said.predicate["resources"]) > 1:
            parts = said.predicate["resources"]
            return [(str(part["name"]), Digest(part["digest"]), "holds") for part in parts]
        case predicates.DEPLOYMENT if _part(said.predicate, "details", "package") == digest:
            # Only from a package to what it holds: its place leads to every other version as well.
            subjects = [subject for subject in said.subject if subject.name.partition(":")[0] != "update"]
            return [(subject.name, Digest(subject.digest["sha256"]), "activated") for subject in subjects]
        case _:
            return []


def _described(listed: Any, via: str, *, leave_out: tuple[str, ...]) -> Iterable[tuple[str, Digest, str]]:
    for entry in listed if isinstance(listed, list | tuple) else ():
        text = _part(entry, "digest", "sha256")
        name = _text(_part(entry, "name")) or _text(_part(entry, "uri")) or "unnamed"
        if isinstance(text, str) and name not in leave_out:
            try:
                yield name, parse_digest(text), via
            except StatementError:
                continue


def _step(depth: int, name: str, digest: Digest, via: str, said: list[Evidence]) -> Step:
    runs = _of(said, predicates.PROVENANCE)
    cards = [item for item in _of(said, predicates.CARD) if item.kind == "dataset"]
    run = runs[-1] if runs else None
    return Step(
        depth=depth,
        name=_declared_name(said) or name,
        digest=digest,
        via=via,
        signed_by=_signers(_of(said, predicates.MODEL_SIGNATURE)),
        made_by=_signers(runs),
        notes=tuple(f"{_kind(item)}: {item.standing.value}, {item.reason}" for item in said if _is_over(item)),
        **(_run_facts(run) if run else {}),
        **(_card_facts(cards[-1]) if cards else {}),
    )


def _of(said: Iterable[Evidence], predicate_type: str) -> list[Evidence]:
    return [item for item in said if item.statement and item.statement.predicate_type == predicate_type]


def _signers(items: Iterable[Evidence]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(signer for item in items for signer in item.signers))


def _kind(item: Evidence) -> str:
    return predicates.short_name(item.statement.predicate_type) if item.statement else ""


def _is_over(item: Evidence) -> bool:
    """Withdrawn, or run out; what is merely older than the present system belongs to the past that is asked for."""
    return item.standing in {Standing.REVOKED, Standing.EXPIRED}


def _declared_name(said: Iterable[Evidence]) -> str:
    """The id that a card or provenance gives it, rather than a file name."""
    names = [
        subject.name
        for item in said
        if item.statement and item.statement.predicate_type in {predicates.CARD, predicates.PROVENANCE}
        for subject in _only_subject(item.statement)
    ]
    return next((name for name in reversed(names) if ":" in name), "")


def _only_subject(said: Statement) -> tuple[Any, ...]:
    return said.subject if len(said.subject) == 1 else ()


def _run_facts(run: Evidence) -> dict[str, Any]:
    assert run.statement is not None  # noqa: S101 - _of has seen it
    said = run.statement.predicate
    command = _part(said, "buildDefinition", "externalParameters", "command")
    parameters = _part(said, "buildDefinition", "externalParameters", "parameters")
    dependencies = _part(said, "buildDefinition", "resolvedDependencies")
    return {
        "made_at": run.received_at,
        "command": tuple(map(str, command)) if isinstance(command, list | tuple) else (),
        "parameters": parameters if isinstance(parameters, dict) else {},
        "environment": _text(_part(said, "buildDefinition", "internalParameters", "environment", "name")),
        "commit": _commit(dependencies),
    }


def _part(value: Any, *path: str) -> Any:
    """A part of plain JSON, whatever it is; None when there is none."""
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _commit(dependencies: Any) -> str:
    listed = dependencies if isinstance(dependencies, list | tuple) else ()
    return next((text for entry in listed if (text := _text(_part(entry, "digest", "gitCommit")))), "")


def _card_facts(card: Evidence) -> dict[str, Any]:
    assert card.statement is not None  # noqa: S101 - _of has seen it
    facts = _part(card.statement.predicate, "facts")
    sources = _part(facts, "sources")
    count = _part(sources, "independentSources")
    return {
        "host": _text(_part(sources, "host")),
        "contributors": _text(_part(sources, "contributors")),
        "independent_sources": count if isinstance(count, int) else None,
        "url": _text(_part(sources, "url")),
        "licence": _text(_part(facts, "licence")),
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
