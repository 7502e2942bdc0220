"""Notebooks (Jupyter, nbformat 3 and 4): cells of code, and outputs that a browser shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from bartizan.lifecycle.develop.scan.formats import markup, python_code, scripts
from bartizan.lifecycle.develop.scan.source import Draft

MOST_CELLS = 10_000
LANGUAGES = frozenset({"python", "python3", "ipython", "ipython3", ""})
COMMAND_CELLS = frozenset({"bash", "sh", "script", "cmd", "powershell", "perl", "ruby", "system", "sx", "!"})
PAGE_CELLS = frozenset({"html", "javascript", "js", "svg"})
PLAIN_CELLS = frozenset({"time", "timeit", "capture", "prun", "memit", "python", "python3", "debug"})
"""Magics of a cell whose rest is Python."""
_COMMAND = re.compile(r"^(\s*)(?:[\w.,\s]+=\s*)?(?:!|%(?:system|sx)\b)(.*)$")
_MAGIC = re.compile(r"^(\s*)(?:[\w.,\s]+=\s*)?%+\s*(\w+)(.*)$")
_HELP = re.compile(r"^\s*\??\??[\w.]+\?{1,2}\s*$|^\s*\?{1,2}[\w.]+\s*$")
_HARMLESS = re.compile(
    r"(?:(?:python[\d.]*\s+-m\s+)?(?:pip[\d.]*|uv\s+pip|conda|mamba)\s+(?:install|uninstall|list|show|freeze)\b"
    r"|nvidia-smi|ls|pwd|echo|cat|head|tail|wc|du|df|free|lscpu|uname|mkdir|tree|date|which|jupyter\s+nbextension\s+enable)"
    r"(?:\s[^;&|`$<>]*)?(?:[12&]?>\s*/dev/null)?(?:\s*2>&1)?\s*"
)
"""Commands that show something or install packages; those are looked at for where they come from."""
SCRIPT_TYPES = frozenset({"application/javascript", "text/javascript", "application/x-javascript"})


def is_notebook(value: Any) -> bool:
    """Whether a JSON document is a notebook."""
    return isinstance(value, dict) and ("cells" in value or "worksheets" in value) and "nbformat" in value


def judge(draft: Draft, document: dict[str, Any]) -> None:
    """Judge all cells and outputs."""
    if _language(document) not in LANGUAGES:
        draft.miss(f"cells in {_language(document)[:40]!r} are not examined")
    for number, cell in enumerate(_cells(document)):
        if number >= MOST_CELLS:
            draft.miss(f"more than {MOST_CELLS} cells", rule="file/limit")
            return
        _judge_cell(draft, cell, f"cell {number + 1}: ")
    draft.facts["cells"] = sum(1 for _ in _cells(document))


def _language(document: dict[str, Any]) -> str:
    metadata = document.get("metadata")
    kernel = metadata.get("kernelspec") if isinstance(metadata, dict) else None
    language = kernel.get("language") or kernel.get("name") if isinstance(kernel, dict) else None
    return language.lower() if isinstance(language, str) else ""


def _cells(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    sheets = [document, *_maps(document.get("worksheets"))]
    for sheet in sheets:
        yield from _maps(sheet.get("cells"))


def _maps(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _text(value: Any) -> str:
    """Text of a field that holds a text or a list of lines."""
    if isinstance(value, list):
        return "".join(each for each in value if isinstance(each, str))
    return value if isinstance(value, str) else ""


def _judge_cell(draft: Draft, cell: dict[str, Any], where: str) -> None:
    text = _text(cell.get("source", cell.get("input")))
    if cell.get("cell_type") == "code":
        _judge_code(draft, text, where)
        for output in _maps(cell.get("outputs")):
            _judge_output(draft, output, where)
    elif markup.ACTIVE.search(text):
        draft.fire("notebook/active-output", f"{where}its text holds a program")


def _judge_code(draft: Draft, text: str, where: str) -> None:
    """One cell: its magics, and what is left as Python."""
    first = text.lstrip().split("\n", 1)[0]
    if first.startswith("%%"):
        magic = first[2:].split()[0] if first[2:].split() else ""
        body = text.lstrip()[len(first) :]
        if magic in COMMAND_CELLS:
            draft.fire("notebook/command", f"{where}{first[:80]!r}")
            scripts.judge_commands(draft, body, where)
            return
        if magic in PAGE_CELLS or magic not in PLAIN_CELLS:
            rule = "markup/script" if magic in PAGE_CELLS - {"svg"} else "notebook/command"
            if magic not in {"html", "svg", "markdown", "latex", "writefile"} or markup.ACTIVE.search(body):
                draft.fire(rule, f"{where}{first[:80]!r}")
            if magic != "writefile":
                return
        text = body
    _judge_python(draft, "\n".join(_plain(draft, line, where) for line in text.split("\n")), where)


def _plain(draft: Draft, line: str, where: str) -> str:
    """A line without the commands and magics of IPython, which are judged on the way."""
    line = line.rstrip("\r")
    if match := _COMMAND.match(line[: scripts.LONGEST_LINE]):
        _judge_command(draft, line[match.start(2) :].strip(), where)
        return f"{match[1]}pass"
    if match := _MAGIC.match(line[: scripts.LONGEST_LINE]) if "%" in line else None:
        if match[2] in {"pip", "conda"}:
            scripts.judge_requirement(draft, line)
        elif match[2] in {"run", "load", "load_ext", "loadpy"} and not re.fullmatch(r"\s*[\w.]+\s*", match[3]):
            draft.fire("notebook/command", f"{where}{line.strip()[:80]!r}")
        return f"{match[1]}pass"
    return "pass" if _HELP.match(line[: scripts.LONGEST_LINE]) else line


def _judge_command(draft: Draft, command: str, where: str) -> None:
    if scripts.judge_commands(draft, command, where):
        return
    if "install" in command:
        scripts.judge_requirement(draft, command)
    if not _HARMLESS.fullmatch(command.lstrip("!")):
        draft.fire("notebook/command", f"{where}{command[:80]!r}")


def _judge_python(draft: Draft, text: str, where: str) -> None:
    tree = python_code.parse(text)
    if tree is None:
        draft.miss(f"{where}it cannot be read as Python 3")
        return
    for found in python_code.judge_code(text, tree, is_module=False):
        draft.fire(found.rule, where + found.detail)


def _judge_output(draft: Draft, output: dict[str, Any], where: str) -> None:
    data = output.get("data", output)
    for kind, value in data.items() if isinstance(data, dict) else ():
        text = _text(value)
        is_script = kind in SCRIPT_TYPES and text.strip()
        if is_script or (kind in {"text/html", "image/svg+xml", "html", "svg"} and markup.ACTIVE.search(text)):
            draft.fire("notebook/active-output", f"{where}an output of type {kind[:40]!r}")


__all__ = ["is_notebook", "judge"]
