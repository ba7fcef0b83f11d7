"""Each reader on a small log of our own making whose graph can be worked out by hand."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.logs import writers
from windtunnel.errors import InputError
from windtunnel.logs.reading import format_of, read_graph, read_log, read_logs
from windtunnel.logs.requests import ServiceLog
from windtunnel.logs.saved import load_graph, save_graph
from windtunnel.spec.jobgraph import COLUMNS, PARTS, JobGraph


def put(tmp_path: Path, name: str, data: bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


def modes(graph: JobGraph) -> list[list[tuple[int, str]]]:
    return [[(i.group, i.mode) for i in g.inputs] for g in graph.groups]


def test_spark(tmp_path: Path) -> None:
    graph = read_graph(put(tmp_path, "log", writers.spark_log(stages=3, tasks=4, cores=2, seconds=1.0, gap_s=0.5)))
    assert (graph.system, graph.version, graph.size, len(graph.groups)) == ("spark", "3.5.1", 12, 3)
    assert modes(graph) == [[], [(0, "all")], [(1, "all")]]
    assert [g.gap_s for g in graph.groups] == [0.5] * 3  # the driver's time before each stage
    assert graph.end_s == 3 * (0.5 + 2 * 1.0)
    assert graph.before_s == 4.0
    (machine,) = graph.machines
    assert (machine.slots, machine.cpus, machine.memory_bytes, machine.joined_s) == (2, 2.0, 2 << 30, -1.0)
    tasks = graph.tasks
    assert tasks["start_s"][:4].tolist() == [0.5, 0.5, 1.5, 1.5]
    total = sum(tasks[p] for p in PARTS)
    assert np.allclose(total, 1.0)  # every second is told once
    assert np.allclose(tasks["engine_s"], 0.1)
    assert np.allclose(tasks["cpu_s"], 0.9 * 0.6)
    assert np.allclose(tasks["gc_s"], 0.09)
    assert tasks["bytes_fetched"].tolist() == [0.0] * 4 + [1000.0] * 8
    assert dict(graph.settings) == {"spark.executor.cores": "2", "spark.executor.memory": "2g", "spark.master": "yarn"}


def test_a_stage_that_waits_for_slots_is_not_held_back_by_the_driver(tmp_path: Path) -> None:
    """Two stages that do not depend on each other, submitted at once on one core: the second one's wait is not the driver's."""
    lines = [json.loads(x) for x in writers.spark_lines(stages=2, tasks=2, cores=1, seconds=1.0, gap_s=0.0)]
    for event in lines:
        info = event.get("Stage Info", {})
        if info.get("Stage ID") == 1:
            info["Parent IDs"] = []
            info["Submission Time"] = writers.BEGIN
    text = "\n".join(map(json.dumps, lines)).replace('"Event": ', '"Event":')
    graph = read_graph(put(tmp_path, "log", text.encode()))
    assert modes(graph) == [[], []]
    assert [g.gap_s for g in graph.groups] == [0.0, 0.0]


@pytest.mark.parametrize("codec", ["zstd", "gzip", "lz4"])
def test_compressed_logs_are_the_same(tmp_path: Path, codec: str) -> None:
    data = writers.spark_log(tasks=40)
    packed = gzip.compress(data) if codec == "gzip" else pa.Codec(codec).compress(data, asbytes=True)
    graph = read_graph(put(tmp_path, "log", packed))
    plain = read_graph(put(tmp_path, "log", data))
    assert graph.digest() == plain.digest()


def test_blocks_of_lz4_and_snappy_as_java_writes_them(tmp_path: Path) -> None:
    data = writers.spark_log(tasks=40)
    plain = read_graph(put(tmp_path, "log", data))
    pieces = [data[i : i + 10_000] for i in range(0, len(data), 10_000)]
    lz4 = snappy = b""
    for piece in pieces:
        packed = pa.Codec("lz4_raw").compress(piece, asbytes=True)
        head = b"LZ4Block" + bytes([0x20]) + len(packed).to_bytes(4, "little") + len(piece).to_bytes(4, "little") + bytes(4)
        lz4 += head + packed
        raw = pa.Codec("snappy").compress(piece, asbytes=True)
        snappy += len(raw).to_bytes(4, "big") + raw
    end = b"LZ4Block" + bytes([0x10]) + bytes(12)
    assert read_graph(put(tmp_path, "log", lz4 + end)).digest() == plain.digest()
    assert read_graph(put(tmp_path, "log", b"\x82SNAPPY\x00" + bytes(8) + snappy)).digest() == plain.digest()


def test_a_rolling_folder_is_one_log(tmp_path: Path) -> None:
    text = writers.spark_log(stages=4).splitlines(keepends=True)
    folder = tmp_path / "eventlog_v2_app-1"
    folder.mkdir()
    for part in range(12):  # ten comes after nine
        (folder / f"events_{part + 1}_app-1").write_bytes(b"".join(text[part * 5 : part * 5 + 5]))
    (folder / "appstatus_app-1").write_bytes(b"")
    (folder / "events_12_app-1").write_bytes(b"".join(text[55:]))
    whole = read_graph(put(tmp_path, "log", b"".join(text)))
    assert read_graph(folder).digest() == whole.digest()


def test_dask(tmp_path: Path) -> None:
    graph = read_graph(put(tmp_path, "stream.json", writers.dask_stream((4, 4, 1), 0.25)))
    assert [g.name for g in graph.groups] == ["step0", "step1", "step2"]
    assert modes(graph) == [[], [(0, "all")], [(1, "all")]]
    assert not graph.inferred
    assert [m.slots for m in graph.machines] == [1, 1]
    assert graph.end_s == pytest.approx(1.25)
    guessed = read_graph(put(tmp_path, "stream.json", writers.dask_stream((4, 4, 1), 0.25, known=False)))
    assert guessed.inferred
    assert modes(guessed) == modes(graph)


def test_ray(tmp_path: Path) -> None:
    graph = read_graph(put(tmp_path, "timeline.json", writers.ray_timeline((4, 1), 1e6)))
    assert [(g.name, graph.partitions(i)) for i, g in enumerate(graph.groups)] == [("layer0", 4), ("layer1", 1)]
    assert modes(graph) == [[], [(0, "all")]]
    assert np.allclose(graph.tasks["python_s"], 0.8)
    assert np.allclose(graph.tasks["wait_s"], 0.1)
    assert any("Ray's own actors" in n for n in graph.notes)


def test_ray_data_statistics(tmp_path: Path) -> None:
    graph = read_graph(put(tmp_path, "stats.txt", writers.RAY_STATS.encode()))
    lengths = graph.duration_s()[graph.rows(0)]
    assert lengths.sum() == pytest.approx(4.0)
    assert 0.5 <= lengths.min() < lengths.max() <= 1.5
    assert np.allclose(graph.tasks["python_s"][graph.rows(0)], lengths / 2)  # half of the wall time was CPU time
    assert modes(graph) == [[], [(0, "stream")]]


def test_wfformat(tmp_path: Path) -> None:
    graph = read_graph(put(tmp_path, "w.json.gz", gzip.compress(writers.wfformat())))
    assert (graph.system, graph.end_s, graph.timed) == ("pegasus", 120.0, False)
    assert graph.tasks["start_s"].tolist() == [0.0, 10.0, 10.0, 40.0]  # as early as parents allow: 10, then 20 and 30
    assert [m.slots for m in graph.machines] == [4]
    assert "host-a" not in repr(graph) and "secret" not in repr(graph)


def test_flink(tmp_path: Path) -> None:
    graph = read_graph(put(tmp_path, "job.json", writers.flink_job()))
    assert [g.name for g in graph.groups] == ["Source", "PythonMap"]
    assert modes(graph) == [[], [(0, "stream")]]
    assert graph.tasks["cpu_s"].tolist() == [4.0, 4.0, 0.0, 0.0]  # 8 s of busy time over two subtasks
    assert graph.tasks["python_s"].tolist() == [0.0, 0.0, 10.0, 10.0]  # where Flink has no figure, all of it
    vertex = {"id": "a", "name": "x", "parallelism": 2, "subtasks": [
        {"subtask": i, "status": "FINISHED", "taskmanager-id": f"tm{i}", "start-time": writers.BEGIN, "end-time": writers.BEGIN + 5000,
         "metrics": {"accumulated-busy-time": 1000 * (i + 1)}} for i in range(2)]}  # fmt: skip
    (beside,) = read_logs([tmp_path / "job.json", put(tmp_path, "v.json", json.dumps(vertex).encode())])
    assert isinstance(beside, JobGraph)
    assert beside.tasks["cpu_s"][beside.rows(0)].tolist() == [1.0, 2.0]
    assert len(beside.machines) == 3  # two task managers, and whoever ran the other vertex


def test_opentelemetry(tmp_path: Path) -> None:
    graph = read_graph(put(tmp_path, "trace.json", writers.otel()))
    assert [(g.name, graph.partitions(i)) for i, g in enumerate(graph.groups)] == [("load", 2), ("join", 1)]
    assert modes(graph) == [[], [(0, "all")]]
    mapping = put(tmp_path, "map.toml", b'include = ["lo*"]\nbytes_out = "rows"\n')
    mapped = read_graph(tmp_path / "trace.json", mapping)
    assert [g.name for g in mapped.groups] == ["load"]
    assert mapped.tasks["bytes_out"].tolist() == [10.0, 10.0]


def test_chrome(tmp_path: Path) -> None:
    graph = read_graph(put(tmp_path, "trace.json", writers.chrome()))
    assert [g.name for g in graph.groups] == ["load", "save"]
    assert graph.duration_s().tolist() == pytest.approx([1.0, 0.5])


def test_requests_of_a_service(tmp_path: Path) -> None:
    log = read_log(put(tmp_path, "requests.jsonl", writers.vllm()))
    assert isinstance(log, ServiceLog)
    assert log.arrival_s[:3].tolist() == pytest.approx([0.0, 2.0, 4.0])
    assert log.step is not None
    assert log.step[0] + log.step[1] == pytest.approx(0.01, rel=0.02)  # 100 steps of one sequence took a second


def test_what_is_saved_is_what_is_read(tmp_path: Path) -> None:
    for name, data in (
        ("log", writers.spark_log()),
        ("s.json", writers.dask_stream((3, 2, 5), known=False)),
        ("w.json", writers.wfformat()),
    ):
        graph = read_graph(put(tmp_path, name, data))
        save_graph(graph, tmp_path / "kept.graph.json.gz")
        again = load_graph(tmp_path / "kept.graph.json.gz")
        assert (again.groups, again.machines, again.notes, again.settings) == (
            graph.groups,
            graph.machines,
            graph.notes,
            graph.settings,
        )
        for column in COLUMNS:
            np.testing.assert_allclose(again.tasks[column], graph.tasks[column], atol=1e-6)
        assert again.edges.tolist() == graph.edges.tolist()
        assert format_of(tmp_path / "kept.graph.json.gz").name == "saved job graph"


def test_personal_data_stay_out_unless_asked_for(tmp_path: Path) -> None:
    path = put(tmp_path, "log", writers.spark_log())
    save_graph(read_graph(path), tmp_path / "kept.json")
    kept = (tmp_path / "kept.json").read_text()
    for word in ("ann", "secret", "/home", "job.py", "ssn", "laptop"):
        assert word not in kept
    (graph,) = read_logs([path], names=True)
    assert isinstance(graph, JobGraph)
    assert graph.groups[0].name == "collect at /home/ann/job.py:10"
    assert graph.machines[0].name == "ann-laptop/1"


def test_unknown_files_are_told_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no log that is known here; known: .*Spark event log"):
        read_log(put(tmp_path, "x", b"hello"))
    with pytest.raises(InputError, match="is empty"):
        read_log(put(tmp_path, "x", b""))
    with pytest.raises(InputError, match="does not exist"):
        read_log(tmp_path / "absent")
