"""The user notice in the ledger: made from the card that stands, written, and stated."""

from __future__ import annotations

from pathlib import Path

import msgspec

from bartizan.core import predicates
from bartizan.core.check import Blob
from bartizan.core.digest import Digest
from bartizan.core.errors import InputError
from bartizan.core.system import Artefact, System
from bartizan.lifecycle.design.guidance import notice as writing
from bartizan.lifecycle.design.guidance.notice import UserNotice
from bartizan.wiring import guided
from bartizan.wiring.assure import Situation, situation
from bartizan.wiring.workspace import Workspace

KIND = "notice"


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """A notice that was written."""

    model: str
    digest: Digest
    """SHA-256 of the Markdown."""
    envelope: Digest
    new: bool
    files: tuple[str, ...]


def give(workspace: Workspace, name: str, folder: Path) -> Given:
    """Write the notice of a model as Markdown and HTML, and state its digest unless that was done.

    Raises:
        InputError: no such model, no ``[notice]``, or no complete card of the model stands.
        StoreError: the files cannot be written.
    """
    now = situation(workspace, workspace.system())
    model = choose(now.system, name)
    made = make_notice(now, model)
    files = {
        f"{model.name}.md": Blob(made.markdown.encode(), "text/markdown"),
        f"{model.name}.html": Blob(made.html.encode(), "text/html"),
    }
    written = guided.write_files(folder, files)
    found = stated(now, model, made)
    if found:
        return Given(model=model.name, digest=made.digest, envelope=found, new=False, files=written)
    name = f"{writing.PREFIX}{model.name}"
    said = guided.reference(
        KIND,
        {model.id: model.digest},
        files,
        summary=f"What users of {model.name} are told.",
        inputs=(predicates.Input.of(model.id, model.digest), predicates.Input.of(name, made.digest)),
    )
    envelope = workspace.publish(said, workspace.service, tuple(files.values()))
    return Given(model=model.name, digest=made.digest, envelope=envelope, new=True, files=written)


def make_notice(now: Situation, model: Artefact) -> UserNotice:
    """The notice as it has to be now.

    Raises:
        InputError: it cannot be made.
    """
    if now.system.declaration.notice is None:
        raise InputError(
            "the declaration does not say what users are told",
            remedy="add [notice] with data_use, data_storage and responsibilities.",
        )
    made = writing.of_evidence(now.system, model.name, now.evidence)
    if made is None:
        raise InputError(
            f"no complete card of {model.id} stands, and the notice is made from it",
            remedy="run `bartizan assure --only cards.model`.",
        )
    return made


def stated(now: Situation, model: Artefact, made: UserNotice) -> Digest | None:
    """Envelope of the statement that names this very notice, if it counts."""
    name = f"{writing.PREFIX}{model.name}"
    for item in reversed(now.evidence):
        if item.holds and item.kind == KIND and item.statement and item.statement.inputs().get(name) == made.digest:
            return item.digest
    return None


def choose(system: System, name: str) -> Artefact:
    """A declared model; the only one when none is named. Raises InputError when it has to be chosen."""
    models = {artefact.name: artefact for artefact in system.of_kind("model")}
    if not name and len(models) == 1:
        return next(iter(models.values()))
    if name not in models:
        raise InputError(f"no model is called {name!r}", remedy=f"give --model; declared are: {', '.join(models)}.")
    return models[name]
