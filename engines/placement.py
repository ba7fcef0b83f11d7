"""Where operators that ask for devices run: the device of the cluster is written into their kernels' parameters.

Both worlds and every engine then run the same placed plan: a kernel that is built with ``device`` loads its model there, and the
simulator reads from the plan which published curve applies. What is particular to an engine is only who may use a device when
(its own mechanism, `Capabilities.features["devices"]`). For an emulated device the answers of its models are computed here, untimed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from windtunnel.engines.arrow import as_dataset, call
from windtunnel.errors import InputError, Unsupported
from windtunnel.records.record import Recorder
from windtunnel.spec.canonical import digest
from windtunnel.spec.cluster import ClusterSpec, DeviceSpec
from windtunnel.spec.devices import is_emulated
from windtunnel.spec.plan import MapBatches, Operator, Pipeline, Scan, State
from windtunnel.spec.workload import BoundWorkload
from windtunnel.workloads.inference.claims import open_devices, take_totals
from windtunnel.workloads.inference.session import save_answers

_FOLDER = "devices"


def devices_of(cluster: ClusterSpec) -> DeviceSpec:
    """The devices of the first node that has some, else none."""
    return next((n.gpus for n in cluster.nodes if n.gpus.count), DeviceSpec())


def wants_devices(op: Operator) -> bool:
    """Whether an operator has a kernel that runs on a device."""
    return op.resources.gpus > 0 and isinstance(op.kernel, MapBatches)


def placed(workload: BoundWorkload, cluster: ClusterSpec, scratch: Path | None = None) -> BoundWorkload:
    """The workload with the cluster's device in each kernel that asks for one.

    ``scratch``: the folder of a real session, where the books of its devices lie; without one (simulated) only the kind is told.
    Raises Unsupported where the cluster has no device.
    """
    asking = [op for op in workload.pipeline.operators if wants_devices(op)]
    if not asking:
        return workload
    spec = devices_of(cluster)
    if not spec.count:
        raise Unsupported(
            f"operator {asking[0].name!r} asks for {asking[0].resources.gpus:g} devices and the cluster has none; "
            "give it some, for example --devices emulated:A10G"
        )
    device = spec.kind if spec.kind != "slot" else "cpu"
    if scratch is not None and device != "cpu":
        folder = scratch / _FOLDER
        open_devices(folder, spec.kind, spec.count, spec.memory_bytes)
        device = f"{device}@{folder}"
        if is_emulated(spec.kind):
            device += f"|{_answers(workload, asking)}"
    return with_device(workload, device)


def with_device(workload: BoundWorkload, device: str) -> BoundWorkload:
    """``device`` as a parameter of every kernel that asks for one."""
    operators = tuple(_with_device(op, device) if wants_devices(op) else op for op in workload.pipeline.operators)
    return replace(workload, workload=replace(workload.workload, pipeline=Pipeline(operators)))


def _with_device(op: Operator, device: str) -> Operator:
    assert isinstance(op.kernel, MapBatches)
    return replace(op, kernel=replace(op.kernel, params=(*op.kernel.params, ("device", device))))


def count_devices(recorder: Recorder, scratch: Path) -> None:
    """Into the record: how long kernels kept devices busy, and how faithful emulated ones were."""
    folder = scratch / _FOLDER
    if folder.exists():
        for name, amount in sorted(take_totals(folder).items()):
            recorder.count(name, amount)


def _answers(workload: BoundWorkload, asking: list[Operator]) -> Path:
    """The folder of the models' answers for these data, made once by running the plan with every model on the CPU."""
    functions = [op.kernel.function for op in asking if isinstance(op.kernel, MapBatches)]
    folder = workload.folder / f"answers-{digest([functions, 1])}"
    if not (folder / "done").exists():
        folder.mkdir(exist_ok=True)
        for _ in _interpreted(with_device(workload, f"record@{folder}"), asking[-1].name):
            pass
        save_answers(folder)
        (folder / "done").touch()
    return folder


def _interpreted(workload: BoundWorkload, last: str) -> Iterator[pa.RecordBatch]:
    """Batches out of operator ``last``, whose inputs are a chain of maps on a scan, in this process."""
    op = workload.pipeline[last]
    if isinstance(op.kernel, Scan):
        yield from as_dataset(workload.table(op.kernel.table)).to_batches(columns=list(op.kernel.columns), batch_size=1024)
        return
    if not isinstance(op.kernel, MapBatches):
        raise InputError(
            f"an emulated device has its answers from a chain of maps on a scan, and operator {last!r} is a {op.kind}"
        )
    apply = call(replace(op, state=State()))
    for batch in _interpreted(workload, op.inputs[0]):
        yield from apply(batch)
