"""Declared models as targets: loaded and asked in a process of their own, whatever framework they are of.

A model file is code, or steers code. It is loaded only when its digest has a clean scan, and only from the very
bytes that were digested: they are handed to the process first, and it is told to load them when
their digest is known. No framework is imported on this side; the other side is a host (``targets.host``).
"""

from __future__ import annotations

import math
import re
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from bartizan.core.digest import Digest, short
from bartizan.core.errors import ArtefactError, WorkError
from bartizan.core.system import Artefact, System
from bartizan.targets.isolated import PROCESS, Isolated, Limits, Reply, hand_over
from bartizan.targets.protocol import Access, Labels, Loss, Rows, Scores
from bartizan.targets.structure import MAX_NODES, Plan, Structure, unpack
from bartizan.targets.table import MAX_CLASSES, MAX_COLUMNS, read_columns

VICTIM = 0
"""Handle of the declared model in its process; fitted models have higher ones."""
_NUMBER = 8
MAX_STRUCTURE = MAX_NODES * 16 * _NUMBER
"""Bytes of a structure that are taken from a process."""
MAX_FEATURES = 1 << 22
MAX_REASON = 500
MESSAGE_BYTES = 1 << 26
"""Rows and answers of one exchange."""
BATCH = 512
"""Larger calls are cut at multiples of this, which hosts pass through a model at once: so that how they are cut
changes nothing of what is computed."""

_Name = Annotated[str, msgspec.Meta(max_length=MAX_REASON)]


@dataclass(frozen=True, slots=True)
class Framework:
    """How models of one framework are held."""

    host: str
    """Module with the commands; see ``targets.hosting``."""
    remedy: str
    """What to do when a file is no model of it."""
    library_bytes: int = 0
    """Address space that its libraries take for themselves, on top of the limit."""
    describes_itself: bool = False
    """Its files say how many features they take."""


class HostedTargets:
    """Opens declared models of the frameworks given by name. See ``Targets``."""

    def __init__(
        self,
        frameworks: dict[str, Framework],
        has_clean_scan: Callable[[Digest], bool],
        limits: Limits | None = None,
    ) -> None:
        self._frameworks = frameworks
        self._has_clean_scan = has_clean_scan
        self._limits = limits or Limits()

    @contextmanager
    def open(self, system: System, model: Artefact) -> Iterator[HostedTarget]:
        """See ``Targets.open``.

        Raises:
            WorkError: the model's digest has no clean scan, or nothing here holds models of its framework.
            ArtefactError: the file is not what was scanned, or holds no classifier that fits the data.
            SandboxError: the process is not confined as required, died, hung or broke a limit.
        """
        if not self._has_clean_scan(model.digest):
            raise WorkError(
                f"{model.id} ({short(model.digest)}) has no clean scan and is not loaded",
                remedy="scan it first: bartizan assure runs the scan before everything else.",
            )
        name = system.model_part(model.name).framework
        framework = self._frameworks.get(name)
        if framework is None:
            raise WorkError(f"{model.id}: models of {name} cannot be loaded here", remedy="attack it behind a server.")
        limits = msgspec.structs.replace(self._limits, memory_bytes=self._limits.memory_bytes + framework.library_bytes)
        process = Isolated((*PROCESS, framework.host), model.name, limits)
        try:
            facts = _load(process, framework, system, model)
            if facts.names:
                _check_names(system, model, facts.names)
            network = facts.logits or facts.gradients or facts.width > 0
            yield (HostedNetwork if network else HostedTarget)(_Models(process, model.name), facts)
        finally:
            process.close()


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the process says of its model."""

    features: Annotated[int, msgspec.Meta(ge=1, le=MAX_FEATURES)]
    classes: Annotated[int, msgspec.Meta(ge=2, le=MAX_CLASSES)]
    values: Annotated[tuple[str, ...], msgspec.Meta(max_length=MAX_CLASSES)] = ()
    scores: bool = False
    names: Annotated[tuple[str, ...], msgspec.Meta(max_length=MAX_COLUMNS)] = ()
    training: bool = False
    weights: bool = False
    """Its structure can be read."""
    logits: bool = False
    gradients: bool = False
    width: Annotated[int, msgspec.Meta(ge=0, le=MAX_FEATURES)] = 0
    """Of the input of its last layer; 0 where that is not read."""
    single: bool = False
    """It computes in float32."""
    shape: Annotated[tuple[int, ...], msgspec.Meta(max_length=3)] = ()
    lacks: Annotated[dict[Access, _Name], msgspec.Meta(max_length=8)] = {}
    """Access that it does not offer, and why."""


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


class HostedTarget:
    """One model in a process: the declared one, or one that was fitted like it.

    See ``Target``, and ``Transparent`` as far as ``offers`` says so.
    """

    def __init__(self, models: _Models, facts: Facts, handle: int = VICTIM) -> None:
        self._models, self._facts, self._handle = models, facts, handle
        self.dtype: np.dtype[Any] = np.dtype(np.float32 if facts.single else np.float64)
        self.shape = facts.shape or (facts.features,)
        if handle != VICTIM:
            weakref.finalize(self, models.dropped.append, handle)

    @property
    def name(self) -> str:
        """See ``Target.name``."""
        return f"model:{self._models.name}"

    @property
    def offers(self) -> frozenset[Access]:
        """See ``Target.offers``."""
        facts = self._facts
        more = {
            Access.SCORES: facts.scores,
            Access.TRAINING: facts.training,
            Access.LOGITS: facts.logits,
            Access.GRADIENTS: facts.gradients,
            Access.WEIGHTS: facts.weights or facts.width > 0,
        }
        return frozenset({Access.LABELS, *(access for access, given in more.items() if given)})

    @property
    def lacks(self) -> dict[str, str]:
        """Access that is not offered, and why, as far as the process says so."""
        return {access: _printable(why) for access, why in self._facts.lacks.items() if access not in self.offers}

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
        labels: Labels = self._ask("labels", rows, 1, "<i8")[:, 0]
        if labels.size and not 0 <= labels.min() <= labels.max() < self.classes:
            self._models.process.condemn("answers with a class that there is not")
        return labels

    def scores(self, rows: Rows) -> Scores:
        """See ``Target.scores``."""
        self._insist(Access.SCORES, "use an attack that needs labels only")
        return self._finite("scores", self._ask("scores", rows, self.classes, "<f8"))

    def retrain(self, rows: Rows, labels: Labels, *, seed: int) -> Self:
        """See ``Target.retrain``."""
        self._insist(Access.TRAINING, "use an attack that trains nothing")
        self._check_labels(rows, labels)
        handle, seconds = self._models.new(), self._models.process.limits.fit_seconds
        question = {"do": "fit", "model": handle, "rows": len(rows), "seed": seed % 2**32}
        self._models.ask(question, self._checked(rows), np.ascontiguousarray(labels, dtype="<i8"), seconds=seconds)
        return type(self)(self._models, self._facts, handle)

    def structure(self) -> Structure:
        """See ``Transparent.structure``. What the process sends is checked before it is used.

        Raises:
            WorkError: the model is of a kind whose structure is not read.
            SandboxError: what was sent is no structure of this model.
        """
        if not self._facts.weights:
            self._missing(Access.WEIGHTS, "it is of a kind whose structure is not read", "use what needs no weights")
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

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._models.process.alive

    def clock(self) -> float:
        """See ``Clocked.clock``."""
        return self._models.process.cpu_seconds()

    @property
    def _float(self) -> str:
        return "<f4" if self._facts.single else "<f8"

    def _ask(
        self, what: str, rows: Rows, columns: int, kind: str, *more: NDArray[np.int64], **question: Any
    ) -> NDArray[Any]:
        """Answer ``(rows, columns)``, in as many exchanges as that takes."""
        checked = self._checked(rows)
        size = self._rows_of_exchange(checked, columns * np.dtype(kind).itemsize)
        parts = []
        for start in range(0, max(len(checked), 1), size):
            part = slice(start, start + size)
            asked = question | {"do": what, "model": self._handle, "rows": len(checked[part])}
            arrays = [np.ascontiguousarray(array[part], dtype="<i8") for array in more]
            length = np.dtype(kind).itemsize * columns * len(checked[part])
            body = self._models.ask(asked, checked[part], *arrays, size=length)
            parts.append(np.frombuffer(body, dtype=kind).reshape(-1, columns))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _rows_of_exchange(self, rows: NDArray[Any], answer: int) -> int:
        """How many rows, with answers of so many bytes, go over at once."""
        size = max(1, MESSAGE_BYTES // max(rows.itemsize * self.features, answer))
        return size - size % BATCH if size > BATCH else size

    def _finite(self, what: str, answer: NDArray[Any]) -> NDArray[Any]:
        if not np.isfinite(answer).all():
            self._models.process.condemn(f"answers with {what} that are not finite")
        return answer

    def _insist(self, access: Access, remedy: str) -> None:
        if access not in self.offers:
            fault = "it answers labels only" if access is Access.SCORES else f"it offers no {access.value}"
            self._missing(access, fault, remedy)

    def _missing(self, access: Access, fault: str, remedy: str) -> None:
        raise WorkError(f"{self.name}: {self.lacks.get(access, fault)}", remedy=f"{remedy}.")

    def _check_labels(self, rows: Rows, labels: Labels) -> None:
        if labels.shape != rows.shape[:1] or not ((labels >= 0) & (labels < self.classes)).all():
            raise WorkError(f"{self.name}: labels {labels.shape} are not one of {self.classes} classes for each row")

    def _checked(self, rows: Rows) -> NDArray[np.floating]:
        if rows.shape != (len(rows), self.features):
            raise WorkError(f"{self.name} takes rows of {self.features} features and was given an array {rows.shape}")
        return np.ascontiguousarray(rows, dtype=self._float)


class HostedNetwork(HostedTarget):
    """One network in a process. See ``Differentiable`` and ``Layered``, as far as ``offers`` says so."""

    def logits(self, rows: Rows) -> Scores:
        """See ``Differentiable.logits``."""
        self._insist(Access.LOGITS, "use an attack that needs no logits")
        return self._finite("logits", self._ask("logits", rows, self.classes, self._float))

    def gradients(self, rows: Rows, loss: Loss, labels: Labels, targets: Labels | None = None) -> NDArray[np.floating]:
        """See ``Differentiable.gradients``."""
        self._insist(Access.GRADIENTS, "use an attack that needs no gradients")
        named = [labels] if targets is None else [labels, targets]
        for classes in named:
            self._check_labels(rows, classes)
        question = {"loss": loss.value, "aimed": targets is not None}
        answer = self._ask("gradients", rows, self.classes + self.features, self._float, *named, **question)
        return self._finite("gradients", answer)

    def activations(self, rows: Rows) -> NDArray[np.floating]:
        """See ``Layered.activations``."""
        if not self._facts.width:
            self._missing(Access.WEIGHTS, "its last layer is not told apart", "use what needs no activations")
        return self._finite("activations", self._ask("activations", rows, self._facts.width, self._float))

    def disagreement(self) -> float:
        """Largest difference seen so far between logits behind gradients and those of the framework itself.

        0 where gradients are of the framework itself.
        """
        reply, _ = self._models.tell({"do": "disagreement"})
        try:
            return msgspec.msgpack.decode(reply.facts, type=float)
        except msgspec.DecodeError:
            self._models.process.condemn("broke the protocol")


def _load(process: Isolated, framework: Framework, system: System, model: Artefact) -> Facts:
    """Let the process load the file, once its bytes are known to be those that were scanned."""
    path = Path(model.path)
    hand_over(process, path, model.digest)
    expected = {} if framework.describes_itself else _expected(system, model)
    reply, _ = process.exchange({"do": "load"} | expected, seconds=process.limits.start_seconds)
    if reply.error:
        raise ArtefactError(f"{path.name} is no model that can be asked: {reply.words}", remedy=framework.remedy)
    try:
        facts = msgspec.msgpack.decode(reply.facts, type=Facts)
    except msgspec.DecodeError as error:
        process.condemn(f"says impossible things of its model ({error})")
    if facts.shape and (min(facts.shape) < 1 or math.prod(facts.shape) != facts.features):
        process.condemn("says impossible things of its model (its shape)")
    return facts


def _expected(system: System, model: Artefact) -> dict[str, Any]:
    """What the declaration says of the model's rows and answers."""
    part = system.model_part(model.name)
    data = system.dataset_part(part.trained_on)
    shape = tuple(getattr(data, "shape", ()))
    features = math.prod(shape) if shape else len(read_columns(system.artefact(f"dataset:{data.name}").path, data))
    return {"classes": len(part.classes), "features": features, "shape": shape}


def _check_names(system: System, model: Artefact, names: tuple[str, ...]) -> None:
    """A model that was fitted to named columns must be given these, in that order."""
    part = system.dataset_part(system.model_part(model.name).trained_on)
    columns = read_columns(system.artefact(f"dataset:{part.name}").path, part)
    for ours, theirs in zip_longest(names, columns, fillvalue="nothing"):
        # Some frameworks write names without blanks.
        if ours not in {theirs, re.sub(r"\s", "_", theirs)}:
            raise ArtefactError(
                f"{model.id} was fitted to a column {ours!r} where dataset {part.name!r} has {theirs!r}",
                remedy="declare the dataset that the model was trained on, with its columns in the same order.",
            )


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)
