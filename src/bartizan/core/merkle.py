"""RFC 6962 Merkle trees, from the frontier up.

A tree of n leaves is kept as its *frontier*: the hashes of the complete subtrees that n's binary
digits call for, largest first. Appending needs the frontier only; proofs need, besides, the stored
hashes of complete subtrees (``Node``). Section numbers are those of RFC 6962.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

from bartizan.core.ports import Node

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()
"""Root of the tree without leaves (2.1)."""

NodeHash = Callable[[int, int], bytes]
"""Hash of the complete subtree (level, index)."""


def leaf_hash(entry: bytes) -> bytes:
    """Hash of a leaf (2.1)."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node (2.1)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def extend(
    size: int, frontier: Sequence[bytes], leaves: Iterable[bytes], least: int = 1
) -> tuple[int, list[bytes], list[Node]]:
    """Append leaf hashes.

    Returns the new size, frontier, and every inner node of level ``least`` or higher that became complete.
    """
    stack = list(frontier)
    nodes: list[Node] = []
    for leaf in leaves:
        current, level, index = leaf, 0, size
        while index & 1:
            current = node_hash(stack.pop(), current)
            level, index = level + 1, index >> 1
            if level >= least:
                nodes.append(Node(level=level, index=index, hash=current))
        stack.append(current)
        size += 1
    return size, stack, nodes


def root(frontier: Sequence[bytes]) -> bytes:
    """Root hash of the tree with this frontier (2.1)."""
    if not frontier:
        return EMPTY_ROOT
    *rest, current = frontier
    for left in reversed(rest):
        current = node_hash(left, current)
    return current


def frontier_coordinates(size: int) -> list[tuple[int, int]]:
    """(level, index) of the complete subtrees that make up a tree of ``size`` leaves, largest first."""
    coordinates, done = [], 0
    for level in range(size.bit_length() - 1, -1, -1):
        if size >> level & 1:
            coordinates.append((level, done >> level))
            done += 1 << level
    return coordinates


def is_frontier(size: int, packed: bytes) -> bool:
    """Whether a packed frontier has as many hashes as a tree of ``size`` leaves needs."""
    return len(packed) == HASH_BYTES * size.bit_count()


def split_frontier(packed: bytes) -> list[bytes]:
    """The hashes of a packed frontier."""
    return [packed[start : start + HASH_BYTES] for start in range(0, len(packed), HASH_BYTES)]


def _range_hash(start: int, stop: int, node: NodeHash) -> bytes:
    """Hash of the subtree over leaves ``start <= i < stop``, where ``start`` is a multiple of its width."""
    hashes = [node(level, (start >> level) + index) for level, index in frontier_coordinates(stop - start)]
    return root(hashes)


def _split(width: int) -> int:
    """The largest power of two smaller than ``width``."""
    return 1 << (width - 1).bit_length() - 1


def inclusion_proof(leaf: int, size: int, node: NodeHash) -> list[bytes]:
    """Audit path of a leaf in the tree of ``size`` leaves (2.1.1), bottom up."""
    if not 0 <= leaf < size:
        raise IndexError(f"leaf {leaf} is not in a tree of {size}")
    path, start, stop = [], 0, size
    while stop - start > 1:
        middle = start + _split(stop - start)
        if leaf < middle:
            path.append(_range_hash(middle, stop, node))
            stop = middle
        else:
            path.append(_range_hash(start, middle, node))
            start = middle
    return path[::-1]


def verify_inclusion(leaf_digest: bytes, leaf: int, size: int, path: Sequence[bytes], expected_root: bytes) -> bool:
    """Whether ``path`` proves that the leaf is at its place in the tree (RFC 9162, 2.1.3.2)."""
    if not 0 <= leaf < size:
        return False
    index, last, current = leaf, size - 1, leaf_digest
    for sibling in path:
        if last == 0:
            return False
        if index & 1 or index == last:
            current = node_hash(sibling, current)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            current = node_hash(current, sibling)
        index, last = index >> 1, last >> 1
    return last == 0 and current == expected_root


def consistency_proof(old: int, new: int, node: NodeHash) -> list[bytes]:
    """Proof that the tree of ``old`` leaves is a prefix of the tree of ``new`` (2.1.2)."""
    if not 0 < old <= new:
        raise IndexError(f"no proof from {old} to {new} leaves")

    def subproof(start: int, stop: int, whole: bool) -> list[bytes]:
        if old == stop:
            return [] if whole else [_range_hash(start, stop, node)]
        middle = start + _split(stop - start)
        if old <= middle:
            return [*subproof(start, middle, whole), _range_hash(middle, stop, node)]
        return [*subproof(middle, stop, whole=False), _range_hash(start, middle, node)]

    return subproof(0, new, whole=True)


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, path: Sequence[bytes]) -> bool:
    """Whether ``path`` proves that the new tree extends the old one (RFC 9162, 2.1.4.2)."""
    if not 0 < old <= new:
        return False
    if old == new:
        return not path and old_root == new_root
    hashes = list(path)
    if old & (old - 1) == 0:
        hashes.insert(0, old_root)
    if not hashes:
        return False
    index, last = old - 1, new - 1
    while index & 1:
        index, last = index >> 1, last >> 1
    first = second = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            return False
        if index & 1 or index == last:
            first, second = node_hash(sibling, first), node_hash(sibling, second)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            second = node_hash(second, sibling)
        index, last = index >> 1, last >> 1
    return last == 0 and first == old_root and second == new_root
