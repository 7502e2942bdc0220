"""The table ``[audit]`` of the gateway's configuration."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec

from bartizan.core.durations import DURATION_PATTERN, parse_duration
from bartizan.core.errors import InputError

Span = Annotated[str, msgspec.Meta(pattern=DURATION_PATTERN)]
Content = Literal["none", "flagged", "all"]
LONGEST_WITNESS = 2048
_ANY_DAY = datetime(2024, 1, 1, tzinfo=UTC)


class Keep(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long records of each class keep their bodies. Their hashes stay for ever."""

    answered: Span = "90d"
    refused: Span = "90d"
    flagged: Span = "1y"
    """Cases that a guard had something against: coarsened, held, throttled, or flagged."""
    admin: Span = "5y"
    """Starts, stops, switches, keys, reads of the log and of datasets."""
    digests: Span = "90d"
    """How long equal inputs and outputs can be recognised; then the day's key is destroyed."""
    content: Span = "60d"
    """Sealed inputs, where they are kept at all."""


class AuditSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How requests are recorded. The defaults lose nothing and keep no content."""

    mode: Literal["durable", "written", "fast"] = "durable"
    """What an answer waits for. ``durable``: until its record is on disk. ``written``: until the operating system has
    it, so that the end of the gateway loses nothing and that of the machine what is not on disk yet. ``fast``: nothing.
    """
    linger_ms: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 20
    """In the other modes, how long a record may wait for the disk: what is lost, beside what is being written."""
    queue: Annotated[int, msgspec.Meta(ge=16, le=100_000)] = 10_000
    """Records that may wait; when there are more, nothing is answered."""
    queue_bytes: Annotated[int, msgspec.Meta(ge=8 << 20, le=1 << 30)] = 64 << 20
    """Bytes that may wait."""
    checkpoint_seconds: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 1
    """How often the tree is signed, at least, while there is something new."""
    checkpoint_records: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 4096
    witness: tuple[Annotated[str, msgspec.Meta(max_length=LONGEST_WITNESS)], ...] = ()
    """Where signed checkpoints are shown: paths of files, and http(s) addresses of witnesses (C2SP tlog-witness)."""
    witness_seconds: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 60
    ledger_seconds: Annotated[int, msgspec.Meta(ge=10, le=7 * 86_400)] = 3600
    """How often a checkpoint goes into the ledger as an observation."""
    content: Content = "none"
    """Whose inputs are kept, sealed: nobody's, those of flagged cases, or all."""
    detection_lag: Span = "30d"
    """How late an attack may be noticed. Nothing that is needed to look into it may be gone by then."""
    review_within: Span = "7d"
    """By when a person has to look at a flagged case."""
    keep: Keep = Keep()

    @property
    def waits(self) -> bool:
        """Whether an answer waits for its record."""
        return self.mode != "fast"

    @property
    def durable(self) -> bool:
        """Whether it waits until that is on disk."""
        return self.mode == "durable"


def check(settings: AuditSettings) -> AuditSettings:
    """The settings, when they can be kept to.

    Raises:
        InputError: something is destroyed before an attack would be noticed, or cannot be reviewed in time.
    """
    lag, names = nanoseconds(settings.detection_lag), ["answered", "refused", "flagged", "admin", "digests"]
    if settings.content != "none":
        names.append("content")
    for name in names:
        span = getattr(settings.keep, name)
        if nanoseconds(span) <= lag:
            raise InputError(
                f"[audit.keep] {name} = {span!r} is not longer than detection_lag = {settings.detection_lag!r}",
                remedy="keep it longer than an attack may stay unnoticed, or declare a shorter lag.",
            )
    if nanoseconds(settings.review_within) >= nanoseconds(settings.keep.flagged):
        raise InputError(
            f"[audit] review_within = {settings.review_within!r} is not shorter than [audit.keep] flagged",
            remedy="keep flagged cases until they can have been reviewed.",
        )
    return settings


def nanoseconds(span: str) -> int:
    """Length of a span; months and years as those that follow a first of January."""
    return int(((_ANY_DAY + parse_duration(span)) - _ANY_DAY).total_seconds() * 1e9)


__all__ = ["AuditSettings", "Content", "Keep", "Span", "check", "nanoseconds"]
