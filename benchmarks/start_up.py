"""Start-up: `bartizan --help` beside a bare interpreter, and what it imports."""

from __future__ import annotations

import subprocess
import sys

from common import promise, seconds, tell

PROMISED_MS = 200


def main() -> int:
    """Run; exit code 1 when the promise is broken."""
    bare = seconds(lambda: subprocess.run([sys.executable, "-c", "pass"], check=True), 15)
    help_ = seconds(
        lambda: subprocess.run([sys.executable, "-m", "bartizan", "--help"], check=True, stdout=subprocess.DEVNULL), 15
    )
    tell("floor: python -c pass", bare * 1000, "ms")
    tell("ratio to the floor", help_ / bare, "x")
    return 0 if promise("bartizan --help", help_ * 1000, PROMISED_MS, "ms") else 1


if __name__ == "__main__":
    sys.exit(main())
