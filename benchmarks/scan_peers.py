"""The scanner as a command beside SHA-256 and beside other scanners, in one run.

Five inputs: a torch checkpoint, a joblib file of raw arrays, three million small opcodes, a safetensors
file and a folder of 2,000 small models. Every row is a whole process, start-up included: processor time
of the process and its children, as a multiple of ``sha256`` over the same bytes in a process of its own,
and the peak of its memory. Other scanners are run where ``--peers BIN`` names a folder of their programs.

Promised are 1.3 times SHA-256 for arrays, 15 times for opcodes, each plus the 0.15 s that a start may
take, and 150 MB. ``python benchmarks/scan_peers.py --mib 1024 --peers ~/peers/bin``
"""

from __future__ import annotations

import argparse
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import joblib
import numpy as np
from sklearn.linear_model import LogisticRegression

from common import promise
from scan import safetensors_file, torch_file

START = 0.15
LIMIT_MB = 150
PATIENCE = 300.0
SHA256 = (
    "import hashlib,sys,os\n"
    "paths=[sys.argv[1]] if os.path.isfile(sys.argv[1]) else [e.path for e in os.scandir(sys.argv[1])]\n"
    "for p in paths: hashlib.file_digest(open(p,'rb'),'sha256')"
)
LAUNCHER = """
import os, sys, time
command = sys.argv[2:]
until = time.monotonic() + float(sys.argv[1])
nothing = [(os.POSIX_SPAWN_OPEN, n, os.devnull, os.O_WRONLY, 0) for n in (1, 2)]
child = os.posix_spawnp(command[0], command, os.environ, file_actions=nothing)
while not (done := os.wait4(child, os.WNOHANG))[0]:
    if time.monotonic() > until:
        os.kill(child, 9)
    time.sleep(0.01)
print(done[2].ru_utime + done[2].ru_stime, done[2].ru_maxrss, os.waitstatus_to_exitcode(done[1]))
"""
PEERS = {
    "picklescan": ["--path"],
    "hayward": ["scan", "--fail-on", "medium"],
    "fickling": ["--check-safety"],
    "modelscan": ["--path"],
}


class Row(NamedTuple):
    """One process."""

    cpu: float
    megabytes: float
    exit: int


def run(command: list[str]) -> Row:
    """Run a command to its end, or stop it, from a small process: a child begins with its parent's peak of memory."""
    launcher = [sys.executable, "-S", "-c", LAUNCHER, str(PATIENCE), *command]
    done = subprocess.run(launcher, check=True, capture_output=True, text=True)
    cpu, kilobytes, code = done.stdout.split()
    return Row(float(cpu), int(kilobytes) / 1024, int(code))


def write_arrays(path: Path, mib: int) -> None:
    """A file of eight arrays; its ending tells the format."""
    rng = np.random.default_rng(20261121)
    parts = {f"layer{n}": rng.random(mib * (1 << 20) // 64) for n in range(8)}
    writers = {".pt": torch_file, ".safetensors": safetensors_file, ".joblib": lambda at, what: joblib.dump(what, at)}
    writers[path.suffix](path, parts)


def write_words(path: Path, count: int) -> None:
    """A vocabulary: three opcodes for each of its words."""
    rng = np.random.default_rng(20261121)
    words = {f"token {n:x}": n for n in rng.integers(0, 1 << 40, count).tolist()}
    path.write_bytes(pickle.dumps(words, 4))


def write_many(path: Path, count: int) -> None:
    """A folder of small models."""
    path.mkdir()
    rng = np.random.default_rng(20261121)
    for number in range(count):
        model = LogisticRegression()
        model.classes_, model.coef_ = np.arange(2), rng.random((1, 30))
        model.intercept_, model.n_iter_ = rng.random(1), np.array([number])
        (path / f"{number:04}.pkl").write_bytes(pickle.dumps(model))


def inputs(mib: int) -> list[tuple[str, str, Callable[[Path, int], None], int, float | None]]:
    """(title, file, what writes it, how much, promised multiple of SHA-256)."""
    return [
        (f"torch, {mib} MiB", "model.pt", write_arrays, mib, 1.3),
        (f"safetensors, {mib} MiB", "model.safetensors", write_arrays, mib, 1.3),
        (f"joblib of arrays, {mib * 3 // 10} MiB", "model.joblib", write_arrays, mib * 3 // 10, 1.3),
        ("3 million opcodes", "words.pkl", write_words, 1_000_000, 15.0),
        ("2,000 small models", "many", write_many, 2000, None),
    ]


def show(name: str, row: Row, floor: float) -> None:
    """One line of the table."""
    print(f"  {name:<12} {row.cpu:7.2f} s  {row.cpu / floor:7.1f}x  {row.megabytes:6.0f} MB  exit {row.exit}")


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=256, help="size of the large files")
    parser.add_argument("--peers", type=Path, help="folder of other scanners' programs")
    options = parser.parse_args()
    kept = []
    with tempfile.TemporaryDirectory() as name:
        for title, file, write, amount, most in inputs(options.mib):
            path = Path(name) / file
            # In a process of its own: what starts a process hands on its own peak of memory.
            writer = get_context("spawn").Process(target=write, args=(path, amount))
            writer.start()
            writer.join()
            floor = min(run([sys.executable, "-c", SHA256, str(path)]).cpu for _ in range(3))
            print(f"{title}: sha256 {floor:.2f} s")
            ours = min(
                (run([sys.executable, "-m", "bartizan", "scan", str(path)]) for _ in range(3)), key=lambda r: r.cpu
            )
            assert ours.exit == 0, "a benign file was not clean"
            show("bartizan", ours, floor)
            for peer, flags in PEERS.items():
                program = options.peers / peer if options.peers else Path(peer)
                if program.is_file():
                    show(peer, run([str(program), *flags, str(path)]), floor)
            if most is not None:
                kept.append(promise(f"{title}, CPU less start", max(0.0, ours.cpu - START) / floor, most))
                kept.append(promise(f"{title}, peak memory", ours.megabytes, LIMIT_MB, "MB"))
            if path.is_file():
                path.unlink()
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
