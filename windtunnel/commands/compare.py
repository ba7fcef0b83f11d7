"""``windtunnel compare BASE NEW`` and ``windtunnel history``: gates for CI, and where a series of results changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from windtunnel.commands.common import json_option, print_json, results_console, say

if TYPE_CHECKING:
    from windtunnel.reports.gate.judge import Finding

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@click.option("--wall", type=click.Choice(["advisory", "gate", "off"]), default="advisory", show_default=True,
              help="Whether measured durations decide the exit code.")  # fmt: skip
@click.option(
    "--tolerance", default="0.0001%", show_default=True, help="Growth of simulated and counted numbers that is let pass."
)
@click.option("--limit", default="10%", show_default=True, help="Smallest change of a measured duration that matters.")
@click.option(
    "--allow",
    multiple=True,
    metavar="FACT",
    help="Compare although this differs: host (or a part, such as host.python), options, cluster, workload, rows, seeds.",
)
@click.option("--junit", type=_FILE, help="Write JUnit XML.")
@click.option("--summary", type=_FILE, help="Append a Markdown table, e.g. to $GITHUB_STEP_SUMMARY.")
@click.option("--bencher", type=_FILE, help="Write NEW in Bencher Metric Format.")
@click.option("--smaller-is-better", type=_FILE, help="Write NEW for github-action-benchmark (customSmallerIsBetter).")
@click.option("--pytest-benchmark", type=_FILE, help="Write NEW as pytest-benchmark's JSON.")
@json_option
def compare(base: Path, new: Path, as_json: bool, **given: Any) -> int:
    """Say what changed from BASE to NEW: results folders, files of pytest-benchmark, or baselines.

    Verdicts are better, same, worse, incomplete and not comparable; what was edited between two versions of one scenario is listed.
    Exit codes: 3 regression, 4 wrong result, 5 incomplete, 6 not comparable, 7 too noisy to tell.
    """
    from windtunnel.reports.gate import exports, files, judge
    from windtunnel.spec.units import parse_fraction

    before, after = files.read(base), files.read(new)
    rules = judge.Rules(
        tolerance=parse_fraction(given["tolerance"]), limit=parse_fraction(given["limit"]), wall=given["wall"],
        allow=tuple(given["allow"]),
    )  # fmt: skip
    findings = judge.judge(before, after, rules)
    code = judge.exit_code(findings)
    if given["summary"] is not None:
        _append(given["summary"], exports.markdown(findings, exports.SUMMARY_BYTES - _size(given["summary"])))
    asked: dict[str, Callable[[], str]] = {
        "junit": lambda: exports.junit(findings),
        "bencher": lambda: _json(exports.bencher(after)),
        "smaller_is_better": lambda: _json(exports.smaller_is_better(after)),
        "pytest_benchmark": lambda: _json(exports.pytest_benchmark(after)),
    }
    for name, make in asked.items():
        if given[name] is not None:
            _write(given[name], make())
    if as_json:
        from windtunnel.spec.canonical import to_plain

        print_json({"exit_code": int(code), "findings": [to_plain(f) for f in findings]})
    else:
        _print(findings, int(code))
    return int(code)


def _print(findings: tuple[Finding, ...], code: int) -> None:
    from rich.table import Table
    from rich.text import Text

    from windtunnel.errors import ExitCode
    from windtunnel.reports.gate.exports import change, number, role, sentence, tally

    console = results_console()
    styles = {
        "worse": "red",
        "better": "green",
        "same": "",
        "incomplete": "yellow",
        "not comparable": "yellow",
        "changed": "cyan",
    }
    subject = ""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for head in ("verdict", "quantity", "base", "new", "change", "", "note"):
        table.add_column(head, justify="right" if head in ("base", "new", "change") else "left")
    for f in sorted(findings, key=lambda f: f.subject):
        if f.subject != subject:
            subject = f.subject
            table.add_row(Text(""), Text(subject, style="bold"))
        note = sentence(f) if f.reason or not f.exact else ""
        note = note.partition("; ")[2] if not f.reason else note
        cells = (f.quantity or "runs", number(f.base, f.unit), number(f.new, f.unit), change(f), role(f), note)
        table.add_row(Text(f.verdict, style=styles[f.verdict]), *map(Text, cells))
    console.print(table)
    counts = ", ".join(f"{n} {verdict}" for verdict, n in tally(findings))
    meaning = "" if code == 0 else f"; exit code {code}: {ExitCode(code).name.lower().replace('_', ' ')}"
    console.print(f"{counts or 'nothing to compare'}{meaning}", markup=False, highlight=False)


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RESULTS...")
@json_option
def history(folders: tuple[Path, ...], as_json: bool) -> int:
    """Find where a series of results changed; give RESULTS (folders or files) from the oldest to the newest."""
    from windtunnel.errors import ExitCode, InputError
    from windtunnel.reports.gate import files
    from windtunnel.reports.gate.history import LEAST, change_points
    from windtunnel.reports.gate.series import UNREADABLE

    if len(folders) < 2 * LEAST:
        raise InputError(f"a history of {len(folders)} results is too short: {2 * LEAST} are the least that can show a change")
    lines: dict[tuple[str, str], list[tuple[int, float]]] = {}
    units: dict[tuple[str, str], str] = {}
    aside: list[str] = []
    for number, folder in enumerate(folders):
        for s in files.read(folder):
            aside += [f"{folder}: {reason}" for status, reason in s.bad if status == UNREADABLE]
            for name, values in s.values.items():
                lines.setdefault((s.subject, name), []).append((number, sorted(values)[len(values) // 2]))
                units[s.subject, name] = s.unit(name)
    found = [
        {
            "subject": subject, "quantity": name, "unit": units[subject, name], "first_after": str(folders[points[c.at][0]]),
            "before": c.before, "after": c.after, "change": c.change, "p": c.p,
        }
        for (subject, name), points in sorted(lines.items())
        for c in change_points([value for _, value in points])
    ]  # fmt: skip
    if as_json:
        print_json({"results": [str(f) for f in folders], "changes": found, "left_aside": aside})
    else:
        _print_history(found, len(folders), len(lines))
    for why in aside:
        say(f"left aside: {why}")
    return int(ExitCode.INCOMPLETE if aside else ExitCode.OK)


def _print_history(found: list[dict[str, Any]], results: int, lines: int) -> None:
    from windtunnel.reports.gate.exports import number

    console = results_console()
    for c in found:
        change = "from 0" if c["change"] is None else f"{c['change']:+.1%}"
        values = f"{number(c['before'], c['unit'])} → {number(c['after'], c['unit'])} ({change}, p = {c['p']:.3f})"
        console.print(f"{c['subject']} · {c['quantity']}: {values} from {c['first_after']} on", markup=False, highlight=False)
    console.print(f"{len(found)} changes in {lines} numbers over {results} results", markup=False, highlight=False)


def _json(document: object) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _append(path: Path, text: str) -> None:
    _write(path, text, mode="a")


def _write(path: Path, text: str, mode: str = "w") -> None:
    from windtunnel.errors import sentences

    with sentences(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open(mode, encoding="utf-8") as file:
            file.write(text)
    say(f"written: {path}")
