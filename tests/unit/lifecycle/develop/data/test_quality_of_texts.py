"""Quality of datasets whose records are texts: copies, contradictions, gaps, and what is on both sides of a split."""

from __future__ import annotations

import csv

import pytest

from bartizan.core.errors import ArtefactError
from bartizan.lifecycle.develop.data.quality import MEASURES, OF_TEXTS, examine
from bartizan.lifecycle.develop.data.reading import read_sample
from fixtures.tables import artefact, part

TEXTS = [f"message number {place} about {place * 7}" for place in range(60)]


def sample(folder, texts, name="train", split="train"):
    path = folder / f"{name}.csv"
    labels = ["ham" if place % 2 else "spam" for place in range(len(texts))]
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([["id", "message", "class"], *zip(range(len(texts)), texts, labels, strict=True)])
    return read_sample(artefact(path, name), part(name, split, text="message", target="class"))


def faults(report):
    return {measure.name: measure.faults for measure in report.measures}


def test_copies_contradictions_gaps_and_leaks_are_counted(tmp_path):
    # The first three come again: the 60th and 62nd with the same label, the 61st with another.
    train = sample(tmp_path, [*TEXTS, TEXTS[0], TEXTS[0], TEXTS[2], ""])
    holdout = sample(tmp_path, [f"other {text}" for text in TEXTS[:20]] + TEXTS[5:9], "holdout", "holdout")
    found = faults(examine(train, [holdout]))
    assert found["duplicates"] == 3
    assert found["completeness"] == 1
    assert found["validity"] == 0
    assert found["conflicts"] == 3
    assert faults(examine(holdout, [train]))["leakage"] == 4


def test_what_needs_distances_is_not_measured_and_says_so(tmp_path):
    report = examine(sample(tmp_path, TEXTS))
    skipped = {each.name: each.reason for each in report.not_measured}
    assert len([reason for reason in skipped.values() if "no distance" in reason]) >= 3
    assert {measure.__module__ for measure in MEASURES if measure not in OF_TEXTS}.isdisjoint(
        {"bartizan.lifecycle.develop.data.balance", "bartizan.lifecycle.develop.data.leakage"}
    )
    assert not {"outliers", "label_noise", "triggers"} & set(faults(report))


def test_the_declared_column_must_be_there(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("words,class\nhello,ham\n")
    with pytest.raises(ArtefactError, match="declared as the text"):
        read_sample(artefact(path), part(text="message", target="class"))
