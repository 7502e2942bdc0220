"""Upstreams of a gateway, made from their settings; the client library is loaded when one is declared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bartizan.core.errors import InputError
from bartizan.lifecycle.deploy.gateway.upstream.port import InferenceUpstream
from bartizan.lifecycle.deploy.gateway.upstream.settings import UpstreamSettings
from bartizan.wiring.workspace import load


def inference(settings: UpstreamSettings, classes: Sequence[str], columns: Sequence[str] = ()) -> InferenceUpstream:
    """A classifier behind a server.

    Raises:
        InputError: the upstream is no classifier, or its settings cannot be used.
    """
    match settings.speaks:
        case "oip":
            made: InferenceUpstream = _load("inference:InferenceUpstream")(settings, classes)
        case "mlflow":
            made = _load("inference:MlflowUpstream")(settings, classes, columns)
        case "chat":
            raise InputError(f"upstream {settings.name!r} speaks chat", remedy="name one that speaks oip or mlflow.")
    return made


def chat(settings: UpstreamSettings, model: str = "") -> Any:
    """A chat model behind a server; ``model`` is how clients call it. Gives an ``upstream.chat.ChatUpstream``.

    Raises:
        InputError: the upstream is no chat model, or its settings cannot be used.
    """
    if settings.speaks != "chat":
        raise InputError(f"upstream {settings.name!r} speaks no chat", remedy="name one with speaks = 'chat'.")
    return _load("chat:ChatUpstream")(settings, model)


def _load(name: str) -> Any:
    try:
        return load(f"bartizan.adapters.upstream.{name}")
    except ImportError as error:
        raise InputError("upstreams need aiohttp", remedy="pip install 'bartizan[serve]'.") from error


__all__ = ["chat", "inference"]
