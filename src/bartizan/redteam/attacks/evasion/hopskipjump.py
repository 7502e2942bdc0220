"""HopSkipJump: evasion by an adversary who sees nothing but labels."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np

from bartizan.core.errors import BudgetError
from bartizan.redteam.asking import Asking, Samples, Sizes
from bartizan.redteam.attack import Query, Search
from bartizan.redteam.ledger import ordinals
from bartizan.redteam.tasks import EvasionTask
from bartizan.redteam.windows import is_picture
from bartizan.targets.protocol import Access, Labels, Rows

FIRST_PROBES, FIRST_PROBES_OF_PICTURES = 40, 100
"""Probes of the first estimate of a normal; the ``t``-th takes ``sqrt(t)`` times as many.

The paper takes 100, which is best for images; tables have fewer features.
"""
MEMORY = 0.8
"""Under Linf, the weight of all earlier estimates of the normal beside the new one.

Only the signs are used, and the boundary hardly turns between rounds: on MNIST the change found is a
tenth smaller. The paper forgets, which is better under L2.
"""
PROBED_AT_ONCE = 1 << 23
"""Numbers in the probes that are drawn and asked together; bounds memory."""
PROBE_RADIUS = {2.0: 0.4, np.inf: 0.8}
"""Length of a probe (L2) or of its longest step (Linf), as a share of the present change.

The paper probes much closer, which is right for smooth models. Trees are flat there: at this radius
the change found on random forests is up to 45 % smaller, and on smooth models the same.
"""
STARTS_AT_ONCE = 4
MAX_STARTS = 48
"""Own rows that are tried at most as a place to come from."""
MAX_RANDOM_STARTS = 16
"""Random rows that are tried at most when no own row fools the victim."""
LEAN = 8.0
"""Greatest exponent of a uniform number in such a row: features are often skewed, their middle is on one side."""
CUTS = 3
"""Rows between two ends that are asked at once when a boundary is narrowed down."""
STEPS = 4
"""Step lengths that are asked at once, each half as long as the one before."""
MAX_STEPS = 12


class HopSkipJump:
    """Walk along the decision boundary towards the sample, estimating the boundary's normal by probes.

    All samples walk in lock-step, so that many samples cost no more calls than one. Everything is
    done in standard deviations of each feature, and every row that is asked is a possible row.

    Against the paper: the way in starts at rows of other classes that the adversary owns, the
    nearest of each class first; searches along a line ask several places at once; under Linf earlier
    estimates of the normal are kept in mind; whole numbers are probed by rounding at random, without
    which small probes would not move them at all.
    """

    name = "evasion.hopskipjump"
    title = "HopSkipJump: the smallest change that flips the label, found from labels alone"
    family = "evasion"
    technique = "T08"
    atlas: tuple[str, ...] = ("AML.T0043.001", "AML.T0042", "AML.T0015")
    needs: frozenset[Access] = frozenset({Access.LABELS})
    norms = frozenset({np.inf, 2.0, 1.0})
    position = "user"
    least = 25
    references: tuple[str, ...] = ("Chen, Jordan, Wainwright: HopSkipJumpAttack. IEEE S&P 2020, arXiv:1904.02144",)

    def __init__(self, norm: float | None = None) -> None:
        self.norm = norm
        """2 or inf: the norm of the change that is made small; that of the task, or the nearer of both, by default."""

    def search(self, task: EvasionTask, rng: np.random.Generator) -> Search:
        """See ``Attack.search``."""
        norm = task.norm if self.norm is None else self.norm
        walk = _Walk(task, np.inf if norm == np.inf else 2.0, rng)
        try:
            yield from walk.set_out()
            while walk.live.size:
                yield from walk.hop()
        except BudgetError:
            pass
        return walk.closest.rows


class _Walk(Asking):
    """Where the samples are, and the moves they can make together."""

    def __init__(self, task: EvasionTask, norm: float, rng: np.random.Generator) -> None:
        super().__init__(task, norm)
        self.norm, self.rng, self.space = norm, rng, task.space
        self.here: Rows = task.rows.copy()
        """Where each sample stands: the closest row, or one farther off after a jump."""
        self.live: Samples = np.arange(len(task.rows))
        """Samples that still walk: something fooled the victim, it is no zero change, and queries are left."""
        self.normal: Rows = np.zeros_like(task.rows)
        """What earlier estimates of the boundary's normal said."""
        self.round = 0
        self.mobile = max(int((~self.space.immutable).sum()), 1)

    def set_out(self) -> Generator[Query, Labels, None]:
        """Find rows that fool the victim, and go from them to the nearest boundary."""
        yield from self.labels(self.live, self.task.rows)
        order = self._starts_in_order()
        for tried in range(0, min(order.shape[1], MAX_STARTS), STARTS_AT_ONCE):
            lost = self._lost()
            yield from self._come_from(lost, self.task.starts[order[lost, tried : tried + STARTS_AT_ONCE]])
        for _ in range(0, MAX_RANDOM_STARTS, STARTS_AT_ONCE):
            lost = self._lost()
            yield from self._come_from(lost, self._random_starts(len(lost)))
        self._settle()

    def _lost(self) -> Samples:
        """Samples for which nothing has fooled the victim so far."""
        return np.flatnonzero(np.isinf(self.closest.change) & (self.left > 0))

    def _random_starts(self, lost: int) -> Rows:
        """``(lost, starts, features)``: anywhere in the ranges, some rows near their low ends, some near the high."""
        shape = (lost, STARTS_AT_ONCE, len(self.space.columns))
        lean = LEAN ** self.rng.uniform(-1, 1, (lost, STARTS_AT_ONCE, 1))
        starts: Rows = self.space.low + (self.space.high - self.space.low) * self.rng.random(shape) ** lean
        return starts

    def _come_from(self, lost: Samples, starts: Rows) -> Generator[Query, Labels, None]:
        """Try ``starts`` ``(lost, starts, features)``, and approach from those that fool the victim."""
        sample = np.repeat(lost, starts.shape[1])
        rows = self.space.project(starts.reshape(-1, len(self.space.columns)), self.task.rows[sample])
        fooled = yield from self.labels(sample, rows)
        yield from self.approach(sample[fooled], rows[fooled])

    def hop(self) -> Generator[Query, Labels, None]:
        """Estimate the normal of the boundary, jump off along it, and approach the boundary again."""
        self.round += 1
        direction = yield from self._direction()
        yield from self._jump(direction)
        yield from self.approach(self.live, self.here[self.live])
        self._settle()

    def _settle(self) -> None:
        """Let those samples rest that need no walk or cannot go on; the others stand where they got closest."""
        change = self.closest.change
        self.live = np.flatnonzero(np.isfinite(change) & (change > 0) & (self.left > 0))
        self.here = self.closest.rows.copy()

    def _starts_in_order(self) -> Samples:
        """``(samples, starts)``: the nearest own row of each other class, then the second nearest of each ..."""
        task, space = self.task, self.space
        order = np.empty((len(task.rows), len(task.starts)), dtype=np.int64)
        for place, (row, label) in enumerate(zip(task.rows, task.labels, strict=True)):
            near = np.argsort(space.change(space.project(task.starts, row), row, self.norm), kind="stable")
            classes = task.start_labels[near]
            turn = ordinals(classes) + len(near) * (classes == label)
            order[place] = near[np.argsort(turn, kind="stable")]
        return order

    def approach(self, sample: Samples, far: Rows) -> Generator[Query, Labels, None]:
        """Narrow down where the way from ``far`` back to its sample meets the boundary."""
        origin = self.task.rows[sample]
        reach = self.space.change(far, origin, self.norm)
        low, high = np.zeros(len(sample)), reach.copy()
        tolerance = reach / self.mobile**1.5
        while (wide := np.flatnonzero((high - low > tolerance) & (self.left[sample] > 0))).size:
            marks = np.linspace(low[wide], high[wide], CUTS + 2, axis=1)
            cut = np.repeat(wide, CUTS)
            rows = self._between(origin[cut], far[cut], marks[:, 1:-1].ravel(), reach[cut])
            fooled = yield from self.labels(sample[cut], rows)
            # The end at ``high`` is known to fool the victim, so there is always a first mark that does.
            first = np.c_[fooled.reshape(-1, CUTS), np.ones(len(wide))].argmax(axis=1)
            low[wide], high[wide] = marks[np.arange(len(wide)), first], marks[np.arange(len(wide)), first + 1]

    def _between(self, origin: Rows, far: Rows, at: Sizes, reach: Sizes) -> Rows:
        """Rows at distance ``at`` on the way from ``origin`` to ``far``, which lies ``reach`` away."""
        if self.norm == np.inf:
            bound = at[:, None] * self.space.scale
            rows = np.clip(far, origin - bound, origin + bound)
        else:
            rows = origin + (at / reach)[:, None] * (far - origin)
        return self.space.project(rows, origin)

    def _direction(self) -> Generator[Query, Labels, Rows]:
        """``(live, features)``: where the victim is fooled more, estimated from probes around each sample."""
        first = FIRST_PROBES_OF_PICTURES if is_picture(self.task.shape) else FIRST_PROBES
        count = min(int(first * np.sqrt(self.round)), int(self.left[self.live].max()))
        together = max(PROBED_AT_ONCE // (count * self.here.shape[1]), 1)
        parts = []
        for start in range(0, len(self.live), together):
            part = yield from self._probed(self.live[start : start + together], count)
            parts.append(part)
        estimate = _unit(np.concatenate(parts)) * np.sqrt(count)
        if self.norm == np.inf:
            self.normal[self.live] *= MEMORY
            self.normal[self.live] += estimate
            return np.sign(self.normal[self.live])
        return _unit(estimate)

    def _probed(self, sample: Samples, count: int) -> Generator[Query, Labels, Rows]:
        """The mean over ``count`` probes of the step that was made, signed by whether it fooled the victim."""
        here, origin = self.here[sample], self.task.rows[sample]
        noise = self._noise(self.space.change(here, origin, self.norm), count)
        rows = (here[:, None, :] + noise * self.space.scale).reshape(-1, here.shape[1])
        rows = self.space.project(rows, np.repeat(origin, count, axis=0))
        fooled = yield from self.labels(np.repeat(sample, count), rows)
        moved = (rows.reshape(noise.shape) - here[:, None, :]) / self.space.scale
        sign = np.where(fooled, 1.0, -1.0).reshape(len(here), count)
        mean = sign.mean(axis=1, keepdims=True)
        weight = np.where(np.abs(mean) < 1, sign - mean, sign)
        return np.asarray(np.matmul(weight.astype(moved.dtype)[:, None, :], moved)[:, 0])

    def _noise(self, change: Sizes, probes: int) -> Rows:
        """``(samples, probes, features)``: random steps, in standard deviations."""
        shape = (len(change), probes, len(self.space.columns))
        kind: Any = np.float32 if self.here.dtype == np.float32 else np.float64
        if self.norm == np.inf:
            noise = 2 * self.rng.random(shape, dtype=kind) - 1
        else:
            noise = self.rng.standard_normal(shape, dtype=kind) * ~self.space.immutable
            noise /= np.maximum(np.linalg.norm(noise, axis=2, keepdims=True), np.finfo(kind).tiny)
        noise *= (PROBE_RADIUS[self.norm] * change[:, None, None]).astype(kind)
        if self.space.integer.any():
            unit = self.space.integer / self.space.scale
            noise = noise + self.rng.uniform(-0.5, 0.5, shape) * unit
        return noise

    def _jump(self, direction: Rows) -> Generator[Query, Labels, None]:
        """Go off along ``direction`` as far as the victim stays fooled, halving the step until it is."""
        origin, change = self.task.rows, self.space.change(self.here, self.task.rows, self.norm)
        step = np.zeros_like(self.here)
        step[self.live] = direction * self.space.scale
        size = change / np.sqrt(self.round)
        pending = self.live
        for first in range(0, MAX_STEPS, STEPS):
            sizes = size[pending, None] / 2.0 ** np.arange(first, first + STEPS)
            sample = np.repeat(pending, STEPS)
            rows = self.here[sample] + step[sample] * sizes.reshape(-1, 1)
            rows = self.space.project(rows, origin[sample])
            fooled = (yield from self.labels(sample, rows)).reshape(-1, STEPS)
            longest = np.arange(len(pending)) * STEPS + fooled.argmax(axis=1)
            found = fooled.any(axis=1)
            self.here[pending[found]] = rows[longest[found]]
            pending = pending[~found & (self.left[pending] > 0)]
            if not pending.size:
                return


def _unit(rows: Rows) -> Rows:
    """Rows of length 1; those of length 0 stay."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(length > 0, length, 1))
