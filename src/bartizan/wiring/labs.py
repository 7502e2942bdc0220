"""Lessons: what they run on, the page that is left, and the assessment that can be signed."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np

from bartizan.core import predicates
from bartizan.core.check import Blob
from bartizan.core.digest import Digest
from bartizan.core.errors import InputError, WorkError
from bartizan.core.predicates import Assessment
from bartizan.core.statement import make
from bartizan.core.system import (
    Artefact,
    DatasetPart,
    Expectation,
    ModelPart,
    Provenance,
    RedTeam,
    System,
)
from bartizan.lifecycle.design.guidance.document import Document, Section, to_html
from bartizan.lifecycle.design.guidance.labs import LABS, TEXT_LABS, Lab, TextLab, lab_called
from bartizan.lifecycle.design.guidance.labs.shape import Ground, TextGround
from bartizan.redteam.check import material_of, offered
from bartizan.redteam.family import Material
from bartizan.redteam.text_check import TextMaterial, check_text_target, declares_texts, text_material_of
from bartizan.targets.feasible import space_of
from bartizan.targets.protocol import Access, Targets
from bartizan.targets.table import Table
from bartizan.targets.text import TextTargets
from bartizan.targets.text_table import Texts
from bartizan.wiring import guided
from bartizan.wiring.assure import Situation, situation
from bartizan.wiring.notice import choose
from bartizan.wiring.services import CheckServices
from bartizan.wiring.workspace import Workspace, load

SHORT: dict[str, object] = {
    "samples": 30,
    "query_budget": 400,
    "poison_rates": (0.05, 0.2),
    "shadow_models": 16,
    "extraction_budget": 300,
    "repeats": 2,
}
"""What a lesson may spend at most, whatever the declaration allows a campaign."""
EXAMPLE_CHANGE = 0.5
"""Standard deviations by which a pixel of the example may be moved."""
SEED = 20261121
EXAMPLE_RULE = re.compile(r"^(([a-z])+.)+[A-Z]([a-z])+$")
"""A rule of the kind found in use: it stood in a public collection of patterns for validation, as one for the names of
Java classes, and takes exponential time (Davis et al., ESEC/FSE 2018, and OWASP on denial of service by patterns)."""


class Taught(msgspec.Struct, frozen=True, kw_only=True):
    """A lesson that was run."""

    lesson: str
    model: str
    assessment: Assessment
    page: str
    """Path of the HTML page; empty when none was asked for."""
    envelope: Digest | None = None
    """Statement of the assessment, when it was signed."""


def teach_example(name: str, tell: Callable[[Section], None], page: Path | None) -> Taught:
    """Run a lesson on the example model."""
    if name in TEXT_LABS:
        return _run_texts(TEXT_LABS[name], example_messages(), tell, page)[0]
    return _run(_of_rows(name), example_ground(), tell, page)[0]


def teach(
    workspace: Workspace, name: str, model: str, tell: Callable[[Section], None], page: Path | None, *, sign: bool
) -> Taught:
    """Run a lesson on a declared model, and sign what it measured if that is wanted.

    Raises:
        WorkError: the model has no clean scan, or offers too little for the lesson.
    """
    lab = lab_called(name)
    now = situation(workspace, workspace.system())
    artefact = choose(now.system, model)
    if name in TEXT_LABS:
        with declared_texts(workspace, now, artefact) as written:
            taught, assessment = _run_texts(TEXT_LABS[name], written, tell, page)
    else:
        with declared_ground(workspace, now, artefact) as ground:
            taught, assessment = _run(_of_rows(name), ground, tell, page)
    if not sign:
        return taught
    part = now.system.model_part(artefact.name)
    datasets = [now.system.artefact(f"dataset:{each}") for each in (part.trained_on, part.evaluated_on)]
    said = make(
        predicates.ASSESSMENT,
        artefact,
        msgspec.structs.replace(
            assessment,
            check=predicates.CheckRef(name=f"lab.{lab.name}", version="1"),
            inputs=tuple(predicates.Input.of(item.id, item.digest) for item in (artefact, *datasets)),
            performed_at=workspace.clock(),
        ),
    )
    return msgspec.structs.replace(taught, envelope=workspace.publish(said, workspace.service))


def _of_rows(name: str) -> Lab:
    found = lab_called(name)
    return LABS[found.name]


def _run(lab: Lab, ground: Ground, tell: Callable[[Section], None], page: Path | None) -> tuple[Taught, Assessment]:
    _insist(lab, ground)
    steps = _Steps(tell)
    return _written(lab, ground, lab.run(ground, steps), steps, page)


def _run_texts(
    lab: TextLab, ground: TextGround, tell: Callable[[Section], None], page: Path | None
) -> tuple[Taught, Assessment]:
    _insist(lab, ground)
    steps = _Steps(tell)
    return _written(lab, ground, lab.run(ground, steps), steps, page)


def _insist(lab: Lab | TextLab, ground: Ground | TextGround) -> None:
    if missing := sorted(lab.needs - ground.access):
        raise WorkError(
            f"this lesson needs {' and '.join(missing)}, which {ground.target.name} does not offer",
            remedy="run it on the example.",
        )


class _Steps:
    """Tells each step as soon as it is done, and keeps it for the page."""

    def __init__(self, tell: Callable[[Section], None]) -> None:
        self.sections: list[Section] = []
        self._tell = tell

    def __call__(self, section: Section) -> None:
        self.sections.append(section)
        self._tell(section)


def _written(
    lab: Lab | TextLab, ground: Ground | TextGround, assessment: Assessment, steps: _Steps, page: Path | None
) -> tuple[Taught, Assessment]:
    """The page of a lesson that was run."""
    name, sections = ground.material.model.name, steps.sections
    lead = f"A lesson on {name}: a real attack with a small budget. That little was found proves nothing."
    document = Document(title=lab.title, lead=lead, sections=tuple(sections))
    files = guided.write_files(page.parent, {page.name: Blob(to_html(document).encode(), "text/html")}) if page else ()
    return Taught(lesson=lab.name, model=name, assessment=assessment, page="".join(files)), assessment


# ---- the example


def example_ground() -> Ground:
    """Handwritten digits and a small network, trained now."""
    made = load("bartizan.adapters.example_digits:digits")(SEED)
    shape = load("bartizan.adapters.example_digits:SHAPE")
    columns = tuple(f"pixel {row},{column}" for row in range(shape[1]) for column in range(shape[2]))
    values = tuple(str(value) for value in range(made.target.classes))
    training, evaluation = (
        Table(columns, rows, labels.astype(np.int64), values) for rows, labels in (made.training, made.evaluation)
    )
    part = _example_part()
    settings = msgspec.convert({**SHORT, "seed": SEED, "max_change": EXAMPLE_CHANGE}, RedTeam)
    material = Material(
        model=_example_model(values),
        settings=settings,
        expected=Expectation(metrics={"accuracy": 0.9}, failure_plan="It is an example.", monitoring="Nobody looks."),
        training=training,
        evaluation=evaluation,
        space=space_of(part, training),
    )
    return Ground(
        target=made.target,
        material=material,
        seed=SEED,
        access=made.target.offers,
        shape=(shape[1], shape[2]),
    )


def _example_model(classes: tuple[str, ...], name: str = "digits") -> ModelPart:
    return ModelPart(
        name=name,
        path=name,
        task="classification",
        framework="scikit-learn",
        trained_on="train",
        evaluated_on="holdout",
        classes=classes,
        uses=("lessons",),
        limits="An example.",
        retention="1d",
        destruction="delete",
        lifespan="1d",
    )


def _example_part() -> DatasetPart:
    origin = Provenance(
        host="scikit-learn", contributors="E. Alpaydin and C. Kaynak", independent_sources=1, collected="1998"
    )
    return DatasetPart(
        name="train",
        path="train",
        split="train",
        target="digit",
        sensitivity="public",
        personal_data=False,
        retention="1d",
        destruction="delete",
        uses=("lessons",),
        provenance=origin,
    )


def example_messages() -> TextGround:
    """Short messages and a filter, trained now, behind a rule that looks for names of a certain form."""
    made = load("bartizan.adapters.example_messages:messages")(SEED)
    values: tuple[str, ...] = load("bartizan.adapters.example_messages:CLASSES")
    training, evaluation = (Texts(texts, labels, values) for texts, labels in (made.training, made.evaluation))
    material = TextMaterial(
        model=_example_model(values, "messages"),
        settings=msgspec.convert({**SHORT, "query_budget": 150, "seed": SEED}, RedTeam),
        training=training,
        evaluation=evaluation,
    )
    access = frozenset({Access.LABELS, Access.SCORES})
    return TextGround(made.target, material, SEED, access, guard=EXAMPLE_RULE.match)


# ---- a declared model


@contextmanager
def declared_ground(workspace: Workspace, now: Situation, model: Artefact) -> Iterator[Ground]:
    """A declared model in its process, with what the declaration says of its data.

    Raises:
        WorkError: its bytes have no clean scan.
    """
    if declares_texts(now.system.declaration):
        raise InputError(
            f"this lesson is about rows of numbers, and {model.id} is declared with texts",
            remedy=f"run it on the example, or one of: {', '.join(TEXT_LABS)}.",
        )
    _insist_on_scan(now, model)
    material = declared_material(now.system, model)
    settings = workspace.settings
    services = CheckServices(settings.path("journals"), frozenset({model.digest}), settings.values["confinement"])
    with services(Targets).open(now.system, model) as target:
        if target.features != len(material.training.columns) or target.classes != len(material.model.classes):
            raise InputError(
                f"{model.id} takes {target.features} features and knows {target.classes} classes, which is not what "
                "its data have",
                remedy="declare the dataset that the model was trained on.",
            )
        access = (offered(now.system.declaration.exposure) | {Access.TRAINING}) & target.offers
        yield Ground(target=target, material=material, seed=material.settings.seed, access=access)


@contextmanager
def declared_texts(workspace: Workspace, now: Situation, model: Artefact) -> Iterator[TextGround]:
    """A declared model of texts in its process, with its texts.

    Raises:
        InputError: what is declared are rows of numbers.
        WorkError: its bytes have no clean scan.
    """
    if not declares_texts(now.system.declaration):
        raise InputError(
            f"this lesson is about texts, and {model.id} is declared with rows of numbers",
            remedy="run it on the example: leave --system out.",
        )
    _insist_on_scan(now, model)
    material = text_material_of(now.system, model)
    material = dataclasses.replace(material, settings=shortened(material.settings))
    settings = workspace.settings
    services = CheckServices(settings.path("journals"), frozenset({model.digest}), settings.values["confinement"])
    with services(TextTargets).open(now.system, model) as target:
        check_text_target(target, material)
        yield TextGround(target, material, material.settings.seed, offered(now.system.declaration.exposure))


def declared_material(system: System, model: Artefact) -> Material:
    """The model's data as a campaign gets them, and settings no larger than a lesson may spend."""
    found = material_of(system, model)
    return dataclasses.replace(found, settings=shortened(found.settings))


def shortened(settings: RedTeam) -> RedTeam:
    """The declared settings, cut to what a lesson may spend."""
    short = msgspec.convert({**SHORT, "seed": settings.seed}, RedTeam)
    return msgspec.structs.replace(
        settings,
        samples=min(settings.samples, short.samples),
        query_budget=min(settings.query_budget, short.query_budget),
        poison_rates=short.poison_rates,
        shadow_models=min(settings.shadow_models, short.shadow_models),
        extraction_budget=min(settings.extraction_budget, short.extraction_budget),
        repeats=min(settings.repeats, short.repeats),
    )


def _insist_on_scan(now: Situation, model: Artefact) -> None:
    if not _scanned(now, model):
        raise WorkError(
            f"{model.id} has no clean scan and is not loaded", remedy="run `bartizan assure --only scan` first."
        )


def _scanned(now: Situation, model: Artefact) -> bool:
    for item in now.evidence:
        if item.holds and item.check == "scan" and item.statement and model.digest in item.statement.about():
            said = item.statement.read()
            if isinstance(said, predicates.TestResult) and said.result == "PASSED":
                return True
    return False
