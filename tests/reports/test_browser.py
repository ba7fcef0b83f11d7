"""The page in a real browser without a network: no script error, nothing asked for, readable on a phone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.reports.records import record, runs
from windtunnel.reports.compare import build
from windtunnel.reports.render import html

pytestmark = pytest.mark.browser
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Headless Chromium that writes down every request."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    driver = shutil.which("chromedriver")
    if driver is None:
        pytest.skip("no chromedriver here: apt-get install chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("chromium-browser") or ""
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    found = webdriver.Chrome(options=options, service=Service(driver))
    found.execute_cdp_cmd("Network.enable", {})
    found.execute_cdp_cmd(
        "Network.emulateNetworkConditions", {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    )
    yield found
    found.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with everything in it."""
    good = [*runs("bulk", 2.0, 2.1, 1.9), *runs("streaming", 1.0, 1.1, 1.2), *runs("sim:bulk", 1.9, 1.9, 1.9)]
    long = runs("duckdb", 1.0, 1.1, 1.2, label="duckdb-with-a-very-long-label-that-nobody-would-choose-" * 2)
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html.render(build([*good, *long, record("spark", None)])), encoding="utf-8")
    return path


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_stands_alone_and_fits(browser: Any, page: Path, width: int) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    )
    browser.get_log("performance")
    browser.get(page.as_uri())
    assert browser.get_log("browser") == []
    assert _requests(browser) == {page.as_uri()}
    sections = browser.execute_script("return [...document.querySelectorAll('section')].map(s => s.id)")
    assert sections == [
        "verdict",
        "comparison",
        "bottlenecks",
        "effects",
        "parts",
        "fidelity",
        "timelines",
        "options",
        "environment",
        "numbers",
    ]
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script("return document.querySelectorAll('svg[aria-label] rect').length") > 0


def _requests(browser: Any) -> set[str]:
    messages = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    return {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}


def test_a_folded_timeline_opens(browser: Any, page: Path) -> None:
    browser.get(page.as_uri())
    summary = browser.find_elements("css selector", "#timelines details:not([open]) summary")[0]
    browser.execute_script("arguments[0].scrollIntoView()", summary)
    summary.click()
    assert summary.find_element("xpath", "..").get_attribute("open") is not None
