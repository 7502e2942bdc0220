"""What people vouch for of an environment: reviews that stand, read into the system that checks look at."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from bartizan.core import predicates
from bartizan.core.evidence import Evidence
from bartizan.core.system import Claim, System

KIND = "review"


def needs_claims(system: System) -> bool:
    """Whether the system asks people to vouch for something."""
    part = system.declaration.environment
    return part is not None and bool(part.required)


def with_claims(system: System, evidence: Iterable[Evidence]) -> System:
    """The same system, with the reviews about it that count now and say yes."""
    (itself,) = system.of_kind("system")
    found: dict[Claim, None] = {}
    for item in evidence:
        said = item.statement
        if not item.holds or said is None or said.predicate_type != predicates.DECISION:
            continue
        decision = said.read()
        if decision.kind == KIND and decision.outcome == "yes" and itself.digest in said.about():
            found.update(
                dict.fromkeys(
                    Claim(concern=concern, signer=signer) for concern in decision.concerns for signer in item.signers
                )
            )
    claims = tuple(sorted(found, key=lambda claim: (claim.concern, claim.signer)))
    return msgspec.structs.replace(system, claims=claims)
