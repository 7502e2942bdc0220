"""From a declaration to what every adversary position holds."""

from __future__ import annotations

import pytest

from bartizan.catalogue.load import catalogue
from bartizan.core.errors import InputError
from bartizan.lifecycle.design.positions import NATURAL_HOLDERS, RULES, positions_of
from fixtures.systems import declared, make_system

EXPOSURE = {"interface": "partners", "output": "label", "profile": "public-api-classifier"}


def rights(**changes):
    return positions_of(make_system(**changes).declaration, catalogue()).rights


def exposed(**changes):
    return rights(exposure={**EXPOSURE, **changes})


def test_every_position_of_the_catalogue_has_its_rights_listed():
    assert list(rights()) == ["outsider", "user", "contributor", "supplier", "insider", "neighbour", "finder"]
    assert rights()["neighbour"] == ("serving-host.colocate", "serving-host.network")


@pytest.mark.parametrize(
    ("interface", "askers"),
    [
        ("public", {"outsider", "user"}),
        ("partners", {"user"}),
        ("internal", {"insider"}),
        ("offline", {"insider"}),
    ],
)
def test_the_interface_decides_who_may_query(interface, askers):
    held = exposed(interface=interface)
    assert {position for position, tokens in held.items() if "serving-input.query" in tokens} == askers
    for asker in askers:
        assert "serving-output.label" in held[asker]
    networked = {position for position, tokens in held.items() if "serving-host.network" in tokens}
    assert networked == (set() if interface == "offline" else {"neighbour"})


@pytest.mark.parametrize(
    ("output", "scores"), [("label", False), ("top-k", True), ("rounded-scores", True), ("scores", True)]
)
def test_anything_finer_than_the_label_counts_as_scores(output, scores):
    held = exposed(output=output)
    assert "serving-output.label" in held["user"]
    assert ("serving-output.scores" in held["user"]) is scores


def test_output_detail_says_nothing_about_generated_text():
    held = rights(exposure={**EXPOSURE, "profile": "llm-rag-agent"})
    assert "serving-output.text" in held["user"]
    assert "serving-output.label" not in held["user"]


def test_continual_learning_opens_the_feedback_loop_and_its_absence_closes_it():
    on, off = exposed(continual_learning=True), exposed()
    assert "feedback-loop.write" in on["user"]
    assert "cl-pipeline.exec" in on["insider"]
    assert not any({"feedback-loop.write", "cl-pipeline.exec"} & set(tokens) for tokens in off.values())
    public = exposed(continual_learning=True, interface="public")
    assert "feedback-loop.write" in public["outsider"]


def test_a_base_model_lets_its_supplier_in():
    assert "base-model.write" not in rights()["supplier"]
    models = declared("model")
    models[0]["base_model"] = "acme/resnet"
    assert "base-model.write" in rights(model=models)["supplier"]


@pytest.mark.parametrize(
    ("trust", "writers"),
    [("trusted", {"contributor"}), ("partly", {"contributor"}), ("untrusted", {"contributor", "outsider"})],
)
def test_trust_in_data_decides_who_writes_at_the_source(trust, writers):
    datasets = declared("dataset")
    datasets[0]["trust"] = trust
    held = rights(dataset=datasets)
    assert {position for position, tokens in held.items() if "data-source.write" in tokens} == writers


@pytest.mark.parametrize("point", sorted(NATURAL_HOLDERS))
def test_a_component_outside_our_walls_gives_rights_to_who_stands_there(point):
    components = declared("component")
    components[2]["access_points"] = [point]
    held = rights(component=components)
    for position, tokens in NATURAL_HOLDERS[point].items():
        assert set(tokens) <= set(held[position])
        assert set(tokens) <= catalogue().tokens


def test_data_that_leaves_the_site_is_seen_by_the_supplier():
    assert "hosted-model.observe" not in rights()["supplier"]
    flows = declared("flow")
    flows[0]["leaves_site"] = True
    assert "hosted-model.observe" in rights(flow=flows)["supplier"]


def test_rights_named_outright_come_on_top_and_are_never_taken_away():
    named = {"user": ["serving-output.scores", "know.architecture"], "outsider": ["base-model.write"]}
    found = positions_of(make_system(exposure={**EXPOSURE, "positions": named}).declaration, catalogue())
    assert {"serving-output.scores", "know.architecture", "public-info.read"} <= set(found.rights["user"])
    assert "base-model.write" in found.rights["outsider"]
    assert {(entry.position, entry.removed) for entry in found.contradictions} == {
        ("user", ("serving-output.scores",)),
        ("outsider", ("base-model.write",)),
    }


def test_without_a_profile_only_what_is_declared_is_held():
    held = rights(
        exposure={"interface": "partners", "output": "label", "profile": "", "positions": {"finder": ["logs.read"]}}
    )
    assert held["finder"] == ("logs.read",)
    assert held["user"] == ("serving-input.query", "serving-output.label")
    assert held["neighbour"] == ()


def test_every_change_against_the_profile_is_noted_with_its_reason():
    found = positions_of(make_system(exposure={**EXPOSURE, "interface": "internal"}).declaration, catalogue())
    profile = catalogue().profile("public-api-classifier").positions
    for position, tokens in found.rights.items():
        now = set(profile.get(position, ()))
        for entry in found.amendments:
            assert entry.because
            if entry.position == position:
                now = (now | set(entry.added)) - set(entry.removed)
        assert now == set(tokens)


def test_a_stronger_adversary_may_know_more():
    found = positions_of(make_system().declaration, catalogue(), {"user": ["know.weights"]})
    assert "know.weights" in found.rights["user"]


@pytest.mark.parametrize(
    ("exposure", "complaint"),
    [
        ({"profile": "public-api-clasifier"}, "no profile"),
        ({"positions": {"visitor": ["logs.read"]}}, "no adversary position 'visitor'"),
        ({"positions": {"intruder": ["logs.read"]}}, "no adversary position 'intruder'"),
        ({"consider": ["everybody"]}, "no adversary position 'everybody'"),
        ({"positions": {"user": ["logs.shred"]}}, "cannot hold 'logs.shred'"),
        ({"positions": {"user": ["gain.trigger"]}}, "cannot hold 'gain.trigger'"),
    ],
)
def test_names_that_the_catalogue_does_not_have_are_refused(exposure, complaint):
    with pytest.raises(InputError, match=complaint) as caught:
        exposed(**exposure)
    assert caught.value.remedy


def test_every_rule_says_what_it_does():
    assert all(rule.__doc__ for rule in RULES)
