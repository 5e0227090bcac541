"""The manual of the conformance kit tells of the checks that there are."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from qemu_odx.testing.conformance.checks import all_checks
from qemu_odx.testing.conformance.events import _EVENTS

DOCS = Path(__file__).parents[3] / "docs"


def test_the_table_is_up_to_date() -> None:
    """`docs/generate_conformance.py` would write nothing new."""
    command = [sys.executable, DOCS / "generate_conformance.py", "--check"]
    done = subprocess.run(command, check=False)
    assert done.returncode == 0, "run .venv/bin/python docs/generate_conformance.py"


def test_every_check_says_what_it_proves() -> None:
    """Names are unique; each has a clause and a sentence."""
    checks = all_checks()
    assert len({check.id for check in checks}) == len(checks)
    for check in checks:
        assert check.clause, check.id
        assert check.title.endswith("."), check.id


def test_the_events_of_the_manual_exist() -> None:
    """Each event that the manual names is one that replay knows."""
    (row,) = re.findall(r"^\| `event` \|(.*)\|$", (DOCS / "conformance.md").read_text(), re.MULTILINE)
    named = set(re.findall(r"`(\w+)`", row)) - {"seconds"}
    assert named <= set(_EVENTS)
