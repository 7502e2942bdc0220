"""A Dask cluster as an executor of campaigns: the same shards, run by whoever has a core to spare.

Workers need the same packages, the module of the opener, and the folder of journals where a killed shard is to go
on instead of beginning anew. A worker that dies is no loss: the scheduler gives its shards to others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from distributed import Client, as_completed

from bartizan.core.errors import WorkError
from bartizan.redteam.campaign import Item, Outcome, Running

_as_completed: Any = as_completed
AHEAD = 2
"""Shards in hand for each thread of the cluster, so that none waits for the next."""
DEATHS = 3
"""Times that a shard whose worker died is begun again; the scheduler counts."""


class DaskExecutor:
    """Runs on the cluster of a client. See ``redteam.campaign.Executor``."""

    def __init__(self, client: Client) -> None:
        self._client: Any = client

    def run(self, function: Callable[[Item], Outcome], items: Iterable[Item]) -> Running[Item, Outcome]:
        """See ``Executor.run``.

        Raises:
            WorkError: the cluster has no workers, or a shard's workers died too often.
        """
        waiting = iter(items)
        threads = sum(self._client.nthreads().values())
        if not threads:
            raise WorkError("the Dask cluster has no workers", remedy="start some: dask worker ADDRESS.")
        # Sent once, not with every shard; and as a task, because data that were only sent die with their worker.
        shared = self._client.submit(_same, function, pure=False, retries=DEATHS)
        running = {self._submit(shared, item): item for item in islice(waiting, AHEAD * threads)}
        coming = _as_completed(list(running), loop=self._client.loop)
        try:
            for future in coming:
                item = running.pop(future)
                outcome = _outcome(future)
                for more in islice(waiting, 1):
                    added = self._submit(shared, more)
                    running[added] = more
                    coming.add(added)
                yield item, outcome
        finally:
            self._client.cancel(list(running))

    def _submit(self, function: Any, item: Any) -> Any:
        return self._client.submit(_call, function, item, pure=False, retries=DEATHS)


def _same(function: Any) -> Any:
    return function


def _call(function: Callable[[Any], Any], item: Any) -> Any:
    return function(item)


def _outcome(future: Any) -> Any:
    try:
        return future.result()
    except Exception as error:
        raise WorkError(
            f"a shard could not be run on the cluster: {type(error).__name__}: {error}",
            remedy="see the log of the workers; they need the same packages and the same files.",
        ) from error
