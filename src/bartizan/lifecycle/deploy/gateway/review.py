"""Review afterwards: what guards flagged or filtered, and a random sample of what they let by.

Everything has a due date, by class where that is declared. What was flagged and cannot be kept is not answered. The
sample is drawn per class with a stated rate, from a seed, so that people also look at what no guard noticed.
"""

from __future__ import annotations

import logging
import math
import random
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import msgspec

from bartizan.core.errors import StoreError
from bartizan.lifecycle.deploy.gateway.cases import MOST_NUMBERS, MOST_SHOWN, Queue, Room
from bartizan.lifecycle.deploy.gateway.failures import RequestError
from bartizan.lifecycle.deploy.gateway.guard import Answer, Asked
from bartizan.lifecycle.deploy.gateway.holds import FULL, Roles, Term, milliseconds
from bartizan.lifecycle.deploy.gateway.vault import Known, Vault, Wanted

MOST_WAITING = 1_000
"""Cases that wait to be written."""
RETRY_SECONDS = 0.5
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
_LOG = logging.getLogger("bartizan.gateway")


class ReviewSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[review]``: what people look at afterwards."""

    within: Term = "7d"
    """Time in which flagged and filtered cases are to be reviewed."""
    urgent: dict[str, Term] = {}
    """Class to the time in which cases of it are to be reviewed."""
    sample: Share = 0.001
    """Share of ordinary answers that are reviewed too."""
    sample_of: dict[str, Share] = {}
    """Class to its own share."""
    sample_within: Term = "30d"
    capacity: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 10_000
    """Open cases of one queue; one more is refused where it was flagged, and not drawn where it was not."""
    per_caller: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 100
    """Open cases of one caller and queue; more of them are only counted."""
    retention: Term = "90d"
    """Time after the decision, or after it was due, after which what was asked and answered is erased."""
    reviewers: Roles = ("domain", "security", "ml", "risk-owner")
    """Roles of the trust document in which people review."""


class Sampler:
    """Draws each answer of a class with that class's rate, independently.

    Instead of a random number for every answer, the gap to the next drawn one is drawn (geometric distribution): what
    is not drawn costs a subtraction.
    """

    def __init__(self, rates: Mapping[int, float], default: float, seed: int) -> None:
        self._rates, self._default = dict(rates), default
        self._random = random.Random(seed)  # noqa: S311 - reproducible on purpose; the seed is kept secret
        self._left: dict[int, float] = {}

    def draws(self, label: int) -> bool:
        """Whether the next answer of this class is drawn."""
        left = self._left.get(label)
        if left is None:
            left = self._gap(label)
        if left > 0:
            self._left[label] = left - 1
            return False
        self._left[label] = self._gap(label)
        return True

    def _gap(self, label: int) -> float:
        """Answers that are passed over before the next one that is drawn."""
        rate = self._rates.get(label, self._default)
        if rate >= 1.0:
            return 0.0
        if rate <= 0.0:
            return math.inf
        return math.floor(math.log(1.0 - self._random.random()) / math.log1p(-rate))


class Reviews:
    """Puts cases into the queues, beside the event loop."""

    def __init__(
        self,
        settings: ReviewSettings,
        vault: Vault,
        *,
        seed: int,
        waits: Callable[[float], object] | None = None,
    ) -> None:
        self.settings, self._vault = settings, vault
        self._room = Room(capacity=settings.capacity, per_caller=settings.per_caller)
        self._terms = {name: milliseconds(term) for name, term in settings.urgent.items()}
        self._within, self._later = milliseconds(settings.within), milliseconds(settings.sample_within)
        self._keep = milliseconds(settings.retention)
        self._samplers = {name: _sampler(settings, known, seed) for name, known in vault.models.items()}
        self._ended = threading.Event()
        self._waits = waits or self._ended.wait
        self._waiting, self._lock = 0, threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="review")
        self.missed = 0
        """Sampled or filtered cases that found no room."""

    def flag(self, asked: Asked, answer: Answer | None, reasons: tuple[str, ...], *, stopped: bool) -> None:
        """Keep what a guard wants looked at. Does not block.

        Raises:
            RequestError: it would be answered, and cannot be kept.
        """
        if not self._submit("filtered" if stopped else "flagged", asked, answer, reasons):
            if not stopped:
                raise RequestError(503, FULL, headers={"retry-after": "5"}, reason="no room in the review queue")
            self.missed += 1

    def answered(self, asked: Asked, answer: Answer) -> None:
        """Draw a sample of what was answered without a word of a guard. Half a microsecond; does not block."""
        draws = self._samplers[asked.model].draws
        if len(answer.labels) == 1:
            if not draws(answer.labels.item()):
                return
        elif not any([draws(label) for label in answer.labels.tolist()]):  # noqa: C419 - each has to be counted
            return
        if not self._submit("sampled", asked, answer, ()):
            self.missed += 1

    def close(self) -> None:
        """Write what waits, as far as that goes without waiting for a store that is out of reach."""
        self._ended.set()
        self._thread.shutdown(wait=True)

    def sweep(self, now: int) -> int:
        """Erase the content of cases whose time is over; gives how many."""
        return self._vault.store.erase(("flagged", "filtered", "sampled"), now - self._keep)

    def _submit(self, queue: Queue, asked: Asked, answer: Answer | None, reasons: tuple[str, ...]) -> bool:
        with self._lock:
            if self._waiting >= MOST_WAITING or self._ended.is_set():
                return False
            self._waiting += 1
        self._thread.submit(self._write, queue, asked, _copy(answer), reasons)
        return True

    def _write(self, queue: Queue, asked: Asked, answer: Answer | None, reasons: tuple[str, ...]) -> None:
        """Keep one case; as long as the store is out of reach, everything behind it waits."""
        try:
            while not self._added(queue, asked, answer, reasons) and not self._ended.is_set():
                self._waits(RETRY_SECONDS)
        except Exception:  # noqa: BLE001 - what waits behind it must go on
            _LOG.exception("a case for review could not be kept")
            self.missed += 1
        finally:
            with self._lock:
                self._waiting -= 1

    def _added(self, queue: Queue, asked: Asked, answer: Answer | None, reasons: tuple[str, ...]) -> bool:
        opened = int(asked.now * 1000)
        label = self._vault.models[asked.model].named(answer)
        term = self._terms.get(label, self._later if queue == "sampled" else self._within)
        most = max(1, min(MOST_SHOWN, MOST_NUMBERS // max(1, asked.rows.shape[1])))
        wanted = Wanted(queue=queue, opened=opened, due=opened + term, room=self._room, most=most)
        try:
            kept = self._vault.keep(wanted, asked, answer, reasons)
        except StoreError as error:
            _LOG.warning("%s", error.message)
            return False
        if kept is None:
            self.missed += 1
        return True


def _sampler(settings: ReviewSettings, known: Known, seed: int) -> Sampler:
    rates = {known.classes.index(name): rate for name, rate in settings.sample_of.items() if name in known.classes}
    return Sampler(rates, settings.sample, seed)


def _copy(answer: Answer | None) -> Answer | None:
    """The answer as it is now: the pipeline may still change it."""
    return None if answer is None else Answer(answer.labels, answer.scores, answer.source)


__all__ = ["ReviewSettings", "Reviews", "Sampler"]
