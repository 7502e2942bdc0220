"""``bartizan record``."""

from __future__ import annotations

from pathlib import Path

import click

from bartizan.cli.output import as_json, say, show_json, workspace
from bartizan.wiring.recording import Asked, read_parameters
from bartizan.wiring.recording import record as run_and_sign


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--inputs", "-i", multiple=True, help="Artefact id or path that it reads; give it again for more.")
@click.option("--outputs", "-o", multiple=True, required=True, help="Artefact id or path that it makes.")
@click.option("--parameters", multiple=True, help="key=value, or a JSON or TOML file; give it again for more.")
@click.option("--environment", default="", help="Name of the place it runs in, such as production-training.")
@click.option("--strict", is_flag=True, help="Let the kernel refuse the command every file that is no input.")
@click.option("--readable", multiple=True, help="With --strict: path that may be read, undigested; it is named.")
@click.option("--unsigned", is_flag=True, help="Use declared artefacts although no signature over them stands.")
@click.option("--key", default="service", show_default=True, help="Name of the key that signs.")
@as_json
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def record(
    ctx: click.Context,
    *,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    parameters: tuple[str, ...],
    environment: str,
    strict: bool,
    readable: tuple[str, ...],
    unsigned: bool,
    key: str,
    as_json: bool,
    command: tuple[str, ...],
) -> int:
    """Run COMMAND, and sign what went in and what came out: SLSA provenance v1.

    The exit code is the command's; when it fails, nothing is recorded. The command line is part of the
    statement, so keep secrets out of it.

    \b
    Example: bartizan record -i dataset:train -i train.py -o model:tumour -- python train.py
    """
    done = run_and_sign(
        workspace(ctx),
        Asked(
            command=command,
            inputs=inputs,
            outputs=outputs,
            parameters=read_parameters(parameters),
            environment=environment,
            strict=strict,
            readable=readable,
            unsigned=unsigned,
            key=key,
            folder=Path.cwd(),
            output_to_errors=as_json,
        ),
    )
    if as_json:
        show_json(done)
    for path in done.refused:
        say(f"refused: {path} is no declared input; declare it with --inputs {path}")
    if done.envelope is None:
        hint = "; in strict mode it may read only declared inputs, the system and its libraries" if strict else ""
        say(f"the command ended with {done.exit_code}, so nothing is recorded{hint}")
    elif not as_json:
        for name, digest in done.outputs.items():
            say(f"{name}  {digest[:12]}  recorded in {done.envelope[:12]}")
    return done.exit_code
