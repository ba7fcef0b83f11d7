"""Situations in which something is wrong, as data, and what must hold in all of them. `docs/hostile.md` is made from the same table.

A `Situation` says what is wrong, what is done, how that may end and what must be said. Whatever it is about, `check` holds it to the
same: no traceback, no hang, an exit code that was foreseen, a sentence, no number that is none, and nothing left behind (processes,
shared memory, scratch folders, half-written files).

To add one: append it to a list `SITUATIONS` of a module in `tests/hostile/situations/`, or put a new module there, and run
``python -m tests.hostile.table`` for the documentation. Quick ones belong to ``make test``; mark what takes seconds ``slow``.
"""

from __future__ import annotations

import atexit
import importlib
import os
import pkgutil
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tests.hostile import situations

#: what nobody may be shown, whatever was wrong
NEVER = re.compile(r"Traceback \(most recent call last\)|\bnan\b|(?<![-\w])-?inf\b", re.IGNORECASE)
#: the value of a bad record, named where it is refused
NAMED = re.compile(r"\b(is|holds) -?(NaN|Infinity), which is no finite number")
MARK = "WINDTUNNEL_HOSTILE"  # in the environment of all that a situation starts


@dataclass(frozen=True, slots=True)
class Ending:
    """How what was done ended: its exit code (a signal is negative, as of `subprocess`) and what it wrote."""

    code: int
    out: str = ""
    err: str = ""

    @property
    def told(self) -> str:
        """Both streams in one line, since tables and terminals break them anywhere."""
        return " ".join(f"{self.out} {self.err}".split())


@dataclass(slots=True)
class Scene:
    """An empty folder in which a situation takes place; ``made`` holds what its preparation wants to hand on."""

    folder: Path
    made: dict[str, object] = field(default_factory=dict)

    @property
    def scratch(self) -> Path:
        """Where everything temporary goes; empty again in the end."""
        return self.folder / "scratch"

    def copy(self, template: Callable[[Path], object], name: str) -> Path:
        """A copy of what ``template`` makes, which happens once a process."""
        target = self.folder / name
        shutil.copytree(_template(template), target)
        return target


@cache
def _template(make: Callable[[Path], object]) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="hostile-template-")) / "made"
    atexit.register(shutil.rmtree, folder.parent, ignore_errors=True)
    folder.mkdir()
    make(folder)
    return folder


def nothing(scene: Scene) -> None:
    """No preparation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """``scene`` prepares it, ``act`` does what is done; ``exits``: the codes that it may end with.

    ``says`` and ``never`` are patterns of what must and may not be told, beside `NEVER`; ``does`` is the act in words, for the
    table. ``needs``: names of `NEEDS`. ``limit_s``: longer is a hang.
    """

    area: str
    name: str
    does: str
    act: Callable[[Scene], Ending]
    scene: Callable[[Scene], object] = nothing
    exits: tuple[int, ...]
    says: str = ""
    never: str = ""
    needs: tuple[str, ...] = ()
    slow: bool = False
    limit_s: float = 30.0

    @property
    def id(self) -> str:
        """Area and name as one word."""
        return f"{self.area}-{re.sub(r'[^a-z0-9]+', '-', self.name.lower()).strip('-')}"


def area(name: str) -> Callable[..., Situation]:
    """A short way to write situations of one area: ``case(name, does, scene, act, code, says, …)``; several codes as a tuple."""

    def case(
        what: str, does: str, scene: Callable[[Scene], object], act: Callable[[Scene], Ending], code: int | tuple[int, ...], says: str = "",
        **more: Any,
    ) -> Situation:  # fmt: skip
        exits = code if isinstance(code, tuple) else (code,)
        return Situation(area=name, name=what, does=does, scene=scene, act=act, exits=exits, says=says, **more)

    return case


#: what a situation may need of the machine → (whether it is there, why it is skipped)
NEEDS: dict[str, tuple[Callable[[], bool], str]] = {
    "root": (lambda: os.geteuid() == 0, "needs root, to mount a small disk"),
    "no root": (lambda: os.geteuid() != 0, "root may write everywhere"),
    "full": (lambda: Path("/dev/full").exists(), "needs /dev/full"),
}


def missing(situation: Situation) -> str:
    """Why it cannot be tried here; empty when it can."""
    return next((why for name in situation.needs for there, why in [NEEDS[name]] if not there()), "")


def everything() -> tuple[Situation, ...]:
    """All situations, by area as the modules come, in their order. Raises ValueError for a name that is used twice."""
    found: list[Situation] = []
    for module in sorted(m.name for m in pkgutil.iter_modules(situations.__path__)):
        found += importlib.import_module(f"tests.hostile.situations.{module}").SITUATIONS
    ids = [s.id for s in found]
    if twice := sorted({i for i in ids if ids.count(i) > 1}):
        raise ValueError(f"situations of the same name: {', '.join(twice)}")
    return tuple(found)


def check(situation: Situation, folder: Path) -> None:
    """Try it in ``folder``, and fail with a sentence where one of the rules is broken."""
    scene, before = Scene(folder), set(_orphans())
    scene.scratch.mkdir()
    situation.scene(scene)
    ending = situation.act(scene)
    said = ending.told
    assert ending.code in situation.exits, f"exit code {ending.code}, not {situation.exits}: {said[-2000:]}"
    assert not (found := NEVER.search(NAMED.sub("", said))), f"it shows {found[0]!r}: {said[-2000:]}"
    assert re.search(situation.says, said), f"it does not say {situation.says!r}: {said[-2000:]}"
    assert not situation.never or not re.search(situation.never, said), f"it says {situation.never!r}: {said[-2000:]}"
    left = sorted([*leftovers(scene), *(f"shared memory {name}" for name in set(_orphans()) - before)])
    assert not left, f"left behind: {', '.join(left)}"


def leftovers(scene: Scene) -> Iterator[str]:
    """What is still there and should not be."""
    yield from (f"scratch {p.name}" for p in scene.scratch.iterdir())
    yield from (f"half-written {p}" for p in scene.folder.rglob(".writing-*"))
    mark = f"{MARK}={scene.folder}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if int(process.name) != os.getpid() and mark in (process / "environ").read_bytes().split(b"\0"):
                yield f"process {process.name} ({(process / 'cmdline').read_bytes()[:200]!r})"
        except OSError:
            continue


def _orphans() -> Iterator[str]:
    """Shared-memory folders whose process, told by their name, is gone: other tests run beside this one."""
    shm = Path("/dev/shm")
    for path in shm.glob("windtunnel-*") if shm.is_dir() else ():
        number = path.name.split("-")[1]
        if number.isdigit() and not Path(f"/proc/{number}").exists():
            yield path.name
