"""A page in a real browser: Debian's chromium, headless. What asks for it skips where there is none."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from singlestream.explain.report import Report, write_report

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")


@pytest.fixture(scope="module", name="browser")
def start_browser() -> Iterator[Any]:
    if not (CHROMIUM and DRIVER):
        pytest.skip("no chromium and chromedriver here (Debian: apt-get install chromium-driver)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
        yield driver
        driver.quit()


def show(browser: Any, report: Report, folder: Path, *, width: int = 1280) -> None:
    write_report(report, folder / "report.html")
    open_page(browser, folder / "report.html", width=width)


def open_page(browser: Any, path: Path, *, width: int = 1280) -> None:
    size = dict(width=width, height=900, deviceScaleFactor=1, mobile=width < 500)
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(path.as_uri())


def complaints(browser: Any) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser")]


def veils(browser: Any) -> list[str]:
    script = "return [...document.querySelectorAll('.patch')].map((n) => n.style.getPropertyValue('--veil'))"
    return browser.execute_script(script)


def text_of(browser: Any, selector: str) -> str:
    return browser.execute_script("return document.querySelector(arguments[0]).textContent", selector)


def hover(browser: Any, selector: str) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    node = browser.find_element(By.CSS_SELECTOR, selector)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", node)
    ActionChains(browser).move_to_element(node).perform()
