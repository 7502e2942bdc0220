"""The red-team figures: which axes each has, and what its picture says in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from bartizan.assurance.figures.axes import Axis, linear, logarithmic
from bartizan.assurance.figures.chart import Frame, chart, plot_area
from bartizan.assurance.model import Curves, FigureKind, Point, Series
from bartizan.assurance.text import counted, number

ROC_FLOOR = 1e-3
"""False positive rates below this are drawn at the edge: few evaluation sets resolve them."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How one kind of figure is drawn and explained."""

    title: str
    x_label: str
    y_label: str
    reading: str
    """How to read it, in one sentence."""
    log_x: bool = False
    log_y: bool = False
    diagonal: bool = False
    open_y: bool = False
    """Whether values are no shares: the axis ends at the largest one."""


SHAPES: dict[FigureKind, Shape] = {
    "change": Shape(
        "Robust accuracy against the size of the change",
        "largest change allowed",
        "robust accuracy",
        "Share of rows that keep their right class although an adversary may change them by that much. "
        "Lower means easier to evade; the band is the interval of the measurement.",
    ),
    "queries": Shape(
        "Robust accuracy against the query budget",
        "queries the adversary may ask for one row",
        "robust accuracy",
        "Share of rows that keep their right class when an adversary may ask that often. "
        "It shows what a query budget would be worth.",
        log_x=True,
    ),
    "corruption": Shape(
        "Accuracy under common corruptions",
        "severity, 1 to 5",
        "accuracy",
        "Share of rows that keep their right class when an input comes noisy, blurred, rounded or wrongly entered. "
        "Nobody has to want that.",
    ),
    "poison": Shape(
        "Accuracy after poisoning",
        "share of training records the adversary controls",
        "accuracy on clean rows",
        "Accuracy of a model trained on data that an adversary has partly spoilt, measured on rows "
        "that no training saw.",
    ),
    "recall": Shape(
        "Recall of the costliest class after poisoning",
        "share of training records the adversary controls",
        "recall on clean rows",
        "Share of the rows of that class which a model trained on partly spoilt data still finds.",
    ),
    "backdoor": Shape(
        "Backdoors: rows that the trigger turns",
        "share of training records the adversary controls",
        "rows with the trigger that get the adversary's class",
        "Share of rows that, once they carry the trigger, are answered as the adversary wants by a model trained on "
        "data that he has partly made.",
    ),
    "roc": Shape(
        "Membership inference",
        "false positive rate",
        "true positive rate",
        "How well an adversary tells training records from others. The dotted diagonal is guessing; "
        "what matters is how far a curve lies above it at the left, where few are accused wrongly.",
        log_x=True,
        log_y=True,
        diagonal=True,
    ),
    "exposure": Shape(
        "Memorised records",
        "copies of the record in the training data",
        "exposure in bits",
        "How far up a record that was put into the training data stands among records of its kind that were not; "
        "each bit halves the rank. Chance alone gives about 1.4 bits.",
        open_y=True,
    ),
    "fidelity": Shape(
        "Extraction: agreement of a stolen copy",
        "queries spent",
        "agreement with the model",
        "Share of unseen rows on which a copy, trained on the model's answers alone, answers like the model.",
        log_x=True,
    ),
}


def figure(curves: Curves) -> Markup:
    """The picture of one figure's curves."""
    shape = SHAPES[curves.kind]
    (left, right), (bottom, top) = plot_area(len(curves.series))
    series = [_on_axes(shape, entry) for entry in curves.series]
    points = [point for entry in series for point in entry.points]
    frame = Frame(
        name=curves.kind,
        title=shape.title,
        description=describe(curves),
        x=_x_axis(shape, points, left, right),
        y=_y_axis(shape, points, bottom, top),
        x_label=x_label(curves),
        y_label=shape.y_label,
        diagonal=shape.diagonal,
    )
    return chart(frame, series)


def x_label(curves: Curves) -> str:
    """What stands below the horizontal axis."""
    label = SHAPES[curves.kind].x_label
    return f"{label}, in {curves.unit}" if curves.unit else label


def describe(curves: Curves) -> str:
    """The picture in words: each curve's first and last point."""
    shape = SHAPES[curves.kind]
    drawn = "; ".join(_course(entry) for entry in curves.series)
    return f"{counted(len(curves.series), 'curve')} of {shape.y_label} over {x_label(curves)}. {drawn}."


def _x_axis(shape: Shape, points: Sequence[Point], start: float, end: float) -> Axis:
    values = [point.x for point in points]
    if shape.diagonal:
        return Axis(ROC_FLOOR, 1.0, start, end, log=True)
    return logarithmic(values, start, end) if shape.log_x else linear(values, start, end)


def _y_axis(shape: Shape, points: Sequence[Point], start: float, end: float) -> Axis:
    if shape.open_y:
        return linear([point.high if point.high is not None else point.y for point in points], start, end)
    return Axis(ROC_FLOOR, 1.0, start, end, log=True) if shape.log_y else Axis(0.0, 1.0, start, end)


def _on_axes(shape: Shape, series: Series) -> Series:
    """A curve without the points that a logarithmic axis cannot show: 0 queries, rates below the floor."""
    least_x = ROC_FLOOR if shape.diagonal else 0
    shown = tuple(
        point
        for point in series.points
        if (not shape.log_x or point.x > 0) and point.x >= least_x and (not shape.log_y or point.y >= ROC_FLOOR)
    )
    return Series(name=series.name, points=shown)


def _course(series: Series) -> str:
    first, last = series.points[0], series.points[-1]
    return f"{series.name}: {number(first.y)} at {number(first.x)}, {number(last.y)} at {number(last.x)}"
