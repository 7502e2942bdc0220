"""Events for a SIEM, in the words of the Open Cybersecurity Schema Framework (https://schema.ocsf.io, 1.5).

One event for each request that was not plainly answered, each answer that a guard flagged, each act of
administration, and each thing that happens to the gateway itself. What policy refused is an API Activity (6003), what
a guard said is a Detection Finding (2004), administration is Entity Management (3004), and the gateway's own state
is an Application Lifecycle event (6002).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from bartizan import __version__
from bartizan.lifecycle.deploy.gateway.audit.record import Record, Ruling
from bartizan.lifecycle.deploy.gateway.telemetry.settings import Kind

VERSION = "1.5.0"
PROFILES = ["host", "security_control"]
MOST_REASONS = 16
MOST_WORDS = 300
PRODUCT = {"name": "Bartizan gateway", "vendor_name": "Bartizan", "version": __version__}
NOTABLE = frozenset({"flag", "coarsen", "hold", "throttle", "refuse"})
SEVERITIES: Mapping[Kind, int] = {
    "refused": 2,
    "throttled": 2,
    "coarsened": 3,
    "flagged": 3,
    "held": 3,
    "failed": 4,
    "admin": 1,
    "state": 3,
}
"""1 informational, 2 low, 3 medium, 4 high."""
_DISPOSITIONS: Mapping[Kind, int] = {"refused": 2, "throttled": 14, "held": 3, "coarsened": 11, "flagged": 19}
"""1 allowed, 2 blocked, 3 quarantined, 11 corrected, 14 delayed, 19 alert."""
_OTHER, _ALLOWED, _DENIED = 99, 1, 2
_BAD_REQUEST = 400


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One event before it is written."""

    kind: Kind
    id: str
    at: int
    """Milliseconds since the epoch."""
    content: dict[str, Any]

    def encoded(self, suppressed: int = 0) -> bytes:
        """A line of JSON without its end; ``suppressed`` like it went before and were not written."""
        content = {**self.content, "count": suppressed + 1} if suppressed else self.content
        return _ENCODER.encode(content)


_ENCODER = msgspec.json.Encoder()


def kind_of(record: Record) -> Kind | None:
    """What an event about a record is about; None when nothing is to be told."""
    if record.operation.startswith("admin."):
        return "admin"
    if record.decision != "answered":
        return _KINDS.get(record.decision, "failed")
    flagged = any(ruling.action in NOTABLE and not ruling.shadow for ruling in record.rulings)
    return "flagged" if flagged else None


_KINDS: Mapping[str, Kind] = {
    "refused": "refused",
    "throttled": "throttled",
    "held": "held",
    "coarsened": "coarsened",
    "failed": "failed",
}


def of_record(kind: Kind, record: Record) -> Event:
    """The event about a record."""
    at = record.at // 1_000_000
    told = [ruling for ruling in record.rulings if ruling.action in NOTABLE and not ruling.shadow]
    if kind == "admin":
        content = _administration(record)
    elif told:
        content = _finding(record, told)
    else:
        content = _activity(record)
    base = _base(kind, at, record.id)
    actor = {"user": {"uid": record.caller, "type": record.method, "groups": [{"name": record.role}]}}
    inside = {
        "decision": record.decision,
        "reasons": [reason[:MOST_WORDS] for reason in record.reasons[:MOST_REASONS]],
        "detail": record.detail,
        "rows": record.rows,
        "configuration": record.configuration,
        "input": record.input,
    }
    return Event(kind=kind, id=record.id, at=at, content={**base, "actor": actor, **content, "unmapped": inside})


def of_state(what: str, to: str, at: float, detail: str = "") -> Event:
    """The event about something that happened to the gateway: ``switch``, ``withdrawn``, ``start``, ``stop`` ..."""
    milliseconds = int(at * 1000)
    activity = {"start": 3, "stop": 4, "withdrawn": 7, "switch": 8}.get(what, _OTHER)
    content = {
        **_base("state", milliseconds, f"state-{milliseconds}"),
        **_class(6, 6002, activity),
        "activity_name": what,
        "app": {**PRODUCT, "uid": to},
        "message": detail[:MOST_WORDS],
    }
    return Event(kind="state", id=f"state-{milliseconds}", at=milliseconds, content=content)


def _base(kind: Kind, at: int, uid: str) -> dict[str, Any]:
    return {
        "time": at,
        "severity_id": SEVERITIES[kind],
        "metadata": {
            "version": VERSION,
            "profiles": PROFILES,
            "product": PRODUCT,
            "uid": uid,
            "event_code": kind,
        },
    }


def _class(category: int, number: int, activity: int) -> dict[str, int]:
    kind = number * 100 + activity
    return {"category_uid": category, "class_uid": number, "activity_id": activity, "type_uid": kind}


def _activity(record: Record) -> dict[str, Any]:
    """API Activity: what was asked, and that it was not answered."""
    return {
        **_class(6, 6003, 2),
        "api": _api(record),
        "src_endpoint": {"name": "not recorded"},
        "resources": [_model(record)],
        **_outcome(record),
    }


def _finding(record: Record, told: list[Ruling]) -> dict[str, Any]:
    """Detection Finding: what guards said of a request, and what followed."""
    loudest = told[-1]
    return {
        **_class(2, 2004, 1),
        "is_alert": True,
        "finding_info": {
            "uid": record.id,
            "title": f"{loudest.guard}: {loudest.action}",
            "types": [ruling.guard for ruling in told[:MOST_REASONS]],
            "analytic": {"name": loudest.guard, "type_id": _OTHER},
        },
        "evidences": [
            {"api": _api(record), "data": {"guard": item.guard, "action": item.action, "measures": item.measures}}
            for item in told[:MOST_REASONS]
        ],
        "resources": [_model(record)],
        **_outcome(record),
    }


def _administration(record: Record) -> dict[str, Any]:
    """Entity Management: who changed what."""
    verb = record.operation.rpartition(".")[2]
    activity = {"add": 1, "read": 2, "list": 2, "change": 3, "remove": 4}.get(verb, _OTHER)
    return {
        **_class(3, 3004, activity),
        "activity_name": verb,
        "entity": {"name": record.operation, "uid": record.id, "type": "gateway"},
        **_outcome(record),
    }


def _api(record: Record) -> dict[str, Any]:
    return {
        "operation": record.operation,
        "request": {"uid": record.id},
        "response": {"code": record.status},
        "service": {"name": "gateway"},
    }


def _model(record: Record) -> dict[str, str]:
    return {"name": record.model, "uid": record.model_digest, "type": "model"}


def _outcome(record: Record) -> dict[str, Any]:
    kind = _KINDS.get(record.decision, "flagged")
    return {
        "status_id": 2 if record.status >= _BAD_REQUEST else 1,
        "status_code": str(record.status),
        "action_id": _DENIED if kind in {"refused", "throttled", "held", "failed"} else _ALLOWED,
        "disposition_id": _DISPOSITIONS.get(kind, _OTHER),
        "duration": record.microseconds // 1000,
    }


__all__ = ["NOTABLE", "SEVERITIES", "Event", "kind_of", "of_record", "of_state"]
