"""Who else may change or read stores, keys and declared artefacts.

Sources: POSIX.1-2024 file modes; RFC 1421 section 4.6 (encrypted PEM); RFC 5958 (PKCS #8); PROTOCOL.key of
OpenSSH. Access control lists beyond the mode are not read.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from bartizan.core.finding import Finding, Severity
from bartizan.lifecycle.develop.environment.tested import Tested, answer
from bartizan.lifecycle.develop.secrets.rules import is_open_key

MOST_ENTRIES = 100_000
LARGEST_KEY = 64 << 10
_KEY_NAMES = (".pem", ".key", ".p8", ".ppk", "id_rsa", "id_ecdsa", "id_ed25519", "id_dsa")
_OPEN_KEY = re.compile(rb"-----BEGIN (?:RSA |EC |DSA |OPENSSH )?PRIVATE KEY-----([A-Za-z0-9+/=\s]{40,})")
_ROOT = 0


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Something whose integrity the evidence rests on."""

    name: str
    """What it is to people: ``ledger``, ``keys``, ``model:tumour``."""
    path: str


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A file or folder of a place."""

    where: str
    path: Path
    status: os.stat_result


def permissions(places: Iterable[Place], owner: int) -> Tested:
    """Whether anybody but ``owner`` (a user id) and root may change the places, or the way to them."""
    findings: list[Finding] = []
    missed: list[str] = []
    count = 0
    for place in places:
        for entry in (*_way_to(place), *_entries(place, missed)):
            count += 1
            findings += _judge(entry, owner)
    unknown = f"{len(missed)} entries could not be looked at, the first is {missed[0]}" if missed else ""
    unique = {(finding.rule, finding.where): finding for finding in findings}
    return answer("files/permissions", unique.values(), f"{count} files and folders", unknown=unknown)


def _way_to(place: Place) -> Iterator[Entry]:
    """Folders above a place: whoever may rename in them may replace it."""
    for folder in Path(place.path).parents:
        try:
            yield Entry(where=str(folder), path=folder, status=folder.stat())
        except OSError:
            return


def _entries(place: Place, missed: list[str]) -> Iterator[Entry]:
    """The place itself and everything below it; links are not followed."""
    root = Path(place.path)
    pending, count = [root], 0
    while pending:
        path = pending.pop()
        where = place.name if path == root else f"{place.name}/{path.relative_to(root).as_posix()}"
        try:
            status = path.lstat()
            if stat.S_ISDIR(status.st_mode):
                pending += sorted(path.iterdir(), reverse=True)
        except FileNotFoundError:
            continue
        except OSError as error:
            missed.append(f"{where} ({error.strerror})")
            continue
        count += 1
        if count > MOST_ENTRIES:
            missed.append(f"{where} (more than {MOST_ENTRIES} entries)")
            return
        if not stat.S_ISLNK(status.st_mode):
            yield Entry(where=where, path=path, status=status)


def _judge(entry: Entry, owner: int) -> Iterator[Finding]:
    mode = entry.status.st_mode
    is_sticky_folder = stat.S_ISDIR(mode) and mode & stat.S_ISVTX
    if mode & stat.S_IWOTH and not is_sticky_folder:
        yield _finding("world-writable", Severity.HIGH, "Everybody on this machine may change it", entry, "o-w")
    elif mode & stat.S_IWGRP and not is_sticky_folder and not _is_private_group(entry.status):
        title = f"Everybody in the group {_group(entry.status.st_gid)} may change it"
        yield _finding("group-writable", Severity.MEDIUM, title, entry, "g-w")
    if entry.status.st_uid not in {owner, _ROOT}:
        yield Finding(
            rule="environment/foreign-owner",
            severity=Severity.MEDIUM,
            title=f"It belongs to another user ({_user(entry.status.st_uid)})",
            where=entry.where,
            remedy="give it to the account that runs the work, or let the owner sign it.",
            cwe=("CWE-282",),
            controls=("2.2-f",),
        )


def _finding(rule: str, severity: Severity, title: str, entry: Entry, change: str) -> Finding:
    return Finding(
        rule=f"environment/{rule}",
        severity=severity,
        title=title,
        where=entry.where,
        detail=f"its mode is {stat.S_IMODE(entry.status.st_mode):04o}",
        remedy=f"run `chmod {change} {entry.path}`.",
        cwe=("CWE-732",),
        techniques=("AML.T0010",),
        controls=("2.2-f",),
    )


def _is_private_group(status: os.stat_result) -> bool:
    """Whether the group has nobody in it but the owner, as many systems set up each user."""
    try:
        group, user = grp.getgrgid(status.st_gid), pwd.getpwuid(status.st_uid)
    except KeyError:
        return False
    return user.pw_gid == group.gr_gid and group.gr_name == user.pw_name and not set(group.gr_mem) - {user.pw_name}


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def keys(places: Iterable[Place]) -> Tested:
    """Whether private keys are encrypted and readable by their owner only."""
    findings: list[Finding] = []
    missed: list[str] = []
    count = 0
    for place in places:
        for entry in _entries(place, missed):
            if not stat.S_ISREG(entry.status.st_mode) or not entry.path.name.endswith(_KEY_NAMES):
                continue
            try:
                data = _read(entry.path)
            except OSError as error:
                missed.append(f"{entry.where} ({error.strerror})")
                continue
            if b"PRIVATE KEY-----" in data or b"PuTTY-User-Key-File" in data:
                count += 1
                findings += _judge_key(entry, data)
    unknown = f"{len(missed)} entries could not be looked at, the first is {missed[0]}" if missed else ""
    return answer("files/keys", findings, f"{count} private keys", unknown=unknown)


def _read(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read(LARGEST_KEY)


def _judge_key(entry: Entry, data: bytes) -> Iterator[Finding]:
    if entry.status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield _finding("key-readable", Severity.HIGH, "A private key can be used by other accounts", entry, "600")
    if not is_encrypted(data):
        yield Finding(
            rule="environment/key-not-encrypted",
            severity=Severity.MEDIUM,
            title="A private key is not encrypted",
            where=entry.where,
            detail="Whoever gets a copy or a backup of the file can sign with it.",
            remedy="encrypt it with `openssl pkcs8 -topk8 -scrypt`, or keep it in a hardware key.",
            cwe=("CWE-312",),
            controls=("2.2-f",),
        )


def is_encrypted(data: bytes) -> bool:
    """Whether a key file does not hold a private key in the open."""
    if b"PuTTY-User-Key-File" in data:
        return b"Encryption: none" not in data
    match = _OPEN_KEY.search(data)
    return match is None or not is_open_key(match[1])
