"""``[model.NAME]`` of the gateway's configuration: how one declared model is served."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from bartizan.core.errors import InputError

NO_ANSWER = "none"
RULE, MODEL = "rule:", "model:"


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[model.NAME]``: how one declared model is served."""

    hosting: Literal["auto", "process", "inline"] = "auto"
    """Where it runs: ``process`` confines it in a process of its own; ``inline`` is for ONNX files, which are no code;
    ``auto`` takes ``inline`` where it can."""
    upstream: Annotated[str, msgspec.Meta(max_length=128)] = ""
    """Name of the ``[[upstream]]`` that runs it; empty: it runs here."""
    fallback: Annotated[str, msgspec.Meta(max_length=128, pattern=r"^(none|(rule|model):.+)$")] = NO_ANSWER
    """What answers while it is withdrawn, revoked, altered or failing: ``rule:LABEL`` always answers that class,
    ``model:NAME`` is another declared model with the same classes, ``none`` is no answer."""
    version: Annotated[str, msgspec.Meta(max_length=32, pattern=r"^([0-9A-Za-z][0-9A-Za-z._-]*)?$")] = ""
    """What clients may call it beside its digest."""
    serve_as: Annotated[str, msgspec.Meta(max_length=64)] = ""
    """Name under which it is one version among others; empty: its own."""


def check(name: str, settings: ModelSettings, classes: Mapping[str, tuple[str, ...]]) -> None:
    """See that a fallback can answer in the place of a model.

    Raises:
        InputError: it cannot.
    """
    fallback, ours = settings.fallback, classes[name]
    if fallback.startswith(RULE) and fallback.removeprefix(RULE) not in ours:
        raise InputError(f"model.{name}.fallback: {fallback!r} is none of the classes", remedy=f"one of {list(ours)}.")
    if fallback.startswith(MODEL):
        other = fallback.removeprefix(MODEL)
        if other == name or classes.get(other) != ours:
            raise InputError(
                f"model.{name}.fallback: {fallback!r} is no other declared model with the same classes",
                remedy="declare it with the same classes in the same order.",
            )


__all__ = ["MODEL", "NO_ANSWER", "RULE", "ModelSettings", "check"]
