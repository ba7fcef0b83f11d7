"""How often the wall-clock gate is right on this machine: ``python -m tests.bench.gate_power [GATES] [PAIRS]``.

Each gate sets two arms of `flights_udf` on `streaming` against each other, run by run in turn, on two CPUs. One arm calls the kernel
as it is, the other spins for a share of the kernel's own time after every batch. Prints how many gates said what.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from windtunnel.records.record import Recorder
from windtunnel.registry import load_engine, load_workload
from windtunnel.reports.gate.judge import Rules, judge
from windtunnel.reports.gate.series import Series
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.plan import MapBatches, Pipeline
from windtunnel.spec.workload import BoundWorkload, Workload
from windtunnel.workloads.kernels.records import clean_flights


def slowed(batch: Any, share: float) -> Any:
    """The kernel, and ``share`` of its time more."""
    start = time.perf_counter()
    result = clean_flights(batch)
    end = time.perf_counter()
    while time.perf_counter() < end + share * (end - start):
        pass
    return result


def workload(share: float) -> Workload:
    """flights_udf with the kernel slowed."""
    plain: Workload = load_workload("flights_udf", scale=0.05)
    spec = {"function": "tests.bench.gate_power:slowed", "params": (("share", share),)}
    changed = tuple(
        replace(o, kernel=replace(o.kernel, **spec)) if isinstance(o.kernel, MapBatches) else o for o in plain.pipeline.operators
    )
    return replace(plain, pipeline=Pipeline(changed))


def seconds(session: Any, bound: BoundWorkload) -> float:
    """One run."""
    session.prepare(bound)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        session.run(bound, Recorder(), Path(folder))
        return time.perf_counter() - start


def main(gates: int = 20, pairs: int = 15) -> None:
    """All effects, interleaved gate by gate."""
    effects = (0.0, 0.03, 0.05, 0.10, 0.20)
    session = load_engine("streaming").open(ClusterSpec.here(cpus=2, memory_bytes=2 * 2**30), {})
    found: dict[float, Counter[str]] = {e: Counter() for e in effects}
    try:
        with tempfile.TemporaryDirectory() as data:
            bound = {e: workload(e).bind(Path(data)) for e in effects}
            base = workload(0.0).bind(Path(data))
            for _ in range(3):
                seconds(session, base)
            for gate in range(gates):
                for effect in effects:
                    runs = [(seconds(session, base), seconds(session, bound[effect])) for _ in range(pairs)]
                    a, b = (Series(subject="s", clock="wall", values={"makespan_s": v}) for v in zip(*runs, strict=True))
                    (finding,) = judge([a], [b], Rules(wall="gate"))
                    found[effect]["cannot tell" if finding.verdict == "incomplete" else finding.verdict] += 1
                print(gate + 1, {f"{e:.0%}": dict(c) for e, c in found.items()}, file=sys.stderr, flush=True)
    finally:
        session.close()
    for effect, counts in found.items():
        print(
            f"kernel {effect:.0%} slower: {', '.join(f'{n} {v}' for v, n in counts.most_common())} of {gates} gates of {pairs} pairs"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
