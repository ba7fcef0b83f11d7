"""Events of a Spark application as its event log has them: the fields that matter here, with their types.

Names are those of org.apache.spark.util.JsonProtocol (2.4 to 4.x); what older versions lack has a default. Fields with what a person
wrote (paths, user names, SQL text, call sites) are not read at all, but for call sites, of which `verb` keeps the method's name.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Struct, field

MILLI = 1e-3
NANO = 1e-9
_CALLSITE = re.compile(r"^([A-Za-z_$][A-Za-z0-9_$]*) at ")


def verb(callsite: str) -> str:
    """``collect`` of ``collect at /home/ann/job.py:12``; ``stage`` for what has no such form."""
    match = _CALLSITE.match(callsite)
    return match.group(1) if match else "stage"


class Event(Struct):
    """What every line holds."""

    event: str = field(name="Event")


class LogStart(Struct):
    """The log's first line."""

    version: str = field(name="Spark Version", default="")


class ApplicationStart(Struct):
    """The application began; ``attempt`` where a cluster manager starts it more than once."""

    time: int = field(name="Timestamp")
    attempt: str | None = field(name="App Attempt ID", default=None)
    name: str = field(name="App Name", default="")


class ApplicationEnd(Struct):
    """The application ended."""

    time: int = field(name="Timestamp")


class EnvironmentUpdate(Struct):
    """The configuration; only the properties that `spark_settings` knows are kept."""

    spark: dict[str, Any] = field(name="Spark Properties", default_factory=dict)


class Request(Struct):
    """How much of a resource an executor or a task asks for."""

    amount: float = field(name="Amount", default=0)


class ResourceProfileAdded(Struct):
    """What executors have and tasks need."""

    id: int = field(name="Resource Profile Id")
    executor: dict[str, Request] = field(name="Executor Resource Requests", default_factory=dict)
    task: dict[str, Request] = field(name="Task Resource Requests", default_factory=dict)


class ExecutorInfo(Struct):
    """Where an executor runs and how many cores it has."""

    host: str = field(name="Host", default="")
    cores: int = field(name="Total Cores", default=1)
    profile: int = field(name="Resource Profile Id", default=0)
    resources: dict[str, Any] = field(name="Resources", default_factory=dict)


class ExecutorAdded(Struct):
    """An executor is up."""

    time: int = field(name="Timestamp")
    id: str = field(name="Executor ID")
    info: ExecutorInfo = field(name="Executor Info")


class ExecutorRemoved(Struct):
    """An executor is gone."""

    time: int = field(name="Timestamp")
    id: str = field(name="Executor ID")


class Scope(Struct):
    """The operator that an RDD belongs to."""

    name: str = ""


class Rdd(Struct):
    """An RDD of a stage."""

    id: int = field(name="RDD ID")
    name: str = field(name="Name", default="")
    scope: str = field(name="Scope", default="")


class StageInfo(Struct):
    """A stage; times are absent until they are known."""

    id: int = field(name="Stage ID")
    attempt: int = field(name="Stage Attempt ID", default=0)
    name: str = field(name="Stage Name", default="")
    tasks: int = field(name="Number of Tasks", default=0)
    parents: list[int] = field(name="Parent IDs", default_factory=list)
    rdds: list[Rdd] = field(name="RDD Info", default_factory=list)
    submitted: int | None = field(name="Submission Time", default=None)
    completed: int | None = field(name="Completion Time", default=None)
    failure: str | None = field(name="Failure Reason", default=None)
    profile: int = field(name="Resource Profile Id", default=0)


class StageEvent(Struct):
    """A stage was submitted or has completed."""

    info: StageInfo = field(name="Stage Info")


class JobStart(Struct):
    """A job was submitted."""

    id: int = field(name="Job ID")
    time: int = field(name="Submission Time", default=-1)
    stages: list[int] = field(name="Stage IDs", default_factory=list)
    infos: list[StageInfo] = field(name="Stage Infos", default_factory=list)
    properties: dict[str, Any] | None = field(name="Properties", default=None)


class JobEnd(Struct):
    """A job ended."""

    id: int = field(name="Job ID")
    time: int = field(name="Completion Time", default=-1)


class ExecutionStart(Struct):
    """A SQL query began; its text and its plan are not read."""

    id: int = field(name="executionId")
    time: int
    root: int | None = field(name="rootExecutionId", default=None)


class ExecutionEnd(Struct):
    """A SQL query ended."""

    id: int = field(name="executionId")
    time: int


class EndReason(Struct):
    """Why a task ended."""

    reason: str = field(name="Reason", default="")


class Accumulable(Struct):
    """A metric of a task; ``update`` is a number, or its text."""

    name: str | None = field(name="Name", default=None)
    update: Any = field(name="Update", default=None)


class TaskInfo(Struct):
    """When and where a task ran. ``Getting Result Time``: when the driver began to fetch a large result, 0 where it did not."""

    id: int = field(name="Task ID")
    index: int = field(name="Index")
    launched: int = field(name="Launch Time")
    executor: str = field(name="Executor ID", default="")
    host: str = field(name="Host", default="")
    attempt: int = field(name="Attempt", default=0)
    partition: int = field(name="Partition ID", default=-1)
    finished: int = field(name="Finish Time", default=0)
    getting: int = field(name="Getting Result Time", default=0)
    speculative: bool = field(name="Speculative", default=False)
    killed: bool = field(name="Killed", default=False)


class TaskInfoWithMetrics(TaskInfo):
    """The same, with its metrics of SQL operators."""

    metrics: list[Accumulable] = field(name="Accumulables", default_factory=list)


class ShuffleRead(Struct):
    """What a task fetched from other tasks."""

    remote: int = field(name="Remote Bytes Read", default=0)
    local: int = field(name="Local Bytes Read", default=0)
    wait_ms: int = field(name="Fetch Wait Time", default=0)


class ShuffleWrite(Struct):
    """What a task left for others; the time is in nanoseconds."""

    size: int = field(name="Shuffle Bytes Written", default=0)
    time_ns: int = field(name="Shuffle Write Time", default=0)


class Input(Struct):
    """What a task read from outside the job."""

    size: int = field(name="Bytes Read", default=0)


class Output(Struct):
    """What a task wrote outside the job."""

    size: int = field(name="Bytes Written", default=0)


class TaskMetrics(Struct):
    """Milliseconds and bytes; CPU times are in nanoseconds."""

    deserialize_ms: int = field(name="Executor Deserialize Time", default=0)
    run_ms: int = field(name="Executor Run Time", default=0)
    cpu_ns: int = field(name="Executor CPU Time", default=0)
    gc_ms: int = field(name="JVM GC Time", default=0)
    result_ms: int = field(name="Result Serialization Time", default=0)
    memory: int = field(name="Peak Execution Memory", default=0)
    spilled: int = field(name="Disk Bytes Spilled", default=0)
    read: ShuffleRead | None = field(name="Shuffle Read Metrics", default=None)
    write: ShuffleWrite | None = field(name="Shuffle Write Metrics", default=None)
    input: Input | None = field(name="Input Metrics", default=None)
    output: Output | None = field(name="Output Metrics", default=None)


class TaskStart(Struct):
    """A task was launched."""

    stage: int = field(name="Stage ID")
    info: TaskInfo = field(name="Task Info")
    stage_attempt: int = field(name="Stage Attempt ID", default=0)


class TaskEnd(Struct):
    """A task ended."""

    stage: int = field(name="Stage ID")
    info: TaskInfo = field(name="Task Info")
    stage_attempt: int = field(name="Stage Attempt ID", default=0)
    reason: EndReason | None = field(name="Task End Reason", default=None)
    metrics: TaskMetrics | None = field(name="Task Metrics", default=None)


class TaskEndWithMetrics(TaskEnd):
    """The same, with its metrics of SQL operators."""

    info: TaskInfoWithMetrics = field(name="Task Info")


_SQL = "org.apache.spark.sql.execution.ui."
#: event → its type; others are passed over
TYPES: dict[str, type[Struct]] = {
    "SparkListenerLogStart": LogStart,
    "SparkListenerApplicationStart": ApplicationStart,
    "SparkListenerApplicationEnd": ApplicationEnd,
    "SparkListenerEnvironmentUpdate": EnvironmentUpdate,
    "SparkListenerResourceProfileAdded": ResourceProfileAdded,
    "SparkListenerExecutorAdded": ExecutorAdded,
    "SparkListenerExecutorRemoved": ExecutorRemoved,
    "SparkListenerJobStart": JobStart,
    "SparkListenerJobEnd": JobEnd,
    "SparkListenerStageSubmitted": StageEvent,
    "SparkListenerStageCompleted": StageEvent,
    "SparkListenerTaskStart": TaskStart,
    "SparkListenerTaskEnd": TaskEnd,
    f"{_SQL}SparkListenerSQLExecutionStart": ExecutionStart,
    f"{_SQL}SparkListenerSQLExecutionEnd": ExecutionEnd,
}
DECODERS: dict[str, Any] = {name: msgspec.json.Decoder(kind) for name, kind in TYPES.items()}
EVENT: Any = msgspec.json.Decoder(Event)
TASK_END_WITH_METRICS: Any = msgspec.json.Decoder(TaskEndWithMetrics)
SCOPE: Any = msgspec.json.Decoder(Scope)
