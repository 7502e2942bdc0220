"""Rules for states: classes whose ``__setstate__`` does more than fill in attributes."""

from __future__ import annotations

import re
from collections.abc import Callable

from bartizan.lifecycle.develop.scan.pickle import arrays
from bartizan.lifecycle.develop.scan.pickle.reading import Reader
from bartizan.lifecycle.develop.scan.pickle.values import Call, Name, Symbol

StateRule = Callable[[Reader, Call, Symbol], None]


class RefusedError(Exception):
    """Arguments or a state that no framework writes; the text says what is wrong."""


_SHAPES = r"(?:[A-Za-z]\w*, )*"
_ARGPARSER = re.compile(
    r"\ndef _parse_args\(self, (?P<s>" + _SHAPES + r") (?P<in>loc=0(?:, scale=1)?)\):"
    r"\n    return \((?P=s)\), (?P<out>loc, scale|loc, 1)\n"
    r"\ndef _parse_args_rvs\(self, (?P=s) (?P=in), size=None\):"
    r"\n    return self\._argcheck_rvs\((?P=s) (?P=out), size=size\)\n"
    r"\ndef _parse_args_stats\(self, (?P=s) (?P=in), moments='mv'\):"
    r"\n    return \((?P=s)\), (?P=out), moments\n\Z"
)


def _scipy_distribution(reader: Reader, _target: Call, state: Symbol) -> None:
    """``rv_generic.__setstate__`` executes the text of ``_parse_arg_template``."""
    pairs = reader.pairs(state)
    if pairs is None:
        raise RefusedError("it is not a plain dict, and a part of it is executed")
    templates = [value for key, value in pairs if reader.text(key) == "_parse_arg_template"]
    for template in templates:
        code = reader.text(template)
        if code is None or not _ARGPARSER.match(code):
            raise RefusedError(f"_parse_arg_template is executed, and is not scipy's: {reader.expression(template)}")


def _dtype(reader: Reader, target: Call, state: Symbol) -> None:
    try:
        changed = Call(target.callee, target.args, None)
        changed.state = state
        arrays.layout_of(reader, changed)
    except arrays.DtypeError as error:
        raise RefusedError(str(error)) from error


def _ndarray(reader: Reader, _target: Call, state: Symbol) -> None:
    """``ndarray.__setstate__((version, shape, dtype, fortran_order, data))``; masked arrays have two parts more.

    For objects numpy takes as many items from the list as the shape says, whether they are there or not.
    """
    if state.__class__ is not tuple or len(state) not in {5, 7}:
        raise RefusedError("it is not the one that numpy writes")
    shape, dtype, data = state[1], state[2], state[4]
    sides = reader.numbers(shape)
    try:
        layout = arrays.layout_of(reader, dtype)
    except arrays.DtypeError as error:
        raise RefusedError(f"its dtype: {error}") from error
    if sides is None or any(side < 0 for side in sides):
        raise RefusedError("its shape is no tuple of sizes")
    if layout.has_object and reader.length(data) != arrays.product(sides):
        raise RefusedError("it has not as many objects as its shape says")


def _partial(_reader: Reader, _target: Call, state: Symbol) -> None:
    """``functools.partial.__setstate__((function, args, keywords, attributes))``."""
    if state.__class__ is not tuple or len(state) != 4 or not is_plain_callable(state[0]):  # noqa: PLR2004
        raise RefusedError("its function is not a listed one")


def is_plain_callable(symbol: Symbol) -> bool:
    """Whether it is a listed name that may be handed on to be called later: its arguments need no rule."""
    return symbol.__class__ is Name and symbol.listed and symbol.args_rule in {"", "items", "count"}


STATE_RULES: dict[str, StateRule] = {
    "scipy-distribution": _scipy_distribution,
    "dtype": _dtype,
    "ndarray": _ndarray,
    "partial": _partial,
}
