"""Stages as adapters run them: output in blocks, cut by partition, over a worker's pipe; and the driver of `ray-core` without Ray."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from tests.conformance.kernels import explode
from windtunnel.engines.adapters import mapreduce_worker
from windtunnel.engines.adapters.stages import Work, blocks, pieces
from windtunnel.engines.foreign.codec import encode
from windtunnel.engines.physical import compile_job, program
from windtunnel.spec.plan import Aggregate, MapBatches, Measure, Operator, Pipeline, Scan
from windtunnel.spec.workload import BoundWorkload, DatasetSpec, TableData, Workload

ROWS = 1000


def thrice(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Every row three times: a flat_map."""
    return pa.concat_batches([batch] * 3)


@pytest.fixture
def bound(tmp_path: Path) -> BoundWorkload:
    """Scan 1,000 rows, triple them, count them by key."""
    import pyarrow.parquet as pq

    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"k": [n % 7 for n in range(ROWS)]}), path)
    table = TableData(name="t", format="parquet", paths=(str(path),), rows=ROWS, bytes=8 * ROWS, schema=(("k", "int64"),))
    kernel = MapBatches(function="tests.engines.test_stages:thrice", schema=(("k", "int64"),))
    count = Aggregate(keys=("k",), measures=(Measure(name="n", function="count"),))
    operators = (
        Operator(name="scan", kind="scan", kernel=Scan(table="t", columns=("k",))),
        Operator(name="triple", kind="flat_map", kernel=kernel, inputs=("scan",), batch_rows=100),
        Operator(name="count", kind="aggregate", kernel=count, inputs=("triple",)),
    )
    data = DatasetSpec(name="t", generator="none:none")
    workload = Workload(name="w", kind="etl", pipeline=Pipeline(operators), dataset=data)
    return BoundWorkload(workload=workload, tables=(table,), folder=tmp_path)


def work_of(bound: BoundWorkload, stage: int, block_bytes: int = 2**20) -> Work:
    stages = compile_job(bound, partitions=3).stages
    return Work(program(stages[stage]), {op.name: op for op in bound.pipeline.operators}, "", block_bytes)


def test_every_group_lies_in_one_partition_once(bound: BoundWorkload) -> None:
    cut = pieces(work_of(bound, 0), (0,), [], [])
    assert len(cut) == 3
    counts = pa.concat_tables([t for p in cut for t in blocks(work_of(bound, 1), (0,), [p], [])])
    expected = {k: 3 * len(range(k, ROWS, 7)) for k in range(7)}
    assert dict(zip(counts["k"].to_pylist(), counts["n"].to_pylist(), strict=True)) == expected


def test_output_is_cut_into_blocks(bound: BoundWorkload) -> None:
    work = work_of(bound, 0)
    narrow = Work(program(compile_job(bound, partitions=1, fuse=False).stages[0]), work.operators, "", 1000)
    tables = list(blocks(narrow, (0,), [], []))
    assert sum(t.num_rows for t in tables) == ROWS
    assert [t.num_rows for t in tables] == [123] * 8 + [16]  # 8,125 bytes with validity bits, 1,000 a block


def test_a_worker_answers_over_its_pipe(bound: BoundWorkload, tmp_path: Path) -> None:
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps(encode(bound)))
    shared = {"spec": str(spec), "output": "", "partitions": 3, "block_bytes": 2**20, "sides": [], "tag": 0}
    mapped, ending = _served({**shared, "do": "exchange", "stage": 0, "place": [0]}, [])
    assert ending == b"" and {p for p, _ in mapped} <= {0, 1, 2}
    total = 0
    for partition in range(3):
        mine = [data for p, data in mapped if p == partition]
        reduced, ending = _served({**shared, "do": "reduce", "stage": 1, "place": [partition]}, mine)
        assert ending == b""
        total += sum(sum(mapreduce_worker._table(data)["n"].to_pylist()) for _, data in reduced)
    assert total == 3 * ROWS


def test_a_failing_kernel_ends_the_answer_with_its_reason(bound: BoundWorkload, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("tests.engines.test_stages.thrice", explode)
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps(encode(bound)))
    task = {"spec": str(spec), "output": "", "partitions": 3, "block_bytes": 9, "sides": [], "tag": 0, "do": "exchange", "stage": 0,
            "place": [0]}  # fmt: skip
    _, ending = _served(task, [])
    assert b"triple" in ending and b"no such carrier" in ending and b"kernels.py" in ending


def _served(task: dict[str, Any], received: list[bytes]) -> tuple[list[tuple[int, bytes]], bytes]:
    text = json.dumps(task).encode()
    asked = (
        struct.pack(">i", len(text)) + text + b"".join(struct.pack(">i", len(r)) + r for r in received) + struct.pack(">i", -1)
    )
    target = io.BytesIO()
    mapreduce_worker.serve(io.BytesIO(asked), target)
    target.seek(0)
    found = []
    while True:
        partition, size = struct.unpack(">ii", target.read(8))
        data = target.read(size)
        if partition == -1:
            return found, data
        found.append((partition, data))


# -- the driver of ray-core -------------------------------------------------------------------------------------------


class FakeTask:
    """A task that gives one block at once; ``budget`` sees how many run."""

    running = most = 0

    def __init__(self, place: tuple[int, ...], inputs: list[Any]) -> None:
        self.handle, self.place, self.actor, self.pieces, self.taken = object(), place, None, [], -1
        FakeTask.running += 1
        FakeTask.most = max(FakeTask.most, FakeTask.running)

    def block(self) -> Any:
        if self.taken == 0:
            FakeTask.running -= 1
            return None
        self.taken += 1
        return object()


def test_ray_core_bounds_work_in_flight_and_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources end at once and their reader never: the queue between them stays at its bound, and all blocks come once."""
    ray = pytest.importorskip("ray", reason="needs windtunnel[ray]")
    from windtunnel.engines.adapters import ray_core
    from windtunnel.model import Job, Stage, StageInput

    payload = (program(compile_job(_two_stages(), partitions=1, fuse=False).stages[1]),)
    source = Stage(index=0, name="a", operators=("a",), inputs=(), partitions=100, payload=payload)
    reader = Stage(
        index=1, name="b", operators=("b",), inputs=(StageInput(stage=0, mode="forward"),), partitions=None, payload=payload
    )
    session = SimpleNamespace(_cpus=2, _options={"queue": 3, "block_bytes": "1MiB"})
    monkeypatch.setattr(ray_core.Task, "start", lambda stage, work, place, inputs, sides, actor: FakeTask(place, inputs))
    run = ray_core._Run(session, _two_stages(), Job(stages=(source, reader)), "")
    longest = 0

    def wait(handles: list[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        nonlocal longest
        longest = max(longest, len(run._states[1].queue))
        mine = [h for h in handles if run._running[h][0] is run._states[0]]  # the reader's tasks only end when nothing else can
        return [(mine or handles)[0]], []

    monkeypatch.setattr(ray, "wait", wait)
    for _ in run.progress():
        pass
    assert len(run.blocks()) == 100
    assert FakeTask.most <= 2
    assert longest <= 2 * 3


def _two_stages() -> BoundWorkload:
    kernel = MapBatches(function="tests.engines.test_stages:thrice", schema=(("k", "int64"),))
    table = TableData(name="t", format="parquet", paths=("t.parquet",), rows=1, bytes=8, schema=(("k", "int64"),))
    operators = (
        Operator(name="scan", kind="scan", kernel=Scan(table="t", columns=("k",))),
        Operator(name="map", kind="map", kernel=kernel, inputs=("scan",)),
    )
    workload = Workload(name="w", kind="etl", pipeline=Pipeline(operators), dataset=DatasetSpec(name="t", generator="n:n"))
    return BoundWorkload(workload=workload, tables=(table,), folder=Path())
