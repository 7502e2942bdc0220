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


MOST_LAYERS = 10_000

_FORMULA_TOKEN = re.compile(
    r"\s*(?:(?P<call>(?:np\.)?[A-Za-z_]\w*)\s*\(|(?P<name>[A-Za-z_]\w*)(?![\w.'\"])|`[^`\n]{1,200}`"
    r"|(?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)(?![\w.])|(?:'[^'\\\n]*'|\"[^\"\\\n]*\")(?=\s*[,)])"
    r"|(?P<power>\*\*)(?=\s*\d{1,2}(?![\w.])(?!\s*\*\*))|(?:\*(?!\*)|[-+/:~(),=^|<>!%&]))"
)
_FORMULA_CALLS = (
    frozenset({"I", "C", "Q", "Treatment", "Sum", "Poly", "Diff", "Helmert", "center", "standardize", "scale"})
    | frozenset({"log", "log10", "exp", "sqrt", "hashed", "lag"})
    | frozenset(
        f"np.{name}" for name in ("log", "log1p", "log2", "log10", "exp", "expm1", "sqrt", "cbrt", "abs", "square")
    )
    | frozenset(f"np.{name}" for name in ("sin", "cos", "tan", "tanh", "sign", "floor", "ceil", "minimum", "maximum"))
)
_FORMULA_SPLINES = frozenset({"bs", "cr", "cc", "te", "cs", "poly"})
"""These make as many columns as a number says."""
_FORMULA_KEYWORDS = frozenset({"lambda", "for", "if", "else", "import", "yield", "await", "async", "not", "in", "is"})
LONGEST_FORMULA = 10_000
MOST_POWERS = 3
LONGEST_NUMBER = 12
LONGEST_COUNT = 3


def _is_plain_formula(formula: str) -> bool:
    """Whether a model formula has nothing but columns, numbers, operators and the usual functions.

    patsy and formulaic evaluate every factor of a formula as Python. Attributes, subscripts, braces and other
    calls are not expected, nor are towers of powers and products of texts, which exhaust the machine.
    """
    calls: set[str] = set()
    numbers = [""]
    powers = at = 0
    formula = formula.strip()
    while at < len(formula):
        token = _FORMULA_TOKEN.match(formula, at)
        if token is None or token["name"] in _FORMULA_KEYWORDS or "__" in token[0]:
            return False
        calls |= {token["call"]} if token["call"] else set()
        numbers += [token["number"]] if token["number"] else []
        powers += token["power"] is not None
        at = token.end()
    longest = LONGEST_COUNT if calls & _FORMULA_SPLINES else LONGEST_NUMBER
    return calls <= _FORMULA_CALLS | _FORMULA_SPLINES and powers <= MOST_POWERS and max(map(len, numbers)) <= longest


def _formula(reader: Reader, _target: Call, state: Symbol) -> None:
    """``statsmodels.base.data.ModelData.__setstate__`` evaluates the text of ``formula``."""
    pairs = reader.pairs(state)
    if pairs is None:
        raise RefusedError("it is not a plain dict, and a formula in it is evaluated")
    keyed = [(reader.text(key), value) for key, value in pairs]
    if not {key for key, _ in keyed} & {"restore_design_info", "restore_model_spec", None}:
        return
    for formula in [value for key, value in keyed if key in {"formula", None}]:
        text = reader.text(formula, LONGEST_FORMULA)
        if text is None or not _is_plain_formula(text):
            raise RefusedError(f"its formula is evaluated as code: {reader.expression(formula)}")


def _recurrent(reader: Reader, _target: Call, state: Symbol) -> None:
    """``torch.nn.RNNBase.__setstate__`` counts up to ``num_layers`` when the names of old weights are missing."""
    for key, value in reader.pairs(state) or ():
        if reader.text(key) == "num_layers" and not 0 < (reader.number(value) or 0) <= MOST_LAYERS:
            raise RefusedError("its number of layers is not sensible")


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
    "formula": _formula,
    "recurrent": _recurrent,
}
