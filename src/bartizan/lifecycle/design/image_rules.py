"""What a declaration must get right about images, and about how large a change of an input is.

One rule says what ``redteam.max_change`` is a number of: of standard deviations where the data are tables, of
units of ``value_range`` where they are images, and of columns or pixels where the norm is l0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from bartizan.core.system import DatasetPart
from bartizan.lifecycle.design.declaration_lines import Place
from bartizan.lifecycle.design.declaration_problems import Problem, show
from bartizan.lifecycle.design.declaration_rules import Case, SemanticRule
from bartizan.targets.table import MAX_COLUMNS

MOST_DEVIATIONS = 100
"""Largest change of a column of a table, in standard deviations, that still means anything."""
OF_COLUMNS = ("integer", "categorical", "immutable", "ranges", "dependent")
"""Keys that speak of columns, which images have not."""


def images_make_sense(case: Case) -> Iterator[Problem]:
    """An image has a range of values that has an inside, no columns, and no more values than can be asked about."""
    for index, part in enumerate(case.declaration.dataset):
        place: Place = ("dataset", index)
        if part.shape:
            yield from _image(place, part)
        elif part.value_range is not None:
            message = "only images have one range for all their values"
            yield Problem(
                place=(*place, "value_range"), message=message, allowed="shape beside it; ranges for columns of a table"
            )


def _image(place: Place, part: DatasetPart) -> Iterator[Problem]:
    values = math.prod(part.shape)
    if values >= MAX_COLUMNS:
        message = f"images of {values} values are too large"
        yield Problem(place=(*place, "shape"), message=message, allowed=f"fewer than {MAX_COLUMNS} values in an image")
    if part.value_range is None:
        yield Problem(
            place=(*place, "value_range"),
            message="is missing",
            allowed="the least and the largest value of a pixel, as the model is given it: [0, 1] or [0, 255]",
        )
    elif not part.value_range[0] < part.value_range[1]:
        low, high = part.value_range
        message = f"the range from {low:g} to {high:g} is empty"
        yield Problem(place=(*place, "value_range"), message=message, allowed="low < high")
    for field in OF_COLUMNS:
        if getattr(part, field):
            message = "images have no columns that could be named"
            yield Problem(place=(*place, field), message=message, allowed="leave it out; value_range holds for pixels")


def data_of_a_model_are_alike(case: Case) -> Iterator[Problem]:
    """A model is judged on what it was trained on: images of the same shape and range, or tables."""
    datasets = {part.name: part for part in case.declaration.dataset}
    for index, model in enumerate(case.declaration.model):
        trained, judged = datasets.get(model.trained_on), datasets.get(model.evaluated_on)
        if trained is None or judged is None:
            continue
        if (trained.shape, trained.value_range) != (judged.shape, judged.value_range):
            message = f"{show(judged.name)} holds {_kind(judged)}, and {show(trained.name)} {_kind(trained)}"
            yield Problem(place=("model", index, "evaluated_on"), message=message, allowed="data of the same kind")


def changes_have_one_unit(case: Case) -> Iterator[Problem]:
    """``max_change`` is one number, so all models take the same kind of rows, and it leaves something of them."""
    redteam, place = case.declaration.redteam, ("redteam", "max_change")
    learned = {model.trained_on for model in case.declaration.model}
    parts = [part for part in case.declaration.dataset if part.name in learned]
    ranges = {part.value_range if part.shape else None for part in parts}
    if len(ranges) > 1:
        kinds = " and ".join(dict.fromkeys(_kind(part) for part in parts))
        message = f"one number cannot bound changes of {kinds}"
        yield Problem(place=place, message=message, allowed="models on data of one kind; declare two systems")
        return
    if redteam.norm == "l0":
        if redteam.max_change < 1:
            message = f"{redteam.max_change:g} of a column or pixel cannot be changed"
            yield Problem(place=place, message=message, allowed="by the norm l0 a number of columns or pixels, from 1")
        return
    span = next(iter(ranges), None)
    if span is None:
        if redteam.max_change > MOST_DEVIATIONS:
            message = f"is too large: {redteam.max_change:g} standard deviations"
            yield Problem(place=place, message=message, allowed=f"a number above 0 to {MOST_DEVIATIONS}")
    elif redteam.norm == "linf" and span[0] < span[1] <= span[0] + redteam.max_change:
        message = (
            f"a change of {redteam.max_change:g} turns any image of values from {span[0]:g} to {span[1]:g} into any"
        )
        yield Problem(place=place, message=message, allowed=f"less than {span[1] - span[0]:g}, in units of value_range")


def _kind(part: DatasetPart) -> str:
    if not part.shape:
        return "a table"
    low, high = part.value_range or (math.nan, math.nan)
    return f"images of shape {list(part.shape)} with values from {low:g} to {high:g}"


IMAGE_RULES: tuple[SemanticRule, ...] = (images_make_sense, data_of_a_model_are_alike, changes_have_one_unit)
