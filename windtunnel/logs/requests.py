"""Records of requests to a token service (vLLM's benchmark records, guidellm reports) → arrivals and a deployment of a scenario.

When each request came and how many tokens it had are kept as a trace; what a step of the service costs is fitted to when its tokens
left: iteration, decode a sequence, prefill a token. Texts of prompts and answers are never read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct, field

from windtunnel.errors import InputError
from windtunnel.logs.opening import Ending, document, lines
from windtunnel.spec.strict import one_line


class VllmRequest(Struct):
    """A request: seconds; arrivals are told by another clock than the rest."""

    prompt: float = field(name="input_toks")
    output: float = field(name="output_toks")
    arrival: float = field(name="arrival_time")
    queued: float | None = field(name="queued_ts", default=None)
    scheduled: float | None = field(name="scheduled_ts", default=None)
    first: float | None = field(name="first_token_ts", default=None)
    last: float | None = field(name="last_token_ts", default=None)


class GuideRequest(Struct):
    """A request of a guidellm report (0.2 to 0.4)."""

    prompt: float | None = field(name="prompt_tokens", default=None)
    output: float | None = field(name="output_tokens", default=None)
    start: float | None = field(name="start_time", default=None)
    end: float | None = field(name="end_time", default=None)
    request_start: float | None = field(name="request_start_time", default=None)
    request_end: float | None = field(name="request_end_time", default=None)
    first: float | None = field(name="first_token_time", default=None)
    last: float | None = field(name="last_token_time", default=None)


class GuideRequests(Struct):
    """Requests by how they ended."""

    successful: list[GuideRequest] = field(default_factory=list)
    completed: list[GuideRequest] = field(default_factory=list)


class GuideBenchmark(Struct):
    """A run at one rate."""

    requests: GuideRequests = field(default_factory=GuideRequests)


class GuideReport(Struct):
    """A report of guidellm."""

    benchmarks: list[GuideBenchmark]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceLog:
    """What was asked of a service: seconds from the first arrival, tokens, and when first and last tokens left (NaN: not told).

    ``step``: seconds of a step, of it for each sequence that decodes, and for each token of a prompt; None where they cannot be told.
    """

    name: str
    system: str
    arrival_s: np.ndarray[Any, np.dtype[np.float64]]
    prompt: np.ndarray[Any, np.dtype[np.float64]]
    output: np.ndarray[Any, np.dtype[np.float64]]
    first_s: np.ndarray[Any, np.dtype[np.float64]]
    last_s: np.ndarray[Any, np.dtype[np.float64]]
    step: tuple[float, float, float] | None
    notes: tuple[str, ...] = ()


_VLLM: Any = msgspec.json.Decoder(VllmRequest)
_GUIDE: Any = msgspec.json.Decoder(GuideReport)


def is_vllm(head: bytes) -> bool:
    """Whether a file that begins so holds records of vLLM's benchmark."""
    return b'"input_toks"' in head and b'"arrival_time"' in head


def is_guidellm(head: bytes) -> bool:
    """Whether a document that begins so is a report of guidellm."""
    return b'"benchmarks"' in head and b"guidellm" in head.lower()


def read_vllm(path: Path) -> ServiceLog:
    """Records as JSON lines. A line that cannot be read is left aside and counted."""
    ending, rows, notes = Ending(), [], []
    for number, line in lines(path, ending):
        if not line.strip():
            continue
        try:
            r: VllmRequest = _VLLM.decode(line)
        except (msgspec.DecodeError, RecursionError) as error:
            notes.append(f"{path.name}, line {number}: it cannot be read: {one_line(str(error))[:160]}; it is left aside")
            continue
        shift = r.arrival - r.queued if r.queued is not None else float("nan")  # both are told at the door of the engine
        rows.append((r.arrival, r.prompt, r.output, *(t + shift if t is not None else float("nan") for t in (r.first, r.last))))
    if ending.cut:
        notes.append(f"{path.name}: {ending.cut}; what came before is read")
    return _service(path, "vllm", rows, notes)


def read_guidellm(path: Path) -> ServiceLog:
    """The successful requests of a report, of all its rates one after the other."""
    try:
        report: GuideReport = _GUIDE.decode(document(path))
    except (msgspec.DecodeError, RecursionError) as error:
        raise InputError(f"{path} is no report of guidellm: {one_line(str(error))}") from error
    rows = []
    for benchmark in report.benchmarks:
        for r in benchmark.requests.successful or benchmark.requests.completed:
            start = r.request_start if r.request_start is not None else r.start
            if start is not None and r.prompt and r.output:
                first, last = (t if t is not None else float("nan") for t in (r.first, r.last or r.request_end or r.end))
                rows.append((start, r.prompt, r.output, first, last))
    return _service(path, "guidellm", rows, [])


def _service(path: Path, system: str, rows: Sequence[tuple[float, ...]], notes: list[str]) -> ServiceLog:
    sane = [r for r in rows if abs(r[0]) < 1e12 and 1 <= r[1] < 1e9 and 1 <= r[2] < 1e9]
    if odd := len(rows) - len(sane):
        notes.append(f"{odd} request(s) have no token or no possible time; they are left aside")
    if not sane:
        raise InputError(f"{path} holds no request with its arrival and its tokens, so that there is nothing to replay")
    table = np.array(sorted(sane))
    origin = table[0, 0]
    arrival, first, last = table[:, 0] - origin, table[:, 3] - origin, table[:, 4] - origin
    step = fit_steps(arrival, table[:, 1], table[:, 2], first, last)
    if step is None:
        notes.append("what a step costs cannot be told from when tokens left; declare it in the scenario")
    return ServiceLog(
        name=path.name, system=system, arrival_s=arrival, prompt=table[:, 1], output=table[:, 2], first_s=first, last_s=last,
        step=step, notes=tuple(notes),
    )  # fmt: skip


def fit_steps(arrival: Any, prompt: Any, output: Any, first: Any, last: Any) -> tuple[float, float, float] | None:
    """Seconds of a step, a decoding sequence and a prompt's token, by least squares over the requests, none of them negative.

    Between its first and last token a request sees ``output - 1`` steps; the sum of those is a step each, its share of others that
    decoded meanwhile, and the prompts that were taken in meanwhile.
    """
    from scipy.optimize import nnls

    good = np.isfinite(first) & np.isfinite(last) & (output > 1) & (last > first)
    if np.count_nonzero(good) < 8:
        return None
    begin, end, steps = first[good], last[good], output[good] - 1
    rates = steps / (end - begin)
    decoded = np.array(
        [np.sum(np.clip(np.minimum(end, e) - np.maximum(begin, b), 0, None) * rates) for b, e in zip(begin, end, strict=True)]
    )
    order = np.argsort(first[np.isfinite(first)])
    at = first[np.isfinite(first)][order]
    taken = np.concatenate([[0.0], np.cumsum(prompt[np.isfinite(first)][order])])
    prefilled = taken[np.searchsorted(at, end)] - taken[np.searchsorted(at, begin, "right")]
    design = np.stack([steps, decoded, prefilled], axis=1)
    scale = 1.0 / (end - begin)
    values, _ = nnls(design * scale[:, None], np.ones(len(begin)))
    return tuple(float(v) for v in values) if values.any() else None  # type: ignore[return-value]


def scenario_text(log: ServiceLog, trace: str, nodes: str) -> str:
    """A scenario of the service: its arrivals as the trace file ``trace``, one deployment, on the node groups ``nodes`` (TOML)."""
    step, decode, prefill = log.step or (0.02, 0.0002, 0.00005)
    guessed = "" if log.step else "# what a step costs could not be told from the log: these are placeholders, declare your own\n"
    return (
        f"schema = 1\nname = {json.dumps(log.name)}\n\n[cluster]\n{nodes}\n"
        f'[arrivals]\nkind = "trace"\nfile = {json.dumps(trace)}\ncolumn = "arrival_s"\n'
        'tokens = { prompt_column = "prompt_tokens", output_column = "output_tokens" }\n\n'
        f'[[deployments]]\nname = "model"\nmax_ongoing = 100000\nresources = {{ cpus = 0, gpus = 1 }}\n{guessed}'
        f'tokens = {{ iteration = "{step * 1e3:.6g}ms", prefill = "{prefill * 1e3:.6g}ms", decode = "{decode * 1e3:.6g}ms" }}\n\n'
        '[[engines]]\nname = "serving"\n'
    )


def write_trace(log: ServiceLog, path: Path) -> None:
    """The arrivals as a CSV file with the columns that the scenario names."""
    rows = zip(log.arrival_s.tolist(), log.prompt.tolist(), log.output.tolist(), strict=True)
    text = "arrival_s,prompt_tokens,output_tokens\n" + "".join(f"{a:.6f},{p:.0f},{o:.0f}\n" for a, p, o in rows)
    path.write_text(text, encoding="utf-8")
