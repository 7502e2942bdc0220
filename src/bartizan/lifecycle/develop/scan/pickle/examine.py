"""Examines a file or member that consists of pickles, and accounts for all of its bytes."""

from __future__ import annotations

import re

from bartizan.lifecycle.develop.scan.containers.legacy_torch import LegacyTorch
from bartizan.lifecycle.develop.scan.limits import LimitError, Meter
from bartizan.lifecycle.develop.scan.pickle import opcodes as op
from bartizan.lifecycle.develop.scan.pickle.constants import BrokenPickleError, Buffer
from bartizan.lifecycle.develop.scan.pickle.machine import Machine
from bartizan.lifecycle.develop.scan.pickle.stream import SHARED_RULES, Walk, walk, walk_sharing
from bartizan.lifecycle.develop.scan.rules import RULES
from bartizan.lifecycle.develop.scan.source import Draft, Examine, Source
from bartizan.lifecycle.develop.scan.verdict import Report, Verdict

MOST_PICKLES = 10_000
LINE_BREAKS = frozenset({b"", b"\n", b"\r\n"})
"""What editors and version control leave behind the last pickle of a file."""
TRIVIAL = 3
"""Fewer opcodes than this are no pickle that anybody would append."""
_SEPARATOR = re.compile(r"[,;\t ]")
"""What stands between the columns of a table, and in the name of no package that can be installed."""


def _begins_signed(data: Buffer, at: int) -> bool:
    """Whether a pickle with its signature lies at ``at``."""
    return at + 1 < len(data) and data[at] == op.PROTO and data[at + 1] <= op.HIGHEST_PROTOCOL


def _is_table(one: Walk, data: Buffer) -> bool:
    """Whether a pickle is rather lines of a table: ``const,mean``, then ``.5,.7``, then one that begins with a dot.

    Carried out, it would import a module called ``onst,mean`` and stop. Only what calls nothing, goes on behind its
    end and imports from nothing that can be installed is a table.
    """
    if one.calls or not one.judge.names or one.end >= len(data) or data[one.end : one.end + 1] in LINE_BREAKS:
        return False
    packages = [module.split(".")[0] for module, _ in one.judge.names]
    return all(not package or _SEPARATOR.search(package) for package in packages)


class PickleExaminer:
    """Examines one stream of pickles."""

    def __init__(self, source: Source, meter: Meter, examine: Examine) -> None:
        self.source = source
        self.meter = meter
        self.examine = examine
        self.draft = Draft(source, "pickle", meter.limits.findings)
        self.legacy: LegacyTorch | None = None
        self.shared: Machine | None = None
        """Ended the pickles so far as one ``Unpickler`` would that reads them all; None when that cannot be."""
        self.counts = dict.fromkeys(("pickles", "opcodes", "calls", "arrays", "names"), 0)

    def run(self, *, is_certain: bool) -> Report | None:
        """Walk pickle after pickle; None when the content turns out to be no pickle at all."""
        first = self._walk(0)
        if not is_certain and not self._is_pickle(first):
            return None
        self._take(first)
        if first.ended == "stop":
            self.shared = first.machine
            self.legacy = LegacyTorch.begun_by(self.source.data, first)
            self._rest(first.end)
        self.draft.facts |= {key: count for key, count in self.counts.items() if count}
        return self.draft.close()

    def _walk(self, start: int) -> Walk:
        storages = self.legacy or self.source.storages
        return walk(self.source.data, start, self.meter, torch=storages is not None)

    def _rest(self, at: int) -> None:
        """What follows the first pickle: more of them, torch's raw storages, or bytes that no part claims."""
        data = self.source.data
        while True:
            if self.legacy is not None and self.legacy.is_complete(self.counts["pickles"]):
                at = self.legacy.step_over_storages(self.source, at, self.draft)
                self.legacy = None
            if at >= len(data):
                break
            if self.counts["pickles"] >= MOST_PICKLES:
                self.draft.miss(f"more than {MOST_PICKLES} pickles in a row", rule="file/limit")
                return
            if data[at] not in op.VALID:
                break
            following = self._share(self._walk(at))
            if not self._is_pickle(following):
                break
            self._take(following)
            at = following.end
            if following.ended != "stop":
                return
        if bytes(data[at : at + 3]) not in LINE_BREAKS:
            self.draft.gap(at, len(data), "follow the pickle")

    def _share(self, alone: Walk) -> Walk:
        """Read a pickle with the memo of those before it as well; returns the reading that holds.

        When one ``Pickler`` wrote them all, the pickle alone refers to entries that it does not have.
        """
        if self.shared is None or alone.arrays:
            self.shared = None
            return alone
        try:
            sharing = walk_sharing(self.source.data, alone.start, self.meter, self.shared)
        except (LimitError, BrokenPickleError) as error:
            self.shared = None
            self._miss_sharing(str(error))
            return alone
        if sharing.ended == "limit":
            self._miss_sharing(sharing.why)
        self.shared = sharing.machine if sharing.ended == "stop" else None
        if alone.ended == "malformed" and sharing.ended == "stop":
            return sharing
        for issue in sharing.issues:
            if issue.rule in SHARED_RULES:
                self.draft.fire(issue.rule, f"read with the memo of the pickle before: {issue.detail}", issue.offset)
        return alone

    def _miss_sharing(self, why: str) -> None:
        self.draft.miss(f"{why} in all pickles together, so they were not read with one memo", rule="file/limit")

    def _is_pickle(self, one: Walk) -> bool:
        """Whether bytes without a signature turned out to be a pickle, whole or broken off on its way."""
        rules = {issue.rule for issue in one.issues}
        harm = any(RULES[rule].verdict is Verdict.DANGEROUS for rule in rules)
        if one.ended == "stop" and "pickle/malformed" not in rules:
            data = self.source.data
            is_signed = data[one.start] == op.PROTO or _begins_signed(data, one.end)
            if not is_signed and _is_table(one, data):
                return False
            return harm or is_signed or one.opcodes >= TRIVIAL or one.end == len(data)
        return one.calls > 0 or "pickle/dangerous-callable" in rules

    def _take(self, one: Walk) -> None:
        """Turn what one walk found into findings and counts."""
        for issue in one.issues:
            self.draft.fire(issue.rule, issue.detail, issue.offset)
        if one.dropped:
            self.draft.facts["findings_left_out"] = one.dropped
        if one.ended == "malformed":
            self.draft.fire("pickle/malformed", one.why, one.end)
            self.draft.miss(f"what follows byte {one.end} cannot be read as a pickle")
        elif one.ended == "limit":
            self.draft.miss(f"{one.why}; the rest from byte {one.end} on was not examined", rule="file/limit")
        if one.arrays:
            self.draft.kind = "joblib"
        for count, more in zip(self.counts, (1, one.opcodes, one.calls, one.arrays, one.names), strict=True):
            self.counts[count] += more
        storages = self.legacy or self.source.storages
        if storages is not None:
            storages.declare(one, self.draft)
        if self.legacy is not None:
            self.legacy.take(self.source.data, one, self.counts["pickles"])
        for number, (held, offset) in enumerate(one.nested):
            self.draft.members.append(self.examine(self.source.child(f"<bytes {number} loaded at {offset}>", held)))


def examine_pickle(source: Source, meter: Meter, examine: Examine) -> Report:
    """Examine content that begins with a pickle's signature."""
    report = PickleExaminer(source, meter, examine).run(is_certain=True)
    assert report is not None  # noqa: S101 -- a certain pickle is always reported on
    return report


def examine_maybe_pickle(source: Source, meter: Meter, examine: Examine) -> Report | None:
    """Examine content that could be a pickle of protocol 0 or 1; None when it is none."""
    return PickleExaminer(source, meter, examine).run(is_certain=False)
