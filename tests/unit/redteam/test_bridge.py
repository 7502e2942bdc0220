"""Attackers in processes of their own: honest ones, those that misbehave, and libraries where they are installed."""

from __future__ import annotations

import importlib.util
import os
import sys
import textwrap
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from bartizan.core.errors import BartizanError, InputError, SandboxError
from bartizan.redteam.bridge import External, Limits, Place, parse
from bartizan.redteam.play import play, task_of
from bartizan.targets.protocol import Access
from fixtures.victims import Victim, space_around

GUEST = Path(str(resources.files("bartizan.adapters.bridge") / "guest.py"))
QUICK = Limits(start_seconds=20, think_seconds=1.5, cpu_seconds=20)
ART = os.environ.get("BARTIZAN_EXTERNAL_ART", "")
"""Interpreter with the Adversarial Robustness Toolbox, when the machine has one."""

WALK = """
    import numpy as np

    def attack(model, task, steps=40):
        found = np.array(task.rows)
        for sample, row in enumerate(task.rows):
            for step in range(steps):
                way = np.random.uniform(-1, 1, row.shape) * task.scale * task.max_change
                if model.labels(row + way, sample)[0] != task.labels[sample]:
                    found[sample] = row + way
                    break
        return found
"""


def ring(rows):
    """Two classes: inside and outside of a circle."""
    return (np.linalg.norm(rows, axis=1) > 1).astype(np.int64)


@pytest.fixture
def task():
    return task_for()


def task_for(*, budget=50, samples=6, **more):
    rows = np.random.default_rng(0).normal(0, 1, (40, 2))
    labels = ring(rows)
    space = space_around(rows)
    return task_of(rows[:samples], labels[:samples], space=space, classes=2, max_change=0.5, budget=budget, **more)


def victim():
    return Victim(answer=ring, features=2)


def program(folder, text):
    path = folder / "attacker.py"
    path.write_text(textwrap.dedent(text))
    return f"file:{path}"


def place(guest=GUEST, **limits):
    return Place(Path(sys.executable), guest, limits=Limits(**limits) if limits else QUICK)


def test_an_attacker_in_a_file_asks_through_our_ledger_and_is_measured_by_us(tmp_path, task):
    target = victim()
    attack = External(program(tmp_path, WALK), place(), options={"steps": 30}, scores=False)
    found = play(target, attack, task, seed=3)
    assert attack.needs == {Access.LABELS}
    assert 0 < found.robust_accuracy.value < 1
    assert found.ledger.spent.max() <= 30
    # What the target was asked is what the ledger says, and the measurement.
    assert target.rows == found.ledger.queries + 4 * len(task.rows)
    won = np.isfinite(found.change)
    assert (ring(found.rows[won]) != task.labels[won]).all()
    assert (found.change[won] <= task.max_change * (1 + 1e-9)).all()
    assert "limits" in attack.held


def test_the_same_seed_gives_the_same_bytes(tmp_path, task):
    name = program(tmp_path, WALK)
    once, again, other = (play(victim(), External(name, place(), scores=False), task, seed=seed) for seed in (3, 3, 4))
    assert once.rows.tobytes() == again.rows.tobytes()
    assert once.rows.tobytes() != other.rows.tobytes()


def test_the_budget_of_a_sample_is_hard_and_what_was_found_by_then_counts(tmp_path):
    greedy = """
        import numpy as np

        def attack(model, task):
            for sample, row in enumerate(task.rows):
                ways = np.random.standard_normal((1000, 2)) * 0.4
                try:
                    model.labels(row + ways, sample)
                except BaseException:
                    pass
    """
    task = task_for(budget=20)
    target = victim()
    found = play(target, External(program(tmp_path, greedy), place(), scores=False), task)
    assert (found.ledger.spent == 20).all()
    assert target.rows == 20 * len(task.rows) + 4 * len(task.rows)
    assert found.robust_accuracy.value < 1


def test_a_liar_succeeds_at_nothing(tmp_path, task):
    liar = """
        def attack(model, task):
            return task.rows * 1.000001
    """
    found = play(victim(), External(program(tmp_path, liar), place(), scores=False), task)
    assert found.robust_accuracy.value == 1.0
    assert found.ledger.queries == 0


def test_rows_that_are_impossible_are_not_asked(tmp_path):
    far = """
        def attack(model, task):
            model.labels(task.rows[0] * 0 + 1e9, 0)
            return task.rows + 1e9
    """
    seen = []

    def watch(rows):
        seen.append(rows)
        return ring(rows)

    task = task_for()
    play(Victim(answer=watch, features=2), External(program(tmp_path, far), place(), scores=False), task)
    asked = np.concatenate(seen)
    assert (asked <= np.maximum(task.space.high, task.rows.max(axis=0)) + 1e-9).all()


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("raise ValueError('no luck')", "ValueError: no luck"),
        ("import os; os._exit(7)", "exit code 7"),
        ("import time; time.sleep(60)", "silent for 1.5 seconds"),
        ("model._channel._end.close(); import time; time.sleep(60)", "closed its socket"),
        ("model._channel._end.sendall(b'GET / HTTP/1.1' * 1000)", "broke the protocol"),
        ("model._channel._end.sendall((9).to_bytes(4, 'big') + b'[1, 2, 3]')", "broke the protocol"),
        ("model._channel._end.sendall((4).to_bytes(4, 'big') + bytes([255] * 4))", "broke the protocol"),
        ("model._channel.send({'ask': 'labels', 'rows': 2**40, 'sample': 0}, b'x')", "numbers are due"),
        ("model._channel.send({'ask': 'labels', 'rows': 0, 'sample': 0})", "no question about rows"),
        ("model._channel.send({'ask': 'weights', 'rows': 1, 'sample': 0}, bytes(16))", "no question about rows"),
        ("model.labels(task.rows, 99)", "no question about rows"),
        ("model.labels(task.rows * float('nan'), 0)", "not finite"),
        ("model.gives_scores = True; model.scores(task.rows, 0)", "which the interface does not give"),
        ("return task.rows[:1]", "numbers are due"),
    ],
)
def test_misbehaviour_ends_the_run_with_a_clear_error(tmp_path, task, body, complaint):
    text = f"def attack(model, task):\n    model.labels(task.rows[:1], 0)\n    {body}\n    model.labels(task.rows, 0)\n"
    with pytest.raises(SandboxError, match=complaint) as caught:
        play(victim(), External(program(tmp_path, text), place(), scores=False), task)
    assert caught.value.remedy


def test_who_asks_on_after_the_budget_is_over_is_ended(tmp_path):
    flood = """
        def attack(model, task):
            while True:
                try:
                    model.labels(task.rows[:1], 0)
                except BaseException:
                    pass
    """
    target = victim()
    with pytest.raises(SandboxError, match="asks on for sample 0 after its budget is over"):
        play(target, External(program(tmp_path, flood), place(), scores=False), task_for(budget=5))
    assert target.rows == 5


def test_a_guest_that_is_none_and_an_interpreter_that_is_none(tmp_path, task):
    odd = tmp_path / "guest.py"
    odd.write_text("print('hello')")
    name = program(tmp_path, WALK)
    with pytest.raises(SandboxError, match="ended before"):
        play(victim(), External(name, place(odd), scores=False), task)
    with pytest.raises(InputError, match="cannot be started"):
        play(victim(), External(name, Place(tmp_path / "python", GUEST), scores=False), task)


def test_nothing_is_left_running(tmp_path, task):
    report = tmp_path / "pid"
    text = f"""
        import os, time
        def attack(model, task):
            open({str(report)!r}, "w").write(str(os.getpid()))
            model.labels(task.rows * float("nan"), 0)
    """
    with pytest.raises(BartizanError):
        play(victim(), External(program(tmp_path, text), place(), scores=False), task)
    with pytest.raises(ProcessLookupError):
        os.kill(int(report.read_text()), 0)


def test_the_attacker_has_no_environment_of_ours_and_no_network(tmp_path, task, monkeypatch):
    monkeypatch.setenv("BARTIZAN_PASSPHRASE", "secret")
    report = tmp_path / "seen"
    text = f"""
        import os, socket
        def attack(model, task):
            reached = "no"
            try:
                socket.create_connection(("127.0.0.1", 9), timeout=0.5)
            except OSError as error:
                reached = type(error).__name__ + str(error.errno)
            open({str(report)!r}, "w").write(f"{{'BARTIZAN_PASSPHRASE' in os.environ}} {{reached}}")
    """
    attack = External(program(tmp_path, text), place(), scores=False)
    play(victim(), attack, task)
    secret, reached = report.read_text().split()
    assert secret == "False"
    if "network" in attack.held:
        # Even the loopback is down in a network namespace of its own.
        assert reached == "OSError101"


@pytest.mark.parametrize("name", ["art", "art:", "art:os;system", "keras:FGSM", "file:/no/such/file.py", "art:a.b"])
def test_names_that_are_none(name):
    with pytest.raises(InputError):
        parse(name)


def test_an_attack_that_a_library_does_not_have(task):
    complaint = "has no" if importlib.util.find_spec("foolbox") else "ModuleNotFoundError"
    with pytest.raises(SandboxError, match=complaint):
        play(victim(), External("foolbox:NoSuchAttack", place(), scores=False), task)


@pytest.mark.skipif(not ART, reason="BARTIZAN_EXTERNAL_ART names no interpreter with the toolbox")
def test_the_adversarial_robustness_toolbox():
    rows = np.random.default_rng(0).normal(0, 1, (60, 4))
    answer = lambda asked: (asked @ [1.0, -2.0, 0.5, 0.3] > 0).astype(np.int64)  # noqa: E731 - a line
    task = task_of(rows[:5], answer(rows[:5]), space=space_around(rows), classes=2, max_change=0.8, budget=600, norm=2)
    attack = External("art:HopSkipJump", Place(Path(ART), GUEST), options={"max_iter": 10})
    found = play(Victim(answer=answer, features=4), attack, task)
    assert np.isfinite(found.change).all()
    least = np.abs(rows[:5] @ [1, -2, 0.5, 0.3]) / np.linalg.norm(np.array([1, -2, 0.5, 0.3]) * task.space.scale)
    assert np.median(found.change / least) < 3
    assert found.ledger.spent.max() <= 600
