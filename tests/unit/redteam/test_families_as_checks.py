"""Poisoning, membership and extraction the whole way: declared files, a model, a statement and a report."""

from __future__ import annotations

import json
from contextlib import contextmanager

import joblib
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from bartizan.adapters.sklearn import SklearnTargets
from bartizan.core.errors import WorkError
from bartizan.core.statement import make
from bartizan.redteam import registry
from fixtures.games import halves
from fixtures.victims import Victim, declare, desk

LABEL_FLIP = registry.check("poisoning.labelflip")
MEMBERSHIP = registry.check("privacy.membership")
EXTRACTION = registry.check("extraction.active")
SMALL = {"shadow_models": 8, "extraction_budget": 60, "poison_rates": (0.1,), "repeats": 2, "positive": "malignant"}
EVERY = [LABEL_FLIP, MEMBERSHIP, EXTRACTION]


class InProcess:
    """Loads declared models in this process, for speed. They were made by the test itself."""

    @contextmanager
    def open(self, _system, model):
        yield Victim(joblib.load(model.path))


def system_in(folder, model=None, **settings):
    train, rest = halves(load_breast_cancer)
    model = (model or DecisionTreeClassifier(random_state=0)).fit(*train)
    return declare(folder, model, train, rest, classes=("malignant", "benign"), **(SMALL | settings))


def run(check, system, targets=None):
    return check.run(system, system.of_kind("model")[0], desk(targets or InProcess()))


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    return system_in(tmp_path_factory.mktemp("system"))


@pytest.fixture(scope="module")
def outcomes(system):
    return {check: run(check, system) for check in EVERY}


@pytest.mark.parametrize("check", EVERY, ids=lambda check: check.name)
def test_the_same_seed_gives_the_same_bytes_of_the_report(check, system, outcomes):
    one, same = outcomes[check], run(check, system)
    assert one.report.data == same.report.data
    assert one.predicate == same.predicate


@pytest.mark.parametrize("check", EVERY, ids=lambda check: check.name)
def test_another_seed_gives_another_report(check, outcomes, tmp_path):
    other = system_in(tmp_path, seed=7)
    assert run(check, other).report.data != outcomes[check].report.data


@pytest.mark.parametrize(
    ("check", "promised"),
    [
        (
            LABEL_FLIP,
            (
                {"clean_accuracy", "accuracy_drop_at_10_percent", "positive_recall_drop_at_10_percent"},
                {f"accuracy_by_poison_rate_{strategy}" for strategy in ("random", "margin_guided", "targeted")},
                ("contributor", ("labels", "training")),
            ),
        ),
        (
            MEMBERSHIP,
            (
                {
                    f"{game}{metric}"
                    for game in ("", "pipeline_")
                    for metric in (
                        "auc",
                        "tpr_at_1_percent_fpr",
                        "tpr_at_0_1_percent_fpr",
                        "balanced_accuracy_advantage",
                    )
                },
                {f"{game}roc_{rule}" for game in ("", "pipeline_") for rule in ("lira_offline", "loss_threshold")},
                ("user", ("scores", "training")),
            ),
        ),
        (
            EXTRACTION,
            (
                {"fidelity", "fidelity_near_boundary", "substitute_accuracy", "queries_for_90_percent_fidelity"},
                {"fidelity_by_queries"},
                ("user", ("scores",)),
            ),
        ),
    ],
)
def test_the_statement_holds_the_promised_metrics_each_with_an_interval(check, promised, system, outcomes):
    metrics, curves, threat = promised
    outcome = outcomes[check]
    assessment = make(outcome.predicate_type, system.of_kind("model")[0], outcome.predicate).read()
    assert metrics <= set(assessment.metrics)
    assert not any("." in name for name in assessment.metrics)
    assert all(metric.low <= metric.value <= metric.high for metric in assessment.metrics.values())
    assert all(metric.n > 0 and metric.method for metric in assessment.metrics.values())
    assert (assessment.threat.position, assessment.threat.access) == threat
    assert assessment.threat.knowledge
    assert curves <= set(json.loads(outcome.report.data)["curves"])


def test_a_model_in_its_own_process_is_judged_like_one_in_this_process(system, outcomes):
    separate = SklearnTargets(lambda _digest: True)
    for check in (MEMBERSHIP, EXTRACTION):
        assert run(check, system, separate).predicate.metrics == outcomes[check].predicate.metrics


@pytest.mark.parametrize(
    ("check", "method"),
    [(MEMBERSHIP, "privacy.membership-labels"), (EXTRACTION, "extraction.active-labels")],
)
def test_an_interface_of_labels_is_attacked_with_labels_alone(check, method, tmp_path):
    outcome = run(check, system_in(tmp_path, SVC(), output="label"))
    assert outcome.predicate.method == method
    assert "scores" not in outcome.predicate.threat.access


def test_a_model_without_the_declared_scores_is_named_as_the_fault(tmp_path):
    with pytest.raises(WorkError, match="needs scores") as caught:
        run(MEMBERSHIP, system_in(tmp_path, SVC()), SklearnTargets(lambda _digest: True))
    assert "exposure.output" in caught.value.remedy


def test_a_contributor_who_is_not_considered_leaves_poisoning_nothing_to_do(tmp_path):
    without = system_in(tmp_path, consider=("user",))
    assert LABEL_FLIP.subjects(without) == ()
    assert MEMBERSHIP.subjects(without)
