"""A pytest plug-in that traces ``@pytest.mark.control("2.1-n")``, and the command that writes the table.

The mark says: this test shows that item of the catalogue. A mark that names no item fails the
collection, so that a slip of the pen cannot hide as evidence. ``pytest --trace-out FILE`` writes
the outcomes, also under pytest-xdist; ``python -m bartizan.testing.trace FILE --out trace.md``
renders them beside everything the catalogue asks for, and ends with 1 when a marked test failed,
an id is unknown or the run is not complete.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from bartizan.catalogue.load import catalogue
from bartizan.core.errors import InputError
from bartizan.testing.traced import Results, TestOutcome, faults, read_results, table, worse

PROPERTY = "control"
"""Name under which the marks travel in the reports (and into JUnit XML)."""
FINISHED = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds ``--trace-out``."""
    group = parser.getgroup("bartizan")
    group.addoption("--trace-out", metavar="FILE", help="write the outcome of every test that carries a control mark")


def pytest_configure(config: pytest.Config) -> None:
    """Explains the mark; listens where the reports of all workers come together."""
    config.addinivalue_line("markers", "control(id, ...): acceptance test of these items of the catalogue")
    out = config.getoption("--trace-out")
    if out and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder(Path(out)), "bartizan-trace-recorder")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Passes the marks of collected tests on to their reports; fails the collection on a wrong one."""
    report = yield
    if report.passed:
        wrong = [fault for node in report.result if isinstance(node, pytest.Item) for fault in _noted(node)]
        if wrong:
            report.outcome = "failed"
            report.longrepr = "\n".join(wrong)
            report.result = []
    return report


def _noted(item: pytest.Item) -> Iterator[str]:
    """What is wrong with the marks of one test, after the right ones were noted."""
    for mark in item.iter_markers("control"):
        if not mark.args or mark.kwargs:
            yield f"{item.nodeid}: the control mark takes one or more ids, such as control('2.1-n')"
        for control in mark.args:
            if control in catalogue().controls:
                item.user_properties.append((PROPERTY, control))
            else:
                yield f"{item.nodeid}: the catalogue has no control {control!r}{_nearest(control)}"


def _nearest(control: object) -> str:
    near = difflib.get_close_matches(str(control), catalogue().controls, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


class Recorder:
    """Collects outcomes from reports and writes them when the session ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._outcomes: dict[str, TestOutcome] = {}
        self._controls: dict[str, set[str]] = {}
        self._crashed: set[str] = set()
        self._collected = True

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file whose tests are not known makes the run incomplete."""
        self._collected &= not report.failed

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One phase of one test, from this process or a worker."""
        if report.when not in {"setup", "call", "teardown"}:
            self._crashed.add(report.nodeid)
            return
        for name, control in report.user_properties:
            if name == PROPERTY:
                self._controls.setdefault(str(control), set()).add(report.nodeid)
        self._outcomes[report.nodeid] = worse(self._outcomes.get(report.nodeid, "passed"), _outcome(report))

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Writes the file; a run that was stopped says so."""
        results = Results(
            complete=self._collected and exitstatus in FINISHED and not (session.shouldfail or session.shouldstop),
            controls={
                control: {test: self._outcomes[test] for test in sorted(tests)}
                for control, tests in sorted(self._controls.items())
            },
            crashed=tuple(sorted(self._crashed)),
        )
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_name(self._path.name + ".part")
        partial.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")
        partial.replace(self._path)


def _outcome(report: pytest.TestReport) -> TestOutcome:
    if hasattr(report, "wasxfail"):
        return "expected-failure"
    return report.outcome


def main(arguments: Sequence[str] | None = None) -> int:
    """Render results as Markdown. Returns 0, or 1 when they prove less than they claim, or 2 when unreadable."""
    parser = argparse.ArgumentParser(prog="python -m bartizan.testing.trace", description=main.__doc__)
    parser.add_argument("results", type=Path, help="file written by pytest --trace-out")
    parser.add_argument("--out", type=Path, help="Markdown file to write; standard output when left out")
    options = parser.parse_args(arguments)
    try:
        results = read_results(options.results.read_bytes())
    except (OSError, InputError) as error:
        sys.stderr.write(f"{options.results}: {error}\n")
        return 2
    text = table(results, catalogue())
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
    wrong = faults(results, catalogue())
    sys.stderr.writelines(f"{fault}\n" for fault in wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
