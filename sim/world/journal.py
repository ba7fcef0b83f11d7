"""What a simulated run leaves in its record: the spans, samples and counters that the local world writes too.

Spans are laid out when a task ends: its steps in order, stretched to the time that it really took. With very many tasks only
every n-th is written out (counter ``spans_left_out`` says how many were not).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from windtunnel.model import Block, Launch, Note
from windtunnel.records.record import Recorder
from windtunnel.sim.hardware.node import Node
from windtunnel.sim.world.samples import SampledValue
from windtunnel.sim.world.tasks import Quick, StageRun, TaskRun, Worker

if TYPE_CHECKING:
    from windtunnel.sim.costs.laws import Work

MOST_TASKS = 20_000  # with more source tasks than this, spans are sampled
NEVER = 1 << 62
_SHORT_WAIT_S = 0.001  # queue spans shorter than this are left out, as in the local world


class Journal:
    """Writes to a `Recorder`. ``spans`` None: all of few tasks, a sample of many."""

    def __init__(self, recorder: Recorder, stages: Sequence[StageRun], spans: bool | None) -> None:
        self.recorder = recorder
        self._stages = stages
        self.stored = SampledValue()
        self._memory = SampledValue()
        sources = sum(len(s.law.source) + len(s.law.told) for s in stages)
        #: every so-manieth task is written out
        self.every = {True: 1, False: NEVER, None: max(1, -(-sources // MOST_TASKS))}[spans]
        self._notes: dict[tuple[str, int], float] = {}
        self.tasks = self._written = self._loads = 0

    def note(self, action: Note, now: float) -> None:
        """A stage is held back, or free again."""
        key = (action.kind, action.stage)
        if action.begin:
            self._notes[key] = now
        elif key in self._notes:
            self.recorder.span(action.kind, self._stages[action.stage].name, self._notes.pop(key), now)

    def loaded(self, stage: StageRun, worker: int, start: float, end: float) -> None:
        """An actor loads its state."""
        self._loads += 1
        self.recorder.span("load", stage.operators[0], start, end, worker=worker)

    def spilled(self, run: TaskRun, block: Block, start: float, end: float) -> None:
        """A block was written to disk."""
        self.recorder.span(
            "spill", run.stage.operators[-1], start, end, partition=run.launch.partition, worker=run.launch.worker,
            attempt=run.launch.attempt, rows=block.rows, bytes=block.bytes,
        )  # fmt: skip

    def quick_done(self, worker: Worker, stage: StageRun, quick: Quick, now: float) -> None:
        """A source task on the short path ended, one of those to write out."""
        assert worker.launch is not None
        self.sampled(stage, quick, worker.launch, worker.ready_s, worker.started_s, now, worker.node.memory.used)

    def sampled(
        self, stage: StageRun, quick: Quick, launch: Launch, ready: float, start: float, now: float, memory_bytes: int
    ) -> None:
        """Write out a source task of the short path, with the bytes in use on its node."""
        self._written += 1
        self._memory.note(now, memory_bytes)
        self._write(stage, launch, ready, start, start, now, quick.work, stage.factors(quick.work, launch.partition, 0))

    def task_done(self, run: TaskRun, now: float) -> None:
        """A task ended, one of those to write out."""
        self._written += 1
        self._memory.note(now, run.worker.node.memory.used)
        end = now - run.spill_s
        self._write(run.stage, run.launch, run.worker.ready_s, run.started_s, run.fetched_s, end, run.work, run.factors)

    def _write(
        self,
        stage: StageRun,
        launch: Launch,
        ready: float,
        start: float,
        fetched: float,
        end: float,
        work: Work,
        factors: Sequence[float],
    ) -> None:
        """Queue, fetch, one compute a step, emit. The work is stretched to fill its time."""
        spans, key = self.recorder.spans, (launch.partition, launch.worker, launch.attempt)
        last = stage.operators[-1]
        size_out = round(work.rows_out * work.row_bytes)
        shares: list[tuple[str, str, float, int, int]] = []
        if launch.blocks:
            in_rows, in_bytes = (work.steps[0].rows, work.steps[0].bytes) if work.steps else (round(work.rows_out), size_out)
            shares.append(("fetch", last, stage.fetch.seconds(len(launch.blocks), in_bytes), in_rows, in_bytes))
        for i, step in enumerate(work.steps):
            is_exchange = stage.law.exchange is not None and i == len(work.steps) - 1
            seconds = step.seconds * (factors[i] if factors else 1.0)
            shares.append(("serialize" if is_exchange else "compute", step.operator, seconds, step.rows, step.bytes))
        blocks = max(1, len(stage.law.shares))
        shares.append(("emit", last, stage.cost.task_s + stage.emit_s(work, blocks, size_out), round(work.rows_out), size_out))
        if len(spans) + len(shares) + 2 > self.recorder.max_spans:
            self.recorder.count("spans_dropped", len(shares) + 2)
            return
        if start - ready > _SHORT_WAIT_S:
            spans.append(("queue", last, *key, ready, start, 0, 0))
        if fetched > start:
            spans.append(("fetch", last, *key, start, fetched, 0, 0))
        total = sum(s[2] for s in shares)
        stretch, at = ((end - fetched) / total if total > 0 else 0.0), fetched
        for kind, operator, seconds, rows, size in shares:
            spans.append((kind, operator, *key, at, at + seconds * stretch, rows, size))
            at += seconds * stretch

    def close(self, now: float, nodes: Sequence[Node], network_bytes: int) -> None:
        """Write samples and counters."""
        recorder = self.recorder
        for (kind, stage), since in self._notes.items():
            recorder.span(kind, self._stages[stage].name, since, now)  # type: ignore[arg-type]
        peak, peak_s = max((n.memory.highest for n in nodes), key=lambda entry: entry[0])
        memory = sorted({*self._memory.points, (peak_s, float(peak))})
        for name, points in (("store_bytes", self.stored.points), ("memory_bytes", memory)):
            for time_s, value in points:
                recorder.sample(name, time_s, value)
        counters = {
            "tasks": self.tasks, "loads": self._loads, "spans_left_out": self.tasks - self._written, "bytes_network": network_bytes,
            "spilled_bytes": sum(n.store.spilled for n in nodes),
            "peak_memory_bytes": peak, "peak_store_bytes": max(n.store.peak for n in nodes),
            "peak_disk_bytes": max(n.disk_peak for n in nodes),
        }  # fmt: skip
        for name, total in counters.items():
            if total:
                recorder.count(name, total)
