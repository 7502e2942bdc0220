"""Mutual TLS against a server that really runs: who shows a certificate is known by it, and others do not get in."""

from __future__ import annotations

import asyncio
import http.client
import ipaddress
import json
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bartizan.adapters.uvicorn.tls import TlsProtocol
from bartizan.lifecycle.deploy.gateway.caller import Showing
from bartizan.lifecycle.deploy.gateway.failures import RequestError
from bartizan.lifecycle.deploy.gateway.identity.certificates import Certificates
from bartizan.lifecycle.deploy.gateway.identity.settings import CertificateSettings, ClientSettings
from fixtures.gateways import configured, serving

NOW = datetime.now(UTC)


class Authority:
    """Makes certificates."""

    def __init__(self, folder, name):
        self.folder, self.name = folder, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.path = self._written(name, self._built(self.name, self.key, [], authority=True))

    def issue(self, name, *names):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        path = self._written(name, self._built(subject, key, names, authority=False), key)
        return str(path)

    def _built(self, subject, key, names, *, authority):
        made = x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(key.public_key())
        made = made.serial_number(x509.random_serial_number()).not_valid_before(NOW - timedelta(days=1))
        made = made.not_valid_after(NOW + timedelta(days=1))
        made = made.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        if names:
            made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return made.sign(self.key, hashes.SHA256())

    def _written(self, name, certificate, key=None):
        path = self.folder / f"{name}.pem"
        data = certificate.public_bytes(serialization.Encoding.PEM)
        if key is not None:
            data += key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        path.write_bytes(data)
        return str(path)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ours"), "ours")


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def port(request, authority):
    """A server that tells whom it recognises."""
    recogniser = Certificates(
        CertificateSettings(client=(ClientSettings(san="uri:spiffe://north/camera", role="sensor"),))
    )

    async def application(scope, _receive, send):
        chain = scope.get("extensions", {}).get("tls", {}).get("client_cert_chain", [""])
        try:
            caller = recogniser.recognise(Showing({}, scope["client"][0], chain[0]), time.time())
            told = {"role": caller.role if caller else None}
        except RequestError as error:
            told = {"status": error.status}
        body = json.dumps(told).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    own = authority.issue("server", address)
    config = uvicorn.Config(
        application,
        host="127.0.0.1",
        port=0,
        http=TlsProtocol,
        loop=request.param,
        lifespan="off",
        ws="none",
        log_config=None,
        ssl_certfile=own,
        ssl_ca_certs=authority.path,
        ssl_cert_reqs=ssl.CERT_OPTIONAL,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


def ask(port, authority, certificate=None, times=1):
    context = ssl.create_default_context(cafile=authority.path)
    if certificate:
        context.load_cert_chain(certificate)
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=10)
    told = []
    for _ in range(times):
        connection.request("GET", "/")
        told.append(json.loads(connection.getresponse().read()))
    connection.close()
    return told


def test_a_client_is_known_by_the_certificate_of_its_connection(port, authority):
    known = authority.issue("camera", x509.UniformResourceIdentifier("spiffe://north/camera"))
    assert ask(port, authority, known, times=3) == [{"role": "sensor"}] * 3
    unknown = authority.issue("other", x509.UniformResourceIdentifier("spiffe://north/other"))
    assert ask(port, authority, unknown) == [{"status": 401}]
    assert ask(port, authority) == [{"role": None}]


def test_a_certificate_of_somebody_else_does_not_connect(port, authority, tmp_path):
    foreign = Authority(tmp_path, "foreign")
    forged = foreign.issue("camera", x509.UniformResourceIdentifier("spiffe://north/camera"))
    with pytest.raises((ssl.SSLError, OSError, http.client.HTTPException)):
        ask(port, authority, forged)


def test_a_gateway_that_runs_knows_clients_by_their_certificates(digits_project, tmp_path, authority, digits_held_out):
    """Whoever connects shows a certificate of the authority; whom it names has a role, and others have none."""
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    own = authority.issue("gateway", address)
    configuration = """
[[identity.certificates.client]]
san = "uri:spiffe://north/camera"
role = "user"

[role.user]
"""
    folder = configured(digits_project, tmp_path / "project", configuration)
    known = authority.issue("known", x509.UniformResourceIdentifier("spiffe://north/camera"))
    unknown = authority.issue("unknown", x509.UniformResourceIdentifier("spiffe://north/other"))
    tensor = {"name": "features", "shape": [1, 64], "datatype": "FP64", "data": digits_held_out[0][0].tolist()}
    options = ("--tls-cert", own, "--tls-key", own, "--tls-clients", authority.path)
    with serving(folder, *options) as client:

        def asked(certificate, **headers):
            context = ssl.create_default_context(cafile=authority.path)
            if certificate:
                context.load_cert_chain(certificate)
            connection = http.client.HTTPSConnection("127.0.0.1", client.port, context=context, timeout=30)
            sent = {"content-type": "application/json", **headers}
            connection.request("POST", "/v2/models/digits/infer", json.dumps({"inputs": [tensor]}), sent)
            status = connection.getresponse().status
            connection.close()
            return status

        assert asked(known) == 200
        assert asked(unknown) == 401
        assert asked(unknown, authorization="Bearer x") == 401
        body = "".join(Path(known).read_text().split("-----")[2].split())
        assert asked(unknown, **{"client-cert": f":{body}:"}) == 401, "a header shows nothing where no proxy is trusted"
        assert asked(None) == 401
