"""Texts in a declaration: what goes together and what does not."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from bartizan.catalogue.load import catalogue
from bartizan.core.errors import DeclarationError
from bartizan.lifecycle.design.declaration import read_declaration
from bartizan.lifecycle.design.vocabulary import Vocabulary
from bartizan.redteam import registry

EXAMPLE = (Path(__file__).parents[4] / "examples" / "messages" / "bartizan.toml").read_text(encoding="utf-8")
VOCABULARY = Vocabulary.of(catalogue(), checks=("scan", *registry.check_names()))


def read(text):
    return read_declaration(
        text.encode(), "bartizan.toml", VOCABULARY, clock=lambda: datetime(2026, 11, 21, tzinfo=UTC)
    )


def test_the_example_is_sound():
    declared = read(EXAMPLE)
    assert {part.text for part in declared.dataset} == {"message"}


@pytest.mark.parametrize(
    ("old", "new", "place", "complaint"),
    [
        ('text = "message"\n', 'text = "class"\n', "dataset[0].text", "is the label"),
        ('path = "data/train.csv"', 'path = "data/train.npz"', "dataset[0].path", "CSV"),
        ('text = "message"\n', 'text = "message"\ninteger = ["x"]\n', "dataset[0].integer", "neither columns"),
        ('text = "message"\n', "", "model[0].evaluated_on", "the other does not"),
        ('framework = "scikit-learn"', 'framework = "onnx"', "model[0].framework", "scikit-learn only"),
    ],
)
def test_what_does_not_go_together_is_refused(old, new, place, complaint):
    assert old in EXAMPLE
    with pytest.raises(DeclarationError) as caught:
        read(EXAMPLE.replace(old, new, 1))
    faults = {fault.path: str(fault) for fault in caught.value.faults}
    assert complaint in faults[place]
