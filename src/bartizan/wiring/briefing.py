"""Briefings in the ledger: written and stated, confirmed by those who read them, listed, and asked for."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from bartizan.catalogue.load import catalogue
from bartizan.core import predicates
from bartizan.core.check import Blob
from bartizan.core.digest import Digest
from bartizan.core.errors import InputError, TrustError
from bartizan.core.system import System
from bartizan.lifecycle.design.guidance import briefing as writing
from bartizan.lifecycle.design.guidance.document import Document, to_html, to_markdown
from bartizan.lifecycle.design.guidance.register import KIND, NEEDS_BRIEFING, Row, holds_for, register
from bartizan.wiring import guided
from bartizan.wiring.workspace import Workspace

MARKDOWN, HTML = "text/markdown", "text/html"
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


class Issued(msgspec.Struct, frozen=True, kw_only=True):
    """A briefing that was written."""

    role: str
    digest: Digest
    """SHA-256 of the Markdown."""
    envelope: Digest
    """Statement that names it."""
    new: bool
    """Whether it had to be stated."""
    files: tuple[str, ...]


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What a confirmed briefing is about."""

    subjects: dict[str, Digest]
    rests_on: dict[str, Digest]
    concerns: tuple[str, ...]


def draft(workspace: Workspace, role: str) -> Document:
    """The briefing of a role as it would be now; nothing is stated."""
    with workspace.view() as view:
        system = guided.with_lessons(workspace, view, workspace.system())
    return writing.briefing(system, catalogue(), role)


def issue(workspace: Workspace, role: str, folder: Path) -> Issued:
    """Write a briefing as Markdown and HTML, and state its digest unless that was done.

    Raises:
        InputError: the declaration names no such role.
        StoreError: the files cannot be written.
    """
    document = draft(workspace, role)
    name = _UNSAFE.sub("-", role).strip("-.") or "role"
    files = {
        f"{name}.md": Blob(to_markdown(document).encode(), MARKDOWN),
        f"{name}.html": Blob(to_html(document).encode(), HTML),
    }
    digest = files[f"{name}.md"].digest
    written = guided.write_files(folder, files)
    input_name = f"{writing.PREFIX}{role}"
    found = _stated(workspace, input_name, digest)
    if found is None:
        said = guided.reference(
            KIND,
            {input_name: digest, **dict([guided.subject(workspace.system())])},
            files,
            summary=f"Briefing for {role}.",
            inputs=(predicates.Input.of(input_name, digest),),
            facts={"role": role, "audience": writing.audience_of(catalogue(), role).id},
        )
        envelope = workspace.publish(said, workspace.service, tuple(files.values()))
        return Issued(role=role, digest=digest, envelope=envelope, new=True, files=written)
    return Issued(role=role, digest=digest, envelope=found, new=False, files=written)


def listed(workspace: Workspace) -> tuple[Row, ...]:
    """The register: one row for each role of the declaration."""
    with workspace.view() as view:
        system = guided.with_lessons(workspace, view, workspace.system())
        current = writing.digests(system, catalogue(), writing.roles_of(system.declaration))
        evidence = workspace.evidence(view, [guided.subject(system)[1]], current)
    return register(system, evidence, current)


def reading(workspace: Workspace, about: str, own_role: str) -> Reading:
    """What somebody confirms who was briefed: the text that is current for a role, which must have been written.

    Raises:
        InputError: no such role, or its present briefing was never written, so nobody can have read it.
    """
    system = workspace.system()
    role = _briefed(system, about, own_role)
    row = next((row for row in listed(workspace) if row.role == role), None)
    if row is None:
        writing.briefing(system, catalogue(), role)
        raise AssertionError(role)  # the line above refuses roles that are not declared
    if not row.stated:
        raise InputError(
            f"the present briefing for {role} was not written, so nobody can have read it",
            remedy=f'run `bartizan briefing "{role}"` and read it first.',
        )
    name = f"{writing.PREFIX}{role}"
    return Reading(
        subjects={name: row.current, **dict([guided.subject(system)])},
        rests_on={name: row.current},
        concerns=(*writing.audience_of(catalogue(), role).controls, role),
    )


def _briefed(system: System, about: str, own_role: str) -> str:
    """The role that ``about`` names; a briefing about the system is for one's own."""
    if about.startswith(writing.PREFIX):
        return about.removeprefix(writing.PREFIX)
    if about == f"system:{system.declaration.name}":
        return own_role
    raise InputError(
        f"a briefing is about a role, not about {about}", remedy=f"give --about {writing.PREFIX}{own_role}."
    )


def require_briefing(workspace: Workspace, keyid: str, who: str, role: str, kind: str) -> None:
    """Refuse a decision by somebody who holds no valid briefing for the role, where the declaration asks for one.

    Raises:
        TrustError: there is none; nothing is recorded.
    """
    if kind not in NEEDS_BRIEFING or not workspace.declaration.exists():
        return
    if not workspace.system().declaration.guidance.briefings_required:
        return
    with workspace.view() as view:
        system = guided.with_lessons(workspace, view, workspace.system())
        current = writing.digests(system, catalogue(), [role])
        evidence = workspace.evidence(view, [guided.subject(system)[1]], current)
    if not holds_for(evidence, keyid, role):
        raise TrustError(
            f"{who} holds no valid briefing as {role}, and this system asks for one",
            remedy=f'read `bartizan briefing "{role}"`, then `bartizan decide briefing --about '
            f'{writing.PREFIX}{role} --role {role} --reason "..."`.',
        )


def _stated(workspace: Workspace, name: str, digest: Digest) -> Digest | None:
    """Envelope of the statement that names this very text, if it counts."""
    with workspace.view() as view:
        evidence = workspace.evidence(view, [digest], {name: digest})
    for item in reversed(evidence):
        if item.holds and item.statement and item.statement.predicate_type == predicates.REFERENCE:
            return item.digest
    return None
