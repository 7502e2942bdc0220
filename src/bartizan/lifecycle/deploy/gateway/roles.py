"""Roles: what whoever asks in a role may do, and how much of an answer they are told.

``[role.NAME]`` in the configuration. A role that is not configured does not exist. Three are built in and are
taken over by name or by ``extends``: ``user`` (labels only), ``engineer`` (rounded scores) and ``administrator``, also
called ``maintainer`` (all scores, with a second factor). Whatever is not written is the least.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, UnsetType

from bartizan.core.errors import InputError
from bartizan.core.system import Exposure
from bartizan.targets.detail import BUCKETS, FINEST, Detail, Kind

Factor = Literal["needed", "not needed"]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9._-]*$")]
Operation = Annotated[str, msgspec.Meta(max_length=64, pattern=r"^[a-z]+(\.[a-z]+)*(\.\*)?$")]
Word = Annotated[str, msgspec.Meta(min_length=1, max_length=32)]
Share = Annotated[float, msgspec.Meta(ge=0, lt=1)]
Rate = Annotated[str, msgspec.Meta(pattern=r"^([1-9][0-9]{0,8}/(s|min|h|d))?$")]

SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86_400}
LEAST_BUCKETS, MOST_BUCKETS = 2, 8
MOST_RANKED = 3
"""Classes that ``top-k`` may name where that is the detail that was assessed."""
GRID = 5
"""Milliseconds between the times at which answers leave, unless a role is granted finer ones."""
EXPLAIN = "explain"
TRUSTED = "administrator"
"""Unrounded scores are for this role, and for what extends it."""


class RoleSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One role as it is written; what is left out is taken from the role that it extends. See ``Role``."""

    extends: Name | UnsetType = UNSET
    operations: tuple[Operation, ...] | UnsetType = UNSET
    models: tuple[str, ...] | UnsetType = UNSET
    detail: Kind | UnsetType = UNSET
    k: Annotated[int, msgspec.Meta(ge=2, le=10)] | UnsetType = UNSET
    decimals: Annotated[int, msgspec.Meta(ge=1, le=4)] | UnsetType = UNSET
    buckets: dict[Word, Share] | UnsetType = UNSET
    noise: Annotated[float, msgspec.Meta(ge=0.1, le=100)] | UnsetType = UNSET
    steps: Annotated[int, msgspec.Meta(ge=2, le=20)] | UnsetType = UNSET
    explanations: bool | UnsetType = UNSET
    budgets: tuple[Name, ...] | UnsetType = UNSET
    rate: Rate | UnsetType = UNSET
    priority: Annotated[int, msgspec.Meta(ge=0, le=9)] | UnsetType = UNSET
    factor: Factor | UnsetType = UNSET
    signed_input: bool | UnsetType = UNSET
    pad_milliseconds: Annotated[int, msgspec.Meta(ge=0, le=1000)] | UnsetType = UNSET

    def __post_init__(self) -> None:
        if isinstance(self.buckets, dict):
            bounds = list(self.buckets.values())
            rising = bounds[:1] == [0] and all(one < two for one, two in pairwise(bounds))
            if not rising or not LEAST_BUCKETS <= len(bounds) <= MOST_BUCKETS:
                raise ValueError(f"buckets are {LEAST_BUCKETS} to {MOST_BUCKETS} lower bounds that rise from 0")


class Role(msgspec.Struct, frozen=True, kw_only=True):
    """One role with everything that counts for it."""

    name: str
    operations: tuple[str, ...] = ("infer",)
    """``infer``, ``explain``, ``metadata``, ``chat``, ``admin.key.add``; ``admin.*`` stands for all that begin so."""
    models: tuple[str, ...] = ("*",)
    """Names; ``*`` stands for anything."""
    detail: Kind = "label"
    k: int = 3
    """``top-k``: how many classes are named, the label first and the others in no telling order; never all."""
    decimals: int = 2
    """``confidence``, ``noisy-scores``, ``rounded-scores``."""
    buckets: dict[str, float] = msgspec.field(default_factory=lambda: dict(BUCKETS))
    """``buckets`` and ``summary``: name to the least score."""
    noise: float = 1.0
    """``noisy-scores``: scale of the noise on the log-odds. See ``targets.detail.epsilon``."""
    steps: int = 10
    """``graphic``: heights that a bar can have."""
    explanations: bool = False
    """Whether it is told why the model answered so; it tells more of the model than any score. Grants ``explain``."""
    budgets: tuple[str, ...] = ()
    rate: str = ""
    """Requests of one caller in a time, such as ``30/min``; empty: whatever the budgets leave."""
    priority: int = 0
    """Who is served first when not everybody can be, 9 before 0."""
    factor: Factor = "not needed"
    """Whether the credential has to show a second factor, or a key in hardware."""
    signed_input: bool = False
    """Whether requests have to be signed (RFC 9421)."""
    pad_milliseconds: int = GRID
    """Answers leave at whole multiples of this after their request came, so that their time tells little; 0 grants
    the time as it is."""
    trusted: bool = False
    """Whether it is, or extends, the one role that may see unrounded scores."""

    @property
    def shown(self) -> Detail:
        """The detail as arithmetic."""
        return Detail(self.detail, self.k, self.decimals, tuple(self.buckets.items()), self.noise, self.steps)

    def may(self, operation: str, model: str = "") -> bool:
        """Whether the role is granted an operation, on a model where it concerns one."""
        granted = any(fnmatchcase(operation, each) for each in self.operations)
        return granted and (not model or any(fnmatchcase(model, each) for each in self.models))

    def pace(self) -> tuple[int, int] | None:
        """Requests, and the seconds in which one caller may send them; None: no rate of its own."""
        if not self.rate:
            return None
        count, _, unit = self.rate.partition("/")
        return int(count), SECONDS[unit]

    def wait(self, passed: float) -> float:
        """Seconds to hold an answer back that was ready ``passed`` seconds after its request came."""
        grid = self.pad_milliseconds / 1000
        return -passed % grid if grid else 0.0


BUILT_IN = {
    "user": Role(name="user", operations=("infer", "metadata")),
    "engineer": Role(
        name="engineer", operations=("infer", "metadata"), detail="rounded-scores", priority=3, pad_milliseconds=0
    ),
    "administrator": Role(
        name="administrator",
        operations=("infer", "metadata", "admin.*"),
        detail="scores",
        factor="needed",
        priority=6,
        pad_milliseconds=0,
        trusted=True,
    ),
}
ALSO_CALLED = {"maintainer": "administrator"}
_LEAST = Role(name="")


def resolve(settings: Mapping[str, RoleSettings]) -> dict[str, Role]:
    """Every configured role with what it takes over.

    Raises:
        InputError: a role extends one that is not there, or itself.
    """
    return {name: _settled(_resolved(name, settings, ())) for name in settings}


def _settled(role: Role) -> Role:
    """Explanations are granted by ``explanations`` alone: whoever lists the operation without it is not granted it."""
    others = tuple(each for each in role.operations if each != EXPLAIN)
    return msgspec.structs.replace(role, operations=(*others, EXPLAIN) if role.explanations else others)


def _resolved(name: str, settings: Mapping[str, RoleSettings], below: tuple[str, ...]) -> Role:
    if name in below:
        raise InputError(f"role {name!r} extends itself: {' -> '.join((*below, name))}", remedy="break the circle.")
    written = settings.get(name)
    parent = _parent(name, written, below)
    if parent == name and _built_in(name):
        base = BUILT_IN[ALSO_CALLED.get(name, name)]
    else:
        base = _resolved(parent, settings, (*below, name)) if parent else _LEAST
    own = {field: value for field, value in _written(written) if field != "extends"}
    return msgspec.structs.replace(base, name=name, **own)


def _parent(name: str, written: RoleSettings | None, below: tuple[str, ...]) -> str:
    """What a role extends; itself where that is built in; empty where it stands alone."""
    if written is None:
        if not _built_in(name):
            raise InputError(
                f"role {below[-1]!r} extends {name!r}, which is not configured",
                remedy=f"built in are: {', '.join((*BUILT_IN, *ALSO_CALLED))}.",
            )
        return name
    if isinstance(written.extends, str):
        return written.extends
    return name if _built_in(name) else ""


def _built_in(name: str) -> bool:
    return name in BUILT_IN or name in ALSO_CALLED


def _written(settings: RoleSettings | None) -> Iterator[tuple[str, object]]:
    for field in settings.__struct_fields__ if settings is not None else ():
        value = getattr(settings, field)
        if value is not UNSET:
            yield field, value


# ---- what was assessed


def problems(roles: Mapping[str, Role], exposure: Exposure, budgets: Collection[str] | None = None) -> list[str]:
    """Everything in which roles go beyond what the declaration says is given away, and was attacked.

    Args:
        roles: resolved.
        exposure: of the declaration.
        budgets: names that are configured; None when that is not to be looked at.
    """
    return [fault for role in roles.values() for fault in _faults(role, exposure, budgets)]


def _faults(role: Role, exposure: Exposure, budgets: Collection[str] | None) -> Iterable[str]:
    if not covered(role.shown, exposure.output):
        assessed = f"exposure.output = {exposure.output!r} is what was assessed"
        yield f"role {role.name!r} is told {role.shown.name}, and {assessed}"
    if role.detail == "scores" and not role.trusted:
        yield f"role {role.name!r} is told unrounded scores and does not extend {TRUSTED!r}"
    if role.explanations and role.name not in exposure.explanations:
        yield f"role {role.name!r} is told explanations, and exposure.explanations does not name it"
    for name in role.budgets if budgets is not None else ():
        if name not in (budgets or ()):
            yield f"role {role.name!r} has the budget {name!r}, which is not configured"


def covered(detail: Detail, assessed: str) -> bool:
    """Whether a detail tells nothing that the assessed output would not have told.

    What is made of rounded scores and the label alone tells no more than those, so that it is covered by them; the
    ranking of ``top-k`` is made of unrounded ones.
    """
    match assessed:
        case "scores":
            return True
        case "rounded-scores":
            made_of_rounded = detail.kind not in {"top-k", "scores"}
            rounded = detail.kind in {"rounded-scores", "confidence", "noisy-scores"}
            return made_of_rounded and (not rounded or detail.units <= FINEST)
        case "top-k":
            return detail.kind == "label" or (detail.kind == "top-k" and detail.k <= MOST_RANKED)
        case _:
            return detail.kind == "label"


__all__ = ["BUILT_IN", "Role", "RoleSettings", "covered", "problems", "resolve"]
