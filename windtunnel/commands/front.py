"""The front page of a demo: one HTML file that leads to the comparison, the claims, a plan and the simulator's fidelity.

Owns which pages there are and their words; each is derived from what is already stored or simulated in a second or two.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windtunnel.commands.report import write_html, write_page

if TYPE_CHECKING:
    from windtunnel.reports.compare import Comparison
    from windtunnel.reports.render.tables import Section
    from windtunnel.sim.costs.measured import Calibration, HeldOut

PLANNED = ("batch_inference_resnet50", "--deadline", "10min", "--count", "1-4")
_LIKE = f"windtunnel plan {' '.join(PLANNED)}"


def write_front(folder: Path, comparison: Comparison, calibration: Path) -> Path:
    """``index.html`` and the pages it leads to; the first is returned."""
    from windtunnel.reports.render.tables import Page, render
    from windtunnel.sim.costs.measured import Calibration

    write_html(comparison, folder / "report.html")
    known = Calibration.load(calibration)
    cards = (
        _comparison(comparison), _claims(folder / "claims.html"), _plan(folder / "plan.html"), _fidelity(folder / "fidelity.html", known),
    )  # fmt: skip
    lead = (
        "The same workloads on several execution models, for real on this machine and in a simulated cluster. Every simulated number "
        "stands beside its measured error.",
    )
    index = folder / "index.html"
    write_page(index, render(Page(title="What the wind tunnel shows", lead=lead, sections=cards)))
    return index


def _comparison(comparison: Comparison) -> Section:
    from windtunnel.reports.render.tables import Section
    from windtunnel.reports.render.words import fidelity_sentence

    told = [fidelity_sentence(comparison.fidelity)] if comparison.fidelity.points else []
    return Section(
        title="Comparison: which execution model runs this job faster?", lines=(*comparison.verdicts, *told), link="report.html",
        command="windtunnel run -w tpch_q5 -e streaming -e bulk -e duckdb --results mine && windtunnel report mine --html mine.html",
    )  # fmt: skip


def _claims(path: Path) -> Section:
    from windtunnel.commands.claims import verdicts
    from windtunnel.reports.claims import load_all
    from windtunnel.reports.render.claims_page import page
    from windtunnel.reports.render.tables import Section

    found = verdicts(load_all(), Path("results") / "claims")
    write_page(path, page(found))
    counts = Counter("not tested here" if v.claim.untested else v.outcome for v in found)
    told = ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())
    return Section(
        title="Claims: what is said about engines, tested", link=path.name, command="windtunnel claims run --html claims.html",
        lines=(f"{len(found)} claims: {told}. The page says where each one flips, real beside simulated.",),
    )  # fmt: skip


def _plan(path: Path) -> Section:
    """A published job as an example: answered in a second."""
    from windtunnel.commands.plan import answered
    from windtunnel.commands.plan_tables import sentences, table_of
    from windtunnel.reports.render.tables import Page, Section, render

    result = answered(*PLANNED)
    lines = sentences(result)
    heads, rows = table_of(result)
    lead = ("Published job: ResNet-50 over 16,232 images, to be done in ten minutes at the least cost.", f"By: {_LIKE}")
    table = Section(title="Front of cost against time", heads=heads, rows=rows)
    write_page(path, render(Page(title="Plan", lead=lead, sections=(table, Section(title="What follows", lines=lines)))))
    return Section(title="Plan: which engine on which cluster meets a deadline?", lines=lines[:2], command=_LIKE, link=path.name)


def _fidelity(path: Path, calibration: Calibration) -> Section:
    from windtunnel.reports.render.tables import Page, Section, render
    from windtunnel.sim.judging.prediction import published

    sections = [
        _cells("Cells of this machine, held out of the calibration in turn", calibration.held_out),
        _cells("Published batch jobs that nothing was fitted to", published()),
        _cells("Published serving runs that nothing was fitted to", published(serving=True)),
    ]
    shown = [s for s in sections if s.rows]
    lead = (
        "Simulated times beside measured ones. From their errors follow the 90 % intervals that every simulated time carries. "
        "The last column is where the error of a cell should lie by what all other cells say.",
    )
    write_page(path, render(Page(title="Fidelity: how far the simulator is off", lead=lead, sections=shown)))
    return Section(
        title="Fidelity: how far is the simulator off?", lines=[f"{s.title}: {s.lines[0]}" for s in shown], link=path.name,
        command="windtunnel validate",
    )  # fmt: skip


def _cells(title: str, cells: Any) -> Section:
    from windtunnel.reports.render.tables import Section
    from windtunnel.sim.judging.prediction import coverage, engine_law

    inside, of = coverage(cells)
    laws = {c.engine: engine_law([o for o in cells if o is not c], c.engine) for c in cells}
    errors = sorted(abs(c.simulated_s / c.measured_s - 1) for c in cells)
    line = (
        f"{len(cells)} cells, median error {errors[len(errors) // 2]:.1%}, {inside} of {of} inside their 90 % interval"
        if cells
        else ""
    )
    return Section(
        title=title, lines=[line] if line else [], heads=("cell", "engine", "measured", "simulated", "error", "90 % interval of the error"),
        rows=[_cell(c, laws[c.engine]) for c in cells],
    )  # fmt: skip


def _cell(cell: HeldOut, law: Any) -> tuple[str, ...]:
    from windtunnel.spec.units import format_seconds

    low, high = law.factors() if law else (1.0, 1.0)
    return (
        f"{cell.group.replace('_', ' ')}: {cell.cell}" if cell.group not in cell.cell else cell.cell, cell.engine,
        format_seconds(cell.measured_s), format_seconds(cell.simulated_s), f"{cell.simulated_s / cell.measured_s - 1:+.1%}",
        f"{1 / high - 1:+.0%} to {1 / low - 1:+.0%}" if law else "–",
    )  # fmt: skip
