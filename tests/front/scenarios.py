"""A scenario with every table in it, as a document that tests take apart."""

from __future__ import annotations

import copy
from typing import Any

from windtunnel.spec.strict import one_line

__all__ = ["FULL", "full", "one_line"]

FULL: dict[str, Any] = {
    "schema": 1,
    "name": "everything",
    "seed": 7,
    "repetitions": 1,
    "cluster": {
        "network": {"topology": "star", "oversubscription": 1.0, "latency": "100us"},
        "nodes": [
            {
                "name": "worker", "count": 1, "cpus": 4, "memory": "8GiB", "memory_limit": "4GB",
                "gpus": {"kind": "slot", "count": 2, "memory": "24GiB", "pcie": "12GB/s", "speed": 1.0},
                "disk": {"read": "500MB/s", "write": "400MB/s", "capacity": "300GB"},
                "nic": "10Gbit/s", "price_per_hour": 0.384, "startup": "0s", "mtbf": "0s",
            }
        ],
    },
    "dataset": {"rows": 8, "row_bytes": "8B", "partitions": 8, "skew": 0.0, "location": "generated"},
    "operators": [
        {
            "name": "load", "kind": "flat_map", "batch_rows": 1, "cost": {"per_batch": "1ms", "per_row": "0s", "per_byte": "0s", "cv": 0.0},
            "fixed_work": "sleep", "rows_out": 2.0, "row_bytes_out": "1KiB", "memory": "0B", "language": "python",
            "resources": {"cpus": 1, "gpus": 0},
        },
        {
            "name": "infer", "kind": "map", "cost": {"per_batch": "1ms"}, "row_bytes_out": "8B", "resources": {"cpus": 0, "gpus": 1},
            "state": {"kind": "actor", "load": "0s", "memory": "0B"}, "concurrency": [1, 2],
        },
    ],
    "engines": [{"name": "bulk", "label": "plain", "options": {"prefetch": True}}, {"name": "streaming"}],
    "sweep": {"cluster.nodes[0].cpus": [2, 4]},
}  # fmt: skip


def full() -> dict[str, Any]:
    """A copy to change."""
    return copy.deepcopy(FULL)
