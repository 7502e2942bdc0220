"""Text: told by its characters, then judged by what it says.

A file is text when all of it is UTF-8 (or UTF-16 with a byte order mark) without control characters.
What kind of text it is decides who could run or obey it: JSON and YAML are read by libraries that may
import what they name, programs are run, and everything else is only shown. The name of the file helps to
choose a judge; content that fits another judge as well is handed to that one, too.

Texts in an older encoding of one byte a character (tables, word lists, licences) are told from numbers by
having mostly ASCII and no control characters; they are read as Latin-1, which is right for all that is ASCII.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable

from bartizan.lifecycle.develop.scan.formats import (
    characters,
    encoded,
    host_files,
    huggingface,
    json_text,
    markup,
    python_code,
    scripts,
    yaml_text,
)
from bartizan.lifecycle.develop.scan.limits import MIB, Meter
from bartizan.lifecycle.develop.scan.rules import RULES
from bartizan.lifecycle.develop.scan.source import Draft, Examine, Source, chunks
from bartizan.lifecycle.develop.scan.verdict import Coverage, Report, Verdict

PROBE = 1 << 16
"""Bytes that a recogniser looks at."""
WHOLE = 4 * MIB
"""Bytes up to which a text is judged as a whole; longer ones are data, or are said not to be examined."""
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
UTF8_BOM = "\ufeff"
MOST_TRIED = 100
PYTHON_NAMES = (".py", ".pyw", ".pyi")
PROGRAM_KINDS = frozenset({"python", "script", "notebook", "template"})
_LIKE_PYTHON = re.compile(
    r"^[ \t]*+(?:import|from|def|class|@|with|for|if|try|while|[\w.]++\()"
    r"|\b(?:exec|eval|compile|__import__|__builtins__|__subclasses__|__globals__)\b",
    re.MULTILINE,
)

_NO_OLDER_TEXT = re.compile(rb"[\x00-\x08\x0b\x0e-\x1f\x7f]")
_ASCII = bytes(range(128))
_OLDER = "latin-1"
_LEAST_ASCII = 0.7
"""Share of characters that western languages need no accents for, with room."""

Judge = Callable[[Source, Draft, str], bool]
"""Judges a text if it is of its kind, and tells whether it was."""


def encoding_of(head: bytes) -> str:
    """Encoding that the first bytes announce."""
    return "utf-16" if head[:2] in UTF16 else "utf-8"


def is_text(source: Source) -> bool:
    """Whether a source begins as text; the examiner looks at the rest."""
    head = bytes(source.data[:PROBE])
    return _is_clean(head, codecs.getincrementaldecoder(encoding_of(head))(), is_last=len(source.data) <= PROBE)


def _is_clean(part: bytes, decoder: codecs.IncrementalDecoder, *, is_last: bool) -> bool:
    try:
        text = decoder.decode(part, is_last)
    except UnicodeDecodeError:
        return False
    return _CONTROLS.search(text) is None


def _not_text_from(source: Source) -> int | None:
    """Offset of the piece in which the source stops being text; None when all of it is."""
    decoder = codecs.getincrementaldecoder(encoding_of(bytes(source.data[:2])))()
    at, size = 0, len(source.data)
    for part in chunks(source.data, 0, size):
        if not _is_clean(bytes(part), decoder, is_last=at + len(part) >= size):
            return at
        at += len(part)
    return None


def examine_text(source: Source, meter: Meter, examine: Examine) -> Report:
    """Examine a text of any kind."""
    draft = Draft(source, "text", meter.limits.findings)
    at = _not_text_from(source)
    if at is not None and _is_older_throughout(source):
        return examine_older_text(source, meter, examine)
    if at is not None:
        draft.kind = "unknown"
        draft.miss(f"it begins as text and is none after byte {at}", Coverage.NOT_EXAMINED)
    elif len(source.data) > WHOLE:
        _examine_long(source, draft)
    else:
        text = bytes(source.data).decode(encoding_of(bytes(source.data[:2]))).removeprefix(UTF8_BOM)
        _examine_whole(source, draft, text)
        encoded.judge_encoded(draft, text, examine)
    return draft.close()


def is_older_text(source: Source) -> bool:
    """Whether a source begins as text of one byte a character."""
    return _is_older(bytes(source.data[:PROBE]))


def _is_older(part: bytes) -> bool:
    high = len(part.translate(None, _ASCII))
    return not _NO_OLDER_TEXT.search(part) and high <= (1 - _LEAST_ASCII) * len(part)


def _is_older_throughout(source: Source) -> bool:
    return all(_is_older(bytes(part)) for part in chunks(source.data, 0, len(source.data)))


def examine_older_text(source: Source, meter: Meter, examine: Examine) -> Report:
    """Examine a text of one byte a character; programs and templates have to be UTF-8."""
    draft = Draft(source, "text", meter.limits.findings)
    if not _is_older_throughout(source):
        draft.kind = "unknown"
        draft.miss("it begins as text and is none later", Coverage.NOT_EXAMINED)
    elif len(source.data) > WHOLE:
        _examine_long(source, draft)
    else:
        text = bytes(source.data).decode(_OLDER)
        _examine_whole(source, draft, text)
        encoded.judge_encoded(draft, text, examine)
        if draft.kind in PROGRAM_KINDS:
            draft.miss("a program in another encoding than UTF-8 is not examined for certain")
    return draft.close()


def _examine_long(source: Source, draft: Draft) -> None:
    """Long texts are tables, word lists, JSON; a program of this size is not."""
    name = source.name.lower()
    if json_text.judge_long(source, draft):
        return
    if name.endswith((*PYTHON_NAMES, *yaml_text.NAMES, *markup.NAMES, ".toml", ".ipynb")) or scripts.is_named(name):
        draft.miss(f"a text of this kind is examined up to {WHOLE} bytes", rule="file/limit")
    elif bytes(source.data[:2]) == b"#!":
        draft.miss(f"a script is examined up to {WHOLE} bytes", rule="file/limit")


def _examine_whole(source: Source, draft: Draft, text: str) -> None:
    host_files.judge(source, draft, text)
    for judge in JUDGES:
        if judge(source, draft, text):
            break
    if draft.kind in PROGRAM_KINDS:
        judge_characters(draft, text)


def judge_characters(draft: Draft, text: str) -> None:
    """Characters that make a program look like another."""
    if (at := characters.bidirectional(text)) is not None:
        draft.fire("text/bidirectional", f"U+{ord(text[at]):04X} in line {text.count(chr(10), 0, at) + 1}")
    if (hidden := characters.invisible(text)) is not None:
        draft.fire("text/invisible", f"U+{ord(hidden):04X} is not shown")


def judge_python(source: Source, draft: Draft, text: str) -> bool:
    """Python by name, or by content."""
    is_named = source.name.lower().endswith(PYTHON_NAMES) or (text.startswith("#!") and "python" in text[:80])
    if not is_named and (len(text) > python_code.LONGEST or not _LIKE_PYTHON.search(text)):
        return False
    tree = python_code.parse(text)
    if tree is None:
        if is_named:
            draft.kind = "python"
            draft.miss("it cannot be read as a program of Python 3, or is too long or too deep")
        return is_named
    if not is_named and not python_code.is_program(tree):
        return False
    draft.kind = "python"
    for found in python_code.judge_code(text, tree):
        draft.fire(found.rule, found.detail)
    if source.name.lower().rpartition("/")[2] in {"sitecustomize.py", "usercustomize.py"}:
        draft.fire("repository/shadow-module", f"{source.name!r} runs whenever Python starts beside it")
    return True


def judge_template(source: Source, draft: Draft, text: str) -> bool:
    """A chat template in a file of its own."""
    name = scripts.base_name(source)
    is_named = name.endswith((".jinja", ".jinja2", ".j2")) or f"{name}.".startswith("chat_template.")
    if not is_named or name.endswith(".json"):
        return False
    draft.kind = "template"
    huggingface.judge_template_text(draft, text, source.name[:80])
    return True


def judge_stray_template(source: Source, draft: Draft, text: str) -> bool:
    """Text that no other judge knows and that would do harm as a template; what is none is left alone."""
    if "{{" not in text and "{%" not in text:
        return False
    trial = Draft(source, "template", MOST_TRIED)
    huggingface.judge_template_text(trial, text, source.name[:80])
    harmful = {each.rule for each in trial.findings if RULES[each.rule].verdict is Verdict.DANGEROUS}
    if harmful - {"template/unknown-call"}:  # other programs have filters of their own
        return judge_template(source._replace(name="chat_template.jinja"), draft, text)
    return False


JUDGES: tuple[Judge, ...] = (
    judge_template,
    yaml_text.judge_toml,
    scripts.judge_path_file,
    scripts.judge_requirements,
    json_text.judge,
    markup.judge,
    scripts.judge_build_file,
    scripts.judge_script,
    yaml_text.judge_front_matter,
    judge_python,
    yaml_text.judge,
    judge_stray_template,
)
"""Asked in this order; the first that knows the text ends it."""

__all__ = ["examine_text", "is_text"]
