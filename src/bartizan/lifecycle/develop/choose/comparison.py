"""A comparison: every candidate, every column, and what follows; measured once, kept by content."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from bartizan.core.digest import Digest, canonical_json, digest_json
from bartizan.core.predicates import Metric
from bartizan.lifecycle.develop.choose.candidate import Aspect, Candidate, Interpretability, Supply
from bartizan.lifecycle.develop.choose.capacity import Capacity
from bartizan.lifecycle.develop.choose.copying import Copying
from bartizan.lifecycle.develop.choose.cost import Cost
from bartizan.lifecycle.develop.choose.leakage import Leakage
from bartizan.lifecycle.develop.choose.outside import Outside
from bartizan.lifecycle.develop.choose.paired import Pair, all_pairs
from bartizan.lifecycle.develop.choose.quality import Quality, right_from_text
from bartizan.lifecycle.develop.choose.robustness import Robustness
from bartizan.lifecycle.develop.choose.trial import Column, Part, Trial
from bartizan.lifecycle.develop.choose.tuning import Alternative, Choice, Tuned, tune
from bartizan.redteam.family import Material
from bartizan.targets.protocol import Target

VERSION = "1"
T = TypeVar("T", Tuned, Part)
COLUMNS: tuple[type[Column], ...] = (Quality, Cost, Capacity, Outside, Robustness, Leakage, Copying)
"""In the order in which they are measured, the quick ones first."""
ALWAYS = ("quality", "cost")
"""Columns that a recommendation cannot do without."""
OF_A_FAMILY = (Aspect.ARCHITECTURE, Aspect.CONFIGURATION, Aspect.HYPERPARAMETERS)
"""Aspects that a candidate may leave no choice in."""
FIXED = "nothing to choose"


class Keep(Protocol):
    """Where measurements are kept, by the digest of everything that they rest on."""

    def get(self, key: Digest) -> bytes | None:
        """What was kept; None when there is nothing."""

    def put(self, key: Digest, data: bytes) -> None:
        """Keep."""


class Listener(Protocol):
    """Told how far a comparison is."""

    def tell(self, candidate: str, what: str, done: int, total: int, note: str) -> None:
        """``done`` of ``total`` within ``what``, a column or the tuning, of one candidate."""

    def finished(self, candidate: str, what: str, *, kept: bool) -> None:
        """``kept``: it was measured before and is taken over."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one candidate."""

    name: str
    title: str
    supply: Supply
    is_floor: bool
    interpretability: Interpretability
    why: str
    """Why it is of that class."""
    settings: dict[str, Any]
    choices: tuple[Choice, ...]
    parts: dict[str, Part]
    """By column."""

    @property
    def metrics(self) -> dict[str, Metric]:
        """All metrics of all columns."""
        return {name: found for part in self.parts.values() for name, found in part.metrics.items()}

    def value(self, name: str) -> float | None:
        """A metric's value; None when it was not measured."""
        found = self.metrics.get(name)
        return None if found is None else found.value


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """All candidates under the same measurements."""

    version: str
    model: str
    """Declared model whose data were used."""
    training: str
    evaluation: str
    records: dict[str, int]
    """``training``, ``evaluation``."""
    classes: tuple[str, ...]
    seed: int
    quick: bool
    entries: tuple[Entry, ...]
    pairs: tuple[Pair, ...]
    """By accuracy, on all evaluation rows."""
    robust_pairs: tuple[Pair, ...]
    """By robustness, on the attacked rows."""

    def entry(self, name: str) -> Entry:
        """The candidate called ``name``; KeyError when there is none."""
        for entry in self.entries:
            if entry.name == name:
                return entry
        raise KeyError(name)

    def choices(self, name: str) -> tuple[Choice, ...]:
        """Every recorded choice that leads to one candidate, each with its alternatives."""
        entry = self.entry(name)
        family = Choice(
            aspect=Aspect.ALGORITHM,
            setting="family",
            chosen=name,
            alternatives=tuple(
                Alternative(value=other.name, accuracy=other.metrics["accuracy"]) for other in self.entries
            ),
            why="accuracy on the evaluation records; the other columns and the paired tests are in the comparison",
        )
        made = (family, *entry.choices, *_data_choice(entry))
        return (*made, *(self._fixed(entry, aspect) for aspect in OF_A_FAMILY if aspect not in _aspects(made)))

    def _fixed(self, entry: Entry, aspect: Aspect) -> Choice:
        """An aspect in which a candidate leaves nothing to choose; the alternatives are candidates that do."""
        own = Alternative(value=FIXED, accuracy=entry.metrics["accuracy"])
        others = tuple(
            Alternative(value=f"{other.name}: {choice.setting} {choice.chosen}", accuracy=other.metrics["accuracy"])
            for other in self.entries
            for choice in other.choices
            if other.name != entry.name and choice.aspect == aspect
        )
        why = f"comes with the choice of {entry.name}, which has no such setting; beside it are candidates that have"
        return Choice(aspect=aspect, setting="of the family", chosen=FIXED, alternatives=(own, *others), why=why)


def _aspects(choices: Iterable[Choice]) -> set[Aspect]:
    return {choice.aspect for choice in choices}


def _data_choice(entry: Entry) -> tuple[Choice, ...]:
    """The number of training records, with what fewer of them would have given."""
    part = entry.parts.get("capacity")
    curve = part.curves.get("accuracy_by_records", ()) if part else ()
    if not curve:
        return ()
    alternatives = tuple(
        Alternative(value=int(point.x), accuracy=Metric(value=point.value, low=point.low, high=point.high, n=0))
        for point in curve
    )
    rising = bool(part and part.details.get("still_rising"))
    why = "all declared records; accuracy still rises with more" if rising else "all declared records"
    return (Choice(aspect=Aspect.DATA, setting="records", chosen=int(curve[-1].x), alternatives=alternatives, why=why),)


@dataclass(frozen=True)
class Bench:
    """What a comparison needs beside its candidates."""

    material: Material
    basis: Mapping[str, str]
    """Digests of the datasets and whatever else all measurements rest on."""
    keep: Keep
    listener: Listener
    quick: bool = False
    suite: Sequence[Column] = tuple(column() for column in COLUMNS)
    """Columns to measure, quality and cost among them."""


def compare(candidates: Sequence[Candidate], bench: Bench) -> Comparison:
    """Measure what is not kept yet, and put everything together.

    Raises:
        BartizanError: a measurement could not be done; what was done before is kept.
    """
    entries = tuple(_entry(candidate, bench) for candidate in candidates)
    model, material = bench.material.model, bench.material
    evaluated = len(material.evaluation)
    right = {entry.name: _right(entry, evaluated) for entry in entries}
    robust = {entry.name: flags for entry in entries if (flags := _robust(entry)) is not None}
    return Comparison(
        version=VERSION,
        model=model.name,
        training=model.trained_on,
        evaluation=model.evaluated_on,
        records={"training": len(material.training), "evaluation": evaluated},
        classes=model.classes,
        seed=material.settings.seed,
        quick=bench.quick,
        entries=entries,
        pairs=all_pairs(right),
        robust_pairs=all_pairs(robust),
    )


def _right(entry: Entry, count: int) -> NDArray[np.bool_]:
    return right_from_text(entry.parts["quality"].details["right"], count)


def _robust(entry: Entry) -> NDArray[np.bool_] | None:
    part = entry.parts.get("robustness")
    return None if part is None or part.missing else np.array([flag == "1" for flag in part.details["robust"]])


class _Maker:
    """Fits a candidate when the first measurement asks for it."""

    def __init__(self, candidate: Candidate, bench: Bench, settings: dict[str, Any]) -> None:
        self._candidate, self._bench, self._settings = candidate, bench, settings
        self._target: Target | None = None

    def trial(self, column: str) -> Trial:
        material = self._bench.material
        if self._target is None:
            self._target = self._candidate.fit(
                material.training.rows,
                material.training.labels,
                classes=len(material.model.classes),
                seed=material.settings.seed % 2**32,
                settings=self._settings,
            )
        return Trial(
            self._candidate,
            self._target,
            material,
            self._settings,
            quick=self._bench.quick,
            tell=_teller(self._bench, self._candidate, column),
        )


def _teller(bench: Bench, candidate: Candidate, what: str) -> Callable[[int, int, str], None]:
    return lambda done, total, note: bench.listener.tell(candidate.name, what, done, total, note)


def _entry(candidate: Candidate, bench: Bench) -> Entry:
    chosen = tuned(candidate, bench)
    maker = _Maker(candidate, bench, chosen.settings)
    parts = {column.name: _part(column, maker, candidate, bench, chosen.settings) for column in bench.suite}
    seen = parts["cost"].details
    return Entry(
        name=candidate.name,
        title=candidate.title,
        supply=candidate.supply,
        is_floor=candidate.is_floor,
        interpretability=Interpretability(seen["interpretability"]),
        why=seen["why"],
        settings=chosen.settings,
        choices=chosen.choices,
        parts=parts,
    )


def tuned(candidate: Candidate, bench: Bench) -> Tuned:
    """The settings of a candidate, chosen now or before."""
    seed = bench.material.settings.seed % 2**32
    key = _key(candidate, bench, ["tuning", "1", msgspec.to_builtins(candidate.axes)])

    def measure() -> Tuned:
        return tune(
            candidate, bench.material.training, seed=seed, quick=bench.quick, tell=_teller(bench, candidate, "tuning")
        )

    return _kept(key, Tuned, measure, candidate=candidate, what="tuning", bench=bench)


def _part(column: Column, maker: _Maker, candidate: Candidate, bench: Bench, settings: dict[str, Any]) -> Part:
    key = _key(candidate, bench, [column.name, column.version, settings])
    return _kept(
        key, Part, lambda: column.measure(maker.trial(column.name)), candidate=candidate, what=column.name, bench=bench
    )


def _key(candidate: Candidate, bench: Bench, rest: list[Any]) -> Digest:
    """Digest of everything that a measurement rests on."""
    material = bench.material
    said = [material.model.classes, material.model.positive, msgspec.to_builtins(material.settings)]
    about = [VERSION, candidate.name, candidate.fingerprint(), dict(bench.basis), said, bench.quick]
    return digest_json([*about, *rest])


def _kept(key: Digest, kind: type[T], measure: Callable[[], T], *, candidate: Candidate, what: str, bench: Bench) -> T:
    """What was measured before, or is measured now and kept."""
    data = bench.keep.get(key)
    if data is not None:
        try:
            found = msgspec.json.decode(data, type=kind)
        except msgspec.DecodeError:
            pass
        else:
            bench.listener.finished(candidate.name, what, kept=True)
            return found
    made = measure()
    data = canonical_json(msgspec.to_builtins(made, str_keys=True))
    bench.keep.put(key, data)
    bench.listener.finished(candidate.name, what, kept=False)
    # Read back, so that a run that was interrupted and one that was not give the same.
    return msgspec.json.decode(data, type=kind)
