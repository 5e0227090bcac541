"""The PowerShell scripts parse, by tree-sitter's grammar: PowerShell itself cannot be had from the package managers.

A look at their syntax and no more; none of them has been run.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import tree_sitter
import tree_sitter_powershell

SCRIPTS = sorted((Path(__file__).parents[2] / "guest_scripts" / "windows").glob("*.ps1"))
PARSER = tree_sitter.Parser(tree_sitter.Language(tree_sitter_powershell.language()))


def broken(text: str) -> bool:
    """True if the grammar does not fit."""
    return PARSER.parse(text.encode()).root_node.has_error


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_it_parses(script: Path) -> None:
    """Whole, and not without its last brace."""
    text = script.read_text()
    assert not broken(text)
    head, brace, tail = text.rpartition("}")
    assert brace
    assert broken(head + tail)


def test_there_are_six() -> None:
    """Status, doctor, events, versions, install, remove."""
    assert len(SCRIPTS) == 6
