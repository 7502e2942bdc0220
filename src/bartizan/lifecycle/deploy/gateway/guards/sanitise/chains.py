"""Chains of transforms, from short names: ``["clip", "bit-depth:4", "median:3"]``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bartizan.core.errors import InputError
from bartizan.lifecycle.deploy.gateway.guards.sanitise.frame import Frame, Rows
from bartizan.lifecycle.deploy.gateway.guards.sanitise.general import Clip, Levels
from bartizan.lifecycle.deploy.gateway.guards.sanitise.pictures import Average, Jpeg, Median

Transform = Callable[[Rows], Rows]


@dataclass(frozen=True, slots=True)
class Kind:
    """One transform of the standard set."""

    make: Callable[[Frame, int], Transform]
    says: str
    least: int = 0
    most: int = 0
    """Bounds of the number behind its name; both 0 when it takes none."""
    images: bool | None = None
    """Whether it is for images alone (True), for tables alone (False), or for both (None)."""


KINDS = {
    "clip": Kind(lambda frame, _: Clip(frame), "values beyond their range to its end"),
    "bit-depth": Kind(lambda frame, bits: Levels(frame, 2**bits), "fewer values of each pixel", 1, 8, images=True),
    "median": Kind(Median, "each pixel to the median around it", 2, 7, images=True),
    "average": Kind(Average, "each pixel to the mean around it", 2, 7, images=True),
    "jpeg": Kind(Jpeg, "as if stored as JPEG of that quality", 1, 100, images=True),
    "quantise": Kind(Levels, "fewer values of each number, evenly over its range", 2, 65_536, images=False),
}
"""Name to what it is. Texts have a transform of their own, see ``texts``."""


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """Transforms, one after the other."""

    names: tuple[str, ...]
    steps: tuple[Transform, ...]

    def __call__(self, rows: Rows) -> Rows:
        """``(batch, features)`` to the same; nothing given is changed."""
        for step in self.steps:
            rows = step(rows)
        return rows

    @property
    def says(self) -> str:
        """The chain in a few characters."""
        return " > ".join(self.names) or "nothing"


def chain_of(names: Sequence[str], frame: Frame) -> Chain:
    """A chain for such rows.

    Raises:
        InputError: a name is none, its number is out of bounds, or it is for another kind of rows.
    """
    return Chain(tuple(names), tuple(_step(name, frame) for name in names))


def _step(name: str, frame: Frame) -> Transform:
    word, _, number = name.partition(":")
    kind = KINDS.get(word)
    if kind is None:
        raise InputError(f"no transform is called {word[:40]!r}", remedy=f"choose from: {', '.join(KINDS)}.")
    if kind.images is not None and kind.images != frame.is_image:
        rows = "images" if kind.images else "tables"
        raise InputError(f"the transform {word!r} is for {rows}", remedy="choose another one for this model.")
    if word == "clip" and not np.isfinite([frame.low, frame.high]).any():
        raise InputError("the transform 'clip' needs ranges, and none is known", remedy="declare ranges.")
    return kind.make(frame, _number(name, number, kind))


def _number(name: str, number: str, kind: Kind) -> int:
    if not kind.most:
        if number:
            raise InputError(f"{name[:40]!r} takes no number", remedy="leave it out.")
        return 0
    if not (number.isascii() and number.isdecimal() and len(number) < 6 and kind.least <= int(number) <= kind.most):  # noqa: PLR2004 - digits of the largest
        raise InputError(
            f"{name[:40]!r} needs a number from {kind.least} to {kind.most}",
            remedy=f"write it as {name.partition(':')[0]}:{kind.least}.",
        )
    return int(number)


__all__ = ["KINDS", "Chain", "Kind", "Transform", "chain_of"]
