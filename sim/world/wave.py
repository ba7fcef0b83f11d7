"""A wave: all tasks of a source stage carried out at once, with the results that the general path would have, to the last bit.

Only what it used over time (`Usage`) is taken together from many tasks, so that it agrees closely and not to the bit.

`Course` is the loop: workers, the driver as a server, memory; it knows durations and sizes, neither blocks nor SimPy. `Waves` is
its place in the world: it decides whether a wave is exact, lets the course run beside the world, and only then writes down what
became of it. Where a node's memory or store could not hold it, nothing has happened and the general path is taken.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import overload

import numpy as np

from windtunnel.model import Action, Block, Event, ExecutionModel, Launch, Note, Wave, WaveDone, WaveRefused, WorkerJoined
from windtunnel.sim.clock import Timer
from windtunnel.sim.world import steady
from windtunnel.sim.world.agenda import Agenda, Entry
from windtunnel.sim.world.losses import Losses
from windtunnel.sim.world.samples import SampledValue
from windtunnel.sim.world.tasks import StageRun, Worker

_DRIVER = -1  # the driver's code among the workers' numbers; a worker that joins is -2 - its number


class Course:
    """The tasks' way through workers and driver. ``free_s``: when the driver is free; by worker or node are all lists."""

    def __init__(
        self,
        *,
        seconds: list[float],
        out: list[int],
        held: int,
        plenty: float,
        node_of: list[int],
        used: list[int],
        peak: list[int],
        peak_s: list[float],
        joins: list[Entry],
        eid: Iterator[int],
        driver: tuple[float, float, float],
        every: int,
        stored: SampledValue,
        stored_bytes: int,
    ) -> None:
        workers = len(node_of)
        self.seconds, self.out, self.held, self.node_of = seconds, out, held, node_of
        self.used, self.peak, self.peak_s = used, peak, peak_s
        # About 32 workers end a task in a page's time.
        page_s = max(32.0 * float(sum(seconds)) / len(seconds) / workers, 1e-6)
        self.agenda = Agenda([(time, serial, -2 - worker) for time, serial, worker in joins], eid, page_s)
        self.late: list[int] = []  # workers that join later, coded
        self.free_s, self.launch_s, self.done_s = driver
        self.arrays = np.array(seconds), np.array(out, dtype=np.int64)
        self.every, self.stored, self.stored_bytes = every, stored, stored_bytes
        self.plenty = plenty
        self.now = 0.0
        self.barrier_s = -1.0  # when a task had ended and none was left to send
        self.queued = False  # the last message had waited for the driver
        self.load, self.task = [0] * workers, [-1] * workers  # as the driver knows; running now
        self.next_task, self.next_ready = [-1] * workers, [0.0] * workers
        self.ready_s, self.started_s = [0.0] * workers, [0.0] * workers
        self.inbox: deque[int] = deque()
        self.idle: list[int] = []
        self.queues: tuple[deque[int], deque[int]] = (deque(), deque())  # workers with no task, and with one; may be stale
        self.done: list[int] = []  # tasks in the order of their ends
        self.by: list[int] = []  # and their workers
        self.ended = self.nodes = np.empty(0, dtype=np.int64)  # the same tasks, and their nodes
        self.marks: list[tuple[int, float]] = []  # how many tasks had ended when the store was sampled
        self.samples: list[tuple[int, int, float, float, float, int]] = []  # task, worker, ready, start, end, memory of the node

    def run(self) -> None:
        """From the first worker to the last task. One long loop on locals: it runs for every task there is."""
        agenda, inbox, (none, one), idle = self.agenda, self.inbox, self.queues, self.idle
        seconds, out, held, node_of = self.seconds, self.out, self.held, self.node_of
        used, peak, peak_s, load = self.used, self.peak, self.peak_s, self.load
        running, following, following_ready = self.task, self.next_task, self.next_ready
        ready_s, started_s, stored = self.ready_s, self.started_s, self.stored
        ended, ended_by, eid, later, per_s = self.done.append, self.by.append, agenda.eid, agenda.later, agenda.per_s
        free, launch_s, done_s, total, plenty = self.free_s, self.launch_s, self.done_s, self.stored_bytes, self.plenty
        count = left = len(seconds)
        plenty_until = count - 1 - plenty  # up to here, more are sent ahead after this one
        sample_at, store_at = self.every, stored.next_s
        sent = number = at = 0
        full, again_at = 2 * len(node_of), 0  # every worker runs a task and has one more
        if len(node_of) < 2 * steady.SHORT:
            again_at = count
        busy = queued = False
        page: list[Entry] = []
        while True:
            if at == len(page):
                if (
                    sent - number == full
                    and number >= again_at
                    and not (busy or one or none)
                    and plenty_until > sent + steady.SHORT
                ):
                    middle = steady.Steady(self, agenda.later, sent=sent, free=free, total=total)
                    middle.run(plenty_until)
                    agenda.fill(middle.give_back())
                    sent, free, total, number = middle.sent, middle.free, middle.total, middle.number
                    sample_at, store_at = number - number % self.every + self.every, stored.next_s
                    left, again_at = count - number, number + 8 * full
                page = agenda.turn()
                at = 0
            now, _, who = page[at]
            at += 1

            # -- a worker ends a task and begins the one that waits for it; or the driver turns to its next message
            if who >= 0:
                node = node_of[who]
                memory = used[node] - held
                task = running[who]
                total += out[task]
                ended(task)
                ended_by(who)
                number += 1
                if number == sample_at:
                    sample_at += self.every
                    self.samples.append((task, who, ready_s[who], started_s[who], now, memory))
                if now >= store_at:
                    stored.note(now, total)
                    self.marks.append((number, now))
                    store_at = stored.next_s
                task = running[who] = following[who]
                if task >= 0:
                    following[who] = -1
                    used[node] = memory = memory + held + out[task]
                    if memory > peak[node]:
                        peak[node], peak_s[node] = memory, now
                    ready_s[who] = ready = following_ready[who]
                    started_s[who] = start = ready if ready > now else now
                    delay = start - now + seconds[task]
                    end = now + delay if delay > 0.0 else now
                    if (due := int(end * per_s)) in later:
                        later[due].append((end, next(eid), who))
                    else:
                        agenda.add(end, who, at)
                else:
                    used[node] = memory
            elif who == _DRIVER:
                if free > now:
                    agenda.add(now + (free - now), _DRIVER, at)
                    continue
                queued = True
                who = inbox.popleft()

            # -- the driver hears of it, now or when it is free
            if not queued and (free > now or inbox):
                inbox.append(who)
                if not busy:
                    busy = True
                    agenda.add(now + (free - now), _DRIVER, at)
                continue
            if who < 0:
                who = -2 - who
                free = now
                none.append(who)
                idle.append(who)
            else:
                free = now + done_s
                left -= 1
                if not left:
                    break
                if sent < plenty_until and load[who] == 2 and running[who] >= 0 and not one and not none:
                    # It gets the next one: most tasks go this way.
                    following[who], sent = sent, sent + 1
                    following_ready[who] = free = free + launch_s
                    if not queued:
                        continue
                else:
                    load[who] -= 1
                    if load[who]:
                        one.append(who)
                    else:
                        none.append(who)
                        idle.append(who)
                    if sent == count and self.barrier_s < 0:
                        self.barrier_s = now

            # -- and sends what it can
            while sent < count and (none or one):
                while none and load[none[0]]:
                    none.popleft()
                if none:
                    who = none[0]
                    one.append(who)
                elif count - sent > plenty:
                    while one and load[one[0]] != 1:
                        one.popleft()
                    if not one:
                        break
                    who = one[0]
                else:
                    break
                load[who] += 1
                free = ready = (free if free > now else now) + launch_s
                if running[who] >= 0:
                    following[who], following_ready[who] = sent, ready
                else:
                    running[who] = sent
                    node = node_of[who]
                    used[node] = memory = used[node] + held + out[sent]
                    if memory > peak[node]:
                        peak[node], peak_s[node] = memory, now
                    ready_s[who] = ready
                    started_s[who] = ready if ready > now else now
                    delay = started_s[who] - now + seconds[sent]
                    agenda.add(now + delay if delay > 0.0 else now, who, at)
                sent += 1
            if queued:
                queued = False
                if inbox:
                    delay = free - now
                    agenda.add(now + delay if delay > 0.0 else now, _DRIVER, at)
                else:
                    busy = False
        none.append(who)
        idle.append(who)
        self.ended, self.nodes = np.array(self.done), np.array(node_of)[self.by]
        self.now, self.free_s, self.stored_bytes, self.queued = now, free, total, queued
        if self.marks[-1][0] < number:  # the others ended before the next mark was due; the driver may have heard of it later
            self.marks.append((number, min(now, stored.next_s)))
        self.late = [entry[2] for entry in (*page[at:], *(e for p in later.values() for e in p))]


class WaveBlocks(Sequence[Block]):
    """The result of a job's last stage: blocks in order, made when somebody looks. ``rows`` tells those of all of them."""

    def __init__(
        self, result: Sequence[int], world_blocks: list[Block | None], make: Callable[[], list[Block]], rows: Callable[[], int]
    ) -> None:
        self._result, self._world, self._make, self.rows = result, world_blocks, make, rows
        self._made: list[Block] = []

    def __len__(self) -> int:
        return len(self._result)

    @overload
    def __getitem__(self, index: int) -> Block: ...
    @overload
    def __getitem__(self, index: slice) -> list[Block]: ...
    def __getitem__(self, index: int | slice) -> Block | list[Block]:
        return self._blocks()[index]

    def __iter__(self) -> Iterator[Block]:
        return iter(self._blocks())

    def _blocks(self) -> list[Block]:
        if len(self._made) != len(self._result):
            made = self._make()
            first = len(self._world)
            self._world += made
            self._made = [made[i - first] for i in self._result]
        return self._made


def total_rows(blocks: Sequence[Block]) -> int:
    """Rows of a result, without making its blocks."""
    return blocks.rows() if isinstance(blocks, WaveBlocks) else sum(b.rows for b in blocks)


class Waves(Losses):
    """The part of the world that carries out waves. ``waves``: whether models may ask for them."""

    waves: bool
    waved = False  # whether one was carried out
    _model: ExecutionModel
    _inbox: deque[tuple[float, Event]]
    _driver: Timer
    _driver_busy: bool
    _driver_free_s: float
    _driver_idle_s: float
    _result_blocks: Sequence[Block] | None = None

    @property
    def now(self) -> float:
        """Virtual seconds since the start of the run."""
        return float(self.clock.now)

    def _obey(self, actions: Sequence[Action]) -> None:
        raise NotImplementedError

    def _joined(self, worker: Worker) -> None:
        raise NotImplementedError

    def _wave(self, wave: Wave) -> None:
        stage = self._stages[wave.stage]
        course = self._course(stage, wave) if self._exact(stage) else None
        if course is not None and sum(course.out) <= self.store_limit_bytes - self.stored_bytes:
            course.run()
            stored = self._stored(course)
        if not (course is not None and course.done and self._fits(course, stored)):
            self._obey(self._model.on_event(WaveRefused(wave.stage), self))
            return
        self.waved = True
        self._account(stage, course)
        self._write_down(stage, course, wave, stored)
        self._resume(course)
        self._tell(stage, course, wave)

    # -- whether it is exact -----------------------------------------------------------------------------------------

    def _exact(self, stage: StageRun) -> bool:
        """Every task takes the short path whatever happens, on workers that are on their way, and the driver waits."""
        if not stage.law.source or self._cost.cold != 1.0 or self._location.kind != "generated" or self._inbox or self._blocks:
            return False
        if self._model.tick_s > 0:
            return False
        joins = [timer.fire == self._joined for _, timer in self.clock.pending()]
        if len(joins) != len(self._workers) or not all(joins):
            return False
        if any(n != number or w.stage >= 0 or w.up for number, (n, w) in enumerate(self._workers.items())):
            return False
        if not all(n.flat_law and n.weight <= n.cpus and n.slow == 1.0 for n in self._machines):
            return False
        if not stage.quick:
            stage.prepare_quick(self._machines[0].spec)
        return None not in stage.kinds

    def _course(self, stage: StageRun, wave: Wave) -> Course:
        memories = [n.memory for n in self._machines]
        joins = [(time, serial, worker.arg) for serial, (time, worker) in enumerate(self.clock.pending())]
        kinds = {q.bytes for q in stage.kinds if q}
        return Course(
            seconds=stage.seconds, held=stage.memory_bytes, plenty=wave.plenty,
            node_of=[w.node.index for w in self._workers.values()],
            used=[m.used for m in memories], peak=[m.peak for m in memories], peak_s=[m.peak_s for m in memories],
            joins=joins, eid=count(len(joins)),
            driver=(self._driver_free_s, self._cost.launch_s, self._cost.done_s),
            every=self.journal.every, stored=self.journal.stored.copy(), stored_bytes=self.stored_bytes,
            out=[q.bytes for q in stage.quick if q] if len(kinds) > 1 else [*kinds] * len(stage.quick),
        )  # fmt: skip

    def _fits(self, course: Course, stored: list[int]) -> bool:
        """Whether no node ran out of memory, and no store overflowed (nothing leaves it meanwhile)."""
        if any(peak > n.memory.limit for peak, n in zip(course.peak, self._machines, strict=True)):
            return False
        return all(n.store.used + size <= n.store.limit for size, n in zip(stored, self._machines, strict=True))

    def _stored(self, course: Course) -> list[int]:
        """Bytes that the wave stores on each node."""
        sizes = np.zeros(len(self._machines), dtype=np.int64)
        np.add.at(sizes, course.nodes, course.arrays[1][course.ended])
        return sizes.tolist()

    def _account(self, stage: StageRun, course: Course) -> None:
        """What the wave used, and how long the driver was idle in it."""
        cost, usage = self._cost, self.usage
        usage.look(course.now, 0.0)  # what its workers and the driver held already they hold to its end
        usage.wave(stage, course, cost.launch_s, cost.done_s)
        self._driver_idle_s += course.free_s - self._driver_free_s - len(course.done) * (cost.launch_s + cost.done_s)
        usage.looked(course.now, course.free_s - cost.startup_s - self._driver_idle_s)

    # -- what became of it -------------------------------------------------------------------------------------------

    def _write_down(self, stage: StageRun, course: Course, wave: Wave, stored: list[int]) -> None:
        """Memory, store and journal as the tasks left them."""
        for i, (node, size) in enumerate(zip(self._machines, stored, strict=True)):
            memory, store = node.memory, node.store
            memory.used, memory.peak, memory.peak_s = course.used[i], course.peak[i], course.peak_s[i]
            store.used += size
            store.peak = max(store.peak, store.used)
        self.stored_bytes = course.stored_bytes
        journal = self.journal
        journal.tasks += len(course.done)
        journal.stored = course.stored
        for task, worker, ready, started, ended, memory_bytes in course.samples:
            quick = stage.quick[task]
            assert quick is not None
            launch = Launch(wave.first_task + task, wave.stage, task, worker)
            journal.sampled(stage, quick, launch, ready, started, ended, memory_bytes)
        if course.barrier_s >= 0:
            journal.note(Note("barrier", wave.stage, True), course.barrier_s)

    def _resume(self, course: Course) -> None:
        """The world's clock, its queue and the driver's go on where the wave ended."""
        late = {-2 - who for who in course.late}
        left: list[tuple[float, Worker]] = []
        for time, worker in self.clock.pending():
            if worker.arg in late:
                left.append((time, worker))
            else:
                self._is_up(worker)
        self.clock.jump(course.now, left)
        self._inbox.extend((0.0, WorkerJoined(-2 - who)) for who in course.inbox)
        self._driver_free_s = course.free_s
        self._driver_busy = course.queued

    def _tell(self, stage: StageRun, course: Course, wave: Wave) -> None:
        """The driver handles the last task's end, as `_send` or `_handle` would."""
        made = _Made(stage, course, wave, len(self._blocks))
        if wave.stage == len(self._stages) - 1:
            event = WaveDone(None, made.result, [], ([], []))
            self._result_blocks = WaveBlocks(made.result, self._blocks, made.blocks, made.rows)
        else:
            blocks = made.blocks()
            self._blocks += blocks
            none, one = course.queues
            event = WaveDone(blocks, made.result, course.idle, (list(none), list(one)))
        self._obey(self._model.on_event(event, self))
        if course.queued:
            if self._inbox:
                self._driver.arm(self._driver_free_s - course.now)
            else:
                self._driver_busy = False


class _Made:
    """What a wave's tasks emitted: numbered in the order of their ends."""

    def __init__(self, stage: StageRun, course: Course, wave: Wave, first: int) -> None:
        self._quicks = [q for q in stage.quick if q is not None]
        self._stage, self._first_task, self._first = wave.stage, wave.first_task, first
        self._single = all(q is not None and len(q.blocks) == 1 for q in stage.kinds)
        self._course = course
        self.result = self._in_order()

    def rows(self) -> int:
        """Of all blocks."""
        kinds = {id(q): sum(rows for _, rows, _ in q.blocks) for q in self._quicks}
        return sum(kinds[kind] * count for kind, count in Counter(map(id, self._quicks)).items())

    def _in_order(self) -> tuple[int, ...]:
        """Ids of the blocks by task."""
        ended = self._course.ended
        begins = np.empty(len(ended), dtype=np.int64)
        if self._single:
            begins[ended] = np.arange(self._first, self._first + len(ended))
            return tuple(begins.tolist())
        counts = np.array([len(q.blocks) for q in self._quicks])
        begins[ended] = self._first + np.cumsum(counts[ended]) - counts[ended]
        return tuple(
            i for begin, count in zip(begins.tolist(), counts.tolist(), strict=True) for i in range(begin, begin + count)
        )

    def blocks(self) -> list[Block]:
        """All of them, by id."""
        made: list[Block] = []
        number, first, stage, quicks = self._first, self._first_task, self._stage, self._quicks
        for task, node in zip(self._course.done, self._course.nodes.tolist(), strict=True):
            for partition, rows, size in quicks[task].blocks:
                made.append(Block(number, stage, partition, first + task, rows, size, node))
                number += 1
        return made
