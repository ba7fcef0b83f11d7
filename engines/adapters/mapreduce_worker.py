"""A Python worker of Hadoop jobs: reads a task and its blocks on standard input, runs a stage's phases, writes blocks back.

A task is a length and JSON, its blocks are lengths and bytes up to a length of -1; the answer is partition, length and bytes of each
block up to -1, then a length and what failed (nothing when all went well). The worker ends when its input does. A block of a map
that cuts for an exchange has a first byte with the number of the reducer's input that it belongs to.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from windtunnel.engines import physical
from windtunnel.engines.adapters.stages import Work, blocks, cut_by_partition, pieces
from windtunnel.engines.failures import KernelFailed, describe
from windtunnel.engines.foreign.codec import decode
from windtunnel.model import Stage

Answer = Iterator[tuple[int, bytes]]


def read_blocks(path: str) -> Iterator[tuple[int, pa.Table]]:
    """(partition, table) of a file of blocks."""
    with Path(path).open("rb") as file:
        while head := file.read(8):
            partition, size = struct.unpack(">ii", head)
            yield partition, _table(file.read(size))


def _table(data: bytes) -> pa.Table:
    return pa.ipc.open_stream(pa.py_buffer(data)).read_all()


def _bytes(table: pa.Table, tag: bytes = b"") -> bytes:
    sink = pa.BufferOutputStream()
    sink.write(tag)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    written: bytes = sink.getvalue().to_pybytes()
    return written


@lru_cache(maxsize=2)
def _job(spec: str, partitions: int) -> tuple[Any, tuple[Stage, ...]]:
    """The workload of a run and its stages, as the front planned them."""
    workload = decode(json.loads(Path(spec).read_text(encoding="utf-8")))
    return workload, physical.compile_job(workload, partitions=partitions).stages


@lru_cache(maxsize=8)
def _side(files: tuple[str, ...]) -> pa.Table:
    tables = [t for path in files for _, t in read_blocks(path) if t.num_columns]
    return pa.concat_tables(tables) if tables else pa.table({})


def answer(task: dict[str, Any], received: list[bytes]) -> Answer:
    """The records that a task gives."""
    workload, stages = _job(task["spec"], task["partitions"])
    operators = {op.name: op for op in workload.pipeline.operators}
    work = Work(physical.program(stages[task["stage"]]), operators, task["output"], task["block_bytes"])
    place, sides = tuple(task["place"]), [_side(tuple(files)) for files in task["sides"]]
    if task["do"] == "blocks":
        for table in blocks(work, place, [_table(b) for b in received], sides):
            yield 0, _bytes(table)
    elif task["do"] == "reduce":
        yield from _reduced(work, place, received, sides, inputs=_inputs(stages[task["stage"]]))
    else:
        tables = [_table(b) for b in received]
        cut = cut_by_partition(work, iter(tables), sides) if task["do"] == "cut" else pieces(work, place, tables, sides)
        for partition, table in enumerate(cut):
            if table.num_rows or (partition == 0 and table.num_columns):  # one that is empty tells the columns
                yield partition, _bytes(table, bytes([task["tag"]]))


def _reduced(work: Work, place: tuple[int, ...], received: list[bytes], sides: list[pa.Table], inputs: int) -> Answer:
    # b[1:] is a copy: behind the first byte Arrow's buffers would not be aligned
    by_input = [[_table(b[1:]) for b in received if b[0] == tag] for tag in range(inputs)]
    if not all(by_input):  # no row of one side in this partition: an inner join or a group of nothing
        return
    work.split = len(by_input[0]) if inputs > 1 else 0
    for table in blocks(work, place, [t for side in by_input for t in side], sides):
        yield 0, _bytes(table)


def _inputs(stage: Stage) -> int:
    return sum(1 for i in stage.inputs if i.mode == "partition")


def serve(source: BinaryIO, target: BinaryIO) -> None:
    """Answer tasks until the input ends."""
    while (size := _number(source)) is not None:
        task, received = json.loads(source.read(size)), []
        while (size := _number(source)) not in (None, -1):
            received.append(source.read(size))
        ending = b""
        try:
            for partition, data in answer(task, received):
                target.write(struct.pack(">ii", partition, len(data)))
                target.write(data)
        except KernelFailed as error:
            ending = str(error).encode()
        except Exception as error:
            ending = describe(error).encode()
        target.write(struct.pack(">ii", -1, len(ending)) + ending)
        target.flush()


def _number(source: BinaryIO) -> int | None:
    head = source.read(4)
    return int(struct.unpack(">i", head)[0]) if len(head) == 4 else None


def main() -> None:
    """Serve on standard input and output; what kernels print goes to standard error."""
    pa.set_cpu_count(1)
    with os.fdopen(os.dup(1), "wb", buffering=1 << 16) as target:
        os.dup2(2, 1)
        serve(sys.stdin.buffer, target)


if __name__ == "__main__":
    main()
