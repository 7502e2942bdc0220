"""MLflow models: the file ``MLmodel`` and the environments that are restored from beside it.

Loading a model of the flavour ``python_function`` imports ``loader_module`` and calls its
``_load_pyfunc``; ``code`` is put on the path of imports first (``mlflow.pyfunc.load_model``).
Paths in the file have led out of its folder before (CVE-2023-6909 and its kin; CWE-22).
"""

from __future__ import annotations

import re
from typing import Any

from bartizan.lifecycle.develop.scan.formats import scripts
from bartizan.lifecycle.develop.scan.formats.huggingface import leaves_folder, maps_of
from bartizan.lifecycle.develop.scan.source import Draft, Source

OWN = re.compile(r"mlflow(?:\.\w+)+")
PATH_KEYS = frozenset(
    {
        "artifact_path", "checkpoint", "code", "code_path", "components", "conda", "config", "data", "env",
        "env_path", "keras_model", "model_binary", "model_code_path", "model_data", "model_path",
        "model_weights", "path", "pickled_model", "pipeline", "python_model", "saved_model_dir", "script_path",
        "tokenizer", "virtualenv",
    }
)  # fmt: skip
"""Keys of flavours that name files of the model's folder."""
CHANNELS = frozenset({"defaults", "conda-forge", "pytorch", "nvidia", "main", "anaconda", "nodefaults", "huggingface"})


def judge(_source: Source, draft: Draft, document: Any) -> None:
    """Judge a YAML document if it is a model's description or an environment."""
    if not isinstance(document, dict):
        return
    if isinstance(document.get("flavors"), dict):
        draft.kind = "mlmodel"
        for name, flavour in document["flavors"].items():
            if isinstance(flavour, dict):
                _judge_flavour(draft, str(name), flavour)
    if isinstance(document.get("dependencies"), list) or isinstance(document.get("build_dependencies"), list):
        _judge_environment(draft, document)


def _judge_flavour(draft: Draft, name: str, flavour: dict[str, Any]) -> None:
    loader = flavour.get("loader_module")
    if isinstance(loader, str) and not OWN.fullmatch(loader):
        draft.fire("mlflow/loader", f"flavour {name[:40]!r} is loaded by {loader[:120]!r}")
    for key in ("code", "code_path", "model_code_path"):
        if isinstance(flavour.get(key), str) and flavour[key] not in {"", "null", "~"}:
            draft.fire("mlflow/code", f"flavour {name[:40]!r} has {key} {flavour[key][:120]!r}")
    for part in maps_of(flavour):
        for key in sorted(PATH_KEYS & {each for each in part if isinstance(each, str)}):
            if isinstance(part[key], str) and (leaves_folder(part[key]) and part[key] != "~"):
                draft.fire("repository/traversal", f"flavour {name[:40]!r} has {key} {part[key][:120]!r}")


def _judge_environment(draft: Draft, document: dict[str, Any]) -> None:
    """A conda environment (channels and dependencies), or MLflow's own (``python_env.yaml``)."""
    channels = document.get("channels")
    for channel in channels if isinstance(channels, list) else ():
        if isinstance(channel, str) and channel not in CHANNELS:
            draft.fire("mlflow/environment", f"channel {channel[:120]!r}")
    for key in ("dependencies", "build_dependencies"):
        listed = document.get(key)
        for each in listed if isinstance(listed, list) else ():
            lines = each.get("pip") if isinstance(each, dict) else [each]
            for line in lines if isinstance(lines, list) else ():
                if isinstance(line, str):
                    scripts.judge_requirement(draft, line)


__all__ = ["judge"]
