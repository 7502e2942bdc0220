"""``bartizan intake``."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec

from bartizan.cli.files import read_small
from bartizan.cli.main import FOUND, OK
from bartizan.cli.output import as_json, day, say, show_json, table, workspace
from bartizan.cli.scan import read_scan_policy
from bartizan.core.errors import InputError
from bartizan.lifecycle.develop.intake.questions import Answers, read_answers
from bartizan.wiring.intake import Asked, Case, Intake, Progress, audit
from bartizan.wiring.samples import Wanted, parse_minimum

_FILE = click.Path(path_type=Path, dir_okay=False)
_QUESTIONS = (
    ("host", "Who publishes or hosts it?"),
    ("contributors", "Who contributed to it?"),
    ("independent_sources", "How many sources that do not depend on one another was it drawn from?"),
    ("collected", "How and when was it collected or trained?"),
    ("licence", "Under which licence?"),
    ("trained_on", "What was it trained on, as far as its producer says?"),
    ("reputation", "What is known of the source's standing?"),
)


class Door(click.Group):
    """A group whose first word may also be a source: then it is taken in."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``add`` before anything that is no command and no option of the group."""
        if args and args[0] not in self.commands and args[0] not in {"-h", "--help"}:
            args = ["add", *args]
        return super().parse_args(ctx, args)


@click.group(cls=Door)
def intake() -> None:
    """Take in what comes from others: quarantine, scan, ask, decide, and only then register.

    \b
    Example: bartizan intake downloads/model --name triage --supplier acme --answers answers.toml
             bartizan intake ~/.cache/huggingface/hub/models--acme--triage --name triage --supplier acme
             bartizan intake list
             bartizan intake accept triage --role security --reason "..."
    """


@intake.command("add")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="What it will be called here.")
@click.option("--kind", type=click.Choice(["model", "dataset"]), default="model", show_default=True, help="What it is.")
@click.option("--supplier", required=True, help="Who supplies it; see `bartizan supplier`.")
@click.option("--digest", default="", help="SHA-256 that you were told by another way; of a folder, its manifest root.")
@click.option(
    "--signature", type=_FILE, help="OpenSSF signature over it. Default: model.sig or *.sigstore.json beside."
)
@click.option("--answers", type=_FILE, help="TOML with the answers. Default: asked at a terminal.")
@click.option("--samples", type=_FILE, help="Own samples that the model must do well on: a table, CSV or npz.")
@click.option("--target", default="", help="Label column of the samples.")
@click.option("--minimum", multiple=True, help="Least value of a metric on them, such as accuracy=0.8.")
@click.option("--policy", type=_FILE, help="Signed scan policy: what is accepted of what the scan finds.")
@click.option("--into", type=click.Path(path_type=Path, file_okay=False), help="Where it goes. Default: admitted/NAME.")
@as_json
@click.pass_context
def add(
    ctx: click.Context,
    *,
    source: Path,
    name: str,
    kind: str,
    supplier: str,
    digest: str,
    signature: Path | None,
    answers: Path | None,
    samples: Path | None,
    target: str,
    minimum: tuple[str, ...],
    policy: Path | None,
    into: Path | None,
    as_json: bool,
) -> int:
    """Take a file, folder, Hugging Face cache folder, MLflow run or model, or OCI layout into quarantine.

    It is registered when every rule is met: a clean scan, an origin that the supplier's record allows
    (by digest or signature), answered questions, own samples for a model, and an approval. The same
    source twice is the same case. Exit code 0: admitted; 1: refused, or something is still missing.
    """
    if samples and not (target and minimum):
        raise InputError("own samples need --target and --minimum", remedy="add --target COLUMN --minimum accuracy=0.8")
    door = Intake(workspace(ctx))
    asked = Asked(
        kind="dataset" if kind == "dataset" else "model",
        name=name,
        supplier=supplier,
        answers=read_answers(read_small(answers)) if answers else _ask(),
        expected=digest.lower(),
        signature=signature or _beside(source),
        samples=Wanted(path=str(samples.resolve()), target=target, minimum=parse_minimum(minimum)) if samples else None,
    )
    case = door.open(source, asked)
    return _tell(door.resume(case, scan_policy=read_scan_policy(ctx, policy, ()), into=into), as_json=as_json)


def _ask() -> Answers:
    """The answers of whoever sits at the terminal; none where there is no terminal."""
    if not sys.stdin.isatty():
        return Answers()
    said: dict[str, str] = {
        name: str(click.prompt(text, default="", show_default=False, err=True)) for name, text in _QUESTIONS
    }
    number = said.pop("independent_sources")
    plain: dict[str, str | int] = {**said, "independent_sources": int(number) if number.isdecimal() else 0}
    return msgspec.convert(plain, Answers)


def _beside(source: Path) -> Path | None:
    """A signature that lies beside the source, where there is exactly one."""
    named = source.with_name(f"{source.name}.sig")
    if named.is_file():
        return named
    found = [each for each in (source.parent / "model.sig", *source.parent.glob("*.sigstore.json")) if each.is_file()]
    return found[0] if len(found) == 1 and source.is_dir() else None


@intake.command("resume")
@click.argument("case")
@click.option("--answers", type=_FILE, help="TOML with the answers.")
@click.option("--policy", type=_FILE, help="Signed scan policy.")
@click.option("--into", type=click.Path(path_type=Path, file_okay=False), help="Where it goes. Default: admitted/NAME.")
@as_json
@click.pass_context
def resume(
    ctx: click.Context, case: str, *, answers: Path | None, policy: Path | None, into: Path | None, as_json: bool
) -> int:
    """Go on with a case: after a kill, with new answers, or after a decision."""
    door = Intake(workspace(ctx))
    found = door.case(case)
    if answers:
        found = door.answer(found, read_answers(read_small(answers)))
    return _tell(door.resume(found, scan_policy=read_scan_policy(ctx, policy, ()), into=into), as_json=as_json)


@intake.command("show")
@click.argument("case")
@as_json
@click.pass_context
def show_case(ctx: click.Context, case: str, as_json: bool) -> int:
    """What is known of a case, and what is missing."""
    door = Intake(workspace(ctx))
    return _tell(door.look(door.case(case)), as_json=as_json)


@intake.command("accept")
@click.argument("case")
@click.option("--role", required=True, help="Role in which you decide.")
@click.option("--reason", required=True, help="Why. No personal data: the ledger forgets nothing.")
@click.option("--rule", "rules", multiple=True, help="Only make an exception from this rule: origin, provenance ...")
@click.option("--expires", default="365d", show_default=True, help="Duration or date; every decision ends.")
@click.option("--key", default="", help="Name of the key that signs. Default: that of whoever holds the role.")
@as_json
@click.pass_context
def accept(
    ctx: click.Context,
    case: str,
    *,
    role: str,
    reason: str,
    rules: tuple[str, ...],
    expires: str,
    key: str,
    as_json: bool,
) -> int:
    """Approve a case, or accept that a rule is not met; then go on with it.

    \b
    Example: bartizan intake accept triage --role security --reason "tried on the ward"
             bartizan intake accept triage --role risk-owner --rule origin --reason "no signatures there yet"
    """
    door = Intake(workspace(ctx))
    found = door.case(case)
    door.decide(found, role=role, reason=reason, rules=rules, refuse=False, expires=expires, key=key)
    return _tell(door.resume(door.case(case)), as_json=as_json)


@intake.command("reject")
@click.argument("case")
@click.option("--role", required=True, help="Role in which you decide.")
@click.option("--reason", required=True, help="Why. No personal data: the ledger forgets nothing.")
@click.option("--expires", default="365d", show_default=True, help="Duration or date; every decision ends.")
@click.option("--key", default="", help="Name of the key that signs. Default: that of whoever holds the role.")
@click.pass_context
def reject(ctx: click.Context, case: str, *, role: str, reason: str, expires: str, key: str) -> None:
    """Turn a case away."""
    door = Intake(workspace(ctx))
    digest = door.decide(door.case(case), role=role, reason=reason, rules=(), refuse=True, expires=expires, key=key)
    say(f"rejected; recorded as {digest[:12]}. The copy stays in quarantine and is never used.")


@intake.command("list")
@as_json
@click.pass_context
def list_cases(ctx: click.Context, as_json: bool) -> None:
    """All cases and where they stand."""
    cases = Intake(workspace(ctx)).cases()
    if as_json:
        show_json({"cases": cases})
    elif cases:
        rows = [
            (each.id, each.artefact_id, each.supplier, each.state, day(each.opened_at), each.source) for each in cases
        ]
        table(("CASE", "WHAT", "SUPPLIER", "STATE", "SINCE", "SOURCE"), rows)
    else:
        say("nothing was taken in yet; see `bartizan intake --help`")


@intake.command("audit")
@as_json
@click.pass_context
def audit_cases(ctx: click.Context, as_json: bool) -> int:
    """Source, hash, licence, scan and decision of everything that was let in; exit code 1 when one of them lacks."""
    rows = audit(Intake(workspace(ctx)))
    if as_json:
        show_json({"artefacts": rows})
    else:
        table(
            ("WHAT", "SOURCE", "SHA-256", "LICENCE", "DECISION", "LACKING"),
            [
                (row["artefact"], row["source"]["supplier"], row["sha256"][:12], row["licence"], row["decision"],
                 ", ".join(row["lacking"]) or "nothing")
                for row in rows
            ],
        )  # fmt: skip
    return FOUND if any(row["lacking"] for row in rows) else OK


def _tell(progress: Progress, *, as_json: bool) -> int:
    case = progress.case
    admitted = case.state == "admitted" and progress.result.passed
    if as_json:
        rules = {each.rule.id: {"state": each.state, "reason": each.reason} for each in progress.result.results}
        show_json({"case": case, "admitted": admitted, "rules": rules, "scan": progress.scan})
        return OK if admitted else FOUND
    for each in progress.result.results:
        say(f"  {each.state:<7} {each.rule.id:<12} {each.reason}")
    say(_headline(case, progress, admitted=admitted))
    return OK if admitted else FOUND


def _headline(case: Case, progress: Progress, *, admitted: bool) -> str:
    if admitted:
        return f"{case.artefact_id} is admitted: {case.admitted_to}"
    if progress.is_dangerous:
        return f"{case.artefact_id} is turned away and stays in quarantine: {progress.scan}"
    lacking = ", ".join(each.rule.id for each in progress.result.results if each.state == "unmet") or "a decision"
    return f"{case.artefact_id} stays in quarantine (case {case.id}); missing: {lacking}. {_next(case, lacking)}"


def _next(case: Case, lacking: str) -> str:
    """The command that would bring it forward."""
    if "supplier" in lacking:
        return f"Next: bartizan supplier record {case.supplier} --from record.toml --role security"
    if "provenance" in lacking:
        return f"Next: bartizan intake resume {case.name} --answers answers.toml"
    if "own-samples" in lacking:
        return "Next: take it in again with --samples TABLE --target COLUMN --minimum accuracy=0.8"
    if "origin" in lacking:
        return f"Next: put its digest on the list of {case.supplier}, or give --signature"
    return f'Next: bartizan intake accept {case.name} --role security --reason "..."'
