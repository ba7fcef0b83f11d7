"""Published measurements against the simulated world: every cell of every table that ships in ``sim/published``.

A table is a scenario file with one more table, ``[published]``: where the figures come from, what they measure, and a list of
cells, each with its value, the engine that ran it and the keys of the scenario that it changes. The module runs the cells and
computes errors; it fits nothing and prints nothing.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from statistics import median
from typing import Any

from windtunnel.errors import InputError, OutOfMemory, WindtunnelError, nearest
from windtunnel.records.record import Recorder
from windtunnel.registry import load_engine
from windtunnel.running import pool
from windtunnel.scenario.reading import assign, from_document
from windtunnel.spec.documents import parse_toml, read_text
from windtunnel.spec.strict import Place

#: a simulated value may fall so far below the lower bound that a published table states (rounding of published figures)
SLACK = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One published figure. ``at``: its place in the table. ``fitted``: constants were fitted to it, so that it tests nothing."""

    table: str
    system: str
    at: tuple[tuple[str, Any], ...]
    status: str
    value: float | None
    fitted: bool
    document: dict[str, Any]
    quantity: str
    factor: float

    @property
    def name(self) -> str:
        """For people: ``ray, memory_limit_gb 6``."""
        return ", ".join([self.system, *(f"{k} {v}" for k, v in self.at)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A published table. ``better``: whether less or more of the quantity is better, which gives systems an order."""

    name: str
    title: str
    quantity: str
    unit: str
    source: str
    better: str
    notes: str
    floor: float | None
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A cell with what the simulation says. ``reason``: why a run has no value."""

    cell: Cell
    status: str
    value: float | None
    reason: str | None = None

    @property
    def error(self) -> float | None:
        """Relative, simulated over published less one; None where either has no value."""
        if self.value is None or not self.cell.value:
            return None
        return self.value / self.cell.value - 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A table's result: errors of its cells (median, worst, of magnitudes), statuses right, systems in order."""

    table: Table
    checked: tuple[Checked, ...]

    @property
    def errors(self) -> list[float]:
        """Magnitudes."""
        return [abs(c.error) for c in self.checked if c.error is not None]

    @property
    def median(self) -> float | None:
        """None without a value."""
        return median(self.errors) if self.errors else None

    @property
    def worst(self) -> float | None:
        """None without a value."""
        return max(self.errors, default=None)

    @property
    def unfitted(self) -> float | None:
        """Median over the cells that no constant was fitted to."""
        errors = [abs(c.error) for c in self.checked if c.error is not None and not c.cell.fitted]
        return median(errors) if errors else None

    @property
    def status_right(self) -> tuple[int, int]:
        """(cells whose status is right, cells)."""
        return sum(c.status == c.cell.status for c in self.checked), len(self.checked)

    @property
    def order(self) -> tuple[int, int]:
        """(columns in which the systems stand in the published order, columns with two systems or more)."""
        columns: dict[Any, list[Checked]] = {}
        for check in self.checked:
            if check.cell.value is not None:
                columns.setdefault(check.cell.at, []).append(check)
        rows = [c for c in columns.values() if len(c) > 1]
        return sum(self._ordered(c) for c in rows), len(rows)

    @staticmethod
    def _ordered(column: list[Checked]) -> bool:
        """Whether every pair that differs by more than 2 % in print differs the same way here."""
        for i, a in enumerate(column):
            for b in column[i + 1 :]:
                assert a.cell.value is not None and b.cell.value is not None
                if a.value is None or b.value is None:
                    return False
                published = math.log(a.cell.value / b.cell.value)
                if abs(published) > 0.02 and published * (a.value - b.value) <= 0:
                    return False
        return True

    @property
    def below_floor(self) -> int:
        """Cells that beat the optimum that the table states."""
        floor = self.table.floor
        return sum(1 for c in self.checked if floor and c.value is not None and c.value < floor * (1 - SLACK))


def names() -> tuple[str, ...]:
    """The tables that ship with the project."""
    folder = resources.files("windtunnel.sim").joinpath("published")
    files = [p for p in folder.iterdir() if p.name.endswith(".toml")]
    return tuple(sorted(p.name[:-5] for p in files if "\n[published]\n" in p.read_text(encoding="utf-8")))


def load(name: str) -> Table:
    """A table by name, or a file of the same form. Raises InputError."""
    if name.endswith(".toml"):
        text = read_text(Path(name), Place(name))
    elif name in names():
        text = resources.files("windtunnel.sim").joinpath("published", f"{name}.toml").read_text(encoding="utf-8")
    else:
        raise InputError(f"no published table {name!r}{nearest(name, names())}")
    document = parse_toml(text, Place(name))
    try:
        return _table(name, document)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{name} is not a table of published figures: {error}") from error


def _table(name: str, document: dict[str, Any]) -> Table:
    head = document.pop("published")
    if "engines" not in document:
        document["engines"] = []
    cells = tuple(_cell(head, entry, document) for entry in head["cells"])
    return Table(
        name=head["table"], title=head["title"], quantity=head["quantity"], unit=head["unit"], source=head["source"],
        better=head.get("better", "less"), notes=head.get("notes", ""), floor=head.get("floor"), cells=cells,
    )  # fmt: skip


def _cell(head: dict[str, Any], entry: dict[str, Any], base: dict[str, Any]) -> Cell:
    document = copy.deepcopy(base)
    engine = copy.deepcopy(head.get("engines", {}).get(entry["system"], {"name": entry["system"]}))
    engine = {**engine, **{k: v for k, v in entry.get("engine", {}).items() if k != "options"}}
    engine["options"] = {**engine.get("options", {}), **entry.get("engine", {}).get("options", {})}
    document["engines"] = [{"label": entry["system"], **engine}]
    changes = {**engine.pop("set", {}), **entry.get("set", {})}
    document["engines"][0].pop("set", None)
    for key, value in changes.items():
        assign(document, key, value, head["table"])
    return Cell(
        table=head["table"], system=entry["system"], at=tuple(entry.get("at", {}).items()), status=entry.get("status", "ok"),
        value=entry.get("value"), fitted=entry.get("fitted", False), document=document,
        quantity=entry.get("quantity", head["quantity"]), factor=float(entry.get("factor", head.get("factor", 1.0))),
    )  # fmt: skip


def simulate(cell: Cell) -> Checked:
    """Run one cell in the simulated world."""
    from windtunnel.records.document import quantities

    scenario = from_document(cell.document, f"published/{cell.table}.toml ({cell.name})")
    choice = scenario.engines[0]
    assert scenario.workload is not None
    recorder = Recorder()
    bound = scenario.workload.bind(Path("."))
    try:
        engine = load_engine(f"sim:{choice.name}")
        session = engine.open(scenario.cluster, {**choice.options, "seed": scenario.seed})
        session.prepare(bound)
        outcome = session.run(bound, recorder, Path("."))
    except OutOfMemory as error:
        return Checked(cell=cell, status="out_of_memory", value=None, reason=str(error))
    except InputError:
        raise
    except WindtunnelError as error:
        return Checked(cell=cell, status=error.status, value=None, reason=str(error))
    values = quantities(recorder, scenario.workload, outcome.rows or 0)
    if cell.quantity not in values:
        raise InputError(f"no quantity {cell.quantity!r}{nearest(cell.quantity, values)}")
    return Checked(cell=cell, status="ok", value=values[cell.quantity] * cell.factor)


def validate(tables: list[Table], progress: Callable[[Checked], None] = lambda _: None, processes: int = 1) -> list[Summary]:
    """All cells of the tables, side by side on ``processes`` cores; results do not depend on how many."""
    cells = [cell for table in tables for cell in table.cells]
    done: dict[int, Checked] = {}
    for index, checked in _run(cells, processes):
        done[index] = checked
        progress(checked)
    results = iter(done[i] for i in range(len(cells)))
    return [Summary(table=table, checked=tuple(next(results) for _ in table.cells)) for table in tables]


def _run(cells: list[Cell], processes: int) -> Iterator[tuple[int, Checked]]:
    with contextlib.closing(pool.each(_numbered, list(enumerate(cells)), jobs=processes)) as ended:
        yield from (result for _, result in ended)


def _numbered(entry: tuple[int, Cell]) -> tuple[int, Checked]:
    return entry[0], simulate(entry[1])
