"""What only people can say of an environment: signed reviews that end."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from bartizan.core.finding import Finding, Severity
from bartizan.core.system import Claim
from bartizan.lifecycle.develop.environment.tested import Tested, answer


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a claim must consist of."""

    concern: str
    """Control of the catalogue that the decision names."""
    signers: int
    """Different people who must say so."""
    says: str


CLAIMS: dict[str, Asked] = {
    "mfa": Asked(concern="2.2-c", signers=1, says="privileged access needs a second factor"),
    "two-person-review": Asked(concern="2.2-e", signers=2, says="nobody changes code, data or models alone"),
}
"""Name in ``[environment] required`` to what satisfies it: decisions of kind ``review``, outcome yes."""


def claims(required: Sequence[str], said: Sequence[Claim], system: str) -> list[Tested]:
    """One test for each required claim; ``said`` are the claims that stand now."""
    return [_tested(name, CLAIMS[name], said, system) for name in dict.fromkeys(required)]


def _tested(name: str, asked: Asked, said: Sequence[Claim], system: str) -> Tested:
    signers = sorted({claim.signer for claim in said if claim.concern == asked.concern})
    findings = []
    if len(signers) < asked.signers:
        command = f"bartizan decide review --about {system} --concerns {asked.concern}"
        findings = [
            Finding(
                rule="environment/claim-missing",
                severity=Severity.HIGH,
                title=f"Nobody vouches that {asked.says}" if not signers else f"Too few vouch that {asked.says}",
                where=f"claim {name}",
                detail=f"{len(signers)} of {asked.signers} signed reviews stand",
                remedy=f'run `{command} --role ROLE --reason "..."`.',
                cwe=("CWE-308",) if name == "mfa" else ("CWE-654",),
                controls=(asked.concern,),
            )
        ]
    return answer(f"claims/{name}", findings, f"signed by {', '.join(signers)}" if signers else "")
