"""A reviewer's desk: cases under the mask that their data asks for, decisions, and looks beneath the mask."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta
from typing import Any

import msgspec

from bartizan.core import envelope, predicates
from bartizan.core.digest import Digest
from bartizan.core.durations import deadline
from bartizan.core.errors import InputError
from bartizan.core.statement import Statement, make
from bartizan.core.system import System
from bartizan.lifecycle.deploy.gateway.cases import Case, Content, Kept, Settled, Tally
from bartizan.lifecycle.deploy.gateway.holds import milliseconds
from bartizan.lifecycle.deploy.gateway.masking import Masker, Treatment, sensitivity_of, view
from bartizan.redteam.statistics import proportion
from bartizan.targets.table import read_table
from bartizan.wiring import auditing
from bartizan.wiring.deciding import key_for, may_decide
from bartizan.wiring.reviewing import KIND, decisions, masker_of, open_vault, tables
from bartizan.wiring.workspace import Workspace

UNMASK = "review.unmask"
CONCERNS: Mapping[str, tuple[str, ...]] = {
    "held": ("1.2-h",),
    "flagged": ("3.2-d",),
    "filtered": ("4.2-g",),
    "sampled": ("3.2-e",),
}
"""Controls to which the decision about a case of each queue is evidence."""
MOST_ROWS = 64


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A decision about a case, as somebody put it."""

    case: str
    verdict: str
    reason: str
    role: str
    labels: tuple[str, ...] = ()
    """``CLASS``, or ``ROW=CLASS`` for batches."""
    expires: str = "1y"
    key: str = ""


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """A decision that was recorded."""

    case: str
    verdict: str
    envelope: Digest
    expires: datetime


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """A case as a reviewer sees it."""

    case: Case
    state: str
    more: int
    verdict: str
    reviewer: str
    statement: str
    masked: bool
    treatment: str
    rows: list[dict[str, str]]
    """At most 64; empty once the content was erased."""
    texts: list[str]
    answered: list[str]
    """Class of each row."""
    scores: list[dict[str, float]]
    erased: bool


class Desk:
    """A reviewer's desk. Close it."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._vault = open_vault(workspace, {})

    def close(self) -> None:
        """Let go of the database."""
        self._vault.store.close()

    def listed(self, *, queue: str, state: str, overdue: bool, limit: int) -> list[Kept]:
        """Cases, the most urgent first."""
        before = self._now() if overdue else None
        return self._vault.store.listed(queue=queue, state=state, due_before=before, limit=limit)

    def sampled(self, *, queue: str, count: int, seed: int) -> list[Kept]:
        """A random part of the open cases of a queue: the same seed draws the same ones."""
        cases = sorted(self.listed(queue=queue, state="open", overdue=False, limit=10_000), key=lambda one: one.case.id)
        return random.Random(seed).sample(cases, min(count, len(cases)))  # noqa: S311 - reproducible on purpose

    def tallies(self) -> dict[str, Tally]:
        """How each queue stands."""
        return self._vault.store.tallies(self._now())

    def is_overdue(self, kept: Kept) -> bool:
        """Whether it should have been decided by now."""
        return kept.state == "open" and kept.case.due < self._now()

    def show(self, case_id: str) -> Shown:
        """A case under the policy for its data.

        Raises:
            InputError: there is none.
        """
        kept = self._kept(case_id)
        system = self._workspace.system()
        masker = masker_of(self._workspace, tables(self._workspace).masking)
        sensitivity, personal = _class(system, kept.case.model)
        treatment = masker.settings.treatment(sensitivity)
        return self._shown(kept, system, masker, treatment, personal=personal)

    def unmask(self, case_id: str, *, reason: str, role: str, key: str) -> Shown:
        """A case without a mask, once it is on record who looked at it and why.

        Raises:
            InputError: there is none.
            TrustError: the key may not review in that role; nothing is shown.
        """
        kept = self._kept(case_id)
        signer = self._workspace.signer(key or key_for(self._workspace, role))
        may_decide(self._workspace, signer.keyid, role, KIND)
        self._need_reviewer(kept.case, role)
        said, seen = _unmasked(kept.case, reason, role, self._workspace.clock())
        bodies = [
            envelope.seal_statement(said, [signer]),
            envelope.seal_statement(seen, [self._workspace.service]),
        ]
        self._workspace.append(bodies)
        _to_audit(self._workspace, kept.case, f"{signer.keyid[:12]} as {role}: {reason}")
        system = self._workspace.system()
        masker = masker_of(self._workspace, tables(self._workspace).masking)
        return self._shown(kept, system, masker, "keep", personal=False)

    def decide(self, asked: Asked) -> Decided:
        """Sign and record what a person says of a case.

        Raises:
            InputError: there is no such open case, its time is over, or the labels are none of its classes.
            TrustError: the key may not review in that role; nothing is recorded.
        """
        workspace = self._workspace
        signer = workspace.signer(asked.key or key_for(workspace, asked.role))
        may_decide(workspace, signer.keyid, asked.role, KIND)
        with workspace.view() as seen:
            owner = seen.trust.principal_of(signer.keyid)
        reviewer = owner.id if owner else signer.keyid[:12]
        now = workspace.clock()
        expires = deadline(asked.expires, now)
        if expires <= now:
            raise InputError(f"{asked.expires} is over already", remedy="give a later end, such as 1y.")

        def conclude(kept: Kept) -> Settled:
            self._need_reviewer(kept.case, asked.role)
            said = self._said(kept, asked, expires, now)
            digest = workspace.publish(said, signer)
            return Settled(at=int(now.timestamp() * 1000), statement=digest, verdict=asked.verdict, reviewer=reviewer)

        before = self._kept(asked.case)
        withdrawn = before.statement if before.state == "decided" and decisions(workspace)(before.case) is None else ""
        kept = self._vault.store.settle(asked.case, conclude, again=withdrawn)
        return Decided(case=asked.case, verdict=asked.verdict, envelope=Digest(kept.statement), expires=expires)

    def record(self) -> Digest | None:
        """State how reviews stand, as a signed observation about the system; None when there is nothing to state."""
        tallies = self.tallies()
        if not tallies:
            return None
        system, now = self._workspace.system(), self._workspace.clock()
        itself = next(artefact for artefact in system.artefacts if artefact.kind == "system")
        return self._workspace.publish(_standing(itself.id, itself.digest, tallies, now), self._workspace.service)

    def sweep(self) -> int:
        """Erase the content of cases that were kept for long enough; gives how many."""
        known, now = tables(self._workspace), self._now()
        held, reviewed = milliseconds(known.holds.retention), milliseconds(known.review.retention)
        store = self._vault.store
        return store.erase(("held",), now - held) + store.erase(("flagged", "filtered", "sampled"), now - reviewed)

    def _now(self) -> int:
        return int(self._workspace.clock().timestamp() * 1000)

    def _kept(self, case_id: str) -> Kept:
        kept = self._vault.store.find(case_id)
        if kept is None:
            raise InputError(f"no case is called {case_id[:40]!r}", remedy="see `bartizan review list`.")
        return kept

    def _need_reviewer(self, case: Case, role: str) -> None:
        known = tables(self._workspace)
        allowed = known.holds.reviewers if case.queue == "held" else known.review.reviewers
        if role not in allowed:
            raise InputError(f"{role!r} does not review {case.queue} cases", remedy=f"one of {', '.join(allowed)}.")

    def _said(self, kept: Kept, asked: Asked, expires: datetime, now: datetime) -> Statement:
        case = kept.case
        if case.queue == "held" and int(now.timestamp() * 1000) > case.due:
            raise InputError(f"the time of case {case.id} is over", remedy="its caller was told the declared default.")
        labels = self._labels(kept, asked)
        return make(
            predicates.DECISION,
            {f"case:{case.id}": case.digest},
            msgspec.convert(
                {
                    "kind": KIND,
                    "outcome": "yes" if asked.verdict == "confirm" else "no",
                    "reason": asked.reason,
                    "role": asked.role,
                    "expires": expires,
                    "concerns": CONCERNS[case.queue],
                    "details": {
                        "case": case.id,
                        "queue": case.queue,
                        "request": case.request,
                        "model": case.model,
                        "modelDigest": case.model_digest,
                        "verdict": asked.verdict,
                        **({"labels": labels} if labels else {}),
                    },
                    "decidedAt": now,
                },
                predicates.Decision,
            ),
        )

    def _labels(self, kept: Kept, asked: Asked) -> dict[str, str]:
        """Row to class. Raises InputError when they do not fit the verdict and the case."""
        if (asked.verdict == "change") != bool(asked.labels):
            raise InputError("a label belongs to --verdict change", remedy="give --label CLASS, or --label ROW=CLASS.")
        if not asked.labels:
            return {}
        content = self._vault.content(kept)
        if content is None or not content.labels:
            raise InputError(f"nothing is known any more of case {kept.case.id}", remedy="confirm or reject it.")
        found = {}
        for label in asked.labels:
            row, _, name = label.partition("=") if label not in content.classes else ("0", "", label)
            is_row = row.isdecimal() and int(row) < len(content.labels)
            if not is_row or name not in content.classes or (label == name and len(content.labels) > 1):
                allowed = f"classes are {', '.join(content.classes[:20])}; rows 0 to {len(content.labels) - 1}"
                raise InputError(f"--label {label[:60]!r} says nothing of this case", remedy=f"{allowed}.")
            found[str(int(row))] = name
        return found

    def _shown(self, kept: Kept, system: System, masker: Masker, treatment: Treatment, *, personal: bool) -> Shown:
        content = self._vault.content(kept)
        rows: list[dict[str, str]] = []
        if content is not None:
            columns, ranges = _columns(system, kept.case.model, content)
            numbers = content.numbers()[:MOST_ROWS].tolist()
            rows = [view(masker, columns, row, ranges, treatment=treatment, personal=personal) for row in numbers]
        texts = [masker.text(text, treatment).text for text in content.texts] if content else []
        return Shown(
            case=kept.case,
            state=kept.state,
            more=kept.more,
            verdict=kept.verdict,
            reviewer=kept.reviewer,
            statement=kept.statement,
            masked=treatment != "keep",
            treatment=treatment,
            rows=rows,
            texts=texts,
            answered=_answered(content),
            scores=_scores(content),
            erased=content is None,
        )


def _class(system: System, model: str) -> tuple[Any, bool]:
    """Sensitivity of the data of a model, and whether it is personal; the worst where that is not known."""
    try:
        part = system.model_part(model)
        datasets = [system.dataset_part(name) for name in (part.trained_on, part.evaluated_on)]
    except KeyError:
        return sensitivity_of([])
    return sensitivity_of([(dataset.sensitivity, dataset.personal_data) for dataset in datasets])


def _columns(system: System, model: str, content: Content) -> tuple[Sequence[str], Mapping[str, tuple[float, float]]]:
    """Names of the columns and their ranges, where the declared data still has as many as the case."""
    try:
        part = system.model_part(model)
        dataset = system.dataset_part(part.trained_on)
        artefact = system.artefact(f"dataset:{part.trained_on}")
        table = read_table(artefact.path, dataset, digest=artefact.digest)
    except (KeyError, InputError):
        return content.columns, {}
    if len(table.columns) != content.shape[1] or dataset.shape:
        return content.columns, {}
    seen = {
        name: (float(low), float(high))
        for name, low, high in zip(table.columns, table.rows.min(axis=0), table.rows.max(axis=0), strict=True)
    }
    return table.columns, seen | dict(dataset.ranges)


def _answered(content: Content | None) -> list[str]:
    labels = content.labels[:MOST_ROWS] if content else ()
    return [content.classes[label] if 0 <= label < len(content.classes) else "?" for label in labels] if content else []


def _scores(content: Content | None) -> list[dict[str, float]]:
    answer = content.answer() if content else None
    if content is None or answer is None or answer.scores is None:
        return []
    return [dict(zip(content.classes, map(float, row), strict=True)) for row in answer.scores[:MOST_ROWS].round(4)]


def _unmasked(case: Case, reason: str, role: str, now: datetime) -> tuple[Statement, Statement]:
    """The reviewer's own statement that they looked, and the service's that somebody did."""
    about = {f"case:{case.id}": case.digest}
    said = predicates.Decision(
        kind="review",
        outcome="yes",
        reason=reason,
        role=role,
        expires=now + timedelta(days=366),
        concerns=("3.2-f",),
        details={"case": case.id, "action": "unmask"},
        decided_at=now,
    )
    summary = f"The content of a {case.queue} case was shown unmasked to a reviewer in the role {role}."
    seen = predicates.Observation(
        kind=UNMASK, observed_from=now, observed_until=now, alerts=("unmasked",), summary=summary
    )
    return make(predicates.DECISION, about, said), make(predicates.OBSERVATION, about, seen)


def _to_audit(workspace: Workspace, case: Case, reason: str) -> None:
    """Put it into the audit log too, where there is one."""
    record = auditing.act(
        UNMASK,
        caller=auditing.reader(),
        reasons=(f"case {case.id}", reason),
        model=case.model,
        model_digest=case.model_digest,
        rows=case.rows,
    )
    with ExitStack() as stack:
        try:
            store = stack.enter_context(auditing.opened(workspace))
        except InputError:
            return
        auditing.record_act(workspace, store, record)


def _standing(name: str, digest: Digest, tallies: Mapping[str, Tally], now: datetime) -> Statement:
    metrics = {}
    for queue, tally in tallies.items():
        for what, value in (("open", tally.open), ("overdue", tally.overdue), ("decided", tally.decided)):
            count = float(value)
            metrics[f"{queue}.{what}"] = predicates.Metric(value=count, low=count, high=count, n=1, method="counted")
        if tally.decided:
            metrics[f"{queue}.changed"] = proportion(tally.changed, tally.decided).metric()
    late = sum(tally.overdue for tally in tallies.values())
    total = sum(tally.decided for tally in tallies.values())
    said = predicates.Observation(
        kind=KIND,
        observed_from=now,
        observed_until=now,
        metrics=metrics,
        alerts=("overdue",) if late else (),
        summary=f"{total} cases were reviewed; {late} are overdue.",
    )
    return make(predicates.OBSERVATION, {name: digest}, said)


__all__ = ["Asked", "Decided", "Desk", "Shown"]
