"""The check: a report becomes evidence, and only a complete and clean one passes."""

from __future__ import annotations

import json
import pickle
from types import SimpleNamespace

import pytest

from bartizan.core.check import Check
from bartizan.core.digest import ManifestEntry, digest_bytes, manifest_root
from bartizan.core.errors import ArtefactError
from bartizan.core.predicates import TEST_RESULT
from bartizan.core.statement import make
from bartizan.core.system import Artefact
from bartizan.lifecycle.develop.scan.check import RULES_INPUT, ScanCheck, rules_digest
from fixtures.hostile_models import EVIL, SUSPECT

GOOD = pickle.dumps([1, 2, 3])


class Told:
    """A context that listens."""

    def __init__(self):
        self.notes = []

    def progress(self, done, total, note=""):
        self.notes.append((done, total, note))


def model(tmp_path, data):
    """A model artefact with these bytes."""
    path = tmp_path / "model.pkl"
    path.write_bytes(data)
    return Artefact(kind="model", name="tumour", digest=digest_bytes(data), path=str(path))


@pytest.mark.control("2.1-n")
@pytest.mark.parametrize(
    ("data", "result", "coverage"),
    [
        (GOOD, "PASSED", "examined"),
        (EVIL, "FAILED", "examined"),
        (SUSPECT["unlisted class"], "WARNED", "examined"),
        (SUSPECT["cut off"], "FAILED", "partly"),
        (b"\x89HDF\r\n\x1a\n", "FAILED", "not-examined"),
    ],
)
def test_only_what_was_wholly_examined_and_is_clean_passes(tmp_path, data, result, coverage):
    outcome = ScanCheck().run(None, model(tmp_path, data), Told())
    assert (outcome.predicate.result, outcome.predicate.coverage) == (result, coverage)
    assert sum(outcome.predicate.findings.values()) == len(outcome.findings)
    assert outcome.predicate.summary.endswith(".")


def test_the_outcome_is_a_statement_with_the_report_as_a_blob(tmp_path):
    subject = model(tmp_path, EVIL)
    outcome = ScanCheck().run(None, subject, Told())
    assert outcome.predicate_type == TEST_RESULT
    assert make(outcome.predicate_type, subject, outcome.predicate).read() == outcome.predicate
    assert json.loads(outcome.report.data)["verdict"] == "dangerous"


def test_a_model_that_changed_since_it_was_digested_is_not_vouched_for(tmp_path):
    subject = model(tmp_path, GOOD)
    (tmp_path / "model.pkl").write_bytes(EVIL)
    with pytest.raises(ArtefactError, match="was declared with"):
        ScanCheck().run(None, subject, Told())


def test_a_folder_is_compared_with_its_manifest_digest(tmp_path):
    (tmp_path / "a.pkl").write_bytes(GOOD)
    digest = manifest_root([ManifestEntry(name="a.pkl", digest=digest_bytes(GOOD))])
    subject = Artefact(kind="model", name="m", digest=digest, path=str(tmp_path))
    assert ScanCheck().run(None, subject, Told()).predicate.result == "PASSED"


def test_the_result_rests_on_the_model_and_the_rules(tmp_path):
    subject = model(tmp_path, GOOD)
    inputs = ScanCheck().inputs(None, subject)
    assert inputs == {"model:tumour": subject.digest, RULES_INPUT: rules_digest()}


def test_all_declared_models_are_subjects():
    system = SimpleNamespace(of_kind=lambda kind: (kind,))
    assert ScanCheck().subjects(system) == ("model",)


def test_it_has_the_shape_of_a_check(tmp_path):
    assert isinstance(ScanCheck(), Check)
    told = Told()
    ScanCheck().run(None, model(tmp_path, GOOD), told)
    assert told.notes == [(0, 1, "scanning tumour"), (1, 1, "clean")]
