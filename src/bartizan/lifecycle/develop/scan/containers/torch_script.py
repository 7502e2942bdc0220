"""TorchScript source inside a torch archive: ``code/__torch__/*.py``, the code of the model's classes.

It looks like Python and is none: ``torch.jit.load`` compiles it for an interpreter of its own that knows tensors and
the operators of torch (``torch/csrc/jit/serialization/import_source.cpp``). That interpreter can still open files
(``aten::from_file``, ``aten::save``) and call operators of native libraries that happen to be loaded.
"""

from __future__ import annotations

import re

from bartizan.lifecycle.develop.scan.limits import Limits
from bartizan.lifecycle.develop.scan.pickle.policy import TORCH_SCRIPT
from bartizan.lifecycle.develop.scan.source import Draft, Source
from bartizan.lifecycle.develop.scan.verdict import Report

NATIVE_CLASSES = frozenset({"quantized", "sparse", "rnn", "xnnpack", "profiling"})
"""Families of classes that torch itself brings along, below ``__torch__.torch.classes``."""
LONGEST_SOURCE = 64 << 20
NATIVE_OPERATORS = frozenset(
    {"aten", "prim", "prims", "prepacked", "quantized", "quantized_decomposed", "sparse", "torchvision", "xnnpack"}
    | {"static_runtime", "torchaudio", "onednn", "mkldnn", "mkldnn_prepacked", "_quantized", "profiler", "cuda"}
)
"""Families of operators that come with torch and its sister projects."""
_TEXT = re.compile(rb"[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*\Z")
_TOP = re.compile(rb"(?:class |def |@|import __torch__|from __torch__|op_version_set ?=|#|[)\]}\r\n]|\Z)")
_LINE = re.compile(rb"^(?=[^ \t\n])", re.MULTILINE)
_GAP = rb"(?:[\s\\]++|#[^\n]{0,1000}\n){0,20}+"
"""What may stand between the parts of a name; bounded, as else a file of comments takes hours."""
_ENDLESS = re.compile(
    rb"\b(?:torch|aten|ops|getattr)\b"
    + _GAP
    + rb"(?:\."
    + _GAP
    + rb"(?:\w++"
    + _GAP
    + rb"(?:\."
    + _GAP
    + rb")?+)?+)?+(?=[\s\\#])"
)
_FILES = re.compile(rb"\b(?:torch|aten)" + _GAP + rb"\." + _GAP + rb"(from_file|save|load)\b")
_OPERATOR = re.compile(rb"\bops" + _GAP + rb"\." + _GAP + rb"(\w+)" + _GAP + rb"\." + _GAP + rb"(\w+)")
_CLASS = re.compile(
    rb"\b__torch__"
    + _GAP
    + rb"\."
    + _GAP
    + rb"torch"
    + _GAP
    + rb"\."
    + _GAP
    + rb"classes"
    + _GAP
    + rb"\."
    + _GAP
    + rb"(\w+)"
)
_INDIRECT = re.compile(rb"\bgetattr" + _GAP + rb"\((?!\w+, \"(?![A-Za-z_]\w*\")[^\"\\\n]+\"\))")
"""``getattr``, but for a submodule whose name is no identifier: a traced ``Sequential`` has ``getattr(self, "0")``.

No operator has such a name, so nothing but what the class declares can be meant.
"""
_ALIAS = re.compile(
    rb"\"(?:[^\"\\\n]|\\[^\n])*+\"|'(?:[^'\\\n]|\\[^\n])*+'|#[^\n]*+|(?<![\w.])"
    rb"(torch|ops(?:" + _GAP + rb"\." + _GAP + rb"\w++)?+)(?!\w)(?!" + _GAP + rb"\.| *:)"
)
"""Texts and comments, and the families of operators by themselves: ``f = torch``, then ``f.save(x, "y")``.

An attribute of that name is declared with a colon.
"""


def is_native_class(module: str) -> bool:
    """Whether a class comes with torch itself and so has no source in the archive."""
    parts = module.split(".")
    return parts[:3] == [TORCH_SCRIPT, "torch", "classes"] and len(parts) > 3 and parts[3] in NATIVE_CLASSES  # noqa: PLR2004


def is_source(name: str) -> bool:
    """Whether a member (named without the archive's folder) is TorchScript source."""
    return name.startswith("code/") and name.endswith(".py")


def examine_script(source: Source, limits: Limits) -> Report:
    """Report on one file of TorchScript source."""
    draft = Draft(source, "torchscript", limits.findings)
    if len(source.data) > LONGEST_SOURCE:
        draft.miss(f"more than {LONGEST_SOURCE} bytes of source", rule="file/limit")
        return draft.close()
    text = bytes(source.data)
    _judge_shape(text, draft)
    for match in _FILES.finditer(text):
        draft.fire("torch/script-files", f"calls torch.{match[1].decode('ascii')}", match.start())
    for match in _INDIRECT.finditer(text):
        draft.fire("torch/script-operator", "calls getattr", match.start())
    if endless := _ENDLESS.search(text):
        draft.fire("torch/script-operator", "breaks a name up by more comments than are read", endless.start())
    alias = next((match for match in _ALIAS.finditer(text) if match[1]), None)
    if alias is not None:
        family = alias[1].split(b".")[0].decode("ascii")
        draft.fire("torch/script-operator", f"gives {family} another name", alias.start())
    for match in _OPERATOR.finditer(text):
        family, name = match[1].decode("ascii", "replace"), match[2].decode("ascii", "replace")
        if family not in NATIVE_OPERATORS:
            draft.fire("torch/script-operator", f"calls {family}::{name}", match.start())
    for match in _CLASS.finditer(text):
        family = match[1].decode("ascii", "replace")
        if family not in NATIVE_CLASSES:
            draft.fire("torch/script-operator", f"uses a class of the native library {family}", match.start())
    return draft.close()


def _judge_shape(text: bytes, draft: Draft) -> None:
    """Only definitions stand at the beginning of a line."""
    if not _TEXT.match(text) or not _is_utf8(text):
        draft.fire("torch/script-source", "it is no text")
        return
    for match in _LINE.finditer(text):
        if not _TOP.match(text, match.start()):
            shown = text[match.start() : match.start() + 60].splitlines()[:1]
            draft.fire("torch/script-source", f"{shown[0] if shown else b''!r} is no definition", match.start())
            return


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
