"""The embedded host at three times its ceiling for a minute, then at a fifth of it: `python -m tests.bench.serving_overload [SECONDS]`.

A Poisson load that cannot be served: what is accepted keeps its deadline, the rest is refused (503), memory stays bounded, and the
first request after it is answered as fast as before it. Every answer is compared with what it must be.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter
from functools import partial
from typing import Any

import numpy as np
import psutil

from tests.bench.serving_common import Machine, percentiles, poisson, started
from windtunnel.engines.serving.client import Sent
from windtunnel.engines.serving.load import Loop

DEADLINE_S = 2.0


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

    def stop(self) -> dict[str, int]:
        self._over.set()
        self.join()
        seen = {"first": self.megabytes[0], "at_a_third": self.megabytes[len(self.megabytes) // 3], "peak": max(self.megabytes)}
        return {name: round(megabytes) for name, megabytes in seen.items()}


def told(sent: list[Sent]) -> dict[str, Any]:
    """Counts and latencies of one load."""
    late = Counter(int(r.intended_s) for r in sent if r.outcome == "timed_out")
    return {
        "requests": len(sent), **Counter(r.outcome for r in sent), **percentiles(sent, 50, 99, 100),
        "late_ones_were_sent_in_second": dict(sorted(late.items())),
    }  # fmt: skip


def answers(sent: list[Sent], seconds: float) -> dict[str, float]:
    """In a tenth of a second: how even the machine was."""
    ends = Counter(int(r.done_s * 10) for r in sent if r.outcome == "ok")
    rates = [ends[tenth] for tenth in range(1, int(seconds * 10))]
    return dict(zip(("least", "p1", "p50"), np.percentile(rates, [0, 1, 50]).round(1).tolist(), strict=True))


def main(seconds: float = 60.0) -> None:
    """Before, overload, after."""
    with started("serving", {"request_timeout": f"{DEADLINE_S}s"}, size=1000, cost="1ms") as (session, arrivals):
        ask = partial(session.ask, arrivals)
        ceiling = max(sum(r.outcome == "ok" for r in ask(Loop(clients=n, duration_s=2.0))) / 2.0 for n in (2, 4, 8))
        before = told(ask(poisson(0.2 * ceiling, 5.0)))
        watch = Watch(session.processes[0].pid)
        watch.start()
        machine = Machine()
        sent = ask(poisson(3.0 * ceiling, seconds))
        others = machine.others()
        after = ask(poisson(0.2 * ceiling, 10.0))
        limit = 3.0 * before["p99_ms"] / 1e3
        slow = [r.intended_s for r in after if r.outcome != "ok" or r.done_s - r.intended_s > limit]
        found = {
            "ceiling_per_s": round(ceiling, 1), "deadline_ms": DEADLINE_S * 1e3, "before": before, "overload": told(sent),
            "answers_in_a_tenth_of_a_second": answers(sent, seconds), "others": others,
            "after": told(after), "last_slow_or_refused_after_s": round(max(slow, default=0.0), 2),
            "host_alive": session.processes[0].poll() is None, "memory_mb": watch.stop(),
        }  # fmt: skip
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(*map(float, sys.argv[1:2]))
