"""What the tests of the report share: a made-up study to read entries of, and a browser to look at a page."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest

from atlas.study.schema import signatures

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
DRIVER = shutil.which("chromedriver")
FLAGS = ["headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"]
FLAGS += ["disable-component-update", "disable-sync", "hide-scrollbars"]
CONTRAST = """
const parse = (text) => text.match(/[\\d.]+/g).map(Number);
const over = ([r, g, b, a = 1], [x, y, z]) => [r, g, b].map((c, i) => c * a + [x, y, z][i] * (1 - a));
const light = (color) => color.map((c) => c / 255).map((c) => c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
  .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
const ground = (node) => node === null ? [255, 255, 255]
  : over(parse(getComputedStyle(node).backgroundColor), ground(node.parentElement));
const ratio = (node) => {
  const [a, b] = [light(parse(getComputedStyle(node).color)), light(ground(node))].sort((x, y) => y - x);
  return (a + .05) / (b + .05);
};
const words = "h1, h2, h3, p, li, a, td, th, figcaption, .chip, button, select, dt, dd, code";
const nodes = [...document.querySelectorAll(words)];
return Math.min(...nodes.filter((node) => node.offsetParent !== null && node.innerText.trim()).map(ratio));
"""
# Pixels between the margins of A4, of half an inch.
PAPER = 698
UNFOLD = """
for (let one; (one = document.querySelector("noscript")); ) one.outerHTML = one.textContent;
for (const one of document.querySelectorAll("details")) one.open = true;
for (const one of document.querySelectorAll("[hidden]")) one.hidden = false;
"""
BEYOND = """
const right = (node) => node.getBoundingClientRect().right;
return [...document.querySelectorAll("table")]
  .filter((one) => !(one.offsetParent && right(one) <= right(one.closest(".card, main")) + 1))
  .map((one) => `${one.closest("section").id}: ${one.tHead.innerText}`);
"""


@contextmanager
def housed(folders: pytest.TempPathFactory, made: ModuleType) -> Iterator[Path]:
    """Write a study of made-up modules, which are those that entries are read from meanwhile.

    Args:
        folders: Where to write.
        made: The module that writes the house and the study.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signatures, "HOUSE", made.house(folders.mktemp("house") / "atlas"))
        signatures.signature.cache_clear()
        yield made.study(folders.mktemp("study"))
    signatures.signature.cache_clear()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if BROWSER is None or DRIVER is None:
        unseen()
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    options = ChromeOptions()
    options.binary_location = BROWSER
    for flag in [*FLAGS, f"user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=ChromeService(DRIVER, env=dict(os.environ)))
    yield driver
    driver.quit()


def unseen() -> NoReturn:
    """Skip what needs a browser; fail where ATLAS_BROWSER says that there must be one."""
    given_up = pytest.fail if os.environ.get("ATLAS_BROWSER") == "required" else pytest.skip
    given_up("no chromium with its chromedriver on this machine: the page was not looked at")


def visit(browser, study):
    """Open a study's report as it first shows, on a wide screen in the light, and wait until its charts are there."""
    from selenium.webdriver.support.wait import WebDriverWait

    look(browser)
    browser.get((study / "data/report/index.html").as_uri())
    WebDriverWait(browser, 60).until(lambda page: find(page, ".chart svg") and not find(page, ".chart > noscript"))
    return browser


def look(browser, *, width: int = 1280, scheme: str = "light", media: str = "") -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})


def beyond(page) -> list[str]:
    """Unfold everything and tell which tables are wider than the sheet of paper, or than their card on it."""
    page.execute_script(UNFOLD)
    look(page, width=PAPER, media="print")
    return page.execute_script(BEYOND)


def find(page, selector: str) -> list:
    return page.find_elements("css selector", selector)
