"""What breaks around a gateway: it refuses rather than answer unprotected, and comes back by itself."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import threading
import time
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url

from fixtures.gateways import OPEN, configured, serving
from fixtures.project import bartizan
from fixtures.valkeys import Server
from soak.tools import descendants, said, status, until

FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
BUDGET = (
    OPEN
    + """budgets = ["all"]

[budget.all]
limit = 1000000
window = "1d"
per = "everyone"
"""
)
REFUSED = {429, 503}


def answered(given):
    return given == 200


def refused(given):
    return given in REFUSED


@pytest.fixture(scope="module")
def open_project(digits_project, tmp_path_factory):
    return configured(digits_project, tmp_path_factory.mktemp("breakage") / "project")


def test_shared_state_goes_and_comes_back(digits_project, tmp_path):
    folder = configured(digits_project, tmp_path / "project", BUDGET)
    state = Server(tmp_path, "--appendonly", "yes", "--appendfsync", "always").start()
    try:
        with serving(folder, env={"BARTIZAN_STATE": state.url}) as client:
            until(lambda: status(client), answered)
            state.kill()
            seen = until(lambda: status(client), refused, 30)
            assert set(seen) <= {200, *REFUSED}
            assert {status(client) for _ in range(20)} <= REFUSED
            state.start()
            seen = until(lambda: status(client), answered, 30)
            assert set(seen) <= {200, *REFUSED}
            assert "Traceback" not in said(client)
    finally:
        state.kill()


def test_slow_database_delays_answers_and_loses_none(digits_project, tmp_path, postgres_url):
    folder = configured(digits_project, tmp_path / "project")
    given = []
    environment = {"BARTIZAN_AUDIT": postgres_url}
    with serving(folder, env=environment) as client:
        until(lambda: status(client), answered)
        with psycopg.connect(
            make_url(postgres_url).set(drivername="postgresql").render_as_string(hide_password=False)
        ) as held:
            names = [name for (name,) in held.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
            held.execute(f"LOCK TABLE {', '.join(names)} IN ACCESS EXCLUSIVE MODE")
            locked = time.monotonic()
            threads = [
                threading.Thread(target=lambda: given.append((status(client), time.monotonic()))) for _ in range(8)
            ]
            for thread in threads:
                thread.start()
            time.sleep(4)
            released = time.monotonic()
            held.rollback()
        for thread in threads:
            thread.join()
        assert not [at - locked for state, at in given if state == 200 and at < released]
        assert {state for state, _ in given} <= {200, *REFUSED}
        until(lambda: status(client), answered)
        assert "Traceback" not in said(client)
    done = bartizan(folder, "audit", "verify", **environment)
    assert done.returncode == 0, done.stdout + done.stderr


def test_full_disk_refuses_and_goes_on_when_there_is_room(open_project):
    """A limit on the size of files fails like a disk that is full: the write does not happen."""
    with serving(open_project) as client:
        until(lambda: status(client), answered)
        _, most = resource.prlimit(client.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(client.process.pid, resource.RLIMIT_FSIZE, (4096, most))
        seen = until(lambda: status(client), refused, 30)
        assert set(seen) <= {200, *REFUSED}
        assert {status(client) for _ in range(20)} <= REFUSED
        resource.prlimit(client.process.pid, resource.RLIMIT_FSIZE, (most, most))
        until(lambda: status(client), answered)
    done = bartizan(open_project, "audit", "verify")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(FAKETIME is None, reason="needs libfaketime")
@pytest.mark.parametrize("jump", ["+2h", "-2h", "+2d", "-30d"])
def test_clock_jumps_and_comes_back(open_project, tmp_path, jump):
    """A copy each: what is recorded in the future stays in the ledger, and keeps it shut until then."""
    folder = shutil.copytree(open_project, tmp_path / "project", symlinks=True)
    clock = tmp_path / "clock"
    clock.write_text("+0")
    environment = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    with serving(folder, env=environment) as client:
        until(lambda: status(client), answered)
        clock.write_text(jump)
        seen = [status(client) for _ in range(30) if not time.sleep(0.2)]
        assert set(seen) <= {200, *REFUSED}
        clock.write_text("+0")
        seen = until(lambda: status(client), answered)
        assert set(seen) <= {200, *REFUSED}
        assert "Traceback" not in said(client)


def test_model_that_dies_is_opened_again(digits_project, tmp_path):
    confined = OPEN + '\n[model.digits]\nhosting = "process"\n'
    folder = configured(digits_project, tmp_path / "project", confined)
    with serving(folder, recheck="2s") as client:
        until(lambda: status(client), answered)
        for _ in range(3):
            hosts = descendants(client.process.pid)
            assert hosts
            for pid in hosts:
                os.kill(pid, signal.SIGKILL)
            seen = until(lambda: status(client), refused, 20)
            seen += until(lambda: status(client), answered)
            assert set(seen) <= {200, *REFUSED}
        assert "Traceback" not in said(client)


def test_ending_under_load_answers_what_was_begun(open_project):
    """SIGTERM: every request that was taken is answered; later ones meet a closed door, never half an answer."""
    seen, stop = [], threading.Event()

    def ask(client):
        while not stop.is_set():
            seen.append(status(client))

    with serving(open_project) as client:
        until(lambda: status(client), answered)
        threads = [threading.Thread(target=ask, args=(client,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(1)
        client.process.send_signal(signal.SIGTERM)
        assert client.process.wait(30) == 0
        stop.set()
        for thread in threads:
            thread.join()
    assert seen.count(200) > 10
    assert set(seen) <= {200, 0, 503}
    done = bartizan(open_project, "audit", "verify")
    assert done.returncode == 0, done.stdout + done.stderr
