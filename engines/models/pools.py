"""Pools of actors of streaming engines: how many there are at first, and when one more pays."""

from __future__ import annotations

from collections.abc import Sequence

from windtunnel.engines.models.ledger import Ledger
from windtunnel.model import Action, Stage


def first_actors(ledger: Ledger, stage: Stage) -> list[Action]:
    """The minimum of a stateful stage's pool, as far as there is room."""
    if stage.state.kind != "actor":
        return []
    minimum = stage.concurrency.minimum if stage.concurrency else 1
    actions = (ledger.start_actor(stage.index) for _ in range(minimum))
    return [a for a in actions if a is not None]


def one_more(ledger: Ledger, stage: Stage, unsettled: Sequence[Stage]) -> list[Action]:
    """One more actor for a stage whose tasks wait, when all that exist are up and busy with tasks queued (utilisation above 2).

    None while one is on its way, at the pool's maximum, or where tasks of ``unsettled`` stages would find no room any more.
    """
    index, actors = stage.index, ledger.actors[stage.index]
    maximum = stage.concurrency.maximum if stage.concurrency else None
    if ledger.actors_coming(index) or (maximum is not None and len(actors) >= maximum) or ledger.has_idle_actor(index):
        return []
    if not ledger.leaves_room(index, [s.index for s in unsettled if s.state.kind == "stateless"]):
        return []
    action = ledger.start_actor(index)
    return [action] if action else []
