"""Texts: declared CSV files of which one column is all that a model is given, read within bounds."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from bartizan.core.digest import Digest, digest_bytes
from bartizan.core.errors import ArtefactError
from bartizan.core.system import DatasetPart
from bartizan.targets.protocol import Labels
from bartizan.targets.table import MAX_BYTES, MAX_CLASSES

MAX_TEXTS = 2_000_000
MAX_LETTERS = 100_000
"""Longest text, in characters."""


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """Labelled texts."""

    texts: tuple[str, ...]
    labels: Labels
    """``(records,)``: indices into ``label_values``."""
    label_values: tuple[str, ...]
    """What the label column holds: whole numbers in rising order, or words in the order of their characters."""

    def __len__(self) -> int:
        return len(self.texts)


def read_texts(
    path: str | Path, part: DatasetPart, *, label_values: Sequence[str] = (), digest: Digest | None = None
) -> Texts:
    """Read the file of a dataset that is declared with ``text``.

    ``label_values`` gives the classes that the training data has. With ``digest``, the bytes must be those.

    Raises:
        ArtefactError: the file is too large, is no such table, or an empty or endless text stands in it; the
            message names file and line.
    """
    path = Path(path)
    if not part.text:
        raise ArtefactError(f"dataset {part.name!r} is declared as a table of numbers", remedy='say text = "COLUMN".')
    texts, words = list[str](), list[str]()
    for line, text, word in _records(path, _content(path, digest), part):
        if not text.strip():
            _refuse(path, line, f"column {part.text!r} is empty")
        if len(text) > MAX_LETTERS:
            _refuse(path, line, f"a text of {len(text)} characters; up to {MAX_LETTERS} are read")
        if len(texts) == MAX_TEXTS:
            _refuse(path, line, f"more than {MAX_TEXTS} texts")
        texts.append(text)
        words.append(word)
    if not texts:
        _refuse(path, 2, "no record follows the header")
    values = tuple(label_values) or _values(path, part, words)
    places = {value: place for place, value in enumerate(values)}
    unknown = next((word for word in words if word not in places), None)
    if unknown is not None:
        _refuse(path, 0, f"the target {part.target!r} holds {unknown[:40]!r}, which training has not: {values[:20]}")
    return Texts(tuple(texts), np.array([places[word] for word in words], dtype=np.int64), values)


def _content(path: Path, digest: Digest | None) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ArtefactError(f"{path.name} cannot be read: {error.strerror or error}") from error
    if len(data) > MAX_BYTES:
        _refuse(path, 0, f"more than {MAX_BYTES} bytes")
    if digest is not None and digest_bytes(data) != digest:
        raise ArtefactError(f"{path.name} has changed since it was digested", remedy="run the command again.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        _refuse(path, data.count(b"\n", 0, error.start) + 1, f"not UTF-8: {error.reason}")


def _records(path: Path, content: str, part: DatasetPart) -> Iterator[tuple[int, str, str]]:
    """Line, text and label of each record; blank lines are passed over."""
    reader = csv.reader(io.StringIO(content, newline=""), strict=True)
    places: list[int] = []
    width = 0
    try:
        for cells in reader:
            if not cells:
                continue
            if not places:
                places, width = [_place(path, part, cells, name) for name in (part.text, part.target)], len(cells)
                continue
            if len(cells) != width:
                _refuse(path, reader.line_num, f"{len(cells)} cells where the header has {width}")
            yield reader.line_num, cells[places[0]], cells[places[1]].strip()
    except csv.Error as error:
        _refuse(path, reader.line_num, f"not CSV: {error}")


def _place(path: Path, part: DatasetPart, header: list[str], name: str) -> int:
    if header.count(name) != 1:
        _refuse(path, 1, f"the column {name!r} of dataset {part.name!r} is there {header.count(name)} times")
    return header.index(name)


def _values(path: Path, part: DatasetPart, words: list[str]) -> tuple[str, ...]:
    found = dict.fromkeys(words)
    if len(found) > MAX_CLASSES:
        _refuse(path, 0, f"the target {part.target!r} holds {len(found)} different values; {MAX_CLASSES} are read")
    whole = all(word.lstrip("-").isdecimal() for word in found)
    return tuple(sorted(found, key=int if whole else str))


def _refuse(path: Path, line: int, fault: str) -> NoReturn:
    place = f"{path.name}:{line}" if line else path.name
    raise ArtefactError(f"{place}: {fault}", remedy="mend the file, or what the declaration says about it.")
