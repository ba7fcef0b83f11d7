"""The front page leads to pages that are there, and its numbers are those of the things it leads to."""

from __future__ import annotations

import re
from pathlib import Path

from tests.reports.records import runs
from windtunnel.commands.front import write_front
from windtunnel.reports.compare import build
from windtunnel.reports.render.tables import Page, Section, render
from windtunnel.sim.costs.measured import Calibration, HeldOut


def test_the_first_page_leads_to_all_others(tmp_path: Path) -> None:
    held_out = tuple(
        HeldOut(engine="bulk", cell=f"q{n}", group="q", cpus=2, measured_s=1.0 + n / 100, simulated_s=1.0) for n in range(6)
    )
    Calibration(held_out=held_out).save(tmp_path / "calibration.json")
    comparison = build([*runs("bulk", 2.0, 2.1, 2.2), *runs("streaming", 1.0, 1.1, 1.2)])
    first = write_front(tmp_path / "pages", comparison, tmp_path / "calibration.json")
    text = first.read_text(encoding="utf-8")
    links = re.findall(r'href="([^"]+)"', text)
    assert links == ["report.html", "claims.html", "plan.html", "fidelity.html"]
    for link in links:
        assert "<script" not in (first.parent / link).read_text(encoding="utf-8")
    assert comparison.verdicts[0][:30] in text and "keeps the objective with probability" in text
    assert "6 cells, median error" in text and "26 claims" in text


def test_what_pages_show_is_escaped() -> None:
    html = render(
        Page(title="<b>", lead=("<i>",), sections=(Section(title="<u>", lines=("&",), heads=("<h>",), rows=(("<r>",),)),))
    )
    assert all(part not in html for part in ("<b>", "<i>", "<u>", "<h>", "<r>")) and "&lt;r&gt;" in html
