"""``bartizan serve``."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import click

from bartizan.cli.main import FOUND, OK
from bartizan.cli.output import say, show, workspace
from bartizan.lifecycle.deploy.gateway.admission import Admission
from bartizan.wiring.serving import Gateway, Wanted

MAX_PORT = 65535


@click.command()
@click.option("--gate", default="release", show_default=True, help="Gate whose verdict admits the model.")
@click.option("--model", default="", metavar="NAME", help="Serve this one alone, of all declared models.")
@click.option("--port", type=click.IntRange(0, MAX_PORT), default=8080, show_default=True, help="0 takes a free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--recheck", default="60s", show_default=True, metavar="TIME", help="Time between verifications: 30s, 5min, 1h."
)
@click.pass_context
def serve(ctx: click.Context, *, gate: str, model: str, port: int, host: str, recheck: str) -> int:
    """Serve the declared model, as long as it is what was signed, scanned and judged.

    Speaks the Open Inference Protocol v2 over HTTP. The bytes of the model and of every declared document, their
    signatures, the scan and the gate's verdict are verified before the model is opened and then every --recheck;
    while one of them fails, nothing is answered, or what is declared to stand in. Who may ask, and what they are told,
    stands in the document called gateway (docs/gateway); without it nobody is answered.
    Exit code 1: a condition is not met, and nothing is served.

    \b
    Example: bartizan serve
             bartizan serve --gate deploy --port 8443 --recheck 5min
    """
    space = workspace(ctx)
    wanted = Wanted(model=model, gate=gate, host=host, port=port, recheck=recheck)
    with contextlib.closing(Gateway(space, wanted)) as gateway:
        for admission in gateway.refused:
            _print(admission, gate)
        if gateway.refused:
            return FOUND
        if not gateway.open_to:
            say("nobody is granted anything: declare a document called gateway, of kind configuration, with roles")
        gateway.serve(lambda address, number: _tell(gateway.admissions, address, number))
    say("stopped")
    return OK


def _tell(admissions: Sequence[Admission], address: str, port: int) -> None:
    place = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    for admission in admissions:
        say(f"serving {admission.model} sha256:{admission.digest} on http://{place}/v2")


def _print(admission: Admission, gate: str) -> None:
    """Each condition on its own lines: state, reason, and what to do."""
    show(f"{admission.model} is not served: gate {gate}, {len(admission.failed)} conditions are not met")
    for item in sorted(admission.findings, key=lambda item: item.met):
        show(f"  {'met    ' if item.met else 'NOT MET'}  {item.condition} ({item.artefact}): {item.reason}")
        if item.remedy:
            show(f"             next: {item.remedy}")
