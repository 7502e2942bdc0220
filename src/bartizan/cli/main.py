"""``bartizan``: the root command. Loads a noun's file only when that noun is used."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import click

from bartizan import __version__

COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("init:init", "Declare a system and begin its ledger, in one command."),
    "register": ("register:register", "Sign the declared models and datasets into the ledger."),
    "assure": ("assure:assure", "Do what is stale, decide the gate, write the report."),
    "attack": ("attack:attack", "The red team: what applies, what is planned, campaigns, results of other tools."),
    "report": ("report:report", "Write the report without running anything."),
    "scan": ("scan:scan", "Examine model files without loading them."),
    "scan-policy": ("scan:scan_policy", "Sign what your organisation accepts of what scans find."),
    "compare": ("compare:compare", "Compare model families on the declared data, and choose one with a reason."),
    "harden": ("harden:harden", "Defences, each measured before and after: accuracy, robustness, privacy, cost."),
    "diff": ("diff:diff", "What changed between two versions of a model."),
    "convert": ("convert:convert", "Rewrite a model in a format without code, and show that it is the same."),
    "sign": ("sign:sign", "Sign a model or dataset with an OpenSSF signature."),
    "verify": ("sign:verify", "Verify an OpenSSF signature over a model or dataset."),
    "record": ("record:record", "Run a command and sign what it was made of: SLSA provenance."),
    "trace": ("trace:trace", "From an artefact back to its batches, sources, contributors and signers."),
    "update": ("update:update", "Signed update packages: pack, verify, activate."),
    "serve": ("serve:serve", "Serve the model, as long as it is what was judged."),
    "gateway": ("gateway:gateway", "The gateway's keys, roles and budgets."),
    "review": ("review:review", "What people have to look at: held answers, flagged and sampled cases."),
    "audit": ("audit:audit", "The gateway's audit log: search, prove, export, verify, witness."),
    "intake": ("intake:intake", "Take in models and data of others: quarantine, scan, ask, decide."),
    "supplier": ("supplier:supplier", "Suppliers: what they are held to, and what may come from them."),
    "bom": ("bom:bom", "Bills of materials (CycloneDX): write, compare, search."),
    "vulns": ("vulns:vulns", "Known vulnerabilities of packages, from a local OSV copy."),
    "secrets": ("secrets:secrets", "Keys, tokens and passwords in folders, notebooks and archives."),
    "environment": ("environment:environment", "Check the place where models are made, against a baseline."),
    "briefing": ("briefing:briefing", "Write what a role has to know; list who was briefed."),
    "lesson": ("lesson:lesson", "Lessons learnt, linked to techniques."),
    "notice": ("notice:notice", "Write what users of the model are told."),
    "lab": ("lab:lab", "Short lessons that run real attacks."),
    "decide": ("decide:decide", "Record a person's decision."),
    "revoke": ("decide:revoke", "Withdraw a statement, a key or an artefact."),
    "evidence": ("evidence:evidence", "Evidence: what holds, what is stale and why, what is due."),
    "impact": ("evidence:impact", "What rests on a digest, and what it rests on."),
    "gate": ("gate:gate", "Gates: evaluate and explain."),
    "ledger": ("ledger:ledger", "The ledger: verify, prove, reindex."),
    "trust": ("trust:trust", "Who may sign what."),
    "keys": ("keys:keys", "Key files."),
    "catalogue": ("catalogue:catalogue", "Principles, controls, techniques, mitigations."),
    "settings": ("settings:settings", "Every setting, where it comes from, and its value."),
}
"""Command to (module:object, one line of help): enough for ``--help`` to load nothing else."""

OK, FOUND, FAILED = 0, 1, 2


class Lazy(click.Group):
    """A group whose commands are imported when they are used. ``table``: see ``COMMANDS``."""

    def __init__(self, *arguments: Any, table: dict[str, tuple[str, str]], **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table: as a first-time user needs them."""
        del ctx
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command."""
        del ctx
        if cmd_name not in self._table:
            return None
        module, _, name = self._table[cmd_name][0].partition(":")
        command = getattr(import_module(f"bartizan.cli.{module}"), name)
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One line each, out of the table."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_text) for name, (_, help_text) in self._table.items()])


@click.group(
    cls=Lazy,
    table=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 fine, 1 something found or a gate refused, 2 the work could not be done.",
)
@click.option(
    "-C",
    "--project",
    type=click.Path(path_type=Path, file_okay=False),
    default=".",
    envvar="BARTIZAN_PROJECT",
    show_envvar=True,
    help="Folder of bartizan.toml.",
)
@click.version_option(__version__, prog_name="bartizan")
@click.pass_context
def cli(ctx: click.Context, project: Path) -> None:
    """Run the security of a machine-learning system and keep signed evidence of it.

    \b
    bartizan init            declare a system: writes bartizan.toml, keys and ledger
    bartizan register        sign its models and datasets
    bartizan assure          check, attack, decide, report
    """
    ctx.obj = project


def main() -> NoReturn:
    """Entry point: runs a command and turns errors into a message, a remedy and an exit code."""
    sys.exit(run())


def run(arguments: list[str] | None = None) -> int:
    """Run a command (default: that of the process) and return its exit code; nothing is raised."""
    try:
        code = cli.main(arguments, standalone_mode=False)
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except click.ClickException as error:
        error.show()
        return FAILED
    except (click.Abort, KeyboardInterrupt):
        click.echo("\nstopped; what was recorded is kept, and the next run goes on from there.", err=True)
        return FAILED
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - the reader is gone; nothing may be flushed to it
        return FAILED
    except Exception as error:  # noqa: BLE001 - the last line of defence against a bare traceback
        return _explain(error)
    return code if isinstance(code, int) else OK


def _explain(error: Exception) -> int:
    from bartizan.core.errors import BartizanError  # noqa: PLC0415 - --help must not load it

    if os.environ.get("BARTIZAN_DEBUG"):
        raise error
    if isinstance(error, BartizanError):
        click.echo(f"error: {printable(error.message)}", err=True)
        if error.remedy:
            click.echo(f" next: {printable(error.remedy)}", err=True)
    elif isinstance(error, OSError) and error.filename is not None and error.strerror:
        click.echo(f"error: {printable(str(error.filename))}: {error.strerror}", err=True)
        click.echo(" next: check the path and its rights, and that the disk has room.", err=True)
    else:
        click.echo(f"error: {type(error).__name__}: {printable(str(error))}", err=True)
        click.echo(" next: this is a mistake in bartizan; set BARTIZAN_DEBUG=1 to see where, and report it.", err=True)
    return FAILED


def printable(text: str) -> str:
    """Text with control characters made visible: hostile names must not steer a terminal."""
    return "".join(
        letter
        if letter.isprintable() or letter == "\n"
        else letter.encode("unicode_escape", "backslashreplace").decode()
        for letter in text
    )
