"""Who could take a task: pool workers and actors, what they occupy on which node, and who is free.

Bookkeeping without policy, on integers and slots only: it is the hot path of simulations with millions of tasks.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush, nlargest

from windtunnel.model import Action, Block, Job, NodeView, Stage, StartWorker, StopWorker, View

MOST_REFUSED = 64  # actors looked at for one task, so that a full cluster costs no search through all of it


@dataclass(slots=True)
class Worker:
    """A process. ``stage`` ≥ 0: an actor of that stage. ``tasks`` are those sent to it, running one first."""

    id: int
    node: int
    stage: int
    up: bool = False
    stopping: bool = False
    tasks: list[int] = field(default_factory=list)
    held: int = -1  # stage whose resources a pool worker occupies


class Slots:
    """Workers and the resources of one job's cluster."""

    blocks: dict[int, Block]  # those that exist, by id: tasks would rather run beside them

    def __init__(self, job: Job, view: View, *, actors_yield: bool = False) -> None:
        """``actors_yield``: an actor without a device holds its CPUs while it runs a task, and not while it waits for one."""
        self.job = job
        self.workers: dict[int, Worker] = {}
        self._needs = [(s.resources.cpus, s.resources.gpus, s.resources.custom) for s in job.stages]
        # Stages with equal needs share their queues, which are the first one's.
        self._like = [self._needs.index(needs) for needs in self._needs]
        # Idle pool workers, longest idle first, by needs: each waits in all of these queues. Entries may be stale: they are checked,
        # and dropped, when looked at. Those whose node had no room then are parked until it has.
        self._idle_for: dict[int, deque[int]] = {like: deque() for like in self._like}
        self._parked: dict[int, dict[int, list[int]]] = {like: {} for like in self._like}
        # Pool workers with one task, by its needs.
        self._behind: dict[int, deque[int]] = {like: deque() for like in self._like}
        # Idle pool workers by node, for tasks that would rather run beside their input; None on a single node.
        self._idle_on: dict[int, deque[int]] | None = {n.node: deque() for n in view.nodes} if len(view.nodes) > 1 else None
        self.actors: dict[int, list[int]] = {s.index: [] for s in job.stages if s.state.kind == "actor"}
        # Actors of a stage by number of tasks (0, 1): heaps of ids, the first started first. Entries may be stale here too.
        self._actors_by_load: dict[int, tuple[list[int], list[int]]] = {s: ([], []) for s in self.actors}
        self._coming: dict[int, set[int]] = {s: set() for s in (-1, *self.actors)}  # workers on their way, by stage; may be gone
        self._yields = [actors_yield and s.state.kind == "actor" and not s.resources.gpus for s in job.stages]
        self._cpus = {n.node: n.cpus for n in view.nodes}
        self._unheld = dict(self._cpus)  # CPUs that no actor holds for life
        self._gpus = {n.node: n.gpus for n in view.nodes}
        self._custom = {n.node: dict(n.custom) for n in view.nodes}
        self._simple = all(not s.resources.custom for s in job.stages)
        self._pool_per_node: Callable[[NodeView], int] = lambda node: 0
        self._next_worker = 0
        self._short: Counter[int] = Counter()  # actors that were lost and found no place, by stage

    # -- workers -----------------------------------------------------------------------------------------------------

    def start_pool(self, view: View) -> list[Action]:
        """One pool worker a CPU slot of the smallest stateless stage, and one a device where such a stage wants devices."""
        stateless = [s.resources for s in self.job.stages if s.state.kind == "stateless"]
        smallest = min((r.cpus for r in stateless if r.cpus > 0), default=1.0)
        wants_device = any(r.gpus > 0 for r in stateless)
        free_riders = any(r.cpus == 0 and r.gpus == 0 for r in stateless)

        def count(node: NodeView) -> int:
            slots = int(min(self._cpus[node.node] / smallest, 4 * node.cpus) + 1e-9) + (int(node.gpus) if wants_device else 0)
            hosts = free_riders or (bool(stateless) and node.cpus + 1e-9 >= smallest)  # once the actors there have gone
            return max(slots, int(hosts))

        self._pool_per_node = count
        # In turns: what there is little of is spread over the nodes, as engines do (Ray Data's SPREAD, Spark's shuffled offers).
        nodes = view.nodes
        places = sorted((turn, position) for position, node in enumerate(nodes) for turn in range(count(node)))
        return [self._start(nodes[position].node, -1) for _, position in places]

    def start_actor(self, stage: int) -> Action | None:
        """An actor on the node with room that has the fewest of its kind; it holds its resources while it lives."""
        there = Counter(self.workers[w].node for w in self.actors[stage])
        node = min((n for n in self._cpus if self._houses(stage, n, there[n])), key=lambda n: there[n], default=None)
        if node is None:
            return None
        self._live(stage, node, 1)
        action = self._start(node, stage)
        self.actors[stage].append(action.worker)
        return action

    def _start(self, node: int, stage: int) -> StartWorker:
        worker = Worker(self._next_worker, node, stage)
        self._next_worker += 1
        self.workers[worker.id] = worker
        self._coming[stage].add(worker.id)
        return StartWorker(worker.id, node, stage)

    @property
    def starting(self) -> bool:
        """Whether a worker is on its way: its arrival will be an event."""
        return any(self.actors_coming(stage) for stage in self._coming)

    def actors_coming(self, stage: int) -> bool:
        """Whether an actor of a stage is on its way (-1: a pool worker)."""
        return any(w in self.workers for w in self._coming[stage])

    def joined(self, worker_id: int) -> None:
        """A worker is up, unless it was lost meanwhile."""
        worker = self.workers.get(worker_id)
        if worker is None:
            return
        worker.up = True
        self._coming[worker.stage].discard(worker_id)
        if worker.stage < 0:
            self._idle(worker)
        else:
            self._actor_has(worker)

    def _actor_has(self, worker: Worker) -> None:
        """An actor has none or one task from now on, or more."""
        if len(worker.tasks) < 2:
            heappush(self._actors_by_load[worker.stage][len(worker.tasks)], worker.id)

    def _idle(self, worker: Worker) -> None:
        for queue in self._idle_for.values():
            queue.append(worker.id)
        if self._idle_on is not None:
            self._idle_on[worker.node].append(worker.id)

    def stop_actors(self, stage: int) -> list[Action]:
        """Stop all actors of a stage."""
        actors = self.actors.get(stage, [])
        actions: list[Action] = [StopWorker(w) for w in actors]
        for worker_id in list(actors):
            self._forget_actor(worker_id)
        self._short.pop(stage, None)
        return actions

    def idle_actors(self, stage: int) -> list[int]:
        """Actors of a stage without a task, the first started first; they must be stopped now."""
        idle = []
        while (worker := self._first_actor(stage, 0)) is not None:
            idle.append(worker.id)
            heappop(self._actors_by_load[stage][0])
        return list(dict.fromkeys(idle))

    def stop_actor(self, worker_id: int) -> Action:
        """Stop one idle actor."""
        self._forget_actor(worker_id)
        return StopWorker(worker_id)

    def _forget_actor(self, worker_id: int) -> None:
        self.drop(self.workers.pop(worker_id))

    def make_room(self, stage: int) -> list[Action]:
        """For tasks that nobody can take though nothing runs: idle actors of other stages stop where they are in the way, and an
        actor starts where the stage has none."""
        actions: list[Action] = []
        idle = [w for other, actors in self.actors.items() if other != stage for w in actors if not self.workers[w].tasks]
        while idle and not any(self._fits(stage, n) for n in self._cpus):
            actions.append(self.stop_actor(idle.pop()))
        if stage in self.actors and not self.actors[stage] and (actor := self.start_actor(stage)) is not None:
            actions.append(actor)
        return actions

    def drop(self, worker: Worker) -> None:
        """A worker is gone, and what it held on its node is free."""
        if worker.held >= 0:
            self._take(worker.held, worker.node, -1)
        if worker.stage >= 0:
            self.actors[worker.stage].remove(worker.id)
            self._live(worker.stage, worker.node, -1)
            if worker.tasks:
                self._work(worker, -1)

    # -- resources ---------------------------------------------------------------------------------------------------

    def _fits(self, stage: int, node: int) -> bool:
        cpus, gpus, custom = self._needs[stage]
        if self._cpus[node] + 1e-9 < cpus or self._gpus[node] + 1e-9 < gpus:
            return False
        return self._simple or all(self._custom[node].get(tag, 0.0) + 1e-9 >= amount for tag, amount in custom)

    def _houses(self, stage: int, node: int, there: int) -> bool:
        """Whether one more actor may live on a node; of those that yield their CPUs no more than could run at once."""
        if not self._yields[stage]:
            return self._fits(stage, node)
        cpus, _, custom = self._needs[stage]
        return (there + 1) * cpus <= self._unheld[node] + 1e-9 and all(
            self._custom[node].get(tag, 0.0) + 1e-9 >= amount for tag, amount in custom
        )

    def leaves_room(self, actor: int, stages: Sequence[int]) -> bool:
        """Whether tasks of ``stages`` could still run somewhere, wherever one more actor of stage ``actor`` went."""
        if self._yields[actor]:
            return True
        needed = max((self._needs[s][0] for s in stages), default=0.0)
        roomiest, *others = nlargest(2, self._unheld.values())
        return max([roomiest - self._needs[actor][0], *others]) + 1e-9 >= needed

    def _live(self, stage: int, node: int, sign: int) -> None:
        """An actor takes what it holds for life, or gives it back."""
        if self._yields[stage]:
            for tag, amount in self._needs[stage][2]:
                self._custom[node][tag] = self._custom[node].get(tag, 0.0) - sign * amount
            if sign < 0:
                self._unpark(node)
            return
        self._take(stage, node, sign)
        self._unheld[node] -= sign * self._needs[stage][0]

    def _work(self, actor: Worker, sign: int) -> None:
        """An actor that yields takes its CPUs for its tasks, or gives them back."""
        if self._yields[actor.stage]:
            self._cpus[actor.node] -= sign * self._needs[actor.stage][0]
            if sign < 0:
                self._unpark(actor.node)

    def _take(self, stage: int, node: int, sign: int) -> None:
        cpus, gpus, custom = self._needs[stage]
        self._cpus[node] -= sign * cpus
        if gpus:
            self._gpus[node] -= sign * gpus
        for tag, amount in custom:
            self._custom[node][tag] = self._custom[node].get(tag, 0.0) - sign * amount
        if sign < 0:
            self._unpark(node)

    def _unpark(self, node: int) -> None:
        """A node has more room: its idle workers that had been refused for want of it wait again."""
        for like, parked in self._parked.items():
            if parked and node in parked and self._fits(like, node):
                self._idle_for[like].extend(parked.pop(node))

    def feasible(self, stage: Stage, view: View) -> str | None:
        """Why no node could ever run a task of ``stage``, or None."""
        r = stage.resources
        for node in view.nodes:
            tags = dict(node.custom)
            if node.cpus >= r.cpus and node.gpus >= r.gpus and all(tags.get(t, 0) >= a for t, a in r.custom):
                return None
        custom = "".join(f", {amount:g} {tag}" for tag, amount in r.custom)
        return f"stage {stage.name!r} asks for {r.cpus:g} CPUs, {r.gpus:g} devices{custom} a task; no node has that much"

    def worker_for(self, stage: int, ahead: bool, beside: Sequence[int] = ()) -> Worker | None:
        """A worker that can take a task of ``stage`` now; ``ahead`` allows one queued behind a running task.

        One on the node of the first block of ``beside`` is preferred, where the cluster has several nodes.
        """
        if stage in self.actors:
            return self._actor_for(stage)
        like = self._like[stage]
        if beside and self._idle_on is not None:
            near = self.blocks[beside[0]].node
            there = self._idle_on.get(near)
            if there and self._fits(like, near) and (worker := self._first(there, 0)) is not None:
                return worker
        if self._idle_for[like] and (idle := self._first_idle(like)) is not None:
            return idle
        return self._first_behind(like) if ahead else None

    def worker_on(self, stage: int, node: int) -> Worker | None:
        """An idle pool worker of a node that can take a task of ``stage`` now."""
        if self._idle_on is None:
            return self._first_idle(self._like[stage])
        there = self._idle_on.get(node)
        return self._first(there, 0) if there and self._fits(stage, node) else None

    def elsewhere(self, stage: int, node: int) -> Worker | None:
        """An idle pool worker on another node that can take a task of ``stage`` now."""
        idle = (w for w in self.workers.values() if w.up and w.stage < 0 and not w.tasks and w.node != node)
        return next((w for w in idle if self._fits(stage, w.node)), None)

    def _first(self, queue: deque[int], load: int) -> Worker | None:
        """The first worker that has ``load`` tasks; entries that became stale are dropped on the way."""
        workers = self.workers
        while queue:
            worker = workers.get(queue[0])
            if worker is not None and len(worker.tasks) == load:
                return worker
            queue.popleft()
        return None

    def _first_idle(self, like: int) -> Worker | None:
        """The pool worker that has been idle longest on a node with room for a task."""
        queue, parked = self._idle_for[like], self._parked[like]
        while (worker := self._first(queue, 0)) is not None:
            if self._fits(like, worker.node):
                return worker
            parked.setdefault(worker.node, []).append(queue.popleft())
        return None

    def _first_behind(self, like: int) -> Worker | None:
        """A pool worker behind whose only task, of the same needs, one more can wait."""
        queue = self._behind[like]
        while (worker := self._first(queue, 1)) is not None:
            if self._like[worker.held] == like and self._cpus[worker.node] > -math.inf:
                return worker
            queue.popleft()
        return None

    def _actor_for(self, stage: int) -> Worker | None:
        """The least loaded actor with fewer than two tasks; of equal ones, that which started first."""
        idle = self._awake(stage) if self._yields[stage] else self._first_actor(stage, 0)
        return idle or self._first_actor(stage, 1)

    def _awake(self, stage: int) -> Worker | None:
        """The first idle actor on whose node the CPUs are free that it needs for a task."""
        heap, cpus = self._actors_by_load[stage][0], self._needs[stage][0]
        refused: list[int] = []
        found = None
        while found is None and len(refused) < MOST_REFUSED and (worker := self._first_actor(stage, 0)) is not None:
            if self._cpus[worker.node] + 1e-9 >= cpus:
                found = worker
            else:
                refused.append(heappop(heap))
        for worker_id in refused:
            heappush(heap, worker_id)
        return found

    def has_idle_actor(self, stage: int) -> bool:
        """Whether an actor of a stage has no task."""
        return self._first_actor(stage, 0) is not None

    def _first_actor(self, stage: int, load: int) -> Worker | None:
        heap, workers = self._actors_by_load[stage][load], self.workers
        while heap:
            worker = workers.get(heap[0])
            if worker is not None and len(worker.tasks) == load:
                return worker
            heappop(heap)
        return None
