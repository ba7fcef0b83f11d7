"""What each serving engine's processes are and can do, as data: one `Server` an engine. A new one is a line here and one in `engine`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


def _java() -> None:
    from windtunnel.engines.adapters.spark_session import require_java

    require_java()


def _nothing() -> None:
    """Needs nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """``module``: of the process, below this package. ``library``: whose version it tells, empty: windtunnel's own. ``start_s``: how
    long it may take to be ready. ``listens``: it opens its port itself. ``a_replica``: a process for each replica, which tell nothing
    while they run. ``scales``: it has an autoscaler; ``tokens``: it runs the emulated language model; ``kills``: it kills a replica when it
    is told to. ``behind``: what stands behind the thin front. ``requires``: raises where something is missing that no package brings.
    """

    name: str
    module: str
    library: str = ""
    start_s: float = 60.0
    listens: bool = False
    a_replica: bool = False
    scales: bool = False
    tokens: bool = False
    kills: bool = False
    behind: str = ""
    requires: Callable[[], None] = _nothing


SERVERS = {
    server.name: server
    for server in (
        Server(name="serving", module="host", scales=True, tokens=True, kills=True),
        Server(name="fastapi", module="baseline", library="fastapi", a_replica=True),
        Server(name="ray-serve", module="ray_host", library="ray", start_s=180.0, listens=True, scales=True),
        Server(name="dask-serve", module="fronts", library="distributed", behind="dask"),
        Server(name="spark-serve", module="fronts", library="pyspark", start_s=120.0, behind="spark", requires=_java),
        Server(name="bulk-serve", module="fronts", behind="bulk"),
        Server(name="url", module=""),
    )
}
