"""What renderers print: verdict first, nothing executable from a record, equal bytes for equal records."""

from __future__ import annotations

import io
import json
import re

import pytest
from rich.console import Console

from tests.reports.records import record, runs
from windtunnel.records.record import Recorder
from windtunnel.reports.compare import Comparison, build
from windtunnel.reports.render import charts, html, markdown, terminal
from windtunnel.reports.render.trace import chrome_trace
from windtunnel.reports.timeline import Bar, merged

EVIL = '"><script>alert(1)</script>{{ 7 * 7 }}'


@pytest.fixture
def comparison() -> Comparison:
    """Real and simulated runs, one failed."""
    good = [*runs("bulk", 2.0, 2.1, 1.9), *runs("streaming", 1.0, 1.1, 1.2), *runs("sim:bulk", 1.9, 1.9, 1.9)]
    return build([*good, record("spark", None)])


def test_the_page_holds_no_script_and_no_outside_address(comparison: Comparison) -> None:
    page = html.render(comparison)
    assert "<script" not in page
    assert not re.search(r"(src|href)\s*=", page)
    assert "http" not in page.replace("http-equiv", "")
    assert "default-src 'none'" in page


def test_what_records_say_is_shown_and_never_run() -> None:
    evil = runs("bulk", 1.0, 1.1, 1.2, label=EVIL, options={EVIL: EVIL}, workload=EVIL, experiment=EVIL)
    failed = record("spark", None, reason=EVIL)
    page = html.render(build([*evil, failed]))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "{{ 7 * 7 }}" in page
    assert "<script" not in markdown.render(build([*evil, failed]))


def test_a_span_cannot_leave_its_drawing() -> None:
    recorder = Recorder()
    recorder.spans.append((EVIL, EVIL, 0, 0, 0, 0.0, 1.0, 1, 1))
    page = html.render(build([record("bulk", 1.0, spans=recorder.span_table())]))
    assert "<script" not in page


def test_equal_records_give_equal_pages(comparison: Comparison) -> None:
    assert html.render(comparison) == html.render(comparison)


def test_every_configuration_and_failure_is_on_every_output(comparison: Comparison) -> None:
    out = io.StringIO()
    terminal.print_comparison(comparison, Console(file=out, width=160))
    for text in (html.render(comparison), markdown.render(comparison), out.getvalue()):
        for expected in ("bulk", "streaming", "sim:bulk", "spark", "a worker died", "against the measurement"):
            assert expected in text


def test_the_verdict_comes_first(comparison: Comparison) -> None:
    page = html.render(comparison)
    assert page.index(">Verdict<") < page.index(">Comparison<") < page.index(">Timelines<")
    out = io.StringIO()
    terminal.print_comparison(comparison, Console(file=out, width=160))
    assert out.getvalue().startswith("Verdict")


def test_a_pipe_and_no_color_get_plain_text(comparison: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    for terminal_like in (False, True):
        out = io.StringIO()
        terminal.print_comparison(comparison, Console(file=out, width=160, force_terminal=terminal_like, no_color=True))
        assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", out.getvalue())


def test_markdown_tables_have_equal_columns(comparison: Comparison) -> None:
    tables = [line for line in markdown.render(comparison).splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in tables[:6]}) == 1


def test_the_trace_has_a_process_a_run_and_a_thread_a_worker() -> None:
    trace = chrome_trace([*runs("bulk", 1.0), record("bulk", 9.0, -1, warmup=True)])
    events = json.loads(json.dumps(trace))["traceEvents"]
    assert {e["pid"] for e in events} == {1}
    spans = [e for e in events if e["ph"] == "X"]
    assert {e["tid"] for e in spans} == {0, 1, 2}
    compute = next(e for e in spans if e["cat"] == "compute")
    assert (compute["ts"], compute["dur"]) == (0.0, 0.5e6)
    assert any(e["ph"] == "C" and e["name"] == "memory_bytes" for e in events)


def test_bars_below_a_pixel_merge_and_long_ones_stay() -> None:
    tiny = [Bar("emit", "a", i * 0.001, i * 0.001 + 0.0009, 1) for i in range(1000)]
    bars = merged([*tiny, Bar("compute", "b", 1.0, 5.0, 1)], 0.01)
    assert len(bars) <= 110
    assert sum(b.count for b in bars) == 1001
    assert bars[-1].kind == "compute"


@pytest.mark.parametrize("highest", [0.0003, 0.7, 1.0, 12.0, 99.9, 4e5])
def test_ticks_are_round_and_few(highest: float) -> None:
    found = charts.ticks(highest)
    assert found[0] == 0.0
    assert found[-1] <= highest * 1.001
    assert 3 <= len(found) <= 7
