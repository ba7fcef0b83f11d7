"""Spark's settings and the driver's address; no Java is started."""

from __future__ import annotations

import socket

import pytest

from windtunnel.commands.common import engine_options
from windtunnel.engines.adapters import spark_session
from windtunnel.engines.adapters.spark import SparkEngine
from windtunnel.engines.adapters.spark_session import driver_host, settings_of
from windtunnel.engines.api import resolve_options
from windtunnel.errors import InputError


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{spark.executor.memory = "1g", spark.task.cpus = 2}', {"spark.executor.memory": "1g", "spark.task.cpus": "2"}),
        ('{"spark.executor.memory" = "1g"}', {"spark.executor.memory": "1g"}),
        (
            '{"spark.executor.memory": "1g", "spark.speculation": true}',
            {"spark.executor.memory": "1g", "spark.speculation": "true"},
        ),
        ("{}", {}),
    ],
)
def test_a_table_of_settings_on_the_command_line(text: str, found: dict[str, str]) -> None:
    """TOML and JSON; TOML's dotted keys are tables in tables."""
    (given,) = (engine_options([f"spark.conf={text}"], ["spark"])["spark"],)
    assert settings_of(resolve_options("spark", SparkEngine.options, given)["conf"]) == found


@pytest.mark.parametrize("text", ["hello", "3", "[1, 2]", "{a = [1]}", "{a = 1979-05-27}"])
def test_what_is_no_table_of_settings_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="Spark setting"):
        resolve_options("spark", SparkEngine.options, engine_options([f"spark.conf={text}"], ["spark"])["spark"])


def test_a_broken_table_is_no_text() -> None:
    with pytest.raises(InputError, match="neither a table or list of TOML nor of JSON"):
        engine_options(["spark.conf={a = "], ["spark"])
    assert engine_options(["spark.bridge=rows", "spark.partitions=4"], ["spark"])["spark"] == {"bridge": "rows", "partitions": 4}
    assert engine_options(["spark.bridge=1\nx=2"], ["spark"])["spark"] == {"bridge": "1\nx=2"}, "one value, not two keys"


@pytest.mark.parametrize(
    "address", [None, "local[2]", "local-cluster[2,1,1024]", "spark://127.0.0.1:7077", "spark://localhost:7077"]
)
def test_a_driver_beside_its_master_stays_on_loopback(address: str | None) -> None:
    assert driver_host(address) == "127.0.0.1"


def test_a_driver_is_called_by_the_address_of_the_route_to_its_master(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several masters by that to the first which this host knows a way to."""

    class Probe(socket.socket):
        """A socket on a host with one way out."""

        def connect(self, target: object) -> None:
            self.target = target

        def getsockname(self) -> tuple[str, int]:
            assert self.target == ("10.77.0.1", 7077), "the master's own address"
            return "10.77.0.254", 40000

    monkeypatch.setattr(spark_session.socket, "socket", Probe)
    assert driver_host("spark://10.77.0.1:7077") == "10.77.0.254"
    assert driver_host("spark://no-such-host.invalid:1,10.77.0.1:7077") == "10.77.0.254"


@pytest.mark.parametrize(
    "address", ["yarn", "spark://", "spark://:7077", "spark://host", "spark://no-such-host.invalid:7077", "tcp://127.0.0.1:8786"]
)
def test_an_address_without_a_way_is_a_sentence(address: str) -> None:
    with pytest.raises(InputError, match="spark://HOST:PORT"):
        driver_host(address)
