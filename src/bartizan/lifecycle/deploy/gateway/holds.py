"""Held answers: kept back until a person has confirmed them, or until a deadline has passed.

A case is confirmed, changed or rejected by a signed decision in the ledger; what the case store says of it releases
nothing. When nobody has decided in time, the declared default happens: no answer, unless the configuration says
otherwise. Callers see their own cases alone, and what their role may see now.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from bartizan.core.errors import InputError
from bartizan.lifecycle.deploy.gateway.caller import Caller
from bartizan.lifecycle.deploy.gateway.cases import MOST_NUMBERS, Case, Content, Kept, Room
from bartizan.lifecycle.deploy.gateway.failures import RequestError
from bartizan.lifecycle.deploy.gateway.front import Policy, Teller
from bartizan.lifecycle.deploy.gateway.guard import Answer, Asked
from bartizan.lifecycle.deploy.gateway.protocol import Output
from bartizan.lifecycle.deploy.gateway.vault import Vault, Wanted

FULL = "this cannot be answered now"
Term = Annotated[str, msgspec.Meta(pattern=r"^[1-9][0-9]{0,4}(s|min|h|d)\Z")]
"""``30s``, ``15min``, ``24h``, ``7d``."""
Word = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Roles = Annotated[tuple[Word, ...], msgspec.Meta(min_length=1, max_length=16)]
_SECONDS = {"s": 1, "min": 60, "h": 3_600, "d": 86_400}


def milliseconds(term: str) -> int:
    """Length of a term."""
    number = term.rstrip("sminhd")
    return int(number) * _SECONDS[term[len(number) :]] * 1000


class HoldSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[holds]``: what becomes of answers that guards hold."""

    deadline: Term = "24h"
    """Time in which a person has to decide."""
    default: Literal["no-answer", "answer", "class"] = "no-answer"
    """What happens when nobody has: nothing is answered, what was held is, or ``default_class`` is."""
    default_class: Annotated[str, msgspec.Meta(max_length=256)] = ""
    """The class that errs on the safe side."""
    capacity: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1_000
    """Held cases altogether; one more is refused."""
    per_caller: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 50
    """Held cases of one caller; one more is refused."""
    retention: Term = "30d"
    """Time after the decision, or the deadline, after which what was asked and answered is erased."""
    reviewers: Roles = ("domain", "security", "ml", "risk-owner")
    """Roles of the trust document in which people decide."""

    def __post_init__(self) -> None:
        if (self.default == "class") != bool(self.default_class):
            raise ValueError('default_class stands beside default = "class", and only there')


class Ruled(msgspec.Struct, frozen=True, kw_only=True):
    """A person's decision about a case that counts."""

    verdict: Literal["confirm", "change", "reject"]
    role: str
    """In which it was decided."""
    at: int
    """When the ledger received it, milliseconds since the epoch."""
    labels: dict[str, str] = {}
    """Row, counted from 0, to the class that is answered instead."""


Decisions = Callable[[Case], Ruled | None]
"""The first decision about a case that counts now. Blocks. Raises BartizanError when that cannot be told."""


class Holds:
    """Keeps answers back and gives them out. Blocks: used beside the event loop."""

    def __init__(
        self,
        settings: HoldSettings,
        vault: Vault,
        *,
        decisions: Decisions,
        policy: Policy,
        teller: Teller,
    ) -> None:
        """Take everything.

        Raises:
            InputError: the class that is answered by default is none of a model's.
        """
        self.settings, self._vault = settings, vault
        self._decisions, self._policy, self._teller = decisions, policy, teller
        self._term, self._keep = milliseconds(settings.deadline), milliseconds(settings.retention)
        self._room = Room(capacity=settings.capacity, per_caller=settings.per_caller)
        for name, known in vault.models.items():
            if settings.default_class and settings.default_class not in known.classes:
                raise InputError(
                    f"holds.default_class: {settings.default_class!r} is no class of {name}",
                    remedy=f"one of {', '.join(known.classes[:20])}.",
                )

    def hold(self, asked: Asked, answer: Answer, reasons: tuple[str, ...]) -> dict[str, Any]:
        """Keep an answer back. The same question of the same caller is the same case as long as it is open.

        Raises:
            RequestError: there is no room, or the question is too large to be kept.
            StoreError: it cannot be kept.
        """
        if asked.rows.size > MOST_NUMBERS:
            raise RequestError(413, FULL, reason=f"a held question has at most {MOST_NUMBERS} numbers")
        opened = int(asked.now * 1000)
        wanted = Wanted(queue="held", opened=opened, due=opened + self._term, room=self._room, most=len(asked.rows))
        kept = self._vault.keep(wanted, asked, answer, reasons)
        if kept is None:
            raise RequestError(503, FULL, headers={"retry-after": "60"}, reason="no room for more held cases")
        return _told(kept.case, "waiting")

    def outcome(self, case_id: str, caller: Caller, now: float) -> dict[str, Any] | None:
        """What became of a case; None when this caller has no such one.

        Raises:
            RequestError: the caller may not ask this model any more.
            BartizanError: it cannot be found out.
        """
        kept = self._vault.store.find(case_id)
        if kept is None or kept.case.queue != "held" or kept.case.caller != caller.id:
            return None
        granted = self._policy.decide(caller, "infer", kept.case.model, kept.case.model_digest)
        state, answer, content = self._state(kept, int(now * 1000))
        if answer is None or content is None:
            return _told(kept.case, state)
        asked = Asked(
            request=kept.case.request,
            caller=caller,
            model=kept.case.model,
            digest=kept.case.model_digest,
            rows=content.numbers(),
            now=now,
            verified=content.verified,
        )
        outputs = self._teller.tell(answer, asked, granted.role, coarse=False)
        return _told(kept.case, state) | {"outputs": [_tensor(*each, content.shape[0]) for each in outputs.items()]}

    def sweep(self, now: int) -> int:
        """Erase the content of cases whose time is over; gives how many."""
        return self._vault.store.erase(("held",), now - self._keep)

    def _state(self, kept: Kept, now: int) -> tuple[str, Answer | None, Content | None]:
        """The state, and what is answered now; a decision counts when it came before the deadline."""
        # Until the store says that it was decided, or its time is over, there is nothing to look up: waiting is cheap.
        ruled = self._decisions(kept.case) if kept.state == "decided" or now > kept.case.due else None
        if ruled is not None and (ruled.role not in self.settings.reviewers or ruled.at > kept.case.due):
            ruled = None
        if ruled is None and now <= kept.case.due:
            return "waiting", None, None
        if ruled is not None and ruled.verdict == "reject":
            return "refused", None, None
        content = self._vault.content(kept)
        answer = content.answer() if content is not None else None
        if answer is None or content is None:
            return "expired", None, None
        if ruled is None:
            return self._default(answer, content)
        try:
            return "answered", _changed(answer, ruled.labels, content.classes), content
        except (ValueError, IndexError):
            return "refused", None, None  # it was changed into something that cannot be

    def _default(self, answer: Answer, content: Content) -> tuple[str, Answer | None, Content | None]:
        match self.settings.default:
            case "answer":
                return "answered", answer, content
            case "class":
                safe = content.classes.index(self.settings.default_class)
                return "answered", Answer(np.full(len(answer.labels), safe, np.int64), None, "fallback"), content
        return "expired", None, None


def _changed(answer: Answer, labels: Mapping[str, str], classes: tuple[str, ...]) -> Answer:
    """The answer with a person's labels in their place; a person gives no probabilities."""
    if not labels:
        return answer
    changed = np.array(answer.labels, np.int64)
    for row, name in labels.items():
        if not row.isdecimal():
            raise ValueError(row)
        changed[int(row)] = classes.index(name)
    return Answer(changed, None, "review")


def _told(case: Case, state: str) -> dict[str, Any]:
    """What a caller is told of a case."""
    return {
        "case": case.id,
        "state": state,
        "deadline": f"{datetime.fromtimestamp(case.due / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}",
        "model_name": case.model,
        "model_version": case.model_digest,
    }


def _tensor(name: str, output: Output, rows: int) -> dict[str, Any]:
    shape = [rows] if output.width == 1 else [rows, output.width]
    return {"name": name, "datatype": output.datatype, "shape": shape, "data": output.data}


__all__ = [
    "FULL",
    "Decisions",
    "HoldSettings",
    "Holds",
    "Ruled",
    "Term",
    "milliseconds",
]
