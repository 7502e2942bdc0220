"""Single cases out of red-team reports: worst samples, classes and segments, images before and after.

Like every reader of reports, what is not there or cannot be read is left out, never guessed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeGuard

from bartizan.assurance.model import Pair, PartLine, Pictures, WorstCase

MOST_WORST = 8
MOST_PARTS = 40
MOST_PAIRS = 8
MOST_SIDE = 64
"""Pixels of a side that are shown; of larger images every second, third ... pixel."""
MOST_VALUES = 3 * 1024 * 1024
"""Values of one image that are read."""
LEVELS = 255
LARGEST = 1e300
"""Numbers beyond are none that could be shown; JSON holds whole numbers that no float can."""
COLOURS = (1, 3)
_SHAPE = 3


def worst_cases(report: Mapping[str, Any]) -> tuple[WorstCase, ...]:
    """The samples that were right and fell to the smallest change, fewest queries first where it is the same."""
    found = [case for entry in _entries(report.get("samples")) if (case := _fallen(entry))]
    found.sort(key=lambda case: (case.change, case.queries or 0, case.record))
    return tuple(found[:MOST_WORST])


def _fallen(entry: Mapping[str, Any]) -> WorstCase | None:
    change, record = _number(entry.get("change")), entry.get("record")
    true, answered = _text(entry.get("class")), _text(entry.get("answer_under_attack"))
    right = entry.get("answer") == entry.get("class")
    if not right or entry.get("robust") is not False or change is None or not _whole(record) or not (true and answered):
        return None
    queries = entry.get("queries")
    moved = entry.get("moved_most")
    return WorstCase(
        record=record,
        true=true,
        answered=answered,
        change=change,
        queries=queries if _whole(queries) else None,
        moved=tuple(_moved(moved if isinstance(moved, dict) else {})),
    )


def _moved(moved: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    numbers = [(str(name), number) for name, value in moved.items() if (number := _number(value)) is not None]
    yield from sorted(numbers, key=lambda pair: (-abs(pair[1]), pair[0]))


def parts(found: Any) -> tuple[PartLine, ...]:
    """The rows of a table of classes or segments."""
    return tuple(line for entry in _entries(found) if (line := _part(entry)))[:MOST_PARTS]


def _part(entry: Mapping[str, Any]) -> PartLine | None:
    name, samples, right = _text(entry.get("name")), entry.get("samples"), entry.get("right")
    value, low, high = (_number(entry.get(field)) for field in ("value", "low", "high"))
    if not name or not _whole(samples) or not _whole(right) or value is None or low is None or high is None:
        return None
    return PartLine(name=name, samples=samples, right=right, value=value, low=low, high=high)


def pictures(report: Mapping[str, Any]) -> Pictures | None:
    """Images before and after the attack; None when the report holds none that can be drawn."""
    said = report.get("pictures")
    if not isinstance(said, dict):
        return None
    shape, reach = _shape(said.get("shape")), said.get("value_range", (0.0, 1.0))
    if shape is None or not isinstance(reach, list | tuple) or len(reach) != 2:  # noqa: PLR2004 - two ends
        return None
    low, high = (_number(end) for end in reach)
    if low is None or high is None or low >= high:
        return None
    step = max(1, math.ceil(max(shape[1:]) / MOST_SIDE))
    pairs = [pair for entry in _entries(said.get("items")) if (pair := _pair(entry, shape, step, (low, high)))]
    if not pairs:
        return None
    channels, height, width = shape
    shown = (channels, math.ceil(height / step), math.ceil(width / step))
    return Pictures(shape=shown, thinned=step, pairs=tuple(pairs[:MOST_PAIRS]))


def _pair(entry: Mapping[str, Any], shape: tuple[int, int, int], step: int, reach: tuple[float, float]) -> Pair | None:
    clean, attacked = (_levels(entry.get(field), shape, step, reach) for field in ("clean", "attacked"))
    record = entry.get("sample", entry.get("record"))
    if clean is None or attacked is None or not _whole(record):
        return None
    return Pair(
        record=record,
        label=str(entry.get("label", "")),
        answer_clean=str(entry.get("answer_clean", "")),
        answer_attacked=str(entry.get("answer_attacked", "")),
        change=_number(entry.get("change")),
        clean=clean,
        attacked=attacked,
    )


def _levels(values: Any, shape: tuple[int, int, int], step: int, reach: tuple[float, float]) -> tuple[int, ...] | None:
    """An image as levels from 0 to 255, every ``step``-th pixel; None when it is no such image."""
    flat = list(_flat(values, math.prod(shape)))
    if len(flat) != math.prod(shape) or any(number is None for number in flat):
        return None
    low, high = reach
    channels, height, width = shape
    return tuple(
        round(LEVELS * min(1.0, max(0.0, ((flat[(c * height + y) * width + x] or 0.0) - low) / (high - low))))
        for c in range(channels)
        for y in range(0, height, step)
        for x in range(0, width, step)
    )


def _flat(values: Any, most: int) -> Iterator[float | None]:
    """The numbers of nested lists, one after the other, one more than ``most`` at the very most."""
    waiting: list[Iterator[Any]] = [iter(values)] if isinstance(values, list) else []
    given = 0
    while waiting and given <= most and len(waiting) <= _SHAPE:
        entry = next(waiting[-1], waiting)
        if entry is waiting:
            waiting.pop()
        elif isinstance(entry, list):
            waiting.append(iter(entry))
        else:
            given += 1
            yield _number(entry)


def _shape(shape: Any) -> tuple[int, int, int] | None:
    if not isinstance(shape, list | tuple) or len(shape) != _SHAPE or not all(_whole(side) for side in shape):
        return None
    channels, height, width = (int(side) for side in shape)
    if channels not in COLOURS or min(height, width) < 1 or channels * height * width > MOST_VALUES:
        return None
    return channels, height, width


def _entries(found: Any) -> Sequence[Mapping[str, Any]]:
    entries: Iterable[Any] = found if isinstance(found, list) else ()
    return [entry for entry in entries if isinstance(entry, dict)]


def _number(value: Any) -> float | None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST < value < LARGEST
    return float(value) if number else None


def _whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < LARGEST


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
