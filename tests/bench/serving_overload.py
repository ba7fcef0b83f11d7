"""The embedded host at three times its ceiling for a minute, then at a fifth of it: `python -m tests.bench.serving_overload [SECONDS]`.

A Poisson load that cannot be served: what is accepted keeps its deadline, the rest is refused (503), memory stays bounded, and the
first request after it is answered as fast as before it. Every answer is compared with what it must be.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from windtunnel.engines.models.arrivals import arrival_times
from windtunnel.engines.serving.client import Sent
from windtunnel.engines.serving.engine import EmbeddedServingEngine
from windtunnel.engines.serving.load import Loop

from windtunnel.cluster import ClusterSpec
from windtunnel.scenario import parse_scenario
from windtunnel.serving import ArrivalSpec

DEADLINE_S = 2.0
TEXT = """
schema = 1
name = "overload"
[[cluster.nodes]]
name = "here"
count = 1
cpus = 2
memory = "4GiB"
[arrivals]
kind = "uniform"
rate_per_s = 1
duration = "1s"
request_bytes = "1kB"
[[engines]]
name = "serving"
[[deployments]]
name = "one"
cost = { per_call = "1ms" }
"""


class Watch(threading.Thread):
    """The memory of a process and its children, until stopped."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._process, self._over = psutil.Process(pid), threading.Event()
        self.megabytes: list[float] = []

    def run(self) -> None:
        while not self._over.wait(0.5):
            family = [self._process, *self._process.children()]
            self.megabytes.append(sum(p.memory_info().rss for p in family) / 1e6)

    def stop(self) -> None:
        self._over.set()
        self.join()


def told(sent: list[Sent]) -> dict[str, Any]:
    """Counts and latencies of one load."""
    good = np.array([r.done_s - r.intended_s for r in sent if r.outcome == "ok"]) * 1e3
    lag = float(np.percentile([r.sent_s - r.intended_s for r in sent], 99)) * 1e3
    found = dict(zip(("p50_ms", "p99_ms", "max_ms"), np.percentile(good, [50, 99, 100]).round(2).tolist(), strict=True))
    late = Counter(int(r.intended_s) for r in sent if r.outcome == "timed_out")
    return {
        "requests": len(sent), **Counter(r.outcome for r in sent), **found, "lag_p99_ms": round(lag, 2),
        "late_ones_were_sent_in_second": dict(sorted(late.items())),
    }  # fmt: skip


def main(seconds: float = 60.0) -> None:
    """Before, overload, after."""
    session = EmbeddedServingEngine().open(ClusterSpec.here(), {"request_timeout": f"{DEADLINE_S}s"})
    try:
        bound = parse_scenario(TEXT).workload.bind(Path(tempfile.mkdtemp()))
        session.prepare(bound)
        serving = bound.workload.serving
        assert serving is not None

        def ask(loop: Loop) -> list[Sent]:
            return session.ask(serving.arrivals, loop)

        def open_loop(rate: float, length: float) -> list[Sent]:
            spec = ArrivalSpec(kind="poisson", rate_per_s=rate, duration_s=length)
            return ask(Loop(times=tuple(arrival_times(spec, 7))))

        ask(Loop(clients=4, duration_s=1.0))
        ceiling = max(sum(r.outcome == "ok" for r in ask(Loop(clients=n, duration_s=2.0))) / 2.0 for n in (2, 4, 8))
        before = told(open_loop(0.2 * ceiling, 5.0))
        watch = Watch(session.processes[0].pid)
        watch.start()
        sent = open_loop(3.0 * ceiling, seconds)
        overload = told(sent)
        ends = Counter(int(r.done_s * 10) for r in sent if r.outcome == "ok")
        rates = [ends[tenth] for tenth in range(1, int(seconds * 10))]
        answers = dict(zip(("least", "p1", "p50"), np.percentile(rates, [0, 1, 50]).tolist(), strict=True))
        late = open_loop(0.2 * ceiling, 10.0)
        watch.stop()
        limit = 3.0 * before["p99_ms"] / 1e3
        slow = [r.intended_s for r in late if r.outcome != "ok" or r.done_s - r.intended_s > limit]
        third = len(watch.megabytes) // 3
        memory = {"first": watch.megabytes[0], "at_a_third": watch.megabytes[third], "peak": max(watch.megabytes)}
        found = {
            "ceiling_per_s": round(ceiling, 1), "deadline_ms": DEADLINE_S * 1e3, "before": before, "overload": overload,
            "after": told(late), "last_slow_or_refused_after_s": round(max(slow, default=0.0), 2),
            "answers_in_a_tenth_of_a_second": answers,
            "host_alive": session.processes[0].poll() is None, "memory_mb": {k: round(v) for k, v in memory.items()},
        }  # fmt: skip
        print(json.dumps(found, indent=1))
    finally:
        session.close()


if __name__ == "__main__":
    main(*map(float, sys.argv[1:2]))
