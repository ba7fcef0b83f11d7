"""From workloads to a calibration file: run them small on this machine, fit, predict what was held out, measure the host.

The runs go through `Experiment`, one process a cell. The module owns which cells are run; it fits nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from windtunnel.records.record import RunRecord
from windtunnel.records.store import Store
from windtunnel.running.cellspec import WorkloadChoice, default_data_root
from windtunnel.running.experiment import Experiment, Progress
from windtunnel.scenario.tables import EngineChoice
from windtunnel.sim.calibration.crossfit import cross_fitted, with_held_out
from windtunnel.sim.calibration.holdout import calibrated
from windtunnel.sim.costs.measured import Calibration, HostCost
from windtunnel.spec.cluster import ClusterSpec

ENGINES = tuple(EngineChoice(name=n, label=n, options={}) for n in ("bulk", "streaming"))


def calibrate_workloads(
    choices: Sequence[WorkloadChoice], cluster: ClusterSpec, store: Store, out: Path,
    progress: Callable[[Progress], None] | None = None, *, date: str = "", repetitions: int = 3, data_root: Path | None = None,
    host: Sequence[HostCost] = (), engines: Sequence[str] = (), held_out: bool = True,
) -> Calibration:  # fmt: skip
    """Run each workload small, on one worker and on all, write the fitted calibration with its held-out errors to ``out``.

    ``engines``: others to measure on the same cells. ``held_out`` False: too few cells to hold some out, no errors are told.

    One worker alone tells what a kernel costs undisturbed, all of them how much they disturb each other. Kernels cost the same
    under both engines, so that of several choices each is run by one engine a number of workers, in turns.
    """
    node, root = cluster.nodes[0], data_root or default_data_root()
    records: list[RunRecord] = []
    others = tuple(EngineChoice(name=n, label=n, options={}) for n in engines)
    for turn, cpus in enumerate(sorted({1, node.cpus})):
        alternating = [replace(c, engines=(ENGINES[(turn + i) % 2], *others)) for i, c in enumerate(choices)]
        experiment = Experiment(
            name=f"calibrate-{cpus}", workloads=tuple(alternating if len(choices) > 1 else choices), engines=(*ENGINES, *others), aa=False,
            repetitions=repetitions, cluster=replace(cluster, nodes=(replace(node, cpus=cpus),)), data_root=root,
        )  # fmt: skip
        records += experiment.run(store, resume=True, progress=progress)
    workloads = {c.name: c.load() for c in choices}
    names = list(dict.fromkeys(c.name for c in choices))
    scratch = store.root / "held-out"
    result = calibrated(records, workloads, scratch, root, provenance={"date": date, "workloads": names})
    if held_out:
        result = with_held_out(result, cross_fitted(records, workloads, scratch, root))
    result = replace(result, host=tuple(host))
    result.save(out)
    return result


def grid(choices: Sequence[WorkloadChoice], *, shrunk: float = 0.5) -> tuple[WorkloadChoice, ...]:
    """Each choice at its own scale and a smaller one, with its partitions and with twice as many: cells to hold out in turn."""
    found = []
    for choice in choices:
        dataset = choice.load().dataset
        for times, more in ((1.0, 1), (shrunk, 1), (1.0, 2), (shrunk, 2)):
            parameters = {"scale": dataset.scale * times, "partitions": dataset.partitions * more}
            found.append(replace(choice, parameters={**choice.parameters, **parameters}))
    return tuple(found)
