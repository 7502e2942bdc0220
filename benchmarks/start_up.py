"""Start-up: `bartizan --help` beside a bare interpreter, in processor time, which other work does not stretch."""

from __future__ import annotations

import resource
import subprocess
import sys

from common import promise, seconds, tell

PROMISED_MS = 200


def children() -> float:
    """Processor seconds of finished children."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def started(*arguments: str) -> float:
    """Median processor seconds of the interpreter with these arguments."""
    command = [sys.executable, *arguments]
    return seconds(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL), 15, children)


def main() -> int:
    """Run; exit code 1 when the promise is broken."""
    bare, help_ = started("-c", "pass"), started("-m", "bartizan", "--help")
    tell("floor: python -c pass", bare * 1000, "ms")
    tell("ratio to the floor", help_ / bare, "x")
    return 0 if promise("bartizan --help", help_ * 1000, PROMISED_MS, "ms") else 1


if __name__ == "__main__":
    sys.exit(main())
