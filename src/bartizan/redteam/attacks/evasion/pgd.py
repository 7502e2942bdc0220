"""PGD: evasion by an adversary who has gradients."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import BudgetError, InputError
from bartizan.redteam.attack import Gradient, Search
from bartizan.redteam.ball import FLAT, STEPPED, Ball
from bartizan.redteam.closest import Closest
from bartizan.redteam.objective import slopes
from bartizan.redteam.tasks import EvasionTask
from bartizan.targets.protocol import NEEDS_TARGETS, Access, Loss, Rows

Samples = NDArray[np.int64]
Slopes = NDArray[np.floating]

LEAST = 10
"""Steps that a climb needs to come to an end."""


class PGD:
    """Climb a loss by projected steps, from random starts; samples that are fooled leave the batch.

    The first step is as long as the largest change that counts, and steps fall to 0 along half a cosine
    (Loshchilov and Hutter 2017): long ones cross to other sides of the ball, short ones settle there. Halfway it
    begins anew elsewhere. With as many gradients this breaks more than one climb with steps of one size, which is
    what was published and ``PGD(step_size=1 / 10, falling=False, climbs=1)`` is.

    Steps follow the sign of the gradient under Linf, its direction under L2, and its largest entries
    under L1. Costs ``steps`` gradients, times ``draws``, for each restart and sample that still stands.
    """

    name = "evasion.pgd"
    title = "PGD: climbs the loss within bounds, with gradients"
    family = "evasion"
    technique = "T06"
    atlas: tuple[str, ...] = ("AML.T0043.000", "AML.T0042", "AML.T0015")
    needs: frozenset[Access] = frozenset({Access.LABELS, Access.GRADIENTS})
    norms = STEPPED
    position = "user"
    least = 10
    references: tuple[str, ...] = (
        "Madry et al.: Towards deep learning models resistant to adversarial attacks. ICLR 2018, arXiv:1706.06083",
        "Dong et al.: Boosting adversarial attacks with momentum. CVPR 2018, arXiv:1710.06081",
        "Lin et al.: Nesterov accelerated gradient and scale invariance. ICLR 2020, arXiv:1908.06281",
        "Athalye et al.: Synthesizing robust adversarial examples. ICML 2018, arXiv:1707.07397",
        "Loshchilov, Hutter: SGDR, stochastic gradient descent with warm restarts. ICLR 2017, arXiv:1608.03983",
        "Tramer, Boneh: Adversarial training for multiple perturbations. NeurIPS 2019, arXiv:1904.13000",
    )

    def __init__(
        self,
        *,
        steps: int = 40,
        restarts: int = 1,
        step_size: float = 1.0,
        falling: bool = True,
        climbs: int = 2,
        loss: Loss = Loss.CROSS_ENTROPY,
        momentum: float = 0.0,
        nesterov: bool = False,
        draws: int = 1,
        random_start: bool = True,
    ) -> None:
        if loss in NEEDS_TARGETS:
            raise InputError(f"PGD climbs away from the true class, and the loss {loss} needs a class to aim at")
        self.steps, self.restarts, self.loss, self.random_start = steps, restarts, loss, random_start
        self.step_size = step_size
        """The first, as a part of the largest change that counts."""
        self.falling = falling
        """Whether later steps are smaller, or all of one size."""
        self.climbs = climbs
        """From how many random starts the steps are taken, at least ten from each; one without ``random_start``."""
        self.momentum = momentum
        """How much of the gradients so far is kept, each divided by its mean size; 0 is plain PGD, 1 is MI-FGSM."""
        self.nesterov = nesterov
        """Take the gradient where momentum alone would lead."""
        self.draws = draws
        """Gradients averaged for a step, for victims that answer at random (expectation over transformation)."""

    def search(self, task: EvasionTask, rng: np.random.Generator) -> Search:
        """See ``Attack.search``."""
        closest = Closest(task)
        standing = np.arange(len(task.rows))
        try:
            for steps in self._parts() * self.restarts:
                standing = yield from self._climb(task, rng, closest, standing, steps)
        except BudgetError:
            pass
        return closest.rows

    def _parts(self) -> list[int]:
        """Steps of each climb: where one ends costs a gradient as well, and all cost no more than one climb."""
        parts = min(self.climbs, (self.steps + 1) // LEAST) if self.random_start else 1
        return [len(part) - 1 for part in np.array_split(np.arange(self.steps + 1), max(1, parts))]

    def _climb(
        self, task: EvasionTask, rng: np.random.Generator, closest: Closest, sample: Samples, steps: int
    ) -> Generator[Gradient, Slopes, Samples]:
        """One climb; returns the samples that still stand."""
        ball = Ball(task, sample)
        rows = ball.anywhere(rng) if self.random_start else ball.origin.copy()
        velocity = np.zeros_like(rows) if self.momentum else None
        for step in range(steps + 1):
            if not sample.size:
                break
            size = self._size(step, steps)
            place = self._looked_at(ball, rows, velocity, size)
            logits, gradient = yield from slopes(task, sample, place, self.loss, draws=self.draws)
            fooled = logits.argmax(axis=1) != task.labels[sample]
            if fooled.any():
                closest.offer(sample[fooled], place[fooled])
                stays = ~fooled
                sample, rows, gradient = sample[stays], rows[stays], gradient[stays]
                velocity = None if velocity is None else velocity[stays]
                ball.keep(stays)
            if step < steps:
                if velocity is not None:
                    velocity *= self.momentum
                    velocity += _unit(gradient)
                rows = _moved(ball, rows, gradient if velocity is None else velocity, size)
        return sample

    def _looked_at(self, ball: Ball, rows: Rows, velocity: Rows | None, size: float) -> Rows:
        """Where the gradient is taken; at the end, where there is no further step, at the rows themselves."""
        if not self.nesterov or velocity is None or not size:
            return rows
        return _moved(ball, rows, self.momentum * velocity, size)

    def _size(self, step: int, steps: int) -> float:
        """Length of a step, as a part of the radius; 0 where there is none."""
        if step == steps:
            return 0.0
        return self.step_size * (np.cos(np.pi * step / steps) + 1) / 2 if self.falling else self.step_size


def _moved(ball: Ball, rows: Rows, gradient: Slopes, size: float) -> Rows:
    step = ball.steepest(gradient, rows)
    step *= np.asarray(size * ball.radius, dtype=rows.dtype)
    step += rows
    return ball.inside(step)


def _unit(gradient: Slopes) -> Slopes:
    """The gradient over its mean size, which keeps it apart from how sure the victim is."""
    size = np.abs(gradient).mean(axis=1, keepdims=True, dtype=np.float64)
    return np.asarray(gradient / np.maximum(size, FLAT).astype(gradient.dtype))
