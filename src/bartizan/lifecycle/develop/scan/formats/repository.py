"""Folders as a whole: what only shows when the files beside one another are known."""

from __future__ import annotations

import json
import posixpath
import sys
from typing import Any

from bartizan.lifecycle.develop.scan.formats.huggingface import maps_of
from bartizan.lifecycle.develop.scan.limits import MIB
from bartizan.lifecycle.develop.scan.source import Draft, Folder
from bartizan.lifecycle.develop.scan.verdict import Verdict

CONFIG = 2 * MIB
MOST_CONFIGS = 200
SHADOWED = frozenset(
    {
        "torch", "transformers", "numpy", "tensorflow", "keras", "sklearn", "pandas", "scipy", "safetensors", "joblib",
        "onnx", "onnxruntime", "diffusers", "tokenizers", "huggingface_hub", "mlflow", "accelerate", "datasets", "peft",
        "requests", "yaml", "PIL",
    }
)  # fmt: skip
ODD = frozenset({"test", "code", "types", "config", "site", "this", "trace", "profile", "statistics", "queue", "token"})
"""Modules of the standard library whose names people give their own files."""


def examine_folder(folder: Folder, draft: Draft) -> None:
    """Find configurations that load harmful code of the folder, and files that stand in for other modules."""
    for name in folder.reports:
        _judge_shadow(name, draft)
    configs = [name for name in folder.reports if name.endswith(".json") and folder.reports[name].format == "json"]
    for name in configs[:MOST_CONFIGS]:
        if any(finding.rule == "repository/remote-code" for finding in folder.reports[name].findings):
            _judge_code_of(name, folder, draft)


def _judge_shadow(name: str, draft: Draft) -> None:
    top = name.removesuffix("/__init__.py").removesuffix(".py")
    if not name.endswith(".py") or "/" in top:
        return
    if top in SHADOWED or (top in sys.stdlib_module_names and top not in ODD):
        draft.fire("repository/shadow-module", f"{name!r} stands before the module {top!r}")


def _judge_code_of(name: str, folder: Folder, draft: Draft) -> None:
    """A configuration whose code lies beside it is as bad as that code."""
    try:
        document = json.loads(folder.read(name, CONFIG))
    except (ValueError, RecursionError):
        return
    for module in sorted(_modules(document)):
        beside = posixpath.join(posixpath.dirname(name), f"{module}.py")
        report = folder.reports.get(beside)
        if report is not None and report.verdict is Verdict.DANGEROUS:
            draft.fire("repository/harmful-code", f"{name} loads {beside}")


def _modules(document: Any) -> set[str]:
    """Modules that ``auto_map`` and ``custom_pipelines`` name."""
    named: set[str] = set()
    for each in maps_of(document):
        for key in ("auto_map", "custom_pipelines"):
            todo = [each.get(key)]
            while todo:
                value = todo.pop()
                if isinstance(value, str) and "." in value:
                    named.add(value.rpartition(".")[0].replace(".", "/"))
                elif isinstance(value, dict | list):
                    todo.extend(value.values() if isinstance(value, dict) else value)
    return named


__all__ = ["examine_folder"]
