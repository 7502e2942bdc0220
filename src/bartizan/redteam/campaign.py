"""Campaigns: evasion attacks on many samples, in shards that any executor may run, and that survive a kill.

A shard is one attack with one seed on one block of samples. What it finds depends on nothing else, so a campaign
gives the same bytes in one process, in several, or on a cluster, and after any number of kills. A finished shard is
a file; an unfinished one has a journal of every answer, so that a kill costs at most the call that was on its way.

With a threshold a campaign ends as soon as the share of robust samples is known well enough. Blocks are counted in
their order, not in the order in which they happen to finish; the samples must be in random order for it to mean
something.
"""

from __future__ import annotations

import contextlib
import os
import pickle
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from bartizan.core.digest import Digest, digest_bytes, digest_json
from bartizan.core.errors import BartizanError, InputError, StoreError, WorkError
from bartizan.redteam.attack import Attack
from bartizan.redteam.check import why_not
from bartizan.redteam.fingerprint import fingerprint, settings_digest_of
from bartizan.redteam.journal import Journals, NoJournals
from bartizan.redteam.journal_file import FolderJournals
from bartizan.redteam.planning import Threshold, stopped
from bartizan.redteam.play import Evaded, play
from bartizan.redteam.statistics import Estimate, proportion
from bartizan.redteam.tasks import EvasionTask
from bartizan.targets.feasible import TOLERANCE
from bartizan.targets.protocol import Rows, Target
from bartizan.targets.workers import worker_pool

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")
Running = Generator[tuple[Item, Outcome], None, None]
"""Items with their outcomes, as they are ready; closing it ends the work."""
Opener = Callable[[], AbstractContextManager[Target]]
"""Opens the target; importable by name, because other processes call it."""
BLOCK = 64
DEATHS = 3
"""Times that a shard whose worker died is begun again."""
MAX_SHARD_BYTES = 1 << 30


@dataclass(frozen=True)
class Campaign:
    """What is to be attacked, by what. Nothing of it may be altered afterwards: the key is made once."""

    opener: Opener
    identity: str
    """What the target is, such as the digest of the model: results of another one are never taken for this one's."""
    task: EvasionTask
    attacks: tuple[Attack, ...]
    """An attack that holds things which cannot be told by their content has an attribute ``settings_digest``."""
    seeds: tuple[int, ...] = (0,)
    block: int = BLOCK
    """Samples of one shard; results depend on it."""

    def __post_init__(self) -> None:
        """Refuse what could not be run. Raises InputError."""
        if not self.attacks or not self.seeds or self.block < 1 or not len(self.task.rows):
            raise InputError("a campaign needs attacks, seeds, samples, and blocks of at least one sample")
        if len({attack.name for attack in self.attacks}) < len(self.attacks) or len(set(self.seeds)) < len(self.seeds):
            raise InputError("a campaign names an attack or a seed twice", remedy="name each once.")

    @cached_property
    def key(self) -> Digest:
        """Digest of everything that results depend on; it goes along to other processes.

        Raises:
            InputError: it cannot be told whether an attack's settings are the same elsewhere.
        """
        attacks = [[attack.name, settings_digest_of(attack, attack.name)] for attack in self.attacks]
        return digest_json([self.identity, attacks, list(self.seeds), self.block, _told(self.task)])

    @property
    def blocks(self) -> int:
        """Number of blocks of samples."""
        return -(-len(self.task.rows) // self.block)

    @property
    def shards_of_block(self) -> int:
        """Number of shards of each block: every attack with every seed."""
        return len(self.attacks) * len(self.seeds)

    def shards(self) -> list[Shard]:
        """Every shard, block by block."""
        return [shard for block in range(self.blocks) for shard in self.shards_of(block)]

    def shards_of(self, block: int) -> list[Shard]:
        """The shards of one block."""
        start = block * self.block
        stop = min(start + self.block, len(self.task.rows))
        return [Shard(place, seed, start, stop) for place in range(len(self.attacks)) for seed in self.seeds]


def _told(task: EvasionTask) -> Any:
    """Everything in a task; of columns that follow from others the text of the formula."""
    parts = {field.name: getattr(task, field.name) for field in fields(task)}
    space = parts["space"]
    parts["space"] = {field.name: getattr(space, field.name) for field in fields(space)}
    parts["space"]["dependent"] = [[each.column, each.text] for each in space.dependent]
    return fingerprint(parts, "the task")


@dataclass(frozen=True, slots=True)
class Shard:
    """One attack with one seed on one block of samples."""

    attack: int
    """Place of the attack in the campaign."""
    seed: int
    start: int
    stop: int

    def key(self, campaign: Digest) -> Digest:
        """Name of its file and of its journal."""
        return digest_json([campaign, self.attack, self.seed, self.start, self.stop])


@dataclass(frozen=True, slots=True)
class Found:
    """What a shard found, asked again."""

    rows: Rows
    """``(samples, features)``."""
    clean: NDArray[np.int64]
    answers: NDArray[np.int64]
    queries: NDArray[np.int64]
    """``(samples,)``: spent on each."""
    gradients: NDArray[np.int64]

    @classmethod
    def of(cls, evaded: Evaded) -> Found:
        """The parts of a result that last."""
        ledger = evaded.ledger
        return cls(np.asarray(evaded.rows), evaded.clean, evaded.answers, ledger.spent.copy(), ledger.slopes.copy())


ARRAYS = ("rows", "clean", "answers", "queries", "gradients")


def run_shard(campaign: Campaign, shard: Shard, journals: Path | None = None) -> Found:
    """Run one shard in this process; a journal that a killed run left is told first.

    Raises:
        WorkError: the attack does not apply to the target, breaks the rules, or the target cannot answer.
    """
    attack, task = campaign.attacks[shard.attack], _part(campaign.task, shard)
    kept: Journals = FolderJournals(journals) if journals else NoJournals()
    key = shard.key(campaign.key)
    with campaign.opener() as target, kept.open(key) as journal:
        if reason := why_not(attack, target.offers):
            raise WorkError(reason, remedy="leave the attack out.")
        seed = int(digest_json([attack.name, shard.seed, shard.start])[:12], 16)
        return Found.of(play(target, attack, task, seed=seed, journal=journal))


def _part(task: EvasionTask, shard: Shard) -> EvasionTask:
    return replace(task, rows=task.rows[shard.start : shard.stop], labels=task.labels[shard.start : shard.stop])


# ---- the work ledger


class WorkLedger:
    """Finished shards as files in a folder, and journals of the unfinished ones."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journals = folder / "journals"
        try:
            self.journals.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StoreError(f"the work ledger {folder} cannot be written: {error.strerror}") from error

    def get(self, key: Digest) -> Found | None:
        """What a shard found; None when it is not finished, or its file was cut off or altered."""
        try:
            with (self.folder / f"{key}.shard").open("rb") as stream:
                data = stream.read(MAX_SHARD_BYTES + 1)
        except OSError:
            return None
        digest, body = data[:64], data[64:]
        if digest_bytes(body).encode() != digest:
            return None
        parts = msgspec.msgpack.decode(body, type=dict[str, tuple[str, list[int], bytes]])
        arrays = [np.frombuffer(raw, dtype=kind).reshape(shape) for kind, shape, raw in (parts[n] for n in ARRAYS)]
        return Found(*arrays)

    def put(self, key: Digest, found: Found) -> None:
        """Keep what a shard found; it survives a kill when this returns. Its journal is dropped."""
        arrays = {name: np.ascontiguousarray(getattr(found, name)) for name in ARRAYS}
        body = msgspec.msgpack.encode({n: (a.dtype.str, list(a.shape), a.tobytes()) for n, a in arrays.items()})
        path = self.folder / f"{key}.shard"
        new = path.with_suffix(f".{os.getpid()}.new")
        try:
            with new.open("wb") as stream:
                stream.write(digest_bytes(body).encode() + body)
                stream.flush()
                os.fsync(stream.fileno())
            new.replace(path)
        except OSError as error:
            raise StoreError(f"{path} cannot be written: {error.strerror}", remedy="make room.") from error
        (self.journals / f"{key}.journal").unlink(missing_ok=True)


# ---- executors


class Executor(Protocol):
    """Runs a function on items, somewhere."""

    def run(self, function: Callable[[Item], Outcome], items: Iterable[Item]) -> Running[Item, Outcome]:
        """Items with their outcomes, as they are ready. Draws items as it has room for them; stops when closed."""


class Here:
    """Runs everything in this process, one after another. See ``Executor``."""

    def run(self, function: Callable[[Item], Outcome], items: Iterable[Item]) -> Running[Item, Outcome]:
        """See ``Executor.run``."""
        for item in items:
            yield item, function(item)


class Processes:
    """Runs in several processes. What a process that died had in hand is begun again. See ``Executor``."""

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise InputError("at least one process is needed")
        self.workers = workers

    def run(self, function: Callable[[Item], Outcome], items: Iterable[Item]) -> Running[Item, Outcome]:
        """See ``Executor.run``. The function is sent once to each process, not with every item.

        Raises:
            InputError: the function cannot be sent.
            WorkError: an item's process died too often, or cannot read the function.
        """
        sent, waiting, deaths = _packed(function), iter(items), 0
        again: list[Item] = []
        while True:
            lost = yield from self._pool(sent, waiting, again)
            if not lost:
                return
            deaths += 1
            if deaths > DEATHS:
                raise WorkError(
                    f"the worker processes died {deaths} times", remedy="look for a memory limit; run it again."
                )
            again = lost

    def _pool(
        self, function: bytes, waiting: Iterator[Item], again: list[Item]
    ) -> Generator[tuple[Item, Outcome], None, list[Item]]:
        """One pool until all is done or it breaks; returns what was lost with it."""
        pool = worker_pool(self.workers, _begin, function)
        running: dict[Future[Outcome], Item] = {}
        try:
            while True:
                while len(running) < self.workers + 1:
                    item = again.pop(0) if again else next(waiting, None)
                    if item is None:
                        break
                    running[pool.submit(_call, item)] = item
                if not running:
                    return []
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in sorted(finished, key=lambda done: list(running).index(done)):
                    outcome = future.result()
                    yield running.pop(future), outcome
        except BrokenProcessPool:
            return [*running.values(), *again]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _packed(function: Callable[[Item], Outcome]) -> bytes:
    try:
        return pickle.dumps(function, pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # whatever an object raises that cannot be packed
        raise InputError(
            f"this cannot be sent to another process: {error}",
            remedy="give an opener that can be imported by its name, and attacks that hold plain values.",
        ) from error


_received: Any = None
"""In a worker: the function that all its items are for, or why there is none."""


def _begin(packed: bytes) -> None:
    """Make a worker ready."""
    global _received  # noqa: PLW0603 - a worker has one function for its whole life
    try:
        _received = pickle.loads(packed)  # noqa: S301 - packed by the process that started this one
    except Exception as error:  # noqa: BLE001 - told when the first item comes: a worker that dies says nothing
        _received = f"{type(error).__name__}: {error}"


def _call(item: Any) -> Any:
    if isinstance(_received, str):
        raise WorkError(
            f"a worker process cannot open the campaign: {_received}",
            remedy="see that the opener's module can be imported there (PYTHONPATH).",
        )
    return _received(item)


# ---- the whole


@dataclass(frozen=True, slots=True)
class Result:
    """What a campaign found, the best of all attacks and seeds for each sample."""

    task: EvasionTask
    """The samples that were judged: all, or the first ones when a threshold was decided by them."""
    rows: Rows
    answers: NDArray[np.int64]
    change: NDArray[np.float64]
    """``(samples,)``; infinite where nothing fooled the target."""
    right: NDArray[np.bool_]
    """``(samples,)``: answered rightly as long as nobody attacks."""
    by_attack: dict[str, NDArray[np.bool_]]
    """Attack and seed, ``name#seed``, to which samples it left robust."""
    queries: int
    gradients: int
    decided: str = ""
    """``met`` or ``missed`` where a threshold was decided before the last sample."""
    confidence: float = 0.95
    looked: bool = False
    """Whether it was looked at after each block, and could have ended early."""

    @property
    def robust(self) -> NDArray[np.bool_]:
        """``(samples,)``: right, and still right under every change found that counts."""
        bound = self.task.max_change * (1 + TOLERANCE)
        robust: NDArray[np.bool_] = self.right & ~(self.change <= bound)
        return robust

    @property
    def robust_accuracy(self) -> Estimate:
        """Share of the samples that stay right; its interval allows for looks and a stop on the way."""
        robust = int(self.robust.sum())
        if self.looked:
            return stopped(robust, len(self.right), self.confidence)
        return proportion(robust, len(self.right), self.confidence)


def conduct(
    campaign: Campaign,
    *,
    executor: Executor | None = None,
    ledger: WorkLedger | None = None,
    until: Threshold | None = None,
    told: Callable[[int, int], None] = lambda _done, _all: None,
) -> Result:
    """Run a campaign to its end, or until a threshold is decided. ``told`` hears how many shards are done.

    Raises:
        BartizanError: a shard could not be run.
    """
    book = _Book(campaign, ledger, until)
    executor = executor or Here()
    left = [shard for shard in campaign.shards() if not book.knows(shard)]
    work = _Work(campaign, str(ledger.journals) if ledger else "")
    every = campaign.blocks * campaign.shards_of_block
    told(len(book.found), every)
    if book.decided() or not left:
        return book.result()
    with contextlib.closing(executor.run(work, left)) as coming:
        for shard, outcome in coming:
            if isinstance(outcome, Trouble):
                raise WorkError(outcome.message, remedy=outcome.remedy)
            book.add(shard, outcome)
            told(len(book.found), every)
            if book.decided():
                break
    return book.result()


@dataclass(frozen=True, slots=True)
class Trouble:
    """An error on its way between processes."""

    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class _Work:
    """What a worker does with a shard; sent to it whole."""

    campaign: Campaign
    journals: str

    def __call__(self, shard: Shard) -> Found | Trouble:
        try:
            return run_shard(self.campaign, shard, Path(self.journals) if self.journals else None)
        except BartizanError as error:
            return Trouble(error.message, error.remedy)


class _Book:
    """Finished shards, and what they say together. Each block is counted once, when its turn has come."""

    def __init__(self, campaign: Campaign, ledger: WorkLedger | None, until: Threshold | None) -> None:
        self.campaign, self.ledger, self.until = campaign, ledger, until
        self.found: dict[Shard, Found] = {}
        self._key = campaign.key
        self._done: Counter[int] = Counter()
        self._whole = 0
        """Blocks from the first one on all of whose shards are done."""
        self._robust = self._samples = 0
        """In these blocks, until it is decided."""
        self._verdict: tuple[str, int] | None = None

    def knows(self, shard: Shard) -> bool:
        """Whether the ledger holds the shard's result; it is then counted."""
        kept = self.ledger.get(shard.key(self._key)) if self.ledger else None
        if kept is not None:
            self._count(shard, kept)
        return kept is not None

    def add(self, shard: Shard, found: Found) -> None:
        """Keep what came back."""
        if self.ledger:
            self.ledger.put(shard.key(self._key), found)
        self._count(shard, found)

    def _count(self, shard: Shard, found: Found) -> None:
        if shard not in self.found:
            self._done[shard.start // self.campaign.block] += 1
        self.found[shard] = found
        while self._done[self._whole] == self.campaign.shards_of_block:
            self._judge(self._whole)
            self._whole += 1

    def _judge(self, block: int) -> None:
        """Look at the threshold after one more block, as long as it is open."""
        if self.until is None or self._verdict:
            return
        part = self._result([self.campaign.shards_of(block)])
        self._robust, self._samples = self._robust + int(part.robust.sum()), self._samples + len(part.right)
        if verdict := self.until.decided(self._robust, self._samples):
            self._verdict = verdict, block + 1

    def decided(self) -> tuple[str, int] | None:
        """How the threshold came out and after how many blocks; None while it is open or there is none."""
        return self._verdict

    def result(self) -> Result:
        """What the blocks say that count."""
        decided = self.decided()
        count = decided[1] if decided else self._whole
        blocks = [self.campaign.shards_of(block) for block in range(count)]
        confidence = self.until.confidence if self.until else 0.95
        return replace(
            self._result(blocks),
            decided=decided[0] if decided else "",
            confidence=confidence,
            looked=self.until is not None,
        )

    def _result(self, blocks: Sequence[Sequence[Shard]]) -> Result:
        start, stop = blocks[0][0].start, blocks[-1][0].stop
        task = _part(self.campaign.task, Shard(0, 0, start, stop))
        best_rows, best_answers = task.rows.copy(), task.labels.copy()
        best = np.full(len(task.rows), np.inf)
        right = np.ones(len(task.rows), dtype=bool)
        by_attack: dict[str, NDArray[np.bool_]] = {}
        queries = gradients = 0
        for shard in (shard for shards in blocks for shard in shards):
            found, place = self.found[shard], slice(shard.start - start, shard.stop - start)
            labels = task.labels[place]
            change = task.space.change(found.rows, task.rows[place], task.norm)
            change = np.where(found.answers != labels, change, np.inf)
            right[place] &= found.clean == labels
            closer = change < best[place]
            best_rows[place] = np.where(closer[:, None], found.rows, best_rows[place])
            best_answers[place] = np.where(closer, found.answers, best_answers[place])
            best[place] = np.minimum(change, best[place])
            name = f"{self.campaign.attacks[shard.attack].name}#{shard.seed}"
            kept = by_attack.setdefault(name, np.ones(len(task.rows), dtype=bool))
            kept[place] = (found.clean == labels) & ~(change <= task.max_change * (1 + TOLERANCE))
            queries, gradients = queries + int(found.queries.sum()), gradients + int(found.gradients.sum())
        return Result(task, best_rows, best_answers, best, right, by_attack, queries, gradients)
