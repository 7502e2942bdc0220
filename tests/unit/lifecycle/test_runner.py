"""The incremental runner: what runs, why, in which order, and what a failure leaves behind."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from bartizan.cli.progress import Watch
from bartizan.core.digest import digest_bytes
from bartizan.core.errors import InputError, WorkError
from bartizan.core.evidence import Standing
from bartizan.core.system import Artefact, Gate, Rule
from bartizan.lifecycle.plan import plan
from bartizan.lifecycle.runner import Done, Failure, Skipped, _startable
from bartizan.wiring import assure as assuring
from bartizan.wiring import registry, setup
from bartizan.wiring.results import read_report
from bartizan.wiring.workspace import Workspace
from fixtures import little_checks as little
from fixtures.systems import make_system

GATES = {"release": Gate(rule=(Rule(id="words", about="dataset", type="assessment", check="words", max_age="30d"),))}


class Bench:
    """A workspace with two small datasets and the checks that a test picks."""

    def __init__(self, folder: Path, monkeypatch) -> None:
        self.folder = folder
        self.monkeypatch = monkeypatch
        self.space = Workspace(folder, environment={"BARTIZAN_WORKERS": "1"})
        for name in (setup.ROOT, setup.SERVICE, "risk-owner"):
            setup.make_key(self.space, name, passphrase=None, unencrypted=True)
        setup.begin(self.space, {"risk-owner": ("risk-owner",)})
        for name in ("train", "holdout"):
            (folder / name).write_text(f"some words of {name}")
        monkeypatch.setattr(Workspace, "system", lambda _: self.system())

    def system(self):
        paths = [self.folder / name for name in ("train", "holdout")]
        artefacts = tuple(
            Artefact(kind="dataset", name=path.name, digest=self.space.files.digest(path), path=str(path))
            for path in paths
        )
        base = make_system()
        declaration = msgspec.structs.replace(base.declaration, gate=GATES)
        return msgspec.structs.replace(base, declaration=declaration, artefacts=artefacts)

    def use(self, *checks) -> None:
        found = {check.name: check() for check in checks}
        self.monkeypatch.setattr(
            registry, "checks", lambda only=(): registry._wanted(found, only) if only else list(found.values())
        )

    def assure(self, **more):
        return assuring.assure(self.space, Watch(quiet=True), **more)


@pytest.fixture
def bench(tmp_path, monkeypatch):
    made = Bench(tmp_path, monkeypatch)
    yield made
    made.space.close()


def ran(done) -> list[str]:
    return sorted(done.endings)


def test_everything_runs_once_and_then_nothing(bench):
    bench.use(little.Words, little.After)
    first = bench.assure()
    assert ran(first) == [
        "after dataset:holdout",
        "after dataset:train",
        "words dataset:holdout",
        "words dataset:train",
    ]
    assert all(isinstance(ending, Done) for ending in first.endings.values())
    assert first.result.passed
    second = bench.assure()
    assert second.endings == {}
    assert second.verdict == first.verdict


def test_touching_one_byte_reruns_what_rests_on_it_and_nothing_else(bench):
    bench.use(little.Words, little.After)
    bench.assure()
    (bench.folder / "train").write_text("some words of Train")
    due = assuring.situation(bench.space, bench.system()).due()
    assert [(job.key, why.split(" from ")[0]) for job, why in due] == [
        ("words dataset:train", "dataset:train changed"),
        ("after dataset:train", "dataset:train changed"),
    ]
    assert ran(bench.assure()) == ["after dataset:train", "words dataset:train"]


def test_a_new_version_of_a_check_reruns_it(bench, monkeypatch):
    bench.use(little.Words)
    bench.assure()
    monkeypatch.setattr(little.Words, "version", "2")
    assert len(bench.assure().endings) == 2


def test_results_that_grow_too_old_for_their_rule_are_done_again(bench):
    bench.use(little.Words)
    bench.assure()
    clock = bench.space.clock
    bench.space.clock = lambda: clock() + timedelta(days=31)
    due = assuring.situation(bench.space, bench.system()).due()
    assert {why for _, why in due} == {"older than 30d"}
    assert bench.assure().result.passed


def test_fresh_runs_everything_again(bench):
    bench.use(little.Words)
    bench.assure()
    assert len(bench.assure(fresh=True).endings) == 2


def test_only_runs_the_check_and_what_it_waits_for(bench):
    bench.use(little.Words, little.After, little.Refusing)
    assert ran(bench.assure(only=("after",)))[0].startswith("after")
    assert not any(key.startswith("refusing") for key in bench.assure(only=("after",)).endings)
    with pytest.raises(InputError, match="no check is called"):
        bench.assure(only=("nonsense",))


def test_a_failure_stops_what_waits_for_it_and_nothing_else(bench):
    bench.use(little.Words, little.Failing, little.AfterFailing, little.Broken)
    done = bench.assure()
    kinds = {key.split()[0]: type(ending) for key, ending in done.endings.items()}
    assert kinds == {"words": Done, "failing": Failure, "after-failing": Skipped, "broken": Failure}
    failing = done.endings["failing dataset:train"]
    assert (failing.message, failing.remedy) == ("cannot look at dataset:train", "look elsewhere.")
    assert "ZeroDivisionError" in done.endings["broken dataset:train"].message
    assert done.failed


def test_what_waits_for_a_refusal_does_not_run_even_when_the_refusal_is_old(bench):
    bench.use(little.Refusing, little.AfterRefusing)
    for _ in range(2):
        done = bench.assure()
        assert isinstance(done.endings["after-refusing dataset:train"], Skipped)


def test_a_worker_that_dies_is_a_failure_with_a_remedy(bench):
    bench.use(little.Dying)
    done = bench.assure()
    assert all("worker process died" in ending.message for ending in done.endings.values())


def test_what_changes_while_it_is_examined_is_not_recorded(bench):
    bench.use(little.Meddling)
    done = bench.assure()
    assert all("while it was examined" in ending.message for ending in done.endings.values())
    assert not done.situation.evidence


def test_checks_that_wait_for_one_another_are_refused(bench):
    bench.use(little.CircleOne, little.CircleTwo)
    with pytest.raises(WorkError, match="circle-one, circle-two"):
        plan(bench.system(), registry.checks())


def test_a_check_waits_for_everything_that_it_rests_on_not_only_for_its_subject(bench):
    """Such as a model that is attacked from its parent, which has to be scanned as well before it is loaded."""

    class Both(little.After):
        name = "both"

        def inputs(self, system, subject):
            return {**super().inputs(system, subject), **{each.id: each.digest for each in system.of_kind("dataset")}}

    jobs = plan(bench.system(), [little.Words(), little.After(), Both()])
    by_key = {job.key: job for job in jobs}
    first, other = by_key["words dataset:train"], by_key["words dataset:holdout"]
    waiting = [job for job in jobs if job not in (first, other)]
    startable = {job.key for job in _startable(waiting, [other])}
    assert startable == {"after dataset:train"}
    assert {job.key for job in _startable(waiting, [])} == {job.key for job in waiting}


def test_findings_and_reports_are_kept_behind_the_statement(bench):
    bench.use(little.Words)
    done = bench.assure()
    item = next(item for item in done.situation.evidence if item.check == "words")
    stored = read_report(bench.space.blobs.get(item.report))
    assert [finding.rule for finding in stored.findings] == ["words/few"]
    assert stored.inner() == b'{"text":"4 words"}'


def test_a_result_whose_report_is_deleted_no_longer_counts(bench):
    bench.use(little.Words)
    done = bench.assure()
    for path in (bench.folder / ".bartizan/blobs/objects").glob("*/*"):
        path.unlink()
    now = assuring.situation(bench.space, bench.system())
    assert {item.standing for item in now.evidence if item.check} == {Standing.INVALID}
    assert not assuring.judge(now, "release", GATES["release"]).passed
    assert len(now.due()) == 2
    assert done.result.passed


def test_a_missing_gate_is_named(bench):
    bench.use(little.Words)
    with pytest.raises(InputError, match="no gate is called 'deploy'") as caught:
        bench.assure(gate="deploy")
    assert "release" in caught.value.remedy


def test_the_verdict_lists_every_artefact_and_envelope(bench):
    bench.use(little.Words)
    done = bench.assure()
    verdict = next(
        item for item in assuring.situation(bench.space, bench.system()).evidence if item.digest == done.verdict
    )
    said = verdict.statement.read()
    assert said.verification_result == "PASSED"
    assert {subject.name for subject in verdict.statement.subject} == {"dataset:train", "dataset:holdout"}
    assert len(said.input_attestations) == 2
    assert digest_bytes(b"") not in verdict.statement.about()
