"""The verbs of the command line for Python programs: `run`, `simulate`, `compare`. Records in, records out; nothing is printed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from windtunnel.records.record import RunRecord
    from windtunnel.reports.compare import Comparison
    from windtunnel.running.experiment import Experiment, Progress


def run(
    workloads: Sequence[str],
    engines: Sequence[str] | Mapping[str, Mapping[str, Any]],
    *,
    scale: float | None = None,
    partitions: int | None = None,
    cpus: int | None = None,
    repetitions: int = 5,
    rounds: int = 1,
    seed: int = 7,
    results: Path | str | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> tuple[RunRecord, ...]:
    """Run workloads of the catalogue on engines, for real on this machine, each cell in a process of its own.

    ``engines``: names, or names with their options. Outputs are checked; a failure is a record whose status is not "ok".
    ``results`` keeps the records in a folder, and finished ones there are not run again. Raises InputError for unknown names.
    """
    from windtunnel.commands.common import check_engines
    from windtunnel.running.cellspec import WorkloadChoice
    from windtunnel.running.experiment import Experiment
    from windtunnel.scenario.tables import EngineChoice
    from windtunnel.spec.cluster import ClusterSpec

    options = engines if isinstance(engines, Mapping) else {name: {} for name in engines}
    parameters = {k: v for k, v in (("scale", scale), ("partitions", partitions)) if v is not None}
    chosen = tuple(EngineChoice(name=name, label=name, options=dict(given)) for name, given in options.items())
    check_engines(chosen)
    experiment = Experiment(
        name="run " + " ".join(workloads), engines=chosen, cluster=ClusterSpec.here(cpus=cpus), repetitions=repetitions,
        rounds=rounds, seed=seed, workloads=tuple(WorkloadChoice(name=name, parameters=parameters) for name in workloads),
    )  # fmt: skip
    return _records(experiment, results, progress=progress)


def simulate(
    scenario: Path | str | Mapping[str, Any],
    *,
    calibration: Path | str | None = None,
    jobs: int = 1,
    results: Path | str | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> tuple[RunRecord, ...]:
    """Run a scenario (a TOML file, or its document as a dictionary) in the simulated cluster, every point of its sweep.

    ``calibration``: a file of ``windtunnel calibrate``, for real kernels. ``jobs`` processes simulate side by side; more than one
    needs the guard ``if __name__ == "__main__"``. Raises InputError for a bad scenario.
    """
    from windtunnel.commands.simulate import scenario_experiment
    from windtunnel.scenario.reading import from_document, load_scenario

    found = from_document(dict(scenario), "scenario") if isinstance(scenario, Mapping) else load_scenario(Path(scenario))
    file = None if calibration is None else Path(calibration)
    return _records(scenario_experiment(found, simulated=True, calibration=file), results, progress=progress, jobs=jobs)


def compare(records: Iterable[RunRecord]) -> Comparison:
    """What the records show: verdicts in sentences, rows with intervals, effects, errors of simulated numbers. Pure."""
    from windtunnel.reports.compare import build

    return build(records)


def _records(experiment: Experiment, results: Path | str | None, **given: Any) -> tuple[RunRecord, ...]:
    """The measured runs; without a folder they are in memory alone."""
    from windtunnel.records.store import Store

    if results is not None:
        found = experiment.run(Store(Path(results)), resume=True, **given)
    else:
        with tempfile.TemporaryDirectory(prefix="wt-results-") as folder:
            found = experiment.run(Store(Path(folder)), **given)
    return tuple(r for r in found if not r.warmup)
