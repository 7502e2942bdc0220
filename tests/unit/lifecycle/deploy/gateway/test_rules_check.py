"""The check of rules: the tree that it fits, how uncertain it finds a model, and what it fails."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from bartizan.adapters.sklearn_tree import SklearnTrees
from bartizan.core.system import Artefact
from bartizan.lifecycle.deploy.gateway.guard import Column, Material
from bartizan.lifecycle.deploy.gateway.guards.rules import RulesSettings, fitting
from bartizan.lifecycle.deploy.gateway.guards.rules.report import Report, read_report
from bartizan.lifecycle.deploy.gateway.guards.rules.tree import Tree
from bartizan.lifecycle.deploy.gateway.rules_check import _outcome
from bartizan.redteam.statistics import Estimate, Interval
from bartizan.targets.table import Table

CLASSES = ("malignant", "benign")
MODEL = Artefact(kind="model", name="tumour", digest="0" * 64)


@pytest.fixture(scope="module")
def tumours():
    """Training table, and what a real model answers on records that it has not seen."""
    source = load_breast_cancer()
    names = tuple(name.replace(" ", "_") for name in source.feature_names)
    train, held, labels, truth = train_test_split(source.data, source.target, stratify=source.target, random_state=1)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(train, labels)
    scores = model.predict_proba(held)
    answers = fitting.Answers(held, truth, scores.argmax(axis=1), scores)
    return Table(names, train, labels, CLASSES), answers


@pytest.fixture(scope="module")
def tree(tumours):
    return fitting.fitted(SklearnTrees(), tumours[0], CLASSES, seed=5)


def outcome(tumours, tree, uncertainty=0.04, **settings):
    training, answers = tumours
    report = Report(tree=tree, uncertainty=uncertainty)
    material = Material(
        model="tumour",
        digest="0" * 64,
        classes=CLASSES,
        columns=tuple(Column(name=name) for name in training.columns),
        fitted=lambda _: msgspec.json.encode(report),
        state=None,
    )
    built = Tree(tree, training.columns, CLASSES, "tree")
    found = fitting.judged(built, answers) | fitting.doubts(answers, 5)
    return _outcome(MODEL, msgspec.convert(settings, RulesSettings), material, answers, report=report, found=found)


def test_the_tree_as_rows_answers_like_the_fitted_one(tumours, tree):
    training, answers = tumours
    least = max(fitting.LEAST_RECORDS, int(fitting.LEAST_SHARE * len(training)))
    fitted = DecisionTreeClassifier(max_depth=fitting.LEVELS, min_samples_leaf=least, random_state=5)
    fitted.fit(training.rows, training.labels)
    ours = Tree(tree, training.columns, CLASSES, "tree")
    np.testing.assert_array_equal(ours.each(answers.rows), fitted.predict(answers.rows))
    assert [ours.one(answers.rows, row) for row in range(len(answers.rows))] == ours.each(answers.rows).tolist()
    assert ours.levels <= fitting.LEVELS


def test_the_tree_is_better_than_guessing_on_data_that_it_has_not_seen(tumours, tree):
    found = fitting.judged(Tree(tree, tumours[0].columns, CLASSES, "tree"), tumours[1])
    assert found["tree_accuracy"].interval.low > (tumours[1].truth == 1).mean()


def test_the_tree_points_at_errors_of_a_model_that_knows_less(tumours, tree):
    training, answers = tumours
    weak = LogisticRegression().fit(training.rows[:, 4:6], training.labels)
    scores = weak.predict_proba(answers.rows[:, 4:6])
    said = fitting.Answers(answers.rows, answers.truth, scores.argmax(axis=1), scores)
    found = fitting.judged(Tree(tree, training.columns, CLASSES, "tree"), said)
    assert found["tree_of_wrong"].interval.low > found["tree_of_right"].interval.high


def test_uncertainty_is_the_greater_upper_end_and_all_of_it_when_nothing_is_known(tumours):
    found = fitting.doubts(tumours[1], 5)
    ends = [found[name].interval.high for name in ("error", "lack_of_confidence")]
    assert fitting.uncertainty(found) == max(ends)
    assert fitting.uncertainty({}) == 1.0
    unknown = {"error": Estimate(0.0, Interval(-np.inf, np.inf), 1, "bootstrap")}
    assert fitting.uncertainty(unknown) == 1.0


def test_a_sure_but_wrong_model_counts_as_uncertain(tumours):
    answers = tumours[1]
    sure = fitting.Answers(answers.rows, answers.truth, 1 - answers.truth, np.eye(2)[1 - answers.truth])
    assert fitting.uncertainty(fitting.doubts(sure, 5)) > 0.95


def test_a_sound_configuration_passes_and_its_report_makes_the_guard(tumours, tree):
    rule = {"name": "unsure", "when": "confidence < 0.9", "then": "hold"}
    done = outcome(tumours, tree, rule=[rule], bound=0.1)
    assert done.predicate.result == "PASSED"
    assert "impossible.scores that are no numbers" in done.predicate.passed_tests
    assert "bound" in done.predicate.passed_tests
    report = read_report(done.report.data)
    assert report.tree == tree
    metrics = msgspec.json.decode(done.report.data)["metrics"]
    answers = tumours[1]
    assert metrics["rule_unsure"]["value"] == pytest.approx((answers.scores.max(axis=1) < 0.9).mean(), abs=1e-5)
    assert metrics["rule_unsure_of_wrong"]["value"] > metrics["rule_unsure_of_right"]["value"]
    assert metrics["rule_unsure"]["low"] < metrics["rule_unsure"]["value"] < metrics["rule_unsure"]["high"]


def test_a_bound_that_no_rule_covers_fails(tumours, tree):
    done = outcome(tumours, tree, uncertainty=0.2, bound=0.1)
    assert done.predicate.result == "FAILED"
    assert done.predicate.failed_tests == ("bound",)
    assert "no rule constrains" in done.predicate.summary
    assert [finding.rule for finding in done.findings] == ["rules/uncovered"]


def test_rules_that_rest_on_other_guards_are_not_counted(tumours, tree):
    done = outcome(tumours, tree, rule=[{"name": "far", "when": "outliers.distance > 3", "then": "flag"}])
    assert "rule_far" not in msgspec.json.decode(done.report.data)["metrics"]
