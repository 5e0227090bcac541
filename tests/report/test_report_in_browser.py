"""The report as a browser shows it: not blank, no console message, no request but for the page itself."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from PIL import Image
from sample_report import sample_report

from qemu_odx.report.write import write_report

if TYPE_CHECKING:
    from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = (
    "--headless",
    "--no-sandbox",  # it refuses to run as root otherwise
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
NO_PAGE = "not an origin"
PATIENCE = 100


def show(page: Path, folder: Path, width: int, height: int, *extra: str) -> tuple[Image.Image, list[str]]:
    """What a window of that size shows of a page, and every URL that it asked for."""
    shot, log = folder / f"{width}.png", folder / f"{width}.net.json"
    places = [f"--screenshot={shot}", f"--log-net-log={log}", f"--user-data-dir={folder / f'user{width}'}"]
    command = [CHROMIUM or "", *QUIET, f"--window-size={width},{height}", *places, *extra, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert "CONSOLE" not in done.stderr, done.stderr
    return Image.open(shot).convert("RGB"), requested(log)


def requested(log: Path) -> list[str]:
    """What the page asked for, from a net log; a browser's own requests have no page as their initiator."""
    events = [event["params"] for event in json.loads(log.read_text())["events"] if "params" in event]
    return [event["url"] for event in events if event.get("initiator", NO_PAGE) != NO_PAGE]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (package chromium)")
@pytest.mark.parametrize(("width", "height"), [(1000, 2600), (500, 3600)], ids=["desktop", "narrow"])
def test_the_page_shows_itself_and_asks_for_nothing(tmp_path: Path, width: int, height: int) -> None:
    """It has text, bars in both series' colours, and needs nothing from outside."""
    page = write_report(sample_report(), tmp_path / "report")
    image, urls = show(page, tmp_path, width, height)
    assert image.size == (width, height)
    colours = {colour: count for count, colour in image.getcolors(1 << 24) or ()}
    for series in ((0x22, 0x67, 0xC4), (0xC2, 0x62, 0x0A)):
        assert colours.get(series, 0) > 1000
    assert colours.get((0xE3, 0xF3, 0xE9), 0) > 10_000  # the verdict's green
    rows = [image.crop((0, top, width, top + 200)) for top in range(0, 1600, 200)]
    assert all(len(row.getcolors(1 << 24) or ()) > 20 for row in rows), "a stretch of the page is blank"
    assert urls == []


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (package chromium)")
def test_a_page_that_asks_for_more_is_noticed(tmp_path: Path) -> None:
    """The look at the net log can fail."""
    page = tmp_path / "bad.html"
    page.write_text("<img src='http://127.0.0.1:9/x.png'><p>text")
    _, urls = show(page, tmp_path, 300, 300)
    assert any(url.startswith("http://127.0.0.1:9/x.png") for url in urls)
