"""What a declaration must get right about texts."""

from __future__ import annotations

from collections.abc import Iterator

from bartizan.core.system import DatasetPart, ModelPart
from bartizan.lifecycle.design.declaration_lines import Place
from bartizan.lifecycle.design.declaration_problems import Problem, show
from bartizan.lifecycle.design.declaration_rules import Case, SemanticRule

OF_NUMBERS = ("shape", "integer", "categorical", "immutable", "ranges", "dependent")
"""Keys that speak of rows of numbers."""
FRAMEWORK = "scikit-learn"
"""What models of texts are opened with."""


def texts_make_sense(case: Case) -> Iterator[Problem]:
    """A text is not its own label, is no image, has no columns, and lies in a CSV file."""
    for index, part in enumerate(case.declaration.dataset):
        place: Place = ("dataset", index)
        if not part.text:
            continue
        if part.text == part.target:
            message = f"{show(part.text)} is the label"
            yield Problem(place=(*place, "text"), message=message, allowed="the column that the model is given")
        if not part.path.endswith(".csv"):
            message = f"texts are read from CSV files, and this is {show(part.path)}"
            yield Problem(place=(*place, "path"), message=message, allowed="a file that ends in .csv")
        for field in OF_NUMBERS:
            if getattr(part, field):
                message = "texts have neither columns nor pixels"
                yield Problem(place=(*place, field), message=message, allowed="leave it out")


def models_of_texts(case: Case) -> Iterator[Problem]:
    """A model of texts is judged on texts, is of a framework that is opened for them, and stands among its like."""
    datasets = {part.name: part for part in case.declaration.dataset}
    pairs = [(datasets.get(model.trained_on), datasets.get(model.evaluated_on)) for model in case.declaration.model]
    known = [(place, *pair) for place, pair in enumerate(pairs) if pair[0] is not None and pair[1] is not None]
    written = [bool(trained.text) for _, trained, _ in known if trained is not None]
    for index, trained, judged in known:
        assert trained is not None  # noqa: S101 - looked at above
        assert judged is not None  # noqa: S101 - looked at above
        yield from _model(("model", index), case.declaration.model[index], trained, judged)
        if trained.text and not all(written):
            message = "models of texts and models of rows stand in one declaration"
            yield Problem(place=("model", index, "trained_on"), message=message, allowed="declare two systems")


def _model(place: Place, model: ModelPart, trained: DatasetPart, judged: DatasetPart) -> Iterator[Problem]:
    if bool(trained.text) != bool(judged.text):
        message = f"one of {show(trained.name)} and {show(judged.name)} holds texts and the other does not"
        yield Problem(place=(*place, "evaluated_on"), message=message, allowed="data of the same kind")
    if trained.text and model.framework != FRAMEWORK:
        message = f"texts are given to models of {FRAMEWORK} only"
        yield Problem(place=(*place, "framework"), message=message, allowed=FRAMEWORK)


TEXT_RULES: tuple[SemanticRule, ...] = (texts_make_sense, models_of_texts)
