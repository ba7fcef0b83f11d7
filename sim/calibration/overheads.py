"""What the embedded world itself costs, from observed runs: start and end, a task, a block, forgetting inputs, loading actors.

A worker that has sent its last block still lets go of what the task read: mapped pages are given back at a rate of their own
before the next task begins. What cannot be told from records (the driver's own service times) keeps its default.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from windtunnel.engines.physical import program
from windtunnel.sim.calibration.fits import non_negative_fit
from windtunnel.sim.calibration.observe import ObservedRun, ObservedTask
from windtunnel.sim.costs.measured import EngineCost
from windtunnel.spec.plan import Sink

_IDLE_S = 2e-3  # a longer pause without a launch that waits is no overhead: the worker had nothing to do
_LARGE = 4e6  # bytes of inputs above which forgetting them shows in a pause


def engine_cost(name: str, runs: Sequence[ObservedRun], slowdown: tuple[tuple[float, float], ...], cold: float) -> EngineCost:
    """The overheads of an engine."""
    default = EngineCost(engine=name)
    moved = [t for r in runs for t in r.tasks if t.stage is not None]
    emit = [p for t in moved if not _has_sink(t) for p in t.emit]
    emit_block, emit_rate = _path([(p.bytes, p.seconds) for p in emit], default.emit_block_s, default.emit_bytes_per_s)
    fetch_block, fetch_rate = _path([(p.bytes, p.seconds) for t in moved for p in t.fetch], default.fetch_block_s, 0.0)
    idle = _median((t.start_s for r in runs if (t := min(r.tasks, key=lambda t: t.start_s, default=None))), 0.0)
    pause, forget = pauses_law([p for r in runs for p in pauses(r)], default)
    return EngineCost(
        engine=name, startup_s=max(idle - default.launch_s, 0.0), finish_s=_median(map(_tail, runs), 0.0),
        actor_start_s=_median((p.start_s - _ready_before(r, p) for r in runs for p in r.loads), 0.0),
        task_s=max(pause - default.done_s - default.launch_s, 0.0) + _median(map(_untold, moved), 0.0),
        emit_block_s=emit_block, emit_bytes_per_s=emit_rate, fetch_block_s=fetch_block, fetch_bytes_per_s=fetch_rate,
        forget_bytes_per_s=forget, cold=cold, slowdown=slowdown,
    )  # fmt: skip


def _has_sink(task: ObservedTask) -> bool:
    return task.stage is not None and any(isinstance(s.phase, Sink) for s in program(task.stage).steps)


def _path(moves: Sequence[tuple[float, float]], block_s: float, bytes_per_s: float) -> tuple[float, float]:
    """(seconds a block, bytes per second; 0 = bytes are free) of a serialization path."""
    if len(moves) < 3:
        return block_s, bytes_per_s
    size, seconds = np.array([m[0] for m in moves], dtype=float), np.array([m[1] for m in moves], dtype=float)
    fixed, per_byte = non_negative_fit(np.stack([np.ones_like(size), size], axis=1), seconds)
    return float(fixed), (float(1.0 / per_byte) if per_byte > 0 else 0.0)


def _median(values: Iterable[float], default: float) -> float:
    found = list(values)
    return float(np.median(found)) if found else default


def _tail(run: ObservedRun) -> float:
    """From the last span to the end of the run."""
    end = max((t.end_s for t in run.tasks), default=0.0)
    return max((run.record.makespan_s or end) - end, 0.0)


def _untold(task: ObservedTask) -> float:
    """Time inside a task that no span tells of. Inputs are mapped beside the previous task: only its own work counts."""
    own = [*task.compute, *task.serialize, *task.emit, *task.spill]
    if not own:
        return 0.0
    return max(max(p.end_s for p in own) - min(p.start_s for p in own) - sum(p.seconds for p in own), 0.0)


def pauses(run: ObservedRun) -> Iterator[tuple[float, float]]:
    """(bytes to forget, seconds until the next task began) on each worker, where the next task was there already.

    What other stages or tasks of a bulk stage may still read is not forgotten: such tasks tell nothing unless they read little.
    """
    last = dict[int, ObservedTask]()
    for task in sorted(run.tasks, key=lambda t: t.begin_s):
        before = last.get(task.worker)
        last[task.worker] = task
        if before is None:
            continue
        read = float(sum(p.bytes for p in before.fetch))
        if read > _LARGE / 4 and not _forgotten(run, before, task):
            continue
        if task.queue is not None:
            yield read, task.queue.end_s - max(before.end_s, task.queue.start_s)
        elif 0 <= task.start_s - before.end_s < _IDLE_S:
            yield read, task.start_s - before.end_s


def _forgotten(run: ObservedRun, before: ObservedTask, task: ObservedTask) -> bool:
    """Whether the inputs of ``before`` were released when ``task`` began: nobody else reads them, and its stage was over."""
    if before.stage is None or before.stage is task.stage:
        return False
    return all(len(run.job.consumers(i.stage)) == 1 for i in before.stage.inputs if i.mode != "broadcast")


def pauses_law(found: Sequence[tuple[float, float]], default: EngineCost) -> tuple[float, float]:
    """(seconds between two tasks, bytes per second at which a worker forgets inputs; 0 = at once)."""
    small = [s for size, s in found if size <= _LARGE / 4 and s >= 0]
    base = _median(small, default.task_s + default.done_s + default.launch_s)
    per_byte = _median(((s - base) / size for size, s in found if size >= _LARGE), 0.0)
    return base, (1.0 / per_byte if per_byte > 0 else 0.0)


def _ready_before(run: ObservedRun, load: Any) -> float:
    """When an actor was asked for: at the start, or when the last task before its load ended (a barrier)."""
    if run.record.engine == "streaming":
        return 0.0
    return max((t.end_s for t in run.tasks if t.end_s <= load.start_s), default=0.0)
