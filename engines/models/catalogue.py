"""The models that worlds run, with the options each takes: one entry a model serves the local and the simulated world."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from windtunnel.engines.api import Option
from windtunnel.engines.models.bulk import Bulk
from windtunnel.engines.models.streaming import Streaming

from windtunnel.model import ExecutionModel


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """A model by name: how it is built from its ``options``, and what it adds to a world's features."""

    name: str
    build: Callable[..., ExecutionModel]
    options: tuple[Option, ...]
    features: Mapping[str, str] = field(default_factory=dict)

    def factory(self, chosen: Mapping[str, Any]) -> Callable[[], ExecutionModel]:
        """Builds a fresh model for a run; ``chosen`` holds a world's options too."""
        own = {o.name: chosen[o.name] for o in self.options}
        return lambda: self.build(**own)


BULK = ModelEntry(
    name="bulk",
    build=Bulk,
    options=(Option(name="prefetch", default=True, doc="queue one task behind a worker's running one", choices=(True, False)),),
    features={"barrier": "a stage begins when its inputs are complete; all its output is materialised"},
)
STREAMING = ModelEntry(
    name="streaming",
    build=Streaming,
    options=(
        Option(name="queued_blocks", default=8, doc="most blocks a stage may have queued or in the making for its consumers"),
        Option(name="queued_fraction", default=0.5, doc="share of the object store that queued blocks of all edges may fill"),
        Option(name="backpressure", default=True, doc="whether full queues hold a stage back", choices=(True, False)),
        Option(name="autoscale", default=True, doc="whether actor pools grow above their minimum", choices=(True, False)),
    ),
    features={"backpressure": "bounded blocks and bytes queued between stages"},
)
