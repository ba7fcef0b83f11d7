"""The engines ``serving`` and ``fastapi`` for real: processes on a loopback socket, asked by the load generator, recorded raw.

The module owns a session's life and turns requests into a record. What answers is in `host` and `baseline`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import select
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from windtunnel.engines.api import Capabilities, Option, Outcome, resolve_options
from windtunnel.engines.models.arrivals import arrival_times
from windtunnel.engines.models.latencies import statistics
from windtunnel.engines.models.serving import RULES

import windtunnel
from windtunnel.cluster import ClusterSpec
from windtunnel.errors import InputError, InvalidMeasurement, RunFailed, Unsupported
from windtunnel.record import Recorder
from windtunnel.serving import ServingSpec
from windtunnel.units import parse_bytes, parse_seconds
from windtunnel.workload import BoundWorkload

START_S = 60.0
STOP_S = 20.0
_COMMON = (
    Option(name="host", default="127.0.0.1", doc="address to listen on; loopback unless told otherwise"),
    Option(name="work", default="spin", doc="what a declared cost does: burn CPU time, or only take time",
           choices=("spin", "sleep")),
    Option(name="seed", default=0, doc="arrivals, choices and drawn durations each derive a stream of their own from it"),
    Option(name="send_lag", default="20ms", doc="a run whose 99th percentile of lateness in sending is above it is invalid"),
)  # fmt: skip
_HOST = (
    Option(name="choice", default="power_of_two", doc="which replica takes a request", choices=tuple(RULES)),
    Option(name="max_queued_requests", default=1000, doc="requests that may wait at a deployment; more are refused (503)"),
    Option(name="retries", default=1, doc="how often a call is tried again when a replica dies with it"),
    Option(name="request_timeout", default="30s", doc="a request that takes longer is answered as timed out (408)"),
    Option(name="max_body", default="16MiB", doc="longer bodies are refused (413)"),
)


class ServingSession:
    """Server processes between `prepare` and `close`."""

    def __init__(self, name: str, options: Mapping[str, Any], cluster: ClusterSpec) -> None:
        self._name, self._options, self._cluster = name, options, cluster
        self._timeout_s = parse_seconds(options.get("request_timeout", "30s"))
        self._max_body = parse_bytes(options.get("max_body", "16MiB"))
        self._lag_s = parse_seconds(options["send_lag"])
        self.processes: list[subprocess.Popen] = []
        self._socket: socket.socket | None = None

    @property
    def url(self) -> str:
        """Where requests go."""
        assert self._socket is not None
        host, port = self._socket.getsockname()[:2]
        return f"http://{host}:{port}/"

    def prepare(self, workload: BoundWorkload) -> None:
        """Start the servers and wait until they are ready. Raises Unsupported, RunFailed."""
        serving = workload.workload.serving
        if serving is None:
            raise Unsupported(f"{self._name} answers requests ([arrivals] with [[deployments]]) and runs no operators")
        if any(d.replicas.minimum != d.replicas.maximum for d in serving.deployments):
            raise Unsupported(f"{self._name} runs a fixed number of replicas; autoscaling is simulated only")
        if any(d.resources.gpus for d in serving.deployments):
            raise Unsupported(f"{self._name} has no GPU to give to a deployment")
        self._socket = socket.create_server((self._options["host"], 0), backlog=2048)
        module = "host" if self._name == "serving" else "baseline"
        count = 1 if self._name == "serving" else serving.deployments[0].replicas.minimum
        for number in range(count):
            self._launch(module, serving, number)
        for process in self.processes:
            _await_ready(process, START_S + max(d.startup_s for d in serving.deployments))

    def _launch(self, module: str, serving: ServingSpec, number: int) -> None:
        assert self._socket is not None
        fd = self._socket.fileno()
        process = subprocess.Popen(
            [sys.executable, "-m", f"windtunnel.engines.serving.{module}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(fd,),
        )  # fmt: skip
        self.processes.append(process)
        told = {
            "deployments": [asdict(d) for d in serving.deployments], "options": dict(self._options), "fd": fd, "number": number,
            "timeout_s": self._timeout_s, "max_body": self._max_body, "response_bytes": serving.arrivals.response_bytes or None,
        }  # fmt: skip
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(told).encode() + b"\n")
            process.stdin.flush()

    def run(self, workload: BoundWorkload, recorder: Recorder, output: Path) -> Outcome:
        """Send the scenario's requests. Raises InvalidMeasurement when the generator lagged, RunFailed when no answer was good."""
        from windtunnel.engines.serving.load import Target, closed_loop, open_loop

        serving = workload.workload.serving
        assert serving is not None
        spec = serving.arrivals
        if spec.request_bytes > self._max_body:
            raise InputError(f"requests of {spec.request_bytes} bytes are above max_body = {self._max_body}")
        target = Target(
            url=self.url, body=bytes(spec.request_bytes), expected_bytes=spec.response_bytes or spec.request_bytes,
            timeout_s=self._timeout_s + 10.0,
        )  # fmt: skip
        if spec.kind == "closed":
            assert spec.concurrency is not None and spec.duration_s is not None
            sent = asyncio.run(closed_loop(target, spec.concurrency, spec.duration_s, spec.think_time_s))
        else:
            sent = asyncio.run(open_loop(target, list(arrival_times(spec, self._options["seed"]))))
        write(recorder, sent, serving, spec.duration_s)
        lag = recorder.counters.get("send_lag_p99_s", 0.0)
        if lag > self._lag_s:
            raise InvalidMeasurement(
                f"the load generator sent 1 % of the requests {lag * 1e3:.1f} ms late or more, above "
                f"send_lag = {self._lag_s * 1e3:g} ms; lower the rate or use a quieter machine"
            )
        good = [r for r in sent if r.outcome == "ok"]
        if not good:
            raise RunFailed(f"none of {len(sent)} requests was answered well")
        return Outcome(table=pa.table({"done_s": [r.done_s for r in good]}), rows=len(good))

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
    numbers = Counter(dict.fromkeys(("ok", "rejected", "timed_out", "failed"), 0))
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
        """windtunnel's version, or that of FastAPI."""
        return windtunnel.__version__ if self.name == "serving" else version("fastapi")

    def open(self, cluster: ClusterSpec, options: Mapping[str, Any]) -> ServingSession:
        """Check the options; servers start when the deployments are known. Raises InputError."""
        chosen = resolve_options(self.name, self.options, options)
        for name in ("seed", "max_queued_requests", "retries"):
            value = chosen.get(name, 0)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise InputError(f"option {name} = {value!r} of engine {self.name!r} must be a whole number of 0 or more")
        return ServingSession(self.name, chosen, cluster)


EmbeddedServingEngine = partial(
    ServingEngine, "serving", _HOST,
    {
        "processes": "one host with the queues, and one process a replica",
        "overload": "a bounded queue; what does not fit is answered 503 with Retry-After",
        "retries": "a replica that dies is replaced, and its calls are tried again",
    },
)  # fmt: skip
FastApiEngine = partial(
    ServingEngine, "fastapi", (),
    {"processes": "uvicorn workers on one socket", "router": "none: the kernel hands connections to any worker process"},
)  # fmt: skip
