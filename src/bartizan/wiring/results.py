"""From a check's outcome to a signed statement, and back from its blob."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any

import msgspec

from bartizan.core import predicates
from bartizan.core.check import Blob, Outcome
from bartizan.core.digest import canonical_json
from bartizan.core.errors import StoreError
from bartizan.core.finding import Finding
from bartizan.core.statement import Statement, make
from bartizan.lifecycle.plan import Job

MEDIA_TYPE = "application/vnd.bartizan.report.v1+json"


class StoredReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The blob behind a result: who found what, and the check's own report."""

    check: str
    subject: str
    findings: tuple[Finding, ...] = ()
    report: msgspec.Raw = msgspec.Raw(b"null")
    """The check's report when it is JSON."""
    base64: str = ""
    """The check's report when it is not."""
    media_type: str = "application/json"

    def inner(self) -> bytes:
        """The check's own report."""
        return base64.b64decode(self.base64) if self.base64 else bytes(self.report)

    def flat(self) -> bytes:
        """The check's own report with the findings beside its other parts, as a reader wants it."""
        parts = msgspec.json.decode(self.inner()) if not self.base64 else {}
        plain = parts if isinstance(parts, dict) else {"report": parts}
        return canonical_json({**plain, "findings": msgspec.to_builtins(self.findings)})


def store_form(job: Job, outcome: Outcome) -> Blob:
    """Report and findings as one blob."""
    report = outcome.report
    plain: dict[str, Any] = {
        "check": job.check.name,
        "subject": job.subject.id,
        "findings": msgspec.to_builtins(outcome.findings),
    }
    if report is not None and report.media_type == "application/json":
        plain["report"] = msgspec.json.decode(report.data)
    elif report is not None:
        plain |= {"base64": base64.b64encode(report.data).decode(), "media_type": report.media_type}
    return Blob(canonical_json(plain), MEDIA_TYPE)


def read_report(data: bytes) -> StoredReport:
    """Read a blob made by ``store_form``.

    Raises:
        StoreError: it is no such blob.
    """
    try:
        return msgspec.json.decode(data, type=StoredReport)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StoreError(f"a report blob cannot be read: {error}", remedy="run the check again.") from error


def statement_of(job: Job, outcome: Outcome, blob: Blob, performed_at: datetime) -> Statement:
    """The statement that a result becomes: with its check, inputs and report."""
    predicate = msgspec.structs.replace(
        outcome.predicate,
        check=predicates.CheckRef(name=job.check.name, version=job.check.version),
        inputs=tuple(predicates.Input.of(name, digest) for name, digest in sorted(job.inputs.items())),
        report=predicates.Resource(digest={"sha256": blob.digest}, media_type=blob.media_type),
        performed_at=performed_at,
    )
    if isinstance(predicate, predicates.TestResult):
        configuration = tuple(
            predicates.Resource(name=name, digest={"sha256": digest}) for name, digest in sorted(job.inputs.items())
        )
        predicate = msgspec.structs.replace(predicate, configuration=configuration)
    return make(outcome.predicate_type, job.subject, predicate)


def stands_well(predicate: Any) -> bool:
    """Whether what waits for a result may go on: nothing in it failed."""
    match predicate:
        case predicates.TestResult():
            return predicate.result != "FAILED"
        case predicates.Assessment():
            return predicate.result != "failed"
        case predicates.Card():
            return predicate.complete
        case _:
            return True
