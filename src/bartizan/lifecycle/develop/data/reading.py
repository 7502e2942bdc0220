"""Datasets as they are: every fault kept and counted where ``targets.table`` would refuse the file."""

from __future__ import annotations

import csv
import io
import math
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from bartizan.core.digest import Digest, digest_bytes, short
from bartizan.core.errors import ArtefactError
from bartizan.core.system import Artefact, DatasetPart
from bartizan.targets.protocol import Labels, Rows
from bartizan.targets.table import MAX_BYTES, MAX_CELLS, MAX_CLASSES, MAX_COLUMNS, misfit

MISSING_WORDS = frozenset({"", "?", "n/a", "na", "nan", "none", "null"})
"""Cells, without case and outer spaces, that mean that nothing was recorded."""
ABSENT = -1
"""Index of a label or group that is missing."""
_CHUNK_ROWS = 4_096
_MAX_ARRAYS = 16


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One dataset with its faults. Records count from 1, the first after the header."""

    name: str
    """File name, for findings."""
    part: DatasetPart
    digest: Digest
    """Of the bytes that were read, and equal to the one declared."""
    columns: tuple[str, ...]
    """Names of the features."""
    rows: Rows
    """``(records, features)``; NaN where a cell is missing or unreadable."""
    unreadable: NDArray[np.int64]
    """``(cells, 2)``: record index and feature index of cells that hold something, but no finite number."""
    ragged: NDArray[np.int64]
    """Indices of records with too few or too many cells."""
    labels: Labels
    """``(records,)``: indices into ``label_values``; ``ABSENT`` where missing."""
    label_values: tuple[str, ...]
    groups: tuple[str, ...]
    """``(records,)`` values of the declared group column; empty when none is declared."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def missing(self) -> NDArray[np.bool_]:
        """``(records, features)``: which cells were left empty."""
        empty = np.isnan(self.rows)
        empty[self.unreadable[:, 0], self.unreadable[:, 1]] = False
        return empty

    @property
    def classes(self) -> int:
        """Number of label values."""
        return len(self.label_values)


def read_sample(artefact: Artefact, part: DatasetPart) -> Sample:
    """Read a declared dataset, CSV or npz, in the layout of ``bartizan.targets.table``.

    Raises:
        ArtefactError: it cannot be read as a table at all, passes a limit, or its bytes are not
            those that the artefact's digest names.
    """
    path = Path(artefact.path)
    data = _bytes(path, artefact.digest)
    raw = _npz(path.name, data, part) if path.suffix == ".npz" else _csv(path.name, data, part)
    values, labels = _label_indices(path.name, part, raw.labels)
    return Sample(
        name=path.name,
        part=part,
        digest=artefact.digest,
        columns=raw.columns,
        rows=raw.rows,
        unreadable=raw.unreadable,
        ragged=raw.ragged,
        labels=labels,
        label_values=values,
        groups=raw.groups,
    )


def _bytes(path: Path, digest: Digest) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            _refuse(path.name, f"{size} bytes; tables of up to {MAX_BYTES} are read")
        data = path.read_bytes()
    except OSError as error:
        raise ArtefactError(f"{path.name} cannot be read: {error.strerror or error}") from error
    found = digest_bytes(data)
    if found != digest:
        raise ArtefactError(
            f"{path.name} has the digest {short(found)}, not {short(digest)}: it changed since it was declared",
            remedy="run the command again; if the change was not yours, restore the file.",
        )
    return data


@dataclass(frozen=True, slots=True, eq=False)
class _Raw:
    columns: tuple[str, ...]
    rows: Rows
    unreadable: NDArray[np.int64]
    ragged: NDArray[np.int64]
    labels: list[str]
    groups: tuple[str, ...]


# -- CSV -----------------------------------------------------------------------------------------


def _csv(name: str, data: bytes, part: DatasetPart) -> _Raw:
    records = _records(name, data)
    header = next(records, [])
    features = [_text_place(name, part, header)] if part.text else _feature_places(name, part, header)
    target, group = header.index(part.target), header.index(part.group) if part.group in header else None
    rows, unreadable, ragged = [np.empty((0, len(features)))], [np.empty((0, 2), np.int64)], list[int]()
    labels, groups, count = list[str](), list[str](), 0
    while chunk := list(islice(records, _CHUNK_ROWS)):
        if (count + len(chunk)) * len(header) > MAX_CELLS:
            _refuse(name, f"more than {MAX_CELLS} cells")
        ragged.extend(count + place for place, cells in enumerate(chunk) if len(cells) != len(header))
        chunk = [_fitted(cells, len(header)) for cells in chunk]
        numbers, wrong = (_codes if part.text else _numbers)(chunk, features)
        rows.append(numbers)
        unreadable.append(wrong + np.array([count, 0]))
        labels.extend(cells[target].strip() for cells in chunk)
        groups.extend(cells[group].strip() for cells in chunk if group is not None)
        count += len(chunk)
    if not count:
        _refuse(name, "no record follows the header")
    return _Raw(
        columns=tuple(header[place] for place in features),
        rows=np.concatenate(rows),
        unreadable=np.concatenate(unreadable),
        ragged=np.array(ragged, np.int64),
        labels=labels,
        groups=tuple(groups),
    )


def _records(name: str, data: bytes) -> Iterator[list[str]]:
    """Cells of each line; blank lines are passed over."""
    reader = csv.reader(io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline=""), strict=True)
    try:
        yield from filter(None, reader)
    except csv.Error as error:
        _refuse(name, f"line {reader.line_num} is not CSV: {error}")
    except UnicodeDecodeError as error:
        _refuse(name, f"not UTF-8 after line {reader.line_num}: {error.reason}")


def _feature_places(name: str, part: DatasetPart, header: Sequence[str]) -> list[int]:
    if not 2 <= len(header) <= MAX_COLUMNS:  # noqa: PLR2004 - one feature and the target at least
        _refuse(name, f"a header of {len(header)} columns; 2 to {MAX_COLUMNS} are read")
    if len(set(header)) != len(header):
        twice = next(column for column in header if header.count(column) > 1)
        _refuse(name, f"the column {twice[:80]!r} comes twice")
    if part.target not in header:
        _refuse(name, f"no column {part.target!r}, which is declared as the target of dataset {part.name!r}")
    places = [place for place, column in enumerate(header) if column not in {part.target, part.group}]
    return places or _refuse(name, "no feature is left beside target and group")


def _text_place(name: str, part: DatasetPart, header: Sequence[str]) -> int:
    """Where the declared text stands; the other checks of the header hold as well."""
    _feature_places(name, part, header)
    if part.text not in header:
        _refuse(name, f"no column {part.text!r}, which is declared as the text of dataset {part.name!r}")
    return header.index(part.text)


def _codes(chunk: list[list[str]], features: list[int]) -> tuple[Rows, NDArray[np.int64]]:
    """A number for each text: equal ones for equal texts only, as far as a digest of 52 bits goes."""
    texts = [cells[features[0]] for cells in chunk]
    codes = [float(int(digest_bytes(text.encode())[:13], 16)) if text.strip() else math.nan for text in texts]
    return np.array(codes)[:, None], np.empty((0, 2), np.int64)


def _fitted(cells: list[str], width: int) -> list[str]:
    """A record cut or filled up to the header's width."""
    return cells if len(cells) == width else (cells + [""] * width)[:width]


def _numbers(chunk: list[list[str]], features: list[int]) -> tuple[Rows, NDArray[np.int64]]:
    """One chunk as numbers, and the places ``(cells, 2)`` of what is none."""
    try:
        rows = np.array([[float(cells[place]) for place in features] for cells in chunk])
        wrong = np.isinf(rows)
    except ValueError:
        read = [[_number(cells[place]) for place in features] for cells in chunk]
        rows = np.array([[value for value, _ in line] for line in read])
        wrong = np.array([[bad for _, bad in line] for line in read])
    rows[wrong] = np.nan
    return rows, np.argwhere(wrong)


def _number(text: str) -> tuple[float, bool]:
    """The number in a cell (NaN when there is none), and whether it holds something else."""
    try:
        value = float(text)
    except ValueError:
        return math.nan, text.strip().lower() not in MISSING_WORDS
    return value, math.isinf(value)


# -- npz -----------------------------------------------------------------------------------------


def _npz(name: str, data: bytes, part: DatasetPart) -> _Raw:
    arrays = _arrays(name, data)
    for needed in ("rows", part.target):
        if needed not in arrays:
            _refuse(name, f"no array {needed!r}; there are {', '.join(sorted(arrays))[:200] or 'none'}")
    rows, labels = arrays["rows"], arrays[part.target]
    if fault := misfit(rows, part):
        _refuse(name, fault)
    if labels.shape != rows.shape[:1] or labels.dtype.kind not in "biuU":
        _refuse(name, f"{part.target!r} is {labels.dtype} {labels.shape}; whole numbers or text ({len(rows)},) fit")
    rows = rows.reshape(len(rows), -1).astype(np.float64)
    wrong = np.isinf(rows)
    rows[wrong] = np.nan
    return _Raw(
        columns=_column_names(name, arrays.get("columns"), rows.shape[1]),
        rows=rows,
        unreadable=np.argwhere(wrong),
        ragged=np.empty(0, np.int64),
        labels=[str(label) for label in labels.tolist()],
        groups=_group_values(name, arrays.get(part.group) if part.group else None, len(rows)),
    )


def _arrays(name: str, data: bytes) -> dict[str, NDArray[Any]]:
    """Every array of the archive, after its announced sizes were found to be within bounds."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            total = sum(member.file_size for member in members)
            if len(members) > _MAX_ARRAYS or total > MAX_BYTES:
                _refuse(name, f"{len(members)} arrays of {total} bytes; {_MAX_ARRAYS} of {MAX_BYTES} are read")
            return {member.filename.removesuffix(".npy"): _array(archive, member) for member in members}
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, RuntimeError, KeyError) as error:
        _refuse(name, f"not an npz archive of plain arrays: {error}")


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(member) as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _column_names(name: str, names: NDArray[Any] | None, features: int) -> tuple[str, ...]:
    if names is None:
        return tuple(f"x{place}" for place in range(features))
    columns = tuple(str(column) for column in names.ravel().tolist())
    if names.dtype.kind != "U" or len(columns) != features or len(set(columns)) != features:
        _refuse(name, f"'columns' is {names.dtype} {names.shape}; {features} different names fit")
    return columns


def _group_values(name: str, groups: NDArray[Any] | None, records: int) -> tuple[str, ...]:
    if groups is None:
        return ()
    if groups.shape != (records,) or groups.dtype.kind not in "biuU":
        _refuse(name, f"the group array is {groups.dtype} {groups.shape}; whole numbers or text ({records},) fit")
    return tuple(str(group) for group in groups.tolist())


# -- labels --------------------------------------------------------------------------------------


def _label_indices(name: str, part: DatasetPart, texts: list[str]) -> tuple[tuple[str, ...], Labels]:
    """Label values in the order that ``targets.table`` gives them, and the index of each label."""
    found = {text for text in texts if text.lower() not in MISSING_WORDS}
    if len(found) > MAX_CLASSES:
        _refuse(name, f"the target {part.target!r} holds {len(found)} different values; {MAX_CLASSES} are read")
    numeric = all(not math.isnan(_number(text)[0]) for text in found)
    values = tuple(sorted(found, key=(lambda text: (float(text), text)) if numeric else (lambda text: (0.0, text))))
    places = {value: place for place, value in enumerate(values)}
    return values, np.array([places.get(text, ABSENT) for text in texts], np.int64)


def _refuse(name: str, fault: str) -> NoReturn:
    raise ArtefactError(f"{name}: {fault}", remedy="mend the file, or what the declaration says about it.")
