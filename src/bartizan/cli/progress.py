"""Progress of a run, on standard error: live bars at a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from bartizan.cli.main import printable
from bartizan.lifecycle.plan import Job
from bartizan.lifecycle.runner import Done, Ending, Failure


class Watch:
    """See ``lifecycle.runner.Listener``."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._console = Console(stderr=True, highlight=False)
        self._live = not quiet and sys.stderr.isatty()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[note]}", markup=False),
            TimeElapsedColumn(),
            console=self._console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._began: dict[str, float] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        if self._live:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._progress.stop()

    def started(self, job: Job) -> None:
        """See ``lifecycle.runner.Listener``."""
        with self._lock:
            self._began[job.key] = time.monotonic()
            if self._live:
                self._tasks[job.key] = self._progress.add_task(printable(job.key), total=None, note="")

    def progress(self, key: str, done: int, total: int, note: str) -> None:
        """See ``lifecycle.runner.Listener``."""
        with self._lock:
            if self._live and key in self._tasks:
                self._progress.update(self._tasks[key], completed=done, total=total or None, note=printable(note)[:60])

    def ended(self, job: Job, ending: Ending) -> None:
        """See ``lifecycle.runner.Listener``."""
        with self._lock:
            if self._live and job.key in self._tasks:
                self._progress.remove_task(self._tasks.pop(job.key))
            if self._quiet:
                return
            now = time.monotonic()
            seconds = now - self._began.get(job.key, now)
            self._console.print(Text(printable(_line(job, ending, seconds))), soft_wrap=True)


def _line(job: Job, ending: Ending, seconds: float) -> str:
    if isinstance(ending, Done):
        summary = getattr(ending.outcome.predicate, "summary", "") or getattr(
            ending.outcome.predicate, "result", "done"
        )
        return f"  {job.key:<48} {seconds:5.1f} s  {summary}"
    what = f"FAILED: {ending.message}" if isinstance(ending, Failure) else f"skipped: {ending.reason}"
    return f"  {job.key:<48} {seconds:5.1f} s  {what}"
