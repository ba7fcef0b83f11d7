"""What the host says of itself: Prometheus metrics and an OpenAPI document. Pure functions of counts.

The module owns the texts. It knows no connection.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from typing import Any

import windtunnel
from windtunnel.engines.models.deployment import Deployment

BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Histogram:
    """Durations in fixed buckets."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)
        self.sum_s = 0.0

    def add(self, seconds: float) -> None:
        """One more."""
        self.counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.sum_s += seconds

    def lines(self, name: str) -> list[str]:
        """In the text format: buckets count all that is at most their bound."""
        total, found = 0, [f"# TYPE {name} histogram"]
        for bound, count in zip((*BOUNDS_S, "+Inf"), self.counts, strict=True):
            total += count
            found.append(f'{name}_bucket{{le="{bound}"}} {total}')
        return [*found, f"{name}_sum {self.sum_s:.6f}", f"{name}_count {total}"]


def metrics(counts: Counter[str], histogram: Histogram, deployments: Iterable[Deployment]) -> str:
    """The page of metrics, in Prometheus' text format 0.0.4."""
    deployments = list(deployments)
    lines = ["# TYPE windtunnel_requests_total counter"]
    lines += [f'windtunnel_requests_total{{status="{s}"}} {n}' for s, n in sorted(counts.items())]
    lines += histogram.lines("windtunnel_request_seconds")
    for what in ("calls", "rejected", "retries", "replicas_lost", "replicas_hung"):
        lines += _family(f"windtunnel_{what}_total", "counter", {d.spec.name: d.counts[what] for d in deployments})
    lines += _family("windtunnel_queue", "gauge", {d.spec.name: d.waiting for d in deployments})
    lines += _family("windtunnel_ongoing", "gauge", {d.spec.name: d.ongoing for d in deployments})
    lines += _family("windtunnel_replicas", "gauge", {d.spec.name: len(d.ready) for d in deployments})
    return "\n".join(lines) + "\n"


def _family(name: str, kind: str, values: dict[str, int]) -> list[str]:
    return [f"# TYPE {name} {kind}", *(f"{name}{{deployment={json.dumps(d)}}} {n}" for d, n in values.items())]


def openapi(most_bytes: int, timeout_s: float) -> dict[str, Any]:
    """The OpenAPI 3.1 document of the host's own paths."""
    said = {
        "200": "the answer, in pieces where the handler gives pieces", "400": "the request is not well-formed",
        "408": f"it took longer than its deadline of {timeout_s:g} s, or did not arrive in time",
        "413": f"the body is longer than {most_bytes} bytes", "500": "the handler failed, or its replica died and no retry was left",
        "503": "too many requests wait; Retry-After says when to come back",
    }  # fmt: skip
    text = {"text/plain": {"schema": {"type": "string"}}}
    octets: dict[str, Any] = {"application/octet-stream": {}}
    answers = {s: {"description": d, "content": octets if s == "200" else text} for s, d in said.items()}
    get = {
        "200": {"description": "it is so", "content": text},
        "503": {"description": "it is not (yet, or any more)", "content": text},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "windtunnel serving host", "version": windtunnel.__version__},
        "paths": {
            "/": {"post": {
                "operationId": "ask", "summary": "Ask the first deployment",
                "requestBody": {"content": {**octets, "application/json": {"schema": {}}}}, "responses": answers,
            }},
            "/-/healthz": {"get": {"operationId": "health", "summary": "Whether every deployment can answer", "responses": get}},
            "/-/metrics": {"get": {"operationId": "metrics", "summary": "Prometheus metrics", "responses": {"200": get["200"]}}},
            "/-/openapi.json": {"get": {
                "operationId": "openapi", "summary": "This document",
                "responses": {"200": {"description": "it", "content": {"application/json": {"schema": {"type": "object"}}}}},
            }},
        },
    }  # fmt: skip
