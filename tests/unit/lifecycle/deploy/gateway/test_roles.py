"""Roles: what is taken over, what is refused, and that nobody is told more than was assessed."""

from __future__ import annotations

import msgspec
import pytest

from bartizan.core.errors import InputError
from bartizan.core.system import Exposure
from bartizan.lifecycle.deploy.gateway.roles import BUILT_IN, RoleSettings, covered, problems, resolve
from bartizan.targets.detail import KINDS, Detail


def roles(text):
    return resolve(msgspec.toml.decode(text, type=dict[str, dict[str, RoleSettings]])["role"])


def exposed(output, **more):
    return Exposure(interface="public", output=output, **more)


def test_a_role_that_says_nothing_is_told_labels_and_nothing_else():
    role = roles("[role.visitor]")["visitor"]
    assert role.detail == "label"
    assert role.operations == ("infer",)
    assert not role.explanations
    assert not role.may("explain")
    assert not role.may("admin.key.add")


def test_no_role_is_there_that_was_not_configured():
    assert roles("[role.engineer]").keys() == {"engineer"}


def test_the_three_built_in_roles_see_different_detail():
    found = roles("[role.user]\n[role.engineer]\n[role.administrator]\n[role.maintainer]")
    assert [found[name].detail for name in found] == ["label", "rounded-scores", "scores", "scores"]
    assert [found[name].explanations for name in found] == [False] * 4
    assert [found[name].factor for name in found] == ["not needed", "not needed", "needed", "needed"]
    assert [found[name].may("admin.key.add") for name in found] == [False, False, True, True]
    assert found["user"].name == "user"
    assert found["maintainer"].name == "maintainer"


def test_a_role_takes_over_what_it_does_not_write():
    found = roles(
        """
        [role.analyst]
        extends = "engineer"
        decimals = 1
        [role.trainee]
        extends = "analyst"
        detail = "buckets"
        buckets = { doubtful = 0, sure = 0.8 }
        rate = "30/min"
        """
    )
    assert (found["analyst"].detail, found["analyst"].decimals) == ("rounded-scores", 1)
    assert (found["trainee"].detail, found["trainee"].decimals) == ("buckets", 1)
    assert found["trainee"].shown.buckets == (("doubtful", 0), ("sure", 0.8))
    assert found["trainee"].pace() == (30, 60)
    assert found["trainee"].priority == BUILT_IN["engineer"].priority


def test_a_built_in_name_can_be_written_anew_and_extended():
    found = roles('[role.user]\ndetail = "buckets"\n[role.guest]\nextends = "user"')
    assert found["guest"].detail == "buckets"
    assert found["guest"].may("metadata")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('[role.a]\nextends = "b"\n[role.b]\nextends = "a"', "extends itself"),
        ('[role.a]\nextends = "a"', "extends itself"),
        ('[role.a]\nextends = "nobody"', "not configured"),
    ],
)
def test_circles_and_gaps_are_refused(text, match):
    with pytest.raises(InputError, match=match):
        roles(text)


@pytest.mark.parametrize(
    "line",
    [
        'detail = "logits"',
        "decimals = 5",
        "k = 1",
        "noise = 0.0",
        "steps = 100",
        "pad_milliseconds = -1",
        'rate = "often"',
        'rate = "0/s"',
        "buckets = { low = 0.1, high = 0.9 }",
        "buckets = { low = 0, high = 0.9, middle = 0.5 }",
        "buckets = { only = 0 }",
        "embeddings = true",
        'operations = ["INFER"]',
        'extends = ""',
    ],
)
def test_what_is_out_of_bounds_is_refused(line):
    with pytest.raises(msgspec.ValidationError):
        roles(f"[role.a]\n{line}")


def test_models_and_operations_are_granted_by_name_or_beginning():
    role = roles('[role.a]\nmodels = ["tumour*"]\noperations = ["infer", "admin.key.*"]')["a"]
    assert role.may("infer", "tumour-2")
    assert not role.may("infer", "digits")
    assert role.may("admin.key.add")
    assert not role.may("admin.role.add")


def test_answers_wait_for_the_next_multiple_of_the_grid():
    role = roles("[role.a]\npad_milliseconds = 20")["a"]
    assert role.wait(0.0) == 0.0
    assert role.wait(0.013) == pytest.approx(0.007)
    assert role.wait(0.021) == pytest.approx(0.019)
    assert roles("[role.a]\npad_milliseconds = 0")["a"].wait(0.013) == 0.0


def test_the_time_of_an_answer_is_withheld_until_it_is_granted():
    found = roles("[role.a]\n[role.user]\n[role.engineer]\n[role.administrator]")
    assert [bool(role.pad_milliseconds) for role in found.values()] == [True, True, False, False]


# ---- what was assessed


ALLOWED = {
    "label": {"label"},
    "top-k": {"label", "top-k"},
    "rounded-scores": {"label", "summary", "buckets", "graphic", "noisy-scores", "confidence", "rounded-scores"},
    "scores": set(KINDS),
}


@pytest.mark.parametrize("output", ALLOWED)
@pytest.mark.parametrize("kind", KINDS)
def test_nobody_is_told_more_than_was_assessed(output, kind):
    assert covered(Detail(kind), output) == (kind in ALLOWED[output])


def test_finer_numbers_than_hundredths_are_covered_by_all_scores_alone():
    for kind in ("rounded-scores", "confidence", "noisy-scores"):
        assert not covered(Detail(kind, decimals=3), "rounded-scores")
        assert covered(Detail(kind, decimals=3), "scores")
    assert not covered(Detail("top-k", k=5), "top-k")


def test_every_problem_is_listed():
    found = problems(
        roles(
            """
            [role.administrator]
            [role.helper]
            detail = "scores"
            explanations = true
            budgets = ["daily"]
            """
        ),
        exposed("rounded-scores"),
        budgets=("monthly",),
    )
    assert len(found) == 5
    assert sum("'helper'" in fault for fault in found) == 4
    assert any("does not extend 'administrator'" in fault for fault in found)
    assert any("'daily'" in fault for fault in found)


def test_unrounded_scores_are_for_the_trusted_role_and_what_extends_it():
    own = '[role.helper]\ndetail = "scores"'
    derived = '[role.helper]\nextends = "maintainer"\nfactor = "not needed"'
    assert problems(roles(own), exposed("scores"))
    assert not problems(roles(derived), exposed("scores"))


def test_explanations_are_off_until_they_are_granted_by_name():
    found = roles('[role.administrator]\n[role.a]\noperations = ["infer", "explain"]\n[role.b]\nexplanations = true')
    assert [found[name].may("explain") for name in found] == [False, False, True]
    assert found["b"].may("infer")


def test_explanations_need_a_declared_role():
    explained = '[role.physician]\nexplanations = true\noperations = ["explain"]'
    assert problems(roles(explained), exposed("label"))
    assert not problems(roles(explained), exposed("label", explanations=("physician",)))
