"""The declared system as values: what ``bartizan.toml`` says once it has been read and found sound."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from bartizan.core.digest import Digest, digest_json

ArtefactKind = Literal["model", "dataset", "system", "document"]


class Artefact(msgspec.Struct, frozen=True, kw_only=True):
    """Anything with a digest that the declaration names."""

    kind: ArtefactKind
    name: str
    digest: Digest
    path: str = ""
    """Where its bytes lie, absolute; empty when it exists as a value only."""

    @property
    def id(self) -> str:
        """``kind:name``, the name under which statements list it as an input."""
        return f"{self.kind}:{self.name}"


class _Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Base of the declaration's tables: unknown keys are refused."""


class Owner(_Part, frozen=True, kw_only=True):
    """Who answers for something: a role address, never a person's private data."""

    role: str
    contact: str


class Provenance(_Part, frozen=True, kw_only=True):
    """Where data comes from: the three questions of A-MLSG-002-N001, and how it was collected."""

    host: str
    """Who publishes or hosts it."""
    contributors: str
    """Who contributed the records."""
    independent_sources: int
    """How many sources that do not depend on one another it was drawn from."""
    collected: str
    """How and when it was collected."""
    licence: str = ""
    url: str = ""


class DatasetPart(_Part, frozen=True, kw_only=True):
    """One ``[[dataset]]``."""

    name: str
    path: str
    split: Literal["train", "validation", "holdout", "reference"]
    target: str
    """Name of the label column."""
    sensitivity: Literal["public", "internal", "confidential", "restricted"]
    personal_data: bool
    lawful_basis: str = ""
    """Needed when ``personal_data`` is true."""
    retention: str
    """Duration such as ``5y`` or a date ``2031-12-31``."""
    destruction: str
    """How copies are destroyed at the end."""
    uses: tuple[str, ...]
    """Purposes it may be used for."""
    prohibited_uses: tuple[str, ...] = ()
    limits: str = ""
    owner: Owner | None = None
    """Defaults to the system's owner."""
    provenance: Provenance
    trust: Literal["trusted", "partly", "untrusted"] = "trusted"
    synthetic_share: float = 0.0
    integer: tuple[str, ...] = ()
    """Columns that hold whole numbers."""
    categorical: tuple[str, ...] = ()
    immutable: tuple[str, ...] = ()
    """Columns that an adversary cannot change."""
    ranges: dict[str, tuple[float, float]] = msgspec.field(default_factory=dict)
    """Possible values of a column; what is not named takes the range seen in training."""
    dependent: dict[str, str] = msgspec.field(default_factory=dict)
    """Columns that follow from others, each with what it is: ``bmi = "weight / (height * height)"``."""
    group: str = ""
    """Column whose equal values must not fall on both sides of a split (patient, site, device)."""
    labelling_instructions: str = ""
    """Name of the declared document of kind ``instructions`` by which the labels were made."""
    shape: tuple[int, ...] = ()
    """``[channels, height, width]`` where every record is an image; a table of columns without."""
    value_range: tuple[float, float] | None = None
    """Least and largest value of a pixel, as the model is given it: ``[0, 1]``, ``[0, 255]``. Needed with ``shape``."""
    text: str = ""
    """Column that holds a text, where that is all the model is given; a table of numbers without."""


class ModelPart(_Part, frozen=True, kw_only=True):
    """One ``[[model]]``."""

    name: str
    path: str
    task: Literal["classification"]
    framework: Literal["scikit-learn", "onnx", "torch", "xgboost", "lightgbm"]
    trained_on: str
    """Name of a declared dataset."""
    evaluated_on: str
    """Name of a declared dataset that is not the training set."""
    classes: tuple[str, ...]
    """Names of the outputs, in the order of the label values."""
    positive: str = ""
    """The class whose being missed costs most; one of ``classes``."""
    uses: tuple[str, ...]
    prohibited_uses: tuple[str, ...] = ()
    limits: str
    owner: Owner | None = None
    retention: str
    destruction: str
    lifespan: str
    """When it must be replaced or reviewed: duration or date."""
    base_model: str = ""
    """Public parent model, when there is one."""


class DocumentPart(_Part, frozen=True, kw_only=True):
    """One ``[[document]]``: a file that steers the system and is signed and judged like a model."""

    name: str
    path: str
    kind: Literal["prompt", "policy", "configuration", "instructions"]


class Impact(_Part, frozen=True, kw_only=True):
    """What happens if a component loses confidentiality, integrity or availability."""

    confidentiality: str
    integrity: str
    availability: str


class Component(_Part, frozen=True, kw_only=True):
    """One ``[[component]]`` of the system around the model."""

    name: str
    kind: Literal["model", "data-store", "service", "pipeline", "sensor", "device", "person", "external"]
    zone: str
    """Trust zone; a flow between two zones crosses a trust boundary."""
    access_points: tuple[str, ...] = ()
    """Catalogue ids of the life-cycle access points it realises."""
    asset: str = ""
    """Declared model or dataset that it holds."""
    impact: Impact | None = None


class Flow(_Part, frozen=True, kw_only=True):
    """One ``[[flow]]`` of data between two components."""

    source: str
    target: str
    carries: str
    protected_by: tuple[str, ...] = ()
    leaves_site: bool = False


class Exposure(_Part, frozen=True, kw_only=True):
    """Who can come how close, by design."""

    interface: Literal["public", "partners", "internal", "offline"]
    output: Literal["label", "top-k", "rounded-scores", "scores"]
    explanations: tuple[str, ...] = ()
    """Roles that are told why the model answered as it did. An explanation tells more of the model than any
    output; without a role, nobody is told."""
    profile: str = ""
    """Catalogue profile whose positions are taken over and then amended by ``positions``."""
    positions: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    """Rights (``access-point.right``) that each adversary position holds by design."""
    consider: tuple[str, ...] = ("outsider", "user", "contributor", "supplier", "neighbour", "finder")
    """Positions whose attacks the system must withstand."""
    reinforcement_learning: bool = False
    continual_learning: bool = False


class Societal(_Part, frozen=True, kw_only=True):
    """Wider consequences of failure (principle 1.2)."""

    users: str
    organisation: str
    society: str


class Expectation(_Part, frozen=True, kw_only=True):
    """How the model should perform, and what happens when it does not."""

    metrics: dict[str, float]
    """Least acceptable value by metric name: ``accuracy``, ``recall.malignant``."""
    failure_plan: str
    monitoring: str
    """What counts as suspicious, and who looks."""


class RedTeam(_Part, frozen=True, kw_only=True):
    """What the red team may spend and what it assumes."""

    seed: int = 20261121
    samples: int = 60
    """Rows of the evaluation set that evasion attacks start from."""
    query_budget: int = 1000
    """Queries an evasion attack may ask for one sample."""
    max_change: float = 1.0
    """Largest perturbation that counts as an attack, by ``norm``. Of tables in standard deviations of each column, of
    images in units of ``value_range``."""
    norm: Literal["linf", "l2", "l1", "l0"] = "linf"
    """How a perturbation is measured: largest change of one value, Euclidean length, sum, or how many columns, or
    pixels, are changed."""
    gradient_budget: int = 2000
    """Gradients an evasion attack that is given the inside of the model may ask for one sample."""
    seconds: float = 0.0
    """Wall time after which a search ends with what it has found; 0 sets no limit. Measuring comes on top."""
    poison_rates: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2)
    shadow_models: int = 32
    extraction_budget: int = 400
    repeats: int = 5
    attacks: tuple[str, ...] = ()
    """Names of the attacks to run, or ``all`` that get by with what the interface gives; empty runs the usual five."""
    stop_when_decided: bool = False
    """Whether an evasion attack ends as soon as every gate rule about its robust accuracy is decided; what is stated
    then allows for having looked."""


class Advisories(_Part, frozen=True, kw_only=True):
    """``[vulnerabilities]``: where advisories come from, what is looked up, and what refuses."""

    database: str
    """OSV export: a zip, or a folder of zips or JSON files."""
    max_age: str = "14d"
    """Longest time since the newest advisory; an older database answers nothing."""
    refuse_from: Literal["low", "medium", "high", "critical"] = "low"
    """Least severity that fails the check."""
    lock: tuple[str, ...] = ()
    """Lock files that are looked up beside the installed packages."""
    vex: tuple[str, ...] = ()
    """OpenVEX documents that say what does not matter here."""


class Environment(_Part, frozen=True, kw_only=True):
    """``[environment]``: what must hold where the system is made."""

    required: tuple[Literal["two-person-review", "mfa"], ...] = ()
    """What people must vouch for, by signed reviews that end."""
    baseline: str = ""
    """Earlier result that is accepted: a file that ``bartizan environment --json`` wrote."""
    repository: str = "."
    """Folder inside the repository of the system's code."""
    branch_protection: str = ""
    """The forge's protection of the main branch, as its API gives it."""
    ports_allowed: tuple[int, ...] = ()
    """Ports that may be reached from other machines."""
    skip: tuple[str, ...] = ()
    """Names of folders in which no secrets are searched."""


class Guidance(_Part, frozen=True, kw_only=True):
    """``[guidance]``: who is briefed, and whether only those who were may decide."""

    briefings_required: bool = False
    """Whether a person must hold a valid briefing for the role in which they approve, review or accept."""
    audiences: tuple[str, ...] = ()
    """Roles to brief beside those of ``[people]``: ``user``, ``labeller``, ``communications`` ..."""


class Notice(_Part, frozen=True, kw_only=True):
    """``[notice]``: what users are told beside what the card of the model says."""

    data_use: str
    """What is done with what users send, and what is not."""
    data_storage: str
    """Where it is kept, how long, and who can read it."""
    responsibilities: tuple[str, ...]
    """What users themselves answer for."""
    uncertainty: str = ""
    """What a wrong answer looks like and how to handle a doubtful one, in plain words."""
    risks: tuple[str, ...] = ()
    """Security risks of using the system that its users should know of."""


class Condition(_Part, frozen=True, kw_only=True):
    """A bound on one field of a predicate; exactly one of the bounds is set."""

    field: str
    """Dotted path inside the predicate: ``metrics.accuracy.low``, ``result``."""
    equals: str | bool | float | int | None = None
    at_least: float | None = None
    at_most: float | None = None
    one_of: tuple[str, ...] = ()


class Rule(_Part, frozen=True, kw_only=True):
    """One ``[[gate.NAME.rule]]``: who must have said what about which artefact, and how long ago at most."""

    id: str
    about: str
    """``model``, ``dataset``, ``document``, ``system`` (all of that kind), or one id such as ``dataset:train``."""
    type: str
    """Predicate type, short (``assessment``) or whole."""
    check: str = ""
    """Name of the check that must have made the statement."""
    kind: str = ""
    """Kind of a decision or card: ``approval``, ``risk``, ``model`` ..."""
    where: tuple[Condition, ...] = ()
    max_age: str = ""
    role: str = ""
    signers: int = 1
    severity: Literal["refuse", "warn"] = "refuse"
    why: str = ""
    controls: tuple[str, ...] = ()


class Gate(_Part, frozen=True, kw_only=True):
    """A policy at one life-cycle transition."""

    valid_for: str = "30d"
    """Longest time a passed verdict may be relied on."""
    rule: tuple[Rule, ...] = ()


class Declaration(_Part, frozen=True, kw_only=True):
    """A whole ``bartizan.toml``."""

    name: str
    purpose: str
    description: str = ""
    owner: Owner
    people: dict[str, str] = msgspec.field(default_factory=dict)
    """Role (``ml``, ``security``, ``domain``, ``risk-owner`` ...) to address."""
    jurisdiction: str = ""
    model: tuple[ModelPart, ...]
    dataset: tuple[DatasetPart, ...]
    document: tuple[DocumentPart, ...] = ()
    component: tuple[Component, ...] = ()
    flow: tuple[Flow, ...] = ()
    exposure: Exposure
    impact: Societal
    expected: Expectation
    mitigations: tuple[str, ...] = ()
    """Catalogue mitigation ids that are claimed to be in place; a claim counts only with live evidence."""
    mitigation_cost: dict[str, float] = msgspec.field(default_factory=dict)
    """Own costs of mitigations, replacing the catalogue's 1 (hours) to 5 (programme)."""
    redteam: RedTeam = msgspec.field(default_factory=RedTeam)
    vulnerabilities: Advisories | None = None
    environment: Environment | None = None
    guidance: Guidance = msgspec.field(default_factory=Guidance)
    notice: Notice | None = None
    gate: dict[str, Gate] = msgspec.field(default_factory=dict)


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """What a model was made of, as the newest provenance that stands says."""

    statement: Digest
    """Envelope of the provenance."""
    inputs: tuple[tuple[str, Digest], ...]
    """Name and digest of everything it was made of."""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A signed review about the system that stands now."""

    concern: str
    """Control of the catalogue that it vouches for."""
    signer: str
    """Id of the principal who signed it."""


class Lesson(msgspec.Struct, frozen=True, kw_only=True):
    """Something learnt, linked to techniques; it stands until it is withdrawn."""

    id: str
    """``L-`` and the beginning of the digest of its document."""
    title: str
    text: str
    techniques: tuple[str, ...]


class Briefed(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the people in a role know what there is to know, as the ledger says now."""

    role: str
    state: str
    """``valid``, ``stale``, ``expired`` or ``missing``."""
    reason: str
    text: Digest
    """Digest of the briefing that has to be read now."""


class System(msgspec.Struct, frozen=True, kw_only=True):
    """A declaration together with the digests of everything it names, as of now."""

    declaration: Declaration
    folder: str
    """Absolute folder that relative paths in the declaration start from."""
    declaration_digest: Digest
    artefacts: tuple[Artefact, ...]
    """Models, datasets, documents and the system itself (``system:NAME``, named by the declaration's bytes)."""
    origins: dict[str, Origin] = msgspec.field(default_factory=dict)
    """Id of a model to its recorded origin; a model that was made unrecorded has none."""
    claims: tuple[Claim, ...] = ()
    """Reviews of the system that stand, one for each concern and signer."""
    lessons: tuple[Lesson, ...] = ()
    """Lessons about the system that stand, oldest first."""
    briefed: tuple[Briefed, ...] = ()
    """Every declared role; filled where a check asks for it."""

    def of_kind(self, kind: str) -> tuple[Artefact, ...]:
        """All artefacts of one kind, in the order of the declaration."""
        return tuple(artefact for artefact in self.artefacts if artefact.kind == kind)

    def artefact(self, artefact_id: str) -> Artefact:
        """The artefact called ``kind:name``; KeyError when there is none."""
        for artefact in self.artefacts:
            if artefact.id == artefact_id:
                return artefact
        raise KeyError(artefact_id)

    def model_part(self, name: str) -> ModelPart:
        """The ``[[model]]`` called ``name``."""
        return next(part for part in self.declaration.model if part.name == name)

    def dataset_part(self, name: str) -> DatasetPart:
        """The ``[[dataset]]`` called ``name``."""
        return next(part for part in self.declaration.dataset if part.name == name)


def settings_digest(*parts: Any) -> Digest:
    """Digest of just those parts of a declaration that a result depends on."""
    return digest_json(parts)
