"""Memory and CPU of a whole process tree while it runs, sampled from outside by a thread of the experiment's process.

Memory is PSS: Σ(Pss − Pss_Shmem) over the tree, plus the larger of ΣPss_Shmem and what lies in the tree's shared-memory
session folders, so that a shared page counts once and a block counts even when nobody maps it. CPU of the tree and of the rest
of the machine ("foreign") come in cores. The tree is every descendant of the root, and every process that carries the run's
marker in its environment (daemons detach, the marker stays). The module knows no engine and no record.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

MARKER = "WINDTUNNEL_RUN"
SHM = Path("/dev/shm")
SESSION_PREFIX = "windtunnel-"
_PROC = Path("/proc")
_HAS_PROC = (_PROC / "self" / "smaps_rollup").exists()
_TICKS = os.sysconf("SC_CLK_TCK")
_WATCH_S = 0.25  # longest pause of a sampler that watches a limit


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at the tree. ``time_s`` is `time.monotonic`, shared by all processes of a machine."""

    time_s: float
    memory_bytes: int
    cpu_cores: float
    foreign_cpu_cores: float


# -- processes ----------------------------------------------------------------------------------------------------------


def tree(root: int | None, extra: Iterable[int] = ()) -> tuple[int, ...]:
    """The root, the extra processes and all their descendants that are alive now."""
    children: dict[int, list[int]] = {}
    alive = set()
    for pid, parent in _parents():
        alive.add(pid)
        children.setdefault(parent, []).append(pid)
    found: dict[int, None] = {}
    queue = [*extra] if root is None else [root, *extra]
    while queue:
        pid = queue.pop()
        if pid in alive and pid not in found:
            found[pid] = None
            queue.extend(children.get(pid, ()))
    return tuple(sorted(found))


def marked(marker: str) -> tuple[int, ...]:
    """Processes of ours that carry ``WINDTUNNEL_RUN=marker`` in their environment."""
    needle = f"{MARKER}={marker}".encode()
    found = []
    for pid in _pids():
        with contextlib.suppress(OSError, psutil.Error):
            if needle in _environment(pid):
                found.append(pid)
    return tuple(p for p in found if p != os.getpid())


def kill_tree(root: int | None, marker: str, *, grace_s: float = 0.0) -> None:
    """End a tree that we started: SIGTERM to the root, after the grace SIGKILL to all that is left, marked ones included.

    ``root`` is None when it has been waited for: its number may belong to somebody else by now.
    """
    if grace_s > 0 and root is not None:
        _signal(root, signal.SIGTERM)
        _wait_gone(root, grace_s)
    for _ in range(20):  # a process may fork while it is being killed
        left = [p for p in tree(root, marked(marker)) if not _is_zombie(p)]
        if not left:
            break
        for pid in left:
            _signal(pid, signal.SIGKILL)
        time.sleep(0.02)


def remove_sessions(owners: Iterable[int]) -> None:
    """Remove shared-memory session folders of owners that are dead, or this process, which is about to be."""
    import shutil

    for owner in owners:
        if owner == os.getpid() or not psutil.pid_exists(owner):
            for folder in SHM.glob(f"{SESSION_PREFIX}{owner}-*"):
                shutil.rmtree(folder, ignore_errors=True)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _wait_gone(pid: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and psutil.pid_exists(pid) and not _is_zombie(pid):
        time.sleep(0.02)


def _is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True


def _pids() -> list[int]:
    return [int(name) for name in os.listdir(_PROC) if name.isdigit()] if _HAS_PROC else psutil.pids()


def _parents() -> Iterator[tuple[int, int]]:
    for pid in _pids():
        with contextlib.suppress(OSError, ValueError, psutil.Error):
            yield pid, int(_stat(pid)[1]) if _HAS_PROC else psutil.Process(pid).ppid()


def _stat(pid: int) -> list[bytes]:
    """Fields of /proc/<pid>/stat from the state on (the name before may hold anything)."""
    return (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()


def _environment(pid: int) -> list[bytes]:
    if _HAS_PROC:
        return (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    return [f"{k}={v}".encode() for k, v in psutil.Process(pid).environ().items()]


# -- memory and CPU -----------------------------------------------------------------------------------------------------


def memory_bytes(pids: Iterable[int]) -> int:
    """Memory of these processes together; RSS (shared pages counted in each) where the system tells no PSS."""
    pids = tuple(pids)
    if not _HAS_PROC:
        return sum(_rss(p) for p in pids)
    private = shared = 0
    for pid in pids:
        pss, pss_shared = _pss(pid)
        private += pss - pss_shared
        shared += pss_shared
    return private + max(shared, session_bytes(pids))


def session_bytes(owners: Iterable[int]) -> int:
    """Bytes resident in the shared-memory session folders of these processes."""
    total = 0
    for owner in owners:
        for folder in SHM.glob(f"{SESSION_PREFIX}{owner}-*"):
            for path, _, names in os.walk(folder):
                for name in names:
                    with contextlib.suppress(OSError):
                        total += os.stat(os.path.join(path, name)).st_blocks * 512
    return total


def _pss(pid: int) -> tuple[int, int]:
    """(Pss, Pss_Shmem) in bytes; a process that is gone counts as nothing."""
    try:
        text = (_PROC / str(pid) / "smaps_rollup").read_bytes()
    except OSError:
        return 0, 0
    values = {line.split()[0]: line.split()[1] for line in text.splitlines()[1:] if len(line.split()) >= 2}
    return int(values.get(b"Pss:", 0)) * 1024, int(values.get(b"Pss_Shmem:", 0)) * 1024


def _rss(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def cpu_seconds(pids: Iterable[int]) -> dict[int, tuple[float, float]]:
    """Of each of these processes its CPU time, and that of its children that were waited for; one that is gone is left out."""
    found: dict[int, tuple[float, float]] = {}
    for pid in pids:
        with contextlib.suppress(OSError, ValueError, psutil.Error):
            if _HAS_PROC:
                user, system, *children = (int(v) / _TICKS for v in _stat(pid)[11:15])
                found[pid] = user + system, sum(children)
            else:
                times = psutil.Process(pid).cpu_times()
                found[pid] = times.user + times.system, 0.0
    return found


def cpu_between(before: Mapping[int, tuple[float, float]], now: Mapping[int, tuple[float, float]]) -> float:
    """CPU seconds that a tree spent between two looks at it.

    A parent that waits for a dead child takes over the child's whole time, of which all but the last bit was seen in the child. One that
    never waits (Ray's) takes over nothing: what its child spent since the last look is lost, and no more.
    """
    alive = sum(own - before.get(pid, (0.0, 0.0))[0] for pid, (own, _) in now.items())
    inherited = sum(children - before.get(pid, (0.0, 0.0))[1] for pid, (_, children) in now.items())
    gone = sum(sum(times) for pid, times in before.items() if pid not in now)
    return max(0.0, alive + max(0.0, inherited - gone))


def machine_cpu_seconds() -> float:
    """CPU time spent by everything on the machine, idle and I/O wait left out."""
    times = psutil.cpu_times()
    stolen = getattr(times, "iowait", 0.0)
    return float(sum(times[:8]) - times.idle - stolen) if len(times) >= 8 else float(sum(times) - times.idle)


# -- the sampler --------------------------------------------------------------------------------------------------------


class Sampler:
    """Samples a process tree until stopped; pauses longer than ``interval_s`` where looking would take over 5 % of a core.

    With ``limit_bytes`` it is a watchdog: a sample above it ends the tree and stays in ``exceeded``.
    """

    def __init__(self, root: int, marker: str, interval_s: float = 0.1, limit_bytes: int | None = None) -> None:
        self._root, self._marker, self._interval, self._limit = root, marker, interval_s, limit_bytes
        self.exceeded: Sample | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="sampler", daemon=True)
        self._samples: list[Sample] = []
        self.seen: dict[int, None] = {}  # every process of the tree ever seen, in order

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; idempotent."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def window(self, start_s: float, end_s: float) -> tuple[Sample, ...]:
        """Samples between two instants; of a shorter run the one nearest to its end."""
        samples = tuple(self._samples)
        inside = tuple(s for s in samples if start_s <= s.time_s <= end_s)
        if inside or not samples:
            return inside
        return (min(samples, key=lambda s: abs(s.time_s - end_s)),)

    def _loop(self) -> None:
        extra: tuple[int, ...] = ()
        before: tuple[float, dict[int, tuple[float, float]], float] | None = None
        for count in range(1 << 62):
            began, cost = time.monotonic(), time.thread_time()
            if count % 20 == 0:  # reading every environment is dear
                extra = marked(self._marker)
            pids = tree(self._root, extra)
            self.seen.update(dict.fromkeys(pids))
            now = (began, cpu_seconds(pids), machine_cpu_seconds())
            self._samples.append(_sample(before, now, memory_bytes(pids)))
            before = now
            if self._limit is not None and self._samples[-1].memory_bytes > self._limit:
                self.exceeded = self.exceeded or self._samples[-1]
                for pid in pids:
                    _signal(pid, signal.SIGKILL)
            longest = 1.0 if self._limit is None else _WATCH_S
            pause = max(self._interval - (time.monotonic() - began), min(longest, 19 * (time.thread_time() - cost)))
            if self._stop.wait(pause):
                return


def _sample(
    before: tuple[float, dict[int, tuple[float, float]], float] | None,
    now: tuple[float, dict[int, tuple[float, float]], float],
    memory: int,
) -> Sample:
    if before is None or now[0] <= before[0]:
        return Sample(now[0], memory, 0.0, 0.0)
    seconds = now[0] - before[0]
    own = cpu_between(before[1], now[1]) / seconds
    return Sample(now[0], memory, own, max(0.0, (now[2] - before[2]) / seconds - own))
