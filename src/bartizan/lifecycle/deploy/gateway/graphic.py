"""Pictures of answers: bars of few heights, for people who want to see how sure a model is and need no numbers.

A bar has one of ``steps + 1`` heights. Answers that are alike in whole steps give the same picture byte for byte, so
that nobody can measure more out of it than half a step on average, and up to a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

MOST_BARS = 12
"""Of more classes the highest bars are drawn."""
HEIGHT, WIDTH, GAP = 120, 28, 8
MARGIN, FOOT = 10, 30
LONGEST = 12
"""Letters of a class's name that fit below its bar."""
_CHOSEN, _OTHER = "#1f4e79", "#9db4c8"


def picture(units: Sequence[int], steps: int, label: int, names: Sequence[str]) -> str:
    """An answer as SVG.

    Args:
        units: score of each class in whole steps.
        steps: steps of a bar that is as high as can be.
        label: index of the class that is answered; its bar is dark.
        names: of the classes.
    """
    drawn = _drawn(units, label)
    bars = "".join(_bar(place, units[each], steps, names[each], each == label) for place, each in enumerate(drawn))
    width, height = 2 * MARGIN + len(drawn) * (WIDTH + GAP) - GAP, HEIGHT + MARGIN + FOOT
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'
        f"<title>{escape(names[label])}</title>{bars}</svg>"
    )


def _drawn(units: Sequence[int], label: int) -> list[int]:
    """Classes in their order; of too many the highest, the label among them."""
    if len(units) <= MOST_BARS:
        return list(range(len(units)))
    order = sorted(range(len(units)), key=lambda place: (place != label, -units[place], place))
    return sorted(order[:MOST_BARS])


def _bar(place: int, units: int, steps: int, name: str, chosen: bool) -> str:
    left, height = MARGIN + place * (WIDTH + GAP), HEIGHT * units // steps
    colour = _CHOSEN if chosen else _OTHER
    short = name if len(name) <= LONGEST else name[: LONGEST - 1] + "\u2026"
    return (
        f'<rect x="{left}" y="{MARGIN + HEIGHT - height}" width="{WIDTH}" height="{height}" fill="{colour}"/>'
        f'<text x="{left + WIDTH // 2}" y="{MARGIN + HEIGHT + 16}" font-size="9" text-anchor="middle">'
        f"{escape(short)}</text>"
    )


__all__ = ["HEIGHT", "picture"]
