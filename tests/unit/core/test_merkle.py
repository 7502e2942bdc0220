"""RFC 6962 trees against the published vectors and against a plain recursive definition."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from bartizan.core import merkle

# Leaves and roots of the test tree in the Certificate Transparency reference code
# (google/certificate-transparency, cpp/merkletree/merkle_tree_test.cc), also used by Trillian.
LEAVES = [
    bytes.fromhex(text)
    for text in ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def plain_root(leaves):
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return merkle.node_hash(plain_root(leaves[:split]), plain_root(leaves[split:]))


def tree(leaves):
    """Grow a tree and give its frontier and a node lookup that knows complete subtrees only."""
    hashes = [merkle.leaf_hash(leaf) for leaf in leaves]
    _, frontier, nodes = merkle.extend(0, [], hashes)
    known = {(node.level, node.index): node.hash for node in nodes}
    known |= {(0, index): leaf for index, leaf in enumerate(hashes)}
    return hashes, frontier, lambda level, index: known[level, index]


def test_published_roots():
    for size, expected in enumerate(ROOTS, start=1):
        _, frontier, _ = tree(LEAVES[:size])
        assert merkle.root(frontier).hex() == expected


def test_the_empty_tree_has_the_published_root():
    assert merkle.root([]).hex() == hashlib.sha256(b"").hexdigest()


@given(st.integers(0, 70), st.integers(0, 70))
def test_growing_in_two_steps_equals_growing_at_once(first, second):
    leaves = [bytes([number]) for number in range(first + second)]
    hashes, frontier, _ = tree(leaves)
    size, half, _ = merkle.extend(0, [], hashes[:first])
    _, grown, _ = merkle.extend(size, half, hashes[first:])
    assert grown == frontier
    assert merkle.root(grown) == plain_root(hashes)


@given(st.data())
def test_inclusion_proofs_hold_and_break_when_anything_changes(data):
    size = data.draw(st.integers(1, 70))
    leaf = data.draw(st.integers(0, size - 1))
    hashes, frontier, node = tree([bytes([number]) for number in range(size)])
    root, path = merkle.root(frontier), merkle.inclusion_proof(leaf, size, node)
    assert merkle.verify_inclusion(hashes[leaf], leaf, size, path, root)
    assert not merkle.verify_inclusion(merkle.leaf_hash(b"other"), leaf, size, path, root)
    assert not merkle.verify_inclusion(hashes[leaf], leaf, size, [*path, b"\0" * 32], root)
    other = data.draw(st.integers(0, size + 3))
    if other != leaf:
        assert not merkle.verify_inclusion(hashes[leaf], other, size, path, root)


@given(st.data())
def test_consistency_proofs_hold_and_break_when_anything_changes(data):
    new = data.draw(st.integers(1, 70))
    old = data.draw(st.integers(1, new))
    leaves = [bytes([number]) for number in range(new)]
    _, frontier, node = tree(leaves)
    _, old_frontier, _ = tree(leaves[:old])
    roots = merkle.root(old_frontier), merkle.root(frontier)
    path = merkle.consistency_proof(old, new, node)
    assert merkle.verify_consistency(old, new, *roots, path)
    assert not merkle.verify_consistency(old, new, b"\1" * 32, roots[1], path)
    if path:
        broken = [*path[:-1], b"\2" * 32]
        assert not merkle.verify_consistency(old, new, *roots, broken)
