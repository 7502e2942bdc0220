"""What lies in a folder: models, tables and images, guessed from names and first bytes. Nothing is loaded or run."""

from __future__ import annotations

import csv
import io
import os
import re
import zipfile
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from bartizan.core.errors import ArtefactError
from bartizan.lifecycle.design.declaration_shape import FORMATS
from bartizan.targets.table import BROKEN

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
MAX_ARRAYS = 16
"""Arrays of an npz file whose headers are read."""

Split = Literal["train", "validation", "holdout", "reference", ""]

_SKIPPED = {"__pycache__", "node_modules", "site-packages", "venv", "env", "build", "dist", "bartizan-report"}
_PICKLES = {".joblib", ".pkl", ".pickle", ".skops"}
_NETWORKS = {".onnx", ".pt", ".pth", ".pt2"}
_TEXTS = {".json", ".txt"}
"""Boosted trees may lie in texts, of which there are many others: they are looked at last."""
_OTHER_MODELS = {".safetensors", ".keras", ".h5", ".gguf", ".tflite", ".bst"}
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
_IMAGES = 4
"""Dimensions of an array of images: records, channels, height, width."""
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
    """A file that looks like a model of a framework that can be declared."""

    path: str
    """Below the folder, with ``/``."""
    certain: bool
    """Whether scikit-learn is named inside, which compressed files do not tell; files of others begin as such."""
    framework: str = "scikit-learn"


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
    shape: tuple[int, ...] = ()
    """Channels, height and width where the records are images."""


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
    pickles = [path for path in files if _kind(path) in _PICKLES | _NETWORKS | {".ubj"}]
    texts = [path for path in files if _kind(path) in _TEXTS]
    tabular = [path for path in files if _kind(path) in _TABLES]
    models = [model for path in [*pickles, *texts][:MAX_LOOKED_AT] if (model := _look_at_model(root, path))]
    tables = [table for path in tabular[:MAX_LOOKED_AT] if (table := _look_at_table(root, path))]
    known = {model.path for model in models}
    passed = [path for path in files if _kind(path) in _OTHER_MODELS | _OTHER_TABLES | _NETWORKS | {".ubj"}]
    others = [below for path in passed if (below := _below(root, path)) not in known]
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
    if _kind(path) not in _PICKLES:
        framework = _framework(_kind(path), data, path)
        return FoundModel(path=_below(root, path), certain=True, framework=framework) if framework else None
    named = b"sklearn" in data
    pickled = data[:1] == b"\x80" and data[1:2] in {b"\x02", b"\x03", b"\x04", b"\x05"}
    if _kind(path) == ".skops":
        likely = data.startswith(_ZIP)
    elif _kind(path) == ".joblib":
        likely = pickled or data.startswith(_COMPRESSED)
    else:
        likely = pickled and named
    return FoundModel(path=_below(root, path), certain=named) if likely else None


def _framework(kind: str, data: bytes, path: Path) -> str:
    """The framework of a model file that is no pickle, by its first bytes; empty when it is none that can be declared.

    Of torch only archives that hold the network itself can be: TorchScript and exported programs.
    """
    if kind == ".onnx":
        return "onnx" if data.startswith(b"\x08") else ""
    if kind in _NETWORKS:
        names = data + _end(path)
        return "torch" if data.startswith(_ZIP) and (b"/constants.pkl" in names or b"/models/" in names) else ""
    if kind == ".txt":
        return "lightgbm" if data.startswith(b"tree\nversion=") else ""
    return "xgboost" if data.startswith((b"{L", b"{")) and b"learner" in data and b"gradient_booster" in data else ""


def _end(path: Path) -> bytes:
    """The last bytes of a file, where archives list what they hold; empty when it cannot be read."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - MAX_PEEK))
            return stream.read(MAX_PEEK)
    except OSError:
        return b""


def _arrays(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the arrays of an npz file, from their headers; nothing when it is none."""
    found: dict[str, tuple[int, ...]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist()[:MAX_ARRAYS]:
                with archive.open(info) as member:
                    version = np.lib.format.read_magic(member)
                    first = version == (1, 0)
                    read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
                    found[info.filename.removesuffix(".npy")] = read(member)[0]
    except BROKEN:
        return {}
    return found


def _look_at_arrays(path: Path, below: str, split: Split) -> FoundTable:
    """An npz file: images have four dimensions, and the one other array is the label."""
    arrays = _arrays(path)
    rows = arrays.pop("rows", ())
    arrays.pop("columns", None)
    targets = [name for name, shape in arrays.items() if shape == rows[:1]]
    return FoundTable(
        path=below,
        split=split,
        target=targets[0] if len(targets) == 1 else "",
        shape=rows[1:] if len(rows) == _IMAGES else (),
    )


def _look_at_table(root: Path, path: Path) -> FoundTable | None:
    below, data = _below(root, path), _peek(path)
    split = _split_of(below)
    if _kind(path) == ".npz":
        return _look_at_arrays(path, below, split) if data.startswith(_ZIP) else None
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
