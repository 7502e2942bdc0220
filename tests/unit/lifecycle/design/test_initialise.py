"""The first declaration: what is found is filled in, what must be known is asked for, nothing is made up."""

import re
import tomllib
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bartizan.catalogue.load import catalogue
from bartizan.core.errors import DeclarationError, InputError
from bartizan.lifecycle.design.declaration import read_declaration
from bartizan.lifecycle.design.declaration_notices import notices
from bartizan.lifecycle.design.initialise import LATER, PROFILES, REACHES, questions, render
from bartizan.lifecycle.design.survey import FoundModel, FoundTable, Survey
from bartizan.lifecycle.design.vocabulary import Vocabulary

NOTHING = Survey(folder="My folder!")
FOUND = Survey(
    folder="fruit",
    models=(FoundModel(path="model/fruit.joblib", certain=True),),
    tables=(
        FoundTable(
            path="data/holdout.csv", split="holdout", columns=("a", "ripe"), target="ripe", classes=("no", "yes")
        ),
        FoundTable(
            path="data/train.csv",
            split="train",
            columns=("a", "weight", "ripe"),
            target="ripe",
            classes=("no", "yes"),
            integer=("weight",),
        ),
    ),
)
ANSWERS = {question.key: "said" for question in LATER} | {
    "name": "fruit",
    "purpose": "Sort fruit",
    "owner": "owner@example.org",
    "reach": "internal",
    "personal": "yes",
    "ml": "ml@example.org",
    "security": "security@example.org",
    "domain": "domain@example.org",
    "sources": "2",
    "accuracy": "0.9",
}
CHECKS = (
    "scan", "data.quality", "cards.model", "cards.data", "design.threats", "design.attackmap",
    "redteam.evasion.hopskipjump", "redteam.evasion.square", "redteam.poisoning.labelflip",
    "redteam.privacy.membership", "redteam.extraction.active",
)  # fmt: skip
VOCABULARY = Vocabulary.of(catalogue(), CHECKS)


def read(text):
    return read_declaration(
        text.encode(), "bartizan.toml", VOCABULARY, clock=lambda: datetime(2026, 11, 21, tzinfo=UTC)
    )


def test_few_questions_are_asked():
    assert [question.key for question in questions(NOTHING)] == ["name", "purpose", "owner", "reach", "personal"]
    assert questions(NOTHING)[0].default == "my-folder"


@pytest.mark.parametrize("reach", REACHES)
@pytest.mark.parametrize("personal", ["yes", "no"])
def test_with_every_answer_the_declaration_is_sound(reach, personal):
    declaration = read(render(FOUND, ANSWERS | {"reach": reach, "personal": personal}))
    assert declaration.exposure.interface == reach
    assert declaration.dataset[0].personal_data is (personal == "yes")
    assert declaration.model[0].classes == ("no", "yes")
    assert (declaration.model[0].trained_on, declaration.model[0].evaluated_on) == ("train", "holdout")
    assert declaration.dataset[0].integer == ("weight",)


IMAGES = Survey(
    folder="digits",
    models=(FoundModel(path="model/digits.onnx", certain=True, framework="onnx"),),
    tables=tuple(
        FoundTable(path=f"data/{split}.npz", split=split, target="digit", shape=(1, 8, 8))
        for split in ("train", "holdout")
    ),
)


def test_images_are_declared_as_such_and_their_range_and_bound_are_asked_for():
    text = render(IMAGES, ANSWERS)
    with pytest.raises(DeclarationError) as caught:
        read(text)
    asked = {fault.path for fault in caught.value.faults}
    assert {"dataset[0].value_range", "dataset[1].value_range", "redteam.max_change"} <= asked
    for line in re.findall(r"(?:value_range|max_change|classes) = .*FILL IN.*", text):
        name = line.split(" = ")[0]
        value = {"value_range": "[0, 16]", "max_change": "1.5", "classes": '["0", "1"]'}[name]
        text = text.replace(line, f"{name} = {value}", 1)
    declared = read(text)
    assert declared.model[0].framework == "onnx"
    assert declared.dataset[0].shape == (1, 8, 8)
    assert declared.redteam.max_change == 1.5
    assert "integer" not in text


def test_the_gate_asks_for_every_kind_of_evidence_and_gives_its_reasons():
    rules = {rule.id: rule for rule in read(render(FOUND, ANSWERS)).gate["release"].rule}
    assert {rule.check for rule in rules.values()} - {""} == set(CHECKS)
    assert rules["approval"].role == "risk-owner"
    assert rules["review"].role == "security"
    assert rules["two-people"].signers == 2
    assert rules["risk"].kind == "risk"
    assert rules["signature"].type == "signature"
    assert all(rule.why for rule in rules.values())


def test_the_gate_bounds_the_unfavourable_end_of_each_interval():
    assert "declaration/favourable-bound" not in {notice.rule for notice in notices(read(render(FOUND, ANSWERS)))}


@pytest.mark.parametrize("found", [NOTHING, FOUND], ids=["empty folder", "found"])
def test_without_answers_the_lines_to_fill_in_are_named(found):
    text = render(found, {})
    with pytest.raises(DeclarationError) as caught:
        read(text)
    lines = text.splitlines()
    waiting = {number for number, line in enumerate(lines, 1) if '"FILL IN' in line}
    assert {fault.line for fault in caught.value.faults} == waiting
    assert all("filled in" in fault.message and fault.allowed for fault in caught.value.faults)


def test_the_worst_is_assumed_where_nothing_is_answered():
    declared = tomllib.loads(render(FOUND, {}))
    assert declared["exposure"]["interface"] == "public"
    assert declared["exposure"]["output"] == "scores"
    assert all(part["personal_data"] and part["sensitivity"] == "confidential" for part in declared["dataset"])


def test_every_example_in_the_template_can_be_used():
    text = render(FOUND, ANSWERS | {"personal": "no"})
    examples = [line for line in text.splitlines() if line.startswith("#?")]
    assert len(examples) > 10
    used = re.sub(r"^#\? ", "", text, flags=re.MULTILINE)
    used = used.replace("ranges = { age", "ranges = { size")
    declaration = read(used)
    assert declaration.model[0].positive == "yes"
    assert "recall.yes" in declaration.expected.metrics


def test_data_that_were_not_found_are_asked_for():
    declared = tomllib.loads(render(Survey(folder="x", tables=(FoundTable(path="data.csv", split=""),)), {}))
    assert [part["split"] for part in declared["dataset"]] == ["train", "holdout"]
    assert declared["dataset"][0]["path"] == "data.csv"
    assert declared["dataset"][1]["path"].startswith("FILL IN")


def test_a_validation_set_serves_as_holdout():
    tables = (FoundTable(path="a.csv", split="validation"), FoundTable(path="b.csv", split="train"))
    declared = tomllib.loads(render(Survey(folder="x", tables=tables), {}))
    assert [part["path"] for part in declared["dataset"]] == ["b.csv", "a.csv"]
    assert declared["model"][0]["evaluated_on"] == "a"


def test_parts_with_one_name_are_told_apart():
    found = Survey(
        folder="x",
        models=tuple(FoundModel(path=f"{name}/train.joblib", certain=True) for name in "ab"),
        tables=(FoundTable(path="train.csv", split="train"), FoundTable(path="d/train.csv", split="train")),
    )
    declared = tomllib.loads(render(found, {}))
    assert [part["name"] for part in declared["dataset"]] == ["train", "train-2", "holdout"]
    assert [part["name"] for part in declared["model"]] == ["train-3", "train-4"]


def test_profiles_are_those_of_the_catalogue():
    assert set(PROFILES) == set(REACHES)
    assert set(PROFILES.values()) <= set(catalogue().profiles)


@pytest.mark.parametrize(
    ("key", "answer"),
    [
        ("nmae", "x"),
        ("name", "two words"),
        ("owner", "nobody"),
        ("reach", "everyone"),
        ("sources", "0"),
        ("sources", "1.5"),
        ("accuracy", "90"),
        ("accuracy", "1.5"),
        ("purpose", "\ud800"),
    ],
)
def test_an_answer_of_the_wrong_form_is_refused_with_the_right_one(key, answer):
    with pytest.raises(InputError) as caught:
        render(FOUND, {key: answer})
    assert caught.value.remedy


@settings(deadline=None)
@given(st.text(), st.text())
def test_any_answer_comes_back_as_it_was_given(purpose, plan):
    try:
        text = render(FOUND, ANSWERS | {"purpose": purpose, "failure_plan": plan})
    except InputError:
        assert any("\ud800" <= character <= "\udfff" for character in purpose + plan)
        return
    declared = tomllib.loads(text)
    given_purpose = declared["purpose"]
    assert given_purpose == purpose.strip() or given_purpose.startswith("FILL IN")
    assert declared["expected"]["failure_plan"] == plan.strip() or not plan.strip()


def test_the_same_survey_and_answers_give_the_same_bytes():
    assert render(FOUND, ANSWERS) == render(FOUND, dict(reversed(ANSWERS.items())))
