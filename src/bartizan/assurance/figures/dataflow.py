"""The data flow: components as boxes inside their trust zones, numbered arrows between them."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from bartizan.assurance.figures import svg
from bartizan.assurance.figures.routes import (
    BOX_HEIGHT,
    BOX_WIDTH,
    DISC,
    PITCH,
    ZONE_GAP,
    ZONE_HEAD,
    ZONE_PAD,
    ZONE_WIDTH,
    Box,
    Course,
    Place,
    courses,
    layout,
    numbers,
    zones,
)
from bartizan.assurance.model import ComponentBox, FlowArrow
from bartizan.assurance.text import counted

NAME_CHARACTERS, ZONE_CHARACTERS = 20, 24


def dataflow(components: Sequence[ComponentBox], flows: Sequence[FlowArrow]) -> Markup:
    """The picture of the declared data flow."""
    by_zone = zones(components, flows)
    boxes = layout(by_zone)
    tallest = max((len(members) for members in by_zone.values()), default=1)
    height = ZONE_HEAD + tallest * PITCH + 14
    drawn = [flow for flow in flows if flow.source in boxes and flow.target in boxes]
    ways = courses(boxes, drawn)
    edges = [x + DISC for way in ways for x, _ in way.places()]
    width = max([len(by_zone) * (ZONE_WIDTH + ZONE_GAP) - ZONE_GAP, *edges]) + 4
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
        *(_arrow(flow, way) for flow, way in zip(drawn, ways, strict=True)),
        *(_box(component, boxes[component.name]) for component in components),
        *(_number(flow, place) for flow, place in zip(drawn, numbers(ways, boxes), strict=True)),
        class_="dataflow",
    )


def _zone(index: int, name: str, height: float) -> Markup:
    x = 2 + index * (ZONE_WIDTH + ZONE_GAP)
    frame = svg.element("rect", x=x, y=2, width=ZONE_WIDTH, height=height - 4, rx=6, class_="zone")
    return svg.group(frame, svg.text(x + ZONE_PAD, 21, _shorten(name, ZONE_CHARACTERS), class_="zone-name"))


def _box(component: ComponentBox, box: Box) -> Markup:
    frame = svg.element("rect", x=box.x, y=box.y, width=BOX_WIDTH, height=BOX_HEIGHT, rx=4, class_="component")
    name = svg.text(box.x + 10, box.y + 21, _shorten(component.name, NAME_CHARACTERS), class_="component-name")
    holds = f" · {component.asset}" if component.asset else ""
    shown = _shorten(f"{component.kind}{holds}", NAME_CHARACTERS + 2)
    kind = svg.text(box.x + 10, box.y + 39, shown, class_="component-kind")
    return svg.group(svg.element("title", f"{component.name} ({component.kind})"), frame, name, kind)


def _arrow(flow: FlowArrow, way: Course) -> Markup:
    return svg.element("path", d=way.path(), class_="flow bare" if _bare(flow) else "flow", marker_end="url(#f-arrow)")


def _number(flow: FlowArrow, place: Place) -> Markup:
    x, y = place
    disc = svg.element("circle", cx=x, cy=y, r=DISC, class_="flow-disc bare" if _bare(flow) else "flow-disc")
    return svg.group(disc, svg.text(x, y + 4, str(flow.number), class_="flow-number", anchor="middle"))


def _bare(flow: FlowArrow) -> bool:
    """Whether it crosses into another zone without any declared protection."""
    return flow.crosses and not flow.protected_by


def _arrowhead() -> Markup:
    head = svg.element("path", d="M0 0L8 4L0 8Z", class_="arrowhead")
    marker = svg.element(
        "marker",
        head,
        id="f-arrow",
        viewBox="0 0 8 8",
        refX=8,
        refY=4,
        markerWidth=10,
        markerHeight=10,
        markerUnits="userSpaceOnUse",
        orient="auto",
    )
    return svg.element("defs", marker)


def _shorten(name: str, limit: int) -> str:
    return name if len(name) <= limit else f"{name[: limit - 1]}…"
