"""The pure models on random jobs in a random world, and their characteristic decisions by hand."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engines.random_world import RandomWorld
from windtunnel.engines.models.bulk import Bulk
from windtunnel.engines.models.streaming import Streaming
from windtunnel.model import (
    Block,
    BlockReady,
    ExecutionModel,
    Finish,
    Job,
    Launch,
    NodeView,
    Note,
    Stage,
    StageInput,
    StartWorker,
    StopWorker,
    TaskDone,
    WorkerJoined,
)
from windtunnel.spec.plan import Concurrency, Resources, State

#: on a CPU, on a device, on both
ACTORS = (Resources(cpus=1, gpus=0.5), Resources(cpus=1), Resources(cpus=0, gpus=0.5))
MODELS: tuple[Callable[[], ExecutionModel], ...] = (Bulk, Streaming)


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    """Up to six stages: sources, forwards, exchanges, joins, broadcasts and actors; every output is read."""
    stages: list[Stage] = [_stage(0, (), draw(st.integers(1, 5)))]
    for index in range(1, draw(st.integers(1, 6))):
        actor = draw(st.booleans()) and draw(st.booleans())
        kinds = ["forward", "partition"] if actor else ["forward", "partition", "broadcast", "broadcast_forward", "join"]
        kind = draw(st.sampled_from(kinds))
        unread = [s.index for s in stages if not _read(stages, s.index)]
        if len(unread) > 1:
            kind = "join"  # keep one open end
        source = unread[-1]
        if kind in ("forward", "broadcast_forward"):
            inputs = [StageInput(stage=source, mode="forward")]
            earlier = [s.index for s in stages if s.index != source and not s.output_partitions]
            if kind == "broadcast_forward" and earlier:
                inputs.append(StageInput(stage=draw(st.sampled_from(earlier)), mode="broadcast"))
            stages.append(_stage(index, inputs, None, actor=actor))
        elif kind == "broadcast":
            stages.append(_stage(index, [StageInput(stage=source, mode="broadcast")], draw(st.integers(1, 4))))
        elif kind == "join" and len(unread) == 1 and index < 5:
            stages.append(_stage(index, (), draw(st.integers(1, 4))))  # the other side, joined by the next stage
        else:
            count = draw(st.integers(1, 3))
            for side in unread:
                stages[side] = _stage(
                    side, stages[side].inputs, stages[side].partitions, count, stages[side].state.kind == "actor"
                )
            inputs = [StageInput(stage=s, mode="partition") for s in unread]
            stages.append(_stage(index, inputs, count, actor=actor))
    unread = [s.index for s in stages if not _read(stages, s.index)]
    if len(unread) > 1:
        count = 2
        for side in unread:
            stages[side] = _stage(side, stages[side].inputs, stages[side].partitions, count, stages[side].state.kind == "actor")
        stages.append(_stage(len(stages), [StageInput(stage=s, mode="partition") for s in unread], count))
    return Job(stages=tuple(stages))


def _read(stages: list[Stage], index: int) -> bool:
    return any(i.stage == index for s in stages for i in s.inputs)


def _stage(
    index: int, inputs: list[StageInput] | tuple[StageInput, ...], partitions: int | None, out: int = 0, actor: bool = False
) -> Stage:
    return Stage(
        index=index, name=f"s{index}", operators=(f"s{index}",), inputs=tuple(inputs), partitions=partitions, output_partitions=out,
        resources=ACTORS[index % 3] if actor else Resources(),
        state=State(kind="actor") if actor else State(),
        concurrency=Concurrency(minimum=1, maximum=2) if actor else None,
    )  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(job=jobs(), seed=st.integers(0, 2**20), model=st.sampled_from(MODELS), trouble=st.booleans())
def test_random_jobs_end_with_all_their_work_done_once(
    job: Job, seed: int, model: Callable[[], ExecutionModel], trouble: bool
) -> None:
    world = RandomWorld(job, seed, gpus=3, deaths=2 if trouble else 0, failures=1 if trouble else 0)
    world.run(model())
    assert world.failure is None
    assert world.result is not None
    last = len(job.stages) - 1
    assert set(world.result) == {b.id for b in world.blocks.values() if b.stage == last}
    assert world.alive == set(world.result)
    assert all(count == 1 for count in Counter(launch.task for launch in world.done).values())
    for stage in job.stages:
        partitions = Counter(launch.partition for launch in world.done if launch.stage == stage.index)
        if stage.partitions is not None and all(i.mode == "broadcast" for i in stage.inputs):
            assert partitions == dict.fromkeys(range(stage.partitions), 1)


@settings(max_examples=60, deadline=None)
@given(job=jobs(), seed=st.integers(0, 2**20))
def test_both_models_read_every_block_as_often_as_it_has_readers(job: Job, seed: int) -> None:
    for model in MODELS:
        world = RandomWorld(job, seed, gpus=3)
        world.run(model())
        read = Counter(b for launch in world.done for b in launch.blocks)
        for block in world.blocks.values():
            readers = [i.mode for s in job.stages for i in s.inputs if i.stage == block.stage]
            assert read[block.id] <= sum(mode != "broadcast" for mode in readers)
            assert read[block.id] == readers.count("forward") or "partition" in readers


# -- by hand ----------------------------------------------------------------------------------------------------------


class View:
    """Two CPUs, one device, a store of a megabyte."""

    volatile = waves = False
    now = 0.0

    nodes = (NodeView(0, 2, 1, 2**30),)
    stored_bytes = 0
    store_limit_bytes = 2**20


TWO_STAGES = Job(stages=(_stage(0, (), 3), _stage(1, [StageInput(stage=0, mode="forward")], None)))


def _launches(actions: list[object]) -> list[Launch]:
    return [a for a in actions if isinstance(a, Launch)]


def _block(number: int, stage: int, task: int) -> Block:
    return Block(number, stage, 0, task, 1, 100)


def _begun(model: ExecutionModel) -> list[Launch]:
    """Both workers up, the first two source tasks launched."""
    started = model.start(TWO_STAGES, View())
    assert [a.worker for a in started if isinstance(a, StartWorker)] == [0, 1]
    first = _launches(model.on_event(WorkerJoined(0), View()))
    return first + _launches(model.on_event(WorkerJoined(1), View()))


def test_bulk_waits_for_the_last_task_of_a_stage() -> None:
    model = Bulk(prefetch=False)
    assert [(t.stage, t.partition) for t in _begun(model)] == [(0, 0), (0, 1)]
    third = model.on_event(TaskDone(0, [_block(0, 0, 0)]), View())
    assert [(t.stage, t.partition) for t in _launches(third)] == [(0, 2)]
    idle = model.on_event(TaskDone(1, [_block(1, 0, 1)]), View())
    assert idle == [Note("barrier", 0, True)]
    released = model.on_event(TaskDone(2, [_block(2, 0, 2)]), View())
    assert Note("barrier", 0, False) in released
    assert [(t.stage, t.blocks) for t in _launches(released)] == [(1, (0,)), (1, (1,))]


def test_streaming_passes_a_block_on_while_its_task_runs() -> None:
    model = Streaming()
    _begun(model)
    model.on_event(BlockReady(_block(0, 0, 0)), View())
    after = _launches(model.on_event(TaskDone(1, [_block(1, 0, 1)]), View()))
    assert [(t.stage, t.blocks) for t in after] == [(1, (0,))], "downstream goes first"


def test_streaming_holds_a_source_back_when_its_queue_is_full() -> None:
    model = Streaming(queued_blocks=2)
    model.start(TWO_STAGES, View())
    model.on_event(WorkerJoined(0), View())
    held = model.on_event(WorkerJoined(1), View())
    assert Note("blocked", 0, True) in held, "two running tasks count as the two blocks that may be queued"
    model.on_event(TaskDone(0, [_block(0, 0, 0)]), View())
    freed = model.on_event(TaskDone(1, [_block(1, 0, 1)]), View())
    assert {t.stage for t in _launches(freed)} == {1}, "the queue is full: only the consumer runs"


def test_a_source_goes_on_when_its_queue_holds_less_than_a_tasks_output_and_one_block_a_cpu() -> None:
    """Tasks of five blocks on two CPUs: the bound is twelve, however many tasks those are the output of."""
    actor = _stage(1, [StageInput(stage=0, mode="forward")], None, actor=True)
    model = Streaming()
    model.start(Job(stages=(_stage(0, (), 20), actor)), View())
    first = _launches(model.on_event(WorkerJoined(0), View()) + model.on_event(WorkerJoined(1), View()))
    sources = [launch.task for launch in (*first, *_launches(model.on_event(WorkerJoined(2), View()))) if launch.stage == 0]
    assert len(sources) == 2, "nobody waits behind them while nobody knows what they emit"
    work, queued = deque[Launch](), 0
    for number, task in enumerate(sources):
        blocks = [_block(5 * number + i, 0, task) for i in range(5)]
        work += _launches(model.on_event(TaskDone(task, blocks), View()))
        queued += 5
    while all(launch.stage == 1 for launch in work):
        work += _launches(model.on_event(TaskDone(work.popleft().task, []), View()))
        queued -= 1
    assert queued == 7, "five more make twelve"


def test_queued_output_never_passes_its_bound() -> None:
    job = Job(stages=(_stage(0, (), 40), _stage(1, [StageInput(stage=0, mode="forward")], None)))
    for seed in range(20):
        world = RandomWorld(job, seed, cpus=4)
        queued = 0
        model = Streaming(queued_blocks=5)
        on_event = model.on_event

        def watched(event: object, view: object, on_event: Callable = on_event, world: RandomWorld = world) -> list:
            nonlocal queued
            actions: list = on_event(event, view)
            emitted = sum(b.stage == 0 for b in world.blocks.values())
            finished = sum(launch.stage == 1 for launch in world.done)
            queued = max(queued, emitted - finished)
            return actions

        model.on_event = watched  # type: ignore[method-assign]
        world.run(model)
        assert queued <= 5 + 2 * 4, "a running task may emit two blocks more than the one it was counted for"


def test_an_actor_pool_grows_while_blocks_wait_and_shrinks_at_the_end() -> None:
    actor = Stage(
        index=1, name="infer", operators=("infer",), inputs=(StageInput(stage=0, mode="forward"),), partitions=None,
        resources=Resources(cpus=0, gpus=0.5), state=State(kind="actor"), concurrency=Concurrency(minimum=1, maximum=2),
    )  # fmt: skip
    model = Streaming()
    started = model.start(Job(stages=(_stage(0, (), 8), actor)), View())
    actors = [a.worker for a in started if isinstance(a, StartWorker) and a.stage == 1]
    assert len(actors) == 1
    for worker in (*actors, *(a.worker for a in started if isinstance(a, StartWorker) and a.stage < 0)):
        model.on_event(WorkerJoined(worker), View())
    grown: list[object] = []
    for number in range(4):
        grown += model.on_event(BlockReady(_block(number, 0, 0)), View())
    assert [a.stage for a in grown if isinstance(a, StartWorker)] == [1], "one more while two blocks wait"


def _cpu_actor(index: int, gpus: float = 0.0) -> Stage:
    return Stage(
        index=index, name="infer", operators=("infer",), inputs=(StageInput(stage=0, mode="forward"),), partitions=None,
        resources=Resources(cpus=1, gpus=gpus), state=State(kind="actor"),
    )  # fmt: skip


def test_actors_on_cpus_take_turns_with_their_source() -> None:
    """Two actors and a source on two CPUs: whoever has input runs, and nobody waits for ever."""
    for seed in range(20):
        world = RandomWorld(Job(stages=(_stage(0, (), 30), _cpu_actor(1))), seed, cpus=2)
        world.run(Streaming(queued_blocks=4))
        assert world.result is not None
        assert len({launch.worker for launch in world.launched if launch.stage == 1}) == 2, "both CPUs classify at times"


def test_actors_that_hold_cpus_for_life_leave_room_for_their_source() -> None:
    """A device's actor keeps its CPU, so that the device never waits for one: the second would starve the source."""
    for seed in range(20):
        world = RandomWorld(Job(stages=(_stage(0, (), 30), _cpu_actor(1, gpus=1))), seed, cpus=2, gpus=2)
        world.run(Streaming(queued_blocks=4))
        assert world.result is not None
        last = max(n for n, launch in enumerate(world.launched) if launch.stage == 0)
        assert len({launch.worker for launch in world.launched[:last] if launch.stage == 1}) <= 1


def test_actors_of_the_least_pools_give_way_when_they_starve_their_source() -> None:
    greedy = replace(_cpu_actor(1, gpus=1), concurrency=Concurrency(minimum=2))
    world = RandomWorld(Job(stages=(_stage(0, (), 6), greedy)), 3, cpus=2, gpus=2)
    world.run(Streaming())
    assert world.result is not None


def test_a_full_queue_waits_for_an_actor_that_is_still_loading() -> None:
    actor = _stage(1, [StageInput(stage=0, mode="forward")], None, actor=True)
    model = Streaming(queued_blocks=4)
    model.start(Job(stages=(_stage(0, (), 50), actor)), View())
    launches = _launches(model.on_event(WorkerJoined(1), View())) + _launches(model.on_event(WorkerJoined(2), View()))
    done = 0
    while launches:
        launch = launches.pop(0)
        launches += _launches(model.on_event(TaskDone(launch.task, [_block(done, 0, launch.task)]), View()))
        done += 1
    assert done == 4, "the source stops at four queued blocks although nothing runs"
    assert _launches(model.on_event(WorkerJoined(0), View()))[0].stage == 1


@pytest.mark.parametrize("model", MODELS)
def test_a_stage_that_no_node_can_run_fails_at_once(model: Callable[[], ExecutionModel]) -> None:
    greedy = Job(
        stages=(Stage(index=0, name="greedy", operators=("greedy",), inputs=(), partitions=1, resources=Resources(cpus=64)),)
    )
    (fail,) = model().start(greedy, View())
    assert "asks for 64 CPUs" in fail.reason  # type: ignore[union-attr]


def test_actors_stop_when_their_pool_gets_no_more_work() -> None:
    for seed in range(10):
        actor = _stage(1, [StageInput(stage=0, mode="forward")], None, actor=True)
        world = RandomWorld(Job(stages=(_stage(0, (), 6), actor)), seed, gpus=2)
        stops: list[StopWorker] = []
        model = Streaming()
        obey = world._obey
        world._obey = lambda actions, obey=obey: (stops.extend(a for a in actions if isinstance(a, StopWorker)), obey(actions))[1]  # type: ignore[method-assign]
        world.run(model)
        assert stops
        assert isinstance(world.result, tuple)


def test_finish_lists_the_result_in_order() -> None:
    job = Job(stages=(_stage(0, (), 4),))
    for seed in range(10):
        for model in MODELS:
            world = RandomWorld(job, seed)
            world.run(model())
            assert world.result is not None
            tasks = [world.blocks[b].task for b in world.result]
            partitions = [next(launch.partition for launch in world.done if launch.task == t) for t in tasks]
            assert partitions == sorted(partitions)
    assert Finish


def test_fixed_parallelism_leaves_a_stage_its_share_and_no_more() -> None:
    """Three workers for two stages: one task of the source at a time, though two workers are idle."""
    model = Streaming(fixed=True)
    model.start(TWO_STAGES, View())
    launches = _launches(model.on_event(WorkerJoined(0), View()) + model.on_event(WorkerJoined(1), View()))
    assert [t.stage for t in launches] == [0]
    after = _launches(model.on_event(TaskDone(launches[0].task, [_block(0, 0, 0)]), View()))
    assert sorted(t.stage for t in after) == [0, 1]
