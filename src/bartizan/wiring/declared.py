"""Reading the declaration with the words of the installed catalogue and checks."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from bartizan.catalogue.load import catalogue
from bartizan.core.errors import InputError
from bartizan.core.ports import Clock, Files
from bartizan.core.system import System
from bartizan.lifecycle.design.declaration import MAX_BYTES, load_system
from bartizan.lifecycle.design.vocabulary import Vocabulary
from bartizan.wiring.registry import installed


def load(path: Path, files: Files, clock: Clock) -> System:
    """The declared system. Raises InputError with every fault of the file."""
    return load_system(path, files, Vocabulary.of(catalogue(), installed()), clock=clock)


def declared_paths(path: Path) -> dict[str, Path]:
    """Where each declared model, dataset and document lies or will lie, by id; empty without a declaration.

    A model that is still to be trained does not exist, so the declaration is not judged here.

    Raises:
        InputError: it is no TOML of at most 5 MB.
    """
    try:
        data = path.read_bytes()
        if len(data) > MAX_BYTES:
            raise InputError(f"{path} has {len(data)} bytes", remedy="a declaration is shorter.")
        document = tomllib.loads(data.decode())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: {error}", remedy="mend it; `bartizan init` shows one.") from error
    return {
        f"{kind}:{part['name']}": path.resolve().parent / part["path"]
        for kind in ("model", "dataset", "document")
        for part in _tables(document.get(kind))
    }


def _tables(listed: Any) -> list[dict[str, str]]:
    """Those tables of an array that name something and where it lies."""
    parts = listed if isinstance(listed, list) else []
    tables = [part for part in parts if isinstance(part, dict)]
    return [part for part in tables if isinstance(part.get("name"), str) and isinstance(part.get("path"), str)]
