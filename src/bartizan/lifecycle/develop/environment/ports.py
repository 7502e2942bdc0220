"""Services of this host that listen for others: notebooks, trackers, clusters, model servers, databases.

Read from ``/proc/net/tcp`` and ``tcp6`` (Linux, proc(5)): nothing is connected to. A port is judged by its
number and, where the owner of the socket can be told, by the program's name; whether a password stands
in front is not visible from here, and a firewall elsewhere is not seen.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from bartizan.core.finding import Finding, Severity
from bartizan.lifecycle.develop.environment.tested import Tested, answer

LISTENING = "0A"
LARGEST_TABLE = 64 << 20
MOST_PROCESSES = 20_000
_SOCKET = re.compile(r"socket:\[(\d+)\]")


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """What usually listens on a port, and what reaching it gives."""

    name: str
    severity: Severity
    gives: str
    source: str = ""


_CODE = "Whoever reaches it without a password runs code with the rights of the service."
_DATA = "Whoever reaches it without a password reads and changes what it keeps."
_MODEL = "Whoever reaches it without a password may query the model without limit, and copy or replace it."


def _service(name: str, severity: Severity, gives: str, source: str = "") -> Service:
    return Service(name=name, severity=severity, gives=gives, source=source)


_JUPYTER = _service("Jupyter", Severity.HIGH, _CODE)
_MLFLOW = _service("MLflow", Severity.HIGH, _DATA, "CVE-2023-1177, CVE-2023-6977")
_RAY = _service("Ray", Severity.CRITICAL, _CODE, "CVE-2023-48022")
_DASK = _service("Dask", Severity.CRITICAL, _CODE)
_DOCKER = _service("the Docker engine", Severity.CRITICAL, _CODE)
_OLLAMA = _service("Ollama", Severity.HIGH, _MODEL, "CVE-2024-37032")
_TENSORBOARD = _service("TensorBoard", Severity.MEDIUM, _DATA)
_SERVING = _service("a model server", Severity.MEDIUM, _MODEL)
_TORCHSERVE = _service("the TorchServe management interface", Severity.CRITICAL, _CODE, "CVE-2023-43654")
_SPARK = _service("Spark", Severity.CRITICAL, _CODE)

PORTS: dict[int, Service] = {
    2375: _DOCKER,
    2376: _service("the Docker engine (TLS)", Severity.MEDIUM, _CODE),
    2379: _service("etcd", Severity.HIGH, _DATA),
    3306: _service("MySQL", Severity.MEDIUM, _DATA),
    4040: _service("the Spark console", Severity.MEDIUM, _DATA),
    4200: _service("Prefect", Severity.HIGH, _CODE),
    5000: _MLFLOW,
    5432: _service("PostgreSQL", Severity.MEDIUM, _DATA),
    6006: _TENSORBOARD,
    6333: _service("Qdrant", Severity.HIGH, _DATA),
    6379: _service("Redis or Valkey", Severity.HIGH, _DATA),
    7077: _SPARK,
    8000: _SERVING,
    8001: _SERVING,
    8080: _SERVING,
    8081: _TORCHSERVE,
    8265: _RAY,
    8500: _SERVING,
    8501: _SERVING,
    8786: _DASK,
    8787: _service("the Dask dashboard", Severity.MEDIUM, _DATA),
    8793: _service("Airflow logs", Severity.MEDIUM, _DATA),
    8888: _JUPYTER,
    9000: _service("an object store or model server", Severity.MEDIUM, _DATA),
    9200: _service("Elasticsearch or OpenSearch", Severity.HIGH, _DATA),
    10001: _RAY,
    10250: _service("kubelet", Severity.HIGH, _CODE),
    11434: _OLLAMA,
    19530: _service("Milvus", Severity.HIGH, _DATA),
    27017: _service("MongoDB", Severity.HIGH, _DATA),
    50051: _SERVING,
}
"""Port to what is usually served there."""

PROGRAMS: tuple[tuple[str, Service], ...] = (
    ("jupyter", _JUPYTER),
    ("ipykernel", _JUPYTER),
    ("mlflow", _MLFLOW),
    ("tensorboard", _TENSORBOARD),
    ("dask", _DASK),
    ("raylet", _RAY),
    ("gcs_server", _RAY),
    ("ollama", _OLLAMA),
    ("dockerd", _DOCKER),
    ("torchserve", _TORCHSERVE),
    ("tritonserver", _SERVING),
    ("tensorflow_model_server", _SERVING),
    ("vllm", _SERVING),
)
"""Part of a command line to what it serves, whatever the port."""


class Listener(msgspec.Struct, frozen=True, kw_only=True):
    """A socket that waits for connections."""

    address: str
    port: int
    user: int
    inode: int

    @property
    def is_local(self) -> bool:
        """Whether only programs of this machine can reach it."""
        address = ipaddress.ip_address(self.address)
        mapped = getattr(address, "ipv4_mapped", None)
        return bool((mapped or address).is_loopback)


def ports(proc: Path, allowed: Iterable[int] = ()) -> Tested:
    """Whether services that must not be reached by others listen on an outside address."""
    tables, missed = _tables(proc)
    listeners = [listener for table in tables for listener in parse_table(table)]
    outside = sorted(
        {listener.inode: listener for listener in listeners if not listener.is_local}.values(),
        key=lambda each: (each.port, each.address),
    )
    commands = _commands(proc, {each.inode for each in outside}) if outside else {}
    permitted = frozenset(allowed)
    findings = [
        _finding(each, service)
        for each in outside
        if each.port not in permitted and (service := _serves(each.port, commands.get(each.inode, "")))
    ]
    unique = {(finding.rule, finding.where): finding for finding in findings}
    note = f"{len(listeners)} listening sockets, {len(outside)} of them on an outside address"
    return answer("host/ports", unique.values(), note, unknown=missed)


def _tables(proc: Path) -> tuple[list[str], str]:
    """Contents of both tables, and why there are none; a kernel without IPv6 has but one."""
    tables = []
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), (proc / "net" / name).open("rb") as stream:
            tables.append(stream.read(LARGEST_TABLE).decode("ascii", "replace"))
    return tables, "" if tables else f"{proc}/net/tcp cannot be read: listening ports are not known"


def parse_table(text: str) -> Iterator[Listener]:
    """Listening sockets of a table of the kernel; other lines are passed over."""
    for line in text.splitlines()[1:]:
        fields = line.split()
        with contextlib.suppress(ValueError, IndexError):
            if fields[3] == LISTENING:
                address, _, port = fields[1].partition(":")
                yield Listener(address=_address(address), port=int(port, 16), user=int(fields[7]), inode=int(fields[9]))


def _address(text: str) -> str:
    """An address that the kernel wrote as numbers of four bytes in its own byte order."""
    raw = bytes.fromhex(text)
    words = [raw[start : start + 4] for start in range(0, len(raw), 4)]
    ordered = b"".join(word[::-1] for word in words) if sys.byteorder == "little" else raw
    return str(ipaddress.ip_address(ordered))


def _commands(proc: Path, inodes: set[int]) -> dict[int, str]:
    """Command line of the program behind each socket, where this account may see it."""
    found: dict[int, str] = {}
    with contextlib.suppress(OSError):
        numbers = sorted(name for name in os.listdir(proc) if name.isdigit())[:MOST_PROCESSES]  # noqa: PTH208 -- /proc is large
        for number in numbers:
            held = _sockets(proc / number / "fd") & inodes
            if held:
                command = _command(proc / number)
                found.update(dict.fromkeys(held, command))
    return found


def _sockets(folder: Path) -> set[int]:
    held = set()
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):  # noqa: PTH208 -- names are enough
            with contextlib.suppress(OSError):
                match = _SOCKET.match(os.readlink(folder / name))  # noqa: PTH115 -- what it leads to is no path
                if match:
                    held.add(int(match[1]))
    return held


def _command(folder: Path) -> str:
    with contextlib.suppress(OSError), (folder / "cmdline").open("rb") as stream:
        return stream.read(4096).replace(b"\0", b" ").decode("utf-8", "replace").lower()
    return ""


def _serves(port: int, command: str) -> Service | None:
    by_name = next((service for part, service in PROGRAMS if part in command), None)
    return by_name or PORTS.get(port)


def _finding(listener: Listener, service: Service) -> Finding:
    host = f"[{listener.address}]" if ":" in listener.address else listener.address
    return Finding(
        rule="environment/exposed-service",
        severity=service.severity,
        title=f"A port of {service.name} listens for other machines",
        where=f"tcp://{host}:{listener.port}",
        detail=f"{service.gives} {service.source}".strip(),
        remedy="bind it to 127.0.0.1 and put an authenticating proxy in front, or allow the port in [environment].",
        cwe=("CWE-306", "CWE-668"),
        techniques=("AML.T0049",),
        controls=("2.2-f",),
    )
