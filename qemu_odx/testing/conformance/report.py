"""What came of checks, for people and for programs: lines of text, one JSON object, JUnit XML.

Standard library only: part of the kit that is copied into guests.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from qemu_odx.testing.conformance.bench import said
from qemu_odx.testing.conformance.run import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qemu_odx.testing.conformance.bench import Step
    from qemu_odx.testing.conformance.run import Result

_SHOWN = 64
"""Bytes of data that a report shows of each transfer."""
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd]")


def counts(results: Sequence[Result]) -> dict[str, int]:
    """How many passed, failed and were skipped."""
    found = Counter(result.verdict for result in results)
    return {"passed": found[Verdict.PASS], "failed": found[Verdict.FAIL], "skipped": found[Verdict.SKIP]}


def as_object(results: Sequence[Result], device: str) -> dict[str, Any]:
    """Everything, for JSON."""
    return {"device": device, "checks": [_check(result) for result in results], **counts(results)}


def _check(result: Result) -> dict[str, Any]:
    return {
        "id": result.check.id,
        "clause": result.check.clause,
        "proves": result.check.title,
        "destructive": result.check.destructive,
        "verdict": result.verdict.value,
        "why": result.why,
        "seconds": round(result.seconds, 3),
        "steps": [_step(step) for step in result.steps],
    }


def _step(step: Step) -> dict[str, Any]:
    return {
        "nexus": step.nexus,
        "lun": step.lun,
        "sent": step.cdb.hex(),
        "data_out": _hex(step.data_out),
        "data_out_length": len(step.data_out),
        "answer": said(step.answer),
        "status": step.answer.status,
        "sense": step.answer.sense.hex(),
        "data_in": _hex(step.answer.data),
        "data_in_length": len(step.answer.data),
        "expected": step.expected,
    }


def _hex(data: bytes) -> str:
    return data[:_SHOWN].hex() + ("..." if len(data) > _SHOWN else "")


def as_lines(results: Sequence[Result], *, every: bool = False) -> list[str]:
    """A line for each check, what was sent and answered for the failed ones (for all if `every`), and a sum."""
    lines = []
    for result in results:
        why = f": {result.why}" if result.why else ""
        lines.append(f"{result.verdict.value:4}  {result.check.id}  [{result.check.clause}]{why}")
        if every or result.verdict is Verdict.FAIL:
            lines += [f"      {line}" for step in result.steps for line in step_lines(step)]
    found = counts(results)
    lines.append(", ".join(f"{number} {words}" for words, number in found.items()))
    return lines


def step_lines(step: Step) -> list[str]:
    """A command in words: bytes sent, answer, what was expected."""
    sent = f"sent {step.cdb.hex(' ')} to LUN {step.lun}"
    if step.data_out:
        sent += f", data-out {len(step.data_out)} bytes {_hex(step.data_out)}"
    got = f"  answer {said(step.answer)}"
    if step.answer.sense:
        got += f", sense {step.answer.sense.hex()}"
    if step.answer.data:
        got += f", data-in {_hex(step.answer.data)}"
    return [sent, got, *([f"  expected {'; '.join(step.expected)}"] if step.expected else [])]


def as_junit(results: Sequence[Result], device: str) -> bytes:
    """JUnit XML: a suite for each family, a case for each check."""
    root = ET.Element("testsuites", name=f"qemu-odx conform {device}")
    for family in dict.fromkeys(result.check.family for result in results):
        mine = [result for result in results if result.check.family == family]
        found = counts(mine)
        suite = ET.SubElement(
            root,
            "testsuite",
            name=family,
            tests=str(len(mine)),
            failures=str(found["failed"]),
            skipped=str(found["skipped"]),
            errors="0",
            time=f"{sum(result.seconds for result in mine):.3f}",
        )
        for result in mine:
            _case(suite, result)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))


def _case(suite: ET.Element, result: Result) -> None:
    name, time = result.check.name, f"{result.seconds:.3f}"
    case = ET.SubElement(suite, "testcase", classname=f"conform.{suite.get('name')}", name=name, time=time)
    if result.verdict is Verdict.SKIP:
        ET.SubElement(case, "skipped", message=_plain(result.why))
    if result.verdict is Verdict.FAIL:
        failure = ET.SubElement(case, "failure", message=_plain(result.why))
        failure.text = _plain("\n".join(line for step in result.steps for line in step_lines(step)))
    ET.SubElement(case, "system-out").text = f"{result.check.clause}: {result.check.title}"


def _plain(text: str) -> str:
    """Text without the characters that XML cannot hold."""
    return _NOT_XML.sub("?", text)
