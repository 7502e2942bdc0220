"""Mutates model files of every format, for as long as asked, and holds the scanner to three promises.

Every file ends in a report that can be written as JSON; it does so within a bound of time; and what
the disarmed reference unpickler asks for in it is allowed or flagged. ``python fuzz_scan.py
--seconds 600`` prints a line now and then, and on the first broken promise the file and its seed.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "unit/lifecycle/develop/scan")]

import test_scan_any_bytes as formats  # noqa: E402 -- found through the path set above
import test_scan_differential as differential  # noqa: E402

from bartizan.lifecycle.develop.scan import scan_bytes  # noqa: E402
from fixtures.corpus import gathered  # noqa: E402

LARGEST = 100_000
SLOW_SECONDS = 10.0


def starts():
    """Files to mutate."""
    everything = [*formats.FORMATS, *differential.seeds(), *gathered("DANGEROUS", "SUSPECT", "BENIGN").values()]
    return [data for data in everything if len(data) <= LARGEST]


def spliced(one, other, rng):
    """The beginning of one file with the end of another."""
    return one[: rng.randrange(len(one) + 1)] + other[rng.randrange(len(other) + 1) :]


def broken_promise(data):
    """What is wrong with the scan of a file; empty when nothing is."""
    began = time.process_time()
    try:
        told = scan_bytes(data, "fuzzed").to_json()
    except Exception as error:  # noqa: BLE001 -- whatever escapes is what is looked for
        return f"{type(error).__name__}: {error}"
    if time.process_time() - began > SLOW_SECONDS:
        return f"{time.process_time() - began:.1f} s for {len(data)} bytes"
    if b"file/unforeseen" in told:
        return told[told.index(b"file/unforeseen") :][:300].decode()
    missed = differential.unseen(data)
    return f"imports that were not seen: {missed}" if missed else ""


def fuzz(seconds, seed):
    """Mutate until the time is up; returns the number of broken promises (0 or 1)."""
    rng = random.Random(seed)
    corpus = starts()
    count = 0
    until = time.monotonic() + seconds
    tell_at = time.monotonic() + 30
    while time.monotonic() < until:
        data = differential.mutated(rng.choice(corpus), rng)
        if rng.random() < 0.1:
            data = spliced(data, rng.choice(corpus), rng)
        count += 1
        wrong = broken_promise(data)
        if wrong:
            print(f"seed {seed}, file {count}: {wrong}\n{data!r}")
            return 1
        if time.monotonic() > tell_at:
            print(f"{count} files", flush=True)
            tell_at += 30
    print(f"seed {seed}: {count} files, no promise broken")
    return 0


def main():
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=None, help="default: the clock")
    options = parser.parse_args()
    return fuzz(options.seconds, options.seed if options.seed is not None else time.time_ns() % 1_000_000)


if __name__ == "__main__":
    raise SystemExit(main())
