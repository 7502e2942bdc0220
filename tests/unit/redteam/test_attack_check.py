"""The whole way: files, a scanned model in its own process, attack, measurement, statement."""

from __future__ import annotations

import json
import pickle
from contextlib import contextmanager

import msgspec
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bartizan.adapters.sklearn import SklearnTargets
from bartizan.core.check import Check
from bartizan.core.errors import ArtefactError, WorkError
from bartizan.core.predicates import ASSESSMENT, Assessment
from bartizan.core.statement import make
from bartizan.core.system import RedTeam
from bartizan.redteam import registry
from bartizan.redteam.attacks.evasion.square import Square
from bartizan.redteam.check import offered, why_not
from bartizan.redteam.journal import Journals
from bartizan.redteam.journal_file import FolderJournals
from bartizan.targets.protocol import Access, Targets
from fixtures.victims import Desk, declare, desk, named, write_csv

ROWS, LABELS = load_breast_cancer(return_X_y=True)
TRAIN, REST, TRAIN_LABELS, REST_LABELS = train_test_split(ROWS, LABELS, test_size=0.4, random_state=0, stratify=LABELS)
SMALL = {"samples": 20, "query_budget": 100, "max_change": 0.6}

HOPSKIPJUMP = registry.check("evasion.hopskipjump")
SQUARE = registry.check("evasion.square")
MEMBERSHIP = registry.check("privacy.membership")


def model():
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(TRAIN, TRAIN_LABELS)


def system_in(folder, **settings):
    settings = SMALL | {"positive": "malignant", "classes": ("malignant", "benign")} | settings
    return declare(folder, model(), (TRAIN, TRAIN_LABELS), (REST, REST_LABELS), **settings)


def targets():
    return SklearnTargets(lambda _digest: True)


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    return system_in(tmp_path_factory.mktemp("system"))


@pytest.fixture(scope="module")
def outcome(system):
    return HOPSKIPJUMP.run(system, system.of_kind("model")[0], desk(targets()))


def test_the_report_holds_the_confusion_matrix_under_attack_for_each_class(outcome):
    report = json.loads(outcome.report.data)
    confusion = report["confusion"]
    assert confusion["classes"] == ["malignant", "benign"]
    clean, attacked = np.array(confusion["clean"]), np.array(confusion["under_attack"])
    assert attacked.shape == (2, 2)
    assert attacked.sum(axis=1).tolist() == clean.sum(axis=1).tolist()
    assert np.trace(attacked) / attacked.sum() == pytest.approx(outcome.predicate.metrics["robust_accuracy"].value)
    assert np.trace(attacked) < np.trace(clean)


def test_the_outcome_is_a_statement_about_metrics_budget_seed_and_threat(system, outcome):
    statement = make(outcome.predicate_type, system.of_kind("model")[0], outcome.predicate)
    assessment = statement.read()
    assert isinstance(assessment, Assessment)
    assert (outcome.predicate_type, assessment.method, assessment.family) == (
        ASSESSMENT,
        "evasion.hopskipjump",
        "evasion",
    )
    assert assessment.techniques[0] == "T08"
    assert assessment.seed == RedTeam().seed
    assert (assessment.threat.position, assessment.threat.access) == ("user", ("labels",))
    assert {"robust_accuracy", "clean_accuracy", "attack_success", "robust_recall", "median_change"} <= set(
        assessment.metrics
    )
    assert all(metric.low <= metric.value <= metric.high for metric in assessment.metrics.values())
    assert assessment.metrics["clean_accuracy"].value > 0.9
    budget = assessment.budget
    assert budget["queries_allowed_per_sample"] == budget["most_queries_spent_on_a_sample"] == 100
    assert budget["queries_spent"] <= 20 * 100
    assert budget["model_calls"] < 40
    assert "standard deviation" in assessment.summary
    assert assessment.findings == {"medium": 1}


def test_the_report_has_the_curves_that_a_plot_needs(outcome):
    curves = json.loads(outcome.report.data)["curves"]
    for name in ("robust_accuracy_by_change", "robust_accuracy_by_queries"):
        values = [point["value"] for point in curves[name]]
        assert values == sorted(values, reverse=True)
        assert all(point["low"] <= point["value"] <= point["high"] for point in curves[name])
    assert [point["x"] for point in curves["robust_accuracy_by_queries"]] == [0, 10, 30, 100]
    assert len(json.loads(outcome.report.data)["samples"]) == 20


def test_findings_carry_the_techniques_that_showed_them(outcome):
    (finding,) = outcome.findings
    assert (finding.rule, finding.where) == ("redteam/evasion", "victim")
    assert finding.techniques[0] == "T08"
    assert finding.remedy


def test_the_same_system_gives_the_same_bytes(system, outcome):
    again = HOPSKIPJUMP.run(system, system.of_kind("model")[0], desk(targets()))
    assert again.report.data == outcome.report.data
    assert msgspec.json.encode(again.predicate) == msgspec.json.encode(outcome.predicate)


def test_both_attacks_are_made_on_the_same_rows(system, outcome):
    square = SQUARE.run(system, system.of_kind("model")[0], desk(targets()))
    records = [
        [sample["record"] for sample in json.loads(result.report.data)["samples"]] for result in (outcome, square)
    ]
    assert records[0] == records[1]
    assert square.predicate.threat.access == ("labels", "scores")


class Mortal:
    """A target that dies when it is asked once too often, as a killed process would."""

    def __init__(self, target, lives):
        self.target, self.lives = target, lives

    def __getattr__(self, name):
        return getattr(self.target, name)

    def labels(self, rows):
        self.lives -= 1
        if self.lives < 0:
            raise KeyboardInterrupt
        return self.target.labels(rows)


class MortalTargets:
    @contextmanager
    def open(self, system, model):
        with targets().open(system, model) as target:
            yield Mortal(target, lives=9)


def test_a_killed_check_goes_on_where_it_was_and_says_the_same(tmp_path, system, outcome):
    journals, subject = FolderJournals(tmp_path), system.of_kind("model")[0]
    with pytest.raises(KeyboardInterrupt):
        HOPSKIPJUMP.run(system, subject, Desk({Targets: MortalTargets(), Journals: journals}))
    assert len(list(tmp_path.iterdir())) == 1
    resumed = HOPSKIPJUMP.run(system, subject, Desk({Targets: targets(), Journals: journals}))
    assert resumed.report.data == outcome.report.data
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", registry.check_names())
def test_every_attack_is_a_check_like_any_other(name, system):
    check = registry.check(name.removeprefix("redteam."))
    assert isinstance(check, Check)
    assert check.name == name
    assert check.after == ("scan",)
    assert check.subjects(system) == (() if check.why_not(system) else system.of_kind("model"))
    assert set(check.inputs(system, system.of_kind("model")[0])) == {
        "model:victim",
        "dataset:train",
        "dataset:evaluation",
        f"settings:{name}:victim",
    }
    assert pickle.loads(pickle.dumps(check)).name == name


def test_where_only_labels_are_answered_the_variant_for_labels_is_run(tmp_path):
    system = system_in(tmp_path, output="label", shadow_models=8)
    outcome = MEMBERSHIP.run(system, system.of_kind("model")[0], desk(targets()))
    assert outcome.predicate.method == "privacy.membership-labels"
    assert outcome.predicate.threat.access == ("labels", "training")
    assert outcome.predicate.budget["models_fitted"] == 8
    make(outcome.predicate_type, system.of_kind("model")[0], outcome.predicate)


def test_a_result_goes_stale_by_what_it_rests_on_and_by_nothing_else(tmp_path):
    def settings(**changed):
        system = system_in(tmp_path, **changed)
        return HOPSKIPJUMP.inputs(system, system.of_kind("model")[0])["settings:redteam.evasion.hopskipjump:victim"]

    same = settings()
    assert settings(shadow_models=99) == settings(repeats=2) == same
    for changed in (
        {"seed": 1},
        {"samples": 21},
        {"query_budget": 99},
        {"max_change": 0.5},
        {"positive": ""},
        {"seconds": 5},
        {"training": {"integer": ("x1",)}},
        {"training": {"immutable": ("x1",)}},
        {"training": {"ranges": {"x1": (0, 1)}}},
    ):
        assert settings(**changed) != same, changed


@pytest.mark.parametrize(
    ("declared", "reason"),
    [
        ({"output": "label"}, "evasion.square needs scores, and the target offers labels, training."),
        ({"consider": ("contributor",)}, "is an attack by a user, which the declaration does not consider"),
        ({"output": "top-k"}, ""),
        ({"attacks": ("evasion.square",)}, ""),
    ],
)
def test_a_check_that_does_not_apply_says_why_in_one_sentence(tmp_path, declared, reason):
    system = system_in(tmp_path, **declared)
    said = SQUARE.why_not(system)
    assert reason in said
    assert bool(SQUARE.subjects(system)) == (not reason)


def test_what_a_label_only_interface_offers_is_no_scores(system):
    assert Access.SCORES in offered(system.declaration.exposure)
    assert why_not(Square(), frozenset({Access.LABELS})) != ""


def test_a_model_that_offers_less_than_declared_is_not_attacked_in_half(tmp_path):
    system = declare(
        tmp_path,
        make_pipeline(StandardScaler(), LogisticRegression()).fit(TRAIN[:, :5], TRAIN_LABELS),
        (TRAIN, TRAIN_LABELS),
        (REST, REST_LABELS),
        **SMALL,
    )
    with pytest.raises(ArtefactError, match=r"takes 5 features, and dataset 'train' has 30"):
        HOPSKIPJUMP.run(system, system.of_kind("model")[0], desk(targets()))


@pytest.mark.parametrize(
    ("columns", "fault"),
    [([*range(29), 99], "differ in their columns: 29, 99"), ([*range(28), 29, 28], "another order")],
)
def test_datasets_that_do_not_match_are_refused_before_the_model_is_opened(tmp_path, columns, fault):
    system = system_in(tmp_path, columns=[str(name) for name in range(30)])
    write_csv(tmp_path / "evaluation.csv", [str(name) for name in columns], REST, REST_LABELS)
    other = named(tmp_path, "dataset", "evaluation", "evaluation.csv")
    system = msgspec.structs.replace(system, artefacts=(*system.artefacts[:-1], other))
    with pytest.raises(ArtefactError, match=fault):
        HOPSKIPJUMP.run(system, system.of_kind("model")[0], desk(None))


def test_a_class_that_is_not_declared_is_refused(tmp_path):
    system = system_in(tmp_path, classes=("malignant", "benign", "unknown"))
    with pytest.raises(ArtefactError, match="declared with 3 classes, and its training data has 2: 0, 1"):
        HOPSKIPJUMP.run(system, system.of_kind("model")[0], desk(None))


def test_data_that_changed_after_they_were_digested_are_refused(tmp_path):
    system = system_in(tmp_path)
    (tmp_path / "evaluation.csv").write_text("x0,target\n1,0\n")
    with pytest.raises(ArtefactError, match="has changed since it was digested"):
        HOPSKIPJUMP.run(system, system.of_kind("model")[0], desk(None))


def test_an_unscanned_model_is_not_attacked(system):
    unscanned = SklearnTargets(lambda _digest: False)
    with pytest.raises(WorkError, match="has no clean scan"):
        HOPSKIPJUMP.run(system, system.of_kind("model")[0], desk(unscanned))
