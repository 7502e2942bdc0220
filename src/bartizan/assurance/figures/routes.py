"""Where the boxes and arrows of a data-flow picture lie.

Trust zones stand side by side in the order that keeps flows short. A flow leaves and arrives at a
side of its boxes; one that passes other zones runs in the free lanes between their rows of boxes,
so that no arrow hides behind a box.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bartizan.assurance.figures import svg
from bartizan.assurance.model import ComponentBox, FlowArrow

BOX_WIDTH, BOX_HEIGHT, BOX_GAP = 164, 50, 34
ZONE_PAD, ZONE_GAP, ZONE_HEAD = 18, 84, 30
ZONE_WIDTH = BOX_WIDTH + 2 * ZONE_PAD
PITCH = BOX_HEIGHT + BOX_GAP
INNER_REACH, INNER_STEP = 32, 30
"""Flows inside a zone bend out by this much, each further than the one before."""
LANE_STEP = 7
"""Distance of flows that share a lane."""
DISC = 10
MOST_ORDERED = 7
"""More zones than these are left in the order of the declaration: all orders are tried."""
SAMPLES = 24

Place = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Box:
    """Where a component is drawn."""

    zone: int
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Course:
    """The way of an arrow: cubic Bezier pieces, each beginning where the last one ended."""

    pieces: tuple[tuple[Place, Place, Place, Place], ...]

    def path(self) -> str:
        """As the ``d`` of an SVG path."""
        start = self.pieces[0][0]
        bends = (f"C{' '.join(svg.short(value) for place in piece[1:] for value in place)}" for piece in self.pieces)
        return f"M{svg.short(start[0])} {svg.short(start[1])}{''.join(bends)}"

    def places(self) -> Iterator[Place]:
        """Points along it, from its middle outwards."""
        steps = [(piece, step / SAMPLES) for piece in self.pieces for step in range(1, SAMPLES)]
        middle = len(steps) // 2
        for index in sorted(range(len(steps)), key=lambda index: (abs(index - middle), index)):
            piece, share = steps[index]
            yield _along(piece, share)


def zones(components: Sequence[ComponentBox], flows: Sequence[FlowArrow] = ()) -> dict[str, list[ComponentBox]]:
    """Components by trust zone, zones in the order that keeps flows short."""
    found: dict[str, list[ComponentBox]] = {}
    for component in components:
        found.setdefault(component.zone, []).append(component)
    if len(found) > MOST_ORDERED:
        return found
    at = {component.name: component.zone for component in components}
    crossing = Counter(
        (at[flow.source], at[flow.target]) for flow in flows if flow.source in at and flow.target in at and flow.crosses
    )

    def length(order: Sequence[str]) -> int:
        rank = {zone: index for index, zone in enumerate(order)}
        return sum(count * (rank[one] - rank[other]) ** 2 for (one, other), count in crossing.items())

    return {zone: found[zone] for zone in min(itertools.permutations(found), key=length)}


def layout(by_zone: Mapping[str, Sequence[ComponentBox]]) -> dict[str, Box]:
    """Boxes of all components, by name."""
    return {
        component.name: Box(index, _left(index) + ZONE_PAD, ZONE_HEAD + BOX_GAP / 2 + row * PITCH)
        for index, members in enumerate(by_zone.values())
        for row, component in enumerate(members)
    }


def courses(boxes: Mapping[str, Box], flows: Sequence[FlowArrow]) -> list[Course]:
    """The way of each flow; ends on the same side of a box are spread over that side."""
    ports = _ports(boxes, flows)
    inner: Counter[int] = Counter()
    lanes: Counter[int] = Counter()
    found = []
    for index, flow in enumerate(flows):
        source, target = boxes[flow.source], boxes[flow.target]
        start, end = ports[index, "source"], ports[index, "target"]
        if source.zone == target.zone:
            reach = INNER_REACH + INNER_STEP * (inner[source.zone] % 4)
            inner[source.zone] += 1
            found.append(Course(((start, (start[0] + reach, start[1]), (end[0] + reach, end[1]), end),)))
        elif abs(source.zone - target.zone) == 1:
            found.append(Course((_bend(start, end),)))
        else:
            lane = max(1, round(((start[1] + end[1]) / 2 - ZONE_HEAD) / PITCH))
            offset = LANE_STEP * ((lanes[lane] + 1) // 2) * (-1 if lanes[lane] % 2 else 1)
            lanes[lane] += 1
            found.append(_detour(source, target, start, end, ZONE_HEAD + lane * PITCH + offset))
    return found


def numbers(found: Sequence[Course], boxes: Mapping[str, Box]) -> list[Place]:
    """Where the number of each flow goes: on its arrow, clear of boxes and of other numbers if at all possible."""
    taken: list[Place] = []
    for course in found:
        places = list(course.places())
        free = (place for place in places if _clear(place, taken, boxes))
        taken.append(next(free, places[0]))
    return taken


def _left(zone: int) -> float:
    return 2 + zone * (ZONE_WIDTH + ZONE_GAP)


def _bend(start: Place, end: Place) -> tuple[Place, Place, Place, Place]:
    """A piece that leaves and arrives level."""
    reach = (end[0] - start[0]) * 0.52
    return start, (start[0] + reach, start[1]), (end[0] - reach, end[1]), end


def _detour(source: Box, target: Box, start: Place, end: Place, lane: float) -> Course:
    """From one box into a lane, past the zones between, and out again."""
    onward = target.zone > source.zone
    first, last = (source.zone + 1, target.zone - 1) if onward else (source.zone - 1, target.zone + 1)
    entry = (_left(first) + (0 if onward else ZONE_WIDTH), lane)
    leave = (_left(last) + (ZONE_WIDTH if onward else 0), lane)
    return Course((_bend(start, entry), (entry, entry, leave, leave), _bend(leave, end)))


def _clear(place: Place, taken: Sequence[Place], boxes: Mapping[str, Box]) -> bool:
    x, y = place
    margin = DISC + 1
    inside = any(
        box.x - margin < x < box.x + BOX_WIDTH + margin and box.y - margin < y < box.y + BOX_HEIGHT + margin
        for box in boxes.values()
    )
    return not inside and all((x - other) ** 2 + (y - up) ** 2 > (2 * DISC + 2) ** 2 for other, up in taken)


def _sides(source: Box, target: Box) -> tuple[int, int]:
    """On which side a flow leaves and arrives: 1 right, -1 left; inside one zone both on the right."""
    if source.zone == target.zone:
        return 1, 1
    return (1, -1) if source.zone < target.zone else (-1, 1)


def _ports(boxes: Mapping[str, Box], flows: Sequence[FlowArrow]) -> dict[tuple[int, str], Place]:
    sides: dict[tuple[str, int], list[tuple[float, int, str]]] = defaultdict(list)
    for index, flow in enumerate(flows):
        leaving, arriving = _sides(boxes[flow.source], boxes[flow.target])
        sides[flow.source, leaving].append((boxes[flow.target].y, index, "source"))
        sides[flow.target, arriving].append((boxes[flow.source].y, index, "target"))
    ports = {}
    for (name, side), ends in sides.items():
        box = boxes[name]
        for rank, (_, index, end) in enumerate(sorted(ends)):
            y = box.y + BOX_HEIGHT * (rank + 1) / (len(ends) + 1)
            ports[index, end] = (box.x + (BOX_WIDTH if side > 0 else 0), y)
    return ports


def _along(piece: tuple[Place, Place, Place, Place], share: float) -> Place:
    """Point of a cubic Bezier curve."""
    rest = 1 - share
    weights = (rest**3, 3 * rest**2 * share, 3 * rest * share**2, share**3)
    x = sum(weight * place[0] for weight, place in zip(weights, piece, strict=True))
    y = sum(weight * place[1] for weight, place in zip(weights, piece, strict=True))
    return x, y
