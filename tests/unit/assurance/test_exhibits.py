"""Statements as lines for people."""

from __future__ import annotations

import pytest

from bartizan.core import predicates, statement
from bartizan.core.evidence import Standing
from fixtures.hospital import Hospital, hospital


def only_line(made):
    return made.model().evidence[0]


def test_statements_are_listed_newest_first_with_age_signer_and_standing():
    report = hospital().model()
    assert [line.seq for line in report.evidence] == sorted((line.seq for line in report.evidence), reverse=True)
    approval = next(line for line in report.evidence if line.title == "Decision: approval")
    assert (approval.age, approval.standing, approval.reason) == (
        "120 days",
        Standing.EXPIRED,
        "it ended on 2026-10-22",
    )
    assert approval.signers == ("risk owner, breast screening",)
    assert approval.ends == "2026-10-22 09:30 UTC"
    assert approval.ends_in == ""


def test_a_signer_without_a_name_is_shown_by_id():
    made = Hospital(names={})
    made.decide("review", "Fine.", role="security", signer="k-sec", days=1, ends_in=3)
    line = only_line(made)
    assert line.signers == ("k-sec",)
    assert line.ends_in == "3 days"


def test_an_unreadable_statement_has_a_line_of_its_own():
    made = Hospital()
    made.put(None, days=1, standing=Standing.INVALID, reason="not an in-toto statement")
    line = only_line(made)
    assert (line.title, line.type, line.about) == ("Unreadable statement", "unreadable", ())


def test_a_type_that_nobody_knows_is_named_as_it_is():
    made = Hospital()
    strange = statement.make("https://example.org/odd/v1", made.system.artefacts[0], {"summary": "odd"})
    made.put(strange, days=1, standing=Standing.HOLDS)
    line = only_line(made)
    assert (line.title, line.says) == ("Statement of type https://example.org/odd/v1", "odd")


@pytest.mark.parametrize(
    ("kind", "outcome", "against"),
    [("approval", "yes", False), ("approval", "no", True), ("rejection", "yes", True), ("disclosure", "no", True)],
)
def test_refusals_speak_against(kind, outcome, against):
    made = Hospital()
    made.decide(kind, "Because.", role="r", signer="s", days=1, ends_in=1, outcome=outcome)
    assert only_line(made).against is against


def test_an_incomplete_card_says_so():
    made = Hospital()
    card = predicates.Card(kind="dataset", name="d", owner="o", facts={}, complete=False)
    made.add(predicates.CARD, "dataset:aspirates-train", card, days=1)
    assert only_line(made).outcome == "incomplete"


@pytest.mark.parametrize("odd", [{"summary": 7}, {"concerns": "T08"}, {"concerns": [1, None]}, {"check": "scan"}])
def test_fields_of_the_wrong_shape_are_not_believed(odd):
    made = Hospital()
    made.put(
        statement.make("https://example.org/odd/v1", made.system.artefacts[0], odd), days=1, standing=Standing.HOLDS
    )
    line = only_line(made)
    assert (line.says, line.concerns, line.check) == ("", (), "")
