"""Processes that do a part of the work: begun with what this one has loaded, and with one thread each.

A process that begins from nothing spends seconds on loading libraries. Where the system can, the processes of a pool
are forks of one that loaded them once (``forkserver``), which is a process of its own: nothing of this one's memory,
locks and threads is in them.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from typing import Any

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""The processes already fill the cores. Libraries read these as they are loaded."""
FORKED = "forkserver" in multiprocessing.get_all_start_methods()
LIBRARIES = ("numpy", "scipy", "sklearn")
"""Begin no threads as they are loaded, and are loaded for others once this process has needed them."""
FRAMEWORKS = "bartizan.adapters"
"""Not loaded for others: of frameworks one cannot know what they begin."""

_beginning = threading.Lock()


def worker_context() -> BaseContext:
    """How processes begin here. The first call decides what the later ones have loaded."""
    if not FORKED:
        return multiprocessing.get_context("spawn")
    found = multiprocessing.get_context("forkserver")
    with _beginning:
        missing = [name for name in THREADS if name not in os.environ]
        os.environ.update(dict.fromkeys(missing, "1"))
        try:
            found.set_forkserver_preload(_loaded())
            forkserver.ensure_running()
        except OSError:  # no place for its socket
            return multiprocessing.get_context("spawn")
        finally:
            for name in missing:
                del os.environ[name]
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
    made = worker_context() if within is None else within
    return ProcessPoolExecutor(
        workers, mp_context=made, initializer=_begin, initargs=(dict(os.environ), begin, arguments)
    )


def _loaded() -> list[str]:
    """What is loaded for others: what this process has needed itself."""

    def wanted(name: str) -> bool:
        first, *rest = name.split(".")
        if first == "bartizan":
            return not name.startswith(FRAMEWORKS)
        return first in LIBRARIES and len(rest) < 2 and not any(part.startswith("_") for part in rest)  # noqa: PLR2004

    return [name for name in list(sys.modules) if wanted(name)]


def _begin(environment: dict[str, str], begin: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    """In a process, first: surroundings as where the pool was made, and chance of its own."""
    os.environ.clear()
    os.environ.update(environment)
    for name in THREADS:
        os.environ.setdefault(name, "1")
    random.seed()
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()  # one that was loaded before a fork has the same state in each
    if begin is not None:
        begin(*arguments)


__all__ = ["worker_context", "worker_pool"]
