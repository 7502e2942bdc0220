"""Find cards by any of their facts, and compare two."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from bartizan.core.predicates import Card
from bartizan.lifecycle.develop.cards.render import in_words

ABSENT = "absent"


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One fact in which two cards differ, as people read it; ``absent`` where a card has none."""

    fact: str
    """Dotted path: ``facts.owner.role``."""
    first: str
    second: str


def search(cards: Iterable[Card], text: str = "", where: Mapping[str, str] | None = None) -> list[Card]:
    """Cards in which every condition holds, in the order given.

    Args:
        cards: what is searched.
        text: words, each of which must occur in some fact; case does not matter.
        where: path of a fact to a part of its text: ``{"owner.role": "diagnostics", "sensitivity": "restricted"}``.
            ``facts.`` in front of a path may be left out; a path may name a whole compound fact.
    """
    words = text.casefold().split()
    return [card for card in cards if _has_words(card, words) and _meets(card, where or {})]


def _has_words(card: Card, words: list[str]) -> bool:
    texts = [text.casefold() for _, text in _leaves(msgspec.to_builtins(card))] if words else []
    return all(any(word in text for text in texts) for word in words)


def _meets(card: Card, where: Mapping[str, str]) -> bool:
    leaves = list(_leaves(msgspec.to_builtins(card)))
    return all(_has(leaves, path, part.casefold()) for path, part in where.items())


def _has(leaves: list[tuple[str, str]], path: str, part: str) -> bool:
    places = (path, f"facts.{path}")
    return any(
        part in text.casefold()
        for leaf, text in leaves
        if leaf in places or leaf.startswith(tuple(f"{place}." for place in places))
    )


def compare(first: Card, second: Card) -> tuple[Difference, ...]:
    """Every fact in which two cards differ, by path."""
    one, two = (dict(_leaves(msgspec.to_builtins(card))) for card in (first, second))
    return tuple(
        Difference(fact=path, first=one.get(path, ABSENT), second=two.get(path, ABSENT))
        for path in sorted(one.keys() | two.keys())
        if one.get(path) != two.get(path)
    )


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Dotted path and text of every fact; lists are one fact each."""
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _leaves(item, f"{path}.{name}" if path else name)
    else:
        yield path, in_words(value)
