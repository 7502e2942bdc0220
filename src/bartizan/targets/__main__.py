"""``python -m bartizan.targets MODULE MEMORY SECONDS``: an isolated process, from its first line on.

It confines itself and only then imports the module with the commands, and with it a framework: libraries
start threads when they are imported, and a thread that runs already is not bound by every layer.
"""

from __future__ import annotations

import sys

from bartizan.targets.hosting import run

if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
