"""Digests of what many simulations leave, to prove that a change of the simulator changes no result.

``python -m tests.sim.corpus save FILE`` before a change, ``… compare FILE`` after it: cases whose status, counters, spans or samples
differ are named, with the counters that moved. Nothing is stored in the repository, since the last digits of numpy's functions
depend on the processor. ``--only TEXT`` takes the cases whose name contains it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.sim import mechanisms
from windtunnel.errors import InputError, OutOfMemory, RunFailed
from windtunnel.records.record import Recorder
from windtunnel.registry import load_engine, option_names
from windtunnel.scenario.reading import from_document, read_document

ENGINES = ("bulk", "streaming", "ray", "spark", "dask", "flink", "mapreduce")
ROOT = Path(__file__).resolve().parents[2]
FILES = [ROOT / "tests" / "gates" / f"{name}.toml" for name in ("etl", "inference", "serving")]
FILES += [ROOT / "examples" / f"{name}.toml" for name in ("memory_pipelining", "chat")]
Case = tuple[str, dict[str, Any], str, dict[str, Any]]  # name, scenario, engine, options

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "bulk": [{}, {}, {"prefetch": False}, {"store_bytes": "3MB"}, {"block_bytes": "300KB"}, {"spans": False}],
    "streaming": [
        {},
        {},
        {"ahead": False},
        {"store_bytes": "3MB"},
        {"queued_blocks": 3},
        {"block_bytes": "300KB"},
        {"yielding": False},
    ],
    "ray": [{}, {}, {"object_store": "6MB", "block": "500KB"}, {"op_reservation": 0.0}, {"prefetch": False}],
    "spark": [{}, {}, {"adaptive": False}, {"shuffle_partitions": 7}, {"speculation": True}, {"bypass_merge_threshold": 0}],
    "dask": [{}, {}, {"memory_target": "3MB"}, {"stealing": False}, {"queuing": False}],
    "flink": [{}, {}, {"checkpoint_s": 2.0}, {"chaining": False}, {"backpressure": False}],
    "mapreduce": [{}, {}, {"slowstart": 1.0}, {"shuffle_partitions": 5}, {"overheads": {"merge_bytes": 5e5}}],
}


def drawn(number: int) -> dict[str, Any]:
    """An odd scenario: unlike nodes, exchanges, actors, devices, remote data, faults. The same for the same number."""
    dice = random.Random(f"corpus {number}")
    nodes: list[dict[str, Any]] = [
        {"name": "large", "count": dice.randint(1, 3), "cpus": 4, "memory": "32GiB", "nic": "1Gbit/s",
         "gpus": {"kind": "slow", "count": 1, "memory": "4GiB", "speed": 0.5}},
        {"name": "small", "count": dice.randint(1, 4), "cpus": dice.choice((1, 2)), "memory": "16GiB",
         "nic": dice.choice(("100Mbit/s", "10Gbit/s")), "gpus": {"kind": "fast", "count": dice.randint(0, 2), "speed": 4.0}},
    ]  # fmt: skip
    if dice.random() < 0.3:
        nodes[1]["disk"] = {"kind": "hdd", "drives": dice.randint(1, 4), "read": "100MB/s", "write": "100MB/s"}
    if dice.random() < 0.3:
        nodes[0]["startup"] = "700ms"
    partitions = dice.choice((1, 5, 12, 40, 90))
    data: dict[str, Any] = {
        "rows": dice.choice((40, 300, 2000)), "row_bytes": dice.choice(("1KB", "100KB", "1MB")), "skew": dice.choice((0.0, 0.0, 1.0)),
        "location": dice.choice(("generated", "generated", "local", "remote")),
    }  # fmt: skip
    data["partitions"] = min(partitions, data["rows"])
    if data["location"] == "remote":
        data["remote"] = {"bandwidth_per_node": dice.choice(("10MB/s", "1GB/s")), "latency": "20ms"}
    faults = []
    if dice.random() < 0.4:
        for kind in dice.sample(("straggler", "worker_killed", "network_slow", "node_lost", "gpu_lost", "node_joins"), 2):
            target = {"gpu_lost": "large[0]", "node_joins": f"small[{nodes[1]['count']}]"}.get(kind, "small[0]")
            fault = {"at": dice.randint(1, 60) / 10, "kind": kind, "target": target, "factor": 3.0}
            if kind in ("straggler", "node_lost", "network_slow") and dice.random() < 0.5:
                fault["until"] = fault["at"] + 3
            faults.append(fault)
    return {
        "schema": 1, "name": f"odd {number}", "seed": number,
        "cluster": {"nodes": nodes, "network": {"oversubscription": dice.choice((1.0, 1.0, 3.0))}},
        "dataset": data, "operators": list(_operators(dice)), "engines": [{"name": "bulk"}], "faults": faults,
    }  # fmt: skip


def _operators(dice: random.Random) -> Iterator[dict[str, Any]]:
    costs = {"per_batch": 0.02, "per_row": 0.004, "per_byte": 1e-8}
    for i in range(dice.randint(1, 4)):
        kind = dice.choice(("map", "flat_map", "filter", "aggregate", "sort", "device", "model")) if i else "map"
        op: dict[str, Any] = {
            "name": f"op{i}", "kind": "map" if kind in ("device", "model") else kind, "batch_rows": dice.choice((0, 1, 7)),
            "cost": {**{k: dice.choice((0.0, v)) for k, v in costs.items()}, "cv": dice.choice((0.0, 0.3))},
            "row_bytes_out": dice.choice(("0B", "1KB", "100KB", "1MB")), "language": dice.choice(("python", "native")),
            "resources": {"cpus": dice.choice((0.25, 0.5, 1, 1, 1, 1.5, 2))}, "memory": dice.choice(("0B", "0B", "100MB")),
        }  # fmt: skip
        if kind in ("flat_map", "filter"):
            op["rows_out"] = 3.0 if kind == "flat_map" else 0.37
        if kind in ("device", "model"):
            op["resources"] = {"cpus": dice.choice((0, 0.5)), "gpus": dice.choice((0.5, 1))}
        if kind == "model":
            op |= {"state": {"kind": "actor", "load": dice.choice(("0s", "700ms"))}, "concurrency": [1, 3]}
            if dice.random() < 0.5:
                op["resources"] = {"cpus": 1}
        if dice.random() < 0.2:
            op["fixed_work"] = "sleep"
        yield op


def large(engine: str, followers: int, cv: float, skew: float, nodes: int, tasks: int, shuffle: bool = False) -> dict[str, Any]:
    """Many tasks on many nodes, with stages behind them."""

    def op(i: int) -> dict[str, Any]:
        kind = "sort" if shuffle and i == 1 else "map"
        return {"name": f"op{i}", "kind": kind, "batch_rows": 1, "cost": {"per_batch": 10.0 if i != 1 else 20.0, "cv": cv},
                "row_bytes_out": "1MiB" if i == 1 else "1KiB", "memory": f"{i}MiB"}  # fmt: skip

    return {
        "schema": 1, "name": "large", "cluster": {"nodes": [{"count": nodes, "cpus": 4, "memory": "16GiB"}]},
        "dataset": {"rows": tasks, "row_bytes": "8B", "partitions": tasks, "skew": skew},
        "operators": [op(i) for i in range(1 + followers)], "engines": [{"name": engine}],
    }  # fmt: skip


def cases() -> Iterator[Case]:
    """All of them, in a fixed order."""
    for number in range(120):
        for engine in ENGINES:
            options = OPTIONS[engine][number % len(OPTIONS[engine])]
            yield f"odd {number} {engine}", drawn(number), engine, options
    for m in mechanisms.MECHANISMS:
        for on, options in (("on", m.base), ("off", {**m.base, **m.off})):
            if "block_bytes" in options and m.engine == "ray":
                options = {**{k: v for k, v in options.items() if k != "block_bytes"}, "block": options["block_bytes"]}
            yield f"mechanism {m.engine} {m.name} {on}", mechanisms.SCENARIOS[m.where], m.engine, options
    for engine in ENGINES:
        for followers, cv, skew, shuffle in (
            (0, 0.3, 0.0, False),
            (0, 0.3, 0.5, False),
            (2, 0.3, 0.0, False),
            (1, 0.3, 0.3, True),
        ):
            tasks = 300 if shuffle else 6000
            where = large(engine, followers, cv, skew, 50, tasks, shuffle)
            yield f"large {engine} {followers} {cv} {skew} {shuffle}", where, engine, {}
    for file in FILES:
        yield from _of_file(file)


def _of_file(file: Path) -> Iterator[Case]:
    document = read_document(file)
    for point in from_document(document, str(file)).expand():
        for choice in point.scenario.engines:
            name = {"ray": "ray-serve"}.get(choice.name, choice.name) if point.scenario.serving is not None else choice.name
            sweep = " ".join(map(str, point.sweep.values()))
            known = {k: v for k, v in choice.options.items() if k in option_names(f"sim:{name}")}
            yield f"file {file.stem} {choice.label} {sweep}", point.scenario.document, name, known


def outcome(case: Case) -> dict[str, Any]:
    """Status, counters and a digest of everything."""
    _, document, engine, options = case
    recorder, status = Recorder(), "ok"
    try:
        scenario = from_document(document, "corpus.toml")
        session = load_engine(f"sim:{engine}").open(scenario.cluster, {"seed": scenario.seed, **options})
        assert scenario.workload is not None
        session.run(scenario.workload.bind(Path(".")), recorder, Path("."))
    except (InputError, OutOfMemory, RunFailed) as error:
        status = f"{type(error).__name__}: {error}"
    counters = dict(sorted(recorder.counters.items()))
    spans = [(*s[:5], float(s[5]), float(s[6]), *s[7:]) for s in recorder.spans]
    samples = [(name, float(time), float(value)) for name, time, value in recorder.samples]
    parts = {"spans": repr(spans), "samples": repr(samples)}
    digests = {name: hashlib.sha256(part.encode()).hexdigest()[:16] for name, part in parts.items()}
    return {"status": status, "counters": counters, **digests}


def difference(before: dict[str, Any], after: dict[str, Any]) -> str:
    """What moved, in words."""
    if before["status"] != after["status"]:
        return f"{before['status'][:90]} → {after['status'][:90]}"
    a, b = before["counters"], after["counters"]
    moved = [f"{k} {a.get(k)} → {b.get(k)}" for k in sorted({*a, *b}) if not _same(k, a.get(k), b.get(k))]
    return "; ".join(moved[:4]) or " and ".join(k for k in ("spans", "samples") if before[k] != after[k])


def _same(name: str, before: float | None, after: float | None) -> bool:
    """Whether a counter is what it was. Bounds and intervals are sums and quantiles, whose last digits may differ."""
    if before is None or after is None or not name.startswith(("bound_s", "lower_bound", "interval_")):
        return before == after
    return abs(before - after) <= 1e-11 * abs(before)


def main() -> int:
    """0: nothing differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=("save", "compare"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    begin, made = time.monotonic(), {}
    known = json.loads(given.file.read_text()) if given.verb == "compare" else {}
    bad = 0
    for case in cases():
        if given.only not in case[0]:
            continue
        made[case[0]] = outcome(case)
        if known and (moved := difference(known.get(case[0], {"status": "absent", "counters": {}}), made[case[0]])):
            bad += 1
            print(f"{case[0]}: {moved}", flush=True)
    if given.verb == "save":
        given.file.write_text(json.dumps(made))
    print(
        f"{len(made)} cases in {time.monotonic() - begin:.0f} s, {bad} differ; {sum(m['status'] != 'ok' for m in made.values())} fail"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
