"""Line charts: curves with interval bands, told apart by mark and dash as well as by colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from bartizan.assurance.figures import svg
from bartizan.assurance.figures.axes import Axis
from bartizan.assurance.model import Point, Series
from bartizan.assurance.text import number

WIDTH = 480
PLOT_HEIGHT = 236
LEFT, RIGHT, BOTTOM = 52, 22, 48
LEGEND_ROW = 19
MAX_SERIES = 6
"""Curves drawn in one picture; the table beneath has all of them."""
MOST_BANDS = 3
"""More bands would only cover one another; the table beneath has every interval."""
MAX_MARKS = 24
"""Points of a curve that get a mark of their own; denser curves are lines only."""
LEGEND_CHARACTERS = 52


@dataclass(frozen=True, slots=True)
class Frame:
    """What a chart shows around its curves."""

    name: str
    title: str
    description: str
    x: Axis
    y: Axis
    x_label: str
    y_label: str
    diagonal: bool = False
    """Draw the line on which both values are equal: guessing."""


def plot_area(series: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """Horizontal and vertical extent of the plot when ``series`` curves need a legend above it."""
    top = 12 + min(series, MAX_SERIES) * LEGEND_ROW
    return (LEFT, WIDTH - RIGHT), (top + PLOT_HEIGHT, top)


def chart(frame: Frame, series: Sequence[Series]) -> Markup:
    """The chart of ``series`` inside ``frame``."""
    drawn = series[:MAX_SERIES]
    height = frame.y.start + BOTTOM
    parts = [
        _grid(frame),
        _diagonal(frame) if frame.diagonal else Markup(""),
        *(_band(frame, entry.points, index) for index, entry in enumerate(drawn) if len(drawn) <= MOST_BANDS),
        *(_curve(frame, entry.points, index) for index, entry in enumerate(drawn)),
        *(_legend(entry.name, index) for index, entry in enumerate(drawn)),
    ]
    return svg.picture(frame.name, (WIDTH, height), frame.title, frame.description, *parts, class_="chart")


def _grid(frame: Frame) -> Markup:
    x, y = frame.x, frame.y
    parts = []
    for tick in y.ticks():
        parts.append(svg.line(x.start, y.at(tick), x.end, y.at(tick), "grid"))
        parts.append(svg.text(x.start - 7, y.at(tick) + 4, number(tick), class_="tick", anchor="end"))
    for tick in x.ticks():
        parts.append(svg.line(x.at(tick), y.start, x.at(tick), y.start + 5, "axis"))
        parts.append(svg.text(x.at(tick), y.start + 19, number(tick), class_="tick", anchor="middle"))
    parts.append(svg.line(x.start, y.start, x.end, y.start, "axis"))
    parts.append(svg.text((x.start + x.end) / 2, y.start + 40, frame.x_label, anchor="middle"))
    middle = (y.start + y.end) / 2
    parts.append(svg.text(13, middle, frame.y_label, anchor="middle", turn=-90))
    return svg.group(*parts)


def _diagonal(frame: Frame) -> Markup:
    low, high = max(frame.x.low, frame.y.low), min(frame.x.high, frame.y.high)
    return svg.line(frame.x.at(low), frame.y.at(low), frame.x.at(high), frame.y.at(high), "diagonal")


def _band(frame: Frame, points: Sequence[Point], index: int) -> Markup:
    bounded = [(point.x, point.low, point.high) for point in points if point.low is not None and point.high is not None]
    if len(bounded) < 2 or len(bounded) < len(points):  # noqa: PLR2004 - an area needs two points
        return Markup("")
    upper = [(frame.x.at(x), frame.y.at(high)) for x, _, high in bounded]
    lower = [(frame.x.at(x), frame.y.at(low)) for x, low, _ in reversed(bounded)]
    return svg.path([*upper, *lower], f"band s{index}", closed=True)


def _curve(frame: Frame, points: Sequence[Point], index: int) -> Markup:
    places = [(frame.x.at(point.x), frame.y.at(point.y)) for point in points]
    parts = [svg.path(places, f"curve s{index}")] if len(places) > 1 else []
    if len(places) <= MAX_MARKS:
        parts += [svg.mark(index, x, y, 3.4, f"dot s{index}") for x, y in places]
    return svg.group(*parts)


def _legend(name: str, index: int) -> Markup:
    y = 10 + index * LEGEND_ROW
    shown = name if len(name) <= LEGEND_CHARACTERS else f"{name[: LEGEND_CHARACTERS - 1]}…"
    sample = svg.path([(LEFT, y), (LEFT + 30, y)], f"curve s{index}")
    return svg.group(sample, svg.mark(index, LEFT + 15, y, 3.4, f"dot s{index}"), svg.text(LEFT + 40, y + 4, shown))
