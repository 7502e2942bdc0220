"""The trace of control marks: what is recorded, what is refused, what is rendered."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from bartizan.catalogue.load import catalogue
from bartizan.core.errors import InputError
from bartizan.testing.trace import main
from bartizan.testing.traced import NO_TEST, Results, faults, read_results, table

PLUGIN = ("-p", "bartizan.testing.trace", "-p", "no:cacheprovider")

MARKED = """
    import pytest

    pytestmark = pytest.mark.control("2.3-f")

    @pytest.mark.control("1.1-j", "2.1-n")
    def test_passes():
        pass

    @pytest.mark.control("1.1-j")
    def test_fails():
        assert False

    @pytest.mark.control("2.2-G1")
    @pytest.mark.skip(reason="needs another machine")
    def test_skipped():
        pass

    @pytest.mark.control("2.2-G2")
    @pytest.mark.xfail(strict=True)
    def test_known_gap():
        assert False

    class TestMore:
        @pytest.mark.control("2.4-f")
        @pytest.mark.parametrize("case", [1, 2, 3])
        def test_cases(self, case):
            assert case

    @pytest.fixture
    def falls_over():
        yield
        raise RuntimeError

    @pytest.mark.control("2.3-w")
    def test_fails_afterwards(falls_over):
        pass
"""
OUTCOMES = {
    "1.1-j": {"test_it.py::test_fails": "failed", "test_it.py::test_passes": "passed"},
    "2.1-n": {"test_it.py::test_passes": "passed"},
    "2.2-G1": {"test_it.py::test_skipped": "skipped"},
    "2.2-G2": {"test_it.py::test_known_gap": "expected-failure"},
    "2.3-w": {"test_it.py::test_fails_afterwards": "failed"},
    "2.4-f": {f"test_it.py::TestMore::test_cases[{case}]": "passed" for case in (1, 2, 3)},
}


def traced(pytester: pytest.Pytester, *options: str) -> dict:
    pytester.makepyfile(test_it=MARKED)
    pytester.runpytest_inprocess(*PLUGIN, *options, "--trace-out", "deep/trace.json")
    return json.loads((pytester.path / "deep/trace.json").read_bytes())


def test_outcomes_are_recorded_by_control(pytester):
    results = traced(pytester, "-p", "no:xdist")
    everything = results["controls"].pop("2.3-f")
    assert results["controls"] == OUTCOMES
    assert len(everything) == 8
    assert results["complete"]


def test_several_processes_record_the_same(pytester):
    results = traced(pytester, "-n", "2")
    results["controls"].pop("2.3-f")
    assert results["controls"] == OUTCOMES


def test_a_worker_that_dies_is_not_forgotten(pytester):
    pytester.makepyfile(test_it='import os, pytest\n@pytest.mark.control("2.1-n")\ndef test_dies():\n    os._exit(9)\n')
    pytester.runpytest_inprocess(*PLUGIN, "-n", "1", "--max-worker-restart", "0", "--trace-out", "trace.json")
    results = read_results((pytester.path / "trace.json").read_bytes())
    assert results.crashed == ("test_it.py::test_dies",)
    assert "a worker died in test_it.py::test_dies" in faults(results, catalogue())


@pytest.mark.parametrize(
    ("mark", "complaint"),
    [
        ('control("2.1-zz")', "*the catalogue has no control '2.1-zz'; did you mean '2.*"),
        ("control()", "*takes one or more ids*"),
        ('control("2.1-n", why="x")', "*takes one or more ids*"),
        ("control(21)", "*the catalogue has no control 21*"),
    ],
)
def test_a_wrong_mark_fails_the_collection(pytester, mark, complaint):
    check_refused(pytester, mark, complaint, "-p", "no:xdist")


def test_a_wrong_mark_fails_the_collection_in_a_worker(pytester):
    check_refused(pytester, 'control("2.1-zz")', "*has no control '2.1-zz'*", "-n", "1")


def check_refused(pytester, mark: str, complaint: str, *options: str) -> None:
    pytester.makepyfile(test_it=f"import pytest\n@pytest.mark.{mark}\ndef test_it():\n    pass\n")
    result = pytester.runpytest_inprocess(*PLUGIN, *options, "--trace-out", "trace.json")
    result.stdout.fnmatch_lines([complaint])
    assert result.ret != pytest.ExitCode.OK
    assert result.parseoutcomes().get("passed", 0) == 0
    assert not read_results((pytester.path / "trace.json").read_bytes()).complete


def test_a_run_that_was_stopped_is_not_complete(pytester):
    assert not traced(pytester, "-p", "no:xdist", "-x")["complete"]


def test_without_the_option_nothing_is_written(pytester):
    pytester.makepyfile(test_it=MARKED)
    pytester.runpytest_inprocess(*PLUGIN, "-p", "no:xdist")
    assert [path.name for path in pytester.path.iterdir() if path.suffix == ".json"] == []


# -- the table


SOME = Results(
    complete=True,
    controls={
        "2.4-f": {f"t.py::test_c[{case}|x]": "passed" for case in range(3)},
        "1.1-j": {"t.py::test_a": "passed", "t.py::test_b": "skipped"},
    },
)


def test_every_item_of_the_catalogue_has_one_line_with_its_text():
    lines = table(SOME, catalogue()).splitlines()
    rows = [line for line in lines if line.startswith("| ") and not line.startswith(("| item", "| ---"))]
    assert [row.split(" | ")[0][2:] for row in rows] == list(catalogue().controls)
    assert len(rows) == 324
    assert sum(NO_TEST in row for row in rows) == 322
    by_id = dict(zip(catalogue().controls, rows, strict=True))
    assert "`t.py::test_c` (3 cases) |" in by_id["2.4-f"]
    assert "`t.py::test_a`; `t.py::test_b` (1 skipped) |" in by_id["1.1-j"]
    assert "2 of 324 catalogue items" in table(SOME, catalogue())


def test_the_table_does_not_depend_on_the_order_of_the_results():
    turned = Results(complete=True, controls=dict(reversed(SOME.controls.items())))
    assert table(turned, catalogue()) == table(SOME, catalogue())


def test_a_failed_or_skipped_test_shows_nothing():
    failed = Results(complete=True, controls={"1.1-j": {"t.py::test_a": "passed", "t.py::test_b": "failed"}})
    skipped = Results(complete=True, controls={"1.1-j": {"t.py::test_a": "skipped"}})
    for nothing in (failed, skipped):
        assert "0 of 324 catalogue items" in table(nothing, catalogue())
    assert faults(failed, catalogue()) == ["t.py::test_b failed, which is to show 1.1-j"]
    assert faults(skipped, catalogue()) == []


# -- the command


def run(tmp_path, results: Results | bytes, *options: str) -> int:
    path = tmp_path / "trace.json"
    path.write_bytes(results if isinstance(results, bytes) else json.dumps(_plain(results)).encode())
    return main([str(path), *options])


def _plain(results: Results) -> dict:
    return {name: getattr(results, name) for name in ("format", "complete", "controls", "crashed")}


def test_the_command_writes_the_table(tmp_path):
    assert run(tmp_path, SOME, "--out", str(tmp_path / "docs/trace.md")) == 0
    assert (tmp_path / "docs/trace.md").read_text() == table(SOME, catalogue())


@pytest.mark.parametrize(
    ("results", "complaint"),
    [
        (Results(complete=True, controls={"1.1-j": {"t.py::test_a": "failed"}}), "t.py::test_a failed"),
        (
            Results(complete=True, controls={"9.9-z": {"t.py::test_a": "passed"}}),
            "'9.9-z', which the catalogue has not",
        ),
        (Results(complete=False, controls={}), "did not come to its end"),
        (Results(complete=True, controls={}, crashed=("t.py::test_a",)), "a worker died in t.py::test_a"),
    ],
)
def test_the_command_ends_with_one_when_the_results_prove_less_than_they_claim(tmp_path, capsys, results, complaint):
    assert run(tmp_path, results) == 1
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"\xff", b'{"complete": 1}', b'{"format":"x","complete":true,"controls":{}}']
)
def test_what_is_no_result_is_refused_with_a_remedy(tmp_path, capsys, data):
    assert run(tmp_path, data) == 2
    assert "Next:" in capsys.readouterr().err
    with pytest.raises(InputError):
        read_results(data)


def test_a_file_that_is_not_there_is_refused(tmp_path, capsys):
    assert main([str(tmp_path / "none.json")]) == 2
    assert "none.json" in capsys.readouterr().err


def test_the_module_runs_as_a_program(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "bartizan.testing.trace", "--help"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0
    assert "--out" in done.stdout
