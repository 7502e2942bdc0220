"""Images before and after an attack, and what was changed: clean, attacked, difference side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from bartizan.assurance.figures import svg
from bartizan.assurance.figures.png import Pixel, data_uri
from bartizan.assurance.model import Pair, Pictures
from bartizan.assurance.text import number

NOTHING: Pixel = (247, 247, 247)
DARKER: Pixel = (33, 102, 172)
"""Blue: the attack made the pixel darker."""
BRIGHTER: Pixel = (178, 87, 9)
"""Orange: the attack made it brighter. Blue and orange stay apart for colour-blind readers."""
SIDE = 112
"""Least pixels of a page that an image is shown with."""
LEVELS = 255


@dataclass(frozen=True, slots=True)
class Panel:
    """One drawn image with its words."""

    kind: str
    """``clean``, ``attacked`` or ``difference``."""
    image: Markup


def triples(pictures: Pictures) -> tuple[tuple[Pair, tuple[Panel, ...]], ...]:
    """Each pair with its three panels. All differences of a measurement are on one scale, ``scale``."""
    most = scale(pictures)
    return tuple((pair, tuple(_panels(pair, pictures, most))) for pair in pictures.pairs)


def scale(pictures: Pictures) -> float:
    """The largest change of a pixel in any of the pairs, in levels of 255, colours taken together."""
    changes = (abs(change) for pair in pictures.pairs for change in _changes(pair, pictures.shape))
    return max(changes, default=0.0)


def _panels(pair: Pair, pictures: Pictures, most: float) -> list[Panel]:
    shape = pictures.shape
    moved = sum(change != 0 for change in _changes(pair, shape))
    words = {
        "clean": f"record {pair.record} as it is, {pair.label}, answered {pair.answer_clean}",
        "attacked": f"record {pair.record} after the attack, answered {pair.answer_attacked}",
        "difference": f"difference: {moved} of {shape[1] * shape[2]} pixels changed, "
        f"by at most {number(max((abs(c) for c in _changes(pair, shape)), default=0.0) / LEVELS)} of the range",
    }
    drawn = {
        "clean": _pixels(pair.clean, shape),
        "attacked": _pixels(pair.attacked, shape),
        "difference": _difference(pair, shape, most),
    }
    return [Panel(kind, _image(drawn[kind], words[kind], shape)) for kind in drawn]


def _image(pixels: Sequence[Sequence[Pixel]], words: str, shape: tuple[int, int, int]) -> Markup:
    _, height, width = shape
    factor = max(1, SIDE // max(height, width))
    return svg.element(
        "img", src=data_uri(pixels), alt=words, width=width * factor, height=height * factor, class_="pixels"
    )


def _pixels(levels: Sequence[int], shape: tuple[int, int, int]) -> list[list[Pixel]]:
    channels, height, width = shape
    plane = height * width
    return [
        [tuple(levels[c * plane + y * width + x] for c in range(channels)) for x in range(width)] for y in range(height)
    ]


def _difference(pair: Pair, shape: tuple[int, int, int], most: float) -> list[list[Pixel]]:
    _, height, width = shape
    changes = _changes(pair, shape)
    return [[_signed(changes[y * width + x] / (most or 1.0)) for x in range(width)] for y in range(height)]


def _changes(pair: Pair, shape: tuple[int, int, int]) -> list[float]:
    """Change of each pixel in levels: of its colours, the one that changed most."""
    channels, height, width = shape
    plane = height * width
    return [
        max((float(pair.attacked[c * plane + at] - pair.clean[c * plane + at]) for c in range(channels)), key=abs)
        for at in range(plane)
    ]


def _signed(share: float) -> Pixel:
    """A colour for a change from -1 to 1: the farther from 0, the farther from paper."""
    end = BRIGHTER if share > 0 else DARKER
    weight = min(1.0, abs(share))
    return tuple(round(rest + (full - rest) * weight) for rest, full in zip(NOTHING, end, strict=True))
