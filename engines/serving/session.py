"""A session of a real serving engine: server processes on a loopback socket, started, asked and ended.

The module owns their life and the judgement of a run. What answers is in `host`, `baseline`, `ray_host` and `fronts`; the record is
`journal`'s.
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
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from windtunnel.engines.api import Outcome
from windtunnel.engines.models.arrivals import arrival_times, token_lengths
from windtunnel.engines.models.calls import nobody_answered
from windtunnel.engines.serving.journal import write
from windtunnel.engines.serving.servers import SERVERS, Server
from windtunnel.engines.serving.work import EMULATED, find
from windtunnel.errors import InputError, InvalidMeasurement, RunFailed, Unsupported, WrongResult
from windtunnel.records.record import Recorder
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.serving import ArrivalSpec, ServingSpec
from windtunnel.spec.units import parse_bytes, parse_seconds
from windtunnel.spec.workload import BoundWorkload

if TYPE_CHECKING:
    from windtunnel.engines.serving.client import Sent
    from windtunnel.engines.serving.load import Loop

STOP_S = 20.0
_LENGTHS = 10_000  # of requests for tokens, of a closed loop
UNSTEADY = 0.49  # of the requests belong to the warm-up: there was no steady state


class ServingSession:
    """Server processes between `prepare` and `close`."""

    def __init__(self, server: Server, options: Mapping[str, Any], cluster: ClusterSpec) -> None:
        self._server, self._name, self._options, self._cluster = server, server.name, options, cluster
        self._timeout_s = parse_seconds(options.get("request_timeout", "30s"))
        self._max_body = parse_bytes(options.get("max_body", "16MiB"))
        self.lag_s = parse_seconds(options["send_lag"])
        self.processes: list[subprocess.Popen] = []
        self._socket: socket.socket | None = None
        self._port = 0
        self._generator_per_s = 0.0
        self._said: list[str] = []  # what a server tells while it runs
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
        server = self._server
        if not server.scales and any(d.replicas.minimum != d.replicas.maximum for d in serving.deployments):
            scaling = " and ".join(s.name for s in SERVERS.values() if s.scales)
            raise Unsupported(f"{self._name} runs a fixed number of workers; {scaling} have an autoscaler")
        self._samples = _samples(self._options["work"], serving)
        self._refuse_tokens(serving)
        self._refuse_faults()
        server.requires()
        if any(d.resources.gpus and not d.tokens for d in serving.deployments):
            raise Unsupported(f"{self._name} has no GPU to give to a deployment")
        self._socket = socket.create_server((self._options["host"], 0), backlog=2048)
        self._port = int(self._socket.getsockname()[1])
        if server.listens:  # itself, on a port that was free a moment ago
            self._socket.close()
            self._socket = None
        count = serving.deployments[0].replicas.minimum if server.a_replica else 1
        for number in range(count):
            self._launch(serving, number)
        self._generator_per_s = ceiling()  # while the servers start: a lower bound
        for process in self.processes:
            _await_ready(process, server.start_s + max(d.startup_s for d in serving.deployments))
        if not server.a_replica:
            threading.Thread(target=self._listen, name="said", daemon=True).start()

    def _refuse_faults(self) -> None:
        """Raise Unsupported for what cannot be done to processes here."""
        for fault in self._cluster.faults:
            if not self._server.kills or fault.kind != "worker_killed":
                raise Unsupported(
                    f"{self._name} runs no {fault.kind} for real; serving has worker_killed, the simulated world has all"
                )

    def _arm_faults(self) -> list[threading.Timer]:
        """The host kills its busiest replica at these times, as the simulated node does."""
        if not self._cluster.faults:
            return []
        host = self.processes[0].stdin
        assert host is not None

        def kill() -> None:
            with contextlib.suppress(OSError, ValueError):
                host.write(b"kill\n")
                host.flush()

        timers = [threading.Timer(fault.at_s, kill) for fault in self._cluster.faults]
        for timer in timers:
            timer.daemon = True
            timer.start()
        return timers

    def _refuse_tokens(self, serving: ServingSpec) -> None:
        """Raise Unsupported for what computes tokens where nothing here does."""
        if not any(d.tokens for d in serving.deployments):
            return
        if not self._server.tokens:
            raise Unsupported(f"{self._name} does not run the emulated language model (tokens); serving does")
        if len(serving.deployments) > 1:
            raise Unsupported("a deployment that computes tokens stands alone for real; only the simulated world composes it")

    def _listen(self) -> None:
        stream = self.processes[0].stdout
        assert stream is not None
        with contextlib.suppress(ValueError):  # closed
            self._said.extend(line.decode() for line in iter(stream.readline, b""))

    def _launch(self, serving: ServingSpec, number: int) -> None:
        fd = self._socket.fileno() if self._socket else -1
        process = subprocess.Popen(
            [sys.executable, "-m", f"windtunnel.engines.serving.{self._server.module}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(fd,) if self._socket else (),
        )  # fmt: skip
        self.processes.append(process)
        told = {
            "deployments": [asdict(d) for d in serving.deployments], "options": {**self._options, "behind": self._server.behind}, "fd": fd,
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
        timers = self._arm_faults()
        try:
            sent = self.ask(spec, loop)
        finally:
            for timer in timers:
                timer.cancel()
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
            raise RunFailed(nobody_answered(len(sent), Counter(r.outcome for r in sent)))
        return Outcome(table=pa.table({"done_s": [r.done_s for r in good]}), rows=len(good), verified=True)

    def ask(self, spec: ArrivalSpec, loop: Loop) -> list[Sent]:
        """Carry out a load with requests of these bytes. Raises InputError for those that are too long."""
        from windtunnel.engines.serving.client import Target
        from windtunnel.engines.serving.load import generate

        if spec.request_bytes > self._max_body:
            raise InputError(f"requests of {spec.request_bytes} bytes are above max_body = {self._max_body}")
        target = Target(
            url=self.url, body_bytes=spec.request_bytes, answer_bytes=spec.response_bytes or spec.request_bytes,
            samples=self._samples, tokens=self._tokens(spec, loop), timeout_s=self._timeout_s + 10.0,
            deadline_s=self._timeout_s,
        )  # fmt: skip
        return generate(target, loop, self._generators(loop))

    def _tokens(self, spec: ArrivalSpec, loop: Loop) -> tuple[tuple[int, int], ...]:
        """Of requests in the order of sending; a closed loop, which has no number of them, takes the first ones in turn."""
        return tuple(islice(token_lengths(spec, self._options["seed"]), len(loop.times) or _LENGTHS))

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
