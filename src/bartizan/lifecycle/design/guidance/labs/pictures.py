"""Pictures of a lesson: small images side by side, and the curves of a measurement. SVG, told in words as well."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from markupsafe import Markup

from bartizan.assurance.figures import svg
from bartizan.assurance.figures.curves import SHAPES, figure
from bartizan.assurance.model import Curves, FigureKind, Series
from bartizan.assurance.model import Point as Place
from bartizan.lifecycle.design.guidance.document import Figure
from bartizan.redteam.family import Point
from bartizan.targets.protocol import Rows

PIXEL = 9
GAP = 14
CAPTION = 16
WHITE = 255


def curves(kind: FigureKind, named: dict[str, Iterable[Point]]) -> Figure:
    """Curves of a measurement, drawn as in a report."""
    series = tuple(
        Series(name=name, points=tuple(Place(x=p.x, y=p.value, low=p.low, high=p.high) for p in points))
        for name, points in named.items()
    )
    drawn = figure(Curves(kind=kind, series=series, sources=()))
    return Figure(str(drawn), f"{SHAPES[kind].title}. {SHAPES[kind].reading}")


def images(name: str, title: str, rows: Sequence[tuple[str, Rows]], shape: tuple[int, int], caption: str) -> Figure:
    """Pictures in a grid: for each line a name and ``(pictures, pixels)`` with values from 0 (black) to 1 (white)."""
    height, width = shape
    across, down = width * PIXEL + GAP, height * PIXEL + GAP
    count = max((len(line) for _, line in rows), default=0)
    parts: list[Markup] = []
    for index, (label, line) in enumerate(rows):
        top = index * (down + CAPTION)
        parts.append(svg.text(0, top + CAPTION - 4, label))
        parts += [_image(line[place], shape, place * across, top + CAPTION) for place in range(len(line))]
    size = (max(count * across, 300), len(rows) * (down + CAPTION))
    return Figure(str(svg.picture(name, size, title, caption, *parts)), caption)


def _image(pixels: Rows, shape: tuple[int, int], left: float, top: float) -> Markup:
    height, width = shape
    values = pixels.reshape(height, width).clip(0, 1)
    squares = [
        svg.element(
            "rect",
            x=left + column * PIXEL,
            y=top + row * PIXEL,
            width=PIXEL,
            height=PIXEL,
            fill=_grey(float(values[row, column])),
        )
        for row in range(height)
        for column in range(width)
    ]
    return svg.group(*squares)


def _grey(value: float) -> str:
    level = round(value * WHITE)
    return f"#{level:02x}{level:02x}{level:02x}"
