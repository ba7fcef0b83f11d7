"""Constants of serving engines that were measured on a machine: a small file of its own, and how to fit it to real records.

The fit asks the simulated world itself: constants are moved until simulated latencies and throughputs of the measured scenarios lie
as near to the real ones as they can, all runs of an engine at once (least squares of log ratios, Nelder and Mead's simplex). The
module owns the file and the fit; it measures nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize

from windtunnel.engines.models.serving import COST_NAMES
from windtunnel.errors import InputError, RunFailed, RunTimeout
from windtunnel.records.record import Recorder
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.documents import parse_json, read_text
from windtunnel.spec.strict import Place
from windtunnel.spec.workload import BoundWorkload

SCHEMA = 1
#: what is fitted, with where the search begins; the others stay as they are
FITTED: Mapping[str, Mapping[str, float]] = {
    "serving": {"proxy_s": 0.1e-3, "call_s": 0.06e-3, "replica_s": 0.1e-3, "hop_s": 0.15e-3, "cv": 0.5},
    "fastapi": {"http_s": 0.25e-3, "hop_s": 0.2e-3, "cv": 0.4},
    "ray-serve": {"proxy_s": 2e-3, "replica_s": 1e-3, "hop_s": 1e-3, "contention": 1e-3, "cv": 0.5},
}
SHARED = ("choice", "max_queued_requests", "retries", "request_timeout", "seed")  # options of both worlds
ROUNDS = 100  # evaluations at most
FURTHEST = 10.0  # that a constant may end from where its search begins, as a factor: beyond it no process is like that


def load_constants(path: Path) -> dict[str, dict[str, float]]:
    """By ``engine:proxy``. Raises InputError when the file is none of these."""
    place = Place(f"calibration {path}")
    data = parse_json(read_text(path, place), place)
    found: Any = data.get("serving", {}) if isinstance(data, dict) else None
    good = isinstance(found, dict) and all(
        isinstance(v, dict) and all(k in COST_NAMES and _is_cost(x) for k, x in v.items()) for v in found.values()
    )
    if not good:
        raise InputError(
            f"{str(path)!r} holds no constants of serving engines; `python -m tests.fidelity.serving_holdout` writes some"
        )
    return {name: dict(v) for name, v in found.items()}


def _is_cost(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf


def save_constants(path: Path, constants: Mapping[str, Mapping[str, float]], about: Mapping[str, Any]) -> None:
    """Write the file: ``about`` says where and from what."""
    document = {"schema": SCHEMA, "serving": constants, "about": about}
    path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Part of a run, by the intended send time, and the numbers that were measured in it (seconds; ``throughput`` a second)."""

    name: str
    begin_s: float
    end_s: float
    numbers: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A real run: what was asked for, and what came out in parts of it."""

    workload: BoundWorkload
    cluster: ClusterSpec
    options: Mapping[str, Any]
    windows: tuple[Window, ...]


def numbers_of(recorder: Recorder, begin_s: float, end_s: float) -> dict[str, float] | None:
    """Of a run in either world: latencies of requests meant to be sent within the window, answers a second within it."""
    told = np.array([(time, value) for name, time, value in recorder.samples if name == "latency_s"]).reshape(-1, 2)
    ends, latencies = told[:, 0], told[:, 1]
    inside = latencies[(ends - latencies >= begin_s) & (ends - latencies < end_s)]
    if not len(inside):
        return None
    p50, p99 = np.percentile(inside, [50, 99]).tolist()
    answered = ((ends >= begin_s) & (ends < end_s)).sum() / (end_s - begin_s)
    return {"mean": float(inside.mean()), "p50": p50, "p99": p99, "throughput": float(answered)}


class Fit:
    """All measured runs of one engine behind one proxy; ``engine`` is the simulated one."""

    def __init__(self, engine: Any, name: str, proxy: str, runs: Sequence[Measured]) -> None:
        self._engine, self._proxy, self._runs = engine, proxy, runs
        self._begin = FITTED[name]

    def constants(self, rounds: int = ROUNDS) -> dict[str, float]:
        """The best ones found."""
        start = np.log(list(self._begin.values()))
        simplex = np.vstack([start, *(start + 0.7 * row for row in np.eye(len(start)))])
        options = {"maxfev": rounds, "initial_simplex": simplex, "xatol": 0.01, "fatol": 1e-5}
        found = minimize(self._loss, start, method="Nelder-Mead", options=options)
        return {n: float(f"{v:.4g}") for n, v in zip(self._begin, np.exp(found.x).tolist(), strict=True)}

    def simulated(self, run: Measured, constants: Mapping[str, float]) -> list[dict[str, float] | None]:
        """The same numbers of each window with these constants; None where no request was answered well."""
        kept = {k: v for k, v in run.options.items() if k in SHARED and v is not None}
        options = {**kept, "proxy": self._proxy, "overheads": dict(constants), "spans": False}
        recorder = Recorder()
        try:
            self._engine.open(run.cluster, options).run(run.workload, recorder, Path())
        except (RunFailed, RunTimeout):
            return [None] * len(run.windows)
        return [numbers_of(recorder, w.begin_s, w.end_s) for w in run.windows]

    def _loss(self, logs: np.ndarray) -> float:
        away = np.abs(logs - np.log(list(self._begin.values()))).max()
        if away > np.log(FURTHEST):
            return 1e3 * float(away)
        constants = dict(zip(self._begin, np.exp(logs).tolist(), strict=True))
        return float(np.mean([e for run in self._runs for e in self._squares(run, constants)]))

    def _squares(self, run: Measured, constants: Mapping[str, float]) -> list[float]:
        found = []
        for window, made in zip(run.windows, self.simulated(run, constants), strict=True):
            found += [1.0] if made is None else [min(abs(np.log(made[q] / window.numbers[q])), 1.0) ** 2 for q in made]
        return found
