"""Claims and their verdicts: on the terminal, as Markdown, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from windtunnel.reports.claims import Claim
from windtunnel.reports.judging import Judged, Point, Verdict
from windtunnel.reports.verdicts import number

_STYLES = {"reproduced": "green", "not reproduced": "red", "depends": "yellow"}


def print_claims(claims: Sequence[Claim]) -> None:
    """A row a claim."""
    table = Table(box=None, pad_edge=False)
    for head in ("", "id", "claim", "tests"):
        table.add_column(Text(head), justify="right" if not head else "left")
    for c in claims:
        tests = ", ".join(dict.fromkeys(t.world for t in c.tests)) or "none here"
        table.add_row(Text(str(c.number)), Text(c.id, no_wrap=True), Text(c.claim), Text(tests))
    Console().print(table)


def print_verdicts(found: Sequence[Verdict]) -> None:
    """A row a claim, then what was found where it was tested."""
    console = Console()
    table = Table(box=None, pad_edge=False)
    for head in ("", "claim", "verdict", "simulated", "real"):
        table.add_column(Text(head), justify="right" if not head else "left")
    for v in found:
        style = _STYLES.get(v.outcome, "")
        worlds = (v.of("simulated") or "", v.of("real") or "")
        table.add_row(
            Text(str(v.claim.number)), Text(v.claim.id, no_wrap=True), Text(v.outcome, style=style), *(Text(w) for w in worlds)
        )
    console.print(table)
    for v in found:
        for judged in v.judged:
            line = Text.assemble(f"{v.claim.number:>3}. {judged.rule.say}: ", (judged.outcome, _STYLES.get(judged.outcome, "")))
            console.print(line.append(f" ({judged.test.world}; {flips(judged)})"))


def flips(judged: Judged) -> str:
    """Where a rule holds and where not, with what was found there."""
    parts = []
    for state, word in (("holds", "holds"), ("fails", "does not hold"), ("open", "cannot be told")):
        points = [p for p in judged.points if p.state == state]
        if points:
            parts.append(f"{word} {', '.join(_point(p) for p in points)}")
    return "; ".join(parts) or "nothing was measured"


def _point(point: Point) -> str:
    where = place(point)
    return f"at {where} ({shown_value(point)})" if where else f"({shown_value(point)})"


def place(point: Point) -> str:
    """Where in the sweep, for people."""
    return ", ".join(f"{k.rpartition('.')[2].replace('_', ' ').lower()} {v}" for k, v in point.at)


def shown_value(point: Point) -> str:
    """What was found with its interval, or why nothing was."""
    if point.found is None:
        return point.reason
    interval = (
        ""
        if point.found.low is None or point.found.high is None
        else f", {number(point.found.low)} to {number(point.found.high)}"
    )
    return f"{number(point.found.value)}{interval}"


def document(verdict: Verdict) -> dict[str, Any]:
    """For ``--json``."""
    return {
        "id": verdict.claim.id, "number": verdict.claim.number, "claim": verdict.claim.claim, "verdict": verdict.outcome,
        "simulated": verdict.of("simulated"), "real": verdict.of("real"), "reason": verdict.claim.untested or None,
        "without_evidence": list(verdict.missing),
        "rules": [
            {
                "test": j.test.name, "world": j.test.world, "rule": j.rule.say, "quantity": j.rule.quantity, "least": j.rule.least,
                "most": j.rule.most, "outcome": j.outcome,
                "points": [
                    {
                        "at": dict(p.at), "state": p.state, "reason": p.reason or None,
                        "value": None if p.found is None else p.found.value,
                        "interval": None if p.found is None or p.found.low is None else [p.found.low, p.found.high],
                    }
                    for p in j.points
                ],
            }
            for j in verdict.judged
        ],
    }  # fmt: skip


def markdown(found: Sequence[Verdict]) -> str:
    """A table of verdicts, then a section a claim."""
    lines = ["| | claim | verdict | simulated | real |", "|---:|---|---|---|---|"]
    for v in found:
        worlds = f"{v.of('simulated') or ''} | {v.of('real') or ''}"
        lines.append(f"| {v.claim.number} | [{v.claim.claim}](#{v.claim.number}-{v.claim.id}) | {v.outcome} | {worlds} |")
    return "\n".join([*lines, *(line for v in found for line in _section(v))])


def _section(v: Verdict) -> list[str]:
    claim = v.claim
    lines = ["", f"## {claim.number} {claim.id}", "", f"> {claim.claim}", "", f"{claim.source}. Verdict: **{v.outcome}**."]
    if claim.untested:
        lines += ["", f"No test: {claim.untested}"]
    if claim.refuted_by:
        lines += ["", f"Refuted by: {claim.refuted_by}"]
    if v.judged:
        lines += ["", "| test | world | rule | bound | at | found | |", "|---|---|---|---:|---|---:|---|"]
    for j in v.judged:
        bound = f"≥ {j.rule.least:g}" if j.rule.least is not None else f"≤ {j.rule.most:g}"
        for p in j.points:
            lines.append(
                f"| {j.test.name} | {j.test.world} | {j.rule.say} | {bound} | {place(p)} | {shown_value(p)} | {p.state} |"
            )
    lines += [f"\nNo records yet: {', '.join(v.missing)}."] if v.missing else []
    return lines + [f"\n- {c}" if i == 0 else f"- {c}" for i, c in enumerate(claim.caveats)]
