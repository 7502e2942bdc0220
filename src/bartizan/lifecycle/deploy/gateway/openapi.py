"""The OpenAPI document of the data plane (https://spec.openapis.org/oas/v3.1.0), made from the table of routes."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from typing import Any

from bartizan.lifecycle.deploy.gateway.protocol import DATATYPES, INPUT, MAX_ROWS, Description
from bartizan.lifecycle.deploy.gateway.routes import OPEN, ROUTES, Route

_PART = re.compile(r"\{(\w+)\}")
_FAILURES = {
    "400": "The request cannot be read, or is not what the model takes.",
    "401": "Nothing was shown of who asks, or it does not count.",
    "403": "This is not granted.",
    "404": "There is no such thing.",
    "408": "The request was not here in time.",
    "413": "The request is too large.",
    "415": "The request is of another kind.",
    "422": "The request is not answered.",
    "429": "Too much, or too often; retry-after says when.",
    "503": "Not now.",
}
_ERROR = {"$ref": "#/components/schemas/Error"}


def document(models: Sequence[Description], granted: Collection[str]) -> dict[str, Any]:
    """The interface for whoever is granted these operations on these models."""
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        if route.operation == OPEN or any(fnmatchcase(route.operation, one) for one in granted):
            paths.setdefault(route.pattern, {})[route.method.lower()] = _operation(route, models)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Bartizan gateway", "version": "2"},
        "paths": paths,
        "components": {"schemas": _schemas(models), "securitySchemes": _SECURITY},
    }


_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}


def _operation(route: Route, models: Sequence[Description]) -> dict[str, Any]:
    said: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{route.method.lower()}{route.pattern}").strip("_"),
        "summary": route.summary,
        "parameters": [_parameter(name, models) for name in _PART.findall(route.pattern)],
        "responses": {"200": _answer(route), **{code: _failure(why) for code, why in _FAILURES.items()}},
    }
    if route.handler in {"infer", "predict"}:
        said["responses"]["202"] = {"description": "A person has to look first."}
    if route.handler in {"ready", "model_ready"}:
        said["responses"]["503"] = _answer(route)
    if route.method == "POST":
        schema = {"infer": "Inference", "explain": "Inference", "predict": "Rows", "chat": "Chat"}[route.handler]
        said["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}},
        }
    if route.operation != OPEN:
        said["security"] = [{"bearer": []}, {"key": []}]
    return said


def _parameter(name: str, models: Sequence[Description]) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string", "minLength": 1}
    if name == "model" and models:
        schema["enum"] = [model.name for model in models]
    if name == "version" and models:
        schema["enum"] = [model.digest for model in models]
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _answer(route: Route) -> dict[str, Any]:
    kind = {"/notice": "text/html", "/notice.md": "text/markdown"}.get(route.pattern, "application/json")
    schema = {"type": "object"} if kind == "application/json" else {"type": "string"}
    return {"description": route.summary, "content": {kind: {"schema": schema}}}


def _failure(why: str) -> dict[str, Any]:
    return {"description": why, "content": {"application/json": {"schema": _ERROR}}}


def _schemas(models: Sequence[Description]) -> dict[str, Any]:
    widths = sorted({model.features for model in models})
    return {
        "Error": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}},
        "Inference": {
            "type": "object",
            "required": ["inputs"],
            "additionalProperties": False,
            "properties": {
                "id": {"type": "string", "maxLength": 128},
                "inputs": {"type": "array", "minItems": 1, "maxItems": 1, "items": _tensor(widths)},
                "outputs": {"type": "array", "maxItems": 16, "items": {"$ref": "#/components/schemas/Wanted"}},
                "parameters": {"type": "object"},
            },
        },
        "Wanted": {
            "type": "object",
            "required": ["name"],
            "additionalProperties": False,
            "properties": {"name": {"type": "string"}, "parameters": {"type": "object"}},
        },
        "Rows": {
            "type": "object",
            "required": ["rows"],
            "additionalProperties": False,
            "properties": {
                "id": {"type": "string"},
                "rows": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": MAX_ROWS,
                    "items": {
                        "anyOf": [
                            {"type": "object", "additionalProperties": {"type": "number"}},
                            {"type": "array", "items": {"type": "number"}},
                        ]
                    },
                },
            },
        },
        "Chat": {"type": "object", "required": ["model", "messages"]},
    }


def _tensor(widths: list[int]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["name", "shape", "datatype", "data"],
        "additionalProperties": False,
        "properties": {
            "name": {"const": INPUT},
            "shape": {
                "type": "array",
                "minItems": 2,
                "maxItems": 2,
                "prefixItems": [{"type": "integer", "minimum": 1, "maximum": MAX_ROWS}, {"enum": widths}],
            },
            "datatype": {"enum": list(DATATYPES)},
            "data": {"type": "array"},
            "parameters": {"type": "object"},
        },
    }


__all__ = ["document"]
