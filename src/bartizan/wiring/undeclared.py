"""Attacks on a model file that nobody has declared: scanned first, tried, recorded nowhere.

For whoever has a model in hand and two tables, and wants to know. What only a declaration says (purposes, people,
thresholds) is not asked for, and so nothing of it is evidence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from bartizan.core.digest import Digest, digest_bytes
from bartizan.core.errors import InputError, WorkError
from bartizan.core.system import (
    Artefact,
    ArtefactKind,
    DatasetPart,
    Declaration,
    Expectation,
    Exposure,
    ModelPart,
    Owner,
    Provenance,
    RedTeam,
    Societal,
    System,
)
from bartizan.lifecycle.design.survey import FoundTable, survey
from bartizan.lifecycle.develop.scan.scanner import scan_path
from bartizan.lifecycle.develop.scan.verdict import Verdict
from bartizan.lifecycle.plan import Job
from bartizan.lifecycle.runner import Listener
from bartizan.redteam.journal import Journals, NoJournals
from bartizan.targets.table import read_table
from bartizan.wiring.attacking import Desk, Line, Trial, chosen, listing, trial_of
from bartizan.wiring.services import CheckServices
from bartizan.wiring.workspace import load

TRAIN, TEST = "train", "test"
FRAMEWORKS = {
    ".joblib": "scikit-learn",
    ".pkl": "scikit-learn",
    ".pickle": "scikit-learn",
    ".onnx": "onnx",
    ".pt": "torch",
    ".pth": "torch",
    ".pt2": "torch",
    ".json": "xgboost",
    ".ubj": "xgboost",
    ".txt": "lightgbm",
}
"""Ending of a model file to the framework it is taken to be of."""
UNSAID = "It was not declared."


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be attacked, and how. Numbers that are None are as in a declaration that does not give them."""

    model: str
    train: str
    """Table that the model was trained on."""
    test: str
    """Table that it never saw."""
    target: str = ""
    """Label column; guessed where the tables tell."""
    framework: str = ""
    """Guessed from the ending of the model's name."""
    output: str = "scores"
    """What the model's users would be answered: ``scores`` or ``label``."""
    settings: dict[str, Any] = {}
    """Fields of ``[redteam]``."""
    shape: tuple[int, ...] = ()
    value_range: tuple[float, float] | None = None


def applying(wanted: Wanted) -> list[Line]:
    """Every installed attack, as it stands to this model. Raises as ``trials`` does."""
    return listing(system_of(wanted))


def trials(wanted: Wanted, listener: Listener, names: Sequence[str] = ()) -> Iterator[Trial]:
    """Attack the model file with the attacks named, or the usual ones that apply.

    Raises:
        ArtefactError: a file is missing, or no such table.
        InputError: an attack does not exist or does not apply, or something must be said that cannot be guessed.
        WorkError: the scan found something: the file is not loaded.
    """
    system = system_of(wanted)
    subject = system.of_kind("model")[0]
    clean = _scanned(subject)
    for check in chosen(system, names):
        job = Job(check=check, subject=subject, inputs={})
        listener.started(job)
        services = _Services(Path(system.folder), clean)
        yield trial_of(check, subject, check.run(system, subject, Desk(job, services, listener)))


def system_of(wanted: Wanted) -> System:
    """A system of this model and its tables, as far as attacks must know it. Raises as ``trials`` does."""
    files = load("bartizan.stores.files:LocalFiles")()
    test, train = _seen(Path(wanted.test)), _seen(Path(wanted.train))
    target = wanted.target or test.target or train.target
    if not target:
        raise InputError(
            f"it cannot be told which column of {Path(wanted.test).name} is the label", remedy="name it with --target."
        )
    whole = tuple(name for name in train.integer if name in test.integer and name != target)
    parts = tuple(
        _dataset(name, path, target, wanted, whole) for name, path in ((TRAIN, wanted.train), (TEST, wanted.test))
    )
    classes = read_table(wanted.train, parts[0]).label_values
    model = _model(wanted, classes)
    named: tuple[tuple[ArtefactKind, str, str], ...] = (
        ("model", model.name, wanted.model),
        ("dataset", TRAIN, wanted.train),
        ("dataset", TEST, wanted.test),
    )
    artefacts = tuple(
        Artefact(kind=kind, name=name, digest=files.digest(Path(path)), path=str(Path(path).resolve()))
        for kind, name, path in named
    )
    if artefacts[1].digest == artefacts[2].digest:
        raise InputError(
            "the model is to be tried on the very table that it was trained on",
            remedy="give --test records that it has never seen.",
        )
    try:
        redteam = msgspec.convert(wanted.settings, RedTeam)
    except msgspec.ValidationError as error:
        raise InputError(
            f"the settings of the attacks: {error}", remedy="see `bartizan attack file --help`."
        ) from error
    return System(
        declaration=_declaration(model, parts, wanted.output, redteam),
        folder=str(Path(wanted.model).resolve().parent),
        declaration_digest=digest_bytes(UNSAID.encode()),
        artefacts=artefacts,
    )


def _scanned(subject: Artefact) -> frozenset[Digest]:
    """The digest of the file, when a scan finds nothing.

    Raises:
        WorkError: it finds something.
    """
    report = scan_path(Path(subject.path))
    if report.verdict is not Verdict.CLEAN:
        raise WorkError(
            f"{Path(subject.path).name} is {report.verdict} and is not loaded",
            remedy=f"see `bartizan scan {subject.path}`.",
        )
    return frozenset({subject.digest})


def _seen(table: Path) -> FoundTable:
    """What a table tells of itself: its label column, and where there are only whole numbers."""
    folder, nothing = table.resolve().parent, FoundTable(path="", split="")
    if table.suffix != ".csv" or not folder.is_dir():
        return nothing
    found = {folder / each.path: each for each in survey(folder).tables}
    return found.get(table.resolve(), nothing)


def _dataset(name: str, path: str, target: str, wanted: Wanted, whole: tuple[str, ...]) -> DatasetPart:
    origin = Provenance(host="unknown", contributors="unknown", independent_sources=1, collected="unknown")
    return DatasetPart(
        name=name,
        path=path,
        split="train" if name == TRAIN else "holdout",
        target=target,
        sensitivity="confidential",
        personal_data=False,
        retention="1d",
        destruction="delete",
        uses=("trial",),
        provenance=origin,
        integer=() if wanted.shape else whole,
        shape=wanted.shape,
        value_range=wanted.value_range,
    )


def _model(wanted: Wanted, classes: tuple[str, ...]) -> ModelPart:
    path = Path(wanted.model)
    framework = wanted.framework or FRAMEWORKS.get(path.suffix.lower(), "")
    if not framework:
        raise InputError(
            f"it cannot be told of which framework {path.name} is",
            remedy=f"name it with --framework: {', '.join(sorted(set(FRAMEWORKS.values())))}.",
        )
    plain = {"name": "model", "path": wanted.model, "task": "classification", "framework": framework}
    dates = {"retention": "1d", "destruction": "delete", "lifespan": "1d"}
    said = {"trained_on": TRAIN, "evaluated_on": TEST, "classes": classes, "uses": ("trial",), "limits": UNSAID}
    try:
        return msgspec.convert(plain | dates | said, ModelPart)
    except msgspec.ValidationError as error:
        raise InputError(f"framework {framework!r}: {error}", remedy="see `bartizan attack file --help`.") from error


def _declaration(model: ModelPart, datasets: tuple[DatasetPart, ...], output: str, redteam: RedTeam) -> Declaration:
    if output not in {"scores", "label"}:
        raise InputError(f"an output of {output!r}", remedy="give scores or label.")
    return Declaration(
        name="undeclared",
        purpose=UNSAID,
        owner=Owner(role="unknown", contact="nobody@localhost"),
        model=(model,),
        dataset=datasets,
        exposure=Exposure(interface="public", output="label" if output == "label" else "scores"),
        impact=Societal(users=UNSAID, organisation=UNSAID, society=UNSAID),
        expected=Expectation(metrics={}, failure_plan=UNSAID, monitoring=UNSAID),
        redteam=redteam,
    )


class _Services(CheckServices):
    """Those of a workspace, without journals: what is recorded nowhere is not resumed."""

    def __call__(self, port: type[Any]) -> Any:
        return NoJournals() if port is Journals else super().__call__(port)
