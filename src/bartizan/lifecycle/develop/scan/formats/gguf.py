"""GGUF files: keys and values, descriptions of tensors, and the tensors themselves.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 1 to 3 in both byte
orders. Readers in C have trusted the counts of this header (CVE-2024-21802, CVE-2024-21825,
CVE-2024-21836, CVE-2024-23496, CVE-2024-23605, CVE-2025-53630), so each is held against the bytes
that are left. Tensors are stepped over; chat templates are judged as the programs they are.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from bartizan.lifecycle.develop.scan.formats.embedded import Embedded
from bartizan.lifecycle.develop.scan.formats.templates import judge_template
from bartizan.lifecycle.develop.scan.limits import Meter
from bartizan.lifecycle.develop.scan.source import Draft, Examine, Source, window
from bartizan.lifecycle.develop.scan.verdict import Report

STRING, ARRAY = 8, 9
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
"""Forms of the values by type id; texts and arrays come on top."""
BOOL = 7
BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 4: (32, 20), 5: (32, 24), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    9: (32, 40), 10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82),
    23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2),
    31: (32, 18), 32: (32, 18), 33: (32, 18), 34: (256, 54), 35: (256, 66), 36: (32, 18), 37: (32, 18), 38: (32, 18),
    39: (32, 17), 40: (64, 36), 41: (128, 18),
}  # fmt: skip
"""Numbers and bytes of one block by ggml type; 4, 5, 31 to 33 and 36 to 38 are types of old files."""
LONGEST_NAME = 64
"""Bytes of a tensor's name with the zero that ends it, ``GGML_MAX_NAME``."""
MOST_SIDES = 4
DEEPEST_ARRAY = 4
LONGEST_KEY = 65_535
LONGEST_TOKEN = 1 << 16
DEFAULT_ALIGNMENT = 32
TEMPLATE = "tokenizer.chat_template"
KEPT = 64
"""Bytes of a text that is no template which are kept for the report."""
MOST_ITEMS = 50_000_000
"""Texts in arrays that are stepped through."""
PER_TOKEN = ("tokenizer.ggml.scores", "tokenizer.ggml.token_type")
TOKENS = "tokenizer.ggml.tokens"


class _BrokenError(Exception):
    """The header cannot be read further; ``rule`` says what is wrong."""

    def __init__(self, rule: str, text: str, at: int) -> None:
        super().__init__(text)
        self.rule = rule
        self.at = at


class Text(NamedTuple):
    """Where a text lies."""

    start: int
    end: int


class Items(NamedTuple):
    """An array that was stepped over."""

    kind: int
    length: int


class Tensor(NamedTuple):
    """One description of a tensor."""

    name: str
    offset: int
    size: int
    at: int


def examine_gguf(source: Source, meter: Meter, examine: Examine) -> Report:
    """Examine a file: header, keys, tensors, templates."""
    draft = Draft(source, "gguf", meter.limits.findings)
    examiner = GgufExaminer(source, draft, examine, min(MOST_ITEMS, meter.opcodes))
    try:
        examiner.run()
    except _BrokenError as broken:
        draft.fire(broken.rule, str(broken), broken.at)
        draft.miss("the header cannot be read to its end")
    return draft.close()


class GgufExaminer:
    """The examination of one file."""

    def __init__(self, source: Source, draft: Draft, examine: Examine, items: int) -> None:
        self.data = source.data
        self.size = len(source.data)
        self.draft = draft
        self.embedded = Embedded(draft, examine)
        self.at = 4
        self.order = "<"
        self.wide = True
        """Counts and lengths take eight bytes since version 2, four in version 1."""
        self.items = items
        self.values: dict[str, Any] = {}

    def run(self) -> None:
        """Read the file from front to back."""
        version = self._version()
        tensors, keys = self._count(), self._count()
        length = 8 if self.wide else 4
        self._bound(keys, length + 4 + 1, "keys")
        self._bound(tensors, length + 4 + 4 + 8, "tensors")
        for _ in range(keys):
            self._key()
        found = [self._tensor() for _ in range(tensors)]
        self.draft.facts.update({"version": version, "keys": keys, "tensors": tensors})
        self._judge_values()
        self._judge_tensors(found)

    def _version(self) -> int:
        version = int(self._number("I"))
        if version & 0xFFFF == 0:
            self.order = ">"
            version = int.from_bytes(version.to_bytes(4, "little"), "big")
        if version not in {1, 2, 3}:
            raise _BrokenError("gguf/malformed", f"version {version}", 4)
        self.wide = version > 1
        return version

    # reading

    def _number(self, form: str) -> Any:
        size = struct.calcsize(form)
        if self.at + size > self.size:
            raise _BrokenError("gguf/malformed", "the file ends within its header", self.at)
        (value,) = struct.unpack_from(self.order + form, self.data, self.at)
        self.at += size
        return value

    def _count(self) -> int:
        return int(self._number("Q" if self.wide else "I"))

    def _bound(self, count: int, least: int, what: str) -> None:
        """A count must fit into the bytes that are left."""
        if count * least > self.size - self.at:
            raise _BrokenError("gguf/count", f"{count} {what} in {self.size - self.at} bytes", self.at)

    def _text(self) -> Text:
        size = self._count()
        self._bound(size, 1, "bytes of text")
        self.at += size
        return Text(self.at - size, self.at)

    def _shown(self, text: Text, most: int = KEPT) -> str:
        return bytes(self.data[text.start : min(text.end, text.start + most)]).decode("utf-8", "replace")

    def _key(self) -> None:
        began = self.at
        text = self._text()
        key = self._shown(text, LONGEST_KEY)
        if not key or text.end - text.start > LONGEST_KEY or not key.isprintable():
            self.draft.fire("gguf/malformed", f"a key of {text.end - text.start} bytes, {key[:60]!r}", began)
        if key in self.values:
            self.draft.fire("gguf/duplicate-key", f"{key[:80]!r}", began)
        self.values[key] = self._value(key, self._number("I"), 0)

    def _value(self, key: str, kind: int, depth: int) -> Any:
        if kind in SCALARS:
            return self._scalar(key, kind)
        if kind == STRING:
            text = self._text()
            self._judge_text(key, text)
            return text
        if kind != ARRAY:
            raise _BrokenError("gguf/malformed", f"key {key[:80]!r} has the type {kind}", self.at - 4)
        if depth >= DEEPEST_ARRAY:
            raise _BrokenError("gguf/malformed", f"key {key[:80]!r} nests arrays in arrays", self.at)
        return self._array(key, depth)

    def _scalar(self, key: str, kind: int) -> Any:
        value = self._number(SCALARS[kind])
        if kind == BOOL and value > 1:
            self.draft.fire("gguf/malformed", f"key {key[:80]!r} is the truth value {value}", self.at - 1)
        return value

    def _array(self, key: str, depth: int) -> Items:
        kind, count = self._number("I"), self._count()
        length = 8 if self.wide else 4
        least = struct.calcsize(SCALARS[kind]) if kind in SCALARS else length if kind == STRING else length + 4
        self._bound(count, least, f"items of {key[:80]!r}")
        if kind in SCALARS:
            self.at += count * least
            return Items(kind, count)
        self.items -= count
        if self.items < 0:
            raise _BrokenError("file/limit", f"more than {MOST_ITEMS} items in arrays", self.at)
        if kind == STRING:
            self._texts(key, count)
        elif kind == ARRAY:
            for _ in range(count):
                self._value(key, ARRAY, depth + 1)
        else:
            raise _BrokenError("gguf/malformed", f"key {key[:80]!r} is an array of type {kind}", self.at)
        return Items(kind, count)

    def _texts(self, key: str, count: int) -> None:
        """Step over many texts, and look at those that are too long for a token."""
        unpack = struct.Struct(self.order + ("Q" if self.wide else "I")).unpack_from
        width = 8 if self.wide else 4
        data, size = self.data, self.size
        at = self.at
        for _ in range(count):
            if at + width > size:
                raise _BrokenError("gguf/malformed", "the file ends within its header", at)
            (length,) = unpack(data, at)
            at += width + length
            if at > size:
                raise _BrokenError("gguf/count", f"{length} bytes of text in {size} of the file", at - length)
            if length >= KEPT:
                self._long_item(key, Text(at - length, at))
        self.at = at

    def _long_item(self, key: str, text: Text) -> None:
        length = text.end - text.start
        if length > LONGEST_TOKEN and key == TOKENS:
            self.draft.fire("gguf/vocabulary", f"a token of {length} bytes", text.start)
        self._judge_text(key, text)

    def _judge_text(self, key: str, text: Text) -> None:
        """Templates are judged as programs, other texts as what may hide something."""
        part = window(self.data, text.start, text.end)
        if key == TEMPLATE or key.startswith(f"{TEMPLATE}.") or key.endswith(".chat_template"):
            try:
                template = bytes(part).decode()
            except UnicodeDecodeError:
                self.draft.fire("template/malformed", f"{key[:80]!r} is no UTF-8", text.start)
                return
            for rule, detail in judge_template(template):
                self.draft.fire(rule, f"{key[:80]!r}: {detail}", text.start)
        elif "{{" in (shown := self._shown(text, 1 << 16)) and "__" in shown and judge_template(shown):
            self.draft.fire("template/code", f"{key[:80]!r} holds a template that reaches for Python", text.start)
        else:
            self.embedded.judge_text(f"key {key[:80]!r}", part, text.start, most=1 << 24)

    # tensors

    def _tensor(self) -> Tensor:
        began = self.at
        text = self._text()
        name = self._shown(text)
        if not 0 < text.end - text.start < LONGEST_NAME:
            self.draft.fire("gguf/tensor-header", f"a name of {text.end - text.start} bytes, {name[:40]!r}", began)
        if "\x00" in name:
            self.draft.fire("gguf/tensor-header", f"name {name!r} holds a zero", began)
        sides = self._number("I")
        if sides > MOST_SIDES:
            self.draft.fire("gguf/tensor-header", f"tensor {name!r} has {sides} sides", began)
        self._bound(sides, 8 if self.wide else 4, f"sides of {name!r}")
        shape = [self._count() for _ in range(sides)]
        kind, offset = self._number("I"), self._number("Q")
        return Tensor(name, offset, self._tensor_size(name, shape, kind, began), began)

    def _tensor_size(self, name: str, shape: list[int], kind: int, at: int) -> int:
        """Bytes of a tensor, 0 when its description makes no sense."""
        if kind not in BLOCKS:
            self.draft.fire("gguf/tensor-header", f"tensor {name!r} has the type {kind}", at)
            return 0
        items, width = BLOCKS[kind]
        total = 1
        for side in shape:
            total *= side
        if any(side >= 1 << 63 for side in shape) or total * width >= 1 << 63:
            self.draft.fire("gguf/tensor-size", f"tensor {name!r} has the shape {shape[:8]}", at)
            return 0
        if shape and shape[0] % items:
            self.draft.fire("gguf/tensor-header", f"rows of {name!r} are no multiple of {items}", at)
        return total // items * width

    def _judge_tensors(self, tensors: list[Tensor]) -> None:
        """Tensors follow one another, each at a multiple of the alignment, and fill the file."""
        names = set()
        for tensor in tensors:
            if tensor.name in names and len(tensor.name) < KEPT:
                self.draft.fire("gguf/duplicate-key", f"tensor {tensor.name!r}", tensor.at)
            names.add(tensor.name)
        alignment = self._alignment()
        start = -(-self.at // alignment) * alignment
        at = 0
        self._judge_padding(self.at, start, alignment)
        for tensor in sorted(tensors, key=lambda each: (each.offset, each.size)):
            if tensor.offset % alignment:
                self.draft.fire("gguf/tensor-range", f"tensor {tensor.name!r} lies at {tensor.offset}", tensor.at)
            if tensor.offset < at:
                self.draft.fire("gguf/tensor-range", f"tensor {tensor.name!r} overlaps another", tensor.at)
            else:
                self._judge_padding(start + at, start + tensor.offset, alignment)
            if start + tensor.offset + tensor.size > self.size:
                self.draft.fire("gguf/tensor-range", f"tensor {tensor.name!r} leads past the end", tensor.at)
            else:
                self._judge_numbers(tensor, start + tensor.offset)
            at = max(at, tensor.offset + tensor.size)
        self._judge_padding(start + at, self.size, alignment)

    def _judge_numbers(self, tensor: Tensor, start: int) -> None:
        part = window(self.data, start, start + tensor.size)
        self.embedded.judge_numbers(f"tensor {tensor.name!r}", part, start)

    def _judge_padding(self, start: int, end: int, alignment: int) -> None:
        """Between parts stand fewer zeros than one step of the alignment, and nothing else."""
        start, end = min(start, self.size), min(end, self.size)
        if end - start >= alignment or any(bytes(self.data[start:end])):
            self.draft.gap(start, end, "belong to no tensor")

    def _alignment(self) -> int:
        alignment = self.values.get("general.alignment", DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20 or alignment & (alignment - 1):
            self.draft.fire("gguf/malformed", f"an alignment of {str(alignment)[:40]}", 0)
            return DEFAULT_ALIGNMENT
        if alignment % 8:
            self.draft.fire("gguf/malformed", f"an alignment of {alignment}", 0)
        return alignment

    # keys

    def _judge_values(self) -> None:
        if not isinstance(self.values.get("general.architecture", Text(0, 0)), Text):
            self.draft.fire("gguf/malformed", "general.architecture is no text", 0)
        tokens = self.values.get(TOKENS)
        if tokens is None:
            return
        if not isinstance(tokens, Items) or tokens.kind != STRING:
            self.draft.fire("gguf/vocabulary", "the tokens are no list of texts", 0)
            return
        self._judge_vocabulary(tokens.length)

    def _judge_vocabulary(self, count: int) -> None:
        """Lists beside the tokens have one item for each, and special tokens are among them."""
        for key in PER_TOKEN:
            items = self.values.get(key)
            if items is not None and (not isinstance(items, Items) or items.length != count):
                self.draft.fire("gguf/vocabulary", f"{key!r} does not have {count} items", 0)
        is_id: Callable[[str], bool] = lambda key: key.startswith("tokenizer.ggml.") and key.endswith("_token_id")  # noqa: E731
        for key in filter(is_id, list(self.values)):
            value = self.values[key]
            if not isinstance(value, int) or (value not in {-1, 0xFFFF_FFFF} and not 0 <= value < count):
                self.draft.fire("gguf/vocabulary", f"{key!r} is {str(value)[:40]} of {count} tokens", 0)
