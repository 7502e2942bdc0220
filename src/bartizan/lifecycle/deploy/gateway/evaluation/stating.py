"""An assessment of a model, as what a check found out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from bartizan.core.check import Blob, Outcome
from bartizan.core.digest import canonical_json
from bartizan.core.finding import Finding
from bartizan.core.predicates import ASSESSMENT, Assessment


def stated(assessment: Assessment, report: Mapping[str, Any], findings: tuple[Finding, ...] = ()) -> Outcome:
    """The outcome of a check whose report holds, beside what is given, the assessment itself."""
    whole = {**report, "statement": assessment}
    return Outcome(
        predicate_type=ASSESSMENT,
        predicate=assessment,
        findings=findings,
        report=Blob(canonical_json(msgspec.to_builtins(whole, str_keys=True))),
    )


__all__ = ["stated"]
