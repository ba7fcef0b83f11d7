"""The scenarios that ship in ``examples``: they load, every engine's options are known, and one file serves both worlds."""

from __future__ import annotations

from pathlib import Path

import pytest

from windtunnel.commands.simulate import in_world, scenario_experiment
from windtunnel.registry import option_names
from windtunnel.scenario.reading import load_scenario
from windtunnel.scenario.tables import EngineChoice

FILES = sorted((Path(__file__).parents[2] / "examples").glob("*.toml"))


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_both_worlds_know_every_option_that_they_are_given(file: Path) -> None:
    scenario = load_scenario(file)
    tokens = (
        any(d.tokens for d in scenario.workload.serving.deployments) if scenario.workload and scenario.workload.serving else False
    )
    for simulated in (True,) if tokens else (True, False):  # token streams are simulated only
        for choice in scenario_experiment(scenario, simulated=simulated).workloads:
            for engine in choice.engines or ():
                assert engine.name.startswith("sim:") is simulated
                assert set(engine.options) <= option_names(engine.name)
    given = {(e.name, o) for e in scenario.engines for o in e.options}
    used = {(e.name, o) for e in scenario.engines for n in (e.name, f"sim:{e.name}") for o in option_names(n)}
    assert given <= used, "an option that neither world knows"


def test_each_world_leaves_out_what_only_the_other_knows() -> None:
    ray = EngineChoice(
        name="ray", label="tuned", options={"tuning": "tuned", "overheads": {"launch_s": 0.0}, "object_store": "1GB"}
    )
    assert in_world(ray, "ray", "sim:ray").options == {"tuning": "tuned", "object_store": "1GB"}
    simulated = in_world(ray, "sim:ray", "ray")
    assert (simulated.name, simulated.label) == ("sim:ray", "tuned")
    assert simulated.options == {"overheads": {"launch_s": 0.0}, "object_store": "1GB"}


def test_a_mistyped_option_stays_and_is_refused_by_its_engine() -> None:
    typo = EngineChoice(name="ray", label="ray", options={"tunning": "stock"})
    assert in_world(typo, "ray", "sim:ray").options == {"tunning": "stock"}
