"""Five processes on two CPUs, for real: how much longer each one's work takes than it costs.

    taskset -c 0,1 python -m tests.bench.crowded_cpus [RATE a second] [SECONDS]

What `windtunnel.sim.serving.cores` is modelled on: the busiest is hardly stretched, those that run for a moment are.
"""

from __future__ import annotations

import multiprocessing
import random
import sys
import time

COSTS_S = {"large": 6e-3, "small": 2e-3, "preprocess": 1e-3, "combine": 0.7e-3, "generator": 0.5e-3}


def stretched(cost_s: float, rate: float, begin_s: float, seconds: float) -> float:
    """Elapsed over CPU time, of a process with Poisson arrivals at the same times as all others (one seed)."""
    draw, due, elapsed, calls = random.Random(7), begin_s, 0.0, 0
    while (due := due + draw.expovariate(rate)) < begin_s + seconds:
        time.sleep(max(0.0, due - time.monotonic()))
        start, end = time.monotonic(), time.thread_time() + cost_s
        while time.thread_time() < end:
            pass
        elapsed, calls = elapsed + time.monotonic() - start, calls + 1
    return elapsed / (calls * cost_s)


def main(rate: float = 154.0, seconds: float = 20.0) -> None:
    """Print a line a process."""
    begin_s = time.monotonic() + 1.0
    with multiprocessing.get_context("spawn").Pool(len(COSTS_S)) as pool:
        asked = {name: pool.apply_async(stretched, (cost, rate, begin_s, seconds)) for name, cost in COSTS_S.items()}
        for name, told in asked.items():
            print(f"{name}: {COSTS_S[name] * 1e3:g} ms of CPU take {told.get():.2f} times as long")


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
