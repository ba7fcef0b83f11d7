"""Serving engines measured on this machine, and their constants: what `windtunnel calibrate --serving` does.

Two compositions, declared by cost, are asked in closed loop for their ceiling, and then, in one run of a fresh session, at shares of it
one after another. The module owns what is run; the fit is `windtunnel.sim.serving.constants`. Both worlds meet the same arrivals and
draw the same durations, from the start of the session to its end.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from windtunnel.errors import InvalidMeasurement, RunFailed
from windtunnel.records.record import Recorder
from windtunnel.registry import load_engine
from windtunnel.scenario.reading import Scenario, parse_scenario
from windtunnel.sim.serving.constants import Fit, Measured, Window, numbers_of, save_constants

#: engine → the proxy of the simulated one that the constants belong to
ENGINES = {"serving": "host", "fastapi": "none", "ray-serve": "python"}
#: those that `windtunnel calibrate --serving` measures: Ray Serve takes minutes to come and go, and its constants are of a published table
CALIBRATED = ("serving", "fastapi")
WARM = (0.2, 2.0)  # share of the ceiling, seconds
FITTED = ((0.35, 4.0), (0.65, 4.0), (0.90, 6.0))
CLIENTS, CLOSED_S = 16, 3.0
LATE = "20ms"  # the load generator may be, at the 99th percentile
Show = Callable[[str], None]
HEAD = """
schema = 1
name = "{name}"
seed = {seed}
[cluster]
[[cluster.nodes]]
name = "here"
cpus = 2
memory = "8GiB"
[arrivals]
{arrivals}
request_bytes = "1KB"
response_bytes = "1KB"
[[engines]]
name = "serving"
"""
COMPOSITIONS = {
    "order": """
[[deployments]]
name = "ingress"
max_ongoing = 1000
resources = { cpus = 0.4 }
cost = { per_call = "1ms", cv = 0.3 }
calls = ["echo"]
[[deployments]]
name = "echo"
max_ongoing = 1000
resources = { cpus = 0.4 }
cost = { per_call = "4ms", cv = 0.5 }
""",
    "parallel": """
[[deployments]]
name = "preprocess"
max_ongoing = 1000
resources = { cpus = 0.4 }
cost = { per_call = "1ms", cv = 0.3 }
calls = [["small", "large"], "combine"]
[[deployments]]
name = "small"
max_ongoing = 1000
resources = { cpus = 0.4 }
cost = { per_call = "2ms", cv = 0.5 }
[[deployments]]
name = "large"
max_ongoing = 1000
resources = { cpus = 0.4 }
cost = { per_call = "6ms", cv = 0.5 }
[[deployments]]
name = "combine"
max_ongoing = 1000
resources = { cpus = 0.4 }
cost = { per_call = "0.5ms", cv = 0.3 }
""",
}


def scenario(composition: str, arrivals: str, seed: int) -> Scenario:
    """One composition under some arrivals."""
    return parse_scenario(HEAD.format(name=composition, seed=seed, arrivals=arrivals) + COMPOSITIONS[composition])


def closed() -> str:
    """As fast as clients are answered."""
    return f'kind = "closed"\nconcurrency = {CLIENTS}\nduration = "{CLOSED_S}s"'


def rising(ceiling: float, stairs: Sequence[tuple[float, float]]) -> str:
    """One load after another, for so many seconds each."""
    begins = [sum(seconds for _, seconds in stairs[:n]) for n in range(len(stairs) + 1)]
    steps = ", ".join(f"[{begin}, {load * ceiling:.3f}]" for begin, (load, _) in zip(begins, stairs, strict=False))
    return f'kind = "steps"\nsteps = [{steps}]\nduration = "{begins[-1]}s"'


def run(engine: str, asked: Scenario, show: Show, again: int = 2) -> Recorder:
    """For real, in a session of its own. A run that sent late is made again; raises InvalidMeasurement when it was late every time."""
    bound = asked.workload.bind(Path())
    for left in reversed(range(again)):
        session, recorder = load_engine(engine).open(asked.cluster, {"seed": asked.seed, "send_lag": LATE}), Recorder()
        try:
            session.prepare(bound)
            session.run(bound, recorder, Path())
        except InvalidMeasurement as error:
            if not left:
                raise
            show(f"again: {error}")
            continue
        finally:
            session.close()
        break
    return recorder


def measure(engine: str, composition: str, stairs: Sequence[tuple[float, float]], show: Show) -> dict[str, Any]:
    """The ceiling, then every load: plain data, for a file or `measured`."""
    top = numbers_of(run(engine, scenario(composition, closed(), 1), show), 0.0, CLOSED_S)
    if top is None:
        raise RunFailed(f"{engine} answered nothing")
    ceiling = top["throughput"]
    recorder = run(engine, scenario(composition, rising(ceiling, (WARM, *stairs)), 2), show)
    found, begin = [], WARM[1]
    for load, seconds in stairs:
        numbers = numbers_of(recorder, begin, begin + seconds)
        begin += seconds
        found.append({"load": load, "seconds": seconds, "numbers": numbers})
        if numbers is not None:
            p50, p99 = (numbers[name] * 1e3 for name in ("p50", "p99"))
            show(f"{engine}, {composition}, {load:.0%} of {ceiling:.0f}/s: p50 {p50:.3g} ms, p99 {p99:.3g} ms")
    return {"engine": engine, "composition": composition, "ceiling": top, "stairs": found}


def measured(told: dict[str, Any], loads: Collection[float]) -> list[Measured]:
    """The closed loop, and the run over the stairs, up to the last of these loads and with their windows only."""
    composition, top = told["composition"], told["ceiling"]
    stairs = [(s["load"], s["seconds"]) for s in told["stairs"]]
    last = max(n for n, (load, _) in enumerate(stairs) if load in loads) + 1
    begins = [WARM[1] + sum(seconds for _, seconds in stairs[:n]) for n in range(last)]
    windows = tuple(
        Window(name=f"{s['load']:.0%}", begin_s=begin, end_s=begin + s["seconds"], numbers=s["numbers"])
        for begin, s in zip(begins, told["stairs"], strict=False)
        if s["load"] in loads and s["numbers"] is not None
    )
    loop = Window(name="ceiling", begin_s=0.0, end_s=CLOSED_S, numbers=top)
    asked = (
        (scenario(composition, closed(), 1), (loop,)),
        (scenario(composition, rising(top["throughput"], (WARM, *stairs[:last])), 2), windows),
    )
    return [Measured(workload=s.workload.bind(Path()), cluster=s.cluster, options={"seed": s.seed}, windows=w) for s, w in asked]


def fit(engine: str, runs: Sequence[Measured]) -> Fit:
    """For the simulated engine of that name."""
    return Fit(load_engine(f"sim:{engine}"), engine, ENGINES[engine], runs)


def calibrate_serving(engines: Sequence[str], out: Path, date: str, show: Show) -> dict[str, dict[str, float]]:
    """Measure and fit; writes the file that ``simulate --calibration`` reads."""
    constants, loads = {}, [load for load, _ in FITTED]
    for engine in engines:
        runs = [m for c in COMPOSITIONS for m in measured(measure(engine, c, FITTED, show), loads)]
        constants[f"{engine}:{ENGINES[engine]}"] = fit(engine, runs).constants()
    save_constants(out, constants, {"machine": platform.processor() or platform.machine(), "date": date})
    return constants
