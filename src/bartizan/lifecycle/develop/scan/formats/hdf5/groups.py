"""The links of a group, in all three ways that groups keep them, and chunks of datasets in old trees."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from bartizan.lifecycle.develop.scan.formats.hdf5.file import BrokenHdf5Error, Cursor, File
from bartizan.lifecycle.develop.scan.formats.hdf5.heaps import FractalHeap, LocalHeap, read_tree
from bartizan.lifecycle.develop.scan.formats.hdf5.messages import Message

HARD, SOFT, EXTERNAL = 0, 1, 64
NAME_TREES = {5: 4, 6: 8}
"""Kinds of trees over links, with the bytes before the heap id in a record."""
ATTRIBUTE_TREES = {8: 0, 9: 0}


class Link(NamedTuple):
    """One link."""

    name: bytes
    kind: int
    target: int | None = None
    """Place of the object header, for a hard link."""
    value: bytes = b""
    """What other links point to."""


def read_link(cursor: Cursor) -> Link:
    """A link message (0x06)."""
    cursor.expect(b"", frozenset({1}))
    flags = cursor.uint(1)
    kind = cursor.uint(1) if flags & 8 else HARD
    cursor.skip((8 if flags & 4 else 0) + (1 if flags & 16 else 0))
    name = cursor.take(cursor.uint(1 << (flags & 3)))
    if kind == HARD:
        return Link(name, kind, cursor.address())
    return Link(name, kind, None, cursor.take(cursor.uint(2)))


def symbol_table(file: File, message: Message) -> Iterator[Link]:
    """Links of an old-style group (message 0x11; sections III.A.1 and III.C)."""
    cursor = message.open(file)
    tree, place = cursor.address(), cursor.address()
    if tree is None or place is None:
        raise BrokenHdf5Error(f"the symbol table at {message.start} leads nowhere")
    heap = LocalHeap(file, place)
    for at in old_tree(file, tree, 0, file.length_size):
        cursor = file.cursor(at, 8, "symbol table node")
        cursor.expect(b"SNOD", frozenset({1}))
        cursor.skip(1)
        number = cursor.uint(2)
        entries = file.cursor(at + 8, number * (2 * file.offset_size + 24), "symbol table node")
        for _ in range(number):
            yield _symbol(file, entries, heap)


def _symbol(file: File, cursor: Cursor, heap: LocalHeap) -> Link:
    file.step()
    name = heap.text(cursor.uint(file.offset_size))
    target = cursor.address()
    cached = cursor.uint(4)
    cursor.skip(4)
    scratch = cursor.take(16)
    if cached == 2:  # noqa: PLR2004 -- a soft link
        return Link(name, SOFT, None, heap.text(int.from_bytes(scratch[:4], "little")))
    return Link(name, HARD, target)


def old_tree(file: File, root: int, kind: int, key_size: int) -> Iterator[int]:
    """Places that the leaves of a version 1 B-tree lead to."""
    for _, child in old_entries(file, root, kind, key_size):
        yield child


def old_entries(file: File, root: int, kind: int, key_size: int) -> Iterator[tuple[bytes, int]]:
    """Keys and children of the leaves of a version 1 B-tree (section III.A.1)."""
    todo = [(root, -1)]
    seen: set[int] = set()
    while todo:
        at, expected = todo.pop()
        if at in seen:
            raise BrokenHdf5Error(f"the B-tree leads in a circle at {at}")
        seen.add(at)
        cursor = file.cursor(at, 8 + 2 * file.offset_size, "B-tree")
        if cursor.take(4) != b"TREE" or cursor.uint(1) != kind:
            raise BrokenHdf5Error(f"no B-tree of kind {kind} at {at}")
        level, number = cursor.uint(1), cursor.uint(2)
        if expected not in {-1, level}:
            raise BrokenHdf5Error(f"the B-tree node at {at} has level {level} and should have {expected}")
        body = file.cursor(cursor.end, number * (key_size + file.offset_size) + key_size, "B-tree")
        for _ in range(number):
            file.step()
            key, child = body.take(key_size), body.address()
            if child is None:
                raise BrokenHdf5Error(f"a child of the B-tree node at {at} is missing")
            if level:
                todo.append((child, level - 1))
            else:
                yield key, child


def dense(file: File, message: Message, trees: dict[int, int], skipped: int) -> Iterator[Cursor]:
    """What a fractal heap holds for a group: link messages (0x02) or attribute messages (0x15).

    ``skipped`` is the width of the creation order that the message may carry.
    """
    cursor = message.open(file)
    cursor.expect(b"")
    flags = cursor.uint(1)
    cursor.skip(skipped if flags & 1 else 0)
    place, tree = cursor.address(), cursor.address()
    if place is None:
        return
    if tree is None:
        raise BrokenHdf5Error(f"the index of the dense storage at {message.start} is missing")
    heap = FractalHeap(file, place)
    index = read_tree(file, tree)
    if index.kind not in trees:
        raise BrokenHdf5Error(f"the index of the dense storage is a tree of kind {index.kind}")
    order = cursor.address() if flags & 2 else None
    if order is not None:
        read_tree(file, order)  # claims its bytes
    for record in index.records:
        skip = trees[index.kind]
        start, end = heap.find(record[skip : skip + heap.id_size])
        yield Cursor(file, start, end, "dense storage")
