"""Work that clients do against a system that keeps data: which operations each makes, how often, and who is killed in the middle.

The module owns these words and their rules. It knows no table format, database or index, and runs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from windtunnel.errors import InputError

Parameters = tuple[tuple[str, bool | int | float | str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """``clients`` that do the same: ``operations`` each, kinds drawn by weight; 0 operations: until those with a number are done.

    ``in_turn``: kinds follow each other in their order instead, whatever their weights.
    ``kills``: so many operations of the role are cut by SIGKILL, at moments spread over an operation's usual duration; the client is
    started again after each. ``pause_s``: between two operations.
    """

    name: str
    kinds: tuple[tuple[str, float], ...]
    clients: int = 1
    operations: int = 0
    pause_s: float = 0.0
    kills: int = 0
    in_turn: bool = False

    def __post_init__(self) -> None:
        if not self.kinds or any(not weight > 0 for _, weight in self.kinds):
            raise InputError(f"role {self.name!r} needs operations with weights above 0, not {self.kinds}")
        if self.clients < 0 or self.operations < 0 or self.pause_s < 0:
            raise InputError(f"role {self.name!r}: clients, operations and pause must not be negative")
        if not 0 <= self.kills <= self.clients * self.operations:
            raise InputError(
                f"role {self.name!r} makes {self.clients * self.operations} operations; {self.kills} cannot be killed"
            )

    def kind(self, number: int, draw: float) -> str:
        """The kind of a client's operation ``number``; ``draw`` is uniform in [0, 1)."""
        if self.in_turn:
            return self.kinds[number % len(self.kinds)][0]
        left = draw * sum(weight for _, weight in self.kinds)
        for kind, weight in self.kinds:
            left -= weight
            if left < 0:
                return kind
        return self.kinds[-1][0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """What a client does when the system refuses an operation for a conflict: tries again at most ``most`` times.

    Before the n-th (from 0) it waits a uniformly drawn time between 0 and ``backoff_s × factor**n``, at most ``longest_s`` ("full
    jitter": M. Brooker, Exponential Backoff And Jitter, AWS Architecture Blog, 2015).
    """

    most: int = 0
    backoff_s: float = 0.05
    factor: float = 2.0
    longest_s: float = 5.0

    def wait_s(self, attempt: int, draw: float) -> float:
        """The wait before the retry after ``attempt`` refusals beyond the first; ``draw`` is uniform in [0, 1)."""
        return float(draw * min(self.longest_s, self.backoff_s * self.factor**attempt))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientsSpec:
    """Roles and their rule for conflicts. ``script`` is "module:Class", built with the bound workload: it makes calls and reads answers."""

    script: str
    roles: tuple[Role, ...]
    retries: Retries = Retries()
    parameters: Parameters = ()

    def parameter(self, name: str) -> bool | int | float | str:
        """A parameter of the script."""
        return dict(self.parameters)[name]

    @property
    def kinds(self) -> tuple[str, ...]:
        """Every kind of operation that somebody makes, each once."""
        return tuple(dict.fromkeys(kind for role in self.roles if role.clients for kind, _ in role.kinds))
