"""Finds secrets in bytes that are already in memory."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from bartizan.lifecycle.develop.secrets.rules import (
    ASSIGNED,
    ASSIGNED_PASSWORD,
    RULES,
    Rule,
    by_chance,
    entropy,
    is_placeholder,
)

ALLOW_MARK = b"bartizan: allow-secret"
"""Comment that excuses its line, where the caller lets it."""
LEAST_ASSIGNED = 16
"""Characters below which a value is too short to tell chance from a word."""
ASSIGNED_BITS = 3.6
"""Entropy of a value without a form of its own: 16 random characters have 3.6 to 4.0, words 2.5 to 3.4."""
LEAST_HEXADECIMAL = 32
"""Shorter ones are numbers, marks and checksums."""
HEXADECIMAL_BITS = 3.0
PASSWORD_BITS = 2.7
MOST_FOUND = 1000
"""Secrets of one piece of data; more say nothing new."""

_NAMES = (b"pass", b"pwd", b"secret", b"token", b"credential", b"key")
"""Parts of names that promise a secret, in small letters."""
_PASSWORD = re.compile(rb"pass(?:w(?:or)?d|phrase)|pwd")
_KEY_OF = tuple(
    first + middle
    for first in (b"api", b"access", b"private", b"auth", b"account", b"secret")
    for middle in (b"", b"_", b"-")
)
"""What makes a key a secret one: ``api_key``, ``accessKey``; a key of a dictionary is none."""
_QUOTED = re.compile(
    rb"""[\w.-]{0,24}(?:\\?["'])?\]?[ \t]{0,4}(?::[ \t]{0,2}[\w\[\]|. ]{1,24}=|=>|:=|=|:)[ \t]{0,4}\\?(?P<quote>["'])"""
    rb"""(?P<secret>[^"'\\\r\n]{8,256})\\?(?P=quote)"""
)
_BARE = re.compile(rb"""[\w.-]{0,24}[ \t]{0,4}[=:][ \t]{0,4}(?P<secret>[^\s"'#;,]{8,256})[ \t]*(?:$|[\r\n#;])""")
_WORD = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_HEXADECIMAL = frozenset(b"0123456789abcdefABCDEF")
_NO_SECRET = re.compile(
    rb"^(?:[A-Za-z_][\w]*[.(\[]|/|\.{1,2}/|~|https?:|file:|arn:|[A-Za-z]:\\|sha\d+[:-]|[\d.:-]+$|[a-f0-9]{8}-[a-f0-9]{4}-)"
    rb"|[ ()]"
)
"""Calls, attributes, paths, addresses, dates, digests, sentences, UUIDs."""
_PUBLIC = re.compile(
    rb"(?:public|tokeni[sz]er|_?tokens?_?(?:type|id|name|url|count|class)|cancellation|csrf_|_path|_file)"
)


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """One secret in a piece of data."""

    rule: str
    start: int
    secret: bytes


def find(data: bytes, *, is_text: bool = True, bare: bool = False, allow_marked: bool = False) -> list[Hit]:
    """Every secret in some bytes, in their order, each place once.

    ``is_text`` also looks beside names that promise a secret; ``bare`` does so for values without
    quotes, as ``.env`` files, INI and YAML have them. With ``allow_marked``, what stands on a line with
    the comment ``bartizan: allow-secret`` is left out.
    """
    found: dict[int, Hit] = {}
    for hit in _candidates(data, is_text=is_text, bare=bare):
        if any(_overlap(hit, other) for other in found.values()):
            continue
        if not (allow_marked and _is_marked(data, hit.start)):
            found[hit.start] = hit
        if len(found) >= MOST_FOUND:
            break
    return [found[start] for start in sorted(found)]


def _overlap(one: Hit, other: Hit) -> bool:
    return one.start < other.start + len(other.secret) and other.start < one.start + len(one.secret)


def _candidates(data: bytes, *, is_text: bool, bare: bool) -> Iterator[Hit]:
    for rule in RULES:
        yield from _of_rule(data, rule)
    if is_text:
        yield from _assigned(data, bare=bare)


def _of_rule(data: bytes, rule: Rule) -> Iterator[Hit]:
    for keyword in rule.keywords:
        inside = keyword[:1].isalnum()
        for start in _places(data, keyword):
            if inside and start and data[start - 1] in _WORD:
                continue
            match = rule.pattern.match(data, start)
            if match is None:
                continue
            group = "secret" if "secret" in rule.pattern.groupindex else 0
            secret = match[group]
            if (rule.sound or by_chance)(secret):
                yield Hit(rule=rule.id, start=match.start(group), secret=secret)


def _places(data: bytes, word: bytes) -> Iterator[int]:
    at = data.find(word)
    while at >= 0:
        yield at
        at = data.find(word, at + len(word))


def _assigned(data: bytes, *, bare: bool) -> Iterator[Hit]:
    low = data.lower()
    for name in _NAMES:
        for start in _places(low, name):
            if name == b"key" and not low.endswith(_KEY_OF, max(0, start - 8), start):
                continue
            match = _QUOTED.match(data, start) or (_BARE.match(data, start) if bare else None)
            if match is None or _PUBLIC.search(low, max(0, start - 12), match.start("secret")):
                continue
            is_password = name in {b"pass", b"pwd"}
            if is_password and not _PASSWORD.match(low, start):
                continue
            rule = ASSIGNED_PASSWORD if is_password else ASSIGNED
            if _is_assigned(match["secret"], rule):
                yield Hit(rule=rule, start=match.start("secret"), secret=match["secret"])


def _is_assigned(value: bytes, rule: str) -> bool:
    """Whether a value beside a promising name is a secret: digits and letters mixed as chance mixes them."""
    if _NO_SECRET.search(value) or is_placeholder(value):
        return False
    has_digit = any(48 <= letter <= 57 for letter in value)  # noqa: PLR2004 -- 0 to 9 in ASCII
    if not has_digit or not any(letter in _WORD and not 48 <= letter <= 57 for letter in value):  # noqa: PLR2004
        return False
    if rule == ASSIGNED_PASSWORD:
        return entropy(value) >= PASSWORD_BITS
    if all(letter in _HEXADECIMAL for letter in value):
        return len(value) >= LEAST_HEXADECIMAL and entropy(value) >= HEXADECIMAL_BITS
    return len(value) >= LEAST_ASSIGNED and entropy(value) >= ASSIGNED_BITS


def _is_marked(data: bytes, at: int) -> bool:
    begin = data.rfind(b"\n", 0, at) + 1
    end = data.find(b"\n", at)
    return ALLOW_MARK in data[begin : end if end >= 0 else len(data)]
