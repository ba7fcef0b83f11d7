"""Findings in the formats that CI systems read. Pure functions of findings; everything that a file could hold is escaped.

* JUnit XML (the Jenkins schema); * a GitHub step summary in Markdown, below its limit of 1 MiB a step (GitHub Actions documentation,
  "Workflow commands", 2025); * Bencher Metric Format (bencher.dev, "Bencher Metric Format", 2025); * ``customSmallerIsBetter`` of
  github-action-benchmark (its README, v1); * pytest-benchmark's JSON, as far as its ``compare`` reads it (5.x).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any
from xml.etree import ElementTree

import numpy as np

from windtunnel.reports.gate.judge import Finding
from windtunnel.reports.gate.series import Series
from windtunnel.spec.units import format_bytes, format_seconds

SUMMARY_BYTES = 1_000_000  # of the 1,048,576 that a step may write
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")  # not allowed in XML 1.0


def number(value: float | None, unit: str) -> str:
    """A value for people."""
    if value is None:
        return "–"
    if unit == "s":
        return format_seconds(value)
    return format_bytes(value) if unit == "B" else f"{value:,.6g} {unit}".rstrip()


def change(finding: Finding) -> str:
    """ "+4.2 % (+3.9 … +4.6)", without the interval where the value is exact."""
    if finding.change is None:
        return "from 0" if finding.base == 0 and finding.new else "–"
    text = f"{finding.change:+.2%}"
    return text if finding.low is None or finding.high is None else f"{text} ({finding.low:+.1%} … {finding.high:+.1%})"


def role(finding: Finding) -> str:
    """Whether it decides the exit code."""
    return "gate" if finding.counts else "advisory"


def markdown(findings: Sequence[Finding], limit: int = SUMMARY_BYTES) -> str:
    """A table, the worst first, cut with a sentence where the summary would grow beyond ``limit`` bytes."""
    counts = ", ".join(f"{n} {verdict}" for verdict, n in tally(findings))
    text = f"### windtunnel compare: {counts or 'nothing to compare'}\n\n"
    text += "| verdict | configuration | quantity | base | new | change | |\n|---|---|---|---:|---:|---:|---|\n"
    for done, f in enumerate(findings):
        cells = (f.verdict, f.subject, f.quantity, number(f.base, f.unit), number(f.new, f.unit), change(f))
        row = f"| {' | '.join(map(_cell, cells))} | {_cell('; '.join(p for p in (role(f), f.reason) if p))} |\n"
        if len(text.encode()) + len(row.encode()) + 100 > limit:
            return text + f"\n{len(findings) - done} more rows are left out: a step summary holds no more.\n"
        text += row
    return text


def tally(findings: Iterable[Finding]) -> list[tuple[str, int]]:
    """(verdict, how many), in the order of the findings."""
    counts: dict[str, int] = {}
    for f in findings:
        counts[f.verdict] = counts.get(f.verdict, 0) + 1
    return list(counts.items())


def _cell(text: str) -> str:
    plain = " ".join(text.split())
    return re.sub(r"([\\|`*_<>\[\]])", r"\\\1", plain)


def junit(findings: Sequence[Finding]) -> str:
    """One test a finding: a failure where it is worse, an error where there is no verdict; advisory ones pass and say so."""
    bad = [f for f in findings if f.counts and f.verdict == "worse"]
    unknown = [f for f in findings if f.counts and f.verdict in ("incomplete", "not comparable")]
    suite = ElementTree.Element(
        "testsuite", name="windtunnel compare", tests=str(len(findings)), failures=str(len(bad)), errors=str(len(unknown))
    )  # fmt: skip
    for f in findings:
        case = ElementTree.SubElement(suite, "testcase", classname=_xml(f.subject), name=_xml(f.quantity or "runs"))
        message = _xml(f"{f.verdict}: {sentence(f)}")
        if f in bad:
            ElementTree.SubElement(case, "failure", message=message)
        elif f in unknown:
            ElementTree.SubElement(case, "error", message=message)
        else:
            ElementTree.SubElement(case, "system-out").text = message
    ElementTree.indent(suite)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"


def _xml(text: str) -> str:
    return _CONTROL.sub("\ufffd", text)


def sentence(finding: Finding) -> str:
    """What a finding says, in one line."""
    if finding.reason:
        return finding.reason
    values = f"{number(finding.base, finding.unit)} → {number(finding.new, finding.unit)}, {change(finding)}"
    shown = (
        "" if finding.exact or finding.shows is None else f"; {finding.pairs} pairs show changes of {finding.shows:.1%} and more"
    )
    return values + shown


def bencher(series: Sequence[Series]) -> dict[str, Any]:
    """Bencher Metric Format: benchmark → measure → value with its lowest and highest."""
    return {
        s.subject: {
            name: {"value": _middle(values), "lower_value": min(values), "upper_value": max(values)}
            for name, values in s.values.items()
        }
        for s in series
        if s.values
    }


def smaller_is_better(series: Sequence[Series]) -> list[dict[str, Any]]:
    """Entries of github-action-benchmark's ``customSmallerIsBetter``."""
    return [
        {
            "name": f"{s.subject}: {name}",
            "unit": s.unit(name),
            "value": _middle(values),
            "range": f"± {_middle(_spread(values)):.3g}",
        }
        for s in series
        for name, values in s.values.items()
    ]


def _spread(values: Sequence[float]) -> list[float]:
    middle = _middle(values)
    return [abs(v - middle) for v in values]


def _middle(values: Sequence[float]) -> float:
    return float(np.median(values))


def pytest_benchmark(series: Sequence[Series]) -> dict[str, Any]:
    """The durations of all series as a file that ``pytest-benchmark compare`` reads."""
    found = []
    for s in series:
        durations = s.values.get("makespan_s") or s.values.get("duration_s")
        if durations:
            found.append({"name": s.subject, "fullname": s.subject, "group": None, "params": None, "param": None, "options": {},
                          "extra_info": dict(s.facts), "stats": _stats(durations)})  # fmt: skip
    return {"machine_info": {}, "commit_info": {}, "version": "5", "datetime": "1970-01-01T00:00:00+00:00", "benchmarks": found}


def _stats(values: Sequence[float]) -> dict[str, Any]:
    data = np.asarray(values, dtype=float)
    low, middle, high = (float(q) for q in np.percentile(data, [25, 50, 75]))
    deviation = float(data.std(ddof=1)) if len(data) > 1 else 0.0
    return {
        "min": float(data.min()), "max": float(data.max()), "mean": float(data.mean()), "stddev": deviation, "rounds": len(data),
        "median": middle, "q1": low, "q3": high, "iqr": high - low, "ld15iqr": float(data.min()), "hd15iqr": float(data.max()),
        "iqr_outliers": 0, "stddev_outliers": 0, "outliers": "0;0", "ops": 1 / float(data.mean()) if data.mean() else 0.0,
        "total": float(data.sum()), "iterations": 1, "data": [float(v) for v in data],
    }  # fmt: skip
