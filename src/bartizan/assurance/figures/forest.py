"""Differences of two versions as intervals around nothing: to the right what became better."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from bartizan.assurance.figures import svg
from bartizan.assurance.figures.axes import Axis
from bartizan.assurance.model import ChangeLine, Versions
from bartizan.assurance.text import counted, number, words

WIDTH = 480
LEFT, RIGHT, TOP, BOTTOM = 200, 24, 30, 46
ROW = 30
MOST_ROWS = 24
LONGEST = 30
LEAST_REACH = 0.05
_MARKS = {"no difference shown": 0, "better": 2, "worse": 3}
"""Circle, triangle, diamond: the verdict is told by shape as well as by colour."""
_CLASSES = {"no difference shown": "s5", "better": "s2", "worse": "s1"}


def drawable(versions: Versions) -> tuple[ChangeLine, ...]:
    """The differences that fit one axis: those of shares."""
    return tuple(line for line in versions.changes if not line.new.unit and not line.old.unit)[:MOST_ROWS]


def forest(versions: Versions, name: str) -> Markup:
    """The picture; ``name`` must differ between the pictures of a page."""
    lines = drawable(versions)
    bottom = TOP + ROW * len(lines)
    reach = max([LEAST_REACH, *(abs(end) for line in lines for end in (line.low, line.high))])
    axis = Axis(-reach, reach, LEFT, WIDTH - RIGHT)
    parts = [_frame(axis, bottom), *(_row(axis, line, TOP + ROW * (at + 0.5)) for at, line in enumerate(lines))]
    title = f"{versions.about}: what changed between the versions"
    return svg.picture(name, (WIDTH, bottom + BOTTOM), title, _describe(lines), *parts, class_="chart forest")


def _frame(axis: Axis, bottom: float) -> Markup:
    parts = []
    for tick in axis.ticks():
        parts.append(svg.line(axis.at(tick), TOP, axis.at(tick), bottom, "grid"))
        parts.append(svg.text(axis.at(tick), bottom + 17, number(tick), class_="tick", anchor="middle"))
    parts.append(svg.line(axis.at(0), TOP - 6, axis.at(0), bottom + 4, "axis zero"))
    parts.append(svg.text(axis.start, TOP - 12, "worse", class_="tick"))
    parts.append(svg.text(axis.end, TOP - 12, "better", class_="tick", anchor="end"))
    middle = (axis.start + axis.end) / 2
    parts.append(svg.text(middle, bottom + 38, "change, to the right what is better", anchor="middle"))
    return svg.group(*parts)


def _row(axis: Axis, line: ChangeLine, y: float) -> Markup:
    low, high = sorted((line.low * line.better, line.high * line.better))
    style = _CLASSES[line.verdict]
    label = line.check.removeprefix("redteam.")
    return svg.group(
        svg.text(0, y - 2, label if len(label) <= LONGEST else f"{label[: LONGEST - 1]}…"),
        svg.text(0, y + 11, words(line.metric)[: LONGEST + 3], class_="tick"),
        svg.path([(axis.at(low), y), (axis.at(high), y)], f"curve {style} whole"),
        svg.mark(_MARKS[line.verdict], axis.at(line.difference * line.better), y, 4.5, f"dot {style}"),
    )


def _describe(lines: Sequence[ChangeLine]) -> str:
    told = "; ".join(
        f"{line.check} {words(line.metric)}: {number(line.old.value)} before, {number(line.new.value)} now, "
        f"{line.verdict}"
        for line in lines
    )
    return f"{counted(len(lines), 'difference')} with their intervals. {told}."
