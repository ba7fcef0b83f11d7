"""Accelerators of a node: speed factor, host link and device memory. The execution model decides who runs where."""

from __future__ import annotations

from windtunnel.errors import OutOfMemory
from windtunnel.spec.cluster import DeviceSpec
from windtunnel.spec.units import format_bytes


def device_seconds(spec: DeviceSpec, compute_s: float, moved_bytes: float) -> float:
    """Time on the device: declared compute time over its speed, plus the copies over the host link."""
    return compute_s / spec.speed + moved_bytes / spec.pcie_bytes_per_s


def check_device_memory(spec: DeviceSpec, state_bytes: int, batch_bytes: float, operator: str) -> None:
    """OutOfMemory when an actor's state with one batch does not fit; a device of 0 bytes has no limit."""
    need = state_bytes + batch_bytes
    if spec.memory_bytes and need > spec.memory_bytes:
        raise OutOfMemory(
            f"operator {operator!r} needs {format_bytes(need)} of device memory for its state and one batch, and a "
            f"{spec.kind} has {format_bytes(spec.memory_bytes)}",
            operator=operator,
        )
