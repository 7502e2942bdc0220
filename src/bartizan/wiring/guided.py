"""What the ledger holds for people: lessons, briefings and notices, found under one lasting subject of the system."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from bartizan.catalogue.load import catalogue
from bartizan.core import predicates
from bartizan.core.check import Blob
from bartizan.core.digest import Digest, digest_bytes, short
from bartizan.core.errors import InputError, StoreError
from bartizan.core.evidence import Evidence
from bartizan.core.statement import Statement, make
from bartizan.core.system import Briefed, Lesson, System
from bartizan.core.view import View
from bartizan.lifecycle.design.guidance import briefing, notice
from bartizan.lifecycle.design.guidance.register import register
from bartizan.wiring.workspace import Workspace

LESSON = "lesson"
ATTESTER = {"id": "urn:bartizan:guidance"}
MAX_TITLE, MAX_TEXT = 200, 4000


def subject(system: System) -> tuple[str, Digest]:
    """What guidance is about: the system by its name alone, so that no edit of the declaration hides it."""
    name = f"guidance:{system.declaration.name}"
    return name, digest_bytes(f"bartizan:{name}".encode())


def current(system: System, evidence: Iterable[Evidence]) -> dict[str, Digest]:
    """Digests of those briefings and notices, as they would be now, that some statement names as an input."""
    evidence = list(evidence)
    named = {name for item in evidence if item.statement for name in item.statement.inputs()}
    roles = sorted(name.removeprefix(briefing.PREFIX) for name in named if name.startswith(briefing.PREFIX))
    found = briefing.digests(system, catalogue(), roles) if roles else {}
    for name in sorted(named):
        if name.startswith(notice.PREFIX):
            made = notice.of_evidence(system, name.removeprefix(notice.PREFIX), evidence)
            found |= {name: made.digest} if made else {}
    return found


def with_register(system: System, evidence: Sequence[Evidence]) -> System:
    """The same system, with the state of every role's briefing."""
    now = briefing.digests(system, catalogue(), briefing.roles_of(system.declaration))
    rows = register(system, evidence, now)
    briefed = tuple(Briefed(role=row.role, state=row.state, reason=row.reason, text=row.current) for row in rows)
    return msgspec.structs.replace(system, briefed=briefed)


def reference(
    kind: str, subjects: Mapping[str, Digest], files: Mapping[str, Blob], *, summary: str, **more: object
) -> Statement:
    """A statement about a document, whose files are kept as blobs."""
    listed = tuple(
        predicates.Resource(name=name, digest={"sha256": blob.digest}, media_type=blob.media_type)
        for name, blob in files.items()
    )
    predicate = predicates.Reference(attester=ATTESTER, references=listed, kind=kind, summary=summary)
    return make(predicates.REFERENCE, subjects, msgspec.structs.replace(predicate, **more))


def write_files(folder: Path, files: Mapping[str, Blob]) -> tuple[str, ...]:
    """Write documents into a folder; gives their paths.

    Raises:
        StoreError: that cannot be done.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, blob in files.items():
            (folder / name).write_bytes(blob.data)
    except OSError as error:
        raise StoreError(f"the files cannot be written: {error}", remedy="give another folder with -o.") from error
    return tuple(str(folder / name) for name in files)


# ---- lessons


def with_lessons(workspace: Workspace, view: View, system: System) -> System:
    """The same system, with the lessons about it that stand."""
    said = workspace.evidence(view, [subject(system)[1]], {})
    lessons = [lesson for item in said if (lesson := _lesson(workspace, item))]
    return msgspec.structs.replace(system, lessons=tuple({lesson.id: lesson for lesson in lessons}.values()))


def add_lesson(workspace: Workspace, title: str, text: str, techniques: Sequence[str]) -> tuple[Lesson, Digest]:
    """State a lesson; gives it with the digest of its envelope.

    Raises:
        InputError: it has no words, too many, or a technique that the catalogue does not know.
    """
    _check_words(title, "title", MAX_TITLE)
    _check_words(text, "text", MAX_TEXT)
    if not techniques:
        raise InputError("a lesson is linked to at least one technique", remedy="give --technique T08.")
    for technique in techniques:
        catalogue().technique(technique)
    plain = {"title": title.strip(), "text": text.strip(), "techniques": sorted(set(techniques))}
    blob = Blob(msgspec.json.encode(plain, order="deterministic"))
    system = workspace.system()
    lesson = msgspec.convert({"id": _lesson_id(blob.digest), **plain}, Lesson)
    said = reference(
        LESSON,
        {f"{LESSON}:{lesson.id}": blob.digest, **dict([subject(system)])},
        {"lesson.json": blob},
        summary=lesson.title,
        facts={"techniques": plain["techniques"]},
    )
    return lesson, workspace.publish(said, workspace.service, [blob])


def lessons(workspace: Workspace) -> tuple[Lesson, ...]:
    """Lessons that stand, oldest first."""
    with workspace.view() as view:
        return with_lessons(workspace, view, workspace.system()).lessons


def _check_words(text: str, what: str, most: int) -> None:
    if not text.strip():
        raise InputError(f"a lesson needs a {what}", remedy="say it in plain words.")
    if len(text) > most:
        raise InputError(f"the {what} has {len(text)} characters; {most} are taken", remedy="say it in fewer words.")


def _lesson(workspace: Workspace, item: Evidence) -> Lesson | None:
    """The lesson that a statement holds; one whose document is gone keeps its title."""
    said = item.statement
    if not item.holds or said is None or said.predicate_type != predicates.REFERENCE or item.kind != LESSON:
        return None
    read: predicates.Reference = said.read()
    digest = Digest(read.references[0].digest.get("sha256", "")) if read.references else Digest("")
    techniques = read.facts.get("techniques")
    fallback = Lesson(
        id=_lesson_id(digest),
        title=read.summary,
        text="(its text is missing from the store)",
        techniques=tuple(map(str, techniques)) if isinstance(techniques, list) else (),
    )
    try:
        plain = msgspec.json.decode(workspace.blobs.get(digest), type=dict[str, object])
        return msgspec.convert({**plain, "id": fallback.id}, Lesson)
    except (StoreError, msgspec.DecodeError, UnicodeDecodeError):
        return fallback


def _lesson_id(digest: Digest) -> str:
    return f"L-{short(digest)[:8]}"
