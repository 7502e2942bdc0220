"""scikit-learn models as targets: loaded and asked in a process of their own.

A model file is code. It is loaded only when its digest has a clean scan, and only from the very
bytes that were digested: they are handed to the process first, and it is told to load them when
their digest is known. No framework is imported on this side.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bartizan.core.digest import Digest, short
from bartizan.core.errors import ArtefactError, WorkError
from bartizan.core.system import Artefact, System
from bartizan.targets.isolated import PROCESS, Isolated, Limits, Reply, hand_over
from bartizan.targets.protocol import Access, Labels, Rows, Scores
from bartizan.targets.structure import MAX_NODES, Plan, Structure, unpack
from bartizan.targets.table import MAX_CLASSES, MAX_COLUMNS, read_columns

COMMAND = (*PROCESS, "bartizan.adapters.sklearn_host")
VICTIM = 0
"""Handle of the declared model in its process; fitted models have higher ones."""
_NUMBER = 8
MAX_STRUCTURE = MAX_NODES * 16 * _NUMBER
"""Bytes of a structure that are taken from a process."""


class SklearnTargets:
    """Opens declared scikit-learn models. See ``Targets``."""

    def __init__(self, has_clean_scan: Callable[[Digest], bool], limits: Limits | None = None) -> None:
        self._has_clean_scan = has_clean_scan
        self._limits = limits or Limits()

    @contextmanager
    def open(self, system: System, model: Artefact) -> Iterator[SklearnTarget]:
        """See ``Targets.open``.

        Raises:
            WorkError: the model's digest has no clean scan.
            ArtefactError: the file is not what was scanned, or holds no classifier that fits the data.
            SandboxError: the process is not confined as required, died, hung or broke a limit.
        """
        if not self._has_clean_scan(model.digest):
            raise WorkError(
                f"{model.id} ({short(model.digest)}) has no clean scan and is not loaded",
                remedy="scan it first: bartizan assure runs the scan before everything else.",
            )
        process = Isolated(COMMAND, model.name, self._limits)
        try:
            facts = _load(process, Path(model.path), model.digest)
            if facts.names:
                _check_names(system, model, facts.names)
            yield SklearnTarget(_Models(process, model.name), facts)
        finally:
            process.close()


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the process says of its model."""

    features: Annotated[int, msgspec.Meta(ge=1, le=MAX_COLUMNS)]
    classes: Annotated[int, msgspec.Meta(ge=2, le=MAX_CLASSES)]
    values: Annotated[tuple[str, ...], msgspec.Meta(max_length=MAX_CLASSES)]
    scores: bool
    names: Annotated[tuple[str, ...], msgspec.Meta(max_length=MAX_COLUMNS)]
    weights: bool = False
    """Its structure can be read."""


class _Models:
    """The declared model and those fitted like it, by handle."""

    def __init__(self, process: Isolated, name: str) -> None:
        self.process, self.name = process, name
        self.dropped: list[int] = []
        """Fitted models that nobody holds any longer."""
        self._last = VICTIM

    def new(self) -> int:
        """A handle that no model has had."""
        self._last += 1
        return self._last

    def ask(self, question: dict[str, Any], *arrays: NDArray[Any], size: int = 0, seconds: float = 0) -> bytearray:
        """One command, for the bytes of its answer. See ``tell``."""
        return self.tell(question, *arrays, size=size, seconds=seconds)[1]

    def tell(
        self, question: dict[str, Any], *arrays: NDArray[Any], size: int = 0, seconds: float = 0
    ) -> tuple[Reply, bytearray]:
        """One command.

        Raises:
            WorkError: the model cannot answer.
        """
        dropped, self.dropped[:] = list(self.dropped), []
        reply, body = self.process.exchange(
            question | {"drop": dropped},
            [memoryview(array).cast("B") for array in arrays if array.size],  # type: ignore[arg-type]  # numpy 2.4 stubs
            length=sum(array.nbytes for array in arrays),
            size=size,
            seconds=seconds or self.process.limits.answer_seconds,
        )
        if reply.error:
            raise WorkError(
                f"model {self.name!r} cannot do what was asked ({question['do']}): {reply.words}",
                remedy="see that the declared datasets fit the model.",
            )
        return reply, body


class SklearnTarget:
    """One model in a process: the declared one, or one that was fitted like it. See ``Target``."""

    def __init__(self, models: _Models, facts: Facts, handle: int = VICTIM) -> None:
        self._models, self._facts, self._handle = models, facts, handle
        if handle != VICTIM:
            weakref.finalize(self, models.dropped.append, handle)

    @property
    def name(self) -> str:
        """See ``Target.name``."""
        return f"model:{self._models.name}"

    @property
    def offers(self) -> frozenset[Access]:
        """See ``Target.offers``."""
        more = {Access.SCORES: self._facts.scores, Access.WEIGHTS: self._facts.weights}
        return frozenset({Access.LABELS, Access.TRAINING, *(access for access, given in more.items() if given)})

    @property
    def classes(self) -> int:
        """See ``Target.classes``."""
        return self._facts.classes

    @property
    def class_values(self) -> tuple[str, ...]:
        """See ``Target.class_values``."""
        return self._facts.values

    @property
    def features(self) -> int:
        """See ``Target.features``."""
        return self._facts.features

    def labels(self, rows: Rows) -> Labels:
        """See ``Target.labels``."""
        labels: Labels = np.frombuffer(self._ask("labels", rows, 1), dtype="<i8")
        if labels.size and not 0 <= labels.min() <= labels.max() < self.classes:
            self._models.process.condemn("answers with a class that there is not")
        return labels

    def scores(self, rows: Rows) -> Scores:
        """See ``Target.scores``."""
        if Access.SCORES not in self.offers:
            raise WorkError(f"{self.name} answers labels only", remedy="use an attack that needs labels only.")
        answer = np.frombuffer(self._ask("scores", rows, self.classes), dtype="<f8")
        scores: Scores = answer.reshape(len(rows), self.classes)
        if not np.isfinite(scores).all():
            self._models.process.condemn("answers with scores that are not finite")
        return scores

    def retrain(self, rows: Rows, labels: Labels, *, seed: int) -> SklearnTarget:
        """See ``Target.retrain``."""
        if labels.shape != rows.shape[:1] or not ((labels >= 0) & (labels < self.classes)).all():
            raise WorkError(f"{self.name}: labels {labels.shape} are not one of {self.classes} classes for each row")
        handle, seconds = self._models.new(), self._models.process.limits.fit_seconds
        question = {"do": "fit", "model": handle, "rows": len(rows), "seed": seed % 2**32}
        self._models.ask(question, self._checked(rows), np.ascontiguousarray(labels, dtype="<i8"), seconds=seconds)
        return SklearnTarget(self._models, self._facts, handle)

    def structure(self) -> Structure:
        """See ``Transparent.structure``. What the process sends is checked before it is used.

        Raises:
            WorkError: the model is of a kind whose structure is not read.
            SandboxError: what was sent is no structure of this model.
        """
        if Access.WEIGHTS not in self.offers:
            raise WorkError(
                f"{self.name} is of a kind whose structure is not read", remedy="use an attack that needs no weights."
            )
        process = self._models.process
        reply, _ = self._models.tell({"do": "structure", "model": self._handle})
        try:
            plan = msgspec.msgpack.decode(reply.facts, type=Plan)
            if not 0 <= plan.size <= MAX_STRUCTURE:
                process.condemn("says that its model is larger than any")
            structure = unpack(plan, self._models.ask({"do": "arrays"}, size=plan.size))
        except (msgspec.DecodeError, ArtefactError) as error:
            process.condemn(f"says impossible things of its model ({error})")
        if (structure.features, structure.classes) != (self.features, self.classes):
            process.condemn("shows the inside of another model")
        return structure

    def _ask(self, what: str, rows: Rows, columns: int) -> bytearray:
        question = {"do": what, "model": self._handle, "rows": len(rows)}
        return self._models.ask(question, self._checked(rows), size=_NUMBER * columns * len(rows))

    def _checked(self, rows: Rows) -> NDArray[np.float64]:
        if rows.shape != (len(rows), self.features):
            raise WorkError(f"{self.name} takes rows of {self.features} features and was given an array {rows.shape}")
        return np.ascontiguousarray(rows, dtype="<f8")


def _load(process: Isolated, path: Path, digest: Digest) -> Facts:
    """Let the process load the file, once its bytes are known to be those that were scanned."""
    hand_over(process, path, digest)
    reply, _ = process.exchange({"do": "load"}, seconds=process.limits.start_seconds)
    if reply.error:
        raise ArtefactError(
            f"{path.name} is no model that can be asked: {reply.words}",
            remedy="save a fitted scikit-learn classifier with joblib.dump, by the version that is installed here.",
        )
    try:
        return msgspec.msgpack.decode(reply.facts, type=Facts)
    except msgspec.DecodeError as error:
        process.condemn(f"says impossible things of its model ({error})")


def _check_names(system: System, model: Artefact, names: tuple[str, ...]) -> None:
    """A model that was fitted to named columns must be given these, in that order."""
    part = system.dataset_part(system.model_part(model.name).trained_on)
    columns = read_columns(system.artefact(f"dataset:{part.name}").path, part)
    for ours, theirs in zip_longest(names, columns, fillvalue="nothing"):
        if ours != theirs:
            raise ArtefactError(
                f"{model.id} was fitted to a column {ours!r} where dataset {part.name!r} has {theirs!r}",
                remedy="declare the dataset that the model was trained on, with its columns in the same order.",
            )
