"""Simulated against real serving on this machine: two compositions, held-out loads, constants that are fitted on others.

    python -m tests.fidelity.serving_holdout measure DIR [-e serving] [-c order]   real runs, one file for each engine and composition
    python -m tests.fidelity.serving_holdout table DIR [--constants FILE]          fit, simulate, and print the table of the docs

Loads are shares of a ceiling that closed clients reach first, one after another in one run. Constants are fitted on 35, 65 and 90 % and
on the ceiling, which come first; 20, 50, 80 and 95 % are only compared.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.bench.serving_common import Machine
from windtunnel.sim.serving.constants import ROUNDS, Fit, Measured, save_constants
from windtunnel.sim.serving.measured import CALIBRATED, COMPOSITIONS, ENGINES, FITTED, fit, measure, measured

HELD_OUT = ((0.20, 8.0), (0.50, 8.0), (0.80, 12.0), (0.95, 24.0))
MORE = 1.01  # of every declared cost: what that does to the 99th percentile at the highest load says how well it can be known
_QUANTITIES = (("p50", 1e3, " ms"), ("p99", 1e3, " ms"), ("throughput", 1.0, "/s"))


def lines(folder: Path, constants: dict[str, dict[str, float]], rounds: int) -> Iterator[str]:
    """The table as Markdown, a line at a time; fills ``constants``."""
    errors: dict[str, list[float]] = {}
    body, steep, disturbed = [], [], []
    for engine, proxy in ENGINES.items():
        files = [json.loads(p.read_text()) for p in sorted(folder.glob(f"{engine}-*.json"))]
        if not files:
            continue
        seen, unseen = [load for load, _ in FITTED], [load for load, _ in HELD_OUT]
        found = fit(engine, [run for told in files for run in measured(told, seen)])
        best = constants[f"{engine}:{proxy}"] = found.constants(rounds)
        for told in files:
            steep.append(f"{engine}, {told['composition']} {_steepness(found, measured(told, unseen)[-1], best):+.1%}")
            disturbed.append(f"{engine}, {told['composition']} {told.get('others', float('nan')):.0%}")
            for run in measured(told, [*seen, *unseen]):
                for window, made in zip(run.windows, found.simulated(run, best), strict=True):
                    fitted = window.name not in [f"{load:.0%}" for load in unseen]
                    cells = [_cell(name, window.numbers, made or {}, scale, unit) for name, scale, unit in _QUANTITIES]
                    body.append(
                        f"| {engine} | {told['composition']}, {window.name} | {' | '.join(cells)} | {'fitted' if fitted else ''} |"
                    )
                    for name, *_ in () if fitted or made is None else _QUANTITIES:
                        errors.setdefault(name, []).append(abs(made[name] / window.numbers[name] - 1))
    every = [e for found_errors in errors.values() for e in found_errors]
    yield f"Held-out loads: median error {np.median(every):.1%}; worst of p50 {max(errors['p50']):.1%}, of p99 {max(errors['p99']):.1%}, "
    yield f"of throughput {max(errors['throughput']):.1%}; medians {', '.join(f'{n} {np.median(e):.1%}' for n, e in errors.items())}."
    yield ""
    yield f"One percent more of every declared cost moves the simulated p99 at {HELD_OUT[-1][0]:.0%} by: {'; '.join(steep)}."
    yield f"Other programs took of the machine's CPUs during the runs: {'; '.join(disturbed)}."
    yield ""
    yield "| engine | composition, load | p50 real | sim | error | p99 real | sim | error | throughput real | sim | error | |"
    yield "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|"
    yield from body


def _steepness(found: Fit, run: Measured, constants: Mapping[str, float]) -> float:
    """The change of the 99th percentile in the last window when all declared costs are a little higher."""
    serving = run.workload.workload.serving
    assert serving is not None
    costs = [replace(d.cost, per_call_s=d.cost.per_call_s * MORE) for d in serving.deployments]
    dearer = replace(serving, deployments=tuple(replace(d, cost=c) for d, c in zip(serving.deployments, costs, strict=True)))
    bound = replace(run.workload, workload=replace(run.workload.workload, serving=dearer))
    before, after = (found.simulated(r, constants)[-1] for r in (run, replace(run, workload=bound)))
    assert before is not None and after is not None
    return after["p99"] / before["p99"] - 1


def _cell(name: str, real: Mapping[str, float], made: Mapping[str, float], scale: float, unit: str) -> str:
    if name not in made:
        return f"{real[name] * scale:.4g}{unit} | – | –"
    return f"{real[name] * scale:.4g}{unit} | {made[name] * scale:.4g} | {made[name] / real[name] - 1:+.1%}"


def main() -> None:
    """The two commands above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("measure", "table"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("-e", "--engine", choices=tuple(ENGINES), action="append")
    parser.add_argument("-c", "--composition", choices=tuple(COMPOSITIONS), action="append")
    parser.add_argument("--constants", type=Path)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="evaluations of the fit at most")
    asked = parser.parse_args()
    if asked.verb == "measure":
        for engine in asked.engine or CALIBRATED:
            for composition in asked.composition or COMPOSITIONS:
                machine = Machine()
                told = measure(engine, composition, (*FITTED, *HELD_OUT), lambda line: print(line, file=sys.stderr))
                told["others"] = machine.others()
                asked.folder.mkdir(parents=True, exist_ok=True)
                (asked.folder / f"{engine}-{composition}.json").write_text(json.dumps(told, indent=1))
        return
    constants: dict[str, dict[str, float]] = {}
    print("\n".join(lines(asked.folder, constants, asked.rounds)))
    print(json.dumps(constants), file=sys.stderr)
    if asked.constants is not None:
        save_constants(
            asked.constants, constants, {"machine": platform.processor() or platform.machine(), "runs": str(asked.folder)}
        )


if __name__ == "__main__":
    main()
