"""Intake of one thing: quarantine, examine, ask, decide, and only then register.

A case is a folder in quarantine with a copy that nothing writes to any more, and ``case.json``. Every
step leaves a statement about the copy's digest in the ledger; a step whose statement holds is not done
again, so a case that was interrupted goes on where it was.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

import bartizan
from bartizan.core import predicates
from bartizan.core.check import Blob
from bartizan.core.digest import Digest, canonical_json, digest_bytes, digest_json
from bartizan.core.durations import deadline
from bartizan.core.errors import ArtefactError, BartizanError, EvidenceError, InputError
from bartizan.core.evidence import Evidence
from bartizan.core.gate import GateResult, verdict
from bartizan.core.keys import keyid_of, load_public
from bartizan.core.statement import make
from bartizan.core.system import Artefact
from bartizan.lifecycle.develop.intake import policy, sources
from bartizan.lifecycle.develop.intake.policy import Kind, supplier_artefact
from bartizan.lifecycle.develop.intake.questions import Answers, Supplier
from bartizan.lifecycle.develop.scan.acceptance import Policy as ScanPolicy
from bartizan.lifecycle.develop.scan.acceptance import judge as judge_scan
from bartizan.lifecycle.develop.scan.check import RULES_INPUT, predicate_of, rules_digest, summary
from bartizan.lifecycle.develop.scan.scanner import scan_path
from bartizan.lifecycle.develop.sign import MAX_BUNDLE_BYTES, sign_manifest, verify_bundle
from bartizan.wiring import samples
from bartizan.wiring.deciding import key_for, may_decide
from bartizan.wiring.suppliers import NAME, Suppliers
from bartizan.wiring.workspace import Workspace

QUARANTINE = ".bartizan/quarantine"
CASE_FILE = "case.json"
CONTENT = "content"
SIGNATURE = "signature.json"
VERIFIER = "urn:bartizan:intake"
ANNOUNCED, ANSWERS, SAMPLES = "announced", "answers", "samples"
"""Names under which statements rest on what was said of a case."""
State = Literal["quarantined", "admitted", "rejected"]


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that wants to come in."""

    id: str
    kind: Kind
    name: str
    supplier: str
    digest: Digest
    source: str
    """Path that it was taken from, as given."""
    origin: sources.Origin
    answers: Answers = Answers()
    expected: str = ""
    """Digest that whoever asked was told, by another way."""
    signature: str = ""
    """Name of the kept signature; empty without one."""
    samples: samples.Wanted | None = None
    opened_at: datetime
    state: State = "quarantined"
    admitted_to: str = ""

    @property
    def artefact_id(self) -> str:
        """``model:NAME`` or ``dataset:NAME``."""
        return f"{self.kind}:{self.name}"


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What whoever takes something in says about it."""

    kind: Kind
    name: str
    supplier: str
    answers: Answers = Answers()
    expected: str = ""
    signature: Path | None = None
    samples: samples.Wanted | None = None


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """A case as it stands."""

    case: Case
    result: GateResult
    scan: str
    """The scan in one sentence."""

    @property
    def is_dangerous(self) -> bool:
        """Whether the scan stands against it."""
        return any(each.rule.id == "scan" and each.state == "unmet" for each in self.result.results)


class Intake:
    """The quarantine of a project."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.folder = workspace.folder / QUARANTINE
        self.suppliers = Suppliers(workspace)

    # ---- cases

    def cases(self) -> list[Case]:
        """All cases, oldest first."""
        found = [self._read(path) for path in self.folder.glob(f"*/{CASE_FILE}")]
        return sorted(found, key=lambda case: (case.opened_at, case.id))

    def case(self, wanted: str) -> Case:
        """The case with this id, the beginning of one, or this name.

        Raises:
            InputError: there is none, or more than one.
        """
        found = [case for case in self.cases() if wanted and (case.id.startswith(wanted) or case.name == wanted)]
        if len(found) != 1:
            known = ", ".join(f"{case.id} ({case.name})" for case in self.cases()) or "none"
            raise InputError(f"{wanted!r} is not the id of one case", remedy=f"cases: {known}.")
        return found[0]

    def _read(self, path: Path) -> Case:
        try:
            case = msgspec.json.decode(path.read_bytes(), type=Case)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise InputError(
                f"the case {path.parent.name} cannot be read: {error}", remedy="take the source in again."
            ) from error
        if problem := _problem(case, path.parent.name):
            raise InputError(
                f"the case {path.parent.name} was not written by intake: {problem}",
                remedy="find out who changed it, and take the source in again.",
            )
        return case

    def _write(self, case: Case) -> Case:
        path = self.folder / case.id / CASE_FILE
        partial = path.with_suffix(".part")
        partial.write_bytes(msgspec.json.format(canonical_json(case), indent=2) + b"\n")
        partial.replace(path)
        return case

    def content(self, case: Case) -> Path:
        """The copy: a file where the source was one, else a folder."""
        folder = self.folder / case.id / CONTENT
        return folder / case.origin.facts["name"] if case.origin.layout == "file" else folder

    def artefact(self, case: Case) -> Artefact:
        """The copy as something that statements are about.

        Raises:
            ArtefactError: the copy is no longer what was taken in.
        """
        path = self.content(case)
        if self.workspace.files.digest(path) != case.digest:
            raise ArtefactError(f"the quarantined copy of {case.name} was altered", remedy="take the source in again.")
        return Artefact(kind=case.kind, name=case.name, digest=case.digest, path=str(path))

    # ---- opening one

    def open(self, source: Path, asked: Asked) -> Case:
        """Copy a source into quarantine; the same content under the same name is the same case.

        Raises:
            ArtefactError: the source cannot be taken in.
            InputError: the name is none.
        """
        for what, name in (("name", asked.name), ("supplier", asked.supplier)):
            if not NAME.match(name):
                raise InputError(f"{name[:80]!r} is no {what}", remedy="letters, digits, dot, dash and underscore.")
        origin = sources.identify(source)
        partial = self.folder / f".part-{digest_json([str(source), asked.name])[:12]}"
        sources.discard(partial)
        sources.copy(source, origin, partial / CONTENT)
        single = partial / CONTENT / origin.facts["name"] if origin.layout == "file" else partial / CONTENT
        digest = self.workspace.files.digest(single)
        case = Case(
            id=_case_id(asked.kind, asked.name, digest),
            kind=asked.kind,
            name=asked.name,
            supplier=asked.supplier,
            digest=digest,
            source=str(source),
            origin=origin,
            opened_at=self.workspace.clock(),
        )
        place = self.folder / case.id
        if (place / CASE_FILE).exists():
            sources.discard(partial)
            case = self._read(place / CASE_FILE)
            if case.digest != digest:
                raise ArtefactError(f"{source} has the case id of other bytes", remedy="do not use it.")
        else:
            sources.discard(place)
            partial.rename(place)
        return self._write(self._told(case, asked))

    def _told(self, case: Case, asked: Asked) -> Case:
        """The case with what is said now; what is not said again stays."""
        if asked.signature is not None:
            kept = self.folder / case.id / SIGNATURE
            kept.write_bytes(_small(asked.signature))
        return replace(
            case,
            supplier=asked.supplier,
            answers=asked.answers if asked.answers != Answers() else case.answers,
            expected=asked.expected or case.expected,
            signature=SIGNATURE if asked.signature is not None else case.signature,
            samples=asked.samples or case.samples,
        )

    def answer(self, case: Case, answers: Answers) -> Case:
        """The case with new answers."""
        return self._write(replace(case, answers=answers))

    # ---- examining

    def resume(self, case: Case, *, scan_policy: ScanPolicy | None = None, into: Path | None = None) -> Progress:
        """Do what is not done yet, decide, and let it in when everything is met."""
        artefact = self.artefact(case)
        scanned = self._scan(case, artefact, scan_policy)
        self._origin(case, artefact)
        self._card(case, artefact)
        if case.kind == "model" and case.samples is not None and scanned:
            self._samples(case, artefact, case.samples)
        result, evidence = self._judge(case, artefact)
        if result.passed and not (case.state == "admitted" and self.is_in_place(case)):
            case = self._admit(case, artefact, result, into)
        return Progress(case=case, result=result, scan=_said_of_scan(evidence))

    def is_in_place(self, case: Case) -> bool:
        """Whether what was let in lies where it was put, unaltered."""
        if not case.admitted_to:
            return False
        place = self.workspace.folder / case.admitted_to
        return os.path.lexists(place) and self.workspace.files.digest(place) == case.digest

    def look(self, case: Case) -> Progress:
        """The case as it stands, without doing anything."""
        result, evidence = self._judge(case, self.artefact(case))
        return Progress(case=case, result=result, scan=_said_of_scan(evidence))

    def _publish(self, artefact: Artefact, check: str, predicate: Any, kind: str, inputs: Mapping[str, Digest]) -> None:
        """Append a statement of ours, unless the same one holds already."""
        with self.workspace.view() as view:
            evidence = self.workspace.evidence(view, [artefact.digest], dict(inputs))
            now = self.workspace.now(view)
        said = msgspec.structs.replace(
            predicate,
            check=predicates.CheckRef(name=check, version="1"),
            inputs=tuple(predicates.Input.of(name, digest) for name, digest in sorted(inputs.items())),
        )
        for item in evidence:
            if item.holds and item.check == check and item.statement and _same(item.statement.read(), said):
                return
        said = msgspec.structs.replace(said, performed_at=now)
        self.workspace.publish(make(kind, artefact, said), self.workspace.service)

    def _scan(self, case: Case, artefact: Artefact, scan_policy: ScanPolicy | None) -> bool:
        """Scan the copy; true when nothing is open."""
        report = scan_path(Path(artefact.path))
        judged = judge_scan(report, scan_policy)
        said = predicate_of(report)
        if judged.exit_code == 0 and judged.accepted:
            reasons = "; ".join(f"{each.rule}: {entry.justification}" for each, entry in judged.accepted)
            said = replace(
                said, result="PASSED", summary=f"{summary(report)} Accepted by signed policy: {reasons}"[:2000]
            )
        blob = Blob(report.to_json())
        self.workspace.blobs.put(blob.data, blob.media_type)
        said = replace(said, report=predicates.Resource(digest={"sha256": blob.digest}, media_type=blob.media_type))
        inputs = {artefact.id: case.digest, RULES_INPUT: rules_digest()}
        self._publish(artefact, policy.SCAN, said, predicates.TEST_RESULT, inputs)
        return said.result == "PASSED"

    def _origin(self, case: Case, artefact: Artefact) -> None:
        """Whether it is what the supplier may deliver: by digest, or by a signature of one of its keys."""
        record = self.suppliers.current(case.supplier)
        result, why = self._why_allowed(case, artefact, record)
        facts = "; ".join(f"{key}: {value}" for key, value in sorted(case.origin.facts.items()))
        said = predicates.TestResult(
            result=result, summary=f"{why}. Source: {case.origin.layout} ({facts})"[:2000], coverage="examined"
        )
        inputs = {
            artefact.id: case.digest,
            f"record:{case.supplier}": digest_json(record),
            ANNOUNCED: self._announced(case),
        }
        self._publish(artefact, policy.ORIGIN, said, predicates.TEST_RESULT, inputs)

    def _why_allowed(
        self, case: Case, artefact: Artefact, record: Supplier | None
    ) -> tuple[Literal["PASSED", "WARNED", "FAILED"], str]:
        if case.expected and case.expected != case.digest:
            return "FAILED", f"its digest is {case.digest[:12]} and {case.expected[:12]} was announced"
        if case.signature:
            return self._why_signed(case, artefact, record)
        if record is not None and case.digest in record.allow.digests:
            return "PASSED", f"its digest is on the list of {case.supplier}"
        if record is not None and record.allow.digests:
            return "FAILED", f"its digest {case.digest[:12]} is not on the list of {case.supplier}"
        if case.expected:
            return "WARNED", "it has the announced digest, and the supplier's record allows neither digest nor key"
        return "WARNED", "nothing ties it to its source: no announced digest, no signature"

    def _announced(self, case: Case) -> Digest:
        """Digest of what was said about the bytes by another way: the announced digest, and the signature."""
        path = self.folder / case.id / SIGNATURE
        return digest_json([case.expected, digest_bytes(_small(path)) if case.signature else ""])

    def _why_signed(
        self, case: Case, artefact: Artefact, record: Supplier | None
    ) -> tuple[Literal["PASSED", "FAILED"], str]:
        bundle = _small(self.folder / case.id / SIGNATURE)
        manifest = self.workspace.files.manifest(Path(artefact.path))
        for pem in record.allow.keys if record is not None else ():
            try:
                differences = verify_bundle(bundle, pem, manifest)
            except EvidenceError:
                continue
            if differences:
                return "FAILED", f"{differences[0].name} is {differences[0].what} since {case.supplier} signed it"
            return "PASSED", f"signed by key {keyid_of(load_public(pem))[:12]} of {case.supplier}"
        return "FAILED", f"no key that the record of {case.supplier} allows has signed it"

    def _card(self, case: Case, artefact: Artefact) -> None:
        missing = case.answers.missing(case.kind)
        facts = msgspec.to_builtins(case.answers)
        card = predicates.Card(
            kind=case.kind,
            name=case.name,
            owner=self.workspace.system().declaration.owner.contact,
            facts={"provenance": facts, "source": {"layout": case.origin.layout, **case.origin.facts}},
            complete=not missing,
            missing=missing,
            summary=f"not answered: {', '.join(missing)}" if missing else "every question is answered",
        )
        inputs = {artefact.id: case.digest, ANSWERS: digest_json(facts)}
        self._publish(artefact, policy.CARD, card, predicates.CARD, inputs)

    def _samples(self, case: Case, artefact: Artefact, wanted: samples.Wanted) -> None:
        inputs = {artefact.id: case.digest, SAMPLES: samples.inputs_digest(self.workspace, wanted)}
        if not self._holds(artefact, policy.SAMPLES, inputs):
            said = samples.measure(self.workspace, artefact, wanted)
            self._publish(artefact, policy.SAMPLES, said, predicates.ASSESSMENT, inputs)

    def _holds(self, artefact: Artefact, check: str, inputs: Mapping[str, Digest]) -> bool:
        with self.workspace.view() as view:
            evidence = self.workspace.evidence(view, [artefact.digest], dict(inputs))
        return any(item.holds and item.check == check for item in evidence)

    # ---- deciding

    def _current(self, case: Case, artefact: Artefact) -> dict[str, Digest]:
        """Every digest that statements about a case may rest on, as it is now."""
        wanted = case.samples
        supplier = supplier_artefact(case.supplier)
        return {
            artefact.id: case.digest,
            supplier.id: supplier.digest,
            RULES_INPUT: rules_digest(),
            f"record:{case.supplier}": digest_json(self.suppliers.current(case.supplier)),
            ANNOUNCED: self._announced(case),
            ANSWERS: digest_json(msgspec.to_builtins(case.answers)),
            SAMPLES: samples.inputs_digest(self.workspace, wanted) if wanted else digest_json(None),
        }

    def _rests_on(self, case: Case, artefact: Artefact, rules: tuple[str, ...], *, refuse: bool) -> dict[str, Digest]:
        """What a decision goes stale with. A refusal stays whatever is said next; an exception is from what was seen.

        An approval is of these bytes from this supplier with these answers and samples.
        """
        supplier = supplier_artefact(case.supplier)
        approval = () if rules or refuse else (supplier.id, ANSWERS, SAMPLES)
        of_rule = {
            "origin": (supplier.id, f"record:{case.supplier}", ANNOUNCED),
            "provenance": (supplier.id, ANSWERS),
            "own-samples": (SAMPLES,),
        }
        names = {artefact.id, *approval, *(name for rule in rules for name in of_rule[rule])}
        current = self._current(case, artefact)
        return {name: current[name] for name in sorted(names)}

    def _evidence(self, case: Case, artefact: Artefact) -> tuple[list[Evidence], datetime]:
        about = [artefact.digest, supplier_artefact(case.supplier).digest]
        with self.workspace.view() as view:
            return self.workspace.evidence(view, about, self._current(case, artefact)), self.workspace.now(view)

    def _judge(self, case: Case, artefact: Artefact) -> tuple[GateResult, list[Evidence]]:
        declared = self.workspace.system().declaration.gate.get("intake")
        gate = policy.intake_gate(case.kind, case.name, case.supplier, declared)
        evidence, now = self._evidence(case, artefact)
        result, _ = policy.judge(gate, [artefact, supplier_artefact(case.supplier)], evidence, now)
        return result, evidence

    def decide(
        self, case: Case, *, role: str, reason: str, rules: tuple[str, ...], refuse: bool, expires: str, key: str
    ) -> Digest:
        """Record a person's decision on a case: approval, rejection, or an exception from some rules.

        Raises:
            InputError: a rule cannot be excepted from, or the term is over.
            TrustError: the key may not decide in that role.
        """
        if unknown := sorted(set(rules) - policy.WAIVABLE):
            raise InputError(
                f"no exception can be made from {', '.join(unknown)}",
                remedy=f"exceptions are possible from {', '.join(sorted(policy.WAIVABLE))}; a scan is excused by a "
                "signed scan policy only.",
            )
        artefact = self.artefact(case)
        signer = self.workspace.signer(key or key_for(self.workspace, role))
        may_decide(self.workspace, signer.keyid, role, "rejection" if refuse else "approval")
        now = self.workspace.clock()
        ends = deadline(expires, now)
        if ends <= now:
            raise InputError(f"{expires} is over already", remedy="give a later end, such as 365d.")
        rests_on = self._rests_on(case, artefact, rules, refuse=refuse)
        kind: Any = "exception" if rules else "rejection" if refuse else "approval"
        said = predicates.Decision(
            kind=kind,
            outcome="no" if refuse else "yes",
            reason=reason,
            role=role,
            expires=ends,
            concerns=tuple(f"intake:{rule}" for rule in rules),
            inputs=tuple(predicates.Input.of(name, digest) for name, digest in rests_on.items()),
            details={"rules": list(rules), "case": case.id} if rules else {"case": case.id},
            decided_at=now,
        )
        digest = self.workspace.publish(make(predicates.DECISION, artefact, said), signer)
        if refuse:
            self._write(replace(case, state="rejected"))
        elif case.state == "rejected":
            self._write(replace(case, state="quarantined"))
        return digest

    def _admit(self, case: Case, artefact: Artefact, result: GateResult, into: Path | None) -> Case:
        """Copy it to its place, sign it, record the verdict. What is there already must be the same."""
        target = into or self.workspace.folder / "admitted" / case.name
        place = target / case.origin.facts["name"] if case.origin.layout == "file" else target
        if not place.exists():
            self._put(case, Path(artefact.path), target)
        if self.workspace.files.digest(place) != case.digest:
            raise ArtefactError(f"{place} holds something else", remedy="give another --into, or remove it.")
        gate = policy.intake_gate(
            case.kind, case.name, case.supplier, self.workspace.system().declaration.gate.get("intake")
        )
        manifest = self.workspace.files.manifest(place)
        body, _ = sign_manifest(place.name, manifest, self.workspace.service)
        _, now = self._evidence(case, artefact)
        said = verdict(
            result,
            gate,
            [artefact, supplier_artefact(case.supplier)],
            verifier=VERIFIER,
            version=bartizan.__version__,
            now=now,
        )
        self.workspace.append([body])
        self.workspace.publish(said, self.workspace.service)
        shown = place.relative_to(self.workspace.folder) if place.is_relative_to(self.workspace.folder) else place
        return self._write(replace(case, state="admitted", admitted_to=str(shown)))

    def _put(self, case: Case, copy: Path, target: Path) -> None:
        """Copy the copy, byte for byte whatever layout it looks like; it appears only when it is what was judged."""
        partial = target.with_name(f".{target.name}.part")
        sources.discard(partial)
        sources.copy(copy, sources.plain(copy), partial)
        made = partial / copy.name if case.origin.layout == "file" else partial
        if self.workspace.files.digest(made) != case.digest:
            sources.discard(partial)
            raise ArtefactError(f"the quarantined copy of {case.name} was altered", remedy="take the source in again.")
        try:
            partial.rename(target)
        except OSError as error:
            sources.discard(partial)
            raise ArtefactError(
                f"{target} holds something else: {error.strerror}", remedy="give another --into, or remove it."
            ) from error


def _case_id(kind: str, name: str, digest: Digest) -> str:
    """The same content under the same name is the same case."""
    return digest_json([kind, name, digest])[:12]


def _problem(case: Case, folder: str) -> str:
    """Why a case cannot be one that intake wrote under this folder's name; empty when it can."""
    if case.id != folder or case.id != _case_id(case.kind, case.name, case.digest):
        return "its id is not that of its kind, name and digest"
    if not NAME.match(case.name) or not NAME.match(case.supplier):
        return "its name or that of the supplier is none"
    name = case.origin.facts.get("name", "")
    if case.origin.layout == "file" and (not name or Path(name).name != name or name == ".."):
        return "its file has no name"
    return "" if case.signature in {"", SIGNATURE} else "its signature lies elsewhere"


def _small(path: Path) -> bytes:
    """A signature, of at most the size that is read anyway."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BUNDLE_BYTES + 1)
    except OSError as error:
        raise InputError(
            f"the signature {path.name} cannot be read: {error.strerror}", remedy="give it again."
        ) from error
    if len(data) > MAX_BUNDLE_BYTES:
        raise InputError(f"the signature {path.name} has more than {MAX_BUNDLE_BYTES} bytes")
    return data


def _same(old: object, new: Any) -> bool:
    """Whether an earlier statement says the same, whenever it was made."""
    return type(old) is type(new) and replace(old, performed_at=None) == replace(new, performed_at=None)  # type: ignore[type-var]


def _said_of_scan(evidence: list[Evidence]) -> str:
    for item in reversed(evidence):
        if item.holds and item.check == policy.SCAN and item.statement is not None:
            return str(item.statement.predicate.get("summary", ""))
    return "not scanned"


def audit(intake: Intake) -> list[dict[str, Any]]:
    """For every admitted case what supervision asks for: source, hash, licence, scan and decision, and what lacks."""
    rows = []
    for case in intake.cases():
        if case.state != "admitted" and not case.admitted_to:
            continue
        try:
            progress = intake.look(case)
            states = Counter(each.state for each in progress.result.results)
            lacking = [each.rule.id for each in progress.result.results if each.state == "unmet"]
            lacking += [] if intake.is_in_place(case) else [f"what was let in at {case.admitted_to or 'no place'}"]
            scan = progress.scan
        except BartizanError as error:
            lacking, scan, states = [error.message], "not known", Counter()
        rows.append(
            {
                "artefact": case.artefact_id,
                "source": {"layout": case.origin.layout, "supplier": case.supplier, **case.origin.facts},
                "sha256": case.digest,
                "licence": case.answers.licence,
                "scan": scan,
                "decision": "approved" if "approval" not in lacking and states else "lacking",
                "lacking": lacking,
            }
        )
    return rows
