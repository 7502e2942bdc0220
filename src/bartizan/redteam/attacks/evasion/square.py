"""Square: evasion by an adversary who sees scores."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import BudgetError
from bartizan.redteam.attack import Query, Search
from bartizan.redteam.closest import Closest
from bartizan.redteam.ledger import ordinals
from bartizan.redteam.tasks import EvasionTask
from bartizan.targets.protocol import Access, Labels, Rows, Scores

Samples = NDArray[np.int64]
Sizes = NDArray[np.float64]

FIRST_SHARE = 0.8
"""Share of the features that the first proposals redraw."""
HALVED_AT = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
"""Shares of the budget after which this share is halved (the paper's schedule)."""
PROPOSALS = 8
"""Proposals asked at once for a sample, of which the best is taken; the paper asks one at a time."""
SHRINKS = (0.25, 0.5, 0.75)
"""Parts of a successful change that are tried at once."""
SHRINK = 0.97
"""Next radius to try, as a part of the smallest change that succeeded."""


class Square:
    """Random search at the corners of the Linf ball: redraw a block of features, keep what lowers the margin.

    In a table no feature is the neighbour of another, so a block is a random set of features where
    the paper takes a square of pixels. A sample that succeeds goes on in a smaller ball for the rest
    of its budget, so that the change that was needed is found too, and not only whether the
    largest one was enough.
    """

    name = "evasion.square"
    title = "Square: random search for a change within bounds that flips the label, guided by scores"
    family = "evasion"
    technique = "T07"
    atlas: tuple[str, ...] = ("AML.T0043.001", "AML.T0042", "AML.T0015")
    needs: frozenset[Access] = frozenset({Access.LABELS, Access.SCORES})
    position = "user"
    references: tuple[str, ...] = ("Andriushchenko et al.: Square Attack. ECCV 2020, arXiv:1912.00049",)

    def search(self, task: EvasionTask, rng: np.random.Generator) -> Search:
        """See ``Attack.search``."""
        state = _State(task, rng)
        try:
            yield from state.ask(np.arange(len(task.rows)), task.rows)
            state.draw_corners()
            while (live := state.live).size:
                yield from state.improve(live)
                yield from state.shrink(live)
        except BudgetError:
            pass
        return state.closest.rows


class _State:
    """A corner of its ball for each sample, and how far it is from fooling the victim."""

    def __init__(self, task: EvasionTask, rng: np.random.Generator) -> None:
        self.task, self.rng, self.space = task, rng, task.space
        self.closest = Closest(task)
        self.left: Samples = np.full(len(task.rows), task.budget)
        self.radius: Sizes = np.full(len(task.rows), task.max_change)
        self.here: Rows = task.rows.copy()
        self.margin: Sizes = np.full(len(task.rows), np.inf)
        """Margin of ``here``; infinite when it was not asked yet."""
        self.mobile = np.flatnonzero(~self.space.immutable)

    @property
    def live(self) -> Samples:
        """Samples that can become better."""
        open_ = (self.left > 0) & (self.closest.change > 0) & (len(self.mobile) > 0)
        return np.flatnonzero(open_)

    def ask(self, sample: Samples, rows: Rows) -> Generator[Query, Scores, Sizes]:
        """Margin of each row: negative where it fools the victim, infinite where it could not be paid."""
        margin = np.full(len(sample), np.inf)
        paid = np.flatnonzero(ordinals(sample) <= self.left[sample])
        if paid.size:
            sample, rows = sample[paid], rows[paid]
            scores = yield Query(rows, sample, scores=True)
            self.left -= np.bincount(sample, minlength=len(self.left))
            margin[paid] = _margin(scores, self.task.labels[sample])
            fooled = margin[paid] < 0
            self.closest.offer(sample[fooled], rows[fooled])
        return margin

    def draw_corners(self) -> None:
        """Begin at a random corner of each ball."""
        everything = np.broadcast_to(~self.space.immutable, self.here.shape)
        self.here = self._redraw(np.arange(len(self.here)), self.here, everything)

    def improve(self, live: Samples) -> Generator[Query, Scores, None]:
        """Ask some proposals for each sample and move to the best, if it is better than where it is."""
        sample = np.repeat(live, PROPOSALS)
        blocks = self._blocks(sample)
        # A corner whose margin is not known yet is a proposal itself.
        blocks[::PROPOSALS][np.isinf(self.margin[live])] = False
        rows = self._redraw(sample, self.here[sample], blocks)
        margin = (yield from self.ask(sample, rows)).reshape(-1, PROPOSALS)
        best = margin.argmin(axis=1)
        least = margin.min(axis=1)
        better = least < self.margin[live]
        self.margin[live[better]] = least[better]
        self.here[live[better]] = rows[np.arange(len(live)) * PROPOSALS + best][better]

    def shrink(self, live: Samples) -> Generator[Query, Scores, None]:
        """Where the victim is fooled: find a smaller change on the way back, and go on in a ball smaller still."""
        won = live[(self.margin[live] < 0) & (self.left[live] > 0)]
        if not won.size:
            return
        sample, origin = np.repeat(won, len(SHRINKS)), self.task.rows
        part = np.tile(SHRINKS, len(won))[:, None]
        rows = self.space.project(origin[sample] + part * (self.here[sample] - origin[sample]), origin[sample])
        yield from self.ask(sample, rows)
        self.radius[won] = SHRINK * self.closest.change[won]
        bound = self.radius[won, None] * self.space.scale
        inside = np.clip(self.here[won], origin[won] - bound, origin[won] + bound)
        self.here[won] = self._inside(won, inside)
        self.margin[won] = np.inf

    def _blocks(self, sample: Samples) -> NDArray[np.bool_]:
        """``(batch, features)``: the features that each proposal redraws; fewer as the budget runs out."""
        used = 1 - self.left[sample] / self.task.budget
        share = FIRST_SHARE * 0.5 ** np.searchsorted(HALVED_AT, used)
        size = np.maximum(np.rint(share * len(self.mobile)), 1)
        rank = self.rng.random((len(sample), len(self.mobile))).argsort(axis=1)
        blocks = np.zeros((len(sample), len(self.space.columns)), dtype=np.bool_)
        blocks[:, self.mobile] = rank < size[:, None]
        return blocks

    def _redraw(self, sample: Samples, rows: Rows, blocks: NDArray[np.bool_]) -> Rows:
        """Move the features in ``blocks`` to a random side of the ball; a feature that is alone, to its other side."""
        origin = self.task.rows[sample]
        sign = self.rng.choice((-1.0, 1.0), rows.shape)
        alone = blocks & (blocks.sum(axis=1, keepdims=True) == 1) & (rows != origin)
        sign[alone] = -np.sign(rows - origin)[alone]
        drawn = np.where(blocks, origin + sign * self.radius[sample, None] * self.space.scale, rows)
        for codes in self.space.codes:
            redraw = blocks[:, codes.column]
            drawn[redraw, codes.column] = self.rng.choice(codes.values, int(redraw.sum()))
        return self._inside(sample, drawn)

    def _inside(self, sample: Samples, rows: Rows) -> Rows:
        """The nearest possible rows within the radius of each sample."""
        return self.space.project(rows, self.task.rows[sample], self.radius[sample])


def _margin(scores: Scores, labels: Labels) -> Sizes:
    """Score of the true class minus the best other; the smallest negative number where a tie is lost."""
    every = np.arange(len(labels))
    others = scores.copy()
    others[every, labels] = -np.inf
    margin: Sizes = scores[every, labels] - others.max(axis=1)
    fooled = scores.argmax(axis=1) != labels
    return np.where(fooled & (margin == 0), -np.finfo(float).tiny, margin)
