"""The check that stops claims of robustness which rest on gradients that mislead."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest
from torch import nn

from bartizan.core.check import Check
from bartizan.core.errors import WorkError
from bartizan.core.finding import Severity
from bartizan.core.system import Condition, Gate, Rule
from bartizan.redteam import registry
from bartizan.redteam.masking_check import MaskingCheck
from bartizan.targets.protocol import Access
from bartizan.wiring.registry import checks, selected
from fixtures.digits_nets import net
from fixtures.digits_nets import target as network
from fixtures.image_systems import Opened, declare_images
from fixtures.victims import Victim, desk

CHECK = MaskingCheck()


class Do(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, given):
        return self.function(given)


def gate(*names, field="metrics.robust_accuracy.low"):
    rules = tuple(
        Rule(
            id=f"r{place}",
            about="model",
            type="assessment",
            check=f"redteam.{name}",
            where=(Condition(field=field, at_least=0.5),),
        )
        for place, name in enumerate(names)
    )
    return {"release": Gate(rule=rules)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("masking")


def system_in(folder, *names, framework="onnx", samples=40, **settings):
    return declare_images(folder, framework=framework, gate=gate(*names), samples=samples, **settings)


def run(target, system):
    return CHECK.run(system, system.of_kind("model")[0], desk(Opened(target)))


@pytest.fixture(scope="module")
def masked(folder):
    rounding = nn.Sequential(Do(lambda images: (4 * images).round() / 4), net())
    return run(network(rounding), system_in(folder, "evasion.apgd"))


@pytest.fixture(scope="module")
def sound(folder):
    return run(network(), system_in(folder, "evasion.apgd"))


def test_a_model_whose_gradients_mislead_fails_with_a_finding_that_says_what_is_left(masked):
    said = masked.predicate
    assert said.result == "failed"
    assert said.settings["verdict"] == "masked"
    assert said.settings["claimed"] == "evasion.apgd"
    assert said.metrics["robust_by_gradients"].value > 0.9
    assert said.metrics["robust_to_all"].high < said.metrics["robust_by_gradients"].low
    assert said.metrics["missed_by_gradients"].low > 0.2
    assert said.summary.startswith("masked: ")
    (finding,) = masked.findings
    assert (finding.rule, finding.severity) == ("redteam/masked", Severity.HIGH)
    assert "change each pixel by 0.15" in finding.detail
    assert said.findings == {"high": 1}
    report = json.loads(masked.report.data)
    seen = {sign["name"] for sign in report["signs"] if sign["seen"]}
    assert {"gradient-free", "slopes of 0"} <= seen


def test_a_model_with_sound_gradients_passes_without_a_finding(sound):
    assert sound.predicate.result == "passed"
    assert sound.findings == ()
    assert sound.predicate.metrics["robust_to_all"].value <= sound.predicate.metrics["robust_by_gradients"].value


def test_a_transfer_from_a_copy_is_tried_and_what_was_not_tried_is_said(masked, sound):
    for outcome in (masked, sound):
        report = json.loads(outcome.report.data)
        assert "transfer from a copy" in {sign["name"] for sign in report["signs"]}
        assert ["by hand" in why for why in report["missing"]] == [True]
        assert "Not tried: transfer from its differentiable approximation" in outcome.predicate.summary
        assert "StraightThrough" in outcome.predicate.summary


def test_each_attack_that_a_gate_asks_for_is_judged_and_the_worst_verdict_counts(folder):
    """One step finds less than the model's true weakness; the strong attack beside it does not make up for that."""
    outcome = run(network(), system_in(folder, "evasion.apgd", "evasion.fgsm", samples=100))
    said, report = outcome.predicate, json.loads(outcome.report.data)
    assert said.settings["claimed"] == "evasion.apgd, evasion.fgsm"
    assert {name: one["verdict"] for name, one in report["judged"].items()} == {
        "evasion.apgd": "sound",
        "evasion.fgsm": "too weak",
    }
    assert (said.result, said.settings["verdict"]) == ("failed", "too weak")
    (finding,) = outcome.findings
    assert "Compared with evasion.fgsm," in finding.detail


def test_the_same_system_gives_the_same_bytes(folder, sound):
    assert run(network(), system_in(folder, "evasion.apgd")).report.data == sound.report.data


class Stopped(Victim):
    """Gives scores, and says why it gives no gradients."""

    lacks = {Access.GRADIENTS: "the operator Round stops them"}  # noqa: RUF012 - as targets have it
    offers = frozenset({Access.LABELS, Access.SCORES})

    def __init__(self):
        super().__init__(features=64, classes=10)
        self.inner = network()

    def labels(self, rows):
        return self.inner.labels(rows)

    def scores(self, rows):
        return self.inner.scores(rows)


def test_a_model_that_stops_gradients_is_judged_without_them_and_does_not_pass(folder):
    outcome = run(Stopped(), system_in(folder, "evasion.apgd", samples=15))
    said = outcome.predicate
    assert said.result == "failed"
    assert said.settings["verdict"] == "no gradients"
    assert "the operator Round stops them" in said.summary
    assert "evasion.square and a transfer from a copy" in said.summary
    assert "Not tried: gradients: the operator Round stops them; transfer from its" in said.summary
    assert "robust_by_gradients" not in said.metrics
    assert said.metrics["robust_to_all"].value < 0.9
    assert [finding.severity for finding in outcome.findings] == [Severity.MEDIUM]


def test_by_a_norm_that_no_attack_without_gradients_searches_one_for_another_norm_is_tried(folder):
    said = run(Stopped(), system_in(folder, "evasion.apgd", samples=5, norm="l1", max_change=8)).predicate
    assert said.settings["verdict"] == "no gradients"
    assert "evasion.hopskipjump" in said.summary
    assert said.metrics["robust_to_all"].value < 1


def test_an_attack_that_does_not_apply_is_not_the_one_that_is_judged(folder):
    system = system_in(folder, "evasion.carlini-wagner")
    names = set(CHECK.inputs(system, system.of_kind("model")[0]))
    assert "settings:redteam.masking.evasion.pgd:digits" in names


def test_a_model_that_answers_one_class_does_not_pass(folder):
    constant = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    nn.init.zeros_(constant[1].weight)
    outcome = run(network(constant.eval()), system_in(folder, "evasion.apgd", samples=10))
    assert outcome.predicate.result == "failed"
    assert outcome.predicate.settings["verdict"] == "nothing to say"


def test_answers_that_are_no_numbers_say_nothing(folder):
    broken = nn.Sequential(net(), Do(lambda logits: logits * float("nan")))
    with pytest.raises(WorkError, match=r"no class or no number|not finite|NaN"):
        run(network(broken), system_in(folder, "evasion.apgd", samples=5))


def test_it_runs_where_something_rests_on_gradients(folder):
    assert isinstance(CHECK, Check)
    assert selected(CHECK, system_in(folder, "evasion.apgd"))
    assert selected(CHECK, system_in(folder, attacks=("evasion.pgd",)))
    assert selected(CHECK, system_in(folder, "masking"))
    assert not selected(CHECK, system_in(folder, "evasion.square"))
    assert CHECK.name in {check.name for check in checks((CHECK.name,))}


def test_it_applies_where_gradients_can_be_read(folder):
    assert [model.name for model in CHECK.subjects(system_in(folder, "masking"))] == ["digits"]
    trees = system_in(folder, "masking", framework="xgboost")
    assert CHECK.subjects(trees) == ()
    assert "needs gradients" in CHECK.why_not(trees)
    sparse = system_in(folder, "masking", norm="l0", max_change=5)
    assert CHECK.subjects(sparse) == ()
    assert "redteam.norm is l0" in CHECK.why_not(sparse)


def test_the_attacks_that_a_gate_asks_for_are_those_that_are_judged(folder):
    system = system_in(folder, "evasion.square", "evasion.fgsm", "evasion.apgd")
    subject = system.of_kind("model")[0]
    names = set(CHECK.inputs(system, subject)) - {artefact.id for artefact in system.artefacts}
    assert names == {"settings:redteam.masking.evasion.fgsm:digits", "settings:redteam.masking.evasion.apgd:digits"}
    assert set(CHECK.inputs(system_in(folder, "masking"), subject)) >= {"settings:redteam.masking.evasion.pgd:digits"}


def test_its_result_rests_on_what_the_attack_rests_on(folder):
    system = system_in(folder, "evasion.apgd")
    subject = system.of_kind("model")[0]
    like = registry.check("evasion.apgd").inputs(system, subject)
    mine = CHECK.inputs(system, subject)
    assert set(like.values()) >= {mine[name] for name in mine if not name.startswith("settings")}
    changed = msgspec.structs.replace(
        system,
        declaration=msgspec.structs.replace(
            system.declaration, redteam=msgspec.structs.replace(system.declaration.redteam, max_change=0.2)
        ),
    )
    assert CHECK.inputs(changed, subject) != mine
    assert np.isclose(0.2, changed.declaration.redteam.max_change)
