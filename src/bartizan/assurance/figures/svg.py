"""SVG elements as text: attributes and contents escaped, numbers short, output always the same."""

from __future__ import annotations

import re

from markupsafe import Markup, escape

Attribute = str | float | int | None
_UNSAFE_ID = re.compile(r"[^A-Za-z0-9_-]+")


def element(tag: str, *children: str | Markup, **attributes: Attribute) -> Markup:
    """One element. ``class_`` and ``stroke_width`` become ``class`` and ``stroke-width``; None is left out.

    Children that are plain text are escaped.
    """
    written = "".join(
        f' {_name(name)}="{escape(_value(value))}"' for name, value in attributes.items() if value is not None
    )
    if not children:
        return Markup(f"<{tag}{written}/>")  # noqa: S704 - the tag is ours, every value is escaped above
    inner = "".join(str(escape(child)) for child in children)
    return Markup(f"<{tag}{written}>{inner}</{tag}>")  # noqa: S704 - see above


def picture(
    name: str, size: tuple[float, float], title: str, description: str, *children: Markup, class_: str = ""
) -> Markup:
    """A whole picture of ``size`` user units, announced by its title and description.

    ``name`` must differ between the pictures of one page.
    """
    mark = identifier(name)
    return element(
        "svg",
        element("title", title, id=f"{mark}-t"),
        element("desc", description, id=f"{mark}-d"),
        *children,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {short(size[0])} {short(size[1])}",
        class_=f"figure {class_}".strip(),
        role="img",
        aria_labelledby=f"{mark}-t {mark}-d",
    )


def group(*children: Markup, class_: str | None = None) -> Markup:
    """A group of elements."""
    return element("g", *children, class_=class_) if children else Markup("")


def text(
    x: float, y: float, content: str, *, class_: str = "label", anchor: str | None = None, turn: float = 0
) -> Markup:
    """Text at a point, turned by ``turn`` degrees around it."""
    rotation = f"rotate({short(turn)} {short(x)} {short(y)})" if turn else None
    return element("text", content, x=x, y=y, class_=class_, text_anchor=anchor, transform=rotation)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def path(points: list[tuple[float, float]], class_: str, *, closed: bool = False) -> Markup:
    """A polyline through ``points``, or the area inside it."""
    corners = " L".join(f"{short(x)} {short(y)}" for x, y in points)
    return element("path", d=f"M{corners}{'Z' if closed else ''}", class_=class_)


def mark(shape: int, x: float, y: float, size: float, class_: str) -> Markup:
    """A point mark; ``shape`` tells curves apart without colour: circle, square, triangle, diamond, cross."""
    kind = shape % 5
    if kind == 0:
        return element("circle", cx=x, cy=y, r=size, class_=class_)
    if kind == 1:
        return element("rect", x=x - size, y=y - size, width=2 * size, height=2 * size, class_=class_)
    if kind == 2:  # noqa: PLR2004 - the third shape
        return path([(x, y - size * 1.3), (x + size * 1.2, y + size), (x - size * 1.2, y + size)], class_, closed=True)
    if kind == 3:  # noqa: PLR2004 - the fourth shape
        return path(
            [(x, y - size * 1.4), (x + size * 1.4, y), (x, y + size * 1.4), (x - size * 1.4, y)], class_, closed=True
        )
    return element("path", d=_cross(x, y, size * 1.1), class_=f"{class_} stroke-only")


def _cross(x: float, y: float, size: float) -> str:
    left, right, top, bottom = (short(value) for value in (x - size, x + size, y - size, y + size))
    return f"M{left} {top}L{right} {bottom}M{left} {bottom}L{right} {top}"


def identifier(name: str) -> str:
    """``name`` as an XML id."""
    return f"f-{_UNSAFE_ID.sub('-', name).strip('-') or 'x'}"


def short(value: float) -> str:
    """A coordinate with at most two decimals, without ``-0``."""
    rounded = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if rounded in {"-0", ""} else rounded


def _name(name: str) -> str:
    return name.rstrip("_").replace("_", "-")


def _value(value: str | float) -> str:
    return value if isinstance(value, str) else short(value)
