"""What is served under one name: the door with the model behind it, and what answers when the door is shut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from bartizan.lifecycle.deploy.gateway.guard import Answer, Numbers
from bartizan.lifecycle.deploy.gateway.model_settings import MODEL, RULE, ModelSettings
from bartizan.lifecycle.deploy.gateway.protocol import Description
from bartizan.lifecycle.deploy.gateway.schedule import Door, Served


class Lane:
    """One declared model on its way to whoever asks."""

    def __init__(self, name: str, door: Door, settings: ModelSettings | None = None) -> None:
        self.name, self.door = name, door
        self.settings = settings or ModelSettings()


class Lanes:
    """Every model that is served, by the name and version that clients know."""

    def __init__(self, lanes: Mapping[str, Lane]) -> None:
        self._lanes = dict(lanes)
        self._known: dict[str, list[Lane]] = {}
        self.arrange()

    def arrange(self) -> None:
        """Find out anew who is served as what: settings may have changed."""
        known: dict[str, list[Lane]] = {}
        for lane in self._lanes.values():
            known.setdefault(lane.settings.serve_as or lane.name, []).append(lane)
        for name, lanes in known.items():
            lanes.sort(key=lambda lane: lane.name != name)
        self._known = known

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes.values())

    @property
    def names(self) -> tuple[str, ...]:
        """As clients know them."""
        return tuple(self._known)

    def only(self) -> str:
        """Name of the only model; empty when there are several."""
        return next(iter(self._known)) if len(self._known) == 1 else ""

    def find(self, name: str, version: str = "") -> Lane | None:
        """The model of that name, in the newest version or the one that is asked for."""
        lanes = self._known.get(name)
        if not lanes:
            return None
        if not version:
            return lanes[0]
        bare = version.removeprefix("sha256:")
        return next((lane for lane in lanes if bare in {lane.door.digest, lane.settings.version} - {""}), None)

    def named(self, name: str) -> Lane | None:
        """The declared model of that name, whatever clients call it."""
        return self._lanes.get(name)

    def versions(self, name: str) -> list[str]:
        """Digests of every version that can be asked for."""
        return [lane.door.digest for lane in self._known.get(name, ()) if lane.door.digest]

    def standing_in(self, lane: Lane) -> Served | None:
        """What answers in the place of a model whose door is shut; None when nothing does."""
        fallback, last = lane.settings.fallback, lane.door.last
        if fallback.startswith(MODEL):
            other = self._lanes.get(fallback.removeprefix(MODEL))
            return other.door.served if other else None
        if fallback.startswith(RULE) and last is not None:
            return Served(last, Constant(last, last.classes.index(fallback.removeprefix(RULE))))
        return None


class Constant:
    """Answers one class, whatever it is asked: the rule that stands in for a model. See ``hosting.Host``."""

    scored = False
    alive = True

    def __init__(self, described: Description, label: int) -> None:
        self.dtype, self.features, self.classes = np.dtype(described.dtype), described.features, len(described.classes)
        self._label = label

    def answer(self, rows: Numbers, *, scores: bool) -> Answer:
        """See ``Host.answer``."""
        del scores  # it has none
        return Answer(np.full(len(rows), self._label, dtype=np.int64), source="fallback")

    def close(self) -> None:
        """There is nothing to let go of."""


__all__ = ["Constant", "Lane", "Lanes"]
