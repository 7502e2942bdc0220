"""The shipped catalogue: complete, consistent, and the same as its sources."""

from __future__ import annotations

import re

import jsonschema_rs
import msgspec
import pytest
import yaml

from bartizan.catalogue import build, load
from bartizan.catalogue.crossrefs import dangling
from bartizan.catalogue.entries import Control, Entries, Mitigation, Technique
from bartizan.catalogue.load import catalogue
from bartizan.catalogue.sources import SOURCES, assemble
from bartizan.core import predicates
from bartizan.core.digest import canonical_json, digest_bytes
from bartizan.core.errors import InputError
from fixtures.effort import quickest

FOLDERS = {
    "principles": "principle",
    "controls": "controls",
    "techniques": "technique",
    "mitigations": "mitigation",
    "access-points": "access-point",
    "profiles": "profile",
    "families": "family",
    "audiences": "audience",
    "standards": "standard",
}
FILES = [(path, kind) for folder, kind in FOLDERS.items() for path in sorted((SOURCES / folder).glob("*.yaml"))]
FILES += [(SOURCES / "meta.yaml", "meta"), (SOURCES / "atlas.yaml", "atlas")]


@pytest.fixture(scope="module")
def entries() -> Entries:
    return catalogue().entries


def changed(entries: Entries, kind: str, index: int, **fields) -> Entries:
    listed = list(getattr(entries, kind))
    listed[index] = msgspec.structs.replace(listed[index], **fields)
    return msgspec.structs.replace(entries, **{kind: tuple(listed)})


def test_shipped_file_is_what_the_sources_give():
    assert (SOURCES / "catalogue.json").read_bytes() == build.render(assemble())


@pytest.mark.parametrize(("path", "kind"), FILES, ids=lambda value: getattr(value, "stem", value))
def test_every_source_validates_against_its_schema(path, kind):
    schema = msgspec.json.decode((SOURCES / "schema" / f"{kind}.json").read_bytes())
    jsonschema_rs.meta.validate(schema)
    jsonschema_rs.validate(schema, yaml.safe_load(path.read_bytes()))


def test_every_schema_is_used_and_every_yaml_file_is_read():
    assert {path.stem for path in (SOURCES / "schema").glob("*.json")} == {kind for _, kind in FILES}
    assert set(SOURCES.rglob("*.yaml")) == {path for path, _ in FILES}


def test_nothing_is_missing(entries):
    assert len(entries.controls) == 324
    assert len([control for control in entries.controls if control.goal]) == 55
    assert len([control for control in entries.controls if control.human]) == 48
    assert len(entries.principles) == 15
    assert len(entries.techniques) == 67
    assert len(entries.mitigations) == 58
    assert len(entries.access_points) == 35
    assert len(entries.profiles) == 4
    assert (len(entries.atlas.techniques), len(entries.atlas.mitigations), len(entries.atlas.tactics)) == (208, 40, 16)


def test_all_attacks_of_nist_and_all_mitigations_of_atlas_are_placed(entries):
    assert set(entries.meta.nist.attacks) <= {name for technique in entries.techniques for name in technique.nist}
    assert set(entries.atlas.mitigations) == {name for mitigation in entries.mitigations for name in mitigation.atlas}


def test_every_a_mlsg_item_is_placed(entries):
    items = {c.id for c in entries.controls if c.source == "a-mlsg"} - {"A-MLSG-ATTACKS"}
    placed = {name for kind in (entries.techniques, entries.mitigations) for entry in kind for name in entry.amlsg}
    assert placed == items


@pytest.mark.control("ROKE-1")
def test_the_catalogue_loads_and_every_id_in_it_resolves(entries):
    assert dangling(entries) == []
    for technique in entries.techniques:
        for name in technique.atlas:
            assert entries.atlas.name(name)
        for token in [token for alternative in technique.needs for token in alternative]:
            assert token in catalogue().tokens


@pytest.mark.parametrize(
    ("kind", "fields", "complaint"),
    [
        ("techniques", {"atlas": ("AML.T9999",)}, "ATLAS technique 'AML.T9999'"),
        ("techniques", {"nist": ("NISTAML.099",)}, "NIST attack"),
        ("techniques", {"owasp": ("LLM11:2026",)}, "OWASP id"),
        ("techniques", {"ncsc": ("6.1",)}, "principle '6.1'"),
        ("techniques", {"amlsg": ("A-MLSG-009-D001",)}, "control"),
        ("techniques", {"needs": (("serving-input.guess",),)}, "token 'serving-input.guess'"),
        ("techniques", {"yields": ("gain.gold",)}, "token 'gain.gold'"),
        ("techniques", {"applies_to": ("quantum",)}, "kind of system"),
        ("techniques", {"id": "T02"}, "used 2 times"),
        ("mitigations", {"atlas": ("AML.M0047",)}, "ATLAS mitigation 'AML.M0047'"),
        ("mitigations", {"guards": {"know.task": ("user",)}}, "right 'know.task'"),
        ("mitigations", {"guards": {"logs.read": ("visitor",)}}, "position 'visitor'"),
        ("mitigations", {"blocks": ("T99",)}, "technique 'T99'"),
        ("mitigations", {"conflicts_with": ("M99",)}, "mitigation 'M99'"),
        ("mitigations", {"capability": "magic"}, "capability 'magic'"),
        ("controls", {"capability": "magic"}, "capability 'magic'"),
        ("controls", {"refers_to": ("9.9-z",)}, "control or principle"),
        ("access_points", {"ncsc": ("0.0",)}, "principle"),
        ("profiles", {"positions": {"intruder": ("logs.read",)}}, "position 'intruder'"),
        ("profiles", {"positions": {"user": ("gain.trigger",)}}, "right 'gain.trigger'"),
    ],
)
def test_a_reference_to_nothing_is_seen_and_not_built(entries, kind, fields, complaint):
    broken = changed(entries, kind, 0, **fields)
    assert any(complaint in fault for fault in dangling(broken))
    with pytest.raises(InputError, match="contradicts itself"):
        build.render(broken)


def test_an_alias_to_a_missing_id_is_seen(entries):
    atlas = msgspec.structs.replace(entries.atlas, aliases={"AML.T0019": "AML.T7777"})
    assert any("AML.T7777" in fault for fault in dangling(msgspec.structs.replace(entries, atlas=atlas)))


def test_retired_atlas_ids_have_a_successor_in_use_and_are_not_used_themselves(entries):
    assert entries.atlas.aliases["AML.T0019"] == "AML.T0115.000"
    used = {name for technique in entries.techniques for name in technique.atlas}
    for retired, successor in entries.atlas.aliases.items():
        assert retired not in used
        assert entries.atlas.name(successor)
        assert not entries.atlas.name(retired)


def test_control_ids_are_unique_and_belong_to_their_principle(entries):
    ids = [control.id for control in entries.controls]
    assert len(ids) == len(set(ids))
    for principle in entries.principles:
        for control in catalogue().controls_of(principle.id):
            assert control.id.startswith(f"{principle.id}-")
            assert control.principle == principle.id
            assert control.source == "ncsc"


def test_evidence_uses_known_predicates(entries):
    assert set(entries.meta.predicates.values()) == set(predicates.SHORT_NAMES.values()) - {predicates.TRUST}
    short = set(entries.meta.predicates) | {"OSCAL export", "report", "examples in CI", "declaration"}
    for control in entries.controls:
        for word in re.findall(r"([a-z]+)\[", control.evidence):
            assert word in short, control.id


def test_declared_trade_offs_are_mutual(entries):
    for mitigation in entries.mitigations:
        for other in mitigation.conflicts_with:
            assert mitigation.id in catalogue().mitigation(other).conflicts_with


def test_every_technique_has_some_answer(entries):
    guarded = {token for mitigation in entries.mitigations for token in mitigation.guards}
    named = {
        name
        for mitigation in entries.mitigations
        for name in (*mitigation.blocks, *mitigation.weakens, *mitigation.detects)
    }
    for technique in entries.techniques:
        assert technique.id in named or any(set(need) & guarded for need in technique.needs)


def test_attack_types_name_techniques_that_the_red_team_tries(entries):
    assert [attack.id for attack in entries.meta.attack_types] == [
        "adversarial-examples",
        "data-extraction",
        "poisoning-and-backdoors",
        "evasion",
        "reverse-engineering",
    ]
    for attack in entries.meta.attack_types:
        assert all(catalogue().technique(name).redteam for name in attack.techniques)


@pytest.mark.parametrize(
    ("entry_id", "refers_to", "resolved"),
    [
        ("GL-1.4", ("1.2-G4",), "impact fields cover users, organisation and society"),
        ("2.4-d", ("2.1-n",), "corpus of malicious and benign model files is classified at stated rates"),
        ("5.2-a", ("4.3-c", "4.3-d"), "export validates against the ATLAS case-study schema"),
        ("A-MLSG-003-C002", ("4.2-l", "4.2-m", "4.2-n", "4.2-o", "4.2-p"), "marginals kept, record links broken"),
        ("GL-3.7", ("GL-2.7",), "restore drill from offline copy verifies digests incl. keys and policy"),
        ("BLOG-2", ("2.1", "2.3"), "every test of principle 2.1"),
    ],
)
def test_short_hand_tests_are_resolved(entry_id, refers_to, resolved):
    control = catalogue().control(entry_id)
    assert control.refers_to == refers_to
    assert resolved in control.test_resolved


def test_no_resolved_test_is_still_short_hand(entries):
    pointers = [control for control in entries.controls if control.refers_to]
    assert len(pointers) == 18
    for control in entries.controls:
        assert not re.match(r"(as|see) [0-9A-Z]", control.test_resolved), control.id
        assert control.refers_to or control.test_resolved == control.test


def test_digest_is_over_the_canonical_entries_and_changes_with_any_of_them(entries):
    assert catalogue().digest == digest_bytes(canonical_json(entries))
    other = changed(entries, "techniques", 0, note="Another note.")
    assert load.Catalogue(other).digest != catalogue().digest


def test_lookups_by_id():
    shipped = catalogue()
    assert shipped.technique("T08").name == "Decision-based black-box evasion"
    assert shipped.mitigation("M05").blocks == ("T14",)
    assert shipped.access_point("serving-input").tokens == ("serving-input.query", "serving-input.tamper")
    assert shipped.profile("llm-rag-agent").positions["user"]
    assert shipped.principle("2.1").stage == "develop"
    assert "T16" in {technique.id for technique in shipped.techniques_of("4.1")}
    assert shipped.version == "2026.11"


@pytest.mark.parametrize("kind", ["technique", "mitigation", "control", "principle", "access_point", "profile"])
def test_an_unknown_id_is_an_error_with_a_way_out(kind):
    with pytest.raises(InputError, match="the catalogue has no") as caught:
        getattr(catalogue(), kind)("nonsense" * 40)
    assert caught.value.remedy
    assert len(caught.value.message) < 200


def test_a_near_miss_is_suggested():
    with pytest.raises(InputError) as caught:
        catalogue().access_point("serving-inptu")
    assert "serving-input" in caught.value.remedy


def test_search_finds_all_words_titles_first_whatever_the_case():
    hits = catalogue().search("MEMBERSHIP inference")
    assert hits[0].id == "T35"
    assert hits[0].kind == "technique"
    assert catalogue().search("dataset-store.write")
    assert {hit.kind for hit in catalogue().search("model")} >= {"technique", "mitigation", "control", "principle"}


@pytest.mark.parametrize("words", ["", "   ", "zebra crossing", "\x00", "(" * 1000])
def test_search_for_nothing_finds_nothing(words):
    assert catalogue().search(words) == ()


def test_loading_is_fast():
    def anew():
        load.catalogue.cache_clear()
        catalogue()

    assert quickest(anew) < 0.010


def test_entries_survive_a_round_trip(entries):
    assert msgspec.json.decode(canonical_json(entries), type=Entries) == entries
    assert {Technique, Mitigation, Control} == {
        type(kind[0]) for kind in (entries.techniques, entries.mitigations, entries.controls)
    }
