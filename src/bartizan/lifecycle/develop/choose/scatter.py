"""Scatter pictures of trade-offs: one mark for each candidate, with its interval in both directions.

Marks carry the letter under which the table beneath lists them; those on the front are filled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from bartizan.assurance.figures import svg
from bartizan.assurance.figures.axes import Axis, logarithmic
from bartizan.assurance.text import number
from bartizan.core.predicates import Metric

WIDTH, HEIGHT = 480, 340
LEFT, RIGHT, TOP, BOTTOM = 58, 26, 20, 52
RADIUS = 9.5
NEAR = 17.0
"""Marks closer than this, in user units, are moved apart; a line leads to where they belong."""
ROOM = 0.06
"""Share of the range that is left free at both ends."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, slots=True)
class Spot:
    """One candidate in a picture."""

    letter: str
    name: str
    x: Metric
    y: Metric
    on_front: bool


@dataclass(frozen=True, slots=True)
class Trade:
    """What a picture shows."""

    name: str
    title: str
    x_label: str
    y_label: str
    log_x: bool = False
    caption: str = ""


def letter(index: int) -> str:
    """``A`` to ``Z``, then ``A1`` and so on."""
    return LETTERS[index % len(LETTERS)] + (str(index // len(LETTERS)) if index >= len(LETTERS) else "")


def scatter(trade: Trade, spots: Sequence[Spot]) -> Markup:
    """The picture."""
    x = _axis([spot.x for spot in spots], LEFT, WIDTH - RIGHT, log=trade.log_x)
    y = _axis([spot.y for spot in spots], HEIGHT - BOTTOM, TOP, log=False)
    places = _apart([(x.at(spot.x.value), y.at(spot.y.value)) for spot in spots])
    crosses = [_cross(spot, x, y) for spot in spots]
    marks = [_mark(spot, place, x, y) for spot, place in zip(spots, places, strict=True)]
    described = "; ".join(
        f"{spot.letter} {spot.name}: {number(spot.x.value)}, {number(spot.y.value)}" for spot in spots
    )
    return svg.picture(
        trade.name,
        (WIDTH, HEIGHT),
        trade.title,
        described,
        _grid(x, y, trade),
        *crosses,
        *marks,
        class_="chart scatter",
    )


def _axis(values: Sequence[Metric], start: float, end: float, *, log: bool) -> Axis:
    """Just as long as the values with their intervals need."""
    if log:
        return logarithmic([metric.value for metric in values], start, end)
    low, high = (
        min((metric.low for metric in values), default=0.0),
        max((metric.high for metric in values), default=1.0),
    )
    room = max((high - low) * ROOM, 1e-3)
    return Axis(low - room, high + room, start, end)


def _grid(x: Axis, y: Axis, trade: Trade) -> Markup:
    parts = []
    for tick in y.ticks():
        parts.append(svg.line(x.start, y.at(tick), x.end, y.at(tick), "grid"))
        parts.append(svg.text(x.start - 7, y.at(tick) + 4, number(tick), class_="tick", anchor="end"))
    for tick in x.ticks():
        parts.append(svg.line(x.at(tick), y.start, x.at(tick), y.start + 5, "axis"))
        parts.append(svg.text(x.at(tick), y.start + 19, number(tick), class_="tick", anchor="middle"))
    parts.append(svg.line(x.start, y.start, x.end, y.start, "axis"))
    parts.append(svg.text((x.start + x.end) / 2, HEIGHT - 10, trade.x_label, anchor="middle"))
    parts.append(svg.text(13, (y.start + y.end) / 2, trade.y_label, anchor="middle", turn=-90))
    return svg.group(*parts)


def _cross(spot: Spot, x: Axis, y: Axis) -> Markup:
    """The intervals, which lie beneath all marks."""
    place = (x.at(spot.x.value), y.at(spot.y.value))
    return svg.group(
        svg.line(x.at(spot.x.low), place[1], x.at(spot.x.high), place[1], "whisker"),
        svg.line(place[0], y.at(spot.y.low), place[0], y.at(spot.y.high), "whisker"),
    )


def _mark(spot: Spot, place: tuple[float, float], x: Axis, y: Axis) -> Markup:
    """The letter in a disc, and a lead where the disc had to move."""
    true = (x.at(spot.x.value), y.at(spot.y.value))
    lead = [svg.line(*true, *place, "lead")] if place != true else []
    shown = svg.element("title", f"{spot.name}: {number(spot.x.value)}, {number(spot.y.value)}")
    disc = svg.element(
        "circle", shown, cx=place[0], cy=place[1], r=RADIUS, class_="spot front" if spot.on_front else "spot"
    )
    kind = "mark-letter on" if spot.on_front else "mark-letter"
    return svg.group(*lead, disc, svg.text(place[0], place[1] + 4, spot.letter, class_=kind, anchor="middle"))


def _apart(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The places, with later ones moved where they would cover an earlier one."""
    steps = [(0.0, 0.0)] + [(dx * reach, dy * reach) for reach in (NEAR + 1, 2 * NEAR, 3 * NEAR) for dx, dy in _COMPASS]
    settled: list[tuple[float, float]] = []
    for x, y in places:
        free = [
            (x + dx, y + dy)
            for dx, dy in steps
            if _inside(x + dx, y + dy) and all((x + dx - a) ** 2 + (y + dy - b) ** 2 >= NEAR**2 for a, b in settled)
        ]
        settled.append(free[0] if free else (x, y))
    return settled


_COMPASS = ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0), (0.8, 0.8), (-0.8, 0.8), (-0.8, -0.8), (0.8, -0.8))


def _inside(x: float, y: float) -> bool:
    return LEFT - RADIUS <= x <= WIDTH - RADIUS and RADIUS <= y <= HEIGHT - BOTTOM + RADIUS
