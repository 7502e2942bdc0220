"""What refusals tell: every sentence that the gateway's code can send to a client, found in the code itself."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from bartizan.lifecycle.deploy import gateway

PLACE = Path(gateway.__file__).parent
STATUSES = {400, 401, 403, 404, 405, 408, 409, 411, 413, 415, 422, 429, 500, 501, 502, 503, 504}
INSIDE = re.compile(
    r"\b(shape|dtype|datatype|feature|column|layer|tensor rank|onnx|numpy|sklearn|scikit|torch|xgboost|msgspec|python"
    r"|traceback|guard|detector|threshold|anomal|outlier|near-duplicate|sequence|energy|distance|digest of)",
    re.IGNORECASE,
)
"""Words of preprocessing, of what the model runs on, and of what recognises attacks."""


def constants(tree):
    return {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def sentence(node, names):
    """The text of a message, as far as it stands in the code; None where it is made elsewhere."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return None


def refusals():
    trees = {path: ast.parse(path.read_text()) for path in sorted(PLACE.rglob("*.py"))}
    names = {}
    for tree in trees.values():
        names |= constants(tree)
    for path, tree in trees.items():
        for node in ast.walk(tree):
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "RequestError"
            if called and len(node.args) > 1:
                status = node.args[0].value if isinstance(node.args[0], ast.Constant) else None
                yield pytest.param(status, sentence(node.args[1], names), id=f"{path.relative_to(PLACE)}:{node.lineno}")


FOUND = list(refusals())


def test_there_are_refusals_to_look_at():
    assert len(FOUND) > 30
    assert sum(each.values[1] is not None for each in FOUND) > 0.8 * len(FOUND)


@pytest.mark.parametrize(("status", "said"), FOUND)
def test_no_refusal_tells_what_is_inside(status, said):
    assert status is None or status in STATUSES
    if said is None:
        return
    assert len(said) <= 160
    assert not (found := INSIDE.search(said)), f"{said!r} says {found[0]!r}"
