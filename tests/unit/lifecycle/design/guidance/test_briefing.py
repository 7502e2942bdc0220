"""What a briefing says, of any system."""

from __future__ import annotations

import msgspec
import pytest

from bartizan.catalogue.load import catalogue
from bartizan.core.errors import InputError
from bartizan.core.predicates import Metric
from bartizan.core.system import Guidance, Lesson
from bartizan.lifecycle.design.guidance.briefing import audience_of, briefing, digests, roles_of
from bartizan.lifecycle.design.guidance.document import Document, Section, Table, to_html, to_markdown
from bartizan.lifecycle.design.guidance.notice import how_sure
from fixtures.systems import make_system

HOSTILE = "<script>alert(1)</script> | `rm -rf` **bold** [a](javascript:x)\n# head"


def with_audiences(*names, lessons=()):
    system = make_system()
    declaration = msgspec.structs.replace(system.declaration, guidance=Guidance(audiences=names))
    return msgspec.structs.replace(system, declaration=declaration, lessons=lessons)


def test_every_audience_of_the_catalogue_can_be_briefed():
    system = with_audiences(*catalogue().audiences)
    made = digests(system, catalogue(), roles_of(system.declaration))
    assert len(set(made.values())) == len(made) > len(catalogue().audiences)


@pytest.mark.parametrize(
    ("role", "audience"),
    [
        ("ml", "ml-engineer"),
        ("ML_Engineer", "ml-engineer"),
        ("Press", "communications"),
        ("head of diagnostics", "staff"),
    ],
)
def test_roles_are_known_by_their_usual_names(role, audience):
    assert audience_of(catalogue(), role).id == audience


def test_an_undeclared_role_is_refused_with_the_declared_ones():
    with pytest.raises(InputError, match="names no role 'pilot'") as caught:
        briefing(make_system(), catalogue(), "pilot")
    assert "security" in caught.value.remedy


def test_a_lesson_reaches_only_those_whom_its_techniques_concern():
    lesson = Lesson(id="L-1", title="Swapped", text="Twice.", techniques=("T17",))
    before, after = with_audiences("labeller", "user"), with_audiences("labeller", "user", lessons=(lesson,))
    old, new = (digests(system, catalogue(), ("labeller", "user", "security")) for system in (before, after))
    changed = {name for name in old if old[name] != new[name]}
    assert changed == {"briefing:labeller", "briefing:security"}


def test_hostile_words_become_neither_markup_nor_cells():
    document = Document(
        title=HOSTILE,
        lead=HOSTILE,
        sections=(Section(title=HOSTILE, text=(HOSTILE,), points=(HOSTILE,), table=Table(("a",), ((HOSTILE,),))),),
    )
    page, text = to_html(document), to_markdown(document)
    assert "<script" not in page
    assert "<b>" not in page
    assert "javascript:x)" not in text.replace("\\]", "]").replace("](", "") or "\\[a\\]" in text
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        line for line in text.splitlines() if line.startswith(("# \\<script", "## \\<script"))
    ]
    (row,) = [line for line in text.splitlines() if line.startswith("| \\<")]
    assert row.count(" | ") == 0  # the bar inside the cell is escaped


def test_sections_without_content_are_left_out():
    document = Document(title="t", lead="l", sections=(Section(title="nothing"), Section(title="some", points=("x",))))
    assert "nothing" not in to_markdown(document) + to_html(document)


def test_how_sure_a_model_is_is_said_with_its_interval_or_that_nobody_knows():
    right = Metric(value=0.951, low=0.9, high=0.98, n=143)
    assert "143 cases" in how_sure(right)
    assert "95 %" in how_sure(right)
    assert "90 % to 98 %" in how_sure(right)
    assert "has not been measured" in how_sure(None)
