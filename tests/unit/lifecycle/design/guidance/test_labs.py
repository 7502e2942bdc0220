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
from bartizan.lifecycle.design.guidance.labs import LABS
from bartizan.lifecycle.design.guidance.labs.backdoor import BackdoorLab, plan
from bartizan.lifecycle.design.guidance.labs.evasion import EvasionLab
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


@pytest.mark.parametrize("lab", LABS.values(), ids=LABS)
def test_a_lesson_has_three_steps_with_numbers_and_a_picture(lab, ground):
    assessment, steps = taught(lab, ground)
    assert [step.title.split(".")[0] for step in steps] == ["1", "2", "3"]
    assert not any(step.empty for step in steps)
    text = section_markdown(steps[1])
    assert "n = " in text and " to " in text  # noqa: PT018 - one sentence: numbers with intervals
    assert steps[1].figures
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
