"""JUnit XML of a report: a test suite for each guest, with its properties.

May import: model, text. Next: `write.py` puts it beside the page, for the CI that shows it.
The schema is that of Jenkins' xUnit plug-in, `junit-10.xsd`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from qemu_odx.report.text import printable

if TYPE_CHECKING:
    from qemu_odx.report.model import Case, Report, Suite

ELEMENTS = {"failed": "failure", "error": "error", "skipped": "skipped"}


def junit_xml(report: Report) -> bytes:
    """The XML document, in UTF-8."""
    root = ET.Element("testsuites", name=printable(report.title), time=_seconds(report.seconds))
    _count(root, report.suites)
    for suite in report.suites:
        root.append(_suite(suite, report.started.isoformat(timespec="seconds")))
    ET.indent(root)
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document


def _suite(suite: Suite, started: str) -> ET.Element:
    total = sum(case.seconds for case in suite.cases)
    element = ET.Element("testsuite", name=printable(suite.name), timestamp=started, time=_seconds(total))
    _count(element, [suite])
    element.set("skipped", str(suite.count("skipped")))
    if suite.properties:
        properties = ET.SubElement(element, "properties")
        for name, value in suite.properties.items():
            ET.SubElement(properties, "property", name=printable(name), value=printable(value))
    for case in suite.cases:
        element.append(_case(case, suite.name))
    return element


def _case(case: Case, suite: str) -> ET.Element:
    element = ET.Element(
        "testcase", name=printable(case.name), classname=printable(suite), time=_seconds(case.seconds)
    )
    if case.outcome in ELEMENTS:
        why = ET.SubElement(element, ELEMENTS[case.outcome], message=printable(case.message))
        why.text = printable(case.details)
    return element


def _count(element: ET.Element, suites: tuple[Suite, ...] | list[Suite]) -> None:
    element.set("tests", str(sum(len(suite.cases) for suite in suites)))
    element.set("failures", str(sum(suite.count("failed") for suite in suites)))
    element.set("errors", str(sum(suite.count("error") for suite in suites)))


def _seconds(value: float) -> str:
    return f"{value:.3f}"
