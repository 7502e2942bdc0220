"""Attacks on declared texts, from the declaration to the statement."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from bartizan.adapters.example_messages import CLASSES, messages
from bartizan.core.errors import ArtefactError, WorkError
from bartizan.redteam import registry
from bartizan.redteam.check import AttackCheck
from bartizan.redteam.text import play_text
from bartizan.redteam.text_check import TextCheck, TextFamily, text_material_of
from bartizan.targets.protocol import Targets
from bartizan.targets.text import CallableText, TextTargets
from fixtures.text_systems import LABELS, TEXTS, WORDS, text_system
from fixtures.victims import Desk, declare

NAMES = ("text.characters", "text.imperceptible", "text.removals", "text.synonyms")
SETTINGS = {"samples": 12, "query_budget": 80}


class Opened:
    """Gives a function of texts where the declared file would be opened."""

    def __init__(self, function, classes=2):
        self.target = CallableText(function, classes=classes, name="model:victim")
        self.target.class_values = CLASSES[:classes]

    def open(self, *_):
        return self

    def __enter__(self):
        return self.target

    def __exit__(self, *_):
        return None


@pytest.fixture(scope="module")
def real():
    """The messages that ship with the package, and their filter."""
    return messages(7)


@pytest.fixture
def system(real, tmp_path):
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(TEXTS, WORDS[LABELS])
    train, evaluation = ((texts, WORDS[labels]) for texts, labels in (real.training, real.evaluation))
    return text_system(tmp_path, model, train=train, evaluation=evaluation, **SETTINGS)


def outcome(name, system, function, told=None):
    desk = Desk({TextTargets: Opened(function)}, told if told is not None else [])
    check = registry.check(name)
    return check.run(system, system.artefact("model:victim"), desk)


@pytest.mark.parametrize("name", NAMES)
def test_each_attack_turns_right_answers_of_a_real_filter_within_its_budget(name, real, system):
    asked = []
    told = []

    def counted(texts):
        asked.extend(texts)
        return real.target.scores(texts)

    found = outcome(name, system, counted, told)
    said = found.predicate
    metrics = said.metrics
    assert metrics["clean_accuracy"].value > 0.9
    assert metrics["attack_success"].value > 0
    assert metrics["robust_accuracy"].low <= metrics["robust_accuracy"].value <= metrics["robust_accuracy"].high
    assert said.budget["most_queries_spent_on_a_sample"] <= 80
    # What was asked is what the ledger says, and each text and what became of it once again.
    assert len(asked) == said.budget["queries_spent"] + 2 * 12
    assert said.techniques[0] == "T07"
    assert told
    report = msgspec.json.decode(found.report.data)
    assert len(report["samples"]) == 12
    assert report["confusion"]["classes"] == ["ham", "spam"]
    assert sum(map(sum, report["confusion"]["under_attack"])) == 12
    assert report["curves"]["robust_accuracy_by_change"][0]["value"] == metrics["clean_accuracy"].value


def test_a_search_that_the_clock_ends_says_so(real, system):
    settings = msgspec.structs.replace(system.declaration.redteam, seconds=1e-9)
    declaration = msgspec.structs.replace(system.declaration, redteam=settings)
    said = outcome(
        "text.characters", msgspec.structs.replace(system, declaration=declaration), real.target.scores
    ).predicate
    assert said.budget["queries_spent"] == 0
    assert said.settings["stopped"] == "after 1e-09 s"
    assert "was not done" in said.summary
    assert said.settings["no_claim"].endswith("12 of 12 samples were asked about")


def test_no_word_of_a_text_is_in_the_result(real, system):
    found = outcome("text.characters", system, real.target.scores)
    plain = found.report.data.decode() + str(found.findings)
    longest = sorted({word for text in real.evaluation[0] for word in text.split()}, key=len)[-40:]
    assert not [word for word in longest if word in plain]


def test_what_reads_the_same_is_counted(real, system):
    unseen = outcome("text.imperceptible", system, real.target.scores).predicate.metrics
    letters = outcome("text.characters", system, real.target.scores).predicate.metrics
    assert unseen["looks_the_same"].value == 1.0
    assert letters["looks_the_same"].value == 0.0
    assert unseen["median_edits"].unit == "characters"


def test_the_same_seed_says_the_same(real, system):
    first, again = (outcome("text.characters", system, real.target.scores) for _ in range(2))
    assert first.report.data == again.report.data


def test_a_filter_that_answers_always_the_same_is_not_attacked_but_measured(system):
    found = outcome("text.characters", system, lambda texts: [[1.0, 0.0]] * len(texts))
    metrics = found.predicate.metrics
    assert metrics["attack_success"].value == 0.0
    assert metrics["robust_accuracy"].value == metrics["clean_accuracy"].value
    assert not found.findings


def test_a_filter_that_answers_nonsense_is_an_error(system):
    with pytest.raises(WorkError, match="finite scores"):
        outcome("text.characters", system, lambda texts: [[np.nan, 0.0]] * len(texts))


def test_a_declared_change_bounds_the_share_that_is_touched(real, system):
    redteam = msgspec.structs.replace(system.declaration.redteam, max_change=0.02)
    tight = msgspec.structs.replace(system, declaration=msgspec.structs.replace(system.declaration, redteam=redteam))
    bounded = outcome("text.characters", tight, real.target.scores).predicate
    assert bounded.settings["max_change"] == 0.02
    free = outcome("text.characters", system, real.target.scores).predicate
    assert bounded.metrics["attack_success"].value <= free.metrics["attack_success"].value


def test_attacks_on_rows_have_nothing_to_do_with_texts_and_the_other_way_round(system, tmp_path):
    rows = np.random.default_rng(0).normal(size=(40, 2))
    labels = (rows[:, 0] > 0).astype(int)
    model = LogisticRegression().fit(rows, labels)
    (tmp_path / "rows").mkdir()
    table = declare(tmp_path / "rows", model, (rows, labels), (rows, labels))
    for check in registry.checks():
        written = isinstance(check, TextCheck)
        if written:
            assert not check.why_not(system)
            assert "changes texts" in check.why_not(table)
            assert not check.selected(table)
        elif check.family.name != "availability":
            assert "the declared data are texts" in check.why_not(system) or not check.subjects(system)


def test_the_usual_ones_are_run_where_none_is_named(system):
    chosen = {check.name for check in registry.checks() if check.selected(system) and not check.why_not(system)}
    assert chosen == {"redteam.text.characters", "redteam.text.imperceptible"}


def test_labels_only_are_too_little(system):
    exposure = msgspec.structs.replace(system.declaration.exposure, output="label")
    poor = msgspec.structs.replace(system, declaration=msgspec.structs.replace(system.declaration, exposure=exposure))
    assert "needs scores" in registry.check("text.characters").why_not(poor)


def test_a_model_that_knows_other_classes_is_refused(system):
    desk = Desk({TextTargets: Opened(lambda texts: [[0.2, 0.3, 0.5]] * len(texts), classes=3)})
    with pytest.raises(ArtefactError, match="knows the classes"):
        registry.check("text.characters").run(system, system.artefact("model:victim"), desk)


def test_the_result_rests_on_which_column_is_the_text(system):
    check, subject = registry.check("text.characters"), system.artefact("model:victim")
    before = check.inputs(system, subject)
    parts = tuple(msgspec.structs.replace(part, text="other") for part in system.declaration.dataset)
    other = msgspec.structs.replace(system, declaration=msgspec.structs.replace(system.declaration, dataset=parts))
    assert check.inputs(other, subject) != before


def test_the_family_alone_builds_the_task_and_leaves_measuring_to_the_check(real, system):
    material = text_material_of(system, system.artefact("model:victim"))
    attack = registry.attack("text.characters")
    case = TextFamily().case(attack, material, np.random.default_rng(0))
    assert play_text(real.target, attack, case.task).clean_accuracy.n == 12
    with pytest.raises(WorkError, match="measured by their check"):
        next(TextFamily().measure(case, None, np.random.default_rng(0)))
    assert issubclass(TextFamily().check, AttackCheck)


def test_rows_are_not_offered_where_texts_are_asked_for(system):
    with pytest.raises(WorkError, match="no service is wired"):
        registry.check("text.characters").run(system, system.artefact("model:victim"), Desk({Targets: None}))
