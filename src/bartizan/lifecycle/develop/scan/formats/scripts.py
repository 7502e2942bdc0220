"""Scripts for command lines, and files that say what to install.

A script beside a model is never needed to load it, so every one is a finding; the words looked for only
tell the harmful ones from the rest.
"""

from __future__ import annotations

import re

from bartizan.lifecycle.develop.scan.source import Draft, Source

SUFFIXES = (".sh", ".bash", ".zsh", ".ksh", ".fish", ".csh", ".bat", ".cmd", ".ps1", ".psm1", ".vbs", ".js", ".mjs")
SUFFIXES_MORE = (".pl", ".rb", ".php", ".lua", ".applescript", ".hta", ".wsf", ".command", ".desktop", ".service")
BUILD_FILES = frozenset({"dockerfile", "containerfile", "makefile", "gnumakefile"})
SHEBANG = re.compile(r"#![ \t]*\S+")
INTERPRETERS = r"(?:(?:/\S*/)?(?:env\s+)?(?:ba|z|da|k|a|fi)?sh|python[\d.]*|perl|ruby|node|php|iex|pwsh|powershell)"
HARM: tuple[tuple[str, re.Pattern[str], re.Pattern[str] | None], ...] = tuple(
    (what, re.compile(first, re.IGNORECASE), re.compile(then, re.IGNORECASE) if then else None)
    for what, first, then in (
        (
            "fetches a program and runs it",
            r"\b(?:curl|wget|fetch|iwr|irm|invoke-webrequest|invoke-restmethod)\b",
            rf"\|\s*+(?:sudo\s++)?(?:-\w+\s++)?{INTERPRETERS}\b|(?:&&|;).*?(?:chmod\s++\+?[0-7x]|\b(?:ba|z)?sh\s|\./|python)",
        ),
        (
            "fetches a program and runs it",
            rf"(?:\b{INTERPRETERS}\s++(?:-\w+\s++)?|\b(?:eval|source)\s++|\.\s++)(?:<\s*+\(|[\"']?\$\(|`)",
            r"\s*+(?:curl|wget)\b",
        ),
        ("runs hidden content", r"base64\s++(?:-d|-D|--decode)", rf"\|\s*+(?:sudo\s++)?{INTERPRETERS}\b"),
        ("runs hidden content", r"\b(?:eval|exec)\b", r"base64"),
        ("runs hidden content", r"powershell(?:\.exe)?\b|\bpwsh\b", r"\s-e(?:nc|ncodedcommand)?\s++[A-Za-z0-9+/=]{8}"),
        ("runs hidden content", r"frombase64string", ""),
        ("runs text as a program", r"\b(?:iex|invoke-expression)\b", ""),
        ("fetches a program", r"downloadstring|downloadfile", ""),
        ("fetches a program", r"\bbitsadmin\b|\bcertutil\b", r"/transfer|-urlcache"),
        ("runs a program from elsewhere", r"\bmshta\b", ""),
        ("runs a program from elsewhere", r"\b(?:regsvr32|rundll32)\b", r"/i:http|javascript"),
        ("opens a shell to another host", r"/dev/(?:tcp|udp)/|\bmkfifo\b", ""),
        ("opens a shell to another host", r"\b(?:nc|ncat|netcat|socat)\b", r"\s-[a-z]{0,6}e\b|exec:"),
        ("deletes what it can reach", r"\brm\s++-\w{1,9}\s++(?:-\S++\s++)*+(?:/|~|\$HOME)(?:\s|\*|$)|\bmkfs\b", ""),
        ("deletes what it can reach", r"\bdd\s++if=", r"\bof=/dev/"),
        ("runs again later", r"\bcrontab\b|/etc/cron|currentversion\\run|authorized_keys", ""),
        ("runs again later", r"\bschtasks\b", r"/create"),
        (
            "sends data away",
            r"\b(?:curl|wget)\b",
            r"--post-file|--data(?:-binary)?[ =][\"']?[@$`]|\s-d\s++[\"']?[@$`]|\s-F\s++\S*=@|\s-T\s",
        ),
        ("runs a program from text", r"\bpython[\d.]*\s++-c\s", r"\b(?:exec|eval|__import__|os\.|subprocess|socket)"),
        ("uses secrets of the machine", r"\.ssh/|\.aws/credentials|/etc/shadow|169\.254\.169\.254|\.kube/config", ""),
    )
)
"""What makes a script harmful: a pattern and, where there is one, another that follows it in the same line."""
LONGEST = 1 << 18
"""Characters of commands that are looked at."""
LONGEST_LINE = 2_000

REQUIREMENT = re.compile(
    r"[A-Za-z0-9][\w.-]*+\s*+(?:\[[^\]\n]*+\]\s*+)?(?:(?:===?|[<>!~]=|[<>]|@)[^;#\n]*+)?(?:;[^\n]*+|#.*+)?\\?"
)
"""A line that names a package and versions of it."""
OPTION = re.compile(r"(?:-[a-zA-Z]\b|--[a-z][a-z-]*)\S*.*")
INDEX_OPTIONS = re.compile(r"(?:^|\s)(?:-i|--index-url|--extra-index-url|--find-links|-f|--trusted-host)[\s=]+(\S+)")
GOOD_INDEXES = re.compile(r"https://(?:pypi\.org/simple|download\.pytorch\.org/whl|pypi\.nvidia\.com)(?:/[\w./-]*)?")
ADDRESS = re.compile(r"(?:git|hg|svn|bzr)\+\w+:|\bhttps?://|\bfile:|\bftp:|\\\\\w")
PINNED = re.compile(r"(?:git\+)?https://[^\s@]+@[0-9a-f]{40}(?:#\S*)?|https://\S+#sha256=[0-9a-f]{64}")
REQUIREMENT_NAMES = re.compile(
    r"(?:^|[/_.-])(?:requirements|constraints)[\w.-]*\.(?:txt|in)$|^requirements/[\w.-]+\.txt$"
)


def base_name(source: Source) -> str:
    """Last part of the name, in small letters."""
    return source.name.replace("\\", "/").rpartition("/")[2].lower()


def is_named(name: str) -> bool:
    """Whether a name in small letters is that of a script."""
    return name.endswith((*SUFFIXES, *SUFFIXES_MORE))


def judge_script(source: Source, draft: Draft, text: str) -> bool:
    """A script by its first line or by its name. Python is left to its own judge."""
    shebang = SHEBANG.match(text)
    first = text.split("\n", 1)[0]
    if shebang is not None and "python" in first:
        return False
    if shebang is None and not is_named(base_name(source)) and not first.lower().startswith(("@echo ", "<?php")):
        return False
    draft.kind = "script"
    draft.fire("script/program", first.strip()[:120] if shebang else f"its name is {source.name!r}")
    judge_commands(draft, text)
    return True


def judge_commands(draft: Draft, text: str, where: str = "") -> bool:
    """Fire for each kind of harm in commands; tells whether there was any."""
    if len(text) > LONGEST:
        draft.miss(f"commands are examined up to {LONGEST} characters", rule="file/limit")
    seen: dict[str, str] = {}
    for line in re.sub(r"[\\`^]\r?\n", " ", text[:LONGEST]).splitlines():
        for what, first, then in HARM:
            match = first.search(line)
            if match is not None and (then is None or then.search(line, match.end())):
                seen.setdefault(what, line[match.start() :])
    for what, shown in seen.items():
        draft.fire("script/harm", f"{where}{what}: {shown.strip()[:120]!r}")
    return bool(seen)


def judge_build_file(source: Source, draft: Draft, text: str) -> bool:
    """Dockerfiles and makefiles: run by whoever builds with them, and common beside models."""
    name = base_name(source)
    if name not in BUILD_FILES and not name.startswith("dockerfile."):
        return False
    draft.kind = "build-file"
    judge_commands(draft, text)
    for line in text.splitlines():
        if re.search(r"\bpip[\d.]*\s+install\b", line):
            judge_requirement(draft, line)
    return True


def judge_path_file(source: Source, draft: Draft, text: str) -> bool:
    """A path file (``.pth``) of Python: lines that begin with ``import`` are run (site.addpackage)."""
    if not base_name(source).endswith(".pth"):
        return False
    draft.kind = "path-file"
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith(("import ", "import\t")):
            draft.fire("script/path-hook", f"line {number}: {line[:120]!r}")
        elif line.strip() and not line.startswith("#"):
            draft.fire("repository/shadow-module", f"line {number} adds {line[:120]!r} to the path of imports")
    return True


def judge_requirements(source: Source, draft: Draft, text: str) -> bool:
    """A list of packages, by name or by the look of every line."""
    lines = [line.strip() for line in text.splitlines()]
    used = [line for line in lines if line and not line.startswith("#")]
    if not REQUIREMENT_NAMES.search(source.name.replace("\\", "/").lower()) and (
        text.startswith("#!") or not _looks_like_requirements(used)
    ):
        return False
    draft.kind = "requirements"
    for line in used:
        judge_requirement(draft, line)
    return True


def _looks_like_requirements(lines: list[str]) -> bool:
    """Every line a package or an option, and at least one address, index or version."""
    if not lines or len(lines) > 1_000:  # noqa: PLR2004 -- a longer list is a list of words
        return False
    if not all(REQUIREMENT.fullmatch(line) or OPTION.fullmatch(line) or ADDRESS.match(line) for line in lines):
        return False
    return any(INDEX_OPTIONS.search(line) or ADDRESS.search(line) or "==" in line for line in lines)


def judge_requirement(draft: Draft, line: str) -> None:
    """One line of a list of packages, or one command that installs some."""
    line = line[:LONGEST_LINE]
    for index in INDEX_OPTIONS.findall(line):
        if not GOOD_INDEXES.fullmatch(index.strip("\"'")):
            draft.fire("install/index", f"packages may come from {index[:120]!r}")
    rest = INDEX_OPTIONS.sub(" ", line)
    if (match := ADDRESS.search(rest)) and not PINNED.search(rest):
        draft.fire("install/direct", f"{rest[match.start() : match.start() + 120].strip()!r}")


__all__ = [
    "base_name",
    "is_named",
    "judge_build_file",
    "judge_commands",
    "judge_path_file",
    "judge_requirement",
    "judge_requirements",
    "judge_script",
]
