"""The hand-written Ray engine's tasks and actors: a stage's program on Arrow tables. What runs on the workers, and handles of it.

A task either streams blocks to the driver one by one (the next stage takes them as they come), or cuts its output into one object a
partition after a first small one that says that it is done.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from windtunnel.engines.adapters.stages import Work, blocks, pieces
from windtunnel.engines.arrow import call
from windtunnel.model import Stage
from windtunnel.spec.plan import MapBatches

RETRIES = 3  # Ray's own default for tasks


def _sides(tables: tuple[pa.Table, ...], counts: list[int]) -> tuple[list[pa.Table], list[pa.Table]]:
    """(inputs, broadcast sides) from the one row of arguments that Ray resolves; ``counts`` blocks make up each side."""
    total, sides = sum(counts), []
    rest = list(tables[len(tables) - total :])
    for count in counts:
        whole = [t for t in rest[:count] if t.num_columns]
        sides.append(pa.concat_tables(whole) if whole else pa.table({}))
        rest = rest[count:]
    return list(tables[: len(tables) - total]), sides


def stream(work: Work, place: tuple[int, ...], counts: list[int], *tables: pa.Table) -> Iterator[pa.Table]:
    """A task that streams its blocks."""
    pa.set_cpu_count(1)
    inputs, sides = _sides(tables, counts)
    yield from blocks(work, place, inputs, sides)


def exchange(work: Work, place: tuple[int, ...], counts: list[int], *tables: pa.Table) -> Any:
    """A task that cuts its output by partition."""
    pa.set_cpu_count(1)
    inputs, sides = _sides(tables, counts)
    return [True, *pieces(work, place, inputs, sides)]


class Actor:
    """A process that keeps a stage's stateful kernels: they are loaded when it starts."""

    def __init__(self, work: Work) -> None:
        for step in work.program.steps:
            if isinstance(step.phase, MapBatches):
                call(work.operators[step.operator])

    def stream(self, work: Work, place: tuple[int, ...], counts: list[int], *tables: pa.Table) -> Iterator[pa.Table]:
        """See `stream`."""
        yield from stream(work, place, counts, *tables)

    def exchange(self, work: Work, place: tuple[int, ...], counts: list[int], *tables: pa.Table) -> Any:
        """See `exchange`."""
        return exchange(work, place, counts, *tables)


# -- in the driver ----------------------------------------------------------------------------------------------------


class Pool:
    """Actors of one stateful stage. They claim no CPU from Ray: the driver's budget counts their calls instead."""

    def __init__(self, stage: Stage, work: Work, size: int) -> None:
        import ray

        needs = stage.resources
        kind = ray.remote(num_cpus=0, num_gpus=needs.gpus, resources=dict(needs.custom), max_restarts=RETRIES)(Actor)
        self.idle = [kind.options(max_task_retries=RETRIES).remote(work) for _ in range(size)]


@dataclass(slots=True)
class Task:
    """A task under way. ``handle`` is what `ray.wait` waits for: a stream of blocks, or the first object of an exchange."""

    handle: Any
    place: tuple[int, ...]
    actor: Any = None
    pieces: list[Any] = field(default_factory=list)
    taken: int = -1  # number of the newest block of the stream

    @classmethod
    def start(
        cls, stage: Stage, work: Work, place: tuple[int, ...], inputs: list[Any], sides: list[list[Any]], actor: Any
    ) -> Task:
        """Hand it to Ray."""
        import ray

        partitioner, needs = work.program.partitioner, stage.resources
        arguments = (work, place, [len(s) for s in sides], *inputs, *(b for side in sides for b in side))
        function = exchange if partitioner is not None else stream
        returns: Any = "streaming" if partitioner is None else 1 + partitioner.partitions
        if actor is not None:
            found = getattr(actor, function.__name__).options(num_returns=returns).remote(*arguments)
        else:
            task = ray.remote(num_cpus=needs.cpus, num_gpus=needs.gpus, resources=dict(needs.custom), max_retries=RETRIES)(
                function
            )
            found = task.options(num_returns=returns).remote(*arguments)
        if partitioner is None:
            return cls(found, place, actor)
        return cls(found[0], place, actor, list(found[1:]))

    def block(self) -> Any:
        """The next block of a stream that has one, None at its end. Raises what the task raised."""
        import ray

        if self.pieces:
            ray.get(self.handle)
            return None
        try:
            reference = next(self.handle)
        except StopIteration:
            ray.get(self.handle.completed())
            return None
        self.taken += 1
        return reference

    def cancel(self) -> None:
        """Let it run no further where Ray can stop it: a task; an actor's call is waited for."""
        import contextlib

        import ray

        with contextlib.suppress(Exception):
            if self.actor is None:
                ray.cancel(self.handle)
            else:
                ray.wait([self.handle], timeout=30)
