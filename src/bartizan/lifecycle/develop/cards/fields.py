"""The facts that a card may hold: what each is called, whether it must be there, who uses it, who may see it."""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal["model", "dataset"]


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One fact of a card."""

    name: str
    """Key in ``Card.facts``; a gate reads it as ``facts.NAME``."""
    title: str
    on: tuple[Kind, ...]
    used: str
    """Gate or report that needs the fact, and for what: nothing is collected without a use."""
    required: bool = True
    """Without it the card is incomplete."""
    public: bool = False
    """Whether it stands in the public view; what helps an attacker or concerns a person does not."""


BOTH: tuple[Kind, ...] = ("model", "dataset")
MODEL: tuple[Kind, ...] = ("model",)
DATASET: tuple[Kind, ...] = ("dataset",)

FIELDS: tuple[Field, ...] = (
    Field(name="owner", title="Owner", on=BOTH, public=True, used="gate: nothing is released without an owner"),
    Field(name="purpose", title="Purpose", on=MODEL, public=True, used="report: heading of the assurance report"),
    Field(name="uses", title="Intended use", on=BOTH, public=True, used="gate: training only for a listed use"),
    Field(
        name="prohibitedUses",
        title="Prohibited use",
        on=BOTH,
        required=False,
        public=True,
        used="gate: no training and no release for a prohibited use",
    ),
    Field(name="limits", title="Scope and limitations", on=BOTH, public=True, used="report: shown to users"),
    Field(name="task", title="Task", on=MODEL, public=True, used="report: which attacks and metrics apply"),
    Field(name="classes", title="Classes", on=MODEL, public=True, used="report: names of the outputs"),
    Field(
        name="positive",
        title="Class that must not be missed",
        on=MODEL,
        required=False,
        used="gate: metric `recall.CLASS` of the evaluation",
    ),
    Field(name="framework", title="Framework", on=MODEL, used="report: inventory, and which advisories concern it"),
    Field(
        name="baseModel",
        title="Base model",
        on=MODEL,
        required=False,
        used="gate: a public parent calls for the transfer attack and a supplier decision",
    ),
    Field(name="trainedOn", title="Trained on", on=MODEL, used="report: lineage down to the sources of the data"),
    Field(name="evaluatedOn", title="Evaluated on", on=MODEL, used="report: what the metrics rest on"),
    Field(name="split", title="Part in the split", on=DATASET, used="gate: training and evaluation data are apart"),
    Field(name="target", title="Label column", on=DATASET, used="report: how to read the file"),
    Field(
        name="labellingInstructions",
        title="Labelling instructions",
        on=DATASET,
        required=False,
        used="report: which version of the instructions the labels were made by",
    ),
    Field(name="schema", title="Possible values", on=BOTH, used="gate: input validation at the gateway"),
    Field(name="collected", title="How collected", on=DATASET, public=True, used="report: timeliness, fitness for use"),
    Field(
        name="sources",
        title="Sources",
        on=DATASET,
        used="gate: host, contributors and independent sources of data must be known",
    ),
    Field(name="licence", title="Licence", on=DATASET, required=False, public=True, used="report: bill of materials"),
    Field(name="trust", title="Trust in the source", on=DATASET, used="gate: untrusted data need an exception"),
    Field(name="syntheticShare", title="Synthetic share", on=DATASET, used="gate: limit on synthetic data"),
    Field(name="sensitivity", title="Sensitivity", on=BOTH, used="gate: decides how it is handled and destroyed"),
    Field(name="handling", title="Handling", on=BOTH, used="report: access, encryption, destruction by sensitivity"),
    Field(name="personalData", title="Personal data", on=BOTH, public=True, used="gate: lawful basis is then needed"),
    Field(name="lawfulBasis", title="Lawful basis", on=DATASET, required=False, used="report: register of processing"),
    Field(name="jurisdiction", title="Jurisdiction", on=BOTH, required=False, used="report: register of processing"),
    Field(name="impactOfLoss", title="Impact of loss", on=BOTH, used="report: risk register; value in the inventory"),
    Field(name="retention", title="Retention", on=BOTH, public=True, used="gate: no training past it; due list"),
    Field(name="dataRetention", title="Retention of its data", on=MODEL, used="gate: a model goes with its data"),
    Field(name="destruction", title="Destruction", on=BOTH, used="gate: must suit the sensitivity; retirement"),
    Field(name="lifespan", title="Lifespan", on=MODEL, public=True, used="gate: a release ends with it; due list"),
    Field(name="records", title="Records", on=DATASET, used="gate: size rules"),
    Field(name="labels", title="Label counts", on=DATASET, used="gate: balance; report: comparison of versions"),
    Field(name="columns", title="Columns", on=DATASET, used="report: how to read the file; Croissant export"),
    Field(name="quality", title="Measured quality", on=DATASET, used="gate: bounds on the metrics; names the report"),
    Field(
        name="expected", title="Expected performance", on=MODEL, used="gate: least metrics; report: plan for failure"
    ),
    Field(
        name="guardrails", title="Guardrails", on=MODEL, required=False, used="report: claimed against live evidence"
    ),
    Field(name="digest", title="SHA-256", on=BOTH, public=True, used="gate: the card speaks of these bytes only"),
    Field(name="location", title="Location", on=BOTH, used="report: inventory, retirement of every copy"),
    Field(
        name="fullCard",
        title="SHA-256 of the full card",
        on=BOTH,
        required=False,
        public=True,
        used="report: ties a public view to the signed card",
    ),
)
"""In the order in which a card shows them."""

BY_NAME = {field.name: field for field in FIELDS}


def required(kind: Kind) -> tuple[str, ...]:
    """Names of the facts without which a card of this kind is incomplete."""
    return tuple(field.name for field in FIELDS if kind in field.on and field.required)
