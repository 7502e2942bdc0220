"""The attack map over the life cycle: what passes each access point, and what is left of it.

Access points stand in columns, grouped by stage. One square is one technique: above the line those
that pass the point without any control, below it those that still do with the controls in place.
The disc between them grows with the number of techniques that the point opens alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

from markupsafe import Markup

from bartizan.assurance.figures import svg
from bartizan.assurance.model import DrawnMap, MapPoint, Mark
from bartizan.assurance.text import counted

WIDTH = 1180
GUTTER = 88
STAGE_GAP = 12
CELL = 11
"""Pitch of the squares; two stand side by side in a column."""
HEAT_STEPS = 5
MAX_DISC = 13.0
CONTROLS_SHOWN = 3
LABEL_HEIGHT = 150
POINT_CHARACTERS = 22


def heat(count: int, most: int) -> int:
    """Heat from 0 (nothing passes) to 5 (as much as at the busiest access point)."""
    return math.ceil(HEAT_STEPS * count / most) if most else 0


def by_stage(points: Sequence[MapPoint]) -> list[tuple[str, list[MapPoint]]]:
    """Access points grouped by stage, in the order of the life cycle."""
    return [(stage, list(members)) for stage, members in groupby(points, key=lambda point: point.stage)]


def attackmap(drawn: DrawnMap) -> Markup:
    """The wide picture of the map."""
    return _Picture(drawn).draw()


def describe(drawn: DrawnMap) -> str:
    """The map in words: the points that most attacks pass, before and after."""
    busiest = sorted(drawn.points, key=lambda point: (-point.before, point.id))[:3]
    named = "; ".join(f"{point.id}: {point.before} before, {point.after} after" for point in busiest)
    return (
        f"{counted(len(drawn.points), 'access point')} over the life cycle, "
        f"{counted(len(drawn.techniques), 'technique')} within reach. Most attacks pass {named}."
    )


class _Picture:
    """Positions shared by the parts of the picture."""

    def __init__(self, drawn: DrawnMap) -> None:
        self.map = drawn
        self.most = max((point.before for point in drawn.points), default=0)
        stages = by_stage(drawn.points)
        free = WIDTH - GUTTER - STAGE_GAP * max(0, len(stages) - 1) - 2
        self.column = free / max(1, len(drawn.points))
        self.x: dict[str, float] = {}
        self.stages: list[tuple[str, float, float]] = []
        x = float(GUTTER)
        for stage, members in stages:
            self.stages.append((stage, x, x + self.column * len(members)))
            for index, point in enumerate(members):
                self.x[point.id] = x + self.column * (index + 0.5)
            x += self.column * len(members) + STAGE_GAP
        self.base = 60 + _rows(self.most) * CELL
        """Line on which the squares before any control stand."""
        self.disc = self.base + 24
        self.cut = self.disc + 26
        """Line of the controls."""
        self.after = self.cut + 6 + (CONTROLS_SHOWN + 1) * 10
        """Line from which the remaining squares hang."""
        most_after = max((point.after for point in drawn.points), default=0)
        self.labels = self.after + _rows(most_after) * CELL + 22
        self.height = self.labels + LABEL_HEIGHT

    def draw(self) -> Markup:
        return svg.picture(
            "attackmap",
            (WIDTH, self.height),
            "Attack map over the life cycle",
            describe(self.map),
            self._stage_bands(),
            self._gutter(),
            *(self._point(point) for point in self.map.points),
            class_="attackmap",
        )

    def _stage_bands(self) -> Markup:
        parts = []
        for stage, left, right in self.stages:
            parts.append(svg.element("rect", x=left, y=28, width=right - left, height=self.height - 28, class_="stage"))
            middle = min((left + right) / 2, WIDTH - 4 * len(stage))
            parts.append(svg.text(middle, 18, stage, class_="stage-name", anchor="middle"))
        return svg.group(*parts)

    def _gutter(self) -> Markup:
        rows = (
            (self.base - 12, ("without", "controls")),
            (self.disc, ("opens alone",)),
            (self.cut + 16, ("controls", "in place")),
            (self.after + 22, ("still", "passing")),
        )
        return svg.group(
            *(
                svg.text(GUTTER - 12, y + 4 + 13 * index, part, class_="row-name", anchor="end")
                for y, parts in rows
                for index, part in enumerate(parts)
            )
        )

    def _point(self, point: MapPoint) -> Markup:
        x = self.x[point.id]
        after = [mark for mark in point.marks if mark.passes]
        above, below = heat(point.before, self.most), heat(point.after, self.most)
        parts = [
            svg.element("title", f"{point.id}: {point.asset}"),
            *self._stack(point.marks, x, self.base, -1, above),
            svg.text(x, self.base - _rows(point.before) * CELL - 5, str(point.before), class_="count", anchor="middle"),
            self._disc(point, x),
            *self._controls(point, x),
            *self._stack(after, x, self.after, 1, below),
            svg.text(x, self.after + _rows(point.after) * CELL + 13, str(point.after), class_="count", anchor="middle"),
            svg.text(x + 4, self.labels, _shorten(point.id), class_="point-name", anchor="end", turn=-90),
        ]
        return svg.group(*parts, class_=None if point.before else "idle")

    def _stack(self, marks: Sequence[Mark], x: float, line: float, direction: int, step: int) -> list[Markup]:
        squares = []
        for index, mark in enumerate(marks):
            row, side = divmod(index, 2)
            y = line + direction * row * CELL - (CELL if direction < 0 else 0)
            frame = {"x": x - CELL + side * CELL + 1, "y": y + 1, "width": CELL - 2, "height": CELL - 2}
            squares.append(svg.element("rect", svg.element("title", mark.technique), **frame, class_=f"unit h{step}"))
            if direction > 0 and mark.state == "weakened":
                squares.append(svg.element("rect", **frame, class_="weakened"))
        return squares

    def _disc(self, point: MapPoint, x: float) -> Markup:
        most = max((other.opens for other in self.map.points), default=0)
        if not point.opens:
            return svg.element("circle", cx=x, cy=self.disc, r=1.5, class_="disc none")
        radius = max(4.0, min(MAX_DISC, self.column / 2 - 1) * math.sqrt(point.opens / most))
        inside = radius >= 8  # noqa: PLR2004 - two digits fit from here on
        disc = svg.element("circle", cx=x, cy=self.disc, r=radius, class_="disc")
        return (
            svg.group(disc, svg.text(x, self.disc + 4, str(point.opens), class_="disc-count", anchor="middle"))
            if inside
            else disc
        )

    def _controls(self, point: MapPoint, x: float) -> list[Markup]:
        if not point.controls:
            return [svg.line(x, self.disc + 16, x, self.after - 3, "through")] if point.before else []
        half = self.column / 2 - 2
        parts = [svg.line(x - half, self.cut, x + half, self.cut, "barrier")]
        shown = list(point.controls[:CONTROLS_SHOWN])
        if len(point.controls) > CONTROLS_SHOWN:
            shown.append(f"+{len(point.controls) - CONTROLS_SHOWN}")
        parts += [
            svg.text(x, self.cut + 13 + 10 * index, name, class_="control-name", anchor="middle")
            for index, name in enumerate(shown)
        ]
        return parts


def _rows(count: int) -> int:
    return math.ceil(count / 2)


def hatching() -> Markup:
    """The pattern of weakened techniques; the page needs it once, in a picture that is always shown."""
    stroke = svg.element("path", d="M-1 5L5 -1M2 8L8 2", class_="hatch")
    pattern = svg.element("pattern", stroke, id="f-hatch", width=6, height=6, patternUnits="userSpaceOnUse")
    return svg.element("defs", pattern)


def _shorten(name: str) -> str:
    return name if len(name) <= POINT_CHARACTERS else f"{name[: POINT_CHARACTERS - 1]}…"
