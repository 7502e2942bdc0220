"""The checksum of HDF5's metadata: Bob Jenkins' lookup3 (``hashlittle``, public domain, 2006)."""

from __future__ import annotations

import struct

_MASK = 0xFFFFFFFF


def _turn(word: int, by: int) -> int:
    return (word << by | word >> 32 - by) & _MASK


def lookup3(data: bytes) -> int:
    """The 32-bit hash of ``data``, begun with 0.

    >>> hex(lookup3(b"Four score and seven years ago"))
    '0x17770551'
    """
    a = b = c = (0xDEADBEEF + len(data)) & _MASK
    if not data:
        return c
    whole = (len(data) - 1) // 12 * 12
    for x, y, z in struct.iter_unpack("<3I", data[:whole]):
        a, b, c = _mix(a + x & _MASK, b + y & _MASK, c + z & _MASK)
    x, y, z = struct.unpack("<3I", data[whole:].ljust(12, b"\0"))
    return _final(a + x & _MASK, b + y & _MASK, c + z & _MASK)


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    for first, second, third in ((4, 6, 8), (16, 19, 4)):
        a = (a - c & _MASK) ^ _turn(c, first)
        c = c + b & _MASK
        b = (b - a & _MASK) ^ _turn(a, second)
        a = a + c & _MASK
        c = (c - b & _MASK) ^ _turn(b, third)
        b = b + a & _MASK
    return a, b, c


def _final(a: int, b: int, c: int) -> int:
    c = (c ^ b) - _turn(b, 14) & _MASK
    a = (a ^ c) - _turn(c, 11) & _MASK
    b = (b ^ a) - _turn(a, 25) & _MASK
    c = (c ^ b) - _turn(b, 16) & _MASK
    a = (a ^ c) - _turn(c, 4) & _MASK
    b = (b ^ a) - _turn(a, 14) & _MASK
    return (c ^ b) - _turn(b, 24) & _MASK
