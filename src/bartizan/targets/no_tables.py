"""Libraries for tables, which others load if they are there.

scikit-learn loads pandas, and that loads Arrow, which begins a thread. It takes time and memory of a process that is
given arrays, and threads are lost in a fork.
"""

from __future__ import annotations

import sys

TABLES = ("pandas", "pyarrow")


def hide_tables() -> None:
    """Let imports of those that are not loaded yet fail."""
    hidden = (name for name in TABLES if name not in sys.modules)
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # documented: such an import fails


def admit_tables() -> None:
    """Let them be imported again."""
    for name in TABLES:
        if sys.modules.get(name, sys) is None:
            del sys.modules[name]


__all__ = ["TABLES", "admit_tables", "hide_tables"]
