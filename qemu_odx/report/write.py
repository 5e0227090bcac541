"""The files of a report: `index.html`, `junit.xml`, `report.json`.

May import: model, page, junit. The command line and the pytest plug-in call `write_report`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from qemu_odx.report.junit import junit_xml
from qemu_odx.report.page import html_page

if TYPE_CHECKING:
    from pathlib import Path

    from qemu_odx.report.model import Report

PAGE, JUNIT, JSON = "index.html", "junit.xml", "report.json"


def write_report(report: Report, folder: Path) -> Path:
    """Write the three files into `folder`, made if need be; the path of the page.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / JUNIT).write_bytes(junit_xml(report))
    (folder / JSON).write_text(json.dumps(report.as_json(), indent=1) + "\n", "utf-8")
    page = folder / PAGE
    page.write_text(html_page(report), "utf-8")
    return page
