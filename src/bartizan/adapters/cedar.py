"""Cedar: policies over attributes (https://www.cedarpolicy.com), by the ``cedarpy`` library.

Policies are validated against the schema below before the first question, so that one with a slip of the pen stops
the gateway from starting. Of a caller they see role, way of recognition, factors, groups (``principal in
Group::"..."``) and attributes (``principal.hasTag("organisation") && principal.getTag("organisation") == "..."``); of a
model its name and digest. Cedar itself passes over a policy that cannot be evaluated, even one that forbids; here an
error is a no.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import cedarpy

from bartizan.core.digest import Digest
from bartizan.core.errors import InputError
from bartizan.lifecycle.deploy.gateway.caller import Caller

MOST_LETTERS = 1 << 18
MOST_OF_ONE = 1 << 14
"""Letters of one policy, and brackets within one another: the library's reader ends the whole process when its stack
is full, which 1,000 brackets or 10,000 branches of an ``if`` are enough for (seen with 4.12)."""
MOST_DEPTH = 64
MOST_ERRORS = 5
ITSELF = "bartizan"
"""Resource of operations that are about no model."""
_MARKS = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*|[()\[\]{};]', re.DOTALL)
_SCHEMA = """
entity Group;
entity Caller in [Group] = { role: String, method: String, factors: Set<String> } tags String;
entity Model = { digest: String };
entity Gateway;
"""


def schema_of(operations: Iterable[str]) -> str:
    """The schema that policies have to fit: operations are actions, each in a group named after its first word."""
    names = sorted(set(operations))
    groups = sorted({name.partition(".")[0] for name in names if "." in name} - set(names))
    lines = [_SCHEMA, *(f"action {json.dumps(group)};" for group in groups)]
    for name in names:
        group = name.partition(".")[0]
        within = f" in [{json.dumps(group)}]" if group in groups else ""
        lines.append(
            f"action {json.dumps(name)}{within} appliesTo {{ principal: Caller, resource: [Model, Gateway] }};"
        )
    return "\n".join(lines)


class CedarPolicies:
    """See ``policy.Attributes``. ``operations`` are all that can be asked, with the details as ``detail.NAME``."""

    def __init__(self, text: str, operations: Sequence[str]) -> None:
        """Read and validate.

        Raises:
            InputError: the policies cannot be read, or speak of what is not there; the first few faults are named.
        """
        _check_size(text)
        schema = schema_of(operations)
        try:
            result = cedarpy.validate_policies(text, schema)
            faults = [str(error)[:300] for error in result.errors]
            if result.validation_passed and not faults:
                self._policies = cedarpy.PolicySet.from_str(text)
                self._schema = cedarpy.Schema.from_str(schema)
                return
        except ValueError as error:
            faults = [str(error)[:300]]
        shown = "; ".join(faults[:MOST_ERRORS]) or "no reason is given"
        raise InputError(f"the Cedar policies cannot be used: {shown}", remedy="mend them and register them anew.")

    def permits(self, caller: Caller, operation: str, model: str, digest: Digest) -> tuple[bool, tuple[str, ...]]:
        """See ``policy.Attributes.permits``."""
        resource = {"type": "Model", "id": model} if model else {"type": "Gateway", "id": ITSELF}
        request = {
            "principal": {"type": "Caller", "id": caller.id},
            "action": {"type": "Action", "id": operation},
            "resource": resource,
            "context": {},
        }
        try:
            answer = cedarpy.is_authorized(request, self._policies, _entities(caller, resource, digest), self._schema)
        except Exception as error:  # noqa: BLE001 - whatever the engine raises, nothing is permitted by it
            return False, (f"cedar: {type(error).__name__}",)
        return _concluded(answer, operation)


def _check_size(text: str) -> None:
    """Refuse what the library could not read without harm."""
    if len(text) > MOST_LETTERS:
        raise InputError(f"Cedar policies have at most {MOST_LETTERS} letters")
    depth = begins = 0
    for match in _MARKS.finditer(text):
        mark = match[0]
        depth = max(0, depth + (mark in "([{") - (mark in ")]}"))
        if mark == ";" and not depth:
            begins, depth = match.end(), 0
        if depth > MOST_DEPTH or match.end() - begins > MOST_OF_ONE:
            raise InputError(
                f"a Cedar policy has more than {MOST_OF_ONE} letters, or {MOST_DEPTH} brackets within one another",
                remedy="write several smaller ones.",
            )
    if len(text) - begins > MOST_OF_ONE:
        raise InputError(f"a Cedar policy has more than {MOST_OF_ONE} letters", remedy="write several smaller ones.")


def _concluded(answer: cedarpy.AuthzResult, operation: str) -> tuple[bool, tuple[str, ...]]:
    found = answer.diagnostics
    if found.errors:
        return False, (f"cedar: {str(found.errors[0])[:300]}",)
    names = tuple(f"cedar: {found.id_annotations_by_reason.get(each) or each}"[:200] for each in found.reasons)
    if answer.decision is cedarpy.Decision.Allow:
        return True, names
    return False, names or (f"cedar: no policy permits {operation}",)


def _entities(caller: Caller, resource: dict[str, str], digest: Digest) -> list[dict[str, Any]]:
    groups = [{"type": "Group", "id": group} for group in caller.groups]
    attributes = {"role": caller.role, "method": caller.method, "factors": list(caller.factors)}
    uid = {"type": "Caller", "id": caller.id}
    return [
        {"uid": uid, "attrs": attributes, "tags": caller.attributes, "parents": groups},
        {"uid": resource, "attrs": {"digest": digest} if resource["type"] == "Model" else {}, "parents": []},
    ]


__all__ = ["ITSELF", "CedarPolicies", "schema_of"]
