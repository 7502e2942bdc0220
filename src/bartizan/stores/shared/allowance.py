"""How much of an allowance is left: rolling windows and token buckets, in whole microseconds and units.

A rolling window is cut into ``SLOTS`` parts. Units are charged to the part in which they are leased, may be spent
until that part ends and no longer, and count until every moment of it lies a whole window back. So no ``window``
seconds, whenever they begin, see more units spent than the allowance has; the price is that units come free up to one
part late. A token bucket is kept as the moment at which it is full again (the virtual scheduling of the generic cell
rate algorithm, ITU-T I.371). ``stores/shared/scripts.py`` says the same in Lua; one test body holds both to it.
"""

from __future__ import annotations

import math

import msgspec

SLOTS = 32
"""Parts of a rolling window."""
LEASE_MICROSECONDS = 10_000_000
"""A lease lasts no longer: after as long a time at most a replica notices that the store is gone."""
SHARE = 8
"""Beyond what is needed, a lease gets at most this part of what is left."""
MILLION = 1_000_000
NEVER = -1
"""In the place of a moment."""


class Kept(msgspec.Struct):
    """What is remembered of one allowance."""

    last: int = 0
    """Latest moment seen, microseconds; time never runs backwards for an allowance."""
    slots: dict[int, int] = {}
    """Units charged to each part of the rolling window, by its number since the epoch."""
    full: float = 0.0
    """Token bucket: moment at which it is full again."""
    each: float = 0.0
    """Token bucket: microseconds in which one unit runs in."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of an allowance."""

    units: int
    least: int
    limit: int
    window: int
    """Microseconds."""
    burst: int = 0
    force: bool = False
    """Take it all, even beyond what is left."""


class Drawn(msgspec.Struct, frozen=True):
    """What was given; moments in microseconds by the clock of the store."""

    granted: int
    until: int
    resets: int
    left: int
    mark: int


def draw(kept: Kept, wanted: Wanted, now: int) -> Drawn:
    """Take units, and remember that they were taken."""
    now = kept.last = max(kept.last, now)
    return _poured(kept, wanted, now) if wanted.burst else _rolled(kept, wanted, now)


def _rolled(kept: Kept, wanted: Wanted, now: int) -> Drawn:
    width = -(-wanted.window // SLOTS)
    slot = now // width
    slots = kept.slots = {number: units for number, units in kept.slots.items() if number >= slot - SLOTS and units}
    left = wanted.limit - sum(slots.values())
    granted = _granted(wanted, left)
    if granted:
        slots[slot] = slots.get(slot, 0) + granted
    if granted or not wanted.units:
        resets = (min(slots) + SLOTS + 1) * width if slots else now
    else:
        resets = _free_again(slots, left, wanted.least) * width
    until = min((slot + 1) * width, now + LEASE_MICROSECONDS)
    return Drawn(granted, until, max(resets, NEVER), left - granted, slot + 1)


def _free_again(slots: dict[int, int], left: int, least: int) -> int:
    """Number of the part at whose beginning enough is left; negative when that never comes to pass."""
    for number in sorted(slots):
        left += slots[number]
        if left >= least:
            return number + SLOTS + 1
    return NEVER


def _poured(kept: Kept, wanted: Wanted, now: int) -> Drawn:
    each = kept.each = wanted.window / wanted.limit
    full = max(kept.full, float(now))
    left = math.floor(wanted.burst - (full - now) / each)
    granted = _granted(wanted, left)
    if granted:
        full = kept.full = full + granted * each
    need = wanted.least if wanted.units and not granted else 1
    moment = math.floor(full - (wanted.burst - need) * each) + 1
    resets = max(moment, now) if need <= wanted.burst else NEVER
    life = min(wanted.window // SLOTS, MILLION)
    return Drawn(granted, now + life, resets, left - granted, 0)


def _granted(wanted: Wanted, left: int) -> int:
    if wanted.force:
        return wanted.units
    if left < wanted.least or left <= 0:
        return 0
    return min(wanted.units, max(wanted.least, left // SHARE))


def give_back(kept: Kept, mark: int, unspent: int) -> None:
    """Return units to where they were taken from; never more than were taken there."""
    if mark:
        kept.slots[mark - 1] = max(0, kept.slots.get(mark - 1, 0) - unspent)
    else:
        kept.full -= unspent * kept.each


__all__ = ["LEASE_MICROSECONDS", "NEVER", "SHARE", "SLOTS", "Drawn", "Kept", "Wanted", "draw", "give_back"]
