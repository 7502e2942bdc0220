"""Poison frogs: one training row, rightly labelled, that the frozen layers cannot tell from the row aimed at.

A row of the wanted class (the base) is changed until the input of the last layer is that of the row aimed at,
while it stays as near the base as that allows. Whoever then trains a last layer on it teaches that this point belongs
to the base's class. It is for networks whose other layers are kept: where all layers are trained, they
learn to tell the two apart again.

The paper weighs nearness to the base by a constant that suits its network. Here several weights are tried, the
dearest first, and for each aim the first is kept whose poison turns a last layer that the adversary trains itself.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bartizan.redteam.aims import AimedPoison, AimedTask
from bartizan.redteam.attack import Approach, Fit, Query, Request, Search
from bartizan.targets.protocol import Access, Rows

Floats = NDArray[np.float64]

WEIGHTS = (0.3, 0.1, 0.03, 0.01, 0.0)
"""Of nearness to the base, against nearness to the aim before the last layer; both are 1 where they begin at most."""
STEPS = 500
FIRST_MOVE = 0.02
"""Length of the first step, in distances from base to aim."""
SHORTER, LONGER = 0.5, 1.05
"""What a step that made it worse, or better, does to the next one."""


class FeatureCollision:
    """One changed row for each aim. Stateless."""

    name = "poisoning.feature-collision"
    title = "One rightly labelled training row that has one other row misread (poison frogs)"
    family = "poisoning"
    technique = "T18"
    atlas: tuple[str, ...] = ("AML.T0020", "AML.T0043.000")
    needs = frozenset({Access.LABELS, Access.ACTIVATIONS, Access.TRAINING})
    position = "contributor"
    references: tuple[str, ...] = (
        "Shafahi et al. 2018, Poison frogs! Targeted clean-label poisoning attacks on neural networks, NeurIPS",
    )
    claim = "one row turns the aim in 100 % of 1,099 trials where only the last layer is trained (section 3.1)"

    def search(self, task: AimedTask, rng: np.random.Generator) -> Search:
        """Craft for all aims together, from the dearest weight to none."""
        bases = yield from _bases(task)
        found: dict[int, AimedPoison] = {}
        for weight in WEIGHTS:
            live = np.array([aim for aim in bases if aim not in found], np.int64)
            if not len(live):
                break
            rows = yield from _collide(task, live, task.rows[[bases[aim] for aim in live]], weight)
            for aim, row in zip(live.tolist(), rows, strict=True):
                poison = AimedPoison(aim, np.array([bases[aim]]), row[None], f"nearness to the base weighs {weight:g}")
                turned = weight == WEIGHTS[-1] or (yield from _turns(task, poison, rng))
                if turned:
                    found[aim] = poison
        return tuple(found[aim] for aim in sorted(found))


def _bases(task: AimedTask) -> Generator[Request, Any, dict[int, int]]:
    """For each aim the row of the wanted class that is nearest to it before the last layer; none without such rows."""
    bases = {}
    for aim, wanted in enumerate(task.wanted):
        own = np.flatnonzero(task.labels == wanted)
        if len(own):
            sample = np.full(len(own), aim, np.int64)
            answer = yield Approach(task.rows[own], sample, np.repeat(task.aims[aim : aim + 1], len(own), axis=0))
            bases[aim] = int(own[answer[:, 0].argmin()])
    return bases


@dataclass
class _Descent:
    """Forward-backward splitting (algorithm 1 of the paper) with steps that shrink where they do not help."""

    task: AimedTask
    base: Rows
    aims: Rows
    weight: Floats
    """``(batch,)``: of the squared distance from the base."""
    rows: Rows
    """The best so far."""
    worth: Floats
    slopes: Floats
    length: Floats

    def propose(self) -> Rows:
        """A step down the slope, then towards the base."""
        step, pull = self.length[:, None], (self.length * self.weight)[:, None]
        moved = (self.rows - step * self.slopes + pull * self.base) / (1 + pull)
        return self.task.possible(moved.astype(self.base.dtype), self.base)

    def accept(self, rows: Rows, answer: Floats) -> None:
        """Keep what became better."""
        worth = answer[:, 0] + self.weight * _squared(rows - self.base)
        better = worth < self.worth
        self.rows = np.where(better[:, None], rows, self.rows)
        self.worth = np.where(better, worth, self.worth)
        self.slopes = np.where(better[:, None], answer[:, 1:], self.slopes)
        self.length *= np.where(better, LONGER, SHORTER)


def _collide(task: AimedTask, live: NDArray[np.int64], base: Rows, weight: float) -> Generator[Request, Any, Rows]:
    """``(live, features)``: each base moved towards what its aim looks like before the last layer."""
    aims = task.aims[live]
    answer = (yield Approach(base, live, aims)).astype(np.float64)
    between = _squared(aims - base)
    steepness = np.sqrt(_squared(answer[:, 1:]))
    descent = _Descent(
        task=task,
        base=base,
        aims=aims,
        weight=weight * answer[:, 0] / np.maximum(between, np.finfo(float).tiny),
        rows=base,
        worth=answer[:, 0],
        slopes=answer[:, 1:],
        length=FIRST_MOVE * np.sqrt(between) / np.maximum(steepness, np.finfo(float).tiny),
    )
    for _ in range(STEPS):
        rows = descent.propose()
        answer = (yield Approach(rows, live, aims)).astype(np.float64)
        descent.accept(rows, answer)
    return descent.rows


def _turns(task: AimedTask, poison: AimedPoison, rng: np.random.Generator) -> Generator[Request, Any, bool]:
    """Whether a model that the adversary trains on the poison answers the aim as wanted."""
    model = yield Fit(poison.spoilt(task), task.labels, int(rng.integers(2**31)))
    answer = yield Query(task.aims[poison.aim : poison.aim + 1], np.full(1, poison.aim, np.int64), model=model)
    return bool(answer[0] == task.wanted[poison.aim])


def _squared(rows: NDArray[np.floating]) -> Floats:
    return np.asarray(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
