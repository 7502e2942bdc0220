"""Images in a declaration: one clear way to say what they are, and every other way refused."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from bartizan.catalogue.load import catalogue
from bartizan.core.errors import DeclarationError
from bartizan.lifecycle.design.declaration import read_declaration
from bartizan.lifecycle.design.image_rules import IMAGE_RULES
from bartizan.lifecycle.design.vocabulary import Vocabulary

TABLES = (Path(__file__).parents[3] / "assets" / "declaration" / "small.toml").read_text(encoding="utf-8")
CHECKS = ("scan", "redteam.evasion.apgd", "redteam.evasion.hopskipjump", "redteam.evasion.square", "redteam.masking")
VOCABULARY = Vocabulary.of(catalogue(), checks=CHECKS)
SHAPED = 'target = "ripe"\nshape = [1, 8, 8]\nvalue_range = [0, 1]\n'
COLUMNS = 'integer = ["weight"]\nimmutable = ["orchard"]\nranges = { weight = [0, 500] }\n'
IMAGES = (
    TABLES.replace('target = "ripe"\n', SHAPED).replace(COLUMNS, "").replace("max_change = 0.5", "max_change = 0.1")
)


def read(text):
    return read_declaration(
        text.encode(), "bartizan.toml", VOCABULARY, clock=lambda: datetime(2026, 11, 21, tzinfo=UTC)
    )


def faults(text):
    with pytest.raises(DeclarationError) as caught:
        read(text)
    return {fault.path: str(fault) for fault in caught.value.faults}


def changed(*edits, text=IMAGES):
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new)
    return text


def test_images_are_declared_by_shape_and_range():
    declared = read(IMAGES)
    assert declared.dataset[0].shape == (1, 8, 8)
    assert declared.dataset[1].value_range == (0.0, 1.0)
    assert declared.redteam.norm == "linf"
    assert declared.redteam.gradient_budget > 0
    assert len(IMAGE_RULES) == 3


BROKEN = [
    ([("shape = [1, 8, 8]", "shape = [8, 8]")], "dataset[0].shape", "channels, height, width"),
    ([("shape = [1, 8, 8]", "shape = [1, 8, 8, 1]")], "dataset[0].shape", "channels, height, width"),
    ([("shape = [1, 8, 8]", "shape = [0, 8, 8]")], "dataset[0].shape[0]", "too small"),
    ([("shape = [1, 8, 8]", "shape = [-1, 8, 8]")], "dataset[0].shape[0]", "too small"),
    ([("shape = [1, 8, 8]", "shape = [1, 8, 8.5]")], "dataset[0].shape[2]", "wrong kind"),
    ([("shape = [1, 8, 8]", 'shape = "1x8x8"')], "dataset[0].shape", "channels, height, width"),
    ([("shape = [1, 8, 8]", "shape = [3, 10000, 10000]")], "dataset[0].shape", "300000000 values are too large"),
    ([("shape = [1, 8, 8]", "shape = [1, 9223372036854775807, 8]")], "dataset[0].shape[1]", "too large"),
    ([("shape = [1, 8, 8]\n", "")], "dataset[0].value_range", "only images"),
    ([("value_range = [0, 1]\n", "")], "dataset[0].value_range", "is missing"),
    ([("value_range = [0, 1]", "value_range = [1, 0]")], "dataset[0].value_range", "low < high"),
    ([("value_range = [0, 1]", "value_range = [1, 1]")], "dataset[0].value_range", "is empty"),
    ([("value_range = [0, 1]", "value_range = [0]")], "dataset[0].value_range", "least and the largest"),
    ([("value_range = [0, 1]", "value_range = [0, 1, 2]")], "dataset[0].value_range", "least and the largest"),
    ([("value_range = [0, 1]", "value_range = [0, nan]")], "dataset[0].value_range[1]", "finite"),
    ([('group = "picker"', "ranges = { p0 = [0, 1] }")], "dataset[0].ranges", "no columns"),
    ([('group = "picker"', 'integer = ["p0"]')], "dataset[0].integer", "no columns"),
    ([("max_change = 0.1", "max_change = 1")], "redteam.max_change", "into any"),
    ([("max_change = 0.1", 'max_change = 0.1\nnorm = "linfinity"')], "redteam.norm", "linf"),
    ([("max_change = 0.1", 'max_change = 0.1\nnorm = "l0"')], "redteam.max_change", "number of columns or pixels"),
    ([("max_change = 0.1", "max_change = 0.1\ngradient_budget = 0")], "redteam.gradient_budget", "too small"),
    ([("max_change = 0.1", "max_change = 0.1\nseconds = -1")], "redteam.seconds", "too small"),
]


@pytest.mark.parametrize(("edits", "path", "says"), BROKEN)
def test_what_is_wrong_is_told_at_its_place(edits, path, says):
    found = faults(changed(*edits))
    assert says in found[path], found


def test_images_are_judged_on_images_of_the_same_shape_and_range():
    other = IMAGES.replace("shape = [1, 8, 8]", "shape = [3, 8, 8]", 1)
    assert "images of shape [1, 8, 8] with values from 0 to 1" in faults(other)["model[0].evaluated_on"]
    plain = IMAGES.replace("shape = [1, 8, 8]\nvalue_range = [0, 1]\n", "", 1)
    assert "a table" in faults(plain)["model[0].evaluated_on"]


def test_one_bound_cannot_hold_for_tables_and_images_at_once():
    model = TABLES.split("[[model]]")[1].split("[[dataset]]")[0]
    dataset = TABLES.split("[[dataset]]")[1].replace(COLUMNS, "")
    holdout = TABLES.split("[[dataset]]")[2].split("[[component]]")[0]
    both = TABLES.replace("[exposure]", _second(model, dataset, holdout) + "[exposure]", 1)
    assert "one number cannot bound" in faults(both)["redteam.max_change"]


def _second(model, train, holdout):
    names = {"fruit": "eye", "train": "seen", "holdout": "unseen"}
    text = f"[[model]]{model}[[dataset]]{train}[[dataset]]{holdout}".replace('target = "ripe"\n', SHAPED)
    for field in ("name", "trained_on", "evaluated_on"):
        for old, new in names.items():
            text = text.replace(f'{field} = "{old}"', f'{field} = "{new}"')
    return text.replace('"data/', '"images/').replace('"model/', '"m/')


def test_changes_of_tables_stay_within_what_means_anything():
    text = changed(("max_change = 0.5", "max_change = 101"), text=TABLES)
    assert "101 standard deviations" in faults(text)["redteam.max_change"]
    assert read(changed(("max_change = 0.5", 'max_change = 3\nnorm = "l0"'), text=TABLES)).redteam.norm == "l0"


def test_by_other_norms_a_change_may_be_longer_than_the_range():
    assert read(changed(("max_change = 0.1", 'max_change = 1.5\nnorm = "l2"'))).redteam.max_change == 1.5


RULE = '[[gate.release.rule]]\nid = "{}"\nabout = "model"\ntype = "assessment"\ncheck = "redteam.{}"\nwhere = [{}]\n'
SOUND = '{ field = "result", equals = "passed" }'
ROBUST = '{ field = "metrics.robust_accuracy.low", at_least = 0.1 }'


def gated(*rules):
    text = changed(('check = "redteam.evasion.hopskipjump"', 'check = "redteam.evasion.apgd"'))
    return text + "\n" + "\n".join(RULE.format(f"r{place}", *rule) for place, rule in enumerate(rules))


def test_a_gate_that_relies_on_an_attack_by_gradients_alone_is_refused():
    found = faults(gated())
    assert list(found) == ["gate.release.rule[1].check"]
    assert "redteam.masking" in found["gate.release.rule[1].check"]
    asked_otherwise = ("masking", '{ field = "metrics.robust_to_all.low", at_least = 0.0 }')
    assert "gate.release.rule[1].check" in faults(gated(asked_otherwise))
    only_clean = ("evasion.square", '{ field = "metrics.clean_accuracy.low", at_least = 0.1 }')
    assert "gate.release.rule[1].check" in faults(gated(only_clean))


@pytest.mark.parametrize("beside", [("masking", SOUND), ("evasion.square", ROBUST)])
def test_it_stands_beside_what_needs_no_gradients(beside):
    assert len(read(gated(beside)).gate["release"].rule) == 4


def test_a_warning_that_gradients_mislead_is_not_enough():
    text = gated(("masking", SOUND)) + 'severity = "warn"\n'
    assert "gate.release.rule[1].check" in faults(text)
