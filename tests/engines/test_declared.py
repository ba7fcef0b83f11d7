"""Operators declared by cost: their time, rows and bytes, how they fall into tasks, and places that tasks take in turn."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pyarrow as pa
import pytest

from windtunnel.engines import declared
from windtunnel.engines.adapters.flink_declared import packed, parallelism, unpacked
from windtunnel.engines.slots import Slots, slots_of
from windtunnel.spec.cluster import ClusterSpec, DeviceSpec, NodeSpec
from windtunnel.spec.plan import Concurrency, Cost, Operator, Pipeline, Resources, Scan, State, Synthetic


def operator(name: str, *inputs: str, **changes: object) -> Operator:
    """A declared map of 10 bytes a row."""
    plain: dict[str, object] = {"kind": "map", "kernel": Synthetic(cost=Cost(), row_bytes_out=10), "inputs": inputs or ("input",)}
    return Operator(name=name, **{**plain, **changes})  # type: ignore[arg-type]


def rows_of(batches: list[pa.RecordBatch]) -> list[int]:
    """Rows of each batch."""
    return [b.num_rows for b in batches]


def test_every_call_takes_its_time_and_makes_its_rows() -> None:
    spec = Synthetic(cost=Cost(per_batch_s=0.01, per_row_s=0.005), rows_out=3.0, row_bytes_out=7, fixed_work="sleep")
    kernel = declared.Declared(spec, batch_rows=2)
    start = time.perf_counter()
    made = list(kernel(declared.payload_batch(5, 8)))
    assert time.perf_counter() - start >= 3 * 0.01 + 5 * 0.005
    assert rows_of(made) == [6, 6, 3]  # calls of 2, 2 and 1 rows
    assert {b.schema.field(0).type.byte_width for b in made} == {7}


def test_fractions_of_rows_carry_over_and_no_batch_is_lost() -> None:
    kernel = declared.Declared(Synthetic(cost=Cost(), rows_out=0.4), batch_rows=1)
    made = list(kernel(declared.payload_batch(5, 8)))
    assert rows_of(made) == [0, 0, 1, 0, 1]
    assert {b.schema.field(0).type.byte_width for b in made} == {8}  # as wide as the input


def test_wide_rows_leave_few_at_a_time() -> None:
    width = declared.MOST_BYTES // 2 - 1
    made = list(declared.Declared(Synthetic(cost=Cost(), rows_out=5.0, row_bytes_out=width))(declared.payload_batch(1, 8)))
    assert rows_of(made) == [2, 2, 1]
    assert sum(b.nbytes for b in made) == 5 * width


def test_a_row_of_a_column_without_fixed_width_is_as_wide_as_it_is() -> None:
    batch = pa.RecordBatch.from_pydict({"payload": [b"x" * 11]})
    (made,) = declared.Declared(Synthetic(cost=Cost()))(batch)
    assert made.schema.field(0).type.byte_width == 11


def test_state_is_loaded_once_and_devices_keep_theirs() -> None:
    op = operator("model", state=State(kind="actor", load_s=0.05, memory_bytes=1000))
    start = time.perf_counter()
    loaded = declared.kernel(op)
    assert isinstance(loaded, declared.Loaded)
    assert time.perf_counter() - start >= 0.05 and len(loaded._state) == 1000
    device = operator("model", state=State(kind="actor", memory_bytes=1000), resources=Resources(cpus=0, gpus=1))
    assert isinstance(there := declared.kernel(device), declared.Loaded) and there._state == b""


def test_working_memory_is_part_of_the_first_call() -> None:
    kernel = declared.Declared(Synthetic(cost=Cost()), memory_bytes=500)
    list(kernel(declared.payload_batch(1, 8)))
    assert kernel._held is not None and len(kernel._held) == 500


def pipeline(*operators: Operator) -> Pipeline:
    """The operators behind a scan."""
    scan = Operator(name="input", kind="scan", kernel=Scan(table="input", columns=("payload",)))
    return Pipeline((scan, *operators))


def names(found: tuple[tuple[Operator, ...], ...]) -> list[str]:
    """Names of the operators of each task."""
    return ["+".join(op.name for op in task) for task in found]


def test_neighbours_that_ask_for_the_same_are_one_task() -> None:
    device = Resources(cpus=0, gpus=1)
    chain = pipeline(operator("load"), operator("transform", "load"), operator("infer", "transform", resources=device))
    assert names(declared.tasks(chain)) == ["input+load+transform", "infer"]
    assert declared.needs(declared.tasks(chain)[0]).name == "load"


@pytest.mark.parametrize(
    "changes",
    [
        {"state": State(kind="actor")},
        {"concurrency": Concurrency(maximum=2)},
        {"kind": "aggregate"},
        {"resources": Resources(cpus=2)},
    ],
)
def test_what_is_not_one_task(changes: dict[str, object]) -> None:
    chain = pipeline(operator("load"), operator("next", "load", **changes))
    assert names(declared.tasks(chain)) == ["input+load", "next"]


def test_a_branch_is_read_by_tasks_of_their_own() -> None:
    branches = pipeline(operator("load"), operator("a", "load"), operator("b", "load"), operator("j", "a", "b", kind="join"))
    assert names(declared.tasks(branches)) == ["input+load", "a", "b", "j"]


def test_places_are_taken_in_turn(tmp_path: Path) -> None:
    places, inside, most = Slots(str(tmp_path), "device", 2), 0, 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal inside, most
        with places.taken():
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.02)
            with lock:
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert (inside, most) == (0, 2)


def test_how_many_places_an_operator_has(tmp_path: Path) -> None:
    device = Resources(cpus=0, gpus=2)
    assert slots_of(operator("plain"), 4, tmp_path).count == 0  # no limit
    assert slots_of(operator("few", concurrency=Concurrency(maximum=3)), 4, tmp_path).count == 3
    assert slots_of(operator("infer", resources=device), 4, tmp_path) == Slots(str(tmp_path), "device", 2)
    assert slots_of(operator("infer", resources=device, concurrency=Concurrency(maximum=1)), 4, tmp_path).count == 1


def test_rows_cross_to_a_jvm_and_back_as_they_are() -> None:
    batch = pa.RecordBatch.from_arrays([pa.array([b"abc", b"def", b"ghi", b"jkl"], pa.binary(3))], names=["payload"])
    for part in (batch, batch.slice(1, 2), batch.slice(3)):
        assert unpacked(packed(part)).to_pylist() == part.to_pylist()
    assert packed(batch.slice(1, 2)) == (2, b"defghi")


def test_how_many_subtasks_an_operator_has_on_flink() -> None:
    cluster = ClusterSpec(nodes=(NodeSpec(name="here", cpus=8, gpus=DeviceSpec(kind="slot", count=4)),))
    device = Resources(cpus=0, gpus=2)
    assert parallelism(operator("load"), None, cluster) == 8
    assert parallelism(operator("infer", resources=device), None, cluster) == 2
    assert parallelism(operator("few", concurrency=Concurrency(maximum=3)), None, cluster) == 3
    assert parallelism(operator("load"), 5, cluster) == 5
    assert parallelism(operator("load"), {"load": 6, "infer": 1}, cluster) == 6
    assert parallelism(operator("other"), {"load": 6}, cluster) == 8
