"""Read ``bartizan.toml``: bytes in, a sound declaration or every one of its faults out.

The order is: bytes that are text, text that is TOML and of bearable size, values of the right shape
(``declaration_shape``), a whole that makes sense (``declaration_rules``, ``image_rules``, ``text_rules``,
``gate_rules``). Each step reports all its faults; a later step runs only when the one before found none.
"""

from __future__ import annotations

import codecs
import re
import tomllib
import typing
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from bartizan.core.digest import Digest, digest_bytes
from bartizan.core.errors import ArtefactError, DeclarationError, InputError
from bartizan.core.finding import Fault
from bartizan.core.ports import Clock, Files
from bartizan.core.system import Artefact, ArtefactKind, Declaration, System
from bartizan.lifecycle.design.declaration_lines import LineIndex, Place, index_lines
from bartizan.lifecycle.design.declaration_problems import Problem, show, show_place
from bartizan.lifecycle.design.declaration_rules import RULES, Case
from bartizan.lifecycle.design.declaration_shape import plain, shape_problems, unfilled
from bartizan.lifecycle.design.gate_rules import GATE_RULES
from bartizan.lifecycle.design.image_rules import IMAGE_RULES
from bartizan.lifecycle.design.text_rules import TEXT_RULES
from bartizan.lifecycle.design.vocabulary import Vocabulary

FILE_NAME = "bartizan.toml"
MAX_BYTES = 5_000_000
MAX_FAULTS = 100
"""So many faults are listed; of the rest only the number is told."""

_AT_LINE = re.compile(r" \(at line (\d+), column (\d+)\)$")
_AT_END = re.compile(r" \(at end of document\)$")
_WRONG_VALUE = re.compile(r"(.*) - at `\$\.?(.*)`$", re.DOTALL)


def utc_now() -> datetime:
    """The time, as the system clock has it."""
    return datetime.now(UTC)


def read_declaration(text: bytes, path: str, vocabulary: Vocabulary, *, clock: Clock | None = utc_now) -> Declaration:
    """Read and judge a declaration.

    Args:
        text: the file's bytes.
        path: the file's name, for messages.
        vocabulary: ids that may be used.
        clock: tells whether retention and lifespan are over; None to read a declaration whose terms
            may be over, as retirement must.

    Raises:
        DeclarationError: with every fault of the first step that found any, in line order.
    """
    document, index = _parse(_decode(text, path), path)
    document, problems = plain(document)
    _refuse(path, index, problems)
    open_ends = list(unfilled(document))
    still_open = {problem.place for problem in open_ends}
    misshapen = [problem for problem in shape_problems(document) if problem.place not in still_open]
    _refuse(path, index, [*open_ends, *misshapen])
    declaration = _convert(document, path, index)
    case = Case(declaration=declaration, vocabulary=vocabulary, now=clock() if clock else None)
    rules = (*RULES, *IMAGE_RULES, *TEXT_RULES, *GATE_RULES)
    _refuse(path, index, [problem for rule in rules for problem in rule(case)])
    return declaration


def load_system(path: Path, files: Files, vocabulary: Vocabulary, *, clock: Clock | None = utc_now) -> System:
    """Read the declaration at ``path`` and take the digest of everything it names.

    The system itself is named by the bytes of its declaration: any change to them, be it in a
    comment, makes what was said about the system stale.

    Raises:
        ArtefactError: the declaration itself cannot be read.
        DeclarationError: it has faults, or names artefacts that cannot be read.
    """
    text = _read(path)
    declaration = read_declaration(text, str(path), vocabulary, clock=clock)
    folder = path.resolve().parent
    artefacts, problems = _digest_all(declaration, folder, files)
    _refuse(str(path), index_lines(text.decode()), [*problems, *_same_bytes(declaration, artefacts)])
    digest = digest_bytes(text)
    itself = Artefact(kind="system", name=declaration.name, digest=digest, path=str(path.resolve()))
    return System(
        declaration=declaration,
        folder=str(folder),
        declaration_digest=digest,
        artefacts=(*artefacts.values(), itself),
    )


def _decode(text: bytes, path: str) -> str:
    """The file as text, when it is text."""
    if len(text) > MAX_BYTES:
        _refuse_at(path, 0, f"{len(text)} bytes; a declaration has at most {MAX_BYTES}")
    if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        _refuse_at(path, 1, "the file is UTF-16", "UTF-8; choose that encoding when saving")
    if text.startswith(codecs.BOM_UTF8):
        _refuse_at(path, 1, "the file begins with a byte-order mark", "UTF-8 without a mark (BOM)")
    if (at := text.find(0)) >= 0:
        _refuse_at(path, text.count(b"\n", 0, at) + 1, "a NUL byte: this is no text file", "UTF-8 text")
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        _refuse_at(path, line, f"byte 0x{text[error.start]:02x} is no UTF-8", "UTF-8 text")


def _parse(text: str, path: str) -> tuple[dict[str, Any], LineIndex]:
    """The document and where everything in it stands."""
    index = index_lines(text)
    if index.excess:
        _refuse_at(path, index.excess_line, index.excess, "a flatter, shorter declaration")
    try:
        return tomllib.loads(text), index
    except tomllib.TOMLDecodeError as error:
        raise DeclarationError(path, [_syntax_fault(error, text, index)]) from error
    except (ValueError, RecursionError, OverflowError) as error:
        _refuse_at(path, 0, f"a value that no number can hold: {error}", "numbers of ordinary size")


def _syntax_fault(error: tomllib.TOMLDecodeError, text: str, index: LineIndex) -> Fault:
    """What ``tomllib`` complains of, with its line; repeated keys in better words."""
    if index.repeats:
        repeat = index.repeats[0]
        message = f"given twice; the first time on line {repeat.first}"
        return Fault(line=repeat.line, path=show_place(repeat.place), message=message, allowed="each key once")
    message = str(error)
    located = _AT_LINE.search(message)
    line = int(located[1]) if located else text.count("\n") + 1
    column = f" in column {located[2]}" if located else " at the end of the file"
    bare = _AT_END.sub("", _AT_LINE.sub("", message))
    return Fault(
        line=line, path="(syntax)", message=f"this is no TOML: {bare}{column}", allowed="https://toml.io/en/v1.0.0"
    )


def _convert(document: dict[str, Any], path: str, index: LineIndex) -> Declaration:
    """The values as structs. What the schema let pass but the structs do not is a fault like any other."""
    try:
        return msgspec.convert(document, Declaration)
    except msgspec.ValidationError as error:
        located = _WRONG_VALUE.match(str(error))
        message, place = (located[1], _place(located[2])) if located else (str(error), ())
        raise DeclarationError(path, [Problem(place=place, message=message).fault(index)]) from error


def _place(dotted: str) -> Place:
    """A path as msgspec writes it: ``redteam.samples``, ``model[0].classes[...]``."""
    steps = re.findall(r"[^.\[\]]+", dotted)
    return tuple(int(step) if step.isdigit() else step for step in steps)


def _read(path: Path) -> bytes:
    """At most one byte more than may be read."""
    try:
        if path.is_fifo() or path.is_socket():
            raise ArtefactError(f"{path} cannot be read: it is no file", remedy="put the declaration there.")
        with path.open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise ArtefactError(f"there is no {path}", remedy=f"run `bartizan init` in {path.parent}.") from error
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{path} cannot be read: {error}", remedy="check its name and permissions.") from error


def _digest_all(declaration: Declaration, folder: Path, files: Files) -> tuple[dict[Place, Artefact], list[Problem]]:
    """Every declared model, dataset and document with its digest, and what could not be read, by place."""
    named: list[tuple[Place, ArtefactKind, str, str]] = [
        *((("model", i, "path"), "model", part.name, part.path) for i, part in enumerate(declaration.model)),
        *((("dataset", i, "path"), "dataset", part.name, part.path) for i, part in enumerate(declaration.dataset)),
        *((("document", i, "path"), "document", part.name, part.path) for i, part in enumerate(declaration.document)),
    ]
    artefacts, problems = {}, []
    for place, kind, name, relative in named:
        try:
            digest = _digest(folder, relative, files)
        except InputError as error:
            problems.append(Problem(place=place, message=error.message, allowed=error.remedy))
            continue
        artefacts[place] = Artefact(kind=kind, name=name, digest=digest, path=str(folder / relative))
    return artefacts, problems


def _digest(folder: Path, relative: str, files: Files) -> Digest:
    """Digest of a file or folder that lies, links followed, below ``folder``."""
    path = folder / relative
    try:
        real = path.resolve(strict=True)
    except FileNotFoundError as error:
        raise ArtefactError(f"there is no {show(relative)} in {folder}", remedy="an existing file or folder") from error
    except (OSError, RuntimeError, ValueError) as error:
        raise ArtefactError(f"{show(relative)} cannot be read: {error}", remedy="a readable file or folder") from error
    if not real.is_relative_to(folder):
        raise ArtefactError(f"{show(relative)} leads out of {folder}", remedy="a file or folder inside it")
    return files.digest(path)


def _same_bytes(declaration: Declaration, artefacts: dict[Place, Artefact]) -> Iterable[Problem]:
    """A copy of the training data under another name is still training data."""
    digests = {artefact.name: artefact.digest for artefact in artefacts.values() if artefact.kind == "dataset"}
    for index, model in enumerate(declaration.model):
        trained, evaluated = digests.get(model.trained_on), digests.get(model.evaluated_on)
        if trained is not None and trained == evaluated:
            yield Problem(
                place=("model", index, "evaluated_on"),
                message=f"{show(model.evaluated_on)} holds the same bytes as {show(model.trained_on)}",
                allowed="data that the model has not seen",
            )


def _refuse(path: str, index: LineIndex, problems: Sequence[Problem]) -> None:
    """Raise all problems as faults, in line order; return when there are none."""
    if not problems:
        return
    faults = sorted((problem.fault(index) for problem in problems), key=lambda fault: (fault.line, fault.path))
    listed = list(dict.fromkeys(faults))
    if len(listed) > MAX_FAULTS:
        more = Fault(line=0, path="(whole file)", message=f"and {len(listed) - MAX_FAULTS} more faults")
        listed = [*listed[:MAX_FAULTS], more]
    raise DeclarationError(path, listed)


def _refuse_at(path: str, line: int, message: str, allowed: str = "") -> typing.NoReturn:
    raise DeclarationError(path, [Fault(line=line, path="(whole file)", message=message, allowed=allowed)])
