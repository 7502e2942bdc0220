"""Tables: declared CSV and npz files as arrays, read within bounds and without executing anything.

CSV: UTF-8, a header line, one number in each cell except for the label column, which may hold
text. npz: an array ``rows`` ``(records, features)``, one named like the declared target
``(records,)``, and if wanted ``columns`` with the names of the features; never pickled objects.

Where a dataset is declared with a shape its records are images: of an npz file ``rows`` may then also be
``(records, channels, height, width)``; of a CSV file the columns are the values, by channel, row and column. Every
value lies within the declared range. Images are kept flat and in single precision.
"""

from __future__ import annotations

import csv
import lzma
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn, TextIO

import numpy as np
from numpy.typing import NDArray

from bartizan.core.digest import Digest, digest_bytes
from bartizan.core.errors import ArtefactError
from bartizan.core.system import DatasetPart
from bartizan.targets.protocol import Labels, Rows

MAX_BYTES = 1 << 30
MAX_COLUMNS = 10_000
MAX_CELLS = 1 << 27
"""As float64, one gibibyte."""
MAX_CLASSES = 1_000
BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    OverflowError,
    RuntimeError,
    struct.error,
    SyntaxError,
)
"""What the readers of zip and npy raise for broken files."""
_MAX_ARRAYS = 16
_CHUNK_ROWS = 4_096
_MATRIX = 2


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Labelled rows of numbers."""

    columns: tuple[str, ...]
    """Names of the features, in the order of the file."""
    rows: Rows
    """``(records, features)``, finite."""
    labels: Labels
    """``(records,)``: indices into ``label_values``."""
    label_values: tuple[str, ...]
    """What the label column holds: numbers in rising order, or text in the order of its characters."""

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: NDArray[Any]) -> Table:
        """The records at ``index``."""
        return Table(self.columns, self.rows[index], self.labels[index], self.label_values)


def read_table(
    path: str | Path, part: DatasetPart, *, label_values: Sequence[str] = (), digest: Digest | None = None
) -> Table:
    """Read the file of a declared dataset.

    The target and the ``group`` column are no features. ``label_values`` gives the classes that the
    training data has, so that a smaller table gets the same indices. With ``digest``, the bytes that
    are read must be those.

    Raises:
        ArtefactError: the file is too large, is no such table, or holds something that is no finite
            number; the message names file, line and column.
    """
    path = Path(path)
    if part.text:
        raise ArtefactError(
            f"dataset {part.name!r} holds texts, and this works on rows of numbers",
            remedy="see `bartizan attack --list` for what can be done with texts.",
        )
    data = _bytes(path, digest)
    columns, rows, texts = (_read_npz if path.suffix == ".npz" else _read_csv)(path, data, part)
    values, labels = _label_indices(path, part, texts, tuple(label_values))
    return Table(columns, _as_images(path, rows, part) if part.shape else rows, labels, values)


def read_columns(path: str | Path, part: DatasetPart) -> tuple[str, ...]:
    """Names of the features of a declared dataset, in their order, without reading further than needed.

    Raises:
        ArtefactError: see ``read_table``.
    """
    path = Path(path)
    if path.suffix == ".npz":
        return read_table(path, part).columns
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            _, header = next(_records(path, file), (1, []))
    except OSError as error:
        raise ArtefactError(f"{path.name} cannot be read: {error.strerror or error}") from error
    return tuple(header[place] for place in _feature_places(path, part, header))


def _bytes(path: Path, digest: Digest | None) -> BytesIO:
    """The file's bytes, read once, so that what is digested is what is used."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ArtefactError(f"{path.name} cannot be read: {error.strerror or error}") from error
    if len(data) > MAX_BYTES:
        _refuse(path, 0, f"more than {MAX_BYTES} bytes")
    if digest is not None and digest_bytes(data) != digest:
        raise ArtefactError(f"{path.name} has changed since it was digested", remedy="run the command again.")
    return BytesIO(data)


# -- images --------------------------------------------------------------------------------------


def misfit(rows: NDArray[Any], part: DatasetPart) -> str:
    """Why an array ``rows`` of an npz file is none of what the declaration says; empty when it is."""
    said = f"'rows' is {rows.dtype} {rows.shape}"
    if rows.dtype.kind not in "biuf" or not rows.size or rows.size > MAX_CELLS:
        return f"{said}; up to {MAX_CELLS} numbers are read, and at least one"
    if not part.shape:
        fits = rows.ndim == _MATRIX and rows.shape[1] < MAX_COLUMNS
        return "" if fits else f"{said}; numbers (records, features) are read, of fewer than {MAX_COLUMNS} features"
    flat = math.prod(part.shape)
    if rows.shape[1:] in {tuple(part.shape), (flat,)} and flat < MAX_COLUMNS:
        return ""
    shown = ", ".join(map(str, part.shape))
    return f"{said}; images of the declared shape are (records, {shown}), channels first, or (records, {flat})"


def _as_images(path: Path, rows: NDArray[Any], part: DatasetPart) -> Rows:
    """Rows in single precision, once every value is known to lie within the declared range."""
    flat = math.prod(part.shape)
    if rows.shape[1] != flat:
        _refuse(path, 0, f"{rows.shape[1]} values a record; images of shape {list(part.shape)} have {flat}")
    low, high = part.value_range or (-math.inf, math.inf)
    with np.errstate(over="ignore"):
        images: NDArray[Any] = np.ascontiguousarray(rows, dtype=np.float32)
        beyond = (images < np.float32(low)) | (images > np.float32(high)) | ~np.isfinite(images)
    if beyond.any():
        record, place = np.argwhere(beyond)[0]
        found = f"record {record}, value {place} is {rows[record, place]:g}"
        _refuse(path, 0, f"{found}, outside the value_range from {low:g} to {high:g}")
    return images


# -- CSV -----------------------------------------------------------------------------------------


def _read_csv(path: Path, data: BytesIO, part: DatasetPart) -> tuple[tuple[str, ...], Rows, list[str]]:
    with TextIOWrapper(data, encoding="utf-8-sig", newline="") as file:
        records = _records(path, file)
        _, header = next(records, (1, []))
        features = _feature_places(path, part, header)
        target = header.index(part.target)
        chunks, labels = [np.empty((0, len(features)))], list[str]()
        for lines, cells in _chunks(path, records, header):
            chunks.append(_numbers(path, lines, cells, header, features))
            labels.extend(row[target].strip() for row in cells)
    if not labels:
        _refuse(path, 2, "no record follows the header")
    return tuple(header[place] for place in features), np.concatenate(chunks), labels


def _records(path: Path, file: TextIO) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each record; blank lines are passed over."""
    reader = csv.reader(file, strict=True)
    try:
        for cells in reader:
            if cells:
                yield reader.line_num, cells
    except csv.Error as error:
        _refuse(path, reader.line_num, f"not CSV: {error}")
    except UnicodeDecodeError as error:
        _refuse(path, reader.line_num + 1, f"not UTF-8: {error.reason}")


def _feature_places(path: Path, part: DatasetPart, header: Sequence[str]) -> list[int]:
    if len(header) > MAX_COLUMNS:
        _refuse(path, 1, f"{len(header)} columns; up to {MAX_COLUMNS} are read")
    if len(set(header)) != len(header):
        twice = next(name for name in header if header.count(name) > 1)
        _refuse(path, 1, f"the column {twice[:80]!r} comes twice")
    if part.target not in header:
        _refuse(path, 1, f"no column {part.target!r}, which is declared as the target of dataset {part.name!r}")
    places = [place for place, name in enumerate(header) if name not in {part.target, part.group}]
    return places or _refuse(path, 1, "no feature is left beside target and group")


def _chunks(
    path: Path, records: Iterator[tuple[int, list[str]]], header: Sequence[str]
) -> Iterator[tuple[list[int], list[list[str]]]]:
    """Some thousand records at a time, each as long as the header."""
    lines, cells, count = list[int](), list[list[str]](), 0
    for line, record in records:
        if len(record) != len(header):
            _refuse(path, line, f"{len(record)} cells where the header has {len(header)}")
        count += len(record)
        if count > MAX_CELLS:
            _refuse(path, line, f"more than {MAX_CELLS} cells")
        lines.append(line)
        cells.append(record)
        if len(cells) == _CHUNK_ROWS:
            yield lines, cells
            lines, cells = [], []
    if cells:
        yield lines, cells


def _numbers(path: Path, lines: list[int], cells: list[list[str]], header: Sequence[str], features: list[int]) -> Rows:
    """One chunk as numbers. The slow look at single cells happens only when one of them is wrong."""
    try:
        rows = np.array([[float(row[place]) for place in features] for row in cells])
    except ValueError:
        rows = np.array([np.nan])
    if np.isfinite(rows).all():
        return rows
    for line, row in zip(lines, cells, strict=True):
        for place in features:
            if not _is_finite_number(row[place]):
                _refuse(path, line, f"column {header[place]!r} holds {row[place][:40]!r}, which is no finite number")
    raise AssertionError(path)


def _is_finite_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


# -- npz -----------------------------------------------------------------------------------------


def _read_npz(path: Path, data: BytesIO, part: DatasetPart) -> tuple[tuple[str, ...], Rows, list[str]]:
    try:
        with zipfile.ZipFile(data) as archive:
            _check_sizes(path, archive)
            arrays = {info.filename.removesuffix(".npy"): _array(archive, info) for info in archive.infolist()}
    except BROKEN as error:
        _refuse(path, 0, f"not an npz archive of plain arrays: {error}")
    for name in ("rows", part.target):
        if name not in arrays:
            _refuse(path, 0, f"no array {name!r}; there are {', '.join(sorted(arrays))[:200] or 'none'}")
    rows, labels = arrays["rows"], arrays[part.target]
    if fault := misfit(rows, part):
        _refuse(path, 0, fault)
    if labels.shape != rows.shape[:1] or labels.dtype.kind not in "biuU":
        _refuse(path, 0, f"{part.target!r} is {labels.dtype} {labels.shape}; whole numbers or text ({len(rows)},) fit")
    rows = rows.reshape(len(rows), -1)
    rows = rows if part.shape else rows.astype(np.float64)
    if not (finite := np.isfinite(rows)).all():
        record, feature = np.argwhere(~finite)[0]
        _refuse(path, 0, f"record {record}, feature {feature} is not finite")
    return _npz_columns(path, arrays.get("columns"), rows.shape[1]), rows, [str(label) for label in labels.tolist()]


def _check_sizes(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuse a bomb before anything is unpacked; ``zipfile`` never gives more than a member announces."""
    total = sum(info.file_size for info in archive.infolist())
    if len(archive.infolist()) > _MAX_ARRAYS or total > MAX_BYTES:
        _refuse(path, 0, f"{len(archive.infolist())} arrays of {total} bytes; {_MAX_ARRAYS} of {MAX_BYTES} are read")


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    """One array, once its header is known to promise no more than the member holds."""
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(member)
    if math.prod(shape) * dtype.itemsize > info.file_size:
        raise ValueError(f"{info.filename[:80]!r} promises {dtype} {shape} in {info.file_size} bytes")
    with archive.open(info) as member:
        array: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
    return array


def _npz_columns(path: Path, names: NDArray[Any] | None, features: int) -> tuple[str, ...]:
    if names is None:
        return tuple(f"x{place}" for place in range(features))
    columns = tuple(str(name) for name in names.ravel().tolist())
    if names.dtype.kind != "U" or len(set(columns)) != features:
        _refuse(path, 0, f"'columns' is {names.dtype} {names.shape}; {features} different names fit")
    return columns


# -- labels --------------------------------------------------------------------------------------


def _label_indices(
    path: Path, part: DatasetPart, texts: list[str], known: tuple[str, ...]
) -> tuple[tuple[str, ...], Labels]:
    """Class values in their order, and the index of each label."""
    found = dict.fromkeys(texts)
    if len(found) > MAX_CLASSES:
        _refuse(path, 0, f"the target {part.target!r} holds {len(found)} different values; {MAX_CLASSES} are read")
    values = known or tuple(sorted(found, key=_numeric if all(map(_is_finite_number, found)) else str))
    places = {value: place for place, value in enumerate(values)}
    unknown = next((value for value in found if value not in places), None)
    if unknown is not None:
        _refuse(path, 0, f"the target {part.target!r} holds {unknown[:40]!r}, which training has not: {values[:20]}")
    return values, np.array([places[text] for text in texts], dtype=np.int64)


def _numeric(text: str) -> float:
    return float(text)


def _refuse(path: Path, line: int, fault: str) -> NoReturn:
    place = f"{path.name}:{line}" if line else path.name
    raise ArtefactError(f"{place}: {fault}", remedy="mend the file, or what the declaration says about it.")
