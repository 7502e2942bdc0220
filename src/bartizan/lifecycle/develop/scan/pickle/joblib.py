"""joblib's addition to the pickle format: after the BUILD of an array wrapper the array itself follows.

``joblib.numpy_pickle.NumpyUnpickler.load_build`` reads the raw bytes of the array straight from the
file, or a whole pickle when the array holds objects. The walk steps over exactly those bytes, so it
never has to guess where the opcodes go on.
"""

from __future__ import annotations

from collections.abc import Callable

from bartizan.lifecycle.develop.scan.pickle.arrays import DtypeError, layout_of, product
from bartizan.lifecycle.develop.scan.pickle.constants import BrokenPickleError
from bartizan.lifecycle.develop.scan.pickle.machine import Machine
from bartizan.lifecycle.develop.scan.pickle.reading import Reader
from bartizan.lifecycle.develop.scan.pickle.values import Call, Symbol

WRAPPERS = frozenset(f"{package}.numpy_pickle.NumpyArrayWrapper" for package in ("joblib", "sklearn.externals.joblib"))
COMPANIONS = frozenset(
    f"{package}.{module}.{name}"
    for package in ("joblib", "sklearn.externals.joblib")
    for module in ("numpy_pickle", "numpy_pickle_compat")
    for name in ("NDArrayWrapper", "ZNDArrayWrapper")
)
"""Before joblib 0.10 arrays lay in files of their own."""
LONGEST_PADDING = 255

NestedWalk = Callable[[int], int]
"""Walks the pickle at an offset and returns the offset behind it."""


class ArrayReader:
    """Steps over the arrays of one joblib stream; ``spans`` lists where raw bytes lie."""

    def __init__(self, walk_nested: NestedWalk) -> None:
        self.walk_nested = walk_nested
        self.first = -1
        """Offset at which the stream first left the opcodes."""
        self.spans: list[tuple[int, int]] = []

    def __call__(self, machine: Machine, pos: int) -> int:
        """See ``machine.BuildHook``."""
        wrapper = machine.stack[-1]
        subject = str(wrapper.subject) if wrapper.__class__ is Call else ""
        if subject in COMPANIONS:
            self._note_companion(machine, wrapper)
        if subject not in WRAPPERS:
            return pos
        if machine.frame_end > pos or machine.frame_end < 0:
            machine.judge.report("joblib/irregular-array", "an array is announced in the middle of a frame", pos)
            raise BrokenPickleError("the bytes of an array lie behind the frame that announces it")
        if self.first < 0:
            self.first = pos
        machine.arrays += 1
        return self._step_over(machine, wrapper, pos)

    def _step_over(self, machine: Machine, wrapper: Call, pos: int) -> int:
        fields = machine.judge.reader.fields(wrapper.state)
        if fields is None or not (wrapper.args == () or str(wrapper.callee) == "copyreg._reconstructor"):
            raise _irregular(machine, pos, "the description of an array is not the one that joblib writes")
        shape = machine.judge.reader.numbers(fields.get("shape"))
        try:
            layout = layout_of(machine.judge.reader, fields.get("dtype"))
        except DtypeError as error:
            raise _irregular(machine, pos, f"the dtype of an array: {error}") from error
        if shape is None or any(side < 0 for side in shape):
            raise _irregular(machine, pos, "the shape of an array is no tuple of sizes")
        if layout.has_object:
            return self.walk_nested(pos)
        start = pos + _padding(machine, fields, pos)
        end = start + product(shape) * layout.itemsize
        if end > len(machine.data) or not layout.itemsize:
            raise BrokenPickleError(f"an array of shape {shape} leads past the end")
        self.spans.append((pos, end))
        return end

    def _note_companion(self, machine: Machine, wrapper: Call) -> None:
        reader: Reader = machine.judge.reader
        fields = reader.fields(wrapper.state) or {}
        name = reader.text(fields.get("filename")) if "filename" in fields else None
        machine.judge.report(
            "joblib/companion-file", f"an array is loaded from the file {name!r} beside this one", machine.pos
        )


def _padding(machine: Machine, fields: dict[str, Symbol], pos: int) -> int:
    """Bytes between the wrapper and the array: since joblib 1.2 one length byte and that many more."""
    alignment = fields.get("numpy_array_alignment_bytes")
    if alignment is None or machine.judge.reader.is_none(alignment):
        return 0
    return 1 + machine.data[pos]


def _irregular(machine: Machine, pos: int, why: str) -> BrokenPickleError:
    machine.judge.report("joblib/irregular-array", why, pos)
    return BrokenPickleError(why)
