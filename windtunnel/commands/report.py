"""``windtunnel report DIR``: what the records of a folder mean, as a table, HTML, Markdown, JSON or a Chrome trace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from windtunnel.commands.common import json_option, print_json, say

if TYPE_CHECKING:
    from windtunnel.records.record import RunRecord
    from windtunnel.reports.compare import Comparison


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="DIR...")
@click.option("--html", type=click.Path(path_type=Path), help="Write one self-contained HTML file.")
@click.option("--markdown", is_flag=True, help="Print Markdown instead of a table.")
@click.option("--trace", type=click.Path(path_type=Path), help="Write the runs as a Chrome trace, for Perfetto.")
@click.option(
    "--between", nargs=2, metavar="A B", help="Take the difference of these two engines apart, not each with the fastest."
)
@json_option
def report(
    folders: tuple[Path, ...],
    html: Path | None,
    markdown: bool,
    trace: Path | None,
    between: tuple[str, str] | None,
    as_json: bool,
) -> int:
    """Compare the records in the results folders DIR."""
    from windtunnel.errors import ExitCode
    from windtunnel.reports.compare import build

    records, left_aside = read_folders(folders)
    comparison = build(records, pair=between, left_aside=left_aside)
    if html is not None:
        write_html(comparison, html)
    if trace is not None:
        from windtunnel.reports.render.trace import chrome_trace

        write_page(trace, _text(chrome_trace(records)))
    if as_json:
        from windtunnel.spec.canonical import to_plain

        print_json(to_plain(comparison))
    elif markdown:
        from windtunnel.reports.render.markdown import render

        click.echo(render(comparison))
    else:
        from windtunnel.reports.render.terminal import print_comparison

        print_comparison(comparison)
    for path in (html, trace):
        if path is not None:
            say(f"written: {path}")
    return int(ExitCode.INCOMPLETE if left_aside else ExitCode.OK)


def read_folders(folders: tuple[Path, ...]) -> tuple[tuple[RunRecord, ...], tuple[str, ...]]:
    """All records of the folders, and why other files in them were left aside.

    Raises InputError when a folder has no record, BadRecord when it has nothing but bad ones.
    """
    from windtunnel.errors import BadRecord, InputError
    from windtunnel.records.store import Store, no_results

    records: list[RunRecord] = []
    left_aside: list[str] = []
    for folder in folders:
        found = Store(folder).look()
        records += found.records
        left_aside += [a.why for a in found.left_aside]
        if not found.records and not found.left_aside:
            raise InputError(no_results(folder))
    if not records:
        more = f"; and {len(left_aside) - 1} more" if left_aside[1:] else ""
        raise BadRecord(f"there is no record to report on: {left_aside[0]}{more}")
    return tuple(records), tuple(left_aside)


def write_html(comparison: Comparison, path: Path) -> None:
    """One self-contained page."""
    from windtunnel.reports.render.html import render

    write_page(path, render(comparison))


def write_page(path: Path, text: str) -> None:
    """A file, with its folder."""
    from windtunnel.errors import sentences

    with sentences(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _text(document: object) -> str:
    import json

    return document if isinstance(document, str) else json.dumps(document)
