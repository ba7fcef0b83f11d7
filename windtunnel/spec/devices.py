"""Kinds of accelerators, as data: ``cpu``, ``slot``, ``cuda:N``, and emulated ones with figures from published measurements.

An emulated device takes what a real one would take and computes nothing: a call of ``rows`` rows lasts ``fixed_s + rows * row_s``,
once for a model of `REFERENCE_GMACS` and in proportion for others. Both figures follow from MLPerf Inference, ResNet-50, closed
division, NVIDIA, one accelerator: the median latency of a single stream is a call of one row, the offline throughput is what a row
costs in a large batch. They are those of NVIDIA's INT8 engines: a model in another precision or runtime is slower by a factor that
the figures do not know. The module knows no engine and measures nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from windtunnel.errors import InputError, nearest
from windtunnel.spec.cluster import DeviceSpec

#: multiply-adds of a ResNet-50 v1.5 on 224 × 224 pixels, in 1e9
REFERENCE_GMACS = 4.1
EMULATED = "emulated:"
_MLPERF = "MLPerf Inference {}, ResNet-50, NVIDIA {}: {} samples/s offline, {} ms median of a single stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Emulated:
    """One kind: samples a second offline, seconds of a single row, device memory, host link, and where the figures come from."""

    offline_per_s: float
    single_s: float
    memory_bytes: int
    pcie_bytes_per_s: float
    source: str

    @property
    def row_s(self) -> float:
        """Seconds a row of a large batch."""
        return 1.0 / self.offline_per_s

    @property
    def fixed_s(self) -> float:
        """Seconds a call, beside its rows."""
        return self.single_s - self.row_s

    def seconds(self, rows: int, gmacs: float = REFERENCE_GMACS) -> float:
        """How long a call of ``rows`` rows takes of a model with ``gmacs`` · 1e9 multiply-adds a row."""
        return self.fixed_s + rows * self.row_s * gmacs / REFERENCE_GMACS if rows else 0.0


def _kind(rounds: str, system: str, offline: float, single_ms: float, gib: int, link: float, note: str = "") -> Emulated:
    """``link``: GB/s that a copy over the kind's PCIe generation reaches in one direction, 80 % of its 16 lanes."""
    source = _MLPERF.format(rounds, system, f"{offline:g}", f"{single_ms:g}") + (f". {note}" if note else "")
    return Emulated(
        offline_per_s=offline, single_s=single_ms / 1e3, memory_bytes=gib * 2**30, pcie_bytes_per_s=link, source=source
    )


#: kind → figures. Memory and PCIe generation: NVIDIA's data sheets.
KINDS: dict[str, Emulated] = {
    "T4": _kind("v0.7", "T4x1_TRT", 6035.57, 0.99757, 16, 12.6e9),
    "L4": _kind("v3.1", "L4x1_TRT", 12881.7, 0.345894, 24, 25.2e9),
    "A10G": _kind(
        "v1.1", "A10x1_TRT", 13805.2, 0.457915, 24, 25.2e9,
        "Nobody submitted an A10G: these are the A10's, which has the same chip, memory and bandwidth and a higher tensor peak",
    ),
    "A100": _kind("v3.0", "A100-PCIe-80GBx1_TRT", 39152.4, 0.469708, 80, 25.2e9),
    "H100": _kind(
        "v3.1 (offline: DGX-H100_H100-SXM-80GBx1_TRT) and v3.0 (single stream)", "H100 and A100", 88526.0, 0.469708, 80, 50.4e9,
        "Nobody submitted a single stream on one H100: that latency is the A100's",
    ),
}  # fmt: skip


def is_emulated(kind: str) -> bool:
    """Whether the kind's kernels take published time and compute nothing."""
    return kind.startswith(EMULATED)


def emulated(kind: str) -> Emulated:
    """The figures of ``emulated:KIND``. Raises InputError for unknown ones."""
    name = kind.removeprefix(EMULATED)
    if name not in KINDS:
        raise InputError(f"there are no published figures of device {name!r}{nearest(name, KINDS)}")
    return KINDS[name]


def device_spec(kind: str, count: int = 1) -> DeviceSpec:
    """``count`` devices of a kind: ``slot``, ``cuda``, ``cuda:N`` or ``emulated:KIND``; the figures of emulated ones filled in."""
    if is_emulated(kind):
        figures = emulated(kind)
        return DeviceSpec(kind=kind, count=count, memory_bytes=figures.memory_bytes, pcie_bytes_per_s=figures.pcie_bytes_per_s)
    name, _, number = kind.partition(":")
    if kind != "slot" and not (name == "cuda" and (not number or number.isdigit()) and not kind.endswith(":")):
        known = ("slot", "cuda", "cuda:0", *(EMULATED + k for k in KINDS))
        raise InputError(f"device {kind!r} is none of a known kind{nearest(kind, known)}")
    return DeviceSpec(kind=kind, count=count)


def told(cluster: Mapping[str, Any], workload: Mapping[str, Any]) -> str:
    """What every title says of a run whose operators used emulated devices, from a record's specs: `` on emulated:A10G``; else nothing."""
    operators = (workload.get("pipeline") or {}).get("operators") or ()
    if not any((op.get("resources") or {}).get("gpus") for op in operators):
        return ""
    kinds = (str((n.get("gpus") or {}).get("kind", "")) for n in cluster.get("nodes") or ())
    return "".join(f" on {kind}" for kind in dict.fromkeys(kinds) if is_emulated(kind))


def parse_devices(text: str) -> DeviceSpec:
    """Devices as a person writes them: ``emulated:A10G``, ``cuda:0``, ``4 x emulated:T4``."""
    left, times, right = text.partition(" x ")
    count, kind = (left.strip(), right.strip()) if times else ("1", text.strip())
    if not count.isdigit() or not 1 <= int(count) <= 1024:
        raise InputError(f"devices {text!r} must be written KIND or N x KIND with N from 1 to 1024, for example 2 x emulated:T4")
    return device_spec(kind, int(count))
