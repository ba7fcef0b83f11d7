"""``windtunnel twins``: services drawn at random, each run for real and simulated, and how far the two worlds are apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from windtunnel.commands.common import json_option, print_json, say
from windtunnel.errors import ExitCode


@click.command()
@click.option("--count", type=click.IntRange(1, 10_000), default=40, show_default=True, help="How many are drawn.")
@click.option("--seed", type=int, default=1, show_default=True, help="Another seed draws others.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A file to which each case is added; those in it are not run again.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=1.0),
    help="Stop before a case that begins later than this; the rest waits for the next call.",
)
@click.option(
    "--calibration",
    type=click.Path(exists=True, dir_okay=False),
    help="Constants of this machine (`windtunnel calibrate --serving`).",
)
@json_option
def twins(count: int, seed: int, out: Path | None, seconds: float | None, calibration: str | None, as_json: bool) -> int:
    """Draw services (batches, retries, deadlines, compositions, scaling, deaths), run each for real and simulated, and compare."""
    import time

    from windtunnel.sim.judging import twins as judging

    begun, cases = time.monotonic(), _known(out, seed, count)
    for number in range(count):
        if number in cases:
            continue
        if seconds is not None and time.monotonic() - begun > seconds:
            break
        cases[number] = case = judging.compare(seed, number, calibration)
        if out is not None:
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(case) + "\n")
        if not as_json:
            click.echo(_line(case))
    verdicts = judging.judge(cases.values())
    if as_json:
        judged = [
            {"name": v.name, "median": v.median, "worst": v.worst, "bars": v.bars, "cases": v.cases, "met": v.met}
            for v in verdicts
        ]
        print_json({"schema": 1, "seed": seed, "asked": count, "cases": list(cases.values()), "verdicts": judged})
    else:
        for v in verdicts:
            say(
                f"{v.name}: off by {v.median:.1%} in the median and {v.worst:.1%} at worst of {v.cases} cases "
                f"(bars {v.bars[0]:.0%} and {v.bars[1]:.0%}): {'met' if v.met else 'not met'}"
            )
    if len(cases) < count or any("invalid" in c for c in cases.values()):
        if not as_json:
            compared = sum("errors" in c for c in cases.values())
            say(f"{compared} of {count} cases could be compared so far; call again with --out to go on")
        return ExitCode.INCOMPLETE
    return ExitCode.OK if all(v.met for v in verdicts) else ExitCode.NOT_REPRODUCED


def _known(out: Path | None, seed: int, count: int) -> dict[int, dict[str, Any]]:
    """Cases of the file that are of this drawing: their text must be what would be drawn today. Those that were invalid are run again."""
    from windtunnel.errors import InputError
    from windtunnel.sim.judging.twins import drawn

    if out is None or not out.exists():
        return {}
    found = {}
    for line, text in enumerate(out.read_text(encoding="utf-8").splitlines(), 1):
        try:
            case = json.loads(text)
            number, asked, scenario = case["number"], case["seed"], case["scenario"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"line {line} of {out} is no case of `windtunnel twins`; give --out another file") from error
        if (
            asked == seed
            and isinstance(number, int)
            and 0 <= number < count
            and "errors" in case
            and drawn(seed, number) == scenario
        ):
            found[number] = case
    return found


def _line(case: dict[str, Any]) -> str:
    """One case: throughput, percentiles and outcomes in both worlds."""
    if "invalid" in case:
        return f"{case['number']:4d}  {case['invalid']}"
    real, simulated, errors = case["real"], case["simulated"], case["errors"]
    parts = [f"{real['throughput']:7.1f}/s {simulated['throughput']:7.1f}/s"]
    for name in ("p50", "p99"):
        a, b = ("-" if side[name] is None else f"{side[name] * 1e3:.1f}" for side in (real, simulated))
        parts.append(f"{name} {a:>7} {b:>7} ms")
    worst = max(((v or 0.0), n) for n, v in errors.items())
    counts = " ".join(
        f"{n} {real['counts'][n]}/{simulated['counts'][n]}" for n in real["counts"] if real["counts"][n] or simulated["counts"][n]
    )
    return f"{case['number']:4d}  {'  '.join(parts)}  {counts}  worst: {worst[1]} {worst[0]:.1%}"
