"""How the repository of the ML system is kept: protection, review, tests, pins, signatures.

Facts that lie in the repository are read there; what only the forge knows comes from an export of its
API. Where nothing shows a thing, that is said, and is no pass. Whether a commit's signature is sound is not
verified: only that it carries one.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from bartizan.core.errors import InputError
from bartizan.core.finding import Finding, Severity
from bartizan.lifecycle.develop.environment.forge import Protection, read_protection
from bartizan.lifecycle.develop.environment.runtime import is_lock
from bartizan.lifecycle.develop.environment.tested import Tested, answer

COMMITS = 100
"""Newest commits whose signatures are counted."""
PATIENCE_SECONDS = 20
LARGEST_FILE = 8 << 20
MOST_FILES = 50_000
_OWNERS = ("CODEOWNERS", ".github/CODEOWNERS", ".gitlab/CODEOWNERS", "docs/CODEOWNERS")
_PIPELINES = (
    ".gitlab-ci.yml", "azure-pipelines.yml", "bitbucket-pipelines.yml", "Jenkinsfile", ".circleci/config.yml",
    ".woodpecker.yml", ".travis.yml", "cloudbuild.yaml",
)  # fmt: skip
_PIPELINE_FOLDERS = (".github/workflows", ".forgejo/workflows", ".gitea/workflows", ".woodpecker")
_TESTS = re.compile(
    r"\b(?:py\.?test|tox|nox|unittest|ctest|make\s+(?:test|check)|hatch\s+(?:run\s+)?test|bartizan\s+\w+)\b"
)
_COMMENT = re.compile(r"(?:^|\s)#.*$", re.MULTILINE)
_USES = re.compile(r"^\s*(?:-\s*)?uses:\s*[\"']?([^\s\"'#]+)", re.MULTILINE)
_PINNED_ACTION = re.compile(r"@[0-9a-f]{40}(?:[0-9a-f]{24})?$|^docker://.+@sha256:[0-9a-f]{64}$|^\./")
_SKIPPED = frozenset({".git", ".venv", "venv", "node_modules", "site-packages", ".tox", ".nox", "__pycache__"})
_QUIET = {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}


class Repository(msgspec.Struct, frozen=True, kw_only=True):
    """What was read of a repository."""

    folder: str
    """Top folder; empty when the project lies in no git repository."""
    branch: str = ""
    signatures: tuple[bool, ...] = ()
    """Of the newest commits, newest first: whether each carries a signature."""
    problem: str = ""
    """Why git could not be asked."""
    owners: str = ""
    """Content of CODEOWNERS."""
    pipelines: dict[str, str] = {}
    """Name to text of the pipelines of continuous integration."""
    locks: dict[str, bytes] = {}
    """Name to bytes of files that pin packages."""


def read_repository(start: Path) -> Repository:
    """Read the git repository that ``start`` lies in, or the folder itself when it lies in none."""
    top = _top(start)
    folder = top or start
    branch, signatures, problem = _history(folder) if top else ("", (), "")
    return Repository(
        folder=str(top or ""),
        branch=branch,
        signatures=signatures,
        problem=problem,
        owners=next((text for name in _OWNERS if (text := _text(folder / name))), ""),
        pipelines=dict(_pipelines(folder)),
        locks=dict(_locks(folder)),
    )


def _top(start: Path) -> Path | None:
    return next((folder for folder in (start, *start.parents) if (folder / ".git").exists()), None)


def _history(folder: Path) -> tuple[str, tuple[bool, ...], str]:
    """Branch, signatures of the newest commits, and why they cannot be told. No program of the repository is run."""
    git = shutil.which("git")
    if git is None:
        return "", (), "there is no git program here"
    command = [git, "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-C", str(folder)]
    try:
        branch = _ask([*command, "symbolic-ref", "--short", "-q", "HEAD"]).strip()
        shown = _ask([*command, "log", f"--max-count={COMMITS}", "--no-show-signature", "--format=raw", "HEAD"])
    except (OSError, subprocess.SubprocessError) as error:
        return "", (), f"git does not answer ({type(error).__name__})"
    commits = re.split(r"^commit [0-9a-f]{40,64}", shown, flags=re.MULTILINE)[1:]
    return branch, tuple("\ngpgsig" in commit.partition("\n\n")[0] for commit in commits), ""


def _ask(command: list[str]) -> str:
    done = subprocess.run(  # noqa: S603 -- a fixed program and fixed words
        command,
        capture_output=True,
        check=False,
        timeout=PATIENCE_SECONDS,
        env={**os.environ, **_QUIET},
        stdin=subprocess.DEVNULL,
    )
    return done.stdout.decode("utf-8", "replace")


def _text(path: Path) -> str:
    return (_bytes(path) or b"").decode("utf-8", "replace")


def _bytes(path: Path) -> bytes | None:
    """A regular file's bytes; None when there is none or it is unreasonably large."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST_FILE:
            return None
        return path.read_bytes()
    except OSError:
        return None


def _pipelines(folder: Path) -> Iterator[tuple[str, str]]:
    for name in _PIPELINES:
        if text := _text(folder / name):
            yield name, text
    for inside in _PIPELINE_FOLDERS:
        for path in sorted((folder / inside).glob("*.y*ml")):
            yield f"{inside}/{path.name}", _text(path)


def _locks(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Files that pin packages, wherever they lie in the repository."""
    count = 0
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in _SKIPPED)
        for name in sorted(names):
            count += 1
            path = Path(here) / name
            inside = path.relative_to(folder).as_posix()
            if is_lock(inside) and (data := _bytes(path)) is not None:
                yield inside, data
        if count > MOST_FILES:
            return


def judge(found: Repository, protection: bytes | None) -> list[Tested]:
    """Branch protection, review, tests, pinned actions and signed commits of a repository."""
    said, problem = _protection(protection)
    return [
        _branch(found, said, problem),
        _review(found, said, problem),
        _tests(found, said),
        _actions(found.pipelines),
        _signed(found, said),
    ]


def _protection(data: bytes | None) -> tuple[Protection | None, str]:
    if data is None:
        return None, ""
    try:
        return read_protection(data), ""
    except InputError as error:
        return None, error.message


def _branch(found: Repository, said: Protection | None, problem: str) -> Tested:
    name = "repository/branch-protection"
    if not found.folder:
        finding = _finding("no-repository", Severity.HIGH, "The project lies in no git repository", "keep it in one.")
        return answer(name, [finding])
    if said is None:
        finding = _finding(
            "protection-not-shown",
            Severity.MEDIUM,
            "Nothing shows that the branch is protected",
            "export the protection from the forge, and name the file as branch_protection in [environment].",
        )
        return answer(name, [finding], unknown=problem)
    return answer(name, _protection_gaps(said), said.forge)


def _protection_gaps(said: Protection) -> Iterator[Finding]:
    if said.direct_push:
        title = "Changes reach the protected branch without a merge request"
        yield _finding("direct-push", Severity.HIGH, title, "require pull or merge requests, for everybody.")
    if said.force_push:
        title = "The history of the protected branch can be rewritten"
        yield _finding("force-push", Severity.HIGH, title, "forbid force pushes.")
    if not said.binds_administrators:
        title = "The protection does not bind administrators"
        yield _finding("administrators", Severity.MEDIUM, title, "enforce the rules for administrators, too.")


def _review(found: Repository, said: Protection | None, problem: str) -> Tested:
    name = "repository/review"
    findings = []
    if said is not None and said.approvals < 1:
        title = "A change needs nobody's approval"
        findings.append(_finding("no-review", Severity.HIGH, title, "require at least one approval by somebody else."))
    if said is None:
        title = "Nothing shows that changes are reviewed"
        findings.append(_finding("review-not-shown", Severity.MEDIUM, title, "export the protection from the forge."))
    owners = _owner_lines(found.owners)
    if not owners:
        title = "No CODEOWNERS file says who reviews what"
        findings.append(_finding("no-owners", Severity.LOW, title, "write one, with several people for each path."))
    note = f"{said.approvals} approvals, " if said else ""
    return answer(name, findings, f"{note}{owners} lines of CODEOWNERS", unknown=problem)


def _owner_lines(text: str) -> int:
    lines = (line.strip() for line in text.splitlines())
    return sum(1 for line in lines if line and not line.startswith(("#", "[")) and "@" in line)


def _tests(found: Repository, said: Protection | None) -> Tested:
    running = [name for name, text in found.pipelines.items() if _TESTS.search(_COMMENT.sub("", text))]
    findings = []
    if not running:
        title = "No pipeline of continuous integration runs tests"
        findings.append(_finding("no-tests", Severity.HIGH, title, "run the tests on every change."))
    if said is not None and not said.tests:
        title = "A change may be merged while its tests fail"
        findings.append(_finding("tests-not-required", Severity.MEDIUM, title, "require the tests to pass."))
    return answer("repository/tests", findings, ", ".join(running) or "no pipeline runs tests")


def _actions(pipelines: Mapping[str, str]) -> Tested:
    """Actions of others by commit: a tag can be moved to other code (CVE-2025-30066)."""
    used = [(name, action) for name, text in sorted(pipelines.items()) for action in _USES.findall(text)]
    loose = sorted({(name, action) for name, action in used if not _PINNED_ACTION.search(action)})
    findings = [
        Finding(
            rule="environment/action-not-pinned",
            severity=Severity.MEDIUM,
            title="A pipeline runs an action that its author may replace at any time",
            where=name,
            detail=action[:200],
            remedy="pin the action by its full commit hash.",
            cwe=("CWE-829", "CWE-494"),
            techniques=("AML.T0010",),
            controls=("2.2-i",),
        )
        for name, action in loose
    ]
    return answer("repository/actions", findings, f"{len(used)} uses of actions")


def _signed(found: Repository, said: Protection | None) -> Tested:
    name, total = "repository/signed-commits", len(found.signatures)
    count = sum(found.signatures)
    if not found.folder:
        return answer(name, [], unknown="there is no git repository")
    if found.problem or not total:
        return answer(name, [], unknown=found.problem or "there is no commit, or git may not read it")
    findings = []
    if count < total:
        title = f"{total - count} of the newest {total} commits carry no signature"
        findings.append(_finding("unsigned-commits", Severity.LOW, title, "let everybody sign their commits."))
    if said is not None and not said.signed and count < total:
        title = "The forge takes commits without a signature"
        findings.append(_finding("signatures-not-required", Severity.LOW, title, "require signed commits."))
    return answer(name, findings, f"{count} of the newest {total} commits carry a signature, not verified here")


def _finding(rule: str, severity: Severity, title: str, remedy: str) -> Finding:
    return Finding(
        rule=f"environment/{rule}",
        severity=severity,
        title=title,
        where="repository",
        remedy=remedy,
        cwe=("CWE-1357",),
        techniques=("AML.T0010",),
        controls=("2.2-i",),
    )
