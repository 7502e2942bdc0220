"""ATLAS releases of both layouts, honest, sloppy and hostile."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bartizan.catalogue import atlas
from bartizan.catalogue.atlas import AtlasContent, adopt, outdated, read_atlas
from bartizan.catalogue.crossrefs import dangling
from bartizan.catalogue.load import catalogue
from bartizan.core.errors import InputError
from fixtures.effort import within

FORMAT_6 = b"""
format-version: 6.0.0
collection: {name: ATLAS, version: '2026.11', modified-date: 2026-11-30}
tactics:
  AML.TA0001: {name: AI Attack Adaptation}
  AML.TA0011: {name: Impact}
techniques:
  AML.T0015: {name: Evade AI Model, maturity: Demonstrated, description: "a\\nb"}
  AML.T0043.000: {name: White-Box Optimization}
mitigations:
  AML.M0015: {name: Predictive AI Adversarial Input Detection}
case-studies:
  AML.CS0000: {name: A case}
relationships:
  AML.T0015:
    achieves:
    - {source: AML.T0015, target: AML.TA0011, relationship-type: achieves}
    - {source: AML.T0015, target: AML.TA0001, relationship-type: achieves}
  AML.M0015:
    mitigates:
    - {source: AML.M0015, target: AML.T0015, description: Sees them}
  AML.CS0000:
    employs:
    - {source: AML.CS0000, target: AML.T0015, step-id: S00}
"""

LEGACY = b"""
id: ATLAS
version: 5.6.0
matrices:
- id: ATLAS
  tactics:
  - {id: AML.TA0011, name: Impact, created_date: 2022-01-24}
  techniques:
  - {id: AML.T0015, name: Evade AI Model, tactics: [AML.TA0011]}
  - {id: AML.T0043.000, name: White-Box Optimization, subtechnique-of: AML.T0043}
  mitigations:
  - id: AML.M0015
    name: Adversarial Input Detection
    techniques:
    - {id: AML.T0015, use: Sees them}
  - id: AML.M0018
    name: User Training
    ml-lifecycle:
    - Deployment
    - {id: AML.T0011, use: a technique that strayed into the wrong list}
    techniques: []
"""


def release(version="2026.11", **changes) -> AtlasContent:
    """What the catalogue knows, as a newer release with changes: id to name, None for gone."""
    names = catalogue().entries.atlas
    kinds = {}
    for kind in ("tactics", "techniques", "mitigations"):
        wanted = getattr(names, kind) | changes.get(kind, {})
        kinds[kind] = {atlas_id: name for atlas_id, name in wanted.items() if name}
    return AtlasContent(version=version, legacy=False, achieves={}, mitigates={}, **kinds)


def test_format_6_is_read_with_its_relationships():
    content = read_atlas(FORMAT_6)
    assert content.version == "2026.11"
    assert not content.legacy
    assert content.techniques == {"AML.T0015": "Evade AI Model", "AML.T0043.000": "White-Box Optimization"}
    assert content.achieves == {"AML.T0015": ("AML.TA0011", "AML.TA0001")}
    assert content.mitigates == {"AML.M0015": ("AML.T0015",)}
    assert content.name("AML.TA0011") == "Impact"


def test_the_legacy_file_is_read_past_a_misplaced_item():
    content = read_atlas(LEGACY)
    assert content.legacy
    assert content.version == "5.6.0"
    assert content.mitigations == {"AML.M0015": "Adversarial Input Detection", "AML.M0018": "User Training"}
    assert content.achieves == {"AML.T0015": ("AML.TA0011",)}
    assert content.mitigates == {"AML.M0015": ("AML.T0015",)}


def test_lists_at_the_top_as_before_release_4_are_read_too():
    content = read_atlas(b"version: 3.0.0\ntechniques: [{id: AML.T0015, name: Evade ML Model}]\n")
    assert content.legacy
    assert content.techniques == {"AML.T0015": "Evade ML Model"}


@pytest.mark.parametrize(
    "junk",
    [
        b"techniques: {AML.T0015: {name: [a]}, AML.T0016: text, T17: {name: no id of ATLAS}, AML.T0043: {name: ok}}",
        b"relationships: [1, 2]\ntechniques: {AML.T0043: {name: ok}}",
        (
            b"relationships: {a: [b], c: {achieves: {d: e}}, f: {achieves: [g, {source: [], target: 3}]}}\n"
            b"techniques: {AML.T0043: {name: ok}}"
        ),
        b"matrices: [null, 3, {techniques: [x, {id: AML.T0043, name: ok, tactics: {a: b}}], mitigations: nothing}]",
        b"collection: 3\nmitigations: [a]\ntechniques: {AML.T0043: {name: ok}}",
    ],
)
def test_what_is_malformed_is_passed_over(junk):
    content = read_atlas(junk)
    assert content.techniques == {"AML.T0043": "ok"}
    assert content.achieves == {}


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "no mapping"),
        (b"v6/ATLAS-2026.09.yaml", "pointer"),
        (b"format-version: 6.0.0", "no ATLAS techniques"),
        (b"techniques: {AML.T0015: {description: nameless}}", "no ATLAS techniques"),
        (b"a: &a [x]\nb: [*a, *a]", "anchors"),
        (b"[" * 100_000, "deeper"),
        (b"- " * 50_000 + b"x", "deeper"),
        (b"a: [" + b"x, " * 500_000 + b"x]", "nodes"),
        (b"a: 'unclosed", "no YAML"),
        (b"? [a]\n: b", "no YAML"),
        (b"\x00\x01", "no YAML"),
        (b"\xff\xfe\x00\xd8", "no YAML"),
        (b"x" * (atlas.MAX_BYTES + 1), "bytes"),
    ],
)
def test_hostile_or_useless_files_are_refused_with_a_reason_and_at_once(data, complaint):
    with within(1), pytest.raises(InputError, match=complaint):
        read_atlas(data)


def test_a_billion_laughs_is_refused_before_it_is_built():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 40)]
    with pytest.raises(InputError, match="anchors"):
        read_atlas("\n".join(lines).encode())


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system ['exit 1']", "!!python/name:os.system", "!custom x"])
def test_tags_construct_nothing(tag):
    content = read_atlas(b"evil: " + tag.encode() + b"\ntechniques: {AML.T0043: {name: ok}}")
    assert content.techniques == {"AML.T0043": "ok"}


def test_values_stay_text_and_are_cut():
    content = read_atlas(b"techniques: {AML.T0043: {name: 2026-13-45}, AML.T0044: {name: " + b"n" * 5000 + b"}}")
    assert content.techniques["AML.T0043"] == "2026-13-45"
    assert len(content.techniques["AML.T0044"]) == atlas.MAX_NAME


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_any_bytes_are_read_or_refused(data):
    with contextlib.suppress(InputError):
        assert read_atlas(data).techniques


YAML_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(["AML.T0015", "AML.M0001", "name"])
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["id", "name", "techniques", "matrices", "tactics", "relationships", "achieves", "AML.T0015"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(["techniques", "matrices", "mitigations", "relationships"]), YAML_VALUES))
def test_any_structure_is_read_or_refused(root):
    with contextlib.suppress(InputError):
        assert read_atlas(msgspec.json.encode(root)).techniques


def test_ids_outdated_by_a_newer_release_are_flagged():
    assert outdated(catalogue(), release()) == ()
    newer = release(
        techniques={
            "AML.T0015": "Evade Predictive Model",
            "AML.T0063": None,
            "AML.T0136": "Discover AI Model Outputs",
            "AML.T0013": None,
        }
    )
    found = {entry.id: entry for entry in outdated(catalogue(), newer)}
    assert set(found) == {"AML.T0015", "AML.T0063", "AML.T0013"}
    assert (found["AML.T0015"].state, found["AML.T0015"].now) == ("renamed", "Evade Predictive Model")
    assert (found["AML.T0063"].state, found["AML.T0063"].now) == ("retired", "AML.T0136")
    assert (found["AML.T0013"].state, found["AML.T0013"].now) == ("unknown", "")
    assert found["AML.T0013"].used_by == ("T02",)


def test_an_id_that_was_retired_long_ago_is_reported_with_its_successor():
    entries = catalogue().entries
    old = msgspec.structs.replace(entries.techniques[21], atlas=("AML.T0019",))
    techniques = (*entries.techniques[:21], old, *entries.techniques[22:])
    found = outdated(type(catalogue())(msgspec.structs.replace(entries, techniques=techniques)), release())
    assert [(entry.id, entry.state, entry.now, entry.used_by) for entry in found] == [
        ("AML.T0019", "retired", "AML.T0115.000", ("T22",))
    ]


def test_an_ambiguous_name_gives_no_successor():
    newer = release(techniques={"AML.T0063": None, "AML.T0136": "Discover AI Model Outputs"})
    twice = msgspec.structs.replace(newer, mitigations=newer.mitigations | {"AML.M0099": "Discover AI Model Outputs"})
    assert [entry.state for entry in outdated(catalogue(), twice)] == ["unknown"]


def test_a_legacy_file_is_not_held_against_what_is_newer_than_it():
    names = catalogue().entries.atlas
    newer = set(names.added_since_legacy) | names.renamed.keys()
    content = release(version="5.6.0", techniques=dict.fromkeys(newer & names.techniques.keys()))
    legacy = msgspec.structs.replace(content, legacy=True, mitigations=dict.fromkeys(names.mitigations, "old name"))
    assert {entry.id for entry in outdated(catalogue(), legacy)} == names.mitigations.keys() - newer


def test_adopting_the_same_names_changes_nothing_and_adopting_newer_ones_changes_the_digest():
    same = release(version="2026.09")
    assert adopt(catalogue(), same).digest == catalogue().digest
    newer = release(techniques={"AML.T0063": None, "AML.T0136": "Discover AI Model Outputs"})
    updated = adopt(catalogue(), newer)
    assert updated.digest != catalogue().digest
    assert updated.entries.atlas.content == "2026.11"
    assert updated.technique("T02").atlas == ("AML.T0013", "AML.T0136")
    assert updated.entries.atlas.aliases["AML.T0063"] == "AML.T0136"
    assert "AML.T0136" in updated.entries.atlas.added_since_legacy
    assert dangling(updated.entries) == []
    assert outdated(updated, newer) == ()


@pytest.mark.parametrize("version", ["2026.08", "unknown", "", "9999"])
def test_an_older_or_nameless_release_is_not_adopted(version):
    with pytest.raises(InputError, match=r"not 2026\.09 or newer"):
        adopt(catalogue(), release(version=version))


def test_the_legacy_layout_is_not_adopted():
    with pytest.raises(InputError):
        adopt(catalogue(), read_atlas(LEGACY))
