"""Worker processes for the planner: they work out bounds and simulate orders, side by side, each once. Results do not depend on how many
there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from windtunnel.errors import InputError
from windtunnel.registry import load_engine
from windtunnel.running import pool
from windtunnel.running.cellspec import default_data_root
from windtunnel.scenario.reading import from_document
from windtunnel.sim.capacity.estimate import Estimate, assess
from windtunnel.sim.capacity.question import Candidate, Question, candidate_document, resized
from windtunnel.sim.capacity.trial import Order, engine_name
from windtunnel.spec.workload import BoundWorkload

Key = tuple[Any, ...]
Progress = Callable[[str, int], None]


class Bench:
    """Simulates orders, side by side, each once. Results do not depend on ``jobs``."""

    def __init__(self, executor: Executor | None, progress: Progress) -> None:
        self._executor, self._progress = executor, progress
        self.done: dict[Key, Estimate] = {}

    def estimates(self, orders: Sequence[Order]) -> list[Estimate]:
        """In the order asked for."""
        new = sorted({o.key: o for o in orders if o.key not in self.done}.values(), key=lambda o: -o.cpus)  # the longest first
        results = map(assess, new) if self._executor is None else self._executor.map(assess, new)
        for key, estimate in results:
            self.done[key] = estimate
            self._progress("simulating", len(self.done))
        return [self.done[o.key] for o in orders]

    def bounds(self, question: Question) -> tuple[dict[int, float], dict[int, str]]:
        """Seconds that no run of a candidate can beat; and why candidates cannot run at all."""
        parts = [
            replace(question, candidates=question.candidates[i : i + _PART]) for i in range(0, len(question.candidates), _PART)
        ]
        results = map(_bounds, parts) if self._executor is None else self._executor.map(_bounds, parts)
        found: dict[int, float] = {}
        refused: dict[int, str] = {}
        for some, others in results:
            found |= some
            refused |= others
        if not found:
            raise InputError(
                f"no candidate can run this: {next(iter(refused.values()), 'the grid is empty; check --type, --count, --gpus')}"
            )
        return found, refused


@contextmanager
def bench(jobs: int, progress: Progress) -> Iterator[Bench]:
    """A bench on ``jobs`` processes, none of which outlives it."""
    if jobs == 1:
        yield Bench(None, progress)
        return
    with pool.processes(jobs) as executor:
        yield Bench(executor, progress)


_PART = 32  # candidates whose bounds a process works out in one go


def _bounds(question: Question) -> tuple[dict[int, float], dict[int, str]]:
    """`Bench.bounds` of some candidates. Raises InputError for kernels without a measured cost."""
    found: dict[int, float] = {}
    refused: dict[int, str] = {}
    bound_tables: dict[int, BoundWorkload] = {}
    for candidate in question.candidates:
        try:
            found[candidate.number] = _bound(question, candidate, bound_tables)
        except InputError as error:
            if question.calibration is None and "windtunnel calibrate" in str(error):
                raise
            refused[candidate.number] = str(error)
    return found, refused


_SAMPLE = 16  # partitions that bounds are worked out on


def _bound(question: Question, candidate: Candidate, tables: dict[int, BoundWorkload]) -> float:
    document = candidate_document(question, candidate)
    scenario = from_document(document, question.file)
    data = scenario.workload.dataset
    times = 1.0
    if data.format == "generated" and data.skew == 0.0 and data.partitions > _SAMPLE and (data.rows or 0) >= data.partitions:
        scenario = from_document(resized(document, _SAMPLE), question.file)
        times = (data.rows or 0) / (scenario.workload.dataset.rows or 1)
        bound = scenario.workload.bind(default_data_root())
    else:
        bound = tables.setdefault(candidate.variant, scenario.workload.bind(default_data_root()))
    engine: Any = load_engine(engine_name(scenario))
    extra = {"calibration": question.calibration} if question.calibration else {}
    session = engine.open(scenario.cluster, {**extra, **scenario.engines[0].options, "seed": question.seed})
    session.prepare(bound)
    return float(session.lower_bound(times))
