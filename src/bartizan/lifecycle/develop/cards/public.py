"""The public view of a card: roles instead of persons, and nothing that helps an attacker."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from bartizan.core.digest import digest_json
from bartizan.core.predicates import Card
from bartizan.lifecycle.develop.cards.fields import BY_NAME

ROLE_WORDS = frozenset({
    "admin", "ai", "board", "compliance", "contact", "data", "department", "desk", "dpo", "engineering", "feedback",
    "group", "head", "help", "info", "legal", "lead", "ml", "model", "models", "office", "officer", "operations",
    "ops", "owner", "owners", "platform", "privacy", "product", "quality", "report", "research", "risk", "safety",
    "science", "security", "service", "services", "soc", "support", "team",
})  # fmt: skip
"""Words of which addresses of roles are made, besides the words of the role itself."""
WITHHELD = "[withheld]"
_ADDRESS = re.compile(r"[\w.+'-]+@[\w-]+(?:\.[\w-]+)+")
_TELEPHONE = re.compile(r"(?<![\w.])(?:\+\d|\(?0)[\d ()/-]{6,}\d(?!\w)")


def public_view(card: Card) -> Card:
    """The card without facts that help an attacker or name a person.

    The owner is a role; an address is kept if it consists of words of that role or of ``ROLE_WORDS``
    and is replaced by ``role:...`` if it may be a person's. Addresses and telephone numbers inside
    texts are withheld by the same rule. Names inside texts cannot be recognised: do not write them
    there.
    """
    role = card.facts.get("owner", {}).get("role", "")
    facts = {
        name: _without_persons(value, role)
        for name, value in card.facts.items()
        if name in BY_NAME and BY_NAME[name].public
    }
    contact = _role_contact(card.owner, role)
    facts["owner"] = {"role": role, "contact": contact}
    facts["fullCard"] = digest_json(msgspec.to_builtins(card))
    return msgspec.structs.replace(card, owner=contact, facts=facts, check=None, inputs=(), report=None, summary="")


def verifies(view: Card, card: Card) -> bool:
    """Whether ``view`` is the unaltered public view of the full, signed ``card``."""
    return view == public_view(card)


def _role_contact(contact: str, role: str) -> str:
    """The address of a role; ``role:...`` in place of one that may be a person's."""
    return contact if not contact or _is_role_address(contact, role) else f"role:{'-'.join(_words(role))}"


def _is_role_address(address: str, role: str) -> bool:
    words = _words(address.partition("@")[0])
    return bool(words) and set(words) <= ROLE_WORDS | set(_words(role))


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def _without_persons(value: Any, role: str) -> Any:
    """The same JSON value with addresses of persons and telephone numbers withheld."""
    if isinstance(value, dict):
        return {name: _without_persons(item, role) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_persons(item, role) for item in value]
    if not isinstance(value, str):
        return value
    text = _ADDRESS.sub(lambda found: found[0] if _is_role_address(found[0], role) else WITHHELD, value)
    return _TELEPHONE.sub(WITHHELD, text)
