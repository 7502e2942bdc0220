"""What commands measure for a declared model: material, kept measurements, and the statement about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from bartizan.core import predicates
from bartizan.core.check import Blob, Outcome
from bartizan.core.digest import Digest, canonical_json, digest_bytes
from bartizan.core.errors import InputError, StoreError
from bartizan.core.evidence import Evidence
from bartizan.core.finding import Finding
from bartizan.core.statement import Statement
from bartizan.core.system import Artefact, RedTeam, System
from bartizan.lifecycle.plan import Job
from bartizan.redteam.check import material_of
from bartizan.redteam.family import Material
from bartizan.targets.feasible import Codes, OneHot, Space
from bartizan.wiring import results
from bartizan.wiring.assure import situation
from bartizan.wiring.workspace import Workspace

QUICK = {"samples": 40, "query_budget": 300, "shadow_models": 16, "extraction_budget": 100}
"""Most that a quick run spends."""


class Ordered:
    """A measurement that somebody orders, in the shape of a check: ``results`` makes statements of these."""

    after: tuple[str, ...] = ()

    def __init__(self, name: str, version: str, title: str, controls: tuple[str, ...]) -> None:
        self.name, self.version, self.title, self.controls = name, version, title, controls

    def subjects(self, system: System) -> tuple[Artefact, ...]:
        """See ``Check.subjects``."""
        return system.of_kind("model")

    def inputs(self, system: System, subject: Artefact) -> dict[str, Digest]:
        """See ``Check.inputs``: the model and its data."""
        part = system.model_part(subject.name)
        names = (subject.id, f"dataset:{part.trained_on}", f"dataset:{part.evaluated_on}")
        return {name: system.artefact(name).digest for name in names}

    def run(self, system: System, subject: Artefact, context: Any) -> Outcome:
        """See ``Check.run``: these are run by their command."""
        raise NotImplementedError


class KeptFiles:
    """Measurements as files in a folder, named by their key. See ``Keep``."""

    def __init__(self, folder: Path, *, fresh: bool = False) -> None:
        self._folder, self._fresh = folder, fresh

    def get(self, key: Digest) -> bytes | None:
        """See ``Keep.get``. A file that is not whole is as if it were not there."""
        if self._fresh:
            return None
        try:
            data = (self._folder / f"{key}.json").read_bytes()
        except OSError:
            return None
        checksum, _, body = data.partition(b"\n")
        return body if checksum.decode("ascii", "replace") == digest_bytes(body) else None

    def put(self, key: Digest, data: bytes) -> None:
        """See ``Keep.put``."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            new = self._folder / f".{key}.new"
            new.write_bytes(f"{digest_bytes(data)}\n".encode() + data)
            new.replace(self._folder / f"{key}.json")
        except OSError as error:
            raise StoreError(
                f"{self._folder} cannot be written: {error.strerror}", remedy="give room there."
            ) from error


def kept(workspace: Workspace, what: str, *, fresh: bool) -> KeptFiles:
    """Where measurements of one kind are kept."""
    return KeptFiles(workspace.settings.path("journals") / what, fresh=fresh)


def model_named(system: System, name: str) -> Artefact:
    """The declared model called ``name``, or the only one.

    Raises:
        InputError: there is none, or several and none is named.
    """
    models = {artefact.name: artefact for artefact in system.of_kind("model")}
    if name in models:
        return models[name]
    if not name and len(models) == 1:
        return next(iter(models.values()))
    fault = f"no model is called {name!r}" if name else "several models are declared"
    raise InputError(fault, remedy=f"choose with --model: {', '.join(models)}.")


def material(system: System, subject: Artefact, *, quick: bool) -> Material:
    """What the declaration provides for a model, with small budgets for a quick run."""
    found = material_of(system, subject)
    if not quick:
        return found
    settings = found.settings
    less = {name: min(getattr(settings, name), most) for name, most in QUICK.items()}
    smaller: RedTeam = msgspec.structs.replace(settings, **less)
    return replace(found, settings=smaller)


def record(
    workspace: Workspace,
    ordered: Ordered,
    system: System,
    subject: Artefact,
    *,
    said: predicates.Assessment,
    report: Any,
    findings: tuple[Finding, ...] = (),
) -> Digest:
    """Sign and record what was measured, with its full report."""
    outcome = Outcome(
        predicate_type=predicates.ASSESSMENT,
        predicate=said,
        findings=findings,
        report=Blob(canonical_json(msgspec.to_builtins(report, str_keys=True))),
    )
    job = Job(check=ordered, subject=subject, inputs=ordered.inputs(system, subject))
    blob = results.store_form(job, outcome)
    statement: Statement = results.statement_of(job, outcome, blob, workspace.clock())
    return workspace.publish(statement, workspace.service, [blob])


def newest(workspace: Workspace, system: System, subject: Artefact, name: str) -> tuple[Evidence, bytes]:
    """The newest result of an ordered measurement that stands, and its report.

    Raises:
        InputError: there is none, or what it rests on has changed since.
    """
    now = situation(workspace, system)
    for item in reversed(now.evidence):
        about = item.statement.about() if item.statement else ()
        if item.check == name and item.holds and subject.digest in about and item.report:
            return item, results.read_report(workspace.blobs.get(item.report)).inner()
    raise InputError(
        f"nothing that stands was measured of {subject.id} by {name}", remedy="run `bartizan compare` first."
    )


def inputs(system: System, subject: Artefact) -> dict[str, Digest]:
    """What every ordered measurement of a model rests on: the model and its data."""
    return Ordered("", "", "", ()).inputs(system, subject)


def fewer_columns(space: Space, kept: Sequence[int]) -> Space:
    """A space with only some of its columns, in their order."""
    place = {column: index for index, column in enumerate(kept)}
    codes = tuple(Codes(place[each.column], each.values) for each in space.codes if each.column in place)
    one_hot = tuple(
        OneHot(np.array([place[int(column)] for column in each.columns]), may_be_empty=each.may_be_empty)
        for each in space.one_hot
        if all(int(column) in place for column in each.columns)
    )
    fields = ("scale", "low", "high", "integer", "immutable")
    return replace(
        space,
        columns=tuple(space.columns[column] for column in kept),
        codes=codes,
        one_hot=one_hot,
        dependent=(),  # what they follow from may be gone; they stay as they are
        **{name: getattr(space, name)[list(kept)] for name in fields},
    )
