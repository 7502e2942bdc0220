"""Names of the operators that ONNX, ONNX Runtime and TensorFlow bring along.

Taken from the schemas that onnx 1.23, onnxruntime 1.31 and tensorflow 2.21 register, old versions included.
"""

from __future__ import annotations

import functools
import json
from importlib.resources import files


@functools.cache
def _tables() -> dict[str, dict[str, frozenset[str]]]:
    raw = json.loads(files(__package__).joinpath("operators.json").read_text())
    onnx = {domain: frozenset(" ".join(lines).split()) for domain, lines in raw["onnx"].items()}
    return {"onnx": onnx, "tensorflow": {"": frozenset(" ".join(raw["tensorflow"]).split())}}


def onnx_operators(domain: str) -> frozenset[str]:
    """Operators of a domain; ``ai.onnx`` is another name of the empty one."""
    return _tables()["onnx"].get("" if domain == "ai.onnx" else domain, frozenset())


def tensorflow_operators() -> frozenset[str]:
    """All operators of TensorFlow itself, those that do harm included."""
    return _tables()["tensorflow"][""]
