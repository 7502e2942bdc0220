"""Cards: every fact the principles ask for, required where they say so, and the same in every form."""

from __future__ import annotations

import copy
import csv
import io
import json
from html.parser import HTMLParser

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bartizan.core.check import Check
from bartizan.core.digest import digest_bytes
from bartizan.core.errors import InputError
from bartizan.core.finding import Severity
from bartizan.core.predicates import CARD, Card
from bartizan.core.statement import make
from bartizan.core.system import Owner, System
from bartizan.lifecycle.develop.cards import (
    FIELDS,
    DatasetCard,
    ModelCard,
    compare,
    inventory,
    inventory_csv,
    public_view,
    render_html,
    render_json,
    render_markdown,
    require_complete,
    search,
    verifies,
)
from bartizan.lifecycle.develop.cards.facts import outlasts, strictest_retention
from bartizan.lifecycle.develop.cards.fields import BY_NAME, required
from bartizan.lifecycle.develop.data.quality import DataQuality
from fixtures.systems import declared, make_system
from fixtures.tables import Silent, part, real, system_of, write_csv

REPORT = {
    "dataset": "dataset:train",
    "profile": {
        "records": 398,
        "labels": {"benign": 250, "malignant": 148},
        "columns": {"radius": {"mean": 14.1}, "mean texture": {"mean": 19.3}},
    },
    "measures": [
        {"name": "label-noise", "metrics": {"label_noise": {"value": 0.01, "low": 0.0, "high": 0.02, "n": 398}}},
        {"name": "entities"},
    ],
}


def context_for(system: System) -> Silent:
    """A run in which the quality of every dataset was measured."""
    return Silent({
        ("data.quality", dataset.id): json.dumps({**REPORT, "digest": dataset.digest}).encode()
        for dataset in system.of_kind("dataset")
    })  # fmt: skip


def sound(**changes) -> System:
    """The tumour system with everything that a card needs."""
    datasets = declared("dataset")
    for dataset in datasets:
        dataset["limits"] = "One hospital group, adults only"
    components = declared("component")
    components[0]["asset"], components[1]["asset"] = "train", "tumour"
    components.append({"name": "archive", "kind": "data-store", "zone": "clinic", "asset": "holdout", "impact": {
        "confidentiality": "Diagnoses leak", "integrity": "Wrong measurements", "availability": "No release",
    }})  # fmt: skip
    return make_system(**{"dataset": datasets, "component": components} | changes)


def changed(kind: str, name: str, **changes) -> System:
    """The sound system with one part changed."""
    system = sound()
    parts = [
        msgspec.structs.replace(entry, **changes) if entry.name == name else entry
        for entry in getattr(system.declaration, kind)
    ]
    return msgspec.structs.replace(
        system, declaration=msgspec.structs.replace(system.declaration, **{kind: tuple(parts)})
    )


def outcome_of(system: System, artefact_id: str):
    check = ModelCard() if artefact_id.startswith("model:") else DatasetCard()
    return check.run(system, system.artefact(artefact_id), context_for(system))


def card_of(system: System, artefact_id: str = "dataset:train") -> Card:
    return outcome_of(system, artefact_id).predicate


def rules(outcome) -> dict[str, Severity]:
    return {found.rule: found.severity for found in outcome.findings}


# -- the shape


@pytest.mark.parametrize(
    ("check", "subjects"), [(ModelCard(), ["model:tumour"]), (DatasetCard(), ["dataset:train", "dataset:holdout"])]
)
def test_cards_are_checks_whose_results_are_card_statements(check, subjects):
    system = sound()
    assert isinstance(check, Check)
    assert [subject.id for subject in check.subjects(system)] == subjects
    for subject in check.subjects(system):
        outcome = check.run(system, subject, context_for(system))
        assert outcome.predicate_type == CARD
        card = make(CARD, subject, outcome.predicate).read()
        assert card.complete
        assert outcome.findings == ()
        assert json.loads(outcome.report.data)["facts"] == card.facts


def test_a_card_rests_on_what_it_shows():
    before = sound()
    for check, subject in ((ModelCard(), "model:tumour"), (DatasetCard(), "dataset:train")):
        inputs = check.inputs(before, before.artefact(subject))
        assert {subject, "dataset:train", "dataset:holdout"} <= set(inputs)
        for after in (changed("dataset", "train", limits="other"), sound(jurisdiction="NZ")):
            assert inputs != check.inputs(after, after.artefact(subject))
    assert "model:tumour" not in DatasetCard().inputs(before, before.artefact("dataset:train"))


def test_a_card_waits_for_the_measured_quality():
    assert DatasetCard.after == (DataQuality.name,)


# -- facts


def test_numbers_on_a_data_card_come_from_the_report_and_name_it():
    system = sound()
    facts = card_of(system).facts
    report = context_for(system).report_of("data.quality", "dataset:train")
    assert facts["labels"] == {"benign": 250, "malignant": 148}
    assert facts["records"] == 398
    assert facts["columns"] == ["radius", "mean texture"]
    assert facts["quality"] == {
        "check": "data.quality",
        "report": digest_bytes(report),
        "metrics": {"label_noise": {"value": 0.01, "low": 0.0, "high": 0.02}},
    }


@pytest.mark.parametrize(
    "report", [None, b"", b"[]", b'{"profile": 1}', json.dumps({**REPORT, "digest": "0" * 64}).encode()]
)
def test_without_a_report_about_these_bytes_the_numbers_are_missing(report):
    system = sound()
    context = Silent({("data.quality", "dataset:train"): report} if report is not None else {})
    card = DatasetCard().run(system, system.artefact("dataset:train"), context).predicate
    assert card.missing == ("records", "labels", "columns", "quality")
    assert not card.complete


def test_the_card_takes_over_a_real_report(tmp_path):
    rows, labels = real("wine")
    system = system_of((write_csv(tmp_path / "train.csv", rows.tolist(), labels.tolist()), part()))
    train = system.artefact("dataset:train")
    report = DataQuality().run(system, train, Silent()).report.data
    card = DatasetCard().run(system, train, Silent({("data.quality", "dataset:train"): report})).predicate
    assert card.facts["labels"] == {"0": 59, "1": 71, "2": 48}
    assert {"label_noise", "completeness", "rows"} <= set(card.facts["quality"]["metrics"])


@pytest.mark.control("2.1-G2")
def test_a_model_card_resolves_to_dataset_digests_and_their_sources():
    system = sound()
    facts = card_of(system, "model:tumour").facts
    for fact, name in (("trainedOn", "train"), ("evaluatedOn", "holdout")):
        origin = system.dataset_part(name).provenance
        assert facts[fact]["digest"] == system.artefact(f"dataset:{name}").digest
        assert (facts[fact]["host"], facts[fact]["contributors"]) == (origin.host, origin.contributors)
        assert facts[fact]["independentSources"] == origin.independent_sources


def test_a_model_is_as_sensitive_as_the_data_it_was_made_of():
    assert (
        card_of(changed("dataset", "train", sensitivity="restricted"), "model:tumour").facts["sensitivity"]
        == "restricted"
    )
    facts = card_of(changed("dataset", "holdout", sensitivity="restricted"), "model:tumour").facts
    assert facts["sensitivity"] == "confidential"
    assert facts["personalData"] is True


def test_a_loss_is_felt_where_the_data_flow_to():
    facts = card_of(sound(), "model:tumour").facts
    assert [impact["component"] for impact in facts["impactOfLoss"]] == ["worklist", "pathologist"]
    assert facts["impactOfLoss"][0]["integrity"] == "A tumour is seen late"


def test_components_in_a_circle_of_flows_are_visited_once():
    system = sound()
    flows = [
        *system.declaration.flow,
        msgspec.structs.replace(system.declaration.flow[-1], source="pathologist", target="records"),
    ]
    round_trip = msgspec.structs.replace(
        system, declaration=msgspec.structs.replace(system.declaration, flow=tuple(flows))
    )
    assert len(card_of(round_trip).facts["impactOfLoss"]) == 2


@pytest.mark.control("2.3-s")
def test_a_model_inherits_the_strictest_retention_of_its_sources():
    datasets = [*copy.deepcopy(declared("dataset")), *copy.deepcopy(declared("dataset"))[:1]]
    datasets[0]["retention"], datasets[2]["retention"] = "6y", "30m"
    datasets[2] |= {"name": "tuning", "split": "validation", "path": "data/tuning.csv"}
    system = make_system(dataset=datasets)
    outcome = outcome_of(system, "model:tumour")
    assert outcome.predicate.facts["dataRetention"] == "30m"
    late = next(found for found in outcome.findings if found.rule == "cards/retention-exceeds-data")
    assert "dataset:tuning" in late.title


def test_spans_are_compared_by_length_and_dates_by_the_calendar():
    assert strictest_retention(["2y", "90d", "23m"]) == "90d"
    assert strictest_retention(["2031-12-31", "2030-01-01"]) == "2030-01-01"
    assert strictest_retention(["5y", "2030-01-01", "1y"]) == "1y or 2030-01-01"
    assert strictest_retention(["for ever"]) == ""
    assert outlasts("5y", "59m")
    assert outlasts("2031-01-01", "2030-01-01")
    assert not outlasts("5y", "5y")
    assert not outlasts("5y", "2030-01-01")
    assert not outlasts("for ever", "1y")


# -- what must be there


@pytest.mark.control("1.1-j")
@pytest.mark.parametrize(("kind", "artefact_id"), [("dataset", "dataset:train"), ("model", "model:tumour")])
def test_a_card_without_an_owner_is_rejected(kind, artefact_id):
    name = artefact_id.partition(":")[2]
    for owner in (Owner(role=" ", contact="a@example.org"), Owner(role="lead", contact="")):
        outcome = outcome_of(changed(kind, name, owner=owner), artefact_id)
        assert not outcome.predicate.complete
        assert outcome.predicate.missing == ("owner",)
        assert outcome.predicate.owner == ""
        assert rules(outcome) == {"cards/owner-missing": Severity.HIGH}
        with pytest.raises(InputError, match="rejected, because it lacks: owner"):
            require_complete(outcome.predicate)
    assert require_complete(card_of(sound(), artefact_id)).owner == "diagnostics@example.org"


def blanked(fact: str) -> Card:
    """A data card whose declaration leaves one thing blank."""
    if fact == "collected":
        origin = msgspec.structs.replace(sound().dataset_part("train").provenance, collected="  ")
        return card_of(changed("dataset", "train", provenance=origin))
    blank: dict[str, object] = {"uses": ()}
    return card_of(changed("dataset", "train", **{fact: blank.get(fact, " ")}))


@pytest.mark.parametrize(
    "fact",
    [
        pytest.param("collected", marks=pytest.mark.control("2.3-g")),
        pytest.param("uses", marks=pytest.mark.control("2.3-k")),
        pytest.param("limits", marks=pytest.mark.control("2.3-k")),
        "retention",
        "destruction",
    ],
)
def test_a_data_card_lacks_what_the_declaration_leaves_blank(fact):
    assert blanked(fact).missing == (fact,)
    assert card_of(sound()).facts[fact]
    with pytest.raises(InputError, match="lacks"):
        require_complete(blanked(fact))


@pytest.mark.parametrize(
    "fact", ["limits", "retention", "lifespan", pytest.param("destruction", marks=pytest.mark.control("2.3-t"))]
)
def test_a_model_card_lacks_what_the_declaration_leaves_blank(fact):
    card = card_of(changed("model", "tumour", **{fact: ""}), "model:tumour")
    assert card.missing == (fact,)
    with pytest.raises(InputError, match="lacks"):
        require_complete(card)


@pytest.mark.control("2.3-p")
def test_a_model_card_names_whom_to_contact():
    system = sound()
    assert card_of(system, "model:tumour").facts["owner"] == {
        "role": "head of diagnostics",
        "contact": "diagnostics@example.org",
    }
    nobody = make_system(owner={"role": "", "contact": ""})
    assert "owner" in card_of(nobody, "model:tumour").missing


@pytest.mark.control("2.3-j")
def test_a_data_card_names_its_maintainer_and_the_public_view_a_role():
    person = changed("dataset", "train", owner=Owner(role="data steward", contact="jane.doe@example.org"))
    assert card_of(person).owner == "jane.doe@example.org"
    view = public_view(card_of(person))
    assert view.owner == "role:data-steward"
    assert "jane" not in render_json(view).decode().lower()
    assert "owner" in card_of(changed("dataset", "train", owner=Owner(role="", contact=""))).missing


@pytest.mark.control("2.2-G2")
def test_sensitivity_and_impact_of_loss_are_required():
    for kind in ("model", "dataset"):
        assert {"sensitivity", "impactOfLoss"} <= set(required(kind))
    nowhere = make_system(component=[])
    for artefact_id in ("model:tumour", "dataset:train"):
        card = card_of(nowhere, artefact_id)
        assert "impactOfLoss" in card.missing
        with pytest.raises(InputError, match="impact of loss"):
            require_complete(card)
        full = card_of(sound(), artefact_id)
        assert full.facts["sensitivity"] == "confidential"
        assert {"confidentiality", "integrity", "availability"} <= set(full.facts["impactOfLoss"][0])


@pytest.mark.control("2.3-m")
def test_destruction_is_required_and_must_suit_the_sensitivity():
    assert "destruction" in blanked("destruction").missing
    suits = {
        ("internal", "delete the files"): True,
        ("confidential", "delete the files"): False,
        ("confidential", "Overwrite twice"): True,
        ("restricted", "Overwrite twice"): False,
        ("restricted", "destroy the encryption key"): True,
        ("restricted", "shredded discs"): True,
    }
    for (sensitivity, method), fits in suits.items():
        outcome = outcome_of(changed("dataset", "train", sensitivity=sensitivity, destruction=method), "dataset:train")
        assert ("cards/destruction-unsuited" in rules(outcome)) is not fits, (sensitivity, method)


def test_personal_data_need_a_lawful_basis():
    outcome = outcome_of(changed("dataset", "train", lawful_basis=""), "dataset:train")
    assert rules(outcome) == {"cards/lawful-basis-missing": Severity.HIGH}
    assert rules(outcome_of(changed("dataset", "train", lawful_basis="", personal_data=False), "dataset:train")) == {}


def test_a_use_that_the_data_do_not_allow_is_found():
    for change in ({"uses": ("research",)}, {"prohibited_uses": ("screening",)}):
        assert rules(outcome_of(changed("dataset", "train", **change), "model:tumour")) == {
            "cards/use-not-covered": Severity.HIGH
        }


@pytest.mark.control("2.3-G2")
def test_every_fact_on_a_card_names_the_gate_or_report_that_uses_it():
    for artefact_id in ("model:tumour", "dataset:train"):
        card = card_of(sound(), artefact_id)
        assert list(card.facts) == sorted(card.facts, key=list(BY_NAME).index)
        for name in card.facts:
            assert BY_NAME[name].used.startswith(("gate: ", "report: "))
            assert len(BY_NAME[name].used) > len("report: ") + 4
        assert set(required(card.kind)) <= set(card.facts)
    assert len({field.name for field in FIELDS}) == len(FIELDS)


# -- forms


class Facts(HTMLParser):
    """Reads the facts back from the machine-readable part, and all text, of an HTML fragment."""

    def __init__(self) -> None:
        super().__init__()
        self.facts: dict[str, object] = {}
        self.text: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        given = dict(attrs)
        if tag == "data":
            self.facts[given["data-fact"]] = json.loads(given["value"])

    def handle_data(self, data):
        self.text.append(data)


def read_back(card: Card) -> Facts:
    parser = Facts()
    parser.feed(render_html(card))
    parser.close()
    return parser


@pytest.mark.control("2.3-f")
@pytest.mark.parametrize("artefact_id", ["dataset:train", "model:tumour"])
def test_html_and_json_hold_equal_facts(artefact_id):
    card = card_of(sound(), artefact_id)
    assert read_back(card).facts == json.loads(render_json(card))["facts"] == card.facts
    text = " ".join(read_back(card).text)
    markdown = render_markdown(card)
    for name in card.facts:
        assert BY_NAME[name].title in text
        assert f"| {BY_NAME[name].title} | " in markdown


HOSTILE = st.text(st.characters(exclude_categories=("Cs",)), max_size=60) | st.sampled_from(
    ["<script>alert(1)</script>", '"><img src=x onerror=1>', "a | b\n# c", "[x](javascript:1)", "`rm`", "&lt;"]
)


@given(text=HOSTILE)
def test_no_text_breaks_out_of_its_place(text):
    card = Card(kind="dataset", name=text, owner=text, facts={"limits": text, "owner": {"role": text}}, missing=("x",))
    parser = read_back(card)
    assert parser.facts == {"limits": text, "owner": {"role": text}}
    assert parser.tags <= {"section", "h2", "p", "dl", "dt", "dd", "data"}
    lines = render_markdown(card).splitlines()
    assert sum(line.startswith("|") for line in lines) == 4
    assert all(line.replace("\\\\", "").replace("\\|", "").count("|") == 3 for line in lines if line.startswith("|"))
    assert "<" not in render_markdown(card)


def test_an_incomplete_card_says_so_in_every_form():
    card = blanked("limits")
    assert "Incomplete: limits" in " ".join(read_back(card).text)
    assert "**Incomplete:** limits" in render_markdown(card)
    assert json.loads(render_json(card))["complete"] is False


# -- public view


@pytest.mark.control("2.3-w")
def test_the_public_view_replaces_persons_by_roles():
    private = changed(
        "dataset", "train", owner=Owner(role="data steward", contact="j.doe@example.org"),
        limits="Ask jane.doe@example.org or +44 20 7946 0000, or data.steward@example.org; 2015-01-01 to 2020; 0.25",
    )  # fmt: skip
    view = public_view(card_of(private))
    published = render_html(view) + render_markdown(view) + render_json(view).decode()
    assert "doe" not in published
    assert "7946" not in published
    assert view.facts["owner"] == {"role": "data steward", "contact": "role:data-steward"}
    assert view.facts["limits"] == (
        "Ask [withheld] or [withheld], or data.steward@example.org; 2015-01-01 to 2020; 0.25"
    )
    assert public_view(card_of(sound())).owner == "diagnostics@example.org"


def test_the_public_view_leaves_out_what_helps_an_attacker():
    for artefact_id in ("dataset:train", "model:tumour"):
        view = public_view(card_of(sound(), artefact_id))
        assert all(BY_NAME[name].public for name in view.facts)
        assert not {"location", "trainedOn", "baseModel", "schema", "guardrails", "quality"} & set(view.facts)
        assert {"uses", "limits", "owner", "digest"} <= set(view.facts)


@pytest.mark.control("1.3-h")
def test_the_public_view_verifies_against_the_full_card():
    """Attack-relevant facts are gone by default, and whoever holds the signed card can check what was published."""
    system = sound()
    signed = make(CARD, system.artefact("model:tumour"), card_of(system, "model:tumour")).read()
    view = msgspec.json.decode(render_json(public_view(signed)), type=Card)
    assert {"location", "trainedOn", "baseModel"} & set(signed.facts)
    assert not {"location", "trainedOn", "baseModel"} & set(view.facts)
    assert verifies(view, signed)
    assert not verifies(msgspec.structs.replace(view, facts={**view.facts, "limits": "none"}), signed)
    assert not verifies(view, msgspec.structs.replace(signed, facts={**signed.facts, "location": "elsewhere"}))


# -- search, comparison, inventory


def shelf() -> list[Card]:
    one, two = sound(), changed("dataset", "train", sensitivity="restricted", retention="3y")
    return [card_of(one, "model:tumour"), card_of(one), card_of(one, "dataset:holdout"), card_of(two)]


@pytest.mark.control("2.3-u")
def test_cards_are_found_by_any_fact_and_two_models_are_compared():
    cards = shelf()
    for card in cards:
        for name, value in card.facts.items():
            text = value if isinstance(value, str) else ""
            assert card in search(cards, where={name: text})
    assert search(cards, where={"sensitivity": "RESTRICTED"}) == [cards[3]]
    assert search(cards, where={"kind": "model"}) == [cards[0]]
    assert search(cards, where={"owner.role": "diagnostics", "split": "holdout"}) == [cards[2]]
    assert search(cards, where={"trainedOn": cards[1].facts["digest"][:16]}) == [cards[0]]
    assert search(cards, "another hospital") == [cards[0], cards[2]]
    assert search(cards, where={"nothing": ""}) == []
    other = card_of(changed("model", "tumour", limits="Adults over 60", lifespan="1y"), "model:tumour")
    assert [(found.fact, found.first, found.second) for found in compare(cards[0], other)] == [
        ("facts.lifespan", "2y", "1y"),
        ("facts.limits", "Adults only", "Adults over 60"),
    ]


def test_a_fact_that_only_one_card_has_is_a_difference():
    found = {difference.fact: difference for difference in compare(card_of(sound(), "model:tumour"), card_of(sound()))}
    assert found["facts.lifespan"].second == "absent"
    assert found["facts.split"].first == "absent"
    assert compare(card_of(sound()), card_of(sound())) == ()


@pytest.mark.control("2.2-G1")
def test_the_inventory_lists_every_asset_with_value_owner_and_location():
    system = sound()
    assets = {asset.id: asset for asset in inventory(system)}
    assert list(assets) == ["model:tumour", "dataset:train", "dataset:holdout", "system:tumour-screening"]
    for asset in assets.values():
        assert asset.owner == "head of diagnostics"
        assert asset.contact == "diagnostics@example.org"
        assert asset.location
        assert asset.value
        assert asset.sensitivity == "confidential"
    assert assets["dataset:train"].location.endswith("data/train.csv")
    assert assets["dataset:train"].held_by == ("records (clinic)",)
    assert "A tumour is seen late" in assets["model:tumour"].value


@pytest.mark.control("2.2-k")
def test_decision_makers_get_a_register_with_lawful_basis_and_jurisdiction():
    system = sound(jurisdiction="New Zealand")
    facts = card_of(system).facts
    assert (facts["lawfulBasis"], facts["jurisdiction"]) == ("consent to research", "New Zealand")
    rows = list(csv.DictReader(io.StringIO(inventory_csv(inventory(system)))))
    personal = [row for row in rows if row["personal_data"] == "yes"]
    assert [row["id"] for row in personal] == [asset.id for asset in inventory(system)]
    assert all(row["lawful_basis"] == "consent to research" for row in personal)
    assert all(row["jurisdiction"] == "New Zealand" for row in personal)


def test_no_cell_of_the_register_is_a_formula():
    text = inventory_csv(inventory(sound(jurisdiction="=HYPERLINK(1)")))
    assert "'=HYPERLINK(1)" in text
    assert ",=" not in text
