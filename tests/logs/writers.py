"""Logs as other systems write them, small and of our own making: what the tests of readers read, cut and damage."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

BEGIN = 1_700_000_000_000  # milliseconds


def spark_lines(
    *, stages: int = 2, tasks: int = 4, cores: int = 2, seconds: float = 1.0, gap_s: float = 0.5, wide: int = 0
) -> Iterator[str]:
    """A Spark application: one job whose stages follow each other, each of ``tasks`` equal tasks on one executor of ``cores``.

    A stage is submitted ``gap_s`` after the one before has ended. ``wide``: so many accumulables fill each task's end, as real ones do.
    """

    def line(event: str, **fields: Any) -> str:
        return json.dumps({"Event": event, **fields}, separators=(",", ":"))

    yield line("SparkListenerLogStart", **{"Spark Version": "3.5.1"})
    yield line(
        "SparkListenerApplicationStart",
        **{"App Name": "secret name", "Timestamp": BEGIN - 4000, "User": "ann", "App ID": "app-1"},
    )
    properties = {
        "spark.executor.cores": str(cores),
        "spark.executor.memory": "2g",
        "spark.master": "yarn",
        "spark.home": "/home/ann",
    }
    yield line("SparkListenerEnvironmentUpdate", **{"Spark Properties": properties, "System Properties": {"user.name": "ann"}})
    info = {"Host": "ann-laptop", "Total Cores": cores, "Log Urls": {}}
    yield line("SparkListenerExecutorAdded", **{"Timestamp": BEGIN - 1000, "Executor ID": "1", "Executor Info": info})
    query = {"executionId": 7, "description": "select ssn from people", "time": BEGIN - 100}
    yield line("org.apache.spark.sql.execution.ui.SparkListenerSQLExecutionStart", **query)
    infos = [_stage(i, tasks) for i in range(stages)]
    start = {"Job ID": 0, "Submission Time": BEGIN, "Stage Infos": infos, "Stage IDs": list(range(stages))}
    yield line("SparkListenerJobStart", **start, Properties={"spark.sql.execution.id": "7"})
    at, task_id = BEGIN, 0
    length = round(seconds * 1000)
    for stage in range(stages):
        at += round(gap_s * 1000)
        yield line("SparkListenerStageSubmitted", **{"Stage Info": {**infos[stage], "Submission Time": at}})
        begun = at
        for first in range(0, tasks, cores):
            for index in range(first, min(first + cores, tasks)):
                yield line(
                    "SparkListenerTaskStart",
                    **{"Stage ID": stage, "Stage Attempt ID": 0, "Task Info": _task(task_id, index, at, 0)},
                )
                yield line("SparkListenerTaskEnd", **_task_end(stage, task_id, index, at, at + length, wide))
                task_id += 1
            at += length
        done = {**infos[stage], "Submission Time": begun, "Completion Time": at}
        yield line("SparkListenerStageCompleted", **{"Stage Info": done})
    yield line("SparkListenerJobEnd", **{"Job ID": 0, "Completion Time": at, "Job Result": {"Result": "JobSucceeded"}})
    yield line("SparkListenerApplicationEnd", Timestamp=at + 50)


def _stage(number: int, tasks: int) -> dict[str, Any]:
    rdd = {"RDD ID": number * 2 + 1, "Name": "MapPartitionsRDD", "Scope": '{"id":"1","name":"mapPartitions"}', "Parent IDs": []}
    return {
        "Stage ID": number, "Stage Attempt ID": 0, "Stage Name": f"collect at /home/ann/job.py:{number + 10}", "Number of Tasks": tasks,
        "RDD Info": [rdd], "Parent IDs": [number - 1] if number else [], "Details": "secret.method(/home/ann/job.py)",
    }  # fmt: skip


def _task(task_id: int, index: int, launched: int, finished: int) -> dict[str, Any]:
    return {
        "Task ID": task_id, "Index": index, "Attempt": 0, "Partition ID": index, "Launch Time": launched, "Executor ID": "1",
        "Host": "ann-laptop", "Locality": "PROCESS_LOCAL", "Speculative": False, "Getting Result Time": 0, "Finish Time": finished,
        "Failed": False, "Killed": False, "Accumulables": [],
    }  # fmt: skip


def _task_end(stage: int, task_id: int, index: int, launched: int, finished: int, wide: int) -> dict[str, Any]:
    length = finished - launched
    run = length * 9 // 10
    metrics = {
        "Executor Deserialize Time": length // 20, "Executor Run Time": run, "Executor CPU Time": run * 600_000, "JVM GC Time": run // 10,
        "Result Serialization Time": 0, "Peak Execution Memory": 1 << 20, "Memory Bytes Spilled": 0, "Disk Bytes Spilled": 0,
        "Shuffle Read Metrics": {"Remote Bytes Read": 1000 * bool(stage), "Local Bytes Read": 500, "Fetch Wait Time": run // 20},
        "Shuffle Write Metrics": {"Shuffle Bytes Written": 1500, "Shuffle Write Time": 1000},
        "Input Metrics": {"Bytes Read": 4096 * (not stage)}, "Output Metrics": {"Bytes Written": 0},
    }  # fmt: skip
    info = _task(task_id, index, launched, finished)
    info["Accumulables"] = [
        {"ID": i, "Name": f"internal.metrics.shuffle.number{i}", "Update": i * 17, "Value": i * 170, "Internal": True}
        for i in range(wide)
    ]
    return {
        "Stage ID": stage, "Stage Attempt ID": 0, "Task Type": "ShuffleMapTask", "Task End Reason": {"Reason": "Success"},
        "Task Info": info, "Task Metrics": metrics,
    }  # fmt: skip


def spark_log(**shape: Any) -> bytes:
    """The same as a file's bytes."""
    return ("\n".join(spark_lines(**shape)) + "\n").encode()


def dask_stream(layers: tuple[int, ...] = (4, 4, 1), seconds: float = 0.1, workers: int = 2, known: bool = True) -> bytes:
    """A task stream of layers, each of which reads all of the one before, on workers of one thread."""
    tasks: list[dict[str, Any]] = []
    at, before = 1_700_000_000.0, []
    for layer, count in enumerate(layers):
        keys = [f"step{layer}-{i:08x}{layer:08x}" for i in range(count)]
        for i, key in enumerate(keys):
            start = at + (i // workers) * seconds
            span = {"action": "compute", "start": start, "stop": start + seconds}
            worker = f"tcp://10.0.0.{i % workers}:4000"
            told = {"dependencies": before} if known else {}
            tasks.append({"key": key, "worker": worker, "thread": 1, "status": "OK", "nbytes": 8, "startstops": [span], **told})
        at += -(-count // workers) * seconds
        before = keys
    return json.dumps(tasks).encode()


def ray_timeline(layers: tuple[int, ...] = (4, 1), micros: float = 1e5, workers: int = 2) -> bytes:
    """A timeline of layers of tasks that wait for each other, with an actor of Ray's own."""
    events: list[dict[str, Any]] = []
    at = 1.7e15
    for layer, count in enumerate(layers):
        for i in range(count):
            start = at + (i // workers) * micros
            lane = {"pid": "10.0.0.1", "tid": f"worker:{i % workers}", "ph": "X"}
            events.append(
                {"cat": "task:deserialize_arguments", "name": "d", "ts": start, "dur": micros * 0.1, **lane, "args": {}}
            )
            events.append(
                {"cat": "task:execute", "name": "e", "ts": start + micros * 0.1, "dur": micros * 0.8, **lane, "args": {}}
            )
            events.append(
                {
                    "cat": f"task::layer{layer}(x=1)",
                    "name": "f",
                    "ts": start,
                    "dur": micros,
                    **lane,
                    "args": {"task_id": f"{layer}-{i}"},
                }
            )
        at += -(-count // workers) * micros
    own = {
        "cat": "task::_StatsActor.update",
        "name": "s",
        "pid": "10.0.0.1",
        "tid": "worker:9",
        "ph": "X",
        "ts": 1.7e15,
        "dur": 1.0,
    }
    return json.dumps([*events, {**own, "args": {}}]).encode()


RAY_STATS = """Operator 1 ReadRange: 4 tasks executed, 4 blocks produced in 2s
* Remote wall time: 500ms min, 1.5s max, 1s mean, 4s total
* Remote cpu time: 250ms min, 750ms max, 500ms mean, 2s total
* Output size bytes per block: 2000 min, 2000 max, 2000 mean, 8000 total

Operator 2 MapBatches(<lambda>): 4 tasks executed, 4 blocks produced in 1s
* Remote wall time: 250ms min, 250ms max, 250ms mean, 1s total
"""


def wfformat() -> bytes:
    """A workflow of four tasks in a diamond, 1.5."""
    tasks = [("split", []), ("left", ["split"]), ("right", ["split"]), ("merge", ["left", "right"])]
    plan = [{"name": n, "id": f"{n}_ID{i}", "parents": [f"{p}_ID{[t[0] for t in tasks].index(p)}" for p in ps], "children": [],
             "inputFiles": ["in.fa"], "outputFiles": []} for i, (n, ps) in enumerate(tasks)]  # fmt: skip
    ran = [{"id": t["id"], "runtimeInSeconds": 10.0 * (i + 1), "avgCPU": 50.0, "machines": ["host-a"],
            "command": {"program": "/opt/bin/tool", "arguments": ["--secret"]}} for i, t in enumerate(plan)]  # fmt: skip
    machines = [{"nodeName": "host-a", "cpu": {"coreCount": 4}, "memoryInBytes": 1 << 30}]
    files = [{"id": "in.fa", "sizeInBytes": 1000}]
    workflow = {
        "specification": {"tasks": plan, "files": files},
        "execution": {"makespanInSeconds": 120.0, "tasks": ran, "machines": machines},
    }
    return json.dumps(
        {"name": "w", "schemaVersion": "1.5", "runtimeSystem": {"name": "Pegasus", "version": "5"}, "workflow": workflow}
    ).encode()


def flink_job() -> bytes:
    """A job of two vertices that stream."""
    vertices = [
        {"id": v, "name": name, "parallelism": 2, "status": "FINISHED", "start-time": BEGIN, "end-time": BEGIN + 10_000, "duration": 10_000,
         "metrics": {"read-bytes": 100, "write-bytes": 200, "accumulated-busy-time": busy}}
        for v, name, busy in (("a", "Source: select secret from t", 8_000), ("b", "PythonMap", "NaN"))
    ]  # fmt: skip
    plan = {
        "nodes": [
            {"id": "a"},
            {"id": "b", "inputs": [{"num": 0, "id": "a", "ship_strategy": "HASH", "exchange": "pipelined_bounded"}]},
        ]
    }
    return json.dumps(
        {"jid": "1", "name": "j", "start-time": BEGIN, "end-time": BEGIN + 10_000, "vertices": vertices, "plan": plan}
    ).encode()


def otel() -> bytes:
    """A trace whose leaf spans are tasks: two loads, then a join that links to both."""

    def span(i: int, name: str, parent: str, begin: float, end: float, links: tuple[int, ...] = ()) -> dict[str, Any]:
        nanos = [str(round((1.7e9 + t) * 1e9)) for t in (begin, end)]
        return {
            "name": name, "spanId": f"{i:016x}", "parentSpanId": parent, "startTimeUnixNano": nanos[0], "endTimeUnixNano": nanos[1],
            "links": [{"spanId": f"{n:016x}"} for n in links], "attributes": [{"key": "rows", "value": {"intValue": "10"}}],
        }  # fmt: skip

    root = f"{0:016x}"
    spans = [
        span(0, "run", "", 0, 3),
        span(1, "load", root, 0, 1),
        span(2, "load", root, 0, 2),
        span(3, "join", root, 2, 3, (1, 2)),
    ]
    resource = {"attributes": [{"key": "host.name", "value": {"stringValue": "ann-laptop"}}]}
    return json.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": spans}]}]}).encode()


def chrome() -> bytes:
    """A Chrome trace: a frame around two tasks, one after the other."""
    events = [
        {"ph": "B", "name": "run", "ts": 0, "pid": 1, "tid": 1}, {"ph": "X", "name": "load", "ts": 10, "dur": 1e6, "pid": 1, "tid": 1},
        {"ph": "X", "name": "save", "ts": 1.1e6, "dur": 5e5, "pid": 1, "tid": 1, "args": {"n": 1}},
        {"ph": "E", "name": "run", "ts": 2e6, "pid": 1, "tid": 1}, {"ph": "M", "name": "process_name", "pid": 1},
    ]  # fmt: skip
    return json.dumps({"traceEvents": events}).encode()


def vllm(requests: int = 40) -> bytes:
    """Requests to a service of steps of 10 ms, one at a time."""
    rows = []
    for i in range(requests):
        at = i * 2.0
        rows.append({"request_id": f"r{i}", "input_toks": 100, "output_toks": 101, "arrival_time": 1.7e9 + at, "queued_ts": 50 + at,
                     "scheduled_ts": 50 + at, "first_token_ts": 50.1 + at, "last_token_ts": 51.1 + at})  # fmt: skip
    return "".join(json.dumps(r) + "\n" for r in rows).encode()
