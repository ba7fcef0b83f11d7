"""Simulations side by side: on this machine's cores, or on a Dask or Ray cluster. What comes back does not depend on where."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from typing import TypeVar

from windtunnel.errors import InputError, MissingEngine, RunFailed

PATIENCE_S = 2.0  # work that is done sooner than this is not worth the start of processes
A = TypeVar("A")
B = TypeVar("B")


def each(
    do: Callable[[A], B], items: Sequence[A], *, jobs: int = 1, address: str | None = None
) -> Generator[tuple[A, B], None, None]:
    """Every item with its result, as they end. ``do`` is a function of a module; ``address``: of a Dask scheduler or Ray cluster.

    With ``jobs`` above 1 processes are started after the first seconds; leaving the iterator early stops them. Raises RunFailed
    when one dies.
    """
    todo, begin = deque(items), time.monotonic()
    while todo and address is None and (jobs == 1 or len(todo) == 1 or time.monotonic() - begin < PATIENCE_S):
        item = todo.popleft()
        yield item, do(item)
    if not todo:
        return
    with _cluster(address) if address is not None else processes(min(jobs, len(todo))) as pool:
        futures = {pool.submit(do, item): item for item in todo}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            raise RunFailed(
                "a process that simulated has died: was it killed, or out of memory? what is finished is kept"
            ) from error
        finally:
            for future in futures:
                future.cancel()


@contextlib.contextmanager
def processes(count: int) -> Iterator[Executor]:
    """``count`` processes of this program; none of them outlives the block, whatever it was doing."""
    pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_quiet)
    try:
        yield pool
    finally:
        children = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for child in children:
            child.kill()
        for child in children:
            child.join()


def _quiet() -> None:
    """Ctrl-C reaches the whole process group: children end without a word, the parent says what there is to say.

    They end with a parent that was killed, too, whose queue they hold open themselves and would read for ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if (parent := parent_process()) is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), name="parent", daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def _cluster(address: str) -> contextlib.AbstractContextManager[Executor]:
    return _ray(address) if address.startswith("ray:") else _dask(address)


class _RayExecutor(Executor):
    """Ray tasks of one CPU as futures."""

    def submit(self, do: Callable[..., B], /, *args: object, **kwargs: object) -> Future[B]:
        import ray

        found: Future[B] = ray.remote(num_cpus=1)(do).remote(*args, **kwargs).future()
        return found


@contextlib.contextmanager
def _ray(address: str) -> Iterator[Executor]:
    """``ray://host:port`` goes through Ray's client (ray[client]), ``ray:host:port`` joins the cluster itself."""
    try:
        import ray
    except ImportError as error:
        raise MissingEngine("a Ray cluster needs the ray extra; run: pip install 'windtunnel[ray]'") from error
    try:
        ray.init(address if address.startswith("ray://") else address.removeprefix("ray:"), log_to_driver=False)
    except Exception as error:  # Ray raises bare exceptions when a node does not start
        raise InputError(f"no Ray cluster answers at {address}: {(str(error).splitlines() or ['no message'])[0]}") from error
    try:
        yield _RayExecutor()
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _dask(address: str) -> Iterator[Executor]:
    try:
        from distributed import Client
    except ImportError as error:
        raise MissingEngine("a Dask cluster needs the dask extra; run: pip install 'windtunnel[dask]'") from error
    try:
        client = Client(address, timeout=10)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"no Dask scheduler answers at {address}: {error}") from error
    with client:
        yield client.get_executor(pure=False)
