"""The journal: answers of a target, kept so that a killed run goes on where it was.

Attacks are deterministic given their seed and the answers, so the answers are all that has to be
kept. On resuming, the run starts again and is told the recorded answers first; whatever a call
asks is compared by digest, so that answers of another run are never taken for this one's.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from numpy.typing import NDArray

from bartizan.core.digest import Digest

Answer = NDArray[Any]
"""Labels ``(batch,)`` or scores ``(batch, classes)``."""


class Journal(Protocol):
    """A log of the calls of one run, in order."""

    keeps: bool
    """Whether anything is kept at all; when not, no digest needs to be computed."""

    def recall(self, question: bytes) -> Answer | None:
        """The answer that was recorded at this place.

        None when the log ends here, or when it goes on with another question: whatever comes then
        is of no use and is dropped.
        """

    def record(self, question: bytes, answer: Answer) -> None:
        """Append an answer; it survives the death of the process when this returns."""

    def discard(self) -> None:
        """Forget everything: the run is done and its result is kept elsewhere."""


class Journals(Protocol):
    """Service that opens journals; given to checks by the runner."""

    def open(self, key: Digest) -> AbstractContextManager[Journal]:
        """The journal of the run called ``key``, for this process alone. Closed on exit."""


class NoJournal:
    """Keeps nothing."""

    keeps = False

    def recall(self, question: bytes) -> Answer | None:
        """See ``Journal.recall``."""
        del question
        return None

    def record(self, question: bytes, answer: Answer) -> None:
        """See ``Journal.record``."""

    def discard(self) -> None:
        """See ``Journal.discard``."""


class NoJournals:
    """Opens journals that keep nothing; for runs that are too short to be worth resuming."""

    def open(self, key: Digest) -> AbstractContextManager[Journal]:
        """See ``Journals.open``."""
        del key
        return nullcontext(NoJournal())
