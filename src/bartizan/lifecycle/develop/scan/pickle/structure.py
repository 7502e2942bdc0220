"""How deep and how large a pickled object would be if it were walked: shared parts count every time.

Thirty lists, each holding the one before it twice, take 200 bytes and have a billion leaves;
whatever prints, compares, hashes or copies the object never ends. Only containers are looked at:
between two of them there may be any number of constants.
"""

from __future__ import annotations

from bartizan.lifecycle.develop.scan.pickle.bulk import Run
from bartizan.lifecycle.develop.scan.pickle.values import Call, Name, Symbol, is_container

CEILING = 1 << 80
DEEP = 10_000
"""Nesting at which comparing, printing or copying exhausts the stack of any Python."""
LARGE = 10**9
"""Leaves below which no sharing is worth a finding."""


def children(value: Symbol) -> list[Symbol] | tuple[Symbol, ...]:
    """The symbols that ``value`` holds."""
    if isinstance(value, (list, tuple)):
        return value
    if value.__class__ is Call:
        parts = (value.callee, value.args, value.state, *(value.grown or ()))
        return [part for part in parts if part is not None]
    if value.__class__ is Run:
        return value.memoised
    return ()


def measure(root: Symbol) -> tuple[int, int]:
    """Depth and leaves of what ``root`` holds; an object inside itself counts once."""
    if not is_container(root):
        return 0, 1
    shapes: dict[int, tuple[int, int]] = {}
    todo: list[Symbol | None] = [root]
    opened: list[Symbol] = []
    while todo:
        value = todo.pop()
        if value is None:
            value = opened.pop()
            shapes[id(value)] = _sum_up(value, shapes)
        elif id(value) not in shapes:
            if value.__class__ is Name:
                shapes[id(value)] = (0, 1)
                continue
            shapes[id(value)] = (1, 1)
            inner = [child for child in children(value) if child.__class__ is not int and id(child) not in shapes]
            if inner:
                opened.append(value)
                todo.append(None)
                todo += inner
            else:
                shapes[id(value)] = _sum_up(value, shapes)
    return shapes[id(root)]


def _sum_up(value: Symbol, shapes: dict[int, tuple[int, int]]) -> tuple[int, int]:
    depth = 0
    held = children(value)
    leaves = len(held)
    for child in held:
        if child.__class__ is not int:
            shape = shapes[id(child)]
            depth = max(depth, shape[0])
            leaves += shape[1] - 1
    return depth + 1, min(leaves + 1, CEILING)
