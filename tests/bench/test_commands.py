"""What a person waits for: whole commands of the simulator, start to end, beside a bare loop of SimPy callbacks in the same run.

Each command runs in a process of its own, as from a shell, and writes its records; `extra_info` holds its CPU time and the ratio of
its median to that of the loop, which has the same number of tasks and slots and does nothing else. ``WINDTUNNEL_CORE`` chooses the core.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import simpy

from tests.bench.test_plan_speed import WORK

TASKS, NODES, SLOTS = 400_000, 1_000, 4


def scenario(engine: str, *, tasks: int = TASKS, nodes: int = NODES, more: str = "", skew: float = 0.0, options: str = "") -> str:
    """Source tasks of unequal durations, each followed by one of each further operator."""
    return f"""
schema = 1
name = "independent tasks"
[cluster]
[[cluster.nodes]]
count = {nodes}
cpus = {SLOTS}
memory = "16GiB"
[dataset]
rows = {tasks}
row_bytes = "8B"
partitions = {tasks}
skew = {skew}
[[operators]]
name = "work"
kind = "map"
batch_rows = 1
cost = {{ per_batch = "10s", cv = 0.3 }}
row_bytes_out = "1KiB"
{more}
[[engines]]
name = "{engine}"
options = {{ {options} }}
"""


#: operators of three stages: different memory keeps them apart; blocks are fetched where the next task runs elsewhere
PIPELINE = """
[[operators]]
name = "second"
kind = "map"
cost = { per_batch = "20s", cv = 0.3 }
row_bytes_out = "1MiB"
memory = "1MiB"
[[operators]]
name = "third"
kind = "map"
cost = { per_batch = "10s", cv = 0.3 }
row_bytes_out = "1KiB"
memory = "2MiB"
"""
SHUFFLE = """
schema = 1
name = "shuffle"
[cluster]
[[cluster.nodes]]
count = 100
cpus = 16
memory = "64GiB"
[dataset]
rows = 200_000_000
row_bytes = "100B"
partitions = 2000
[[operators]]
name = "map"
kind = "map"
cost = { per_row = "100us", cv = 0.2 }
[[operators]]
name = "reduce"
kind = "aggregate"
cost = { per_row = "50us", cv = 0.2 }
rows_out = 0.01
[[engines]]
name = "spark"
options = { shuffle_partitions = 2000 }
"""
SCENARIOS = {
    "ten tasks": scenario("bulk", tasks=10, nodes=4),
    **{engine: scenario(engine) for engine in ("bulk", "streaming", "ray", "dask", "spark", "flink")},
    "bulk, sizes of Zipf": scenario("bulk", skew=0.5),
    "bulk, ten times the nodes": scenario("bulk", nodes=10 * NODES),
    "streaming, ten times the nodes": scenario("streaming", nodes=10 * NODES),
    "streaming pipeline": scenario("streaming", tasks=333_334, more=PIPELINE, options=f"queued_blocks = {4 * NODES}"),
    "spark shuffle": SHUFFLE,
}


def callbacks(tasks: int = TASKS, slots: int = NODES * SLOTS) -> float:
    """Seconds of a loop of SimPy callbacks: a slot that ends a task begins the next one."""
    dice = random.Random(7)
    durations = [dice.lognormvariate(2.26, 0.29) for _ in range(tasks)]
    env = simpy.Environment()

    def ended(_: Any) -> None:
        if durations:
            env.timeout(durations.pop()).callbacks.append(ended)

    begin = time.perf_counter()
    for _ in range(slots):
        env.timeout(durations.pop()).callbacks.append(ended)
    env.run()
    return time.perf_counter() - begin


def command(*args: str) -> float:
    """Run a command as from a shell, bytecode kept as Python does by default; its CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([sys.executable, "-m", "windtunnel.cli", *args], env=env, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def timed(benchmark: Any, run: Callable[[], float], rounds: int) -> None:
    """Time a command between two loops; the first round, which may write bytecode, is thrown away."""
    loops = [callbacks()]
    cpu: list[float] = []
    benchmark.pedantic(lambda: cpu.append(run()), rounds=rounds, iterations=1, warmup_rounds=1 if rounds > 1 else 0)
    loops.append(callbacks())
    benchmark.extra_info["cpu_s"] = round(median(cpu[-rounds:]), 3)
    benchmark.extra_info["loop_s"] = round(median(loops), 3)
    benchmark.extra_info["times_the_loop"] = round(benchmark.stats.stats.median / median(loops), 2)


@pytest.mark.parametrize("name", SCENARIOS)
def test_simulate(benchmark: Any, tmp_path: Path, name: str) -> None:
    file, results = tmp_path / "job.toml", tmp_path / "results"
    file.write_text(SCENARIOS[name])

    def run() -> float:
        shutil.rmtree(results, ignore_errors=True)
        return command("simulate", str(file), "--results", str(results), "--json")

    timed(benchmark, run, 5 if name == "ten tasks" else 3)


def test_version(benchmark: Any) -> None:
    timed(benchmark, lambda: command("--version"), 5)


def test_plan_a_thousand_candidates(benchmark: Any) -> None:
    timed(benchmark, lambda: command("plan", *WORK, "--jobs", "2", "--json"), 1)
