"""How all renderers write numbers and rows, so that a figure reads the same everywhere."""

from __future__ import annotations

from windtunnel.reports.compare import Group
from windtunnel.reports.decompose import NAMES, Decomposition, Part
from windtunnel.reports.fidelity import Fidelity
from windtunnel.reports.rows import Row
from windtunnel.reports.screen import Strip
from windtunnel.reports.stats import Estimate
from windtunnel.reports.timeline import STAGE_KINDS
from windtunnel.reports.verdicts import percent
from windtunnel.spec.units import format_bytes, format_seconds

HEADS = ("engine", "makespan", "95% interval", "runs", "against", "peak memory", "spilled", "start", "note")


MORE_HEADS = (
    "engine", "fastest – slowest", "of the best", "first output", "rows/s", "CPU use", "serialization", "barrier", "backpressure",
    "cost",
)  # fmt: skip


def cells(row: Row) -> tuple[str, ...]:
    """A row of a group's table, in the order of `HEADS`."""
    if row.makespan_s is None:
        return (row.label, _plain(row.status), "", "0", "", "", "", "", failure(row))
    return (
        row.label,
        format_seconds(row.makespan_s.value),
        interval(row.makespan_s),
        str(row.n),
        against(row),
        format_bytes(row.peak_memory_bytes),
        "–" if row.spilled_bytes is None else format_bytes(row.spilled_bytes),
        format_seconds(row.open_s),
        note(row),
    )


def more_cells(row: Row) -> tuple[str, ...]:
    """What the first table has no room for, in the order of `MORE_HEADS`."""
    return (
        row.label,
        "–" if row.fastest_s is None else f"{format_seconds(row.fastest_s)} – {format_seconds(row.slowest_s)}",
        "–" if row.of_best is None else ratio(row.of_best),
        format_seconds(row.first_output_s),
        "–" if row.rows_per_s is None else f"{row.rows_per_s:,.0f}",
        "–" if row.cpu_utilization is None else f"{row.cpu_utilization:.0%}",
        format_seconds(row.serialization_s),
        format_seconds(row.barrier_s),
        format_seconds(row.blocked_s),
        "–" if row.cost_usd is None else f"${row.cost_usd:.4g}",
    )


def failure(row: Row) -> str:
    """How the bad runs ended, and why the first of them did: "2 failed, 1 timeout: no space left"."""
    ended = ", ".join(f"{count} {_plain(status)}" for status, count in row.statuses.items() if status != "ok")
    return f"{ended}: {row.reason or 'no reason given'}"


def _plain(status: str) -> str:
    return status.replace("_", " ")


def interval(estimate: Estimate) -> str:
    """ "1.1 s – 1.3 s", or nothing with too few runs."""
    if estimate.low is None or estimate.high is None:
        return "too few runs"
    return f"{format_seconds(estimate.low)} – {format_seconds(estimate.high)}"


def against(row: Row) -> str:
    """The ratio to the baseline: "1.24× sim:bulk", or "baseline"."""
    if row.against is None or row.verdict == "baseline":
        return row.verdict if row.verdict == "baseline" else ""
    return f"{ratio(row.against)} {row.baseline}"


def ratio(estimate: Estimate) -> str:
    """ "1.24×" """
    return f"{estimate.value:.2f}×" if estimate.value < 10 else f"{estimate.value:.3g}×"


def ratio_interval(estimate: Estimate) -> str:
    """ "1.24× (1.20 – 1.31)" """
    if estimate.low is None or estimate.high is None:
        return ratio(estimate)
    return f"{ratio(estimate)} ({estimate.low:.2f} – {estimate.high:.2f})"


def note(row: Row) -> str:
    """What else a reader must know of a row."""
    parts = []
    if row.status != "ok":
        parts.append(failure(row))
    if row.verdict not in ("baseline", "no result"):
        parts.append(row.verdict)
    if row.dead_letters:
        parts.append(f"{row.dead_letters:,.0f} dead letters")
    if row.clock == "virtual":
        parts.append("no measurement" if row.sim_error is None else f"{row.sim_error:+.1%} against the measurement")
        if row.sim_interval_s is not None:
            parts.append(f"90% interval {format_seconds(row.sim_interval_s[0])} – {format_seconds(row.sim_interval_s[1])}")
    elif not row.verified:
        parts.append("not verified")
    return ", ".join(parts)


def noise(group: Group) -> str:
    """The noise floor in words."""
    if all(row.clock == "virtual" for row in group.rows):
        return "simulated runs: their interval comes from the seeds, there is no measuring noise"
    if group.noise is None:
        return "no A/A arm with enough runs: the noise floor is not known"
    return f"noise floor {percent(group.noise)}: so far apart may two equal arms (A/A) lie; no smaller difference is called one"


def resource(name: str) -> str:
    """The name of a resource for people: ``critical_path`` → critical path, ``workers:infer`` → workers of infer."""
    kind, _, operator = name.partition(":")
    return _RESOURCES.get(kind, kind.replace("_", " ")) + (f" of {operator}" if operator else "")


_RESOURCES = {"cpu": "CPU", "nic_down": "network in", "nic_up": "network out", "store": "store full", "memory": "memory full"}


def family(name: str) -> str:
    """The colour of a resource in drawings."""
    kind = name.partition(":")[0]
    return _FAMILIES.get(kind, kind if kind in ("cpu", "device", "driver", "workers", "barrier", "backpressure") else "waiting")


_FAMILIES = {
    "disk_read": "read", "disk_write": "write", "nic_down": "network", "nic_up": "network", "network_core": "network",
    "remote_store": "network", "store": "space", "memory": "space",
}  # fmt: skip

STRIP_LEGEND = (
    ("cpu", "CPU"), ("device", "device"), ("write", "disk write"), ("read", "disk read"), ("network", "network, remote store"),
    ("driver", "driver"), ("workers", "workers of an operator"), ("space", "store or memory full"), ("barrier", "barrier"),
    ("backpressure", "backpressure"), ("waiting", "waiting"),
)  # fmt: skip
BOTTLENECK_HEADS = ("engine", "makespan", "bound", "of optimum", "bound by", "cost", "spilled", "lost work", "bottlenecks")


def bottleneck_cells(strip: Strip) -> tuple[str, ...]:
    """A row of the table of bottlenecks, in the order of `BOTTLENECK_HEADS`."""
    lost = [f"{format_seconds(s)} of {kind}" for s, kind in ((strip.lost_device_s, "devices"), (strip.lost_cpu_s, "CPUs")) if s]
    return (
        strip.label,
        _plain(strip.status) if strip.makespan_s is None else format_seconds(strip.makespan_s),
        format_seconds(strip.bound_s),
        "–" if strip.of_optimum is None else f"{strip.of_optimum:.0%}",
        "–" if strip.bound_by is None else resource(strip.bound_by),
        f"${strip.cost_usd:.4g}" if strip.cost_usd else "–",
        "–" if strip.spilled_bytes is None else format_bytes(strip.spilled_bytes),
        ", ".join(lost) or "–",
        ", ".join(f"{resource(name)} {_share(share)}" for name, share in strip.busiest[:4]) or "–",
    )


PART_HEADS = ("slower", "than", "by", *(name for key, name in NAMES.items() if key != "idle"), "idle slots", "measured")
_BASIS = {"lower bound": "≥ ", "upper bound": "≤ ", "one side": "~ "}


def part_cells(found: Decomposition) -> tuple[str, ...]:
    """A row of the table of parts, in the order of `PART_HEADS`."""
    parts = {p.key: p for p in found.parts}
    keys = (*(key for key in NAMES if key != "idle"), "idle")
    seconds = (_part_seconds(parts.get(key)) for key in keys)
    return (found.slower, found.faster, signed(found.difference_s), *seconds, f"{found.share('measured'):.0%}")


def _part_seconds(part: Part | None) -> str:
    return "0" if part is None else _BASIS.get(part.basis, "") + signed(part.seconds)


def signed(seconds: float) -> str:
    """ "+1.2 s" """
    return f"{'−' if seconds < 0 else '+'}{format_seconds(abs(seconds))}"


def part_note(part: Part) -> str:
    """How a part is known."""
    known = {
        "measured": "measured", "lower bound": "at least: the near side of the bridge",
        "upper bound": "at most: operators, the far side of the bridge, scheduling",
        "one side": "told by one of the two only", "rest": "waits that nobody tells of",
    }[part.basis]  # fmt: skip
    return known + (", within the noise" if part.within_noise else "")


def decomposition_title(found: Decomposition) -> str:
    """What is taken apart, in a sentence."""
    if found.models is None:
        model = "the model's part is in the others: it shows only between engines that work as bulk or streaming do, with both beside them"
    elif found.models[0] == found.models[1]:
        model = f"both work as {found.models[0]} does: the model makes no difference"
    else:
        model = f"{found.slower} works as {found.models[0]} does, {found.faster} as {found.models[1]}"
    slots = "devices" if found.resource == "gpus" else "CPUs"
    return (
        f"{found.slower} takes {format_seconds(found.difference_s)} longer than {found.faster}, start-up included, by the time of the "
        f"{slots}; of the parts {found.share('measured'):.0%} are measured, "
        f"{found.share('lower bound', 'upper bound', 'one side'):.0%} bounded, {found.share('rest'):.0%} unexplained; {model}"
    )


PARTS_HINT = (
    "Seconds a slot, of the middle run of each; they add up to the difference. "
    "≥ lower bound, ≤ upper bound, ~ told by one side only."
)  # fmt: skip


def fact(name: str) -> str:
    """The name of a fact of the environment: "memory_bytes" → "memory"."""
    return name.removesuffix("_bytes").replace("_", " ").replace("cpu", "CPU")


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    return f"{text[:1].upper()}{text[1:]}."


def shares(worker_seconds: dict[str, float]) -> list[tuple[str, str]]:
    """Where the time went: (kind, seconds and share of the workers' time); waits of stages have no share in it."""
    total = sum(s for kind, s in worker_seconds.items() if kind not in STAGE_KINDS) or 1.0
    return [
        (kind, format_seconds(s) + (" of stages" if kind in STAGE_KINDS else f" ({_share(s / total)})"))
        for kind, s in worker_seconds.items()
    ]


def _share(fraction: float) -> str:
    return "<1%" if 0 < fraction < 0.005 else f"{fraction:.0%}"


def fidelity_sentence(found: Fidelity) -> str:
    """How far the simulation is off, in one sentence."""
    alone = f"{_many(len(found.unmeasured))} without a measurement" if found.unmeasured else ""
    if not found.points:
        return f"No simulated run has a measurement beside it{': ' + alone if alone else ''}."
    assert found.median_error is not None and found.worst_error is not None
    parts = [
        f"{_many(len(found.points))} with a measurement: median error {found.median_error:.1%}, worst {found.worst_error:.1%}"
    ]
    if found.orders:
        pairs = f"{found.orders} pair{'s' if found.orders > 1 else ''} of engines that differ for real"
        parts.append(f"of {pairs}, {found.orders_agree} come in the same order simulated")
    return "; ".join(parts + ([alone] if alone else [])) + "."


def _many(count: int) -> str:
    return f"{count} simulated configuration{'s' if count > 1 else ''}"
