"""Tables of simulated runs on the terminal: one row a run, columns that fit what ran. Owns headings and how numbers look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from windtunnel.commands.common import results_console
from windtunnel.records.document import prediction, run_document
from windtunnel.records.serving import is_serving, last_replicas
from windtunnel.spec.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from windtunnel.records.record import RunRecord

_BATCH = ("makespan", "bound", "of optimum", "bound by", "bottleneck", "CPU", "GPU", "peak memory", "spilled", "cost")
_TOKENS = ("TTFT p99", "TPOT p99")  # more of them is in the report
_SERVING = ("offered /s", "answered /s", "p50", "p99", "replicas", "CPU", "GPU", "cost")


def print_runs(name: str, records: tuple[RunRecord, ...]) -> None:
    """The runs of one scenario, in the given order, and the reason of every run that failed."""
    from rich.table import Table
    from rich.text import Text

    serving = any(is_serving(r) for r in records)
    streams = any("ttft_mean_s" in r.counters for r in records)
    heads = (*_SERVING[:4], *_TOKENS, *_SERVING[4:]) if streams else _SERVING if serving else _BATCH
    swept = list(dict.fromkeys(key for r in records for key in r.sweep))
    table = Table(title=Text(name))
    for head in ("engine", *(k.rpartition(".")[2] for k in swept), "seed", *heads):
        table.add_column(Text(head))
    for record in records:
        cells = [record.label, *(str(record.sweep.get(k, "")) for k in swept), str(record.seed)]
        if record.status == "ok":
            run = run_document(record)
            cells += _serving_cells(record, run, streams) if serving else _batch_cells(record, run)
        else:
            cells.append(record.status)
        table.add_row(*(Text(c) for c in cells))
    console = results_console()
    console.print(table)
    for line in _sources(records):
        console.print(line, markup=False, highlight=False, style="dim")
    for reason in dict.fromkeys(f"{r.label}: {r.status}: {r.reason}" for r in records if r.status != "ok"):
        console.print(reason, markup=False, highlight=False)


def _batch_cells(record: RunRecord, run: dict[str, Any]) -> list[str]:
    optimum = "–" if run["of_optimum"] is None else f"{run['of_optimum']:.0%}"
    cells = [_with_interval(run, run["makespan_s"]), format_seconds(run["lower_bound_s"]), optimum, _resource(run["bound_by"])]
    cells += [_bottleneck(record), *_busy(run), format_bytes(run["peak_memory_bytes"]), format_bytes(run["spilled_bytes"])]
    return [*cells, f"${run['cost_usd']:.4g}" if run["cost_usd"] else "–"]


def _with_interval(run: dict[str, Any], seconds: float) -> str:
    """A simulated time with the interval in which the truth should lie."""
    sure = run["prediction"]
    if sure is None:
        return format_seconds(seconds)
    low, high = run.get("interval_s") or (seconds * sure["low"], seconds * sure["high"])
    return f"{format_seconds(seconds)} ({format_seconds(low)} – {format_seconds(high)})"


def _sources(records: tuple[RunRecord, ...]) -> list[str]:
    """Where the intervals come from, a sentence an engine."""
    found = {r.label: sure for r in records if (sure := prediction(r)) is not None}
    places = {"held_out": "cells held out on this host", "published": "published cells that nothing was fitted to"}
    lines: dict[str, list[str]] = {}
    for label, sure in found.items():
        text = f"{sure['cells']} {places[sure['of']]}, median error {sure['error']:.1%}{_own(sure)}"
        lines.setdefault(text, []).append(label)
    return [f"in brackets the 90 % interval; {', '.join(labels)}: from {text}" for text, labels in lines.items()]


def _own(sure: dict[str, Any]) -> str:
    """What share of the cells behind an interval is of the same engine, where it is not all."""
    own, cells = sure["own"], sure["cells"]
    if own is None or own == cells:
        return ""
    if not own:
        return "; none of them is of this engine, whose own error is not known: uncalibrated"
    return f"; {own} of them {'is' if own == 1 else 'are'} of this engine"


def _bottleneck(record: RunRecord) -> str:
    """The resource that binds for most of the run, and how much of the time."""
    from windtunnel.reports.bottleneck import bottlenecks, longest

    found = longest(bottlenecks(record))
    return f"{_resource(found[0][0])} {found[0][1]:.0%}" if found else "–"


def _resource(name: str | None) -> str:
    from windtunnel.reports.render.words import resource

    return "–" if name is None else resource(name)


def _serving_cells(record: RunRecord, run: dict[str, Any], streams: bool) -> list[str]:
    latency = run["latency_s"]
    lost = sum(count for name, count in run["requests"].items() if name not in ("sent", "ok"))
    answered = f"{run['throughput_per_s']:.4g}" + (f" ({lost} lost)" if lost else "")
    replicas = ", ".join(f"{name} {count}" for name, count in last_replicas(record).items())
    tokens = [format_seconds(run[kind]["p99"]) if kind in run else "–" for kind in ("ttft_s", "tpot_s")] if streams else []
    return [
        _offered(record, run), answered, format_seconds(latency["p50"]), _with_interval(run, latency["p99"]), *tokens, replicas,
        *_busy(run), f"${run['cost_usd']:.4f}",
    ]  # fmt: skip


def _offered(record: RunRecord, run: dict[str, Any]) -> str:
    """A rate, or the clients of a closed loop, which offer what they get."""
    arrivals = record.workload_spec["serving"]["arrivals"]
    if arrivals["kind"] != "closed":
        return f"{run['offered_per_s']:.4g}"
    return "1 client" if arrivals["concurrency"] == 1 else f"{arrivals['concurrency']} clients"


def _busy(run: dict[str, Any]) -> list[str]:
    busy = run["utilization"]
    return ["–" if busy.get(k) is None else f"{busy[k]:.0%}" for k in ("cpu", "gpu")]
