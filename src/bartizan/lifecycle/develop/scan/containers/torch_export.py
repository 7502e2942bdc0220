"""Archives of ``torch.export``, ``.pt2``: a graph as JSON, and weights as raw numbers.

Layout (``torch/export/pt2_archive/constants.py``): ``NAME/archive_format`` says ``pt2``, ``NAME/models/*.json`` hold
the programs, ``NAME/data/{weights,constants}/*_config.json`` say which file holds which tensor, and whether as raw
numbers or as a pickle. The texts of symbolic sizes are evaluated: ``torch/_export/serde/serialize.py`` hands
``expr_str`` to ``sympy.sympify``, which runs ``eval``, and ``guards_code`` is compiled.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from bartizan.lifecycle.develop.scan.containers.torch import TorchArchive
from bartizan.lifecycle.develop.scan.detect import detect
from bartizan.lifecycle.develop.scan.limits import Limits
from bartizan.lifecycle.develop.scan.source import Draft, Examine, Source
from bartizan.lifecycle.develop.scan.verdict import Report, Verdict

LARGEST_JSON = 16 << 20
LONGEST_EXPRESSION = 20_000
EVALUATED = frozenset({"expr_str", "guards_code"})
_TOKEN = re.compile(
    r"\s*(?:(?P<call>[A-Za-z_]\w*)\s*\(|(?P<name>[A-Za-z_]\w*)|(?P<method>\.(?:size|stride|storage_offset|dim)\(\))"
    r"|\d{1,20}(?:\.\d*)?(?:e[+-]?\d{1,3})?|'[\w.]*'|\"[\w.]*\"|(?P<power>\*\*)(?=\s*\(?-?\d{1,2}\b)"
    r"|\*(?!\*)|[-+/%(),=<>!&|~\[\]])"
)
_CALLS = frozenset(
    {"Symbol", "Integer", "Rational", "Float", "Max", "Min", "Mod", "PythonMod", "FloorDiv", "CleanDiv", "CeilDiv"}
    | {"CeilToInt", "FloorToInt", "TruncToInt", "TruncToFloat", "ToFloat", "RoundToInt", "RoundDecimal", "Where"}
    | {
        "IntTrueDiv",
        "FloatTrueDiv",
        "ModularIndexing",
        "Identity",
        "Abs",
        "Add",
        "Mul",
        "PowByNatural",
        "IsNonOverlapping",
    }
    | {"Eq", "Ne", "Lt", "Le", "Gt", "Ge", "Equality", "Unequality", "StrictLessThan", "LessThan", "GreaterThan"}
    | {
        "StrictGreaterThan",
        "And",
        "Or",
        "Not",
        "Piecewise",
        "floor",
        "ceiling",
        "BitwiseFn_bitwise_and",
        "int",
        "float",
    }
    | {"OpaqueUnaryFn_sqrt", "OpaqueUnaryFn_log2", "OpaqueUnaryFn_exp", "not", "and", "or"}
)
MOST_POWERS = 3


class ExportArchive(TorchArchive):
    """A zip archive that ``torch.export.load`` reads."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.raw: set[str] = set()
        """Members that hold raw numbers, without the archive's folder."""

    @classmethod
    def of(cls, names: Iterable[str]) -> ExportArchive | None:
        """The archive that has these members, if it is one of ``torch.export``."""
        ending = "/archive_format"
        roots = [
            name.removesuffix("archive_format") for name in names if name.endswith(ending) and name.count("/") == 1
        ]
        return cls(roots[0]) if len(roots) == 1 else None

    def is_pickle(self, name: str) -> bool:
        """Whether this member has to be read before the others, since it says what they are."""
        return name.startswith(f"{self.root}data/") and name.endswith("_config.json")

    def examine(self, source: Source, examine: Examine, limits: Limits) -> Report:
        """Report on a member: a program, a list of tensors, raw numbers, or whatever its content is."""
        name = source.name.removeprefix(self.root)
        if name in {"archive_format", "archive_version"} and len(source.data) <= LONGEST_LINE:
            return Draft(source, "text", limits.findings).close()
        if name.endswith(".json"):
            return self._examine_json(source, name, examine, limits)
        if name not in self.raw:
            return super().examine(source, examine, limits)
        inside = examine(source) if detect(source.data) not in {"unknown", "empty", "maybe-pickle"} else None
        if inside is not None and inside.verdict is Verdict.DANGEROUS:
            return inside
        return Draft(source, "tensor", limits.findings).close()

    def _examine_json(self, source: Source, name: str, examine: Examine, limits: Limits) -> Report:
        draft = Draft(source, "json", limits.findings)
        if len(source.data) > LARGEST_JSON:
            draft.miss(f"more than {LARGEST_JSON} bytes of JSON", rule="file/limit")
            return draft.close()
        try:
            document = json.loads(bytes(source.data))
        except (ValueError, RecursionError):
            return examine(source)
        if self.is_pickle(source.name):
            self.raw |= {f"{name.rpartition('/')[0]}/{path}" for path in _raw_paths(document)}
        for text in _evaluated(document):
            if not is_plain_expression(text):
                draft.fire("torch/export-expression", f"evaluates {text[:120]!r}")
        return draft.close()


LONGEST_LINE = 64


def _raw_paths(document: Any) -> Iterator[str]:
    """Files that a list of tensors says are raw numbers."""
    config = document.get("config") if isinstance(document, dict) else None
    for entry in config.values() if isinstance(config, dict) else ():
        if isinstance(entry, dict) and entry.get("use_pickle") is False and isinstance(entry.get("path_name"), str):
            yield entry["path_name"]


def _evaluated(document: Any) -> Iterator[str]:
    """All texts in a program that are evaluated."""
    waiting = [document]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            for key in EVALUATED & part.keys():
                yield from _texts(part[key])
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part


def _texts(value: Any) -> Iterator[str]:
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, str):
            yield item


def is_plain_expression(text: str) -> bool:
    """Whether a text is arithmetic on symbols, as torch writes it: no attributes, no other calls, no huge powers."""
    if len(text) > LONGEST_EXPRESSION:
        return False
    at = powers = 0
    text = text.strip()
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None or "__" in token[0] or (token["call"] and token["call"] not in _CALLS):
            return False
        if token["name"] in {"lambda", "for", "import", "await", "yield"}:
            return False
        powers += token["power"] is not None
        at = token.end()
    return powers <= MOST_POWERS
