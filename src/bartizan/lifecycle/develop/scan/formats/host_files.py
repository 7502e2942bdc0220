"""Files that a system or a tool acts on by itself once they lie in the right place.

A shell reads its profile, git its configuration, an editor its tasks, a package manager its hooks, Windows a
shortcut's icon from whatever share it names. None of them belongs to a model; what is looked for are the
lines that make something run or that call another host.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from bartizan.lifecycle.develop.scan.formats import scripts
from bartizan.lifecycle.develop.scan.source import Draft, Source

LONGEST = 1 << 18
"""Characters of one file that are looked at."""


class HostFile(NamedTuple):
    """One kind of file: its names, and what in it is acted on."""

    what: str
    names: re.Pattern[str]
    """Matched against the name in small letters."""
    acts: re.Pattern[str]
    """Found in the text; an empty pattern when such a file is always acted on."""


def _kind(what: str, names: str, acts: str = "") -> HostFile:
    return HostFile(what, re.compile(names), re.compile(acts, re.IGNORECASE | re.MULTILINE))


KINDS = (
    _kind(
        "a shell reads it whenever it starts",
        r"(?:^|/)\.?(?:bashrc|bash_profile|bash_login|bash_logout|bash_aliases|profile|zshrc|zshenv|zprofile|zlogin|cshrc|"
        r"kshrc|xinitrc|xsession|envrc|inputrc)$",
        r"^[ \t]*[^#\s]",
    ),
    _kind("the system runs it again and again", r"(?:^|/)crontab$|\.cron$|(?:^|/)cron\.\w+/", r"^[ \t]*[^#\s]"),
    _kind("the system starts what it names", r"\.plist$", r"<key>Program(?:Arguments)?</key>"),
    _kind("it changes the registry of Windows", r"\.reg$"),
    _kind("it changes the registry of Windows", r"", r"\A\s*+(?:Windows Registry Editor Version|REGEDIT4)"),
    _kind("Windows runs what it names", r"(?:^|/)autorun\.inf$"),
    _kind(
        "Windows runs what it names",
        r"\.inf$",
        r"\b(?:Run(?:Pre|Post)SetupCommands|AddReg|RegisterOCXs|UnregisterOCXs)",
    ),
    _kind("Windows opens what it names", r"", r"\A\s*+\[InternetShortcut\]"),
    _kind(
        "Windows fetches what it names",
        r"\.(?:scf|library-ms|searchconnector-ms|settingcontent-ms|theme|wsh|xll|iqy|slk)$",
    ),
    _kind("Windows fetches what it names", r"(?:^|/)desktop\.ini$", r"=\s*+(?:\\\\|//|https?:)|^\s*+CLSID"),
    _kind("it is an encoded script of Windows", r"", r"\A#@~\^[A-Za-z0-9+/]{6}=="),
    _kind(
        "git runs what it names",
        r"(?:^|/)\.?gitconfig$|(?:^|/)\.?git/config$",
        r"^\s*+(?:fsmonitor|sshcommand|editor|pager|hookspath|smudge|clean|process|textconv|askpass|helper|command|program|"
        r"gitproxy|uploadpack)\s*+=|^\s*+\w++\s*+=\s*+[\"']?!|^\s*+\[include",
    ),
    _kind(
        "git takes options or commands from it",
        r"(?:^|/)\.gitmodules$",
        r"=\s*+[\"']?(?:-|ext::|fd::|!|\S*\.\./)",
    ),
    _kind("git runs a filter by that name", r"(?:^|/)\.gitattributes$", r"^[^#\n]*\bfilter=(?!lfs\b)\S"),
    _kind(
        "the build runs code of the folder itself",
        r"(?:^|/)pyproject\.toml$",
        r"^\s*+backend-path\s*+=",
    ),
    _kind(
        "a program of R runs others",
        r"\.[rR]$|(?:^|/)\.rprofile$",
        r"^[^#\n]*\b(?:system2?|shell(?:\.exec)?|dyn\.load|pipe)\s*\(|^[^#\n]*\bsource\s*\(\s*[\"']https?:"
        r"|^[^#\n]*\beval\s*\(\s*parse\b",
    ),
    _kind(
        "a program of Julia runs others", r"\.jl$", r"^[^#\n]*\brun\s*\(|^[^#\n]*\bccall\s*\(|^[^#\n]*\bdownload\s*\("
    ),
    _kind(
        "its program runs others", r"\.(?:awk|tcl|exp|ahk|au3|nu|elv)$", r"\b(?:system\s*\(|exec\b|Run\b|ShellExecute)"
    ),
    _kind("it adds a folder to the path of imports", r"\.egg-link$"),
)
_INDEX = re.compile(
    r"^\s*+(?:@[\w-]++:)?(?:registry|index[-_]url|extra[-_]index[-_]url|find[-_]links|npmRegistryServer)\s*+[=:]\s*+(\S++)",
    re.IGNORECASE | re.MULTILINE,
)
_INDEX_NAMES = re.compile(
    r"(?:^|/)(?:\.npmrc|\.yarnrc(?:\.yml)?|pip\.(?:conf|ini)|\.pydistutils\.cfg|\.pypirc|uv\.toml)$"
)
_GOOD_REGISTRY = re.compile(r"[\"']?https://(?:registry\.(?:npmjs\.org|yarnpkg\.com)|pypi\.org)(?:/|[\"']?$)")
_COMMANDS = re.compile(
    r"\.(?:ya?ml|toml|cfg|ini|conf|env|service|timer|mk|cmake|gradle)$|(?:^|/)(?:jenkinsfile|procfile|justfile|vagrantfile|"
    r"mlproject|rakefile|\.env|\.travis\.yml)$"
)
"""Names of configurations in which commands stand."""
_REQUIRED = re.compile(r"^\s*+[A-Za-z0-9][\w.\[\],-]*+\s*+@\s*+\S++", re.MULTILINE)
_HOOKS = frozenset({"preinstall", "install", "postinstall", "prepare", "preprepare", "postprepare", "prepublish"})
_CONTAINER_HOOKS = frozenset(
    {"initializeCommand", "onCreateCommand", "updateContentCommand", "postCreateCommand", "postStartCommand"}
)


def judge(source: Source, draft: Draft, text: str) -> None:
    """Fire for what a host would act on; other judges look at the same text."""
    name = source.name.replace("\\", "/").lower()
    part = text[:LONGEST]
    for kind in KINDS:
        if kind.names.search(name) and (found := kind.acts.search(part)) is not None:
            shown = f": {found[0].strip()[:80]!r}" if found[0].strip() else ""
            draft.fire("script/acted-on", f"{kind.what}{shown}")
    if _INDEX_NAMES.search(name):
        for found in _INDEX.finditer(part):
            if not _GOOD_REGISTRY.match(found[1]):
                draft.fire("install/index", f"packages may come from {found[1][:120]!r}")
    if _COMMANDS.search(name):
        scripts.judge_commands(draft, part)
    if name.endswith("setup.cfg"):
        for found in _REQUIRED.finditer(part):
            scripts.judge_requirement(draft, found[0])
    _judge_hooks(name.rpartition("/")[2], draft, text)


def _judge_hooks(name: str, draft: Draft, text: str) -> None:
    """JSON whose commands a tool runs when the folder is installed or opened."""
    if name not in {"package.json", "tasks.json", "devcontainer.json", ".devcontainer.json"}:
        return
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return
    if not isinstance(document, dict):
        return
    for what, command in _hooks(name, document):
        draft.fire("script/acted-on", f"{what} runs {str(command)[:80]!r}")
        scripts.judge_commands(draft, str(command), f"{what} ")


def _hooks(name: str, document: dict[str, Any]) -> list[tuple[str, Any]]:
    if name == "package.json":
        hooks = document.get("scripts")
        return sorted((key, hooks[key]) for key in _HOOKS & hooks.keys()) if isinstance(hooks, dict) else []
    if name == "tasks.json":
        tasks = document.get("tasks")
        listed = [each for each in tasks if isinstance(each, dict)] if isinstance(tasks, list) else []
        return [
            ("a task", each.get("command"))
            for each in listed
            if isinstance(each.get("runOptions"), dict) and each["runOptions"].get("runOn") == "folderOpen"
        ]
    return sorted((key, document[key]) for key in _CONTAINER_HOOKS & document.keys())


__all__ = ["judge"]
