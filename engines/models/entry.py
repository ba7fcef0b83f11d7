"""What a model brings into the worlds: its name, options and traits. Every model file ends with its entry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from windtunnel.engines.api import Option
from windtunnel.engines.models.traits import Constant, Traits
from windtunnel.model import ExecutionModel, Job
from windtunnel.spec.cluster import ClusterSpec


def as_compiled(job: Job, chosen: Mapping[str, Any], cluster: ClusterSpec) -> Job:
    """The job as the worlds' planner made it."""
    return job


def no_groups(chosen: Mapping[str, Any], cluster: ClusterSpec) -> dict[str, int]:
    """Any neighbours may share a stage."""
    return {}


def no_costs(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """No constant follows from the options."""
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """A model by name: how it is built from its ``options``, and what it adds to a world's features.

    ``world`` gives settings of the simulated world the name and default that this engine's users know. ``plan`` rewrites the
    physical job as the engine's own planner would: ``plan(job, options, cluster)``; ``plan_options`` are for it alone.
    ``groups(options, cluster)`` numbers operators that may share a stage only with others of their number.
    ``costs`` gives constants that follow from the options; ``variants`` are those of whole ways to run, by name, for the docs.
    """

    name: str
    build: Callable[..., ExecutionModel]
    options: tuple[Option, ...]
    features: Mapping[str, str] = field(default_factory=dict)
    traits: Traits = Traits()
    world: Mapping[str, Option] = field(default_factory=dict)
    plan_options: tuple[Option, ...] = ()
    plan: Callable[[Job, Mapping[str, Any], ClusterSpec], Job] = as_compiled
    groups: Callable[[Mapping[str, Any], ClusterSpec], dict[str, int]] = no_groups
    costs: Callable[[Mapping[str, Any]], dict[str, Any]] = no_costs
    variants: Mapping[str, tuple[Constant, ...]] = field(default_factory=dict)

    def factory(self, chosen: Mapping[str, Any]) -> Callable[[], ExecutionModel]:
        """Builds a fresh model for a run; ``chosen`` holds a world's options too."""
        own = {o.name: chosen[o.name] for o in self.options}
        return lambda: self.build(**own)
