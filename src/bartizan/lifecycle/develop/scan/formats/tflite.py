"""TFLite models: a FlatBuffer with operators, tensors and buffers, and perhaps an archive behind it.

Format: ``tensorflow/compiler/mlir/lite/schema/schema.fbs``. Interpreters trust indices and sizes
that were never verified (CVE-2022-23558 and many of its kind), so each is held against what is
there. Operators of TensorFlow that a model takes along (``Flex``) are judged as in a graph.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from bartizan.lifecycle.develop.scan.containers.directory import find_end
from bartizan.lifecycle.develop.scan.containers.zip import ZipExaminer
from bartizan.lifecycle.develop.scan.formats.embedded import Embedded
from bartizan.lifecycle.develop.scan.formats.flatbuffers import Flat, FlatError, Table, Vector
from bartizan.lifecycle.develop.scan.formats.tensorflow_operators import COMPILED, CUSTOM, PATHS, REACHING, rule_of
from bartizan.lifecycle.develop.scan.limits import LimitError, Meter
from bartizan.lifecycle.develop.scan.source import Draft, Examine, Source, window
from bartizan.lifecycle.develop.scan.verdict import Report

VERSION = 3
CUSTOM_OPERATOR = 32
HIGHEST_OPERATOR = 512
"""``BuiltinOperator`` has some 210 members and grows slowly."""
ITEM_BITS = {
    0: 32, 1: 16, 2: 32, 3: 8, 4: 64, 6: 8, 7: 16, 8: 64, 9: 8, 10: 64, 11: 128, 12: 64, 15: 32, 16: 16, 17: 4, 18: 16,
    19: 2, 20: 4,
}  # fmt: skip
"""Bits of one number by ``TensorType``; texts, resources and variants have none."""
MOST_ITEMS = 1 << 34
LARGEST_GAP = 1024
"""Bytes between two parts that may be options which are not followed, and padding."""
SEARCHED = 1 << 16
_KNOWN = """
    TFLite_Detection_PostProcess NumericVerify Mfcc AudioSpectrogram Convolution2DTransposeBias
    MaxPoolingWithArgmax2D MaxUnpooling2D TransformTensorBilinear TransformLandmarks Landmarks2TransformMatrix
    Irfft2d Rfft2d Rfft HashTable HashTableV2 LookupTableFindV2 LookupTableSizeV2 InitializeTableV2
    RandomStandardNormal RandomUniform Multinomial Roll Sign Atan2 AddN Dilate Bucketize VarHandle ReadVariable
    AssignVariable TFSentencepieceTokenizeOp CumSum AveragePool3D MaxPool3D AvgPool3D MaxPool3DGrad
    Unidirectional_Sequence_Lstm NGrams tftext:WhitespaceTokenizer tftext:Ngrams tftext:FastBertNormalizer
    Delegate StablehloComposite TableOp DisparityRegression
    """
KNOWN = frozenset(_KNOWN.split())
"""Custom operators that TFLite and MediaPipe ship; they compute and no more."""
_WORD = re.compile(rb"[A-Za-z][A-Za-z0-9_>]{3,63}")


def examine_tflite(source: Source, meter: Meter, examine: Examine) -> Report:
    """Examine a model: operators, tensors, buffers, metadata, files behind it."""
    draft = Draft(source, "tflite", meter.limits.findings)
    examiner = TfliteExaminer(source, draft, examine)
    try:
        examiner.run()
    except FlatError as broken:
        draft.fire("tflite/malformed", str(broken), broken.at)
        draft.miss("the model cannot be read to its end")
    except LimitError as limit:
        draft.miss(str(limit), rule="file/limit")
    examiner.account(meter)
    return draft.close()


class TfliteExaminer:
    """The examination of one model."""

    def __init__(self, source: Source, draft: Draft, examine: Examine) -> None:
        self.source = source
        self.draft = draft
        self.examine = examine
        self.flat = Flat(source.data)
        self.embedded = Embedded(draft, examine)
        self.buffers: list[Vector] = []
        self.seen: set[int] = set()
        self.operators: list[tuple[int, str]] = []
        self.counts = {"subgraphs": 0, "operators": 0, "tensors": 0}

    def run(self) -> None:
        """Look at everything."""
        model = self.flat.root()
        if model.number(0, "I") != VERSION:
            self.draft.fire("tflite/malformed", f"version {model.number(0, 'I')}", 0)
        self.buffers = [self._buffer(buffer) for buffer in model.tables(4)]
        self.operators = [self._operator_code(code) for code in model.tables(1)]
        self._judge_text("the description", model, 3)
        graphs = model.vector(2, 4).length
        if not graphs:
            self.draft.fire("tflite/malformed", "there is no graph", 0)
        for graph in self._fresh(model, 2):
            self._graph(graph)
        self._metadata(model)
        for signature in model.tables(7):
            self._signature(signature, graphs)
        self.draft.facts.update(self.counts)

    def _judge_text(self, name: str, table: Table, field: int) -> None:
        if place := table.place(field):
            at = self.flat.follow(place)
            vector = self.flat.vector(at, 1)
            table.text(field)
            self.embedded.judge_text(name, window(self.source.data, vector.start, vector.start + vector.length), at)

    def _fresh(self, holder: Table, field: int) -> Iterator[Table]:
        """The tables of a list; one that several offsets lead to is looked at once."""
        for table in holder.tables(field):
            if table.at not in self.seen:
                self.seen.add(table.at)
                yield table

    def _range(self, detail: str, at: int) -> None:
        self.draft.fire("tflite/buffer-range", detail, at)

    # buffers

    def _buffer(self, buffer: Table) -> Vector:
        """The bytes of a buffer, which may stand behind the FlatBuffer in files of more than 2 GB."""
        inside = buffer.vector(0, 1)
        offset, size = buffer.number(1, "Q"), buffer.number(2, "Q")
        if offset > 1:
            if inside.length:
                self._range("a buffer lies in two places", buffer.at)
            if offset + size > self.flat.size:
                self._range(f"a buffer of {size} bytes at {offset} leads past the end", buffer.at)
                return Vector(0, 0)
            self.flat.claim(offset, size)
            inside = Vector(offset, size)
        part = window(self.source.data, inside.start, inside.start + inside.length)
        self.embedded.judge_numbers("a buffer", part, inside.start)
        return inside

    def _metadata(self, model: Table) -> None:
        for number in (*model.numbers(5, "i"), *(entry.number(1, "I") for entry in model.tables(6))):
            if not 0 <= number < len(self.buffers):
                self._range(f"metadata in buffer {number} of {len(self.buffers)}", model.at)
        for entry in model.tables(6):
            self._judge_text("the name of metadata", entry, 0)

    # operators

    def _operator_code(self, code: Table) -> tuple[int, str]:
        kind = max(code.number(3, "i"), code.number(0, "b"))
        name = code.text(1)
        if not 0 <= kind <= HIGHEST_OPERATOR:
            self._range(f"operator {kind}", code.at)
        if kind == CUSTOM_OPERATOR:
            self._judge_custom(name, code.at)
        return kind, name

    def _judge_custom(self, name: str, at: int) -> None:
        operator = name.removeprefix("Flex")
        rule = CUSTOM if operator in PATHS and operator != name else rule_of(operator)
        if operator != name and not rule:
            return
        if (operator != name and operator in PATHS) or rule not in {"", CUSTOM, COMPILED}:
            self.draft.fire("tflite/host-operator", f"{name[:120]!r}", at)
        elif name not in KNOWN and not name.startswith("tftext:"):
            self.draft.fire("tflite/custom-operator", f"{name[:120]!r}", at)

    def _operator(self, operator: Table, tensors: int) -> None:
        self.counts["operators"] += 1
        index = operator.number(0, "I")
        if index >= len(self.operators):
            self._range(f"operator {index} of {len(self.operators)}", operator.at)
        for field in (1, 2, 8):
            for number in operator.numbers(field, "i"):
                if not -1 <= number < tensors:
                    self._range(f"an operator uses tensor {number} of {tensors}", operator.at)
        for field in (4, 12):
            operator.table(field)
        options = operator.vector(5, 1)
        operator.vector(7, 1)
        self._options(options, operator)

    def _options(self, options: Vector, operator: Table) -> None:
        """Options of a custom operator; those of TensorFlow hold a node, whose operator is the one that runs."""
        offset, size = operator.number(9, "Q"), operator.number(10, "Q")
        if offset > 1:
            if offset + size > self.flat.size:
                self._range(f"options of {size} bytes at {offset} lead past the end", operator.at)
                return
            self.flat.claim(offset, size)
            options = Vector(offset, size)
        raw = bytes(self.source.data[options.start : options.start + min(options.length, SEARCHED)])
        index = operator.number(0, "I")
        kind, name = self.operators[index] if index < len(self.operators) else (0, "")
        if kind != CUSTOM_OPERATOR:
            return
        named = {word[0].decode() for word in _WORD.finditer(raw)} if name.startswith("Flex") else set()
        for word in sorted(named & (REACHING.keys() | PATHS.keys())):
            if name != f"Flex{word}":
                self.draft.fire("tflite/host-operator", f"{name[:60]!r} stands for {word!r}", operator.at)
        self.embedded.judge_text(f"options of {name[:60]!r}", raw, options.start)

    # graphs

    def _graph(self, graph: Table) -> None:
        self.counts["subgraphs"] += 1
        tensors = graph.vector(0, 4).length
        self.counts["tensors"] += tensors
        for tensor in self._fresh(graph, 0):
            self._tensor(tensor)
        for field in (1, 2):
            for number in graph.numbers(field, "i"):
                if not -1 <= number < tensors:
                    self._range(f"a graph uses tensor {number} of {tensors}", graph.at)
        for operator in self._fresh(graph, 3):
            self._operator(operator, tensors)
        self._judge_text("the name of a graph", graph, 4)

    def _tensor(self, tensor: Table) -> None:
        shape, buffer = tensor.numbers(0, "i"), tensor.number(2, "I")
        tensor.numbers(7, "i")
        name = tensor.text(3)[:80]
        kind = tensor.number(1, "b")
        self._quantization(tensor.table(4))
        tensor.table(6)
        if buffer >= len(self.buffers):
            self._range(f"tensor {name!r} in buffer {buffer} of {len(self.buffers)}", tensor.at)
            return
        if any(side < 0 for side in shape):
            self._range(f"tensor {name!r} has a side of {min(shape)}", tensor.at)
            return
        count = math.prod(shape)
        if count > MOST_ITEMS:
            self.draft.fire("tflite/allocation", f"tensor {name!r} of {count:.3g} numbers", tensor.at)
        there, bits = self.buffers[buffer].length, ITEM_BITS.get(kind)
        if there and bits and not tensor.place(6) and there != (count * bits + 7) // 8:
            self._range(f"tensor {name!r} takes {(count * bits + 7) // 8} bytes and has {there}", tensor.at)

    def _quantization(self, quantization: Table | None) -> None:
        if quantization is None:
            return
        for field, width in ((0, 4), (1, 4), (2, 4), (3, 8)):
            quantization.vector(field, width)
        quantization.table(5)

    def _signature(self, signature: Table, graphs: int) -> None:
        for field in (0, 1):
            for named in signature.tables(field):
                named.text(0)
        self._judge_text("the name of a signature", signature, 2)
        if signature.number(4, "I") >= graphs:
            self._range(f"a signature of graph {signature.number(4, 'I')} of {graphs}", signature.at)

    # what is left

    def account(self, meter: Meter) -> None:
        """Report bytes that nothing points to; an archive behind the model is examined as one."""
        data = self.source.data
        at = 0
        spans = sorted(self.flat.spans)
        for start, end in spans:
            if start - at > LARGEST_GAP or (start - at > 64 and self._looks_loaded(at)):  # noqa: PLR2004
                self.draft.gap(at, start)
            at = max(at, end)
        ending = find_end(data)
        if ending is not None and ending.end == len(data) and ending.directory >= at:
            archive = ZipExaminer(self.source.child("<files behind the model>", data), meter, self.examine)
            first = bytes(data[at : at + LARGEST_GAP]).find(b"PK\x03\x04")
            archive.claimed.append((0, at + max(first, 0) if first < 64 else at))  # noqa: PLR2004 -- padding
            self.draft.members.append(archive.run())
        elif len(data) - at > 64 or any(bytes(data[at:])):  # noqa: PLR2004 -- padding
            self.draft.gap(at, len(data), "follow the model")

    def _looks_loaded(self, at: int) -> bool:
        return bytes(self.source.data[at : at + 4]) in {b"\x7fELF", b"PK\x03\x04"}
