"""APGD: evasion by an adversary who has gradients and need not choose a step size."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import BudgetError, InputError
from bartizan.redteam.attack import Search
from bartizan.redteam.ball import STEPPED, Ball
from bartizan.redteam.closest import Closest
from bartizan.redteam.objective import runners_up, slopes, values
from bartizan.redteam.tasks import EvasionTask
from bartizan.targets.feasible import TOLERANCE
from bartizan.targets.protocol import LEAST_CLASSES, NEEDS_TARGETS, Access, Labels, Loss, Rows

Samples = NDArray[np.int64]
Sizes = NDArray[np.float64]
Mask = NDArray[np.bool_]
Asking = Generator[Any, Any, None]

FIRST_CHECK, CHECKS_CLOSER, LEAST_CHECK = 0.22, 0.03, 0.06
"""Parts of the steps: until the first check of the step size, by how much each next one comes sooner, and at least."""
RISES = 0.75
"""Share of the steps since the last check that must have raised the loss, else the step is halved."""
KEPT = 0.75
"""Weight of the new step against the last one."""
WIDER = ((3.0, 0.3), (2.0, 0.3), (1.0, 0.4))
"""Under L1: radii, as multiples, and the parts of the steps that are taken in each (Croce and Hein 2021)."""
SPARSE_CHECK, SPARSE_SHRINK, SPARSE_LEAST = 0.04, 1.5, 10.0
"""Under L1: part of the steps between checks, divisor of step and density, and how often steps get smaller at most."""
FIRST_DENSITY = 0.2
"""Under L1: share of the features that the first steps move."""
SETTLED = 0.95
"""Under L1: a change with fewer than this part of the features as before goes on with full steps."""
ROWS = 1024
"""Rows that climb together: as many targets or restarts as fill them are tried at once, so that the batches of a
few stubborn samples do not become tiny."""


class APGD:
    """Climb a loss with momentum and steps that are halved wherever progress stalls, going on from the best row.

    The step size starts at twice the radius; nothing is left to choose but the loss. With ``targets``, each
    sample is driven towards that many other classes, the likeliest first. A sample leaves as soon as it is
    fooled. Costs up to ``steps + 1`` gradients for each restart or target and sample that still stands.

    Under L1 (Croce and Hein 2021) the radius comes down from three times its size and steps move as many features
    as the best change so far suggests.

    Against the paper: samples leave when they are fooled, and where few are left, their restarts or targets
    climb in one batch. Neither changes what a row's climb does.
    """

    name = "evasion.apgd"
    title = "APGD: climbs the loss within bounds, with gradients and steps that adapt"
    family = "evasion"
    technique = "T06"
    atlas: tuple[str, ...] = ("AML.T0043.000", "AML.T0042", "AML.T0015")
    needs: frozenset[Access] = frozenset({Access.LABELS, Access.GRADIENTS})
    norms = STEPPED
    position = "user"
    least = 20
    references: tuple[str, ...] = (
        "Croce, Hein: Reliable evaluation of adversarial robustness. ICML 2020, arXiv:2003.01690",
        "Croce, Hein: Mind the box, l1-APGD for sparse adversarial attacks. ICML 2021, arXiv:2103.01208",
    )

    def __init__(
        self,
        *,
        loss: Loss = Loss.CROSS_ENTROPY,
        steps: int = 100,
        restarts: int = 1,
        targets: int = 0,
        draws: int = 1,
        rows_at_once: int = ROWS,
    ) -> None:
        if (loss in NEEDS_TARGETS) != bool(targets):
            raise InputError(
                f"the loss {loss} {'needs' if loss in NEEDS_TARGETS else 'knows no'} classes to aim at",
                remedy="give targets for towards, difference and dlr_towards, and for no other loss.",
            )
        self.loss, self.steps, self.restarts, self.targets, self.draws = loss, steps, restarts, targets, draws
        self.rows_at_once = rows_at_once

    def search(self, task: EvasionTask, rng: np.random.Generator) -> Search:
        """See ``Attack.search``."""
        closest = Closest(task)
        with suppress(BudgetError):
            yield from self._everything(task, rng, closest)
        return closest.rows

    def _everything(self, task: EvasionTask, rng: np.random.Generator, closest: Closest) -> Asking:
        loss = self.fitting_loss(task.classes)
        aims = (yield from self._aims(task)) if self.targets else None
        variants = self.restarts * (1 if aims is None else aims.shape[1])
        for chunk in _chunks(np.arange(len(task.rows)), self.rows_at_once):
            standing, tried = chunk, 0
            while standing.size and tried < variants:
                # The first kills most where the victim is weak; what is left over shares its batches.
                together = min(variants - tried, max(1, self.rows_at_once // len(standing))) if tried else 1
                order = np.arange(tried, tried + together) // self.restarts
                sample = np.repeat(standing, together)
                aimed = None if aims is None else aims[sample, np.tile(order, len(standing))]
                climb = _Climb(task, sample, aimed, loss, closest)
                yield from climb.through(self.steps, self.draws, rng)
                standing = chunk[closest.change[chunk] > task.max_change * (1 + TOLERANCE)]
                tried += together

    def _aims(self, task: EvasionTask) -> Generator[Any, Any, Labels]:
        """The classes that each sample is driven towards: the likeliest others of the untouched row."""
        logits, _ = yield from slopes(task, np.arange(len(task.rows)), task.rows, Loss.MARGIN, draws=self.draws)
        return runners_up(logits, task.labels, self.targets)

    def fitting_loss(self, classes: int) -> Loss:
        """The loss, or its nearest kin where it needs more classes than there are."""
        if classes >= LEAST_CLASSES.get(self.loss, 2):
            return self.loss
        return Loss.DIFFERENCE if self.targets else Loss.MARGIN


class _Climb:
    """Rows that climb in lock-step; a sample may have several."""

    def __init__(self, task: EvasionTask, sample: Samples, aimed: Labels | None, loss: Loss, closest: Closest) -> None:
        self.task, self.sample, self.aimed, self.loss, self.closest = task, sample, aimed, loss, closest
        self.ball = Ball(task, sample, task.max_change)
        self.here: Rows = np.empty(0)
        self.before: Rows = np.empty(0)
        self.gradient: NDArray[np.floating] = np.empty(0)
        self.value: Sizes = np.empty(0)
        self.best: Rows = np.empty(0)
        self.best_gradient: NDArray[np.floating] = np.empty(0)
        self.best_value: Sizes = np.empty(0)

    def through(self, steps: int, draws: int, rng: np.random.Generator) -> Asking:
        """The whole climb."""
        if self.task.norm != 1:
            self.here = self.ball.anywhere(rng)
            yield from self.look(draws, first=True)
            yield from _Halving(self, steps).climb(draws)
            return
        for wider, part in WIDER:
            self.ball = Ball(self.task, self.sample, wider * self.task.max_change)
            self.here = self.ball.inside(self.best) if len(self.best) else self.ball.anywhere(rng)
            yield from self.look(draws, first=True)
            first = wider == WIDER[0][0]
            yield from _Sparsening(self, int(np.ceil(part * steps)), known=not first).climb(draws)

    def look(self, draws: int, *, first: bool = False) -> Generator[Any, Any, Mask]:
        """Ask for loss and slope where the rows are, and take note; returns which rows are left."""
        task = self.task
        logits, self.gradient = yield from slopes(
            task, self.sample, self.here, self.loss, targets=self.aimed, draws=draws
        )
        self.value = values(logits, self.loss, task.labels[self.sample], self.aimed)
        if first:
            self.before, self.best = self.here, self.here.copy()
            self.best_gradient, self.best_value = self.gradient.copy(), self.value.copy()
        else:
            better = self.value > self.best_value
            self.best[better], self.best_gradient[better] = self.here[better], self.gradient[better]
            self.best_value[better] = self.value[better]
        return self._left(logits.argmax(axis=1) != task.labels[self.sample])

    def _left(self, fooled: Mask) -> Mask:
        """Let samples go that were fooled within the bound, with all of their rows."""
        left = np.ones(len(fooled), dtype=np.bool_)
        if fooled.any():
            self.closest.offer(self.sample[fooled], self.here[fooled])
            left = self.closest.change[self.sample] > self.task.max_change * (1 + TOLERANCE)
            if not left.all():
                self._keep(left)
        return left

    def _keep(self, left: Mask) -> None:
        self.ball.keep(left)
        self.sample = self.sample[left]
        self.aimed = None if self.aimed is None else self.aimed[left]
        for name in ("here", "before", "gradient", "value", "best", "best_gradient", "best_value"):
            setattr(self, name, getattr(self, name)[left])

    def go_back(self, back: Mask) -> None:
        """Let some rows go on from the best place they have seen."""
        if back.any():
            self.here = np.where(back[:, None], self.best, self.here)
            self.gradient = np.where(back[:, None], self.best_gradient, self.gradient)


class _Halving:
    """Steps of an APGD under Linf or L2."""

    def __init__(self, climb: _Climb, steps: int) -> None:
        self.climbing, self.steps = climb, steps
        count = len(climb.sample)
        self.size: Sizes = np.full(count, 2.0 * climb.ball.radius)
        self.rises: Samples = np.zeros(count, dtype=np.int64)
        self.halved: Mask = np.ones(count, dtype=np.bool_)
        """Whether the last check halved the step; the first check has none before it."""
        self.value_then: Sizes = climb.best_value.copy()
        """Best loss at the last check."""

    def climb(self, draws: int) -> Asking:
        climb, checks = self.climbing, _checks(self.steps)
        since = 0
        for step in range(self.steps):
            if not climb.sample.size:
                return
            last = climb.value
            self._move(fresh=step == 0)
            left = yield from climb.look(draws)
            self._keep(left)
            self.rises += climb.value > last[left]
            since += 1
            if step + 1 in checks:
                self._check(since)
                since = 0

    def _move(self, *, fresh: bool) -> None:
        climb, ball = self.climbing, self.climbing.ball
        size = self.size.astype(climb.here.dtype)[:, None]
        step = ball.steepest(climb.gradient, climb.here)
        step *= size
        step += climb.here
        moved = ball.inside(step)
        if not fresh:
            # The new step and the last one, from where the row stands.
            moved *= KEPT
            moved += (2 - 2 * KEPT) * climb.here
            moved -= (1 - KEPT) * climb.before
            moved = ball.inside(moved)
        climb.before, climb.here = climb.here, moved

    def _keep(self, left: Mask) -> None:
        if not left.all():
            self.size, self.rises, self.halved = self.size[left], self.rises[left], self.halved[left]
            self.value_then = self.value_then[left]

    def _check(self, since: int) -> None:
        """Halve the step where too few steps raised the loss, or none did although the step was kept last time."""
        climb = self.climbing
        stalled = self.rises <= RISES * since
        stalled |= ~self.halved & (climb.best_value <= self.value_then)
        self.size[stalled] /= 2
        climb.go_back(stalled)
        self.halved, self.value_then = stalled, climb.best_value.copy()
        self.rises[:] = 0


class _Sparsening:
    """Steps of an APGD under L1."""

    def __init__(self, climb: _Climb, steps: int, *, known: bool) -> None:
        self.climbing, self.steps = climb, steps
        count, features = climb.here.shape
        self.size: Sizes = np.full(count, climb.ball.radius)
        self.changed: Sizes = _changed(climb.here, climb.ball) if known else np.full(count, float(features))
        """Features that the best change touched at the last check."""
        density = self.changed / features / SPARSE_SHRINK
        self.density: Sizes = density if known else np.full(count, FIRST_DENSITY)

    def climb(self, draws: int) -> Asking:
        climb, every = self.climbing, max(int(SPARSE_CHECK * self.steps), 1)
        for step in range(self.steps):
            if not climb.sample.size:
                return
            self._move()
            left = yield from climb.look(draws)
            self.size, self.changed, self.density = self.size[left], self.changed[left], self.density[left]
            if (step + 1) % every == 0:
                self._check()

    def _move(self) -> None:
        climb, ball = self.climbing, self.climbing.ball
        step = ball.steepest(climb.gradient, climb.here, self.density)
        step *= self.size.astype(climb.here.dtype)[:, None]
        step += climb.here
        climb.before, climb.here = climb.here, ball.inside(step)

    def _check(self) -> None:
        climb = self.climbing
        now, radius = _changed(climb.best, climb.ball), climb.ball.radius
        sparser = now < SETTLED * self.changed
        self.density = now / climb.best.shape[1] / SPARSE_SHRINK
        self.size = np.where(sparser, radius, np.maximum(self.size / SPARSE_SHRINK, radius / SPARSE_LEAST))
        self.changed = now
        climb.go_back(sparser)


def _checks(steps: int) -> frozenset[int]:
    """After which steps the step size is checked."""
    gap = max(int(FIRST_CHECK * steps), 1)
    at, marks = 0, set()
    while at + gap <= steps:
        at += gap
        marks.add(at)
        gap = max(gap - max(int(CHECKS_CLOSER * steps), 1), int(LEAST_CHECK * steps), 1)
    return frozenset(marks)


def _changed(rows: Rows, ball: Ball) -> Sizes:
    """How many features of each row differ from its sample's."""
    return np.asarray((rows != ball.origin).sum(axis=1), dtype=np.float64)


def _chunks(sample: Samples, size: int) -> Iterator[Samples]:
    yield from (sample[at : at + size] for at in range(0, len(sample), size))
