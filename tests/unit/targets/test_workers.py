"""Worker processes: what they have when they begin, and what they do not share."""

import os
import random
import subprocess
import sys
import time
from multiprocessing import forkserver
from pathlib import Path

import numpy as np
import pytest

from bartizan.targets import workers
from bartizan.targets.workers import THREADS, worker_pool

PARENT = """
import os, sys, time
from bartizan.targets import workers
workers.FORKED = sys.argv[1] == "True"

def told():
    return os.getpid()

if __name__ == "__main__":
    pool = workers.worker_pool(1)
    print(pool.submit(told).result(), flush=True)
    pool.submit(time.sleep, 0 if sys.argv[2:] else 300).result()
    pool.shutdown()
"""

LOADED = """
import sys
import numpy
from bartizan.targets import workers

def there(name):
    return name in sys.modules

if __name__ == "__main__":
    context = workers.worker_context(["bartizan.core.gate"])
    with workers.worker_pool(1, within=context) as pool:
        print(*pool.map(there, ["bartizan.core.gate", "bartizan.core.ledger", "numpy"]))
"""

_given = []


def remember(word):
    _given.append(word)


def drawn():
    """From NumPy's global state, which libraries use that were given none."""
    return np.random.random()  # noqa: NPY002


def seen():
    threads = [os.environ.get(name) for name in THREADS]
    return os.getpid(), os.environ.get("BARTIZAN_TOLD"), threads, _given, random.random(), drawn()


def test_each_process_has_surroundings_as_they_are_now_and_chance_of_its_own(monkeypatch):
    with worker_pool(1) as pool:
        pool.submit(os.getpid).result()  # what is forked from has begun
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BARTIZAN_TOLD", "just now")
    found = []
    for _ in range(2):
        with worker_pool(1, remember, "a word") as pool:
            found.append(pool.submit(seen).result())
    assert not {name for name in THREADS if name in os.environ}
    for process, told, threads, given, *_ in found:
        assert process != os.getpid()
        assert (told, threads, given) == ("just now", ["1"] * len(THREADS), ["a word"])
    (first, second) = found
    assert first[0] != second[0]
    assert first[-2] != second[-2]
    assert first[-1] != second[-1]


def test_a_person_s_number_of_threads_is_kept(monkeypatch):
    for name in THREADS:
        monkeypatch.setenv(name, "3")
    with worker_pool(1) as pool:
        assert pool.submit(seen).result()[2] == ["3"] * len(THREADS)


def test_what_is_asked_for_is_there_before_a_process_begins(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(LOADED)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.split() == ["True", "False", "True"], done.stderr


def running(*processes):
    return [each for each in processes if Path(f"/proc/{each}").exists()]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks at processes by /proc")
@pytest.mark.parametrize("forked", [True, False])
def test_workers_end_with_a_parent_that_is_killed(forked, tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    arguments = [sys.executable, "-P", str(script), str(forked)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as parent:
        worker = int(parent.stdout.readline())
        assert running(worker)
        parent.kill()
    began = time.monotonic()
    while running(worker):
        assert time.monotonic() - began < 60
        time.sleep(0.05)


@pytest.mark.parametrize("forked", [True, False])
def test_no_module_is_taken_from_the_current_folder(forked, tmp_path):
    here = tmp_path / "hostile"
    here.mkdir()
    for name in ("multiprocessing", "selectors", "msgspec", "numpy", "secrets", "bartizan"):
        (here / f"{name}.py").write_text(f"raise SystemExit('the folder was asked for {name}')")
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    arguments = [sys.executable, "-P", str(script), str(forked), "once"]
    done = subprocess.run(arguments, cwd=here, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_process_that_dies_of_what_it_loads_is_done_without(tmp_path):
    """As a module would that raises where it is loaded for others."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT.replace("workers.FORKED =", "workers.FIRST = 'antigravity.nothing'; workers.FORKED ="))
    broken = tmp_path / "antigravity"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise ValueError('broken')")
    done = subprocess.run(
        [sys.executable, str(script), "True", "once"], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "broken" in done.stderr


def test_where_nothing_can_be_forked_from_processes_begin_anew(monkeypatch):
    def refuse():
        raise OSError("no socket")

    monkeypatch.setenv("PYTHONSAFEPATH", "")
    monkeypatch.setattr(forkserver, "ensure_running", refuse)
    assert workers.worker_context().get_start_method() == "spawn"
    monkeypatch.setattr(workers, "FORKED", False)
    assert workers.worker_context().get_start_method() == "spawn"
