from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bartizan.core.digest import digest_bytes
from bartizan.core.errors import StoreError, WorkError
from bartizan.redteam.attack import Query
from bartizan.redteam.engine import Engine, Run
from bartizan.redteam.journal_file import MAGIC, FolderJournals
from bartizan.redteam.ledger import Budget
from fixtures.victims import Victim

KEY = digest_bytes(b"run")
ROUNDS = 6


def search(seed=0):
    """Where it goes depends on the answers, so that a wrong one would show."""
    rng, place, way = np.random.default_rng(seed), np.zeros(2), []
    for _ in range(ROUNDS):
        rows = place + rng.normal(size=(5, 2))
        labels = yield Query(rows, np.zeros(5, int))
        place = rows[labels.argmax()]
        way.append(place.tolist())
    return way


class Mortal(Victim):
    """Dies when it is asked once too often."""

    def __init__(self, lives):
        super().__init__(answer=lambda rows: rows.sum(axis=1) > 0.3, features=2)
        self.lives = lives

    def labels(self, rows):
        if self.calls == self.lives:
            raise KeyboardInterrupt
        return super().labels(rows)


def drive(folder, lives=99, seed=0):
    target = Mortal(lives)
    run = Run(search(seed), budget=Budget(samples=1, per_sample=100))
    with FolderJournals(folder).open(KEY) as journal:
        Engine(target, journal=journal).drive([run])
    return run, target


UNINTERRUPTED = Run(search(), budget=Budget(samples=1, per_sample=100))
Engine(Mortal(99)).drive([UNINTERRUPTED])


@pytest.mark.parametrize("lives", range(ROUNDS))
def test_a_run_killed_at_any_call_goes_on_and_comes_to_the_same_result(tmp_path, lives):
    with pytest.raises(KeyboardInterrupt):
        drive(tmp_path, lives)
    run, target = drive(tmp_path)
    assert run.candidates == UNINTERRUPTED.candidates
    assert target.calls == ROUNDS - lives
    assert run.ledger.queries == UNINTERRUPTED.ledger.queries
    assert run.ledger.calls == ROUNDS


def test_wherever_the_file_is_cut_off_only_the_last_call_is_lost(tmp_path):
    drive(tmp_path)
    path = tmp_path / f"{KEY}.journal"
    whole = path.read_bytes()
    record = (len(whole) - len(MAGIC)) // ROUNDS
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        run, target = drive(tmp_path)
        assert run.candidates == UNINTERRUPTED.candidates
        assert target.calls == ROUNDS - max(0, length - len(MAGIC)) // record
        assert path.read_bytes() == whole


def test_an_altered_answer_is_asked_again(tmp_path):
    drive(tmp_path)
    path = tmp_path / f"{KEY}.journal"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    run, target = drive(tmp_path)
    assert (run.candidates, target.calls) == (UNINTERRUPTED.candidates, 1)


def test_a_process_that_is_killed_outright_loses_at_most_one_call(tmp_path):
    program = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_journal_file as story
class Doomed(story.Mortal):
    def labels(self, rows):
        if self.calls == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().labels(rows)
story.Mortal = Doomed
story.drive(story.Path({str(tmp_path)!r}))
"""
    tests = str(Path(__file__).parents[2])
    died = subprocess.run([sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": tests}, check=False)
    assert died.returncode == -signal.SIGKILL
    run, target = drive(tmp_path)
    assert (run.candidates, target.calls) == (UNINTERRUPTED.candidates, ROUNDS - 3)


def test_answers_of_another_run_are_not_taken(tmp_path):
    drive(tmp_path, seed=1)
    run, target = drive(tmp_path)
    assert (run.candidates, target.calls) == (UNINTERRUPTED.candidates, ROUNDS)
    _, again = drive(tmp_path)
    assert again.calls == 0


def test_scores_come_back_bit_by_bit(tmp_path):
    scores = np.random.default_rng(0).dirichlet([1, 1, 1], size=7)
    question = bytes(32)
    with FolderJournals(tmp_path).open(KEY) as journal:
        assert journal.recall(question) is None
        journal.record(question, scores)
    with FolderJournals(tmp_path).open(KEY) as journal:
        assert np.array_equal(journal.recall(question), scores)
        assert journal.recall(question) is None


def test_two_processes_cannot_write_one_journal(tmp_path):
    with (
        FolderJournals(tmp_path).open(KEY),
        pytest.raises(WorkError, match="is in use"),
        FolderJournals(tmp_path).open(KEY),
    ):
        pass


def test_a_discarded_journal_is_gone(tmp_path):
    with FolderJournals(tmp_path).open(KEY) as journal:
        journal.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_journal_is_left_alone(tmp_path):
    path = tmp_path / f"{KEY}.journal"
    path.write_bytes(b"something else entirely")
    with pytest.raises(StoreError, match="is no journal"), FolderJournals(tmp_path).open(KEY):
        pass
    assert path.read_bytes() == b"something else entirely"


def test_a_folder_that_cannot_be_made_is_said_so(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="cannot be opened"), FolderJournals(tmp_path / "file").open(KEY):
        pass
