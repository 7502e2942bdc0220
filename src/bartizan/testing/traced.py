"""Which catalogue items have a passing acceptance test: the results of a test run, and the table made of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import msgspec

from bartizan.catalogue.entries import Control
from bartizan.catalogue.load import Catalogue
from bartizan.core.errors import InputError

FORMAT = "bartizan-trace/1"
NO_TEST = "no acceptance test yet"
MEANING = "A test counts for an item only if it does what the item asks to be shown."

TestOutcome = Literal["passed", "failed", "skipped", "expected-failure"]
RANK: dict[str, int] = {"passed": 0, "skipped": 1, "expected-failure": 2, "failed": 3}
"""The worst phase of a test decides."""
SOURCES = {
    "ncsc": "Principles for the security of machine learning",
    "introduction": "Introduction to the principles",
    "a-mlsg": "A-MLSG guideline",
    "guidelines": "Guidelines for secure AI system development",
    "blog": "Article on the principles",
    "roke": "Mapping of attacks to the life cycle",
}
"""Headings of the table by source; one that is not listed stands under its own name."""


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """Outcomes of the tests that carry a control mark."""

    format: str = FORMAT
    complete: bool
    """Whether the run came to its end."""
    controls: dict[str, dict[str, TestOutcome]]
    """Control id to test id to outcome."""
    crashed: tuple[str, ...] = ()
    """Tests during which a worker died; their marks are not known."""


def worse(first: TestOutcome, second: TestOutcome) -> TestOutcome:
    """The worse of two outcomes."""
    return max(first, second, key=lambda outcome: RANK[outcome])


def read_results(data: bytes) -> Results:
    """Read what a test run wrote.

    Raises:
        InputError: these are no such results.
    """
    try:
        results = msgspec.json.decode(data, type=Results)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"no trace results: {error}", remedy="write them with `pytest --trace-out FILE`.") from error
    if results.format != FORMAT:
        raise InputError(
            f"trace results of format {results.format[:40]!r}; {FORMAT} is read", remedy="run pytest again."
        )
    return results


def faults(results: Results, catalogue: Catalogue) -> list[str]:
    """Why the results prove less than they seem to: unknown ids, failed tests, an unfinished run."""
    found = [] if results.complete else ["the test run did not come to its end"]
    found += [f"a worker died in {test}" for test in results.crashed]
    for control, tests in sorted(results.controls.items()):
        if control not in catalogue.controls:
            found.append(f"{', '.join(sorted(tests))} names the control {control!r}, which the catalogue has not")
        found += [f"{test} failed, which is to show {control}" for test in sorted(tests) if tests[test] == "failed"]
    return found


def table(results: Results, catalogue: Catalogue) -> str:
    """Markdown: every control of the catalogue with its tests. The same bytes for the same results."""
    controls = list(catalogue.controls.values())
    shown = sum(is_shown(results.controls.get(control.id, {})) for control in controls)
    lines = [
        "# Which item is shown by which test",
        "",
        "<!-- Written by `python -m bartizan.testing.trace`; do not edit. -->",
        "",
        f"{shown} of {len(controls)} catalogue items have a passing acceptance test. {MEANING}",
    ]
    for heading, members in _grouped(controls, catalogue):
        lines += ["", f"## {heading}", "", "| item | asked | to be shown | tests |", "| --- | --- | --- | --- |"]
        lines += [_row(control, results.controls.get(control.id, {})) for control in members]
    return "\n".join(lines) + "\n"


def is_shown(tests: Mapping[str, TestOutcome]) -> bool:
    """Whether at least one test passed and none failed."""
    outcomes = set(tests.values())
    return "passed" in outcomes and "failed" not in outcomes


def _grouped(controls: Iterable[Control], catalogue: Catalogue) -> Iterator[tuple[str, list[Control]]]:
    """Headings with their controls, in the order of the catalogue."""
    groups: dict[str, list[Control]] = {}
    for control in controls:
        if control.principle:
            heading = f"{control.principle} {catalogue.principles[control.principle].title}"
        else:
            heading = SOURCES.get(control.source, control.source)
        groups.setdefault(heading, []).append(control)
    yield from groups.items()


def _row(control: Control, tests: Mapping[str, TestOutcome]) -> str:
    cells = (control.id, control.item, control.test_resolved, _tests(tests))
    return f"| {' | '.join(_escaped(cell) for cell in cells)} |"


def _tests(tests: Mapping[str, TestOutcome]) -> str:
    """Test functions with their outcomes; the cases of one function are counted, not listed."""
    functions: dict[str, list[TestOutcome]] = {}
    for test, outcome in sorted(tests.items()):
        functions.setdefault(test.partition("[")[0], []).append(outcome)
    return "; ".join(f"`{name}` {_outcomes(outcomes)}".rstrip() for name, outcomes in functions.items()) or NO_TEST


def _outcomes(outcomes: list[TestOutcome]) -> str:
    """Nothing for a single pass; otherwise what became of how many cases."""
    if outcomes == ["passed"]:
        return ""
    if set(outcomes) == {"passed"}:
        return f"({len(outcomes)} cases)"
    return "(" + ", ".join(f"{outcomes.count(kind)} {kind}" for kind in RANK if kind in outcomes) + ")"


def _escaped(text: str) -> str:
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").split())
