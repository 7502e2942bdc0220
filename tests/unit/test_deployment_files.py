"""What operators copy: each file is well-formed, and keeps what it promises."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))


def manifests():
    return [item for path in MANIFESTS for item in yaml.safe_load_all(path.read_text())]


def of_kind(*kinds):
    return {item["metadata"]["name"]: item for item in manifests() if item["kind"] in kinds}


WORKLOADS = of_kind("StatefulSet", "Deployment")


def pod(workload):
    return workload["spec"]["template"]["spec"]


# ---- Kubernetes


def test_two_gateways_a_database_and_shared_state():
    assert {name: item["spec"]["replicas"] for name, item in WORKLOADS.items()} == {
        "gateway": 2,
        "postgres": 1,
        "valkey": 1,
    }
    assert of_kind("PodDisruptionBudget")["gateway"]["spec"]["minAvailable"] == 1


@pytest.mark.parametrize("name", WORKLOADS)
def test_pods_keep_to_the_restricted_standard(name):
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/, and a read-only root besides."""
    spec = pod(WORKLOADS[name])
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    assert spec["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    assert not any("hostPath" in volume for volume in spec["volumes"])
    for container in spec["containers"]:
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]
        assert re.search(r"@sha256:[0-9a-f]{64}$", container["image"])
        assert {"readinessProbe", "livenessProbe"} <= container.keys()


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_mount_has_its_volume_and_every_service_its_pod(name):
    workload, service = WORKLOADS[name], of_kind("Service")[name]
    spec = pod(workload)
    claims = {item["metadata"]["name"] for item in workload["spec"].get("volumeClaimTemplates", ())}
    volumes = {volume["name"] for volume in spec["volumes"]} | claims
    assert {mount["name"] for mount in spec["containers"][0]["volumeMounts"]} == volumes
    labels = workload["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    ports = {port["name"] for port in spec["containers"][0]["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def test_nothing_is_reachable_but_what_is_named():
    policies = of_kind("NetworkPolicy")
    everything = policies.pop("nothing")["spec"]
    assert everything == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert policies.keys() == WORKLOADS.keys()
    for name in ("postgres", "valkey"):
        (rule,) = policies[name]["spec"]["ingress"]
        assert rule["from"] == [{"podSelector": {"matchLabels": {"app": "gateway"}}}]
        assert "egress" not in policies[name]["spec"]
    for rule in policies["gateway"]["spec"]["egress"]:
        assert rule["to"]
        assert rule["ports"]


def test_connections_are_encrypted_and_secrets_are_in_no_file():
    (container,) = pod(WORKLOADS["gateway"])["containers"]
    values = {item["name"]: item.get("value", "") for item in container["env"]}
    for name in ("RECORDS", "AUDIT", "APIKEYS", "CASES"):
        assert "sslmode=verify-full" in values[f"BARTIZAN_{name}"]
        assert not re.search(r"//[^/]*:[^/]*@", values[f"BARTIZAN_{name}"])
    secret = {item["name"] for item in container["env"] if "secretKeyRef" in item.get("valueFrom", {})}
    assert secret == {"PGPASSWORD", "BARTIZAN_STATE"}
    arguments = pod(WORKLOADS["valkey"])["containers"][0]["args"]
    assert arguments[arguments.index("--port") + 1] == "0"
    assert {"--tls-port", "--aclfile"} <= set(arguments)
    assert arguments[arguments.index("--appendonly") + 1] == "yes"
    assert not any(item["kind"] == "Secret" for item in manifests())


def test_settings_of_the_files_are_settings_of_the_program():
    from bartizan.wiring.settings import SETTINGS  # noqa: PLC0415

    known = {setting.variable for setting in SETTINGS}
    for path in (*MANIFESTS, DEPLOY / "container/Containerfile", DEPLOY / "systemd/bartizan-gateway.service"):
        named = set(re.findall(r"BARTIZAN_[A-Z_]+", path.read_text()))
        assert named <= known, path


def test_drain_ends_before_it_is_cut_short():
    from bartizan.wiring.gateway_server import GRACEFUL_SECONDS  # noqa: PLC0415

    spec = pod(WORKLOADS["gateway"])
    (waited,) = re.findall(
        r"sleep\((\d+)\)", " ".join(spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"])
    )
    assert int(waited) + GRACEFUL_SECONDS < spec["terminationGracePeriodSeconds"]
    unit = (DEPLOY / "systemd/bartizan-gateway.service").read_text()
    assert int(re.search(r"TimeoutStopSec=(\d+)s", unit)[1]) > GRACEFUL_SECONDS


# ---- commands


def test_commands_are_those_of_the_program():
    from bartizan.cli.serve import serve  # noqa: PLC0415

    options = {name for option in serve.params for name in option.opts}
    texts = (
        " ".join(pod(WORKLOADS["gateway"])["containers"][0]["args"]),
        re.search(r"^CMD \[(.*)\]", (DEPLOY / "container/Containerfile").read_text(), re.MULTILINE)[1],
        re.search(r"^ExecStart=(.*)", (DEPLOY / "systemd/bartizan-gateway.service").read_text(), re.MULTILINE)[1],
    )
    for text in texts:
        assert "serve" in text
        assert set(re.findall(r"--[a-z]+", text)) <= options


# ---- container


def test_image_runs_as_nobody_from_verified_packages():
    text = (DEPLOY / "container/Containerfile").read_text()
    steps = re.sub(r"\\\n", " ", text)
    assert re.search(r"^ARG BASE=\S+@sha256:[0-9a-f]{64}$", text, re.MULTILINE)
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {"${BASE}"}
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE) == ["65532:65532"]
    assert "ADD " not in text
    for line in steps.splitlines():
        if "pip install" in line:
            assert "--require-hashes" in line or "--no-deps" in line
    for source in re.findall(r"^COPY ((?!--from)\S.*) \S+$", text, re.MULTILINE):
        for name in source.split():
            made = f"-o {name}" in (DEPLOY.parent / "Makefile").read_text()
            assert made or (DEPLOY.parent / name).exists()


# ---- systemd


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_unit_is_one_and_is_shut_in(tmp_path):
    unit = (DEPLOY / "systemd/bartizan-gateway.service").read_text()
    path = tmp_path / "bartizan-gateway.service"
    path.write_text(unit.replace("/opt/bartizan/bin/bartizan", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    command = ["systemd-analyze", "security", "--offline=yes", "--threshold=25", path]
    exposed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert exposed.returncode == 0, exposed.stdout[-500:]


# ---- proxy


@pytest.mark.skipif(not shutil.which("nginx"), reason="needs nginx")
def test_proxy_is_understood(tmp_path, self_signed):
    certificate, key = self_signed
    text = (DEPLOY / "proxy/nginx.conf").read_text()
    text = text.replace("/etc/nginx/tls/tls.key", str(key))
    text = re.sub(r"/etc/nginx/tls/\S+\.crt", str(certificate), text)
    text = text.replace("/var/log/nginx/error.log", str(tmp_path / "error.log"))
    path = tmp_path / "nginx.conf"
    path.write_text(f"pid {tmp_path}/pid;\n" + text)
    command = ["nginx", "-t", "-q", "-e", str(tmp_path / "error.log"), "-c", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def self_signed(tmp_path):
    """A certificate and its key."""
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-subj", "/CN=models.example", "-days", "1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key
