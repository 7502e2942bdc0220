"""The routes of the data plane, each with the operation that a role must be granted for it. There are no others."""

from __future__ import annotations

from typing import Literal

import msgspec

Open = Literal["open"]
OPEN: Open = "open"
"""In the place of an operation: answered to everybody who can reach the gateway. It tells nothing of any model but its
name, whether it can be asked, and the notice that its users are meant to read."""
MAX_PATH = 512
MAX_PARTS = 8
MOST_SEEN = 1024


class Route(msgspec.Struct, frozen=True):
    """One route."""

    method: Literal["GET", "POST"]
    pattern: str
    """Parts in braces stand for one part of a path each."""
    handler: str
    """Name of what answers it."""
    operation: str
    """What a role must be granted, or ``open``."""
    summary: str = ""
    """For the OpenAPI document."""


ROUTES = (
    Route("GET", "/v2", "server", OPEN, "The server"),
    Route("GET", "/v2/health/live", "live", OPEN, "Whether the server runs"),
    Route("GET", "/v2/health/ready", "ready", OPEN, "Whether every model can be asked"),
    Route("GET", "/v2/models/{model}/ready", "model_ready", OPEN, "Whether a model can be asked"),
    Route("GET", "/v2/models/{model}/versions/{version}/ready", "model_ready", OPEN, "Whether a version can be asked"),
    Route("GET", "/notice", "notice", OPEN, "What users are told, as a page"),
    Route("GET", "/notice.md", "notice", OPEN, "What users are told, as Markdown"),
    Route("GET", "/notice.json", "notice", OPEN, "What users are told, as JSON"),
    Route("GET", "/openapi.json", "openapi", "metadata", "This interface"),
    Route("GET", "/v2/models/{model}", "metadata", "metadata", "What a model takes and gives"),
    Route("GET", "/v2/models/{model}/versions/{version}", "metadata", "metadata", "What a version takes and gives"),
    Route("POST", "/v2/models/{model}/infer", "infer", "infer", "Ask a model"),
    Route("POST", "/v2/models/{model}/versions/{version}/infer", "infer", "infer", "Ask a version of a model"),
    Route("POST", "/v2/models/{model}/explain", "explain", "explain", "Why a model answers so"),
    Route("POST", "/v2/models/{model}/versions/{version}/explain", "explain", "explain", "Why a version answers so"),
    Route("POST", "/predict", "predict", "infer", "Ask the only model, by names of columns"),
    Route("POST", "/predict/{model}", "predict", "infer", "Ask a model, by names of columns"),
    Route("GET", "/v2/holds/{case}", "held", "infer", "What became of a case that waits for a person"),
    Route("POST", "/v1/chat/completions", "chat", "chat", "Chat with an upstream"),
    Route("GET", "/v1/models", "chats", "chat", "Upstreams that can be chatted with"),
)


class Table:
    """Finds the route of a path, part by part."""

    def __init__(self, routes: tuple[Route, ...] = ROUTES) -> None:
        self._tree: dict[str, object] = {}
        self._seen: dict[tuple[str, str], tuple[Route, tuple[str, ...]]] = {}
        """Paths that were found lately; bounded, since anybody may ask for anything."""
        for route in routes:
            self._add(route)

    def find(self, method: str, path: str) -> tuple[Route, tuple[str, ...]] | set[str]:
        """The route and what its braces stand for; or the methods that the path has, none when it is not there."""
        found = self._seen.get((method, path))
        if found is not None:
            return found
        if len(path) > MAX_PATH:
            return set()
        parts = path.strip("/").split("/", MAX_PARTS)
        if len(parts) > MAX_PARTS:
            return set()
        leaf, values = _walk(self._tree, parts)
        if method not in leaf:
            return set(leaf)
        if len(self._seen) >= MOST_SEEN:
            self._seen.clear()
        found = self._seen[method, path] = leaf[method], values
        return found

    def _add(self, route: Route) -> None:
        node: dict[str, object] = self._tree
        for part in route.pattern.strip("/").split("/"):
            node = node.setdefault("{}" if part.startswith("{") else part, {})  # type: ignore[assignment]
        leaf: dict[str, Route] = node.setdefault("", {})  # type: ignore[assignment]
        leaf[route.method] = route


def _walk(tree: dict[str, object], parts: list[str]) -> tuple[dict[str, Route], tuple[str, ...]]:
    node: dict[str, object] = tree
    values: list[str] = []
    for part in parts:
        if not part:
            return {}, ()
        if part in node:
            node = node[part]  # type: ignore[assignment]
        elif "{}" in node:
            node = node["{}"]  # type: ignore[assignment]
            values.append(part)
        else:
            return {}, ()
    leaf: dict[str, Route] = node.get("", {})  # type: ignore[assignment]
    return leaf, tuple(values)


__all__ = ["OPEN", "ROUTES", "Route", "Table"]
