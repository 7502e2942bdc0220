"""What membership inference asks for, how it decides, and what labels alone give away."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from bartizan.redteam import statistics
from bartizan.redteam.attack import VICTIM, Fit, Query
from bartizan.redteam.attacks.privacy.membership import Membership, MembershipFromLabels, _guesses
from bartizan.redteam.membership import HEADLINE, RULES, Shadows
from bartizan.redteam.privacy import Privacy
from fixtures.games import halves, material, noisy_digits, play


def test_the_threshold_is_learnt_from_the_adversarys_own_models():
    rng = np.random.default_rng(0)
    half = rng.random((8, 4000)) < 0.5
    inside = np.stack([half, ~half], axis=1).reshape(16, 4000)
    easy = rng.normal(0, 3, 4000)
    known = Shadows(easy + inside + rng.normal(0, 0.5, inside.shape), inside)
    members = rng.random(4000) < 0.5
    target = easy + members + rng.normal(0, 0.5, 4000)
    accused = next(guess.accused for guess in _guesses(known, target) if guess.rule == "lira_online")
    best = stats.norm.cdf(1.0)  # two normal distributions, two standard deviations apart
    reached = (accused[members].mean() + 1 - accused[~members].mean()) / 2
    assert best - 0.03 < reached < best + 0.02


def requests(attack, task, classes):
    """All that the attack asks when every model is sure of class 0."""
    search, reply, asked = attack.search(task, np.random.default_rng(0)), None, []
    try:
        while True:
            request = search.send(reply)
            asked.append(request)
            if isinstance(request, Fit):
                reply = sum(isinstance(one, Fit) for one in asked)
            else:
                shape = (len(request.rows), classes) if request.scores else len(request.rows)
                reply = np.zeros(shape, np.float64 if request.scores else np.int64)
    except StopIteration as end:
        return asked, end.value


@pytest.mark.parametrize("attack", [Membership(), MembershipFromLabels()])
def test_the_victim_is_asked_once_about_each_record_and_shadows_train_on_their_halves(attack):
    case = Privacy().case(attack, material(*halves(noisy_digits), shadow_models=8), np.random.default_rng(0))
    asked, result = requests(attack, case.task, 10)
    queries = [request for request in asked if isinstance(request, Query)]
    of_victim = [query for query in queries if query.model == VICTIM]
    views = 1 if attack.name == "privacy.membership" else 17
    assert case.budget.per_sample == views
    assert [len(query.rows) for query in of_victim] == [views * len(case.task.rows)]
    np.testing.assert_array_equal(of_victim[0].sample, np.tile(np.arange(len(case.task.rows)), views))
    assert {query.scores for query in queries} == {attack.name == "privacy.membership"}
    fits = [request for request in asked if isinstance(request, Fit)]
    for fit, shadow in zip(fits, case.task.shadows, strict=True):
        np.testing.assert_array_equal(fit.rows, case.task.rows[shadow.inside])
    assert [guess.rule for guess in result.guesses if guess.headline] == [HEADLINE]
    assert {guess.rule for guess in result.guesses} == set(RULES)


def test_labels_alone_give_an_overfitted_tree_away_as_well():
    train, rest = halves(noisy_digits)
    model = DecisionTreeClassifier(random_state=0).fit(*train)
    game = play(MembershipFromLabels(), Privacy(), model, material(train, rest, shadow_models=16))
    assert game.metrics["pipeline_auc"].low > 0.68


def test_neighbours_lie_ever_farther_away_and_stay_possible():
    of = material(*halves(noisy_digits), shadow_models=8)
    task = Privacy().case(MembershipFromLabels(), of, np.random.default_rng(0)).task
    views = task.neighbours.reshape(16, *task.rows.shape)
    change = [of.space.change(view, task.rows, 2).mean() for view in views]
    assert (np.diff(change) > 0).all()
    assert of.space.possible(task.neighbours, np.tile(task.rows, (16, 1))).all()


def test_rows_nearby_give_away_what_the_label_of_the_record_itself_does_not():
    """A support vector machine: right or wrong alone measured .54 to .57, with neighbours .66."""
    train, rest = halves(noisy_digits)
    few = ((train[0][:400], train[1][:400]), (rest[0][:400], rest[1][:400]))
    model = SVC(C=10, gamma="scale").fit(*few[0])
    game = play(MembershipFromLabels(), Privacy(), model, material(*few, shadow_models=8))
    alone = gap(game)
    assert game.metrics["pipeline_auc"].low > alone + 0.03


def gap(game):
    """AUC over all shadow models of being right about the record itself."""
    task = game.case.task
    right = [answer[: len(task.rows)] == task.labels for answer in game.run.candidates.answers]
    inside = [shadow.inside for shadow in task.shadows]
    return statistics.roc(np.concatenate(right), np.concatenate(inside)).area
