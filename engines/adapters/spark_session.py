"""A Spark session and its Java: where the JVM comes from, which settings it gets, which address the driver is called by.

The module owns the process: `end_jvm` ends it. It knows no operators.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windtunnel.errors import InputError, MissingEngine
from windtunnel.running.java import LEAST_VERSION, WAY_OUT, Java, find_java, java_version
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.strict import shorten
from windtunnel.spec.units import parse_bytes

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

LOOPBACK = "127.0.0.1"


def start_session(cluster: ClusterSpec, options: Mapping[str, Any], java: Path, scratch: Path) -> SparkSession:
    """A session whose driver is bound to loopback; with a master elsewhere, to the address from which this host reaches it."""
    here = driver_host(cluster.address)
    os.environ.update(
        JAVA_HOME=str(java), PYSPARK_PYTHON=sys.executable, PYSPARK_DRIVER_PYTHON=sys.executable, SPARK_LOCAL_IP=here
    )
    from pyspark.sql import SparkSession

    settings = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.host": here,
        "spark.driver.bindAddress": here,
        "spark.driver.memory": f"{_heap_bytes(cluster, options) // 2**20}m",
        "spark.local.dir": str(scratch),
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
        "spark.sql.shuffle.partitions": str(options["partitions"] or cluster.cpus),
        "spark.default.parallelism": str(options["partitions"] or cluster.cpus),
        "spark.sql.adaptive.enabled": str(bool(options["adaptive"])).lower(),
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.sql.session.timeZone": "UTC",
        "spark.python.worker.reuse": "true",
        "spark.log.level": "ERROR",
        "spark.driver.extraJavaOptions": f"-Dderby.system.home={scratch} {options['java_options']}".strip(),
        **settings_of(options["conf"]),
    }
    builder = SparkSession.builder.appName("windtunnel").master(cluster.address or f"local[{cluster.cpus}]")
    for key, value in settings.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()


def driver_host(address: str | None) -> str:
    """The address that executors call the driver by: that of the route to the first master that has one. Raises InputError."""
    if address is None or address.startswith("local"):
        return LOOPBACK
    masters = [m for m in address.removeprefix("spark://").split(",") if m]
    for master in masters if address.startswith("spark://") else ():
        host, _, port = master.rpartition(":")
        with contextlib.suppress(OSError, UnicodeError):
            if host and port.isdigit():
                return _route(host.strip("[]"), int(port))
    raise InputError(
        f"--address {shorten(address)}: there is no way from here to a master of that name; write spark://HOST:PORT of a standalone master"
    )


def _route(host: str, port: int) -> str:
    """This host's own address on the way to another one; nothing is sent. Raises OSError."""
    family, _, _, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(target)
        return str(probe.getsockname()[0])


def settings_of(table: object, before: str = "") -> dict[str, str]:
    """A table of Spark settings as text by dotted key; TOML reads ``spark.executor.memory`` as tables in tables. Raises InputError."""
    if not isinstance(table, Mapping):
        raise InputError(f'{shorten(table)} must be a table of Spark settings, such as {{"spark.executor.memory" = "2g"}}')
    found: dict[str, str] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            found |= settings_of(value, f"{before}{key}.")
        elif isinstance(value, bool):
            found[f"{before}{key}"] = str(value).lower()
        elif isinstance(value, (str, int, float)):
            found[f"{before}{key}"] = str(value)
        else:
            raise InputError(f"Spark setting {before}{key} = {shorten(value)} must be a text, a number, true or false")
    return found


def _heap_bytes(cluster: ClusterSpec, options: Mapping[str, Any]) -> int:
    asked = options["executor_memory"]
    return parse_bytes(asked) if asked is not None else max(2**30, cluster.memory_bytes * 6 // 10)


def java_home(scratch: Path) -> Path:
    """A Java home for Spark; around the wheel's image a shim that drops the flag of a module it lacks."""
    found = require_java()
    return _shim(found, scratch / "java") if found.wheel else found.home


def require_java() -> Java:
    """The Java that Spark gets. Raises MissingEngine."""
    found = find_java()
    if found is None:
        raise MissingEngine(f"spark needs Java {LEAST_VERSION} or later, and there is none; run: {WAY_OUT}")
    version = java_version(found.home / "bin" / "java")
    if version is None or version < LEAST_VERSION:
        raise MissingEngine(f"spark needs Java {LEAST_VERSION} or later, {found.home} is {version or 'unknown'}; run: {WAY_OUT}")
    return found


def _shim(java: Java, home: Path) -> Path:
    """Spark 4 always asks for jdk.incubator.vector, which a jlink image without it refuses; nothing here needs the module."""
    (home / "bin").mkdir(parents=True)
    for entry in java.home.iterdir():
        if entry.name != "bin":
            (home / entry.name).symlink_to(entry)
    launcher = home / "bin" / "java"
    launcher.write_text(
        "#!/bin/sh\nfor a do\n  shift\n"
        '  [ "$a" = --add-modules=jdk.incubator.vector ] || set -- "$@" "$a"\ndone\n'
        f'exec "{java.home}/bin/java" "$@"\n'
    )
    launcher.chmod(0o755)
    return home


def end_jvm() -> None:
    """End the gateway's JVM, which PySpark itself keeps until Python exits."""
    if "pyspark" not in sys.modules:
        return
    from pyspark import SparkContext

    gateway, SparkContext._gateway, SparkContext._jvm = SparkContext._gateway, None, None
    if gateway is None:
        return
    with contextlib.suppress(Exception):
        gateway.shutdown()
    process = getattr(gateway, "proc", None)
    if process is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
