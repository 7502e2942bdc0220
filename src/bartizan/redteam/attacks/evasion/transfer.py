"""Transfer: evasion by an adversary who practises on a model of its own."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import BudgetError, InputError
from bartizan.redteam.asking import Asking, Samples
from bartizan.redteam.attack import Query, Search, slope
from bartizan.redteam.substitute import ensemble
from bartizan.redteam.tasks import EvasionTask
from bartizan.targets.protocol import Access, Differentiable, Labels, Loss, Rows, Scores, Target

STEPS = 20
DECAY = 1.0
"""Of the gathered direction (the paper's choice)."""
RESTARTS = 3
"""Times that all models are climbed together, from different starts."""
COPIED_ROWS = 2_000
"""Rows that a model without gradients is asked about, so that it can be copied."""
COPY_JITTER = 0.5
"""How far those are from the adversary's own rows, in standard deviations."""


class Slopes(Protocol):
    """What is practised on."""

    def gradients(self, rows: Rows, loss: Loss, labels: Labels, targets: Labels | None = None) -> NDArray[np.floating]:
        """See ``Differentiable.gradients``."""


class Transfer:
    """Climb the loss of models of one's own with momentum, all of them at once, then try the victim.

    Without ``models`` the adversary trains three small networks on the rows it owns. With them, it
    practises on those: a public parent of the victim, another member of an ensemble, the model of
    another site. One that gives gradients is climbed itself; any other is copied first, by asking it
    about rows near the adversary's own. Practice costs no query of the victim.

    Asks the victim once for the first candidate of each sample, and again only where that failed: of
    all models together from several starts, then of each alone.
    """

    name = "evasion.transfer"
    title = "Transfer: rows made on a model of one's own, tried on the victim"
    family = "evasion"
    technique = "T09"
    atlas: tuple[str, ...] = ("AML.T0043.002", "AML.T0015")
    needs: frozenset[Access] = frozenset({Access.LABELS})
    position = "user"
    together = True
    """All samples are attacked together; a part of them would be another attack."""
    references: tuple[str, ...] = (
        "Dong et al.: Boosting adversarial attacks with momentum. CVPR 2018, arXiv:1710.06081",
        "Papernot et al.: Transferability in machine learning. 2016, arXiv:1605.07277",
        "Liu et al.: Delving into transferable adversarial examples. ICLR 2017, arXiv:1611.02770",
    )

    def __init__(self, models: Sequence[Target] = (), *, practised: Sequence[Slopes] = ()) -> None:
        self.models = tuple(models)
        self._ready = tuple(practised)

    def rehearsed(self, task: EvasionTask, rng: np.random.Generator) -> Transfer:
        """The same adversary after practice, so that many searches on one task do not each begin with it.

        Raises:
            InputError: as ``search``.
        """
        return Transfer(self.models, practised=self._practised(task, rng))

    def search(self, task: EvasionTask, rng: np.random.Generator) -> Search:
        """See ``Attack.search``.

        Raises:
            InputError: there is neither a model to practise on nor a row to train one.
        """
        practised = self._practised(task, rng)
        asking = Asking(task)
        try:
            for number, candidates in enumerate(_candidates(task, practised, rng)):
                failed = asking.open
                if not failed.size:
                    break
                yield from _try(asking, failed, candidates, first=number == 0)
        except BudgetError:
            pass
        return asking.closest.rows

    def _practised(self, task: EvasionTask, rng: np.random.Generator) -> tuple[Slopes, ...]:
        if self._ready:
            return self._ready
        if not self.models:
            if len(np.unique(task.start_labels)) < _TWO:
                raise InputError(
                    f"{self.name} has no model to practise on, and owns no rows of two classes to train one",
                    remedy="give it a model, or rows of its own (starts).",
                )
            return _trained(task, task.starts, _one_hot(task.start_labels, task.classes), rng)
        practised: list[Slopes] = []
        for model in self.models:
            if isinstance(model, Differentiable) and Access.GRADIENTS in model.offers:
                practised.append(model)
            else:
                practised += _copies(model, task, rng)
        return tuple(practised)


_TWO = 2


def _one_hot(labels: Labels, classes: int) -> Scores:
    certain: Scores = np.eye(classes)[labels]
    return certain


def _trained(task: EvasionTask, rows: Rows, targets: Scores, rng: np.random.Generator) -> tuple[Slopes, ...]:
    return ensemble(rows, targets, task.space.scale, rng)


def _copies(model: Target, task: EvasionTask, rng: np.random.Generator) -> tuple[Slopes, ...]:
    """Networks that answer as ``model`` does around the adversary's own rows and those under attack."""
    owned = np.concatenate([task.starts, task.rows])
    picked = owned[rng.integers(0, len(owned), COPIED_ROWS)]
    rows = task.space.project(
        picked + COPY_JITTER * task.space.scale * rng.standard_normal(picked.shape).astype(picked.dtype), picked
    )
    rows = np.concatenate([owned, rows])
    if Access.SCORES in model.offers:
        return _trained(task, rows, model.scores(rows), rng)
    return _trained(task, rows, _one_hot(model.labels(rows), task.classes), rng)


def _try(asking: Asking, sample: Samples, candidates: _Candidates, *, first: bool) -> Generator[Query, Labels, None]:
    """Ask the untouched rows before anything else where more than one query is left; then the candidates."""
    if first and asking.task.budget > 1:
        fooled = yield from asking.labels(sample, asking.task.rows[sample])
        sample = sample[~fooled]
    if sample.size:
        yield from asking.labels(sample, candidates.of(sample))


@dataclass(frozen=True, slots=True)
class _Candidates:
    """One way to make candidates; they are made when they are needed, for the samples that need them."""

    task: EvasionTask
    models: tuple[Slopes, ...]
    rng: np.random.Generator
    random_start: bool

    def of(self, sample: Samples) -> Rows:
        """``(samples, features)``: where the loss of the models, added up, is highest within the bound."""
        task, labels = self.task, self.task.labels[sample]
        rows, gathered = self._start(sample), np.zeros((len(sample), task.rows.shape[1]))
        length = 2.5 * task.max_change / STEPS
        for _ in range(STEPS):
            climb = np.zeros_like(gathered)
            for model in self.models:
                _, gradient = slope(model.gradients(rows, Loss.CROSS_ENTROPY, labels), task.classes)
                climb += _unit(gradient * task.space.scale)
            gathered = DECAY * gathered + _unit(climb)
            step = np.sign(gathered) if task.norm == np.inf else _unit(gathered, 2)
            rows = task.within(rows + (length * step * task.space.scale).astype(rows.dtype), sample)
        return rows

    def _start(self, sample: Samples) -> Rows:
        rows = self.task.rows[sample]
        if not self.random_start:
            return rows
        noise = self.rng.uniform(-1, 1, rows.shape) * self.task.max_change * self.task.space.scale
        return self.task.within(rows + noise.astype(rows.dtype), sample)


def _unit(rows: NDArray[np.floating], norm: int = 1) -> NDArray[np.floating]:
    """Rows of length 1; those of length 0 stay."""
    length = np.linalg.norm(rows, norm, axis=1, keepdims=True)
    return np.asarray(rows / np.where(length > 0, length, 1))


def _candidates(task: EvasionTask, models: tuple[Slopes, ...], rng: np.random.Generator) -> Iterator[_Candidates]:
    for restart in range(RESTARTS):
        yield _Candidates(task, models, rng, random_start=restart > 0)
    if len(models) > 1:
        for model in models:
            yield _Candidates(task, (model,), rng, random_start=False)
