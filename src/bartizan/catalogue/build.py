"""``python -m bartizan.catalogue.build``: check the YAML sources and write ``catalogue.json``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bartizan.catalogue.crossrefs import dangling
from bartizan.catalogue.entries import Entries
from bartizan.catalogue.sources import SOURCES, assemble
from bartizan.core.digest import digest_json, short
from bartizan.core.errors import BartizanError, InputError


def render(entries: Entries) -> bytes:
    """The bytes of ``catalogue.json``: in the order of the sources, indented so that changes can be read.

    Raises:
        InputError: an entry names something that does not exist.
    """
    faults = dangling(entries)
    if faults:
        raise InputError("the catalogue contradicts itself:\n  " + "\n  ".join(faults), remedy="mend the sources.")
    return msgspec.json.format(msgspec.json.encode(entries), indent=1) + b"\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file, or with ``--check`` say whether it is current. 0 done, 1 out of date, 2 faulty."""
    parser = argparse.ArgumentParser(prog="python -m bartizan.catalogue.build", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if catalogue.json is out of date")
    parser.add_argument("--folder", type=Path, default=SOURCES, help="folder with the YAML sources")
    options = parser.parse_args(arguments)
    target = options.folder / "catalogue.json"
    try:
        entries = assemble(options.folder)
        data = render(entries)
    except BartizanError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if options.check:
        return int(not target.exists() or target.read_bytes() != data)
    target.write_bytes(data)
    sys.stderr.write(f"{target}: version {entries.meta.version}, digest {short(digest_json(entries))}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
