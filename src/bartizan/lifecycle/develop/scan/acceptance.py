"""What an organisation accepts: a signed list of exceptions, and the findings of an earlier scan.

A policy is a TOML file with ``[[accept]]`` entries; every entry says why, who answers for it and
until when, and is bound to a rule, to a file's digest, or to both. A finding that would be
dangerous, and content that was not examined, are only ever accepted for one digest. The policy
counts in the signed form (a DSSE envelope around it), never as plain TOML: whoever can place a file
beside a model must not be able to excuse it.

What is accepted stays in the report, marked; it only stops deciding the exit code.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from datetime import UTC, date, datetime
from typing import Any

import msgspec

from bartizan.core.digest import Digest, canonical_json, digest_json
from bartizan.core.errors import InputError
from bartizan.core.finding import Finding
from bartizan.lifecycle.develop.scan.rules import RULES
from bartizan.lifecycle.develop.scan.verdict import Report, Verdict

MAX_BYTES = 1 << 20
MOST_ENTRIES = 10_000
SHORTEST_REASON = 10
"""Characters below which a justification says nothing."""
_OFFSET = re.compile(r"@[0-9]+$")
_VERBS = frozenset({"imports", "constructs", "calls"})
"""With which findings on pickles begin; the name of a callable follows, and may hold blanks."""
_QUOTED = re.compile(r"'([^']*)'")
_ONLY_BY_DIGEST = frozenset({Verdict.DANGEROUS, Verdict.UNKNOWN})


class Accept(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One ``[[accept]]``."""

    justification: str
    owner: str
    """Role address that answers for it."""
    expires: date
    """First day on which it no longer counts."""
    rule: str = ""
    """Rule whose findings are accepted; empty for all rules, which needs a digest."""
    digest: str = ""
    """SHA-256 of the file that is excused; empty for any file."""
    names: tuple[str, ...] = ()
    """Names of which the finding must give one in full, such as ``ourlib.layers.Gate``; empty for any."""


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole policy."""

    accept: tuple[Accept, ...]
    title: str = ""


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """A report under a policy and a baseline."""

    report: Report
    accepted: tuple[tuple[Finding, Accept], ...] = ()
    """Findings that the policy excuses, with the entry that does."""
    known: tuple[Finding, ...] = ()
    """Findings that the baseline had already."""
    open: tuple[Finding, ...] = ()
    """Findings that decide."""
    expired: tuple[Accept, ...] = ()
    """Entries that would have excused something, had they not expired."""
    unlisted: tuple[Verdict, ...] = ()
    """Verdicts on parts with more findings than are kept: one that is not listed may be excused by nobody."""

    @property
    def verdict(self) -> Verdict:
        """Worst of what is open; ``clean`` when nothing is."""
        verdicts = [RULES[finding.rule].verdict for finding in self.open if finding.rule in RULES]
        return max([*verdicts, *self.unlisted], key=lambda verdict: verdict.rank, default=Verdict.CLEAN)

    def to_json(self) -> bytes:
        """What ``Report.to_json`` gives, with verdict and exit code under the policy and the baseline.

        Findings that decide no longer stay in the report; ``accepted`` and ``known`` say where they are.
        """
        totals = {"verdict": self.verdict, "coverage": self.report.total_coverage, "exit_code": self.exit_code}
        set_aside = {
            "accepted": [
                {"rule": finding.rule, "where": finding.where, "justification": entry.justification}
                | {"owner": entry.owner, "expires": entry.expires.isoformat()}
                for finding, entry in self.accepted
            ],
            "known": [{"rule": finding.rule, "where": finding.where} for finding in self.known],
        }
        if not (self.accepted or self.known):
            return self.report.to_json()
        return canonical_json({"format": "bartizan-scan/1", **totals, **set_aside, "report": self.report})

    @property
    def exit_code(self) -> int:
        """As ``Report.exit_code``, of what is open."""
        if not (self.accepted or self.known):
            return self.report.exit_code
        return {Verdict.CLEAN: 0, Verdict.UNKNOWN: 2}.get(self.verdict, 1)


def read_policy(text: bytes) -> Policy:
    """Read a policy as a person wrote it.

    Raises:
        InputError: it is no such TOML, or an entry is unsound; the text says which and why.
    """
    if len(text) > MAX_BYTES:
        raise InputError(f"the policy has {len(text)} bytes; at most {MAX_BYTES} are read")
    try:
        policy = msgspec.convert(tomllib.loads(text.decode()), Policy)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError, RecursionError) as error:
        raise InputError(
            f"this is no scan policy: {error}",
            remedy="write [[accept]] tables with rule or digest, justification, owner and expires = 2027-01-31.",
        ) from error
    check_policy(policy)
    return policy


def check_policy(policy: Policy) -> None:
    """Raise InputError for the first entry that is unsound."""
    if len(policy.accept) > MOST_ENTRIES:
        raise InputError(f"the policy has {len(policy.accept)} entries; at most {MOST_ENTRIES} are read")
    for number, entry in enumerate(policy.accept, 1):
        if problem := _problem(entry):
            raise InputError(f"accept entry {number}: {problem}", remedy="mend the entry and sign the policy again.")


def _problem(entry: Accept) -> str:
    """What is wrong with an entry; empty when it is sound."""
    if not entry.rule and not entry.digest:
        return "it is bound neither to a rule nor to a digest, and would excuse everything"
    if entry.rule and entry.rule not in RULES:
        return f"there is no rule {entry.rule!r}"
    if entry.digest and not _is_digest(entry.digest):
        return f"{entry.digest!r} is no SHA-256 in lower-case hexadecimal"
    if not entry.digest and RULES[entry.rule].verdict in _ONLY_BY_DIGEST:
        return f"findings of {entry.rule} are accepted for one file only: give its digest"
    if len(entry.justification.strip()) < SHORTEST_REASON:
        return "the justification says nothing"
    return "" if entry.owner.strip() else "nobody answers for it (owner)"


def _is_digest(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")  # noqa: PLR2004 -- hexadecimal digits of SHA-256


def read_baseline(text: bytes) -> frozenset[Digest]:
    """Marks of the findings of an earlier scan, from what ``bartizan scan --json`` printed.

    Raises:
        InputError: it is no such output.
    """
    try:
        scans = msgspec.json.decode(text, type=list[dict[str, Any]])
        reports = [msgspec.convert(scan["report"], Report) for scan in scans]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError, TypeError) as error:
        raise InputError(
            f"this is no baseline: {error}", remedy="make one with `bartizan scan PATH --json > baseline.json`."
        ) from error
    found = (each for report in reports for each in _with_digests(report, report.digest))
    return frozenset(mark(finding, digest) for finding, digest in found)


def mark(finding: Finding, digest: Digest | None) -> Digest:
    """What makes a finding the same finding in another scan: rule, part and what was seen; offsets may move.

    What was not examined is the same only in the same file: behind the same reason other bytes may lie.
    """
    rule = RULES.get(finding.rule)
    file = (digest or "") if rule is None or rule.verdict is Verdict.UNKNOWN else ""
    return digest_json([finding.rule, _OFFSET.sub("", finding.where), finding.detail, file])


def judge(
    report: Report,
    policy: Policy | None = None,
    baseline: frozenset[Digest] = frozenset(),
    *,
    today: date | None = None,
) -> Judged:
    """Sort the findings of a report into accepted, known and open ones."""
    today = today or datetime.now(UTC).date()
    entries = policy.accept if policy else ()
    accepted: list[tuple[Finding, Accept]] = []
    known: list[Finding] = []
    opened: list[Finding] = []
    expired: dict[Accept, None] = {}
    for finding, digest in _with_digests(report, report.digest):
        fitting = [entry for entry in entries if _excuses(entry, finding, digest)]
        current = [entry for entry in fitting if today < entry.expires]
        if current:
            accepted.append((finding, current[0]))
            continue
        expired.update(dict.fromkeys(fitting))
        (known if mark(finding, digest) in baseline else opened).append(finding)
    whole = {entry.digest for entry in entries if entry.digest and not entry.rule and today < entry.expires}
    return Judged(
        report=report,
        accepted=tuple(accepted),
        known=tuple(known),
        open=tuple(opened),
        expired=tuple(expired),
        unlisted=tuple(_verdicts_with_unlisted(report, whole)),
    )


def _verdicts_with_unlisted(report: Report, accepted: AbstractSet[str]) -> Iterator[Verdict]:
    """Verdicts on parts whose findings are not all listed, outside the files that are accepted as they are."""
    todo = [(report, report.digest)]
    while todo:
        part, outer = todo.pop()
        own = part.digest or outer
        if part.facts.get("findings_left_out") and own not in accepted:
            yield part.own_verdict
        todo.extend((member, own) for member in part.members)


def _with_digests(report: Report, digest: Digest | None) -> Iterable[tuple[Finding, Digest | None]]:
    """All findings with the digest of the file that they lie in, worst first within a part."""
    todo = [(report, digest)]
    while todo:
        part, outer = todo.pop()
        own = part.digest or outer
        for finding in part.own_findings:
            yield finding, own
        todo.extend((member, own) for member in reversed(part.members))


def _excuses(entry: Accept, finding: Finding, digest: Digest | None) -> bool:
    if entry.rule and entry.rule != finding.rule:
        return False
    if entry.digest and entry.digest != digest:
        return False
    return not entry.names or any(name in _names(finding) for name in entry.names)


def _names(finding: Finding) -> AbstractSet[str]:
    """What a finding names: what it calls, without the arguments, or the words and quoted texts that it holds.

    Arguments are the words of whoever wrote the file, so a name among them excuses nothing.
    """
    text = finding.detail
    if rule := RULES.get(finding.rule):
        text = text.removesuffix(rule.explanation).rstrip(" .")
    plain = text.partition("(")[0]
    verb, _, rest = plain.partition(" ")
    if verb in _VERBS:
        return {rest.partition(", ")[0]}
    return {*_QUOTED.findall(plain), *(word.rstrip(",:;") for word in plain.split(" "))}
