"""``windtunnel load``: ask the services of a scenario for real in one of MLPerf's four ways, and say how they did."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from windtunnel.commands.common import check_engines, json_option, print_json, say

if TYPE_CHECKING:
    from windtunnel.scenario.reading import Scenario

WAYS = ("single-stream", "multi-stream", "server", "offline")
_MS = 1e3


@click.command()
@click.argument("scenario", type=click.Path(path_type=Path), required=False)
@click.option("--url", help="Ask a server that is there already: http://127.0.0.1:8000/path; no scenario is needed.")
@click.option("--method", default="POST", show_default=True, help="--url: the method of its requests.")
@click.option("--body", default="", help="--url: the body of a request; {n} in it is its number.")
@click.option("--header", "headers", multiple=True, help="--url: one more header field, 'Name: value'; may be given again.")
@click.option("--expect", type=int, default=200, show_default=True, help="--url: the status of a good answer.")
@click.option("--allow-remote", is_flag=True, help="--url: ask an address that is not this machine's own.")
@click.option("--as", "way", type=click.Choice(WAYS), default="server", show_default=True, help="How to ask.")
@click.option("-e", "--engine", "label", help="Name or label of one of the scenario's engines.  [default: the first]")
@click.option("--seconds", type=click.FloatRange(min=0.1), default=10.0, show_default=True, help="Length of each load.")
@click.option("--p99", help="Bound on the 99th percentile.  [default: that of the scenario's objective]")
@click.option("--rate", type=click.FloatRange(min=0.1), help="server: the rate to begin with.  [default: that of the arrivals]")
@json_option
def load(
    scenario: Path | None, way: str, label: str | None, seconds: float, p99: str | None, rate: float | None, as_json: bool,
    url: str | None, **asked: Any,
) -> int:  # fmt: skip
    """Ask the services of a SCENARIO for real, or any server (--url): one at a time, in groups, at the highest rate that meets a p99, or
    all at once.

    For a record and a report of any server, run a scenario with the engine `url`: windtunnel run S.toml.
    """
    from windtunnel.errors import InputError
    from windtunnel.scenario.reading import load_scenario

    if (scenario is None) == (url is None):
        raise InputError("name a SCENARIO, or a server with --url http://127.0.0.1:8000/path")
    read = load_scenario(scenario) if scenario is not None else _of_url(str(url), asked)
    found = _asked(read, way, label, seconds, _bound_s(read, way, p99), rate)
    if as_json:
        print_json({"schema": 1, "scenario": read.name, "way": way, **found})
    else:
        say(_sentence(found))
        for probe in found.get("probes", ()):
            click.echo(
                f"{probe['rate_per_s']:10.1f} /s  p99 {probe['p99_s'] * _MS:8.2f} ms  goodput {probe['goodput_per_s']:8.1f} /s  "
                f"{'meets' if probe['meets'] else 'fails'}"
            )
    return 0


def _of_url(url: str, asked: dict[str, Any]) -> Scenario:
    """The scenario of a server about which nothing is known but its address."""
    from windtunnel.errors import InputError
    from windtunnel.scenario.reading import from_document

    headers = dict(text.partition(": ")[::2] for text in asked["headers"])
    if not all(headers.values()):
        raise InputError(f"--header must be 'Name: value', not {next(t for t in asked['headers'] if ': ' not in t)!r}")
    options = {"url": url, "headers": headers, **{name: asked[name] for name in ("method", "body", "expect", "allow_remote")}}
    document = {
        "schema": 1, "name": url, "cluster": {"nodes": [{"name": "here", "cpus": 1, "memory": "1GiB"}]},
        "arrivals": {"kind": "poisson", "rate_per_s": 10, "duration": "10s"},
        "deployments": [{"name": "server", "cost": {}}], "engines": [{"name": "url", "options": options}],
    }  # fmt: skip
    return from_document(document, "--url")


def _bound_s(scenario: Scenario, way: str, asked: str | None) -> float | None:
    from windtunnel.errors import InputError
    from windtunnel.spec.units import parse_seconds

    if asked is not None:
        return parse_seconds(asked)
    bound = scenario.objective.p99_s if scenario.objective else None
    if way == "server" and bound is None:
        raise InputError("--as server needs a bound: --p99 50ms, or [objective] p99 in the scenario")
    return bound


def _asked(
    scenario: Scenario, way: str, label: str | None, seconds: float, bound_s: float | None, rate: float | None
) -> dict[str, Any]:
    import tempfile

    from windtunnel.engines.serving.load import Loop
    from windtunnel.errors import InputError, closest
    from windtunnel.registry import load_engine
    from windtunnel.spec.cluster import ClusterSpec

    serving = scenario.workload.serving
    if serving is None:
        raise InputError(f"scenario {scenario.name!r} has no [arrivals] and [[deployments]]: there is nobody to ask")
    names = {choice.label: choice for choice in scenario.engines}
    choice = names.get(label) if label else scenario.engines[0]
    if choice is None:
        raise InputError(f"the scenario has no engine {label!r}; its engines: {', '.join(names)}{closest(label or '', names)}")
    check_engines((choice,))
    session = load_engine(choice.name).open(ClusterSpec.here(), choice.options)
    if not hasattr(session, "ask"):
        raise InputError(f"engine {choice.name!r} is no server that could be asked")
    try:
        with tempfile.TemporaryDirectory() as folder:
            session.prepare(scenario.workload.bind(Path(folder)))
        session.ask(serving.arrivals, Loop(clients=4, duration_s=min(1.0, seconds)))  # warm-up
        found: dict[str, Any] = {"engine": choice.name, "label": choice.label, "seconds": seconds}
        return found | _measured(partial(session.ask, serving.arrivals), scenario, way, seconds, bound_s, rate, session.lag_s)
    finally:
        session.close()


def _measured(
    ask: Any, scenario: Scenario, way: str, seconds: float, bound_s: float | None, rate: float | None, lag_s: float
) -> dict[str, Any]:
    from windtunnel.engines.serving import modes

    if way != "server":
        found, latencies = _plain(ask, way, seconds)
        took_s = len(latencies) / found["answered_per_s"] if found.get("answered_per_s") else seconds
        good = {} if bound_s is None else {"bound_s": bound_s, "goodput_per_s": modes.goodput(latencies, bound_s, took_s)}
        return found | good
    assert bound_s is not None and scenario.serving is not None
    first = rate or scenario.serving.arrivals.rate_per_s or 10.0
    probes = modes.server(ask, partial(_meets, bound_s), bound_s, seconds, lag_s, scenario.seed, first)
    best = modes.highest(probes)
    return {"p99_bound_s": bound_s, "rate_per_s": best.rate_per_s if best else None, "probes": [asdict(p) for p in probes]}


def _plain(ask: Any, way: str, seconds: float) -> tuple[dict[str, Any], Any]:
    """Of the ways without a search: what judges them, and latencies (of groups, where groups are asked)."""
    from windtunnel.engines.serving import modes

    if way == "offline":
        rate, latencies = modes.offline(ask, seconds)
        return {"answered_per_s": rate}, latencies
    if way == "single-stream":
        latencies = modes.single_stream(ask, seconds)
        return _percentile(latencies, 0.90), latencies
    latencies = modes.multi_stream(ask, seconds)
    return {"group": modes.GROUP} | _percentile(latencies, 0.99), latencies


def _percentile(latencies: Any, level: float) -> dict[str, Any]:
    from windtunnel.errors import RunFailed
    from windtunnel.reports.confidence import quantile

    if not len(latencies):
        raise RunFailed("no request was answered well")
    found = quantile([latencies], level)
    return {"percentile": level * 100, "value_s": found.value, "low_s": found.low, "high_s": found.high, "count": len(latencies)}


def _meets(bound_s: float, latencies: Any) -> bool:
    """Whether the percentile meets the bound for sure: the upper end of its interval does."""
    from windtunnel.reports.confidence import quantile

    if not len(latencies):
        return False
    found = quantile([latencies], 0.99)
    return found.high is not None and found.high <= bound_s


def _sentence(found: dict[str, Any]) -> str:
    """What was found, in words."""
    who = f"{found['label']}, {found['seconds']:g} s"
    what = "groups" if "group" in found else "answers"
    good = f"; {found['goodput_per_s']:.1f} {what}/s within {found['bound_s'] * _MS:g} ms" if "bound_s" in found else ""
    if "answered_per_s" in found:
        return f"{who}: {found['answered_per_s']:.1f} answers/s when there is always more to do{good}"
    if "value_s" in found:
        what = f"groups of {found['group']}" if "group" in found else "one request at a time"
        ends = [f"{v * _MS:.2f}" if v is not None else "?" for v in (found["low_s"], found["high_s"])]
        return (
            f"{who}, {what}: {found['percentile']:g}th percentile {found['value_s'] * _MS:.2f} ms "
            f"(95 %: {ends[0]} to {ends[1]}) of {found['count']}{good}"
        )
    bound = f"a 99th percentile of {found['p99_bound_s'] * _MS:g} ms"
    if found["rate_per_s"] is None:
        return f"{who}: no rate met {bound}"
    return f"{who}: {found['rate_per_s']:.1f} requests/s is the highest rate found that meets {bound}"
