"""The page in Chromium, from a file and offline: it asks for nothing, reports no error, and its controls work.

Chromium and its driver are Debian's `chromium` and `chromium-driver`.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from pipeline.competition.table import read_train
from pipeline.events import notes_into
from pipeline.run.folder import RunFolder
from tests.conftest import PROJECT
from tests.e2e.commands import cv, verb
from tests.report.simulated import HOSTILE, simulate

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="needs chromium and chromedriver in the PATH"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of the driver's sockets
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,900"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    downloads = tmp_path_factory.mktemp("downloads")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.downloads = downloads  # type: ignore[attr-defined]
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a short run of digit scenes, written by run_cv.py."""
    place = tmp_path_factory.mktemp("scenes")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert cv(patch, PROJECT / "configs/demo.yaml", "--debug", "train.workers=0", "train.parallel_folds=1") == 0
    return place / "runs/demo-debug/report.html"


def _log(browser: webdriver.Chrome, kind: str) -> list[dict[str, Any]]:
    """The entries since the last call."""
    entries: list[dict[str, Any]] = browser.get_log(kind)  # type: ignore[no-untyped-call]
    return entries


def _opened(browser: webdriver.Chrome, page: Path) -> Callable[[str], Any]:
    """Opens the page; returns the evaluation of a script in it."""
    _log(browser, "performance")
    _log(browser, "browser")
    browser.get(page.absolute().as_uri())
    return lambda script: browser.execute_script(script)


def _requests(browser: webdriver.Chrome) -> list[str]:
    events = [json.loads(entry["message"])["message"] for entry in _log(browser, "performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return [url for url in asked if not url.startswith(("data:", "blob:"))]


def test_the_page_of_a_trained_run_works_offline(browser: webdriver.Chrome, trained: Path) -> None:
    run = _opened(browser, trained)
    column = "[...document.querySelectorAll('#labels tbody tr')].map(row => row.cells[%d].textContent)"
    press = "document.querySelectorAll('#labels th button')[%d].click();"
    positives = [int(value) for value in run(press % 1 + f"return {column % 1}")]
    assert positives == sorted(positives, reverse=True)
    assert len(positives) == 10
    names = run(press % 0 + f"return {column % 0}")
    assert names == sorted(names)
    run("const e = document.querySelector('[data-table=labels]'); e.value = 'Eight'; e.oninput()")
    shown = run(
        "return [...document.querySelectorAll('#labels tbody tr:not([hidden])')].map(r => r.cells[0].innerText)"
    )
    assert shown == ["eight"]
    run("document.querySelector('#labels tbody tr:not([hidden]) [data-label]').click()")
    assert run("return document.querySelector('#detail h3').textContent") == "eight"
    assert run("return document.querySelectorAll('#detail svg').length") == 3
    assert run("return document.querySelectorAll('#epochs svg').length") == 2
    run("document.getElementById('pick').selectedIndex = 1; document.getElementById('pick').onchange()")
    assert run("return new Set([...document.querySelectorAll('#gallery b')].map(e => e.textContent)).size") == 1
    assert run("return [...document.images].every(e => e.complete && e.naturalWidth > 1)")
    assert run("return document.querySelectorAll('#gallery .picture img + img').length") > 0
    time.sleep(0.5)
    assert _requests(browser) == [trained.absolute().as_uri()]
    assert _log(browser, "browser") == []


def test_the_ticked_errors_are_downloaded_and_correct_the_table(
    browser: webdriver.Chrome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    labels = ['a "b", c', "고양이"]
    simulated = simulate("one", labels, 120, noise=0.5, competition={"encoding": "utf-8"})
    verb("report", simulated.path)
    run = _opened(browser, simulated.report)
    count = len(run("document.getElementById('tick').click(); return [...document.querySelectorAll('#doubts input')]"))
    assert count > 5
    run("document.getElementById('download').click()")
    file: Path = browser.downloads / "corrections.csv"  # type: ignore[attr-defined]
    for _ in range(100):
        time.sleep(0.1)
        if file.exists():
            break
    shutil.move(file, "data/corrections.csv")
    config = simulated.read_config().competition
    notes: list[str] = []
    corrected = read_train(config.model_copy(update={"corrections": "corrections.csv"}), notes_into(notes))
    before = pd.read_csv("data/train.csv")[labels].to_numpy()
    assert int((corrected.targets != before).sum()) == count
    assert any(f"{count} label cells are corrected" in note for note in notes)


def test_hostile_names_do_nothing(browser: webdriver.Chrome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ids = [f"{name} {number}" for number in range(7) for name in HOSTILE]
    simulated, second = simulate("<b>x", HOSTILE, ids=ids), simulate("two", HOSTILE, ids=ids)
    verb("report", simulated.path)
    run = _opened(browser, simulated.report)
    for place, name in enumerate(HOSTILE):
        run(f"document.querySelectorAll('[data-label]')[{place}].click()")
        assert run("return document.querySelector('#detail h3').textContent") == name
    assert run(
        "return window.hacked === undefined && document.querySelectorAll('img[onerror], bdi script').length === 0"
    )
    assert run("return document.documentElement.scrollWidth <= innerWidth")
    assert _log(browser, "browser") == []
    verb("report", simulated.path, second.path, "--out", "both.html")
    run = _opened(browser, Path("both.html"))
    assert run("return window.hacked === undefined && document.querySelectorAll('#per-label tbody tr').length") == 8
    links = run("return [...document.querySelectorAll('#board a')].map(e => decodeURI(e.href))")
    assert links == [f"file://{RunFolder(Path('runs/<b>x')).report.absolute()}"]
    assert _log(browser, "browser") == []
