"""Heaps: names of old groups, values of variable length, and the links and attributes of large groups."""

from __future__ import annotations

from typing import NamedTuple

from bartizan.lifecycle.develop.scan.formats.hdf5.file import BrokenHdf5Error, File, UnknownHdf5Error

COLLECTION = b"GCOL"
MOST_BLOCKS = 100_000


class LocalHeap:
    """Names of an old-style group (section III.D)."""

    def __init__(self, file: File, at: int) -> None:
        cursor = file.cursor(at, 8 + 2 * file.length_size + file.offset_size, "local heap")
        cursor.expect(b"HEAP")
        cursor.skip(3)
        size = cursor.length()
        cursor.length()
        start = cursor.address()
        if start is None:
            raise BrokenHdf5Error(f"the local heap at {at} has no data")
        self.file = file
        self.start, self.end = start, file.cursor(start, size, "local heap").end

    def text(self, offset: int) -> bytes:
        """The name at an offset."""
        if not 0 <= offset < self.end - self.start:
            raise BrokenHdf5Error(f"a name lies outside the local heap at {self.start}")
        raw = bytes(self.file.data[self.start + offset : min(self.end, self.start + offset + 65536)])
        end = raw.find(b"\0")
        if end < 0:
            raise BrokenHdf5Error(f"a name in the local heap at {self.start} has no end")
        return raw[:end]


def read_collection(file: File, at: int) -> dict[int, tuple[int, int]]:
    """Objects of a global heap collection by index, as start and end (section III.E)."""
    cursor = file.cursor(at, 8 + file.length_size, "global heap")
    cursor.expect(COLLECTION, frozenset({1}))
    cursor.skip(3)
    size = cursor.length()
    body = file.cursor(cursor.at, size - (cursor.at - at), "global heap")
    found: dict[int, tuple[int, int]] = {}
    while body.left >= 8 + file.length_size:
        file.step()
        index = body.uint(2)
        body.skip(6)
        length = body.length()
        if not index:
            break  # the rest is free
        found[index] = (body.at, body.at + length)
        body.skip(length)
        body.skip(min(-length % 8, body.left))
    return found


class FractalHeap:
    """Objects of a dense group (section III.G), found by their heap ids."""

    def __init__(self, file: File, at: int) -> None:
        self.file = file
        size = 22 + 12 * file.length_size + 3 * file.offset_size
        cursor = file.cursor(at, size + 4, "fractal heap")
        cursor.expect(b"FRHP")
        self.id_size = cursor.uint(2)
        filters = cursor.uint(2)
        self.flags = cursor.uint(1)
        most = cursor.uint(4)
        cursor.length()
        self.huge = cursor.address()
        cursor.length()
        cursor.address()
        cursor.skip(8 * file.length_size)
        self.width, self.first = cursor.uint(2), cursor.length()
        self.largest, self.bits = cursor.length(), cursor.uint(2)
        cursor.skip(2)
        self.root, self.rows = cursor.address(), cursor.uint(2)
        if filters:
            raise UnknownHdf5Error("a fractal heap with filters")
        self._check(at)
        file.verify(at, cursor.at, "fractal heap")
        self.offset_bytes = (self.bits + 7) // 8
        self.length_bytes = (min(most, self.largest).bit_length() + 7) // 8
        self.blocks: list[tuple[int, int, int]] = []
        """Offset in the heap's space, size, place in the file."""
        if self.root is not None:
            self._walk()

    def _check(self, at: int) -> None:
        sizes = (self.first, self.largest)
        if not (0 < self.width <= 1024 and 0 < self.bits <= 64) or any(  # noqa: PLR2004
            not size or size & size - 1 for size in sizes
        ):
            raise BrokenHdf5Error(f"the fractal heap at {at} has an impossible table")

    def _row_size(self, row: int) -> int:
        return self.first << max(0, row - 1)

    def _walk(self) -> None:
        """Find all direct blocks below the root."""
        assert self.root is not None  # noqa: S101 -- see __init__
        if not self.rows:
            self._direct(self.root, 0, self.first)
            return
        todo = [(self.root, 0, self.rows)]
        seen: set[int] = set()
        while todo:
            at, offset, rows = todo.pop()
            if at in seen or len(seen) > MOST_BLOCKS:
                raise BrokenHdf5Error(f"the fractal heap leads in a circle at {at}")
            seen.add(at)
            todo += self._indirect(at, offset, rows)

    def _indirect(self, at: int, offset: int, rows: int) -> list[tuple[int, int, int]]:
        """Note the direct blocks of an indirect one; returns the indirect ones below it."""
        if rows > self.bits:
            raise BrokenHdf5Error(f"an indirect block at {at} has {rows} rows")
        size = 5 + self.file.offset_size * (1 + rows * self.width) + self.offset_bytes
        cursor = self.file.cursor(at, size + 4, "indirect block")
        cursor.expect(b"FHIB")
        cursor.skip(self.file.offset_size + self.offset_bytes)
        self.file.verify(at, at + size, "indirect block")
        below = []
        for row in range(rows):
            for _ in range(self.width):
                child, length = cursor.address(), self._row_size(row)
                if child is not None and length <= self.largest:
                    self._direct(child, offset, length)
                elif child is not None:
                    below.append((child, offset, (length // self.first // self.width).bit_length()))
                offset += length
        return below

    def _direct(self, at: int, offset: int, size: int) -> None:
        cursor = self.file.cursor(at, size, "direct block")
        cursor.expect(b"FHDB")
        self.blocks.append((offset, size, at))

    def find(self, heap_id: bytes) -> tuple[int, int]:
        """Start and end of an object.

        Raises:
            BrokenHdf5Error, UnknownHdf5Error: it is not there, or kept in a way that is not known.
        """
        kind = heap_id[0] >> 4
        if kind == 2:  # noqa: PLR2004 -- tiny: the object is in the id itself
            raise UnknownHdf5Error("tiny objects of a fractal heap")
        if kind == 1:
            return self._find_huge(heap_id)
        if kind:
            raise BrokenHdf5Error(f"a heap id of kind {kind}")
        offset = int.from_bytes(heap_id[1 : 1 + self.offset_bytes], "little")
        length = int.from_bytes(heap_id[1 + self.offset_bytes :][: self.length_bytes], "little")
        for start, size, at in self.blocks:
            if start <= offset and offset + length <= start + size:
                return at + offset - start, at + offset - start + length
        raise BrokenHdf5Error("a heap id leads outside its heap")

    def _find_huge(self, heap_id: bytes) -> tuple[int, int]:
        file = self.file
        key = int.from_bytes(heap_id[1 : 1 + file.length_size], "little")
        if self.huge is None or self.id_size > file.offset_size + file.length_size:
            raise UnknownHdf5Error("huge objects that their ids lead to")
        tree = read_tree(file, self.huge)
        if tree.kind != 1:
            raise UnknownHdf5Error("huge objects with filters")
        for record in tree.records:
            place = int.from_bytes(record[: file.offset_size], "little") + file.base
            size = int.from_bytes(record[file.offset_size :][: file.length_size], "little")
            if int.from_bytes(record[file.offset_size + file.length_size :], "little") == key:
                file.cursor(place, size, "huge object")
                return place, place + size
        raise BrokenHdf5Error("a huge object is not in its tree")


class Tree(NamedTuple):
    """A version 2 B-tree."""

    kind: int
    records: list[bytes]


def read_tree(file: File, at: int) -> Tree:
    """All records of a version 2 B-tree (section III.A.2).

    Raises:
        BrokenHdf5Error, UnknownHdf5Error, LimitError: it cannot be read.
    """
    cursor = file.cursor(at, 22 + file.offset_size + file.length_size, "B-tree")
    cursor.expect(b"BTHD")
    kind, node_size, record_size = cursor.uint(1), cursor.uint(4), cursor.uint(2)
    depth = cursor.uint(2)
    cursor.skip(2)
    root, number = cursor.address(), cursor.uint(2)
    cursor.length()
    file.verify(at, cursor.at, "B-tree")
    if not record_size or node_size <= 10 or depth > 16:  # noqa: PLR2004
        raise BrokenHdf5Error(f"the B-tree at {at} has impossible sizes")
    if root is None or not number:
        return Tree(kind, [])
    return Tree(kind, _Nodes(file, node_size, record_size).read(root, number, depth))


class _Nodes:
    """The nodes of one tree."""

    def __init__(self, file: File, node_size: int, record_size: int) -> None:
        self.file = file
        self.node_size = node_size
        self.record_size = record_size
        most = (node_size - 10) // record_size
        self.count_size = _bytes_for(most)
        self.total_sizes = [0]
        total = most
        for _ in range(16):
            pointer = file.offset_size + self.count_size + self.total_sizes[-1]
            inner = max(0, node_size - 10 - pointer) // (record_size + pointer)
            total = (inner + 1) * total + inner
            self.total_sizes.append(_bytes_for(total))

    def read(self, root: int, number: int, depth: int) -> list[bytes]:
        """Records of all nodes below a root."""
        found: list[bytes] = []
        todo = [(root, number, depth)]
        seen: set[int] = set()
        while todo:
            at, records, level = todo.pop()
            if at in seen:
                raise BrokenHdf5Error(f"the B-tree leads in a circle at {at}")
            seen.add(at)
            todo += self._node(at, records, level, found)
        return found

    def _node(self, at: int, number: int, level: int, found: list[bytes]) -> list[tuple[int, int, int]]:
        cursor = self.file.cursor(at, self.node_size, "node of a B-tree")
        cursor.expect(b"BTIN" if level else b"BTLF")
        cursor.skip(1)
        for _ in range(number):
            self.file.step()
            found.append(cursor.take(self.record_size))
        below = []
        for _ in range(number + 1 if level else 0):
            child, records = cursor.address(), cursor.uint(self.count_size)
            cursor.skip(self.total_sizes[level - 1])
            if child is None:
                raise BrokenHdf5Error(f"a child of the B-tree node at {at} is missing")
            below.append((child, records, level - 1))
        self.file.verify(at, cursor.at, "node of a B-tree")
        return below


def _bytes_for(value: int) -> int:
    return max(1, (value.bit_length() + 7) // 8)
