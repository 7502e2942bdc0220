"""Campaigns in one process, in several and on a cluster: the same bytes, whatever dies on the way."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bartizan.adapters.callable_target import CallableTarget
from bartizan.core.errors import InputError, WorkError
from bartizan.redteam import campaign as campaigns
from bartizan.redteam.attacks.evasion.autoattack import AutoAttack
from bartizan.redteam.attacks.evasion.hopskipjump import HopSkipJump
from bartizan.redteam.attacks.evasion.pgd import PGD
from bartizan.redteam.attacks.evasion.square import Square
from bartizan.redteam.attacks.evasion.transfer import Transfer
from bartizan.redteam.campaign import Campaign, Found, Processes, WorkLedger, conduct
from bartizan.redteam.planning import Threshold
from bartizan.targets.dependent import read_dependents
from bartizan.targets.feasible import Codes, OneHot
from fixtures.campaigns import CountedOpener, campaign, model, open_mortal, open_victim

TESTS = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Workers find the fixtures by name."""
    monkeypatch.setenv("PYTHONPATH", str(TESTS))


@pytest.fixture(scope="module")
def alone():
    return conduct(campaign())


def same(one, two):
    assert one.rows.tobytes() == two.rows.tobytes()
    assert one.change.tobytes() == two.change.tobytes()
    assert (one.queries, one.gradients, list(one.by_attack)) == (two.queries, two.gradients, list(two.by_attack))


def test_a_campaign_keeps_the_best_of_all_attacks_for_each_sample(alone):
    robust = np.stack(list(alone.by_attack.values()))
    assert alone.robust.tolist() == (robust.all(axis=0) & alone.right).tolist()
    assert sorted(alone.by_attack) == ["evasion.hopskipjump#0", "evasion.square#0"]
    fooled = np.isfinite(alone.change)
    assert (model().predict(alone.rows[fooled]) != alone.task.labels[fooled]).all()
    assert 0 < alone.robust.sum() < len(alone.robust)
    assert alone.queries <= 2 * 40 * 60


def test_several_processes_give_the_same_bytes(alone):
    same(conduct(campaign(), executor=Processes(2)), alone)


def test_a_worker_that_is_killed_costs_nothing_but_time(alone, tmp_path, monkeypatch):
    monkeypatch.setenv("MORTAL_MARK", str(tmp_path / "mark"))
    ledger = WorkLedger(tmp_path / "ledger")
    found = conduct(campaign(open_mortal), executor=Processes(2), ledger=ledger)
    assert (tmp_path / "mark").exists()
    same(found, alone)
    assert not list(ledger.journals.iterdir())


def test_a_campaign_that_is_killed_goes_on_where_it_was_and_ends_as_if_nothing_had_happened(alone, tmp_path):
    log = tmp_path / "calls"
    script = (
        "from pathlib import Path; from fixtures.campaigns import campaign;"
        "from bartizan.redteam.campaign import WorkLedger, conduct;"
        f"conduct(campaign(), ledger=WorkLedger(Path({str(tmp_path / 'l')!r})))"
    )
    environment = {**os.environ, "VICTIM_LOG": str(log), "VICTIM_PAUSE": "0.05"}
    process = subprocess.Popen([sys.executable, "-c", script], env=environment)
    began = time.monotonic()
    while not (log.exists() and len(log.read_text().splitlines()) > 25):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() - began < 60
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = len(log.read_text().splitlines())
    ledger = WorkLedger(tmp_path / "l")
    os.environ["VICTIM_LOG"] = str(log)
    try:
        found = conduct(campaign(), ledger=ledger)
    finally:
        del os.environ["VICTIM_LOG"]
    same(found, alone)
    whole = tmp_path / "whole"
    os.environ["VICTIM_LOG"] = str(whole)
    try:
        conduct(campaign())
    finally:
        del os.environ["VICTIM_LOG"]
    # at most the one call that was on its way when the kill came was asked twice
    assert len(whole.read_text().splitlines()) <= len(log.read_text().splitlines())
    assert len(log.read_text().splitlines()) <= len(whole.read_text().splitlines()) + 1
    assert before > 25


def test_a_finished_campaign_is_read_and_not_run_again(tmp_path):
    ledger = WorkLedger(tmp_path)
    first = conduct(campaign(), ledger=ledger)
    log = tmp_path / "calls"
    os.environ["VICTIM_LOG"] = str(log)
    try:
        same(conduct(campaign(), ledger=ledger), first)
    finally:
        del os.environ["VICTIM_LOG"]
    assert not log.exists()


def test_a_shard_that_was_cut_off_or_altered_is_run_again(alone, tmp_path):
    ledger = WorkLedger(tmp_path)
    conduct(campaign(), ledger=ledger)
    one, two, *_ = sorted(tmp_path.glob("*.shard"))
    one.write_bytes(one.read_bytes()[:-7])
    data = bytearray(two.read_bytes())
    data[-1] ^= 1
    two.write_bytes(bytes(data))
    same(conduct(campaign(), ledger=ledger), alone)


def test_results_of_another_model_budget_or_block_are_never_taken_for_these():
    keys = {
        campaign().key,
        campaign(budget=61).key,
        campaign(max_change=0.5).key,
        campaign(block=11).key,
        campaign(seeds=(1,)).key,
        campaign(attacks=(Square(),)).key,
    }
    assert len(keys) == 6
    other = campaign()
    assert Campaign(other.opener, "another", other.task, other.attacks, other.seeds, other.block).key not in keys


def on(**more):
    """The campaign with other things in its space."""
    whole = campaign()
    return replace(whole, task=replace(whole.task, space=replace(whole.task.space, **more)))


OTHER_SPACES = {
    "columns": {"columns": tuple(f"other{place}" for place in range(30))},
    "codes": {"codes": (Codes(0, np.array([1.0, 2.0])),)},
    "other codes": {"codes": (Codes(0, np.array([1.0, 3.0])),)},
    "one_hot": {"one_hot": (OneHot(np.array([1, 2]), may_be_empty=False),)},
    "one_hot that may be empty": {"one_hot": (OneHot(np.array([1, 2]), may_be_empty=True),)},
    "channels": {"channels": 3},
    "dependent": {"dependent": read_dependents({"f1": "f2 + f3"}, [f"f{place}" for place in range(30)])},
    "another formula": {"dependent": read_dependents({"f1": "f2 - f3"}, [f"f{place}" for place in range(30)])},
    "integer": {"integer": np.ones(30, dtype=bool)},
}


def test_results_on_another_space_are_never_taken_for_these():
    keys = [on(**more).key for more in OTHER_SPACES.values()]
    assert len({campaign().key, *keys}) == 1 + len(OTHER_SPACES)
    assert on().key == campaign().key


class Parent:
    """A model that says itself what it is."""

    def __init__(self, digest):
        self.settings_digest = digest


def test_the_key_is_the_same_in_another_process_whatever_the_attacks_hold():
    imports = "from fixtures.campaigns import *; from bartizan.redteam.attacks.evasion.autoattack import AutoAttack;"
    script = f"{imports} print(campaign(attacks=(AutoAttack((Square(), HopSkipJump(norm=2.0))),)).key)"
    key = campaign(attacks=(AutoAttack((Square(), HopSkipJump(norm=2.0))),)).key
    assert key != campaign(attacks=(AutoAttack((Square(), HopSkipJump(norm=1.0))),)).key
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        assert subprocess.check_output([sys.executable, "-c", script], env=environment, text=True).strip() == key


def test_an_attack_that_holds_a_model_says_what_it_is_or_is_refused():
    one, same_one, other = (campaign(attacks=(Transfer((Parent(digest),)),)) for digest in ("aa", "aa", "bb"))
    assert one.key == same_one.key != other.key
    unknown = campaign(attacks=(Transfer((CallableTarget(lambda rows: rows[:, 0], features=30, classes=2),)),))
    with pytest.raises(InputError, match=r"evasion\.transfer\.models\[0\]") as error:
        conduct(unknown)
    assert "settings_digest" in error.value.remedy


def test_a_campaign_is_packed_once_however_many_shards_and_processes_there_are(alone):
    opener = CountedOpener()
    same(conduct(campaign(opener), executor=Processes(2)), alone)
    assert opener.packed == 1


def test_what_cannot_be_sent_to_a_process_is_said():
    with pytest.raises(InputError, match="cannot be sent to another process"):
        conduct(campaign(lambda: open_victim()), executor=Processes(1))  # noqa: PLW0108 - it has no name


def test_the_key_is_made_once(alone, monkeypatch):
    made = Counter()
    digest = campaigns.settings_digest_of

    def counted(what, name):
        made[name] += 1
        return digest(what, name)

    monkeypatch.setattr(campaigns, "settings_digest_of", counted)
    same(conduct(campaign()), alone)
    assert set(made.values()) == {1}


class Unmoved:
    """An executor that finds nothing anywhere, at once, and in an odd order."""

    def run(self, function, items):
        task = function.campaign.task
        for item in sorted(items, key=lambda shard: shard.start % 7):
            rows, labels = task.rows[item.start : item.stop], task.labels[item.start : item.stop]
            spent = np.ones(len(rows), dtype=np.int64)
            yield item, Found(rows, labels, labels, spent, 0 * spent)


@pytest.mark.parametrize("until", [None, Threshold(0.9999)])
def test_the_work_for_a_shard_does_not_grow_with_the_number_of_shards(monkeypatch, until):
    counted = Counter()
    shard, book = campaigns.Shard, campaigns._Book

    def made(*fields):
        counted["shards"] += 1
        return shard(*fields)

    class Book(book):
        def _result(self, blocks):
            counted["blocks"] += len(blocks)
            return super()._result(blocks)

    monkeypatch.setattr(campaigns, "Shard", functools.wraps(shard)(made))
    monkeypatch.setattr(campaigns, "_Book", Book)
    small = campaign(attacks=(Square(),), block=2)
    rows, labels = np.tile(small.task.rows, (50, 1)), np.tile(small.task.labels, 50)
    large = replace(small, task=replace(small.task, rows=rows, labels=labels))
    found = conduct(large, executor=Unmoved(), until=until)
    assert (len(found.robust), found.queries) == (2000, 2000)
    assert counted["shards"] <= 5 * 1000
    assert counted["blocks"] <= 2 * 1000


def test_it_stops_when_a_gate_is_decided_and_says_so_with_an_interval_that_allows_for_it(tmp_path):
    counted = []
    easy = campaign(max_change=0.001, attacks=(Square(),))
    found = conduct(easy, until=Threshold(at_least=0.3), told=lambda done, _all: counted.append(done))
    assert found.decided == "met"
    assert max(counted) < len(easy.shards())
    assert len(found.right) == max(counted) * 10
    assert found.robust_accuracy.method == "anytime valid (mixture)"
    assert found.robust_accuracy.interval.low >= 0.3
    lost = conduct(campaign(max_change=2.0, attacks=(Square(),)), until=Threshold(at_least=0.8))
    assert lost.decided == "missed"
    open_still = conduct(campaign(), until=Threshold(at_least=0.55), ledger=WorkLedger(tmp_path))
    assert open_still.decided in {"", "met", "missed"}
    same(conduct(campaign(), until=Threshold(at_least=0.55), executor=Processes(2)), open_still)


def test_an_attack_that_lacks_access_ends_the_campaign_with_the_reason():
    with pytest.raises(WorkError, match="needs gradients"):
        conduct(campaign(attacks=(PGD(),)))


@pytest.mark.parametrize("more", [{"attacks": ()}, {"seeds": ()}, {"block": 0}, {"seeds": (1, 1)}])
def test_a_campaign_that_could_not_be_run_is_refused(more):
    with pytest.raises(InputError):
        campaign(**more)
    with pytest.raises(InputError):
        Processes(0)


def test_a_cluster_with_a_real_scheduler_and_two_workers_gives_the_same_bytes_though_one_is_killed(
    alone, tmp_path, monkeypatch
):
    distributed = pytest.importorskip("distributed")
    from bartizan.adapters.dask_executor import DaskExecutor  # noqa: PLC0415 - the extra may be missing

    monkeypatch.setenv("MORTAL_MARK", str(tmp_path / "mark"))
    with cluster() as address, distributed.Client(address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
        ledger = WorkLedger(tmp_path / "ledger")
        found = conduct(campaign(open_mortal), executor=DaskExecutor(client), ledger=ledger)
        assert (tmp_path / "mark").exists()
        same(found, alone)
        with pytest.raises(WorkError, match="needs gradients"):
            conduct(campaign(attacks=(PGD(),)), executor=DaskExecutor(client))


class cluster:  # noqa: N801 - used like a function
    """A scheduler and two workers with their nannies, each a process of its own, on loopback."""

    def __enter__(self):
        program = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        place = Path(os.environ.get("TMPDIR", "/tmp")) / f"scheduler-{os.getpid()}.json"
        place.unlink(missing_ok=True)
        options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(place)]
        self.processes = [subprocess.Popen([*program, *options], **quiet)]
        worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(place)]
        worker += ["--host", "127.0.0.1", "--nthreads", "1", "--no-dashboard", "--local-directory", str(place.parent)]
        began = time.monotonic()
        while not place.exists():
            assert time.monotonic() - began < 60
            time.sleep(0.05)
        self.processes += [subprocess.Popen(worker, **quiet) for _ in range(2)]
        self.place = place
        import json  # noqa: PLC0415 - only here

        return json.loads(place.read_text())["address"]

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.place.unlink(missing_ok=True)


def test_a_target_that_answers_nonsense_ends_the_campaign_clearly():
    with pytest.raises(WorkError, match="not finite"):
        CallableTarget(lambda rows: np.full((len(rows), 2), np.nan), features=2, classes=2, answers="scores").labels(
            np.zeros((1, 2))
        )
