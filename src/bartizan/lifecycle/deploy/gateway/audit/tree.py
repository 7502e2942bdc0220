"""Proofs out of stored hashes. Inner hashes below ``BLOCK_BITS`` are computed from leaves, a block at a time."""

from __future__ import annotations

from collections.abc import Mapping

from bartizan.core import merkle
from bartizan.core.errors import LedgerError
from bartizan.lifecycle.deploy.gateway.audit.entries import BLOCK, BLOCK_BITS
from bartizan.lifecycle.deploy.gateway.audit.store import Coordinates, Reading


class Tree:
    """Hashes of complete subtrees. ``pending`` are nodes and leaves that are not stored yet."""

    def __init__(
        self,
        reading: Reading,
        pending_nodes: Mapping[Coordinates, bytes] | None = None,
        pending_leaves: Mapping[int, bytes] | None = None,
    ) -> None:
        self._reading = reading
        self._nodes = dict(pending_nodes or {})
        self._pending = pending_leaves or {}
        self._blocks: dict[int, list[bytes]] = {}

    def __call__(self, level: int, place: int) -> bytes:
        """See ``merkle.NodeHash``. Raises LedgerError for a hash that is missing."""
        known = self._nodes.get((level, place))
        if known is None:
            known = self._small(level, place) if level < BLOCK_BITS else self._stored(level, place)
            self._nodes[level, place] = known
        return known

    def _stored(self, level: int, place: int) -> bytes:
        found = self._reading.nodes([(level, place)])
        if (level, place) not in found:
            raise LedgerError(f"hash {place} of level {level} is missing from the audit log")
        return found[level, place]

    def _small(self, level: int, place: int) -> bytes:
        if level == 0:
            return self._leaf(place)
        return merkle.node_hash(self(level - 1, 2 * place), self(level - 1, 2 * place + 1))

    def _leaf(self, seq: int) -> bytes:
        if seq in self._pending:
            return self._pending[seq]
        number, offset = divmod(seq, BLOCK)
        if number not in self._blocks:
            self._blocks[number] = self._reading.leaves(number * BLOCK, (number + 1) * BLOCK)
        leaves = self._blocks[number]
        if offset >= len(leaves):
            raise LedgerError(f"record {seq} is missing from the audit log")
        return leaves[offset]

    def root(self, size: int) -> bytes:
        """Root over the first ``size`` records."""
        return merkle.root([self(level, place) for level, place in merkle.frontier_coordinates(size)])

    def inclusion(self, seq: int, size: int) -> list[bytes]:
        """See ``merkle.inclusion_proof``."""
        return merkle.inclusion_proof(seq, size, self)

    def consistency(self, old: int, new: int) -> list[bytes]:
        """See ``merkle.consistency_proof``; nothing needs to be shown from an empty tree."""
        return merkle.consistency_proof(old, new, self) if old else []


def extends(old: int, new: int, old_root: bytes, new_root: bytes, path: list[bytes]) -> bool:
    """Whether the new tree begins with the old one; every tree begins with the empty one."""
    if old == 0:
        return not path and old_root == merkle.EMPTY_ROOT
    return merkle.verify_consistency(old, new, old_root, new_root, path)


__all__ = ["Tree", "extends"]
