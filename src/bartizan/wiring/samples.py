"""Own samples: what a model of others does on data of ours, in a process of its own."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
from msgspec.structs import replace

from bartizan.core import predicates
from bartizan.core.digest import Digest, digest_json
from bartizan.core.errors import InputError
from bartizan.core.system import Artefact, DatasetPart, ModelPart, Provenance, System
from bartizan.redteam.statistics import proportion
from bartizan.targets.protocol import Labels, Targets
from bartizan.targets.table import read_table
from bartizan.wiring.services import CheckServices
from bartizan.wiring.workspace import Workspace

MOST_ROWS = 20_000
SAMPLES = "own-samples"
METRICS = ("accuracy",)


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What the model must do on which samples."""

    path: str
    """A table, CSV or npz."""
    target: str
    """Name of the label column."""
    minimum: dict[str, float]
    """Least value of each metric; met when the lower end of its interval reaches it."""


def parse_minimum(texts: tuple[str, ...]) -> dict[str, float]:
    """``accuracy=0.8`` as numbers.

    Raises:
        InputError: it is written otherwise, or no metric that is measured here.
    """
    found = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if name not in METRICS or not 0 < number <= 1:
            raise InputError(
                f"{text!r} is no minimum", remedy=f"write {METRICS[0]}=0.8; metrics: {', '.join(METRICS)}."
            )
        found[name] = number
    return found


def inputs_digest(workspace: Workspace, wanted: Wanted) -> Digest:
    """Digest of the samples and of what is demanded."""
    return digest_json([workspace.files.digest(Path(wanted.path)), wanted.target, wanted.minimum])


def measure(workspace: Workspace, artefact: Artefact, wanted: Wanted) -> predicates.Assessment:
    """Ask the model about the samples. It must have been scanned clean; it runs isolated.

    Raises:
        WorkError: it cannot answer.
        InputError: no least value is given.
        ArtefactError: the samples are no such table.
    """
    least = wanted.minimum.get("accuracy", 0.0)
    if not 0 < least <= 1:
        raise InputError(
            "nothing is demanded of the model on the samples", remedy="take it in again with --minimum accuracy=0.8."
        )
    path = Path(wanted.path)
    part = _samples_part(path, wanted.target)
    table = read_table(path, part, digest=workspace.files.digest(path))
    system, model = _with_guest(workspace.system(), artefact, part, table.label_values)
    settings = workspace.settings
    services = CheckServices(settings.path("journals"), frozenset({artefact.digest}), settings.values["confinement"])
    targets = services(Targets)
    rows, labels = table.rows[:MOST_ROWS], table.labels[:MOST_ROWS]
    with targets.open(system, model) as target:
        answers = target.labels(rows)
        values = target.class_values
    right = int(np.count_nonzero(_as_told(answers, values, table.label_values) == labels))
    metric = proportion(right, len(labels)).metric("share")
    passed = metric.low >= least
    return predicates.Assessment(
        method=SAMPLES,
        summary=f"On {len(labels)} samples of ours its accuracy is {metric.value:.3f} [{metric.low:.3f}, "
        f"{metric.high:.3f}]; at least {least:g} is demanded.",
        result="passed" if passed else "failed",
        metrics={"accuracy": metric},
        family="validation",
        settings={"minimum": wanted.minimum, "samples": path.name},
    )


def _as_told(answers: Labels, values: tuple[str, ...], labels: tuple[str, ...]) -> Labels:
    """Answers as indices into our own labels; a class that we do not have is never right."""
    if not values:
        return answers
    places = np.array([labels.index(value) if value in labels else -1 for value in values])
    indices: Labels = places[answers]
    return indices


def _samples_part(path: Path, target: str) -> DatasetPart:
    return DatasetPart(
        name=SAMPLES,
        path=str(path),
        split="reference",
        target=target,
        sensitivity="internal",
        personal_data=False,
        retention="1d",
        destruction="delete",
        uses=("validation",),
        provenance=Provenance(host="own", contributors="own", independent_sources=1, collected="own"),
    )


def _with_guest(
    system: System, artefact: Artefact, part: DatasetPart, classes: tuple[str, ...]
) -> tuple[System, Artefact]:
    """The system with the model as if it were declared, so that it can be opened like one."""
    model = ModelPart(
        name=artefact.name,
        path=artefact.path,
        task="classification",
        framework="scikit-learn",
        trained_on=SAMPLES,
        evaluated_on=SAMPLES,
        classes=classes,
        uses=("validation",),
        limits="",
        retention="1d",
        destruction="delete",
        lifespan="1d",
    )
    others = tuple(each for each in system.declaration.model if each.name != artefact.name)
    declaration = replace(system.declaration, model=(*others, model), dataset=(*system.declaration.dataset, part))
    samples = Artefact(kind="dataset", name=SAMPLES, digest=artefact.digest, path=part.path)
    kept = tuple(each for each in system.artefacts if each.id != artefact.id)
    return replace(system, declaration=declaration, artefacts=(*kept, artefact, samples)), artefact
