"""What a scan found, for people."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import click

from bartizan.cli.main import printable
from bartizan.core.finding import Finding, Severity, worst_first
from bartizan.lifecycle.develop.scan.acceptance import Judged
from bartizan.lifecycle.develop.scan.rules import RULES
from bartizan.lifecycle.develop.scan.verdict import Coverage, Report, Verdict

WIDTH = 100
MOST_SHOWN = 12
_MEANING = {
    Verdict.CLEAN: "all of it was examined, and nothing in it runs code, reaches other files or exhausts the machine",
    Verdict.UNKNOWN: "nothing bad was seen, but not everything could be examined: treat it as unexamined",
    Verdict.SUSPICIOUS: "do not load it before you know why it holds what is listed below",
    Verdict.MALFORMED: "it breaks its own format, so programs may disagree about what it holds: do not load it",
    Verdict.DANGEROUS: "do not load it",
}
_COLORS = {Verdict.CLEAN: "green", Verdict.UNKNOWN: "yellow", Verdict.SUSPICIOUS: "yellow"}
_SEVERE = {Severity.CRITICAL, Severity.HIGH}
_COVERAGE = {
    Coverage.EXAMINED: "every byte examined",
    Coverage.PARTLY: "examined in part",
    Coverage.NOT_EXAMINED: "not examined",
}


def describe(judged: Judged, *, color: bool) -> Iterator[str]:
    """Lines that say what the file is, what it would do and what to do next."""
    report = judged.report
    set_aside = bool(judged.accepted or judged.known)
    verdict = judged.verdict if set_aside else report.verdict
    if verdict is Verdict.CLEAN and set_aside:
        word, meaning = f"{report.verdict.value}, accepted", "nothing was found beside what is accepted below"
    else:
        word, meaning = verdict.value.upper() if verdict is not Verdict.CLEAN else "clean", _MEANING[verdict]
    yield f"{printable(report.name)}: {_paint(word, _COLORS.get(verdict, 'red'), color)} - {meaning}"
    yield f"  {_facts(report)}"
    by_rule: dict[str, list[Finding]] = {}
    for finding in worst_first(list(judged.open)):
        by_rule.setdefault(finding.rule, []).append(finding)
    for findings in by_rule.values():
        yield from _findings(findings, color)
    yield from _set_aside(judged)


def _facts(report: Report) -> str:
    parts = sum(1 for _ in report.walk())
    facts = [report.format, _size(report.size), f"{parts} part{'s' if parts != 1 else ''}"]
    facts.append(_COVERAGE[report.total_coverage])
    if report.digest:
        facts.append(f"sha256 {report.digest}")
    return ", ".join(facts)


def _size(size: int) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:  # noqa: PLR2004 -- bytes in a kibibyte
            return f"{size} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size = size / 1024  # type: ignore[assignment]  # shown with one digit
    return f"{size:.1f} GiB"


def _findings(findings: list[Finding], color: bool) -> Iterator[str]:
    """All findings of one rule: what it means once, then each place."""
    worst = findings[0]
    severity = _paint(worst.severity.value, "red" if worst.severity in _SEVERE else "yellow", color)
    yield f"  {severity}: {worst.title} [{', '.join([worst.rule, *worst.cwe, *worst.techniques])}]"
    meaning = RULES[worst.rule].explanation if worst.rule in RULES else ""
    for finding in findings[:MOST_SHOWN]:
        seen = finding.detail.removesuffix(meaning).rstrip(" .")
        yield from _wrapped(f"- {printable(seen)}", f"(at {printable(finding.where)})")
    if len(findings) > MOST_SHOWN:
        yield f"    - and {len(findings) - MOST_SHOWN} more places; --json lists them all"
    yield from _wrapped(meaning)
    yield from _wrapped(f"next: {worst.remedy}")


def _wrapped(*texts: str) -> list[str]:
    text = " ".join(texts)
    return textwrap.wrap(text, WIDTH, initial_indent="    ", subsequent_indent="      ", break_on_hyphens=False)


def _set_aside(judged: Judged) -> Iterator[str]:
    for finding, entry in judged.accepted:
        reason = f"{entry.justification} ({entry.owner}, until {entry.expires})"
        yield f"  accepted: {finding.rule} at {printable(finding.where)}: {printable(reason)}"
    for entry in judged.expired:
        yield f"  no longer accepted since {entry.expires}: {entry.rule or entry.digest}"
    if judged.known:
        yield f"  {len(judged.known)} known from the baseline"


def _paint(text: str, name: str, color: bool) -> str:
    return click.style(text, fg=name, bold=True) if color else text
