"""Our own gate: what the simulated engines make of three jobs. A change of a number is a decision, reviewed with its baseline.

``pytest tests/gates --windtunnel-update`` writes the baselines anew.
"""

from __future__ import annotations

from typing import Any


def test_etl(windtunnel_gate: Any) -> None:
    windtunnel_gate("etl.toml")


def test_inference_with_a_lost_node(windtunnel_gate: Any) -> None:
    windtunnel_gate("inference.toml")


def test_serving_with_autoscaling(windtunnel_gate: Any) -> None:
    windtunnel_gate("serving.toml")
