"""The data flow: components as boxes inside their trust zones, numbered arrows between them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from bartizan.assurance.figures import svg
from bartizan.assurance.model import ComponentBox, FlowArrow
from bartizan.assurance.text import counted

BOX_WIDTH, BOX_HEIGHT, BOX_GAP = 164, 50, 34
ZONE_PAD, ZONE_GAP, ZONE_HEAD = 18, 84, 30
INNER_REACH, INNER_STEP = 32, 30
"""Flows inside a zone bend out by this much, each further than the one before, so that numbers stay apart."""
NAME_CHARACTERS, ZONE_CHARACTERS = 24, 27


@dataclass(frozen=True, slots=True)
class Box:
    """Where a component is drawn."""

    zone: int
    x: float
    y: float


Place = tuple[float, float]


def zones(components: Sequence[ComponentBox]) -> dict[str, list[ComponentBox]]:
    """Components by trust zone, both in the order of the declaration."""
    found: dict[str, list[ComponentBox]] = {}
    for component in components:
        found.setdefault(component.zone, []).append(component)
    return found


def dataflow(components: Sequence[ComponentBox], flows: Sequence[FlowArrow]) -> Markup:
    """The picture of the declared data flow."""
    by_zone = zones(components)
    boxes = _layout(by_zone)
    tallest = max((len(members) for members in by_zone.values()), default=1)
    width = len(by_zone) * (BOX_WIDTH + 2 * ZONE_PAD) + max(0, len(by_zone) - 1) * ZONE_GAP + 4
    height = ZONE_HEAD + tallest * (BOX_HEIGHT + BOX_GAP) + 8
    drawn = [flow for flow in flows if flow.source in boxes and flow.target in boxes]
    crossing = sum(flow.crosses for flow in flows)
    description = (
        f"{counted(len(components), 'component')} in {counted(len(by_zone), 'trust zone')}, "
        f"{counted(len(flows), 'flow')}, of which {crossing} cross a trust boundary. "
        "The list beneath names every flow."
    )
    return svg.picture(
        "dataflow",
        (width, height),
        "Data flow and trust zones",
        description,
        _arrowhead(),
        *(_zone(index, name, height) for index, name in enumerate(by_zone)),
        *_arrows(boxes, drawn),
        *(_box(component, boxes[component.name]) for component in components),
        *_numbers(boxes, drawn),
        class_="dataflow",
    )


def _layout(by_zone: Mapping[str, Sequence[ComponentBox]]) -> dict[str, Box]:
    boxes = {}
    for index, members in enumerate(by_zone.values()):
        x = 2 + index * (BOX_WIDTH + 2 * ZONE_PAD + ZONE_GAP) + ZONE_PAD
        for row, component in enumerate(members):
            boxes[component.name] = Box(index, x, ZONE_HEAD + BOX_GAP / 2 + row * (BOX_HEIGHT + BOX_GAP))
    return boxes


def _zone(index: int, name: str, height: float) -> Markup:
    x = 2 + index * (BOX_WIDTH + 2 * ZONE_PAD + ZONE_GAP)
    frame = svg.element("rect", x=x, y=2, width=BOX_WIDTH + 2 * ZONE_PAD, height=height - 4, rx=6, class_="zone")
    return svg.group(frame, svg.text(x + ZONE_PAD, 21, _shorten(name, ZONE_CHARACTERS), class_="zone-name"))


def _box(component: ComponentBox, box: Box) -> Markup:
    frame = svg.element("rect", x=box.x, y=box.y, width=BOX_WIDTH, height=BOX_HEIGHT, rx=4, class_="component")
    name = svg.text(box.x + 10, box.y + 21, _shorten(component.name, NAME_CHARACTERS), class_="component-name")
    holds = f" · {component.asset}" if component.asset else ""
    kind = svg.text(
        box.x + 10, box.y + 39, _shorten(f"{component.kind}{holds}", NAME_CHARACTERS + 2), class_="component-kind"
    )
    return svg.group(svg.element("title", f"{component.name} ({component.kind})"), frame, name, kind)


def _arrows(boxes: Mapping[str, Box], flows: Sequence[FlowArrow]) -> list[Markup]:
    arrows = []
    for flow, (start, bend_one, bend_two, end) in zip(flows, _courses(boxes, flows), strict=True):
        course = " ".join(svg.short(value) for place in (bend_one, bend_two, end) for value in place)
        bare = flow.crosses and not flow.protected_by
        arrows.append(
            svg.element(
                "path",
                d=f"M{svg.short(start[0])} {svg.short(start[1])}C{course}",
                class_="flow bare" if bare else "flow",
                marker_end="url(#f-arrow)",
            )
        )
    return arrows


def _numbers(boxes: Mapping[str, Box], flows: Sequence[FlowArrow]) -> list[Markup]:
    numbers = []
    for flow, course in zip(flows, _courses(boxes, flows), strict=True):
        x, y = _along(course, 0.5)
        bare = flow.crosses and not flow.protected_by
        disc = svg.element("circle", cx=x, cy=y, r=10, class_="flow-disc bare" if bare else "flow-disc")
        numbers.append(svg.group(disc, svg.text(x, y + 4, str(flow.number), class_="flow-number", anchor="middle")))
    return numbers


def _courses(boxes: Mapping[str, Box], flows: Sequence[FlowArrow]) -> list[tuple[Place, Place, Place, Place]]:
    """Bezier course of each flow; ends on the same side of a box are spread over that side."""
    ports = _ports(boxes, flows)
    courses = []
    inner: Counter[int] = Counter()
    for index, flow in enumerate(flows):
        start, end = ports[index, "source"], ports[index, "target"]
        leaving, arriving = _sides(boxes[flow.source], boxes[flow.target])
        reach = ZONE_GAP * 0.62
        if leaving == arriving:
            zone = boxes[flow.source].zone
            reach = INNER_REACH + INNER_STEP * (inner[zone] % 4)
            inner[zone] += 1
        courses.append((start, (start[0] + leaving * reach, start[1]), (end[0] + arriving * reach, end[1]), end))
    return courses


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


def _along(course: tuple[Place, Place, Place, Place], share: float) -> Place:
    """Point of a cubic Bezier curve."""
    rest = 1 - share
    weights = (rest**3, 3 * rest**2 * share, 3 * rest * share**2, share**3)
    x = sum(weight * place[0] for weight, place in zip(weights, course, strict=True))
    y = sum(weight * place[1] for weight, place in zip(weights, course, strict=True))
    return x, y


def _arrowhead() -> Markup:
    head = svg.element("path", d="M0 0L8 4L0 8Z", class_="arrowhead")
    marker = svg.element(
        "marker", head, id="f-arrow", viewBox="0 0 8 8", refX=8, refY=4, markerWidth=7, markerHeight=7, orient="auto"
    )
    return svg.element("defs", marker)


def _shorten(name: str, limit: int) -> str:
    return name if len(name) <= limit else f"{name[: limit - 1]}…"
