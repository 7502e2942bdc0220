"""The pickle opcodes (protocols 0 to 5) as tables, for a loop that must not think.

Source: CPython ``Lib/pickle.py`` and ``Lib/pickletools.py``. A *constant* is an opcode that pushes a
number, text or bytes and touches nothing else; on the symbolic stack it is represented by the
offset of its opcode.
"""

from __future__ import annotations

MARK = 0x28
STOP = 0x2E
POP = 0x30
POP_MARK = 0x31
DUP = 0x32
FLOAT = 0x46
INT = 0x49
LONG = 0x4C
NONE = 0x4E
PERSID = 0x50
BINPERSID = 0x51
REDUCE = 0x52
STRING = 0x53
UNICODE = 0x56
APPEND = 0x61
BUILD = 0x62
GLOBAL = 0x63
DICT = 0x64
EMPTY_DICT = 0x7D
APPENDS = 0x65
GET = 0x67
BINGET = 0x68
INST = 0x69
LONG_BINGET = 0x6A
LIST = 0x6C
EMPTY_LIST = 0x5D
OBJ = 0x6F
PUT = 0x70
BINPUT = 0x71
LONG_BINPUT = 0x72
SETITEM = 0x73
TUPLE = 0x74
EMPTY_TUPLE = 0x29
SETITEMS = 0x75
BINFLOAT = 0x47
BININT = 0x4A
BININT1 = 0x4B
BININT2 = 0x4D
BINSTRING = 0x54
SHORT_BINSTRING = 0x55
BINUNICODE = 0x58
BINBYTES = 0x42
SHORT_BINBYTES = 0x43
PROTO = 0x80
NEWOBJ = 0x81
EXT1 = 0x82
EXT2 = 0x83
EXT4 = 0x84
TUPLE1 = 0x85
TUPLE2 = 0x86
TUPLE3 = 0x87
NEWTRUE = 0x88
NEWFALSE = 0x89
LONG1 = 0x8A
LONG4 = 0x8B
SHORT_BINUNICODE = 0x8C
BINUNICODE8 = 0x8D
BINBYTES8 = 0x8E
EMPTY_SET = 0x8F
ADDITEMS = 0x90
FROZENSET = 0x91
NEWOBJ_EX = 0x92
STACK_GLOBAL = 0x93
MEMOIZE = 0x94
FRAME = 0x95
BYTEARRAY8 = 0x96
NEXT_BUFFER = 0x97
READONLY_BUFFER = 0x98

HIGHEST_PROTOCOL = 5

FIXED = {BININT1: 2, BININT2: 3, BININT: 5, BINFLOAT: 9, NONE: 1, NEWTRUE: 1, NEWFALSE: 1}
"""Constants of fixed length, opcode included."""

COUNTED = {
    SHORT_BINUNICODE: (1, False),
    BINUNICODE: (4, False),
    BINUNICODE8: (8, False),
    SHORT_BINBYTES: (1, False),
    BINBYTES: (4, False),
    BINBYTES8: (8, False),
    BYTEARRAY8: (8, False),
    SHORT_BINSTRING: (1, False),
    BINSTRING: (4, True),
    LONG1: (1, False),
    LONG4: (4, True),
}
"""Constants that begin with their length: bytes of the little-endian length, and whether it is signed."""

LINES = frozenset({INT, LONG, FLOAT, STRING, UNICODE})
"""Constants that end with a newline."""

TEXT = frozenset({SHORT_BINUNICODE, BINUNICODE, BINUNICODE8, UNICODE, STRING, BINSTRING, SHORT_BINSTRING})
BYTES = frozenset({SHORT_BINBYTES, BINBYTES, BINBYTES8, BYTEARRAY8, BINSTRING, SHORT_BINSTRING, STRING})

FIXED_SIZE = tuple(FIXED.get(op, 0) for op in range(256))

VALID = frozenset(
    value
    for name, value in globals().items()
    if name.isupper() and isinstance(value, int) and name != "HIGHEST_PROTOCOL"
)
"""Every byte that is an opcode in some protocol."""
