"""Digests of settings: what an attack or a task is made of, as text that is the same in every process.

``repr`` will not do: it shortens arrays, and of most objects it tells an address in memory. What cannot be told by
its content is refused, so that two different things never pass for one.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bartizan.core.digest import Digest, digest_bytes, digest_json
from bartizan.core.errors import InputError

OWN = "settings_digest"
"""Attribute by which an object says itself what it is, such as the digest of the file that it was read from."""
MAX_DEPTH = 20


def settings_digest_of(what: Any, name: str) -> Digest:
    """Digest of anything made of numbers, texts, arrays, functions that have a name, and objects that hold such.

    ``name`` says in an error what was to be digested.

    Raises:
        InputError: a part cannot be told by its content.
    """
    return digest_json(fingerprint(what, name))


def fingerprint(value: Any, name: str) -> Any:
    """The content of a value as plain JSON. See ``settings_digest_of``."""
    return _told(value, name, MAX_DEPTH)


def _told(value: Any, name: str, depth: int) -> Any:
    if depth == 0:
        raise _untold(name, value)
    own = getattr(value, OWN, None)
    if isinstance(own, str) and own:
        return [_called(type(value)), own]
    teller = next((teller for kind, teller in _TELLERS if isinstance(value, kind)), None)
    if teller is not None:
        return teller(value, name, depth - 1)
    if is_dataclass(value) and not isinstance(value, type):
        return _parts(value, {field.name: getattr(value, field.name) for field in fields(value)}, name, depth - 1)
    if isinstance(value, type) or type(value).__basicsize__ != _Bare.__basicsize__:
        return _function(value, name, depth)
    return _parts(value, vars(value), name, depth - 1)


class _Bare:
    """An object that holds nothing but attributes; one of another size has something inside that they do not show."""


def _parts(value: Any, parts: Mapping[str, Any], name: str, depth: int) -> Any:
    return [_called(type(value)), {part: _told(held, f"{name}.{part}", depth) for part, held in parts.items()}]


def _array(value: NDArray[Any], name: str, _depth: int) -> Any:
    if value.dtype.hasobject:
        raise _untold(name, value)
    data = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
    return ["array", value.dtype.str, list(value.shape), hashlib.sha256(data.data).hexdigest()]


def _mapping(value: Mapping[Any, Any], name: str, depth: int) -> Any:
    pairs = [[_told(key, name, depth), _told(held, f"{name}[{key!r}]", depth)] for key, held in value.items()]
    return ["mapping", sorted(pairs, key=digest_json)]


def _function(value: Any, name: str, _depth: int) -> Any:
    """A function or class by its name, when that leads to it from anywhere."""
    called = _called(value) if hasattr(value, "__qualname__") else "<"
    if "<" in called:
        raise _untold(name, value)
    return ["named", called]


def _partial(value: partial[Any], name: str, depth: int) -> Any:
    return ["partial", *(_told(part, name, depth) for part in (value.func, value.args, value.keywords))]


def _method(value: MethodType, name: str, depth: int) -> Any:
    return ["method", value.__name__, _told(value.__self__, name, depth)]


def _plain(value: Any, _name: str, _depth: int) -> Any:
    return value


def _scalar(value: np.generic, name: str, depth: int) -> Any:
    return _array(np.asarray(value), name, depth)


def _number(value: float, _name: str, _depth: int) -> Any:
    return ["number", value.hex()]


def _whole(value: int, _name: str, _depth: int) -> Any:
    return ["whole", str(value)]


def _raw(value: bytes, _name: str, _depth: int) -> Any:
    return ["bytes", digest_bytes(value)]


def _member(value: enum.Enum, _name: str, _depth: int) -> Any:
    return [_called(type(value)), value.name]


def _sequence(value: Any, name: str, depth: int) -> Any:
    return [type(value).__name__, [_told(each, f"{name}[{place}]", depth) for place, each in enumerate(value)]]


def _set(value: Any, name: str, depth: int) -> Any:
    return ["set", sorted((_told(each, name, depth) for each in value), key=digest_json)]


_TELLERS: tuple[tuple[Any, Callable[[Any, str, int], Any]], ...] = (
    (enum.Enum, _member),
    (np.generic, _scalar),
    (bool | str | None, _plain),
    (int, _whole),
    (float, _number),
    (bytes, _raw),
    (np.ndarray, _array),
    (Mapping, _mapping),
    (tuple | list, _sequence),
    (set | frozenset, _set),
    (partial, _partial),
    (MethodType, _method),
    (FunctionType | BuiltinFunctionType, _function),
)
"""Kind to how it is told; the first that fits."""


def _called(kind: Any) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _untold(name: str, value: Any) -> InputError:
    return InputError(
        f"{name} holds a {type(value).__name__}, of which nobody can tell in another process whether it is the same",
        remedy=f"give it, or the attack that holds it, an attribute {OWN}, such as the digest of the file behind it.",
    )
