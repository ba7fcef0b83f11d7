"""Raw spans → tasks and stages, on records made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.sim import crafted
from windtunnel.errors import InputError
from windtunnel.records.record import Recorder, RunRecord
from windtunnel.sim.calibration.observe import ObservedRun, observe, workload_of


def seen(record: RunRecord) -> ObservedRun:
    """A crafted record, observed."""
    return observe(record, {"crafted": crafted.WORKLOAD})


@pytest.mark.parametrize("workers", [1, 2])
def test_every_task_is_cut_out_and_finds_its_stage(workers: int) -> None:
    run = seen(crafted.record(workers=workers, partitions=5))
    assert [len([t for t in run.tasks if t.stage is s]) for s in run.job.stages] == [5, 2]
    for task in run.tasks:
        first = task.stage is run.job.stages[0]
        assert [p.operator for p in task.compute] == (["scan", "keep", "sums"] if first else ["sums"])
        assert (len(task.serialize), len(task.fetch), len(task.emit)) == ((1, 0, 2) if first else (0, 5, 1))
        assert task.rows_out == (crafted.GROUPS if first else crafted.GROUPS // 2)
    assert run.cpus == workers


def test_overlap_counts_busy_workers() -> None:
    alone = seen(crafted.record(workers=1))
    assert {t.overlap for t in alone.tasks} == {1.0}
    both = seen(crafted.record(workers=2, partitions=4))
    assert all(t.overlap == pytest.approx(2.0, abs=0.1) for t in both.tasks if t.stage is both.job.stages[0])
    odd = seen(crafted.record(workers=2, partitions=3))  # the third runs alone
    assert sorted(round(t.overlap) for t in odd.tasks if t.stage is odd.job.stages[0]) == [1, 2, 2]


def spans(*rows: tuple[str, str, int, int, float, float]) -> RunRecord:
    """A record of (kind, operator, partition, worker, start, end)."""
    recorder = Recorder()
    for kind, operator, partition, worker, start, end in rows:
        recorder.span(kind, operator, start, end, partition=partition, worker=worker, rows=10, bytes=80)  # type: ignore[arg-type]
    return replace(crafted.record(), spans=recorder.span_table())


def test_tasks_that_follow_each_other_are_told_apart() -> None:
    """Two second-stage tasks of one partition and worker: the one's emit ends it, the other's compute begins it."""
    task = [("compute", "sums", 0, 0, 0.0, 1.0), ("fetch", "sums", 0, 0, 0.0, 0.1), ("emit", "sums", 0, 0, 1.0, 1.1)]
    later = [(k, o, p, w, a + 2, b + 2) for k, o, p, w, a, b in task]
    run = seen(spans(*task, *later))
    assert [(t.start_s, t.end_s) for t in run.tasks] == [(0.0, 1.1), (2.0, 3.1)]
    assert all(t.stage is run.job.stages[1] for t in run.tasks)


def test_a_queue_span_belongs_to_the_task_that_follows() -> None:
    run = seen(spans(("queue", "", 0, 0, 0.0, 1.0), ("compute", "sums", 0, 0, 1.0, 2.0), ("fetch", "sums", 0, 0, 1.0, 1.1)))
    (task,) = run.tasks
    assert task.queue is not None and task.queue.seconds == 1.0
    assert (task.start_s, task.end_s) == (1.0, 2.0)


def test_spans_of_no_stage_are_kept_apart() -> None:
    run = seen(
        spans(("compute", "elsewhere", 0, 0, 0.0, 1.0), ("barrier", "sums", -1, -1, 0.0, 1.0), ("load", "sums", 0, 0, 0.0, 0.5))
    )
    assert [t.stage for t in run.tasks] == [None]
    assert [p.seconds for p in run.loads] == [0.5]


def test_no_spans_no_tasks() -> None:
    assert seen(spans()).tasks == []


def test_the_plan_comes_by_name_and_the_data_from_the_record() -> None:
    record = crafted.record(scale=2.0, partitions=7)
    found = workload_of(record, {"crafted": crafted.WORKLOAD})
    assert found.pipeline == crafted.WORKLOAD.pipeline
    assert (found.dataset.scale, found.dataset.partitions) == (2.0, 7)
    with pytest.raises(InputError, match="unknown workload 'crafted'"):
        workload_of(record)
