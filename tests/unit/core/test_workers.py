"""Worker processes: what they have when they begin, and what they do not share."""

import os
import random
from multiprocessing import forkserver

import numpy as np

from bartizan.core import workers
from bartizan.core.workers import THREADS, worker_pool

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


def test_frameworks_are_not_loaded_for_others():
    loaded = workers._loaded()
    assert "bartizan.core.workers" in loaded
    assert "numpy" in loaded
    assert not [name for name in loaded if name.startswith(("bartizan.adapters", "torch", "onnxruntime"))]


def test_where_nothing_can_be_forked_from_processes_begin_anew(monkeypatch):
    def refuse():
        raise OSError("no socket")

    monkeypatch.setattr(forkserver, "ensure_running", refuse)
    assert workers.worker_context().get_start_method() == "spawn"
    monkeypatch.setattr(workers, "FORKED", False)
    assert workers.worker_context().get_start_method() == "spawn"
