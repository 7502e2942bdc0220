"""What lies in a folder: model files and tables, guessed from names and first bytes. Nothing is loaded or run."""

from __future__ import annotations

import csv
import io
import os
import re
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

import msgspec

from bartizan.core.errors import ArtefactError
from bartizan.lifecycle.design.declaration_shape import FORMATS

MAX_ENTRIES = 20_000
MAX_DEPTH = 5
MAX_PEEK = 1_000_000
"""Bytes that are read of one file."""
MAX_ROWS = 5_000
MAX_CLASSES = 20
MAX_LOOKED_AT = 200
"""Files that are opened, of models and of tables each."""
MAX_FOUND = 20
"""Models, and tables, that are told."""
MAX_COLUMNS = 1_000
"""Columns of a table that are looked at one by one."""

Split = Literal["train", "validation", "holdout", "reference", ""]

_SKIPPED = {"__pycache__", "node_modules", "site-packages", "venv", "env", "build", "dist", "bartizan-report"}
_PICKLES = {".joblib", ".pkl", ".pickle", ".skops"}
_OTHER_MODELS = {".onnx", ".pt", ".pth", ".safetensors", ".keras", ".h5", ".ubj", ".gguf", ".tflite", ".bst"}
_TABLES = {".csv", ".npz"}
_OTHER_TABLES = {".parquet", ".feather", ".arrow", ".tsv", ".jsonl", ".xlsx", ".npy"}
_MISSING = {"", "?", "n/a", "na", "nan", "none", "null"}
_COMPRESSED = (
    b"\x78\x01",
    b"\x78\x5e",
    b"\x78\x9c",
    b"\x78\xda",
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ",
    b"\x04\x22\x4d\x18",
)
_ZIP = b"PK\x03\x04"
_SPLIT_WORDS: dict[str, Split] = {
    **dict.fromkeys(("train", "training", "fit", "learn"), "train"),
    **dict.fromkeys(("holdout", "hold", "heldout", "test", "testing", "eval", "evaluation"), "holdout"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("reference", "ref", "baseline"), "reference"),
}
_TARGET_WORDS = (
    "target", "label", "labels", "class", "y", "outcome", "diagnosis", "result", "response", "category", "default",
    "churn", "fraud", "spam", "survived", "species", "quality",
)  # fmt: skip


class FoundModel(msgspec.Struct, frozen=True, kw_only=True):
    """A file that looks like a scikit-learn model."""

    path: str
    """Below the folder, with ``/``."""
    certain: bool
    """Whether scikit-learn is named inside; compressed files do not tell."""


class FoundTable(msgspec.Struct, frozen=True, kw_only=True):
    """A file that looks like a table of records."""

    path: str
    split: Split
    """By its name; empty when that tells nothing."""
    columns: tuple[str, ...] = ()
    """Empty when the header is not readable here (npz)."""
    target: str = ""
    """Column that is most likely the label; empty when none stands out."""
    classes: tuple[str, ...] = ()
    """Values seen in ``target``: numbers in rising order, or text in the order of its characters."""
    integer: tuple[str, ...] = ()
    """Input columns in which only whole numbers were seen."""


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in a folder."""

    folder: str
    """Its name."""
    models: tuple[FoundModel, ...] = ()
    tables: tuple[FoundTable, ...] = ()
    passed_over: tuple[str, ...] = ()
    """Files of kinds that a declaration cannot name yet."""
    cut_short: bool = False
    """Whether the folder holds more than was looked at."""


def survey(folder: Path) -> Survey:
    """Look through a folder: at most ``MAX_ENTRIES`` entries, ``MAX_DEPTH`` levels, links not followed.

    Raises:
        ArtefactError: the folder cannot be read.
    """
    root = folder.resolve()
    if not root.is_dir():
        raise ArtefactError(f"{folder} is no folder", remedy="name the folder that holds the model and its data.")
    paths = list(_walk(root))
    files = sorted(path for path in paths[:MAX_ENTRIES] if FORMATS["path"].fits(_below(root, path)))
    pickles = [path for path in files if _kind(path) in _PICKLES]
    tabular = [path for path in files if _kind(path) in _TABLES]
    models = [model for path in pickles[:MAX_LOOKED_AT] if (model := _look_at_model(root, path))]
    tables = [table for path in tabular[:MAX_LOOKED_AT] if (table := _look_at_table(root, path))]
    others = [_below(root, path) for path in files if _kind(path) in _OTHER_MODELS | _OTHER_TABLES]
    return Survey(
        folder=root.name,
        models=tuple(models[:MAX_FOUND]),
        tables=tuple(tables[:MAX_FOUND]),
        passed_over=tuple(others[:MAX_FOUND]),
        cut_short=len(paths) > MAX_ENTRIES
        or max(len(pickles), len(tabular)) > MAX_LOOKED_AT
        or max(len(models), len(tables), len(others)) > MAX_FOUND,
    )


def _walk(root: Path) -> Iterator[Path]:
    """Regular files, nearest first, whose names are text; at most one more than ``MAX_ENTRIES``."""
    waiting, seen = deque([(root, 0)]), 0
    while waiting and seen <= MAX_ENTRIES:
        folder, depth = waiting.popleft()
        for entry in _entries(folder, must=folder == root):
            seen += 1
            if entry.name.startswith(".") or entry.is_symlink():
                continue
            if entry.is_file(follow_symlinks=False):
                yield Path(entry.path)
            elif entry.is_dir(follow_symlinks=False) and depth < MAX_DEPTH and entry.name not in _SKIPPED:
                waiting.append((Path(entry.path), depth + 1))


def _entries(folder: Path, *, must: bool) -> list[os.DirEntry[str]]:
    """The entries of a folder, by name; a folder below the first that cannot be read has none."""
    try:
        with os.scandir(folder) as entries:
            return sorted(islice(entries, MAX_ENTRIES + 1), key=lambda entry: entry.name)
    except OSError as error:
        if must:
            message = f"{folder} cannot be read: {error.strerror}"
            raise ArtefactError(message, remedy="check its permissions.") from error
        return []


def _kind(path: Path) -> str:
    return path.suffix.lower()


def _below(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _peek(path: Path) -> bytes:
    """The beginning of a file; empty when it cannot be read."""
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_PEEK)
    except OSError:
        return b""


def _look_at_model(root: Path, path: Path) -> FoundModel | None:
    """A pickle, compressed pickle or skops archive, by its first bytes; a bare ``.pkl`` must name scikit-learn."""
    data = _peek(path)
    named = b"sklearn" in data
    pickled = data[:1] == b"\x80" and data[1:2] in {b"\x02", b"\x03", b"\x04", b"\x05"}
    if _kind(path) == ".skops":
        likely = data.startswith(_ZIP)
    elif _kind(path) == ".joblib":
        likely = pickled or data.startswith(_COMPRESSED)
    else:
        likely = pickled and named
    return FoundModel(path=_below(root, path), certain=named) if likely else None


def _look_at_table(root: Path, path: Path) -> FoundTable | None:
    below, data = _below(root, path), _peek(path)
    split = _split_of(below)
    if _kind(path) == ".npz":
        return FoundTable(path=below, split=split) if data.startswith(_ZIP) else None
    header, rows = _read_rows(data)
    if len(header) < 2 or len(set(header)) < len(header) or not rows:  # noqa: PLR2004 - an input and a label
        return None
    target = _target_of(header, rows)
    return FoundTable(
        path=below,
        split=split,
        columns=tuple(header),
        target=target,
        classes=_values(header, rows, target) if target else (),
        integer=tuple(
            name for name in header[:MAX_COLUMNS] if name != target and _is_whole(_values(header, rows, name))
        ),
    )


def _split_of(path: str) -> Split:
    """What the nearest part of the path that says anything says: the file's name first, then its folders."""
    for part in reversed(path.rsplit(".", 1)[0].split("/")):
        for word in re.split(r"[^a-z]+", part.lower()):
            if word in _SPLIT_WORDS:
                return _SPLIT_WORDS[word]
    return ""


def _read_rows(data: bytes) -> tuple[list[str], list[list[str]]]:
    """Header and up to ``MAX_ROWS`` whole rows of comma-separated text; nothing when it is none."""
    complete = data[: data.rfind(b"\n") + 1] if len(data) == MAX_PEEK else data
    try:
        text = complete.decode("utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = [name.strip() for name in next(reader, [])]
        rows = [row for row, _ in zip(reader, range(MAX_ROWS), strict=False) if len(row) == len(header)]
    except (UnicodeDecodeError, csv.Error):
        return [], []
    return (header, rows) if all(header) else ([], [])


def _target_of(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A column with a telling name, else the last or first, if it takes few enough values to be a class."""
    named = [name for word in _TARGET_WORDS for name in header if name.casefold() == word]
    for name in [*named, header[-1], header[0]]:
        if 2 <= len(_values(header, rows, name)) <= min(MAX_CLASSES, max(2, len(rows) // 2)):  # noqa: PLR2004 - classes
            return name
    return ""


def _values(header: Sequence[str], rows: Sequence[Sequence[str]], name: str) -> tuple[str, ...]:
    """Different values of a column, in the order in which they become class indices."""
    place = header.index(name)
    found = {value for row in rows if (value := row[place].strip()).casefold() not in _MISSING}
    try:
        return tuple(sorted(found, key=lambda value: (float(value), value)))
    except ValueError:
        return tuple(sorted(found))


def _is_whole(values: Sequence[str]) -> bool:
    return bool(values) and all(re.fullmatch(r"[+-]?[0-9]{1,15}(\.0*)?", value) for value in values)
