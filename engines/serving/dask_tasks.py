"""Dask behind the thin HTTP front: a task for every request. The module owns the cluster; what a worker runs is `fronts`'."""

from __future__ import annotations

import asyncio
from typing import Any

from windtunnel.engines.serving.fronts import Served, hold, work
from windtunnel.engines.serving.process import Told


def _hold(told: Told, dask_worker: Any) -> None:
    hold(told, int(dask_worker.name))  # a LocalCluster names them 0, 1, ...


class DaskTasks:
    """A task for every request on a LocalCluster of processes with one thread each."""

    def __init__(self, told: Told) -> None:
        self._told = told
        self._cluster: Any = None
        self._client: Any = None

    async def open(self) -> None:
        """Start the cluster, and load what every worker runs."""
        import dask
        from distributed import Client, LocalCluster

        dask.config.set({"distributed.worker.daemon": True})
        self._cluster = await LocalCluster(
            n_workers=self._told.deployments[0].replicas.minimum, threads_per_worker=1, processes=True, host="127.0.0.1",
            dashboard_address="127.0.0.1:0", asynchronous=True, silence_logs=50,
        )  # fmt: skip
        self._client = await Client(self._cluster, asynchronous=True)
        await self._client.run(_hold, self._told)

    async def ask(self, body: bytes) -> Served:
        """Submit, and fetch the result."""
        future = self._client.submit(work, [body], pure=False)
        try:
            answers: list[Served] = await future
        except asyncio.CancelledError:
            await future.cancel()
            raise
        return answers[0]

    async def close(self) -> None:
        """End the cluster."""
        if self._client is not None:
            await self._client.close()
        if self._cluster is not None:
            await self._cluster.close()
