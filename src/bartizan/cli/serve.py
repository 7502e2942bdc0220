"""``bartizan serve``."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import click

from bartizan.cli.main import FOUND, OK
from bartizan.cli.output import say, show, workspace
from bartizan.core.errors import InputError
from bartizan.lifecycle.deploy.gateway.admission import Admission
from bartizan.wiring.gateway_server import Gateway
from bartizan.wiring.serving import Tls, Wanted

MAX_PORT = 65535


@click.command()
@click.option("--gate", default="release", show_default=True, help="Gate whose verdict admits the model.")
@click.option("--model", default="", metavar="NAME", help="Serve this one alone, of all declared models.")
@click.option("--port", type=click.IntRange(0, MAX_PORT), default=8080, show_default=True, help="0 takes a free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--recheck", default="60s", show_default=True, metavar="TIME", help="Time between verifications: 30s, 5min, 1h."
)
@click.option(
    "--admin-port", type=click.IntRange(0, MAX_PORT), default=None, help="Port of the control plane; none without it."
)
@click.option("--admin-host", default="127.0.0.1", show_default=True, help="Address of the control plane.")
@click.option("--tls-cert", default="", metavar="FILE", help="Certificate chain (PEM); with it TLS is spoken.")
@click.option("--tls-key", default="", metavar="FILE", help="Its private key (PEM).")
@click.option("--tls-clients", default="", metavar="FILE", help="Authorities of client certificates (mutual TLS).")
@click.pass_context
def serve(ctx: click.Context, /, *, tls_cert: str, tls_key: str, tls_clients: str, **fields: Any) -> int:
    """Serve the declared model, as long as it is what was signed, scanned and judged.

    Speaks the Open Inference Protocol v2 over HTTP. The bytes of the model and of every declared document, their
    signatures, the scan and the gate's verdict are verified before the model is opened and then every --recheck;
    while one of them fails, nothing is answered, or what is declared to stand in. Who may ask, and what they are told,
    stands in the document called gateway (docs/gateway); without it nobody is answered.
    Exit code 1: a condition is not met, and nothing is served.

    \b
    Example: bartizan serve
             bartizan serve --gate deploy --recheck 5min --admin-port 8081
             bartizan serve --host 0.0.0.0 --port 8443 --tls-cert server.pem --tls-key server.key
    """
    if bool(tls_cert) != bool(tls_key) or (tls_clients and not tls_cert):
        raise InputError("TLS needs a certificate and its key", remedy="give --tls-cert and --tls-key.")
    tls = Tls(certificate=tls_cert, key=tls_key, clients=tls_clients) if tls_cert else None
    wanted = Wanted(tls=tls, **fields)
    with contextlib.closing(Gateway(workspace(ctx), wanted)) as gateway:
        for admission in gateway.refused:
            _print(admission, wanted.gate)
        if gateway.refused:
            return FOUND
        if not gateway.open_to:
            say("nobody is granted anything: declare a document called gateway, of kind configuration, with roles")
        gateway.serve(lambda places: _tell(gateway.admissions, places, "https" if tls else "http"))
    say("stopped")
    return OK


def _tell(admissions: Sequence[Admission], places: Sequence[tuple[str, int]], scheme: str) -> None:
    data, *control = [f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}" for host, port in places]
    for admission in admissions:
        say(f"serving {admission.model} sha256:{admission.digest} on {data}/v2")
    for place in control:
        say(f"control plane on {place}/admin/status")


def _print(admission: Admission, gate: str) -> None:
    """Each condition on its own lines: state, reason, and what to do."""
    show(f"{admission.model} is not served: gate {gate}, {len(admission.failed)} conditions are not met")
    for item in sorted(admission.findings, key=lambda item: item.met):
        show(f"  {'met    ' if item.met else 'NOT MET'}  {item.condition} ({item.artefact}): {item.reason}")
        if item.remedy:
            show(f"             next: {item.remedy}")
