"""YAML and TOML, and the YAML at the head of model cards.

Only the events of PyYAML's parser are used: nothing is constructed, tags are looked at and not obeyed. The
tree that is built from them holds texts, lists and maps, and is judged like JSON.
"""

from __future__ import annotations

import tomllib
from typing import Any

import yaml

from bartizan.lifecycle.develop.scan.formats import huggingface, mlflow, yaml_tags
from bartizan.lifecycle.develop.scan.formats.yaml_tags import TagProblem
from bartizan.lifecycle.develop.scan.limits import LimitError
from bartizan.lifecycle.develop.scan.source import Draft, Source

NAMES = (".yaml", ".yml", "/mlmodel")
MOST_EVENTS = 400_000
DEEPEST = 100
MOST_EXPANDED = 2_000_000
"""Nodes that the aliases of a document may stand for."""
LONGEST_TOML = 1 << 20
FENCE = "---\n"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Node:
    """A list or map that is still open, or has been named by an anchor."""

    __slots__ = ("anchor", "is_map", "items", "size")

    def __init__(self, anchor: str | None, *, is_map: bool) -> None:
        self.anchor = anchor
        self.is_map = is_map
        self.items: list[Any] = []
        self.size = 1
        """Nodes in it when all aliases are followed."""

    def value(self, twice: list[str]) -> Any:
        if not self.is_map:
            return self.items
        made: dict[str, Any] = {}
        for key, value in zip(self.items[::2], self.items[1::2], strict=False):
            name = key if isinstance(key, str) else repr(key)[:80]
            if name in made and name != "<<":
                twice.append(name)
            made[name] = value
        return made


class _Reader:
    """Builds documents from events, and judges tags and aliases on the way."""

    def __init__(self) -> None:
        self.documents: list[Any] = []
        self.problems: list[TagProblem] = []
        self.twice: list[str] = []
        self.open: list[_Node] = []
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.events = 0

    def read(self, text: str) -> None:
        """Read all documents.

        Raises:
            yaml.YAMLError: it is no YAML.
            LimitError: it is too deep or too long.
        """
        for event in yaml.parse(text, Loader=_LOADER):
            self.events += 1
            if self.events > MOST_EVENTS:
                raise LimitError(f"YAML of more than {MOST_EVENTS} events")
            self.take(event)

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.DocumentStartEvent):
            self.anchors.clear()
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event.anchor)
        elif isinstance(event, yaml.ScalarEvent):
            self._tag(event.tag, event.value)
            self._add(event.value, 1, event.anchor)
        elif isinstance(event, yaml.SequenceStartEvent | yaml.MappingStartEvent):
            self._tag(event.tag, "")
            if len(self.open) >= DEEPEST:
                raise LimitError(f"YAML nested more than {DEEPEST} deep")
            self.open.append(_Node(event.anchor, is_map=isinstance(event, yaml.MappingStartEvent)))
        elif isinstance(event, yaml.SequenceEndEvent | yaml.MappingEndEvent):
            node = self.open.pop()
            self._add(node.value(self.twice), node.size, node.anchor)

    def _add(self, value: Any, size: int, anchor: str | None) -> None:
        if anchor:
            self.anchors[anchor] = (value, size)
        if self.open:
            self.open[-1].items.append(value)
            self.open[-1].size += size
        else:
            self.documents.append(value)
        if size > MOST_EXPANDED:
            self.problems.append(TagProblem("yaml/alias-bomb", f"aliases stand for more than {MOST_EXPANDED} values"))
            raise LimitError("aliases multiply the content")

    def _alias(self, anchor: str | None) -> None:
        if any(node.anchor == anchor for node in self.open):
            self.problems.append(TagProblem("yaml/alias-bomb", f"{anchor!r:.40} contains itself"))
            self._add(f"*{anchor}", 1, None)
            return
        value, size = self.anchors.get(anchor or "", (f"*{anchor}", 1))
        shown = value if size < DEEPEST else f"*{anchor}"
        self._add(shown, size, None)

    def _tag(self, tag: str | None, value: str) -> None:
        if tag is not None and tag != "!" and (problem := yaml_tags.judge(tag, value)) is not None:
            self.problems.append(problem)


def judge(source: Source, draft: Draft, text: str) -> bool:
    """YAML by name; other text only when it reads as YAML with a map or a tag in it."""
    is_named = f"/{source.name.lower()}".endswith(NAMES)
    if not is_named and not yaml_tags.LIKE_YAML.search(text):
        return False
    return _judge_yaml(source, draft, text, is_named=is_named)


def _judge_yaml(source: Source, draft: Draft, text: str, *, is_named: bool) -> bool:
    reader = _Reader()
    problem = ""
    try:
        reader.read(text)
    except LimitError as limit:
        problem = str(limit)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if not is_named and not reader.problems:
            return False
        _judge_broken(draft, error, is_named=is_named)
    if not is_named and not reader.problems and not any(isinstance(each, dict) for each in reader.documents):
        return False
    draft.kind = "yaml"
    for each in dict.fromkeys(reader.problems):
        draft.fire(each.rule, each.detail)
    if problem:
        draft.miss(problem, rule="file/limit")
    if is_named:
        for key in list(dict.fromkeys(reader.twice))[:20]:
            draft.fire("yaml/duplicate-key", repr(key[:80]))
    for document in reader.documents:
        huggingface.judge(source, draft, document)
        mlflow.judge(source, draft, document)
    return True


def _judge_broken(draft: Draft, error: Exception, *, is_named: bool) -> None:
    draft.kind = "yaml"
    if is_named:
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        draft.fire("yaml/malformed", f"{getattr(error, 'problem', None) or 'it cannot be read'}{line}")
    draft.miss("the document cannot be read to its end")


def judge_front_matter(source: Source, draft: Draft, text: str) -> bool:
    """A page of Markdown; what stands between two lines ``---`` at its head is YAML."""
    if not source.name.lower().endswith((".md", ".markdown", ".mdx")):
        return False
    draft.kind = "markdown"
    plain = text.replace("\r\n", "\n")
    end = plain.find("\n---", len(FENCE))
    if plain.startswith(FENCE) and end > 0:
        reader = _Reader()
        try:
            reader.read(plain[len(FENCE) : end + 1])
        except (LimitError, yaml.YAMLError, ValueError, RecursionError):
            reader.documents.clear()
        for each in dict.fromkeys(reader.problems):
            draft.fire(each.rule, each.detail)
    return True


def judge_toml(source: Source, draft: Draft, text: str) -> bool:
    """TOML by name."""
    if not source.name.lower().endswith((".toml", "/pipfile", "poetry.lock", "uv.lock")):
        return False
    draft.kind = "toml"
    if len(text) > LONGEST_TOML or any(line.partition("=")[0].count(".") > DEEPEST for line in text.splitlines()):
        draft.miss(f"TOML is examined up to {LONGEST_TOML} characters and {DEEPEST} parts of a key", rule="file/limit")
        return True
    try:
        value = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        draft.fire("toml/malformed", str(error)[:120])
        draft.miss("the document cannot be read")
        return True
    huggingface.judge(source, draft, value)
    return True


__all__ = ["NAMES", "judge", "judge_front_matter", "judge_toml"]
