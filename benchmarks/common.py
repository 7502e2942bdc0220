"""What the benchmarks share: repeats, medians, one line for each promise."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def seconds(work: Callable[[], object], repeats: int = 7, clock: Callable[[], float] = time.perf_counter) -> float:
    """Median duration of ``work``."""
    durations = []
    for _ in range(repeats):
        began = clock()
        work()
        durations.append(clock() - began)
    return statistics.median(durations)


def promise(name: str, measured: float, bound: float, unit: str = "x", note: str = "") -> bool:
    """Print one promise beside what was measured; True when it is kept."""
    kept = measured <= bound
    print(f"{'kept  ' if kept else 'BROKEN'}  {name:<58} {measured:10.3f} {unit:<3} (promised {bound:g} {unit}) {note}")
    return kept


def tell(name: str, measured: float, unit: str, note: str = "") -> None:
    """Print a figure without a promise."""
    print(f"        {name:<58} {measured:10.3f} {unit:<3} {note}")
