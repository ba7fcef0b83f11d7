"""Last-mile preprocessing that feeds a training loop: what counts is whether the loop ever waits.

The loop is the pipeline's last operator: one worker that uses no CPU, or holds devices, and takes a batch at a time in the order in
which they arrive. An embedded engine runs it as an operator, a foreign one hands its results to a loop in the driver.
"""

from __future__ import annotations

from windtunnel.spec.plan import Concurrency, MapBatches, Operator, Pipeline, Resources, State
from windtunnel.spec.workload import Format, Oracle, Workload
from windtunnel.workloads.inference.build import ROOM, mapped, scan
from windtunnel.workloads.inference.images import photographs
from windtunnel.workloads.inference.training import AUGMENTED, CONSUMED
from windtunnel.workloads.inference.vision import DECODED

BATCH_ROWS = 32  # photographs a step
STEP_S = 0.1  # 320 photographs a second


def ingest(
    *, scale: float = 0.1, partitions: int = 16, seed: int = 7, format: Format = "parquet", batch_rows: int = BATCH_ROWS,
    step_s: float = STEP_S, gpus: float = 0.0,
) -> Workload:  # fmt: skip
    """Decode and augment photographs for a training loop whose steps of ``batch_rows`` rows take ``step_s`` seconds.

    ``gpus``: how much of an emulated device the loop holds; it has it to itself during a step.
    """
    train = Operator(
        name="train", kind="map", inputs=("augment",), batch_rows=batch_rows, language="python", state=State(kind="actor"),
        kernel=MapBatches(
            function=f"{ROOM}.training:Trainer", schema=CONSUMED, params=(("step_s", step_s), ("batch_rows", batch_rows))
        ),
        resources=Resources(cpus=0, gpus=gpus), concurrency=Concurrency(minimum=1, maximum=1),
    )  # fmt: skip
    operators = (
        scan("photos", "id", "jpeg"),
        mapped("decode", "vision:decode", DECODED, "scan", batch_rows),
        mapped("augment", "training:augment", AUGMENTED, "decode", batch_rows),
        train,
    )
    return Workload(
        name="ingest", kind="ingest", pipeline=Pipeline(operators), dataset=photographs(scale, partitions, seed, format),
        oracle=Oracle(check=f"{ROOM}.training:check"), status_column="status",
        description="decode and augment 10,000 photographs a scale unit for a training loop, and tell how long it waits",
    )  # fmt: skip
