"""What statements say: the predicate types, one struct each.

Where a standard predicate exists it is used with its own field names. ``check``, ``inputs`` and
``report`` are our additions to it; the in-toto parsing rules tell readers to ignore fields that
they do not know. The eight types ``urn:bartizan:<name>:v1`` are ours; their JSON Schemas are
generated from the structs below (``bartizan.core.schemas``) and pinned in the tests.

Wire rule: fields are only ever added, at the end, with defaults.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from bartizan.core.digest import Digest

Instant = Annotated[datetime, msgspec.Meta(tz=True)]
"""A point in time with its zone."""

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"

MODEL_SIGNATURE = "https://model_signing/signature/v1.0"
PROVENANCE = "https://slsa.dev/provenance/v1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
REFERENCE = "https://in-toto.io/attestation/reference/v0.1"
VERDICT = "https://slsa.dev/verification_summary/v1"
BOM = "https://cyclonedx.org/bom"
VULNERABILITIES = "https://in-toto.io/attestation/vulns/v0.2"
OPENVEX = "https://openvex.dev/ns"
TRUST = "urn:bartizan:trust:v1"
CARD = "urn:bartizan:card:v1"
ASSESSMENT = "urn:bartizan:assessment:v1"
DECISION = "urn:bartizan:decision:v1"
DEPLOYMENT = "urn:bartizan:deployment:v1"
OBSERVATION = "urn:bartizan:observation:v1"
INCIDENT = "urn:bartizan:incident:v1"
RETIREMENT = "urn:bartizan:retirement:v1"
REVOCATION = "urn:bartizan:revocation:v1"

SHORT_NAMES: dict[str, str] = {
    "signature": MODEL_SIGNATURE,
    "provenance": PROVENANCE,
    "test-result": TEST_RESULT,
    "reference": REFERENCE,
    "verdict": VERDICT,
    "bom": BOM,
    "vulns": VULNERABILITIES,
    "vex": OPENVEX,
    "trust": TRUST,
    "card": CARD,
    "assessment": ASSESSMENT,
    "decision": DECISION,
    "deployment": DEPLOYMENT,
    "observation": OBSERVATION,
    "incident": INCIDENT,
    "retirement": RETIREMENT,
    "revocation": REVOCATION,
}
"""Names for people and policies; anything else in a policy must be a whole predicate type."""


def short_name(predicate_type: str) -> str:
    """The short name of a predicate type, or the type itself."""
    return next((name for name, whole in SHORT_NAMES.items() if whole == predicate_type), predicate_type)


class _Wire(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """Base: camelCase on the wire, unknown fields ignored, defaults left out."""


class CheckRef(_Wire, frozen=True, kw_only=True):
    """Which check, at which version, made a result."""

    name: str
    version: str


class Input(_Wire, frozen=True, kw_only=True):
    """A digest that a result rests on, under the name by which it is looked up again."""

    name: str
    digest: dict[str, str]

    @classmethod
    def of(cls, name: str, digest: Digest) -> Input:
        """An input named by SHA-256."""
        return cls(name=name, digest={"sha256": digest})


class Resource(_Wire, frozen=True, kw_only=True):
    """An in-toto ResourceDescriptor."""

    digest: dict[str, str]
    name: str = ""
    uri: str = ""
    media_type: str = ""
    download_location: str = ""


class _Result(_Wire, frozen=True, kw_only=True):
    """What the runner adds to a result."""

    check: CheckRef | None = None
    inputs: tuple[Input, ...] = ()
    report: Resource | None = None
    """The full report, a blob."""
    performed_at: Instant | None = None
    """When it was done, as claimed; trust decisions use the ledger's time of receipt."""


class Metric(_Wire, frozen=True, kw_only=True):
    """A measured number with its confidence interval."""

    value: float
    low: float
    high: float
    n: int
    """Number of independent observations behind it."""
    unit: str = ""
    confidence: float = 0.95
    method: str = ""
    """How the interval was computed: ``wilson``, ``bootstrap`` ..."""


class Threat(_Wire, frozen=True, kw_only=True):
    """The adversary that a measurement assumes."""

    position: str
    """Catalogue position: ``user``, ``contributor`` ..."""
    access: tuple[str, ...]
    """What the attack was given: ``labels``, ``scores``, ``training`` ..."""
    knowledge: str = ""


class Assessment(_Result, frozen=True, kw_only=True):
    """Measured metrics with intervals, budget and seed (``urn:bartizan:assessment:v1``)."""

    method: str
    """What was done: ``hopskipjump``, ``dataset-quality``."""
    summary: str
    """One sentence that a risk owner understands."""
    result: Literal["measured", "passed", "failed"] = "measured"
    """``measured`` leaves the judgement to the gate."""
    metrics: dict[str, Metric] = {}
    techniques: tuple[str, ...] = ()
    """Catalogue (``T08``) and ATLAS ids that were exercised."""
    family: str = ""
    """``evasion``, ``poisoning``, ``privacy``, ``extraction``, ``dataset`` ..."""
    threat: Threat | None = None
    budget: dict[str, float] = {}
    """What was allowed and spent: ``queries_allowed_per_sample``, ``queries_spent``."""
    seed: int | None = None
    settings: dict[str, Any] = {}
    findings: dict[str, int] = {}
    """Number of findings by severity."""


class TestResult(_Result, frozen=True, kw_only=True):
    """in-toto test-result v0.1: scans, unit, drill, restore and access tests."""

    __test__ = False
    result: Literal["PASSED", "WARNED", "FAILED"]
    configuration: tuple[Resource, ...] = ()
    url: str = ""
    passed_tests: tuple[str, ...] = ()
    warned_tests: tuple[str, ...] = ()
    failed_tests: tuple[str, ...] = ()
    summary: str = ""
    coverage: str = ""
    """``examined``, ``partly`` or ``not-examined``; not examined is never passed."""
    findings: dict[str, int] = {}
    valid_until: Instant | None = None
    """Our addition: when something that it rests on ends by its own words."""


class Reference(_Result, frozen=True, kw_only=True):
    """in-toto reference v0.1: a document that lives elsewhere (here: a blob)."""

    attester: dict[str, str]
    references: tuple[Resource, ...]
    kind: str = ""
    """``threat-model``, ``attack-map``, ``briefing`` ..."""
    summary: str = ""
    facts: dict[str, Any] = {}


class Card(_Result, frozen=True, kw_only=True):
    """Facts of a model, dataset, system, prompt or index (``urn:bartizan:card:v1``)."""

    kind: Literal["model", "dataset", "system", "prompt", "index"]
    name: str
    owner: str
    """Role address that answers for it."""
    facts: dict[str, Any]
    complete: bool = True
    missing: tuple[str, ...] = ()
    summary: str = ""


class Decision(_Wire, frozen=True, kw_only=True):
    """A person's statement (``urn:bartizan:decision:v1``). Every decision expires."""

    kind: Literal[
        "approval",
        "rejection",
        "exception",
        "disclosure",
        "risk",
        "scope",
        "briefing",
        "review",
        "supplier",
    ]
    outcome: Literal["yes", "no"]
    reason: str
    role: str
    """Role in which the person decides; the trust document must grant it."""
    expires: Instant
    mode: Literal["interactive", "delegated", "automated"] = "interactive"
    concerns: tuple[str, ...] = ()
    """Catalogue ids decided upon: accepted techniques, scoped-out principles, briefed roles."""
    inputs: tuple[Input, ...] = ()
    """What was in front of the person; the decision goes stale when one changes."""
    details: dict[str, Any] = {}
    decided_at: Instant | None = None


class Deployment(_Wire, frozen=True, kw_only=True):
    """Activate, canary, promote, roll back or stop (``urn:bartizan:deployment:v1``)."""

    action: Literal["activate", "canary", "promote", "rollback", "preview", "shadow", "fallback", "stop"]
    place: str
    configuration: Resource | None = None
    verdict: Resource | None = None
    """The verdict that allowed it."""
    inputs: tuple[Input, ...] = ()
    details: dict[str, Any] = {}


class Observation(_Wire, frozen=True, kw_only=True):
    """Summary of a window: drift, alerts, canary, log checkpoint (``urn:bartizan:observation:v1``)."""

    kind: str
    observed_from: Instant
    observed_until: Instant
    metrics: dict[str, Metric] = {}
    alerts: tuple[str, ...] = ()
    checkpoint: str = ""
    summary: str = ""
    inputs: tuple[Input, ...] = ()


class Incident(_Wire, frozen=True, kw_only=True):
    """An incident or vulnerability report and its life cycle (``urn:bartizan:incident:v1``)."""

    kind: Literal["incident", "vulnerability", "report"]
    state: Literal["open", "triaged", "contained", "fixed", "published", "closed"]
    severity: str
    summary: str
    techniques: tuple[str, ...] = ()
    previous: Resource | None = None
    """The envelope that this one continues."""
    inputs: tuple[Input, ...] = ()
    details: dict[str, Any] = {}


class Retirement(_Wire, frozen=True, kw_only=True):
    """Archive or destruction of one copy (``urn:bartizan:retirement:v1``)."""

    action: Literal["archive", "destroy", "missing"]
    method: str
    copy: str
    """Which copy, by place."""
    verification: str
    inputs: tuple[Input, ...] = ()
    details: dict[str, Any] = {}


RevocationTarget = Literal["envelope", "key", "artefact"]


class Revocation(_Wire, frozen=True, kw_only=True):
    """Withdraws its subject from a stated time on (``urn:bartizan:revocation:v1``)."""

    target: RevocationTarget
    effective_from: Instant
    reason: str
    replaced_by: Resource | None = None


class Policy(_Wire, frozen=True, kw_only=True):
    """The policy a verdict was reached under."""

    uri: str
    digest: dict[str, str]


class Verifier(_Wire, frozen=True, kw_only=True):
    """Who reached a verdict."""

    id: str
    version: dict[str, str] = {}


class Verdict(_Wire, frozen=True, kw_only=True):
    """SLSA verification summary v1: what a gate decided, and on which envelopes it relied."""

    verifier: Verifier
    time_verified: Instant
    resource_uri: str
    policy: Policy
    input_attestations: tuple[Resource, ...]
    verification_result: Literal["PASSED", "FAILED"]
    verified_levels: tuple[str, ...] = ()
    slsa_version: str = "1.1"
    gate: str = ""
    valid_until: Instant | None = None
    inputs: tuple[Input, ...] = ()
    """Artefacts as they were; a changed digest ends the verdict."""
    rules: dict[str, str] = {}
    """Rule id to ``met``, ``warned`` or ``unmet``."""


class Descriptor(_Wire, frozen=True, kw_only=True):
    """An in-toto ResourceDescriptor as SLSA uses it: any one of uri, digest and content names the thing."""

    name: str | None = None
    uri: str | None = None
    digest: dict[str, str] | None = None
    media_type: str | None = None
    content: str | None = None
    """Base64 of a short thing itself."""
    annotations: dict[str, Any] | None = None


class BuildDefinition(_Wire, frozen=True, kw_only=True):
    """SLSA: what was asked for, and everything it was made of."""

    build_type: str
    """URI that says what the parameters mean."""
    external_parameters: dict[str, Any]
    """What whoever started the run chose: command, parameters, declared inputs and outputs."""
    internal_parameters: dict[str, Any] | None = None
    """What the place of the run added: its environment."""
    resolved_dependencies: tuple[Descriptor, ...] | None = None


class Builder(_Wire, frozen=True, kw_only=True):
    """SLSA: who is trusted to have run it and to say so."""

    id: str
    version: dict[str, str] | None = None


class BuildMetadata(_Wire, frozen=True, kw_only=True):
    """SLSA: which run it was, and when."""

    invocation_id: str | None = None
    started_on: Instant | None = None
    finished_on: Instant | None = None


class RunDetails(_Wire, frozen=True, kw_only=True):
    """SLSA: this one run."""

    builder: Builder
    metadata: BuildMetadata | None = None
    byproducts: tuple[Descriptor, ...] | None = None


class Provenance(_Wire, frozen=True, kw_only=True):
    """SLSA provenance v1: how an artefact was made."""

    build_definition: dict[str, Any]
    run_details: dict[str, Any]

    @classmethod
    def of(cls, definition: BuildDefinition, run: RunDetails) -> Provenance:
        """Provenance with exactly the fields of https://slsa.dev/spec/v1.1/provenance.

        It is read leniently, because others write it too; what is written here has the structs' shape.
        """
        return cls(
            build_definition=msgspec.to_builtins(definition, str_keys=True),
            run_details=msgspec.to_builtins(run, str_keys=True),
        )


class Bom(_Result, frozen=True, kw_only=True):
    """A CycloneDX bill of materials, whole, with what the runner adds beside its own fields."""

    bom_format: Literal["CycloneDX"]
    spec_version: str
    serial_number: str = ""
    version: int = 1
    metadata: dict[str, Any] = {}
    components: tuple[dict[str, Any], ...] = ()
    services: tuple[dict[str, Any], ...] = ()
    dependencies: tuple[dict[str, Any], ...] = ()
    summary: str = ""
    """One sentence that a risk owner understands."""


class Vulnerabilities(_Result, frozen=True, kw_only=True):
    """in-toto vulns v0.2: which known vulnerabilities a scanner found, against which database."""

    scanner: dict[str, Any]
    """``uri``, ``version``, ``db`` (uri, version, lastUpdate), ``result`` (id, severity, annotations)."""
    metadata: dict[str, Any] = {}
    """``scanStartedOn``, ``scanFinishedOn``."""
    result: Literal["PASSED", "WARNED", "FAILED"] = "FAILED"
    """Our addition: failed when one counts that is severe enough, or when not everything could be looked up."""
    counted: int = 0
    """Vulnerabilities that count after what was said of them (VEX)."""
    coverage: str = ""
    """``examined`` or ``partly``."""
    summary: str = ""
    findings: dict[str, int] = {}


class ModelSignature(_Wire, frozen=True, kw_only=True, rename=None):
    """OpenSSF Model Signing v1.0: the manifest of a folder or file."""

    resources: tuple[dict[str, Any], ...]
    serialization: dict[str, Any]


KNOWN: dict[str, type[msgspec.Struct]] = {
    MODEL_SIGNATURE: ModelSignature,
    PROVENANCE: Provenance,
    TEST_RESULT: TestResult,
    REFERENCE: Reference,
    BOM: Bom,
    VULNERABILITIES: Vulnerabilities,
    VERDICT: Verdict,
    CARD: Card,
    ASSESSMENT: Assessment,
    DECISION: Decision,
    DEPLOYMENT: Deployment,
    OBSERVATION: Observation,
    INCIDENT: Incident,
    RETIREMENT: Retirement,
    REVOCATION: Revocation,
}
"""Predicate types that are read into structs. Others are stored and count only where a rule names them."""
