"""Writes the generated parts of the reference: JSON Schemas, commands, settings, checks, rules."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bartizan.core import predicates
from bartizan.core.schemas import statement_schema

HERE = Path(__file__).parent


def schemas() -> dict[Path, str]:
    """One JSON Schema for each predicate type that is read into a struct."""
    return {
        HERE / "schemas" / f"{predicates.short_name(kind)}.schema.json": json.dumps(statement_schema(kind), indent=2)
        + "\n"
        for kind in predicates.KNOWN
    }


def main() -> int:
    """Write every generated file; with ``--check`` only say which differ."""
    changed = []
    for path, text in schemas().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            changed.append(path.name)
            if "--check" not in sys.argv:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
    print("\n".join(changed) or "nothing changed")
    return 1 if changed and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
