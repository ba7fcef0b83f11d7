"""What a terminal gets: no escape code with NO_COLOR or through a pipe, and what forbids comparing before any verdict."""

from __future__ import annotations

import os
import pty
import sys
import threading

import pytest

from tests.reports.records import HOST, record, runs
from windtunnel.reports.compare import Comparison, build
from windtunnel.reports.render.terminal import print_comparison


@pytest.fixture
def comparison() -> Comparison:
    """Two engines, a failure and a simulation without a measurement."""
    return build([*runs("bulk", 2.0, 2.1, 1.9), *runs("polars", 1.0, 1.1, 1.2), *runs("sim:spark", 3.0), record("spark", None)])


def printed_on_a_terminal(comparison: Comparison, monkeypatch: pytest.MonkeyPatch) -> str:
    ours, theirs = pty.openpty()
    chunks: list[bytes] = []
    reader = threading.Thread(target=lambda: chunks.extend(iter(lambda: _read(ours), b"")))
    reader.start()  # what is printed must be drained, or a full buffer would block
    with os.fdopen(theirs, "w", encoding="utf-8") as stdout, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stdout)
        patch.setenv("TERM", "xterm-256color")
        patch.setenv("COLUMNS", "120")
        print_comparison(comparison)
    reader.join()
    os.close(ours)
    return b"".join(chunks).decode()


def _read(descriptor: int) -> bytes:
    """Linux ends a terminal that nobody writes to with an error."""
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""


@pytest.mark.linux
def test_no_color_leaves_no_escape_code(comparison: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[" in printed_on_a_terminal(comparison, monkeypatch)
    monkeypatch.setenv("NO_COLOR", "1")
    text = printed_on_a_terminal(comparison, monkeypatch)
    assert "polars is fastest" in text
    assert "\x1b" not in text


def test_a_pipe_gets_plain_text(comparison: Comparison, capsys: pytest.CaptureFixture[str]) -> None:
    print_comparison(comparison)
    text = capsys.readouterr().out
    assert text.startswith("Verdict")
    assert "\x1b" not in text
    assert "1 failed: a worker died" in text
    assert "no measurement" in text


def test_what_forbids_comparing_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere = {**HOST, "kernel": "7"}
    print_comparison(build([*runs("bulk", 1.0), *runs("polars", 1.0, environment=elsewhere)]))
    assert capsys.readouterr().out.startswith("not comparable: the real runs come from 2 different hosts")
