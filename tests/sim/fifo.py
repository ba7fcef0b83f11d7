"""The simplest execution model: one worker a CPU, tasks of complete stages in order, nothing released early."""

from __future__ import annotations

from windtunnel.model import Action, Block, BlockReady, Event, Finish, Job, Launch, StartWorker, TaskDone, View, WorkerJoined


class Fifo:
    """Stage after stage, first come, first served."""

    tick_s = 0.0

    def __init__(self, workers: int = 0) -> None:
        self.workers = workers
        self.stored: list[int] = []
        self.finished: list[int] = []

    def start(self, job: Job, view: View) -> list[Action]:
        self.job, self.stage, self.next_task, self.idle = job, -1, 0, list[int]()
        self.output: list[list[Block]] = [[] for _ in job.stages]
        places = [n.node for n in view.nodes for _ in range(self.workers or int(n.cpus))]
        self._next_stage()
        return [StartWorker(i, node) for i, node in enumerate(places)]

    def _next_stage(self) -> None:
        self.stage += 1
        self.waiting: list[tuple[int, tuple[int, ...]]] = []
        self.running: dict[int, int] = {}
        if self.stage == len(self.job.stages):
            return
        stage = self.job.stages[self.stage]
        if not stage.inputs:
            self.waiting = [(p, ()) for p in range(stage.partitions or 0)]
        elif stage.inputs[0].mode == "partition":
            blocks = [b for i in stage.inputs for b in self.output[i.stage]]
            self.waiting = [(p, tuple(b.id for b in blocks if b.partition == p)) for p in range(stage.partitions or 0)]
        else:
            self.waiting = [(n, (b.id,)) for n, b in enumerate(self.output[stage.inputs[0].stage])]

    def on_event(self, event: Event, view: View) -> list[Action]:
        self.stored.append(view.stored_bytes)
        if isinstance(event, WorkerJoined):
            self.idle.append(event.worker)
        elif isinstance(event, BlockReady):
            self.output[event.block.stage].append(event.block)
        elif isinstance(event, TaskDone):
            self.finished.append(event.task)
            self.idle.append(self.running.pop(event.task))
            self.output[self.stage] += event.blocks
        if not self.waiting and not self.running:
            self._next_stage()
            if self.stage == len(self.job.stages):
                return [Finish(tuple(b.id for b in self.output[-1]))]
        actions: list[Action] = []
        while self.idle and self.waiting:
            partition, blocks = self.waiting.pop(0)
            worker = self.idle.pop(0)
            actions.append(Launch(self.next_task, self.stage, partition, worker, blocks=blocks))
            self.running[self.next_task] = worker
            self.next_task += 1
        return actions
