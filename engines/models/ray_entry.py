"""Ray as an entry of the catalogue: the constants of its world, with where each comes from, and its options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from windtunnel.engines.api import Option
from windtunnel.engines.models.entry import ModelEntry
from windtunnel.engines.models.ray import Ray, plan
from windtunnel.engines.models.ray_budgets import BEFORE, MODERN, rules
from windtunnel.engines.models.switches import DOWNSTREAM_FIRST, PAGE_CACHE, RECOMPUTE
from windtunnel.engines.models.traits import Constant, Traits
from windtunnel.spec.units import parse_bytes

TRAITS = Traits(
    generator=True,
    prefetch=True,
    page_cache=True,
    kill=0.95,
    constants=(
        Constant(name="launch_s", value=0.8e-3, source="executor: sending a task, from the plateau of ray_data in scalability",
                 fitted="scalability: ray_data at 32 nodes"),
        Constant(name="done_s", value=0.4e-3, source="and to read that it ended", fitted="scalability: ray_data at 32 nodes"),
        Constant(name="block_s", value=0.1e-3, source="bookkeeping of one more block, a share of done_s"),
        Constant(name="round_s", value=0.1, source="process_completed_tasks: ray.wait for all running tasks, for 0.1 s at most"),
        Constant(name="loop_s", value=1e-3, source="a step of the executor's loop that reads nothing"),
        Constant(name="metadata_s", value=2e-3, source="Ray 2.60: a block's metadata comes from another thread, for a later round"),
        Constant(name="task_s", value=14e-3, source="lease, dispatch and reply: a slot is free for so long between two tasks",
                 fitted="partition_size: 1 and 8 rows"),
        Constant(name="emit_bytes_per_s", value=2.0e9, source="a task that makes a tensor and copies it to the object store",
                 fitted="scalability: ray_data at 4 nodes"),
        Constant(name="emit_mapped_bytes_per_s", value=0.8e9, source="rows above 32 MiB, whose every copy malloc maps anew: Ray 2.60 wrote "
                 "rows of 100 MiB at 0.3 to 0.4 GB/s here, in blocks of 100 to 1000 MiB alike, and rows of 1 MiB at 1.1",
                 fitted="memory_pipelining: ray at 16 GB"),
        Constant(name="startup_s", value=0.15, source="plan and executor of one more data set, on warm workers",
                 fitted="scalability: ray_data at 1 node"),
        Constant(name="device_restart_s", value=0.42, source="start of a worker process and its imports"),
        Constant(name="actor_start_s", value=2.0, source="start of a worker process, its imports and the actor's constructor"),
        Constant(name="worker_memory_bytes", value=100e6, source="an idle Ray worker with Arrow imported"),
        Constant(name="driver_memory_bytes", value=0.6e9, source="driver, GCS, raylet, agents of an idle Ray 2.60, as PSS"),
    ),
)  # fmt: skip

#: what differs where no executor stands between the driver and plain tasks
CORE = (
    Constant(name="round_s", value=0.0, source="the driver takes what is ready one by one: ray.wait(num_returns=1)"),
    Constant(name="launch_s", value=2e-3, source="driver's time a plain task, from their plateau in the scalability table",
             fitted="scalability: ray_tasks at 32 nodes"),
    Constant(name="done_s", value=1e-3, source="as launch_s", fitted="scalability: ray_tasks at 32 nodes"),
    Constant(name="task_s", value=90e-3, source="lease on the node of its input, dispatch and reply",
             fitted="scalability: ray_tasks at 1 node"),
    Constant(name="startup_s", value=0.0, source="there is no plan and no executor to set up"),
)  # fmt: skip


def costs(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Plain tasks have constants of their own; before 2.60 metadata came at once, and Ray Data's tasks kept their process up to 2.37."""
    if chosen["executor"] == "core":
        return {c.name: c.value for c in CORE}
    found = rules(chosen["policy"], chosen["release"], chosen["op_reservation"], chosen["budget_policy"])
    given = {} if found.release == MODERN else {"metadata_s": 0.0}
    return given if found.policy == "reserved" else {**given, "device_restart_s": 0.0}


ENTRY = ModelEntry(
    name="ray",
    build=Ray,
    plan=plan,
    traits=TRAITS,
    costs=costs,
    variants={"executor core": CORE},
    world={
        "store_bytes": Option(name="object_store", check=parse_bytes, default=None,
            doc="object store of all nodes; default 30 % of their memory"),
        "block_bytes": Option(name="block", default="128MiB", doc="target block size: a task's output is cut into blocks of about it"),
        "kill": Option(
            name="memory_usage_threshold", default=0.95, doc="share of a node's memory above which workers are killed; 0: never"
        ),
        "page_cache": PAGE_CACHE,
        "prefetch": Option(
            name="prefetch", default=True, choices=(True, False), doc="fetch the inputs of a queued task while its actor is busy"
        ),
        "generator": Option(
            name="generator", default=True, choices=(True, False), doc="a task's output leaves it block by block (streaming generators)"
        ),
        "fuse": Option(name="fuse", default=False, doc="fuse operators with equal resources", choices=(True, False)),
    },
    options=(
        Option(
            name="executor", default="data", choices=("data", "core"),
            doc="data: Ray Data's streaming executor; core: plain tasks that one driver sends and awaits",
        ),
        Option(name="block", default="128MiB", doc="target block size: a task's output is cut into blocks of about it"),
        Option(
            name="policy", default=None, choices=(None, "reserved", "threshold", "paced"),
            doc="who may send a task: reserved (Ray 2.10 on), threshold (before), paced (the fork of arXiv 2501.12407); default reserved, "
            "and paced with op_reservation = 0",
        ),
        Option(
            name="release", default=None, choices=(None, MODERN, BEFORE),
            doc="Ray's release whose rules are followed; default 2.60, and 2.40 with the policies and switches of the fork",
        ),
        Option(name="op_reservation", default=0.5, doc="share of CPUs and budget that is reserved for the operators in equal parts"),
        Option(
            name="budget_fraction", default=None,
            doc="share of the object store that queued blocks and running tasks may fill; default 0.5 reserved, 0.25 threshold, 1 the fork",
        ),
        Option(
            name="budget_policy", default=None, choices=(None, True, False),
            doc="the fork's switch: whether op_reservation = 0 means the policy paced",
        ),
        Option(name="generator_buffer", default=2, doc="blocks that a running task may have made before they are taken"),
        Option(
            name="limits_s", default=None,
            doc="seconds until the executor knows what the cluster has and sends a task; default 1 (release 2.60) or 0 (2.40)",
        ),
        Option(name="backpressure", default=True, doc="whether budgets hold operators back", choices=(True, False)),
        Option(name="autoscale", default=True, doc="whether actor pools grow above their minimum", choices=(True, False)),
        Option(name="num_cpus", default=None, doc="CPUs offered to the engine; default all"),
        Option(name="num_gpus", default=None, doc="devices offered to the engine; default all"),
        Option(
            name="materialize", default=False, choices=(True, False),
            doc="materialise every operator's output before the next begins (Dataset.materialize): the staged way",
        ),
        Option(
            name="tasks_in_flight", default=2,
            doc="tasks that an actor has in flight, 2 x its max_concurrency: it takes those first whose input is on its node",
        ),
        Option(name="locality", default=True, doc="whether tasks go to the nodes of their inputs", choices=(True, False)),
        DOWNSTREAM_FIRST,
        RECOMPUTE,
        Option(name="concurrency", default=None, doc="most tasks of an operator that run at once, by operator: { load = 4 }"),
    ),
    features={
        "backpressure": "an object store budget, by operator or for the source alone",
        "spill": "blocks beyond the object store go to local disk through the page cache",
    },
)  # fmt: skip
