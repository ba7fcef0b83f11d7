"""A server that windtunnel did not start: asked at its address with requests of the user's own making, judged by the status of its answers.

The engine ``url``: its session starts and ends nothing. Other addresses than this machine's own are asked only where ``allow_remote``
says so, since a load is no visit.
"""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from windtunnel.engines.api import Capabilities, Option, resolve_options
from windtunnel.engines.serving.servers import SERVERS
from windtunnel.engines.serving.session import ServingSession
from windtunnel.errors import InputError, RunFailed, Unsupported
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.serving import ArrivalSpec
from windtunnel.spec.units import parse_seconds
from windtunnel.spec.workload import BoundWorkload

if TYPE_CHECKING:
    from windtunnel.engines.serving.client import Sent
    from windtunnel.engines.serving.load import Loop

METHODS = ("POST", "GET", "PUT", "PATCH", "DELETE")


class ExternalEngine:
    """``url``."""

    name = "url"
    options = (
        Option(name="url", default="", doc="where the server is asked: http://127.0.0.1:8000/path"),
        Option(name="method", default="POST", doc="of the requests", choices=METHODS),
        Option(name="body", default="", doc="of the requests; {n} in it is a request's number. Empty: request_bytes of the arrivals"),
        Option(name="headers", default={}, doc="more header fields: { Authorization = \"...\" }"),
        Option(name="expect", default=200, doc="the status of a good answer; 503 and 429 count as refused, 408 and 504 as timed out"),
        Option(name="request_timeout", default="30s", doc="a request without a whole answer after it has timed out"),
        Option(name="allow_remote", default=False, doc="ask addresses that are not this machine's own"),
        Option(name="seed", default=0, doc="arrivals derive a stream of their own from it"),
        Option(name="steady", default=False, doc="a run whose latencies have not settled after half of its requests is invalid"),
        Option(name="send_lag", default="20ms", doc="a run whose 99th percentile of lateness in sending is above it is invalid"),
    )  # fmt: skip
    capabilities = Capabilities(
        features={
            "serving": "asks a server that is there already: open and closed loops, traces; what its deployments are it does not know",
            "verified": "no: an answer is good by its status, and its content is not looked at",
        }
    )

    def version(self) -> str:
        """Nobody knows whose it is."""
        return "-"

    def open(self, cluster: ClusterSpec, options: Mapping[str, Any]) -> ExternalSession:
        """Check the options. Raises InputError."""
        chosen = resolve_options(self.name, self.options, options)
        if not 100 <= chosen["expect"] <= 599:
            raise InputError(f"option expect = {chosen['expect']!r} of engine 'url' must be a status of HTTP, from 100 to 599")
        _headers(chosen["headers"])
        _address(chosen["url"], chosen["allow_remote"])
        return ExternalSession(chosen, cluster)


class ExternalSession(ServingSession):
    """Nothing is started or ended."""

    def __init__(self, options: Mapping[str, Any], cluster: ClusterSpec) -> None:
        super().__init__(SERVERS["url"], {**options, "work": "sleep", "host": ""}, cluster)

    @property
    def url(self) -> str:
        """Where requests go."""
        return str(self._options["url"])

    def prepare(self, workload: BoundWorkload) -> None:
        """Look whether somebody listens. Raises Unsupported, RunFailed."""
        from windtunnel.engines.serving.load import ceiling

        if workload.workload.serving is None:
            raise Unsupported("url asks a server ([arrivals] with [[deployments]]) and runs no operators")
        self._refuse_faults()
        parts = urlsplit(self.url)
        try:
            socket.create_connection((parts.hostname or "", parts.port or 80), timeout=5.0).close()
        except OSError as error:
            raise RunFailed(f"nobody answers at {parts.hostname}:{parts.port or 80}: {error}") from error
        self._generator_per_s = ceiling()

    def ask(self, spec: ArrivalSpec, loop: Loop) -> list[Sent]:
        """Carry out a load."""
        from windtunnel.engines.serving.client import Target
        from windtunnel.engines.serving.load import generate

        options = self._options
        timeout_s = parse_seconds(options["request_timeout"])
        target = Target(
            url=self.url, body_bytes=spec.request_bytes, method=options["method"], template=str(options["body"]),
            headers=_headers(options["headers"]), expect=options["expect"], timeout_s=timeout_s, trace=False,
        )  # fmt: skip
        return generate(target, loop, self._generators(loop))


def _headers(value: Any) -> tuple[tuple[str, str], ...]:
    """Checked: no field may end the head, or say what the generator says itself."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = None
    if not isinstance(value, Mapping):
        raise InputError("option headers of engine 'url' must be a table of header fields: { Authorization = \"...\" }")
    for name, text in value.items():
        good = (
            isinstance(text, str) and name.isascii() and text.isprintable() and name.replace("-", "").replace("_", "").isalnum()
        )
        if not good or name.lower() in ("host", "content-length", "transfer-encoding", "connection"):
            raise InputError(
                f"header field {name!r} of option headers must be a name and one line of text, and none that the client sets"
            )
    return tuple(value.items())


def _address(url: str, remote: bool) -> None:
    """Refuse what is no address, and those of others that nobody allowed."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InputError(f"option url = {url!r} of engine 'url' is no address: {error}") from error
    if parts.scheme != "http" or not parts.hostname or port == 0:
        raise InputError(f"option url = {url!r} of engine 'url' must be like http://127.0.0.1:8000/path; https is not spoken")
    if not remote and not _is_here(parts.hostname):
        raise InputError(
            f"{parts.hostname!r} is not this machine; a load on others is sent only with --allow-remote (option allow_remote)"
        )


def _is_here(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
