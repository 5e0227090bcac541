"""The monitor's page is that of the commands as they are, and its examples are what the schema allows."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from qemu_odx.server.monitor.general import schema
from qemu_odx.server.monitor.table import COMMANDS, EVENTS
from qemu_odx.testing.qapi import Schema

if TYPE_CHECKING:
    from types import ModuleType

DOCS = Path(__file__).parents[4] / "docs"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """The script that writes the page."""
    spec = importlib.util.spec_from_file_location("generate_monitor", DOCS / "generate_monitor.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(generator: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would write nothing new."""
    monkeypatch.setattr(sys, "argv", ["generate_monitor.py", "--check"])
    assert generator.main() == 0, "run .venv/bin/python docs/generate_monitor.py"


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_an_example_that_is_right(generator: ModuleType, name: str) -> None:
    """The request is one of this command, arguments and answer fit its schema."""
    sent, _, received = generator.example(COMMANDS[name].handler).partition("\n<- ")
    assert sent.startswith("-> "), f"{name} has no example"
    request: dict[str, Any] = json.loads(sent.removeprefix("-> "))
    types = Schema(list(schema()))
    assert request["execute"] == name
    types.check_arguments(name, request.get("arguments", {}))
    types.check_return(name, json.loads(received)["return"])


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_argument_is_described(generator: ModuleType, name: str) -> None:
    """By a sentence, unless it is an option of the command line."""
    command = COMMANDS[name]
    told = generator.entries(generator.sections(command.handler).get("Args", ""))
    if not command.boxed:
        assert set(told) == set(command.arguments)


def test_every_event_is_described(generator: ModuleType) -> None:
    """Each member of it."""
    for event in EVENTS:
        told = generator.entries(generator.sections(event.data).get("Attributes", ""))
        assert set(told) == set(generator.members_of(event.data)), event.name


def test_the_schema_is_closed() -> None:
    """Every type that is named is described, and used."""
    types = Schema(list(schema()))
    kinds = set.union(*(types.names(meta) for meta in ("object", "array", "enum", "builtin")))
    assert types.references() == kinds
    assert types.names("command") == set(COMMANDS)
    assert types.names("event") == {event.name for event in EVENTS}
