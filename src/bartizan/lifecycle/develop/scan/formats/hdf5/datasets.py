"""Where the elements of a dataset lie: in the file, in pieces, in other files or in other datasets."""

from __future__ import annotations

from typing import NamedTuple

from bartizan.lifecycle.develop.scan.formats.hdf5.file import BrokenHdf5Error, Cursor, File, UnknownHdf5Error
from bartizan.lifecycle.develop.scan.formats.hdf5.groups import old_entries
from bartizan.lifecycle.develop.scan.formats.hdf5.heaps import LocalHeap, read_collection
from bartizan.lifecycle.develop.scan.formats.hdf5.messages import Message

COMPACT, CONTIGUOUS, CHUNKED, VIRTUAL = range(4)
SINGLE_CHUNK = 1
MOST_RANK = 33
"""Dimensions of a chunk, with the element itself."""
MOST_SOURCES = 10_000


class Layout(NamedTuple):
    """How the elements are stored."""

    kind: int
    start: int | None = None
    """Where the data, the tree over the chunks or the heap with the mapping lies; None when not allocated."""
    size: int | None = None
    """Bytes, where the layout says so."""
    rank: int = 0
    finder: int = 0
    """How chunks are found: 0 by a tree of version 1, ``SINGLE_CHUNK``, or another way."""
    chunk: tuple[int, ...] = ()
    """Sides of a chunk; the size of an element is the last."""


def read_layout(cursor: Cursor) -> Layout:
    """A data layout message (0x08)."""
    version = cursor.uint(1)
    if version in {1, 2}:
        return _first_layout(cursor)
    if version not in {3, 4, 5}:
        raise UnknownHdf5Error(f"a data layout of version {version}")
    kind = cursor.uint(1)
    if kind == COMPACT:
        size = cursor.uint(2)
        start = cursor.at
        cursor.skip(size)
        return Layout(COMPACT, start, size)
    if kind == CONTIGUOUS:
        return Layout(CONTIGUOUS, cursor.address(), cursor.length())
    if kind == VIRTUAL:
        return Layout(VIRTUAL, cursor.address(), cursor.uint(4))
    if kind != CHUNKED:
        raise BrokenHdf5Error(f"a data layout of class {kind}")
    return _chunks(cursor) if version == 3 else _new_chunks(cursor)  # noqa: PLR2004


def _first_layout(cursor: Cursor) -> Layout:
    rank, kind = cursor.uint(1), cursor.uint(1)
    cursor.skip(5)
    start = cursor.address() if kind != COMPACT else None
    sides = tuple(cursor.uint(4) for _ in range(_rank(rank)))
    if kind == CHUNKED:
        return Layout(CHUNKED, start, None, rank, 0, sides)
    if kind == CONTIGUOUS:
        return Layout(CONTIGUOUS, start)
    if kind != COMPACT:
        raise BrokenHdf5Error(f"a data layout of class {kind}")
    size = cursor.uint(4)
    at = cursor.at
    cursor.skip(size)
    return Layout(COMPACT, at, size)


def _rank(rank: int) -> int:
    if rank > MOST_RANK:
        raise BrokenHdf5Error(f"a chunk of rank {rank}")
    return rank


def _chunks(cursor: Cursor) -> Layout:
    rank = _rank(cursor.uint(1))
    start = cursor.address()
    return Layout(CHUNKED, start, None, rank, 0, tuple(cursor.uint(4) for _ in range(rank)))


def _new_chunks(cursor: Cursor) -> Layout:
    flags, rank, width = cursor.uint(1), _rank(cursor.uint(1)), cursor.uint(1)
    sides = tuple(cursor.uint(width) for _ in range(rank))
    index = cursor.uint(1)
    if index not in range(1, 6):
        raise UnknownHdf5Error(f"chunks found by an index of kind {index}")
    size = None
    if index == SINGLE_CHUNK and flags & 2:
        size = cursor.length()
        cursor.skip(4)
    cursor.skip({3: 1, 4: 5, 5: 6}.get(index, 0))
    return Layout(CHUNKED, cursor.address(), size, rank, index, sides)


def read_chunks(file: File, layout: Layout) -> list[tuple[int, int]]:
    """Places and sizes of the chunks that a tree of version 1 leads to."""
    assert layout.start is not None  # noqa: S101 -- the caller asks only then
    found = []
    for key, child in old_entries(file, layout.start, 1, 8 + 8 * layout.rank):
        size = int.from_bytes(key[:4], "little")
        file.cursor(child, size, "chunk")
        found.append((child, size))
    return found


def external_names(file: File, cursor: Cursor) -> list[bytes]:
    """Names of the files that hold the elements (message 0x07)."""
    cursor.expect(b"", frozenset({1}))
    cursor.skip(5)
    used, place = cursor.uint(2), cursor.address()
    if place is None:
        raise BrokenHdf5Error("a list of external files has no names")
    heap = LocalHeap(file, place)
    names = []
    for _ in range(used):
        names.append(heap.text(cursor.length()))
        cursor.skip(2 * file.length_size)
    return names


def heap_object(file: File, collection: int, index: int) -> tuple[int, int]:
    """Start and end of an object in the global heap."""
    objects = read_collection(file, collection)
    if index not in objects:
        raise BrokenHdf5Error(f"object {index} is not in the global heap at {collection}")
    return objects[index]


def virtual_sources(file: File, message: Message, layout: Layout) -> list[bytes]:
    """Names of the files that a virtual dataset reads; ``.`` is the file itself (section VI.C)."""
    if layout.start is None or layout.size is None:
        return []
    start, end = heap_object(file, layout.start, layout.size)
    cursor = Cursor(file, start, end, f"mapping of the virtual dataset at {message.start}")
    cursor.expect(b"")
    number = cursor.length()
    names = []
    for _ in range(min(number, MOST_SOURCES)):
        names.append(cursor.text())
        cursor.text()
        _skip_selection(cursor)
        _skip_selection(cursor)
    return names


def _skip_selection(cursor: Cursor) -> None:
    """Step over a dataspace selection (section VI.A)."""
    kind, version = cursor.uint(4), cursor.uint(4)
    if kind in {0, 3}:
        cursor.skip(8)
    elif version == 1:
        cursor.skip(4)
        cursor.skip(cursor.uint(4))
    elif kind == 2 and version == 2:  # noqa: PLR2004
        cursor.skip(1)
        cursor.skip(cursor.uint(4))
    elif kind == 2 and version == 3:  # noqa: PLR2004
        regular, width, rank = cursor.uint(1) & 1, cursor.uint(1), cursor.uint(4)
        cursor.skip(4 * rank * width if regular else 2 * rank * width * cursor.uint(width))
    else:
        raise UnknownHdf5Error(f"a selection of kind {kind}, version {version}")
