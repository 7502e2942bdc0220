"""Rules outside the model: what they may say, what they do, and that one row and many are treated alike."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bartizan.core.errors import ArtefactError, InputError
from bartizan.lifecycle.deploy.gateway.caller import Caller
from bartizan.lifecycle.deploy.gateway.guard import Action, Answer, Asked, Column, Material
from bartizan.lifecycle.deploy.gateway.guards.rules import RulesGuard, RulesSettings
from bartizan.lifecycle.deploy.gateway.guards.rules.facts import Facts
from bartizan.lifecycle.deploy.gateway.guards.rules.report import Report

CLASSES = ("malignant", "benign")
COLUMNS = ("mean radius", "age", "label")
DIGEST = "0" * 64
FRIDAY_NOON = 1_795_176_000.0
"""2026-11-20T12:00Z."""


def material(report: Report | None = None) -> Material:
    def fitted(check):
        if report is None:
            raise ArtefactError(f"no statement of {check} stands")
        return msgspec.json.encode(report)

    columns = tuple(Column(name=name) for name in COLUMNS)
    return Material(model="tumour", digest=DIGEST, classes=CLASSES, columns=columns, fitted=fitted, state=None)


def made(report=None, **settings):
    return RulesGuard(msgspec.convert(settings, RulesSettings), material(report))


def rule(when, then="refuse", name="r", **more):
    return {"name": name, "when": when, "then": then, **more}


def asked(*rows, measures=None, now=FRIDAY_NOON, **caller):
    known = {"id": "key:1", "role": "user", "method": "key", **caller}
    question = Asked(
        request="q",
        caller=Caller(**known),
        model="tumour",
        digest=DIGEST,
        rows=np.array(rows or [(14.0, 50.0, 1.0)], np.float64),
        now=now,
    )
    question.measures |= measures or {}
    return question


def answer(*scores):
    given_scores = np.array(scores or [(0.1, 0.9)], float)
    return Answer(given_scores.argmax(axis=1), given_scores)


def verdict_of(when, question=None, said=None, then="refuse", **more):
    guard = made(rule=[rule(when, then)], **more)
    question = question or asked()
    return guard.on_request(question) or guard.on_response(question, said or answer())


def is_met(when, question=None, said=None):
    verdict = verdict_of(when, question, said)
    return verdict is not None and verdict.action is Action.REFUSE


class TestWhatRulesSay:
    @pytest.mark.parametrize(
        "when",
        [
            "{mean radius} == 14",
            "{mean radius} / age > 0.27 and {mean radius} - 4 <= 10",
            "13 < {mean radius} < 15",
            'label == "benign"',
            '"malignant" != label',
            'label in ("benign",)',
            "age in (50, 51)",
            "{label} == 1",
            "confidence >= 0.9 and margin > 0.79 and score.malignant < 0.2",
            'score["benign"] > 0.5',
            'caller.role == "user" and caller.method in ("key", "mtls")',
            'not caller.organisation == "clinic"',
            '"staff" not in caller.groups',
            "time.hour == 12 and time.weekday == 4",
            "batch.rows == 1",
            "abs(-3) == 3 and min(age, 3) == 3 and max(age, 60, 61) == 61",
            "-age < 0",
            'verified == "" and model == "tumour"',
            "not (age < 0 or age > 120)",
        ],
    )
    def test_a_condition_that_is_true_is_met(self, when):
        assert is_met(when)
        assert not is_met(f"not ({when})")

    def test_attributes_groups_and_factors_of_a_caller_count(self):
        caller = {"attributes": {"organisation": "clinic"}, "groups": ("staff",), "factors": ("hwk",)}
        question = asked(**caller)
        assert is_met('caller.organisation == "clinic" and "staff" in caller.groups', question)
        assert is_met('"hwk" in caller.factors', question)
        assert not is_met('"hwk" in caller.groups', question)

    @pytest.mark.parametrize(
        ("when", "problem"),
        [
            ("mean_radius > 1", "near it: mean radius"),
            ("{mean raduis} > 1", "near it: mean radius"),
            ('label == "begnin"', "is no class"),
            ("confidence", "is a number"),
            ("confidence > label", "cannot be compared|only numbers"),
            ("label < 3", "only numbers are less"),
            ("age == 'old'", "cannot be compared"),
            ("__import__('os')", "cannot stand in a rule"),
            ("age.real > 1 and (lambda: 1)()", "cannot stand"),
            ("age ** 9 > 1", "cannot stand"),
            ("[age for age in label]", "cannot stand"),
            ("age if age else age", "cannot stand"),
            ("age is 3", "a comparison is one of"),
            ("age > 1 and", "is no expression"),
            ("score.cyst > 0.5", "there is no"),
            ("opinion.uncertainty > 0.5", "there is no"),
            ("not tree.agrees", "there is no"),
            ("abs(1, 2) > 0", "takes 1 to 1"),
            ("abs(x=1) > 0", "cannot stand"),
            ("age > 1e999", "neither a number nor a text"),
            ("age > 1j", "neither a number nor a text"),
            ("caller.groups == 'staff'", "cannot be compared"),
            ("age in ()", "no list"),
            ("label in (1, 2)", "is no class"),
            ("age and age", "where a condition is wanted"),
            ("not age", "where a condition is wanted"),
            ("{a} {b} > 1", "is no expression"),
            (" or ".join(["age>0"] * 55), "operations"),
            ("-" * 60 + "age > 1", "inside one another"),
        ],
    )
    def test_what_is_no_rule_is_refused_with_the_reason(self, when, problem):
        with pytest.raises(InputError, match=problem) as refused:
            made(rule=[rule(when)])
        assert "rule 'r'" in refused.value.message
        assert "allowed are" in refused.value.remedy

    def test_the_line_of_a_long_condition_is_named(self):
        with pytest.raises(InputError, match="rule 'r', line 2"):
            made(rule=[rule("(age > 1 and\n  oge > 2)")])

    def test_two_rules_of_one_name_are_refused(self):
        with pytest.raises(InputError, match="two rules"):
            made(rule=[rule("age > 1"), rule("age > 2")])

    @pytest.mark.parametrize("more", [{"then": "answer"}, {"then": "answer", "answer": "cyst"}, {"answer": "benign"}])
    def test_a_rule_that_overrules_names_a_class_and_no_other_does(self, more):
        with pytest.raises(InputError, match="answer names a class"):
            made(rule=[rule("age > 1", **more)])


class TestWhatIsNotThere:
    """A protection that cannot tell takes its rule for met; a rule that overrules does not."""

    @pytest.mark.parametrize(
        "when", ["outliers.distance > 3", "outliers.distance <= 3", "age / 0 > 1", "not (age / 0 > 1)", "age / 0 == 1"]
    )
    def test_the_unknown_counts_as_met_and_is_said(self, when):
        verdict = verdict_of(when)
        assert verdict.action is Action.REFUSE
        assert "not known" in verdict.reason

    def test_what_another_guard_measured_is_used(self):
        assert is_met("outliers.distance > 3", asked(measures={"outliers.distance": 3.5}))
        assert not is_met("outliers.distance > 3", asked(measures={"outliers.distance": 2.5}))

    def test_a_false_part_settles_a_conjunction_whatever_the_rest_is(self):
        assert not is_met("age < 0 and outliers.distance > 3")
        assert not is_met("outliers.distance > 3 and age < 0")
        assert is_met("age > 0 or outliers.distance > 3")

    def test_a_rule_that_overrules_needs_to_know(self):
        guard = made(rule=[rule("outliers.distance > 3", "answer", answer="malignant")])
        assert guard.on_response(asked(), answer()) is None

    def test_scores_that_the_model_does_not_have_are_unknown(self):
        assert is_met("confidence < 0.7", said=Answer(np.array([1])))

    def test_a_guard_that_rests_on_measures_comes_last(self):
        assert made(rule=[rule("outliers.distance > 3")]).cost > 1e5
        assert made(rule=[rule("age > 3")]).cost < 10


class TestWhatRulesDo:
    @pytest.mark.parametrize(
        ("then", "action"),
        [("refuse", Action.REFUSE), ("hold", Action.HOLD), ("coarsen", Action.COARSEN), ("flag", Action.FLAG)],
    )
    def test_a_rule_that_is_met_asks_for_its_action(self, then, action):
        verdict = verdict_of("age > 1", then=then)
        assert verdict.action is action
        assert verdict.reason == "r"

    def test_the_highest_action_of_several_counts_and_all_are_told(self):
        guard = made(rule=[rule("confidence > 0", "flag", "a"), rule("margin > 0", "hold", "b")])
        verdict = guard.on_response(asked(), answer())
        assert verdict.action is Action.HOLD
        assert verdict.reason == "a; b"

    def test_what_rests_on_the_request_alone_is_told_before_the_model_is_asked(self):
        guard = made(rule=[rule("age > 120")])
        assert guard.on_request(asked((14.0, 130.0, 1.0))).action is Action.REFUSE
        assert guard.on_response(asked((14.0, 130.0, 1.0)), answer()) is None

    def test_a_rule_overrules_the_model_and_the_first_one_counts(self):
        guard = made(
            rule=[
                rule("{mean radius} == 0", "answer", "a", answer="benign"),
                rule("age > 0", "answer", "b", answer="malignant"),
            ]
        )
        said = answer((0.9, 0.1), (0.2, 0.8), (0.3, 0.7))
        verdict = guard.on_response(asked((0.0, 50.0, 0.0), (9.0, 50.0, 0.0), (9.0, 0.0, 0.0)), said)
        assert verdict.labels.tolist() == [1, 0, 1]
        np.testing.assert_array_equal(verdict.scores, [(0.0, 1.0), (1.0, 0.0), (0.3, 0.7)])
        assert said.labels.tolist() == [0, 1, 1], "guards do not write to the answer"

    def test_a_rule_in_shadow_is_recorded_and_nothing_follows(self):
        guard = made(
            rule=[
                rule("age > 1", "refuse", shadow=True),
                rule("age > 1", "answer", "s", answer="malignant", shadow=True),
            ]
        )
        first, second = guard.on_request(asked()), guard.on_response(asked(), answer())
        assert first.action is second.action is Action.ALLOW
        assert first.reason == "shadow: r"
        assert second.reason == "shadow: s"
        assert second.labels is None

    def test_of_many_rows_the_first_are_named(self):
        rows = [(1.0, age, 0.0) for age in range(20)]
        assert made(rule=[rule("age > 9")]).on_request(asked(*rows)).reason == "r (rows 10, 11, 12, 13, 14 ...)"


class TestImpossibleAnswers:
    @pytest.mark.parametrize(
        ("label", "scores"),
        [
            (0, (math.nan, 0.5)),
            (0, (math.inf, -math.inf)),
            (0, (0.9, 0.9)),
            (0, (0.0, 0.0)),
            (0, (1.4, -0.4)),
            (1, (0.9, 0.1)),
            (2, (0.5, 0.5)),
            (-1, (0.5, 0.5)),
        ],
    )
    @pytest.mark.parametrize("rows", [1, 3])
    def test_an_answer_that_nothing_can_mean_is_refused(self, label, scores, rows):
        guard = made()
        labels = np.array([1] * (rows - 1) + [label])
        said = Answer(labels, np.array([(0.1, 0.9)] * (rows - 1) + [scores]))
        verdict = guard.on_response(asked(*[(1.0, 1.0, 1.0)] * rows), said)
        assert verdict.action is Action.REFUSE

    @pytest.mark.parametrize(
        "said",
        [
            Answer(np.array([0, 1]), np.array([(0.9, 0.1)])),
            Answer(np.array([0]), np.array([(0.9, 0.1, 0.0)])),
            Answer(np.array([0, 0])),
        ],
    )
    def test_answers_of_another_shape_are_refused(self, said):
        assert made().on_response(asked(), said).action is Action.REFUSE

    def test_single_precision_and_ties_are_possible(self):
        scores = np.full((1, 2), 0.5, np.float32) + np.float32(1e-5)
        for label in (0, 1):
            assert made().on_response(asked(), Answer(np.array([label]), scores)) is None

    def test_it_may_be_held_instead(self):
        guard = made(impossible="hold")
        assert guard.on_response(asked(), Answer(np.array([7]))).action is Action.HOLD


TREE = [
    ["mean radius", 10.0, 1, 2, ""],
    ["", 0.0, 0, 0, "benign"],
    ["age", 40.0, 3, 4, ""],
    ["", 0.0, 0, 0, "benign"],
    ["", 0.0, 0, 0, "malignant"],
]


class TestTree:
    @pytest.mark.parametrize(
        ("row", "agrees"), [((9.0, 50.0, 0.0), True), ((12.0, 50.0, 0.0), False), ((12.0, 40.0, 0.0), True)]
    )
    def test_what_the_tree_answers_otherwise_is_flagged(self, row, agrees):
        verdict = made(tree={"rows": TREE}).on_response(asked(row), answer((0.1, 0.9)))
        assert (verdict is None) == agrees
        if verdict:
            assert verdict.action is Action.FLAG
            assert verdict.reason == "tree"

    def test_rules_may_rest_on_the_tree(self):
        guard = made(
            tree={"rows": TREE, "disagrees": "nothing"},
            rule=[rule('not tree.agrees and tree.label == "malignant" and age > 40', "hold")],
        )
        assert guard.on_response(asked((12.0, 50.0, 0.0)), answer((0.1, 0.9))).action is Action.HOLD
        assert guard.on_response(asked((9.0, 50.0, 0.0)), answer((0.1, 0.9))) is None

    @given(st.lists(st.tuples(st.floats(0, 20), st.floats(0, 90), st.just(0.0)), min_size=2, max_size=12))
    def test_many_rows_are_answered_like_each_one(self, rows):
        guard = made(tree={"rows": TREE, "disagrees": "hold"})
        said = answer(*[(0.1, 0.9)] * len(rows))
        each = [guard.on_response(asked(row), answer((0.1, 0.9))) is not None for row in rows]
        verdict = guard.on_response(asked(*rows), said)
        assert (verdict is not None) == any(each)

    @pytest.mark.parametrize(
        ("rows", "problem"),
        [
            ([["mean radius", 1.0, 0, 1, ""], ["", 0.0, 0, 0, "benign"]], "backwards"),
            ([["mean radius", 1.0, 1, 9, ""], ["", 0.0, 0, 0, "benign"]], "nowhere"),
            ([["height", 1.0, 1, 1, ""], ["", 0.0, 0, 0, "benign"]], "no column"),
            ([["", 0.0, 0, 0, "cyst"]], "no class"),
            ([["mean radius", math.nan, 1, 1, ""], ["", 0.0, 0, 0, "benign"]], "no threshold"),
            ([["age", 1.0, at + 1, at + 1, ""] for at in range(40)] + [["", 0.0, 0, 0, "benign"]], "levels"),
        ],
    )
    def test_a_tree_that_leads_astray_is_refused(self, rows, problem):
        with pytest.raises(InputError, match=problem):
            made(tree={"rows": rows})

    def test_without_rows_the_fitted_tree_is_taken_and_there_must_be_one(self):
        report = Report(tree=tuple(map(tuple, TREE)), uncertainty=0.1)
        assert made(report, tree={}).on_response(asked((12.0, 50.0, 0.0)), answer((0.1, 0.9))).reason == "tree"
        with pytest.raises(ArtefactError, match="no statement"):
            made(tree={})


CONFIDENT = {"name": "confidence", "signal": "confidence", "bad": 0.5, "good": 1.0, "certainty": 0.8}
NEAR = {"name": "near", "signal": "outliers.distance", "bad": 4.0, "good": 0.0, "doubt": "unknown", "trust": 0.5}


class TestFusion:
    def test_the_opinion_can_be_bounded_by_a_rule(self):
        guard = made(
            fusion={"source": [CONFIDENT, NEAR], "method": "cumulative"},
            rule=[rule("opinion.uncertainty > 0.5 or opinion.probability < 0.6", "hold")],
        )
        near, far = ({"outliers.distance": value} for value in (0.0, 9.0))
        sure = guard.on_response(asked(measures=near), answer((0.02, 0.98)))
        assert sure.action is Action.ALLOW
        assert sure.measures["uncertainty"] < 0.2
        unsure = guard.on_response(asked(measures=near), answer((0.45, 0.55)))
        assert unsure.action is Action.HOLD
        lost = guard.on_response(asked(measures=far), answer((0.02, 0.98)))
        assert lost.measures["uncertainty"] == pytest.approx(0.2), "distance says nothing, confidence is at 0.8"

    def test_sources_that_contradict_one_another_are_told(self):
        against = {**CONFIDENT, "name": "tree", "signal": "{mean radius}", "bad": 20.0, "good": 10.0}
        guard = made(fusion={"source": [CONFIDENT, against]}, rule=[rule("opinion.conflict > 0.3", "hold")])
        assert guard.on_response(asked((20.0, 1.0, 0.0)), answer((0.0, 1.0))).action is Action.HOLD
        assert guard.on_response(asked((10.0, 1.0, 0.0)), answer((0.0, 1.0))).action is Action.ALLOW

    def test_a_signal_without_a_span_is_refused(self):
        with pytest.raises(InputError, match="good and bad"):
            made(fusion={"source": [{**CONFIDENT, "bad": 1.0}]})


class TestBound:
    """A rule is needed when uncertainty exceeds the stated bound."""

    VAGUE = Report(tree=(("", 0.0, 0, 0, "benign"),), uncertainty=0.3)
    CERTAIN = Report(tree=(("", 0.0, 0, 0, "benign"),), uncertainty=0.05)

    def test_a_model_beyond_the_bound_is_not_served_without_a_rule(self):
        with pytest.raises(ArtefactError, match="no rule constrains"):
            made(self.VAGUE, bound=0.2)
        with pytest.raises(ArtefactError, match="no rule constrains"):
            made(self.VAGUE, bound=0.2, rule=[rule("age > 3"), rule("confidence < 0.9", "flag", "f")])
        with pytest.raises(ArtefactError, match="no rule constrains"):
            made(self.VAGUE, bound=0.2, rule=[rule("confidence < 0.9", "hold", shadow=True)])

    def test_with_a_rule_it_is_and_must_then_be_enforced(self):
        assert made(self.VAGUE, bound=0.2, rule=[rule("confidence < 0.9", "hold")]).must_enforce
        assert not made(self.CERTAIN, bound=0.2).must_enforce

    def test_what_was_not_measured_is_not_served(self):
        with pytest.raises(ArtefactError):
            made(bound=0.2)

    @pytest.mark.parametrize(("beyond", "action"), [("hold", Action.HOLD), ("coarsen", Action.COARSEN)])
    def test_an_answer_beyond_the_bound_that_no_rule_met_goes_the_declared_way(self, beyond, action):
        guard = made(self.CERTAIN, bound=0.2, beyond=beyond)
        assert guard.on_response(asked(), answer((0.25, 0.75))).action is action
        assert guard.on_response(asked(), answer((0.15, 0.85))).action is Action.ALLOW
        two = asked((1.0, 1.0, 1.0), (1.0, 1.0, 1.0))
        assert guard.on_response(two, answer((0.15, 0.85), (0.25, 0.75))).reason == "beyond the bound (rows 1)"

    def test_a_rule_that_was_met_covers_it(self):
        guard = made(self.CERTAIN, bound=0.2, rule=[rule("confidence < 0.8", "answer", answer="malignant")])
        verdict = guard.on_response(asked(), answer((0.25, 0.75)))
        assert verdict.action is Action.ALLOW
        assert verdict.labels.tolist() == [0]

    def test_without_scores_nothing_is_certain(self):
        assert made(self.CERTAIN, bound=0.2).on_response(asked(), Answer(np.array([0]))).action is Action.HOLD


NUMBERS = st.sampled_from(["{mean radius}", "age", "confidence", "score.benign", "2", "-1", "guard.seen", "guard.lost"])


def truths(numbers):
    compared = st.builds("({} {} {})".format, numbers, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), numbers)
    leaves = st.one_of(compared, st.sampled_from(['label == "benign"', 'caller.role == "user"']))
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.builds("({} and {})".format, inner, inner),
            st.builds("({} or {})".format, inner, inner),
            st.builds("(not {})".format, inner),
        ),
        max_leaves=6,
    )


def sums(numbers):
    return st.one_of(
        numbers, st.builds("({} {} {})".format, numbers, st.sampled_from(["+", "-", "*", "/"]), numbers),
        st.builds("min({}, {})".format, numbers, numbers), st.builds("abs({})".format, numbers),
    )  # fmt: skip


@given(
    truths(sums(NUMBERS)),
    st.lists(st.tuples(st.integers(-2, 2), st.integers(0, 3), st.floats(0.0, 1.0)), min_size=2, max_size=6),
)
def test_one_row_and_many_are_read_alike(when, drawn):
    """The two ways of reading an expression are one language: checked on random expressions and rows."""
    if len(when) > 400:
        return
    guard = made(rule=[rule(f"{when} or age < -1", "flag")])
    rows = [(float(radius), float(age), 0.0) for radius, age, _ in drawn]
    scores = [(1.0 - share, share) for *_, share in drawn]
    measures = {"guard.seen": 1.0}
    each = {
        place
        for place, (row, score) in enumerate(zip(rows, scores, strict=True))
        if (one := _run(guard, asked(row, measures=measures), answer(score))) is not None and one.action is Action.FLAG
    }
    assert _rows_of(guard, asked(*rows, measures=measures), answer(*scores)) == each


def _run(guard, question, said):
    return guard.on_request(question) or guard.on_response(question, said)


def _rows_of(guard, question, said):
    """Rows that the batch's reading of the only rule meets."""
    (one,) = (*guard._early, *guard._late)
    with np.errstate(all="ignore"):
        truth = np.broadcast_to(one.test.each(Facts(question, said)), (len(question.rows),))
    return set(np.flatnonzero(truth >= one.least).tolist())


OF_ANSWERS = st.sampled_from(["confidence", "margin", "score.benign", "0.5", "-1"])
SHARES = st.one_of(st.floats(0.0, 1.0), st.sampled_from([0.0, 0.5, 1.0, 1.0006, 1.002, -0.2, math.nan, math.inf]))


@given(
    truths(sums(OF_ANSWERS)).filter(lambda when: "caller" not in when and len(when) < 400),
    st.lists(st.tuples(SHARES, st.integers(-1, 2)), min_size=1, max_size=9),
)
def test_of_answers_that_come_together_nothing_is_kept_quiet_that_is_said_of_one(when, drawn):
    """And nothing is said to be worth a look that is not, unless it is nearly impossible."""
    guard = made(rule=[rule(when, "flag")])
    assert guard.foretells
    labels = np.array([label for _, label in drawn])
    scores = np.array([(1.0 - share, share) for share, _ in drawn])
    for quiet, label, score in zip(guard.foretell(labels, scores), labels, scores, strict=True):
        said = guard.on_response(asked(), Answer(np.array([label]), score[None]))
        sound = np.isfinite(score).all() and abs(score.sum() - 1) <= 5e-4 and min(score) >= -5e-4
        near = not sound or score[label % 2] < max(score) - 5e-4
        assert quiet == (said is None) or (said is None and near)


@pytest.mark.parametrize("when", ["age > 3", "guard.seen > 1", "time.hour > 3", 'caller.id == "x"', "batch.rows > 1"])
def test_rules_that_rest_on_more_than_answers_are_looked_at_one_by_one(when):
    assert not made(rule=[rule(f"confidence < 0.5 and {when}", "flag")]).foretells


def test_a_guard_that_measures_looks_at_each():
    certain = Report(tree=(("", 0.0, 0, 0, "benign"),), uncertainty=0.05)
    assert made(certain).foretells
    assert not made(certain, bound=0.2).foretells
    assert not made(tree={"rows": TREE}).foretells
    assert not made(fusion={"source": [CONFIDENT]}).foretells


def test_answers_of_another_shape_are_all_worth_a_look():
    assert made().foretell(np.zeros(3, int), np.full((3, 5), 0.2)) == [False] * 3
