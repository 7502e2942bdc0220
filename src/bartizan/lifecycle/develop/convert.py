"""Conversion into a format without code: what is refused, what has to agree, and what is stated.

A result counts only when it says what its source says. Tensors must have the same names, types, shapes and bytes:
the result is read here, by a reader of its own, and not by what wrote it. Estimators must give the same labels and,
within a stated tolerance, the same numbers for the same samples.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import math
import zipfile
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from bartizan.core import predicates
from bartizan.core.digest import Digest, canonical_json, digest_bytes
from bartizan.core.errors import ArtefactError, InputError
from bartizan.core.predicates import Assessment, BuildDefinition, Builder, BuildMetadata, Descriptor, Input, RunDetails
from bartizan.core.statement import Statement, make
from bartizan.lifecycle.develop.scan.verdict import Report, Verdict
from bartizan.redteam.statistics import proportion

Format = Literal["safetensors", "npz", "skops", "onnx"]
FORMATS: tuple[Format, ...] = ("safetensors", "npz", "skops", "onnx")
TENSOR_FORMATS = frozenset({"safetensors", "npz"})
ACCEPTABLE = {"pickle/unlisted-class": "skops/unlisted-class"}
"""Rule that may be accepted for a source, and the one by which a result shows the same class."""
SHORTEST_REASON = 10
BUILD_TYPE = "urn:bartizan:build:convert:v1"
"""Parameters: ``to``, ``part``, ``accept`` with ``reason``, and ``samples``."""

GENERATED_SAMPLES = 256
MAX_SAMPLES = 10_000
SCORE_TOLERANCE: Mapping[Format, tuple[float, float]] = {"skops": (0.0, 0.0), "onnx": (1e-4, 1e-5)}
"""Relative and absolute difference of numbers that is none. ONNX computes with 32 bits."""
MAX_HEADER_BYTES = 100 * 1024 * 1024
"""As safetensors' own reader has it."""


class Tensor(msgspec.Struct, frozen=True, order=True):
    """One tensor, without its content."""

    name: str
    code: str
    """Type of its elements as safetensors names them: ``F32``."""
    shape: tuple[int, ...]
    digest: str
    """SHA-256 of its bytes in C order, little-endian."""


class Answers(msgspec.Struct, frozen=True):
    """What a model said to samples."""

    labels: list[list[str]] = []
    """Predictions that are text."""
    numbers: list[list[float]] = []
    """Predictions that are numbers."""
    scores: list[list[float]] = []


class Agreement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far source and result agree."""

    compared: Literal["tensors", "answers"]
    agrees: bool
    count: Annotated[int, msgspec.Meta(ge=0)]
    """Tensors, or samples."""
    differences: tuple[str, ...] = ()
    """The first few, in words."""
    shared: dict[str, str] = {}
    """Names of tensors that were one and the same as another, and which; the result holds each in full."""
    identical_labels: int = 0
    distinct_labels: int = 0
    """How many different labels there were: one alone proves little."""
    largest_difference: float = 0.0
    relative_tolerance: float = 0.0
    absolute_tolerance: float = 0.0
    scores: Literal["", "compared", "not compared"] = ""
    samples: str = ""
    """``generated``, or the digest of a file."""

    @property
    def words(self) -> str:
        """One line for people."""
        if not self.agrees:
            return f"source and result differ: {'; '.join(self.differences)}"
        if self.compared == "tensors":
            return f"all {self.count} tensors have the same type, shape and bytes"
        exact = "identical" if not self.largest_difference else f"at most {self.largest_difference:.2g} apart"
        return f"{self.count} samples: same predictions ({self.distinct_labels} different), numbers {exact}"


MOST_DIFFERENCES = 5


def format_of(name: str, wanted: str) -> Format:
    """The format to write, as it was asked for or as the name of the target ends.

    Raises:
        InputError: it is none that can be written.
    """
    ending = wanted or name.rpartition(".")[2].lower()
    for known in FORMATS:
        if known == ending:
            return known
    raise InputError(
        f"{name} does not say which format to write", remedy=f"end its name in, or give --to, {', '.join(FORMATS)}."
    )


def refusal(report: Report, accept: str = "") -> str:
    """Why a file with this report is not loaded; empty when it may be."""
    allowed = {accept, ACCEPTABLE.get(accept, "")} - {""}
    left = [finding for finding in report.findings if finding.rule not in allowed]
    if left:
        return f"{left[0].title}, at {left[0].where} ({left[0].rule})"
    if report.verdict is Verdict.CLEAN:
        return ""
    rules = {finding.rule for finding in report.findings}
    if not rules or report.reasons or any("findings_left_out" in part.facts for part in report.walk()):
        return "; ".join(report.reasons) or "not everything was examined"
    return ""


def check_acceptance(accept: str, reason: str) -> None:
    """An acceptance names a rule that can be accepted, and says why.

    Raises:
        InputError: it does not.
    """
    if accept and accept not in ACCEPTABLE:
        raise InputError(f"findings of {accept} cannot be accepted here", remedy=f"only {', '.join(ACCEPTABLE)} can.")
    if accept and len(reason.strip()) < SHORTEST_REASON:
        raise InputError("an acceptance needs a reason", remedy="say with --reason why you trust these classes.")
    if reason and not accept:
        raise InputError("--reason needs --accept", remedy="name the rule whose findings are accepted.")


# ---- tensors


def read_tensors(data: bytes, kind: Format) -> list[Tensor]:
    """What a safetensors or npz file holds, by a reader that knows nothing of what wrote it.

    Raises:
        ArtefactError: it is no such file.
    """
    reader = _read_safetensors if kind == "safetensors" else _read_npz
    try:
        return sorted(reader(data))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError, zipfile.BadZipFile) as error:
        raise ArtefactError(f"the result is no {kind} file ({error})", remedy="report this with the source.") from error


class _Entry(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def _read_safetensors(data: bytes) -> Iterator[Tensor]:
    size = int.from_bytes(data[:8], "little")
    if not 0 < size <= min(MAX_HEADER_BYTES, len(data) - 8):
        raise ValueError(f"header of {size} bytes")
    header = msgspec.json.decode(data[8 : 8 + size], type=dict[str, msgspec.Raw])
    content = memoryview(data)[8 + size :]
    for name, raw in header.items():
        if name != "__metadata__":
            entry = msgspec.json.decode(raw, type=_Entry)
            begin, end = entry.data_offsets
            if not 0 <= begin <= end <= len(content):
                raise ValueError(f"{name!r} lies outside")
            yield Tensor(name, entry.dtype, entry.shape, digest_bytes(content[begin:end]))


_CODES = {
    "|b1": "BOOL", "|u1": "U8", "|i1": "I8", "<u2": "U16", "<i2": "I16", "<f2": "F16", "<u4": "U32", "<i4": "I32",
    "<f4": "F32", "<u8": "U64", "<i8": "I64", "<f8": "F64", "<c8": "C64",
}  # fmt: skip


def _read_npz(data: bytes) -> Iterator[Tensor]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{member.filename!r} is compressed")
            body = io.BytesIO(archive.read(member))
            if np.lib.format.read_magic(body) != (1, 0):
                raise ValueError(f"{member.filename!r} has another version")
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(body)
            content = body.read()
            if fortran or len(content) != math.prod(shape) * dtype.itemsize:
                raise ValueError(f"{member.filename!r} is not in C order or not whole")
            name = member.filename.removesuffix(".npy")
            yield Tensor(name, _CODES[dtype.str], shape, hashlib.sha256(content).hexdigest())


def compare_tensors(source: list[Tensor], result: list[Tensor], shared: dict[str, str]) -> Agreement:
    """Every tensor must be there, once, with the same type, shape and bytes."""
    ours, theirs = sorted(source), sorted(result)
    found = {tensor.name: tensor for tensor in theirs}
    expected = {tensor.name for tensor in ours}
    differences = [
        f"{tensor.name!r} {_difference(tensor, found.get(tensor.name))}"
        for tensor in ours
        if found.get(tensor.name) != tensor
    ]
    differences += [f"{tensor.name!r} is new" for tensor in theirs if tensor.name not in expected]
    if ours != theirs and not differences:
        differences = ["a name occurs more than once"]
    return Agreement(
        compared="tensors",
        agrees=not differences,
        count=len(ours),
        differences=tuple(differences[:MOST_DIFFERENCES]),
        shared=shared,
    )


def _difference(tensor: Tensor, other: Tensor | None) -> str:
    if other is None:
        return "is missing"
    if (tensor.code, tensor.shape) != (other.code, other.shape):
        return f"was {tensor.code} {list(tensor.shape)} and is {other.code} {list(other.shape)}"
    return "has other bytes"


# ---- answers


def generated_samples(features: int) -> NDArray[np.float64]:
    """Samples ``(rows, features)`` of several scales, always the same ones."""
    random = np.random.default_rng(20240731)
    scales = 10.0 ** random.integers(-1, 3, size=(GENERATED_SAMPLES, 1))
    rows: NDArray[np.float64] = random.normal(size=(GENERATED_SAMPLES, features)) * scales
    return rows


def read_samples(data: bytes, name: str, features: int) -> NDArray[np.float64]:
    """Samples ``(rows, features)`` from an .npy file, or from CSV with or without a line of names.

    Raises:
        InputError: it holds no such table of finite numbers.
    """
    try:
        rows = np.load(io.BytesIO(data), allow_pickle=False) if data.startswith(b"\x93NUMPY") else _read_csv(data)
        table: NDArray[np.float64] = np.asarray(rows, dtype=np.float64)
    except (ValueError, TypeError, csv.Error, EOFError, MemoryError) as error:
        raise InputError(f"{name} holds no samples: {error}", remedy="give numbers as CSV or .npy.") from error
    if table.ndim != 2 or table.shape[1] != features or not 0 < len(table) <= MAX_SAMPLES:  # noqa: PLR2004 - a table
        raise InputError(
            f"{name} has the shape {table.shape}; the model takes {features} features",
            remedy=f"give 1 to {MAX_SAMPLES} rows of {features} numbers.",
        )
    if not np.isfinite(table).all():
        raise InputError(f"{name} holds numbers that are not finite", remedy="leave those rows out.")
    return table


def _read_csv(data: bytes) -> list[list[float]]:
    rows = [row for row in csv.reader(io.StringIO(data.decode("utf-8-sig"))) if row]
    if rows and not _is_number(rows[0][0]):
        rows = rows[1:]
    return [[float(cell) for cell in row] for row in rows]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def compare_answers(source: Answers, result: Answers, count: int, kind: Format, samples: str) -> Agreement:
    """Labels must be identical, numbers within the tolerance of the format.

    A classifier whose classes are numbers predicts labels, not measurements: its predictions are compared exactly.
    """
    relative, absolute = SCORE_TOLERANCE[kind]
    ours, theirs = _predictions(source), _predictions(result)
    has_scores = bool(source.scores) and _shape(source.scores) == _shape(result.scores)
    pairs = [(source.scores, result.scores)] if has_scores else []
    exact = not source.numbers or bool(source.scores)
    if not exact:
        pairs.append((source.numbers, result.numbers))
    same = sum(one == other for one, other in zip(ours, theirs, strict=False))
    differences = [] if len(ours) == len(theirs) else [f"{len(ours)} predictions became {len(theirs)}"]
    if exact and same != len(ours):
        differences.append(f"{len(ours) - same} of {len(ours)} predictions differ")
    largest = 0.0
    for one, other in pairs:
        apart, within = _apart(one, other, relative, absolute)
        largest = max(largest, apart)
        if not within:
            differences.append(f"numbers are {apart:.3g} apart")
    if not ours and not has_scores:
        differences.append("there is nothing to compare")
    return Agreement(
        compared="answers",
        agrees=not differences,
        count=count,
        differences=tuple(differences),
        identical_labels=same if exact else 0,
        distinct_labels=len(set(ours)),
        largest_difference=largest,
        relative_tolerance=relative,
        absolute_tolerance=absolute,
        scores="compared" if has_scores else "not compared",
        samples=samples,
    )


def _predictions(answers: Answers) -> list[tuple[str | float, ...]]:
    """One tuple a sample."""
    return [tuple(row) for row in (answers.labels or answers.numbers)]


def _shape(rows: list[list[float]]) -> tuple[int, set[int]]:
    return len(rows), {len(row) for row in rows}


def _apart(one: list[list[float]], other: list[list[float]], relative: float, absolute: float) -> tuple[float, bool]:
    """Largest difference, and whether all are within the tolerance; what is not finite must be the same."""
    if _shape(one) != _shape(other):
        return math.inf, False
    left, right = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    same = (left == right) | (np.isnan(left) & np.isnan(right))
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(left - right))
        within = bool((same | np.isfinite(apart) & (apart <= absolute + relative * np.abs(left))).all())
    return float(np.nan_to_num(apart, nan=math.inf, posinf=math.inf).max(initial=0.0)), within


# ---- statement


class Conversion(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is stated about one conversion."""

    source_name: str
    source_digest: Digest
    result_name: str
    result_digest: Digest
    to: Format
    part: str = ""
    accept: str = ""
    reason: str = ""
    agreement: Agreement
    source_scan: Digest
    """Of the report on the source."""
    result_scan: Digest
    confinement: dict[str, str]
    """Layer to ``in force``, or why it is not."""
    versions: dict[str, str]
    """Libraries that took part."""
    began: datetime
    ended: datetime
    by: str
    """Version of Bartizan."""


def statement_of(done: Conversion) -> Statement:
    """SLSA provenance v1 of the result (https://slsa.dev/spec/v1.1/provenance); the agreement is a by-product."""
    samples = done.agreement.samples
    chosen = {"to": done.to, "part": done.part, "accept": done.accept, "reason": done.reason, "samples": samples}
    agreement = canonical_json(done.agreement)
    provenance = predicates.Provenance.of(
        BuildDefinition(
            build_type=BUILD_TYPE,
            external_parameters={name: value for name, value in chosen.items() if value},
            internal_parameters={"confinement": done.confinement, "versions": done.versions},
            resolved_dependencies=(Descriptor(name=done.source_name, digest={"sha256": done.source_digest}),),
        ),
        RunDetails(
            builder=Builder(id="urn:bartizan:converter", version={"bartizan": done.by}),
            metadata=BuildMetadata(started_on=done.began, finished_on=done.ended),
            byproducts=(
                Descriptor(
                    name="agreement",
                    digest={"sha256": digest_bytes(agreement)},
                    media_type="application/json",
                    content=base64.b64encode(agreement).decode(),
                    annotations=msgspec.to_builtins(done.agreement),
                ),
                Descriptor(name="scan of the source", digest={"sha256": done.source_scan}),
                Descriptor(name="scan of the result", digest={"sha256": done.result_scan}),
            ),
        ),
    )
    return make(predicates.PROVENANCE, {done.result_name: done.result_digest}, provenance)


def assessment_of(done: Conversion) -> Statement:
    """How far the result answers like its source, as an assessment of the result (principle 2.1)."""
    agreement = done.agreement
    same = agreement.identical_labels if agreement.compared == "answers" else agreement.count
    assessment = Assessment(
        method="convert.agreement",
        summary=f"{done.result_name} against {done.source_name}: {agreement.words}.",
        result="passed" if agreement.agrees else "failed",
        metrics={"agreement": proportion(same, agreement.count).metric()},
        family="conversion",
        settings=msgspec.to_builtins(agreement),
        inputs=(Input.of(done.source_name, done.source_digest),),
        performed_at=done.ended,
    )
    return make(predicates.ASSESSMENT, {done.result_name: done.result_digest}, assessment)
