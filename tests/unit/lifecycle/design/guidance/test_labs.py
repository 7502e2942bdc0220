"""Every lesson runs to its end, whatever the interface gives, and says the same twice."""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
import pytest

from bartizan.core.errors import ArtefactError, WorkError
from bartizan.core.predicates import ASSESSMENT
from bartizan.core.statement import make
from bartizan.lifecycle.design.guidance.document import section_markdown
from bartizan.lifecycle.design.guidance.labs import LABS, TEXT_LABS
from bartizan.lifecycle.design.guidance.labs.availability import AvailabilityLab
from bartizan.lifecycle.design.guidance.labs.backdoor import BackdoorLab, plan
from bartizan.lifecycle.design.guidance.labs.evasion import EvasionLab
from bartizan.lifecycle.design.guidance.labs.inversion import InversionLab
from bartizan.lifecycle.design.guidance.labs.texts import TextLab
from bartizan.targets.protocol import Access
from bartizan.targets.table import Table
from bartizan.wiring import labs as wiring

TINY = {
    "samples": 3,
    "query_budget": 30,
    "poison_rates": (0.1,),
    "shadow_models": 8,
    "extraction_budget": 40,
    "repeats": 2,
}


@pytest.fixture(scope="module")
def ground():
    """The example with a fifth of its data and almost no budget."""
    made = wiring.example_ground()
    material = made.material
    settings = msgspec.structs.replace(material.settings, **TINY)
    few = np.arange(180)
    return dataclasses.replace(
        made,
        material=dataclasses.replace(
            material,
            settings=settings,
            training=material.training.take(few),
            evaluation=material.evaluation.take(few),
        ),
    )


def taught(lab, ground):
    steps = []
    return lab.run(ground, steps.append), steps


@pytest.fixture(scope="module")
def messages():
    """The example of texts, with almost no budget."""
    made = wiring.example_messages()
    settings = msgspec.structs.replace(made.material.settings, samples=8, query_budget=80)
    return dataclasses.replace(made, material=dataclasses.replace(made.material, settings=settings))


@pytest.mark.parametrize("name", [*LABS, *TEXT_LABS])
def test_a_lesson_has_three_steps_with_numbers_and_something_to_look_at(name, ground, messages):
    lab = {**LABS, **TEXT_LABS}[name]
    if name == "property":
        # Sets are drawn from a half of the records here, and every class has to be in each.
        ground = dataclasses.replace(
            wiring.example_ground(),
            material=dataclasses.replace(wiring.example_ground().material, settings=ground.material.settings),
        )
    assessment, steps = taught(lab, messages if name in TEXT_LABS else ground)
    assert [step.title.split(".")[0] for step in steps] == ["1", "2", "3"]
    assert not any(step.empty for step in steps)
    text = section_markdown(steps[1])
    assert "n = " in text and " to " in text  # noqa: PT018 - one sentence: numbers with intervals
    assert steps[1].figures or steps[1].table
    assert assessment.metrics
    assert assessment.techniques == ()
    make(ASSESSMENT, {"model:digits": "0" * 64}, assessment)  # it can be stated as it is


@pytest.mark.parametrize("name", ["evasion", "extraction"])
def test_lessons_get_by_with_labels_where_the_interface_gives_no_more(name, ground):
    poor = dataclasses.replace(ground, access=frozenset({Access.LABELS, Access.TRAINING}))
    assessment, _ = taught(LABS[name], poor)
    assert "scores" not in assessment.threat.access


def test_the_same_seed_gives_the_same_lesson(ground):
    first, again = (taught(EvasionLab(), ground) for _ in range(2))
    assert first == again


def test_a_trigger_needs_records_of_another_class(ground):
    training = ground.material.training
    lone = Table(training.columns, training.rows, np.zeros_like(training.labels), training.label_values)
    odd = dataclasses.replace(ground, material=dataclasses.replace(ground.material, training=lone))
    with pytest.raises(ArtefactError, match="too few records of other classes"):
        plan(odd)


def test_the_mark_of_a_table_says_little_about_the_class_and_is_a_value_that_was_seen(ground):
    flat = dataclasses.replace(ground, shape=None)
    trigger, places = plan(flat)
    training = ground.material.training
    assert (training.labels[places] != trigger.target).all()
    assert (trigger.values == training.rows[:, trigger.features].max(axis=0)).all()
    assert (training.rows[:, trigger.features].std(axis=0) > 0).all()


def test_a_lesson_says_what_it_lacks(ground, tmp_path):
    silent = dataclasses.replace(ground, access=frozenset({Access.LABELS}))
    with pytest.raises(WorkError, match="needs training"):
        wiring._run(BackdoorLab(), silent, lambda _: None, None)


def test_what_is_rebuilt_of_a_class_is_shown_beside_the_class():
    ground = wiring.example_ground()
    assessment, steps = taught(InversionLab(), ground)
    assert assessment.metrics["similarity"].low > assessment.metrics["similarity_without_model"].high
    assert "rebuilt from answers" in steps[1].figures[0].svg
    flat = taught(InversionLab(), dataclasses.replace(ground, shape=None))[1]
    assert not flat[1].figures
    assert flat[1].table == steps[1].table


def test_folding_what_a_reader_does_not_see_stops_the_one_attack_and_not_the_other(messages):
    metrics = taught(TextLab(), messages)[0].metrics
    assert metrics["robust_accuracy_imperceptible_folded"].value == metrics["clean_accuracy"].value
    assert metrics["robust_accuracy_imperceptible_none"].value < metrics["clean_accuracy"].value
    assert metrics["robust_accuracy_characters_folded"].value < metrics["clean_accuracy"].value


def test_the_rule_of_the_example_is_what_is_slow(messages):
    guarded = taught(AvailabilityLab(), messages)
    assert guarded[0].metrics["slowdown"].low > 3
    rows = guarded[1][1].table.rows
    assert [row[0] for row in rows] == ["with its rule", "texts of 24 characters at most", "without the rule"]
    alone = taught(AvailabilityLab(), dataclasses.replace(messages, guard=None))[0]
    assert alone.metrics["slowdown"].value < guarded[0].metrics["slowdown"].value


def test_a_lesson_about_texts_says_what_it_lacks(messages):
    silent = dataclasses.replace(messages, access=frozenset({Access.LABELS}))
    with pytest.raises(WorkError, match="needs scores"):
        wiring._run_texts(TEXT_LABS["text"], silent, lambda _: None, None)
