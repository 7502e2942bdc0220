"""How deep and how large a pickled object would be if it were walked: shared parts count every time.

Thirty lists, each holding the one before it twice, take 200 bytes and have a billion leaves;
whatever prints, compares, hashes or copies the object never ends. Only containers are looked at:
between two of them there may be any number of constants. A run counts as the most that its bytes can
make; it is worked out only if that would be too much.
"""

from __future__ import annotations

from bartizan.lifecycle.develop.scan.pickle.bulk import Run
from bartizan.lifecycle.develop.scan.pickle.values import Call, Name, Symbol, is_container

DEPTH_OF_RUN = 16
"""Levels that the items of a run have at most."""

CEILING = 1 << 80
DEEP = 10_000
"""Nesting at which comparing, printing or copying exhausts the stack of any Python."""
LARGE = 10**9
"""Leaves below which no sharing is worth a finding."""


def children(value: Symbol, *, exactly: bool = True) -> list[Symbol] | tuple[Symbol, ...]:
    """The symbols that ``value`` holds; of a run, unless that is wanted ``exactly``, those that it fetched.

    Raises:
        LimitError: a run is too much to be worked out.
    """
    if isinstance(value, (list, tuple)):
        return value
    if value.__class__ is Call:
        parts = (value.callee, value.args, value.state, *(value.grown or ()))
        return [part for part in parts if part is not None]
    if value.__class__ is Run:
        return value.ready() if exactly else value.shared()
    return ()


def measure(root: Symbol, *, exactly: bool = False) -> tuple[int, int]:
    """Depth and leaves of what ``root`` holds; an object inside itself counts once.

    Raises:
        LimitError: a run is too much to be worked out.
    """
    if not is_container(root):
        return 0, 1
    shapes: dict[int, tuple[int, int]] = {}
    todo: list[Symbol | None] = [root]
    opened: list[Symbol] = []
    while todo:
        value = todo.pop()
        if value is None:
            value = opened.pop()
            shapes[id(value)] = _sum_up(value, shapes, exactly=exactly)
        elif id(value) not in shapes:
            if value.__class__ is Name:
                shapes[id(value)] = (0, 1)
                continue
            shapes[id(value)] = (1, 1)
            held = children(value, exactly=exactly)
            inner = [child for child in held if child.__class__ is not int and id(child) not in shapes]
            if inner:
                opened.append(value)
                todo.append(None)
                todo += inner
            else:
                shapes[id(value)] = _sum_up(value, shapes, exactly=exactly)
    return shapes[id(root)]


def _sum_up(value: Symbol, shapes: dict[int, tuple[int, int]], *, exactly: bool) -> tuple[int, int]:
    held = children(value, exactly=exactly)
    inner = [shapes[id(child)] for child in held if child.__class__ is not int]
    depth = max((each[0] for each in inner), default=0)
    if value.__class__ is not Run:
        return depth + 1, min(len(held) + sum(each[1] - 1 for each in inner) + 1, CEILING)
    if exactly:
        return depth, min(len(held) + sum(each[1] - 1 for each in inner), CEILING)
    most = max((each[1] for each in inner), default=1)
    return depth + DEPTH_OF_RUN, min((value.end - value.start) * most, CEILING)
