"""Processes that do a part of the work: begun with what they need, and with one thread each.

A process that begins from nothing spends seconds on loading libraries. Where the system can, the processes of a pool
are forks of one that loaded them once (``forkserver``), which is a process of its own: nothing of this one's memory,
locks and threads is in them.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import connection, forkserver
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

from bartizan.targets.no_tables import admit_tables

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""The processes already fill the cores. Libraries read these as they are loaded."""
FORKED = "forkserver" in multiprocessing.get_all_start_methods()
FIRST = "bartizan.targets.forked"
SAFE = "PYTHONSAFEPATH"
LIBRARIES = ("numpy", "scipy", "sklearn")
"""Begin no threads as they are loaded, and are loaded for others once this process has needed them."""
also: list[str] = []
"""More modules to load for others: for a process that makes many pools, such as a test run."""

_beginning = threading.Lock()
_proven = False
"""Whether a process was forked once. One that died of what it loaded is found out by that alone."""


def worker_context(needs: Iterable[str] = ()) -> BaseContext:
    """How processes begin here. ``needs`` are modules that all of them import; those of the first call are loaded once.

    No module of a framework belongs there: one cannot know which threads it begins.
    """
    if FORKED:
        with _beginning, _surroundings(), contextlib.suppress(EOFError, OSError):  # no place for its socket, or it died
            return _forking(needs)
    os.environ[SAFE] = "1"  # for good: such processes begin later, one by one
    return multiprocessing.get_context("spawn")


def _forking(needs: Iterable[str]) -> BaseContext:
    global _proven  # noqa: PLW0603 - there is one process to fork from
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload([FIRST, __name__, *_libraries(), *needs, *also])
    forkserver.ensure_running()
    if not _proven:
        first = found.Process(target=_nothing)
        first.start()
        first.join()
        _proven = True
    return found


def worker_pool(
    workers: int, begin: Callable[..., None] | None = None, *arguments: Any, within: BaseContext | None = None
) -> ProcessPoolExecutor:
    """A pool of processes; ``begin(*arguments)`` runs first in each of them.

    Args:
        workers: Processes at most; they begin as there is work for them.
        begin: Importable.
        arguments: What it is given; they are sent to each process.
        within: The context that queues among the arguments were made by.
    """
    made = worker_context([begin.__module__] if begin else []) if within is None else within
    initial = (dict(os.environ), begin, arguments)
    return ProcessPoolExecutor(workers, mp_context=made, initializer=_begin, initargs=initial)


@contextlib.contextmanager
def _surroundings() -> Iterator[None]:
    """What the process that is forked from begins with: one thread, and modules from where this process has them.

    It is begun by ``python -c``, which looks for modules in the current folder first. That may be the folder of
    somebody else's files which is to be scanned.
    """
    path = os.pathsep.join(place for place in sys.path if place and Path(place).is_absolute())
    wanted = {SAFE: "1", "PYTHONPATH": path}
    wanted |= {name: "1" for name in THREADS if name not in os.environ}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _libraries() -> list[str]:
    """What this process has needed itself of them."""

    def wanted(name: str) -> bool:
        first, *rest = name.split(".")
        return first in LIBRARIES and len(rest) < 2 and not any(part.startswith("_") for part in rest)  # noqa: PLR2004

    return [name for name in list(sys.modules) if wanted(name)]


def _nothing() -> None:
    """What the first process does."""


def _begin(environment: dict[str, str], begin: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    """In a process, first: surroundings as where the pool was made, chance of its own, and an end with the parent's."""
    os.environ.clear()
    os.environ.update(environment)
    for name in THREADS:
        os.environ.setdefault(name, "1")
    admit_tables()
    random.seed()
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()  # one that was loaded before a fork has the same state in each
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if begin is not None:
        begin(*arguments)


def _end_with_parent() -> None:
    """A parent that was killed tells nobody, and its workers would go on with what nobody waits for."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


__all__ = ["also", "worker_context", "worker_pool"]
