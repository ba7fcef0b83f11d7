"""The documentation is run and compared: tutorial commands work, tables are current, links lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from windtunnel.cli import main
from windtunnel.commands.listing import _engine, _engine_names, engines_markdown, instances_markdown, workloads_markdown
from windtunnel.spec.catalogue import shipped

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.mark.timeout(600)
def test_the_tutorial_works_from_top_to_bottom(tmp_path: Path, data_root: Path) -> None:
    environment = {**os.environ, "WINDTUNNEL_DATA": str(data_root), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for language, text in _FENCE.findall((DOCS / "tutorial.md").read_text(encoding="utf-8")):
        if language == "toml":
            name = text.splitlines()[0].removeprefix("# ").strip()
            (tmp_path / name).write_text(text, encoding="utf-8")
            continue
        command = ["bash", "-euo", "pipefail", "-c", text] if language == "sh" else [sys.executable, "-c", text]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{text}\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}"
    assert (tmp_path / "first.html").stat().st_size > 20_000


def test_tables_of_engines_and_workloads_are_current() -> None:
    engines = engines_markdown([_engine(name) for name in _engine_names()])
    assert engines in (DOCS / "engines.md").read_text(encoding="utf-8"), "run `windtunnel engines --markdown`"
    assert workloads_markdown() in (DOCS / "workloads.md").read_text(encoding="utf-8"), "run `windtunnel workloads --markdown`"


def test_the_table_of_instance_types_is_current() -> None:
    table = instances_markdown(shipped().values())
    assert table in (DOCS / "instances.md").read_text(encoding="utf-8"), "run `windtunnel instances --markdown`"


def test_the_verdicts_are_those_of_the_evidence_that_ships(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Records of one's own in results/claims come before it, so a page made beside them may say something else."""
    main(["claims", "report", "--markdown", "--results", str(tmp_path)])
    told = capsys.readouterr().out.strip()
    again = "run `windtunnel claims report --markdown --results EMPTY`"
    assert "| 26 |" in told and told in (DOCS / "claims.md").read_text(encoding="utf-8"), again


def test_links_between_pages_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)[^)]*\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_record_page_names_every_field() -> None:
    from dataclasses import fields

    from windtunnel.records.record import RunRecord

    text = (DOCS / "records.md").read_text(encoding="utf-8")
    for field in fields(RunRecord):
        assert field.name in ("schema", "spans", "samples") or f"`{field.name}`" in text, field.name


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in DOCS.rglob("*.md"):
        assert str(page.relative_to(DOCS)) in navigation, page
