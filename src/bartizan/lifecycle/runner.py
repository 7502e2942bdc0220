"""Runs jobs in a pool of processes, each after those it waits for, and hands every result on at once.

A result is kept as soon as it is there, so a run that is killed resumes where it was: what was
recorded is not done again.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from queue import Empty
from typing import Any, Protocol, TypeVar

import msgspec

from bartizan.core.check import Outcome
from bartizan.core.digest import Digest
from bartizan.core.errors import BartizanError
from bartizan.core.system import System
from bartizan.lifecycle.plan import Job
from bartizan.targets.workers import worker_context, worker_pool

T = TypeVar("T")
POLL_SECONDS = 0.1


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A job that could not do its work."""

    message: str
    remedy: str = ""


class Skipped(msgspec.Struct, frozen=True, kw_only=True):
    """A job that was not started, and why."""

    reason: str


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """A job whose result was recorded."""

    envelope: Digest
    outcome: Outcome


Ending = Done | Failure | Skipped


class Listener(Protocol):
    """Who is told how the work goes."""

    def started(self, job: Job) -> None:
        """The job runs now."""

    def progress(self, key: str, done: int, total: int, note: str) -> None:
        """The job got this far."""

    def ended(self, job: Job, ending: Ending) -> None:
        """The job is over."""


Services = Callable[[type[Any]], Any]
"""Gives the object behind a port; made in each worker process."""


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done, and with what."""

    system: System
    jobs: tuple[Job, ...]
    """In an order in which each comes after those it waits for."""
    settled: Mapping[str, bool]
    """Job key to whether it stands well, for those that the ledger already answers."""
    services: Callable[..., Services]
    """Importable factory, called in each worker with the digests of models that were scanned clean."""
    reports: Callable[[str], bytes | None]
    """Full report of a settled job, by key."""
    clean: Callable[[], frozenset[Digest]]
    """Digests that have a clean scan now."""


def run(
    work: Work,
    *,
    record: Callable[[Job, Outcome], Digest],
    stands_well: Callable[[Outcome], bool],
    listener: Listener,
    workers: int,
) -> dict[str, Ending]:
    """Run all jobs. Returns how each ended, by key; nothing that fails stops the others."""
    endings: dict[str, Ending] = {}
    well = dict(work.settled)
    waiting = list(work.jobs)
    if not waiting:
        return endings
    context = worker_context(_needs(work))
    queue = context.Queue()
    running: dict[Future[Outcome | Failure], Job] = {}
    stop = threading.Event()
    relay = threading.Thread(target=_relay, args=(queue, listener, stop), daemon=True)
    relay.start()
    pool = worker_pool(min(workers, len(waiting)), _prepare, queue, within=context)
    try:
        while waiting or running:
            for job in _startable(waiting, running.values()):
                waiting.remove(job)
                if reason := _blocked(job, well):
                    _end(job, Skipped(reason=reason), endings, well, listener)
                    continue
                listener.started(job)
                running[_submit(pool, work, job)] = job
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                job = running.pop(future)
                ending = _collect(future, job, record)
                well[job.key] = isinstance(ending, Done) and stands_well(ending.outcome)
                _end(job, ending, endings, well, listener)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        stop.set()
        relay.join()
        queue.close()
    return endings


def _needs(work: Work) -> list[str]:
    """Modules of ours that workers import before they begin with a job; plug-ins may bring frameworks."""
    services = getattr(work.services, "func", work.services)
    modules = [__name__, services.__module__, *(type(job.check).__module__ for job in work.jobs)]
    return [name for name in dict.fromkeys(modules) if name.startswith("bartizan.")]


def _startable(waiting: Iterable[Job], running: Iterable[Job]) -> list[Job]:
    """Jobs none of whose predecessors is still to come, on their subject or on anything else that they rest on.

    A check that opens a second model, such as the parent of its subject, needs that one scanned too.
    """
    waiting = list(waiting)
    pending = {(job.check.name, job.subject.id) for job in [*waiting, *running]}

    def held(job: Job) -> bool:
        rests_on = (job.subject.id, *job.inputs)
        return any((name, about) in pending for name in job.check.after for about in rests_on)

    return [job for job in waiting if not held(job)]


def _blocked(job: Job, well: Mapping[str, bool]) -> str:
    """Why a job must not start: something it waits for did not end well."""
    for name in job.check.after:
        if well.get(f"{name} {job.subject.id}") is not True:
            return f"{name} did not pass for {job.subject.id}"
    return ""


def _submit(pool: ProcessPoolExecutor, work: Work, job: Job) -> Future[Outcome | Failure]:
    reports = {
        name: report for name in job.check.after if (report := work.reports(f"{name} {job.subject.id}")) is not None
    }
    return pool.submit(execute, work.system, job, reports, work.services, work.clean())


def _collect(future: Future[Outcome | Failure], job: Job, record: Callable[[Job, Outcome], Digest]) -> Ending:
    try:
        outcome = future.result()
        if isinstance(outcome, Failure):
            return outcome
        return Done(envelope=record(job, outcome), outcome=outcome)
    except BrokenProcessPool:
        return Failure(message="the worker process died", remedy="look for a memory limit; run the command again.")
    except BartizanError as error:
        return Failure(message=error.message, remedy=error.remedy)
    except Exception as error:  # noqa: BLE001 - such as a result that cannot be sent between processes
        return Failure(message=f"{type(error).__name__}: {error}", remedy="this is a mistake in the check; report it.")


def _end(job: Job, ending: Ending, endings: dict[str, Ending], well: dict[str, bool], listener: Listener) -> None:
    endings[job.key] = ending
    well.setdefault(job.key, False)
    listener.ended(job, ending)


def _relay(queue: Any, listener: Listener, stop: threading.Event) -> None:
    """Pass on what workers tell, until stopped."""
    while not stop.is_set():
        try:
            listener.progress(*queue.get(timeout=POLL_SECONDS))
        except (Empty, EOFError, OSError):
            continue


# ---- in the worker process

_queue: Any = None


def _prepare(queue: Any) -> None:
    """Runs once in each worker."""
    global _queue  # noqa: PLW0603 - a worker has one way to its parent
    _queue = queue


class WorkerContext:
    """See ``core.check.Context``."""

    def __init__(self, job: Job, reports: Mapping[str, bytes], services: Services) -> None:
        self._key = job.key
        self._reports = {(name, job.subject.id): report for name, report in reports.items()}
        self._services = services

    def progress(self, done: int, total: int, note: str = "") -> None:
        """See ``core.check.Context``."""
        if _queue is not None:
            _queue.put((self._key, done, total, note))

    def service(self, port: type[T]) -> T:
        """See ``core.check.Context``."""
        found: T = self._services(port)
        return found

    def report_of(self, check: str, artefact_id: str) -> bytes:
        """See ``core.check.Context``."""
        return self._reports[check, artefact_id]


def execute(
    system: System,
    job: Job,
    reports: Mapping[str, bytes],
    services: Callable[..., Services],
    clean: frozenset[Digest],
) -> Outcome | Failure:
    """Run one job. Whatever goes wrong comes back as a Failure that says what."""
    try:
        return job.check.run(system, job.subject, WorkerContext(job, reports, services(clean)))
    except BartizanError as error:
        return Failure(message=error.message, remedy=error.remedy)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a plug-in's mistake must not take the run down
        place = traceback.extract_tb(error.__traceback__)[-1]
        return Failure(
            message=f"{job.check.name} broke: {type(error).__name__}: {error} ({place.name}, line {place.lineno})",
            remedy="this is a mistake in the check; report it with this line.",
        )
