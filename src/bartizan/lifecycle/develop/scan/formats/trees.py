"""What the tree formats (XGBoost, LightGBM, CatBoost) have in common: child indices, and texts that carry code.

Prediction code of these libraries follows child indices without asking whether they lie inside the
tree, so an index that leads outside reads foreign memory (CWE-125) and a circle never ends (CWE-835).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from bartizan.lifecycle.develop.scan.source import Draft

LEAF = -1
_CODE = re.compile(
    r"__(?:import|class|globals|builtins|subclasses|reduce|mro)__|\b(?:os\.(?:system|popen|exec|spawn)|subprocess\.|pty\.spawn"
    r"|runpy\.|ctypes\.|importlib\.|marshal\.loads|pickle\.loads|builtins\.)|\b(?:eval|exec|compile|__import__)\s*\("
    r"|/bin/(?:ba|z|da)?sh\b|\bpowershell\b|\bcmd\.exe\b|(?:curl|wget)\s[^\n]{0,200}\|\s*(?:ba|z)?sh\b|<script\b|javascript:",
    re.IGNORECASE,
)
_PACKED = re.compile(r"(?:gASV|gAJj|gANj|gAQ|gAR|Y3Bvc2l4|Y29z|TVqQAA|f0VMR|UEsDB)[A-Za-z0-9+/]{24,}")
"""Beginnings of pickles, programs and archives in base64."""
_HINTS = (
    "__",
    "os.",
    "subprocess.",
    "pty.",
    "runpy.",
    "ctypes.",
    "importlib.",
    "marshal.",
    "pickle.",
    "builtins.",
    "eval",
    "exec",
    "compile",
    "/bin/",
    "powershell",
    "cmd.exe",
    "curl",
    "wget",
    "<script",
    "javascript:",
)
"""Without one of these a text cannot match ``_CODE``; looking for them is much faster."""
LONGEST_TEXT = 1 << 20
SHORTEST_PACKED = 24


def code_in(text: str) -> str:
    """The part of a text that is code or a packed program; empty when there is none.

    Names, parameters and labels of models hold neither: whoever evaluates such a text runs it.
    """
    for part in _pieces(text):
        lower = part.lower()
        found = any(hint in lower for hint in _HINTS) and _CODE.search(part)
        if found or (found := len(part) > SHORTEST_PACKED and _PACKED.search(part)):
            return found[0][:60]
    return ""


def _pieces(text: str) -> Iterable[str]:
    return (text[at : at + LONGEST_TEXT] for at in range(0, len(text), LONGEST_TEXT))


def judge_texts(value: Any, where: str, draft: Draft) -> None:
    """Look for code in all texts of a decoded document, however it is nested."""
    todo = [value]
    while todo:
        part = todo.pop()
        if isinstance(part, dict):
            todo.extend(part.keys())
            todo.extend(part.values())
        elif isinstance(part, list | tuple):
            todo.extend(part)
        elif isinstance(part, str) and (found := code_in(part)):
            draft.fire("trees/code-in-text", f"{where} hold {found!r}")


def judge_walk(count: int, children: Callable[[int], Sequence[int]], what: str, draft: Draft) -> bool:
    """Follow a tree from its root; every node is reached once. Returns whether it is a tree.

    ``children`` gives the nodes below a node, none for a leaf.
    """
    seen = bytearray(count)
    todo = [0] if count else []
    while todo:
        node = todo.pop()
        if seen[node]:
            draft.fire("trees/cycle", f"{what}: node {node} is reached twice")
            return False
        seen[node] = 1
        for child in children(node):
            if not 0 <= child < count:
                draft.fire("trees/child-index", f"{what}: node {node} leads to {child} of {count} nodes")
                return False
            todo.append(child)
    return True
