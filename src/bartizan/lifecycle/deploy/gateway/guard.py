"""The Guard shape: one protection of the pipeline, and what it is given and says.

A guard is registered under the entry-point group ``bartizan.guards`` by the name by which the configuration uses
it. Guards do not know one another. The pipeline orders them by cost, runs each in ``shadow`` (what it says is
recorded, and nothing follows) or ``enforce`` mode, and takes one that fails for one that refuses.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from bartizan.core.digest import Digest
from bartizan.lifecycle.deploy.gateway.caller import Caller
from bartizan.lifecycle.deploy.gateway.state import SharedState

Numbers = NDArray[np.floating[Any]]
"""Rows as the model takes them, ``(batch, features)``, float32 or float64; images lie flat."""
Mode = Literal["shadow", "enforce"]


class Action(enum.IntEnum):
    """What a guard wants done with a request. The highest of all guards that enforce is what happens."""

    ALLOW = 0
    FLAG = 1
    """Answer, and keep the case for a person to look at afterwards."""
    COARSEN = 2
    """Answer with the label alone."""
    HOLD = 3
    """Answer when a person has confirmed it."""
    THROTTLE = 4
    """Not now: 429, and the answer says when."""
    REFUSE = 5


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What one guard says of one request."""

    action: Action
    reason: str = ""
    """For the audit record and the reviewer; no client sees it."""
    measures: dict[str, float] = {}
    """Numbers that it rests on, such as ``distance``; for the record, and for guards and rules that come later."""
    rows: Numbers | None = None
    """Other rows to go on with, when the guard changes them."""
    labels: NDArray[np.int64] | None = None
    """Only in answer to ``on_response``: other labels than the model's, where a rule overrules it."""
    scores: NDArray[np.float64] | None = None
    """Only in answer to ``on_response``: other scores, such as less confident ones."""
    wait: float = 0.0
    """Seconds after which a throttled caller may come again."""


class Asked:
    """One request on its way through the pipeline. Guards read it; the pipeline alone writes to it."""

    __slots__ = ("caller", "digest", "foreseen", "given", "id", "measures", "model", "now", "rows", "verified")

    def __init__(
        self, *, request: str, caller: Caller, model: str, digest: Digest, rows: Numbers, now: float, verified: str = ""
    ) -> None:
        self.id = request
        """Of the request; names its audit record."""
        self.caller, self.model, self.digest = caller, model, digest
        self.given = rows
        """Rows as they came."""
        self.rows = rows
        """Rows as the model will take them: guards may have changed them."""
        self.now = now
        """Seconds since the epoch."""
        self.verified = verified
        """Source that signed this input (RFC 9421); empty when none did."""
        self.measures: dict[str, float] = {}
        """What guards measured so far, as ``guard.measure``; for a batch, that of its worst row."""
        self.foreseen: Mapping[str, Any] = {}
        """What guards worked out of its row together with others, by their names."""

    def ahead(self, guard: str) -> Any:
        """What a guard worked out beforehand; None when it did not, or the row is another one since."""
        return self.foreseen.get(guard) if self.rows is self.given else None


class Answer:
    """What the model answered. Guards read it; the pipeline alone writes to it."""

    __slots__ = ("_foretold", "_place", "labels", "microseconds", "scores", "source")

    def __init__(
        self, labels: NDArray[np.int64], scores: NDArray[np.float64] | None = None, source: str = "model"
    ) -> None:
        self.labels = labels
        """Class indices, ``(batch,)``."""
        self.scores = scores
        """Probabilities, ``(batch, classes)``; None when the model has none."""
        self.source = source
        """``model``, ``cache``, ``rule``, ``review`` or ``fallback``."""
        self.microseconds = 0
        """That the model took for it, as far as the host knows; its share of a batch."""
        self._foretold: Mapping[str, Sequence[Any]] | None = None
        self._place = 0

    def __len__(self) -> int:
        return len(self.labels)

    def tell_ahead(self, foretold: Mapping[str, Sequence[Any]] | None, place: int = 0) -> None:
        """Remember what guards worked out of answers that came together, and which of them this one is."""
        self._foretold, self._place = foretold, place

    def ahead(self, guard: str) -> Any:
        """What a guard worked out beforehand; None when it did not, or the answer is another one since."""
        if self._foretold is None:
            return None
        found = self._foretold.get(guard)
        return None if found is None else found[self._place]


class Guard(Protocol):
    """One protection. Called on one thread; must not block, and is bounded in time and memory."""

    name: str
    cost: float
    """Microseconds that one row takes, about: cheap guards come first."""

    def on_request(self, asked: Asked) -> Verdict | None:
        """Look at the request before the model is asked; None: nothing to say.

        A guard that needs the scores for ``on_response`` has an attribute ``wants_scores`` that is true. One that can
        tell by the rows alone, of many requests at once, that it has nothing to say of any of them, has a method
        ``clears(rows, most)``, where no request has more than ``most`` of the rows. One that works quicker on many rows
        than on each has a method ``foresee(rows)``, which gives something for each row of requests that have one:
        ``asked.ahead(name)`` gives it back.
        """

    def on_response(self, asked: Asked, answer: Answer) -> Verdict | None:
        """Look at the answer before it is tailored; None: nothing to say.

        A guard that never has anything to say of one has an attribute ``for_requests`` that is true. One that works
        quicker on many answers than on each has a true attribute ``foretells`` and a method ``foretell(labels,
        scores)``, which gives something for each answer to one row, ``(batch,)`` and ``(batch, classes)``:
        ``answer.ahead(name)`` gives it back.
        """


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """What is declared and known of one feature."""

    name: str
    low: float | None = None
    high: float | None = None
    whole: bool = False
    categories: tuple[float, ...] = ()
    """Numbers that stand for categories; empty: it is no category."""
    unit: str = ""


class Material(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a guard may be made from."""

    model: str
    digest: Digest
    classes: tuple[str, ...]
    columns: tuple[Column, ...]
    shape: tuple[int, ...] = ()
    """``(channels, height, width)`` of images; empty for tables."""
    value_range: tuple[float, float] | None = None
    fitted: Callable[[str], bytes]
    """Report of the newest standing statement of a check about this model, by the check's name.

    Raises ArtefactError when there is none: what has to be fitted and is not stops the gateway from starting.
    """
    state: SharedState
    """What replicas share."""


class GuardMaker(Protocol):
    """What is registered: makes a guard from its part of the configuration."""

    Settings: ClassVar[type[msgspec.Struct]]
    """``forbid_unknown_fields=True``, every field with a default where a sensible one exists and a bound."""

    def __call__(self, settings: Any, material: Material) -> Guard:
        """Make it. Raises InputError or ArtefactError with a remedy."""


def worst(verdicts: Mapping[str, Verdict]) -> Action:
    """The highest action of several verdicts."""
    return max((verdict.action for verdict in verdicts.values()), default=Action.ALLOW)


__all__ = [
    "Action",
    "Answer",
    "Asked",
    "Column",
    "Guard",
    "GuardMaker",
    "Material",
    "Mode",
    "Numbers",
    "Verdict",
    "worst",
]
