"""The engines ``serving``, ``fastapi`` and ``ray-serve`` for real: processes on a loopback socket, asked and recorded raw.

The module owns a session's life and turns requests into a record. What answers is in `host`, `baseline` and `ray_host`.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from windtunnel.engines.api import Capabilities, Option, Outcome, resolve_options
from windtunnel.engines.models.arrivals import arrival_times
from windtunnel.engines.models.latencies import settling, statistics
from windtunnel.engines.models.serving import HOST, RULES
from windtunnel.engines.serving.work import EMULATED, find

import windtunnel
from windtunnel.cluster import ClusterSpec
from windtunnel.errors import InputError, InvalidMeasurement, RunFailed, Unsupported, WrongResult
from windtunnel.record import Recorder
from windtunnel.serving import ArrivalSpec, ServingSpec
from windtunnel.units import parse_bytes, parse_seconds
from windtunnel.workload import BoundWorkload

if TYPE_CHECKING:
    from windtunnel.engines.serving.client import Sent
    from windtunnel.engines.serving.load import Loop

START_S = {"ray-serve": 180.0}
_START_S = 60.0
_MODULES = {"serving": "host", "fastapi": "baseline", "ray-serve": "ray_host", "dask-serve": "fronts", "bulk-serve": "fronts"}
_SCALING = ("serving", "ray-serve")
STOP_S = 20.0
UNSTEADY = 0.49  # of the requests belong to the warm-up: there was no steady state
_COMMON = (
    Option(name="host", default="127.0.0.1", doc="address to listen on; loopback unless told otherwise"),
    Option(name="work", default="spin", doc="what a deployment does: spin (burn the CPU time that its cost declares), sleep, or "
           "module:function of a function that makes a handler of bodies"),
    Option(name="seed", default=0, doc="arrivals, choices and drawn durations each derive a stream of their own from it"),
    Option(name="steady", default=False, doc="a run whose latencies have not settled after half of its requests is invalid"),
    Option(name="send_lag", default="20ms", doc="a run whose 99th percentile of lateness in sending is above it is invalid"),
)  # fmt: skip
_HOST = (
    Option(name="choice", default=HOST["choice"], doc="which replica takes a request", choices=tuple(RULES)),
    Option(
        name="max_queued_requests",
        default=HOST["max_queued_requests"],
        doc="requests that may wait at a deployment; more are refused (503)",
    ),
    Option(name="retries", default=HOST["retries"], doc="how often a call is tried again when a replica dies with it"),
    Option(
        name="request_timeout", default=HOST["request_timeout"], doc="a request that takes longer is answered as timed out (408)"
    ),
    Option(name="max_body", default="16MiB", doc="longer bodies are refused (413)"),
    Option(name="lookback", default="30s", doc="what an autoscaler averages the ongoing requests over"),
    Option(name="client_timeout", default="10s", doc="how long a request may take to arrive, and an idle connection stays open"),
    Option(name="max_connections", default=10_000, doc="connections at a time; more are refused (503)"),
    Option(name="app", default="", doc="module:name of an ASGI application (FastAPI, ...) that answers all other paths"),
    Option(name="grpc_port", default=0, doc="a port for gRPC beside HTTP; 0: none"),
)


class ServingSession:
    """Server processes between `prepare` and `close`."""

    def __init__(self, name: str, options: Mapping[str, Any], cluster: ClusterSpec) -> None:
        self._name, self._options, self._cluster = name, options, cluster
        self._timeout_s = parse_seconds(options.get("request_timeout", "30s"))
        self._max_body = parse_bytes(options.get("max_body", "16MiB"))
        self.lag_s = parse_seconds(options["send_lag"])
        self.processes: list[subprocess.Popen] = []
        self._socket: socket.socket | None = None
        self._port = 0
        self._generator_per_s = 0.0
        self._said: list[str] = []  # what a server tells while it runs
        self._more = {"behind": name.removesuffix("-serve")}
        self._samples: tuple[tuple[bytes, bytes], ...] = ()

    @property
    def url(self) -> str:
        """Where requests go."""
        return f"http://{self._options['host']}:{self._port}/"

    def prepare(self, workload: BoundWorkload) -> None:
        """Start the servers and wait until they are ready. Raises Unsupported, RunFailed."""
        from windtunnel.engines.serving.load import ceiling

        serving = workload.workload.serving
        if serving is None:
            raise Unsupported(f"{self._name} answers requests ([arrivals] with [[deployments]]) and runs no operators")
        ray = self._name == "ray-serve"
        if self._name not in _SCALING and any(d.replicas.minimum != d.replicas.maximum for d in serving.deployments):
            raise Unsupported(f"{self._name} runs a fixed number of workers; {' and '.join(_SCALING)} have an autoscaler")
        self._samples = _samples(self._options["work"], serving)
        if any(d.resources.gpus for d in serving.deployments):
            raise Unsupported(f"{self._name} has no GPU to give to a deployment")
        self._socket = socket.create_server((self._options["host"], 0), backlog=2048)
        self._port = int(self._socket.getsockname()[1])
        if ray:  # it listens itself, on a port that was free a moment ago
            self._socket.close()
            self._socket = None
        count = serving.deployments[0].replicas.minimum if self._name == "fastapi" else 1
        for number in range(count):
            self._launch(serving, number)
        self._generator_per_s = ceiling()  # while the servers start: a lower bound
        for process in self.processes:
            _await_ready(process, START_S.get(self._name, _START_S) + max(d.startup_s for d in serving.deployments))
        if self._name != "fastapi":
            threading.Thread(target=self._listen, name="said", daemon=True).start()

    def _listen(self) -> None:
        stream = self.processes[0].stdout
        assert stream is not None
        with contextlib.suppress(ValueError):  # closed
            self._said.extend(line.decode() for line in iter(stream.readline, b""))

    def _launch(self, serving: ServingSpec, number: int) -> None:
        fd = self._socket.fileno() if self._socket else -1
        process = subprocess.Popen(
            [sys.executable, "-m", f"windtunnel.engines.serving.{_MODULES[self._name]}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(fd,) if self._socket else (),
        )  # fmt: skip
        self.processes.append(process)
        told = {
            "deployments": [asdict(d) for d in serving.deployments], "options": {**self._options, **self._more}, "fd": fd,
            "port": self._port,
            "number": number, "timeout_s": self._timeout_s, "max_body": self._max_body,
            "response_bytes": serving.arrivals.response_bytes or None,
        }  # fmt: skip
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(told).encode() + b"\n")
            process.stdin.flush()

    def run(self, workload: BoundWorkload, recorder: Recorder, output: Path) -> Outcome:
        """Send the scenario's requests. Raises InvalidMeasurement when the generator lagged, RunFailed when no answer was good."""
        from windtunnel.engines.serving.load import Loop

        serving = workload.workload.serving
        assert serving is not None
        spec = serving.arrivals
        if spec.kind == "closed":
            assert spec.concurrency is not None and spec.duration_s is not None
            loop = Loop(clients=spec.concurrency, duration_s=spec.duration_s, think_s=spec.think_time_s)
        else:
            loop = Loop(times=tuple(arrival_times(spec, self._options["seed"])))
        begun = time.monotonic()
        sent = self.ask(spec, loop)
        count = self._generators(loop)
        recorder.counters.update(generator_ceiling_per_s=self._generator_per_s * count, generator_processes=float(count))
        write(recorder, sent, serving, spec.duration_s)
        for told_s, counts in map(json.loads, self._said):
            for name, count in counts.items():
                recorder.sample(f"replicas:{name}", max(told_s - begun, 0.0), count)
        lag = recorder.counters.get("send_lag_p99_s", 0.0)
        if lag > self.lag_s:
            raise InvalidMeasurement(
                f"the load generator sent 1 % of the requests {lag * 1e3:.1f} ms late or more, above "
                f"send_lag = {self.lag_s * 1e3:g} ms; lower the rate or use a quieter machine"
            )
        if self._options["steady"] and recorder.counters.get("warm_up_share", 0.0) >= UNSTEADY:
            raise InvalidMeasurement(
                "the latencies have not settled after half of the requests: the load is above what the server can do, or the run too short"
            )
        wrong = sum(r.outcome == "wrong" for r in sent)
        if wrong:
            raise WrongResult(f"{wrong} of {len(sent)} answers were not what their requests ask for")
        good = [r for r in sent if r.outcome == "ok"]
        if not good:
            raise RunFailed(f"none of {len(sent)} requests was answered well")
        return Outcome(table=pa.table({"done_s": [r.done_s for r in good]}), rows=len(good), verified=True)

    def ask(self, spec: ArrivalSpec, loop: Loop) -> list[Sent]:
        """Carry out a load with requests of these bytes. Raises InputError for those that are too long."""
        from windtunnel.engines.serving.client import Target
        from windtunnel.engines.serving.load import generate

        if spec.request_bytes > self._max_body:
            raise InputError(f"requests of {spec.request_bytes} bytes are above max_body = {self._max_body}")
        target = Target(
            url=self.url, body_bytes=spec.request_bytes, answer_bytes=spec.response_bytes or spec.request_bytes,
            samples=self._samples, timeout_s=self._timeout_s + 10.0,
        )  # fmt: skip
        return generate(target, loop, self._generators(loop))

    def _generators(self, loop: Loop) -> int:
        """Processes that hold the schedule."""
        from windtunnel.engines.serving.load import processes_for

        if not loop.times:
            return 1
        return processes_for(len(loop.times) / max(loop.times[-1], 0.1), self._generator_per_s)

    def close(self) -> None:
        """Drain and end the servers; idempotent."""
        for process in self.processes:
            if process.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()
        end = time.monotonic() + STOP_S
        for process in self.processes:
            try:
                process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        self.processes.clear()
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def write(recorder: Recorder, sent: list, serving: ServingSpec, duration_s: float | None) -> None:
    """Raw times of every request as spans and samples, and the counters that scenarios promise."""
    first = serving.deployments[0].name
    numbers = Counter(dict.fromkeys(("ok", "rejected", "timed_out", "failed", "wrong"), 0))
    for number, r in enumerate(sent):
        numbers[r.outcome] += 1
        recorder.span("request", first, r.intended_s, r.done_s, partition=number, rows=int(r.outcome == "ok"))
        recorder.span("emit", "client", r.intended_s, r.sent_s, partition=number)
        if r.first_byte_s:
            recorder.span("fetch", "client", r.sent_s, r.first_byte_s, partition=number)
        if r.outcome == "ok":
            recorder.sample("latency_s", r.done_s, r.done_s - r.intended_s)
        for name, replica, queued, begun, ended, items in r.trace:
            recorder.span("queue", name, queued, begun, partition=number, worker=replica)
            recorder.span("compute", name, begun, ended, partition=number, worker=replica, rows=items)
    for d in serving.deployments:
        recorder.sample(f"replicas:{d.name}", 0.0, d.replicas.minimum)
    end = max((r.done_s for r in sent), default=0.0)
    window = duration_s or max((r.intended_s for r in sent), default=0.0) or 1.0
    ends = np.array([r.done_s for r in sent if r.outcome == "ok"])
    recorder.counters.update({f"requests_{name}": float(n) for name, n in numbers.items()})
    recorder.counters.update(
        requests_sent=float(len(sent)), offered_per_s=len(sent) / window, makespan_s=end,
        throughput_per_s=float((ends <= window).sum()) / window,
    )  # fmt: skip
    if sent:
        recorder.counters["send_lag_p99_s"] = float(np.percentile([r.sent_s - r.intended_s for r in sent], 99))
    if len(ends):
        recorder.counters.update(statistics(np.array([r.done_s - r.intended_s for r in sent if r.outcome == "ok"])))
        recorder.counters["first_output_s"] = float(ends.min())
        recorder.counters["warm_up_share"] = settling(np.array([r.done_s - r.intended_s for r in sent if r.outcome == "ok"]))


def _samples(work: str, serving: ServingSpec) -> tuple[tuple[bytes, bytes], ...]:
    """Requests for a handler of the user's, and their right answers: what the same handler gives here. Raises InputError."""
    if work in EMULATED:
        return ()
    if len(serving.deployments) > 1:
        raise InputError(f"work = {work!r} serves one deployment; a composition is emulated (spin or sleep)")
    handler = find(work)()
    bodies = getattr(handler, "samples", None)
    if bodies is None:
        raise InputError(f"the handler of {work!r} must have a method samples() that gives bodies of requests to send")
    return tuple((body, _whole(handler([body]))) for body in bodies())


def _whole(answers: Any) -> bytes:
    return b"".join(answers) if isinstance(answers, Iterator) else bytes(answers[0])


def _await_ready(process: subprocess.Popen, seconds: float) -> None:
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], seconds)[0]:
        raise RunFailed(f"the serving process was not ready within {seconds:g} s")
    if process.stdout.readline().strip() != b"ready":
        raise RunFailed(f"the serving process ended with code {process.wait()} before it was ready")


class ServingEngine:
    """``serving``: the embedded host. ``fastapi``: the baseline."""

    def __init__(self, name: str, options: tuple[Option, ...], features: Mapping[str, str]) -> None:
        self.name = name
        self.options = (*_COMMON, *options)
        told = {"serving": "answers requests over HTTP, asked by an open-loop (or closed-loop) load generator"}
        self.capabilities = Capabilities(features={**told, **features})

    def version(self) -> str:
        """windtunnel's version, or that of the library."""
        library = {"ray-serve": "ray", "dask-serve": "distributed", "fastapi": "fastapi"}.get(self.name)
        return version(library) if library else windtunnel.__version__

    def open(self, cluster: ClusterSpec, options: Mapping[str, Any]) -> ServingSession:
        """Check the options; servers start when the deployments are known. Raises InputError."""
        chosen = resolve_options(self.name, self.options, options)
        for name in ("seed", "max_queued_requests", "retries", "max_connections", "grpc_port"):
            value = chosen.get(name, 0)
            if isinstance(value, bool) or not isinstance(value, int) or value < -(self.name == "ray-serve"):
                raise InputError(f"option {name} = {value!r} of engine {self.name!r} must be a whole number of 0 or more")
        if not isinstance(chosen["steady"], bool):
            raise InputError(f"option steady = {chosen['steady']!r} of engine {self.name!r} must be true or false")
        return ServingSession(self.name, chosen, cluster)


EmbeddedServingEngine = partial(
    ServingEngine, "serving", _HOST,
    {
        "processes": "one host with the queues, and one process a replica",
        "doors": "HTTP/1.1 on raw connections, gRPC beside it, an ASGI application mounted under its own paths",
        "autoscaling": "Ray Serve's rules, the same code as in the simulated world; scales to zero",
        "streaming": "a handler that gives an iterator is answered in pieces",
        "deadline": "reaches the replica: calls that nobody waits for any more are skipped or broken off",
        "overload": "a bounded queue; what does not fit is answered 503 with Retry-After",
        "retries": "a replica that dies is replaced, and its calls are tried again",
    },
)  # fmt: skip
FastApiEngine = partial(
    ServingEngine, "fastapi", (),
    {"processes": "uvicorn workers on one socket", "router": "none: the kernel hands connections to any worker process"},
)  # fmt: skip
RayServeEngine = partial(
    ServingEngine, "ray-serve",
    (
        Option(name="proxy", default="python", doc="what stands before the replicas: Serve's Python proxy, or HAProxy",
               choices=("python", "haproxy")),
        Option(name="max_queued_requests", default=-1, doc="requests that may wait at a handle; more are 503; -1: no limit"),
        Option(name="request_timeout", default="30s", doc="a request that takes longer is answered as timed out (408)"),
        Option(name="max_body", default="16MiB", doc="longer bodies are refused (413)"),
    ),
    {
        "processes": "a Ray cluster of its own: controller, a proxy, one process a replica",
        "autoscaling": "Ray Serve's own; the record has the number of replicas over time",
        "resources": "replicas ask Ray for no CPUs: the processes share the machine, as on the other hosts",
    },
)  # fmt: skip
_FRONT = (
    Option(name="max_queued_requests", default=1000, doc="requests that may be inside; more are refused (503)"),
    Option(name="request_timeout", default="30s", doc="a request that takes longer is answered as timed out (408)"),
    Option(name="max_body", default="16MiB", doc="longer bodies are refused (413)"),
    Option(name="client_timeout", default="10s", doc="how long a request may take to arrive, and an idle connection stays open"),
    Option(name="max_connections", default=10_000, doc="connections at a time; more are refused (503)"),
)
_INSIDE = (
    "deployments that the first one calls run in the same worker, one after another; batches and autoscaling are not offered"
)
DaskServeEngine = partial(
    ServingEngine, "dask-serve", _FRONT,
    {
        "serving": "Dask has no server: a thin HTTP front submits a task for every request to a LocalCluster of processes",
        "composition": _INSIDE, "router": "Dask's scheduler",
    },
)  # fmt: skip
BulkServeEngine = partial(
    ServingEngine, "bulk-serve",
    (*_FRONT, Option(name="trigger", default="0s", doc="time between the starts of two rounds; 0: as soon as the last is done")),
    {
        "serving": "a batch engine asked to serve: rounds of all that waits, shared evenly among workers, with a barrier between",
        "composition": _INSIDE, "router": "none: a round is cut into equal shares",
    },
)  # fmt: skip
