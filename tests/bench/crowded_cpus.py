"""Five processes on two CPUs: how much longer each one's work takes than it costs; for real, by run queues and by equal shares.

    taskset -c 0,1 python -m tests.bench.crowded_cpus [RATE a second] [SECONDS]

What `windtunnel.sim.serving.cores` is modelled on. Every process has the same Poisson arrivals, shifted by its own delay, first come
first served.
"""

from __future__ import annotations

import multiprocessing
import random
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from simpy.core import Environment

from windtunnel.sim.clock import Timer
from windtunnel.sim.hardware.cpu import Shared
from windtunnel.sim.serving.cores import Cores

CPUS = 2
SLACK_S = 50e-6  # that a timer of Linux may be late by (prctl(2), PR_SET_TIMERSLACK); who wakes first is left to chance
#: CPU time of a call, and how long after the arrival it is due
PROCESSES = {
    "large": (6e-3, 1e-3),
    "small": (2e-3, 1e-3),
    "preprocess": (1e-3, 0.0),
    "combine": (0.7e-3, 7e-3),
    "generator": (0.5e-3, 1e-3),
}


def arrivals(rate: float, seconds: float, delay_s: float) -> Iterator[float]:
    """Seconds from the start."""
    draw, due = random.Random(7), 0.0
    while (due := due + draw.expovariate(rate)) < seconds:
        yield due + delay_s


def real(name: str, rate: float, seconds: float, begin_s: float) -> float:
    """Elapsed over CPU time of a process that spins, from when it could have begun: that it waits for a CPU when it wakes counts."""
    cost_s, delay_s = PROCESSES[name]
    taken, ended = [], 0.0
    for due in arrivals(rate, seconds, delay_s):
        time.sleep(max(0.0, begin_s + due - time.monotonic()))
        end = time.thread_time() + cost_s
        while time.thread_time() < end:
            pass
        start, ended = max(ended, begin_s + due), time.monotonic()
        taken.append(ended - start)
    return sum(taken) / len(taken) / cost_s


class Simulated:
    """The same process; ``run`` and ``rest`` are the node's."""

    def __init__(self, env: Environment, name: str, rate: float, seconds: float) -> None:
        self.env, self.cost_s = env, PROCESSES[name][0]
        self.waiting, self.start, self.taken = 0, 0.0, list[float]()
        self.run: Callable[[Simulated, float], None]
        self.rest: Callable[[Simulated], None]
        late = random.Random(name)
        for due in arrivals(rate, seconds, PROCESSES[name][1]):
            Timer(env, self.arrive).arm(due + late.uniform(0.0, SLACK_S))

    def arrive(self, _: Any) -> None:
        """One more call."""
        self.waiting += 1
        if self.waiting == 1:
            self.begin()

    def begin(self) -> None:
        """The next call."""
        self.start = self.env.now
        self.run(self, self.cost_s)

    def ended(self, _: Any = None) -> None:
        """The call is done."""
        self.taken.append(self.env.now - self.start)
        self.waiting -= 1
        if self.waiting:
            self.begin()
        else:
            self.rest(self)

    def touch(self) -> None:
        """Another share."""


def simulated(rate: float, seconds: float, equal: bool) -> dict[str, float]:
    """The same of all processes in a simulated node."""
    env = Environment()
    cores, shared = Cores(env, CPUS), Shared(env, lambda load: min(1.0, CPUS / load))
    found = {name: Simulated(env, name, rate, seconds) for name in PROCESSES}
    for process in found.values():
        process.run = (lambda p, s: shared.add(s, 1.0, p.ended, None)) if equal else cores.run
        process.rest = (lambda p: None) if equal else cores.rest
    env.run()
    return {name: sum(p.taken) / len(p.taken) / p.cost_s for name, p in found.items()}


def main(rate: float = 154.0, seconds: float = 20.0) -> None:
    """Print a table."""
    begin_s = time.monotonic() + 2.0
    with multiprocessing.get_context("spawn").Pool(len(PROCESSES)) as pool:
        asked = {name: pool.apply_async(real, (name, rate, seconds, begin_s)) for name in PROCESSES}
        measured = {name: told.get() for name, told in asked.items()}
    queues, equal = simulated(rate, seconds, False), simulated(rate, seconds, True)
    print("| process | CPU time | real | run queues | equal shares |\n|---|---:|---:|---:|---:|")
    for name, (cost_s, _) in PROCESSES.items():
        print(f"| {name} | {cost_s * 1e3:g} ms | {measured[name]:.2f} | {queues[name]:.2f} | {equal[name]:.2f} |")


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
