"""Ray Serve for real: the scenario's deployments as Serve deployments, behind Serve's own HTTP proxy and, if asked for, its gRPC proxy.

It runs as `python -m windtunnel.engines.serving.ray_host`, told by one line of JSON, starts a Ray of its own and ends it with its
input. On standard output it says that it is ready, and from then on how many replicas run, whenever that changes. What the
deployments do is the same emulated handler as in the other hosts.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import os
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from windtunnel.engines.adapters.ray_cluster import QUIET, end_processes
from windtunnel.engines.serving.process import Told
from windtunnel.engines.serving.wire import SERVICE, TRACE
from windtunnel.engines.serving.work import EMULATED, handler, reply
from windtunnel.errors import InputError
from windtunnel.spec.serving import BatchSpec, Calls, DeploymentSpec, flatten

APP = "windtunnel"
_LISTEN = "WINDTUNNEL_LISTEN"
LOOK_S = 0.5  # how often the number of replicas is asked for


def _library(name: str) -> Any:
    """Part of Ray, whose types do not say what its decorators make."""
    return importlib.import_module(name)


class _Message(bytes):
    """Bytes where Serve's gRPC proxy expects a protobuf message."""

    def SerializeToString(self) -> bytes:
        """What is sent."""
        return bytes(self)


def add_service(_: Any, server: Any) -> None:
    """Tell Serve's gRPC server of the embedded host's unary method; Serve itself puts its router behind it."""
    import grpc

    handlers = {"Ask": grpc.unary_unary_rpc_method_handler(None)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))


def bind_to_host() -> None:
    """In every process of the cluster: Serve's gRPC proxy listens where the HTTP one does. Ray 2.60 knows all interfaces only."""
    defaults = _library("ray.serve._private.default_impl")
    host = os.environ[_LISTEN]
    defaults.add_grpc_address = lambda server, address: server.add_insecure_port(f"{host}:{address.rpartition(':')[2]}")


class Visit:
    """One deployment of the graph: its own work, then the calls to others; the first one speaks HTTP too."""

    def __init__(self, spec: DeploymentSpec, told: dict[str, Any], index: int, callees: dict[str, Any]) -> None:
        self._spec, self._told, self._callees = spec, told, callees
        self._number = os.getpid()
        self._work = handler(spec.cost, told["work"], told["seed"], index, self._number)
        self._batch = _batched(spec.batch, self._together) if spec.batch.max_size > 1 else None
        time.sleep(spec.startup_s)

    async def __call__(self, request: Any) -> Any:
        """An HTTP request: starlette's, as Serve hands it over."""
        from starlette.responses import Response

        body = await request.body()
        if len(body) > self._told["max_body"]:
            return Response(f"the body is longer than the limit of {self._told['max_body']} bytes\n", 413)
        trace, answer = await self.visit(body)
        headers = {TRACE: json.dumps(trace)} if TRACE in request.headers else {}
        if self._told["work"] in EMULATED:
            answer = reply(body, self._told["response_bytes"])
        return Response(answer, headers=headers, media_type="application/octet-stream")

    async def Ask(self, body: bytes, grpc_context: Any) -> _Message:
        """A gRPC request: bytes, as the embedded host's door takes them."""
        if len(body) > self._told["max_body"]:
            import grpc

            grpc_context.set_code(grpc.StatusCode.RESOURCE_EXHAUSTED)  # Serve reads it when a call raises
            raise InputError(f"the body is longer than the limit of {self._told['max_body']} bytes")
        trace, answer = await self.visit(body)
        if any(name == TRACE for name, _ in grpc_context.invocation_metadata() or ()):
            grpc_context.set_trailing_metadata([(TRACE, json.dumps(trace))])
        return _Message(reply(body, self._told["response_bytes"]) if self._told["work"] in EMULATED else answer)

    async def visit(self, body: bytes) -> tuple[list[list[Any]], bytes]:
        """A call: where the time of it and of the calls it made went, and its own answer."""
        queued = time.monotonic()
        begun, ended, items, answer = self._once([body])[0] if self._batch is None else await self._batch(body)
        trace: list[list[Any]] = [[self._spec.name, self._number, queued, begun, ended, items]]
        await self._in_order(self._spec.calls, body, trace)
        return trace, answer

    def _once(self, bodies: list[bytes]) -> list[tuple[float, float, int, bytes]]:
        begun = time.monotonic()
        answers = self._work(bodies)
        ended = time.monotonic()
        if not isinstance(answers, list):  # an iterator: Serve would send its pieces, and the whole is asked for here
            answers = [b"".join(answers)]
        return [(begun, ended, len(bodies), answer) for answer in answers]

    async def _together(self, bodies: list[bytes]) -> list[tuple[float, float, int, bytes]]:
        return self._once(bodies)

    async def _in_order(self, calls: Calls, body: bytes, trace: list[list[Any]]) -> None:
        for item in calls:
            if isinstance(item, str):
                trace += (await self._callees[item].visit.remote(body))[0]
            else:
                await asyncio.gather(*(self._in_order((c,) if isinstance(c, str) else c, body, trace) for c in item))


def _batched(batch: BatchSpec, function: Any) -> Any:
    """Serve's own dynamic batching around a function of lists."""
    serve = _library("ray.serve")

    async def call(items: list[bytes]) -> list[tuple[float, float, int, bytes]]:
        return list(await function(items))

    return serve.batch(call, max_batch_size=batch.max_size, batch_wait_timeout_s=batch.wait_s)


def application(told: Told) -> Any:
    """The deployments bound to each other, the first one last."""
    serve = _library("ray.serve")

    plain = {"work": told.options["work"], "seed": told.options["seed"], "max_body": told.max_body,
             "response_bytes": told.response_bytes}  # fmt: skip
    bound: dict[str, Any] = {}

    def bind(spec: DeploymentSpec) -> Any:
        if spec.name not in bound:
            callees = {name: bind(specs[name]) for name in dict.fromkeys(flatten(spec.calls))}
            made = serve.deployment(Visit).options(name=spec.name, **settings(spec, told))
            bound[spec.name] = made.bind(spec, plain, order[spec.name], callees)
        return bound[spec.name]

    specs = {d.name: d for d in told.deployments}
    order = {d.name: i for i, d in enumerate(told.deployments)}
    return bind(told.deployments[0])


def settings(spec: DeploymentSpec, told: Told) -> dict[str, Any]:
    """A deployment's options in Serve's words. Replicas ask for no CPUs: the processes share what there is, as the other hosts' do."""
    replicas = spec.replicas
    chosen: dict[str, Any] = {
        "max_ongoing_requests": spec.max_ongoing, "max_queued_requests": told.options["max_queued_requests"],
        "ray_actor_options": {"num_cpus": 0},
    }  # fmt: skip
    if replicas.minimum == replicas.maximum:
        return {**chosen, "num_replicas": replicas.minimum}
    scaling = {
        "min_replicas": replicas.minimum, "max_replicas": replicas.maximum,
        "upscale_delay_s": replicas.upscale_delay_s, "downscale_delay_s": replicas.downscale_delay_s,
    }  # fmt: skip
    if replicas.target_ongoing is not None:
        scaling["target_ongoing_requests"] = replicas.target_ongoing
    return {**chosen, "autoscaling_config": scaling}


def _named(function: Any) -> str:
    """How another process finds it: this module is `__main__` here."""
    return f"{__package__}.ray_host.{function.__name__}"


def _grpc(told: Told) -> dict[str, Any]:
    """What starts Serve's gRPC proxy, where a port is asked for."""
    if not (port := told.options["grpc_port"]):
        return {}
    options = {"grpc_servicer_functions": [_named(add_service)], "request_timeout_s": told.timeout_s, "enable_reflection": False}
    return {"grpc_options": {"port": port, **options}}


def _counts() -> dict[str, int]:
    serve = _library("ray.serve")

    found = serve.status().applications[APP].deployments
    return {name: int(d.replica_states.get("RUNNING", 0)) for name, d in found.items()}


def _watch(said: Any, over: threading.Event) -> None:
    """Say how many replicas run, whenever that has changed."""
    last: dict[str, int] = {}
    while not over.wait(LOOK_S):
        counts = _counts()
        if counts != last:
            last = counts
            print(json.dumps([time.monotonic(), counts]), file=said, flush=True)


def _until_told(over: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    over.set()


def main() -> None:
    """Entry point."""
    said = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Ray prints is no answer
    told = Told.read()
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    threading.Thread(target=_until_told, args=(over,), daemon=True).start()
    scratch = Path(tempfile.mkdtemp(prefix="wt-"))
    os.environ.update(
        QUIET, RAY_SERVE_LOG_TO_STDERR="0", **{_LISTEN: told.options["host"]},
        RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S="60", RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S="60",  # a busy machine is no dead proxy
    )  # fmt: skip
    if told.options["proxy"] == "haproxy":
        folder = scratch / "haproxy"
        os.environ.update(
            RAY_SERVE_ENABLE_HA_PROXY="1", RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S="1",
            RAY_SERVE_HAPROXY_CONFIG_FILE_LOC=str(folder / "haproxy.cfg"), RAY_SERVE_HAPROXY_SERVER_STATE_BASE=str(folder),
            RAY_SERVE_HAPROXY_SOCKET_PATH=str(folder / "admin.sock"),
            RAY_SERVE_HAPROXY_SERVER_STATE_FILE=str(folder / "server-state"),
        )  # fmt: skip
    ray, serve = _library("ray"), _library("ray.serve")

    try:
        ray.init(
            address="local", num_cpus=max(4, os.cpu_count() or 1), include_dashboard=False, _temp_dir=str(scratch),
            _node_ip_address="127.0.0.1", object_store_memory=200 * 2**20, logging_level=logging.ERROR, log_to_driver=False,
            runtime_env={"worker_process_setup_hook": _named(bind_to_host)} if told.options["grpc_port"] else None,
        )  # fmt: skip
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        serve.start(
            http_options={"host": told.options["host"], "port": told.port, "request_timeout_s": told.timeout_s},
            logging_config={"log_level": "ERROR", "enable_access_log": False}, **_grpc(told),
        )  # fmt: skip
        serve.run(application(told), name=APP, route_prefix="/")
        print("ready", file=said, flush=True)
        _watch(said, over)
    finally:
        serve.shutdown()
        ray.shutdown()
        end_processes(str(scratch))
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
