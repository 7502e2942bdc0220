"""Square: evasion by an adversary who sees scores."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import BudgetError, InputError
from bartizan.redteam.asking import Asking, Mask, Samples, Sizes
from bartizan.redteam.attack import Query, Search
from bartizan.redteam.tasks import EvasionTask
from bartizan.redteam.windows import Windows, hills, is_picture, stripes, windows_of
from bartizan.targets.protocol import Access, Rows, Scores

FIRST_SHARE = 0.8
"""Share of the features that the first proposals redraw."""
HALVED_AT = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
"""Shares of the budget after which this share is halved (the paper's schedule)."""
PROPOSALS = 8
"""Proposals asked at once for a row of a table, of which the best is taken; the paper asks one at a time."""
SHRINKS = (0.25, 0.5, 0.75)
"""Parts of a successful change that are tried at once."""
SHRINK = 0.97
"""Next radius to try, as a part of the smallest change that succeeded."""
REDRAWS = 8
"""Times that a proposal is drawn anew when it was refused before at the same place; then the square grows."""
MOST_REMEMBERED = 1 << 14
"""Proposals for one image that are remembered; with more of them the same one hardly comes twice."""
FIRST_TILES = 5
"""Patterns across an image that an L2 search begins with."""
LEAST_SIDE = 3
"""Side of the smallest pattern in an L2 search."""


class Square:
    """Random search at the edge of the ball: redraw a block, keep what lowers the margin.

    In an image a block is a square of pixels, as in the paper, under Linf and L2. One query for each
    image and round; an image that fools the victim is left alone. Against the paper: squares that
    would change nothing, or that were refused at the same place, are drawn again before they cost a
    query, and each image has squares of its own.

    In a table no feature is the neighbour of another, so a block is a random set of features, under
    Linf. A row that succeeds goes on in a smaller ball for the rest of its budget, so that the change
    that was needed is found too, and not only whether the largest one was enough.
    """

    name = "evasion.square"
    title = "Square: random search for a change within bounds that flips the label, guided by scores"
    family = "evasion"
    technique = "T07"
    atlas: tuple[str, ...] = ("AML.T0043.001", "AML.T0042", "AML.T0015")
    needs: frozenset[Access] = frozenset({Access.LABELS, Access.SCORES})
    norms = frozenset({np.inf})
    norms_of_images = frozenset({np.inf, 2.0})
    position = "user"
    references: tuple[str, ...] = ("Andriushchenko et al.: Square Attack. ECCV 2020, arXiv:1912.00049",)

    def search(self, task: EvasionTask, rng: np.random.Generator) -> Search:
        """See ``Attack.search``.

        Raises:
            InputError: the norm is not one that is searched here.
        """
        if is_picture(task.shape):
            return _search_pictures(task, rng)
        if task.norm != np.inf:
            raise InputError(
                f"{self.name} searches tables in the norm inf, and {task.norm:g} is asked for",
                remedy="give images their shape, or take evasion.hopskipjump.",
            )
        return _search_table(task, rng)


def _search_table(task: EvasionTask, rng: np.random.Generator) -> Search:
    state = _Table(task, rng)
    try:
        yield from state.ask(np.arange(len(task.rows)), task.rows)
        state.draw_corners()
        while (live := state.live).size:
            yield from state.improve(live)
            yield from state.shrink(live)
    except BudgetError:
        pass
    return state.closest.rows


def _search_pictures(task: EvasionTask, rng: np.random.Generator) -> Search:
    if task.norm not in (2, np.inf):
        raise InputError(
            f"evasion.square searches images in the norms 2 and inf, and {task.norm:g} is asked for",
            remedy="take an attack for that norm.",
        )
    state = _Corners(task, rng) if task.norm == np.inf else _Hills(task, rng)
    try:
        yield from state.margins(np.arange(len(task.rows)), task.rows)
        yield from state.begin()
        while (live := state.open).size:
            yield from state.improve(live)
    except BudgetError:
        pass
    return state.closest.rows


class _Pictures(Asking):
    """Where each image stands within its ball, and how far that is from fooling the victim."""

    def __init__(self, task: EvasionTask, rng: np.random.Generator) -> None:
        super().__init__(task)
        self.rng, self.shape = rng, task.shape
        self.here: Rows = task.rows.copy()
        self.margin: Sizes = np.full(len(task.rows), np.inf)

    def begin(self) -> Generator[Query, Scores, None]:
        """Take the first places, whatever they are worth."""
        live = self.open
        if live.size:
            self.here[live] = self._first(live)
            self.margin[live] = yield from self.margins(live, self.here[live])

    def improve(self, live: Samples) -> Generator[Query, Scores, None]:
        """Ask one proposal for each image and move where it is better."""
        rows = self._proposals(live)
        margin = yield from self.margins(live, rows)
        better = margin < self.margin[live]
        moved = live[better]
        self.here[moved], self.margin[moved] = rows[better], margin[better]
        self._moved(moved)

    def _side(self) -> int:
        """Side of the squares; all live images have spent the same."""
        used = 1 - int(self.left[self.open].max(initial=0)) / self.task.budget
        share = FIRST_SHARE * 0.5 ** np.searchsorted(HALVED_AT, used)
        return max(round(float(np.sqrt(share * self.shape[1] * self.shape[2]))), 1)

    def _first(self, live: Samples) -> Rows:
        raise NotImplementedError

    def _proposals(self, live: Samples) -> Rows:
        raise NotImplementedError

    def _moved(self, moved: Samples) -> None:
        """Told which images moved."""


@dataclass(frozen=True, slots=True)
class _Squares:
    """One square for each image."""

    keys: Samples
    """``(batch,)``: window and signs in one number."""
    pixels: Samples
    """``(batch, channels * side * side)``: places in the rows."""
    values: Rows
    """``(batch, channels * side * side)``: what they are filled with."""
    remembered: bool
    """Whether they are of the schedule's size, of which those refused are remembered."""


class _Corners(_Pictures):
    """Linf: each pixel is at one side of the ball or the other."""

    def __init__(self, task: EvasionTask, rng: np.random.Generator) -> None:
        super().__init__(task, rng)
        every, reach = np.arange(len(task.rows)), (1 + task.max_change) * task.space.scale
        reach = reach + (task.space.high - task.space.low)
        self.low, self.high = (task.within(task.rows + side * reach, every) for side in (-1, 1))
        self._signs = 1 << task.shape[0]
        self._grown: Samples = np.zeros(len(task.rows), dtype=np.int64)
        """How much larger than the schedule's an image's squares are, because all of those were refused."""
        self._refused: Mask = np.zeros((len(task.rows), 0), dtype=np.bool_)
        """``(images, windows * signs)``: what was proposed since the last move."""
        self._of_side = 0

    def _first(self, live: Samples) -> Rows:
        signs = stripes(self.shape, len(live), self.rng)
        return np.where(signs > 0, self.high[live], self.low[live])

    def _proposals(self, live: Samples) -> Rows:
        side = self._side()
        if side != self._of_side:
            self._of_side = side
            self._grown[:] = 0
            self._forget(side)
        rows, grown = self.here[live], self._grown[live]
        if not grown.any():
            return self._redrawn(live, rows, windows_of(self.shape, side))
        for size in np.unique(grown):
            places = np.flatnonzero(grown == size)
            rows[places] = self._redrawn(live[places], rows[places], windows_of(self.shape, side + int(size)))
        return rows

    def _forget(self, side: int) -> None:
        keys = windows_of(self.shape, side).count * self._signs
        self._refused = np.zeros((len(self.here), keys if keys <= MOST_REMEMBERED else 0), dtype=np.bool_)

    def _redrawn(self, live: Samples, rows: Rows, windows: Windows) -> Rows:
        """The rows with one square of each at another side of the ball."""
        drawn = self._drawn(live, windows)
        again = np.flatnonzero(self._stale(live, rows, drawn))
        for _ in range(REDRAWS):
            if not again.size:
                break
            anew = self._drawn(live[again], windows)
            drawn.keys[again], drawn.pixels[again], drawn.values[again] = anew.keys, anew.pixels, anew.values
            again = again[self._stale(live[again], rows[again], anew)]
        self._grow(live[again])
        if self._refused.size and windows.side == self._of_side:
            self._refused[live, drawn.keys] = True
        rows[np.arange(len(rows))[:, None], drawn.pixels] = drawn.values
        return rows

    def _drawn(self, live: Samples, windows: Windows) -> _Squares:
        """A window and a side for each colour, for each image."""
        keys = self.rng.integers(0, windows.count * self._signs, len(live))
        pixels = windows.pixels(keys // self._signs)
        up = ((keys[:, None] >> np.arange(pixels.shape[1])) & 1).astype(np.bool_)
        lines = live[:, None, None]
        values = np.where(up[:, :, None], self.high[lines, pixels], self.low[lines, pixels])
        remembered = windows.side == self._of_side
        return _Squares(keys, pixels.reshape(len(live), -1), values.reshape(len(live), -1), remembered)

    def _stale(self, live: Samples, rows: Rows, drawn: _Squares) -> Mask:
        """Which proposals change nothing, or were refused since the last move."""
        stale: Mask = (rows[np.arange(len(rows))[:, None], drawn.pixels] == drawn.values).all(axis=1)
        if self._refused.size and drawn.remembered:
            stale |= self._refused[live, drawn.keys]
        return stale

    def _grow(self, stuck: Samples) -> None:
        """Larger squares for images where those of the schedule are all but used up."""
        self._grown[stuck] += 1
        if self._refused.size:
            self._refused[stuck] = False

    def _moved(self, moved: Samples) -> None:
        self._grown[moved] = 0
        if self._refused.size:
            self._refused[moved] = False


class _Hills(_Pictures):
    """L2: changes are made of hills and hollows, and their length is moved from one window to another."""

    def _first(self, live: Samples) -> Rows:
        side = max(self.shape[1] // FIRST_TILES, 1)
        tiles = windows_of(self.shape, side)
        delta = np.zeros((len(live), self.here.shape[1]))
        for down in range(0, tiles.down, side):
            for across in range(0, tiles.across, side):
                pixels = tiles.pixels(np.full(len(live), down * tiles.across + across)).reshape(len(live), -1)
                np.put_along_axis(delta, pixels, self._pattern(side, len(live)).reshape(len(live), -1), axis=1)
        return self._at_the_edge(live, delta)

    def _proposals(self, live: Samples) -> Rows:
        side = max(self._side(), LEAST_SIDE) | 1
        windows = windows_of(self.shape, side)
        origin = self.task.rows[live]
        delta = ((self.here[live] - origin) / self.task.space.scale).astype(np.float64)
        taken, given = (windows.pixels(self.rng.integers(0, windows.count, len(live))) for _ in range(2))
        spare = np.maximum(self.task.max_change**2 - np.square(delta).sum(axis=1), 0.0) / self.shape[0]
        lines = np.arange(len(live))[:, None, None]
        old = delta[lines, given]
        length = np.square(old).sum(axis=2)
        emptied = delta.copy()
        emptied[lines, given] = 0.0
        moved = np.square(emptied[lines, taken]).sum(axis=2)
        fresh = self._pattern(windows.side, len(live)) + old / np.maximum(np.sqrt(length), _TINY)[:, :, None]
        fresh /= np.maximum(np.linalg.norm(fresh, axis=2, keepdims=True), _TINY)
        emptied[lines, taken] = 0.0
        emptied[lines, given] = fresh * np.sqrt(length + moved + spare[:, None])[:, :, None]
        return self._at_the_edge(live, emptied)

    def _pattern(self, side: int, count: int) -> NDArray[np.float64]:
        """``(count, channels, side * side)``: hills, each colour with a sign of its own."""
        signs = self.rng.choice((-1.0, 1.0), (count, self.shape[0], 1))
        return np.asarray(hills(side, self.rng, count)[:, None, :] * signs)

    def _at_the_edge(self, live: Samples, delta: NDArray[np.float64]) -> Rows:
        """The rows moved by ``delta``, stretched to the largest change, within the ranges."""
        length = np.maximum(np.linalg.norm(delta, axis=1, keepdims=True), _TINY)
        step: Rows = (delta * (self.task.max_change / length) * self.task.space.scale).astype(self.task.rows.dtype)
        return self.task.within(self.task.rows[live] + step, live)


_TINY = 1e-12


class _Table(Asking):
    """A corner of its ball for each row, and how far it is from fooling the victim."""

    def __init__(self, task: EvasionTask, rng: np.random.Generator) -> None:
        super().__init__(task)
        self.rng, self.space = rng, task.space
        self.radius: Sizes = np.full(len(task.rows), task.max_change)
        self.here: Rows = task.rows.copy()
        self.margin: Sizes = np.full(len(task.rows), np.inf)
        """Margin of ``here``; infinite when it was not asked yet."""
        self.mobile = np.flatnonzero(~self.space.immutable)

    @property
    def live(self) -> Samples:
        """Rows that can become better."""
        open_ = (self.left > 0) & (self.closest.change > 0) & (len(self.mobile) > 0)
        return np.flatnonzero(open_)

    def ask(self, sample: Samples, rows: Rows) -> Generator[Query, Scores, Sizes]:
        """See ``Asking.margins``."""
        return (yield from self.margins(sample, rows, logarithm=False))

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
