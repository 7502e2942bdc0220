"""What the declared configuration of the gateway says of a guard, for the checks that fit and evaluate it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import msgspec

from bartizan.core.digest import Digest, digest_bytes
from bartizan.core.errors import ArtefactError, BartizanError
from bartizan.core.system import Artefact, System
from bartizan.lifecycle.deploy.gateway.configuration import DOCUMENT, MAX_BYTES, GuardUse, read

S = TypeVar("S", bound=msgspec.Struct)


def settings_of(system: System, model: str, guard: str, kind: type[S]) -> S:
    """Settings of the guard for a model; the defaults when the configuration does not use it, or there is none.

    Raises:
        ArtefactError: the configuration cannot be read, or says what the guard does not know.
        InputError: the configuration is none.
    """
    used = next((use for use in _guards(system) if use.use == guard and model in (use.models or (model,))), None)
    if used is None:
        return kind()
    try:
        return msgspec.convert(used.settings, kind)
    except msgspec.ValidationError as error:
        raise ArtefactError(
            f"gateway.toml, guard {guard}: {error}", remedy=f"its settings are: {', '.join(kind.__struct_fields__)}."
        ) from error


def uses(system: System, guard: str) -> bool:
    """Whether the configuration uses a guard; one that cannot be read uses none, and is refused where it is served."""
    try:
        return any(use.use == guard for use in _guards(system))
    except BartizanError:
        return False


def inputs_of(system: System) -> dict[str, Digest]:
    """The whole configuration, as something that results rest on; see ``said_of`` for a guard's part of it."""
    return {document.id: document.digest for document in documents(system)}


def said_of(system: System, model: str, guard: str, kind: type[S]) -> Any:
    """The same settings as plain values, for a digest of what results rest on.

    Other parts of the configuration do not count. Where the settings cannot be read, it is the document as it is.
    """
    try:
        return msgspec.to_builtins(settings_of(system, model, guard, kind))
    except BartizanError:
        return [document.digest for document in documents(system)]


def documents(system: System) -> tuple[Artefact, ...]:
    """The declared configuration of the gateway; none, when nothing of that name is declared as one."""
    kinds = {part.name: part.kind for part in system.declaration.document}
    return tuple(
        artefact
        for artefact in system.of_kind("document")
        if artefact.name == DOCUMENT and kinds.get(DOCUMENT) == "configuration"
    )


def _guards(system: System) -> tuple[GuardUse, ...]:
    return tuple(use for document in documents(system) for use in read(_bytes(document), system).guard)


def _bytes(document: Artefact) -> bytes:
    try:
        with Path(document.path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ArtefactError(f"the configuration of the gateway cannot be read: {error.strerror or error}") from error
    if digest_bytes(data) != document.digest:
        raise ArtefactError(
            "the configuration of the gateway has changed since it was digested", remedy="run the command again."
        )
    return data


__all__ = ["documents", "inputs_of", "said_of", "settings_of", "uses"]
