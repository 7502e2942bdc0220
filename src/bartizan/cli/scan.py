"""``bartizan scan`` and ``bartizan scan-policy``."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from bartizan.cli.files import read_small
from bartizan.cli.main import FAILED, FOUND
from bartizan.cli.output import as_json, load, say, show, workspace
from bartizan.cli.scan_text import describe
from bartizan.core.digest import Digest
from bartizan.core.errors import ArtefactError, InputError
from bartizan.lifecycle.develop.scan.acceptance import (
    MAX_BYTES,
    Judged,
    Policy,
    judge,
    read_baseline,
    read_policy,
)
from bartizan.lifecycle.develop.scan.limits import Limits
from bartizan.lifecycle.develop.scan.scanner import scan_path
from bartizan.lifecycle.develop.scan.verdict import Report

STDIN = Path("-")
PEM_BYTES = 64 * 1024
DECISION = "urn:bartizan:decision:v1"


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, allow_dash=True))
@as_json
@click.option("--sarif", type=click.Path(path_type=Path, dir_okay=False), help="Also write the findings as SARIF here.")
@click.option("--policy", type=click.Path(path_type=Path, dir_okay=False), help="Signed policy: what is accepted.")
@click.option(
    "--policy-key",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Public key (PEM) that may sign the policy. Default: the project's people who may decide.",
)
@click.option(
    "--baseline", type=click.Path(path_type=Path, dir_okay=False), help="An earlier --json output: only news count."
)
@click.option("--jobs", type=click.IntRange(1, 64), default=os.cpu_count() or 1, help="Processes for large folders.")
@click.pass_context
def scan(
    ctx: click.Context,
    *,
    paths: tuple[Path, ...],
    as_json: bool,
    sarif: Path | None,
    policy: Path | None,
    policy_key: tuple[Path, ...],
    baseline: Path | None,
    jobs: int,
) -> int:
    """Examine model files and folders without loading anything. Needs no project; - is standard input.

    Exit code 0: all clean; 1: something dangerous, suspicious or malformed; 2: nothing found, but not
    everything could be examined (what was not examined is never clean).

    \b
    Example: bartizan scan model.joblib
             bartizan scan downloads/ --json > baseline.json
             bartizan scan downloads/ --baseline baseline.json --sarif findings.sarif
             curl -s https://example.org/model.pt | bartizan scan -
    """
    accepted = read_scan_policy(ctx, policy, policy_key)
    earlier = read_baseline(read_small(baseline)) if baseline else frozenset[Digest]()
    with _progress() as progress:
        reports, missing = _scan_all(paths, jobs, progress)
    judged = [judge(report, accepted, earlier) for report in reports]
    if sarif:
        findings_to_sarif = load("bartizan.assurance.sarif:findings_to_sarif")
        sarif.write_text(findings_to_sarif([finding for each in judged for finding in each.open], "scan"))
    if as_json:
        show("[" + ",\n".join(each.to_json().decode() for each in judged) + "]")
    for each in judged:
        if as_json:
            _tell_of_expired(each)
        else:
            for line in describe(each, color=sys.stdout.isatty()):
                click.echo(line)
    for line in missing:
        say(line)
    codes = {each.exit_code for each in judged} | ({FAILED} if missing else set())
    return FOUND if FOUND in codes else max(codes, default=FAILED)


def _tell_of_expired(judged: Judged) -> None:
    for entry in judged.expired:
        say(f"accepted only until {entry.expires}: {entry.rule or entry.digest}")


def _scan_all(
    paths: tuple[Path, ...], jobs: int, progress: Callable[[int, int, str], None]
) -> tuple[list[Report], list[str]]:
    """Reports, and in words what could not be opened: one path that is missing does not hide what is in the others."""
    reports, missing = [], []
    for path in paths:
        try:
            reports.append(_scan(path, jobs, progress))
        except ArtefactError as error:
            if len(paths) == 1:
                raise
            missing.append(f"not examined: {error.message}")
    return reports, missing


def _scan(path: Path, jobs: int, progress: Callable[[int, int, str], None]) -> Report:
    if path != STDIN:
        return scan_path(path, jobs=jobs, progress=progress, follow=True)
    with tempfile.TemporaryDirectory(prefix="bartizan-") as folder:
        kept = Path(folder) / "stdin"
        with kept.open("wb") as file:
            _copy(file.write)
        return scan_path(kept)


def _copy(write: Callable[[bytes], object]) -> None:
    """Standard input, as far as a scan would unpack an archive.

    Raises:
        InputError: it is longer, or empty: a download that failed must not look like a clean file.
    """
    most = Limits().expanded
    while part := sys.stdin.buffer.read(1 << 20):
        most -= len(part)
        if most < 0:
            raise InputError(f"standard input is longer than {Limits().expanded} bytes", remedy="scan it as a file.")
        write(part)
    if most == Limits().expanded:
        raise InputError("nothing came on standard input", remedy="check the command before the pipe.")


@contextmanager
def _progress() -> Iterator[Callable[[int, int, str], None]]:
    """A line on standard error that is written over, at a terminal only."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    width = shutil.get_terminal_size().columns - 1

    def tell(done: int, total: int, name: str) -> None:
        text = f"{done * 100 // max(total, 1):3} %  {done >> 20} of {total >> 20} MiB  {name}"
        shown = "".join(letter if letter.isprintable() else "?" for letter in text)
        sys.stderr.write("\r" + shown[:width].ljust(width))

    yield tell
    sys.stderr.write("\r" + " " * width + "\r")


def read_scan_policy(ctx: click.Context, policy: Path | None, trusted: tuple[Path, ...]) -> Policy | None:
    """The signed policy in a file, if one is given; without keys those of the project's deciders are trusted."""
    if policy is None:
        return None
    open_policy = load("bartizan.lifecycle.develop.scan.signed_policy:open_policy")
    opened: Policy = open_policy(read_small(policy, 3 * MAX_BYTES), _given_keys(trusted) or _keys_of_project(ctx))
    return opened


def _given_keys(paths: tuple[Path, ...]) -> dict[str, str]:
    """Key id to PEM of public keys in files."""
    keys = load("bartizan.core.keys:keyid_of"), load("bartizan.core.keys:load_public")
    pems = [read_small(path, PEM_BYTES).decode(errors="replace") for path in paths]
    return {keys[0](keys[1](pem)): pem for pem in pems}


def _keys_of_project(ctx: click.Context) -> dict[str, str]:
    """Keys of everybody whom the project's trust document lets decide."""
    space = workspace(ctx)
    if not space.declaration.is_file():
        raise InputError("who may sign the policy is not known", remedy="give --policy-key, or run it in a project.")
    with space.view() as view:
        return view.trust.keys_for(DECISION, space.now(view))


@click.command(name="scan-policy")
@click.argument("policy", type=click.Path(path_type=Path, dir_okay=False))
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), required=True, help="Signed policy.")
@click.option("--key", default="risk-owner", show_default=True, help="Name of the key that signs.")
@click.pass_context
def scan_policy(ctx: click.Context, policy: Path, output: Path, key: str) -> None:
    """Sign what your organisation accepts, for `bartizan scan --policy`.

    The policy is TOML: [[accept]] tables with rule and/or digest, names, justification, owner and
    expires. Dangerous findings and unexamined files are accepted for one digest only.

    \b
    Example: bartizan scan-policy accepted.toml -o accepted.json --key risk-owner
             bartizan scan model.pkl --policy accepted.json --policy-key risk-owner.pub.pem
    """
    read = read_policy(read_small(policy, MAX_BYTES))
    seal_policy = load("bartizan.lifecycle.develop.scan.signed_policy:seal_policy")
    output.write_bytes(seal_policy(read, [workspace(ctx).signer(key)]))
    say(f"signed {len(read.accept)} entries; wrote {output}")
