"""Digest of a large file and of folders, beside bare SHA-256 over the same bytes with the same number of threads.

python benchmarks/digest.py [--repeats 9] [--threads 1 2]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from bartizan.stores.digest_cache import SETTLED_NS, DigestCache
from bartizan.stores.files import BUFFER_BYTES, LocalFiles
from common import promise, tell

PROMISE = 1.15
"""Wall time of a digest over that of bare SHA-256."""
AGAIN = 0.5
"""Wall time of a second run over unchanged files over that of the first."""
SHAPES = {"1 file of 512 MiB": (1, 512 << 20), "8 files of 64 MiB": (8, 64 << 20), "200 files of 2 MiB": (200, 2 << 20)}
SMALL = {"2000 files of 64 KiB": (2000, 64 << 10), "2000 files of 4 KiB": (2000, 4 << 10)}


def main() -> int:
    """Run everything; exit code 1 when a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, os.cpu_count() or 1}))
    options = parser.parse_args()
    kept = True
    for name, (count, size) in (SHAPES | SMALL).items():
        with tempfile.TemporaryDirectory() as folder:
            paths = fill(Path(folder), count, size)
            target = Path(paths[0]) if count == 1 else Path(folder)
            for threads in options.threads if count > 1 else [1]:
                ratio, note = compare(paths, target, threads, options.repeats)
                if name in SHAPES:
                    kept &= promise(f"{name}, {threads} threads", ratio, PROMISE, "x", note)
                else:
                    tell(f"{name}, {threads} threads", ratio, "x", f"{note} (mostly system calls, no promise)")
    kept &= unchanged(options.repeats)
    return 0 if kept else 1


def unchanged(repeats: int) -> bool:
    """A second run over a folder of 2000 files of which none changed, beside the first."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as beside:
        fill(Path(folder), 2000, 256 << 10)
        time.sleep(SETTLED_NS / 1e9 + 0.1)
        path = Path(beside) / "digests"
        LocalFiles().digest(Path(folder))
        first = min(timed(partial(remembered, Path(folder), Path(beside) / f"new{turn}")) for turn in range(repeats))
        remembered(Path(folder), path)
        second = min(timed(partial(remembered, Path(folder), path)) for _ in range(repeats))
    note = f"first {first * 1e3:.0f} ms, second {second * 1e3:.0f} ms"
    return promise("second run, 2000 unchanged files of 256 KiB", second / first, AGAIN, "x", note)


def remembered(folder: Path, cache: Path) -> None:
    """Digest a folder with a cache that is read before and written after, as a command does."""
    known = DigestCache(cache)
    LocalFiles(known=known).digest(folder)
    known.save()


def timed(work: Callable[[], object]) -> float:
    """Seconds that ``work`` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def compare(paths: list[str], target: Path, threads: int, repeats: int) -> tuple[float, str]:
    """Wall time over the floor's, and what was measured.

    All take turns, and each one's best counts: on a busy machine noise only ever adds.
    """
    contestants: dict[str, Callable[[], object]] = {
        "bare": partial(bare, paths, threads),
        "file_digest": partial(standard, paths, threads),
        "ours": partial(LocalFiles(threads).digest, target),
    }
    best = dict.fromkeys(contestants, float("inf"))
    for _ in range(repeats):
        for who, work in contestants.items():
            began = time.perf_counter()
            work()
            best[who] = min(best[who], time.perf_counter() - began)
    note = f"bare {best['bare'] * 1e3:.0f} ms, file_digest {best['file_digest'] * 1e3:.0f} ms"
    return best["ours"] / best["bare"], note


def fill(folder: Path, count: int, size: int) -> list[str]:
    """Random files; reading them once more puts all of them into the page cache."""
    for number in range(count):
        (folder / f"{number:05}").write_bytes(os.urandom(size))
    return sorted(str(path) for path in folder.iterdir())


def bare(paths: list[str], threads: int) -> list[str]:
    """The floor: open, read into one buffer, SHA-256, close; nothing is checked, nothing is listed."""
    return spread(partial(map_all, bare_one), paths, threads)


def standard(paths: list[str], threads: int) -> list[str]:
    """What Python's own function does."""
    return spread(partial(map_all, standard_one), paths, threads)


def spread(work: Callable[[list[str]], list[str]], paths: list[str], threads: int) -> list[str]:
    """Every thread gets every n-th file."""
    if threads == 1:
        return work(paths)
    with ThreadPoolExecutor(threads) as pool:
        return [
            digest for part in pool.map(work, [paths[start::threads] for start in range(threads)]) for digest in part
        ]


def map_all(one: Callable[[str, bytearray], str], paths: list[str]) -> list[str]:
    """Digest one file after the other, through one buffer."""
    buffer = bytearray(BUFFER_BYTES)
    return [one(path, buffer) for path in paths]


def bare_one(path: str, buffer: bytearray) -> str:
    """One file by hand."""
    state, window = hashlib.sha256(), memoryview(buffer)
    with open(path, "rb", buffering=0) as stream:  # noqa: PTH123 - the floor takes the shortest way
        while count := stream.readinto(buffer):
            state.update(window[:count])
    return state.hexdigest()


def standard_one(path: str, _buffer: bytearray) -> str:
    """One file by ``hashlib.file_digest``."""
    with open(path, "rb", buffering=0) as stream:  # noqa: PTH123 - see bare_one
        return hashlib.file_digest(stream, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
