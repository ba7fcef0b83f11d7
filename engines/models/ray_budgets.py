"""Which operators of Ray Data may send one more task: what its executor knows of each, and the policies that have decided it.

Rules with their sources, all in ``ray/data/_internal/execution``:

* `Reserved` (``ReservationOpResourceAllocator`` in resource_manager.py, Ray 2.10 on): a share of the CPUs *and* of the object store's
  budget is reserved for each operator in equal parts, half of its memory for blocks that it has handed on; what is left is shared by
  those that need more, the last operator first. So an operator alone with work does not get all CPUs while another has not ended:
  two operators on eight CPUs leave the busy one five.
* `Threshold` (``_execution_allowed`` in streaming_executor_state.py, Ray up to 2.9, and later for data sets with a shuffle): while all
  operators together hold more than the budget, operator k of N runs only if it and what follows hold less than k/N of it.
* `Paced`: `Threshold`, and a budget of the first operator that begins at the whole store, of which every task spends what its kind
  makes, and which grows with *time*, as fast as the CPUs that the operator leaves free could read its output; what is held is not looked
  at (``OpState._get_grow_rate`` of the fork that the paper arXiv 2501.12407 was measured with, built on Ray of July 2024: branch
  nsdi27-fig9 of ray-data-eval/ray). It sends the earliest operator first; the others the one whose blocks take least memory.

A running task counts as the blocks that it may have made and nobody took: ``_max_num_blocks_in_streaming_gen_buffer`` (2) at most, of the
size that its operator's blocks have had; before there is one, of the target size (up to 2.40) or of none (2.60).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

#: a task's claim, or what is left: CPUs, bytes of the object store
Pair = tuple[float, float]
#: of the object store that Ray Data may fill: DEFAULT_OBJECT_STORE_MEMORY_LIMIT_FRACTION with reservations, and without; the fork's
RESERVED_FRACTION, PLAIN_FRACTION, FORK_FRACTION = 0.5, 0.25, 1.0
#: of the 2.60 policy that looks at the operator behind: a share of its budget, and a ratio (DownstreamCapacityBackpressurePolicy)
MOST_USED, MOST_AHEAD = 0.5, 2.0
IDLE_S = 10.0  # IdleDetector.DETECTION_INTERVAL_S


@dataclass(slots=True)
class Operator:
    """What the executor knows of an operator.

    ``cpus``: a task's claim, 0 where actors hold theirs (``pool_cpus``, of those that live); ``least_pool_cpus`` of its smallest pool.
    ``bounded``: what it makes is taken as it comes, so that the budget may hold it back. ``made_*``: of all its tasks, ``ended_*`` of
    those that ended, ``read_bytes`` of all that were sent. ``held_bytes``: blocks whose readers are not done with them.
    """

    cpus: float
    gpus: float
    actors: bool
    bounded: bool
    most: float = math.inf  # tasks at once
    pool_cpus: float = 0.0
    least_pool_cpus: float = 0.0
    running: int = 0
    sent: int = 0
    ended: int = 0
    made_blocks: int = 0
    made_bytes: int = 0
    ended_blocks: int = 0
    ended_bytes: int = 0
    read_bytes: int = 0
    held_bytes: int = 0
    busy_s: float = 0.0  # of the tasks that ended, as the executor sees them
    complete: bool = False

    @property
    def used_cpus(self) -> float:
        """CPUs that its tasks or actors hold."""
        return self.pool_cpus if self.actors else self.cpus * self.running

    def pending(self, buffer: int, unknown: float) -> float:
        """Bytes that one running task may have made before anybody took them; ``unknown`` a block while none is known."""
        block = self.made_bytes / self.made_blocks if self.made_blocks else unknown
        return block * (min(buffer, self.ended_blocks / self.ended) if self.ended else buffer)


@dataclass(slots=True, kw_only=True)
class Reserved:
    """See the module. ``borrows_memory``: up to 2.40 a task's claim counts its pending output."""

    operators: Sequence[Operator]
    cpus: float
    memory: float
    ratio: float
    buffer: int
    unknown: float
    modern: bool  # rules of 2.60
    idle_s: dict[int, float] = field(default_factory=dict)
    producer_first = False

    def admits(self, index: int) -> bool:
        """Whether operator ``index`` may send one more task."""
        op = self.operators[index]
        if op.complete or op.running >= op.most:
            return False
        cpus, memory = self._budgets()[index]
        claim = op.pending(self.buffer, self.unknown)
        if cpus + 1e-9 < op.cpus or (op.bounded and memory < claim):
            return False
        return not (self.modern and op.bounded and self._runs_ahead(index, memory))

    def readable(self, now_s: float) -> list[float]:
        """Bytes of each operator's blocks that may be read: what its budget leaves, and the rest of what is reserved for its output.

        Where that is nothing, one block all the same once the operator behind it has run nothing for `IDLE_S`.
        """
        live = sum(1 for op in self.operators if not op.complete)
        outputs = max(self.memory * self.ratio / max(live, 1) / 2, 1.0)
        found = []
        for i, (op, (_, memory)) in enumerate(zip(self.operators, self._budgets() if live else [], strict=False)):
            left = float(int(memory + max(outputs - op.held_bytes, 0.0))) if op.bounded and not op.complete else math.inf
            behind = self.operators[i + 1] if i + 1 < len(self.operators) else None
            if left or behind is None or behind.running:
                self.idle_s[i] = now_s
            elif now_s - self.idle_s.get(i, now_s) > IDLE_S:
                left, self.idle_s[i] = 1.0, now_s
            found.append(left)
        return found

    def usage(self, index: int) -> float:
        """Bytes that count as an operator's."""
        op = self.operators[index]
        return op.held_bytes + op.running * op.pending(self.buffer, self.unknown)

    def _runs_ahead(self, index: int, left: float) -> bool:
        """Whether its output waits though its budget is half used: more than twice what the operator behind reads now."""
        op, behind = self.operators[index], self.operators[index + 1 : index + 2]
        reads = behind[0].running * (behind[0].read_bytes / behind[0].sent) if behind and behind[0].sent else 0.0
        used = self.usage(index)
        return reads > 0 and used > MOST_USED * (used + left) and op.held_bytes / reads - 1 > MOST_AHEAD

    def _budgets(self) -> list[Pair]:
        """What each operator may still take."""
        live = [i for i, op in enumerate(self.operators) if not op.complete]
        ops, count = self.operators, len(live)
        cpus, memory = self.cpus, self.memory
        outputs = max(memory * self.ratio / count / 2, 1.0)  # of each, for blocks that it has handed on
        reserved: dict[int, Pair] = {}
        for i in live:
            reserved[i] = self._reserved(ops[i], outputs, count)
            if reserved[i][0] > cpus:  # CPUs are not promised twice
                reserved[i] = 0.0, ops[i].pending(self.buffer, self.unknown)
            cpus, memory = max(cpus - reserved[i][0], 0.0), max(memory - reserved[i][1] - outputs, 0.0)
        budget: dict[int, Pair] = {}
        for i in live:
            used = (
                ops[i].used_cpus,
                ops[i].running * ops[i].pending(self.buffer, self.unknown) + max(ops[i].held_bytes - outputs, 0.0),
            )
            own = reserved[i]
            budget[i] = max(own[0] - used[0], 0.0), max(own[1] - used[1], 0.0)
            cpus, memory = cpus - max(used[0] - own[0], 0.0), memory - max(used[1] - own[1], 0.0)
        self._share(live, reserved, budget, max(cpus, 0.0), max(memory, 0.0), outputs)
        return [budget.get(i, (math.inf, math.inf)) for i in range(len(ops))]

    def _reserved(self, op: Operator, outputs: float, count: int) -> Pair:
        """What is reserved for an operator's tasks, at least enough for one."""
        cpus, memory = self.cpus * self.ratio / count, self.memory * self.ratio / count
        claim = op.pending(self.buffer, self.unknown)
        if not self.modern:
            return max(cpus, op.cpus), max(memory, claim + outputs) - outputs
        least = op.least_pool_cpus if op.actors else op.cpus
        return min(max(cpus, least), self._most_cpus(op)), max(memory - outputs, claim)

    @staticmethod
    def _most_cpus(op: Operator) -> float:
        """CPUs that an operator could use at all."""
        if op.actors:
            return op.pool_cpus if op.most == math.inf else max(op.pool_cpus, op.least_pool_cpus)
        return op.cpus * op.most if op.cpus else 0.0

    def _share(
        self, live: Sequence[int], reserved: dict[int, Pair], budget: dict[int, Pair], cpus: float, memory: float, outputs: float
    ) -> None:
        """Hand out what is not reserved: equal parts, the last operator first, who may borrow what one task lacks."""
        headroom: dict[int, float] = {}
        for place, i in enumerate(reversed(live)):
            op, part = self.operators[i], len(live) - place
            own = budget[i]
            more, bytes_more = cpus / part, memory / part
            claim = 0.0 if self.modern else op.pending(self.buffer, self.unknown)
            borrow, bytes_borrow = max(op.cpus - own[0] - more, 0.0), max(claim - own[1] - bytes_more, 0.0)
            if (borrow or bytes_borrow) and more + borrow <= cpus and bytes_more + bytes_borrow <= memory:
                more, bytes_more = more + borrow, bytes_more + bytes_borrow
            if self.modern:
                room = max(self._most_cpus(op) - max(reserved[i][0], op.used_cpus), 0.0)
                more = min(more, room)
                headroom[i] = room - more
            cpus, memory = max(cpus - more, 0.0), max(memory - bytes_more, 0.0)
            budget[i] = own[0] + more, own[1] + bytes_more
        if self.modern:
            for i in reversed(live):
                more = min(cpus, headroom[i])
                cpus -= more
                budget[i] = budget[i][0] + more, budget[i][1]


@dataclass(slots=True, kw_only=True)
class Threshold:
    """See the module. CPUs and devices are counted in whole ones, whatever fractions tasks claim, so that one may wait for its slot."""

    operators: Sequence[Operator]
    cpus: float
    gpus: float
    memory: float
    buffer: int
    unknown: float
    producer_first = False

    def admits(self, index: int) -> bool:
        """Whether operator ``index`` may send one more task."""
        op = self.operators[index]
        if op.complete or op.running >= op.most:
            return False
        used = math.floor(sum(o.used_cpus for o in self.operators) + 1e-9)
        devices = math.floor(sum(o.gpus * o.running for o in self.operators if not o.actors) + 1e-9)
        if (op.cpus and used + 1 > self.cpus) or (op.gpus and not op.actors and devices + 1 > self.gpus):
            return False
        if not op.bounded:
            return True
        usages = [self.usage(i) for i in range(len(self.operators))]
        share = min(1.0, (len(usages) - index) / len(usages))
        return sum(usages) <= self.memory or sum(usages[index:]) <= share * self.memory

    def usage(self, index: int) -> float:
        """Bytes that count as an operator's."""
        op = self.operators[index]
        return op.held_bytes + op.running * op.pending(self.buffer, self.unknown)


@dataclass(slots=True, kw_only=True)
class Paced(Threshold):
    """See the module. ``left`` bytes of the budget at ``at_s``; below 0 before its first use."""

    left: float = -1.0
    at_s: float = 0.0
    producer_first = True

    def admits_at(self, index: int, now_s: float) -> bool:
        """As `Threshold`; a task of the first operator spends what its kind makes, if the budget has so much at ``now_s``."""
        if not self.admits(index):
            return False
        if index:
            return True
        if self.left < 0:
            self.left = self.memory
        else:
            self.left = min(self.left + (now_s - self.at_s) * self._grows_bytes_per_s(), self.memory)
        self.at_s = now_s
        source = self.operators[0]
        output = source.ended_bytes / source.ended if source.ended and source.ended_bytes else self.memory
        if output > self.left:
            return False
        self.left -= output
        return True

    def _grows_bytes_per_s(self) -> float:
        """Free CPUs over the CPU seconds that the operators behind the first need for a byte of its output."""
        source, *behind = self.operators
        per_byte, factor, waiting = 0.0, 1.0, 0.0
        for op in behind:
            if not (op.ended and op.busy_s and op.read_bytes and op.ended_bytes):
                continue
            read = op.read_bytes / op.sent
            waiting += factor * (op.busy_s / op.ended) / read
            factor *= op.ended_bytes / op.ended / read
            if op.cpus:  # of one on devices alone the time counts for who follows
                per_byte, waiting = per_byte + waiting, 0.0
        return (self.cpus - source.running * source.cpus) / per_byte if per_byte else 0.0


Policy = Reserved | Threshold | Paced


MODERN, BEFORE = "2.60", "2.40"  # releases whose rules differ


class Rules(NamedTuple):
    """Which rules are followed: the policy's name, the release, the share of the object store that may be filled."""

    policy: str
    release: str
    fraction: float


def rules(policy: str | None, release: str | None, reservation: float, budget_policy: bool | None) -> Rules:
    """From the options: whoever names a switch of the paper's fork, or reserves nothing, means the fork and what it was built on."""
    fork = budget_policy is not None or reservation == 0 or policy == "paced"
    found = policy or ("paced" if reservation == 0 and budget_policy is not False else "reserved")
    fraction = FORK_FRACTION if fork else RESERVED_FRACTION if found == "reserved" else PLAIN_FRACTION
    return Rules(found, release or (BEFORE if fork or found == "threshold" else MODERN), fraction)
