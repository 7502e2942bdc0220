"""``[budget.NAME]``: what is counted, for whom, in which time, and how much of it there is."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Annotated, Literal

import msgspec

from bartizan.lifecycle.deploy.gateway.caller import Caller

Unit = Literal["requests", "rows", "labels", "bits", "bytes", "tokens", "microseconds"]
Span = Annotated[str, msgspec.Meta(pattern=r"^[1-9][0-9]{0,7}(s|min|h|d)$")]
Units = Annotated[int, msgspec.Meta(ge=1, le=10**12)]

AFTERWARDS: tuple[Unit, ...] = ("microseconds", "tokens")
"""Units of which a request's share turns out only when it was answered."""
SCOPE = re.compile(r"caller|group|model|role|everyone|attribute:[a-z0-9][a-z0-9_.-]{0,63}")
SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86_400}
MOST_SCOPES = 4
LONGEST = 366 * 86_400
"""Seconds of the longest window."""
PLAIN = re.compile(r"[A-Za-z0-9._:@+=/-]{1,80}")
"""Subjects that are written as they are; others by a digest."""
NOBODY = "-"
"""In the place of a group or attribute that a caller does not have: all who lack it share one budget."""


class BudgetSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One budget."""

    limit: Units
    """Units in any ``window``, whenever it begins; with ``burst``, what runs into the bucket in that time."""
    window: Span
    """``30s``, ``1min``, ``12h``, ``365d``."""
    unit: Unit = "requests"
    """What is counted: ``labels`` and ``bits`` are what is disclosed, ``microseconds`` the model's processor time."""
    # NOTE: msgspec 0.22 frees a pattern within a union twice, so that these are looked at below.
    per: str | tuple[str, ...] = "caller"
    """Who shares one count. Several together count for each combination: ``["caller", "model"]``. An attribute, such as
    ``attribute:organisation``, holds together many accounts of one owner."""
    burst: Annotated[int, msgspec.Meta(ge=0, le=10**12)] = 0
    """Size of a token bucket; 0: a rolling window without one."""
    models: Annotated[tuple[str, ...], msgspec.Meta(max_length=64)] = ("*",)
    """Names of the models that it is about; ``*`` stands for anything."""
    always: bool = False
    """Counts for every request to its models, whether the role of who asks names it or not."""
    when_unreachable: Literal["refuse", "lease"] = "refuse"
    """What becomes of requests while the shared state is out of reach: nothing is let by, or what was leased before."""

    def __post_init__(self) -> None:
        if seconds(self.window) > LONGEST:
            raise ValueError(f"a window of {self.window}; it is 366d at most")
        if not 1 <= len(self.scopes) <= MOST_SCOPES or not all(SCOPE.fullmatch(each) for each in self.scopes):
            raise ValueError("per is caller, group, model, role, everyone or attribute:NAME, or a list of these")

    @property
    def seconds(self) -> float:
        """Of the window."""
        return seconds(self.window)

    @property
    def scopes(self) -> tuple[str, ...]:
        """Who shares one count, one by one."""
        return (self.per,) if isinstance(self.per, str) else self.per

    @property
    def largest(self) -> int:
        """Units that are ever there at once."""
        return self.burst or self.limit

    @property
    def personal(self) -> bool:
        """Whether what is left of it tells a caller about nobody else."""
        return "caller" in self.scopes

    def covers(self, model: str) -> bool:
        """Whether it is about a model."""
        return any(fnmatchcase(model, each) for each in self.models)

    def subjects(self, caller: Caller, model: str) -> Iterator[str]:
        """Whose counts a request of this caller draws on: one, or one for each group."""
        groups = (caller.groups or (NOBODY,)) if "group" in self.scopes else ("",)
        for group in dict.fromkeys(groups):
            yield "|".join(_part(scope, caller, model, group) for scope in self.scopes)


def _part(scope: str, caller: Caller, model: str, group: str) -> str:
    match scope:
        case "caller":
            return plain(caller.id)
        case "group":
            return plain(group)
        case "model":
            return plain(model)
        case "role":
            return plain(caller.role)
        case "everyone":
            return "everyone"
        case _:
            return plain(caller.attributes.get(scope.removeprefix("attribute:"), NOBODY))


def plain(subject: str) -> str:
    """A subject as part of a key: as it is when it is short and simple, else its digest."""
    if PLAIN.fullmatch(subject):
        return subject
    return f"sha256:{hashlib.sha256(subject.encode(errors='surrogatepass')).hexdigest()[:32]}"


def seconds(span: str) -> float:
    """Seconds of ``30s``, ``1min``, ``12h``, ``365d``."""
    number = span.rstrip("smindh")
    return float(int(number) * SECONDS[span[len(number) :]])


def key_of(name: str, settings: BudgetSettings, subject: str) -> str:
    """Under which the shared state counts. Another window, or a bucket for a window, is another count."""
    kind = f"bucket{settings.burst}" if settings.burst else "window"
    return f"{prefix_of(name)}{kind}:{math.ceil(settings.seconds)}:{subject}"


def prefix_of(name: str) -> str:
    """How all keys of a budget begin."""
    return f"budget:{name}:"


__all__ = ["AFTERWARDS", "BudgetSettings", "key_of", "plain", "prefix_of", "seconds"]
