"""Services drawn at random, each run for real and simulated, and how far the two are apart: what `windtunnel twins` does.

A case is a pure function of a seed and a number: batches, waits, places, retries, deadlines, compositions, replicas that come, go and are
killed, at 30 to 120 % of what the service can do. Handlers sleep, so that the machine's CPUs are no part of the comparison. Both worlds
meet the same arrivals and draw the same durations. A replica has places for two batches at least: where
one batch fills them all, two half batches that take turns and a whole one are both stable, and which it is hangs on microseconds.
The module owns the drawing, the numbers that are compared, and the bars.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from windtunnel.errors import InvalidMeasurement, RunFailed
from windtunnel.records.record import Recorder
from windtunnel.registry import load_engine
from windtunnel.scenario.reading import Scenario, parse_scenario

SECONDS = 8.0
MOST_PER_S = 200.0  # so that the host's own work is small
LATE = "50ms"
OUTCOMES = ("ok", "rejected", "timed_out", "failed")
LEAST = 40  # good answers: of fewer a p99 says nothing
HEAD = """schema = 1
name = "twins {seed}, case {number}"
seed = {number}
[cluster]
[[cluster.nodes]]
name = "node"
cpus = 64
memory = "8GiB"
[arrivals]
kind = "{kind}"
rate_per_s = {rate:.3f}
duration = "{seconds}s"
request_bytes = "100B"
[[engines]]
name = "serving"
options = {{ {options} }}
"""
DEPLOYMENT = """[[deployments]]
name = "{name}"
replicas = {replicas}
max_ongoing = {most}
cost = {{ per_call = "{call:.2f}ms", per_item = "{item:.2f}ms", cv = {cv} }}
batch = {{ max_size = {size}, wait = "{wait}ms" }}
startup = "2s"
calls = {calls}
"""
FAULT = '[[faults]]\nat = "{at:.2f}s"\nkind = "worker_killed"\ntarget = "node[0]"\n'
SCALED = '{{ min = {least}, max = {most}, target_ongoing = {target}, upscale_delay = "500ms", downscale_delay = "1s" }}'
#: the bars: median and worst; relative, of counts a share of the requests
BARS = {"throughput": (0.03, 0.10), "p50": (0.10, 0.30), "p99": (0.10, 0.30), "counts": (0.03, 0.03)}


def drawn(seed: int, number: int) -> str:
    """The text of a case."""
    draw = random.Random(f"{seed}:{number}")
    names = "abc"[: draw.choice((1, 1, 2, 3))]
    calls = {names[0]: draw.choice(([*names[1:]], [[*names[1:]]])) if len(names) > 2 else [*names[1:]]}
    scaled = draw.random() < 0.25
    deployments, capacity = "", MOST_PER_S / 1.2
    for name in names:
        size = draw.choice((1, 1, draw.randint(2, 32)))
        call, item = draw.uniform(5, 40), draw.choice((0.0, draw.uniform(0, 2)))
        most = max(draw.choice((4, 16, 100)), 2 * size)
        count = draw.randint(1, 3)
        replicas = (
            SCALED.format(least=1, most=count + 1, target=draw.choice((2, 4))) if scaled and name == names[0] else str(count)
        )
        full = min(size, most)
        capacity = min(capacity, count * full / (call + item * full) * 1e3)
        deployments += DEPLOYMENT.format(
            name=name, replicas=replicas, most=most, call=call, item=item, cv=draw.choice((0, 0.2, 0.5)), size=size,
            wait=draw.choice((0, draw.randint(1, 50))), calls=str(calls.get(name, [])).replace("'", '"'),
        )  # fmt: skip
    options = [f"retries = {draw.randint(0, 2)}", f"max_queued_requests = {draw.choice((20, 200, 1000))}"]
    options += [f'request_timeout = "{draw.choice((0.5, 1, 2, 30))}s"']
    options += ['lookback = "2s"'] if scaled else []
    head = HEAD.format(
        seed=seed, number=number, kind=draw.choice(("poisson", "uniform")), rate=capacity * draw.uniform(0.3, 1.2), seconds=SECONDS,
        options=", ".join(options),
    )  # fmt: skip
    fault = FAULT.format(at=draw.uniform(2, 5)) if draw.random() < 0.25 else ""
    return head + deployments + fault


def _numbers(recorder: Recorder) -> dict[str, Any]:
    told = recorder.counters
    good = np.array([value for name, _, value in recorder.samples if name == "latency_s"])
    p50, p99 = np.percentile(good, [50, 99]).tolist() if len(good) >= LEAST else (None, None)
    return {
        "sent": int(told["requests_sent"]), "throughput": told["throughput_per_s"], "p50": p50, "p99": p99,
        "counts": {name: int(told[f"requests_{name}"]) for name in OUTCOMES},
    }  # fmt: skip


def _run(engine: str, scenario: Scenario, options: Mapping[str, Any]) -> dict[str, Any]:
    bound, recorder = scenario.workload.bind(Path()), Recorder()
    session = load_engine(engine).open(scenario.cluster, {**scenario.engines[0].options, "seed": scenario.seed, **options})
    try:
        session.prepare(bound)
        session.run(bound, recorder, Path())
    except RunFailed:  # nobody was answered, which counts tell
        if "requests_sent" not in recorder.counters:
            raise
    finally:
        session.close()
    return _numbers(recorder)


def compare(seed: int, number: int, calibration: str | None = None) -> dict[str, Any]:
    """One case in both worlds: plain data, for a line of a file. A run whose generator was late twice is `invalid`."""
    text = drawn(seed, number)
    scenario = parse_scenario(text)
    found: dict[str, Any] = {"seed": seed, "number": number, "scenario": text}
    simulated = _run("sim:serving", scenario, {"proxy": "host", "spans": False, "calibration": calibration})
    for left in (1, 0):
        try:
            real = _run("serving", scenario, {"work": "sleep", "send_lag": LATE})
            break
        except InvalidMeasurement as error:
            if not left:
                return {**found, "invalid": str(error)}
    return {**found, "real": real, "simulated": simulated, "errors": errors(real, simulated)}


def errors(real: Mapping[str, Any], simulated: Mapping[str, Any]) -> dict[str, float | None]:
    """Relative errors of the simulated numbers; of counts the largest difference as a share of the requests."""
    found: dict[str, float | None] = {}
    for name in ("throughput", "p50", "p99"):
        a, b = real[name], simulated[name]
        found[name] = None if not a or not b else abs(b / a - 1.0)
    counts = [abs(real["counts"][n] - simulated["counts"][n]) for n in OUTCOMES]
    found["counts"] = max(counts) / max(real["sent"], 1)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Of one number: the errors' median and worst, their bars, and how many cases had it."""

    name: str
    median: float
    worst: float
    bars: tuple[float, float]
    cases: int

    @property
    def met(self) -> bool:
        """Whether both bars are kept."""
        return self.median <= self.bars[0] and self.worst <= self.bars[1]


def judge(cases: Iterable[Mapping[str, Any]]) -> list[Verdict]:
    """Over all cases that could be compared."""
    done: Sequence[Mapping[str, Any]] = [c for c in cases if "errors" in c]
    found = []
    for name, bars in BARS.items():
        values = [c["errors"][name] for c in done if c["errors"][name] is not None]
        if values:
            found.append(Verdict(name=name, median=float(np.median(values)), worst=max(values), bars=bars, cases=len(values)))
    return found
