"""What a caller is told whose budget is spent: when to come again, and nothing that another caller did.

RFC 6585, section 4 (429), RFC 9110, section 10.2.3 (``Retry-After``), and draft-ietf-httpapi-ratelimit-headers-10
(``RateLimit`` and ``RateLimit-Policy``, as structured fields by RFC 9651).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

from bartizan.lifecycle.deploy.gateway.budget import Denied
from bartizan.lifecycle.deploy.gateway.failures import RequestError

SPENT = "a budget is spent"
TOO_LARGE = "this request asks for more than its budget ever has at once; send fewer rows"
SLOWED = "too many requests; come again later"
LONGEST_WAIT = 366 * 86_400
QUOTA_UNITS = {"requests": "", "bytes": ';qu="content-bytes"'}
"""Quota units that the draft registers; others are named by us."""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What is left of a budget."""

    budget: str
    unit: str
    limit: int
    window: float
    """Seconds."""
    left: int
    resets: float
    """Seconds since the epoch at which more comes free."""


def too_much(denied: Denied, now: float) -> RequestError:
    """The refusal: 429 with the time at which the same request is let by, or 413 when no waiting helps."""
    reason = f"budget {denied.budget}: {denied.limit} {denied.unit} in {denied.window:g} s"
    if math.isinf(denied.resets):
        return RequestError(413, TOO_LARGE, reason=f"{reason} are fewer than this one request asks for")
    wait = waiting(denied.resets - now)
    headers = {
        "retry-after": str(wait),
        "ratelimit": f'"{denied.budget}";r=0;t={wait}',
        "ratelimit-policy": _policy(denied.budget, denied.unit, denied.limit, denied.window),
    }
    return RequestError(429, SPENT, headers=headers, reason=reason)


def slowed(wait: float) -> RequestError:
    """The refusal of a caller who is slowed. It does not say why."""
    return RequestError(
        429, SLOWED, headers={"retry-after": str(waiting(wait))}, reason=f"slowed after flagged requests: {wait:.1f} s"
    )


def headers(standings: Sequence[Standing], now: float) -> Mapping[str, str]:
    """Headers of an answer that was given: what is left of the caller's own budgets."""
    if not standings:
        return {}
    return {
        "ratelimit": ", ".join(
            f'"{each.budget}";r={max(0, each.left)};t={waiting(each.resets - now)}' for each in standings
        ),
        "ratelimit-policy": ", ".join(_policy(each.budget, each.unit, each.limit, each.window) for each in standings),
    }


def waiting(seconds: float) -> int:
    """Whole seconds to wait, never too few."""
    return min(max(1, math.ceil(seconds)), LONGEST_WAIT)


def _policy(name: str, unit: str, limit: int, window: float) -> str:
    return f'"{name}";q={limit}{QUOTA_UNITS.get(unit, f";qu={chr(34)}{unit}{chr(34)}")};w={math.ceil(window)}'


__all__ = ["SLOWED", "SPENT", "TOO_LARGE", "Standing", "headers", "slowed", "too_much", "waiting"]
