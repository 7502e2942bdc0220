"""Load for servers: closed-loop to find what a request costs, open-loop to see how long one takes.

Open loop means that requests are due at a constant rate whatever the server does, and that the time of each counts
from when it was due: a server that stalls makes all requests behind it late, and that shows (coordinated omission,
G. Tene 2013). CPU is what the kernel charged to the server's processes, which other work on the machine barely
changes; rates and latencies it does change, so compare them within one run only.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

WARMING = 0.3
"""Seconds of load after a server was woken and before it is measured."""
TRIES = 3
"""How often a round is taken in which the host gave a core to somebody else."""
TICKS = os.sysconf("SC_CLK_TCK")
SERVER_CORE, CLIENT_CORE = 0, min(1, (os.cpu_count() or 1) - 1)


@dataclass
class Histogram:
    """Latencies in classes that are 2 % wide."""

    counts: dict[int, int] = field(default_factory=dict)
    total: int = 0

    def add(self, seconds):
        """Count one."""
        at = math.ceil(math.log(max(seconds, 1e-6) / 1e-6, 1.02))
        self.counts[at] = self.counts.get(at, 0) + 1
        self.total += 1

    def join(self, other):
        """Count what another one has counted."""
        for at, count in other.counts.items():
            self.counts[at] = self.counts.get(at, 0) + count
        self.total += other.total

    def quantile(self, share):
        """Milliseconds below which this share lies."""
        left = math.ceil(share * self.total)
        for at in sorted(self.counts):
            left -= self.counts[at]
            if left <= 0:
                return 1e-3 * 1.02**at
        return math.nan

    def lines(self):
        """The distribution, as a column of quantiles."""
        shares = (0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)
        return [f"p{100 * share:<5g} {self.quantile(share):9.2f} ms" for share in shares]


class Connection(asyncio.Protocol):
    """One kept connection that sends one request after the other."""

    def __init__(self, requests):
        self.requests, self.buffer, self.due = requests, b"", None

    def connection_made(self, transport):
        """See ``asyncio.Protocol``."""
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self):
        """Send the next request; gives what becomes its status."""
        self.due = asyncio.get_running_loop().create_future()
        self.transport.write(next(self.requests))
        return self.due

    def data_received(self, data):
        """See ``asyncio.Protocol``."""
        self.buffer += data
        head = self.buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        low = self.buffer[:head].lower()
        if b"transfer-encoding: chunked" in low:
            if not self.buffer.endswith(b"0\r\n\r\n"):
                return
        else:
            at = low.find(b"content-length:")
            length = int(low[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.buffer) < head + 4 + length:
                return
        status = int(self.buffer[9:12])
        self.buffer = b""
        if self.due is not None and not self.due.done():
            self.due.set_result(status)

    def connection_lost(self, error):
        """See ``asyncio.Protocol``."""
        del error
        if self.due is not None and not self.due.done():
            self.due.set_exception(ConnectionError("the server closed the connection"))


def request(port, path, body, headers=()):
    """Bytes of one POST."""
    lines = [f"POST {path} HTTP/1.1", f"host: 127.0.0.1:{port}", "content-type: application/json"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body


async def connected(port, data, count):
    """Connections that take turns in sending these requests, again and again."""
    loop, turns = asyncio.get_running_loop(), itertools.cycle(data)
    return [(await loop.create_connection(lambda: Connection(turns), "127.0.0.1", port))[1] for _ in range(count)]


async def closed_loop(port, data, seconds, clients=32):
    """As fast as the server can: answers, and how many of them were no 200."""
    connections = await connected(port, data, clients)
    end, done, bad = time.monotonic() + seconds, 0, 0

    async def one(connection):
        nonlocal done, bad
        while time.monotonic() < end:
            status = await connection.ask()
            done += 1
            bad += status != 200

    await asyncio.gather(*(one(connection) for connection in connections))
    for connection in connections:
        connection.transport.close()
    return done, bad


async def open_loop(port, data, rate, seconds, *, clients=64, look=lambda: None):
    """At a constant rate: latencies counted from when each request was due, and the number without a 200.

    Connections are kept, and have had a first request each, which does not count. ``look`` is called when the first
    request is due and when the last was answered; what it gives comes as well.
    """
    free, bad = asyncio.Queue(), 0
    for connection in await connected(port, data, clients):
        bad += await connection.ask() != 200
        free.put_nowait(connection)
    histogram, tasks = Histogram(), set()
    before, began = look(), time.monotonic()

    async def one(due):
        nonlocal bad
        connection = await free.get()
        try:
            bad += await connection.ask() != 200
        except ConnectionError:
            bad += 1
        histogram.add(time.monotonic() - due)
        free.put_nowait(connection)

    for number in range(int(rate * seconds)):
        due = began + number / rate
        if (wait := due - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        task = asyncio.ensure_future(one(due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    if tasks:
        await asyncio.wait(set(tasks), timeout=30)
    after = look()
    while not free.empty():
        free.get_nowait().transport.close()
    return histogram, bad, before, after


class Server:
    """A server process and everything it starts, on a core of its own."""

    def __init__(self, command, port, log, folder=None, **environment):
        self.port, self._known = port, set()
        self._log = Path(log).open("wb")  # noqa: SIM115 - closed with the server
        one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            ["taskset", "-c", str(SERVER_CORE), *command],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **one, **environment},
            cwd=folder,
            start_new_session=True,
        )

    def wait(self, seconds=120):
        """Until it listens. Raises RuntimeError."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return self
            time.sleep(0.2)
        self.close()
        said = Path(self._log.name).read_text(errors="replace")
        raise RuntimeError(f"{' '.join(self.process.args[3:6])} does not listen: {said[-2000:]}")

    def processes(self):
        """Ids of its processes: those of its session, and whatever these have started in sessions of their own."""
        session, parents = {}, {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                    parents[int(entry.name)], session[int(entry.name)] = int(fields[1]), int(fields[3])
        found = {pid for pid, leader in session.items() if leader == self.process.pid}
        while more := {pid for pid, parent in parents.items() if parent in found and pid not in found}:
            found |= more
        self._known |= found
        return [pid for pid in self._known if pid in parents]

    def cpu(self):
        """Seconds of processor time of all its processes so far, those that ended and were waited for included."""
        total = 0
        for pid in self.processes():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                total += sum(int(value) for value in fields[11:15])
        return total / TICKS

    @contextlib.contextmanager
    def turn(self):
        """Awake for a while; until its next turn it is stopped and takes nothing from the others."""
        self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            self._signal(signal.SIGSTOP)

    def _signal(self, number):
        for pid in self.processes():
            with contextlib.suppress(OSError):
                os.kill(pid, number)

    def memory(self):
        """Proportional set size of all its processes, in MiB."""
        total = 0
        for pid in self.processes():
            with contextlib.suppress(OSError):
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        return total / 1024

    def close(self):
        """End the whole session."""
        self._signal(signal.SIGCONT)
        for number in (signal.SIGTERM, signal.SIGKILL):
            self._signal(number)
            end = time.monotonic() + 10
            while time.monotonic() < end and self.processes():
                self.process.poll()
                time.sleep(0.1)
            if not self.processes():
                break
        self.process.wait()
        self._log.close()


@dataclass
class Measured:
    """What one server did."""

    name: str
    server: Server
    data: list
    micros: list[float] = field(default_factory=list)
    """CPU of a request, round by round."""
    rates: list[float] = field(default_factory=list)
    latency: Histogram = field(default_factory=Histogram)
    """Of all rounds."""
    memory: float = 0.0
    bad: int = 0

    @property
    def cost(self):
        """Microseconds of CPU of a request: the median of the rounds."""
        return median(self.micros)

    @property
    def rate(self):
        """Requests a second that it can do."""
        return median(self.rates)

    def beside(self, floor):
        """Times the cost of another one: the median of the rounds, in each of which both had the same machine."""
        return median([own / other for own, other in zip(self.micros, floor.micros, strict=True)])

    def press(self, seconds):
        """One round at full load."""
        with self.server.turn():
            asyncio.run(closed_loop(self.server.port, self.data, WARMING))
            before, began = self.server.cpu(), time.monotonic()
            done, wrong = asyncio.run(closed_loop(self.server.port, self.data, seconds))
            self.micros.append((self.server.cpu() - before) / done * 1e6)
        self.rates.append(done / (time.monotonic() - began))
        self.bad += wrong

    def ease(self, seconds, share):
        """One round at a share of the rate."""
        found, *_ = self.at(self.rate * share, seconds)
        self.latency.join(found)

    def at(self, rate, seconds):
        """One round at this rate: latencies, the share of a core that it kept busy, and seconds that were stolen."""
        with self.server.turn():
            asyncio.run(closed_loop(self.server.port, self.data, WARMING))
            found, wrong, before, after = asyncio.run(
                open_loop(
                    self.server.port,
                    self.data,
                    rate,
                    seconds,
                    look=lambda: (self.server.cpu(), time.monotonic(), stolen()),
                )
            )
            self.memory = self.server.memory()
        self.bad += wrong
        worked, took, gone = (later - earlier for later, earlier in zip(after, before, strict=True))
        return found, worked / took, gone


@dataclass
class Pair:
    """A server and the floor at one rate: the one that keeps half of the server's core busy."""

    measured: Measured
    floor: Measured
    rate: float = 0.0
    latency: Histogram = field(default_factory=Histogram)
    floors: Histogram = field(default_factory=Histogram)
    busy: list[float] = field(default_factory=list)
    tried: int = 0
    """Rounds, those included in which somebody else had a core."""

    def find(self, seconds, load=0.5):
        """The rate at which the server's core is busy for this share of the time."""
        least, most, tried = 0.0, self.measured.rate, []
        for _ in range(7):
            rate = (least + most) / 2
            _, busy, gone = self.measured.at(rate, seconds)
            if gone:
                _, busy, _ = self.measured.at(rate, seconds)
            tried.append((abs(busy - load), rate))
            least, most = (least, rate) if busy > load else (rate, most)
        self.rate = min(tried)[1]

    def round(self, seconds):
        """Both, one after the other. Counts when nobody else had one of the cores meanwhile."""
        self.tried += 1
        floors, _, before = self.floor.at(self.rate, seconds)
        found, busy, gone = self.measured.at(self.rate, seconds)
        if before or gone:
            return
        self.floors.join(floors)
        self.latency.join(found)
        self.busy.append(busy)


def paired(servers, floor, *, seconds=1.0, rounds=15):
    """Each server beside the floor at the rate at which its own core is half busy.

    Half of the highest rate is more than that for a server that does the work of many requests at once: under less
    load fewer come together, each costs more, and the core is busy nearly all the time.

    The host of a virtual machine may give a core to somebody else for some ten milliseconds now and then: that is in
    one answer of a hundred, at the floor as well, and no server has to do with it. Rounds in which it happened are
    taken again, up to ``TRIES`` times as many as are wanted.
    """
    pairs = [Pair(each, floor) for each in servers]
    for pair in pairs:
        pair.find(seconds)
    for _ in range(TRIES * rounds):
        for pair in pairs:
            if len(pair.busy) < rounds:
                pair.round(seconds)
    return pairs


def stolen():
    """Seconds for which the host had the server's core, or the client's, to itself; 0 where nothing tells."""
    with contextlib.suppress(OSError):
        lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
        cores = {f"cpu{core}" for core in (SERVER_CORE, CLIENT_CORE)}
        return sum(int(fields[8]) for fields in lines if fields and fields[0] in cores) / TICKS
    return 0.0


def measured(servers, *, seconds=4.0, rounds=3, half=0.5):
    """CPU of a request, the rate it can do, and latencies at half of that rate, of servers that take turns.

    ``servers`` are names, servers and requests. Requests differ: a server may remember answers, and a detector would
    take repeats for an attack. Taking turns, all have the same share of a machine's slow and quick moments.
    """
    os.sched_setaffinity(0, {CLIENT_CORE})
    found = [Measured(*each) for each in servers]
    for each in found:
        with each.server.turn():
            asyncio.run(closed_loop(each.server.port, each.data, 1.0))
    for _ in range(rounds):
        for each in found:
            each.press(seconds)
    for _ in range(rounds):
        for each in found:
            each.ease(seconds, half)
    return found


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]
