"""Attacks on systems that declare images: what applies, in which unit changes are, and what the report holds."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest

from bartizan.adapters.sklearn import SklearnTargets
from bartizan.assurance import cases
from bartizan.core.errors import WorkError
from bartizan.redteam import registry
from bartizan.redteam.changes import SHOWN_PICTURES, SHOWN_VALUES, Pictures, allowance, nearest_of_each_class, unit
from bartizan.redteam.check import UPPER_BOUND, material_of
from bartizan.redteam.play import task_of
from bartizan.targets.feasible import image_space
from bartizan.targets.protocol import Access
from fixtures.digits_nets import target as network
from fixtures.image_systems import LIMITS, SHAPE, TRAINED, Opened, declare_images, digits
from fixtures.systems import make_system
from fixtures.victims import Victim, desk

SQUARE = registry.check("evasion.square")
APGD = registry.check("evasion.apgd")


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    return declare_images(tmp_path_factory.mktemp("images"))


def run(check, system, targets=None):
    return check.run(system, system.of_kind("model")[0], desk(targets or SklearnTargets(lambda _digest: True)))


@pytest.fixture(scope="module")
def attacked(system):
    return run(SQUARE, system)


def settings(system, **more):
    declaration = system.declaration
    changed = msgspec.structs.replace(declaration.redteam, **more)
    return msgspec.structs.replace(system, declaration=msgspec.structs.replace(declaration, redteam=changed))


def test_a_model_of_images_is_attacked_in_its_own_process_in_units_of_its_pixels(attacked):
    said = attacked.predicate
    assert said.metrics["clean_accuracy"].n == 1797 - TRAINED
    assert said.metrics["clean_accuracy"].low > 0.9
    assert said.metrics["robust_accuracy"].value < said.metrics["clean_accuracy"].value
    assert said.metrics["median_change"].unit == "pixel values"
    assert said.metrics["median_change"].value <= LIMITS["max_change"]
    assert said.settings["norm"] == "linf"
    assert "change each pixel by 0.15 (values run from 0 to 1) and ask 100 times" in said.summary
    assert UPPER_BOUND not in said.summary
    assert "change each pixel by 0.15" in attacked.findings[0].detail


def test_the_report_holds_a_few_pictures_that_are_what_was_asked(system, attacked):
    report = json.loads(attacked.report.data)
    pictures = report["pictures"]
    assert (pictures["shape"], pictures["value_range"]) == (list(SHAPE), [0, 1])
    assert 0 < len(pictures["items"]) <= SHOWN_PICTURES
    rows, labels = (array[TRAINED:] for array in digits())
    with SklearnTargets(lambda _digest: True).open(system, system.of_kind("model")[0]) as victim:
        for item in pictures["items"]:
            clean, changed = (np.array(item[name]) for name in ("clean", "attacked"))
            assert clean == pytest.approx(rows[item["sample"]], abs=1e-4)
            assert item["answer_clean"] == item["label"] == str(labels[item["sample"]])
            assert str(victim.labels(clean[None])[0]) == item["answer_clean"]
            assert item["answer_attacked"] != item["label"]
            assert np.abs(changed - clean).max() == pytest.approx(item["change"], abs=2e-4)
            assert item["change"] <= LIMITS["max_change"] * 1.001
    drawn = cases.pictures(report)
    assert drawn is not None
    assert (drawn.shape, len(drawn.pairs)) == (SHAPE, len(pictures["items"]))
    fallen = {entry["record"] for entry in report["samples"] if not entry["robust"]}
    assert {item["sample"] for item in pictures["items"]} <= fallen
    assert all(entry["moved_most"] == {} for entry in report["samples"])


def test_no_picture_is_shown_of_people_or_of_confidential_records(tmp_path, system):
    people = declare_images(tmp_path, data={"personal_data": True}, samples=10, query_budget=30)
    outcome = run(SQUARE, people)
    assert outcome.predicate.metrics["attack_success"].value > 0
    assert "pictures" not in json.loads(outcome.report.data)
    subject = system.of_kind("model")[0]
    assert material_of(system, subject).showable
    for sensitivity in ("confidential", "restricted"):
        secret = declare_images(tmp_path, data={"sensitivity": sensitivity})
        assert not material_of(secret, subject).showable


def test_what_is_for_tables_or_for_images_applies_to_these_only(system):
    tables = make_system()
    for name in ("backdoor.patch", "backdoor.blended", "backdoor.warped"):
        assert registry.check(name).why_not(system) == ""
        assert "changes images" in registry.check(name).why_not(tables)
    for name in ("backdoor.tabular", "privacy.attribute", "privacy.property"):
        assert "columns of tables" in registry.check(name).why_not(system)
        assert "images" not in registry.check(name).why_not(tables)


def test_the_norm_decides_what_applies(system):
    reasons = {
        (norm, name): registry.check(name).why_not(settings(system, norm=norm))
        for norm in ("linf", "l2", "l1", "l0")
        for name in ("evasion.square", "evasion.hopskipjump", "evasion.transfer")
    }
    assert [norm for norm in ("linf", "l2", "l1", "l0") if not reasons[norm, "evasion.square"]] == ["linf", "l2"]
    assert "by the norm linf and l2, and redteam.norm is l0" in reasons["l0", "evasion.square"]
    assert not reasons["l1", "evasion.hopskipjump"]
    assert reasons["l0", "evasion.hopskipjump"]
    white = declared_network(system, norm="l2")
    assert registry.check("evasion.carlini-wagner").why_not(white) == ""
    assert "norm l2" in registry.check("evasion.carlini-wagner").why_not(declared_network(system))
    assert "norm l0" in registry.check("evasion.patch").why_not(declared_network(system))
    assert registry.check("evasion.patch").why_not(declared_network(system, norm="l0", max_change=9)) == ""


def declared_network(system, **more):
    """The same declaration for a file that gradients can be read from."""
    declaration = system.declaration
    model = msgspec.structs.replace(declaration.model[0], framework="onnx")
    changed = msgspec.structs.replace(declaration, model=(model,))
    return settings(msgspec.structs.replace(system, declaration=changed), **more)


def test_by_other_norms_changes_are_measured_by_them(system):
    outcome = run(SQUARE, settings(system, norm="l2", max_change=1.5, samples=10))
    assert "make changes of Euclidean length up to 1.5 (values run from 0 to 1)" in outcome.predicate.summary
    pictures = json.loads(outcome.report.data)["pictures"]["items"]
    assert pictures
    for item in pictures:
        assert np.linalg.norm(np.subtract(item["attacked"], item["clean"])) == pytest.approx(item["change"], abs=2e-3)


def test_an_attack_inside_the_model_is_bounded_and_said_to_be_an_upper_bound(system):
    white = declared_network(system, samples=15, gradient_budget=40)
    assert APGD.is_upper_bound(white.declaration)
    assert not APGD.why_not(white)
    outcome = run(APGD, white, Opened(network()))
    said = outcome.predicate
    assert said.summary.endswith(UPPER_BOUND)
    assert "follow 40 gradients of the model" in said.summary
    assert "not done when the gradients were spent" in said.summary
    assert said.budget["gradients_allowed_per_sample"] == 40
    assert 0 < said.budget["gradients_spent"] <= 15 * 40
    assert said.threat.access == ("gradients", "labels")
    assert said.metrics["robust_accuracy"].value < 0.9


@pytest.mark.parametrize("name", ["evasion.pgd", "evasion.autoattack"])
def test_other_attacks_by_gradients_run_from_the_declaration(system, name):
    white = declared_network(system, samples=8, gradient_budget=100, query_budget=50)
    said = run(registry.check(name), white, Opened(network())).predicate
    assert said.metrics["robust_accuracy"].n == 8
    assert said.budget["gradients_spent"] <= 800
    assert ("not done" in said.summary) == (name == "evasion.autoattack" and said.metrics["robust_accuracy"].value > 0)


def test_a_file_that_gives_no_gradients_after_all_ends_with_the_reason(system):
    class Stopped(Victim):
        lacks = {Access.GRADIENTS: "the operator Round stops them"}  # noqa: RUF012 - as targets have it

    stopped = Stopped(answer=lambda rows: np.zeros(len(rows)), features=64, classes=10)
    with pytest.raises(WorkError, match=r"needs gradients.*the operator Round stops them"):
        run(APGD, declared_network(system), Opened(stopped))


def test_common_corruptions_of_images_are_those_of_images(system):
    outcome = run(registry.check("evasion.corruptions"), settings(system, samples=20))
    curves = json.loads(outcome.report.data)["curves"]
    assert {"rotation", "jpeg", "blur"} <= set(curves)


def test_a_patch_in_images_of_training_data_becomes_a_backdoor(tmp_path):
    small = declare_images(tmp_path, poison_rates=(0.05,), repeats=2)
    outcome = run(registry.check("backdoor.patch"), small)
    said = outcome.predicate.metrics
    assert said["attack_success_beyond_clean_models_at_5_percent"].low > 0.5
    assert said["accuracy_drop_at_5_percent"].value < 0.1
    assert "2 x 2 pixels" in json.loads(outcome.report.data)["triggers"][0]


def test_what_is_declared_of_images_is_an_input_of_the_result(system, tmp_path):
    subject = system.of_kind("model")[0]
    wider = declare_images(tmp_path, data={"value_range": (0.0, 2.0)})
    changed = {
        name for name, digest in SQUARE.inputs(wider, subject).items() if SQUARE.inputs(system, subject)[name] != digest
    }
    assert changed == {"settings:redteam.evasion.square:digits"}
    for more in ({"norm": "l2"}, {"gradient_budget": 9}):
        assert SQUARE.inputs(settings(system, **more), subject) != SQUARE.inputs(system, subject)
    material = material_of(wider, subject)
    assert (material.space.high == 2).all()
    assert material.shape == SHAPE


def task(shape=SHAPE, norm=np.inf, max_change=2.0, count=3):
    rows = np.zeros((count, int(np.prod(shape))), np.float32)
    return task_of(
        rows,
        np.arange(count) % 2,
        space=image_space(shape, 0, 255),
        classes=2,
        max_change=max_change,
        norm=norm,
        shape=shape,
    )


@pytest.mark.parametrize(
    ("norm", "counted", "may"),
    [
        (np.inf, "pixel values", "change each pixel by 2 (values run from 0 to 255)"),
        (2, "pixel values", "make changes of Euclidean length up to 2 (values run from 0 to 255)"),
        (1, "pixel values", "make changes that add up to 2 (values run from 0 to 255)"),
        (0, "pixels", "change 2 pixels at will"),
    ],
)
def test_the_unit_of_a_change_is_said_in_words(norm, counted, may):
    assert (unit(task(norm=norm)), allowance(task(norm=norm))) == (counted, may)


def test_pictures_are_bounded_in_number_and_size():
    change, labels = np.array([0.3, 0.1, 0.2, 0.4]), np.array([0, 0, 1, 1])
    assert nearest_of_each_class(np.array([0, 1, 2, 3]), change, labels) == [1, 2, 0, 3]
    assert nearest_of_each_class(np.array([], dtype=np.int64), change, labels) == []
    large = task((1, 100, 90), count=40)
    table = Pictures(large, ("a", "b"), large.labels, large.rows, 1 - large.labels).table(
        list(range(40)), np.arange(40), np.ones(40)
    )
    assert 0 < len(table["items"]) * 2 * 9000 <= SHOWN_VALUES
    tiny = task(count=40)
    full = Pictures(tiny, ("a", "b"), tiny.labels, tiny.rows, 1 - tiny.labels)
    assert len(full.table(list(range(40)), np.arange(40), np.ones(40))["items"]) == SHOWN_PICTURES
