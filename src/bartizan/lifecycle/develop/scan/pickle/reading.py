"""Reads symbols: the values of constants, the items of containers, a call as an expression."""

from __future__ import annotations

from bartizan.lifecycle.develop.scan.limits import LimitError
from bartizan.lifecycle.develop.scan.pickle import constants
from bartizan.lifecycle.develop.scan.pickle import opcodes as op
from bartizan.lifecycle.develop.scan.pickle.bulk import Run
from bartizan.lifecycle.develop.scan.pickle.constants import BrokenPickleError, Buffer
from bartizan.lifecycle.develop.scan.pickle.values import Call, DictSymbol, ListSymbol, Name, SetSymbol, Symbol

LONGEST_TEXT = 1 << 16
COST_OF_PAIR = 8
LONGEST_EXPRESSION = 240
DEEPEST_EXPRESSION = 3
MOST_ITEMS = 6


class Reader:
    """Reads the symbols of one pickle."""

    def __init__(self, data: Buffer, patience: int) -> None:
        self.data = data
        self.patience = patience

    def _spend(self, count: int) -> None:
        """Charge what is read: memo entries let a small pickle have the same large thing read over and over."""
        self.patience -= count
        if self.patience < 0:
            raise LimitError("too much has to be read back to judge arguments and states")

    def text(self, symbol: Symbol, longest: int = LONGEST_TEXT) -> str | None:
        """The text of a constant; None when it is none, or longer than ``longest`` bytes."""
        span = constants.text_span(self.data, symbol)
        if span is None or span[1] - span[0] > longest:
            return None
        self._spend(span[1] - span[0])
        return constants.text(self.data, symbol)

    def is_text(self, symbol: Symbol) -> bool:
        """Whether it is a text constant of any length."""
        return symbol.__class__ is int and self.data[symbol] in op.TEXT

    def number(self, symbol: Symbol) -> int | None:
        """The integer or boolean of a constant; None when it is none."""
        return constants.number(self.data, symbol)

    def span(self, symbol: Symbol) -> tuple[int, int] | None:
        """Where the bytes of a constant lie; None when it is no bytes."""
        return constants.span(self.data, symbol)

    def bytes_of(self, symbol: Symbol) -> Buffer | None:
        """The bytes of a constant, or of ``_codecs.encode(text, "latin1")``, the way protocols below 3 write them."""
        if symbol.__class__ is Call and str(symbol.callee) == "_codecs.encode" and symbol.args.__class__ is tuple:
            inner = constants.text_span(self.data, symbol.args[0])
            if inner is None:
                return None
            self._spend(inner[1] - inner[0] >> 4)
            return constants.text(self.data, symbol.args[0]).encode("latin-1", "replace")
        span = self.span(symbol)
        if span is None:
            return None
        self._spend(span[1] - span[0] >> 4)
        return self.data[span[0] : span[1]]

    def is_none(self, symbol: Symbol) -> bool:
        """Whether it is None."""
        return constants.is_none(self.data, symbol)

    def numbers(self, symbol: Symbol) -> tuple[int, ...] | None:
        """A tuple of integers; None when it is anything else."""
        if symbol.__class__ is not tuple:
            return None
        self._spend(len(symbol))
        values = tuple(self.number(item) for item in symbol)
        return None if None in values else tuple(value for value in values if value is not None)

    def pairs(self, symbol: Symbol) -> list[tuple[Symbol, Symbol]] | None:
        """Keys and values of a dict in the order they were set; None when it is no dict or not all is known."""
        if symbol.__class__ is not DictSymbol or not symbol.whole:
            return None
        self._spend(COST_OF_PAIR * len(symbol))
        flat: list[Symbol] = []
        for item in symbol:
            if item.__class__ is Run:
                self._spend(COST_OF_PAIR * item.count())
                flat.extend(item.ready())
            else:
                flat.append(item)
        return list(zip(flat[::2], flat[1::2], strict=True)) if len(flat) % 2 == 0 else None

    def length(self, symbol: Symbol) -> int | None:
        """Number of items of a list; None when it is anything else."""
        if symbol.__class__ is not ListSymbol:
            return None
        count = int(symbol.constants)
        for item in symbol:
            count += item.count() if item.__class__ is Run else 1
        self._spend(len(symbol))
        return count

    def fields(self, symbol: Symbol) -> dict[str, Symbol] | None:
        """A dict whose keys are all constant text; None when it is anything else."""
        pairs = self.pairs(symbol)
        if pairs is None:
            return None
        keys = [self.text(key) for key, _ in pairs]
        return (
            {key: value for key, (_, value) in zip(keys, pairs, strict=True) if key is not None}
            if None not in keys
            else None
        )

    def expression(self, symbol: Symbol) -> str:
        """The symbol as a Python expression, cut to what a person reads."""
        self._spend(MOST_ITEMS**2)
        shown = self._show(symbol, 0)
        return shown if len(shown) <= LONGEST_EXPRESSION else shown[: LONGEST_EXPRESSION - 3] + "..."

    def _show(self, symbol: Symbol, depth: int) -> str:
        if symbol.__class__ is int:
            try:
                return constants.show(self.data, symbol)
            except (BrokenPickleError, IndexError):
                return "<broken constant>"
        if symbol.__class__ is Name:
            return str(symbol)[:120]
        if depth >= DEEPEST_EXPRESSION:
            return "..."
        if symbol.__class__ is Call:
            return self._show_call(symbol, depth + 1)
        return self._show_container(symbol, depth + 1)

    def _show_call(self, call: Call, depth: int) -> str:
        args = call.args if call.args.__class__ is tuple else ("*", call.args)
        shown = ", ".join("*" if item == "*" else self._show(item, depth) for item in args[:MOST_ITEMS])
        return f"{self._show(call.callee, depth)}({shown}{', ...' if len(args) > MOST_ITEMS else ''})"

    def _show_container(self, symbol: Symbol, depth: int) -> str:
        if symbol.__class__ is DictSymbol:
            shown = ", ".join(
                f"{self._show(k, depth)}: {self._show(v, depth)}" for k, v in (self.pairs(symbol) or [])[:3]
            )
            return f"{{{shown}{'' if symbol.whole and len(symbol) <= MOST_ITEMS else ', ...'}}}"
        if symbol.__class__ is tuple:
            shown = ", ".join(self._show(item, depth) for item in symbol[:MOST_ITEMS])
            return f"({shown}{', ...' if len(symbol) > MOST_ITEMS else ',' if len(symbol) == 1 else ''})"
        if symbol.__class__ is SetSymbol:
            return "{...}"
        return "[...]" if symbol.__class__ is ListSymbol else "<items>"
