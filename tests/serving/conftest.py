"""A host whose handler is a function of the tests', with an ASGI application beside it and a gRPC door."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from windtunnel.registry import load_engine
from windtunnel.scenario.reading import parse_scenario
from windtunnel.spec.cluster import ClusterSpec

SCENARIO = """
schema = 1
name = "t"
[[cluster.nodes]]
name = "here"
count = 1
cpus = 2
memory = "4GiB"
[arrivals]
{arrivals}
duration = "1s"
[[engines]]
name = "{engine}"
{options}
"""


UNIFORM = 'kind = "uniform"\nrate_per_s = 10'


def scenario(deployments: str, engine: str = "serving", arrivals: str = UNIFORM, options: str = "") -> str:
    """A whole scenario of a second, for this machine, from its interesting parts."""
    return SCENARIO.format(engine=engine, arrivals=arrivals, options=options and f"options = {{ {options} }}") + deployments


MODULE = """
import time

class Shout:
    def __call__(self, bodies):
        body = bodies[0]
        if body.startswith(b"pieces"):
            return self.pieces(float(body[6:] or 0))
        if body == b"raise":
            raise ValueError("no")
        if body.startswith(b"sleep"):
            time.sleep(float(body[5:]))
        return [b.upper() for b in bodies]

    def pieces(self, pause):
        for i in range(5):
            yield b"<%d>" % i
            time.sleep(pause)

    def samples(self):
        return [b"a", b"bb", b"pieces"]

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"7")]})
    await send({"type": "http.response.body", "body": b"mounted"})
"""


@contextmanager
def running(folder: Path, deployments: str, arrivals: str = UNIFORM, engine: str = "serving", **options: Any) -> Iterator[Any]:
    """A session whose servers run."""
    session = load_engine(engine).open(ClusterSpec.here(), options)
    try:
        session.prepare(parse_scenario(scenario(deployments, arrivals=arrivals)).workload.bind(folder))
        yield session
    finally:
        session.close()


@pytest.fixture(scope="module")
def handlers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the module ``shouting``, which this process and its children can import."""
    folder = tmp_path_factory.mktemp("handlers")
    (folder / "shouting.py").write_text(MODULE, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(p for p in (str(folder), os.environ.get("PYTHONPATH")) if p))
        patch.syspath_prepend(str(folder))
        yield folder


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def replicas(session: Any) -> list[psutil.Process]:
    """The processes below the host's."""
    return psutil.Process(session.processes[0].pid).children()
