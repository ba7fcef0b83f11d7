"""Rows over the bridge to the JVM: from a host's micro-measurements to a simulated engine's cost."""

from __future__ import annotations

import pytest

from windtunnel.engines.models.catalogue import ENTRIES
from windtunnel.sim.calibration.bridge import BRIDGE, measured_bridge
from windtunnel.sim.costs.measured import Calibration, EngineCost, HostCost
from windtunnel.sim.engine import _engine_cost


def told(at: str, value: float) -> HostCost:
    """One micro-measurement."""
    return HostCost(name=BRIDGE, at=at, unit="s/row", value=value, low=value, high=value, samples=3)


#: 40 ns a row and 5 ns a byte of one crossing, there and back
HOST = (
    told("arrow, int64", 160e-9),
    told("arrow, double", 160e-9),
    told("arrow, text of 12 bytes", 240e-9),
    told("rows, int64", 9e-6),
)


def test_a_row_and_a_byte_are_told_apart() -> None:
    sourced = EngineCost(engine="spark", bridge_row_s=1e-6)
    found = measured_bridge(sourced, HOST)
    assert found.bridge_row_s == pytest.approx(40e-9) and found.bridge_bytes_per_s == pytest.approx(200e6)
    assert measured_bridge(sourced, HOST[:2]) == sourced == measured_bridge(sourced, ())


def test_spark_takes_this_hosts_bridge_unless_it_was_measured_itself() -> None:
    spark, none = ENTRIES["spark"], {"overheads": None}
    chosen = {o.name: o.default for o in (*spark.options, *spark.plan_options)}
    assert _engine_cost(spark, Calibration(host=HOST), chosen, none).bridge_row_s == pytest.approx(40e-9)
    assert _engine_cost(spark, Calibration(), chosen, none).bridge_row_s == 1.5e-6  # the sourced one
    own = Calibration(host=HOST, engines=(EngineCost(engine="spark", bridge_row_s=7e-6),))
    assert _engine_cost(spark, own, chosen, none).bridge_row_s == 7e-6
    dask = ENTRIES["dask"]
    assert _engine_cost(dask, Calibration(host=HOST), {"queuing": True}, none).bridge_row_s == 0.0  # it has no bridge
