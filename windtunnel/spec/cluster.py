"""Hardware as data: node groups with CPUs, memory, devices, disk and network, and their price. The local machine is one too.

The module knows no engine and no time; the simulated world and the adapters read it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Literal

import psutil

from windtunnel.errors import InputError
from windtunnel.spec.canonical import digest

GIB = 2**30
FaultKind = Literal["node_lost", "node_joins", "node_leaves", "worker_killed", "straggler", "gpu_lost", "network_slow"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSpec:
    """Accelerators of a node: ``count`` of ``kind``, device memory each, host link and speed factor (1.0 = declared costs)."""

    kind: str = "slot"
    count: int = 0
    memory_bytes: int = 0
    pcie_bytes_per_s: float = 12e9
    speed: float = 1.0


#: HGST Ultrastar 7K4000 (7,200 rpm) specification: average seek 8.2 ms, average latency 4.17 ms (half a turn)
HDD_SEEK_S = 8.2e-3 + 4.17e-3
#: its sustained transfer rate on the outer tracks, the most
HDD_BYTES_PER_S = 171e6
#: Hadoop's readahead (dfs.datanode.readahead.bytes, mapreduce.ifile.readahead.bytes) and Linux' writeback (MIN_WRITEBACK_PAGES)
HDD_CHUNK_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskSpec:
    """Local disks: bandwidth apart for read and write, bytes of capacity. ``total_bytes_per_s``: both together (0: no such limit).

    ``kind`` hdd: ``drives`` spindles that share them, on one of which each stream lies; a place on it is reached in ``seek_s``, and
    streams that share a drive take turns of ``chunk_bytes``.
    """

    read_bytes_per_s: float = 500e6
    write_bytes_per_s: float = 400e6
    capacity_bytes: int = 300 * 10**9
    total_bytes_per_s: float = 0.0
    kind: Literal["ssd", "hdd"] = "ssd"
    drives: int = 1
    seek_s: float = HDD_SEEK_S
    chunk_bytes: int = HDD_CHUNK_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpec:
    """A group of ``count`` equal nodes. ``memory_limit_bytes``: what the engine may use of ``memory_bytes``."""

    name: str = "worker"
    count: int = 1
    type: str | None = None
    cpus: int = 1
    memory_bytes: int = 4 * GIB
    memory_limit_bytes: int | None = None
    gpus: DeviceSpec = DeviceSpec()
    disk: DiskSpec = DiskSpec()
    nic_bytes_per_s: float = 1.25e9
    price_per_hour_usd: float = 0.0
    startup_s: float = 0.0
    mtbf_s: float = 0.0

    def __post_init__(self) -> None:
        if self.count < 1 or self.cpus < 1 or self.memory_bytes <= 0:
            raise InputError(f"node group {self.name!r} needs count, cpus and memory above 0")

    @property
    def usable_memory_bytes(self) -> int:
        """The limit, or all memory."""
        return self.memory_bytes if self.memory_limit_bytes is None else self.memory_limit_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSpec:
    """A star of nodes around a core; the core is ``oversubscription`` times smaller than the sum of the NICs."""

    topology: str = "star"
    oversubscription: float = 1.0
    latency_s: float = 100e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What goes wrong, when and where; ``factor`` scales stragglers and slow networks, until ``until_s``.

    A node that leaves is given no task any more, ends those that it has, and what they left stays readable.

    ``target`` is a node as "group[index]".
    """

    kind: FaultKind
    at_s: float
    target: str
    factor: float = 1.0
    until_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSpec:
    """Node groups, their network and what goes wrong with them.

    ``address`` names a running foreign cluster (``spark://…``, ``tcp://…``).
    """

    nodes: tuple[NodeSpec, ...]
    network: NetworkSpec = NetworkSpec()
    address: str | None = None
    faults: tuple[Fault, ...] = ()

    def __post_init__(self) -> None:
        if not self.nodes:
            raise InputError("a cluster needs at least one node group")
        names = [n.name for n in self.nodes]
        if len(set(names)) != len(names):
            raise InputError(f"node group names must be unique, not {', '.join(names)}")

    @classmethod
    def here(cls, *, cpus: int | None = None, memory_bytes: int | None = None, gpus: int = 0) -> ClusterSpec:
        """This machine, or a share of it; ``gpus`` counts plain slots (no real device)."""
        total = psutil.virtual_memory().total
        node = NodeSpec(
            name="here",
            cpus=cpus or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (cpus or os.cpu_count() or 1),
            memory_bytes=total,
            memory_limit_bytes=memory_bytes,
            gpus=DeviceSpec(count=gpus),
        )
        return cls(nodes=(node,))

    def node_index(self, target: str) -> int:
        """The number of node ``group[index]`` among all nodes. Raises InputError for an unknown group."""
        group, _, rest = target.partition("[")
        before = 0
        for node in self.nodes:
            if node.name == group:
                return before + int(rest.rstrip("]"))
            before += node.count
        raise InputError(f"no node group {group!r} in the cluster; groups: {', '.join(n.name for n in self.nodes)}")

    def expanded(self) -> ClusterSpec:
        """The cluster with room for the nodes that join later (faults ``node_joins``): they are numbered within their groups."""
        groups = list(self.nodes)
        for fault in self.faults:
            name, _, index = fault.target.partition("[")
            for position, group in enumerate(groups):
                if group.name == name and fault.kind == "node_joins":
                    groups[position] = replace(group, count=max(group.count, int(index.rstrip("]")) + 1))
        return replace(self, nodes=tuple(groups))

    @property
    def cpus(self) -> int:
        """CPUs of all nodes."""
        return sum(n.count * n.cpus for n in self.nodes)

    @property
    def gpus(self) -> int:
        """Devices of all nodes."""
        return sum(n.count * n.gpus.count for n in self.nodes)

    @property
    def memory_bytes(self) -> int:
        """Usable memory of all nodes."""
        return sum(n.count * n.usable_memory_bytes for n in self.nodes)

    @property
    def price_per_hour_usd(self) -> float:
        """List price of all nodes."""
        return sum(n.count * n.price_per_hour_usd for n in self.nodes)

    def digest(self) -> str:
        """Hash of the canonical JSON."""
        return digest(self)
