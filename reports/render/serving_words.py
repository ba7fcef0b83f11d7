"""The tables of services, the same in the terminal, in Markdown and in HTML: what they hold and how numbers look."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from windtunnel.reports.breakdown import PARTS
from windtunnel.reports.confidence import Quantile
from windtunnel.reports.services import Match, Point, Service
from windtunnel.spec.units import format_seconds

Line = tuple[tuple[str, ...], str]  # cells; the run's clock, or "bad"


@dataclass(frozen=True, slots=True)
class Words:
    """A table. The first ``names`` columns are names."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[Line, ...]
    names: int


def tables(service: Service) -> tuple[Words, ...]:
    """Latencies first; where time went, and simulated against real, if there is something to say."""
    heads = ["engine", "load", "answered /s", "mean", "p50", "p90", "p99 (95 %)", "p99.9"]
    goodput = service.objective_s is not None
    if goodput:
        assert service.objective_s is not None
        heads.insert(3, f"within {format_seconds(service.objective_s)} /s")
    found = [Words(service.title, (*heads, "note"), tuple(_point(p, goodput) for p in service.points), 2)]
    streamed = tuple(_tokens(p) for p in service.points if p.tokens)
    if streamed:
        title = "Tokens of an emulated language model: time to the first (TTFT), time of each after it (TPOT)"
        found.append(Words(title, _TOKEN_HEADS, streamed, 2))
    parts = tuple(_times(service.points))
    if parts:
        found.append(Words("Where a request's time went (mean; slowest 1 %)", ("engine", "load", *PARTS, "requests"), parts, 2))
    if service.matches:
        heads = ["engine", "load", "quantity", "real", "simulated", "error"]
        found.append(Words("Simulated against real", tuple(heads), tuple(_match(m) for m in service.matches), 3))
    return tuple(found)


_TOKEN_HEADS = ("engine", "load", "TTFT p50", "TTFT p99", "TPOT p50", "TPOT p99", "tokens /s")


def _tokens(point: Point) -> Line:
    told = (point.tokens.get(f"{kind}_{level}_s") for kind in ("ttft", "tpot") for level in ("p50", "p99"))
    return (name(point), point.load, *(format_seconds(v) for v in told), rate(point.tokens.get("tokens_per_s"))), point.clock


def name(point: Point) -> str:
    """Label and world."""
    return f"{point.label} (simulated)" if point.clock == "virtual" else point.label


def _point(point: Point, goodput: bool) -> Line:
    if point.mean_s is None:
        blank = [""] * (7 if goodput else 6)
        return (name(point), point.load, *blank, f"{point.status.replace('_', ' ')}: {point.reason or 'no reason given'}"), "bad"
    cells = [name(point), point.load, rate(point.answered_per_s)]
    if goodput:
        cells.append(rate(point.goodput_per_s))
    p = point.percentiles
    cells += [format_seconds(point.mean_s), *(format_seconds(p[k].value) for k in ("p50", "p90")), _interval(p["p99"])]
    cells += [format_seconds(p["p999"].value) if p["p999"].low is not None else "–", _note(point)]
    return tuple(cells), point.clock


def rate(value: float | None) -> str:
    """Four digits at most."""
    return "–" if value is None else f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _interval(found: Quantile) -> str:
    if found.low is None:
        return f"{format_seconds(found.value)} (too few)"
    high = "?" if found.high is None else format_seconds(found.high)
    return f"{format_seconds(found.value)} ({format_seconds(found.low)} – {high})"


def _note(point: Point) -> str:
    lost = [f"{n:,} {k.replace('_', ' ')}" for k, n in point.requests.items() if k not in ("sent", "ok") and n]
    parts = [f"{point.runs} runs"] if point.runs > 1 else []
    return ", ".join([*parts, *lost, *([f"{point.status}: {point.reason}"] if point.reason else [])])


def _times(points: tuple[Point, ...]) -> Iterator[Line]:
    for point in points:
        found = point.breakdown
        if found is None:
            continue
        cells = [
            f"{format_seconds(found.mean[p])}; {format_seconds(found.tail[p])}" if found.mean[p] or found.tail[p] else "–"
            for p in PARTS
        ]
        yield (name(point), point.load, *cells, f"{found.requests:,}"), point.clock


def _match(match: Match) -> Line:
    told = (rate(v) + "/s" if match.quantity == "throughput" else format_seconds(v) for v in (match.real, match.simulated))
    return (match.label, match.title, match.quantity, *told, f"{match.error:+.1%}"), "wall"
