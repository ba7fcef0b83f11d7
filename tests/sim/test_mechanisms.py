"""Every mechanism of a simulated engine can be switched off, and that is seen in some run: a switch without effect is a defect."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sim.mechanisms import MECHANISMS, Mechanism, run, table
from windtunnel.engines.models.catalogue import ENTRIES

DOCS = Path(__file__).parents[2] / "docs" / "ablations.md"
#: options that set a size, a number or a place rather than switching something
SETTINGS = {
    "queued_blocks", "queued_fraction", "budget_fraction", "num_cpus", "num_gpus", "concurrency", "object_store", "block", "executor",
    "executors", "executor_cores", "executor_memory", "executor_gpus", "speculation_quantile", "speculation_multiplier",
    "shuffle_partitions", "compression", "task_memory", "parallelism",
}  # fmt: skip
#: switches whose engine has no default for them: what they do is told by their own tests
OFF_BY_DEFAULT = {("spark", "replication")}


@pytest.mark.parametrize("mechanism", MECHANISMS, ids=lambda m: f"{m.engine}-{m.name}")
def test_a_switch_has_an_effect(mechanism: Mechanism) -> None:
    on = run(mechanism.engine, mechanism.base, mechanism.where)
    off = run(mechanism.engine, {**mechanism.base, **mechanism.off}, mechanism.where)
    assert on["status"] == "ok" or mechanism.counter == "status", on
    assert on.get(mechanism.counter) != off.get(mechanism.counter), (on.get(mechanism.counter), mechanism.where)


@pytest.mark.parametrize("engine", sorted(ENTRIES))
def test_every_switch_of_a_model_is_in_the_table(engine: str) -> None:
    entry = ENTRIES[engine]
    options = {o.name for o in (*entry.options, *entry.plan_options, *entry.world.values())} - SETTINGS
    known = {key for m in MECHANISMS if m.engine == engine for key in m.off}
    assert options - known - {name for e, name in OFF_BY_DEFAULT if e == engine} == set()


def test_the_documentation_has_the_table() -> None:
    assert table() in DOCS.read_text(encoding="utf-8"), "print it anew with python -m tests.sim.mechanisms"
