"""The pages of docs/faults: up to date, complete, and every rule on them is one that the server takes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from rules import rule

from qemu_odx.faults.actions import ACTIONS

DOCS = Path(__file__).parents[3] / "docs"
PAGES = sorted((DOCS / "faults").glob("*.md"))
EXAMPLE = re.compile(r'--fault "([^"]+)"|fault arm "([^"]+)"|add "([^"]+)"')


def test_pages_are_up_to_date() -> None:
    """`docs/generate_faults.py` would write nothing new."""
    done = subprocess.run([sys.executable, DOCS / "generate_faults.py", "--check"], check=False)
    assert done.returncode == 0, "run .venv/bin/python docs/generate_faults.py"


def test_every_action_has_its_page() -> None:
    """With what Linux and Windows make of it, and an example."""
    assert {page.stem for page in PAGES} == {*ACTIONS, "README", "guest-control"}
    for name in ACTIONS:
        text = (DOCS / "faults" / f"{name}.md").read_text()
        for heading in (
            "## On the wire",
            "## What Linux makes of it",
            "## What Windows makes of it",
            "## Examples",
        ):
            assert len(text.partition(heading)[2].strip()) > 20, (name, heading)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_are_rules(page: Path) -> None:
    """Each is parsed, and does what its page is about."""
    found = [next(filter(None, match)) for match in EXAMPLE.findall(page.read_text())]
    assert found or page.stem == "README", page
    for text in found:
        if text != "RULE":
            action = rule(text).action.name
            assert page.stem in {action, "README", "guest-control"}, text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    """Within docs."""
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target
