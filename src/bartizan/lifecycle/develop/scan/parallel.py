"""Scans the files of a large folder in several processes."""

from __future__ import annotations

from pathlib import Path

from bartizan.lifecycle.develop.scan.limits import Limits
from bartizan.lifecycle.develop.scan.scanner import Job, Progress, Scan
from bartizan.lifecycle.develop.scan.verdict import Report
from bartizan.targets.workers import worker_pool

SHARES = 8
"""Parts into which the work is cut for each process, so that none waits long for the others."""


def scan_in_parallel(jobs: list[Job], limits: Limits, processes: int, progress: Progress) -> dict[str, Report]:
    """Scan files in several processes; the order and content of the result are those of one process."""
    shares: list[list[Job]] = [[] for _ in range(min(len(jobs), SHARES * processes))]
    for number, job in enumerate(sorted(jobs, key=lambda each: (-each.size, each.name))):
        shares[number % len(shares)].append(job)
    total = sum(job.size for job in jobs)
    reports: dict[str, Report] = {}
    done = 0
    with worker_pool(processes) as pool:
        for share, made in zip(shares, pool.map(_scan_share, shares, [limits] * len(shares)), strict=True):
            reports |= {job.name: report for job, report in zip(share, made, strict=True)}
            done += sum(job.size for job in share)
            progress(done, total, share[-1].name)
    return {job.name: reports[job.name] for job in jobs}


def _scan_share(share: list[Job], limits: Limits) -> list[Report]:
    """Work of one process: each file has the limits to itself."""
    return [Scan(limits).file(Path(job.path), job.name, job.where) for job in share]
