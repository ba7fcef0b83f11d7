"""Simulated against real serving on this machine: two compositions, held-out loads, and the constants that are fitted on others.

    python -m tests.fidelity.serving_holdout measure DIR [-e serving] [-c order]   real runs, one file for each engine and composition
    python -m tests.fidelity.serving_holdout table DIR [--constants FILE]          fit, simulate, and print the table of the docs

Loads are shares of a ceiling that closed clients reach first. Constants are fitted on 35, 65 and 90 % and on the ceiling; 20, 50, 80
and 95 % are only compared. Every run begins with two seconds of a fifth of the ceiling, in both worlds, so that caches are warm.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from windtunnel.sim.serving.constants import Fit, Measured, numbers_of, save_constants

from windtunnel.errors import InvalidMeasurement
from windtunnel.record import Recorder
from windtunnel.registry import load_engine
from windtunnel.scenario import Scenario, parse_scenario

ENGINES = {"serving": "host", "fastapi": "none"}
FITTED, HELD_OUT = (0.35, 0.65, 0.90), (0.20, 0.50, 0.80, 0.95)
SECONDS, WARM_S, CLIENTS = 12, 2, 16
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
    return f'kind = "closed"\nconcurrency = {CLIENTS}\nduration = "6s"'


def rising(ceiling: float, load: float) -> str:
    """Warm first, then the load."""
    return (
        f'kind = "steps"\nsteps = [[0, {0.2 * ceiling:.3f}], [{WARM_S}, {load * ceiling:.3f}]]\nduration = "{SECONDS + WARM_S}s"'
    )


def run(engine: str, composition: str, arrivals: str, seed: int, again: int = 3) -> dict[str, Any] | None:
    """For real, in a session of its own; a run that sent late is made again, and given up after some times."""
    asked = scenario(composition, arrivals, seed)
    bound = asked.workload.bind(Path())
    options: dict[str, Any] = {"seed": seed, "send_lag": "5ms"}
    for _ in range(again):
        session, recorder = load_engine(engine).open(asked.cluster, options), Recorder()
        try:
            session.prepare(bound)
            session.run(bound, recorder, Path())
        except InvalidMeasurement as error:
            print(f"  again: {error}", file=sys.stderr)
            continue
        finally:
            session.close()
        return {"arrivals": arrivals, "seed": seed, "numbers": numbers_of(recorder)}
    return None


def measure(folder: Path, engine: str, composition: str) -> None:
    """The ceiling, then every load."""
    top = run(engine, composition, closed(), 1)
    assert top is not None
    ceiling = top["numbers"]["throughput"]
    found = [{**top, "load": None}]
    for number, load in enumerate((*FITTED, *HELD_OUT)):
        made = run(engine, composition, rising(ceiling, load), 10 + number)
        print(engine, composition, f"{load:.0%}", made and made["numbers"], file=sys.stderr)
        if made is not None:
            found.append({**made, "load": load})
    folder.mkdir(parents=True, exist_ok=True)
    told = {"engine": engine, "composition": composition, "ceiling": ceiling, "runs": found}
    (folder / f"{engine}-{composition}.json").write_text(json.dumps(told, indent=1))


def measured(told: dict[str, Any], entry: dict[str, Any]) -> Measured:
    """As the fit wants it."""
    asked = scenario(told["composition"], entry["arrivals"], entry["seed"])
    name = f"{told['composition']}, ceiling" if entry["load"] is None else f"{told['composition']}, {entry['load']:.0%}"
    return Measured(
        name=name, workload=asked.workload.bind(Path()), cluster=asked.cluster, options={"seed": entry["seed"]},
        numbers=entry["numbers"],
    )  # fmt: skip


def lines(folder: Path, constants: dict[str, dict[str, float]]) -> Iterator[str]:
    """The table as Markdown, a line at a time; fills ``constants``."""
    errors: dict[str, list[float]] = {}
    body = []
    for engine, proxy in ENGINES.items():
        files = [json.loads(p.read_text()) for p in sorted(folder.glob(f"{engine}-*.json"))]
        if not files:
            continue
        pairs = [(told, entry) for told in files for entry in told["runs"]]
        fit = Fit(load_engine(f"sim:{engine}"), engine, proxy, [measured(t, e) for t, e in pairs if e["load"] not in HELD_OUT])
        best = constants[f"{engine}:{proxy}"] = fit.constants()
        for told, entry in pairs:
            one = measured(told, entry)
            made, kind = fit.simulated(one, best), "" if entry["load"] in HELD_OUT else "fitted"
            assert made is not None
            cells = []
            for name in ("p50", "p99", "throughput"):
                error = made[name] / one.numbers[name] - 1
                scale, unit = (1, "/s") if name == "throughput" else (1e3, " ms")
                cells.append(f"{one.numbers[name] * scale:.4g}{unit} | {made[name] * scale:.4g} | {error:+.1%}")
                if not kind:
                    errors.setdefault(name, []).append(abs(error))
            body.append(f"| {engine} | {one.name} | {' | '.join(cells)} | {kind} |")
    every = [e for found in errors.values() for e in found]
    yield f"Held-out loads: median error {np.median(every):.1%}; worst of p99 {max(errors['p99']):.1%}, of p50 {max(errors['p50']):.1%}, "
    yield f"of throughput {max(errors['throughput']):.1%}."
    yield ""
    yield "| engine | composition, load | p50 real | sim | error | p99 real | sim | error | throughput real | sim | error | |"
    yield "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|"
    yield from body


def main() -> None:
    """The two commands above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("measure", "table"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("-e", "--engine", choices=tuple(ENGINES), action="append")
    parser.add_argument("-c", "--composition", choices=tuple(COMPOSITIONS), action="append")
    parser.add_argument("--constants", type=Path)
    asked = parser.parse_args()
    if asked.verb == "measure":
        for engine in asked.engine or ENGINES:
            for composition in asked.composition or COMPOSITIONS:
                measure(asked.folder, engine, composition)
        return
    constants: dict[str, dict[str, float]] = {}
    print("\n".join(lines(asked.folder, constants)))
    print(json.dumps(constants), file=sys.stderr)
    if asked.constants is not None:
        save_constants(
            asked.constants, constants, {"machine": platform.processor() or platform.machine(), "runs": str(asked.folder)}
        )


if __name__ == "__main__":
    main()
