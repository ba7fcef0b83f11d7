"""What commands share: JSON on standard output, progress on standard error, the shape of a run in JSON, exit codes of results.

Nothing here imports a heavy library before it is called.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from windtunnel.errors import ExitCode, InputError
from windtunnel.spec.documents import parse_json, parse_toml
from windtunnel.spec.strict import Place, shorten

if TYPE_CHECKING:
    from windtunnel.records.record import RunRecord
    from windtunnel.running.experiment import Progress
    from windtunnel.scenario.tables import EngineChoice

PLAIN_WIDTH = 160
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document on standard output, nothing else there."
)


def print_json(document: object) -> None:
    """One document on standard output."""
    click.echo(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False))


def results_console() -> Any:
    """Where results are printed: as wide as the terminal, and wide enough where nobody says how wide the output may be."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)


def say(text: str) -> None:
    """A line for people, on standard error."""
    click.echo(text, err=True)


@contextmanager
def progress() -> Iterator[Callable[[Progress], None]]:
    """A bar on a terminal; elsewhere one line a record. Always on standard error."""
    if not sys.stderr.isatty():
        yield lambda event: say(f"{event.text}: {describe(event.record)}") if event.record else None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def show(event: Any) -> None:
            bar.update(task, description=event.text, completed=event.index, total=event.total)
            if event.record is not None and event.record.status != "ok":
                bar.console.print(f"{event.text}: {describe(event.record)}", markup=False)

        yield show


def describe(record: RunRecord) -> str:
    """How a run ended, in a few words."""
    from windtunnel.spec.units import format_seconds

    if record.status != "ok":
        return f"{record.status}: {record.reason}"
    kind = "warm-up " if record.warmup else ""
    return f"{kind}{format_seconds(record.makespan_s)}" + (", verified" if record.verified else "")


def exit_code(records: Iterable[RunRecord]) -> int:
    """4 when a result is wrong, 5 when something expected is missing or failed, 7 when a measurement is invalid, else 0."""
    statuses = {r.status for r in records}
    if "wrong_result" in statuses:
        return int(ExitCode.WRONG_RESULT)
    if statuses and statuses <= {"ok", "invalid"}:
        return int(ExitCode.INVALID_MEASUREMENT if "invalid" in statuses else ExitCode.OK)
    return int(ExitCode.INCOMPLETE)


def results_folder(given: Path | None, name: str) -> Path:
    """The given folder, or a new one below ``results`` named after what runs and when."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "run"
    return given or Path("results") / f"{slug[:60]}-{datetime.now():%Y%m%d-%H%M%S-%f}"


def today() -> str:
    """The date, for provenance."""
    return f"{datetime.now():%Y-%m-%d}"


def engine_options(texts: Sequence[str], engines: Sequence[str]) -> dict[str, dict[str, Any]]:
    """``ENGINE.KEY=VALUE`` texts as options by engine; the value is read as TOML or JSON, else as plain text."""
    found: dict[str, dict[str, Any]] = {name: {} for name in engines}
    for text in texts:
        left, equals, value = text.partition("=")
        engine, dot, key = left.rpartition(".")
        if not equals or not dot or not key:
            raise InputError(f"option {text!r} must be written ENGINE.KEY=VALUE, for example spark.bridge=pandas")
        if engine not in found:
            raise InputError(f"option {text!r} names an engine that is not asked for; asked for: {', '.join(engines)}")
        found[engine][key] = _value(value)
    return found


def workload_parameters(texts: Sequence[str]) -> dict[str, Any]:
    """``KEY=VALUE`` texts as parameters of a workload's function."""
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InputError(f"parameter {text!r} must be written KEY=VALUE, for example gpus=1")
        found[key] = _value(value)
    return found


def _value(text: str) -> Any:
    """TOML, else JSON where it is a table or a list, else the text itself. Raises InputError for a table or list that is neither."""
    place = Place(f"the value {shorten(text)}")
    try:
        document = parse_toml(f"value = {text}", place)
        if document.keys() == {"value"}:
            return document["value"]
    except InputError:
        pass
    if not text.lstrip().startswith(("{", "[")):
        return text
    try:
        return parse_json(text, place)
    except InputError as error:
        raise InputError(f'{place.file} is neither a table or list of TOML nor of JSON; write {{key = "text"}}') from error


def check_engines(choices: Iterable[EngineChoice], *, missing_is_record: bool = False) -> None:
    """Refuse unknown options, and engines whose library is absent, before anything runs."""
    from windtunnel.engines.api import resolve_options
    from windtunnel.registry import engine_names, load_engine

    for choice in choices:
        if choice.name not in engine_names() and missing_is_record:
            continue
        engine = load_engine(choice.name)
        resolve_options(choice.name, engine.options, choice.options)


def check_both_worlds(names: Iterable[str]) -> None:
    """Refuse engines that cannot be both measured and simulated, before anything runs."""
    from windtunnel.errors import nearest
    from windtunnel.registry import engine_names

    known = engine_names()
    able = [n for n in known if f"sim:{n}" in known]
    for name in names:
        if name not in able:
            raise InputError(f"engine {name!r} cannot be both measured and simulated{nearest(name, able)}")
