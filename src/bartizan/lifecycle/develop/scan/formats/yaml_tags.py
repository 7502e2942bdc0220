"""Tags of YAML: which ones make a loader call code.

``!!x`` is short for ``tag:yaml.org,2002:x``. PyYAML's unsafe loaders obey those that begin with ``python/``
(CVE-2020-1747, CVE-2020-14343), SnakeYAML takes any other for a class of Java (CVE-2022-1471), Ruby's Psych
obeys ``!ruby/``. Hyperparameter files of SpeechBrain (HyperPyYAML) import what ``!new:`` and its like name.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from bartizan.lifecycle.develop.scan.formats.import_paths import harm_of

STANDARD = "tag:yaml.org,2002:"
PLAIN = frozenset(
    {
        "str", "int", "float", "bool", "null", "seq", "map", "set", "omap", "pairs", "binary", "timestamp", "merge",
        "value",
    }
)  # fmt: skip
PLAIN_PYTHON = frozenset(
    {
        "python/str", "python/unicode", "python/int", "python/long", "python/float", "python/bool", "python/none",
        "python/list", "python/dict", "python/tuple", "python/complex", "python/bytes",
    }
)  # fmt: skip
"""Tags of PyYAML for values without code."""
BUILDERS = ("!new:", "!name:", "!module:", "!apply:", "!applyref:")
HYPER = frozenset({"!ref", "!copy", "!tuple", "!PLACEHOLDER", "!include"})
BUILT = re.compile(
    r"(?:speechbrain|torch|torchaudio|torchvision|transformers|nemo|huggingface_hub)(?:\.\w+)+|list|dict|tuple"
)
"""What the hyperparameter files that come with SpeechBrain build."""
FOREIGN = re.compile(r"!?(?:ruby|java|javax|php|perl|js|dotnet|net|com|org|clr)(?:[/.:]|$)", re.IGNORECASE)
LIKE_YAML = re.compile(
    r"^(?:[ \t]*+- )*+[ \t]*+[\"']?[\w.@/-]++[\"']?[ \t]*+:(?:[ \t\r\n]|$)"
    r"|^%(?:YAML|TAG) |!!\w|!<|!(?:new|apply|name|module|ruby|java)[:/]",
    re.MULTILINE,
)
"""A key, a directive or a tag somewhere in a text."""


class TagProblem(NamedTuple):
    """A rule and what fired it."""

    rule: str
    detail: str


def judge(tag: str, value: str) -> TagProblem | None:
    """What is wrong with one tag; None when nothing is."""
    shown = f"tag {tag[:120]!r}" + (f" with {value[:80]!r}" if value else "")
    if tag.startswith(STANDARD):
        name = tag[len(STANDARD) :]
        if name in PLAIN:
            return None
        rule = "yaml/unknown-tag" if name in PLAIN_PYTHON else "yaml/object-tag"
        return TagProblem(rule, shown)
    for builder in BUILDERS:
        if tag.startswith(builder):
            return _judge_built(tag.removeprefix(builder), shown)
    if tag.split(":", maxsplit=1)[0] in HYPER:
        return TagProblem("yaml/unknown-tag", shown) if tag.startswith("!include") and _leaves(tag) else None
    if FOREIGN.match(tag):
        return TagProblem("yaml/object-tag", shown)
    return TagProblem("yaml/unknown-tag", shown)


def _judge_built(path: str, shown: str) -> TagProblem | None:
    if harm_of(path):
        return TagProblem("yaml/object-tag", shown)
    return None if BUILT.fullmatch(path) else TagProblem("yaml/unknown-tag", shown)


def _leaves(tag: str) -> bool:
    place = tag.partition(":")[2]
    return place.startswith(("/", "~")) or ".." in place or "://" in place


__all__ = ["LIKE_YAML", "TagProblem", "judge"]
