"""The far part of a memo: entries behind a run, most of which nobody will ever ask for."""

from __future__ import annotations

import bisect

from bartizan.lifecycle.develop.scan.pickle.bulk import Run
from bartizan.lifecycle.develop.scan.pickle.values import Symbol


class FarMemo:
    """Symbols and runs in the order in which they entered the memo; a run stands for as many entries as it adds."""

    def __init__(self) -> None:
        self.entries: list[Symbol | Run] = []
        self._ends: list[int] = []
        """For each entry how many memo entries there are up to its end, as far as that was counted."""

    def total(self) -> int:
        """Number of memo entries."""
        ends = self._ends
        at = ends[-1] if ends else 0
        for entry in self.entries[len(ends) :]:
            at += entry.entries() if entry.__class__ is Run else 1
            ends.append(at)
        return at

    def holder(self, index: int) -> Symbol | Run:
        """The symbol with this index, or the run that it is in."""
        self.total()
        return self.entries[bisect.bisect_right(self._ends, index)]

    def get(self, index: int) -> Symbol:
        """The symbol with this index among these, which must be one of them.

        Raises:
            LimitError: it is in a run that is too much to be worked out.
        """
        entry, offset = self._find(index)
        return entry.memoised[offset] if entry.__class__ is Run else entry

    def replace(self, index: int, value: Symbol) -> None:
        """Put another symbol in place of one of these.

        Raises:
            LimitError: it is in a run that is too much to be worked out.
        """
        entry, offset = self._find(index)
        if entry.__class__ is Run:
            entry.memoised[offset] = value
        else:
            self.entries[bisect.bisect_right(self._ends, index)] = value

    def _find(self, index: int) -> tuple[Symbol | Run, int]:
        self.total()
        at = bisect.bisect_right(self._ends, index)
        entry = self.entries[at]
        if entry.__class__ is not Run:
            return entry, 0
        entry.ready()
        return entry, index - (self._ends[at - 1] if at else 0)
